//! What goes into the core and what comes out: plain data, so that a simulator can hold, delay and repeat it.

use bytes::Bytes;
use sluice_agent::{ArtifactKind, Assignment, Ending, PrepareFailure, Ticket};
use sluice_model::{
    Digest, Epoch, ExecutionId, NodeName, ObservedPhase, Revision, SessionId, UnixMs,
};

use crate::runner::Counters;

/// Names one connection of this process; the shell counts them, and later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Something happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A connection to the orchestrator is up, on which [`super::EdgeCore::hello`] was said; a newer one replaces an older.
    Connected {
        /// Which.
        connection: ConnectionId,
    },
    /// A frame of its control stream. Frames of replaced connections are ignored.
    Frame {
        /// Which connection.
        connection: ConnectionId,
        /// An encoded `OrchestratorMessage`.
        frame: Bytes,
    },
    /// It is gone.
    Disconnected {
        /// Which.
        connection: ConnectionId,
        /// For people.
        why: String,
    },
    /// Time passed; due at [`super::EdgeCore::next_deadline`] at the latest.
    Tick,
    /// What the running executions have counted; the newest wins.
    Counters(Vec<(ExecutionId, Counters)>),
    /// The certificate should be renewed; dropped when there is no session.
    Renew {
        /// A signing request for the session's key, DER.
        csr: Vec<u8>,
    },
    /// [`Output::Fetch`] takes long, and this much is here. Only shown to people; a busy thread may miss one.
    Fetching {
        /// Which component.
        digest: Digest,
        /// How many bytes of it.
        bytes: u64,
    },
    /// [`Output::Fetch`] ended: the artifact is here and whole, or why not.
    Fetched {
        /// Which component.
        digest: Digest,
        /// How it ended.
        result: Result<(), String>,
    },
    /// [`Output::Prepare`] got to `compiling` or `starting`.
    Phase {
        /// Which.
        ticket: Ticket,
        /// The phase.
        phase: ObservedPhase,
    },
    /// [`Output::Prepare`] ended; when it worked, the shell keeps the result until `Start` or `Discard`.
    Prepared {
        /// Which.
        ticket: Ticket,
        /// How it ended.
        result: Result<(), PrepareFailure>,
    },
    /// What [`Output::Start`] started moves records.
    Running {
        /// Which.
        ticket: Ticket,
        /// What it counts on from.
        counters: Counters,
    },
    /// It is over; exactly one for each `Start`.
    Ended {
        /// Which.
        ticket: Ticket,
        /// How.
        ending: Ending,
        /// The last counters.
        counters: Counters,
    },
    /// [`Output::Purge`] ended.
    Purged {
        /// Whose state.
        execution: ExecutionId,
        /// How it ended.
        result: Result<(), String>,
    },
    /// The process is about to end: nothing new is started, and instances that end `Stopped` are no news.
    ShuttingDown,
}

/// What to do now. Released only after everything before it is on disk; in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send an encoded `EdgeMessage` on the control stream.
    SendFrame {
        /// Which connection.
        connection: ConnectionId,
        /// The frame.
        frame: Bytes,
    },
    /// Close the connection. `Disconnected` need not follow.
    CloseSession {
        /// Which.
        connection: ConnectionId,
        /// Why, and when to dial again.
        why: CloseWhy,
    },
    /// The session has begun: its Welcome is on disk and `Begin` is on its way.
    SessionBegun {
        /// Which connection.
        connection: ConnectionId,
        /// The orchestrator's clock: the floor for checking certificates.
        server_time: UnixMs,
        /// How often the two sides hear of each other.
        heartbeat: std::time::Duration,
    },
    /// The certificate has expired, and the session is there to renew it: answer with [`Input::Renew`].
    RenewalWanted {
        /// Which connection.
        connection: ConnectionId,
        /// The orchestrator's clock.
        server_time: UnixMs,
    },
    /// A renewed certificate, DER.
    Certificate {
        /// The certificate.
        der: Vec<u8>,
    },
    /// Make sure that an artifact is here and whole; answer with [`Input::Fetched`].
    Fetch {
        /// Which.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// What it is for.
        kind: ArtifactKind,
    },
    /// Give up that fetch; its [`Input::Fetched`] still follows.
    CancelFetch {
        /// Which.
        digest: Digest,
    },
    /// Prepare; answer with [`Input::Phase`] and [`Input::Prepared`].
    Prepare {
        /// Names the result.
        ticket: Ticket,
        /// What.
        assignment: Assignment,
        /// Its spec: an encoded `sluice_protocol::Spec`.
        spec: Bytes,
    },
    /// Drop what this ticket names; nothing need be answered.
    Discard {
        /// Which.
        ticket: Ticket,
    },
    /// Start what was prepared; answer with [`Input::Running`] and [`Input::Ended`].
    Start {
        /// Which.
        ticket: Ticket,
        /// For the record.
        assignment: Assignment,
    },
    /// Stop it; [`Input::Ended`] follows.
    Stop {
        /// Which.
        ticket: Ticket,
        /// Whose.
        execution: ExecutionId,
    },
    /// Delete an execution's state; answer with [`Input::Purged`].
    Purge {
        /// Whose.
        execution: ExecutionId,
    },
    /// Something worth a line in the program's log.
    Event(Event),
}

/// Why the core closes a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseWhy {
    /// A stable word: `refused`, `silent`, `protocol`, `superseded`, `disk-full`, `renewed`.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// When to dial again.
    pub redial: Redial,
}

/// When to dial again after a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redial {
    /// As after any lost connection.
    Soon,
    /// Not before this many milliseconds, then with growing delays.
    AfterMs(u64),
    /// The node may not speak any more: seldom, until a person changes that.
    Seldom,
}

/// Lines for the program's log, with the stable names of the design.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `session.open`
    SessionOpen {
        /// The orchestrator's name for it.
        session: SessionId,
        /// The orchestrator's life.
        epoch: Epoch,
        /// This node's name there.
        node: Option<NodeName>,
        /// Heartbeats only.
        held: bool,
    },
    /// `session.renew_only`: the certificate has expired, and this session does nothing but renew it.
    SessionRenewOnly,
    /// `session.close`
    SessionClose {
        /// Why.
        why: String,
    },
    /// `session.refused`
    SessionRefused {
        /// The stable word.
        code: String,
        /// For people.
        message: String,
    },
    /// `ledger.received`: desired rows are on disk.
    LedgerReceived {
        /// Up to here.
        rev: Revision,
        /// Rows new or changed.
        upserts: usize,
        /// Rows gone.
        removed: usize,
        /// A whole set rather than a change.
        snapshot: bool,
    },
    /// `ledger.observed`: the orchestrator has our observed rows on disk.
    LedgerObserved {
        /// Up to here.
        rev: Revision,
    },
    /// `ledger.resync`: rows did not fit what is here.
    LedgerResync {
        /// Everything after this is asked for; `None` asks for the whole set.
        from: Option<Revision>,
        /// Why.
        why: String,
    },
    /// `execution.state`
    ExecutionState {
        /// Which.
        execution: ExecutionId,
        /// Its job's name, where known.
        job: String,
        /// What the phase speaks of.
        version: u64,
        /// What the phase speaks of.
        attempt: u64,
        /// The phase.
        phase: ObservedPhase,
        /// In words.
        reason: String,
    },
    /// Something is wrong with what is on disk, and what was done about it.
    StoreTrouble {
        /// In words.
        message: String,
    },
}
