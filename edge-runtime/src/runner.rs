//! Runs executions: `input -> stages -> output`, with an ack travelling back.
//!
//! ```text
//!   input task --batch+position--> stages task --> guest thread --kept records--> output task
//!       ^                                                                           |
//!       +----------- recycled buffers ------------------ acks ----------------------+--> checkpoint, counters
//! ```
//!
//! One [`RunnerContext`] serves every execution of a process. An execution goes through [`prepare`] (everything that
//! can fail before an older version has to stop), [`Prepared::start`], and ends in one [`RunnerEvent::Ended`]. The
//! runner decides nothing about restarts: what to do after an [`End`] is the agent's business. It never talks to the
//! orchestrator and owns no process globals.

mod checkpoint;
mod counters;
mod dead_letters;
mod flow;
mod halves;
mod kept;
mod lane;
mod local;
mod log;
mod log_reader;
mod output_task;
mod prepare;
mod stages;
mod supervise;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use sluice_doctor::with_causes;
use sluice_model::pipeline::{Params, Pipeline};
use sluice_model::{
    Attempt, Digest, ExecutionId, FailReason, JobName, Labels, NodeName, StageName, Version,
};
use sluice_sandbox::{Engine, EngineConfig, GuestPool};

pub use sluice_connectors::{AllowedCommands, AllowedPaths};

pub use counters::Counters;
pub(crate) use counters::{ERROR_KINDS, Metered, Tally};
pub use dead_letters::{DeadLetterLine, dead_letters_tail};
pub(crate) use kept::path as output_path;
pub use local::run_local;
pub use log::{LogLevel, LogLine, log_tail};
pub use log_reader::{LogFilter, LogPiece, LogReader};
pub use prepare::{Prepared, prepare};
pub use supervise::RunningExecution;

/// What all executions of this process share. Cheap to clone.
#[derive(Clone)]
pub struct RunnerContext {
    inner: Arc<Shared>,
}

struct Shared {
    /// Dropped before the engine: its threads wait for deadlines, which need the engine's ticker.
    guests: GuestPool,
    engine: Engine,
    options: RunnerOptions,
}

/// How to make a [`RunnerContext`].
pub struct RunnerOptions {
    /// Where compiled components are kept between starts; private to this edge.
    pub cache_dir: PathBuf,
    /// Where inputs and outputs may be.
    pub allowed: AllowedPaths,
    /// What `[input.exec]` may run.
    pub commands: AllowedCommands,
    /// `dev` and `pipeline run` only: the process's own standard streams.
    pub console: Option<Console>,
    /// What `${hostname}` stands for.
    pub hostname: String,
}

/// The standard streams of a process that runs pipelines in front of a person.
#[derive(Clone)]
pub struct Console {
    /// Opens what `[input.stdin]` reads.
    pub stdin: Arc<dyn Fn() -> Box<dyn std::io::Read + Send> + Send + Sync>,
    /// Opens what `[output.stdout]` writes.
    pub stdout: Arc<dyn Fn() -> Box<dyn std::io::Write + Send> + Send + Sync>,
    /// Called with every log line of every execution; must not block for long.
    pub log: Arc<dyn Fn(&LogLine) + Send + Sync>,
}

/// Everything that makes up one execution at one (version, attempt).
#[derive(Clone, Debug)]
pub struct ExecutionPlan {
    /// Which execution.
    pub execution: ExecutionId,
    /// At which job version.
    pub version: Version,
    /// At which attempt of it.
    pub attempt: Attempt,
    /// The digest of what it runs: state of an input with an end continues only under the same one.
    pub content: Digest,
    /// The job.
    pub job: JobName,
    /// This node's name.
    pub node: NodeName,
    /// This node's labels.
    pub labels: Labels,
    /// The checked pipeline.
    pub pipeline: Pipeline,
    /// The run's parameters; none for what is not a batch.
    pub params: Params,
    /// The verified file with what the launch brought for `[input.stdin]`; `None` reads the console, if there is one.
    pub stdin: Option<PathBuf>,
    /// For each stage, in order, its component's digest and the verified file.
    pub components: Vec<(Digest, PathBuf)>,
    /// `STATE_DIR/executions/ID`; made when missing.
    pub state_dir: PathBuf,
}

