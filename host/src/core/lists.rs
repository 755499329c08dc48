//! Lists in pages.
//!
//! A page is made of rows along an index, from where the page before ended. Filters are applied to what was read, and
//! how much is read for one page is bounded: a page of a strict filter may be short, or empty, and have a next one.

use std::collections::{BTreeMap, BTreeSet};

use sluice_api::{
    AUDIT_NAME_CHARS_MAX, AuditEntry, AuditQuery, Cursor, ErrorBody, ErrorCode, Execution,
    ExecutionFilter, JobFilter, NodeFilter, Page, RunFilter, page_items,
};
use sluice_model::{Desired, ExecutionId, JobId, JobName, NodeName, Slot, UnixMs};

use super::Core;
use super::operator::{Called, Reply, no_job, no_node};
use super::runs::state_of;
use super::view::Nodes;

use crate::store::{AuditOf, ExecutionRecord, Place, RunsOf, Store, StoreError};

/// Rows that are read for one page when a filter leaves few of them.
const SCANNED_MAX: usize = 2_000;

/// Tasks that are read for one page of runs: ten of the largest launches, each shown as some 400 bytes.
const TASKS_SCANNED_MAX: usize = 10_000;

/// Jobs in one page at most: to show one, its executions are counted.
const JOBS_MAX: usize = 200;

/// Ends the whole answer with what a client did wrong.
macro_rules! or_refuse {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return Ok(Err(error)),
        }
    };
}

/// A page's items, and the key of the row behind which the next one begins.
type Part<T, K> = (Vec<T>, Option<K>);

impl<S: Store> Core<S> {
    /// Collects one page: `read` gives rows behind a key, each with its own; `show` says what they are shown as, if at
    /// all. It may do so for the first ones only: these are then the page's last.
    fn page<K, R, T>(
        &mut self,
        limit: usize,
        start: Option<K>,
        mut read: impl FnMut(&mut Self, Option<&K>, usize) -> Result<Vec<(K, R)>, StoreError>,
        mut show: impl FnMut(&mut Self, Vec<R>) -> Result<Vec<Option<T>>, StoreError>,
    ) -> Result<Part<T, K>, StoreError> {
        let (mut items, mut last, mut scanned) = (Vec::new(), start, 0);
        loop {
            // One more than there is room for: it tells whether something follows.
            let asked = (limit - items.len() + 1).min(SCANNED_MAX - scanned);
            let rows = read(self, last.as_ref(), asked)?;
            let at_end = rows.len() < asked;
            scanned += rows.len();
            let (keys, rows): (Vec<K>, Vec<R>) = rows.into_iter().unzip();
            let shown = show(self, rows)?;
            let is_cut = shown.len() < keys.len();
            for (key, shown) in keys.into_iter().zip(shown) {
                if items.len() == limit {
                    return Ok((items, last));
                }
                items.extend(shown);
                last = Some(key);
            }
            if at_end && !is_cut {
                return Ok((items, None));
            }
            if scanned >= SCANNED_MAX || is_cut {
                return Ok((items, last));
            }
        }
    }

    pub(super) fn list_nodes(&mut self, filter: &NodeFilter) -> Result<Called, StoreError> {
        let limit = or_refuse!(page_items(filter.limit));
        let label = or_refuse!(filter.label.as_deref().map(wanted_label).transpose());
        let after: Option<NodeName> = match or_refuse!(keys(&filter.cursor)) {
            Some([name]) => Some(or_refuse!(Cursor::key(&name))),
            None => None,
        };
        let (items, next) = self.page(
            limit,
            after,
            |core, after, count| {
                let records = core.store.nodes_after(after, count)?;
                Ok(records
                    .into_iter()
                    .map(|record| (record.name.clone(), record))
                    .collect())
            },
            |core, records| {
                let shown = records.iter().map(|record| core.show_node(record));
                let fits = |node: &sluice_api::Node| {
                    filter.state.is_none_or(|state| node.state == state)
                        && label.as_ref().is_none_or(|(key, value)| {
                            let has = node.labels.get(key);
                            has.is_some_and(|has| value.as_ref().is_none_or(|value| has == value))
                        })
                };
                Ok(shown.map(|node| Some(node).filter(fits)).collect())
            },
        )?;
        let next = next.map(|name| Cursor::of(&[name.as_str()]));
        Ok(Ok(Reply::Nodes(Page { items, next })))
    }

