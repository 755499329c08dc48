//! The three tasks of an execution, and what travels between them.
//!
//! ```text
//!                window: 64 unacked batches, 32 MiB
//!   run_input --Flight--> run_stages --Flight--> OutputTask --ack--> checkpoint, counters
//!       ^                                            |
//!       +--------------- free flights ---------------+
//! ```
//!
//! A [`Flight`] is a batch with everything that belongs to it, in buffers that go round for ever. Order is kept
//! throughout, so an ack is a count. Each task ends when the one before it has ended and everything was handed on, or at
//! once when the one behind it is gone.

use std::sync::Arc;
use std::time::Duration;

use sluice_connectors::{Input, InputBatch, InputError, Next};
use sluice_model::{Digest, StageName};
use sluice_record::Batch;
use sluice_sandbox::{ChainFault, ChainHandle, ChainOutput, OnRetry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::counters::{Tally, count};
use super::dead_letters::{encode_death, encode_reject};
use super::log::{Log, LogLevel};

/// Unacked batches of one execution: what a kill repeats, and with full batches 16 MiB.
pub(super) const IN_FLIGHT_BATCHES_MAX: usize = 64;
/// A batch takes one unit of the window and one more for each of these bytes, so that the largest records together stay
/// at 32 MiB.
const WINDOW_UNIT_BYTES: usize = 512 * 1024;
/// Flights between two tasks: enough to keep both busy, few enough to stay in the cache.
pub(super) const QUEUED_FLIGHTS_MAX: usize = 4;
/// Bytes a buffer may keep when its flight goes round again.
const BUFFER_BYTES_KEPT: usize = 1024 * 1024;

/// Tries of a batch whose stage says `retry`, the first included.
const RETRY_TRIES_MAX: u32 = 10;
/// Longest time that a batch is retried.
const RETRY_TIME_MAX: Duration = Duration::from_secs(5 * 60);
/// The first wait; each next one is twice as long.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(250);
/// The longest wait, so that a service that came back is noticed.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

/// A batch on its way.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// What the input gave.
    pub(super) input: InputBatch,
    /// What the stages made of it.
    pub(super) output: ChainOutput,
    /// Encoded dead letters.
    pub(super) dead_letters: Vec<u8>,
    /// How many.
    pub(super) died: u64,
    /// Its place among the unacked.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

impl Flight {
    /// Records of the input, the rejected ones included.
    pub(super) fn records_in(&self) -> u64 {
        (self.input.batch.len() + self.input.rejects.len()) as u64
    }

    /// Makes it ready for another round; a buffer that one huge record made large is given back.
    pub(super) fn recycle(&mut self) {
        self.input.clear();
        self.dead_letters.clear();
        self.dead_letters.shrink_to(BUFFER_BYTES_KEPT);
        self.died = 0;
        if self.input.batch.data.capacity() > BUFFER_BYTES_KEPT {
            self.input = InputBatch::default();
            self.output = ChainOutput::new();
        }
    }
}

/// How an input task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputRan {
    /// The input has nothing more.
    Ended,
    /// It was told to stop.
    Stopped,
    /// Nobody takes batches any more.
    Abandoned,
}

/// What the input task works with.
pub(super) struct InputTask {
    pub(super) input: Input,
    pub(super) free: mpsc::Receiver<Box<Flight>>,
    pub(super) to: mpsc::Sender<Box<Flight>>,
    pub(super) tally: Arc<Tally>,
    pub(super) stop: CancellationToken,
}

/// Reads batches and sends them off until the input ends or `stop`.
pub(super) async fn run_input(mut task: InputTask) -> Result<InputRan, InputError> {
    let window = Arc::new(Semaphore::new(IN_FLIGHT_BATCHES_MAX));
    loop {
        let mut flight = task.free.try_recv().unwrap_or_default();
        let filled = async {
            let mut room = take_room(&window, 1).await;
            let next = task.input.next(&mut flight.input).await?;
            let more = extra_units(&flight.input.batch);
            if more > 0 {
                room.merge(take_room(&window, more).await);
            }
            flight.room = Some(room);
            Ok::<_, InputError>(next)
        };
        let next = tokio::select! {
            biased;
            () = task.stop.cancelled() => return Ok(InputRan::Stopped),
            next = filled => next?,
        };
        if next == Next::End {
            return Ok(InputRan::Ended);
        }
        count(&task.tally.records_in, flight.records_in());
        if task.to.send(flight).await.is_err() {
            return Ok(InputRan::Abandoned);
        }
    }
}

