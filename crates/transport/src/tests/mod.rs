//! The transport with real sockets on loopback.
