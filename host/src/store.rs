//! The orchestrator's durable state, as verbs of the domain. Nobody above this trait sees SQL, a key, or a row number.
//!
//! Everything between [`Store::begin`] and [`Store::commit`] becomes true together or not at all. A savepoint undoes
//! one failed step without the rest. Implementations: [`SqliteStore`].

use std::collections::{BTreeMap, BTreeSet};

use sluice_ledger::{Position, SetDigest};
use sluice_model::{
    Attempt, BootCounter, BootNonce, Desired, Digest, Epoch, EvaluationId, ExecutionId, Fence,
    Incarnation, JobId, JobName, Labels, LifeNonce, NodeId, NodeName, Revision, Slot, TokenId,
    UnixMs, Version,
};
use sluice_protocol::{ObservedRow, OutcomeKey, Row};
use sluice_scheduler::RolloutRecord;

pub(crate) mod changes;
pub(crate) mod lists;
pub(crate) mod outputs;
pub(crate) mod runs;
pub(crate) mod schedules;
mod schema;
mod sqlite;
pub(crate) mod tokens;

pub use changes::{CHANGES_MAX, Changed, Changes};
pub use lists::{ListStore, Place};
pub use outputs::{OutputRecord, OutputStore, OutputTotals, OutputWhere};
pub use runs::{
    ActiveCounts, Kept, OPEN_TASKS_MAX, RunProgress, RunRecord, RunStore, RunsOf, SpentKey,
    TaskClaim, TaskEnd, TaskGroup, TaskLimits, TaskPhase, TaskRecord, Turn, WaitingOf,
};
pub use schedules::{ScheduleRecord, ScheduleStore, TickOf, TickRecord};
pub(crate) use schema::FORMAT;
pub(crate) use sqlite::whole::damages;
pub use sqlite::{FaultHook, SqliteStore};
pub use tokens::{ApiTokenRecord, AuditOf, EndedTokenRecord, TokenRecord, TokenStore};

/// What a store cannot do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room left: nothing was written; writes may work again later.
    #[error("the disk of the state directory is full")]
    Full,
    /// The file is not one of ours, is damaged, or is of a newer program.
    #[error("{problem}")]
    Unusable {
        /// What is wrong and the way out.
        problem: String,
    },
    /// The disk failed. The process must end: what is on it can only be known by opening the file again.
    #[error(
        "the disk of the state directory failed while it was tried to {action}: start the orchestrator again, and look \
         at the disk if that does not help"
    )]
    Disk {
        /// What was tried.
        action: &'static str,
        /// The library's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Reading or writing failed.
    #[error("the store failed while it tried to {action}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// The library's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A test asked for this.
    #[error("injected fault at {point}")]
    Injected {
        /// Where.
        point: &'static str,
    },
}

impl StoreError {
    /// Whether nothing that is known of the disk can be trusted any more, so that the process must end.
    pub fn is_of_the_disk(&self) -> bool {
        matches!(self, Self::Disk { .. } | Self::Unusable { .. })
    }
}

/// A registered edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its id; survives a wiped machine.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// The labels that it says it has, as of its last Begin; [`NodeRecord::labels_in_force`] are those that count.
    pub labels: Labels,
    /// SHA-256 of the public key that may speak as it.
    pub key: [u8; 32],
    /// When the newest certificate ends.
    pub certificate_expires_at: UnixMs,
    /// The process it last began a session with.
    pub boot: Option<(Incarnation, BootCounter, BootNonce)>,
    /// Its desired set.
    pub desired: Position,
    /// Its desired rows are on its disk up to here.
    pub received: Revision,
    /// When it last said so.
    pub last_ack_at: Option<UnixMs>,
    /// Its observed set, as far as it is on our disk.
    pub observed: Position,
    /// What proves that we lost something.
    pub held: Option<String>,
    /// Since when an operator keeps it out.
    pub revoked_at: Option<UnixMs>,
    /// When it joined.
    pub created_at: UnixMs,
    /// When its session last opened or closed.
    pub last_seen_at: Option<UnixMs>,
    /// The program's version as it says.
    pub program: Option<String>,
    /// The dialects it speaks.
    pub versions: Vec<u32>,
    /// What it has.
    pub capabilities: Vec<String>,
    /// What operators ordered of it.
    pub orders: NodeOrders,
    /// Since when it is lost; until its next Begin.
    pub lost_at: Option<UnixMs>,
    /// Executions of all jobs that are desired to run there.
    pub executions: u64,
}

