//! The shell around QUIC: connections become inputs of the control thread, its outputs become frames.
//!
//! One task for each connection, which ends it: a reader that feeds the control thread, a writer that drains its
//! outgoing queue, and the requests of the edge (artifact pulls). Joining machines have a short task of their own.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use sluice_api::ErrorBody;
use sluice_model::{Digest, NodeId, UnixMs};
use sluice_protocol::{
    JoinReply, JoinRequest, LogReply, LogRequest, OrchestratorMessage, PullReply, PullRequest,
    Reject, Renewed, StreamRequest, decode, encode, orchestrator_message, stream_request,
};
use sluice_transport::identity::{ClusterAuthority, IssuedCertificate, VerifiedKey};
use sluice_transport::{
    CloseCode, ControlReceiver, ControlSender, Established, Incoming, JoinConn, Priority,
    RequestAcceptor, Responder, Resumptions, Server, Session,
};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::artifacts::Artifacts;
use crate::control::{Ask, Clock, Control, OUTGOING_MAX, Outgoing};
use crate::core::{CloseWhy, ConnId, Input, Peer, Reply};
use crate::log_room::KeptLines;
use crate::metrics::Handshakes;

/// Joins decided at once; each is a few milliseconds of signing.
const JOINS_MAX: usize = 64;

/// Joins under way at once, with those whose answer travels; each is a connection. A machine that finds no room dials
/// again.
const JOINS_OPEN_MAX: usize = 1024;

/// How long a join may wait for its turn and its decision: what the machine itself waits for an answer.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes read from an artifact at once.
const PULL_CHUNK_BYTES: usize = 64 * 1024;

/// How long a closing connection waits for its last frame to be taken.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long an edge may take to answer a log request.
const LOGS_TIMEOUT: Duration = Duration::from_secs(10);

/// What every connection's task shares.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) control: Control,
    pub(crate) artifacts: Artifacts,
    pub(crate) authority: Arc<ClusterAuthority>,
    pub(crate) certificate_life: Duration,
    pub(crate) addresses: Arc<[String]>,
    pub(crate) clock: Clock,
    pub(crate) open: OpenSessions,
    pub(crate) resumptions: Resumptions,
    pub(crate) handshakes: Arc<Handshakes>,
}

/// The live QUIC sessions by the control thread's names, for asking an edge something. A read-mostly registry: an entry
/// is written when a connection opens and closes, and nothing is decided from it.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenSessions(Arc<RwLock<BTreeMap<ConnId, Session>>>);

impl OpenSessions {
    fn insert(&self, conn: ConnId, session: Session) {
        self.0
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(conn, session);
    }

    fn remove(&self, conn: ConnId) {
        self.0
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .remove(&conn);
    }

    fn get(&self, conn: ConnId) -> Option<Session> {
        self.0
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .get(&conn)
            .cloned()
    }

    /// The newest lines of an execution's log, from its edge, for as long as there is room for them.
    pub(crate) async fn logs(
        &self,
        conn: ConnId,
        request: LogRequest,
        mut kept: KeptLines,
    ) -> Result<KeptLines, String> {
        debug!(event = "logs.asked", conn = conn.0);
        let ask = async {
            let mut replies = self.open_logs(conn, request).await?;
            while let Some(part) = replies.next().await? {
                kept.add(part.lines)?;
            }
            Ok(kept)
        };
        tokio::time::timeout(LOGS_TIMEOUT, ask)
            .await
            .unwrap_or_else(|_| Err(format!("it did not answer within {LOGS_TIMEOUT:?}")))
    }

    /// An execution's log as it grows, from its edge.
    pub(crate) async fn follow(
        &self,
        conn: ConnId,
        request: LogRequest,
    ) -> Result<LogReplies, String> {
        tokio::time::timeout(LOGS_TIMEOUT, self.open_logs(conn, request))
            .await
            .unwrap_or_else(|_| Err("too many logs of it are read already".to_owned()))
    }

    async fn open_logs(&self, conn: ConnId, request: LogRequest) -> Result<LogReplies, String> {
        let kind = stream_request::Kind::Logs(request);
        self.ask(conn, kind).await.map(LogReplies)
    }

    /// Asks an edge something, over a stream of its own.
    pub(crate) async fn ask(
        &self,
        conn: ConnId,
        kind: stream_request::Kind,
    ) -> Result<sluice_transport::Reply, String> {
        let session = self.get(conn).ok_or("it has just disconnected")?;
        let request = StreamRequest { kind: Some(kind) };
        let reply = session.open_request(encode(&request)).await;
        reply.map_err(|error| error.to_string())
    }
}

