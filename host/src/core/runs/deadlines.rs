//! When active tasks are over their timeouts, by the clock that nobody sets.
//!
//! The store keeps the wall clock's time, and only a process that did not see a try begin goes by it: a clock that jumps
//! while tasks run ends none of them, and lets none of them run on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sluice_model::{ExecutionId, MonotonicMs};

use crate::store::TaskRecord;

/// The deadlines of tries that this process saw. What a step that was undone left behind names no task, and goes.
#[derive(Debug, Default)]
pub(in crate::core) struct Deadlines(BTreeMap<ExecutionId, MonotonicMs>);

impl Deadlines {
    /// A try has this long from now on.
    pub(super) fn begin(&mut self, id: ExecutionId, left: Duration, now: MonotonicMs) {
        self.0.insert(id, now.plus(left));
    }

    /// Whether a try is over its timeout; `None` for one that was not seen yet.
    pub(super) fn is_late(&self, id: ExecutionId, now: MonotonicMs) -> Option<bool> {
        self.0.get(&id).map(|deadline| *deadline <= now)
    }

    /// Forgets all tries but those of these tasks.
    pub(super) fn keep(&mut self, active: &[TaskRecord]) {
        if self.0.is_empty() {
            return;
        }
        let known: BTreeSet<ExecutionId> = active.iter().filter_map(|it| it.execution).collect();
        self.0.retain(|id, _| known.contains(id));
    }
}
