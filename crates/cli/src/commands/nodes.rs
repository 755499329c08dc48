//! What is ordered of a node.

use std::time::Duration;

use sluice_api::{Execution, Node, NodeDetail, NodeLabels, routes};
use sluice_model::{Desired, ExecutionState, NodeName, NodeState};

use crate::args::LabelChange;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::render;
use crate::wait::{self, Look, Waiting, Watched};

pub(super) async fn label(
    client: &Client,
    out: &Out,
    name: &NodeName,
    changes: Vec<LabelChange>,
) -> Result<(), Failure> {
    let mut labels = NodeLabels::default();
    for change in changes {
        match change {
            LabelChange::Set(key, value) => {
                labels.set.insert(key, value);
            }
            LabelChange::Remove(key) => labels.remove.push(key),
        }
    }
    let node: Node = client
        .post_json(&path(routes::NODE_LABELS, name), &labels)
        .await?;
    out.show(&node, |_| {
        let labels: Vec<String> = node
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        match labels.as_slice() {
            [] => format!("{name} has no labels\n"),
            labels => format!("{name} has {}\n", labels.join(", ")),
        }
    })
}

pub(super) async fn cordon(client: &Client, out: &Out, name: &NodeName) -> Result<(), Failure> {
    let node: Node = client.post(&path(routes::NODE_CORDON, name)).await?;
    out.show(&node, |_| {
        format!("{name} takes no new executions; what runs there runs on\n")
    })
}

pub(super) async fn uncordon(client: &Client, out: &Out, name: &NodeName) -> Result<(), Failure> {
    let node: Node = client.post(&path(routes::NODE_UNCORDON, name)).await?;
    out.show(&node, |_| format!("{name} takes executions again\n"))
}

pub(super) async fn drain(
    client: &Client,
    out: &Out,
    name: &NodeName,
    deadline: Option<Duration>,
) -> Result<(), Failure> {
    let mut node: Node = client.post(&path(routes::NODE_DRAIN, name)).await?;
    if let Some(deadline) = deadline {
        node = until_stopped(client, out, name, deadline).await?;
    }
    out.show(&node, |_| match deadline {
        None => format!(
            "{name} is being drained; `sluice node describe {name}` shows what has not stopped yet\n"
        ),
        Some(_) => format!("{name} is drained: everything there has stopped\n"),
    })
}

async fn until_stopped(
    client: &Client,
    out: &Out,
    name: &NodeName,
    wait: Duration,
) -> Result<Node, Failure> {
    let lasted = render::duration(wait);
    let late = Failure::new(
        Exit::TimedOut,
        format!("not everything on {name} stopped within {lasted}; the drain stands and goes on"),
    )
    .with_help(format!("`sluice node describe {name}` shows how it stands"));
    let look = async || {
        let detail: NodeDetail = client.get(&path(routes::NODE, name)).await?;
        let missing = not_stopped(&detail);
        Ok(match missing.is_empty() {
            true => Look::There(detail.node),
            false => Look::Missing(missing),
        })
    };
    let waiting = Waiting {
        doing: format!("waiting for everything on {name} to stop"),
        watched: Watched::Node(name.clone()),
        within: wait,
        late,
    };
    wait::until(client, out, waiting, look).await
}

/// A line for each execution that is not known to have stopped.
fn not_stopped(detail: &NodeDetail) -> Vec<String> {
    detail
        .execution_list
        .iter()
        .filter_map(|execution| {
            let why = why_not_stopped(execution, detail.node.state)?;
            Some(render::clean(&format!("{}: {why}", execution.job)))
        })
        .collect()
}

fn why_not_stopped(execution: &Execution, node: NodeState) -> Option<String> {
    let done = match execution.state {
        ExecutionState::Completed | ExecutionState::Failed => true,
        ExecutionState::Stopped => execution.desired != Desired::Run,
        _ => false,
    };
    if done {
        return None;
    }
    let state = execution.state;
    Some(match (&execution.reason, node) {
        (Some(reason), _) => reason.clone(),
        (None, NodeState::Connected) => format!("it is still {state}"),
        (None, node) => format!("it was {state} when its node was last heard of, which is {node}"),
    })
}

fn path(template: &str, name: &NodeName) -> String {
    routes::fill(template, &[name.as_str()])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::render::fixtures;

    #[test]
    fn a_drain_names_what_has_not_stopped() {
        let mut detail = fixtures::node_detail();
        detail.execution_list = vec![fixtures::running("e1")];
        assert_eq!(not_stopped(&detail), ["field-temps: it is still running"]);
        detail.execution_list[0].desired = Desired::Stop;
        assert_eq!(not_stopped(&detail).len(), 1);
        detail.execution_list[0].state = ExecutionState::Stopped;
        assert!(not_stopped(&detail).is_empty());
        detail.execution_list[0].state = ExecutionState::Running;
        detail.node.state = NodeState::Lost;
        assert!(not_stopped(&detail)[0].ends_with("which is lost"));
    }
}
