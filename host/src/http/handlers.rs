//! The routes.

use std::time::Duration;

use axum::Router;
use axum::body::Body as RawBody;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use axum::middleware;
use futures_util::StreamExt as _;
use sluice_api::{
    ARTIFACT_BYTES_MAX, ArtifactInfo, AuditEntry, AuditQuery, DeployReply, DeployRequest,
    ErrorBody, ErrorCode, EventFilter, Execution, ExecutionFilter, Explain, Job, JobDetail,
    JobFilter, JobVersion, LogEvent, Logs, LogsQuery, MISSING_DIGESTS_MAX, MissingArtifacts,
    MissingReply, Node, NodeDetail, NodeFilter, NodeLabels, NodeOrder, Plugin, PluginDetail,
    PluginFilter, RollbackRequest, Rollout, RolloutOrder, Run, RunFilter, RunLaunch, Schedule,
    ScheduleCreate, ScheduleDetail, ScheduleFilter, ScheduleTick, Status, StdinInfo, TaskOutput,
    TickQuery, Token, TokenCreate, TokenCreated, TokenFilter, routes,
};
use sluice_model::{
    Digest, ExecutionId, JobName, NodeName, Role, RunId, STDIN_BYTES_MAX, ScheduleName, TokenId,
};

use super::answer::{
    Body, Created, Document, Download, EventStream, Failure, Filter, IdempotencyKey, LastEventId,
    Lines, List, Listing, Reply, Segments, Tagged, no_method, no_route,
};
use super::auth::{AdminTokenHash, Doors, require_token};
use super::table::{By, Operation, Shared, Table, Whom};
use super::{ControlApi, OutputBytes};
use crate::artifacts::{ArtifactError, Artifacts, Receive};
use crate::core::LogsOf;

/// Most bytes of a JSON body: a pipeline of 256 KiB in which every character is escaped as `\u0000` fits.
pub(super) const BODY_BYTES_MAX: usize = 2 << 20;

/// A reader that follows logs gets a blank line when nothing came for this long: silence would end the connection.
const FOLLOW_SILENCE_MAX: Duration = Duration::from_secs(15);

/// Longest silence within an upload.
const UPLOAD_SILENCE_MAX: Duration = Duration::from_secs(30);

/// The whole API. Everything in it, unknown paths included, needs a token.
pub fn router<C: ControlApi>(control: C, artifacts: Artifacts, token: AdminTokenHash) -> Router {
    let doors = Doors::new(control.clone(), token);
    let (router, _) = table(Shared::new(control, artifacts)).finish();
    router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(doors, require_token::<C>))
}

