//! Ticks where the clock is changed, after a long absence, and whenever it is looked.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn at(text: &str) -> UnixMs {
    UnixMs(text.parse::<Timestamp>().unwrap().as_millisecond())
}

fn cron(pattern: &str, zone: &str) -> Rhythm {
    Rhythm::cron(pattern, Some(zone)).unwrap()
}

/// Every tick after `from` and not after `to`.
fn ticks(rhythm: &Rhythm, from: UnixMs, to: UnixMs) -> Vec<UnixMs> {
    let mut ticks = Vec::new();
    let mut considered = from;
    while let Some(next) = rhythm.next_after(considered).filter(|next| *next <= to) {
        assert!(next > considered);
        ticks.push(next);
        considered = next;
    }
    ticks
}

/// The same from the newest back, the oldest first.
fn ticks_back(rhythm: &Rhythm, from: UnixMs, to: UnixMs) -> Vec<UnixMs> {
    let mut ticks = Vec::new();
    let mut until = to;
    while let Some(last) = rhythm.last_until(until).filter(|last| *last > from) {
        assert!(last <= until);
        ticks.push(last);
        until = UnixMs(last.0 - 1);
    }
    ticks.reverse();
    ticks
}

#[test]
fn times_of_day_come_once_a_day_and_steps_follow_the_clock_where_it_is_changed() {
    let spring = ("2026-03-28T22:00:00Z", "2026-03-29T04:00:00Z");
    let autumn = ("2026-10-24T22:00:00Z", "2026-10-25T04:00:00Z");
    // In spring 02:00 CET (01:00Z) is 03:00 CEST, in autumn 03:00 CEST (01:00Z) is 02:00 CET.
    for (pattern, (from, to), expected) in [
        ("30 2 * * *", spring, &["01:00"][..]),
        ("30 2 * * *", autumn, &["00:30"]),
        ("0 2,14 * * *", spring, &["01:00"]),
        ("0 2,14 * * *", autumn, &["00:00"]),
        ("0,30 2,3 * * *", spring, &["01:00", "01:30"]),
        (
            "0,30 2,3 * * *",
            autumn,
            &["00:00", "00:30", "02:00", "02:30"],
        ),
        ("0 30 2 * * *", autumn, &["00:30"]),
        (
            "0 * * * *",
            spring,
            &["23:00", "00:00", "01:00", "02:00", "03:00", "04:00"],
        ),
        (
            "0 * * * *",
            autumn,
            &["23:00", "00:00", "01:00", "02:00", "03:00", "04:00"],
        ),
        ("*/20 2 * * *", spring, &[]),
        (
            "*/20 2 * * *",
            autumn,
            &["00:00", "00:20", "00:40", "01:00", "01:20", "01:40"],
        ),
        ("0 1-3 * * *", spring, &["00:00", "01:00"]),
        ("0 1-3 * * *", autumn, &["23:00", "00:00", "01:00", "02:00"]),
    ] {
        let rhythm = cron(pattern, "Europe/Berlin");
        let found: Vec<String> = ticks(&rhythm, at(from), at(to))
            .iter()
            .map(|tick| tick.to_string()[11..16].to_owned())
            .collect();
        assert_eq!(found, expected, "{pattern} after {from}");
        let back = ticks_back(&rhythm, at(from), at(to));
        assert_eq!(back, ticks(&rhythm, at(from), at(to)), "{pattern}");
    }
}

