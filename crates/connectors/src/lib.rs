//! Runs inputs and outputs.
