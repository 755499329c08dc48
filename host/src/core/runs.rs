//! Runs: launched in one transaction, claimed and placed in one, ended in one.
//!
//! ```text
//!   launch ── run and tasks ──> waiting ── claim (limits, lease, fence) + execution + row ──> active
//!   report, tick, sweep ── judge ──> ended, or waiting for the next try
//! ```
//!
//! A claim and what it causes are one transaction, so no task is ever claimed without work, and no work is there without
//! its claim. Where a task goes and when it has ended is decided in `sluice_scheduler`.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_api::{ErrorBody, ErrorCode, RunTask};
use sluice_model::{
    Desired, FailReason, JobId, NodeId, NodeState, OnLost, RunId, TaskState, UnixMs,
};
use sluice_protocol::{ObservedRow, OutcomeKey};
use sluice_scheduler::{ActiveTask, Said, Stopping, Verdict, judge, ran_late};
use tracing::{info, warn};

use super::operator::{Called, Reply};
use super::outputs::PURGED_FIRST;
use super::{Core, LEASE, Now, Step};
use crate::store::{
    ExecutionRecord, JobRecord, NodeRecord, Store, StoreError, TaskEnd, TaskPhase, TaskRecord,
};

pub(super) mod deadlines;
pub(super) mod history;
mod launch;
pub(super) mod place;
mod view;

pub(super) use launch::{Asked, distinct};
pub(super) use view::state_of;

/// Ended tries of a job that a node keeps, with their logs and state; older ones are purged.
pub(super) const TRIES_KEPT: usize = 5;

/// Why a task ends whose pipeline an older program stored and this one no longer reads.
const UNREADABLE: &str = "its pipeline no longer parses; deploy the job again and launch it anew";

/// Claims are renewed when this much of their time is over.
const RENEW_AFTER: Duration = LEASE.checked_div(3).expect("three is not zero");

/// Of which jobs tries have ended on which nodes since the last tick.
#[derive(Debug)]
pub(super) struct TriesEnded {
    of: BTreeSet<(JobId, NodeId)>,
    /// What ended before this process, or in a round that was undone, is not among these: the store knows.
    unknown: bool,
}

impl Default for TriesEnded {
    fn default() -> Self {
        Self {
            of: BTreeSet::new(),
            unknown: true,
        }
    }
}

impl TriesEnded {
    /// Has the store looked at with the next tick.
    pub(super) fn look(&mut self) {
        self.unknown = true;
    }
}

impl<S: Store> Core<S> {
    /// Calls a run off: what waits ends at once, what is active is ordered to stop.
    pub(super) fn cancel_run(&mut self, id: RunId, step: &mut Step) -> Result<Called, StoreError> {
        let Some(run) = self.store.run(id)? else {
            return Ok(Err(no_run(id)));
        };
        let before = self.show_run(&run, step.now.unix)?;
        let called_off = |task: &RunTask| task.state == TaskState::Cancelled;
        // Asked again of one that was called off, it is answered again.
        if before.ended_at.is_some() && !before.tasks.iter().any(called_off) {
            let message = format!("run {id} had ended already, it is {}", before.state);
            return Ok(Err(ErrorBody::new(ErrorCode::Conflict, message)
                .with_help("nothing is left of it to call off")));
        }
        self.call_run_off(id, "an operator called it off", step)?;
        self.placing.look = None;
        let shown = self.show_run(&run, step.now.unix)?;
        Ok(Ok(Reply::Run(Box::new(shown))))
    }

    /// Calls every open task of a run off.
    pub(super) fn call_run_off(
        &mut self,
        id: RunId,
        reason: &str,
        step: &mut Step,
    ) -> Result<(), StoreError> {
        for task in self.store.tasks_of_run(id)? {
            self.call_off(&task, reason, step)?;
        }
        info!(event = "run.cancel", run = %id, reason);
        Ok(())
    }

    /// Calls every open task of a job off: it was stopped or deleted.
    pub(super) fn cancel_tasks_of_job(
        &mut self,
        job: &JobRecord,
        step: &mut Step,
    ) -> Result<(), StoreError> {
        let reason = if job.deleted {
            "its job was deleted"
        } else {
            "its job was stopped"
        };
        let end = TaskEnd {
            state: Some(TaskState::Cancelled),
            fail: Some(FailReason::Cancelled),
            reason: reason.to_owned(),
            ..TaskEnd::waiting(step.now.unix)
        };
        let ended = self.store.end_waiting_of_job(job.id, &end)?;
        self.tally.count_ends(end.state, ended as u64);
        for task in self.store.active_tasks()? {
            if task.job == job.id {
                self.call_off(&task, reason, step)?;
            }
        }
        Ok(())
    }

