//! From a job, the nodes and its executions to the changes that make them agree.
//!
//! ```text
//!   job           node matches   execution now        change
//!   live          yes            none                 create run (current version, attempt 1)
//!   live          yes            run, old version     run at the current version, attempt 1
//!   live          yes            stop or purge        run, the next attempt (attempt 1 at a new version)
//!   live          no             run                  stop
//!   stopped       any            run                  stop
//!   deleted       any            run or stop          purge
//! ```
//!
//! A held node's executions are left exactly as they are. What a node is doing, or whether it is connected, plays no
//! part: only desired rows reserve a place.

use std::collections::BTreeMap;

use sluice_model::pipeline::Select;
use sluice_model::{Attempt, Desired, ExecutionId, JobId, Labels, NodeId, NodeName, Slot, Version};

/// A job as the planner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFacts {
    /// The job.
    pub id: JobId,
    /// Its current version.
    pub version: Version,
    /// Stopped by an operator.
    pub stopped: bool,
    /// Deleted by an operator; kept until its executions are purged.
    pub deleted: bool,
    /// Which nodes it wants.
    pub select: Select,
}

/// A node as the planner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// The node.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Its labels.
    pub labels: Labels,
    /// Nothing of it may change until a person decides.
    pub held: bool,
}

/// An execution as the planner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutionFacts {
    /// The execution.
    pub id: ExecutionId,
    /// Its node.
    pub node: NodeId,
    /// Its slot.
    pub slot: Slot,
    /// The version its row names.
    pub version: Version,
    /// The attempt its row names.
    pub attempt: Attempt,
    /// What its row orders.
    pub desired: Desired,
}

/// One job's world.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The job.
    pub job: JobFacts,
    /// Every node, in order of id.
    pub nodes: Vec<NodeFacts>,
    /// The job's executions.
    pub executions: Vec<ExecutionFacts>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new execution, `run` at the job's version, attempt 1.
    Create {
        /// Where.
        node: NodeId,
        /// Which slot.
        slot: Slot,
    },
    /// A new row for an execution that is there.
    Update {
        /// Which.
        execution: ExecutionId,
        /// The version to follow.
        version: Version,
        /// The attempt at that version.
        attempt: Attempt,
        /// What to do.
        desired: Desired,
    },
}

/// What to commit, in order of node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub changes: Vec<Change>,
}

/// Plans a job.
pub fn plan(snapshot: &Snapshot) -> Plan {
    let job = &snapshot.job;
    let mut executions: BTreeMap<NodeId, &ExecutionFacts> = snapshot
        .executions
        .iter()
        .map(|execution| (execution.node, execution))
        .collect();
    let mut changes = Vec::new();
    for node in &snapshot.nodes {
        let execution = executions.remove(&node.id);
        if node.held {
            continue;
        }
        let wanted = if job.deleted {
            Desired::Purge
        } else if job.stopped || !job.select.matches(&node.name, &node.labels) {
            Desired::Stop
        } else {
            Desired::Run
        };
        match execution {
            None if wanted == Desired::Run => changes.push(Change::Create {
                node: node.id,
                slot: Slot::ZERO,
            }),
            None => {}
            Some(execution) => changes.extend(update(job, execution, wanted)),
        }
    }
    Plan { changes }
}

fn update(job: &JobFacts, execution: &ExecutionFacts, wanted: Desired) -> Option<Change> {
    let (version, attempt) = match wanted {
        Desired::Run if execution.version != job.version => (job.version, Attempt(1)),
        Desired::Run if execution.desired != Desired::Run => {
            (execution.version, execution.attempt.next())
        }
        _ if execution.desired == wanted => return None,
        // A purge is never taken back to a stop.
        Desired::Stop if execution.desired == Desired::Purge => return None,
        _ => (execution.version, execution.attempt),
    };
    Some(Change::Update {
        execution: execution.id,
        version,
        attempt,
        desired: wanted,
    })
}

/// Why a node does not match a selector, in words; `None` when it does.
pub fn mismatch(select: &Select, node: &NodeFacts) -> Option<String> {
    for (key, wanted) in &select.0 {
        let value = if key == "node" {
            Some(node.name.as_str())
        } else {
            node.labels.get(key).map(String::as_str)
        };
        let wants = wanted.join(" or ");
        match value {
            Some(value) if wanted.iter().any(|want| want == value) => {}
            Some(value) => {
                return Some(format!(
                    "the job wants {key} = {wants}, this node has {key} = {value}"
                ));
            }
            None => {
                return Some(format!(
                    "the job wants {key} = {wants}, this node has no label {key}"
                ));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
