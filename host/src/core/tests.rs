//! The core against hand-made edges: joins, who may speak, rows both ways, and a store that fails.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use sluice_api::{DeployOutcome, DeployRequest, ErrorCode, ExecutionFilter};
use sluice_ledger::{Position, RowHash, SetDigest};
use sluice_model::{Attempt, ExecutionState, Labels, ObservedPhase, Revision, TokenId, Version};
use sluice_protocol::{
    AssignmentRow, Begin, EdgeMessage, Heartbeat, Hello, ObservedRow, OrchestratorMessage,
    Received, Row, Rows, Welcome, decode, edge_message, encode, orchestrator_message,
};

use super::*;
use crate::store::{SqliteStore, TaskLimits, TokenRecord};

mod audit;
mod events;
mod full;
mod identity;
mod listing;
mod machine;
mod other_ages;
mod outputs;
mod reports;
mod rollouts;
mod runs;
mod schedules;
mod versions;

const SECRET: [u8; 32] = [7; 32];

struct World {
    core: Core<SqliteStore>,
    now: Now,
    requests: u64,
    conns: u64,
}

/// What a hand-made edge knows.
#[derive(Clone)]
struct Edge {
    node: NodeId,
    key: [u8; 32],
    incarnation: [u8; 16],
    boot: (u64, [u8; 16]),
    life: (u64, Vec<u8>),
    desired: Position,
    certificate_ends: UnixMs,
}

fn random() -> Box<dyn FnMut() -> [u8; 16] + Send> {
    let mut next = 0_u128;
    Box::new(move || {
        next += 1;
        next.to_be_bytes()
    })
}

fn config() -> CoreConfig {
    CoreConfig {
        heartbeat: Duration::from_secs(1),
        lost_after: Duration::from_secs(60),
        worker: "test".to_owned(),
        limits: TaskLimits::default(),
    }
}

impl World {
    fn new() -> Self {
        Self::with_heartbeat(config().heartbeat)
    }

    fn with_heartbeat(heartbeat: Duration) -> Self {
        let now = Now {
            mono: MonotonicMs(1000),
            unix: UnixMs(1_000_000),
        };
        let config = CoreConfig {
            heartbeat,
            ..config()
        };
        let core = Core::start(SqliteStore::in_memory().unwrap(), config, random(), now).unwrap();
        Self {
            core,
            now,
            requests: 0,
            conns: 0,
        }
    }

    /// The same store in a new process; with `forget`, as an older backup would have it.
    fn restart(self, store: SqliteStore) -> Self {
        let core = Core::start(store, config(), random(), self.now).unwrap();
        Self { core, ..self }
    }

    fn pass(&mut self, time: Duration) -> Vec<Output> {
        self.now = Now {
            mono: self.now.mono.plus(time),
            unix: self.now.unix.plus(time),
        };
        self.core.handle(vec![Input::Tick], self.now)
    }

    fn handle(&mut self, input: Input) -> Vec<Output> {
        self.core.handle(vec![input], self.now)
    }

    fn ask(&mut self, make: impl FnOnce(RequestId) -> Input) -> Result<Reply, ErrorBody> {
        self.requests += 1;
        let request = RequestId(self.requests);
        let outputs = self.handle(make(request));
        outputs
            .into_iter()
            .find_map(|output| match output {
                Output::Reply { request: to, reply } if to == request => Some(reply),
                _ => None,
            })
            .expect("every question is answered in its round")
    }

    fn call(&mut self, call: ApiCall) -> Result<Reply, ErrorBody> {
        self.ask(|request| Input::Api {
            request,
            call: Box::new(call),
        })
    }

    fn token(&mut self, uses: Option<u64>, node: Option<&str>, rejoin: bool) -> TokenId {
        self.requests += 1;
        let id = TokenId::from_random(u128::from(self.requests).to_le_bytes());
        let record = TokenRecord {
            id,
            secret_hash: *Digest::of(&SECRET).as_bytes(),
            uses_left: uses,
            expires_at: self.now.unix.plus(Duration::from_secs(3600)),
            node: node.map(|name| name.parse().unwrap()),
            rejoin,
            created_at: self.now.unix,
            created_by: Some("ci".to_owned()),
        };
        self.call(ApiCall::CreateToken(record)).unwrap();
        id
    }

