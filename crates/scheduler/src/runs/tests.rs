//! What becomes of tasks, case by case: who takes them, what a lost node means, and what a run is called in the end.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::plan;

fn node(n: u8) -> Candidate {
    Candidate {
        node: plan::tests::node(n, "a"),
        connected: true,
    }
}

fn id(n: u8) -> NodeId {
    NodeId::from_random([n; 16])
}

fn choose(
    pinned: Option<u8>,
    taken: &[u8],
    refused: &[u8],
    nodes: &[Candidate],
) -> Result<NodeId, Unfit> {
    let ids = |of: &[u8]| of.iter().copied().map(id).collect();
    let wish = Wish {
        job: JobId::from_random([9; 16]),
        select: &Select::default(),
        pinned: pinned.map(id),
        taken: &ids(taken),
        refused: &ids(refused),
    };
    // e1 has two tasks, e2 one.
    let tasks = BTreeMap::from([(id(1), 2), (id(2), 1)]);
    choose_node(wish, nodes, &tasks)
}

#[test]
fn a_task_goes_to_the_connected_node_with_the_fewest_tasks() {
    let mut nodes = [node(1), node(2), node(3)];
    nodes[2].connected = false;
    assert_eq!(choose(None, &[], &[], &nodes), Ok(id(2)));
    assert_eq!(choose(Some(1), &[], &[], &nodes), Ok(id(1)));
    assert_eq!(choose(None, &[2], &[], &nodes), Ok(id(1)));
    assert_eq!(choose(None, &[], &[2], &nodes), Ok(id(1)));
    let away = Unfit::Away {
        nodes: vec!["e3".to_owned()],
    };
    assert_eq!(choose(Some(3), &[], &[], &nodes), Err(away.clone()));
    assert_eq!(choose(None, &[1], &[2], &nodes), Err(away));
    nodes[2].node.cordoned = true;
    let Err(Unfit::NoNode { reason, refused }) = choose(None, &[1, 2], &[], &nodes) else {
        panic!("placed");
    };
    assert!(!refused);
    assert!(
        reason.contains(
            "of 3 nodes: 2 taken by another task of the run, 1 refused since it is cordoned"
        ),
        "{reason}"
    );
    // Who is kept off may be let back in; who lacks something was asked already.
    let has_refused = |nodes: &[Candidate]| match choose(None, &[1], &[2], nodes) {
        Err(Unfit::NoNode { refused, .. }) => refused,
        other => panic!("{other:?}"),
    };
    assert!(!has_refused(&nodes));
    nodes[2].node.lacks = Some("the input `exec`".to_owned());
    assert!(has_refused(&nodes), "uncordoned it would lack that");
    nodes[2].node.cordoned = false;
    assert!(has_refused(&nodes));
    nodes[2].node.lacks = None;
    for keep_off in [
        |node: &mut NodeFacts| node.draining = true,
        |node: &mut NodeFacts| node.held = true,
        |node: &mut NodeFacts| node.revoked = true,
    ] {
        let mut nodes = nodes.clone();
        keep_off(&mut nodes[2].node);
        assert!(!has_refused(&nodes));
    }
    assert!(has_refused(&nodes[..2]));
    assert!(matches!(
        choose(None, &[], &[], &[]),
        Err(Unfit::NoNode { .. })
    ));
}

fn active() -> ActiveTask {
    ActiveTask {
        attempt: 1,
        failures: 0,
        retries: 0,
        idempotent: false,
        on_lost: OnLost::Fail,
        exposed: true,
        stopping: None,
        stop_reason: String::new(),
        outcome: None,
        live: None,
        gone: false,
        forgotten: false,
        wiped: false,
    }
}

fn said(phase: ObservedPhase, fail: Option<FailReason>) -> Option<Said> {
    Some(Said {
        phase,
        fail,
        reason: "r".to_owned(),
        worked: false,
    })
}

fn state(task: &ActiveTask) -> Option<(TaskState, Option<FailReason>)> {
    match judge(task) {
        Verdict::Ended { state, fail, .. } => Some((state, fail)),
        Verdict::Active
        | Verdict::Retry { .. }
        | Verdict::Again { .. }
        | Verdict::Elsewhere { .. } => None,
    }
}

#[test]
fn the_outcome_decides_and_a_failed_try_is_repeated_as_often_as_it_says() {
    let mut task = active();
    assert_eq!(judge(&task), Verdict::Active);
    task.outcome = said(ObservedPhase::Completed, None);
    task.stopping = Some(Stopping::Cancelled);
    assert_eq!(state(&task), Some((TaskState::Completed, None)));
    task.stopping = None;
    task.outcome = said(ObservedPhase::Failed, Some(FailReason::Fatal));
    assert_eq!(
        state(&task),
        Some((TaskState::Failed, Some(FailReason::Fatal)))
    );
    task.retries = 2;
    // What was refused, drained or lost before costs it no retry.
    task.attempt = 9;
    for (failures, seconds) in [(0, 1), (1, 2)] {
        task.failures = failures;
        let after = Duration::from_secs(seconds);
        let reason = "r".to_owned();
        assert_eq!(judge(&task), Verdict::Retry { after, reason });
    }
    task.failures = 2;
    assert_eq!(
        state(&task),
        Some((TaskState::Failed, Some(FailReason::Fatal)))
    );
    assert_eq!(retry_delay(u64::MAX), RETRY_DELAY_MAX);
}

