//! QUIC and TLS: endpoints, identity, artifact streams.
//!
//! The only crate that knows quinn and rustls. It moves frames and bytes and says who the peer is; what a frame means
//! is `sluice-protocol`'s, and whether a node is welcome is the store's. It sets no process-wide crypto provider.
//!
//! ```text
//!   edge: Client::connect ──ALPN sluice/1, both certificates──> Server::accept: Incoming::Session
//!           │ control stream (opened by the edge, highest priority): frames both ways
//!           │ request streams (opened by either): one frame there, frames and bytes back
//!   new machine: join() ──ALPN sluice-join/1, server verified by the token's hash──> Incoming::Join
//!   operator: HTTPS ──> TlsListener::accept
//! ```

mod address;
mod bounds;
mod client;
mod config;
mod control;
mod error;
mod frame;
mod https;
pub mod identity;
mod keys;
mod random;
mod request;
mod resumption;
mod server;
mod session;
mod verify;

#[cfg(test)]
mod tests;

pub use address::{Address, AddressError};
pub use bounds::{
    HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, JOIN_FRAME_BYTES_MAX, KEEP_ALIVE_MAX, REQUEST_FRAME_BYTES_MAX,
    STREAMS_MAX,
};
pub use client::{Client, JoinAnswer, join};
pub use config::Timing;
pub use control::{ControlReceiver, ControlSender};
pub use error::{
    AttemptError, AttemptFailure, CloseCode, ClosedBy, ConnectError, JoinError, ServerError,
    SessionError,
};
pub use https::{ApiStream, TlsListener, api_client_config};
pub use keys::EndpointKeys;
pub use request::{Priority, Reply, RequestAcceptor, Responder};
pub use resumption::{Journal, KeptSession, Resumptions, SessionChange};
pub use server::{Incoming, JoinConn, Server};
pub use session::{EarlyData, Established, PeerIdentity, Session};
pub use sluice_protocol::{ALPN_JOIN, ALPN_SESSION, FRAME_BYTES_MAX};

/// The name that every orchestrator's certificate carries, wherever it runs: servers are verified by it, not by IP.
pub const SERVER_NAME: &str = "orchestrator.sluice.internal";
