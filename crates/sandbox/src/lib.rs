//! Runs a chain of stages: engine, limits, grants, bindings.
