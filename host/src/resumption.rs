//! The file of TLS sessions, which lets edges come back in one round trip after this process restarted.
//!
//! ```text
//!   handshakes ──put, take──> memory (transport) ──SessionChange──> queue ──> thread ──> resumption.db
//! ```
//!
//! It is a cache with a file of its own. A handshake never waits for it: what does not fit the queue, is still in it when
//! the process dies, or cannot be written costs an edge one round trip. A damaged file, or one of another program's format,
//! is replaced by an empty one. The sessions in it are sealed; the keys are in `endpoint.keys`.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use rusqlite::{Connection, params};
use sluice_model::{NodeId, UnixMs};
use sluice_transport::identity::IdentityError;
use sluice_transport::{EndpointKeys, KeptSession, Resumptions, SessionChange, Timing};
use tracing::{debug, warn};

/// Changes that may wait for the disk: a fleet of thousands that comes back at once. Each has about 1 KiB.
const CHANGES_MAX: usize = 16 * 1024;

/// Changes in one transaction.
const BATCH_MAX: usize = 512;

/// How long another connection to the file may hold it: the thread of an orchestrator that has just stopped.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// The format that this program writes.
const FORMAT: i64 = 1;

const TABLES: &str = "
CREATE TABLE session (
    id BLOB PRIMARY KEY,
    node BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    sealed BLOB NOT NULL
) STRICT;
";

/// Opens the file and loads what it has. Its thread ends when the last handle to the sessions is gone.
pub(crate) fn open(
    path: &Path,
    keys: &EndpointKeys,
    timing: &Timing,
) -> Result<Resumptions, IdentityError> {
    let file = match SessionFile::open(path) {
        Ok(opened) => Some(opened),
        Err(error) => {
            warn!(event = "resumption.replaced", path = %path.display(), %error);
            remove(path);
            SessionFile::open(path)
                .inspect_err(
                    |error| warn!(event = "resumption.memory_only", path = %path.display(), %error),
                )
                .ok()
        }
    };
    let (kept, changes) = match file {
        Some((file, kept)) => (kept, file.spawn()),
        None => (Vec::new(), None),
    };
    debug!(event = "resumption.loaded", sessions = kept.len());
    let journal = move |change| {
        if let Some(changes) = &changes
            && let Err(TrySendError::Full(_)) = changes.try_send(change)
        {
            debug!(event = "resumption.dropped", "the disk is behind");
        }
    };
    Resumptions::new(keys, timing, kept, Box::new(journal))
}

struct SessionFile(Connection);

impl SessionFile {
    fn open(path: &Path) -> rusqlite::Result<(Self, Vec<KeptSession>)> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // What a power cut takes is a round trip.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        match connection.pragma_query_value(None, "user_version", |row| row.get(0))? {
            FORMAT => {}
            0 => connection.execute_batch(&format!(
                "BEGIN; {TABLES} PRAGMA user_version = {FORMAT}; COMMIT;"
            ))?,
            other => {
                return Err(rusqlite::Error::IntegralValueOutOfRange(0, other));
            }
        }
        let kept = load(&connection)?;
        Ok((Self(connection), kept))
    }

    /// Starts the thread; `None` when the machine gives none.
    fn spawn(self) -> Option<SyncSender<SessionChange>> {
        let (changes, waiting) = sync_channel(CHANGES_MAX);
        std::thread::Builder::new()
            .name("resumption".to_owned())
            .spawn(move || self.run(&waiting))
            .inspect_err(|error| warn!(event = "resumption.memory_only", %error))
            .ok()?;
        Some(changes)
    }

    fn run(mut self, waiting: &Receiver<SessionChange>) {
        let mut failing = false;
        while let Ok(first) = waiting.recv() {
            let mut batch = vec![first];
            batch.extend(waiting.try_iter().take(BATCH_MAX - 1));
            match self.write(&batch) {
                Ok(()) => failing = false,
                // Once for a full disk, not for each handshake on it.
                Err(error) if !failing => {
                    failing = true;
                    warn!(event = "resumption.unwritten", %error);
                }
                Err(_) => {}
            }
        }
    }

    fn write(&mut self, batch: &[SessionChange]) -> rusqlite::Result<()> {
        let transaction = self.0.transaction()?;
        for change in batch {
            match change {
                SessionChange::Put(session) => transaction
                    .prepare_cached(
                        "INSERT OR REPLACE INTO session (id, node, expires_at, sealed) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute(params![
                        session.id,
                        session.node.to_bytes(),
                        session.expires_at.0,
                        session.sealed
                    ])?,
                SessionChange::Remove(id) => transaction
                    .prepare_cached("DELETE FROM session WHERE id = ?1")?
                    .execute(params![id])?,
            };
        }
        transaction.commit()
    }
}

