//! The edge: agent loop, store, artifact cache, pipeline runner.

pub mod core;
pub mod runner;
pub mod store;