async fn take_room(window: &Arc<Semaphore>, units: u32) -> OwnedSemaphorePermit {
    Arc::clone(window)
        .acquire_many_owned(units)
        .await
        .expect("the window is never closed")
}

fn extra_units(batch: &Batch) -> u32 {
    let units = (batch.data.len() / WINDOW_UNIT_BYTES).min(IN_FLIGHT_BATCHES_MAX - 1);
    u32::try_from(units).expect("at most the window")
}

/// Why the stages ended an execution.
#[derive(Debug, thiserror::Error)]
pub(super) enum StagesFault {
    /// A stage said so.
    #[error("{0}")]
    Fatal(ChainFault),
    /// The host could not run them: worth another try.
    #[error("{0}")]
    Host(ChainFault),
}

/// What the stages task works with.
pub(super) struct StagesTask {
    /// `None` for a pipeline without stages.
    pub(super) chain: Option<ChainHandle>,
    pub(super) names: Arc<[(StageName, Digest)]>,
    pub(super) from: mpsc::Receiver<Box<Flight>>,
    pub(super) to: mpsc::Sender<Box<Flight>>,
    pub(super) tally: Arc<Tally>,
    pub(super) log: Log,
    pub(super) stop: CancellationToken,
}

/// How a stages task ended, if well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StagesRan {
    /// Every batch went through.
    Through,
    /// A batch stayed behind, unacked.
    GaveUp,
}

/// Takes batches through the stages until there are no more.
pub(super) async fn run_stages(mut task: StagesTask) -> Result<StagesRan, StagesFault> {
    while let Some(mut flight) = task.from.recv().await {
        if task.chain.is_some() && !flight.input.batch.is_empty() {
            if task.process(&mut flight).await? == StagesRan::GaveUp {
                return Ok(StagesRan::GaveUp);
            }
            task.bury(&mut flight);
        }
        for rejected in &flight.input.rejects {
            encode_reject(&mut flight.dead_letters, rejected);
            flight.died += 1;
        }
        count(&task.tally.dead_letters, flight.died);
        if task.to.send(flight).await.is_err() {
            return Ok(StagesRan::GaveUp);
        }
    }
    Ok(StagesRan::Through)
}

impl StagesTask {
    /// One batch through the chain, with retries as the stage asks for them; told to stop, it does not wait for them.
    async fn process(&mut self, flight: &mut Flight) -> Result<StagesRan, StagesFault> {
        let chain = self.chain.as_mut().expect("called only with a chain");
        let started = Instant::now();
        let mut delay = RETRY_DELAY_MIN;
        let mut tries = 0;
        loop {
            tries += 1;
            let last = tries >= RETRY_TRIES_MAX || started.elapsed() >= RETRY_TIME_MAX;
            let on_retry = if last {
                OnRetry::Isolate
            } else {
                OnRetry::Report
            };
            let batch = std::mem::take(&mut flight.input.batch);
            let output = std::mem::take(&mut flight.output);
            let done = chain.process(batch, output, on_retry).await;
            (flight.input.batch, flight.output) = (done.input, done.output);
            match done.result {
                Ok(()) => return Ok(StagesRan::Through),
                Err(fault @ ChainFault::Retry { .. }) => {
                    count(&self.tally.retries, 1);
                    self.log.runner(
                        LogLevel::Warn,
                        format!("try {tries}: {fault}; again in {delay:?}"),
                    );
                    tokio::select! {
                        () = self.stop.cancelled() => return Ok(StagesRan::GaveUp),
                        () = tokio::time::sleep(delay) => {}
                    }
                    delay = (delay * 2).min(RETRY_DELAY_MAX);
                }
                Err(fault @ ChainFault::Fatal { .. }) => return Err(StagesFault::Fatal(fault)),
                Err(fault @ ChainFault::Host(_)) => return Err(StagesFault::Host(fault)),
            }
        }
    }

    /// Encodes the batch's dead letters and mentions the first in the log.
    fn bury(&self, flight: &mut Flight) {
        let Some(first) = flight.output.dead_letters.first() else {
            return;
        };
        let stage = self
            .names
            .get(first.stage as usize)
            .map(|(name, _)| name.clone());
        let all = flight.output.dead_letters.len();
        let message = format!(
            "{all} of {} records became dead letters; the first: {}: {}",
            flight.input.batch.len(),
            first.kind.as_str(),
            first.reason
        );
        self.log.say(LogLevel::Warn, stage, message);
        for letter in &flight.output.dead_letters {
            encode_death(
                &mut flight.dead_letters,
                letter,
                &flight.input.batch,
                &self.names,
            );
        }
        flight.died += all as u64;
    }
}
