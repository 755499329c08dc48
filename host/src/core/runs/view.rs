//! What the API shows of runs.

use std::collections::BTreeSet;

use sluice_api::{Execution, ReasonCode, Run, RunTask};
use sluice_model::{JobId, JobState, PendingReason, RunState, TaskState, UnixMs};
use sluice_scheduler::{JobCounts, MOVING, TaskStanding, Unfit, batch_state, run_state};

use super::super::Core;
use super::super::operator::{Called, Reply};
use super::no_run;
use super::place::{Lacks, Look};
use crate::store::{JobRecord, RunProgress, RunRecord, Store, StoreError, TaskPhase, TaskRecord};

mod waiting;

/// Different reasons to wait that one line tells.
const REASONS_MAX: usize = 3;

/// Absent nodes that one line names.
const NAMED_MAX: usize = 5;

/// A run's state, from what has become of its tasks: the same as from their own states, since of those that have not ended
/// it matters only whether one was placed.
pub(in crate::core) fn state_of(progress: &RunProgress) -> RunState {
    let ends = progress.ends.iter();
    let states = ends.map(|end| end.unwrap_or(TaskState::Pending));
    run_state(states, progress.started)
}

/// Why a task waits, and what ends that.
struct Wait {
    reason: String,
    next_action: String,
    next_at: Option<UnixMs>,
}

impl<S: Store> Core<S> {
    pub(in crate::core) fn run(
        &mut self,
        id: sluice_model::RunId,
        now: UnixMs,
    ) -> Result<Called, StoreError> {
        Ok(match self.store.run(id)? {
            Some(run) => Ok(Reply::Run(Box::new(self.show_run(&run, now)?))),
            None => Err(no_run(id)),
        })
    }

    pub(in crate::core) fn show_run(
        &mut self,
        run: &RunRecord,
        now: UnixMs,
    ) -> Result<Run, StoreError> {
        Ok(self.show_run_standing(run, now)?.0)
    }

    /// A run, and how each of its tasks stands with its job.
    fn show_run_standing(
        &mut self,
        run: &RunRecord,
        now: UnixMs,
    ) -> Result<(Run, Vec<(JobId, TaskStanding)>), StoreError> {
        let tasks = self.store.tasks_of_run(run.id)?;
        let started_at = tasks.iter().filter_map(|task| task.started_at).min();
        let claim = tasks
            .iter()
            .filter(|task| task.phase == TaskPhase::Active)
            .max_by_key(|task| task.claimed_until);
        let (claimed_by, claimed_until) =
            claim.map_or((None, None), |it| (it.claimed_by.clone(), it.claimed_until));
        let mut look = match self.placing.look.take() {
            Some(look) => look,
            None => self.look()?,
        };
        let mut shown = Vec::with_capacity(tasks.len());
        let mut standings = Vec::with_capacity(tasks.len());
        for task in &tasks {
            let (told, standing) = self.show_task(task, &mut look, now)?;
            shown.push(told);
            standings.push((task.job, standing));
        }
        // For the next question of this round.
        self.placing.look = Some(look);
        let state = run_state(shown.iter().map(|task| task.state), started_at.is_some());
        let is_over = !matches!(state, RunState::Pending | RunState::Running);
        let ended_at = tasks.iter().filter_map(|task| task.ended_at).max();
        let mut jobs: Vec<_> = tasks.iter().map(|task| task.job_name.clone()).collect();
        jobs.dedup();
        let run = Run {
            id: run.id,
            jobs,
            state,
            tasks: shown,
            params: run.params.clone(),
            stdin: run.stdin,
            schedule: run.tick.as_ref().map(|tick| tick.name.clone()),
            scheduled_for: run.tick.as_ref().map(|tick| tick.nominal),
            launched_at: run.launched_at,
            started_at,
            ended_at: ended_at.filter(|_| is_over),
            claimed_by,
            claimed_until,
        };
        Ok((run, standings))
    }

