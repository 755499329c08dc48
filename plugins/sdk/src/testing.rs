//! Runs a stage natively, under the rules that the host applies to what a plugin returns.
//!
//! ```
//! use sluice_sdk::{Decision, Emit, NoConfig, Record, RecordStage, testing::Harness};
//!
//! struct Upper;
//! impl RecordStage for Upper {
//!     type Config = NoConfig;
//!     fn configure(_config: NoConfig) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!     fn record(&mut self, record: Record<'_>, _emit: &mut Emit) -> Decision {
//!         Decision::Replace(record.to_ascii_uppercase())
//!     }
//! }
//!
//! let mut harness = Harness::<Upper>::new("{}").unwrap();
//! let processed = harness.process(&["a", "b"]).unwrap();
//! assert_eq!(processed.text(), ["A", "B"]);
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::guest::Slot;
use crate::log::Level;
use crate::{Batch, BatchStage, Fault, Outcome, Output, REASON_BYTES_MAX, Report};

/// Most log lines that are kept: a test reads a few, a benchmark none.
const LOG_LINES_MAX: usize = 1000;

thread_local! {
    static LINES: RefCell<VecDeque<(Level, String)>> = const { RefCell::new(VecDeque::new()) };
}

/// A stage in a native process.
#[derive(Debug)]
pub struct Harness<S> {
    slot: Slot<S>,
}

/// What became of a batch.
#[derive(Debug)]
pub struct Processed {
    /// The stage's own answer.
    pub output: Output,
    /// The records that go on, in order.
    pub records: Vec<Vec<u8>>,
    /// The input index that each of them came from.
    pub origin: Vec<u32>,
    /// The rejected records: input index and reason.
    pub rejects: Vec<(u32, String)>,
}

impl Processed {
    /// The records that go on, as text; invalid UTF-8 is replaced.
    pub fn text(&self) -> Vec<String> {
        self.records
            .iter()
            .map(|record| String::from_utf8_lossy(record).into_owned())
            .collect()
    }
}

impl<S: BatchStage> Harness<S> {
    /// Configures a stage as the host would, with the `config` as JSON.
    pub fn new(config_json: &str) -> Result<Self, String> {
        LINES.with_borrow_mut(VecDeque::clear);
        let slot = Slot::new();
        slot.configure(config_json)?;
        Ok(Self { slot })
    }

    /// Processes records without times and attributes.
    pub fn process<R: AsRef<[u8]>>(&mut self, records: &[R]) -> Result<Processed, Fault> {
        self.process_batch(Batch::of(records))
    }

    /// Processes a batch.
    ///
    /// Panics, as a failed test, when the answer breaks the contract.
    pub fn process_batch(&mut self, batch: Batch) -> Result<Processed, Fault> {
        let output = self.slot.process(batch.clone())?;
        Ok(apply(&batch, output))
    }

    /// Ends the input; gives the records of the report, as text.
    pub fn finish(&mut self) -> Result<Vec<String>, Fault>
    where
        S: Report,
    {
        let report = self.slot.finish()?;
        Ok(report
            .records()
            .map(|record| String::from_utf8_lossy(&record).into_owned())
            .collect())
    }

    /// The log lines since the harness was made or since the last call, in order, at most 1000. They belong to the
    /// thread, not to the harness.
    pub fn logs(&self) -> Vec<(Level, String)> {
        LINES.with_borrow_mut(|lines| lines.drain(..).collect())
    }
}

/// Checks an output against the contract and applies it.
fn apply(batch: &Batch, output: Output) -> Processed {
    let rejects: Vec<_> = output
        .rejects
        .iter()
        .map(|reject| (reject.index, reject.reason.clone()))
        .collect();
    ascending(
        rejects.iter().map(|(index, _)| *index),
        batch.len(),
        "reject",
    );
    assert!(
        rejects
            .iter()
            .all(|(_, reason)| reason.len() <= REASON_BYTES_MAX),
        "a reject's reason is over 1 KiB"
    );
    let rejected = |index: &u32| rejects.iter().any(|(rejected, _)| rejected == index);
    let all = || 0..batch.len() as u32;
    let origin: Vec<u32> = match &output.outcome {
        Outcome::Keep => all().filter(|index| !rejected(index)).collect(),
        Outcome::Select(kept) => {
            ascending(kept.iter().copied(), batch.len(), "select");
            assert!(!kept.iter().any(rejected), "a rejected record is selected");
            kept.clone()
        }
        Outcome::Replace(new) if new.origin.is_empty() => {
            let left: Vec<_> = all().filter(|index| !rejected(index)).collect();
            assert_eq!(
                new.batch.len(),
                left.len(),
                "no origin, and not one new record for each that was not rejected"
            );
            left
        }
        Outcome::Replace(new) => new.origin.clone(),
    };
    let records = match &output.outcome {
        Outcome::Replace(new) => {
            assert!(
                !origin.iter().any(rejected),
                "an origin is a rejected record"
            );
            check_replacement(batch, &new.batch, &origin);
            new.batch.records().map(|record| record.to_vec()).collect()
        }
        _ => origin
            .iter()
            .map(|index| batch.bytes(*index as usize).to_vec())
            .collect(),
    };
    Processed {
        output,
        records,
        origin,
        rejects,
    }
}

fn check_replacement(old: &Batch, new: &Batch, origin: &[u32]) {
    offsets(&new.ends, new.data.len(), "records");
    assert_eq!(origin.len(), new.len(), "one origin for each new record");
    assert!(origin.is_sorted(), "origins ascend");
    assert!(
        origin.iter().all(|index| (*index as usize) < old.len()),
        "an origin is out of range"
    );
    assert!(
        new.times.is_empty() || new.times.len() == new.len(),
        "one time for each record, or none"
    );
    for column in &new.attributes {
        offsets(&column.ends, column.data.len(), &column.name);
        assert_eq!(
            column.ends.len(),
            new.len(),
            "one value of {} for each record",
            column.name
        );
    }
}

fn offsets(ends: &[u32], bytes: usize, what: &str) {
    assert!(ends.is_sorted(), "ends of {what} ascend");
    assert_eq!(
        ends.last().map_or(0, |end| *end as usize),
        bytes,
        "the last end of {what} is the length of the data"
    );
}

fn ascending(indices: impl Iterator<Item = u32>, len: usize, what: &str) {
    let mut next = 0;
    for index in indices {
        assert!(index >= next, "{what}: index {index} repeats or descends");
        assert!(
            (index as usize) < len,
            "{what}: index {index} is out of range"
        );
        next = index + 1;
    }
}

/// The native end of [`log`](crate::log::log()).
#[allow(clippy::print_stderr, reason = "a test's log belongs on its stderr")]
pub(crate) fn collect(level: Level, message: &str) {
    eprintln!("[{level:?}] {message}");
    LINES.with_borrow_mut(|lines| {
        if lines.len() == LOG_LINES_MAX {
            lines.pop_front();
        }
        lines.push_back((level, message.to_owned()));
    });
}
