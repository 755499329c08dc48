//! Runs and their tasks: records, and the verbs that a [`super::Store`] has for them.
//!
//! A task is *waiting*, *active* or *ended*. Who works on an active one holds a claim: a name, a time until which it
//! holds, and a fence that grows with each claim. A write that does not carry the newest claim changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use sluice_model::{
    Attempt, Digest, ExecutionId, FailReason, Fence, JobId, JobName, NodeId, NodeName, RunId,
    TaskState, UnixMs, Version,
};

use super::StoreError;

/// One launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRecord {
    /// Its id.
    pub id: RunId,
    /// What its client named it by, so that a repeated launch is the same run.
    pub key: Option<String>,
    /// SHA-256 of what was asked, to tell a repeated launch from another one with the same key.
    pub request: Digest,
    /// What the launch said, as text.
    pub params: BTreeMap<String, String>,
    /// What the launch brought for `[input.stdin]`.
    pub stdin: Option<Digest>,
    /// The tick that launched it; a tick launches at most one.
    pub tick: Option<super::TickOf>,
    /// When it was launched.
    pub launched_at: UnixMs,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskPhase {
    /// To be claimed and placed.
    Waiting,
    /// Claimed, with an execution.
    Active,
    /// Over, for good.
    Ended,
}

/// One task of a run: one job on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    /// Grows with each task; 0 in one that is not stored yet.
    pub seq: u64,
    /// Its run.
    pub run: RunId,
    /// Its job.
    pub job: JobId,
    /// The job's name; stays when the job is deleted.
    pub job_name: JobName,
    /// The job's version at the launch.
    pub version: Version,
    /// That version's spec, with the run's parameters.
    pub spec: Digest,
    /// The one node that it may go to.
    pub pinned: Option<NodeId>,
    /// Higher ones are placed first.
    pub priority: i32,
    /// Tasks of the job that may be active at once.
    pub concurrency: Option<u32>,
    /// The pool that it takes a place of.
    pub pool: Option<String>,
    /// Where it stands.
    pub phase: TaskPhase,
    /// Which try it is; 0 before the first.
    pub attempt: Attempt,
    /// Tries that failed. The others were refused, drained or lost, which costs no retry.
    pub failures: u64,
    /// Not placed before then.
    pub not_before: UnixMs,
    /// The newest try's execution.
    pub execution: Option<ExecutionId>,
    /// The newest try's node.
    pub node: Option<(NodeId, NodeName)>,
    /// The newest try's row may have reached the edge.
    pub exposed: bool,
    /// The edge lost its store since.
    pub wiped: bool,
    /// Nodes that refused it.
    pub refused: BTreeSet<NodeId>,
    /// It was ordered to stop: the [`sluice_scheduler::Stopping`] in the store's words.
    pub stopping: Option<sluice_scheduler::Stopping>,
    /// The claim's holder.
    pub claimed_by: Option<String>,
    /// Until when the claim holds.
    pub claimed_until: Option<UnixMs>,
    /// The claim's fence.
    pub fence: Fence,
    /// When it is over its timeout, by the clock that there was; counts for a process that did not see it begin.
    pub deadline: Option<UnixMs>,
    /// When its first try was placed.
    pub started_at: Option<UnixMs>,
    /// When it ended.
    pub ended_at: Option<UnixMs>,
    /// How it ended.
    pub end: Option<TaskState>,
    /// With `failed` and its like: the sort.
    pub fail: Option<FailReason>,
    /// Why it ended or waits, in words.
    pub reason: String,
    /// Records that it took in.
    pub records_in: u64,
    /// Records that its output accepted.
    pub records_out: u64,
}

/// Tasks that are placed alike: what keeps one of them from a node keeps them all, but for what their runs have taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskGroup {
    /// The job.
    pub job: JobId,
    /// Its version, which says the selector, the pool and the concurrency.
    pub version: Version,
    /// Higher ones are placed first.
    pub priority: i32,
    /// The one node that they may go to.
    pub pinned: Option<NodeId>,
}

