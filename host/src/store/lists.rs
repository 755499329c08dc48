//! Parts of tables, in an order of their own, for lists that come in pages: each verb looks at about as many rows as it
//! gives, however large the table is.

use sluice_model::{JobId, JobName, NodeId, NodeName, Slot};

use super::{ExecutionRecord, JobRecord, NodeRecord, RunRecord, RunsOf, StoreError};

/// An execution's place; lists of executions are ordered by it.
pub type Place = (JobId, NodeId, Slot);

/// The verbs for lists. As with [`super::Store`], nothing reads a clock, and every call may block for the disk.
pub trait ListStore {
    /// Nodes by name, those behind `after`, at most `count`.
    fn nodes_after(
        &mut self,
        after: Option<&NodeName>,
        count: usize,
    ) -> Result<Vec<NodeRecord>, StoreError>;
    /// Jobs that are not deleted, by name, those behind `after`, at most `count`.
    fn jobs_after(
        &mut self,
        after: Option<&JobName>,
        count: usize,
    ) -> Result<Vec<JobRecord>, StoreError>;
    /// Executions by place, of one job or of all, deleted ones too, those behind `after`, at most `count`.
    fn executions_after(
        &mut self,
        job: Option<JobId>,
        after: Option<Place>,
        count: usize,
    ) -> Result<Vec<ExecutionRecord>, StoreError>;
    /// Runs, the newest first, at most `count`, each with the mark to go on behind it: those behind `before`. Marks of
    /// all runs and of those of a job are different ones.
    fn runs_before(
        &mut self,
        of: RunsOf,
        before: Option<u64>,
        count: usize,
    ) -> Result<Vec<(u64, RunRecord)>, StoreError>;
}
