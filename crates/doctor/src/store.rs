//! Whether a SQLite store is whole. Looks at a copy: a running program has its file to itself, and one that was killed
//! left a log beside it that only the next start should bring in.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{Connection, OpenFlags};
use rustix::fs::statvfs;

use crate::Finding;

/// Largest store that is copied for a look.
const COPIED_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// What a copy leaves free: what runs on the disk meanwhile goes on for some minutes.
const ROOM_LEFT_BYTES: u64 = 64 * 1024 * 1024;

/// Tries to get a copy of a store that is being written to.
const COPIES_MAX: usize = 5;

/// Problems that are named.
const PROBLEMS_MAX: usize = 3;

/// A store that was whole, for a closer look. The copy goes away with it.
#[derive(Debug)]
pub struct StoreCopy {
    /// The copy.
    pub connection: Connection,
    _files: Temporary,
}

/// Checks the store in `dir`. `newest` is the newest format that this program knows; `mend` is the way out of a
/// damaged store.
pub fn store(dir: &Path, name: &str, newest: i64, mend: &str) -> (Finding, Option<StoreCopy>) {
    let check = "store";
    let path = dir.join(name);
    let shown = path.display();
    if let Err(error) = fs::metadata(&path) {
        let finding = if error.kind() == io::ErrorKind::NotFound {
            Finding::fail(check, format!("{shown} is not there"), mend)
        } else {
            let mend = "run this as the user that the program runs as";
            Finding::fail(check, format!("{shown} cannot be looked at: {error}"), mend)
        };
        return (finding, None);
    }
    let (files, copy) = match copy_still(dir, name) {
        Ok(Some(copied)) => copied,
        Ok(None) => {
            let seen = format!("{shown} is written to all the time, so it was not checked");
            let mend = "look again when there is less to do, or while the program is stopped";
            return (Finding::warn(check, seen, mend), None);
        }
        Err(CopyError::TooLarge) => {
            let seen = format!("{shown} has more than 2 GiB and was not checked");
            let mend = "check it with `sqlite3 FILE 'PRAGMA integrity_check'` while the program is stopped";
            return (Finding::warn(check, seen, mend), None);
        }
        Err(CopyError::Read(error)) => {
            let seen = format!("{shown} cannot be read: {error}");
            let mend = format!(
                "`chmod 600 {shown}` and `chown` it to the program's user; should the disk be at fault: {mend}"
            );
            return (Finding::fail(check, seen, mend), None);
        }
        Err(CopyError::Write(error)) => {
            let seen = format!("{shown} was not checked, there was no room for a copy: {error}");
            let mend = format!(
                "make room in {}, or set TMPDIR",
                std::env::temp_dir().display()
            );
            return (Finding::warn(check, seen, mend), None);
        }
    };
    match examine(&copy) {
        Err(error) => {
            let seen = format!("{shown} cannot be opened: {error}");
            (Finding::fail(check, seen, mend), None)
        }
        Ok(Examined { problems, .. }) if !problems.is_empty() => {
            let seen = format!("{shown} is damaged: {}", problems.join("; "));
            (Finding::fail(check, seen, mend), None)
        }
        Ok(Examined { format, .. }) if format > newest => {
            let seen = format!("{shown} has format {format}, this program knows up to {newest}");
            (
                Finding::fail(check, seen, "start the newer program again"),
                None,
            )
        }
        Ok(Examined { connection, .. }) => {
            let finding = Finding::ok(check, format!("{shown} is whole"));
            let copy = StoreCopy {
                connection,
                _files: files,
            };
            (finding, Some(copy))
        }
    }
}

struct Examined {
    connection: Connection,
    format: i64,
    problems: Vec<String>,
}

fn examine(path: &Path) -> Result<Examined, rusqlite::Error> {
    // For writing: it is a copy, and what is in its log must be brought in.
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let format = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let mut problems = Vec::new();
    {
        let mut statement = connection.prepare("PRAGMA integrity_check(3)")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let line: String = row.get(0)?;
            if line != "ok" && problems.len() < PROBLEMS_MAX {
                problems.push(line.replace('\n', " "));
            }
        }
    }
    Ok(Examined {
        connection,
        format,
        problems,
    })
}

enum CopyError {
    TooLarge,
    Read(io::Error),
    Write(io::Error),
}