/// What an edge answers to a log request. Dropping it tells the edge to stop.
pub(crate) struct LogReplies(sluice_transport::Reply);

impl LogReplies {
    /// The next part; `None` when there are no more.
    pub(crate) async fn next(&mut self) -> Result<Option<LogReply>, String> {
        let frame = self.0.recv().await.map_err(|error| error.to_string())?;
        frame
            .map(|frame| decode(&frame).map_err(|error| error.to_string()))
            .transpose()
    }
}

/// Accepts edges until `stop`; then closes every connection. `tasks` holds all that was started.
pub(crate) async fn serve(
    mut server: Server,
    shared: Shared,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let joins = Arc::new(Joins::default());
    loop {
        let incoming = tokio::select! {
            incoming = server.accept() => incoming,
            () = stop.cancelled() => break,
        };
        match incoming {
            None => break,
            Some(Incoming::Session(established)) => {
                let (shared, stop) = (shared.clone(), stop.clone());
                tasks.spawn(async move { session(established, shared, stop).await });
            }
            Some(Incoming::Join(conn)) => {
                let Ok(open) = Arc::clone(&joins.open).try_acquire_owned() else {
                    info!(event = "node.join_refused", address = %conn.remote_addr(), reason = "too many at once");
                    continue;
                };
                let (shared, joins) = (shared.clone(), Arc::clone(&joins));
                tasks.spawn(async move {
                    let _open = open;
                    join(conn, &joins.deciding, &shared).await;
                });
            }
        }
    }
    server.close(CloseCode::SHUTDOWN, "the orchestrator is stopping");
    server.flushed(LAST_WORDS).await;
}

async fn session(established: Established, shared: Shared, stop: CancellationToken) {
    let Established {
        session,
        sender,
        receiver,
        requests,
        peer,
        early,
    } = established;
    let Some(peer) = peer else { return };
    // Early or not, it may be a replay until the core sees a Begin; and a resumed one checked no certificate.
    shared.handshakes.note(early);
    debug!(event = "session.connected", address = %peer.remote_addr, ?early);
    let node = peer.node();
    let peer = Peer {
        node,
        key: peer.certificate.spki_sha256,
        expires_at: peer.certificate.not_after,
        address: peer.remote_addr.to_string(),
    };
    let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
    let Ok(conn) = shared.control.opened(peer, outgoing).await else {
        session.close(CloseCode::SHUTDOWN, "the orchestrator is stopping");
        return;
    };
    shared.open.insert(conn, session.clone());
    tokio::select! {
        () = read(receiver, conn, &shared.control) => {}
        () = write(sender, queue, (conn, node), &session, &shared) => {}
        () = serve_requests(requests, conn, &shared) => {}
        () = stop.cancelled() => {}
    }
    shared.open.remove(conn);
    session.close(CloseCode::DONE, "");
    // The thread has ended when this fails, and with it every session.
    let _ = shared.control.input(Input::Closed { conn }).await;
}

async fn read(mut receiver: ControlReceiver, conn: ConnId, control: &Control) {
    loop {
        match receiver.recv().await {
            Ok(Some(frame)) => {
                if control.input(Input::Frame { conn, frame }).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                debug!(event = "session.close", %error);
                return;
            }
        }
    }
}

async fn write(
    mut sender: ControlSender,
    mut queue: mpsc::Receiver<Outgoing>,
    (conn, node): (ConnId, NodeId),
    session: &Session,
    shared: &Shared,
) {
    while let Some(outgoing) = queue.recv().await {
        let frame = match outgoing {
            Outgoing::Frame(frame) => frame,
            Outgoing::Renew { node, csr, key } => match renew(node, &csr, key, shared).await {
                Ok(frame) => frame,
                Err(NotRenewed::WrongKey(reason)) => {
                    warn!(event = "session.close", node = %node, reason);
                    session.close(CloseCode::REFUSED, &reason);
                    return;
                }
                Err(NotRenewed::NotNow(reason)) => {
                    warn!(event = "identity.renewal_failed", node = %node, reason, "its edge asks again");
                    continue;
                }
            },
            Outgoing::Close(why, reason) => {
                // The last frame (a Reject) should arrive before the close does.
                let _ = sender.finish();
                let _ = tokio::time::timeout(LAST_WORDS, sender.taken()).await;
                session.close(close_code(why), &reason);
                if why == CloseWhy::Refused {
                    // Every Hello is judged anew; that this one may not come so cheaply again is only tidy.
                    shared.resumptions.forget(node);
                }
                return;
            }
        };
        if let Err(error) = sender.send(frame).await {
            debug!(event = "session.close", conn = conn.0, %error);
            return;
        }
    }
}

