//! Schedules: each tick decided once, with at most one run, whatever dies, and never without a word.

use sluice_api::{
    CATCH_UP_DEFAULT, OVERLAP_DEFAULT, RunFilter, Schedule, ScheduleCreate, ScheduleDetail,
    ScheduleTick, TickQuery,
};
use sluice_model::{
    CatchUp, Fence, Overlap, RunId, RunState, ScheduleName, TaskState, TickOutcome,
};

use super::*;
use crate::store::{RunStore as _, RunsOf, ScheduleStore as _, TaskEnd, TickRecord};

const HOUR: Duration = Duration::from_secs(3_600);

fn at(text: &str) -> UnixMs {
    serde_json::from_str(&format!("\"{text}\"")).unwrap()
}

fn batch(name: &str) -> String {
    format!(
        "name = \"{name}\"\nkind = \"batch\"\n[input.generate]\ncount = 1\ntemplate = \"x\"\n[output.discard]\n"
    )
}

fn create(name: &str) -> ScheduleCreate {
    ScheduleCreate {
        name: name.parse().unwrap(),
        job: "a".parse().unwrap(),
        cron: Some("0 * * * *".to_owned()),
        tz: None,
        every: None,
        overlap: OVERLAP_DEFAULT,
        catch_up: CATCH_UP_DEFAULT,
        jitter: None,
        params: BTreeMap::new(),
        nodes: Vec::new(),
    }
}

fn named(name: &str) -> ScheduleName {
    name.parse().unwrap()
}

/// The job `a`, and no edge: what is launched stays under way until somebody ends it.
fn world_at(text: &str) -> World {
    let mut world = World::new();
    world.now.unix = at(text);
    world.deploy(&batch("a"));
    world
}

impl World {
    fn schedule(&mut self, create: ScheduleCreate) -> Schedule {
        self.try_schedule(ApiCall::CreateSchedule(create)).unwrap()
    }

    fn try_schedule(&mut self, call: ApiCall) -> Result<Schedule, ErrorBody> {
        match self.call(call)? {
            Reply::Schedule(schedule) => Ok(*schedule),
            other => panic!("{other:?}"),
        }
    }

    fn described(&mut self, name: &str) -> ScheduleDetail {
        match self.call(ApiCall::Schedule(named(name))).unwrap() {
            Reply::ScheduleDetail(detail) => *detail,
            other => panic!("{other:?}"),
        }
    }

    /// The oldest first.
    fn ticks(&mut self, name: &str) -> Vec<ScheduleTick> {
        let query = TickQuery {
            limit: Some(1_000),
            cursor: None,
        };
        match self.call(ApiCall::Ticks(named(name), query)).unwrap() {
            Reply::Ticks(sluice_api::Page {
                items: mut ticks, ..
            }) => {
                ticks.reverse();
                ticks
            }
            other => panic!("{other:?}"),
        }
    }

    fn outcomes(&mut self, name: &str) -> Vec<TickOutcome> {
        self.ticks(name).iter().map(|tick| tick.outcome).collect()
    }

    /// What was launched by ticks, the oldest first.
    fn launches(&mut self) -> Vec<(ScheduleName, UnixMs, RunId)> {
        let runs = self.core.store_mut().runs(RunsOf::All, 100_000).unwrap();
        let ticks = runs.into_iter().rev();
        ticks
            .filter_map(|run| run.tick.map(|tick| (tick.name, tick.nominal, run.id)))
            .collect()
    }

    fn open_tasks(&mut self) -> usize {
        let open = self.core.store_mut().open_tasks().unwrap();
        usize::try_from(open).unwrap()
    }

    /// Every run under way ends well.
    fn end_runs(&mut self) {
        let now = self.now.unix;
        let store = self.core.store_mut();
        store.begin().unwrap();
        let end = TaskEnd {
            failures: 0,
            state: Some(TaskState::Completed),
            fail: None,
            reason: String::new(),
            at: now,
            not_before: now,
            refused: Default::default(),
            records_in: 0,
            records_out: 0,
        };
        for job in store.jobs(false).unwrap() {
            store.end_waiting_of_job(job.id, &end).unwrap();
        }
        store.commit().unwrap();
    }

