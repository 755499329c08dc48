//! Tokens: those with which edges join, and those with which people and programs use this API.

use serde::{Deserialize, Serialize};
use sluice_model::{NodeName, Role, TokenId, UnixMs};
use utoipa::ToSchema;

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
    /// Only for this node.
    pub node: Option<NodeName>,
    /// For any registered node that lost its disk.
    pub rejoin: bool,
    /// Edges that may still join with it; null = any number until it expires.
    pub uses_left: Option<u64>,
    /// When it ends.
    pub expires_at: UnixMs,
    /// What it may do with this API; null for one with which edges join.
    #[serde(default)]
    pub role: Option<Role>,
    /// Who or what it is for.
    #[serde(default)]
    pub name: Option<String>,
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
