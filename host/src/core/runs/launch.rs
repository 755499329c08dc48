//! A launch: checked whole, then stored as one run with its tasks.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use sluice_api::{ErrorBody, ErrorCode, RUN_JOBS_MAX, RUN_TASKS_MAX, RunLaunch};
use sluice_model::pipeline::{Kind, ParamError};
use sluice_model::{Attempt, Digest, Fence, JobName, NodeId, NodeName, RunId, UnixMs};
use sluice_protocol::SpecStdin;
use sluice_scheduler::mismatch;
use tracing::info;

use super::super::operator::{Called, Reply, no_job, no_node};
use super::super::tally::count;
use super::super::{Core, Step};
use crate::store::{
    JobRecord, NodeRecord, RunRecord, SpentKey, Store, StoreError, TaskPhase, TaskRecord, TickOf,
};

impl<S: Store> Core<S> {
    /// Stores a run with its tasks, or finds the one that this key named before. A key is everybody's, and holds as long as
    /// its run is kept and for a day at least.
    pub(in crate::core) fn launch(
        &mut self,
        launch: &RunLaunch,
        key: Option<&str>,
        stdin_bytes: Option<u64>,
        step: &mut Step,
    ) -> Result<Called, StoreError> {
        let asked = serde_json::to_vec(launch).expect("a launch has nothing JSON cannot say");
        let request = Digest::of(&asked);
        if let Some(key) = key
            && let Some(answer) = self.launched_before(key, request, step)?
        {
            return Ok(answer);
        }
        let stdin = match (launch.stdin, stdin_bytes) {
            (Some(digest), Some(size)) => Some(SpecStdin { digest, size }),
            (None, _) => None,
            (Some(digest), None) => {
                let message = format!("the stdin {digest} is not on the orchestrator");
                return Ok(Err(ErrorBody::new(ErrorCode::Invalid, message).with_help(
                    "upload it first, with `PUT /v1/stdin/DIGEST`; `sluice run launch --stdin` does",
                )));
            }
        };
        let asked = Asked { launch, stdin };
        let (run, tasks) = match self.prepare_launch(asked, key, request, None, step.now.unix)? {
            Ok(prepared) => prepared,
            Err(refused) => return Ok(Err(refused)),
        };
        self.keep_run(&run, &tasks)?;
        let shown = self.show_run(&run, step.now.unix)?;
        Ok(Ok(Reply::Run(Box::new(shown))))
    }

    /// What a launch with this key is answered when there was one before, whoever asked for it.
    fn launched_before(
        &mut self,
        key: &str,
        request: Digest,
        step: &Step,
    ) -> Result<Option<Called>, StoreError> {
        let conflict = |message: String| {
            Ok(Some(Err(ErrorBody::new(ErrorCode::Conflict, message)
                .with_help(
                    "use a new key for each launch, and the same one only to repeat it",
                ))))
        };
        let (of, run) = match self.store.run_by_key(key)? {
            Some(run) => (run.request, Ok(run)),
            None => match self.store.spent_key(key)? {
                Some(spent) => (spent.request, Err(spent)),
                None => return Ok(None),
            },
        };
        if of != request {
            return conflict("this Idempotency-Key was used for another launch".to_owned());
        }
        match run {
            Ok(run) => {
                let shown = self.show_run(&run, step.now.unix)?;
                Ok(Some(Ok(Reply::LaunchedBefore(Box::new(shown)))))
            }
            Err(SpentKey {
                run, launched_at, ..
            }) => conflict(format!(
                "this launch was made at {launched_at}, as run {run}, which has ended and is not kept any more"
            )),
        }
    }

    /// Keeps a prepared run: from the commit on its tasks can be claimed.
    pub(in crate::core) fn keep_run(
        &mut self,
        run: &RunRecord,
        tasks: &[TaskRecord],
    ) -> Result<(), StoreError> {
        self.store.insert_run(run, tasks)?;
        self.history.note_rows(1 + tasks.len());
        count(&self.tally.runs_launched);
        let launched = &self.tally.tasks_launched;
        launched.fetch_add(tasks.len() as u64, Ordering::Relaxed);
        self.runs_open = true;
        self.runs_due = true;
        info!(event = "run.launch", run = %run.id, tasks = tasks.len());
        Ok(())
    }

