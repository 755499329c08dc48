//! Finds the records that a stage cannot process, so that their neighbours pass.
//!
//! ```text
//! whole batch failed -> once more on a fresh instance -> halves -> halves of halves -> single records
//!                       (not after `retry`: that has been tried)   each that passes is done; a single one that
//!                                                                  fails is a dead letter
//! ```
//!
//! **Bound.** A batch of `n` records takes at most `2 n` calls here: one more of the whole, and the `2 n - 2` parts that
//! halving can give; each costs a fresh instance if it fails. Calls that run into the deadline `D` are the expensive
//! ones, so time is bounded as well. One poison record in 256 costs `2 + 8` deadlines. After failed calls have
//! used [`FULL_DEADLINES_MAX`] deadlines of CPU time, calls get `D / `[`SHORT_DEADLINE_DIVISOR`] only: plenty for one
//! record of a batch that as a whole should have taken less than `D`. A batch of 256 records that all loop for ever thus
//! ends after about `32 + 512 / 16 = 64` deadlines, not 512. Past [`DEADLINES_MAX`] (a `configure` that is slow itself
//! can lead there, or a stage that made far more than 256 records) what fails is set aside undivided. In between, others
//! get their turns: see [`Turn::Again`](crate::Turn::Again).

use std::time::{Duration, Instant};

use sluice_record::Batch;

use crate::chain::{ChainFault, DeadLetter, DeadLetterKind, OnRetry};
use crate::error::{CallError, cut};
use crate::limits::REASON_BYTES_MAX;
use crate::outcome::{Checked, Kept};
use crate::stage::{CallFailure, Stage};
use crate::state::thread_cpu;

/// Failed calls may use this many deadlines before deadlines get short: three poison records in a batch do not.
const FULL_DEADLINES_MAX: u32 = 32;
/// A short deadline is this part of a full one.
const SHORT_DEADLINE_DIVISOR: u32 = 16;
/// Failed calls may use this many deadlines before halving ends.
const DEADLINES_MAX: u32 = 128;
/// The parts of a batch together may return this many times what one call may.
const OUTPUT_FACTOR: usize = 4;

/// The search through one stage's batch. Kept between turns.
pub(crate) struct Isolation {
    /// Parts still to run, the next one last.
    parts: Vec<Part>,
    passed: Passed,
    dead: Vec<DeadLetter>,
    /// CPU time of failed calls.
    spent: Duration,
    /// The part that runs, as a batch of its own.
    scratch: Batch,
}

/// Records `from..to` of the batch.
#[derive(Clone, Copy)]
struct Part {
    from: usize,
    to: usize,
    /// Calls that failed with them.
    failed: u32,
}

/// What a stage made of a batch in the end.
pub(crate) struct Isolated {
    pub(crate) kept: Kept,
    /// By index into the stage's input; `stage` is not filled in.
    pub(crate) dead: Vec<DeadLetter>,
}

/// Where a turn ended.
pub(crate) enum Step {
    /// At the end of its time.
    Again(Isolation),
    /// At the end of the search.
    Done(Isolated),
}

impl Isolation {
    /// Begins after the whole batch failed once. Faults that concern all of it come back as they are.
    pub(crate) fn start(
        failure: CallFailure,
        batch: &Batch,
        stage: &Stage,
        on_retry: OnRetry,
    ) -> Result<Self, ChainFault> {
        let mut isolation = Self {
            parts: Vec::new(),
            passed: Passed::default(),
            dead: Vec::new(),
            spent: Duration::ZERO,
            scratch: Batch::new(),
        };
        let whole = Part {
            from: 0,
            to: batch.len(),
            failed: 1,
        };
        let again = matches!(failure, CallFailure::Error(_));
        let full = stage.limits().deadline;
        isolation.spent += cost(&failure, full, Duration::ZERO);
        let cause = Cause::of(failure, stage, on_retry)?;
        if again {
            isolation.parts.push(whole);
        } else {
            isolation.divide(whole, &cause, full);
        }
        Ok(isolation)
    }

    /// Runs parts until all are done or the turn is over; at least one.
    pub(crate) fn run(
        mut self,
        batch: &Batch,
        stage: &mut Stage,
        on_retry: OnRetry,
        turn_ends: Instant,
    ) -> Result<Step, ChainFault> {
        let full = stage.limits().deadline;
        let output_bytes_max = stage
            .limits()
            .output_bytes_max
            .saturating_mul(OUTPUT_FACTOR);
        while let Some(mut part) = self.parts.pop() {
            let deadline = self.deadline(full);
            let before = thread_cpu();
            let result = match stage.call(self.batch_of(batch, part), deadline) {
                Ok(checked) => self
                    .take(batch, part, checked, output_bytes_max)
                    .map_err(|error| stage.failure(error)),
                Err(failure) => Err(failure),
            };
            if let Err(failure) = result {
                self.spent += cost(&failure, deadline, thread_cpu().saturating_sub(before));
                part.failed += 1;
                let cause = Cause::of(failure, stage, on_retry)?;
                self.divide(part, &cause, full);
            }
            if !self.parts.is_empty() && Instant::now() >= turn_ends {
                return Ok(Step::Again(self));
            }
        }
        let kept = self.passed.finish(batch.len());
        Ok(Step::Done(Isolated {
            kept,
            dead: self.dead,
        }))
    }

