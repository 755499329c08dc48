//! A rollout: the whole story on one screen.

use sluice_api::Rollout;
use sluice_model::RolloutPhase;

use super::{Cell, Style, Tone, at, cell, clean, fields, maybe, table, toned};

/// Failures that are shown; `--output json` has all that are kept.
const FAILURES_SHOWN_MAX: usize = 5;

/// Where it stands, where it failed, what happened.
pub(crate) fn rollout(style: Style, rollout: &Rollout) -> String {
    let nodes = &rollout.nodes;
    let rules = [
        (rollout.canary > 0).then(|| format!("canary {}", rollout.canary)),
        Some(format!("max parallel {}", rollout.max_parallel)),
        Some(format!("min healthy {}", time(rollout.min_healthy_ms))),
        rollout
            .error_rate_max
            .map(|rate| format!("error rate max {rate}")),
        Some(format!("deadline {}", time(rollout.deadline_ms))),
    ];
    let rules: Vec<String> = rules.into_iter().flatten().collect();
    let mut text = fields(&[
        ("job", cell(&rollout.job)),
        ("rollout", cell(versions(rollout))),
        ("phase", phase(rollout.phase)),
        ("reason", maybe(rollout.reason.as_ref())),
        ("next", cell(&rollout.next)),
        (
            "nodes",
            cell(format!(
                "{} match: {} proven, {} under way, {} waiting, {} away",
                nodes.matching, nodes.proven, nodes.underway, nodes.waiting, nodes.absent
            )),
        ),
        ("rules", cell(rules.join(", "))),
        ("started", cell(at(rollout.started_at))),
        ("changed", cell(at(rollout.changed_at))),
    ]);
    if !rollout.failures.is_empty() {
        let rows = rollout
            .failures
            .iter()
            .take(FAILURES_SHOWN_MAX)
            .map(|failure| {
                vec![
                    cell(&failure.node),
                    cell(at(failure.at)),
                    toned(&failure.reason, Tone::Bad),
                ]
            })
            .collect();
        text.push('\n');
        text.push_str(&table(style, &["FAILED ON", "AT", "REASON"], rows));
        let more = rollout.failures.len().saturating_sub(FAILURES_SHOWN_MAX);
        if more > 0 {
            text.push_str(&format!("and {more} more\n"));
        }
    }
    text.push('\n');
    for event in &rollout.events {
        text.push_str(&format!("{}  {}\n", at(event.at), clean(&event.what)));
    }
    text
}

fn versions(rollout: &Rollout) -> String {
    let mut text = match rollout.good {
        Some(good) => format!("version {good} -> version {}", rollout.candidate),
        None => format!("version {}", rollout.candidate),
    };
    if let Some(restored) = rollout.restored_by {
        text.push_str(&format!(" -> version {restored}, the old content again"));
    }
    text
}

fn phase(phase: RolloutPhase) -> Cell {
    let tone = match phase {
        RolloutPhase::Done => Tone::Good,
        RolloutPhase::Canary | RolloutPhase::Rolling | RolloutPhase::Paused => Tone::Warn,
        RolloutPhase::RolledBack => Tone::Bad,
    };
    toned(phase, tone)
}

fn time(ms: u64) -> String {
    format!("{:?}", std::time::Duration::from_millis(ms))
}
