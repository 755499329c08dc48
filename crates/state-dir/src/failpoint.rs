//! Persist points by name, at which a test has a program die: the feature `failpoints`, of test builds only.
//!
//! ```text
//!   SLUICE_FAILPOINT = WHAT "/" WHERE ["/" N]      at the N-th time, or at the first
//!
//!   WHERE      for a step of a store (`put_desired`)          for a file that is replaced (`file checkpoint`)
//!   before     nothing of it is written                       -
//!   written    its transaction is not committed               the new one is synced beside the old one
//!   committed  its transaction is on disk, nothing has left   the new one has the name
//! ```
//!
//! `start/before` and `purge/before` come ahead of what an edge does by order. Without the feature none of this is in a program: no variable
//! is read, and every call is empty.

/// The variable that names the point. Heard only with the feature.
pub const VARIABLE: &str = "SLUICE_FAILPOINT";

/// What the transaction under way has come by. A store owns one.
#[derive(Debug, Default)]
pub struct Steps {
    #[cfg(feature = "failpoints")]
    steps: Vec<&'static str>,
}

#[cfg(not(feature = "failpoints"))]
impl Steps {
    /// A transaction begins.
    pub fn begin(&mut self) {}

    /// This step comes next.
    pub fn step(&mut self, _what: &'static str) {}

    /// The commit comes next.
    pub fn written(&self) {}

    /// The commit is on disk.
    pub fn committed(&mut self) {}
}

/// Dies here if this is the point.
#[cfg(not(feature = "failpoints"))]
pub fn reach(_what: &str, _place: &str) {}

#[cfg(feature = "failpoints")]
pub use armed::reach;

#[cfg(feature = "failpoints")]
mod armed {
    use std::io::Write as _;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{Steps, VARIABLE};

    impl Steps {
        /// A transaction begins.
        pub fn begin(&mut self) {
            self.steps.clear();
        }

        /// This step comes next.
        pub fn step(&mut self, what: &'static str) {
            reach(what, "before");
            if point().is_some() {
                self.steps.push(what);
            }
        }

        /// The commit comes next.
        pub fn written(&self) {
            for what in &self.steps {
                reach(what, "written");
            }
        }

        /// The commit is on disk.
        pub fn committed(&mut self) {
            for what in self.steps.drain(..) {
                reach(what, "committed");
            }
        }
    }

    /// Dies here if this is the point.
    pub fn reach(what: &str, place: &str) {
        static PASSED: AtomicU64 = AtomicU64::new(0);
        let Some(point) = point() else { return };
        if (point.what.as_str(), point.place.as_str()) == (what, place)
            && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == point.time
        {
            // The process dies whether or not somebody reads this.
            let _ = writeln!(std::io::stderr(), "failpoint {what}/{place}: aborting");
            std::process::abort();
        }
    }

    #[derive(Debug)]
    struct Point {
        what: String,
        place: String,
        time: u64,
    }

    fn point() -> Option<&'static Point> {
        static POINT: OnceLock<Option<Point>> = OnceLock::new();
        let read = || {
            let text = std::env::var(VARIABLE).ok()?;
            let mut parts = text.split('/').map(str::to_owned);
            Some(Point {
                what: parts.next()?,
                place: parts.next()?,
                time: parts.next().map_or(Some(1), |time| time.parse().ok())?,
            })
        };
        POINT.get_or_init(read).as_ref()
    }
}
