//! The invariants, checked after every step.
//!
//! I1 a row is durable before its first send. I2 no ack before it is durable. I3 nobody goes back in (epoch, rev) or
//! (version, attempt). I4 link up and faults over: digests equal within two heartbeats and a round trip. I5 no wait
//! without its reason and next action. I6 one live instance at most, and never an old version after a newer one. (I7 is
//! in `settle.rs`; those of runs and outputs are in `runs.rs` and `outputs.rs`.) N1 who was revoked or deleted is let in
//! with a new key only. N2 no node vanishes by itself. Beside them: nobody is ever held, fenced off or accused of a
//! protocol error in a world where no store is restored and no machine is copied; and an outcome that an edge has on disk
//! leaves it only when the orchestrator has it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sluice_agent::{Assignment, Label, Ticket};
use sluice_api::{Execution, ReasonCode};
use sluice_edge_runtime::core::Output as EdgeOutput;
use sluice_host::core::{CloseWhy, Output as HostOutput, Peer, Reply};
use sluice_host::store::Store as _;
use sluice_ledger::Position;
use sluice_model::{
    Desired, ExecutionId, ExecutionState, Incarnation, NodeId, ObservedPhase, Revision,
};
use sluice_protocol::{ObservedRow, OutcomeKey, edge_message, orchestrator_message};

use super::links::MANGLE_MS_MAX;
use super::orchestrator::{RowSeen, RowsSeen};
use super::wire;
use super::world::World;

/// Time that handling takes on both sides of a round trip, in a world where a process looks at its inbox within 3 ms.
const HANDLING_MS: u64 = 500;

/// Faults that really happened.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "each name says what was counted")]
pub struct FaultCounts {
    pub cuts: u64,
    pub dead_ways: u64,
    pub links_down: u64,
    pub host_crashes: u64,
    pub edge_crashes: u64,
    pub store_faults: u64,
    pub wipes: u64,
    pub stalls: u64,
    pub hedges: u64,
    pub replayed_hellos: u64,
    pub doubled: u64,
    pub overtaken: u64,
    pub resyncs: u64,
    pub snapshots: u64,
    pub renewals: u64,
    pub expiries: u64,
    pub revokes: u64,
    pub deletes: u64,
    pub pulls: u64,
    pub failed_pulls: u64,
    pub rollbacks: u64,
    pub rollout_orders: u64,
}

/// What was seen of one edge.
#[derive(Clone, Debug, Default)]
struct EdgeSeen {
    position: (u64, Revision),
    observed: (Option<Incarnation>, Revision),
    labels: BTreeMap<ExecutionId, Label>,
    started: BTreeMap<ExecutionId, Label>,
    /// Outcomes on its disk that were not yet seen to leave it.
    kept: BTreeMap<OutcomeKey, ObservedRow>,
    ticks: (u64, u64),
    agreement: Option<(u64, [Position; 4], u64)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Checks {
    /// Faults so far.
    pub faults: FaultCounts,
    /// The nodes' ids.
    pub nodes: BTreeMap<usize, NodeId>,
    /// The last Hello of each edge, and who said it.
    pub hellos: BTreeMap<usize, (Bytes, Peer)>,
    /// The last Begin of each edge.
    pub begins: BTreeMap<usize, Bytes>,
    /// Executions that the runner failed by chance.
    pub may_have_failed: BTreeSet<ExecutionId>,
    /// Outcomes that were on an edge's disk and on the orchestrator's.
    pub outcomes: BTreeMap<OutcomeKey, ObservedPhase>,
    /// Starts by the runner, by edge and job.
    pub starts: BTreeMap<(usize, String), u64>,
    /// How often an execution's input was looked for.
    pub openings: BTreeMap<ExecutionId, u64>,
    /// Frames of rows that the orchestrator sent, by edge.
    pub rows_sent: BTreeMap<usize, u64>,
    /// Components that an edge asked for, by edge.
    pub asked_for: BTreeSet<(usize, sluice_model::Digest)>,
    /// Times that both sides were compared and were equal.
    pub agreements: u64,
    /// Times that somebody looked at everything.
    pub looks: u64,
    /// Outcomes that an edge's disk was lost with.
    pub lost_outcomes: BTreeMap<OutcomeKey, ObservedPhase>,
    edges: Vec<EdgeSeen>,
    rows: RowsSeen,
    heads: BTreeMap<NodeId, Revision>,
    disturbed_until_ms: u64,
}

impl Checks {
    pub(super) fn add_edge(&mut self) {
        self.edges.push(EdgeSeen::default());
    }

