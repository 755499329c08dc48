//! Replicas that find no node: how many, why, and what they wait for.

use sluice_api::{Job, Unplaced};
use sluice_model::PendingReason;
use sluice_model::pipeline::Select;
use sluice_scheduler::{NodeFacts, mismatch};

use super::Core;
use super::view::{Nodes, Viewed, unplaced};
use crate::store::{JobRecord, Store, StoreError};

/// What keeps a replica from a node, after the number of nodes; in the order in which it is looked for.
const OBSTACLES: [&str; 7] = [
    "taken by its other replicas",
    "outside its selector",
    "held",
    "cordoned or being drained",
    "lost or revoked",
    "without something that it needs",
    "free",
];

impl<S: Store> Core<S> {
    /// What of a job has no node; `None` when everything has its place.
    pub(super) fn show_unplaced(
        &mut self,
        record: &JobRecord,
        job: &Job,
        views: &[Viewed],
        nodes: &Nodes,
    ) -> Result<Option<Unplaced>, StoreError> {
        let count = unplaced(record, job.count, views);
        if count == 0 {
            return Ok(None);
        }
        let pipeline = self.readable_pipeline(record.spec)?;
        let select = Select(job.select.clone());
        let mut tally = [0_u32; OBSTACLES.len()];
        for node in nodes.values() {
            let facts = self.node_facts(node, pipeline.as_ref());
            let taken = views
                .iter()
                .any(|viewed| viewed.record().node == node.id && viewed.is_placed());
            tally[obstacle(&select, &facts, taken)] += 1;
        }
        let words: Vec<String> = tally
            .iter()
            .zip(OBSTACLES)
            .filter(|(number, _)| **number > 0)
            .map(|(number, words)| format!("{number} {words}"))
            .collect();
        let reason = if words.is_empty() {
            "no node has joined yet".to_owned()
        } else {
            format!("of {} nodes: {}", nodes.len(), words.join(", "))
        };
        Ok(Some(Unplaced {
            job: record.name.clone(),
            count,
            reason_code: PendingReason::NoNode,
            reason,
            next_action: "when a matching node joins, returns, is uncordoned, labelled or upgraded"
                .to_owned(),
            next_at: None,
        }))
    }
}

/// What keeps a replica from a node: the place of its words in [`OBSTACLES`].
fn obstacle(select: &Select, node: &NodeFacts, taken: bool) -> usize {
    if taken {
        0
    } else if mismatch(select, node).is_some() {
        1
    } else if node.held {
        2
    } else if node.cordoned || node.draining {
        3
    } else if node.lost || node.revoked {
        4
    } else if node.lacks.is_some() {
        5
    } else {
        6
    }
}
