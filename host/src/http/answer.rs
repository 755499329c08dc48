//! From requests to arguments and from results to answers; every failure becomes an [`ErrorBody`].

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::time::Duration;

use axum::body::{Body as RawBody, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::sse::{Event as Frame, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_api::{Cursor, ErrorBody, ErrorCode, Page};
use sluice_model::Digest;
use tokio::fs::File;
use tokio::sync::mpsc::Receiver;
use tokio_util::io::ReaderStream;

use crate::events::Told;

/// A failure as an answer.
pub(super) struct Failure(pub(super) ErrorBody);

/// What a response that is not a success says, for who records it.
#[derive(Clone, Debug)]
pub(super) struct Refused(pub(super) ErrorBody);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let refused = Refused(self.0.clone());
        let status = StatusCode::from_u16(self.0.code.http_status())
            .expect("every code has a status that HTTP knows");
        let mut response = (status, axum::Json(self.0)).into_response();
        response.extensions_mut().insert(refused);
        if status == StatusCode::TOO_MANY_REQUESTS {
            let seconds = HeaderValue::from_static("1");
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            // Strangers who ask now and then would hold their connections for ever.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        response
    }
}

impl<E: Into<ErrorBody>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// What a handler returns. The document of the API is made of such types: `super::openapi`.
pub(super) type Reply<T> = Result<axum::Json<T>, Failure>;

/// The document of the API: JSON as it is.
pub(super) struct Document(pub(super) String);

impl IntoResponse for Document {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

/// One page of a list: an array, and in the header `Link` what to ask for next, if there is more.
pub(super) struct List<T>(pub(super) Page<T>);

/// What a handler returns that lists something.
pub(super) type Listing<T> = Result<List<T>, Failure>;

/// Where the next page begins, for who knows what was asked.
#[derive(Clone)]
pub(super) struct NextPage(Cursor);

impl NextPage {
    /// The header that names the next page of a list that `uri` asked for.
    pub(super) fn link(&self, uri: &Uri) -> HeaderValue {
        let query = uri.query().unwrap_or_default().split('&');
        let kept = query.filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
        let mut link = format!("<{}?", uri.path());
        for pair in kept {
            for byte in pair.bytes() {
                if byte.is_ascii_graphic() {
                    link.push(char::from(byte));
                } else {
                    link.push_str(&format!("%{byte:02X}"));
                }
            }
            link.push('&');
        }
        link.push_str(&format!("cursor={}>; rel=\"next\"", self.0));
        HeaderValue::from_str(&link)
            .expect("a path of ours and a query so encoded have visible characters only")
    }
}

impl<T: Serialize> IntoResponse for List<T> {
    fn into_response(self) -> Response {
        let mut response = axum::Json(self.0.items).into_response();
        if let Some(cursor) = self.0.next {
            response.extensions_mut().insert(NextPage(cursor));
        }
        response
    }
}

/// Something new: 201.
pub(super) struct Created<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, axum::Json(self.0)).into_response()
    }
}

/// Something with its `ETag`.
pub(super) struct Tagged<T> {
    pub(super) etag: String,
    pub(super) it: T,
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        ([(ETAG, self.etag)], axum::Json(self.it)).into_response()
    }
}

/// Bytes that are read at once for a download.
const DOWNLOAD_CHUNK_BYTES: usize = 64 << 10;

/// A file's bytes, with their digest as `ETag`.
pub(super) struct Download {
    pub(super) bytes: u64,
    pub(super) digest: Digest,
    /// None when there is not one byte.
    pub(super) file: Option<File>,
}

impl IntoResponse for Download {
    fn into_response(self) -> Response {
        let head = [
            (CONTENT_TYPE, "application/octet-stream".to_owned()),
            (CONTENT_LENGTH, self.bytes.to_string()),
            (ETAG, format!("\"{}\"", self.digest)),
        ];
        let body = match self.file {
            Some(file) => {
                RawBody::from_stream(ReaderStream::with_capacity(file, DOWNLOAD_CHUNK_BYTES))
            }
            None => RawBody::empty(),
        };
        (head, body).into_response()
    }
}

/// Objects one a line, as they come.
pub(super) struct Lines<T> {
    body: RawBody,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize + Send + 'static> Lines<T> {
    /// Those of a queue, until it ends. A blank line says that the connection lives when nothing came for `silence_max`.
    pub(super) fn from_queue(queue: Receiver<Vec<T>>, silence_max: Duration) -> Self {
        let chunks =
            futures_util::stream::unfold(queue, move |mut queue: Receiver<Vec<T>>| async move {
                let chunk = match tokio::time::timeout(silence_max, queue.recv()).await {
                    Ok(Some(piece)) => json_lines(&piece),
                    Ok(None) => return None,
                    Err(_) => b"\n".to_vec(),
                };
                Some((Ok::<_, Infallible>(chunk), queue))
            });
        Self {
            body: RawBody::from_stream(chunks),
            of: PhantomData,
        }
    }
}