/// Every route there is, with what it needs. A new one needs a row here, and nothing else to be guarded
/// and described.
pub(super) fn table<C: ControlApi>(shared: Shared<C>) -> Table<C> {
    use Operation as Op;
    use Role::{Admin, Deployer, Reader};
    Table::new(shared)
        .row(
            Op::get("openapi", routes::OPENAPI, Reader).says("This document."),
            openapi::<C>,
        )
        .row(
            Op::get("status", routes::STATUS, Reader).says("Nodes, jobs, and what waits and why."),
            status::<C>,
        )
        .row(
            Op::get("events.follow", routes::EVENTS, Reader)
                .streams()
                .says("Hints of what changed, as it happens."),
            events::<C>,
        )
        .row(
            Op::get("node.list", routes::NODES, Reader).says("Registered edges, by name."),
            nodes::<C>,
        )
        .row(
            Op::get("node.describe", routes::NODE, Reader).says("One node and its executions."),
            node::<C>,
        )
        .row(
            Op::delete("node.delete", routes::NODE, Admin)
                .conditional()
                .says("Forgets a node that is not connected; answers it as it was."),
            delete_node::<C>,
        )
        .row(
            Op::post("node.revoke", routes::NODE_REVOKE, Admin)
                .conditional()
                .says("Shuts a node out until it joins again."),
            revoke_node::<C>,
        )
        .row(
            Op::post("node.cordon", routes::NODE_CORDON, Admin)
                .conditional()
                .says("No new executions for a node."),
            cordon::<C>,
        )
        .row(
            Op::post("node.uncordon", routes::NODE_UNCORDON, Admin)
                .conditional()
                .says("New executions for a node again; ends a drain."),
            uncordon::<C>,
        )
        .row(
            Op::post("node.drain", routes::NODE_DRAIN, Admin)
                .conditional()
                .says("No new executions for a node, and all of its own are stopped."),
            drain::<C>,
        )
        .row(
            Op::post("node.label", routes::NODE_LABELS, Admin)
                .conditional()
                .says("Sets and takes away labels of a node."),
            label::<C>,
        )
        .row(
            Op::get("job.list", routes::JOBS, Reader).says("Deployed pipelines, by name."),
            jobs::<C>,
        )
        .row(
            Op::get("job.describe", routes::JOB, Reader)
                .says("One job, its pipeline and its executions."),
            job::<C>,
        )
        .row(
            Op::delete("job.delete", routes::JOB, Deployer)
                .conditional()
                .says("Deletes a job and its state on the edges; answers it as it was."),
            delete_job::<C>,
        )
        .row(
            Op::post("job.start", routes::JOB_START, Deployer)
                .conditional()
                .says("Starts a stopped job."),
            start_job::<C>,
        )
        .row(
            Op::post("job.stop", routes::JOB_STOP, Deployer)
                .conditional()
                .says("Stops a job and keeps its state."),
            stop_job::<C>,
        )
        .row(
            Op::post("job.restart", routes::JOB_RESTART, Deployer)
                .conditional()
                .says("The next attempt of every execution of a job; starts a stopped one."),
            restart_job::<C>,
        )
        .row(
            Op::get("job.history", routes::JOB_HISTORY, Reader)
                .says("The last versions of a job, newest first."),
            history::<C>,
        )
        .row(
            Op::post("job.rollback", routes::JOB_ROLLBACK, Deployer)
                .conditional()
                .says("Makes a new version with the content of an older one."),
            roll_back::<C>,
        )
        .row(
            Op::get("job.explain", routes::JOB_EXPLAIN, Reader)
                .says("Why each node runs a job or does not."),
            explain::<C>,
        )
        .row(
            Op::get("rollout.status", routes::JOB_ROLLOUT, Reader)
                .says("How a job's newest version reaches the nodes."),
            rollout::<C>,
        )
        .row(
            Op::post("rollout.order", routes::JOB_ROLLOUT_ORDER, Deployer)
                .conditional()
                .says("Pauses, resumes, promotes or aborts a rollout."),
            order_rollout::<C>,
        )
        .row(
            Op::get("job.logs", routes::JOB_LOGS, Reader)
                .says("Lines of a job's logs, read from the edges in reach."),
            logs::<C>,
        )
        .row(
            Op::get("job.logs.follow", routes::JOB_LOGS_FOLLOW, Reader)
                .streams()
                .says("Lines of a job's logs as they come."),
            follow_logs::<C>,
        )
        .row(
            Op::get("execution.at", routes::JOB_NODE_EXECUTION, Reader)
                .says("The execution of a job on a node."),
            execution_at::<C>,
        )
        .row(
            Op::get("execution.list", routes::EXECUTIONS, Reader).says("Jobs on nodes."),
            executions::<C>,
        )
        .row(
            Op::get("execution.describe", routes::EXECUTION, Reader).says("One execution."),
            execution::<C>,
        )
        .row(
            Op::get("run.list", routes::RUNS, Reader).says("Launches, newest first."),
            runs::<C>,
        )
        .row(
            Op::post("run.launch", routes::RUNS, Deployer).says("Launches batch jobs."),
            launch::<C>,
        )
        .row(
            Op::get("run.describe", routes::RUN, Reader).says("One launch, task by task."),
            run::<C>,
        )
        .row(
            Op::post("run.cancel", routes::RUN_CANCEL, Deployer)
                .says("Calls a launch off: what waits ends, what runs is stopped."),
            cancel_run::<C>,
        )
        .row(
            Op::get("run.output", routes::RUN_OUTPUT, Reader)
                .says("What the tasks of a run wrote, task by task."),
            run_outputs::<C>,
        )
        .row(
            Op::get("run.output.task", routes::RUN_TASK_OUTPUT, Reader)
                .streams()
                .says("The bytes that one task wrote."),
            run_output::<C>,
        )
        .row(
            Op::get("run.logs", routes::RUN_LOGS, Reader)
                .says("The newest lines of the logs of a run's tasks."),
            run_logs::<C>,
        )
        .row(
            Op::get("run.logs.follow", routes::RUN_LOGS_FOLLOW, Reader)
                .streams()
                .says("The lines of the logs of a run's tasks as they come, until it has ended."),
            follow_run_logs::<C>,
        )
        .row(
            Op::get("schedule.list", routes::SCHEDULES, Reader).says("Schedules, by name."),
            schedules::<C>,
        )
        .row(
            Op::post("schedule.create", routes::SCHEDULES, Deployer)
                .says("Creates a schedule that launches a job."),
            create_schedule::<C>,
        )
        .row(
            Op::get("schedule.describe", routes::SCHEDULE, Reader)
                .says("One schedule with its newest ticks."),
            schedule::<C>,
        )
        .row(
            Op::delete("schedule.delete", routes::SCHEDULE, Deployer)
                .says("Forgets a schedule; the runs that it launched stay."),
            delete_schedule::<C>,
        )
        .row(
            Op::post("schedule.pause", routes::SCHEDULE_PAUSE, Deployer)
                .says("No tick until it is resumed."),
            pause_schedule::<C>,
        )
        .row(
            Op::post("schedule.resume", routes::SCHEDULE_RESUME, Deployer)
                .says("Goes on from the next tick."),
            resume_schedule::<C>,
        )
        .row(
            Op::get("schedule.history", routes::SCHEDULE_HISTORY, Reader)
                .says("What became of a schedule's ticks, newest first."),
            ticks::<C>,
        )
        .row(
            Op::post("job.deploy", routes::DEPLOY, Deployer)
                .conditional()
                .says("Makes a job, or its next version."),
            deploy::<C>,
        )
        .row(
            Op::get("token.list", routes::TOKENS, Admin)
                .says("Tokens, without their secrets; those that ended when they are asked for."),
            tokens::<C>,
        )
        .row(
            Op::get("token.describe", routes::TOKEN, Admin)
                .says("One token, without its secret; one that ended too."),
            token::<C>,
        )
        .row(
            Op::post("token.create", routes::TOKENS, Admin)
                .says("Makes a token with which edges join, or one for this API."),
            create_token::<C>,
        )
        .row(
            Op::delete("token.revoke", routes::TOKEN, Admin)
                .says("Makes a token worthless; answers it as it was."),
            revoke_token::<C>,
        )
        .row(
            Op::get("audit.list", routes::AUDIT, Admin)
                .says("Who changed what, and what was refused; newest first."),
            audit::<C>,
        )
        .row(
            Op::get("plugin.list", routes::PLUGINS, Reader)
                .says("Components that are stored, by digest."),
            plugins::<C>,
        )
        .row(
            Op::get("plugin.describe", routes::PLUGIN, Reader)
                .says("One component: what it is, who brought it, what names it."),
            plugin::<C>,
        )
        .row(
            Op::post("artifact.missing", routes::ARTIFACTS_MISSING, Deployer)
                .reads()
                .says("Which of these components must be uploaded."),
            missing::<C>,
        )
        .row(
            Op::put("artifact.upload", routes::ARTIFACT, Deployer)
                .streams()
                .says("Stores a component under the digest of its bytes."),
            upload::<C>,
        )
        .row(
            Op::put("stdin.upload", routes::STDIN, Deployer)
                .streams()
                .says("Stores what a launch will bring as stdin, under the digest of its bytes."),
            upload_stdin::<C>,
        )
}

