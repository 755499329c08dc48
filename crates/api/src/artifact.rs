//! Components on the orchestrator: what it lacks, what it took, what it keeps.

use serde::{Deserialize, Serialize};
use sluice_model::Digest;
use utoipa::ToSchema;

/// Largest component, in bytes: three times the largest interpreter that is known to be useful as a stage.
pub const ARTIFACT_BYTES_MAX: u64 = 64 << 20;

/// Most digests in one question; a pipeline names far fewer.
pub const MISSING_DIGESTS_MAX: usize = 256;

/// `POST` [`crate::routes::ARTIFACTS_MISSING`]: which of these must be uploaded?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MissingArtifacts {
    /// At most [`MISSING_DIGESTS_MAX`].
    #[schema(max_items = 256)]
    pub digests: Vec<Digest>,
}

/// Answers [`MissingArtifacts`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MissingReply {
    /// Those that are not here, in the order asked.
    pub missing: Vec<Digest>,
}

/// One component that is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactInfo {
    /// The sha256 of its bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// What it imports; ordered.
    pub imports: Vec<String>,
    /// What it is made for: `transform`, or `report` for one with something to say at the end of its input.
    pub world: String,
}

/// What is kept for launches to name as their stdin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StdinInfo {
    /// The sha256 of its bytes: what [`crate::RunLaunch`] names.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

/// One element of `plugin list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plugin {
    /// The sha256 of its bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// What it imports; ordered.
    pub imports: Vec<String>,
    /// What it is made for: `transform` or `report`.
    pub world: String,
    /// The job versions that name it, as `job@version`; ordered.
    pub used_by: Vec<String>,
}
