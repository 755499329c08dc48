//! Hello, Welcome, heartbeats, and orchestrators that say no.

use std::time::Duration;

use bytes::Bytes;
use sluice_agent::Ending;
use sluice_model::{Desired, Epoch, ObservedPhase, Revision, UnixMs};
use sluice_protocol::{HeartbeatAck, Reject, orchestrator_message::Kind};

use super::super::*;
use super::rig::{HEARTBEAT_MS, Rig, life, message};

#[test]
fn the_orchestrators_life_is_on_disk_before_begin() {
    let mut rig = Rig::new();
    rig.connect();
    assert!(rig.fake.begun);
    assert_eq!(rig.fake.hellos[0].epoch, 0);
    rig.crash();
    rig.connect();
    let hello = &rig.fake.hellos[1];
    assert_eq!(
        (hello.epoch, hello.life.as_slice()),
        (1, &life(1).to_bytes()[..])
    );
    assert_eq!(hello.boot_counter, 2);
    assert_ne!(hello.boot_nonce, rig.fake.hellos[0].boot_nonce);
    assert_eq!(hello.incarnation, rig.fake.hellos[0].incarnation);
    assert_eq!(rig.core().meta().server_time, UnixMs(1234));
}

#[test]
fn three_heartbeats_without_an_answer_end_the_session() {
    let mut rig = Rig::new();
    rig.connect();
    rig.pass(Duration::from_millis(HEARTBEAT_MS * 10));
    assert!(rig.is_connected());
    rig.fake.mute = true;
    rig.pass(Duration::from_millis(HEARTBEAT_MS * 3 + 1));
    assert!(rig.is_connected());
    rig.pass(Duration::from_millis(HEARTBEAT_MS));
    assert!(!rig.is_connected());
    assert_eq!(rig.closes[0].code, "silent");
}

#[test]
fn whatever_comes_answers_the_heartbeats() {
    let mut rig = Rig::new();
    rig.connect();
    rig.fake.mute = true;
    for _ in 0..5 {
        rig.pass(Duration::from_millis(HEARTBEAT_MS * 2));
        rig.push(&message(Kind::HeartbeatAck(HeartbeatAck::default())));
    }
    assert!(rig.is_connected());
    rig.pass(Duration::from_millis(HEARTBEAT_MS * 4 + 1));
    assert!(!rig.is_connected());
}

#[test]
fn a_welcome_with_counters_beyond_all_bounds_ends_the_session() {
    for acked in [u64::MAX, i64::MAX.cast_unsigned()] {
        let mut rig = Rig::new();
        rig.connect();
        rig.disconnect();
        rig.fake.observed_rev = acked;
        rig.connect();
        assert!(!rig.is_connected());
        assert_eq!(rig.closes[0].code, "protocol");
    }
    let mut rig = Rig::new();
    rig.fake.epoch = u64::MAX;
    rig.connect();
    assert!(!rig.is_connected());
    assert_eq!(rig.core().meta().life, None);
}

#[test]
fn a_store_of_another_node_is_refused() {
    let mut rig = Rig::new();
    rig.crash();
    let store = rig.core.take().unwrap().into_store();
    let options = CoreOptions {
        boot_nonce: [7; 16],
        seed: [7; 32],
        program: "test".to_owned(),
        labels: Labels::new(),
        capabilities: Vec::new(),
        node: Some((NodeId::from_random([8; 16]), "e1".parse().unwrap())),
    };
    let error = EdgeCore::open(store, options, rig.now).unwrap_err();
    assert!(error.to_string().contains("another --state-dir"), "{error}");
}

#[test]
fn a_hello_without_an_answer_ends_after_ten_seconds() {
    let mut rig = Rig::new();
    rig.fake.mute = true;
    rig.connect();
    rig.pass(Duration::from_secs(9));
    assert!(rig.is_connected());
    rig.pass(Duration::from_secs(2));
    assert!(!rig.is_connected());
}

#[test]
fn observed_rows_that_are_never_acknowledged_end_the_session() {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, "a");
    rig.deliver = false;
    rig.sync();
    assert!(rig.runs(1, "a"));
    rig.pass(Duration::from_secs(11));
    assert!(!rig.is_connected());
    assert_eq!(rig.closes[0].code, "silent");
    rig.deliver = true;
    rig.connect();
    assert_eq!(rig.seen(1).phase, ObservedPhase::Running);
    rig.assert_in_sync();
}