async fn openapi<C: ControlApi>(State(shared): State<Shared<C>>) -> Result<Document, Failure> {
    Ok(Document(shared.document()))
}

async fn audit<C: ControlApi>(
    By(control): By<C>,
    Filter(query): Filter<AuditQuery>,
) -> Listing<AuditEntry> {
    Ok(List(control.audit(query).await?))
}

async fn status<C: ControlApi>(By(control): By<C>) -> Reply<Status> {
    Ok(axum::Json(control.status().await?))
}

async fn events<C: ControlApi>(
    By(control): By<C>,
    Filter(filter): Filter<EventFilter>,
    LastEventId(after): LastEventId,
) -> Result<EventStream, Failure> {
    Ok(EventStream(control.watch(filter, after).await?))
}

async fn nodes<C: ControlApi>(
    By(control): By<C>,
    Filter(query): Filter<NodeFilter>,
) -> Listing<Node> {
    Ok(List(control.nodes(query).await?))
}

async fn node<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<NodeName>,
) -> Result<Tagged<NodeDetail>, Failure> {
    let it = control.node(name).await?;
    let etag = it.node.etag();
    Ok(Tagged { etag, it })
}

async fn cordon<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<NodeName>,
) -> Reply<Node> {
    let order = NodeOrder::Cordon;
    Ok(axum::Json(control.order_node(name, order).await?))
}

