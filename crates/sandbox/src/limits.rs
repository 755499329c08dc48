//! What one stage may use, and the reason for each number.

use std::time::Duration;

/// Bounds of one stage. Each ends the call that exceeds it with its own [`CallError`](crate::CallError); log bounds
/// drop lines instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageLimits {
    /// Linear memory, summed over all memories of the stage's instance.
    pub memory_bytes_max: u64,
    /// CPU time of one call; waiting counts too, since a guest that waits holds a guest thread.
    pub deadline: Duration,
    /// Table elements, summed over all tables; each costs the host a pointer.
    pub table_elements_max: u64,
    /// Core instances, and separately memories and tables, that a component may consist of.
    pub instances_max: usize,
    /// Handles to resources that may live at once.
    pub handles_max: usize,
    /// Bytes that one call from the guest to the host may carry.
    pub host_call_bytes_max: usize,
    /// Bytes that one call may return: data, offsets, times, attributes and reasons together.
    pub output_bytes_max: usize,
    /// Records that one call may return.
    pub output_records_max: usize,
    /// Log lines a second, for all stages of a chain together (the smallest of their limits holds).
    pub log_lines_per_second_max: u32,
    /// Bytes of one log line; the rest is cut.
    pub log_line_bytes_max: usize,
}

/// A call may last this many times its deadline in wall time: a busy machine is no fault of the guest.
pub const WALL_DEADLINE_FACTOR: u32 = 10;
/// `finish` may take this many times the deadline of a call: it looks at everything that was gathered, once.
pub const FINISH_DEADLINE_FACTOR: u32 = 10;
/// Bytes of a reject's or fault's reason; the rest is cut.
pub const REASON_BYTES_MAX: usize = 1024;
/// Attributes of a batch that a guest returns: each costs a pass over the batch.
pub const ATTRIBUTES_MAX: usize = 64;
/// Bytes of an attribute's name.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 256;

impl Default for StageLimits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 64 << 20,
            deadline: Duration::from_secs(1),
            // Real components have a few thousand; this costs the host 800 KiB at most.
            table_elements_max: 100_000,
            // componentize-py, the largest known composer, makes about 30.
            instances_max: 64,
            // A toolchain's start-up makes a dozen.
            handles_max: 1024,
            host_call_bytes_max: 1 << 20,
            // One record of the largest size, and room for what goes with it.
            output_bytes_max: 20 << 20,
            // 256 times a full batch.
            output_records_max: 65_536,
            log_lines_per_second_max: 100,
            log_line_bytes_max: 8 * 1024,
        }
    }
}

impl StageLimits {
    /// How long one call may last in wall time.
    pub fn wall_deadline(&self) -> Duration {
        self.deadline.saturating_mul(WALL_DEADLINE_FACTOR)
    }

    /// CPU time of `finish`.
    pub fn finish_deadline(&self) -> Duration {
        self.deadline.saturating_mul(FINISH_DEADLINE_FACTOR)
    }
}
