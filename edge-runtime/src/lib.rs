//! The edge: agent loop, store, artifact cache, pipeline runner.

pub mod runner;
