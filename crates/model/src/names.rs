//! Names people choose: of nodes, jobs and stages, and labels.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// Labels of a node, ordered by key.
pub type Labels = BTreeMap<String, String>;

/// Longest name, in bytes: a DNS label's bound, so that names can become host names.
const NAME_BYTES_MAX: usize = 63;
/// Longest label key or value, in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or longer than 63 bytes.
    #[error("must have 1 to 63 characters")]
    Length,
    /// A character that names do not have.
    #[error("may have only a-z, 0-9 and `-`, and starts and ends with a letter or digit")]
    Characters,
    /// A character that label keys and values do not have.
    #[error("may have only letters, digits, `-`, `_`, `.` and `/`")]
    LabelCharacters,
}

fn check_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(NameError::Length);
    }
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let inner = bytes.iter().all(|&byte| letter(byte) || byte == b'-');
    if inner && letter(bytes[0]) && letter(bytes[bytes.len() - 1]) {
        Ok(())
    } else {
        Err(NameError::Characters)
    }
}

/// Checks a label's key: 1 to 63 of letters, digits, `-`, `_`, `.`, `/`.
pub fn check_label_key(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Length);
    }
    check_label_value(text)
}

/// Checks a label's value: up to 63 of letters, digits, `-`, `_`, `.`, `/`.
pub fn check_label_value(text: &str) -> Result<(), NameError> {
    if text.len() > LABEL_BYTES_MAX {
        return Err(NameError::Length);
    }
    let known =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    if text.bytes().all(known) {
        Ok(())
    } else {
        Err(NameError::LabelCharacters)
    }
}

macro_rules! name {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check_name(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

name! {
    /// A node's name: 1 to 63 of a-z, 0-9 and `-`, not at an end.
    NodeName;
    /// A job's name: 1 to 63 of a-z, 0-9 and `-`, not at an end.
    JobName;
    /// A stage's name, unique within its pipeline: 1 to 63 of a-z, 0-9 and `-`, not at an end.
    StageName;
    /// A schedule's name: 1 to 63 of a-z, 0-9 and `-`, not at an end.
    ScheduleName;
    /// A command's name in an edge's policy: 1 to 63 of a-z, 0-9 and `-`, not at an end.
    CommandName;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "edge-1", "0", &"x".repeat(63)] {
            assert!(good.parse::<NodeName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a b", "a_b", "é", &"x".repeat(64)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
    }
}