fn close_code(why: CloseWhy) -> CloseCode {
    match why {
        CloseWhy::Superseded => CloseCode::SUPERSEDED,
        CloseWhy::Refused => CloseCode::REFUSED,
        CloseWhy::Protocol => CloseCode::PROTOCOL,
        CloseWhy::Stalled | CloseWhy::Unavailable => CloseCode::STALLED,
    }
}

/// Why a certificate was not renewed.
enum NotRenewed {
    /// Not this key: the peer is not what it should be.
    WrongKey(String),
    /// Nothing is wrong with the session.
    NotNow(String),
}

async fn renew(
    node: NodeId,
    csr: &[u8],
    key: [u8; 32],
    shared: &Shared,
) -> Result<Bytes, NotRenewed> {
    let verified =
        VerifiedKey::from_csr(csr).map_err(|error| NotRenewed::WrongKey(error.to_string()))?;
    if verified.spki_sha256() != key {
        let reason = "a renewal is for the session's own key";
        return Err(NotRenewed::WrongKey(reason.to_owned()));
    }
    let issued = issue(node, &verified, shared)
        .await
        .map_err(|error| NotRenewed::NotNow(error.message))?;
    let kind = orchestrator_message::Kind::Renewed(Renewed {
        certificate: issued.der,
    });
    Ok(encode(&OrchestratorMessage { kind: Some(kind) }))
}

/// Signs a certificate, and gives it out once its end is on record.
async fn issue(
    node: NodeId,
    key: &VerifiedKey,
    shared: &Shared,
) -> Result<IssuedCertificate, ErrorBody> {
    let now: UnixMs = shared.clock.now().unix;
    let issued = shared
        .authority
        .issue_node(node, key, now, shared.certificate_life)
        .map_err(|error| {
            ErrorBody::new(
                sluice_api::ErrorCode::Internal,
                format!("the certificate could not be made: {error}"),
            )
        })?;
    let expires_at = issued.facts.not_after;
    shared
        .control
        .ask(Ask::Certificate { node, expires_at })
        .await?;
    Ok(issued)
}

/// Bounds of joins. The travelling of an answer holds no decision up: its pace is the peer's.
struct Joins {
    open: Arc<Semaphore>,
    deciding: Semaphore,
}

impl Default for Joins {
    fn default() -> Self {
        Self {
            open: Arc::new(Semaphore::new(JOINS_OPEN_MAX)),
            deciding: Semaphore::new(JOINS_MAX),
        }
    }
}

/// Waits for a turn and decides, with a deadline; the turn is over when this returns.
async fn decide_join(
    request: &Bytes,
    turns: &Semaphore,
    shared: &Shared,
) -> Result<JoinReply, ErrorBody> {
    in_turn(turns, JOIN_TIMEOUT, answer_join(request, shared)).await
}

/// Does something when there is a turn for it; it and the waiting have one deadline.
async fn in_turn<T>(
    turns: &Semaphore,
    within: Duration,
    work: impl Future<Output = Result<T, ErrorBody>>,
) -> Result<T, ErrorBody> {
    let turn = async {
        let _turn = turns.acquire().await;
        work.await
    };
    tokio::time::timeout(within, turn)
        .await
        .unwrap_or_else(|_| {
            let message = "the orchestrator is too busy with other machines that join; try again";
            Err(ErrorBody::new(sluice_api::ErrorCode::Unavailable, message).with_detail("busy"))
        })
}

async fn join(conn: JoinConn, turns: &Semaphore, shared: &Shared) {
    let address = conn.remote_addr();
    let reply = match decide_join(conn.request(), turns, shared).await {
        Ok(reply) => reply,
        Err(body) => {
            info!(event = "node.join_refused", %address, reason = %body.message);
            let code = body.detail.unwrap_or_else(|| "unavailable".to_owned());
            JoinReply {
                reject: Some(Reject {
                    code,
                    message: body.message,
                    retry_after_ms: 0,
                }),
                ..JoinReply::default()
            }
        }
    };
    if let Err(error) = conn.respond(encode(&reply)).await {
        // The machine asks again with the same key and token, and gets the same node.
        debug!(event = "node.join_unheard", %address, %error);
    }
}

