//! One message, one frame. The transport puts a 32-bit big-endian length before it.

use bytes::Bytes;
use prost::Message;

/// Longest frame, in bytes: bounds what a peer can make us hold before we have read a word of it.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// A frame that is not a message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`FRAME_BYTES_MAX`].
    #[error("frame of {bytes} bytes, the most is {FRAME_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not a message of this type.
    #[error("frame is not a message")]
    Malformed(#[from] prost::DecodeError),
}

/// Encodes a message. Panics when it is longer than a frame: senders split before they encode.
pub fn encode<M: Message>(message: &M) -> Bytes {
    let bytes = message.encode_to_vec();
    assert!(
        bytes.len() <= FRAME_BYTES_MAX,
        "senders split rows, so no message outgrows a frame"
    );
    bytes.into()
}

/// Decodes a frame's content. Never panics, whatever the bytes.
pub fn decode<M: Message + Default>(frame: &[u8]) -> Result<M, FrameError> {
    if frame.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong { bytes: frame.len() });
    }
    Ok(M::decode(frame)?)
}
