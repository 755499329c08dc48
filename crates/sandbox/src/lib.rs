//! Runs a pipeline's chain of stages: the engine, what a guest may use, and the threads that guests run on.
//!
//! ```text
//! Engine::load(digest) --> Compiled --> StageSpec --> InProcessChain::new --> GuestPool::add --> ChainHandle::process
//! ```
//!
//! This is the only crate that knows wasmtime. Guests are strangers here: everything that they return is checked before
//! it is used, every resource that they can take has a bound that ends the call with a named error, and after any such
//! error the instance is replaced. It never opens a socket or a file for a guest, never decides whether an execution
//! starts again, and takes batches from memory only.

mod bindings;
mod cache;
mod chain;
mod engine;
mod error;
mod in_process;
mod isolate;
mod limits;
mod log;
mod outcome;
mod pool;
mod stage;
mod state;
mod ticker;
mod wasi;

pub use chain::{
    Chain, ChainFault, ChainOutput, DeadLetter, DeadLetterKind, OnRetry, Passed, Turn, View,
};
pub use engine::{Compiled, Engine, EngineConfig, EngineError, LoadError};
pub use error::{CallError, ConfigureCause, ConfigureError};
pub use in_process::InProcessChain;
pub use limits::{
    ATTRIBUTE_NAME_BYTES_MAX, ATTRIBUTES_MAX, FINISH_DEADLINE_FACTOR, REASON_BYTES_MAX,
    StageLimits, WALL_DEADLINE_FACTOR,
};
pub use log::{Level, LogSink};
pub use pool::{ChainHandle, GuestPool, Processed, Processing};
pub use stage::StageSpec;
