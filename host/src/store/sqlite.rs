//! The embedded engine: one SQLite file, write-ahead log, every commit on disk before it returns.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{Connection, params};
use sluice_ledger::{Position, RowHash, SetDigest};
use sluice_model::{
    Desired, Digest, Epoch, EvaluationId, ExecutionId, Fence, JobId, JobName, LifeNonce, NodeId,
    NodeName, Revision, TokenId, UnixMs, Version,
};
use sluice_protocol::{AssignmentRow, ObservedRow, OutcomeKey, Row};
use sluice_scheduler::RolloutRecord;
use sluice_state_dir::failpoint::Steps;

use super::changes::{Changes, Mark};
use super::schema::{DELETED_NODES_MAX, FLOORS_KEPT, FORMAT, REMOVALS_MAX, TABLES, VERSIONS_KEPT};
use super::{
    BeginFacts, DesiredChange, Evaluation, ExecutionRecord, JobRecord, LifeRecord, NodeOrders,
    NodeRecord, Store, StoreError, VersionOrigin, VersionRecord,
};

mod changes;
mod lists;
mod outputs;
mod rows;
mod runs;
mod schedules;
mod steps;
mod tokens;
pub(super) mod whole;

use rows::{
    EXECUTION_COLUMNS, JOB_COLUMNS, NODE_COLUMNS, blob, bytes, counter, int, json, read_execution,
    read_job, read_node, read_observed, select, text, time, to_json, wrong,
};

/// Called before every step with its name; an error makes the step fail. For simulations of bad disks.
pub type FaultHook = Box<dyn FnMut(&'static str) -> Result<(), StoreError> + Send>;

/// Statements kept prepared: more than there are.
const STATEMENTS_MAX: usize = 128;

/// The store in one SQLite file.
pub struct SqliteStore {
    connection: Connection,
    fault: Option<FaultHook>,
    steps: Steps,
    /// Something was changed since the transaction began.
    changed: bool,
    /// What of that people see.
    told: Changes,
    /// Where it stood when the step began.
    told_before: Mark,
    #[cfg(test)]
    work: u64,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

fn failed(action: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |source| match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full,
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
            StoreError::Unusable {
                problem: format!(
                    "the orchestrator's store is damaged (while it tried to {action}: {source}); restore the state \
                 directory from a backup, or start with an empty one and let the edges be adopted"
                ),
            }
        }
        Some(
            rusqlite::ErrorCode::SystemIoFailure
            | rusqlite::ErrorCode::CannotOpen
            | rusqlite::ErrorCode::ReadOnly,
        ) => StoreError::Disk {
            action,
            source: Box::new(source),
        },
        _ => StoreError::Failed {
            action,
            source: Box::new(source),
        },
    }
}

