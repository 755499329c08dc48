//! What becomes of tasks, case by case: who takes them, what a lost node means, and what a run is called in the end.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::plan;

fn node(n: u8) -> Candidate {
    Candidate {
        node: plan::tests::node(n, "a"),
        connected: true,
        tasks: 0,
    }
}

fn choose(pinned: Option<u8>, taken: &[u8], nodes: &[Candidate]) -> Result<NodeId, Unfit> {
    let id = |n: u8| NodeId::from_random([n; 16]);
    let taken = taken.iter().copied().map(id).collect();
    let job = JobId::from_random([9; 16]);
    choose_node(job, &Select::default(), pinned.map(id), &taken, nodes)
}

#[test]
fn a_task_goes_to_the_connected_node_with_the_fewest_tasks() {
    let mut nodes = [node(1), node(2), node(3)];
    nodes[0].tasks = 2;
    nodes[1].tasks = 1;
    nodes[2].connected = false;
    assert_eq!(choose(None, &[], &nodes), Ok(nodes[1].node.id));
    assert_eq!(choose(Some(1), &[], &nodes), Ok(nodes[0].node.id));
    assert_eq!(choose(None, &[2], &nodes), Ok(nodes[0].node.id));
    let away = Unfit::Away {
        nodes: vec!["e3".to_owned()],
    };
    assert_eq!(choose(Some(3), &[], &nodes), Err(away.clone()));
    assert_eq!(choose(None, &[1, 2], &nodes), Err(away));
    nodes[2].node.cordoned = true;
    let Err(Unfit::NoNode { reason }) = choose(None, &[1, 2], &nodes) else {
        panic!("placed");
    };
    assert!(
        reason.contains(
            "of 3 nodes: 2 taken by another task of the run, 1 refused since it is cordoned"
        ),
        "{reason}"
    );
    assert!(matches!(choose(None, &[], &[]), Err(Unfit::NoNode { .. })));
}

fn active() -> ActiveTask {
    ActiveTask {
        attempt: 1,
        retries: 0,
        idempotent: false,
        on_lost: OnLost::Fail,
        exposed: true,
        stopping: None,
        outcome: None,
        live: None,
        connected: true,
        gone: false,
        wiped: false,
    }
}

fn said(phase: ObservedPhase, fail: Option<FailReason>) -> Option<Said> {
    Some(Said {
        phase,
        fail,
        reason: "r".to_owned(),
    })
}

fn state(task: &ActiveTask) -> Option<(TaskState, Option<FailReason>)> {
    match judge(task) {
        Verdict::Ended { state, fail, .. } => Some((state, fail)),
        Verdict::Active | Verdict::Again { .. } => None,
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
    for (attempt, seconds) in [(1, 1), (2, 2)] {
        task.attempt = attempt;
        let after = Duration::from_secs(seconds);
        let reason = "r".to_owned();
        assert_eq!(judge(&task), Verdict::Again { after, reason });
    }
    task.attempt = 3;
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
    assert!(matches!(judge(&task), Verdict::Again { .. }));

    let mut task = active();
    task.wiped = true;
    assert_eq!(state(&task), indeterminate);
    task.idempotent = true;
    assert_eq!(judge(&task), Verdict::Active, "the row is sent again");

    let mut task = active();
    task.gone = true;
    task.connected = false;
    assert_eq!(
        state(&task),
        Some((TaskState::Failed, Some(FailReason::Lost)))
    );
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
    task.on_lost = OnLost::Replace;
    assert!(matches!(judge(&task), Verdict::Again { .. }));
}

#[test]
fn a_stop_ends_when_the_edge_has_stopped_or_is_away() {
    let mut task = active();
    task.stopping = Some(Stopping::TimedOut);
    task.live = said(ObservedPhase::Running, None);
    assert_eq!(judge(&task), Verdict::Active);
    task.live = said(ObservedPhase::Stopped, None);
    let timed_out = Some((TaskState::TimedOut, Some(FailReason::TimedOut)));
    assert_eq!(state(&task), timed_out);
    task.live = said(ObservedPhase::Running, None);
    task.connected = false;
    assert_eq!(state(&task), timed_out);
    task.stopping = Some(Stopping::Drained);
    assert_eq!(
        state(&task),
        Some((TaskState::Failed, Some(FailReason::Indeterminate)))
    );
    task.idempotent = true;
    assert!(matches!(judge(&task), Verdict::Again { .. }));
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
