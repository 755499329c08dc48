//! The API over real sockets, with a control that remembers what it was asked.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_api::{ArtifactInfo, DeployOutcome, ErrorCode, MissingReply, StdinInfo, routes};
use sluice_model::{Digest, Role, TokenId, UnixMs, Version};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::artifacts::Artifacts;

#[derive(Clone, Default)]
struct Fake {
    asked: Arc<Mutex<Vec<String>>>,
    recorded: Arc<Mutex<Vec<String>>>,
    /// The tokens with roles are good no longer.
    revoked: Arc<AtomicBool>,
}

fn whose(of: &LogsOf) -> String {
    match of {
        LogsOf::Job(job) => job.to_string(),
        LogsOf::Run(run) => run.to_string(),
    }
}

/// A token that the fake control knows.
fn token_of(role: Role) -> String {
    format!("sluice-api-{role}-{}", "a".repeat(64))
}

impl Fake {
    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn gone<T>(&self, what: String) -> Answer<T> {
        let body = ErrorBody::new(ErrorCode::NotFound, format!("no {what}"));
        self.note(what);
        Err(body.with_help("look at the list"))
    }
}

impl ControlApi for Fake {
    fn by(&self, _: Arc<Asker>) -> Self {
        self.clone()
    }

    fn authenticate(&self, hash: [u8; 32]) -> impl Future<Output = Answer<Option<Caller>>> + Send {
        let known = |role: &Role| *AdminTokenHash::of(&token_of(*role)).as_bytes() == hash;
        let role = ROLES.into_iter().find(known);
        let role = role.filter(|_| !self.revoked.load(Ordering::SeqCst));
        std::future::ready(Ok(role.map(|role| Caller {
            token: "t".to_owned(),
            name: None,
            role,
        })))
    }

    fn record(
        &self,
        asker: Arc<Asker>,
        outcome: Result<(), ErrorBody>,
    ) -> impl Future<Output = Answer<()>> + Send {
        let outcome = outcome.map_or_else(|error| error.code.as_str(), |()| "done");
        let line = format!("{} {} {outcome}", asker.operation, asker.target);
        self.recorded.lock().unwrap().push(line);
        std::future::ready(Ok(()))
    }

    fn audit(&self, query: AuditQuery) -> impl Future<Output = Answer<Page<AuditEntry>>> + Send {
        self.note(format!("audit {:?}", query.limit));
        std::future::ready(Ok(Page::whole(Vec::new())))
    }

    async fn launch(&self, launch: RunLaunch, key: Option<String>) -> Answer<Run> {
        let jobs: Vec<&str> = launch.jobs.iter().map(JobName::as_str).collect();
        self.gone(format!("launch {} {key:?}", jobs.join(" ")))
    }

    async fn runs(&self, filter: RunFilter) -> Answer<Page<Run>> {
        self.note(format!("runs {:?}", filter.state));
        Ok(Page::whole(Vec::new()))
    }

    async fn run(&self, id: RunId) -> Answer<Run> {
        self.gone(format!("run {id}"))
    }

    async fn cancel_run(&self, id: RunId) -> Answer<Run> {
        self.gone(format!("cancel {id}"))
    }

    async fn run_outputs(&self, id: RunId) -> Answer<Vec<TaskOutput>> {
        self.gone(format!("outputs of {id}"))
    }

    async fn run_output(&self, id: RunId, job: JobName, node: NodeName) -> Answer<OutputBytes> {
        self.note(format!("output of {job} on {node} in {id}"));
        let path = std::env::temp_dir().join(format!("sluice-output-{}", std::process::id()));
        std::fs::write(&path, "one\ntwo\n").unwrap();
        Ok(OutputBytes {
            bytes: 8,
            digest: Digest::of(b"one\ntwo\n"),
            file: Some(tokio::fs::File::open(&path).await.unwrap()),
        })
    }

    async fn create_schedule(&self, create: ScheduleCreate) -> Answer<Schedule> {
        let ScheduleCreate {
            name,
            overlap,
            catch_up,
            ..
        } = create;
        self.gone(format!("schedule {name} {overlap} {catch_up}"))
    }

    async fn schedules(&self, filter: ScheduleFilter) -> Answer<Page<Schedule>> {
        self.note(format!("schedules {:?}", filter.job));
        Ok(Page::whole(Vec::new()))
    }

    async fn schedule(&self, name: ScheduleName) -> Answer<ScheduleDetail> {
        self.gone(format!("describe schedule {name}"))
    }

    async fn ticks(&self, name: ScheduleName, query: TickQuery) -> Answer<Page<ScheduleTick>> {
        self.gone(format!("ticks {name} {:?}", query.limit))
    }

