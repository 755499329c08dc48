//! Rollouts: how the newest version of a job reaches its nodes.

use serde::{Deserialize, Serialize};
use sluice_model::{JobName, NodeName, RolloutPhase, UnixMs, Version};
use utoipa::ToSchema;

/// The answer of `rollout status JOB`: one screen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rollout {
    /// The job.
    pub job: JobName,
    /// The version that is rolled out.
    pub candidate: Version,
    /// The version that runs where the candidate is not yet; null when there is none.
    pub good: Option<Version>,
    /// The version that brought the good content back.
    pub restored_by: Option<Version>,
    /// Where it stands.
    pub phase: RolloutPhase,
    /// Why it stands there; null while it goes on.
    pub reason: Option<String>,
    /// What happens next, in words.
    pub next: String,
    /// Nodes on their way at once: a number, or a part such as `10%`.
    pub max_parallel: String,
    /// Nodes that go first.
    pub canary: u64,
    /// How long it must run on a node without trouble.
    pub min_healthy_ms: u64,
    /// Dead letters for each record, at most; null when they do not matter.
    pub error_rate_max: Option<f64>,
    /// How long a node may take.
    pub deadline_ms: u64,
    /// Where the nodes stand.
    pub nodes: RolloutNodes,
    /// Where the candidate failed: the first of them.
    pub failures: Vec<RolloutFailure>,
    /// What happened, oldest first.
    pub events: Vec<RolloutEvent>,
    /// When the candidate was deployed.
    pub started_at: UnixMs,
    /// When `phase` last changed.
    pub changed_at: UnixMs,
}

/// Nodes that match, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolloutNodes {
    /// All of them.
    pub matching: u64,
    /// Have the candidate and proved it.
    pub proven: u64,
    /// Have the candidate and did not prove it yet.
    pub underway: u64,
    /// Connected, and wait for their turn.
    pub waiting: u64,
    /// Away, without the candidate.
    pub absent: u64,
}

/// Where the candidate failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolloutFailure {
    /// The node.
    pub node: NodeName,
    /// Why.
    pub reason: String,
    /// When it was noticed.
    pub at: UnixMs,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolloutEvent {
    /// When.
    pub at: UnixMs,
    /// What.
    pub what: String,
}

/// A rollout in a job's listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolloutSummary {
    /// The version that is rolled out.
    pub candidate: Version,
    /// The version that runs where the candidate is not yet.
    pub good: Option<Version>,
    /// The version that brought the good content back.
    pub restored_by: Option<Version>,
    /// Where it stands.
    pub phase: RolloutPhase,
    /// Why it stands there, or what keeps it; null while it goes on.
    pub reason: Option<String>,
    /// What it waits for; null once it has ended.
    pub next_action: Option<String>,
}

/// What an operator orders about a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RolloutOrder {
    /// Start nothing more.
    Pause,
    /// Go on, in spite of the failures so far.
    Resume,
    /// Every node gets it at once.
    Promote,
    /// Go back.
    Abort,
}

impl RolloutOrder {
    /// The last part of the path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Promote => "promote",
            Self::Abort => "abort",
        }
    }
}
