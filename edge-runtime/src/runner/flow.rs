//! What travels between the three tasks of an execution, and the first of them.
//!
//! ```text
//!                window: 64 unacked batches, 32 MiB
//!   run_input --lane--> stages, a guest thread --Flights--> OutputTask --ack--> checkpoint, counters
//!       ^                                                        |
//!       +--------------------- free flights ---------------------+
//! ```
//!
//! Where a stage has something to say at the end of the input, the end is a flight of its own, behind all others.
//!
//! A [`Flight`] is a batch with everything that belongs to it, in buffers that go round for ever. Order is kept
//! throughout, so an ack is a count. Each task ends when the one before it has ended and everything was handed on, or at
//! once when the one behind it is gone.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use sluice_connectors::{Input, InputBatch, InputError, Next};
use sluice_record::Batch;
use sluice_sandbox::ChainOutput;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::counters::{Tally, count};
use super::lane::LaneInput;

/// Unacked batches of one execution: what a kill repeats, and with full batches 16 MiB.
pub(super) const IN_FLIGHT_BATCHES_MAX: usize = 64;
/// A batch takes one unit of the window and one more for each of these bytes, so that the largest records together stay
/// at 32 MiB.
const WINDOW_UNIT_BYTES: usize = 512 * 1024;
/// Bytes a buffer may keep when its flight goes round again.
const BUFFER_BYTES_KEPT: usize = 1024 * 1024;

/// A batch on its way.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// What the input gave.
    pub(super) input: InputBatch,
    /// What the stages made of it.
    pub(super) output: ChainOutput,
    /// How often a stage said `retry`.
    pub(super) tries: u32,
    /// When it said so first.
    pub(super) first_tried: Option<Instant>,
    /// The next `retry` isolates.
    pub(super) last_try: bool,
    /// Its place among the unacked.
    pub(super) room: Option<OwnedSemaphorePermit>,
    /// The input has ended, and this is for what a stage says to that; `None` for a batch of the input.
    pub(super) ending: Option<Ending>,
}

/// What one of the stages that report says at the end of the input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// Which of them, counted from 0.
    pub(super) number: usize,
    /// It has been said, and is the flight's input batch.
    pub(super) said: bool,
}

impl Ending {
    /// One that is yet to be said.
    pub(super) fn of(number: usize) -> Self {
        Self {
            number,
            said: false,
        }
    }
}

impl Flight {
    /// Records of the input, the rejected ones included. What a stage says at the end is not of the input.
    pub(super) fn records_in(&self) -> u64 {
        if self.ending.is_some() {
            return 0;
        }
        (self.input.batch.len() + self.input.rejects.len()) as u64
    }

    /// Makes it ready for another round; a buffer that one huge record made large is given back.
    pub(super) fn recycle(&mut self) {
        self.input.clear();
        self.forget_tries();
        self.ending = None;
        if self.input.batch.data.capacity() > BUFFER_BYTES_KEPT {
            self.input = InputBatch::default();
            self.output = ChainOutput::new();
        }
    }

    /// What comes next of it has not been tried yet.
    pub(super) fn forget_tries(&mut self) {
        (self.tries, self.first_tried, self.last_try) = (0, None, false);
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
    pub(super) to: LaneInput,
    pub(super) tally: Arc<Tally>,
    pub(super) stop: CancellationToken,
    /// Some stage has something to say at the end.
    pub(super) reports: bool,
}

/// Reads batches and sends them off until the input ends or `stop`.
pub(super) async fn run_input(mut task: InputTask) -> Result<InputRan, InputError> {
    let window = Arc::new(Semaphore::new(IN_FLIGHT_BATCHES_MAX));
    loop {
        let mut flight = task.free.try_recv().unwrap_or_default();
        let next = {
            let mut filled = pin!(async {
                let mut room = take_room(&window, 1).await;
                let next = task.input.next(&mut flight.input).await?;
                let more = extra_units(&flight.input.batch);
                if more > 0 {
                    room.merge(take_room(&window, more).await);
                }
                flight.room = Some(room);
                Ok::<_, InputError>(next)
            });
            let filled = poll_fn(|context| {
                let polled = filled.as_mut().poll(context);
                if polled.is_pending() {
                    task.to.flush();
                }
                polled
            });
            tokio::select! {
                biased;
                () = task.stop.cancelled() => return Ok(InputRan::Stopped),
                next = filled => next?,
            }
        };
        if next == Next::End {
            if task.reports {
                flight.input.clear();
                flight.ending = Some(Ending::of(0));
                if task.to.push(flight).await.is_err() {
                    return Ok(InputRan::Abandoned);
                }
            }
            return Ok(InputRan::Ended);
        }
        count(&task.tally.records_in, flight.records_in());
        count(&task.tally.bytes_in, flight.input.batch.data.len() as u64);
        if task.to.push(flight).await.is_err() {
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
