//! The orchestrator's components: one directory, content-addressed.
//!
//! ```text
//! DIR/<64 hex>.wasm         the component; its name is the sha256 of its bytes
//! DIR/<64 hex>.json         what the inspection found in it; written first, made again when missing
//! DIR/partial-<n>           an upload that has not ended; swept at start
//! ```
//!
//! A file gets its final name only after its bytes were hashed, inspected and fsynced, so whatever has one is a whole
//! component that an edge can instantiate. Nothing here knows jobs or rows: whoever deletes says what to keep.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use sluice_api::{ARTIFACT_BYTES_MAX, ArtifactInfo, ErrorBody, ErrorCode};
use sluice_component::{GrantSet, check_imports, check_stage, inspect};
use sluice_model::Digest;
use sluice_state_dir::failpoint;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Uploads that run at once; more wait. Each holds a file and at its end up to 64 MiB of memory.
const UPLOADS_MAX: usize = 4;

const PARTIAL_PREFIX: &str = "partial-";

/// The store. Cheap to clone; all methods may run at once.
#[derive(Clone, Debug)]
pub struct Artifacts {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    uploads: Arc<Semaphore>,
    next_partial: AtomicU64,
}

/// What can go wrong with a component.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Nobody uploaded it.
    #[error("there is no component {digest}; deploy the pipeline that uses it, which uploads it")]
    NotFound {
        /// Which.
        digest: Digest,
    },
    /// More bytes than a component may have.
    #[error(
        "the component has more than {ARTIFACT_BYTES_MAX} bytes (64 MiB); build it with optimisation and without debug information"
    )]
    TooLarge,
    /// The bytes are not what they were said to be.
    #[error(
        "the bytes that arrived are {actual}, not {named}; the file changed meanwhile or the transfer was damaged, so try again"
    )]
    Mismatch {
        /// What the upload was to be.
        named: Digest,
        /// What came.
        actual: Digest,
    },
    /// Not a stage that an edge could run.
    #[error("{digest} is refused: {}", problems.join("; "))]
    Refused {
        /// Which.
        digest: Digest,
        /// Everything that is wrong with it.
        problems: Vec<String>,
    },
    /// A reader asked for bytes behind the end.
    #[error("{digest} has {size} bytes, so it cannot be read from {offset}")]
    BadOffset {
        /// Which.
        digest: Digest,
        /// Asked for.
        offset: u64,
        /// There.
        size: u64,
    },
    /// No room.
    #[error("the orchestrator's disk is full: free some space below {}, then try again", dir.display())]
    DiskFull {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The file system did not do it.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
}

impl From<ArtifactError> for ErrorBody {
    fn from(error: ArtifactError) -> Self {
        let code = match &error {
            ArtifactError::NotFound { .. } => ErrorCode::NotFound,
            ArtifactError::TooLarge => ErrorCode::TooLarge,
            ArtifactError::Mismatch { .. }
            | ArtifactError::Refused { .. }
            | ArtifactError::BadOffset { .. } => ErrorCode::Invalid,
            ArtifactError::DiskFull { .. } => ErrorCode::DiskFull,
            ArtifactError::Io { .. } => ErrorCode::Internal,
        };
        let body = Self::new(code, error.to_string());
        match &error {
            ArtifactError::Io { source, .. } => body.with_detail(source.to_string()),
            _ => body,
        }
    }
}

