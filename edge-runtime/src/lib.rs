//! The edge: agent loop, store, artifact cache, pipeline runner.
