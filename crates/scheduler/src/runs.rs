//! Runs: where a task goes, when it has ended, and what a run's tasks make of it.
//!
//! ```text
//!   waiting ── claimed and placed ──> active ── outcome, stop, loss ──> ended
//!      ^                                │
//!      └── tried again, taken back ─────┘       each try is an execution of its own
//! ```
//!
//! An ended try is never run again: a new one has a new execution, and with it a state of its own on the edge.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sluice_model::{
    Digest, FailReason, JobId, JobState, NodeId, ObservedPhase, OnLost, RunState, TaskState,
};

use crate::place::refusal;
use crate::plan::{NodeFacts, mismatch};
use sluice_model::pipeline::Select;

/// Wait before a task's second try; doubles with each one up to [`RETRY_DELAY_MAX`].
const RETRY_DELAY_MIN: Duration = Duration::from_secs(1);

/// Longest wait between two tries: what is not mended by then is looked at by a person.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(300);

/// Tries that may be taken back before a lost node fails the task: by then it may be the task that takes nodes down.
const TAKEN_BACK_MAX: u64 = 8;

/// Why a task cannot be placed now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// No node can take it as things are.
    NoNode {
        /// Of all nodes, what keeps each sort from it.
        reason: String,
        /// Each that could ever take it has refused it. One that an operator keeps off (cordoned, drained, held, revoked)
        /// has not: it may be let back in, until it is deleted.
        refused: bool,
    },
    /// The nodes that could are not connected.
    Away {
        /// Which.
        nodes: Vec<String>,
    },
}

/// A node as a task sees it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The node.
    pub node: NodeFacts,
    /// Its session lives.
    pub connected: bool,
}

/// What a task asks of a node.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Its job; decides between equal nodes.
    pub job: JobId,
    /// The job's selector.
    pub select: &'a Select,
    /// The one node that it may go to.
    pub pinned: Option<NodeId>,
    /// Nodes that other tasks of its run have or had.
    pub taken: &'a BTreeSet<NodeId>,
    /// Nodes that refused it.
    pub refused: &'a BTreeSet<NodeId>,
}

/// Chooses a connected node that matches, with the fewest of `tasks`, ties by a hash.
pub fn choose_node(
    wish: Wish<'_>,
    candidates: &[Candidate],
    tasks: &BTreeMap<NodeId, u64>,
) -> Result<NodeId, Unfit> {
    let mut away = Vec::new();
    let mut best: Option<(u64, Digest, NodeId)> = None;
    let mut tally: Vec<(Cow<'static, str>, u32)> = Vec::new();
    let (mut has_refused, mut is_kept_off) = (false, false);
    for Candidate { node, connected } in candidates {
        let obstacle: Option<Cow<'static, str>> =
            if wish.pinned.is_some_and(|pinned| pinned != node.id) {
                Some("not the node that it was launched for".into())
            } else if mismatch(wish.select, node).is_some() {
                Some("outside its selector".into())
            } else if wish.taken.contains(&node.id) {
                Some("taken by another task of the run".into())
            } else if wish.refused.contains(&node.id) {
                has_refused = true;
                Some("refused it before".into())
            } else if node.lost {
                away.push(node.name.to_string());
                None
            } else if let Some(refusal) = refusal(true, node) {
                is_kept_off |= node.lacks.is_none();
                Some(format!("refused since {refusal}").into())
            } else if *connected {
                let count = tasks.get(&node.id).copied().unwrap_or(0);
                if best.is_none_or(|(least, ..)| count <= least) {
                    let mut key = Vec::with_capacity(32);
                    key.extend_from_slice(&wish.job.to_bytes());
                    key.extend_from_slice(&node.id.to_bytes());
                    let entry = (count, Digest::of(&key), node.id);
                    if best.is_none_or(|best| entry < best) {
                        best = Some(entry);
                    }
                }
                None
            } else {
                away.push(node.name.to_string());
                None
            };
        if let Some(obstacle) = obstacle {
            match tally.iter_mut().find(|(words, _)| *words == obstacle) {
                Some((_, count)) => *count += 1,
                None => tally.push((obstacle, 1)),
            }
        }
    }
    if let Some((_, _, node)) = best {
        return Ok(node);
    }
    if !away.is_empty() {
        return Err(Unfit::Away { nodes: away });
    }
    let words: Vec<String> = tally
        .iter()
        .map(|(words, count)| format!("{count} {words}"))
        .collect();
    let reason = if words.is_empty() {
        "no node has joined yet".to_owned()
    } else {
        format!("of {} nodes: {}", candidates.len(), words.join(", "))
    };
    Err(Unfit::NoNode {
        reason,
        refused: has_refused && !is_kept_off,
    })
}

/// How a try ended, as the edge said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Where it stands.
    pub phase: ObservedPhase,
    /// With phase `failed`: the sort.
    pub fail: Option<FailReason>,
    /// In words.
    pub reason: String,
    /// It has been at work: records moved, or it was started more than once.
    pub worked: bool,
}