    /// Checks a launch, and makes the run and its tasks without keeping them; what it stores are specs, which are swept
    /// when nothing names them.
    pub(in crate::core) fn prepare_launch(
        &mut self,
        asked: Asked<'_>,
        key: Option<&str>,
        request: Digest,
        tick: Option<TickOf>,
        now: UnixMs,
    ) -> Result<Result<(RunRecord, Vec<TaskRecord>), ErrorBody>, StoreError> {
        let launch = asked.launch;
        if launch.jobs.is_empty() || launch.jobs.len() > RUN_JOBS_MAX {
            let message = format!("a launch names 1 to {RUN_JOBS_MAX} jobs");
            return Ok(Err(ErrorBody::new(ErrorCode::Invalid, message)));
        }
        let names = distinct(&launch.nodes);
        // Each would be a task. Said before any of them is looked up.
        if names.len() > RUN_TASKS_MAX {
            let message = format!(
                "a launch names at most {RUN_TASKS_MAX} nodes, this one names {}",
                names.len()
            );
            return Ok(Err(ErrorBody::new(ErrorCode::Invalid, message).with_help(
                "launch it in parts, or let `count` and `[select]` choose",
            )));
        }
        let mut nodes = Vec::with_capacity(names.len());
        for name in names {
            match self.store.node_by_name(name)? {
                Some(node) => nodes.push(node),
                None => return Ok(Err(no_node(name))),
            }
        }
        let id = RunId::from_random((self.random)());
        let mut tasks = Vec::new();
        let mut wrong = Vec::new();
        let mut declared = BTreeSet::new();
        let mut reads_stdin = false;
        let named: BTreeSet<&JobName> = launch.jobs.iter().collect();
        for name in &named {
            let Some(job) = self.store.job_by_name(name)? else {
                return Ok(Err(no_job(name)));
            };
            match self.tasks_of_launch(id, &job, asked, &nodes)? {
                Ok(made) => {
                    reads_stdin |= made.reads_stdin;
                    tasks.extend(made.tasks);
                    declared.extend(made.params);
                }
                Err(NoLaunch::Refused(error)) => return Ok(Err(error)),
                Err(NoLaunch::Wrong { problems, params }) => {
                    wrong.extend(problems.iter().map(ToString::to_string));
                    declared.extend(params);
                }
            }
        }
        let known: Vec<&str> = declared.iter().map(String::as_str).collect();
        for name in launch
            .params
            .keys()
            .filter(|name| !declared.contains(*name))
        {
            let error = ParamError::Unknown {
                job: match launch.jobs.as_slice() {
                    [job] => job.to_string(),
                    _ => "no job of the launch".to_owned(),
                },
                name: name.clone(),
                known: (!known.is_empty()).then(|| known.join(", ")),
            };
            wrong.push(error.to_string());
        }
        if !wrong.is_empty() {
            let message = "the launch has problems with its parameters; nothing was launched";
            return Ok(Err(ErrorBody::new(ErrorCode::Invalid, message)
                .with_detail(wrong.join("\n"))
                .with_help(
                    "the pipeline's `[params]` declares them: `sluice job describe` shows it",
                )));
        }
        if asked.stdin.is_some() && !reads_stdin {
            let names: Vec<&str> = named.iter().map(|name| name.as_str()).collect();
            let message = format!(
                "the launch brings stdin, and nothing of it reads that: {}",
                names.join(", ")
            );
            return Ok(Err(ErrorBody::new(ErrorCode::Invalid, message).with_help(
                "launch it without, or give a job `[input.stdin]` and deploy it again",
            )));
        }
        if tasks.len() > RUN_TASKS_MAX {
            let message = format!(
                "a run has at most {RUN_TASKS_MAX} tasks, this one would have {}",
                tasks.len()
            );
            return Ok(Err(
                ErrorBody::new(ErrorCode::Invalid, message).with_help("launch it in parts")
            ));
        }
        let open_max = self.config.limits.open;
        let open = self.store.open_tasks()?;
        if open + tasks.len() as u64 > open_max {
            let message = format!(
                "{open} tasks wait or run, {} more would be above the bound of {open_max}; nothing was launched",
                tasks.len()
            );
            return Ok(Err(ErrorBody::new(ErrorCode::RateLimited, message).with_help(
                "launch it again when some have ended, or call runs off: `sluice run list --state pending`, `sluice run \
                 cancel ID`",
            )));
        }
        let run = RunRecord {
            id,
            key: key.map(str::to_owned),
            request,
            params: launch.params.clone(),
            stdin: launch.stdin,
            tick,
            launched_at: now,
        };
        Ok(Ok((run, tasks)))
    }