    /// The process dies, and another one starts on what is on disk.
    fn die(mut self) -> Self {
        let store = self.core.store_mut().fork().unwrap();
        // Each process draws other ids.
        let mut next = u128::try_from(self.now.unix.0).unwrap() << 64;
        let random = Box::new(move || {
            next += 1;
            next.to_be_bytes()
        });
        let core = Core::start(store, config(), random, self.now).unwrap();
        Self { core, ..self }
    }
}

#[test]
fn a_tick_launches_a_run_that_names_it_and_nothing_launches_it_again() {
    let mut world = world_at("2026-05-04T10:30:00Z");
    let schedule = world.schedule(create("s"));
    assert_eq!(schedule.next_run_at, Some(at("2026-05-04T11:00:00Z")));
    assert!(schedule.enabled && schedule.last_run.is_none());
    world.pass(HOUR / 2 - Duration::from_millis(1));
    assert_eq!(world.launches(), []);
    world.pass(Duration::from_millis(1));
    let launches = world.launches();
    let [(_, nominal, run)] = launches.as_slice() else {
        panic!("{launches:?}");
    };
    assert_eq!(*nominal, at("2026-05-04T11:00:00Z"));
    let shown = match world.call(ApiCall::Run(*run)).unwrap() {
        Reply::Run(run) => run,
        other => panic!("{other:?}"),
    };
    assert_eq!(shown.schedule, Some(named("s")));
    assert_eq!(shown.scheduled_for, Some(*nominal));
    let detail = world.described("s");
    assert_eq!(
        detail.schedule.next_run_at,
        Some(at("2026-05-04T12:00:00Z"))
    );
    let last = detail.schedule.last_run.unwrap();
    assert_eq!((last.id, last.state), (*run, Some(RunState::Pending)));
    assert_eq!(detail.ticks[0].run, Some(*run));
    for _ in 0..5 {
        world.pass(Duration::from_secs(1));
    }
    let mut world = world.die();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.launches(), launches);
    let explain = match world.call(ApiCall::Explain("a".parse().unwrap())).unwrap() {
        Reply::Explain(explain) => explain.why,
        other => panic!("{other:?}"),
    };
    assert!(
        explain.contains("the schedule s launches it next at 2026-05-04T12:00"),
        "{explain}"
    );
}

#[test]
fn case_32_a_schedule_that_missed_six_ticks_launches_none_the_newest_or_each() {
    for (catch_up, expected) in [
        (CatchUp::Skip, &[][..]),
        (CatchUp::One, &["16:00"]),
        (
            CatchUp::All,
            &["11:00", "12:00", "13:00", "14:00", "15:00", "16:00"],
        ),
    ] {
        for overlap in [Overlap::Skip, Overlap::Allow, Overlap::Queue] {
            let mut world = world_at("2026-05-04T10:30:00Z");
            world.schedule(ScheduleCreate {
                catch_up,
                overlap,
                ..create("s")
            });
            // Nobody is there from 10:30 to 16:30.
            world.now.unix = world.now.unix.plus(HOUR * 6);
            let mut world = world.die();
            for _ in 0..8 {
                world.pass(Duration::from_secs(1));
                if overlap != Overlap::Allow {
                    assert!(world.open_tasks() <= 1, "one after the other");
                }
                world.end_runs();
            }
            let launched: Vec<String> = world
                .launches()
                .iter()
                .map(|(_, nominal, _)| nominal.to_string()[11..16].to_owned())
                .collect();
            assert_eq!(launched, expected, "{catch_up} {overlap}");
            let ticks = world.ticks("s");
            assert_eq!(ticks.len(), 6, "each is told: {ticks:?}");
            for tick in &ticks {
                let words = tick.why.as_deref().unwrap_or_default();
                match tick.outcome {
                    TickOutcome::Launched => assert_eq!(tick.state, Some(RunState::Completed)),
                    TickOutcome::Skipped => assert!(words.contains("it was missed"), "{words}"),
                    TickOutcome::Queued | TickOutcome::Refused => panic!("{tick:?}"),
                }
            }
            // The next one comes on time, and is no longer missed.
            let next = world.described("s").schedule.next_run_at.unwrap();
            assert_eq!(next, at("2026-05-04T17:00:00Z"));
            world.now.unix = next;
            world.pass(Duration::ZERO);
            assert_eq!(world.launches().len(), expected.len() + 1);
        }
    }
}

