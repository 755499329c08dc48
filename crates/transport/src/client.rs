//! The edge's end: dialling the orchestrator, with or without a certificate.
//!
//! Every attempt has a socket of its own, so that a new try also gets a new way through NATs and firewalls. Addresses
//! are tried in order, each starting soon after the one before; the first that finishes its handshake wins. When two
//! round trips have passed, a packet was lost: the first address is tried a second time beside the first attempt, because
//! QUIC itself, which knows no round trip yet, waits longer.
//!
//! A session that was open before is resumed: then the Hello travels with the first packets. An orchestrator that does not
//! take it so gets it again after the handshake, on the same connection.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connecting, Connection, ConnectionError, Endpoint, RecvStream};
use sluice_model::UnixMs;
use sluice_protocol::FRAME_BYTES_MAX;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::SERVER_NAME;
use crate::address::Address;
use crate::bounds::{
    ATTEMPT_STAGGER, ATTEMPTS_MAX, FLUSH_TIMEOUT, HEDGE_AFTER_MAX, HEDGE_AFTER_MIN,
    JOIN_FRAME_BYTES_MAX, RESOLVE_TIMEOUT,
};
use crate::config::{self, Timing};
use crate::error::{
    AttemptError, AttemptFailure, CloseCode, ConnectError, JoinError, SessionError,
};
use crate::frame::{Reader, Writer};
use crate::identity::{IdentityError, JoinToken, NodeIdentity};
use crate::session::{EarlyData, Established, Session, any_socket, peer_chain};
use crate::verify::{TimeFloor, find_pinned};

/// Dials the orchestrator as one node. Make it once and keep it: what it knows outlives single sessions.
pub struct Client {
    /// Made once: a session is resumed only by the very verifier and credentials that it was made by.
    config: quinn::ClientConfig,
    timing: Timing,
    floor: TimeFloor,
    /// The last connection's round trip in microseconds; 0 before the first.
    round_trip_us: AtomicU64,
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
            round_trip_us: AtomicU64::new(0),
        })
    }

    /// Tells the client a later server time; earlier ones are ignored.
    pub fn raise_time_floor(&self, to: UnixMs) {
        self.floor.raise(to);
    }

    /// Opens a session with its first frame, a Hello, which must change nothing: it may travel as early data, which can be
    /// replayed, and on two connections when one seems lost.
    ///
    /// Returns when the handshake is done. That the orchestrator accepts this node's certificate shows only when
    /// something is received.
    pub async fn connect(
        &self,
        addresses: &[Address],
        hello: Bytes,
    ) -> Result<Established, ConnectError> {
        let dialling = Dialling {
            config: self.config.clone(),
            within: self.timing.connect_timeout,
            hello: Some(hello),
        };
        let dialled = dial(addresses, dialling, self.hedge_after()).await?;
        let round_trip = dialled.connection.rtt().as_micros();
        self.round_trip_us.store(
            u64::try_from(round_trip).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        let greeted = dialled
            .greeted
            .expect("an attempt with a Hello ends greeted");
        let session = Session::new(dialled.connection, Some(dialled.endpoint));
        Ok(session.establish((greeted.writer, greeted.recv), None, greeted.early))
    }

    /// Only finishes a handshake, says nothing and closes: whether an orchestrator of this cluster is there and takes
    /// packets. Whether it accepts this node shows in a session only. Tells how long it took.
    pub async fn probe(&self, addresses: &[Address]) -> Result<Duration, ConnectError> {
        let begun = Instant::now();
        let dialling = Dialling {
            config: self.config.clone(),
            within: self.timing.connect_timeout,
            hello: None,
        };
        let dialled = dial(addresses, dialling, None).await?;
        let took = begun.elapsed();
        dialled.connection.close(CloseCode::DONE.to_var(), b"");
        // The orchestrator's side closes by itself should this goodbye get lost.
        let _ = timeout(FLUSH_TIMEOUT, dialled.endpoint.wait_idle()).await;
        Ok(took)
    }

    /// When an attempt counts as lost. Without a round trip to go by, never.
    fn hedge_after(&self) -> Option<Duration> {
        match self.round_trip_us.load(Ordering::Relaxed) {
            0 => None,
            round_trip => {
                let two = Duration::from_micros(round_trip).saturating_mul(2);
                Some(two.clamp(HEDGE_AFTER_MIN, HEDGE_AFTER_MAX))
            }
        }
    }
}

