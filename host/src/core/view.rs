//! What the API shows: records and live sessions turned into its types.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use sluice_api::{Execution, Job, JobComponent, JobDetail, Node, NodeDetail, ReasonCode, Status};
use sluice_model::pipeline::{Kind, Pipeline, Select};
use sluice_model::{
    Desired, Digest, ExecutionId, ExecutionState, JobId, JobName, NodeId, NodeState, OnLost, UnixMs,
};
use sluice_protocol::{ObservedRow, OutcomeKey};
use sluice_scheduler::{
    Counted, ExecutionView, JobCounts, NodeView, Observed, ViewInput, job_state, lacking,
    view_execution,
};

use super::Core;
use crate::store::{ExecutionRecord, JobRecord, NodeRecord, Store, StoreError, WaitingOf};

pub(super) mod rollout;

/// One execution with what was derived from it.
pub(super) struct Viewed {
    record: ExecutionRecord,
    view: ExecutionView,
    node_state: NodeState,
    live: Option<ObservedRow>,
    outcome: Option<ObservedRow>,
}

impl Viewed {
    pub(super) fn record(&self) -> &ExecutionRecord {
        &self.record
    }

    /// It runs or should, and has its place.
    pub(super) fn is_placed(&self) -> bool {
        self.record.desired == Desired::Run && !self.record.replaced
    }
}

/// Replicas that no node has.
pub(super) fn unplaced(job: &JobRecord, count: Option<u64>, views: &[Viewed]) -> u64 {
    let Some(count) = count.filter(|_| !job.stopped && !job.deleted) else {
        return 0;
    };
    let placed = views.iter().filter(|viewed| viewed.is_placed()).count();
    count.saturating_sub(u64::try_from(placed).unwrap_or(u64::MAX))
}

/// Whose executions are listed.
#[derive(Clone, Copy)]
pub(super) enum Of {
    Job(JobId),
    Node(NodeId),
}

pub(super) type Nodes = BTreeMap<NodeId, NodeRecord>;

fn observed(row: &ObservedRow) -> Observed {
    Observed {
        version: row.version,
        attempt: row.attempt,
        phase: row.phase,
        fail: row.fail,
        reason: row.reason.clone(),
        next_action: row.next_action.clone(),
        next_at: row.next_at,
        at: row.at,
        running_version: row.running_version,
    }
}

impl<S: Store> Core<S> {
    pub(super) fn all_nodes(&mut self) -> Result<Nodes, StoreError> {
        Ok(self
            .store
            .nodes()?
            .into_iter()
            .map(|node| (node.id, node))
            .collect())
    }

