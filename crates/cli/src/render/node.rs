//! Nodes.

use sluice_api::{Node, NodeDetail};
use sluice_model::NodeState;

use super::{Cell, Style, Tone, at, cell, executions, fields, maybe, table, toned};

/// The nodes as a table.
pub(crate) fn nodes(style: Style, nodes: &[Node]) -> String {
    let header = ["NAME", "STATE", "EXECUTIONS", "LABELS", "LAST SEEN", "NOTE"];
    let rows = nodes
        .iter()
        .map(|node| {
            vec![
                cell(&node.name),
                state(node),
                cell(node.executions),
                cell(labels(node)),
                maybe(node.last_seen_at.map(at)),
                cell(note(node)),
            ]
        })
        .collect();
    table(style, &header, rows)
}

/// One node and what runs there.
pub(crate) fn node_detail(style: Style, detail: &NodeDetail) -> String {
    let node = &detail.node;
    let dialects: Vec<_> = node.versions.iter().map(ToString::to_string).collect();
    let mut text = fields(&[
        ("name", cell(&node.name)),
        ("id", cell(node.id)),
        ("state", state(node)),
        ("alarm", maybe(node.alarm.as_deref())),
        ("revoked", maybe(node.revoked_at.map(at))),
        ("held because", maybe(node.held_reason.as_deref())),
        ("labels", cell(labels(node))),
        ("address", maybe(node.address.as_deref())),
        ("connected since", maybe(node.connected_since.map(at))),
        ("last seen", maybe(node.last_seen_at.map(at))),
        ("joined", cell(at(node.created_at))),
        (
            "certificate until",
            maybe(node.certificate_expires_at.map(at)),
        ),
        ("program", maybe(node.program.as_deref())),
        ("dialects", cell(dialects.join(", "))),
        ("store", maybe(node.incarnation)),
        ("starts", cell(node.boot_counter)),
        (
            "desired revision",
            cell(format!(
                "{}, received {}{}",
                node.desired_rev,
                node.received_rev,
                node.last_ack_at
                    .map(|time| format!(" at {}", at(time)))
                    .unwrap_or_default()
            )),
        ),
        ("observed revision", cell(node.observed_rev)),
        ("has", cell(detail.capabilities.join(", "))),
    ]);
    if !detail.execution_list.is_empty() {
        text.push('\n');
        text.push_str(&executions(style, &detail.execution_list));
    }
    text
}

/// What needs a person first.
fn note(node: &Node) -> String {
    match (&node.alarm, &node.held_reason, node.revoked_at) {
        (Some(alarm), ..) => alarm.clone(),
        (None, _, Some(time)) => format!("revoked {}", at(time)),
        (None, reason, None) => reason.clone().unwrap_or_default(),
    }
}

fn state(node: &Node) -> Cell {
    let mut text = node.state.to_string();
    if node.draining {
        text.push_str(", draining");
    } else if node.cordoned {
        text.push_str(", cordoned");
    }
    let tone = match node.state {
        NodeState::Connected => Tone::Good,
        NodeState::Disconnected => Tone::Warn,
        NodeState::Lost | NodeState::Held => Tone::Bad,
    };
    toned(text, tone)
}

fn labels(node: &Node) -> String {
    let labels: Vec<_> = node
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.join(",")
}
