//! Runs and tasks in SQLite.

use std::collections::BTreeSet;

use rusqlite::{Row as SqlRow, params};
use sluice_model::UnixMs;
use sluice_model::{
    Attempt, Digest, ExecutionId, Fence, JobId, NodeId, RunId, ScheduleId, Slot, TaskState, Version,
};
use sluice_scheduler::Stopping;

use super::super::runs::{
    ActiveCounts, Kept, RunProgress, RunRecord, RunStore, RunsOf, SpentKey, TaskClaim, TaskEnd,
    TaskGroup, TaskPhase, TaskRecord, Turn, WaitingOf,
};
use super::super::{StoreError, TickOf};
use super::SqliteStore;
use super::rows::{
    blob, bytes, counter, int, json, maybe_time, select, text, time, to_json, wrong,
};

/// Bytes of a node's id.
const NODE_ID_BYTES: usize = 16;

const RUN_COLUMNS: &str =
    "id, key, request, params, launched_at, schedule, schedule_name, nominal, stdin";

const TASK_COLUMNS: &str = "seq, run, job, job_name, version, spec, pinned, priority, concurrency, pool, phase, attempt, \
     not_before, execution, node, node_name, exposed, wiped, stopping, claimed_by, claimed_until, fence, deadline, \
     started_at, ended_at, end, fail, reason, records_in, records_out, refused, failures";

fn read_run(row: &SqlRow<'_>) -> rusqlite::Result<RunRecord> {
    Ok(RunRecord {
        id: bytes(row, 0, "a run id", RunId::from_slice)?,
        key: row.get(1)?,
        request: bytes(row, 2, "a digest", Digest::from_slice)?,
        params: json(row, 3)?,
        launched_at: time(row, 4)?,
        tick: match row.get_ref(5)?.as_blob_or_null()? {
            None => None,
            Some(id) => Some(TickOf {
                schedule: ScheduleId::from_slice(id).ok_or_else(|| wrong(5, "a schedule id"))?,
                name: text(row, 6, "a schedule's name")?,
                nominal: time(row, 7)?,
            }),
        },
        stdin: match row.get_ref(8)?.as_blob_or_null()? {
            None => None,
            Some(digest) => Some(Digest::from_slice(digest).ok_or_else(|| wrong(8, "a digest"))?),
        },
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
    let pinned = read_pin(row, 6)?;
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
            "waiting" | "later" => TaskPhase::Waiting,
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
        refused: row
            .get_ref(30)?
            .as_blob()?
            .chunks(NODE_ID_BYTES)
            .map(|id| NodeId::from_slice(id).ok_or_else(|| wrong(30, "node ids")))
            .collect::<Result<_, _>>()?,
        failures: counter(row, 31)?,
    })
}

fn read_pin(row: &SqlRow<'_>, index: usize) -> rusqlite::Result<Option<NodeId>> {
    match row.get_ref(index)?.as_blob()? {
        [] => Ok(None),
        id => NodeId::from_slice(id)
            .map(Some)
            .ok_or_else(|| wrong(index, "a node id")),
    }
}

fn read_group(row: &SqlRow<'_>) -> rusqlite::Result<(TaskGroup, Turn)> {
    let rank: i64 = row.get(2)?;
    let priority = rank.checked_neg().and_then(|it| i32::try_from(it).ok());
    let priority = priority.ok_or_else(|| wrong(2, "a priority"))?;
    let group = TaskGroup {
        job: bytes(row, 0, "a job id", JobId::from_slice)?,
        version: Version(counter(row, 1)?),
        priority,
        pinned: read_pin(row, 3)?,
    };
    let oldest = counter(row, 4)?;
    Ok((group, Turn { priority, oldest }))
}

fn rank(turn: Turn) -> i64 {
    -i64::from(turn.priority)
}

fn node_ids(nodes: &BTreeSet<NodeId>) -> Vec<u8> {
    nodes.iter().flat_map(|node| node.to_bytes()).collect()
}

