//! The one table of routes: what each takes, which role it needs, and whether it changes something.
//!
//! ```text
//!   token -> rate -> [ role -> time limit -> handler -> record of what was refused ]
//!                      for each operation of the table
//! ```
//!
//! What an operation takes and answers is read off its handler, and the document of the API is made of both
//! (`super::openapi`). A handler gets its control from [`By`], bound to whoever asks; there is no other way to one. So a route that is
//! added to the table is guarded, timed, recorded and tested like every other.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequestParts, Request, State};
use axum::handler::Handler;
use axum::http::header::{IF_MATCH, IF_NONE_MATCH, LINK};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, on};
use futures_util::StreamExt as _;
use sluice_api::{ErrorBody, ErrorCode};
use sluice_model::Role;

use super::ControlApi;
use super::answer::{Failure, NextPage, Refused};
use super::auth::Mortal;
use super::openapi::{self, Contract, Signature};
use crate::artifacts::Artifacts;
use crate::core::{Asker, Caller, OnlyIf};

/// How long an operation may take: reading logs waits for edges a few seconds, everything else is far below.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);

/// What an operation changes, and who writes that down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    Reads,
    /// Something in the store: recorded in the same transaction.
    Writes,
    /// Something outside the store: recorded when it is done.
    WritesOutside,
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// [`OPERATION_TIMEOUT`].
    Timed,
    /// The handler bounds its silences itself.
    Streams,
}

/// One row of the table.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    /// Its stable name, such as `job.deploy`.
    pub(super) id: &'static str,
    pub(super) method: Method,
    /// A template of [`sluice_api::routes`].
    pub(super) path: &'static str,
    /// Whoever may do less is refused.
    pub(super) role: Role,
    /// What it does, in one line.
    pub(super) summary: &'static str,
    pub(super) effect: Effect,
    /// It may be asked for on the condition that things are as they were seen.
    pub(super) conditional: bool,
    pub(super) pace: Pace,
}

impl Operation {
    /// Looks at something.
    pub(super) fn get(id: &'static str, path: &'static str, role: Role) -> Self {
        Self {
            id,
            method: Method::GET,
            path,
            role,
            summary: "",
            effect: Effect::Reads,
            conditional: false,
            pace: Pace::Timed,
        }
    }

    /// What it does, in one line; every operation says so.
    pub(super) fn says(self, summary: &'static str) -> Self {
        Self { summary, ..self }
    }

    /// It heeds `If-Match` and `If-None-Match`.
    pub(super) fn conditional(self) -> Self {
        Self {
            conditional: true,
            ..self
        }
    }

    /// Changes something in the store.
    pub(super) fn post(id: &'static str, path: &'static str, role: Role) -> Self {
        Self {
            method: Method::POST,
            effect: Effect::Writes,
            ..Self::get(id, path, role)
        }
    }

    /// Takes something away.
    pub(super) fn delete(id: &'static str, path: &'static str, role: Role) -> Self {
        Self {
            method: Method::DELETE,
            ..Self::post(id, path, role)
        }
    }

    /// Stores something outside the store.
    pub(super) fn put(id: &'static str, path: &'static str, role: Role) -> Self {
        Self {
            method: Method::PUT,
            effect: Effect::WritesOutside,
            ..Self::post(id, path, role)
        }
    }

    /// Changes nothing, whatever its method.
    pub(super) fn reads(self) -> Self {
        Self {
            effect: Effect::Reads,
            ..self
        }
    }

    /// Its answer, or its body, takes as long as it takes.
    pub(super) fn streams(self) -> Self {
        Self {
            pace: Pace::Streams,
            ..self
        }
    }
}

/// What all handlers share.
#[derive(Clone)]
pub(super) struct Shared<C> {
    control: C,
    pub(super) artifacts: Artifacts,
    /// The document of the API, once the table is whole.
    document: Arc<OnceLock<String>>,
}

impl<C> Shared<C> {
    pub(super) fn new(control: C, artifacts: Artifacts) -> Self {
        let document = Arc::default();
        Self {
            control,
            artifacts,
            document,
        }
    }

    /// The document of the API.
    pub(super) fn document(&self) -> String {
        let document = self.document.get();
        document
            .expect("requests come when the table is whole")
            .clone()
    }
}

/// The table while it is written down.
pub(super) struct Table<C> {
    shared: Shared<C>,
    router: Router<Shared<C>>,
    rows: Vec<(Operation, Contract)>,
}

