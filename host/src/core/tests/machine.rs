//! A connected edge that reports what its tasks come to.

use sluice_model::{FailReason, OutputFacts};

use super::*;
use crate::store::TaskRecord;

/// A connected edge, and what it has reported.
pub(super) struct Machine {
    pub(super) edge: Edge,
    pub(super) conn: ConnId,
    rev: u64,
    digest: SetDigest,
    told: BTreeMap<ExecutionId, RowHash>,
    /// What the next reports say in words.
    reason: String,
}

/// What is said of an execution.
#[derive(Clone, Copy)]
struct Said {
    phase: ObservedPhase,
    fail: Option<FailReason>,
    output: Option<OutputFacts>,
}

impl Machine {
    pub(super) fn connect(world: &mut World, name: &str, key: u8) -> Self {
        let mut edge = world.edge(name, key);
        let (conn, outputs) = world.begin(&mut edge);
        world.apply(&mut edge, conn, &outputs);
        Self {
            edge,
            conn,
            rev: 0,
            digest: SetDigest::EMPTY,
            told: BTreeMap::new(),
            reason: String::new(),
        }
    }

    /// Its process starts again on its store, and connects.
    pub(super) fn again(&mut self, world: &mut World) {
        self.edge.boot.0 += 1;
        self.edge.boot.1 = [u8::try_from(self.edge.boot.0).unwrap(); 16];
        (self.conn, _) = world.begin(&mut self.edge);
    }

    /// Acknowledges whatever it was sent.
    pub(super) fn ack(&self, world: &mut World) {
        let node = world.core.store_mut().node(self.edge.node);
        let received = Received {
            epoch: self.edge.life.0,
            rev: node.unwrap().unwrap().desired.rev.0,
        };
        world.say(self.conn, edge_message::Kind::Received(received));
    }

    pub(super) fn report(
        &mut self,
        world: &mut World,
        execution: ExecutionId,
        phase: ObservedPhase,
    ) {
        let said = Said {
            phase,
            fail: None,
            output: None,
        };
        self.say(world, execution, said);
    }

    /// Reports that it waits to try again, and why.
    pub(super) fn waits(&mut self, world: &mut World, execution: ExecutionId, reason: &str) {
        self.reason = reason.to_owned();
        self.report(world, execution, ObservedPhase::Backoff);
        self.reason.clear();
    }

    pub(super) fn completes(&mut self, world: &mut World, execution: ExecutionId) {
        self.report(world, execution, ObservedPhase::Completed);
    }

    pub(super) fn fails(&mut self, world: &mut World, execution: ExecutionId, fail: FailReason) {
        let said = Said {
            phase: ObservedPhase::Failed,
            fail: Some(fail),
            output: None,
        };
        self.say(world, execution, said);
    }

    /// Reports the end of a try with what it wrote.
    pub(super) fn end(
        &mut self,
        world: &mut World,
        execution: ExecutionId,
        phase: ObservedPhase,
        output: Option<OutputFacts>,
    ) {
        let said = Said {
            phase,
            fail: None,
            output,
        };
        self.say(world, execution, said);
    }

    fn say(&mut self, world: &mut World, execution: ExecutionId, said: Said) {
        self.ack(world);
        let record = world.core.store_mut().execution(execution);
        let record = record.unwrap().unwrap();
        let Said {
            phase,
            fail,
            output,
        } = said;
        let report = ObservedRow {
            execution,
            version: record.version,
            attempt: record.attempt,
            phase,
            fail,
            reason: fail.map_or_else(|| self.reason.clone(), |fail| format!("said {fail}")),
            next_action: String::new(),
            next_at: None,
            restarts: 0,
            records_in: 0,
            records_out: 0,
            dead_letters: 0,
            running_version: None,
            at: UnixMs(1),
            output,
        };
        let body = report.encode();
        let hash = RowHash::of(&body);
        if let Some(old) = self.told.insert(execution, hash) {
            self.digest = self.digest.without(old);
        }
        self.digest = self.digest.with(hash);
        let row = |key| Row {
            key,
            body: body.clone(),
        };
        let is_end = matches!(phase, ObservedPhase::Completed | ObservedPhase::Failed);
        let rows = Rows {
            epoch: self.edge.life.0,
            base: Some(self.rev),
            to: Position {
                rev: Revision(self.rev + 1),
                digest: self.digest,
            }
            .into(),
            last: true,
            upserts: vec![row(execution.to_bytes().to_vec())],
            outcomes: is_end
                .then(|| row(report.outcome_key().to_bytes().to_vec()))
                .into_iter()
                .collect(),
            ..Rows::default()
        };
        self.rev += 1;
        let outputs = world.say(self.conn, edge_message::Kind::Rows(rows));
        assert_eq!(closed(&outputs, self.conn), None);
        self.ack(world);
    }

    pub(super) fn is_of(&self, task: &TaskRecord) -> bool {
        let node = task.node.as_ref();
        node.is_some_and(|(node, _)| *node == self.edge.node)
    }
}