/// Why a [`RunnerContext`] could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the sandbox: {message}")]
pub struct ContextError {
    message: String,
}

/// Why an execution cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A stage refused its configuration, or a `${...}` has no value here: `failed`, with [`FailReason::Configure`].
    #[error("{message}")]
    Configure {
        /// Which stage; `None` for a template.
        stage: Option<StageName>,
        /// What is wrong and what would be right.
        message: String,
    },
    /// This edge cannot run it as it is: `refused`, tried again when something changes.
    #[error("{message}")]
    Refused {
        /// What lacks, and who can change it.
        message: String,
    },
    /// A component's file is not what its digest names: to be fetched again.
    #[error("{message}")]
    Corrupt {
        /// The component.
        digest: Digest,
        /// What is wrong with the file.
        message: String,
    },
    /// The machine did not let us (disk full, file gone): `backoff`.
    #[error("{message}")]
    Retry {
        /// What was tried and what came back.
        message: String,
    },
}

/// What the runner tells its owner; at most one `Running`, exactly one `Ended` for each start.
#[derive(Clone, Debug)]
pub enum RunnerEvent {
    /// Input and output are open and records may move.
    Running {
        /// Which execution.
        execution: ExecutionId,
        /// At which version.
        version: Version,
        /// At which attempt.
        attempt: Attempt,
        /// What it counts on from.
        counters: Counters,
    },
    /// It is over: nothing of it runs any more and its state is on disk.
    Ended {
        /// Which execution.
        execution: ExecutionId,
        /// At which version.
        version: Version,
        /// At which attempt.
        attempt: Attempt,
        /// How.
        end: End,
        /// The counters at the end.
        counters: Counters,
    },
}

/// How an execution ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its input ended and everything was acked.
    Completed,
    /// On order; its state is kept, and the next start goes on where it was.
    Stopped,
    /// On order, and the next start cannot go on where it was: its input starts over, or its output was cut off.
    Cut,
    /// For good.
    Failed {
        /// Which sort.
        reason: FailReason,
        /// In words.
        message: String,
    },
    /// Something outside was not as it needs: try again 1 s to 5 min later, for ever.
    Backoff {
        /// In words.
        message: String,
    },
    /// A bug of ours; counts towards quarantine.
    Crashed {
        /// In words.
        message: String,
    },
}

impl RunnerContext {
    /// Starts the engine and the guest threads, one for each core.
    pub fn open(options: RunnerOptions) -> Result<Self, ContextError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let sandbox = |message: String| ContextError { message };
        let engine = Engine::new(EngineConfig {
            cache_dir: Some(options.cache_dir.clone()),
        })
        .map_err(|error| sandbox(with_causes(&error)))?;
        let guests = GuestPool::new(cores).map_err(|error| sandbox(with_causes(&error)))?;
        Ok(Self {
            inner: Arc::new(Shared {
                engine,
                guests,
                options,
            }),
        })
    }

    /// Removes a component's compiled code from the disk.
    pub fn forget(&self, digest: &Digest) {
        self.inner.engine.forget(digest.as_bytes());
    }
}

/// Deletes an ended execution's state directory. Blocking; nothing there is fine.
pub fn purge_state(state_dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(state_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The counters that an execution's state directory remembers, for one that does not run. Blocking.
pub fn stored_counters(state_dir: &Path) -> Option<Counters> {
    let checkpoint = checkpoint::Checkpoint::load(state_dir).ok()??;
    Some(checkpoint.counters)
}

impl End {
    fn level(&self) -> LogLevel {
        match self {
            Self::Completed | Self::Stopped | Self::Cut => LogLevel::Info,
            Self::Backoff { .. } => LogLevel::Warn,
            Self::Failed { .. } | Self::Crashed { .. } => LogLevel::Error,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed => f.write_str("completed"),
            Self::Stopped => f.write_str("stopped"),
            Self::Cut => f.write_str("stopped midway"),
            Self::Failed { reason, message } => write!(f, "failed ({reason}): {message}"),
            Self::Backoff { message } => write!(f, "cannot go on for now: {message}"),
            Self::Crashed { message } => write!(f, "crashed: {message}"),
        }
    }
}

impl fmt::Debug for RunnerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnerContext").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
