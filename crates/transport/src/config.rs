//! quinn and rustls configurations. Every limit is set here; no default of the libraries decides.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{IdleTimeout, TransportConfig, VarInt};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::server::StoresServerSessions;
use rustls::version::TLS13;
use sha2::{Digest as _, Sha256};
use sluice_protocol::{ALPN_JOIN, ALPN_SESSION};

use crate::bounds::{
    CONNECTION_WINDOW_BYTES, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, INCOMING_BYTES_MAX,
    INCOMING_BYTES_TOTAL_MAX, INCOMING_MAX, INITIAL_RTT, KEEP_ALIVE_MAX, STREAM_WINDOW_BYTES,
    STREAMS_MAX,
};
use crate::error::TlsError;
use crate::identity::{NodeIdentity, ServerIdentity};
use crate::resumption::Tickets;
use crate::verify::{
    AuthorityVerifier, NodeVerifier, PinnedAuthorityVerifier, TimeFloor, provider,
};

/// How patient an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Silence after which a session counts as dead. The shorter one of the two sides counts.
    pub idle_timeout: Duration,
    /// How long one address may take to answer and finish the handshake.
    pub connect_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            idle_timeout: IDLE_TIMEOUT,
            connect_timeout: HANDSHAKE_TIMEOUT,
        }
    }
}

impl Timing {
    /// A third of the idle timeout, so that two lost keep-alives end nothing.
    fn keep_alive(&self) -> Duration {
        (self.idle_timeout / 3).min(KEEP_ALIVE_MAX)
    }
}

enum Side {
    Dialling,
    Accepting,
}

fn transport(timing: &Timing, side: Side) -> Result<TransportConfig, TlsError> {
    let idle = IdleTimeout::try_from(timing.idle_timeout).map_err(TlsError::new)?;
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(CONNECTION_WINDOW_BYTES.into())
        .datagram_receive_buffer_size(None)
        .initial_rtt(INITIAL_RTT)
        .max_idle_timeout(Some(idle))
        // The side behind the NAT keeps its hole open; the other would only add packets.
        .keep_alive_interval(match side {
            Side::Dialling => Some(timing.keep_alive()),
            Side::Accepting => None,
        });
    Ok(config)
}

/// What an edge remembers of the server's limits, as one number: a session is good for as long as it is the same. The
/// libraries' text names every limit; when only the text changes, edges pay one full handshake.
pub(crate) fn limits_sha256(timing: &Timing) -> Result<[u8; 32], TlsError> {
    let text = format!("{:?}", transport(timing, Side::Accepting)?);
    Ok(Sha256::digest(text).into())
}

pub(crate) fn server(
    identity: &ServerIdentity,
    timing: &Timing,
    sessions: Arc<dyn StoresServerSessions>,
) -> Result<quinn::ServerConfig, TlsError> {
    let authority = identity.chain[1].clone();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::new)?
        .with_client_cert_verifier(Arc::new(NodeVerifier::new(authority)?))
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(TlsError::new)?;
    tls.alpn_protocols = vec![ALPN_SESSION.to_vec(), ALPN_JOIN.to_vec()];
    // No ticketer: early data is for stateful sessions only. One ticket: it is used once, and brings the next.
    tls.session_storage = sessions;
    tls.send_tls13_tickets = 1;
    // QUIC knows two values: none, and as much as the limits of the transport let pass.
    tls.max_early_data_size = u32::MAX;
    let tls = QuicServerConfig::try_from(tls).map_err(TlsError::new)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(Arc::new(transport(timing, Side::Accepting)?))
        .migration(true)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
    Ok(config)
}

pub(crate) fn session_client(
    identity: &NodeIdentity,
    timing: &Timing,
    floor: TimeFloor,
) -> Result<quinn::ClientConfig, TlsError> {
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::new)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AuthorityVerifier::new(
            identity.authority(),
            floor,
        )?))
        .with_client_auth_cert(identity.chain(), identity.private_key())
        .map_err(TlsError::new)?;
    client(tls, ALPN_SESSION, timing, Some(Tickets::default()))
}

pub(crate) fn join_client(
    authority_sha256: [u8; 32],
    timing: &Timing,
) -> Result<quinn::ClientConfig, TlsError> {
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::new)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedAuthorityVerifier::new(authority_sha256)))
        .with_no_client_auth();
    client(tls, ALPN_JOIN, timing, None)
}

fn client(
    mut tls: rustls::ClientConfig,
    alpn: &[u8],
    timing: &Timing,
    tickets: Option<Tickets>,
) -> Result<quinn::ClientConfig, TlsError> {
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.enable_early_data = tickets.is_some();
    tls.resumption = match tickets {
        Some(tickets) => Resumption::store(Arc::new(tickets)),
        None => Resumption::disabled(),
    };
    let tls = QuicClientConfig::try_from(tls).map_err(TlsError::new)?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport(timing, Side::Dialling)?));
    Ok(config)
}

/// The HTTPS side of a server: no client certificates, HTTP/1.1.
pub(crate) fn https_server(identity: &ServerIdentity) -> Result<rustls::ServerConfig, TlsError> {
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::new)?
        .with_no_client_auth()
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(TlsError::new)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

pub(crate) fn https_client(authority_der: &[u8]) -> Result<rustls::ClientConfig, TlsError> {
    let authority = CertificateDer::from(authority_der.to_vec());
    let verifier = AuthorityVerifier::new(authority, TimeFloor::default())?;
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::new)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(tls)
}
