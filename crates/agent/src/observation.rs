//! What the agent wants written down: observed rows, outcomes, and what this edge must remember for itself.

use sluice_model::{ExecutionId, FailReason, ObservedPhase, UnixMs, Version};

use crate::{Assignment, Label};

/// Where an execution stands, without counters and the time of writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The execution.
    pub execution: ExecutionId,
    /// What `phase` speaks of.
    pub label: Label,
    /// Where it stands.
    pub phase: ObservedPhase,
    /// With phase `failed`: the sort.
    pub fail: Option<FailReason>,
    /// In words.
    pub reason: String,
    /// What happens next by itself; empty when nothing.
    pub next_action: String,
    /// When; `None` when nothing, or when it waits for an event.
    pub next_at: Option<UnixMs>,
    /// Local restarts at this label.
    pub restarts: u64,
    /// The older version that still runs.
    pub running_version: Option<Version>,
}

impl Observation {
    /// Whether this machine leaves the state by itself, without waiting for a time or for anybody.
    pub(crate) fn passes(&self) -> bool {
        let waits_for_others = self.phase == ObservedPhase::Refused;
        !waits_for_others && !self.next_action.is_empty() && self.next_at.is_none()
    }
}

/// How a label ended for good on this edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndedHow {
    /// By itself, well.
    Completed,
    /// Badly.
    Failed {
        /// Which sort.
        reason: FailReason,
        /// In words.
        message: String,
    },
    /// Crashed too often.
    Quarantined {
        /// In words.
        message: String,
    },
}

/// That a label is being brought up, or that the process died of that. On disk before the risky step begins, so that a
/// process that finds it in progress knows what the one before died of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BringUp {
    /// Which try of which version.
    pub label: Label,
    /// Whether it is under way: it was given its turn to be prepared, and has neither failed nor run since.
    pub in_progress: bool,
    /// Processes that died of it in a row.
    pub deaths: u64,
}

/// Tries of a task in a row that came to nothing, so that a restart of the process gives it none anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedTries {
    /// Of which attempt.
    pub label: Label,
    /// How many.
    pub failed: u64,
    /// From the first one's failure to the last one's, in milliseconds.
    pub took_ms: u64,
}

/// What must survive a restart of the process, besides the rows. Local: it never travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The execution.
    pub execution: ExecutionId,
    /// What was started last and should run on as long as nothing newer is prepared.
    pub started: Option<Assignment>,
    /// How the desired label ended, once it has: it is not run again.
    pub ended: Option<(Label, EndedHow)>,
    /// Local restarts of what was started last.
    pub restarts: u64,
    /// What is being brought up, and how often the process died of it; at most one for each lane.
    pub bring_ups: Vec<BringUp>,
    /// What a task could not open so far.
    pub tries: Option<FailedTries>,
    /// Set while there is no row: how long its state has been kept, in milliseconds of running time.
    pub leftover_ms: Option<u64>,
}

/// Something to write down, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The live row of an execution.
    Live(Observation),
    /// The execution has no live row any more.
    LiveRemoved(ExecutionId),
    /// How an attempt ended; never merged, kept until acknowledged.
    Outcome(Observation),
    /// Remember this.
    Local(Local),
    /// Forget it.
    LocalRemoved(ExecutionId),
}