    /// Something happened until then for which the other side needs time.
    pub(super) fn disturb(&mut self, until_ms: u64) {
        self.disturbed_until_ms = self.disturbed_until_ms.max(until_ms);
    }

    /// What an edge knew is lost with its disk.
    pub(super) fn handle_wiped(&mut self, edge: usize) {
        let started = std::mem::take(&mut self.edges[edge].started);
        // They may have been told of without an answer having come back.
        let kept = std::mem::take(&mut self.edges[edge].kept);
        self.lost_outcomes
            .extend(kept.into_iter().map(|(key, row)| (key, row.phase)));
        self.edges[edge] = EdgeSeen {
            started,
            ..EdgeSeen::default()
        };
    }

    /// Counts a tick; how many there were in this second.
    pub(super) fn count_tick(&mut self, edge: usize, at_ms: u64) -> u64 {
        let ticks = &mut self.edges[edge].ticks;
        let second = at_ms / 1000;
        *ticks = if ticks.0 == second {
            (second, ticks.1 + 1)
        } else {
            (second, 1)
        };
        ticks.1
    }
}

impl World {
    /// I1, I2 for what the orchestrator sends; nobody is held or fenced off.
    pub(super) fn check_host_outputs(&mut self, outputs: &[HostOutput]) {
        use orchestrator_message::Kind;
        for output in outputs {
            let HostOutput::Send { conn, frame } = output else {
                continue;
            };
            let Some(connection) = self.network.get(conn.0) else {
                continue;
            };
            let (edge, replayed, peer) = (
                connection.edge,
                connection.replayed,
                connection.peer.clone(),
            );
            let of_a_dead_process =
                self.edges[edge].process.is_none() || self.edges[edge].boot != connection.edge_boot;
            let kind = wire::read_orchestrator(frame);
            if matches!(kind, Some(Kind::Welcome(_))) && !replayed {
                self.check_let_in(edge, &peer);
            }
            let Some(node) = self.checks.nodes.get(&edge).copied() else {
                continue;
            };
            match kind {
                Some(Kind::Rows(rows)) => {
                    *self.checks.rows_sent.entry(edge).or_default() += 1;
                    let to = rows.to.to_position().expect("a position");
                    let (stands, change) = self
                        .orchestrator
                        .look(|store| {
                            Ok((
                                store.desired_position(node)?,
                                store.desired_after(node, None)?.unwrap_or_default(),
                            ))
                        })
                        .expect("readable");
                    assert_eq!(to, stands, "I1: rows are sent that are not committed");
                    for row in &rows.upserts {
                        assert!(
                            change.upserts.iter().any(|(known, _)| known == row),
                            "I1: a row is sent that is not committed"
                        );
                    }
                }
                Some(Kind::Received(received)) => {
                    let observed = self
                        .orchestrator
                        .look(|store| store.node(node))
                        .expect("readable")
                        .map(|node| node.observed.rev);
                    assert!(
                        observed >= Some(Revision(received.rev)),
                        "I2: the orchestrator acknowledges {}, on its disk is {observed:?}",
                        received.rev
                    );
                }
                Some(Kind::Welcome(welcome)) if !replayed => {
                    assert!(!welcome.held, "a node is held, and nothing was ever lost");
                    assert!(
                        !welcome.new_incarnation,
                        "a node is told to be another one, and no disk was ever copied"
                    );
                }
                Some(Kind::Reject(reject)) if !replayed => {
                    let expected = match reject.code.as_str() {
                        // A machine that was wiped has a new key; what its old process still says is refused.
                        "revoked" => true,
                        "deleted" => self.operators.forgetting.contains(&edge),
                        // A new session needs room on the orchestrator's disk.
                        "unavailable" => self.orchestrator.faults.hits() > 0,
                        // A first flight that was under way when its process died, behind its successor's.
                        "duplicate-identity" => of_a_dead_process,
                        _ => false,
                    };
                    assert!(
                        expected,
                        "a node is refused: {}: {}",
                        reject.code, reject.message
                    );
                }
                _ => {}
            }
        }
    }

    /// N1.
    fn check_let_in(&self, edge: usize, peer: &Peer) {
        let shut_out = self.operators.shut_out.get(&peer.node);
        assert!(
            shut_out.is_none_or(|key| key.is_some_and(|key| key != peer.key)),
            "N1: {} was shut out, and is let in as it was",
            self.edges[edge].name
        );
    }

