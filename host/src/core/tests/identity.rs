//! What a node's certificate buys: expiry, renewal, revoking, deleting.

use sluice_model::NodeName;
use sluice_protocol::Renew;

use super::full::{fill, heartbeat, make_room};
use super::*;
use crate::store::{ApiTokenRecord, TokenStore as _};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn name() -> NodeName {
    "e1".parse().unwrap()
}

impl World {
    fn shown(&mut self) -> sluice_api::Node {
        match self.call(ApiCall::Node(name())).unwrap() {
            Reply::Node(node) => node.node,
            other => panic!("{other:?}"),
        }
    }

    /// An order, with everything that comes of it.
    fn order(&mut self, call: ApiCall) -> (Result<Reply, ErrorBody>, Vec<Output>) {
        let request = RequestId(u64::MAX);
        let call = Box::new(call);
        let mut outputs = self.handle(Input::Api { request, call });
        let at = outputs
            .iter()
            .position(|output| matches!(output, Output::Reply { .. }))
            .unwrap();
        let Output::Reply { reply, .. } = outputs.remove(at) else {
            unreachable!("that is what was looked for");
        };
        (reply, outputs)
    }
}

fn renewals(outputs: &[Output]) -> usize {
    let asked = |output: &&Output| matches!(output, Output::Renew { .. });
    outputs.iter().filter(asked).count()
}

#[test]
fn case_67_an_expired_certificate_buys_its_renewal_and_nothing_else() {
    let mut world = World::new();
    world.deploy(PIPELINE);
    let mut edge = world.edge("e1", 1);
    edge.certificate_ends = world.now.unix.plus(DAY);
    let (live, _) = world.begin(&mut edge);
    world.pass(2 * DAY);
    assert_eq!(
        closed(&world.pass(Duration::ZERO), live),
        None,
        "a stall is no edge's fault"
    );
    let before = world.core.store_mut().node(edge.node).unwrap();
    let (conn, outputs) = world.open(&edge);
    assert!(welcome(&outputs).unwrap().renew_only);
    let renew = || edge_message::Kind::Renew(Renew { csr: vec![1] });
    let outputs = world.say(conn, renew());
    assert!(
        matches!(&outputs[..], [Output::Renew { node, key, .. }] if *node == edge.node && *key == edge.key)
    );
    assert!(world.say(conn, renew()).is_empty(), "one is enough");
    // No Begin, no rows: each ends it.
    for wrong in [
        edge_message::Kind::Begin(Begin {
            session: 2,
            incarnation: edge.incarnation.to_vec(),
        }),
        edge_message::Kind::Heartbeat(Heartbeat {
            desired: Position::default().into(),
            observed: Position::default().into(),
            ..Heartbeat::default()
        }),
        edge_message::Kind::Received(Received::default()),
        edge_message::Kind::Rows(Rows::default()),
    ] {
        let (conn, _) = world.open(&edge);
        let outputs = world.say(conn, wrong.clone());
        assert_eq!(
            closed(&outputs, conn),
            Some(CloseWhy::Protocol),
            "{wrong:?}"
        );
    }
    assert_eq!(
        world.core.store_mut().node(edge.node).unwrap(),
        before,
        "nothing was written"
    );
    // One that never asks is closed.
    let (silent, _) = world.open(&edge);
    world.pass(Duration::from_secs(1));
    let outputs: Vec<Output> = (0..11)
        .flat_map(|_| world.pass(Duration::from_secs(1)))
        .collect();
    assert_eq!(closed(&outputs, silent), Some(CloseWhy::Stalled));
    // With the new certificate everything is as before.
    edge.certificate_ends = world.now.unix.plus(DAY);
    let (conn, outputs) = world.begin(&mut edge);
    assert_eq!(world.apply(&mut edge, conn, &outputs).len(), 1);
}

