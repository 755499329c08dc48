//! Every byte between orchestrator and edge: messages, frames, versions, and the rule of who may speak as a node.
//!
//! A session is one control stream of frames. The edge speaks [`EdgeMessage`], the orchestrator
//! [`OrchestratorMessage`]; joining, artifact pulls and log reads are short streams of their own.
//!
//! ```text
//!   edge                                   orchestrator
//!    | Hello {positions, boot, versions} -->  |   read and answered, nothing committed
//!    | <-- Welcome {session, epoch, nonce}    |   or Reject {code, retry_after}
//!    |  (epoch, nonce) on disk                |
//!    | Begin {session} -------------------->  |   takeover, liveness, labels committed
//!    | <-- Rows {base, to, digest, rows} ---  |   desired set, as deltas or snapshots
//!    | Received {rev} --------------------->  |   after fsync
//!    | Rows {base, to, digest, rows} ------>  |   observed set: live rows and outcomes
//!    | <-- Received {rev} ------------------  |
//!    | Heartbeat {positions, counters} ---->  |
//!    | <-- HeartbeatAck {positions} --------  |
//! ```
//!
//! Nothing here does IO.

pub mod admission;
mod frame;
mod message;
mod parts;
mod row;
mod spec;

pub use frame::{FRAME_BYTES_MAX, FrameError, decode, encode};
pub use message::{
    Begin, COUNTER_MAX, Counters, EdgeMessage, Heartbeat, HeartbeatAck, Hello, JoinReply,
    JoinRequest, LogLine, LogReply, LogRequest, OrchestratorMessage, OutputRequest, PullReply,
    PullRequest, Received, Reject, Renew, Renewed, Resync, Row, Rows, SpecBytes, StreamRequest,
    Welcome, WirePosition, edge_message, orchestrator_message, stream_request,
};
pub use parts::{CollectError, Collector, Splitter};
pub use row::{AssignmentRow, ObservedRow, OutcomeKey, ROW_BYTES_MAX, RowError};
pub use spec::{Spec, SpecComponent, SpecError, SpecStdin};

/// The dialects this program speaks, newest last.
pub const VERSIONS: &[u32] = &[1];

/// ALPN of a session.
pub const ALPN_SESSION: &[u8] = b"sluice/1";

/// ALPN of joining.
pub const ALPN_JOIN: &[u8] = b"sluice-join/1";

/// Payload of one `Rows` part, in bytes: a quarter of a frame.
pub const ROWS_PART_BYTES_MAX: usize = 256 * 1024;

/// The same of a change's first parts: each is a sign of life, and at 8 kbit/s one comes within two heartbeats.
pub const ROWS_FIRST_PART_BYTES_MAX: usize = 8 * 1024;

/// How many first parts there are: 2 MiB, half an hour at 8 kbit/s.
pub const ROWS_FIRST_PARTS: usize = 256;

/// Parts of one change, at most: with the bytes that a [`Collector`] is made for, what a receiver holds before it applies.
pub const ROWS_PARTS_MAX: u32 = 1280;
