//! What orchestrator and edge tell about themselves in numbers, and the port that it is read from.
//!
//! ```text
//!   counters of the program --look, at most once a second--> Families --render--> text --serve--> GET /metrics
//! ```
//!
//! Nothing is registered and nothing is counted twice: a program keeps its counters where they belong, and makes
//! [`Family`] values of them when somebody asks. What a family means, its owner knows. The only crate that knows
//! prometheus-client.

mod family;
mod serve;
mod timings;

pub use family::{Family, Kind, Labels, Value, render};
pub use serve::{CONNECTIONS_MAX, MetricsPort, PortError};
pub use timings::{Timed, Timings};