#[test]
fn case_67_the_grace_ends_and_a_revoked_key_has_none() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    edge.certificate_ends = world.now.unix.plus(DAY);
    world.begin(&mut edge);
    world.pass(300 * DAY);
    let (_, outputs) = world.open(&edge);
    assert!(welcome(&outputs).unwrap().renew_only);
    let other_key = Edge {
        key: [9; 32],
        ..edge.clone()
    };
    let (_, outputs) = world.open(&other_key);
    assert_eq!(reject(&outputs).as_deref(), Some("revoked"));
    let stranger = Edge {
        node: NodeId::from_random([8; 16]),
        ..edge.clone()
    };
    let (_, outputs) = world.open(&stranger);
    assert_eq!(reject(&outputs).as_deref(), Some("expired"));
    world.pass(67 * DAY);
    let (conn, outputs) = world.open(&edge);
    assert_eq!(reject(&outputs).as_deref(), Some("expired"));
    let renew = edge_message::Kind::Renew(Renew { csr: vec![1] });
    assert_eq!(renewals(&world.say(conn, renew)), 0);
}

#[test]
fn a_certificate_that_expires_during_a_session_ends_nothing() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    edge.certificate_ends = world.now.unix.plus(Duration::from_secs(10));
    let (conn, _) = world.begin(&mut edge);
    let renew = edge_message::Kind::Renew(Renew { csr: vec![1] });
    assert_eq!(renewals(&world.say(conn, renew.clone())), 1);
    world.pass(Duration::from_secs(1000));
    assert_eq!(renewals(&world.say(conn, renew)), 1, "it still may renew");
    // Between Hello and Begin it is another matter: the session would start with a certificate that is none.
    let (conn, outputs) = {
        let fresh = Edge {
            certificate_ends: world.now.unix.plus(Duration::from_secs(5)),
            ..edge.clone()
        };
        world.open(&fresh)
    };
    let session = welcome(&outputs).unwrap().session;
    world.pass(Duration::from_secs(6));
    let incarnation = edge.incarnation.to_vec();
    let begin = Begin {
        session,
        incarnation,
    };
    let outputs = world.say(conn, edge_message::Kind::Begin(begin));
    assert_eq!(closed(&outputs, conn), Some(CloseWhy::Protocol));
}

#[test]
fn case_66_a_revoked_node_is_cut_at_once_and_refused_until_it_joins_again() {
    let mut world = World::new();
    world.deploy(PIPELINE);
    let mut edge = world.edge("e1", 1);
    let (live, outputs) = world.begin(&mut edge);
    world.apply(&mut edge, live, &outputs);
    let (opening, _) = world.open(&edge);

    let (reply, outputs) = world.order(ApiCall::RevokeNode(name()));
    assert!(reply.is_ok());
    for conn in [live, opening] {
        assert_eq!(closed(&outputs, conn), Some(CloseWhy::Refused));
    }
    assert_eq!(reject(&outputs).as_deref(), Some("revoked"));
    let shown = world.shown();
    assert_eq!(shown.state, NodeState::Disconnected);
    assert_eq!(shown.revoked_at, Some(world.now.unix));
    let execution = &world.executions()[0];
    assert_eq!(execution.state, ExecutionState::Pending);
    assert!(execution.reason.as_ref().unwrap().contains("revoked"));

    // Every later Hello, in this life and in the next, also with an expired certificate, also with a newer boot.
    world.pass(DAY);
    let (_, outputs) = world.open(&edge);
    assert_eq!(reject(&outputs).as_deref(), Some("revoked"));
    let store = world.core.store_mut().fork().unwrap();
    let mut world = world.restart(store);
    edge.boot = (9, [9; 16]);
    edge.certificate_ends = UnixMs(world.now.unix.0 - 1);
    let (_, outputs) = world.open(&edge);
    assert_eq!(reject(&outputs).as_deref(), Some("revoked"));
    // A second time changes nothing.
    let since = world.shown().revoked_at;
    world.order(ApiCall::RevokeNode(name())).0.unwrap();
    assert_eq!(world.shown().revoked_at, since);

    let token = world.token(Some(1), Some("e1"), false);
    assert_eq!(world.join(token, SECRET, "e1", 2).unwrap(), edge.node);
    assert_eq!(world.shown().revoked_at, None);
    let (_, outputs) = world.open(&edge);
    assert_eq!(reject(&outputs).as_deref(), Some("revoked"), "the old key");
    let mut back = Edge {
        certificate_ends: UnixMs(i64::MAX),
        ..Edge::new(edge.node, 2)
    };
    let (conn, outputs) = world.begin(&mut back);
    assert_eq!(
        world.apply(&mut back, conn, &outputs).len(),
        1,
        "its work is kept for it"
    );
}

