//! Digests of row sets: the sum modulo 2^128 of the first 16 bytes of each row's SHA-256.
//!
//! The sum is incremental and does not depend on order. It notices lost rows, foreign rows and flipped bits; it is no
//! defence against somebody who forges rows, which is TLS's work.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest as _, Sha256};
use sluice_model::Revision;

/// The hash of one row's bytes, as first committed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowHash(u128);

impl RowHash {
    /// Hashes a row's bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        let (first, _) = hash
            .split_first_chunk::<16>()
            .expect("a SHA-256 has 32 bytes");
        Self(u128::from_be_bytes(*first))
    }

    /// The hash as stored.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Reads a stored hash; `None` unless there are 16 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes
            .try_into()
            .ok()
            .map(|bytes| Self(u128::from_be_bytes(bytes)))
    }
}

impl fmt::Debug for RowHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowHash({:032x})", self.0)
    }
}

/// The digest of a set of rows.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SetDigest(u128);

impl SetDigest {
    /// The digest of no rows.
    pub const EMPTY: Self = Self(0);

    /// The digest with one row more.
    #[must_use]
    pub fn with(self, row: RowHash) -> Self {
        Self(self.0.wrapping_add(row.0))
    }

    /// The digest with one row less.
    #[must_use]
    pub fn without(self, row: RowHash) -> Self {
        Self(self.0.wrapping_sub(row.0))
    }

    /// The digest as it travels and is stored.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Reads a digest back; `None` unless there are 16 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes
            .try_into()
            .ok()
            .map(|bytes| Self(u128::from_be_bytes(bytes)))
    }
}

impl fmt::Debug for SetDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SetDigest({:032x})", self.0)
    }
}

impl fmt::Display for SetDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Where a set stands: its revision, and what it holds there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The set's revision.
    pub rev: Revision,
    /// The set's digest at that revision.
    pub digest: SetDigest,
}

/// The hashes of a set's rows by key, with their digest kept up to date.
#[derive(Clone, Debug)]
pub struct RowSet<K> {
    hashes: BTreeMap<K, RowHash>,
    digest: SetDigest,
}

impl<K> Default for RowSet<K> {
    fn default() -> Self {
        Self {
            hashes: BTreeMap::new(),
            digest: SetDigest::EMPTY,
        }
    }
}

impl<K: Ord> RowSet<K> {
    /// The digest of all rows.
    pub fn digest(&self) -> SetDigest {
        self.digest
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Puts a row in, in place of the one with its key.
    pub fn upsert(&mut self, key: K, row: RowHash) {
        if let Some(old) = self.hashes.insert(key, row) {
            self.digest = self.digest.without(old);
        }
        self.digest = self.digest.with(row);
    }

    /// Takes a row out; whether it was there.
    pub fn remove(&mut self, key: &K) -> bool {
        match self.hashes.remove(key) {
            Some(old) => {
                self.digest = self.digest.without(old);
                true
            }
            None => false,
        }
    }

    /// The keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.hashes.keys()
    }
}