    fn join(
        &mut self,
        token: TokenId,
        secret: [u8; 32],
        name: &str,
        key: u8,
    ) -> Result<NodeId, ErrorBody> {
        let message = JoinRequest {
            versions: vec![1],
            token_id: token.to_bytes().to_vec(),
            token_secret: secret.to_vec(),
            name: name.to_owned(),
            csr: Vec::new(),
            labels: Labels::new(),
        };
        match self.ask(|request| Input::Join {
            request,
            message,
            key: [key; 32],
        })? {
            Reply::Joined(joined) => Ok(joined.node),
            other => panic!("{other:?}"),
        }
    }

    fn edge(&mut self, name: &str, key: u8) -> Edge {
        let token = self.token(Some(1), None, false);
        let node = self.join(token, SECRET, name, key).unwrap();
        Edge::new(node, key)
    }

    /// A connection and its Hello. Each certificate was recorded before its edge got it.
    fn open(&mut self, edge: &Edge) -> (ConnId, Vec<Output>) {
        // Without room it is the one that is on record already.
        let _ = self.certify(edge.node, edge.certificate_ends);
        self.open_unrecorded(edge)
    }

    /// Has the end of a certificate recorded; without an `Ok` it does not leave.
    fn certify(&mut self, node: NodeId, expires_at: UnixMs) -> Result<Reply, ErrorBody> {
        self.ask(|request| {
            Input::CertificateIssued(NewCertificate {
                request,
                node,
                expires_at,
            })
        })
    }

    /// The same with a certificate that this store may have lost.
    fn open_unrecorded(&mut self, edge: &Edge) -> (ConnId, Vec<Output>) {
        self.conns += 1;
        let conn = ConnId(self.conns);
        let peer = Peer {
            node: edge.node,
            key: edge.key,
            expires_at: edge.certificate_ends,
            address: "127.0.0.1:1".to_owned(),
        };
        self.handle(Input::Opened { conn, peer });
        let outputs = self.say(conn, edge_message::Kind::Hello(edge.hello()));
        (conn, outputs)
    }

    fn say(&mut self, conn: ConnId, kind: edge_message::Kind) -> Vec<Output> {
        let frame = encode(&EdgeMessage { kind: Some(kind) });
        self.handle(Input::Frame { conn, frame })
    }

    /// Hello and Begin; what the core sent after it.
    fn begin(&mut self, edge: &mut Edge) -> (ConnId, Vec<Output>) {
        let opened = self.open(edge);
        self.begin_on(edge, opened)
    }

    fn begin_on(
        &mut self,
        edge: &mut Edge,
        (conn, outputs): (ConnId, Vec<Output>),
    ) -> (ConnId, Vec<Output>) {
        let welcome = welcome(&outputs).expect("a welcome");
        edge.life = (welcome.epoch, welcome.life.clone());
        let incarnation = edge.incarnation.to_vec();
        let begin = Begin {
            session: welcome.session,
            incarnation,
        };
        (conn, self.say(conn, edge_message::Kind::Begin(begin)))
    }

    /// Applies rows as an edge would and acknowledges them.
    fn apply(&mut self, edge: &mut Edge, conn: ConnId, outputs: &[Output]) -> Vec<AssignmentRow> {
        let rows = rows(outputs);
        let assignments = rows
            .iter()
            .flat_map(|rows| &rows.upserts)
            .map(|row| AssignmentRow::decode(&row.body).unwrap())
            .collect();
        if let Some(last) = rows.last() {
            edge.desired = last.to.to_position().unwrap();
            let received = Received {
                epoch: edge.life.0,
                rev: last.to.rev,
            };
            self.say(conn, edge_message::Kind::Received(received));
        }
        assignments
    }

    fn report(
        &mut self,
        conn: ConnId,
        edge: &Edge,
        base: u64,
        report: &ObservedRow,
        outcome: bool,
    ) -> Vec<Output> {
        let body = report.encode();
        let row = Row {
            key: report.execution.to_bytes().to_vec(),
            body: body.clone(),
        };
        let outcomes = if outcome {
            vec![Row {
                key: report.outcome_key().to_bytes().to_vec(),
                body: body.clone(),
            }]
        } else {
            Vec::new()
        };
        let to = Position {
            rev: Revision(base + 1),
            digest: SetDigest::EMPTY.with(RowHash::of(&body)),
        };
        let rows = Rows {
            epoch: edge.life.0,
            base: Some(base),
            to: to.into(),
            last: true,
            upserts: vec![row],
            outcomes,
            ..Rows::default()
        };
        self.say(conn, edge_message::Kind::Rows(rows))
    }

