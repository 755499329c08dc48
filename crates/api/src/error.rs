//! The one error object: every answer that is not a success has it as its body.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is wrong, where, and the way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The sort, for programs.
    pub code: ErrorCode,
    /// One line: what is wrong and where.
    pub message: String,
    /// More lines, for example the problems of a pipeline with the text underlined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl ErrorBody {
    /// An error of one line.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            detail: None,
            help: None,
        }
    }

    /// Adds more lines.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the way out.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// The sorts of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request, or what it carries, is wrong: repeating it does not help.
    Invalid,
    /// The body cannot be read at all.
    Malformed,
    /// The body is of a sort that the route does not take.
    UnsupportedMediaType,
    /// No token, or not a known one.
    Unauthorized,
    /// This token may not.
    Forbidden,
    /// No such thing, or no such route.
    NotFound,
    /// The route exists, not with this method.
    MethodNotAllowed,
    /// It does not fit what is there now.
    Conflict,
    /// What the request was made for has changed since: look again.
    Stale,
    /// More bytes than allowed.
    TooLarge,
    /// It took too long.
    Timeout,
    /// Too many requests; try again in a second.
    RateLimited,
    /// Not now; try again.
    Unavailable,
    /// The orchestrator's disk is full.
    DiskFull,
    /// A fault of the orchestrator; its log says more.
    #[serde(other)]
    Internal,
}

impl ErrorCode {
    /// The fixed spelling, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Malformed => "malformed",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::Conflict => "conflict",
            Self::Stale => "stale",
            Self::TooLarge => "too-large",
            Self::Timeout => "timeout",
            Self::RateLimited => "rate-limited",
            Self::Unavailable => "unavailable",
            Self::DiskFull => "disk-full",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status that carries it.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Invalid => 422,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Timeout => 408,
            Self::Conflict => 409,
            Self::Stale => 412,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::DiskFull => 507,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_is_small_and_an_unknown_code_still_reads() {
        let body = ErrorBody::new(ErrorCode::NotFound, "no job `x`");
        let json = serde_json::to_string(&body).expect("plain data");
        assert_eq!(json, r#"{"code":"not-found","message":"no job `x`"}"#);
        let newer: ErrorBody =
            serde_json::from_str(r#"{"code":"too-funny","message":"m","more":1}"#).expect("reads");
        assert_eq!(newer.code, ErrorCode::Internal);
    }
}
