//! The orchestrator's one decision-maker: sessions, jobs, joins and liveness over a [`Store`].
//!
//! [`Core::handle`] takes all inputs that wait, decides them in one transaction and gives back what may leave the
//! process: frames, replies, closings. Nothing leaves before the commit, so no row is sent and no ack is given that a
//! crash could take back. A step that fails is undone alone; a commit that fails undoes all, and sessions start anew,
//! but for a full disk: see [`full`].
//!
//! The core reads no clock, draws no random number and knows no socket: a simulator can be all of these.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use sluice_api::ErrorBody;
use sluice_model::{
    Digest, Epoch, EvaluationId, ExecutionId, JobId, LifeNonce, MonotonicMs, NodeId, NodeState,
    UnixMs,
};
use sluice_protocol::JoinRequest;
use sluice_scheduler::Watch;
use tracing::{info, warn};

use crate::store::{Changes, NodeRecord, Store, StoreError, TaskLimits};

mod aging;
mod audit;
mod evaluate;
mod explain;
mod failure;
mod full;
mod identity;
mod input;
mod join;
mod lists;
mod nodes;
mod operator;
mod outputs;
mod rollout;
mod runs;
mod schedules;
mod session;
mod tally;
mod unplaced;
mod versions;
mod view;

pub use audit::{Asker, Caller, OnlyIf};
pub use identity::NewCertificate;
pub use join::Joined;
pub use operator::{ApiCall, ComponentFacts, LogTarget, LogsOf, Reply};
pub use outputs::{OutputCall, OutputTarget, OutputsSwept};
pub use tally::Tally;

use failure::{describe, store_error};
use full::Concerned;
use session::Session;
pub(crate) use tally::count;

/// Evaluations handled in one transaction: keeps a flood of them from delaying acks.
const EVALUATIONS_MAX: usize = 64;

/// A connection that has not begun a session after this long is closed.
const OPENING_MAX: Duration = Duration::from_secs(10);

/// An acknowledgement that takes longer means that the session is broken.
const ACK_PATIENCE: Duration = Duration::from_secs(10);

/// Heartbeats that may be missed before a node counts as disconnected.
const MISSED_HEARTBEATS_MAX: u32 = 3;

/// Every job is looked at this often, so that a lost wake-up costs seconds and never a job.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// How long a claim on an evaluation lasts.
const LEASE: Duration = Duration::from_secs(30);

/// What an operator sets.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Time between an edge's heartbeats.
    pub heartbeat: Duration,
    /// How long a node is disconnected before it counts as lost.
    pub lost_after: Duration,
    /// Names this process in claims, for people; its life's random name is added, so that no two have the same.
    pub worker: String,
    /// How many tasks of runs are active at once.
    pub limits: TaskLimits,
}

/// The two clocks, read once for each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For deciding that something is late.
    pub mono: MonotonicMs,
    /// For people.
    pub unix: UnixMs,
}

/// Names one QUIC connection within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// Names one question that waits for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Who a connection's certificate says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// SHA-256 of its public key.
    pub key: [u8; 32],
    /// When its certificate ends.
    pub expires_at: UnixMs,
    /// Where it comes from.
    pub address: String,
}

/// What happens to the core.
#[derive(Clone, Debug)]
pub enum Input {
    /// A node's connection is up.
    Opened {
        /// Its name.
        conn: ConnId,
        /// Its peer.
        peer: Peer,
    },
    /// A frame came on its control stream.
    Frame {
        /// The connection.
        conn: ConnId,
        /// An encoded `EdgeMessage`.
        frame: Bytes,
    },
    /// The connection is gone.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// A machine wants to join; the key's possession is proven.
    Join {
        /// Where the reply goes.
        request: RequestId,
        /// What it says.
        message: JoinRequest,
        /// SHA-256 of its public key.
        key: [u8; 32],
    },
    /// A certificate was made for a node; it leaves when the reply says that this is known.
    CertificateIssued(NewCertificate),
    /// May this session's node pull this component?
    Pull {
        /// Where the reply goes.
        request: RequestId,
        /// The connection that asks.
        conn: ConnId,
        /// The component.
        digest: Digest,
    },
    /// An operator asks or orders.
    Api {
        /// Where the reply goes.
        request: RequestId,
        /// What.
        call: Box<ApiCall>,
    },
    /// Time passed. Needed every half heartbeat or so.
    Tick,
}

