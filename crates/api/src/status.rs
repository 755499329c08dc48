//! One screen of everything.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Execution, Job, Node, Schedule, Unplaced};

/// The answer of `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The orchestrator program's version.
    pub version: String,
    /// Every node, by name.
    pub nodes: Vec<Node>,
    /// Every job, by name.
    pub jobs: Vec<Job>,
    /// Executions that are desired to run and do not: pending, failed, lost or quarantined.
    pub waiting: Vec<Execution>,
    /// Replicas that find no node, by job.
    #[serde(default)]
    pub unplaced: Vec<Unplaced>,
    /// Every schedule, by name.
    #[serde(default)]
    pub schedules: Vec<Schedule>,
}
