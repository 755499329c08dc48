//! Ids and counters. Each is a type of its own, so that a revision is never passed where a version is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no id: an id has 32 hexadecimal digits, as in 0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11")]
pub struct IdError;

macro_rules! id128 {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Makes an id from 16 random bytes; the caller draws them.
            pub fn from_random(bytes: [u8; 16]) -> Self {
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }

            /// Reads an id back from the 16 bytes of [`Self::to_bytes`]; `None` unless there are exactly 16.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }

            /// The id's 16 bytes, as they travel and are stored.
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.into_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self).map_err(|_| IdError)
            }
        }
    )*};
}

id128! {
    /// A registered edge.
    NodeId;
    /// A deployed pipeline's identity: a job deleted and deployed again under its name has a new one.
    JobId;
    /// One job on one node and slot; stays the same over versions and attempts.
    ExecutionId;
    /// A join token's public name; the secret is never an id.
    TokenId;
    /// One launch of batch jobs.
    RunId;
    /// One schedule: deleted and created again under its name it has a new one.
    ScheduleId;
    /// One "look at this job again".
    EvaluationId;
    /// One life of an edge's store: minted when the store is made, so a wiped edge has a new one.
    Incarnation;
    /// Drawn at each start of an edge process.
    BootNonce;
    /// Drawn at each start of an orchestrator; (epoch, nonce) names that life for ever.
    LifeNonce;
}

macro_rules! counter {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Where the counter starts, before anything was counted.
            pub const ZERO: Self = Self(0);

            /// The value after this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("a 64-bit counter outlives the machine"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

counter! {
    /// Counts the changes of one node's desired set (or of its observed set, within an incarnation).
    Revision;
    /// Counts orchestrator lives.
    Epoch;
    /// Counts a job's versions; grows only, from 1.
    Version;
    /// Counts the tries that the orchestrator ordered at one version; from 1, written only by the orchestrator.
    Attempt;
    /// Which of several executions of one job on one node; 0 for kind `daemon`.
    Slot;
    /// Counts an edge store's process starts.
    BootCounter;
    /// Names one connection of one node at one orchestrator.
    SessionId;
    /// Grows each time an evaluation is claimed, so that a late claimant's writes are refused.
    Fence;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_id_is_told_what_one_looks_like() {
        let error = "nope".parse::<TokenId>().expect_err("no id");
        assert!(
            error.to_string().contains("32 hexadecimal digits"),
            "{error}"
        );
    }
}
