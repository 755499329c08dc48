//! The artifact cache: what specs name, by digest in `STATE_DIR/artifacts`, pulled from the orchestrator when it lacks.
//!
//! ```text
//!   HEX.wasm         a component, whole: its sha256 is its name, checked each time before it is used
//!   HEX.stdin        what a launch brought for `[input.stdin]`, likewise; gone soon after the last execution that reads it
//!   HEX.part         what has come of a component so far; a pull continues at its end, also after a crash
//!   HEX.stdin-part   the same of a stdin
//! ```
//!
//! A file's time of change says when it was last used. A clock that jumps costs a pull at most, never a running stage.
//!
//! A pull asks for one piece after the other, each as large as what comes within two seconds: on a slow link heartbeats
//! and rows never wait for more than that, however deep the queues on the way are.
//!
//! A part becomes whole by fsync, hash and rename, in this order, so that no crash leaves a wrong file under a right
//! name. Only the pull task of a digest touches its files.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use sluice_agent::ArtifactKind;
use sluice_component::COMPONENT_BYTES_MAX;
use sluice_model::{Digest, STDIN_BYTES_MAX};
use sluice_protocol::{PullReply, PullRequest, StreamRequest, stream_request};
use sluice_state_dir::failpoint;
use sluice_transport::{Reply, Session};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::error::EdgeError;

/// Read from the stream at once.
const READ_BYTES: usize = 64 * 1024;

/// How long nothing may come: longer than any link that still works is silent.
const SILENT_MAX: Duration = Duration::from_secs(30);

/// Bytes that pulling leaves free on the disk: rows, checkpoints and reports of some hundred executions.
const ROOM_LEFT_BYTES: u64 = 1024 * 1024;

/// How long a component is kept after its last use: a rollback within a week pulls nothing.
const UNNAMED_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a stdin is kept that nothing reads: a launch's bytes are hardly ever needed twice, and another try that is
/// on its way here spares its pull.
const STDIN_UNREAD_KEPT: Duration = Duration::from_secs(60);

/// The first piece of a pull, and the smallest: with two pulls at once, eight seconds at 8 kbit/s.
const PIECE_BYTES_MIN: u64 = 4 * 1024;

/// How much longer than the last a piece is at most: one that came quickly says little of how fast the link is.
const PIECE_GROWTH_MAX: u64 = 8;

/// How long a piece may take, as fast as the last one came.
const PIECE_TIME: Duration = Duration::from_secs(2);

/// How often it is told how far a pull is.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// The session that pulls go over, if one has begun.
pub(crate) type CurrentSession = watch::Receiver<Option<Session>>;

/// The cache. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Artifacts {
    directory: PathBuf,
}

