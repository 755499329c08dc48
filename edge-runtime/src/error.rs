//! What keeps an edge from starting or makes it end, in words that say the way out.

use std::io;
use std::path::{Path, PathBuf};

use sluice_state_dir::LockError;
use sluice_transport::JoinError;
use sluice_transport::identity::{IdentityError, TokenError};

use crate::runner::ContextError;
use crate::store::StoreError;

/// The program's exit code for an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// Failed, or not allowed.
    Failed = 1,
    /// Wrong usage or invalid input.
    Usage = 2,
    /// The orchestrator cannot be reached.
    Unreachable = 4,
}

/// Why the edge does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A file or directory of the state directory cannot be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error(
        "{} is in use by another edge ({holder}): stop that one first, or give this one its own --state-dir",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Which process.
        holder: String,
    },
    /// `edge.toml` is not what it should be.
    #[error("{}, line {line}: {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Where in it, from 1.
        line: usize,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// An option that cannot be used.
    #[error("{problem}")]
    Usage {
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The directory has not joined a cluster, and there is nothing to join with.
    #[error(
        "{} has not joined a cluster yet: make a token with `sluice token create` and start with \
         --name NAME --join TOKEN",
        path.display()
    )]
    NotJoined {
        /// The directory.
        path: PathBuf,
    },
    /// The join token is not one.
    #[error("the join token cannot be used")]
    Token(#[from] TokenError),
    /// The orchestrator could not be asked to let this edge join.
    #[error("cannot join")]
    Join(#[source] JoinError),
    /// The orchestrator did not let this edge join.
    #[error("the orchestrator refused to let this edge join ({code}): {message}")]
    Refused {
        /// A stable word.
        code: String,
        /// Its words.
        message: String,
    },
    /// The orchestrator's answer to joining makes no sense.
    #[error("the orchestrator's answer to joining makes no sense: {problem}")]
    Answer {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Keys or certificates.
    #[error("cannot use this edge's identity")]
    Identity(#[from] IdentityError),
    /// The store.
    #[error("cannot use the edge's store")]
    Store(#[from] StoreError),
    /// The sandbox.
    #[error("cannot run stages on this machine")]
    Sandbox(#[from] ContextError),
    /// The machine gave no random numbers, no thread, or no answer of its disk.
    #[error("this machine cannot {what}")]
    Machine {
        /// What it cannot.
        what: &'static str,
        /// Its word.
        source: io::Error,
    },
    /// The control thread is gone without a word.
    #[error("the edge's control thread ended unexpectedly; this is a bug")]
    Broken,
}

impl EdgeError {
    /// The program's exit code for it.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config { .. } | Self::Usage { .. } | Self::NotJoined { .. } | Self::Token(_) => {
                ExitCode::Usage
            }
            Self::Join(_) => ExitCode::Unreachable,
            _ => ExitCode::Failed,
        }
    }

    /// Why the lock of a state directory is not ours.
    pub(crate) fn lock(state_dir: &Path, error: LockError) -> Self {
        match error {
            LockError::InUse { holder } => Self::InUse {
                path: state_dir.to_owned(),
                holder,
            },
            LockError::Io {
                action,
                path,
                source,
            } => Self::file(action, path, source),
        }
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File {
            action,
            path: path.into(),
            source,
        }
    }
}
