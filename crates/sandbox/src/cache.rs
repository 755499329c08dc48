//! Compiled code on disk, so that a component is compiled once on each machine and engine.
//!
//! ```text
//! CACHE_DIR/<digest>-<engine>.code      "SLUICEC1" | sha256 of the rest | machine code as wasmtime serialises it
//! ```
//!
//! `<engine>` is a hash of everything about the engine that the code depends on. Files of other engines are removed
//! at start, and the oldest files when all of them exceed [`CACHE_BYTES_MAX`]. A file is written under a temporary
//! name and renamed. It is never trusted to be whole: the hash is checked at each load, and a damaged file is deleted
//! and made anew. The hash finds damage, not malice: machine code is run as it is, which is why the directory is
//! private (0700) and nothing that came over a network is ever put here.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

/// All files together; a hundred JavaScript components fit.
pub(crate) const CACHE_BYTES_MAX: u64 = 4 << 30;
/// Largest file that is read back: 64 MiB of component compile to some 300 MiB.
const FILE_BYTES_MAX: u64 = 1 << 30;

const MAGIC: &[u8; 8] = b"SLUICEC1";
const HASH_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC.len() + HASH_BYTES;
const SUFFIX: &str = ".code";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// The directory, for one engine.
pub(crate) struct CodeCache {
    dir: PathBuf,
    engine: String,
    temporary: AtomicU64,
}

/// What a look into the cache found.
pub(crate) enum Found {
    /// A sound file's machine code.
    Code(Vec<u8>),
    /// No file.
    Nothing,
    /// A damaged file, which is deleted now.
    Damaged,
}

impl CodeCache {
    /// Opens the directory, made if need be, and removes what other engines left there.
    pub(crate) fn open(dir: &Path, engine: String) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let metadata = fs::metadata(dir)?;
        let us = rustix::process::geteuid().as_raw();
        if metadata.uid() != us {
            let message = format!("it belongs to user {}, not to {us}", metadata.uid());
            return Err(io::Error::new(ErrorKind::PermissionDenied, message));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        }
        let cache = Self {
            dir: dir.to_owned(),
            engine,
            temporary: AtomicU64::new(0),
        };
        cache.remove_strangers()?;
        Ok(cache)
    }

    /// Looks for a component's code. A file that cannot be read counts as nothing: compiling always works.
    pub(crate) fn find(&self, digest: &[u8; 32]) -> Found {
        let path = self.path(digest);
        let bytes = match read_bounded(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "cannot read compiled code");
                }
                return Found::Nothing;
            }
        };
        match sound_code(bytes) {
            Some(code) => Found::Code(code),
            None => {
                tracing::warn!(path = %path.display(), "compiled code is damaged; compiling again");
                self.remove(digest);
                Found::Damaged
            }
        }
    }

    /// Stores a component's code. Errors matter to nobody but the log: the cache saves time only.
    pub(crate) fn store(&self, digest: &[u8; 32], code: &[u8]) {
        if let Err(error) = self.write(digest, code) {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot store compiled code");
        }
    }

    /// Removes a component's file, if there is one.
    pub(crate) fn remove(&self, digest: &[u8; 32]) {
        let path = self.path(digest);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove compiled code");
        }
    }

    /// Where a component's code is.
    pub(crate) fn path(&self, digest: &[u8; 32]) -> PathBuf {
        self.dir
            .join(format!("{}-{}{SUFFIX}", hex(digest), self.engine))
    }

    fn write(&self, digest: &[u8; 32], code: &[u8]) -> io::Result<()> {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let name = format!(
            "{}-{}-{number}{TEMPORARY_SUFFIX}",
            hex(digest),
            std::process::id()
        );
        let temporary = self.dir.join(name);
        let written =
            write_file(&temporary, code).and_then(|()| fs::rename(&temporary, self.path(digest)));
        if written.is_err() {
            // Nothing half-written stays, above all on a full disk.
            let _ = fs::remove_file(&temporary);
        }
        written?;
        self.shrink()
    }

    /// Removes files of other engines and temporary files of processes that died.
    fn remove_strangers(&self) -> io::Result<()> {
        let ours = format!("-{}{SUFFIX}", self.engine);
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let stranger = name.ends_with(SUFFIX) && !name.ends_with(&ours);
            if stranger || name.ends_with(TEMPORARY_SUFFIX) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes the oldest files until all fit.
    fn shrink(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(SUFFIX) {
                let metadata = entry.metadata()?;
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        let mut total: u64 = files.iter().map(|file| file.1).sum();
        files.sort();
        // The newest stays in any case: it was just asked for.
        let removable = files.len().saturating_sub(1);
        for (_, bytes, path) in files.into_iter().take(removable) {
            if total <= CACHE_BYTES_MAX {
                break;
            }
            fs::remove_file(path)?;
            total -= bytes;
        }
        Ok(())
    }
}

fn write_file(path: &Path, code: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(MAGIC)?;
    file.write_all(&Sha256::digest(code))?;
    file.write_all(code)
    // Not synced: a file that a power cut tore is noticed by its hash.
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    if bytes > FILE_BYTES_MAX {
        return Ok(Vec::new());
    }
    let mut content = Vec::with_capacity(bytes as usize);
    io::Read::read_to_end(&mut io::Read::take(file, FILE_BYTES_MAX), &mut content)?;
    Ok(content)
}

/// The code without its header, if all of it is as it was written.
fn sound_code(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let hash = bytes.strip_prefix(MAGIC)?.get(..HASH_BYTES)?;
    if Sha256::digest(&bytes[HEADER_BYTES..])[..] != *hash {
        return None;
    }
    bytes.drain(..HEADER_BYTES);
    Some(bytes)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const DIGEST: [u8; 32] = [7; 32];

    #[test]
    fn gives_back_what_was_stored_and_notices_every_damage() {
        let dir = tempfile::tempdir().unwrap();
        let cache = CodeCache::open(&dir.path().join("code"), "e1".into()).unwrap();
        assert!(matches!(cache.find(&DIGEST), Found::Nothing));
        let code = b"machine code".to_vec();
        cache.store(&DIGEST, &code);
        assert!(matches!(cache.find(&DIGEST), Found::Code(found) if found == code));

        let path = cache.path(&DIGEST);
        let sound = fs::read(&path).unwrap();
        for index in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[index] ^= 0x10;
            fs::write(&path, &damaged).unwrap();
            assert!(
                matches!(cache.find(&DIGEST), Found::Damaged),
                "byte {index}"
            );
            assert!(!path.exists());
        }
        for length in 0..sound.len() {
            fs::write(&path, &sound[..length]).unwrap();
            assert!(
                matches!(cache.find(&DIGEST), Found::Damaged),
                "length {length}"
            );
        }
    }

    #[test]
    fn is_private_and_cleans_up_after_others() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("code");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let old = CodeCache::open(&dir, "old".into()).unwrap();
        assert_eq!(
            fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
            0o700
        );
        old.store(&DIGEST, b"x");
        fs::write(dir.join("abc-1-0.tmp"), b"half").unwrap();
        let new = CodeCache::open(&dir, "new".into()).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        new.store(&DIGEST, b"y");
        assert_eq!(
            fs::metadata(new.path(&DIGEST))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        let again = CodeCache::open(&dir, "new".into()).unwrap();
        assert!(matches!(again.find(&DIGEST), Found::Code(code) if code == b"y"));
    }
}