    fn deploy(&mut self, text: &str) -> DeployOutcome {
        let request = DeployRequest {
            pipeline: text.to_owned(),
            plugins: BTreeMap::new(),
            dry_run: false,
        };
        match self
            .call(ApiCall::Deploy(request, BTreeMap::new()))
            .unwrap()
        {
            Reply::Deploy(reply) => reply.outcome,
            other => panic!("{other:?}"),
        }
    }

    fn executions(&mut self) -> Vec<sluice_api::Execution> {
        match self
            .call(ApiCall::Executions(ExecutionFilter {
                all: true,
                ..ExecutionFilter::default()
            }))
            .unwrap()
        {
            Reply::Executions(sluice_api::Page {
                items: executions, ..
            }) => executions,
            other => panic!("{other:?}"),
        }
    }
}

impl Edge {
    fn new(node: NodeId, key: u8) -> Self {
        Self {
            node,
            key: [key; 32],
            incarnation: [key; 16],
            boot: (1, [1; 16]),
            life: (0, Vec::new()),
            desired: Position::default(),
            certificate_ends: UnixMs(i64::MAX),
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            versions: vec![1],
            incarnation: self.incarnation.to_vec(),
            boot_counter: self.boot.0,
            boot_nonce: self.boot.1.to_vec(),
            epoch: self.life.0,
            life: self.life.1.clone(),
            desired: self.desired.into(),
            observed: Position::default().into(),
            ..Hello::default()
        }
    }
}

fn messages(outputs: &[Output]) -> Vec<orchestrator_message::Kind> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Send { frame, .. } => decode::<OrchestratorMessage>(frame).unwrap().kind,
            _ => None,
        })
        .collect()
}

fn welcome(outputs: &[Output]) -> Option<Welcome> {
    messages(outputs)
        .into_iter()
        .find_map(|message| match message {
            orchestrator_message::Kind::Welcome(welcome) => Some(welcome),
            _ => None,
        })
}

fn reject(outputs: &[Output]) -> Option<String> {
    messages(outputs)
        .into_iter()
        .find_map(|message| match message {
            orchestrator_message::Kind::Reject(reject) => Some(reject.code),
            _ => None,
        })
}

fn rows(outputs: &[Output]) -> Vec<Rows> {
    messages(outputs)
        .into_iter()
        .filter_map(|message| match message {
            orchestrator_message::Kind::Rows(rows) => Some(rows),
            _ => None,
        })
        .collect()
}

fn closed(outputs: &[Output], conn: ConnId) -> Option<CloseWhy> {
    outputs.iter().find_map(|output| match output {
        Output::Close {
            conn: closed, why, ..
        } if *closed == conn => Some(*why),
        _ => None,
    })
}

fn observed(row: &AssignmentRow, phase: ObservedPhase) -> ObservedRow {
    ObservedRow {
        execution: row.execution,
        version: row.version,
        attempt: row.attempt,
        phase,
        fail: None,
        reason: String::new(),
        next_action: String::new(),
        next_at: None,
        restarts: 0,
        records_in: 5,
        records_out: 4,
        dead_letters: 1,
        running_version: None,
        at: UnixMs(1),
        output: None,
    }
}

fn deploy_call(text: &str) -> ApiCall {
    let request = DeployRequest {
        pipeline: text.to_owned(),
        plugins: BTreeMap::new(),
        dry_run: false,
    };
    ApiCall::Deploy(request, BTreeMap::new())
}

const PIPELINE: &str = "name = \"a\"\n[input.generate]\ntemplate = \"x\"\n[output.discard]\n";

fn pipeline(name: &str, template: &str) -> String {
    format!("name = \"{name}\"\n[input.generate]\ntemplate = \"{template}\"\n[output.discard]\n")
}