#[test]
fn ticks_that_come_faster_than_it_is_looked_are_not_missed() {
    for catch_up in [CatchUp::One, CatchUp::Skip, CatchUp::All] {
        for overlap in [Overlap::Skip, Overlap::Allow, Overlap::Queue] {
            let decided = |looks: u32| {
                let mut world = world_at("2026-05-04T10:30:00Z");
                world.schedule(ScheduleCreate {
                    cron: None,
                    every: Some("1s".to_owned()),
                    catch_up,
                    overlap,
                    ..create("s")
                });
                for _ in 0..looks {
                    world.pass(Duration::from_secs(3) / looks);
                }
                let ticks = world.ticks("s");
                assert_eq!(ticks.len(), 3);
                let missed = |tick: &&ScheduleTick| {
                    tick.why.as_ref().is_some_and(|why| why.contains("missed"))
                };
                assert_eq!(ticks.iter().find(missed), None);
                (world.outcomes("s"), world.launches().len())
            };
            assert_eq!(decided(1), decided(3), "{catch_up} {overlap}");
        }
    }
}

#[test]
fn case_32_a_restart_of_seconds_launches_one_of_the_ticks_that_it_missed() {
    for catch_up in [CatchUp::One, CatchUp::Skip] {
        // As it is, and with a clock that stood an hour ahead when the process began.
        for ahead in [Duration::ZERO, HOUR] {
            let mut world = world_at("2026-05-04T10:30:00Z");
            world.schedule(ScheduleCreate {
                cron: None,
                every: Some("1s".to_owned()),
                catch_up,
                overlap: Overlap::Allow,
                ..create("s")
            });
            let stopped = world.now.unix;
            world.now.unix = stopped.plus(ahead);
            let mut world = world.die();
            world.now.unix = stopped.plus(Duration::from_secs(6));
            world.pass(Duration::ZERO);
            let nominals: Vec<UnixMs> = world.launches().iter().map(|it| it.1).collect();
            assert_eq!(nominals, [world.now.unix], "{catch_up} {ahead:?}");
            assert_eq!(world.outcomes("s")[..5], [TickOutcome::Skipped; 5]);
            // From now on somebody is there.
            world.pass(Duration::from_secs(2));
            assert_eq!(world.launches().len(), 3, "{catch_up} {ahead:?}");
        }
    }
}

#[test]
fn case_32_a_year_of_missed_ticks_is_caught_up_with_in_bounded_steps() {
    let mut world = world_at("2026-05-04T10:30:00Z");
    world.schedule(ScheduleCreate {
        cron: Some("* * * * *".to_owned()),
        catch_up: CatchUp::All,
        overlap: Overlap::Allow,
        ..create("s")
    });
    world.now.unix = world.now.unix.plus(HOUR * 24 * 365);
    let mut world = world.die();
    let mut rounds = 0;
    let mut before = 0;
    loop {
        let outputs = world.pass(Duration::from_millis(1));
        let launched = world.launches().len();
        assert!(launched - before <= 16, "{launched} after {before}");
        if !outputs.iter().any(|it| matches!(it, Output::Again)) {
            break;
        }
        before = launched;
        rounds += 1;
    }
    assert!(rounds >= 6, "{rounds}");
    assert_eq!(world.launches().len(), 100);
    let ticks = world.ticks("s");
    assert_eq!(ticks.len(), 101);
    assert_eq!(ticks[0].outcome, TickOutcome::Skipped);
    assert_eq!(ticks[0].count, 1_000);
    assert!(ticks[0].why.as_ref().unwrap().contains("more than 1000 "));
}

#[test]
fn case_33_a_tick_launches_exactly_one_run_though_the_orchestrator_dies_at_any_write_of_it() {
    let mut faults = 0;
    for write in 0.. {
        let mut world = world_at("2026-05-04T10:59:59Z");
        world.schedule(create("s"));
        let hit = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (mut count, noted) = (0, std::sync::Arc::clone(&hit));
        world
            .core
            .store_mut()
            .set_fault_hook(Some(Box::new(move |point| {
                count += 1;
                if count > write {
                    noted.store(true, std::sync::atomic::Ordering::Relaxed);
                    return Err(StoreError::Injected { point });
                }
                Ok(())
            })));
        world.pass(Duration::from_secs(1));
        world.pass(Duration::from_secs(1));
        // What was committed is what there is; the successor decides the tick, or finds it decided.
        let mut world = world.die();
        for _ in 0..3 {
            world.pass(Duration::from_secs(1));
        }
        let launches = world.launches();
        assert_eq!(launches.len(), 1, "at write {write}: {launches:?}");
        assert_eq!(world.outcomes("s"), [TickOutcome::Launched]);
        let tasks = world.core.store_mut().tasks_of_run(launches[0].2).unwrap();
        assert_eq!(tasks.len(), 1, "at write {write}");
        if !hit.load(std::sync::atomic::Ordering::Relaxed) {
            break;
        }
        faults += 1;
    }
    assert!(faults > 20, "{faults} writes");
}

