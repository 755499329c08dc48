//! The orchestrator's components, and what launches bring as stdin ([`stdin`]): one directory, content-addressed.
//!
//! ```text
//! DIR/<64 hex>.wasm         the component; its name is the sha256 of its bytes
//! DIR/<64 hex>.json         what the inspection found in it, who brought it; written first, made again when missing
//! DIR/<64 hex>.stdin        what launches brought, as it came
//! DIR/partial-<n>           an upload that has not ended; swept at start
//! ```
//!
//! A file gets its final name only after its bytes were hashed, inspected and fsynced, so whatever has one is a whole
//! component that an edge can instantiate. Nothing here knows jobs or rows: whoever deletes says what to keep.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sluice_api::{ARTIFACT_BYTES_MAX, ArtifactInfo, ErrorBody, ErrorCode};
use sluice_component::{GrantSet, check_imports, check_stage, inspect};
use sluice_model::{Digest, STDIN_BYTES_MAX, UnixMs};
use sluice_state_dir::failpoint;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

mod stdin;

pub use stdin::StdinUpload;

/// Uploads that run at once; more wait. Each holds a file and at its end up to 64 MiB of memory.
const UPLOADS_MAX: usize = 4;

const PARTIAL_PREFIX: &str = "partial-";

/// How the name of a component's file ends.
const COMPONENT: &str = ".wasm";

/// How the name of the file ends that says what was found in it.
const SIDECAR: &str = ".json";

/// The store. Cheap to clone; all methods may run at once.
#[derive(Clone, Debug)]
pub struct Artifacts {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    uploads: Arc<Semaphore>,
    stdin_uploads: Arc<Semaphore>,
    next_partial: AtomicU64,
    /// Held while a file gets its name, is made young, or is found old and removed: none is removed that somebody has just
    /// asked for. Held for a few system calls, on threads that may block.
    names: Mutex<()>,
}

/// What is known of one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// What an upload answers.
    #[serde(flatten)]
    pub info: ArtifactInfo,
    /// What it exports; ordered.
    pub exports: Vec<String>,
    /// When it was uploaded first; `None` when that was lost.
    pub uploaded_at: Option<UnixMs>,
    /// Who uploaded it first; `None` when that was lost, or nobody was named.
    pub uploaded_by: Option<String>,
}

/// What can go wrong with a component, or with what a launch brings.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Nobody uploaded it.
    #[error("there is no component {digest}; deploy the pipeline that uses it, which uploads it")]
    NotFound {
        /// Which.
        digest: Digest,
    },
    /// Nothing of this name is here, neither a component nor a stdin.
    #[error("{digest} is not here any more; what names it must be deployed or launched again")]
    Gone {
        /// Which.
        digest: Digest,
    },
    /// More bytes than a launch may bring.
    #[error(
        "a launch brings at most {STDIN_BYTES_MAX} bytes (256 MiB) as stdin; put what is larger into a file on the edge, and \
         read it with `[input.file]`"
    )]
    StdinTooLarge,
    /// No room among what launches brought.
    #[error(
        "what launches brought as stdin has {kept} bytes, and the orchestrator keeps at most {max} of them, as far as its disk \
         has room; they go within two hours after their runs have ended, so try again later, or call runs off"
    )]
    StdinsFull {
        /// How much is kept.
        kept: u64,
        /// How much there may be.
        max: u64,
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
            ArtifactError::NotFound { .. } | ArtifactError::Gone { .. } => ErrorCode::NotFound,
            ArtifactError::TooLarge | ArtifactError::StdinTooLarge => ErrorCode::TooLarge,
            ArtifactError::StdinsFull { .. } => ErrorCode::Unavailable,
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
            stdin_uploads: Arc::new(Semaphore::new(stdin::UPLOADS_MAX)),
            next_partial: AtomicU64::new(0),
            names: Mutex::new(()),
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
        blocking(move || Ok(shared.touch(&shared.component(digest))?.is_some())).await
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

    /// What is to be said of one component.
    pub async fn info(&self, digest: Digest) -> Result<ArtifactInfo, ArtifactError> {
        Ok(self.noted(digest).await?.info)
    }

    /// All that is known of one component.
    pub async fn noted(&self, digest: Digest) -> Result<Noted, ArtifactError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.noted(digest)).await
    }

    /// The components that are here, in order.
    pub async fn digests(&self) -> Result<Vec<Digest>, ArtifactError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.digests(COMPONENT)).await
    }

    /// The file of a component or a stdin, positioned at `offset`, and its whole size. Stays readable when swept meanwhile.
    pub async fn open_at(
        &self,
        digest: Digest,
        offset: u64,
    ) -> Result<(tokio::fs::File, u64), ArtifactError> {
        let mut path = self.shared.component(digest);
        let mut opened = tokio::fs::File::open(&path).await;
        let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        if opened.as_ref().is_err_and(is_missing) {
            path = self.shared.stdin(digest);
            opened = tokio::fs::File::open(&path).await;
        }
        let failed = |doing| {
            let (shared, path) = (Arc::clone(&self.shared), path.clone());
            move |error| shared.io(doing, &path, error)
        };
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Err(ArtifactError::Gone { digest }),
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

    /// Starts an upload of what is said to be `digest`, noting by whom; waits while [`UPLOADS_MAX`] others run.
    pub async fn begin_upload(
        &self,
        digest: Digest,
        by: Option<&str>,
    ) -> Result<Upload, ArtifactError> {
        let mut upload = self.begin(digest, &self.shared.uploads).await?;
        upload.by = by.map(str::to_owned);
        Ok(upload)
    }

    async fn begin(&self, digest: Digest, turns: &Arc<Semaphore>) -> Result<Upload, ArtifactError> {
        let permit = Arc::clone(turns)
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
            by: None,
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
            shared.sweep(COMPONENT, &keep, age_min, |digest| {
                // Without its component the sidecar means nothing; one that stays is written over.
                let _ = std::fs::remove_file(shared.sidecar(digest));
            })
        })
        .await
    }
}