#[test]
fn case_66_a_token_that_may_lie_on_the_machine_lets_no_revoked_node_back_in() {
    let mut world = World::new();
    world.edge("e1", 1);
    world.order(ApiCall::RevokeNode(name())).0.unwrap();
    let any = world.token(None, None, true);
    let refused = world.join(any, SECRET, "e1", 2).unwrap_err();
    assert!(refused.message.contains("--node e1"), "{refused:?}");
    assert!(world.shown().revoked_at.is_some());
    let named = world.token(Some(1), Some("e1"), false);
    world.join(named, SECRET, "e1", 2).unwrap();
    assert_eq!(world.shown().revoked_at, None);
}

#[test]
fn a_component_goes_only_to_a_node_that_was_let_in() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    let digest = Digest::of(b"a component");
    let request = DeployRequest {
        pipeline: "name = \"a\"\n[input.generate]\ntemplate = \"x\"\n[[stage]]\nname = \"s\"\nplugin = \"s.wasm\"\n\
            [output.discard]\n"
            .to_owned(),
        plugins: BTreeMap::from([("s".parse().unwrap(), digest)]),
        dry_run: false,
    };
    let facts = ComponentFacts {
        size: 1,
        world: sluice_model::World::Transform,
    };
    let deploy = ApiCall::Deploy(request, BTreeMap::from([(digest, facts)]));
    world.call(deploy).unwrap();
    let may = |world: &mut World, conn| {
        let asked = world.ask(|request| Input::Pull {
            request,
            conn,
            digest,
        });
        matches!(asked, Ok(Reply::Pull(true)))
    };
    let (live, _) = world.begin(&mut edge);
    assert!(may(&mut world, live));
    // One that has a certificate and says nothing.
    let silent = ConnId(1_000);
    let peer = Peer {
        node: edge.node,
        key: edge.key,
        expires_at: edge.certificate_ends,
        address: "127.0.0.1:1".to_owned(),
    };
    world.handle(Input::Opened { conn: silent, peer });
    assert!(!may(&mut world, silent));
    world.order(ApiCall::RevokeNode(name())).0.unwrap();
    assert!(!may(&mut world, live), "it is revoked");
    let (refused, _) = world.open(&edge);
    assert!(!may(&mut world, refused));
}

#[test]
fn case_72_an_older_store_stops_no_node_that_joined_again_since() {
    for revoked in [false, true] {
        let mut world = World::new();
        let node = world.edge("e1", 1).node;
        let certificate = |world: &mut World| {
            let expires_at = world.now.unix.plus(90 * DAY);
            world.certify(node, expires_at).unwrap();
            expires_at
        };
        certificate(&mut world);
        if revoked {
            world.order(ApiCall::RevokeNode(name())).0.unwrap();
        }
        let backup = world.core.store_mut().fork().unwrap();
        world.pass(DAY);
        let token = world.token(Some(1), Some("e1"), false);
        world.join(token, SECRET, "e1", 2).unwrap();
        let mut edge = Edge::new(node, 2);
        edge.certificate_ends = certificate(&mut world);
        world.begin(&mut edge);

        let mut world = world.restart(backup);
        let (_, outputs) = world.open_unrecorded(&edge);
        assert_eq!(reject(&outputs).as_deref(), Some("store-outdated"));
        // One that is no newer than the store is refused for good.
        let mut old = Edge::new(node, 3);
        old.certificate_ends = world.now.unix.plus(DAY);
        let (_, outputs) = world.open_unrecorded(&old);
        assert_eq!(reject(&outputs).as_deref(), Some("revoked"));
    }
}

#[test]
fn case_43_a_certificate_that_is_not_on_record_does_not_leave_and_a_revoke_reaches_its_node() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    let node = edge.node;
    edge.certificate_ends = world.now.unix.plus(90 * DAY);
    let (conn, _) = world.begin(&mut edge);
    let renew = || edge_message::Kind::Renew(Renew { csr: vec![1] });
    let newer = edge.certificate_ends.plus(DAY);
    fill(&mut world);
    assert_eq!(renewals(&world.say(conn, renew())), 1);
    let refused = world.certify(node, newer).unwrap_err();
    assert_eq!(refused.code, ErrorCode::DiskFull);
    let outputs = world.pass(Duration::from_secs(1));
    assert_eq!(closed(&outputs, conn), None, "its session stays");
    make_room(&mut world);
    world.pass(Duration::from_secs(1));
    // It asks again, and now it gets it.
    assert_eq!(renewals(&world.say(conn, renew())), 1);
    assert!(world.certify(node, newer).is_ok());
    edge.certificate_ends = newer;
    world.order(ApiCall::RevokeNode(name())).0.unwrap();
    let (_, outputs) = world.open_unrecorded(&edge);
    assert_eq!(reject(&outputs).as_deref(), Some("revoked"));
}

