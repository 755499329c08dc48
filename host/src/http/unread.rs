//! What is left of a request's body when its answer is there: a refusal often comes before the body was read.
//!
//! ```text
//!   request -> body, lent -> routes -> answer, sent at once
//!                  `-- what was not read comes back -> read on and thrown away, up to bounds -> next request
//! ```
//!
//! A connection that is closed over unread bytes is reset, and a client that still writes loses the answer with it.
//! This reads on beside the answer, so that who writes first and reads then gets it too.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::header::EXPECT;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Bytes of one body that are read to be thrown away: four times what a body of JSON may have. Who sends more loses
/// little, since only uploads may be so large, and programs that upload look before whether they may.
const UNREAD_BYTES_MAX: usize = 8 << 20;

/// How long that may take: a sixth of what an operation may, so a stranger holds a connection no longer than by asking.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(5);

/// Bodies that are so read at once; of others the connection is closed over. A quarter of all connections, so that
/// throwing away never takes more than a part of what the machine decrypts.
const UNREAD_BODIES_MAX: usize = super::CONNECTIONS_MAX / 4;

/// Reads what nobody wants. Cheap to clone: all clones are one.
#[derive(Clone)]
pub(super) struct Unread {
    tasks: TaskTracker,
    turns: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Unread {
    /// Works until `stop`.
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self {
            tasks: TaskTracker::new(),
            turns: Arc::new(Semaphore::new(UNREAD_BODIES_MAX)),
            stop,
        }
    }

    /// Returns once nothing is read any more; after `stop` that is at once.
    pub(super) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn read_on(&self, mut rest: BodyDataStream) {
        let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() else {
            return;
        };
        let stop = self.stop.clone();
        let reading = async move {
            let mut left = UNREAD_BYTES_MAX;
            while let Some(Ok(chunk)) = rest.next().await {
                match left.checked_sub(chunk.len()) {
                    Some(fewer) => left = fewer,
                    None => break,
                }
            }
        };
        self.tasks.spawn(async move {
            tokio::select! {
                _ = tokio::time::timeout(UNREAD_TIME_MAX, reading) => {}
                () = stop.cancelled() => {}
            }
            drop(turn);
        });
    }
}

/// Answers as the routes do, and then reads what they left of the body.
pub(super) async fn read_what_is_left(
    State(unread): State<Unread>,
    request: Request,
    next: Next,
) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let waits = request.headers().contains_key(EXPECT);
    let (parts, body) = request.into_parts();
    let (back, mut left) = oneshot::channel();
    let lent = Lent {
        body: Some(body.into_data_stream()),
        back: Some(back),
        waits,
    };
    let request = Request::from_parts(parts, Body::from_stream(lent));
    let response = next.run(request).await;
    if let Ok(rest) = left.try_recv() {
        unread.read_on(rest);
    }
    response
}

/// A body that goes back to its owner when whoever was to read it is done, unless there is nothing left.
struct Lent {
    body: Option<BodyDataStream>,
    back: Option<oneshot::Sender<BodyDataStream>>,
    /// Nothing was asked for yet, and the client sends nothing before (`Expect: 100-continue`): it must not be told to.
    waits: bool,
}

impl Stream for Lent {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.waits = false;
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = body.poll_next_unpin(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.waits {
            return;
        }
        let rest = self.body.take().filter(|body| !body.is_end_stream());
        if let (Some(rest), Some(back)) = (rest, self.back.take()) {
            // Nobody waits for it when the whole request was dropped.
            let _ = back.send(rest);
        }
    }
}
