//! What both ends remember of a TLS session, so that the next connection needs one round trip and not two.
//!
//! ```text
//!   orchestrator                                                   edge
//!   put: 32 random bytes -> sealed session ──ticket: those bytes──> Tickets, in memory
//!   take: removed, then opened <───────ticket, and the Hello as early data──┘
//! ```
//!
//! rustls accepts early data from *stateful* sessions only, so the orchestrator keeps them, each taken once. It is asked
//! inside the handshake, on the threads of the network, so memory answers, under a lock that is held for microseconds;
//! the disk follows behind through the journal. A kill between the two can revive a session that was taken. Whoever
//! captured the packets that used it could then have them answered once more: with a Welcome that only the node can
//! read, for a session that only the node can begin. So nothing needs to wait for the disk, and a session that the disk
//! lost costs one round trip.
//!
//! A session ends with its time, with its key, and with the transport limits that it was made under: an edge that came
//! back by a session sends by the limits it remembers, and lower ones would break its connection. A resumed handshake
//! checks no certificate; that is the core's, at every Hello.

mod tickets;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::StoresServerSessions;
use sluice_model::{NodeId, UnixMs};

use crate::config::{Timing, limits_sha256};
use crate::error::TlsError;
use crate::identity::{IdentityError, NODE_URI_PREFIX};
use crate::keys::EndpointKeys;
use crate::random;

pub(crate) use tickets::Tickets;

/// Names a session; the ticket that the edge holds.
const ID_BYTES: usize = 32;

/// How long a session may wait to be used: as long as rustls tells the edge that it may.
pub(crate) const SESSION_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Sessions kept for one node: the last connection's, and that of an attempt made beside it.
pub(crate) const NODE_SESSIONS_MAX: usize = 2;

/// Sessions kept for all nodes: two for each of 16,000. One has about 1 KiB.
pub(crate) const SESSIONS_MAX: usize = 32 * 1024;

/// A session as a disk keeps it. Only the process that has the endpoint's keys can open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSession {
    /// Its name.
    pub id: [u8; ID_BYTES],
    /// Whose it is.
    pub node: NodeId,
    /// When it is of no more use.
    pub expires_at: UnixMs,
    /// The session, encrypted; its name and its end are part of what must be right.
    pub sealed: Vec<u8>,
}

/// What a disk should do so that the sessions survive a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionChange {
    /// Keep one.
    Put(KeptSession),
    /// Forget one; it may be unknown.
    Remove([u8; ID_BYTES]),
}

/// Takes each change, in order, at once and without waiting; it is called inside handshakes.
pub type Journal = Box<dyn Fn(SessionChange) + Send + Sync>;

/// The TLS sessions that an orchestrator remembers. Clones are the same.
#[derive(Clone)]
pub struct Resumptions(Arc<Shared>);

struct Shared {
    seal: LessSafeKey,
    limits: [u8; 32],
    journal: Journal,
    now: fn() -> UnixMs,
    /// Locked by the callbacks of TLS, which are synchronous; never across anything that waits.
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    sessions: HashMap<[u8; ID_BYTES], Entry>,
    /// The oldest first.
    by_age: BTreeMap<u64, [u8; ID_BYTES]>,
    by_node: BTreeMap<NodeId, Vec<u64>>,
    next_age: u64,
}

struct Entry {
    age: u64,
    node: NodeId,
    expires_at: UnixMs,
    sealed: Vec<u8>,
}

impl Resumptions {
    /// Starts with the sessions that a disk kept, the oldest first; those that cannot be opened any more are dropped.
    ///
    /// `keys` and `timing` must be the server's. `journal` hears of every change, of what is dropped here, too.
    pub fn new(
        keys: &EndpointKeys,
        timing: &Timing,
        kept: Vec<KeptSession>,
        journal: Journal,
    ) -> Result<Self, IdentityError> {
        Self::with_clock(keys, timing, kept, journal, unix_now)
    }

    pub(crate) fn with_clock(
        keys: &EndpointKeys,
        timing: &Timing,
        kept: Vec<KeptSession>,
        journal: Journal,
        now: fn() -> UnixMs,
    ) -> Result<Self, IdentityError> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &keys.session_seal())
            .map_err(|error| TlsError::new(error.to_string()))?;
        let shared = Shared {
            seal: LessSafeKey::new(key),
            limits: limits_sha256(timing)?,
            journal,
            now,
            kept: Mutex::default(),
        };
        for session in kept {
            let id = session.id;
            let opens = shared
                .open(&id, session.expires_at, session.sealed.clone())
                .is_some();
            if opens {
                shared.insert(session);
            } else {
                (shared.journal)(SessionChange::Remove(id));
            }
        }
        shared.drop_expired();
        Ok(Self(Arc::new(shared)))
    }

    /// Forgets a node's sessions: its next handshake is a full one.
    pub fn forget(&self, node: NodeId) {
        let mut kept = self.0.lock();
        for age in kept.by_node.get(&node).cloned().unwrap_or_default() {
            if let Some(id) = kept.remove_age(age) {
                (self.0.journal)(SessionChange::Remove(id));
            }
        }
    }

    /// How many sessions are remembered.
    pub fn count(&self) -> usize {
        self.0.lock().sessions.len()
    }

    pub(crate) fn storage(&self) -> Arc<dyn StoresServerSessions> {
        Arc::clone(&self.0) as Arc<dyn StoresServerSessions>
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Every change under the lock is whole before anything that could panic.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, session: KeptSession) {
        let mut kept = self.lock();
        kept.insert(session);
        for id in kept.over_bounds() {
            (self.journal)(SessionChange::Remove(id));
        }
    }

    fn drop_expired(&self) {
        let now = (self.now)();
        let mut kept = self.lock();
        while let Some((&age, id)) = kept.by_age.first_key_value()
            && kept
                .sessions
                .get(id)
                .is_none_or(|entry| entry.expires_at < now)
        {
            if let Some(id) = kept.remove_age(age) {
                (self.journal)(SessionChange::Remove(id));
            }
        }
    }

    /// What must be right besides the session itself.
    fn sealed_with(&self, id: &[u8; ID_BYTES], expires_at: UnixMs) -> Aad<[u8; 72]> {
        let mut bytes = [0; 72];
        bytes[..32].copy_from_slice(&self.limits);
        bytes[32..64].copy_from_slice(id);
        bytes[64..].copy_from_slice(&expires_at.0.to_be_bytes());
        Aad::from(bytes)
    }

    fn seal(&self, id: &[u8; ID_BYTES], expires_at: UnixMs, session: &[u8]) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = random::bytes().ok()?;
        let mut encrypted = session.to_vec();
        let with = self.sealed_with(id, expires_at);
        self.seal
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), with, &mut encrypted)
            .ok()?;
        let mut sealed = nonce.to_vec();
        sealed.append(&mut encrypted);
        Some(sealed)
    }

    fn open(&self, id: &[u8; ID_BYTES], expires_at: UnixMs, sealed: Vec<u8>) -> Option<Vec<u8>> {
        let (nonce, encrypted) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let mut encrypted = encrypted.to_vec();
        let with = self.sealed_with(id, expires_at);
        let session = self.seal.open_in_place(nonce, with, &mut encrypted).ok()?;
        Some(session.to_vec())
    }
}

