//! The edge's end: dialling the orchestrator, with or without a certificate.
//!
//! Every dial has a socket of its own, so that a new try also gets a new way through NATs and firewalls. Addresses
//! are tried in order, each starting soon after the one before; the first that finishes its handshake wins.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, Endpoint};
use sluice_model::UnixMs;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::SERVER_NAME;
use crate::address::Address;
use crate::bounds::{
    ATTEMPT_STAGGER, ATTEMPTS_MAX, FLUSH_TIMEOUT, JOIN_FRAME_BYTES_MAX, RESOLVE_TIMEOUT,
};
use crate::config::{self, Timing};
use crate::error::{
    AttemptError, AttemptFailure, CloseCode, ConnectError, JoinError, SessionError,
};
use crate::frame::{Reader, Writer};
use crate::identity::{IdentityError, JoinToken, NodeIdentity};
use crate::session::{Established, Session, peer_chain};
use crate::verify::{TimeFloor, find_pinned};

/// Dials the orchestrator as one node. Make it once and keep it: what it knows outlives single sessions.
pub struct Client {
    config: quinn::ClientConfig,
    timing: Timing,
    floor: TimeFloor,
}

impl Client {
    /// Prepares to dial with this identity.
    ///
    /// `trusted_time_floor` is the latest server time on disk (0 if none): the orchestrator's certificate is checked
    /// at the latest of the system's clock, this floor and the certificates' own starts, for machines without a clock.
    pub fn new(
        identity: &NodeIdentity,
        timing: Timing,
        trusted_time_floor: UnixMs,
    ) -> Result<Self, IdentityError> {
        let floor = TimeFloor::new(trusted_time_floor);
        floor.raise(identity.facts().not_before);
        let config = config::session_client(identity, &timing, floor.clone())?;
        Ok(Self {
            config,
            timing,
            floor,
        })
    }

    /// Tells the client a later server time; earlier ones are ignored.
    pub fn raise_time_floor(&self, to: UnixMs) {
        self.floor.raise(to);
    }

