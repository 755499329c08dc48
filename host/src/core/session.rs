//! One node's session: Hello, Welcome, Begin, then rows and heartbeats both ways.
//!
//! ```text
//!   opening --Hello--> welcomed --Begin--> live
//!      |  |               |                  |  3 heartbeats missed, an ack overdue, a violation,
//!      |  |               +------ closed <---+  or a newer session of the node
//!      |  +- certificate expired -> renewing ^
//!      +------------- 10 s ------------------+
//! ```
//!
//! Until Begin nothing is committed: a replayed Hello changes nothing.

mod assignments;
mod reports;
mod standing;

use std::collections::BTreeSet;
use std::time::Duration;

use sluice_ledger::{Ask, Inbox, Outbox, Position};
use sluice_model::{
    BootCounter, BootNonce, Epoch, ExecutionId, Incarnation, Labels, LifeNonce, MonotonicMs,
    NodeId, Revision, SessionId,
};
use sluice_protocol::admission::{
    self, Admission, Caller, HeldReason, Known, LifeKnowledge, RejectCode,
};
use sluice_protocol::{
    COUNTER_MAX, Collector, EdgeMessage, Heartbeat, HeartbeatAck, Hello, OrchestratorMessage,
    Received, Reject, Resync, VERSIONS, Welcome, decode, edge_message, encode,
    orchestrator_message,
};
use tracing::{info, warn};

use self::reports::COLLECTED_BYTES_MAX;
pub(super) use self::standing::RENEWAL_GRACE;
use self::standing::Standing;
use super::join::check_label_map;
use super::tally::count;
use super::{
    ACK_PATIENCE, CloseWhy, ConnId, Core, Handled, LiveCounters, Now, OPENING_MAX, Output, Peer,
    Step,
};
use crate::store::{BeginFacts, LifeRecord, NodeRecord, Store, StoreError};

/// Longest program version, and longest capability, in bytes; they stand in listings.
const HELLO_TEXT_BYTES_MAX: usize = 256;

/// Most capabilities of an edge.
const CAPABILITIES_MAX: usize = 256;

/// How often an edge whose reports wait for room is told so, however rare its heartbeats are: an edge that waits for an ack
/// gives the session up after 10 s.
const NO_ROOM_TOLD_EVERY: Duration = Duration::from_secs(3);

/// How long a refused edge is asked to stay away.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// A connection as the core sees it.
pub(super) struct Session {
    pub(super) peer: Peer,
    pub(super) opened_at: MonotonicMs,
    state: State,
}

enum State {
    Opening,
    Welcomed(Box<Welcomed>),
    /// The certificate has expired, and the node is in good standing otherwise: one renewal, and nothing else.
    Renewing {
        asked: bool,
    },
    Live(Box<Live>),
}

struct Welcomed {
    session: SessionId,
    caller: Caller,
    labels: Labels,
    program: String,
    versions: Vec<u32>,
    capabilities: Vec<String>,
    spec_pieces: bool,
    admission: Admission,
    observed: Position,
}

struct Live {
    session: SessionId,
    since: sluice_model::UnixMs,
    held: bool,
    /// Long specs may come to it in pieces.
    spec_pieces: bool,
    outbox: Outbox,
    inbox: Inbox,
    observed: Position,
    /// What it has reported on: as many as its reports may have rows. Only of these its counters are kept.
    reported: BTreeSet<ExecutionId>,
    /// When it last told its counters.
    counted_at: Option<MonotonicMs>,
    collector: Collector,
    last_heard: MonotonicMs,
    /// The same, and never moved: what it proves, it said by then.
    heard_by: MonotonicMs,
    /// The same, for people.
    last_heard_at: sluice_model::UnixMs,
    /// How long the change in flight may take to be acknowledged.
    patience: Duration,
    /// Snapshots of reports that did not add up, one after the other.
    wrong_snapshots: u32,
    /// What it said last was undone, for want of room, and is to be asked for again.
    missed: bool,
    /// When it was last told that there is no room.
    told_no_room_at: Option<MonotonicMs>,
}

