//! What is deleted for its age, and by which clock.

use std::time::Duration;

use sluice_model::UnixMs;

use super::{Core, Now};
use crate::store::{Store, StoreError};

/// How long a token is kept that has expired: it is worth nothing, unless the clock was wrong.
const TOKEN_KEPT: Duration = Duration::from_secs(24 * 3_600);

impl<S: Store> Core<S> {
    /// Deletes what nobody can need any more.
    pub(super) fn sweep_old(&mut self, now: Now) -> Result<(), StoreError> {
        self.store.sweep_tokens(self.long_ago(TOKEN_KEPT, now))?;
        self.store.sweep_audit()?;
        self.store
            .sweep_deleted_nodes(self.long_ago(Duration::ZERO, now))
    }

    /// So long ago by the wall clock, unless that has run ahead of the time that passed since this life began: what is
    /// deleted for its age is not deleted for a clock that is wrong for one look.
    pub(super) fn long_ago(&self, age: Duration, now: Now) -> UnixMs {
        let passed = now.mono.since(self.born.mono);
        let steady = now.unix.min(self.born.unix.plus(passed));
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        UnixMs(steady.0.saturating_sub(age_ms))
    }
}
