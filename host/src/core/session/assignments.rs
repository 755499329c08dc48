//! What a node should do, on its way: the outbox says from where to where, and this makes the messages.

use std::time::Duration;

use sluice_ledger::{Position, Sending};
use sluice_model::{Digest, NodeId, Revision};
use sluice_protocol::{AssignmentRow, OutcomeKey, Row, Rows, Splitter, orchestrator_message};
use tracing::info;

use super::super::{ACK_PATIENCE, ConnId, Core, Handled, Step};
use super::{Live, State, send};
use crate::store::{DesiredChange, Store, StoreError};

/// The slowest link that changes are expected to get through: 8 kbit/s.
const SLOWEST_BYTES_PER_SECOND: u64 = 1000;

impl<S: Store> Core<S> {
    /// Sends a node's session what its outbox says is next.
    pub(in crate::core) fn pump(
        &mut self,
        node: NodeId,
        step: &mut Step,
    ) -> Result<Handled, StoreError> {
        let Some(&conn) = self.live.get(&node) else {
            return Ok(Handled::Keep);
        };
        let head = self.store.desired_position(node)?;
        let Some((_, live)) = self.peek_live(conn) else {
            return Ok(Handled::Keep);
        };
        if live.held {
            return Ok(Handled::Keep);
        }
        live.outbox.handle_changed(head);
        let Some(sending) = live.outbox.poll_send() else {
            return Ok(Handled::Keep);
        };
        let (session, spec_pieces) = (live.session, live.spec_pieces);
        let base = match sending {
            Sending::Delta { base } => Some(base),
            Sending::Snapshot => None,
        };
        let (base, change) = match self.store.desired_after(node, base)? {
            Some(change) => (base, change),
            None => (
                None,
                self.store.desired_after(node, None)?.unwrap_or_default(),
            ),
        };
        let (parts, bytes) = self.parts(base, head, change, spec_pieces)?;
        info!(
            event = "ledger.sent",
            node = %node,
            session = session.0,
            base = base.map(|base| base.0),
            rev = head.rev.0,
            parts = parts.len(),
        );
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        for part in parts {
            send(step, conn, orchestrator_message::Kind::Rows(part));
        }
        if let Some((_, live)) = self.peek_live(conn) {
            live.patience = ACK_PATIENCE + Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND);
            live.outbox.handle_sent(head.rev, step.now.mono);
        }
        Ok(Handled::Keep)
    }

    fn peek_live(&mut self, conn: ConnId) -> Option<(NodeId, &mut Live)> {
        let session = self.sessions.get_mut(&conn)?;
        match &mut session.state {
            State::Live(live) => Some((session.peer.node, live)),
            State::Opening | State::Welcomed(_) | State::Renewing { .. } => None,
        }
    }

    /// A change in parts that leave room for heartbeats between them, and the bytes they have together.
    fn parts(
        &mut self,
        base: Option<Revision>,
        to: Position,
        change: DesiredChange,
        spec_pieces: bool,
    ) -> Result<(Vec<Rows>, usize), StoreError> {
        let mut parts = Splitter::new(Rows {
            epoch: self.epoch.0,
            base: base.map(|base| base.0),
            to: to.into(),
            authoritative: base.is_none(),
            ..Rows::default()
        });
        if spec_pieces {
            parts = parts.cutting_specs();
        }
        let mut sent: std::collections::BTreeSet<Digest> = std::collections::BTreeSet::new();
        for (row, spec) in change.upserts {
            if let Some(digest) = spec
                && sent.insert(digest)
            {
                let bytes = self.store.spec(digest)?.ok_or_else(|| StoreError::Failed {
                    action: "read a spec",
                    source: format!("{digest} is not there").into(),
                })?;
                parts.spec(bytes);
            }
            if let Some(outcome) = self.recorded_outcome(&row)? {
                parts.outcome(outcome);
            }
            parts.upsert(row);
        }
        for key in change.removed {
            parts.remove(key);
        }
        Ok(parts.finish())
    }

    /// How the attempt that a row names ended: told with the row, so that an edge that lost its store does not run it
    /// again.
    fn recorded_outcome(&mut self, row: &Row) -> Result<Option<Row>, StoreError> {
        let Ok(assignment) = AssignmentRow::decode(&row.body) else {
            return Ok(None);
        };
        let key = OutcomeKey {
            execution: assignment.execution,
            version: assignment.version,
            attempt: assignment.attempt,
        };
        let outcome = self.store.outcome(key)?;
        Ok(outcome.map(|outcome| Row {
            key: key.to_bytes().to_vec(),
            body: outcome.encode(),
        }))
    }
}
