//! Why each node does or does not run a job.

use serde::{Deserialize, Serialize};
use sluice_model::{
    ExecutionId, ExecutionState, JobId, JobName, JobState, NodeName, NodeState, Revision, UnixMs,
    Version,
};
use utoipa::ToSchema;

use crate::{Observed, ReasonCode, Unplaced};

/// The answer of `explain JOB`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explain {
    /// The job.
    pub job: JobName,
    /// Its id.
    pub id: JobId,
    /// Its desired version.
    pub version: Version,
    /// Its state.
    pub state: JobState,
    /// Why it has that state, in one line.
    pub why: String,
    /// Replicas that find no node; null when every one has its place.
    pub unplaced: Option<Unplaced>,
    /// Every node, matching or not, by name.
    pub nodes: Vec<ExplainNode>,
}

/// One node's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainNode {
    /// The node.
    pub node: NodeName,
    /// The node's own state.
    pub node_state: NodeState,
    /// Whether the job's selector matches it.
    pub matches: bool,
    /// Why it matches or does not, in words.
    pub why: String,
    /// The execution there, if any.
    pub execution: Option<ExecutionId>,
    /// The execution's state.
    pub state: Option<ExecutionState>,
    /// The state is what was last known: the node that said it is not connected.
    pub last_known: bool,
    /// Why, for programs.
    pub reason_code: Option<ReasonCode>,
    /// Why, in words.
    pub reason: Option<String>,
    /// What happens next.
    pub next_action: Option<String>,
    /// When; null where `next_action` is an event.
    pub next_at: Option<UnixMs>,
    /// The node's revision that last changed the assignment.
    pub rev: Option<Revision>,
    /// The edge has that revision on disk.
    pub received: bool,
    /// The newest revision that the node acknowledged.
    pub received_rev: Revision,
    /// When it last acknowledged one; null when it never did.
    pub last_ack_at: Option<UnixMs>,
    /// What the edge reported last.
    pub observed: Option<Observed>,
}
