//! Objects as an orchestrator would send them, for tests.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use sluice_api::{
    Execution, Explain, ExplainNode, Job, JobComponent, JobDetail, JobKind, Node, NodeDetail,
    Observed, Plugin, Rollout, RolloutEvent, RolloutFailure, RolloutNodes,
};
use sluice_model::{
    Attempt, BootCounter, Desired, Digest, ExecutionId, ExecutionState, Incarnation, JobId,
    JobState, NodeId, NodeState, ObservedPhase, OnLost, PendingReason, Revision, RolloutPhase,
    Slot, UnixMs, Version,
};

/// 2026-11-22T10:00:00Z.
pub(crate) const NOON: UnixMs = UnixMs(1_795_341_600_000);

pub(crate) fn node(name: &str, state: NodeState) -> Node {
    let connected = state == NodeState::Connected;
    Node {
        name: name.parse().unwrap(),
        id: NodeId::from_random([1; 16]),
        state,
        cordoned: false,
        draining: false,
        orders: 0,
        labels: BTreeMap::from([("site".to_owned(), "plant-7".to_owned())]),
        executions: 1,
        held_reason: (state == NodeState::Held)
            .then(|| "it knows revision 9, and we are at 7".to_owned()),
        revoked_at: None,
        alarm: None,
        created_at: NOON,
        last_seen_at: Some(NOON),
        connected_since: connected.then_some(NOON),
        address: connected.then(|| "127.0.0.1:40000".to_owned()),
        incarnation: Some(Incarnation::from_random([2; 16])),
        boot_counter: BootCounter(3),
        program: Some("0.1.0".to_owned()),
        versions: vec![1],
        desired_rev: Revision(7),
        received_rev: Revision(6),
        observed_rev: Revision(4),
        last_ack_at: Some(NOON),
        certificate_expires_at: None,
    }
}

pub(crate) fn node_detail() -> NodeDetail {
    NodeDetail {
        node: node("e1", NodeState::Connected),
        capabilities: vec!["connector:file".to_owned(), "arch:x86_64".to_owned()],
        execution_list: vec![running("e1")],
    }
}

pub(crate) fn job(name: &str, state: JobState) -> Job {
    Job {
        name: name.parse().unwrap(),
        id: JobId::from_random([3; 16]),
        kind: JobKind::Daemon,
        count: None,
        on_lost: OnLost::Wait,
        version: Version(2),
        state,
        stopped: state == JobState::Stopped,
        desired: 2,
        running: 1,
        waiting: 1,
        failed: 0,
        completed: 0,
        select: BTreeMap::from([(
            "site".to_owned(),
            vec!["plant-7".to_owned(), "plant-8".to_owned()],
        )]),
        created_at: NOON,
        updated_at: NOON,
        rollout: None,
    }
}

pub(crate) fn job_detail() -> JobDetail {
    JobDetail {
        job: job("field-temps", JobState::Running),
        unplaced: None,
        pipeline: "name = \"field-temps\"\n[input.generate]\n".to_owned(),
        spec_digest: Digest::of(b"spec"),
        components: vec![JobComponent {
            stage: "drop-debug".parse().unwrap(),
            digest: Digest::of(b"component"),
            size: 123_456,
        }],
        executions: vec![running("e1"), away("e2")],
    }
}

pub(crate) fn rolled_back() -> Rollout {
    let event = |what: &str| RolloutEvent {
        at: NOON,
        what: what.to_owned(),
    };
    Rollout {
        job: "field-temps".parse().unwrap(),
        candidate: Version(2),
        good: Some(Version(1)),
        restored_by: Some(Version(3)),
        phase: RolloutPhase::RolledBack,
        reason: Some("e1: failed/configure, no such key".to_owned()),
        next: "nothing".to_owned(),
        max_parallel: "10%".to_owned(),
        canary: 1,
        min_healthy_ms: 10_000,
        error_rate_max: Some(0.01),
        deadline_ms: 300_000,
        nodes: RolloutNodes {
            matching: 50,
            waiting: 45,
            absent: 5,
            ..RolloutNodes::default()
        },
        failures: vec![RolloutFailure {
            node: "e1".parse().unwrap(),
            reason: "failed/configure, no such key\u{1b}[2J".to_owned(),
            at: NOON,
        }],
        events: vec![event("e1 gets version 2"), event("e1 failed\u{1b}[2J")],
        started_at: NOON,
        changed_at: NOON,
    }
}

