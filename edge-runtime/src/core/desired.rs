//! The desired set: collecting the parts of a change, judging it, and putting it on disk as a whole.

use std::collections::{BTreeMap, BTreeSet};

use sluice_agent::{DesiredChange, EndedHow, Label, Now, SpecFacts};
use sluice_ledger::{Inbox, Verdict};
use sluice_ledger::{Offer, Position, RowHash};
use sluice_model::{Desired, Digest, ExecutionId, FailReason, ObservedPhase, Revision};
use sluice_protocol::{CollectError, ObservedRow, Received, Resync, Row, Rows, edge_message::Kind};

use super::load::{facts_of, read_row};
use super::session::Session;
use super::{Event, Redial, State};
use crate::store::{Store, StoreError};

/// Snapshots whose digest is wrong, in one session: one more means that the two programs count differently, and asking
/// on would only burn the link.
const WRONG_SNAPSHOTS_MAX: u32 = 2;

/// Bytes of one change that are collected before it is applied: a thousand jobs, each with the longest pipeline.
pub(super) const COLLECTED_BYTES_MAX: usize = 256 << 20;

impl State {
    pub(super) fn handle_rows(
        &mut self,
        store: &mut Store,
        rows: Rows,
        now: Now,
    ) -> Result<(), StoreError> {
        let Session::Live(live) = &mut self.session else {
            return Ok(());
        };
        if rows.epoch != live.epoch.0 || live.held {
            return Ok(());
        }
        let Some(to) = rows.to.to_position() else {
            self.close("protocol", "rows without a digest", Redial::Soon);
            return Ok(());
        };
        match live.collector.push(rows) {
            Ok(None) => Ok(()),
            Ok(Some(change)) => self.judge(store, change, to, now),
            Err(CollectError::Missing) => {
                if to.rev > self.meta.desired_rev {
                    let mine = self.meta.desired_rev;
                    self.ask(Some(mine), "a part of a change is missing");
                }
                Ok(())
            }
            Err(error @ CollectError::TooLarge { .. }) => {
                self.close("protocol", &error.to_string(), Redial::Soon);
                Ok(())
            }
        }
    }

    fn judge(
        &mut self,
        store: &mut Store,
        change: Rows,
        to: Position,
        now: Now,
    ) -> Result<(), StoreError> {
        let offer = Offer {
            base: change.base.map(Revision),
            to: to.rev,
        };
        match Inbox::new(self.meta.desired_rev).judge(offer) {
            Verdict::Apply => self.apply(store, change, to, now),
            Verdict::AckAgain => {
                self.acknowledge();
                Ok(())
            }
            Verdict::AskFrom(rev) => {
                self.ask(Some(rev), "a change starts after what is here");
                Ok(())
            }
        }
    }

