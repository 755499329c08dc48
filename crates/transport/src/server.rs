//! The orchestrator's end: one UDP socket, handshakes side by side, and each finished one handed out.

use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::Connection;
use quinn::crypto::rustls::HandshakeData;
use sluice_protocol::{ALPN_JOIN, ALPN_SESSION};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::bounds::{
    FLUSH_TIMEOUT, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, HANDSHAKES_UNVALIDATED_MAX,
    JOIN_FRAME_BYTES_MAX,
};
use crate::config::{self, Timing};
use crate::control::Proof;
use crate::error::{CloseCode, ServerError, SessionError};
use crate::frame::{Reader, Writer};
use crate::identity::{CertificateFacts, ServerIdentity};
use crate::keys::EndpointKeys;
use crate::resumption::Resumptions;
use crate::session::{EarlyData, Established, PeerIdentity, Session, peer_chain};

/// Accepts sessions and join requests on one UDP port.
pub struct Server {
    endpoint: quinn::Endpoint,
    local_addr: SocketAddr,
    handshakes: JoinSet<Option<Incoming>>,
}

/// Who came.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once for a connection and taken apart at once"
)]
pub enum Incoming {
    /// A new machine with a token. Nothing about it is proven yet but that it knows the server.
    Join(JoinConn),
    /// A node with a certificate of this cluster; its standing and its certificate's date are for the caller to check,
    /// also because a resumed session's handshake checked nothing. Its first frame may be a replay: see
    /// [`ControlReceiver`](crate::ControlReceiver).
    Session(Established),
}

impl Server {
    /// Binds the socket. Port 0 takes any free one: see [`Self::local_addr`].
    ///
    /// Must be called inside a tokio runtime. `keys` must be the same at every start of this orchestrator, and
    /// `resumptions` made with the same `keys` and `timing`.
    pub fn bind(
        listen: SocketAddr,
        identity: &ServerIdentity,
        keys: &EndpointKeys,
        timing: &Timing,
        resumptions: &Resumptions,
    ) -> Result<Self, ServerError> {
        let config = config::server(identity, timing, resumptions.storage())?;
        let bind = |source| ServerError::bind("UDP", listen, source);
        let socket = UdpSocket::bind(listen).map_err(bind)?;
        let local_addr = socket.local_addr().map_err(bind)?;
        let endpoint = quinn::Endpoint::new(
            keys.endpoint_config(),
            Some(config),
            socket,
            Arc::new(quinn::TokioRuntime),
        )
        .map_err(bind)?;
        Ok(Self {
            endpoint,
            local_addr,
            handshakes: JoinSet::new(),
        })
    }

    /// Where the server listens, with the port that was really taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The next peer that finished its handshake and said its first word; `None` after [`Self::close`].
    ///
    /// May be dropped and called again without loss, but new peers are answered only while it is awaited: hand each
    /// one to a task and call again. Failed handshakes are logged and skipped.
    pub async fn accept(&mut self) -> Option<Incoming> {
        loop {
            tokio::select! {
                Some(finished) = self.handshakes.join_next() => {
                    if let Ok(Some(incoming)) = finished {
                        return Some(incoming);
                    }
                }
                incoming = self.endpoint.accept(), if self.handshakes.len() < HANDSHAKES_MAX => {
                    let incoming = incoming?;
                    let is_busy = self.handshakes.len() >= HANDSHAKES_UNVALIDATED_MAX;
                    if is_busy && !incoming.remote_address_validated() && incoming.may_retry() {
                        // Fails only where a retry is not possible, which was asked just now.
                        let _ = incoming.retry();
                    } else {
                        self.handshakes.spawn(welcome(incoming));
                    }
                }
            }
        }
    }

