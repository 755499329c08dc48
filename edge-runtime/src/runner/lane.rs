//! The queue between an execution's input and whoever takes its flights through the stages.
//!
//! ```text
//!   run_input --push--> [ at most 8 ] --pop--> a guest thread, as long as there are any
//!       ^                 |      |
//!       +-- room for 4 ---+      +-- 4 wait, or the input has no more for now: run_stages
//! ```
//!
//! Waking a sleeper costs as much as a light stage's work on a whole batch. So neither side is woken for each flight: the
//! input sleeps until half of the lane is free, and the stages sleep until half of it is full or until the input, before
//! it waits for anything, says so with [`LaneInput::flush`]. Nothing is ever held back while its input waits.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::flow::Flight;

/// Flights that wait for a guest thread: enough that it need not wait, few enough to stay in the cache.
const LANE_FLIGHTS_MAX: usize = 8;
/// Half of them: one side works one half off while the other fills the other.
const LANE_FLIGHTS_HALF: usize = LANE_FLIGHTS_MAX / 2;

/// The input's end. When it is dropped the lane ends behind what is in it.
#[derive(Debug)]
pub(super) struct LaneInput(Arc<Shared>);

/// The stages' end. When it is dropped the input is told that nobody takes flights any more.
#[derive(Debug)]
pub(super) struct LaneOutput(Arc<Shared>);

/// Takes flights out, on a guest thread.
#[derive(Clone, Debug)]
pub(super) struct LaneTaker(Arc<Shared>);

/// Nobody takes flights any more.
#[derive(Debug)]
pub(super) struct Abandoned;

/// The lock is held for moments only.
#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    flights: VecDeque<Box<Flight>>,
    /// What is in it is not to wait for more.
    flushed: bool,
    /// The input has ended.
    ended: bool,
    abandoned: bool,
    /// Waits for room.
    input: Option<Waker>,
    /// Waits for flights.
    output: Option<Waker>,
}

/// An empty lane.
pub(super) fn lane() -> (LaneInput, LaneOutput) {
    let shared = Arc::new(Shared::default());
    (LaneInput(Arc::clone(&shared)), LaneOutput(shared))
}