impl NodeRecord {
    /// The labels that count: what operators set or took away, and else what the edge says.
    pub fn labels_in_force(&self) -> Labels {
        let mut labels = self.labels.clone();
        for (key, value) in &self.orders.labels {
            match value {
                Some(value) => labels.insert(key.clone(), value.clone()),
                None => labels.remove(key),
            };
        }
        labels
    }
}

/// What operators ordered of a node; holds until they order otherwise, over reconnects and wiped disks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeOrders {
    /// It takes no new executions.
    pub cordoned: bool,
    /// It takes none, and those it has are stopped.
    pub draining: bool,
    /// Labels that were set, or taken away.
    pub labels: BTreeMap<String, Option<String>>,
    /// How often something was ordered; shows that it was.
    pub count: u64,
}

/// What a Begin commits.
#[derive(Clone, Debug)]
pub struct BeginFacts {
    /// The node.
    pub node: NodeId,
    /// The edge's process.
    pub boot: (Incarnation, BootCounter, BootNonce),
    /// The life it agreed with now.
    pub epoch: Epoch,
    /// Its labels.
    pub labels: Labels,
    /// The program's version as it says.
    pub program: String,
    /// The dialects it speaks.
    pub versions: Vec<u32>,
    /// What it has.
    pub capabilities: Vec<String>,
    /// Now.
    pub now: UnixMs,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Its name.
    pub name: JobName,
    /// Its newest version.
    pub version: Version,
    /// That version's spec.
    pub spec: Digest,
    /// Stopped by an operator.
    pub stopped: bool,
    /// Deleted; its name is free, its executions are being purged.
    pub deleted: bool,
    /// When it was first deployed.
    pub created_at: UnixMs,
    /// When its newest version was.
    pub updated_at: UnixMs,
}

/// One of a job's kept versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionRecord {
    /// The version.
    pub version: Version,
    /// Its spec.
    pub spec: Digest,
    /// When it was made.
    pub created_at: UnixMs,
    /// How it came about.
    pub origin: VersionOrigin,
    /// It went to every node at once, or its rollout ended well.
    pub good: bool,
}

/// How a version came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionOrigin {
    /// It was deployed.
    Deploy,
    /// It took an older one's content again.
    Rollback {
        /// Whose.
        to: Version,
        /// Why, or on whose order.
        reason: String,
    },
}

/// An execution with its assignment row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutionRecord {
    /// Its id.
    pub id: ExecutionId,
    /// Its job.
    pub job: JobId,
    /// Its node.
    pub node: NodeId,
    /// Its slot.
    pub slot: Slot,
    /// The version its row names.
    pub version: Version,
    /// The attempt its row names.
    pub attempt: Attempt,
    /// What its row orders.
    pub desired: Desired,
    /// The spec its row names.
    pub spec: Digest,
    /// The node's revision that its row was committed at.
    pub rev: Revision,
    /// When it was made.
    pub created_at: UnixMs,
    /// When its row was committed.
    pub changed_at: UnixMs,
    /// Its node was lost and its place given away; a new row ends that.
    pub replaced: bool,
    /// It must not run a second time when nobody can tell whether it has ended.
    pub once: bool,
}

/// A node's desired rows after a revision.
#[derive(Clone, Debug, Default)]
pub struct DesiredChange {
    /// Rows that are new or changed, each with the spec it names when it orders `run`.
    pub upserts: Vec<(Row, Option<Digest>)>,
    /// Keys of rows that are gone.
    pub removed: Vec<Vec<u8>>,
}

