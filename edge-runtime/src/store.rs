//! The edge's memory: one SQLite file, `STATE_DIR/edge.db`, behind verbs of this domain.
//!
//! ```text
//!   meta              format, incarnation, boot counter, orchestrator life, revisions, node, server time
//!   desired           key -> row as first committed, and its hash         what the orchestrator wants
//!   specs             digest -> bytes                                     what the rows name
//!   observed          key -> row, revision                                what is; the latest wins
//!   observed_removed  key -> revision                                     rows gone, until received
//!   outcomes          key -> row, revision                                how attempts ended, until received
//!   local             execution -> facts                                  what a restart must know
//! ```
//!
//! The core is the only user: it begins a transaction, handles a batch of inputs, commits, and only then lets outputs
//! go. Rows are kept byte for byte. Every call passes a fault point first, so that tests can fail each of them.

mod local;
mod schema;
#[cfg(test)]
mod tests;

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use sluice_agent::Local;
use sluice_ledger::{RowHash, SetDigest};
use sluice_model::{
    BootCounter, Digest, Epoch, ExecutionId, Incarnation, LifeNonce, NodeId, NodeName, Revision,
    UnixMs,
};
use sluice_state_dir::failpoint::Steps;

/// The small facts, of a connection that is no [`Store`]: of a copy that is only looked at.
pub(crate) use schema::read_meta as read_facts;

/// The store's format; a newer one is refused, so that a downgraded program never damages it.
pub const FORMAT: u64 = 1;

/// What failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full. Nothing was changed; may work again later.
    #[error("the disk that holds the state directory is full")]
    Full,
    /// Reading or writing failed. The program must end: what is on disk can only be known by opening it again.
    #[error("the edge's store failed while {doing}")]
    Failed {
        /// What was tried.
        doing: &'static str,
        /// What came back.
        #[source]
        source: rusqlite::Error,
    },
    /// A fault that a test put in.
    #[error("injected fault at {at}")]
    Injected {
        /// The fault point.
        at: &'static str,
    },
    /// Made by a newer program.
    #[error(
        "the state directory has format {found}, this program knows formats up to {FORMAT}: \
         use the newer program that made it"
    )]
    Newer {
        /// Its format.
        found: u64,
    },
    /// Made for another node.
    #[error("this state directory belongs to node {node}; use another --state-dir or remove it")]
    OtherNode {
        /// Whose it is.
        node: String,
    },
    /// A part was damaged while the program ran, and the next start mends it.
    #[error(
        "the edge's store is damaged ({what}): start the edge again; it drops what is damaged and asks the orchestrator \
         for it"
    )]
    Changed {
        /// What is wrong.
        what: String,
    },
    /// Not what this program wrote.
    #[error(
        "the edge's store is damaged ({what}): move the state directory away and join again with a token \
         made by `sluice token create --node NAME`; the work comes back"
    )]
    Damaged {
        /// What is wrong.
        what: String,
    },
}

impl StoreError {
    /// Whether trying again later may work.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full)
    }
}

/// Called with the name of each store operation before it happens; an error makes the operation fail.
pub type FaultPoint = Box<dyn FnMut(&'static str) -> Result<(), StoreError> + Send>;

/// Small facts, each stored by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Which life of the store this is.
    pub incarnation: Option<Incarnation>,
    /// Process starts on this store.
    pub boot_counter: BootCounter,
    /// The orchestrator life last agreed with.
    pub life: Option<(Epoch, LifeNonce)>,
    /// The desired set's revision.
    pub desired_rev: Revision,
    /// The desired set's digest at that revision.
    pub desired_digest: SetDigest,
    /// The observed set's revision.
    pub observed_rev: Revision,
    /// This node, once joined.
    pub node: Option<(NodeId, NodeName)>,
    /// The latest server time heard: the floor for checking certificates.
    pub server_time: UnixMs,
    /// Why all work is stopped (`revoked`, `deleted`), if it is.
    pub suspended: Option<String>,
}

/// A desired row as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// Its key.
    pub key: Vec<u8>,
    /// The row.
    pub body: Vec<u8>,
    /// Its hash when it was committed.
    pub hash: RowHash,
}

/// A row's key and its bytes.
pub type KeyedRow = (Vec<u8>, Vec<u8>);

