//! What an execution's and a job's rows mean to people: one state, and never a wait without its reason, next action
//! and time.

use std::time::Duration;

use sluice_model::{
    Attempt, Desired, ExecutionState, FailReason, JobState, NodeName, NodeState, ObservedPhase,
    OnLost, PendingReason, Revision, UnixMs, Version,
};

/// How long a pending execution counts as on its way after it last moved.
pub const MOVING: Duration = Duration::from_secs(5 * 60);

/// A node as far as its executions' states depend on it.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// Its state.
    pub state: NodeState,
    /// Kept out by an operator.
    pub revoked: bool,
    /// Its desired rows are on its disk up to here.
    pub received: Revision,
}

/// What an edge said of one (version, attempt).
#[derive(Clone, Debug)]
pub struct Observed {
    /// The version.
    pub version: Version,
    /// The attempt.
    pub attempt: Attempt,
    /// Where it stands.
    pub phase: ObservedPhase,
    /// The sort of failure.
    pub fail: Option<FailReason>,
    /// In words.
    pub reason: String,
    /// What the edge does next by itself.
    pub next_action: String,
    /// When.
    pub next_at: Option<UnixMs>,
    /// When it said so.
    pub at: UnixMs,
    /// The older version that runs in its place.
    pub running_version: Option<Version>,
}

/// Everything that an execution's state depends on.
#[derive(Clone, Debug)]
pub struct ViewInput<'a> {
    /// Its node.
    pub node: &'a NodeView,
    /// Its row's version.
    pub version: Version,
    /// Its row's attempt.
    pub attempt: Attempt,
    /// Its row's order.
    pub desired: Desired,
    /// The revision that its row was committed at.
    pub rev: Revision,
    /// When its row was committed.
    pub changed_at: UnixMs,
    /// The newest live row of it.
    pub live: Option<&'a Observed>,
    /// The outcome at its row's version and attempt.
    pub outcome: Option<&'a Observed>,
    /// What becomes of it when its node is lost.
    pub on_lost: OnLost,
    /// Its node was lost and its place given away.
    pub replaced: bool,
    /// What its node lacks to run its version, in words.
    pub lacks: Option<&'a str>,
}

/// An execution's state for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutionView {
    /// The state, of the desired version and attempt.
    pub state: ExecutionState,
    /// A stable word; empty where the state says it all.
    pub reason_code: &'static str,
    /// In words.
    pub reason: String,
    /// What happens next; empty when nothing needs to.
    pub next_action: String,
    /// When; `None` when nothing happens, or when it waits for an event.
    pub next_at: Option<UnixMs>,
    /// When anything about it last moved.
    pub moved_at: UnixMs,
    /// An older version runs in its place.
    pub on_old_version: bool,
    /// The state is what was last known: the node that said it is not connected.
    pub last_known: bool,
}

