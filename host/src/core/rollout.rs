//! Rollouts: begun by a deploy, moved on by evaluations, paused and ended by operators.
//!
//! What decides is `sluice_scheduler::advance`; here it is given what is known, and what it decides is stored in the
//! transaction of the evaluation. Going back is a new version with the old content.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use sluice_api::{ErrorBody, ErrorCode, RolloutOrder};
use sluice_model::pipeline::{Pipeline, Rollout as Rules};
use sluice_model::{Desired, JobId, JobName, NodeId, ObservedPhase, RolloutPhase, UnixMs, Version};
use sluice_protocol::OutcomeKey;
use sluice_scheduler::{
    Clocks, Concern, Followed, Good, Member, RolloutRecord, Shape, Sign, Snapshot, Turn, advance,
    concerned_nodes,
};
use tracing::info;

use super::{Core, Session, Step};
use crate::store::{ExecutionRecord, JobRecord, Store, StoreError, VersionOrigin, VersionRecord};

/// A job as it is to be planned now.
pub(super) struct Stand {
    pub(super) job: JobRecord,
    pub(super) turn: Option<Turn>,
    pub(super) good: Option<Good>,
}

/// A job's rollout with what it depends on.
pub(super) struct RolloutView {
    pub(super) record: RolloutRecord,
    pub(super) rules: Rules,
    pub(super) members: Vec<Member>,
}

impl<S: Store> Core<S> {
    /// A new version begins its way to the nodes: by a rollout, or at once. `before` is the job as it was, `nodes` how many match.
    pub(super) fn begin_rollout(
        &mut self,
        before: Option<&JobRecord>,
        id: JobId,
        version: Version,
        pipeline: &Pipeline,
        nodes: usize,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        self.watches.remove(&id);
        let Some(rules) = pipeline.rollout.or_else(|| Rules::for_nodes(nodes)) else {
            self.store.mark_good(id, version)?;
            return self.store.remove_rollout(id);
        };
        let good = match before {
            // Nothing runs, so there is nothing to keep.
            None => None,
            Some(before) if before.stopped => None,
            // What has not proven itself is nothing to go back to.
            Some(before) => match self.store.rollout(id)?.filter(RolloutRecord::is_open) {
                Some(open) => open.good,
                None => Some(Good {
                    version: before.version,
                    spec: before.spec,
                }),
            },
        };
        let record = RolloutRecord::begin(version, good, &rules, now);
        self.store.put_rollout(id, &record)
    }

    /// An operator went back to an older version, which `version` brings again: what never proved itself is given up at
    /// once, and who runs the old content all the time runs on.
    pub(super) fn give_rollout_up(
        &mut self,
        job: &JobRecord,
        to: &VersionRecord,
        version: Version,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let Some(before) = self.store.rollout(job.id)? else {
            return Ok(());
        };
        let mut record = before.clone();
        record.good = Some(Good {
            version: to.version,
            spec: to.spec,
        });
        if !record.abort("an operator rolled it back".to_owned(), now) {
            return self.store.remove_rollout(job.id);
        }
        record.restored_by = Some(version);
        self.keep_rollout(job, &before, &record)
    }

    /// Moves a job's rollout on, if it has one, and says how the job is to be planned.
    pub(super) fn advance_rollout(
        &mut self,
        job: &JobRecord,
        executions: &[ExecutionRecord],
        snapshot: &Snapshot,
        step: &Step,
    ) -> Result<Stand, StoreError> {
        self.rollouts_due.remove(&job.id);
        let mut stand = Stand {
            job: job.clone(),
            turn: None,
            good: None,
        };
        let rollout = match job.stopped || job.deleted {
            true => None,
            false => self.store.rollout(job.id)?,
        };
        let Some(before) = rollout else {
            // Nothing is looked at: what was seen is seen anew when it goes on.
            self.watches.remove(&job.id);
            return Ok(stand);
        };
        let mut record = before.clone();
        let mut admitted = BTreeSet::new();
        if record.is_open() {
            let rules = self.pipeline_of(job.spec)?.rollout.unwrap_or_default();
            let members = self.rollout_members(job, executions, snapshot)?;
            let now = Clocks {
                mono: step.now.mono,
                unix: step.now.unix,
            };
            let watch = self.watches.entry(job.id).or_default();
            let did = advance(&mut record, &rules, &members, watch, now);
            admitted = did.admitted;
            if let Some(at) = did.look_again_at {
                self.rollouts_due.insert(job.id, at);
            }
            if record.phase == RolloutPhase::RolledBack {
                self.restore(&mut stand.job, &mut record, step.now.unix)?;
            }
        }
        if record != before {
            self.keep_rollout(&stand.job, &before, &record)?;
        }
        let running = executions
            .iter()
            .filter(|execution| execution.desired == Desired::Run)
            .map(|execution| (&execution.id, execution.spec));
        let good_shape = match record.good.filter(|_| record.is_open()) {
            Some(good) => self.readable_pipeline(good.spec)?.map(|it| Shape {
                kind: it.kind,
                on_lost: it.on_lost,
                select: it.select,
            }),
            None => None,
        };
        let (version, spec) = (stand.job.version, stand.job.spec);
        stand.turn = record.turn(version, spec, admitted, good_shape, running);
        stand.good = record.good;
        Ok(stand)
    }