#[test]
fn a_token_lets_in_only_what_it_was_made_for() {
    let mut world = World::new();
    let code = |result: Result<NodeId, ErrorBody>| result.unwrap_err().detail.unwrap();
    let once = world.token(Some(1), None, false);
    assert_eq!(
        code(world.join(once, [8; 32], "e1", 1)),
        "token",
        "a wrong secret"
    );
    assert_eq!(
        code(world.join(TokenId::from_random([9; 16]), SECRET, "e1", 1)),
        "token",
        "a foreign token"
    );
    assert_eq!(code(world.join(once, SECRET, "E 1", 1)), "malformed");
    let first = world.join(once, SECRET, "e1", 1).unwrap();
    assert_eq!(
        world.join(once, SECRET, "e1", 1).unwrap(),
        first,
        "an answer that got lost is given again"
    );
    assert_eq!(code(world.join(once, SECRET, "e2", 2)), "token", "used up");
    let many = world.token(None, None, false);
    assert_eq!(code(world.join(many, SECRET, "e1", 3)), "name-in-use");
    world.join(many, SECRET, "e2", 2).unwrap();
    world.join(many, SECRET, "e3", 3).unwrap();
    let only = world.token(Some(1), Some("e2"), false);
    assert_eq!(code(world.join(only, SECRET, "e3", 4)), "token");
    world.pass(Duration::from_secs(7200));
    assert_eq!(code(world.join(many, SECRET, "e4", 4)), "token", "expired");
}

#[test]
fn case_70_a_wiped_machine_gets_its_node_back_and_the_old_key_is_out() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    let (old, _) = world.begin(&mut edge);
    let any = world.token(Some(1), None, true);
    assert!(
        world.join(any, SECRET, "e1", 2).is_err(),
        "a general token never takes a live node over"
    );
    let own = world.token(Some(1), Some("e1"), false);
    assert_eq!(world.join(own, SECRET, "e1", 2).unwrap(), edge.node);
    let (_, outputs) = world.open(&edge);
    assert_eq!(reject(&outputs).as_deref(), Some("revoked"));
    assert!(
        world
            .say(old, edge_message::Kind::Heartbeat(Heartbeat::default()))
            .is_empty(),
        "cut"
    );
    let mut wiped = Edge::new(edge.node, 2);
    world.deploy(PIPELINE);
    let (conn, outputs) = world.begin(&mut wiped);
    assert_eq!(
        world.apply(&mut wiped, conn, &outputs).len(),
        1,
        "its work comes back"
    );
}

#[test]
fn a_replayed_hello_changes_nothing() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    let (conn, _) = world.begin(&mut edge);
    let before = world.core.store_mut().node(edge.node).unwrap();
    let (_, outputs) = world.open(&edge);
    assert!(welcome(&outputs).is_some());
    assert_eq!(world.core.store_mut().node(edge.node).unwrap(), before);
    let heartbeat = Heartbeat {
        seq: 1,
        epoch: edge.life.0,
        desired: edge.desired.into(),
        observed: Position::default().into(),
        ..Heartbeat::default()
    };
    let answers = messages(&world.say(conn, edge_message::Kind::Heartbeat(heartbeat)));
    assert!(
        matches!(answers[..], [orchestrator_message::Kind::HeartbeatAck(_)]),
        "the live session lives on"
    );
}

#[test]
fn the_newer_session_wins_and_the_stale_closing_hurts_nobody() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    let (old, _) = world.begin(&mut edge);
    let (new, outputs) = world.begin(&mut edge);
    assert_eq!(closed(&outputs, old), Some(CloseWhy::Superseded));
    world.handle(Input::Closed { conn: old });
    let Reply::Node(node) = world.call(ApiCall::Node("e1".parse().unwrap())).unwrap() else {
        panic!()
    };
    assert_eq!(node.node.state, NodeState::Connected);
    world.handle(Input::Closed { conn: new });
    let Reply::Node(node) = world.call(ApiCall::Node("e1".parse().unwrap())).unwrap() else {
        panic!()
    };
    assert_eq!(node.node.state, NodeState::Disconnected);
}

#[test]
fn two_processes_with_one_identity_are_fenced() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    world.begin(&mut edge);
    let copy = Edge {
        boot: (1, [2; 16]),
        ..edge.clone()
    };
    let (conn, outputs) = world.open(&copy);
    assert_eq!(reject(&outputs).as_deref(), Some("duplicate-identity"));
    assert_eq!(closed(&outputs, conn), Some(CloseWhy::Refused));
    let restarted = Edge {
        boot: (2, [3; 16]),
        ..edge
    };
    assert!(welcome(&world.open(&restarted).1).is_some());
}

