//! Frames on a QUIC stream: a 32-bit big-endian length, then that many bytes.
//!
//! Both halves may be dropped in the middle of a call (a `select!` that took another branch) and called again: the
//! reader keeps what it has of a frame, the writer finishes the frame it has begun before it begins another.

use bytes::{Buf, Bytes, BytesMut};
use quinn::{RecvStream, SendStream};

use crate::bounds::READ_BYTES;
use crate::error::{CloseCode, SessionError};

const LENGTH_BYTES: usize = 4;

/// Writes frames and raw bytes.
pub(crate) struct Writer {
    stream: SendStream,
    /// What was accepted and not yet handed to QUIC: a length and a frame.
    pending: [Bytes; 2],
}

impl Writer {
    pub(crate) fn new(stream: SendStream) -> Self {
        Self {
            stream,
            pending: [Bytes::new(), Bytes::new()],
        }
    }

    pub(crate) fn set_priority(&self, priority: i32) {
        // Fails only on a finished stream, where priority means nothing.
        let _ = self.stream.set_priority(priority);
    }

    /// Returns when QUIC has taken the whole frame into its bounded send buffer.
    pub(crate) async fn send(
        &mut self,
        frame: Bytes,
        bytes_max: usize,
    ) -> Result<(), SessionError> {
        let length = match u32::try_from(frame.len()) {
            Ok(length) if frame.len() <= bytes_max => length,
            _ => {
                return Err(SessionError::FrameTooLarge {
                    bytes: frame.len(),
                    bytes_max,
                });
            }
        };
        self.flush().await?;
        self.pending = [Bytes::copy_from_slice(&length.to_be_bytes()), frame];
        self.flush().await
    }

    /// Returns when QUIC has taken all the bytes.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), SessionError> {
        self.flush().await?;
        self.pending = [bytes, Bytes::new()];
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), SessionError> {
        loop {
            // quinn refuses an empty list and counts an empty chunk as written only after a full one.
            let rest = match &mut self.pending {
                [first, rest] if first.is_empty() => std::slice::from_mut(rest),
                both => &mut both[..],
            };
            if rest.iter().all(Bytes::is_empty) {
                return Ok(());
            }
            self.stream.write_chunks(rest).await?;
        }
    }

    /// Ends the stream cleanly; what was handed to QUIC still arrives.
    pub(crate) fn finish(&mut self) -> Result<(), SessionError> {
        self.stream
            .finish()
            .map_err(|_| SessionError::StreamFinished)
    }

    /// Ends the stream so that the peer sees it is incomplete.
    pub(crate) fn reset(&mut self, code: CloseCode) {
        // Fails only when the stream has ended already.
        let _ = self.stream.reset(code.to_var());
    }

    /// Waits until the peer has taken everything, or has given up the stream.
    pub(crate) async fn taken(&mut self) -> Result<(), SessionError> {
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(SessionError::StreamAborted {
                code: CloseCode::from_var(code),
            }),
            Err(quinn::StoppedError::ConnectionLost(error)) => Err(error.into()),
            Err(other) => Err(SessionError::Transport {
                detail: other.to_string(),
            }),
        }
    }
}

/// Reads frames and raw bytes.
pub(crate) struct Reader {
    stream: RecvStream,
    /// What has arrived of the next frame: never more than one frame and one read.
    held: BytesMut,
    bytes_max: usize,
}

impl Reader {
    pub(crate) fn new(stream: RecvStream, bytes_max: usize) -> Self {
        Self {
            stream,
            held: BytesMut::new(),
            bytes_max,
        }
    }

    /// The next frame; `None` when the peer finished the stream after a whole frame.
    pub(crate) async fn recv(&mut self) -> Result<Option<Bytes>, SessionError> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(READ_BYTES, true).await? {
                Some(chunk) => self.held.extend_from_slice(&chunk.bytes),
                None if self.held.is_empty() => return Ok(None),
                None => return Err(SessionError::Truncated),
            }
        }
    }

    /// The next raw bytes, at most `bytes_max`; `None` at the end.
    pub(crate) async fn read(&mut self, bytes_max: usize) -> Result<Option<Bytes>, SessionError> {
        if !self.held.is_empty() {
            let bytes = self.held.len().min(bytes_max);
            return Ok(Some(self.held.split_to(bytes).freeze()));
        }
        Ok(self
            .stream
            .read_chunk(bytes_max, true)
            .await?
            .map(|chunk| chunk.bytes))
    }

    /// Tells the peer that no more is wanted.
    pub(crate) fn stop(&mut self, code: CloseCode) {
        // Fails only when the stream has ended already.
        let _ = self.stream.stop(code.to_var());
    }

    fn take_frame(&mut self) -> Result<Option<Bytes>, SessionError> {
        let Some(length) = self.held.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let bytes = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if bytes > self.bytes_max {
            return Err(SessionError::FrameTooLarge {
                bytes,
                bytes_max: self.bytes_max,
            });
        }
        if self.held.len() < LENGTH_BYTES + bytes {
            return Ok(None);
        }
        self.held.advance(LENGTH_BYTES);
        Ok(Some(self.held.split_to(bytes).freeze()))
    }
}
