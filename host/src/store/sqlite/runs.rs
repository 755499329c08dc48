//! Runs and tasks in SQLite.

use rusqlite::{Row as SqlRow, params};
use sluice_model::UnixMs;
use sluice_model::{Attempt, Digest, ExecutionId, Fence, JobId, NodeId, RunId, Slot, Version};
use sluice_scheduler::Stopping;

use super::super::StoreError;
use super::super::runs::{
    ActiveCounts, RunRecord, RunStore, RunsOf, TaskClaim, TaskEnd, TaskPhase, TaskRecord,
};
use super::SqliteStore;
use super::rows::{
    blob, bytes, counter, int, json, maybe_time, select, text, time, to_json, wrong,
};

/// Runs forgotten in one sweep: keeps it short.
const SWEPT_MAX: i64 = 1_000;

const RUN_COLUMNS: &str = "id, key, request, params, launched_at";

const TASK_COLUMNS: &str = "seq, run, job, job_name, version, spec, pinned, priority, concurrency, pool, phase, attempt, \
     not_before, execution, node, node_name, exposed, wiped, stopping, claimed_by, claimed_until, fence, deadline, \
     started_at, ended_at, end, fail, reason, records_in, records_out";

fn read_run(row: &SqlRow<'_>) -> rusqlite::Result<RunRecord> {
    Ok(RunRecord {
        id: bytes(row, 0, "a run id", RunId::from_slice)?,
        key: row.get(1)?,
        request: bytes(row, 2, "a digest", Digest::from_slice)?,
        params: json(row, 3)?,
        launched_at: time(row, 4)?,
    })
}

fn maybe_text<T: std::str::FromStr>(
    row: &SqlRow<'_>,
    index: usize,
    what: &'static str,
) -> rusqlite::Result<Option<T>> {
    match row.get_ref(index)?.as_str_or_null()? {
        None => Ok(None),
        Some(word) => word.parse().map(Some).map_err(|_| wrong(index, what)),
    }
}

fn read_task(row: &SqlRow<'_>) -> rusqlite::Result<TaskRecord> {
    let pinned = match row.get_ref(6)?.as_blob()? {
        [] => None,
        id => Some(NodeId::from_slice(id).ok_or_else(|| wrong(6, "a node id"))?),
    };
    let node = match row.get_ref(14)?.as_blob_or_null()? {
        None => None,
        Some(id) => {
            let id = NodeId::from_slice(id).ok_or_else(|| wrong(14, "a node id"))?;
            Some((id, text(row, 15, "a node name")?))
        }
    };
    Ok(TaskRecord {
        seq: counter(row, 0)?,
        run: bytes(row, 1, "a run id", RunId::from_slice)?,
        job: bytes(row, 2, "a job id", JobId::from_slice)?,
        job_name: text(row, 3, "a job name")?,
        version: Version(counter(row, 4)?),
        spec: bytes(row, 5, "a digest", Digest::from_slice)?,
        pinned,
        priority: row.get(7)?,
        concurrency: row.get(8)?,
        pool: row.get(9)?,
        phase: match row.get_ref(10)?.as_str()? {
            "waiting" => TaskPhase::Waiting,
            "active" => TaskPhase::Active,
            "ended" => TaskPhase::Ended,
            _ => return Err(wrong(10, "a task's phase")),
        },
        attempt: Attempt(counter(row, 11)?),
        not_before: time(row, 12)?,
        execution: match row.get_ref(13)?.as_blob_or_null()? {
            None => None,
            Some(id) => {
                Some(ExecutionId::from_slice(id).ok_or_else(|| wrong(13, "an execution id"))?)
            }
        },
        node,
        exposed: row.get(16)?,
        wiped: row.get(17)?,
        stopping: match row.get_ref(18)?.as_str_or_null()? {
            None => None,
            Some("cancelled") => Some(Stopping::Cancelled),
            Some("timed-out") => Some(Stopping::TimedOut),
            Some("drained") => Some(Stopping::Drained),
            Some(_) => return Err(wrong(18, "a reason to stop")),
        },
        claimed_by: row.get(19)?,
        claimed_until: maybe_time(row, 20)?,
        fence: Fence(counter(row, 21)?),
        deadline: maybe_time(row, 22)?,
        started_at: maybe_time(row, 23)?,
        ended_at: maybe_time(row, 24)?,
        end: maybe_text(row, 25, "a task's end")?,
        fail: maybe_text(row, 26, "a failure")?,
        reason: row.get(27)?,
        records_in: counter(row, 28)?,
        records_out: counter(row, 29)?,
    })
}

