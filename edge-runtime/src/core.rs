//! The edge's core: a deterministic, synchronous state machine that owns the store.
//!
//! ```text
//!   inputs ----> begin -> handle each -> write what changed -> commit ----> outputs
//!                              |                                  |
//!                              |  disk full: undo all, keep what happened here for later, close the session
//!                              +- anything else fails: the program ends, and the next one reads what is on disk
//! ```
//!
//! Nothing is sent or started before it is true on disk, because outputs leave only after the commit. The core reads
//! no clock, draws no random number of its own, and knows neither tokio nor sockets: it can be simulated whole.

mod desired;
mod io;
mod load;
mod observed;
mod session;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use sluice_agent::{Action, Agent, Now};
use sluice_ledger::{Position, RowSet};
use sluice_model::{
    BootNonce, Digest, ExecutionId, Incarnation, Labels, MonotonicMs, NodeId, NodeName,
};

pub use io::{CloseWhy, ConnectionId, Event, Input, Output, Redial};

use crate::runner::Counters;
use crate::store::{Meta, Store, StoreError};
use session::Session;

/// How long after a full disk everything is tried again: soon enough to be back within a second or two of room being
/// made, seldom enough not to spin.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// What a core must be told about the process it lives in.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// Random; names this process start.
    pub boot_nonce: [u8; 16],
    /// Random; everything that the core draws comes from it.
    pub seed: [u8; 32],
    /// The program's version, for people.
    pub program: String,
    /// The node's labels.
    pub labels: Labels,
    /// What this edge has, as Hello tells it.
    pub capabilities: Vec<String>,
    /// The node's id and name, as its certificate and the orchestrator's last word say.
    pub node: Option<(NodeId, NodeName)>,
}

/// See the module.
#[derive(Debug)]
pub struct EdgeCore {
    store: Store,
    state: State,
    /// What happened on this machine while the disk was full: it is true, and must be written down later.
    retained: Vec<Input>,
    retry_at: Option<MonotonicMs>,
}

/// Everything that is not on disk, or a copy of what is. Cloned before each batch, so that a batch that cannot be
/// committed leaves no trace.
#[derive(Clone, Debug)]
struct State {
    options: CoreOptions,
    boot_nonce: BootNonce,
    meta: Meta,
    /// `meta` as it is on disk.
    meta_stored: Meta,
    desired: RowSet<Vec<u8>>,
    observed: RowSet<Vec<u8>>,
    agent: Agent,
    counters: BTreeMap<ExecutionId, Counters>,
    session: Session,
    /// Rows or specs were lost here: the next session starts with asking for all.
    wants_snapshot: bool,
    outputs: Vec<Output>,
}

