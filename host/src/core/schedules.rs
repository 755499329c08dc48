//! Schedules: looked at when a tick is due, and each tick decided with its run in one transaction.
//!
//! ```text
//!   due ── claim (lease, fence) ── each tick: row keyed by (schedule, nominal time) + run ── claim ends
//!   tick that waits ── no run of its schedule under way ── row changes + run
//! ```
//!
//! Schedules follow the wall clock, as people do. A clock that is set back finds its ticks decided: what was considered
//! stays considered, and a tick has one row. Which ticks there are and what becomes of each is decided in
//! `sluice_scheduler`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_api::{ErrorBody, ErrorCode, RunLaunch, SCHEDULES_MAX, ScheduleCreate, TICKS_KEPT};
use sluice_model::pipeline::parse_duration;
use sluice_model::{CatchUp, Digest, Fence, Overlap, RunId, ScheduleId, TickOutcome, UnixMs};
use sluice_scheduler::{
    Busy, CATCH_UP_MAX, DueTick, Fate, LATE_AFTER, Policy, QUEUED_MAX, Rhythm, SkipWhy, Timing,
    TimingError, fate,
};
use tracing::{info, warn};

use super::operator::{Called, Reply};
use super::runs::{Asked, distinct};
use super::{Core, Handled, LEASE, Output, Step};
use crate::store::{RunRecord, ScheduleRecord, Store, StoreError, TaskRecord, TickOf, TickRecord};

mod view;

/// Schedules evaluated in one transaction: keeps what is due at midnight from delaying acks.
const EVALUATED_MAX: usize = 16;

/// Runs that schedules launch in one transaction; more follow in the next ones.
const LAUNCHES_MAX: usize = 16;

/// A clock that stands further than this before the last tick was wrong then: schedules go on from what it says now.
/// A smaller step back is waited out.
const CLOCK_BACK_MAX: Duration = Duration::from_secs(3_600);

/// What memory knows of schedules, so that a tick of the core without one of theirs reads nothing.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// When the next one can be claimed; `None`: to be looked up.
    next: Option<UnixMs>,
    /// Ticks may wait for a run's end.
    has_queue: bool,
    /// It was looked up whether they do.
    was_looked_at: bool,
    /// Time passed since they were looked at.
    queue_due: bool,
}

impl Watched {
    /// Something changed: look again.
    pub(super) fn look(&mut self) {
        *self = Self::default();
    }
}

impl<S: Store> Core<S> {
    /// Creates a schedule: everything about it is checked as its first launch would be.
    pub(super) fn create_schedule(
        &mut self,
        create: &ScheduleCreate,
        now: UnixMs,
    ) -> Result<Called, StoreError> {
        let conflict = |message: String, help: String| {
            Ok(Err(
                ErrorBody::new(ErrorCode::Conflict, message).with_help(help)
            ))
        };
        let name = &create.name;
        if self.store.schedule(name)?.is_some() {
            return conflict(
                format!("there is a schedule {name} already"),
                format!("choose another name, or `sluice schedule delete {name}` first"),
            );
        }
        if self.store.schedules()?.len() >= SCHEDULES_MAX {
            return conflict(
                format!("there are {SCHEDULES_MAX} schedules, and no more are kept"),
                "delete those that nobody needs: `sluice schedule list` shows them".to_owned(),
            );
        }
        let id = ScheduleId::from_random((self.random)());
        let timing = match timing_of_create(create, id, now) {
            Ok(timing) => timing,
            Err(wrong) => return Ok(Err(wrong)),
        };
        let launch = RunLaunch {
            jobs: vec![create.job.clone()],
            params: create.params.clone(),
            nodes: create.nodes.clone(),
            stdin: None,
        };
        let asked = Asked {
            launch: &launch,
            stdin: None,
        };
        if let Err(refused) = self.prepare_launch(asked, None, Digest::of(b""), None, now)? {
            let message = format!("the schedule could not launch its job: {}", refused.message);
            return Ok(Err(ErrorBody { message, ..refused }));
        }
        let record = ScheduleRecord {
            id,
            name: name.clone(),
            job: create.job.clone(),
            cron: create.cron.clone(),
            tz: create
                .cron
                .as_ref()
                .map(|_| zone_name(create.tz.as_deref())),
            every: create.every.clone(),
            overlap: create.overlap,
            catch_up: create.catch_up,
            jitter: create.jitter.clone(),
            params: create.params.clone(),
            nodes: distinct(&create.nodes).into_iter().cloned().collect(),
            enabled: true,
            created_at: now,
            considered: now,
            next: timing.next_after(now),
            fence: Fence::ZERO,
            claimed_by: None,
            claimed_until: None,
        };
        self.store.insert_schedule(&record)?;
        self.schedules.look();
        info!(event = "schedule.create", schedule = %name, job = %record.job);
        Ok(Ok(Reply::Schedule(Box::new(self.show_schedule(&record)?))))
    }