impl Artifacts {
    /// Opens or makes the cache's directory.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, EdgeError> {
        let directory = state_dir.join("artifacts");
        std::fs::create_dir_all(&directory)
            .map_err(|error| EdgeError::file("make", &directory, error))?;
        Ok(Self { directory })
    }

    /// Where an artifact is once it is here.
    pub(crate) fn path(&self, kind: ArtifactKind, digest: Digest) -> PathBuf {
        self.file(digest, endings(kind).0)
    }

    fn part(&self, kind: ArtifactKind, digest: Digest) -> PathBuf {
        self.file(digest, endings(kind).1)
    }

    fn file(&self, digest: Digest, ending: &str) -> PathBuf {
        self.directory.join(format!("{}.{ending}", digest.to_hex()))
    }

    /// Makes sure that an artifact is here and whole. The error says for people why it is not. When `cancelled`, it ends
    /// soon; what has come so far stays, and is where the next pull goes on. A pull that takes long tells now and then how
    /// many bytes are here.
    pub(crate) async fn ensure(
        &self,
        kind: ArtifactKind,
        digest: Digest,
        size: u64,
        session: &CurrentSession,
        cancelled: &CancellationToken,
        tell: impl Fn(u64),
    ) -> Result<(), String> {
        let bytes_max = bytes_max(kind);
        if size > bytes_max {
            return Err(format!(
                "the {kind} {digest} has {size} bytes, the most is {bytes_max}"
            ));
        }
        let path = self.path(kind, digest);
        match blocking(move || hash_file(&path)).await {
            Ok(found) if found == digest => {
                let path = self.path(kind, digest);
                // Only a hint for the sweep.
                let _ = blocking(move || touch(&path, SystemTime::now())).await;
                return Ok(());
            }
            Ok(_) => {
                tracing::warn!(event = "artifact.damaged", %digest, "the cached file is not what it was; pulling it again");
                remove(&self.path(kind, digest)).map_err(|error| disk("remove", &error))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(disk("read", &error)),
        }
        let session = session.borrow().clone();
        let Some(session) = session else {
            return Err(format!(
                "the {kind} {digest} is not on this edge, and the orchestrator is not in reach"
            ));
        };
        self.pull(kind, digest, size, &session, cancelled, tell)
            .await?;
        tracing::info!(event = "artifact.pulled", %kind, %digest, size);
        Ok(())
    }

    async fn pull(
        &self,
        kind: ArtifactKind,
        digest: Digest,
        size: u64,
        session: &Session,
        cancelled: &CancellationToken,
        tell: impl Fn(u64),
    ) -> Result<(), String> {
        let part = self.part(kind, digest);
        let mut file = tokio::fs::File::options()
            .append(true)
            .create(true)
            .open(&part)
            .await
            .map_err(|error| disk("write", &error))?;
        let mut have = file
            .metadata()
            .await
            .map_err(|error| disk("read", &error))?
            .len();
        if have > size {
            file.set_len(0)
                .await
                .map_err(|error| disk("write", &error))?;
            have = 0;
        }
        if have < size || size == 0 {
            self.check_room(size - have)?;
            let coming = async {
                let mut piece = PIECE_BYTES_MIN;
                let mut told_at = Instant::now();
                loop {
                    let (before, begun) = (have, Instant::now());
                    let mut reply = self.ask(kind, digest, size, (have, piece), session).await?;
                    while let Some(bytes) = next(reply.read(READ_BYTES)).await? {
                        have += bytes.len() as u64;
                        if have > size {
                            break;
                        }
                        file.write_all(&bytes)
                            .await
                            .map_err(|error| disk("write", &error))?;
                    }
                    if have >= size || have == before {
                        return Ok(());
                    }
                    piece = next_piece(have - before, begun.elapsed());
                    if told_at.elapsed() >= TOLD_EVERY {
                        told_at = Instant::now();
                        tell(have);
                    }
                }
            };
            let came = tokio::select! {
                came = coming => came,
                () = cancelled.cancelled() => Err("it was given up".to_owned()),
            };
            // A write may still be under way, and the next pull must not meet it.
            file.flush().await.map_err(|error| disk("write", &error))?;
            came?;
        }
        file.flush().await.map_err(|error| disk("write", &error))?;
        file.sync_all()
            .await
            .map_err(|error| disk("write", &error))?;
        drop(file);
        if have < size {
            return Err(format!(
                "pulling the {kind} {digest} ended at {have} of {size} bytes"
            ));
        }
        let hashed = part.clone();
        let found = blocking(move || hash_file(&hashed))
            .await
            .map_err(|error| disk("read", &error))?;
        if have > size || found != digest {
            remove(&part).map_err(|error| disk("remove", &error))?;
            return Err(format!(
                "what came as the {kind} {digest} is something else; it was thrown away"
            ));
        }
        let (path, directory) = (self.path(kind, digest), self.directory.clone());
        blocking(move || {
            failpoint::reach("component", "written");
            std::fs::rename(&part, &path)?;
            File::open(&directory)?.sync_all()?;
            failpoint::reach("component", "committed");
            Ok(())
        })
        .await
        .map_err(|error| disk("write", &error))
    }

    /// An artifact must leave room for the store: with a full disk, the edge could not even say that it is full.
    fn check_room(&self, missing: u64) -> Result<(), String> {
        let facts = rustix::fs::statvfs(&self.directory)
            .map_err(|error| disk("look at the room in", &error.into()))?;
        let free = facts.f_bavail.saturating_mul(facts.f_frsize);
        if free >= missing.saturating_add(ROOM_LEFT_BYTES) {
            return Ok(());
        }
        Err(format!(
            "the disk that holds the state directory is full: {missing} bytes are still to come, and {free} are free"
        ))
    }

    async fn ask(
        &self,
        kind: ArtifactKind,
        digest: Digest,
        size: u64,
        (offset, bytes_max): (u64, u64),
        session: &Session,
    ) -> Result<Reply, String> {
        let request = StreamRequest {
            kind: Some(stream_request::Kind::Pull(PullRequest {
                digest: digest.as_bytes().to_vec(),
                offset,
                bytes_max,
            })),
        };
        let frame = sluice_protocol::encode(&request);
        let mut reply = next(session.open_request(frame)).await?;
        let frame = next(reply.recv()).await?;
        let answer: PullReply = frame
            .as_deref()
            .and_then(|frame| sluice_protocol::decode(frame).ok())
            .ok_or("the orchestrator's answer to a pull makes no sense")?;
        if let Some(reject) = answer.reject {
            return Err(format!(
                "the orchestrator does not give the {kind} {digest} ({}): {}",
                reject.code, reject.message
            ));
        }
        if answer.size != size {
            return Err(format!(
                "the {kind} {digest} should have {size} bytes, the orchestrator's has {}",
                answer.size
            ));
        }
        Ok(reply)
    }

    /// Deletes components that nothing has used for a week, and old parts of them. What a row names is in use. Blocking.
    pub(crate) fn sweep(&self, used: &BTreeSet<Digest>, now: SystemTime) -> io::Result<usize> {
        self.sweep_kind(ArtifactKind::Component, used, UNNAMED_KEPT, now)
    }

    /// Deletes stdins that nothing reads, and parts of them. Blocking.
    pub(crate) fn sweep_stdins(
        &self,
        used: &BTreeSet<Digest>,
        now: SystemTime,
    ) -> io::Result<usize> {
        self.sweep_kind(ArtifactKind::Stdin, used, STDIN_UNREAD_KEPT, now)
    }

    fn sweep_kind(
        &self,
        kind: ArtifactKind,
        used: &BTreeSet<Digest>,
        kept: Duration,
        now: SystemTime,
    ) -> io::Result<usize> {
        let used: BTreeSet<String> = used.iter().map(Digest::to_hex).collect();
        let (whole, part) = endings(kind);
        let mut swept = 0;
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((hex, ending)) = name.to_str().and_then(|name| name.rsplit_once('.')) else {
                continue;
            };
            if ending != whole && ending != part {
                continue;
            }
            if used.contains(hex) {
                // Only a hint for a later sweep; a full disk may not take it.
                let _ = touch(&entry.path(), now);
                continue;
            }
            let age = now.duration_since(entry.metadata()?.modified()?);
            if age.is_ok_and(|age| age > kept) {
                std::fs::remove_file(entry.path())?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}

/// How the names of files end: whole ones, and what has come so far.
fn endings(kind: ArtifactKind) -> (&'static str, &'static str) {
    match kind {
        ArtifactKind::Component => ("wasm", "part"),
        ArtifactKind::Stdin => ("stdin", "stdin-part"),
    }
}

/// The largest that is pulled.
fn bytes_max(kind: ArtifactKind) -> u64 {
    match kind {
        ArtifactKind::Component => COMPONENT_BYTES_MAX as u64,
        ArtifactKind::Stdin => STDIN_BYTES_MAX,
    }
}

/// How much to ask for after so many bytes came in so long.
fn next_piece(bytes: u64, took: Duration) -> u64 {
    let took_us = took.as_micros().max(1);
    let in_time = u128::from(bytes) * PIECE_TIME.as_micros() / took_us;
    let in_time = u64::try_from(in_time).unwrap_or(u64::MAX);
    in_time
        .min(bytes.saturating_mul(PIECE_GROWTH_MAX))
        .clamp(PIECE_BYTES_MIN, COMPONENT_BYTES_MAX as u64)
}

async fn next<T>(
    step: impl Future<Output = Result<T, sluice_transport::SessionError>>,
) -> Result<T, String> {
    match timeout(SILENT_MAX, step).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("pulling an artifact was cut off: {error}")),
        Err(_) => Err(format!(
            "pulling an artifact was cut off: nothing came for {SILENT_MAX:?}"
        )),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// The sha256 of a file. Blocking.
pub(crate) fn hash_file(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            let hash: [u8; 32] = hasher.finalize().into();
            return Digest::from_slice(&hash)
                .ok_or_else(|| io::Error::other("a SHA-256 has 32 bytes"));
        }
        hasher.update(&buffer[..read]);
    }
}

