//! Tokens and the audit log in SQLite.

use std::ops::Range;

use rusqlite::{Row as SqlRow, params};
use sluice_api::AuditEntry;
use sluice_model::{NodeName, TokenId, UnixMs};

use super::super::StoreError;
use super::super::schema::{
    AUDIT_DONE_MAX, AUDIT_REFUSED_MAX, AUDIT_REFUSED_OF_TOKEN_MAX, TOKENS_ENDED_MAX,
};
use super::super::tokens::{ApiTokenRecord, AuditOf, EndedTokenRecord, TokenRecord, TokenStore};
use super::SqliteStore;
use super::rows::{blob, bytes, counter, int, select, text, time, wrong};

const TOKEN_COLUMNS: &str =
    "id, secret_hash, uses_left, expires_at, node, rejoin, created_at, created_by";

const API_TOKEN_COLUMNS: &str = "id, hash, role, name, expires_at, created_at, created_by";

const ENDED_COLUMNS: &str = "id, ended_at, revoked, expires_at, created_at, created_by, uses_left, node, rejoin, role, name";

const AUDIT_COLUMNS: &str = "id, at, token, name, role, operation, target, outcome, message";

fn read_token(row: &SqlRow<'_>) -> rusqlite::Result<TokenRecord> {
    Ok(TokenRecord {
        id: bytes(row, 0, "a token id", TokenId::from_slice)?,
        secret_hash: bytes(row, 1, "a hash", |bytes| bytes.try_into().ok())?,
        uses_left: uses(row, 2)?,
        expires_at: time(row, 3)?,
        node: node(row, 4)?,
        rejoin: row.get(5)?,
        created_at: time(row, 6)?,
        created_by: row.get(7)?,
    })
}

fn read_api_token(row: &SqlRow<'_>) -> rusqlite::Result<ApiTokenRecord> {
    Ok(ApiTokenRecord {
        id: bytes(row, 0, "a token id", TokenId::from_slice)?,
        hash: bytes(row, 1, "a hash", |bytes| bytes.try_into().ok())?,
        role: text(row, 2, "a role")?,
        name: row.get(3)?,
        expires_at: time(row, 4)?,
        created_at: time(row, 5)?,
        created_by: row.get(6)?,
    })
}

fn read_ended(row: &SqlRow<'_>) -> rusqlite::Result<EndedTokenRecord> {
    Ok(EndedTokenRecord {
        id: bytes(row, 0, "a token id", TokenId::from_slice)?,
        ended_at: time(row, 1)?,
        revoked: row.get(2)?,
        expires_at: time(row, 3)?,
        created_at: time(row, 4)?,
        created_by: row.get(5)?,
        uses_left: uses(row, 6)?,
        node: node(row, 7)?,
        rejoin: row.get(8)?,
        role: match row.get_ref(9)?.as_str_or_null()? {
            None => None,
            Some(role) => Some(role.parse().map_err(|_| wrong(9, "a role"))?),
        },
        name: row.get(10)?,
    })
}

fn uses(row: &SqlRow<'_>, index: usize) -> rusqlite::Result<Option<u64>> {
    row.get::<_, Option<i64>>(index)?
        .map(|uses| u64::try_from(uses).map_err(|_| wrong(index, "a negative count")))
        .transpose()
}

fn node(row: &SqlRow<'_>, index: usize) -> rusqlite::Result<Option<NodeName>> {
    match row.get_ref(index)?.as_str_or_null()? {
        None => Ok(None),
        Some(name) => Ok(Some(name.parse().map_err(|_| wrong(index, "a node name"))?)),
    }
}

fn read_audit(row: &SqlRow<'_>) -> rusqlite::Result<AuditEntry> {
    Ok(AuditEntry {
        id: counter(row, 0)?,
        at: time(row, 1)?,
        token: row.get(2)?,
        name: row.get(3)?,
        role: text(row, 4, "a role")?,
        operation: row.get(5)?,
        target: row.get(6)?,
        outcome: row.get(7)?,
        message: row.get(8)?,
    })
}

