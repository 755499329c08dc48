//! What a run's task wrote to `[output.stdout]`, as its edge says.

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Most bytes of one task's output: a report, or what a filter left of a large log. A node keeps those of some tries.
pub const OUTPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The size and content of a task's output, known when its execution has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFacts {
    /// Bytes that are kept.
    pub bytes: u64,
    /// Their sha256.
    pub digest: Digest,
    /// Records after those that found no room; 0: the output is whole.
    pub dropped: u64,
}
