//! A fake orchestrator and a fake machine around a real core on an in-memory store, in virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use sluice_agent::{Ending, Now, PrepareFailure, Ticket};
use sluice_ledger::{Position, RowHash, RowSet};
use sluice_model::{
    Attempt, Desired, Digest, ExecutionId, JobId, LifeNonce, MonotonicMs, NodeId, ObservedPhase,
    Revision, Slot, UnixMs, Version,
};
use sluice_protocol::{
    AssignmentRow, EdgeMessage, HeartbeatAck, Hello, ObservedRow, OrchestratorMessage, Received,
    Reject, Renewed, Resync, Row, Rows, Spec, SpecBytes, SpecComponent, Welcome, edge_message,
    orchestrator_message::Kind,
};

use super::super::*;

pub(super) const HEARTBEAT_MS: u64 = 5000;

/// The orchestrator's side, as simple as it can be: always sends everything newer, never gives up.
pub(super) struct Fake {
    pub(super) epoch: u64,
    pub(super) life: [u8; 16],
    pub(super) held: bool,
    pub(super) new_incarnation: bool,
    pub(super) renew_only: bool,
    pub(super) mute_renewals: bool,
    pub(super) reject: Option<Reject>,
    pub(super) mute: bool,
    pub(super) rows: BTreeMap<Vec<u8>, Vec<u8>>,
    changed_at: BTreeMap<Vec<u8>, u64>,
    removed_at: BTreeMap<Vec<u8>, u64>,
    pub(super) rev: u64,
    pub(super) specs: BTreeMap<Digest, Vec<u8>>,
    pub(super) observed: RowSet<Vec<u8>>,
    pub(super) live: BTreeMap<Vec<u8>, ObservedRow>,
    pub(super) observed_rev: u64,
    incarnation: Vec<u8>,
    pub(super) outcomes: Vec<ObservedRow>,
    pub(super) hellos: Vec<Hello>,
    pub(super) acked: u64,
    pub(super) rows_received: usize,
    pub(super) resyncs: Vec<Option<u64>>,
    pub(super) heartbeats: usize,
    pub(super) begun: bool,
}

impl Fake {
    fn new() -> Self {
        Self {
            epoch: 1,
            life: life(1).to_bytes(),
            held: false,
            new_incarnation: false,
            renew_only: false,
            mute_renewals: false,
            reject: None,
            mute: false,
            rows: BTreeMap::new(),
            changed_at: BTreeMap::new(),
            removed_at: BTreeMap::new(),
            rev: 0,
            specs: BTreeMap::new(),
            observed: RowSet::default(),
            live: BTreeMap::new(),
            observed_rev: 0,
            incarnation: Vec::new(),
            outcomes: Vec::new(),
            hellos: Vec::new(),
            acked: 0,
            rows_received: 0,
            resyncs: Vec::new(),
            heartbeats: 0,
            begun: false,
        }
    }

    pub(super) fn position(&self) -> Position {
        let mut set = RowSet::default();
        for (key, body) in &self.rows {
            set.upsert(key.clone(), RowHash::of(body));
        }
        Position {
            rev: Revision(self.rev),
            digest: set.digest(),
        }
    }

    fn put(&mut self, key: Vec<u8>, body: Vec<u8>) {
        self.rev += 1;
        self.changed_at.insert(key.clone(), self.rev);
        self.removed_at.remove(&key);
        self.rows.insert(key, body);
    }

    pub(super) fn remove(&mut self, execution: ExecutionId) {
        self.rev += 1;
        let key = execution.to_bytes().to_vec();
        self.rows.remove(&key);
        self.changed_at.remove(&key);
        self.removed_at.insert(key, self.rev);
    }

    pub(super) fn delta(&self, base: Option<u64>) -> OrchestratorMessage {
        let after = base.unwrap_or(0);
        let upserts = self
            .rows
            .iter()
            .filter(|(key, _)| self.changed_at[*key] > after);
        let removed = self
            .removed_at
            .iter()
            .filter(|(_, at)| **at > after && base.is_some());
        message(Kind::Rows(Rows {
            epoch: self.epoch,
            base,
            to: self.position().into(),
            authoritative: true,
            part: 0,
            last: true,
            upserts: upserts
                .map(|(key, body)| Row {
                    key: key.clone(),
                    body: body.clone(),
                })
                .collect(),
            removed: removed.map(|(key, _)| key.clone()).collect(),
            specs: self
                .specs
                .values()
                .map(|bytes| SpecBytes {
                    bytes: bytes.clone(),
                    continues: false,
                })
                .collect(),
            outcomes: Vec::new(),
        }))
    }

