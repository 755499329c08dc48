//! Waiting, with an end: each wait has a limit, the whole story has a deadline, and an interrupt ends both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The longest single wait: everything here takes a second or two.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Watch {
    deadline: Instant,
    stop: Arc<AtomicBool>,
}

impl Watch {
    pub(crate) fn new(deadline: Instant, stop: Arc<AtomicBool>) -> Self {
        Self { deadline, stop }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Looks until `look` finds what is waited for. An `Err` of it says what is there instead.
    pub(crate) fn until<T>(
        &self,
        what: &str,
        mut look: impl FnMut() -> Result<T, String>,
    ) -> anyhow::Result<T> {
        let begun = Instant::now();
        let deadline = self.deadline.min(begun + WAIT_MAX);
        loop {
            let instead = match look() {
                Ok(found) => return Ok(found),
                Err(instead) => instead,
            };
            if self.is_stopped() {
                bail!("interrupted");
            }
            if Instant::now() > deadline {
                let waited = begun.elapsed().as_secs();
                bail!("waited {waited} s for this: {what}; instead: {instead}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
