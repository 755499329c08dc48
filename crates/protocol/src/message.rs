//! The messages. Field numbers are for ever; a new field is optional, and absent means what it meant before.

use std::collections::BTreeMap;

use sluice_ledger::{Position, SetDigest};
use sluice_model::Revision;

/// The largest counter on the wire: stores keep them in 63 bits.
pub const COUNTER_MAX: u64 = i64::MAX as u64;

/// What an edge says on the control stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EdgeMessage {
    /// The message.
    #[prost(oneof = "edge_message::Kind", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub kind: Option<edge_message::Kind>,
}

/// The kinds of [`EdgeMessage`].
pub mod edge_message {
    /// One of them.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        /// First on every session.
        #[prost(message, tag = "1")]
        Hello(super::Hello),
        /// The Welcome is on disk.
        #[prost(message, tag = "2")]
        Begin(super::Begin),
        /// Desired rows up to this revision are on disk.
        #[prost(message, tag = "3")]
        Received(super::Received),
        /// Desired rows did not apply.
        #[prost(message, tag = "4")]
        Resync(super::Resync),
        /// Observed rows.
        #[prost(message, tag = "5")]
        Rows(super::Rows),
        /// I live, and this is where I stand.
        #[prost(message, tag = "6")]
        Heartbeat(super::Heartbeat),
        /// A new certificate for the same key, please.
        #[prost(message, tag = "7")]
        Renew(super::Renew),
    }
}

/// What an orchestrator says on the control stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OrchestratorMessage {
    /// The message.
    #[prost(oneof = "orchestrator_message::Kind", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub kind: Option<orchestrator_message::Kind>,
}

/// The kinds of [`OrchestratorMessage`].
pub mod orchestrator_message {
    /// One of them.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        /// The session may begin.
        #[prost(message, tag = "1")]
        Welcome(super::Welcome),
        /// It may not.
        #[prost(message, tag = "2")]
        Reject(super::Reject),
        /// Desired rows.
        #[prost(message, tag = "3")]
        Rows(super::Rows),
        /// Observed rows up to this revision are on disk.
        #[prost(message, tag = "4")]
        Received(super::Received),
        /// Observed rows did not apply.
        #[prost(message, tag = "5")]
        Resync(super::Resync),
        /// Answers a heartbeat.
        #[prost(message, tag = "6")]
        HeartbeatAck(super::HeartbeatAck),
        /// A new certificate.
        #[prost(message, tag = "7")]
        Renewed(super::Renewed),
    }
}

/// A set's revision and digest on the wire.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WirePosition {
    /// The revision.
    #[prost(uint64, tag = "1")]
    pub rev: u64,
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub digest: Vec<u8>,
}

impl From<Position> for WirePosition {
    fn from(position: Position) -> Self {
        Self {
            rev: position.rev.0,
            digest: position.digest.to_bytes().to_vec(),
        }
    }
}

impl WirePosition {
    /// The position, or `None` when the digest does not have 16 bytes or the revision is none that a store could hold.
    pub fn to_position(&self) -> Option<Position> {
        if self.rev > COUNTER_MAX {
            return None;
        }
        Some(Position {
            rev: Revision(self.rev),
            digest: SetDigest::from_slice(&self.digest)?,
        })
    }
}

/// Who an edge is and where it stands. The node's id comes from the certificate, never from here.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// Dialects it speaks.
    #[prost(uint32, repeated, tag = "1")]
    pub versions: Vec<u32>,
    /// The program's version, for people.
    #[prost(string, tag = "2")]
    pub program: String,
    /// 16 bytes; one store, one incarnation.
    #[prost(bytes = "vec", tag = "3")]
    pub incarnation: Vec<u8>,
    /// Counts process starts on that store.
    #[prost(uint64, tag = "4")]
    pub boot_counter: u64,
    /// 16 bytes drawn at this process start.
    #[prost(bytes = "vec", tag = "5")]
    pub boot_nonce: Vec<u8>,
    /// The orchestrator life it last agreed with; 0 = none yet.
    #[prost(uint64, tag = "6")]
    pub epoch: u64,
    /// 16 bytes, or empty with epoch 0.
    #[prost(bytes = "vec", tag = "7")]
    pub life: Vec<u8>,
    /// Its desired set.
    #[prost(message, required, tag = "8")]
    pub desired: WirePosition,
    /// Its observed set.
    #[prost(message, required, tag = "9")]
    pub observed: WirePosition,
    /// Its labels.
    #[prost(btree_map = "string, string", tag = "10")]
    pub labels: BTreeMap<String, String>,
    /// What it has: `connector:file`, `arch:x86_64`, `world:transform@0.1`.
    #[prost(string, repeated, tag = "11")]
    pub capabilities: Vec<String>,
    /// It puts specs together that come in pieces.
    #[prost(bool, tag = "12")]
    pub spec_pieces: bool,
}

