//! Batches of records in columns: one byte buffer and one list of end offsets.
//!
//! This is what inputs fill, stages see and outputs write. Nothing here does IO, and nothing here allocates for each
//! record: buffers grow to the size of a batch once and are reused (`clear` keeps their capacity).

mod batch;
mod column;

pub use batch::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Batch, BatchError, RECORD_BYTES_MAX};
pub use column::Column;

#[cfg(test)]
mod tests;