    fn apply(
        &mut self,
        store: &mut Store,
        change: Rows,
        to: Position,
        now: Now,
    ) -> Result<(), StoreError> {
        let snapshot = change.base.is_none();
        if snapshot && !change.authoritative {
            // It may not stop what it does not name, so it says nothing that could be acted on.
            return Ok(());
        }
        let upserts: BTreeMap<Vec<u8>, Vec<u8>> = change
            .upserts
            .into_iter()
            .map(|row| (row.key, row.body))
            .collect();
        let removed: BTreeSet<Vec<u8>> = if snapshot {
            let gone = self
                .desired
                .keys()
                .filter(|key| !upserts.contains_key(*key));
            gone.cloned().collect()
        } else {
            change.removed.into_iter().collect()
        };
        let mut set = self.desired.clone();
        for key in &removed {
            set.remove(key);
        }
        for (key, body) in &upserts {
            set.upsert(key.clone(), RowHash::of(body));
        }
        if set.digest() != to.digest {
            self.handle_wrong_digest(snapshot);
            return Ok(());
        }

        let texts: BTreeMap<Digest, Vec<u8>> = change
            .specs
            .into_iter()
            .map(|spec| (Digest::of(&spec.bytes), spec.bytes))
            .collect();
        let mut told = DesiredChange {
            whole: snapshot,
            removed: removed
                .iter()
                .filter_map(|key| ExecutionId::from_slice(key))
                .collect(),
            ended: change.outcomes.iter().filter_map(ended_of).collect(),
            ..DesiredChange::default()
        };
        for (key, body) in &upserts {
            match read_row(key, body) {
                Ok(assignment) => told.upserts.push(assignment),
                Err(Some(unreadable)) => told.unreadable.push(unreadable),
                Err(None) => {}
            }
        }
        for row in &told.upserts {
            match known_spec(store, &texts, row.spec)? {
                Some(facts) => {
                    told.specs.insert(row.spec, facts);
                }
                None if snapshot || row.desired != Desired::Run => {}
                None => {
                    self.ask(None, "a row names a pipeline that is not here");
                    return Ok(());
                }
            }
        }

        for key in &removed {
            store.remove_desired(key)?;
        }
        for (key, body) in &upserts {
            store.put_desired(key, body, RowHash::of(body))?;
        }
        for (digest, bytes) in &texts {
            store.put_spec(*digest, bytes)?;
        }
        self.desired = set;
        self.meta.desired_rev = to.rev;
        self.meta.desired_digest = to.digest;
        self.wants_snapshot = false;
        if let Session::Live(live) = &mut self.session {
            live.wrong_snapshots = 0;
        }
        self.agent.handle_desired(told, now);
        let used = self.agent.specs_in_use();
        for digest in store.spec_digests()? {
            if !used.contains(&digest) {
                store.remove_spec(digest)?;
            }
        }
        self.event(Event::LedgerReceived {
            rev: to.rev,
            upserts: upserts.len(),
            removed: removed.len(),
            snapshot,
        });
        self.acknowledge();
        Ok(())
    }

    fn handle_wrong_digest(&mut self, snapshot: bool) {
        if let Session::Live(live) = &mut self.session
            && snapshot
        {
            live.wrong_snapshots += 1;
            if live.wrong_snapshots > WRONG_SNAPSHOTS_MAX {
                let message = "a whole set of rows does not have the digest it says";
                self.close("protocol", message, Redial::Soon);
                return;
            }
        }
        self.ask(None, "the rows do not have the digest that they should");
    }

    /// Says that everything up to the revision on disk is here. Leaves after the commit, so it is true when sent.
    fn acknowledge(&mut self) {
        if let Session::Live(live) = &self.session {
            let (epoch, rev) = (live.epoch.0, self.meta.desired_rev.0);
            self.send(Kind::Received(Received { epoch, rev }));
        }
    }

    /// Asks for what fits.
    pub(super) fn ask(&mut self, from: Option<Revision>, why: &str) {
        if let Session::Live(live) = &self.session {
            let epoch = live.epoch.0;
            let resync = Resync {
                epoch,
                from: from.map(|rev| rev.0),
            };
            self.send(Kind::Resync(resync));
            let why = why.to_owned();
            self.event(Event::LedgerResync { from, why });
        }
    }
}

/// A recorded outcome as the agent takes it.
fn ended_of(row: &Row) -> Option<(ExecutionId, Label, EndedHow)> {
    let outcome = ObservedRow::decode(&row.body).ok()?;
    let label = Label {
        version: outcome.version,
        attempt: outcome.attempt,
    };
    let how = match outcome.phase {
        ObservedPhase::Completed => EndedHow::Completed,
        ObservedPhase::Failed => EndedHow::Failed {
            reason: outcome.fail.unwrap_or(FailReason::Indeterminate),
            message: outcome.reason,
        },
        _ => return None,
    };
    Some((outcome.execution, label, how))
}

/// What is known of a spec: from the change, or from the disk.
fn known_spec(
    store: &mut Store,
    texts: &BTreeMap<Digest, Vec<u8>>,
    digest: Digest,
) -> Result<Option<SpecFacts>, StoreError> {
    if let Some(bytes) = texts.get(&digest) {
        return Ok(Some(facts_of(bytes)));
    }
    Ok(store.spec_checked(digest)?.map(|bytes| facts_of(&bytes)))
}