/// What the core wants done. All of it is true on disk.
#[derive(Debug)]
pub enum Output {
    /// Send a frame on a connection's control stream, in order.
    Send {
        /// The connection.
        conn: ConnId,
        /// An encoded `OrchestratorMessage`.
        frame: Bytes,
    },
    /// Close a connection after what was sent on it.
    Close {
        /// The connection.
        conn: ConnId,
        /// Why.
        why: CloseWhy,
        /// Why, in words.
        reason: String,
    },
    /// Issue a certificate for a session's own key and send it as `Renewed`.
    Renew {
        /// The connection.
        conn: ConnId,
        /// The node.
        node: NodeId,
        /// What the edge sent; its key must be `key`.
        csr: Vec<u8>,
        /// The session's key.
        key: [u8; 32],
    },
    /// Answer a question.
    Reply {
        /// Which.
        request: RequestId,
        /// The answer.
        reply: Result<Reply, ErrorBody>,
    },
    /// This changed, for whoever watches.
    Changed {
        /// What.
        changes: Changes,
        /// When.
        at: UnixMs,
    },
    /// There is more to do: call again soon with [`Input::Tick`].
    Again,
}

/// Why the core closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseWhy {
    /// A newer session of the node took over.
    Superseded,
    /// The node may not speak.
    Refused,
    /// It said something impossible.
    Protocol,
    /// It did not answer in time.
    Stalled,
    /// The store could not take what it said.
    Unavailable,
}

/// A node without a session.
#[derive(Clone, Copy, Debug)]
struct Absent {
    since: MonotonicMs,
    /// The store says so too.
    lost: bool,
}

/// Totals from heartbeats; they live in memory only.
#[derive(Clone, Copy, Debug, Default)]
struct LiveCounters {
    records_in: u64,
    records_out: u64,
    dead_letters: u64,
}

/// The decision-maker. See the module.
pub struct Core<S> {
    store: S,
    config: CoreConfig,
    epoch: Epoch,
    life: LifeNonce,
    /// When this life began.
    born: Now,
    aging: aging::Aging,
    random: Box<dyn FnMut() -> [u8; 16] + Send>,
    sessions: BTreeMap<ConnId, Session>,
    live: BTreeMap<NodeId, ConnId>,
    absent: BTreeMap<NodeId, Absent>,
    /// What heartbeats told since the rows that the nodes reported.
    counters: BTreeMap<NodeId, BTreeMap<ExecutionId, LiveCounters>>,
    /// Processes that were turned away because another one speaks as their node.
    rivals: BTreeMap<NodeId, identity::Rival>,
    next_session: u64,
    last_tick: MonotonicMs,
    last_sweep: Option<MonotonicMs>,
    /// What was seen of open rollouts, by this process.
    watches: BTreeMap<JobId, Watch>,
    /// Jobs whose rollouts may move on by time alone, and when.
    rollouts_due: BTreeMap<JobId, MonotonicMs>,
    broken: Option<String>,
    /// The disk is full: each input is handled alone.
    full: bool,
    /// Nodes whose outboxes are looked at with the next round, whatever it brings.
    behind: BTreeSet<NodeId>,
    takes_local_pipelines: bool,
    tally: Arc<Tally>,
    /// There may be tasks that have not ended.
    runs_open: bool,
    /// Waiting tasks are looked at with this round.
    runs_due: bool,
    placing: runs::place::Placing,
    claims_renewed: Option<MonotonicMs>,
    history: runs::history::History,
    /// Where tries ended since the last tick: older ones may have to be purged there.
    tries_ended: runs::TriesEnded,
    deadlines: runs::deadlines::Deadlines,
    schedules: schedules::Watched,
}

