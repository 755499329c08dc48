//! What a pipeline's runner sees: a chain of stages that handles one batch.
//!
//! [`Chain`] is the whole surface between the runner and whatever runs guests: [`InProcessChain`](crate::InProcessChain)
//! today, a worker process behind the same trait later. It speaks of batches and indices only, never of instances.

use sluice_record::Batch;

/// A pipeline's whole chain of stages. One batch at a time, in order.
pub trait Chain: Send {
    /// Runs a batch through all stages. Blocks for as long as the guests take, so never on a thread that serves a network.
    ///
    /// `output` is emptied first and holds the result after [`Turn::Done`]. After [`Turn::Again`] the caller calls again
    /// with the same three arguments, unchanged; it may let others run first. After an error nothing of the batch has
    /// passed. After [`ChainFault::Retry`] the same batch is handed in again, with the same output: the stages that came
    /// before the one that asks may have gathered from it already, and do not see it twice.
    fn process(
        &mut self,
        input: &Batch,
        output: &mut ChainOutput,
        on_retry: OnRetry,
    ) -> Result<Turn, ChainFault>;

    /// How many of its stages have something to say when the input has ended. With one or more the chain keeps state in
    /// memory: what it was given has to be given again, from the beginning, to another chain.
    fn endings(&self) -> usize {
        0
    }

    /// The input has ended: fills `report`, which is empty, with what ending number `ending` says. The endings are asked
    /// in order, each after what the one before it said has gone through [`Chain::process_report`]. Blocks as
    /// [`Chain::process`] does, ten times as long at most.
    fn finish(&mut self, _ending: usize, _report: &mut Batch) -> Result<(), ChainFault> {
        Ok(())
    }

    /// Runs what ending number `ending` said through the stages behind it, as [`Chain::process`] does with a batch.
    fn process_report(
        &mut self,
        _ending: usize,
        report: &Batch,
        output: &mut ChainOutput,
        on_retry: OnRetry,
    ) -> Result<Turn, ChainFault> {
        self.process(report, output, on_retry)
    }

    /// Forgets a batch that was answered with [`Turn::Again`].
    fn cancel(&mut self) {}

    /// Bytes of memory that its guests have now.
    fn memory_bytes(&self) -> u64 {
        0
    }
}

/// Whether a chain is done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Turn {
    /// The output is complete.
    Done,
    /// Isolating a poison record takes long; the chain lets others have a turn.
    Again,
}

/// What to do when a stage answers `retry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRetry {
    /// End the batch with [`ChainFault::Retry`]; the caller hands it in again later.
    Report,
    /// The caller has tried often enough: isolate the records that the stage cannot process, as after a trap.
    Isolate,
}

/// Why a batch as a whole did not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// A stage asks for the whole batch again, later.
    #[error("stage {stage:?} asks to retry: {reason}")]
    Retry {
        /// The stage's name.
        stage: String,
        /// Its words.
        reason: String,
    },
    /// A stage ends the execution, or refuses the config that it took before.
    #[error("stage {stage:?} stopped the execution: {reason}")]
    Fatal {
        /// The stage's name.
        stage: String,
        /// Its words.
        reason: String,
    },
    /// No fault of a guest: the host ran out of something, or has a bug.
    #[error("the chain cannot run: {0}")]
    Host(String),
}

/// A record that could not be processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its index in the chain's input.
    pub index: u32,
    /// The stage it died in, counted from 0.
    pub stage: u32,
    /// How many calls failed with it, or, for a reject, led to its rejection.
    pub attempts: u32,
    /// What sort of death.
    pub kind: DeadLetterKind,
    /// In words: the stage's own for a reject, the error's otherwise. At most 1 KiB.
    pub reason: String,
}

/// What sort of death a record died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterKind {
    /// The stage rejected it.
    Reject,
    /// The stage kept asking to retry.
    Retry,
    /// The call failed: [`CallError::code`](crate::CallError::code).
    Failed(&'static str),
}

impl DeadLetterKind {
    /// A short stable name: `reject`, `retry`, `trap`, `deadline`, `memory`, ...
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Retry => "retry",
            Self::Failed(code) => code,
        }
    }
}