impl<C: ControlApi> Table<C> {
    pub(super) fn new(shared: Shared<C>) -> Self {
        Self {
            shared,
            router: Router::new(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(super) fn row<H, T, D>(mut self, operation: Operation, handler: H) -> Self
    where
        H: Handler<T, Shared<C>> + Signature<D>,
        T: 'static,
    {
        let contract = Contract::of(&handler);
        let filter = MethodFilter::try_from(operation.method.clone())
            .expect("the table names methods that HTTP knows");
        let guard = (self.shared.control.clone(), operation.clone());
        let route =
            on(filter, handler).route_layer(middleware::from_fn_with_state(guard, admit::<C>));
        self.router = self.router.route(operation.path, route);
        self.rows.push((operation, contract));
        self
    }

    /// The router, and what is in it.
    pub(super) fn finish(self) -> (Router, Vec<(Operation, Contract)>) {
        let shared = self.shared;
        let _ = shared.document.set(openapi::document(&self.rows));
        (self.router.with_state(shared), self.rows)
    }
}

/// The control, bound to whoever asks.
pub(super) struct By<C>(pub(super) C);

impl<C: ControlApi> FromRequestParts<Shared<C>> for By<C> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared<C>) -> Result<Self, Failure> {
        Ok(Self(shared.control.by(asker_of(parts))))
    }
}

/// Who asks, for what is kept outside the control.
pub(super) struct Whom(pub(super) Arc<Asker>);

impl<S: Send + Sync> FromRequestParts<S> for Whom {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Ok(Self(asker_of(parts)))
    }
}

fn asker_of(parts: &Parts) -> Arc<Asker> {
    let asker = parts.extensions.get::<Arc<Asker>>();
    Arc::clone(asker.expect("every handler stands in the table, whose guard puts it there"))
}

/// Lets pass who may, and has recorded what a role refused, and which other writes were.
async fn admit<C: ControlApi>(
    State((control, operation)): State<(C, Operation)>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = request
        .extensions()
        .get::<Caller>()
        .expect("nothing comes here without a token")
        .clone();
    let role = caller.role;
    let (only_if, wrong) = match operation.effect {
        Effect::Writes => match only_if(request.headers()) {
            Ok(only_if) => (only_if, None),
            Err(wrong) => (None, Some(wrong)),
        },
        Effect::Reads | Effect::WritesOutside => (None, None),
    };
    let uri = request.uri().clone();
    let asker = Arc::new(Asker {
        caller,
        operation: operation.id,
        target: uri.path().to_owned(),
        only_if,
    });
    request.extensions_mut().insert(Arc::clone(&asker));
    let may = role >= operation.role;
    let mut response = if !may {
        forbidden(role, &operation).into_response()
    } else if let Some(wrong) = wrong {
        Failure(wrong).into_response()
    } else {
        match operation.pace {
            Pace::Timed => within_time(request, next).await,
            Pace::Streams => {
                let token = request.extensions().get::<Mortal>().copied();
                let response = next.run(request).await;
                match token {
                    Some(token) => ends_with(token, control.clone(), response),
                    None => response,
                }
            }
        }
    };
    if let Some(next) = response.extensions().get::<NextPage>() {
        let link = next.link(&uri);
        response.headers_mut().insert(LINK, link);
    }
    let outcome = match response.extensions().get::<Refused>() {
        Some(Refused(body)) => Err(body.clone()),
        None => Ok(()),
    };
    let recorded = match operation.effect {
        // Somebody tries what is not theirs, and a deploy asks first what is missing.
        Effect::Reads => !may,
        Effect::Writes => outcome.is_err(),
        Effect::WritesOutside => true,
    };
    if recorded && let Err(error) = control.record(asker, outcome).await {
        tracing::warn!(event = "audit.unrecorded", operation = operation.id, reason = %error.message);
    }
    response
}

/// A stream that is cut when its token ends: what was revoked reads no further line.
pub(super) fn ends_with<C: ControlApi>(token: Mortal, control: C, response: Response) -> Response {
    response.map(|body| {
        // What has a known end is no stream.
        if body.size_hint().exact().is_some() {
            return body;
        }
        let cut = Box::pin(token.ended(control));
        Body::from_stream(body.into_data_stream().take_until(cut))
    })
}

/// What an entity tag is, as a pattern: [`etags`] takes a list of these.
pub(super) const ETAGS_PATTERN: &str = r#"^(\*|(W/)?"[!#-~]*"([ \t]*,[ \t]*(W/)?"[!#-~]*")*)$"#;

