//! Placing: which waiting task goes next, and where.
//!
//! ```text
//!   something changed ──> a scan: every group in the order of its turn, the front of each by priority and age
//!        a task finds a node and room    ──> claimed, an execution, a row
//!        it alone does not               ──> the next one of its group
//!        nothing of its group can        ──> the next group
//! ```
//!
//! So what waits holds up nothing that could go. A scan is cut into rounds of bounded work; what changes meanwhile starts
//! another one after it.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use sluice_model::pipeline::Pipeline;
use sluice_model::{
    Attempt, Desired, ExecutionId, FailReason, JobId, NodeId, Revision, RunId, TaskState, UnixMs,
    Version,
};
use sluice_scheduler::{Candidate, RETRY_DELAY_MAX, Unfit, Wish, choose_node};
use tracing::info;

use super::super::{Core, Handled, LEASE, Output, Step};
use super::UNREADABLE;
use crate::store::{
    ActiveCounts, ExecutionRecord, NodeRecord, Store, StoreError, TaskClaim, TaskEnd, TaskGroup,
    TaskRecord, Turn,
};

/// Tasks placed in one transaction: keeps a flood of launches from delaying acks.
const PLACED_MAX: usize = 64;

/// Waiting tasks looked at in one transaction: some milliseconds.
const LOOKED_MAX: usize = 512;

/// Groups looked at together: between the tasks of these priority and age decide, and no group behind them has a higher
/// priority or an older task in front.
const GROUPS_MAX: usize = 256;

/// Tasks of a group that are read at once: as many as often find room together.
const READ_AT_ONCE: usize = 8;

/// Nodes that may refuse a task before it fails: by then it is the task.
const REFUSALS_MAX: usize = 8;

/// Pipelines that are kept parsed, each some kilobytes: the jobs that are launched within a short time.
const PIPELINES_MAX: usize = 256;

/// What placing remembers; all of it may be forgotten.
#[derive(Default)]
pub(in crate::core) struct Placing {
    /// A scan that is not through.
    scan: Option<Scan>,
    /// Nodes and active tasks, for the questions of one round.
    pub(in crate::core) look: Option<Look>,
    pipelines: Pipelines,
}

impl Placing {
    /// Whether there is more to look at.
    pub(in crate::core) fn is_under_way(&self) -> bool {
        self.scan.is_some()
    }
}

/// How far a scan of what waits has come.
#[derive(Debug, Default)]
struct Scan {
    /// Every group whose turn is not behind this one has been looked at.
    done: Option<Turn>,
    /// Of the groups behind it: how far each has been.
    at: BTreeMap<TaskGroup, At>,
}

#[derive(Clone, Copy, Debug)]
enum At {
    /// Up to this task, and nothing of this run.
    Behind(u64, Option<RunId>),
    /// Nothing of it can go now.
    End,
}

/// Jobs' pipelines as text, parsed. A version's text never changes.
#[derive(Debug, Default)]
struct Pipelines(BTreeMap<(JobId, Version), Arc<Pipeline>>);

/// The nodes and what is active on them, as one round sees them.
pub(in crate::core) struct Look {
    pub(super) nodes: BTreeMap<NodeId, NodeRecord>,
    pub(super) counts: ActiveCounts,
    kinds: BTreeMap<(JobId, Version), Option<Kind>>,
    taken: BTreeMap<(RunId, JobId), BTreeSet<NodeId>>,
    /// Where a task of a group would go whose run has taken nothing and which nobody refused.
    fresh: BTreeMap<TaskGroup, Result<NodeId, Unfit>>,
}

/// A job's version: what it asks for, and the nodes as it sees them.
struct Kind {
    pipeline: Arc<Pipeline>,
    candidates: Vec<Candidate>,
}

/// What became of one look at a task.
enum Placed {
    Yes,
    /// It has ended instead.
    Over,
    /// No room for it and its siblings of the run.
    NotItsRun,
    /// No room for any of its group.
    NotItsGroup,
    /// No room for any task.
    Nothing,
}

/// What a task lacks. The words are in `wait_of`.
pub(super) enum Lacks {
    /// A pipeline that can be read.
    Text,
    /// A node.
    Node(Unfit),
    /// A place among all.
    All,
    /// A place of its job.
    Job(u32),
    /// A place of its pool.
    Pool(String, u32),
    /// A place on the node that it would go to.
    OnNode,
}