/// The session may begin, once this is on the edge's disk.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Welcome {
    /// The dialect of this session.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Names this connection.
    #[prost(uint64, tag = "2")]
    pub session: u64,
    /// This orchestrator life.
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub life: Vec<u8>,
    /// Time between heartbeats.
    #[prost(uint64, tag = "5")]
    pub heartbeat_ms: u64,
    /// Observed rows are on the orchestrator's disk up to this revision of this incarnation.
    #[prost(uint64, tag = "6")]
    pub observed_acked: u64,
    /// The orchestrator's wall clock.
    #[prost(int64, tag = "7")]
    pub server_time_ms: i64,
    /// The node is held: heartbeats only.
    #[prost(bool, tag = "8")]
    pub held: bool,
    /// The edge must mint a new incarnation before it begins, and gets a snapshot.
    #[prost(bool, tag = "9")]
    pub new_incarnation: bool,
    /// The node's name as registered.
    #[prost(string, tag = "10")]
    pub node_name: String,
    /// The certificate has expired: this session takes a Renew, answers it with Renewed, and does nothing else. No
    /// Begin follows; the edge dials again with the new certificate.
    #[prost(bool, tag = "11")]
    pub renew_only: bool,
}

/// No session.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reject {
    /// A stable word: see [`crate::admission::RejectCode`].
    #[prost(string, tag = "1")]
    pub code: String,
    /// For people: what is wrong and the way out.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Not before this long.
    #[prost(uint64, tag = "3")]
    pub retry_after_ms: u64,
}

/// The Welcome of this session is on disk; commit it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Begin {
    /// From the Welcome.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// The incarnation it begins with: the Hello's, or a new one where the Welcome asked for it.
    #[prost(bytes = "vec", tag = "2")]
    pub incarnation: Vec<u8>,
}

/// Rows up to `rev` are on disk. Cumulative.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Received {
    /// The session's epoch.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// The revision.
    #[prost(uint64, tag = "2")]
    pub rev: u64,
}

/// What came did not apply.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resync {
    /// The session's epoch.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// Send everything after this; absent: send the whole set.
    #[prost(uint64, optional, tag = "2")]
    pub from: Option<u64>,
}

/// A change of a set, or one part of it. Parts follow each other on the stream; the change applies as a whole when
/// the last one is there.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Rows {
    /// The session's epoch.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// The revision it starts from; absent: a snapshot, the whole set.
    #[prost(uint64, optional, tag = "2")]
    pub base: Option<u64>,
    /// Where the set stands afterwards.
    #[prost(message, required, tag = "3")]
    pub to: WirePosition,
    /// A snapshot that may stop what it does not name.
    #[prost(bool, tag = "4")]
    pub authoritative: bool,
    /// Counts from 0 within the change.
    #[prost(uint32, tag = "5")]
    pub part: u32,
    /// No part follows.
    #[prost(bool, tag = "6")]
    pub last: bool,
    /// New or changed rows.
    #[prost(message, repeated, tag = "7")]
    pub upserts: Vec<Row>,
    /// Keys of rows that are gone.
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub removed: Vec<Vec<u8>>,
    /// Desired only: what the rows name and the edge may lack.
    #[prost(message, repeated, tag = "9")]
    pub specs: Vec<SpecBytes>,
    /// How attempts ended; not part of the digest. Observed: kept by the edge until acknowledged. Desired: what is
    /// recorded for the attempts that `upserts` name, so that an edge that lost its store does not run them again.
    #[prost(message, repeated, tag = "10")]
    pub outcomes: Vec<Row>,
}

