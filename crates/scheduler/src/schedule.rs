//! Schedules: when their ticks are, which of them are due, and what becomes of each.
//!
//! ```text
//!   rhythm ── nominal times ── jitter ──> due ── catch-up ──> overlap ──> launch | queue | skip
//! ```
//!
//! A tick is named by its *nominal* time, which its cron expression or interval gives and nothing moves: jitter only has
//! it fire later. So whoever evaluates a schedule, however often, finds the same ticks.
//!
//! An interval counts from the schedule's creation, in real time. A cron expression follows the wall clock of its zone:
//!
//! - A time of day that is written in numbers (`30 2`, `0 2,14`) comes once a day: one that the clock leaves out in
//!   spring comes at the first moment after the gap, one that the clock shows twice in autumn comes the first time.
//! - With `*`, a step or a range among seconds, minutes and hours it comes whenever the clock shows such a time: what is
//!   left out does not come, what is shown twice comes twice. So `0 * * * *` comes every hour of real time.

use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, Zoned};
use sluice_model::{CatchUp, Digest, Overlap, ScheduleId, UnixMs};

/// Missed ticks that are dealt with one by one; older ones are skipped together: a year of a minutely schedule is half
/// a million.
pub const CATCH_UP_MAX: usize = 100;

/// Older ones that are counted: 1,000 cost some 2 ms, however many times a day there are, and more only has to be called
/// more.
const COUNTED_MAX: u64 = 1_000;

/// Ticks of one schedule that wait for an earlier run's end: as many as are caught up with.
pub const QUEUED_MAX: usize = CATCH_UP_MAX;

/// A tick that fires later than this was missed: a healthy orchestrator looks about every second, a busy or stalled one after
/// a few, and a restart takes a few.
pub const LATE_AFTER: Duration = Duration::from_secs(10);

/// Shortest time between two ticks of an interval: the orchestrator looks about once a second.
const EVERY_MIN: Duration = Duration::from_secs(1);

/// Longest: what is rarer than once in ten years is not left to a program.
const EVERY_MAX: Duration = Duration::from_secs(3_660 * 86_400);

/// Most that ticks are spread by.
const JITTER_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Ticks ahead whose gaps a jitter must fit into: a week of hourly ones, more than a year of monthly ones.
const GAPS_MAX: usize = 200;

/// Longest cron expression: lists of all minutes and hours fit.
const CRON_BYTES_MAX: usize = 400;

/// Times of day written in numbers that one expression may name as such; more follow the clock, as steps do.
const TIMES_OF_DAY_MAX: usize = 144;

/// Zones that a mistyped one is answered with.
const ZONES_TOLD_MAX: usize = 3;

/// What is wrong with a schedule's times.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// It cannot be read.
    #[error("`{pattern}` is no cron expression: {problem}")]
    Cron {
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It names no date that there is.
    #[error("`{pattern}` never happens: there is no such date")]
    Never {
        /// The expression.
        pattern: String,
    },
    /// There is no such zone.
    #[error("`{zone}` is no time zone{}", words_of_zones(.like))]
    Zone {
        /// The text.
        zone: String,
        /// Zones that may be meant.
        like: Vec<String>,
    },
    /// An interval that is too short or too long.
    #[error("an interval is from 1s to ten years")]
    Every,
    /// The jitter does not fit between two ticks.
    #[error("a jitter is shorter than the time between two ticks, here {gap:?}, and at most 24h")]
    Jitter {
        /// The shortest time between two ticks.
        gap: Duration,
    },
}

fn words_of_zones(zones: &[String]) -> String {
    match zones {
        [] => String::new(),
        zones => format!("; is it {}?", zones.join(" or ")),
    }
}

impl TimingError {
    /// What is right.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Cron { .. } => {
                "five fields: minute hour day-of-month month day-of-week, such as `30 2 * * MON-FRI`; six with seconds first; \
                 or @hourly, @daily, @weekly, @monthly, @yearly"
            }
            Self::Never { .. } => "name a day that the month has",
            Self::Zone { .. } => "write a name of the IANA database, such as Europe/Berlin or UTC",
            Self::Every => "write `--every 90s`, `--every 6h` or the like",
            Self::Jitter { .. } => "write a shorter one",
        }
    }
}

/// When a schedule's ticks are.
#[derive(Clone, Debug)]
pub enum Rhythm {
    /// As a cron expression says.
    Cron {
        /// One for each time of day that is written in numbers, else one.
        crons: Vec<Cron>,
        /// Whose wall clock it follows.
        zone: TimeZone,
    },
    /// From interval to interval.
    Every {
        /// How long.
        every_ms: i64,
        /// From when; the first tick is one interval later.
        anchor: UnixMs,
    },
}

