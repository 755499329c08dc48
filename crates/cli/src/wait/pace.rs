//! When to look next. Pure: `now` comes in.

use std::time::Duration;

use tokio::time::Instant;

/// The times of waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Between two looks at least, however many hints come.
    pub(super) rest: Duration,
    /// Between two looks at most while hints are listened to.
    pub(super) quiet: Duration,
    /// Between two looks at most while none are.
    pub(super) blind: Duration,
}

/// How commands wait. A rest is short against a start and long against what a look costs. What no hint tells (time that
/// passes, an orchestrator that was cut off without a word) shows within some seconds; without hints, at once for a person.
pub(super) const PACE: Pace = Pace {
    rest: Duration::from_millis(150),
    quiet: Duration::from_secs(5),
    blind: Duration::from_millis(500),
};

/// What comes from the stream of hints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// From now on hints come; what changed before may have been missed.
    Listening,
    /// It may have changed.
    Hint,
    /// No hints come until [`Heard::Listening`].
    Cut,
}

/// Where a wait stands in time.
#[derive(Clone, Debug)]
pub(super) struct Rhythm {
    pace: Pace,
    deadline: Instant,
    listening: bool,
    /// The last look is far enough away for the next one.
    rested: Instant,
    due: Instant,
    over: bool,
}

impl Rhythm {
    /// Waits for at most `within` from `now` on, and has heard nothing yet.
    pub(super) fn new(pace: Pace, now: Instant, within: Duration) -> Self {
        Self {
            pace,
            deadline: now + within,
            listening: false,
            rested: now,
            due: now,
            over: false,
        }
    }

    /// Whoever looked at this time and found it missing has waited enough.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// A look that ended at `now` found it missing.
    pub(super) fn handle_looked(&mut self, now: Instant) {
        self.over = now >= self.deadline;
        let pause = match self.listening {
            true => self.pace.quiet,
            false => self.pace.blind,
        };
        self.rested = now + self.pace.rest;
        self.due = (now + pause).min(self.deadline);
    }

    /// Something came from the stream of hints: each is a reason to look.
    pub(super) fn handle_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Listening => self.listening = true,
            Heard::Cut => self.listening = false,
            Heard::Hint => {}
        }
        self.due = self.due.min(self.rested);
    }

    /// When to look next, never after the deadline.
    pub(super) fn poll_due(&self) -> Instant {
        self.due
    }

    /// The deadline has passed with a look behind it.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Pace = Pace {
        rest: Duration::from_millis(100),
        quiet: Duration::from_secs(3600),
        blind: Duration::from_secs(60),
    };

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_hint_brings_the_next_look_and_a_rest_lies_between() {
        let start = Instant::now();
        let mut rhythm = Rhythm::new(LONG, start, s(10_000));
        assert_eq!(rhythm.poll_due(), start, "the first at once");
        rhythm.handle_looked(start);
        assert_eq!(rhythm.poll_due(), start + LONG.blind);
        rhythm.handle_heard(Heard::Listening);
        assert_eq!(rhythm.poll_due(), start + LONG.rest, "it may have missed");
        rhythm.handle_looked(start + s(1));
        assert_eq!(rhythm.poll_due(), start + s(1) + LONG.quiet);
        for _ in 0..1000 {
            rhythm.handle_heard(Heard::Hint);
        }
        assert_eq!(rhythm.poll_due(), start + s(1) + LONG.rest);
        rhythm.handle_looked(start + s(2));
        rhythm.handle_heard(Heard::Cut);
        assert_eq!(rhythm.poll_due(), start + s(2) + LONG.rest, "look again");
        rhythm.handle_looked(start + s(3));
        assert_eq!(rhythm.poll_due(), start + s(3) + LONG.blind);
        assert!(!rhythm.is_over());
    }

    #[test]
    fn the_last_look_is_at_the_deadline() {
        let start = Instant::now();
        let mut rhythm = Rhythm::new(LONG, start, s(30));
        rhythm.handle_looked(start);
        assert_eq!(rhythm.poll_due(), start + s(30));
        rhythm.handle_heard(Heard::Listening);
        rhythm.handle_looked(start + s(29));
        assert_eq!(rhythm.poll_due(), start + s(30));
        assert!(!rhythm.is_over());
        // One that a busy machine held up past the deadline was the last one too.
        rhythm.handle_looked(start + s(31));
        assert!(rhythm.is_over());
    }
}
