//! QUIC and TLS: endpoints, identity, artifact streams.