/// Why a task is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopping {
    /// An operator called it off.
    Cancelled,
    /// It ran past its timeout.
    TimedOut,
    /// Its node is drained.
    Drained,
}

/// An active task, and all that its end depends on.
#[derive(Clone, Debug)]
pub struct ActiveTask {
    /// Which try it is, from 1.
    pub attempt: u64,
    /// Tries before this one that failed. The others were refused, drained or lost, which costs it no retry.
    pub failures: u64,
    /// Tries after the first one that failed.
    pub retries: u32,
    /// It may run again when nobody can tell whether it has ended.
    pub idempotent: bool,
    /// What becomes of it when its node is lost. What is not idempotent ends as indeterminate, or waits.
    pub on_lost: OnLost,
    /// Its row may have reached the edge.
    pub exposed: bool,
    /// It was ordered to stop.
    pub stopping: Option<Stopping>,
    /// Why, in words; empty where that was not written down.
    pub stop_reason: String,
    /// The recorded outcome of this try.
    pub outcome: Option<Said>,
    /// What the edge said last of this try.
    pub live: Option<Said>,
    /// Its node counts as lost, was revoked or is forgotten.
    pub gone: bool,
    /// Its node or its execution is forgotten: nothing more will be said of this try.
    pub forgotten: bool,
    /// The edge lost its store since the row was committed.
    pub wiped: bool,
}

impl ActiveTask {
    /// Tries before this one that did not fail by themselves.
    fn taken_back(&self) -> u64 {
        self.attempt.saturating_sub(1 + self.failures)
    }
}

/// What becomes of an active task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Active,
    /// It is over.
    Ended {
        /// How.
        state: TaskState,
        /// With `failed`: the sort.
        fail: Option<FailReason>,
        /// In words.
        reason: String,
    },
    /// It failed, and is tried again after this wait.
    Retry {
        /// How long.
        after: Duration,
        /// Why, in words.
        reason: String,
    },
    /// It was taken back, which is no failure of its own: it is tried again at once.
    Again {
        /// Why, in words.
        reason: String,
    },
    /// Its node does not take it: another one may.
    Elsewhere {
        /// Why, in words.
        reason: String,
    },
}

