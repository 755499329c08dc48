//! The edge's core: a deterministic, synchronous state machine that owns the store.

mod io;

pub use io::{CloseWhy, ConnectionId, Event, Input, Output, Redial};
