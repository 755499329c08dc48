//! The routes.

use std::time::Duration;

use axum::Router;
use axum::body::Body as RawBody;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use sluice_api::{
    ARTIFACT_BYTES_MAX, ArtifactInfo, AuditEntry, AuditQuery, DeployReply, DeployRequest,
    ErrorBody, ErrorCode, Execution, ExecutionFilter, Explain, Job, JobDetail, JobVersion,
    LogEvent, Logs, LogsQuery, MISSING_DIGESTS_MAX, MissingArtifacts, MissingReply, Node,
    NodeDetail, NodeLabels, NodeOrder, Plugin, RollbackRequest, Rollout, RolloutOrder, Run,
    RunFilter, RunLaunch, Schedule, ScheduleCreate, ScheduleDetail, ScheduleFilter, ScheduleTick,
    Status, TaskOutput, TickQuery, Token, TokenCreate, TokenCreated, routes,
};
use sluice_model::{Digest, ExecutionId, JobName, NodeName, Role, RunId, ScheduleName, TokenId};
use tokio_util::io::ReaderStream;

use super::ControlApi;
use super::answer::{Body, Failure, Filter, Reply, Segments, no_method, no_route};
use super::auth::{AdminTokenHash, Doors, require_token};
use super::table::{By, Operation, Shared, Table};
use crate::artifacts::{ArtifactError, Artifacts};
use crate::core::LogsOf;

/// Most bytes of a JSON body: a pipeline of 256 KiB in which every character is escaped as `\u0000` fits.
pub(super) const BODY_BYTES_MAX: usize = 2 << 20;

/// A reader that follows logs gets a blank line when nothing came for this long: silence would end the connection.
const FOLLOW_SILENCE_MAX: Duration = Duration::from_secs(15);

/// Bytes of an output that are read at once.
const OUTPUT_CHUNK_BYTES: usize = 64 * 1024;

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

