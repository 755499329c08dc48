//! Jobs: deployed pipelines by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_model::{
    Digest, JobId, JobName, JobState, OnLost, PendingReason, StageName, UnixMs, Version,
};
use utoipa::ToSchema;

use crate::{Cursor, Execution, RolloutSummary};

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// The pipeline's name.
    pub name: JobName,
    /// A job deleted and deployed again has a new one.
    pub id: JobId,
    /// How it is placed.
    pub kind: JobKind,
    /// How many replicas; null for other kinds.
    pub count: Option<u64>,
    /// What becomes of an execution whose node is lost.
    pub on_lost: OnLost,
    /// The desired version.
    pub version: Version,
    /// Where it stands.
    pub state: JobState,
    /// An operator stopped it.
    pub stopped: bool,
    /// Executions that are desired to run.
    pub desired: u64,
    /// Of those: running at the desired version.
    pub running: u64,
    /// Of those: pending, on absent nodes too, and replicas that find no node.
    pub waiting: u64,
    /// Of those: failed, quarantined or lost.
    pub failed: u64,
    /// Of those: completed.
    pub completed: u64,
    /// Which nodes; empty means every node.
    pub select: BTreeMap<String, Vec<String>>,
    /// When it was first deployed.
    pub created_at: UnixMs,
    /// When its newest version was deployed.
    pub updated_at: UnixMs,
    /// How the newest version reaches the nodes; null when it went to all of them at once.
    #[serde(default)]
    pub rollout: Option<RolloutSummary>,
}

impl Job {
    /// Its `ETag`: another one after everything that was ordered of it. `If-Match` with it on a deploy or another order
    /// has that refused as stale when the job is not as it was seen any more.
    pub fn etag(&self) -> String {
        job_etag(self.id, self.version, self.stopped)
    }
}

/// [`Job::etag`] from its parts.
pub fn job_etag(id: JobId, version: Version, stopped: bool) -> String {
    let order = if stopped { "stopped" } else { "started" };
    format!("\"{id}-{version}-{order}\"")
}

/// Query of `GET` [`crate::routes::JOBS`]; every part given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobFilter {
    /// In this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<JobState>,
    /// Most items in a page; 1 to [`crate::PAGE_ITEMS_MAX`], which it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Where the page before ended; absent: from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

/// The answer of `job describe`: a [`Job`] and what it is made of, in one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobDetail {
    /// The job.
    #[serde(flatten)]
    pub job: Job,
    /// Replicas that find no node; null when every one has its place.
    pub unplaced: Option<Unplaced>,
    /// The pipeline file as it was written.
    pub pipeline: String,
    /// What assignments name this version's content by.
    pub spec_digest: Digest,
    /// One for each stage, in order.
    pub components: Vec<JobComponent>,
    /// Its executions, by node; the ones that are being stopped too.
    pub executions: Vec<Execution>,
}

/// One of a job's kept versions: the last 10.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobVersion {
    /// The version.
    pub version: Version,
    /// It is the desired one.
    pub current: bool,
    /// When it was made.
    pub created_at: UnixMs,
    /// What assignments name its content by; equal content has equal digests.
    pub spec_digest: Digest,
    /// How it came about.
    pub source: VersionSource,
    /// Whose content it took again; null when it was deployed.
    pub rolled_back_to: Option<Version>,
    /// Why it was rolled back; null when it was deployed.
    pub reason: Option<String>,
    /// Against the version before it, in words; empty for the oldest that is kept.
    pub changes: Vec<String>,
}

/// How a version came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum VersionSource {
    /// It was deployed.
    Deploy,
    /// It took an older one's content again.
    Rollback,
}

/// `POST` [`crate::routes::JOB_ROLLBACK`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The version whose content is wanted; absent: the newest before the current one with other content.
    #[serde(default, deserialize_with = "crate::number::maybe_version")]
    #[schema(value_type = Option<u64>)]
    pub to: Option<Version>,
}

/// Which component a stage runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobComponent {
    /// The stage.
    pub stage: StageName,
    /// The component.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Replicas of one job that find no node. They are pending, and count in `desired` and `waiting`; what has no node has
/// no execution yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unplaced {
    /// The job.
    pub job: JobName,
    /// How many.
    pub count: u64,
    /// Always `no-node`.
    pub reason_code: PendingReason,
    /// In words: what keeps them from each node.
    pub reason: String,
    /// What they wait for.
    pub next_action: String,
    /// Null: it is an event.
    pub next_at: Option<UnixMs>,
}

/// How a job is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// One execution on every matching node.
    Daemon,
    /// One execution on each of `count` matching nodes.
    Replicas,
    /// Runs to an end each time it is launched.
    Batch,
}

impl JobKind {
    /// The fixed spelling, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Replicas => "replicas",
            Self::Batch => "batch",
        }
    }
}

impl From<sluice_model::pipeline::Kind> for JobKind {
    fn from(kind: sluice_model::pipeline::Kind) -> Self {
        match kind {
            sluice_model::pipeline::Kind::Daemon => Self::Daemon,
            sluice_model::pipeline::Kind::Replicas { .. } => Self::Replicas,
            sluice_model::pipeline::Kind::Batch { .. } => Self::Batch,
        }
    }
}
