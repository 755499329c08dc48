//! Takes flights through a pipeline's stages on the guest threads.
//!
//! ```text
//!   lane ---> StageLane (in the guest pool) --Flights--> OutputTask
//!    ^ |           |
//!    | +--wakes--> run_stages: starts the guest thread, waits, retries
//!    +-------------+ a fault: the flight goes back to the front of the lane
//! ```
//!
//! A hop to a guest thread costs as much as a light stage's work on a whole batch. So a guest thread is not given one
//! batch at a time: it takes flights from the lane, which the input fills while it works, hands them on by itself, and
//! comes back when the lane is empty, after a millisecond (others have their turn), or with a fault.
//!
//! The end of the input is a flight too, where a stage has something to say to it. Each of these stages gets a flight of its
//! own, in order: what it says is the flight's batch, which goes through the stages behind it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sluice_record::Batch;
use sluice_sandbox::{Chain, ChainFault, ChainHandle, ChainOutput, OnRetry, Turn};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::counters::{Tally, count};
use super::flow::{Ending, Flight};
use super::lane::{LaneOutput, LaneTaker};
use super::log::{Log, LogLevel};

/// How long a guest thread stays with one execution that always has more to do: with light stages dozens of batches, and
/// too short to be noticed by the next in line.
const TURN: Duration = Duration::from_millis(1);

/// Flights that a guest thread hands on together: waking the output costs as much as a light stage's work on a batch.
const HANDED_ON_TOGETHER_MAX: usize = 4;
/// A batch that took longer than this is handed on at once: then a wake-up costs next to nothing.
const HELD_TIME_MAX: Duration = Duration::from_micros(100);

/// Tries of a batch whose stage says `retry`, the first included.
const RETRY_TRIES_MAX: u32 = 10;
/// Longest time that a batch is retried.
const RETRY_TIME_MAX: Duration = Duration::from_secs(5 * 60);
/// The first wait; each next one is twice as long.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(250);
/// The longest wait, so that a service that came back is noticed.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

/// The chain as the guest pool sees it: its batches come from the lane, not from the pool.
pub(super) struct StageLane<C> {
    chain: C,
    tally: Arc<Tally>,
    lane: LaneTaker,
    to: mpsc::UnboundedSender<Box<Flight>>,
    /// A flight whose isolation takes more than a turn.
    current: Option<Box<Flight>>,
    /// Flights to be handed on; none between turns.
    #[expect(clippy::vec_box, reason = "the boxes travel on")]
    passed: Vec<Box<Flight>>,
}

impl<C: Chain> StageLane<C> {
    /// A chain that takes flights from the lane and sends them on; the window bounds how many there are.
    pub(super) fn new(
        chain: C,
        tally: Arc<Tally>,
        lane: LaneTaker,
        to: mpsc::UnboundedSender<Box<Flight>>,
    ) -> Self {
        Self {
            chain,
            tally,
            lane,
            to,
            current: None,
            passed: Vec::with_capacity(HANDED_ON_TOGETHER_MAX),
        }
    }

    fn turn(&mut self) -> Result<Turn, ChainFault> {
        let begun = Instant::now();
        let mut before = begun;
        loop {
            let Some(mut flight) = self.current.take().or_else(|| self.lane.pop()) else {
                return Ok(Turn::Done);
            };
            match self.process(&mut flight) {
                Ok(Turn::Done) => {}
                Ok(Turn::Again) => {
                    self.current = Some(flight);
                    return Ok(Turn::Again);
                }
                Err(fault) => {
                    self.lane.put_back(flight);
                    return Err(fault);
                }
            }
            if let Some(ending) = flight.ending
                && ending.number + 1 < self.chain.endings()
            {
                self.lane.put_back(Box::new(Flight {
                    ending: Some(Ending::of(ending.number + 1)),
                    ..Flight::default()
                }));
            }
            self.passed.push(flight);
            let now = Instant::now();
            self.tally.batches.add(now - before);
            if now - begun >= TURN {
                return Ok(Turn::Again);
            }
            if self.passed.len() >= HANDED_ON_TOGETHER_MAX || now - before >= HELD_TIME_MAX {
                self.hand_on();
            }
            before = now;
        }
    }

