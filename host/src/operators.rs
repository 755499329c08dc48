//! What the HTTP API asks for, answered: the control thread decides, this adds what lies outside the store (uploaded
//! components, new secrets, logs that only edges have).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use sluice_api::{
    API_TOKEN_TTL_MS_MAX, AbsentNode, ArtifactInfo, AuditEntry, AuditQuery, DeployReply,
    DeployRequest, ErrorBody, ErrorCode, EventFilter, Execution, ExecutionFilter, Explain, Job,
    JobDetail, JobFilter, JobVersion, LOG_TAIL_DEFAULT, LogEvent, Logs, LogsQuery, Node,
    NodeDetail, NodeFilter, NodeOrder, OutputState, Page, PageQuery, Plugin, PluginDetail,
    PluginFilter, RollbackRequest, Rollout, RolloutOrder, Run, RunFilter, RunLaunch, Schedule,
    ScheduleCreate, ScheduleDetail, ScheduleFilter, ScheduleTick, Status, TOKEN_NAME_BYTES_MAX,
    TOKEN_TTL_MS_MAX, TaskOutput, TickQuery, Token, TokenCreate, TokenCreated, TokenFilter,
};
use sluice_model::pipeline::{self, PluginRef};
use sluice_model::{
    Digest, ExecutionId, JobName, NodeName, Role, RunId, ScheduleName, TokenId, UnixMs, World,
};
use sluice_protocol::{COUNTER_MAX, LogRequest};
use sluice_transport::Address;
use sluice_transport::identity::{JoinToken, TokenSecret};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::artifacts::{ArtifactError, Artifacts};
use crate::control::{Ask, Clock, Control};
use crate::core::{ApiCall, Asker, Caller, ComponentFacts, LogTarget, LogsOf, OutputCall, Reply};
use crate::events::{Events, Told};
use crate::follow::{Follow, Readers, line_of};
use crate::http::{Answer, ControlApi, OutputBytes, draw_api_token};
use crate::log_room::LogRoom;
use crate::outputs::Outputs;
use crate::sessions::OpenSessions;
use crate::store::{ApiTokenRecord, OutputTotals, TokenRecord};

/// Edges asked for logs at the same time.
const LOG_READS_MAX: usize = 32;

/// The operators' side of the orchestrator. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Operators {
    pub(crate) control: Control,
    /// On whose behalf; `None` is the program itself.
    pub(crate) asker: Option<Arc<Asker>>,
    pub(crate) artifacts: Artifacts,
    pub(crate) outputs: Outputs,
    pub(crate) open: OpenSessions,
    pub(crate) authority_sha256: [u8; 32],
    pub(crate) addresses: Arc<[Address]>,
    pub(crate) clock: Clock,
    pub(crate) readers: Readers,
    pub(crate) events: Events,
    /// What outlives a request ends when the first is cancelled, and is waited for in the second.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// Asks, and takes the one sort of reply that belongs to the question.
macro_rules! ask {
    ($self:expr, $call:expr, $pattern:pat => $reply:expr) => {
        match $self
            .control
            .ask(Ask::Api(Box::new($self.asked($call))))
            .await?
        {
            $pattern => Ok($reply),
            other => Err(foreign(&other)),
        }
    };
}

fn foreign(reply: &Reply) -> ErrorBody {
    tracing::error!(?reply, "a reply that belongs to another question");
    ErrorBody::new(
        ErrorCode::Internal,
        "the orchestrator mixed up its answers; its log says more",
    )
}

impl Operators {
    /// How many outputs of tasks there are.
    pub(crate) async fn output_totals(&self) -> Answer<OutputTotals> {
        let call = ApiCall::Output(OutputCall::Totals);
        ask!(self, call, Reply::OutputTotals(totals) => totals)
    }
}

impl ControlApi for Operators {
    fn by(&self, asker: Arc<Asker>) -> Self {
        Self {
            asker: Some(asker),
            ..self.clone()
        }
    }