/// Every route there is, with what it needs. A new one needs a row here, and nothing else to be guarded.
pub(super) fn table<C: ControlApi>(shared: Shared<C>) -> Table<C> {
    use Operation as Op;
    use Role::{Admin, Deployer, Reader};
    Table::new(shared)
        .row(Op::get("status", routes::STATUS, Reader), status::<C>)
        .row(Op::get("node.list", routes::NODES, Reader), nodes::<C>)
        .row(Op::get("node.describe", routes::NODE, Reader), node::<C>)
        .row(
            Op::delete("node.delete", routes::NODE, Admin),
            delete_node::<C>,
        )
        .row(
            Op::post("node.revoke", routes::NODE_REVOKE, Admin),
            revoke_node::<C>,
        )
        .row(
            Op::post("node.cordon", routes::NODE_CORDON, Admin),
            cordon::<C>,
        )
        .row(
            Op::post("node.uncordon", routes::NODE_UNCORDON, Admin),
            uncordon::<C>,
        )
        .row(
            Op::post("node.drain", routes::NODE_DRAIN, Admin),
            drain::<C>,
        )
        .row(
            Op::post("node.label", routes::NODE_LABELS, Admin),
            label::<C>,
        )
        .row(Op::get("job.list", routes::JOBS, Reader), jobs::<C>)
        .row(Op::get("job.describe", routes::JOB, Reader), job::<C>)
        .row(
            Op::delete("job.delete", routes::JOB, Deployer),
            delete_job::<C>,
        )
        .row(
            Op::post("job.start", routes::JOB_START, Deployer),
            start_job::<C>,
        )
        .row(
            Op::post("job.stop", routes::JOB_STOP, Deployer),
            stop_job::<C>,
        )
        .row(
            Op::post("job.restart", routes::JOB_RESTART, Deployer),
            restart_job::<C>,
        )
        .row(
            Op::get("job.history", routes::JOB_HISTORY, Reader),
            history::<C>,
        )
        .row(
            Op::post("job.rollback", routes::JOB_ROLLBACK, Deployer),
            roll_back::<C>,
        )
        .row(
            Op::get("job.explain", routes::JOB_EXPLAIN, Reader),
            explain::<C>,
        )
        .row(
            Op::get("rollout.status", routes::JOB_ROLLOUT, Reader),
            rollout::<C>,
        )
        .row(
            Op::post("rollout.order", routes::JOB_ROLLOUT_ORDER, Deployer),
            order_rollout::<C>,
        )
        .row(Op::get("job.logs", routes::JOB_LOGS, Reader), logs::<C>)
        .row(
            Op::get("job.logs.follow", routes::JOB_LOGS_FOLLOW, Reader).streams(),
            follow_logs::<C>,
        )
        .row(
            Op::get("execution.at", routes::JOB_NODE_EXECUTION, Reader),
            execution_at::<C>,
        )
        .row(
            Op::get("execution.list", routes::EXECUTIONS, Reader),
            executions::<C>,
        )
        .row(
            Op::get("execution.describe", routes::EXECUTION, Reader),
            execution::<C>,
        )
        .row(Op::get("run.list", routes::RUNS, Reader), runs::<C>)
        .row(Op::post("run.launch", routes::RUNS, Deployer), launch::<C>)
        .row(Op::get("run.describe", routes::RUN, Reader), run::<C>)
        .row(
            Op::post("run.cancel", routes::RUN_CANCEL, Deployer),
            cancel_run::<C>,
        )
        .row(
            Op::get("run.output", routes::RUN_OUTPUT, Reader),
            run_outputs::<C>,
        )
        .row(
            Op::get("run.output.task", routes::RUN_TASK_OUTPUT, Reader).streams(),
            run_output::<C>,
        )
        .row(Op::get("run.logs", routes::RUN_LOGS, Reader), run_logs::<C>)
        .row(
            Op::get("run.logs.follow", routes::RUN_LOGS_FOLLOW, Reader).streams(),
            follow_run_logs::<C>,
        )
        .row(
            Op::get("schedule.list", routes::SCHEDULES, Reader),
            schedules::<C>,
        )
        .row(
            Op::post("schedule.create", routes::SCHEDULES, Deployer),
            create_schedule::<C>,
        )
        .row(
            Op::get("schedule.describe", routes::SCHEDULE, Reader),
            schedule::<C>,
        )
        .row(
            Op::delete("schedule.delete", routes::SCHEDULE, Deployer),
            delete_schedule::<C>,
        )
        .row(
            Op::post("schedule.pause", routes::SCHEDULE_PAUSE, Deployer),
            pause_schedule::<C>,
        )
        .row(
            Op::post("schedule.resume", routes::SCHEDULE_RESUME, Deployer),
            resume_schedule::<C>,
        )
        .row(
            Op::get("schedule.history", routes::SCHEDULE_HISTORY, Reader),
            ticks::<C>,
        )
        .row(
            Op::post("job.deploy", routes::DEPLOY, Deployer),
            deploy::<C>,
        )
        .row(Op::get("token.list", routes::TOKENS, Admin), tokens::<C>)
        .row(
            Op::post("token.create", routes::TOKENS, Admin),
            create_token::<C>,
        )
        .row(
            Op::delete("token.revoke", routes::TOKEN, Admin),
            revoke_token::<C>,
        )
        .row(Op::get("audit.list", routes::AUDIT, Admin), audit::<C>)
        .row(
            Op::get("plugin.list", routes::PLUGINS, Reader),
            plugins::<C>,
        )
        .row(
            Op::post("artifact.missing", routes::ARTIFACTS_MISSING, Deployer).reads(),
            missing::<C>,
        )
        .row(
            Op::put("artifact.upload", routes::ARTIFACT, Deployer).streams(),
            upload::<C>,
        )
}

async fn audit<C: ControlApi>(
    By(control): By<C>,
    Filter(query): Filter<AuditQuery>,
) -> Reply<Vec<AuditEntry>> {
    Ok(axum::Json(control.audit(query).await?))
}

async fn status<C: ControlApi>(By(control): By<C>) -> Reply<Status> {
    Ok(axum::Json(control.status().await?))
}

async fn nodes<C: ControlApi>(By(control): By<C>) -> Reply<Vec<Node>> {
    Ok(axum::Json(control.nodes().await?))
}

async fn node<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<NodeName>,
) -> Reply<NodeDetail> {
    Ok(axum::Json(control.node(name).await?))
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

async fn jobs<C: ControlApi>(By(control): By<C>) -> Reply<Vec<Job>> {
    Ok(axum::Json(control.jobs().await?))
}

async fn job<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<JobName>,
) -> Result<([(HeaderName, String); 1], axum::Json<JobDetail>), Failure> {
    let detail = control.job(name).await?;
    Ok(([(ETAG, detail.job.etag())], axum::Json(detail)))
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
) -> Result<Response, Failure> {
    followed(&control, LogsOf::Run(id), query).await
}

async fn follow_logs<C: ControlApi>(
    By(control): By<C>,
    Segments(name): Segments<JobName>,
    Filter(query): Filter<LogsQuery>,
) -> Result<Response, Failure> {
    followed(&control, LogsOf::Job(name), query).await
}

