//! The `sluice` program.
