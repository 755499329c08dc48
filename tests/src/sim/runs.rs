//! Runs in the simulator: what operators launch and call off, and what must hold of every task.
//!
//! R1 a task ends once, and stays as it ended. R2 what is not idempotent never moves records twice, unless it went on where
//! it was. R3 no limit is exceeded, on the orchestrator's disk or by what lives on edges. R4 when all is quiet no task is
//! active, and what waits says for what. R5 a run's state is what its tasks make of it, and what counts as completed was
//! completed by an edge.

use std::collections::BTreeMap;

use sluice_agent::{Assignment, Ending};
use sluice_api::{ErrorBody, ErrorCode, Run, RunLaunch};
use sluice_host::core::{ApiCall, Reply};
use sluice_host::store::{
    ExecutionRecord, RunStore as _, Store as _, TaskLimits, TaskPhase, TaskRecord,
};
use sluice_model::{
    Attempt, Desired, ExecutionId, ObservedPhase, RunId, RunState, TaskState, UnixMs,
};
use sluice_protocol::OutcomeKey;

use super::operators::{Order, Placing};
use super::world::World;

/// Every so many rounds all tasks are compared with what they were.
const COMPARED_EVERY: u64 = 16;

/// What a few tasks may take in a calm world, with a fault among them.
const RUNS_END_WITHIN_MS: u64 = 300_000;

/// Places of the pool that some jobs share.
const POOL: u32 = 2;

/// How many tasks may be active at once.
pub(super) fn limits() -> TaskLimits {
    TaskLimits {
        pools: BTreeMap::from([("gpu".to_owned(), POOL)]),
        ..TaskLimits::default()
    }
}

/// What was seen of runs.
#[derive(Debug, Default)]
pub struct RunsSeen {
    /// The runs that were answered, by their keys.
    pub runs: BTreeMap<String, RunId>,
    /// Launches and callings-off so far; numbers their orders.
    asked: u64,
    /// Which task an execution is a try of.
    tasks: BTreeMap<ExecutionId, u64>,
    ended: BTreeMap<u64, (Option<TaskState>, Option<UnixMs>)>,
    /// What is not idempotent and has moved records, by task.
    begun: BTreeMap<u64, ExecutionId>,
    rounds: u64,
}

impl RunsSeen {
    /// The runs that were answered.
    pub(super) fn known(&self) -> Vec<RunId> {
        self.runs.values().copied().collect()
    }

    /// There will be some, though nobody launches any.
    pub(super) fn expect_some(&mut self) {
        self.asked += 1;
    }
}

impl World {
    /// Launches a job, on named edges or where there is room; repeated under its key until it is answered. Returns the key.
    pub fn launch(&mut self, job: &str, nodes: &[usize]) -> String {
        self.runs.asked += 1;
        let key = format!("launch {}", self.runs.asked);
        let order = Order::Launch {
            job: job.to_owned(),
            nodes: nodes.to_vec(),
        };
        assert!(self.order(&key, order), "each launch has a key of its own");
        key
    }

    /// Calls a run off.
    pub fn call_off(&mut self, run: RunId) {
        self.runs.asked += 1;
        let key = format!("cancel {}", self.runs.asked);
        assert!(self.order(&key, Order::CallOff { run }));
    }

    /// A run as the API shows it.
    pub fn run(&mut self, id: RunId) -> Run {
        match self.ask(ApiCall::Run(id)) {
            Ok(Reply::Run(run)) => *run,
            other => panic!("run {id}: {other:?}"),
        }
    }

    /// Something about runs, at random.
    pub(super) fn order_run_at_random(&mut self, job: &str) {
        if self.random.one_in(8) {
            self.order_schedule_at_random(job);
            return;
        }
        let known: Vec<RunId> = self.runs.runs.values().copied().collect();
        if !known.is_empty() && self.random.one_in(5) {
            let run = *self.random.pick(&known);
            self.call_off(run);
            return;
        }
        let edges = self.edges.len() as u64;
        let nodes = if self.random.one_in(4) {
            vec![usize::try_from(self.random.below(edges)).expect("small")]
        } else {
            Vec::new()
        };
        self.launch(job, &nodes);
    }

