//! What an execution counts: live numbers for everybody, and the part of them that is acked for the checkpoint.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// What an execution has done since its version's first start on this edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Records the input gave, rejected ones included.
    pub records_in: u64,
    /// Records the output accepted.
    pub records_out: u64,
    /// Records set aside as dead letters.
    pub dead_letters: u64,
    /// Dead letters that made room for newer ones.
    pub dead_letters_dropped: u64,
    /// Calls repeated because a stage said `retry`.
    pub retries: u64,
    /// Log lines and stdout records that found no room.
    pub log_lines_dropped: u64,
}

/// [`Counters`] that tasks add to and anybody reads.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) records_in: AtomicU64,
    pub(super) records_out: AtomicU64,
    pub(super) dead_letters: AtomicU64,
    pub(super) dead_letters_dropped: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) log_lines_dropped: AtomicU64,
}

impl Tally {
    /// Counts on from what a checkpoint remembers.
    pub(super) fn resume(&self, from: &Counters) {
        self.records_in
            .fetch_add(from.records_in, Ordering::Relaxed);
        self.records_out
            .fetch_add(from.records_out, Ordering::Relaxed);
        self.dead_letters
            .fetch_add(from.dead_letters, Ordering::Relaxed);
        self.dead_letters_dropped
            .fetch_add(from.dead_letters_dropped, Ordering::Relaxed);
        self.retries.fetch_add(from.retries, Ordering::Relaxed);
        self.log_lines_dropped
            .fetch_add(from.log_lines_dropped, Ordering::Relaxed);
    }

    /// The numbers now. Each is right; together they may be a batch apart.
    pub(super) fn read(&self) -> Counters {
        Counters {
            records_in: self.records_in.load(Ordering::Relaxed),
            records_out: self.records_out.load(Ordering::Relaxed),
            dead_letters: self.dead_letters.load(Ordering::Relaxed),
            dead_letters_dropped: self.dead_letters_dropped.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            log_lines_dropped: self.log_lines_dropped.load(Ordering::Relaxed),
        }
    }
}

/// Adds to one number.
pub(super) fn count(number: &AtomicU64, more: u64) {
    number.fetch_add(more, Ordering::Relaxed);
}
