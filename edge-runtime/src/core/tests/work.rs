//! What the edge does about its rows.

use std::time::Duration;

use sluice_agent::{Ending, PASSING_TOLD_AFTER, PrepareFailure};
use sluice_model::{Desired, FailReason, ObservedPhase, Version};

use super::rig::{Rig, component, id, spec};
use crate::store::Store;

const HOUR: Duration = Duration::from_secs(3600);

fn running(content: &str) -> Rig {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, content);
    rig.sync();
    assert!(rig.runs(1, content));
    assert_eq!(rig.seen(1).phase, ObservedPhase::Running);
    rig.assert_in_sync();
    rig
}

#[test]
fn case_03_case_15_a_reconnect_restarts_nothing_and_sends_nothing_again() {
    let mut rig = running("a");
    let received = rig.fake.rows_received;
    for _ in 0..3 {
        rig.disconnect();
        rig.connect();
        rig.pass(Duration::from_secs(60));
    }
    assert_eq!(rig.machine.starts.len(), 1);
    assert_eq!(rig.fake.rows_received, received);
    assert!(rig.is_connected() && rig.fake.heartbeats >= 30);
    rig.assert_in_sync();
}

#[test]
fn a_short_piece_of_work_is_told_of_twice() {
    let mut rig = Rig::new();
    rig.connect();
    let before = rig.core().observed_position().rev.0;
    rig.order(1, 1, 1, Desired::Run, "a");
    rig.sync();
    rig.end(1, Ending::Completed);
    // Each is a commit on both sides: that it runs, and that it has ended.
    assert_eq!(rig.core().observed_position().rev.0, before + 2);
    assert_eq!(rig.fake.outcomes.len(), 1);
    rig.order(1, 1, 1, Desired::Purge, "a");
    rig.sync();
    assert_eq!(rig.seen(1).phase, ObservedPhase::Purged);
    assert_eq!(rig.core().observed_position().rev.0, before + 3);
    rig.assert_in_sync();
}

#[test]
fn what_takes_a_while_is_told_when_it_has() {
    let mut rig = Rig::new();
    rig.machine.prepares_for_ever.insert(spec("a").digest());
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, "a");
    rig.sync();
    assert!(rig.fake.live.is_empty(), "it may be over at once");
    rig.pass(PASSING_TOLD_AFTER);
    assert_eq!(rig.seen(1).phase, ObservedPhase::Compiling);
    let told = rig.core().observed_position().rev;
    rig.pass(HOUR);
    assert_eq!(rig.core().observed_position().rev, told, "and once");
    rig.assert_in_sync();
}

#[test]
fn case_19_what_completes_while_the_link_is_down_is_reported_once_and_never_run_again() {
    let mut rig = running("a");
    rig.disconnect();
    rig.end(1, Ending::Completed);
    rig.crash();
    rig.pass(HOUR);
    assert!(rig.machine.running.is_empty());
    rig.connect();
    assert_eq!(rig.fake.outcomes.len(), 1);
    let outcome = &rig.fake.outcomes[0];
    assert_eq!(outcome.phase, ObservedPhase::Completed);
    assert_eq!(outcome.records_in, 10);
    rig.crash();
    rig.connect();
    assert_eq!(rig.fake.outcomes.len(), 1);
    assert_eq!(rig.seen(1).phase, ObservedPhase::Completed);
    assert_eq!(rig.machine.starts.len(), 1);
    rig.assert_in_sync();
    rig.order(1, 1, 2, Desired::Run, "a");
    rig.sync();
    assert!(rig.runs(1, "a"), "a new attempt starts it again");
}

#[test]
fn case_20_an_old_outcome_is_told_under_its_own_version() {
    let mut rig = running("a");
    rig.disconnect();
    rig.end(
        1,
        Ending::Failed {
            reason: FailReason::Fatal,
            message: "the stage said so".to_owned(),
        },
    );
    rig.order(1, 2, 1, Desired::Run, "b");
    rig.connect();
    assert!(rig.runs(1, "b"));
    let outcome = &rig.fake.outcomes[0];
    assert_eq!(
        (outcome.version, outcome.fail),
        (Version(1), Some(FailReason::Fatal))
    );
    assert_eq!(rig.seen(1).version, Version(2));
    assert_eq!(rig.seen(1).phase, ObservedPhase::Running);
}

