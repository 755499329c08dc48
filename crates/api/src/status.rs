//! One screen of everything.

use serde::{Deserialize, Serialize};
use sluice_model::{JobName, RunId, UnixMs};
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
    /// Tasks of runs that wait for a place or their next try, all of them.
    #[serde(default)]
    pub tasks_waiting: u64,
    /// What they wait for, the oldest first; a bounded number of entries.
    #[serde(default)]
    pub waiting_tasks: Vec<WaitingTasks>,
}

/// Tasks of one job that wait for the same. They have no execution yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitingTasks {
    /// The job.
    pub job: JobName,
    /// How many.
    pub count: u64,
    /// The run of the oldest.
    pub run: RunId,
    /// Why the oldest waits, in words.
    pub reason: String,
    /// What ends that.
    pub next_action: String,
    /// When; null where `next_action` is an event.
    pub next_at: Option<UnixMs>,
}