/// An upload under way, of either sort. Dropping it takes back what was written.
pub trait Receive: Sized + Send {
    /// What is said of it once it is kept.
    type Kept;
    /// Adds bytes.
    fn write(&mut self, chunk: &[u8]) -> impl Future<Output = Result<(), ArtifactError>> + Send;
    /// Checks the whole and keeps it: durable on return.
    fn finish(self) -> impl Future<Output = Result<Self::Kept, ArtifactError>> + Send;
}

/// The upload of a component.
#[derive(Debug)]
pub struct Upload {
    shared: Arc<Shared>,
    digest: Digest,
    by: Option<String>,
    partial: Partial,
    file: tokio::fs::File,
    hasher: Sha256,
    bytes: u64,
    _permit: OwnedSemaphorePermit,
}

impl Receive for Upload {
    type Kept = ArtifactInfo;

    async fn write(&mut self, chunk: &[u8]) -> Result<(), ArtifactError> {
        if self.bytes + chunk.len() as u64 > ARTIFACT_BYTES_MAX {
            return Err(ArtifactError::TooLarge);
        }
        self.append(chunk).await
    }

    /// Keeps it when it is a component that edges can run.
    async fn finish(mut self) -> Result<ArtifactInfo, ArtifactError> {
        let by = self.by.take();
        let Whole {
            shared,
            digest,
            partial,
            ..
        } = self.whole().await?;
        blocking(move || shared.accept(digest, &partial.0, by)).await
    }
}

impl Upload {
    async fn append(&mut self, chunk: &[u8]) -> Result<(), ArtifactError> {
        self.bytes += chunk.len() as u64;
        self.hasher.update(chunk);
        self.file
            .write_all(chunk)
            .await
            .map_err(|error| self.shared.io("write", &self.partial.0, error))
    }

    /// Checks that what came is what was named, and fsyncs it.
    async fn whole(mut self) -> Result<Whole, ArtifactError> {
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
        Ok(Whole {
            shared: self.shared,
            digest: self.digest,
            partial: self.partial,
            bytes: self.bytes,
        })
    }
}

