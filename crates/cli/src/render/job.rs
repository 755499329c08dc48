//! Jobs.

use sluice_api::{Job, JobDetail};
use sluice_model::JobState;

use super::{Cell, Style, Tone, at, cell, executions, fields, size, table, toned};

/// The jobs as a table.
pub(crate) fn jobs(style: Style, jobs: &[Job]) -> String {
    let header = [
        "NAME",
        "KIND",
        "VERSION",
        "STATE",
        "DESIRED",
        "RUNNING",
        "WAITING",
        "FAILED",
        "COMPLETED",
        "UPDATED",
    ];
    let rows = jobs
        .iter()
        .map(|job| {
            vec![
                cell(&job.name),
                cell(job.kind.as_str()),
                cell(job.version),
                state(job.state),
                cell(job.desired),
                cell(job.running),
                cell(job.waiting),
                cell(job.failed),
                cell(job.completed),
                cell(at(job.updated_at)),
            ]
        })
        .collect();
    table(style, &header, rows)
}

/// One job: what it is, its executions, its pipeline.
pub(crate) fn job_detail(style: Style, detail: &JobDetail) -> String {
    let job = &detail.job;
    let select: Vec<_> = job
        .select
        .iter()
        .map(|(key, values)| format!("{key}={}", values.join("|")))
        .collect();
    let select = if select.is_empty() {
        "every node".to_owned()
    } else {
        select.join(", ")
    };
    let mut text = fields(&[
        ("name", cell(&job.name)),
        ("id", cell(job.id)),
        ("kind", cell(job.kind.as_str())),
        ("version", cell(job.version)),
        ("state", state(job.state)),
        (
            "executions",
            cell(format!(
                "{} desired: {} running, {} waiting, {} failed, {} completed",
                job.desired, job.running, job.waiting, job.failed, job.completed
            )),
        ),
        ("nodes", cell(select)),
        ("created", cell(at(job.created_at))),
        ("updated", cell(at(job.updated_at))),
        ("content", cell(detail.spec_digest)),
    ]);
    for component in &detail.components {
        text.push_str(&fields(&[(
            "stage",
            cell(format!(
                "{}, {} of {}",
                component.stage,
                component.digest,
                size(component.size)
            )),
        )]));
    }
    if !detail.executions.is_empty() {
        text.push('\n');
        text.push_str(&executions(style, &detail.executions));
    }
    text.push('\n');
    for line in detail.pipeline.lines() {
        text.push_str("  ");
        text.push_str(&super::clean(line));
        text.push('\n');
    }
    text
}

pub(crate) fn state(state: JobState) -> Cell {
    let tone = match state {
        JobState::Running | JobState::Completed => Tone::Good,
        JobState::Queued | JobState::Deploying | JobState::Stopped => Tone::Warn,
        JobState::Degraded | JobState::Failed => Tone::Bad,
    };
    toned(state, tone)
}
