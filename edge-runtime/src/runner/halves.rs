//! A log of lines in two files of bounded size: the dead letters and the execution's log.
//!
//! ```text
//! DIR/current.jsonl    appended to; when the next piece does not fit, it becomes
//! DIR/previous.jsonl   whose old content is gone
//! ```
//!
//! Pieces are whole lines. A piece torn by a crash is closed with a newline on opening, so that it spoils one line only.
//! Everything here blocks.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

pub(super) const CURRENT: &str = "current.jsonl";
pub(super) const PREVIOUS: &str = "previous.jsonl";

/// The writing end.
#[derive(Debug)]
pub(super) struct Halves {
    directory: PathBuf,
    half_bytes_max: u64,
    file: File,
    bytes: u64,
}

impl Halves {
    /// Opens or makes the log in `directory`.
    pub(super) fn open(directory: PathBuf, half_bytes_max: u64) -> io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        let mut file = append_to(&directory.join(CURRENT))?;
        let mut bytes = file.metadata()?.len();
        let mut last = [0];
        if bytes > 0 && file.read_exact_at(&mut last, bytes - 1).is_ok() && last[0] != b'\n' {
            file.write_all(b"\n")?;
            bytes += 1;
        }
        Ok(Self {
            directory,
            half_bytes_max,
            file,
            bytes,
        })
    }

    /// Appends whole lines; a piece larger than a half gets a half for itself. Returns how many old lines made room.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<u64> {
        let mut dropped = 0;
        if self.bytes > 0 && self.bytes + lines.len() as u64 > self.half_bytes_max {
            dropped = self.rotate()?;
        }
        match self.file.write_all(lines) {
            Ok(()) => self.bytes += lines.len() as u64,
            Err(error) => {
                // Takes half a line off again; if even that fails, the next opening mends it.
                let _ = self.file.set_len(self.bytes);
                return Err(error);
            }
        }
        Ok(dropped)
    }

    /// Whether a piece of so many bytes would be the first of its half.
    pub(super) fn would_begin(&self, bytes: usize) -> bool {
        self.bytes == 0 || self.bytes + bytes as u64 > self.half_bytes_max
    }

    /// Whether nobody else has appended, renamed or deleted since.
    pub(super) fn is_as_left(&self) -> bool {
        let Ok(there) = std::fs::metadata(self.directory.join(CURRENT)) else {
            return false;
        };
        let Ok(ours) = self.file.metadata() else {
            return false;
        };
        (there.dev(), there.ino(), there.len()) == (ours.dev(), ours.ino(), self.bytes)
    }

    /// Makes everything appended survive a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn rotate(&mut self) -> io::Result<u64> {
        let (current, previous) = (self.directory.join(CURRENT), self.directory.join(PREVIOUS));
        let dropped = match File::open(&previous) {
            Ok(file) => count_lines(file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        self.file.sync_data()?;
        std::fs::rename(&current, &previous)?;
        self.file = append_to(&current)?;
        self.bytes = 0;
        File::open(&self.directory)?.sync_all()?;
        Ok(dropped)
    }
}

/// The last lines of the log in `directory`, newest first, for as long as `take` wants more. No log is no line.
pub(super) fn newest_first(directory: &Path, mut take: impl FnMut(&str) -> bool) -> io::Result<()> {
    let current = open_existing(&directory.join(CURRENT))?;
    let previous = open_existing(&directory.join(PREVIOUS))?;
    let inode = |file: &File| file.metadata().map(|metadata| metadata.ino());
    let mut seen = None;
    for mut file in [current, previous].into_iter().flatten() {
        // A rotation between the two openings shows the same file twice.
        if seen.replace(inode(&file)?) == Some(inode(&file)?) {
            break;
        }
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        if !text.lines().rev().all(&mut take) {
            break;
        }
    }
    Ok(())
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
}

pub(super) fn open_existing(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn count_lines(mut file: File) -> io::Result<u64> {
    let mut buffer = vec![0; 64 * 1024];
    let mut lines = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(lines),
            read => lines += buffer[..read].iter().filter(|&&byte| byte == b'\n').count() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn lines(directory: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        newest_first(directory, |line| {
            lines.push(line.to_owned());
            true
        })
        .unwrap();
        lines.reverse();
        lines
    }

    #[test]
    fn the_oldest_half_makes_room_and_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        assert!(lines(&directory.path().join("none")).is_empty());
        let mut halves = Halves::open(directory.path().to_path_buf(), 100).unwrap();
        let mut dropped = 0;
        for number in 0..100 {
            dropped += halves
                .append(format!("line {number:04}\n").as_bytes())
                .unwrap();
            if number % 7 == 0 {
                halves = Halves::open(directory.path().to_path_buf(), 100).unwrap();
            }
        }
        let kept = lines(directory.path());
        assert_eq!(kept.last().unwrap(), "line 0099");
        assert_eq!(
            kept.first().unwrap(),
            &format!("line {dropped:04}"),
            "kept and dropped make all"
        );
        assert_eq!(kept.len() as u64 + dropped, 100);
        for name in [CURRENT, PREVIOUS] {
            assert!(
                std::fs::metadata(directory.path().join(name))
                    .unwrap()
                    .len()
                    <= 100
            );
        }
    }

    #[test]
    fn a_torn_line_spoils_only_itself() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(CURRENT), "whole\nto").unwrap();
        let mut halves = Halves::open(directory.path().to_path_buf(), 100).unwrap();
        halves.append(b"next\n").unwrap();
        assert_eq!(lines(directory.path()), ["whole", "to", "next"]);
    }
}
