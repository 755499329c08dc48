//! Outputs of runs' tasks in SQLite.

use rusqlite::{Row as SqlRow, params};
use sluice_model::{Digest, ExecutionId, NodeId, OutputFacts, RunId, UnixMs};

use super::super::StoreError;
use super::super::outputs::{OutputRecord, OutputStore, OutputTotals, OutputWhere};
use super::SqliteStore;
use super::rows::{blob, bytes, counter, int, select, time, wrong};

const COLUMNS: &str = "execution, run, node, digest, bytes, dropped, state, reason, at";

fn read_output(row: &SqlRow<'_>) -> rusqlite::Result<OutputRecord> {
    Ok(OutputRecord {
        execution: bytes(row, 0, "an execution id", ExecutionId::from_slice)?,
        run: bytes(row, 1, "a run id", RunId::from_slice)?,
        node: bytes(row, 2, "a node id", NodeId::from_slice)?,
        facts: OutputFacts {
            digest: bytes(row, 3, "a digest", Digest::from_slice)?,
            bytes: counter(row, 4)?,
            dropped: counter(row, 5)?,
        },
        held: match row.get_ref(6)?.as_str()? {
            "lacking" => OutputWhere::Lacking,
            "held" => OutputWhere::Held,
            "gone" => OutputWhere::Gone {
                reason: row.get(7)?,
            },
            _ => return Err(wrong(6, "where an output is")),
        },
        at: time(row, 8)?,
    })
}

impl OutputStore for SqliteStore {
    fn put_output(&mut self, output: &OutputRecord) -> Result<(), StoreError> {
        let (state, reason) = match &output.held {
            OutputWhere::Lacking if output.facts.bytes == 0 => ("held", ""),
            OutputWhere::Lacking => ("lacking", ""),
            OutputWhere::Held => ("held", ""),
            OutputWhere::Gone { reason } => ("gone", reason.as_str()),
        };
        self.execute(
            "keep what is known of an output",
            "INSERT INTO output (execution, run, node, digest, bytes, dropped, state, reason, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
            params![
                blob(output.execution.to_bytes()),
                blob(output.run.to_bytes()),
                blob(output.node.to_bytes()),
                output.facts.digest.as_bytes().to_vec(),
                int(output.facts.bytes),
                int(output.facts.dropped),
                state,
                reason,
                output.at.0
            ],
        )?;
        Ok(())
    }

    fn output(&mut self, execution: ExecutionId) -> Result<Option<OutputRecord>, StoreError> {
        let sql = select(COLUMNS, "output WHERE execution = ?1");
        let key = [blob(execution.to_bytes())];
        self.one("look an output up", &sql, key, read_output)
    }

    fn outputs_of_run(&mut self, run: RunId) -> Result<Vec<OutputRecord>, StoreError> {
        let sql = select(COLUMNS, "output WHERE run = ?1 ORDER BY seq");
        let key = [blob(run.to_bytes())];
        self.all("list a run's outputs", &sql, key, read_output)
    }

    fn lacking_outputs(&mut self, count: usize) -> Result<Vec<OutputRecord>, StoreError> {
        let action = "look for outputs that lack";
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let of_node = select(
            COLUMNS,
            "output WHERE state = 'lacking' AND node = ?1 ORDER BY seq LIMIT ?2",
        );
        let mut lacking = Vec::new();
        let mut node = Vec::<u8>::new();
        // From node to node along the index, however many lack of each.
        loop {
            let next = self.one(
                action,
                "SELECT node FROM output WHERE state = 'lacking' AND node > ?1 ORDER BY node LIMIT 1",
                [&node],
                |row| row.get::<_, Vec<u8>>(0),
            )?;
            let Some(next) = next else { break };
            node = next;
            lacking.extend(self.all(action, &of_node, params![node, count], read_output)?);
        }
        Ok(lacking)
    }

    fn hold_output(&mut self, execution: ExecutionId, now: UnixMs) -> Result<bool, StoreError> {
        let done = self.execute(
            "note that an output is here",
            "UPDATE output SET state = 'held', at = ?2 WHERE execution = ?1 AND state = 'lacking'",
            params![blob(execution.to_bytes()), now.0],
        )?;
        if done == 1 {
            self.note_run_of_output(execution)?;
        }
        Ok(done == 1)
    }

