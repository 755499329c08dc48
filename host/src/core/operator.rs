//! What operators ask and order.

use std::collections::{BTreeMap, BTreeSet};

use sluice_api::{DeployOutcome, DeployReply, DeployRequest, ErrorBody, ErrorCode, RolloutOrder};
use sluice_model::pipeline::{
    self, ENDLESS_REPORT, ENDLESS_REPORT_HELP, Kind, Params, Pipeline, PluginRef,
};
use sluice_model::{Digest, ExecutionId, JobId, JobName, NodeId, NodeName, UnixMs, Version, World};
use sluice_protocol::{Spec, SpecComponent};
use sluice_scheduler::mismatch;
use tracing::info;

use super::rollout::no_rollout;
use super::runs::no_run;
use super::view::Of;
use super::view::rollout::show_rollout;
use super::{Core, Step};
use crate::store::{JobRecord, Store, StoreError, TaskPhase, VersionOrigin};

mod call;

pub(super) use call::Called;
pub use call::{ApiCall, ComponentFacts, LogTarget, LogsOf, Reply};

/// Stages' components of one pipeline, at most; a frame's worth of spec.
const STAGES_MAX: usize = 256;

impl<S: Store> Core<S> {
    pub(super) fn call(&mut self, call: ApiCall, step: &mut Step) -> Result<Called, StoreError> {
        let now = step.now.unix;
        Ok(match call {
            ApiCall::Status => Ok(Reply::Status(Box::new(self.show_status(now)?))),
            ApiCall::Nodes(filter) => self.list_nodes(&filter)?,
            ApiCall::Node(name) => match self.store.node_by_name(&name)? {
                Some(node) => Ok(Reply::Node(Box::new(self.show_node_detail(&node)?))),
                None => Err(no_node(&name)),
            },
            ApiCall::RevokeNode(name) => self.revoke_node(&name, step)?,
            ApiCall::DeleteNode(name) => self.delete_node(&name, step)?,
            ApiCall::Jobs(filter) => self.list_jobs(&filter, now)?,
            ApiCall::Job(name) => match self.store.job_by_name(&name)? {
                Some(job) => Ok(Reply::JobDetail(Box::new(self.show_job_detail(&job, now)?))),
                None => Err(no_job(&name)),
            },
            ApiCall::Executions(filter) => self.list_executions(&filter)?,
            ApiCall::Execution(id) => match self.show_one_execution(id)? {
                Some(execution) => Ok(Reply::Execution(Box::new(execution))),
                None => Err(
                    ErrorBody::new(ErrorCode::NotFound, format!("no execution {id}"))
                        .with_help("`sluice execution list --all` lists them"),
                ),
            },
            ApiCall::ExecutionAt(job, node) => self.execution_at(&job, &node)?,
            ApiCall::Explain(name) => match self.store.job_by_name(&name)? {
                Some(job) => Ok(Reply::Explain(Box::new(self.show_explain(&job, now)?))),
                None => Err(no_job(&name)),
            },
            ApiCall::Rollout(name) => self.rollout(&name, None, now)?,
            ApiCall::RolloutOrder(name, order) => self.rollout(&name, Some(order), now)?,
            ApiCall::LogTargets(of, node) => self.log_targets(&of, node.as_ref())?,
            ApiCall::Deploy(request, facts) => self.deploy(&request, &facts, step)?,
            ApiCall::StartJob(name) => self.set_stopped(&name, false, step)?,
            ApiCall::StopJob(name) => self.set_stopped(&name, true, step)?,
            ApiCall::DeleteJob(name) => match self.store.job_by_name(&name)? {
                Some(job) => {
                    let shown = self.show_one_job(&job, now)?;
                    self.store.delete_job(job.id)?;
                    self.evaluate_job(job.id, now)?;
                    info!(event = "job.delete", job = %name);
                    Ok(Reply::Job(Box::new(shown)))
                }
                None => Err(no_job(&name)),
            },
            ApiCall::History(name) => match self.store.job_by_name(&name)? {
                Some(job) => Ok(Reply::History(self.show_history(&job)?)),
                None => Err(no_job(&name)),
            },
            ApiCall::Rollback(name, to) => match self.store.job_by_name(&name)? {
                Some(job) => self.roll_back(&job, to, step)?,
                None => Err(no_job(&name)),
            },
            ApiCall::RestartJob(name) => match self.store.job_by_name(&name)? {
                Some(job) => self.restart_job(job, step)?,
                None => Err(no_job(&name)),
            },
            ApiCall::OrderNode(name, order) => match self.store.node_by_name(&name)? {
                Some(node) => self.order_node(node, &order, step)?,
                None => Err(no_node(&name)),
            },
            ApiCall::CreateToken(token) => {
                self.store.insert_token(&token)?;
                Ok(Reply::Done)
            }
            ApiCall::By(_, call) => self.call(*call, step)?,
            ApiCall::Authenticate(hash) => self.authenticate(hash, now)?,
            ApiCall::Record(asker, outcome) => {
                self.store
                    .insert_audit(&asker.entry(now, outcome.as_ref().map(|()| None)))?;
                Ok(Reply::Done)
            }
            ApiCall::Audit(query) => self.read_audit(&query)?,
            ApiCall::CreateApiToken(token) => self.create_api_token(&token, step.now)?,
            ApiCall::Tokens(query) => self.list_tokens(&query, now)?,
            ApiCall::Token(id) => self.show_token(id, now)?,
            ApiCall::RevokeToken(id) => self.revoke_token(id, now)?,
            ApiCall::ComponentUse(Some(job)) if self.store.job_by_name(&job)?.is_none() => {
                Err(no_job(&job))
            }
            ApiCall::ComponentUse(_) => Ok(Reply::ComponentUse(self.component_use()?)),
            ApiCall::StdinUse => {
                let stdins = self.store.stdins_of_open_runs()?;
                Ok(Reply::StdinUse(stdins.into_iter().collect()))
            }
            ApiCall::Launch(launch, key, stdin_bytes) => {
                self.launch(&launch, key.as_deref(), stdin_bytes, step)?
            }
            ApiCall::Runs(filter) => self.list_runs(&filter, now)?,
            ApiCall::Run(id) => self.run(id, now)?,
            ApiCall::CancelRun(id) => self.cancel_run(id, step)?,
            ApiCall::Output(call) => self.call_output(call, step)?,
            ApiCall::CreateSchedule(create) => self.create_schedule(&create, now)?,
            ApiCall::Schedules(filter) => self.list_schedules(&filter)?,
            ApiCall::Schedule(name) => self.describe_schedule(&name)?,
            ApiCall::Ticks(name, query) => self.ticks_of_schedule(&name, &query)?,
            ApiCall::PauseSchedule(name) => self.pause_schedule(&name, now)?,
            ApiCall::ResumeSchedule(name) => self.resume_schedule(&name, now)?,
            ApiCall::DeleteSchedule(name) => self.delete_schedule(&name)?,
        })
    }