#[test]
fn case_33_of_two_orchestrators_one_decides_a_tick_and_a_late_one_changes_nothing() {
    let mut world = world_at("2026-05-04T10:30:00Z");
    let schedule = world.schedule(create("s"));
    let noon = at("2026-05-04T11:00:00Z");
    let until = noon.plus(Duration::from_secs(30));
    let store = world.core.store_mut();
    assert!(
        store
            .claim_schedule("early", UnixMs(noon.0 - 1), until)
            .unwrap()
            .is_none()
    );
    let old = store.claim_schedule("dead", noon, until).unwrap().unwrap();
    assert_eq!(old.fence, Fence(1));
    assert!(
        store
            .claim_schedule("second", noon, until)
            .unwrap()
            .is_none()
    );
    assert_eq!(store.next_schedule_at().unwrap(), Some(UnixMs(until.0 + 1)));
    let late = UnixMs(until.0 + 1);
    let new = store
        .claim_schedule("second", late, late.plus(HOUR))
        .unwrap()
        .unwrap();
    assert_eq!(new.fence, Fence(2));
    let tick = TickRecord {
        nominal: noon,
        outcome: TickOutcome::Skipped,
        run: None,
        why: None,
        count: 1,
        decided_at: late,
    };
    assert!(store.put_tick(schedule.id, &tick).unwrap());
    assert!(
        !store.put_tick(schedule.id, &tick).unwrap(),
        "it is decided"
    );
    assert!(
        !store.decide_queued(schedule.id, &tick).unwrap(),
        "and does not wait"
    );
    let next = Some((late, late));
    for (worker, fence, done) in [
        ("dead", old.fence, false),
        ("second", old.fence, false),
        ("second", new.fence, true),
        ("second", new.fence, false),
    ] {
        let finished = store.finish_schedule(schedule.id, worker, fence, noon, next);
        assert_eq!(finished.unwrap(), done, "{worker} {fence}");
    }
    // A claim ends with the process that held it.
    let claimed = store.claim_schedule("dead", late, late.plus(HOUR)).unwrap();
    assert!(claimed.is_some());
    let mut world = world.die();
    assert_eq!(world.described("s").schedule.claimed_by, None);
}

#[test]
fn a_clock_that_is_set_back_launches_no_tick_twice() {
    let mut world = world_at("2026-05-04T10:30:00Z");
    world.schedule(ScheduleCreate {
        overlap: Overlap::Allow,
        ..create("s")
    });
    world.now.unix = at("2026-05-04T11:00:00Z");
    world.pass(Duration::ZERO);
    world.now.unix = at("2026-05-04T10:20:00Z");
    for _ in 0..6 {
        world.pass(Duration::from_secs(600));
    }
    assert_eq!(world.launches().len(), 1, "eleven came twice");
    // A clock that was years off is followed back, and the key still holds.
    world.now.unix = at("2036-05-04T11:30:00Z");
    world.pass(Duration::ZERO);
    assert_eq!(world.launches().len(), 2);
    world.now.unix = at("2026-05-04T10:50:00Z");
    for _ in 0..8 {
        world.pass(Duration::from_secs(600));
    }
    let hours: Vec<String> = world
        .launches()
        .iter()
        .map(|(_, nominal, _)| nominal.to_string()[..13].to_owned())
        .collect();
    assert_eq!(hours, ["2026-05-04T11", "2036-05-04T11", "2026-05-04T12"]);
}

