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

/// An error and all its causes; one that the text holds already is not said again.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    text
}

/// [`with_causes`] in one line: line ends become semicolons.
pub fn in_one_line(error: &dyn std::error::Error) -> String {
    with_causes(error).replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Caused(&'static str, Option<Box<Caused>>);

    impl fmt::Display for Caused {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Caused {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    #[test]
    fn a_chain_of_errors_is_one_line_and_says_nothing_twice() {
        let root = Caused("no room\nat all", None);
        let same = Caused("writing a: no room\nat all", Some(Box::new(root)));
        let top = Caused("cannot save", Some(Box::new(same)));
        assert_eq!(in_one_line(&top), "cannot save: writing a: no room; at all");
        assert_eq!(in_one_line(&Caused("alone", None)), "alone");
    }
}