#[test]
fn case_72_a_certificate_that_an_older_store_does_not_know_is_known_once_its_node_is_let_in() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    edge.certificate_ends = world.now.unix.plus(DAY);
    world.begin(&mut edge);
    // Renewed after the copy was made from which this store was restored.
    edge.certificate_ends = world.now.unix.plus(90 * DAY);
    let opened = world.open_unrecorded(&edge);
    world.begin_on(&mut edge, opened);
    world.order(ApiCall::RevokeNode(name())).0.unwrap();
    let (_, outputs) = world.open_unrecorded(&edge);
    assert_eq!(reject(&outputs).as_deref(), Some("revoked"));
}

#[test]
fn case_10_nodes_that_are_revoked_or_deleted_take_nothing_from_the_rest() {
    let mut world = World::new();
    world.deploy(PIPELINE);
    let conns = [("e1", 1), ("e2", 2), ("e3", 3)].map(|(name, key)| {
        let mut edge = world.edge(name, key);
        let (conn, outputs) = world.begin(&mut edge);
        let row = world.apply(&mut edge, conn, &outputs).remove(0);
        world.report(
            conn,
            &edge,
            0,
            &observed(&row, ObservedPhase::Running),
            false,
        );
        conn
    });
    let (reply, outputs) = world.order(ApiCall::RevokeNode(name()));
    assert!(reply.is_ok() && rows(&outputs).is_empty(), "{outputs:?}");
    world.handle(Input::Closed { conn: conns[1] });
    let (reply, outputs) = world.order(ApiCall::DeleteNode("e2".parse().unwrap()));
    assert!(reply.is_ok() && rows(&outputs).is_empty(), "{outputs:?}");
    let outputs = world.pass(Duration::from_secs(1));
    assert!(rows(&outputs).is_empty(), "{outputs:?}");
    assert_eq!(closed(&outputs, conns[2]), None);
    let executions = world.executions();
    assert!(executions.iter().all(|it| it.node.as_str() != "e2"));
    let rest = executions.iter().find(|it| it.node.as_str() == "e3");
    let rest = rest.unwrap();
    assert_eq!(rest.state, ExecutionState::Running);
    assert_eq!((rest.attempt, rest.restarts), (Attempt(1), 0));
}

#[test]
fn case_66_what_can_run_elsewhere_does_not_wait_for_a_revoked_node() {
    let mut world = World::new();
    let mut first = world.edge("e1", 1);
    world.begin(&mut first);
    let replicas = format!("kind = \"replicas\"\ncount = 1\n{PIPELINE}");
    world.deploy(&replicas);
    let mut second = world.edge("e2", 2);
    world.begin(&mut second);
    let on = |world: &mut World, node: &str| {
        let executions = world.executions();
        executions.iter().any(|it| it.node.as_str() == node)
    };
    assert!(on(&mut world, "e1") && !on(&mut world, "e2"));
    world.order(ApiCall::RevokeNode(name())).0.unwrap();
    assert!(on(&mut world, "e2"));
}

