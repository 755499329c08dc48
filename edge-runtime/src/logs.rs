//! Answers requests for an execution's log: its newest lines, and with `follow` every line that comes after them.
//!
//! A follower costs the pipelines next to nothing: it reads what they wrote from the disk, at most 1 MiB a second, and only
//! when it is done with what it read before. One that stalls misses what the log drops meanwhile, and is told how much.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sluice_model::{ExecutionId, UnixMs};
use sluice_protocol::{FRAME_BYTES_MAX, LogLine, LogReply, LogRequest, Reject};
use sluice_transport::{CloseCode, Priority, Responder, SessionError};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::link::unix_now;
use crate::runner::{self, LogLevel, LogPiece, LogReader};

/// Requests for newest lines that are answered at once: they are for people.
const ANSWERS_MAX: usize = 4;

/// Executions of this node that are followed at once. Each holds a stream of the 16 that a session has.
pub(crate) const FOLLOWERS_MAX: usize = 6;

/// Time between two looks at a log that is followed. One look takes at most 256 KiB, so this bounds what a follower can
/// cost: 1 MiB a second, some ten thousand lines.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Bytes in one frame of lines: well below a frame's bound, so that one more line always fits.
const REPLY_BYTES_MAX: usize = FRAME_BYTES_MAX / 4;

/// The answers of one session that are under way.
pub(crate) struct Answers {
    executions: Arc<Path>,
    tasks: JoinSet<()>,
    followers: Arc<Semaphore>,
    newest: Arc<Semaphore>,
}

impl Answers {
    /// `executions` is the directory of all executions' directories.
    pub(crate) fn new(executions: Arc<Path>) -> Self {
        Self {
            executions,
            tasks: JoinSet::new(),
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
            newest: Arc::new(Semaphore::new(ANSWERS_MAX)),
        }
    }

    /// Begins to answer. QUIC's stream limit bounds how many can wait for their turn.
    pub(crate) fn begin(&mut self, request: LogRequest, responder: Responder) {
        let executions = Arc::clone(&self.executions);
        let (followers, newest) = (Arc::clone(&self.followers), Arc::clone(&self.newest));
        self.tasks.spawn(async move {
            let permit = if request.follow {
                followers.try_acquire_owned().ok()
            } else {
                newest.acquire_owned().await.ok()
            };
            // An asker that went away is no news.
            let _ = match permit {
                Some(_permit) => answer(&executions, &request, responder).await,
                None => refuse(responder).await,
            };
        });
    }

    /// Waits until one has ended; never when there is none.
    pub(crate) async fn ended(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
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
) -> Result<(), SessionError> {
    responder.set_priority(Priority::Diagnostic);
    let Some(execution) = ExecutionId::from_slice(&request.execution) else {
        responder.abort(CloseCode::PROTOCOL);
        return Ok(());
    };
    let state_dir = executions.join(execution.to_string());
    let filter = Arc::new(Filter::of(request));
    let mut reader = LogReader::open(&state_dir, request.from);
    let mut first = request.from.is_none();
    loop {
        let filter = Arc::clone(&filter);
        let lines_max = usize::try_from(request.tail).unwrap_or(usize::MAX);
        let work = move || {
            let piece = if first {
                reader.tail(lines_max, |line| filter.takes(line))
            } else {
                reader.read(|line| filter.takes(line))
            };
            (reader, piece)
        };
        let piece;
        (reader, piece) = match tokio::task::spawn_blocking(work).await {
            Ok((reader, Ok(piece))) => (reader, piece),
            Ok((_, Err(error))) => {
                tracing::warn!(event = "logs.unreadable", %execution, %error);
                responder.abort(CloseCode::ABANDONED);
                return Ok(());
            }
            Err(_) => {
                responder.abort(CloseCode::ABANDONED);
                return Ok(());
            }
        };
        // The first answer tells where the log stands even if it has nothing.
        if first || !piece.lines.is_empty() || piece.dropped > 0 {
            send(&mut responder, piece).await?;
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

/// Sends lines in as many frames as they take; only the last says where to go on.
async fn send(responder: &mut Responder, piece: LogPiece) -> Result<(), SessionError> {
    let mut reply = LogReply {
        dropped: piece.dropped,
        ..LogReply::default()
    };
    let mut bytes = 0;
    for line in piece.lines {
        if bytes >= REPLY_BYTES_MAX {
            bytes = 0;
            let full = std::mem::take(&mut reply);
            responder.send(sluice_protocol::encode(&full)).await?;
        }
        bytes += line.message.len() + 64;
        reply.lines.push(wire_line(line));
    }
    reply.next = piece.next;
    responder.send(sluice_protocol::encode(&reply)).await
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
struct Filter {
    since: Option<UnixMs>,
    stage: String,
}

impl Filter {
    fn of(request: &LogRequest) -> Self {
        let age_ms_max = request.age_ms_max;
        let since = |age_ms: u64| {
            let age_ms = i64::try_from(age_ms).unwrap_or(i64::MAX);
            UnixMs(unix_now().0.saturating_sub(age_ms))
        };
        Self {
            since: age_ms_max.map(since),
            stage: request.stage.clone(),
        }
    }

    fn takes(&self, line: &runner::LogLine) -> bool {
        let stage = line.stage.as_ref().map_or("", |stage| stage.as_str());
        self.since.is_none_or(|since| line.at >= since)
            && (self.stage.is_empty() || self.stage == stage)
    }
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
