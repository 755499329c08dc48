//! The control thread: one loop that owns the core and its store, and carries out what the core wants.
//!
//! The loop takes whatever waits, up to a bound, hands it to the core as one transaction, and carries the outputs out
//! after the commit. Whatever takes time (pulling, compiling, deleting) happens elsewhere and comes back as an input.

mod house;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sluice_agent::{ArtifactKind, Assignment, Ending, Now, PrepareFailure, Ticket};
use sluice_model::{Digest, ExecutionId, Labels, MonotonicMs, NodeName, UnixMs, pipeline};
use sluice_protocol::Spec;
use sluice_state_dir::failpoint;
use sluice_transport::{CloseCode, Session};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::artifacts::Artifacts;
use crate::core::{CloseWhy, ConnectionId, EdgeCore, Event, Input, Output, Redial};
use crate::error::EdgeError;
use crate::link::unix_now;
use crate::metrics::{EdgeLook, EdgeTally};
use crate::runner::{
    Counters, End, ExecutionPlan, PrepareError, Prepared, RunnerContext, RunnerEvent,
    RunningExecution, prepare, purge_state,
};

/// Inputs that may wait: every execution of a large edge at once, and a snapshot in all its parts.
const INPUTS_MAX: usize = 4096;

/// Inputs in one transaction: bounds how long the first of them waits for its answer.
const ROUND_MAX: usize = 512;

/// Between two ticks at least: a deadline that stays in the past must not spin.
const TICK_MIN: Duration = Duration::from_millis(5);

/// Files that are given up when the disk is full: one so that rows still come in and the orchestrator hears why
/// nothing more starts, one so that the end of an execution can still be written down.
pub(crate) const RESERVES: [&str; 2] = ["reserve-rows", "reserve-ends"];

/// What a connection's writer does next.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Frame(Bytes),
    Begun {
        server_time: UnixMs,
        heartbeat: Duration,
    },
    /// The session is there to renew the certificate.
    Renew {
        server_time: UnixMs,
    },
    Certificate(Vec<u8>),
    Close {
        code: CloseCode,
        why: CloseWhy,
    },
}

enum Message {
    Input(Input),
    Hello {
        reply: oneshot::Sender<Bytes>,
    },
    Connected {
        connection: ConnectionId,
        frames: mpsc::Sender<Outgoing>,
        session: Session,
    },
    Prepared {
        ticket: Ticket,
        result: Result<Box<Prepared>, PrepareError>,
    },
    Look {
        reply: oneshot::Sender<EdgeLook>,
    },
    Stop {
        within: Duration,
    },
}

/// A handle to the control thread. Cheap to clone; when the thread has ended, what it is told is dropped.
#[derive(Clone)]
pub(crate) struct Control {
    messages: mpsc::Sender<Message>,
}

/// What the thread needs of its surroundings.
pub(crate) struct Surroundings {
    pub(crate) runtime: Handle,
    pub(crate) runner: RunnerContext,
    pub(crate) artifacts: Artifacts,
    pub(crate) state_dir: PathBuf,
    pub(crate) node: NodeName,
    pub(crate) labels: Labels,
    pub(crate) tally: Arc<EdgeTally>,
}

impl Control {
    /// Starts the thread. The receiver hears once how it ended.
    pub(crate) fn spawn(
        core: EdgeCore,
        first: Vec<Output>,
        clock: Clock,
        around: Surroundings,
    ) -> std::io::Result<(Self, oneshot::Receiver<Result<(), EdgeError>>)> {
        let (messages, inbox) = mpsc::channel(INPUTS_MAX);
        let (ended, on_end) = oneshot::channel();
        let control = Self { messages };
        // The thread's own tasks must not keep it alive: it ends when everybody else has gone.
        let own = control.messages.downgrade();
        std::thread::Builder::new()
            .name("edge-control".to_owned())
            .spawn(move || {
                let result = Loop::new(core, clock, around, inbox, own).run(first);
                // Nobody listens any more when the edge was dropped.
                let _ = ended.send(result);
            })?;
        Ok((control, on_end))
    }

