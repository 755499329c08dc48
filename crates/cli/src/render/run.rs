//! Runs: a line for each, and one task by task.

use std::time::Duration;

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

/// Where a run stands once it has ended, in one line: its state, how many tasks completed, how long it took.
pub(crate) fn run_end(run: &Run) -> String {
    let completed = run
        .tasks
        .iter()
        .filter(|it| it.state == TaskState::Completed);
    let mut text = format!(
        "run {} is {}: {} of {} completed",
        run.id,
        run.state,
        completed.count(),
        match run.tasks.len() {
            1 => "1 task".to_owned(),
            tasks => format!("{tasks} tasks"),
        }
    );
    if let Some(ended) = run.ended_at {
        let ms = ended
            .0
            .saturating_sub(run.launched_at.0)
            .max(0)
            .unsigned_abs();
        // Parts of a second matter only where there are few.
        let took = Duration::from_millis(if ms < 60_000 { ms } else { ms / 1000 * 1000 });
        text.push_str(&format!(", {took:?} after its launch"));
    }
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
    // `timed-out timed-out` tells nobody anything.
    let said = task.state.as_str();
    if let Some(code) = task.reason_code.filter(|code| code.as_str() != said) {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sluice_api::RunTask;
    use sluice_model::{Attempt, UnixMs, Version};

    use super::*;
    use crate::render::fixtures::NOON;

    fn task(state: TaskState) -> RunTask {
        RunTask {
            job: "triage".parse().unwrap(),
            version: Version(1),
            node: Some("e1".parse().unwrap()),
            state,
            reason_code: None,
            reason: None,
            next_action: None,
            next_at: None,
            attempt: Attempt(1),
            execution: None,
            records_in: 0,
            records_out: 0,
            started_at: None,
            ended_at: None,
            claimed_by: None,
            claimed_until: None,
        }
    }

    #[test]
    fn how_a_run_ended_is_one_line() {
        let id = "0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11";
        let mut run = Run {
            id: id.parse().unwrap(),
            jobs: vec!["triage".parse().unwrap()],
            state: RunState::Completed,
            tasks: vec![task(TaskState::Completed)],
            params: Default::default(),
            stdin: None,
            schedule: None,
            scheduled_for: None,
            launched_at: NOON,
            started_at: None,
            ended_at: Some(UnixMs(NOON.0 + 1_234)),
            claimed_by: None,
            claimed_until: None,
        };
        let took = "1.234s after its launch";
        assert_eq!(
            run_end(&run),
            format!("run {id} is completed: 1 of 1 task completed, {took}")
        );
        run.tasks.push(task(TaskState::Failed));
        run.state = RunState::Failed;
        run.ended_at = Some(UnixMs(NOON.0 + 61_234));
        assert_eq!(
            run_end(&run),
            format!("run {id} is failed: 1 of 2 tasks completed, 61s after its launch")
        );
    }
}
