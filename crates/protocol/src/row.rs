//! The rows' content. A row is encoded once, when it is first committed; from then on both sides keep and hash the
//! bytes as they are, so that a newer program reading an older row never desyncs a fleet.

use prost::Message;
use sluice_model::{
    Attempt, Desired, Digest, ExecutionId, FailReason, JobId, JobName, ObservedPhase, OutputFacts,
    Slot, UnixMs, Version,
};

use crate::COUNTER_MAX;

/// Longest row, in bytes: a fleet's rows must fit memory and a frame many times over.
pub const ROW_BYTES_MAX: usize = 1024;

/// Longest reason that an edge reports, in bytes; longer ones are cut at a character.
const REASON_BYTES_MAX: usize = 600;

/// A row that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// Not the encoding of a row.
    #[error("not a row")]
    Malformed(#[from] prost::DecodeError),
    /// A field's content is impossible.
    #[error("bad {field} in a row")]
    Field {
        /// Which field.
        field: &'static str,
    },
    /// Longer than [`ROW_BYTES_MAX`].
    #[error("row of {bytes} bytes, the most is {ROW_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

fn bad(field: &'static str) -> RowError {
    RowError::Field { field }
}

fn counter(value: u64, field: &'static str) -> Result<u64, RowError> {
    if value <= COUNTER_MAX {
        Ok(value)
    } else {
        Err(bad(field))
    }
}

/// What one node should do about one execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignmentRow {
    /// The execution.
    pub execution: ExecutionId,
    /// Its job.
    pub job: JobId,
    /// The job's name.
    pub job_name: JobName,
    /// The job version to follow.
    pub version: Version,
    /// The try at that version.
    pub attempt: Attempt,
    /// What to do.
    pub desired: Desired,
    /// Which slot on the node.
    pub slot: Slot,
    /// The sha256 of the encoded [`crate::Spec`].
    pub spec: Digest,
    /// It must not run a second time when nobody can tell whether it has ended.
    pub once: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireAssignment {
    #[prost(bytes = "vec", tag = "1")]
    execution: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    job: Vec<u8>,
    #[prost(string, tag = "3")]
    job_name: String,
    #[prost(uint64, tag = "4")]
    version: u64,
    #[prost(uint64, tag = "5")]
    attempt: u64,
    #[prost(string, tag = "6")]
    desired: String,
    #[prost(uint64, tag = "7")]
    slot: u64,
    #[prost(bytes = "vec", tag = "8")]
    spec: Vec<u8>,
    #[prost(bool, tag = "9")]
    once: bool,
}

impl AssignmentRow {
    /// The row's bytes; always within [`ROW_BYTES_MAX`].
    pub fn encode(&self) -> Vec<u8> {
        WireAssignment {
            execution: self.execution.to_bytes().to_vec(),
            job: self.job.to_bytes().to_vec(),
            job_name: self.job_name.to_string(),
            version: self.version.0,
            attempt: self.attempt.0,
            desired: self.desired.to_string(),
            slot: self.slot.0,
            spec: self.spec.as_bytes().to_vec(),
            once: self.once,
        }
        .encode_to_vec()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        if bytes.len() > ROW_BYTES_MAX {
            return Err(RowError::TooLong { bytes: bytes.len() });
        }
        let wire = WireAssignment::decode(bytes)?;
        Ok(Self {
            execution: ExecutionId::from_slice(&wire.execution).ok_or(bad("execution"))?,
            job: JobId::from_slice(&wire.job).ok_or(bad("job"))?,
            job_name: wire.job_name.parse().map_err(|_| bad("job_name"))?,
            version: Version(counter(wire.version, "version")?),
            attempt: Attempt(counter(wire.attempt, "attempt")?),
            desired: wire.desired.parse().map_err(|_| bad("desired"))?,
            slot: Slot(counter(wire.slot, "slot")?),
            spec: Digest::from_slice(&wire.spec).ok_or(bad("spec"))?,
            once: wire.once,
        })
    }
}

/// What one edge runtime did about one execution: a live row, or with phase `completed` or `failed` an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedRow {
    /// The execution.
    pub execution: ExecutionId,
    /// The version that `phase` speaks of.
    pub version: Version,
    /// The attempt that `phase` speaks of.
    pub attempt: Attempt,
    /// Where it stands.
    pub phase: ObservedPhase,
    /// With phase `failed`: the sort of failure.
    pub fail: Option<FailReason>,
    /// In words; at most 600 bytes are sent.
    pub reason: String,
    /// What the edge does next by itself; empty when nothing.
    pub next_action: String,
    /// When; absent when nothing, or when it waits for an event.
    pub next_at: Option<UnixMs>,
    /// Local restarts at this version and attempt.
    pub restarts: u64,
    /// Totals when the row was written.
    pub records_in: u64,
    /// Totals when the row was written.
    pub records_out: u64,
    /// Totals when the row was written.
    pub dead_letters: u64,
    /// The version that still runs while `version` is being prepared or has failed.
    pub running_version: Option<Version>,
    /// The edge's wall clock when the row was written.
    pub at: UnixMs,
    /// What a run's task wrote; absent while it runs, and for what keeps none.
    pub output: Option<OutputFacts>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireObserved {
    #[prost(bytes = "vec", tag = "1")]
    execution: Vec<u8>,
    #[prost(uint64, tag = "2")]
    version: u64,
    #[prost(uint64, tag = "3")]
    attempt: u64,
    #[prost(string, tag = "4")]
    phase: String,
    #[prost(string, tag = "5")]
    fail: String,
    #[prost(string, tag = "6")]
    reason: String,
    #[prost(string, tag = "7")]
    next_action: String,
    #[prost(int64, optional, tag = "8")]
    next_at: Option<i64>,
    #[prost(uint64, tag = "9")]
    restarts: u64,
    #[prost(uint64, tag = "10")]
    records_in: u64,
    #[prost(uint64, tag = "11")]
    records_out: u64,
    #[prost(uint64, tag = "12")]
    dead_letters: u64,
    #[prost(uint64, optional, tag = "13")]
    running_version: Option<u64>,
    #[prost(int64, tag = "14")]
    at: i64,
    #[prost(uint64, tag = "15")]
    output_bytes: u64,
    /// Empty: there is no output.
    #[prost(bytes = "vec", tag = "16")]
    output_digest: Vec<u8>,
    #[prost(uint64, tag = "17")]
    output_dropped: u64,
}

impl ObservedRow {
    /// The row's bytes; always within [`ROW_BYTES_MAX`].
    pub fn encode(&self) -> Vec<u8> {
        WireObserved {
            execution: self.execution.to_bytes().to_vec(),
            version: self.version.0,
            attempt: self.attempt.0,
            phase: self.phase.to_string(),
            fail: self.fail.map(|fail| fail.to_string()).unwrap_or_default(),
            reason: cut(&self.reason, REASON_BYTES_MAX),
            next_action: cut(&self.next_action, 100),
            next_at: self.next_at.map(|at| at.0),
            restarts: self.restarts,
            records_in: self.records_in,
            records_out: self.records_out,
            dead_letters: self.dead_letters,
            running_version: self.running_version.map(|version| version.0),
            at: self.at.0,
            output_bytes: self.output.map_or(0, |output| output.bytes),
            output_digest: self
                .output
                .map(|output| output.digest.as_bytes().to_vec())
                .unwrap_or_default(),
            output_dropped: self.output.map_or(0, |output| output.dropped),
        }
        .encode_to_vec()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        if bytes.len() > ROW_BYTES_MAX {
            return Err(RowError::TooLong { bytes: bytes.len() });
        }
        let wire = WireObserved::decode(bytes)?;
        let fail = if wire.fail.is_empty() {
            None
        } else {
            Some(wire.fail.parse().map_err(|_| bad("fail"))?)
        };
        Ok(Self {
            execution: ExecutionId::from_slice(&wire.execution).ok_or(bad("execution"))?,
            version: Version(counter(wire.version, "version")?),
            attempt: Attempt(counter(wire.attempt, "attempt")?),
            phase: wire.phase.parse().map_err(|_| bad("phase"))?,
            fail,
            reason: wire.reason,
            next_action: wire.next_action,
            next_at: wire.next_at.map(UnixMs),
            restarts: wire.restarts,
            records_in: wire.records_in,
            records_out: wire.records_out,
            dead_letters: wire.dead_letters,
            running_version: wire.running_version.map(Version),
            at: UnixMs(wire.at),
            output: match wire.output_digest.as_slice() {
                [] => None,
                digest => Some(OutputFacts {
                    bytes: counter(wire.output_bytes, "output_bytes")?,
                    digest: Digest::from_slice(digest).ok_or(bad("output_digest"))?,
                    dropped: counter(wire.output_dropped, "output_dropped")?,
                }),
            },
        })
    }

    /// Whether this says how the attempt ended.
    pub fn is_outcome(&self) -> bool {
        matches!(self.phase, ObservedPhase::Completed | ObservedPhase::Failed)
    }

    /// The key of this row as an outcome.
    pub fn outcome_key(&self) -> OutcomeKey {
        OutcomeKey {
            execution: self.execution,
            version: self.version,
            attempt: self.attempt,
        }
    }
}

fn cut(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// What an outcome speaks of: outcomes of different attempts are never merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutcomeKey {
    /// The execution.
    pub execution: ExecutionId,
    /// The version.
    pub version: Version,
    /// The attempt.
    pub attempt: Attempt,
}

impl OutcomeKey {
    /// 32 bytes: execution, version, attempt, big-endian.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.execution.to_bytes());
        bytes[16..24].copy_from_slice(&self.version.0.to_be_bytes());
        bytes[24..].copy_from_slice(&self.attempt.0.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip_within_their_bound() {
        let row = AssignmentRow {
            execution: ExecutionId::from_random([1; 16]),
            job: JobId::from_random([2; 16]),
            job_name: "x".repeat(63).parse().expect("a name"),
            version: Version(COUNTER_MAX),
            attempt: Attempt(COUNTER_MAX),
            desired: Desired::Run,
            slot: Slot(COUNTER_MAX),
            spec: Digest::of(b"spec"),
            once: true,
        };
        assert!(row.encode().len() <= ROW_BYTES_MAX);
        assert_eq!(
            AssignmentRow::decode(&row.encode()).expect("just encoded"),
            row
        );
        let mut observed = ObservedRow {
            execution: row.execution,
            version: row.version,
            attempt: row.attempt,
            phase: ObservedPhase::Quarantined,
            fail: Some(FailReason::Indeterminate),
            reason: "é".repeat(2000),
            next_action: "n".repeat(400),
            next_at: Some(UnixMs(i64::MIN)),
            restarts: u64::MAX,
            records_in: u64::MAX,
            records_out: u64::MAX,
            dead_letters: u64::MAX,
            running_version: Some(Version(COUNTER_MAX)),
            at: UnixMs(i64::MIN),
            output: Some(OutputFacts {
                bytes: COUNTER_MAX,
                digest: Digest::of(b"output"),
                dropped: COUNTER_MAX,
            }),
        };
        let bytes = observed.encode();
        assert!(bytes.len() <= ROW_BYTES_MAX, "{}", bytes.len());
        let back = ObservedRow::decode(&bytes).expect("just encoded");
        observed.reason = back.reason.clone();
        observed.next_action = back.next_action.clone();
        assert_eq!(back, observed);
        assert_eq!(back.reason.len(), 600);
    }

    #[test]
    fn a_counter_that_no_store_could_hold_is_refused() {
        let wire = WireObserved {
            execution: vec![1; 16],
            version: COUNTER_MAX + 1,
            phase: "running".to_owned(),
            ..WireObserved::default()
        };
        assert!(ObservedRow::decode(&wire.encode_to_vec()).is_err());
        let wire = WireObserved {
            version: COUNTER_MAX,
            ..wire
        };
        assert!(ObservedRow::decode(&wire.encode_to_vec()).is_ok());
    }

    #[test]
    fn broken_rows_are_errors() {
        assert!(AssignmentRow::decode(b"\xff").is_err());
        assert!(AssignmentRow::decode(b"").is_err());
        assert!(AssignmentRow::decode(&[0; 2000]).is_err());
        assert!(ObservedRow::decode(b"").is_err());
    }
}
