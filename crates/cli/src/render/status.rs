//! One screen of everything.

use sluice_api::{Job, JobKind, Status};
use sluice_model::JobState;

use super::{Style, executions, jobs, nodes};

/// Nodes, jobs, and what does not run and why.
pub(crate) fn status(style: Style, status: &Status) -> String {
    let mut text = String::new();
    if status.nodes.is_empty() {
        text.push_str("No node has joined yet: `sluice token create` makes a token for one.\n");
    } else {
        text.push_str(&nodes(style, &status.nodes));
    }
    text.push('\n');
    if status.jobs.is_empty() {
        text.push_str("No job is deployed yet: `sluice deploy PIPELINE` makes one.\n");
    } else {
        text.push_str(&jobs(style, &status.jobs));
        text.push('\n');
        if !status.schedules.is_empty() {
            text.push_str(&super::schedules(style, &status.schedules));
            text.push('\n');
        }
        let queued: Vec<_> = status
            .jobs
            .iter()
            .filter(|job| job.state == JobState::Queued)
            .collect();
        for job in &queued {
            text.push_str(&queued_line(job));
        }
        let kept: Vec<String> = status
            .jobs
            .iter()
            .filter_map(super::job::kept_rollout)
            .collect();
        text.extend(kept.iter().map(String::as_str));
        for unplaced in &status.unplaced {
            text.push_str(&super::job::unplaced(unplaced));
        }
        text.push_str(&waiting_tasks(status));
        let all_placed = queued.is_empty() && status.unplaced.is_empty() && kept.is_empty();
        let none_waits = status.waiting.is_empty() && status.tasks_waiting == 0;
        if none_waits && all_placed {
            text.push_str("Nothing waits.\n");
        } else if !status.waiting.is_empty() {
            text.push_str("What does not run, and why:\n");
            text.push_str(&executions(style, &status.waiting));
        }
    }
    text
}

/// What a job waits for of which nothing runs.
fn queued_line(job: &Job) -> String {
    let name = &job.name;
    match (job.kind, job.desired) {
        (JobKind::Batch, 0) => {
            format!("{name} is queued until it is launched: `sluice run launch {name}`.\n")
        }
        (JobKind::Batch, _) => {
            format!("{name} is launched and waits; `sluice explain {name}` says for what.\n")
        }
        (JobKind::Daemon | JobKind::Replicas, _) => format!(
            "{name} waits for a first node that matches; `sluice explain {name}` says why none does.\n"
        ),
    }
}

/// What tasks of runs wait for, a line for each sort.
fn waiting_tasks(status: &Status) -> String {
    let mut text = String::new();
    let mut told = 0;
    for tasks in &status.waiting_tasks {
        let wait = if tasks.count == 1 { " waits" } else { "s wait" };
        let at = tasks.next_at.map(|at| format!(" at {at}"));
        text.push_str(&super::clean(&format!(
            "{}: {} task{wait}, {}; next: {}{}",
            tasks.job,
            tasks.count,
            tasks.reason,
            tasks.next_action,
            at.unwrap_or_default()
        )));
        text.push('\n');
        told += tasks.count;
    }
    if status.tasks_waiting > told {
        let more = status.tasks_waiting - told;
        text.push_str(&format!(
            "{more} more tasks wait; `sluice explain JOB` says for what.\n"
        ));
    }
    text
}
