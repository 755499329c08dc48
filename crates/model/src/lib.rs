//! The nouns of Sluice: ids, digests, states and the pipeline document.
//!
//! Everything here is data and its checking. Nothing here does IO, reads a clock, or draws a random
//! number: whoever needs a fresh id passes the random bytes in.

mod digest;
mod ids;
mod names;
mod openapi;
mod output;
pub mod pipeline;
mod state;
mod stdin;
mod time;
mod world;

pub use digest::{Digest, DigestError};
pub use ids::{
    Attempt, BootCounter, BootNonce, Epoch, EvaluationId, ExecutionId, Fence, IdError, Incarnation,
    JobId, LifeNonce, NodeId, Revision, RunId, ScheduleId, SessionId, Slot, TokenId, Version,
};
pub use names::{
    CommandName, JobName, Labels, NameError, NodeName, ScheduleName, StageName, check_label_key,
    check_label_value,
};
pub use output::{OUTPUT_BYTES_MAX, OutputFacts};
pub use state::{
    CatchUp, Desired, ExecutionState, FailReason, JobState, NextAction, NodeState, ObservedPhase,
    OnLost, Overlap, PendingReason, Role, RolloutPhase, RunState, TaskState, TickOutcome,
    TokenKind, TokenState,
};
pub use stdin::STDIN_BYTES_MAX;
pub use time::{MonotonicMs, UnixMs};
pub use world::World;
