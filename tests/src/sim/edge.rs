//! An edge's machine: its disk, its process, and the work that its runner pretends to do.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use sluice_agent::{Assignment, Now, Ticket};
use sluice_edge_runtime::core::{CoreOptions, EdgeCore, Input, Output};
use sluice_edge_runtime::store::{Store, StoreError};
use sluice_model::{Digest, ExecutionId, Labels, MonotonicMs, NodeId, NodeName, UnixMs};

use super::faults::Faults;
use super::operators::Content;
use super::orchestrator::{Token, UNIX_START_MS};
use super::random::Random;

/// A certificate that does not end within a run.
pub(super) const CERTIFICATE_ENDS: UnixMs = UnixMs(i64::MAX / 2);

/// One that has ended before the run began.
pub(super) const CERTIFICATE_ENDED: UnixMs = UnixMs(UNIX_START_MS - 1);

/// What survives the process.
#[derive(Debug)]
pub struct Disk {
    /// Counts disks: a wiped machine has a new one.
    pub life: u64,
    /// The store, while no process runs; `None` while one does.
    pub store: Option<Connection>,
    /// The machine's key.
    pub key: [u8; 32],
    /// When the certificate ends.
    pub certificate_ends: UnixMs,
    /// Who it is, once it has joined.
    pub node: Option<NodeId>,
    /// A token to join with.
    pub token: Option<Token>,
    /// Components that are here.
    pub components: BTreeSet<Digest>,
    /// Executions with state.
    pub states: BTreeSet<ExecutionId>,
    /// What tries wrote.
    pub outputs: BTreeMap<ExecutionId, Vec<u8>>,
}

/// Where a piece of work stands in the runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Being prepared.
    Preparing,
    /// Prepared, not started.
    Ready,
    /// Started.
    Starting,
    /// Moving records.
    Running,
    /// Told to stop.
    Stopping,
}

impl Stage {
    /// Whether an instance lives.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Stopping)
    }
}

/// A piece of work in the runner.
#[derive(Clone, Debug)]
pub struct Work {
    /// What it was prepared from.
    pub assignment: Assignment,
    /// How it behaves.
    pub content: Content,
    /// Where it stands.
    pub stage: Stage,
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    /// The core.
    pub core: EdgeCore,
    /// Where its monotonic clock began, in virtual time.
    pub clock_start_ms: u64,
    /// What waits to be handled.
    pub inbox: Vec<Input>,
    /// When the inbox is looked at.
    pub wake_at: Option<u64>,
    /// When the core wants a tick.
    pub tick_at: Option<u64>,
    /// The runner's work.
    pub work: BTreeMap<Ticket, Work>,
    /// Components being fetched.
    pub fetching: BTreeSet<Digest>,
    /// The connection it uses.
    pub connection: Option<u64>,
    /// A dial is under way or will be.
    pub dialling: bool,
    /// Dials that failed in a row.
    pub failed_dials: u32,
    /// After the next outputs, only so many of them are carried out before it dies.
    pub dies_after_outputs: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Edge {
    /// Its name.
    pub name: NodeName,
    /// Its labels, as its configuration says now.
    pub labels: Labels,
    /// What its program can do, as it says; empty says nothing.
    pub capabilities: Vec<String>,
    /// Its disk.
    pub disk: Disk,
    /// The disk's faults.
    pub faults: Faults,
    /// What a disk that loses commits will be after the process.
    forgets: Option<Connection>,
    /// Its process.
    pub process: Option<Process>,
    /// Counts process starts, over all disks.
    pub boot: u64,
    /// A start is planned.
    pub starting: bool,
    /// Its network works.
    pub link_up: bool,
    /// Its wall clock is off by this.
    pub clock_skew_ms: i64,
    random: Random,
}

impl Edge {
    /// A machine with an empty disk.
    pub fn new(name: &str, labels: Labels, mut random: Random) -> Result<Self, String> {
        Ok(Self {
            name: name.parse().map_err(|error| format!("{name}: {error}"))?,
            labels,
            capabilities: Vec::new(),
            disk: Disk::empty(1, &mut random)?,
            faults: Faults::default(),
            forgets: None,
            process: None,
            boot: 0,
            starting: false,
            link_up: true,
            clock_skew_ms: 0,
            random,
        })
    }

    /// Everything on its disk is lost.
    pub fn wipe(&mut self) -> Result<(), String> {
        assert!(self.process.is_none(), "a machine is wiped while it is off");
        self.disk = Disk::empty(self.disk.life + 1, &mut self.random)?;
        Ok(())
    }

    /// The node that the store on the disk was of.
    pub(super) fn kept_node(&self) -> Option<NodeId> {
        let copy = copy_of(self.disk.store.as_ref()?).ok()?;
        let meta = Store::from_connection(copy).ok()?.meta().ok()?;
        meta.node.map(|(node, _)| node)
    }