async fn answer_join(request: &Bytes, shared: &Shared) -> Result<JoinReply, ErrorBody> {
    let malformed = |what: String| {
        ErrorBody::new(
            sluice_api::ErrorCode::Invalid,
            format!("the join request is not well-formed: {what}"),
        )
        .with_detail("malformed")
    };
    let message: JoinRequest = decode(request).map_err(|error| malformed(error.to_string()))?;
    let key = VerifiedKey::from_csr(&message.csr).map_err(|error| malformed(error.to_string()))?;
    let ask = Ask::Join {
        message,
        key: key.spki_sha256(),
    };
    let Reply::Joined(joined) = shared.control.ask(ask).await? else {
        return Err(ErrorBody::new(
            sluice_api::ErrorCode::Internal,
            "an answer of another kind",
        ));
    };
    let issued = issue(joined.node, &key, shared).await?;
    Ok(JoinReply {
        reject: None,
        node: joined.node.to_bytes().to_vec(),
        certificate: issued.der,
        authority: shared.authority.certificate_der().to_vec(),
        server_time_ms: shared.clock.now().unix.0,
        addresses: shared.addresses.to_vec(),
    })
}

async fn serve_requests(mut requests: RequestAcceptor, conn: ConnId, shared: &Shared) {
    let mut answers = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = answers.join_next() => {}
            request = requests.next() => match request {
                Ok((frame, responder)) => {
                    let shared = shared.clone();
                    answers.spawn(async move { answer(&frame, responder, conn, &shared).await });
                }
                // The reader hears of the session's end with its reason.
                Err(_) => return std::future::pending().await,
            },
        }
    }
}

async fn answer(frame: &Bytes, mut responder: Responder, conn: ConnId, shared: &Shared) {
    let Ok(StreamRequest {
        kind: Some(stream_request::Kind::Pull(pull)),
    }) = decode::<StreamRequest>(frame)
    else {
        responder.abort(CloseCode::PROTOCOL);
        return;
    };
    responder.set_priority(Priority::Artifact);
    match begin_pull(&pull, conn, shared).await {
        Ok((file, size)) => {
            let reply = PullReply { reject: None, size };
            if responder.send(encode(&reply)).await.is_err() {
                return;
            }
            let mut file = match pull.bytes_max {
                0 => file.take(u64::MAX),
                bytes_max => file.take(bytes_max),
            };
            loop {
                let mut chunk = bytes::BytesMut::with_capacity(PULL_CHUNK_BYTES);
                match file.read_buf(&mut chunk).await {
                    Ok(0) => break,
                    Ok(_) => {
                        if responder.write(chunk.freeze()).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        warn!(event = "artifact.read_failed", %error);
                        responder.abort(CloseCode::ABANDONED);
                        return;
                    }
                }
            }
        }
        Err((code, message)) => {
            let reject = Reject {
                code: code.to_owned(),
                message,
                retry_after_ms: 0,
            };
            let reply = PullReply {
                reject: Some(reject),
                size: 0,
            };
            if responder.send(encode(&reply)).await.is_err() {
                return;
            }
        }
    }
    // The edge sees an incomplete answer when this fails, and asks again from where it is.
    let _ = responder.finish();
}

async fn begin_pull(
    pull: &PullRequest,
    conn: ConnId,
    shared: &Shared,
) -> Result<(tokio::fs::File, u64), (&'static str, String)> {
    let digest =
        Digest::from_slice(&pull.digest).ok_or(("malformed", "not a digest".to_owned()))?;
    match shared.control.ask(Ask::Pull { conn, digest }).await {
        Ok(Reply::Pull(true)) => {}
        Ok(_) => {
            return Err((
                "not-named",
                format!("no assignment of this node names {digest}"),
            ));
        }
        Err(body) => return Err(("unavailable", body.message)),
    }
    shared
        .artifacts
        .open_at(digest, pull.offset)
        .await
        .map_err(|error| ("not-here", error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_ends_with_the_decision_and_with_its_deadline() {
        let turns = Semaphore::new(1);
        let stuck = in_turn(
            &turns,
            JOIN_TIMEOUT,
            std::future::pending::<Result<(), _>>(),
        );
        let next = async {
            // The one turn is taken; it is free again when the other's time is over.
            let within = JOIN_TIMEOUT * 2;
            in_turn(&turns, within, async { Ok(7) }).await
        };
        let (stuck, next) = tokio::join!(stuck, next);
        assert_eq!(stuck.unwrap_err().detail.as_deref(), Some("busy"));
        assert_eq!(next.unwrap(), 7);
        assert_eq!(turns.available_permits(), 1);
    }
}
