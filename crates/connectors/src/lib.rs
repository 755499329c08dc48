//! Runs inputs and outputs: reads records in batches, writes them, and says when they are safe.
//!
//! An input hands out batches, each with the position behind it; whoever stored a position opens the input there
//! again. An output accepts batches and tells how many of them are acked, in order. Nothing here knows stages,
//! checkpoints on disk or executions: the edge's runner puts these together. Paths never leave what
//! [`AllowedPaths`] allows.

mod paths;

pub use paths::{AllowedPaths, PathError};