impl LaneInput {
    /// Puts a flight in, when there is room.
    pub(super) async fn push(&self, flight: Box<Flight>) -> Result<(), Abandoned> {
        let mut flight = Some(flight);
        poll_fn(|context| {
            let mut state = self.0.lock();
            if state.abandoned {
                return Poll::Ready(Err(Abandoned));
            }
            if state.flights.len() >= LANE_FLIGHTS_MAX {
                state.input = Some(context.waker().clone());
                return Poll::Pending;
            }
            state.flights.extend(flight.take());
            if state.flights.len() >= LANE_FLIGHTS_HALF {
                state.wake_output();
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// The input is about to wait: what was put in so far goes on.
    pub(super) fn flush(&self) {
        let mut state = self.0.lock();
        if !state.flights.is_empty() {
            state.flushed = true;
            state.wake_output();
        }
    }
}

impl Drop for LaneInput {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        state.wake_output();
    }
}

impl LaneOutput {
    /// Waits until flights should be taken out; `false` when the lane has ended.
    pub(super) async fn filled(&self) -> bool {
        poll_fn(|context| {
            let mut state = self.0.lock();
            let waiting = state.flights.len();
            if waiting >= LANE_FLIGHTS_HALF || state.ended || (state.flushed && waiting > 0) {
                return Poll::Ready(waiting > 0);
            }
            state.output = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Takes the first flight out.
    pub(super) fn pop(&self) -> Option<Box<Flight>> {
        self.0.pop()
    }

    /// Another hand that takes flights out, while this one does not.
    pub(super) fn taker(&self) -> LaneTaker {
        LaneTaker(Arc::clone(&self.0))
    }

    /// Looks at the first flight.
    pub(super) fn with_first<R>(&self, look: impl FnOnce(&mut Flight) -> R) -> Option<R> {
        self.0.lock().flights.front_mut().map(|first| look(first))
    }
}

impl Drop for LaneOutput {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.abandoned = true;
        if let Some(input) = state.input.take() {
            input.wake();
        }
    }
}

impl LaneTaker {
    /// Takes the first flight out.
    pub(super) fn pop(&self) -> Option<Box<Flight>> {
        self.0.pop()
    }

    /// Puts a flight back, before all others. It is taken out again without waiting for more.
    pub(super) fn put_back(&self, flight: Box<Flight>) {
        let mut state = self.0.lock();
        state.flights.push_front(flight);
        state.flushed = true;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is ever left half-changed under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pop(&self) -> Option<Box<Flight>> {
        let mut state = self.lock();
        let flight = state.flights.pop_front();
        if state.flights.is_empty() {
            state.flushed = false;
        }
        if state.flights.len() <= LANE_FLIGHTS_MAX - LANE_FLIGHTS_HALF
            && let Some(input) = state.input.take()
        {
            input.wake();
        }
        flight
    }
}

impl State {
    fn wake_output(&mut self) {
        if let Some(output) = self.output.take() {
            output.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Woken {
        fn times(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// Polls once; how it went.
    fn poll<T>(future: impl Future<Output = T>, woken: &Arc<Woken>) -> Option<T> {
        let waker = Waker::from(Arc::clone(woken));
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    fn numbered(number: u32) -> Box<Flight> {
        Box::new(Flight {
            tries: number,
            ..Flight::default()
        })
    }

    fn push(input: &LaneInput, number: u32, woken: &Arc<Woken>) -> bool {
        poll(input.push(numbered(number)), woken).is_some_and(|pushed| pushed.is_ok())
    }

    #[test]
    fn the_stages_are_woken_for_half_a_lane_and_the_input_for_half_a_lane() {
        let (input, output) = lane();
        let (pusher, taker) = (Arc::default(), Arc::default());
        assert_eq!(poll(output.filled(), &taker), None);
        for number in 0..LANE_FLIGHTS_MAX as u32 {
            assert!(push(&input, number, &pusher));
        }
        assert_eq!(taker.times(), 1, "one wake-up for all of them");
        assert_eq!(poll(output.filled(), &taker), Some(true));
        assert!(!push(&input, 99, &pusher), "the lane is full");

        for number in 0..LANE_FLIGHTS_MAX as u32 {
            assert_eq!(output.pop().unwrap().tries, number);
            let half_is_free = number + 1 >= LANE_FLIGHTS_HALF as u32;
            assert_eq!(pusher.times(), usize::from(half_is_free), "after {number}");
        }
        assert!(output.pop().is_none());
    }

    #[test]
    fn what_is_flushed_does_not_wait_for_more() {
        let (input, output) = lane();
        let (pusher, taker) = (Arc::default(), Arc::default());
        input.flush();
        assert_eq!(poll(output.filled(), &taker), None, "there is nothing");
        assert!(push(&input, 1, &pusher));
        assert_eq!(poll(output.filled(), &taker), None);
        assert_eq!(taker.times(), 0);
        input.flush();
        assert_eq!(taker.times(), 1);
        assert_eq!(poll(output.filled(), &taker), Some(true));
        output.pop().unwrap();

        assert!(push(&input, 2, &pusher));
        assert_eq!(poll(output.filled(), &taker), None, "that was another one");
    }

    #[test]
    fn a_flight_that_was_put_back_comes_first_and_at_once() {
        let (input, output) = lane();
        let (pusher, taker) = (Arc::default(), Arc::default());
        assert!(push(&input, 1, &pusher));
        let first = output.taker().pop().unwrap();
        assert!(push(&input, 2, &pusher));
        output.taker().put_back(first);
        assert_eq!(poll(output.filled(), &taker), Some(true));
        assert_eq!(output.with_first(|first| first.tries), Some(1));
        assert_eq!(output.pop().unwrap().tries, 1);
        assert_eq!(output.pop().unwrap().tries, 2);
        assert_eq!(output.with_first(|first| first.tries), None);
    }

    #[test]
    fn each_end_learns_that_the_other_is_gone() {
        let (input, output) = lane();
        let (pusher, taker) = (Arc::default(), Arc::default());
        assert_eq!(poll(output.filled(), &taker), None);
        assert!(push(&input, 1, &pusher));
        drop(input);
        assert_eq!(taker.times(), 1);
        assert_eq!(poll(output.filled(), &taker), Some(true), "what is in it");
        output.pop().unwrap();
        assert_eq!(poll(output.filled(), &taker), Some(false));

        let (input, output) = lane();
        for number in 0..LANE_FLIGHTS_MAX as u32 {
            assert!(push(&input, number, &pusher));
        }
        assert!(!push(&input, 8, &pusher));
        drop(output);
        assert_eq!(pusher.times(), 1);
        let refused = poll(input.push(numbered(9)), &pusher);
        assert!(matches!(refused, Some(Err(Abandoned))));
    }
}