    fn show_task(
        &mut self,
        task: &TaskRecord,
        look: &mut Look,
        now: UnixMs,
    ) -> Result<(RunTask, TaskStanding), StoreError> {
        let mut standing = match task.end {
            Some(TaskState::Completed) => TaskStanding::Completed,
            Some(_) => TaskStanding::Failed,
            None if task.not_before > now => TaskStanding::Retrying,
            None => TaskStanding::Queued,
        };
        let mut shown = RunTask {
            job: task.job_name.clone(),
            version: task.version,
            node: task.node.as_ref().map(|(_, name)| name.clone()),
            state: task.end.unwrap_or(TaskState::Pending),
            reason_code: task.fail,
            reason: (!task.reason.is_empty()).then(|| task.reason.clone()),
            next_action: None,
            next_at: None,
            attempt: task.attempt,
            execution: task.execution,
            records_in: task.records_in,
            records_out: task.records_out,
            started_at: task.started_at,
            ended_at: task.ended_at,
            claimed_by: task.claimed_by.clone(),
            claimed_until: task.claimed_until,
        };
        match task.phase {
            TaskPhase::Ended => {}
            TaskPhase::Waiting => {
                if let Some(pinned) = task.pinned {
                    shown.node = look.nodes.get(&pinned).map(|node| node.name.clone());
                }
                let wait = self.wait_of(task, look, now)?;
                shown.reason = Some(wait.reason);
                shown.next_action = Some(wait.next_action);
                shown.next_at = wait.next_at;
            }
            TaskPhase::Active => {
                let execution = match task.execution {
                    Some(id) => self.show_one_execution(id)?,
                    None => None,
                };
                standing = match &execution {
                    Some(execution) => standing_of(execution, now),
                    None => TaskStanding::Moving,
                };
                if let Some(execution) = execution {
                    use sluice_model::ExecutionState as State;
                    shown.records_in = execution.records_in;
                    shown.records_out = execution.records_out;
                    shown.reason = execution.reason;
                    if execution.state == State::Pending {
                        shown.next_action = execution.next_action;
                        shown.next_at = execution.next_at;
                    } else {
                        shown.state = TaskState::Running;
                    }
                }
                if let (Some(_), Some((_, node))) = (task.stopping, &task.node) {
                    let why = match task.reason.as_str() {
                        "" => String::new(),
                        why => format!(": {why}"),
                    };
                    shown.reason = Some(format!("it is being stopped on {node}{why}"));
                    let next = format!("when {node} says that it has stopped, or counts as lost");
                    (shown.next_action, shown.next_at) = (Some(next), None);
                }
                if shown.state == TaskState::Pending {
                    let what = || "its node has not said anything of it yet".to_owned();
                    shown.reason = shown.reason.or_else(|| Some(what()));
                    let next = || "when its node reports on it".to_owned();
                    shown.next_action = shown.next_action.or_else(|| Some(next()));
                }
            }
        }
        Ok((shown, standing))
    }

    /// What a waiting task waits for.
    fn wait_of(
        &mut self,
        task: &TaskRecord,
        look: &mut Look,
        now: UnixMs,
    ) -> Result<Wait, StoreError> {
        if task.not_before > now {
            return Ok(Wait {
                reason: format!("its last try failed: {}", task.reason),
                next_action: "try again".to_owned(),
                next_at: Some(task.not_before),
            });
        }
        let event = |reason: String, next_action: &str| Wait {
            reason,
            next_action: next_action.to_owned(),
            next_at: None,
        };
        let full = |what: &str, max: u32| {
            let reason = format!("{what} has its {max} tasks that may run at once");
            event(reason, "when one of them ends")
        };
        // Who waits again says since what.
        let before = match task.reason.as_str() {
            "" => String::new(),
            reason => format!("; before: {reason}"),
        };
        let lacks = match self.node_for(task, look)? {
            Ok(node) => self.room_for(task, node, look),
            Err(lacks) => Some(lacks),
        };
        let limits = &self.config.limits;
        Ok(match lacks {
            None => Wait {
                reason: "its turn comes".to_owned(),
                next_action: "place it".to_owned(),
                next_at: Some(now),
            },
            Some(Lacks::Text) => Wait {
                reason: super::UNREADABLE.to_owned(),
                next_action: "end it".to_owned(),
                next_at: Some(now),
            },
            Some(Lacks::Node(Unfit::Away { mut nodes })) => {
                nodes.sort_unstable();
                let (nodes, next) = away(&nodes);
                event(format!("{nodes}{before}"), &next)
            }
            Some(Lacks::Node(Unfit::NoNode { reason, .. })) => event(
                format!("no node can take it: {reason}{before}"),
                match task.pinned {
                    None => {
                        "when a matching node joins, returns, is uncordoned, labelled or upgraded"
                    }
                    // A node that joins is no help.
                    Some(_) => "when that node is let back in, uncordoned, labelled or upgraded",
                },
            ),
            Some(Lacks::All) => full("the orchestrator", limits.all),
            Some(Lacks::Job(max)) => full(task.job_name.as_str(), max),
            // There was one when it was launched.
            Some(Lacks::Pool(pool, 0)) => event(
                format!("the orchestrator was started without the pool `{pool}`"),
                &format!("when it is started with `--pool {pool}=SIZE`"),
            ),
            Some(Lacks::Pool(pool, max)) => full(&format!("the pool `{pool}`"), max),
            Some(Lacks::OnNode) => full("every connected node that could take it", limits.per_node),
        })
    }