#[test]
fn an_edge_that_knows_more_is_held_and_nothing_of_it_is_touched() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    let backup = world.core.store_mut().fork().unwrap();
    world.deploy(PIPELINE);
    let (conn, outputs) = world.begin(&mut edge);
    assert_eq!(world.apply(&mut edge, conn, &outputs).len(), 1);
    let mut world = world.restart(backup);
    let (conn, outputs) = world.open(&edge);
    let welcome = welcome(&outputs).unwrap();
    assert!(welcome.held, "its life is newer than the backup knows");
    let begin = Begin {
        session: welcome.session,
        incarnation: edge.incarnation.to_vec(),
    };
    let outputs = world.say(conn, edge_message::Kind::Begin(begin));
    assert!(rows(&outputs).is_empty());
    world.deploy(&pipeline("b", "y"));
    assert!(rows(&world.pass(Duration::from_millis(10))).is_empty());
    let Reply::Nodes(sluice_api::Page { items: nodes, .. }) =
        world.call(ApiCall::Nodes(Default::default())).unwrap()
    else {
        panic!()
    };
    assert_eq!(nodes[0].state, NodeState::Held);
    assert!(nodes[0].held_reason.is_some());
    assert!(world.executions().is_empty(), "nothing is planned onto it");
}

#[test]
fn case_73_an_empty_store_holds_every_node_that_it_never_saw_and_stops_nothing() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    world.begin(&mut edge);
    let mut world = world.restart(SqliteStore::in_memory().unwrap());
    let (conn, outputs) = world.open(&edge);
    let welcome = welcome(&outputs).unwrap();
    assert!(welcome.held);
    let begin = Begin {
        session: welcome.session,
        incarnation: edge.incarnation.to_vec(),
    };
    let outputs = world.say(conn, edge_message::Kind::Begin(begin));
    assert!(rows(&outputs).is_empty() && closed(&outputs, conn).is_none());
    let later = world.pass(SWEEP_EVERY);
    assert!(rows(&later).is_empty() && closed(&later, conn).is_none());
    let Reply::Nodes(sluice_api::Page { items: nodes, .. }) =
        world.call(ApiCall::Nodes(Default::default())).unwrap()
    else {
        panic!()
    };
    assert_eq!((nodes.len(), nodes[0].state), (1, NodeState::Held));
}

#[test]
fn case_78_two_updates_while_away_send_only_the_last() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    world.deploy(PIPELINE);
    let (conn, outputs) = world.begin(&mut edge);
    world.apply(&mut edge, conn, &outputs);
    world.handle(Input::Closed { conn });
    world.deploy(&pipeline("a", "y"));
    world.deploy(&pipeline("a", "z"));
    let (conn, outputs) = world.begin(&mut edge);
    let sent = rows(&outputs);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].specs.len(), 1, "the version between was never sent");
    let assignments = world.apply(&mut edge, conn, &outputs);
    assert_eq!(
        assignments
            .iter()
            .map(|row| row.version)
            .collect::<Vec<_>>(),
        [Version(3)]
    );
}

#[test]
fn deploying_what_is_deployed_changes_nothing() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    assert_eq!(world.deploy(PIPELINE), DeployOutcome::Created);
    let (conn, outputs) = world.begin(&mut edge);
    world.apply(&mut edge, conn, &outputs);
    let before = world.core.store_mut().desired_position(edge.node).unwrap();
    assert_eq!(world.deploy(PIPELINE), DeployOutcome::Unchanged);
    world.pass(SWEEP_EVERY);
    assert_eq!(
        world.core.store_mut().desired_position(edge.node).unwrap(),
        before
    );
    world.call(ApiCall::StopJob("a".parse().unwrap())).unwrap();
    assert_eq!(world.deploy(PIPELINE), DeployOutcome::Started);
    let executions = world.executions();
    assert_eq!(
        (executions[0].version, executions[0].attempt),
        (Version(1), Attempt(2))
    );
}

#[test]
fn reports_reach_the_listing_and_an_outcome_is_recorded_once() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    world.deploy(PIPELINE);
    let (conn, outputs) = world.begin(&mut edge);
    let row = world.apply(&mut edge, conn, &outputs).remove(0);
    world.report(
        conn,
        &edge,
        0,
        &observed(&row, ObservedPhase::Running),
        false,
    );
    assert_eq!(world.executions()[0].state, ExecutionState::Running);
    let done = observed(&row, ObservedPhase::Completed);
    for _ in 0..2 {
        let answers = messages(&world.report(conn, &edge, 1, &done, true));
        assert!(
            matches!(&answers[..], [orchestrator_message::Kind::Received(received)] if received.rev == 2)
        );
    }
    let shown = &world.executions()[0];
    assert_eq!(shown.state, ExecutionState::Completed);
    assert_eq!(
        (shown.records_in, shown.records_out, shown.dead_letters),
        (5, 4, 1)
    );
}

