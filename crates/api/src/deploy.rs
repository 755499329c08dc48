//! Deploying a pipeline.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_model::{Digest, JobId, JobName, NodeName, StageName, Version};
use utoipa::ToSchema;

/// `POST` [`crate::routes::DEPLOY`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// The pipeline file's text; checked again and kept as written. At most 256 KiB.
    #[schema(max_length = 262144)]
    pub pipeline: String,
    /// For each stage whose `plugin` is a file: what that file's content is. Must have been uploaded before.
    #[serde(default)]
    pub plugins: BTreeMap<StageName, Digest>,
    /// Says what would change and changes nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a deploy did, or with `dry_run` would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeployReply {
    /// The job.
    pub job: JobName,
    /// Its id; `None` only in a dry run of a job that does not exist.
    pub id: Option<JobId>,
    /// The version that is desired now.
    pub version: Version,
    /// What happened.
    pub outcome: DeployOutcome,
    /// Nothing was changed: this is what would happen.
    pub dry_run: bool,
    /// In words, one line each; empty when unchanged.
    pub changes: Vec<String>,
    /// The nodes that match now, by name.
    pub matching_nodes: Vec<NodeName>,
    /// The version that was gone back to; `None` for a deploy.
    #[serde(default)]
    pub rolled_back_to: Option<Version>,
}

/// How a deploy changed a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeployOutcome {
    /// There was no such job.
    Created,
    /// A new version.
    Updated,
    /// It is what is deployed already.
    Unchanged,
    /// It is what is deployed already, but the job was stopped: started again.
    Started,
}

impl DeployOutcome {
    /// The fixed spelling, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::Started => "started",
        }
    }
}