#[test]
fn what_overlaps_is_launched_skipped_queued_or_takes_the_place_as_the_schedule_says() {
    use TickOutcome::{Launched, Queued, Skipped};
    for (overlap, expected) in [
        (Overlap::Allow, [Launched, Launched, Launched]),
        (Overlap::Skip, [Launched, Skipped, Skipped]),
        (Overlap::Queue, [Launched, Queued, Queued]),
        (Overlap::CancelPrevious, [Launched, Launched, Launched]),
    ] {
        let mut world = world_at("2026-05-04T10:00:01Z");
        world.schedule(ScheduleCreate {
            overlap,
            ..create("s")
        });
        for hour in ["11", "12", "13"] {
            world.now.unix = at(&format!("2026-05-04T{hour}:00:00Z"));
            world.pass(Duration::ZERO);
        }
        assert_eq!(world.outcomes("s"), expected, "{overlap}");
        let ticks = world.ticks("s");
        let state = |tick: &ScheduleTick| tick.state;
        match overlap {
            Overlap::Allow => {
                assert!(ticks.iter().all(|it| state(it) == Some(RunState::Pending)));
            }
            Overlap::Skip => {
                let why = ticks[2].why.clone().unwrap();
                assert!(why.contains(&ticks[0].run.unwrap().to_string()), "{why}");
                world.end_runs();
                world.now.unix = at("2026-05-04T14:00:00Z");
                world.pass(Duration::ZERO);
                assert_eq!(world.outcomes("s")[3], Launched);
            }
            Overlap::Queue => {
                assert_eq!(world.described("s").schedule.queued, 2);
                world.end_runs();
                world.pass(Duration::from_secs(1));
                assert_eq!(world.outcomes("s"), [Launched, Launched, Queued]);
                world.pass(Duration::from_secs(1));
                assert_eq!(world.outcomes("s"), [Launched, Launched, Queued]);
                // A tick that waits outlives the process.
                let mut world = world.die();
                world.end_runs();
                world.pass(Duration::from_secs(1));
                assert_eq!(world.outcomes("s"), [Launched; 3]);
            }
            Overlap::CancelPrevious => {
                let states: Vec<_> = ticks.iter().map(state).collect();
                let cancelled = Some(RunState::Cancelled);
                assert_eq!(states, [cancelled, cancelled, Some(RunState::Pending)]);
                let why = ticks[1].why.clone().unwrap();
                assert!(why.contains("called off run"), "{why}");
            }
        }
    }
}

#[test]
fn a_launch_that_is_refused_is_told_in_the_history() {
    let mut world = world_at("2026-05-04T10:30:00Z");
    world.schedule(create("s"));
    world
        .call(ApiCall::DeleteJob("a".parse().unwrap()))
        .unwrap();
    world.now.unix = at("2026-05-04T11:00:00Z");
    world.pass(Duration::ZERO);
    world.deploy(&batch("a"));
    world.call(ApiCall::StopJob("a".parse().unwrap())).unwrap();
    world.now.unix = at("2026-05-04T12:00:00Z");
    world.pass(Duration::ZERO);
    let needs = "[params]\nday = { type = \"string\" }\n[input.generate]";
    world.deploy(&batch("a").replace("[input.generate]", needs));
    world.now.unix = at("2026-05-04T13:00:00Z");
    world.pass(Duration::ZERO);
    world.deploy(&batch("a"));
    world.now.unix = at("2026-05-04T14:00:00Z");
    world.pass(Duration::ZERO);
    let ticks = world.ticks("s");
    for (tick, words) in ticks
        .iter()
        .zip(["no job a", "a is stopped", "the parameter `day`"])
    {
        assert_eq!(tick.outcome, TickOutcome::Refused);
        let why = tick.why.as_ref().unwrap();
        assert!(why.contains(words), "{why}");
    }
    assert_eq!(ticks[3].outcome, TickOutcome::Launched, "the name counts");
    assert_eq!(world.launches().len(), 1);
}