impl SqliteStore {
    /// Opens the file, or makes it. Refuses a file of a newer program or one that fails SQLite's own check.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open(path).map_err(failed("open the store"))?;
        Self::prepare(connection)
    }

    /// A store in memory, for tests and simulations.
    pub fn in_memory() -> Result<Self, StoreError> {
        let connection = Connection::open_in_memory().map_err(failed("open a store in memory"))?;
        Self::prepare(connection)
    }

    /// Has every step ask `hook` first.
    pub fn set_fault_hook(&mut self, hook: Option<FaultHook>) {
        self.fault = hook;
    }

    /// A copy of what is committed, as a machine would find it after a crash. For simulations.
    pub fn fork(&self) -> Result<Self, StoreError> {
        let mut copy = Connection::open_in_memory().map_err(failed("open a store in memory"))?;
        {
            let backup = rusqlite::backup::Backup::new(&self.connection, &mut copy)
                .map_err(failed("copy the store"))?;
            backup
                .run_to_completion(1 << 20, std::time::Duration::ZERO, None)
                .map_err(failed("copy the store"))?;
        }
        Self::prepare(copy)
    }

    fn prepare(connection: Connection) -> Result<Self, StoreError> {
        let action = "set the store up";
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        // One process has the file; without a shared index there is nothing beside it that could fail to grow.
        connection
            .pragma_update(None, "locking_mode", "EXCLUSIVE")
            .map_err(failed(action))?;
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .map_err(failed(action))?;
        connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(failed(action))?;
        connection
            .pragma_update(None, "foreign_keys", true)
            .map_err(failed(action))?;
        let format: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(failed(action))?;
        if format > FORMAT {
            return Err(StoreError::Unusable {
                problem: format!(
                    "the orchestrator's store has format {format}, this program knows up to {FORMAT}: start the \
                     newer program again"
                ),
            });
        }
        if format == 0 {
            connection
                .execute_batch(&format!(
                    "BEGIN; {TABLES} PRAGMA user_version = {FORMAT}; COMMIT;"
                ))
                .map_err(failed(action))?;
        } else {
            let verdict: String = connection
                .pragma_query_value(None, "quick_check", |row| row.get(0))
                .map_err(failed("check the store"))?;
            if verdict != "ok" {
                return Err(StoreError::Unusable {
                    problem: format!(
                        "the orchestrator's store is damaged ({verdict}); restore the state directory from a \
                         backup, or start with an empty one and let the edges be adopted"
                    ),
                });
            }
        }
        let damages = whole::damages(&connection).map_err(failed("check what is kept"))?;
        if !damages.is_empty() {
            return Err(StoreError::Unusable {
                problem: format!(
                    "the orchestrator's store is damaged: {}; restore the state directory from a backup, or start with an \
                     empty one and let the edges be adopted",
                    damages.join("; ")
                ),
            });
        }
        Ok(Self {
            connection,
            fault: None,
            steps: Steps::default(),
            changed: false,
            told: Changes::default(),
            told_before: Mark::default(),
            #[cfg(test)]
            work: 0,
        })
    }

    /// Forgets those of the next `count` specs behind a digest that nothing names.
    fn forget_specs(&mut self, after: &[u8], count: i64) -> Result<(), StoreError> {
        self.execute(
            "forget specs that nothing names",
            "DELETE FROM spec WHERE digest IN (SELECT digest FROM spec WHERE digest > ?1 ORDER BY digest LIMIT ?2)
                AND NOT EXISTS (SELECT 1 FROM job WHERE job.spec = spec.digest)
                AND NOT EXISTS (SELECT 1 FROM job_version WHERE job_version.spec = spec.digest)
                AND NOT EXISTS (SELECT 1 FROM execution WHERE execution.spec = spec.digest)
                AND NOT EXISTS (SELECT 1 FROM task WHERE task.spec = spec.digest AND phase <> 'ended')
                AND NOT EXISTS (SELECT 1 FROM rollout WHERE good_spec = spec.digest)",
            params![after, count],
        )?;
        Ok(())
    }

    /// Keeps a node's number of executions that are desired to run, when one of them was or is such.
    fn count_runs(&mut self, node: NodeId, ran: bool, runs: bool) -> Result<(), StoreError> {
        if ran == runs {
            return Ok(());
        }
        self.execute(
            "count a node's executions",
            "UPDATE node SET executions = executions + ?2 WHERE id = ?1",
            params![blob(node.to_bytes()), if runs { 1 } else { -1 }],
        )?;
        Ok(())
    }

    /// Moves a node's desired set on by one revision with one row exchanged.
    fn advance(
        &mut self,
        node: NodeId,
        old: Option<RowHash>,
        new: Option<RowHash>,
    ) -> Result<Position, StoreError> {
        let mut position = self.desired_position(node)?;
        position.rev = position.rev.next();
        if let Some(old) = old {
            position.digest = position.digest.without(old);
        }
        if let Some(new) = new {
            position.digest = position.digest.with(new);
        }
        self.execute(
            "move a node's desired set on",
            "UPDATE node SET desired_rev = ?2, desired_digest = ?3 WHERE id = ?1",
            params![
                blob(node.to_bytes()),
                int(position.rev.0),
                position.digest.to_bytes().to_vec()
            ],
        )?;
        Ok(position)
    }
}

impl Store for SqliteStore {
    fn begin(&mut self) -> Result<(), StoreError> {
        self.fault("begin")?;
        self.steps.begin();
        self.changed = false;
        self.told = Changes::default();
        self.connection
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(failed("begin a transaction"))
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        // Only what changed something needs the disk.
        self.fault(if self.changed {
            "commit"
        } else {
            "commit nothing"
        })?;
        self.steps.written();
        self.connection
            .execute_batch("COMMIT")
            .map_err(failed("commit"))?;
        self.steps.committed();
        Ok(())
    }

    fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.told)
    }

    fn rollback(&mut self) {
        self.told = Changes::default();
        if !self.connection.is_autocommit() {
            // A failed rollback leaves a transaction that was never committed, which is what was asked for.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    fn savepoint(&mut self) -> Result<(), StoreError> {
        self.told_before = self.told.mark();
        self.connection
            .execute_batch("SAVEPOINT step")
            .map_err(failed("mark a step"))
    }

    fn release(&mut self) -> Result<(), StoreError> {
        self.connection
            .execute_batch("RELEASE step")
            .map_err(failed("keep a step"))
    }

    fn rollback_step(&mut self) -> Result<(), StoreError> {
        self.told.back_to(self.told_before);
        self.connection
            .execute_batch("ROLLBACK TO step; RELEASE step")
            .map_err(failed("undo a step"))
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        self.execute(
            "look for room",
            "UPDATE life SET started_at = started_at WHERE epoch = (SELECT max(epoch) FROM life)",
            [],
        )?;
        Ok(())
    }

    fn start_life(&mut self, nonce: LifeNonce, now: UnixMs) -> Result<Epoch, StoreError> {
        let action = "start a life";
        let last = self
            .one(action, "SELECT max(epoch) FROM life", [], |row| {
                row.get::<_, Option<i64>>(0)
            })?
            .flatten()
            .unwrap_or(0);
        self.execute(
            action,
            "INSERT INTO life_floor (node, epoch, rev)
             SELECT id, ?1, desired_rev FROM node
             WHERE desired_rev IS NOT (SELECT rev FROM life_floor WHERE node = id ORDER BY epoch DESC LIMIT 1)",
            [last],
        )?;
        self.execute(
            action,
            "INSERT INTO life (epoch, nonce, started_at) VALUES (?1, ?2, ?3)",
            params![last + 1, blob(nonce.to_bytes()), now.0],
        )?;
        u64::try_from(last + 1)
            .map(Epoch)
            .map_err(|source| StoreError::Failed {
                action,
                source: Box::new(source),
            })
    }

    fn life(
        &mut self,
        epoch: Epoch,
        nonce: LifeNonce,
        node: NodeId,
    ) -> Result<LifeRecord, StoreError> {
        let action = "look a life up";
        let Ok(asked) = i64::try_from(epoch.0) else {
            return Ok(LifeRecord::Unknown);
        };
        let known = self.one(
            action,
            "SELECT epoch = (SELECT max(epoch) FROM life) FROM life WHERE epoch = ?1 AND nonce = ?2",
            params![asked, blob(nonce.to_bytes())],
            |row| row.get::<_, bool>(0),
        )?;
        match known {
            None => Ok(LifeRecord::Unknown),
            Some(true) => Ok(LifeRecord::Known { floor: None }),
            Some(false) => {
                // The newest entry up to this life: it holds until the next one differs. A node that joined in this
                // life or later has none before, and then the first one after its joining is its floor.
                let floor = self.one(
                    action,
                    "SELECT coalesce(
                        (SELECT rev FROM life_floor WHERE node = ?1 AND epoch <= ?2 ORDER BY epoch DESC LIMIT 1), 0)",
                    params![blob(node.to_bytes()), asked],
                    |row| counter(row, 0),
                )?;
                Ok(LifeRecord::Known {
                    floor: Some(Revision(floor.unwrap_or(0))),
                })
            }
        }
    }

    fn node(&mut self, id: NodeId) -> Result<Option<NodeRecord>, StoreError> {
        let sql = select(NODE_COLUMNS, "node WHERE id = ?1");
        self.one("read a node", &sql, [blob(id.to_bytes())], read_node)
    }

    fn node_by_name(&mut self, name: &NodeName) -> Result<Option<NodeRecord>, StoreError> {
        let sql = select(NODE_COLUMNS, "node WHERE name = ?1");
        self.one("read a node", &sql, [name.as_str()], read_node)
    }

    fn nodes(&mut self) -> Result<Vec<NodeRecord>, StoreError> {
        let sql = select(NODE_COLUMNS, "node ORDER BY name");
        self.all("list nodes", &sql, [], read_node)
    }

    fn insert_node(&mut self, node: &NodeRecord) -> Result<(), StoreError> {
        self.execute(
            "register a node",
            "INSERT INTO node (id, name, labels, key, certificate_expires_at, desired_digest, observed_digest, held,
                created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8)",
            params![
                blob(node.id.to_bytes()),
                node.name.as_str(),
                to_json(&node.labels),
                blob(node.key),
                node.certificate_expires_at.0,
                blob(SetDigest::EMPTY.to_bytes()),
                node.held,
                node.created_at.0
            ],
        )?;
        self.note_node(node.id)
    }

    fn rekey_node(
        &mut self,
        id: NodeId,
        key: [u8; 32],
        expires_at: UnixMs,
    ) -> Result<(), StoreError> {
        self.execute(
            "give a node a new key",
            "UPDATE node SET key = ?2, certificate_expires_at = max(certificate_expires_at, ?3), incarnation = NULL, boot_counter = 0,
                boot_nonce = NULL, received_rev = 0, held = NULL, revoked_at = NULL WHERE id = ?1",
            params![blob(id.to_bytes()), blob(key), expires_at.0],
        )?;
        self.note_node(id)?;
        self.clear_observed(id)
    }

    fn revoke_node(&mut self, id: NodeId, now: UnixMs) -> Result<(), StoreError> {
        self.execute(
            "revoke a node",
            "UPDATE node SET revoked_at = coalesce(revoked_at, ?2), order_count = order_count + 1 WHERE id = ?1",
            params![blob(id.to_bytes()), now.0],
        )?;
        self.note_node(id)
    }

    fn delete_node(&mut self, id: NodeId, until: UnixMs) -> Result<(), StoreError> {
        self.note_node(id)?;
        let action = "delete a node";
        let key = blob(id.to_bytes());
        self.execute(
            action,
            "INSERT OR REPLACE INTO deleted_node (id, name, until) SELECT id, name, ?2 FROM node WHERE id = ?1",
            params![key, until.0],
        )?;
        self.execute(
            action,
            "DELETE FROM deleted_node WHERE id IN (SELECT id FROM deleted_node ORDER BY until DESC LIMIT -1 OFFSET ?1)",
            [DELETED_NODES_MAX],
        )?;
        self.execute(
            action,
            "DELETE FROM outcome WHERE execution IN (SELECT id FROM execution WHERE node = ?1)",
            [&key],
        )?;
        for sql in [
            "DELETE FROM execution WHERE node = ?1",
            "DELETE FROM removal WHERE node = ?1",
            "DELETE FROM observed WHERE node = ?1",
            "DELETE FROM life_floor WHERE node = ?1",
            "DELETE FROM token_join WHERE node = ?1",
            "DELETE FROM node WHERE id = ?1",
        ] {
            self.execute(action, sql, [&key])?;
        }
        self.forget_specs(&[], i64::MAX)
    }

    fn deleted_node(&mut self, id: NodeId) -> Result<Option<NodeName>, StoreError> {
        self.one(
            "look a deleted node up",
            "SELECT name FROM deleted_node WHERE id = ?1",
            [blob(id.to_bytes())],
            |row| text(row, 0, "a node name"),
        )
    }

    fn sweep_deleted_nodes(&mut self, now: UnixMs) -> Result<(), StoreError> {
        self.execute(
            "forget deleted nodes",
            "DELETE FROM deleted_node WHERE until < ?1",
            [now.0],
        )?;
        Ok(())
    }

    fn record_certificate(&mut self, id: NodeId, expires_at: UnixMs) -> Result<(), StoreError> {
        self.execute(
            "record a certificate",
            "UPDATE node SET certificate_expires_at = max(certificate_expires_at, ?2) WHERE id = ?1",
            params![blob(id.to_bytes()), expires_at.0],
        )?;
        Ok(())
    }

    fn record_begin(&mut self, facts: &BeginFacts) -> Result<(), StoreError> {
        let (incarnation, boot_counter, boot_nonce) = facts.boot;
        let known = self.one(
            "begin a session",
            "SELECT incarnation FROM node WHERE id = ?1",
            [blob(facts.node.to_bytes())],
            |row| row.get::<_, Option<Vec<u8>>>(0),
        )?;
        if known.flatten().as_deref() != Some(incarnation.to_bytes().as_slice()) {
            self.clear_observed(facts.node)?;
        }
        self.execute(
            "begin a session",
            "UPDATE node SET incarnation = ?2, boot_counter = ?3, boot_nonce = ?4, labels = ?5, program = ?6,
                versions = ?7, capabilities = ?8, last_seen_at = ?9 WHERE id = ?1",
            params![
                blob(facts.node.to_bytes()),
                blob(incarnation.to_bytes()),
                int(boot_counter.0),
                blob(boot_nonce.to_bytes()),
                to_json(&facts.labels),
                facts.program,
                to_json(&facts.versions),
                to_json(&facts.capabilities),
                facts.now.0
            ],
        )?;
        // It keeps this life on disk now; only a disk restored from an image names an older one.
        self.execute(
            "begin a session",
            "DELETE FROM life_floor WHERE node = ?1 AND epoch <= (
                SELECT epoch FROM life_floor WHERE node = ?1 ORDER BY epoch DESC LIMIT 1 OFFSET ?2)",
            params![blob(facts.node.to_bytes()), FLOORS_KEPT],
        )?;
        self.note_node(facts.node)
    }

    fn record_seen(&mut self, id: NodeId, now: UnixMs) -> Result<(), StoreError> {
        self.execute(
            "record that a node was seen",
            "UPDATE node SET last_seen_at = ?2 WHERE id = ?1",
            params![blob(id.to_bytes()), now.0],
        )?;
        self.note_node(id)
    }

    fn set_orders(&mut self, id: NodeId, orders: &NodeOrders) -> Result<(), StoreError> {
        self.execute(
            "keep what was ordered of a node",
            "UPDATE node SET cordoned = ?2, draining = ?3, operator_labels = ?4, order_count = ?5
             WHERE id = ?1",
            params![
                blob(id.to_bytes()),
                orders.cordoned,
                orders.draining,
                to_json(&orders.labels),
                int(orders.count)
            ],
        )?;
        self.note_node(id)
    }

    fn set_lost(&mut self, id: NodeId, since: Option<UnixMs>) -> Result<(), StoreError> {
        self.execute(
            "record whether a node is lost",
            "UPDATE node SET lost_at = ?2 WHERE id = ?1",
            params![blob(id.to_bytes()), since.map(|since| since.0)],
        )?;
        self.note_node(id)
    }

    fn hold_node(&mut self, id: NodeId, reason: &str) -> Result<(), StoreError> {
        self.execute(
            "hold a node",
            "UPDATE node SET held = coalesce(held, ?2) WHERE id = ?1",
            params![blob(id.to_bytes()), reason],
        )?;
        self.note_node(id)
    }

    fn record_received(
        &mut self,
        id: NodeId,
        rev: Revision,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        self.execute(
            "record an acknowledgement",
            "UPDATE node SET received_rev = ?2, last_ack_at = ?3 WHERE id = ?1 AND received_rev IS NOT ?2",
            params![blob(id.to_bytes()), int(rev.0), now.0],
        )?;
        Ok(())
    }

    fn put_spec(&mut self, digest: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.execute(
            "keep a spec",
            "INSERT INTO spec (digest, bytes) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![digest.as_bytes().to_vec(), bytes],
        )?;
        Ok(())
    }

    fn spec(&mut self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.one(
            "read a spec",
            "SELECT bytes FROM spec WHERE digest = ?1",
            [digest.as_bytes().to_vec()],
            |row| row.get(0),
        )
    }

    fn job_by_name(&mut self, name: &JobName) -> Result<Option<JobRecord>, StoreError> {
        let sql = select(JOB_COLUMNS, "job WHERE name = ?1 AND deleted = 0");
        self.one("read a job", &sql, [name.as_str()], read_job)
    }

    fn job(&mut self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        let sql = select(JOB_COLUMNS, "job WHERE id = ?1");
        self.one("read a job", &sql, [blob(id.to_bytes())], read_job)
    }

    fn jobs(&mut self, deleted: bool) -> Result<Vec<JobRecord>, StoreError> {
        let sql = select(
            JOB_COLUMNS,
            "job WHERE deleted = 0 OR ?1 ORDER BY name, created_at",
        );
        self.all("list jobs", &sql, [deleted], read_job)
    }

    fn specs_in_use(&mut self) -> Result<Vec<Digest>, StoreError> {
        self.all(
            "list specs",
            "SELECT digest FROM spec ORDER BY digest",
            [],
            |row| bytes(row, 0, "a digest", Digest::from_slice),
        )
    }

    fn insert_job(&mut self, job: &JobRecord) -> Result<(), StoreError> {
        self.execute(
            "keep a job",
            "INSERT INTO job (id, name, version, spec, stopped, deleted, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                blob(job.id.to_bytes()),
                job.name.as_str(),
                int(job.version.0),
                job.spec.as_bytes().to_vec(),
                job.stopped,
                job.deleted,
                job.created_at.0,
                job.updated_at.0
            ],
        )?;
        self.execute(
            "keep a job version",
            "INSERT INTO job_version (job, version, spec, created_at) VALUES (?1, ?2, ?3, ?4)",
            params![
                blob(job.id.to_bytes()),
                int(job.version.0),
                job.spec.as_bytes().to_vec(),
                job.created_at.0
            ],
        )?;
        self.note_job(job.id)
    }

    fn insert_version(
        &mut self,
        id: JobId,
        version: Version,
        spec: Digest,
        origin: &VersionOrigin,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let (to, reason) = match origin {
            VersionOrigin::Deploy => (None, None),
            VersionOrigin::Rollback { to, reason } => (Some(int(to.0)), Some(reason)),
        };
        self.execute(
            "keep a job version",
            "INSERT INTO job_version (job, version, spec, created_at, rolled_back_to, reason)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                blob(id.to_bytes()),
                int(version.0),
                spec.as_bytes().to_vec(),
                now.0,
                to,
                reason
            ],
        )?;
        self.execute(
            "keep a job version",
            "UPDATE job SET version = ?2, spec = ?3, stopped = 0, updated_at = ?4 WHERE id = ?1",
            params![
                blob(id.to_bytes()),
                int(version.0),
                spec.as_bytes().to_vec(),
                now.0
            ],
        )?;
        self.execute(
            "forget old job versions",
            "DELETE FROM job_version WHERE job = ?1 AND version <= ?2 - ?3",
            params![blob(id.to_bytes()), int(version.0), VERSIONS_KEPT],
        )?;
        self.forget_specs(&[], i64::MAX)?;
        self.note_job(id)
    }

    fn set_stopped(&mut self, id: JobId, stopped: bool) -> Result<(), StoreError> {
        self.execute(
            "stop or start a job",
            "UPDATE job SET stopped = ?2 WHERE id = ?1",
            params![blob(id.to_bytes()), stopped],
        )?;
        self.note_job(id)
    }

    fn delete_job(&mut self, id: JobId) -> Result<(), StoreError> {
        self.execute(
            "delete a job",
            "UPDATE job SET deleted = 1 WHERE id = ?1",
            [blob(id.to_bytes())],
        )?;
        self.note_job(id)
    }

    fn forget_job(&mut self, id: JobId) -> Result<(), StoreError> {
        let action = "forget a deleted job";
        let id = blob(id.to_bytes());
        self.execute(action, "DELETE FROM evaluation WHERE job = ?1", [&id])?;
        self.execute(
            action,
            "DELETE FROM job WHERE id = ?1 AND deleted = 1",
            [&id],
        )?;
        self.forget_specs(&[], i64::MAX)
    }

    fn versions(&mut self, id: JobId, count: usize) -> Result<Vec<(Version, Digest)>, StoreError> {
        self.all(
            "list a job's versions",
            "SELECT version, spec FROM job_version WHERE job = ?1 ORDER BY version DESC LIMIT ?2",
            params![
                blob(id.to_bytes()),
                i64::try_from(count).unwrap_or(i64::MAX)
            ],
            |row| {
                Ok((
                    Version(counter(row, 0)?),
                    bytes(row, 1, "a digest", Digest::from_slice)?,
                ))
            },
        )
    }

    fn mark_good(&mut self, id: JobId, version: Version) -> Result<(), StoreError> {
        self.execute(
            "keep that a job version is good",
            "UPDATE job_version SET good = 1 WHERE job = ?1 AND version = ?2",
            params![blob(id.to_bytes()), int(version.0)],
        )?;
        self.note_job(id)
    }

    fn history(&mut self, id: JobId) -> Result<Vec<VersionRecord>, StoreError> {
        self.all(
            "list a job's versions",
            "SELECT version, spec, created_at, rolled_back_to, reason, good FROM job_version WHERE job = ?1
             ORDER BY version DESC",
            [blob(id.to_bytes())],
            |row| {
                let origin = match row.get::<_, Option<i64>>(3)? {
                    None => VersionOrigin::Deploy,
                    Some(_) => VersionOrigin::Rollback {
                        to: Version(counter(row, 3)?),
                        reason: row.get::<_, Option<String>>(4)?.unwrap_or_default(),
                    },
                };
                Ok(VersionRecord {
                    version: Version(counter(row, 0)?),
                    spec: bytes(row, 1, "a digest", Digest::from_slice)?,
                    created_at: time(row, 2)?,
                    origin,
                    good: row.get(5)?,
                })
            },
        )
    }

    fn put_rollout(&mut self, job: JobId, record: &RolloutRecord) -> Result<(), StoreError> {
        self.execute(
            "keep a rollout",
            "INSERT INTO rollout (job, good_spec, body) VALUES (?1, ?2, ?3)
             ON CONFLICT (job) DO UPDATE SET good_spec = ?2, body = ?3",
            params![
                blob(job.to_bytes()),
                record.good.map(|good| good.spec.as_bytes().to_vec()),
                to_json(record)
            ],
        )?;
        self.note_job(job)
    }

    fn rollout(&mut self, job: JobId) -> Result<Option<RolloutRecord>, StoreError> {
        self.one(
            "read a rollout",
            "SELECT body FROM rollout WHERE job = ?1",
            [blob(job.to_bytes())],
            |row| json(row, 0),
        )
    }

    fn remove_rollout(&mut self, job: JobId) -> Result<(), StoreError> {
        self.execute(
            "forget a rollout",
            "DELETE FROM rollout WHERE job = ?1",
            [blob(job.to_bytes())],
        )?;
        self.note_job(job)
    }

    fn enqueue_evaluation(
        &mut self,
        id: EvaluationId,
        job: JobId,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        self.execute(
            "have a job looked at",
            // One that is claimed looked at an older state: its claim ends, and what it finds is refused by the fence.
            "INSERT INTO evaluation (id, job, created_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (job) DO UPDATE SET claimed_by = NULL, claimed_until = NULL, fence = fence + 1
                WHERE claimed_by IS NOT NULL",
            params![blob(id.to_bytes()), blob(job.to_bytes()), now.0],
        )?;
        Ok(())
    }

    fn claim_evaluation(
        &mut self,
        worker: &str,
        now: UnixMs,
        until: UnixMs,
    ) -> Result<Option<Evaluation>, StoreError> {
        self.one(
            "claim an evaluation",
            "UPDATE evaluation SET claimed_by = ?1, claimed_until = ?3, fence = fence + 1
             WHERE id = (SELECT id FROM evaluation WHERE claimed_by IS NULL OR claimed_until < ?2
                ORDER BY created_at, id LIMIT 1)
             RETURNING id, job, fence",
            params![worker, now.0, until.0],
            |row| {
                Ok(Evaluation {
                    id: bytes(row, 0, "an evaluation id", EvaluationId::from_slice)?,
                    job: bytes(row, 1, "a job id", JobId::from_slice)?,
                    fence: Fence(counter(row, 2)?),
                })
            },
        )
    }

    fn finish_evaluation(&mut self, evaluation: Evaluation) -> Result<bool, StoreError> {
        let done = self.execute(
            "finish an evaluation",
            "DELETE FROM evaluation WHERE id = ?1 AND fence = ?2",
            params![blob(evaluation.id.to_bytes()), int(evaluation.fence.0)],
        )?;
        Ok(done == 1)
    }

    fn executions_of_job(&mut self, job: JobId) -> Result<Vec<ExecutionRecord>, StoreError> {
        let sql = select(EXECUTION_COLUMNS, "execution WHERE job = ?1 ORDER BY id");
        self.all(
            "list a job's executions",
            &sql,
            [blob(job.to_bytes())],
            read_execution,
        )
    }

    fn executions_of_node(&mut self, node: NodeId) -> Result<Vec<ExecutionRecord>, StoreError> {
        let sql = select(EXECUTION_COLUMNS, "execution WHERE node = ?1 ORDER BY id");
        self.all(
            "list a node's executions",
            &sql,
            [blob(node.to_bytes())],
            read_execution,
        )
    }

    fn execution(&mut self, id: ExecutionId) -> Result<Option<ExecutionRecord>, StoreError> {
        let sql = select(EXECUTION_COLUMNS, "execution WHERE id = ?1");
        self.one(
            "read an execution",
            &sql,
            [blob(id.to_bytes())],
            read_execution,
        )
    }

    fn put_assignment(
        &mut self,
        execution: &ExecutionRecord,
        row: &[u8],
    ) -> Result<Position, StoreError> {
        let action = "commit an assignment";
        let id = blob(execution.id.to_bytes());
        let old = self.one(
            action,
            "SELECT body, desired FROM execution WHERE id = ?1",
            [&id],
            |row| {
                let desired: Desired = text(row, 1, "an order")?;
                Ok((RowHash::of(row.get_ref(0)?.as_blob()?), desired))
            },
        )?;
        let ran = old.is_some_and(|(_, desired)| desired == Desired::Run);
        let old = old.map(|(hash, _)| hash);
        let position = self.advance(execution.node, old, Some(RowHash::of(row)))?;
        self.count_runs(execution.node, ran, execution.desired == Desired::Run)?;
        self.execute(
            action,
            "INSERT INTO execution (id, job, node, slot, version, attempt, desired, spec, rev, body, created_at,
                changed_at, replaced, once) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
             ON CONFLICT (id) DO UPDATE SET version = ?5, attempt = ?6, desired = ?7, spec = ?8, rev = ?9, body = ?10,
                changed_at = ?12, replaced = ?13",
            params![
                id,
                blob(execution.job.to_bytes()),
                blob(execution.node.to_bytes()),
                int(execution.slot.0),
                int(execution.version.0),
                int(execution.attempt.0),
                execution.desired.as_str(),
                execution.spec.as_bytes().to_vec(),
                int(position.rev.0),
                row,
                execution.created_at.0,
                execution.changed_at.0,
                execution.replaced,
                execution.once
            ],
        )?;
        self.execute(
            action,
            "DELETE FROM outcome WHERE execution = ?1 AND version < ?2 - ?3",
            params![
                blob(execution.id.to_bytes()),
                int(execution.version.0),
                VERSIONS_KEPT
            ],
        )?;
        self.note_execution(execution.id)?;
        Ok(position)
    }

    fn set_replaced(&mut self, id: ExecutionId, replaced: bool) -> Result<(), StoreError> {
        self.execute(
            "record whether an execution is replaced",
            "UPDATE execution SET replaced = ?2 WHERE id = ?1",
            params![blob(id.to_bytes()), replaced],
        )?;
        self.note_execution(id)
    }

    fn remove_assignment(&mut self, id: ExecutionId) -> Result<Position, StoreError> {
        self.note_execution(id)?;
        let action = "remove an assignment";
        let key = blob(id.to_bytes());
        let found = self.one(
            action,
            "SELECT node, body, desired FROM execution WHERE id = ?1",
            [&key],
            |row| {
                let node = bytes(row, 0, "a node id", NodeId::from_slice)?;
                let desired: Desired = text(row, 2, "an order")?;
                Ok((node, RowHash::of(row.get_ref(1)?.as_blob()?), desired))
            },
        )?;
        let Some((node, old, desired)) = found else {
            return Err(StoreError::Failed {
                action,
                source: "no such execution".into(),
            });
        };
        let position = self.advance(node, Some(old), None)?;
        self.count_runs(node, desired == Desired::Run, false)?;
        self.execute(action, "DELETE FROM execution WHERE id = ?1", [&key])?;
        self.execute(action, "DELETE FROM outcome WHERE execution = ?1", [&key])?;
        self.execute(
            action,
            "INSERT INTO removal (node, rev, execution) VALUES (?1, ?2, ?3)",
            params![blob(node.to_bytes()), int(position.rev.0), key],
        )?;
        // Past the bound the oldest go, and the node is marked: from before that revision it gets a snapshot.
        self.execute(
            action,
            "UPDATE node SET removals_from = coalesce((SELECT rev FROM removal WHERE node = ?1
                ORDER BY rev DESC LIMIT 1 OFFSET ?2), removals_from) WHERE id = ?1",
            params![blob(node.to_bytes()), REMOVALS_MAX],
        )?;
        self.execute(
            action,
            "DELETE FROM removal WHERE node = ?1 AND rev <= (SELECT removals_from FROM node WHERE id = ?1)",
            [blob(node.to_bytes())],
        )?;
        Ok(position)
    }

    fn desired_position(&mut self, node: NodeId) -> Result<Position, StoreError> {
        let action = "read where a node's desired set stands";
        self.one(
            action,
            "SELECT desired_rev, desired_digest FROM node WHERE id = ?1",
            [blob(node.to_bytes())],
            |row| {
                Ok(Position {
                    rev: Revision(counter(row, 0)?),
                    digest: bytes(row, 1, "a digest", SetDigest::from_slice)?,
                })
            },
        )?
        .ok_or_else(|| StoreError::Failed {
            action,
            source: "no such node".into(),
        })
    }

    fn desired_after(
        &mut self,
        node: NodeId,
        base: Option<Revision>,
    ) -> Result<Option<DesiredChange>, StoreError> {
        let action = "read a node's assignments";
        let id = blob(node.to_bytes());
        if let Some(base) = base {
            let from = self.one(
                action,
                "SELECT removals_from FROM node WHERE id = ?1",
                [&id],
                |row| counter(row, 0),
            )?;
            if from.is_some_and(|from| base.0 < from) {
                return Ok(None);
            }
        }
        let after = base.map_or(-1, |base| int(base.0));
        let upserts = self.all(
            action,
            "SELECT id, body FROM execution WHERE node = ?1 AND rev > ?2 ORDER BY rev",
            params![id, after],
            |row| {
                let body: Vec<u8> = row.get(1)?;
                let assignment =
                    AssignmentRow::decode(&body).map_err(|_| wrong(1, "an assignment"))?;
                let spec = (assignment.desired == Desired::Run).then_some(assignment.spec);
                Ok((
                    Row {
                        key: row.get(0)?,
                        body,
                    },
                    spec,
                ))
            },
        )?;
        let removed = match base {
            None => Vec::new(),
            Some(_) => self.all(
                action,
                "SELECT execution FROM removal WHERE node = ?1 AND rev > ?2 ORDER BY rev",
                params![id, after],
                |row| row.get(0),
            )?,
        };
        Ok(Some(DesiredChange { upserts, removed }))
    }

    fn forget_removals(&mut self, node: NodeId, received: Revision) -> Result<(), StoreError> {
        let action = "forget removals";
        let id = blob(node.to_bytes());
        let gone = self.execute(
            action,
            "DELETE FROM removal WHERE node = ?1 AND rev <= ?2",
            params![id, int(received.0)],
        )?;
        if gone > 0 {
            self.execute(
                action,
                "UPDATE node SET removals_from = max(removals_from, ?2) WHERE id = ?1",
                params![id, int(received.0)],
            )?;
        }
        Ok(())
    }

    fn clear_observed(&mut self, node: NodeId) -> Result<(), StoreError> {
        let action = "start a node's reports over";
        let id = blob(node.to_bytes());
        self.execute(action, "DELETE FROM observed WHERE node = ?1", [&id])?;
        self.execute(
            action,
            "UPDATE node SET observed_rev = 0, observed_digest = ?2 WHERE id = ?1",
            params![id, blob(SetDigest::EMPTY.to_bytes())],
        )?;
        Ok(())
    }

    fn put_observed(
        &mut self,
        node: NodeId,
        execution: ExecutionId,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        self.execute(
            "record a report",
            "INSERT INTO observed (execution, node, body) VALUES (?1, ?2, ?3)
             ON CONFLICT (node, execution) DO UPDATE SET body = ?3",
            params![blob(execution.to_bytes()), blob(node.to_bytes()), bytes],
        )?;
        self.note_execution(execution)
    }

    fn remove_observed(&mut self, node: NodeId, execution: ExecutionId) -> Result<(), StoreError> {
        self.execute(
            "remove a report",
            "DELETE FROM observed WHERE execution = ?1 AND node = ?2",
            params![blob(execution.to_bytes()), blob(node.to_bytes())],
        )?;
        self.note_execution(execution)
    }

    fn observed_digest(&mut self, node: NodeId) -> Result<SetDigest, StoreError> {
        let hashes = self.all(
            "read a node's reports",
            "SELECT body FROM observed WHERE node = ?1",
            [blob(node.to_bytes())],
            |row| Ok(RowHash::of(row.get_ref(0)?.as_blob()?)),
        )?;
        Ok(hashes.into_iter().fold(SetDigest::EMPTY, SetDigest::with))
    }

    fn observed_ids(&mut self, node: NodeId) -> Result<BTreeSet<ExecutionId>, StoreError> {
        let ids = self.all(
            "read what a node reports on",
            "SELECT execution FROM observed WHERE node = ?1",
            [blob(node.to_bytes())],
            |row| Ok(ExecutionId::from_slice(row.get_ref(0)?.as_blob()?)),
        )?;
        Ok(ids.into_iter().flatten().collect())
    }

    fn row_counts(&mut self, node: NodeId) -> Result<(u64, u64), StoreError> {
        let counts = self.one(
            "count a node's rows",
            "SELECT (SELECT count(*) FROM observed WHERE node = ?1), (SELECT count(*) FROM execution WHERE node = ?1)",
            [blob(node.to_bytes())],
            |row| Ok((counter(row, 0)?, counter(row, 1)?)),
        )?;
        Ok(counts.unwrap_or_default())
    }

    fn set_observed_position(
        &mut self,
        node: NodeId,
        position: Position,
    ) -> Result<(), StoreError> {
        self.execute(
            "record a report's position",
            "UPDATE node SET observed_rev = ?2, observed_digest = ?3 WHERE id = ?1",
            params![
                blob(node.to_bytes()),
                int(position.rev.0),
                blob(position.digest.to_bytes())
            ],
        )?;
        Ok(())
    }

    fn put_outcome(
        &mut self,
        node: NodeId,
        row: &ObservedRow,
        bytes: &[u8],
    ) -> Result<bool, StoreError> {
        let new = self.execute(
            "record an outcome",
            "INSERT INTO outcome (execution, version, attempt, node, body) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO NOTHING",
            params![
                blob(row.execution.to_bytes()),
                int(row.version.0),
                int(row.attempt.0),
                blob(node.to_bytes()),
                bytes
            ],
        )?;
        self.note_execution(row.execution)?;
        Ok(new == 1)
    }

    fn observed(
        &mut self,
        node: NodeId,
        execution: ExecutionId,
    ) -> Result<Option<ObservedRow>, StoreError> {
        self.one(
            "read a report",
            "SELECT body FROM observed WHERE node = ?1 AND execution = ?2",
            [blob(node.to_bytes()), blob(execution.to_bytes())],
            // One in a dialect that this program does not read is kept for its digest and shown as nothing.
            |row| Ok(ObservedRow::decode(row.get_ref(0)?.as_blob()?).ok()),
        )
        .map(Option::flatten)
    }

    fn outcome(&mut self, key: OutcomeKey) -> Result<Option<ObservedRow>, StoreError> {
        self.one(
            "read an outcome",
            "SELECT body FROM outcome WHERE execution = ?1 AND version = ?2 AND attempt = ?3",
            params![
                blob(key.execution.to_bytes()),
                int(key.version.0),
                int(key.attempt.0)
            ],
            read_observed,
        )
    }

    fn joined_with(&mut self, token: TokenId, key: [u8; 32]) -> Result<Option<NodeId>, StoreError> {
        self.one(
            "look a join up",
            "SELECT node FROM token_join WHERE token = ?1 AND key = ?2",
            params![blob(token.to_bytes()), blob(key)],
            |row| bytes(row, 0, "a node id", NodeId::from_slice),
        )
    }

    fn record_join(
        &mut self,
        token: TokenId,
        key: [u8; 32],
        node: NodeId,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        self.execute(
            "record a join",
            "INSERT OR REPLACE INTO token_join (token, key, node, joined_at) VALUES (?1, ?2, ?3, ?4)",
            params![
                blob(token.to_bytes()),
                blob(key),
                blob(node.to_bytes()),
                now.0
            ],
        )?;
        Ok(())
    }
}