impl TaskRecord {
    fn group(&self) -> TaskGroup {
        TaskGroup {
            job: self.job,
            version: self.version,
            priority: self.priority,
            pinned: self.pinned,
        }
    }
}

impl<S: Store> Core<S> {
    /// A task's pipeline; `None` for a text that this program does not read.
    pub(super) fn pipeline_of_task(
        &mut self,
        task: &TaskRecord,
    ) -> Result<Option<Arc<Pipeline>>, StoreError> {
        let key = (task.job, task.version);
        if let Some(known) = self.placing.pipelines.0.get(&key) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(pipeline) = self.readable_pipeline(task.spec)? else {
            return Ok(None);
        };
        if self.placing.pipelines.0.len() == PIPELINES_MAX {
            self.placing.pipelines.0.clear();
        }
        let pipeline = Arc::new(pipeline);
        self.placing.pipelines.0.insert(key, Arc::clone(&pipeline));
        Ok(Some(pipeline))
    }

    /// The nodes and what is active, as of now.
    pub(super) fn look(&mut self) -> Result<Look, StoreError> {
        let nodes = self.store.nodes()?.into_iter();
        Ok(Look {
            nodes: nodes.map(|node| (node.id, node)).collect(),
            counts: self.store.active_counts()?,
            kinds: BTreeMap::new(),
            taken: BTreeMap::new(),
            fresh: BTreeMap::new(),
        })
    }

    /// Where a task would go, or what it lacks. The claim checks the limits again.
    fn place_for(
        &mut self,
        task: &TaskRecord,
        look: &mut Look,
    ) -> Result<Result<NodeId, Lacks>, StoreError> {
        // First: what has no room at all is not asked where it would go.
        if let Some(lacks) = self.places_for(task, look) {
            return Ok(Err(lacks));
        }
        let node = match self.node_for(task, look)? {
            Ok(node) => node,
            Err(lacks) => return Ok(Err(lacks)),
        };
        Ok(match self.room_for(task, node, look) {
            None => Ok(node),
            Some(lacks) => Err(lacks),
        })
    }

    /// What keeps a task from this node, which has the fewest tasks of all that could take it.
    pub(super) fn room_for(&self, task: &TaskRecord, node: NodeId, look: &Look) -> Option<Lacks> {
        let on_node = look.counts.nodes.get(&node).copied().unwrap_or(0);
        self.places_for(task, look).or_else(|| {
            (on_node >= u64::from(self.config.limits.per_node)).then_some(Lacks::OnNode)
        })
    }

    fn places_for(&self, task: &TaskRecord, look: &Look) -> Option<Lacks> {
        let (limits, counts) = (&self.config.limits, &look.counts);
        if counts.all >= u64::from(limits.all) {
            return Some(Lacks::All);
        }
        let of_job = counts.jobs.get(&task.job).copied().unwrap_or(0);
        if let Some(max) = task.concurrency.filter(|max| of_job >= u64::from(*max)) {
            return Some(Lacks::Job(max));
        }
        let pool = task.pool.as_ref()?;
        let max = limits.pools.get(pool).copied().unwrap_or(0);
        let of_pool = counts.pools.get(pool).copied().unwrap_or(0);
        (of_pool >= u64::from(max)).then(|| Lacks::Pool(pool.clone(), max))
    }

    pub(super) fn node_for(
        &mut self,
        task: &TaskRecord,
        look: &mut Look,
    ) -> Result<Result<NodeId, Lacks>, StoreError> {
        let key = (task.job, task.version);
        if !look.kinds.contains_key(&key) {
            let kind = self.pipeline_of_task(task)?.map(|pipeline| Kind {
                candidates: look
                    .nodes
                    .values()
                    .map(|node| Candidate {
                        node: self.node_facts(node, Some(&pipeline)),
                        connected: self.live.contains_key(&node.id),
                    })
                    .collect(),
                pipeline,
            });
            look.kinds.insert(key, kind);
        }
        let siblings = (task.run, task.job);
        if let Entry::Vacant(unknown) = look.taken.entry(siblings) {
            unknown.insert(self.store.nodes_taken(task.run, task.job)?);
        }
        let Some(Some(kind)) = look.kinds.get(&key) else {
            return Ok(Err(Lacks::Text));
        };
        let taken = &look.taken[&siblings];
        let choose = || {
            let wish = Wish {
                job: task.job,
                select: &kind.pipeline.select,
                pinned: task.pinned,
                taken,
                refused: &task.refused,
            };
            choose_node(wish, &kind.candidates, &look.counts.nodes)
        };
        let chosen = if taken.is_empty() && task.refused.is_empty() {
            look.fresh
                .entry(task.group())
                .or_insert_with(choose)
                .clone()
        } else {
            choose()
        };
        Ok(chosen.map_err(Lacks::Node))
    }

