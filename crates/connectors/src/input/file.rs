//! `[input.file]`: a file's lines from its start to its end.
//!
//! A file is known by device, inode and a hash of its first bytes. A stored position counts only for the same file that
//! is still at least as long; anything else is a new epoch, from the start. Reads are large and one chunk ahead, on the
//! blocking threads, so that a hop serves thousands of records.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use sluice_model::Digest;
use tokio::task::JoinHandle;

use super::lines::LineSplitter;
use super::{FilePosition, InputBatch, InputError, Next, Position};
use crate::AllowedPaths;

/// Bytes of one read: the hop to a blocking thread (10-20 us) vanishes beside copying and splitting that much, and two
/// of these still fit a small machine a thousand times.
const READ_BYTES: usize = 512 * 1024;
/// Bytes of a file's start that tell it from another with the same inode.
const FINGERPRINT_BYTES_MAX: usize = 1024;

#[derive(Debug)]
pub struct FileInput {
    file: Arc<File>,
    path: String,
    /// The file's identity and the offset where splitting began.
    opened: FilePosition,
    splitter: LineSplitter,
    chunk: Vec<u8>,
    chunk_used: usize,
    /// Where the read that is under way, or the next one, starts.
    read_offset: u64,
    ahead: Option<JoinHandle<(Vec<u8>, io::Result<usize>)>>,
    spare: Vec<u8>,
    file_ended: bool,
}

impl FileInput {
    /// Opens `path` at `position`, if that still is a place in this file. Blocking.
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
        // Only a hint for the read-ahead; files on systems that do not know it are read all the same.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        Ok(Self {
            file: Arc::new(file),
            path,
            opened,
            splitter: LineSplitter::default(),
            chunk: Vec::new(),
            chunk_used: 0,
            read_offset: opened.offset,
            ahead: None,
            spare: Vec::new(),
            file_ended: false,
        })
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
            into.position = Some(Position::File(self.position()));
            return Ok(Next::Batch);
        }
    }

    fn position(&self) -> FilePosition {
        FilePosition {
            offset: self.opened.offset + self.splitter.consumed(),
            ..self.opened
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

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

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
