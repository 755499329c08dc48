//! The states people and programs see, with their fixed spellings.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! spelled {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// All of them, in order.
            pub const SPELLINGS: &[&str] = &[$($text,)*];

            /// The fixed spelling, as in JSON, tables and on disk.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    other => Err(format!("{other:?} is none of {}", Self::SPELLINGS.join(", "))),
                }
            }
        }
    )*};
}

spelled! {
    /// What a token of the API may do; each may do what those before it may.
    Role {
        /// Look at everything but tokens and the audit log.
        Reader = "reader",
        /// Deploy and order jobs.
        Deployer = "deployer",
        /// Everything.
        Admin = "admin",
    }

    /// What a token is for.
    TokenKind {
        /// Edges join with it.
        Join = "join",
        /// People and programs use the API with it.
        Api = "api",
    }

    /// Whether a token opens anything.
    TokenState {
        /// It does.
        Valid = "valid",
        /// So many edges have joined with it as may.
        UsedUp = "used-up",
        /// Its time is over.
        Expired = "expired",
        /// Somebody made it worthless.
        Revoked = "revoked",
    }

    /// What a row orders.
    Desired {
        /// Keep it running.
        Run = "run",
        /// End it, keep its state.
        Stop = "stop",
        /// End it and delete its state.
        Purge = "purge",
    }

    /// What one edge runtime reports of one execution at one (version, attempt).
    ObservedPhase {
        /// Pulling components.
        Fetching = "fetching",
        /// Compiling components.
        Compiling = "compiling",
        /// Opening inputs and outputs.
        Starting = "starting",
        /// Moving records.
        Running = "running",
        /// Waiting to try again by itself.
        Backoff = "backoff",
        /// This edge cannot run it as it is; tried again when something changes.
        Refused = "refused",
        /// Crashed too often; waits for a new version or attempt.
        Quarantined = "quarantined",
        /// Ended by itself, well. An outcome.
        Completed = "completed",
        /// Ended badly, for good. An outcome.
        Failed = "failed",
        /// Ended on order, state kept.
        Stopped = "stopped",
        /// Ended on order, state deleted.
        Purged = "purged",
    }

    /// An execution's state, speaking of its desired (version, attempt).
    ExecutionState {
        /// Not there yet; comes with a reason, a next action and a time.
        Pending = "pending",
        /// Runs.
        Running = "running",
        /// Ended well.
        Completed = "completed",
        /// Ended badly.
        Failed = "failed",
        /// Ended on order.
        Stopped = "stopped",
        /// Its node is lost.
        Lost = "lost",
        /// Crashed too often.
        Quarantined = "quarantined",
    }

    /// Why an execution is pending.
    PendingReason {
        /// Its node is not connected.
        WaitingForNode = "waiting-for-node",
        /// No node matches.
        NoNode = "no-node",
        /// The row is on its way.
        Sending = "sending",
        /// The edge pulls components.
        Fetching = "fetching",
        /// The edge compiles components.
        Compiling = "compiling",
        /// The edge starts it.
        Starting = "starting",
        /// Something it needs was not there; tried again.
        Backoff = "backoff",
        /// The edge cannot run it as it is.
        Refused = "refused",
        /// Its node is held.
        Held = "held",
    }

    /// Why an execution failed.
    FailReason {
        /// A stage said `fatal`.
        Fatal = "fatal",
        /// An output refused for good.
        Rejected = "rejected",
        /// A stage refused its configuration, or a `${...}` has no value on this node.
        Configure = "configure",
        /// Tried as often as allowed.
        Retries = "retries",
        /// Ran past its deadline.
        TimedOut = "timed-out",
        /// Called off.
        Cancelled = "cancelled",
        /// Nobody can tell whether it ended.
        Indeterminate = "indeterminate",
        /// Its node was lost.
        Lost = "lost",
    }

    /// What becomes of an execution whose node is lost.
    OnLost {
        /// It waits for its node.
        Wait = "wait",
        /// Another node takes its place.
        Replace = "replace",
        /// It counts as failed until its node is back.
        Fail = "fail",
    }

    /// A node's state.
    NodeState {
        /// Its session lives.
        Connected = "connected",
        /// Three heartbeats missed; what it runs is left alone.
        Disconnected = "disconnected",
        /// Away for longer than `lost_after`.
        Lost = "lost",
        /// Knows more than the orchestrator: nothing is stopped or sent until a person decides.
        Held = "held",
    }

    /// Where a rollout stands.
    RolloutPhase {
        /// The first nodes prove the new version.
        Canary = "canary",
        /// The other nodes get it, so many at a time.
        Rolling = "rolling",
        /// Nothing more is started until an operator says so.
        Paused = "paused",
        /// The new version is the good one now.
        Done = "done",
        /// The old content was deployed again.
        RolledBack = "rolled-back",
    }

    /// What becomes of a schedule's tick while a run of an earlier one is under way.
    Overlap {
        /// It launches its run beside that one.
        Allow = "allow",
        /// It launches nothing.
        Skip = "skip",
        /// It waits until that run has ended.
        Queue = "queue",
        /// That run is called off.
        CancelPrevious = "cancel-previous",
    }

    /// What becomes of the ticks that a schedule missed while no orchestrator was there.
    CatchUp {
        /// The newest one is launched.
        One = "one",
        /// Each is launched, one after the other unless they may overlap.
        All = "all",
        /// None is launched.
        Skip = "skip",
    }

    /// What became of a schedule's tick.
    TickOutcome {
        /// It launched a run.
        Launched = "launched",
        /// It waits for an earlier run to end.
        Queued = "queued",
        /// It launched nothing, as the schedule says.
        Skipped = "skipped",
        /// Its launch was refused.
        Refused = "refused",
    }

    /// A run's state, derived from its tasks.
    RunState {
        /// No task was placed yet.
        Pending = "pending",
        /// Not all tasks have ended.
        Running = "running",
        /// All tasks completed.
        Completed = "completed",
        /// One or more failed.
        Failed = "failed",
        /// None failed, one or more were called off.
        Cancelled = "cancelled",
        /// None failed, one or more ran past their timeout.
        TimedOut = "timed-out",
    }

    /// The state of one task of a run.
    TaskState {
        /// Not running yet; comes with a reason, a next action and a time.
        Pending = "pending",
        /// Runs.
        Running = "running",
        /// Ended well.
        Completed = "completed",
        /// Ended badly, or nobody can tell how.
        Failed = "failed",
        /// Called off.
        Cancelled = "cancelled",
        /// Ran past its timeout.
        TimedOut = "timed-out",
    }

    /// A job's state: the first that applies.
    JobState {
        /// Stopped by an operator.
        Stopped = "stopped",
        /// Nothing desired yet.
        Queued = "queued",
        /// Every execution completed.
        Completed = "completed",
        /// Every execution ended, one or more badly.
        Failed = "failed",
        /// Something is on its way.
        Deploying = "deploying",
        /// Something is wrong on a connected node, or nothing runs.
        Degraded = "degraded",
        /// Runs.
        Running = "running",
    }
}

/// What happens next to something that waits, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextAction {
    /// In words: `try again`, `when e1 connects`.
    pub action: String,
    /// When; `None` only where the action is an event.
    pub at: Option<crate::UnixMs>,
}
