//! The orchestrator: store, sessions, scheduler loop, artifacts, HTTP API.
//!
//! ```text
//!   edges ══QUIC══> sessions ─┐                       ┌─> replies, frames, wake-ups: only after the commit
//!   operators ─HTTPS─> http ──┼─ Input ─> control ────┤
//!   timer ────────────────────┘   one thread: core + store, one transaction for all that waits
//! ```
//!
//! [`core`] decides everything and touches only the store; the rest are shells. The library owns no process globals:
//! no tracing set-up, no signal handlers, no exit.

pub mod artifacts;
mod control;
pub mod core;
pub mod doctor;
mod events;
mod follow;
pub mod http;
mod log_room;
mod metrics;
mod operators;
mod orchestrator;
mod outputs;
mod resumption;
mod sessions;
pub mod store;

pub use control::{Control, ControlError};
pub use events::Told;
pub use orchestrator::{Orchestrator, OrchestratorConfig, OrchestratorHandle, StartError};
pub use outputs::OutputsConfig;
