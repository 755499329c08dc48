//! Rows that come twice, late, in parts, with gaps, or wrong.

use sluice_model::Desired;
use sluice_protocol::orchestrator_message::Kind;
use sluice_protocol::{OrchestratorMessage, Rows};

use super::rig::{Rig, id, message};

fn rows_of(message: OrchestratorMessage) -> Rows {
    match message.kind {
        Some(Kind::Rows(rows)) => rows,
        other => panic!("{other:?}"),
    }
}

#[test]
fn case_58_changes_that_come_again_and_out_of_order_have_one_effect() {
    let mut rig = Rig::new();
    rig.connect();
    let mut deltas = Vec::new();
    for version in 1..=4 {
        let base = rig.fake.rev;
        rig.order(1, version, 1, Desired::Run, &format!("v{version}"));
        deltas.push(rig.fake.delta(Some(base)));
    }
    for round in 0..10 {
        for (at, _) in deltas.clone().iter().enumerate() {
            let delta = &deltas[(at * 3 + round) % deltas.len()];
            rig.push(delta);
        }
    }
    assert!(rig.runs(1, "v4"));
    rig.assert_in_sync();
    let labels: Vec<u64> = rig.machine.starts.iter().map(|it| it.1).collect();
    assert!(labels.is_sorted(), "never back: {labels:?}");
}

#[test]
fn case_59_a_change_after_a_gap_is_asked_for_from_what_is_here() {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, "a");
    rig.sync();
    rig.order(2, 1, 1, Desired::Run, "b");
    rig.order(3, 1, 1, Desired::Run, "c");
    let late = rig.fake.delta(Some(2));
    rig.push(&late);
    assert_eq!(rig.fake.resyncs, [Some(1)]);
    assert!(rig.runs(2, "b") && rig.runs(3, "c"));
    rig.assert_in_sync();
}

#[test]
fn a_change_in_parts_applies_as_a_whole_or_not_at_all() {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, "a");
    rig.order(2, 1, 1, Desired::Run, "b");
    let whole = rows_of(rig.fake.delta(Some(0)));
    let mut first = whole.clone();
    first.last = false;
    let second = Rows {
        part: 1,
        upserts: vec![first.upserts.pop().unwrap()],
        specs: Vec::new(),
        ..whole
    };
    rig.push(&message(Kind::Rows(first.clone())));
    assert_eq!(rig.fake.acked, 0);
    assert!(rig.machine.running.is_empty());
    rig.push(&message(Kind::Rows(second.clone())));
    assert!(rig.runs(1, "a") && rig.runs(2, "b"));
    rig.assert_in_sync();

    rig.order(3, 1, 1, Desired::Run, "c");
    let mut lonely = rows_of(rig.fake.delta(Some(2)));
    lonely.part = 1;
    rig.push(&message(Kind::Rows(lonely)));
    assert_eq!(rig.fake.resyncs, [Some(2)], "the part before it never came");
    rig.assert_in_sync();
}

#[test]
fn rows_with_another_digest_are_not_applied_and_a_snapshot_is_asked_for() {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, "a");
    let mut wrong = rows_of(rig.fake.delta(Some(0)));
    wrong.upserts[0].body[3] ^= 1;
    rig.push(&message(Kind::Rows(wrong)));
    assert_eq!(rig.fake.resyncs, [None]);
    assert!(rig.runs(1, "a"));
    rig.assert_in_sync();

    let mut wrong = rows_of(rig.fake.delta(None));
    wrong.to.digest[0] ^= 1;
    rig.deliver = false;
    for _ in 0..3 {
        rig.push(&message(Kind::Rows(wrong.clone())));
    }
    assert!(
        !rig.is_connected(),
        "a snapshot that is wrong again and again ends the session"
    );
    assert!(rig.runs(1, "a"));
}

#[test]
fn a_row_whose_pipeline_did_not_come_is_asked_for_again() {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, "a");
    let mut without = rows_of(rig.fake.delta(Some(0)));
    without.specs.clear();
    rig.push(&message(Kind::Rows(without)));
    assert_eq!(rig.fake.resyncs, [None]);
    assert!(rig.runs(1, "a"));
}

#[test]
fn rows_of_another_life_or_connection_are_ignored() {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, "a");
    let mut foreign = rows_of(rig.fake.delta(Some(0)));
    foreign.epoch += 1;
    rig.push(&message(Kind::Rows(foreign)));
    assert!(rig.machine.running.is_empty() && rig.fake.acked == 0);
    let frame = sluice_protocol::encode(&rig.fake.delta(Some(0)));
    let connection = super::super::ConnectionId(99);
    rig.input(super::super::Input::Frame { connection, frame });
    assert!(rig.machine.running.is_empty());
}

#[test]
fn a_snapshot_that_is_not_authoritative_stops_nothing() {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, "a");
    rig.sync();
    rig.fake.remove(id(1));
    let mut snapshot = rows_of(rig.fake.delta(None));
    snapshot.authoritative = false;
    rig.push(&message(Kind::Rows(snapshot)));
    assert!(rig.runs(1, "a"));
}