    /// No session ends because somebody said something impossible.
    pub(super) fn check_close(&mut self, connection: u64, why: CloseWhy, reason: &str) {
        let replayed = self
            .network
            .get(connection)
            .is_some_and(|connection| connection.replayed);
        let race = reason.contains("standing changed");
        assert!(
            why != CloseWhy::Protocol || replayed || race,
            "the orchestrator accuses an edge: {reason}"
        );
    }

    pub(super) fn check_edge_close(&mut self, edge: usize, code: &str, message: &str) {
        assert!(
            code != "protocol",
            "{} accuses the orchestrator: {message}",
            self.edges[edge].name
        );
    }

    /// I3 on the orchestrator's side: rows and revisions only grow, and a stopped execution runs again only as a new
    /// attempt or version.
    pub(super) fn check_rows_only_grow(&mut self) {
        let nodes: Vec<(usize, NodeId)> =
            (self.checks.nodes.iter().map(|(edge, node)| (*edge, *node))).collect();
        for (edge, node) in nodes {
            let record = self
                .orchestrator
                .look(|store| store.node(node))
                .expect("readable");
            let Some(record) = record else {
                assert!(
                    self.operators.forgetting.contains(&edge),
                    "N2: {} is not registered any more, and nobody deleted it",
                    self.edges[edge].name
                );
                continue;
            };
            let head = record.desired.rev;
            let seen = self.checks.heads.insert(node, head).unwrap_or_default();
            assert!(head >= seen, "I3: a node's desired set goes back to {head}");
            if head == seen {
                continue;
            }
            let executions = self
                .orchestrator
                .look(|store| store.executions_of_node(node))
                .expect("readable");
            for row in executions {
                let new = RowSeen {
                    node,
                    version: row.version,
                    attempt: row.attempt,
                    desired: row.desired,
                };
                if let Some(old) = self.checks.rows.insert(row.id, new) {
                    let (was, is) = ((old.version, old.attempt), (new.version, new.attempt));
                    assert!(is >= was, "I3: a row goes back from {was:?} to {is:?}");
                    let again = old.desired != Desired::Run && new.desired == Desired::Run;
                    assert!(
                        !again || is > was,
                        "I3: a stopped execution runs again under the same version and attempt"
                    );
                    assert!(
                        old.desired != Desired::Purge || new.desired == Desired::Purge,
                        "a purged execution is wanted again"
                    );
                }
                if new.desired == Desired::Purge {
                    self.check_purge_order(row.id);
                }
            }
        }
    }

    /// I3 on an edge's side, and its memory is what its disk says.
    pub(super) fn check_edge(&mut self, edge: usize) {
        let name = self.edges[edge].name.clone();
        let deep = self.random.one_in(8);
        let Some(process) = &self.edges[edge].process else {
            return;
        };
        let core = &process.core;
        let meta = core.meta().clone();
        let (desired, observed) = (core.desired_position(), core.observed_position());
        let labels: BTreeMap<ExecutionId, Label> = core.agent().labels().collect();
        let seen = &mut self.checks.edges[edge];
        let epoch = meta.life.map_or(0, |(epoch, _)| epoch.0);
        let (was_epoch, was_rev) = seen.position;
        assert!(
            epoch >= was_epoch && desired.rev >= was_rev,
            "I3: {name} goes back from {:?} to epoch {epoch} revision {}",
            seen.position,
            desired.rev
        );
        seen.position = (epoch, desired.rev);
        let (incarnation, was_rev) = seen.observed;
        assert!(
            incarnation.is_none() || incarnation == meta.incarnation,
            "{name} has become another incarnation"
        );
        assert!(
            observed.rev >= was_rev,
            "I3: {name}'s reports go back from {was_rev} to {}",
            observed.rev
        );
        seen.observed = (meta.incarnation, observed.rev);
        for (execution, label) in &labels {
            let was = seen.labels.get(execution).copied().unwrap_or_default();
            assert!(
                *label >= was,
                "I3: {name} goes back from {was} to {label} in {execution}"
            );
        }
        seen.labels = labels;
        let kept = self.edges[edge]
            .look(sluice_edge_runtime::store::Store::outcomes)
            .expect("a process runs")
            .expect("readable");
        self.check_outcomes(edge, &kept);
        if deep {
            let (stored, rows, live) = self.edges[edge]
                .look(|store| Ok((store.meta()?, store.desired()?, store.live()?)))
                .expect("a process runs")
                .expect("readable");
            assert_eq!(stored, meta, "{name}: its memory differs from its disk");
            let digest = |bodies: Vec<Vec<u8>>| {
                bodies
                    .iter()
                    .fold(sluice_ledger::SetDigest::EMPTY, |digest, body| {
                        digest.with(sluice_ledger::RowHash::of(body))
                    })
            };
            assert_eq!(
                digest(rows.into_iter().map(|row| row.body).collect()),
                desired.digest,
                "{name}: the desired rows on its disk are not those it speaks of"
            );
            assert_eq!(
                digest(live.into_iter().map(|(_, body)| body).collect()),
                observed.digest,
                "{name}: the observed rows on its disk are not those it speaks of"
            );
        }
    }

