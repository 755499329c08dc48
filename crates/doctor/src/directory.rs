//! The directory itself: that it is there and private, who runs on it, and the disk below it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::Finding;

/// Less free space than this, and the next start or the next assignment may fail.
const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// Less than this is little for logs, dead letters and components of 64 MiB each.
const FREE_BYTES_FEW: u64 = 1024 * 1024 * 1024;

/// A sync that takes longer holds up every commit noticeably.
const SYNC_SLOW: Duration = Duration::from_millis(500);

/// Bytes that are written to see that writing works.
const PROBE_BYTES: usize = 4096;

/// The file that is written for it.
const PROBE: &str = "doctor.tmp";

/// Whether a program runs on a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Running {
    /// This process, as it wrote it down.
    Yes(String),
    /// None.
    No,
}

/// Who holds the directory's lock. Asks the kernel's list of locks and takes none, so that a program which starts at
/// this moment is not kept out.
pub fn running(dir: &Path) -> Running {
    let Ok(facts) = fs::metadata(dir.join("lock")) else {
        return Running::No;
    };
    let inode = format!(":{}", facts.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    // `1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF`; the device's number is not the same everywhere.
    let held = locks.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1) == Some(&"FLOCK")
            && words.get(3) == Some(&"WRITE")
            && words.get(5).is_some_and(|file| file.ends_with(&inode))
    });
    if !held {
        return Running::No;
    }
    let holder = fs::read_to_string(dir.join("lock")).unwrap_or_default();
    match holder.trim() {
        "" => Running::Yes("a process".to_owned()),
        pid => Running::Yes(format!("process {pid}")),
    }
}

/// That the directory is there, readable, and nobody else's business.
pub fn directory(dir: &Path) -> Finding {
    let check = "directory";
    let shown = dir.display();
    let facts = match fs::metadata(dir) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mend = "name the directory that the program was started with (--state-dir)";
            return Finding::fail(check, format!("{shown} is not there"), mend);
        }
        Err(error) => {
            let mend =
                format!("run this as the user that the program runs as; that one must own {shown}");
            return Finding::fail(check, format!("{shown} cannot be looked at: {error}"), mend);
        }
    };
    if !facts.is_dir() {
        let mend = "name the directory, not a file in it";
        return Finding::fail(check, format!("{shown} is no directory"), mend);
    }
    if let Err(error) = fs::read_dir(dir) {
        let mend =
            format!("`chmod 700 {shown}`, and `chown` it to the user that the program runs as");
        return Finding::fail(check, format!("{shown} cannot be read: {error}"), mend);
    }
    let mode = facts.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let seen = format!("others may look into {shown} (mode {mode:o}); there are keys in it");
        return Finding::warn(check, seen, format!("`chmod 700 {shown}`"));
    }
    match running(dir) {
        Running::Yes(who) => Finding::ok(check, format!("{shown}, in use by {who}")),
        Running::No => Finding::ok(check, format!("{shown}, not in use")),
    }
}

/// That a file with a secret can be read by its owner and by nobody else; `None` when it is not there.
pub fn private(check: &'static str, path: &Path) -> Option<Finding> {
    let shown = path.display();
    let facts = fs::metadata(path).ok()?;
    if let Err(error) = File::open(path) {
        let mend =
            format!("`chmod 600 {shown}`, and `chown` it to the user that the program runs as");
        return Some(Finding::fail(
            check,
            format!("{shown} cannot be read: {error}"),
            mend,
        ));
    }
    let mode = facts.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        let seen = format!("others may read {shown} (mode {mode:o})");
        Finding::warn(check, seen, format!("`chmod 600 {shown}`"))
    })
}

/// That there is room, and that what is written reaches the disk.
pub fn disk(dir: &Path) -> Vec<Finding> {
    vec![space(dir), writing(dir)]
}