    async fn pause_schedule(&self, name: ScheduleName) -> Answer<Schedule> {
        self.gone(format!("pause schedule {name}"))
    }

    async fn resume_schedule(&self, name: ScheduleName) -> Answer<Schedule> {
        self.gone(format!("resume schedule {name}"))
    }

    async fn delete_schedule(&self, name: ScheduleName) -> Answer<Schedule> {
        self.gone(format!("delete schedule {name}"))
    }

    fn status(&self) -> impl Future<Output = Answer<Status>> + Send {
        self.note("status".to_owned());
        std::future::ready(Ok(Status {
            version: "0.1.0".to_owned(),
            nodes: Vec::new(),
            jobs: Vec::new(),
            waiting: Vec::new(),
            unplaced: Vec::new(),
            schedules: Vec::new(),
            tasks_waiting: 0,
            waiting_tasks: Vec::new(),
        }))
    }

    fn nodes(&self, filter: NodeFilter) -> impl Future<Output = Answer<Page<Node>>> + Send {
        self.note("nodes".to_owned());
        let mut page = Page::whole(Vec::new());
        page.next = filter.limit.map(|_| sluice_api::Cursor::of(&["e1"]));
        std::future::ready(Ok(page))
    }

    fn node(&self, name: NodeName) -> impl Future<Output = Answer<NodeDetail>> + Send {
        std::future::ready(self.gone(format!("node {name}")))
    }

    fn order_node(
        &self,
        name: NodeName,
        order: NodeOrder,
    ) -> impl Future<Output = Answer<Node>> + Send {
        std::future::ready(self.gone(format!("{} {name}", order.as_str())))
    }

    fn revoke_node(&self, name: NodeName) -> impl Future<Output = Answer<Node>> + Send {
        std::future::ready(self.gone(format!("revoke {name}")))
    }

    fn delete_node(&self, name: NodeName) -> impl Future<Output = Answer<Node>> + Send {
        std::future::ready(self.gone(format!("delete node {name}")))
    }

    fn jobs(&self, _: JobFilter) -> impl Future<Output = Answer<Page<Job>>> + Send {
        self.note("jobs".to_owned());
        std::future::ready(Ok(Page::whole(Vec::new())))
    }

    fn job(&self, name: JobName) -> impl Future<Output = Answer<JobDetail>> + Send {
        std::future::ready(self.gone(format!("job {name}")))
    }

    fn executions(
        &self,
        filter: ExecutionFilter,
    ) -> impl Future<Output = Answer<Page<Execution>>> + Send {
        let ExecutionFilter { job, node, all, .. } = filter;
        self.note(format!("executions {job:?} {node:?} {all}"));
        std::future::ready(Ok(Page::whole(Vec::new())))
    }

    fn execution(&self, id: ExecutionId) -> impl Future<Output = Answer<Execution>> + Send {
        std::future::ready(self.gone(format!("execution {id}")))
    }

    fn execution_at(
        &self,
        job: JobName,
        node: NodeName,
    ) -> impl Future<Output = Answer<Execution>> + Send {
        std::future::ready(self.gone(format!("execution of {job} on {node}")))
    }

    fn explain(&self, job: JobName) -> impl Future<Output = Answer<Explain>> + Send {
        std::future::ready(self.gone(format!("explain {job}")))
    }

    fn logs(&self, of: LogsOf, query: LogsQuery) -> impl Future<Output = Answer<Logs>> + Send {
        let of = whose(&of);
        self.note(format!("logs {of} {:?} {:?}", query.node, query.tail));
        std::future::ready(Ok(Logs::default()))
    }

    fn follow_logs(
        &self,
        of: LogsOf,
        query: LogsQuery,
    ) -> impl Future<Output = Answer<mpsc::Receiver<Vec<LogEvent>>>> + Send {
        self.note(format!("follow {} {:?}", whose(&of), query.node));
        let (to, events) = mpsc::channel(2);
        let node: NodeName = "e1".parse().unwrap();
        let why = "it is not connected".to_owned();
        let absent = LogEvent::Absent(sluice_api::AbsentNode { node, why });
        to.try_send(vec![absent]).unwrap();
        let why = "the job is deleted".to_owned();
        to.try_send(vec![LogEvent::End { why }]).unwrap();
        std::future::ready(Ok(events))
    }