impl EdgeCore {
    /// Loads the store and decides what to do first. Counts the boot, and mints the incarnation of a new store.
    pub fn open(
        mut store: Store,
        options: CoreOptions,
        now: Now,
    ) -> Result<(Self, Vec<Output>), StoreError> {
        let loaded = load::load(&mut store, options, now);
        let (state, outputs) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                store.rollback()?;
                return Err(error);
            }
        };
        let core = Self {
            store,
            state,
            retained: Vec::new(),
            retry_at: None,
        };
        Ok((core, outputs))
    }

    /// Handles a batch as one transaction. An error means that the program must end; a full disk is not one.
    pub fn handle(&mut self, inputs: Vec<Input>, now: Now) -> Result<Vec<Output>, StoreError> {
        let before = self.state.clone();
        let mut inputs = inputs;
        if !self.retained.is_empty() {
            let newer = std::mem::replace(&mut inputs, std::mem::take(&mut self.retained));
            inputs.extend(newer);
        }
        match self.commit(&inputs, now) {
            Ok(outputs) => {
                self.retry_at = None;
                Ok(outputs)
            }
            Err(error) if error.is_full() => {
                self.store.rollback()?;
                self.state = before;
                Ok(self.handle_full_disk(inputs, &error, now))
            }
            Err(error) => Err(error),
        }
    }

    fn commit(&mut self, inputs: &[Input], now: Now) -> Result<Vec<Output>, StoreError> {
        self.store.begin()?;
        for input in inputs {
            self.state.handle(&mut self.store, input, now)?;
        }
        self.state.flush(&mut self.store, now)?;
        self.store.commit()?;
        self.state.meta_stored = self.state.meta.clone();
        Ok(std::mem::take(&mut self.state.outputs))
    }

    fn handle_full_disk(
        &mut self,
        inputs: Vec<Input>,
        error: &StoreError,
        now: Now,
    ) -> Vec<Output> {
        let mut outputs = vec![Output::Event(Event::StoreTrouble {
            message: format!(
                "{error}: what runs keeps running, and nothing new is accepted until there is room"
            ),
        })];
        let new = inputs.iter().filter_map(|input| match input {
            Input::Connected { connection } => Some(*connection),
            _ => None,
        });
        for connection in self.state.session.connection().into_iter().chain(new) {
            let code = "disk-full";
            let message = error.to_string();
            let redial = Redial::Soon;
            let why = CloseWhy {
                code,
                message,
                redial,
            };
            outputs.push(Output::CloseSession { connection, why });
        }
        self.state.session = Session::None;
        self.retained = inputs.into_iter().filter(is_local_fact).collect();
        self.retry_at = Some(now.mono.plus(FULL_RETRY));
        outputs
    }

    /// The first frame of a connection, to be sent before [`Input::Connected`] says that there is one.
    pub fn hello(&self) -> Bytes {
        self.state.hello()
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<MonotonicMs> {
        let state = &self.state;
        [
            state.agent.next_deadline(),
            state.session.next_deadline(),
            self.retry_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Where the desired set stands on disk.
    pub fn desired_position(&self) -> Position {
        self.state.desired_position()
    }

    /// Where the observed set stands on disk.
    pub fn observed_position(&self) -> Position {
        self.state.observed_position()
    }

    /// The small facts on disk.
    pub fn meta(&self) -> &Meta {
        &self.state.meta
    }

    /// Whether a session has begun, and on which connection.
    pub fn session(&self) -> Option<ConnectionId> {
        self.state.session.begun()
    }

    /// What the agent holds, for looking at.
    pub fn agent(&self) -> &Agent {
        &self.state.agent
    }

    /// Whether the disk was full at the last try.
    pub fn waits_for_room(&self) -> bool {
        self.retry_at.is_some()
    }

    /// Whether the end of an execution waits for room: it cannot be had again.
    pub fn retains_an_end(&self) -> bool {
        let is_end = |input: &Input| matches!(input, Input::Ended { .. });
        self.retained.iter().any(is_end)
    }

    /// The components that may still be needed.
    pub fn components_in_use(&self) -> std::collections::BTreeSet<Digest> {
        self.state.agent.components_in_use()
    }

    /// What launches brought and may still be read.
    pub fn stdins_in_use(&self) -> std::collections::BTreeSet<Digest> {
        self.state.agent.stdins_in_use()
    }

    /// The store, for putting fault points in.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Ends this core as a crash would: whatever is not on disk is gone.
    pub fn into_store(self) -> Store {
        self.store
    }
}

/// Whether an input says what happened on this machine, so that dropping it would make the core wrong for ever.
fn is_local_fact(input: &Input) -> bool {
    match input {
        Input::Fetched { .. }
        | Input::Phase { .. }
        | Input::Prepared { .. }
        | Input::Running { .. }
        | Input::Ended { .. }
        | Input::Purged { .. }
        | Input::Disconnected { .. }
        | Input::ShuttingDown => true,
        Input::Connected { .. }
        | Input::Frame { .. }
        | Input::Tick
        | Input::Counters(_)
        | Input::Fetching { .. }
        | Input::Renew { .. } => false,
    }
}

impl State {
    fn handle(&mut self, store: &mut Store, input: &Input, now: Now) -> Result<(), StoreError> {
        match input.clone() {
            Input::Connected { connection } => self.handle_connected(connection, now),
            Input::Frame { connection, frame } => {
                self.handle_frame(store, connection, &frame, now)?;
            }
            Input::Disconnected { connection, why } => self.handle_disconnected(connection, why),
            Input::Tick => {
                self.agent.handle_tick(now);
                self.handle_session_tick(now);
            }
            Input::Counters(counters) => self.counters.extend(counters),
            Input::Renew { csr } => self.handle_renew(csr),
            Input::Fetching { digest, bytes } => self.agent.handle_fetching(digest, bytes, now),
            Input::Fetched { digest, result } => self.agent.handle_fetched(digest, result, now),
            Input::Phase { ticket, phase } => self.agent.handle_phase(ticket, phase, now),
            Input::Prepared { ticket, result } => self.agent.handle_prepared(ticket, result, now),
            Input::Running { ticket, counters } => {
                // What ran before at another version counted for itself.
                if let Some(execution) = self.agent.execution_of(ticket) {
                    self.counters.insert(execution, counters);
                }
                self.agent.handle_running(ticket, now);
            }
            Input::Ended {
                ticket,
                ending,
                counters,
            } => {
                if let Some(execution) = self.agent.execution_of(ticket) {
                    self.counters.insert(execution, counters);
                }
                self.agent.handle_ended(ticket, ending, now);
            }
            Input::Purged { execution, result } => {
                if result.is_ok() {
                    self.counters.remove(&execution);
                }
                self.agent.handle_purged(execution, result, now);
            }
            Input::ShuttingDown => self.agent.handle_shutdown(),
        }
        Ok(())
    }

    /// Writes down what changed, and turns what the agent and the outbox want into outputs.
    fn flush(&mut self, store: &mut Store, now: Now) -> Result<(), StoreError> {
        self.write_observed(store, now)?;
        store.put_meta(&self.meta_stored, &self.meta)?;
        self.send_observed(store, now)?;
        while let Some(action) = self.agent.poll_action() {
            let output = self.output_of(store, action)?;
            self.outputs.push(output);
        }
        Ok(())
    }

    fn output_of(&mut self, store: &mut Store, action: Action) -> Result<Output, StoreError> {
        Ok(match action {
            Action::Fetch { digest, size, kind } => Output::Fetch { digest, size, kind },
            Action::CancelFetch { digest } => Output::CancelFetch { digest },
            Action::Prepare { ticket, assignment } => {
                let digest = assignment.spec;
                let spec = store
                    .spec_checked(digest)?
                    .ok_or_else(|| StoreError::Changed {
                        what: format!("the pipeline's text {digest} is missing"),
                    })?;
                let spec = Bytes::from(spec);
                Output::Prepare {
                    ticket,
                    assignment,
                    spec,
                }
            }
            Action::Discard { ticket } => Output::Discard { ticket },
            Action::Start { ticket, assignment } => Output::Start { ticket, assignment },
            Action::Stop { ticket, execution } => Output::Stop { ticket, execution },
            Action::Purge { execution } => Output::Purge { execution },
        })
    }

    fn event(&mut self, event: Event) {
        self.outputs.push(Output::Event(event));
    }

    fn desired_position(&self) -> Position {
        Position {
            rev: self.meta.desired_rev,
            digest: self.desired.digest(),
        }
    }

    fn observed_position(&self) -> Position {
        Position {
            rev: self.meta.observed_rev,
            digest: self.observed.digest(),
        }
    }

    /// A store's life is named by chance, and by the boot that named it.
    fn mint_incarnation(&mut self) {
        let mut drawn = self.options.seed.to_vec();
        drawn.extend(self.options.boot_nonce);
        if let Some(before) = self.meta.incarnation {
            drawn.extend(before.to_bytes());
        }
        let hash = Digest::of(&drawn);
        let (first, _) = hash
            .as_bytes()
            .split_first_chunk::<16>()
            .expect("a SHA-256 has 32 bytes");
        self.meta.incarnation = Some(Incarnation::from_random(*first));
    }
}
