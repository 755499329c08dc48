//! The chain whose guests run in this process, on the calling thread.
//!
//! ```text
//! input --stage 0--> kept | selected | replaced --stage 1--> ... --> output
//!           |                                        |
//!           +---- rejects, poison -------------------+---> dead letters, by the chain input's index
//! ```
//!
//! A stage reads the chain's input in place until some stage replaces records or drops some before another stage; only
//! then is there a batch of the chain's own. What the last stage selects is never copied.
//!
//! At the end of the input each stage that reports is asked for a batch, which goes through the stages behind it: it is
//! the input of a chain that begins there, so its dead letters and origins mean what they mean elsewhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_record::Batch;

use crate::chain::{
    Base, Chain, ChainFault, ChainOutput, DeadLetter, DeadLetterKind, OnRetry, Turn,
};
use crate::engine::Engine;
use crate::error::ConfigureError;
use crate::isolate::{Isolated, Isolation, Step};
use crate::log::{LogGate, LogSink, TellDropped};
use crate::outcome::{Checked, Kept};
use crate::stage::{CallFailure, Stage, StageSpec};

/// A batch that is being isolated gives others a turn after this long.
const TURN: Duration = Duration::from_millis(20);

/// A chain of stages in this process.
pub struct InProcessChain {
    stages: Vec<Stage>,
    log: LogGate,
    /// Where the batch goes on that was answered with [`Turn::Again`], or with `retry` behind a stage that gathers.
    pending: Option<Pending>,
    /// A buffer for selected records on their way to the next stage.
    spare: Batch,
}

struct Pending {
    stage: usize,
    isolation: Option<Isolation>,
}

impl InProcessChain {
    /// Instantiates and configures every stage. Runs guest code and may take each stage's deadline: not for threads that
    /// serve a network, nor inside an async task.
    pub fn new(
        engine: &Engine,
        stages: Vec<StageSpec>,
        sink: Arc<dyn LogSink>,
    ) -> Result<Self, ConfigureError> {
        let rates = stages
            .iter()
            .map(|stage| stage.limits.log_lines_per_second_max);
        let log = LogGate::new(sink, rates.min().unwrap_or(0));
        let stages = stages
            .into_iter()
            .map(|spec| Stage::start(engine, spec, log.clone()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            stages,
            log,
            pending: None,
            spare: Batch::new(),
        })
    }

    fn run(
        &mut self,
        from: usize,
        input: &Batch,
        output: &mut ChainOutput,
        on_retry: OnRetry,
    ) -> Result<Turn, ChainFault> {
        let mut turn = TurnEnd::default();
        let (first, mut resumed) = match self.pending.take() {
            Some(Pending { stage, isolation }) => (stage, isolation),
            None => {
                output.clear();
                (from, None)
            }
        };
        let gatherer = self.stages.iter().position(Stage::reports);
        for (index, stage) in self.stages.iter_mut().enumerate().skip(first) {
            compact(output, input, &mut self.spare);
            let batch = match output.base {
                Base::Input => input,
                Base::Own => &output.batch,
            };
            if batch.is_empty() {
                break;
            }
            match run_stage(stage, batch, resumed.take(), on_retry, &mut turn) {
                Ok(Step::Done(isolated)) => apply(isolated, index as u32, output),
                Ok(Step::Again(isolation)) => {
                    self.pending = Some(Pending {
                        stage: index,
                        isolation: Some(isolation),
                    });
                    return Ok(Turn::Again);
                }
                Err(fault) => {
                    let gathered = gatherer.is_some_and(|gatherer| gatherer < index);
                    if gathered && matches!(fault, ChainFault::Retry { .. }) {
                        self.pending = Some(Pending {
                            stage: index,
                            isolation: None,
                        });
                    }
                    return Err(fault);
                }
            }
        }
        Ok(Turn::Done)
    }

    /// Runs a batch from a stage on, and ends what has to end however it went.
    fn run_from(
        &mut self,
        from: usize,
        input: &Batch,
        output: &mut ChainOutput,
        on_retry: OnRetry,
    ) -> Result<Turn, ChainFault> {
        let result = self.run(from, input, output, on_retry);
        if result.is_err() && self.pending.is_none() {
            output.fail();
        }
        self.tell_dropped();
        result
    }

    fn tell_dropped(&self) {
        if let Some(stage) = self.stages.first() {
            self.log.tell_dropped(stage.name(), TellDropped::WhenOver);
        }
    }

    /// The place of an ending's stage.
    fn ending(&self, ending: usize) -> usize {
        let reporting = self.stages.iter().enumerate();
        let mut reporting = reporting.filter(|(_, stage)| stage.reports());
        let (index, _) = reporting.nth(ending).expect("endings are counted");
        index
    }
}

