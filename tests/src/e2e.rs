//! What the end-to-end tests share: real processes on loopback, in temporary directories, with real faults.
//!
//! ```text
//!   test --CLI or HTTPS--> sluice orchestrator --QUIC--> [link] --> sluice edge
//!     \--kill -9, restart, wipe--^-----------------------------------^
//! ```
//!
//! A test owns one [`Cluster`]; everything that it started dies with it, also when the test panics, and then the logs of
//! all processes are printed. Waiting is done in one place, [`wait`]. Nothing here looks into another crate's
//! internals: what a test claims is read from the API, the CLI, the programs' logs, or files that records went to.

mod api;
mod bare;
mod cluster;
mod disk;
mod doom;
pub mod link;
mod logs;
pub mod overlap;
pub mod pipelines;
mod process;
pub mod wait;

pub use api::{Api, Refusal, Watch};
pub use bare::{BareEdge, BareSession};
pub use cluster::{Cluster, ClusterOptions, Ran, dir_text};
pub use disk::SmallDisk;
pub use link::{Conditions, Link, NewSockets, Rule};
pub use logs::{JsonLog, Mark};
pub use process::{Process, edge_program, sluice_program};