    /// Pauses a schedule: its ticks are none until it is resumed, and those that wait are skipped.
    pub(super) fn pause_schedule(
        &mut self,
        name: &sluice_model::ScheduleName,
        now: UnixMs,
    ) -> Result<Called, StoreError> {
        let Some(record) = self.store.schedule(name)? else {
            return Ok(Err(view::no_schedule(name)));
        };
        if record.enabled {
            for nominal in self.store.queued_ticks(record.id)? {
                let why = "the schedule was paused while it waited".to_owned();
                let tick = decided(nominal, TickOutcome::Skipped, Some(why), now);
                self.store.decide_queued(record.id, &tick)?;
            }
            self.store
                .set_schedule(record.id, false, record.considered, None)?;
            self.schedules.look();
            info!(event = "schedule.pause", schedule = %name);
        }
        self.schedule_as_it_is(name)
    }

    /// Resumes a schedule from now on.
    pub(super) fn resume_schedule(
        &mut self,
        name: &sluice_model::ScheduleName,
        now: UnixMs,
    ) -> Result<Called, StoreError> {
        let Some(record) = self.store.schedule(name)? else {
            return Ok(Err(view::no_schedule(name)));
        };
        if !record.enabled {
            let timing = match timing_of(&record) {
                Ok(timing) => timing,
                Err(wrong) => return Ok(Err(invalid(&wrong))),
            };
            let considered = record.considered.max(now);
            let next = timing.next_after(considered);
            self.store.set_schedule(record.id, true, considered, next)?;
            self.schedules.look();
            info!(event = "schedule.resume", schedule = %name);
        }
        self.schedule_as_it_is(name)
    }

    /// Forgets a schedule; its runs go on, and name it.
    pub(super) fn delete_schedule(
        &mut self,
        name: &sluice_model::ScheduleName,
    ) -> Result<Called, StoreError> {
        let Some(record) = self.store.schedule(name)? else {
            return Ok(Err(view::no_schedule(name)));
        };
        let shown = self.show_schedule(&record)?;
        self.store.delete_schedule(record.id)?;
        self.schedules.look();
        info!(event = "schedule.delete", schedule = %name);
        Ok(Ok(Reply::Schedule(Box::new(shown))))
    }