    async fn watch(
        &self,
        filter: EventFilter,
        after: Option<String>,
    ) -> Answer<BoxStream<'static, Told>> {
        self.note(format!("watch {:?} {after:?}", filter.kind));
        let event = sluice_api::Event::job("j".parse().unwrap(), UnixMs(0));
        let told = [
            Told::At {
                id: "l.1".to_owned(),
            },
            Told::Event {
                id: "l.2".to_owned(),
                event,
            },
        ];
        Ok(futures_util::StreamExt::boxed(futures_util::stream::iter(
            told,
        )))
    }

    fn deploy(&self, request: DeployRequest) -> impl Future<Output = Answer<DeployReply>> + Send {
        self.note(format!("deploy {}", request.pipeline.len()));
        std::future::ready(Ok(DeployReply {
            job: "j".parse().unwrap(),
            id: None,
            version: Version(1),
            outcome: DeployOutcome::Created,
            dry_run: request.dry_run,
            changes: Vec::new(),
            matching_nodes: Vec::new(),
            rolled_back_to: None,
        }))
    }

    fn start_job(&self, name: JobName) -> impl Future<Output = Answer<Job>> + Send {
        std::future::ready(self.gone(format!("start {name}")))
    }

    fn rollout(&self, name: JobName) -> impl Future<Output = Answer<Rollout>> + Send {
        std::future::ready(self.gone(format!("rollout {name}")))
    }

    fn order_rollout(
        &self,
        name: JobName,
        order: RolloutOrder,
    ) -> impl Future<Output = Answer<Rollout>> + Send {
        std::future::ready(self.gone(format!("{} {name}", order.as_str())))
    }

    fn stop_job(&self, name: JobName) -> impl Future<Output = Answer<Job>> + Send {
        std::future::ready(self.gone(format!("stop {name}")))
    }

    fn restart_job(&self, name: JobName) -> impl Future<Output = Answer<Job>> + Send {
        std::future::ready(self.gone(format!("restart {name}")))
    }

    fn history(&self, name: JobName) -> impl Future<Output = Answer<Vec<JobVersion>>> + Send {
        std::future::ready(self.gone(format!("history {name}")))
    }

    fn roll_back(
        &self,
        name: JobName,
        request: RollbackRequest,
    ) -> impl Future<Output = Answer<DeployReply>> + Send {
        std::future::ready(self.gone(format!("rollback {name} {:?}", request.to)))
    }

    fn delete_job(&self, name: JobName) -> impl Future<Output = Answer<Job>> + Send {
        std::future::ready(self.gone(format!("delete {name}")))
    }

    fn create_token(
        &self,
        request: TokenCreate,
    ) -> impl Future<Output = Answer<TokenCreated>> + Send {
        self.note(format!("token {}", request.ttl_ms));
        std::future::ready(Ok(TokenCreated {
            token: "sluice1-x".to_owned(),
            id: TokenId::from_random([1; 16]),
            expires_at: UnixMs(0),
        }))
    }

    fn tokens(&self, _: TokenFilter) -> impl Future<Output = Answer<Page<Token>>> + Send {
        self.note("tokens".to_owned());
        std::future::ready(Ok(Page::whole(Vec::new())))
    }

    async fn token(&self, id: TokenId) -> Answer<Token> {
        self.gone(format!("token {id}"))
    }

    fn revoke_token(&self, id: TokenId) -> impl Future<Output = Answer<Token>> + Send {
        std::future::ready(self.gone(format!("revoke token {id}")))
    }

    async fn plugin(&self, digest: Digest) -> Answer<PluginDetail> {
        self.gone(format!("plugin {digest}"))
    }

    fn plugins(&self, _: PluginFilter) -> impl Future<Output = Answer<Page<Plugin>>> + Send {
        self.note("plugins".to_owned());
        std::future::ready(Ok(Page::whole(Vec::new())))
    }
}

mod bodies;
mod contract;

const ROLES: [Role; 3] = [Role::Reader, Role::Deployer, Role::Admin];

struct Served {
    address: SocketAddr,
    token: AdminToken,
    control: Fake,
    _dir: TempDir,
    _stop: DropGuard,
}

impl Served {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let token = AdminToken::generate().unwrap();
        let control = Fake::default();
        let artifacts = Artifacts::open(&dir.path().join("artifacts")).unwrap();
        let app = router(control.clone(), artifacts, token.hash());
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, app, stop.clone()));
        Self {
            address,
            token,
            control,
            _dir: dir,
            _stop: stop.drop_guard(),
        }
    }

    /// One request with the right token.
    async fn ask(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let authorization = format!("Authorization: Bearer {}\r\n", self.token.as_str());
        let head = format!("{authorization}Content-Length: {}\r\n", body.len());
        self.raw(method, path, &head, body).await
    }

    async fn raw(&self, method: &str, path: &str, head: &str, body: &[u8]) -> (u16, String) {
        let (status, _, body) = self.whole(method, path, head, body).await;
        (status, body)
    }

    /// With the answer's head.
    async fn whole(
        &self,
        method: &str,
        path: &str,
        head: &str,
        body: &[u8],
    ) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), body.to_owned())
    }
}

