//! Tokens: those with which edges join, and those with which people and programs use this API.

use serde::{Deserialize, Serialize};
use sluice_model::{NodeName, Role, TokenId, TokenKind, TokenState, UnixMs};
use utoipa::ToSchema;

use crate::Cursor;

/// Life of a token when nothing else is said: an hour is enough to set a machine up.
pub const TOKEN_TTL_MS_DEFAULT: u64 = 60 * 60 * 1000;

/// Life of a token for this API when nothing else is said: long enough for a pipeline of builds to be set up once a month.
pub const API_TOKEN_TTL_MS_DEFAULT: u64 = 30 * 24 * 60 * 60 * 1000;

/// Longest life of a token for this API: a year and a day, so that it is renewed at a yearly occasion.
pub const API_TOKEN_TTL_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1000;

/// Tokens for this API at once: people and programs, not machines of the fleet.
pub const API_TOKENS_MAX: u64 = 1000;

/// Longest name of a token, in bytes.
pub const TOKEN_NAME_BYTES_MAX: usize = 64;

/// Longest life of a token with which edges join: whoever finds an older one must not be able to.
pub const TOKEN_TTL_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1000;

/// `POST` [`crate::routes::TOKENS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenCreate {
    /// Life in milliseconds; 1 to [`TOKEN_TTL_MS_MAX`], with `role` to [`API_TOKEN_TTL_MS_MAX`].
    #[serde(deserialize_with = "crate::number::whole")]
    #[schema(minimum = 1)]
    pub ttl_ms: u64,
    /// How many edges may join with it; 0 = any number until it expires. Means nothing with `role`.
    #[serde(default = "once", deserialize_with = "crate::number::whole")]
    pub uses: u64,
    /// Only for this node; a registered one gets its id and its work back.
    #[serde(default)]
    pub node: Option<NodeName>,
    /// For any registered node that lost its disk.
    #[serde(default)]
    pub rejoin: bool,
    /// Makes a token for this API, which may do what the role may; absent: one with which edges join.
    #[serde(default)]
    pub role: Option<Role>,
    /// Who or what it is for, as the audit log shows it; only with `role`. At most [`TOKEN_NAME_BYTES_MAX`] bytes.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 64)]
    pub name: Option<String>,
}

fn once() -> u64 {
    1
}

/// A token without its secret. `DELETE` [`crate::routes::TOKEN`] answers it as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its public name.
    pub id: TokenId,
    /// What it is for.
    pub kind: TokenKind,
    /// Whether it opens anything.
    pub state: TokenState,
    /// Only for this node.
    pub node: Option<NodeName>,
    /// For any registered node that lost its disk.
    pub rejoin: bool,
    /// Edges that may still join with it; null = any number until it expires.
    pub uses_left: Option<u64>,
    /// When it ends, or was to end.
    pub expires_at: UnixMs,
    /// When it was revoked, or expired; null while it opens something.
    #[serde(default)]
    pub ended_at: Option<UnixMs>,
    /// When it was made.
    pub created_at: UnixMs,
    /// By whom: `operator.toml`, or the name or id of a token.
    #[serde(default)]
    pub created_by: Option<String>,
    /// What it may do with this API; null for one with which edges join.
    #[serde(default)]
    pub role: Option<Role>,
    /// Who or what it is for.
    #[serde(default)]
    pub name: Option<String>,
}

/// Query of `GET` [`crate::routes::TOKENS`]; every part given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenFilter {
    /// For this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<TokenKind>,
    /// Tokens of this API with this role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// In this state; absent: those that have not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TokenState>,
    /// Those that have ended too, as far as they are remembered: the last 10,000.
    #[serde(default)]
    pub all: bool,
    /// Most items in a page; 1 to [`crate::PAGE_ITEMS_MAX`], which it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Where the page before ended; absent: from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

/// The only time that the token itself is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenCreated {
    /// What `sluice edge --join` takes, or with `role` the bearer token of this API; a secret.
    pub token: String,
    /// Its public name.
    pub id: TokenId,
    /// When it ends.
    pub expires_at: UnixMs,
}