    pub(super) fn list_jobs(
        &mut self,
        filter: &JobFilter,
        now: UnixMs,
    ) -> Result<Called, StoreError> {
        let limit = or_refuse!(page_items(filter.limit)).min(JOBS_MAX);
        let after: Option<JobName> = match or_refuse!(keys(&filter.cursor)) {
            Some([name]) => Some(or_refuse!(Cursor::key(&name))),
            None => None,
        };
        let nodes = self.all_nodes()?;
        let mut records = self.store.jobs_after(after.as_ref(), limit + 1)?;
        let more = records.len() > limit;
        records.truncate(limit);
        let mut items = Vec::new();
        for record in &records {
            let views = self.views_of_job(record, &nodes)?;
            let job = self.show_job(record, &views, now)?.0;
            let fits = filter.state.is_none_or(|state| job.state == state);
            items.extend(fits.then_some(job));
        }
        let last = records.last().filter(|_| more);
        let next = last.map(|last| Cursor::of(&[last.name.as_str()]));
        Ok(Ok(Reply::Jobs(Page { items, next })))
    }

    pub(super) fn list_executions(
        &mut self,
        filter: &ExecutionFilter,
    ) -> Result<Called, StoreError> {
        let limit = or_refuse!(page_items(filter.limit));
        let job = match &filter.job {
            None => None,
            Some(name) => match self.store.job_by_name(name)? {
                Some(job) => Some(job.id),
                None => return Ok(Err(no_job(name))),
            },
        };
        let node = match &filter.node {
            None => None,
            Some(name) => match self.store.node_by_name(name)? {
                Some(node) => Some(node.id),
                None => return Ok(Err(no_node(name))),
            },
        };
        let start: Option<Place> = match or_refuse!(keys(&filter.cursor)) {
            Some([job, node, slot]) => Some((
                or_refuse!(Cursor::key(&job)),
                or_refuse!(Cursor::key(&node)),
                Slot(or_refuse!(Cursor::key(&slot))),
            )),
            None => None,
        };
        // A node has few executions, and no index has them by place.
        let of_node = match (node, job) {
            (Some(node), None) => {
                let mut records = self.store.executions_of_node(node)?;
                records.sort_by_key(place);
                Some(records)
            }
            _ => None,
        };
        let (mut items, next) = self.page(
            limit,
            start,
            |core, after, count| {
                let records: Vec<ExecutionRecord> = match &of_node {
                    Some(records) => records
                        .iter()
                        .filter(|record| after.is_none_or(|after| place(record) > *after))
                        .take(count)
                        .cloned()
                        .collect(),
                    None => core.store.executions_after(job, after.copied(), count)?,
                };
                Ok(records
                    .into_iter()
                    .map(|record| (place(&record), record))
                    .collect())
            },
            |core, records| {
                let ids: Vec<ExecutionId> = records.iter().map(|record| record.id).collect();
                let wanted = records.into_iter().filter(|record| {
                    node.is_none_or(|node| record.node == node)
                        && (filter.all || record.desired == Desired::Run)
                });
                let mut shown = core.show_portion(wanted, filter.all)?;
                shown.retain(|_, it| filter.state.is_none_or(|state| it.state == state));
                Ok(ids.iter().map(|id| shown.remove(id)).collect())
            },
        )?;
        items.sort_by(|a, b| (&a.job, &a.node, a.slot).cmp(&(&b.job, &b.node, b.slot)));
        let next = next.map(|(job, node, slot)| {
            Cursor::of(&[&job.to_string(), &node.to_string(), &slot.to_string()])
        });
        Ok(Ok(Reply::Executions(Page { items, next })))
    }

    /// Executions as a list shows them; those of deleted jobs only if `deleted` ones are wanted.
    fn show_portion(
        &mut self,
        records: impl Iterator<Item = ExecutionRecord>,
        deleted: bool,
    ) -> Result<BTreeMap<ExecutionId, Execution>, StoreError> {
        let mut by_job: BTreeMap<JobId, Vec<ExecutionRecord>> = BTreeMap::new();
        let mut named = BTreeSet::new();
        for record in records {
            named.insert(record.node);
            by_job.entry(record.job).or_default().push(record);
        }
        let mut nodes = Nodes::new();
        for id in named {
            nodes.extend(self.store.node(id)?.map(|node| (id, node)));
        }
        let mut shown = BTreeMap::new();
        for (id, records) in by_job {
            let Some(job) = self.store.job(id)?.filter(|job| deleted || !job.deleted) else {
                continue;
            };
            for viewed in self.explained_views(&job, records, &nodes)? {
                let execution = self.show_execution(&job.name, &viewed, &nodes);
                shown.insert(execution.id, execution);
            }
        }
        Ok(shown)
    }

