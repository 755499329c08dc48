//! What an execution remembers between processes: how far its input was acked, and what it had counted by then.
//!
//! ```text
//! sluice-checkpoint 1 <sha256 of the rest, 64 hex digits>\n
//! { "content": ..., "version": ..., "input": position | null, "output": position | null, "counters": {...} }\n
//! ```
//!
//! The file is written beside, synced and renamed, so that it is always one whole checkpoint: the newest or the one
//! before. It never says more than what the output acked.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sluice_connectors::{OutputPosition, Position};
use sluice_model::{Digest, Version};

use super::Counters;

const FILE: &str = "checkpoint";
const MAGIC: &str = "sluice-checkpoint";
const FORMAT: u32 = 1;
/// A checkpoint has a few hundred bytes; more than this is something else.
const CHECKPOINT_BYTES_MAX: u64 = 64 * 1024;

/// One checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// Of what ran when it was made.
    pub(super) content: Digest,
    /// For people; what counts is the digest.
    pub(super) version: Version,
    /// Behind the last acked record.
    pub(super) input: Option<Position>,
    /// The output's own, as of the last ack.
    pub(super) output: Option<OutputPosition>,
    /// As of the last ack.
    pub(super) counters: Counters,
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckpointError {
    /// A newer program wrote it: going on without it would repeat everything.
    #[error(
        "the checkpoint has format {found}, this program reads up to {FORMAT}: start a newer sluice, or purge the execution"
    )]
    Newer {
        /// Its format.
        found: u32,
    },
    /// Not what was once written.
    #[error("the checkpoint is damaged")]
    Damaged,
    /// The system did not let us.
    #[error("cannot read the checkpoint: {0}")]
    Io(#[from] io::Error),
}

impl Checkpoint {
    /// The checkpoint in `state_dir`; `None` when there is none. Blocking.
    pub(super) fn load(state_dir: &Path) -> Result<Option<Self>, CheckpointError> {
        let path = state_dir.join(FILE);
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok(metadata) if metadata.len() > CHECKPOINT_BYTES_MAX => {
                return Err(CheckpointError::Damaged);
            }
            Ok(_) => {}
        }
        let bytes = std::fs::read(&path)?;
        let newline = memchr_newline(&bytes).ok_or(CheckpointError::Damaged)?;
        let (header, body) = (&bytes[..newline], &bytes[newline + 1..]);
        let header = std::str::from_utf8(header).map_err(|_| CheckpointError::Damaged)?;
        let mut words = header.split(' ');
        if words.next() != Some(MAGIC) {
            return Err(CheckpointError::Damaged);
        }
        let found = words
            .next()
            .and_then(|word| word.parse().ok())
            .ok_or(CheckpointError::Damaged)?;
        match found {
            FORMAT => {}
            0 => return Err(CheckpointError::Damaged),
            _ => return Err(CheckpointError::Newer { found }),
        }
        if words.next() != Some(Digest::of(body).to_hex().as_str()) {
            return Err(CheckpointError::Damaged);
        }
        serde_json::from_slice(body)
            .map(Some)
            .map_err(|_| CheckpointError::Damaged)
    }

    /// Puts the checkpoint in `state_dir`; on disk when this returns. Blocking.
    pub(super) fn save(&self, state_dir: &Path) -> io::Result<()> {
        let mut body = serde_json::to_vec(self).map_err(io::Error::other)?;
        body.push(b'\n');
        let mut bytes = format!("{MAGIC} {FORMAT} {}\n", Digest::of(&body).to_hex()).into_bytes();
        bytes.append(&mut body);
        sluice_state_dir::replace(&state_dir.join(FILE), &bytes)
    }
}

fn memchr_newline(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&byte| byte == b'\n')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            content: Digest::of(b"spec"),
            version: Version(3),
            input: Some(Position::Generate { seq: 17 }),
            output: Some(OutputPosition::File {
                device: 1,
                inode: 2,
                bytes: 3,
            }),
            counters: Counters {
                records_in: 17,
                records_out: 16,
                dead_letters: 1,
                ..Counters::default()
            },
        }
    }

    #[test]
    fn what_is_saved_is_loaded_and_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Checkpoint::load(directory.path()).unwrap().is_none());
        for seq in [17, 18] {
            let saved = Checkpoint {
                input: Some(Position::Generate { seq }),
                ..checkpoint()
            };
            saved.save(directory.path()).unwrap();
            assert_eq!(Checkpoint::load(directory.path()).unwrap(), Some(saved));
        }
        let path = directory.path().join(FILE);
        let good = std::fs::read(&path).unwrap();
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(
                Checkpoint::load(directory.path()).is_err(),
                "byte {index} flipped"
            );
            std::fs::write(&path, &good[..index]).unwrap();
            assert!(
                Checkpoint::load(directory.path()).is_err(),
                "cut at {index}"
            );
        }
    }

    #[test]
    fn a_newer_format_is_not_taken_for_damage() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(
            directory.path().join(FILE),
            "sluice-checkpoint 2 whatever\n",
        )
        .unwrap();
        let error = Checkpoint::load(directory.path()).unwrap_err();
        assert!(matches!(error, CheckpointError::Newer { found: 2 }));
        assert!(error.to_string().contains("format 2"), "{error}");
    }
}