impl<S> std::fmt::Debug for Core<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// What one call collects until the commit.
struct Step {
    now: Now,
    out: Vec<Output>,
    /// Nodes whose desired set or session moved: their outboxes are looked at before the commit.
    touched: BTreeSet<NodeId>,
    /// Nodes whose outboxes were looked at.
    pumped: BTreeSet<NodeId>,
    /// Connections whose sessions began.
    begun: BTreeSet<ConnId>,
}

impl Step {
    fn new(now: Now) -> Self {
        Self {
            now,
            out: Vec::new(),
            touched: BTreeSet::new(),
            pumped: BTreeSet::new(),
            begun: BTreeSet::new(),
        }
    }

    fn reply(&mut self, request: RequestId, reply: Result<Reply, ErrorBody>) {
        self.out.push(Output::Reply { request, reply });
    }

    /// Closes a connection that this step has not closed yet.
    fn close(&mut self, conn: ConnId, why: CloseWhy, reason: String) {
        let told = |output: &Output| matches!(output, Output::Close { conn: closed, .. } if *closed == conn);
        if !self.out.iter().any(told) {
            self.out.push(Output::Close { conn, why, reason });
        }
    }
}

/// How one input ended, apart from a store that failed.
enum Handled {
    /// Keep what it changed.
    Keep,
    /// Undo what it changed in the store; its outputs stand.
    Undo,
}

impl<S: Store> Core<S> {
    /// Starts a life on this store. `random` gives 16 fresh random bytes a call.
    pub fn start(
        mut store: S,
        mut config: CoreConfig,
        mut random: Box<dyn FnMut() -> [u8; 16] + Send>,
        now: Now,
    ) -> Result<Self, StoreError> {
        let life = LifeNonce::from_random(random());
        config.worker = format!("{}, life {life}", config.worker);
        store.begin()?;
        let epoch = match store.start_life(life, now.unix) {
            Ok(epoch) => epoch,
            Err(error) => {
                store.rollback();
                return Err(error);
            }
        };
        let nodes = store.nodes()?;
        info!(
            event = "orchestrator.life",
            epoch = epoch.0,
            "a new orchestrator life"
        );
        let mut core = Self {
            store,
            config,
            epoch,
            life,
            born: now,
            aging: aging::Aging::begin(now),
            random,
            sessions: BTreeMap::new(),
            live: BTreeMap::new(),
            absent: all_absent(nodes, now.mono),
            counters: BTreeMap::new(),
            rivals: BTreeMap::new(),
            next_session: 1,
            last_tick: now.mono,
            last_sweep: None,
            watches: BTreeMap::new(),
            rollouts_due: BTreeMap::new(),
            broken: None,
            full: false,
            behind: BTreeSet::new(),
            takes_local_pipelines: false,
            tally: Arc::default(),
            runs_open: true,
            runs_due: true,
            placing: runs::place::Placing::default(),
            claims_renewed: None,
            history: runs::history::History::default(),
            tries_ended: runs::TriesEnded::default(),
            deadlines: runs::deadlines::Deadlines::default(),
            schedules: schedules::Watched::default(),
        };
        core.inherit_claims(now.unix)?;
        core.store.commit()?;
        Ok(core)
    }

    /// Takes pipelines that run only in front of a person, too: this process hosts the edge as well.
    pub fn take_local_pipelines(&mut self) {
        self.takes_local_pipelines = true;
    }

    /// What it counts, to be read whenever somebody asks.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// This life's epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// This life's random name.
    pub fn life(&self) -> LifeNonce {
        self.life
    }

    /// Why this process must end: the disk failed in a way after which nothing that was written can be trusted until
    /// the file is opened anew. A full disk is not that.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// The store, for looking at it in tests and simulations.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// Gives the store back, as a crash would leave it.
    pub fn into_store(self) -> S {
        self.store
    }

