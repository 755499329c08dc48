//! A full disk: nothing is stored, acknowledged or forgotten, sessions stay, and all goes on when there is room.

use sluice_protocol::{HeartbeatAck, Resync};

use super::*;

pub(super) fn fill(world: &mut World) {
    world
        .core
        .store_mut()
        .set_fault_hook(Some(Box::new(|point| match point {
            "commit" => Err(StoreError::Full),
            _ => Ok(()),
        })));
}

pub(super) fn make_room(world: &mut World) {
    world.core.store_mut().set_fault_hook(None);
}

pub(super) fn heartbeat(edge: &Edge, observed: Position) -> edge_message::Kind {
    edge_message::Kind::Heartbeat(Heartbeat {
        seq: 1,
        epoch: edge.life.0,
        desired: edge.desired.into(),
        observed: observed.into(),
        counters: Vec::new(),
    })
}

fn answer(outputs: &[Output]) -> Option<HeartbeatAck> {
    messages(outputs)
        .into_iter()
        .find_map(|message| match message {
            orchestrator_message::Kind::HeartbeatAck(ack) => Some(ack),
            _ => None,
        })
}

fn resync(outputs: &[Output]) -> Option<Resync> {
    messages(outputs)
        .into_iter()
        .find_map(|message| match message {
            orchestrator_message::Kind::Resync(resync) => Some(resync),
            _ => None,
        })
}

fn received(outputs: &[Output]) -> Option<u64> {
    messages(outputs)
        .into_iter()
        .find_map(|message| match message {
            orchestrator_message::Kind::Received(received) => Some(received.rev),
            _ => None,
        })
}

#[test]
fn case_43_orders_are_refused_sessions_stay_and_work_goes_on_when_there_is_room() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    let (conn, _) = world.begin(&mut edge);
    fill(&mut world);
    for _ in 0..3 {
        let refused = world.call(deploy_call(PIPELINE)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::DiskFull);
        assert_eq!(refused.code.http_status(), 507);
        let outputs = world.pass(Duration::from_secs(1));
        assert_eq!(closed(&outputs, conn), None);
        let outputs = world.say(conn, heartbeat(&edge, Position::default()));
        assert!(answer(&outputs).unwrap().no_room, "it is told so");
        assert!(world.executions().is_empty(), "questions are answered");
    }
    assert!(world.core.broken().is_none(), "a full disk passes");
    make_room(&mut world);
    assert_eq!(closed(&world.pass(Duration::from_secs(1)), conn), None);
    assert_eq!(world.deploy(PIPELINE), DeployOutcome::Created);
    let ack = answer(&world.say(conn, heartbeat(&edge, Position::default()))).unwrap();
    assert!(!ack.no_room);
    assert_eq!(world.executions().len(), 1);
}

#[test]
fn case_43_reports_and_acks_that_found_no_room_are_had_again() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    let (conn, _) = world.begin(&mut edge);
    let outputs = world.handle(Input::Api {
        request: RequestId(1000),
        call: Box::new(deploy_call(PIPELINE)),
    });
    let sent = rows(&outputs);
    fill(&mut world);
    // The ack of the rows, and a report, find no room.
    let row = world.apply(&mut edge, conn, &outputs).remove(0);
    let report = observed(&row, ObservedPhase::Running);
    let outputs = world.report(conn, &edge, 0, &report, false);
    assert!(outputs.is_empty(), "nothing is acknowledged: {outputs:?}");
    for _ in 0..40 {
        let outputs = world.pass(Duration::from_secs(1));
        assert_eq!(closed(&outputs, conn), None, "no ack is overdue");
        assert!(messages(&outputs).is_empty(), "nothing is asked for yet");
        let outputs = world.say(conn, heartbeat(&edge, Position::default()));
        assert!(answer(&outputs).is_some());
    }
    let shown = world.executions().remove(0);
    assert!(!shown.received && shown.observed.is_none());

    make_room(&mut world);
    let outputs = world.pass(Duration::from_secs(1));
    assert_eq!(resync(&outputs).unwrap().from, Some(0), "tell me again");
    assert_eq!(
        rows(&outputs),
        sent,
        "what was not acknowledged comes again"
    );
    assert_eq!(
        world.apply(&mut edge, conn, &outputs),
        std::slice::from_ref(&row)
    );
    let outputs = world.report(conn, &edge, 0, &report, false);
    assert_eq!(received(&outputs), Some(1));
    let shown = world.executions().remove(0);
    assert!(shown.received);
    assert_eq!(shown.state, ExecutionState::Running);
    assert!(messages(&world.pass(Duration::from_secs(1))).is_empty());
}

