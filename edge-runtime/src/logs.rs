//! Answers requests for an execution's log: its newest lines, and with `follow` every line that comes after them.
//!
//! A follower costs the pipelines next to nothing: one look takes some hundred lines, a few looks a second, on one thread of
//! low priority for all that is read, and the next look waits until the peer's window had room for this one. So one that
//! stalls causes no read at all; it misses what the log drops meanwhile, and is told how much.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sluice_model::{ExecutionId, UnixMs};
use sluice_protocol::{FRAME_BYTES_MAX, LogLine, LogReply, LogRequest, OutputRequest, Reject};
use sluice_transport::{CloseCode, Priority, Responder, SessionError};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::link::unix_now;
use crate::outputs;
use crate::runner::{self, LogFilter, LogLevel, LogPiece, LogReader};

/// Requests for newest lines that are answered at once: they are for people.
const ANSWERS_MAX: usize = 4;

/// Executions of this node that are followed at once. Each holds a stream of the 16 that a session has.
pub(crate) const FOLLOWERS_MAX: usize = 6;

/// Outputs that are given at once: the orchestrator asks for one at a time.
const OUTPUTS_MAX: usize = 2;

/// Time between two looks at a log that is followed. A look takes 64 KiB, so this bounds what a follower can cost: 256 KiB
/// a second, some two thousand lines.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Bytes in one frame of lines: well below a frame's bound, so that one more line always fits.
const REPLY_BYTES_MAX: usize = FRAME_BYTES_MAX / 4;

/// By how much the thread that reads is nicer than the others, which do the work.
const NICER: i32 = 10;

/// The answers of one session that are under way.
pub(crate) struct Answers {
    executions: Arc<Path>,
    tasks: JoinSet<()>,
    followers: Arc<Semaphore>,
    newest: Arc<Semaphore>,
    thread: Option<Thread>,
    outputs: Arc<Semaphore>,
}

/// The thread that reads. It ends when nobody can ask it any more.
#[derive(Clone)]
struct Thread(mpsc::Sender<Box<dyn FnOnce() + Send>>);

impl Answers {
    /// `executions` is the directory of all executions' directories.
    pub(crate) fn new(executions: Arc<Path>) -> Self {
        Self {
            executions,
            tasks: JoinSet::new(),
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
            newest: Arc::new(Semaphore::new(ANSWERS_MAX)),
            thread: None,
            outputs: Arc::new(Semaphore::new(OUTPUTS_MAX)),
        }
    }

    /// Begins to answer. QUIC's stream limit bounds how many can wait for their turn.
    pub(crate) fn begin(&mut self, request: LogRequest, responder: Responder) {
        let executions = Arc::clone(&self.executions);
        let (followers, newest) = (Arc::clone(&self.followers), Arc::clone(&self.newest));
        let thread = self.thread.take().map_or_else(Thread::start, Ok);
        self.thread = thread.as_ref().ok().cloned();
        let thread = match thread {
            Ok(thread) => thread,
            Err(error) => {
                tracing::warn!(event = "logs.no_thread", %error);
                responder.abort(CloseCode::ABANDONED);
                return;
            }
        };
        self.tasks.spawn(async move {
            let permit = if request.follow {
                followers.try_acquire_owned().ok()
            } else {
                newest.acquire_owned().await.ok()
            };
            // An asker that went away is no news.
            let _ = match permit {
                Some(_permit) => answer(&executions, &request, responder, &thread).await,
                None => refuse(responder).await,
            };
        });
    }

    /// Begins to give a task's output, after those that are under way.
    pub(crate) fn begin_output(&mut self, request: OutputRequest, responder: Responder) {
        let (executions, outputs) = (Arc::clone(&self.executions), Arc::clone(&self.outputs));
        self.tasks.spawn(async move {
            let _permit = outputs.acquire_owned().await;
            // An asker that went away asks again when it is back.
            let _ = outputs::answer(&executions, &request, responder).await;
        });
    }

