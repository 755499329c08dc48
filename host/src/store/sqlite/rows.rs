//! Columns and what is read from them, for each sort of row.

use rusqlite::Row as SqlRow;
use rusqlite::types::Type;
use sluice_ledger::{Position, SetDigest};
use sluice_model::{
    Attempt, BootCounter, BootNonce, Digest, ExecutionId, Incarnation, JobId, NodeId, Revision,
    Slot, UnixMs, Version,
};
use sluice_protocol::ObservedRow;

use super::super::{ExecutionRecord, JobRecord, NodeOrders, NodeRecord};

/// SQLite's integers are signed 64 bits; ours stay below.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).expect("counters stay below 2^63")
}

pub(super) fn blob<const N: usize>(bytes: [u8; N]) -> Vec<u8> {
    bytes.to_vec()
}

pub(super) fn wrong(index: usize, what: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, Type::Blob, what.into())
}

pub(super) fn counter(row: &SqlRow<'_>, index: usize) -> rusqlite::Result<u64> {
    u64::try_from(row.get::<_, i64>(index)?).map_err(|_| wrong(index, "a negative counter"))
}

pub(super) fn bytes<T>(
    row: &SqlRow<'_>,
    index: usize,
    what: &'static str,
    read: impl FnOnce(&[u8]) -> Option<T>,
) -> rusqlite::Result<T> {
    read(row.get_ref(index)?.as_blob()?).ok_or_else(|| wrong(index, what))
}

pub(super) fn text<T: std::str::FromStr>(
    row: &SqlRow<'_>,
    index: usize,
    what: &'static str,
) -> rusqlite::Result<T> {
    row.get_ref(index)?
        .as_str()?
        .parse()
        .map_err(|_| wrong(index, what))
}

pub(super) fn json<T: serde::de::DeserializeOwned>(
    row: &SqlRow<'_>,
    index: usize,
) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(index)?.as_str()?)
        .map_err(|_| wrong(index, "not the JSON that belongs here"))
}

pub(super) fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("maps and lists of text are always JSON")
}

pub(super) fn time(row: &SqlRow<'_>, index: usize) -> rusqlite::Result<UnixMs> {
    row.get(index).map(UnixMs)
}

pub(super) fn maybe_time(row: &SqlRow<'_>, index: usize) -> rusqlite::Result<Option<UnixMs>> {
    Ok(row.get::<_, Option<i64>>(index)?.map(UnixMs))
}

pub(super) const NODE_COLUMNS: &str = "id, name, labels, key, certificate_expires_at, incarnation, boot_counter, boot_nonce, \
     desired_rev, desired_digest, received_rev, last_ack_at, observed_rev, observed_digest, held, created_at, \
     last_seen_at, program, versions, capabilities, cordoned, draining, operator_labels, lost_at, executions, \
     revoked_at, order_count";

pub(super) fn read_node(row: &SqlRow<'_>) -> rusqlite::Result<NodeRecord> {
    let boot = match row.get_ref(5)?.as_blob_or_null()? {
        None => None,
        Some(incarnation) => Some((
            Incarnation::from_slice(incarnation).ok_or_else(|| wrong(5, "an incarnation"))?,
            BootCounter(counter(row, 6)?),
            bytes(row, 7, "a boot nonce", BootNonce::from_slice)?,
        )),
    };
    Ok(NodeRecord {
        id: bytes(row, 0, "a node id", NodeId::from_slice)?,
        name: text(row, 1, "a node name")?,
        labels: json(row, 2)?,
        key: bytes(row, 3, "a key hash", |bytes| bytes.try_into().ok())?,
        certificate_expires_at: time(row, 4)?,
        boot,
        desired: Position {
            rev: Revision(counter(row, 8)?),
            digest: bytes(row, 9, "a digest", SetDigest::from_slice)?,
        },
        received: Revision(counter(row, 10)?),
        last_ack_at: maybe_time(row, 11)?,
        observed: Position {
            rev: Revision(counter(row, 12)?),
            digest: bytes(row, 13, "a digest", SetDigest::from_slice)?,
        },
        held: row.get(14)?,
        created_at: time(row, 15)?,
        last_seen_at: maybe_time(row, 16)?,
        program: row.get(17)?,
        versions: json(row, 18)?,
        capabilities: json(row, 19)?,
        orders: NodeOrders {
            cordoned: row.get(20)?,
            draining: row.get(21)?,
            labels: json(row, 22)?,
            count: counter(row, 26)?,
        },
        lost_at: maybe_time(row, 23)?,
        executions: counter(row, 24)?,
        revoked_at: maybe_time(row, 25)?,
    })
}

pub(super) const JOB_COLUMNS: &str =
    "id, name, version, spec, stopped, deleted, created_at, updated_at";

pub(super) fn read_job(row: &SqlRow<'_>) -> rusqlite::Result<JobRecord> {
    Ok(JobRecord {
        id: bytes(row, 0, "a job id", JobId::from_slice)?,
        name: text(row, 1, "a job name")?,
        version: Version(counter(row, 2)?),
        spec: bytes(row, 3, "a digest", Digest::from_slice)?,
        stopped: row.get(4)?,
        deleted: row.get(5)?,
        created_at: time(row, 6)?,
        updated_at: time(row, 7)?,
    })
}

pub(super) const EXECUTION_COLUMNS: &str = "id, job, node, slot, version, attempt, desired, spec, rev, created_at, changed_at, replaced, once";

pub(super) fn read_execution(row: &SqlRow<'_>) -> rusqlite::Result<ExecutionRecord> {
    Ok(ExecutionRecord {
        id: bytes(row, 0, "an execution id", ExecutionId::from_slice)?,
        job: bytes(row, 1, "a job id", JobId::from_slice)?,
        node: bytes(row, 2, "a node id", NodeId::from_slice)?,
        slot: Slot(counter(row, 3)?),
        version: Version(counter(row, 4)?),
        attempt: Attempt(counter(row, 5)?),
        desired: text(row, 6, "an order")?,
        spec: bytes(row, 7, "a digest", Digest::from_slice)?,
        rev: Revision(counter(row, 8)?),
        created_at: time(row, 9)?,
        changed_at: time(row, 10)?,
        replaced: row.get(11)?,
        once: row.get(12)?,
    })
}

pub(super) fn read_observed(row: &SqlRow<'_>) -> rusqlite::Result<ObservedRow> {
    ObservedRow::decode(row.get_ref(0)?.as_blob()?).map_err(|_| wrong(0, "an observed row"))
}

pub(super) fn select(columns: &str, rest: &str) -> String {
    format!("SELECT {columns} FROM {rest}")
}
