//! What a node may report on.

use super::*;

#[test]
fn a_node_reports_on_what_it_was_given_and_not_on_the_world() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    let (conn, _) = world.begin(&mut edge);
    let mut others = 0_u128;
    let mut rows = |count: usize, edge: &Edge| {
        let mut digest = SetDigest::EMPTY;
        let body = b"said in new words".to_vec();
        let upserts = (0..count).map(|_| {
            others += 1;
            digest = digest.with(RowHash::of(&body));
            let key = others.to_be_bytes().to_vec();
            let body = body.clone();
            Row { key, body }
        });
        let upserts = upserts.collect();
        let to = Position {
            rev: Revision(1),
            digest,
        };
        edge_message::Kind::Rows(Rows {
            epoch: edge.life.0,
            to: to.into(),
            authoritative: true,
            last: true,
            upserts,
            ..Rows::default()
        })
    };
    let (many, some) = (rows(10_001, &edge), rows(10_000, &edge));
    let outputs = world.say(conn, many);
    assert_eq!(closed(&outputs, conn), Some(CloseWhy::Refused));
    assert_eq!(reject(&outputs).as_deref(), Some("busy"), "come back later");
    assert!(matches!(
        messages(&outputs).as_slice(),
        [orchestrator_message::Kind::Reject(reject)]
            if reject.message.contains("10001 executions; it has 0 assignments")
    ));
    // Nothing of it was kept, and what is within the bound is taken.
    let (conn, _) = world.begin(&mut edge);
    let outputs = world.say(conn, some);
    assert_eq!(closed(&outputs, conn), None);
    let acked = |kind: &orchestrator_message::Kind| matches!(kind, orchestrator_message::Kind::Received(received) if received.rev == 1);
    assert!(messages(&outputs).iter().any(acked));
}
