//! The directories that an edge's owner allows inputs and outputs to use.
//!
//! A path is looked up below an allowed directory with `openat2(RESOLVE_BENEATH)`: the kernel itself refuses every way
//! out, be it `..`, a symlink, or a directory swapped while we look. Nothing here opens a path in any other way.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How often a lookup is repeated when the kernel saw a rename race (`EAGAIN`): each repeat is cheap, and more than a
/// few in a row means that somebody renames on purpose.
const LOOKUP_TRIES_MAX: u32 = 32;

/// The directories inputs and outputs may use, in the order the owner gave them.
#[derive(Clone, Debug)]
pub struct AllowedPaths {
    roots: Vec<Root>,
}

#[derive(Clone, Debug)]
struct Root {
    /// As the owner wrote it, made absolute.
    written: PathBuf,
    /// With symlinks resolved, so that both spellings match.
    real: PathBuf,
}

/// Why a path was not opened.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// Outside of every allowed directory.
    #[error(
        "{path:?} is outside of what this edge allows ({allowed}): \
         its owner can allow the directory with --allow-path, or use a path below an allowed one"
    )]
    Outside {
        /// As the pipeline wrote it.
        path: String,
        /// The allowed directories.
        allowed: String,
    },
    /// Inside, but a symlink or `..` leads out.
    #[error(
        "{path:?} leads out of the allowed directory {root:?} (through `..` or a symlink): \
         the edge's owner can allow where it leads with --allow-path"
    )]
    Escapes {
        /// As the pipeline wrote it.
        path: String,
        /// The allowed directory.
        root: PathBuf,
    },
    /// A directory, a device, a pipe, ...
    #[error("{path:?} is {found}, not a regular file")]
    NotAFile {
        /// As the pipeline wrote it.
        path: String,
        /// What it is.
        found: &'static str,
    },
    /// The kernel is too old.
    #[error(
        "cannot open {path:?} safely: this kernel lacks openat2 (Linux 5.6 or later is needed)"
    )]
    Kernel {
        /// As the pipeline wrote it.
        path: String,
    },
    /// Anything else the system said.
    #[error("cannot open {path:?} in {root:?}: {source}")]
    Io {
        /// As the pipeline wrote it.
        path: String,
        /// The allowed directory.
        root: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl AllowedPaths {
    /// Allows `directories`, in this order; relative ones are taken from the working directory. They may appear later.
    pub fn new(directories: impl IntoIterator<Item = PathBuf>) -> io::Result<Self> {
        let roots = directories.into_iter().map(|directory| {
            let written = std::path::absolute(&directory)?;
            let real = std::fs::canonicalize(&written).unwrap_or_else(|_| written.clone());
            Ok(Root { written, real })
        });
        Ok(Self {
            roots: roots.collect::<io::Result<_>>()?,
        })
    }

    /// The allowed directories as the owner gave them, made absolute.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.roots.iter().map(|root| root.written.as_path())
    }

    /// Whether `path` may be used, as far as its text tells.
    pub fn check(&self, path: &str) -> Result<(), PathError> {
        self.locate(path).map(drop)
    }

    /// Opens a file for reading from its start. Blocking.
    pub fn open_input(&self, path: &str) -> Result<File, PathError> {
        let (root, below) = self.locate(path)?;
        let directory = root.open(path)?;
        // NONBLOCK: opening a pipe must not wait for its writer; regular files do not care.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let file = root.lookup(&directory, &below, flags, Mode::empty(), path)?;
        regular(file, path, root)
    }

    /// Opens a file for appending and makes it, and the directories above it, when missing. Blocking. The new names are
    /// on disk when this returns.
    pub fn open_output(&self, path: &str) -> Result<File, PathError> {
        let (root, below) = self.locate(path)?;
        let io = |source: Errno| root.io(path, source);
        if !root.written.exists() {
            std::fs::create_dir_all(&root.written).map_err(|source| PathError::Io {
                path: path.to_owned(),
                root: root.written.clone(),
                source,
            })?;
        }
        let mut parent = root.open(path)?;
        if below.as_os_str().is_empty() {
            return Err(PathError::NotAFile {
                path: path.to_owned(),
                found: "a directory",
            });
        }
        let mut walked = PathBuf::new();
        let top = rustix::io::dup(&parent).map_err(io)?;
        for part in below.parent().unwrap_or(Path::new("")).components() {
            walked.push(part);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            parent = match root.lookup(&top, &walked, flags, Mode::empty(), path) {
                Err(PathError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    match rustix::fs::mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755))
                    {
                        Ok(()) => rustix::fs::fsync(&parent).map_err(io)?,
                        Err(Errno::EXIST) => {}
                        Err(error) => return Err(io(error)),
                    }
                    root.lookup(&top, &walked, flags, Mode::empty(), path)?
                }
                other => other?,
            };
        }
        let flags = OFlags::RDWR
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::CLOEXEC
            | OFlags::NOCTTY
            | OFlags::NONBLOCK;
        // From the top again: a symlink at the end may lead anywhere inside.
        let file = root.lookup(&top, &below, flags, Mode::from_raw_mode(0o644), path)?;
        rustix::fs::fsync(&parent).map_err(io)?;
        regular(file, path, root)
    }

    /// The allowed directory that `path` lies in, and the rest of it.
    fn locate(&self, path: &str) -> Result<(&Root, PathBuf), PathError> {
        let outside = || PathError::Outside {
            path: path.to_owned(),
            allowed: match self.roots.as_slice() {
                [] => "nothing".to_owned(),
                roots => {
                    let shown: Vec<_> = roots
                        .iter()
                        .map(|root| root.written.display().to_string())
                        .collect();
                    shown.join(", ")
                }
            },
        };
        let wanted = Path::new(path);
        if path.is_empty() || path.contains('\0') {
            return Err(outside());
        }
        if wanted.is_relative() {
            let root = self.roots.first().ok_or_else(outside)?;
            let below = tidy(wanted).ok_or_else(|| PathError::Escapes {
                path: path.to_owned(),
                root: root.written.clone(),
            })?;
            return Ok((root, below));
        }
        let inside = self.roots.iter().filter_map(|root| {
            let below = wanted
                .strip_prefix(&root.written)
                .or_else(|_| wanted.strip_prefix(&root.real))
                .ok()?;
            Some((root, tidy(below)?))
        });
        // The innermost directory, so that allowing both a directory and one in it behaves like either.
        inside
            .min_by_key(|(_, below)| below.components().count())
            .ok_or_else(outside)
    }
}