    fn call_off(
        &mut self,
        task: &TaskRecord,
        reason: &str,
        step: &mut Step,
    ) -> Result<(), StoreError> {
        match task.phase {
            TaskPhase::Waiting => {
                let end = TaskEnd {
                    state: Some(TaskState::Cancelled),
                    fail: Some(FailReason::Cancelled),
                    reason: reason.to_owned(),
                    ..TaskEnd::waiting(step.now.unix)
                };
                let done = self.store.end_waiting(task.seq, &end)?;
                self.tally.count_ends(end.state, u64::from(done));
            }
            TaskPhase::Active if task.stopping != Some(Stopping::Cancelled) => {
                self.stop_task(task, Stopping::Cancelled, reason.to_owned(), step)?;
            }
            TaskPhase::Active | TaskPhase::Ended => {}
        }
        Ok(())
    }

    /// Orders an active task to stop, and ends it at once where nobody will say that it has.
    fn stop_task(
        &mut self,
        task: &TaskRecord,
        why: Stopping,
        reason: String,
        step: &mut Step,
    ) -> Result<(), StoreError> {
        let worker = self.config.worker.clone();
        if !self
            .store
            .set_stopping(task.seq, &worker, task.fence, why, &reason)?
        {
            return Ok(());
        }
        if let Some(id) = task.execution
            && let Some(execution) = self.store.execution(id)?
            && execution.desired == Desired::Run
        {
            self.reorder(execution, Desired::Stop, step)?;
        }
        let task = TaskRecord {
            stopping: Some(why),
            reason,
            ..task.clone()
        };
        self.settle_task(&task, step)
    }

    pub(super) fn reorder(
        &mut self,
        execution: ExecutionRecord,
        desired: Desired,
        step: &mut Step,
    ) -> Result<(), StoreError> {
        if desired == Desired::Purge {
            self.store
                .lose_output(execution.id, PURGED_FIRST, step.now.unix)?;
        }
        let Some(job) = self.store.job(execution.job)? else {
            return Ok(());
        };
        let next = ExecutionRecord {
            desired,
            changed_at: step.now.unix,
            ..execution
        };
        self.commit_row(&job, &next, step)
    }

    /// What was reported of an execution may have ended its task.
    pub(super) fn settle_execution(
        &mut self,
        execution: &ExecutionRecord,
        step: &mut Step,
    ) -> Result<(), StoreError> {
        if execution.slot == sluice_model::Slot::ZERO {
            return Ok(());
        }
        match self.store.task_of_execution(execution.id)? {
            Some(task) if task.phase == TaskPhase::Active => self.settle_task(&task, step),
            _ => Ok(()),
        }
    }

    /// Time passed: claims are renewed and taken over, timeouts end, and what a report should have ended is looked at.
    pub(super) fn tend_runs(&mut self, swept: bool, step: &mut Step) -> Result<(), StoreError> {
        if swept {
            self.history.look();
        }
        if std::mem::take(&mut self.tries_ended.unknown) {
            self.tries_ended.of.extend(self.store.crowded(TRIES_KEPT)?);
        }
        for (job, node) in std::mem::take(&mut self.tries_ended.of) {
            self.purge_old_tries(job, node, step)?;
        }
        if !self.runs_open {
            return Ok(());
        }
        let now = step.now;
        let until = now.unix.plus(LEASE);
        let worker = self.config.worker.clone();
        // Before looking for those that ran out: a clock that jumped takes nothing from who is at work.
        if swept
            || self
                .claims_renewed
                .is_none_or(|last| now.mono.since(last) >= RENEW_AFTER)
        {
            self.store.renew_claims(&worker, until)?;
            self.claims_renewed = Some(now.mono);
        }
        if swept {
            let taken = self.store.reclaim_tasks(&worker, now.unix, until)?;
            self.count_taken(taken);
            if taken > 0 {
                warn!(
                    event = "run.reclaim",
                    tasks = taken,
                    "their claims had run out"
                );
            }
        }
        let active = self.store.active_tasks()?;
        let nodes = match active.as_slice() {
            [] => Vec::new(),
            _ => self.store.nodes()?,
        };
        let draining: BTreeSet<NodeId> = nodes
            .iter()
            .filter(|node| node.orders.draining)
            .map(|node| node.id)
            .collect();
        self.deadlines.keep(&active);
        let with_node = active.len() as u64;
        for task in active {
            let late = self.is_late(&task, now)?;
            let is_on = |nodes: &BTreeSet<NodeId>| {
                task.node
                    .as_ref()
                    .is_some_and(|(node, _)| nodes.contains(node))
            };
            if late && task.stopping.is_none() {
                let reason = self.why_late(&task)?;
                self.stop_task(&task, Stopping::TimedOut, reason, step)?;
            } else if is_on(&draining) && task.stopping.is_none() {
                let reason = "its node is being drained".to_owned();
                self.stop_task(&task, Stopping::Drained, reason, step)?;
            } else if swept || task.stopping.is_some() {
                self.settle_task(&task, step)?;
            }
        }
        let open = self.store.open_tasks()?;
        self.runs_open = open > 0;
        let tally = &self.tally;
        tally.tasks_open.store(open, Ordering::Relaxed);
        // What ended just now has no node any more.
        let with_node = with_node.min(open);
        tally.tasks_active.store(with_node, Ordering::Relaxed);
        // What is being looked at goes on by itself: to begin anew with every round of it would never end.
        self.runs_due |= self.runs_open && !self.placing.is_under_way();
        Ok(())
    }