#[test]
fn what_cannot_be_a_schedule_is_named_with_what_is_right() {
    let now = at("2026-11-27T10:00:00Z");
    for (pattern, problem) in [
        ("61 * * * *", "number out of bounds"),
        ("* * *", "it has not five or six fields"),
        ("", "it is empty"),
        ("@every 5m", "it has not five or six fields"),
        ("*/0 * * * *", "step cannot be zero"),
        ("5,x 2 * * *", "illegal"),
    ] {
        let error = Rhythm::cron(pattern, None).unwrap_err();
        assert!(error.to_string().contains(problem), "{pattern}: {error}");
        assert!(error.to_string().contains(&format!("`{pattern}`")));
        assert!(error.help().contains("day-of-week"));
    }
    let long = "1,".repeat(CRON_BYTES_MAX) + " * * * *";
    assert!(Rhythm::cron(&long, None).is_err());
    let error = Rhythm::cron("@daily", Some("berlin")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`berlin` is no time zone; is it Europe/Berlin?"
    );
    let error = Rhythm::cron("@daily", Some("Mars")).unwrap_err();
    assert_eq!(error.to_string(), "`Mars` is no time zone");
    for every in [Duration::ZERO, Duration::from_millis(999), EVERY_MAX * 2] {
        assert_eq!(Rhythm::every(every, now).unwrap_err(), TimingError::Every);
    }
    let timing = |rhythm, jitter| Timing {
        schedule: ScheduleId::from_random([1; 16]),
        rhythm,
        jitter: Duration::from_secs(jitter),
    };
    let never = timing(cron("0 0 30 2 *", "UTC"), 0);
    assert!(matches!(
        never.check("0 0 30 2 *", now),
        Err(TimingError::Never { .. })
    ));
    let leap = timing(cron("0 0 29 2 *", "UTC"), 0);
    assert_eq!(leap.check("0 0 29 2 *", now), Ok(()));
    for (pattern, jitter, fits) in [
        ("* * * * *", 59, true),
        ("* * * * *", 60, false),
        ("0,10 * * * *", 599, true),
        ("0,10 * * * *", 600, false),
        ("@yearly", 86_400, true),
        ("@yearly", 86_401, false),
    ] {
        let timing = timing(cron(pattern, "UTC"), jitter);
        assert_eq!(
            timing.check(pattern, now).is_ok(),
            fits,
            "{pattern} {jitter}"
        );
    }
}

#[test]
fn a_jitter_is_the_same_for_the_same_tick_and_spreads_schedules() {
    let timing = |id: u8| Timing {
        schedule: ScheduleId::from_random([id; 16]),
        rhythm: cron("0 * * * *", "UTC"),
        jitter: Duration::from_secs(600),
    };
    let nominal = at("2026-11-27T10:00:00Z");
    let spread: Vec<i64> = (0..50)
        .map(|id| timing(id).fires_at(nominal).0 - nominal.0)
        .collect();
    assert!(
        spread.iter().all(|ms| (0..600_000).contains(ms)),
        "{spread:?}"
    );
    let early = spread.iter().filter(|ms| **ms < 300_000).count();
    assert!((10..40).contains(&early), "{spread:?}");
    assert_eq!(timing(7).fires_at(nominal), timing(7).fires_at(nominal));
    let (next, fires_at) = timing(7).next_after(UnixMs(nominal.0 - HOUR)).unwrap();
    assert_eq!((next, fires_at), (nominal, timing(7).fires_at(nominal)));
    let before = timing(7).due(UnixMs(nominal.0 - HOUR), UnixMs(fires_at.0 - 1));
    assert_eq!(before, Due::default());
    let after = timing(7).due(UnixMs(nominal.0 - HOUR), fires_at);
    assert_eq!(after.ticks, [nominal]);
}