fn pin(node: Option<NodeId>) -> Vec<u8> {
    node.map(|node| blob(node.to_bytes())).unwrap_or_default()
}

impl SqliteStore {
    fn tasks(
        &mut self,
        action: &'static str,
        rest: &str,
        params: impl rusqlite::Params,
    ) -> Result<Vec<TaskRecord>, StoreError> {
        self.all(action, &select(TASK_COLUMNS, rest), params, read_task)
    }
}

impl RunStore for SqliteStore {
    fn insert_run(&mut self, run: &RunRecord, tasks: &[TaskRecord]) -> Result<(), StoreError> {
        self.execute(
            "keep a run",
            "INSERT INTO run (id, key, request, params, launched_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                blob(run.id.to_bytes()),
                run.key,
                run.request.as_bytes().to_vec(),
                to_json(&run.params),
                run.launched_at.0
            ],
        )?;
        for task in tasks {
            self.execute(
                "keep a task",
                "INSERT INTO task (run, job, job_name, version, spec, pinned, priority, concurrency, pool, phase, not_before)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'waiting', ?10)",
                params![
                    blob(task.run.to_bytes()),
                    blob(task.job.to_bytes()),
                    task.job_name.as_str(),
                    int(task.version.0),
                    task.spec.as_bytes().to_vec(),
                    pin(task.pinned),
                    task.priority,
                    task.concurrency,
                    task.pool,
                    task.not_before.0
                ],
            )?;
        }
        Ok(())
    }

    fn run(&mut self, id: RunId) -> Result<Option<RunRecord>, StoreError> {
        let sql = select(RUN_COLUMNS, "run WHERE id = ?1");
        self.one("read a run", &sql, [blob(id.to_bytes())], read_run)
    }

    fn run_by_key(&mut self, key: &str) -> Result<Option<RunRecord>, StoreError> {
        let sql = select(RUN_COLUMNS, "run WHERE key = ?1");
        self.one("look a launch up", &sql, [key], read_run)
    }

    fn runs(&mut self, of: RunsOf, count: usize) -> Result<Vec<RunRecord>, StoreError> {
        let action = "list runs";
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        match of {
            RunsOf::All => {
                let sql = select(RUN_COLUMNS, "run ORDER BY seq DESC LIMIT ?1");
                self.all(action, &sql, [count], read_run)
            }
            RunsOf::Job(job) => {
                let sql = select(
                    RUN_COLUMNS,
                    "run WHERE id IN (SELECT DISTINCT run FROM task WHERE job = ?1 ORDER BY seq DESC LIMIT ?2)
                     ORDER BY seq DESC LIMIT ?2",
                );
                self.all(action, &sql, params![blob(job.to_bytes()), count], read_run)
            }
        }
    }

    fn tasks_of_run(&mut self, run: RunId) -> Result<Vec<TaskRecord>, StoreError> {
        let rest = "task WHERE run = ?1 ORDER BY seq";
        self.tasks("list a run's tasks", rest, [blob(run.to_bytes())])
    }

    fn waiting_heads(&mut self, now: UnixMs) -> Result<Vec<TaskRecord>, StoreError> {
        let action = "look for waiting tasks";
        let mut heads = Vec::new();
        let (mut job, mut pinned) = (Vec::<u8>::new(), Vec::<u8>::new());
        // From group to group along the index, however many wait in each.
        loop {
            let next = self.one(
                action,
                "SELECT job, pinned FROM task WHERE phase = 'waiting' AND (job, pinned) > (?1, ?2)
                 ORDER BY job, pinned LIMIT 1",
                params![job, pinned],
                |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?)),
            )?;
            let Some(next) = next else { break };
            (job, pinned) = next;
            let rest =
                "task WHERE phase = 'waiting' AND job = ?1 AND pinned = ?2 AND not_before <= ?3
                 ORDER BY priority DESC, seq LIMIT 1";
            heads.extend(self.tasks(action, rest, params![job, pinned, now.0])?);
        }
        heads.sort_by_key(|task| (std::cmp::Reverse(task.priority), task.seq));
        Ok(heads)
    }

    fn has_open_tasks(&mut self) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM task WHERE phase = 'waiting')
                OR EXISTS (SELECT 1 FROM task WHERE phase = 'active')";
        let found = self.one("look for open tasks", sql, [], |row| row.get::<_, bool>(0))?;
        Ok(found.unwrap_or(false))
    }

    fn open_tasks_of_job(&mut self, job: JobId) -> Result<Vec<TaskRecord>, StoreError> {
        let rest = "task WHERE job = ?1 AND phase IN ('waiting', 'active') ORDER BY seq";
        self.tasks("list a job's open tasks", rest, [blob(job.to_bytes())])
    }

    fn active_tasks(&mut self) -> Result<Vec<TaskRecord>, StoreError> {
        self.tasks(
            "list active tasks",
            "task WHERE phase = 'active' ORDER BY seq",
            [],
        )
    }

    fn task_of_execution(&mut self, id: ExecutionId) -> Result<Option<TaskRecord>, StoreError> {
        let rest = "task WHERE execution = ?1";
        let mut found = self.tasks("look a task up", rest, [blob(id.to_bytes())])?;
        Ok(found.pop())
    }

    fn active_counts(&mut self) -> Result<ActiveCounts, StoreError> {
        let mut counts = ActiveCounts::default();
        for task in self.active_tasks()? {
            counts.all += 1;
            *counts.jobs.entry(task.job).or_default() += 1;
            if let Some((node, _)) = task.node {
                *counts.nodes.entry(node).or_default() += 1;
            }
            if let Some(pool) = task.pool {
                *counts.pools.entry(pool).or_default() += 1;
            }
        }
        Ok(counts)
    }

    fn claim_task(&mut self, claim: &TaskClaim<'_>) -> Result<Option<TaskRecord>, StoreError> {
        // A pool without a size has no room; the pool's name is on the task.
        let pools = to_json(&claim.limits.pools);
        let sql = format!(
            "UPDATE task SET phase = 'active', attempt = attempt + 1, fence = fence + 1, claimed_by = ?2,
                claimed_until = ?3, node = ?4, node_name = ?5, execution = ?6, exposed = ?7, wiped = 0, stopping = NULL,
                deadline = ?8, started_at = coalesce(started_at, ?9), reason = ''
             WHERE seq = ?1 AND phase = 'waiting' AND not_before <= ?9
                AND (SELECT count(*) FROM task WHERE phase = 'active') < ?10
                AND (SELECT count(*) FROM task WHERE phase = 'active' AND node = ?4) < ?11
                AND (concurrency IS NULL
                    OR (SELECT count(*) FROM task other WHERE other.phase = 'active' AND other.job = task.job)
                        < concurrency)
                AND (pool IS NULL
                    OR (SELECT count(*) FROM task other WHERE other.phase = 'active' AND other.pool = task.pool)
                        < coalesce((SELECT value FROM json_each(?12) WHERE key = task.pool), 0))
             RETURNING {TASK_COLUMNS}"
        );
        let claimed = self.one(
            "claim a task",
            &sql,
            params![
                int(claim.seq),
                claim.worker,
                claim.until.0,
                blob(claim.node.0.to_bytes()),
                claim.node.1.as_str(),
                blob(claim.execution.to_bytes()),
                claim.exposed,
                claim.deadline.map(|at| at.0),
                claim.now.0,
                claim.limits.all,
                claim.limits.per_node,
                pools
            ],
            read_task,
        )?;
        self.changed |= claimed.is_some();
        Ok(claimed)
    }

    fn reclaim_tasks(
        &mut self,
        worker: &str,
        expired: UnixMs,
        until: UnixMs,
    ) -> Result<usize, StoreError> {
        self.execute(
            "take claims over",
            "UPDATE task SET claimed_by = ?1, claimed_until = ?3, fence = fence + 1
             WHERE phase = 'active' AND claimed_until < ?2",
            params![worker, expired.0, until.0],
        )
    }

    fn renew_claims(&mut self, worker: &str, until: UnixMs) -> Result<(), StoreError> {
        self.execute(
            "renew claims",
            "UPDATE task SET claimed_until = ?2 WHERE phase = 'active' AND claimed_by = ?1",
            params![worker, until.0],
        )?;
        Ok(())
    }

    fn end_try(
        &mut self,
        seq: u64,
        worker: &str,
        fence: Fence,
        end: &TaskEnd,
    ) -> Result<bool, StoreError> {
        let done = self.execute(
            "end a task's try",
            "UPDATE task SET phase = iif(?4 IS NULL, 'waiting', 'ended'), end = ?4, fail = ?5, reason = ?6,
                ended_at = iif(?4 IS NULL, NULL, ?7), not_before = ?8, records_in = ?9, records_out = ?10,
                claimed_by = NULL, claimed_until = NULL, stopping = NULL, deadline = NULL
             WHERE seq = ?1 AND phase = 'active' AND claimed_by = ?2 AND fence = ?3",
            params![
                int(seq),
                worker,
                int(fence.0),
                end.state.map(|state| state.as_str()),
                end.fail.map(|fail| fail.as_str()),
                end.reason,
                end.at.0,
                end.not_before.0,
                int(end.records_in),
                int(end.records_out)
            ],
        )?;
        Ok(done == 1)
    }

    fn end_waiting(&mut self, seq: u64, end: &TaskEnd) -> Result<bool, StoreError> {
        let done = self.execute(
            "end a waiting task",
            "UPDATE task SET phase = 'ended', end = ?2, fail = ?3, reason = ?4, ended_at = ?5
             WHERE seq = ?1 AND phase = 'waiting'",
            params![
                int(seq),
                end.state.map(|state| state.as_str()),
                end.fail.map(|fail| fail.as_str()),
                end.reason,
                end.at.0
            ],
        )?;
        Ok(done == 1)
    }

    fn set_stopping(
        &mut self,
        seq: u64,
        worker: &str,
        fence: Fence,
        why: Stopping,
    ) -> Result<bool, StoreError> {
        let word = match why {
            Stopping::Cancelled => "cancelled",
            Stopping::TimedOut => "timed-out",
            Stopping::Drained => "drained",
        };
        let done = self.execute(
            "order a task to stop",
            "UPDATE task SET stopping = ?4 WHERE seq = ?1 AND phase = 'active' AND claimed_by = ?2 AND fence = ?3",
            params![int(seq), worker, int(fence.0), word],
        )?;
        Ok(done == 1)
    }

    fn expose_tasks(&mut self, node: NodeId, wiped: bool) -> Result<(), StoreError> {
        // What was never sent was not lost with the edge's store.
        self.execute(
            "note that a node has its tasks",
            "UPDATE task SET wiped = wiped OR (exposed AND ?2), exposed = 1
             WHERE phase = 'active' AND node = ?1 AND (exposed = 0 OR ?2)",
            params![blob(node.to_bytes()), wiped],
        )?;
        Ok(())
    }

    fn old_executions(
        &mut self,
        job: JobId,
        node: NodeId,
        kept: usize,
    ) -> Result<Vec<ExecutionId>, StoreError> {
        self.all(
            "list a node's ended tries",
            "SELECT id FROM execution WHERE job = ?1 AND node = ?2 AND slot > 0 AND desired <> 'purge'
                AND NOT EXISTS (SELECT 1 FROM task WHERE task.execution = execution.id AND task.phase = 'active')
             ORDER BY slot DESC LIMIT -1 OFFSET ?3",
            params![
                blob(job.to_bytes()),
                blob(node.to_bytes()),
                i64::try_from(kept).unwrap_or(i64::MAX)
            ],
            |row| bytes(row, 0, "an execution id", ExecutionId::from_slice),
        )
    }

    fn free_slot(&mut self, job: JobId, node: NodeId) -> Result<Slot, StoreError> {
        let highest = self.one(
            "look for a free slot",
            "SELECT coalesce(max(slot), 0) FROM execution WHERE job = ?1 AND node = ?2",
            params![blob(job.to_bytes()), blob(node.to_bytes())],
            |row| counter(row, 0),
        )?;
        Ok(Slot(highest.unwrap_or(0)).next())
    }

    fn sweep_runs(&mut self, kept: usize) -> Result<(), StoreError> {
        self.execute(
            "forget old runs",
            "DELETE FROM run WHERE seq IN (
                SELECT seq FROM run WHERE seq <= (SELECT seq FROM run ORDER BY seq DESC LIMIT 1 OFFSET ?1)
                    AND NOT EXISTS (SELECT 1 FROM task WHERE task.run = run.id AND task.phase <> 'ended')
                ORDER BY seq LIMIT ?2)",
            params![i64::try_from(kept).unwrap_or(i64::MAX), SWEPT_MAX],
        )?;
        // A launch with parameters of its own has a spec of its own, which nothing names once its tasks are gone.
        self.sweep_specs()
    }
}