    /// Something happened. Waits while too much else does; false when the thread has ended.
    pub(crate) async fn input(&self, input: Input) -> bool {
        self.messages.send(Message::Input(input)).await.is_ok()
    }

    /// The first frame for a connection; `None` when the thread has ended.
    pub(crate) async fn hello(&self) -> Option<Bytes> {
        let (reply, answered) = oneshot::channel();
        self.messages.send(Message::Hello { reply }).await.ok()?;
        answered.await.ok()
    }

    /// A connection is up, the Hello said on it.
    pub(crate) async fn connected(
        &self,
        connection: ConnectionId,
        frames: mpsc::Sender<Outgoing>,
        session: Session,
    ) -> bool {
        let message = Message::Connected {
            connection,
            frames,
            session,
        };
        self.messages.send(message).await.is_ok()
    }

    /// What is known now, for metrics; `None` when the thread has ended.
    pub(crate) async fn look(&self) -> Option<EdgeLook> {
        let (reply, answered) = oneshot::channel();
        self.messages.send(Message::Look { reply }).await.ok()?;
        answered.await.ok()
    }

    /// Asks the thread to stop everything and end.
    pub(crate) async fn stop(&self, within: Duration) {
        // A thread that has ended needs no asking.
        let _ = self.messages.send(Message::Stop { within }).await;
    }

    /// Whether the thread has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.messages.is_closed()
    }
}

/// The two clocks of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub(crate) fn now(self) -> Now {
        let since = self.start.elapsed();
        Now {
            mono: MonotonicMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            unix: unix_now(),
        }
    }

    fn instant(self, at: MonotonicMs) -> Instant {
        self.start
            .checked_add(Duration::from_millis(at.0))
            .unwrap_or_else(|| self.start + Duration::from_secs(365 * 24 * 3600))
    }
}

struct Connection {
    id: ConnectionId,
    frames: mpsc::Sender<Outgoing>,
    session: Session,
}

struct Running {
    ticket: Ticket,
    execution: RunningExecution,
}

struct Loop {
    core: EdgeCore,
    clock: Clock,
    around: Surroundings,
    inbox: mpsc::Receiver<Message>,
    own: mpsc::WeakSender<Message>,
    events: mpsc::Receiver<RunnerEvent>,
    events_to: mpsc::Sender<RunnerEvent>,
    connection: Option<Connection>,
    /// Connections that were lost in this round. What came over them before is handled first: it may say when to dial
    /// again.
    gone: Vec<ConnectionId>,
    session: watch::Sender<Option<Session>>,
    /// What gives up the fetches that are under way.
    fetches: BTreeMap<Digest, CancellationToken>,
    prepared: BTreeMap<Ticket, Box<Prepared>>,
    running: BTreeMap<ExecutionId, Running>,
    ticked_at: Instant,
    sweep_at: Instant,
    stdins_sweep_at: Instant,
    reserve_at: Instant,
    /// What the carrying out of outputs itself found out.
    found: Vec<Input>,
    stopping: Option<Instant>,
}

/// What the loop waited for.
enum Woken {
    Message(Option<Message>),
    Event(RunnerEvent),
    Time,
}

impl Loop {
    fn new(
        core: EdgeCore,
        clock: Clock,
        around: Surroundings,
        inbox: mpsc::Receiver<Message>,
        own: mpsc::WeakSender<Message>,
    ) -> Self {
        let (events_to, events) = mpsc::channel(INPUTS_MAX);
        let now = Instant::now();
        Self {
            core,
            clock,
            around,
            inbox,
            own,
            events,
            events_to,
            connection: None,
            gone: Vec::new(),
            session: watch::Sender::new(None),
            fetches: BTreeMap::new(),
            prepared: BTreeMap::new(),
            running: BTreeMap::new(),
            ticked_at: now,
            sweep_at: now,
            stdins_sweep_at: now,
            reserve_at: now,
            found: Vec::new(),
            stopping: None,
        }
    }

