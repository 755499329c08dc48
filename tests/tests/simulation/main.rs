//! The simulator at work: many seeds of chaos, and the failure matrix's cases that it covers, each as a scenario.
//!
//! `SLUICE_SIM_SEEDS=5000` runs more seeds, from `SLUICE_SIM_FIRST=201` on; `SLUICE_SIM_SEED=7 cargo test -p
//! sluice-tests --test simulation -- --nocapture replay` runs one again and shows what happened.

#![allow(clippy::unwrap_used)]

mod content;
mod every_call;
mod faults;
mod placement;
mod planted;
mod reported;
mod rollout;
mod seeds;
mod tasks;
