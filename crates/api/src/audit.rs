//! Who changed what, and when.

use serde::{Deserialize, Serialize};
use sluice_model::{Role, UnixMs};
use utoipa::ToSchema;

use crate::Cursor;

/// Entries in one answer when the question names no number.
pub const AUDIT_LIMIT_DEFAULT: u32 = 100;

/// Longest name of an operation or a token in a question: longer than each of them is.
pub const AUDIT_NAME_CHARS_MAX: usize = 64;

/// Query of `GET` [`crate::routes::AUDIT`]; every part given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Entries older than this one; absent: from the newest.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::number::maybe_whole"
    )]
    pub before: Option<u64>,
    /// What was asked for with this token: its id, or `operator.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64)]
    pub token: Option<String>,
    /// What was asked for as this operation, such as `job.deploy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64)]
    pub operation: Option<String>,
    /// What ended so: `done`, `refused` whyever, or the code of an error, such as `forbidden`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[a-z-]{1,32}$")]
    pub outcome: Option<String>,
    /// What was asked for then or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<UnixMs>,
    /// What was asked for before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixMs>,
    /// How many; 1 to [`crate::PAGE_ITEMS_MAX`], [`AUDIT_LIMIT_DEFAULT`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Where the page before ended; absent: from the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

/// One write that was asked for, or anything that a token's role refused. What was done is written in the transaction that
/// did it; what was refused, after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Grows by the order of the entries.
    pub id: u64,
    /// When.
    pub at: UnixMs,
    /// Whose token: `operator.toml`, or a token's id.
    pub token: String,
    /// What that token is for; null when it has no name.
    pub name: Option<String>,
    /// What it might do then.
    pub role: Role,
    /// The operation, such as `job.deploy`.
    pub operation: String,
    /// The path that was asked for.
    pub target: String,
    /// `done`, or the code of the error.
    pub outcome: String,
    /// With an error: its message. Else what was made or changed, such as `job web, version 3`, where the path does not say it.
    pub message: Option<String>,
}
