//! The observed set: writing down what the agent saw, and telling the orchestrator.

use std::time::Duration;

use sluice_agent::{Change, Now, Observation};
use sluice_ledger::{RowHash, Sending};
use sluice_model::ExecutionId;
use sluice_protocol::{ObservedRow, Row, Rows, Splitter, edge_message::Kind};

use super::session::{RECEIVED_WITHIN_MIN, SLOWEST_LINK_BYTES_PER_S, Session};
use super::{Event, State};
use crate::store::{ObservedChanges, Store, StoreError};

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
            output: counters.output,
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
        let mut parts = Splitter::new(Rows {
            epoch: live.epoch.0,
            base: base.map(|rev| rev.0),
            to: head.into(),
            authoritative: true,
            ..Rows::default()
        });
        for (key, body) in changes.upserts {
            // Behind its row, what counts is told anew: the orchestrator forgets what it heard before.
            if let Some(execution) = ExecutionId::from_slice(&key) {
                live.counters_sent.remove(&execution);
            }
            parts.upsert(Row { key, body });
        }
        for key in changes.removed {
            parts.remove(key);
        }
        for (key, body) in changes.outcomes {
            parts.outcome(Row { key, body });
        }
        let (parts, bytes) = parts.finish();
        let transfer = Duration::from_secs(bytes as u64 / SLOWEST_LINK_BYTES_PER_S);
        live.patience = RECEIVED_WITHIN_MIN + transfer;
        for part in parts {
            self.send(Kind::Rows(part));
        }
        Ok(())
    }
}