    /// Handles everything that waits, in one transaction. Blocks for the disk.
    pub fn handle(&mut self, inputs: Vec<Input>, now: Now) -> Vec<Output> {
        let outputs = if self.full {
            self.handle_full(inputs, now)
        } else {
            self.round(inputs, now)
        };
        self.tally.disk_full.store(self.full, Ordering::Relaxed);
        outputs
    }

    fn round(&mut self, inputs: Vec<Input>, now: Now) -> Vec<Output> {
        let concerned = Concerned::of(&inputs);
        let mut step = Step::new(now);
        match self.try_handle(inputs, &mut step) {
            Ok(()) => step.out,
            Err(StoreError::Full) => {
                self.store.rollback();
                self.forget();
                self.handle_no_room(&concerned, &mut step);
                step.out
            }
            Err(error) => {
                // What the round closed is closed.
                step.out
                    .retain(|output| matches!(output, Output::Close { .. }));
                step.out.extend(self.fail(&concerned.asked, &error, now));
                for &conn in &concerned.opened {
                    step.close(conn, CloseWhy::Unavailable, error.to_string());
                }
                step.out
            }
        }
    }

    /// The store failed, and not for want of room: every session starts over, and where what was written cannot be
    /// trusted any more the process must end.
    fn fail(&mut self, asked: &[RequestId], error: &StoreError, now: Now) -> Vec<Output> {
        self.store.rollback();
        warn!(event = "store.failed", %error, "nothing of this round was kept");
        count(&self.tally.store_failures);
        if error.is_of_the_disk() || matches!(error, StoreError::Failed { .. }) {
            self.broken = Some(describe(error));
        }
        self.start_over(asked, error, now)
    }

    fn try_handle(&mut self, inputs: Vec<Input>, step: &mut Step) -> Result<(), StoreError> {
        self.store.begin()?;
        step.touched.append(&mut self.behind);
        self.placing.look = None;
        for input in inputs {
            if !matches!(&input, Input::Api { call, .. } if call.is_of_runs()) {
                self.placing.look = None;
            }
            let (conn, request) = (input.conn(), input.request());
            self.guarded(step, conn, request, |core, step| {
                core.handle_one(input, step)
            })?;
        }
        let mut evaluated = 0;
        // Evaluations write: on a full disk they wait.
        while !self.full && evaluated < EVALUATIONS_MAX {
            let mut claimed = None;
            self.guarded(step, None, None, |core, step| {
                claimed = core.claim(step)?;
                Ok(Handled::Keep)
            })?;
            let Some(evaluation) = claimed else { break };
            count(&self.tally.evaluations);
            // One that fails keeps its claim, so that it is tried again after the lease and holds up no other.
            self.guarded(step, None, None, |core, step| {
                core.evaluate_claimed(evaluation, step)
            })?;
            evaluated += 1;
        }
        if evaluated == EVALUATIONS_MAX {
            step.out.push(Output::Again);
        }
        self.evaluate_schedules(step)?;
        if (self.runs_due || self.placing.is_under_way()) && !self.full {
            self.guarded(step, None, None, |core, step| core.place_tasks(step))?;
        }
        if self.history.is_due() && !self.full {
            self.guarded(step, None, None, |core, step| core.sweep_history(step))?;
        }
        for node in std::mem::take(&mut step.touched) {
            step.pumped.insert(node);
            let conn = self.live.get(&node).copied();
            self.guarded(step, conn, None, |core, step| core.pump(node, step))?;
        }
        self.store.commit()?;
        let changes = self.store.take_changes();
        if !changes.is_empty() {
            let at = step.now.unix;
            step.out.push(Output::Changed { changes, at });
        }
        Ok(())
    }