#[test]
fn a_year_of_missed_ticks_is_bounded_and_counted() {
    let timing = |rhythm| Timing {
        schedule: ScheduleId::from_random([1; 16]),
        rhythm,
        jitter: Duration::ZERO,
    };
    let (from, now) = (at("2025-11-27T10:00:00Z"), at("2026-11-27T10:00:30Z"));
    let due = timing(cron("* * * * *", "UTC")).due(from, now);
    assert_eq!(due.ticks.len(), CATCH_UP_MAX);
    assert_eq!(due.ticks.last(), Some(&at("2026-11-27T10:00:00Z")));
    assert!(due.ticks.is_sorted());
    let older = due.older.unwrap();
    assert_eq!((older.count, older.and_more), (COUNTED_MAX, true));
    assert_eq!(older.until.0, due.ticks[0].0 - MINUTE);

    let every = Rhythm::every(Duration::from_secs(60), from).unwrap();
    let due = timing(every).due(from, now);
    let older = due.older.unwrap();
    assert_eq!((older.count, older.and_more), (365 * 24 * 60 - 100, false));

    let due = timing(cron("0 0 * * *", "UTC")).due(from, now);
    assert_eq!(due.older.unwrap().count, 265);
    assert!(!due.older.unwrap().and_more);
}

#[test]
fn of_many_times_a_day_each_tick_costs_one_look() {
    let minutes =
        "0,10,20,30,40,50 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23 * * *";
    let rhythm = cron(minutes, "Europe/Berlin");
    let Rhythm::Cron { crons, .. } = &rhythm else {
        panic!("{rhythm:?}");
    };
    assert_eq!(crons.len(), TIMES_OF_DAY_MAX);
    let now = at("2026-11-27T10:00:30Z");
    let mut back = rhythm.back_from(now);
    let found: Vec<UnixMs> = back.by_ref().take(1_000).collect();
    assert!(found.windows(2).all(|pair| pair[0] > pair[1]));
    assert_eq!(back.looks, TIMES_OF_DAY_MAX + found.len());
    let from = UnixMs(found[999].0 - 1);
    let mut ahead = ticks(&rhythm, from, now);
    ahead.reverse();
    assert_eq!(found, ahead);
}

#[test]
fn an_interval_counts_from_its_anchor_whenever_it_is_asked() {
    let anchor = UnixMs(1_234);
    let rhythm = Rhythm::every(Duration::from_secs(90), anchor).unwrap();
    assert_eq!(rhythm.next_after(UnixMs(0)), Some(UnixMs(91_234)));
    assert_eq!(rhythm.next_after(anchor), Some(UnixMs(91_234)));
    assert_eq!(rhythm.next_after(UnixMs(91_233)), Some(UnixMs(91_234)));
    assert_eq!(rhythm.next_after(UnixMs(91_234)), Some(UnixMs(181_234)));
    assert_eq!(rhythm.last_until(UnixMs(91_233)), None);
    assert_eq!(rhythm.last_until(UnixMs(100_000)), Some(UnixMs(91_234)));
    assert_eq!(rhythm.next_after(UnixMs(i64::MAX)), None);
}