#[test]
fn case_50_case_38_an_edge_without_network_boots_into_its_last_desired_set() {
    let mut rig = running("a");
    rig.crash();
    assert!(rig.runs(1, "a"));
    assert_eq!(rig.fake.hellos.len(), 1, "nobody was asked");
    rig.connect();
    assert_eq!(rig.seen(1).restarts, 1);
    rig.assert_in_sync();
}

#[test]
fn case_78_of_two_updates_while_away_only_the_last_is_fetched() {
    let mut rig = running("a");
    rig.disconnect();
    rig.order(1, 2, 1, Desired::Run, "b");
    rig.order(1, 3, 1, Desired::Run, "c");
    rig.connect();
    assert!(rig.runs(1, "c"));
    assert!(!rig.machine.fetched.contains(&component("b")));
}

#[test]
fn a_new_versions_row_has_its_own_counters_and_not_those_of_the_one_before() {
    let mut rig = running("a");
    rig.order(1, 2, 1, Desired::Run, "b");
    rig.sync();
    let row = rig.seen(1);
    assert_eq!(
        (row.version, row.phase),
        (Version(2), ObservedPhase::Running)
    );
    assert_eq!((row.records_in, row.dead_letters), (0, 0));
}

#[test]
fn case_79_back_to_the_same_content_is_no_restart() {
    let mut rig = running("a");
    rig.disconnect();
    rig.order(1, 3, 1, Desired::Run, "a");
    rig.connect();
    assert!(rig.runs(1, "a"));
    assert_eq!(rig.machine.starts.len(), 1);
    assert_eq!(
        (rig.seen(1).version, rig.seen(1).phase),
        (Version(3), ObservedPhase::Running)
    );
    rig.end(1, Ending::Completed);
    assert_eq!(rig.fake.outcomes[0].version, Version(3));
    rig.order(1, 4, 1, Desired::Run, "a");
    rig.sync();
    assert_eq!(
        rig.machine.starts.len(),
        2,
        "what has completed is run again by a new version"
    );
}

#[test]
fn another_count_selector_or_rollout_restarts_nothing() {
    let (one, three) = ("count = 1\nwork = 'a'", "count = 3 # more\nwork = 'a'");
    let mut rig = running(one);
    rig.order(1, 2, 1, Desired::Run, three);
    rig.sync();
    assert!(rig.runs(1, one), "the instance of before goes on");
    assert_eq!(rig.machine.starts.len(), 1);
    assert_eq!(
        (rig.seen(1).version, rig.seen(1).phase),
        (Version(2), ObservedPhase::Running)
    );
    assert_eq!(rig.seen(1).restarts, 0);
    rig.assert_in_sync();
    // After a crash, before and after the news of it, it comes up under what is wanted now.
    rig.disconnect();
    rig.crash();
    rig.order(1, 3, 1, Desired::Run, "select.site = 'x'\nwork = 'a'");
    rig.connect();
    assert_eq!(rig.machine.starts.len(), 2, "once after the crash");
    assert_eq!(
        (rig.seen(1).version, rig.seen(1).phase),
        (Version(3), ObservedPhase::Running)
    );
    // Other work is another start, and so is another attempt at the same.
    rig.order(1, 4, 1, Desired::Run, "count = 3\nwork = 'b'");
    rig.sync();
    assert!(rig.runs(1, "count = 3\nwork = 'b'"));
    rig.order(1, 4, 2, Desired::Run, "count = 3\nwork = 'b'");
    rig.sync();
    assert_eq!(rig.machine.starts.len(), 4);
    assert_eq!(rig.seen(1).version, Version(4));
}