#[test]
fn case_66_case_71_a_revoked_node_stops_its_work_and_keeps_its_data() {
    for code in ["revoked", "deleted"] {
        let mut rig = Rig::new();
        rig.connect();
        rig.order(1, 1, 1, Desired::Run, "a");
        rig.sync();
        rig.disconnect();
        rig.fake.reject = Some(Reject {
            code: code.to_owned(),
            message: "join again with a new token".to_owned(),
            retry_after_ms: 1,
        });
        rig.connect();
        assert!(rig.machine.running.is_empty() && rig.machine.purges.is_empty());
        assert_eq!(rig.closes[0].redial, Redial::Seldom);
        assert!(rig.closes[0].message.contains("join again"));
        rig.crash();
        assert!(rig.machine.running.is_empty(), "also after a restart");
        rig.fake.reject = None;
        rig.connect();
        assert!(rig.runs(1, "a"), "and comes back when it is let in");
        rig.assert_in_sync();
    }
}

#[test]
fn case_67_an_expired_certificate_is_renewed_first_and_the_work_never_stops() {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, "a");
    rig.sync();
    rig.disconnect();
    rig.fake.renew_only = true;
    let (hellos, beats) = (rig.fake.hellos.len(), rig.fake.heartbeats);
    rig.connect();
    assert_eq!(rig.certificates, [vec![7]], "renewed with its own request");
    assert_eq!(
        (rig.closes[0].code, rig.closes[0].redial),
        ("renewed", Redial::Soon)
    );
    assert!(!rig.fake.begun && !rig.is_connected());
    assert_eq!(
        (rig.fake.hellos.len(), rig.fake.heartbeats),
        (hellos + 1, beats)
    );
    assert!(rig.runs(1, "a") && rig.machine.starts.len() == 1);
    rig.connect();
    assert!(rig.is_connected() && rig.runs(1, "a"));
    assert_eq!(rig.machine.starts.len(), 1, "in the same instance");
    rig.assert_in_sync();
}

#[test]
fn a_renewal_that_nobody_answers_ends_the_session() {
    let mut rig = Rig::new();
    rig.fake.renew_only = true;
    rig.fake.mute_renewals = true;
    rig.connect();
    assert!(rig.closes.is_empty());
    rig.pass(Duration::from_secs(11));
    assert_eq!(
        (rig.closes[0].code, rig.closes[0].redial),
        ("silent", Redial::Soon)
    );
}

#[test]
fn other_rejects_stop_nothing() {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, "a");
    rig.sync();
    rig.disconnect();
    rig.fake.reject = Some(Reject {
        code: "busy".to_owned(),
        message: "later".to_owned(),
        retry_after_ms: 700,
    });
    rig.connect();
    assert!(rig.runs(1, "a"));
    assert_eq!(rig.closes[0].redial, Redial::AfterMs(700));
}

#[test]
fn a_held_node_sends_heartbeats_only_and_keeps_the_life_it_knew() {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, "a");
    rig.sync();
    rig.disconnect();
    rig.end(1, Ending::Completed);
    let (known, received) = (rig.core().meta().life, rig.fake.rows_received);
    rig.fake.held = true;
    rig.fake.epoch = 5;
    rig.fake.life = life(5).to_bytes();
    rig.connect();
    rig.pass(Duration::from_secs(60));
    assert!(rig.is_connected() && rig.fake.heartbeats > 5);
    assert_eq!(rig.fake.rows_received, received);
    assert_eq!(rig.core().meta().life, known);
    rig.disconnect();
    rig.fake.held = false;
    rig.connect();
    assert_eq!(rig.core().meta().life, Some((Epoch(5), life(5))));
    assert_eq!(rig.fake.outcomes.len(), 1);
}

#[test]
fn an_older_orchestrator_life_is_not_followed() {
    let mut rig = Rig::new();
    rig.fake.epoch = 4;
    rig.connect();
    rig.disconnect();
    rig.fake.epoch = 3;
    rig.connect();
    assert!(!rig.is_connected());
    assert_eq!(rig.closes[0].code, "protocol");
    assert_eq!(rig.core().meta().life.unwrap().0, Epoch(4));
}