impl Rhythm {
    /// Reads a cron expression; without a zone it is UTC.
    pub fn cron(pattern: &str, zone: Option<&str>) -> Result<Self, TimingError> {
        let wrong = |problem: String| TimingError::Cron {
            pattern: pattern.chars().take(CRON_BYTES_MAX).collect(),
            problem,
        };
        if pattern.len() > CRON_BYTES_MAX {
            return Err(wrong(format!("it is longer than {CRON_BYTES_MAX} bytes")));
        }
        let zone = zone_of(zone.unwrap_or("UTC"))?;
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build();
        let crons = times_of_day(pattern)
            .iter()
            .map(|pattern| parser.parse(pattern))
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(words_of(&error)))?;
        Ok(Self::Cron { crons, zone })
    }

    /// From interval to interval, counted from `anchor`.
    pub fn every(every: Duration, anchor: UnixMs) -> Result<Self, TimingError> {
        if !(EVERY_MIN..=EVERY_MAX).contains(&every) {
            return Err(TimingError::Every);
        }
        let every_ms = i64::try_from(every.as_millis()).map_err(|_| TimingError::Every)?;
        Ok(Self::Every { every_ms, anchor })
    }

    /// The first nominal time after another one.
    pub fn next_after(&self, after: UnixMs) -> Option<UnixMs> {
        match self {
            Self::Cron { crons, zone } => {
                let after = zoned(after, zone)?;
                let next = |cron: &Cron| cron.find_next_occurrence(&after, false).ok();
                let times = crons.iter().filter_map(next);
                times.map(|time| unix_ms(&time)).min()
            }
            Self::Every { every_ms, anchor } => {
                let passed = after.0.checked_sub(anchor.0)?.div_euclid(*every_ms).max(0);
                let ms = passed.checked_add(1)?.checked_mul(*every_ms)?;
                anchor.0.checked_add(ms).map(UnixMs)
            }
        }
    }

    /// The last nominal time that is not after another one.
    pub fn last_until(&self, until: UnixMs) -> Option<UnixMs> {
        match self {
            Self::Cron { crons, zone } => {
                let until = zoned(until, zone)?;
                let last = |cron: &Cron| cron.find_previous_occurrence(&until, true).ok();
                let times = crons.iter().filter_map(last);
                times.map(|time| unix_ms(&time)).max()
            }
            Self::Every { every_ms, anchor } => {
                let passed = until.0.checked_sub(anchor.0)?.div_euclid(*every_ms);
                let ms = (passed > 0).then(|| passed.checked_mul(*every_ms))??;
                anchor.0.checked_add(ms).map(UnixMs)
            }
        }
    }

    /// Nominal times from the last one that is not after `until` back, each once.
    fn back_from(&self, until: UnixMs) -> Back<'_> {
        let mut back = Back {
            rhythm: self,
            next: BinaryHeap::new(),
            #[cfg(test)]
            looks: 0,
        };
        match self {
            Self::Cron { crons, .. } => (0..crons.len()).for_each(|cron| back.push(cron, until)),
            Self::Every { .. } => back.push(0, until),
        }
        back
    }

    /// How many nominal times lie after `after` and not after `until`; of a cron expression at most [`COUNTED_MAX`].
    fn count(&self, after: UnixMs, until: UnixMs) -> u64 {
        if let Self::Every { every_ms, anchor } = self {
            let passed = |at: UnixMs| at.0.saturating_sub(anchor.0).div_euclid(*every_ms).max(0);
            return u64::try_from(passed(until) - passed(after)).unwrap_or(0);
        }
        let bound = usize::try_from(COUNTED_MAX).unwrap_or(usize::MAX);
        let times = self.back_from(until).take_while(|at| *at > after);
        times.take(bound).count() as u64
    }
}

/// Nominal times, backwards. Of the times of day that an expression writes in numbers each is looked for by itself, and
/// again only when it was the next: what a step costs does not grow with how many there are.
#[derive(Debug)]
struct Back<'a> {
    rhythm: &'a Rhythm,
    next: BinaryHeap<(UnixMs, usize)>,
    #[cfg(test)]
    looks: usize,
}

impl Back<'_> {
    /// Looks for the last time of one of the expressions that is not after `until`.
    fn push(&mut self, cron: usize, until: UnixMs) {
        let last = match self.rhythm {
            Rhythm::Cron { crons, zone } => zoned(until, zone)
                .and_then(|until| crons[cron].find_previous_occurrence(&until, true).ok())
                .map(|time| unix_ms(&time)),
            Rhythm::Every { .. } => self.rhythm.last_until(until),
        };
        #[cfg(test)]
        {
            self.looks += 1;
        }
        // Strictly back, whatever a zone does.
        let last = last.filter(|last| *last <= until);
        self.next.extend(last.map(|last| (last, cron)));
    }
}