    /// Closes every session and takes no more.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        self.handshakes.abort_all();
        self.endpoint.close(code.to_var(), reason.as_bytes());
    }

    /// After [`Self::close`]: waits until every peer has been told, at most `within`.
    pub async fn flushed(&self, within: Duration) {
        // Peers that do not acknowledge in time notice by their idle timeout.
        let _ = timeout(within, self.endpoint.wait_idle()).await;
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

/// A machine that wants to join: its request, and the way to answer it.
pub struct JoinConn {
    request: Bytes,
    writer: Writer,
    connection: Connection,
}

impl JoinConn {
    /// The one frame that it sent.
    pub fn request(&self) -> &Bytes {
        &self.request
    }

    /// Where it is.
    pub fn remote_addr(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Answers with one frame of at most [`JOIN_FRAME_BYTES_MAX`] bytes, waits until it was taken, and closes.
    pub async fn respond(mut self, frame: Bytes) -> Result<(), SessionError> {
        let answer = async {
            self.writer.send(frame, JOIN_FRAME_BYTES_MAX).await?;
            self.writer.finish()?;
            self.writer.taken().await
        };
        let outcome = timeout(FLUSH_TIMEOUT, answer)
            .await
            .unwrap_or(Err(SessionError::TimedOut));
        self.connection.close(CloseCode::DONE.to_var(), b"");
        outcome
    }
}

impl fmt::Debug for JoinConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinConn")
            .field("remote_addr", &self.remote_addr())
            .finish_non_exhaustive()
    }
}

/// Finishes a handshake and reads the peer's first word.
async fn welcome(incoming: quinn::Incoming) -> Option<Incoming> {
    let remote_addr = incoming.remote_address();
    let refusal = match timeout(HANDSHAKE_TIMEOUT, handshake(incoming)).await {
        Ok(Ok(incoming)) => return Some(incoming),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it took too long".to_owned(),
    };
    tracing::debug!(%remote_addr, refusal, "transport.handshake_failed");
    None
}

async fn handshake(incoming: quinn::Incoming) -> Result<Incoming, SessionError> {
    let mut connecting = incoming.accept()?;
    // Before it, a peer's identity may not be known though it comes with a session.
    let greeting = connecting.handshake_data().await?;
    let protocol = greeting
        .downcast::<HandshakeData>()
        .ok()
        .and_then(|data| data.protocol);
    let (connection, complete) = connecting
        .into_0rtt()
        .map_err(|_| SessionError::Transport {
            detail: "QUIC let an accepting side read nothing early".to_owned(),
        })?;
    let mut proof = Proof::new(connection.clone(), complete);
    if peer_chain(&connection).is_none() {
        // No session is resumed: who it is, shows the handshake.
        proof.wait().await?;
    }
    match protocol.as_deref() {
        Some(ALPN_SESSION) => session(connection, proof).await,
        Some(ALPN_JOIN) => join(connection).await,
        _ => Err(refuse(
            &connection,
            CloseCode::PROTOCOL,
            "the dialect is neither a session's nor joining's",
        )),
    }
}

async fn session(connection: Connection, proof: Proof) -> Result<Incoming, SessionError> {
    let Some(chain) = peer_chain(&connection) else {
        let reason = "a session needs a node certificate; join first";
        return Err(refuse(&connection, CloseCode::NO_CERTIFICATE, reason));
    };
    let certificate = match CertificateFacts::parse(&chain[0]) {
        Ok(certificate) => certificate,
        Err(error) => {
            return Err(refuse(
                &connection,
                CloseCode::NO_CERTIFICATE,
                &error.to_string(),
            ));
        }
    };
    // Streams arrive in the order in which the peer numbered them, so the first is the control stream.
    let (send, recv) = connection.accept_bi().await?;
    let early = if recv.is_0rtt() {
        EarlyData::Accepted
    } else {
        EarlyData::Unused
    };
    let peer = PeerIdentity {
        certificate,
        remote_addr: connection.remote_address(),
    };
    Ok(Incoming::Session(Session::new(connection, None).establish(
        (Writer::new(send), recv),
        Some((peer, proof)),
        early,
    )))
}

async fn join(connection: Connection) -> Result<Incoming, SessionError> {
    let (send, recv) = connection.accept_bi().await?;
    let mut reader = Reader::new(recv, JOIN_FRAME_BYTES_MAX);
    match reader.recv().await {
        Ok(Some(request)) => Ok(Incoming::Join(JoinConn {
            request,
            writer: Writer::new(send),
            connection,
        })),
        Ok(None) => Err(refuse(
            &connection,
            CloseCode::PROTOCOL,
            "the join request is missing",
        )),
        Err(error) if error.is_of_stream() => {
            Err(refuse(&connection, CloseCode::PROTOCOL, &error.to_string()))
        }
        Err(error) => Err(error),
    }
}

fn refuse(connection: &Connection, code: CloseCode, reason: &str) -> SessionError {
    connection.close(code.to_var(), reason.as_bytes());
    SessionError::Transport {
        detail: reason.to_owned(),
    }
}