fn error(body: &str) -> ErrorBody {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body:?}"))
}

const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const EXECUTION: &str = "00000000-0000-4000-8000-000000000001";

/// Routes, in the order of what they reach below.
fn every_route() -> Vec<(&'static str, String)> {
    vec![
        ("GET", routes::OPENAPI.to_owned()),
        ("GET", routes::STATUS.to_owned()),
        ("GET", routes::NODES.to_owned()),
        ("GET", routes::fill(routes::NODE, &["e1"])),
        ("DELETE", routes::fill(routes::NODE, &["e1"])),
        ("POST", routes::fill(routes::NODE_REVOKE, &["e1"])),
        ("GET", routes::JOBS.to_owned()),
        ("GET", routes::fill(routes::JOB, &["j"])),
        ("DELETE", routes::fill(routes::JOB, &["j"])),
        ("POST", routes::fill(routes::JOB_START, &["j"])),
        ("POST", routes::fill(routes::JOB_STOP, &["j"])),
        ("GET", routes::fill(routes::JOB_EXPLAIN, &["j"])),
        ("GET", routes::fill(routes::JOB_LOGS, &["j"])),
        ("GET", routes::fill(routes::JOB_LOGS_FOLLOW, &["j"])),
        ("GET", routes::EVENTS.to_owned()),
        (
            "GET",
            routes::fill(routes::JOB_NODE_EXECUTION, &["j", "e1"]),
        ),
        ("GET", routes::EXECUTIONS.to_owned()),
        ("GET", routes::fill(routes::EXECUTION, &[EXECUTION])),
        ("POST", routes::DEPLOY.to_owned()),
        ("POST", routes::TOKENS.to_owned()),
        ("GET", routes::TOKENS.to_owned()),
        ("GET", routes::fill(routes::TOKEN, &[EXECUTION])),
        ("DELETE", routes::fill(routes::TOKEN, &[EXECUTION])),
        ("GET", routes::PLUGINS.to_owned()),
        ("GET", routes::fill(routes::PLUGIN, &[DIGEST])),
        ("GET", routes::RUNS.to_owned()),
        ("POST", routes::RUNS.to_owned()),
        ("GET", routes::fill(routes::RUN, &[EXECUTION])),
        ("POST", routes::fill(routes::RUN_CANCEL, &[EXECUTION])),
        ("GET", routes::fill(routes::RUN_OUTPUT, &[EXECUTION])),
        (
            "GET",
            routes::fill(routes::RUN_TASK_OUTPUT, &[EXECUTION, "j", "e1"]),
        ),
        ("GET", routes::fill(routes::RUN_LOGS, &[EXECUTION])),
        ("GET", routes::fill(routes::RUN_LOGS_FOLLOW, &[EXECUTION])),
        ("GET", routes::SCHEDULES.to_owned()),
        ("POST", routes::SCHEDULES.to_owned()),
        ("GET", routes::fill(routes::SCHEDULE, &["s"])),
        ("DELETE", routes::fill(routes::SCHEDULE, &["s"])),
        ("POST", routes::fill(routes::SCHEDULE_PAUSE, &["s"])),
        ("POST", routes::fill(routes::SCHEDULE_RESUME, &["s"])),
        ("GET", routes::fill(routes::SCHEDULE_HISTORY, &["s"])),
        ("POST", routes::ARTIFACTS_MISSING.to_owned()),
        ("PUT", routes::fill(routes::ARTIFACT, &[DIGEST])),
        ("PUT", routes::fill(routes::STDIN, &[DIGEST])),
    ]
}

#[tokio::test]
async fn nothing_answers_without_the_token() {
    let served = Served::start().await;
    let mut paths: Vec<(String, String)> = operations(&served)
        .iter()
        .map(|operation| (operation.method.to_string(), path_of(operation)))
        .collect();
    paths.push(("GET".to_owned(), "/v1/nothing".to_owned()));
    paths.push(("PATCH".to_owned(), routes::JOBS.to_owned()));
    for (method, path) in &paths {
        for head in [
            "",
            "Authorization: Bearer \r\n",
            "Authorization: Bearer sluice-admin-00\r\n",
            &format!("Authorization: Basic {}\r\n", served.token.as_str()),
            &format!("Authorization: Bearer {}0\r\n", served.token.as_str()),
        ] {
            let head = format!("{head}Content-Length: 0\r\n");
            let (status, body) = served.raw(method, path, &head, b"").await;
            assert_eq!(status, 401, "{method} {path} {head}");
            assert_eq!(error(&body).code, ErrorCode::Unauthorized);
            assert!(error(&body).help.unwrap().contains("operator.toml"));
        }
    }
    assert_eq!(served.control.asked(), [""; 0]);
}

