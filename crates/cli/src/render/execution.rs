//! Executions.

use sluice_api::{Execution, Observed, ReasonCode};
use sluice_model::ExecutionState;

use super::{Cell, Style, Tone, at, cell, fields, maybe, next, table, toned, yes_no};

/// The executions as a table.
pub(crate) fn executions(style: Style, executions: &[Execution]) -> String {
    let header = [
        "JOB", "NODE", "VERSION", "DESIRED", "STATE", "IN", "OUT", "DEAD", "REASON", "NEXT",
    ];
    let rows = executions
        .iter()
        .map(|execution| {
            vec![
                cell(&execution.job),
                cell(&execution.node),
                cell(execution.version),
                cell(execution.desired),
                state_of(execution),
                cell(execution.records_in),
                cell(execution.records_out),
                cell(execution.dead_letters),
                maybe(execution.reason.as_deref()),
                cell(next(execution.next_action.as_deref(), execution.next_at)),
            ]
        })
        .collect();
    table(style, &header, rows)
}

/// One execution.
pub(crate) fn execution_detail(execution: &Execution) -> String {
    fields(&[
        ("job", cell(&execution.job)),
        ("node", cell(&execution.node)),
        ("id", cell(execution.id)),
        ("desired", cell(execution.desired)),
        ("version", cell(execution.version)),
        ("attempt", cell(execution.attempt)),
        ("state", state_of(execution)),
        ("reason", maybe(execution.reason.as_deref())),
        (
            "next",
            cell(next(execution.next_action.as_deref(), execution.next_at)),
        ),
        ("restarts", cell(execution.restarts)),
        (
            "records",
            cell(format!(
                "{} in, {} out, {} dead letters",
                execution.records_in, execution.records_out, execution.dead_letters
            )),
        ),
        ("observed", maybe(execution.observed.as_ref().map(observed))),
        (
            "assignment",
            cell(format!(
                "revision {}, received: {}",
                execution.rev,
                yes_no(execution.received)
            )),
        ),
        ("last ack", maybe(execution.last_ack_at.map(at))),
        ("created", cell(at(execution.created_at))),
        ("changed", cell(at(execution.changed_at))),
    ])
}

fn state_of(execution: &Execution) -> Cell {
    let tone = match execution.state {
        ExecutionState::Running if execution.last_known => Tone::Warn,
        state => tone(state),
    };
    toned(state_text(execution), tone)
}

/// The state with its reason's code, and whether it is only what was last known.
pub(crate) fn state_text(execution: &Execution) -> String {
    let mut text = coded(execution.state, execution.reason_code);
    if execution.last_known {
        text.push_str(" (last known)");
    }
    text
}

/// A state with its reason's code.
pub(crate) fn state(state: ExecutionState, code: Option<ReasonCode>) -> Cell {
    toned(coded(state, code), tone(state))
}

pub(crate) fn coded(state: ExecutionState, code: Option<ReasonCode>) -> String {
    match code {
        Some(code) => format!("{state}/{}", code.as_str()),
        None => state.to_string(),
    }
}

fn tone(state: ExecutionState) -> Tone {
    match state {
        ExecutionState::Running | ExecutionState::Completed => Tone::Good,
        ExecutionState::Pending | ExecutionState::Stopped => Tone::Warn,
        ExecutionState::Failed | ExecutionState::Lost | ExecutionState::Quarantined => Tone::Bad,
    }
}

pub(crate) fn observed(observed: &Observed) -> String {
    let mut text = format!(
        "{} (version {}, attempt {}) at {}",
        observed.state,
        observed.version,
        observed.attempt,
        at(observed.at)
    );
    if let Some(version) = observed.running_version {
        text.push_str(&format!(", version {version} runs on"));
    }
    if let Some(reason) = &observed.reason {
        text.push_str(&format!(": {reason}"));
    }
    text
}
