//! Outputs of runs' tasks on this machine: one directory, content-addressed, and the task that fills it.
//!
//! ```text
//!   DIR/<64 hex>          whole: its name is the sha256 of its bytes
//!   DIR/<64 hex>.part     what has come so far; a pull goes on at its end, also after a restart
//! ```
//!
//! A part becomes whole by fsync, hash and rename, in this order, so that no crash leaves wrong bytes under a right name.
//! Which outputs there are, and whose, the store knows; nothing is decided here but when to ask an edge again
//! ([`pulling`]).

use std::collections::BTreeSet;
use std::io::{self, Read as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use sluice_model::{Digest, OutputFacts};
use sluice_state_dir::{failpoint, free_bytes};
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

pub(crate) mod pulling;

/// Read from a file at once.
const READ_BYTES: usize = 64 * 1024;

/// Bytes that pulling leaves free on the disk: outputs can come later, while a store without room takes no report.
const ROOM_LEFT_BYTES: u64 = 64 * 1024 * 1024;

/// How long outputs are kept, and how much of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputsConfig {
    /// An output that is older goes.
    pub keep: Duration,
    /// With more bytes together, the oldest go.
    pub bytes_max: u64,
}

impl Default for OutputsConfig {
    fn default() -> Self {
        Self {
            // A month's reports can still be compared.
            keep: Duration::from_secs(30 * 24 * 60 * 60),
            // Some sixty of the largest outputs, or years of small reports.
            bytes_max: 1024 * 1024 * 1024,
        }
    }
}

/// The directory. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Outputs {
    dir: Arc<Path>,
}

/// Why an output is not here yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// What came is not what the edge said it would be.
    #[error("what came is not what its edge reported")]
    Wrong,
    /// Our disk has no room for it.
    #[error("the orchestrator's disk is full")]
    Full,
    /// Our disk did not do it.
    #[error("cannot write an output: {0}")]
    Disk(io::Error),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Disk(error),
        }
    }
}

impl Outputs {
    /// Opens the directory, making it when it is missing. Blocking, short.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.into() })
    }

    fn whole(&self, digest: Digest) -> PathBuf {
        self.dir.join(digest.to_hex())
    }

    fn part(&self, digest: Digest) -> PathBuf {
        self.dir.join(format!("{}.part", digest.to_hex()))
    }

    /// Opens an output's bytes.
    pub(crate) async fn read(&self, digest: Digest) -> io::Result<tokio::fs::File> {
        tokio::fs::File::open(self.whole(digest)).await
    }

    /// Whether it is here whole. A file gets its name only after it was verified.
    pub(crate) async fn has(&self, facts: OutputFacts) -> bool {
        let found = tokio::fs::metadata(self.whole(facts.digest)).await;
        found.is_ok_and(|found| found.len() == facts.bytes)
    }

    /// Goes on with an output where it was left. Of one digest only one may be under way.
    pub(crate) async fn begin(&self, facts: OutputFacts) -> Result<Part, OutputError> {
        let path = self.part(facts.digest);
        let mut file = tokio::fs::File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .await?;
        let mut have = file.metadata().await?.len();
        if have > facts.bytes {
            file.set_len(0).await?;
            have = 0;
        }
        let missing = facts.bytes - have;
        if free_bytes(&self.dir)? < missing.saturating_add(ROOM_LEFT_BYTES) {
            return Err(OutputError::Full);
        }
        file.seek(SeekFrom::Start(have)).await?;
        Ok(Part {
            outputs: self.clone(),
            facts,
            file,
            have,
        })
    }

    /// The contents that have a file here, whole or in part. Blocking.
    pub(crate) fn contents(&self) -> io::Result<BTreeSet<Digest>> {
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            let hex = name.strip_suffix(".part").unwrap_or(name);
            // A file that we did not name is somebody else's.
            found.extend(format!("sha256:{hex}").parse::<Digest>());
        }
        Ok(found)
    }

    /// Deletes the files of these contents; returns how many. Blocking.
    pub(crate) fn remove(&self, contents: &BTreeSet<Digest>) -> io::Result<usize> {
        let mut removed = 0;
        for &digest in contents {
            for path in [self.whole(digest), self.part(digest)] {
                match std::fs::remove_file(path) {
                    Ok(()) => removed += 1,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(removed)
    }
}

/// An output that comes.
#[derive(Debug)]
pub(crate) struct Part {
    outputs: Outputs,
    facts: OutputFacts,
    file: tokio::fs::File,
    have: u64,
}

impl Part {
    /// Bytes that are here already.
    pub(crate) fn have(&self) -> u64 {
        self.have
    }

    /// Adds bytes. More than there should be are wrong, and so is all that came.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        self.have += bytes.len() as u64;
        if self.have > self.facts.bytes {
            self.file.set_len(0).await?;
            return Err(OutputError::Wrong);
        }
        Ok(self.file.write_all(bytes).await?)
    }

    /// What came so far stays for the next try.
    pub(crate) async fn pause(mut self) -> Result<(), OutputError> {
        Ok(self.file.flush().await?)
    }

    /// Checks the whole, and gives it its name: durable on return.
    pub(crate) async fn finish(mut self) -> Result<(), OutputError> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        drop(self.file);
        let (outputs, facts) = (self.outputs, self.facts);
        let work = move || {
            let part = outputs.part(facts.digest);
            if hash_file(&part)? != (facts.digest, facts.bytes) {
                std::fs::remove_file(&part)?;
                return Err(OutputError::Wrong);
            }
            failpoint::reach("output", "written");
            std::fs::rename(&part, outputs.whole(facts.digest))?;
            std::fs::File::open(&outputs.dir)?.sync_all()?;
            failpoint::reach("output", "committed");
            Ok(())
        };
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error).into()))
    }
}

fn hash_file(path: &Path) -> io::Result<(Digest, u64)> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            let digest = Digest::from_slice(&hasher.finalize()).expect("a sha256 has 32 bytes");
            return Ok((digest, bytes));
        }
        bytes += read as u64;
        hasher.update(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests;