fn operations(served: &Served) -> Vec<table::Operation> {
    let artifacts = Artifacts::open(&served._dir.path().join("artifacts")).unwrap();
    let shared = table::Shared::new(served.control.clone(), artifacts);
    let rows = handlers::table(shared).finish().1;
    rows.into_iter().map(|(operation, _)| operation).collect()
}

/// The path of an operation, with names of things in it.
fn path_of(operation: &table::Operation) -> String {
    let part = |name: &str| match name {
        "id" => EXECUTION,
        "digest" => DIGEST,
        "order" => "pause",
        _ => "x",
    };
    let names: Vec<&str> = openapi::names_of(operation.path).map(part).collect();
    routes::fill(operation.path, &names)
}

#[tokio::test]
async fn every_operation_is_open_to_its_role_and_those_above_and_its_refusals_are_recorded() {
    let served = Served::start().await;
    let operations = operations(&served);
    assert!(operations.len() > 30);
    for operation in &operations {
        let (method, path) = (operation.method.as_str(), path_of(operation));
        for role in ROLES {
            let head = format!("Authorization: Bearer {}\r\n", token_of(role));
            let head = format!("{head}Content-Length: 1\r\n");
            let (status, answer) = served.raw(method, &path, &head, b"{").await;
            let reached = served.control.asked();
            let recorded = std::mem::take(&mut *served.control.recorded.lock().unwrap());
            if role < operation.role {
                assert_eq!(status, 403, "{role} {method} {path}: {answer}");
                assert_eq!(error(&answer).code, ErrorCode::Forbidden);
                assert_eq!(reached, [""; 0]);
            } else {
                assert!(![401, 403, 405].contains(&status), "{method} {path}");
            }
            let refused =
                role < operation.role || status >= 400 && operation.effect != table::Effect::Reads;
            assert_eq!(recorded.len(), usize::from(refused), "{recorded:?}");
            if refused {
                let code = error(&answer).code.as_str();
                assert_eq!(recorded[0], format!("{} {path} {code}", operation.id));
            }
        }
    }
}

