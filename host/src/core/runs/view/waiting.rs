//! What tasks of all runs wait for, a bounded number of lines.

use std::collections::BTreeSet;

use sluice_api::{Run, WaitingTasks};
use sluice_model::{ExecutionState, UnixMs};

use super::REASONS_MAX;
use crate::core::Core;
use crate::store::{JobRecord, Store, StoreError, WaitingOf};

/// Sorts of waiting tasks that are looked at: more than a person reads.
const FRONTS_MAX: usize = 64;

impl<S: Store> Core<S> {
    /// How many tasks wait, and for what: of those that are placed alike the oldest is asked.
    pub(in crate::core) fn waiting_tasks(
        &mut self,
        of: WaitingOf,
        now: UnixMs,
    ) -> Result<(u64, Vec<WaitingTasks>), StoreError> {
        let all = self.store.waiting_count(of)?;
        if all == 0 {
            return Ok((0, Vec::new()));
        }
        let fronts = self.store.waiting_fronts(of, FRONTS_MAX)?;
        let mut look = match self.placing.look.take() {
            Some(look) => look,
            None => self.look()?,
        };
        let mut shown: Vec<WaitingTasks> = Vec::new();
        for (task, count) in fronts {
            let wait = self.wait_of(&task, &mut look, now)?;
            let entry = WaitingTasks {
                job: task.job_name,
                count,
                run: task.run,
                reason: wait.reason,
                next_action: wait.next_action,
                next_at: wait.next_at,
            };
            let alike = |it: &&mut WaitingTasks| {
                it.job == entry.job
                    && it.reason == entry.reason
                    && it.next_action == entry.next_action
                    && it.next_at == entry.next_at
            };
            match shown.iter_mut().find(alike) {
                Some(known) => known.count += count,
                None => shown.push(entry),
            }
        }
        // For the next question of this round.
        self.placing.look = Some(look);
        Ok((all, shown))
    }

    /// What a batch job's runs but its last one wait for, with no node yet or on theirs; empty when nothing of them does.
    pub(super) fn why_others(
        &mut self,
        job: &JobRecord,
        last: &Run,
        now: UnixMs,
    ) -> Result<String, StoreError> {
        Ok(self.why_no_node(job, last, now)? + &self.why_not_running(job, last)?)
    }

    /// What is placed and does not run.
    fn why_not_running(&mut self, job: &JobRecord, last: &Run) -> Result<String, StoreError> {
        let others = self.store.active_tasks()?.into_iter();
        let others = others.filter(|task| task.job == job.id && task.run != last.id);
        let (mut why, mut told) = (String::new(), BTreeSet::new());
        for task in others.take(FRONTS_MAX) {
            let execution = match task.execution {
                Some(id) => self.show_one_execution(id)?,
                None => None,
            };
            let Some(execution) = execution.filter(|it| it.state == ExecutionState::Pending) else {
                continue;
            };
            let reason = execution.reason.unwrap_or_default();
            if told.len() < REASONS_MAX && told.insert(reason.clone()) {
                let next = execution.next_action.unwrap_or_default();
                let at = execution
                    .next_at
                    .map_or(String::new(), |at| format!(" at {at}"));
                why.push_str(&format!(
                    "; its run {} waits on {}: {reason} ({next}{at})",
                    task.run, execution.node
                ));
            }
        }
        Ok(why)
    }

    fn why_no_node(
        &mut self,
        job: &JobRecord,
        last: &Run,
        now: UnixMs,
    ) -> Result<String, StoreError> {
        let others = WaitingOf::Others {
            job: job.id,
            than: last.id,
        };
        let (all, shown) = self.waiting_tasks(others, now)?;
        if all == 0 {
            return Ok(String::new());
        }
        let mut why = format!("; of its other runs {all} tasks wait");
        for entry in shown.iter().take(REASONS_MAX) {
            why.push_str(&format!(
                "; {} since {} ({}), the oldest in run {}",
                entry.count, entry.reason, entry.next_action, entry.run
            ));
        }
        Ok(why)
    }
}
