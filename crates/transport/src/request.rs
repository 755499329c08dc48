//! Request streams: one side asks with one frame, the other answers with frames, raw bytes, or both.
//!
//! Artifact pull: the edge asks `{digest, offset}`, the answer is a frame `{size}` and then the bytes. Logs: the
//! orchestrator asks, the edge answers with frames until it is told to stop. An answer that ends by anything but
//! [`Responder::finish`] reaches the asker as an error, so a part is never taken for the whole.

use std::fmt;

use bytes::Bytes;
use quinn::Connection;
use sluice_protocol::FRAME_BYTES_MAX;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::bounds::{REQUEST_FRAME_BYTES_MAX, REQUEST_TIMEOUT, STREAMS_MAX};
use crate::error::{CloseCode, SessionError};
use crate::frame::{Reader, Writer};

/// How an answer's bytes rank against others of the same session. All rank below the control stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// Artifacts: work waits for them.
    #[default]
    Artifact,
    /// Logs and taps: nobody's work waits for them.
    Diagnostic,
}

impl Priority {
    fn to_quic(self) -> i32 {
        match self {
            Self::Artifact => 0,
            Self::Diagnostic => -10,
        }
    }
}

/// The answer to a request that this side made. Dropping it tells the peer to stop.
pub struct Reply(Reader);

impl Reply {
    pub(crate) fn new(reader: Reader) -> Self {
        Self(reader)
    }

    /// The next frame of the answer; `None` when the peer finished it. May be dropped and called again without loss.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, SessionError> {
        self.0.recv().await
    }

    /// The next raw bytes of the answer, at most `bytes_max`; `None` when the peer finished it.
    pub async fn read(&mut self, bytes_max: usize) -> Result<Option<Bytes>, SessionError> {
        self.0.read(bytes_max).await
    }

    /// Tells the peer to stop.
    pub fn stop(mut self, code: CloseCode) {
        self.0.stop(code);
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}

/// Answers a request of the peer. Dropping it without [`Self::finish`] makes the answer visibly incomplete.
pub struct Responder {
    writer: Writer,
    finished: bool,
}

impl Responder {
    fn new(send: quinn::SendStream) -> Self {
        let writer = Writer::new(send);
        writer.set_priority(Priority::default().to_quic());
        Self {
            writer,
            finished: false,
        }
    }

    /// Ranks this answer; [`Priority::Artifact`] unless said otherwise.
    pub fn set_priority(&self, priority: Priority) {
        self.writer.set_priority(priority.to_quic());
    }

    /// Sends a frame of at most [`FRAME_BYTES_MAX`] bytes; waits while the peer reads slowly.
    ///
    /// [`SessionError::StreamAborted`] means that the asker wants no more.
    pub async fn send(&mut self, frame: Bytes) -> Result<(), SessionError> {
        self.writer.send(frame, FRAME_BYTES_MAX).await
    }

    /// Sends raw bytes; waits while the peer reads slowly.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), SessionError> {
        self.writer.write(bytes).await
    }

    /// Says that the answer is complete.
    pub fn finish(mut self) -> Result<(), SessionError> {
        self.finished = true;
        self.writer.finish()
    }

    /// Waits until the asker has given up this answer, or the session is over: for answers that wait for news.
    pub async fn abandoned(&mut self) {
        // Resolves in either case, which is all that matters here.
        let _ = self.writer.taken().await;
    }

    /// Gives up: the asker sees [`SessionError::StreamAborted`] with this code.
    pub fn abort(mut self, code: CloseCode) {
        self.finished = true;
        self.writer.reset(code);
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.finished {
            self.writer.reset(CloseCode::ABANDONED);
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}

/// Takes the requests of the peer, in the order in which their frames are complete.
pub struct RequestAcceptor {
    connection: Connection,
    /// Streams whose frame is still on its way; a slow one holds up no other. QUIC's stream limit bounds them.
    arriving: JoinSet<Option<(Bytes, Responder)>>,
}

impl RequestAcceptor {
    pub(crate) fn new(connection: Connection) -> Self {
        Self {
            connection,
            arriving: JoinSet::new(),
        }
    }

    /// The next request: its frame and the way to answer. An error is the session's end.
    ///
    /// May be dropped and called again without loss. A stream without one proper frame is refused on the way.
    pub async fn next(&mut self) -> Result<(Bytes, Responder), SessionError> {
        loop {
            tokio::select! {
                Some(arrived) = self.arriving.join_next() => {
                    if let Ok(Some(request)) = arrived {
                        return Ok(request);
                    }
                }
                stream = self.connection.accept_bi(), if self.arriving.len() < STREAMS_MAX as usize => {
                    let (send, mut recv) = stream?;
                    if recv.is_0rtt() {
                        // Early data is for a Hello: whatever else comes so may be a replay.
                        // Fails only when the stream has ended already.
                        let _ = recv.stop(CloseCode::PROTOCOL.to_var());
                        continue;
                    }
                    self.arriving.spawn(arrive(send, recv));
                }
            }
        }
    }
}

impl fmt::Debug for RequestAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestAcceptor").finish_non_exhaustive()
    }
}

async fn arrive(send: quinn::SendStream, recv: quinn::RecvStream) -> Option<(Bytes, Responder)> {
    let mut reader = Reader::new(recv, REQUEST_FRAME_BYTES_MAX);
    let responder = Responder::new(send);
    let refusal = match timeout(REQUEST_TIMEOUT, reader.recv()).await {
        Ok(Ok(Some(frame))) => return Some((frame, responder)),
        Ok(Ok(None)) => "it has no frame".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "its frame did not come in time".to_owned(),
    };
    tracing::debug!(refusal, "transport.request_refused");
    reader.stop(CloseCode::PROTOCOL);
    responder.abort(CloseCode::PROTOCOL);
    None
}
