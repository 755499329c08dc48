//! The operators' API: HTTPS and JSON over a [`ControlApi`].
//!
//! ```text
//!   TlsListener -> bounded connections -> what is left of bodies -> token -> rate -> route: role, time limit -> ControlApi | Artifacts
//! ```
//!
//! This layer reads requests, checks the token and their size, and writes answers; what they mean is decided behind
//! [`ControlApi`]. Every answer that is not a success has an [`ErrorBody`], unknown routes and broken bodies included.
//! The paths and types are those of `sluice_api`.

use std::future::Future;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use sluice_api::{
    AuditEntry, AuditQuery, DeployReply, DeployRequest, ErrorBody, EventFilter, Execution,
    ExecutionFilter, Explain, Job, JobDetail, JobFilter, JobVersion, LogEvent, Logs, LogsQuery,
    Node, NodeDetail, NodeFilter, NodeOrder, Page, Plugin, PluginDetail, PluginFilter,
    RollbackRequest, Rollout, RolloutOrder, Run, RunFilter, RunLaunch, Schedule, ScheduleCreate,
    ScheduleDetail, ScheduleFilter, ScheduleTick, Status, TaskOutput, TickQuery, Token,
    TokenCreate, TokenCreated, TokenFilter,
};
use sluice_model::{Digest, ExecutionId, JobName, NodeName, RunId, ScheduleName, TokenId};
use tokio::sync::mpsc;

use crate::core::{Asker, Caller, LogsOf};
use crate::events::Told;

mod answer;
mod auth;
mod handlers;
mod listener;
mod openapi;
mod rate;
mod table;
mod unread;

pub(crate) use auth::draw_api_token;
pub use auth::{AdminToken, AdminTokenHash};
pub use handlers::router;
pub use listener::{ApiListener, CONNECTIONS_MAX, serve};
/// What a client of this API needs for TLS.
pub use sluice_transport::{SERVER_NAME, api_client_config};

/// What an operation answers: what was asked for, or what is wrong and the way out.
pub type Answer<T> = Result<T, ErrorBody>;

/// One task's output, ready to be read.
#[derive(Debug)]
pub struct OutputBytes {
    /// How many.
    pub bytes: u64,
    /// Their sha256.
    pub digest: Digest,
    /// Where they are; `None` when there are none.
    pub file: Option<tokio::fs::File>,
}

