//! What the core counts of itself, for metrics. Anybody may read it at any time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sluice_metrics::Timings;
use sluice_model::TaskState;

/// Totals of this process's life.
#[derive(Debug, Default)]
pub struct Tally {
    /// Sessions that began.
    pub sessions_opened: AtomicU64,
    /// Sessions that ended.
    pub sessions_closed: AtomicU64,
    /// Hellos and joins that were refused.
    pub refusals: AtomicU64,
    /// Machines that joined.
    pub joins: AtomicU64,
    /// Evaluations that were claimed.
    pub evaluations: AtomicU64,
    /// Ticks of schedules that launched a run.
    pub ticks_launched: AtomicU64,
    /// Ticks that began to wait for an earlier run.
    pub ticks_queued: AtomicU64,
    /// Ticks that launched nothing.
    pub ticks_skipped: AtomicU64,
    /// Ticks whose launch was refused.
    pub ticks_refused: AtomicU64,
    /// Runs that were launched.
    pub runs_launched: AtomicU64,
    /// Their tasks.
    pub tasks_launched: AtomicU64,
    /// Tasks that completed.
    pub tasks_completed: AtomicU64,
    /// Tasks that failed.
    pub tasks_failed: AtomicU64,
    /// Tasks that were called off.
    pub tasks_cancelled: AtomicU64,
    /// Tasks that ran past their timeouts.
    pub tasks_timed_out: AtomicU64,
    /// Tries of tasks that ended with another one to come.
    pub tasks_again: AtomicU64,
    /// Claims that were another process's.
    pub claims_taken_over: AtomicU64,
    /// Tasks that have not ended, when it was looked last.
    pub tasks_open: AtomicU64,
    /// Those of them that have a node.
    pub tasks_active: AtomicU64,
    /// Assignments that plans changed.
    pub plan_changes: AtomicU64,
    /// Sets that did not add up and were sent again, either way.
    pub resyncs: AtomicU64,
    /// Steps and rounds that the store did not take.
    pub store_failures: AtomicU64,
    /// The store waits for room.
    pub disk_full: AtomicBool,
    /// Outputs of tasks that edges told of; grows before they can be asked for.
    pub outputs_noted: AtomicU64,
    /// Outputs that were pulled.
    pub outputs_pulled: AtomicU64,
    /// Pulls of outputs that failed, for now or for good.
    pub output_pull_failures: AtomicU64,
    /// Some lacked when it was looked last.
    pub outputs_lacking: AtomicBool,
    /// From sending assignments to their acknowledgement.
    pub acks: Timings,
    /// Rounds: deciding and committing what waited together. Counted by whoever runs the core.
    pub rounds: Timings,
}

/// Counts one more.
pub(crate) fn count(number: &AtomicU64) {
    number.fetch_add(1, Ordering::Relaxed);
}

impl Tally {
    /// Counts tasks that ended so; `None`: a try that ended, and another one comes.
    pub(super) fn count_ends(&self, state: Option<TaskState>, tasks: u64) {
        let number = match state {
            Some(TaskState::Completed) => &self.tasks_completed,
            Some(TaskState::Failed) => &self.tasks_failed,
            Some(TaskState::Cancelled) => &self.tasks_cancelled,
            Some(TaskState::TimedOut) => &self.tasks_timed_out,
            None => &self.tasks_again,
            // No end.
            Some(TaskState::Pending | TaskState::Running) => return,
        };
        number.fetch_add(tasks, Ordering::Relaxed);
    }
}