/// What a claimed evaluation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// Its id.
    pub id: EvaluationId,
    /// The job to look at.
    pub job: JobId,
    /// Proves the claim; a later claim has a higher one.
    pub fence: Fence,
}

/// What the store knows of an orchestrator life that an edge names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifeRecord {
    /// Never heard of.
    Unknown,
    /// One of ours.
    Known {
        /// The node's revision when the next life started; `None` for the newest life.
        floor: Option<Revision>,
    },
}

/// The durable state. Not one call here reads a clock or draws a random number. Every call may block for the disk.
pub trait Store: RunStore + OutputStore + ScheduleStore + ListStore + TokenStore {
    /// Starts collecting changes.
    fn begin(&mut self) -> Result<(), StoreError>;
    /// Makes all collected changes true together, on disk.
    fn commit(&mut self) -> Result<(), StoreError>;
    /// Forgets all collected changes. Never fails: what cannot be undone is found undone when the store is opened.
    fn rollback(&mut self);
    /// Marks a step within the collected changes.
    fn savepoint(&mut self) -> Result<(), StoreError>;
    /// Keeps the step.
    fn release(&mut self) -> Result<(), StoreError>;
    /// Forgets the step.
    fn rollback_step(&mut self) -> Result<(), StoreError>;
    /// Takes what the transaction changed, apart from steps that were undone. After [`Store::commit`] all of it is true.
    fn take_changes(&mut self) -> Changes;
    /// Changes something of no meaning, to learn with the commit whether there is room on the disk.
    fn probe(&mut self) -> Result<(), StoreError>;

    /// Starts an orchestrator life: its epoch is above every stored one; each node's revision becomes the floor of
    /// the life before.
    fn start_life(&mut self, nonce: LifeNonce, now: UnixMs) -> Result<Epoch, StoreError>;
    /// What is known of a life, for this node.
    fn life(
        &mut self,
        epoch: Epoch,
        nonce: LifeNonce,
        node: NodeId,
    ) -> Result<LifeRecord, StoreError>;

    /// A node by id.
    fn node(&mut self, id: NodeId) -> Result<Option<NodeRecord>, StoreError>;
    /// A node by name.
    fn node_by_name(&mut self, name: &NodeName) -> Result<Option<NodeRecord>, StoreError>;
    /// Every node, by name.
    fn nodes(&mut self) -> Result<Vec<NodeRecord>, StoreError>;
    /// Registers a node.
    fn insert_node(&mut self, node: &NodeRecord) -> Result<(), StoreError>;
    /// Gives a node a new key after a wipe: its boot, received and observed positions and its reports start over.
    fn rekey_node(
        &mut self,
        id: NodeId,
        key: [u8; 32],
        expires_at: UnixMs,
    ) -> Result<(), StoreError>;
    /// Keeps a node out from now on, until it gets a new key.
    fn revoke_node(&mut self, id: NodeId, now: UnixMs) -> Result<(), StoreError>;
    /// Forgets a node with its executions, rows and reports, and remembers until `until` that its certificate is one
    /// of a deleted node. Of those the ones that end first are forgotten when there are very many.
    fn delete_node(&mut self, id: NodeId, until: UnixMs) -> Result<(), StoreError>;
    /// The name of a deleted node that is still remembered.
    fn deleted_node(&mut self, id: NodeId) -> Result<Option<NodeName>, StoreError>;
    /// Forgets deleted nodes that were to be remembered until before `now`.
    fn sweep_deleted_nodes(&mut self, now: UnixMs) -> Result<(), StoreError>;
    /// The newest certificate of a node ends then.
    fn record_certificate(&mut self, id: NodeId, expires_at: UnixMs) -> Result<(), StoreError>;
    /// A session began. With another incarnation than before, the node's reports start over.
    fn record_begin(&mut self, facts: &BeginFacts) -> Result<(), StoreError>;
    /// A session opened or closed.
    fn record_seen(&mut self, id: NodeId, now: UnixMs) -> Result<(), StoreError>;
    /// Keeps what operators ordered of a node.
    fn set_orders(&mut self, id: NodeId, orders: &NodeOrders) -> Result<(), StoreError>;
    /// The node is lost since then, or no longer.
    fn set_lost(&mut self, id: NodeId, since: Option<UnixMs>) -> Result<(), StoreError>;
    /// The node is held from now on.
    fn hold_node(&mut self, id: NodeId, reason: &str) -> Result<(), StoreError>;
    /// The node's rows are on its disk up to `rev`.
    fn record_received(&mut self, id: NodeId, rev: Revision, now: UnixMs)
    -> Result<(), StoreError>;

