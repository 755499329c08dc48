//! Gives the orchestrator what a run's task wrote, from where it asks on. It knows size and hash from the task's outcome,
//! and checks them: nothing here has to.

use std::io::SeekFrom;
use std::path::Path;

use bytes::BytesMut;
use sluice_model::ExecutionId;
use sluice_protocol::{OutputRequest, PullReply, Reject, encode};
use sluice_transport::{CloseCode, Priority, Responder, SessionError};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use crate::runner::output_path;

/// Bytes read from a file at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Answers one request.
pub(crate) async fn answer(
    executions: &Path,
    request: &OutputRequest,
    mut responder: Responder,
) -> Result<(), SessionError> {
    responder.set_priority(Priority::Diagnostic);
    let Some(execution) = ExecutionId::from_slice(&request.execution) else {
        responder.abort(CloseCode::PROTOCOL);
        return Ok(());
    };
    let path = output_path(&executions.join(execution.to_string()));
    let (mut file, size) = match open(&path, request.offset).await {
        Ok(opened) => opened,
        Err(error) => {
            let code = match error.kind() {
                std::io::ErrorKind::NotFound => "not-here",
                _ => "unreadable",
            };
            let reply = PullReply {
                reject: Some(Reject {
                    code: code.to_owned(),
                    message: error.to_string(),
                    retry_after_ms: 0,
                }),
                size: 0,
            };
            responder.send(encode(&reply)).await?;
            return responder.finish();
        }
    };
    let reply = PullReply { reject: None, size };
    responder.send(encode(&reply)).await?;
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        match file.read_buf(&mut chunk).await {
            Ok(0) => return responder.finish(),
            Ok(_) => responder.write(chunk.freeze()).await?,
            Err(error) => {
                tracing::warn!(event = "output.unreadable", %execution, %error);
                responder.abort(CloseCode::ABANDONED);
                return Ok(());
            }
        }
    }
}

async fn open(path: &Path, offset: u64) -> std::io::Result<(tokio::fs::File, u64)> {
    let mut file = tokio::fs::File::open(path).await?;
    let size = file.metadata().await?.len();
    file.seek(SeekFrom::Start(offset)).await?;
    Ok((file, size))
}
