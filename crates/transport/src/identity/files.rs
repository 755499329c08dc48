//! Files that hold keys: private to their owner, replaced whole, durable when the call returns.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::IdentityError;
use crate::bounds::IDENTITY_FILE_BYTES_MAX;

/// Reads a whole file; `None` when it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    let failed = |source| IdentityError::File {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(IDENTITY_FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > IDENTITY_FILE_BYTES_MAX {
        return Err(damaged(
            path,
            format!("it has more than {IDENTITY_FILE_BYTES_MAX} bytes"),
        ));
    }
    Ok(Some(bytes))
}

/// Replaces `path` by `bytes`, mode 0600: either the old or the new file is there, whatever happens meanwhile.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    sluice_state_dir::replace(path, bytes).map_err(|source| IdentityError::File {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

/// As [`replace`], but refuses when `path` is there.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(IdentityError::Exists {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => replace(path, bytes),
        Err(source) => Err(IdentityError::File {
            action: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

/// The error for a file whose content is wrong.
pub(crate) fn damaged(path: &Path, detail: impl Into<String>) -> IdentityError {
    IdentityError::Damaged {
        path: path.to_owned(),
        detail: detail.into(),
    }
}

/// The PEM blocks of a file, each with its tag, in order.
pub(crate) fn pem_blocks(path: &Path, bytes: &[u8]) -> Result<Vec<pem::Pem>, IdentityError> {
    pem::parse_many(bytes).map_err(|error| damaged(path, error.to_string()))
}

/// The bytes of the only block with `tag`.
pub(crate) fn pem_block(
    path: &Path,
    blocks: &[pem::Pem],
    tag: &str,
    nth: usize,
) -> Result<Vec<u8>, IdentityError> {
    blocks
        .iter()
        .filter(|block| block.tag() == tag)
        .nth(nth)
        .map(|block| block.contents().to_vec())
        .ok_or_else(|| damaged(path, format!("it lacks a {tag} block")))
}
