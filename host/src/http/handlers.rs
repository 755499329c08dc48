//! The routes.

use std::time::Duration;

use axum::Router;
use axum::body::Body as RawBody;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post, put};
use futures_util::StreamExt as _;
use sluice_api::{
    ARTIFACT_BYTES_MAX, ArtifactInfo, DeployReply, DeployRequest, ErrorBody, ErrorCode, Execution,
    ExecutionFilter, Explain, Job, JobDetail, JobVersion, LogEvent, Logs, LogsQuery,
    MISSING_DIGESTS_MAX, MissingArtifacts, MissingReply, Node, NodeDetail, NodeLabels, NodeOrder,
    Plugin, RollbackRequest, Rollout, RolloutOrder, Status, Token, TokenCreate, TokenCreated,
    routes,
};
use sluice_model::{Digest, ExecutionId, JobName, NodeName, TokenId};

use super::ControlApi;
use super::answer::{Body, Failure, Filter, Reply, Segments, no_method, no_route};
use super::auth::{AdminTokenHash, require_token};
use crate::artifacts::{ArtifactError, Artifacts};

/// Most bytes of a JSON body: a pipeline of 256 KiB in which every character is escaped as `\u0000` fits.
pub(super) const BODY_BYTES_MAX: usize = 2 << 20;

/// How long an operation may take: reading logs waits for edges a few seconds, everything else is far below.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);

/// A reader that follows logs gets a blank line when nothing came for this long: silence would end the connection.
const FOLLOW_SILENCE_MAX: Duration = Duration::from_secs(15);

/// Longest silence within an upload.
const UPLOAD_SILENCE_MAX: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Shared<C> {
    control: C,
    artifacts: Artifacts,
}

/// The whole API. Everything in it, unknown paths included, needs the token.
pub fn router<C: ControlApi>(control: C, artifacts: Artifacts, token: AdminTokenHash) -> Router {
    let timed = Router::new()
        .route(routes::STATUS, get(status::<C>))
        .route(routes::NODES, get(nodes::<C>))
        .route(routes::NODE, get(node::<C>).delete(delete_node::<C>))
        .route(routes::NODE_REVOKE, post(revoke_node::<C>))
        .route(routes::NODE_CORDON, post(cordon::<C>))
        .route(routes::NODE_UNCORDON, post(uncordon::<C>))
        .route(routes::NODE_DRAIN, post(drain::<C>))
        .route(routes::NODE_LABELS, post(label::<C>))
        .route(routes::JOBS, get(jobs::<C>))
        .route(routes::JOB, get(job::<C>).delete(delete_job::<C>))
        .route(routes::JOB_START, post(start_job::<C>))
        .route(routes::JOB_STOP, post(stop_job::<C>))
        .route(routes::JOB_RESTART, post(restart_job::<C>))
        .route(routes::JOB_HISTORY, get(history::<C>))
        .route(routes::JOB_ROLLBACK, post(roll_back::<C>))
        .route(routes::JOB_EXPLAIN, get(explain::<C>))
        .route(routes::JOB_ROLLOUT, get(rollout::<C>))
        .route(routes::JOB_ROLLOUT_ORDER, post(order_rollout::<C>))
        .route(routes::JOB_LOGS, get(logs::<C>))
        .route(routes::JOB_NODE_EXECUTION, get(execution_at::<C>))
        .route(routes::EXECUTIONS, get(executions::<C>))
        .route(routes::EXECUTION, get(execution::<C>))
        .route(routes::DEPLOY, post(deploy::<C>))
        .route(routes::TOKENS, get(tokens::<C>).post(create_token::<C>))
        .route(routes::TOKEN, delete(revoke_token::<C>))
        .route(routes::PLUGINS, get(plugins::<C>))
        .route(routes::ARTIFACTS_MISSING, post(missing::<C>))
        .layer(middleware::from_fn(within_time));
    Router::new()
        .route(routes::ARTIFACT, put(upload::<C>))
        .route(routes::JOB_LOGS_FOLLOW, get(follow_logs::<C>))
        .merge(timed)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(token, require_token))
        .with_state(Shared { control, artifacts })
}

