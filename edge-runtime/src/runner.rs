//! Runs executions: `input -> stages -> output`, with an ack travelling back.
//!
//! ```text
//!   input task --batch+position--> chain task --kept records--> output task
//!       ^                              |  (guest pool)              |
//!       +------- recycled buffers -----+---------- acks ------------+--> checkpoint, counters
//! ```
//!
//! One [`RunnerContext`] serves every execution of a process. An execution goes through [`prepare`] (everything that
//! can fail before an older version has to stop), [`Prepared::start`], and ends in one [`RunnerEvent::Ended`]. The
//! runner decides nothing about restarts: what to do after an [`End`] is the agent's business. It never talks to the
//! orchestrator and owns no process globals.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluice_connectors::AllowedPaths;
use sluice_model::pipeline::Pipeline;
use sluice_model::{
    Attempt, Digest, ExecutionId, FailReason, JobName, Labels, NodeName, ObservedPhase, StageName,
    Version,
};
use tokio::sync::mpsc;

/// What all executions of this process share. Cheap to clone.
#[derive(Clone)]
pub struct RunnerContext {
    inner: Arc<Shared>,
}

struct Shared {
    options: RunnerOptions,
}

/// How to make a [`RunnerContext`].
pub struct RunnerOptions {
    /// Where compiled components are kept between starts; private to this edge.
    pub cache_dir: PathBuf,
    /// Where inputs and outputs may be.
    pub allowed: AllowedPaths,
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

/// One line of an execution's log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogLine {
    /// When, in milliseconds since the Unix epoch.
    pub at: sluice_model::UnixMs,
    /// How much it matters.
    pub level: LogLevel,
    /// The stage that wrote it; `None` for the runner itself and for records of `[output.stdout]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<StageName>,
    /// The text.
    pub message: String,
}

/// How much a log line matters.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// A record that `[output.stdout]` wrote; not a message at all.
    Record,
    /// For authors of plugins.
    Debug,
    /// Worth knowing.
    Info,
    /// Something was given up or dropped.
    Warn,
    /// The execution ended or will end.
    Error,
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
    /// The pipeline text's digest: state of an input with an end continues only under the same one.
    pub spec_digest: Digest,
    /// The job.
    pub job: JobName,
    /// This node's name.
    pub node: NodeName,
    /// This node's labels.
    pub labels: Labels,
    /// The checked pipeline.
    pub pipeline: Pipeline,
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
    /// The machine did not let us (disk full, file gone): `backoff`.
    #[error("{message}")]
    Retry {
        /// What was tried and what came back.
        message: String,
    },
}

/// An execution that passed everything that can fail before it moves records.
pub struct Prepared {
    plan: ExecutionPlan,
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
    /// On order; its state is kept.
    Stopped,
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

/// What an execution has done since its version's first start on this edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Records the input gave, rejected ones included.
    pub records_in: u64,
    /// Records the output accepted.
    pub records_out: u64,
    /// Records set aside as dead letters.
    pub dead_letters: u64,
    /// Dead letters that made room for newer ones.
    pub dead_letters_dropped: u64,
    /// Calls repeated because a stage said `retry`.
    pub retries: u64,
    /// Log lines and stdout records that found no room.
    pub log_lines_dropped: u64,
}

/// Loads, compiles, instantiates and configures the stages and fills in the templates. Blocking, up to many seconds
/// for a first compile; `phase` hears `Compiling` and `Starting` as they begin. Touches neither input nor output, so an
/// older version may run on meanwhile.
pub fn prepare(
    context: &RunnerContext,
    plan: ExecutionPlan,
    phase: &mut dyn FnMut(ObservedPhase),
) -> Result<Prepared, PrepareError> {
    let _ = &context.inner.options;
    phase(ObservedPhase::Compiling);
    phase(ObservedPhase::Starting);
    Ok(Prepared { plan })
}

impl RunnerContext {
    /// Starts the engine and the guest threads.
    pub fn open(options: RunnerOptions) -> Result<Self, ContextError> {
        Ok(Self {
            inner: Arc::new(Shared { options }),
        })
    }
}

impl Prepared {
    /// What it was prepared from.
    pub fn plan(&self) -> &ExecutionPlan {
        &self.plan
    }

    /// Opens input and output and moves records until an end. Everything runs on `runtime` and the guest threads;
    /// the call itself does not block. An older version of the same execution must have ended before.
    pub fn start(
        self,
        runtime: &tokio::runtime::Handle,
        events: mpsc::Sender<RunnerEvent>,
    ) -> RunningExecution {
        let _ = (runtime, events);
        RunningExecution { plan: self.plan }
    }
}

/// A handle on a started execution. Dropping it stops the execution as [`RunningExecution::stop`] does.
pub struct RunningExecution {
    plan: ExecutionPlan,
}

impl RunningExecution {
    /// Which execution, version and attempt.
    pub fn plan(&self) -> &ExecutionPlan {
        &self.plan
    }

    /// Closes the input, drains for at most 10 s, saves the checkpoint, then cuts. Returns at once; `Ended` follows.
    pub fn stop(&self) {}

    /// The counters now; cheap.
    pub fn counters(&self) -> Counters {
        Counters::default()
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
    let _ = state_dir;
    None
}

/// The last `lines_max` lines of an execution's log, oldest first. Blocking; no log is an empty list.
pub fn log_tail(state_dir: &Path, lines_max: usize) -> std::io::Result<Vec<LogLine>> {
    let _ = (state_dir, lines_max);
    Ok(Vec::new())
}

impl fmt::Debug for RunnerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnerContext").finish_non_exhaustive()
    }
}
