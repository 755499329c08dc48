//! The fixed threads on which guests run.
//!
//! ```text
//! ChainHandle::process --> [ chains with a batch, in line ] --> guest threads: the first one gets a turn
//!        ^                         ^                                   |
//!        |                         +-- not done yet: back of the line -+
//!        +------------------------ done: the future wakes -------------+
//! ```
//!
//! One batch of a chain at a time, one turn at a time, round robin over chains: a thousand small pipelines need no
//! thousand threads, and none of them waits behind one that is busy isolating poison. The line holds each chain once, so
//! it is never longer than there are chains. Nothing here knows a runtime: results are plain futures.

use std::any::Any;
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};

use sluice_record::Batch;

use crate::chain::{Chain, ChainFault, ChainOutput, OnRetry, Turn};

/// A guest thread's stack: a guest may use half a MiB of it, the host's side of a deep call the rest.
const STACK_BYTES: usize = 4 << 20;

/// A fixed set of threads that run chains. Dropping it ends the threads after the turns they are in, and waits for that.
pub struct GuestPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// A chain that lives in a pool. Dropping it drops the chain, after the turn it is in.
pub struct ChainHandle {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
}

/// What comes back for a batch: the buffers, and how it went.
#[derive(Debug)]
pub struct Processed {
    /// The batch that was handed in.
    pub input: Batch,
    /// What the chain made of it; empty after a fault.
    pub output: ChainOutput,
    /// How it went.
    pub result: Result<(), ChainFault>,
}

/// A batch on its way through a chain. Dropping it gives the batch up: it ends after the turn it is in, and its buffers
/// are lost.
#[must_use = "a future does nothing for its caller until it is awaited"]
pub struct Processing<'a> {
    handle: &'a mut ChainHandle,
}

struct Shared {
    line: Mutex<Line>,
    wake: Condvar,
}

#[derive(Default)]
struct Line {
    slots: VecDeque<Arc<Slot>>,
    closed: bool,
}

/// One chain's place. The lock is held for moments only, never during a turn.
struct Slot {
    state: Mutex<SlotState>,
    /// It stands in the line.
    in_line: AtomicBool,
}

struct SlotState {
    /// Away while a thread runs it; gone for good after a panic.
    chain: Option<Box<dyn Chain>>,
    /// The batch that waits for its first or next turn.
    job: Option<Job>,
    /// The batch that is done.
    done: Option<Processed>,
    waker: Option<Waker>,
    /// A thread runs a turn right now.
    running: bool,
    /// The batch in the running turn was given up.
    given_up: bool,
    /// Nobody will ask again.
    dropped: bool,
    /// Why there is no chain any more.
    broken: Option<String>,
}

struct Job {
    input: Batch,
    output: ChainOutput,
    on_retry: OnRetry,
    /// It has had a turn already.
    begun: bool,
}

impl GuestPool {
    /// Starts the threads: as many as cores is right.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            line: Mutex::default(),
            wake: Condvar::new(),
        });
        let mut pool = Self {
            shared,
            threads: Vec::new(),
        };
        for number in 0..threads.max(1) {
            let shared = pool.shared.clone();
            let builder = thread::Builder::new()
                .name(format!("sluice-guest-{number}"))
                .stack_size(STACK_BYTES);
            pool.threads.push(builder.spawn(move || shared.run())?);
        }
        Ok(pool)
    }

    /// Takes a chain in.
    pub fn add(&self, chain: Box<dyn Chain>) -> ChainHandle {
        let state = SlotState {
            chain: Some(chain),
            job: None,
            done: None,
            waker: None,
            running: false,
            given_up: false,
            dropped: false,
            broken: None,
        };
        ChainHandle {
            shared: self.shared.clone(),
            slot: Arc::new(Slot {
                state: Mutex::new(state),
                in_line: AtomicBool::new(false),
            }),
        }
    }
}

impl Drop for GuestPool {
    fn drop(&mut self) {
        let waiting = {
            let mut line = lock(&self.shared.line);
            line.closed = true;
            std::mem::take(&mut line.slots)
        };
        self.shared.wake.notify_all();
        for slot in waiting {
            slot.in_line.store(false, SeqCst);
            slot.refuse("the guest pool is closed");
        }
        for thread in self.threads.drain(..) {
            // Panics of chains are caught; one of ours has been reported by the thread itself.
            let _ = thread.join();
        }
    }
}