async fn within_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(OPERATION_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("the operation took longer than {OPERATION_TIMEOUT:?}");
            let help = "it may still be done: look before repeating it";
            Failure(ErrorBody::new(ErrorCode::Unavailable, message).with_help(help)).into_response()
        }
    }
}

type Held<C> = State<Shared<C>>;

async fn status<C: ControlApi>(State(shared): Held<C>) -> Reply<Status> {
    Ok(axum::Json(shared.control.status().await?))
}

async fn nodes<C: ControlApi>(State(shared): Held<C>) -> Reply<Vec<Node>> {
    Ok(axum::Json(shared.control.nodes().await?))
}

async fn node<C: ControlApi>(
    State(shared): Held<C>,
    Segments(name): Segments<NodeName>,
) -> Reply<NodeDetail> {
    Ok(axum::Json(shared.control.node(name).await?))
}

async fn cordon<C: ControlApi>(
    State(shared): Held<C>,
    Segments(name): Segments<NodeName>,
) -> Reply<Node> {
    let order = NodeOrder::Cordon;
    Ok(axum::Json(shared.control.order_node(name, order).await?))
}

async fn uncordon<C: ControlApi>(
    State(shared): Held<C>,
    Segments(name): Segments<NodeName>,
) -> Reply<Node> {
    let order = NodeOrder::Uncordon;
    Ok(axum::Json(shared.control.order_node(name, order).await?))
}

async fn drain<C: ControlApi>(
    State(shared): Held<C>,
    Segments(name): Segments<NodeName>,
) -> Reply<Node> {
    let order = NodeOrder::Drain;
    Ok(axum::Json(shared.control.order_node(name, order).await?))
}

async fn label<C: ControlApi>(
    State(shared): Held<C>,
    Segments(name): Segments<NodeName>,
    Body(labels): Body<NodeLabels>,
) -> Reply<Node> {
    let order = NodeOrder::Label(labels);
    Ok(axum::Json(shared.control.order_node(name, order).await?))
}

async fn revoke_node<C: ControlApi>(
    State(shared): Held<C>,
    Segments(name): Segments<NodeName>,
) -> Reply<Node> {
    Ok(axum::Json(shared.control.revoke_node(name).await?))
}

async fn delete_node<C: ControlApi>(
    State(shared): Held<C>,
    Segments(name): Segments<NodeName>,
) -> Reply<Node> {
    Ok(axum::Json(shared.control.delete_node(name).await?))
}

async fn jobs<C: ControlApi>(State(shared): Held<C>) -> Reply<Vec<Job>> {
    Ok(axum::Json(shared.control.jobs().await?))
}

async fn job<C: ControlApi>(
    State(shared): Held<C>,
    Segments(name): Segments<JobName>,
) -> Reply<JobDetail> {
    Ok(axum::Json(shared.control.job(name).await?))
}

async fn delete_job<C: ControlApi>(
    State(shared): Held<C>,
    Segments(name): Segments<JobName>,
) -> Reply<Job> {
    Ok(axum::Json(shared.control.delete_job(name).await?))
}

async fn start_job<C: ControlApi>(
    State(shared): Held<C>,
    Segments(name): Segments<JobName>,
) -> Reply<Job> {
    Ok(axum::Json(shared.control.start_job(name).await?))
}

async fn stop_job<C: ControlApi>(
    State(shared): Held<C>,
    Segments(name): Segments<JobName>,
) -> Reply<Job> {
    Ok(axum::Json(shared.control.stop_job(name).await?))
}

async fn restart_job<C: ControlApi>(
    State(shared): Held<C>,
    Segments(name): Segments<JobName>,
) -> Reply<Job> {
    Ok(axum::Json(shared.control.restart_job(name).await?))
}