    async fn authenticate(&self, hash: [u8; 32]) -> Answer<Option<Caller>> {
        ask!(self, ApiCall::Authenticate(hash), Reply::Caller(caller) => caller)
    }

    async fn record(&self, asker: Arc<Asker>, outcome: Result<(), ErrorBody>) -> Answer<()> {
        ask!(self, ApiCall::Record(asker, outcome), Reply::Done => ())
    }

    async fn audit(&self, query: AuditQuery) -> Answer<Page<AuditEntry>> {
        ask!(self, ApiCall::Audit(query), Reply::Audit(entries) => entries)
    }

    async fn status(&self) -> Answer<Status> {
        ask!(self, ApiCall::Status, Reply::Status(status) => *status)
    }

    async fn nodes(&self, filter: NodeFilter) -> Answer<Page<Node>> {
        ask!(self, ApiCall::Nodes(filter), Reply::Nodes(nodes) => nodes)
    }

    async fn node(&self, name: NodeName) -> Answer<NodeDetail> {
        ask!(self, ApiCall::Node(name), Reply::Node(node) => *node)
    }

    async fn order_node(&self, name: NodeName, order: NodeOrder) -> Answer<Node> {
        ask!(self, ApiCall::OrderNode(name, order), Reply::NodeLine(node) => *node)
    }

    async fn revoke_node(&self, name: NodeName) -> Answer<Node> {
        ask!(self, ApiCall::RevokeNode(name), Reply::NodeLine(node) => *node)
    }

    async fn delete_node(&self, name: NodeName) -> Answer<Node> {
        ask!(self, ApiCall::DeleteNode(name), Reply::NodeLine(node) => *node)
    }

    async fn jobs(&self, filter: JobFilter) -> Answer<Page<Job>> {
        ask!(self, ApiCall::Jobs(filter), Reply::Jobs(jobs) => jobs)
    }

    async fn job(&self, name: JobName) -> Answer<JobDetail> {
        ask!(self, ApiCall::Job(name), Reply::JobDetail(job) => *job)
    }

    async fn executions(&self, filter: ExecutionFilter) -> Answer<Page<Execution>> {
        ask!(self, ApiCall::Executions(filter), Reply::Executions(executions) => executions)
    }

    async fn execution(&self, id: ExecutionId) -> Answer<Execution> {
        ask!(self, ApiCall::Execution(id), Reply::Execution(execution) => *execution)
    }

    async fn execution_at(&self, job: JobName, node: NodeName) -> Answer<Execution> {
        ask!(self, ApiCall::ExecutionAt(job, node), Reply::Execution(execution) => *execution)
    }

    async fn explain(&self, job: JobName) -> Answer<Explain> {
        ask!(self, ApiCall::Explain(job), Reply::Explain(explain) => *explain)
    }

    async fn logs(&self, of: LogsOf, query: LogsQuery) -> Answer<Logs> {
        let _permit = self.readers.admit()?;
        let call = ApiCall::LogTargets(of, query.node.clone());
        let targets: Vec<LogTarget> = ask!(self, call, Reply::LogTargets(targets, _) => targets)?;
        Ok(self.read_logs(targets, &query).await)
    }

    async fn follow_logs(
        &self,
        of: LogsOf,
        query: LogsQuery,
    ) -> Answer<mpsc::Receiver<Vec<LogEvent>>> {
        let permit = self.readers.admit()?;
        let call = ApiCall::LogTargets(of.clone(), query.node.clone());
        let targets: Vec<LogTarget> = ask!(self, call, Reply::LogTargets(targets, _) => targets)?;
        let follow = Follow {
            control: self.control.clone(),
            open: self.open.clone(),
            stop: self.stop.clone(),
            of,
            query,
            _permit: permit,
        };
        let (events, work) = follow.begin(targets);
        self.tasks.spawn(work);
        Ok(events)
    }