    fn run(mut self, first: Vec<Output>) -> Result<(), EdgeError> {
        self.carry_out(first);
        loop {
            let mut inputs = std::mem::take(&mut self.found);
            if inputs.is_empty() {
                match self.wait() {
                    Woken::Message(Some(message)) => self.take(message, &mut inputs),
                    // Everybody has gone without a word: the edge was dropped.
                    Woken::Message(None) => return Ok(()),
                    Woken::Event(event) => self.take_event(event, &mut inputs),
                    Woken::Time => {}
                }
            }
            while inputs.len() < ROUND_MAX {
                if let Ok(message) = self.inbox.try_recv() {
                    self.take(message, &mut inputs);
                } else if let Ok(event) = self.events.try_recv() {
                    self.take_event(event, &mut inputs);
                } else {
                    break;
                }
            }
            self.tick(&mut inputs);
            let begun = std::time::Instant::now();
            let outputs = self.core.handle(inputs, self.clock.now())?;
            self.around.tally.rounds.add(begun.elapsed());
            self.carry_out(outputs);
            for connection in std::mem::take(&mut self.gone) {
                self.forget(connection);
            }
            self.keep_house();
            if let Some(deadline) = self.stopping
                && (self.running.is_empty() || Instant::now() >= deadline)
                && self.found.is_empty()
            {
                self.say_goodbye();
                return Ok(());
            }
        }
    }

    fn wait(&mut self) -> Woken {
        let due = self.core.next_deadline().map(|at| self.clock.instant(at));
        let due = due.map(|due| due.max(self.ticked_at + TICK_MIN));
        let sweep_at = self.sweep_at.min(self.stdins_sweep_at);
        let until = [due, Some(sweep_at), self.stopping];
        let until = until.into_iter().flatten().min();
        let until = until.unwrap_or(sweep_at);
        let (inbox, events) = (&mut self.inbox, &mut self.events);
        self.around.runtime.block_on(async {
            tokio::select! {
                message = inbox.recv() => Woken::Message(message),
                Some(event) = events.recv() => Woken::Event(event),
                () = tokio::time::sleep_until(until) => Woken::Time,
            }
        })
    }

    fn take(&mut self, message: Message, inputs: &mut Vec<Input>) {
        match message {
            Message::Input(input) => {
                match &input {
                    Input::Disconnected { connection, .. } => self.gone.push(*connection),
                    Input::Fetched { digest, .. } => drop(self.fetches.remove(digest)),
                    _ => {}
                }
                inputs.push(input);
            }
            Message::Hello { reply } => {
                // What came in this round before it and is not committed yet, the next Hello says.
                // A link that stopped asks no more.
                let _ = reply.send(self.core.hello());
            }
            Message::Connected {
                connection,
                frames,
                session,
            } => {
                self.session.send_replace(None);
                self.connection = Some(Connection {
                    id: connection,
                    frames,
                    session,
                });
                inputs.push(Input::Connected { connection });
            }
            Message::Prepared { ticket, result } => {
                let result = match result {
                    Ok(prepared) => {
                        self.prepared.insert(ticket, prepared);
                        Ok(())
                    }
                    Err(PrepareError::Configure { message, .. }) => {
                        Err(PrepareFailure::Configure(message))
                    }
                    Err(PrepareError::Refused { message }) => Err(PrepareFailure::Refused(message)),
                    // The next try begins with fetching, which notices by the hash what is on the disk.
                    Err(
                        PrepareError::Retry { message } | PrepareError::Corrupt { message, .. },
                    ) => Err(PrepareFailure::Retry(message)),
                };
                inputs.push(Input::Prepared { ticket, result });
            }
            Message::Look { reply } => {
                // Who asked may have given up.
                let running = self.running.values().map(|it| &it.execution);
                let _ = reply.send(EdgeLook::of(&self.core, running));
            }
            Message::Stop { within } => {
                inputs.push(Input::ShuttingDown);
                self.prepared.clear();
                for running in self.running.values() {
                    running.execution.stop();
                }
                self.stopping = Some(Instant::now() + within);
            }
        }
    }