    fn count_taken(&self, claims: usize) {
        let taken = &self.tally.claims_taken_over;
        taken.fetch_add(claims as u64, Ordering::Relaxed);
    }

    /// Whether a task ran past its timeout.
    fn is_late(&mut self, task: &TaskRecord, now: Now) -> Result<bool, StoreError> {
        let (Some(id), Some(deadline)) = (task.execution, task.deadline) else {
            return Ok(false);
        };
        if let Some(late) = self.deadlines.is_late(id, now.mono) {
            return Ok(late);
        }
        // An earlier process placed it. No clock makes what is left longer than the whole.
        let pipeline = self.pipeline_of_task(task)?;
        let batch = pipeline.as_ref().and_then(|it| it.batch.as_ref());
        let whole = batch.and_then(|batch| batch.timeout);
        let left = u64::try_from(deadline.0.saturating_sub(now.unix.0)).unwrap_or(0);
        let left = Duration::from_millis(left);
        let left = whole.map_or(left, |whole| left.min(whole));
        self.deadlines.begin(id, left, now.mono);
        Ok(left.is_zero())
    }

    /// What a task was doing when its time ran out.
    fn why_late(&mut self, task: &TaskRecord) -> Result<String, StoreError> {
        let pipeline = self.pipeline_of_task(task)?;
        let batch = pipeline.as_ref().and_then(|it| it.batch.as_ref());
        let timeout = batch.and_then(|batch| batch.timeout);
        let (Some(id), Some((node, name))) = (task.execution, &task.node) else {
            return Ok(ran_late(timeout, "its node", true, None));
        };
        let live = self.store.observed(*node, id)?.as_ref().map(said);
        let connected = self.live.contains_key(node);
        Ok(ran_late(timeout, name.as_str(), connected, live.as_ref()))
    }

    /// Judges an active task, and writes down what became of it.
    pub(super) fn settle_task(
        &mut self,
        task: &TaskRecord,
        step: &mut Step,
    ) -> Result<(), StoreError> {
        let (Some(id), Some((node, _))) = (task.execution, &task.node) else {
            return Ok(());
        };
        let record = self.store.execution(id)?;
        let outcome = match &record {
            Some(record) => self.store.outcome(OutcomeKey {
                execution: id,
                version: record.version,
                attempt: record.attempt,
            })?,
            None => None,
        };
        let live = self.store.observed(*node, id)?;
        let known = self.store.node(*node)?;
        let state = known.as_ref().map(|node| self.node_state(node));
        let revoked = known.as_ref().is_some_and(|node| node.revoked_at.is_some());
        let pipeline = self.pipeline_of_task(task)?;
        let batch = pipeline.as_ref().and_then(|it| it.batch.as_ref());
        let verdict = judge(&ActiveTask {
            attempt: task.attempt.0,
            failures: task.failures,
            retries: batch.map_or(0, |batch| batch.retries),
            idempotent: batch.is_some_and(|batch| batch.idempotent),
            on_lost: pipeline.as_ref().map_or(OnLost::Fail, |it| it.on_lost),
            exposed: task.exposed,
            stopping: task.stopping,
            stop_reason: task.reason.clone(),
            outcome: outcome.as_ref().map(said),
            live: live.as_ref().map(said),
            gone: revoked || record.is_none() || matches!(state, None | Some(NodeState::Lost)),
            forgotten: record.is_none() || known.is_none(),
            wiped: task.wiped,
        });
        let now = step.now.unix;
        let newest = outcome.or(live);
        let mut end = TaskEnd {
            refused: task.refused.clone(),
            failures: task.failures,
            records_in: newest.as_ref().map_or(0, |row| row.records_in),
            records_out: newest.as_ref().map_or(0, |row| row.records_out),
            ..TaskEnd::waiting(now)
        };
        match verdict {
            Verdict::Active => return Ok(()),
            Verdict::Ended {
                state,
                fail,
                reason,
            } => {
                end.state = Some(state);
                end.fail = fail;
                end.reason = reason;
            }
            Verdict::Retry { after, reason } => {
                end.reason = reason;
                end.not_before = now.plus(after);
                end.failures += 1;
            }
            Verdict::Again { reason } => end.reason = reason,
            Verdict::Elsewhere { reason } => {
                end.reason = match &task.node {
                    Some((_, name)) => format!("{name} refused it: {reason}"),
                    None => reason,
                };
                end.refused.insert(*node);
            }
        }
        let worker = self.config.worker.clone();
        if !self.store.end_try(task.seq, &worker, task.fence, &end)? {
            // Somebody else has the claim now, and decides.
            return Ok(());
        }
        self.placing.look = None;
        self.tally.count_ends(end.state, 1);
        info!(
            event = "run.task",
            run = %task.run,
            job = %task.job_name,
            execution = %id,
            attempt = task.attempt.0,
            state = end.state.map_or("again", TaskState::as_str),
            reason = %end.reason,
        );
        self.runs_due = true;
        if let Some(record) = record {
            let completed = end.state == Some(TaskState::Completed);
            if !completed && record.desired == Desired::Run {
                // Whatever the edge still has of this try, it is over.
                self.reorder(record, Desired::Stop, step)?;
            }
        }
        if end.state.is_none() {
            self.store.drop_output(id)?;
        }
        // With the next tick: purging costs a row and two reports, together as much as one.
        self.tries_ended.of.insert((task.job, *node));
        Ok(())
    }

