//! What people are told about executions and jobs, state by state.

use super::*;

fn node(state: NodeState, received: u64) -> NodeView {
    NodeView {
        name: "e1".parse().expect("a name"),
        state,
        received: Revision(received),
    }
}

fn observed(version: u64, phase: ObservedPhase) -> Observed {
    Observed {
        version: Version(version),
        attempt: Attempt(1),
        phase,
        fail: None,
        reason: String::new(),
        next_action: String::new(),
        next_at: None,
        at: UnixMs(1000),
        running_version: None,
    }
}

fn view(
    node: &NodeView,
    desired: Desired,
    live: Option<&Observed>,
    outcome: Option<&Observed>,
) -> ExecutionView {
    view_execution(&ViewInput {
        node,
        version: Version(2),
        attempt: Attempt(1),
        desired,
        rev: Revision(7),
        changed_at: UnixMs(500),
        live,
        outcome,
    })
}

#[test]
fn no_wait_goes_without_reason_and_next_action() {
    let phases = [
        ObservedPhase::Fetching,
        ObservedPhase::Compiling,
        ObservedPhase::Starting,
        ObservedPhase::Running,
        ObservedPhase::Backoff,
        ObservedPhase::Refused,
        ObservedPhase::Quarantined,
        ObservedPhase::Completed,
        ObservedPhase::Failed,
        ObservedPhase::Stopped,
        ObservedPhase::Purged,
    ];
    for state in [
        NodeState::Connected,
        NodeState::Disconnected,
        NodeState::Lost,
        NodeState::Held,
    ] {
        for received in [6, 7] {
            for desired in [Desired::Run, Desired::Stop, Desired::Purge] {
                for version in [1, 2] {
                    for phase in phases.map(Some).into_iter().chain([None]) {
                        let live = phase.map(|phase| observed(version, phase));
                        let view = view(&node(state, received), desired, live.as_ref(), None);
                        if view.state == ExecutionState::Pending {
                            assert!(
                                !view.reason_code.is_empty() && !view.reason.is_empty(),
                                "{state} {phase:?} {view:?}"
                            );
                            assert!(!view.next_action.is_empty(), "{state} {phase:?} {view:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_waits_for_its_node_and_then_is_sent() {
    let away = view(&node(NodeState::Disconnected, 6), Desired::Run, None, None);
    assert_eq!(
        (away.state, away.reason_code),
        (ExecutionState::Pending, "waiting-for-node")
    );
    assert_eq!(away.next_action, "when e1 connects");
    let back = view(&node(NodeState::Connected, 6), Desired::Run, None, None);
    assert_eq!(back.reason_code, "sending");
    let received = view(&node(NodeState::Connected, 7), Desired::Run, None, None);
    assert_eq!(received.reason_code, "starting");
}

#[test]
fn what_runs_stays_running_while_the_link_is_down() {
    let live = observed(2, ObservedPhase::Running);
    for (state, expected) in [
        (NodeState::Connected, ExecutionState::Running),
        (NodeState::Disconnected, ExecutionState::Running),
        (NodeState::Lost, ExecutionState::Lost),
    ] {
        assert_eq!(
            view(&node(state, 7), Desired::Run, Some(&live), None).state,
            expected
        );
    }
}

#[test]
fn an_outcome_speaks_for_its_attempt_only() {
    let completed = observed(2, ObservedPhase::Completed);
    assert_eq!(
        view(
            &node(NodeState::Lost, 0),
            Desired::Run,
            None,
            Some(&completed)
        )
        .state,
        ExecutionState::Completed
    );
    let old = observed(1, ObservedPhase::Running);
    let updating = view(
        &node(NodeState::Connected, 7),
        Desired::Run,
        Some(&old),
        None,
    );
    assert_eq!(updating.state, ExecutionState::Pending);
    assert!(updating.on_old_version);
}

#[test]
fn a_job_takes_the_first_state_that_applies() {
    let make = |state, code: &'static str| ExecutionView {
        state,
        reason_code: code,
        reason: String::new(),
        next_action: String::new(),
        next_at: None,
        moved_at: UnixMs(0),
        on_old_version: false,
    };
    use ExecutionState::{Completed, Failed, Pending, Running};
    use NodeState::{Connected, Disconnected};
    let run = make(Running, "");
    let done = make(Completed, "");
    let failed = make(Failed, "fatal");
    let waiting = make(Pending, "waiting-for-node");
    let sending = make(Pending, "sending");
    let backoff = make(Pending, "backoff");
    let old = ExecutionView {
        on_old_version: true,
        ..make(Pending, "refused")
    };
    for (expected, views) in [
        (JobState::Queued, vec![]),
        (
            JobState::Completed,
            vec![(&done, Connected), (&done, Disconnected)],
        ),
        (
            JobState::Failed,
            vec![(&done, Connected), (&failed, Connected)],
        ),
        (
            JobState::Deploying,
            vec![
                (&run, Connected),
                (&sending, Connected),
                (&failed, Connected),
            ],
        ),
        (
            JobState::Degraded,
            vec![(&run, Connected), (&failed, Connected)],
        ),
        (
            JobState::Degraded,
            vec![(&run, Connected), (&backoff, Connected)],
        ),
        (
            JobState::Degraded,
            vec![(&run, Connected), (&old, Connected)],
        ),
        (JobState::Degraded, vec![(&waiting, Disconnected)]),
        (
            JobState::Running,
            vec![(&run, Connected), (&waiting, Disconnected)],
        ),
        (
            JobState::Running,
            vec![(&run, Connected), (&done, Connected)],
        ),
    ] {
        let views = views
            .into_iter()
            .map(|(view, node)| (view, node, Desired::Run))
            .collect::<Vec<_>>();
        let (state, counts) = job_state(false, views.clone(), UnixMs(1));
        assert_eq!(state, expected, "{views:?}");
        assert_eq!(
            counts.running + counts.waiting + counts.failed + counts.completed,
            counts.desired
        );
        assert_eq!(job_state(true, views, UnixMs(1)).0, JobState::Stopped);
    }
    let late = UnixMs(0).plus(MOVING * 2);
    assert_eq!(
        job_state(
            false,
            [
                (&run, Connected, Desired::Run),
                (&sending, Connected, Desired::Run)
            ],
            late
        )
        .0,
        JobState::Degraded
    );
}