impl Artifacts {
    /// Opens the store, making `dir` when it is missing and removing what interrupted uploads left. Blocking, short.
    pub fn open(dir: &Path) -> Result<Self, ArtifactError> {
        let shared = Shared {
            dir: dir.to_owned(),
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
            next_partial: AtomicU64::new(0),
        };
        std::fs::create_dir_all(dir).map_err(|error| shared.io("make", dir, error))?;
        for entry in std::fs::read_dir(dir).map_err(|error| shared.io("list", dir, error))? {
            let entry = entry.map_err(|error| shared.io("list", dir, error))?;
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with(PARTIAL_PREFIX)
            {
                let path = entry.path();
                std::fs::remove_file(&path).map_err(|error| shared.io("remove", &path, error))?;
            }
        }
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Whether the component is here. One that is asked for counts as new from now on, so that a sweep leaves it for the
    /// deploy that is about to name it.
    pub async fn has(&self, digest: Digest) -> Result<bool, ArtifactError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let path = shared.component(digest);
            let touched = std::fs::File::options()
                .append(true)
                .open(&path)
                .and_then(|file| file.set_modified(SystemTime::now()));
            match touched {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(shared.io("look for", &path, error)),
            }
        })
        .await
    }

    /// Those that are not here, in the order asked, each once.
    pub async fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, ArtifactError> {
        let mut missing = Vec::new();
        for &digest in digests {
            if !missing.contains(&digest) && !self.has(digest).await? {
                missing.push(digest);
            }
        }
        Ok(missing)
    }

    /// What is known of one component.
    pub async fn info(&self, digest: Digest) -> Result<ArtifactInfo, ArtifactError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.info(digest)).await
    }

    /// Everything that is here, by digest.
    pub async fn list(&self) -> Result<Vec<ArtifactInfo>, ArtifactError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let digests = shared.digests()?;
            digests
                .into_iter()
                .map(|digest| shared.info(digest))
                .collect()
        })
        .await
    }

    /// The component's file, positioned at `offset`, and its whole size. Stays readable when swept meanwhile.
    pub async fn open_at(
        &self,
        digest: Digest,
        offset: u64,
    ) -> Result<(tokio::fs::File, u64), ArtifactError> {
        let path = self.shared.component(digest);
        let failed = |doing| {
            let (shared, path) = (Arc::clone(&self.shared), path.clone());
            move |error| shared.io(doing, &path, error)
        };
        let mut file = match tokio::fs::File::open(&path).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ArtifactError::NotFound { digest });
            }
            Err(error) => return Err(failed("open")(error)),
        };
        let size = file.metadata().await.map_err(failed("read"))?.len();
        if offset > size {
            return Err(ArtifactError::BadOffset {
                digest,
                offset,
                size,
            });
        }
        file.seek(io::SeekFrom::Start(offset))
            .await
            .map_err(failed("read"))?;
        Ok((file, size))
    }

    /// Starts an upload of what is said to be `digest`; waits while [`UPLOADS_MAX`] others run.
    pub async fn begin_upload(&self, digest: Digest) -> Result<Upload, ArtifactError> {
        let permit = Arc::clone(&self.shared.uploads)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let number = self.shared.next_partial.fetch_add(1, Ordering::Relaxed);
        let path = self.shared.dir.join(format!("{PARTIAL_PREFIX}{number}"));
        let file = tokio::fs::File::create_new(&path)
            .await
            .map_err(|error| self.shared.io("make", &path, error))?;
        Ok(Upload {
            shared: Arc::clone(&self.shared),
            digest,
            partial: Partial(path),
            file,
            hasher: Sha256::new(),
            bytes: 0,
            _permit: permit,
        })
    }

    /// Deletes what is not in `keep` and has been here for `age_min`; returns how many. The age protects what was just
    /// uploaded for a deploy that has not come yet.
    pub async fn sweep(
        &self,
        keep: BTreeSet<Digest>,
        age_min: Duration,
    ) -> Result<usize, ArtifactError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let mut swept = 0;
            for digest in shared.digests()? {
                let path = shared.component(digest);
                let is_old = std::fs::metadata(&path)
                    .and_then(|facts| facts.modified())
                    .map_err(|error| shared.io("read", &path, error))?
                    .elapsed()
                    .is_ok_and(|age| age >= age_min);
                if keep.contains(&digest) || !is_old {
                    continue;
                }
                std::fs::remove_file(&path).map_err(|error| shared.io("remove", &path, error))?;
                // Without its component the sidecar means nothing; one that stays is written over.
                let _ = std::fs::remove_file(shared.sidecar(digest));
                swept += 1;
            }
            Ok(swept)
        })
        .await
    }
}

/// An upload under way. Dropping it takes back what was written.
#[derive(Debug)]
pub struct Upload {
    shared: Arc<Shared>,
    digest: Digest,
    partial: Partial,
    file: tokio::fs::File,
    hasher: Sha256,
    bytes: u64,
    _permit: OwnedSemaphorePermit,
}

impl Upload {
    /// Adds bytes.
    pub async fn write(&mut self, chunk: &[u8]) -> Result<(), ArtifactError> {
        self.bytes += chunk.len() as u64;
        if self.bytes > ARTIFACT_BYTES_MAX {
            return Err(ArtifactError::TooLarge);
        }
        self.hasher.update(chunk);
        self.file
            .write_all(chunk)
            .await
            .map_err(|error| self.shared.io("write", &self.partial.0, error))
    }