impl Rows {
    /// Bytes of keys, rows and specs in this part: what a receiver that collects parts has to hold.
    pub fn payload_bytes(&self) -> usize {
        let rows = self.upserts.iter().chain(&self.outcomes);
        rows.map(|row| row.key.len() + row.body.len())
            .chain(self.removed.iter().map(Vec::len))
            .chain(self.specs.iter().map(|spec| spec.bytes.len()))
            .sum()
    }

    /// How many rows, keys and specs are in this part.
    pub(crate) fn entries(&self) -> usize {
        self.upserts.len() + self.removed.len() + self.specs.len() + self.outcomes.len()
    }
}

/// A row, byte for byte as first committed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Row {
    /// 16 bytes of execution id; outcomes: [`crate::OutcomeKey`].
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The row; hashed as it is.
    #[prost(bytes = "vec", tag = "2")]
    pub body: Vec<u8>,
}

/// A spec, byte for byte; its sha256 is the `spec_digest` that rows name.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SpecBytes {
    /// An encoded [`crate::Spec`].
    #[prost(bytes = "vec", tag = "1")]
    pub bytes: Vec<u8>,
    /// These are its first bytes: it goes on with the first spec of the next part. Only for who said `spec_pieces`.
    #[prost(bool, tag = "2")]
    pub continues: bool,
}

/// I live.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Heartbeat {
    /// Counts within the session.
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    /// The session's epoch.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// My desired set.
    #[prost(message, required, tag = "3")]
    pub desired: WirePosition,
    /// My observed set.
    #[prost(message, required, tag = "4")]
    pub observed: WirePosition,
    /// Counters that moved since the last heartbeat; may be lost.
    #[prost(message, repeated, tag = "5")]
    pub counters: Vec<Counters>,
}

/// Running totals of one execution at one version. Telemetry.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Counters {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub execution: Vec<u8>,
    /// Records taken in.
    #[prost(uint64, tag = "2")]
    pub records_in: u64,
    /// Records that the output accepted.
    #[prost(uint64, tag = "3")]
    pub records_out: u64,
    /// Dead letters.
    #[prost(uint64, tag = "4")]
    pub dead_letters: u64,
}

/// I heard you.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeartbeatAck {
    /// Of the heartbeat.
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    /// The desired set I hold for you.
    #[prost(message, required, tag = "2")]
    pub desired: WirePosition,
    /// The observed set I hold of you.
    #[prost(message, required, tag = "3")]
    pub observed: WirePosition,
    /// My wall clock.
    #[prost(int64, tag = "4")]
    pub server_time_ms: i64,
    /// My disk is full: reports wait for room, and are asked for again then.
    #[prost(bool, tag = "5")]
    pub no_room: bool,
}

/// A new certificate for the key of this session.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Renew {
    /// A certificate signing request, DER; only its public key is used, and it must be the session's.
    #[prost(bytes = "vec", tag = "1")]
    pub csr: Vec<u8>,
}

/// The new certificate.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Renewed {
    /// DER.
    #[prost(bytes = "vec", tag = "1")]
    pub certificate: Vec<u8>,
}

/// The one frame that a joining edge sends.
#[derive(Clone, PartialEq, prost::Message)]
pub struct JoinRequest {
    /// Dialects it speaks.
    #[prost(uint32, repeated, tag = "1")]
    pub versions: Vec<u32>,
    /// The token's id, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub token_id: Vec<u8>,
    /// The token's secret, 32 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub token_secret: Vec<u8>,
    /// The name it wants.
    #[prost(string, tag = "4")]
    pub name: String,
    /// A certificate signing request, DER; only its public key is used.
    #[prost(bytes = "vec", tag = "5")]
    pub csr: Vec<u8>,
    /// Its labels.
    #[prost(btree_map = "string, string", tag = "6")]
    pub labels: BTreeMap<String, String>,
}

