//! Runs: launches of batch jobs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_model::{
    Attempt, Digest, ExecutionId, FailReason, JobName, NodeName, RunId, RunState, ScheduleName,
    TaskState, UnixMs, Version,
};
use utoipa::ToSchema;

use crate::Cursor;

/// Jobs of one launch, at most: each is named on a command line.
pub const RUN_JOBS_MAX: usize = 100;

/// Tasks of one launch, at most.
pub const RUN_TASKS_MAX: usize = 1_000;

/// Longest `Idempotency-Key`, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 200;

/// `POST` [`crate::routes::RUNS`], with an `Idempotency-Key` where a repeated launch must be the same run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunLaunch {
    /// The batch jobs.
    #[schema(min_items = 1, max_items = 100)]
    pub jobs: Vec<JobName>,
    /// Values of their parameters, as text.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// The nodes that each job runs on, one task each; empty: as the pipelines say.
    #[serde(default)]
    pub nodes: Vec<NodeName>,
    /// The digest of what each job with `[input.stdin]` reads, uploaded before: [`crate::routes::STDIN`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Digest>,
}

/// Query of `GET` [`crate::routes::RUNS`]; every part given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunFilter {
    /// With a task of this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// In this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<RunState>,
    /// Most items in a page; 1 to [`crate::PAGE_ITEMS_MAX`], which it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Where the page before ended; absent: from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

/// One launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Its jobs.
    pub jobs: Vec<JobName>,
    /// Derived from its tasks.
    pub state: RunState,
    /// One for each job on each node.
    pub tasks: Vec<RunTask>,
    /// What the launch said.
    pub params: BTreeMap<String, String>,
    /// What the launch brought for `[input.stdin]`; null when it brought nothing.
    #[serde(default)]
    pub stdin: Option<Digest>,
    /// The schedule that launched it; null when a person or a program did.
    #[serde(default)]
    pub schedule: Option<ScheduleName>,
    /// The time of the schedule's tick.
    #[serde(default)]
    pub scheduled_for: Option<UnixMs>,
    /// When it was launched.
    pub launched_at: UnixMs,
    /// When its first task was placed.
    pub started_at: Option<UnixMs>,
    /// When its last task ended.
    pub ended_at: Option<UnixMs>,
    /// Who works on it; null while it waits and when it has ended.
    pub claimed_by: Option<String>,
    /// Until when that claim holds.
    pub claimed_until: Option<UnixMs>,
}

/// One job of a run on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunTask {
    /// The job.
    pub job: JobName,
    /// The job's version at the launch.
    pub version: Version,
    /// Where its newest try is, or the one node that it may go to; null until it is placed.
    pub node: Option<NodeName>,
    /// Where it stands.
    pub state: TaskState,
    /// How it failed, for programs.
    pub reason_code: Option<FailReason>,
    /// Why it waits, or how it ended, in words; always there when pending or failed.
    pub reason: Option<String>,
    /// What happens next; always there when pending.
    pub next_action: Option<String>,
    /// When; null where `next_action` is an event.
    pub next_at: Option<UnixMs>,
    /// Which try it is; 0 before the first.
    pub attempt: Attempt,
    /// The newest try's execution.
    pub execution: Option<ExecutionId>,
    /// Records taken in by its last try.
    pub records_in: u64,
    /// Records that the output accepted.
    pub records_out: u64,
    /// When its first try was placed.
    pub started_at: Option<UnixMs>,
    /// When it ended.
    pub ended_at: Option<UnixMs>,
    /// Who works on it.
    pub claimed_by: Option<String>,
    /// Until when that claim holds.
    pub claimed_until: Option<UnixMs>,
}
