//! Speaks with an orchestrator's API.

use std::path::PathBuf;
use std::time::Duration;

use indicatif::ProgressBar;
use reqwest::header::{CONTENT_LENGTH, HeaderValue, IF_MATCH, IF_NONE_MATCH, LINK};
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_api::{ArtifactInfo, ErrorBody, OperatorContext, StdinInfo, routes};
use sluice_doctor::with_causes;
use sluice_host::http::{SERVER_NAME, api_client_config};
use sluice_model::Digest;
use tokio::io::AsyncReadExt as _;

use crate::failure::{Exit, Failure};

/// How long a connection may take to come about: three lost packets.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest silence while an answer is awaited: more than the orchestrator's own limit for an operation.
const SILENCE_MAX: Duration = Duration::from_secs(40);

/// Bytes of an upload that are handed over at once: small enough for a bar that moves.
const UPLOAD_CHUNK_BYTES: usize = 64 * 1024;

/// Largest answer that is read: 10,000 log lines of 8 KiB from one execution.
const ANSWER_BYTES_MAX: usize = 96 << 20;

/// Pages of one list that are read, at most: tens of millions of items.
const PAGES_MAX: usize = 100_000;

/// How something was before it is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// There, with this `ETag`.
    Is(String),
    /// Not there.
    Absent,
}

/// A connection to one orchestrator.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    endpoint: String,
    context_path: PathBuf,
    token: String,
}

