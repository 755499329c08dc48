//! Edge decisions: desired x observed -> actions. No IO.
//!
//! The [`Agent`] holds, for every execution that this edge has a row for, what should run and what runs, and says what
//! to do next. The shell carries actions out and reports how they went; it decides nothing. Nothing here reads a
//! clock, draws a random number of its own, or waits.
//!
//! ```text
//!            row: run                 all here              turn            ok
//!   (new) ------------> fetching ---------------> compiling ----> starting ----> running
//!                          ^  ^                       |               |             |
//!                          |  +--- backoff 1 s..5 min +---------------+-------------+  (retry, crash, outside fault)
//!                          |                          |               |             |
//!          new version or attempt                     v               v             v
//!                          +------ refused | failed | quarantined ----+         completed
//!
//!   row: stop   -> stopping -> stopped           (state kept)
//!   row: purge  -> stopping -> purging -> purged (state deleted)
//! ```
//!
//! A process that dies while it brings an execution up would die again at its next start. So what is being brought up
//! is written down first; after [`DEATHS_MAX`] processes in a row that died of the same label it is left out for a
//! while, and the rest of the edge comes up without it.
//!
//! A new version goes through fetching, compiling and configuring while the old one runs on as the *fallback*; only
//! a prepared version makes the old one stop.

mod action;
mod agent;
mod assignment;
mod backoff;
mod execution;
mod observation;
#[cfg(test)]
mod tests;

pub use action::{Action, Ending, PrepareFailure, Ticket};
pub use agent::{Agent, Boot, DesiredChange, FETCHES_MAX, PASSING_TOLD_AFTER, PREPARES_MAX};
pub use assignment::{Artifact, ArtifactKind, Assignment, Label, SpecFacts, SpecParts};
pub use backoff::{
    CRASH_WINDOW, CRASHES_MAX, DEATHS_MAX, DELAY_MAX, DELAY_MIN, TRIES_MAX, TRIES_TIME_MAX,
};
pub use observation::{BringUp, Change, EndedHow, FailedTries, Local, Observation};

use sluice_model::{MonotonicMs, UnixMs};

/// The two clocks, as read by the caller: one for deciding, one for telling people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For every decision.
    pub mono: MonotonicMs,
    /// For what people read.
    pub unix: UnixMs,
}

impl Now {
    /// Both clocks, `after` later.
    #[must_use]
    pub fn plus(self, after: std::time::Duration) -> Self {
        Self {
            mono: self.mono.plus(after),
            unix: self.unix.plus(after),
        }
    }
}
