//! One process for one state directory: an advisory lock that the kernel lets go when the process ends, however it does.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::error::EdgeError;

/// Held for as long as the edge runs.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock, or says who has it.
    pub(crate) fn take(state_dir: &Path) -> Result<Self, EdgeError> {
        let path = state_dir.join("lock");
        let failed = |source| EdgeError::file("open", &path, source);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Who it is only helps; the lock itself decides.
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "a process that has only just started".to_owned(),
                    pid => format!("process {pid}"),
                };
                let path = state_dir.to_owned();
                return Err(EdgeError::InUse { path, holder });
            }
            Err(errno) => return Err(EdgeError::file("lock", &path, errno.into())),
        }
        let named = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        // A full disk keeps nobody from working; the next process just cannot say who holds the lock.
        if let Err(error) = named {
            tracing::debug!(event = "edge.lock_unnamed", %error);
        }
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn case_69_a_second_holder_is_told_who_the_first_is() {
        let directory = tempfile::tempdir().unwrap();
        let held = DirectoryLock::take(directory.path()).unwrap();
        let error = DirectoryLock::take(directory.path()).unwrap_err();
        let pid = format!("process {}", std::process::id());
        assert!(error.to_string().contains(&pid), "{error}");
        drop(held);
        DirectoryLock::take(directory.path()).unwrap();
    }
}