impl Session {
    pub(super) fn new(peer: Peer, now: MonotonicMs) -> Self {
        Self {
            peer,
            opened_at: now,
            state: State::Opening,
        }
    }

    /// Moves the session's deadlines by a time that this process was not running in.
    pub(super) fn forgive(&mut self, gap: Duration) {
        self.opened_at = self.opened_at.plus(gap);
        if let State::Live(live) = &mut self.state {
            live.last_heard = live.last_heard.plus(gap);
            live.outbox.forgive(gap);
        }
    }

    /// Why the session must end now, if it must.
    pub(super) fn overdue(&self, now: MonotonicMs, silence_max: Duration) -> Option<&'static str> {
        match &self.state {
            State::Opening | State::Welcomed(_) | State::Renewing { .. } => {
                (now.since(self.opened_at) > OPENING_MAX).then_some("no session began in time")
            }
            State::Live(live) => {
                if now.since(live.last_heard) > silence_max {
                    Some("three heartbeats were missed")
                } else if live
                    .outbox
                    .deadline(live.patience)
                    .is_some_and(|deadline| now > deadline)
                {
                    Some("assignments were not acknowledged in time")
                } else {
                    None
                }
            }
        }
    }

    /// Derives from the disk what it knows: a round that this session had a part in was undone.
    pub(super) fn follow(&mut self, record: &NodeRecord) {
        if let State::Live(live) = &mut self.state
            && !live.held
        {
            live.outbox.handle_undone(record.desired, record.received);
            live.inbox = Inbox::new(record.observed.rev);
            live.observed = record.observed;
            live.missed = true;
        }
    }

    /// From where its edge is to send its reports again, if what it said was undone.
    pub(super) fn take_missed(&mut self) -> Option<Revision> {
        match &mut self.state {
            State::Live(live) => std::mem::take(&mut live.missed).then(|| live.inbox.rev()),
            State::Opening | State::Welcomed(_) | State::Renewing { .. } => None,
        }
    }

    /// What tells its edge that reports of it wait for room, unless it knows or has none.
    pub(super) fn poll_no_room(&mut self, now: Now) -> Option<HeartbeatAck> {
        let State::Live(live) = &mut self.state else {
            return None;
        };
        let told = live.told_no_room_at;
        let knows = told.is_some_and(|at| now.mono.since(at) < NO_ROOM_TOLD_EVERY);
        if live.held || !live.missed || knows {
            return None;
        }
        live.told_no_room_at = Some(now.mono);
        Some(HeartbeatAck {
            // Of none: edges count whatever they hear as an answer.
            seq: 0,
            desired: live.outbox.head().into(),
            observed: live.observed.into(),
            server_time_ms: now.unix.0,
            no_room: true,
        })
    }

    /// By when its edge has said what is known of it.
    pub(super) fn heard_by(&self) -> Option<MonotonicMs> {
        match &self.state {
            State::Live(live) => Some(live.heard_by),
            State::Opening | State::Welcomed(_) | State::Renewing { .. } => None,
        }
    }

    /// When its edge was last heard of.
    pub(super) fn last_heard_at(&self) -> Option<sluice_model::UnixMs> {
        match &self.state {
            State::Live(live) => Some(live.last_heard_at),
            State::Opening | State::Welcomed(_) | State::Renewing { .. } => None,
        }
    }

    /// The node, once its Hello was accepted. Its first requests may overtake its Begin, which comes on another stream.
    pub(super) fn let_in(&self) -> Option<NodeId> {
        match self.state {
            State::Welcomed(_) | State::Live(_) => Some(self.peer.node),
            State::Opening | State::Renewing { .. } => None,
        }
    }

    /// Since when the session lives.
    pub(super) fn live_since(&self) -> Option<sluice_model::UnixMs> {
        match &self.state {
            State::Live(live) => Some(live.since),
            State::Opening | State::Welcomed(_) | State::Renewing { .. } => None,
        }
    }
}