#[test]
fn stop_keeps_state_and_purge_deletes_it() {
    let mut rig = running("a");
    rig.order(1, 1, 1, Desired::Stop, "a");
    rig.sync();
    assert!(rig.machine.running.is_empty() && rig.machine.purges.is_empty());
    assert_eq!(rig.seen(1).phase, ObservedPhase::Stopped);
    rig.crash();
    rig.connect();
    assert!(rig.machine.running.is_empty(), "stopped stays stopped");
    rig.order(1, 1, 2, Desired::Run, "a");
    rig.sync();
    assert!(rig.runs(1, "a"));
    rig.order(1, 1, 2, Desired::Purge, "a");
    rig.sync();
    assert_eq!(rig.machine.purges, [id(1)]);
    assert_eq!(rig.seen(1).phase, ObservedPhase::Purged);
    rig.crash();
    assert_eq!(rig.machine.purges, [id(1)], "once");
    rig.connect();
    rig.fake.remove(id(1));
    rig.sync();
    assert!(rig.fake.live.is_empty());
    rig.assert_in_sync();
    assert!(rig.core().store_mut().locals().unwrap().is_empty());
    assert!(rig.core().store_mut().spec_digests().unwrap().is_empty());
}

#[test]
fn case_80_what_was_deleted_while_away_is_purged_on_return() {
    let mut rig = running("a");
    rig.disconnect();
    rig.order(1, 1, 1, Desired::Purge, "a");
    rig.order(2, 1, 1, Desired::Run, "a");
    rig.connect();
    assert_eq!(rig.machine.purges, [id(1)]);
    assert!(rig.runs(2, "a"), "the same content under a new execution");
}

#[test]
fn case_83_case_86_a_new_version_that_cannot_start_leaves_the_old_one_running() {
    for (failure, phase) in [
        (
            PrepareFailure::Refused("an import".to_owned()),
            ObservedPhase::Refused,
        ),
        (
            PrepareFailure::Configure("a key".to_owned()),
            ObservedPhase::Failed,
        ),
        (
            PrepareFailure::Retry("a disk".to_owned()),
            ObservedPhase::Backoff,
        ),
    ] {
        let mut rig = running("a");
        rig.machine
            .prepare_fails
            .insert(spec("b").digest(), failure);
        rig.order(1, 2, 1, Desired::Run, "b");
        rig.sync();
        assert!(rig.runs(1, "a"));
        assert_eq!(rig.machine.starts.len(), 1);
        let seen = rig.seen(1);
        assert_eq!((seen.version, seen.phase), (Version(2), phase));
        assert_eq!(seen.running_version, Some(Version(1)));
        assert!(!seen.reason.is_empty());
        rig.crash();
        assert!(
            rig.runs(1, "a"),
            "the old one comes back after a restart too"
        );
        rig.machine.prepare_fails.clear();
        rig.connect();
        rig.order(1, 3, 1, Desired::Run, "c");
        rig.sync();
        assert!(rig.runs(1, "c"));
        assert_eq!(rig.seen(1).running_version, None);
        rig.assert_in_sync();
    }
}

#[test]
fn case_87_what_cannot_be_fetched_says_when_it_is_tried_again_and_the_old_version_runs_on() {
    let mut rig = running("a");
    rig.machine.unreachable.insert(component("b"));
    rig.order(1, 2, 1, Desired::Run, "b");
    rig.sync();
    let seen = rig.seen(1);
    assert_eq!(seen.phase, ObservedPhase::Fetching);
    assert!(seen.next_at.is_some_and(|at| at > rig.now.unix), "{seen:?}");
    assert_eq!(
        (seen.reason.as_str(), seen.next_action.as_str()),
        ("it cannot be had", "try again")
    );
    rig.crash();
    assert!(rig.runs(1, "a"), "and again after a power cut");
    rig.machine.unreachable.clear();
    rig.connect();
    assert!(rig.runs(1, "b"), "a connection is a reason to try at once");
}

#[test]
fn case_40_an_update_that_was_cut_in_the_middle_rolls_forward() {
    let mut rig = running("a");
    rig.order(1, 2, 1, Desired::Run, "b");
    rig.sync();
    assert!(rig.runs(1, "b"));
    rig.crash();
    assert!(rig.runs(1, "b"));
    assert_eq!(rig.machine.starts.iter().filter(|it| it.1 == 1).count(), 1);
}