    /// Takes a flight through the chain; one that stands for the end of the input is filled first.
    fn process(&mut self, flight: &mut Flight) -> Result<Turn, ChainFault> {
        if let Some(ending) = &mut flight.ending
            && !ending.said
        {
            let said = self.chain.finish(ending.number, &mut flight.input.batch);
            said.map_err(|fault| match fault {
                // There is no record to set aside.
                ChainFault::Retry { stage, reason } if flight.last_try => ChainFault::Fatal {
                    stage,
                    reason: format!("at the end of its input it still asks to retry: {reason}"),
                },
                fault => fault,
            })?;
            ending.said = true;
            flight.forget_tries();
        }
        let on_retry = if flight.last_try {
            OnRetry::Isolate
        } else {
            OnRetry::Report
        };
        // An empty batch too: the chain is what empties an output of its last round.
        let (batch, output) = (&flight.input.batch, &mut flight.output);
        match flight.ending {
            None => self.chain.process(batch, output, on_retry),
            Some(ending) => self
                .chain
                .process_report(ending.number, batch, output, on_retry),
        }
    }

    fn hand_on(&mut self) {
        for flight in self.passed.drain(..) {
            // No receiver means that the output has ended with an error, which ends everything.
            let _ = self.to.send(flight);
        }
    }
}

impl<C: Chain> Chain for StageLane<C> {
    fn process(&mut self, _: &Batch, _: &mut ChainOutput, _: OnRetry) -> Result<Turn, ChainFault> {
        // Two looks at the thread's clock a turn, not a batch.
        let cpu = thread_cpu_nanos();
        let turn = self.turn();
        let used = thread_cpu_nanos().saturating_sub(cpu);
        count(&self.tally.guest_cpu_nanos, used);
        let memory = self.chain.memory_bytes();
        self.tally
            .guest_memory_bytes
            .store(memory, Ordering::Relaxed);
        self.hand_on();
        turn
    }

    fn cancel(&mut self) {
        self.current = None;
        self.chain.cancel();
    }
}

/// CPU time of the calling thread.
fn thread_cpu_nanos() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
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

/// How a stages task ended, if well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StagesRan {
    /// Every batch went through.
    Through,
    /// A batch stayed behind, unacked.
    GaveUp,
}

/// What the stages task works with.
pub(super) struct StagesTask {
    pub(super) stages: Stages,
    pub(super) lane: LaneOutput,
    pub(super) tally: Arc<Tally>,
    pub(super) log: Log,
    pub(super) stop: CancellationToken,
}

/// What flights go through.
pub(super) enum Stages {
    /// A pipeline without stages.
    None(mpsc::UnboundedSender<Box<Flight>>),
    /// A [`StageLane`] in the guest pool.
    Chain(ChainHandle),
}

/// Takes flights through the stages until there are no more.
pub(super) async fn run_stages(task: StagesTask) -> Result<StagesRan, StagesFault> {
    let StagesTask {
        stages,
        lane,
        tally,
        log,
        stop,
    } = task;
    let mut chain = match stages {
        Stages::Chain(chain) => chain,
        Stages::None(to) => {
            while lane.filled().await {
                while let Some(flight) = lane.pop() {
                    if to.send(flight).is_err() {
                        return Ok(StagesRan::GaveUp);
                    }
                }
            }
            return Ok(StagesRan::Through);
        }
    };
    let mut delay = RETRY_DELAY_MIN;
    loop {
        if !lane.filled().await {
            return Ok(StagesRan::Through);
        }
        let processed = chain
            .process(Batch::new(), ChainOutput::new(), OnRetry::Report)
            .await;
        match processed.result {
            Ok(()) => delay = RETRY_DELAY_MIN,
            Err(fault @ ChainFault::Retry { .. }) => {
                count(&tally.retries, 1);
                let tries = note_try(&lane);
                delay = if tries == 1 {
                    RETRY_DELAY_MIN
                } else {
                    (delay * 2).min(RETRY_DELAY_MAX)
                };
                log.runner(
                    LogLevel::Warn,
                    format!("try {tries}: {fault}; again in {delay:?}"),
                );
                tokio::select! {
                    () = stop.cancelled() => return Ok(StagesRan::GaveUp),
                    () = tokio::time::sleep(delay) => {}
                }
            }
            Err(fault @ ChainFault::Fatal { .. }) => return Err(StagesFault::Fatal(fault)),
            Err(fault @ ChainFault::Host(_)) => return Err(StagesFault::Host(fault)),
        }
    }
}

/// Counts a failed try of the flight at the front; returns how many it has had.
fn note_try(lane: &LaneOutput) -> u32 {
    let noted = lane.with_first(|flight| {
        flight.tries += 1;
        let first_tried = *flight
            .first_tried
            .get_or_insert_with(tokio::time::Instant::now);
        flight.last_try =
            flight.tries + 1 >= RETRY_TRIES_MAX || first_tried.elapsed() >= RETRY_TIME_MAX;
        flight.tries
    });
    noted.unwrap_or(0)
}
