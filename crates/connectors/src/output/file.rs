//! `[output.file]`: appends records to a file and acks them when they are on disk.
//!
//! Bytes are gathered, written in large pieces and synced every 100 ms or 4 MiB, whichever comes first. A crash can leave
//! half a record at the end of the file. It was not acked, so it comes again; what must not happen is that the next
//! record is glued to it. On opening, an end without a newline is
//! - cut off, if the stored position shows that it was written after whole records of ours;
//! - given its newline otherwise: it may be somebody else's last line.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{OutputError, OutputPosition, UNACKED_BATCHES_SYNC, blocking};
#[cfg(any(test, feature = "output-file"))]
use crate::AllowedPaths;

/// Longest time that an accepted batch waits for its ack.
const SYNC_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes after which a sync comes early: what a kill may make us write again.
const SYNC_BYTES: usize = 4 * 1024 * 1024;
/// Bytes held before they are written while more keeps coming: large enough to make a write's hop cheap.
const WRITE_BYTES: usize = 512 * 1024;
/// What the buffer keeps after a large record.
const BUFFER_BYTES_KEPT: usize = 2 * WRITE_BYTES;
/// Bytes of one step back from the end when looking for the last newline.
const TAIL_BYTES: usize = 64 * 1024;

#[derive(Debug)]
#[cfg_attr(
    not(feature = "output-file"),
    expect(
        unreachable_pub,
        reason = "without files only a kept output writes through it"
    )
)]
pub struct FileOutput {
    file: Arc<File>,
    path: String,
    buffer: Vec<u8>,
    position: OutputPosition,
    accepted: u64,
    acked: u64,
    written_bytes: usize,
    /// When the oldest batch without an ack was accepted.
    waiting_since: Option<Instant>,
    /// A write or sync failed: what the kernel says of this handle from now on proves nothing.
    failed: bool,
}

impl FileOutput {
    /// Opens or makes the file and repairs its end. Blocking.
    #[cfg(feature = "output-file")]
    pub(super) fn open(
        allowed: &AllowedPaths,
        path: String,
        position: Option<OutputPosition>,
    ) -> Result<Self, OutputError> {
        let file = allowed.open_output(&path)?;
        Self::over(file, path, position)
    }

    /// An output over an open file.
    pub(super) fn over(
        file: File,
        path: String,
        position: Option<OutputPosition>,
    ) -> Result<Self, OutputError> {
        mend_end(&file, position)
            .map_err(|source| OutputError::write("mend the end of", &path, source))?;
        let position =
            measure(&file).map_err(|source| OutputError::write("measure", &path, source))?;
        Ok(Self {
            file: Arc::new(file),
            path,
            buffer: Vec::new(),
            position,
            accepted: 0,
            acked: 0,
            written_bytes: 0,
            waiting_since: None,
            failed: false,
        })
    }

    pub(super) async fn write<'a>(
        &mut self,
        records: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), OutputError> {
        super::append_lines(&mut self.buffer, records);
        self.accepted += 1;
        self.waiting_since.get_or_insert_with(Instant::now);
        let waiting = self.accepted - self.acked;
        if waiting >= UNACKED_BATCHES_SYNC || self.written_bytes + self.buffer.len() >= SYNC_BYTES {
            self.sync().await
        } else if self.buffer.len() >= WRITE_BYTES {
            self.flush(Durable::Later).await
        } else {
            Ok(())
        }
    }

    pub(super) async fn sync(&mut self) -> Result<(), OutputError> {
        if self.written_bytes + self.buffer.len() > 0 {
            self.flush(Durable::Now).await?;
            self.written_bytes = 0;
        }
        self.acked = self.accepted;
        self.waiting_since = None;
        Ok(())
    }

    pub(super) fn sync_at(&self) -> Option<Instant> {
        self.waiting_since.map(|since| since + SYNC_INTERVAL)
    }

    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    #[cfg(feature = "output-file")]
    pub(super) fn position(&self) -> OutputPosition {
        self.position
    }

    async fn flush(&mut self, durable: Durable) -> Result<(), OutputError> {
        if std::mem::replace(&mut self.failed, true) {
            let source = io::Error::other("an earlier write to this handle failed");
            return Err(OutputError::write("write", &self.path, source));
        }
        let bytes = std::mem::take(&mut self.buffer);
        let file = Arc::clone(&self.file);
        self.written_bytes += bytes.len();
        let (mut bytes, done) = blocking(move || {
            let done = write(&file, &bytes, durable);
            (bytes, done)
        })
        .await;
        if let Some(position) =
            done.map_err(|(action, source)| OutputError::write(action, &self.path, source))?
        {
            self.position = position;
        }
        self.failed = false;
        bytes.clear();
        bytes.shrink_to(BUFFER_BYTES_KEPT);
        self.buffer = bytes;
        Ok(())
    }
}

