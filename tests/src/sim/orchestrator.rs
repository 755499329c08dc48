//! The orchestrator's machine: its process, its disk, and what waits for it.

use std::collections::BTreeMap;

use sluice_host::core::{Core, CoreConfig, Input, Now, RequestId};
use sluice_host::store::{SqliteStore, StoreError};
use sluice_model::{Digest, ExecutionId, MonotonicMs, NodeId, UnixMs, Version};

use super::faults::Faults;
use super::random::Random;

/// When the virtual world begins: some day.
pub const UNIX_START_MS: i64 = 1_800_000_000_000;

/// Who waits for a reply.
#[derive(Clone, Debug)]
pub enum Asker {
    /// An operator's order about this job.
    Order(String),
    /// Somebody who looks at everything (I5).
    Look,
    /// A scenario.
    Script,
    /// What pulls outputs.
    Outputs,
    /// An edge that joins, in this life of its disk.
    Join {
        /// Which.
        edge: usize,
        /// Its life.
        life: u64,
    },
    /// The same edge's certificate, which leaves once it is on record.
    Certificate {
        /// Which.
        edge: usize,
        /// Its life.
        life: u64,
        /// What it is called now.
        node: NodeId,
    },
    /// A token for an edge is made.
    Token {
        /// Which.
        edge: usize,
        /// Its life.
        life: u64,
        /// The token's id and secret.
        token: Token,
    },
    /// An edge pulls a component.
    Pull {
        /// Which.
        edge: usize,
        /// Which process.
        boot: u64,
        /// What.
        digest: Digest,
    },
}

/// A join token as it was handed over.
#[derive(Clone, Copy, Debug)]
pub struct Token {
    /// Its id.
    pub id: [u8; 16],
    /// Its secret.
    pub secret: [u8; 32],
}

/// See the module.
pub struct Orchestrator {
    /// The process, while it runs.
    pub core: Option<Core<SqliteStore>>,
    /// The disk, while no process runs.
    pub disk: Option<SqliteStore>,
    /// The outputs on the disk, by digest.
    pub files: BTreeMap<Digest, Vec<u8>>,
    /// What is really on a disk that lies.
    pub(super) really: Option<SqliteStore>,
    /// What a disk that loses commits will be after the process.
    pub(super) forgets: Option<SqliteStore>,
    /// The disk's faults.
    pub faults: Faults,
    /// Counts process starts.
    pub boot: u64,
    /// Where this process's monotonic clock began, in virtual time.
    pub clock_start_ms: u64,
    /// What waits to be handled.
    pub inbox: Vec<Input>,
    /// When the inbox is looked at.
    pub wake_at: Option<u64>,
    /// It does nothing until then.
    pub stalled_until: u64,
    /// After the next outputs, only so many of them leave before it dies.
    pub dies_after_outputs: Option<u64>,
    /// Who waits for replies.
    pub askers: BTreeMap<RequestId, Asker>,
    last_request: u64,
    random: Random,
    config: CoreConfig,
}

impl std::fmt::Debug for Orchestrator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orchestrator")
            .field("boot", &self.boot)
            .finish_non_exhaustive()
    }
}

impl Orchestrator {
    /// A machine with an empty disk, not started.
    pub fn new(config: CoreConfig, random: Random) -> Result<Self, StoreError> {
        Ok(Self {
            core: None,
            disk: Some(SqliteStore::in_memory()?),
            files: BTreeMap::new(),
            really: None,
            forgets: None,
            faults: Faults::default(),
            boot: 0,
            clock_start_ms: 0,
            inbox: Vec::new(),
            wake_at: None,
            stalled_until: 0,
            dies_after_outputs: None,
            askers: BTreeMap::new(),
            last_request: 0,
            random,
            config,
        })
    }

    /// Starts a process on what is committed. Fails as a program would that cannot open its store.
    pub fn start(&mut self, now_ms: u64) -> Result<(), String> {
        let disk = self.disk.take().expect("started only when no process runs");
        // A copy, opened anew: what a machine finds after a crash, with every check that opening makes.
        let mut store = disk
            .fork()
            .map_err(|error| format!("what is committed cannot be opened: {error}"))?;
        self.boot += 1;
        self.faults.revive();
        store.set_fault_hook(Some(self.faults.host_hook()));
        let offset = self.random.below(1_000_000);
        self.clock_start_ms = now_ms.wrapping_sub(offset);
        let mut random = self.random.split();
        let started = Core::start(
            store,
            self.config.clone(),
            Box::new(move || random.bytes()),
            self.now(now_ms),
        );
        match started {
            Ok(core) => {
                self.core = Some(core);
                Ok(())
            }
            Err(error) => {
                // The store went with the failed start; nothing of it was committed, so the old copy is the disk.
                self.disk = Some(disk);
                Err(error.to_string())
            }
        }
    }

    /// The process is gone, whatever it was doing.
    pub fn stop(&mut self) {
        if let Some(core) = self.core.take() {
            let mut store = core.into_store();
            store.set_fault_hook(None);
            sluice_host::store::Store::rollback(&mut store);
            self.disk = Some(self.forgets.take().unwrap_or(store));
        }
        self.inbox.clear();
        self.wake_at = None;
        self.stalled_until = 0;
        self.dies_after_outputs = None;
    }

    /// Its clocks.
    pub fn now(&self, now_ms: u64) -> Now {
        Now {
            mono: MonotonicMs(now_ms.wrapping_sub(self.clock_start_ms)),
            unix: UnixMs(UNIX_START_MS + i64::try_from(now_ms).expect("virtual time is short")),
        }
    }

    /// Names a question.
    pub fn ask(&mut self, asker: Asker) -> RequestId {
        self.last_request += 1;
        let request = RequestId(self.last_request);
        self.askers.insert(request, asker);
        request
    }

    /// Looks at what is committed, whether a process runs or not; counted and failed by nobody.
    pub fn look<T>(
        &mut self,
        look: impl FnOnce(&mut SqliteStore) -> Result<T, StoreError>,
    ) -> Result<T, String> {
        self.faults.inspect(true);
        let store = match (&mut self.really, &mut self.core, &mut self.disk) {
            (Some(really), ..) => really,
            (None, Some(core), _) => core.store_mut(),
            (None, None, Some(disk)) => disk,
            (None, None, None) => {
                return Err("the orchestrator has neither process nor disk".to_owned());
            }
        };
        let seen = look(store).map_err(|error| error.to_string());
        self.faults.inspect(false);
        seen
    }
}

/// The newest row of every execution, for checking that none goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowSeen {
    /// Its node.
    pub node: NodeId,
    /// Its version.
    pub version: Version,
    /// Its attempt.
    pub attempt: sluice_model::Attempt,
    /// What it orders.
    pub desired: sluice_model::Desired,
}

/// Rows by execution.
pub type RowsSeen = BTreeMap<ExecutionId, RowSeen>;
