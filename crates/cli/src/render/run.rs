//! Runs: a line for each, and one task by task.

use sluice_api::{Run, RunTask};
use sluice_model::{RunState, TaskState};

use super::{Cell, Style, Tone, at, cell, clean, fields, maybe, next, table, toned};

/// One line for each run.
pub(crate) fn runs(style: Style, runs: &[Run]) -> String {
    let rows = runs
        .iter()
        .map(|run| {
            let done = run.tasks.iter().filter(|task| task.ended_at.is_some());
            vec![
                cell(run.id),
                cell(jobs(run)),
                state(run.state),
                cell(format!("{}/{}", done.count(), run.tasks.len())),
                cell(at(run.launched_at)),
                maybe(run.ended_at.map(at)),
            ]
        })
        .collect();
    let head = ["RUN", "JOBS", "STATE", "ENDED", "LAUNCHED AT", "ENDED AT"];
    table(style, &head, rows)
}

/// A run and its tasks.
pub(crate) fn run_detail(style: Style, run: &Run) -> String {
    let params: Vec<String> = run
        .params
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let claim = run.claimed_by.as_ref().map(|by| match run.claimed_until {
        Some(until) => format!("{by} until {}", at(until)),
        None => by.clone(),
    });
    let by = run.schedule.as_ref().map(|name| match run.scheduled_for {
        Some(tick) => format!("the schedule {name}, its tick of {}", at(tick)),
        None => format!("the schedule {name}"),
    });
    let mut text = fields(&[
        ("run", cell(run.id)),
        ("jobs", cell(jobs(run))),
        ("state", state(run.state)),
        ("params", cell(params.join(" "))),
        ("stdin", maybe(run.stdin)),
        ("launched", cell(at(run.launched_at))),
        ("launched by", maybe(by)),
        ("started", maybe(run.started_at.map(at))),
        ("ended", maybe(run.ended_at.map(at))),
        ("claimed by", maybe(claim)),
    ]);
    let rows = run
        .tasks
        .iter()
        .map(|task| {
            vec![
                cell(&task.job),
                maybe(task.node.as_ref()),
                task_state(task.state),
                cell(task.attempt),
                maybe(task.execution),
                cell(format!("{}/{}", task.records_in, task.records_out)),
                cell(clean(&why(task))),
            ]
        })
        .collect();
    let head = [
        "JOB",
        "NODE",
        "STATE",
        "ATTEMPT",
        "EXECUTION",
        "IN/OUT",
        "WHY",
    ];
    text.push('\n');
    text.push_str(&table(style, &head, rows));
    text
}

/// One task in one line.
pub(crate) fn run_task_line(task: &RunTask) -> String {
    let node = task.node.as_ref().map_or("no node", |node| node.as_str());
    clean(&format!(
        "{} on {node}: {} {}",
        task.job,
        task.state,
        why(task)
    ))
}

fn why(task: &RunTask) -> String {
    let mut text = String::new();
    if let Some(code) = task.reason_code {
        text.push_str(&format!("{code}: "));
    }
    text.push_str(task.reason.as_deref().unwrap_or_default());
    let next = next(task.next_action.as_deref(), task.next_at);
    if !next.is_empty() {
        text.push_str(&format!("; next: {next}"));
    }
    text
}

fn jobs(run: &Run) -> String {
    let names: Vec<&str> = run.jobs.iter().map(|job| job.as_str()).collect();
    names.join(", ")
}

fn state(state: RunState) -> Cell {
    let tone = match state {
        RunState::Completed => Tone::Good,
        RunState::Failed | RunState::TimedOut => Tone::Bad,
        RunState::Pending | RunState::Running | RunState::Cancelled => return cell(state),
    };
    toned(state, tone)
}

fn task_state(state: TaskState) -> Cell {
    let tone = match state {
        TaskState::Completed => Tone::Good,
        TaskState::Failed | TaskState::TimedOut => Tone::Bad,
        TaskState::Pending | TaskState::Running | TaskState::Cancelled => return cell(state),
    };
    toned(state, tone)
}
