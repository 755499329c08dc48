//! Lines from a stream that cannot be read twice: `[input.stdin]`, and what a command of `[input.exec]` prints.
//!
//! A thread of its own reads, because a read from a terminal or a pipe may never return and nothing can interrupt it. The thread
//! holds nothing but the stream: when the input is dropped it ends with the next read that returns.

use std::io::{self, Read};

use tokio::sync::mpsc;

use super::lines::LineSplitter;
use super::{InputBatch, InputError, Next};

/// Bytes of one read: what a pipe holds.
const READ_BYTES: usize = 64 * 1024;
/// Chunks that may wait: enough to read on while a batch is handled.
const CHUNKS_WAITING_MAX: usize = 4;

#[cfg_attr(
    not(feature = "input-stdin"),
    allow(unreachable_pub, reason = "only the standard input is one as it is")
)]
#[derive(Debug)]
pub struct StreamInput {
    /// What is read, for errors.
    from: String,
    chunks: mpsc::Receiver<io::Result<Vec<u8>>>,
    /// Buffers on their way back to the reader.
    used: std::sync::mpsc::Sender<Vec<u8>>,
    splitter: LineSplitter,
    chunk: Vec<u8>,
    chunk_used: usize,
}

impl StreamInput {
    pub(super) fn new(mut stream: Box<dyn Read + Send>, from: String) -> Result<Self, InputError> {
        let (send, chunks) = mpsc::channel(CHUNKS_WAITING_MAX);
        let (used, reusable) = std::sync::mpsc::channel::<Vec<u8>>();
        let read = move || loop {
            let mut buffer = reusable.try_recv().unwrap_or_default();
            buffer.resize(READ_BYTES, 0);
            let read = match stream.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) => return,
                Ok(bytes) => {
                    buffer.truncate(bytes);
                    Ok(buffer)
                }
                Err(error) => Err(error),
            };
            let failed = read.is_err();
            if send.blocking_send(read).is_err() || failed {
                return;
            }
        };
        std::thread::Builder::new()
            .name("input-stream".to_owned())
            .spawn(read)
            .map_err(|source| read_error(&from, source))?;
        Ok(Self {
            from,
            chunks,
            used,
            splitter: LineSplitter::default(),
            chunk: Vec::new(),
            chunk_used: 0,
        })
    }

    pub(super) async fn next(&mut self, into: &mut InputBatch) -> Result<Next, InputError> {
        loop {
            let unread = &self.chunk[self.chunk_used..];
            let used = self.splitter.split(unread, into);
            let full = used < unread.len();
            self.chunk_used += used;
            if full {
                return Ok(Next::Batch);
            }
            let chunk = match self.chunks.try_recv() {
                Ok(chunk) => Some(chunk),
                Err(mpsc::error::TryRecvError::Empty) if !into.is_empty() => {
                    return Ok(Next::Batch);
                }
                Err(mpsc::error::TryRecvError::Empty) => self.chunks.recv().await,
                Err(mpsc::error::TryRecvError::Disconnected) => None,
            };
            match chunk {
                Some(chunk) => {
                    let chunk = chunk.map_err(|source| read_error(&self.from, source))?;
                    let used = std::mem::replace(&mut self.chunk, chunk);
                    self.chunk_used = 0;
                    // The reader may be gone: then nobody needs the buffer.
                    let _ = self.used.send(used);
                }
                None => {
                    self.splitter.finish(into);
                    return Ok(if into.is_empty() {
                        Next::End
                    } else {
                        Next::Batch
                    });
                }
            }
        }
    }
}

fn read_error(from: &str, source: io::Error) -> InputError {
    InputError::Read {
        from: from.to_owned(),
        source,
    }
}
