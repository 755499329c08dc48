//! What the API shows of a rollout, and what it means to the executions that wait for it.

use sluice_api::{Rollout, RolloutEvent, RolloutFailure, RolloutNodes, RolloutSummary};
use sluice_model::{Desired, ExecutionState, JobName, JobState, NodeState, RolloutPhase};
use sluice_scheduler::{Member, NO_MEMBERS, ONLY_MISFITS, RolloutRecord, UNCOUNTED};

use super::super::rollout::RolloutView;
use super::{Viewed, some};
use crate::store::JobRecord;

/// The report of one rollout.
pub(in crate::core) fn show_rollout(name: &JobName, view: &RolloutView) -> Rollout {
    let RolloutView {
        record,
        rules,
        members,
    } = view;
    let mut nodes = RolloutNodes::default();
    for member in members {
        nodes.matching += u64::from(!member.given_away);
        let followed = member.execution.as_ref();
        match followed.filter(|it| it.runs && it.version == record.candidate) {
            Some(it) if record.proven.contains(&it.id) => nodes.proven += 1,
            Some(_) if member.connected || record.is_open() => nodes.underway += 1,
            _ if !member.connected && !member.given_away => nodes.absent += 1,
            // Once it has ended nobody waits for a turn.
            _ if record.is_open() => nodes.waiting += 1,
            _ => {}
        }
    }
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Rollout {
        job: name.clone(),
        candidate: record.candidate,
        good: record.good.map(|good| good.version),
        restored_by: record.restored_by,
        phase: record.phase,
        reason: some(&record.reason),
        next: next(name, view, members),
        max_parallel: rules.max_parallel.to_string(),
        canary: rules.canary.into(),
        min_healthy_ms: millis(rules.min_healthy),
        error_rate_max: rules.error_rate_max,
        deadline_ms: millis(rules.deadline),
        nodes,
        failures: record
            .failures
            .iter()
            .map(|failure| RolloutFailure {
                node: failure.node.clone(),
                reason: failure.reason.clone(),
                at: failure.at,
            })
            .collect(),
        events: record
            .events
            .iter()
            .map(|event| RolloutEvent {
                at: event.at,
                what: event.what.clone(),
            })
            .collect(),
        started_at: record.started_at,
        changed_at: record.changed_at,
    }
}

fn next(name: &JobName, view: &RolloutView, members: &[Member]) -> String {
    let RolloutView { record, rules, .. } = view;
    let (candidate, healthy) = (record.candidate, rules.min_healthy);
    let failure = match record.good {
        Some(good) => format!("a failure brings version {} back", good.version),
        None => "a failure stops it".to_owned(),
    };
    // What is paused waits for a person, whoever connects.
    let moves = record.is_open() && record.phase != RolloutPhase::Paused;
    if moves && members.is_empty() {
        return format!(
            "it goes on when a node that matches joins or takes new executions again (`sluice explain {name}` says \
             why each does not); {failure}"
        );
    }
    if moves && !members.iter().any(|member| member.connected) {
        return format!("it goes on when a node that matches connects; {failure}");
    }
    let kept = moves && !record.reason.is_empty();
    if let Some(waits) = next_action(name, record).filter(|_| kept) {
        return format!("{waits}; {failure}");
    }
    match record.phase {
        RolloutPhase::Canary => format!(
            "when {} ran it for {healthy:?} without trouble the others follow, {} at a time; {failure}",
            match rules.canary {
                1 => "the canary".to_owned(),
                count => format!("{count} canaries"),
            },
            rules.max_parallel
        ),
        RolloutPhase::Rolling => format!(
            "each node that ran it for {healthy:?} without trouble makes room for the next, {} at a time; {failure}",
            rules.max_parallel
        ),
        RolloutPhase::Paused => format!(
            "nothing more is started: {}",
            next_action(name, record).unwrap_or_default()
        ),
        RolloutPhase::Done => format!("nothing: version {candidate} is the good one now"),
        RolloutPhase::RolledBack => format!(
            "nothing: nodes that are away never get version {candidate}; deploy a better one when it is mended"
        ),
    }
}

