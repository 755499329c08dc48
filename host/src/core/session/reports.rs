//! What a node reports: its observed set in parts, put together, judged, written down and acknowledged.

use sluice_ledger::{Offer, Position, Verdict};
use sluice_model::{Desired, ExecutionId, NodeId, ObservedPhase, Revision, Slot};
use sluice_protocol::admission::RejectCode;
use sluice_protocol::{ObservedRow, Received, Resync, Rows, orchestrator_message};
use tracing::{info, warn};

use super::super::tally::count;
use super::super::{ConnId, Core, Handled, Step};
use super::{Live, send};
use crate::store::{Store, StoreError};

/// Bytes of one change that are collected before it is applied; a full set of rows is far smaller.
pub(super) const COLLECTED_BYTES_MAX: usize = 64 << 20;

/// Live rows that a node may report on beyond its assignments: what was taken from it and is on its way out. As many as
/// removals are remembered of.
const LEFT_OVER_MAX: u64 = 10_000;

/// Snapshots of reports that may fail to add up before the session is closed as broken.
const WRONG_SNAPSHOTS_MAX: u32 = 3;

/// What became of a change of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Applied {
    Whole,
    /// The result differs from the digest it should have.
    WrongDigest,
    /// More than a node can have to report on.
    TooMany {
        reported: u64,
        assigned: u64,
    },
}

impl<S: Store> Core<S> {
    pub(super) fn handle_rows(
        &mut self,
        conn: ConnId,
        rows: Rows,
        step: &mut Step,
    ) -> Result<Handled, StoreError> {
        let epoch = self.epoch;
        let Some((node, live)) = self.live_mut(conn, step.now) else {
            return self.violation(conn, "reports before Begin", step);
        };
        if live.held || rows.epoch != epoch.0 {
            return Ok(Handled::Keep);
        }
        let whole = match live.collector.push(rows) {
            Ok(Some(whole)) => whole,
            Ok(None) => return Ok(Handled::Keep),
            Err(error) => return self.violation(conn, &error.to_string(), step),
        };
        let Some(to) = whole.to.to_position() else {
            return self.violation(conn, "reports without a digest", step);
        };
        let verdict = live.inbox.judge(Offer {
            base: whole.base.map(Revision),
            to: to.rev,
        });
        let rev = live.inbox.rev();
        match verdict {
            Verdict::AckAgain => self.ack_reports(conn, rev, step),
            Verdict::AskFrom(from) => {
                let resync = Resync {
                    epoch: epoch.0,
                    from: Some(from.0),
                };
                send(step, conn, orchestrator_message::Kind::Resync(resync));
            }
            Verdict::Apply => {
                let applied = self.apply_reports(node, &whole, to, step)?;
                if let Applied::TooMany { reported, assigned } = applied {
                    let message = format!(
                        "this edge reports on {reported} executions; it has {assigned} assignments, and at most \
                         {LEFT_OVER_MAX} reports may be left over from earlier ones"
                    );
                    self.refuse(conn, RejectCode::Busy, message, step);
                    return Ok(Handled::Undo);
                }
                if applied == Applied::WrongDigest {
                    count(&self.tally.resyncs);
                    info!(event = "ledger.resync", node = %node, rev = to.rev.0, "reports did not add up");
                    send(
                        step,
                        conn,
                        orchestrator_message::Kind::Resync(Resync {
                            epoch: epoch.0,
                            from: None,
                        }),
                    );
                    if whole.base.is_none()
                        && let Some((_, live)) = self.live_mut(conn, step.now)
                    {
                        live.wrong_snapshots += 1;
                        if live.wrong_snapshots >= WRONG_SNAPSHOTS_MAX {
                            self.violation(conn, "reports that never add up", step)?;
                        }
                    }
                    return Ok(Handled::Undo);
                }
                if let Some((_, live)) = self.live_mut(conn, step.now) {
                    live.inbox.handle_applied(to.rev);
                    live.observed = to;
                    live.wrong_snapshots = 0;
                    live.note_reported(&whole);
                }
                self.forget_told(node, &whole);
                self.ack_reports(conn, to.rev, step);
            }
        }
        Ok(Handled::Keep)
    }

    /// Forgets what heartbeats said of the executions whose rows came: it may be of what ran before. An edge that sends a
    /// row tells the counters anew.
    fn forget_told(&mut self, node: NodeId, rows: &Rows) {
        if rows.base.is_none() {
            self.forget_counters(node);
        }
        let keys = rows.upserts.iter().map(|row| &row.key);
        for execution in keys.chain(&rows.removed) {
            if let Some(execution) = ExecutionId::from_slice(execution) {
                self.forget_totals(node, execution);
            }
        }
    }

