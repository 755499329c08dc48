//! The output of a run's task: what `[output.stdout]` of a batch pipeline wrote, in `STATE_DIR/executions/ID/output`.
//!
//! The checkpoint knows how much of the file is safe. What lies behind that is cut off when the execution has ended, so
//! that what is reported of it is what is there, for good: an execution that has ended never writes again.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use sluice_connectors::OutputPosition;
use sluice_model::OutputFacts;

use super::checkpoint::{Checkpoint, CheckpointError};
use crate::artifacts::hash_file;

const FILE: &str = "output";

/// Where an execution's output is.
pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// The output of an execution that has ended, cut back to what is safe; `None` when it keeps none. Blocking.
pub(super) fn close(state_dir: &Path) -> io::Result<Option<OutputFacts>> {
    let checkpoint = match Checkpoint::load(state_dir) {
        Ok(checkpoint) => checkpoint,
        Err(CheckpointError::Io(error)) => return Err(error),
        Err(error) => return Err(io::Error::other(error)),
    };
    let Some(OutputPosition::Kept { bytes, dropped }) = checkpoint.and_then(|it| it.output) else {
        return Ok(None);
    };
    let path = path(state_dir);
    let file = File::options().write(true).open(&path)?;
    let found = file.metadata()?.len();
    if found < bytes {
        let message = format!("it has {found} bytes, and {bytes} were safe");
        return Err(io::Error::other(message));
    }
    if found > bytes {
        file.set_len(bytes)?;
        file.sync_all()?;
    }
    Ok(Some(OutputFacts {
        bytes,
        digest: hash_file(&path)?,
        dropped,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sluice_model::{Digest, Version};

    use super::super::Counters;
    use super::*;

    #[test]
    fn what_is_not_safe_is_no_part_of_it() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(close(directory.path()).unwrap(), None);
        let checkpoint = Checkpoint {
            content: Digest::of(b"spec"),
            version: Version(1),
            input: None,
            output: Some(OutputPosition::Kept {
                bytes: 4,
                dropped: 2,
            }),
            counters: Counters::default(),
        };
        checkpoint.save(directory.path()).unwrap();
        assert!(close(directory.path()).is_err(), "the file is gone");
        std::fs::write(path(directory.path()), "one\nha").unwrap();
        let facts = OutputFacts {
            bytes: 4,
            digest: Digest::of(b"one\n"),
            dropped: 2,
        };
        assert_eq!(close(directory.path()).unwrap(), Some(facts));
        assert_eq!(close(directory.path()).unwrap(), Some(facts));
        std::fs::write(path(directory.path()), "on").unwrap();
        assert!(close(directory.path()).is_err());
    }
}
