//! A job over time: its kept versions, back to one of them, and once more from the start.

use sluice_api::{DeployOutcome, DeployReply, ErrorBody, ErrorCode, JobVersion, VersionSource};
use sluice_model::{Desired, NodeState, Version};
use tracing::info;

use super::operator::{Called, Reply, component_changes};
use super::{Core, Step};
use crate::store::{ExecutionRecord, JobRecord, Store, StoreError, VersionOrigin, VersionRecord};

impl<S: Store> Core<S> {
    /// The versions that are kept, newest first, each with what it changed against the one before it.
    pub(super) fn show_history(&mut self, job: &JobRecord) -> Result<Vec<JobVersion>, StoreError> {
        let kept = self.store.history(job.id)?;
        let mut shown = Vec::with_capacity(kept.len());
        for (index, record) in kept.iter().enumerate() {
            let changes = match kept.get(index + 1) {
                None => Vec::new(),
                Some(before) => self.changes_between(before, record)?,
            };
            let (source, rolled_back_to, reason) = match &record.origin {
                VersionOrigin::Deploy => (VersionSource::Deploy, None, None),
                VersionOrigin::Rollback { to, reason } => {
                    (VersionSource::Rollback, Some(*to), Some(reason.clone()))
                }
            };
            shown.push(JobVersion {
                version: record.version,
                current: record.version == job.version,
                created_at: record.created_at,
                spec_digest: record.spec,
                source,
                rolled_back_to,
                reason,
                changes,
            });
        }
        Ok(shown)
    }

    fn changes_between(
        &mut self,
        before: &VersionRecord,
        after: &VersionRecord,
    ) -> Result<Vec<String>, StoreError> {
        let (old, new) = (self.spec_of(before.spec)?, self.spec_of(after.spec)?);
        let mut changes = Vec::new();
        if old.pipeline != new.pipeline {
            changes.push("the pipeline text changed".to_owned());
        }
        changes.extend(component_changes(&old, &new));
        Ok(changes)
    }

    /// A new version with an older one's content; versions only grow.
    pub(super) fn roll_back(
        &mut self,
        job: &JobRecord,
        to: Option<Version>,
        step: &mut Step,
    ) -> Result<Called, StoreError> {
        let kept = self.store.history(job.id)?;
        let target = match to {
            Some(to) => kept.iter().find(|record| record.version == to),
            None => good_before(&kept, job),
        };
        let name = &job.name;
        let Some(target) = target else {
            let help = format!("`sluice job history {name}` lists the versions that are kept");
            let error = match to {
                Some(to) => ErrorBody::new(
                    ErrorCode::NotFound,
                    format!("version {to} of {name} is not kept"),
                ),
                None => ErrorBody::new(
                    ErrorCode::Conflict,
                    format!(
                        "{name} has no earlier version with other content that was ever good for all its nodes; \
                         `--to VERSION` brings back any that is kept"
                    ),
                ),
            };
            return Ok(Err(error.with_help(help)));
        };
        let Some(pipeline) = self.readable_pipeline(target.spec)? else {
            let message = format!(
                "version {} of {name} was stored by another program, and this one cannot read it",
                target.version
            );
            return Ok(Err(ErrorBody::new(ErrorCode::Conflict, message)));
        };
        let (outcome, version) = if target.spec != job.spec {
            (DeployOutcome::Updated, job.version.next())
        } else if job.stopped {
            (DeployOutcome::Started, job.version)
        } else {
            (DeployOutcome::Unchanged, job.version)
        };
        let now = step.now.unix;
        let matching = self.matching(&pipeline)?;
        let spec = self.spec_of(target.spec)?;
        let mut changes =
            self.describe(&pipeline, &spec, Some(job), outcome, version, &matching)?;
        if outcome == DeployOutcome::Updated {
            let back = format!("version {version} is version {} again", target.version);
            changes.insert(0, back);
        }
        match outcome {
            DeployOutcome::Updated => {
                let origin = VersionOrigin::Rollback {
                    to: target.version,
                    reason: "an operator asked for it".to_owned(),
                };
                self.store
                    .insert_version(job.id, version, target.spec, &origin, now)?;
                let batch = pipeline.batch.is_some();
                if target.good || batch {
                    self.store.mark_good(job.id, version)?;
                    if !batch {
                        self.give_rollout_up(job, target, version, now)?;
                    }
                } else {
                    // It never was good for all nodes: it has to prove itself as any new version.
                    let nodes = matching.len();
                    self.begin_rollout(Some(job), job.id, version, &pipeline, nodes, now)?;
                }
            }
            DeployOutcome::Started => self.store.set_stopped(job.id, false)?,
            DeployOutcome::Created | DeployOutcome::Unchanged => {}
        }
        if outcome != DeployOutcome::Unchanged {
            self.evaluate_job(job.id, now)?;
            info!(event = "job.rollback", job = %name, version = version.0, to = target.version.0);
        }
        Ok(Ok(Reply::Deploy(Box::new(DeployReply {
            job: name.clone(),
            id: Some(job.id),
            version,
            outcome,
            dry_run: false,
            changes,
            matching_nodes: matching,
            rolled_back_to: Some(target.version),
        }))))
    }

    /// The next attempt of every execution that should run; a stopped job is started. What a held node has is left
    /// alone, and so is what a lost node's replacement stands for. What has ended on a node that is drained gives its
    /// place up: it is done again elsewhere.
    pub(super) fn restart_job(
        &mut self,
        job: JobRecord,
        step: &mut Step,
    ) -> Result<Called, StoreError> {
        if self.pipeline_of(job.spec)?.batch.is_some() {
            let message = format!(
                "{} is a batch job: what has ended is not run again",
                job.name
            );
            let help = format!("`sluice run launch {}` runs it anew", job.name);
            return Ok(Err(
                ErrorBody::new(ErrorCode::Conflict, message).with_help(help)
            ));
        }
        let now = step.now.unix;
        if job.stopped {
            self.store.set_stopped(job.id, false)?;
        } else {
            for execution in self.store.executions_of_job(job.id)? {
                let Some(node) = self.store.node(execution.node)? else {
                    continue;
                };
                let held = self.node_state(&node) == NodeState::Held;
                if execution.desired != Desired::Run || execution.replaced || held {
                    continue;
                }
                let (desired, attempt) = if node.orders.draining {
                    (Desired::Stop, execution.attempt)
                } else {
                    (Desired::Run, execution.attempt.next())
                };
                let next = ExecutionRecord {
                    desired,
                    attempt,
                    changed_at: now,
                    ..execution
                };
                self.commit_row(&job, &next, step)?;
            }
        }
        self.evaluate_job(job.id, now)?;
        info!(event = "job.restart", job = %job.name);
        let job = JobRecord {
            stopped: false,
            ..job
        };
        Ok(Ok(Reply::Job(Box::new(self.show_one_job(&job, now)?))))
    }
}

/// The newest good version before a job's, with other content. Where a version brought an older one back, the story goes
/// on from that one: what lies between was given up, and nobody who only asks for the version before gets it.
fn good_before<'a>(kept: &'a [VersionRecord], job: &JobRecord) -> Option<&'a VersionRecord> {
    let mut end = job.version;
    loop {
        let origin = kept.iter().find(|record| record.version == end);
        match origin.map(|record| &record.origin) {
            Some(VersionOrigin::Rollback { to, .. }) if *to < end => end = *to,
            _ => {
                let before = kept.iter().find(|record| record.version < end)?;
                if before.good && before.spec != job.spec {
                    return Some(before);
                }
                end = before.version;
            }
        }
    }
}