fn space(dir: &Path) -> Finding {
    let check = "disk-space";
    let facts = match statvfs(dir) {
        Ok(facts) => facts,
        Err(error) => {
            let mend = "see that the disk is mounted";
            return Finding::fail(check, format!("the disk does not answer: {error}"), mend);
        }
    };
    if facts.f_flag.contains(StatVfsMountFlags::RDONLY) {
        let mend =
            "see in `dmesg` why the system made it read-only, mend that, and mount it for writing";
        return Finding::fail(check, "the disk is mounted read-only", mend);
    }
    let free = facts.f_bavail.saturating_mul(facts.f_frsize);
    let seen = format!("{} MiB are free", free / (1024 * 1024));
    let mend = format!("make room on the disk of {}", dir.display());
    if facts.f_files > 0 && facts.f_favail == 0 {
        return Finding::fail(
            check,
            "the disk has no room for another file (inodes)",
            mend,
        );
    }
    match free {
        0..FREE_BYTES_MIN => Finding::fail(check, seen, mend),
        FREE_BYTES_MIN..FREE_BYTES_FEW => Finding::warn(check, seen, mend),
        _ => Finding::ok(check, seen),
    }
}

fn writing(dir: &Path) -> Finding {
    let check = "disk-write";
    let path = dir.join(PROBE);
    let begun = Instant::now();
    let written = write_probe(&path);
    let took = begun.elapsed();
    // Not there when it could not be made.
    let _ = fs::remove_file(&path);
    match written {
        Ok(()) if took > SYNC_SLOW => {
            let seen = format!("writing and syncing 4 KiB took {} ms", took.as_millis());
            let mend = "look for what else uses the disk, or for a disk that is about to fail (`smartctl -a`)";
            Finding::warn(check, seen, mend)
        }
        Ok(()) => Finding::ok(
            check,
            format!("4 KiB were written and synced in {} ms", took.as_millis()),
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let shown = dir.display();
            let mend = format!(
                "run this as the user that the program runs as; that one must own {shown} (mode 700)"
            );
            Finding::fail(
                check,
                format!("nothing can be written into {shown}: {error}"),
                mend,
            )
        }
        Err(error) => {
            let mend = "make room, or see in `dmesg` what is wrong with the disk";
            Finding::fail(check, format!("nothing can be written: {error}"), mend)
        }
    }
}

fn write_probe(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&[0; PROBE_BYTES])?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rustix::fs::{FlockOperation, flock};

    use super::*;
    use crate::Verdict;

    #[test]
    fn a_lock_is_seen_and_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(running(directory.path()), Running::No);
        let file = File::create(directory.path().join("lock")).unwrap();
        assert_eq!(running(directory.path()), Running::No);
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        (&file).write_all(b"77\n").unwrap();
        assert_eq!(
            running(directory.path()),
            Running::Yes("process 77".to_owned())
        );
        drop(file);
        assert_eq!(running(directory.path()), Running::No);
    }

    #[test]
    fn rights_are_looked_at_and_the_probe_goes_away() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap()
        };
        set(dir, 0o700);
        assert_eq!(super::directory(dir).verdict, Verdict::Ok);
        set(dir, 0o755);
        let finding = super::directory(dir);
        assert_eq!(finding.verdict, Verdict::Warn);
        assert!(finding.mend.unwrap().contains("chmod 700"));
        assert_eq!(super::directory(&dir.join("away")).verdict, Verdict::Fail);
        let key = dir.join("key.pem");
        assert_eq!(private("key", &key), None);
        fs::write(&key, "secret").unwrap();
        set(&key, 0o644);
        assert_eq!(private("key", &key).unwrap().verdict, Verdict::Warn);
        set(&key, 0o600);
        assert_eq!(private("key", &key), None);
        assert_eq!(writing(dir).verdict, Verdict::Ok);
        assert!(!dir.join(PROBE).exists());
        assert_eq!(writing(&dir.join("away")).verdict, Verdict::Fail);
    }
}