pub(crate) fn running(node: &str) -> Execution {
    Execution {
        id: ExecutionId::from_random([4; 16]),
        job: "field-temps".parse().unwrap(),
        job_id: JobId::from_random([3; 16]),
        version: Version(2),
        node: node.parse().unwrap(),
        node_id: NodeId::from_random([1; 16]),
        slot: Slot(0),
        desired: Desired::Run,
        state: ExecutionState::Running,
        last_known: false,
        reason_code: None,
        reason: None,
        next_action: None,
        next_at: None,
        attempt: Attempt(1),
        restarts: 0,
        records_in: 2000,
        records_out: 520,
        dead_letters: 3,
        observed: Some(Observed {
            version: Version(2),
            attempt: Attempt(1),
            state: ObservedPhase::Running,
            at: NOON,
            reason: None,
            running_version: None,
        }),
        rev: Revision(7),
        received: true,
        last_ack_at: Some(NOON),
        created_at: NOON,
        changed_at: NOON,
    }
}

pub(crate) fn away(node: &str) -> Execution {
    Execution {
        state: ExecutionState::Pending,
        reason_code: Some(PendingReason::WaitingForNode.into()),
        reason: Some(format!("{node} is disconnected since 09:58")),
        next_action: Some(format!("when {node} connects")),
        received: false,
        observed: None,
        records_in: 0,
        records_out: 0,
        dead_letters: 0,
        ..running(node)
    }
}

pub(crate) fn backing_off(node: &str) -> Execution {
    Execution {
        state: ExecutionState::Pending,
        reason_code: Some(PendingReason::Backoff.into()),
        reason: Some("cannot open in.log:\n\u{1b}[31mno such file".to_owned()),
        next_action: Some("try again".to_owned()),
        next_at: Some(UnixMs(NOON.0 + 5_000)),
        ..running(node)
    }
}

pub(crate) fn explain() -> Explain {
    let line = |execution: &Execution, node_state, matches, why: &str| ExplainNode {
        node: execution.node.clone(),
        node_state,
        matches,
        why: why.to_owned(),
        execution: matches.then_some(execution.id),
        state: matches.then_some(execution.state),
        last_known: matches && execution.last_known,
        reason_code: execution.reason_code.filter(|_| matches),
        reason: execution.reason.clone().filter(|_| matches),
        next_action: execution.next_action.clone().filter(|_| matches),
        next_at: execution.next_at,
        rev: matches.then_some(execution.rev),
        received: execution.received,
        received_rev: Revision(6),
        last_ack_at: Some(NOON),
        observed: execution.observed.clone().filter(|_| matches),
    };
    Explain {
        job: "field-temps".parse().unwrap(),
        id: JobId::from_random([3; 16]),
        version: Version(2),
        state: JobState::Running,
        why: "it runs on every connected node that matches".to_owned(),
        unplaced: None,
        nodes: vec![
            line(&running("e1"), NodeState::Connected, true, "site=plant-7"),
            line(&away("e2"), NodeState::Disconnected, true, "site=plant-7"),
            line(
                &running("e3"),
                NodeState::Connected,
                false,
                "its label site is `plant-9`, not plant-7 or plant-8",
            ),
        ],
    }
}

pub(crate) fn plugin() -> Plugin {
    Plugin {
        digest: Digest::of(b"component"),
        size: 123_456,
        imports: vec!["sluice:pipeline/log@0.1.0".to_owned()],
        world: "transform".to_owned(),
        used_by: vec!["a@1".to_owned(), "b@2".to_owned()],
        in_use: true,
    }
}