#[test]
fn reports_that_do_not_add_up_are_asked_for_again_and_not_kept() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    world.deploy(PIPELINE);
    let (conn, outputs) = world.begin(&mut edge);
    let row = world.apply(&mut edge, conn, &outputs).remove(0);
    let body = observed(&row, ObservedPhase::Running).encode();
    let rows = Rows {
        epoch: edge.life.0,
        base: Some(0),
        to: Position {
            rev: Revision(1),
            digest: SetDigest::EMPTY,
        }
        .into(),
        last: true,
        upserts: vec![Row {
            key: row.execution.to_bytes().to_vec(),
            body,
        }],
        ..Rows::default()
    };
    let answers = messages(&world.say(conn, edge_message::Kind::Rows(rows)));
    assert!(
        matches!(&answers[..], [orchestrator_message::Kind::Resync(resync)] if resync.from.is_none())
    );
    assert!(world.executions()[0].observed.is_none());
}

#[test]
fn case_80_delete_while_away_frees_the_name_at_once_and_purges_on_return() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    world.deploy(PIPELINE);
    let (conn, outputs) = world.begin(&mut edge);
    let row = world.apply(&mut edge, conn, &outputs).remove(0);
    world.handle(Input::Closed { conn });
    world
        .call(ApiCall::DeleteJob("a".parse().unwrap()))
        .unwrap();
    assert_eq!(
        world.deploy(PIPELINE),
        DeployOutcome::Created,
        "the name is free"
    );
    let (conn, outputs) = world.begin(&mut edge);
    let assignments = world.apply(&mut edge, conn, &outputs);
    assert_eq!(assignments.len(), 2);
    let purge = assignments
        .iter()
        .find(|other| other.execution == row.execution)
        .unwrap();
    assert_eq!(purge.desired, sluice_model::Desired::Purge);
    let outputs = world.report(
        conn,
        &edge,
        0,
        &observed(purge, ObservedPhase::Purged),
        false,
    );
    assert_eq!(
        rows(&outputs)[0].removed,
        vec![row.execution.to_bytes().to_vec()]
    );
    assert_eq!(world.executions().len(), 1);
    assert_eq!(
        world.core.store_mut().jobs(true).unwrap().len(),
        1,
        "the deleted job is forgotten"
    );
}

#[test]
fn silence_disconnects_and_our_own_stall_does_not() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    let (conn, _) = world.begin(&mut edge);
    let outputs = world.pass(Duration::from_secs(60));
    assert_eq!(closed(&outputs, conn), None, "we were away, not the edge");
    let mut ended = None;
    for _ in 0..8 {
        ended = ended.or(closed(&world.pass(Duration::from_millis(500)), conn));
    }
    assert_eq!(ended, Some(CloseWhy::Stalled));
    for _ in 0..130 {
        world.pass(Duration::from_millis(500));
    }
    let Reply::Nodes(sluice_api::Page { items: nodes, .. }) =
        world.call(ApiCall::Nodes(Default::default())).unwrap()
    else {
        panic!()
    };
    assert_eq!(nodes[0].state, NodeState::Lost);
    world.begin(&mut edge);
    let Reply::Nodes(sluice_api::Page { items: nodes, .. }) =
        world.call(ApiCall::Nodes(Default::default())).unwrap()
    else {
        panic!()
    };
    assert_eq!(nodes[0].state, NodeState::Connected);
}

#[test]
fn a_commit_that_fails_leaves_no_trace() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    let (conn, _) = world.begin(&mut edge);
    world
        .core
        .store_mut()
        .set_fault_hook(Some(Box::new(|point| match point {
            "commit" => Err(StoreError::Failed {
                action: "commit",
                source: "a bad sector".into(),
            }),
            _ => Ok(()),
        })));
    let outputs = world.handle(Input::Api {
        request: RequestId(1000),
        call: Box::new(deploy_call(PIPELINE)),
    });
    assert_eq!(closed(&outputs, conn), Some(CloseWhy::Unavailable));
    let refused = outputs.iter().any(|output| {
        matches!(output, Output::Reply { reply: Err(error), .. } if error.code == ErrorCode::Internal)
    });
    assert!(refused);
    assert!(world.core.broken().unwrap().contains("bad sector"));
    world.core.store_mut().set_fault_hook(None);
    assert!(world.executions().is_empty());
}