    fn keep_rollout(
        &mut self,
        job: &JobRecord,
        before: &RolloutRecord,
        record: &RolloutRecord,
    ) -> Result<(), StoreError> {
        if !record.is_open() {
            self.watches.remove(&job.id);
        }
        if record.phase != before.phase {
            if record.phase == RolloutPhase::Done {
                self.store.mark_good(job.id, record.candidate)?;
            }
            info!(
                event = "rollout.phase",
                job = %job.name,
                version = record.candidate.0,
                phase = %record.phase,
                reason = %record.reason,
            );
        }
        self.store.put_rollout(job.id, record)
    }

    /// Brings the good content back, as a new version.
    fn restore(
        &mut self,
        job: &mut JobRecord,
        record: &mut RolloutRecord,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let good = record.good.expect("without one nothing is rolled back");
        let version = job.version.next();
        let origin = VersionOrigin::Rollback {
            to: good.version,
            reason: format!(
                "the rollout of version {}: {}",
                record.candidate, record.reason
            ),
        };
        self.store
            .insert_version(job.id, version, good.spec, &origin, now)?;
        self.store.mark_good(job.id, version)?;
        if job.stopped {
            self.store.set_stopped(job.id, true)?;
        }
        record.restored_by = Some(version);
        record.note(
            now,
            format!("version {version} is version {} again", good.version),
        );
        (job.version, job.spec, job.updated_at) = (version, good.spec, now);
        Ok(())
    }

    /// The nodes that the rollout of a job's newest version looks at, with what they say.
    fn rollout_members(
        &mut self,
        job: &JobRecord,
        executions: &[ExecutionRecord],
        snapshot: &Snapshot,
    ) -> Result<Vec<Member>, StoreError> {
        let concerned = concerned_nodes(snapshot);
        let content = self.spec_of(job.spec)?.content();
        // A handful of versions at most, however many nodes.
        let mut same_content = BTreeMap::from([(job.spec, true)]);
        for execution in executions {
            if let Entry::Vacant(unknown) = same_content.entry(execution.spec) {
                unknown.insert(self.spec_of(execution.spec)?.content() == content);
            }
        }
        let by_node: BTreeMap<NodeId, &ExecutionRecord> = executions
            .iter()
            .map(|execution| (execution.node, execution))
            .collect();
        let mut members = Vec::with_capacity(concerned.len());
        for node in &snapshot.nodes {
            let Some(concern) = concerned.get(&node.id) else {
                continue;
            };
            let conn = self.live.get(&node.id);
            let session = conn.and_then(|conn| self.sessions.get(conn));
            members.push(Member {
                node: node.id,
                name: node.name.clone(),
                connected: conn.is_some(),
                heard_at: session.and_then(Session::heard_by),
                given_away: *concern == Concern::GivenAway,
                misfit: node.lacks.is_some(),
                execution: match by_node.get(&node.id) {
                    Some(execution) => {
                        Some(self.followed(execution, same_content[&execution.spec])?)
                    }
                    None => None,
                },
            });
        }
        Ok(members)
    }

    fn followed(
        &mut self,
        execution: &ExecutionRecord,
        same_content: bool,
    ) -> Result<Followed, StoreError> {
        let label = (execution.version, execution.attempt);
        let outcome = self.store.outcome(OutcomeKey {
            execution: execution.id,
            version: execution.version,
            attempt: execution.attempt,
        })?;
        let live = self
            .store
            .observed(execution.node, execution.id)?
            .filter(|row| (row.version, row.attempt) == label);
        let (mut records_in, mut dead_letters) = (0, 0);
        let mut counted_at = None;
        let sign = match outcome.as_ref().or(live.as_ref()) {
            None => Sign::Underway("the node has not said anything of it".to_owned()),
            Some(row) => {
                match row.phase {
                    ObservedPhase::Completed => {
                        (records_in, dead_letters) = (row.records_in, row.dead_letters);
                        Sign::Completed
                    }
                    ObservedPhase::Running => {
                        // The row has the totals as it began: what counts came after it.
                        if let Some(totals) = self.totals(execution.node, execution.id) {
                            records_in = grown(row.records_in, totals.records_in);
                            dead_letters = grown(row.dead_letters, totals.dead_letters);
                            counted_at = self.counted_at(execution.node);
                        }
                        Sign::Running {
                            restarts: row.restarts,
                        }
                    }
                    ObservedPhase::Backoff => Sign::Unwell {
                        reason: row.reason.clone(),
                        restarts: row.restarts,
                    },
                    ObservedPhase::Failed => match row.fail {
                        Some(fail) => Sign::Failed(format!("failed/{fail}, {}", row.reason)),
                        None => Sign::Failed(format!("failed, {}", row.reason)),
                    },
                    ObservedPhase::Refused | ObservedPhase::Quarantined => {
                        Sign::Failed(format!("{}, {}", row.phase, row.reason))
                    }
                    phase => Sign::Underway(if row.reason.is_empty() {
                        phase.to_string()
                    } else {
                        format!("{phase}, {}", row.reason)
                    }),
                }
            }
        };
        Ok(Followed {
            id: execution.id,
            version: execution.version,
            attempt: execution.attempt,
            runs: execution.desired == Desired::Run,
            same_content,
            sign,
            records_in,
            dead_letters,
            counted_at,
        })
    }