    /// Outcomes leave an edge's disk only when the orchestrator has them, as they were.
    fn check_outcomes(&mut self, edge: usize, kept: &[(Vec<u8>, Vec<u8>)]) {
        let now: BTreeMap<OutcomeKey, ObservedRow> = kept
            .iter()
            .map(|(_, body)| {
                let row = ObservedRow::decode(body).expect("the edge wrote it");
                (row.outcome_key(), row)
            })
            .collect();
        let before = std::mem::replace(&mut self.checks.edges[edge].kept, now.clone());
        let name = self.edges[edge].name.clone();
        for (key, row) in before {
            if let Some(same) = now.get(&key) {
                assert_eq!(*same, row, "{name}: an outcome changed");
                continue;
            }
            let (execution, outcome) = self
                .orchestrator
                .look(|store| Ok((store.execution(key.execution)?, store.outcome(key)?)))
                .expect("readable");
            let forgotten =
                execution.is_none_or(|execution| key.version.0 + 10 < execution.version.0);
            if forgotten {
                // The orchestrator forgets the execution of a deleted job once it is purged, and keeps its run.
                self.checks.lost_outcomes.insert(key, row.phase);
                continue;
            }
            let Some(outcome) = outcome else {
                panic!("{name} forgets the outcome of {key:?}, and the orchestrator has none");
            };
            assert_eq!(
                outcome.phase, row.phase,
                "{name}: another outcome was recorded"
            );
            self.checks.outcomes.insert(key, row.phase);
        }
    }

    /// I1, I2 for what an edge sends.
    pub(super) fn check_edge_outputs(&mut self, edge: usize, outputs: &[EdgeOutput]) {
        use edge_message::Kind;
        let name = self.edges[edge].name.clone();
        for output in outputs {
            let EdgeOutput::SendFrame { frame, .. } = output else {
                continue;
            };
            match wire::read_edge(frame) {
                Some(Kind::Rows(rows)) => {
                    let (meta, live, outcomes) = self.edges[edge]
                        .look(|store| Ok((store.meta()?, store.live()?, store.outcomes()?)))
                        .expect("a process runs")
                        .expect("readable");
                    assert!(
                        meta.observed_rev.0 >= rows.to.rev,
                        "I1: {name} sends reports that are not on its disk"
                    );
                    let there = |set: &[(Vec<u8>, Vec<u8>)], row: &sluice_protocol::Row| {
                        set.iter()
                            .any(|(key, body)| *key == row.key && *body == row.body)
                    };
                    assert!(
                        rows.upserts.iter().all(|row| there(&live, row))
                            && rows.outcomes.iter().all(|row| there(&outcomes, row)),
                        "I1: {name} sends a report that is not on its disk"
                    );
                }
                Some(Kind::Received(received)) => {
                    let meta = self.edges[edge]
                        .look(sluice_edge_runtime::store::Store::meta)
                        .expect("a process runs")
                        .expect("readable");
                    assert!(
                        meta.desired_rev.0 >= received.rev,
                        "I2: {name} acknowledges {}, on its disk is {}",
                        received.rev,
                        meta.desired_rev
                    );
                }
                _ => {}
            }
        }
    }

