//! Batches of records in columns. No IO.