    pub(super) fn run_call(&self, key: &str, order: &Order) -> ApiCall {
        match order {
            Order::Launch { job, nodes } => {
                let nodes = nodes.iter().map(|&edge| self.edges[edge].name.clone());
                let launch = RunLaunch {
                    jobs: vec![job.parse().expect("the simulator's job names are names")],
                    nodes: nodes.collect(),
                    ..RunLaunch::default()
                };
                ApiCall::Launch(launch, Some(key.to_owned()), None)
            }
            Order::CallOff { run } => ApiCall::CancelRun(*run),
            other => panic!("{other:?} is not about a run"),
        }
    }

    /// Notes the answer to an order about a run; `false` when there was none.
    pub(super) fn handle_run_reply(&mut self, key: &str, reply: Result<Reply, ErrorBody>) -> bool {
        match reply {
            Ok(Reply::Run(run) | Reply::LaunchedBefore(run)) => {
                if key.starts_with("launch") {
                    let known = self.runs.runs.insert(key.to_owned(), run.id);
                    assert!(
                        known.is_none_or(|known| known == run.id),
                        "{key} is two runs"
                    );
                }
                self.note(
                    "operator",
                    format_args!("{key}: run {} {}", run.id, run.state),
                );
                true
            }
            // The job is gone, stopped, of another kind, or does not fit the node: nothing was launched.
            Err(error) => self.handle_refusal(key, &error),
            Ok(reply) => panic!("{key} answered with {reply:?}"),
        }
    }

    /// Whether a refusal answers an order about a run or a schedule: a fault of the store does not, and others there are none.
    pub(super) fn handle_refusal(&mut self, key: &str, error: &ErrorBody) -> bool {
        match error.code {
            ErrorCode::NotFound | ErrorCode::Conflict | ErrorCode::Invalid => {
                let why = &error.message;
                self.note("operator", format_args!("{key}: refused: {why}"));
                true
            }
            ErrorCode::Internal | ErrorCode::DiskFull => false,
            _ => panic!("{key} was refused: {error:?}"),
        }
    }

    /// R1 and R3, on the orchestrator's disk and on the edges.
    pub(super) fn check_tasks(&mut self) {
        if self.runs.asked == 0 {
            return;
        }
        self.runs.rounds += 1;
        let active = self
            .orchestrator
            .look(|store| store.active_tasks())
            .expect("readable");
        let mut of_job = BTreeMap::new();
        let mut of_node = BTreeMap::new();
        let pooled = active.iter().filter(|task| task.pool.is_some()).count();
        assert!(
            pooled <= usize::try_from(POOL).expect("small"),
            "R3: {pooled} tasks have places of a pool that has {POOL}"
        );
        for task in &active {
            let execution = task.execution.expect("an active task has one");
            self.runs.tasks.insert(execution, task.seq);
            // Versions may differ in it: what was placed under a higher one may still be there.
            let (count, max) = of_job.entry(task.job).or_insert((0_u32, 0));
            *count += 1;
            *max = task.concurrency.unwrap_or(u32::MAX).max(*max);
            let (node, _) = task.node.as_ref().expect("an active task has one");
            let count = of_node.entry(*node).or_insert(0_u32);
            *count += 1;
            assert!(
                *count <= TaskLimits::default().per_node,
                "R3: {count} on one node"
            );
        }
        for (job, (count, max)) in &of_job {
            assert!(
                count <= max,
                "R3: {count} active tasks of {job}, the limit is {max}"
            );
        }
        self.check_lives(&of_job);
        if self.runs.rounds.is_multiple_of(COMPARED_EVERY) {
            self.compare_ended();
        }
    }