    fn handle(&mut self, frame: &[u8]) -> Vec<OrchestratorMessage> {
        let decoded: EdgeMessage = sluice_protocol::decode(frame).unwrap();
        if self.mute {
            return Vec::new();
        }
        match decoded.kind.unwrap() {
            edge_message::Kind::Hello(hello) => self.welcome(hello),
            edge_message::Kind::Begin(begin) => {
                if begin.incarnation != self.incarnation {
                    self.incarnation = begin.incarnation;
                    self.observed = RowSet::default();
                    self.live.clear();
                    self.observed_rev = 0;
                }
                self.begun = true;
                let peer = self.hellos.last().unwrap().desired.to_position().unwrap();
                if self.held || (peer == self.position() && !self.new_incarnation) {
                    Vec::new()
                } else if peer.rev.0 < self.rev && !self.new_incarnation {
                    vec![self.delta(Some(peer.rev.0))]
                } else {
                    vec![self.delta(None)]
                }
            }
            edge_message::Kind::Received(received) => {
                self.acked = self.acked.max(received.rev);
                Vec::new()
            }
            edge_message::Kind::Resync(resync) => {
                self.resyncs.push(resync.from);
                vec![self.delta(resync.from)]
            }
            edge_message::Kind::Rows(rows) => self.observe(rows),
            edge_message::Kind::Heartbeat(heartbeat) => {
                self.heartbeats += 1;
                vec![message(Kind::HeartbeatAck(HeartbeatAck {
                    seq: heartbeat.seq,
                    desired: self.position().into(),
                    observed: Position {
                        rev: Revision(self.observed_rev),
                        digest: self.observed.digest(),
                    }
                    .into(),
                    server_time_ms: 0,
                    no_room: false,
                }))]
            }
            edge_message::Kind::Renew(_) if self.mute_renewals => Vec::new(),
            edge_message::Kind::Renew(renew) => {
                self.renew_only = false;
                vec![message(Kind::Renewed(Renewed {
                    certificate: renew.csr,
                }))]
            }
        }
    }

    fn welcome(&mut self, hello: Hello) -> Vec<OrchestratorMessage> {
        self.begun = false;
        let known = hello.incarnation == self.incarnation;
        self.hellos.push(hello);
        if let Some(reject) = &self.reject {
            return vec![message(Kind::Reject(reject.clone()))];
        }
        vec![message(Kind::Welcome(Welcome {
            version: 1,
            session: 7,
            epoch: self.epoch,
            life: self.life.to_vec(),
            heartbeat_ms: HEARTBEAT_MS,
            observed_acked: if known { self.observed_rev } else { 0 },
            server_time_ms: 1234,
            held: self.held,
            new_incarnation: self.new_incarnation,
            node_name: "e1".to_owned(),
            renew_only: self.renew_only,
        }))]
    }

    fn observe(&mut self, rows: Rows) -> Vec<OrchestratorMessage> {
        assert!(self.begun && !self.held, "rows before Begin, or while held");
        assert_eq!((rows.part, rows.last), (0, true));
        self.rows_received += 1;
        let epoch = self.epoch;
        let to = rows.to.to_position().unwrap();
        if rows.base.is_some_and(|base| base > self.observed_rev) {
            let from = Some(self.observed_rev);
            return vec![message(Kind::Resync(Resync { epoch, from }))];
        }
        if rows.base.is_none() {
            self.observed = RowSet::default();
            self.live.clear();
        }
        for row in rows.upserts {
            self.observed
                .upsert(row.key.clone(), RowHash::of(&row.body));
            self.live
                .insert(row.key, ObservedRow::decode(&row.body).unwrap());
        }
        for key in rows.removed {
            self.observed.remove(&key);
            self.live.remove(&key);
        }
        for row in rows.outcomes {
            let row = ObservedRow::decode(&row.body).unwrap();
            if !self
                .outcomes
                .iter()
                .any(|known| known.outcome_key() == row.outcome_key())
            {
                self.outcomes.push(row);
            }
        }
        self.observed_rev = to.rev.0;
        if self.observed.digest() != to.digest {
            let from = None;
            return vec![message(Kind::Resync(Resync { epoch, from }))];
        }
        vec![message(Kind::Received(Received {
            epoch,
            rev: to.rev.0,
        }))]
    }
}