pub(super) fn send(step: &mut Step, conn: ConnId, kind: orchestrator_message::Kind) {
    let frame = encode(&OrchestratorMessage { kind: Some(kind) });
    step.out.push(Output::Send { conn, frame });
}

impl<S: Store> Core<S> {
    pub(super) fn handle_frame(
        &mut self,
        conn: ConnId,
        frame: &[u8],
        step: &mut Step,
    ) -> Result<Handled, StoreError> {
        if !self.sessions.contains_key(&conn) {
            // A frame that was under way when the core closed the connection.
            return Ok(Handled::Keep);
        }
        let Ok(EdgeMessage { kind: Some(kind) }) = decode::<EdgeMessage>(frame) else {
            return self.violation(conn, "a frame that is no message", step);
        };
        use edge_message::Kind;
        match kind {
            Kind::Hello(hello) => self.handle_hello(conn, &hello, step),
            Kind::Begin(begin) => self.handle_begin(conn, begin.session, &begin.incarnation, step),
            Kind::Received(received) => self.handle_received(conn, &received, step),
            Kind::Resync(resync) => self.handle_resync(conn, &resync, step),
            Kind::Rows(rows) => self.handle_rows(conn, rows, step),
            Kind::Heartbeat(heartbeat) => self.handle_heartbeat(conn, &heartbeat, step),
            Kind::Renew(renew) => self.handle_renew(conn, renew.csr, step),
        }
    }

    fn violation(
        &mut self,
        conn: ConnId,
        what: &str,
        step: &mut Step,
    ) -> Result<Handled, StoreError> {
        warn!(event = "session.close", reason = what);
        if let Some((node, seen_at)) = self.drop_session(conn, step.now) {
            self.store.record_seen(node, seen_at)?;
        }
        step.out.push(Output::Close {
            conn,
            why: CloseWhy::Protocol,
            reason: what.to_owned(),
        });
        Ok(Handled::Keep)
    }

    pub(super) fn refuse(
        &mut self,
        conn: ConnId,
        code: RejectCode,
        message: String,
        step: &mut Step,
    ) -> Handled {
        count(&self.tally.refusals);
        info!(event = "session.refused", code = code.as_str(), reason = %message);
        let retry_after_ms = u64::try_from(RETRY_AFTER.as_millis()).expect("seconds fit");
        let reject = Reject {
            code: code.as_str().to_owned(),
            message: message.clone(),
            retry_after_ms,
        };
        send(step, conn, orchestrator_message::Kind::Reject(reject));
        self.drop_session(conn, step.now);
        step.out.push(Output::Close {
            conn,
            why: CloseWhy::Refused,
            reason: message,
        });
        Handled::Keep
    }