impl Kept {
    fn insert(&mut self, session: KeptSession) {
        let KeptSession {
            id,
            node,
            expires_at,
            sealed,
        } = session;
        self.remove(&id);
        let age = self.next_age;
        self.next_age += 1;
        self.by_age.insert(age, id);
        self.by_node.entry(node).or_default().push(age);
        let entry = Entry {
            age,
            node,
            expires_at,
            sealed,
        };
        self.sessions.insert(id, entry);
    }

    /// Removes what is over the bounds after one more session.
    fn over_bounds(&mut self) -> Vec<[u8; ID_BYTES]> {
        let newest = self.by_age.last_key_value().map(|(_, id)| *id);
        let node = newest
            .and_then(|id| self.sessions.get(&id))
            .map(|it| it.node);
        let ages = node.and_then(|node| self.by_node.get(&node));
        let of_node = ages
            .filter(|ages| ages.len() > NODE_SESSIONS_MAX)
            .map(|ages| ages[0]);
        let mut removed: Vec<_> = of_node
            .and_then(|age| self.remove_age(age))
            .into_iter()
            .collect();
        if self.sessions.len() > SESSIONS_MAX
            && let Some((&oldest, _)) = self.by_age.first_key_value()
        {
            removed.extend(self.remove_age(oldest));
        }
        removed
    }

    fn remove_age(&mut self, age: u64) -> Option<[u8; ID_BYTES]> {
        let id = *self.by_age.get(&age)?;
        self.remove(&id);
        Some(id)
    }

    fn remove(&mut self, id: &[u8]) -> Option<Entry> {
        let entry = self.sessions.remove(id)?;
        self.by_age.remove(&entry.age);
        if let Some(ages) = self.by_node.get_mut(&entry.node) {
            ages.retain(|age| *age != entry.age);
            if ages.is_empty() {
                self.by_node.remove(&entry.node);
            }
        }
        Some(entry)
    }
}

impl StoresServerSessions for Shared {
    /// Remembers nothing of a peer without a node's certificate (a machine that joins): it then gets no ticket.
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        let (Ok(id), Some(node)) = (<[u8; ID_BYTES]>::try_from(id), node_in(&session)) else {
            return false;
        };
        self.drop_expired();
        let life_ms = i64::try_from(SESSION_LIFE.as_millis()).unwrap_or(i64::MAX);
        let expires_at = UnixMs((self.now)().0.saturating_add(life_ms));
        let Some(sealed) = self.seal(&id, expires_at, &session) else {
            return false;
        };
        let session = KeptSession {
            id,
            node,
            expires_at,
            sealed,
        };
        (self.journal)(SessionChange::Put(session.clone()));
        self.insert(session);
        true
    }

    /// Sessions are only ever taken.
    fn get(&self, _id: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        let id = <[u8; ID_BYTES]>::try_from(id).ok()?;
        let mut kept = self.lock();
        let entry = kept.remove(&id)?;
        (self.journal)(SessionChange::Remove(id));
        drop(kept);
        if entry.expires_at < (self.now)() {
            return None;
        }
        self.open(&id, entry.expires_at, entry.sealed)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resumptions").finish_non_exhaustive()
    }
}

impl fmt::Debug for Resumptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The node in the certificate that a session keeps. How rustls lays a session out is its own business, but the
/// certificate stands in it as it is, and the authority wrote the name: nothing that a peer chooses can hold a colon.
fn node_in(session: &[u8]) -> Option<NodeId> {
    let prefix = NODE_URI_PREFIX.as_bytes();
    let at = session
        .windows(prefix.len())
        .position(|window| window == prefix)?;
    let id = session
        .get(at + prefix.len()..)?
        .get(..NODE_ID_TEXT_BYTES)?;
    std::str::from_utf8(id).ok()?.parse().ok()
}

/// A UUID with hyphens.
const NODE_ID_TEXT_BYTES: usize = 36;

fn unix_now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMs(since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }))
}