pub(super) fn message(kind: Kind) -> OrchestratorMessage {
    OrchestratorMessage { kind: Some(kind) }
}

/// The machine: what was pulled, what is prepared, what runs.
#[derive(Default)]
pub(super) struct Machine {
    /// Components that cannot be had.
    pub(super) unreachable: BTreeSet<Digest>,
    pub(super) fetched: Vec<Digest>,
    pub(super) prepare_fails: BTreeMap<Digest, PrepareFailure>,
    /// Specs whose preparing, and whose opening, never ends.
    pub(super) prepares_for_ever: BTreeSet<Digest>,
    pub(super) opens_for_ever: BTreeSet<Digest>,
    /// What has been preparing since the process began.
    pub(super) preparing: BTreeSet<Digest>,
    prepared: BTreeMap<Ticket, ()>,
    pub(super) running: BTreeMap<ExecutionId, (Ticket, Digest)>,
    pub(super) starts: Vec<(ExecutionId, u64, u64)>,
    pub(super) purges: Vec<ExecutionId>,
}

pub(super) struct Rig {
    pub(super) core: Option<EdgeCore>,
    pub(super) now: Now,
    pub(super) fake: Fake,
    pub(super) machine: Machine,
    connection: Option<ConnectionId>,
    connections: u64,
    boots: u8,
    pub(super) closes: Vec<CloseWhy>,
    pub(super) certificates: Vec<Vec<u8>>,
    /// Whether what the orchestrator says arrives.
    pub(super) deliver: bool,
}

pub(super) fn id(n: u8) -> ExecutionId {
    ExecutionId::from_random([n; 16])
}

impl Rig {
    pub(super) fn new() -> Self {
        let mut rig = Self::without_core();
        rig.boot(Store::in_memory().unwrap()).unwrap();
        rig
    }

    pub(super) fn without_core() -> Self {
        Self {
            core: None,
            now: Now {
                mono: MonotonicMs(1000),
                unix: UnixMs(1_700_000_000_000),
            },
            fake: Fake::new(),
            machine: Machine::default(),
            connection: None,
            connections: 0,
            boots: 0,
            closes: Vec::new(),
            certificates: Vec::new(),
            deliver: true,
        }
    }

    /// A process start on this store.
    pub(super) fn boot(&mut self, store: Store) -> Result<(), StoreError> {
        self.boots += 1;
        let options = CoreOptions {
            boot_nonce: [self.boots; 16],
            seed: [self.boots; 32],
            program: "test".to_owned(),
            labels: Labels::new(),
            capabilities: Vec::new(),
            node: Some((NodeId::from_random([9; 16]), "e1".parse().unwrap())),
        };
        self.machine.running.clear();
        self.machine.prepared.clear();
        self.machine.preparing.clear();
        self.connection = None;
        let (core, outputs) = EdgeCore::open(store, options, self.now)?;
        self.core = Some(core);
        self.settle(outputs, VecDeque::new())
    }

    /// `kill -9`, and a new process on the same disk.
    pub(super) fn crash(&mut self) {
        let mut store = self.core.take().unwrap().into_store();
        store.set_fault_point(None);
        let store = Store::from_connection(store.into_connection()).unwrap();
        self.boot(store).unwrap();
    }

    /// Something changes the disk under the running process.
    pub(super) fn damage(&mut self, sql: &str) {
        self.core().store_mut().damage(sql);
    }

    pub(super) fn core(&mut self) -> &mut EdgeCore {
        self.core.as_mut().unwrap()
    }

    pub(super) fn input(&mut self, input: Input) {
        self.try_input(input).unwrap();
    }

