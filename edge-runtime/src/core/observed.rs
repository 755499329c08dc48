//! The observed set: writing down what the agent saw, and telling the orchestrator.

use std::time::Duration;

use sluice_agent::{Change, Now, Observation};
use sluice_ledger::{RowHash, Sending};
use sluice_model::ExecutionId;
use sluice_protocol::{ObservedRow, ROWS_PART_BYTES_MAX, Row, Rows, edge_message::Kind};

use super::session::{RECEIVED_WITHIN_MIN, SLOWEST_LINK_BYTES_PER_S, Session};
use super::{Event, State};
use crate::store::{ObservedChanges, Store, StoreError};

/// What a row costs in a frame besides its bytes: tags and lengths.
const ROW_OVERHEAD_BYTES: usize = 16;

impl State {
    /// Writes what the agent wants written, all at one new revision.
    pub(super) fn write_observed(&mut self, store: &mut Store, now: Now) -> Result<(), StoreError> {
        let rev = self.meta.observed_rev.next();
        let mut told = false;
        while let Some(change) = self.agent.poll_change() {
            match change {
                Change::Live(seen) => {
                    let key = seen.execution.to_bytes();
                    self.tell_state(&seen);
                    let body = self.row_of(seen, now).encode();
                    self.observed.upsert(key.to_vec(), RowHash::of(&body));
                    store.put_live(&key, rev, &body)?;
                    told = true;
                }
                Change::LiveRemoved(execution) => {
                    let key = execution.to_bytes();
                    self.observed.remove(&key.to_vec());
                    self.counters.remove(&execution);
                    store.remove_live(&key, rev)?;
                    told = true;
                }
                Change::Outcome(seen) => {
                    let row = self.row_of(seen, now);
                    store.put_outcome(&row.outcome_key().to_bytes(), rev, &row.encode())?;
                    told = true;
                }
                Change::Local(local) => store.put_local(&local)?,
                Change::LocalRemoved(execution) => store.remove_local(execution)?,
            }
        }
        if told {
            self.meta.observed_rev = rev;
            let head = self.observed_position();
            if let Session::Live(live) = &mut self.session {
                live.outbox.handle_changed(head);
            }
        }
        Ok(())
    }

    fn tell_state(&mut self, seen: &Observation) {
        let job = self.agent.job_name(seen.execution).unwrap_or_default();
        let event = Event::ExecutionState {
            execution: seen.execution,
            job: job.to_owned(),
            version: seen.label.version.0,
            attempt: seen.label.attempt.0,
            phase: seen.phase,
            reason: seen.reason.clone(),
        };
        self.event(event);
    }

    fn row_of(&self, seen: Observation, now: Now) -> ObservedRow {
        let counters = self.counters_now(seen.execution);
        ObservedRow {
            execution: seen.execution,
            version: seen.label.version,
            attempt: seen.label.attempt,
            phase: seen.phase,
            fail: seen.fail,
            reason: seen.reason,
            next_action: seen.next_action,
            next_at: seen.next_at,
            restarts: seen.restarts,
            records_in: counters.records_in,
            records_out: counters.records_out,
            dead_letters: counters.dead_letters,
            running_version: seen.running_version,
            at: now.unix,
        }
    }

    fn counters_now(&self, execution: ExecutionId) -> crate::runner::Counters {
        self.counters.get(&execution).copied().unwrap_or_default()
    }

    /// Sends what the outbox wants sent.
    pub(super) fn send_observed(&mut self, store: &mut Store, now: Now) -> Result<(), StoreError> {
        let head = self.observed_position();
        let Session::Live(live) = &mut self.session else {
            return Ok(());
        };
        if live.held {
            return Ok(());
        }
        let Some(sending) = live.outbox.poll_send() else {
            return Ok(());
        };
        let (base, changes) = match sending {
            Sending::Delta { base } => (Some(base), store.observed_after(base)?),
            Sending::Snapshot => (
                None,
                ObservedChanges {
                    upserts: store.live()?,
                    removed: Vec::new(),
                    outcomes: store.outcomes()?,
                },
            ),
        };
        live.outbox.handle_sent(head.rev, now.mono);
        let first = Rows {
            epoch: live.epoch.0,
            base: base.map(|rev| rev.0),
            to: head.into(),
            authoritative: true,
            ..Rows::default()
        };
        let (parts, bytes) = split(first, changes);
        let transfer = Duration::from_secs(bytes as u64 / SLOWEST_LINK_BYTES_PER_S);
        live.patience = RECEIVED_WITHIN_MIN + transfer;
        for part in parts {
            self.send(Kind::Rows(part));
        }
        Ok(())
    }
}

/// Cuts a change into parts that fit frames; also how many bytes they have.
fn split(first: Rows, changes: ObservedChanges) -> (Vec<Rows>, usize) {
    let mut parts = vec![first.clone()];
    let (mut total, mut used) = (0, 0);
    let mut room = |parts: &mut Vec<Rows>, bytes: usize| {
        let bytes = bytes + ROW_OVERHEAD_BYTES;
        total += bytes;
        used += bytes;
        if used > ROWS_PART_BYTES_MAX {
            used = bytes;
            let part = u32::try_from(parts.len()).unwrap_or(u32::MAX);
            parts.push(Rows {
                part,
                ..first.clone()
            });
        }
        parts.len() - 1
    };
    for (key, body) in changes.upserts {
        let at = room(&mut parts, key.len() + body.len());
        parts[at].upserts.push(Row { key, body });
    }
    for key in changes.removed {
        let at = room(&mut parts, key.len());
        parts[at].removed.push(key);
    }
    for (key, body) in changes.outcomes {
        let at = room(&mut parts, key.len() + body.len());
        parts[at].outcomes.push(Row { key, body });
    }
    if let Some(last) = parts.last_mut() {
        last.last = true;
    }
    (parts, total)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_change_is_cut_into_parts_that_fit_and_lose_nothing() {
        let row = |n: u32| (n.to_be_bytes().to_vec(), vec![7; 1000]);
        let changes = ObservedChanges {
            upserts: (0..600).map(row).collect(),
            removed: (0..10).map(|n: u32| n.to_be_bytes().to_vec()).collect(),
            outcomes: (0..300).map(row).collect(),
        };
        let (parts, bytes) = split(Rows::default(), changes);
        assert!(
            bytes > 900_000 && parts.len() == 4,
            "{bytes} {}",
            parts.len()
        );
        let mut counts = (0, 0, 0);
        for (index, part) in parts.iter().enumerate() {
            assert_eq!(part.part as usize, index);
            assert_eq!(part.last, index + 1 == parts.len());
            assert!(sluice_protocol::encode(part).len() <= ROWS_PART_BYTES_MAX + 4096);
            counts.0 += part.upserts.len();
            counts.1 += part.removed.len();
            counts.2 += part.outcomes.len();
        }
        assert_eq!(counts, (600, 10, 300));
        let (parts, _) = split(Rows::default(), ObservedChanges::default());
        assert!(parts.len() == 1 && parts[0].last);
    }
}
