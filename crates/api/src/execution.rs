//! Executions: one job on one node.

use serde::{Deserialize, Serialize};
use sluice_model::{
    Attempt, Desired, ExecutionId, ExecutionState, FailReason, JobId, JobName, NodeId, NodeName,
    ObservedPhase, PendingReason, Revision, Slot, UnixMs, Version,
};
use utoipa::ToSchema;

use crate::Cursor;

/// One execution. `state` speaks of the desired (version, attempt); what the edge said last is in `observed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Execution {
    /// Stays the same over versions and attempts.
    pub id: ExecutionId,
    /// The job's name.
    pub job: JobName,
    /// The job's id.
    pub job_id: JobId,
    /// The desired version.
    pub version: Version,
    /// The node's name.
    pub node: NodeName,
    /// The node's id.
    pub node_id: NodeId,
    /// Which of several on one node.
    pub slot: Slot,
    /// What the node should do.
    pub desired: Desired,
    /// Where it stands.
    pub state: ExecutionState,
    /// The node that said so is not connected: `state` is what was last known.
    #[serde(default)]
    pub last_known: bool,
    /// Why, for programs; always there when pending or failed.
    pub reason_code: Option<ReasonCode>,
    /// Why, in words; always there when pending, failed or quarantined.
    pub reason: Option<String>,
    /// What happens next; always there when pending.
    pub next_action: Option<String>,
    /// When; null only where `next_action` is an event ("when e1 connects").
    pub next_at: Option<UnixMs>,
    /// The desired attempt.
    pub attempt: Attempt,
    /// Local restarts at this version and attempt.
    pub restarts: u64,
    /// Records taken in.
    pub records_in: u64,
    /// Records that the output accepted.
    pub records_out: u64,
    /// Records set aside.
    pub dead_letters: u64,
    /// What the edge reported last; null until it did.
    pub observed: Option<Observed>,
    /// The node's revision that last changed this assignment.
    pub rev: Revision,
    /// The edge has that revision on disk.
    pub received: bool,
    /// When the edge last acknowledged a revision; null when it never did.
    pub last_ack_at: Option<UnixMs>,
    /// When it was created.
    pub created_at: UnixMs,
    /// When `state` last changed.
    pub changed_at: UnixMs,
}

/// What an edge's runtime did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Observed {
    /// The version it speaks of.
    pub version: Version,
    /// The attempt it speaks of.
    pub attempt: Attempt,
    /// What it said.
    pub state: ObservedPhase,
    /// The edge's clock when it said so.
    pub at: UnixMs,
    /// Why, in words.
    #[serde(default)]
    pub reason: Option<String>,
    /// The older version that runs on while `version` is prepared, or has failed.
    #[serde(default)]
    pub running_version: Option<Version>,
}

/// Why an execution is pending or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ReasonCode {
    /// With state `pending`.
    Pending(PendingReason),
    /// With state `failed`.
    Failed(FailReason),
}

impl ReasonCode {
    /// The fixed spelling, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending(reason) => reason.as_str(),
            Self::Failed(reason) => reason.as_str(),
        }
    }
}

impl From<PendingReason> for ReasonCode {
    fn from(reason: PendingReason) -> Self {
        Self::Pending(reason)
    }
}

impl From<FailReason> for ReasonCode {
    fn from(reason: FailReason) -> Self {
        Self::Failed(reason)
    }
}

/// Query of `GET` [`crate::routes::EXECUTIONS`]; every part given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecutionFilter {
    /// Of this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// On this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Also those that are desired `stop` or `purge`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// In this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ExecutionState>,
    /// Most items in a page; 1 to [`crate::PAGE_ITEMS_MAX`], which it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Where the page before ended; absent: from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}