#[test]
fn case_43_an_edge_whose_heartbeats_are_rare_is_told_to_wait_before_it_gives_up() {
    let mut world = World::with_heartbeat(Duration::from_secs(60));
    let mut edge = world.edge("e1", 1);
    world.deploy(PIPELINE);
    let (conn, outputs) = world.begin(&mut edge);
    let row = world.apply(&mut edge, conn, &outputs).remove(0);
    fill(&mut world);
    let report = observed(&row, ObservedPhase::Running);
    let outputs = world.report(conn, &edge, 0, &report, false);
    assert!(answer(&outputs).unwrap().no_room, "at once");
    // No heartbeat for a minute; an edge waits 10 s for an ack.
    let mut silence = 0;
    for _ in 0..60 {
        let outputs = world.pass(Duration::from_secs(1));
        assert_eq!(closed(&outputs, conn), None);
        silence = match answer(&outputs) {
            Some(ack) => {
                assert!(ack.no_room);
                0
            }
            None => silence + 1,
        };
        assert!(silence < 5, "it hears in time");
    }
    make_room(&mut world);
    let outputs = world.pass(Duration::from_secs(1));
    assert_eq!(resync(&outputs).unwrap().from, Some(0), "tell me again");
    assert!(answer(&outputs).is_none());
    let outputs = world.report(conn, &edge, 0, &report, false);
    assert_eq!(received(&outputs), Some(1));
}

#[test]
fn case_43_a_round_that_is_undone_hides_nothing_from_the_next() {
    let mut world = World::new();
    let mut edges = [world.edge("e1", 1), world.edge("e2", 2)];
    let conns = [0, 1].map(|n: usize| world.begin(&mut edges[n]).0);
    fill(&mut world);
    // One round: an order that would send rows to both, and heartbeats.
    let mut inputs = vec![Input::Api {
        request: RequestId(1000),
        call: Box::new(deploy_call(PIPELINE)),
    }];
    for (edge, conn) in edges.iter().zip(conns) {
        let kind = heartbeat(edge, Position::default());
        let frame = encode(&EdgeMessage { kind: Some(kind) });
        inputs.push(Input::Frame { conn, frame });
    }
    let outputs = world.core.handle(inputs, world.now);
    // The refusal, and that both are to wait.
    assert_eq!(outputs.len(), 3, "{outputs:?}");
    assert!(rows(&outputs).is_empty());
    assert!(answer(&outputs).unwrap().no_room);
    make_room(&mut world);
    world.pass(Duration::from_secs(1));
    let outputs = world.handle(Input::Api {
        request: RequestId(1001),
        call: Box::new(deploy_call(PIPELINE)),
    });
    for conn in conns {
        let to = |output: &&Output| matches!(output, Output::Send { conn: to, .. } if *to == conn);
        assert_eq!(outputs.iter().filter(to).count(), 1, "rows at revision 1");
    }
    assert!(rows(&outputs).iter().all(|rows| rows.to.rev == 1));
}

#[test]
fn case_43_a_new_session_is_asked_to_come_back() {
    let mut world = World::new();
    let (mut away, mut silent) = (world.edge("e1", 1), world.edge("e2", 2));
    let (conn, _) = world.begin(&mut silent);
    let (welcomed, outputs) = world.open(&away);
    let session = welcome(&outputs).unwrap().session;
    fill(&mut world);
    // Welcomed before, and its Begin finds no room.
    let begin = Begin {
        session,
        incarnation: away.incarnation.to_vec(),
    };
    let outputs = world.say(welcomed, edge_message::Kind::Begin(begin));
    assert_eq!(closed(&outputs, welcomed), Some(CloseWhy::Unavailable));
    let (_, outputs) = world.open(&away);
    assert_eq!(reject(&outputs).as_deref(), Some("unavailable"));
    // One that falls silent is noticed all the same.
    let outputs = world.pass(Duration::from_millis(900));
    assert_eq!(closed(&outputs, conn), None);
    let late = (0..5).find_map(|_| closed(&world.pass(Duration::from_millis(900)), conn));
    assert_eq!(late, Some(CloseWhy::Stalled));
    make_room(&mut world);
    world.pass(Duration::from_secs(1));
    world.begin(&mut away);
    world.begin(&mut silent);
}

#[test]
fn case_43_nobody_is_lost_for_the_time_in_which_nobody_could_come_back() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    let (conn, _) = world.begin(&mut edge);
    world.handle(Input::Closed { conn });
    let shown = |world: &mut World| match world.call(ApiCall::Nodes(Default::default())).unwrap() {
        Reply::Nodes(sluice_api::Page { items: nodes, .. }) => nodes[0].state,
        other => panic!("{other:?}"),
    };
    fill(&mut world);
    world.call(deploy_call(PIPELINE)).unwrap_err();
    // Well beyond `lost_after`, tick by tick.
    for _ in 0..100 {
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(shown(&mut world), NodeState::Disconnected);
    make_room(&mut world);
    for _ in 0..60 {
        world.pass(Duration::from_secs(1));
        assert_eq!(shown(&mut world), NodeState::Disconnected);
    }
    // From then on it counts as ever.
    world.pass(Duration::from_secs(1));
    assert_eq!(shown(&mut world), NodeState::Lost);
}
