//! The verdict of `--wait`, case by case.

#![allow(clippy::unwrap_used)]

use sluice_model::{FailReason, PendingReason};

use super::*;
use crate::render::fixtures;

struct Case {
    executions: Vec<Execution>,
    /// Name and state of each node.
    nodes: Vec<(&'static str, NodeState)>,
    matching: Vec<&'static str>,
}

fn verdict(case: Case) -> Verdict {
    let mut detail = fixtures::job_detail();
    detail.executions = case.executions;
    let nodes: Vec<_> = case
        .nodes
        .iter()
        .map(|(name, state)| fixtures::node(name, *state))
        .collect();
    let matching: Vec<_> = case
        .matching
        .iter()
        .map(|name| name.parse().unwrap())
        .collect();
    judge(Version(2), &matching, &detail, &nodes)
}

const UP: NodeState = NodeState::Connected;
const AWAY: NodeState = NodeState::Disconnected;

fn at_version(version: u64, execution: Execution) -> Execution {
    Execution {
        version: Version(version),
        ..execution
    }
}

#[test]
fn done_when_every_connected_node_runs_or_completed_it() {
    let mut completed = fixtures::running("e2");
    completed.state = ExecutionState::Completed;
    let got = verdict(Case {
        executions: vec![fixtures::running("e1"), completed, fixtures::away("e3")],
        nodes: vec![("e1", UP), ("e2", UP), ("e3", AWAY), ("e4", UP)],
        matching: vec!["e1", "e2", "e3"],
    });
    let Verdict::Done { absent } = got else {
        panic!("{got:?}");
    };
    assert_eq!(absent.len(), 1);
    assert!(
        absent[0].starts_with("e3: pending/waiting-for-node"),
        "{absent:?}"
    );

    // A newer version came meanwhile: what was asked is done and more.
    let got = verdict(Case {
        executions: vec![at_version(3, fixtures::running("e1"))],
        nodes: vec![("e1", UP)],
        matching: vec!["e1"],
    });
    assert_eq!(got, Verdict::Done { absent: vec![] });
}

#[test]
fn failed_when_one_failed_or_was_quarantined_at_the_new_version() {
    for state in [ExecutionState::Failed, ExecutionState::Quarantined] {
        let mut bad = fixtures::running("e2");
        bad.state = state;
        bad.reason_code = (state == ExecutionState::Failed).then(|| FailReason::Configure.into());
        bad.reason = Some("no such field".to_owned());
        let case = |bad: Execution| Case {
            executions: vec![fixtures::running("e1"), bad],
            nodes: vec![("e1", UP), ("e2", UP)],
            matching: vec!["e1", "e2"],
        };
        let got = verdict(case(bad.clone()));
        let Verdict::Failed { where_and_why } = got else {
            panic!("{got:?}");
        };
        assert!(
            where_and_why[0].contains("no such field"),
            "{where_and_why:?}"
        );
        // The version before failed; the new one is not planned yet.
        assert!(matches!(
            verdict(case(at_version(1, bad))),
            Verdict::Waiting { .. }
        ));
    }
}

#[test]
fn waiting_says_what_is_missing() {
    let mut refused = fixtures::away("e1");
    refused.reason_code = Some(PendingReason::Refused.into());
    refused.reason = Some("no such connector".to_owned());
    let mut stopping = fixtures::running("e1");
    stopping.desired = Desired::Stop;
    let table: Vec<(Case, &str)> = vec![
        (
            Case {
                executions: vec![],
                nodes: vec![],
                matching: vec![],
            },
            "no node matches yet",
        ),
        (
            Case {
                executions: vec![],
                nodes: vec![("e1", UP)],
                matching: vec!["e1"],
            },
            "e1: not planned yet",
        ),
        (
            Case {
                executions: vec![fixtures::away("e1")],
                nodes: vec![("e1", AWAY)],
                matching: vec!["e1"],
            },
            "no matching node is connected",
        ),
        (
            Case {
                executions: vec![at_version(1, fixtures::running("e1"))],
                nodes: vec![("e1", UP)],
                matching: vec!["e1"],
            },
            "e1: not planned yet",
        ),
        (
            Case {
                executions: vec![refused],
                nodes: vec![("e1", UP)],
                matching: vec!["e1"],
            },
            "e1: pending/refused, no such connector",
        ),
        (
            Case {
                executions: vec![fixtures::running("e1"), fixtures::backing_off("e2")],
                nodes: vec![("e1", UP), ("e2", UP)],
                matching: vec!["e1", "e2"],
            },
            "e2: pending/backoff",
        ),
        // What is being stopped does not count.
        (
            Case {
                executions: vec![stopping],
                nodes: vec![("e1", UP)],
                matching: vec![],
            },
            "no node matches yet",
        ),
    ];
    for (case, says) in table {
        let got = verdict(case);
        let Verdict::Waiting { missing } = &got else {
            panic!("{says}: {got:?}");
        };
        assert!(missing.join("\n").contains(says), "{says}: {missing:?}");
    }
}

#[test]
fn replicas_are_expected_where_they_are_placed_and_the_unplaced_are_named() {
    let mut detail = fixtures::job_detail();
    detail.job.kind = JobKind::Replicas;
    detail.executions = vec![at_version(2, fixtures::running("e1"))];
    let nodes = [fixtures::node("e1", UP), fixtures::node("e2", UP)];
    let matching = ["e1".parse().unwrap(), "e2".parse().unwrap()];
    let done = judge(Version(2), &matching, &detail, &nodes);
    assert_eq!(done, Verdict::Done { absent: vec![] });
    detail.unplaced = Some(sluice_api::Unplaced {
        job: detail.job.name.clone(),
        count: 1,
        reason_code: PendingReason::NoNode,
        reason: "of 2 nodes: 1 taken by its other replicas, 1 lost".to_owned(),
        next_action: "when a node joins".to_owned(),
        next_at: None,
    });
    let Verdict::Done { absent } = judge(Version(2), &matching, &detail, &nodes) else {
        panic!("an unplaced replica holds nothing up");
    };
    assert!(
        absent[0].contains("1 replica pending/no-node"),
        "{absent:?}"
    );
    // A cordoned node gets nothing new, and nobody waits for it.
    detail.job.kind = JobKind::Daemon;
    detail.unplaced = None;
    let mut cordoned = nodes.clone();
    cordoned[1].cordoned = true;
    assert!(matches!(
        judge(Version(2), &matching, &detail, &nodes),
        Verdict::Waiting { .. }
    ));
    assert!(matches!(
        judge(Version(2), &matching, &detail, &cordoned),
        Verdict::Done { .. }
    ));
}

fn with_rollout(phase: RolloutPhase, executions: Vec<Execution>) -> Verdict {
    let mut detail = fixtures::job_detail();
    detail.executions = executions;
    detail.job.rollout = Some(RolloutSummary {
        candidate: Version(2),
        good: Some(Version(1)),
        restored_by: (phase == RolloutPhase::RolledBack).then_some(Version(3)),
        phase,
        reason: (!matches!(phase, RolloutPhase::Canary | RolloutPhase::Rolling))
            .then(|| "e1: failed/configure, no such key".to_owned()),
        next_action: None,
    });
    let nodes = [fixtures::node("e1", UP), fixtures::node("e2", UP)];
    let matching = ["e1".parse().unwrap(), "e2".parse().unwrap()];
    let version = match phase {
        // Asked about the version that brought the old content back.
        RolloutPhase::Done => Version(3),
        _ => Version(2),
    };
    if phase == RolloutPhase::Done
        && let Some(rollout) = &mut detail.job.rollout
    {
        (rollout.phase, rollout.restored_by) = (RolloutPhase::RolledBack, Some(Version(3)));
    }
    judge(version, &matching, &detail, &nodes)
}

#[test]
fn a_rollout_that_went_back_is_a_failure_with_its_reason() {
    let runs = || {
        vec![
            at_version(3, fixtures::running("e1")),
            at_version(1, fixtures::running("e2")),
        ]
    };
    let Verdict::Failed { where_and_why } = with_rollout(RolloutPhase::RolledBack, runs()) else {
        panic!("it failed");
    };
    assert_eq!(
        where_and_why,
        [
            "e1: failed/configure, no such key",
            "it was rolled back: version 3 is version 1 again"
        ]
    );
    let got = with_rollout(RolloutPhase::Done, runs());
    assert!(matches!(got, Verdict::Done { .. }), "{got:?}");
}

#[test]
fn a_rollout_that_goes_on_is_waited_for() {
    let mut failed = fixtures::running("e1");
    failed.state = ExecutionState::Failed;
    for phase in [RolloutPhase::Canary, RolloutPhase::Rolling] {
        let runs = vec![failed.clone(), at_version(1, fixtures::running("e2"))];
        let Verdict::Waiting { missing } = with_rollout(phase, runs) else {
            panic!("{phase}: the rollout has not decided yet");
        };
        assert_eq!(missing[0], format!("the rollout is {phase}"));
        assert_eq!(missing[2], "e2: waits for its turn");
    }
    let runs = vec![failed, at_version(1, fixtures::running("e2"))];
    let got = with_rollout(RolloutPhase::Paused, runs);
    assert!(matches!(got, Verdict::Failed { .. }), "{got:?}");
    let all = vec![fixtures::running("e1"), fixtures::running("e2")];
    let got = with_rollout(RolloutPhase::Rolling, all);
    assert!(
        matches!(got, Verdict::Waiting { .. }),
        "they run, and are not proven: {got:?}"
    );
}