    fn take_event(&mut self, event: RunnerEvent, inputs: &mut Vec<Input>) {
        match event {
            RunnerEvent::Running {
                execution,
                counters,
                ..
            } => {
                if let Some(running) = self.running.get(&execution) {
                    let ticket = running.ticket;
                    inputs.push(Input::Running { ticket, counters });
                }
            }
            RunnerEvent::Ended {
                execution,
                end,
                counters,
                ..
            } => {
                self.around.tally.note_end(&end);
                if let Some(running) = self.running.remove(&execution) {
                    inputs.push(Input::Ended {
                        ticket: running.ticket,
                        ending: ending_of(end),
                        counters,
                    });
                }
            }
        }
    }

    /// Adds the tick, when it is due, and what it should tell.
    fn tick(&mut self, inputs: &mut Vec<Input>) {
        let now = self.clock.now();
        if self.core.next_deadline().is_none_or(|due| due > now.mono) {
            return;
        }
        self.ticked_at = Instant::now();
        if self.core.session().is_some() {
            let counters = self
                .running
                .iter()
                .map(|(id, running)| (*id, running.execution.counters()));
            inputs.push(Input::Counters(counters.collect()));
        }
        inputs.push(Input::Tick);
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::SendFrame { connection, frame } => {
                    self.write(connection, Outgoing::Frame(frame));
                }
                Output::CloseSession { connection, why } => self.close(connection, why),
                Output::SessionBegun {
                    connection,
                    server_time,
                    heartbeat,
                } => {
                    if let Some(current) = self.connection.as_ref().filter(|it| it.id == connection)
                    {
                        self.session.send_replace(Some(current.session.clone()));
                    }
                    let begun = Outgoing::Begun {
                        server_time,
                        heartbeat,
                    };
                    self.write(connection, begun);
                }
                Output::RenewalWanted {
                    connection,
                    server_time,
                } => self.write(connection, Outgoing::Renew { server_time }),
                Output::Certificate { der } => {
                    if let Some(connection) = self.connection.as_ref().map(|it| it.id) {
                        self.write(connection, Outgoing::Certificate(der));
                    }
                }
                Output::Fetch { digest, size, kind } => self.fetch(digest, size, kind),
                Output::CancelFetch { digest } => {
                    if let Some(fetch) = self.fetches.get(&digest) {
                        fetch.cancel();
                    }
                }
                Output::Prepare {
                    ticket,
                    assignment,
                    spec,
                } => self.prepare(ticket, assignment, spec),
                Output::Discard { ticket } => drop(self.prepared.remove(&ticket)),
                Output::Start { ticket, assignment } => self.start(ticket, &assignment),
                Output::Stop { execution, .. } => {
                    if let Some(running) = self.running.get(&execution) {
                        running.execution.stop();
                    }
                }
                Output::Purge { execution } => self.purge(execution),
                Output::Event(event) => {
                    self.around.tally.note(&event);
                    tell(&event);
                }
            }
        }
    }

    fn write(&mut self, id: ConnectionId, outgoing: Outgoing) {
        let Some(connection) = self.connection.as_ref().filter(|it| it.id == id) else {
            return;
        };
        let why = match connection.frames.try_send(outgoing) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(_)) => "the link takes no more frames",
            Err(mpsc::error::TrySendError::Closed(_)) => "the session is over",
        };
        connection.session.close(CloseCode::STALLED, why);
        let why = why.to_owned();
        self.forget(id);
        let connection = id;
        self.found.push(Input::Disconnected { connection, why });
    }

    fn close(&mut self, id: ConnectionId, why: CloseWhy) {
        let code = match why.code {
            "refused" | "renewed" => CloseCode::DONE,
            "silent" => CloseCode::STALLED,
            "protocol" => CloseCode::PROTOCOL,
            "superseded" => CloseCode::SUPERSEDED,
            _ => CloseCode::ABANDONED,
        };
        let Some(connection) = self.connection.take_if(|it| it.id == id) else {
            return;
        };
        self.session.send_replace(None);
        let message = why.message.clone();
        if connection
            .frames
            .try_send(Outgoing::Close { code, why })
            .is_err()
        {
            connection.session.close(code, &message);
        }
    }

    fn forget(&mut self, id: ConnectionId) {
        if self.connection.take_if(|it| it.id == id).is_some() {
            self.session.send_replace(None);
        }
    }

    /// Runs something elsewhere; what it returns comes back as a message.
    fn spawn(&self, work: impl Future<Output = Message> + Send + 'static) {
        let own = self.own.clone();
        self.around.runtime.spawn(async move {
            let message = work.await;
            if let Some(messages) = own.upgrade() {
                // The thread has ended: nobody waits for this any more.
                let _ = messages.send(message).await;
            }
        });
    }

    fn fetch(&mut self, digest: Digest, size: u64, kind: ArtifactKind) {
        let (session, own) = (self.session.subscribe(), self.own.clone());
        let (artifacts, cancelled) = (self.around.artifacts.clone(), CancellationToken::new());
        self.fetches.insert(digest, cancelled.clone());
        self.spawn(async move {
            let tell = |bytes| {
                if let Some(messages) = own.upgrade() {
                    let _ = messages.try_send(Message::Input(Input::Fetching { digest, bytes }));
                }
            };
            let pulling = artifacts.ensure(kind, digest, size, &session, &cancelled, tell);
            let result = pulling.await;
            Message::Input(Input::Fetched { digest, result })
        });
    }

    fn prepare(&self, ticket: Ticket, assignment: Assignment, spec: Bytes) {
        let plan = self.plan(assignment, &spec);
        let runner = self.around.runner.clone();
        let own = self.own.clone();
        self.spawn(async move {
            let worked = tokio::task::spawn_blocking(move || {
                let mut phase = |phase| {
                    if let Some(messages) = own.upgrade() {
                        // Only shown to people; a busy thread may miss one.
                        let _ = messages.try_send(Message::Input(Input::Phase { ticket, phase }));
                    }
                };
                prepare(&runner, plan?, &mut phase).map(Box::new)
            });
            let result = worked.await.unwrap_or_else(|_| {
                Err(PrepareError::Retry {
                    message: "preparing it crashed; this is a bug".to_owned(),
                })
            });
            Message::Prepared { ticket, result }
        });
    }

    /// Reads the spec's text as this edge's program understands it.
    fn plan(&self, assignment: Assignment, spec: &[u8]) -> Result<ExecutionPlan, PrepareError> {
        let refused = |message: String| PrepareError::Refused { message };
        let spec = Spec::decode(spec).map_err(|error| refused(error.to_string()))?;
        let pipeline = pipeline::parse(&spec.pipeline).map_err(|problems| {
            refused(format!(
                "this edge's program cannot read the pipeline: {problems}"
            ))
        })?;
        let named = spec.components.iter().map(|it| &it.stage);
        if !named.eq(pipeline.stages.iter().map(|stage| &stage.name)) {
            let message = "the pipeline's stages and its components do not fit together";
            return Err(refused(message.to_owned()));
        }
        let content = spec.content();
        let artifacts = &self.around.artifacts;
        let components = spec.components.iter();
        let stdin = spec.stdin.map(|stdin| {
            // One file when the same bytes are both.
            let is_stage = spec.components.iter().any(|it| it.digest == stdin.digest);
            let kind = if is_stage {
                ArtifactKind::Component
            } else {
                ArtifactKind::Stdin
            };
            artifacts.path(kind, stdin.digest)
        });
        Ok(ExecutionPlan {
            execution: assignment.execution,
            version: assignment.label.version,
            attempt: assignment.label.attempt,
            content,
            job: assignment.job_name,
            node: self.around.node.clone(),
            labels: self.around.labels.clone(),
            components: components
                .map(|it| {
                    (
                        it.digest,
                        artifacts.path(ArtifactKind::Component, it.digest),
                    )
                })
                .collect(),
            pipeline,
            params: spec.params,
            stdin,
            state_dir: self.state_of(assignment.execution),
        })
    }

    fn state_of(&self, execution: ExecutionId) -> PathBuf {
        let executions = self.around.state_dir.join("executions");
        executions.join(execution.to_string())
    }

    fn start(&mut self, ticket: Ticket, assignment: &Assignment) {
        failpoint::reach("start", "before");
        let Some(prepared) = self.prepared.remove(&ticket) else {
            let message = "what was prepared is gone; this is a bug".to_owned();
            self.found.push(Input::Ended {
                ticket,
                ending: Ending::Crashed(message),
                counters: Counters::default(),
            });
            return;
        };
        let execution = prepared.start(&self.around.runtime, self.events_to.clone());
        let running = Running { ticket, execution };
        self.running.insert(assignment.execution, running);
    }

    fn purge(&self, execution: ExecutionId) {
        let directory = self.state_of(execution);
        self.spawn(async move {
            let purging = move || {
                failpoint::reach("purge", "before");
                purge_state(&directory)
            };
            let purged = tokio::task::spawn_blocking(purging).await;
            let result = match purged {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            Message::Input(Input::Purged { execution, result })
        });
    }

    fn say_goodbye(&mut self) {
        self.session.send_replace(None);
        if let Some(connection) = self.connection.take() {
            let why = CloseWhy {
                code: "stopping",
                message: "the edge is stopping".to_owned(),
                redial: Redial::Soon,
            };
            let code = CloseCode::SHUTDOWN;
            if connection
                .frames
                .try_send(Outgoing::Close { code, why })
                .is_err()
            {
                connection.session.close(code, "the edge is stopping");
            }
        }
    }
}

