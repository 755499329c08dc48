//! Join tokens.

use serde::{Deserialize, Serialize};
use sluice_model::{NodeName, TokenId, UnixMs};

/// Life of a token when nothing else is said: an hour is enough to set a machine up.
pub const TOKEN_TTL_MS_DEFAULT: u64 = 60 * 60 * 1000;

/// Longest life of a token: whoever finds an older one must not be able to join.
pub const TOKEN_TTL_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1000;

/// `POST` [`crate::routes::TOKENS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenCreate {
    /// Life in milliseconds; 1 to [`TOKEN_TTL_MS_MAX`].
    pub ttl_ms: u64,
    /// How many edges may join with it; 0 = any number until it expires.
    pub uses: u64,
    /// Only for this node; a registered one gets its id and its work back.
    #[serde(default)]
    pub node: Option<NodeName>,
    /// For any registered node that lost its disk.
    #[serde(default)]
    pub rejoin: bool,
}

/// A token without its secret. `DELETE` [`crate::routes::TOKEN`] answers it as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// The only time that the token itself is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCreated {
    /// What `sluice edge --join` takes; a secret.
    pub token: String,
    /// Its public name.
    pub id: TokenId,
    /// When it ends.
    pub expires_at: UnixMs,
}
