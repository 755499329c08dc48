//! Jobs.

use sluice_api::{Job, JobDetail, JobVersion, RolloutSummary, Unplaced};
use sluice_model::JobState;

use super::{Cell, Style, Tone, at, cell, executions, fields, maybe, size, table, toned};

/// Of a digest, `sha256:` and so many digits that equal ones are seen to be equal.
const DIGEST_SHOWN: usize = 19;

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
                cell(kind(job)),
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

/// A job's kept versions as a table.
pub(crate) fn versions(style: Style, versions: &[JobVersion]) -> String {
    let header = ["VERSION", "MADE", "BY", "CHANGES", "CONTENT"];
    let rows = versions
        .iter()
        .map(|version| {
            let number = if version.current {
                format!("{} (current)", version.version)
            } else {
                version.version.to_string()
            };
            let by = match (version.rolled_back_to, &version.reason) {
                (Some(to), Some(reason)) => format!("rollback to {to}: {reason}"),
                (Some(to), None) => format!("rollback to {to}"),
                (None, _) => "deploy".to_owned(),
            };
            let digest = version.spec_digest.to_string();
            vec![
                cell(number),
                cell(at(version.created_at)),
                cell(by),
                cell(version.changes.join("; ")),
                cell(&digest[..DIGEST_SHOWN.min(digest.len())]),
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
        ("kind", cell(kind(job))),
        ("when lost", cell(job.on_lost)),
        ("version", cell(job.version)),
        ("state", state(job.state)),
        (
            "executions",
            cell(format!(
                "{} desired: {} running, {} waiting, {} failed, {} completed",
                job.desired, job.running, job.waiting, job.failed, job.completed
            )),
        ),
        ("rollout", maybe(job.rollout.as_ref().map(rollout))),
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
    if let Some(it) = &detail.unplaced {
        text.push('\n');
        text.push_str(&unplaced(it));
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

fn rollout(rollout: &RolloutSummary) -> String {
    let mut text = format!("version {} is {}", rollout.candidate, rollout.phase);
    if let Some(reason) = &rollout.reason {
        text.push_str(&format!(": {reason}"));
    }
    if let Some(next) = &rollout.next_action {
        text.push_str(&format!("; next: {next}"));
    }
    text
}

/// An open rollout that something keeps, in a line.
pub(crate) fn kept_rollout(job: &Job) -> Option<String> {
    let it = job.rollout.as_ref()?;
    it.reason.as_ref().and(it.next_action.as_ref())?;
    Some(super::clean(&format!("{}: the rollout of {}", job.name, rollout(it))) + "\n")
}

/// Replicas that find no node, in a line.
pub(crate) fn unplaced(unplaced: &Unplaced) -> String {
    let many = if unplaced.count == 1 { "" } else { "s" };
    super::clean(&format!(
        "{}: {} replica{many} pending/{}: {}; next: {}",
        unplaced.job, unplaced.count, unplaced.reason_code, unplaced.reason, unplaced.next_action
    )) + "\n"
}

fn kind(job: &Job) -> String {
    match job.count {
        Some(count) => format!("{} ({count})", job.kind.as_str()),
        None => job.kind.as_str().to_owned(),
    }
}

pub(crate) fn state(state: JobState) -> Cell {
    let tone = match state {
        JobState::Running | JobState::Completed => Tone::Good,
        JobState::Queued | JobState::Deploying | JobState::Stopped => Tone::Warn,
        JobState::Degraded | JobState::Failed => Tone::Bad,
    };
    toned(state, tone)
}
