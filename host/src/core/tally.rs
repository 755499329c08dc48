//! What the core counts of itself, for metrics. Anybody may read it at any time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sluice_metrics::Timings;

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
