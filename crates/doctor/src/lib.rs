//! Looks into a program's state directory and says what is wrong and how to mend it: what orchestrator and edge have in
//! common there.
//!
//! Works while the program runs and while it does not: it takes no lock and opens no store, but a copy of it. All that it
//! ever writes is a file of its own, `doctor.tmp`, which it takes away again. It never panics over what it finds; that is
//! what it is for. Every call blocks for the disk.

mod clock;
mod directory;
mod store;

use std::fmt;

use serde::Serialize;

pub use clock::{Late, clock};
pub use directory::{Running, directory, disk, private, running};
pub use store::{StoreCopy, store};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and will not for ever.
    Warn,
    /// It does not work.
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        })
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked: a stable word.
    pub check: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// How to mend it; null when there is nothing to mend.
    pub mend: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(check: &'static str, seen: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Ok,
            seen: seen.into(),
            mend: None,
        }
    }

    /// It works, and will not for ever.
    pub fn warn(check: &'static str, seen: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Warn,
            seen: seen.into(),
            mend: Some(mend.into()),
        }
    }

    /// It does not work.
    pub fn fail(check: &'static str, seen: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::warn(check, seen, mend)
        }
    }
}

/// An error and what is behind it, in one line: line ends in it become semicolons.
pub fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text.replace('\n', "; ")
}