/// An upload whose bytes are those that it named, on disk under a name that goes away.
struct Whole {
    shared: Arc<Shared>,
    digest: Digest,
    partial: Partial,
    bytes: u64,
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
    /// Makes a file count as new from now on; its size, when it is here.
    fn touch(&self, path: &Path) -> Result<Option<u64>, ArtifactError> {
        let _names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let touched = std::fs::File::options()
            .append(true)
            .open(path)
            .and_then(|file| {
                file.set_modified(SystemTime::now())?;
                Ok(file.metadata()?.len())
            });
        match touched {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io("look for", path, error)),
        }
    }

    fn file(&self, digest: Digest, ending: &str) -> PathBuf {
        self.dir.join(format!("{}{ending}", digest.to_hex()))
    }

    fn component(&self, digest: Digest) -> PathBuf {
        self.file(digest, COMPONENT)
    }

    fn sidecar(&self, digest: Digest) -> PathBuf {
        self.file(digest, SIDECAR)
    }

    /// Removes a file that has not been touched for `age_min`; whether it did. `went` is called before an upload can bring
    /// it again.
    fn remove_old(
        &self,
        path: &Path,
        age_min: Duration,
        went: impl FnOnce(),
    ) -> Result<bool, ArtifactError> {
        let _names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let modified = match std::fs::metadata(path).and_then(|facts| facts.modified()) {
            Ok(modified) => modified,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(self.io("read", path, error)),
        };
        let is_old = modified.elapsed().is_ok_and(|age| age >= age_min);
        if is_old {
            std::fs::remove_file(path).map_err(|error| self.io("remove", path, error))?;
            went();
        }
        Ok(is_old)
    }

    /// Deletes the files that end so, whose digests are not in `keep`, and that have not been touched for `age_min`; tells
    /// which went, and returns how many.
    fn sweep(
        &self,
        ending: &str,
        keep: &BTreeSet<Digest>,
        age_min: Duration,
        went: impl Fn(Digest),
    ) -> Result<usize, ArtifactError> {
        let mut swept = 0;
        for digest in self.digests(ending)? {
            if !keep.contains(&digest) {
                let path = self.file(digest, ending);
                swept += usize::from(self.remove_old(&path, age_min, || went(digest))?);
            }
        }
        Ok(swept)
    }

    /// The digests of which there is a file that ends so.
    fn digests(&self, ending: &str) -> Result<Vec<Digest>, ArtifactError> {
        let failed = |error| self.io("list", &self.dir, error);
        let mut digests = BTreeSet::new();
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let hex = name.to_str().and_then(|name| name.strip_suffix(ending));
            // A file that we did not name is somebody else's.
            digests.extend(hex.and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok()));
        }
        Ok(digests.into_iter().collect())
    }

    fn accept(
        &self,
        digest: Digest,
        partial: &Path,
        by: Option<String>,
    ) -> Result<ArtifactInfo, ArtifactError> {
        let mut noted = self.inspect(digest, partial)?;
        // What is here already was brought by whoever was first.
        (noted.uploaded_at, noted.uploaded_by) = match self.noted(digest) {
            Ok(first) => (first.uploaded_at, first.uploaded_by),
            Err(_) => (Some(now()), by),
        };
        self.name(partial, &self.component(digest))?;
        // Behind it: a sweep that takes an older one takes its sidecar too, and this one is new.
        self.write_sidecar(&noted)?;
        Ok(noted.info)
    }

    /// Gives what was fsynced its name, durably.
    fn name(&self, partial: &Path, path: &Path) -> Result<(), ArtifactError> {
        failpoint::reach("upload", "written");
        let _names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        std::fs::rename(partial, path).map_err(|error| self.io("rename", partial, error))?;
        std::fs::File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| self.io("sync", &self.dir, error))?;
        failpoint::reach("upload", "committed");
        Ok(())
    }

    /// What the file at `path` holds, or why it is no stage.
    fn inspect(&self, digest: Digest, path: &Path) -> Result<Noted, ArtifactError> {
        let bytes = std::fs::read(path).map_err(|error| self.io("read", path, error))?;
        let refused = |problems| ArtifactError::Refused { digest, problems };
        let found = inspect(&bytes).map_err(|error| refused(vec![error.to_string()]))?;
        let world = check_stage(&found).map_err(|problem| refused(vec![problem.to_string()]))?;
        check_imports(&found, &GrantSet::none())
            .map_err(|problems| refused(problems.iter().map(ToString::to_string).collect()))?;
        let ordered = |names: BTreeSet<String>| names.into_iter().collect();
        let imports = found.imports.into_iter().map(|import| import.name);
        let exports = found.exports.into_iter().map(|export| export.name);
        Ok(Noted {
            info: ArtifactInfo {
                digest,
                size: bytes.len() as u64,
                imports: ordered(imports.collect()),
                world: world.to_string(),
            },
            exports: ordered(exports.collect()),
            uploaded_at: None,
            uploaded_by: None,
        })
    }

    fn noted(&self, digest: Digest) -> Result<Noted, ArtifactError> {
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
            .and_then(|bytes| serde_json::from_slice::<Noted>(&bytes).ok())
            .filter(|noted| noted.info.digest == digest && noted.info.size == size);
        match noted {
            Some(noted) => Ok(noted),
            None => {
                let noted = self.inspect(digest, &path)?;
                self.write_sidecar(&noted)?;
                Ok(noted)
            }
        }
    }

    /// Whole or not at all to who reads it meanwhile. Not synced: what a power cut leaves of it is made again.
    fn write_sidecar(&self, noted: &Noted) -> Result<(), ArtifactError> {
        let number = self.next_partial.fetch_add(1, Ordering::Relaxed);
        let partial = Partial(self.dir.join(format!("{PARTIAL_PREFIX}{number}")));
        let json = serde_json::to_vec(noted).expect("strings and numbers always encode");
        std::fs::write(&partial.0, &json).map_err(|error| self.io("write", &partial.0, error))?;
        let path = self.sidecar(noted.info.digest);
        std::fs::rename(&partial.0, &path).map_err(|error| self.io("rename", &path, error))
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

fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixMs(since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }))
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
