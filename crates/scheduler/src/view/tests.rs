//! What people are told about executions and jobs, state by state.

use super::*;

fn node(state: NodeState, received: u64) -> NodeView {
    NodeView {
        name: "e1".parse().expect("a name"),
        state,
        revoked: false,
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
        on_lost: OnLost::Wait,
        replaced: false,
        lacks: None,
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
fn case_66_what_a_revoked_node_ran_waits_for_its_return() {
    let revoked = NodeView {
        revoked: true,
        ..node(NodeState::Disconnected, 7)
    };
    let ran = observed(2, ObservedPhase::Running);
    for live in [Some(&ran), None] {
        let waits = view(&revoked, Desired::Run, live, None);
        assert_eq!(
            (waits.state, waits.reason_code),
            (ExecutionState::Pending, "waiting-for-node")
        );
        assert!(waits.reason.contains("revoked"), "{}", waits.reason);
        assert_eq!(
            waits.next_action,
            "when e1 joins again with a token made for it"
        );
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
fn what_runs_on_an_absent_node_is_said_to_be_the_last_known() {
    let live = observed(2, ObservedPhase::Running);
    let away = view(
        &node(NodeState::Disconnected, 7),
        Desired::Run,
        Some(&live),
        None,
    );
    assert_eq!(away.reason, "last known: e1 is disconnected");
    assert_eq!(away.next_action, "when e1 connects");
    assert!(away.last_known);
    let here = view(
        &node(NodeState::Connected, 7),
        Desired::Run,
        Some(&live),
        None,
    );
    assert_eq!(here.reason, "");
    assert!(!here.last_known);
    let stopping = |state| view(&node(state, 7), Desired::Stop, Some(&live), None);
    let away_stopping = stopping(NodeState::Disconnected);
    assert!(away_stopping.last_known && !stopping(NodeState::Connected).last_known);
    assert_eq!(
        away_stopping.reason,
        "last known: e1 was stopping it and is disconnected"
    );
    assert_eq!(away_stopping.next_action, "when e1 connects");
    // What has ended, what is lost and what never had it are known for good.
    let absent = node(NodeState::Disconnected, 7);
    let done = observed(2, ObservedPhase::Completed);
    let lost = view(&node(NodeState::Lost, 7), Desired::Run, Some(&live), None);
    for known in [
        view(&absent, Desired::Run, None, Some(&done)),
        view(&absent, Desired::Run, None, None),
        lost,
    ] {
        assert!(!known.last_known, "{known:?}");
    }
    let both = [
        counted(&away, NodeState::Disconnected),
        counted(&here, NodeState::Connected),
    ];
    let (state, counts) = job_state(false, both, 0, UnixMs(1000));
    assert_eq!(state, JobState::Running);
    assert_eq!((counts.running, counts.unheard), (2, 1));
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
        last_known: false,
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
            .map(|(view, node)| counted(view, node))
            .collect::<Vec<_>>();
        let (state, counts) = job_state(false, views.clone(), 0, UnixMs(1));
        assert_eq!(state, expected, "{views:?}");
        assert_eq!(
            counts.running + counts.waiting + counts.failed + counts.completed,
            counts.desired
        );
        assert_eq!(job_state(true, views, 0, UnixMs(1)).0, JobState::Stopped);
    }
    let late = UnixMs(0).plus(MOVING * 2);
    assert_eq!(
        job_state(
            false,
            [counted(&run, Connected), counted(&sending, Connected)],
            0,
            late
        )
        .0,
        JobState::Degraded
    );
}

fn counted(view: &ExecutionView, node: NodeState) -> Counted<'_> {
    Counted {
        view,
        node,
        desired: Desired::Run,
        replaced: false,
    }
}

#[test]
fn what_is_replaced_does_not_count_and_what_finds_no_node_waits() {
    let run = view(
        &node(NodeState::Connected, 7),
        Desired::Run,
        Some(&observed(2, ObservedPhase::Running)),
        None,
    );
    let away = Counted {
        replaced: true,
        ..counted(&run, NodeState::Lost)
    };
    let one = counted(&run, NodeState::Connected);
    let (state, counts) = job_state(false, [one, away], 1, UnixMs(1));
    assert_eq!(
        (counts.desired, counts.running, counts.waiting),
        (2, 1, 1),
        "{counts:?}"
    );
    assert_eq!(state, JobState::Running);
    assert_eq!(job_state(false, [away], 2, UnixMs(1)).0, JobState::Degraded);
    assert_eq!(job_state(false, [], 2, UnixMs(1)).0, JobState::Queued);
}

#[test]
fn what_a_lost_node_had_is_shown_as_the_job_says() {
    let live = observed(2, ObservedPhase::Running);
    let lost = node(NodeState::Lost, 7);
    let shown = |on_lost, replaced, outcome| {
        view_execution(&ViewInput {
            node: &lost,
            version: Version(2),
            attempt: Attempt(1),
            desired: Desired::Run,
            rev: Revision(7),
            changed_at: UnixMs(500),
            live: Some(&live),
            outcome,
            on_lost,
            replaced,
            lacks: None,
        })
    };
    let failed = shown(OnLost::Fail, false, None);
    assert_eq!(
        (failed.state, failed.reason_code),
        (ExecutionState::Failed, "lost")
    );
    let (state, counts) = job_state(false, [counted(&failed, NodeState::Lost)], 0, UnixMs(1));
    assert_eq!((state, counts.failed), (JobState::Failed, 1));
    assert_eq!(shown(OnLost::Wait, false, None).state, ExecutionState::Lost);
    let replaced = shown(OnLost::Replace, true, None);
    assert_eq!(replaced.state, ExecutionState::Lost);
    assert!(replaced.next_action.contains("when e1 connects"));
    let done = observed(2, ObservedPhase::Completed);
    assert_eq!(
        shown(OnLost::Fail, false, Some(&done)).state,
        ExecutionState::Completed,
        "what ended needs no node"
    );
}

#[test]
fn a_misfit_is_refused_by_name_before_anything_is_sent() {
    for state in [NodeState::Connected, NodeState::Disconnected] {
        for received in [6, 7] {
            let old = observed(1, ObservedPhase::Running);
            let shown = view_execution(&ViewInput {
                node: &node(state, received),
                version: Version(2),
                attempt: Attempt(1),
                desired: Desired::Run,
                rev: Revision(7),
                changed_at: UnixMs(500),
                live: Some(&old),
                outcome: None,
                on_lost: OnLost::Wait,
                replaced: false,
                lacks: Some("connector:input.file"),
            });
            assert_eq!(
                (shown.state, shown.reason_code, shown.reason.as_str()),
                (
                    ExecutionState::Pending,
                    "refused",
                    "e1 lacks connector:input.file"
                )
            );
            assert!(shown.on_old_version, "the old version runs on");
        }
    }
}
