//! A small client of the HTTPS API: a look costs a millisecond, where a process of the CLI costs many.

use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use sluice_api::{
    ErrorBody, Execution, ExecutionFilter, Explain, Job, JobDetail, Node, Plugin, Status,
    TokenCreate, TokenCreated, routes,
};
use sluice_host::http::{SERVER_NAME, api_client_config};
use tokio::runtime::Runtime;

/// Longest wait for one answer: more than the orchestrator allows itself for an operation.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);

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