/// A copy of the store and its log during which the store did not change; `None` when there was no such time.
fn copy_still(dir: &Path, name: &str) -> Result<Option<(Temporary, PathBuf)>, CopyError> {
    let from = dir.join(name);
    let log = dir.join(format!("{name}-wal"));
    for _ in 0..COPIES_MAX {
        let before = stamp(&from).map_err(CopyError::Read)?;
        let log_bytes = fs::metadata(&log).map_or(0, |facts| facts.len());
        if before.1 + log_bytes > COPIED_BYTES_MAX {
            return Err(CopyError::TooLarge);
        }
        let files = Temporary::new().map_err(CopyError::Write)?;
        check_room(&files.0, before.1 + log_bytes).map_err(CopyError::Write)?;
        let to = files.0.join("copy.db");
        copy(&from, &to)?;
        match copy(&log, &files.0.join("copy.db-wal")) {
            Err(CopyError::Read(error)) if error.kind() == io::ErrorKind::NotFound => {}
            copied => copied?,
        }
        // Commits go into the log, where half a one is nothing; only when the log is brought in does the store change.
        if stamp(&from).map_err(CopyError::Read)? == before {
            return Ok(Some((files, to)));
        }
    }
    Ok(None)
}

/// A copy must not fill the disk of a program that runs, nor the memory that a temporary directory may lie in. What
/// cannot be found out is left to the copying.
fn check_room(dir: &Path, bytes: u64) -> io::Result<()> {
    let Ok(facts) = statvfs(dir) else {
        return Ok(());
    };
    let free = facts.f_bavail.saturating_mul(facts.f_frsize);
    // Bringing the log in writes the changed pages once more.
    let wanted = bytes.saturating_mul(2).saturating_add(ROOM_LEFT_BYTES);
    if free >= wanted {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
    let message = format!("{} MiB are free, {} are needed", mib(free), mib(wanted));
    Err(io::Error::new(io::ErrorKind::StorageFull, message))
}

fn stamp(path: &Path) -> io::Result<(SystemTime, u64)> {
    let facts = fs::metadata(path)?;
    Ok((facts.modified()?, facts.len()))
}

fn copy(from: &Path, to: &Path) -> Result<(), CopyError> {
    let mut from = fs::File::open(from).map_err(CopyError::Read)?;
    let mut to = fs::File::create(to).map_err(CopyError::Write)?;
    match io::copy(&mut from, &mut to) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(CopyError::Write(error)),
        Err(error) => Err(CopyError::Read(error)),
    }
}

/// A private directory that goes away.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> io::Result<Self> {
        let nanos = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let name = format!("sluice-doctor-{}-{nanos}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Fails when somebody else made one of that name.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What stays is in the directory for what may go.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::Verdict;

    fn filled(dir: &Path) -> Connection {
        let connection = Connection::open(dir.join("a.db")).unwrap();
        connection
            .execute_batch(
                "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA user_version=1; \
                 CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT); \
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) \
                 INSERT INTO t SELECT i, hex(randomblob(50)) FROM n;",
            )
            .unwrap();
        connection
    }

    #[test]
    fn a_store_in_use_is_checked_with_its_log_and_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path();
        let live = filled(dir);
        let before: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|it| it.unwrap().file_name())
            .collect();
        let (finding, copy) = store(dir, "a.db", 1, "m");
        assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
        let copy = copy.unwrap();
        let rows: i64 = copy
            .connection
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 5000, "the log belongs to it");
        let files = copy._files.0.clone();
        drop(copy);
        assert!(!files.exists());
        let after: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|it| it.unwrap().file_name())
            .collect();
        assert_eq!(after, before);
        live.execute("INSERT INTO t (b) VALUES ('more')", [])
            .unwrap();
    }

    #[test]
    fn without_room_for_a_copy_none_is_begun() {
        let directory = tempfile::tempdir().unwrap();
        assert!(check_room(directory.path(), 1000).is_ok());
        let error = check_room(directory.path(), 1 << 60).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(error.to_string().contains("MiB are free"), "{error}");
    }

    #[test]
    fn what_is_wrong_with_a_store_is_said_with_the_way_out() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path();
        drop(filled(dir));
        let path = dir.join("a.db");
        let whole = fs::read(&path).unwrap();
        let verdict = |newest| {
            let (finding, copy) = store(dir, "a.db", newest, "the way out");
            (finding.verdict, finding.seen, finding.mend, copy.is_some())
        };
        let (found, seen, mend, _) = verdict(0);
        assert_eq!(found, Verdict::Fail);
        assert!(seen.contains("format 1"), "{seen}");
        assert_eq!(mend.unwrap(), "start the newer program again");
        let damages: [fn(&mut Vec<u8>); 4] = [
            |bytes| bytes[4096 * 3..4096 * 20].fill(0xa5),
            |bytes| bytes.truncate(bytes.len() / 2),
            |bytes| bytes[..100].fill(0),
            |bytes| bytes.truncate(10),
        ];
        for damage in damages {
            let mut bytes = whole.clone();
            damage(&mut bytes);
            fs::write(&path, &bytes).unwrap();
            let (found, seen, mend, copied) = verdict(1);
            assert_eq!(found, Verdict::Fail, "{seen}");
            assert_eq!(mend.as_deref(), Some("the way out"), "{seen}");
            assert!(!copied);
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(verdict(1).0, Verdict::Fail);
    }
}
