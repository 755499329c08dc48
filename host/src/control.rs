//! The control thread: one loop that owns the core and its store, and the handle that everyone else holds.
//!
//! The loop takes whatever waits, up to a bound, hands it to the core as one transaction, and passes the outputs on
//! after the commit. So a busy orchestrator commits once for hundreds of messages, and an idle one answers at once.
//!
//! Outgoing frames wait in a bounded queue for each connection; a peer that lets it fill up is closed, because it
//! would otherwise have to be waited for or remembered without bound.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sluice_api::{ErrorBody, ErrorCode};
use sluice_model::{MonotonicMs, NodeId, UnixMs};
use tokio::sync::{mpsc, oneshot};

use crate::core::{
    ApiCall, CloseWhy, ConnId, Core, Input, NewCertificate, Now, Output, Peer, Reply, RequestId,
    Tally,
};
use crate::events::Teller;
use crate::store::Store;

/// Inputs that may wait: a fleet's heartbeats for a second.
const INPUTS_MAX: usize = 16 * 1024;

/// Inputs in one transaction: bounds how long the first of them waits for its answer.
const ROUND_MAX: usize = 512;

/// Frames that may wait for one connection; a change in parts, acks and heartbeat answers are far fewer.
pub(crate) const OUTGOING_MAX: usize = 2 * 1024;

/// The orchestrator is stopping, or its store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the orchestrator is stopping")]
pub struct ControlError;

impl From<ControlError> for ErrorBody {
    fn from(error: ControlError) -> Self {
        Self::new(ErrorCode::Unavailable, error.to_string())
            .with_help("try again when it runs again")
    }
}

/// What a connection's writer does next.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Frame(Bytes),
    Close(CloseWhy, String),
    /// Issue a certificate for this key and send it.
    Renew {
        node: NodeId,
        csr: Vec<u8>,
        key: [u8; 32],
    },
}

#[derive(Debug)]
enum Message {
    Opened {
        peer: Peer,
        outgoing: mpsc::Sender<Outgoing>,
        conn: oneshot::Sender<ConnId>,
    },
    Input(Input),
    Ask {
        ask: Ask,
        reply: oneshot::Sender<Result<Reply, ErrorBody>>,
    },
}

/// Something that wants a reply.
#[derive(Debug)]
pub(crate) enum Ask {
    Api(Box<ApiCall>),
    Join {
        message: sluice_protocol::JoinRequest,
        key: [u8; 32],
    },
    /// May this certificate leave?
    Certificate {
        node: NodeId,
        expires_at: UnixMs,
    },
    Pull {
        conn: ConnId,
        digest: sluice_model::Digest,
    },
}

/// A handle to the control thread. Cheap to clone; when all are gone, the thread ends.
#[derive(Clone, Debug)]
pub struct Control {
    messages: mpsc::Sender<Message>,
}

impl Control {
    /// Starts the thread on a core. The receiver hears when the thread has ended, with the reason when it broke.
    pub(crate) fn spawn<S: Store + Send + 'static>(
        core: Core<S>,
        clock: Clock,
        events: Teller,
    ) -> std::io::Result<(Self, oneshot::Receiver<Option<String>>)> {
        let (messages, inbox) = mpsc::channel(INPUTS_MAX);
        let (ended, on_end) = oneshot::channel();
        std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                let broken = Loop::new(core, clock, inbox, events).run();
                // Nobody listens any more when the orchestrator was dropped.
                let _ = ended.send(broken);
            })?;
        Ok((Self { messages }, on_end))
    }

    /// A connection is up; its name from now on.
    pub(crate) async fn opened(
        &self,
        peer: Peer,
        outgoing: mpsc::Sender<Outgoing>,
    ) -> Result<ConnId, ControlError> {
        let (conn, named) = oneshot::channel();
        self.messages
            .send(Message::Opened {
                peer,
                outgoing,
                conn,
            })
            .await
            .map_err(|_| ControlError)?;
        named.await.map_err(|_| ControlError)
    }

    /// Something happened. Waits while too much else does.
    pub(crate) async fn input(&self, input: Input) -> Result<(), ControlError> {
        self.messages
            .send(Message::Input(input))
            .await
            .map_err(|_| ControlError)
    }

    /// Time passed. Skipped when the thread is busy: it learns the time with whatever it does next.
    pub(crate) fn tick(&self) {
        // A full queue means that the thread is at work; a closed one that it has ended.
        let _ = self.messages.try_send(Message::Input(Input::Tick));
    }

    /// Asks and waits for the answer, which is true on disk.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Reply, ErrorBody> {
        let (reply, answered) = oneshot::channel();
        self.messages
            .send(Message::Ask { ask, reply })
            .await
            .map_err(|_| ControlError)?;
        answered.await.map_err(|_| ControlError)?
    }
}