    /// Decides every tick that is due, as many as one transaction has room for.
    pub(super) fn evaluate_schedules(&mut self, step: &mut Step) -> Result<(), StoreError> {
        let now = step.now.unix;
        // What is decided is written: on a full disk it waits.
        if self.full {
            return Ok(());
        }
        self.launch_queued(step)?;
        if self.schedules.next.is_some_and(|next| next > now) {
            return Ok(());
        }
        let (mut evaluated, mut launched) = (0, 0);
        while evaluated < EVALUATED_MAX && launched < LAUNCHES_MAX {
            let mut claimed = None;
            self.guarded(step, None, None, |core, step| {
                let (now, until) = (step.now.unix, step.now.unix.plus(LEASE));
                claimed = core.store.claim_schedule(&core.config.worker, now, until)?;
                Ok(Handled::Keep)
            })?;
            let Some(record) = claimed else { break };
            // One that fails keeps its claim, so that it is tried again after the lease and holds up no other.
            self.guarded(step, None, None, |core, step| {
                core.evaluate_schedule(&record, &mut launched, step)
            })?;
            evaluated += 1;
        }
        if evaluated == EVALUATED_MAX || launched >= LAUNCHES_MAX {
            step.out.push(Output::Again);
        }
        let mut next = None;
        self.guarded(step, None, None, |core, _| {
            next = Some(core.store.next_schedule_at()?.unwrap_or(UnixMs(i64::MAX)));
            Ok(Handled::Keep)
        })?;
        self.schedules.next = next;
        Ok(())
    }

    /// Decides a claimed schedule's ticks, as long as the round may launch more.
    fn evaluate_schedule(
        &mut self,
        record: &ScheduleRecord,
        launched: &mut usize,
        step: &mut Step,
    ) -> Result<Handled, StoreError> {
        let now = step.now.unix;
        let worker = self.config.worker.clone();
        let timing = match timing_of(record) {
            Ok(timing) => timing,
            Err(wrong) => {
                // An older program took it. It says so instead of ticking.
                warn!(event = "schedule.unreadable", schedule = %record.name, %wrong);
                let nominal = record.next.map_or(now, |(nominal, _)| nominal);
                let why = format!("this program cannot read it any more: {wrong}; create it anew");
                let tick = decided(nominal, TickOutcome::Refused, Some(why), now);
                self.store.put_tick(record.id, &tick)?;
                let done =
                    self.store
                        .finish_schedule(record.id, &worker, record.fence, nominal, None)?;
                return Ok(if done { Handled::Keep } else { Handled::Undo });
            }
        };
        let due = timing.due(record.considered, now);
        let mut considered = record.considered;
        if let Some(older) = due.older {
            let many = if older.and_more { "more than " } else { "" };
            let tick = TickRecord {
                count: older.count,
                ..decided(
                    older.until,
                    TickOutcome::Skipped,
                    Some(format!(
                        "{many}{} ticks were missed that are older than the newest {CATCH_UP_MAX}",
                        older.count
                    )),
                    now,
                )
            };
            if self.store.put_tick(record.id, &tick)? {
                self.note_tick(record, &tick);
            }
            considered = older.until;
        }
        for nominal in &due.ticks {
            if *launched >= LAUNCHES_MAX {
                break;
            }
            let late = now.0.saturating_sub(timing.fires_at(*nominal).0);
            let late = Duration::from_millis(u64::try_from(late).unwrap_or(0));
            let tick = DueTick {
                is_newest: due.ticks.last() == Some(nominal),
                is_late: late > LATE_AFTER,
                // By how long this life lasts, not by when it began: a clock that was wrong then is no reason.
                is_inherited: late > step.now.mono.since(self.born.mono),
            };
            *launched += usize::from(self.decide_tick(record, *nominal, tick, step)?);
            considered = *nominal;
        }
        let next = timing.next_after(considered);
        if !self
            .store
            .finish_schedule(record.id, &worker, record.fence, considered, next)?
        {
            // It was paused, deleted or taken over: whoever did that decides.
            return Ok(Handled::Undo);
        }
        self.store.trim_ticks(record.id, TICKS_KEPT)?;
        Ok(Handled::Keep)
    }