    /// Has the jobs looked at whose rollouts may have moved by time alone.
    pub(super) fn evaluate_due_rollouts(&mut self, step: &Step) -> Result<(), StoreError> {
        let due: Vec<JobId> = self
            .rollouts_due
            .iter()
            .filter(|(_, at)| **at <= step.now.mono)
            .map(|(job, _)| *job)
            .collect();
        for job in due {
            self.evaluate_job(job, step.now.unix)?;
        }
        Ok(())
    }

    /// A job's newest rollout with what it depends on.
    pub(super) fn rollout_view(
        &mut self,
        job: &JobRecord,
    ) -> Result<Option<RolloutView>, StoreError> {
        let Some(record) = self.store.rollout(job.id)? else {
            return Ok(None);
        };
        // A text that this program no longer reads hides no job.
        let members = match self.readable_pipeline(job.spec)? {
            Some(_) => {
                let executions = self.store.executions_of_job(job.id)?;
                let snapshot = self.snapshot(job, &executions)?;
                self.rollout_members(job, &executions, &snapshot)?
            }
            None => Vec::new(),
        };
        // The rules are the new version's, also when the job has another content by now.
        let versions = self.store.versions(job.id, usize::MAX)?;
        let candidate = versions.into_iter().find(|(it, _)| *it == record.candidate);
        let spec = candidate.map_or(job.spec, |(_, spec)| spec);
        let pipeline = self.readable_pipeline(spec)?;
        let rules = pipeline.and_then(|it| it.rollout).unwrap_or_default();
        Ok(Some(RolloutView {
            record,
            rules,
            members,
        }))
    }

    /// What an operator orders about a job's rollout.
    pub(super) fn order_rollout(
        &mut self,
        name: &JobName,
        job: &JobRecord,
        order: RolloutOrder,
        now: UnixMs,
    ) -> Result<Result<(), ErrorBody>, StoreError> {
        let Some(before) = self.store.rollout(job.id)? else {
            return Ok(Err(no_rollout(name, job)));
        };
        let conflict = |message: String| {
            ErrorBody::new(ErrorCode::Conflict, message)
                .with_help(format!("`sluice rollout status {name}` says what happened"))
        };
        if !before.is_open() {
            return Ok(Err(conflict(format!(
                "the rollout of {name} version {} has ended: {}",
                before.candidate, before.phase
            ))));
        }
        let rules = self
            .readable_pipeline(job.spec)?
            .and_then(|pipeline| pipeline.rollout)
            .unwrap_or_default();
        let (mut record, mut job) = (before.clone(), job.clone());
        match order {
            RolloutOrder::Pause => {
                record.pause("an operator paused it".to_owned(), now);
            }
            RolloutOrder::Resume => {
                // Who went away gets its time anew.
                if record.resume(&rules, now) {
                    self.watches.remove(&job.id);
                }
            }
            RolloutOrder::Promote => {
                record.promote(now);
            }
            RolloutOrder::Abort => {
                if !record.abort("an operator aborted it".to_owned(), now) {
                    return Ok(Err(conflict(format!(
                        "{name} has no version before {} to go back to",
                        record.candidate
                    ))
                    .with_help(format!(
                        "deploy a better version, or stop the job with `sluice job stop {name}`"
                    ))));
                }
                self.restore(&mut job, &mut record, now)?;
            }
        }
        if record != before {
            self.keep_rollout(&job, &before, &record)?;
            self.evaluate_job(job.id, now)?;
        }
        Ok(Ok(()))
    }
}

/// Nothing is rolled out.
pub(super) fn no_rollout(name: &JobName, job: &JobRecord) -> ErrorBody {
    ErrorBody::new(
        ErrorCode::NotFound,
        format!(
            "{name} has no rollout of version {}",
            job.version
        ),
    )
    .with_help(
        "`[rollout]` in a pipeline of daemons or replicas asks for one; on more than 10 nodes they have one by itself",
    )
}

/// What was counted since a row was written; counters that began anew count from zero.
fn grown(row: u64, total: u64) -> u64 {
    total.checked_sub(row).unwrap_or(total)
}