    fn lose_output(
        &mut self,
        execution: ExecutionId,
        reason: &str,
        now: UnixMs,
    ) -> Result<bool, StoreError> {
        let done = self.execute(
            "note that an output is gone",
            "UPDATE output SET state = 'gone', reason = ?2, at = ?3 WHERE execution = ?1 AND state = 'lacking'",
            params![blob(execution.to_bytes()), reason, now.0],
        )?;
        if done == 1 {
            self.note_run_of_output(execution)?;
        }
        Ok(done == 1)
    }

    fn lose_outputs_of_node(
        &mut self,
        node: NodeId,
        reason: &str,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        self.execute(
            "note that a node's outputs are gone",
            "UPDATE output SET state = 'gone', reason = ?2, at = ?3 WHERE node = ?1 AND state = 'lacking'",
            params![blob(node.to_bytes()), reason, now.0],
        )?;
        Ok(())
    }

    fn drop_output(&mut self, execution: ExecutionId) -> Result<(), StoreError> {
        self.execute(
            "forget an output",
            "DELETE FROM output WHERE execution = ?1",
            [blob(execution.to_bytes())],
        )?;
        Ok(())
    }

    fn retire_outputs(
        &mut self,
        before: UnixMs,
        reason: &str,
        now: UnixMs,
        count: usize,
    ) -> Result<usize, StoreError> {
        self.execute(
            "let old outputs go",
            "UPDATE output SET state = 'gone', reason = ?2, at = ?3 WHERE seq IN (
                SELECT seq FROM output WHERE state = 'held' AND bytes > 0 AND at < ?1 ORDER BY at, seq LIMIT ?4)",
            params![before.0, reason, now.0, bound(count)],
        )
    }

    fn shrink_outputs(
        &mut self,
        bytes_max: u64,
        reason: &str,
        now: UnixMs,
        count: usize,
    ) -> Result<usize, StoreError> {
        let action = "let outputs make room";
        let mut went = 0;
        // Of outputs with one content the newest counts: the content goes with the last that has it.
        while went < count && self.output_totals()?.held_bytes > bytes_max {
            let oldest = self.one(
                action,
                "SELECT digest FROM content ORDER BY newest LIMIT 1",
                [],
                |row| row.get::<_, Vec<u8>>(0),
            )?;
            let Some(oldest) = oldest else { break };
            let more = self.execute(
                action,
                "UPDATE output SET state = 'gone', reason = ?2, at = ?3 WHERE seq IN (
                    SELECT seq FROM output WHERE digest = ?1 AND state <> 'gone' AND state = 'held' ORDER BY seq LIMIT ?4)",
                params![oldest, reason, now.0, bound(count - went)],
            )?;
            if more == 0 {
                break;
            }
            went += more;
        }
        Ok(went)
    }

    fn dropped_contents(&mut self, count: usize) -> Result<(usize, Vec<Digest>), StoreError> {
        let action = "look for contents that nothing has";
        let dropped = self.all(
            action,
            "SELECT digest FROM content_dropped LIMIT ?1",
            [bound(count)],
            |row| bytes(row, 0, "a digest", Digest::from_slice),
        )?;
        for digest in &dropped {
            self.execute(
                action,
                "DELETE FROM content_dropped WHERE digest = ?1",
                [digest.as_bytes().to_vec()],
            )?;
        }
        Ok((dropped.len(), self.unnamed_contents(&dropped)?))
    }

    fn unnamed_contents(&mut self, of: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let mut unnamed = Vec::new();
        for digest in of {
            let named = self.one(
                "look whether an output has a content",
                "SELECT 1 FROM output WHERE digest = ?1 AND state <> 'gone' LIMIT 1",
                [digest.as_bytes().to_vec()],
                |_| Ok(()),
            )?;
            if named.is_none() {
                unnamed.push(*digest);
            }
        }
        Ok(unnamed)
    }

    fn output_totals(&mut self) -> Result<OutputTotals, StoreError> {
        let totals = self.one(
            "count outputs",
            "SELECT lacking, held, gone, held_bytes FROM output_totals",
            [],
            |row| {
                Ok(OutputTotals {
                    lacking: counter(row, 0)?,
                    held: counter(row, 1)?,
                    gone: counter(row, 2)?,
                    held_bytes: counter(row, 3)?,
                })
            },
        )?;
        Ok(totals.unwrap_or_default())
    }
}

fn bound(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