    /// What was deleted and joins again is another node: its store is put aside, and it begins with an empty one.
    pub(super) fn put_store_aside(&mut self) -> Result<(), String> {
        assert!(
            self.process.is_none(),
            "a store is put aside before a start"
        );
        let Disk {
            life,
            node,
            key,
            token,
            ..
        } = self.disk;
        let ends = self.disk.certificate_ends;
        self.disk = Disk {
            node,
            key,
            token,
            certificate_ends: ends,
            ..Disk::empty(life, &mut self.random)?
        };
        Ok(())
    }

    /// A new key, and nobody's certificate. What was in the store stays.
    pub(super) fn forget_identity(&mut self) {
        self.disk.life += 1;
        self.disk.key = self.random.bytes();
        self.disk.certificate_ends = CERTIFICATE_ENDS;
        self.disk.node = None;
        self.disk.token = None;
    }

    /// Starts a process; it must have joined.
    pub fn start(&mut self, now_ms: u64) -> Result<Vec<Output>, StoreError> {
        let node = self.disk.node.expect("only a joined machine is started");
        // A failed start drops the store it was given, as a process does with its file; so it gets a copy, and the
        // disk stays what it was.
        let copy = {
            let disk = self.disk.store.as_ref().expect("no process has the store");
            copy_of(disk).map_err(|source| StoreError::Failed {
                doing: "copying the disk",
                source,
            })?
        };
        self.boot += 1;
        self.faults.revive();
        let mut store = Store::from_connection(copy)?;
        store.set_fault_point(Some(self.faults.edge_hook()));
        let clock_start_ms = now_ms.wrapping_sub(self.random.below(1_000_000));
        let options = CoreOptions {
            boot_nonce: self.random.bytes(),
            seed: self.random.bytes(),
            program: "simulated".to_owned(),
            labels: self.labels.clone(),
            capabilities: self.capabilities.clone(),
            node: Some((node, self.name.clone())),
        };
        let (core, outputs) = EdgeCore::open(store, options, self.now(clock_start_ms, now_ms))?;
        self.disk.store = None;
        self.process = Some(Process {
            core,
            clock_start_ms,
            inbox: Vec::new(),
            wake_at: None,
            tick_at: None,
            work: BTreeMap::new(),
            fetching: BTreeSet::new(),
            connection: None,
            dialling: false,
            failed_dials: 0,
            dies_after_outputs: None,
        });
        Ok(outputs)
    }

    /// The process is gone; what it had committed stays.
    pub fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            let mut store = process.core.into_store();
            store.set_fault_point(None);
            let disk = store.into_connection();
            if !disk.is_autocommit() {
                // What was not committed is gone; a copy of the disk would wait for it for ever.
                disk.execute_batch("ROLLBACK")
                    .expect("SQLite rolls back in memory");
            }
            self.disk.store = Some(self.forgets.take().unwrap_or(disk));
        }
    }

    /// What the next process commits will be lost when it ends.
    pub(super) fn will_forget(&mut self) {
        let disk = self.disk.store.as_ref().expect("no process has the store");
        self.forgets = Some(copy_of(disk).expect("SQLite copies in memory"));
    }

    /// A process's clocks.
    pub fn now(&self, clock_start_ms: u64, now_ms: u64) -> Now {
        let now = i64::try_from(now_ms).expect("virtual time is short");
        Now {
            mono: MonotonicMs(now_ms.wrapping_sub(clock_start_ms)),
            unix: UnixMs(UNIX_START_MS + now + self.clock_skew_ms),
        }
    }

    /// Looks at what its process has committed; counted and failed by nobody. `None` without a process.
    pub fn look<T>(
        &mut self,
        look: impl FnOnce(&mut Store) -> Result<T, StoreError>,
    ) -> Option<Result<T, String>> {
        let process = self.process.as_mut()?;
        self.faults.inspect(true);
        let seen = look(process.core.store_mut()).map_err(|error| error.to_string());
        self.faults.inspect(false);
        Some(seen)
    }
}

fn copy_of(disk: &Connection) -> Result<Connection, rusqlite::Error> {
    let mut copy = Connection::open_in_memory()?;
    rusqlite::backup::Backup::new(disk, &mut copy)?.run_to_completion(
        1 << 20,
        std::time::Duration::ZERO,
        None,
    )?;
    Ok(copy)
}

impl Disk {
    fn empty(life: u64, random: &mut Random) -> Result<Self, String> {
        Ok(Self {
            life,
            store: Some(Connection::open_in_memory().map_err(|error| error.to_string())?),
            key: random.bytes(),
            certificate_ends: CERTIFICATE_ENDS,
            node: None,
            token: None,
            components: BTreeSet::new(),
            states: BTreeSet::new(),
            outputs: BTreeMap::new(),
        })
    }
}