    /// What lives on edges and is still wanted there: never more of a job than its limit.
    fn check_lives(&mut self, of_job: &BTreeMap<sluice_model::JobId, (u32, u32)>) {
        let mut lives = BTreeMap::new();
        for edge in 0..self.edges.len() {
            for (execution, work) in self.live_work(edge) {
                if work.assignment.slot != sluice_model::Slot::ZERO {
                    let job = work.assignment.job;
                    lives.entry(job).or_insert_with(Vec::new).push(execution);
                }
            }
        }
        for (job, executions) in lives {
            let wanted = self
                .orchestrator
                .look(|store| {
                    let mut wanted = 0;
                    for execution in executions {
                        let record = store.execution(execution)?;
                        wanted += u32::from(record.is_some_and(|it| it.desired == Desired::Run));
                    }
                    Ok(wanted)
                })
                .expect("readable");
            // What has just ended there is not known to have: then it is still active here.
            let (active, _) = of_job.get(&job).copied().unwrap_or_default();
            assert!(
                wanted <= active,
                "R3: {wanted} tasks of a job live on edges and are wanted there, {active} are active"
            );
        }
    }

    fn compare_ended(&mut self) {
        for run in self.runs.known() {
            self.check_held(run);
            let tasks = self
                .orchestrator
                .look(|store| store.tasks_of_run(run))
                .expect("readable");
            assert!(!tasks.is_empty(), "a run that was answered is gone: {run}");
            for task in tasks {
                let is = (task.end, task.ended_at);
                let was = self.runs.ended.get(&task.seq).copied();
                assert!(
                    was.is_none_or(|was| was == is),
                    "R1: {was:?} becomes {is:?}"
                );
                if task.phase == TaskPhase::Ended {
                    self.runs.ended.insert(task.seq, is);
                }
            }
        }
    }

    /// R2: work of a task moves records.
    pub(super) fn check_task_begins(&mut self, assignment: &Assignment) {
        if !assignment.once {
            return;
        }
        let execution = assignment.execution;
        let task = self.runs.tasks.get(&execution).copied();
        let task = task.expect("an edge runs what is a try of a task");
        let before = self.runs.begun.insert(task, execution);
        assert_eq!(
            before, None,
            "R2: {} is not idempotent and is executed again",
            assignment.job_name
        );
    }

    pub(super) fn note_task_ends(&mut self, assignment: &Assignment, ending: &Ending) {
        if !assignment.once || *ending != Ending::Stopped {
            return;
        }
        // It goes on where it was, if it goes on.
        if let Some(task) = self.runs.tasks.get(&assignment.execution) {
            self.runs.begun.remove(task);
        }
    }

    /// R4's first half: every task has ended, or waits.
    pub(super) fn settled_runs(&mut self) -> Result<(), String> {
        let active = self.orchestrator.look(|store| store.active_tasks())?;
        if let Some(task) = active.first() {
            return Err(format!(
                "a task of {} is active on {:?}, stopping {:?}",
                task.job_name, task.node, task.stopping
            ));
        }
        // A try that is due is placed with the next tick.
        let patience = i64::try_from(self.config.heartbeat_ms).expect("small");
        let due = self.orchestrator.now(self.now_ms).unix.0 - patience;
        let runs: Vec<RunId> = self.runs.runs.values().copied().collect();
        for run in runs {
            let tasks = self.orchestrator.look(|store| store.tasks_of_run(run))?;
            let waits = |task: &&TaskRecord| task.phase == TaskPhase::Waiting;
            if let Some(task) = tasks.iter().filter(waits).find(|it| it.not_before.0 > due) {
                return Err(format!("a task of {} is tried again", task.job_name));
            }
        }
        Ok(())
    }