/// Judges an active task. What its node may have goes on until that says something or is lost, stopped or not; what is
/// forgotten goes on never.
pub fn judge(task: &ActiveTask) -> Verdict {
    let failed = |fail, reason: String| Verdict::Ended {
        state: TaskState::Failed,
        fail: Some(fail),
        reason,
    };
    let again = |reason: &str| Verdict::Again {
        reason: reason.to_owned(),
    };
    let has_retries = task.failures < u64::from(task.retries);
    let retry = |reason: &str| Verdict::Retry {
        after: retry_delay(task.failures + 1),
        reason: reason.to_owned(),
    };
    if let Some(outcome) = &task.outcome {
        if outcome.phase == ObservedPhase::Completed {
            return Verdict::Ended {
                state: TaskState::Completed,
                fail: None,
                reason: outcome.reason.clone(),
            };
        }
        if let Some(stopping) = task.stopping.filter(|it| *it != Stopping::Drained) {
            return stopped(stopping, &task.stop_reason);
        }
        let mut fail = outcome.fail.unwrap_or(FailReason::Indeterminate);
        if fail == FailReason::Rejected {
            if task.idempotent || !outcome.worked {
                let reason = outcome.reason.clone();
                return Verdict::Elsewhere { reason };
            }
            fail = FailReason::Indeterminate;
        }
        let may_repeat = fail != FailReason::Indeterminate || task.idempotent;
        if may_repeat && has_retries {
            return retry(&outcome.reason);
        }
        return failed(fail, outcome.reason.clone());
    }
    if let Some(live) = &task.live
        && live.phase == ObservedPhase::Quarantined
    {
        // Said before it heard of being stopped.
        if let Some(stopping) = task.stopping.filter(|it| *it != Stopping::Drained) {
            return stopped(stopping, &task.stop_reason);
        }
        if task.idempotent && has_retries {
            return retry(&live.reason);
        }
        return failed(FailReason::Retries, live.reason.clone());
    }
    if let Some(live) = &task.live
        && live.phase == ObservedPhase::Refused
    {
        // It cannot read the order to stop either, and will never say that it has.
        if let Some(stopping) = task.stopping.filter(|it| *it != Stopping::Drained)
            && !live.worked
        {
            return stopped(stopping, &task.stop_reason);
        }
        // A newer program of that edge may read it yet, before it hears of anything else.
        return if task.idempotent && task.stopping.is_none_or(|it| it == Stopping::Drained) {
            let reason = live.reason.clone();
            Verdict::Elsewhere { reason }
        } else {
            failed(FailReason::Rejected, live.reason.clone())
        };
    }
    if task.wiped && !task.idempotent {
        return failed(
            FailReason::Indeterminate,
            "its edge lost its store while it was there, and nobody can tell whether its work was done; it is not \
             idempotent, so it does not run again"
                .to_owned(),
        );
    }
    if let Some(stopping) = task.stopping {
        let has_stopped = task.live.as_ref().is_some_and(|live| {
            matches!(live.phase, ObservedPhase::Stopped | ObservedPhase::Purged)
        });
        // It may run there for as long as nobody says otherwise, and holds its places.
        if task.exposed && !has_stopped && !task.gone && !task.forgotten {
            return Verdict::Active;
        }
        if stopping != Stopping::Drained {
            return stopped(stopping, &task.stop_reason);
        }
        let reason = "its node is being drained";
        return if !task.exposed || task.idempotent {
            again(reason)
        } else {
            failed(FailReason::Indeterminate, reason.to_owned())
        };
    }
    if task.gone {
        if !task.exposed {
            return again("its node was lost before it had it");
        }
        let reason = "its node is lost, and nobody can tell whether its work was done";
        return match task.on_lost {
            OnLost::Wait if !task.forgotten => Verdict::Active,
            _ if !task.idempotent => failed(
                FailReason::Indeterminate,
                format!("{reason}; it is not idempotent, so it does not run again"),
            ),
            OnLost::Fail => failed(FailReason::Lost, reason.to_owned()),
            OnLost::Wait | OnLost::Replace if task.taken_back() < TAKEN_BACK_MAX => {
                again("its node is lost")
            }
            OnLost::Wait | OnLost::Replace => failed(
                FailReason::Lost,
                format!(
                    "{reason}; it was taken back {TAKEN_BACK_MAX} times before, so it is not tried again"
                ),
            ),
        };
    }
    Verdict::Active
}