fn pin(node: Option<NodeId>) -> Vec<u8> {
    node.map(|node| blob(node.to_bytes())).unwrap_or_default()
}

/// A condition on tasks, with its two parameters.
impl SqliteStore {
    /// Of a job's groups with tasks of other runs than this one: the oldest of these and how many.
    fn fronts_but(
        &mut self,
        job: JobId,
        than: RunId,
        count: usize,
    ) -> Result<Vec<(u64, u64)>, StoreError> {
        let action = "look for what waits of a job";
        let (job, than) = (blob(job.to_bytes()), blob(than.to_bytes()));
        let same =
            "phase = it.phase AND job = it.job AND version = it.version AND priority = -it.rank
            AND pinned = it.pinned";
        let own =
            format!("(SELECT count(*) FROM task INDEXED BY task_run WHERE run = ?2 AND {same})");
        // The planner takes a partial index only where the phase is said.
        let oldest = ["waiting", "later"].map(|phase| {
            format!(
                "WHEN '{phase}' THEN (SELECT seq FROM task WHERE phase = '{phase}' AND job = it.job AND version = it.version
                    AND priority = -it.rank AND pinned = it.pinned AND run <> ?2 ORDER BY seq LIMIT 1)"
            )
        });
        let sql = format!(
            "SELECT CASE phase {} END AS first, count - {own} FROM waiting_group it WHERE job = ?1 AND count > {own}
             ORDER BY first LIMIT ?3",
            oldest.join(" ")
        );
        let limit = i64::try_from(count).unwrap_or(i64::MAX);
        self.all(action, &sql, params![job, than, limit], |row| {
            Ok((counter(row, 0)?, counter(row, 1)?))
        })
    }

    fn tasks(
        &mut self,
        action: &'static str,
        rest: &str,
        params: impl rusqlite::Params,
    ) -> Result<Vec<TaskRecord>, StoreError> {
        self.all(action, &select(TASK_COLUMNS, rest), params, read_task)
    }

    /// Ends what waits with this id in a column.
    fn end_all_waiting(
        &mut self,
        action: &'static str,
        column: &'static str,
        id: &[u8],
        end: &TaskEnd,
    ) -> Result<usize, StoreError> {
        self.note_waiting_runs(column, id)?;
        let mut ended = 0;
        // Each phase has an index of its own; the other ones lead through all that ever ran.
        for phase in ["waiting", "later"] {
            let sql = format!(
                "UPDATE task INDEXED BY task_{phase} SET phase = 'ended', end = ?2, fail = ?3, reason = ?4, ended_at = ?5
                 WHERE phase = '{phase}' AND {column} = ?1"
            );
            let params = params![
                id,
                end.state.map(|state| state.as_str()),
                end.fail.map(|fail| fail.as_str()),
                end.reason,
                end.at.0
            ];
            ended += self.execute(action, &sql, params)?;
        }
        Ok(ended)
    }
}

