//! The keys that let peers of an earlier life learn at once that this endpoint restarted.
//!
//! A packet for a connection that nobody knows is answered by a stateless reset iff its connection id carries our
//! keyed mark. So both keys must outlive the process: the reset key alone leaves peers waiting for the idle timeout.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator};
use quinn_proto::InvalidCid;
use ring::hmac;

use crate::identity::{IdentityError, files};
use crate::random;

/// Random half of a connection id.
const NONCE_BYTES: usize = 8;
/// Keyed half of a connection id: one forged id in 2^64 passes.
const MARK_BYTES: usize = 8;
const CID_BYTES: usize = NONCE_BYTES + MARK_BYTES;

/// Two secrets of a server that must be the same after a restart.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointKeys {
    reset: [u8; 32],
    connection_id: [u8; 32],
}

impl EndpointKeys {
    /// Draws new keys.
    pub fn generate() -> Result<Self, IdentityError> {
        Ok(Self {
            reset: random::bytes()?,
            connection_id: random::bytes()?,
        })
    }

    /// Takes the 64 bytes of [`Self::to_bytes`]; `None` for any other length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let (reset, connection_id) = bytes.split_first_chunk::<32>()?;
        Some(Self {
            reset: *reset,
            connection_id: connection_id.try_into().ok()?,
        })
    }

    /// The keys as they are stored. They are secrets.
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.reset);
        bytes[32..].copy_from_slice(&self.connection_id);
        bytes
    }

    /// Reads the keys from a file, or makes them and writes them there (mode 0600).
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        match files::read(path)? {
            Some(bytes) => Self::from_slice(&bytes)
                .ok_or_else(|| files::damaged(path, "it does not have 64 bytes")),
            None => {
                let keys = Self::generate()?;
                files::create(path, &keys.to_bytes())?;
                Ok(keys)
            }
        }
    }

    /// What seals the sessions on disk: drawn from the reset key, so that it is as old as the connections it is for.
    pub(crate) fn session_seal(&self) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.reset);
        let mut seal = [0; 32];
        seal.copy_from_slice(hmac::sign(&key, b"sluice: seal of TLS sessions").as_ref());
        seal
    }

    pub(crate) fn connection_ids(&self) -> KeyedConnectionIds {
        KeyedConnectionIds {
            key: hmac::Key::new(hmac::HMAC_SHA256, &self.connection_id),
        }
    }

    /// An endpoint that resets what it does not know.
    pub(crate) fn endpoint_config(&self) -> quinn::EndpointConfig {
        let mut config = quinn::EndpointConfig::new(std::sync::Arc::new(hmac::Key::new(
            hmac::HMAC_SHA256,
            &self.reset,
        )));
        let ids = self.connection_ids();
        config.cid_generator(move || Box::new(ids.clone()));
        // At the default of 20 ms, 300 edges need 20 s to notice a restart. Only our own marked ids are answered,
        // always by fewer bytes than came, so there is nothing to amplify.
        config.min_reset_interval(Duration::ZERO);
        config
    }
}

impl fmt::Debug for EndpointKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndpointKeys(..)")
    }
}

/// Connection ids of random bytes and their keyed mark.
#[derive(Clone)]
pub(crate) struct KeyedConnectionIds {
    key: hmac::Key,
}

impl KeyedConnectionIds {
    fn mark(&self, nonce: &[u8]) -> [u8; MARK_BYTES] {
        let mut mark = [0; MARK_BYTES];
        mark.copy_from_slice(&hmac::sign(&self.key, nonce).as_ref()[..MARK_BYTES]);
        mark
    }
}

impl ConnectionIdGenerator for KeyedConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let nonce: [u8; NONCE_BYTES] =
            random::bytes().expect("the system's randomness worked when the keys were made");
        let mut id = [0; CID_BYTES];
        id[..NONCE_BYTES].copy_from_slice(&nonce);
        id[NONCE_BYTES..].copy_from_slice(&self.mark(&nonce));
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match id.split_first_chunk::<NONCE_BYTES>() {
            Some((nonce, mark)) if self.mark(nonce) == mark => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
