//! What ends or prevents a connection, in words that an operator can act on.

use std::fmt;
use std::io;
use std::time::Duration;

use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use crate::identity::IdentityError;

/// Why a side closed a connection or gave up a stream, as a number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u32);

impl CloseCode {
    /// All is said.
    pub const DONE: Self = Self(0);
    /// The program is stopping; dial again later.
    pub const SHUTDOWN: Self = Self(1);
    /// A newer session of the same node took over.
    pub const SUPERSEDED: Self = Self(2);
    /// This node may not speak (any more).
    pub const REFUSED: Self = Self(3);
    /// The peer said something that makes no sense.
    pub const PROTOCOL: Self = Self(4);
    /// A session needs a client certificate.
    pub const NO_CERTIFICATE: Self = Self(5);
    /// The peer did not react in time.
    pub const STALLED: Self = Self(6);
    /// What a request asked for cannot be had (any more).
    pub const ABANDONED: Self = Self(7);

    pub(crate) fn to_var(self) -> VarInt {
        VarInt::from_u32(self.0)
    }

    pub(crate) fn from_var(code: VarInt) -> Self {
        Self(u32::try_from(code.into_inner()).unwrap_or(u32::MAX))
    }
}

/// Which side closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBy {
    /// The other side.
    Peer,
    /// This side.
    Us,
}

impl fmt::Display for ClosedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peer => "the peer",
            Self::Us => "this side",
        })
    }
}

/// What ends a session or a stream of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// One side closed the session on purpose.
    #[error("the session was closed by {by} ({}{reason})", if reason.is_empty() { "without a reason" } else { "" })]
    Closed {
        /// Which side.
        by: ClosedBy,
        /// Why, as a number.
        code: CloseCode,
        /// Why, as text; may be empty.
        reason: String,
    },
    /// Nothing was heard for the idle timeout: the peer or the network is gone.
    #[error("the session timed out: nothing was heard from the peer")]
    TimedOut,
    /// The peer answered that it knows no such session: it restarted.
    #[error("the peer restarted and no longer knows this session")]
    Reset,
    /// The peer did not accept this side's certificate.
    #[error("the peer does not accept this side's certificate ({detail})")]
    CertificateRefused {
        /// The TLS alert.
        detail: String,
    },
    /// A frame is longer than its kind may be. When it was received, the stream is of no more use.
    #[error("a frame of {bytes} bytes is over the limit of {bytes_max}")]
    FrameTooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The stream ended in the middle of a frame.
    #[error("the stream ended in the middle of a frame")]
    Truncated,
    /// The peer gave up this stream; the session may go on.
    #[error("the peer gave up the stream (code {})", code.0)]
    StreamAborted {
        /// Why.
        code: CloseCode,
    },
    /// This side has finished the stream already.
    #[error("the stream is finished already")]
    StreamFinished,
    /// QUIC itself failed.
    #[error("the connection failed: {detail}")]
    Transport {
        /// The library's word.
        detail: String,
    },
}

impl SessionError {
    /// Whether only one stream is affected and the session may go on.
    pub fn is_of_stream(&self) -> bool {
        matches!(
            self,
            Self::StreamAborted { .. }
                | Self::StreamFinished
                | Self::Truncated
                | Self::FrameTooLarge { .. }
        )
    }
}

impl From<ConnectionError> for SessionError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::Closed {
                by: ClosedBy::Peer,
                code: CloseCode::from_var(close.error_code),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::LocallyClosed => Self::Closed {
                by: ClosedBy::Us,
                code: CloseCode::DONE,
                reason: String::new(),
            },
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::Reset => Self::Reset,
            ConnectionError::ConnectionClosed(close) => match tls_alert(close.error_code.into()) {
                Some(alert) => Self::CertificateRefused {
                    detail: alert_text(alert),
                },
                None => Self::Transport {
                    detail: close.to_string(),
                },
            },
            other => Self::Transport {
                detail: other.to_string(),
            },
        }
    }
}

impl From<ReadError> for SessionError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::StreamAborted {
                code: CloseCode::from_var(code),
            },
            ReadError::ConnectionLost(error) => error.into(),
            ReadError::ClosedStream => Self::StreamFinished,
            other => Self::Transport {
                detail: other.to_string(),
            },
        }
    }
}

impl From<WriteError> for SessionError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::StreamAborted {
                code: CloseCode::from_var(code),
            },
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::ClosedStream => Self::StreamFinished,
            other => Self::Transport {
                detail: other.to_string(),
            },
        }
    }
}

/// Why one address could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttemptError {
    /// Nobody answered.
    #[error(
        "no answer over UDP within {after:?} (is the orchestrator running, and does UDP to this port pass?)"
    )]
    NoAnswer {
        /// How long was waited.
        after: Duration,
    },
    /// The name has no address, or name resolution failed.
    #[error("the name cannot be resolved ({detail})")]
    Resolve {
        /// The system's word.
        detail: String,
    },
    /// An orchestrator answers there, but not this cluster's.
    #[error("the orchestrator there belongs to another cluster")]
    WrongCluster,
    /// The server's certificate is not acceptable for another reason.
    #[error("the orchestrator's certificate is not acceptable ({detail})")]
    BadCertificate {
        /// What is wrong.
        detail: String,
    },
    /// A server answered and refused.
    #[error("refused ({detail})")]
    Refused {
        /// Its word.
        detail: String,
    },
    /// This machine cannot send there.
    #[error("cannot send from this machine ({detail})")]
    Local {
        /// The system's word.
        detail: String,
    },
}