    /// Waits until one has ended; never when there is none.
    pub(crate) async fn ended(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

impl Thread {
    fn start() -> std::io::Result<Self> {
        let (sender, mut work) = mpsc::channel::<Box<dyn FnOnce() + Send>>(1);
        let builder = std::thread::Builder::new().name("log-reader".to_owned());
        builder.spawn(move || {
            if let Err(error) = rustix::process::nice(NICER) {
                tracing::debug!(event = "logs.not_nicer", %error);
            }
            while let Some(work) = work.blocking_recv() {
                work();
            }
        })?;
        Ok(Self(sender))
    }

    /// Does it there; `None` when it never came to an end.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (done, result) = oneshot::channel();
        let work = Box::new(move || {
            // Nobody waits for it any more: the asker is gone.
            let _ = done.send(work());
        });
        self.0.send(work).await.ok()?;
        result.await.ok()
    }
}

async fn refuse(mut responder: Responder) -> Result<(), SessionError> {
    let reject = Reject {
        code: "followers".to_owned(),
        message: format!(
            "{FOLLOWERS_MAX} logs of this node are followed already, more it does not serve"
        ),
        retry_after_ms: 0,
    };
    let reply = LogReply {
        reject: Some(reject),
        ..LogReply::default()
    };
    responder.send(sluice_protocol::encode(&reply)).await?;
    responder.finish()
}

/// Answers one request.
async fn answer(
    executions: &Path,
    request: &LogRequest,
    mut responder: Responder,
    thread: &Thread,
) -> Result<(), SessionError> {
    responder.set_priority(Priority::Diagnostic);
    let Some(execution) = ExecutionId::from_slice(&request.execution) else {
        responder.abort(CloseCode::PROTOCOL);
        return Ok(());
    };
    let state_dir = executions.join(execution.to_string());
    let filter = Arc::new(filter_of(request));
    let mut reader = LogReader::open(&state_dir, request.from);
    let mut first = request.from.is_none();
    loop {
        let filter = Arc::clone(&filter);
        let lines_max = usize::try_from(request.tail).unwrap_or(usize::MAX);
        let work = move || {
            let piece = if first {
                reader.tail(lines_max, &filter)
            } else {
                reader.read(&filter)
            };
            let frames = piece.map(|piece| {
                // The first answer tells where the log stands even if it has nothing.
                if first || !piece.lines.is_empty() || piece.dropped > 0 {
                    frames(piece)
                } else {
                    Vec::new()
                }
            });
            (reader, frames)
        };
        let frames;
        (reader, frames) = match thread.run(work).await {
            Some((reader, Ok(frames))) => (reader, frames),
            Some((_, Err(error))) => {
                tracing::warn!(event = "logs.unreadable", %execution, %error);
                responder.abort(CloseCode::ABANDONED);
                return Ok(());
            }
            None => {
                responder.abort(CloseCode::ABANDONED);
                return Ok(());
            }
        };
        // Waits while the peer does not read, and nothing is read here.
        for frame in frames {
            responder.send(frame).await?;
        }
        if !request.follow {
            return responder.finish();
        }
        first = false;
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = responder.abandoned() => return Ok(()),
        }
    }
}

/// Lines in as many frames as they take. Each says where to go on after it, so that what was given is not given again to
/// who is cut in between.
fn frames(piece: LogPiece) -> Vec<Bytes> {
    let mut frames = Vec::new();
    let mut reply = LogReply {
        dropped: piece.dropped,
        ..LogReply::default()
    };
    let mut bytes = 0;
    for (line, number) in piece.lines.into_iter().zip(piece.numbers) {
        if bytes >= REPLY_BYTES_MAX {
            bytes = 0;
            reply.next = number;
            frames.push(sluice_protocol::encode(&std::mem::take(&mut reply)));
        }
        bytes += line.message.len() + 64;
        reply.lines.push(wire_line(line));
    }
    reply.next = piece.next;
    frames.push(sluice_protocol::encode(&reply));
    frames
}

fn wire_line(line: runner::LogLine) -> LogLine {
    LogLine {
        at_ms: line.at.0,
        level: word(line.level).to_owned(),
        stage: line.stage.map(|it| it.to_string()).unwrap_or_default(),
        message: line.message,
    }
}

/// Which lines are wanted.
fn filter_of(request: &LogRequest) -> LogFilter {
    let since = |age_ms: u64| {
        let age_ms = i64::try_from(age_ms).unwrap_or(i64::MAX);
        UnixMs(unix_now().0.saturating_sub(age_ms))
    };
    LogFilter::new(request.age_ms_max.map(since), &request.stage)
}

fn word(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Record => "record",
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_frame_says_where_to_go_on_after_it() {
        let line = |number: u64| runner::LogLine {
            at: UnixMs(0),
            level: LogLevel::Info,
            stage: None,
            message: format!("{number} {}", "x".repeat(REPLY_BYTES_MAX / 3)),
        };
        // Every second line is another stage's.
        let numbers: Vec<u64> = (5..).step_by(2).take(10).collect();
        let piece = LogPiece {
            lines: numbers.iter().copied().map(line).collect(),
            numbers: numbers.clone(),
            next: 25,
            dropped: 4,
        };
        let replies: Vec<LogReply> = frames(piece)
            .iter()
            .map(|frame| sluice_protocol::decode(frame).unwrap())
            .collect();
        assert!(replies.len() > 2);
        let dropped: Vec<u64> = replies.iter().map(|reply| reply.dropped).collect();
        assert_eq!(dropped.iter().sum::<u64>(), 4);
        let mut given = 0;
        for reply in &replies {
            given += reply.lines.len();
            let next = numbers.get(given).copied().unwrap_or(25);
            assert_eq!(reply.next, next, "after {given} lines");
        }
        assert_eq!(given, 10);
    }
}