    /// Claims and places waiting tasks, as many as the limits and one transaction have room for.
    pub(in crate::core) fn place_tasks(&mut self, step: &mut Step) -> Result<Handled, StoreError> {
        self.placing.look = None;
        let now = step.now.unix;
        self.store.promote_tasks(now, now.plus(RETRY_DELAY_MAX))?;
        let mut scan = match self.placing.scan.take() {
            Some(scan) => scan,
            None => {
                self.runs_due = false;
                Scan::default()
            }
        };
        if self.go_on(&mut scan, step)? {
            // What changed meanwhile is looked at from the front.
            if self.runs_due {
                step.out.push(Output::Again);
            }
        } else {
            self.placing.scan = Some(scan);
            step.out.push(Output::Again);
        }
        Ok(Handled::Keep)
    }

    /// One round of a scan; whether it has come to its end.
    fn go_on(&mut self, scan: &mut Scan, step: &mut Step) -> Result<bool, StoreError> {
        let groups = self.store.waiting_groups(scan.done, GROUPS_MAX)?;
        let Some(&(_, last)) = groups.last() else {
            return Ok(true);
        };
        let is_window = groups.len() == GROUPS_MAX;
        let mut look = self.look()?;
        let mut fronts = BTreeMap::new();
        for (group, turn) in groups {
            if scan.at.contains_key(&group) {
                self.push_front(group, VecDeque::new(), scan, &mut fronts)?;
            } else {
                // Its tasks are read when it has its turn.
                let key = (Reverse(turn.priority), turn.oldest);
                fronts.insert(key, (group, VecDeque::new()));
            }
        }
        let (mut placed, mut looked) = (0, 0);
        while let Some((_, (group, mut tasks))) = fronts.pop_first() {
            if placed == PLACED_MAX || looked == LOOKED_MAX {
                return Ok(false);
            }
            looked += 1;
            if tasks.is_empty() {
                tasks = self.store.waiting_tasks(group, None, READ_AT_ONCE)?.into();
            }
            let Some(task) = tasks.pop_front() else {
                continue;
            };
            let at = match self.place_task(&task, &mut look, step)? {
                Placed::Yes => {
                    placed += 1;
                    At::Behind(task.seq, None)
                }
                Placed::Over => At::Behind(task.seq, None),
                Placed::NotItsRun => {
                    tasks.retain(|other| other.run != task.run);
                    At::Behind(task.seq, Some(task.run))
                }
                Placed::NotItsGroup => {
                    tasks.clear();
                    At::End
                }
                Placed::Nothing => return Ok(true),
            };
            scan.at.insert(group, at);
            self.push_front(group, tasks, scan, &mut fronts)?;
        }
        scan.done = Some(last);
        scan.at.clear();
        Ok(!is_window)
    }

    /// Puts a group back with what is left of its tasks, reading more when nothing is.
    fn push_front(
        &mut self,
        group: TaskGroup,
        mut tasks: VecDeque<TaskRecord>,
        scan: &Scan,
        fronts: &mut Fronts,
    ) -> Result<(), StoreError> {
        if tasks.is_empty() {
            let behind = match scan.at.get(&group) {
                Some(At::End) => return Ok(()),
                Some(&At::Behind(seq, run)) => Some((seq, run)),
                None => None,
            };
            let more = self.store.waiting_tasks(group, behind, READ_AT_ONCE)?;
            tasks = more.into();
        }
        if let Some(first) = tasks.front() {
            fronts.insert((Reverse(group.priority), first.seq), (group, tasks));
        }
        Ok(())
    }