async fn uncordon<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<NodeName>,
) -> Reply<Node> {
    let order = NodeOrder::Uncordon;
    Ok(axum::Json(control.order_node(name, order).await?))
}

async fn drain<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<NodeName>,
) -> Reply<Node> {
    let order = NodeOrder::Drain;
    Ok(axum::Json(control.order_node(name, order).await?))
}

async fn label<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<NodeName>,
    Body(labels): Body<NodeLabels>,
) -> Reply<Node> {
    let order = NodeOrder::Label(labels);
    Ok(axum::Json(control.order_node(name, order).await?))
}

async fn revoke_node<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<NodeName>,
) -> Reply<Node> {
    Ok(axum::Json(control.revoke_node(name).await?))
}

async fn delete_node<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<NodeName>,
) -> Reply<Node> {
    Ok(axum::Json(control.delete_node(name).await?))
}

async fn jobs<C: ControlApi>(By(control): By<C>, Filter(query): Filter<JobFilter>) -> Listing<Job> {
    Ok(List(control.jobs(query).await?))
}

async fn job<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<JobName>,
) -> Result<Tagged<JobDetail>, Failure> {
    let it = control.job(name).await?;
    let etag = it.job.etag();
    Ok(Tagged { etag, it })
}

async fn delete_job<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<JobName>,
) -> Reply<Job> {
    Ok(axum::Json(control.delete_job(name).await?))
}

async fn start_job<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<JobName>,
) -> Reply<Job> {
    Ok(axum::Json(control.start_job(name).await?))
}

async fn stop_job<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<JobName>,
) -> Reply<Job> {
    Ok(axum::Json(control.stop_job(name).await?))
}

async fn restart_job<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<JobName>,
) -> Reply<Job> {
    Ok(axum::Json(control.restart_job(name).await?))
}

async fn history<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<JobName>,
) -> Reply<Vec<JobVersion>> {
    Ok(axum::Json(control.history(name).await?))
}

async fn roll_back<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<JobName>,
    Body(request): Body<RollbackRequest>,
) -> Reply<DeployReply> {
    Ok(axum::Json(control.roll_back(name, request).await?))
}

async fn explain<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<JobName>,
) -> Reply<Explain> {
    Ok(axum::Json(control.explain(name).await?))
}

async fn rollout<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<JobName>,
) -> Reply<Rollout> {
    Ok(axum::Json(control.rollout(name).await?))
}

async fn order_rollout<C: ControlApi>(
    By(control): By<C>,
    Segments((name, order)): Segments<(JobName, RolloutOrder)>,
) -> Reply<Rollout> {
    Ok(axum::Json(control.order_rollout(name, order).await?))
}

async fn logs<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<JobName>,
    Filter(query): Filter<LogsQuery>,
) -> Reply<Logs> {
    check_tail(&query)?;
    Ok(axum::Json(control.logs(LogsOf::Job(name), query).await?))
}

async fn run_logs<C: ControlApi>(
    By(control): By<C>,
    Segments(id): Segments<RunId>,
    Filter(query): Filter<LogsQuery>,
) -> Reply<Logs> {
    check_tail(&query)?;
    Ok(axum::Json(control.logs(LogsOf::Run(id), query).await?))
}

async fn follow_run_logs<C: ControlApi>(
    By(control): By<C>,
    Segments(id): Segments<RunId>,
    Filter(query): Filter<LogsQuery>,
) -> Result<Lines<LogEvent>, Failure> {
    followed(&control, LogsOf::Run(id), query).await
}

