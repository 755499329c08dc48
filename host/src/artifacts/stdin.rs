//! What launches bring for `[input.stdin]`: bytes by digest, beside the components, never looked into.
//!
//! They are uploaded before the launch that names them, and stay while a task is open that reads them: what was just
//! uploaded, or just asked for by a launch, is protected by its age, as components are.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluice_api::StdinInfo;
use sluice_model::{Digest, STDIN_BYTES_MAX};
use sluice_state_dir::free_bytes;

use super::{ArtifactError, Artifacts, Receive, Shared, Upload, Whole, blocking};

/// Uploads that run at once; more wait. They may be slow, and must not hold up deploys, which have turns of their own.
pub(super) const UPLOADS_MAX: usize = 4;

/// Most bytes of all that is kept, up to [`UPLOADS_MAX`] uploads more while they come: thirty of the largest, which a small
/// server has beside everything else.
const KEPT_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;

/// Bytes that uploads leave free on the disk: a launch can come later, while a store without room takes no report.
const ROOM_LEFT_BYTES: u64 = 64 * 1024 * 1024;

/// How the name of a stdin's file ends.
const ENDING: &str = ".stdin";

impl Artifacts {
    /// The size of a stdin, when it is here. One that is asked for counts as new from now on, so that a sweep leaves it for
    /// the launch that is about to name it.
    pub async fn stdin_bytes(&self, digest: Digest) -> Result<Option<u64>, ArtifactError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.touch(&shared.stdin(digest))).await
    }

    /// Starts the upload of what is said to be `digest`; waits while [`UPLOADS_MAX`] others run.
    pub async fn begin_stdin(&self, digest: Digest) -> Result<StdinUpload, ArtifactError> {
        let upload = self.begin(digest, &self.shared.stdin_uploads).await?;
        let shared = Arc::clone(&self.shared);
        let room = blocking(move || shared.room_beside(digest, KEPT_BYTES_MAX)).await?;
        Ok(StdinUpload { upload, room })
    }

    /// Deletes the stdins that are not in `keep` and have been here for `age_min`; returns how many.
    pub async fn sweep_stdins(
        &self,
        keep: BTreeSet<Digest>,
        age_min: Duration,
    ) -> Result<usize, ArtifactError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.sweep(ENDING, &keep, age_min, |_| {})).await
    }
}

/// Room for one more stdin.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// Bytes that there is room for.
    left: u64,
    /// Bytes of the others.
    kept: u64,
    /// Bytes that there may be.
    max: u64,
}

/// The upload of a stdin.
#[derive(Debug)]
pub struct StdinUpload {
    upload: Upload,
    room: Room,
}

impl Receive for StdinUpload {
    type Kept = StdinInfo;

    async fn write(&mut self, chunk: &[u8]) -> Result<(), ArtifactError> {
        let bytes = self.upload.bytes + chunk.len() as u64;
        if bytes > STDIN_BYTES_MAX {
            return Err(ArtifactError::StdinTooLarge);
        }
        let Room { left, kept, max } = self.room;
        if bytes > left {
            return Err(ArtifactError::StdinsFull { kept, max });
        }
        self.upload.append(chunk).await
    }

    async fn finish(self) -> Result<StdinInfo, ArtifactError> {
        let Whole {
            shared,
            digest,
            partial,
            bytes,
        } = self.upload.whole().await?;
        blocking(move || {
            shared.name(&partial.0, &shared.stdin(digest))?;
            Ok(StdinInfo {
                digest,
                size: bytes,
            })
        })
        .await
    }
}

impl Shared {
    pub(super) fn stdin(&self, digest: Digest) -> PathBuf {
        self.file(digest, ENDING)
    }

