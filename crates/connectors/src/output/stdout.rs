//! `[output.stdout]`: the process's standard output, or the execution's log on a remote edge.

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use super::{LineSink, OutputError, blocking};

/// Bytes held before they are written while more keeps coming: large enough to make a write's hop cheap.
const WRITE_BYTES: usize = 256 * 1024;
/// What the buffer keeps after a large record.
const BUFFER_BYTES_KEPT: usize = 2 * WRITE_BYTES;
/// How errors call it.
const NAME: &str = "standard output";

pub struct StdoutOutput {
    to: To,
    accepted: u64,
    acked: u64,
}

enum To {
    /// The stream is `None` only after an error.
    Stream {
        stream: Option<Box<dyn Write + Send>>,
        buffer: Vec<u8>,
    },
    Log(Arc<dyn LineSink>),
}

impl StdoutOutput {
    pub(super) fn to_stream(open: &Arc<dyn Fn() -> Box<dyn Write + Send> + Send + Sync>) -> Self {
        Self::new(To::Stream {
            stream: Some(open()),
            buffer: Vec::new(),
        })
    }

    pub(super) fn to_log(sink: &Arc<dyn LineSink>) -> Self {
        Self::new(To::Log(Arc::clone(sink)))
    }

    fn new(to: To) -> Self {
        Self {
            to,
            accepted: 0,
            acked: 0,
        }
    }

    pub(super) async fn write<'a>(
        &mut self,
        mut records: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), OutputError> {
        self.accepted += 1;
        match &mut self.to {
            To::Log(sink) => {
                sink.records(&mut records);
                self.acked = self.accepted;
                Ok(())
            }
            To::Stream { buffer, .. } => {
                super::append_lines(buffer, records);
                if buffer.len() < WRITE_BYTES {
                    Ok(())
                } else {
                    self.sync().await
                }
            }
        }
    }

    pub(super) async fn sync(&mut self) -> Result<(), OutputError> {
        if let To::Stream { stream, buffer } = &mut self.to {
            let Some(mut open) = stream.take() else {
                return Err(OutputError::Closed {
                    to: NAME.to_owned(),
                });
            };
            if !buffer.is_empty() {
                let bytes = std::mem::take(buffer);
                let (used, mut bytes, written) = blocking(move || {
                    let written = open.write_all(&bytes).and_then(|()| open.flush());
                    (open, bytes, written)
                })
                .await;
                written.map_err(|source| OutputError::write("write", NAME, source))?;
                bytes.clear();
                bytes.shrink_to(BUFFER_BYTES_KEPT);
                (open, *buffer) = (used, bytes);
            }
            *stream = Some(open);
        }
        self.acked = self.accepted;
        Ok(())
    }

    pub(super) fn acked(&self) -> u64 {
        self.acked
    }
}

impl fmt::Debug for StdoutOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdoutOutput")
            .field("accepted", &self.accepted)
            .finish_non_exhaustive()
    }
}