impl AttemptError {
    pub(crate) fn from_connection(error: ConnectionError, after: Duration) -> Self {
        match error {
            ConnectionError::TimedOut => Self::NoAnswer { after },
            ConnectionError::TransportError(error) => match tls_alert(error.code.into()) {
                // What our own verifier says about an unknown authority.
                Some(ALERT_UNKNOWN_CA) => Self::WrongCluster,
                Some(_) => Self::BadCertificate {
                    detail: error.reason,
                },
                None => Self::Refused {
                    detail: error.to_string(),
                },
            },
            ConnectionError::ConnectionClosed(close) => match tls_alert(close.error_code.into()) {
                Some(alert) => Self::Refused {
                    detail: alert_text(alert),
                },
                None => Self::Refused {
                    detail: close.to_string(),
                },
            },
            other => Self::Refused {
                detail: other.to_string(),
            },
        }
    }
}

/// One address that could not be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptFailure {
    /// The address as it was given, and what it resolved to.
    pub address: String,
    /// Why not.
    pub error: AttemptError,
}

impl fmt::Display for AttemptFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.error)
    }
}

/// Why no address led to a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// There was nothing to try.
    #[error("no address to connect to")]
    NoAddress,
    /// Every address failed.
    #[error("cannot reach the orchestrator: {}", list(failures))]
    Failed {
        /// Each of them, in the order in which they failed; never empty.
        failures: Vec<AttemptFailure>,
    },
}

impl ConnectError {
    /// Whether somebody answered there who belongs to another cluster.
    pub fn is_wrong_cluster(&self) -> bool {
        self.any(|error| matches!(error, AttemptError::WrongCluster))
    }

    /// Whether nobody answered anywhere, so that trying again later may help.
    pub fn is_unreachable(&self) -> bool {
        !self.any(|error| {
            !matches!(
                error,
                AttemptError::NoAnswer { .. } | AttemptError::Resolve { .. }
            )
        })
    }

    fn any(&self, matching: impl Fn(&AttemptError) -> bool) -> bool {
        match self {
            Self::NoAddress => false,
            Self::Failed { failures } => failures.iter().any(|failure| matching(&failure.error)),
        }
    }
}

fn list(failures: &[AttemptFailure]) -> String {
    failures
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Why joining failed before the orchestrator's answer came.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JoinError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke before the answer; the orchestrator may or may not have acted on the request.
    #[error("the orchestrator's answer did not arrive: {0}")]
    Session(#[from] SessionError),
    /// The answer did not come in time; the orchestrator may or may not have acted on the request.
    #[error("the orchestrator's answer did not arrive within {after:?}")]
    NoAnswer {
        /// How long was waited.
        after: Duration,
    },
}

/// Why a server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be used.
    #[error("cannot listen on {protocol} {address}: {hint}")]
    Bind {
        /// "UDP" or "TCP".
        protocol: &'static str,
        /// The address.
        address: std::net::SocketAddr,
        /// What that means.
        hint: String,
        /// The system's word.
        source: io::Error,
    },
    /// The certificate or key cannot be used.
    #[error("the server's certificate cannot be used ({detail})")]
    Certificate {
        /// The library's word.
        detail: String,
    },
}

impl ServerError {
    pub(crate) fn bind(
        protocol: &'static str,
        address: std::net::SocketAddr,
        source: io::Error,
    ) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => "another program uses this port".to_owned(),
            io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
            io::ErrorKind::PermissionDenied => "ports below 1024 need more rights".to_owned(),
            _ => source.to_string(),
        };
        Self::Bind {
            protocol,
            address,
            hint,
            source,
        }
    }
}

/// Something that the TLS libraries refuse in a configuration made only of our own parts.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be set up ({0})")]
pub(crate) struct TlsError(String);

impl TlsError {
    pub(crate) fn new(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl From<TlsError> for IdentityError {
    fn from(error: TlsError) -> Self {
        Self::Crypto {
            action: "set up TLS",
            detail: error.0,
        }
    }
}

impl From<TlsError> for ServerError {
    fn from(error: TlsError) -> Self {
        Self::Certificate { detail: error.0 }
    }
}

const ALERT_UNKNOWN_CA: u8 = 48;

/// The TLS alert in a QUIC error code.
fn tls_alert(code: u64) -> Option<u8> {
    (0x100..0x200).contains(&code).then_some(code as u8)
}

fn alert_text(alert: u8) -> String {
    match alert {
        42 => "bad certificate".to_owned(),
        43 => "unsupported certificate".to_owned(),
        44 => "certificate revoked".to_owned(),
        45 => "certificate expired".to_owned(),
        46 => "certificate unknown".to_owned(),
        ALERT_UNKNOWN_CA => "it belongs to another cluster".to_owned(),
        51 => "the signature does not verify".to_owned(),
        116 => "a certificate is required".to_owned(),
        120 => "no dialect in common: one side is too old".to_owned(),
        other => format!("TLS alert {other}"),
    }
}