/// What goes to the orchestrator after a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedChanges {
    /// Live rows: key, body.
    pub upserts: Vec<KeyedRow>,
    /// Keys of live rows that are gone.
    pub removed: Vec<Vec<u8>>,
    /// Outcomes: key, body.
    pub outcomes: Vec<KeyedRow>,
}

/// The edge's store.
pub struct Store {
    connection: Connection,
    fault: Option<FaultPoint>,
    steps: Steps,
}

impl Store {
    /// Opens or makes the store in a file.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open(path).map_err(|source| failed("opening it", source))?;
        Self::from_connection(connection)
    }

    /// A store that lives as long as its connection.
    pub fn in_memory() -> Result<Self, StoreError> {
        let connection =
            Connection::open_in_memory().map_err(|source| failed("opening it", source))?;
        Self::from_connection(connection)
    }

    /// Uses a connection; an open transaction is rolled back, as a crash would have done.
    pub fn from_connection(connection: Connection) -> Result<Self, StoreError> {
        if !connection.is_autocommit() {
            connection
                .execute_batch("ROLLBACK")
                .map_err(|source| failed("rolling back", source))?;
        }
        schema::prepare(&connection)?;
        Ok(Self {
            connection,
            fault: None,
            steps: Steps::default(),
        })
    }

    /// Gives the connection back; what was not committed is gone once it is used again.
    pub fn into_connection(self) -> Connection {
        self.connection
    }

    /// Puts a fault point in, or takes it out.
    pub fn set_fault_point(&mut self, fault: Option<FaultPoint>) {
        self.fault = fault;
    }

    fn at(&mut self, point: &'static str) -> Result<&Connection, StoreError> {
        if let Some(fault) = &mut self.fault {
            fault(point)?;
        }
        self.steps.step(point);
        Ok(&self.connection)
    }

    /// Begins a transaction.
    pub fn begin(&mut self) -> Result<(), StoreError> {
        self.batch("begin", "BEGIN IMMEDIATE")?;
        self.steps.begin();
        Ok(())
    }

    /// Makes everything since [`Self::begin`] durable; on return it is on disk.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        self.steps.written();
        self.batch("commit", "COMMIT")?;
        self.steps.committed();
        Ok(())
    }

    /// Undoes everything since [`Self::begin`]; nothing to undo is fine.
    pub fn rollback(&mut self) -> Result<(), StoreError> {
        if self.connection.is_autocommit() {
            return Ok(());
        }
        self.connection
            .execute_batch("ROLLBACK")
            .map_err(|source| failed("rolling back", source))
    }

    fn batch(&mut self, point: &'static str, sql: &str) -> Result<(), StoreError> {
        self.at(point)?
            .execute_batch(sql)
            .map_err(|source| failed(point, source))
    }

    /// Reads all small facts.
    pub fn meta(&mut self) -> Result<Meta, StoreError> {
        schema::read_meta(self.at("read_meta")?)
    }

    /// Writes all small facts that differ from `old`.
    pub fn put_meta(&mut self, old: &Meta, new: &Meta) -> Result<(), StoreError> {
        schema::write_meta(self.at("put_meta")?, old, new)
    }

    /// All desired rows, in key order, whole or not: the caller compares the hashes.
    pub fn desired(&mut self) -> Result<Vec<StoredRow>, StoreError> {
        let connection = self.at("read_desired")?;
        let sql = "SELECT key, body, hash FROM desired ORDER BY key";
        collect(connection, "reading desired rows", sql, |row| {
            let hash: Vec<u8> = row.get(2)?;
            Ok(StoredRow {
                key: row.get(0)?,
                body: row.get(1)?,
                // A hash that is not one matches no row.
                hash: RowHash::from_slice(&hash).unwrap_or_else(|| RowHash::of(b"")),
            })
        })
    }

    /// Puts a desired row in, in place of the one with its key.
    pub fn put_desired(
        &mut self,
        key: &[u8],
        body: &[u8],
        hash: RowHash,
    ) -> Result<(), StoreError> {
        self.at("put_desired")?
            .execute(
                "INSERT OR REPLACE INTO desired (key, body, hash) VALUES (?1, ?2, ?3)",
                params![key, body, hash.to_bytes()],
            )
            .map(drop)
            .map_err(|source| failed("writing a desired row", source))
    }

    /// Takes a desired row out.
    pub fn remove_desired(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.delete("remove_desired", "DELETE FROM desired WHERE key = ?1", key)
    }

    /// A spec's bytes, checked: a process that goes on with another text would run what nobody ordered.
    pub fn spec_checked(&mut self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.spec(digest)?;
        if found.as_ref().is_some_and(|it| Digest::of(it) != digest) {
            return Err(StoreError::Changed {
                what: format!("the pipeline's text {digest} is not what was written"),
            });
        }
        Ok(found)
    }

    /// A spec's bytes, whole or not: the caller compares the digest.
    pub fn spec(&mut self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.at("read_spec")?
            .query_row(
                "SELECT bytes FROM specs WHERE digest = ?1",
                params![digest.as_bytes()],
                |row| row.get(0),
            )
            .optional()
            .map_err(|source| failed("reading a spec", source))
    }

    /// The digests of all specs here.
    pub fn spec_digests(&mut self) -> Result<Vec<Digest>, StoreError> {
        let connection = self.at("read_specs")?;
        let found: Vec<Vec<u8>> = collect(
            connection,
            "reading specs",
            "SELECT digest FROM specs ORDER BY digest",
            |row| row.get(0),
        )?;
        Ok(found
            .iter()
            .filter_map(|digest| Digest::from_slice(digest))
            .collect())
    }

    /// Keeps a spec.
    pub fn put_spec(&mut self, digest: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.at("put_spec")?
            .execute(
                "INSERT OR REPLACE INTO specs (digest, bytes) VALUES (?1, ?2)",
                params![digest.as_bytes(), bytes],
            )
            .map(drop)
            .map_err(|source| failed("writing a spec", source))
    }

    /// Forgets a spec.
    pub fn remove_spec(&mut self, digest: Digest) -> Result<(), StoreError> {
        self.delete(
            "remove_spec",
            "DELETE FROM specs WHERE digest = ?1",
            digest.as_bytes(),
        )
    }

    /// All live observed rows: key, body.
    pub fn live(&mut self) -> Result<Vec<KeyedRow>, StoreError> {
        let connection = self.at("read_live")?;
        collect(
            connection,
            "reading observed rows",
            "SELECT key, body FROM observed ORDER BY key",
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
    }

    /// Puts a live row in at a revision.
    pub fn put_live(&mut self, key: &[u8], rev: Revision, body: &[u8]) -> Result<(), StoreError> {
        let doing = "writing an observed row";
        let connection = self.at("put_live")?;
        connection
            .execute(
                "INSERT OR REPLACE INTO observed (key, rev, body) VALUES (?1, ?2, ?3)",
                params![key, signed(rev), body],
            )
            .map_err(|source| failed(doing, source))?;
        connection
            .execute("DELETE FROM observed_removed WHERE key = ?1", params![key])
            .map(drop)
            .map_err(|source| failed(doing, source))
    }

    /// Takes a live row out at a revision, and remembers that until it is received.
    pub fn remove_live(&mut self, key: &[u8], rev: Revision) -> Result<(), StoreError> {
        let doing = "removing an observed row";
        let connection = self.at("remove_live")?;
        connection
            .execute("DELETE FROM observed WHERE key = ?1", params![key])
            .map_err(|source| failed(doing, source))?;
        connection
            .execute(
                "INSERT OR REPLACE INTO observed_removed (key, rev) VALUES (?1, ?2)",
                params![key, signed(rev)],
            )
            .map(drop)
            .map_err(|source| failed(doing, source))
    }

    /// Keeps an outcome until it is received; the first of a key stays.
    pub fn put_outcome(
        &mut self,
        key: &[u8],
        rev: Revision,
        body: &[u8],
    ) -> Result<(), StoreError> {
        self.at("put_outcome")?
            .execute(
                "INSERT OR IGNORE INTO outcomes (key, rev, body) VALUES (?1, ?2, ?3)",
                params![key, signed(rev), body],
            )
            .map(drop)
            .map_err(|source| failed("writing an outcome", source))
    }

    /// Everything observed after a revision.
    pub fn observed_after(&mut self, base: Revision) -> Result<ObservedChanges, StoreError> {
        let doing = "reading observed changes";
        let connection = self.at("read_observed")?;
        let pair = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let base = signed(base);
        Ok(ObservedChanges {
            upserts: collect_with(
                connection,
                doing,
                "SELECT key, body FROM observed WHERE rev > ?1 ORDER BY key",
                base,
                pair,
            )?,
            removed: collect_with(
                connection,
                doing,
                "SELECT key FROM observed_removed WHERE rev > ?1 ORDER BY key",
                base,
                |row| row.get(0),
            )?,
            outcomes: collect_with(
                connection,
                doing,
                "SELECT key, body FROM outcomes WHERE rev > ?1 ORDER BY rev, key",
                base,
                pair,
            )?,
        })
    }

    /// All outcomes that are not received yet: key, body.
    pub fn outcomes(&mut self) -> Result<Vec<KeyedRow>, StoreError> {
        let connection = self.at("read_outcomes")?;
        collect(
            connection,
            "reading outcomes",
            "SELECT key, body FROM outcomes ORDER BY rev, key",
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
    }

    /// The orchestrator has everything observed up to `rev` on disk: forgets outcomes and removals up to there.
    pub fn observed_received(&mut self, rev: Revision) -> Result<(), StoreError> {
        let doing = "recording an ack";
        let connection = self.at("observed_received")?;
        for sql in [
            "DELETE FROM outcomes WHERE rev <= ?1",
            "DELETE FROM observed_removed WHERE rev <= ?1",
        ] {
            connection
                .execute(sql, params![signed(rev)])
                .map_err(|source| failed(doing, source))?;
        }
        Ok(())
    }

    /// Puts every live row and outcome at one revision: the set is told anew from there.
    pub fn renumber_observed(&mut self, rev: Revision) -> Result<(), StoreError> {
        let doing = "renumbering observed rows";
        let connection = self.at("renumber_observed")?;
        for sql in [
            "UPDATE observed SET rev = ?1",
            "UPDATE outcomes SET rev = ?1",
        ] {
            connection
                .execute(sql, params![signed(rev)])
                .map_err(|source| failed(doing, source))?;
        }
        connection
            .execute("DELETE FROM observed_removed", [])
            .map(drop)
            .map_err(|source| failed(doing, source))
    }

    /// What earlier processes remembered of executions. Facts that cannot be read are left out: work that may be
    /// repeated is better than none.
    pub fn locals(&mut self) -> Result<Vec<Local>, StoreError> {
        let connection = self.at("read_local")?;
        let found: Vec<(Vec<u8>, Vec<u8>)> = collect(
            connection,
            "reading local facts",
            "SELECT execution, facts FROM local ORDER BY execution",
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        Ok(found
            .iter()
            .filter_map(|(key, facts)| local::decode(key, facts))
            .collect())
    }

    /// Remembers facts of an execution.
    pub fn put_local(&mut self, facts: &Local) -> Result<(), StoreError> {
        let bytes = local::encode(facts);
        self.at("put_local")?
            .execute(
                "INSERT OR REPLACE INTO local (execution, facts) VALUES (?1, ?2)",
                params![facts.execution.to_bytes(), bytes],
            )
            .map(drop)
            .map_err(|source| failed("writing local facts", source))
    }

    /// Forgets an execution's facts.
    pub fn remove_local(&mut self, execution: ExecutionId) -> Result<(), StoreError> {
        self.delete(
            "remove_local",
            "DELETE FROM local WHERE execution = ?1",
            &execution.to_bytes(),
        )
    }

    fn delete(&mut self, point: &'static str, sql: &str, key: &[u8]) -> Result<(), StoreError> {
        self.at(point)?
            .execute(sql, params![key])
            .map(drop)
            .map_err(|source| failed(point, source))
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

fn failed(doing: &'static str, source: rusqlite::Error) -> StoreError {
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full,
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => StoreError::Damaged {
            what: format!("{source} while {doing}"),
        },
        _ => StoreError::Failed { doing, source },
    }
}

/// SQLite's integers are signed; a revision outlives neither.
fn signed(rev: Revision) -> i64 {
    i64::try_from(rev.0).unwrap_or(i64::MAX)
}

fn collect<T>(
    connection: &Connection,
    doing: &'static str,
    sql: &str,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection
        .prepare_cached(sql)
        .map_err(|source| failed(doing, source))?;
    let rows = statement
        .query_map([], read)
        .map_err(|source| failed(doing, source))?;
    rows.collect::<Result<_, _>>()
        .map_err(|source| failed(doing, source))
}

fn collect_with<T>(
    connection: &Connection,
    doing: &'static str,
    sql: &str,
    base: i64,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection
        .prepare_cached(sql)
        .map_err(|source| failed(doing, source))?;
    let rows = statement
        .query_map(params![base], read)
        .map_err(|source| failed(doing, source))?;
    rows.collect::<Result<_, _>>()
        .map_err(|source| failed(doing, source))
}