    /// How long the next call may take.
    fn deadline(&self, full: Duration) -> Duration {
        if self.spent < full.saturating_mul(FULL_DEADLINES_MAX) {
            full
        } else {
            full / SHORT_DEADLINE_DIVISOR
        }
    }

    /// A part as a batch.
    fn batch_of<'a>(&'a mut self, batch: &'a Batch, part: Part) -> &'a Batch {
        if part.to - part.from == batch.len() {
            return batch;
        }
        self.scratch.clear();
        self.scratch.append_range(batch, part.from, part.to);
        &self.scratch
    }

    /// Takes what a part gave.
    fn take(
        &mut self,
        batch: &Batch,
        part: Part,
        checked: Checked,
        bytes_max: usize,
    ) -> Result<(), CallError> {
        let Checked { kept, rejects } = checked;
        self.passed.add(batch, part, kept, bytes_max)?;
        self.dead
            .extend(rejects.into_iter().map(|reject| DeadLetter {
                index: part.from as u32 + reject.index,
                stage: 0,
                attempts: part.failed + 1,
                kind: DeadLetterKind::Reject,
                reason: reject.reason,
            }));
        Ok(())
    }

    /// Halves a part that failed, or sets it aside.
    fn divide(&mut self, part: Part, cause: &Cause, full: Duration) {
        let Part { from, to, failed } = part;
        let given_up = self.spent >= full.saturating_mul(DEADLINES_MAX);
        if to - from > 1 && !given_up {
            let middle = from + (to - from) / 2;
            self.parts.push(Part {
                from: middle,
                to,
                failed,
            });
            self.parts.push(Part {
                from,
                to: middle,
                failed,
            });
            return;
        }
        let mut reason = cause.reason.clone();
        if to - from > 1 {
            reason.insert_str(
                0,
                "one of several records that took too long to tell apart: ",
            );
        }
        cut(&mut reason, REASON_BYTES_MAX);
        self.dead.extend((from..to).map(|index| DeadLetter {
            index: index as u32,
            stage: 0,
            attempts: failed,
            kind: cause.kind,
            reason: reason.clone(),
        }));
    }
}

/// CPU time that a failed call cost. A guest that waited used its deadline without using the CPU.
fn cost(failure: &CallFailure, deadline: Duration, measured: Duration) -> Duration {
    match failure {
        CallFailure::Error(CallError::DeadlineExceeded { .. }) => measured.max(deadline),
        _ => measured,
    }
}

/// Why a part failed, as its dead letters will tell it.
struct Cause {
    kind: DeadLetterKind,
    reason: String,
}

impl Cause {
    fn of(failure: CallFailure, stage: &Stage, on_retry: OnRetry) -> Result<Self, ChainFault> {
        let stage = || stage.name().to_owned();
        match failure {
            CallFailure::Fatal(reason) => Err(ChainFault::Fatal {
                stage: stage(),
                reason,
            }),
            CallFailure::Retry(reason) if on_retry == OnRetry::Report => Err(ChainFault::Retry {
                stage: stage(),
                reason,
            }),
            CallFailure::Retry(reason) => Ok(Self {
                kind: DeadLetterKind::Retry,
                reason,
            }),
            CallFailure::Error(error @ CallError::Host(_)) => {
                Err(ChainFault::Host(format!("stage {:?}: {error}", stage())))
            }
            CallFailure::Error(error) => Ok(Self {
                kind: DeadLetterKind::Failed(error.code()),
                reason: error.to_string(),
            }),
        }
    }
}

/// What the parts gave so far, as one.
#[derive(Default)]
struct Passed {
    /// Records of the batch, as long as no part gave new ones.
    selected: Vec<u32>,
    /// New records and their origins, once a part gave new ones.
    replaced: Option<(Batch, Vec<u32>)>,
}

impl Passed {
    fn add(
        &mut self,
        batch: &Batch,
        part: Part,
        kept: Kept,
        bytes_max: usize,
    ) -> Result<(), CallError> {
        let base = part.from as u32;
        match kept {
            Kept::All => self.select(batch, &mut (base..part.to as u32)),
            Kept::Selected(indices) => {
                self.select(batch, &mut indices.into_iter().map(|index| base + index))
            }
            Kept::Replaced { batch: new, origin } => {
                let bytes_so_far = self.replaced.as_ref().map_or(0, |(batch, _)| batch.bytes());
                if bytes_so_far.saturating_add(new.bytes()) > bytes_max {
                    return Err(CallError::OutputExceeded {
                        limit: bytes_max,
                        what: "bytes",
                    });
                }
                let (all, origins) = self.replaced.get_or_insert_with(|| {
                    let mut copied = Batch::new();
                    copied.append_selected(batch, &self.selected);
                    (copied, std::mem::take(&mut self.selected))
                });
                all.append(&new);
                origins.extend(origin.into_iter().map(|index| base + index));
            }
        }
        Ok(())
    }

    fn select(&mut self, batch: &Batch, indices: &mut dyn Iterator<Item = u32>) {
        match &mut self.replaced {
            None => self.selected.extend(indices),
            Some((all, origins)) => {
                let indices: Vec<u32> = indices.collect();
                all.append_selected(batch, &indices);
                origins.extend(indices);
            }
        }
    }

    fn finish(self, records: usize) -> Kept {
        match self.replaced {
            Some((batch, origin)) => Kept::Replaced { batch, origin },
            None if self.selected.len() == records => Kept::All,
            None => Kept::Selected(self.selected),
        }
    }
}
