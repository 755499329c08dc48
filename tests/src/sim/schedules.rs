//! Schedules in the simulator: ticks that come while processes die and disks fail.
//!
//! S1 a tick that counts as launched has exactly its run, and a run that a tick launched has exactly its tick. S2 when all
//! is quiet no schedule is enabled whose tick has been due for longer than two looks. S3 a schedule that is paused has no
//! tick that waits.

use std::collections::BTreeMap;

use sluice_api::{ErrorBody, ScheduleCreate};
use sluice_host::core::{ApiCall, Reply};
use sluice_host::store::{RunRecord, RunStore as _, RunsOf, ScheduleRecord, ScheduleStore as _};
use sluice_model::{CatchUp, Overlap, RunId, TickOutcome};

use super::operators::Order;
use super::world::World;

/// More than any run of the simulator launches.
const RUNS_MAX: usize = 10_000;

/// Schedules of one world: each goes on for as long as it lasts.
const SCHEDULES_MAX: usize = 3;

/// All faults are over: by then a process is there, and the claims of earlier ones have run out.
const RESTS_AFTER_MS: u64 = 60_000;

/// What is ordered of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScheduleOrder {
    /// To launch this job.
    Create {
        /// The job.
        job: String,
        /// Seconds between two ticks.
        every_s: u64,
        /// While an earlier run is under way.
        overlap: Overlap,
        /// After nobody was there.
        catch_up: CatchUp,
    },
    /// No tick until it is resumed.
    Pause,
    /// From now on.
    Resume,
}

/// What was seen of schedules.
#[derive(Debug, Default)]
pub struct SchedulesSeen {
    /// Those that somebody created, or tried to.
    pub names: Vec<String>,
}

fn key(name: &str) -> String {
    format!("schedule {name}")
}

impl World {
    /// Creates a schedule; repeated until it is answered.
    pub fn create_schedule(
        &mut self,
        job: &str,
        every_s: u64,
        overlap: Overlap,
        catch_up: CatchUp,
    ) {
        let name = format!("s{}", self.schedules.names.len());
        self.schedules.names.push(name.clone());
        self.runs.expect_some();
        let order = ScheduleOrder::Create {
            job: job.to_owned(),
            every_s,
            overlap,
            catch_up,
        };
        self.order_schedule(&name, order);
    }

    fn order_schedule(&mut self, name: &str, order: ScheduleOrder) {
        let name = name.to_owned();
        // One at a time for each.
        self.order(&key(&name), Order::Schedule { name, order });
    }

    /// Something about schedules, at random.
    pub(super) fn order_schedule_at_random(&mut self, job: &str) {
        if self.schedules.names.len() < SCHEDULES_MAX {
            let every_s = self.random.between(3, 30);
            let overlaps = [Overlap::Skip, Overlap::Queue, Overlap::CancelPrevious];
            let overlap = *self.random.pick(&overlaps);
            let catch_up = match overlap {
                // With `all` they contradict each other.
                Overlap::CancelPrevious => *self.random.pick(&[CatchUp::One, CatchUp::Skip]),
                _ => *self
                    .random
                    .pick(&[CatchUp::One, CatchUp::Skip, CatchUp::All]),
            };
            self.create_schedule(job, every_s, overlap, catch_up);
            return;
        }
        let name = self.random.pick(&self.schedules.names).clone();
        let orders = [ScheduleOrder::Pause, ScheduleOrder::Resume];
        let order = self.random.pick(&orders).clone();
        self.order_schedule(&name, order);
    }

    pub(super) fn schedule_call(name: &str, order: &ScheduleOrder) -> ApiCall {
        let name = name.parse().expect("a schedule's name");
        match order {
            ScheduleOrder::Create {
                job,
                every_s,
                overlap,
                catch_up,
            } => ApiCall::CreateSchedule(ScheduleCreate {
                name,
                job: job.parse().expect("the simulator's job names are names"),
                cron: None,
                tz: None,
                every: Some(format!("{every_s}s")),
                overlap: *overlap,
                catch_up: *catch_up,
                jitter: None,
                params: BTreeMap::new(),
                nodes: Vec::new(),
            }),
            ScheduleOrder::Pause => ApiCall::PauseSchedule(name),
            ScheduleOrder::Resume => ApiCall::ResumeSchedule(name),
        }
    }