#[test]
fn what_nobody_can_tell_is_repeated_only_where_that_does_no_harm() {
    let mut task = active();
    task.retries = 5;
    task.outcome = said(ObservedPhase::Failed, Some(FailReason::Indeterminate));
    let indeterminate = Some((TaskState::Failed, Some(FailReason::Indeterminate)));
    assert_eq!(state(&task), indeterminate);
    task.idempotent = true;
    assert!(matches!(judge(&task), Verdict::Retry { .. }));

    let mut task = active();
    task.wiped = true;
    assert_eq!(state(&task), indeterminate);
    task.idempotent = true;
    assert_eq!(judge(&task), Verdict::Active, "the row is sent again");

    let mut task = active();
    task.gone = true;
    assert_eq!(state(&task), indeterminate);
    task.on_lost = OnLost::Wait;
    assert_eq!(judge(&task), Verdict::Active);
    task.on_lost = OnLost::Fail;
    task.exposed = false;
    assert!(
        matches!(judge(&task), Verdict::Again { .. }),
        "it never had it"
    );
    task.exposed = true;
    task.idempotent = true;
    let lost = Some((TaskState::Failed, Some(FailReason::Lost)));
    assert_eq!(state(&task), lost, "as its pipeline says");
    task.on_lost = OnLost::Replace;
    assert!(matches!(judge(&task), Verdict::Again { .. }));
    // Whoever loses one node after the other is not given all of them.
    (task.failures, task.attempt) = (2, 2 + TAKEN_BACK_MAX);
    assert!(matches!(judge(&task), Verdict::Again { .. }));
    task.attempt += 1;
    assert_eq!(state(&task), lost);
}

#[test]
fn a_stop_ends_when_the_edge_has_stopped_or_is_lost() {
    let mut task = active();
    task.stopping = Some(Stopping::TimedOut);
    task.live = said(ObservedPhase::Running, None);
    assert_eq!(judge(&task), Verdict::Active, "there or away, it may run");
    task.live = said(ObservedPhase::Stopped, None);
    let timed_out = Some((TaskState::TimedOut, Some(FailReason::TimedOut)));
    assert_eq!(state(&task), timed_out);
    task.live = said(ObservedPhase::Running, None);
    task.gone = true;
    assert_eq!(state(&task), timed_out);
    task.stopping = Some(Stopping::Drained);
    assert_eq!(
        state(&task),
        Some((TaskState::Failed, Some(FailReason::Indeterminate)))
    );
    task.idempotent = true;
    assert!(matches!(judge(&task), Verdict::Again { .. }));
    task.gone = false;
    assert_eq!(judge(&task), Verdict::Active);
    task.exposed = false;
    assert!(
        matches!(judge(&task), Verdict::Again { .. }),
        "it never had it"
    );
}

#[test]
fn a_crash_loop_that_was_called_off_is_not_begun_anew() {
    let mut task = active();
    (task.idempotent, task.retries) = (true, 3);
    task.live = said(ObservedPhase::Quarantined, None);
    assert!(matches!(judge(&task), Verdict::Retry { .. }));
    task.stopping = Some(Stopping::Cancelled);
    assert_eq!(
        state(&task),
        Some((TaskState::Cancelled, Some(FailReason::Cancelled)))
    );
}

#[test]
fn what_is_forgotten_never_stays_active() {
    for on_lost in [OnLost::Wait, OnLost::Fail, OnLost::Replace] {
        for idempotent in [false, true] {
            for exposed in [false, true] {
                for stopping in [
                    None,
                    Some(Stopping::Cancelled),
                    Some(Stopping::TimedOut),
                    Some(Stopping::Drained),
                ] {
                    let task = ActiveTask {
                        on_lost,
                        idempotent,
                        exposed,
                        stopping,
                        gone: true,
                        forgotten: true,
                        ..active()
                    };
                    assert_ne!(judge(&task), Verdict::Active, "{task:?}");
                }
            }
        }
    }
    let mut task = active();
    (task.gone, task.forgotten, task.on_lost) = (true, true, OnLost::Wait);
    let indeterminate = Some((TaskState::Failed, Some(FailReason::Indeterminate)));
    assert_eq!(state(&task), indeterminate);
    task.idempotent = true;
    assert!(matches!(judge(&task), Verdict::Again { .. }));
}

#[test]
fn what_an_edge_refuses_goes_elsewhere_unless_it_may_have_begun() {
    let reason = "r".to_owned();
    let elsewhere = Verdict::Elsewhere { reason };
    let mut task = active();
    task.outcome = said(ObservedPhase::Failed, Some(FailReason::Rejected));
    assert_eq!(judge(&task), elsewhere);
    task.outcome.as_mut().unwrap().worked = true;
    let indeterminate = Some((TaskState::Failed, Some(FailReason::Indeterminate)));
    assert_eq!(state(&task), indeterminate);
    let mut task = active();
    task.live = said(ObservedPhase::Refused, None);
    let rejected = Some((TaskState::Failed, Some(FailReason::Rejected)));
    assert_eq!(state(&task), rejected);
    task.idempotent = true;
    assert_eq!(judge(&task), elsewhere);
}

