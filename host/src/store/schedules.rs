//! Schedules and their ticks: records, and the verbs that a [`super::Store`] has for them.
//!
//! A tick is keyed by its schedule and its nominal time: whoever decides it first decides it, and everybody after that
//! finds it decided. A schedule whose time has come is claimed with a lease and a fence, as tasks are; a write that does
//! not carry the newest claim changes nothing.

use std::collections::BTreeMap;

use sluice_model::{
    CatchUp, Fence, JobName, NodeName, Overlap, RunId, ScheduleId, ScheduleName, TickOutcome,
    UnixMs,
};

use super::StoreError;

/// One schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleRecord {
    /// Its id.
    pub id: ScheduleId,
    /// Its name.
    pub name: ScheduleName,
    /// The job that it launches.
    pub job: JobName,
    /// Its cron expression.
    pub cron: Option<String>,
    /// Whose wall clock that follows.
    pub tz: Option<String>,
    /// Its interval, as it was written.
    pub every: Option<String>,
    /// What becomes of a tick while a run of an earlier one is under way.
    pub overlap: Overlap,
    /// What becomes of missed ticks.
    pub catch_up: CatchUp,
    /// Its ticks fire up to so much later, as it was written.
    pub jitter: Option<String>,
    /// Values of the job's parameters.
    pub params: BTreeMap<String, String>,
    /// The nodes of its runs.
    pub nodes: Vec<NodeName>,
    /// It is not paused.
    pub enabled: bool,
    /// When it was created.
    pub created_at: UnixMs,
    /// Ticks up to then have been decided.
    pub considered: UnixMs,
    /// The next tick: its nominal time, and when it fires.
    pub next: Option<(UnixMs, UnixMs)>,
    /// The claim's fence.
    pub fence: Fence,
    /// The claim's holder.
    pub claimed_by: Option<String>,
    /// Until when the claim holds.
    pub claimed_until: Option<UnixMs>,
}

/// Which tick it was that launched a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TickOf {
    /// The schedule.
    pub schedule: ScheduleId,
    /// The schedule's name; stays when it is deleted.
    pub name: ScheduleName,
    /// The tick's nominal time.
    pub nominal: UnixMs,
}

/// What became of a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TickRecord {
    /// Its nominal time.
    pub nominal: UnixMs,
    /// What became of it.
    pub outcome: TickOutcome,
    /// The run that it launched.
    pub run: Option<RunId>,
    /// Why nothing was launched, or what was called off.
    pub why: Option<String>,
    /// How many ticks it stands for.
    pub count: u64,
    /// When that was decided.
    pub decided_at: UnixMs,
}

/// The verbs for schedules. As with [`super::Store`], nothing reads a clock, and every call may block for the disk.
pub trait ScheduleStore {
    /// Keeps a new schedule; its name is free.
    fn insert_schedule(&mut self, schedule: &ScheduleRecord) -> Result<(), StoreError>;
    /// A schedule by name.
    fn schedule(&mut self, name: &ScheduleName) -> Result<Option<ScheduleRecord>, StoreError>;
    /// Every schedule, by name.
    fn schedules(&mut self) -> Result<Vec<ScheduleRecord>, StoreError>;
    /// Pauses or resumes a schedule, from `considered` on; a claim on it ends.
    fn set_schedule(
        &mut self,
        id: ScheduleId,
        enabled: bool,
        considered: UnixMs,
        next: Option<(UnixMs, UnixMs)>,
    ) -> Result<(), StoreError>;
    /// Forgets a schedule with its ticks; its runs stay.
    fn delete_schedule(&mut self, id: ScheduleId) -> Result<(), StoreError>;

    /// When the next schedule can be claimed; `None` when none ever can as they are.
    fn next_schedule_at(&mut self) -> Result<Option<UnixMs>, StoreError>;
    /// Claims, in one statement, the enabled schedule whose next tick has been due for longest and that nobody holds.
    fn claim_schedule(
        &mut self,
        worker: &str,
        now: UnixMs,
        until: UnixMs,
    ) -> Result<Option<ScheduleRecord>, StoreError>;
    /// Ends a claim: the ticks up to `considered` are decided. `false` when the claim is not the newest any more, and
    /// nothing was changed.
    fn finish_schedule(
        &mut self,
        id: ScheduleId,
        worker: &str,
        fence: Fence,
        considered: UnixMs,
        next: Option<(UnixMs, UnixMs)>,
    ) -> Result<bool, StoreError>;
    /// Ends every claim: whoever held them is no more. How many.
    fn release_schedules(&mut self) -> Result<usize, StoreError>;

    /// Decides a tick; `false` when it was decided before, and nothing was changed.
    fn put_tick(&mut self, schedule: ScheduleId, tick: &TickRecord) -> Result<bool, StoreError>;
    /// Decides a tick that waits; `false` when it waits no more, and nothing was changed.
    fn decide_queued(
        &mut self,
        schedule: ScheduleId,
        tick: &TickRecord,
    ) -> Result<bool, StoreError>;
    /// The run that a tick launched, though the tick be forgotten.
    fn run_of_tick(
        &mut self,
        schedule: ScheduleId,
        nominal: UnixMs,
    ) -> Result<Option<RunId>, StoreError>;
    /// A schedule's runs that have not ended, the oldest first.
    fn open_runs(&mut self, schedule: ScheduleId) -> Result<Vec<RunId>, StoreError>;
    /// The nominal times of a schedule's ticks that wait, the oldest first.
    fn queued_ticks(&mut self, schedule: ScheduleId) -> Result<Vec<UnixMs>, StoreError>;
    /// The schedules that have ticks which wait.
    fn schedules_with_queue(&mut self) -> Result<Vec<ScheduleRecord>, StoreError>;
    /// A schedule's ticks, the newest first, at most `count`.
    fn ticks(&mut self, schedule: ScheduleId, count: usize) -> Result<Vec<TickRecord>, StoreError>;
    /// The same, each with the mark to go on behind it: those behind `before`.
    fn ticks_before(
        &mut self,
        schedule: ScheduleId,
        before: Option<u64>,
        count: usize,
    ) -> Result<Vec<(u64, TickRecord)>, StoreError>;
    /// The newest tick that launched a run.
    fn last_launch(&mut self, schedule: ScheduleId) -> Result<Option<TickRecord>, StoreError>;
    /// Forgets a schedule's ticks beyond the newest `kept`, but those that wait and those whose runs have not ended.
    fn trim_ticks(&mut self, schedule: ScheduleId, kept: usize) -> Result<(), StoreError>;
}