#[test]
fn case_84_a_crash_loop_backs_off_and_is_quarantined_and_the_neighbour_never_notices() {
    let mut rig = running("a");
    rig.order(2, 1, 1, Desired::Run, "b");
    rig.sync();
    let begun = rig.now.mono;
    for crash in 1..=10 {
        rig.end(1, Ending::Crashed("boom".to_owned()));
        if crash == 10 {
            break;
        }
        let seen = rig.seen(1).clone();
        assert_eq!(seen.phase, ObservedPhase::Backoff, "{crash}");
        assert_eq!(seen.next_action, "try again");
        let wait = seen.next_at.unwrap().0 - rig.now.unix.0;
        let full = 1000 << (crash - 1);
        assert!(
            wait <= full && wait >= (full * 3 / 4).max(1000),
            "{crash}: {wait}"
        );
        rig.pass(Duration::from_millis(wait.cast_unsigned()));
        assert!(rig.runs(1, "a"), "{crash}");
        assert_eq!(rig.seen(1).restarts, u64::try_from(crash).unwrap());
    }
    assert!(rig.now.mono.since(begun) < Duration::from_secs(600));
    assert_eq!(rig.seen(1).phase, ObservedPhase::Quarantined);
    rig.pass(HOUR);
    rig.crash();
    assert!(
        !rig.machine.running.contains_key(&id(1)),
        "quarantine outlives the process"
    );
    rig.connect();
    assert!(rig.runs(2, "b"));
    assert_eq!(
        rig.machine.starts.iter().filter(|it| it.0 == id(2)).count(),
        2,
        "once for each process"
    );
    rig.order(1, 1, 2, Desired::Run, "a");
    rig.sync();
    assert!(rig.runs(1, "a"), "a new attempt ends it");
}

#[test]
fn what_waits_for_something_outside_is_tried_for_ever() {
    let mut rig = running("a");
    for _ in 0..30 {
        rig.end(1, Ending::Backoff("no such file".to_owned()));
        assert_eq!(rig.seen(1).phase, ObservedPhase::Backoff);
        rig.pass(Duration::from_secs(301));
        assert!(rig.runs(1, "a"));
    }
}

#[test]
fn case_85_a_row_that_cannot_be_read_is_refused_alone() {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, "a");
    rig.order_raw(2, b"\xffnot a row of ours");
    rig.sync();
    assert!(rig.runs(1, "a"));
    assert_eq!(rig.seen(2).phase, ObservedPhase::Refused);
    assert!(rig.seen(2).reason.contains("cannot read its row"));
    rig.assert_in_sync();
    rig.crash();
    rig.connect();
    rig.assert_in_sync();
    rig.order(2, 1, 1, Desired::Run, "b");
    rig.sync();
    assert!(rig.runs(2, "b"));
}

#[test]
fn what_an_authoritative_snapshot_does_not_name_stops_and_keeps_its_state_for_a_week() {
    let mut rig = running("a");
    rig.fake.remove(id(1));
    let snapshot = rig.fake.delta(None);
    rig.push(&snapshot);
    assert!(rig.machine.running.is_empty() && rig.machine.purges.is_empty());
    assert!(rig.fake.live.is_empty());
    rig.assert_in_sync();
    rig.pass(HOUR * 24 * 4);
    rig.crash();
    rig.connect();
    rig.pass(HOUR * 24 * 2);
    assert!(rig.machine.purges.is_empty(), "six days");
    rig.pass(HOUR * 26);
    assert_eq!(rig.machine.purges, [id(1)]);
    assert!(rig.core().store_mut().locals().unwrap().is_empty());
}

#[test]
fn case_49_a_wiped_edge_gets_everything_again() {
    let mut rig = running("a");
    let before = rig.core().meta().incarnation;
    rig.boot(Store::in_memory().unwrap()).unwrap();
    assert_ne!(rig.core().meta().incarnation, before);
    assert!(rig.machine.running.is_empty());
    rig.connect();
    assert!(rig.runs(1, "a"));
    rig.assert_in_sync();
}

#[test]
fn nothing_new_is_started_while_shutting_down_and_what_stops_is_no_news() {
    let mut rig = running("a");
    rig.order(2, 1, 1, Desired::Run, "b");
    rig.sync();
    let told = rig.fake.rows_received;
    rig.input(super::super::Input::ShuttingDown);
    rig.end(1, Ending::Stopped);
    assert_eq!(rig.fake.rows_received, told);
    rig.end(2, Ending::Completed);
    assert_eq!(rig.fake.outcomes.len(), 1, "an end is news even now");
    rig.crash();
    assert!(rig.runs(1, "a") && !rig.machine.running.contains_key(&id(2)));
}