    fn handle_hello(
        &mut self,
        conn: ConnId,
        hello: &Hello,
        step: &mut Step,
    ) -> Result<Handled, StoreError> {
        let Some(session) = self.sessions.get(&conn) else {
            return Ok(Handled::Keep);
        };
        if !matches!(session.state, State::Opening) {
            return self.violation(conn, "a second Hello", step);
        }
        let peer = session.peer.clone();
        if self.full {
            let message = "the orchestrator's disk is full, and a new session needs room on it";
            let code = RejectCode::Unavailable;
            return Ok(self.refuse(conn, code, message.to_owned(), step));
        }
        let Some(caller) = read_caller(hello) else {
            return Ok(self.refuse(
                conn,
                RejectCode::Malformed,
                "the Hello is not well-formed".to_owned(),
                step,
            ));
        };
        if let Err(problem) = check_label_map(&hello.labels) {
            return Ok(self.refuse(conn, RejectCode::Malformed, problem, step));
        }
        let Some(&version) = VERSIONS
            .iter()
            .rev()
            .find(|version| hello.versions.contains(version))
        else {
            let message =
                "no dialect in common; upgrade the orchestrator first, then the edges".to_owned();
            return Ok(self.refuse(conn, RejectCode::Version, message, step));
        };
        let node = match self.standing(&peer, step.now)? {
            Standing::Good(node) => *node,
            Standing::Expired(node) => {
                return Ok(self.welcome_to_renew(conn, version, &node, step));
            }
            Standing::Refused(code, message) => return Ok(self.refuse(conn, code, message, step)),
        };
        let known = self.known(&node, &caller)?;
        let admission = admission::admit(&caller, &known);
        if let Admission::Reject(code) = admission {
            self.note_rival(&node, &caller, &peer.address, step.now.mono);
            let message = format!(
                "another process speaks as {} right now; two machines must not share one state directory: give this one \
                 a directory and a name of its own",
                node.name
            );
            return Ok(self.refuse(conn, code, message, step));
        }
        let same_reports = node
            .boot
            .is_some_and(|(incarnation, ..)| incarnation == caller.incarnation)
            && admission != Admission::NewIncarnation;
        let session_id = SessionId(self.next_session);
        self.next_session += 1;
        let welcome = Welcome {
            version,
            session: session_id.0,
            epoch: self.epoch.0,
            life: self.life.to_bytes().to_vec(),
            heartbeat_ms: u64::try_from(self.config.heartbeat.as_millis()).unwrap_or(u64::MAX),
            observed_acked: if same_reports { node.observed.rev.0 } else { 0 },
            server_time_ms: step.now.unix.0,
            held: matches!(admission, Admission::Hold(_)),
            new_incarnation: admission == Admission::NewIncarnation,
            node_name: node.name.to_string(),
            renew_only: false,
        };
        let observed = hello
            .observed
            .to_position()
            .expect("read_caller checked both positions");
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.state = State::Welcomed(Box::new(Welcomed {
                session: session_id,
                caller,
                labels: hello.labels.clone(),
                program: hello.program.clone(),
                versions: hello.versions.clone(),
                capabilities: hello.capabilities.clone(),
                spec_pieces: hello.spec_pieces,
                admission,
                observed,
            }));
        }
        send(step, conn, orchestrator_message::Kind::Welcome(welcome));
        Ok(Handled::Keep)
    }

    fn known(&mut self, node: &NodeRecord, caller: &Caller) -> Result<Known, StoreError> {
        let callers_life = match caller.life {
            None => LifeKnowledge::None,
            Some(life) if life == (self.epoch, self.life) => LifeKnowledge::Current,
            Some((epoch, nonce)) => match self.store.life(epoch, nonce, node.id)? {
                LifeRecord::Known { floor: Some(floor) } => LifeKnowledge::Past { floor },
                LifeRecord::Known { floor: None } => LifeKnowledge::Current,
                LifeRecord::Unknown => LifeKnowledge::Unknown,
            },
        };
        Ok(Known {
            boot: node.boot,
            connected: self.live.contains_key(&node.id),
            desired: node.desired,
            life: (self.epoch, self.life),
            callers_life,
            held: node.held.is_some(),
        })
    }

    fn handle_begin(
        &mut self,
        conn: ConnId,
        session_id: u64,
        incarnation: &[u8],
        step: &mut Step,
    ) -> Result<Handled, StoreError> {
        let Some(session) = self.sessions.get_mut(&conn) else {
            return Ok(Handled::Keep);
        };
        let peer = session.peer.clone();
        let welcomed = match std::mem::replace(&mut session.state, State::Opening) {
            State::Welcomed(welcomed) if welcomed.session.0 == session_id => welcomed,
            _ => return self.violation(conn, "a Begin without its Welcome", step),
        };
        let Some(incarnation) = Incarnation::from_slice(incarnation) else {
            return self.violation(conn, "a Begin without an incarnation", step);
        };
        let minted = incarnation != welcomed.caller.incarnation;
        if minted != (welcomed.admission == Admission::NewIncarnation) {
            return self.violation(
                conn,
                "a Begin with an incarnation that was not asked for",
                step,
            );
        }
        // Between Hello and Begin another process may have begun: who may speak is decided again, on what is true now.
        let mut node = match self.standing(&peer, step.now)? {
            Standing::Good(node) => *node,
            Standing::Expired(_) => {
                let what = "the certificate has expired since the Hello; dial again";
                return self.violation(conn, what, step);
            }
            Standing::Refused(code, message) => return Ok(self.refuse(conn, code, message, step)),
        };
        let known = self.known(&node, &welcomed.caller)?;
        let admission = admission::admit(&welcomed.caller, &known);
        if admission != welcomed.admission {
            return self.violation(
                conn,
                "the node's standing changed since the Hello; dial again",
                step,
            );
        }
        if self.store.node(node.id)?.is_none() {
            warn!(event = "ledger.held", node = %node.name, reason = "this store has no record of it");
            self.store.insert_node(&node)?;
        }
        // An older copy of this store does not know the newest certificate; a revoke after this counts all the same.
        self.store.record_certificate(node.id, peer.expires_at)?;
        if let Admission::Hold(reason) = admission {
            let why = node
                .held
                .clone()
                .unwrap_or_else(|| reason.describe().to_owned());
            if reason != HeldReason::Before {
                warn!(event = "ledger.held", node = %node.name, reason = %why);
            }
            self.store.hold_node(node.id, &why)?;
            node.held = Some(why);
        }
        // What it is fit for, or that it is back, may change where jobs belong.
        let moved = node.labels != welcomed.labels
            || node.capabilities != welcomed.capabilities
            || node.lost_at.is_some();
        let held = node.held.is_some();
        let known_incarnation = node.boot.map(|(incarnation, ..)| incarnation);
        let boot = (
            incarnation,
            welcomed.caller.boot_counter,
            welcomed.caller.boot_nonce,
        );
        if !held {
            self.store.record_begin(&BeginFacts {
                node: node.id,
                boot,
                epoch: self.epoch,
                labels: welcomed.labels.clone(),
                program: welcomed.program.clone(),
                versions: welcomed.versions.clone(),
                capabilities: welcomed.capabilities.clone(),
                now: step.now.unix,
            })?;
        } else {
            self.store.record_seen(node.id, step.now.unix)?;
        }
        step.begun.insert(conn);
        if let Some(old) = self.live.insert(node.id, conn)
            && old != conn
        {
            self.sessions.remove(&old);
            let reason = "a newer session of this node began".to_owned();
            step.out.push(Output::Close {
                conn: old,
                why: CloseWhy::Superseded,
                reason,
            });
        }
        self.absent.remove(&node.id);
        if node.lost_at.is_some() {
            self.store.set_lost(node.id, None)?;
        }
        let node = self
            .store
            .node(node.id)?
            .expect("it was read or inserted above");
        let peer_position = if held {
            node.desired
        } else {
            welcomed.caller.desired
        };
        let mut outbox = Outbox::new(node.desired, peer_position);
        if admission == Admission::NewIncarnation {
            outbox.want_snapshot();
        }
        if !held {
            self.store
                .record_received(node.id, outbox.acked(), step.now.unix)?;
        }
        let live = Live {
            session: welcomed.session,
            since: step.now.unix,
            held,
            spec_pieces: welcomed.spec_pieces,
            outbox,
            inbox: Inbox::new(node.observed.rev),
            observed: node.observed,
            reported: self.store.observed_ids(node.id)?,
            counted_at: None,
            collector: Collector::new(COLLECTED_BYTES_MAX),
            last_heard: step.now.mono,
            heard_by: step.now.mono,
            last_heard_at: step.now.unix,
            patience: ACK_PATIENCE,
            wrong_snapshots: 0,
            missed: false,
            told_no_room_at: None,
        };
        let differs = live.observed.rev == welcomed.observed.rev
            && live.observed.digest != welcomed.observed.digest;
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.state = State::Live(Box::new(live));
        }
        count(&self.tally.sessions_opened);
        info!(
            event = "session.open",
            node = %node.name,
            session = welcomed.session.0,
            address = %peer.address,
            rev = welcomed.caller.desired.rev.0,
            held,
        );
        if differs && !held && !minted {
            count(&self.tally.resyncs);
            info!(event = "ledger.resync", node = %node.name, "the reports differ from their digest");
            let epoch = self.epoch.0;
            send(
                step,
                conn,
                orchestrator_message::Kind::Resync(Resync { epoch, from: None }),
            );
        }
        if moved && !held {
            self.evaluate_all_jobs(step.now.unix)?;
        }
        if !held {
            // A machine that joined again under its name has no incarnation on record: what it was given is gone as well.
            let wiped = known_incarnation != Some(incarnation);
            self.begin_with_tasks(node.id, wiped, step)?;
        }
        step.touched.insert(node.id);
        Ok(Handled::Keep)
    }

    /// The live session behind a connection, heard of now. `None` closes over frames of superseded sessions and of
    /// ones that never began.
    fn live_mut(&mut self, conn: ConnId, now: Now) -> Option<(NodeId, &mut Live)> {
        let session = self.sessions.get_mut(&conn)?;
        let node = session.peer.node;
        if self.live.get(&node) != Some(&conn) {
            return None;
        }
        match &mut session.state {
            State::Live(live) => {
                live.last_heard = now.mono;
                live.heard_by = now.mono;
                live.last_heard_at = now.unix;
                Some((node, live))
            }
            State::Opening | State::Welcomed(_) | State::Renewing { .. } => None,
        }
    }

    fn handle_received(
        &mut self,
        conn: ConnId,
        received: &Received,
        step: &mut Step,
    ) -> Result<Handled, StoreError> {
        let epoch = self.epoch;
        let Some((node, live)) = self.live_mut(conn, step.now) else {
            return self.violation(conn, "an acknowledgement before Begin", step);
        };
        if live.held || received.epoch != epoch.0 {
            return Ok(Handled::Keep);
        }
        let sent_at = live.outbox.in_flight_since();
        if let Err(violation) = live.outbox.handle_received(Revision(received.rev)) {
            return self.violation(conn, &violation.to_string(), step);
        }
        let took = sent_at.filter(|_| live.outbox.in_flight_since().is_none());
        let acked = live.outbox.acked();
        self.store.record_received(node, acked, step.now.unix)?;
        self.store.forget_removals(node, acked)?;
        if let Some(sent_at) = took {
            self.tally.acks.add(step.now.mono.since(sent_at));
        }
        info!(event = "ledger.received", node = %node, rev = acked.0);
        step.touched.insert(node);
        Ok(Handled::Keep)
    }

    fn handle_resync(
        &mut self,
        conn: ConnId,
        resync: &Resync,
        step: &mut Step,
    ) -> Result<Handled, StoreError> {
        let epoch = self.epoch;
        let Some((node, live)) = self.live_mut(conn, step.now) else {
            return self.violation(conn, "a resync before Begin", step);
        };
        if live.held || resync.epoch != epoch.0 {
            return Ok(Handled::Keep);
        }
        let ask = resync
            .from
            .map_or(Ask::Snapshot, |from| Ask::From(Revision(from)));
        if let Err(violation) = live.outbox.handle_ask(ask) {
            return self.violation(conn, &violation.to_string(), step);
        }
        count(&self.tally.resyncs);
        info!(event = "ledger.resync", node = %node, ask = ?ask);
        step.touched.insert(node);
        Ok(Handled::Keep)
    }

    fn handle_heartbeat(
        &mut self,
        conn: ConnId,
        heartbeat: &Heartbeat,
        step: &mut Step,
    ) -> Result<Handled, StoreError> {
        let (epoch, full) = (self.epoch, self.full);
        let Now { mono, unix } = step.now;
        let tally = self.tally();
        let Some((node, live)) = self.live_mut(conn, step.now) else {
            return self.violation(conn, "a heartbeat before Begin", step);
        };
        let (Some(desired), Some(observed)) = (
            heartbeat.desired.to_position(),
            heartbeat.observed.to_position(),
        ) else {
            return self.violation(conn, "a heartbeat without digests", step);
        };
        let mut resync = false;
        if !live.held && heartbeat.epoch == epoch.0 {
            if live.outbox.handle_peer_position(desired) {
                count(&tally.resyncs);
                info!(event = "ledger.resync", node = %node, rev = desired.rev.0, "assignments differ from their digest");
                step.touched.insert(node);
            }
            resync = !live.collector.is_collecting()
                && observed.rev == live.observed.rev
                && observed.digest != live.observed.digest;
        }
        let (head, ours) = (live.outbox.head(), live.observed);
        if full {
            live.told_no_room_at = Some(mono);
        }
        live.counted_at = Some(mono);
        let told: Vec<_> = heartbeat
            .counters
            .iter()
            .filter_map(|it| Some((ExecutionId::from_slice(&it.execution)?, it)))
            .filter(|(execution, _)| live.reported.contains(execution))
            .map(|(execution, it)| {
                let now = LiveCounters {
                    records_in: it.records_in,
                    records_out: it.records_out,
                    dead_letters: it.dead_letters,
                };
                (execution, now)
            })
            .collect();
        if !told.is_empty() {
            self.counters.entry(node).or_default().extend(told);
        }
        if resync {
            count(&self.tally.resyncs);
            info!(event = "ledger.resync", node = %node, rev = ours.rev.0, "reports differ from their digest");
            send(
                step,
                conn,
                orchestrator_message::Kind::Resync(Resync {
                    epoch: epoch.0,
                    from: None,
                }),
            );
        }
        let ack = HeartbeatAck {
            seq: heartbeat.seq,
            desired: head.into(),
            observed: ours.into(),
            server_time_ms: unix.0,
            no_room: full,
        };
        send(step, conn, orchestrator_message::Kind::HeartbeatAck(ack));
        Ok(Handled::Keep)
    }

    /// What a node's heartbeats said of an execution since its row was reported.
    pub(super) fn totals(&self, node: NodeId, execution: ExecutionId) -> Option<LiveCounters> {
        self.counters.get(&node)?.get(&execution).copied()
    }

    /// When a node last told its counters, in the session that lives.
    pub(super) fn counted_at(&self, node: NodeId) -> Option<MonotonicMs> {
        match &self.sessions.get(self.live.get(&node)?)?.state {
            State::Live(live) => live.counted_at,
            State::Opening | State::Welcomed(_) | State::Renewing { .. } => None,
        }
    }

    /// Forgets what a node's heartbeats said; the next ones say it again.
    pub(super) fn forget_counters(&mut self, node: NodeId) {
        self.counters.remove(&node);
    }

    /// Forgets what heartbeats said of one execution.
    fn forget_totals(&mut self, node: NodeId, execution: ExecutionId) {
        if let Some(of_node) = self.counters.get_mut(&node) {
            of_node.remove(&execution);
            if of_node.is_empty() {
                self.counters.remove(&node);
            }
        }
    }
}

fn read_caller(hello: &Hello) -> Option<Caller> {
    let life = match hello.epoch {
        0 => None,
        epoch => Some((Epoch(epoch), LifeNonce::from_slice(&hello.life)?)),
    };
    hello.observed.to_position()?;
    let texts = hello.capabilities.iter().chain([&hello.program]);
    if hello.boot_counter > COUNTER_MAX
        || hello.capabilities.len() > CAPABILITIES_MAX
        || hello.versions.len() > CAPABILITIES_MAX
        || texts
            .into_iter()
            .any(|text| text.len() > HELLO_TEXT_BYTES_MAX)
    {
        return None;
    }
    Some(Caller {
        incarnation: Incarnation::from_slice(&hello.incarnation)?,
        boot_counter: BootCounter(hello.boot_counter),
        boot_nonce: BootNonce::from_slice(&hello.boot_nonce)?,
        life,
        desired: hello.desired.to_position()?,
    })
}
