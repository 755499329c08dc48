//! Outputs: where records go, and when they are safe there.
//!
//! [`Output`] is a closed set with one variant for each connector. Batches are accepted in order and acked in order, so
//! that one number says which are safe: [`Output::acked`]. An error ends the output; it is opened anew, never tried
//! again on the same handle, because a kernel that failed to write may report success the second time.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_model::pipeline::{Codec, TemplateContext, TemplateError};
use tokio::time::Instant;

use crate::{AllowedPaths, PathError};

#[cfg(feature = "output-discard")]
mod discard;
#[cfg(any(feature = "output-file", feature = "output-stdout"))]
mod file;
#[cfg(feature = "output-stdout")]
mod kept;
#[cfg(feature = "output-stdout")]
mod stdout;

/// The `file` output syncs early when so many batches wait for their ack: half of what may be in flight, so that a
/// sync overlaps with the other half.
pub const UNACKED_BATCHES_SYNC: u64 = 32;

/// An output's settings with every `${...}` filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputSettings {
    /// `[output.stdout]`
    Stdout {
        /// How records are written.
        codec: Codec,
    },
    /// `[output.file]`
    File {
        /// The path, as the pipeline wrote it.
        path: String,
        /// How records are written.
        codec: Codec,
    },
    /// `[output.discard]`
    Discard,
}

impl OutputSettings {
    /// Fills in `output`'s templates.
    pub fn resolve(
        output: &sluice_model::pipeline::Output,
        context: &TemplateContext<'_>,
    ) -> Result<Self, TemplateError> {
        use sluice_model::pipeline::Output as Spec;
        Ok(match output {
            Spec::Stdout(stdout) => Self::Stdout {
                codec: stdout.codec,
            },
            Spec::File(file) => Self::File {
                path: file.path.render(context)?,
                codec: file.codec,
            },
            Spec::Discard => Self::Discard,
        })
    }
}

/// Takes records that nobody waits for: an execution's log.
pub trait LineSink: Send + Sync {
    /// Takes one batch's records; drops and counts what finds no room, never blocks.
    fn records(&self, records: &mut dyn Iterator<Item = &[u8]>);
}

/// What `[output.stdout]` writes to.
#[derive(Clone)]
pub enum StdoutTarget {
    /// A real stream, opened by this.
    Stream(Arc<dyn Fn() -> Box<dyn Write + Send> + Send + Sync>),
    /// A remote edge: diagnostic, acked at once.
    Log(Arc<dyn LineSink>),
    /// A run's task on a remote edge: its output is kept in a file of its own, and told in the log, too.
    Kept {
        /// The file; nobody else writes to it.
        path: PathBuf,
        /// Records that do not fit any more are dropped and counted, and so are all after them.
        bytes_max: u64,
        /// Hears every record.
        log: Arc<dyn LineSink>,
    },
}

/// How far an output's own writing is known to be whole; stored beside the input's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum OutputPosition {
    /// A file that held only whole records up to `bytes`.
    File {
        /// The device it is on.
        device: u64,
        /// Its inode there.
        inode: u64,
        /// Its length then.
        bytes: u64,
    },
    /// A task's kept output.
    Kept {
        /// What is safe of it.
        bytes: u64,
        /// Records that found no room by then.
        dropped: u64,
    },
}

/// Why an output cannot open or go on.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The path was not opened.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The disk or a quota is full; nothing unacked counts as written.
    #[error("no space left for {to}: {source}; nothing is lost, it goes on when there is room")]
    Full {
        /// The path.
        to: String,
        /// What the system said.
        source: io::Error,
    },
    /// Whoever read the stream is gone.
    #[error("{to} was closed by its reader")]
    Closed {
        /// `standard output`.
        to: String,
    },
    /// Writing or syncing failed.
    #[error("cannot {action} {to}: {source}")]
    Write {
        /// `open`, `write`, `sync`, ...
        action: &'static str,
        /// The path, or `standard output`.
        to: String,
        /// What the system said.
        source: io::Error,
    },
    /// This program was built without the connector.
    #[error("this program was built without the output `{name}`")]
    NotBuilt {
        /// The connector's name.
        name: &'static str,
    },
}