    /// Opens a session. The orchestrator learns of it with the first control frame, so send one (the Hello) at once.
    ///
    /// That the orchestrator accepts this node's certificate shows only when something is received.
    pub async fn connect(&self, addresses: &[Address]) -> Result<Established, ConnectError> {
        let dialled = dial(addresses, &self.config, self.timing.connect_timeout).await?;
        let control = dialled
            .connection
            .open_bi()
            .await
            .map_err(|error| dialled.failed(error))?;
        Ok(Session::new(dialled.connection, Some(dialled.endpoint)).establish(control, None))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

/// What came back from joining.
#[derive(Clone, Debug)]
pub struct JoinAnswer {
    /// The orchestrator's one frame.
    pub frame: Bytes,
    /// The authority's certificate, DER: the one whose hash the token carries.
    pub authority_der: Vec<u8>,
}

/// Sends one frame to the orchestrator that a token names and waits for its one frame of answer.
///
/// The orchestrator is verified by the authority's hash in the token before anything is sent, at the later of the
/// system's clock and the start of its certificate.
pub async fn join(
    token: &JoinToken,
    request: Bytes,
    timing: &Timing,
) -> Result<JoinAnswer, JoinError> {
    let config = config::join_client(token.authority_sha256, timing).map_err(|error| {
        SessionError::Transport {
            detail: error.to_string(),
        }
    })?;
    let dialled = dial(&token.addresses, &config, timing.connect_timeout).await?;
    let after = timing.connect_timeout;
    let outcome = match timeout(
        after,
        ask(&dialled.connection, request, &token.authority_sha256),
    )
    .await
    {
        Ok(outcome) => outcome.map_err(JoinError::Session),
        Err(_) => Err(JoinError::NoAnswer { after }),
    };
    dialled.connection.close(CloseCode::DONE.to_var(), b"");
    // The orchestrator's side closes by itself should this goodbye get lost.
    let _ = timeout(FLUSH_TIMEOUT, dialled.endpoint.wait_idle()).await;
    outcome
}

async fn ask(
    connection: &Connection,
    request: Bytes,
    pinned: &[u8; 32],
) -> Result<JoinAnswer, SessionError> {
    let (send, recv) = connection.open_bi().await?;
    let mut writer = Writer::new(send);
    writer.send(request, JOIN_FRAME_BYTES_MAX).await?;
    writer.finish()?;
    let frame = Reader::new(recv, JOIN_FRAME_BYTES_MAX)
        .recv()
        .await?
        .ok_or(SessionError::Truncated)?;
    let chain = peer_chain(connection).unwrap_or_default();
    let authority = find_pinned(chain.iter(), pinned).ok_or_else(|| SessionError::Transport {
        detail: "the orchestrator's chain lost its authority".to_owned(),
    })?;
    Ok(JoinAnswer {
        frame,
        authority_der: authority.to_vec(),
    })
}

struct Dialled {
    endpoint: Endpoint,
    connection: Connection,
    address: String,
}

impl Dialled {
    fn failed(&self, error: quinn::ConnectionError) -> ConnectError {
        let error = AttemptError::from_connection(error, Duration::ZERO);
        ConnectError::Failed {
            failures: vec![AttemptFailure {
                address: self.address.clone(),
                error,
            }],
        }
    }
}

/// Tries every address; the first finished handshake wins and the other attempts are dropped.
async fn dial(
    addresses: &[Address],
    config: &quinn::ClientConfig,
    connect_timeout: Duration,
) -> Result<Dialled, ConnectError> {
    let (targets, mut failures) = resolve(addresses).await;
    let mut targets = targets.into_iter().peekable();
    let mut attempts = JoinSet::new();
    loop {
        if let Some((address, target)) = targets.next() {
            attempts.spawn(attempt(address, target, config.clone(), connect_timeout));
        }
        tokio::select! {
            finished = attempts.join_next() => match finished {
                Some(Ok(Ok(dialled))) => return Ok(dialled),
                Some(Ok(Err(failure))) => failures.push(failure),
                // Only a panic, which is a defect and was reported by its hook.
                Some(Err(_)) => {}
                None => break,
            },
            () = sleep(ATTEMPT_STAGGER), if targets.peek().is_some() => {}
        }
    }
    if failures.is_empty() {
        Err(ConnectError::NoAddress)
    } else {
        Err(ConnectError::Failed { failures })
    }
}

/// Socket addresses in the order of the given ones, each with the text that names it in messages.
async fn resolve(addresses: &[Address]) -> (Vec<(String, SocketAddr)>, Vec<AttemptFailure>) {
    let (mut targets, mut failures) = (Vec::new(), Vec::new());
    for address in addresses.iter().take(ATTEMPTS_MAX) {
        let lookup = tokio::net::lookup_host((address.host(), address.port()));
        let detail = match timeout(RESOLVE_TIMEOUT, lookup).await {
            Ok(Ok(found)) => {
                let before = targets.len();
                for target in found {
                    let text = if address.to_string() == target.to_string() {
                        target.to_string()
                    } else {
                        format!("{address} ({target})")
                    };
                    if targets.len() < ATTEMPTS_MAX
                        && !targets.iter().any(|(_, known)| *known == target)
                    {
                        targets.push((text, target));
                    }
                }
                if targets.len() > before || !targets.is_empty() {
                    continue;
                }
                "it has no address".to_owned()
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {RESOLVE_TIMEOUT:?}"),
        };
        failures.push(AttemptFailure {
            address: address.to_string(),
            error: AttemptError::Resolve { detail },
        });
    }
    (targets, failures)
}

async fn attempt(
    address: String,
    target: SocketAddr,
    config: quinn::ClientConfig,
    within: Duration,
) -> Result<Dialled, AttemptFailure> {
    let outcome = async {
        let local = |error: &dyn fmt::Display| AttemptError::Local {
            detail: error.to_string(),
        };
        let any: SocketAddr = match target {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).map_err(|error| local(&error))?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime)
            .map_err(|error| local(&error))?;
        let connecting = endpoint
            .connect_with(config, target, SERVER_NAME)
            .map_err(|error| local(&error))?;
        match timeout(within, connecting).await {
            Ok(Ok(connection)) => Ok((endpoint, connection)),
            Ok(Err(error)) => Err(AttemptError::from_connection(error, within)),
            Err(_) => Err(AttemptError::NoAnswer { after: within }),
        }
    };
    match outcome.await {
        Ok((endpoint, connection)) => Ok(Dialled {
            endpoint,
            connection,
            address,
        }),
        Err(error) => Err(AttemptFailure { address, error }),
    }
}
