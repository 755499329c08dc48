//! The two traits an author chooses from, and the way from decisions about records to an outcome for the batch.
//!
//! ```text
//! all kept or rejected          -> keep       nothing is copied
//! some dropped                  -> select     a list of indices
//! something replaced            -> replace    kept records are copied among the new ones
//! ```
//!
//! The way only leads downwards within a batch, and each step is taken at the first record that needs it.

use std::borrow::Cow;
use std::fmt;

use serde::de::DeserializeOwned;

use crate::batch::offset;
use crate::{Batch, Fault, Outcome, Output, Record, Reject, Replacement};

/// Longest reason of a reject that the host takes, in bytes; what is longer is cut.
pub const REASON_BYTES_MAX: usize = 1024;

/// A stage that looks at one record at a time.
pub trait RecordStage: Sized + 'static {
    /// The stage's `config`. Derive `Deserialize` with `deny_unknown_fields`; [`NoConfig`](crate::NoConfig) for none.
    type Config: DeserializeOwned;

    /// Makes the stage. Called once for each instance; the error stops the execution and is shown to the operator.
    fn configure(config: Self::Config) -> Result<Self, String>;

    /// Decides about one record. New records go into `emit`; they count when the answer is [`Decision::Emitted`].
    fn record(&mut self, record: Record<'_>, emit: &mut Emit) -> Decision;
}

/// A stage that looks at whole batches. Every [`RecordStage`] is one.
pub trait BatchStage: Sized + 'static {
    /// The stage's `config`. Derive `Deserialize` with `deny_unknown_fields`; [`NoConfig`](crate::NoConfig) for none.
    type Config: DeserializeOwned;

    /// Makes the stage. Called once for each instance; the error stops the execution and is shown to the operator.
    fn configure(config: Self::Config) -> Result<Self, String>;

    /// Decides about a batch.
    fn process(&mut self, batch: Batch) -> Result<Output, Fault>;
}

impl Output {
    /// Only these records of the batch pass: ascending indices, each once. The others end here.
    ///
    /// Says `keep` when they are all of them, `select` otherwise; neither copies a record.
    pub fn pass(batch: &Batch, indices: impl Iterator<Item = u32>) -> Self {
        let mut kept = Vec::with_capacity(batch.len());
        kept.extend(indices);
        Self {
            outcome: match kept.len() == batch.len() {
                true => Outcome::Keep,
                false => Outcome::Select(kept),
            },
            rejects: Vec::new(),
        }
    }

    /// All records of the batch pass but these: ascending indices, each once.
    pub fn pass_others(batch: &Batch, indices: impl Iterator<Item = u32>) -> Self {
        let mut left = indices.peekable();
        let others = (0..batch.len() as u32).filter(|index| left.next_if_eq(index).is_none());
        Self::pass(batch, others)
    }
}

/// What becomes of a record.
#[derive(Debug)]
pub enum Decision {
    /// It passes as it is.
    Keep,
    /// It ends here.
    Drop,
    /// These bytes take its place.
    Replace(Vec<u8>),
    /// What this call wrote to [`Emit`] takes its place: any number of records.
    Emitted,
    /// It cannot be processed and goes to the dead letters, for this reason.
    Reject(String),
    /// The whole batch failed.
    Fail(Fault),
}

impl Decision {
    /// A reject with this reason.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject(reason.into())
    }
}

/// `true` keeps, `false` drops.
impl From<bool> for Decision {
    fn from(keep: bool) -> Self {
        if keep { Self::Keep } else { Self::Drop }
    }
}

impl From<Vec<u8>> for Decision {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Replace(bytes)
    }
}

impl From<String> for Decision {
    fn from(text: String) -> Self {
        Self::Replace(text.into_bytes())
    }
}

/// Borrowed passes as it is, owned takes its place.
impl From<Cow<'_, [u8]>> for Decision {
    fn from(bytes: Cow<'_, [u8]>) -> Self {
        match bytes {
            Cow::Borrowed(_) => Self::Keep,
            Cow::Owned(bytes) => Self::Replace(bytes),
        }
    }
}

/// An error rejects the record.
impl<D: Into<Decision>, E: fmt::Display> From<Result<D, E>> for Decision {
    fn from(result: Result<D, E>) -> Self {
        match result {
            Ok(decision) => decision.into(),
            Err(reason) => Self::Reject(reason.to_string()),
        }
    }
}

/// Takes bytes: a `Vec<u8>` or a [`RecordWriter`].
pub trait Buffer {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]);
}

impl Buffer for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Collects the records that take the place of others.
#[derive(Debug, Default)]
pub struct Emit {
    data: Vec<u8>,
    ends: Vec<u32>,
    origin: Vec<u32>,
    /// Bytes and records before the current call's.
    committed: (usize, usize),
    /// Room to make at the first write.
    room: (usize, usize),
}

impl Emit {
    fn with_room(bytes: usize, records: usize) -> Self {
        Self {
            room: (bytes, records),
            ..Self::default()
        }
    }