/// What the request's conditions say; one that is not understood is refused, since it cannot be heeded.
fn only_if(headers: &HeaderMap) -> Result<Option<OnlyIf>, ErrorBody> {
    let text = |name| {
        let values = headers.get_all(name).iter();
        let lines: Vec<&str> = values
            .map(|it| it.to_str().unwrap_or("unreadable"))
            .collect();
        (!lines.is_empty()).then(|| lines.join(","))
    };
    let wrong = |what: &str| Err(ErrorBody::new(ErrorCode::Invalid, what));
    let seen = match text(IF_MATCH) {
        None => None,
        Some(text) if text.trim() == "*" => Some(Vec::new()),
        // An empty list, which nothing is in.
        Some(text) if text.trim().is_empty() => Some(vec![text]),
        Some(text) => match etags(&text) {
            Some(etags) => Some(etags),
            None => return wrong("If-Match takes what an `ETag` said, with its quotes, or *"),
        },
    };
    let absent = match text(IF_NONE_MATCH) {
        None => false,
        Some(text) if text.trim().is_empty() => false,
        Some(text) if text.trim() == "*" => true,
        Some(_) => return wrong("If-None-Match takes * only"),
    };
    Ok(match (seen, absent) {
        (None, false) => None,
        (None, true) => Some(OnlyIf::Absent),
        (Some(seen), false) => Some(OnlyIf::Is(seen)),
        // Nothing is there and is not, and no tag is without quotes.
        (Some(_), true) => Some(OnlyIf::Is(vec!["*".to_owned()])),
    })
}

/// A list of entity tags, with their quotes; a weak one is kept as it is, and is none of ours.
fn etags(text: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    loop {
        let opaque = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?;
        let end = opaque.find('"')?;
        if !opaque[..end].bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let after = &opaque[end + 1..];
        found.push(rest[..rest.len() - after.len()].to_owned());
        rest = after.trim_start();
        if rest.is_empty() {
            return Some(found);
        }
        rest = rest.strip_prefix(',')?.trim_start();
    }
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

fn forbidden(role: Role, operation: &Operation) -> Failure {
    let message = format!(
        "a token of the role {role} may not do {}: it needs {}",
        operation.id, operation.role
    );
    let help = format!(
        "an admin makes one with `sluice token create --role {}`",
        operation.role
    );
    Failure(ErrorBody::new(ErrorCode::Forbidden, message).with_help(help))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn conditions_of_a_request_are_read_and_what_is_not_understood_is_refused() {
        let read = |conditions: &[(axum::http::HeaderName, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in conditions {
                headers.append(name, value.parse().unwrap());
            }
            only_if(&headers)
        };
        let is = |etags: &[&str]| {
            Ok(Some(OnlyIf::Is(
                etags.iter().map(|&etag| etag.to_owned()).collect(),
            )))
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[(IF_MATCH, "*")]), is(&[]));
        assert_eq!(read(&[(IF_MATCH, "\"a\", \"b\"")]), is(&["\"a\"", "\"b\""]));
        let two = [(IF_MATCH, "\"a\""), (IF_MATCH, "W/\"b,c\" ,\"\"")];
        assert_eq!(read(&two), is(&["\"a\"", "W/\"b,c\"", "\"\""]));
        assert_eq!(read(&[(IF_NONE_MATCH, "*")]), Ok(Some(OnlyIf::Absent)));
        // Both at once never hold: every tag of ours has quotes.
        assert_eq!(read(&[(IF_MATCH, "*"), (IF_NONE_MATCH, "*")]), is(&["*"]));
        // An empty list: nothing is in it.
        assert_eq!(read(&[(IF_MATCH, "")]), is(&[""]));
        assert_eq!(read(&[(IF_NONE_MATCH, "")]), Ok(None));
        let odd = [
            "a",
            "\"a",
            "\"a\" \"b\"",
            "\"a\",",
            "*, \"a\"",
            "\"a b\"",
            "W/a",
        ];
        for odd in odd {
            let code = read(&[(IF_MATCH, odd)]).map_err(|error| error.code);
            assert_eq!(code, Err(ErrorCode::Invalid), "{odd}");
        }
        for odd in ["\"a\"", "*, *"] {
            let code = read(&[(IF_NONE_MATCH, odd)]).map_err(|error| error.code);
            assert_eq!(code, Err(ErrorCode::Invalid), "{odd}");
        }
        let mut bytes = HeaderMap::new();
        bytes.insert(
            IF_MATCH,
            axum::http::HeaderValue::from_bytes(b"\"\xff\"").unwrap(),
        );
        assert!(only_if(&bytes).is_err());
    }
}
