//! Join tokens: what an operator copies to a new machine.
//!
//! ```text
//! sluice1-<base32, lower case, no padding>
//!
//! authority's sha256 [32] | token id [16] | secret [32]
//! | addresses: count u8, then for each: length u8, "host:port"
//! | first 4 bytes of sha256("sluice1" and all of the above)
//! ```
//!
//! One word that a double click selects, without a letter that a terminal, a mail or a shell changes. The checksum
//! notices what was cut or mistyped before anything is sent. White space anywhere in it (a wrapped line) is ignored.

use std::fmt;

use sha2::{Digest as _, Sha256};
use sluice_model::TokenId;

use super::IdentityError;
use crate::address::Address;
use crate::random;

const PREFIX: &str = "sluice1-";
const CHECKSUM_BYTES: usize = 4;

/// Most addresses in a token: every way to reach one orchestrator.
pub const TOKEN_ADDRESSES_MAX: usize = 8;

/// Longest text that is looked at: eight longest addresses in base32, twice over for wrapped lines.
const TEXT_BYTES_MAX: usize = 8 * 1024;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The secret half of a join token. Shown once, in the token; the orchestrator keeps only its hash.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret([u8; 32]);

impl TokenSecret {
    /// Draws a new secret.
    pub fn generate() -> Result<Self, IdentityError> {
        random::bytes().map(Self)
    }

    /// Takes a secret that came over an encrypted connection; `None` unless there are exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The secret itself, to be sent over an encrypted connection.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What the orchestrator stores and compares: SHA-256 of the secret. Comparing hashes tells a guesser nothing.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

/// Everything a new machine needs to join: where to go, whom to trust, and what lets it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the authority's certificate: the joining machine trusts no other.
    pub authority_sha256: [u8; 32],
    /// The token's public name.
    pub id: TokenId,
    /// The token's secret.
    pub secret: TokenSecret,
    /// Where the orchestrator can be reached, best first; 1 to [`TOKEN_ADDRESSES_MAX`].
    pub addresses: Vec<Address>,
}

/// Why a text is not a join token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token at all.
    #[error("not a join token: it must start with `{PREFIX}`; get one with `sluice token create`")]
    NotAToken,
    /// A token of a version that this program does not know.
    #[error(
        "the join token has version `{version}`, but this program knows only version 1; use a newer program"
    )]
    Version {
        /// The version in the token.
        version: String,
    },
    /// A letter that no token has.
    #[error(
        "the join token has the letter `{letter}` at position {position}, which no token has; copy it again"
    )]
    Letter {
        /// The letter.
        letter: char,
        /// Where, counted from 1 and without white space.
        position: usize,
    },
    /// Cut short, mistyped, or two tokens in one.
    #[error("the join token is damaged (cut short or mistyped); copy it again, whole")]
    Damaged,
    /// Too long to be a token.
    #[error("not a join token: it has more than {TEXT_BYTES_MAX} bytes")]
    TooLong,
    /// Cannot be put into a token.
    #[error("a join token carries 1 to {TOKEN_ADDRESSES_MAX} addresses of at most 255 bytes")]
    Addresses,
}

impl JoinToken {
    /// The token as text.
    pub fn encode(&self) -> Result<String, TokenError> {
        if self.addresses.is_empty() || self.addresses.len() > TOKEN_ADDRESSES_MAX {
            return Err(TokenError::Addresses);
        }
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&self.authority_sha256);
        bytes.extend_from_slice(&self.id.to_bytes());
        bytes.extend_from_slice(&self.secret.0);
        bytes.push(u8::try_from(self.addresses.len()).map_err(|_| TokenError::Addresses)?);
        for address in &self.addresses {
            let text = address.to_string();
            bytes.push(u8::try_from(text.len()).map_err(|_| TokenError::Addresses)?);
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&checksum(&bytes));
        Ok(format!("{PREFIX}{}", base32_encode(&bytes)))
    }

    /// Reads a token; white space around and inside it is ignored.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let text: String = text.split_whitespace().collect();
        let Some(body) = text.strip_prefix(PREFIX) else {
            return Err(
                match text
                    .strip_prefix("sluice")
                    .and_then(|rest| rest.split_once('-'))
                {
                    Some((version, _))
                        if !version.is_empty()
                            && version.bytes().all(|byte| byte.is_ascii_digit()) =>
                    {
                        TokenError::Version {
                            version: version.to_owned(),
                        }
                    }
                    _ => TokenError::NotAToken,
                },
            );
        };
        let bytes = base32_decode(body)?;
        let (bytes, sum) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(TokenError::Damaged)?;
        if checksum(bytes) != *sum {
            return Err(TokenError::Damaged);
        }
        Self::from_checked(bytes).ok_or(TokenError::Damaged)
    }

    fn from_checked(bytes: &[u8]) -> Option<Self> {
        let (authority_sha256, bytes) = bytes.split_first_chunk::<32>()?;
        let (id, bytes) = bytes.split_first_chunk::<16>()?;
        let (secret, bytes) = bytes.split_first_chunk::<32>()?;
        let (&count, mut bytes) = bytes.split_first()?;
        if count == 0 || usize::from(count) > TOKEN_ADDRESSES_MAX {
            return None;
        }
        let mut addresses = Vec::with_capacity(count.into());
        for _ in 0..count {
            let (&length, rest) = bytes.split_first()?;
            let (address, rest) = rest.split_at_checked(length.into())?;
            addresses.push(std::str::from_utf8(address).ok()?.parse().ok()?);
            bytes = rest;
        }
        if !bytes.is_empty() {
            return None;
        }
        Some(Self {
            authority_sha256: *authority_sha256,
            id: TokenId::from_slice(id)?,
            secret: TokenSecret(*secret),
            addresses,
        })
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Sha256::new()
        .chain_update(&PREFIX[..PREFIX.len() - 1])
        .chain_update(bytes)
        .finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}

/// RFC 4648 base32 in lower case without padding.
fn base32_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut bits, mut held) = (0u32, 0u32);
    for &byte in bytes {
        bits = (bits << 8) | u32::from(byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(char::from(ALPHABET[(bits >> held) as usize & 31]));
        }
    }
    if held > 0 {
        text.push(char::from(ALPHABET[(bits << (5 - held)) as usize & 31]));
    }
    text
}

fn base32_decode(text: &str) -> Result<Vec<u8>, TokenError> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut bits, mut held) = (0u32, 0u32);
    for (index, letter) in text.chars().enumerate() {
        let value = match letter.to_ascii_lowercase() {
            lower @ 'a'..='z' => lower as u32 - 'a' as u32,
            digit @ '2'..='7' => digit as u32 - '2' as u32 + 26,
            _ => {
                return Err(TokenError::Letter {
                    letter,
                    position: PREFIX.len() + index + 1,
                });
            }
        };
        bits = (bits << 5) | value;
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    // Left-over bits are padding: fewer than a letter's worth, and zero.
    if held >= 5 || bits & ((1 << held) - 1) != 0 {
        return Err(TokenError::Damaged);
    }
    Ok(bytes)
}