/// When written bytes have to survive a power cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durable {
    Now,
    Later,
}

fn write(
    mut file: &File,
    bytes: &[u8],
    durable: Durable,
) -> Result<Option<OutputPosition>, (&'static str, io::Error)> {
    file.write_all(bytes).map_err(|source| ("write", source))?;
    if durable == Durable::Later {
        return Ok(None);
    }
    file.sync_data().map_err(|source| ("sync", source))?;
    measure(file)
        .map(Some)
        .map_err(|source| ("measure", source))
}

fn measure(file: &File) -> io::Result<OutputPosition> {
    let (device, inode, bytes) = identify(file)?;
    Ok(OutputPosition::File {
        device,
        inode,
        bytes,
    })
}

/// Device, inode and length.
fn identify(file: &File) -> io::Result<(u64, u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino(), metadata.len()))
}

/// Makes the file end with a whole line, or with nothing.
fn mend_end(mut file: &File, stored: Option<OutputPosition>) -> io::Result<()> {
    let (device, inode, length) = identify(file)?;
    let mut last = [0];
    if length == 0 || (file.read_exact_at(&mut last, length - 1).is_ok() && last[0] == b'\n') {
        return Ok(());
    }
    match stored {
        Some(OutputPosition::File {
            device: d,
            inode: i,
            bytes,
        }) if (d, i) == (device, inode) && bytes < length => {
            file.set_len(last_line_start(file, bytes, length)?)
        }
        _ => file.write_all(b"\n"),
    }
}

/// Where the line that the file ends in starts, looking back from `end` no further than `start`.
fn last_line_start(file: &File, start: u64, end: u64) -> io::Result<u64> {
    let mut buffer = vec![0; TAIL_BYTES];
    let mut upper = end;
    while upper > start {
        let step = (upper - start).min(TAIL_BYTES as u64);
        let part = &mut buffer[..usize::try_from(step).expect("at most 64 KiB")];
        file.read_exact_at(part, upper - step)?;
        if let Some(newline) = memchr::memrchr(b'\n', part) {
            return Ok(upper - step + newline as u64 + 1);
        }
        upper -= step;
    }
    Ok(start)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[track_caller]
    fn check_mend(before: &str, known_bytes: Option<u64>, after: &str) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        std::fs::write(&path, before).unwrap();
        let allowed = AllowedPaths::new([directory.path().to_path_buf()]).unwrap();
        let (device, inode, _) = identify(&File::open(&path).unwrap()).unwrap();
        let stored = known_bytes.map(|bytes| OutputPosition::File {
            device,
            inode,
            bytes,
        });
        let output = FileOutput::open(&allowed, "out".to_owned(), stored).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
        let length = after.len() as u64;
        let position = output.position();
        assert!(
            matches!(position, OutputPosition::File { bytes, .. } if bytes == length),
            "{position:?}"
        );
    }

    #[test]
    fn a_torn_end_is_cut_only_when_it_is_ours() {
        check_mend("", None, "");
        check_mend("one\ntwo\n", None, "one\ntwo\n");
        check_mend("one\ntwo\nth", Some(4), "one\ntwo\n");
        check_mend("one\nth", Some(4), "one\n");
        check_mend("th", Some(0), "");
        check_mend("one\ntheirs", None, "one\ntheirs\n");
        check_mend("one\ntheirs", Some(10), "one\ntheirs\n");
        check_mend("one\nth", Some(40), "one\nth\n");
    }

    #[tokio::test]
    async fn a_full_disk_is_named_and_acks_nothing() {
        let file = File::options().append(true).open("/dev/full").unwrap();
        let mut output = FileOutput {
            file: Arc::new(file),
            path: "logs/out".to_owned(),
            buffer: Vec::new(),
            position: OutputPosition::File {
                device: 0,
                inode: 0,
                bytes: 0,
            },
            accepted: 0,
            acked: 0,
            written_bytes: 0,
            waiting_since: None,
            failed: false,
        };
        output
            .write([b"record".as_slice()].into_iter())
            .await
            .unwrap();
        let error = output.sync().await.unwrap_err();
        assert!(
            matches!(&error, OutputError::Full { to, .. } if to == "logs/out"),
            "{error}"
        );
        assert!(
            output.sync().await.is_err(),
            "no second try on the same handle"
        );
        assert_eq!(output.acked(), 0);
    }
}