    /// Checks the whole and, when it is a component that edges can run, keeps it: durable on return.
    pub async fn finish(mut self) -> Result<ArtifactInfo, ArtifactError> {
        let actual = Digest::from_slice(&self.hasher.finalize()).expect("a sha256 has 32 bytes");
        if actual != self.digest {
            return Err(ArtifactError::Mismatch {
                named: self.digest,
                actual,
            });
        }
        let synced = match self.file.flush().await {
            Ok(()) => self.file.sync_all().await,
            Err(error) => Err(error),
        };
        synced.map_err(|error| self.shared.io("write", &self.partial.0, error))?;
        let (shared, partial, digest) = (self.shared, self.partial, self.digest);
        blocking(move || shared.accept(digest, &partial.0)).await
    }
}

/// A file that goes away unless it was renamed.
#[derive(Debug)]
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already after an accepted upload; what else stays is swept at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Shared {
    fn component(&self, digest: Digest) -> PathBuf {
        self.dir.join(format!("{}.wasm", digest.to_hex()))
    }

    fn sidecar(&self, digest: Digest) -> PathBuf {
        self.dir.join(format!("{}.json", digest.to_hex()))
    }

    fn digests(&self) -> Result<Vec<Digest>, ArtifactError> {
        let failed = |error| self.io("list", &self.dir, error);
        let mut digests = BTreeSet::new();
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let hex = name.to_str().and_then(|name| name.strip_suffix(".wasm"));
            // A file that we did not name is somebody else's.
            digests.extend(hex.and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok()));
        }
        Ok(digests.into_iter().collect())
    }

    fn accept(&self, digest: Digest, partial: &Path) -> Result<ArtifactInfo, ArtifactError> {
        let info = self.inspect(digest, partial)?;
        self.write_sidecar(&info)?;
        let path = self.component(digest);
        failpoint::reach("upload", "written");
        std::fs::rename(partial, &path).map_err(|error| self.io("rename", partial, error))?;
        std::fs::File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| self.io("sync", &self.dir, error))?;
        failpoint::reach("upload", "committed");
        Ok(info)
    }

    /// What the file at `path` holds, or why it is no stage.
    fn inspect(&self, digest: Digest, path: &Path) -> Result<ArtifactInfo, ArtifactError> {
        let bytes = std::fs::read(path).map_err(|error| self.io("read", path, error))?;
        let refused = |problems| ArtifactError::Refused { digest, problems };
        let found = inspect(&bytes).map_err(|error| refused(vec![error.to_string()]))?;
        let world = check_stage(&found).map_err(|problem| refused(vec![problem.to_string()]))?;
        check_imports(&found, &GrantSet::none())
            .map_err(|problems| refused(problems.iter().map(ToString::to_string).collect()))?;
        let imports: BTreeSet<_> = found
            .imports
            .into_iter()
            .map(|import| import.name)
            .collect();
        Ok(ArtifactInfo {
            digest,
            size: bytes.len() as u64,
            imports: imports.into_iter().collect(),
            world: world.to_string(),
        })
    }

    fn info(&self, digest: Digest) -> Result<ArtifactInfo, ArtifactError> {
        let path = self.component(digest);
        let size = match std::fs::metadata(&path) {
            Ok(facts) => facts.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ArtifactError::NotFound { digest });
            }
            Err(error) => return Err(self.io("read", &path, error)),
        };
        let noted = std::fs::read(self.sidecar(digest))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<ArtifactInfo>(&bytes).ok())
            .filter(|info| info.digest == digest && info.size == size);
        match noted {
            Some(info) => Ok(info),
            None => {
                let info = self.inspect(digest, &path)?;
                self.write_sidecar(&info)?;
                Ok(info)
            }
        }
    }

    /// Not synced: one that is cut off does not parse and is made again.
    fn write_sidecar(&self, info: &ArtifactInfo) -> Result<(), ArtifactError> {
        let path = self.sidecar(info.digest);
        let json = serde_json::to_vec(info).expect("strings and numbers always encode");
        std::fs::File::create(&path)
            .and_then(|mut file| file.write_all(&json))
            .map_err(|error| self.io("write", &path, error))
    }

    fn io(&self, doing: &'static str, path: &Path, source: io::Error) -> ArtifactError {
        if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            let dir = self.dir.clone();
            return ArtifactError::DiskFull { dir };
        }
        ArtifactError::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // A panic is a bug of ours and goes on where it can be seen; a cancelled task belongs to a runtime that ends.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ArtifactError::Io {
                doing: "finish work on",
                path: PathBuf::from("the artifact store"),
                source: io::ErrorKind::Interrupted.into(),
            }),
        },
    }
}

#[cfg(test)]
pub(crate) mod tests;