    async fn watch(
        &self,
        filter: EventFilter,
        after: Option<String>,
    ) -> Answer<BoxStream<'static, Told>> {
        self.events.watch(filter, after).await
    }

    async fn run_outputs(&self, id: RunId) -> Answer<Vec<TaskOutput>> {
        let call = ApiCall::Output(OutputCall::OfRun(id));
        ask!(self, call, Reply::TaskOutputs(outputs) => outputs)
    }

    async fn run_output(&self, id: RunId, job: JobName, node: NodeName) -> Answer<OutputBytes> {
        let outputs = self.run_outputs(id).await?;
        // One that never ran keeps the node of its last try; what is here goes before it.
        let found = outputs
            .into_iter()
            .filter(|output| output.job == job && output.node.as_ref() == Some(&node))
            .min_by_key(|output| output.state != OutputState::Held);
        let Some(output) = found else {
            let message = format!("run {id} has no task of {job} on {node}");
            return Err(ErrorBody::new(ErrorCode::NotFound, message)
                .with_help(format!("`sluice run describe {id}` lists its tasks")));
        };
        let why = output.reason.unwrap_or_default();
        match (output.state, output.bytes, output.digest) {
            (OutputState::Held, Some(bytes), Some(digest)) => {
                let file = match bytes {
                    0 => None,
                    _ => Some(self.outputs.read(digest).await.map_err(|error| {
                        internal(format!(
                            "the output of {job} on {node} cannot be read: {error}"
                        ))
                    })?),
                };
                Ok(OutputBytes {
                    bytes,
                    digest,
                    file,
                })
            }
            (OutputState::Pending | OutputState::Coming, ..) => {
                let message = format!("the output of {job} on {node} is not here yet: {why}");
                let next = output.next_action.unwrap_or_default();
                Err(ErrorBody::new(ErrorCode::Conflict, message)
                    .with_help(format!("it comes {next}")))
            }
            _ => {
                let message = format!("there is no output of {job} on {node}: {why}");
                Err(ErrorBody::new(ErrorCode::NotFound, message))
            }
        }
    }

    async fn launch(&self, launch: RunLaunch, key: Option<String>) -> Answer<Run> {
        let stdin_bytes = match launch.stdin {
            Some(digest) => self.artifacts.stdin_bytes(digest).await?,
            None => None,
        };
        ask!(self, ApiCall::Launch(launch, key, stdin_bytes), Reply::Run(run) | Reply::LaunchedBefore(run) => *run)
    }

    async fn runs(&self, filter: RunFilter) -> Answer<Page<Run>> {
        ask!(self, ApiCall::Runs(filter), Reply::Runs(runs) => runs)
    }

    async fn run(&self, id: RunId) -> Answer<Run> {
        ask!(self, ApiCall::Run(id), Reply::Run(run) => *run)
    }

    async fn cancel_run(&self, id: RunId) -> Answer<Run> {
        ask!(self, ApiCall::CancelRun(id), Reply::Run(run) => *run)
    }

    async fn create_schedule(&self, create: ScheduleCreate) -> Answer<Schedule> {
        ask!(self, ApiCall::CreateSchedule(create), Reply::Schedule(schedule) => *schedule)
    }

    async fn schedules(&self, filter: ScheduleFilter) -> Answer<Page<Schedule>> {
        ask!(self, ApiCall::Schedules(filter), Reply::Schedules(schedules) => schedules)
    }

    async fn schedule(&self, name: ScheduleName) -> Answer<ScheduleDetail> {
        ask!(self, ApiCall::Schedule(name), Reply::ScheduleDetail(detail) => *detail)
    }

    async fn ticks(&self, name: ScheduleName, query: TickQuery) -> Answer<Page<ScheduleTick>> {
        ask!(self, ApiCall::Ticks(name, query), Reply::Ticks(ticks) => ticks)
    }

    async fn pause_schedule(&self, name: ScheduleName) -> Answer<Schedule> {
        ask!(self, ApiCall::PauseSchedule(name), Reply::Schedule(schedule) => *schedule)
    }

    async fn resume_schedule(&self, name: ScheduleName) -> Answer<Schedule> {
        ask!(self, ApiCall::ResumeSchedule(name), Reply::Schedule(schedule) => *schedule)
    }

    async fn delete_schedule(&self, name: ScheduleName) -> Answer<Schedule> {
        ask!(self, ApiCall::DeleteSchedule(name), Reply::Schedule(schedule) => *schedule)
    }

    async fn deploy(&self, request: DeployRequest) -> Answer<DeployReply> {
        let facts = self.facts(&request).await?;
        ask!(self, ApiCall::Deploy(request, facts), Reply::Deploy(reply) => *reply)
    }

    async fn start_job(&self, name: JobName) -> Answer<Job> {
        ask!(self, ApiCall::StartJob(name), Reply::Job(job) => *job)
    }

    async fn rollout(&self, name: JobName) -> Answer<Rollout> {
        ask!(self, ApiCall::Rollout(name), Reply::Rollout(rollout) => *rollout)
    }

    async fn order_rollout(&self, name: JobName, order: RolloutOrder) -> Answer<Rollout> {
        ask!(self, ApiCall::RolloutOrder(name, order), Reply::Rollout(rollout) => *rollout)
    }

    async fn stop_job(&self, name: JobName) -> Answer<Job> {
        ask!(self, ApiCall::StopJob(name), Reply::Job(job) => *job)
    }

    async fn restart_job(&self, name: JobName) -> Answer<Job> {
        ask!(self, ApiCall::RestartJob(name), Reply::Job(job) => *job)
    }

    async fn history(&self, name: JobName) -> Answer<Vec<JobVersion>> {
        ask!(self, ApiCall::History(name), Reply::History(versions) => versions)
    }

    async fn roll_back(&self, name: JobName, request: RollbackRequest) -> Answer<DeployReply> {
        ask!(self, ApiCall::Rollback(name, request.to), Reply::Deploy(reply) => *reply)
    }

    async fn delete_job(&self, name: JobName) -> Answer<Job> {
        ask!(self, ApiCall::DeleteJob(name), Reply::Job(job) => *job)
    }

    async fn create_token(&self, request: TokenCreate) -> Answer<TokenCreated> {
        if let Some(role) = request.role {
            return self.create_api_token(role, request).await;
        }
        if request.name.is_some() {
            let message = "only a token of the API has a name";
            return Err(ErrorBody::new(ErrorCode::Invalid, message)
                .with_help("add --role, or leave --name out"));
        }
        if request.ttl_ms == 0 || request.ttl_ms > TOKEN_TTL_MS_MAX {
            let message = format!(
                "a token lives for 1 ms to {} days",
                TOKEN_TTL_MS_MAX / 86_400_000
            );
            return Err(
                ErrorBody::new(ErrorCode::Invalid, message).with_help("choose another --ttl")
            );
        }
        if request.uses > COUNTER_MAX {
            let message = "a token is for so many uses that no store can count them";
            return Err(ErrorBody::new(ErrorCode::Invalid, message)
                .with_help("--uses 0 means any number until it expires"));
        }
        let secret = TokenSecret::generate().map_err(internal)?;
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(internal)?;
        let id = TokenId::from_random(id);
        let created_at: UnixMs = self.clock.now().unix;
        let expires_at = created_at.plus(Duration::from_millis(request.ttl_ms));
        let record = TokenRecord {
            id,
            secret_hash: secret.hash(),
            uses_left: (request.uses > 0).then_some(request.uses),
            expires_at,
            node: request.node,
            rejoin: request.rejoin,
            created_at,
            created_by: self.maker(),
        };
        let token = JoinToken {
            authority_sha256: self.authority_sha256,
            id,
            secret,
            addresses: self.addresses.to_vec(),
        };
        let token = token.encode().map_err(internal)?;
        ask!(self, ApiCall::CreateToken(record), Reply::Done => TokenCreated { token, id, expires_at })
    }

    async fn tokens(&self, filter: TokenFilter) -> Answer<Page<Token>> {
        ask!(self, ApiCall::Tokens(filter), Reply::Tokens(tokens) => tokens)
    }

    async fn token(&self, id: TokenId) -> Answer<Token> {
        ask!(self, ApiCall::Token(id), Reply::Token(token) => token)
    }

    async fn revoke_token(&self, id: TokenId) -> Answer<Token> {
        ask!(self, ApiCall::RevokeToken(id), Reply::Token(token) => token)
    }

    async fn plugins(&self, filter: PluginFilter) -> Answer<Page<Plugin>> {
        let mut uses = self.component_use(filter.job.clone()).await?;
        let of_job = filter.job.map(|job| format!("{job}@"));
        let mut digests = self.artifacts.digests().await?;
        digests.retain(|digest| {
            let used_by = uses.get(digest);
            let by_job = of_job.as_ref().is_none_or(|job| {
                used_by.is_some_and(|by| by.iter().any(|version| version.starts_with(job)))
            });
            by_job && (used_by.is_none() || !filter.unused)
        });
        let query = PageQuery {
            limit: filter.limit,
            cursor: filter.cursor,
        };
        let page = Page::of_list(digests, &query, Digest::to_string)?;
        let mut items = Vec::with_capacity(page.items.len());
        for digest in page.items {
            match self.artifacts.info(digest).await {
                Ok(info) => items.push(plugin_of(info, uses.remove(&digest))),
                // Swept meanwhile.
                Err(ArtifactError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let next = page.next;
        Ok(Page { items, next })
    }

    async fn plugin(&self, digest: Digest) -> Answer<PluginDetail> {
        let noted = self.artifacts.noted(digest).await?;
        let mut uses = self.component_use(None).await?;
        Ok(PluginDetail {
            plugin: plugin_of(noted.info, uses.remove(&digest)),
            exports: noted.exports,
            uploaded_at: noted.uploaded_at,
            uploaded_by: noted.uploaded_by,
        })
    }
}

/// A component with what names it: `None` when nothing does, not even an assignment.
fn plugin_of(info: ArtifactInfo, used_by: Option<Vec<String>>) -> Plugin {
    Plugin {
        digest: info.digest,
        size: info.size,
        imports: info.imports,
        world: info.world,
        in_use: used_by.is_some(),
        used_by: used_by.unwrap_or_default(),
    }
}

impl Operators {
    /// The call, in the name of whoever asks.
    fn asked(&self, call: ApiCall) -> ApiCall {
        match &self.asker {
            Some(asker) => ApiCall::By(Arc::clone(asker), Box::new(call)),
            None => call,
        }
    }

    async fn component_use(&self, job: Option<JobName>) -> Answer<BTreeMap<Digest, Vec<String>>> {
        ask!(self, ApiCall::ComponentUse(job), Reply::ComponentUse(uses) => uses)
    }

    /// Who asks, for what it makes to say so.
    fn maker(&self) -> Option<String> {
        let asker = self.asker.as_ref();
        asker.map(|asker| asker.caller.shown().to_owned())
    }

    async fn create_api_token(&self, role: Role, request: TokenCreate) -> Answer<TokenCreated> {
        let invalid = |message: String, help: &str| {
            Err(ErrorBody::new(ErrorCode::Invalid, message).with_help(help))
        };
        if request.ttl_ms == 0 || request.ttl_ms > API_TOKEN_TTL_MS_MAX {
            let days = API_TOKEN_TTL_MS_MAX / 86_400_000;
            let message = format!("a token of the API lives for 1 ms to {days} days");
            return invalid(message, "choose another --ttl");
        }
        if request.node.is_some() || request.rejoin {
            let message = "a token of the API lets no node join".to_owned();
            return invalid(message, "leave --role out, or --node and --rejoin");
        }
        let is_fit = |name: &String| {
            !name.is_empty()
                && name.len() <= TOKEN_NAME_BYTES_MAX
                && !name.chars().any(char::is_control)
        };
        if !request.name.as_ref().is_none_or(is_fit) {
            let message = format!("a token's name has 1 to {TOKEN_NAME_BYTES_MAX} bytes of text");
            return invalid(message, "choose another --name");
        }
        let (token, hash) = draw_api_token(role).map_err(internal)?;
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(internal)?;
        let id = TokenId::from_random(id);
        let life = Duration::from_millis(request.ttl_ms);
        let created_at = self.clock.now().unix;
        let expires_at = created_at.plus(life);
        let record = ApiTokenRecord {
            id,
            hash,
            role,
            name: request.name,
            expires_at,
            created_at,
            created_by: self.maker(),
        };
        ask!(self, ApiCall::CreateApiToken(record), Reply::Done => TokenCreated { token, id, expires_at })
    }

    /// What is known of the components that a deploy names, as far as they are here. A pipeline with problems names none:
    /// the core tells its author.
    async fn facts(&self, request: &DeployRequest) -> Answer<BTreeMap<Digest, ComponentFacts>> {
        let mut named: BTreeSet<Digest> = request.plugins.values().copied().collect();
        if let Ok(pipeline) = pipeline::parse(&request.pipeline) {
            named.extend(
                pipeline
                    .stages
                    .iter()
                    .filter_map(|stage| match stage.plugin {
                        PluginRef::Digest(digest) => Some(digest),
                        PluginRef::Path(_) | PluginRef::Named { .. } => None,
                    }),
            );
        }
        let mut facts = BTreeMap::new();
        for digest in named {
            if self.artifacts.has(digest).await? {
                let info = self.artifacts.info(digest).await?;
                let world = if info.world == World::Report.as_str() {
                    World::Report
                } else {
                    World::Transform
                };
                let size = info.size;
                facts.insert(digest, ComponentFacts { size, world });
            }
        }
        Ok(facts)
    }

    /// Forgets components that no job version and no assignment names, and stdins that no open run names.
    pub(crate) async fn sweep_artifacts(&self, age_min: Duration) -> Answer<usize> {
        let uses = self.component_use(None).await?;
        let stdins = ask!(self, ApiCall::StdinUse, Reply::StdinUse(stdins) => stdins)?;
        let keep = uses.into_keys().collect();
        let components = self.artifacts.sweep(keep, age_min).await?;
        Ok(components + self.artifacts.sweep_stdins(stdins, age_min).await?)
    }

    async fn read_logs(&self, targets: Vec<LogTarget>, query: &LogsQuery) -> Logs {
        let stage = query.stage.as_ref().map(ToString::to_string);
        let request = LogRequest {
            tail: query.tail.unwrap_or(LOG_TAIL_DEFAULT),
            age_ms_max: query.age_ms_max,
            stage: stage.unwrap_or_default(),
            ..LogRequest::default()
        };
        let room = LogRoom::new();
        let mut logs = Logs::default();
        let mut reads = JoinSet::new();
        let mut targets = targets.into_iter();
        loop {
            while reads.len() < LOG_READS_MAX
                && let Some(target) = targets.next()
            {
                let (open, kept) = (self.open.clone(), room.begin());
                let request = LogRequest {
                    execution: target.execution.to_bytes().to_vec(),
                    ..request.clone()
                };
                reads.spawn(async move {
                    let read = match target.conn {
                        Some(conn) => open.logs(conn, request, kept).await,
                        None => Err("it is not connected".to_owned()),
                    };
                    (target, read)
                });
            }
            match reads.join_next().await {
                None => break,
                Some(Ok((target, Ok(kept)))) => {
                    let lines = kept.into_lines().map(|line| line_of(&target, line));
                    logs.lines.extend(lines);
                }
                Some(Ok((target, Err(why)))) => logs.absent.push(AbsentNode {
                    node: target.node,
                    why,
                }),
                Some(Err(error)) => tracing::error!(%error, "a log reader died"),
            }
        }
        logs.lines.sort_by_key(|line| line.at);
        logs.absent.sort_by(|a, b| a.node.cmp(&b.node));
        logs
    }
}

fn internal(error: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, error.to_string())
}
