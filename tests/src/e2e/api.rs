//! A small client of the HTTPS API: a look costs a millisecond, where a process of the CLI costs many.

use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use sluice_api::{
    ErrorBody, Event, Execution, ExecutionFilter, Explain, Job, JobDetail, Node, Plugin, Status,
    TokenCreate, TokenCreated, routes,
};
use sluice_host::http::{SERVER_NAME, api_client_config};
use tokio::runtime::Runtime;

/// Longest wait for one answer: more than the orchestrator allows itself for an operation.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);

/// Longest that one test watches.
const WATCHED_MAX: Duration = Duration::from_secs(600);

/// A connection to one orchestrator's API.
#[derive(Debug)]
pub struct Api {
    runtime: Runtime,
    http: reqwest::Client,
    base: String,
    token: String,
}

/// An answer that is not a success.
#[derive(Debug)]
pub enum Refusal {
    /// There was no answer.
    Unreachable(String),
    /// The orchestrator said no.
    Refused(u16, Box<ErrorBody>),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "no answer: {why}"),
            Self::Refused(status, body) => {
                write!(f, "HTTP {status}: {} ({:?})", body.message, body.code)
            }
        }
    }
}

impl Api {
    /// Prepares to speak with the orchestrator whose `operator.toml` this is.
    ///
    /// # Panics
    ///
    /// When the file is not as the orchestrator writes it.
    pub fn open(context: &Path) -> Self {
        let text = std::fs::read_to_string(context).expect("operator.toml is there");
        let document: toml_edit::DocumentMut = text.parse().expect("operator.toml is TOML");
        let key = |name: &str| {
            let value = document.get(name).and_then(|item| item.as_str());
            value
                .expect("operator.toml has endpoint, ca and token")
                .to_owned()
        };
        let ca = pem::parse(key("ca")).expect("the ca is PEM");
        let tls = api_client_config(ca.contents()).expect("the ca is a certificate");
        let address = key("endpoint")
            .strip_prefix("https://")
            .expect("the endpoint is https")
            .parse::<std::net::SocketAddr>()
            .expect("the endpoint is on loopback");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .resolve(SERVER_NAME, address)
            .no_proxy()
            .timeout(ANSWER_TIMEOUT)
            .build()
            .expect("an HTTPS client can be made");
        Self {
            runtime,
            http,
            base: format!("https://{SERVER_NAME}:{}", address.port()),
            token: key("token"),
        }
    }

    /// `GET`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refusal> {
        self.answer(self.http.get(self.url(path)))
    }

    /// `POST` of JSON.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, Refusal> {
        self.answer(self.http.post(self.url(path)).json(body))
    }

    /// `POST`s many bodies, over so many connections at once: each answer in the order of the bodies, with the time it took.
    pub fn post_all<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        bodies: Vec<serde_json::Value>,
        connections: usize,
    ) -> Vec<(Duration, Result<T, Refusal>)> {
        let request = |body| self.http.post(self.url(path)).json(&body);
        self.all(bodies.into_iter().map(request).collect(), connections)
    }

    /// `GET`s many paths, in the same way.
    pub fn get_all<T: DeserializeOwned + Send + 'static>(
        &self,
        paths: Vec<String>,
        connections: usize,
    ) -> Vec<(Duration, Result<T, Refusal>)> {
        let request = |path: String| self.http.get(self.url(&path));
        self.all(paths.into_iter().map(request).collect(), connections)
    }

    fn all<T: DeserializeOwned + Send + 'static>(
        &self,
        requests: Vec<reqwest::RequestBuilder>,
        connections: usize,
    ) -> Vec<(Duration, Result<T, Refusal>)> {
        let count = requests.len();
        let requests = requests.into_iter().enumerate();
        let queue = std::sync::Arc::new(std::sync::Mutex::new(requests));
        let mut answers: Vec<_> = (0..count).map(|_| None).collect();
        self.runtime.block_on(async {
            let mut workers = tokio::task::JoinSet::new();
            for _ in 0..connections {
                let (queue, token) = (std::sync::Arc::clone(&queue), self.token.clone());
                workers.spawn(async move {
                    let mut mine = Vec::new();
                    loop {
                        let next = queue.lock().expect("no worker panics").next();
                        let Some((index, request)) = next else {
                            return mine;
                        };
                        let begun = std::time::Instant::now();
                        let answer = answer(request, &token).await;
                        mine.push((index, begun.elapsed(), answer));
                    }
                });
            }
            for (index, took, answer) in workers.join_all().await.into_iter().flatten() {
                answers[index] = Some((took, answer));
            }
        });
        let all: Option<Vec<_>> = answers.into_iter().collect();
        all.expect("every request is answered, or refused")
    }

    /// `DELETE`.
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refusal> {
        self.answer(self.http.delete(self.url(path)))
    }

    /// `PUT` of bytes.
    pub fn put<T: DeserializeOwned>(&self, path: &str, bytes: Vec<u8>) -> Result<T, Refusal> {
        self.answer(self.http.put(self.url(path)).body(bytes))
    }

    /// Everything.
    pub fn status(&self) -> Result<Status, Refusal> {
        self.get(routes::STATUS)
    }

    /// Every node.
    pub fn nodes(&self) -> Result<Vec<Node>, Refusal> {
        self.get(routes::NODES)
    }

    /// One node, as in the list.
    pub fn node(&self, name: &str) -> Result<Node, Refusal> {
        self.get(&routes::fill(routes::NODE, &[name]))
    }

    /// One job with its executions.
    pub fn job(&self, name: &str) -> Result<JobDetail, Refusal> {
        self.get(&routes::fill(routes::JOB, &[name]))
    }

    /// Every job.
    pub fn jobs(&self) -> Result<Vec<Job>, Refusal> {
        self.get(routes::JOBS)
    }

    /// The execution of a job on a node.
    pub fn execution(&self, job: &str, node: &str) -> Result<Execution, Refusal> {
        self.get(&routes::fill(routes::JOB_NODE_EXECUTION, &[job, node]))
    }

    /// Every execution, those that end too.
    pub fn executions(&self) -> Result<Vec<Execution>, Refusal> {
        let filter = ExecutionFilter {
            all: true,
            ..ExecutionFilter::default()
        };
        self.answer(self.http.get(self.url(routes::EXECUTIONS)).query(&filter))
    }

    /// Why each node does or does not run a job.
    pub fn explain(&self, job: &str) -> Result<Explain, Refusal> {
        self.get(&routes::fill(routes::JOB_EXPLAIN, &[job]))
    }

    /// Components on the orchestrator.
    pub fn plugins(&self) -> Result<Vec<Plugin>, Refusal> {
        self.get(routes::PLUGINS)
    }

    /// Makes a join token.
    pub fn create_token(&self, request: &TokenCreate) -> Result<TokenCreated, Refusal> {
        self.post(routes::TOKENS, request)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn answer<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, Refusal> {
        self.runtime.block_on(answer(request, &self.token))
    }
}

