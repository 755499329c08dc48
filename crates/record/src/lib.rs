//! Batches of records in columns: one byte buffer and one list of end offsets.
//!
//! Nothing here does IO. Buffers are meant to be reused: `clear` keeps their capacity.

mod batch;

pub use batch::{Batch, BatchError, Column, RECORD_BYTES_MAX, BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