/// What the API needs of the orchestrator. A handle: cheap to clone, all operations may run at once. An operation that
/// changes something has committed it when it returns; dropping its future may or may not undo it.
pub trait ControlApi: Clone + Send + Sync + 'static {
    /// The same, on behalf of whoever asked: what they change is recorded as theirs.
    fn by(&self, asker: Arc<Asker>) -> Self;
    /// Who presents the token with this hash; `None` when it is not known or has ended.
    fn authenticate(&self, hash: [u8; 32]) -> impl Future<Output = Answer<Option<Caller>>> + Send;
    /// Records what was refused, or done outside the store.
    fn record(
        &self,
        asker: Arc<Asker>,
        outcome: Result<(), ErrorBody>,
    ) -> impl Future<Output = Answer<()>> + Send;
    /// Entries of the audit log, newest first.
    fn audit(&self, query: AuditQuery) -> impl Future<Output = Answer<Page<AuditEntry>>> + Send;
    /// Launches batch jobs; the same key is the same run.
    fn launch(
        &self,
        launch: RunLaunch,
        key: Option<String>,
    ) -> impl Future<Output = Answer<Run>> + Send;

    /// Runs, the newest first.
    fn runs(&self, filter: RunFilter) -> impl Future<Output = Answer<Page<Run>>> + Send;

    /// One run.
    fn run(&self, id: RunId) -> impl Future<Output = Answer<Run>> + Send;

    /// Calls a run off.
    fn cancel_run(&self, id: RunId) -> impl Future<Output = Answer<Run>> + Send;

    /// Creates a schedule; `conflict` when there is one of that name.
    fn create_schedule(
        &self,
        create: ScheduleCreate,
    ) -> impl Future<Output = Answer<Schedule>> + Send;
    /// Schedules, by name.
    fn schedules(
        &self,
        filter: ScheduleFilter,
    ) -> impl Future<Output = Answer<Page<Schedule>>> + Send;
    /// One schedule; `not-found` without it.
    fn schedule(&self, name: ScheduleName) -> impl Future<Output = Answer<ScheduleDetail>> + Send;
    /// What became of a schedule's ticks, newest first; `not-found` without it.
    fn ticks(
        &self,
        name: ScheduleName,
        query: TickQuery,
    ) -> impl Future<Output = Answer<Page<ScheduleTick>>> + Send;
    /// Pauses a schedule; one that is paused stays as it is.
    fn pause_schedule(&self, name: ScheduleName) -> impl Future<Output = Answer<Schedule>> + Send;
    /// Resumes a schedule; one that is not paused stays as it is.
    fn resume_schedule(&self, name: ScheduleName) -> impl Future<Output = Answer<Schedule>> + Send;
    /// Forgets a schedule, and answers it as it was; its runs go on.
    fn delete_schedule(&self, name: ScheduleName) -> impl Future<Output = Answer<Schedule>> + Send;

    /// Everything on one screen.
    fn status(&self) -> impl Future<Output = Answer<Status>> + Send;
    /// Nodes, by name.
    fn nodes(&self, filter: NodeFilter) -> impl Future<Output = Answer<Page<Node>>> + Send;
    /// One node; `not-found` without it.
    fn node(&self, name: NodeName) -> impl Future<Output = Answer<NodeDetail>> + Send;
    /// Orders something of a node, and answers it as it is then; `not-found` without it.
    fn order_node(
        &self,
        name: NodeName,
        order: NodeOrder,
    ) -> impl Future<Output = Answer<Node>> + Send;
    /// Shuts a node out until it joins again; `not-found` without it.
    fn revoke_node(&self, name: NodeName) -> impl Future<Output = Answer<Node>> + Send;
    /// Forgets a node; `conflict` while it is connected; answers the node as it was.
    fn delete_node(&self, name: NodeName) -> impl Future<Output = Answer<Node>> + Send;
    /// Jobs, by name.
    fn jobs(&self, filter: JobFilter) -> impl Future<Output = Answer<Page<Job>>> + Send;
    /// One job; `not-found` without it.
    fn job(&self, name: JobName) -> impl Future<Output = Answer<JobDetail>> + Send;
    /// Executions by job and node; an unknown job or node in the filter is `not-found`.
    fn executions(
        &self,
        filter: ExecutionFilter,
    ) -> impl Future<Output = Answer<Page<Execution>>> + Send;
    /// One execution; `not-found` without it.
    fn execution(&self, id: ExecutionId) -> impl Future<Output = Answer<Execution>> + Send;
    /// The execution of a job on a node; `not-found` without it, saying which of the two is unknown.
    fn execution_at(
        &self,
        job: JobName,
        node: NodeName,
    ) -> impl Future<Output = Answer<Execution>> + Send;
    /// Why each node does or does not run it; `not-found` without the job.
    fn explain(&self, job: JobName) -> impl Future<Output = Answer<Explain>> + Send;
    /// The outputs of a run's tasks, in their order; `not-found` without the run.
    fn run_outputs(&self, id: RunId) -> impl Future<Output = Answer<Vec<TaskOutput>>> + Send;
    /// One task's output; `conflict` while it is not here yet, `not-found` when it will not be.
    fn run_output(
        &self,
        id: RunId,
        job: JobName,
        node: NodeName,
    ) -> impl Future<Output = Answer<OutputBytes>> + Send;
    /// Lines from the edges in reach; `not-found` without the job, the run or the node.
    fn logs(&self, of: LogsOf, query: LogsQuery) -> impl Future<Output = Answer<Logs>> + Send;
    /// How a job's newest version reaches its nodes; `not-found` without job or rollout.
    fn rollout(&self, name: JobName) -> impl Future<Output = Answer<Rollout>> + Send;
    /// Pauses, resumes or ends a rollout; `conflict` when it has ended.
    fn order_rollout(
        &self,
        name: JobName,
        order: RolloutOrder,
    ) -> impl Future<Output = Answer<Rollout>> + Send;
    /// Lines from the edges as they come, in a bounded queue, until an `End`; `not-found` without job, run or node,
    /// `unavailable` when too many follow already. A reader that does not take them costs the edges nothing.
    fn follow_logs(
        &self,
        of: LogsOf,
        query: LogsQuery,
    ) -> impl Future<Output = Answer<mpsc::Receiver<Vec<LogEvent>>>> + Send;
    /// What changes from now on, or changed after the event with the id `after`; without an end, and `rate-limited` when
    /// too many watch already. A reader that does not take it costs nothing, and is told that it missed something.
    fn watch(
        &self,
        filter: EventFilter,
        after: Option<String>,
    ) -> impl Future<Output = Answer<BoxStream<'static, Told>>> + Send;
    /// Makes, changes or starts a job.
    fn deploy(&self, request: DeployRequest) -> impl Future<Output = Answer<DeployReply>> + Send;
    /// Starts a stopped job; one that is not stopped stays as it is.
    fn start_job(&self, name: JobName) -> impl Future<Output = Answer<Job>> + Send;
    /// Stops a job; one that is stopped stays as it is.
    fn stop_job(&self, name: JobName) -> impl Future<Output = Answer<Job>> + Send;
    /// The next attempt of every execution of a job; a stopped one is started.
    fn restart_job(&self, name: JobName) -> impl Future<Output = Answer<Job>> + Send;
    /// A job's kept versions, newest first.
    fn history(&self, name: JobName) -> impl Future<Output = Answer<Vec<JobVersion>>> + Send;
    /// Makes a new version with an older one's content; `not-found` when that one is not kept.
    fn roll_back(
        &self,
        name: JobName,
        request: RollbackRequest,
    ) -> impl Future<Output = Answer<DeployReply>> + Send;
    /// Deletes a job and its state on the edges; answers the job as it was.
    fn delete_job(&self, name: JobName) -> impl Future<Output = Answer<Job>> + Send;
    /// Makes a join token.
    fn create_token(
        &self,
        request: TokenCreate,
    ) -> impl Future<Output = Answer<TokenCreated>> + Send;
    /// Tokens, without their secrets; those that ended only when they are asked for.
    fn tokens(&self, filter: TokenFilter) -> impl Future<Output = Answer<Page<Token>>> + Send;
    /// One token, one that ended too; `not-found` without it.
    fn token(&self, id: TokenId) -> impl Future<Output = Answer<Token>> + Send;
    /// Makes a token worthless; `not-found` without it, and when it ended already; answers the token as it was.
    fn revoke_token(&self, id: TokenId) -> impl Future<Output = Answer<Token>> + Send;
    /// Components that are stored, by digest; an unknown job in the filter is `not-found`.
    fn plugins(&self, filter: PluginFilter) -> impl Future<Output = Answer<Page<Plugin>>> + Send;
    /// One component; `not-found` without it.
    fn plugin(&self, digest: Digest) -> impl Future<Output = Answer<PluginDetail>> + Send;
}

#[cfg(test)]
mod tests;