    fn execution_at(&mut self, job: &JobName, node: &NodeName) -> Result<Called, StoreError> {
        let Some(record) = self.store.job_by_name(job)? else {
            return Ok(Err(no_job(job)));
        };
        let Some(at) = self.store.node_by_name(node)? else {
            return Ok(Err(no_node(node)));
        };
        let found = self
            .show_executions(Of::Job(record.id), |_, execution| execution.node == at.id)?
            .pop();
        Ok(match found {
            Some(execution) => Ok(Reply::Execution(Box::new(execution))),
            None => Err(ErrorBody::new(
                ErrorCode::NotFound,
                format!("{job} has no execution on {node}"),
            )
            .with_help(format!("`sluice explain {job}` says why"))),
        })
    }

    fn log_targets(&mut self, of: &LogsOf, node: Option<&NodeName>) -> Result<Called, StoreError> {
        let mut over = None;
        let executions: Vec<(NodeId, ExecutionId)> = match of {
            LogsOf::Job(job) => {
                let Some(record) = self.store.job_by_name(job)? else {
                    return Ok(Err(no_job(job)));
                };
                let executions = self.store.executions_of_job(record.id)?;
                executions.iter().map(|it| (it.node, it.id)).collect()
            }
            LogsOf::Run(id) => {
                if self.store.run(*id)?.is_none() {
                    return Ok(Err(no_run(*id)));
                }
                let tasks = self.store.tasks_of_run(*id)?;
                if tasks.iter().all(|task| task.phase == TaskPhase::Ended) {
                    over = Some(format!("run {id} has ended"));
                }
                let placed = tasks.into_iter();
                placed
                    .filter_map(|task| Some((task.node?.0, task.execution?)))
                    .collect()
            }
        };
        if let Some(name) = node
            && self.store.node_by_name(name)?.is_none()
        {
            return Ok(Err(no_node(name)));
        }
        let nodes = self.all_nodes()?;
        let mut targets: Vec<LogTarget> = executions
            .into_iter()
            .filter_map(|(on, execution)| {
                let at = nodes.get(&on)?;
                node.is_none_or(|name| at.name == *name).then(|| LogTarget {
                    node: at.name.clone(),
                    execution,
                    conn: self.live.get(&at.id).copied(),
                })
            })
            .collect();
        targets.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(Ok(Reply::LogTargets(targets, over)))
    }

