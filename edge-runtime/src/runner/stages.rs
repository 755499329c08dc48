//! Takes flights through a pipeline's stages on the guest threads.
//!
//! ```text
//!   run_stages --lane, at most 8--> StageLane (in the guest pool) --Flight--> OutputTask
//!        ^                               |
//!        +----------- faults ------------+   the flight goes back to the front of the lane
//! ```
//!
//! A hop to a guest thread costs as much as a light stage's work on a whole batch. So a guest thread is not given one
//! batch at a time: it takes flights from a lane that is filled while it works, hands each on by itself, and comes back
//! when the lane is empty, after a millisecond (others have their turn), or with a fault.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluice_record::Batch;
use sluice_sandbox::{Chain, ChainFault, ChainHandle, ChainOutput, OnRetry, Turn};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::counters::{Tally, count};
use super::flow::Flight;
use super::log::{Log, LogLevel};

/// Flights that wait for a guest thread: enough that it need not wait, few enough to stay in the cache.
const LANE_FLIGHTS_MAX: usize = 8;
/// How long a guest thread stays with one execution that always has more to do: with light stages dozens of batches, and
/// too short to be noticed by the next in line.
const TURN: Duration = Duration::from_millis(1);

/// Tries of a batch whose stage says `retry`, the first included.
const RETRY_TRIES_MAX: u32 = 10;
/// Longest time that a batch is retried.
const RETRY_TIME_MAX: Duration = Duration::from_secs(5 * 60);
/// The first wait; each next one is twice as long.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(250);
/// The longest wait, so that a service that came back is noticed.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

/// Flights between a stages task and the guest thread that has its chain. The lock is held for moments only.
#[derive(Clone, Default)]
pub(super) struct Lane(Arc<Mutex<VecDeque<Box<Flight>>>>);

impl Lane {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Box<Flight>>> {
        // Nothing is ever left half-changed under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The chain as the guest pool sees it: its batches come from the lane, not from the pool.
pub(super) struct StageLane<C> {
    chain: C,
    lane: Lane,
    to: mpsc::UnboundedSender<Box<Flight>>,
    /// A flight whose isolation takes more than a turn.
    current: Option<Box<Flight>>,
}

impl<C: Chain> StageLane<C> {
    /// A chain that takes flights from the lane and sends them on; the window bounds how many there are.
    pub(super) fn new(chain: C, to: mpsc::UnboundedSender<Box<Flight>>) -> (Self, Lane) {
        let lane = Lane::default();
        let stage_lane = Self {
            chain,
            lane: lane.clone(),
            to,
            current: None,
        };
        (stage_lane, lane)
    }
}

impl<C: Chain> Chain for StageLane<C> {
    fn process(&mut self, _: &Batch, _: &mut ChainOutput, _: OnRetry) -> Result<Turn, ChainFault> {
        let turn_ends = Instant::now() + TURN;
        loop {
            let next = match self.current.take() {
                Some(flight) => Some(flight),
                None => self.lane.lock().pop_front(),
            };
            let Some(mut flight) = next else {
                return Ok(Turn::Done);
            };
            let on_retry = if flight.last_try {
                OnRetry::Isolate
            } else {
                OnRetry::Report
            };
            // An empty batch too: the chain is what empties an output of its last round.
            match self
                .chain
                .process(&flight.input.batch, &mut flight.output, on_retry)
            {
                Ok(Turn::Done) => {}
                Ok(Turn::Again) => {
                    self.current = Some(flight);
                    return Ok(Turn::Again);
                }
                Err(fault) => {
                    self.lane.lock().push_front(flight);
                    return Err(fault);
                }
            }
            // No receiver means that the output has ended with an error, which ends everything.
            let _ = self.to.send(flight);
            if Instant::now() >= turn_ends {
                return Ok(Turn::Again);
            }
        }
    }

    fn cancel(&mut self) {
        self.current = None;
        self.chain.cancel();
    }
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
    pub(super) from: mpsc::Receiver<Box<Flight>>,
    pub(super) tally: Arc<Tally>,
    pub(super) log: Log,
    pub(super) stop: CancellationToken,
}

/// What flights go through.
pub(super) enum Stages {
    /// A pipeline without stages.
    None(mpsc::UnboundedSender<Box<Flight>>),
    /// A [`StageLane`] in the guest pool, and its lane.
    Chain(ChainHandle, Lane),
}

/// Takes flights through the stages until there are no more.
pub(super) async fn run_stages(task: StagesTask) -> Result<StagesRan, StagesFault> {
    let StagesTask {
        stages,
        mut from,
        tally,
        log,
        stop,
    } = task;
    let (mut chain, lane) = match stages {
        Stages::Chain(chain, lane) => (chain, lane),
        Stages::None(to) => {
            while let Some(flight) = from.recv().await {
                if to.send(flight).is_err() {
                    return Ok(StagesRan::GaveUp);
                }
            }
            return Ok(StagesRan::Through);
        }
    };
    let mut delay = RETRY_DELAY_MIN;
    loop {
        if lane.lock().is_empty() {
            match from.recv().await {
                Some(flight) => lane.lock().push_back(flight),
                None => return Ok(StagesRan::Through),
            }
        }
        match run_lane(&mut chain, &lane, &mut from).await {
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

/// Lets a guest thread work the lane off, and fills it meanwhile.
async fn run_lane(
    chain: &mut ChainHandle,
    lane: &Lane,
    from: &mut mpsc::Receiver<Box<Flight>>,
) -> Result<(), ChainFault> {
    let processing = chain.process(Batch::new(), ChainOutput::new(), OnRetry::Report);
    tokio::pin!(processing);
    let mut open = true;
    loop {
        let room = lane.lock().len() < LANE_FLIGHTS_MAX;
        tokio::select! {
            biased;
            processed = &mut processing => return processed.result,
            flight = from.recv(), if open && room => match flight {
                Some(flight) => lane.lock().push_back(flight),
                None => open = false,
            },
        }
    }
}

/// Counts a failed try of the flight at the front; returns how many it has had.
fn note_try(lane: &Lane) -> u32 {
    let mut lane = lane.lock();
    let Some(flight) = lane.front_mut() else {
        return 0;
    };
    flight.tries += 1;
    let first_tried = *flight
        .first_tried
        .get_or_insert_with(tokio::time::Instant::now);
    flight.last_try =
        flight.tries + 1 >= RETRY_TRIES_MAX || first_tried.elapsed() >= RETRY_TIME_MAX;
    flight.tries
}