/// What a chain made of a batch. Reused from batch to batch; meaningful together with that batch's input.
///
/// Records that pass unchanged are not copied: [`ChainOutput::view`] reads them from the input.
#[derive(Debug, Default)]
pub struct ChainOutput {
    /// The records that died, by stage and then by index.
    pub dead_letters: Vec<DeadLetter>,
    pub(crate) base: Base,
    /// The replacing records, when `base` says so.
    pub(crate) batch: Batch,
    /// For each record of `batch`, its index in the chain's input, ascending.
    pub(crate) origin: Vec<u32>,
    /// Which records of the base passed; `None` = all.
    pub(crate) selected: Option<Vec<u32>>,
}

/// Where passed records are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Base {
    /// In the chain's input.
    #[default]
    Input,
    /// In the output's own batch.
    Own,
}

impl ChainOutput {
    /// An empty output.
    pub fn new() -> Self {
        Self::default()
    }

    /// The records that passed, in order. `input` is the batch that this output was made from.
    pub fn view<'a>(&'a self, input: &'a Batch) -> View<'a> {
        let (base, origin) = match self.base {
            Base::Input => (input, None),
            Base::Own => (&self.batch, Some(self.origin.as_slice())),
        };
        View {
            base,
            origin,
            selected: self.selected.as_deref(),
        }
    }

    /// Begins a batch: a view of it then shows the whole input.
    pub(crate) fn clear(&mut self) {
        self.dead_letters.clear();
        self.base = Base::Input;
        self.batch.clear();
        self.origin.clear();
        self.selected = None;
    }

    /// Ends a batch that failed: a view of it then shows nothing.
    pub(crate) fn fail(&mut self) {
        self.clear();
        self.selected = Some(Vec::new());
    }

    /// The chain input's index that a record of the base came from.
    pub(crate) fn origin_of(&self, index: u32) -> u32 {
        match self.base {
            Base::Input => index,
            Base::Own => self.origin[index as usize],
        }
    }
}

/// Records that passed a chain, wherever their bytes are.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    base: &'a Batch,
    origin: Option<&'a [u32]>,
    selected: Option<&'a [u32]>,
}

/// One record of a [`View`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed<'a> {
    /// Its bytes.
    pub data: &'a [u8],
    /// Its time in nanoseconds since the Unix epoch, 0 = unknown.
    pub time: u64,
    /// The index of the record of the chain's input that it came from.
    pub origin: u32,
}

impl<'a> View<'a> {
    /// How many records passed.
    pub fn len(&self) -> usize {
        self.selected.map_or(self.base.len(), <[u32]>::len)
    }

    /// Whether none passed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The records' bytes, in order.
    pub fn records(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let Self { base, selected, .. } = *self;
        (0..self.len()).map(move |index| base.record(base_index(selected, index)))
    }

    /// The records with all that is known of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Passed<'a>> + use<'a> {
        let Self {
            base,
            origin,
            selected,
        } = *self;
        (0..self.len()).map(move |index| {
            let index = base_index(selected, index);
            Passed {
                data: base.record(index),
                time: base.time(index),
                origin: origin.map_or(index as u32, |origin| origin[index]),
            }
        })
    }

    /// The batch that holds them, when all of it passed; `None` when only some did.
    pub fn whole(&self) -> Option<&'a Batch> {
        self.selected.is_none().then_some(self.base)
    }

    /// How many bytes the records have.
    pub fn bytes(&self) -> u64 {
        match self.whole() {
            Some(batch) => batch.data.len() as u64,
            None => self.records().map(|record| record.len() as u64).sum(),
        }
    }

    /// Appends the records to a batch, with times and attributes.
    pub fn append_to(&self, batch: &mut Batch) {
        match self.selected {
            Some(indices) => batch.append_selected(self.base, indices),
            None => batch.append(self.base),
        }
    }
}

fn base_index(selected: Option<&[u32]>, index: usize) -> usize {
    selected.map_or(index, |selected| selected[index] as usize)
}