#[tokio::test]
async fn events_come_as_frames_and_a_reader_may_go_on_behind_one() {
    let served = Served::start().await;
    let token = format!("Authorization: Bearer {}\r\n", served.token.as_str());
    let (status, head, body) = served.whole("GET", routes::EVENTS, &token, b"").await;
    assert_eq!(status, 200);
    let head = head.to_ascii_lowercase();
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    assert!(head.contains("cache-control: no-cache"), "{head}");
    let alive = body.find(": alive\nid: l.1\n\n").unwrap();
    let data = r#"{"kind":"job","name":"j","jobs":["j"],"at":"1970-01-01T00:00:00.000Z"}"#;
    let frame = format!("id: l.2\nevent: job\ndata: {data}\n\n");
    assert!(body.find(&frame).is_some_and(|at| at > alive), "{body}");
    assert_eq!(served.control.asked(), ["watch None None"]);

    let asked = format!("{}?kind=run", routes::EVENTS);
    let head = format!("{token}Last-Event-ID: l.2\r\n");
    assert_eq!(served.raw("GET", &asked, &head, b"").await.0, 200);
    assert_eq!(served.control.asked(), [r#"watch Some(Run) Some("l.2")"#]);
    for wrong in ["?kind=runs", "?job=%20", "?since=1"] {
        let path = format!("{}{wrong}", routes::EVENTS);
        let (status, body) = served.raw("GET", &path, &token, b"").await;
        assert_eq!(
            (status, error(&body).code),
            (422, ErrorCode::Invalid),
            "{wrong}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_token() {
    let control = Fake::default();
    let hash = *AdminTokenHash::of(&token_of(Role::Reader)).as_bytes();
    let within = |seconds| {
        let ended = auth::Mortal::of(hash).ended(control.clone());
        tokio::time::timeout(Duration::from_secs(seconds), ended)
    };
    assert!(within(3600).await.is_err(), "the token is good");
    control.revoked.store(true, Ordering::SeqCst);
    assert!(within(60).await.is_ok());

    // What is under way is cut there, and not before: a line a second, and a token that is revoked at the hundredth.
    let revoked = Arc::clone(&control.revoked);
    let every_second = tokio::time::interval(Duration::from_secs(1));
    let endless = futures_util::stream::unfold((0, every_second), move |(lines, mut clock)| {
        revoked.store(lines >= 100, Ordering::SeqCst);
        async move {
            clock.tick().await;
            Some((
                Ok::<_, std::convert::Infallible>("line\n"),
                (lines + 1, clock),
            ))
        }
    });
    let response = axum::response::Response::new(axum::body::Body::from_stream(endless));
    control.revoked.store(false, Ordering::SeqCst);
    let cut = table::ends_with(auth::Mortal::of(hash), control, response);
    let read = axum::body::to_bytes(cut.into_body(), usize::MAX)
        .await
        .unwrap();
    let lines = read.len() / "line\n".len();
    assert!((100..=120).contains(&lines), "{lines}");
}

#[tokio::test]
async fn a_form_is_not_json_and_floods_are_turned_away() {
    let served = Served::start().await;
    let head = format!("Authorization: Bearer {}\r\n", token_of(Role::Deployer));
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 2\r\n";
    let head = format!("{head}{form}");
    let (status, answer) = served.raw("POST", routes::DEPLOY, &head, b"{}").await;
    assert_eq!(status, 415, "{answer}");
    assert_eq!(error(&answer).code, ErrorCode::UnsupportedMediaType);

    // The operator's token was never used here yet, and the strangers have used up what they share.
    let mut turned_away = false;
    // Far more than are let in at once, many beside one another, so that a slow machine asks faster than the bucket fills.
    for _ in 0..1_000 {
        let beside = (0..20).map(|_| async {
            let head = "Authorization: Bearer x\r\n";
            served.raw("GET", routes::STATUS, head, b"").await.0
        });
        let answers = futures_util::future::join_all(beside).await;
        assert!(answers.iter().all(|status| [401, 429].contains(status)));
        turned_away = answers.contains(&429);
        if turned_away {
            break;
        }
    }
    assert!(turned_away);
    assert_eq!(served.ask("GET", routes::STATUS, b"").await.0, 200);
}

#[tokio::test]
async fn every_route_reaches_its_operation() {
    let served = Served::start().await;
    let mut asked = Vec::new();
    for (method, path) in every_route() {
        let body: &[u8] = match path.as_str() {
            routes::DEPLOY => br#"{"pipeline":"name = 1"}"#,
            routes::TOKENS => br#"{"ttl_ms":1000,"uses":1}"#,
            routes::RUNS => br#"{"jobs":["j"]}"#,
            routes::SCHEDULES => br#"{"name":"s","job":"j","every":"1h"}"#,
            routes::ARTIFACTS_MISSING => br#"{"digests":[]}"#,
            _ => b"",
        };
        let (status, answer) = served.ask(method, &path, body).await;
        match status {
            200 => {}
            404 => assert_eq!(error(&answer).help.as_deref(), Some("look at the list")),
            422 => assert_eq!(method, "PUT", "{answer}"),
            _ => panic!("{method} {path}: {status} {answer}"),
        }
        asked.append(&mut served.control.asked());
    }
    assert_eq!(
        asked,
        [
            "status",
            "nodes",
            "node e1",
            "delete node e1",
            "revoke e1",
            "jobs",
            "job j",
            "delete j",
            "start j",
            "stop j",
            "explain j",
            "logs j None None",
            "follow j None",
            "watch None None",
            "execution of j on e1",
            "executions None None false",
            &format!("execution {EXECUTION}"),
            "deploy 8",
            "token 1000",
            "tokens",
            &format!("token {EXECUTION}"),
            &format!("revoke token {EXECUTION}"),
            "plugins",
            &format!("plugin {DIGEST}"),
            "runs None",
            "launch j None",
            &format!("run {EXECUTION}"),
            &format!("cancel {EXECUTION}"),
            &format!("outputs of {EXECUTION}"),
            &format!("output of j on e1 in {EXECUTION}"),
            &format!("logs {EXECUTION} None None"),
            &format!("follow {EXECUTION} None"),
            "schedules None",
            "schedule s skip one",
            "describe schedule s",
            "delete schedule s",
            "pause schedule s",
            "resume schedule s",
            "ticks s None",
        ]
    );
}

#[tokio::test]
async fn a_launch_s_key_reaches_the_operation_or_is_refused() {
    let served = Served::start().await;
    let body = br#"{"jobs":["j"]}"#;
    let launch = async |key: &[u8]| {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\nIdempotency-Key: ",
            routes::RUNS,
            served.token.as_str(),
            body.len()
        );
        let request = [head.as_bytes(), key, b"\r\n\r\n", body].concat();
        stream.write_all(&request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap();
        (status, served.control.asked())
    };
    let longest = "k".repeat(200);
    for key in ["k", longest.as_str()] {
        // The operation says that there is no such job.
        let asked = vec![format!("launch j Some({key:?})")];
        assert_eq!(launch(key.as_bytes()).await, (404, asked));
    }
    let longer = "k".repeat(201);
    for key in [&b""[..], longer.as_bytes(), "k\u{e9}".as_bytes(), b"\xff"] {
        assert_eq!(launch(key).await, (422, Vec::new()), "{key:?}");
    }
}

#[tokio::test]
async fn queries_reach_the_operation() {
    let served = Served::start().await;
    let path = "/v1/executions?job=a&node=b&all=true";
    assert_eq!(served.ask("GET", path, b"").await, (200, "[]".to_owned()));
    let path = "/v1/jobs/j/logs?node=e1&tail=5";
    assert_eq!(served.ask("GET", path, b"").await.0, 200);
    assert_eq!(
        served.control.asked(),
        [
            "executions Some(JobName(\"a\")) Some(NodeName(\"b\")) true",
            "logs j Some(NodeName(\"e1\")) Some(5)"
        ]
    );
}

#[tokio::test]
async fn what_is_followed_comes_as_one_json_object_a_line() {
    let served = Served::start().await;
    let path = "/v1/jobs/j/logs/follow?node=e1&tail=5&stage=s&age_ms_max=1000";
    let (status, body) = served.ask("GET", path, b"").await;
    assert_eq!(status, 200);
    let lines: Vec<&str> = body.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(
        lines,
        [
            r#"{"event":"absent","node":"e1","why":"it is not connected"}"#,
            r#"{"event":"end","why":"the job is deleted"}"#
        ]
    );
    let too_much = "/v1/jobs/j/logs/follow?tail=10001";
    assert_eq!(served.ask("GET", too_much, b"").await.0, 422);
}

#[tokio::test]
async fn an_output_comes_as_raw_bytes_with_its_digest() {
    let served = Served::start().await;
    let path = routes::fill(routes::RUN_TASK_OUTPUT, &[EXECUTION, "j", "e1"]);
    let (status, body) = served.ask("GET", &path, b"").await;
    assert_eq!((status, body.as_str()), (200, "one\ntwo\n"));
}

#[tokio::test]
async fn wrong_requests_say_what_is_wrong_and_reach_nothing() {
    let served = Served::start().await;
    let many: Vec<_> = (0..300).map(|_| DIGEST).collect();
    let many = serde_json::to_string(&BTreeMap::from([("digests", many)])).unwrap();
    for (method, path, body, status, says) in [
        ("GET", "/", "", 404, "no route GET /"),
        ("GET", "/v1/job", "", 404, "no route GET /v1/job"),
        ("PATCH", "/v1/jobs", "", 405, "/v1/jobs does not take PATCH"),
        ("GET", "/v1/jobs/NOT_A_NAME", "", 404, "/v1/jobs/NOT_A_NAME"),
        ("GET", "/v1/executions/17", "", 404, "/v1/executions/17"),
        ("PUT", "/v1/artifacts/sha256:00", "", 404, "/v1/artifacts"),
        (
            "GET",
            "/v1/executions?jobs=a",
            "",
            422,
            "unknown field `jobs`",
        ),
        ("GET", "/v1/jobs/j/logs?tail=10001", "", 422, "10000"),
        (
            "POST",
            "/v1/deploy",
            "{\"pipeline\":",
            400,
            "EOF while parsing",
        ),
        ("POST", "/v1/deploy", "[]", 422, "is an array"),
        ("POST", "/v1/deploy", "{}", 422, "missing field `pipeline`"),
        (
            "POST",
            "/v1/deploy",
            r#"{"pipeline":"","plugins":{"a":"sha256:0"}}"#,
            422,
            "not a digest",
        ),
        ("POST", "/v1/deploy", "\u{0}\u{1}", 400, "expected value"),
        ("POST", "/v1/artifacts/missing", &many, 422, "256"),
    ] {
        let (got, answer) = served.ask(method, path, body.as_bytes()).await;
        assert_eq!(got, status, "{method} {path}: {answer}");
        let problem = error(&answer);
        assert_eq!(problem.code.http_status(), status);
        let text = format!("{} {:?}", problem.message, problem.detail);
        assert!(text.contains(says), "{method} {path}: {text}");
    }
    assert_eq!(served.control.asked(), [""; 0]);
}

#[tokio::test]
async fn bodies_have_a_size() {
    let served = Served::start().await;
    let fits = serde_json::to_vec(&BTreeMap::from([("pipeline", "\u{1}".repeat(256 << 10))]));
    let (status, answer) = served.ask("POST", routes::DEPLOY, &fits.unwrap()).await;
    assert_eq!(status, 200, "{answer}");
    let large = vec![b' '; 3 << 20];
    let (status, answer) = served.ask("POST", routes::DEPLOY, &large).await;
    assert_eq!(status, 413);
    assert_eq!(error(&answer).code, ErrorCode::TooLarge);

    // Said in the head, so that not a byte has to travel.
    let head = format!(
        "Authorization: Bearer {}\r\nContent-Length: {}\r\n",
        served.token.as_str(),
        (64 << 20) + 1
    );
    let path = routes::fill(routes::ARTIFACT, &[DIGEST]);
    let (status, answer) = served.raw("PUT", &path, &head, b"").await;
    assert_eq!(status, 413, "{answer}");
    assert_eq!(served.control.asked(), ["deploy 262144"]);
}

#[tokio::test]
async fn a_component_is_uploaded_once_and_a_wrong_one_never() {
    let served = Served::start().await;
    // Larger than any JSON body may be.
    let bytes = crate::artifacts::tests::stage(&"http".repeat(1 << 20));
    let digest = Digest::of(&bytes);
    let path = routes::fill(routes::ARTIFACT, &[&digest.to_string()]);
    let question = format!(r#"{{"digests":["{digest}"]}}"#);
    let missing = async || {
        let (status, answer) = served
            .ask("POST", routes::ARTIFACTS_MISSING, question.as_bytes())
            .await;
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str::<MissingReply>(&answer)
            .unwrap()
            .missing
    };
    assert_eq!(missing().await, [digest]);

    let (status, answer) = served.ask("PUT", &path, b"something else").await;
    assert_eq!(status, 422);
    assert!(error(&answer).message.contains("the bytes that arrived"));
    let other = routes::fill(routes::ARTIFACT, &[&Digest::of(b"text").to_string()]);
    let (status, answer) = served.ask("PUT", &other, b"text").await;
    assert_eq!(status, 422);
    assert!(
        error(&answer).message.contains("not a Wasm file"),
        "{answer}"
    );
    // A client that dies in the middle.
    let head = format!(
        "Authorization: Bearer {}\r\nContent-Length: {}\r\n",
        served.token.as_str(),
        bytes.len()
    );
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let head = format!("PUT {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&bytes[..10]).await.unwrap();
    drop(stream);
    assert_eq!(missing().await, [digest]);

    for _ in 0..2 {
        let (status, answer) = served.ask("PUT", &path, &bytes).await;
        assert_eq!(status, 200, "{answer}");
        let info: ArtifactInfo = serde_json::from_str(&answer).unwrap();
        assert_eq!((info.digest, info.size), (digest, bytes.len() as u64));
    }
    assert_eq!(missing().await, []);
}

#[tokio::test]
async fn a_stdin_is_any_bytes_up_to_its_bound() {
    let served = Served::start().await;
    for bytes in [b"".as_slice(), b"any bytes\0", &[7; 3 << 20]] {
        let digest = Digest::of(bytes);
        let path = routes::fill(routes::STDIN, &[&digest.to_string()]);
        let (status, answer) = served.ask("PUT", &path, bytes).await;
        assert_eq!(status, 200, "{answer}");
        let info: StdinInfo = serde_json::from_str(&answer).unwrap();
        assert_eq!((info.digest, info.size), (digest, bytes.len() as u64));
    }
    let path = routes::fill(routes::STDIN, &[DIGEST]);
    let (status, answer) = served.ask("PUT", &path, b"something else").await;
    assert_eq!(status, 422);
    assert!(error(&answer).message.contains("the bytes that arrived"));
    let token = served.token.as_str();
    let head = format!(
        "Authorization: Bearer {token}\r\nContent-Length: {}\r\n",
        (256 << 20) + 1
    );
    let (status, answer) = served.raw("PUT", &path, &head, b"").await;
    assert_eq!(status, 413, "{answer}");
    assert!(error(&answer).message.contains("256 MiB"), "{answer}");
}

#[tokio::test]
async fn stopping_ends_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(dir.path()).unwrap();
    let token = AdminToken::generate().unwrap();
    let stop = CancellationToken::new();
    let app = router(Fake::default(), artifacts, token.hash());
    let serving = tokio::spawn(serve(listener, app, stop.clone()));
    stop.cancel();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), serving).await;
    ended.unwrap().unwrap().unwrap();
}

#[test]
fn a_token_is_known_by_its_hash_alone() {
    let (one, two) = (
        AdminToken::generate().unwrap(),
        AdminToken::generate().unwrap(),
    );
    let stored = AdminTokenHash::from_slice(one.hash().as_bytes()).unwrap();
    assert!(stored.matches(one.as_str()));
    assert!(!stored.matches(two.as_str()));
    assert!(!stored.matches(""));
    assert!(!format!("{one:?}{stored:?}").contains(one.as_str()));
}