#[test]
fn a_paused_schedule_has_no_ticks_and_goes_on_from_where_it_is_resumed() {
    let mut world = world_at("2026-05-04T10:30:00Z");
    world.schedule(ScheduleCreate {
        overlap: Overlap::Queue,
        catch_up: CatchUp::All,
        ..create("s")
    });
    for hour in ["11", "12"] {
        world.now.unix = at(&format!("2026-05-04T{hour}:00:00Z"));
        world.pass(Duration::ZERO);
    }
    let paused = world
        .try_schedule(ApiCall::PauseSchedule(named("s")))
        .unwrap();
    assert!(!paused.enabled && paused.next_run_at.is_none());
    world.end_runs();
    world.now.unix = at("2026-05-04T15:30:00Z");
    world.pass(Duration::ZERO);
    let expected = [TickOutcome::Launched, TickOutcome::Skipped];
    assert_eq!(world.outcomes("s"), expected);
    assert!(world.ticks("s")[1].why.as_ref().unwrap().contains("paused"));
    let resumed = world
        .try_schedule(ApiCall::ResumeSchedule(named("s")))
        .unwrap();
    assert_eq!(resumed.next_run_at, Some(at("2026-05-04T16:00:00Z")));
    world.pass(Duration::from_secs(1));
    assert_eq!(
        world.outcomes("s"),
        expected,
        "what was paused is not missed"
    );
    world.now.unix = at("2026-05-04T16:00:00Z");
    world.pass(Duration::ZERO);
    assert_eq!(world.outcomes("s")[2], TickOutcome::Launched);
    let deleted = world
        .try_schedule(ApiCall::DeleteSchedule(named("s")))
        .unwrap();
    assert!(deleted.last_run.is_some());
    assert_eq!(world.launches().len(), 2, "its runs stay, and name it");
    let gone = world.call(ApiCall::Schedule(named("s"))).unwrap_err();
    assert_eq!(gone.code, ErrorCode::NotFound);
}

#[test]
fn a_schedule_is_checked_whole_before_it_is_kept() {
    let mut world = world_at("2026-05-04T10:30:00Z");
    world.deploy(PIPELINE.replace("\"a\"", "\"d\"").as_str());
    let wrong = |change: fn(&mut ScheduleCreate)| {
        let mut wrong = create("s");
        change(&mut wrong);
        wrong
    };
    for (create, code, words) in [
        (
            wrong(|it| it.cron = Some("61 * * * *".into())),
            ErrorCode::Invalid,
            "`61 * * * *`",
        ),
        (
            wrong(|it| it.cron = Some("0 0 31 2 *".into())),
            ErrorCode::Invalid,
            "never happens",
        ),
        (
            wrong(|it| it.tz = Some("Berlin".into())),
            ErrorCode::Invalid,
            "is it Europe/Berlin?",
        ),
        (
            wrong(|it| it.every = Some("1h".into())),
            ErrorCode::Invalid,
            "one of both",
        ),
        (
            wrong(|it| it.cron = None),
            ErrorCode::Invalid,
            "one of both",
        ),
        (
            wrong(|it| it.jitter = Some("1h".into())),
            ErrorCode::Invalid,
            "a jitter is shorter",
        ),
        (
            wrong(|it| it.jitter = Some("soon".into())),
            ErrorCode::Invalid,
            "soon",
        ),
        (
            wrong(|it| it.job = "x".parse().unwrap()),
            ErrorCode::NotFound,
            "no job x",
        ),
        (
            wrong(|it| it.job = "d".parse().unwrap()),
            ErrorCode::Conflict,
            "no batch job",
        ),
        (
            wrong(|it| it.nodes = vec!["n".parse().unwrap()]),
            ErrorCode::NotFound,
            "no node n",
        ),
        (
            wrong(|it| it.params = BTreeMap::from([("k".to_owned(), "v".to_owned())])),
            ErrorCode::Invalid,
            "its parameters",
        ),
        (
            wrong(|it| {
                it.catch_up = CatchUp::All;
                it.overlap = Overlap::CancelPrevious;
            }),
            ErrorCode::Invalid,
            "contradict",
        ),
        (
            wrong(|it| (it.cron, it.every) = (None, Some("500ms".into()))),
            ErrorCode::Invalid,
            "from 1s",
        ),
    ] {
        let error = world.call(ApiCall::CreateSchedule(create)).unwrap_err();
        assert_eq!(error.code, code, "{error:?}");
        assert!(error.message.contains(words), "{error:?}");
        assert!(error.help.is_some(), "{error:?}");
    }
    let none = world.call(ApiCall::Schedules(Default::default())).unwrap();
    assert!(matches!(none, Reply::Schedules(list) if list.items.is_empty()));
    world.schedule(create("s"));
    let again = world
        .call(ApiCall::CreateSchedule(create("s")))
        .unwrap_err();
    assert_eq!(again.code, ErrorCode::Conflict);
}