fn ending_of(end: End) -> Ending {
    match end {
        End::Completed => Ending::Completed,
        End::Stopped => Ending::Stopped,
        End::Cut => Ending::Cut,
        End::Failed { reason, message } => Ending::Failed { reason, message },
        End::Backoff { message } => Ending::Backoff(message),
        End::Crashed { message } => Ending::Crashed(message),
    }
}

/// One line of the program's log, under the stable names.
fn tell(event: &Event) {
    match event {
        Event::SessionOpen {
            session,
            epoch,
            node,
            held,
        } => {
            let node = node.as_ref().map(NodeName::as_str).unwrap_or_default();
            tracing::info!(
                event = "session.open",
                session = session.0,
                epoch = epoch.0,
                node,
                held
            );
        }
        Event::SessionRenewOnly => tracing::warn!(
            event = "session.renew_only",
            reason = "the certificate has expired; it is renewed first, what runs runs on"
        ),
        Event::SessionClose { why } => tracing::info!(event = "session.close", reason = why),
        Event::SessionRefused { code, message } => {
            tracing::warn!(event = "session.refused", code, reason = message);
        }
        Event::LedgerReceived {
            rev,
            upserts,
            removed,
            snapshot,
        } => tracing::info!(
            event = "ledger.received",
            rev = rev.0,
            upserts,
            removed,
            snapshot
        ),
        Event::LedgerObserved { rev } => tracing::debug!(event = "ledger.observed", rev = rev.0),
        Event::LedgerResync { from, why } => {
            tracing::warn!(
                event = "ledger.resync",
                from = from.map(|rev| rev.0),
                reason = why
            );
        }
        Event::ExecutionState {
            execution,
            job,
            version,
            attempt,
            phase,
            reason,
        } => {
            tracing::info!(event = "execution.state", %execution, job, version, attempt, state = %phase, reason);
        }
        Event::StoreTrouble { message } => {
            tracing::error!(event = "store.trouble", reason = message)
        }
    }
}
