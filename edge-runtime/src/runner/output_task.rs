//! The last task of an execution: writes, learns what is acked, and only then moves the checkpoint.
//!
//! It owns everything that an ack touches: the output, the dead letters, the checkpoint. A batch is acked when the output
//! says so and its dead letters are in their file; the checkpoint follows at most once a second, after the dead letters
//! are synced. Where a stage reports at the end of the input there is nothing to continue from, so none is saved before
//! the end, and it has no input position.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluice_connectors::{Output, OutputError, Position};
use sluice_model::{Digest, StageName};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use super::RunnerEvent;
use super::checkpoint::Checkpoint;
use super::counters::{Counters, Tally, count};
use super::dead_letters::{DeadLetters, encode_death, encode_reject};
use super::flow::Flight;
use super::log::{Log, LogLevel};

/// Time between two checkpoints: each costs two syncs, and what came after the last is repeated after a kill.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two log lines about dead letters, of which there may be thousands a second.
const MENTION_INTERVAL: Duration = Duration::from_secs(10);

/// Why the output ended an execution.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputFault {
    /// The output itself.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The execution's own files.
    #[error("cannot write the {what} of this execution: {source}")]
    State {
        /// `checkpoint` or `dead letters`.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// What the output task works with.
pub(super) struct OutputTask {
    pub(super) output: Output,
    pub(super) from: mpsc::UnboundedReceiver<Box<Flight>>,
    pub(super) free: mpsc::Sender<Box<Flight>>,
    pub(super) stages: Arc<[(StageName, Digest)]>,
    pub(super) state_dir: PathBuf,
    /// As of the last ack; on disk as of `saved_at`.
    pub(super) checkpoint: Checkpoint,
    /// Some stage keeps what it gathers in memory until the input ends.
    pub(super) reports: bool,
    pub(super) tally: Arc<Tally>,
    pub(super) log: Log,
    pub(super) progress: Progress,
}

/// What waits for its ack, and what waits for the disk.
#[derive(Default)]
pub(super) struct Progress {
    waiting: VecDeque<Ack>,
    acked_batches: u64,
    dead_letters: DeadLetters,
    unsaved: bool,
    saved_at: Option<Instant>,
    /// When the log last heard of a dead letter.
    mentioned_at: Option<Instant>,
    /// The state directory's disk is full: told once, tried again with every interval.
    save_failed: bool,
}

/// A batch that the output accepted.
struct Ack {
    position: Option<Position>,
    records_in: u64,
    records_out: u64,
    died: u64,
    _room: Option<OwnedSemaphorePermit>,
}

impl OutputTask {
    /// Tells that records may move, writes until no batch comes any more, then makes everything safe. The counters are the
    /// acked ones, whatever the result.
    pub(super) async fn run(
        mut self,
        events: mpsc::Sender<RunnerEvent>,
        running: RunnerEvent,
    ) -> (Counters, Result<(), OutputFault>) {
        let mut result = self.begin().await;
        if result.is_ok() {
            // Nobody listens any more: the process is on its way out.
            let _ = events.send(running).await;
            result = self.work().await;
        }
        self.release();
        let saved = self.save(Save::Last).await;
        if result.is_ok() {
            result = saved;
        }
        (self.checkpoint.counters, result)
    }

    async fn work(&mut self) -> Result<(), OutputFault> {
        loop {
            let due = self.due();
            let received = tokio::select! {
                biased;
                received = self.from.recv() => Some(received),
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => None,
            };
            match received {
                Some(Some(flight)) => {
                    self.accept(flight).await?;
                    if self.from.is_empty() {
                        self.output.settle().await?;
                    }
                }
                Some(None) => {
                    self.output.sync().await?;
                    return Ok(());
                }
                None => {}
            }
            let now = Instant::now();
            if self.output.sync_at().is_some_and(|at| at <= now) {
                self.output.sync().await?;
            }
            self.release();
            if self.save_at().is_some_and(|at| at <= now) {
                self.save(Save::Now).await?;
            }
        }
    }

    /// Writes the output's starting point, so that a crash before the first checkpoint knows which end of it is ours.
    async fn begin(&mut self) -> Result<(), OutputFault> {
        let position = self.output.position();
        if position.is_some() && position != self.checkpoint.output {
            self.checkpoint.output = position;
            self.progress.unsaved = true;
            self.save(Save::Last).await?;
        }
        self.progress.saved_at = Some(Instant::now());
        Ok(())
    }

    async fn accept(&mut self, mut flight: Box<Flight>) -> Result<(), OutputFault> {
        let died = (flight.output.dead_letters.len() + flight.input.rejects.len()) as u64;
        if died > 0 {
            self.bury(&flight).await?;
            count(&self.tally.dead_letters, died);
        }
        let view = flight.output.view(&flight.input.batch);
        let records_out = view.len() as u64;
        self.output.write(view.records()).await?;
        count(&self.tally.records_out, records_out);
        count(&self.tally.bytes_out, view.bytes());
        self.progress.waiting.push_back(Ack {
            position: flight.input.position,
            records_in: flight.records_in(),
            records_out,
            died,
            _room: flight.room.take(),
        });
        flight.recycle();
        // No room means that there are enough, no receiver that the input has ended.
        let _ = self.free.try_send(flight);
        Ok(())
    }

    /// Puts what died of a batch into the dead-letter file.
    async fn bury(&mut self, flight: &Flight) -> Result<(), OutputFault> {
        let mut lines = Vec::new();
        for letter in &flight.output.dead_letters {
            encode_death(&mut lines, letter, &flight.input.batch, &self.stages);
            self.tally.count_error(letter.kind.as_str());
        }
        for rejected in &flight.input.rejects {
            encode_reject(&mut lines, rejected);
            self.tally.count_error("too-large");
        }
        self.mention(flight);
        let mut dead_letters = std::mem::take(&mut self.progress.dead_letters);
        let state_dir = self.state_dir.clone();
        let (dead_letters, appended) = blocking(move || {
            let appended = dead_letters.append(&state_dir, &lines);
            (dead_letters, appended)
        })
        .await;
        self.progress.dead_letters = dead_letters;
        let dropped = appended.map_err(|source| OutputFault::State {
            what: "dead letters",
            source,
        })?;
        count(&self.tally.dead_letters_dropped, dropped);
        Ok(())
    }

    /// Says in the log what died, once in a while: the dead letters themselves say it of each record.
    fn mention(&mut self, flight: &Flight) {
        let now = Instant::now();
        let recently = |told: Instant| now.duration_since(told) < MENTION_INTERVAL;
        if self.progress.mentioned_at.is_some_and(recently) {
            return;
        }
        self.progress.mentioned_at = Some(now);
        let (stage, kind, reason) = match (
            flight.output.dead_letters.first(),
            flight.input.rejects.first(),
        ) {
            (Some(letter), _) => {
                let stage = self
                    .stages
                    .get(letter.stage as usize)
                    .map(|(name, _)| name.clone());
                (stage, letter.kind.as_str(), &letter.reason)
            }
            (None, Some(rejected)) => (None, "too-large", &rejected.reason),
            (None, None) => return,
        };
        let message = format!("a record became a dead letter, there may be more: {kind}: {reason}");
        self.log.say(LogLevel::Warn, stage, message);
    }

    /// Takes over what the output has acked since.
    fn release(&mut self) {
        let acked = self.output.acked();
        while self.progress.acked_batches < acked {
            let ack = self
                .progress
                .waiting
                .pop_front()
                .expect("only accepted batches are acked");
            self.progress.acked_batches += 1;
            self.progress.unsaved = true;
            let counters = &mut self.checkpoint.counters;
            counters.records_in += ack.records_in;
            counters.records_out += ack.records_out;
            counters.dead_letters += ack.died;
            if !self.reports {
                self.checkpoint.input = ack.position.or(self.checkpoint.input);
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        [self.output.sync_at(), self.save_at()]
            .into_iter()
            .flatten()
            .min()
    }

    fn save_at(&self) -> Option<Instant> {
        if self.reports {
            return None;
        }
        self.progress.unsaved.then(|| match self.progress.saved_at {
            Some(saved) => saved + CHECKPOINT_INTERVAL,
            None => Instant::now(),
        })
    }

    async fn save(&mut self, when: Save) -> Result<(), OutputFault> {
        let live = self.tally.read();
        let counters = &mut self.checkpoint.counters;
        counters.dead_letters_dropped = live.dead_letters_dropped;
        counters.retries = live.retries;
        counters.log_lines_dropped = live.log_lines_dropped;
        if !self.progress.unsaved {
            return Ok(());
        }
        self.checkpoint.output = self.output.position();
        let (checkpoint, state_dir) = (self.checkpoint.clone(), self.state_dir.clone());
        let mut dead_letters = std::mem::take(&mut self.progress.dead_letters);
        let (dead_letters, saved) = blocking(move || {
            let saved = match dead_letters.sync() {
                Ok(()) => checkpoint
                    .save(&state_dir)
                    .map_err(|source| OutputFault::State {
                        what: "checkpoint",
                        source,
                    }),
                Err(source) => Err(OutputFault::State {
                    what: "dead letters",
                    source,
                }),
            };
            (dead_letters, saved)
        })
        .await;
        self.progress.dead_letters = dead_letters;
        self.progress.saved_at = Some(Instant::now());
        match saved {
            Ok(()) => {
                self.progress.unsaved = false;
                self.progress.save_failed = false;
                Ok(())
            }
            // What runs runs on: the last checkpoint is whole, and the next try makes a new file.
            Err(OutputFault::State {
                what: "checkpoint",
                source,
            }) if when == Save::Now && is_full(&source) => {
                if !std::mem::replace(&mut self.progress.save_failed, true) {
                    let message = format!(
                        "cannot save the checkpoint: {source}; a restart would repeat more than a second"
                    );
                    self.log.runner(LogLevel::Warn, message);
                }
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }
}

/// Whether another save follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Save {
    Now,
    Last,
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Runs blocking `work` on the blocking threads; a panic in it goes on here.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: nothing waits for the result, and there is none to give.
            Err(_) => std::future::pending().await,
        },
    }
}