#[test]
fn what_becomes_of_a_tick_is_what_its_schedule_says() {
    use CatchUp::{All, One};
    use Fate::{Launch, Queue, Replace};
    let missed = Fate::Skip(SkipWhy::Missed);
    let on_time = DueTick {
        is_newest: true,
        is_late: false,
        is_inherited: false,
    };
    let late = DueTick {
        is_late: true,
        ..on_time
    };
    let one_of_many = DueTick {
        is_newest: false,
        is_late: true,
        is_inherited: false,
    };
    // A round was slow, and two ticks of a short interval are due together.
    let young_of_many = DueTick {
        is_late: false,
        ..one_of_many
    };
    // A restart took so long.
    let left_of_many = DueTick {
        is_inherited: true,
        ..young_of_many
    };
    let left_alone = DueTick {
        is_inherited: true,
        ..on_time
    };
    let newest_of_many = DueTick {
        is_newest: true,
        is_late: false,
        ..one_of_many
    };
    let newest_left = DueTick {
        is_newest: true,
        ..left_of_many
    };
    let idle = Busy::default();
    let busy = Busy { runs: 1, queued: 0 };
    let waiting = Busy { runs: 0, queued: 1 };
    let full = Busy {
        runs: 1,
        queued: QUEUED_MAX,
    };
    for (overlap, catch_up, tick, state, expected) in [
        (Overlap::Skip, One, on_time, idle, Launch),
        (Overlap::Skip, One, late, idle, Launch),
        (Overlap::Skip, One, one_of_many, idle, missed),
        (Overlap::Skip, One, newest_of_many, idle, Launch),
        (Overlap::Allow, One, young_of_many, idle, Launch),
        (Overlap::Allow, One, young_of_many, busy, Launch),
        (Overlap::Queue, One, young_of_many, busy, Queue),
        (Overlap::Skip, One, left_of_many, idle, missed),
        (Overlap::Allow, All, left_of_many, busy, Launch),
        (Overlap::Skip, One, left_alone, idle, Launch),
        (Overlap::Allow, CatchUp::Skip, young_of_many, busy, Launch),
        (Overlap::Skip, CatchUp::Skip, left_of_many, idle, missed),
        (Overlap::Skip, CatchUp::Skip, left_alone, idle, Launch),
        (Overlap::Skip, CatchUp::Skip, on_time, idle, Launch),
        (Overlap::Skip, CatchUp::Skip, late, idle, missed),
        (Overlap::Skip, CatchUp::Skip, one_of_many, idle, missed),
        (Overlap::Skip, CatchUp::Skip, newest_of_many, idle, Launch),
        (Overlap::Skip, All, one_of_many, idle, Launch),
        (Overlap::Skip, All, one_of_many, busy, Queue),
        (Overlap::Skip, All, newest_left, waiting, Queue),
        (
            Overlap::Skip,
            All,
            young_of_many,
            busy,
            Fate::Skip(SkipWhy::Overlap),
        ),
        (
            Overlap::Skip,
            All,
            on_time,
            busy,
            Fate::Skip(SkipWhy::Overlap),
        ),
        (
            Overlap::Skip,
            One,
            on_time,
            busy,
            Fate::Skip(SkipWhy::Overlap),
        ),
        (Overlap::Allow, One, on_time, busy, Launch),
        (Overlap::Allow, All, one_of_many, busy, Launch),
        (Overlap::Queue, One, on_time, busy, Queue),
        (Overlap::Queue, One, on_time, waiting, Queue),
        (
            Overlap::Queue,
            One,
            on_time,
            full,
            Fate::Skip(SkipWhy::QueueFull),
        ),
        (Overlap::CancelPrevious, One, on_time, busy, Replace),
        (Overlap::CancelPrevious, One, on_time, idle, Launch),
    ] {
        let policy = Policy { overlap, catch_up };
        assert_eq!(
            fate(policy, tick, state),
            expected,
            "{policy:?} {tick:?} {state:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    /// However a stretch of time is cut into looks, the same ticks are found, each once.
    #[test]
    fn the_same_ticks_are_found_whenever_it_is_looked(
        pattern in prop::sample::select(vec!["30 2 * * *", "*/17 * * * *", "0 0,6 * * MON", "15 1-3 * * *", "0 3 L * *", "5,35 1,2,3 * * *"]),
        zone in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
        start_day in 0_i64..365,
        looks in prop::collection::vec(1_i64..30 * HOUR, 1..20),
    ) {
        let from = UnixMs(at("2026-01-01T00:00:00Z").0 + start_day * DAY);
        let timing = Timing {
            schedule: ScheduleId::from_random([1; 16]),
            rhythm: cron(pattern, zone),
            jitter: Duration::ZERO,
        };
        let (mut considered, mut now) = (from, from);
        let mut found: Vec<UnixMs> = Vec::new();
        for look in looks {
            now = UnixMs(now.0 + look);
            let due = timing.due(considered, now);
            prop_assert!(due.ticks.len() <= CATCH_UP_MAX);
            if due.older.is_none() {
                let expected = ticks(&timing.rhythm, considered, now);
                prop_assert_eq!(&due.ticks, &expected);
            }
            found.extend(&due.ticks);
            considered = due.ticks.last().copied().unwrap_or(considered);
        }
        prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
