//! The orchestrator's decisions: which executions a job should have, and what their states mean to people.
//!
//! Everything is a function of a snapshot; planning the same state twice plans nothing the second time. Nothing here
//! does IO, reads a clock or draws a random number.

mod fit;
mod place;
mod plan;
mod rollout;
mod runs;
mod schedule;
mod view;

pub use fit::lacking;
pub use place::refusal;
pub use plan::{
    Change, Concern, ExecutionFacts, JobFacts, NodeFacts, Plan, Shape, Snapshot, Turn,
    concerned_nodes, mismatch, plan,
};
pub use rollout::{
    Advance, Clocks, Followed, Good, Member, NO_MEMBERS, NodeFailure, ONLY_MISFITS, RolloutEvent,
    RolloutRecord, Sign, UNCOUNTED, Watch, advance,
};
pub use runs::{
    ActiveTask, Candidate, RETRY_DELAY_MAX, Said, Stopping, TaskStanding, Unfit, Verdict, Wish,
    batch_state, choose_node, judge, ran_late, run_state,
};
pub use schedule::{
    Busy, CATCH_UP_MAX, Due, DueTick, Fate, LATE_AFTER, Older, Policy, QUEUED_MAX, Rhythm, SkipWhy,
    Timing, TimingError, fate,
};
pub use view::{
    Counted, ExecutionView, JobCounts, MOVING, NodeView, Observed, ViewInput, job_state,
    view_execution,
};
