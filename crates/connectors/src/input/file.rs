//! `[input.file]`: a file's lines from its start to its end. So is `[input.stdin]` of a launch read, whose bytes lie in
//! a file of the edge.
//!
//! A file of somebody else is known by device, inode and a hash of its first bytes. A stored position counts only for the same file that
//! is still at least as long; anything else is a new epoch, from the start. Reads are large and one chunk ahead, on the
//! blocking threads, so that a hop serves thousands of records.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
#[cfg(feature = "input-file")]
use std::os::unix::fs::MetadataExt;
#[cfg(feature = "input-stdin")]
use std::path::Path;
use std::sync::Arc;

#[cfg(feature = "input-file")]
use sluice_model::Digest;
use tokio::task::JoinHandle;

use super::lines::LineSplitter;
use super::{FilePosition, InputBatch, InputError, Next, Position};
#[cfg(feature = "input-file")]
use crate::AllowedPaths;

/// Bytes of one read: the hop to a blocking thread (10-20 us) vanishes beside copying and splitting that much, and two
/// of these still fit a small machine a thousand times.
const READ_BYTES: usize = 512 * 1024;
#[cfg(feature = "input-file")]
/// Bytes of a file's start that tell it from another with the same inode.
const FINGERPRINT_BYTES_MAX: usize = 1024;

#[derive(Debug)]
pub struct FileInput {
    file: Arc<File>,
    path: String,
    /// Where splitting began, with what makes the file this one.
    opened: Opened,
    splitter: LineSplitter,
    chunk: Vec<u8>,
    chunk_used: usize,
    /// Where the read that is under way, or the next one, starts.
    read_offset: u64,
    ahead: Option<JoinHandle<(Vec<u8>, io::Result<usize>)>>,
    spare: Vec<u8>,
    file_ended: bool,
}

/// A place in a file.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(all(feature = "input-file", feature = "input-stdin")),
    expect(dead_code, reason = "each of the two inputs makes one sort")
)]
enum Opened {
    /// In a file that somebody may replace.
    Named(FilePosition),
    /// In bytes that never change, whatever file holds them.
    Kept { offset: u64 },
}

impl FileInput {
    /// Opens `path` at `position`, if that still is a place in this file. Blocking.
    #[cfg(feature = "input-file")]
    pub(super) fn open(
        allowed: &AllowedPaths,
        path: String,
        position: Option<Position>,
    ) -> Result<Self, InputError> {
        let file = allowed.open_input(&path)?;
        let opened = identify(&file, position).map_err(|source| InputError::Read {
            from: path.clone(),
            source,
        })?;
        Ok(Self::new(file, path, Opened::Named(opened)))
    }

    /// Opens what a launch brought at `position`. Blocking.
    #[cfg(feature = "input-stdin")]
    pub(super) fn open_kept(path: &Path, position: Option<Position>) -> Result<Self, InputError> {
        let from = "the stdin of the launch".to_owned();
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (bytes, file) = match opened {
            Ok(opened) => opened,
            Err(source) => return Err(InputError::Read { from, source }),
        };
        let offset = match position {
            Some(Position::Stdin { offset }) if offset <= bytes => offset,
            _ => 0,
        };
        Ok(Self::new(file, from, Opened::Kept { offset }))
    }

    fn new(file: File, path: String, opened: Opened) -> Self {
        // Only a hint for the read-ahead; files on systems that do not know it are read all the same.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        Self {
            file: Arc::new(file),
            path,
            opened,
            splitter: LineSplitter::default(),
            chunk: Vec::new(),
            chunk_used: 0,
            read_offset: opened.offset(),
            ahead: None,
            spare: Vec::new(),
            file_ended: false,
        }
    }

    pub(super) async fn next(&mut self, into: &mut InputBatch) -> Result<Next, InputError> {
        loop {
            let unread = &self.chunk[self.chunk_used..];
            let used = self.splitter.split(unread, into);
            let full = used < unread.len();
            self.chunk_used += used;
            let more = !full && !self.file_ended;
            if more {
                self.read().await?;
                continue;
            }
            if !full {
                self.splitter.finish(into);
            }
            if into.is_empty() {
                return Ok(Next::End);
            }
            into.position = Some(self.opened.behind(self.splitter.consumed()));
            return Ok(Next::Batch);
        }
    }

    /// Takes the chunk that was read ahead and starts on the one after it.
    async fn read(&mut self) -> Result<(), InputError> {
        let ahead = match self.ahead.take() {
            Some(ahead) => ahead,
            None => self.read_ahead(),
        };
        let (chunk, read) = ahead
            .await
            .map_err(io::Error::other)
            .and_then(|(chunk, read)| Ok((chunk, read?)))
            .map_err(|source| InputError::Read {
                from: self.path.clone(),
                source,
            })?;
        self.spare = std::mem::replace(&mut self.chunk, chunk);
        self.chunk_used = 0;
        self.read_offset += read as u64;
        self.file_ended = read == 0;
        if !self.file_ended {
            self.ahead = Some(self.read_ahead());
        }
        Ok(())
    }

    fn read_ahead(&mut self) -> JoinHandle<(Vec<u8>, io::Result<usize>)> {
        let (file, offset) = (Arc::clone(&self.file), self.read_offset);
        let mut buffer = std::mem::take(&mut self.spare);
        tokio::task::spawn_blocking(move || {
            buffer.resize(READ_BYTES, 0);
            let read = read_at(&file, &mut buffer, offset);
            buffer.truncate(*read.as_ref().unwrap_or(&0));
            (buffer, read)
        })
    }
}

impl Opened {
    fn offset(&self) -> u64 {
        match self {
            Self::Named(position) => position.offset,
            Self::Kept { offset } => *offset,
        }
    }

    /// The place so many bytes behind this one.
    fn behind(&self, consumed: u64) -> Position {
        let offset = self.offset() + consumed;
        match self {
            Self::Named(position) => Position::File(FilePosition {
                offset,
                ..*position
            }),
            Self::Kept { .. } => Position::Stdin { offset },
        }
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(feature = "input-file")]
/// The position to start at: `stored` when it is in this file, else the start under a new epoch.
fn identify(file: &File, stored: Option<Position>) -> io::Result<FilePosition> {
    let metadata = file.metadata()?;
    let mut head = [0; FINGERPRINT_BYTES_MAX];
    let mut filled = 0;
    while filled < head.len() {
        match read_at(file, &mut head[filled..], filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    let head = &head[..filled];
    let now = FilePosition {
        device: metadata.dev(),
        inode: metadata.ino(),
        fingerprint: Digest::of(head),
        fingerprint_bytes: u16::try_from(head.len()).expect("at most 1 KiB"),
        epoch: 0,
        offset: 0,
    };
    let Some(Position::File(stored)) = stored else {
        return Ok(now);
    };
    let same_head = head
        .get(..usize::from(stored.fingerprint_bytes))
        .is_some_and(|head| Digest::of(head) == stored.fingerprint);
    if (stored.device, stored.inode) == (now.device, now.inode)
        && same_head
        && stored.offset <= metadata.len()
    {
        Ok(FilePosition {
            epoch: stored.epoch,
            offset: stored.offset,
            ..now
        })
    } else {
        Ok(FilePosition {
            epoch: stored.epoch.saturating_add(1),
            ..now
        })
    }
}
