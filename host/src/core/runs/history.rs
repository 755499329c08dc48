//! What is kept of runs that have ended, and how the rest is forgotten: with the rounds, a bounded number of rows in each.
//!
//! A launch has more rows forgotten than it adds, so the history stays bounded however fast runs are launched.

use std::time::Duration;

use sluice_model::Digest;

use super::super::{Core, Handled, Output, Step};
use crate::store::{Kept, Store, StoreError};

/// What is kept of runs that have ended; the oldest go. A run may have 1,000 tasks, and a task has about 1 kB of rows with
/// its spec and its output's: some 200 MB in all, ten tasks for each run.
const KEPT: Kept = Kept {
    runs: 20_000,
    tasks: 200_000,
};

/// How long the key of a run that is forgotten holds, since its launch: whoever repeats a request does it sooner.
const KEY_LIFE: Duration = Duration::from_secs(24 * 3_600);

/// Keys of forgotten runs that are kept, some 30 MB: the oldest go, should so many be launched within [`KEY_LIFE`].
const KEYS_KEPT: usize = 100_000;

/// Keys that one round forgets, beyond what its launches added: some milliseconds.
const KEYS_SWEPT: usize = 256;

/// Rows of old runs that one round looks at, beyond what its launches added: some milliseconds.
const ROWS_SWEPT: usize = 256;

/// Specs that one round looks at: some milliseconds.
const SPECS_SWEPT: usize = 256;

/// Where the sweeps stand; all of it may be forgotten.
#[derive(Debug, Default)]
pub(in crate::core) struct History {
    /// Up to this run everything was looked at.
    runs_after: u64,
    runs_due: bool,
    specs_after: Option<Digest>,
    specs_due: bool,
    /// Rows that launches added since the last sweep.
    added: usize,
}

impl History {
    /// A run was kept, in so many rows.
    pub(super) fn note_rows(&mut self, rows: usize) {
        self.added += rows;
        self.runs_due = true;
    }

    /// Everything is looked at anew: what was open may have ended.
    pub(super) fn look(&mut self) {
        self.runs_after = 0;
        self.runs_due = true;
        self.specs_due = true;
    }

    /// Whether there is something to look at.
    pub(in crate::core) fn is_due(&self) -> bool {
        self.runs_due || self.specs_due
    }
}

impl<S: Store> Core<S> {
    /// Forgets old runs, as many as one round has time for, and asks for another one when there are more.
    pub(in crate::core) fn sweep_history(
        &mut self,
        step: &mut Step,
    ) -> Result<Handled, StoreError> {
        if self.history.runs_due {
            let rows = ROWS_SWEPT + 2 * std::mem::take(&mut self.history.added);
            let (after, more) = self.store.sweep_runs(self.history.runs_after, KEPT, rows)?;
            self.history.runs_after = after;
            let before = self.long_ago(KEY_LIFE, step.now);
            let more_keys = self
                .store
                .sweep_keys(before, KEYS_KEPT, KEYS_SWEPT + rows)?;
            self.history.runs_due = more || more_keys;
        }
        if self.history.specs_due {
            let after = self.history.specs_after;
            self.history.specs_after = self.store.sweep_specs(after, SPECS_SWEPT)?;
            self.history.specs_due = self.history.specs_after.is_some();
        }
        if self.history.is_due() {
            step.out.push(Output::Again);
        }
        Ok(Handled::Keep)
    }
}
