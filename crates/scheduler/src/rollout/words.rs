//! What a rollout says, in words.

use sluice_model::{NodeName, RolloutPhase};

use super::RolloutRecord;

/// Node names in one event.
const NAMES_MAX: usize = 5;

/// What a rollout waits for that no connected node can give it.
pub(super) fn short_of(record: &RolloutRecord, proven: usize, missing: usize) -> String {
    let candidate = record.candidate;
    match record.phase {
        RolloutPhase::Canary => {
            let canaries = proven + missing;
            format!(
                "{proven} of {canaries} canaries proved version {candidate}, and no other node that it could go to is \
                 connected"
            )
        }
        _ => format!("no other node that version {candidate} could go to is connected"),
    }
}

/// Some of these, and how many more.
pub(super) fn names(nodes: &[&NodeName]) -> String {
    let mut text = nodes
        .iter()
        .take(NAMES_MAX)
        .map(|name| name.as_str())
        .collect::<Vec<_>>()
        .join(", ");
    if nodes.len() > NAMES_MAX {
        text.push_str(&format!(" and {} more", nodes.len() - NAMES_MAX));
    }
    text
}