    fn ack_reports(&self, conn: ConnId, rev: Revision, step: &mut Step) {
        let received = Received {
            epoch: self.epoch.0,
            rev: rev.0,
        };
        send(step, conn, orchestrator_message::Kind::Received(received));
    }

    /// Writes a change of a node's reports. What is not [`Applied::Whole`] must be undone.
    fn apply_reports(
        &mut self,
        node: NodeId,
        rows: &Rows,
        to: Position,
        step: &mut Step,
    ) -> Result<Applied, StoreError> {
        if rows.base.is_none() {
            self.store.clear_observed(node)?;
        }
        let mut reports = Vec::with_capacity(rows.upserts.len());
        for row in &rows.upserts {
            let Some(execution) = ExecutionId::from_slice(&row.key) else {
                return Ok(Applied::WrongDigest);
            };
            // It counts in the digest whatever it says; what a newer edge says in new words means nothing here.
            self.store.put_observed(node, execution, &row.body)?;
            reports.extend(
                ObservedRow::decode(&row.body)
                    .ok()
                    .filter(|report| report.execution == execution),
            );
        }
        for key in &rows.removed {
            let Some(execution) = ExecutionId::from_slice(key) else {
                return Ok(Applied::WrongDigest);
            };
            self.store.remove_observed(node, execution)?;
        }
        if self.store.observed_digest(node)? != to.digest {
            return Ok(Applied::WrongDigest);
        }
        let (reported, assigned) = self.store.row_counts(node)?;
        if reported > assigned + LEFT_OVER_MAX {
            return Ok(Applied::TooMany { reported, assigned });
        }
        self.store.set_observed_position(node, to)?;
        for row in &rows.outcomes {
            let Ok(outcome) = ObservedRow::decode(&row.body) else {
                warn!(event = "ledger.unreadable", node = %node, "an outcome cannot be read");
                continue;
            };
            let Some(execution) = self.own_execution(node, outcome.execution)? else {
                continue;
            };
            if self.store.put_outcome(node, &outcome, &row.body)? {
                log_state(&outcome);
                if execution.slot == Slot::ZERO {
                    self.evaluate_job(execution.job, step.now.unix)?;
                }
                self.note_output(&execution, &outcome, step)?;
                self.settle_execution(&execution, step)?;
            }
        }
        for report in reports {
            let Some(execution) = self.own_execution(node, report.execution)? else {
                continue;
            };
            // An end is also an outcome, and said once: with the outcome, when it is new.
            if !matches!(
                report.phase,
                ObservedPhase::Completed | ObservedPhase::Failed
            ) {
                log_state(&report);
            }
            // What it tells of a new version may end its rollout, or let the next nodes have it.
            if self.watches.contains_key(&execution.job) {
                self.evaluate_job(execution.job, step.now.unix)?;
            }
            if matches!(
                report.phase,
                ObservedPhase::Stopped
                    | ObservedPhase::Quarantined
                    | ObservedPhase::Refused
                    | ObservedPhase::Purged
            ) {
                self.note_output(&execution, &report, step)?;
                self.settle_execution(&execution, step)?;
            }
            if report.phase == ObservedPhase::Purged && execution.desired == Desired::Purge {
                self.store.remove_assignment(execution.id)?;
                self.forget_job_if_purged(execution.job)?;
                step.touched.insert(node);
            }
        }
        Ok(Applied::Whole)
    }

    fn own_execution(
        &mut self,
        node: NodeId,
        execution: ExecutionId,
    ) -> Result<Option<crate::store::ExecutionRecord>, StoreError> {
        Ok(self
            .store
            .execution(execution)?
            .filter(|execution| execution.node == node))
    }
}

impl Live {
    /// Keeps in mind what its rows are about now.
    fn note_reported(&mut self, rows: &Rows) {
        if rows.base.is_none() {
            self.reported.clear();
        }
        let upserts = rows.upserts.iter();
        self.reported
            .extend(upserts.filter_map(|row| ExecutionId::from_slice(&row.key)));
        for key in &rows.removed {
            if let Some(execution) = ExecutionId::from_slice(key) {
                self.reported.remove(&execution);
            }
        }
    }
}

fn log_state(report: &ObservedRow) {
    info!(
        event = "execution.state",
        execution = %report.execution,
        version = report.version.0,
        attempt = report.attempt.0,
        state = %report.phase,
        reason = %report.reason,
    );
}
