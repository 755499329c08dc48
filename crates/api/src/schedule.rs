//! Schedules: what launches a batch job again and again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_model::{
    CatchUp, JobName, NodeName, Overlap, RunId, RunState, ScheduleId, ScheduleName, TickOutcome,
    UnixMs,
};
use utoipa::ToSchema;

use crate::Cursor;

/// Schedules of one orchestrator, at most: each is looked at by one thread.
pub const SCHEDULES_MAX: usize = 1_000;

/// Ticks that a schedule's history keeps.
pub const TICKS_KEPT: usize = 1_000;

/// Of those, the newest that a description of the schedule shows; and when a list does not say how many.
pub const TICKS_SHOWN: u32 = 20;

/// What a schedule does about overlapping runs unless it says otherwise.
pub const OVERLAP_DEFAULT: Overlap = Overlap::Skip;

/// What a schedule does about missed ticks unless it says otherwise.
pub const CATCH_UP_DEFAULT: CatchUp = CatchUp::One;

fn overlap_default() -> Overlap {
    OVERLAP_DEFAULT
}

fn catch_up_default() -> CatchUp {
    CATCH_UP_DEFAULT
}

/// `POST` [`crate::routes::SCHEDULES`]: `cron` or `every`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleCreate {
    /// Its name.
    pub name: ScheduleName,
    /// The batch job that it launches.
    pub job: JobName,
    /// A cron expression: five fields, or six with seconds first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// With `cron`: whose wall clock it follows, by its IANA name; absent: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tz: Option<String>,
    /// An interval, such as `90s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// What becomes of a tick while a run of an earlier one is under way.
    #[serde(default = "overlap_default")]
    pub overlap: Overlap,
    /// What becomes of missed ticks.
    #[serde(default = "catch_up_default")]
    pub catch_up: CatchUp,
    /// Each tick fires up to so much later, always the same for the same tick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<String>,
    /// Values of the job's parameters, as text.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// The nodes that each run is on, one task each; empty: as the pipeline says.
    #[serde(default)]
    pub nodes: Vec<NodeName>,
}

/// Query of `GET` [`crate::routes::SCHEDULES`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleFilter {
    /// Those that launch this job; it may be deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// Most items in a page; 1 to [`crate::PAGE_ITEMS_MAX`], which it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Where the page before ended; absent: from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

/// Query of `GET` [`crate::routes::SCHEDULE_HISTORY`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TickQuery {
    /// Most items in a page; 1 to [`crate::PAGE_ITEMS_MAX`]; [`TICKS_SHOWN`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Where the page before ended; absent: from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

/// One schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Schedule {
    /// Its name.
    pub name: ScheduleName,
    /// A schedule deleted and created again has a new one.
    pub id: ScheduleId,
    /// The job that it launches: what has this name then.
    pub job: JobName,
    /// Its cron expression; null with an interval.
    pub cron: Option<String>,
    /// With `cron`: its time zone.
    pub tz: Option<String>,
    /// Its interval; null with a cron expression.
    pub every: Option<String>,
    /// What becomes of a tick while a run of an earlier one is under way.
    pub overlap: Overlap,
    /// What becomes of missed ticks.
    pub catch_up: CatchUp,
    /// Each tick fires up to so much later; null: on time.
    pub jitter: Option<String>,
    /// Values of the job's parameters.
    pub params: BTreeMap<String, String>,
    /// The nodes that each run is on; empty: as the pipeline says.
    pub nodes: Vec<NodeName>,
    /// It launches; false while it is paused.
    pub enabled: bool,
    /// When it fires next; null while it is paused.
    pub next_run_at: Option<UnixMs>,
    /// The run that it launched last; null before the first.
    pub last_run: Option<ScheduledRun>,
    /// What became of its newest tick; null before the first.
    pub last_tick: Option<ScheduleTick>,
    /// Ticks that wait for an earlier run's end.
    pub queued: u64,
    /// Who is working on a tick; mostly null, since that takes one transaction.
    pub claimed_by: Option<String>,
    /// Until when that claim holds.
    pub claimed_until: Option<UnixMs>,
    /// When it was created; an interval counts from then.
    pub created_at: UnixMs,
}

/// The run that a schedule launched last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduledRun {
    /// It.
    pub id: RunId,
    /// Where it stands; null once it is forgotten.
    pub state: Option<RunState>,
    /// The tick's time.
    pub scheduled_for: UnixMs,
    /// When it was launched.
    pub launched_at: UnixMs,
}

/// One tick of a schedule, or several that nothing became of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleTick {
    /// Its time, as the cron expression or interval says; of several ticks the newest one's.
    pub scheduled_for: UnixMs,
    /// What became of it.
    pub outcome: TickOutcome,
    /// The run that it launched.
    pub run: Option<RunId>,
    /// Where that run stands; null without one, and once it is forgotten.
    pub state: Option<RunState>,
    /// Why nothing was launched, or what was called off, in words.
    pub why: Option<String>,
    /// How many ticks this stands for: 1, but for those that were missed and are too old to be looked at each.
    pub count: u64,
    /// When that was decided.
    pub decided_at: UnixMs,
}

/// The answer of `schedule describe`: a [`Schedule`] and its newest ticks, in one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleDetail {
    /// The schedule.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// Its newest ticks, the newest first.
    pub ticks: Vec<ScheduleTick>,
}