impl SqliteStore {
    /// Notes the tokens of both sorts that end, of which `which` says which, with `?1` in it, and takes them away.
    fn end_tokens(
        &mut self,
        action: &'static str,
        which: &str,
        key: &dyn rusqlite::ToSql,
        revoked_at: Option<UnixMs>,
    ) -> Result<(), StoreError> {
        let ended = "COALESCE(?2, expires_at), ?2 IS NOT NULL, expires_at, created_at, created_by";
        let note = |rest: &str, table: &str| {
            format!(
                "INSERT OR REPLACE INTO token_ended ({ENDED_COLUMNS})
                 SELECT id, {ended}, {rest} FROM {table} WHERE {which}"
            )
        };
        let revoked_at = revoked_at.map(|at| at.0);
        let mut gone = 0;
        for (table, rest) in [
            ("token", "uses_left, node, rejoin, NULL, NULL"),
            ("api_token", "NULL, NULL, 0, role, name"),
        ] {
            let sql = note(rest, table);
            gone += self.execute(action, &sql, params![key, revoked_at])?;
            let sql = format!("DELETE FROM {table} WHERE {which}");
            self.execute(action, &sql, params![key])?;
        }
        if gone > 0 {
            self.execute(
                "forget tokens that ended long ago",
                "DELETE FROM token_ended WHERE (ended_at, id) <= (
                    SELECT ended_at, id FROM token_ended ORDER BY ended_at DESC, id DESC LIMIT 1 OFFSET ?1)",
                [TOKENS_ENDED_MAX],
            )?;
        }
        Ok(())
    }
}