    /// Whether a job's executions are as its runs left them; those that are kept, by edge.
    pub(super) fn settled_tries(
        &mut self,
        executions: &[ExecutionRecord],
    ) -> Result<Vec<(usize, ExecutionId)>, String> {
        let mut kept = Vec::new();
        for execution in executions {
            let at = self
                .checks
                .nodes
                .iter()
                .find(|(_, node)| **node == execution.node);
            let edge = *at.ok_or("on a node that is none")?.0;
            if self.live_work(edge).contains_key(&execution.id) {
                return Err(format!("{} lives, and no task is active", execution.id));
            }
            if execution.desired == Desired::Purge {
                return Err(format!("{} is not purged", execution.id));
            }
            kept.push((edge, execution.id));
        }
        Ok(kept)
    }

    /// R4's second half: what is not over and does not run says why, what comes next, and when.
    pub(super) fn check_runs_told(runs: &[Run]) {
        let told = |text: &Option<String>| text.as_ref().is_some_and(|it| !it.is_empty());
        for task in runs.iter().flat_map(|run| &run.tasks) {
            let well = match task.state {
                TaskState::Pending => {
                    let next = task.next_action.as_deref().unwrap_or_default();
                    told(&task.reason)
                        && !next.is_empty()
                        && (task.next_at.is_some() || next.starts_with("when "))
                }
                TaskState::Running | TaskState::Completed => true,
                TaskState::Failed | TaskState::Cancelled | TaskState::TimedOut => {
                    told(&task.reason)
                }
            };
            assert!(well, "R4: a state without its reason: {task:?}");
        }
    }

    /// Waits until every task of every run has ended.
    pub fn await_runs(&mut self) {
        self.run_until("every run ends", RUNS_END_WITHIN_MS, |world| {
            let open = world.orchestrator.look(|store| store.open_tasks());
            world.operators.open.is_empty() && open.expect("readable") == 0
        });
    }

    /// R4 and R5, when everything is quiet.
    pub(super) fn check_runs_quiet(&mut self) {
        self.compare_ended();
        let runs: Vec<RunId> = self.runs.runs.values().copied().collect();
        for id in runs {
            let run = self.run(id);
            let states: Vec<TaskState> = run.tasks.iter().map(|task| task.state).collect();
            let any = |state| states.contains(&state);
            let expected = if any(TaskState::Pending) {
                [RunState::Pending, RunState::Running]
            } else if any(TaskState::Failed) {
                [RunState::Failed; 2]
            } else if any(TaskState::TimedOut) {
                [RunState::TimedOut; 2]
            } else if any(TaskState::Cancelled) {
                [RunState::Cancelled; 2]
            } else {
                [RunState::Completed; 2]
            };
            assert!(expected.contains(&run.state), "R5: {run:?}");
            for task in &run.tasks {
                let told = |text: &Option<String>| text.as_ref().is_some_and(|it| !it.is_empty());
                match task.state {
                    TaskState::Running => panic!("R4: {task:?}"),
                    TaskState::Pending => {
                        assert!(
                            told(&task.reason) && told(&task.next_action),
                            "R4: {task:?}"
                        );
                        let reason = task.reason.as_deref().unwrap_or_default();
                        assert!(
                            reason.starts_with("no node can take it"),
                            "R4: it could go, and waits: {task:?}"
                        );
                    }
                    TaskState::Completed => {
                        let key = OutcomeKey {
                            execution: task.execution.expect("it was executed"),
                            version: task.version,
                            attempt: Attempt(1),
                        };
                        let seen = self.checks.outcomes.get(&key);
                        assert_eq!(
                            seen.or(self.checks.lost_outcomes.get(&key)),
                            Some(&ObservedPhase::Completed),
                            "R5: no edge completed {task:?}"
                        );
                    }
                    TaskState::Failed | TaskState::Cancelled | TaskState::TimedOut => {
                        assert!(told(&task.reason), "R4: {task:?}");
                    }
                }
            }
        }
    }
}

/// Whether a job is launched rather than placed.
pub(super) fn is_batch(placing: Placing) -> bool {
    matches!(placing, Placing::Batch(_))
}