    /// Keeps a spec's bytes under their digest.
    fn put_spec(&mut self, digest: Digest, bytes: &[u8]) -> Result<(), StoreError>;
    /// A spec's bytes.
    fn spec(&mut self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError>;

    /// A live (not deleted) job by name.
    fn job_by_name(&mut self, name: &JobName) -> Result<Option<JobRecord>, StoreError>;
    /// A job by id, deleted ones too.
    fn job(&mut self, id: JobId) -> Result<Option<JobRecord>, StoreError>;
    /// Every version's spec that a job or a row still names, for keeping components.
    fn specs_in_use(&mut self) -> Result<Vec<Digest>, StoreError>;
    /// Every live job by name, or with `deleted` also those that are being purged.
    fn jobs(&mut self, deleted: bool) -> Result<Vec<JobRecord>, StoreError>;
    /// A new job at version 1.
    fn insert_job(&mut self, job: &JobRecord) -> Result<(), StoreError>;
    /// A new version of a job; also starts it.
    fn insert_version(
        &mut self,
        id: JobId,
        version: Version,
        spec: Digest,
        origin: &VersionOrigin,
        now: UnixMs,
    ) -> Result<(), StoreError>;
    /// Stops or starts a job.
    fn set_stopped(&mut self, id: JobId, stopped: bool) -> Result<(), StoreError>;
    /// Frees a job's name and has its executions purged.
    fn delete_job(&mut self, id: JobId) -> Result<(), StoreError>;
    /// Forgets a deleted job of which no execution is left.
    fn forget_job(&mut self, id: JobId) -> Result<(), StoreError>;
    /// The specs of a job's newest `count` versions, newest first.
    fn versions(&mut self, id: JobId, count: usize) -> Result<Vec<(Version, Digest)>, StoreError>;

    /// A version is good from now on: nothing holds it back from any node.
    fn mark_good(&mut self, id: JobId, version: Version) -> Result<(), StoreError>;
    /// The versions of a job that are kept, newest first.
    fn history(&mut self, id: JobId) -> Result<Vec<VersionRecord>, StoreError>;
    /// Keeps a job's rollout in the place of the one before.
    fn put_rollout(&mut self, job: JobId, record: &RolloutRecord) -> Result<(), StoreError>;
    /// A job's newest rollout, ended ones too.
    fn rollout(&mut self, job: JobId) -> Result<Option<RolloutRecord>, StoreError>;
    /// Forgets a job's rollout: its newest version went to every node at once.
    fn remove_rollout(&mut self, job: JobId) -> Result<(), StoreError>;

    /// Has a job looked at; there is at most one evaluation for each job, and a claim on it ends.
    fn enqueue_evaluation(
        &mut self,
        id: EvaluationId,
        job: JobId,
        now: UnixMs,
    ) -> Result<(), StoreError>;
    /// Takes the oldest evaluation that nobody has claimed, or whose claim has run out.
    fn claim_evaluation(
        &mut self,
        worker: &str,
        now: UnixMs,
        until: UnixMs,
    ) -> Result<Option<Evaluation>, StoreError>;
    /// Ends a claimed evaluation; `false` when the claim was taken over.
    fn finish_evaluation(&mut self, evaluation: Evaluation) -> Result<bool, StoreError>;

    /// A job's executions, by id.
    fn executions_of_job(&mut self, job: JobId) -> Result<Vec<ExecutionRecord>, StoreError>;
    /// A node's executions, by id.
    fn executions_of_node(&mut self, node: NodeId) -> Result<Vec<ExecutionRecord>, StoreError>;
    /// An execution.
    fn execution(&mut self, id: ExecutionId) -> Result<Option<ExecutionRecord>, StoreError>;
    /// Commits an execution's new row: the node's desired set moves on by one revision. `execution.rev` is ignored.
    fn put_assignment(
        &mut self,
        execution: &ExecutionRecord,
        row: &[u8],
    ) -> Result<Position, StoreError>;
    /// An execution's place was given away, or is its own again. Its row stays as it is.
    fn set_replaced(&mut self, id: ExecutionId, replaced: bool) -> Result<(), StoreError>;
    /// Takes an execution and its row away: the node's desired set moves on by one revision.
    fn remove_assignment(&mut self, id: ExecutionId) -> Result<Position, StoreError>;
    /// A node's desired set: where it stands.
    fn desired_position(&mut self, node: NodeId) -> Result<Position, StoreError>;
    /// A node's rows changed after `base`, or all of them where `base` is `None`. `Ok(None)` when removals after `base`
    /// have been forgotten: only a snapshot helps.
    fn desired_after(
        &mut self,
        node: NodeId,
        base: Option<Revision>,
    ) -> Result<Option<DesiredChange>, StoreError>;
    /// Forgets removals that a node has on disk.
    fn forget_removals(&mut self, node: NodeId, received: Revision) -> Result<(), StoreError>;

    /// Starts a node's reports over.
    fn clear_observed(&mut self, node: NodeId) -> Result<(), StoreError>;
    /// A live row that an edge reported.
    fn put_observed(
        &mut self,
        node: NodeId,
        execution: ExecutionId,
        bytes: &[u8],
    ) -> Result<(), StoreError>;
    /// A live row is gone.
    fn remove_observed(&mut self, node: NodeId, execution: ExecutionId) -> Result<(), StoreError>;
    /// The digest of a node's live rows, computed from what is stored.
    fn observed_digest(&mut self, node: NodeId) -> Result<SetDigest, StoreError>;
    /// The executions that a node's live rows are about.
    fn observed_ids(&mut self, node: NodeId) -> Result<BTreeSet<ExecutionId>, StoreError>;
    /// How many live rows a node has reported, and how many assignment rows it has.
    fn row_counts(&mut self, node: NodeId) -> Result<(u64, u64), StoreError>;
    /// The node's reports are on disk up to there.
    fn set_observed_position(&mut self, node: NodeId, position: Position)
    -> Result<(), StoreError>;
    /// An outcome; `false` when it was recorded before.
    fn put_outcome(
        &mut self,
        node: NodeId,
        row: &ObservedRow,
        bytes: &[u8],
    ) -> Result<bool, StoreError>;
    /// What a node reports of an execution, as far as this program can read it. A node's reports are its own: it cannot touch another node's.
    fn observed(
        &mut self,
        node: NodeId,
        execution: ExecutionId,
    ) -> Result<Option<ObservedRow>, StoreError>;
    /// The outcome of an attempt.
    fn outcome(&mut self, key: OutcomeKey) -> Result<Option<ObservedRow>, StoreError>;

    /// Whether this key joined with this token before: an answer that got lost may be asked for again.
    fn joined_with(&mut self, token: TokenId, key: [u8; 32]) -> Result<Option<NodeId>, StoreError>;
    /// This key joined with this token.
    fn record_join(
        &mut self,
        token: TokenId,
        key: [u8; 32],
        node: NodeId,
        now: UnixMs,
    ) -> Result<(), StoreError>;
}
