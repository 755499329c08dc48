//! When to try again: exponential delays with jitter, and the count of crashes that ends in quarantine.

use std::collections::VecDeque;
use std::time::Duration;

use sluice_model::MonotonicMs;

/// The first delay: long enough not to spin, short enough that a blip goes unnoticed.
pub const DELAY_MIN: Duration = Duration::from_secs(1);

/// The longest delay: what an operator who mended something waits for at most.
pub const DELAY_MAX: Duration = Duration::from_secs(300);

/// This many crashes within [`CRASH_WINDOW`] end in quarantine: with the delays 1, 2, 4, ... s between them, the tenth
/// comes after 511 s.
pub const CRASHES_MAX: usize = 10;

/// The time in which crashes count together.
pub const CRASH_WINDOW: Duration = Duration::from_secs(600);

/// Tries of a task that come to nothing, one after the other, before its attempt ends as failed: as many as a stage's
/// `retry` has. A daemon waits for what it needs for ever; who launched a task waits for its end.
pub const TRIES_MAX: u64 = 10;

/// The longest that a task is tried: what is not there after five minutes does not come by itself. The last try is at the
/// end of that time.
pub const TRIES_TIME_MAX: Duration = Duration::from_secs(300);

/// After this many processes in a row that died while they brought up the same label, the next one leaves it out: one
/// can be chance (a power cut, an operator's `kill -9`), three are not.
pub const DEATHS_MAX: u64 = 3;

/// How long it is left out at first: the edge is then reachable for ten minutes between two tries that may kill it.
const LEFT_OUT_MIN: Duration = Duration::from_secs(600);

/// The longest: a machine that got more memory has it back within an hour.
const LEFT_OUT_MAX: Duration = Duration::from_secs(3600);

/// How long a label is left out that `deaths` processes in a row died of; `None`: it is tried at once.
pub(crate) fn left_out(deaths: u64) -> Option<Duration> {
    let doublings = u32::try_from(deaths.checked_sub(DEATHS_MAX)?.min(16)).expect("at most 16");
    Some(
        LEFT_OUT_MIN
            .saturating_mul(1 << doublings)
            .min(LEFT_OUT_MAX),
    )
}

/// An instance that ran this long was well: its next failure starts again at the first delay.
pub(crate) const STEADY: Duration = Duration::from_secs(60);

/// Draws jitter; SplitMix64, seeded by the caller, so that a run can be repeated.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The delay after `failures` failures in a row (from 1): doubling, up to a quarter less by chance so that what
    /// failed together does not try again together, within [`DELAY_MIN`] and [`DELAY_MAX`].
    pub(crate) fn delay(&mut self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let full = DELAY_MIN.saturating_mul(1 << doublings).min(DELAY_MAX);
        let full_ms = u64::try_from(full.as_millis()).expect("at most 5 minutes");
        let less_ms = self.next() % (full_ms / 4 + 1);
        Duration::from_millis(full_ms - less_ms).max(DELAY_MIN)
    }
}

/// Tries in a row that came to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tries {
    failed: u64,
    /// From the first one's failure to the last one's.
    took: Duration,
    last: MonotonicMs,
}

impl Tries {
    /// Goes on from what an earlier process wrote down. The time between that and `now` is not known, and does not count:
    /// each process tries at once, so the number of tries is a bound of its own.
    pub(crate) fn resume(failed: u64, took: Duration, now: MonotonicMs) -> Self {
        let last = now;
        Self { failed, took, last }
    }

    /// Counts one that came to nothing.
    pub(crate) fn handle_failure(&mut self, now: MonotonicMs) {
        if self.failed > 0 {
            self.took += now.since(self.last);
        }
        self.failed = self.failed.saturating_add(1);
        self.last = now;
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }

    pub(crate) fn took(&self) -> Duration {
        self.took
    }

    /// How long it may go on from the last failure; `None`: that one was the last try.
    pub(crate) fn left(&self) -> Option<Duration> {
        let left = TRIES_TIME_MAX.saturating_sub(self.took);
        (self.failed < TRIES_MAX && !left.is_zero()).then_some(left)
    }
}

/// The crashes within the window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Crashes(VecDeque<MonotonicMs>);

impl Crashes {
    /// Counts one; whether it was one too many.
    pub(crate) fn handle_crash(&mut self, now: MonotonicMs) -> bool {
        while self
            .0
            .front()
            .is_some_and(|&first| now.since(first) > CRASH_WINDOW)
        {
            self.0.pop_front();
        }
        self.0.push_back(now);
        self.0.len() >= CRASHES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_one_second_to_five_minutes() {
        let mut jitter = Jitter::new(7);
        for (failures, full) in [
            (1, 1),
            (2, 2),
            (3, 4),
            (8, 128),
            (9, 256),
            (10, 300),
            (u32::MAX, 300),
        ] {
            for _ in 0..100 {
                let delay = jitter.delay(failures).as_millis();
                assert!(
                    delay <= full * 1000 && delay >= (full * 750).max(1000),
                    "{failures}: {delay}"
                );
            }
        }
    }

    #[test]
    fn a_task_is_tried_ten_times_or_five_minutes() {
        let at = |s: u64| MonotonicMs(s * 1000);
        let mut quick = Tries::default();
        for n in 1..10 {
            quick.handle_failure(at(n));
            let left = TRIES_TIME_MAX.saturating_sub(Duration::from_secs(n - 1));
            assert_eq!(quick.left(), Some(left));
        }
        quick.handle_failure(at(10));
        assert_eq!(quick.left(), None);

        let mut slow = Tries::default();
        slow.handle_failure(at(7));
        slow.handle_failure(at(306));
        assert_eq!(slow.left(), Some(Duration::from_secs(1)));
        let mut later = Tries::resume(slow.failed(), slow.took(), at(0));
        assert_eq!(later.left(), slow.left());
        later.handle_failure(at(2));
        assert_eq!(later.left(), None, "a restart gives no time anew");
    }

    #[test]
    fn what_processes_die_of_is_left_out_from_the_third_death_on() {
        let minutes = |deaths| left_out(deaths).map(|time| time.as_secs() / 60);
        let expected = [None, None, None, Some(10), Some(20), Some(40), Some(60)];
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(minutes), expected);
        assert_eq!(minutes(u64::MAX), Some(60));
    }

    #[test]
    fn ten_crashes_in_ten_minutes_are_too_many() {
        let mut crashes = Crashes::default();
        let at = |s: u64| MonotonicMs(s * 1000);
        for n in 0..9 {
            assert!(!crashes.handle_crash(at(n)));
        }
        assert!(crashes.clone().handle_crash(at(600)));
        assert!(
            !crashes.handle_crash(at(601)),
            "the first one is out of the window"
        );
    }
}
