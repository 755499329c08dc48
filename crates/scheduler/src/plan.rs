//! From a job, the nodes and its executions to the changes that make them agree.
//!
//! ```text
//!   placement wants   execution now        change
//!   run               none                 create run (current version, attempt 1)
//!   run               run, old version     run at the current version, attempt 1
//!   run               stop or purge        run, the next attempt (attempt 1 at a new version)
//!   run               run, replaced        adopt: it counts again
//!   stop              run                  stop
//!   purge             run or stop          purge
//!   replace           run                  mark: it no longer counts, its row stays
//!   nothing           any                  -
//! ```
//!
//! Where a job is wanted is for [`crate::place`] to say. Whether a node is connected plays no part: only desired rows
//! reserve a place.
//!
//! While a rollout is open two versions have their say. What the good one wants is neither stopped nor moved for the new
//! one's sake, what only the good one wants is started too, and what only the new one wants starts when it is its turn.

use std::collections::{BTreeMap, BTreeSet};

use sluice_model::pipeline::{Kind, Select};
use sluice_model::{
    Attempt, Desired, ExecutionId, JobId, Labels, NodeId, NodeName, OnLost, Slot, UnixMs, Version,
};

use crate::place::{Want, place};

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
    /// How many nodes it wants.
    pub kind: Kind,
    /// What becomes of an execution whose node is lost.
    pub on_lost: OnLost,
    /// Which nodes it wants.
    pub select: Select,
    /// While a rollout says so, not every node gets the current version.
    pub turn: Option<Turn>,
}

/// What a rollout lets a plan do. Who is neither admitted nor stays gets `otherwise`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Nodes that get the current version now.
    pub admitted: BTreeSet<NodeId>,
    /// Executions that run on as they are.
    pub stays: BTreeSet<ExecutionId>,
    /// The version for all others; `None` = nothing is started there yet.
    pub otherwise: Option<Version>,
    /// Where that version is wanted, when it is not the job's own: until the new one is the good one, it decides too.
    pub otherwise_shape: Option<Shape>,
}

/// What of a version says where it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many nodes it wants.
    pub kind: Kind,
    /// What becomes of an execution whose node is lost.
    pub on_lost: OnLost,
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
    /// It takes no new executions.
    pub cordoned: bool,
    /// It takes none, and those it has are stopped.
    pub draining: bool,
    /// It was away for longer than `lost_after` and is not back.
    pub lost: bool,
    /// It may not speak until it joins again: for replicas it is as good as lost.
    pub revoked: bool,
    /// Executions of all jobs that are desired to run there.
    pub executions: u64,
    /// What it lacks to run the job's version, in words.
    pub lacks: Option<String>,
}