    fn rollout(
        &mut self,
        name: &JobName,
        order: Option<RolloutOrder>,
        now: UnixMs,
    ) -> Result<Called, StoreError> {
        let Some(job) = self.store.job_by_name(name)? else {
            return Ok(Err(no_job(name)));
        };
        if let Some(order) = order
            && let Err(refused) = self.order_rollout(name, &job, order, now)?
        {
            return Ok(Err(refused));
        }
        Ok(match self.rollout_view(&job)? {
            Some(view) => Ok(Reply::Rollout(Box::new(show_rollout(name, &view)))),
            None => Err(no_rollout(name, &job)),
        })
    }

    fn set_stopped(
        &mut self,
        name: &JobName,
        stopped: bool,
        step: &mut Step,
    ) -> Result<Called, StoreError> {
        let Some(job) = self.store.job_by_name(name)? else {
            return Ok(Err(no_job(name)));
        };
        if job.stopped != stopped {
            self.store.set_stopped(job.id, stopped)?;
            self.evaluate_job(job.id, step.now.unix)?;
            info!(event = if stopped { "job.stop" } else { "job.start" }, job = %name);
        }
        let job = JobRecord { stopped, ..job };
        Ok(Ok(Reply::Job(Box::new(
            self.show_one_job(&job, step.now.unix)?,
        ))))
    }

    fn component_use(&mut self) -> Result<BTreeMap<Digest, Vec<String>>, StoreError> {
        let mut uses: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        let mut named = BTreeSet::new();
        // What only a row names (a node that is behind) counts too, without a version to show.
        for digest in self.store.specs_in_use()? {
            for component in self.spec_of(digest)?.components {
                uses.entry(component.digest).or_default();
            }
        }
        for job in self.store.jobs(false)? {
            for (version, digest) in self.store.versions(job.id, usize::MAX)? {
                for component in self.spec_of(digest)?.components {
                    // Several stages of a version may name one component.
                    if named.insert((component.digest, job.id, version)) {
                        let used_by = uses.entry(component.digest).or_default();
                        used_by.push(format!("{}@{version}", job.name));
                    }
                }
            }
        }
        Ok(uses)
    }