/// When a turn with an isolation in it ends: counted from the first isolation, since a batch that passes needs no clock.
#[derive(Default)]
struct TurnEnd(Option<Instant>);

impl TurnEnd {
    fn ends(&mut self) -> Instant {
        *self.0.get_or_insert_with(|| Instant::now() + TURN)
    }
}

/// One stage's part in a turn: a call, and the search for poison if that failed or is under way.
fn run_stage(
    stage: &mut Stage,
    batch: &Batch,
    resumed: Option<Isolation>,
    on_retry: OnRetry,
    turn: &mut TurnEnd,
) -> Result<Step, ChainFault> {
    let isolation = match resumed {
        Some(isolation) => isolation,
        None => match stage.call(batch, stage.limits().deadline) {
            Ok(checked) => return Ok(Step::Done(checked.into())),
            Err(failure) => Isolation::start(failure, batch, stage, on_retry)?,
        },
    };
    isolation.run(batch, stage, on_retry, turn.ends())
}

impl Chain for InProcessChain {
    fn process(
        &mut self,
        input: &Batch,
        output: &mut ChainOutput,
        on_retry: OnRetry,
    ) -> Result<Turn, ChainFault> {
        self.run_from(0, input, output, on_retry)
    }

    fn endings(&self) -> usize {
        self.stages.iter().filter(|stage| stage.reports()).count()
    }

    fn finish(&mut self, ending: usize, report: &mut Batch) -> Result<(), ChainFault> {
        let index = self.ending(ending);
        let stage = &mut self.stages[index];
        let said = stage.finish();
        let name = || stage.name().to_owned();
        let result = match said {
            Ok(batch) => {
                *report = batch;
                Ok(())
            }
            Err(CallFailure::Retry(reason)) => Err(ChainFault::Retry {
                stage: name(),
                reason,
            }),
            Err(CallFailure::Fatal(reason)) => Err(ChainFault::Fatal {
                stage: name(),
                reason,
            }),
            Err(CallFailure::Error(error)) => {
                Err(ChainFault::Host(format!("stage {:?}: {error}", name())))
            }
        };
        self.tell_dropped();
        result
    }

    fn process_report(
        &mut self,
        ending: usize,
        report: &Batch,
        output: &mut ChainOutput,
        on_retry: OnRetry,
    ) -> Result<Turn, ChainFault> {
        let behind = self.ending(ending) + 1;
        self.run_from(behind, report, output, on_retry)
    }

    fn cancel(&mut self) {
        self.pending = None;
    }

    fn memory_bytes(&self) -> u64 {
        self.stages.iter().map(Stage::memory_bytes).sum()
    }
}

impl Drop for InProcessChain {
    fn drop(&mut self) {
        if let Some(stage) = self.stages.first() {
            self.log.tell_dropped(stage.name(), TellDropped::Now);
        }
    }
}

/// Makes the records that passed so far one batch, for the next stage: guests read whole batches.
fn compact(output: &mut ChainOutput, input: &Batch, spare: &mut Batch) {
    let Some(selected) = output.selected.take() else {
        return;
    };
    match output.base {
        Base::Input => {
            output.batch.clear();
            output.batch.append_selected(input, &selected);
            output.origin = selected;
            output.base = Base::Own;
        }
        Base::Own => {
            spare.clear();
            spare.append_selected(&output.batch, &selected);
            std::mem::swap(spare, &mut output.batch);
            for (slot, &index) in selected.iter().enumerate() {
                output.origin[slot] = output.origin[index as usize];
            }
            output.origin.truncate(selected.len());
        }
    }
}

/// Takes a stage's result into the output. The output has no selection at this point.
fn apply(result: Isolated, stage: u32, output: &mut ChainOutput) {
    for letter in result.dead {
        let index = output.origin_of(letter.index);
        output.dead_letters.push(DeadLetter {
            index,
            stage,
            ..letter
        });
    }
    match result.kept {
        Kept::All => {}
        Kept::Selected(indices) => output.selected = Some(indices),
        Kept::Replaced { batch, mut origin } => {
            for index in &mut origin {
                *index = output.origin_of(*index);
            }
            output.batch = batch;
            output.origin = origin;
            output.base = Base::Own;
        }
    }
}

impl From<Checked> for Isolated {
    fn from(Checked { kept, rejects }: Checked) -> Self {
        let dead = rejects.into_iter().map(|reject| DeadLetter {
            index: reject.index,
            stage: 0,
            attempts: 1,
            kind: DeadLetterKind::Reject,
            reason: reject.reason,
        });
        Self {
            kept,
            dead: dead.collect(),
        }
    }
}
