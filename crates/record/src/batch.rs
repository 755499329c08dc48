//! The batch: `data` holds the records' bytes back to back, `ends[i]` is where record `i` stops.
//!
//! ```text
//! data  G E T   / b y e   o k          ends   [3, 8, 10]        records  "GET", " /bye", "ok"  (spaces count)
//! ```
//!
//! A batch that was built through the methods here is always sound. One that came from elsewhere (a guest, a file)
//! has public fields and proves itself through [`Batch::check`] before anything else touches it.

use crate::column::{
    Column, append_selected_values, append_values, check_ends, push_value, select_values, start_of,
};

/// Most records a batch carries: past a few hundred the cost of a call has vanished.
pub const BATCH_RECORDS_MAX: usize = 256;
/// Most bytes a batch carries, unless one record alone is larger: larger buffers fall out of the cache.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Largest record, in bytes; offsets are 32 bits wide and this keeps far away from their end.
pub const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Records in columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The records' bytes, back to back.
    pub data: Vec<u8>,
    /// Where each record ends in `data`, ascending.
    pub ends: Vec<u32>,
    /// Nanoseconds since the Unix epoch for each record, 0 = unknown; empty when no record has a time.
    pub times: Vec<u64>,
    /// Attributes by name; each has one value a record, empty = none.
    pub attributes: Vec<Column>,
}