    fn deploy(
        &mut self,
        request: &DeployRequest,
        facts: &BTreeMap<Digest, ComponentFacts>,
        step: &mut Step,
    ) -> Result<Called, StoreError> {
        let mut pipeline = match pipeline::parse(&request.pipeline) {
            Ok(pipeline) => pipeline,
            Err(problems) => {
                let detail = problems.render("pipeline", &request.pipeline, false);
                return Ok(Err(ErrorBody::new(
                    ErrorCode::Invalid,
                    "the pipeline has problems",
                )
                .with_detail(detail)));
            }
        };
        if let Some(reason) = pipeline.local_only()
            && !self.takes_local_pipelines
        {
            return Ok(Err(ErrorBody::new(ErrorCode::Invalid, reason)
                .with_help(
                    "write `kind = \"batch\"` and launch it with `sluice run launch JOB --stdin FILE`, or run it with \
                     `sluice pipeline run` or `sluice dev`",
                )));
        }
        let components = match resolve(&pipeline, request, facts) {
            Ok(components) => components,
            Err(error) => return Ok(Err(error)),
        };
        tell_worlds(&mut pipeline, &components);
        if let Some(stage) = pipeline.endless_report() {
            let message = format!("stage {}: {ENDLESS_REPORT}", stage.name);
            return Ok(Err(
                ErrorBody::new(ErrorCode::Invalid, message).with_help(ENDLESS_REPORT_HELP)
            ));
        }
        let spec = Spec {
            pipeline: request.pipeline.clone(),
            components,
            params: Params::new(),
            stdin: None,
        };
        let (digest, bytes) = (spec.digest(), spec.encode());
        let existing = self.store.job_by_name(&pipeline.name)?;
        let (outcome, version) = match &existing {
            None => (DeployOutcome::Created, Self::FIRST_VERSION),
            Some(job) if job.spec != digest => (DeployOutcome::Updated, job.version.next()),
            Some(job) if job.stopped => (DeployOutcome::Started, job.version),
            Some(job) => (DeployOutcome::Unchanged, job.version),
        };
        let matching = self.matching(&pipeline)?;
        let changes = self.describe(
            &pipeline,
            &spec,
            existing.as_ref(),
            outcome,
            version,
            &matching,
        )?;
        let id = if request.dry_run {
            existing.map(|job| job.id)
        } else {
            Some(self.commit_deploy(
                &pipeline.name,
                existing,
                outcome,
                version,
                digest,
                &bytes,
                (&pipeline, wanted(&pipeline, matching.len())),
                step,
            )?)
        };
        Ok(Ok(Reply::Deploy(Box::new(DeployReply {
            job: pipeline.name,
            id,
            version,
            outcome,
            dry_run: request.dry_run,
            changes,
            matching_nodes: matching,
            rolled_back_to: None,
        }))))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one transaction's facts; a struct would only rename them"
    )]
    fn commit_deploy(
        &mut self,
        name: &JobName,
        existing: Option<JobRecord>,
        outcome: DeployOutcome,
        version: Version,
        spec: Digest,
        bytes: &[u8],
        (pipeline, matching): (&Pipeline, usize),
        step: &mut Step,
    ) -> Result<JobId, StoreError> {
        let now = step.now.unix;
        let before = existing.clone();
        let id = match existing {
            None => {
                let id = JobId::from_random((self.random)());
                self.store.put_spec(spec, bytes)?;
                self.store.insert_job(&JobRecord {
                    id,
                    name: name.clone(),
                    version,
                    spec,
                    stopped: false,
                    deleted: false,
                    created_at: now,
                    updated_at: now,
                })?;
                id
            }
            Some(job) => {
                match outcome {
                    DeployOutcome::Updated | DeployOutcome::Created => {
                        self.store.put_spec(spec, bytes)?;
                        self.store.insert_version(
                            job.id,
                            version,
                            spec,
                            &VersionOrigin::Deploy,
                            now,
                        )?;
                    }
                    DeployOutcome::Started => self.store.set_stopped(job.id, false)?,
                    DeployOutcome::Unchanged => return Ok(job.id),
                }
                job.id
            }
        };
        if matches!(outcome, DeployOutcome::Created | DeployOutcome::Updated) {
            if pipeline.batch.is_some() {
                // Each launch takes the newest version.
                self.store.remove_rollout(id)?;
            } else {
                self.begin_rollout(before.as_ref(), id, version, pipeline, matching, now)?;
            }
        }
        self.evaluate_job(id, now)?;
        info!(event = "job.deploy", job = %name, version = version.0, outcome = outcome.as_str());
        Ok(id)
    }

    /// The nodes that a pipeline's selector matches.
    pub(super) fn matching(&mut self, pipeline: &Pipeline) -> Result<Vec<NodeName>, StoreError> {
        Ok(self
            .store
            .nodes()?
            .iter()
            .filter(|node| mismatch(&pipeline.select, &self.node_facts(node, None)).is_none())
            .map(|node| node.name.clone())
            .collect())
    }

    pub(super) fn describe(
        &mut self,
        pipeline: &Pipeline,
        spec: &Spec,
        existing: Option<&JobRecord>,
        outcome: DeployOutcome,
        version: Version,
        matching: &[NodeName],
    ) -> Result<Vec<String>, StoreError> {
        let name = &pipeline.name;
        let mut changes = Vec::new();
        match (outcome, existing) {
            (DeployOutcome::Unchanged, _) => return Ok(changes),
            (DeployOutcome::Updated, Some(job)) => {
                changes.push(format!("{name}: version {} -> {version}", job.version));
                let old = self.spec_of(job.spec)?;
                if old.pipeline != spec.pipeline {
                    changes.push("the pipeline text changes".to_owned());
                }
                changes.extend(component_changes(&old, spec));
                if job.stopped {
                    changes.push("the job is started".to_owned());
                }
            }
            (DeployOutcome::Started, _) => {
                changes.push(format!("{name}: version {version} is started again"))
            }
            _ => changes.push(format!("{name}: new job, version {version}")),
        }
        changes.push(match matching {
            [] if pipeline.batch.is_some() => {
                "nothing runs until it is launched; no node matches yet".to_owned()
            }
            [] => "no node matches yet; it starts by itself on the first that does".to_owned(),
            nodes => {
                let on = match pipeline.kind {
                    Kind::Daemon => String::new(),
                    Kind::Replicas { count } => format!("{count} replicas on "),
                    Kind::Batch { count } => {
                        format!("nothing runs until it is launched, then {count} of ")
                    }
                };
                format!("{on}{} matching nodes: {}", nodes.len(), names(nodes))
            }
        });
        Ok(changes)
    }
}