    /// How much room `digest` has beside the others.
    fn room_beside(&self, digest: Digest, max: u64) -> Result<Room, ArtifactError> {
        let mut kept = 0_u64;
        for other in self.digests(ENDING)? {
            if other == digest {
                continue;
            }
            let path = self.stdin(other);
            match std::fs::metadata(&path) {
                Ok(facts) => kept = kept.saturating_add(facts.len()),
                // Swept meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.io("read", &path, error)),
            }
        }
        let free = free_bytes(&self.dir).map_err(|error| self.io("look at", &self.dir, error))?;
        let left = max
            .saturating_sub(kept)
            .min(free.saturating_sub(ROOM_LEFT_BYTES));
        Ok(Room { left, kept, max })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::AsyncReadExt as _;

    use super::*;

    async fn keep(store: &Artifacts, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let mut upload = store.begin_stdin(digest).await.unwrap();
        for chunk in bytes.chunks(3) {
            upload.write(chunk).await.unwrap();
        }
        let info = upload.finish().await.unwrap();
        assert_eq!((info.digest, info.size), (digest, bytes.len() as u64));
        digest
    }

    #[tokio::test]
    async fn bytes_are_kept_as_they_came_and_are_no_component() {
        let dir = tempfile::tempdir().unwrap();
        let store = Artifacts::open(dir.path()).unwrap();
        let bytes = b"no component\nat all";
        let digest = keep(&store, bytes).await;
        let empty = keep(&store, b"").await;
        assert_eq!(store.stdin_bytes(digest).await.unwrap(), Some(19));
        assert_eq!(store.stdin_bytes(empty).await.unwrap(), Some(0));
        assert_eq!(store.stdin_bytes(Digest::of(b"x")).await.unwrap(), None);
        assert_eq!(store.digests().await.unwrap(), []);
        assert!(!store.has(digest).await.unwrap());
        let (mut file, size) = store.open_at(digest, 3).await.unwrap();
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).await.unwrap();
        assert_eq!((rest.as_slice(), size), (&bytes[3..], 19));
        let gone = store.open_at(Digest::of(b"x"), 0).await;
        assert!(matches!(gone, Err(ArtifactError::Gone { .. })));

        let wrong = store.begin_stdin(Digest::of(b"other")).await.unwrap();
        let wrong = wrong.finish().await;
        assert!(matches!(wrong, Err(ArtifactError::Mismatch { .. })));
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 2, "nothing of it stays");
    }

    #[tokio::test]
    async fn a_sweep_takes_what_no_open_run_names_and_nothing_young() {
        let dir = tempfile::tempdir().unwrap();
        let store = Artifacts::open(dir.path()).unwrap();
        let (named, unnamed) = (keep(&store, b"a").await, keep(&store, b"b").await);
        let hour = Duration::from_secs(3600);
        let keep_named = BTreeSet::from([named]);
        let swept = store.sweep_stdins(keep_named.clone(), hour).await;
        assert_eq!(swept.unwrap(), 0, "their launch may be on its way");
        let swept = store.sweep(BTreeSet::new(), Duration::ZERO).await.unwrap();
        assert_eq!(swept, 0, "no component is there");
        let long_ago = std::time::SystemTime::now() - hour * 2;
        for digest in [named, unnamed] {
            let file = std::fs::File::options()
                .append(true)
                .open(store.shared.stdin(digest));
            file.unwrap().set_modified(long_ago).unwrap();
        }
        assert_eq!(store.sweep_stdins(keep_named, hour).await.unwrap(), 1);
        assert_eq!(store.stdin_bytes(unnamed).await.unwrap(), None);
        // Asking made it young.
        assert_eq!(store.stdin_bytes(named).await.unwrap(), Some(1));
        assert_eq!(store.sweep_stdins(BTreeSet::new(), hour).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_is_too_large_alone_or_together_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Artifacts::open(dir.path()).unwrap();
        let mut upload = store.begin_stdin(Digest::of(b"")).await.unwrap();
        upload.upload.bytes = STDIN_BYTES_MAX;
        let refused = upload.write(b"x").await;
        assert!(matches!(refused, Err(ArtifactError::StdinTooLarge)));
        drop(upload);

        let first = keep(&store, b"0123456789").await;
        let room = |digest| store.shared.room_beside(digest, 15).unwrap();
        assert_eq!(room(first).left, 15, "it takes its own place");
        let room = room(Digest::of(b"other"));
        assert_eq!((room.left, room.kept), (5, 10));
        let mut upload = store.begin_stdin(Digest::of(b"012345")).await.unwrap();
        upload.room = room;
        upload.write(b"01234").await.unwrap();
        let refused = upload.write(b"5").await;
        let full = matches!(
            refused,
            Err(ArtifactError::StdinsFull { kept: 10, max: 15 })
        );
        assert!(full, "{refused:?}");
        drop(upload);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
