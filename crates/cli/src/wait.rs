//! Waiting for what was asked of the orchestrator.
//!
//! ```text
//!   look ──> there: done       missing ──> rest ──> a hint (GET /v1/events), or the pace's next time ──> look
//! ```
//!
//! A hint only saves time: what is true is what a look says. Without hints (the stream is cut, the orchestrator is away,
//! or it has no room for another watcher) it looks again and again. An orchestrator that is away may be restarting, and
//! what was asked of it is durable: that counts as missing until the deadline.

use std::pin::pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::client::Client;
use crate::failure::Failure;
use crate::out::Out;
use crate::render;

mod hints;
mod job;
mod pace;
mod progress;

pub(crate) use hints::Watched;
pub(crate) use job::for_job;

use pace::{Heard, PACE, Pace, Rhythm};
use progress::Progress;

/// Longest that a look may take past the deadline: the last one, which says what is missing, should have its answer.
const LAST_LOOK_MAX: Duration = Duration::from_secs(5);

/// What one look saw.
pub(crate) enum Look<T> {
    /// It has come about.
    There(T),
    /// Not yet: what is missing, a line each.
    Missing(Vec<String>),
}

/// What is waited for.
pub(crate) struct Waiting {
    /// In words, such as `waiting for run 7`.
    pub(crate) doing: String,
    /// What hints must be about.
    pub(crate) watched: Watched,
    /// For at most so long.
    pub(crate) within: Duration,
    /// The failure at the deadline; what the last look missed becomes its detail.
    pub(crate) late: Failure,
}

/// Looks until it is there or a look fails, or the deadline has come: at first, after every hint that it may have changed,
/// and now and then. Says meanwhile on standard error what is missing.
pub(crate) async fn until<T>(
    client: &Client,
    out: &Out,
    waiting: Waiting,
    look: impl AsyncFnMut() -> Result<Look<T>, Failure>,
) -> Result<T, Failure> {
    let Waiting {
        doing,
        watched,
        within,
        late,
    } = waiting;
    let mut progress = Progress::new(out, doing, within);
    let hints = hints::open(client, &watched);
    let missed = |missing: &[String]| progress.missing(missing, Instant::now());
    let result = drive(PACE, within, hints, missed, look, late).await;
    progress.end();
    result
}

async fn drive<T>(
    pace: Pace,
    within: Duration,
    hints: impl Stream<Item = Heard>,
    mut missed: impl FnMut(&[String]),
    mut look: impl AsyncFnMut() -> Result<Look<T>, Failure>,
    late: Failure,
) -> Result<T, Failure> {
    let mut hints = pin!(hints.fuse());
    let mut rhythm = Rhythm::new(pace, Instant::now(), within);
    let mut missing = Vec::new();
    loop {
        let answer_by = rhythm.deadline().max(Instant::now()) + LAST_LOOK_MAX;
        match timeout_at(answer_by, look()).await {
            Ok(Ok(Look::There(found))) => return Ok(found),
            Ok(Ok(Look::Missing(now))) => missing = now,
            Ok(Err(failure)) if failure.may_pass => {
                missing = unheard(&render::clean(&failure.message), missing);
            }
            Ok(Err(failure)) => return Err(failure),
            Err(_) => missing = unheard("the orchestrator does not answer", missing),
        }
        rhythm.handle_looked(Instant::now());
        if rhythm.is_over() {
            return Err(match missing.is_empty() {
                true => late,
                false => late.with_detail(missing.join("\n")),
            });
        }
        missed(&missing);
        loop {
            tokio::select! {
                // First, so that hints without end hold up no look.
                biased;
                () = sleep_until(rhythm.poll_due()) => break,
                Some(heard) = hints.next() => rhythm.handle_heard(heard),
            }
        }
    }
}

/// Begins the lines of what was missing when the orchestrator was last heard.
const BEFORE: &str = "when it was last heard: ";

/// What is missing while the orchestrator says nothing: that, and what it said last.
fn unheard(why: &str, before: Vec<String>) -> Vec<String> {
    let known = before.into_iter().filter_map(|line| {
        if line.starts_with(BEFORE) {
            return Some(line);
        }
        // Said in place of an answer before.
        (!line.starts_with(UNHEARD)).then(|| format!("{BEFORE}{line}"))
    });
    let first = format!("{UNHEARD}{why}");
    std::iter::once(first).chain(known).collect()
}

/// Begins the line that says why there was no answer.
const UNHEARD: &str = "no answer: ";

#[cfg(test)]
mod tests;