impl Client {
    /// Prepares to speak with the orchestrator that `context`, read from `context_path`, names. Nothing is sent yet,
    /// but the endpoint's name is resolved.
    pub(crate) async fn open(
        context_path: PathBuf,
        context: OperatorContext,
    ) -> Result<Self, Failure> {
        let broken = |problem: String| {
            Failure::invalid(format!(
                "the context file {} {problem}",
                context_path.display()
            ))
            .with_help("copy operator.toml from the orchestrator's state directory again")
        };
        let ca = pem::parse(&context.ca)
            .map_err(|error| broken(format!("has a `ca` that is not PEM: {error}")))?;
        let tls = api_client_config(ca.contents()).map_err(|error| {
            broken(format!(
                "has a `ca` that cannot be used: {}",
                with_causes(&error)
            ))
        })?;
        let (host, port) = endpoint(&context.endpoint).ok_or_else(|| {
            broken(format!(
                "has the endpoint `{}`, which is not https://HOST:PORT",
                context.endpoint
            ))
        })?;
        let addresses: Vec<_> = tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| {
                Failure::new(
                    Exit::Unreachable,
                    format!("cannot find the orchestrator's host `{host}`: {error}"),
                )
                .with_help(format!(
                    "check `endpoint` in {} and the name service",
                    context_path.display()
                ))
            })?
            .collect();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            // Servers are verified by one fixed name, wherever they run.
            .resolve_to_addrs(SERVER_NAME, &addresses)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_MAX)
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| {
                Failure::new(
                    Exit::Failed,
                    format!("cannot set up HTTPS: {}", with_causes(&error)),
                )
            })?;
        Ok(Self {
            http,
            base: format!("https://{SERVER_NAME}:{port}"),
            endpoint: context.endpoint,
            context_path,
            token: context.token,
        })
    }

    /// `GET` of a path from [`routes::fill`].
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.answer(self.request(Method::GET, path)).await
    }

    /// `GET` with a query.
    pub(crate) async fn get_with<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
    ) -> Result<T, Failure> {
        self.answer(self.request(Method::GET, path).query(query))
            .await
    }

    /// A whole list, page by page, or its first `items_max`.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        items_max: usize,
    ) -> Result<Vec<T>, Failure> {
        let mut items: Vec<T> = Vec::new();
        let mut request = self.request(Method::GET, path).query(query);
        for _ in 0..PAGES_MAX {
            let response = request.send().await;
            let response = response.map_err(|error| self.unreachable(&error))?;
            let status = response.status();
            let next = next_page(response.headers().get(LINK));
            let bytes = self.body(response).await?;
            if !status.is_success() {
                return Err(self.refusal(status, &bytes));
            }
            let page: Vec<T> =
                serde_json::from_slice(&bytes).map_err(|error| self.not_sluice(&error))?;
            items.extend(page);
            let Some(next) = next.filter(|_| items.len() < items_max) else {
                items.truncate(items_max);
                return Ok(items);
            };
            request = self.request(Method::GET, &next);
        }
        Err(self.not_sluice(&"the list does not end"))
    }

    /// `POST` without a body.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.answer(self.request(Method::POST, path)).await
    }

    /// `POST` of JSON that may be sent again: the same key is the same request.
    pub(crate) async fn post_json_keyed<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        key: &str,
    ) -> Result<T, Failure> {
        let request = self.request(Method::POST, path).json(body);
        self.answer(request.header("Idempotency-Key", key)).await
    }

    /// `POST` of JSON.
    pub(crate) async fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.answer(self.request(Method::POST, path).json(body))
            .await
    }

    /// `POST` of JSON, done only if the thing is still as `seen`.
    pub(crate) async fn post_json_if<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        seen: &Seen,
    ) -> Result<T, Failure> {
        let request = self.request(Method::POST, path).json(body);
        let request = match seen {
            Seen::Is(etag) => request.header(IF_MATCH, etag),
            Seen::Absent => request.header(IF_NONE_MATCH, "*"),
        };
        self.answer(request).await
    }

    /// `DELETE`.
    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.answer(self.request(Method::DELETE, path)).await
    }

    /// Uploads a component, moving `bar` as bytes leave.
    pub(crate) async fn upload(
        &self,
        digest: Digest,
        bytes: Vec<u8>,
        bar: ProgressBar,
    ) -> Result<ArtifactInfo, Failure> {
        let length = bytes.len();
        let mut chunks = Vec::with_capacity(length / UPLOAD_CHUNK_BYTES + 1);
        for chunk in bytes.chunks(UPLOAD_CHUNK_BYTES) {
            chunks.push(chunk.to_vec());
        }
        drop(bytes);
        let stream = futures_util::stream::iter(chunks.into_iter().map(move |chunk| {
            bar.inc(chunk.len() as u64);
            Ok::<_, std::io::Error>(chunk)
        }));
        let path = routes::fill(routes::ARTIFACT, &[&digest.to_string()]);
        let request = self
            .request(Method::PUT, &path)
            .header(CONTENT_LENGTH, length)
            .body(reqwest::Body::wrap_stream(stream));
        self.answer(request).await
    }

    /// Uploads what a launch brings, `length` bytes of `file`, moving `bar` as they leave.
    pub(crate) async fn upload_stdin(
        &self,
        digest: Digest,
        file: std::fs::File,
        length: u64,
        bar: ProgressBar,
    ) -> Result<StdinInfo, Failure> {
        let file = tokio::fs::File::from_std(file);
        let chunks = futures_util::stream::try_unfold(file, move |mut file| {
            let bar = bar.clone();
            async move {
                let mut chunk = vec![0; UPLOAD_CHUNK_BYTES];
                let read = file.read(&mut chunk).await?;
                chunk.truncate(read);
                bar.inc(read as u64);
                Ok::<_, std::io::Error>((read > 0).then_some((chunk, file)))
            }
        });
        let path = routes::fill(routes::STDIN, &[&digest.to_string()]);
        let request = self
            .request(Method::PUT, &path)
            .header(CONTENT_LENGTH, length)
            .body(reqwest::Body::wrap_stream(chunks));
        self.answer(request).await
    }

    /// `GET` with a query of an answer that comes line by line and has no end of its own.
    pub(crate) async fn stream<'a>(
        &'a self,
        path: &str,
        query: &impl Serialize,
    ) -> Result<LineStream<'a>, Failure> {
        let request = self.request(Method::GET, path).query(query);
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(LineStream {
                client: self,
                response,
                begun: Vec::new(),
            });
        }
        let bytes = self.body(response).await?;
        Err(self.refusal(status, &bytes))
    }

    /// `GET` of raw bytes, which come in pieces.
    pub(crate) async fn download<'a>(&'a self, path: &str) -> Result<ByteStream<'a>, Failure> {
        let response = self
            .request(Method::GET, path)
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(ByteStream {
                client: self,
                response,
            });
        }
        let bytes = self.body(response).await?;
        Err(self.refusal(status, &bytes))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.token)
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let bytes = self.body(response).await?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| self.not_sluice(&error));
        }
        Err(self.refusal(status, &bytes))
    }

    fn refusal(&self, status: reqwest::StatusCode, bytes: &[u8]) -> Failure {
        match serde_json::from_slice::<ErrorBody>(bytes) {
            Ok(body) => {
                let mut failure = Failure::from(body);
                if status == reqwest::StatusCode::UNAUTHORIZED {
                    failure.message = format!(
                        "the orchestrator at {} does not accept the token in {}",
                        self.endpoint,
                        self.context_path.display()
                    );
                    failure.help = Some(
                        "the token has ended or was revoked, or it is another orchestrator: an admin makes one with `sluice token create \
                         --role`, and the operator's own is in operator.toml of the state directory"
                            .to_owned(),
                    );
                }
                failure
            }
            Err(_) => self.not_sluice(&format!("HTTP status {status}")),
        }
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.unreachable(&error))?
        {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(self.not_sluice(&"the answer does not end"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        // Without the fixed name, which would only confuse.
        let mut cause = error.source_text();
        if cause.is_empty() {
            cause = with_causes(error);
        }
        let what = if error.is_connect() || error.is_timeout() {
            format!("cannot reach the orchestrator at {}", self.endpoint)
        } else {
            format!(
                "the connection to the orchestrator at {} broke before it answered",
                self.endpoint
            )
        };
        let help = if error.is_connect() {
            format!(
                "is it running? check `endpoint` in {}",
                self.context_path.display()
            )
        } else {
            "what was asked may have been done all the same: look before repeating it".to_owned()
        };
        Failure::new(Exit::Unreachable, format!("{what}: {cause}")).with_help(help)
    }

    /// The failure for an answer that no orchestrator of this version gives.
    pub(crate) fn not_sluice(&self, problem: &dyn std::fmt::Display) -> Failure {
        Failure::new(
            Exit::Failed,
            format!(
                "{} answered something that is not from a Sluice orchestrator of this version: {problem}",
                self.endpoint
            ),
        )
        .with_help("compare `sluice --version` on both sides: the orchestrator is upgraded first")
    }
}

/// The path and query of the next page, from the header of the one before.
fn next_page(link: Option<&HeaderValue>) -> Option<String> {
    let (target, rest) = link?.to_str().ok()?.strip_prefix('<')?.split_once('>')?;
    let is_ours = target.starts_with("/v1/") && rest.contains("rel=\"next\"");
    is_ours.then(|| target.to_owned())
}

/// An answer that comes line by line.
pub(crate) struct LineStream<'a> {
    client: &'a Client,
    response: Response,
    /// A line whose end has not come.
    begun: Vec<u8>,
}