    /// Decides one tick; whether it launched a run.
    fn decide_tick(
        &mut self,
        record: &ScheduleRecord,
        nominal: UnixMs,
        tick: DueTick,
        step: &mut Step,
    ) -> Result<bool, StoreError> {
        let now = step.now.unix;
        let runs = self.store.open_runs(record.id)?;
        let busy = Busy {
            runs: runs.len(),
            queued: self.store.queued_ticks(record.id)?.len(),
        };
        let policy = Policy {
            overlap: record.overlap,
            catch_up: record.catch_up,
        };
        let fate = fate(policy, tick, busy);
        let (outcome, why) = match fate {
            Fate::Launch => return self.launch_tick(record, nominal, &[], Ticked::Now, step),
            Fate::Replace => return self.launch_tick(record, nominal, &runs, Ticked::Now, step),
            Fate::Queue => {
                self.schedules.has_queue = true;
                (TickOutcome::Queued, waits_for(&runs))
            }
            Fate::Skip(why) => (TickOutcome::Skipped, words_of(why, record, &runs)),
        };
        let tick = decided(nominal, outcome, Some(why), now);
        if self.store.put_tick(record.id, &tick)? {
            self.note_tick(record, &tick);
        }
        Ok(false)
    }

    /// Launches a tick's run, or records why not; whether it did. A tick that was decided before stays as it is.
    fn launch_tick(
        &mut self,
        record: &ScheduleRecord,
        nominal: UnixMs,
        replaced: &[RunId],
        ticked: Ticked,
        step: &mut Step,
    ) -> Result<bool, StoreError> {
        let now = step.now.unix;
        let launch = RunLaunch {
            jobs: vec![record.job.clone()],
            params: record.params.clone(),
            nodes: record.nodes.clone(),
            stdin: None,
        };
        let of = TickOf {
            schedule: record.id,
            name: record.name.clone(),
            nominal,
        };
        // A clock that was ahead can have launched it, so long ago that the tick is forgotten; the run is not.
        if let Some(run) = self.store.run_of_tick(record.id, nominal)? {
            let tick = TickRecord {
                run: Some(run),
                ..decided(nominal, TickOutcome::Launched, None, now)
            };
            if self.write_tick(record, &tick, ticked)? {
                self.note_tick(record, &tick);
            }
            return Ok(false);
        }
        let request = Digest::of(&serde_json::to_vec(&launch).expect("a launch is always JSON"));
        let mut tick = decided(nominal, TickOutcome::Launched, None, now);
        let asked = Asked {
            launch: &launch,
            stdin: None,
        };
        let prepared: Option<(RunRecord, Vec<TaskRecord>)> =
            match self.prepare_launch(asked, None, request, Some(of), now)? {
                Ok(prepared) => Some(prepared),
                Err(refused) => {
                    tick.outcome = TickOutcome::Refused;
                    tick.why = Some(match refused.detail {
                        Some(detail) => format!("{}: {detail}", refused.message),
                        None => refused.message,
                    });
                    None
                }
            };
        if let Some((run, _)) = &prepared {
            tick.run = Some(run.id);
            tick.why = (!replaced.is_empty()).then(|| format!("called off {}", ids(replaced)));
        }
        if !self.write_tick(record, &tick, ticked)? {
            return Ok(false);
        }
        self.note_tick(record, &tick);
        let Some((run, tasks)) = prepared else {
            return Ok(false);
        };
        for old in replaced {
            let reason = format!("the schedule {} launched the next run", record.name);
            self.call_run_off(*old, &reason, step)?;
        }
        self.keep_run(&run, &tasks)?;
        Ok(true)
    }

    /// Whether it was still to be decided.
    fn write_tick(
        &mut self,
        record: &ScheduleRecord,
        tick: &TickRecord,
        ticked: Ticked,
    ) -> Result<bool, StoreError> {
        match ticked {
            Ticked::Now => self.store.put_tick(record.id, tick),
            Ticked::Before => self.store.decide_queued(record.id, tick),
        }
    }

    fn note_tick(&self, record: &ScheduleRecord, tick: &TickRecord) {
        let ticks = match tick.outcome {
            TickOutcome::Launched => &self.tally.ticks_launched,
            TickOutcome::Queued => &self.tally.ticks_queued,
            TickOutcome::Skipped => &self.tally.ticks_skipped,
            TickOutcome::Refused => &self.tally.ticks_refused,
        };
        ticks.fetch_add(tick.count, Ordering::Relaxed);
        info!(
            event = "schedule.tick",
            schedule = %record.name,
            scheduled_for = %tick.nominal,
            outcome = tick.outcome.as_str(),
            count = tick.count,
            run = tick.run.map(|run| run.to_string()),
            why = tick.why,
        );
    }

