//! Where a job is wanted: one answer for each node.
//!
//! ```text
//!   node or job                                  any kind
//!   held                                         nothing: its executions are left exactly as they are
//!   job deleted                                  purge
//!   job stopped, selector differs, draining      stop
//!   cordoned, nothing runs there                 nothing
//! ```
//!
//! A **daemon** is wanted on every other node. **Replicas** are wanted on `count` of them, never two on one. Those that
//! have a place keep it, the better ones first: ended well or badly, running, returned from being lost, not running yet;
//! then those at an old version: running, not running, returned; lost; the older one of equals. So more than `count` never
//! stay, who has the new version is not stopped for one that runs an old one, and nothing moves because a node joined. What is missing goes to the nodes with the fewest executions, ties by a hash of job and node. A node
//! that lacks something keeps its replica only while no other node can take it.
//!
//! What has ended keeps its place on a drained node too, so that it is not done again elsewhere.
//!
//! A lost (or revoked) node's replica is left in place with `on_lost = "replace"`, without being counted. When its node is back it is
//! one of those that have a place: adopted while its replacement does not run, else stopped.

use std::collections::BTreeMap;

use sluice_model::pipeline::Kind;
use sluice_model::{Desired, Digest, ExecutionId, NodeId, OnLost, UnixMs};

use crate::plan::{ExecutionFacts, JobFacts, NodeFacts, mismatch};

/// What a job wants of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Leave everything as it is.
    Nothing,
    /// Run it at the job's version.
    Run,
    /// Stop what runs.
    Stop,
    /// Stop it and delete its state.
    Purge,
    /// Leave it, and do not count it: its node is lost.
    Replace,
}

/// What a job wants of each node, in their order.
pub(crate) fn place(
    job: &JobFacts,
    nodes: &[NodeFacts],
    executions: &BTreeMap<NodeId, &ExecutionFacts>,
) -> Vec<Want> {
    let places = nodes
        .iter()
        .map(|node| (node, executions.get(&node.id).copied()));
    match job.kind {
        Kind::Daemon => places
            .map(|(node, execution)| daemon(job, node, execution))
            .collect(),
        // What a launch made is placed and ended with its run; what another kind left behind is stopped.
        Kind::Batch { .. } => places
            .map(|(node, _)| settled(job, node, false).unwrap_or(Want::Stop))
            .collect(),
        Kind::Replicas { count } => replicas(job, places.collect(), count),
    }
}

/// Why a node takes no new execution of a job that wants it; `None` when it does.
pub fn refusal(on_replicas: bool, node: &NodeFacts) -> Option<String> {
    if node.held {
        Some("it is held until an operator decides".to_owned())
    } else if node.draining {
        Some("it is being drained; `sluice node uncordon` ends that".to_owned())
    } else if node.cordoned {
        Some(
            "it is cordoned and takes no new executions; `sluice node uncordon` ends that"
                .to_owned(),
        )
    } else if !on_replicas {
        None
    } else if node.revoked {
        Some("it was revoked".to_owned())
    } else if node.lost {
        Some("it is lost".to_owned())
    } else {
        node.lacks.as_ref().map(|lacks| format!("it lacks {lacks}"))
    }
}

/// What holds for every kind. What has ended by itself needs no stop on a node that is drained.
fn settled(job: &JobFacts, node: &NodeFacts, ended: bool) -> Option<Want> {
    if node.held {
        Some(Want::Nothing)
    } else if job.deleted {
        Some(Want::Purge)
    } else if job.stopped || (node.draining && !ended) || mismatch(&job.select, node).is_some() {
        Some(Want::Stop)
    } else {
        None
    }
}

fn runs(execution: Option<&ExecutionFacts>) -> Option<&ExecutionFacts> {
    execution.filter(|execution| execution.desired == Desired::Run)
}

fn daemon(job: &JobFacts, node: &NodeFacts, execution: Option<&ExecutionFacts>) -> Want {
    match settled(job, node, false) {
        Some(want) => want,
        None if node.cordoned && runs(execution).is_none() => Want::Nothing,
        None => Want::Run,
    }
}

/// How good a replica is that has a place; the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Ended,
    Running,
    Returned,
    Waiting,
    OldRunning,
    OldWaiting,
    OldReturned,
    Lost,
    Misfit,
}

fn grade(job: &JobFacts, node: &NodeFacts, execution: &ExecutionFacts) -> Grade {
    let current = execution.version == job.version;
    if execution.ended && current {
        return Grade::Ended;
    }
    if node.lacks.is_some() {
        return Grade::Misfit;
    }
    if node.is_gone() {
        return Grade::Lost;
    }
    match (current, execution.replaced, execution.seen_running) {
        (true, false, true) => Grade::Running,
        (true, true, _) => Grade::Returned,
        (true, false, false) => Grade::Waiting,
        (false, false, true) => Grade::OldRunning,
        (false, false, false) => Grade::OldWaiting,
        (false, true, _) => Grade::OldReturned,
    }
}

fn replicas(
    job: &JobFacts,
    places: Vec<(&NodeFacts, Option<&ExecutionFacts>)>,
    count: u32,
) -> Vec<Want> {
    let count = usize::try_from(count).expect("a bounded count");
    let mut wants = vec![Want::Nothing; places.len()];
    let mut placed = 0;
    let mut there: Vec<((Grade, UnixMs, ExecutionId), usize)> = Vec::new();
    let mut free: Vec<((u64, Digest), usize)> = Vec::new();
    for (index, (node, execution)) in places.into_iter().enumerate() {
        let ended = runs(execution).is_some_and(|it| it.ended && it.version == job.version);
        if let Some(want) = settled(job, node, ended) {
            wants[index] = want;
            // What a held node runs counts, lost or not, unless its place was given away before: nobody knows better.
            let counts = runs(execution).is_some_and(|it| !it.replaced);
            placed += usize::from(node.held && counts);
            continue;
        }
        match runs(execution) {
            Some(execution) => match grade(job, node, execution) {
                Grade::Ended => {
                    there.push(((Grade::Ended, execution.created_at, execution.id), index));
                }
                _ if node.is_gone() && job.on_lost == OnLost::Replace => {
                    wants[index] = Want::Replace
                }
                grade => there.push(((grade, execution.created_at, execution.id), index)),
            },
            None if refusal(true, node).is_none() => {
                free.push(((node.executions, tie(job, node)), index));
            }
            None => {}
        }
    }
    there.sort_unstable();
    free.sort_unstable();
    let misfits = there.partition_point(|((grade, ..), _)| *grade < Grade::Misfit);
    let by_rank = (there[..misfits].iter().map(|(_, index)| *index))
        .chain(free.iter().map(|(_, index)| *index))
        .chain(there[misfits..].iter().map(|(_, index)| *index));
    for index in by_rank {
        if placed < count {
            placed += 1;
            wants[index] = Want::Run;
        } else {
            wants[index] = Want::Stop;
        }
    }
    wants
}

/// Spreads jobs over nodes that have equally much to do.
fn tie(job: &JobFacts, node: &NodeFacts) -> Digest {
    let mut both = [0; 32];
    both[..16].copy_from_slice(&job.id.to_bytes());
    both[16..].copy_from_slice(&node.id.to_bytes());
    Digest::of(&both)
}

#[cfg(test)]
mod tests;
