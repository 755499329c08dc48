//! Outputs of runs' tasks: what edges said of them, what lacks of them, and who may have them.
//!
//! An outcome that names an output makes it *lacking*. What lacks is derived from the disk each time it is asked for, so
//! it is pulled however often either side dies; pulling itself is the shell's ([`crate::outputs`]). An edge keeps a try's
//! state, and with it the output, until it is ordered to purge it: that order waits while the output lacks.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_api::{ErrorBody, OutputState, TaskOutput};
use sluice_model::pipeline::Output as OutputKind;
use sluice_model::{
    Desired, Digest, ExecutionId, JobId, NodeId, NodeName, OUTPUT_BYTES_MAX, OutputFacts, RunId,
    Slot, TaskState,
};
use sluice_protocol::ObservedRow;
use tracing::{info, warn};

use super::operator::{Called, Reply};
use super::runs::{TRIES_KEPT, no_run};
use super::tally::count;
use super::{ConnId, Core, Step};
use crate::store::{
    ExecutionRecord, OutputRecord, OutputWhere, Store, StoreError, TaskPhase, TaskRecord,
};

/// Why there is none of what its edge may have deleted already.
pub(super) const PURGED_FIRST: &str = "its edge was ordered to purge it before it came";

/// Outputs of one node that are offered to be pulled at once: one that cannot be had holds up no more than the others.
const OFFERED_MAX: usize = 8;

/// Ended tries of a job that a node keeps beyond [`TRIES_KEPT`] since their output lacks: at most 320 MiB of its disk.
const TRIES_AWAITED_MAX: usize = 20;

/// Outputs that one sweep lets go, and files that it gives up: some milliseconds.
const SWEPT_MAX: usize = 256;

/// What the shell asks and tells of outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputCall {
    /// What lacks and can be pulled now.
    Lacking,
    /// This execution's output is on our disk.
    Held(ExecutionId),
    /// It cannot be had, for this reason.
    Lost(ExecutionId, String),
    /// The outputs of a run.
    OfRun(RunId),
    /// How many there are.
    Totals,
    /// Which of these contents nothing names.
    Unnamed(Vec<Digest>),
    /// Lets go what is too old or too much, so much of it as one round has time for.
    Sweep {
        /// Held for longer is too old.
        keep: Duration,
        /// In the words of the setting.
        too_old: String,
        /// Together they have at most so many bytes.
        bytes_max: u64,
        /// In the words of the setting.
        too_many: String,
    },
}

/// What a sweep let go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputsSwept {
    /// Contents that nothing names any more: their files may go.
    pub dropped: BTreeSet<Digest>,
    /// There is more to let go.
    pub more: bool,
}

/// An output that can be pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputTarget {
    /// Whose.
    pub execution: ExecutionId,
    /// Where it is.
    pub node: NodeId,
    /// The node's session.
    pub conn: ConnId,
    /// What it must turn out to be.
    pub facts: OutputFacts,
}

impl<S: Store> Core<S> {
    pub(super) fn call_output(
        &mut self,
        call: OutputCall,
        step: &mut Step,
    ) -> Result<Called, StoreError> {
        let now = step.now.unix;
        Ok(match call {
            OutputCall::Lacking => Ok(Reply::OutputTargets(self.lacking_outputs()?)),
            OutputCall::Held(id) => {
                if self.store.hold_output(id, now)? {
                    info!(event = "output.held", execution = %id);
                    self.after_output(id, step)?;
                }
                Ok(Reply::Done)
            }
            OutputCall::Lost(id, reason) => {
                if self.store.lose_output(id, &reason, now)? {
                    warn!(event = "output.lost", execution = %id, reason);
                    self.after_output(id, step)?;
                }
                Ok(Reply::Done)
            }
            OutputCall::Totals => Ok(Reply::OutputTotals(self.store.output_totals()?)),
            OutputCall::Unnamed(of) => {
                let unnamed = self.store.unnamed_contents(&of)?;
                Ok(Reply::OutputDigests(unnamed.into_iter().collect()))
            }
            OutputCall::OfRun(id) => self.outputs_of_run(id)?.map(Reply::TaskOutputs),
            OutputCall::Sweep {
                keep,
                too_old,
                bytes_max,
                too_many,
            } => {
                let before = self.long_ago(keep, step.now);
                let store = &mut self.store;
                let old = store.retire_outputs(before, &too_old, now, SWEPT_MAX)?;
                let many = store.shrink_outputs(bytes_max, &too_many, now, SWEPT_MAX)?;
                let (looked_at, dropped) = store.dropped_contents(SWEPT_MAX)?;
                if old + many > 0 {
                    info!(event = "output.swept", old, many);
                }
                let more = [old, many, looked_at].contains(&SWEPT_MAX);
                let dropped = dropped.into_iter().collect();
                Ok(Reply::OutputsSwept(OutputsSwept { dropped, more }))
            }
        })
    }

    /// Takes note of an output that an edge reports with the end of a try.
    pub(super) fn note_output(
        &mut self,
        execution: &ExecutionRecord,
        report: &ObservedRow,
        step: &Step,
    ) -> Result<(), StoreError> {
        let Some(facts) = report.output.filter(|_| execution.slot != Slot::ZERO) else {
            return Ok(());
        };
        // Of a try that was followed by another one nobody asks.
        let Some(task) = self.store.task_of_execution(execution.id)? else {
            return Ok(());
        };
        self.store.put_output(&OutputRecord {
            execution: execution.id,
            run: task.run,
            node: execution.node,
            facts,
            held: if facts.bytes > OUTPUT_BYTES_MAX {
                OutputWhere::Gone {
                    reason: "its edge says that it is larger than an output may be".to_owned(),
                }
            } else if execution.desired == Desired::Purge {
                // The report was under way when its job was deleted.
                OutputWhere::Gone {
                    reason: PURGED_FIRST.to_owned(),
                }
            } else {
                OutputWhere::Lacking
            },
            at: step.now.unix,
        })?;
        count(&self.tally.outputs_noted);
        Ok(())
    }