#[test]
fn case_71_a_deleted_node_is_told_so_for_as_long_as_its_certificate_could_be_renewed() {
    let mut world = World::new();
    world.deploy(PIPELINE);
    let mut edge = world.edge("e1", 1);
    let node = edge.node;
    edge.certificate_ends = world.now.unix.plus(90 * DAY);
    let expires_at = edge.certificate_ends;
    world.certify(node, expires_at).unwrap();
    let (conn, outputs) = world.begin(&mut edge);
    world.apply(&mut edge, conn, &outputs);
    let (reply, _) = world.order(ApiCall::DeleteNode(name()));
    let refusal = reply.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::Conflict);
    assert!(refusal.help.unwrap().contains("sluice node revoke e1"));

    world.handle(Input::Closed { conn });
    let (opening, _) = world.open(&edge);
    let (reply, outputs) = world.order(ApiCall::DeleteNode(name()));
    assert!(reply.is_ok());
    assert_eq!(closed(&outputs, opening), Some(CloseWhy::Refused));
    assert_eq!(reject(&outputs).as_deref(), Some("deleted"));
    assert!(world.executions().is_empty());
    assert!(world.call(ApiCall::Node(name())).is_err());
    assert_eq!(
        world.order(ApiCall::DeleteNode(name())).0.unwrap_err().code,
        ErrorCode::NotFound
    );

    // It is not taken for a node that a lost store forgot; another one may have its name.
    let store = world.core.store_mut().fork().unwrap();
    let mut world = world.restart(store);
    let mut other = world.edge("e1", 2);
    assert_ne!(other.node, node);
    world.begin(&mut other);
    for days in [1, 100, 350] {
        world.pass(days * DAY);
        let (_, outputs) = world.open(&edge);
        assert_eq!(reject(&outputs).as_deref(), Some("deleted"), "{days}");
    }
    world.pass(10 * DAY);
    let (_, outputs) = world.open(&edge);
    assert_eq!(reject(&outputs).as_deref(), Some("expired"));
    assert_eq!(world.core.store_mut().deleted_node(node).unwrap(), None);
}

#[test]
fn a_job_that_is_being_deleted_goes_with_the_last_node_that_had_it() {
    let mut world = World::new();
    world.deploy(PIPELINE);
    let mut edge = world.edge("e1", 1);
    let (conn, _) = world.begin(&mut edge);
    world.handle(Input::Closed { conn });
    world
        .call(ApiCall::DeleteJob("a".parse().unwrap()))
        .unwrap();
    assert_eq!(world.core.store_mut().jobs(true).unwrap().len(), 1);
    world.order(ApiCall::DeleteNode(name())).0.unwrap();
    assert!(world.core.store_mut().jobs(true).unwrap().is_empty());
    assert!(world.core.store_mut().specs_in_use().unwrap().is_empty());
}

#[test]
fn case_68_of_two_copies_one_is_fenced_and_the_operator_sees_it() {
    let mut world = World::new();
    let mut first = world.edge("e1", 1);
    let (conn, _) = world.begin(&mut first);
    assert_eq!(world.shown().alarm, None);
    // The copy starts later, so that its boot counter is higher: it is the one that counts from now on.
    let mut copy = Edge {
        boot: (2, [7; 16]),
        ..first.clone()
    };
    let (newer, outputs) = world.begin(&mut copy);
    assert_eq!(closed(&outputs, conn), Some(CloseWhy::Superseded));
    // One call may have been under way for long, of a process that is dead by now.
    for _ in 0..4 {
        assert_eq!(world.shown().alarm, None);
        let (_, outputs) = world.open(&first);
        assert_eq!(reject(&outputs).as_deref(), Some("duplicate-identity"));
        world.pass(Duration::from_secs(1));
        world.say(newer, heartbeat(&copy, Position::default()));
    }
    // A process that has died would have been found dead by now.
    let (_, outputs) = world.open(&first);
    assert_eq!(reject(&outputs).as_deref(), Some("duplicate-identity"));
    let alarm = world.shown().alarm.unwrap();
    assert!(alarm.contains("second machine at 127.0.0.1:1"), "{alarm}");
    let Reply::Status(status) = world.call(ApiCall::Status).unwrap() else {
        panic!()
    };
    assert_eq!(status.nodes[0].alarm, Some(alarm));
    // It ends when the other one has stopped calling.
    world.pass(Duration::from_secs(121));
    assert_eq!(world.shown().alarm, None);
}

#[test]
fn the_delayed_words_of_dead_processes_raise_no_alarm() {
    let mut world = World::new();
    let mut first = world.edge("e1", 1);
    world.begin(&mut first);
    let mut second = Edge {
        boot: (2, [7; 16]),
        ..first.clone()
    };
    world.begin(&mut second);
    let never_heard_of = Edge {
        boot: (1, [9; 16]),
        ..first.clone()
    };
    // Two of one process: it raced itself.
    for old in [&first, &first, &never_heard_of] {
        let (_, outputs) = world.open(old);
        assert_eq!(reject(&outputs).as_deref(), Some("duplicate-identity"));
    }
    assert_eq!(world.shown().alarm, None);
    // A copy that counted the same start is one beyond doubt.
    let copy = Edge {
        boot: (2, [9; 16]),
        ..second
    };
    world.open(&copy);
    assert!(world.shown().alarm.is_some());
}

