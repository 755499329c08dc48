//! Outputs of runs: what each task wrote to `[output.stdout]`.

use serde::{Deserialize, Serialize};
use sluice_model::{Attempt, Digest, ExecutionId, JobName, NodeName, TaskState, UnixMs};
use utoipa::ToSchema;

/// The output of one task of a run, without its bytes: `GET` [`crate::routes::RUN_TASK_OUTPUT`] gives those.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskOutput {
    /// The job.
    pub job: JobName,
    /// Where its newest try is; null until it is placed.
    pub node: Option<NodeName>,
    /// Where the task stands.
    pub task_state: TaskState,
    /// Which try it is; 0 before the first.
    pub attempt: Attempt,
    /// The newest try's execution.
    pub execution: Option<ExecutionId>,
    /// Whether the bytes can be had.
    pub state: OutputState,
    /// How many they are; null until the edge has said so.
    pub bytes: Option<u64>,
    /// Their sha256.
    pub digest: Option<Digest>,
    /// The task wrote more than an output may have: what is kept is its beginning, in whole records.
    pub truncated: bool,
    /// Records that are missing at the end.
    pub dropped_records: u64,
    /// Why it cannot be had, in words; null when it can.
    pub reason: Option<String>,
    /// What happens next; null when nothing.
    pub next_action: Option<String>,
    /// Since when it is in that state.
    pub since: Option<UnixMs>,
}

/// Whether an output's bytes can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutputState {
    /// Its task has not ended.
    Pending,
    /// It is on its edge, and comes.
    Coming,
    /// The orchestrator has it.
    Held,
    /// It was there and is no more.
    Gone,
    /// There is none.
    None,
}

impl OutputState {
    /// The fixed spelling, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Coming => "coming",
            Self::Held => "held",
            Self::Gone => "gone",
            Self::None => "none",
        }
    }
}