impl TokenStore for SqliteStore {
    fn insert_token(&mut self, token: &TokenRecord) -> Result<(), StoreError> {
        self.execute(
            "keep a token",
            "INSERT INTO token (id, secret_hash, uses_left, expires_at, node, rejoin, created_at, created_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                blob(token.id.to_bytes()),
                blob(token.secret_hash),
                token.uses_left.map(int),
                token.expires_at.0,
                token.node.as_ref().map(NodeName::as_str),
                token.rejoin,
                token.created_at.0,
                token.created_by
            ],
        )?;
        Ok(())
    }

    fn token(&mut self, id: TokenId) -> Result<Option<TokenRecord>, StoreError> {
        let sql = select(TOKEN_COLUMNS, "token WHERE id = ?1");
        self.one("read a token", &sql, [blob(id.to_bytes())], read_token)
    }

    fn tokens(&mut self) -> Result<Vec<TokenRecord>, StoreError> {
        let sql = select(TOKEN_COLUMNS, "token ORDER BY expires_at, id");
        self.all("list tokens", &sql, [], read_token)
    }

    fn use_token(&mut self, id: TokenId) -> Result<(), StoreError> {
        self.execute(
            "use a token",
            "UPDATE token SET uses_left = uses_left - 1 WHERE id = ?1 AND uses_left > 0",
            [blob(id.to_bytes())],
        )?;
        Ok(())
    }

    fn insert_api_token(&mut self, token: &ApiTokenRecord) -> Result<(), StoreError> {
        self.execute(
            "keep a token of the API",
            "INSERT INTO api_token (id, hash, role, name, expires_at, created_at, created_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                blob(token.id.to_bytes()),
                blob(token.hash),
                token.role.as_str(),
                token.name,
                token.expires_at.0,
                token.created_at.0,
                token.created_by
            ],
        )?;
        Ok(())
    }

    fn api_token(&mut self, hash: [u8; 32]) -> Result<Option<ApiTokenRecord>, StoreError> {
        let sql = select(API_TOKEN_COLUMNS, "api_token WHERE hash = ?1");
        self.one(
            "look a token of the API up",
            &sql,
            [blob(hash)],
            read_api_token,
        )
    }

    fn api_tokens(&mut self) -> Result<Vec<ApiTokenRecord>, StoreError> {
        let sql = select(API_TOKEN_COLUMNS, "api_token ORDER BY expires_at, id");
        self.all("list tokens of the API", &sql, [], read_api_token)
    }

    fn revoke_token(&mut self, id: TokenId, now: UnixMs) -> Result<(), StoreError> {
        let id = blob(id.to_bytes());
        self.end_tokens("forget a token", "id = ?1", &id, Some(now))
    }

    fn sweep_tokens(&mut self, before: UnixMs) -> Result<(), StoreError> {
        self.end_tokens("sweep tokens", "expires_at < ?1", &before.0, None)
    }

    fn ended_token(&mut self, id: TokenId) -> Result<Option<EndedTokenRecord>, StoreError> {
        let sql = select(ENDED_COLUMNS, "token_ended WHERE id = ?1");
        let id = [blob(id.to_bytes())];
        self.one("read a token that ended", &sql, id, read_ended)
    }

    fn ended_tokens(&mut self) -> Result<Vec<EndedTokenRecord>, StoreError> {
        let sql = select(ENDED_COLUMNS, "token_ended ORDER BY ended_at, id");
        self.all("list tokens that ended", &sql, [], read_ended)
    }

    fn insert_audit(&mut self, entry: &AuditEntry) -> Result<(), StoreError> {
        self.execute(
            "keep an entry of the audit log",
            "INSERT INTO audit (at, token, name, role, operation, target, outcome, message)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                entry.at.0,
                entry.token,
                entry.name,
                entry.role.as_str(),
                entry.operation,
                entry.target,
                entry.outcome,
                entry.message
            ],
        )?;
        Ok(())
    }

    fn sweep_audit(&mut self) -> Result<(), StoreError> {
        let action = "forget old entries of the audit log";
        self.execute(
            action,
            "DELETE FROM audit WHERE id IN (
                SELECT id FROM (
                    SELECT id, row_number() OVER (PARTITION BY token ORDER BY id DESC) AS nth
                    FROM audit WHERE (outcome = 'done') = 0)
                WHERE nth > ?1)",
            [AUDIT_REFUSED_OF_TOKEN_MAX],
        )?;
        for (done, kept) in [(true, AUDIT_DONE_MAX), (false, AUDIT_REFUSED_MAX)] {
            self.execute(
                action,
                "DELETE FROM audit WHERE (outcome = 'done') = ?1 AND id <= (
                    SELECT id FROM audit WHERE (outcome = 'done') = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                params![done, kept],
            )?;
        }
        Ok(())
    }

    fn audit_ids(
        &mut self,
        since: Option<UnixMs>,
        until: Option<UnixMs>,
    ) -> Result<Range<u64>, StoreError> {
        if since.is_none() && until.is_none() {
            return Ok(0..u64::MAX);
        }
        // Along the index of times alone, which the log's own bound bounds. A clock that was set back mixes the ids of
        // different times, so both ends are looked for.
        let found = self.one(
            "find a time in the audit log",
            "SELECT COALESCE(MIN(id), 0), COALESCE(MAX(id) + 1, 0) FROM audit WHERE at >= ?1 AND at < ?2",
            params![
                since.map_or(i64::MIN, |at| at.0),
                until.map_or(i64::MAX, |at| at.0)
            ],
            |row| Ok(counter(row, 0)?..counter(row, 1)?),
        )?;
        Ok(found.unwrap_or_default())
    }

    fn audit_among(
        &mut self,
        of: AuditOf<'_>,
        ids: Range<u64>,
        count: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let action = "read the audit log";
        let [start, end] = [ids.start, ids.end].map(|id| i64::try_from(id).unwrap_or(i64::MAX));
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let sql = |which: &str| {
            select(
                AUDIT_COLUMNS,
                &format!("audit WHERE {which}id >= ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3"),
            )
        };
        match of {
            AuditOf::All => self.all(action, &sql(""), params![start, end, count], read_audit),
            AuditOf::Token(token) => {
                let params = params![start, end, count, token];
                self.all(action, &sql("token = ?4 AND "), params, read_audit)
            }
            AuditOf::Operation(operation) => {
                let params = params![start, end, count, operation];
                self.all(action, &sql("operation = ?4 AND "), params, read_audit)
            }
            AuditOf::Done(done) => {
                let params = params![start, end, count, done];
                self.all(
                    action,
                    &sql("(outcome = 'done') = ?4 AND "),
                    params,
                    read_audit,
                )
            }
        }
    }
}