/// When a group has its turn: the highest priority first, among equals the one that has waited longest. No two have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The group's priority.
    pub priority: i32,
    /// Its oldest task that waits.
    pub oldest: u64,
}

/// Tasks that wait or are active: some fifty megabytes of rows, and hours of work for a small fleet. Who launches more has
/// a loop that nobody meant.
pub const OPEN_TASKS_MAX: u64 = 100_000;

/// What limits how many tasks are active at once, and how many are open at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskLimits {
    /// Waiting or active; a launch above it is refused.
    pub open: u64,
    /// Altogether.
    pub all: u32,
    /// On one node.
    pub per_node: u32,
    /// In each named pool.
    pub pools: BTreeMap<String, u32>,
}

impl Default for TaskLimits {
    fn default() -> Self {
        Self {
            open: OPEN_TASKS_MAX,
            // Each is a row, an instance and reports: what one orchestrator and its store turn over in seconds.
            all: 1_000,
            // Each has up to 64 MiB of guest memory for each stage.
            per_node: 8,
            pools: BTreeMap::new(),
        }
    }
}

/// What a claim gives a waiting task.
#[derive(Clone, Debug)]
pub struct TaskClaim<'a> {
    /// The task.
    pub seq: u64,
    /// Who claims it.
    pub worker: &'a str,
    /// From when.
    pub now: UnixMs,
    /// Until when.
    pub until: UnixMs,
    /// Where it is placed.
    pub node: (NodeId, &'a NodeName),
    /// The execution of this try.
    pub execution: ExecutionId,
    /// The node is connected, so that its row goes out.
    pub exposed: bool,
    /// When it will be over its timeout.
    pub deadline: Option<UnixMs>,
    /// What must hold in the same statement.
    pub limits: &'a TaskLimits,
}

/// How a claimed task ends, or why it waits again.
#[derive(Clone, Debug)]
pub struct TaskEnd {
    /// How; `None` = it waits for its next try.
    pub state: Option<TaskState>,
    /// The sort of failure.
    pub fail: Option<FailReason>,
    /// In words.
    pub reason: String,
    /// When.
    pub at: UnixMs,
    /// Not tried again before then.
    pub not_before: UnixMs,
    /// Tries that have failed by now. Nothing in [`RunStore::end_waiting`]: no try ends there.
    pub failures: u64,
    /// Nodes that refused it by now.
    pub refused: BTreeSet<NodeId>,
    /// Records that it took in.
    pub records_in: u64,
    /// Records that its output accepted.
    pub records_out: u64,
}

impl TaskEnd {
    /// Nothing has happened, and it waits.
    pub fn waiting(at: UnixMs) -> Self {
        Self {
            state: None,
            fail: None,
            reason: String::new(),
            at,
            not_before: at,
            failures: 0,
            refused: BTreeSet::new(),
            records_in: 0,
            records_out: 0,
        }
    }
}

/// Tasks that are active.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActiveCounts {
    /// Altogether.
    pub all: u64,
    /// By node.
    pub nodes: BTreeMap<NodeId, u64>,
    /// By job.
    pub jobs: BTreeMap<JobId, u64>,
    /// By pool.
    pub pools: BTreeMap<String, u64>,
}

impl ActiveCounts {
    /// Counts active tasks.
    pub fn add(&mut self, node: NodeId, job: JobId, pool: Option<&str>, count: u64) {
        self.all += count;
        *self.nodes.entry(node).or_default() += count;
        *self.jobs.entry(job).or_default() += count;
        if let Some(pool) = pool {
            *self.pools.entry(pool.to_owned()).or_default() += count;
        }
    }
}

/// Which runs are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunsOf {
    /// All.
    All,
    /// Those with a task of this job.
    Job(JobId),
}

/// Whose waiting tasks are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitingOf {
    /// All.
    All,
    /// A job's, without those of one run.
    Others {
        /// The job.
        job: JobId,
        /// The run.
        than: RunId,
    },
}