/// Derives an execution's state.
pub fn view_execution(input: &ViewInput<'_>) -> ExecutionView {
    let moved_at = input
        .live
        .map_or(input.changed_at, |live| live.at.max(input.changed_at));
    let on_old_version = input.live.is_some_and(|live| {
        let running = match live.phase {
            ObservedPhase::Running => Some(live.version),
            _ => None,
        };
        live.running_version
            .or(running)
            .is_some_and(|running| running != input.version)
    });
    let settled = |state, reason: String| ExecutionView {
        state,
        reason_code: "",
        reason,
        next_action: String::new(),
        next_at: None,
        moved_at,
        on_old_version: false,
        last_known: false,
    };
    let pending =
        |code: PendingReason, reason: String, next_action: String, next_at| ExecutionView {
            state: ExecutionState::Pending,
            reason_code: code.as_str(),
            reason,
            next_action,
            next_at,
            moved_at,
            on_old_version,
            last_known: false,
        };
    let node = input.node;
    if let Some(outcome) = input.outcome {
        return match outcome.phase {
            ObservedPhase::Completed => settled(ExecutionState::Completed, outcome.reason.clone()),
            _ => ExecutionView {
                reason_code: outcome.fail.unwrap_or(FailReason::Indeterminate).as_str(),
                on_old_version,
                ..settled(ExecutionState::Failed, outcome.reason.clone())
            },
        };
    }
    if node.revoked && input.desired == Desired::Run {
        return pending(
            PendingReason::WaitingForNode,
            format!("{} was revoked and does no work", node.name),
            format!("when {} joins again with a token made for it", node.name),
            None,
        );
    }
    if node.state == NodeState::Held {
        return pending(
            PendingReason::Held,
            format!(
                "{} is held: it knows of assignments that this orchestrator has lost",
                node.name
            ),
            "when an operator adopts or discards what the node has".to_owned(),
            None,
        );
    }
    if node.state == NodeState::Lost && input.desired == Desired::Run {
        if input.replaced {
            return ExecutionView {
                next_action: format!(
                    "when {} connects: it keeps its place unless a replacement runs by then",
                    node.name
                ),
                ..settled(
                    ExecutionState::Lost,
                    format!(
                        "{} is lost, and the place is given to another node",
                        node.name
                    ),
                )
            };
        }
        if input.on_lost == OnLost::Fail {
            return ExecutionView {
                reason_code: FailReason::Lost.as_str(),
                next_action: format!("when {} connects it counts again", node.name),
                ..settled(
                    ExecutionState::Failed,
                    format!("{} is lost, and the job says on_lost = \"fail\"", node.name),
                )
            };
        }
    }
    let current = input
        .live
        .filter(|live| (live.version, live.attempt) == (input.version, input.attempt));
    let runs = current.is_some_and(|live| live.phase == ObservedPhase::Running);
    if let Some(lacks) = input
        .lacks
        .filter(|_| input.desired == Desired::Run && !runs)
    {
        return pending(
            PendingReason::Refused,
            format!("{} lacks {lacks}", node.name),
            format!(
                "when {} connects with a program that has it, or a version is deployed that needs less",
                node.name
            ),
            None,
        );
    }
    let away = node.state != NodeState::Connected;
    if input.rev > node.received {
        return if away {
            pending(
                PendingReason::WaitingForNode,
                format!(
                    "{} is {}; the assignment is kept for it",
                    node.name, node.state
                ),
                format!("when {} connects", node.name),
                None,
            )
        } else {
            pending(
                PendingReason::Sending,
                format!("the assignment is on its way to {}", node.name),
                format!("when {} acknowledges it", node.name),
                None,
            )
        };
    }
    if input.desired != Desired::Run {
        return match current.map(|live| live.phase) {
            None | Some(ObservedPhase::Stopped | ObservedPhase::Purged) => {
                settled(ExecutionState::Stopped, String::new())
            }
            Some(_) if away => ExecutionView {
                next_action: format!("when {} connects", node.name),
                last_known: true,
                ..settled(
                    ExecutionState::Running,
                    format!(
                        "last known: {} was stopping it and is {}",
                        node.name, node.state
                    ),
                )
            },
            Some(_) => ExecutionView {
                next_action: format!("when {} has stopped it", node.name),
                ..settled(
                    ExecutionState::Running,
                    format!("{} is stopping it", node.name),
                )
            },
        };
    }
    let Some(live) = current else {
        return if away {
            pending(
                PendingReason::WaitingForNode,
                format!("{} has the assignment and is {}", node.name, node.state),
                format!("when {} connects", node.name),
                None,
            )
        } else {
            pending(
                PendingReason::Starting,
                format!("{} has the assignment", node.name),
                format!("when {} reports on it", node.name),
                None,
            )
        };
    };
    let wait = |code: PendingReason, what: &str| {
        let reason = if live.reason.is_empty() {
            format!("{} is {what}", node.name)
        } else {
            live.reason.clone()
        };
        let next_action = if live.next_action.is_empty() {
            format!("when {} is done {what}", node.name)
        } else {
            live.next_action.clone()
        };
        pending(code, reason, next_action, live.next_at)
    };
    let view = match live.phase {
        ObservedPhase::Running if node.state == NodeState::Lost => ExecutionView {
            next_action: format!("when {} connects", node.name),
            ..settled(
                ExecutionState::Lost,
                format!("{} is lost; it ran there when last heard of", node.name),
            )
        },
        ObservedPhase::Running if away => ExecutionView {
            next_action: format!("when {} connects", node.name),
            ..settled(
                ExecutionState::Running,
                format!("last known: {} is {}", node.name, node.state),
            )
        },
        ObservedPhase::Running => settled(ExecutionState::Running, String::new()),
        ObservedPhase::Fetching => wait(PendingReason::Fetching, "fetching"),
        ObservedPhase::Compiling => wait(PendingReason::Compiling, "compiling"),
        ObservedPhase::Starting | ObservedPhase::Stopped | ObservedPhase::Purged => {
            wait(PendingReason::Starting, "starting it")
        }
        ObservedPhase::Backoff => wait(PendingReason::Backoff, "waiting to try again"),
        ObservedPhase::Refused => {
            let view = wait(PendingReason::Refused, "refusing it");
            ExecutionView {
                next_action: "when a version is deployed that this node can run".to_owned(),
                next_at: None,
                ..view
            }
        }
        ObservedPhase::Quarantined => ExecutionView {
            reason_code: "quarantined",
            next_action: "when a new version is deployed, or the job is started again".to_owned(),
            ..settled(ExecutionState::Quarantined, live.reason.clone())
        },
        ObservedPhase::Completed => settled(ExecutionState::Completed, live.reason.clone()),
        ObservedPhase::Failed => ExecutionView {
            reason_code: live.fail.unwrap_or(FailReason::Indeterminate).as_str(),
            on_old_version,
            ..settled(ExecutionState::Failed, live.reason.clone())
        },
    };
    ExecutionView {
        last_known: away
            && matches!(
                view.state,
                ExecutionState::Running | ExecutionState::Pending | ExecutionState::Quarantined
            ),
        ..view
    }
}

