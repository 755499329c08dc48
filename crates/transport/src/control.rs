//! The two halves of a session's control stream.

use std::fmt;

use bytes::Bytes;
use quinn::{Connection, ZeroRttAccepted};
use sluice_protocol::FRAME_BYTES_MAX;

use crate::error::SessionError;
use crate::frame::{Reader, Writer};

/// Above every request stream: a heartbeat never waits behind an artifact.
pub(crate) const CONTROL_PRIORITY: i32 = 100;

/// Sends control frames.
pub struct ControlSender(Writer);

impl ControlSender {
    pub(crate) fn new(writer: Writer) -> Self {
        writer.set_priority(CONTROL_PRIORITY);
        Self(writer)
    }

    /// Sends one frame of at most [`FRAME_BYTES_MAX`] bytes; waits while the peer reads slowly.
    ///
    /// Returning means that the frame is on its way, not that it arrived. When the call is dropped before it returns,
    /// the frame is sent whole later (with the next one) or not at all, never in part.
    pub async fn send(&mut self, frame: Bytes) -> Result<(), SessionError> {
        self.0.send(frame, FRAME_BYTES_MAX).await
    }

    /// Says that no more frames come; those that were sent still arrive.
    pub fn finish(&mut self) -> Result<(), SessionError> {
        self.0.finish()
    }

    /// After [`Self::finish`]: waits until the peer has taken every frame.
    pub async fn taken(&mut self) -> Result<(), SessionError> {
        self.0.taken().await
    }
}

#[cfg(test)]
impl ControlSender {
    /// What a peer that keeps no rule would write.
    pub(crate) async fn raw_write(&mut self, bytes: Bytes) -> Result<(), SessionError> {
        self.0.write(bytes).await
    }
}

impl fmt::Debug for ControlSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlSender").finish_non_exhaustive()
    }
}

/// That the peer is really there. Its first packets alone may be a copy that somebody kept: only the end of the
/// handshake needs its keys now.
pub(crate) struct Proof {
    connection: Connection,
    complete: Option<ZeroRttAccepted>,
}

impl Proof {
    pub(crate) fn new(connection: Connection, complete: ZeroRttAccepted) -> Self {
        Self {
            connection,
            complete: Some(complete),
        }
    }

    /// Waits for the end of the handshake. May be dropped and called again.
    pub(crate) async fn wait(&mut self) -> Result<(), SessionError> {
        if let Some(complete) = &mut self.complete {
            // What it says is about the dialling side.
            complete.await;
            self.complete = None;
            // It also ends when the connection fails.
            if let Some(error) = self.connection.close_reason() {
                return Err(error.into());
            }
        }
        Ok(())
    }
}

/// Receives control frames.
///
/// On the orchestrator's side the first frame may have come as early data, which can be a replay: it may be read and
/// answered, and nothing may be committed for it. Every later frame is only handed out when the handshake is complete.
pub struct ControlReceiver {
    reader: Reader,
    /// Of the accepting side.
    proof: Option<Proof>,
    greeted: bool,
}

impl ControlReceiver {
    pub(crate) fn new(reader: Reader, proof: Option<Proof>) -> Self {
        Self {
            reader,
            proof,
            greeted: false,
        }
    }

    /// The next frame; `None` when the peer has finished its side. May be dropped and called again without loss.
    ///
    /// Any error is the end of this stream.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, SessionError> {
        if self.greeted
            && let Some(proof) = &mut self.proof
        {
            proof.wait().await?;
            self.proof = None;
        }
        let frame = self.reader.recv().await?;
        self.greeted = true;
        Ok(frame)
    }
}

impl fmt::Debug for ControlReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlReceiver").finish_non_exhaustive()
    }
}
