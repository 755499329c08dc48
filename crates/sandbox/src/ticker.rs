//! The thread that makes time pass for running guests: it raises the engine's epoch every [`TICK`].
//!
//! It sleeps for good while no guest runs, so that an idle machine stays idle. Whoever starts a call wakes it:
//!
//! ```text
//! call:    running += 1;  if asleep { unpark }
//! ticker:  asleep = true; if running == 0 { park }; asleep = false
//! ```
//!
//! Both sides write before they read (`SeqCst`), so one of them sees the other, and a wake-up cannot be lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

/// How often a running guest is looked at. A deadline is noticed within two of these; each look costs about a microsecond.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Owns the thread; it ends with this.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Starts and ends calls.
#[derive(Clone)]
pub(crate) struct TickerHandle {
    shared: Arc<Shared>,
    thread: Thread,
}

/// A call that is running.
pub(crate) struct Running<'a> {
    handle: &'a TickerHandle,
}

#[derive(Default)]
struct Shared {
    running: AtomicUsize,
    asleep: AtomicBool,
    ended: AtomicBool,
}

impl Ticker {
    /// Starts the thread; `tick` is called every [`TICK`] while a guest runs.
    pub(crate) fn start(tick: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = thread::Builder::new()
            .name("sluice-ticker".to_owned())
            .spawn(move || theirs.run(tick))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    pub(crate) fn handle(&self) -> TickerHandle {
        let thread = self
            .thread
            .as_ref()
            .expect("taken only when dropped")
            .thread()
            .clone();
        TickerHandle {
            shared: self.shared.clone(),
            thread,
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It cannot have panicked: it only sleeps and ticks.
            let _ = thread.join();
        }
    }
}

impl TickerHandle {
    /// Says that a guest runs until the returned value is dropped.
    pub(crate) fn running(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, SeqCst);
        if self.shared.asleep.load(SeqCst) {
            self.thread.unpark();
        }
        Running { handle: self }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.handle.shared.running.fetch_sub(1, SeqCst);
    }
}

impl Shared {
    fn run(&self, tick: impl Fn()) {
        while !self.ended.load(SeqCst) {
            self.asleep.store(true, SeqCst);
            if self.running.load(SeqCst) == 0 && !self.ended.load(SeqCst) {
                thread::park();
            }
            self.asleep.store(false, SeqCst);
            thread::sleep(TICK);
            tick();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::time::Instant;

    #[test]
    fn ticks_while_something_runs_and_rests_otherwise() {
        let ticks = Arc::new(AtomicU64::new(0));
        let counted = ticks.clone();
        let ticker = Ticker::start(move || {
            counted.fetch_add(1, SeqCst);
        })
        .expect("a thread");
        let handle = ticker.handle();
        for _ in 0..3 {
            let running = handle.running();
            let seen = ticks.load(SeqCst);
            let give_up = Instant::now() + Duration::from_secs(10);
            while ticks.load(SeqCst) < seen + 2 {
                assert!(
                    Instant::now() < give_up,
                    "the ticker sleeps while something runs"
                );
                thread::yield_now();
            }
            drop(running);
            while !handle.shared.asleep.load(SeqCst) {
                assert!(Instant::now() < give_up, "the ticker never rests");
                thread::yield_now();
            }
        }
    }
}