    /// One job's tasks, and the parameters that it declares.
    fn tasks_of_launch(
        &mut self,
        run: RunId,
        job: &JobRecord,
        asked: Asked<'_>,
        nodes: &[NodeRecord],
    ) -> Result<Result<Made, NoLaunch>, StoreError> {
        let refused = |code, message: String, help: String| {
            Ok(Err(NoLaunch::Refused(
                ErrorBody::new(code, message).with_help(help),
            )))
        };
        let name = &job.name;
        let mut spec = self.spec_of(job.spec)?;
        let Some(pipeline) = self.readable_pipeline(job.spec)? else {
            let message = format!("this program cannot read the pipeline of {name} any more");
            return refused(ErrorCode::Conflict, message, "deploy it again".to_owned());
        };
        let (Kind::Batch { count }, Some(batch)) = (pipeline.kind, &pipeline.batch) else {
            let message = format!("{name} is no batch job: it runs as long as it is deployed");
            let help = "write `kind = \"batch\"` in its pipeline and deploy it".to_owned();
            return refused(ErrorCode::Conflict, message, help);
        };
        if job.stopped {
            let help = format!("`sluice job start {name}` starts it again");
            return refused(ErrorCode::Conflict, format!("{name} is stopped"), help);
        }
        if let Some(pool) = &batch.pool
            && !self.config.limits.pools.contains_key(pool)
        {
            let message =
                format!("{name} takes a place of the pool `{pool}`, and there is no such pool");
            let help = format!("start the orchestrator with `--pool {pool}=SIZE`");
            return refused(ErrorCode::Conflict, message, help);
        }
        for node in nodes {
            if let Some(why) = mismatch(&pipeline.select, &self.node_facts(node, None)) {
                let message = format!("{name} cannot run on {}: {why}", node.name);
                let help = "name another node, or change the job's `[select]`".to_owned();
                return refused(ErrorCode::Invalid, message, help);
            }
        }
        let reads_stdin = pipeline.reads_stdin();
        if reads_stdin {
            spec.stdin = asked.stdin;
            // In `sluice dev` it reads the console.
            if asked.stdin.is_none() && !self.takes_local_pipelines {
                let message = format!("{name} reads `[input.stdin]`, and nothing brings it one");
                let help = format!(
                    "launch it with `sluice run launch {name} --stdin FILE`, or with `--stdin -` and a pipe; what a schedule \
                     launches reads a file or runs a command: `[input.file]`, `[input.exec]`"
                );
                return refused(ErrorCode::Invalid, message, help);
            }
        }
        let params: Vec<String> = batch.params.keys().cloned().collect();
        spec.params = match batch.resolve(name.as_str(), &asked.launch.params) {
            Ok(params) => params,
            Err(problems) => return Ok(Err(NoLaunch::Wrong { problems, params })),
        };
        let (digest, bytes) = (spec.digest(), spec.encode());
        self.store.put_spec(digest, &bytes)?;
        let places: Vec<Option<NodeId>> = if nodes.is_empty() {
            (0..count).map(|_| None).collect()
        } else {
            nodes.iter().map(|node| Some(node.id)).collect()
        };
        let task = |pinned| TaskRecord {
            seq: 0,
            run,
            job: job.id,
            job_name: name.clone(),
            version: job.version,
            spec: digest,
            pinned,
            priority: batch.priority,
            concurrency: batch.concurrency,
            pool: batch.pool.clone(),
            phase: TaskPhase::Waiting,
            attempt: Attempt::ZERO,
            failures: 0,
            // At once, whatever the clock does.
            not_before: UnixMs(0),
            execution: None,
            node: None,
            exposed: false,
            wiped: false,
            refused: BTreeSet::new(),
            stopping: None,
            claimed_by: None,
            claimed_until: None,
            fence: Fence::ZERO,
            deadline: None,
            started_at: None,
            ended_at: None,
            end: None,
            fail: None,
            reason: String::new(),
            records_in: 0,
            records_out: 0,
        };
        Ok(Ok(Made {
            tasks: places.into_iter().map(task).collect(),
            params,
            reads_stdin,
        }))
    }
}

/// Each name once, where it stands first.
pub(in crate::core) fn distinct(names: &[NodeName]) -> Vec<&NodeName> {
    let mut seen = BTreeSet::new();
    names.iter().filter(|name| seen.insert(*name)).collect()
}

/// One job's part of a launch.
struct Made {
    tasks: Vec<TaskRecord>,
    /// The names of the parameters that it declares.
    params: Vec<String>,
    /// Whether it reads what the launch brings.
    reads_stdin: bool,
}

/// A launch, with what was found of the stdin that it names.
#[derive(Clone, Copy)]
pub(in crate::core) struct Asked<'a> {
    pub(in crate::core) launch: &'a RunLaunch,
    pub(in crate::core) stdin: Option<SpecStdin>,
}

/// Why a job is not launched.
enum NoLaunch {
    Refused(ErrorBody),
    Wrong {
        problems: Vec<ParamError>,
        params: Vec<String>,
    },
}
