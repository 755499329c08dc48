//! Notes what a write changes, by its name, while that can still be looked up.
//!
//! These look-ups are no steps of the store's own: nothing else depends on what they find.

use rusqlite::{OptionalExtension as _, Row as SqlRow};
use sluice_model::{ExecutionId, JobId, JobName, NodeId, RunId, ScheduleId};

use super::rows::{blob, bytes, int, text};
use super::{SqliteStore, failed};
use crate::store::changes::Changed;
use crate::store::{StoreError, changes::CHANGES_MAX};

const ACTION: &str = "look up what changed";

impl SqliteStore {
    fn found<T>(
        &self,
        sql: &str,
        key: impl rusqlite::ToSql,
        read: impl FnOnce(&SqlRow<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        if self.told.is_everything() {
            return Ok(None);
        }
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row([key], read).optional())
            .map_err(failed(ACTION))
    }

    pub(super) fn note_node(&mut self, id: NodeId) -> Result<(), StoreError> {
        let sql = "SELECT name FROM node WHERE id = ?1";
        let read = |row: &SqlRow<'_>| text(row, 0, "a node name");
        if let Some(name) = self.found(sql, blob(id.to_bytes()), read)? {
            self.told.add(Changed::Node(name));
        }
        Ok(())
    }

    pub(super) fn note_job(&mut self, id: JobId) -> Result<(), StoreError> {
        let sql = "SELECT name FROM job WHERE id = ?1";
        let read = |row: &SqlRow<'_>| text(row, 0, "a job name");
        if let Some(name) = self.found(sql, blob(id.to_bytes()), read)? {
            self.told.add(Changed::Job(name));
        }
        Ok(())
    }

    /// With its job, whose state follows from those of its executions.
    pub(super) fn note_execution(&mut self, id: ExecutionId) -> Result<(), StoreError> {
        let sql = "SELECT job.name, node.name FROM execution JOIN job ON job.id = execution.job
             JOIN node ON node.id = execution.node WHERE execution.id = ?1";
        let read = |row: &SqlRow<'_>| {
            let job: JobName = text(row, 0, "a job name")?;
            Ok((job, text(row, 1, "a node name")?))
        };
        if let Some((job, node)) = self.found(sql, blob(id.to_bytes()), read)? {
            let named = job.clone();
            self.told.add(Changed::Execution { id, job, node });
            self.told.add(Changed::Job(named));
        }
        Ok(())
    }

    /// With its jobs, whose states follow from that of their last run.
    pub(super) fn note_run(&mut self, id: RunId) -> Result<(), StoreError> {
        if self.told.is_everything() || self.told.has_run(id) {
            return Ok(());
        }
        let mut statement = self
            .connection
            .prepare_cached("SELECT DISTINCT job_name FROM task WHERE run = ?1")
            .map_err(failed(ACTION))?;
        let names = statement
            .query_map([blob(id.to_bytes())], |row| text(row, 0, "a job name"))
            .map_err(failed(ACTION))?;
        let jobs: Vec<JobName> = names.collect::<Result<_, _>>().map_err(failed(ACTION))?;
        drop(statement);
        let named = jobs.clone();
        self.told.add(Changed::Run { id, jobs });
        for job in named {
            self.told.add(Changed::Job(job));
        }
        Ok(())
    }

    pub(super) fn note_run_of_task(&mut self, seq: u64) -> Result<(), StoreError> {
        let sql = "SELECT run FROM task WHERE seq = ?1";
        let read = |row: &SqlRow<'_>| bytes(row, 0, "a run id", RunId::from_slice);
        match self.found(sql, int(seq), read)? {
            Some(run) => self.note_run(run),
            None => Ok(()),
        }
    }

    pub(super) fn note_run_of_output(&mut self, execution: ExecutionId) -> Result<(), StoreError> {
        let sql = "SELECT run FROM output WHERE execution = ?1";
        let read = |row: &SqlRow<'_>| bytes(row, 0, "a run id", RunId::from_slice);
        match self.found(sql, blob(execution.to_bytes()), read)? {
            Some(run) => self.note_run(run),
            None => Ok(()),
        }
    }

    /// The runs with tasks that wait and have this id in a column.
    pub(super) fn note_waiting_runs(
        &mut self,
        column: &'static str,
        id: &[u8],
    ) -> Result<(), StoreError> {
        let runs: Vec<RunId> = {
            // By the phases' own indexes: the other ones lead through all that ever ran.
            let sql = format!(
                "SELECT run FROM task INDEXED BY task_waiting WHERE phase = 'waiting' AND {column} = ?1
                 UNION SELECT run FROM task INDEXED BY task_later WHERE phase = 'later' AND {column} = ?1 LIMIT ?2"
            );
            let mut statement = self
                .connection
                .prepare_cached(&sql)
                .map_err(failed(ACTION))?;
            let count = i64::try_from(CHANGES_MAX + 1).unwrap_or(i64::MAX);
            let runs = statement
                .query_map(rusqlite::params![id, count], |row| {
                    bytes(row, 0, "a run id", RunId::from_slice)
                })
                .map_err(failed(ACTION))?;
            runs.collect::<Result<_, _>>().map_err(failed(ACTION))?
        };
        runs.into_iter().try_for_each(|run| self.note_run(run))
    }

    pub(super) fn note_schedule(&mut self, id: ScheduleId) -> Result<(), StoreError> {
        let sql = "SELECT name, job FROM schedule WHERE id = ?1";
        let read = |row: &SqlRow<'_>| {
            let job: JobName = text(row, 1, "a job name")?;
            Ok((text(row, 0, "a schedule name")?, job))
        };
        if let Some((name, job)) = self.found(sql, blob(id.to_bytes()), read)? {
            self.told.add(Changed::Schedule { name, job });
        }
        Ok(())
    }
}