impl Iterator for Back<'_> {
    type Item = UnixMs;

    fn next(&mut self) -> Option<UnixMs> {
        let &(at, _) = self.next.peek()?;
        // Two times of day can come at one moment, after a gap that the clock makes.
        while let Some(&(same, cron)) = self.next.peek()
            && same == at
        {
            self.next.pop();
            self.push(cron, UnixMs(at.0.saturating_sub(1)));
        }
        Some(at)
    }
}

/// When a schedule's ticks are, and fire.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Spreads its ticks in its own way.
    pub schedule: ScheduleId,
    /// When they are.
    pub rhythm: Rhythm,
    /// They fire up to so much later.
    pub jitter: Duration,
}

/// Ticks that are due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// The newest [`CATCH_UP_MAX`], the oldest first.
    pub ticks: Vec<UnixMs>,
    /// Those before them.
    pub older: Option<Older>,
}

/// Ticks that are too many to look at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Older {
    /// The newest of them.
    pub until: UnixMs,
    /// How many.
    pub count: u64,
    /// There are more than that.
    pub and_more: bool,
}

impl Timing {
    /// Checks that the schedule has a tick after `now`, and that its jitter fits between its ticks.
    pub fn check(&self, pattern: &str, now: UnixMs) -> Result<(), TimingError> {
        let Some(first) = self.rhythm.next_after(now) else {
            let pattern = pattern.to_owned();
            return Err(TimingError::Never { pattern });
        };
        if self.jitter.is_zero() {
            return Ok(());
        }
        let mut gap = JITTER_MAX.saturating_add(Duration::from_millis(1));
        let mut at = first;
        for _ in 0..GAPS_MAX {
            let Some(next) = self.rhythm.next_after(at) else {
                break;
            };
            let ms = u64::try_from(next.0 - at.0).unwrap_or(0);
            gap = gap.min(Duration::from_millis(ms));
            at = next;
        }
        if self.jitter < gap {
            Ok(())
        } else {
            Err(TimingError::Jitter { gap })
        }
    }

    /// When a tick fires: always the same for the same tick.
    pub fn fires_at(&self, nominal: UnixMs) -> UnixMs {
        let jitter_ms = u64::try_from(self.jitter.as_millis()).unwrap_or(u64::MAX);
        if jitter_ms == 0 {
            return nominal;
        }
        let mut key = Vec::with_capacity(24);
        key.extend_from_slice(&self.schedule.to_bytes());
        key.extend_from_slice(&nominal.0.to_be_bytes());
        let digest = Digest::of(&key);
        let mut first = [0; 8];
        first.copy_from_slice(&digest.as_bytes()[..8]);
        nominal.plus(Duration::from_millis(u64::from_be_bytes(first) % jitter_ms))
    }

    /// The next tick after one that was considered: its nominal time, and when it fires.
    pub fn next_after(&self, considered: UnixMs) -> Option<(UnixMs, UnixMs)> {
        let nominal = self.rhythm.next_after(considered)?;
        Some((nominal, self.fires_at(nominal)))
    }

    /// The ticks after `considered` whose time has come.
    pub fn due(&self, considered: UnixMs, now: UnixMs) -> Due {
        let mut ticks = VecDeque::new();
        let mut older = None;
        // From the newest back: what is far behind costs nothing. Its number is bounded by a jitter of whole seconds.
        let mut times = self.rhythm.back_from(now);
        while let Some(nominal) = times.next().filter(|at| *at > considered) {
            if ticks.len() == CATCH_UP_MAX {
                let count = self.rhythm.count(considered, nominal);
                older = Some(Older {
                    until: nominal,
                    count,
                    and_more: count == COUNTED_MAX && matches!(self.rhythm, Rhythm::Cron { .. }),
                });
                break;
            }
            if !ticks.is_empty() || self.fires_at(nominal) <= now {
                ticks.push_front(nominal);
            }
        }
        Due {
            ticks: ticks.into(),
            older,
        }
    }
}

/// What a schedule says about ticks that come at a bad time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// While an earlier run is under way.
    pub overlap: Overlap,
    /// After nobody was there.
    pub catch_up: CatchUp,
}

/// A tick whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueTick {
    /// None of those that are due is newer.
    pub is_newest: bool,
    /// It fires more than [`LATE_AFTER`] after its time.
    pub is_late: bool,
    /// Whoever looks was not there yet at its time.
    pub is_inherited: bool,
}

/// What of a schedule is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Busy {
    /// Runs that have not ended.
    pub runs: usize,
    /// Ticks that wait.
    pub queued: usize,
}