#[test]
fn a_history_is_bounded_and_forgets_no_run_that_is_under_way() {
    let mut world = world_at("2026-05-04T10:30:00Z");
    world.schedule(ScheduleCreate {
        cron: None,
        every: Some("1s".to_owned()),
        ..create("s")
    });
    for _ in 0..1_050 {
        world.pass(Duration::from_secs(1));
    }
    let id = world.described("s").schedule.id;
    let ticks = world.core.store_mut().ticks(id, 10_000).unwrap();
    assert_eq!(ticks.len(), 1_001, "the newest, and the one with a run");
    assert_eq!(ticks.last().unwrap().outcome, TickOutcome::Launched);
    assert_eq!(
        world.launches().len(),
        1,
        "it is still known to be under way"
    );
    world.end_runs();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.launches().len(), 2);
}

/// Minutes since the epoch at which a time of day is first reached or passed on each day of a local clock, between two
/// minutes. Computed from offsets alone.
fn once_a_day(minutes: std::ops::Range<i64>, offset: fn(i64) -> i64, time: i64) -> Vec<i64> {
    let mut fired_on = i64::MIN;
    minutes
        .filter(|minute| {
            let local = minute + offset(*minute);
            let (day, of_day) = (local.div_euclid(1_440), local.rem_euclid(1_440));
            let fires = of_day >= time && day > fired_on;
            if fires {
                fired_on = day;
            }
            fires
        })
        .collect()
}

fn minute(text: &str) -> i64 {
    at(text).0 / 60_000
}

/// The European Union's rule for 2026 and 2027.
fn berlin(at: i64) -> i64 {
    let summer = minute("2026-03-29T01:00:00Z")..minute("2026-10-25T01:00:00Z");
    if summer.contains(&at) { 120 } else { 60 }
}

/// The United States' rule for 2026 and 2027.
fn new_york(at: i64) -> i64 {
    let summer = minute("2026-03-08T07:00:00Z")..minute("2026-11-01T06:00:00Z");
    if summer.contains(&at) { -240 } else { -300 }
}

#[test]
fn case_33_a_year_of_crons_over_both_changes_of_the_clock_has_exactly_its_ticks_whoever_dies() {
    let mut world = world_at("2026-01-01T12:00:00Z");
    let cron = |name: &str, cron: &str, tz: &str| ScheduleCreate {
        cron: Some(cron.to_owned()),
        tz: Some(tz.to_owned()),
        catch_up: CatchUp::All,
        overlap: Overlap::Allow,
        ..create(name)
    };
    for create in [
        cron("berlin", "30 2 * * *", "Europe/Berlin"),
        cron("hourly", "0 * * * *", "Europe/Berlin"),
        cron("york-gap", "30 2 * * *", "America/New_York"),
        cron("york-fold", "30 1 * * *", "America/New_York"),
    ] {
        world.schedule(create);
    }
    // xorshift: the same year in every run.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let end = at("2027-01-01T12:00:00Z");
    let mut deaths = 0;
    while world.now.unix < end {
        let left = Duration::from_millis(u64::try_from(end.0 - world.now.unix.0).unwrap());
        let step = Duration::from_secs(1 + random(21_600)).min(left);
        if random(25) == 0 {
            // It dies at some write of whatever this step has it do.
            let mut writes = random(60);
            world
                .core
                .store_mut()
                .set_fault_hook(Some(Box::new(move |point| {
                    writes = writes.saturating_sub(1);
                    match writes {
                        0 => Err(StoreError::Injected { point }),
                        _ => Ok(()),
                    }
                })));
            world.pass(step);
            world = world.die();
            deaths += 1;
        } else {
            world.pass(step);
        }
        world.end_runs();
    }
    world.pass(Duration::ZERO);
    assert!(deaths > 60, "{deaths}");
    let year = minute("2026-01-01T12:01:00Z")..minute("2027-01-01T12:01:00Z");
    let expected = [
        ("berlin", once_a_day(year.clone(), berlin, 150)),
        (
            "hourly",
            year.clone().filter(|minute| minute % 60 == 0).collect(),
        ),
        ("york-gap", once_a_day(year.clone(), new_york, 150)),
        ("york-fold", once_a_day(year.clone(), new_york, 90)),
    ];
    let launches = world.launches();
    for (name, mut expected) in expected {
        if name != "hourly" {
            // The first day's time was over when it was created; the filter takes the first minute for it.
            expected.remove(0);
        }
        let found: Vec<i64> = launches
            .iter()
            .filter(|(of, ..)| of.as_str() == name)
            .map(|(_, nominal, _)| nominal.0 / 60_000)
            .collect();
        assert_eq!(found, expected, "{name}");
        assert_eq!(found.len(), if name == "hourly" { 8_760 } else { 365 });
    }
    let runs = world.call(ApiCall::Runs(RunFilter {
        limit: Some(1),
        ..RunFilter::default()
    }));
    assert!(runs.is_ok());
}