impl Root {
    fn open(&self, path: &str) -> Result<OwnedFd, PathError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, &self.written, flags, Mode::empty())
            .map_err(|source| self.io(path, source))
    }

    fn lookup(
        &self,
        directory: &OwnedFd,
        below: &Path,
        flags: OFlags,
        mode: Mode,
        path: &str,
    ) -> Result<OwnedFd, PathError> {
        let below = if below.as_os_str().is_empty() {
            Path::new(OsStr::new("."))
        } else {
            below
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..LOOKUP_TRIES_MAX {
            match rustix::fs::openat2(directory, below, flags, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::XDEV) => {
                    return Err(PathError::Escapes {
                        path: path.to_owned(),
                        root: self.written.clone(),
                    });
                }
                Err(Errno::NOSYS) => {
                    return Err(PathError::Kernel {
                        path: path.to_owned(),
                    });
                }
                Err(Errno::ISDIR) => {
                    return Err(PathError::NotAFile {
                        path: path.to_owned(),
                        found: "a directory",
                    });
                }
                other => return other.map_err(|source| self.io(path, source)),
            }
        }
        Err(self.io(path, Errno::AGAIN))
    }

    fn io(&self, path: &str, source: Errno) -> PathError {
        PathError::Io {
            path: path.to_owned(),
            root: self.written.clone(),
            source: source.into(),
        }
    }
}

/// Drops `.` and resolves `..` in the text; `None` when it would leave. A `..` is refused after the text's own
/// directories only lexically; what it means on disk is still the kernel's to check.
fn tidy(path: &Path) -> Option<PathBuf> {
    let mut tidied = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => tidied.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !tidied.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(tidied)
}

fn regular(file: OwnedFd, path: &str, root: &Root) -> Result<File, PathError> {
    let stat = rustix::fs::fstat(&file).map_err(|source| root.io(path, source))?;
    let found = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(File::from(file)),
        FileType::Directory => "a directory",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "something else",
    };
    Err(PathError::NotAFile {
        path: path.to_owned(),
        found,
    })
}

#[cfg(test)]
mod tests;