    pub(super) fn try_input(&mut self, input: Input) -> Result<(), StoreError> {
        self.settle(Vec::new(), VecDeque::from([input]))
    }

    /// Hands inputs in one by one, and carries everything out, until nothing is left to do.
    fn settle(
        &mut self,
        outputs: Vec<Output>,
        mut inputs: VecDeque<Input>,
    ) -> Result<(), StoreError> {
        self.carry_out(outputs, &mut inputs);
        let mut rounds = 0;
        while let Some(input) = inputs.pop_front() {
            rounds += 1;
            assert!(rounds < 2000, "it does not come to rest: {input:?}");
            let outputs = self.core.as_mut().unwrap().handle(vec![input], self.now)?;
            self.carry_out(outputs, &mut inputs);
        }
        Ok(())
    }

    fn carry_out(&mut self, outputs: Vec<Output>, inputs: &mut VecDeque<Input>) {
        for output in outputs {
            match output {
                Output::SendFrame { connection, frame } => {
                    assert_eq!(Some(connection), self.connection);
                    let answers = self.fake.handle(&frame);
                    for answer in answers.iter().filter(|_| self.deliver) {
                        let frame = sluice_protocol::encode(answer);
                        inputs.push_back(Input::Frame { connection, frame });
                    }
                }
                Output::CloseSession { connection, why } => {
                    if self.connection == Some(connection) {
                        self.connection = None;
                    }
                    self.closes.push(why);
                }
                Output::Fetch { digest, .. } => {
                    let result = if self.machine.unreachable.contains(&digest) {
                        Err("it cannot be had".to_owned())
                    } else {
                        self.machine.fetched.push(digest);
                        Ok(())
                    };
                    inputs.push_back(Input::Fetched { digest, result });
                }
                // Every fetch has ended by the time that anything else happens.
                Output::CancelFetch { .. } => {}
                Output::Prepare {
                    ticket,
                    assignment,
                    spec,
                } => {
                    assert_eq!(Digest::of(&spec), assignment.spec);
                    self.machine.preparing.insert(assignment.spec);
                    if self.machine.prepares_for_ever.contains(&assignment.spec) {
                        continue;
                    }
                    let phase = ObservedPhase::Starting;
                    inputs.push_back(Input::Phase { ticket, phase });
                    let result = match self.machine.prepare_fails.get(&assignment.spec) {
                        Some(failure) => Err(failure.clone()),
                        None => {
                            self.machine.prepared.insert(ticket, ());
                            Ok(())
                        }
                    };
                    inputs.push_back(Input::Prepared { ticket, result });
                }
                Output::Discard { ticket } => {
                    self.machine
                        .prepared
                        .remove(&ticket)
                        .expect("it was prepared");
                }
                Output::Start { ticket, assignment } => {
                    let (execution, label) = (assignment.execution, assignment.label);
                    self.machine
                        .prepared
                        .remove(&ticket)
                        .expect("it was prepared");
                    let old = self
                        .machine
                        .running
                        .insert(execution, (ticket, assignment.spec));
                    assert!(old.is_none(), "at most one instance lives");
                    self.machine
                        .starts
                        .push((execution, label.version.0, label.attempt.0));
                    if !self.machine.opens_for_ever.contains(&assignment.spec) {
                        let counters = Counters::default();
                        inputs.push_back(Input::Running { ticket, counters });
                    }
                }
                Output::Stop { ticket, execution } => {
                    let ending = Ending::Stopped;
                    let running = self.machine.running.remove(&execution).expect("it runs");
                    assert_eq!(running.0, ticket);
                    let counters = Counters {
                        records_in: 10,
                        dead_letters: 3,
                        ..Counters::default()
                    };
                    inputs.push_back(Input::Ended {
                        ticket,
                        ending,
                        counters,
                    });
                }
                Output::Purge { execution } => {
                    assert!(!self.machine.running.contains_key(&execution));
                    self.machine.purges.push(execution);
                    let result = Ok(());
                    inputs.push_back(Input::Purged { execution, result });
                }
                Output::RenewalWanted { .. } => {
                    inputs.push_back(Input::Renew { csr: vec![7] });
                }
                Output::Certificate { der } => self.certificates.push(der),
                Output::SessionBegun { .. } | Output::Event(_) => {}
            }
        }
    }

