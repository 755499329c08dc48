//! Who may use the API: whoever has the one admin token. Only its hash is kept.

use std::fmt;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};
use sluice_api::{ErrorBody, ErrorCode};

use super::answer::Failure;

const PREFIX: &str = "sluice-admin-";

/// A freshly drawn token; to be written to `operator.toml` and forgotten.
pub struct AdminToken(String);

impl AdminToken {
    /// Draws one: 32 random bytes, as hex.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes)?;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self(format!("{PREFIX}{hex}")))
    }

    /// The text to send as `Authorization: Bearer ...`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the orchestrator keeps of it.
    pub fn hash(&self) -> AdminTokenHash {
        AdminTokenHash::of(&self.0)
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken")
    }
}

/// The sha256 of a token. The token has 256 random bits, so no slow hash is needed.
#[derive(Clone, Copy)]
pub struct AdminTokenHash([u8; 32]);

impl AdminTokenHash {
    /// Hashes a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Takes the 32 bytes of [`Self::as_bytes`]; `None` for any other length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The 32 bytes, as stored.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether this is the token; takes the same time whichever bytes differ.
    pub fn matches(&self, token: &str) -> bool {
        let presented = Self::of(token);
        let difference = self
            .0
            .iter()
            .zip(&presented.0)
            .fold(0, |difference, (a, b)| difference | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for AdminTokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminTokenHash")
    }
}

/// Lets nothing pass without the token, whatever the path.
pub(super) async fn require_token(
    State(hash): State<AdminTokenHash>,
    request: Request,
    next: Next,
) -> Response {
    let presented = request.headers().get(AUTHORIZATION).map(|value| {
        value
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map_or("", |(_, token)| token.trim())
    });
    let message = match presented {
        Some(token) if hash.matches(token) => return next.run(request).await,
        Some(_) => "the token is not this orchestrator's",
        None => "the request has no token",
    };
    let body = ErrorBody::new(ErrorCode::Unauthorized, message).with_help(
        "send `Authorization: Bearer TOKEN` with the token from operator.toml in the orchestrator's state directory",
    );
    Failure(body).into_response()
}
