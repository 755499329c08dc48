//! A full disk: sessions stay, nothing is acknowledged, orders are refused, and all goes on when there is room.
//!
//! ```text
//!            a commit finds no room                          a probe finds room
//!   rounds ------------------------> full: each input alone -------------------> what was missed, then rounds
//! ```
//!
//! What a session's memory says beyond the disk is derived from the disk again. Its edge does not send again by itself
//! what was undone: it is told at once, and every few seconds, to wait, and asked for it when there is room; what this
//! side had sent, or may have, is sent again and is nothing new there.
//!
//! Only an input that changes something needs room: while the disk is full each is a transaction of its own, so that
//! heartbeats are answered and questions too. A new session needs room and is asked to come back.

use std::collections::BTreeSet;

use sluice_protocol::{Resync, orchestrator_message};
use tracing::{info, warn};

use super::session::send;
use super::{CloseWhy, ConnId, Core, Input, Now, Output, RequestId, Step, store_error};
use crate::store::{NodeRecord, Store, StoreError};

/// Who is concerned when a round is undone.
pub(super) struct Concerned {
    pub(super) asked: Vec<RequestId>,
    pub(super) opened: Vec<ConnId>,
    heard: BTreeSet<ConnId>,
}

impl Concerned {
    pub(super) fn of(inputs: &[Input]) -> Self {
        Self {
            asked: inputs.iter().filter_map(Input::request).collect(),
            opened: inputs.iter().filter_map(Input::opened).collect(),
            heard: inputs.iter().filter_map(Input::conn).collect(),
        }
    }
}

impl<S: Store> Core<S> {
    /// Inputs while the disk is full.
    pub(super) fn handle_full(&mut self, inputs: Vec<Input>, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        for input in inputs {
            let probes = matches!(input, Input::Tick);
            out.extend(self.round(vec![input], now));
            if probes && self.full && self.broken.is_none() {
                out.extend(self.probe(now));
            }
            if probes && self.full && self.broken.is_none() {
                let mut step = Step::new(now);
                self.tell_no_room(&mut step);
                out.extend(step.out);
            }
        }
        out
    }

    /// Nothing of a round was kept, for want of room: memory follows the disk, and what was closed is closed.
    pub(super) fn handle_no_room(&mut self, concerned: &Concerned, step: &mut Step) {
        if !self.full {
            self.full = true;
            warn!(
                event = "store.full",
                "the disk is full: nothing is stored or acknowledged until there is room"
            );
        }
        let error = StoreError::Full;
        step.out
            .retain(|output| matches!(output, Output::Close { .. }));
        let pumped = std::mem::take(&mut step.pumped);
        let pumped = pumped.iter().filter_map(|node| self.live.get(node));
        let concerned_conns: BTreeSet<ConnId> =
            concerned.heard.iter().chain(pumped).copied().collect();
        for conn in concerned_conns {
            self.recover(conn, step);
        }
        self.tell_no_room(step);
        // What the round opened may not have come to be known.
        for &conn in &concerned.opened {
            step.close(conn, CloseWhy::Unavailable, error.to_string());
        }
        for &request in &concerned.asked {
            step.reply(request, Err(store_error(&error)));
        }
    }

    /// Something was undone: what memory takes for done is looked up again.
    pub(super) fn forget(&mut self) {
        self.runs_open = true;
        self.runs_due = true;
        self.tries_ended.look();
        self.placing = super::runs::place::Placing::default();
        self.schedules.look();
    }

    /// Tells those whose reports found no room to wait: no ack comes, and that is no silence.
    fn tell_no_room(&mut self, step: &mut Step) {
        for &conn in self.live.values() {
            let session = self.sessions.get_mut(&conn);
            if let Some(ack) = session.and_then(|it| it.poll_no_room(step.now)) {
                send(step, conn, orchestrator_message::Kind::HeartbeatAck(ack));
            }
        }
    }

    /// Makes a session's memory what the disk says; one that has not begun on disk is closed.
    fn recover(&mut self, conn: ConnId, step: &mut Step) {
        let Some(node) = self.sessions.get(&conn).map(|session| session.peer.node) else {
            return;
        };
        let lives = self.live.get(&node) == Some(&conn) && !step.begun.contains(&conn);
        let record = match self.store.node(node) {
            Ok(record) => record.filter(|_| lives),
            Err(error) => {
                warn!(event = "store.failed", node = %node, %error, "its session starts over");
                None
            }
        };
        let session = self.sessions.get_mut(&conn);
        match (session, record) {
            (Some(session), Some(record)) => session.follow(&record),
            _ => {
                self.drop_session(conn, step.now);
                step.close(conn, CloseWhy::Unavailable, StoreError::Full.to_string());
            }
        }
    }

    /// Looks whether there is room again, and goes on where everything stopped.
    fn probe(&mut self, now: Now) -> Vec<Output> {
        let nodes = match self.try_probe() {
            Ok(nodes) => nodes,
            Err(StoreError::Full) => {
                self.store.rollback();
                return Vec::new();
            }
            Err(error) => return self.fail(&[], &error, now),
        };
        info!(event = "store.room", "there is room on the disk again");
        self.full = false;
        // The jobs that could not be looked at are, with the next tick.
        self.last_sweep = None;
        // Who is away is what the disk says, and the time in which nobody could come back is no absence.
        self.absent = super::all_absent(nodes, now.mono);
        self.absent.retain(|node, _| !self.live.contains_key(node));
        let mut step = Step::new(now);
        let mut nodes = BTreeSet::new();
        for (&node, &conn) in &self.live {
            let session = self.sessions.get_mut(&conn);
            if let Some(from) = session.and_then(super::Session::take_missed) {
                let resync = Resync {
                    epoch: self.epoch.0,
                    from: Some(from.0),
                };
                send(&mut step, conn, orchestrator_message::Kind::Resync(resync));
            }
            nodes.insert(node);
        }
        self.behind = nodes;
        step.out.extend(self.round(vec![Input::Tick], now));
        step.out
    }

    fn try_probe(&mut self) -> Result<Vec<NodeRecord>, StoreError> {
        self.store.begin()?;
        self.store.probe()?;
        let nodes = self.store.nodes()?;
        self.store.commit()?;
        Ok(nodes)
    }
}
