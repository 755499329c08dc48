//! One QUIC connection between an edge and its orchestrator, as both sides see it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use quinn::Connection;
use rustls::pki_types::CertificateDer;
use sluice_model::NodeId;
use sluice_protocol::FRAME_BYTES_MAX;

use crate::bounds::{CLOSE_REASON_BYTES_MAX, FLUSH_TIMEOUT, REQUEST_FRAME_BYTES_MAX};
use crate::control::{CONTROL_PRIORITY, ControlReceiver, ControlSender, Proof};
use crate::error::{CloseCode, SessionError};
use crate::frame::{Reader, Writer};
use crate::identity::CertificateFacts;
use crate::request::{Reply, RequestAcceptor};

/// Who is at the other end of a session, as the orchestrator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// What its certificate says. The authority signed it; its date is *not* checked: see [`CertificateFacts::is_expired`].
    pub certificate: CertificateFacts,
    /// Where its packets come from; may change during the session.
    pub remote_addr: SocketAddr,
}

impl PeerIdentity {
    /// The node's id, from its certificate.
    pub fn node(&self) -> NodeId {
        self.certificate.node
    }
}

/// How the first frame of a session travelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyData {
    /// With the first packets, one round trip before the handshake's end: the session before was resumed.
    Accepted,
    /// It was sent with the first packets, which the orchestrator did not take, and again after the handshake.
    Refused,
    /// After the handshake.
    Unused,
}

/// A session that is up, with everything that exists once in it.
#[derive(Debug)]
pub struct Established {
    /// The connection; may be cloned.
    pub session: Session,
    /// Sends control frames.
    pub sender: ControlSender,
    /// Receives control frames.
    pub receiver: ControlReceiver,
    /// Takes the peer's requests.
    pub requests: RequestAcceptor,
    /// Who the peer is: on the orchestrator's side always, on the edge's side never (it knows its orchestrator).
    pub peer: Option<PeerIdentity>,
    /// How the first frame travelled. The orchestrator only knows whether it saw it before the handshake's end: for it,
    /// [`EarlyData::Unused`] is everything else.
    pub early: EarlyData,
}

/// A connection to the peer. Clones are the same session; when all of them and all streams are dropped, it closes.
#[derive(Clone)]
pub struct Session {
    connection: Connection,
    /// Of the dialling side, which has an endpoint for each session.
    endpoint: Option<quinn::Endpoint>,
}

impl Session {
    pub(crate) fn new(connection: Connection, endpoint: Option<quinn::Endpoint>) -> Self {
        Self {
            connection,
            endpoint,
        }
    }

    pub(crate) fn establish(
        self,
        (writer, recv): (Writer, quinn::RecvStream),
        peer: Option<(PeerIdentity, Proof)>,
        early: EarlyData,
    ) -> Established {
        let (peer, proof) = peer.unzip();
        Established {
            sender: ControlSender::new(writer),
            receiver: ControlReceiver::new(Reader::new(recv, FRAME_BYTES_MAX), proof),
            requests: RequestAcceptor::new(self.connection.clone()),
            session: self,
            peer,
            early,
        }
    }

    /// Opens a request stream and sends its one frame of at most [`REQUEST_FRAME_BYTES_MAX`] bytes.
    ///
    /// Waits while the peer has as many streams open as it allows. Dropping the reply tells the peer to stop.
    pub async fn open_request(&self, frame: Bytes) -> Result<Reply, SessionError> {
        let (send, recv) = self.connection.open_bi().await?;
        let mut writer = Writer::new(send);
        writer.set_priority(CONTROL_PRIORITY);
        let reply = Reply::new(Reader::new(recv, FRAME_BYTES_MAX));
        writer.send(frame, REQUEST_FRAME_BYTES_MAX).await?;
        writer.finish()?;
        Ok(reply)
    }

    /// Where the peer's packets come from now.
    pub fn remote_addr(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// The current guess at the round trip.
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// On the dialling side: goes on from a new socket, so that the session finds a new way through NATs and after a change
    /// of this machine's address. Takes two round trips; nothing is lost that QUIC can repeat. Does nothing on the accepting
    /// side.
    pub fn rebind(&self) -> std::io::Result<()> {
        match &self.endpoint {
            Some(endpoint) => endpoint.rebind(any_socket(self.remote_addr())?),
            None => Ok(()),
        }
    }

    /// Closes the session at once, both directions; what was sent and not yet taken may be lost.
    pub fn close(&self, code: CloseCode, reason: &str) {
        let mut end = reason.len().min(CLOSE_REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        self.connection
            .close(code.to_var(), &reason.as_bytes()[..end]);
    }

    /// Waits until the session is over, however that happens.
    pub async fn closed(&self) -> SessionError {
        self.connection.closed().await.into()
    }

    /// Why the session is over, if it is.
    pub fn close_reason(&self) -> Option<SessionError> {
        self.connection.close_reason().map(Into::into)
    }

    /// On the dialling side, after [`Self::close`]: waits (at most 3 s) until the peer has been told, so that the
    /// process may end. Returns at once on the accepting side, whose server lives on.
    pub async fn flushed(&self) {
        if let Some(endpoint) = &self.endpoint {
            // A peer that does not acknowledge within the bound will notice by its idle timeout.
            let _ = tokio::time::timeout(FLUSH_TIMEOUT, endpoint.wait_idle()).await;
        }
    }
}

#[cfg(test)]
impl Session {
    pub(crate) fn raw(&self) -> &Connection {
        &self.connection
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("remote_addr", &self.remote_addr())
            .finish_non_exhaustive()
    }
}

/// A new socket of this machine that can reach an address.
pub(crate) fn any_socket(target: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(any)
}

/// The certificates that the peer showed; `None` when it showed none.
pub(crate) fn peer_chain(connection: &Connection) -> Option<Vec<CertificateDer<'static>>> {
    let chain = connection
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    (!chain.is_empty()).then_some(*chain)
}