#[test]
fn what_an_edge_cannot_read_does_not_wait_for_it_to_stop() {
    let rejected = Some((TaskState::Failed, Some(FailReason::Rejected)));
    for idempotent in [false, true] {
        let mut task = active();
        task.idempotent = idempotent;
        task.live = said(ObservedPhase::Refused, None);
        for (stopping, state_then, fail) in [
            (
                Stopping::Cancelled,
                TaskState::Cancelled,
                FailReason::Cancelled,
            ),
            (
                Stopping::TimedOut,
                TaskState::TimedOut,
                FailReason::TimedOut,
            ),
        ] {
            task.stopping = Some(stopping);
            assert_eq!(state(&task), Some((state_then, Some(fail))));
        }
        // An older program of it was at work: it was not called off before it did anything.
        task.live.as_mut().unwrap().worked = true;
        for stopping in [Stopping::Cancelled, Stopping::TimedOut] {
            task.stopping = Some(stopping);
            assert_eq!(state(&task), rejected);
        }
        for worked in [false, true] {
            task.live.as_mut().unwrap().worked = worked;
            task.stopping = Some(Stopping::Drained);
            if idempotent {
                assert!(matches!(judge(&task), Verdict::Elsewhere { .. }));
            } else {
                assert_eq!(state(&task), rejected);
            }
        }
    }
}

#[test]
fn case_34_one_failed_task_makes_a_failed_run() {
    use TaskState::{Cancelled, Completed, Failed, Pending, Running, TimedOut};
    let of = |tasks: &[TaskState], started| run_state(tasks.iter().copied(), started);
    assert_eq!(of(&[Pending, Pending], false), RunState::Pending);
    assert_eq!(of(&[Pending, Completed], true), RunState::Running);
    assert_eq!(of(&[Running, Failed], true), RunState::Running);
    assert_eq!(of(&[Completed, Completed], true), RunState::Completed);
    assert_eq!(of(&[Completed, Failed, TimedOut], true), RunState::Failed);
    assert_eq!(
        of(&[Completed, Cancelled, TimedOut], true),
        RunState::TimedOut
    );
    assert_eq!(of(&[Completed, Cancelled], true), RunState::Cancelled);
}

#[test]
fn what_ran_late_says_what_it_was_doing() {
    let timeout = Some(Duration::from_secs(30));
    let late = |connected, phase: Option<ObservedPhase>, reason: &str| {
        let live = phase.and_then(|phase| said(phase, None));
        let live = live.map(|it| Said {
            reason: reason.to_owned(),
            ..it
        });
        ran_late(timeout, "e1", connected, live.as_ref())
    };
    for (connected, phase, reason, expected) in [
        (
            true,
            None,
            "",
            "ran past its timeout of 30s before e1 said anything of it",
        ),
        (
            true,
            Some(ObservedPhase::Running),
            "",
            "ran past its timeout of 30s while running",
        ),
        (
            true,
            Some(ObservedPhase::Backoff),
            "cannot open x",
            "ran past its timeout of 30s while in backoff: cannot open x",
        ),
        (
            false,
            Some(ObservedPhase::Running),
            "",
            "ran past its timeout of 30s while running (last known: e1 is not connected)",
        ),
    ] {
        assert_eq!(late(connected, phase, reason), expected);
    }
    let mut task = active();
    (task.stopping, task.live) = (Some(Stopping::TimedOut), said(ObservedPhase::Stopped, None));
    task.stop_reason = late(true, Some(ObservedPhase::Backoff), "cannot open x");
    let Verdict::Ended { reason, .. } = judge(&task) else {
        panic!("it has stopped");
    };
    assert_eq!(reason, task.stop_reason);
}

#[test]
fn a_batch_job_has_the_words_of_other_jobs() {
    use TaskStanding::{Away, Completed, Failed, Moving, Queued, Retrying, Running, Stuck};
    for (tasks, expected) in [
        (&[][..], JobState::Queued),
        (&[Queued, Queued], JobState::Queued),
        (&[Completed, Queued], JobState::Queued),
        (&[Moving, Stuck], JobState::Deploying),
        (&[Stuck], JobState::Degraded),
        (&[Retrying, Running], JobState::Degraded),
        (&[Failed, Running], JobState::Degraded),
        (&[Away], JobState::Degraded),
        (&[Away, Running], JobState::Running),
        (&[Queued, Running], JobState::Running),
        (&[Completed, Completed], JobState::Completed),
        (&[Completed, Failed], JobState::Failed),
    ] {
        assert_eq!(batch_state(false, tasks), expected, "{tasks:?}");
        assert_eq!(batch_state(true, tasks), JobState::Stopped);
    }
}