    /// Time passed: ticks that wait are due to be looked at, and a clock that was set back is followed.
    pub(super) fn tend_schedules(&mut self, swept: bool, now: UnixMs) -> Result<(), StoreError> {
        if swept {
            self.follow_clock(now)?;
        }
        self.schedules.queue_due = self.schedules.has_queue || !self.schedules.was_looked_at;
        Ok(())
    }

    /// Launches the ticks that wait and behind whose schedule nothing is under way.
    fn launch_queued(&mut self, step: &mut Step) -> Result<(), StoreError> {
        if !std::mem::take(&mut self.schedules.queue_due) {
            return Ok(());
        }
        let mut waiting = Vec::new();
        self.guarded(step, None, None, |core, _| {
            waiting = core.store.schedules_with_queue()?;
            Ok(Handled::Keep)
        })?;
        self.schedules.has_queue = !waiting.is_empty();
        self.schedules.was_looked_at = true;
        let mut launched = 0;
        for record in waiting {
            if launched == LAUNCHES_MAX {
                step.out.push(Output::Again);
                break;
            }
            // Each alone: one that cannot be launched holds up no other.
            self.guarded(step, None, None, |core, step| {
                if !core.store.open_runs(record.id)?.is_empty() {
                    return Ok(Handled::Keep);
                }
                let oldest = core.store.queued_ticks(record.id)?.into_iter().next();
                if let Some(nominal) = oldest {
                    let done = core.launch_tick(&record, nominal, &[], Ticked::Before, step)?;
                    launched += usize::from(done);
                }
                Ok(Handled::Keep)
            })?;
        }
        Ok(())
    }

    /// A clock that stands far before what was considered was wrong then: what is later by the new one is to come.
    fn follow_clock(&mut self, now: UnixMs) -> Result<(), StoreError> {
        for record in self.store.schedules()? {
            if record.considered <= now.plus(CLOCK_BACK_MAX) {
                continue;
            }
            let next = match timing_of(&record) {
                Ok(timing) if record.enabled => timing.next_after(now),
                _ => None,
            };
            warn!(event = "schedule.clock", schedule = %record.name, "the clock was set back: it goes on from now");
            self.store
                .set_schedule(record.id, record.enabled, now, next)?;
            self.schedules.look();
        }
        Ok(())
    }
}

/// Whether a tick has a row already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ticked {
    /// It is decided for the first time.
    Now,
    /// It waits.
    Before,
}

fn decided(
    nominal: UnixMs,
    outcome: TickOutcome,
    why: Option<String>,
    decided_at: UnixMs,
) -> TickRecord {
    TickRecord {
        nominal,
        outcome,
        run: None,
        why,
        count: 1,
        decided_at,
    }
}

fn ids(runs: &[RunId]) -> String {
    let ids: Vec<String> = runs.iter().map(ToString::to_string).collect();
    match ids.as_slice() {
        [id] => format!("run {id}"),
        ids => format!(
            "{} runs, the newest {}",
            ids.len(),
            ids.last().map_or("-", String::as_str)
        ),
    }
}

fn waits_for(runs: &[RunId]) -> String {
    match runs {
        [] => "it waits for the ticks before it".to_owned(),
        runs => format!("it waits for {} to end", ids(runs)),
    }
}