async fn follow_logs<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<JobName>,
    Filter(query): Filter<LogsQuery>,
) -> Result<Lines<LogEvent>, Failure> {
    followed(&control, LogsOf::Job(name), query).await
}

async fn followed<C: ControlApi>(
    control: &C,
    of: LogsOf,
    query: LogsQuery,
) -> Result<Lines<LogEvent>, Failure> {
    check_tail(&query)?;
    let events = control.follow_logs(of, query).await?;
    Ok(Lines::from_queue(events, FOLLOW_SILENCE_MAX))
}

fn check_tail(query: &LogsQuery) -> Result<(), ErrorBody> {
    let tail_max = sluice_api::LOG_TAIL_MAX;
    if query.tail.is_some_and(|tail| tail > tail_max) {
        let message = format!("`tail` is more than {tail_max}");
        return Err(ErrorBody::new(ErrorCode::Invalid, message));
    }
    Ok(())
}

async fn execution_at<C: ControlApi>(
    By(control): By<C>,
    Segments((job, node)): Segments<(JobName, NodeName)>,
) -> Reply<Execution> {
    Ok(axum::Json(control.execution_at(job, node).await?))
}

async fn executions<C: ControlApi>(
    By(control): By<C>,
    Filter(query): Filter<ExecutionFilter>,
) -> Listing<Execution> {
    Ok(List(control.executions(query).await?))
}

async fn execution<C: ControlApi>(
    By(control): By<C>,
    Segments(id): Segments<ExecutionId>,
) -> Reply<Execution> {
    Ok(axum::Json(control.execution(id).await?))
}

async fn deploy<C: ControlApi>(
    By(control): By<C>,
    Body(request): Body<DeployRequest>,
) -> Reply<DeployReply> {
    Ok(axum::Json(control.deploy(request).await?))
}

async fn launch<C: ControlApi>(
    By(control): By<C>,
    IdempotencyKey(key): IdempotencyKey,
    Body(launch): Body<RunLaunch>,
) -> Result<Created<Run>, Failure> {
    Ok(Created(control.launch(launch, key).await?))
}

async fn runs<C: ControlApi>(By(control): By<C>, Filter(query): Filter<RunFilter>) -> Listing<Run> {
    Ok(List(control.runs(query).await?))
}

async fn run<C: ControlApi>(By(control): By<C>, Segments(id): Segments<RunId>) -> Reply<Run> {
    Ok(axum::Json(control.run(id).await?))
}

async fn run_outputs<C: ControlApi>(
    By(control): By<C>,
    Segments(id): Segments<RunId>,
) -> Reply<Vec<TaskOutput>> {
    Ok(axum::Json(control.run_outputs(id).await?))
}

async fn run_output<C: ControlApi>(
    By(control): By<C>,
    Segments((id, job, node)): Segments<(RunId, JobName, NodeName)>,
) -> Result<Download, Failure> {
    let OutputBytes {
        bytes,
        digest,
        file,
    } = control.run_output(id, job, node).await?;
    Ok(Download {
        bytes,
        digest,
        file,
    })
}

async fn cancel_run<C: ControlApi>(
    By(control): By<C>,
    Segments(id): Segments<RunId>,
) -> Reply<Run> {
    Ok(axum::Json(control.cancel_run(id).await?))
}

async fn create_schedule<C: ControlApi>(
    By(control): By<C>,
    Body(create): Body<ScheduleCreate>,
) -> Result<Created<Schedule>, Failure> {
    Ok(Created(control.create_schedule(create).await?))
}

async fn schedules<C: ControlApi>(
    By(control): By<C>,
    Filter(filter): Filter<ScheduleFilter>,
) -> Listing<Schedule> {
    Ok(List(control.schedules(filter).await?))
}

async fn schedule<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<ScheduleName>,
) -> Reply<ScheduleDetail> {
    Ok(axum::Json(control.schedule(name).await?))
}

async fn ticks<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<ScheduleName>,
    Filter(query): Filter<TickQuery>,
) -> Listing<ScheduleTick> {
    Ok(List(control.ticks(name, query).await?))
}

async fn pause_schedule<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<ScheduleName>,
) -> Reply<Schedule> {
    Ok(axum::Json(control.pause_schedule(name).await?))
}