    /// Notes the answer to an order about a schedule; `false` when there was none.
    pub(super) fn handle_schedule_reply(
        &mut self,
        key: &str,
        reply: Result<Reply, ErrorBody>,
    ) -> bool {
        match reply {
            Ok(Reply::Schedule(schedule)) => {
                let enabled = schedule.enabled;
                self.note("operator", format_args!("{key}: enabled {enabled}"));
                true
            }
            // The job cannot be launched, it was created before and the answer got lost, or there is none.
            Err(error) => self.handle_refusal(key, &error),
            Ok(reply) => panic!("{key} answered with {reply:?}"),
        }
    }

    fn enabled_schedules(&mut self) -> Vec<ScheduleRecord> {
        let found = self.orchestrator.look(|store| store.schedules());
        let mut found = found.expect("readable");
        found.retain(|schedule| schedule.enabled);
        found
    }

    /// S2, and then none of them launches any more.
    pub(super) fn rest_schedules(&mut self) {
        if self.schedules.names.is_empty() || self.enabled_schedules().is_empty() {
            return;
        }
        self.run_for(RESTS_AFTER_MS);
        let patience = i64::try_from(self.config.heartbeat_ms).expect("small");
        self.run_until(
            "every tick that is due is decided",
            RESTS_AFTER_MS,
            |world| {
                let due = world.orchestrator.now(world.now_ms()).unix.0 - patience;
                let enabled = world.enabled_schedules();
                let is_late = |it: &ScheduleRecord| it.next.is_none_or(|(_, at)| at.0 < due);
                !enabled.iter().any(is_late)
            },
        );
        self.check_ticks();
        self.pause_schedules();
    }

    /// Whoever is still enabled is paused: its order may have been answered only now.
    pub(super) fn pause_schedules(&mut self) {
        if self.schedules.names.is_empty() {
            return;
        }
        for schedule in self.enabled_schedules() {
            self.order_schedule(schedule.name.as_str(), ScheduleOrder::Pause);
        }
    }

    /// Why a schedule is not at rest.
    pub(super) fn settled_schedules(&mut self) -> Result<(), String> {
        if self.schedules.names.is_empty() {
            return Ok(());
        }
        match self.enabled_schedules().first() {
            Some(schedule) => Err(format!("the schedule {} is not paused", schedule.name)),
            None => Ok(()),
        }
    }

    /// The runs that ticks launched, the oldest first.
    pub fn ticked_runs(&mut self) -> Vec<RunRecord> {
        let runs = self
            .orchestrator
            .look(|store| store.runs(RunsOf::All, RUNS_MAX));
        let runs = runs.expect("readable").into_iter().rev();
        runs.filter(|run| run.tick.is_some()).collect()
    }

    /// S1; its runs are looked after as those that people launch.
    pub(super) fn check_ticks(&mut self) {
        if self.schedules.names.is_empty() {
            return;
        }
        let mut launched: BTreeMap<_, Option<RunId>> = BTreeMap::new();
        let schedules = self.orchestrator.look(|store| store.schedules());
        for schedule in schedules.expect("readable") {
            let ticks = self
                .orchestrator
                .look(|store| store.ticks(schedule.id, RUNS_MAX));
            for tick in ticks.expect("readable") {
                assert!(
                    tick.outcome != TickOutcome::Queued || schedule.enabled,
                    "S3: {tick:?} waits, and {} is paused",
                    schedule.name
                );
                if tick.outcome == TickOutcome::Launched {
                    let before = launched.insert((schedule.id, tick.nominal), tick.run);
                    assert_eq!(before, None, "S1: a tick is there twice");
                } else {
                    assert_eq!(tick.run, None, "S1: {tick:?}");
                }
            }
        }
        for run in self.ticked_runs() {
            let tick = run.tick.expect("a tick launched it");
            let told = launched.remove(&(tick.schedule, tick.nominal));
            assert_eq!(
                told,
                Some(Some(run.id)),
                "S1: {} {}",
                tick.name,
                tick.nominal
            );
            let key = format!("tick {} {}", tick.name, tick.nominal);
            let known = self.runs.runs.insert(key, run.id);
            assert!(known.is_none_or(|known| known == run.id), "S1: two runs");
        }
        assert!(launched.is_empty(), "S1: without their runs: {launched:?}");
    }
}