/// What is wrong with a batch that came from outside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// An offset is smaller than the one before it.
    #[error("end offset {index} is smaller than the one before it")]
    Descending {
        /// Which offset.
        index: usize,
    },
    /// An offset lies outside the buffer, or bytes follow the last one.
    #[error("the last end offset is {last}, the buffer has {bytes} bytes")]
    Outside {
        /// The last end offset.
        last: u64,
        /// The buffer's length.
        bytes: u64,
    },
    /// A column does not have one value a record.
    #[error("column {name:?} has {values} values for {records} records")]
    ColumnLength {
        /// The column, or `times`.
        name: String,
        /// Values it has.
        values: usize,
        /// Records in the batch.
        records: usize,
    },
    /// A column's own ends are wrong.
    #[error("column {name:?}: {error}")]
    Column {
        /// The column.
        name: String,
        /// What is wrong with it.
        error: Box<BatchError>,
    },
    /// Two columns have one name.
    #[error("column {name:?} is there twice")]
    ColumnTwice {
        /// The name.
        name: String,
    },
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many records.
    #[inline]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no record.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of records and attribute values, without offsets and times.
    pub fn bytes(&self) -> usize {
        self.data.len()
            + self
                .attributes
                .iter()
                .map(|column| column.data.len())
                .sum::<usize>()
    }

    /// Whether a record of `bytes` still fits: [`BATCH_RECORDS_MAX`], [`BATCH_BYTES_MAX`]. An empty batch takes any.
    #[inline]
    pub fn has_room(&self, bytes: usize) -> bool {
        self.is_empty()
            || (self.len() < BATCH_RECORDS_MAX
                && self.data.len().saturating_add(bytes) <= BATCH_BYTES_MAX)
    }

    /// Empties the batch and keeps its buffers.
    pub fn clear(&mut self) {
        self.data.clear();
        self.ends.clear();
        self.times.clear();
        self.attributes.clear();
    }

    /// Adds a record. The caller keeps `data` below 4 GiB (see [`BATCH_BYTES_MAX`], [`RECORD_BYTES_MAX`]).
    ///
    /// Where other records have times or attributes, this one has none.
    #[inline]
    pub fn push(&mut self, record: &[u8]) {
        push_value(&mut self.data, &mut self.ends, record);
        if !self.times.is_empty() {
            self.times.push(0);
        }
        for column in &mut self.attributes {
            column.pad_to(self.ends.len());
        }
    }

    /// Adds a record with its time in nanoseconds since the Unix epoch, 0 = unknown.
    pub fn push_at(&mut self, record: &[u8], time: u64) {
        if time != 0 && self.times.is_empty() {
            self.times.resize(self.len(), 0);
            self.times.push(time);
            push_value(&mut self.data, &mut self.ends, record);
            for column in &mut self.attributes {
                column.pad_to(self.ends.len());
            }
            return;
        }
        self.push(record);
        if let Some(last) = self.times.last_mut() {
            *last = time;
        }
    }

    /// Gives the last record an attribute; the batch must not be empty. A value that is already there stays.
    pub fn set_last_attribute(&mut self, name: &str, value: &[u8]) {
        let len = self.len();
        assert!(len > 0, "an attribute belongs to a record");
        let column = self.column_or_new(name, len - 1);
        if column.len() < len {
            column.push(value);
        } else if column.value(len - 1).is_empty() {
            column.ends.pop();
            column.push(value);
        }
    }

    /// Record `index`, which must exist.
    #[inline]
    pub fn record(&self, index: usize) -> &[u8] {
        &self.data[start_of(&self.ends, index)..self.ends[index] as usize]
    }

    /// The time of record `index`, 0 = unknown.
    pub fn time(&self, index: usize) -> u64 {
        self.times.get(index).copied().unwrap_or(0)
    }

    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.attributes.iter().find(|column| column.name == name)
    }

    /// The records in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.record(index))
    }

    /// Checks a batch that came from outside: offsets ascend and end with their buffer, and every column and `times`
    /// have one value a record (`times` may be empty), each name once. Sizes are the caller's business.
    pub fn check(&self) -> Result<(), BatchError> {
        check_ends(&self.data, &self.ends)?;
        let records = self.len();
        let wrong_length = |name: &str, values| BatchError::ColumnLength {
            name: name.to_owned(),
            values,
            records,
        };
        if !self.times.is_empty() && self.times.len() != records {
            return Err(wrong_length("times", self.times.len()));
        }
        for (index, column) in self.attributes.iter().enumerate() {
            if column.len() != records {
                return Err(wrong_length(&column.name, column.len()));
            }
            check_ends(&column.data, &column.ends).map_err(|error| BatchError::Column {
                name: column.name.clone(),
                error: Box::new(error),
            })?;
            if self.attributes[..index]
                .iter()
                .any(|other| other.name == column.name)
            {
                return Err(BatchError::ColumnTwice {
                    name: column.name.clone(),
                });
            }
        }
        Ok(())
    }

    /// Length of the longest record.
    pub fn longest_record_bytes(&self) -> usize {
        let mut before = 0;
        let mut longest = 0;
        for &end in &self.ends {
            longest = longest.max(end - before);
            before = end;
        }
        longest as usize
    }

    /// Appends records `from..to` of another batch, with their times and attributes.
    pub fn append_range(&mut self, other: &Batch, from: usize, to: usize) {
        let before = self.len();
        append_values(
            &mut self.data,
            &mut self.ends,
            &other.data,
            &other.ends,
            from,
            to,
        );
        if !other.times.is_empty() {
            self.times.resize(before, 0);
            self.times.extend_from_slice(&other.times[from..to]);
        }
        for column in &other.attributes {
            let own = self.column_or_new(&column.name, before);
            append_values(
                &mut own.data,
                &mut own.ends,
                &column.data,
                &column.ends,
                from,
                to,
            );
        }
        self.fill_columns();
    }

    /// Appends all records of another batch.
    pub fn append(&mut self, other: &Batch) {
        self.append_range(other, 0, other.len());
    }

    /// Appends the records of another batch at `indices`, in that order, repeats allowed. Runs of neighbours are copied
    /// at once.
    pub fn append_selected(&mut self, other: &Batch, indices: &[u32]) {
        let before = self.len();
        append_selected_values(
            &mut self.data,
            &mut self.ends,
            &other.data,
            &other.ends,
            indices,
        );
        if !other.times.is_empty() {
            self.times.resize(before, 0);
            self.times
                .extend(indices.iter().map(|&index| other.times[index as usize]));
        }
        for column in &other.attributes {
            let own = self.column_or_new(&column.name, before);
            append_selected_values(
                &mut own.data,
                &mut own.ends,
                &column.data,
                &column.ends,
                indices,
            );
        }
        self.fill_columns();
    }

    /// Keeps only the records at `indices`, which are ascending, unique and in range. Allocates nothing.
    pub fn select(&mut self, indices: &[u32]) {
        debug_assert!(indices.windows(2).all(|pair| pair[0] < pair[1]));
        select_values(&mut self.data, &mut self.ends, indices);
        if !self.times.is_empty() {
            for (slot, &index) in indices.iter().enumerate() {
                self.times[slot] = self.times[index as usize];
            }
            self.times.truncate(indices.len());
        }
        for column in &mut self.attributes {
            select_values(&mut column.data, &mut column.ends, indices);
        }
    }

    /// Takes the records from `index` on out into a new batch; this one keeps those before it.
    pub fn split_off(&mut self, index: usize) -> Batch {
        let mut tail = Batch::new();
        tail.append_range(self, index, self.len());
        self.truncate(index);
        tail
    }

    /// Drops the records from `len` on.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len() {
            return;
        }
        self.data.truncate(start_of(&self.ends, len));
        self.ends.truncate(len);
        self.times.truncate(len);
        for column in &mut self.attributes {
            column.data.truncate(start_of(&column.ends, len));
            column.ends.truncate(len);
        }
    }

    /// The column of that name, made if need be, with at least `len` values.
    fn column_or_new(&mut self, name: &str, len: usize) -> &mut Column {
        let index = match self
            .attributes
            .iter()
            .position(|column| column.name == name)
        {
            Some(index) => index,
            None => {
                self.attributes.push(Column::new(name));
                self.attributes.len() - 1
            }
        };
        let column = &mut self.attributes[index];
        column.pad_to(len);
        column
    }

    /// Makes times and columns as long as the batch; what was missing is unknown or none.
    fn fill_columns(&mut self) {
        let len = self.len();
        if !self.times.is_empty() {
            self.times.resize(len, 0);
        }
        for column in &mut self.attributes {
            column.pad_to(len);
        }
    }
}

impl<R: AsRef<[u8]>> Extend<R> for Batch {
    fn extend<I: IntoIterator<Item = R>>(&mut self, records: I) {
        for record in records {
            self.push(record.as_ref());
        }
    }
}

impl<R: AsRef<[u8]>> FromIterator<R> for Batch {
    fn from_iter<I: IntoIterator<Item = R>>(records: I) -> Self {
        let mut batch = Batch::new();
        batch.extend(records);
        batch
    }
}