impl RunStore for SqliteStore {
    fn insert_run(&mut self, run: &RunRecord, tasks: &[TaskRecord]) -> Result<(), StoreError> {
        self.execute(
            "keep a run",
            "INSERT INTO run (id, key, request, params, launched_at, schedule, schedule_name, nominal, stdin)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                blob(run.id.to_bytes()),
                run.key,
                run.request.as_bytes().to_vec(),
                to_json(&run.params),
                run.launched_at.0,
                run.tick.as_ref().map(|tick| blob(tick.schedule.to_bytes())),
                run.tick.as_ref().map(|tick| tick.name.as_str()),
                run.tick.as_ref().map(|tick| tick.nominal.0),
                run.stdin.map(|digest| digest.as_bytes().to_vec())
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
        self.note_run(run.id)
    }

    fn run(&mut self, id: RunId) -> Result<Option<RunRecord>, StoreError> {
        let sql = select(RUN_COLUMNS, "run WHERE id = ?1");
        self.one("read a run", &sql, [blob(id.to_bytes())], read_run)
    }

    fn run_by_key(&mut self, key: &str) -> Result<Option<RunRecord>, StoreError> {
        let sql = select(RUN_COLUMNS, "run WHERE key = ?1");
        self.one("look a launch up", &sql, [key], read_run)
    }

    fn spent_key(&mut self, key: &str) -> Result<Option<SpentKey>, StoreError> {
        let sql = "SELECT run, request, launched_at FROM spent_key WHERE key = ?1";
        self.one("look a spent key up", sql, [key], |row| {
            Ok(SpentKey {
                run: bytes(row, 0, "a run id", RunId::from_slice)?,
                request: bytes(row, 1, "a digest", Digest::from_slice)?,
                launched_at: time(row, 2)?,
            })
        })
    }

    fn sweep_keys(&mut self, before: UnixMs, kept: usize, rows: usize) -> Result<bool, StoreError> {
        let action = "forget spent keys";
        let limit = i64::try_from(rows).unwrap_or(i64::MAX);
        let old = self.execute(
            action,
            "DELETE FROM spent_key WHERE seq IN (SELECT seq FROM spent_key WHERE launched_at < ?1 LIMIT ?2)",
            [before.0, limit],
        )?;
        let many = self.execute(
            action,
            "DELETE FROM spent_key WHERE seq IN (SELECT seq FROM spent_key
                WHERE seq <= (SELECT max(seq) FROM spent_key) - ?1 LIMIT ?2)",
            [i64::try_from(kept).unwrap_or(i64::MAX), limit],
        )?;
        Ok(old.max(many) == rows)
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

    fn stdins_of_open_runs(&mut self) -> Result<Vec<Digest>, StoreError> {
        self.all(
            "list the stdins of open runs",
            "SELECT DISTINCT stdin FROM run WHERE stdin IS NOT NULL
                AND EXISTS (SELECT 1 FROM task WHERE task.run = run.id AND task.phase IN ('waiting', 'later', 'active'))",
            [],
            |row| bytes(row, 0, "a digest", Digest::from_slice),
        )
    }

    fn progress_of_run(&mut self, run: RunId) -> Result<RunProgress, StoreError> {
        let groups = self.all(
            "count a run's tasks",
            "SELECT end, MAX(started_at IS NOT NULL), COUNT(*) FROM task WHERE run = ?1 GROUP BY end",
            [blob(run.to_bytes())],
            |row| {
                let end: Option<TaskState> = maybe_text(row, 0, "a task's end")?;
                Ok((end, row.get::<_, bool>(1)?, counter(row, 2)?))
            },
        )?;
        let mut progress = RunProgress::default();
        for (end, started, tasks) in groups {
            progress.ends.insert(end);
            progress.started |= started;
            progress.tasks += usize::try_from(tasks).unwrap_or(usize::MAX);
        }
        Ok(progress)
    }

    fn last_run_of_job(&mut self, job: JobId) -> Result<Option<RunRecord>, StoreError> {
        let sql = select(
            RUN_COLUMNS,
            "run WHERE id = (SELECT run FROM task WHERE job = ?1 ORDER BY seq DESC LIMIT 1)",
        );
        self.one("read a run", &sql, [blob(job.to_bytes())], read_run)
    }

    fn promote_tasks(&mut self, now: UnixMs, latest: UnixMs) -> Result<usize, StoreError> {
        self.execute(
            "look for tries that are due",
            "UPDATE task SET phase = 'waiting', not_before = min(not_before, ?1)
             WHERE phase = 'later' AND (not_before <= ?1 OR not_before > ?2)",
            [now.0, latest.0],
        )
    }

    fn waiting_groups(
        &mut self,
        after: Option<Turn>,
        count: usize,
    ) -> Result<Vec<(TaskGroup, Turn)>, StoreError> {
        let (rank, oldest) = after.map_or((i64::MIN, 0), |turn| (rank(turn), int(turn.oldest)));
        self.all(
            "look for waiting groups",
            "SELECT job, version, rank, pinned, oldest FROM waiting_group
             WHERE phase = 'waiting' AND (rank, oldest) > (?1, ?2) ORDER BY rank, oldest LIMIT ?3",
            params![rank, oldest, i64::try_from(count).unwrap_or(i64::MAX)],
            read_group,
        )
    }

    fn waiting_tasks(
        &mut self,
        group: TaskGroup,
        behind: Option<(u64, Option<RunId>)>,
        count: usize,
    ) -> Result<Vec<TaskRecord>, StoreError> {
        let (seq, run) = behind.unwrap_or((0, None));
        self.tasks(
            "look for waiting tasks",
            "task WHERE phase = 'waiting' AND job = ?1 AND version = ?2 AND priority = ?3 AND pinned = ?4 AND seq > ?5
                AND run IS NOT ?6
             ORDER BY seq LIMIT ?7",
            params![
                blob(group.job.to_bytes()),
                int(group.version.0),
                group.priority,
                pin(group.pinned),
                int(seq),
                run.map(|run| blob(run.to_bytes())),
                i64::try_from(count).unwrap_or(i64::MAX)
            ],
        )
    }

    fn waiting_count(&mut self, of: WaitingOf) -> Result<u64, StoreError> {
        let action = "count waiting tasks";
        let count = match of {
            // What is open and has no claim waits; active ones are as many as the limits allow.
            WaitingOf::All => self.one(
                action,
                "SELECT count - (SELECT count(*) FROM task INDEXED BY task_active WHERE phase = 'active')
                 FROM open_tasks",
                [],
                |row| counter(row, 0),
            )?,
            WaitingOf::Others { job, than } => self.one(
                action,
                "SELECT (SELECT coalesce(sum(count), 0) FROM waiting_group WHERE job = ?1)
                    - (SELECT count(*) FROM task INDEXED BY task_run
                        WHERE run = ?2 AND job = ?1 AND phase IN ('waiting', 'later'))",
                params![blob(job.to_bytes()), blob(than.to_bytes())],
                |row| counter(row, 0),
            )?,
        };
        Ok(count.unwrap_or(0))
    }

    fn waiting_fronts(
        &mut self,
        of: WaitingOf,
        count: usize,
    ) -> Result<Vec<(TaskRecord, u64)>, StoreError> {
        let found = match of {
            WaitingOf::All => self.all(
                "look for what waits",
                "SELECT oldest, count FROM waiting_group ORDER BY oldest LIMIT ?1",
                [i64::try_from(count).unwrap_or(i64::MAX)],
                |row| Ok((counter(row, 0)?, counter(row, 1)?)),
            )?,
            WaitingOf::Others { job, than } => self.fronts_but(job, than, count)?,
        };
        let mut fronts = Vec::with_capacity(found.len());
        for (seq, count) in found {
            let task = self.tasks("look for what waits", "task WHERE seq = ?1", [int(seq)])?;
            fronts.extend(task.into_iter().map(|task| (task, count)));
        }
        Ok(fronts)
    }

    fn nodes_taken(&mut self, run: RunId, job: JobId) -> Result<BTreeSet<NodeId>, StoreError> {
        let nodes = self.all(
            "look for the nodes of a run",
            // A run's tasks are bounded; those that a job ever had are not.
            "SELECT node FROM task INDEXED BY task_run
             WHERE run = ?1 AND job = ?2 AND phase IN ('active', 'ended') AND node IS NOT NULL",
            params![blob(run.to_bytes()), blob(job.to_bytes())],
            |row| bytes(row, 0, "a node id", NodeId::from_slice),
        )?;
        Ok(nodes.into_iter().collect())
    }

    fn open_tasks(&mut self) -> Result<u64, StoreError> {
        let sql = "SELECT count FROM open_tasks";
        let count = self.one("count open tasks", sql, [], |row| counter(row, 0))?;
        Ok(count.unwrap_or(0))
    }

    fn end_waiting_of_job(&mut self, job: JobId, end: &TaskEnd) -> Result<usize, StoreError> {
        let action = "end a job's waiting tasks";
        self.end_all_waiting(action, "job", &blob(job.to_bytes()), end)
    }

    fn end_waiting_for_node(&mut self, node: NodeId, end: &TaskEnd) -> Result<usize, StoreError> {
        let action = "end the tasks that wait for a node";
        self.end_all_waiting(action, "pinned", &pin(Some(node)), end)
    }

    fn active_tasks(&mut self) -> Result<Vec<TaskRecord>, StoreError> {
        self.tasks(
            "list active tasks",
            // Named, since the planner takes the table's own order for the cheaper way: all that ever were.
            "task INDEXED BY task_active WHERE phase = 'active' ORDER BY seq",
            [],
        )
    }

    fn task_of_execution(&mut self, id: ExecutionId) -> Result<Option<TaskRecord>, StoreError> {
        let rest = "task WHERE execution = ?1";
        let mut found = self.tasks("look a task up", rest, [blob(id.to_bytes())])?;
        Ok(found.pop())
    }

    fn active_counts(&mut self) -> Result<ActiveCounts, StoreError> {
        let found = self.all(
            "count active tasks",
            "SELECT node, job, pool, count(*) FROM task INDEXED BY task_active WHERE phase = 'active' GROUP BY node, job, pool",
            [],
            |row| {
                let node = bytes(row, 0, "a node id", NodeId::from_slice)?;
                let job = bytes(row, 1, "a job id", JobId::from_slice)?;
                Ok((node, job, row.get::<_, Option<String>>(2)?, counter(row, 3)?))
            },
        )?;
        let mut counts = ActiveCounts::default();
        for (node, job, pool, count) in found {
            counts.add(node, job, pool.as_deref(), count);
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
             WHERE seq = ?1 AND phase = 'waiting'
                AND (SELECT count(*) FROM task INDEXED BY task_active WHERE phase = 'active') < ?10
                AND (SELECT count(*) FROM task INDEXED BY task_active WHERE phase = 'active' AND node = ?4) < ?11
                AND (concurrency IS NULL
                    OR (SELECT count(*) FROM task other INDEXED BY task_active_job
                        WHERE other.phase = 'active' AND other.job = task.job)
                        < concurrency)
                AND (pool IS NULL
                    OR (SELECT count(*) FROM task other INDEXED BY task_active_pool
                        WHERE other.phase = 'active' AND other.pool = task.pool)
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
        if let Some(task) = &claimed {
            self.note_run(task.run)?;
        }
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
            "UPDATE task SET phase = iif(?4 IS NOT NULL, 'ended', iif(?8 > ?7, 'later', 'waiting')), end = ?4, fail = ?5,
                reason = ?6, ended_at = iif(?4 IS NULL, NULL, ?7), not_before = ?8, records_in = ?9, records_out = ?10,
                refused = ?11, failures = ?12,
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
                int(end.records_out),
                node_ids(&end.refused),
                int(end.failures)
            ],
        )?;
        self.note_run_of_task(seq)?;
        Ok(done == 1)
    }

    fn end_waiting(&mut self, seq: u64, end: &TaskEnd) -> Result<bool, StoreError> {
        let done = self.execute(
            "end a waiting task",
            "UPDATE task SET phase = 'ended', end = ?2, fail = ?3, reason = ?4, ended_at = ?5
             WHERE seq = ?1 AND phase IN ('waiting', 'later')",
            params![
                int(seq),
                end.state.map(|state| state.as_str()),
                end.fail.map(|fail| fail.as_str()),
                end.reason,
                end.at.0
            ],
        )?;
        self.note_run_of_task(seq)?;
        Ok(done == 1)
    }

    fn set_stopping(
        &mut self,
        seq: u64,
        worker: &str,
        fence: Fence,
        why: Stopping,
        reason: &str,
    ) -> Result<bool, StoreError> {
        let word = match why {
            Stopping::Cancelled => "cancelled",
            Stopping::TimedOut => "timed-out",
            Stopping::Drained => "drained",
        };
        let done = self.execute(
            "order a task to stop",
            "UPDATE task SET stopping = ?4, reason = ?5
             WHERE seq = ?1 AND phase = 'active' AND claimed_by = ?2 AND fence = ?3",
            params![int(seq), worker, int(fence.0), word, reason],
        )?;
        self.note_run_of_task(seq)?;
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

    fn crowded(&mut self, kept: usize) -> Result<Vec<(JobId, NodeId)>, StoreError> {
        self.all(
            "look for nodes with many tries",
            "SELECT job, node FROM execution WHERE slot > 0 AND desired <> 'purge'
             GROUP BY job, node HAVING count(*) > ?1",
            [i64::try_from(kept).unwrap_or(i64::MAX)],
            |row| {
                let job = bytes(row, 0, "a job id", JobId::from_slice)?;
                Ok((job, bytes(row, 1, "a node id", NodeId::from_slice)?))
            },
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

    fn sweep_runs(
        &mut self,
        after: u64,
        kept: Kept,
        rows: usize,
    ) -> Result<(u64, bool), StoreError> {
        let action = "forget old runs";
        let count = |kept: usize| i64::try_from(kept).unwrap_or(i64::MAX);
        // A run's tasks have numbers one after the other, as runs have: what is older than either mark lies before it.
        let last = self.one(
            action,
            "SELECT max(
                coalesce((SELECT max(seq) FROM run), 0) - ?1,
                coalesce((SELECT run.seq - 1 FROM task CROSS JOIN run ON run.id = task.run
                    WHERE task.seq > (SELECT max(seq) FROM task) - ?2 ORDER BY task.seq LIMIT 1), 0))",
            [count(kept.runs), count(kept.tasks)],
            |row| row.get::<_, i64>(0),
        )?;
        let last = last.unwrap_or(0);
        let (mut at, mut read) = (after, 0);
        // One by one: how many rows a run has is known only then.
        while read < rows {
            let next = self.one(
                action,
                "SELECT seq, (SELECT count(*) FROM task INDEXED BY task_run WHERE task.run = run.id),
                    EXISTS (SELECT 1 FROM task INDEXED BY task_run WHERE task.run = run.id AND phase <> 'ended')
                 FROM run WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT 1",
                [int(at), last],
                |row| Ok((counter(row, 0)?, counter(row, 1)?, row.get::<_, bool>(2)?)),
            )?;
            let Some((seq, tasks, is_open)) = next else {
                return Ok((at, false));
            };
            if !is_open {
                self.execute(
                    action,
                    "INSERT INTO spent_key (key, run, request, launched_at)
                     SELECT key, id, request, launched_at FROM run WHERE seq = ?1 AND key IS NOT NULL",
                    [int(seq)],
                )?;
                self.execute(action, "DELETE FROM run WHERE seq = ?1", [int(seq)])?;
            }
            at = seq;
            read += 1 + usize::try_from(tasks).unwrap_or(rows);
        }
        Ok((at, true))
    }

    fn sweep_specs(
        &mut self,
        after: Option<Digest>,
        count: usize,
    ) -> Result<Option<Digest>, StoreError> {
        let from = after.map_or_else(Vec::new, |after| after.as_bytes().to_vec());
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let last = self.one(
            "look at specs",
            "SELECT digest FROM spec WHERE digest > ?1 ORDER BY digest LIMIT 1 OFFSET ?2 - 1",
            params![from, count],
            |row| bytes(row, 0, "a digest", Digest::from_slice),
        )?;
        self.forget_specs(&from, count)?;
        Ok(last)
    }
}