impl NodeFacts {
    /// Nothing is expected of it.
    pub(crate) fn is_gone(&self) -> bool {
        self.lost || self.revoked
    }
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
    /// Its node was lost and its place given away.
    pub replaced: bool,
    /// An edge said last that it runs, at whatever version. Read for replicas only.
    pub seen_running: bool,
    /// Its row's attempt has ended by itself. Read for replicas only.
    pub ended: bool,
    /// When it was made; the older one stays.
    pub created_at: UnixMs,
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
    /// A new execution, `run` at attempt 1.
    Create {
        /// Where.
        node: NodeId,
        /// Which slot.
        slot: Slot,
        /// The version to follow.
        version: Version,
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
    /// Its node is lost: it no longer counts, and another node may take its place. Its row stays as it is.
    Replace {
        /// Which.
        execution: ExecutionId,
    },
    /// Its node is back and it keeps its place: it counts again. Its row stays as it is.
    Adopt {
        /// Which.
        execution: ExecutionId,
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
    let executions = by_node(snapshot);
    let mut changes = Vec::new();
    let wants = place(job, &snapshot.nodes, &executions);
    let good_wants = good_wants(snapshot, &executions);
    for (index, (node, want)) in snapshot.nodes.iter().zip(wants).enumerate() {
        let execution = executions.get(&node.id).copied();
        let good_wants = good_wants.get(index).copied();
        match (want, execution) {
            // Only the good version, which is not given up yet, wants something here.
            (Want::Nothing | Want::Stop, None) if good_wants == Some(true) => {
                let version = job.turn.as_ref().and_then(|turn| turn.otherwise);
                changes.extend(version.map(|version| create(node, version)));
            }
            (Want::Stop, Some(it)) if good_wants == Some(true) && it.desired != Desired::Run => {
                let version = target(job, node, Some(it), good_wants);
                changes.extend(update(it, version, Desired::Run));
            }
            (Want::Nothing, _) | (Want::Stop | Want::Purge | Want::Replace, None) => {}
            (Want::Run, None) => {
                let version = target(job, node, None, good_wants);
                changes.extend(version.map(|version| create(node, version)));
            }
            // The new version no longer wants it; the good one, which is not given up yet, does.
            (Want::Stop, Some(it)) if good_wants == Some(true) && is_kept(job, it) => {}
            (Want::Run, Some(it)) => {
                let version = target(job, node, Some(it), good_wants);
                changes.extend(update(it, version, Desired::Run));
            }
            (Want::Stop, Some(it)) => changes.extend(update(it, None, Desired::Stop)),
            (Want::Purge, Some(it)) => changes.extend(update(it, None, Desired::Purge)),
            (Want::Replace, Some(it)) if it.replaced => {}
            (Want::Replace, Some(it)) => changes.push(Change::Replace { execution: it.id }),
        }
    }
    Plan { changes }
}

fn create(node: &NodeFacts, version: Version) -> Change {
    Change::Create {
        node: node.id,
        slot: Slot::ZERO,
        version,
    }
}

/// Why a rollout looks at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// The job is wanted there.
    Wanted,
    /// It has the job's version and is lost, and its place was given away: what became of the version there still
    /// tells whether it is good.
    GivenAway,
}

/// The nodes that a rollout of the job's version looks at. A node that an operator revoked tells nothing.
pub fn concerned_nodes(snapshot: &Snapshot) -> BTreeMap<NodeId, Concern> {
    let (job, executions) = (&snapshot.job, by_node(snapshot));
    let wants = place(job, &snapshot.nodes, &executions);
    let mut concerned = BTreeMap::new();
    for (node, want) in snapshot.nodes.iter().zip(wants) {
        let has_it = executions
            .get(&node.id)
            .is_some_and(|it| it.version == job.version);
        let concern = match want {
            Want::Run => Concern::Wanted,
            Want::Replace if has_it && node.lost && !node.revoked => Concern::GivenAway,
            Want::Nothing | Want::Stop | Want::Purge | Want::Replace => continue,
        };
        concerned.insert(node.id, concern);
    }
    concerned
}

/// Where the good version is wanted while the new one has not proven itself, by node; empty when only one decides.
fn good_wants(snapshot: &Snapshot, executions: &BTreeMap<NodeId, &ExecutionFacts>) -> Vec<bool> {
    let turn = snapshot.job.turn.as_ref();
    let Some((turn, shape)) = turn.and_then(|turn| Some((turn, turn.otherwise_shape.as_ref()?)))
    else {
        return Vec::new();
    };
    let job = JobFacts {
        version: turn.otherwise.unwrap_or(snapshot.job.version),
        kind: shape.kind,
        on_lost: shape.on_lost,
        select: shape.select.clone(),
        turn: None,
        ..snapshot.job.clone()
    };
    // What a node lacks, it lacks for the new version: what runs there runs.
    let has_older = |node: &NodeFacts| {
        let execution = executions.get(&node.id);
        execution.is_some_and(|it| it.version < snapshot.job.version)
    };
    let nodes: Vec<NodeFacts> = snapshot
        .nodes
        .iter()
        .map(|node| NodeFacts {
            lacks: node.lacks.clone().filter(|_| !has_older(node)),
            ..node.clone()
        })
        .collect();
    let wants = place(&job, &nodes, executions);
    wants.into_iter().map(|want| want == Want::Run).collect()
}

fn by_node(snapshot: &Snapshot) -> BTreeMap<NodeId, &ExecutionFacts> {
    snapshot
        .executions
        .iter()
        .map(|execution| (execution.node, execution))
        .collect()
}

/// The version that should run on a node; `None` when a rollout leaves it as it is. `good_wants`: whether the good
/// version is wanted there, when it has a say.
fn target(
    job: &JobFacts,
    node: &NodeFacts,
    execution: Option<&ExecutionFacts>,
    good_wants: Option<bool>,
) -> Option<Version> {
    let Some(turn) = &job.turn else {
        return Some(job.version);
    };
    if turn.admitted.contains(&node.id) {
        return Some(job.version);
    }
    let otherwise = turn.otherwise.filter(|_| good_wants != Some(false));
    match execution {
        Some(execution) if turn.stays.contains(&execution.id) => None,
        // Versions only grow: what a newer one was stopped at waits for its turn.
        Some(execution) => otherwise.filter(|version| *version >= execution.version),
        None => otherwise,
    }
}

/// Whether an execution that the new version does not want is kept until that is the good one.
fn is_kept(job: &JobFacts, execution: &ExecutionFacts) -> bool {
    let stays = |turn: &Turn| turn.stays.contains(&execution.id);
    // A place that was given away is another's by now.
    execution.version < job.version && !execution.replaced && job.turn.as_ref().is_some_and(stays)
}

/// The row that makes an execution what is wanted of it; `target` is the version to run.
fn update(execution: &ExecutionFacts, target: Option<Version>, wanted: Desired) -> Option<Change> {
    let current = match wanted {
        Desired::Run => match target {
            Some(version) => version,
            None if execution.replaced => execution.version,
            None => return None,
        },
        Desired::Stop | Desired::Purge => execution.version,
    };
    let (version, attempt) = match wanted {
        Desired::Run if execution.version != current => (current, Attempt(1)),
        Desired::Run if execution.desired != Desired::Run => {
            (execution.version, execution.attempt.next())
        }
        Desired::Run if execution.replaced => {
            return Some(Change::Adopt {
                execution: execution.id,
            });
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
pub(crate) mod tests;