fn stopped(stopping: Stopping, why: &str) -> Verdict {
    let (state, fail, reason) = match stopping {
        Stopping::TimedOut => (
            TaskState::TimedOut,
            FailReason::TimedOut,
            "it ran past its timeout",
        ),
        Stopping::Cancelled | Stopping::Drained => (
            TaskState::Cancelled,
            FailReason::Cancelled,
            "it was called off",
        ),
    };
    let reason = if why.is_empty() { reason } else { why };
    Verdict::Ended {
        state,
        fail: Some(fail),
        reason: reason.to_owned(),
    }
}

/// Why a task is stopped that is over its timeout: what it was doing when time ran out, as far as its node has said.
pub fn ran_late(
    timeout: Option<Duration>,
    node: &str,
    connected: bool,
    live: Option<&Said>,
) -> String {
    let timeout = timeout.map_or(String::new(), |timeout| format!(" of {timeout:?}"));
    let away = if connected {
        String::new()
    } else {
        format!(" (last known: {node} is not connected)")
    };
    let doing = match live {
        None => format!("before {node} said anything of it"),
        Some(live) => {
            let doing = match live.phase {
                ObservedPhase::Backoff => "in backoff",
                phase => phase.as_str(),
            };
            match live.reason.as_str() {
                "" => format!("while {doing}"),
                reason => format!("while {doing}: {reason}"),
            }
        }
    };
    format!("ran past its timeout{timeout} {doing}{away}")
}

/// The wait after this many failures.
fn retry_delay(failures: u64) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
    RETRY_DELAY_MIN.saturating_mul(factor).min(RETRY_DELAY_MAX)
}

/// One task of a batch job's last run, as the job counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskStanding {
    /// It waits for a node or for its turn.
    Queued,
    /// It waits for its next try: the last one failed.
    Retrying,
    /// It is on its way on a connected node, and moved lately.
    Moving,
    /// It is in backoff, refused or quarantined, or has not moved for long, on a connected node.
    Stuck,
    /// Its node is lost, or away and it did not run there when last heard of.
    Away,
    /// It runs.
    Running,
    /// It ended well.
    Completed,
    /// It ended otherwise.
    Failed,
}

/// A batch job's state, from its last run's tasks: in the same words, and in the same order, as other jobs'.
pub fn batch_state(stopped: bool, tasks: &[TaskStanding]) -> JobState {
    use TaskStanding::{Away, Completed, Failed, Moving, Retrying, Running, Stuck};
    let has = |standing| tasks.contains(&standing);
    let all = |of: &[TaskStanding]| tasks.iter().all(|standing| of.contains(standing));
    if stopped {
        JobState::Stopped
    } else if tasks.is_empty() {
        JobState::Queued
    } else if all(&[Completed]) {
        JobState::Completed
    } else if all(&[Completed, Failed]) {
        JobState::Failed
    } else if has(Moving) {
        JobState::Deploying
    } else if has(Failed) || has(Stuck) || has(Retrying) {
        JobState::Degraded
    } else if has(Running) {
        JobState::Running
    } else if has(Away) {
        JobState::Degraded
    } else {
        JobState::Queued
    }
}

/// A run's state from those of its tasks, and whether one was ever placed.
pub fn run_state(tasks: impl IntoIterator<Item = TaskState>, started: bool) -> RunState {
    let tasks: BTreeSet<TaskState> = tasks.into_iter().collect();
    let has = |state| tasks.contains(&state);
    if has(TaskState::Pending) || has(TaskState::Running) {
        if started {
            RunState::Running
        } else {
            RunState::Pending
        }
    } else if has(TaskState::Failed) {
        RunState::Failed
    } else if has(TaskState::TimedOut) {
        RunState::TimedOut
    } else if has(TaskState::Cancelled) {
        RunState::Cancelled
    } else {
        RunState::Completed
    }
}

#[cfg(test)]
mod tests;