    fn lacking_outputs(&mut self) -> Result<Vec<OutputTarget>, StoreError> {
        let lacking = self.store.lacking_outputs(OFFERED_MAX)?;
        let targets = lacking.into_iter().filter_map(|output| {
            let conn = self.live.get(&output.node).copied()?;
            Some(OutputTarget {
                execution: output.execution,
                node: output.node,
                conn,
                facts: output.facts,
            })
        });
        let targets: Vec<OutputTarget> = targets.collect();
        // Those of nodes that are away are looked for when one comes back.
        self.tally
            .outputs_lacking
            .store(!targets.is_empty(), Ordering::Relaxed);
        Ok(targets)
    }

    /// An output came, or will not: what waited for it with being purged need not any more.
    fn after_output(&mut self, id: ExecutionId, step: &mut Step) -> Result<(), StoreError> {
        match self.store.execution(id)? {
            Some(execution) => self.purge_old_tries(execution.job, execution.node, step),
            None => Ok(()),
        }
    }

    /// Orders a node to purge the ended tries of a job that it keeps no longer.
    pub(super) fn purge_old_tries(
        &mut self,
        job: JobId,
        node: NodeId,
        step: &mut Step,
    ) -> Result<(), StoreError> {
        let old = self.store.old_executions(job, node, TRIES_KEPT)?;
        for (index, id) in old.into_iter().enumerate() {
            let lacks = |output: OutputRecord| output.held == OutputWhere::Lacking;
            if index < TRIES_AWAITED_MAX && self.store.output(id)?.is_some_and(lacks) {
                continue;
            }
            if let Some(old) = self.store.execution(id)? {
                self.reorder(old, Desired::Purge, step)?;
            }
        }
        Ok(())
    }

    fn outputs_of_run(
        &mut self,
        id: RunId,
    ) -> Result<Result<Vec<TaskOutput>, ErrorBody>, StoreError> {
        if self.store.run(id)?.is_none() {
            return Ok(Err(no_run(id)));
        }
        let outputs = self.store.outputs_of_run(id)?;
        let mut shown = Vec::new();
        for task in self.store.tasks_of_run(id)? {
            let output = outputs
                .iter()
                .find(|output| Some(output.execution) == task.execution);
            shown.push(self.show_output(&task, output)?);
        }
        Ok(Ok(shown))
    }

    fn show_output(
        &mut self,
        task: &TaskRecord,
        output: Option<&OutputRecord>,
    ) -> Result<TaskOutput, StoreError> {
        let ended = task.phase == TaskPhase::Ended;
        let node = task.node.as_ref().map(|(_, name)| name.clone());
        let task_state = match (task.end, task.phase) {
            (Some(end), _) => end,
            (None, TaskPhase::Active) => TaskState::Running,
            (None, _) => TaskState::Pending,
        };
        let mut shown = TaskOutput {
            job: task.job_name.clone(),
            node: node.clone(),
            task_state,
            attempt: task.attempt,
            execution: task.execution,
            state: OutputState::Pending,
            bytes: None,
            digest: None,
            truncated: false,
            dropped_records: 0,
            reason: None,
            next_action: None,
            since: None,
        };
        let Some(output) = output.filter(|_| ended) else {
            if ended {
                shown.state = OutputState::None;
                shown.reason = Some(self.why_no_output(task, node.as_ref())?);
            } else {
                shown.reason = Some("its task has not ended".to_owned());
                shown.next_action = Some("when its task ends".to_owned());
            }
            return Ok(shown);
        };
        shown.bytes = Some(output.facts.bytes);
        shown.digest = Some(output.facts.digest);
        shown.truncated = output.facts.dropped > 0;
        shown.dropped_records = output.facts.dropped;
        shown.since = Some(output.at);
        let on = node.map_or_else(|| "its node".to_owned(), |node| node.to_string());
        match &output.held {
            OutputWhere::Held => shown.state = OutputState::Held,
            OutputWhere::Gone { reason } => {
                shown.state = OutputState::Gone;
                shown.reason = Some(reason.clone());
            }
            OutputWhere::Lacking => {
                shown.state = OutputState::Coming;
                let (reason, next) = if self.live.contains_key(&output.node) {
                    (
                        format!("it is on {on} and is being pulled"),
                        "pull it".to_owned(),
                    )
                } else {
                    let reason = format!("it is on {on}, which is not connected");
                    (reason, format!("when {on} connects"))
                };
                (shown.reason, shown.next_action) = (Some(reason), Some(next));
            }
        }
        Ok(shown)
    }

    fn why_no_output(
        &mut self,
        task: &TaskRecord,
        node: Option<&NodeName>,
    ) -> Result<String, StoreError> {
        let Some(node) = node.filter(|_| task.execution.is_some()) else {
            return Ok("it was never run".to_owned());
        };
        let pipeline = self.readable_pipeline(task.spec)?;
        let writes = pipeline.map(|it| matches!(it.output, OutputKind::Stdout(_)));
        Ok(match writes {
            Some(true) => format!(
                "{node} has told of none: it wrote nothing, could not read it back (its log says so), or has not reported how it ended"
            ),
            Some(false) => "its pipeline has no [output.stdout]".to_owned(),
            None => format!(
                "{node} has told of none, and its pipeline cannot be read any more, which would say whether it has an [output.stdout]"
            ),
        })
    }
}
