//! Jobs: deployed pipelines by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_model::{Digest, JobId, JobName, JobState, StageName, UnixMs, Version};

use crate::Execution;

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The pipeline's name.
    pub name: JobName,
    /// A job deleted and deployed again has a new one.
    pub id: JobId,
    /// How it is placed.
    pub kind: JobKind,
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
    /// Of those: pending, on absent nodes too.
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
}

/// The answer of `job describe`: a [`Job`] and what it is made of, in one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDetail {
    /// The job.
    #[serde(flatten)]
    pub job: Job,
    /// The pipeline file as it was written.
    pub pipeline: String,
    /// What assignments name this version's content by.
    pub spec_digest: Digest,
    /// One for each stage, in order.
    pub components: Vec<JobComponent>,
    /// Its executions, by node; the ones that are being stopped too.
    pub executions: Vec<Execution>,
}

/// Which component a stage runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobComponent {
    /// The stage.
    pub stage: StageName,
    /// The component.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// How a job is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// One execution on every matching node.
    Daemon,
}

impl JobKind {
    /// The fixed spelling, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
        }
    }
}

impl From<sluice_model::pipeline::Kind> for JobKind {
    fn from(kind: sluice_model::pipeline::Kind) -> Self {
        match kind {
            sluice_model::pipeline::Kind::Daemon => Self::Daemon,
        }
    }
}
