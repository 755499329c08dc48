//! Runs inputs and outputs: reads records in batches, writes them, and says when they are safe.
//!
//! An input hands out batches, each with the position behind it; whoever stored a position opens the input there
//! again. An output accepts batches in order and tells how many of them are acked, in the same order. Every connector
//! is behind one cargo feature and passes the one contract in `contract.rs`. Nothing here knows stages, checkpoints on
//! disk or executions: the edge's runner puts these together. Paths never leave what [`AllowedPaths`] allows, and no
//! file is read or written on a thread that serves the network.

mod commands;
mod input;
mod output;
mod paths;

#[cfg(test)]
mod contract;

pub use commands::{AllowedCommands, CommandError, CommandLine};
pub use input::{
    FilePosition, Input, InputBatch, InputError, InputSettings, Next, Position,
    REJECT_PREFIX_BYTES_MAX, RejectedRecord, StdinSource,
};
pub use output::{
    LineSink, Output, OutputError, OutputPosition, OutputSettings, StdoutTarget,
    UNACKED_BATCHES_SYNC,
};
pub use paths::{AllowedPaths, PathError};