#[test]
fn schedules_and_their_ticks_come_in_pages_each_once() {
    let mut world = world_at("2026-03-01T00:30:00Z");
    for n in 0..5 {
        world.schedule(create(&format!("s{n}")));
    }
    let mut names = Vec::new();
    let mut filter = sluice_api::ScheduleFilter {
        limit: Some(2),
        ..Default::default()
    };
    loop {
        let page = match world.call(ApiCall::Schedules(filter.clone())).unwrap() {
            Reply::Schedules(page) => page,
            other => panic!("{other:?}"),
        };
        assert!(page.items.len() <= 2);
        names.extend(page.items.into_iter().map(|it| it.name.to_string()));
        filter.cursor = page.next;
        if filter.cursor.is_none() {
            break;
        }
    }
    assert_eq!(names, ["s0", "s1", "s2", "s3", "s4"]);

    for _ in 0..5 {
        world.pass(HOUR);
    }
    let all = world.ticks("s0");
    assert_eq!(all.len(), 5);
    let mut read = Vec::new();
    let mut query = TickQuery {
        limit: Some(2),
        cursor: None,
    };
    loop {
        let call = ApiCall::Ticks(named("s0"), query.clone());
        let page = match world.call(call).unwrap() {
            Reply::Ticks(page) => page,
            other => panic!("{other:?}"),
        };
        read.extend(page.items);
        query.cursor = page.next;
        if query.cursor.is_none() {
            break;
        }
    }
    read.reverse();
    assert_eq!(read, all);
    // Where their runs stand is known without reading each task.
    world
        .core
        .store_mut()
        .set_fault_hook(Some(Box::new(|point| {
            assert_ne!(point, "list a run's tasks");
            Ok(())
        })));
    for call in [
        ApiCall::Schedules(Default::default()),
        ApiCall::Ticks(named("s0"), TickQuery::default()),
    ] {
        world.call(call).unwrap();
    }
    world.core.store_mut().set_fault_hook(None);
    assert!(
        all.iter()
            .all(|tick| tick.run.is_none() == tick.state.is_none())
    );
    assert!(all.iter().any(|tick| tick.run.is_some()));
    for limit in [0, 1_001] {
        let query = TickQuery {
            limit: Some(limit),
            cursor: None,
        };
        let refused = world.call(ApiCall::Ticks(named("s0"), query)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Invalid);
    }
    let query = TickQuery {
        limit: None,
        cursor: Some(sluice_api::Cursor::of(&["x"])),
    };
    let refused = world.call(ApiCall::Ticks(named("s0"), query)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Invalid);
}

#[test]
fn case_43_a_tick_that_is_due_while_the_disk_is_full_is_decided_when_there_is_room() {
    let minutes = Duration::from_secs(300);
    for (catch_up, full_for, expected) in [
        (CatchUp::One, Duration::from_secs(2), TickOutcome::Launched),
        (CatchUp::One, minutes, TickOutcome::Launched),
        (CatchUp::Skip, Duration::from_secs(2), TickOutcome::Launched),
        (CatchUp::Skip, minutes, TickOutcome::Skipped),
    ] {
        let mut world = world_at("2026-05-04T10:59:59Z");
        world.schedule(ScheduleCreate {
            catch_up,
            ..create("s")
        });
        let full = |point: &'static str| match point {
            "commit" => Err(StoreError::Full),
            _ => Ok(()),
        };
        world.core.store_mut().set_fault_hook(Some(Box::new(full)));
        for _ in 0..5 {
            world.pass(Duration::from_secs(1));
        }
        world.pass(full_for);
        assert_eq!(world.launches(), [], "nothing is written");
        assert_eq!(world.outcomes("s"), []);
        world.core.store_mut().set_fault_hook(None);
        for _ in 0..3 {
            world.pass(Duration::from_secs(1));
        }
        assert_eq!(world.outcomes("s"), [expected], "{catch_up} {full_for:?}");
        let launched = usize::from(expected == TickOutcome::Launched);
        assert_eq!(world.launches().len(), launched);
    }
}
