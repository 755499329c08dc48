//! HTTPS for operators: TLS on TCP with a certificate of the cluster's authority.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::bounds::{ACCEPT_PAUSE, HANDSHAKE_TIMEOUT, HTTPS_HANDSHAKES_MAX};
use crate::config;
use crate::error::ServerError;
use crate::identity::{IdentityError, ServerIdentity};

/// An accepted HTTPS connection.
pub type ApiStream = TlsStream<TcpStream>;

/// Accepts TLS connections on one TCP port; handshakes run side by side, so a silent client holds up nobody.
pub struct TlsListener {
    listener: TcpListener,
    local_addr: SocketAddr,
    acceptor: TlsAcceptor,
    handshakes: JoinSet<Option<(ApiStream, SocketAddr)>>,
}

impl TlsListener {
    /// Binds the socket. Port 0 takes any free one: see [`Self::local_addr`].
    pub async fn bind(listen: SocketAddr, identity: &ServerIdentity) -> Result<Self, ServerError> {
        let acceptor = TlsAcceptor::from(Arc::new(config::https_server(identity)?));
        let bind = |source| ServerError::bind("TCP", listen, source);
        let listener = TcpListener::bind(listen).await.map_err(bind)?;
        let local_addr = listener.local_addr().map_err(bind)?;
        Ok(Self {
            listener,
            local_addr,
            acceptor,
            handshakes: JoinSet::new(),
        })
    }

    /// Where the listener listens, with the port that was really taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The next connection that finished its handshake. May be dropped and called again without loss.
    ///
    /// Failed handshakes are logged and skipped; when the system has no socket to give, it tries again shortly.
    pub async fn accept(&mut self) -> (ApiStream, SocketAddr) {
        loop {
            tokio::select! {
                Some(finished) = self.handshakes.join_next() => {
                    if let Ok(Some(accepted)) = finished {
                        return accepted;
                    }
                }
                accepted = self.listener.accept(), if self.handshakes.len() < HTTPS_HANDSHAKES_MAX => match accepted {
                    Ok((stream, remote_addr)) => {
                        self.handshakes.spawn(handshake(self.acceptor.clone(), stream, remote_addr));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "transport.accept_failed");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

impl fmt::Debug for TlsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsListener")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    remote_addr: SocketAddr,
) -> Option<(ApiStream, SocketAddr)> {
    // Only costs latency where it fails.
    let _ = stream.set_nodelay(true);
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some((stream, remote_addr)),
        Ok(Err(error)) => tracing::debug!(%remote_addr, %error, "transport.handshake_failed"),
        Err(_) => {
            tracing::debug!(%remote_addr, error = "it took too long", "transport.handshake_failed")
        }
    }
    None
}

/// TLS for a client of the HTTPS API, trusting only the given authority; for reqwest's `tls_backend_preconfigured`.
///
/// The server's certificate carries [`crate::SERVER_NAME`], so make that name resolve to the endpoint's address.
pub fn api_client_config(authority_der: &[u8]) -> Result<rustls::ClientConfig, IdentityError> {
    Ok(config::https_client(authority_der)?)
}