fn words_of(why: SkipWhy, record: &ScheduleRecord, runs: &[RunId]) -> String {
    match why {
        SkipWhy::Missed if record.catch_up == CatchUp::Skip => {
            "it was missed: no orchestrator looked at its time, and `catch_up` is `skip`".to_owned()
        }
        SkipWhy::Missed => {
            "it was missed: no orchestrator looked at its time, and with `catch_up` `one` only the newest is launched"
                .to_owned()
        }
        SkipWhy::Overlap => match runs {
            [] => "earlier ticks wait, and `overlap` is `skip`".to_owned(),
            runs => format!("{} is under way, and `overlap` is `skip`", ids(runs)),
        },
        SkipWhy::QueueFull => format!("{QUEUED_MAX} ticks wait already"),
    }
}

/// What a request says about its times, checked.
fn timing_of_create(
    create: &ScheduleCreate,
    schedule: ScheduleId,
    now: UnixMs,
) -> Result<Timing, ErrorBody> {
    let wrong = |message: &str, help: &str| {
        Err(ErrorBody::new(ErrorCode::Invalid, message).with_help(help))
    };
    let (cron, every) = (create.cron.as_deref(), create.every.as_deref());
    let pattern = match (cron, every) {
        (Some(cron), None) => cron,
        (None, Some(every)) => every,
        (None, None) | (Some(_), Some(_)) => {
            return wrong(
                "a schedule has a cron expression or an interval, one of both",
                "give `cron` or `every`",
            );
        }
    };
    if create.tz.is_some() && cron.is_none() {
        return wrong(
            "a time zone belongs to a cron expression: an interval counts real time",
            "leave `tz` out, or give `cron` instead of `every`",
        );
    }
    if create.catch_up == CatchUp::All && create.overlap == Overlap::CancelPrevious {
        return wrong(
            "`catch_up` `all` and `overlap` `cancel-previous` contradict each other: each missed tick's run would call the \
             one before it off",
            "choose `catch_up` `one`, or another `overlap`",
        );
    }
    let text = TimingText {
        cron,
        tz: create.tz.as_deref(),
        every,
        jitter: create.jitter.as_deref(),
    };
    let timing = text.read(schedule, now).map_err(|wrong| invalid(&wrong))?;
    timing
        .check(pattern, now)
        .map_err(|error| invalid(&Unreadable::Timing(error)))?;
    Ok(timing)
}

/// A schedule's times as people write them.
#[derive(Clone, Copy, Debug)]
struct TimingText<'a> {
    cron: Option<&'a str>,
    tz: Option<&'a str>,
    every: Option<&'a str>,
    jitter: Option<&'a str>,
}

/// Why a schedule's times cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Unreadable {
    #[error(transparent)]
    Timing(#[from] TimingError),
    #[error(transparent)]
    Duration(#[from] sluice_model::pipeline::DurationError),
}

impl TimingText<'_> {
    fn read(&self, schedule: ScheduleId, anchor: UnixMs) -> Result<Timing, Unreadable> {
        let rhythm = match (self.cron, self.every) {
            (Some(cron), _) => Rhythm::cron(cron, self.tz)?,
            (None, every) => Rhythm::every(parse_duration(every.unwrap_or_default())?, anchor)?,
        };
        let jitter = match self.jitter {
            None => Duration::ZERO,
            Some(jitter) => parse_duration(jitter)?,
        };
        Ok(Timing {
            schedule,
            rhythm,
            jitter,
        })
    }
}

fn timing_of(record: &ScheduleRecord) -> Result<Timing, Unreadable> {
    let text = TimingText {
        cron: record.cron.as_deref(),
        tz: record.tz.as_deref(),
        every: record.every.as_deref(),
        jitter: record.jitter.as_deref(),
    };
    text.read(record.id, record.created_at)
}

fn zone_name(tz: Option<&str>) -> String {
    tz.unwrap_or("UTC").to_owned()
}

fn invalid(wrong: &Unreadable) -> ErrorBody {
    let help = match wrong {
        Unreadable::Timing(error) => error.help(),
        Unreadable::Duration(_) => "durations are written like 90s, 15m, 6h or 1h30m",
    };
    ErrorBody::new(ErrorCode::Invalid, wrong.to_string()).with_help(help)
}