#[test]
fn case_68_a_new_incarnation_tells_everything_anew() {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, "a");
    rig.sync();
    for _ in 0..5 {
        rig.end(1, Ending::Backoff("not there".to_owned()));
        rig.pass(Duration::from_secs(40));
    }
    let (before, rev) = (
        rig.core().meta().incarnation,
        rig.core().meta().observed_rev,
    );
    rig.disconnect();
    rig.fake.new_incarnation = true;
    rig.connect();
    rig.fake.new_incarnation = false;
    assert_ne!(rig.core().meta().incarnation, before);
    assert!(rig.core().meta().observed_rev < rev);
    assert_eq!(rig.seen(1).phase, ObservedPhase::Running);
    assert!(rig.runs(1, "a"));
    rig.assert_in_sync();
    rig.crash();
    rig.connect();
    rig.assert_in_sync();
}

#[test]
fn a_store_older_than_what_it_told_tells_everything_above_that() {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, "a");
    rig.sync();
    rig.disconnect();
    rig.fake.observed_rev = 1000;
    rig.connect();
    assert!(rig.core().meta().observed_rev > Revision(1000));
    rig.assert_in_sync();
}

#[test]
fn a_newer_connection_replaces_an_older_and_nonsense_ends_a_session() {
    let mut rig = Rig::new();
    rig.connect();
    rig.connect();
    assert_eq!(rig.closes[0].code, "superseded");
    assert!(rig.fake.begun);
    let connection = rig.core().session().unwrap();
    let frame = Bytes::from_static(b"\xff\xff\xff");
    rig.input(Input::Frame { connection, frame });
    assert_eq!(rig.closes[1].code, "protocol");
    assert!(!rig.is_connected());
}

#[test]
fn heartbeats_carry_only_the_counters_that_moved() {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, "a");
    rig.order(2, 1, 1, Desired::Run, "b");
    rig.sync();
    let count = |core: &mut EdgeCore, now: &mut sluice_agent::Now, in_1: u64| {
        let counted = |n: u8, records_in| {
            (
                super::rig::id(n),
                Counters {
                    records_in,
                    ..Counters::default()
                },
            )
        };
        *now = now.plus(Duration::from_millis(HEARTBEAT_MS));
        let inputs = vec![
            Input::Counters(vec![counted(1, in_1), counted(2, 5)]),
            Input::Tick,
        ];
        let outputs = core.handle(inputs, *now).unwrap();
        let sent = outputs.into_iter().find_map(|output| match output {
            Output::SendFrame { frame, .. } => {
                let sent: sluice_protocol::EdgeMessage = sluice_protocol::decode(&frame).unwrap();
                match sent.kind {
                    Some(sluice_protocol::edge_message::Kind::Heartbeat(it)) => Some(it.counters),
                    _ => None,
                }
            }
            _ => None,
        });
        sent.unwrap()
            .iter()
            .map(|it| it.records_in)
            .collect::<Vec<_>>()
    };
    let mut now = rig.now;
    let mut first = count(rig.core(), &mut now, 7);
    first.sort_unstable();
    assert_eq!(first, [5, 7]);
    assert_eq!(count(rig.core(), &mut now, 8), [8]);
    assert!(count(rig.core(), &mut now, 8).is_empty());
    // Behind a row that was sent they are told anew: the orchestrator has forgotten what it heard before.
    rig.order(1, 1, 2, Desired::Run, "a");
    rig.sync();
    assert_eq!(count(rig.core(), &mut now, 8), [8]);
    assert!(count(rig.core(), &mut now, 8).is_empty());
}

#[test]
fn counters_that_find_no_room_in_a_heartbeat_have_the_first_turn_in_the_next() {
    let (mut sent, mut last) = (std::collections::BTreeMap::new(), None);
    let mut heartbeat = |records_in| {
        let now = Counters {
            records_in,
            ..Counters::default()
        };
        let counters = (1..=3).map(|n| (super::rig::id(n), now)).collect();
        let moved = crate::core::session::moved_counters(&counters, &mut sent, &mut last, 2);
        moved.into_iter().map(|(id, _)| id).collect::<Vec<_>>()
    };
    let [one, two, three] = [1, 2, 3].map(super::rig::id);
    assert_eq!(heartbeat(1), [one, two]);
    assert_eq!(heartbeat(2), [three, one]);
    assert_eq!(heartbeat(3), [two, three]);
    assert_eq!(heartbeat(3), [one]);
    assert_eq!(heartbeat(3), []);
}
