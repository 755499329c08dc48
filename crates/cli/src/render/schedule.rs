//! Schedules and their ticks.

use sluice_api::{Schedule, ScheduleDetail, ScheduleTick, ScheduledRun};
use sluice_model::{RunState, TickOutcome};

use super::{Cell, Style, Tone, at, cell, fields, maybe, table, toned};

/// One line for each schedule.
pub(crate) fn schedules(style: Style, schedules: &[Schedule]) -> String {
    let rows = schedules
        .iter()
        .map(|schedule| {
            vec![
                cell(&schedule.name),
                cell(&schedule.job),
                cell(when(schedule)),
                next(schedule),
                last(schedule),
                maybe(schedule.last_tick.as_ref().and_then(note)),
            ]
        })
        .collect();
    let head = ["SCHEDULE", "JOB", "WHEN", "NEXT RUN", "LAST RUN", "NOTE"];
    table(style, &head, rows)
}

/// A schedule and its newest ticks.
pub(crate) fn schedule_detail(style: Style, detail: &ScheduleDetail) -> String {
    let schedule = &detail.schedule;
    let params: Vec<String> = schedule
        .params
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let nodes: Vec<&str> = schedule.nodes.iter().map(|node| node.as_str()).collect();
    let claim = schedule
        .claimed_by
        .as_ref()
        .map(|by| match schedule.claimed_until {
            Some(until) => format!("{by} until {}", at(until)),
            None => by.clone(),
        });
    let mut text = fields(&[
        ("schedule", cell(&schedule.name)),
        ("id", cell(schedule.id)),
        ("job", cell(&schedule.job)),
        ("when", cell(when(schedule))),
        ("jitter", maybe(schedule.jitter.as_ref())),
        ("overlap", cell(schedule.overlap)),
        ("catch up", cell(schedule.catch_up)),
        ("params", cell(params.join(" "))),
        ("nodes", cell(nodes.join(", "))),
        ("next run", next(schedule)),
        ("last run", maybe(schedule.last_run.as_ref().map(run))),
        (
            "queued",
            maybe((schedule.queued > 0).then_some(schedule.queued)),
        ),
        ("claimed by", maybe(claim)),
        ("created", cell(at(schedule.created_at))),
    ]);
    if !detail.ticks.is_empty() {
        text.push('\n');
        text.push_str(&ticks(style, &detail.ticks));
    }
    text
}

/// One line for each tick.
pub(crate) fn ticks(style: Style, ticks: &[ScheduleTick]) -> String {
    let rows = ticks
        .iter()
        .map(|tick| {
            vec![
                cell(at(tick.scheduled_for)),
                outcome(tick.outcome),
                maybe(tick.run),
                maybe(tick.state.map(state)),
                cell(at(tick.decided_at)),
                maybe(tick.why.as_deref()),
            ]
        })
        .collect();
    let head = [
        "SCHEDULED FOR",
        "OUTCOME",
        "RUN",
        "STATE",
        "DECIDED AT",
        "WHY",
    ];
    table(style, &head, rows)
}

fn when(schedule: &Schedule) -> String {
    match (&schedule.cron, &schedule.every) {
        (Some(cron), _) => format!("{cron} ({})", schedule.tz.as_deref().unwrap_or("UTC")),
        (None, Some(every)) => format!("every {every}"),
        (None, None) => String::new(),
    }
}

fn next(schedule: &Schedule) -> Cell {
    match schedule.next_run_at {
        Some(time) => cell(at(time)),
        None if schedule.enabled => toned("never", Tone::Bad),
        None => toned("paused", Tone::Warn),
    }
}

fn last(schedule: &Schedule) -> Cell {
    match &schedule.last_run {
        None => cell(""),
        Some(run) => {
            let text = format!("{} {}", at(run.scheduled_for), run.state.map_or("", state));
            match run.state {
                Some(RunState::Completed) => toned(text, Tone::Good),
                Some(RunState::Failed | RunState::TimedOut) => toned(text, Tone::Bad),
                Some(RunState::Pending | RunState::Running | RunState::Cancelled) | None => {
                    cell(text)
                }
            }
        }
    }
}

fn run(run: &ScheduledRun) -> String {
    let state = run.state.map_or("forgotten", state);
    format!("{} of {}, {state}", run.id, at(run.scheduled_for))
}

fn state(state: RunState) -> &'static str {
    state.as_str()
}

/// What people should see of the newest tick: only that it launched nothing.
fn note(tick: &ScheduleTick) -> Option<String> {
    match tick.outcome {
        TickOutcome::Launched => None,
        TickOutcome::Queued | TickOutcome::Skipped | TickOutcome::Refused => Some(format!(
            "{} {}: {}",
            tick.outcome,
            at(tick.scheduled_for),
            tick.why.as_deref().unwrap_or_default()
        )),
    }
}

fn outcome(outcome: TickOutcome) -> Cell {
    let tone = match outcome {
        TickOutcome::Launched => Tone::Good,
        TickOutcome::Queued | TickOutcome::Skipped => Tone::Warn,
        TickOutcome::Refused => Tone::Bad,
    };
    toned(outcome, tone)
}
