//! A program's state directory: one process at a time, private, and files that are replaced whole.
//!
//! What orchestrator and edge have in common there, and nothing else: what the files mean, their owners know. Every
//! call blocks for the disk.

pub mod failpoint;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, chmod, flock};

/// Most bytes read of a lock file: a process number has ten digits.
const HOLDER_BYTES_MAX: u64 = 64;

/// Makes the directory if it is not there, with those above it, and keeps it from everybody else: keys and records are
/// nobody else's business.
pub fn make_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    Ok(chmod(dir, Mode::RWXU)?)
}

/// The right to a state directory. The kernel takes it back when the process ends, however it does.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Why a directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("the directory is in use by {holder}")]
    InUse {
        /// Which, in words: as it wrote it down.
        holder: String,
    },
    /// The system did not let us.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
}

impl DirectoryLock {
    /// Takes the lock of a directory that exists, or says who has it.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join("lock");
        let failed = |action| {
            let path = path.clone();
            move |source| LockError::Io {
                action,
                path,
                source,
            }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Who it is only helps; the lock itself decides.
                let _ = (&file).take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "a process that has only just started".to_owned(),
                    pid => format!("process {pid}"),
                };
                return Err(LockError::InUse { holder });
            }
            Err(errno) => return Err(failed("lock")(errno.into())),
        }
        let named = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        // A full disk keeps nobody from working; the next process just cannot say who holds the lock.
        if let Err(error) = named {
            tracing::debug!(event = "lock.unnamed", %error);
        }
        Ok(Self { _file: file })
    }
}

/// Replaces a file, for its owner's eyes only: either the old or the new one is there whole, whatever happens meanwhile,
/// and the new one is on disk when this returns. Goes by way of a file beside it with `.new` at the end of its name.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    // What a process that died here left behind.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // On a full disk half a file is in everybody's way; that it stays would be no worse than what happened.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    let what = || {
        format!(
            "file {}",
            path.file_name().unwrap_or_default().to_string_lossy()
        )
    };
    failpoint::reach(&what(), "written");
    fs::rename(&temporary, path)?;
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    File::open(dir)?.sync_all()?;
    failpoint::reach(&what(), "committed");
    Ok(())
}

/// Bytes that the disk of `dir` still has for us.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let facts = rustix::fs::statvfs(dir)?;
    Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn case_69_a_second_holder_is_told_who_the_first_is() {
        let directory = tempfile::tempdir().unwrap();
        let held = DirectoryLock::take(directory.path()).unwrap();
        let error = DirectoryLock::take(directory.path()).unwrap_err();
        let pid = format!("process {}", std::process::id());
        assert!(matches!(error, LockError::InUse { holder } if holder == pid));
        drop(held);
        DirectoryLock::take(directory.path()).unwrap();
    }

    #[test]
    fn a_file_is_replaced_whole_whatever_was_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("a/state");
        make_private(&state).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state), 0o700);
        let path = state.join("keys");
        fs::write(state.join("keys.new"), "half of something longer").unwrap();
        for text in ["first", "2"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(mode(&path), 0o600);
            assert!(!state.join("keys.new").exists());
        }
        // A link that waits in the temporary's place leads nowhere.
        let victim = directory.path().join("victim");
        fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, state.join("keys.new")).unwrap();
        replace(&path, b"third").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
        assert!(replace(&state.join("away/keys"), b"x").is_err());
    }
}