    /// I6: what an edge is about to start.
    pub(super) fn check_start(&mut self, edge: usize, ticket: Ticket, assignment: &Assignment) {
        let name = self.edges[edge].name.clone();
        let Some(process) = &self.edges[edge].process else {
            return;
        };
        for (other, work) in &process.work {
            let same_place =
                work.assignment.job == assignment.job && work.assignment.slot == assignment.slot;
            assert!(
                *other == ticket || !same_place || !work.stage.is_live(),
                "I6: {name} starts {} {} beside {}",
                assignment.job_name,
                assignment.label,
                work.assignment.label
            );
        }
        let started = &mut self.checks.edges[edge].started;
        let newest = started.entry(assignment.execution).or_default();
        assert!(
            assignment.label >= *newest,
            "I6: {name} starts {} {} after {newest}",
            assignment.job_name,
            assignment.label
        );
        *newest = assignment.label;
        let key = OutcomeKey {
            execution: assignment.execution,
            version: assignment.label.version,
            attempt: assignment.label.attempt,
        };
        assert!(
            !self.checks.outcomes.contains_key(&key)
                && !self.checks.edges[edge].kept.contains_key(&key),
            "{name} runs {} {} again, which has ended with an outcome",
            assignment.job_name,
            assignment.label
        );
    }

    /// I4.
    pub(super) fn check_agreement(&mut self) {
        let now_ms = self.now_ms;
        if self.orchestrator.faults.is_full() {
            self.checks.disturb(now_ms);
        }
        for edge in 0..self.edges.len() {
            let Some(compared) = self.compare(edge) else {
                self.checks.edges[edge].agreement = None;
                continue;
            };
            let (connection, latency_ms, positions) = compared;
            let seen = &mut self.checks.edges[edge];
            let since = match seen.agreement {
                Some((known, before, since)) if known == connection && before == positions => since,
                _ => now_ms,
            };
            seen.agreement = Some((connection, positions, since));
            let since = since.max(self.checks.disturbed_until_ms);
            let mangled = if self.config.mangled {
                MANGLE_MS_MAX * 2
            } else {
                0
            };
            let patience =
                2 * self.config.heartbeat_ms + 2 * (latency_ms + 200) + HANDLING_MS + mangled;
            let [desired, desired_at_edge, observed_at_host, observed] = positions;
            let equal = desired == desired_at_edge && observed == observed_at_host;
            if equal {
                self.checks.agreements += 1;
            }
            assert!(
                equal || now_ms < since + patience,
                "I4: {} differs for {} ms: desired {desired:?} there {desired_at_edge:?}, observed {observed:?} known \
                 as {observed_at_host:?}",
                self.edges[edge].name,
                now_ms - since
            );
        }
    }

    fn compare(&mut self, edge: usize) -> Option<(u64, u64, [Position; 4])> {
        let core = &self.edges[edge].process.as_ref()?.core;
        let session = core.session()?.0;
        let (desired_at_edge, observed) = (core.desired_position(), core.observed_position());
        let connection = self.network.get(session)?;
        if !connection.is_well() || !connection.begun {
            return None;
        }
        let latency_ms = connection.latency_ms;
        let node = *self.checks.nodes.get(&edge)?;
        let record = self
            .orchestrator
            .look(|store| store.node(node))
            .expect("readable")?;
        let positions = [record.desired, desired_at_edge, record.observed, observed];
        Some((session, latency_ms, positions))
    }

    /// I5.
    pub(super) fn check_look(&mut self, reply: &Reply) {
        if let Reply::Runs(runs) = reply {
            Self::check_runs_told(&runs.items);
            return;
        }
        let executions: &[Execution] = match reply {
            Reply::Executions(sluice_api::Page {
                items: executions, ..
            }) => executions,
            Reply::Status(status) => &status.waiting,
            other => panic!("asked for everything, got {other:?}"),
        };
        self.checks.looks += 1;
        if let Reply::Status(status) = reply {
            for job in &status.jobs {
                let asked = job.count.unwrap_or(u64::MAX);
                assert!(
                    job.running <= asked,
                    "I6: more of {} count as running than were asked for: {job:?}",
                    job.name
                );
            }
        }
        for execution in executions {
            let text = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
            let told = match execution.state {
                ExecutionState::Pending => {
                    matches!(execution.reason_code, Some(ReasonCode::Pending(_)))
                        && text(&execution.reason)
                        && text(&execution.next_action)
                        && (execution.next_at.is_some()
                            || execution
                                .next_action
                                .as_ref()
                                .is_some_and(|action| action.starts_with("when ")))
                }
                ExecutionState::Failed => {
                    matches!(execution.reason_code, Some(ReasonCode::Failed(_)))
                        && text(&execution.reason)
                }
                ExecutionState::Quarantined => text(&execution.reason),
                _ => true,
            };
            assert!(told, "I5: a state without its reason: {execution:?}");
        }
    }
}
