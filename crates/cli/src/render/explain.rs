//! Why each node does or does not run a job.

use sluice_api::Explain;
use sluice_model::NodeState;

use super::execution::{coded, observed, state};
use super::{Style, Tone, at, cell, maybe, next, table, toned, yes_no};

/// The job's state and why, then a line for each node.
pub(crate) fn explain(style: Style, explain: &Explain) -> String {
    let header = [
        "NODE", "MATCHES", "STATE", "WHY", "NEXT", "LAST ACK", "OBSERVED",
    ];
    let rows = explain
        .nodes
        .iter()
        .map(|node| {
            let ack = match (node.rev, node.last_ack_at) {
                (_, None) => "never".to_owned(),
                (None, Some(time)) => at(time),
                (Some(rev), Some(time)) if node.received => {
                    format!("revision {rev} at {}", at(time))
                }
                (Some(rev), Some(time)) => format!(
                    "revision {} at {}, {rev} is on its way",
                    node.received_rev,
                    at(time)
                ),
            };
            vec![
                cell(format!("{} ({})", node.node, node.node_state)),
                cell(yes_no(node.matches)),
                match node.state {
                    Some(it) if node.last_known => {
                        let text = format!("{} (last known)", coded(it, node.reason_code));
                        toned(text, Tone::Warn)
                    }
                    Some(execution) => state(execution, node.reason_code),
                    None => cell(""),
                },
                cell(node.reason.as_deref().unwrap_or(&node.why)),
                cell(next(node.next_action.as_deref(), node.next_at)),
                cell(ack),
                maybe(node.observed.as_ref().map(|it| match node.node_state {
                    NodeState::Connected => observed(it),
                    _ => format!("last known: {}", observed(it)),
                })),
            ]
        })
        .collect();
    let mut text = format!(
        "{} version {} is {}: {}\n",
        explain.job,
        explain.version,
        explain.state,
        super::clean(&explain.why)
    );
    if let Some(unplaced) = &explain.unplaced {
        text.push_str(&super::job::unplaced(unplaced));
    }
    if !explain.nodes.is_empty() {
        text.push('\n');
        text.push_str(&table(style, &header, rows));
    }
    text
}