/// All sessions, the oldest first. Rows that make no sense are left out.
fn load(connection: &Connection) -> rusqlite::Result<Vec<KeptSession>> {
    let mut statement = connection
        .prepare("SELECT id, node, expires_at, sealed FROM session ORDER BY expires_at, rowid")?;
    let rows = statement.query_map([], |row| {
        let id: Vec<u8> = row.get(0)?;
        let node: Vec<u8> = row.get(1)?;
        let expires_at = UnixMs(row.get(2)?);
        let sealed = row.get(3)?;
        let node = NodeId::from_slice(&node);
        Ok(id.try_into().ok().zip(node).map(|(id, node)| KeptSession {
            id,
            node,
            expires_at,
            sealed,
        }))
    })?;
    rows.filter_map(Result::transpose).collect()
}

/// Removes the file and what SQLite keeps beside it.
fn remove(path: &Path) {
    for ending in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        // What cannot be removed shows when the file is opened again.
        let _ = std::fs::remove_file(PathBuf::from(name));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn session(number: u8) -> KeptSession {
        KeptSession {
            id: [number; 32],
            node: NodeId::from_random([number; 16]),
            expires_at: UnixMs(i64::from(number)),
            sealed: vec![number; 100],
        }
    }

    #[test]
    fn what_was_put_and_not_removed_is_there_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resumption.db");
        let (mut file, kept) = SessionFile::open(&path).unwrap();
        assert!(kept.is_empty());
        let changes = [
            SessionChange::Put(session(3)),
            SessionChange::Put(session(1)),
            SessionChange::Put(session(2)),
            SessionChange::Remove([3; 32]),
            SessionChange::Remove([9; 32]),
        ];
        file.write(&changes).unwrap();
        drop(file);
        let (_, kept) = SessionFile::open(&path).unwrap();
        assert_eq!(kept, [session(1), session(2)]);
    }

    #[test]
    fn the_thread_writes_all_before_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resumption.db");
        let (file, _) = SessionFile::open(&path).unwrap();
        let (changes, waiting) = sync_channel(CHANGES_MAX);
        for number in 0..200 {
            changes.send(SessionChange::Put(session(number))).unwrap();
        }
        drop(changes);
        file.run(&waiting);
        assert_eq!(SessionFile::open(&path).unwrap().1.len(), 200);
    }

    #[test]
    fn a_damaged_or_foreign_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resumption.db");
        let keys = EndpointKeys::generate().unwrap();
        std::fs::write(&path, "this is no database at all, whatever its name says").unwrap();
        assert_eq!(open(&path, &keys, &Timing::default()).unwrap().count(), 0);
        assert!(SessionFile::open(&path).is_ok());

        remove(&path);
        let newer = Connection::open(&path).unwrap();
        newer
            .pragma_update(None, "user_version", FORMAT + 1)
            .unwrap();
        drop(newer);
        assert!(SessionFile::open(&path).is_err());
        assert_eq!(open(&path, &keys, &Timing::default()).unwrap().count(), 0);
        assert!(SessionFile::open(&path).is_ok());
    }
}