fn json_lines<T: Serialize>(events: &[T]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(events.len() * 256);
    for event in events {
        serde_json::to_writer(&mut bytes, event).expect("an event has nothing JSON cannot say");
        bytes.push(b'\n');
    }
    bytes
}

impl<T> IntoResponse for Lines<T> {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "application/x-ndjson")], self.body).into_response()
    }
}

/// Server-sent events, as they come.
pub(super) struct EventStream(pub(super) BoxStream<'static, Told>);

impl IntoResponse for EventStream {
    fn into_response(self) -> Response {
        let frames = self.0.map(|told| {
            Ok::<_, Infallible>(match told {
                Told::Event { id, event } => Frame::default()
                    .id(id)
                    .event(event.kind.as_str())
                    .json_data(&event)
                    .expect("an event has nothing JSON cannot say"),
                // No event, since it has no data; its reader keeps the id all the same.
                Told::At { id } => Frame::default().comment("alive").id(id),
            })
        });
        Sse::new(frames).into_response()
    }
}

/// The id of the last event that a reader saw, if it says one. What is none of ours is an id that nothing came after.
pub(super) struct LastEventId(pub(super) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let id = parts.headers.get("last-event-id");
        Ok(Self(id.map(|id| {
            String::from_utf8_lossy(id.as_bytes()).into_owned()
        })))
    }
}

/// The `Idempotency-Key`, if there is one.
pub(super) struct IdempotencyKey(pub(super) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let Some(key) = parts.headers.get("idempotency-key") else {
            return Ok(Self(None));
        };
        let bytes_max = sluice_api::IDEMPOTENCY_KEY_BYTES_MAX;
        let key = key
            .to_str()
            .ok()
            .filter(|key| !key.is_empty() && key.len() <= bytes_max);
        match key {
            Some(key) => Ok(Self(Some(key.to_owned()))),
            None => {
                let message = format!("an Idempotency-Key has 1 to {bytes_max} visible characters");
                Err(Failure(ErrorBody::new(ErrorCode::Invalid, message)))
            }
        }
    }
}

/// A JSON body. Without a content type it is taken for JSON; a browser's form never is.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let sort = request.headers().get(CONTENT_TYPE).map(is_json);
        if sort == Some(false) {
            let message = "the body is not JSON by its Content-Type";
            return Err(Failure(
                ErrorBody::new(ErrorCode::UnsupportedMediaType, message)
                    .with_help("send `Content-Type: application/json`"),
            ));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(unread)?;
        // Serde would take an array of its fields for an object.
        if bytes.trim_ascii_start().first() == Some(&b'[') {
            let message = "the body is an array, and this route takes an object";
            return Err(Failure(ErrorBody::new(ErrorCode::Invalid, message)));
        }
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            let message = format!("the body is not the JSON that this route takes: {error}");
            let code = if error.is_data() {
                ErrorCode::Invalid
            } else {
                ErrorCode::Malformed
            };
            Failure(ErrorBody::new(code, message))
        })
    }
}

fn is_json(value: &HeaderValue) -> bool {
    let sort = value.to_str().unwrap_or_default();
    let sort = sort.split(';').next().unwrap_or_default().trim();
    sort.eq_ignore_ascii_case("application/json")
}

fn unread(rejection: BytesRejection) -> Failure {
    Failure(if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let message = format!(
            "the body has more than {} bytes",
            super::handlers::BODY_BYTES_MAX
        );
        ErrorBody::new(ErrorCode::TooLarge, message)
    } else {
        ErrorBody::new(ErrorCode::Malformed, "the body did not arrive whole")
    })
}

/// The parts of the path.
pub(super) struct Segments<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            // No name or id has such a form, so there is nothing of that name.
            Err(rejection) => Err(Failure(
                ErrorBody::new(
                    ErrorCode::NotFound,
                    format!("nothing is at {}", parts.uri.path()),
                )
                .with_detail(rejection.body_text()),
            )),
        }
    }
}

/// The query.
pub(super) struct Filter<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Filter<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => {
                let message = format!("the query is not understood: {}", rejection.body_text());
                Err(Failure(ErrorBody::new(ErrorCode::Invalid, message)))
            }
        }
    }
}

/// The answer to a path that is no route.
pub(super) fn no_route(request: Request) -> Ready<Failure> {
    let message = format!(
        "there is no route {} {}",
        request.method(),
        request.uri().path()
    );
    ready(Failure(ErrorBody::new(ErrorCode::NotFound, message)))
}

/// The answer to a route that has no such method; axum says which it has.
pub(super) fn no_method(request: Request) -> Ready<Failure> {
    let message = format!(
        "{} does not take {}",
        request.uri().path(),
        request.method()
    );
    ready(Failure(ErrorBody::new(
        ErrorCode::MethodNotAllowed,
        message,
    )))
}
