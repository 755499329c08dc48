//! Evaluations: claim one, plan its job, commit the rows.

use sluice_model::pipeline::{self, Select};
use sluice_model::{
    Attempt, Desired, Digest, ExecutionId, JobId, NodeId, NodeState, Revision, Version,
};
use sluice_protocol::{AssignmentRow, Spec};
use sluice_scheduler::{Change, ExecutionFacts, JobFacts, NodeFacts, Snapshot, plan};
use tracing::info;

use super::{Core, Handled, LEASE, Step};
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
        let executions = self.store.executions_of_job(job.id)?;
        let snapshot = Snapshot {
            job: JobFacts {
                id: job.id,
                version: job.version,
                stopped: job.stopped,
                deleted: job.deleted,
                // What is being stopped or deleted needs no selector, so nothing about its text can keep it running.
                select: if job.stopped || job.deleted {
                    Select::default()
                } else {
                    self.select_of(job.spec)?
                },
            },
            nodes: self
                .store
                .nodes()?
                .iter()
                .map(|node| self.node_facts(node))
                .collect(),
            executions: executions
                .iter()
                .map(|execution| ExecutionFacts {
                    id: execution.id,
                    node: execution.node,
                    slot: execution.slot,
                    version: execution.version,
                    attempt: execution.attempt,
                    desired: execution.desired,
                })
                .collect(),
        };
        let plan = plan(&snapshot);
        for change in &plan.changes {
            self.commit_change(job, &executions, change, step)?;
        }
        if !plan.changes.is_empty() {
            info!(event = "plan.commit", job = %job.name, version = job.version.0, changes = plan.changes.len());
        }
        if job.deleted {
            self.forget_job_if_purged(job.id)?;
        }
        Ok(())
    }

    fn commit_change(
        &mut self,
        job: &JobRecord,
        executions: &[ExecutionRecord],
        change: &Change,
        step: &mut Step,
    ) -> Result<(), StoreError> {
        let now = step.now.unix;
        let execution = match *change {
            Change::Create { node, slot } => ExecutionRecord {
                id: ExecutionId::from_random((self.random)()),
                job: job.id,
                node,
                slot,
                version: job.version,
                attempt: Attempt(1),
                desired: Desired::Run,
                spec: job.spec,
                rev: Revision::ZERO,
                created_at: now,
                changed_at: now,
            },
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
                    job.spec
                };
                ExecutionRecord {
                    version,
                    attempt,
                    desired,
                    spec,
                    changed_at: now,
                    ..old.clone()
                }
            }
        };
        let row = AssignmentRow {
            execution: execution.id,
            job: job.id,
            job_name: job.name.clone(),
            version: execution.version,
            attempt: execution.attempt,
            desired: execution.desired,
            slot: execution.slot,
            spec: execution.spec,
        };
        let position = self.store.put_assignment(&execution, &row.encode())?;
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

    pub(super) fn node_facts(&self, node: &NodeRecord) -> NodeFacts {
        NodeFacts {
            id: node.id,
            name: node.name.clone(),
            labels: node.labels.clone(),
            held: self.node_state(node) == NodeState::Held,
        }
    }

    /// The selector in a stored pipeline text.
    pub(super) fn select_of(&mut self, spec: Digest) -> Result<Select, StoreError> {
        Ok(self.pipeline_of(spec)?.select)
    }

    /// A stored pipeline. It was checked before it was stored.
    pub(super) fn pipeline_of(&mut self, spec: Digest) -> Result<pipeline::Pipeline, StoreError> {
        let spec = self.spec_of(spec)?;
        pipeline::parse(&spec.pipeline).map_err(|problems| StoreError::Failed {
            action: "read a stored pipeline",
            source: format!("it no longer parses: {problems}").into(),
        })
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

    /// Whether a node's rows name a component.
    pub(super) fn node_may_pull(
        &mut self,
        node: NodeId,
        digest: Digest,
    ) -> Result<bool, StoreError> {
        let specs: std::collections::BTreeSet<Digest> = self
            .store
            .executions_of_node(node)?
            .into_iter()
            .filter(|execution| execution.desired == Desired::Run)
            .map(|execution| execution.spec)
            .collect();
        for spec in specs {
            if self
                .spec_of(spec)?
                .components
                .iter()
                .any(|component| component.digest == digest)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first version of a job.
    pub(super) const FIRST_VERSION: Version = Version(1);
}