async fn resume_schedule<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<ScheduleName>,
) -> Reply<Schedule> {
    Ok(axum::Json(control.resume_schedule(name).await?))
}

async fn delete_schedule<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<ScheduleName>,
) -> Reply<Schedule> {
    Ok(axum::Json(control.delete_schedule(name).await?))
}

async fn create_token<C: ControlApi>(
    By(control): By<C>,
    Body(request): Body<TokenCreate>,
) -> Reply<TokenCreated> {
    Ok(axum::Json(control.create_token(request).await?))
}

async fn tokens<C: ControlApi>(
    By(control): By<C>,
    Filter(filter): Filter<TokenFilter>,
) -> Listing<Token> {
    Ok(List(control.tokens(filter).await?))
}

async fn token<C: ControlApi>(By(control): By<C>, Segments(id): Segments<TokenId>) -> Reply<Token> {
    Ok(axum::Json(control.token(id).await?))
}

async fn revoke_token<C: ControlApi>(
    By(control): By<C>,
    Segments(id): Segments<TokenId>,
) -> Reply<Token> {
    Ok(axum::Json(control.revoke_token(id).await?))
}

async fn plugins<C: ControlApi>(
    By(control): By<C>,
    Filter(filter): Filter<PluginFilter>,
) -> Listing<Plugin> {
    Ok(List(control.plugins(filter).await?))
}

async fn plugin<C: ControlApi>(
    By(control): By<C>,
    Segments(digest): Segments<Digest>,
) -> Reply<PluginDetail> {
    Ok(axum::Json(control.plugin(digest).await?))
}

async fn missing<C: ControlApi>(
    State(shared): State<Shared<C>>,
    Body(question): Body<MissingArtifacts>,
) -> Reply<MissingReply> {
    if question.digests.len() > MISSING_DIGESTS_MAX {
        let message = format!("more than {MISSING_DIGESTS_MAX} digests in one question");
        return Err(ErrorBody::new(ErrorCode::Invalid, message).into());
    }
    let missing = shared.artifacts.missing(&question.digests).await?;
    Ok(axum::Json(MissingReply { missing }))
}

async fn upload<C: ControlApi>(
    State(shared): State<Shared<C>>,
    Whom(asker): Whom,
    Segments(digest): Segments<Digest>,
    headers: HeaderMap,
    body: RawBody,
) -> Reply<ArtifactInfo> {
    if announced_bytes(&headers).is_some_and(|bytes| bytes > ARTIFACT_BYTES_MAX) {
        return Err(ArtifactError::TooLarge.into());
    }
    let by = asker.caller.shown();
    received(shared.artifacts.begin_upload(digest, Some(by)), body).await
}

async fn upload_stdin<C: ControlApi>(
    State(shared): State<Shared<C>>,
    Segments(digest): Segments<Digest>,
    headers: HeaderMap,
    body: RawBody,
) -> Reply<StdinInfo> {
    if announced_bytes(&headers).is_some_and(|bytes| bytes > STDIN_BYTES_MAX) {
        return Err(ArtifactError::StdinTooLarge.into());
    }
    received(shared.artifacts.begin_stdin(digest), body).await
}

/// Takes a body into the upload that begins for it.
async fn received<U: Receive>(
    begun: impl Future<Output = Result<U, ArtifactError>>,
    body: RawBody,
) -> Reply<U::Kept> {
    let mut upload = in_time(begun).await??;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = in_time(chunks.next()).await? {
        let chunk = chunk.map_err(|_| cut_off())?;
        upload.write(&chunk).await?;
    }
    Ok(axum::Json(upload.finish().await?))
}

/// How long the body will be, when its sender says so.
fn announced_bytes(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

async fn in_time<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(UPLOAD_SILENCE_MAX, work)
        .await
        .map_err(|_| {
            let message = format!("nothing of the upload moved for {UPLOAD_SILENCE_MAX:?}");
            Failure(ErrorBody::new(ErrorCode::Timeout, message).with_help("try again"))
        })
}

fn cut_off() -> Failure {
    Failure(ErrorBody::new(
        ErrorCode::Invalid,
        "the upload ended before all of its bytes were there",
    ))
}
