//! One statement at a time: each may be failed by a test before it happens, and is counted in tests.

use rusqlite::{OptionalExtension as _, Row as SqlRow};

use super::super::StoreError;
use super::{SqliteStore, failed};

impl SqliteStore {
    pub(super) fn fault(&mut self, point: &'static str) -> Result<(), StoreError> {
        if let Some(hook) = &mut self.fault {
            hook(point)?;
        }
        self.steps.step(point);
        Ok(())
    }

    /// What steps have cost so far, in instructions of SQLite's machine.
    #[cfg(test)]
    pub(crate) fn work(&self) -> u64 {
        self.work
    }

    pub(super) fn execute(
        &mut self,
        action: &'static str,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<usize, StoreError> {
        self.fault(action)?;
        let mut statement = self
            .connection
            .prepare_cached(sql)
            .map_err(failed(action))?;
        let rows = statement.execute(params).map_err(failed(action))?;
        #[cfg(test)]
        {
            self.work += cost_of(&statement);
        }
        self.changed |= rows > 0;
        Ok(rows)
    }

    pub(super) fn one<T>(
        &mut self,
        action: &'static str,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnOnce(&SqlRow<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        self.fault(action)?;
        let mut statement = self
            .connection
            .prepare_cached(sql)
            .map_err(failed(action))?;
        let found = statement.query_row(params, read).optional();
        #[cfg(test)]
        {
            self.work += cost_of(&statement);
        }
        found.map_err(failed(action))
    }

    pub(super) fn all<T>(
        &mut self,
        action: &'static str,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnMut(&SqlRow<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        self.fault(action)?;
        let mut statement = self
            .connection
            .prepare_cached(sql)
            .map_err(failed(action))?;
        let rows = statement.query_map(params, read).map_err(failed(action))?;
        let found = rows.collect::<Result<_, _>>();
        #[cfg(test)]
        {
            self.work += cost_of(&statement);
        }
        found.map_err(failed(action))
    }
}

#[cfg(test)]
fn cost_of(statement: &rusqlite::Statement<'_>) -> u64 {
    let steps = statement.reset_status(rusqlite::StatementStatus::VmStep);
    u64::try_from(steps).unwrap_or(0)
}
