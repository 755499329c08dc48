//! Components on the orchestrator: what it lacks, what it took, what it keeps.

use serde::{Deserialize, Serialize};
use sluice_model::{Digest, JobName, UnixMs};
use utoipa::ToSchema;

use crate::Cursor;

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
    /// Whether one of these names it, or an assignment of a node that is behind: what nothing names is forgotten within two
    /// hours.
    pub in_use: bool,
}

/// Answers `GET` [`crate::routes::PLUGIN`]: a [`Plugin`] and what else is known of it, in one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PluginDetail {
    /// The component.
    #[serde(flatten)]
    pub plugin: Plugin,
    /// What it exports; ordered.
    pub exports: Vec<String>,
    /// When it was uploaded first; null when that is not known any more.
    pub uploaded_at: Option<UnixMs>,
    /// By whom: `operator.toml`, or the name or id of a token; null when that is not known any more.
    pub uploaded_by: Option<String>,
}

/// Query of `GET` [`crate::routes::PLUGINS`]; every part given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginFilter {
    /// Those that a version of this job names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// Those that nothing names any more.
    #[serde(default)]
    pub unused: bool,
    /// Most items in a page; 1 to [`crate::PAGE_ITEMS_MAX`], which it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Where the page before ended; absent: from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}