    /// Places one task, if a node and every limit have room for it.
    fn place_task(
        &mut self,
        task: &TaskRecord,
        look: &mut Look,
        step: &mut Step,
    ) -> Result<Placed, StoreError> {
        let now = step.now.unix;
        let Some(job) = self.store.job(task.job)?.filter(|job| !job.deleted) else {
            self.call_off(task, "its job was deleted", step)?;
            return Ok(Placed::Over);
        };
        if task.refused.len() >= REFUSALS_MAX {
            let reason = format!("{REFUSALS_MAX} nodes refused it; the last: {}", task.reason);
            self.end_refused(task, reason, now)?;
            return Ok(Placed::Over);
        }
        let chosen = match self.place_for(task, look)? {
            Ok(node) => node,
            Err(Lacks::Text) => {
                self.call_off(task, UNREADABLE, step)?;
                return Ok(Placed::Over);
            }
            Err(Lacks::All) => return Ok(Placed::Nothing),
            Err(Lacks::Job(_) | Lacks::Pool(..)) => return Ok(Placed::NotItsGroup),
            Err(Lacks::Node(Unfit::NoNode {
                reason,
                refused: true,
            })) => {
                let reason = format!("{}; no other node can take it: {reason}", task.reason);
                self.end_refused(task, reason, now)?;
                return Ok(Placed::Over);
            }
            Err(Lacks::Node(_) | Lacks::OnNode) => {
                let alike = task.refused.is_empty() && look.taken[&(task.run, task.job)].is_empty();
                return Ok(if alike {
                    Placed::NotItsGroup
                } else {
                    Placed::NotItsRun
                });
            }
        };
        let node = &look.nodes[&chosen];
        let pipeline = self
            .pipeline_of_task(task)?
            .expect("it was read for choosing the node");
        let batch = pipeline.batch.as_ref();
        let execution = ExecutionId::from_random((self.random)());
        let timeout = batch.and_then(|batch| batch.timeout);
        let worker = self.config.worker.clone();
        let claim = TaskClaim {
            seq: task.seq,
            worker: &worker,
            now,
            until: now.plus(LEASE),
            node: (node.id, &node.name),
            execution,
            exposed: true,
            deadline: timeout.map(|timeout| now.plus(timeout)),
            limits: &self.config.limits,
        };
        let Some(claimed) = self.store.claim_task(&claim)? else {
            return Ok(Placed::NotItsGroup);
        };
        info!(
            event = "run.claim",
            run = %claimed.run,
            job = %claimed.job_name,
            node = %node.name,
            attempt = claimed.attempt.0,
            fence = claimed.fence.0,
            execution = %execution,
        );
        if let Some(timeout) = timeout {
            self.deadlines.begin(execution, timeout, step.now.mono);
        }
        let slot = self.store.free_slot(job.id, node.id)?;
        let record = ExecutionRecord {
            id: execution,
            job: job.id,
            node: node.id,
            slot,
            version: task.version,
            attempt: Attempt(1),
            desired: Desired::Run,
            spec: task.spec,
            rev: Revision::ZERO,
            created_at: now,
            changed_at: now,
            replaced: false,
            once: batch.is_some_and(|batch| !batch.idempotent),
        };
        self.commit_row(&job, &record, step)?;
        look.counts.add(chosen, task.job, task.pool.as_deref(), 1);
        let taken = look.taken.entry((task.run, task.job)).or_default();
        taken.insert(chosen);
        // The fewest tasks are somewhere else now.
        look.fresh.clear();
        Ok(Placed::Yes)
    }

    fn end_refused(
        &mut self,
        task: &TaskRecord,
        reason: String,
        at: UnixMs,
    ) -> Result<(), StoreError> {
        let end = TaskEnd {
            state: Some(TaskState::Failed),
            fail: Some(FailReason::Rejected),
            reason,
            refused: task.refused.clone(),
            ..TaskEnd::waiting(at)
        };
        let done = self.store.end_waiting(task.seq, &end)?;
        self.tally.count_ends(end.state, u64::from(done));
        Ok(())
    }
}

/// The first tasks of groups, with some that follow; by priority, then by age.
type Fronts = BTreeMap<(Reverse<i32>, u64), (TaskGroup, VecDeque<TaskRecord>)>;
