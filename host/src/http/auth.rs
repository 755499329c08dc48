//! Who may use the API: whoever has the admin token of `operator.toml`, or one that was made with a role. Only their
//! hashes are kept.

use std::fmt;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};
use sluice_api::{ErrorBody, ErrorCode};
use sluice_model::Role;

use super::ControlApi;
use super::answer::Failure;
use super::rate::{Rates, rate_limited};
use crate::core::Caller;

const PREFIX: &str = "sluice-admin-";

/// How long a stream may outlive its token: a look is one row by its key.
const TOKEN_LOOK_EVERY: Duration = Duration::from_secs(15);

/// Draws the text of a token of the API for a role, and its hash, which is all that is kept.
pub(crate) fn draw_api_token(role: Role) -> Result<(String, [u8; 32]), getrandom::Error> {
    let text = draw(&api_prefix(role))?;
    let hash = AdminTokenHash::of(&text).0;
    Ok((text, hash))
}

fn api_prefix(role: Role) -> String {
    format!("sluice-api-{role}-")
}

fn is_api_token(text: &str) -> bool {
    [Role::Reader, Role::Deployer, Role::Admin]
        .into_iter()
        .filter_map(|role| text.strip_prefix(&api_prefix(role)))
        .any(|secret| secret.len() == 64)
}

/// 32 random bytes as hex, after a prefix by which people know what they found.
fn draw(prefix: &str) -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes)?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{prefix}{hex}"))
}

/// A freshly drawn token; to be written to `operator.toml` and forgotten.
pub struct AdminToken(String);

impl AdminToken {
    /// Draws one: 32 random bytes, as hex.
    pub fn generate() -> Result<Self, getrandom::Error> {
        draw(PREFIX).map(Self)
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

/// What stands between a request and the routes.
#[derive(Clone)]
pub(super) struct Doors<C> {
    control: C,
    admin: AdminTokenHash,
    rates: Rates,
}

impl<C> Doors<C> {
    pub(super) fn new(control: C, admin: AdminTokenHash) -> Self {
        Self {
            control,
            admin,
            rates: Rates::new(),
        }
    }
}

/// Lets nothing pass without a token, whatever the path; nor too much with one.
pub(super) async fn require_token<C: ControlApi>(
    State(doors): State<Doors<C>>,
    mut request: Request,
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
    let Some(token) = presented else {
        return unauthorized("the request has no token").into_response();
    };
    let hash = AdminTokenHash::of(token);
    let is_operator = doors.admin.matches(token);
    if is_operator {
        // Known without a look into the store, so strangers never take its room, not even before its first request.
        doors.rates.know(hash.0, Instant::now());
    }
    if !doors.rates.take(hash.0, Instant::now()) {
        return Failure(rate_limited()).into_response();
    }
    let caller = if is_operator {
        Some(Caller {
            token: "operator.toml".to_owned(),
            name: None,
            role: Role::Admin,
        })
    } else if is_api_token(token) {
        match doors.control.authenticate(hash.0).await {
            Ok(caller) => caller,
            Err(error) => return Failure(error).into_response(),
        }
    } else {
        None
    };
    match caller {
        Some(caller) => {
            doors.rates.know(hash.0, Instant::now());
            if !is_operator {
                request.extensions_mut().insert(Mortal(hash.0));
            }
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        None => unauthorized("the token is not this orchestrator's, or has ended").into_response(),
    }
}

/// The hash of a token that may end, or be revoked, while an answer is still under way.
#[derive(Clone, Copy)]
pub(super) struct Mortal([u8; 32]);

impl Mortal {
    #[cfg(test)]
    pub(super) fn of(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// Returns soon after the token is good no longer: within [`TOKEN_LOOK_EVERY`] and the time that a look takes.
    pub(super) async fn ended<C: ControlApi>(self, control: C) {
        loop {
            tokio::time::sleep(TOKEN_LOOK_EVERY).await;
            // An orchestrator that cannot answer now says nothing about the token.
            if let Ok(None) = control.authenticate(self.0).await {
                return;
            }
        }
    }
}

fn unauthorized(message: &str) -> Failure {
    Failure(ErrorBody::new(ErrorCode::Unauthorized, message).with_help(
        "send `Authorization: Bearer TOKEN` with the token from operator.toml in the orchestrator's state directory, or \
         one that `sluice token create --role` made",
    ))
}
