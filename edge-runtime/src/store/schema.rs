//! Tables and the small facts. A fact is one row of `meta`; an unknown one is left alone.

use rusqlite::{Connection, OptionalExtension, params};
use sluice_ledger::SetDigest;
use sluice_model::{BootCounter, Epoch, Incarnation, LifeNonce, NodeId, Revision, UnixMs};

use super::{FORMAT, Meta, StoreError, failed};

/// WAL and FULL: a commit returns when it is on disk. Exclusive: one process owns the directory anyway, and without
/// the shared index file a full disk is an error rather than a dead process. The cache and the journal are bounded,
/// since an edge is small.
const PRAGMAS: &str = "
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = ON;
    PRAGMA cache_size = -1024;
    PRAGMA journal_size_limit = 1048576;
    PRAGMA wal_autocheckpoint = 256;
";

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS desired (key BLOB PRIMARY KEY, body BLOB NOT NULL, hash BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS specs (digest BLOB PRIMARY KEY, bytes BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS observed (key BLOB PRIMARY KEY, rev INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS observed_removed (key BLOB PRIMARY KEY, rev INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS outcomes (key BLOB PRIMARY KEY, rev INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS local (execution BLOB PRIMARY KEY, facts BLOB NOT NULL) WITHOUT ROWID;
";

pub(super) fn prepare(connection: &Connection) -> Result<(), StoreError> {
    let doing = "preparing its tables";
    connection
        .execute_batch(PRAGMAS)
        .map_err(|source| failed(doing, source))?;
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(|source| failed(doing, source))?;
    let found = found.cast_unsigned();
    if found > FORMAT {
        return Err(StoreError::Newer { found });
    }
    if found != 0 {
        // There already. Nothing is written, so that a full disk keeps no edge from starting.
        return Ok(());
    }
    connection
        .execute_batch(&format!(
            "BEGIN; {TABLES} PRAGMA user_version = {FORMAT}; COMMIT;"
        ))
        .map_err(|source| failed(doing, source))
}

fn get(connection: &Connection, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    connection
        .query_row(
            "SELECT value FROM meta WHERE name = ?1",
            params![name],
            |row| row.get(0),
        )
        .optional()
        .map_err(|source| failed("reading facts", source))
}

fn number(name: &str, value: &[u8]) -> Result<u64, StoreError> {
    value
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| damaged(name))
}

fn damaged(name: &str) -> StoreError {
    StoreError::Damaged {
        what: format!("its fact `{name}` cannot be read"),
    }
}

pub(crate) fn read_meta(connection: &Connection) -> Result<Meta, StoreError> {
    let counted = |name| match get(connection, name)? {
        Some(value) => number(name, &value),
        None => Ok(0),
    };
    let mut meta = Meta {
        boot_counter: BootCounter(counted("boot_counter")?),
        desired_rev: Revision(counted("desired_rev")?),
        observed_rev: Revision(counted("observed_rev")?),
        server_time: UnixMs(counted("server_time")?.cast_signed()),
        ..Meta::default()
    };
    if let Some(value) = get(connection, "incarnation")? {
        meta.incarnation =
            Some(Incarnation::from_slice(&value).ok_or_else(|| damaged("incarnation"))?);
    }
    if let Some(value) = get(connection, "desired_digest")? {
        meta.desired_digest =
            SetDigest::from_slice(&value).ok_or_else(|| damaged("desired_digest"))?;
    }
    if let Some(value) = get(connection, "life")? {
        let (epoch, nonce) = value.split_at_checked(8).ok_or_else(|| damaged("life"))?;
        let nonce = LifeNonce::from_slice(nonce).ok_or_else(|| damaged("life"))?;
        meta.life = Some((Epoch(number("life", epoch)?), nonce));
    }
    if let Some(value) = get(connection, "node")? {
        let (id, name) = value.split_at_checked(16).ok_or_else(|| damaged("node"))?;
        let id = NodeId::from_slice(id).ok_or_else(|| damaged("node"))?;
        let name = std::str::from_utf8(name)
            .ok()
            .and_then(|name| name.parse().ok());
        meta.node = Some((id, name.ok_or_else(|| damaged("node"))?));
    }
    if let Some(value) = get(connection, "suspended")? {
        meta.suspended = Some(String::from_utf8_lossy(&value).into_owned());
    }
    Ok(meta)
}

pub(super) fn write_meta(
    connection: &Connection,
    old: &Meta,
    new: &Meta,
) -> Result<(), StoreError> {
    let old = encode(old);
    for ((name, value), (_, before)) in encode(new).into_iter().zip(old) {
        if value == before {
            continue;
        }
        let done = match value {
            Some(value) => connection.execute(
                "INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)",
                params![name, value],
            ),
            None => connection.execute("DELETE FROM meta WHERE name = ?1", params![name]),
        };
        done.map_err(|source| failed("writing facts", source))?;
    }
    Ok(())
}

fn encode(meta: &Meta) -> [(&'static str, Option<Vec<u8>>); 9] {
    let counted = |value: u64| Some(value.to_be_bytes().to_vec());
    let joined = |first: &[u8], second: &[u8]| [first, second].concat();
    [
        (
            "incarnation",
            meta.incarnation.map(|it| it.to_bytes().to_vec()),
        ),
        ("boot_counter", counted(meta.boot_counter.0)),
        (
            "life",
            meta.life
                .map(|(epoch, nonce)| joined(&epoch.0.to_be_bytes(), &nonce.to_bytes())),
        ),
        ("desired_rev", counted(meta.desired_rev.0)),
        (
            "desired_digest",
            Some(meta.desired_digest.to_bytes().to_vec()),
        ),
        ("observed_rev", counted(meta.observed_rev.0)),
        (
            "node",
            meta.node
                .as_ref()
                .map(|(id, name)| joined(&id.to_bytes(), name.as_str().as_bytes())),
        ),
        ("server_time", counted(meta.server_time.0.cast_unsigned())),
        (
            "suspended",
            meta.suspended.as_ref().map(|why| why.as_bytes().to_vec()),
        ),
    ]
}