#[test]
fn a_node_was_last_seen_when_it_was_last_heard_of() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    let (conn, _) = world.begin(&mut edge);
    world.pass(Duration::from_secs(1));
    world.say(conn, heartbeat(&edge, Position::default()));
    let heard = world.now.unix;
    world.pass(Duration::from_secs(1));
    assert_eq!(world.shown().last_seen_at, Some(heard));
    // Not when it was missed, and not when it was shut out.
    for _ in 0..3 {
        world.pass(Duration::from_secs(1));
    }
    let shown = world.shown();
    assert_eq!(shown.state, NodeState::Disconnected);
    assert_eq!(shown.last_seen_at, Some(heard));
    world.begin(&mut edge);
    let heard = world.now.unix;
    world.pass(Duration::from_secs(1));
    world.order(ApiCall::RevokeNode(name())).0.unwrap();
    assert_eq!(world.shown().last_seen_at, Some(heard));
}

#[test]
fn tokens_are_listed_without_their_secret_and_can_be_made_worthless() {
    let mut world = World::new();
    let tokens = |world: &mut World| match world.call(ApiCall::Tokens(Default::default())).unwrap()
    {
        Reply::Tokens(sluice_api::Page { items: tokens, .. }) => tokens,
        other => panic!("{other:?}"),
    };
    let once = world.token(Some(1), Some("e1"), false);
    let many = world.token(None, None, true);
    let mut listed: Vec<_> = tokens(&mut world)
        .into_iter()
        .map(|it| (it.id, it.node, it.rejoin, it.uses_left))
        .collect();
    listed.sort_by_key(|it| it.2);
    assert_eq!(
        listed,
        [
            (once, Some(name()), false, Some(1)),
            (many, None, true, None)
        ]
    );
    let node = world.join(many, SECRET, "e2", 1).unwrap();
    world.call(ApiCall::RevokeToken(many)).unwrap();
    assert!(world.join(many, SECRET, "e3", 2).is_err());
    assert_eq!(
        world.call(ApiCall::RevokeToken(many)).unwrap_err().code,
        ErrorCode::NotFound
    );
    let (_, outputs) = world.open(&Edge::new(node, 1));
    assert!(welcome(&outputs).is_some(), "who joined with it stays");
    // Expired ones are not shown, swept or not.
    world.now.unix = world.now.unix.plus(Duration::from_secs(3601));
    assert!(tokens(&mut world).is_empty());
}

#[test]
fn case_52_a_clock_that_is_ahead_for_one_look_forgets_no_token() {
    let mut world = World::new();
    let token = world.token(Some(1), None, false);
    let api = ApiTokenRecord {
        id: TokenId::from_random([8; 16]),
        hash: [8; 32],
        role: sluice_model::Role::Deployer,
        name: None,
        expires_at: world.now.unix.plus(DAY),
        created_at: world.now.unix,
        created_by: None,
    };
    world.call(ApiCall::CreateApiToken(api)).unwrap();
    let opens = |world: &mut World| match world.call(ApiCall::Authenticate([8; 32])) {
        Ok(Reply::Caller(caller)) => caller.is_some(),
        other => panic!("{other:?}"),
    };
    let kept = |world: &mut World| {
        let store = world.core.store_mut();
        store.tokens().unwrap().len() + store.api_tokens().unwrap().len()
    };
    let real = world.now.unix;
    world.now.unix = real.plus(DAY * 60);
    world.pass(Duration::from_secs(31));
    assert!(!opens(&mut world), "by that clock it has expired");
    world.join(token, SECRET, "e1", 1).unwrap_err();
    world.now.unix = real;
    world.pass(Duration::from_secs(31));
    assert!(opens(&mut world));
    world.join(token, SECRET, "e1", 1).unwrap();
    // A day after it has expired it is forgotten.
    world.pass(DAY);
    assert!(!opens(&mut world));
    assert_eq!(kept(&mut world), 2);
    world.pass(DAY + Duration::from_secs(31));
    assert_eq!(kept(&mut world), 0);
}

