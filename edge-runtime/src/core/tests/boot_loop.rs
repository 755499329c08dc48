//! Case 85: work that kills the process which brings it up does not take the edge with it.

use std::time::Duration;

use sluice_model::{Desired, Digest, ObservedPhase, Version};

use super::super::Input;
use super::rig::{Rig, id, spec};

fn digest(content: &str) -> Digest {
    spec(content).digest()
}

/// The neighbour runs; execution 1 is on its way, and never gets there.
fn deadly(how: impl FnOnce(&mut Rig, Digest)) -> Rig {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(2, 1, 1, Desired::Run, "neighbour");
    rig.sync();
    how(&mut rig, digest("deadly"));
    rig.order(1, 1, 1, Desired::Run, "deadly");
    rig.sync();
    assert!(is_tried(&rig));
    rig
}

fn prepares(rig: &mut Rig, digest: Digest) {
    rig.machine.prepares_for_ever.insert(digest);
}

fn opens(rig: &mut Rig, digest: Digest) {
    rig.machine.opens_for_ever.insert(digest);
}

fn is_tried(rig: &Rig) -> bool {
    rig.machine.preparing.contains(&digest("deadly"))
}

#[test]
fn case_85_what_three_processes_died_of_is_left_out_of_the_fourth() {
    for how in [prepares, opens] {
        let mut rig = deadly(how);
        for death in 1..=3 {
            rig.crash();
            assert!(rig.runs(2, "neighbour"), "{death}: its neighbour is first");
            assert_eq!(is_tried(&rig), death < 3, "{death}");
        }
        rig.connect();
        let seen = rig.seen(1).clone();
        assert_eq!(seen.phase, ObservedPhase::Backoff);
        assert!(seen.reason.contains("died 3 times in a row"), "{seen:?}");
        assert_eq!(seen.next_action, "try again");
        assert_eq!(seen.next_at.unwrap().0 - rig.now.unix.0, 600_000);
        rig.assert_in_sync();

        // Another start does not try it either, and the time begins anew.
        rig.pass(Duration::from_secs(300));
        rig.crash();
        assert!(!is_tried(&rig) && rig.runs(2, "neighbour"));
        rig.pass(Duration::from_secs(599));
        assert!(!is_tried(&rig));
        rig.pass(Duration::from_secs(2));
        assert!(is_tried(&rig), "after ten minutes");
        rig.crash();
        rig.connect();
        assert!(rig.seen(1).reason.contains("died 4 times"));
        let wait = rig.seen(1).next_at.unwrap().0 - rig.now.unix.0;
        assert_eq!(wait, 1_200_000, "longer each time");

        // Mended by hand: a new attempt is tried at once, and what was is forgotten once it runs.
        rig.machine.prepares_for_ever.clear();
        rig.machine.opens_for_ever.clear();
        rig.order(1, 1, 2, Desired::Run, "deadly");
        rig.sync();
        assert!(rig.runs(1, "deadly"));
        for _ in 0..5 {
            rig.crash();
            assert!(rig.runs(1, "deadly") && rig.runs(2, "neighbour"));
        }
    }
}

#[test]
fn case_85_of_two_that_are_suspected_one_is_tried_at_a_time() {
    let mut rig = deadly(opens);
    // A second one was on its way when the process died, and is not to blame.
    opens(&mut rig, digest("suspected"));
    rig.order(3, 1, 1, Desired::Run, "suspected");
    rig.sync();
    let tried = |rig: &Rig| rig.machine.preparing.contains(&digest("suspected"));
    assert!(is_tried(&rig) && tried(&rig));
    rig.crash();
    rig.machine.opens_for_ever.remove(&digest("suspected"));
    for death in 2..=3 {
        assert!(rig.runs(2, "neighbour"), "{death}");
        assert!(
            is_tried(&rig) && !tried(&rig),
            "{death}: the first one alone"
        );
        rig.crash();
    }
    // The first one is left out now; the other runs, and was never blamed for it.
    assert!(!is_tried(&rig) && rig.runs(3, "suspected"));
    rig.connect();
    assert_eq!(rig.seen(1).phase, ObservedPhase::Backoff);
    assert_eq!(rig.seen(3).phase, ObservedPhase::Running);
}

#[test]
fn case_85_a_suspect_that_never_gets_there_holds_the_next_one_back_for_a_minute_only() {
    let mut rig = deadly(opens);
    opens(&mut rig, digest("suspected"));
    rig.order(3, 1, 1, Desired::Run, "suspected");
    rig.sync();
    rig.crash();
    let tried = |rig: &Rig| rig.machine.preparing.contains(&digest("suspected"));
    assert!(is_tried(&rig) && !tried(&rig));
    rig.pass(Duration::from_secs(59));
    assert!(!tried(&rig));
    rig.pass(Duration::from_secs(2));
    assert!(tried(&rig));
}

#[test]
fn case_85_a_version_that_kills_the_process_leaves_the_old_one_running() {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, "good");
    rig.sync();
    prepares(&mut rig, digest("deadly"));
    rig.order(1, 2, 1, Desired::Run, "deadly");
    rig.sync();
    for _ in 0..3 {
        assert!(is_tried(&rig));
        rig.crash();
    }
    assert!(!is_tried(&rig) && rig.runs(1, "good"));
    rig.connect();
    let seen = rig.seen(1);
    assert_eq!(seen.version, Version(2));
    assert_eq!(seen.phase, ObservedPhase::Backoff);
    assert_eq!(seen.running_version, Some(Version(1)));
    rig.order(1, 3, 1, Desired::Run, "mended");
    rig.sync();
    assert!(rig.runs(1, "mended"), "a new version is tried at once");
}

#[test]
fn case_85_work_that_ran_once_and_now_kills_is_left_out_until_it_is_ordered_anew() {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, "deadly");
    rig.sync();
    assert!(rig.runs(1, "deadly"));
    opens(&mut rig, digest("deadly"));
    // The first death finds it running; only the ones after that are of its doing.
    for _ in 0..4 {
        rig.crash();
    }
    assert!(!is_tried(&rig) && !rig.machine.running.contains_key(&id(1)));
    rig.connect();
    rig.machine.opens_for_ever.clear();
    rig.order(1, 1, 2, Desired::Run, "deadly");
    rig.sync();
    assert!(rig.runs(1, "deadly"));
    assert_eq!(rig.seen(1).phase, ObservedPhase::Running);
}

#[test]
fn a_process_that_ends_in_order_died_of_nothing() {
    for how in [prepares, opens] {
        let mut rig = deadly(how);
        for _ in 0..5 {
            rig.input(Input::ShuttingDown);
            rig.crash();
            assert!(is_tried(&rig));
        }
    }
}

#[test]
fn what_failed_to_start_in_between_did_not_kill_in_a_row() {
    let mut rig = deadly(prepares);
    rig.crash();
    rig.crash();
    rig.machine.prepares_for_ever.clear();
    let failure = sluice_agent::PrepareFailure::Retry("no memory just now".to_owned());
    let failing = digest("deadly");
    rig.machine.prepare_fails.insert(failing, failure);
    rig.crash();
    assert!(!is_tried(&rig), "the third death was one too many");
    rig.pass(Duration::from_secs(601));
    assert!(is_tried(&rig));
    rig.machine.prepare_fails.clear();
    prepares(&mut rig, failing);
    rig.crash();
    assert!(is_tried(&rig), "it begins to count anew");
}
