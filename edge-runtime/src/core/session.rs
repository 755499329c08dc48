//! The session as the edge sees it: Hello, Welcome, Begin, heartbeats, and who is silent for too long.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use bytes::Bytes;
use sluice_agent::Now;
use sluice_ledger::{Ask, Outbox, Position, SetDigest};
use sluice_model::{Epoch, ExecutionId, LifeNonce, MonotonicMs, Revision, SessionId, UnixMs};
use sluice_protocol::admission::RejectCode;
use sluice_protocol::{
    Begin, Collector, EdgeMessage, Heartbeat, HeartbeatAck, Hello, OrchestratorMessage, Received,
    Reject, Renew, Resync, VERSIONS, Welcome, edge_message::Kind, orchestrator_message,
};

use super::State;
use super::desired::COLLECTED_BYTES_MAX;
use super::io::{CloseWhy, ConnectionId, Event, Output, Redial};
use crate::runner::Counters;
use crate::store::{Store, StoreError};

/// How long an answer to a Hello may take: the orchestrator commits a transaction first, perhaps for many at once.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);

/// Heartbeats without an answer after which the session counts as dead.
const UNANSWERED_MAX: u32 = 3;

/// How long an ack may take at least.
pub(super) const RECEIVED_WITHIN_MIN: Duration = Duration::from_secs(10);

/// 8 kbit/s: what a link must carry for a change to arrive within our patience.
pub(super) const SLOWEST_LINK_BYTES_PER_S: u64 = 1000;

/// Times between heartbeats that an orchestrator may ask for.
const HEARTBEAT_MS: std::ops::RangeInclusive<u64> = 10..=3_600_000;

/// Counters from the wire stay below this: they are kept as signed numbers, and each needs one after it.
const COUNTER_END: u64 = i64::MAX.cast_unsigned();

/// Counters in one heartbeat, at most: more than any edge runs, and half of a frame. The others come with the next.
const COUNTERS_MAX: usize = 10_000;

/// Where the session stands.
#[derive(Clone, Debug)]
pub(super) enum Session {
    None,
    Opening {
        connection: ConnectionId,
        deadline: MonotonicMs,
    },
    /// The certificate has expired: nothing but its renewal happens here.
    Renewing {
        connection: ConnectionId,
        deadline: MonotonicMs,
    },
    Live(Box<Live>),
}

/// A session that has begun.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) connection: ConnectionId,
    pub(super) epoch: Epoch,
    pub(super) held: bool,
    pub(super) outbox: Outbox,
    pub(super) patience: Duration,
    pub(super) collector: Collector,
    pub(super) wrong_snapshots: u32,
    heartbeat: Duration,
    heartbeat_at: MonotonicMs,
    seq: u64,
    answered: u64,
    pub(super) counters_sent: BTreeMap<ExecutionId, Counters>,
    /// Whose counters went last: the next heartbeat begins behind it, so that all have their turn.
    counters_to: Option<ExecutionId>,
}