    /// Runs one step within a savepoint. A failing store undoes the step, closes the connection it came from and
    /// answers its question; the rest goes on.
    fn guarded(
        &mut self,
        step: &mut Step,
        conn: Option<ConnId>,
        request: Option<RequestId>,
        run: impl FnOnce(&mut Self, &mut Step) -> Result<Handled, StoreError>,
    ) -> Result<(), StoreError> {
        self.store.savepoint()?;
        let outputs = step.out.len();
        match run(self, step) {
            Ok(Handled::Keep) => self.store.release(),
            Ok(Handled::Undo) => self.store.rollback_step(),
            // The disk is not what memory takes it for: nothing goes on, and nothing is tried again on this handle.
            Err(error) if error.is_of_the_disk() => Err(error),
            Err(error) => {
                // A full disk can make the store undo everything by itself, and concerns whoever comes next. After
                // any other failure to undo there is no step left, and no telling what is.
                if matches!(error, StoreError::Full) || self.store.rollback_step().is_err() {
                    return Err(error);
                }
                // A closing stands whatever the store does: the session is gone from memory already.
                let mut at = 0;
                step.out.retain(|output| {
                    at += 1;
                    at <= outputs || matches!(output, Output::Close { .. })
                });
                warn!(event = "store.failed", %error, "one step was undone");
                count(&self.tally.store_failures);
                self.forget();
                if let Some(conn) = conn {
                    self.drop_session(conn, step.now);
                    step.out.push(Output::Close {
                        conn,
                        why: CloseWhy::Unavailable,
                        reason: error.to_string(),
                    });
                }
                if let Some(request) = request {
                    step.reply(request, Err(store_error(&error)));
                }
                Ok(())
            }
        }
    }

    fn handle_one(&mut self, input: Input, step: &mut Step) -> Result<Handled, StoreError> {
        match input {
            Input::Opened { conn, peer } => {
                self.sessions
                    .insert(conn, Session::new(peer, step.now.mono));
                Ok(Handled::Keep)
            }
            Input::Frame { conn, frame } => self.handle_frame(conn, &frame, step),
            Input::Closed { conn } => {
                if let Some((node, seen_at)) = self.drop_session(conn, step.now) {
                    self.store.record_seen(node, seen_at)?;
                }
                Ok(Handled::Keep)
            }
            Input::Join {
                request,
                message,
                key,
            } => self.handle_join(request, &message, key, step),
            Input::CertificateIssued(issued) => self.handle_certificate(&issued, step),
            Input::Pull {
                request,
                conn,
                digest,
            } => {
                let allowed = self.may_pull(conn, digest)?;
                step.reply(request, Ok(Reply::Pull(allowed)));
                Ok(Handled::Keep)
            }
            Input::Api { request, call } => self.handle_api(request, *call, step),
            Input::Tick => self.handle_tick(step),
        }
    }