/// A job's executions counted by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// With a row that orders `run`.
    pub desired: u64,
    /// Running.
    pub running: u64,
    /// Of these, on nodes that are not connected: they ran when last heard of.
    pub unheard: u64,
    /// Pending or lost.
    pub waiting: u64,
    /// Failed or quarantined.
    pub failed: u64,
    /// Completed.
    pub completed: u64,
}

/// One execution as its job counts it.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// Its view.
    pub view: &'a ExecutionView,
    /// Its node's state.
    pub node: NodeState,
    /// What its row orders.
    pub desired: Desired,
    /// Its node was lost and its place given away: it does not count.
    pub replaced: bool,
}

/// Derives a job's state and counts from its executions, and from how many `unplaced` ones find no node.
pub fn job_state<'a>(
    stopped: bool,
    executions: impl IntoIterator<Item = Counted<'a>>,
    unplaced: u64,
    now: UnixMs,
) -> (JobState, JobCounts) {
    let mut counts = JobCounts::default();
    let mut placed = false;
    let mut moving = false;
    let mut troubled = false;
    let mut old_runs = false;
    for Counted {
        view,
        node,
        desired,
        replaced,
    } in executions
    {
        if desired != Desired::Run {
            continue;
        }
        placed = true;
        if replaced {
            continue;
        }
        counts.desired += 1;
        let connected = node == NodeState::Connected;
        match view.state {
            ExecutionState::Running => {
                counts.running += 1;
                counts.unheard += u64::from(!connected);
            }
            ExecutionState::Completed => counts.completed += 1,
            ExecutionState::Failed | ExecutionState::Quarantined => {
                counts.failed += 1;
                // That its node is away is what it failed of.
                troubled |= connected || view.reason_code == FailReason::Lost.as_str();
            }
            ExecutionState::Pending | ExecutionState::Lost | ExecutionState::Stopped => {
                counts.waiting += 1;
                let stuck = view.reason_code == PendingReason::Backoff.as_str()
                    || view.reason_code == PendingReason::Refused.as_str();
                let recent = now <= view.moved_at.plus(MOVING);
                moving |= connected && !stuck && recent;
                troubled |= connected && (stuck || !recent);
            }
        }
        troubled |= connected && view.on_old_version;
        old_runs |= view.on_old_version;
    }
    counts.desired += unplaced;
    counts.waiting += unplaced;
    let state = if stopped {
        JobState::Stopped
    } else if !placed {
        JobState::Queued
    } else if counts.completed == counts.desired {
        JobState::Completed
    } else if counts.completed + counts.failed == counts.desired && !old_runs {
        JobState::Failed
    } else if moving {
        JobState::Deploying
    } else if troubled || counts.running == 0 {
        JobState::Degraded
    } else {
        JobState::Running
    };
    (state, counts)
}

#[cfg(test)]
mod tests;