#[test]
fn a_token_that_ended_is_remembered_and_opens_nothing() {
    use sluice_api::TokenFilter;
    use sluice_model::{Role, TokenKind, TokenState};

    let mut world = World::new();
    let list = |world: &mut World, filter: TokenFilter| {
        let reply = world.call(ApiCall::Tokens(filter)).unwrap();
        let Reply::Tokens(page) = reply else {
            panic!("{reply:?}");
        };
        let shown = page.items.iter();
        shown.map(|it| (it.id, it.state)).collect::<Vec<_>>()
    };
    let of = |state| TokenFilter {
        state: Some(state),
        ..TokenFilter::default()
    };
    let revoked = world.token(Some(1), None, false);
    let used_up = world.token(Some(1), None, false);
    world.join(used_up, SECRET, "e1", 1).unwrap();
    let api = TokenId::from_random([9; 16]);
    let record = crate::store::ApiTokenRecord {
        id: api,
        hash: [9; 32],
        role: Role::Deployer,
        name: Some("ci".to_owned()),
        expires_at: world.now.unix.plus(Duration::from_secs(1800)),
        created_at: world.now.unix,
        created_by: Some("operator.toml".to_owned()),
    };
    world.call(ApiCall::CreateApiToken(record)).unwrap();
    let revoked_at = world.now.unix;
    world.call(ApiCall::RevokeToken(revoked)).unwrap();
    assert!(world.join(revoked, SECRET, "e2", 2).is_err());

    let open = list(&mut world, TokenFilter::default());
    assert_eq!(
        open,
        [(api, TokenState::Valid), (used_up, TokenState::UsedUp)]
    );
    let by_role = TokenFilter {
        role: Some(Role::Deployer),
        ..TokenFilter::default()
    };
    assert_eq!(list(&mut world, by_role), [(api, TokenState::Valid)]);
    let by_kind = TokenFilter {
        kind: Some(TokenKind::Join),
        all: true,
        ..TokenFilter::default()
    };
    assert_eq!(list(&mut world, by_kind).len(), 2);
    let ended = [(revoked, TokenState::Revoked)];
    assert_eq!(list(&mut world, of(TokenState::Revoked)), ended);

    // It expires at once, and is swept a while later: both look the same.
    world.now.unix = world.now.unix.plus(Duration::from_secs(1800));
    for _ in 0..2 {
        let of_the_api = TokenFilter {
            kind: Some(TokenKind::Api),
            ..of(TokenState::Expired)
        };
        let expired = [(api, TokenState::Expired)];
        assert_eq!(list(&mut world, of_the_api), expired);
        let described = world.call(ApiCall::Token(api)).unwrap();
        let Reply::Token(token) = described else {
            panic!("{described:?}");
        };
        assert_eq!(token.ended_at, Some(token.expires_at));
        assert_eq!(token.created_by.as_deref(), Some("operator.toml"));
        assert_eq!(
            (token.kind, token.role),
            (TokenKind::Api, Some(Role::Deployer))
        );
        assert!(matches!(
            world.call(ApiCall::Authenticate([9; 32])),
            Ok(Reply::Caller(None))
        ));
        world.pass(DAY + Duration::from_secs(60));
    }
    assert!(
        world.core.store_mut().api_tokens().unwrap().is_empty(),
        "swept"
    );
    let Ok(Reply::Token(token)) = world.call(ApiCall::Token(revoked)) else {
        panic!("it is remembered");
    };
    assert_eq!(token.ended_at, Some(revoked_at));
    assert_eq!(
        world.call(ApiCall::RevokeToken(api)).unwrap_err().code,
        ErrorCode::NotFound
    );
    let unknown = TokenId::from_random([3; 16]);
    let error = world.call(ApiCall::Token(unknown)).unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
}

#[test]
fn case_52_a_clock_that_jumps_disconnects_nobody() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    edge.certificate_ends = world.now.unix.plus(DAY);
    let (conn, _) = world.begin(&mut edge);
    for jump_ms in [3_600_000, -7_200_000, 3_153_600_000_000, -3_153_600_000_000] {
        world.now.unix = UnixMs(world.now.unix.0 + jump_ms);
        let outputs = world.handle(Input::Tick);
        assert!(outputs.is_empty(), "{outputs:?}");
        let heartbeat = Heartbeat {
            epoch: edge.life.0,
            desired: edge.desired.into(),
            observed: Position::default().into(),
            ..Heartbeat::default()
        };
        let answers = world.say(conn, edge_message::Kind::Heartbeat(heartbeat));
        assert_eq!(messages(&answers).len(), 1);
    }
    assert_eq!(world.shown().state, NodeState::Connected);
}
