//! The edge: what a machine runs to do the orchestrator's work, and to go on without it.
//!
//! ```text
//!   link ---- frames, sessions ----> control thread ---- outputs ----> runner, artifacts, link
//!   (dials for ever)                  core + store                     (compile, run, pull)
//! ```
//!
//! [`core`] decides and owns the store; everything else is a thin shell around it. The library owns no process
//! globals: it installs no logger, no signal handler, and never exits the process, so that several edges and an
//! orchestrator fit one process.

pub mod args;
mod artifacts;
mod config;
mod control;
pub mod core;
pub mod doctor;
mod edge;
mod error;
mod join;
mod link;
mod logs;
mod metrics;
mod outputs;
mod renewal;
pub mod runner;
pub mod store;

pub use config::{EdgeConfig, LABELS_MAX};
pub use edge::{Edge, EdgeHandle, SHUTDOWN_WITHIN};
pub use error::{EdgeError, ExitCode};

/// This machine's name, for `${hostname}`.
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}