    /// A job's pipeline; `None` for a text that an older program stored and this one no longer reads, which must hide
    /// nothing.
    pub(super) fn readable_pipeline(
        &mut self,
        spec: Digest,
    ) -> Result<Option<Pipeline>, StoreError> {
        match self.pipeline_of(spec) {
            Ok(pipeline) => Ok(Some(pipeline)),
            Err(StoreError::Failed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn view(
        &mut self,
        record: ExecutionRecord,
        pipeline: Option<&Pipeline>,
        nodes: &Nodes,
    ) -> Result<Viewed, StoreError> {
        let node = nodes.get(&record.node).ok_or_else(|| StoreError::Failed {
            action: "show an execution",
            source: "its node is not registered".into(),
        })?;
        let node_state = self.node_state(node);
        let live = self.store.observed(record.node, record.id)?;
        let key = OutcomeKey {
            execution: record.id,
            version: record.version,
            attempt: record.attempt,
        };
        let outcome = self.store.outcome(key)?;
        let lacks = pipeline.and_then(|pipeline| lacking(pipeline, &node.capabilities));
        let view = view_execution(&ViewInput {
            node: &NodeView {
                name: node.name.clone(),
                state: node_state,
                revoked: node.revoked_at.is_some(),
                received: node.received,
            },
            version: record.version,
            attempt: record.attempt,
            desired: record.desired,
            rev: record.rev,
            changed_at: record.changed_at,
            live: live.as_ref().map(observed).as_ref(),
            outcome: outcome.as_ref().map(observed).as_ref(),
            on_lost: pipeline.map_or(OnLost::Wait, |pipeline| pipeline.on_lost),
            replaced: record.replaced,
            lacks: lacks.as_deref(),
        });
        Ok(Viewed {
            record,
            view,
            node_state,
            live,
            outcome,
        })
    }

    pub(super) fn views_of_job(
        &mut self,
        job: &JobRecord,
        nodes: &Nodes,
    ) -> Result<Vec<Viewed>, StoreError> {
        let records = self.store.executions_of_job(job.id)?;
        self.explained_views(job, records, nodes)
    }

    /// Views that say of an older version why it is there.
    pub(super) fn explained_views(
        &mut self,
        job: &JobRecord,
        records: Vec<ExecutionRecord>,
        nodes: &Nodes,
    ) -> Result<Vec<Viewed>, StoreError> {
        let mut views = self.views(records, nodes)?;
        let is_old = |viewed: &Viewed| viewed.record.version < job.version;
        if views.iter().any(is_old)
            && let Some(record) = self.store.rollout(job.id)?
        {
            rollout::explain_old(job, &record, &mut views);
        }
        Ok(views)
    }

    /// Views by the names of their nodes.
    fn views(
        &mut self,
        records: Vec<ExecutionRecord>,
        nodes: &Nodes,
    ) -> Result<Vec<Viewed>, StoreError> {
        let mut views = Vec::with_capacity(records.len());
        // A handful of versions at most, however many nodes.
        let mut pipelines: BTreeMap<Digest, Option<Pipeline>> = BTreeMap::new();
        for record in records {
            let pipeline = match pipelines.entry(record.spec) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(self.readable_pipeline(record.spec)?),
            };
            views.push(self.view(record, pipeline.as_ref(), nodes)?);
        }
        views.sort_by(|a, b| nodes[&a.record.node].name.cmp(&nodes[&b.record.node].name));
        Ok(views)
    }

    pub(super) fn show_execution(
        &self,
        job: &JobName,
        viewed: &Viewed,
        nodes: &Nodes,
    ) -> Execution {
        let Viewed {
            record,
            view,
            live,
            outcome,
            ..
        } = viewed;
        let node = &nodes[&record.node];
        let newest = outcome.as_ref().or(live.as_ref());
        let memory = self.totals(record.node, record.id).unwrap_or_default();
        // Heartbeats are newer than rows, except after this process started: then only rows know.
        let total = |row: fn(&ObservedRow) -> u64, memory: u64| match outcome {
            Some(outcome) => row(outcome),
            None => live.as_ref().map_or(0, row).max(memory),
        };
        Execution {
            id: record.id,
            job: job.clone(),
            job_id: record.job,
            version: record.version,
            node: node.name.clone(),
            node_id: record.node,
            slot: record.slot,
            desired: record.desired,
            state: view.state,
            last_known: view.last_known,
            reason_code: reason_code(view),
            reason: some(&view.reason),
            next_action: some(&view.next_action),
            next_at: view.next_at,
            attempt: record.attempt,
            restarts: newest.map_or(0, |row| row.restarts),
            records_in: total(|row| row.records_in, memory.records_in),
            records_out: total(|row| row.records_out, memory.records_out),
            dead_letters: total(|row| row.dead_letters, memory.dead_letters),
            observed: newest.map(show_observed),
            rev: record.rev,
            received: record.rev <= node.received,
            last_ack_at: node.last_ack_at,
            created_at: record.created_at,
            changed_at: view.moved_at,
        }
    }

    pub(super) fn show_job(
        &mut self,
        job: &JobRecord,
        views: &[Viewed],
        now: UnixMs,
    ) -> Result<(Job, JobCounts), StoreError> {
        let pipeline = self.readable_pipeline(job.spec)?;
        let (kind, on_lost, select) = match pipeline {
            Some(pipeline) => (pipeline.kind, pipeline.on_lost, pipeline.select),
            None => (Kind::Daemon, OnLost::Wait, Select::default()),
        };
        let count = match kind {
            Kind::Daemon => None,
            Kind::Replicas { count } => Some(u64::from(count)),
            Kind::Batch { .. } => None,
        };
        let counted = views.iter().map(|viewed| Counted {
            view: &viewed.view,
            node: viewed.node_state,
            desired: viewed.record.desired,
            replaced: viewed.record.replaced,
        });
        let (state, counts) = job_state(job.stopped, counted, unplaced(job, count, views), now);
        let (state, counts) = match kind {
            Kind::Batch { .. } => {
                let (state, counts, _) = self.batch_state(job.id, job.stopped, now)?;
                (state, counts)
            }
            Kind::Daemon | Kind::Replicas { .. } => (state, counts),
        };
        let rollout = self.store.rollout(job.id)?;
        let state = match &rollout {
            Some(record) => rollout::job_state(record, state, views),
            None => state,
        };
        let job = Job {
            name: job.name.clone(),
            id: job.id,
            kind: kind.into(),
            count,
            on_lost,
            version: job.version,
            state,
            stopped: job.stopped,
            desired: counts.desired,
            running: counts.running,
            waiting: counts.waiting,
            failed: counts.failed,
            completed: counts.completed,
            select: select.0,
            created_at: job.created_at,
            updated_at: job.updated_at,
            rollout: rollout
                .as_ref()
                .map(|record| rollout::summary(&job.name, record)),
        };
        Ok((job, counts))
    }

    pub(super) fn show_one_job(
        &mut self,
        record: &JobRecord,
        now: UnixMs,
    ) -> Result<Job, StoreError> {
        let nodes = self.all_nodes()?;
        let views = self.views_of_job(record, &nodes)?;
        Ok(self.show_job(record, &views, now)?.0)
    }

    pub(super) fn show_job_detail(
        &mut self,
        record: &JobRecord,
        now: UnixMs,
    ) -> Result<JobDetail, StoreError> {
        let nodes = self.all_nodes()?;
        let views = self.views_of_job(record, &nodes)?;
        let (job, _) = self.show_job(record, &views, now)?;
        let unplaced = self.show_unplaced(record, &job, &views, &nodes)?;
        let spec = self.spec_of(record.spec)?;
        Ok(JobDetail {
            job,
            unplaced,
            pipeline: spec.pipeline,
            spec_digest: record.spec,
            components: spec
                .components
                .into_iter()
                .map(|component| JobComponent {
                    stage: component.stage,
                    digest: component.digest,
                    size: component.size,
                })
                .collect(),
            executions: views
                .iter()
                .map(|viewed| self.show_execution(&record.name, viewed, &nodes))
                .collect(),
        })
    }

    /// Executions by job and node name, of those that `keep`: on one node, or of one job.
    pub(super) fn show_executions(
        &mut self,
        of: Of,
        mut keep: impl FnMut(&JobRecord, &ExecutionRecord) -> bool,
    ) -> Result<Vec<Execution>, StoreError> {
        let nodes = self.all_nodes()?;
        let jobs = match of {
            Of::Job(id) => self.store.job(id)?.into_iter().collect(),
            Of::Node(_) => self.store.jobs(true)?,
        };
        let mut by_job: BTreeMap<JobId, Vec<ExecutionRecord>> = BTreeMap::new();
        if let Of::Node(node) = of {
            for record in self.store.executions_of_node(node)? {
                by_job.entry(record.job).or_default().push(record);
            }
        }
        let mut shown = Vec::new();
        for job in jobs {
            let mut records = match of {
                Of::Node(_) => by_job.remove(&job.id).unwrap_or_default(),
                Of::Job(_) => self.store.executions_of_job(job.id)?,
            };
            records.retain(|record| keep(&job, record));
            for viewed in self.explained_views(&job, records, &nodes)? {
                shown.push(self.show_execution(&job.name, &viewed, &nodes));
            }
        }
        Ok(shown)
    }

    /// One execution.
    pub(super) fn show_one_execution(
        &mut self,
        id: ExecutionId,
    ) -> Result<Option<Execution>, StoreError> {
        let Some(record) = self.store.execution(id)? else {
            return Ok(None);
        };
        let Some(job) = self.store.job(record.job)? else {
            return Ok(None);
        };
        let node = self.store.node(record.node)?;
        let nodes: Nodes = node.into_iter().map(|node| (node.id, node)).collect();
        let viewed = self.explained_views(&job, vec![record], &nodes)?.pop();
        Ok(viewed.map(|viewed| self.show_execution(&job.name, &viewed, &nodes)))
    }

    pub(super) fn show_node(&self, record: &NodeRecord) -> Node {
        let session = self
            .live
            .get(&record.id)
            .and_then(|conn| self.sessions.get(conn));
        Node {
            name: record.name.clone(),
            id: record.id,
            state: self.node_state(record),
            cordoned: record.orders.cordoned,
            draining: record.orders.draining,
            orders: record.orders.count,
            labels: record.labels_in_force(),
            executions: record.executions,
            held_reason: record.held.clone(),
            revoked_at: record.revoked_at,
            alarm: self.alarm(record),
            created_at: record.created_at,
            last_seen_at: session
                .and_then(super::Session::last_heard_at)
                .or(record.last_seen_at),
            connected_since: session.and_then(super::Session::live_since),
            address: session.map(|session| session.peer.address.clone()),
            incarnation: record.boot.map(|(incarnation, ..)| incarnation),
            boot_counter: record
                .boot
                .map(|(_, counter, _)| counter)
                .unwrap_or_default(),
            program: record.program.clone(),
            versions: record.versions.clone(),
            desired_rev: record.desired.rev,
            received_rev: record.received,
            observed_rev: record.observed.rev,
            last_ack_at: record.last_ack_at,
            certificate_expires_at: Some(record.certificate_expires_at),
        }
    }

    pub(super) fn show_nodes(&mut self) -> Result<Vec<Node>, StoreError> {
        let records = self.store.nodes()?;
        Ok(records
            .iter()
            .map(|record| self.show_node(record))
            .collect())
    }

    pub(super) fn show_node_detail(
        &mut self,
        record: &NodeRecord,
    ) -> Result<NodeDetail, StoreError> {
        Ok(NodeDetail {
            node: self.show_node(record),
            capabilities: record.capabilities.clone(),
            execution_list: self.show_executions(Of::Node(record.id), |_, _| true)?,
        })
    }

    pub(super) fn show_status(&mut self, now: UnixMs) -> Result<Status, StoreError> {
        let nodes = self.all_nodes()?;
        let (mut jobs, mut waiting, mut unplaced) = (Vec::new(), Vec::new(), Vec::new());
        for record in self.store.jobs(false)? {
            let views = self.views_of_job(&record, &nodes)?;
            let job = self.show_job(&record, &views, now)?.0;
            unplaced.extend(self.show_unplaced(&record, &job, &views, &nodes)?);
            jobs.push(job);
            let waits = views.iter().filter(|viewed| {
                let done = [ExecutionState::Running, ExecutionState::Completed];
                viewed.record.desired == Desired::Run && !done.contains(&viewed.view.state)
            });
            waiting.extend(waits.map(|viewed| self.show_execution(&record.name, viewed, &nodes)));
        }
        let (tasks_waiting, waiting_tasks) = self.waiting_tasks(WaitingOf::All, now)?;
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nodes: self.show_nodes()?,
            jobs,
            waiting,
            unplaced,
            schedules: self.show_schedules()?,
            tasks_waiting,
            waiting_tasks,
        })
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn reason_code(view: &ExecutionView) -> Option<ReasonCode> {
    match view.state {
        ExecutionState::Pending => view.reason_code.parse().ok().map(ReasonCode::Pending),
        ExecutionState::Failed => view.reason_code.parse().ok().map(ReasonCode::Failed),
        _ => None,
    }
}

fn show_observed(row: &ObservedRow) -> sluice_api::Observed {
    sluice_api::Observed {
        version: row.version,
        attempt: row.attempt,
        state: row.phase,
        at: row.at,
        reason: some(&row.reason),
        running_version: row.running_version,
    }
}
