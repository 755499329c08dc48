//! Outputs of runs' tasks: what is known of each, and the verbs that a [`super::Store`] has for them.
//!
//! ```text
//!   outcome with an output ──> lacking ── pulled, verified, on disk ──> held ── too old, too many ──> gone
//!                                 └────── its edge has it no more ──────────────────────────────────────^
//! ```

use sluice_model::{Digest, ExecutionId, NodeId, OutputFacts, RunId, UnixMs};

use super::StoreError;

/// The output of one try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRecord {
    /// The try's execution.
    pub execution: ExecutionId,
    /// Its run.
    pub run: RunId,
    /// Where it was written.
    pub node: NodeId,
    /// Its size and content.
    pub facts: OutputFacts,
    /// Where it is.
    pub held: OutputWhere,
    /// Since when.
    pub at: UnixMs,
}

/// Where an output is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputWhere {
    /// On its edge only.
    Lacking,
    /// Here.
    Held,
    /// Nowhere any more.
    Gone {
        /// Why, in words.
        reason: String,
    },
}

/// How many outputs are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputTotals {
    /// On their edges only.
    pub lacking: u64,
    /// Here.
    pub held: u64,
    /// Nowhere any more.
    pub gone: u64,
    /// Bytes that are here, each content counted once.
    pub held_bytes: u64,
}

/// The verbs for outputs. As with [`super::Store`], nothing reads a clock, and every call may block for the disk.
pub trait OutputStore {
    /// Keeps what an edge said of an output; what is known of that execution already stays. An empty one is held at once.
    fn put_output(&mut self, output: &OutputRecord) -> Result<(), StoreError>;
    /// The output of an execution.
    fn output(&mut self, execution: ExecutionId) -> Result<Option<OutputRecord>, StoreError>;
    /// The outputs of a run.
    fn outputs_of_run(&mut self, run: RunId) -> Result<Vec<OutputRecord>, StoreError>;
    /// What is lacking, of each node the oldest `count`.
    fn lacking_outputs(&mut self, count: usize) -> Result<Vec<OutputRecord>, StoreError>;
    /// A lacking output is here from now on; `false` when it is not lacking.
    fn hold_output(&mut self, execution: ExecutionId, now: UnixMs) -> Result<bool, StoreError>;
    /// A lacking output will not come; `false` when it is not lacking.
    fn lose_output(
        &mut self,
        execution: ExecutionId,
        reason: &str,
        now: UnixMs,
    ) -> Result<bool, StoreError>;
    /// What lacks of a node will not come.
    fn lose_outputs_of_node(
        &mut self,
        node: NodeId,
        reason: &str,
        now: UnixMs,
    ) -> Result<(), StoreError>;
    /// Forgets the output of a try that is followed by another one.
    fn drop_output(&mut self, execution: ExecutionId) -> Result<(), StoreError>;
    /// Held outputs of before `before`, the oldest `count`, are gone for this reason; returns how many.
    fn retire_outputs(
        &mut self,
        before: UnixMs,
        reason: &str,
        now: UnixMs,
        count: usize,
    ) -> Result<usize, StoreError>;
    /// While held outputs have more than `bytes_max` bytes together, each content counted once, those with the oldest
    /// content are gone for this reason, at most `count`; returns how many went.
    fn shrink_outputs(
        &mut self,
        bytes_max: u64,
        reason: &str,
        now: UnixMs,
        count: usize,
    ) -> Result<usize, StoreError>;
    /// Contents that no held or lacking output has any more, each told once; of at most `count` that were looked at, how many
    /// comes first.
    fn dropped_contents(&mut self, count: usize) -> Result<(usize, Vec<Digest>), StoreError>;
    /// Those of these contents that no held or lacking output has.
    fn unnamed_contents(&mut self, of: &[Digest]) -> Result<Vec<Digest>, StoreError>;
    /// How many outputs there are; costs the same however many.
    fn output_totals(&mut self) -> Result<OutputTotals, StoreError>;
}
