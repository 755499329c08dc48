//! How a call into a guest can go wrong, each way with its name.

use std::time::Duration;

/// Why a call into a guest did not return what it should. After any of these the stage's instance is replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The guest stopped itself: a panic, an impossible instruction, its stack, `exit`.
    #[error("trapped: {reason}")]
    Trapped {
        /// What happened and where.
        reason: String,
    },
    /// The call used more CPU time, or ten times more wall time, than it may.
    #[error(
        "the call took longer than its deadline of {deadline:?}; [stage.limits] deadline allows more"
    )]
    DeadlineExceeded {
        /// The deadline that held for this call.
        deadline: Duration,
    },
    /// The guest wanted more linear memory.
    #[error("memory over the limit of {limit_bytes} bytes; [stage.limits] memory allows more")]
    MemoryExceeded {
        /// The limit.
        limit_bytes: u64,
    },
    /// The guest wanted more table elements.
    #[error("table elements over the limit of {limit}")]
    TableExceeded {
        /// The limit.
        limit: u64,
    },
    /// The component consists of too many instances, memories or tables.
    #[error("more than {limit} instances, memories or tables")]
    InstancesExceeded {
        /// The limit.
        limit: usize,
    },
    /// Too many handles to resources live at once.
    #[error("more than {limit} handles alive")]
    HandlesExceeded {
        /// The limit.
        limit: usize,
    },
    /// A call from the guest to the host carried too much.
    #[error("a host call carried more than {limit_bytes} bytes")]
    HostCallExceeded {
        /// The limit.
        limit_bytes: usize,
    },
    /// The guest returned too much.
    #[error("the output is over the limit of {limit} {what}")]
    OutputExceeded {
        /// The limit.
        limit: usize,
        /// Of what: bytes or records.
        what: &'static str,
    },
    /// The guest returned something that breaks the contract.
    #[error("invalid output: {0}")]
    InvalidOutput(String),
    /// The host could not do its part (out of memory, out of address space): no fault of the guest.
    #[error("the host could not run the stage: {0}")]
    Host(String),
}

impl CallError {
    /// A short stable name, for dead letters and counters.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Trapped { .. } => "trap",
            Self::DeadlineExceeded { .. } => "deadline",
            Self::MemoryExceeded { .. } => "memory",
            Self::TableExceeded { .. } => "table",
            Self::InstancesExceeded { .. } => "instances",
            Self::HandlesExceeded { .. } => "handles",
            Self::HostCallExceeded { .. } => "host-call",
            Self::OutputExceeded { .. } => "output",
            Self::InvalidOutput(_) => "invalid-output",
            Self::Host(_) => "host",
        }
    }
}

/// Why a chain could not be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stage {stage:?}: {cause}")]
pub struct ConfigureError {
    /// The stage's name.
    pub stage: String,
    /// What happened.
    pub cause: ConfigureCause,
}

/// What happened while a stage was instantiated and configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigureCause {
    /// `configure` refused its config.
    #[error("refused its config: {0}")]
    Refused(String),
    /// Instantiating it or `configure` trapped or went over a limit.
    #[error("failed to start: {0}")]
    Call(CallError),
}

/// Cuts a text to at most `bytes_max` bytes, at a character.
pub(crate) fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
    }
}
