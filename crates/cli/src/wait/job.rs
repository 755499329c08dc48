//! `deploy --wait`: has it come about on every node that can be reached?

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sluice_api::{Execution, JobDetail, JobKind, Node, RolloutSummary, routes};
use sluice_model::{Desired, ExecutionState, JobName, NodeName, NodeState, RolloutPhase, Version};

use super::{Look, Waiting, Watched, until};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::render;

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// All executions on connected nodes, one at least, run or completed.
    Done { absent: Vec<String> },
    /// One failed or was quarantined: where and why.
    Failed { where_and_why: Vec<String> },
    /// Not yet: what is missing.
    Waiting { missing: Vec<String> },
}

/// Waits until `version` of the job runs or has completed on every connected node, for at most `wait`.
pub(crate) async fn for_job(
    client: &Client,
    out: &Out,
    job: &JobName,
    version: Version,
    matching: &[NodeName],
    wait: Duration,
) -> Result<(), Failure> {
    let lasted = render::duration(wait);
    let late = Failure::new(
        Exit::TimedOut,
        format!("{job} version {version} did not run everywhere within {lasted}; it stays deployed and goes on"),
    )
    .with_help(format!("`sluice explain {job}` says what each node waits for"));
    let waiting = Waiting {
        doing: format!("waiting for {job} version {version}"),
        watched: Watched::Job(job.clone()),
        within: wait,
        late,
    };
    let look = async || {
        let (detail, nodes) = look(client, job).await?;
        match judge(version, matching, &detail, &nodes) {
            Verdict::Done { absent } => Ok(Look::There((absent, detail.job.state))),
            Verdict::Failed { where_and_why } => Err(Failure::new(
                Exit::Failed,
                format!("{job} version {version} failed"),
            )
            .with_detail(where_and_why.join("\n"))
            .with_help(match &detail.job.rollout {
                Some(_) => format!("`sluice rollout status {job}` tells the whole story"),
                None => format!("`sluice logs {job}` shows what its stages said"),
            })),
            Verdict::Waiting { missing } => Ok(Look::Missing(missing)),
        }
    };
    let (absent, state) = until(client, out, waiting, look).await?;
    for line in absent {
        out.say(&line);
    }
    out.say(&format!("{job} version {version} is {state}"));
    Ok(())
}

async fn look(client: &Client, job: &JobName) -> Result<(JobDetail, Vec<Node>), Failure> {
    let detail = client
        .get(&routes::fill(routes::JOB, &[job.as_str()]))
        .await?;
    let query = sluice_api::NodeFilter::default();
    let nodes = client.list(routes::NODES, &query, usize::MAX).await?;
    Ok((detail, nodes))
}

fn judge(version: Version, matching: &[NodeName], detail: &JobDetail, nodes: &[Node]) -> Verdict {
    let states: BTreeMap<_, _> = nodes.iter().map(|node| (&node.name, node.state)).collect();
    let is_connected = |name: &NodeName| states.get(name) == Some(&NodeState::Connected);
    let runs: Vec<&Execution> = detail
        .executions
        .iter()
        .filter(|execution| execution.desired == Desired::Run)
        .collect();

    let rollout = detail.job.rollout.as_ref();
    if let Some(rollout) = rollout
        && rollout.candidate == version
        && rollout.phase == RolloutPhase::RolledBack
    {
        return Verdict::Failed {
            where_and_why: rolled_back(rollout),
        };
    }
    // An older version that runs on with the content that a rollout brought back is as good as the newest.
    let is_restored = rollout.is_some_and(|rollout| rollout.restored_by == Some(version));
    let open = rollout.filter(|rollout| is_open(rollout.phase) && rollout.candidate == version);
    let decides = open.is_some_and(|rollout| rollout.phase != RolloutPhase::Paused);

    let failed: Vec<_> = runs
        .iter()
        .filter(|execution| {
            // A rollout that goes on is about to say what a failure means to it.
            !decides
                && execution.version >= version
                && matches!(
                    execution.state,
                    ExecutionState::Failed | ExecutionState::Quarantined
                )
        })
        .map(|execution| line(execution))
        .collect();
    if !failed.is_empty() {
        return Verdict::Failed {
            where_and_why: failed,
        };
    }

    let mut missing: Vec<String> = open.map(rollout_line).into_iter().collect();
    let mut arrived = 0_u32;
    let planned: BTreeSet<_> = runs.iter().map(|execution| &execution.node).collect();
    let takes_new: BTreeSet<_> = nodes
        .iter()
        .filter(|node| !node.cordoned && !node.draining)
        .map(|node| &node.name)
        .collect();
    // Which of the matching nodes get a replica is not for us to say.
    let expected = if detail.job.kind == JobKind::Daemon {
        matching
    } else {
        &[]
    };
    for node in expected {
        if is_connected(node) && takes_new.contains(node) && !planned.contains(node) {
            missing.push(format!("{node}: not planned yet"));
        }
    }
    for execution in runs
        .iter()
        .filter(|execution| is_connected(&execution.node))
    {
        let is_there = matches!(
            execution.state,
            ExecutionState::Running | ExecutionState::Completed
        );
        if execution.version < version && open.is_some() {
            missing.push(format!("{}: waits for its turn", execution.node));
        } else if execution.version < version && !is_restored {
            missing.push(format!("{}: not planned yet", execution.node));
        } else if is_there {
            arrived += 1;
        } else {
            missing.push(line(execution));
        }
    }
    let mut absent: Vec<_> = runs
        .iter()
        .filter(|execution| !is_connected(&execution.node))
        .map(|execution| line(execution))
        .collect();
    if let Some(unplaced) = &detail.unplaced {
        absent.push(render::unplaced(unplaced).trim_end().to_owned());
    }
    if missing.is_empty() && arrived > 0 {
        return Verdict::Done { absent };
    }
    if missing.is_empty() && absent.is_empty() {
        missing.push("no node matches yet".to_owned());
    } else if missing.is_empty() {
        missing.push("no matching node is connected".to_owned());
    }
    missing.extend(absent);
    Verdict::Waiting { missing }
}

fn is_open(phase: RolloutPhase) -> bool {
    match phase {
        RolloutPhase::Canary | RolloutPhase::Rolling | RolloutPhase::Paused => true,
        RolloutPhase::Done | RolloutPhase::RolledBack => false,
    }
}

fn rollout_line(rollout: &RolloutSummary) -> String {
    let mut text = format!("the rollout is {}", rollout.phase);
    if let Some(reason) = &rollout.reason {
        text.push_str(&format!(": {reason}"));
    }
    render::clean(&text)
}

fn rolled_back(rollout: &RolloutSummary) -> Vec<String> {
    let mut lines = vec![render::clean(rollout.reason.as_deref().unwrap_or_default())];
    if let (Some(restored), Some(good)) = (rollout.restored_by, rollout.good) {
        lines.push(format!(
            "it was rolled back: version {restored} is version {good} again"
        ));
    }
    lines
}

fn line(execution: &Execution) -> String {
    let mut text = format!("{}: {}", execution.node, render::state_text(execution));
    if let Some(reason) = &execution.reason {
        text.push_str(&format!(", {reason}"));
    }
    let next = render::next(execution.next_action.as_deref(), execution.next_at);
    if !next.is_empty() {
        text.push_str(&format!("; next: {next}"));
    }
    render::clean(&text)
}

#[cfg(test)]
mod tests;