/// What a watcher of events was told, with the id of each.
#[derive(Debug)]
pub struct Watch {
    told: std::sync::Arc<std::sync::Mutex<Vec<(String, Event)>>>,
}

impl Watch {
    /// Watches from now on, or from behind the event `after`, until the orchestrator ends. `query` is empty or `?...`.
    ///
    /// # Panics
    ///
    /// When it may not watch.
    pub fn open(context: &Path, query: &str, after: Option<&str>) -> Self {
        let api = Api::open(context);
        let path = format!("{}{query}", routes::EVENTS);
        let mut request = api.http.get(api.url(&path)).bearer_auth(&api.token);
        request = request.timeout(WATCHED_MAX);
        if let Some(id) = after {
            request = request.header("Last-Event-ID", id);
        }
        // Its timeout is armed where it is sent, and needs the runtime.
        let response = api.runtime.block_on(async { request.send().await });
        let response = response.expect("the orchestrator is there");
        assert_eq!(response.status().as_u16(), 200);
        let kind = response.headers().get("content-type").cloned();
        assert_eq!(kind.expect("a content type"), "text/event-stream");
        let told = std::sync::Arc::default();
        let telling = std::sync::Arc::clone(&told);
        std::thread::spawn(move || api.runtime.block_on(read_events(response, &telling)));
        Self { told }
    }

    /// Everything so far.
    ///
    /// # Panics
    ///
    /// When what came was no event.
    pub fn told(&self) -> Vec<(String, Event)> {
        self.told.lock().expect("every event is one").clone()
    }

    /// Waits for an event, and returns its id.
    ///
    /// # Panics
    ///
    /// When it does not come.
    #[track_caller]
    pub fn wait(&self, what: &str, is_it: impl Fn(&Event) -> bool) -> String {
        super::wait::until(what, || {
            let told = self.told();
            let found = told.iter().find(|(_, event)| is_it(event));
            found
                .map(|(id, _)| id.clone())
                .ok_or_else(|| format!("{told:?}"))
        })
    }
}

async fn read_events(
    mut response: reqwest::Response,
    told: &std::sync::Mutex<Vec<(String, Event)>>,
) {
    let mut text = String::new();
    // Cut off, it has seen what it has seen.
    while let Ok(Some(chunk)) = response.chunk().await {
        text.push_str(std::str::from_utf8(&chunk).expect("frames are whole, and text"));
        while let Some((frame, rest)) = text.split_once("\n\n") {
            let field = |name: &str| {
                let mut lines = frame.lines();
                lines.find_map(|line| line.strip_prefix(name).map(str::trim))
            };
            if let Some(data) = field("data:") {
                let event: Event = serde_json::from_str(data).expect("the data is an event");
                assert_eq!(field("event:"), Some(event.kind.as_str()));
                let id = field("id:").expect("each has an id").to_owned();
                told.lock().expect("nobody panics").push((id, event));
            }
            text = rest.to_owned();
        }
    }
}

async fn answer<T: DeserializeOwned>(
    request: reqwest::RequestBuilder,
    token: &str,
) -> Result<T, Refusal> {
    let unreachable = |error: reqwest::Error| Refusal::Unreachable(format!("{error:?}"));
    let response = request
        .bearer_auth(token)
        .send()
        .await
        .map_err(unreachable)?;
    let status = response.status();
    let bytes = response.bytes().await.map_err(unreachable)?;
    let text = || String::from_utf8_lossy(&bytes).into_owned();
    if status.is_success() {
        return serde_json::from_slice(&bytes).map_err(|error| {
            Refusal::Unreachable(format!("an answer of another type ({error}): {}", text()))
        });
    }
    let body = serde_json::from_slice(&bytes).map_err(|_| {
        Refusal::Unreachable(format!("HTTP {status} without an error body: {}", text()))
    })?;
    Err(Refusal::Refused(status.as_u16(), Box::new(body)))
}