fn touch(path: &Path, now: SystemTime) -> io::Result<()> {
    File::open(path)?.set_modified(now)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn disk(action: &str, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::StorageFull {
        "the disk that holds the state directory is full".to_owned()
    } else {
        format!("cannot {action} a file of the artifact cache: {error}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn no_session() -> CurrentSession {
        watch::channel(None).1
    }

    #[test]
    fn a_piece_is_what_comes_in_two_seconds() {
        let seconds = Duration::from_secs;
        for (bytes, took, expected) in [
            // 8 kbit/s: the smallest one, again and again.
            (4096, seconds(4), 4096),
            (4096, seconds(60), 4096),
            (4096, seconds(1), 8192),
            (8192, seconds(2), 8192),
            // A first one says little.
            (4096, Duration::from_millis(1), 32_768),
            (4096, Duration::ZERO, 32_768),
            (1 << 60, Duration::ZERO, COMPONENT_BYTES_MAX as u64),
        ] {
            assert_eq!(next_piece(bytes, took), expected, "{bytes} in {took:?}");
        }
    }

    #[tokio::test]
    async fn case_48_a_damaged_component_is_noticed_by_its_hash() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Artifacts::open(directory.path()).unwrap();
        let digest = Digest::of(b"component");
        let error = cache
            .ensure(
                ArtifactKind::Component,
                digest,
                9,
                &no_session(),
                &CancellationToken::new(),
                |_| (),
            )
            .await
            .unwrap_err();
        assert!(error.contains("not in reach"), "{error}");
        std::fs::write(cache.path(ArtifactKind::Component, digest), b"component").unwrap();
        cache
            .ensure(
                ArtifactKind::Component,
                digest,
                9,
                &no_session(),
                &CancellationToken::new(),
                |_| (),
            )
            .await
            .unwrap();
        std::fs::write(cache.path(ArtifactKind::Component, digest), b"componenT").unwrap();
        cache
            .ensure(
                ArtifactKind::Component,
                digest,
                9,
                &no_session(),
                &CancellationToken::new(),
                |_| (),
            )
            .await
            .unwrap_err();
        assert!(
            !cache.path(ArtifactKind::Component, digest).exists(),
            "swept"
        );
        let error = cache
            .ensure(
                ArtifactKind::Component,
                digest,
                1 << 40,
                &no_session(),
                &CancellationToken::new(),
                |_| (),
            )
            .await
            .unwrap_err();
        assert!(error.contains("the most is"), "{error}");
    }

    #[test]
    fn what_was_in_use_until_now_is_kept_for_a_week_more() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Artifacts::open(directory.path()).unwrap();
        let digest = Digest::of(b"a");
        std::fs::write(cache.path(ArtifactKind::Component, digest), b"a").unwrap();
        let day = Duration::from_secs(24 * 3600);
        let mut now = SystemTime::now();
        for _ in 0..30 {
            now += day;
            assert_eq!(cache.sweep(&BTreeSet::from([digest]), now).unwrap(), 0);
        }
        for _ in 0..7 {
            now += day;
            assert_eq!(cache.sweep(&BTreeSet::new(), now).unwrap(), 0);
        }
        now += day;
        assert_eq!(cache.sweep(&BTreeSet::new(), now).unwrap(), 1);
    }

    #[tokio::test]
    async fn a_start_is_a_use() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Artifacts::open(directory.path()).unwrap();
        let digest = Digest::of(b"component");
        let path = cache.path(ArtifactKind::Component, digest);
        std::fs::write(&path, b"component").unwrap();
        let long_ago = SystemTime::now() - UNNAMED_KEPT * 2;
        touch(&path, long_ago).unwrap();
        let never = CancellationToken::new();
        cache
            .ensure(
                ArtifactKind::Component,
                digest,
                9,
                &no_session(),
                &never,
                |_| (),
            )
            .await
            .unwrap();
        let swept = cache.sweep(&BTreeSet::new(), SystemTime::now()).unwrap();
        assert!(swept == 0 && path.exists());
    }

    #[test]
    fn the_sweep_keeps_what_is_named_or_young() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Artifacts::open(directory.path()).unwrap();
        let (named, unnamed) = (Digest::of(b"a"), Digest::of(b"b"));
        for digest in [named, unnamed] {
            std::fs::write(cache.path(ArtifactKind::Component, digest), b"x").unwrap();
            std::fs::write(cache.part(ArtifactKind::Component, digest), b"x").unwrap();
        }
        let used = BTreeSet::from([named]);
        assert_eq!(cache.sweep(&used, SystemTime::now()).unwrap(), 0);
        let later = SystemTime::now() + UNNAMED_KEPT + Duration::from_secs(60);
        assert_eq!(cache.sweep(&used, later).unwrap(), 2);
        assert!(
            cache.path(ArtifactKind::Component, named).exists()
                && !cache.path(ArtifactKind::Component, unnamed).exists()
        );
    }

    #[tokio::test]
    async fn a_stdin_has_a_bound_of_its_own_and_goes_soon_after_its_last_reader() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Artifacts::open(directory.path()).unwrap();
        let stdin = ArtifactKind::Stdin;
        let (read, unread) = (Digest::of(b"read"), Digest::of(b"unread"));
        let ensure = async |digest, size| {
            let (session, never) = (no_session(), CancellationToken::new());
            cache
                .ensure(stdin, digest, size, &session, &never, |_| ())
                .await
        };
        // Larger than any component may be.
        let error = ensure(read, COMPONENT_BYTES_MAX as u64 + 1)
            .await
            .unwrap_err();
        assert!(
            error.contains("the stdin sha256:") && error.contains("not in reach"),
            "{error}"
        );
        let error = ensure(read, STDIN_BYTES_MAX + 1).await.unwrap_err();
        assert!(error.contains("the most is 268435456"), "{error}");
        for digest in [read, unread] {
            std::fs::write(cache.part(stdin, digest), b"x").unwrap();
        }
        std::fs::write(cache.path(stdin, read), b"read").unwrap();
        std::fs::write(cache.path(stdin, unread), b"unread").unwrap();
        ensure(read, 4).await.unwrap();
        let used = BTreeSet::from([read]);
        let now = SystemTime::now();
        assert_eq!(cache.sweep_stdins(&used, now).unwrap(), 0, "it is young");
        let later = now + STDIN_UNREAD_KEPT + Duration::from_secs(60);
        assert_eq!(
            cache.sweep(&BTreeSet::new(), later + UNNAMED_KEPT).unwrap(),
            0,
            "no component"
        );
        assert_eq!(cache.sweep_stdins(&used, later).unwrap(), 2);
        assert!(cache.path(stdin, read).exists() && !cache.path(stdin, unread).exists());
        let later = later + STDIN_UNREAD_KEPT + Duration::from_secs(60);
        assert_eq!(cache.sweep_stdins(&BTreeSet::new(), later).unwrap(), 2);
    }
}
