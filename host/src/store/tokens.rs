//! Tokens of both sorts, what is remembered of those that ended, and the audit log.

use std::ops::Range;

use sluice_api::AuditEntry;
use sluice_model::{NodeName, Role, TokenId, UnixMs};

use super::StoreError;

/// A join token. The secret itself is never stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its public name.
    pub id: TokenId,
    /// SHA-256 of its secret.
    pub secret_hash: [u8; 32],
    /// Joins left; `None` = any number.
    pub uses_left: Option<u64>,
    /// When it ends.
    pub expires_at: UnixMs,
    /// Only for this node.
    pub node: Option<NodeName>,
    /// For any registered node that lost its disk.
    pub rejoin: bool,
    /// When it was made.
    pub created_at: UnixMs,
    /// By whom: the name or the id of the token that was used.
    pub created_by: Option<String>,
}

/// A token of the API. The text itself is never stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiTokenRecord {
    /// Its public name.
    pub id: TokenId,
    /// SHA-256 of its text.
    pub hash: [u8; 32],
    /// What it may do.
    pub role: Role,
    /// Who or what it is for.
    pub name: Option<String>,
    /// When it ends.
    pub expires_at: UnixMs,
    /// When it was made.
    pub created_at: UnixMs,
    /// By whom: the name or the id of the token that was used.
    pub created_by: Option<String>,
}

/// What is remembered of a token that opens nothing any more: not its secret, nor a hash of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedTokenRecord {
    /// Its public name.
    pub id: TokenId,
    /// When it was revoked, or expired.
    pub ended_at: UnixMs,
    /// It was revoked before it expired.
    pub revoked: bool,
    /// When it was to end.
    pub expires_at: UnixMs,
    /// When it was made.
    pub created_at: UnixMs,
    /// By whom.
    pub created_by: Option<String>,
    /// Joins that were left; `None` = any number.
    pub uses_left: Option<u64>,
    /// Only for this node.
    pub node: Option<NodeName>,
    /// For any registered node that lost its disk.
    pub rejoin: bool,
    /// What it could do with the API; `None` for a join token.
    pub role: Option<Role>,
    /// Who or what it was for.
    pub name: Option<String>,
}

/// Which entries of the audit log, by an index that finds them without reading the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditOf<'a> {
    /// All.
    All,
    /// What was asked with one token.
    Token(&'a str),
    /// What was asked for one operation.
    Operation(&'a str),
    /// What was done, or what was refused.
    Done(bool),
}

/// The verbs for tokens and the audit log. As with [`super::Store`], nothing reads a clock, and every call may block for
/// the disk.
pub trait TokenStore {
    /// Keeps a token.
    fn insert_token(&mut self, token: &TokenRecord) -> Result<(), StoreError>;
    /// A token.
    fn token(&mut self, id: TokenId) -> Result<Option<TokenRecord>, StoreError>;
    /// Every token, the ones that end first at the front.
    fn tokens(&mut self) -> Result<Vec<TokenRecord>, StoreError>;
    /// Takes one use of a token.
    fn use_token(&mut self, id: TokenId) -> Result<(), StoreError>;
    /// Keeps a token of the API.
    fn insert_api_token(&mut self, token: &ApiTokenRecord) -> Result<(), StoreError>;
    /// The token of the API whose text has this hash, one that has ended too.
    fn api_token(&mut self, hash: [u8; 32]) -> Result<Option<ApiTokenRecord>, StoreError>;
    /// Every token of the API, the ones that end first at the front.
    fn api_tokens(&mut self) -> Result<Vec<ApiTokenRecord>, StoreError>;
    /// Ends a token of either sort; who joined with it stays.
    fn revoke_token(&mut self, id: TokenId, now: UnixMs) -> Result<(), StoreError>;
    /// Ends the tokens of both sorts that expired before then.
    fn sweep_tokens(&mut self, before: UnixMs) -> Result<(), StoreError>;
    /// A token that ended, while it is remembered.
    fn ended_token(&mut self, id: TokenId) -> Result<Option<EndedTokenRecord>, StoreError>;
    /// The tokens that ended, as far as they are remembered: the newest.
    fn ended_tokens(&mut self) -> Result<Vec<EndedTokenRecord>, StoreError>;

    /// Keeps an entry of the audit log; its `id` is ignored.
    fn insert_audit(&mut self, entry: &AuditEntry) -> Result<(), StoreError>;
    /// Forgets the oldest entries of the audit log where there are too many of their sort.
    fn sweep_audit(&mut self) -> Result<(), StoreError>;
    /// The ids among which all entries are that were made at or after `since` and before `until`.
    fn audit_ids(
        &mut self,
        since: Option<UnixMs>,
        until: Option<UnixMs>,
    ) -> Result<Range<u64>, StoreError>;
    /// Entries of the audit log with such ids, the newest first, at most `count`.
    fn audit_among(
        &mut self,
        of: AuditOf<'_>,
        ids: Range<u64>,
        count: usize,
    ) -> Result<Vec<AuditEntry>, StoreError>;
}
