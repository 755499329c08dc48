//! What an execution counts: live numbers for everybody, and the part of them that is acked for the checkpoint.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use sluice_metrics::{Timed, Timings};
use sluice_model::OutputFacts;

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
    /// What a run's task wrote, measured when it has ended; the checkpoint does not remember it.
    #[serde(skip)]
    pub output: Option<OutputFacts>,
}

/// [`Counters`] that tasks add to and anybody reads.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(super) records_in: AtomicU64,
    pub(super) records_out: AtomicU64,
    pub(super) dead_letters: AtomicU64,
    pub(super) dead_letters_dropped: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) log_lines_dropped: AtomicU64,
    /// What follows is only told in metrics, and counts from each start on.
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    /// CPU time of the guest threads in this execution's stages.
    pub(super) guest_cpu_nanos: AtomicU64,
    /// Memory of its guests, as of their last turn.
    pub(super) guest_memory_bytes: AtomicU64,
    /// Each batch's way through the stages.
    pub(super) batches: Timings,
    /// Dead letters, as [`ERROR_KINDS`] has them.
    errors: [AtomicU64; ERROR_KINDS.len()],
}

/// What records die of: the kinds of dead letters, and at the end what is none of them.
pub(crate) const ERROR_KINDS: [&str; 14] = [
    "reject",
    "retry",
    "trap",
    "deadline",
    "memory",
    "table",
    "instances",
    "handles",
    "host-call",
    "output",
    "invalid-output",
    "host",
    "too-large",
    "other",
];

/// [`Tally`] at one moment, for metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metered {
    pub(crate) counters: Counters,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) guest_cpu_nanos: u64,
    pub(crate) guest_memory_bytes: u64,
    pub(crate) batches: Timed,
    pub(crate) errors: [u64; ERROR_KINDS.len()],
}

impl Metered {
    /// Adds another execution's numbers.
    pub(crate) fn merge(&mut self, other: &Self) {
        let (mine, theirs) = (&mut self.counters, &other.counters);
        mine.records_in += theirs.records_in;
        mine.records_out += theirs.records_out;
        mine.dead_letters += theirs.dead_letters;
        mine.dead_letters_dropped += theirs.dead_letters_dropped;
        mine.retries += theirs.retries;
        mine.log_lines_dropped += theirs.log_lines_dropped;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.guest_cpu_nanos += other.guest_cpu_nanos;
        self.guest_memory_bytes += other.guest_memory_bytes;
        self.batches.merge(&other.batches);
        for (mine, theirs) in self.errors.iter_mut().zip(&other.errors) {
            *mine += theirs;
        }
    }
}

impl Tally {
    /// Counts a dead letter by what it died of.
    pub(super) fn count_error(&self, kind: &str) {
        let known = ERROR_KINDS.iter().position(|known| *known == kind);
        count(&self.errors[known.unwrap_or(ERROR_KINDS.len() - 1)], 1);
    }

    /// Everything now, for metrics. Each number is right; together they may be a batch apart.
    pub(crate) fn metered(&self) -> Metered {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Metered {
            counters: self.read(),
            bytes_in: load(&self.bytes_in),
            bytes_out: load(&self.bytes_out),
            guest_cpu_nanos: load(&self.guest_cpu_nanos),
            guest_memory_bytes: load(&self.guest_memory_bytes),
            batches: self.batches.read(),
            errors: std::array::from_fn(|kind| load(&self.errors[kind])),
        }
    }

    /// Counts on from what a checkpoint remembers.
    pub(crate) fn resume(&self, from: &Counters) {
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
            output: None,
        }
    }
}

/// Adds to one number.
pub(super) fn count(number: &AtomicU64, more: u64) {
    number.fetch_add(more, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_under_its_name_and_a_new_one_with_the_others() {
        let tally = Tally::default();
        for (times, kind) in ERROR_KINDS.iter().enumerate() {
            for _ in 0..=times {
                tally.count_error(kind);
            }
        }
        tally.count_error("a kind of tomorrow");
        let mut expected: [u64; ERROR_KINDS.len()] = std::array::from_fn(|kind| kind as u64 + 1);
        expected[ERROR_KINDS.len() - 1] += 1;
        assert_eq!(tally.metered().errors, expected);
    }
}
