//! Whether the machine's clock can be right.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Finding;

/// A clock that differs by less is good enough for everything here.
const DRIFT_MAX: Duration = Duration::from_secs(5 * 60);

/// No clock that is right is before 2025: this program did not exist.
const BUILT_AFTER: Duration = Duration::from_secs(1_735_689_600);

/// A time that has been for sure, and how it is known.
#[derive(Clone, Debug)]
pub struct Late {
    /// Since 1970.
    pub at: Duration,
    /// In words, after "before": "the start of this edge's certificate".
    pub known_by: &'static str,
}

/// Compares the clock with times that have been: those, and that of the newest of these files.
pub fn clock(files: &[&Path], times: &[Late]) -> Finding {
    let mend = "set the clock, and keep it right with NTP (`timedatectl set-ntp true`)";
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else {
        return Finding::fail("clock", "it stands before 1970", mend);
    };
    if now < BUILT_AFTER {
        let seen = "it stands before 2025, when this program did not exist";
        return Finding::fail("clock", seen, mend);
    }
    let written = files.iter().filter_map(|file| {
        let modified = file.metadata().ok()?.modified().ok()?;
        let at = modified.duration_since(UNIX_EPOCH).ok()?;
        let known_by = "the last change of the store's file";
        Some(Late { at, known_by })
    });
    let latest = times
        .iter()
        .cloned()
        .chain(written)
        .max_by_key(|late| late.at);
    match latest {
        Some(late) if now + DRIFT_MAX < late.at => {
            let behind = (late.at - now).as_secs();
            let seen = format!("it stands {behind} s before {}", late.known_by);
            Finding::fail("clock", seen, mend)
        }
        Some(late) => Finding::ok("clock", format!("it stands after {}", late.known_by)),
        None => Finding::ok(
            "clock",
            "it may be right; there is nothing here to compare it with",
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::Verdict;

    #[test]
    fn a_clock_before_what_has_been_is_wrong() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let late = |at| Late {
            at,
            known_by: "the start of a certificate",
        };
        let ahead = [late(now + DRIFT_MAX * 2)];
        let finding = clock(&[], &ahead);
        assert_eq!(finding.verdict, Verdict::Fail);
        assert!(finding.seen.contains("before the start of a certificate"));
        assert!(finding.mend.unwrap().contains("set-ntp"));
        assert_eq!(clock(&[], &[late(now)]).verdict, Verdict::Ok);
        assert_eq!(clock(&[], &[]).verdict, Verdict::Ok);
    }
}