/// The two clocks of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    pub(crate) fn now(self) -> Now {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        Now {
            mono: MonotonicMs(
                u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            ),
            unix: UnixMs(i64::try_from(unix).unwrap_or(i64::MAX)),
        }
    }
}

struct Loop<S> {
    core: Core<S>,
    tally: Arc<Tally>,
    clock: Clock,
    inbox: mpsc::Receiver<Message>,
    events: Teller,
    connections: BTreeMap<ConnId, mpsc::Sender<Outgoing>>,
    waiting: BTreeMap<RequestId, oneshot::Sender<Result<Reply, ErrorBody>>>,
    next_conn: u64,
    next_request: u64,
}

impl<S: Store> Loop<S> {
    fn new(core: Core<S>, clock: Clock, inbox: mpsc::Receiver<Message>, events: Teller) -> Self {
        Self {
            tally: core.tally(),
            core,
            clock,
            inbox,
            events,
            connections: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_conn: 1,
            next_request: 1,
        }
    }

    fn run(mut self) -> Option<String> {
        let mut messages = Vec::with_capacity(ROUND_MAX);
        let mut carried = Vec::new();
        loop {
            let mut inputs: Vec<Input> = std::mem::take(&mut carried);
            if inputs.is_empty() && self.inbox.blocking_recv_many(&mut messages, ROUND_MAX) == 0 {
                return None;
            }
            while messages.len() < ROUND_MAX
                && let Ok(message) = self.inbox.try_recv()
            {
                messages.push(message);
            }
            for message in messages.drain(..) {
                inputs.push(self.input_of(message));
            }
            let now = self.clock.now();
            let begun = Instant::now();
            let outputs = self.core.handle(inputs, now);
            self.tally.rounds.add(begun.elapsed());
            self.events.settle();
            for output in outputs {
                self.pass_on(output, &mut carried);
            }
            if let Some(problem) = self.core.broken() {
                return Some(problem.to_owned());
            }
        }
    }

    fn input_of(&mut self, message: Message) -> Input {
        match message {
            Message::Input(input) => {
                if let Input::Closed { conn } = &input {
                    self.connections.remove(conn);
                }
                input
            }
            Message::Opened {
                peer,
                outgoing,
                conn,
            } => {
                let name = ConnId(self.next_conn);
                self.next_conn += 1;
                self.connections.insert(name, outgoing);
                // The connection's task is gone already when nobody waits for its name; then it says Closed, never.
                if conn.send(name).is_err() {
                    self.connections.remove(&name);
                    return Input::Closed { conn: name };
                }
                Input::Opened { conn: name, peer }
            }
            Message::Ask { ask, reply } => {
                let request = RequestId(self.next_request);
                self.next_request += 1;
                self.waiting.insert(request, reply);
                match ask {
                    Ask::Api(call) => Input::Api { request, call },
                    Ask::Join { message, key } => Input::Join {
                        request,
                        message,
                        key,
                    },
                    Ask::Certificate { node, expires_at } => {
                        Input::CertificateIssued(NewCertificate {
                            request,
                            node,
                            expires_at,
                        })
                    }
                    Ask::Pull { conn, digest } => Input::Pull {
                        request,
                        conn,
                        digest,
                    },
                }
            }
        }
    }

    fn pass_on(&mut self, output: Output, carried: &mut Vec<Input>) {
        match output {
            Output::Send { conn, frame } => self.send(conn, Outgoing::Frame(frame), carried),
            Output::Renew {
                conn,
                node,
                csr,
                key,
            } => self.send(conn, Outgoing::Renew { node, csr, key }, carried),
            Output::Close { conn, why, reason } => {
                // What was queued before it still goes out; without room, dropping the queue closes it too.
                if let Some(outgoing) = self.connections.remove(&conn) {
                    let _ = outgoing.try_send(Outgoing::Close(why, reason));
                }
            }
            Output::Reply { request, reply } => {
                if let Some(waiting) = self.waiting.remove(&request) {
                    // The asker may have given up; what was done stands.
                    let _ = waiting.send(reply);
                }
            }
            Output::Changed { changes, at } => self.events.tell(changes, at),
            Output::Again => carried.push(Input::Tick),
        }
    }

    fn send(&mut self, conn: ConnId, outgoing: Outgoing, carried: &mut Vec<Input>) {
        let Some(queue) = self.connections.get(&conn) else {
            return;
        };
        if queue.try_send(outgoing).is_err() {
            tracing::info!(
                event = "session.close",
                reason = "the peer does not read, or is gone"
            );
            self.connections.remove(&conn);
            carried.push(Input::Closed { conn });
        }
    }
}