/// How many of the nodes that match a pipeline will run it.
fn wanted(pipeline: &Pipeline, matching: usize) -> usize {
    match pipeline.kind {
        Kind::Daemon => matching,
        Kind::Batch { .. } => 0,
        Kind::Replicas { count } => matching.min(usize::try_from(count).unwrap_or(usize::MAX)),
    }
}

/// Node names written out in a sentence, at most.
const NAMES_MAX: usize = 10;

fn names(nodes: &[NodeName]) -> String {
    let mut text = nodes
        .iter()
        .take(NAMES_MAX)
        .map(NodeName::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if nodes.len() > NAMES_MAX {
        text.push_str(&format!(" and {} more", nodes.len() - NAMES_MAX));
    }
    text
}

pub(super) fn component_changes(old: &Spec, new: &Spec) -> Vec<String> {
    let before: BTreeMap<_, _> = old
        .components
        .iter()
        .map(|component| (&component.stage, component.digest))
        .collect();
    new.components
        .iter()
        .filter_map(|component| match before.get(&component.stage) {
            Some(digest) if *digest == component.digest => None,
            Some(_) => Some(format!("stage {} runs another component", component.stage)),
            None => Some(format!("stage {} is new", component.stage)),
        })
        .collect()
}

/// Says of each stage what its component is made for.
pub(super) fn tell_worlds(pipeline: &mut Pipeline, components: &[SpecComponent]) {
    for stage in &mut pipeline.stages {
        let component = components.iter().find(|it| it.stage == stage.name);
        stage.world = component.map(|component| component.world);
    }
}

/// Every stage's component, by digest and size.
fn resolve(
    pipeline: &Pipeline,
    request: &DeployRequest,
    facts: &BTreeMap<Digest, ComponentFacts>,
) -> Result<Vec<SpecComponent>, ErrorBody> {
    let invalid = |message: String| ErrorBody::new(ErrorCode::Invalid, message);
    if pipeline.stages.len() > STAGES_MAX {
        return Err(invalid(format!(
            "a pipeline has at most {STAGES_MAX} stages, this one has {}",
            pipeline.stages.len()
        )));
    }
    pipeline
        .stages
        .iter()
        .map(|stage| {
            let digest = match &stage.plugin {
                PluginRef::Digest(digest) => *digest,
                PluginRef::Path(path) => *request.plugins.get(&stage.name).ok_or_else(|| {
                    invalid(format!("stage {}: the content of plugin {path:?} was not named", stage.name))
                        .with_help("deploy with `sluice deploy`, which uploads and names it")
                })?,
                PluginRef::Named { name, version } => {
                    return Err(invalid(format!(
                        "stage {}: plugin `{name}@{version}` is a registry name, and this version has no registry",
                        stage.name
                    ))
                    .with_help("name a .wasm file or a sha256:... digest"));
                }
            };
            let facts = match facts.get(&digest) {
                Some(facts) => *facts,
                // A dry run uploads nothing; a component that is not here makes a new version whatever its size is.
                None if request.dry_run && matches!(stage.plugin, PluginRef::Path(_)) => {
                    ComponentFacts { size: 0, world: World::Transform }
                }
                None => {
                    return Err(invalid(format!(
                        "stage {}: the component {digest} is not on the orchestrator",
                        stage.name
                    ))
                    .with_help("name the component's file instead of its digest: `sluice deploy` uploads it"));
                }
            };
            let ComponentFacts { size, world } = facts;
            Ok(SpecComponent { stage: stage.name.clone(), digest, size, world })
        })
        .collect()
}

pub(super) fn no_job(name: &JobName) -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, format!("no job {name}"))
        .with_help("`sluice job list` lists them")
}

pub(super) fn no_node(name: &NodeName) -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, format!("no node {name}"))
        .with_help("`sluice node list` lists them")
}