    /// A batch job's state and counts: those of its last run.
    pub(in crate::core) fn batch_state(
        &mut self,
        job: JobId,
        stopped: bool,
        now: UnixMs,
    ) -> Result<(JobState, JobCounts, Option<Run>), StoreError> {
        let Some(record) = self.store.last_run_of_job(job)? else {
            let state = if stopped {
                JobState::Stopped
            } else {
                JobState::Queued
            };
            return Ok((state, JobCounts::default(), None));
        };
        let (run, standings) = self.show_run_standing(&record, now)?;
        let mut counts = JobCounts::default();
        let mut mine = Vec::new();
        for ((of, standing), shown) in standings.into_iter().zip(&run.tasks) {
            if of != job {
                continue;
            }
            mine.push(standing);
            counts.desired += 1;
            match shown.state {
                TaskState::Pending => counts.waiting += 1,
                TaskState::Running => counts.running += 1,
                TaskState::Completed => counts.completed += 1,
                TaskState::Failed | TaskState::Cancelled | TaskState::TimedOut => {
                    counts.failed += 1;
                }
            }
        }
        let state = batch_state(stopped, &mine);
        Ok((state, counts, Some(run)))
    }

    /// The command that launches a job, with what it must be told.
    fn how_to_launch(&mut self, job: &JobRecord) -> Result<String, StoreError> {
        let mut command = format!("sluice run launch {}", job.name);
        let pipeline = self.readable_pipeline(job.spec)?;
        let params = pipeline.and_then(|it| it.batch).map(|batch| batch.params);
        for (name, param) in params.unwrap_or_default() {
            if param.default.is_none() {
                command.push_str(&format!(" --param {name}=..."));
            }
        }
        Ok(command)
    }

    /// Why a batch job has its state, in one line: its last run, and what its tasks wait for.
    pub(in crate::core) fn why_batch(
        &mut self,
        job: &JobRecord,
        now: UnixMs,
    ) -> Result<String, StoreError> {
        if job.stopped {
            return Ok("an operator stopped it; `sluice job start` starts it again".to_owned());
        }
        let (_, counts, run) = self.batch_state(job.id, job.stopped, now)?;
        let Some(run) = run else {
            return Ok(format!(
                "queued until it is launched: `{}`",
                self.how_to_launch(job)?
            ));
        };
        let mut why = format!(
            "its last run {} is {}: of {} tasks {} wait, {} run, {} completed, {} ended otherwise",
            run.id,
            run.state,
            counts.desired,
            counts.waiting,
            counts.running,
            counts.completed,
            counts.failed
        );
        let mut told = BTreeSet::new();
        for task in run.tasks.iter().filter(|task| task.job == job.name) {
            let reason = task.reason.clone().unwrap_or_default();
            let line = match task.state {
                TaskState::Pending => {
                    let next = task.next_action.clone().unwrap_or_default();
                    format!("; waits since {reason} ({next})")
                }
                TaskState::Failed | TaskState::Cancelled | TaskState::TimedOut => {
                    format!("; one is {}: {reason}", task.state)
                }
                TaskState::Running | TaskState::Completed => continue,
            };
            // A thousand tasks wait for the same few things.
            if told.len() < REASONS_MAX && told.insert(line.clone()) {
                why.push_str(&line);
            }
        }
        why.push_str(&self.why_others(job, &run, now)?);
        Ok(why)
    }
}

/// How an active task stands, by its execution.
fn standing_of(execution: &Execution, now: UnixMs) -> TaskStanding {
    use sluice_model::ExecutionState as State;
    match execution.state {
        State::Pending => {}
        State::Lost => return TaskStanding::Away,
        State::Quarantined | State::Failed => return TaskStanding::Stuck,
        State::Running | State::Completed | State::Stopped => return TaskStanding::Running,
    }
    let away = ReasonCode::Pending(PendingReason::WaitingForNode);
    if execution.last_known || execution.reason_code == Some(away) {
        return TaskStanding::Away;
    }
    let stuck = [
        PendingReason::Backoff,
        PendingReason::Refused,
        PendingReason::Held,
    ];
    let is_stuck = |code| stuck.map(ReasonCode::Pending).contains(&code);
    if execution.reason_code.is_some_and(is_stuck) || now > execution.changed_at.plus(MOVING) {
        TaskStanding::Stuck
    } else {
        TaskStanding::Moving
    }
}

/// That nodes could take a task and are away, and what ends that.
fn away(nodes: &[String]) -> (String, String) {
    match nodes {
        [node] => (
            format!("{node} could take it and is not connected"),
            format!("when {node} connects"),
        ),
        nodes => {
            let named = nodes[..nodes.len().min(NAMED_MAX)].join(", ");
            let more = match nodes.len().saturating_sub(NAMED_MAX) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            (
                format!("{named}{more} could take it, and none is connected"),
                "when one of them connects".to_owned(),
            )
        }
    }
}
