//! Evaluations: claim one, plan its job, commit the rows.

use sluice_model::pipeline::{self, Kind, Pipeline};
use sluice_model::{
    Attempt, Desired, Digest, ExecutionId, JobId, NodeState, ObservedPhase, OnLost, Revision, Slot,
    Version,
};
use sluice_protocol::{AssignmentRow, OutcomeKey, Spec};
use sluice_scheduler::{Change, ExecutionFacts, JobFacts, NodeFacts, Snapshot, lacking, plan};
use tracing::info;

use super::operator::tell_worlds;
use super::rollout::Stand;
use super::tally::count;
use super::{ConnId, Core, Handled, LEASE, Step};
use crate::store::{Evaluation, ExecutionRecord, JobRecord, NodeRecord, Store, StoreError};

impl<S: Store> Core<S> {
    /// Claims the next evaluation.
    pub(super) fn claim(&mut self, step: &Step) -> Result<Option<Evaluation>, StoreError> {
        let now = step.now.unix;
        self.store
            .claim_evaluation(&self.config.worker, now, now.plus(LEASE))
    }

    /// Plans the job of a claimed evaluation; nothing is kept when the claim was taken over meanwhile.
    pub(super) fn evaluate_claimed(
        &mut self,
        evaluation: Evaluation,
        step: &mut Step,
    ) -> Result<Handled, StoreError> {
        // First, since a job that is forgotten here takes its evaluations with it.
        if !self.store.finish_evaluation(evaluation)? {
            return Ok(Handled::Undo);
        }
        if let Some(job) = self.store.job(evaluation.job)? {
            self.evaluate(&job, step)?;
        }
        Ok(Handled::Keep)
    }

    fn evaluate(&mut self, job: &JobRecord, step: &mut Step) -> Result<(), StoreError> {
        let (made_by_runs, executions): (Vec<_>, Vec<_>) = self
            .store
            .executions_of_job(job.id)?
            .into_iter()
            .partition(|execution| execution.slot != Slot::ZERO);
        self.end_runs_of_job(job, &made_by_runs, step)?;
        for execution in &made_by_runs {
            self.settle_execution(execution, step)?;
        }
        let mut snapshot = self.snapshot(job, &executions)?;
        let stand = self.advance_rollout(job, &executions, &snapshot, step)?;
        if stand.job.version != job.version {
            snapshot = self.snapshot(&stand.job, &executions)?;
        }
        let shape = stand
            .turn
            .as_ref()
            .and_then(|turn| turn.otherwise_shape.as_ref());
        let good_is_replicas = shape.is_some_and(|shape| shape.kind != Kind::Daemon);
        if good_is_replicas && snapshot.job.kind == Kind::Daemon {
            let running = snapshot.executions.iter_mut();
            for fact in running.filter(|fact| fact.desired == Desired::Run) {
                self.add_observed(fact)?;
            }
        }
        snapshot.job.turn = stand.turn.clone();
        let job = &stand.job;
        let plan = plan(&snapshot);
        for change in &plan.changes {
            self.commit_change(&stand, &executions, change, step)?;
            count(&self.tally.plan_changes);
        }
        if !plan.changes.is_empty() {
            info!(event = "plan.commit", job = %job.name, version = job.version.0, changes = plan.changes.len());
        }
        if job.deleted {
            self.forget_job_if_purged(job.id)?;
        }
        Ok(())
    }

    pub(super) fn snapshot(
        &mut self,
        job: &JobRecord,
        executions: &[ExecutionRecord],
    ) -> Result<Snapshot, StoreError> {
        // What is being stopped or deleted needs no text, so nothing about its text can keep it running.
        let pipeline = if job.stopped || job.deleted {
            None
        } else {
            Some(self.pipeline_of(job.spec)?)
        };
        let kind = pipeline.as_ref().map_or(Kind::Daemon, |it| it.kind);
        let nodes = self.store.nodes()?;
        let mut facts = Vec::with_capacity(executions.len());
        for execution in executions {
            let mut fact = ExecutionFacts {
                id: execution.id,
                node: execution.node,
                slot: execution.slot,
                version: execution.version,
                attempt: execution.attempt,
                desired: execution.desired,
                replaced: execution.replaced,
                seen_running: false,
                ended: false,
                created_at: execution.created_at,
            };
            if kind != Kind::Daemon && execution.desired == Desired::Run {
                self.add_observed(&mut fact)?;
            }
            facts.push(fact);
        }
        Ok(Snapshot {
            job: JobFacts {
                id: job.id,
                version: job.version,
                stopped: job.stopped,
                deleted: job.deleted,
                kind,
                on_lost: pipeline.as_ref().map_or(OnLost::Wait, |it| it.on_lost),
                select: pipeline
                    .as_ref()
                    .map(|it| it.select.clone())
                    .unwrap_or_default(),
                turn: None,
            },
            nodes: nodes
                .iter()
                .map(|node| self.node_facts(node, pipeline.as_ref()))
                .collect(),
            executions: facts,
        })
    }

    fn add_observed(&mut self, fact: &mut ExecutionFacts) -> Result<(), StoreError> {
        let key = OutcomeKey {
            execution: fact.id,
            version: fact.version,
            attempt: fact.attempt,
        };
        fact.ended = self.store.outcome(key)?.is_some();
        fact.seen_running = self.store.observed(fact.node, fact.id)?.is_some_and(|row| {
            row.phase == ObservedPhase::Running || row.running_version.is_some()
        });
        Ok(())
    }

