//! Why each node does or does not run a job.

use std::collections::BTreeMap;

use sluice_api::{Explain, ExplainNode};
use sluice_model::pipeline::Select;
use sluice_model::{Desired, JobState, NodeId, UnixMs};
use sluice_scheduler::{JobCounts, mismatch, refusal};

use super::Core;
use super::view::{Viewed, rollout};
use crate::store::{JobRecord, Store, StoreError};

impl<S: Store> Core<S> {
    pub(super) fn show_explain(
        &mut self,
        record: &JobRecord,
        now: UnixMs,
    ) -> Result<Explain, StoreError> {
        let nodes = self.all_nodes()?;
        let views = self.views_of_job(record, &nodes)?;
        let (job, counts) = self.show_job(record, &views, now)?;
        let pipeline = self.readable_pipeline(record.spec)?;
        let select = Select(job.select.clone());
        let open = self.store.rollout(record.id)?.filter(|it| it.is_open());
        let unplaced = self.show_unplaced(record, &job, &views, &nodes)?;
        let by_node: BTreeMap<NodeId, &Viewed> = views
            .iter()
            .map(|viewed| (viewed.record().node, viewed))
            .collect();
        let mut explained = Vec::new();
        for node in nodes.values() {
            let viewed = by_node.get(&node.id);
            let facts = self.node_facts(node, pipeline.as_ref());
            let mismatch = mismatch(&select, &facts);
            let runs = viewed.is_some_and(|viewed| viewed.record().desired == Desired::Run);
            let refusal = refusal(job.count.is_some(), &facts).filter(|_| !runs);
            let takes = mismatch.is_none() && refusal.is_none();
            let is_batch = pipeline.as_ref().is_some_and(|it| it.batch.is_some());
            let why = if let Some(why) = &mismatch {
                why.clone()
            } else if is_batch && refusal.is_none() && !record.stopped {
                "it matches; what is launched may run there".to_owned()
            } else if record.stopped {
                "it matches, and the job is stopped".to_owned()
            } else if let Some(refusal) = refusal {
                format!("it matches, but {refusal}")
            } else if let Some(count) = job.count.filter(|_| !runs) {
                format!("it matches; the job's {count} replicas have their places on other nodes")
            } else if let Some(count) = job.count {
                format!("one of the job's {count} replicas has its place here")
            } else if select.0.is_empty() {
                "the job wants every node".to_owned()
            } else {
                "its name and labels match the job's selector".to_owned()
            };
            // Nothing is there yet: its turn comes.
            let turn = open
                .as_ref()
                .filter(|_| viewed.is_none() && takes && !record.stopped)
                .map(|open| rollout::turn(open, self.node_state(node)));
            let why = match &turn {
                Some(_) => format!(
                    "{why}; version {} comes when it is its turn",
                    record.version
                ),
                None => why,
            };
            let execution = viewed.map(|viewed| self.show_execution(&record.name, viewed, &nodes));
            explained.push(ExplainNode {
                node: node.name.clone(),
                node_state: self.node_state(node),
                matches: mismatch.is_none(),
                why,
                execution: execution.as_ref().map(|execution| execution.id),
                state: execution.as_ref().map(|execution| execution.state),
                last_known: execution.as_ref().is_some_and(|it| it.last_known),
                reason_code: execution
                    .as_ref()
                    .and_then(|execution| execution.reason_code),
                reason: execution
                    .as_ref()
                    .and_then(|execution| execution.reason.clone()),
                next_action: execution
                    .as_ref()
                    .and_then(|execution| execution.next_action.clone())
                    .or(turn),
                next_at: execution.as_ref().and_then(|execution| execution.next_at),
                rev: execution.as_ref().map(|execution| execution.rev),
                received: execution
                    .as_ref()
                    .is_some_and(|execution| execution.received),
                received_rev: node.received,
                last_ack_at: node.last_ack_at,
                observed: execution.and_then(|execution| execution.observed),
            });
        }
        explained.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(Explain {
            job: job.name.clone(),
            id: job.id,
            version: job.version,
            state: job.state,
            why: {
                let unplaced = unplaced.as_ref().map_or(0, |it| it.count);
                let why = match pipeline.as_ref().and_then(|it| it.batch.as_ref()) {
                    Some(_) => self.why_batch(record, now)? + &self.why_scheduled(&record.name)?,
                    None => why_state(job.state, counts, unplaced),
                };
                match &open {
                    Some(open) => format!(
                        "{why}; the rollout of version {} is {}{}, {} (`sluice rollout status {}`)",
                        open.candidate,
                        open.phase,
                        match open.reason.as_str() {
                            "" => String::new(),
                            reason => format!(": {reason}"),
                        },
                        rollout::next_action(&job.name, open).unwrap_or_default(),
                        job.name
                    ),
                    None => why,
                }
            },
            unplaced,
            nodes: explained,
        })
    }
}

fn why_state(state: JobState, counts: JobCounts, unplaced: u64) -> String {
    let JobCounts {
        desired,
        running,
        unheard,
        waiting,
        failed,
        completed,
    } = counts;
    let text = match state {
        JobState::Stopped => {
            "an operator stopped it; `sluice job start` starts it again".to_owned()
        }
        JobState::Queued => {
            "no node can take it yet; it starts by itself on the first that can".to_owned()
        }
        JobState::Completed => format!("all {desired} executions completed"),
        JobState::Failed => format!("all {desired} executions ended, {failed} of them badly"),
        JobState::Deploying => format!("{running} of {desired} run, more are on their way"),
        JobState::Degraded if running + completed == 0 => {
            format!("none of {desired} runs: {waiting} wait, {failed} failed")
        }
        JobState::Degraded => {
            format!("{running} of {desired} run, {waiting} wait, {failed} failed")
        }
        JobState::Running if waiting > unplaced => {
            let waiting = waiting - unplaced;
            format!("{running} of {desired} run, {waiting} wait for absent nodes")
        }
        JobState::Running => format!("{running} of {desired} run"),
    };
    let text = match unheard {
        0 => text,
        _ if state == JobState::Stopped => text,
        _ => format!(
            "{text}; {unheard} of those that run are on absent nodes: that is the last known of them"
        ),
    };
    if unplaced > 0 {
        format!("{text}; {unplaced} of {desired} replicas find no node")
    } else {
        text
    }
}