/// What has become of a run's tasks, altogether.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunProgress {
    /// How its tasks ended, each way once; `None` = one has not.
    pub ends: BTreeSet<Option<TaskState>>,
    /// One was placed.
    pub started: bool,
    /// How many tasks it has; 0 for a run that is forgotten.
    pub tasks: usize,
}

/// How much is kept of what has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The newest runs.
    pub runs: usize,
    /// Of these, the ones that have some of the newest tasks.
    pub tasks: usize,
}

/// A key whose run is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpentKey {
    /// The run.
    pub run: RunId,
    /// Hash of what was asked for.
    pub request: Digest,
    /// When.
    pub launched_at: UnixMs,
}

/// The verbs for runs. As with [`super::Store`], nothing reads a clock, and every call may block for the disk.
pub trait RunStore {
    /// Keeps a run with all its tasks.
    fn insert_run(&mut self, run: &RunRecord, tasks: &[TaskRecord]) -> Result<(), StoreError>;
    /// A run.
    fn run(&mut self, id: RunId) -> Result<Option<RunRecord>, StoreError>;
    /// The run that a client named by this key.
    fn run_by_key(&mut self, key: &str) -> Result<Option<RunRecord>, StoreError>;
    /// What a client named by this key, when that run is forgotten and its key is not.
    fn spent_key(&mut self, key: &str) -> Result<Option<SpentKey>, StoreError>;
    /// Forgets spent keys: those whose runs were launched before then, and all but the newest `kept`; at most `rows` of
    /// each sort. Whether there may be more.
    fn sweep_keys(&mut self, before: UnixMs, kept: usize, rows: usize) -> Result<bool, StoreError>;
    /// Runs, the newest first, at most `count`.
    fn runs(&mut self, of: RunsOf, count: usize) -> Result<Vec<RunRecord>, StoreError>;
    /// A run's tasks, in the order of the launch.
    fn tasks_of_run(&mut self, run: RunId) -> Result<Vec<TaskRecord>, StoreError>;
    /// What runs brought as stdin that have a task which has not ended, each once.
    fn stdins_of_open_runs(&mut self) -> Result<Vec<Digest>, StoreError>;
    /// What has become of a run's tasks, without reading each.
    fn progress_of_run(&mut self, run: RunId) -> Result<RunProgress, StoreError>;
    /// The newest run with a task of this job.
    fn last_run_of_job(&mut self, job: JobId) -> Result<Option<RunRecord>, StoreError>;
    /// Tasks whose next try is due by now wait for a place again, and so do those whose try would come after `latest`: the
    /// clock was ahead when that was said. How many these are.
    fn promote_tasks(&mut self, now: UnixMs, latest: UnixMs) -> Result<usize, StoreError>;
    /// Groups with tasks that wait for a place, in the order of their turns, from behind `after`, at most `count`. Costs
    /// what it returns, however many tasks wait.
    fn waiting_groups(
        &mut self,
        after: Option<Turn>,
        count: usize,
    ) -> Result<Vec<(TaskGroup, Turn)>, StoreError>;
    /// Tasks of a group that wait for a place, the oldest first, at most `count`; behind a task, and none of that task's
    /// run, when one is named.
    fn waiting_tasks(
        &mut self,
        group: TaskGroup,
        behind: Option<(u64, Option<RunId>)>,
        count: usize,
    ) -> Result<Vec<TaskRecord>, StoreError>;
    /// How many tasks wait for a place or their next try.
    fn waiting_count(&mut self, of: WaitingOf) -> Result<u64, StoreError>;
    /// Of tasks that wait and are placed alike, the oldest and how many there are; the oldest first, at most `count`.
    fn waiting_fronts(
        &mut self,
        of: WaitingOf,
        count: usize,
    ) -> Result<Vec<(TaskRecord, u64)>, StoreError>;
    /// Nodes that active or ended tasks of this run and job have or had.
    fn nodes_taken(&mut self, run: RunId, job: JobId) -> Result<BTreeSet<NodeId>, StoreError>;
    /// How many tasks have not ended.
    fn open_tasks(&mut self) -> Result<u64, StoreError>;
    /// Ends all tasks of a job that wait, as [`Self::end_waiting`] does; how many.
    fn end_waiting_of_job(&mut self, job: JobId, end: &TaskEnd) -> Result<usize, StoreError>;
    /// Ends all tasks that wait and may go to this node only, as [`Self::end_waiting`] does; how many.
    fn end_waiting_for_node(&mut self, node: NodeId, end: &TaskEnd) -> Result<usize, StoreError>;
    /// Every active task.
    fn active_tasks(&mut self) -> Result<Vec<TaskRecord>, StoreError>;
    /// The task whose newest try has this execution.
    fn task_of_execution(&mut self, id: ExecutionId) -> Result<Option<TaskRecord>, StoreError>;
    /// How many are active.
    fn active_counts(&mut self) -> Result<ActiveCounts, StoreError>;
    /// Claims a waiting task: in one statement it becomes active, at its next try, with its claim, its node and its
    /// execution, if nobody was faster and every limit has room. `None` when not.
    fn claim_task(&mut self, claim: &TaskClaim<'_>) -> Result<Option<TaskRecord>, StoreError>;
    /// Takes over active tasks whose claims ended before `expired`; each gets a higher fence. How many.
    fn reclaim_tasks(
        &mut self,
        worker: &str,
        expired: UnixMs,
        until: UnixMs,
    ) -> Result<usize, StoreError>;
    /// Makes one's own claims last longer.
    fn renew_claims(&mut self, worker: &str, until: UnixMs) -> Result<(), StoreError>;
    /// Ends a claimed task's try; `false` when the claim is not the newest any more, and nothing was changed.
    fn end_try(
        &mut self,
        seq: u64,
        worker: &str,
        fence: Fence,
        end: &TaskEnd,
    ) -> Result<bool, StoreError>;
    /// Ends a waiting task; `false` when it is not waiting.
    fn end_waiting(&mut self, seq: u64, end: &TaskEnd) -> Result<bool, StoreError>;
    /// A claimed task is being stopped, for this reason; `false` when the claim is not the newest any more.
    fn set_stopping(
        &mut self,
        seq: u64,
        worker: &str,
        fence: Fence,
        why: sluice_scheduler::Stopping,
        reason: &str,
    ) -> Result<bool, StoreError>;
    /// The rows of a node's active tasks go out with the session that begins; `wiped` when its edge has another store.
    fn expose_tasks(&mut self, node: NodeId, wiped: bool) -> Result<(), StoreError>;
    /// Executions of a job's tries on a node that have ended, the newest `kept` left out.
    fn old_executions(
        &mut self,
        job: JobId,
        node: NodeId,
        kept: usize,
    ) -> Result<Vec<ExecutionId>, StoreError>;
    /// Jobs with the nodes that have more than `kept` of their tries, ended or not, which were not ordered to purge them.
    fn crowded(&mut self, kept: usize) -> Result<Vec<(JobId, NodeId)>, StoreError>;
    /// A slot that no execution of the job has on the node; from 1.
    fn free_slot(&mut self, job: JobId, node: NodeId) -> Result<sluice_model::Slot, StoreError>;
    /// Looks at the runs behind `after` that are older than the newest that are `kept`, until that was `rows` rows, and forgets
    /// those that have ended, of which their keys stay; a run is looked at whole. Up to which one it looked, and whether there are more.
    fn sweep_runs(
        &mut self,
        after: u64,
        kept: Kept,
        rows: usize,
    ) -> Result<(u64, bool), StoreError>;
    /// Looks at the `count` specs behind `after` and forgets those that nothing names: a launch with parameters of its own
    /// has a spec of its own. Where to go on; `None` after the last.
    fn sweep_specs(
        &mut self,
        after: Option<Digest>,
        count: usize,
    ) -> Result<Option<Digest>, StoreError>;
}