    fn commit_change(
        &mut self,
        stand: &Stand,
        executions: &[ExecutionRecord],
        change: &Change,
        step: &mut Step,
    ) -> Result<(), StoreError> {
        let now = step.now.unix;
        let job = &stand.job;
        let spec_of = |version| match stand.good {
            Some(good) if good.version == version => good.spec,
            _ => job.spec,
        };
        let execution = match *change {
            Change::Create {
                node,
                slot,
                version,
            } => ExecutionRecord {
                id: ExecutionId::from_random((self.random)()),
                job: job.id,
                node,
                slot,
                version,
                attempt: Attempt(1),
                desired: Desired::Run,
                spec: spec_of(version),
                rev: Revision::ZERO,
                created_at: now,
                changed_at: now,
                replaced: false,
                once: false,
            },
            Change::Replace { execution } => return self.store.set_replaced(execution, true),
            Change::Adopt { execution } => return self.store.set_replaced(execution, false),
            Change::Update {
                execution,
                version,
                attempt,
                desired,
            } => {
                let old = executions
                    .iter()
                    .find(|old| old.id == execution)
                    .expect("a plan names executions of its snapshot");
                let spec = if version == old.version {
                    old.spec
                } else {
                    spec_of(version)
                };
                ExecutionRecord {
                    version,
                    attempt,
                    desired,
                    spec,
                    changed_at: now,
                    replaced: false,
                    ..old.clone()
                }
            }
        };
        self.commit_row(job, &execution, step)
    }

    /// Commits an execution's new row.
    pub(super) fn commit_row(
        &mut self,
        job: &JobRecord,
        execution: &ExecutionRecord,
        step: &mut Step,
    ) -> Result<(), StoreError> {
        let row = AssignmentRow {
            execution: execution.id,
            job: job.id,
            job_name: job.name.clone(),
            version: execution.version,
            attempt: execution.attempt,
            desired: execution.desired,
            slot: execution.slot,
            spec: execution.spec,
            once: execution.once,
        };
        let position = self.store.put_assignment(execution, &row.encode())?;
        info!(
            event = "ledger.commit",
            execution = %execution.id,
            version = execution.version.0,
            attempt = execution.attempt.0,
            desired = %execution.desired,
            rev = position.rev.0,
        );
        step.touched.insert(execution.node);
        Ok(())
    }

    /// A node as the planner sees it, for a job with this pipeline.
    pub(super) fn node_facts(&self, node: &NodeRecord, pipeline: Option<&Pipeline>) -> NodeFacts {
        let state = self.node_state(node);
        NodeFacts {
            id: node.id,
            name: node.name.clone(),
            labels: node.labels_in_force(),
            held: state == NodeState::Held,
            cordoned: node.orders.cordoned,
            draining: node.orders.draining,
            lost: state == NodeState::Lost,
            revoked: node.revoked_at.is_some(),
            executions: node.executions,
            lacks: pipeline.and_then(|pipeline| lacking(pipeline, &node.capabilities)),
        }
    }

    /// A stored pipeline, with what its components are made for. It was checked before it was stored.
    pub(super) fn pipeline_of(&mut self, spec: Digest) -> Result<Pipeline, StoreError> {
        let spec = self.spec_of(spec)?;
        let mut pipeline =
            pipeline::parse(&spec.pipeline).map_err(|problems| StoreError::Failed {
                action: "read a stored pipeline",
                source: format!("it no longer parses: {problems}").into(),
            })?;
        tell_worlds(&mut pipeline, &spec.components);
        Ok(pipeline)
    }

    /// A stored spec.
    pub(super) fn spec_of(&mut self, digest: Digest) -> Result<Spec, StoreError> {
        let action = "read a spec";
        let bytes = self.store.spec(digest)?.ok_or_else(|| StoreError::Failed {
            action,
            source: format!("{digest} is not there").into(),
        })?;
        Spec::decode(&bytes).map_err(|source| StoreError::Failed {
            action,
            source: Box::new(source),
        })
    }

    /// Forgets a deleted job once nothing of it is left.
    pub(super) fn forget_job_if_purged(&mut self, job: JobId) -> Result<(), StoreError> {
        let deleted = self.store.job(job)?.is_some_and(|job| job.deleted);
        if deleted && self.store.executions_of_job(job)?.is_empty() {
            self.store.forget_job(job)?;
        }
        Ok(())
    }

    /// Whether a component, or the stdin of a launch, may go over a connection: its node was let in by its Hello, and the
    /// node's rows name it. A certificate alone buys nothing: its node may be revoked, or have another key by now.
    pub(super) fn may_pull(&mut self, conn: ConnId, digest: Digest) -> Result<bool, StoreError> {
        let let_in = self.sessions.get(&conn).and_then(|it| it.let_in());
        let Some(node) = let_in else {
            return Ok(false);
        };
        let specs: std::collections::BTreeSet<Digest> = self
            .store
            .executions_of_node(node)?
            .into_iter()
            .filter(|execution| execution.desired == Desired::Run)
            .map(|execution| execution.spec)
            .collect();
        for spec in specs {
            let spec = self.spec_of(spec)?;
            let mut named = spec.components.iter().map(|component| component.digest);
            if named.any(|it| it == digest) || spec.stdin.is_some_and(|it| it.digest == digest) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first version of a job.
    pub(super) const FIRST_VERSION: Version = Version(1);
}