impl LineStream<'_> {
    /// The next lines, without their ends; empty ones only say that the connection lives. `None` when it is over.
    pub(crate) async fn lines(&mut self) -> Result<Option<Vec<Vec<u8>>>, Failure> {
        let chunk = self.response.chunk().await;
        let Some(chunk) = chunk.map_err(|error| self.client.unreachable(&error))? else {
            return Ok(None);
        };
        if self.begun.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(self.client.not_sluice(&"a line does not end"));
        }
        self.begun.extend_from_slice(&chunk);
        let Some(end) = self.begun.iter().rposition(|&byte| byte == b'\n') else {
            return Ok(Some(Vec::new()));
        };
        let rest = self.begun.split_off(end + 1);
        let whole = std::mem::replace(&mut self.begun, rest);
        let lines = whole.split(|&byte| byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec);
        Ok(Some(lines.collect()))
    }
}

/// An answer of raw bytes.
pub(crate) struct ByteStream<'a> {
    client: &'a Client,
    response: Response,
}

impl ByteStream<'_> {
    /// The next piece; `None` when it was the last, and all are there.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let chunk = self.response.chunk().await;
        let chunk = chunk.map_err(|error| self.client.unreachable(&error))?;
        Ok(chunk.map(|chunk| chunk.to_vec()))
    }
}

trait SourceText {
    fn source_text(&self) -> String;
}

impl SourceText for reqwest::Error {
    /// The innermost causes, without reqwest's own words around them.
    fn source_text(&self) -> String {
        let mut causes = Vec::new();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        match causes.as_slice() {
            [] => String::new(),
            [.., last] => last.clone(),
        }
    }
}

/// Host and port of `https://HOST:PORT`.
fn endpoint(text: &str) -> Option<(&str, u16)> {
    let rest = text.strip_prefix("https://")?;
    let (host, port) = rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(ip) => ip.strip_suffix(']')?,
        None if host.contains([':', '/', '@']) => return None,
        None => host,
    };
    (!host.is_empty()).then_some(())?;
    Some((host, port.parse().ok().filter(|&port| port != 0)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn endpoints_are_https_with_a_port() {
        for (text, expected) in [
            ("https://127.0.0.1:7480", Some(("127.0.0.1", 7480))),
            ("https://hub.example:1/", Some(("hub.example", 1))),
            ("https://[::1]:7480", Some(("::1", 7480))),
            ("http://127.0.0.1:7480", None),
            ("https://127.0.0.1", None),
            ("https://:7480", None),
            ("https://::1:7480", None),
            ("https://a:0", None),
            ("https://a:70000", None),
            ("https://me@a:1", None),
            ("https://a/b:1", None),
            ("", None),
        ] {
            assert_eq!(endpoint(text), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_context_with_a_broken_ca_is_invalid_input() {
        for ca in [
            "",
            "nothing",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let context = OperatorContext {
                endpoint: "https://127.0.0.1:1".to_owned(),
                ca: ca.to_owned(),
                token: "t".to_owned(),
            };
            let failure = Client::open("c.toml".into(), context).await.unwrap_err();
            assert_eq!(failure.exit, Exit::Invalid, "{ca:?}");
            assert!(
                failure.message.contains("c.toml has a `ca`"),
                "{}",
                failure.message
            );
        }
    }
}