    /// Emits one record.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut writer = self.start();
        writer.put(bytes);
        writer.finish();
    }

    /// Starts a record that is written piece by piece. It counts once finished.
    pub fn start(&mut self) -> RecordWriter<'_> {
        if self.data.capacity() == 0 {
            self.data.reserve(self.room.0);
            self.ends.reserve(self.room.1);
        }
        RecordWriter {
            start: self.data.len(),
            finished: false,
            emit: self,
        }
    }

    fn commit(&mut self, index: u32) {
        self.origin.resize(self.ends.len(), index);
        self.committed = (self.data.len(), self.ends.len());
    }

    fn rollback(&mut self) {
        self.data.truncate(self.committed.0);
        self.ends.truncate(self.committed.1);
    }

    /// Puts records that were kept so far in front of what the current call emitted.
    #[cold]
    fn put_first(&mut self, batch: &Batch, kept: impl Iterator<Item = u32>) {
        let emitted = std::mem::replace(self, Self::with_room(self.room.0, self.room.1));
        for index in kept {
            self.push(batch.bytes(index as usize));
            self.commit(index);
        }
        let mut start = 0;
        for end in emitted.ends {
            self.push(&emitted.data[start..end as usize]);
            start = end as usize;
        }
    }

    /// The records alone, as a batch.
    pub(crate) fn into_batch(self) -> Batch {
        Batch {
            data: self.data,
            ends: self.ends,
            times: Vec::new(),
            attributes: Vec::new(),
        }
    }

    fn wrote_records(&self) -> bool {
        self.ends.len() > self.committed.1
    }

    /// The new records with their origin. Times and attributes are left out: they inherit those of where they came from.
    fn into_replacement(self, left: usize) -> Replacement {
        // Ascending without a repeat, and as many as were not rejected: then it is one to one, which needs no list.
        let one_to_one = self.origin.len() == left && self.origin.is_sorted_by(|a, b| a < b);
        Replacement {
            batch: Batch {
                data: self.data,
                ends: self.ends,
                times: Vec::new(),
                attributes: Vec::new(),
            },
            origin: if one_to_one { Vec::new() } else { self.origin },
        }
    }
}

/// Writes one record in pieces; also through `std::io::Write` and `write!`. Dropped before [`finish`](Self::finish), it
/// leaves nothing behind.
#[derive(Debug)]
pub struct RecordWriter<'a> {
    emit: &'a mut Emit,
    start: usize,
    finished: bool,
}

impl RecordWriter<'_> {
    /// What was written so far.
    pub fn written(&self) -> &[u8] {
        &self.emit.data[self.start..]
    }

    /// Ends the record.
    pub fn finish(mut self) {
        self.emit.ends.push(offset(self.emit.data.len()));
        self.finished = true;
    }
}

impl Drop for RecordWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.emit.data.truncate(self.start);
        }
    }
}

impl Buffer for RecordWriter<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.emit.data.extend_from_slice(bytes);
    }
}

impl std::io::Write for RecordWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How far down the way of the module's picture a batch has come.
enum Shape {
    Keep,
    Select(Vec<u32>),
    Replace,
}

impl<S: RecordStage> BatchStage for S {
    type Config = S::Config;

    fn configure(config: Self::Config) -> Result<Self, String> {
        <S as RecordStage>::configure(config)
    }

    fn process(&mut self, batch: Batch) -> Result<Output, Fault> {
        let mut shape = Shape::Keep;
        let mut rejects = Vec::new();
        // A quarter more than came in holds most additions without growing.
        let mut emit = Emit::with_room(batch.data.len() + batch.data.len() / 4 + 64, batch.len());
        for record in batch.records() {
            let index = record.index() as u32;
            let mut decision = self.record(record, &mut emit);
            if let Decision::Replace(bytes) = &decision {
                emit.rollback();
                emit.push(bytes);
                decision = Decision::Emitted;
            }
            if matches!(decision, Decision::Emitted) && !emit.wrote_records() {
                decision = Decision::Drop;
            }
            match decision {
                Decision::Keep => {
                    emit.rollback();
                    match &mut shape {
                        Shape::Keep => {}
                        Shape::Select(kept) => kept.push(index),
                        Shape::Replace => {
                            emit.push(&record);
                            emit.commit(index);
                        }
                    }
                }
                Decision::Drop => {
                    emit.rollback();
                    if let Shape::Keep = shape {
                        let mut kept = Vec::with_capacity(batch.len());
                        kept.extend(kept_before(index, &rejects));
                        shape = Shape::Select(kept);
                    }
                }
                Decision::Emitted | Decision::Replace(_) => {
                    match std::mem::replace(&mut shape, Shape::Replace) {
                        Shape::Keep => emit.put_first(&batch, kept_before(index, &rejects)),
                        Shape::Select(kept) => emit.put_first(&batch, kept.into_iter()),
                        Shape::Replace => {}
                    }
                    emit.commit(index);
                }
                Decision::Reject(mut reason) => {
                    emit.rollback();
                    cut(&mut reason);
                    rejects.push(Reject { index, reason });
                }
                Decision::Fail(fault) => return Err(fault),
            }
        }
        let outcome = match shape {
            Shape::Keep => Outcome::Keep,
            Shape::Select(kept) => Outcome::Select(kept),
            Shape::Replace => Outcome::Replace(emit.into_replacement(batch.len() - rejects.len())),
        };
        Ok(Output { outcome, rejects })
    }
}

/// The indices below `index` that were not rejected.
fn kept_before(index: u32, rejects: &[Reject]) -> impl Iterator<Item = u32> {
    let mut rejected = rejects.iter().map(|reject| reject.index).peekable();
    (0..index).filter(move |kept| rejected.next_if_eq(kept).is_none())
}

/// Cuts a reason to what the host takes, between characters.
fn cut(reason: &mut String) {
    if reason.len() > REASON_BYTES_MAX {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    }
}

#[cfg(test)]
mod tests;
