//! What is deleted for its age, and by which clock.

use std::collections::VecDeque;
use std::time::Duration;

use sluice_model::{MonotonicMs, UnixMs};

use super::{Core, Now};
use crate::store::{Store, StoreError};

/// How long a token is kept that has expired: it is worth nothing, unless the clock was wrong.
pub(super) const TOKEN_KEPT: Duration = Duration::from_secs(24 * 3_600);

/// Nothing is deleted for its age by a clock that was seen for a shorter time: a machine that has just started may not
/// have heard the time yet.
const SEEN_MIN: Duration = Duration::from_secs(300);

/// A clock that is ahead for a shorter time than this deletes nothing. It also bounds the looks that are kept: 120, one for
/// each sweep.
const DOUBTED_FOR: Duration = Duration::from_secs(3_600);

/// How far the wall clock was ahead of the monotonic one at each sweep of the last hour. What is deleted for its age is gone
/// for good, so the least of these decides.
#[derive(Debug)]
pub(super) struct Aging {
    since: MonotonicMs,
    ahead: VecDeque<(MonotonicMs, i64)>,
}

impl Aging {
    pub(super) fn begin(now: Now) -> Self {
        let ahead = VecDeque::from([(now.mono, ahead(now))]);
        Self {
            since: now.mono,
            ahead,
        }
    }

    fn look(&mut self, now: Now) {
        self.ahead.push_back((now.mono, ahead(now)));
        let is_old = |seen: &(MonotonicMs, i64)| now.mono.since(seen.0) > DOUBTED_FOR;
        while self.ahead.front().is_some_and(is_old) {
            self.ahead.pop_front();
        }
    }

    /// So long ago by a clock that is to be believed; before everything while none is.
    fn long_ago(&self, age: Duration, now: Now) -> UnixMs {
        if now.mono.since(self.since) < SEEN_MIN {
            return UnixMs(i64::MIN);
        }
        let least = self.ahead.iter().map(|seen| seen.1).min();
        let ahead = ahead(now).min(least.unwrap_or(i64::MAX));
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        UnixMs(whole(now.mono).saturating_add(ahead).saturating_sub(age_ms))
    }
}

fn whole(mono: MonotonicMs) -> i64 {
    i64::try_from(mono.0).unwrap_or(i64::MAX)
}

fn ahead(now: Now) -> i64 {
    now.unix.0.saturating_sub(whole(now.mono))
}

impl<S: Store> Core<S> {
    /// Deletes what nobody can need any more.
    pub(super) fn sweep_old(&mut self, now: Now) -> Result<(), StoreError> {
        self.aging.look(now);
        self.store.sweep_tokens(self.long_ago(TOKEN_KEPT, now))?;
        self.store.sweep_audit()?;
        self.store
            .sweep_deleted_nodes(self.long_ago(Duration::ZERO, now))
    }

    /// So long ago, for what is deleted for its age: not by a clock that is wrong for a while.
    pub(super) fn long_ago(&self, age: Duration, now: Now) -> UnixMs {
        self.aging.long_ago(age, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_secs(30);

    struct Clock {
        now: Now,
        aging: Aging,
    }

    impl Clock {
        fn new(unix: i64) -> Self {
            let now = Now {
                mono: MonotonicMs(7),
                unix: UnixMs(unix),
            };
            let aging = Aging::begin(now);
            Self { now, aging }
        }

        fn pass(&mut self, looks: u32) {
            for _ in 0..looks {
                self.now.mono = self.now.mono.plus(LOOK);
                self.now.unix = self.now.unix.plus(LOOK);
                self.aging.look(self.now);
            }
        }

        fn shift(&mut self, days: i64) {
            self.now.unix.0 += days * 86_400_000;
        }

        fn deletes(&self, of: UnixMs) -> bool {
            of < self.aging.long_ago(Duration::ZERO, self.now)
        }
    }

    #[test]
    fn case_52_a_clock_that_is_ahead_for_a_while_is_not_believed() {
        for first in [true, false] {
            let mut clock = Clock::new(0);
            clock.pass(if first { 0 } else { 500 });
            let soon = clock.now.unix.plus(Duration::from_secs(4_000));
            clock.shift(60);
            clock.pass(9);
            assert!(!clock.deletes(soon));
            clock.shift(-60);
            clock.pass(20);
            assert!(!clock.deletes(soon));
            clock.pass(200);
            assert!(clock.deletes(soon));
        }
    }

    #[test]
    fn case_52_a_clock_that_was_behind_at_the_start_is_believed_once_it_is_right() {
        let mut clock = Clock::new(0);
        clock.pass(3);
        clock.shift(20_000);
        let old = clock.now.unix;
        clock.pass(118);
        assert!(!clock.deletes(old));
        clock.pass(10);
        assert!(clock.deletes(old));
    }
}