async fn history<C: ControlApi>(
    State(shared): Held<C>,
    Segments(name): Segments<JobName>,
) -> Reply<Vec<JobVersion>> {
    Ok(axum::Json(shared.control.history(name).await?))
}

async fn roll_back<C: ControlApi>(
    State(shared): Held<C>,
    Segments(name): Segments<JobName>,
    Body(request): Body<RollbackRequest>,
) -> Reply<DeployReply> {
    Ok(axum::Json(shared.control.roll_back(name, request).await?))
}

async fn explain<C: ControlApi>(
    State(shared): Held<C>,
    Segments(name): Segments<JobName>,
) -> Reply<Explain> {
    Ok(axum::Json(shared.control.explain(name).await?))
}

async fn rollout<C: ControlApi>(
    State(shared): Held<C>,
    Segments(name): Segments<JobName>,
) -> Reply<Rollout> {
    Ok(axum::Json(shared.control.rollout(name).await?))
}

async fn order_rollout<C: ControlApi>(
    State(shared): Held<C>,
    Segments((name, order)): Segments<(JobName, RolloutOrder)>,
) -> Reply<Rollout> {
    Ok(axum::Json(shared.control.order_rollout(name, order).await?))
}

async fn logs<C: ControlApi>(
    State(shared): Held<C>,
    Segments(name): Segments<JobName>,
    Filter(query): Filter<LogsQuery>,
) -> Reply<Logs> {
    check_tail(&query)?;
    Ok(axum::Json(shared.control.logs(name, query).await?))
}

async fn follow_logs<C: ControlApi>(
    State(shared): Held<C>,
    Segments(name): Segments<JobName>,
    Filter(query): Filter<LogsQuery>,
) -> Result<Response, Failure> {
    check_tail(&query)?;
    let events = shared.control.follow_logs(name, query).await?;
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
    State(shared): Held<C>,
    Segments((job, node)): Segments<(JobName, NodeName)>,
) -> Reply<Execution> {
    Ok(axum::Json(shared.control.execution_at(job, node).await?))
}

async fn executions<C: ControlApi>(
    State(shared): Held<C>,
    Filter(filter): Filter<ExecutionFilter>,
) -> Reply<Vec<Execution>> {
    Ok(axum::Json(shared.control.executions(filter).await?))
}

async fn execution<C: ControlApi>(
    State(shared): Held<C>,
    Segments(id): Segments<ExecutionId>,
) -> Reply<Execution> {
    Ok(axum::Json(shared.control.execution(id).await?))
}

async fn deploy<C: ControlApi>(
    State(shared): Held<C>,
    Body(request): Body<DeployRequest>,
) -> Reply<DeployReply> {
    Ok(axum::Json(shared.control.deploy(request).await?))
}

async fn create_token<C: ControlApi>(
    State(shared): Held<C>,
    Body(request): Body<TokenCreate>,
) -> Reply<TokenCreated> {
    if request.ttl_ms == 0 || request.ttl_ms > sluice_api::TOKEN_TTL_MS_MAX {
        let message = format!(
            "a token lives for 1 ms to 30 days, not {} ms",
            request.ttl_ms
        );
        return Err(ErrorBody::new(ErrorCode::Invalid, message).into());
    }
    Ok(axum::Json(shared.control.create_token(request).await?))
}

async fn tokens<C: ControlApi>(State(shared): Held<C>) -> Reply<Vec<Token>> {
    Ok(axum::Json(shared.control.tokens().await?))
}

async fn revoke_token<C: ControlApi>(
    State(shared): Held<C>,
    Segments(id): Segments<TokenId>,
) -> Reply<Token> {
    Ok(axum::Json(shared.control.revoke_token(id).await?))
}

async fn plugins<C: ControlApi>(State(shared): Held<C>) -> Reply<Vec<Plugin>> {
    Ok(axum::Json(shared.control.plugins().await?))
}

async fn missing<C: ControlApi>(
    State(shared): Held<C>,
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
    State(shared): Held<C>,
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
