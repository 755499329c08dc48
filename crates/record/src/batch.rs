//! The batch: `data` holds the records' bytes back to back, `ends[i]` is where record `i` stops.

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

/// One attribute of every record of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// The attribute's name.
    pub name: String,
    /// The values' bytes, back to back.
    pub data: Vec<u8>,
    /// Where each value ends in `data`, ascending.
    pub ends: Vec<u32>,
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
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Empties the batch and keeps its buffers.
    pub fn clear(&mut self) {
        self.data.clear();
        self.ends.clear();
        self.times.clear();
        self.attributes.clear();
    }

    /// Adds a record. The caller keeps `data` below 4 GiB (see [`BATCH_BYTES_MAX`], [`RECORD_BYTES_MAX`]).
    pub fn push(&mut self, record: &[u8]) {
        self.data.extend_from_slice(record);
        self.ends.push(u32::try_from(self.data.len()).expect("a batch stays below 4 GiB"));
    }

    /// Record `index`, which must exist.
    pub fn record(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.data[start..self.ends[index] as usize]
    }

    /// The records in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.record(index))
    }
}
