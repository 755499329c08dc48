//! Programs of other ages, and orders that come faster than an edge can follow.

use super::*;

#[test]
fn case_76_a_newer_edge_is_served_in_the_dialect_that_both_know() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    world.deploy(PIPELINE);
    let say_hello = |world: &mut World, edge: &Edge, versions: Vec<u32>| {
        world.conns += 1;
        let conn = ConnId(world.conns);
        let peer = Peer {
            node: edge.node,
            key: edge.key,
            expires_at: edge.certificate_ends,
            address: "127.0.0.1:1".to_owned(),
        };
        world.handle(Input::Opened { conn, peer });
        let hello = Hello {
            versions,
            ..edge.hello()
        };
        (conn, world.say(conn, edge_message::Kind::Hello(hello)))
    };
    // Without one in common it is told what to do.
    let (_, outputs) = say_hello(&mut world, &edge, vec![3, 2]);
    assert_eq!(reject(&outputs).as_deref(), Some("version"));
    let (conn, outputs) = say_hello(&mut world, &edge, vec![3, 2, 1]);
    let welcome = welcome(&outputs).expect("a welcome");
    assert_eq!(welcome.version, 1);
    edge.life = (welcome.epoch, welcome.life);
    let begin = Begin {
        session: welcome.session,
        incarnation: edge.incarnation.to_vec(),
    };
    let outputs = world.say(conn, edge_message::Kind::Begin(begin));
    assert_eq!(world.apply(&mut edge, conn, &outputs).len(), 1);
}

#[test]
fn case_97_however_fast_a_job_changes_one_change_is_on_its_way_and_the_next_carries_the_newest() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    let (conn, _) = world.begin(&mut edge);
    let mut sent = Vec::new();
    for change in 0..200 {
        world.requests += 1;
        let request = RequestId(world.requests);
        let call = Box::new(deploy_call(&pipeline("a", &format!("t{change}"))));
        sent.extend(world.handle(Input::Api { request, call }));
    }
    assert_eq!(rows(&sent).len(), 1, "until it is acknowledged");
    let first = rows(&sent).remove(0);
    edge.desired = first.to.to_position().unwrap();
    let received = Received {
        epoch: edge.life.0,
        rev: first.to.rev,
    };
    let outputs = world.say(conn, edge_message::Kind::Received(received));
    let more = rows(&outputs);
    let [next] = more.as_slice() else {
        panic!("one more: {more:?}")
    };
    assert_eq!((next.upserts.len(), next.specs.len()), (1, 1));
    let row = AssignmentRow::decode(&next.upserts[0].body).unwrap();
    assert_eq!(row.version, Version(200));
    world.apply(&mut edge, conn, &outputs);
    assert!(rows(&world.pass(Duration::from_secs(1))).is_empty());
}

#[test]
fn case_77_a_store_of_a_newer_program_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sluice.db");
    drop(SqliteStore::open(&path).unwrap());
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 2).unwrap();
    drop(newer);
    let before = std::fs::read(&path).unwrap();
    let error = SqliteStore::open(&path).expect_err("it is refused");
    let text = error.to_string();
    assert!(
        text.contains("format 2") && text.contains("newer program"),
        "{text}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
