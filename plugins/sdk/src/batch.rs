//! Views of a batch: one record at a time, without copying.
//!
//! `data` holds the records' bytes back to back, `ends[i]` is where record `i` stops. The host checks a batch before it
//! hands it over, so the views index without a second check of their own.

use std::ops::Deref;

use crate::{Batch, Column};

impl Batch {
    /// A batch of these records, without times or attributes.
    pub fn of<R: AsRef<[u8]>>(records: &[R]) -> Self {
        let mut batch = Self {
            data: Vec::new(),
            ends: Vec::new(),
            times: Vec::new(),
            attributes: Vec::new(),
        };
        for record in records {
            batch.data.extend_from_slice(record.as_ref());
            batch.ends.push(offset(batch.data.len()));
        }
        batch
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of record `index`.
    ///
    /// Panics when there is no such record.
    pub fn bytes(&self, index: usize) -> &[u8] {
        slice(&self.data, &self.ends, index)
    }

    /// The records, in order.
    pub fn records(&self) -> Records<'_> {
        Records {
            batch: self,
            index: 0,
            start: 0,
        }
    }
}

impl Column {
    /// The value of record `index`; empty means none.
    ///
    /// Panics when there is no such record.
    pub fn value(&self, index: usize) -> &[u8] {
        slice(&self.data, &self.ends, index)
    }
}

/// One record of a batch, and what is known about it. It dereferences to its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    bytes: &'a [u8],
    index: usize,
    batch: Option<&'a Batch>,
}

impl<'a> Record<'a> {
    /// A record on its own, for tests of a function.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            index: 0,
            batch: None,
        }
    }

    /// The record's bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The record as text, or where it stops being UTF-8.
    pub fn text(&self) -> Result<&'a str, std::str::Utf8Error> {
        std::str::from_utf8(self.bytes)
    }

    /// Its index in the batch.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Nanoseconds since the Unix epoch, when known.
    pub fn time(&self) -> Option<u64> {
        self.batch?
            .times
            .get(self.index)
            .copied()
            .filter(|time| *time != 0)
    }

    /// The value of an attribute, when the record has it.
    pub fn attribute(&self, name: &str) -> Option<&'a [u8]> {
        let column = self
            .batch?
            .attributes
            .iter()
            .find(|column| column.name == name)?;
        Some(column.value(self.index)).filter(|value| !value.is_empty())
    }
}

impl Deref for Record<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl AsRef<[u8]> for Record<'_> {
    fn as_ref(&self) -> &[u8] {
        self.bytes
    }
}

/// The records of a batch, in order.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    batch: &'a Batch,
    index: usize,
    start: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let end = *self.batch.ends.get(self.index)? as usize;
        let record = Record {
            bytes: &self.batch.data[self.start..end],
            index: self.index,
            batch: Some(self.batch),
        };
        self.index += 1;
        self.start = end;
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.batch.ends.len() - self.index;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Records<'_> {}

/// An offset as the contract writes it.
pub(crate) fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a batch lies in a 32-bit memory")
}

fn slice<'a>(data: &'a [u8], ends: &[u32], index: usize) -> &'a [u8] {
    let start = if index == 0 {
        0
    } else {
        ends[index - 1] as usize
    };
    &data[start..ends[index] as usize]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn records_are_views_of_the_batch_in_order() {
        let batch = Batch::of(&["one", "", "three"]);
        let records: Vec<_> = batch
            .records()
            .map(|record| record.bytes().to_vec())
            .collect();
        assert_eq!(records, [b"one".to_vec(), b"".to_vec(), b"three".to_vec()]);
        assert_eq!(batch.bytes(2), b"three");
        assert_eq!(batch.records().len(), 3);
    }

    #[test]
    fn times_and_attributes_that_are_unknown_are_none() {
        let mut batch = Batch::of(&["a", "b"]);
        batch.times = vec![0, 7];
        batch.attributes = vec![Column {
            name: "path".to_owned(),
            data: b"/x".to_vec(),
            ends: vec![2, 2],
        }];
        let records: Vec<_> = batch.records().collect();
        assert_eq!((records[0].time(), records[1].time()), (None, Some(7)));
        assert_eq!(records[0].attribute("path"), Some(b"/x".as_slice()));
        assert_eq!(records[1].attribute("path"), None);
        assert_eq!(records[0].attribute("other"), None);
        assert_eq!(Record::of(b"alone").time(), None);
    }
}