#[test]
fn case_44_47_a_disk_that_fails_within_a_step_ends_the_process() {
    let damaged = || StoreError::Unusable {
        problem: "the orchestrator's store is damaged; restore it from a backup".to_owned(),
    };
    let failing = || StoreError::Disk {
        action: "keep a job",
        source: "input/output error".into(),
    };
    let faults: [fn() -> StoreError; 2] = [damaged, failing];
    for fault in faults {
        let mut world = World::new();
        let mut edge = world.edge("e1", 1);
        world.begin(&mut edge);
        let hook = move |point: &'static str| match point {
            "keep a job" => Err(fault()),
            // Whatever else is tried on this handle would be wrong.
            "commit" => panic!("a commit on a disk that failed"),
            _ => Ok(()),
        };
        world.core.store_mut().set_fault_hook(Some(Box::new(hook)));
        let request = DeployRequest {
            pipeline: PIPELINE.to_owned(),
            plugins: BTreeMap::new(),
            dry_run: false,
        };
        world
            .call(ApiCall::Deploy(request, BTreeMap::new()))
            .unwrap_err();
        let why = world.core.broken().unwrap();
        assert!(why.contains(&fault().to_string()), "{why}");
        assert!(why.contains("restore") || why.contains("start"), "{why}");
    }
}

#[test]
fn one_step_that_fails_is_undone_alone() {
    let mut world = World::new();
    world
        .core
        .store_mut()
        .set_fault_hook(Some(Box::new(|point| match point {
            "keep a job" => Err(StoreError::Injected { point }),
            _ => Ok(()),
        })));
    let request = DeployRequest {
        pipeline: PIPELINE.to_owned(),
        plugins: BTreeMap::new(),
        dry_run: false,
    };
    let deploy = Input::Api {
        request: RequestId(1),
        call: Box::new(ApiCall::Deploy(request, BTreeMap::new())),
    };
    let token = TokenRecord {
        id: TokenId::from_random([1; 16]),
        secret_hash: [0; 32],
        uses_left: None,
        expires_at: UnixMs(i64::MAX),
        node: None,
        rejoin: false,
        created_at: UnixMs(0),
        created_by: None,
    };
    let create = Input::Api {
        request: RequestId(2),
        call: Box::new(ApiCall::CreateToken(token)),
    };
    let outputs = world.core.handle(vec![deploy, create], world.now);
    let answers: Vec<bool> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Reply { reply, .. } => Some(reply.is_ok()),
            _ => None,
        })
        .collect();
    assert_eq!(answers, [false, true]);
}

#[test]
fn a_job_that_cannot_be_planned_holds_up_no_other() {
    let mut world = World::new();
    world.edge("e1", 1);
    let mut failures = 0;
    world
        .core
        .store_mut()
        .set_fault_hook(Some(Box::new(move |point| {
            let fails = point == "commit an assignment" && failures == 0;
            failures += u32::from(fails);
            if fails {
                Err(StoreError::Injected { point })
            } else {
                Ok(())
            }
        })));
    world.deploy(&pipeline("a", "x"));
    assert!(world.executions().is_empty(), "the first plan failed");
    world.deploy(&pipeline("b", "y"));
    let jobs: Vec<String> = world
        .executions()
        .iter()
        .map(|shown| shown.job.to_string())
        .collect();
    assert_eq!(jobs, ["b"]);
    world.pass(LEASE * 2);
    assert_eq!(world.executions().len(), 2, "tried again by itself");
}

#[test]
fn garbage_closes_the_connection_and_nothing_else() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    for frame in [&b"\xff\xff\xff"[..], b"", &[0; 100]] {
        let (conn, _) = world.begin(&mut edge);
        let outputs = world.handle(Input::Frame {
            conn,
            frame: Bytes::copy_from_slice(frame),
        });
        assert_eq!(
            closed(&outputs, conn),
            Some(CloseWhy::Protocol),
            "{frame:?}"
        );
    }
    let beyond = Received { epoch: 1, rev: 99 };
    let (conn, _) = world.begin(&mut edge);
    let outputs = world.say(conn, edge_message::Kind::Received(beyond));
    assert_eq!(
        closed(&outputs, conn),
        Some(CloseWhy::Protocol),
        "an acknowledgement of what was never sent"
    );
}