    /// After a process start: claims of processes that are no more are this one's. The state directory has one process
    /// at a time, so nobody else can still work on them.
    pub(super) fn inherit_claims(&mut self, now: UnixMs) -> Result<(), StoreError> {
        let worker = self.config.worker.clone();
        let taken = self
            .store
            .reclaim_tasks(&worker, UnixMs(i64::MAX), now.plus(LEASE))?;
        self.count_taken(taken);
        if taken > 0 {
            info!(
                event = "run.reclaim",
                tasks = taken,
                "they were an earlier process's"
            );
        }
        self.store.release_schedules()?;
        Ok(())
    }

    /// A session of this node began: its rows go out, and with another store of the edge what it had is in doubt.
    pub(super) fn begin_with_tasks(
        &mut self,
        node: NodeId,
        wiped: bool,
        step: &mut Step,
    ) -> Result<(), StoreError> {
        self.runs_due = true;
        self.store.expose_tasks(node, wiped)?;
        if wiped {
            for task in self.store.active_tasks()? {
                if task.wiped && task.node.as_ref().is_some_and(|(at, _)| *at == node) {
                    self.settle_task(&task, step)?;
                }
            }
        }
        Ok(())
    }

    /// A node is forgotten, and with it whatever it had of its tasks; what may go nowhere else ends.
    pub(super) fn end_tasks_of_node(
        &mut self,
        node: &NodeRecord,
        step: &mut Step,
    ) -> Result<(), StoreError> {
        for task in self.store.active_tasks()? {
            if task.node.as_ref().is_some_and(|(at, _)| *at == node.id) {
                self.settle_task(&task, step)?;
            }
        }
        // Behind what was taken back just now. A machine that joins under the name again is another node.
        let end = TaskEnd {
            state: Some(TaskState::Failed),
            fail: Some(FailReason::Lost),
            reason: format!(
                "it was launched for the node {}, which was deleted; launch it again for another one",
                node.name
            ),
            ..TaskEnd::waiting(step.now.unix)
        };
        let ended = self.store.end_waiting_for_node(node.id, &end)?;
        self.tally.count_ends(end.state, ended as u64);
        Ok(())
    }

    /// A stopped or deleted job's executions that runs made.
    pub(super) fn end_runs_of_job(
        &mut self,
        job: &JobRecord,
        executions: &[ExecutionRecord],
        step: &mut Step,
    ) -> Result<(), StoreError> {
        if !job.stopped && !job.deleted {
            return Ok(());
        }
        self.cancel_tasks_of_job(job, step)?;
        if !job.deleted {
            return Ok(());
        }
        for execution in executions {
            if let Some(now) = self.store.execution(execution.id)?
                && now.desired != Desired::Purge
            {
                self.reorder(now, Desired::Purge, step)?;
            }
        }
        Ok(())
    }
}

fn said(row: &ObservedRow) -> Said {
    Said {
        phase: row.phase,
        fail: row.fail,
        reason: row.reason.clone(),
        worked: row.records_in > 0 || row.restarts > 0,
    }
}

pub(super) fn no_run(id: RunId) -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, format!("no run {id}"))
        .with_help("`sluice run list` lists them")
}