/// The one frame that it gets.
#[derive(Clone, PartialEq, prost::Message)]
pub struct JoinReply {
    /// Set when refused; everything else is empty then.
    #[prost(message, optional, tag = "1")]
    pub reject: Option<Reject>,
    /// The node's id, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub node: Vec<u8>,
    /// The node's certificate, DER.
    #[prost(bytes = "vec", tag = "3")]
    pub certificate: Vec<u8>,
    /// The cluster's CA certificate, DER.
    #[prost(bytes = "vec", tag = "4")]
    pub authority: Vec<u8>,
    /// The orchestrator's wall clock.
    #[prost(int64, tag = "5")]
    pub server_time_ms: i64,
    /// Where the orchestrator can be reached: `host:port`.
    #[prost(string, repeated, tag = "6")]
    pub addresses: Vec<String>,
}

/// The first frame of a stream beside the control stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamRequest {
    /// The request.
    #[prost(oneof = "stream_request::Kind", tags = "1, 2, 3")]
    pub kind: Option<stream_request::Kind>,
}

/// The kinds of [`StreamRequest`].
pub mod stream_request {
    /// One of them.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        /// Edge to orchestrator.
        #[prost(message, tag = "1")]
        Pull(super::PullRequest),
        /// Orchestrator to edge.
        #[prost(message, tag = "2")]
        Logs(super::LogRequest),
        /// Orchestrator to edge.
        #[prost(message, tag = "3")]
        Output(super::OutputRequest),
    }
}

/// What a run's task wrote, from `offset` on, please. Answered as a pull is: a [`PullReply`], then the raw bytes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OutputRequest {
    /// The execution, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub execution: Vec<u8>,
    /// Bytes already here.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
}

/// A component from `offset` on, please.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PullRequest {
    /// The sha256, 32 bytes; must be named by one of the node's rows.
    #[prost(bytes = "vec", tag = "1")]
    pub digest: Vec<u8>,
    /// Bytes already here.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// How many to give at most; 0: all that follow.
    #[prost(uint64, tag = "3")]
    pub bytes_max: u64,
}

/// Answers a pull; the raw bytes follow it on the stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PullReply {
    /// Set when refused: `not-named`, `not-here`, `bad-offset`.
    #[prost(message, optional, tag = "1")]
    pub reject: Option<Reject>,
    /// The component's whole size.
    #[prost(uint64, tag = "2")]
    pub size: u64,
}

/// The newest lines of an execution's log, please.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LogRequest {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub execution: Vec<u8>,
    /// How many lines at most; the edge has its own bound.
    #[prost(uint32, tag = "2")]
    pub tail: u32,
    /// After those, every line that comes, until the asker stops the stream.
    #[prost(bool, tag = "3")]
    pub follow: bool,
    /// Only with `follow`: go on at this line, the last [`LogReply::next`]; `tail` does not count then.
    #[prost(uint64, optional, tag = "4")]
    pub from: Option<u64>,
    /// Only lines that are no older than this by the edge's own clock.
    #[prost(uint64, optional, tag = "5")]
    pub age_ms_max: Option<u64>,
    /// Only lines of this stage; empty: all.
    #[prost(string, tag = "6")]
    pub stage: String,
}

/// One frame of lines; the stream ends after the last.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LogReply {
    /// Oldest first.
    #[prost(message, repeated, tag = "1")]
    pub lines: Vec<LogLine>,
    /// The number of the line after these: where to go on after a cut.
    #[prost(uint64, tag = "2")]
    pub next: u64,
    /// Lines before these that are gone: the log had no room for them, or has them no more.
    #[prost(uint64, tag = "3")]
    pub dropped: u64,
    /// Set when refused: `followers`.
    #[prost(message, optional, tag = "4")]
    pub reject: Option<Reject>,
}

/// One line of an execution's log.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LogLine {
    /// When, in milliseconds since the Unix epoch.
    #[prost(int64, tag = "1")]
    pub at_ms: i64,
    /// `debug`, `info`, `warn`, `error`, or `record` for what `output.stdout` wrote.
    #[prost(string, tag = "2")]
    pub level: String,
    /// The stage, or empty.
    #[prost(string, tag = "3")]
    pub stage: String,
    /// The line.
    #[prost(string, tag = "4")]
    pub message: String,
}