#[cfg(any(feature = "output-file", feature = "output-stdout"))]
impl OutputError {
    fn write(action: &'static str, to: &str, source: io::Error) -> Self {
        let to = to.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { to, source },
            io::ErrorKind::BrokenPipe => Self::Closed { to },
            _ => Self::Write { action, to, source },
        }
    }
}

/// An open output.
#[derive(Debug)]
pub enum Output {
    /// `[output.stdout]`
    #[cfg(feature = "output-stdout")]
    Stdout(stdout::StdoutOutput),
    /// `[output.stdout]` of a run's task
    #[cfg(feature = "output-stdout")]
    Kept(kept::KeptOutput),
    /// `[output.file]`
    #[cfg(feature = "output-file")]
    File(file::FileOutput),
    /// `[output.discard]`
    #[cfg(feature = "output-discard")]
    Discard(discard::DiscardOutput),
}

impl Output {
    /// Opens an output. `position` is what the checkpoint remembers of it: with it, half a record that a crash left at
    /// the end is taken off again.
    pub async fn open(
        settings: OutputSettings,
        position: Option<OutputPosition>,
        allowed: &AllowedPaths,
        stdout: &StdoutTarget,
    ) -> Result<Self, OutputError> {
        match settings {
            #[cfg(feature = "output-stdout")]
            OutputSettings::Stdout {
                codec: Codec::Lines,
            } => match stdout {
                StdoutTarget::Stream(open) => {
                    Ok(Self::Stdout(stdout::StdoutOutput::to_stream(open)))
                }
                StdoutTarget::Log(log) => Ok(Self::Stdout(stdout::StdoutOutput::to_log(log))),
                StdoutTarget::Kept {
                    path,
                    bytes_max,
                    log,
                } => {
                    let (path, bytes_max, log) = (path.clone(), *bytes_max, Arc::clone(log));
                    blocking(move || kept::KeptOutput::open(&path, bytes_max, log, position))
                        .await
                        .map(Self::Kept)
                }
            },
            #[cfg(feature = "output-file")]
            OutputSettings::File {
                path,
                codec: Codec::Lines,
            } => {
                let allowed = allowed.clone();
                blocking(move || file::FileOutput::open(&allowed, path, position))
                    .await
                    .map(Self::File)
            }
            #[cfg(feature = "output-discard")]
            OutputSettings::Discard => Ok(Self::Discard(discard::DiscardOutput::default())),
            #[cfg(not(all(
                feature = "output-stdout",
                feature = "output-file",
                feature = "output-discard"
            )))]
            other => {
                let _ = (position, allowed, stdout);
                Err(OutputError::NotBuilt {
                    name: match other {
                        OutputSettings::Stdout { .. } => "stdout",
                        OutputSettings::File { .. } => "file",
                        OutputSettings::Discard => "discard",
                    },
                })
            }
        }
    }

    /// Accepts one batch, which may be empty. The future must run to its end; after an error nothing more is accepted.
    pub async fn write<'a>(
        &mut self,
        records: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), OutputError> {
        match self {
            #[cfg(feature = "output-stdout")]
            Self::Stdout(output) => output.write(records).await,
            #[cfg(feature = "output-stdout")]
            Self::Kept(output) => output.write(records).await,
            #[cfg(feature = "output-file")]
            Self::File(output) => output.write(records).await,
            #[cfg(feature = "output-discard")]
            Self::Discard(output) => {
                output.write(records);
                Ok(())
            }
            #[cfg(not(any(
                feature = "output-stdout",
                feature = "output-file",
                feature = "output-discard"
            )))]
            _ => {
                let _ = records;
                match *self {}
            }
        }
    }

    /// Nothing more is ready: shows what a person may be waiting to see.
    pub async fn settle(&mut self) -> Result<(), OutputError> {
        match self {
            #[cfg(feature = "output-stdout")]
            Self::Stdout(output) => output.sync().await,
            #[cfg(feature = "output-stdout")]
            Self::Kept(_) => Ok(()),
            #[cfg(feature = "output-file")]
            Self::File(_) => Ok(()),
            #[cfg(feature = "output-discard")]
            Self::Discard(_) => Ok(()),
            #[cfg(not(any(
                feature = "output-stdout",
                feature = "output-file",
                feature = "output-discard"
            )))]
            _ => match *self {},
        }
    }

    /// Makes everything accepted safe and acks it.
    pub async fn sync(&mut self) -> Result<(), OutputError> {
        match self {
            #[cfg(feature = "output-stdout")]
            Self::Stdout(output) => output.sync().await,
            #[cfg(feature = "output-stdout")]
            Self::Kept(output) => output.sync().await,
            #[cfg(feature = "output-file")]
            Self::File(output) => output.sync().await,
            #[cfg(feature = "output-discard")]
            Self::Discard(_) => Ok(()),
            #[cfg(not(any(
                feature = "output-stdout",
                feature = "output-file",
                feature = "output-discard"
            )))]
            _ => match *self {},
        }
    }

    /// When [`Output::sync`] is due at the latest; `None` when nothing waits.
    pub fn sync_at(&self) -> Option<Instant> {
        match self {
            #[cfg(feature = "output-stdout")]
            Self::Kept(output) => output.sync_at(),
            #[cfg(feature = "output-file")]
            Self::File(output) => output.sync_at(),
            #[cfg(any(feature = "output-stdout", feature = "output-discard"))]
            _ => None,
            #[cfg(not(any(
                feature = "output-stdout",
                feature = "output-file",
                feature = "output-discard"
            )))]
            _ => match *self {},
        }
    }

    /// How many batches, counted from the opening, are acked.
    pub fn acked(&self) -> u64 {
        match self {
            #[cfg(feature = "output-stdout")]
            Self::Stdout(output) => output.acked(),
            #[cfg(feature = "output-stdout")]
            Self::Kept(output) => output.acked(),
            #[cfg(feature = "output-file")]
            Self::File(output) => output.acked(),
            #[cfg(feature = "output-discard")]
            Self::Discard(output) => output.acked(),
            #[cfg(not(any(
                feature = "output-stdout",
                feature = "output-file",
                feature = "output-discard"
            )))]
            _ => match *self {},
        }
    }

    /// What to give [`Output::open`] the next time; true of everything acked.
    pub fn position(&self) -> Option<OutputPosition> {
        match self {
            #[cfg(feature = "output-stdout")]
            Self::Kept(output) => Some(output.position()),
            #[cfg(feature = "output-file")]
            Self::File(output) => Some(output.position()),
            #[cfg(any(feature = "output-stdout", feature = "output-discard"))]
            _ => None,
            #[cfg(not(any(
                feature = "output-stdout",
                feature = "output-file",
                feature = "output-discard"
            )))]
            _ => match *self {},
        }
    }
}

/// Runs blocking `work` on the blocking threads; a panic in it goes on here.
#[cfg(any(
    feature = "input-exec",
    feature = "input-file",
    feature = "input-stdin",
    feature = "output-file",
    feature = "output-stdout"
))]
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: nothing waits for the result, and there is none to give.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Appends each record and a newline.
#[cfg(any(feature = "output-file", feature = "output-stdout"))]
fn append_lines<'a>(buffer: &mut Vec<u8>, records: impl Iterator<Item = &'a [u8]>) {
    for record in records {
        buffer.extend_from_slice(record);
        buffer.push(b'\n');
    }
}