    pub(super) fn list_runs(
        &mut self,
        filter: &RunFilter,
        now: UnixMs,
    ) -> Result<Called, StoreError> {
        let limit = or_refuse!(page_items(filter.limit));
        let of = match &filter.job {
            None => RunsOf::All,
            Some(name) => match self.store.job_by_name(name)? {
                Some(job) => RunsOf::Job(job.id),
                None => return Ok(Err(no_job(name))),
            },
        };
        let before: Option<u64> = match or_refuse!(keys(&filter.cursor)) {
            Some([mark]) => Some(or_refuse!(Cursor::key(&mark))),
            None => None,
        };
        let mut tasks = 0;
        let (items, next) = self.page(
            limit,
            before,
            |core, before, count| core.store.runs_before(of, before.copied(), count),
            |core, runs| {
                let mut shown = Vec::with_capacity(runs.len());
                for run in &runs {
                    if tasks >= TASKS_SCANNED_MAX {
                        break;
                    }
                    let progress = core.store.progress_of_run(run.id)?;
                    tasks += progress.tasks;
                    let state = state_of(&progress);
                    shown.push(match filter.state {
                        Some(wanted) if wanted != state => None,
                        _ => Some(core.show_run(run, now)?),
                    });
                }
                Ok(shown)
            },
        )?;
        let next = next.map(|mark| Cursor::of(&[&mark.to_string()]));
        Ok(Ok(Reply::Runs(Page { items, next })))
    }

    pub(super) fn read_audit(&mut self, query: &AuditQuery) -> Result<Called, StoreError> {
        let limit = query.limit.unwrap_or(sluice_api::AUDIT_LIMIT_DEFAULT);
        let limit = or_refuse!(page_items(Some(limit)));
        let before: Option<u64> = match or_refuse!(keys(&query.cursor)) {
            Some([id]) => Some(or_refuse!(Cursor::key(&id))),
            None => query.before,
        };
        for (what, name) in [("token", &query.token), ("operation", &query.operation)] {
            if name
                .as_ref()
                .is_some_and(|it| it.chars().count() > AUDIT_NAME_CHARS_MAX)
            {
                let message = format!("`{what}` has at most {AUDIT_NAME_CHARS_MAX} characters");
                return Ok(Err(ErrorBody::new(ErrorCode::Invalid, message)));
            }
        }
        let outcome = or_refuse!(query.outcome.as_deref().map(wanted_outcome).transpose());
        let of = match (&query.token, &query.operation, outcome) {
            (Some(token), ..) => AuditOf::Token(token),
            (None, Some(operation), _) => AuditOf::Operation(operation),
            (None, None, Some(outcome)) => AuditOf::Done(outcome == "done"),
            (None, None, None) => AuditOf::All,
        };
        let ids = self.store.audit_ids(query.since, query.until)?;
        let end = before.map_or(ids.end, |before| before.min(ids.end));
        let fits = |entry: &AuditEntry| {
            query.token.as_ref().is_none_or(|it| entry.token == *it)
                && query
                    .operation
                    .as_ref()
                    .is_none_or(|it| entry.operation == *it)
                && query.since.is_none_or(|since| entry.at >= since)
                && query.until.is_none_or(|until| entry.at < until)
                && outcome.is_none_or(|outcome| match outcome {
                    "refused" => entry.outcome != "done",
                    outcome => entry.outcome == outcome,
                })
        };
        let (items, next) = self.page(
            limit,
            Some(end),
            |core, before, count| {
                let end = before.copied().unwrap_or(u64::MAX);
                let entries = core.store.audit_among(of, ids.start..end, count)?;
                Ok(entries.into_iter().map(|entry| (entry.id, entry)).collect())
            },
            |_, entries| {
                let entries = entries.into_iter();
                Ok(entries.map(|entry| Some(entry).filter(fits)).collect())
            },
        )?;
        let next = next.map(|id| Cursor::of(&[&id.to_string()]));
        Ok(Ok(Reply::Audit(Page { items, next })))
    }
}

fn keys<const N: usize>(cursor: &Option<Cursor>) -> Result<Option<[String; N]>, ErrorBody> {
    cursor.as_ref().map(Cursor::keys).transpose()
}

fn place(record: &ExecutionRecord) -> Place {
    (record.job, record.node, record.slot)
}

/// `KEY` or `KEY=VALUE`.
fn wanted_label(text: &str) -> Result<(String, Option<String>), ErrorBody> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    let checked = sluice_model::check_label_key(key)
        .and_then(|()| value.map_or(Ok(()), sluice_model::check_label_value));
    match checked {
        Ok(()) => Ok((key.to_owned(), value.map(str::to_owned))),
        Err(problem) => {
            let message = format!("`label` is KEY or KEY=VALUE, and one of them {problem}");
            Err(ErrorBody::new(ErrorCode::Invalid, message))
        }
    }
}

/// `done`, `refused`, or the code of an error.
fn wanted_outcome(text: &str) -> Result<&str, ErrorBody> {
    let is_code = || {
        let code = serde_json::from_value::<ErrorCode>(text.into());
        code.is_ok_and(|code| code.as_str() == text)
    };
    if ["done", "refused"].contains(&text) || is_code() {
        return Ok(text);
    }
    let message = format!("`outcome` is done, refused or the code of an error, not {text:?}");
    Err(ErrorBody::new(ErrorCode::Invalid, message)
        .with_help("the code of what a role refused is `forbidden`"))
}
