//! Answers requests for the newest lines of an execution's log.

use std::path::Path;

use sluice_model::ExecutionId;
use sluice_protocol::{FRAME_BYTES_MAX, LogLine, LogReply, LogRequest};
use sluice_transport::{CloseCode, Priority, Responder, SessionError};

use crate::runner::{LogLevel, log_tail};

/// Lines in one answer, at most: some screens.
const LINES_MAX: u32 = 10_000;

/// Bytes in one frame of lines: well below a frame's bound, so that one more line always fits.
const REPLY_BYTES_MAX: usize = FRAME_BYTES_MAX / 4;

/// Answers one request.
pub(crate) async fn answer(
    executions: &Path,
    request: &LogRequest,
    mut responder: Responder,
) -> Result<(), SessionError> {
    responder.set_priority(Priority::Diagnostic);
    let Some(execution) = ExecutionId::from_slice(&request.execution) else {
        responder.abort(CloseCode::PROTOCOL);
        return Ok(());
    };
    let directory = executions.join(execution.to_string());
    let lines_max = request.tail.min(LINES_MAX) as usize;
    let read = tokio::task::spawn_blocking(move || log_tail(&directory, lines_max)).await;
    let lines = match read {
        Ok(Ok(lines)) => lines,
        Ok(Err(error)) => {
            tracing::warn!(event = "logs.unreadable", %execution, %error);
            responder.abort(CloseCode::ABANDONED);
            return Ok(());
        }
        Err(_) => {
            responder.abort(CloseCode::ABANDONED);
            return Ok(());
        }
    };
    let mut reply = LogReply::default();
    let mut bytes = 0;
    for line in lines {
        bytes += line.message.len() + 64;
        reply.lines.push(LogLine {
            at_ms: line.at.0,
            level: word(line.level).to_owned(),
            stage: line
                .stage
                .map(|stage| stage.to_string())
                .unwrap_or_default(),
            message: line.message,
        });
        if bytes >= REPLY_BYTES_MAX {
            bytes = 0;
            let full = std::mem::take(&mut reply);
            responder.send(sluice_protocol::encode(&full)).await?;
        }
    }
    responder.send(sluice_protocol::encode(&reply)).await?;
    responder.finish()
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
