//! Parts of tables in SQLite, each along an index.

use rusqlite::params;
use sluice_model::{JobId, JobName, NodeName, RunId};

use super::super::lists::{ListStore, Place};
use super::super::{
    ExecutionRecord, JobRecord, NodeRecord, RunRecord, RunStore as _, RunsOf, StoreError,
};
use super::SqliteStore;
use super::rows::{
    EXECUTION_COLUMNS, JOB_COLUMNS, NODE_COLUMNS, blob, bytes, counter, int, read_execution,
    read_job, read_node, select,
};

fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl ListStore for SqliteStore {
    fn nodes_after(
        &mut self,
        after: Option<&NodeName>,
        count: usize,
    ) -> Result<Vec<NodeRecord>, StoreError> {
        let sql = select(NODE_COLUMNS, "node WHERE name > ?1 ORDER BY name LIMIT ?2");
        let after = after.map_or("", NodeName::as_str);
        self.all("list nodes", &sql, params![after, limit(count)], read_node)
    }

    fn jobs_after(
        &mut self,
        after: Option<&JobName>,
        count: usize,
    ) -> Result<Vec<JobRecord>, StoreError> {
        let sql = select(
            JOB_COLUMNS,
            "job WHERE deleted = 0 AND name > ?1 ORDER BY name LIMIT ?2",
        );
        let after = after.map_or("", JobName::as_str);
        self.all("list jobs", &sql, params![after, limit(count)], read_job)
    }

    fn executions_after(
        &mut self,
        job: Option<JobId>,
        after: Option<Place>,
        count: usize,
    ) -> Result<Vec<ExecutionRecord>, StoreError> {
        let action = "list executions";
        let count = limit(count);
        // Nothing sorts before an empty blob, and slots are never negative.
        let (after_job, node, slot) = match after {
            Some((job, node, slot)) => (
                blob(job.to_bytes()),
                blob(node.to_bytes()),
                i64::try_from(slot.0).unwrap_or(i64::MAX),
            ),
            None => (Vec::new(), Vec::new(), -1),
        };
        match job {
            Some(job) => {
                let sql = select(
                    EXECUTION_COLUMNS,
                    "execution WHERE job = ?1 AND (node, slot) > (?2, ?3) ORDER BY node, slot LIMIT ?4",
                );
                let params = params![blob(job.to_bytes()), node, slot, count];
                self.all(action, &sql, params, read_execution)
            }
            None => {
                let sql = select(
                    EXECUTION_COLUMNS,
                    "execution WHERE (job, node, slot) > (?1, ?2, ?3) ORDER BY job, node, slot LIMIT ?4",
                );
                let params = params![after_job, node, slot, count];
                self.all(action, &sql, params, read_execution)
            }
        }
    }

    fn runs_before(
        &mut self,
        of: RunsOf,
        before: Option<u64>,
        count: usize,
    ) -> Result<Vec<(u64, RunRecord)>, StoreError> {
        let action = "list runs";
        let mut before = before.map_or(i64::MAX, |mark| i64::try_from(mark).unwrap_or(i64::MAX));
        let mut marks: Vec<(u64, RunId)> = Vec::new();
        match of {
            RunsOf::All => {
                marks = self.all(
                    action,
                    "SELECT seq, id FROM run WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2",
                    params![before, limit(count)],
                    |row| {
                        Ok((
                            counter(row, 0)?,
                            bytes(row, 1, "a run id", RunId::from_slice)?,
                        ))
                    },
                )?;
            }
            // A launch stores its tasks together, so those of one run and one job stand side by side: from run to run
            // along the index, however many tasks each has. The mark is the first of them.
            RunsOf::Job(job) => {
                let job = blob(job.to_bytes());
                while marks.len() < count {
                    let found = self.one(
                        action,
                        "SELECT (SELECT MIN(seq) FROM task WHERE run = newest.run AND job = ?1), newest.run
                         FROM (SELECT run FROM task WHERE job = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT 1) AS newest",
                        params![job, before],
                        |row| {
                            Ok((
                                counter(row, 0)?,
                                bytes(row, 1, "a run id", RunId::from_slice)?,
                            ))
                        },
                    )?;
                    let Some((mark, run)) = found else { break };
                    before = int(mark);
                    marks.push((mark, run));
                }
            }
        }
        let mut runs = Vec::with_capacity(marks.len());
        for (mark, id) in marks {
            if let Some(run) = self.run(id)? {
                runs.push((mark, run));
            }
        }
        Ok(runs)
    }
}
