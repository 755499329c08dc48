//! How a command fails: an exit code, what is wrong and where, and the way out.

use std::fmt::Display;
use std::process::ExitCode;

use sluice_api::{ErrorBody, ErrorCode};

/// The exit codes; scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It is done.
    Done = 0,
    /// It failed, or is not allowed.
    Failed = 1,
    /// Wrong usage or invalid input.
    Invalid = 2,
    /// There is no such thing.
    NotFound = 3,
    /// The orchestrator cannot be reached.
    Unreachable = 4,
    /// Timed out while waiting; what was asked still stands.
    TimedOut = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What the program ends with.
    pub(crate) exit: Exit,
    /// One line: what is wrong and where. Empty when everything was said already.
    pub(crate) message: String,
    /// More lines.
    pub(crate) detail: Option<String>,
    /// The way out.
    pub(crate) help: Option<String>,
    /// The orchestrator is away, stopping or busy: in a moment the same question may be answered.
    pub(crate) may_pass: bool,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            detail: None,
            help: None,
            may_pass: exit == Exit::Unreachable,
        }
    }

    /// Wrong usage or invalid input.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Exit::Invalid, message)
    }

    #[must_use]
    pub(crate) fn with_detail(mut self, detail: impl Display) -> Self {
        self.detail = Some(detail.to_string());
        self
    }

    #[must_use]
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl From<ErrorBody> for Failure {
    fn from(body: ErrorBody) -> Self {
        let exit = match body.code {
            ErrorCode::Invalid
            | ErrorCode::Malformed
            | ErrorCode::UnsupportedMediaType
            | ErrorCode::TooLarge => Exit::Invalid,
            ErrorCode::NotFound => Exit::NotFound,
            ErrorCode::Unauthorized
            | ErrorCode::Forbidden
            | ErrorCode::MethodNotAllowed
            | ErrorCode::Conflict
            | ErrorCode::Stale
            | ErrorCode::RateLimited
            | ErrorCode::Timeout
            | ErrorCode::Unavailable
            | ErrorCode::DiskFull
            | ErrorCode::Internal => Exit::Failed,
        };
        Self {
            exit,
            message: body.message,
            detail: body.detail,
            help: body.help,
            may_pass: matches!(
                body.code,
                ErrorCode::RateLimited | ErrorCode::Timeout | ErrorCode::Unavailable
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sort_of_answer_has_its_exit_code() {
        let table = [
            (ErrorCode::Invalid, Exit::Invalid),
            (ErrorCode::TooLarge, Exit::Invalid),
            (ErrorCode::NotFound, Exit::NotFound),
            (ErrorCode::Unauthorized, Exit::Failed),
            (ErrorCode::Forbidden, Exit::Failed),
            (ErrorCode::Conflict, Exit::Failed),
            (ErrorCode::Unavailable, Exit::Failed),
            (ErrorCode::DiskFull, Exit::Failed),
            (ErrorCode::Internal, Exit::Failed),
        ];
        for (code, exit) in table {
            let failure = Failure::from(ErrorBody::new(code, "m").with_help("h"));
            assert_eq!(failure.exit, exit, "{code:?}");
            assert_eq!(failure.help.as_deref(), Some("h"));
            assert_eq!(failure.may_pass, code == ErrorCode::Unavailable, "{code:?}");
        }
        assert!(Failure::new(Exit::Unreachable, "m").may_pass);
        let codes = [
            Exit::Done,
            Exit::Failed,
            Exit::Invalid,
            Exit::NotFound,
            Exit::Unreachable,
            Exit::TimedOut,
        ];
        assert_eq!(codes.map(|exit| exit as u8), [0, 1, 2, 3, 4, 5]);
    }
}