impl Session {
    pub(super) fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::None => None,
            Self::Opening { connection, .. } | Self::Renewing { connection, .. } => {
                Some(*connection)
            }
            Self::Live(live) => Some(live.connection),
        }
    }

    pub(super) fn begun(&self) -> Option<ConnectionId> {
        match self {
            Self::Live(live) => Some(live.connection),
            _ => None,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<MonotonicMs> {
        match self {
            Self::None => None,
            Self::Opening { deadline, .. } | Self::Renewing { deadline, .. } => Some(*deadline),
            Self::Live(live) => {
                let received = live.outbox.deadline(live.patience);
                Some(received.map_or(live.heartbeat_at, |at| at.min(live.heartbeat_at)))
            }
        }
    }
}

impl State {
    /// Queues a message on the session's connection.
    pub(super) fn send(&mut self, kind: Kind) {
        if let Some(connection) = self.session.connection() {
            let frame = sluice_protocol::encode(&EdgeMessage { kind: Some(kind) });
            self.outputs.push(Output::SendFrame { connection, frame });
        }
    }

    /// Ends the session from this side.
    pub(super) fn close(&mut self, code: &'static str, message: &str, redial: Redial) {
        if let Some(connection) = self.session.connection() {
            let message = message.to_owned();
            let why = message.clone();
            self.event(Event::SessionClose { why });
            let why = CloseWhy {
                code,
                message,
                redial,
            };
            self.outputs.push(Output::CloseSession { connection, why });
        }
        self.session = Session::None;
    }

    pub(super) fn handle_connected(&mut self, connection: ConnectionId, now: Now) {
        if self
            .session
            .connection()
            .is_some_and(|old| old >= connection)
        {
            return;
        }
        self.close("superseded", "a newer connection is up", Redial::Soon);
        let deadline = now.mono.plus(WELCOME_WITHIN);
        self.session = Session::Opening {
            connection,
            deadline,
        };
    }

    /// The first word of a connection, as of what is on disk now. It may be said on several, and early.
    pub(super) fn hello(&self) -> Bytes {
        let (epoch, life) = self.meta.life.map_or((0, Vec::new()), |(epoch, nonce)| {
            (epoch.0, nonce.to_bytes().to_vec())
        });
        let incarnation = self.meta.incarnation.map(|it| it.to_bytes().to_vec());
        let hello = Hello {
            versions: VERSIONS.to_vec(),
            program: self.options.program.clone(),
            incarnation: incarnation.unwrap_or_default(),
            boot_counter: self.meta.boot_counter.0,
            boot_nonce: self.boot_nonce.to_bytes().to_vec(),
            epoch,
            life,
            desired: self.desired_position().into(),
            observed: self.observed_position().into(),
            labels: self.options.labels.clone(),
            capabilities: self.options.capabilities.clone(),
            spec_pieces: true,
        };
        sluice_protocol::encode(&EdgeMessage {
            kind: Some(Kind::Hello(hello)),
        })
    }

    pub(super) fn handle_disconnected(&mut self, connection: ConnectionId, why: String) {
        if self.session.connection() == Some(connection) {
            self.session = Session::None;
            self.event(Event::SessionClose { why });
        }
    }

    pub(super) fn handle_renew(&mut self, csr: Vec<u8>) {
        if matches!(self.session, Session::Live(_) | Session::Renewing { .. }) {
            self.send(Kind::Renew(Renew { csr }));
        }
    }

    pub(super) fn handle_frame(
        &mut self,
        store: &mut Store,
        connection: ConnectionId,
        frame: &[u8],
        now: Now,
    ) -> Result<(), StoreError> {
        use orchestrator_message::Kind;
        if self.session.connection() != Some(connection) {
            return Ok(());
        }
        let message = match sluice_protocol::decode::<OrchestratorMessage>(frame) {
            Ok(message) => message,
            Err(error) => {
                self.close("protocol", &error.to_string(), Redial::Soon);
                return Ok(());
            }
        };
        if let Session::Live(live) = &mut self.session {
            // Whatever comes proves that the orchestrator lives: its answers may queue behind rows on a slow link.
            live.answered = live.seq;
        }
        match message.kind {
            Some(Kind::Welcome(welcome)) => self.handle_welcome(store, welcome, now)?,
            Some(Kind::Reject(reject)) => self.handle_reject(reject, now),
            Some(Kind::Rows(rows)) => self.handle_rows(store, rows, now)?,
            Some(Kind::Received(received)) => self.handle_received(store, &received)?,
            Some(Kind::Resync(resync)) => self.handle_resync(&resync),
            Some(Kind::HeartbeatAck(ack)) => self.handle_heartbeat_ack(&ack, now),
            Some(Kind::Renewed(renewed)) => self.handle_renewed(renewed.certificate),
            // A kind of message that this program does not know: newer orchestrators may send it.
            None => {}
        }
        Ok(())
    }

    fn handle_welcome(
        &mut self,
        store: &mut Store,
        welcome: Welcome,
        now: Now,
    ) -> Result<(), StoreError> {
        let Session::Opening { connection, .. } = self.session else {
            return Ok(());
        };
        if welcome.renew_only {
            self.handle_renew_only(connection, UnixMs(welcome.server_time_ms), now);
            return Ok(());
        }
        let nonce = LifeNonce::from_slice(&welcome.life);
        let problem = match (nonce, self.meta.life) {
            (None, _) => Some("the Welcome has no life"),
            _ if !VERSIONS.contains(&welcome.version) => Some("the Welcome's dialect is unknown"),
            _ if !HEARTBEAT_MS.contains(&welcome.heartbeat_ms) => {
                Some("the Welcome's heartbeat is not between 10 ms and an hour")
            }
            _ if welcome.observed_acked >= COUNTER_END || welcome.epoch >= COUNTER_END => {
                Some("the Welcome's counters are larger than any can be")
            }
            (_, Some((mine, _))) if !welcome.held && Epoch(welcome.epoch) < mine => {
                Some("the orchestrator's life is older than the last one")
            }
            _ => None,
        };
        let (Some(nonce), None) = (nonce, problem) else {
            self.close("protocol", problem.unwrap_or_default(), Redial::Soon);
            return Ok(());
        };
        let epoch = Epoch(welcome.epoch);
        if !welcome.held {
            // A held node keeps what it knew: that is the proof of what the orchestrator lost.
            self.meta.life = Some((epoch, nonce));
        }
        let server_time = UnixMs(welcome.server_time_ms);
        self.meta.server_time = self.meta.server_time.max(server_time);
        if let (Some((_, name)), Ok(told)) = (&mut self.meta.node, welcome.node_name.parse()) {
            *name = told;
        }
        let acked = if welcome.new_incarnation {
            self.mint_incarnation();
            self.meta.observed_rev = Revision::ZERO;
            self.restart_observed(store, Revision::ZERO)?;
            Revision::ZERO
        } else {
            Revision(welcome.observed_acked)
        };
        if acked > self.meta.observed_rev {
            // This store is older than what it told once: everything is told anew, above that.
            self.restart_observed(store, acked)?;
        } else {
            store.observed_received(acked)?;
        }
        if self.meta.suspended.take().is_some() {
            self.agent.handle_suspended(None, now);
        }
        if !welcome.held {
            self.agent.handle_connected(now);
        }
        // What was told now is written first, so that the outbox knows the newest head.
        self.write_observed(store, now)?;

        let head = self.observed_position();
        let digest = if acked == head.rev {
            head.digest
        } else {
            SetDigest::EMPTY
        };
        let mut outbox = Outbox::new(head, Position { rev: acked, digest });
        if acked == Revision::ZERO && head.rev > acked {
            outbox.want_snapshot();
        }
        self.session = Session::Live(Box::new(Live {
            connection,
            epoch,
            held: welcome.held,
            outbox,
            patience: RECEIVED_WITHIN_MIN,
            collector: Collector::new(COLLECTED_BYTES_MAX),
            wrong_snapshots: 0,
            heartbeat: Duration::from_millis(welcome.heartbeat_ms),
            heartbeat_at: now.mono.plus(Duration::from_millis(welcome.heartbeat_ms)),
            seq: 0,
            answered: 0,
            counters_sent: BTreeMap::new(),
            counters_to: None,
        }));
        let incarnation = self.meta.incarnation.map(|it| it.to_bytes().to_vec());
        self.send(Kind::Begin(Begin {
            session: welcome.session,
            incarnation: incarnation.unwrap_or_default(),
        }));
        if self.wants_snapshot && !welcome.held {
            self.ask(None, "rows were lost on this edge");
        }
        self.outputs.push(Output::SessionBegun {
            connection,
            server_time,
            heartbeat: Duration::from_millis(welcome.heartbeat_ms),
        });
        self.event(Event::SessionOpen {
            session: SessionId(welcome.session),
            epoch,
            node: self.meta.node.as_ref().map(|(_, name)| name.clone()),
            held: welcome.held,
        });
        Ok(())
    }

    /// The certificate has expired. What runs runs on; a session for everything else needs the new certificate.
    fn handle_renew_only(&mut self, connection: ConnectionId, server_time: UnixMs, now: Now) {
        self.meta.server_time = self.meta.server_time.max(server_time);
        let deadline = now.mono.plus(WELCOME_WITHIN);
        self.session = Session::Renewing {
            connection,
            deadline,
        };
        self.event(Event::SessionRenewOnly);
        self.outputs.push(Output::RenewalWanted {
            connection,
            server_time,
        });
    }

    fn handle_renewed(&mut self, der: Vec<u8>) {
        if self.session.connection().is_some() {
            self.outputs.push(Output::Certificate { der });
        }
        if matches!(self.session, Session::Renewing { .. }) {
            self.close("renewed", "the certificate is renewed", Redial::Soon);
        }
    }

    /// Puts all observed rows and outcomes at the revision after `above`.
    fn restart_observed(&mut self, store: &mut Store, above: Revision) -> Result<(), StoreError> {
        self.meta.observed_rev = above.next();
        store.renumber_observed(self.meta.observed_rev)
    }

    fn handle_reject(&mut self, reject: Reject, now: Now) {
        let gone = [RejectCode::Revoked, RejectCode::Deleted]
            .iter()
            .any(|code| code.as_str() == reject.code);
        self.event(Event::SessionRefused {
            code: reject.code.clone(),
            message: reject.message.clone(),
        });
        let redial = if gone {
            let why = format!("{}: {}", reject.code, reject.message);
            self.meta.suspended = Some(why.clone());
            self.agent.handle_suspended(Some(why), now);
            Redial::Seldom
        } else {
            Redial::AfterMs(reject.retry_after_ms)
        };
        self.close("refused", &reject.message, redial);
    }

    fn handle_received(
        &mut self,
        store: &mut Store,
        received: &Received,
    ) -> Result<(), StoreError> {
        let Session::Live(live) = &mut self.session else {
            return Ok(());
        };
        if received.epoch != live.epoch.0 {
            return Ok(());
        }
        let rev = Revision(received.rev);
        match live.outbox.handle_received(rev) {
            Ok(()) => {
                store.observed_received(rev)?;
                self.event(Event::LedgerObserved { rev });
            }
            Err(violation) => self.close("protocol", &violation.to_string(), Redial::Soon),
        }
        Ok(())
    }

    fn handle_resync(&mut self, resync: &Resync) {
        let Session::Live(live) = &mut self.session else {
            return;
        };
        if resync.epoch != live.epoch.0 {
            return;
        }
        let ask = match resync.from {
            Some(rev) => Ask::From(Revision(rev)),
            None => Ask::Snapshot,
        };
        if let Err(violation) = live.outbox.handle_ask(ask) {
            self.close("protocol", &violation.to_string(), Redial::Soon);
        }
    }

    fn handle_heartbeat_ack(&mut self, ack: &HeartbeatAck, now: Now) {
        let mine = self.desired_position();
        let Session::Live(live) = &mut self.session else {
            return;
        };
        let (Some(desired), Some(observed)) =
            (ack.desired.to_position(), ack.observed.to_position())
        else {
            return;
        };
        if live.held {
            return;
        }
        live.outbox.handle_peer_position(observed);
        if ack.no_room {
            live.outbox.handle_waiting(now.mono);
        }
        if desired.rev == mine.rev && desired.digest != mine.digest {
            self.ask(None, "the orchestrator holds other rows at this revision");
        }
    }

    pub(super) fn handle_session_tick(&mut self, now: Now) {
        let (desired, observed) = (self.desired_position(), self.observed_position());
        match &mut self.session {
            Session::None => {}
            Session::Opening { deadline, .. } => {
                if *deadline <= now.mono {
                    self.close("silent", "no answer to the Hello", Redial::Soon);
                }
            }
            Session::Renewing { deadline, .. } => {
                if *deadline <= now.mono {
                    self.close("silent", "no answer to the renewal", Redial::Soon);
                }
            }
            Session::Live(live) => {
                let overdue = live.outbox.deadline(live.patience);
                if overdue.is_some_and(|deadline| deadline <= now.mono) {
                    let message = "observed rows were not acknowledged in time";
                    self.close("silent", message, Redial::Soon);
                    return;
                }
                if live.heartbeat_at > now.mono {
                    return;
                }
                if live.seq - live.answered >= u64::from(UNANSWERED_MAX) {
                    let message = "three heartbeats were not answered";
                    self.close("silent", message, Redial::Soon);
                    return;
                }
                live.seq += 1;
                live.heartbeat_at = now.mono.plus(live.heartbeat);
                let (sent, last) = (&mut live.counters_sent, &mut live.counters_to);
                let moved = moved_counters(&self.counters, sent, last, COUNTERS_MAX);
                let heartbeat = Heartbeat {
                    seq: live.seq,
                    epoch: live.epoch.0,
                    desired: desired.into(),
                    observed: observed.into(),
                    counters: moved.into_iter().map(wire_counters).collect(),
                };
                self.send(Kind::Heartbeat(heartbeat));
            }
        }
    }
}

/// The counters that differ from what was sent last, so many at most, from behind `last` on and around; taken as sent.
pub(super) fn moved_counters(
    counters: &BTreeMap<ExecutionId, Counters>,
    sent: &mut BTreeMap<ExecutionId, Counters>,
    last: &mut Option<ExecutionId>,
    most: usize,
) -> Vec<(ExecutionId, Counters)> {
    sent.retain(|execution, _| counters.contains_key(execution));
    let behind = last.map_or(Unbounded, Excluded);
    let before = last.map(|last| counters.range(..=last));
    let moved: Vec<_> = counters
        .range((behind, Unbounded))
        .chain(before.into_iter().flatten())
        .filter(|(execution, now)| sent.get(*execution) != Some(*now))
        .take(most)
        .map(|(execution, now)| (*execution, *now))
        .collect();
    sent.extend(moved.iter().copied());
    *last = moved.last().map(|(execution, _)| *execution);
    moved
}

fn wire_counters((execution, now): (ExecutionId, Counters)) -> sluice_protocol::Counters {
    sluice_protocol::Counters {
        execution: execution.to_bytes().to_vec(),
        records_in: now.records_in,
        records_out: now.records_out,
        dead_letters: now.dead_letters,
    }
}