async fn followed<C: ControlApi>(
    control: &C,
    of: LogsOf,
    query: LogsQuery,
) -> Result<Response, Failure> {
    check_tail(&query)?;
    let events = control.follow_logs(of, query).await?;
    let chunks = futures_util::stream::unfold(events, async |mut events| {
        let chunk = match tokio::time::timeout(FOLLOW_SILENCE_MAX, events.recv()).await {
            Ok(Some(piece)) => json_lines(&piece),
            Ok(None) => return None,
            Err(_) => b"\n".to_vec(),
        };
        Some((Ok::<_, std::convert::Infallible>(chunk), events))
    });
    let head = [(CONTENT_TYPE, "application/x-ndjson")];
    Ok((head, RawBody::from_stream(chunks)).into_response())
}

fn json_lines(events: &[LogEvent]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(events.len() * 256);
    for event in events {
        serde_json::to_writer(&mut bytes, event).expect("an event has nothing JSON cannot say");
        bytes.push(b'\n');
    }
    bytes
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
    Filter(filter): Filter<ExecutionFilter>,
) -> Reply<Vec<Execution>> {
    Ok(axum::Json(control.executions(filter).await?))
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
    headers: HeaderMap,
    Body(launch): Body<RunLaunch>,
) -> Result<(StatusCode, axum::Json<Run>), Failure> {
    let key = match headers.get("idempotency-key") {
        None => None,
        Some(key) => {
            let key = key.to_str().ok().filter(|key| {
                !key.is_empty() && key.len() <= sluice_api::IDEMPOTENCY_KEY_BYTES_MAX
            });
            if key.is_none() {
                let message = format!(
                    "an Idempotency-Key has 1 to {} visible characters",
                    sluice_api::IDEMPOTENCY_KEY_BYTES_MAX
                );
                return Err(ErrorBody::new(ErrorCode::Invalid, message).into());
            }
            key.map(str::to_owned)
        }
    };
    let run = control.launch(launch, key).await?;
    Ok((StatusCode::CREATED, axum::Json(run)))
}

async fn runs<C: ControlApi>(
    By(control): By<C>,
    Filter(filter): Filter<RunFilter>,
) -> Reply<Vec<Run>> {
    Ok(axum::Json(control.runs(filter).await?))
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
) -> Result<Response, Failure> {
    let output = control.run_output(id, job, node).await?;
    let head = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_LENGTH, output.bytes.to_string()),
        (ETAG, format!("\"{}\"", output.digest)),
    ];
    let body = match output.file {
        Some(file) => RawBody::from_stream(ReaderStream::with_capacity(file, OUTPUT_CHUNK_BYTES)),
        None => RawBody::empty(),
    };
    Ok((head, body).into_response())
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
) -> Result<(StatusCode, axum::Json<Schedule>), Failure> {
    let schedule = control.create_schedule(create).await?;
    Ok((StatusCode::CREATED, axum::Json(schedule)))
}

async fn schedules<C: ControlApi>(
    By(control): By<C>,
    Filter(filter): Filter<ScheduleFilter>,
) -> Reply<Vec<Schedule>> {
    Ok(axum::Json(control.schedules(filter).await?))
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
) -> Reply<Vec<ScheduleTick>> {
    Ok(axum::Json(control.ticks(name, query).await?))
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

async fn tokens<C: ControlApi>(By(control): By<C>) -> Reply<Vec<Token>> {
    Ok(axum::Json(control.tokens().await?))
}

async fn revoke_token<C: ControlApi>(
    By(control): By<C>,
    Segments(id): Segments<TokenId>,
) -> Reply<Token> {
    Ok(axum::Json(control.revoke_token(id).await?))
}

async fn plugins<C: ControlApi>(By(control): By<C>) -> Reply<Vec<Plugin>> {
    Ok(axum::Json(control.plugins().await?))
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
    Segments(digest): Segments<Digest>,
    headers: HeaderMap,
    body: RawBody,
) -> Reply<ArtifactInfo> {
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > ARTIFACT_BYTES_MAX) {
        return Err(ArtifactError::TooLarge.into());
    }
    let mut upload = in_time(shared.artifacts.begin_upload(digest)).await??;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = in_time(chunks.next()).await? {
        let chunk = chunk.map_err(|_| cut_off())?;
        upload.write(&chunk).await?;
    }
    Ok(axum::Json(upload.finish().await?))
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