    pub(super) fn connect(&mut self) {
        self.try_connect().unwrap();
    }

    pub(super) fn try_connect(&mut self) -> Result<(), StoreError> {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        self.connection = Some(connection);
        let hello = self.core().hello();
        let output = Output::SendFrame {
            connection,
            frame: hello,
        };
        let mut inputs = VecDeque::from([Input::Connected { connection }]);
        self.carry_out(vec![output], &mut inputs);
        self.settle(Vec::new(), inputs)
    }

    pub(super) fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            let why = "cut".to_owned();
            self.input(Input::Disconnected { connection, why });
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// What the orchestrator says unasked.
    pub(super) fn push(&mut self, message: &OrchestratorMessage) {
        if let Some(connection) = self.connection {
            let frame = sluice_protocol::encode(message);
            self.input(Input::Frame { connection, frame });
        }
    }

    /// The newest rows, as a delta from what was acknowledged.
    pub(super) fn sync(&mut self) {
        let delta = self.fake.delta(Some(self.fake.acked));
        self.push(&delta);
    }

    /// Lets time pass, ticking whenever the core asks for it.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while let Some(due) = self.core().next_deadline().filter(|due| *due <= end.mono) {
            let step = due.since(self.now.mono).max(Duration::from_millis(1));
            self.now = self.now.plus(step);
            self.input(Input::Tick);
        }
        let rest = end.mono.since(self.now.mono);
        self.now = self.now.plus(rest);
    }

    /// Orders something of execution `n`; each content has one component.
    pub(super) fn order(
        &mut self,
        n: u8,
        version: u64,
        attempt: u64,
        desired: Desired,
        content: &str,
    ) {
        let spec = spec(content);
        let row = AssignmentRow {
            execution: id(n),
            job: JobId::from_random([n; 16]),
            job_name: format!("job-{n}").parse().unwrap(),
            version: Version(version),
            attempt: Attempt(attempt),
            desired,
            slot: Slot(0),
            spec: spec.digest(),
            once: false,
        };
        self.fake.specs.insert(spec.digest(), spec.encode());
        self.fake.put(id(n).to_bytes().to_vec(), row.encode());
    }

    pub(super) fn order_raw(&mut self, n: u8, body: &[u8]) {
        self.fake.put(id(n).to_bytes().to_vec(), body.to_vec());
    }

    /// What runs of an execution ends by itself.
    pub(super) fn end(&mut self, n: u8, ending: Ending) {
        let (ticket, _) = self.machine.running.remove(&id(n)).expect("it runs");
        let counters = Counters {
            records_in: 10,
            ..Counters::default()
        };
        self.input(Input::Ended {
            ticket,
            ending,
            counters,
        });
    }

    /// What the orchestrator believes of an execution.
    pub(super) fn seen(&self, n: u8) -> &ObservedRow {
        &self.fake.live[&id(n).to_bytes().to_vec()]
    }

    pub(super) fn runs(&self, n: u8, content: &str) -> bool {
        let running = self.machine.running.get(&id(n));
        running.is_some_and(|(_, digest)| *digest == spec(content).digest())
    }

    /// Both sides hold the same, in both directions.
    pub(super) fn assert_in_sync(&mut self) {
        let (desired, observed) = (
            self.core().desired_position(),
            self.core().observed_position(),
        );
        assert_eq!(desired, self.fake.position());
        assert_eq!(observed.digest, self.fake.observed.digest());
        assert_eq!(observed.rev.0, self.fake.observed_rev);
        assert_eq!(self.fake.acked, self.fake.rev);
    }
}

pub(super) fn spec(content: &str) -> Spec {
    Spec {
        pipeline: content.to_owned(),
        stdin: None,
        components: vec![SpecComponent {
            stage: "only".parse().unwrap(),
            digest: component(content),
            size: 1,
            world: sluice_model::World::Transform,
        }],
        params: Default::default(),
    }
}

/// What a content runs: its last line.
pub(super) fn component(content: &str) -> Digest {
    Digest::of(content.lines().last().unwrap().as_bytes())
}

pub(super) fn life(n: u8) -> LifeNonce {
    LifeNonce::from_random([n; 16])
}