    fn handle_tick(&mut self, step: &mut Step) -> Result<Handled, StoreError> {
        let now = step.now.mono;
        // Our own stall is no edge's fault: the time we were away does not count as its silence.
        let gap = now.since(self.last_tick);
        self.last_tick = now;
        if gap > self.config.heartbeat {
            for session in self.sessions.values_mut() {
                session.forgive(gap);
            }
            for absent in self.absent.values_mut() {
                absent.since = absent.since.plus(gap);
            }
        }
        let silence_max = self.config.heartbeat * MISSED_HEARTBEATS_MAX;
        let late: Vec<(ConnId, &'static str)> = self
            .sessions
            .iter()
            .filter_map(|(&conn, session)| Some((conn, session.overdue(now, silence_max)?)))
            .collect();
        for (conn, reason) in late {
            if let Some((node, seen_at)) = self.drop_session(conn, step.now) {
                info!(event = "session.close", node = %node, reason);
                self.store.record_seen(node, seen_at)?;
            }
            step.out.push(Output::Close {
                conn,
                why: CloseWhy::Stalled,
                reason: reason.to_owned(),
            });
        }
        // The rest writes, and is done once there is room.
        if self.full {
            return Ok(Handled::Keep);
        }
        self.lose_nodes(step.now)?;
        let swept = self
            .last_sweep
            .is_none_or(|last| now.since(last) >= SWEEP_EVERY);
        if swept {
            self.last_sweep = Some(now);
            self.evaluate_all_jobs(step.now.unix)?;
            self.sweep_old(step.now)?;
        }
        self.evaluate_due_rollouts(step)?;
        self.tend_runs(swept, step)?;
        self.tend_schedules(swept, step.now.unix)?;
        Ok(Handled::Keep)
    }

    /// Marks the nodes that were away for too long, and has their jobs looked at.
    fn lose_nodes(&mut self, now: Now) -> Result<(), StoreError> {
        let late: Vec<NodeId> = self
            .absent
            .iter()
            .filter(|(_, absent)| {
                !absent.lost && now.mono.since(absent.since) >= self.config.lost_after
            })
            .map(|(&node, _)| node)
            .collect();
        for &node in &late {
            self.store.set_lost(node, Some(now.unix))?;
            let jobs: BTreeSet<JobId> = self
                .store
                .executions_of_node(node)?
                .into_iter()
                .map(|execution| execution.job)
                .collect();
            for job in jobs {
                self.evaluate_job(job, now.unix)?;
            }
            info!(event = "node.lost", node = %node, "not heard of for lost_after");
        }
        // Only now: a step that the store refused is undone, and the next tick does it again.
        for node in late {
            if let Some(absent) = self.absent.get_mut(&node) {
                absent.lost = true;
            }
        }
        Ok(())
    }

    /// Has every job looked at, those that are being deleted too.
    fn evaluate_all_jobs(&mut self, now: UnixMs) -> Result<(), StoreError> {
        for job in self.store.jobs(true)? {
            self.evaluate_job(job.id, now)?;
        }
        Ok(())
    }

    fn evaluate_job(&mut self, job: JobId, now: UnixMs) -> Result<(), StoreError> {
        // What changes a job's nodes may make room for a task.
        self.runs_due = true;
        let id = EvaluationId::from_random((self.random)());
        self.store.enqueue_evaluation(id, job, now)
    }

    /// Forgets a connection; when that was a node's live session, the node and when it was last heard of.
    fn drop_session(&mut self, conn: ConnId, now: Now) -> Option<(NodeId, UnixMs)> {
        let session = self.sessions.remove(&conn)?;
        let seen_at = session.last_heard_at().unwrap_or(now.unix);
        let node = session.peer.node;
        if self.live.get(&node) != Some(&conn) {
            return None;
        }
        self.live.remove(&node);
        count(&self.tally.sessions_closed);
        self.absent.insert(
            node,
            Absent {
                since: now.mono,
                lost: false,
            },
        );
        Some((node, seen_at))
    }

    /// After a failed commit: memory follows the disk, so every session starts anew and every question is refused.
    fn start_over(&mut self, asked: &[RequestId], error: &StoreError, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        self.forget();
        for absent in self.absent.values_mut() {
            absent.lost = false;
        }
        let conns: Vec<ConnId> = self.sessions.keys().copied().collect();
        for conn in conns {
            self.drop_session(conn, now);
            out.push(Output::Close {
                conn,
                why: CloseWhy::Unavailable,
                reason: error.to_string(),
            });
        }
        for &request in asked {
            out.push(Output::Reply {
                request,
                reply: Err(store_error(error)),
            });
        }
        // Who is connected lives in memory.
        out.push(Output::Changed {
            changes: Changes::everything(),
            at: now.unix,
        });
        out
    }

    fn node_state(&self, node: &NodeRecord) -> NodeState {
        if node.held.is_some() {
            NodeState::Held
        } else if self.live.contains_key(&node.id) {
            NodeState::Connected
        } else if node.lost_at.is_some() {
            NodeState::Lost
        } else {
            NodeState::Disconnected
        }
    }
}

/// Every node, away from now on.
fn all_absent(nodes: Vec<NodeRecord>, since: MonotonicMs) -> BTreeMap<NodeId, Absent> {
    let absent = |node: NodeRecord| {
        let lost = node.lost_at.is_some();
        (node.id, Absent { since, lost })
    };
    nodes.into_iter().map(absent).collect()
}

#[cfg(test)]
mod tests;