/// What becomes of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It launches its run.
    Launch,
    /// It calls the runs before it off, and launches its own.
    Replace,
    /// It waits for the runs before it.
    Queue,
    /// It launches nothing.
    Skip(SkipWhy),
}

/// Why a tick launches nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipWhy {
    /// Nobody was there at its time.
    Missed,
    /// An earlier run is under way.
    Overlap,
    /// Too many wait already.
    QueueFull,
}

/// What becomes of a tick whose time has come.
pub fn fate(policy: Policy, tick: DueTick, busy: Busy) -> Fate {
    let missed = tick.is_late || tick.is_inherited;
    // Those that come faster than it is looked are due together, and nobody missed them; of what a restart left, however
    // short it was, the newest stands for all.
    let is_passed_over = !tick.is_newest && (tick.is_late || tick.is_inherited);
    match policy.catch_up {
        CatchUp::One if is_passed_over => return Fate::Skip(SkipWhy::Missed),
        CatchUp::Skip if is_passed_over || tick.is_late => return Fate::Skip(SkipWhy::Missed),
        CatchUp::One | CatchUp::All | CatchUp::Skip => {}
    }
    if busy == Busy::default() {
        return Fate::Launch;
    }
    match policy.overlap {
        Overlap::Allow => Fate::Launch,
        Overlap::CancelPrevious => Fate::Replace,
        // Who wants each missed tick launched does not want all but one of them to get in each other's way.
        Overlap::Skip if !(missed && policy.catch_up == CatchUp::All) => {
            Fate::Skip(SkipWhy::Overlap)
        }
        Overlap::Skip | Overlap::Queue if busy.queued >= QUEUED_MAX => {
            Fate::Skip(SkipWhy::QueueFull)
        }
        Overlap::Skip | Overlap::Queue => Fate::Queue,
    }
}

/// An expression as one for each time of day that it writes in numbers: croner takes only a single one as such.
fn times_of_day(pattern: &str) -> Vec<String> {
    let fields: Vec<&str> = pattern.split_whitespace().collect();
    let clock = match fields.len() {
        5 => 2,
        6 => 3,
        _ => return vec![pattern.to_owned()],
    };
    let numbers = |field: &str| -> Option<Vec<String>> {
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit());
        let parts: Vec<&str> = field.split(',').collect();
        let all = parts.iter().all(|part| is_number(part));
        all.then(|| parts.into_iter().map(str::to_owned).collect())
    };
    let mut times = vec![String::new()];
    for field in &fields[..clock] {
        let Some(numbers) = numbers(field) else {
            return vec![pattern.to_owned()];
        };
        if times.len() * numbers.len() > TIMES_OF_DAY_MAX {
            return vec![pattern.to_owned()];
        }
        times = times
            .iter()
            .flat_map(|time| numbers.iter().map(move |number| format!("{time}{number} ")))
            .collect();
    }
    let date = fields[clock..].join(" ");
    times.into_iter().map(|time| time + &date).collect()
}

fn words_of(error: &croner::errors::CronError) -> String {
    use croner::errors::CronError as E;
    match error {
        E::EmptyPattern => "it is empty".to_owned(),
        E::InvalidPattern(_) => "it has not five or six fields".to_owned(),
        E::ComponentError(words) | E::IllegalCharacters(words) => {
            let words = words.trim_end_matches('.');
            let mut chars = words.chars();
            let first = chars.next().map(|first| first.to_lowercase().to_string());
            first.unwrap_or_default() + chars.as_str()
        }
        E::InvalidDate | E::InvalidTime | E::TimeSearchLimitExceeded => {
            "there is no such time".to_owned()
        }
    }
}

/// A zone of the table that this program was built with.
fn zone_of(text: &str) -> Result<TimeZone, TimingError> {
    let zones = TimeZoneDatabase::bundled();
    if let Ok(zone) = zones.get(text) {
        return Ok(zone);
    }
    let wanted = text.trim().replace(' ', "_");
    let city = |name: &str| {
        name.rsplit('/')
            .next()
            .is_some_and(|it| it.eq_ignore_ascii_case(&wanted))
    };
    let like = zones
        .available()
        .map(|name| name.to_string())
        .filter(|name| city(name))
        .take(ZONES_TOLD_MAX)
        .collect();
    Err(TimingError::Zone {
        zone: text.to_owned(),
        like,
    })
}

fn zoned(at: UnixMs, zone: &TimeZone) -> Option<Zoned> {
    // Cron knows whole seconds.
    let at = Timestamp::from_second(at.0.div_euclid(1_000)).ok()?;
    Some(at.to_zoned(zone.clone()))
}

fn unix_ms(time: &Zoned) -> UnixMs {
    UnixMs(time.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests;
