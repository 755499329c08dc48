//! The one place where tests wait: for a condition, with a deadline.

use std::time::{Duration, Instant};

/// Time between two looks: short against everything that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// How long most things may take: far more than they need on a busy machine with two cores.
pub const LONG: Duration = Duration::from_secs(40);

/// Looks until `look` finds what is waited for, and returns it.
///
/// # Panics
///
/// After [`LONG`], with what was waited for and what `look` said last.
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    within(LONG, what, look)
}

/// [`until`] with another deadline.
///
/// # Panics
///
/// After `limit`, with what was waited for and what `look` said last.
#[track_caller]
pub fn within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(instead) if begun.elapsed() > limit => {
                panic!("waited {limit:?} for {what}; instead: {instead}")
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// `Ok` when it holds, else what is there instead.
pub fn check(holds: bool, instead: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(instead()) }
}
