//! What the agent asks its shell to do, and what comes back.

use std::fmt;

use sluice_model::{Digest, ExecutionId, FailReason};

use crate::{ArtifactKind, Assignment};

/// Names one preparing, and the instance that is started from it: what comes back late for another one is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What to do. Each is asked for once; its answer comes back through the `handle_` function named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make sure that this artifact is here and whole: `handle_fetched`.
    Fetch {
        /// The artifact.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// What it is for.
        kind: ArtifactKind,
    },
    /// Nothing waits for this artifact any more: give the fetch up. Its end still comes through `handle_fetched`.
    CancelFetch {
        /// The artifact.
        digest: Digest,
    },
    /// Compile and configure: `handle_phase`, then `handle_prepared`.
    Prepare {
        /// Names the result.
        ticket: Ticket,
        /// What to prepare.
        assignment: Assignment,
    },
    /// A preparing or its result is not wanted any more; no answer is needed, and one that comes is ignored.
    Discard {
        /// Which.
        ticket: Ticket,
    },
    /// Start what was prepared: `handle_running`, and once `handle_ended`.
    Start {
        /// Which.
        ticket: Ticket,
        /// For the record.
        assignment: Assignment,
    },
    /// Stop what was started: `handle_ended`.
    Stop {
        /// Which.
        ticket: Ticket,
        /// Whose.
        execution: ExecutionId,
    },
    /// Delete the state of an execution that does not run: `handle_purged`.
    Purge {
        /// Whose.
        execution: ExecutionId,
    },
}

/// Why preparing did not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrepareFailure {
    /// A stage refused its configuration, or a `${...}` has no value here: failed, for good.
    Configure(String),
    /// This edge cannot run it as it is: refused until something changes.
    Refused(String),
    /// The machine did not let us: again later.
    Retry(String),
}

/// How a started instance ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, well.
    Completed,
    /// On order; what it had begun can go on where it was.
    Stopped,
    /// On order, midway: its input cannot go on where it was, or what its output took is not known.
    Cut,
    /// For good.
    Failed {
        /// Which sort.
        reason: FailReason,
        /// In words.
        message: String,
    },
    /// Something outside was not as it needs: again later. For ever, unless it is a task.
    Backoff(String),
    /// A bug of ours: again later, and counted.
    Crashed(String),
}