/// What a rollout waits for, in words; `None` once it has ended.
pub(in crate::core) fn next_action(name: &JobName, record: &RolloutRecord) -> Option<String> {
    let text = match record.phase {
        RolloutPhase::Done | RolloutPhase::RolledBack => return None,
        RolloutPhase::Paused => format!(
            "`sluice rollout resume {name}` goes on, `promote` gives it to every node{}",
            match record.good {
                Some(good) => format!(", `abort` brings version {} back", good.version),
                None => String::new(),
            }
        ),
        RolloutPhase::Canary | RolloutPhase::Rolling if record.reason.ends_with(UNCOUNTED) => {
            "when its node's next heartbeat comes".to_owned()
        }
        RolloutPhase::Canary | RolloutPhase::Rolling if record.reason == NO_MEMBERS => {
            "when a node that matches joins or takes new executions again".to_owned()
        }
        RolloutPhase::Canary | RolloutPhase::Rolling if record.reason == ONLY_MISFITS => format!(
            "when a node that has what it needs connects (`sluice explain {name}` says what each lacks)"
        ),
        RolloutPhase::Canary | RolloutPhase::Rolling if !record.reason.is_empty() => {
            let pause = match record.proven.is_empty() {
                true => "",
                false => "; it pauses when none does within its deadline",
            };
            format!("when a node that it could go to connects{pause}")
        }
        RolloutPhase::Canary => "when its canaries proved it the others follow".to_owned(),
        RolloutPhase::Rolling => "when the nodes that have it proved it the next follow".to_owned(),
    };
    Some(text)
}

/// A rollout in a job's listing.
pub(super) fn summary(name: &JobName, record: &RolloutRecord) -> RolloutSummary {
    RolloutSummary {
        candidate: record.candidate,
        good: record.good.map(|good| good.version),
        restored_by: record.restored_by,
        phase: record.phase,
        reason: some(&record.reason),
        next_action: next_action(name, record),
    }
}

/// A job is deploying while its rollout moves: while a connected node waits for its turn or has not proved it.
pub(super) fn job_state(record: &RolloutRecord, state: JobState, views: &[Viewed]) -> JobState {
    let moves = record.is_open() && record.phase != RolloutPhase::Paused;
    let waits = views.iter().any(|viewed| {
        viewed.record.desired == Desired::Run
            && viewed.node_state == NodeState::Connected
            && !(viewed.record.version == record.candidate
                && record.proven.contains(&viewed.record.id))
    });
    match state {
        JobState::Running | JobState::Degraded if moves && waits => JobState::Deploying,
        state => state,
    }
}

/// Says of executions at an older version why they are there.
pub(super) fn explain_old(job: &JobRecord, record: &RolloutRecord, views: &mut [Viewed]) {
    for viewed in views {
        let (row, view) = (&viewed.record, &mut viewed.view);
        let settled = [ExecutionState::Running, ExecutionState::Completed];
        let old = row.desired == Desired::Run && row.version < job.version;
        let ended = view.state == ExecutionState::Completed;
        if !old || !settled.contains(&view.state) || (ended && !view.reason.is_empty()) {
            continue;
        }
        if record.is_open() && row.version != record.candidate {
            view.reason = format!(
                "on version {}, waits for its turn in the rollout of version {}",
                row.version, record.candidate
            );
            view.next_action = turn(record, viewed.node_state);
        } else if record.phase == RolloutPhase::RolledBack && row.spec == job.spec {
            view.reason = format!(
                "version {} has the content of version {}, which runs on",
                job.version, row.version
            );
        }
    }
}

/// When a node's turn comes.
pub(in crate::core) fn turn(record: &RolloutRecord, node: NodeState) -> String {
    match (node, record.phase) {
        (NodeState::Connected, RolloutPhase::Paused) => {
            "when an operator resumes the rollout".to_owned()
        }
        (NodeState::Connected, _) => "when the nodes before it proved the new version".to_owned(),
        _ => "when it connects; it takes no room until then".to_owned(),
    }
}