#[cfg(test)]
impl Client {
    /// For a peer that keeps no rule.
    pub(crate) fn config(&self) -> quinn::ClientConfig {
        self.config.clone()
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
    let after = timing.connect_timeout;
    let dialling = Dialling {
        config,
        within: after,
        hello: None,
    };
    let dialled = dial(&token.addresses, dialling, None).await?;
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
    // The goodbye leaves beside what comes next: a closed connection drains for three probe timeouts, and nobody joins
    // slower for it. The orchestrator's side closes by itself should it get lost.
    tokio::spawn(async move { timeout(FLUSH_TIMEOUT, dialled.endpoint.wait_idle()).await });
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

/// What every attempt of one dial is made with.
#[derive(Clone)]
struct Dialling {
    config: quinn::ClientConfig,
    /// How long one attempt may take.
    within: Duration,
    hello: Option<Bytes>,
}

/// A finished attempt.
struct Dialled {
    endpoint: Endpoint,
    connection: Connection,
    /// When there was a Hello to say.
    greeted: Option<Greeted>,
}

/// The control stream, the Hello said.
struct Greeted {
    writer: Writer,
    recv: RecvStream,
    early: EarlyData,
}

/// Tries every address, and after `hedge_after` the first one again; the first finished handshake wins and the other
/// attempts are dropped, which closes them.
async fn dial(
    addresses: &[Address],
    dialling: Dialling,
    hedge_after: Option<Duration>,
) -> Result<Dialled, ConnectError> {
    let (targets, mut failures) = resolve(addresses).await;
    let mut hedge = hedge_after.zip(targets.first().cloned());
    let hedge_at = Instant::now() + hedge_after.unwrap_or_default();
    let mut targets = targets.into_iter().peekable();
    let mut next_at = Instant::now();
    let mut attempts = JoinSet::new();
    loop {
        if Instant::now() >= next_at
            && let Some((address, target)) = targets.next()
        {
            attempts.spawn(attempt(address, target, dialling.clone()));
            next_at = Instant::now() + ATTEMPT_STAGGER;
        }
        tokio::select! {
            finished = attempts.join_next() => match finished {
                Some(Ok(Ok(dialled))) => return Ok(dialled),
                Some(Ok(Err(failure))) => {
                    // An answer, or silence for so long that a second attempt had its time.
                    hedge = None;
                    next_at = Instant::now();
                    if !failures.contains(&failure) {
                        failures.push(failure);
                    }
                }
                // Only a panic, which is a defect and was reported by its hook.
                Some(Err(_)) => {}
                None => break,
            },
            () = sleep_until(next_at), if targets.peek().is_some() => {}
            () = sleep_until(hedge_at), if hedge.is_some() => {
                if let Some((_, (address, target))) = hedge.take() {
                    attempts.spawn(attempt(address, target, dialling.clone()));
                }
            }
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
    dialling: Dialling,
) -> Result<Dialled, AttemptFailure> {
    let Dialling {
        config,
        within,
        hello,
    } = dialling;
    let outcome = async {
        let local = |error: &dyn fmt::Display| AttemptError::Local {
            detail: error.to_string(),
        };
        let socket = any_socket(target).map_err(|error| local(&error))?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime)
            .map_err(|error| local(&error))?;
        let connecting = endpoint
            .connect_with(config, target, SERVER_NAME)
            .map_err(|error| local(&error))?;
        let (connection, greeted) = timeout(within, greet(connecting, hello))
            .await
            .map_err(|_| AttemptError::NoAnswer { after: within })?
            .map_err(|error| AttemptError::from_connection(error, within))?;
        Ok(Dialled {
            endpoint,
            connection,
            greeted,
        })
    };
    outcome
        .await
        .map_err(|error| AttemptFailure { address, error })
}

/// Finishes the handshake and says the Hello, with the first packets where a session can be resumed.
async fn greet(
    connecting: Connecting,
    hello: Option<Bytes>,
) -> Result<(Connection, Option<Greeted>), ConnectionError> {
    let Some(hello) = hello else {
        return Ok((connecting.await?, None));
    };
    let (connection, early) = match connecting.into_0rtt() {
        Ok((connection, accepted)) => {
            let said = say(&connection, hello.clone(), EarlyData::Accepted).await?;
            if accepted.await {
                return Ok((connection, Some(said)));
            }
            if let Some(error) = connection.close_reason() {
                return Err(error);
            }
            // The stream that was opened early never existed for the orchestrator.
            (connection, EarlyData::Refused)
        }
        Err(connecting) => (connecting.await?, EarlyData::Unused),
    };
    let said = say(&connection, hello, early).await?;
    Ok((connection, Some(said)))
}

async fn say(
    connection: &Connection,
    hello: Bytes,
    early: EarlyData,
) -> Result<Greeted, ConnectionError> {
    let (send, recv) = connection.open_bi().await?;
    let mut writer = Writer::new(send);
    // A stream fails with its connection, which says why, or because early data was refused: then it is said again.
    if let Err(error) = writer.send(hello, FRAME_BYTES_MAX).await {
        tracing::debug!(%error, "transport.hello_unsaid");
        if let Some(error) = connection.close_reason() {
            return Err(error);
        }
    }
    Ok(Greeted {
        writer,
        recv,
        early,
    })
}