impl ChainHandle {
    /// Hands in a batch. The buffers come back with the result. A batch that was given up before still ends first.
    pub fn process(
        &mut self,
        input: Batch,
        output: ChainOutput,
        on_retry: OnRetry,
    ) -> Processing<'_> {
        let job = Job {
            input,
            output,
            on_retry,
            begun: false,
        };
        let in_line = {
            let mut state = lock(&self.slot.state);
            state.done = None;
            state.job = Some(job);
            // A running turn puts the chain in line again when it ends.
            !state.running
        };
        if in_line {
            self.shared.enqueue(&self.slot);
        }
        Processing { handle: self }
    }

    /// The same, for callers that are no tasks: blocks until the batch is done.
    pub fn process_blocking(
        &mut self,
        input: Batch,
        output: ChainOutput,
        on_retry: OnRetry,
    ) -> Processed {
        let waker = Waker::from(Arc::new(Unparker(thread::current())));
        let mut processing = std::pin::pin!(self.process(input, output, on_retry));
        loop {
            match processing.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(processed) => return processed,
                Poll::Pending => thread::park(),
            }
        }
    }
}

/// Wakes a thread that waits for a batch.
struct Unparker(Thread);

impl Wake for Unparker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Drop for ChainHandle {
    fn drop(&mut self) {
        // Dropped outside the lock: a chain's drop may take a while.
        let _chain = {
            let mut state = lock(&self.slot.state);
            state.dropped = true;
            state.job = None;
            state.chain.take()
        };
    }
}

impl Future for Processing<'_> {
    type Output = Processed;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Processed> {
        let mut state = lock(&self.handle.slot.state);
        match state.done.take() {
            Some(processed) => Poll::Ready(processed),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Processing<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.handle.slot.state);
        let job = state.job.take();
        state.waker = None;
        state.given_up = state.running;
        if let (Some(job), Some(chain)) = (job, &mut state.chain)
            && job.begun
        {
            chain.cancel();
        }
    }
}

impl Shared {
    fn enqueue(&self, slot: &Arc<Slot>) {
        // Whoever takes it out of the line clears this first and looks for a batch then, so a batch is never overlooked.
        if slot.in_line.swap(true, SeqCst) {
            return;
        }
        let refused = {
            let mut line = lock(&self.line);
            if !line.closed {
                line.slots.push_back(slot.clone());
            }
            line.closed
        };
        if refused {
            slot.in_line.store(false, SeqCst);
            slot.refuse("the guest pool is closed");
        } else {
            self.wake.notify_one();
        }
    }

    /// A guest thread.
    fn run(&self) {
        while let Some(slot) = self.next() {
            if slot.turn() {
                self.enqueue(&slot);
            }
        }
    }

    fn next(&self) -> Option<Arc<Slot>> {
        let mut line = lock(&self.line);
        loop {
            if line.closed {
                return None;
            }
            if let Some(slot) = line.slots.pop_front() {
                slot.in_line.store(false, SeqCst);
                return Some(slot);
            }
            line = self.wake.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Slot {
    /// Runs one turn. Says whether there is more to do.
    fn turn(&self) -> bool {
        let (mut chain, mut job) = {
            let mut state = lock(&self.state);
            if state.running {
                // The thread that runs it looks for more when it is done.
                return false;
            }
            let Some(job) = state.job.take() else {
                return false;
            };
            let Some(chain) = state.chain.take() else {
                let reason = state
                    .broken
                    .clone()
                    .unwrap_or_else(|| "the chain is gone".to_owned());
                state.finish(job, Err(ChainFault::Host(reason)));
                return false;
            };
            state.running = true;
            state.given_up = false;
            (chain, job)
        };
        job.begun = true;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            chain.process(&job.input, &mut job.output, job.on_retry)
        }));
        let outcome = outcome.map_err(|panic| {
            let reason = format!("a bug in the host: {}", panic_text(&*panic));
            tracing::error!(%reason, "a chain panicked");
            reason
        });

        let mut state = lock(&self.state);
        state.running = false;
        let given_up = std::mem::take(&mut state.given_up);
        let mut chain = Some(chain);
        match outcome {
            Ok(Ok(Turn::Again)) => {
                if !given_up && !state.dropped {
                    state.job = Some(job);
                } else if let Some(chain) = &mut chain {
                    chain.cancel();
                }
            }
            Ok(result) => {
                if !given_up {
                    state.finish(job, result.map(|_| ()));
                }
            }
            Err(reason) => {
                state.broken = Some(reason.clone());
                if !given_up {
                    state.finish(job, Err(ChainFault::Host(reason)));
                }
            }
        }
        if state.broken.is_none() && !state.dropped {
            state.chain = chain.take();
        }
        let more = state.job.is_some();
        drop(state);
        // What panicked once may panic again.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(chain)));
        more
    }

    /// Ends a waiting batch without running it.
    fn refuse(&self, reason: &str) {
        let mut state = lock(&self.state);
        if let Some(job) = state.job.take() {
            state.finish(job, Err(ChainFault::Host(reason.to_owned())));
        }
    }
}

impl SlotState {
    fn finish(&mut self, job: Job, result: Result<(), ChainFault>) {
        let Job {
            input, mut output, ..
        } = job;
        if result.is_err() {
            output.fail();
        }
        self.done = Some(Processed {
            input,
            output,
            result,
        });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code of a chain runs under these locks, so nothing is left half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
