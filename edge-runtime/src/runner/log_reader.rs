//! Reads an execution's log as it grows, without a hold on the one who writes it.
//!
//! A reader keeps no file open: it remembers the first mark of the half that it is in, which no other half has, and how
//! far it has read there. Halves that were dropped meanwhile are a jump in the numbers.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::halves::{CURRENT, PREVIOUS, open_existing};
use super::log::{DIRECTORY, LogLine, mark_of};

/// Bytes read at once: some thousand lines. Grown for a line that is longer.
const READ_BYTES: usize = 256 * 1024;
/// Longest line: a message of 64 KiB in which every byte is escaped, and what is around it.
const LINE_BYTES_MAX: usize = 512 * 1024;
/// A first line that is no mark, or longer than this, is the rest of a damaged one.
const MARK_LINE_BYTES_MAX: usize = 40;
/// Most lines that [`LogReader::tail`] gives.
const TAIL_LINES_MAX: usize = 10_000;

/// A place in an execution's log.
#[derive(Debug)]
pub struct LogReader {
    directory: PathBuf,
    /// The half, and the bytes of it that were read.
    at: Option<(Half, u64)>,
    /// The number of the line at that place.
    number: u64,
    /// The number of the line that the owner wants next; `None`: whichever is the oldest.
    wanted: Option<u64>,
    /// Nothing was there any more to read at least once.
    was_at_end: bool,
}

/// Lines that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPiece {
    /// Oldest first.
    pub lines: Vec<LogLine>,
    /// The number of the line after them.
    pub next: u64,
    /// Lines before them that the log does not have.
    pub dropped: u64,
    /// Bytes that were looked at; 0: there was nothing new.
    pub bytes: u64,
}

/// The number in a half's first mark; 0 for a half that begins with no mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Half(u64);

impl LogReader {
    /// A reader of the log in an execution's state directory, which need not exist: from the line with this number, or from
    /// the oldest. A number that the log has not reached yet is one of a log that is no more, so it begins with the oldest.
    pub fn open(state_dir: &Path, from: Option<u64>) -> Self {
        Self {
            directory: state_dir.join(DIRECTORY),
            at: None,
            number: 1,
            wanted: from,
            was_at_end: from.is_none(),
        }
    }

    /// Reads to the end, and gives the last `lines_max` lines (10,000 at most) for which `take` holds. Blocking.
    pub fn tail(
        &mut self,
        lines_max: usize,
        take: impl Fn(&LogLine) -> bool,
    ) -> io::Result<LogPiece> {
        let lines_max = lines_max.min(TAIL_LINES_MAX);
        let mut last = VecDeque::new();
        loop {
            let piece = self.read(&take)?;
            last.extend(piece.lines);
            let surplus = last.len().saturating_sub(lines_max);
            last.drain(..surplus);
            if piece.bytes == 0 {
                let lines = last.into();
                return Ok(LogPiece { lines, ..piece });
            }
        }
    }

    /// Reads on, some hundred KiB at most, and gives the lines for which `take` holds. Blocking.
    pub fn read(&mut self, take: impl Fn(&LogLine) -> bool) -> io::Result<LogPiece> {
        let mut piece = LogPiece::default();
        loop {
            let bytes = self.next_bytes()?;
            for line in bytes.split_inclusive(|&byte| byte == b'\n') {
                self.take_line(line, &take, &mut piece);
            }
            piece.bytes += bytes.len() as u64;
            if bytes.is_empty() && !self.was_at_end {
                self.was_at_end = true;
                if self.wanted.is_some_and(|wanted| wanted > self.number) {
                    // What that number counted is gone, and all that is here is new to its owner.
                    (self.at, self.wanted) = (None, None);
                    continue;
                }
            }
            // Lines that the owner has had already are passed over at once.
            if bytes.is_empty() || piece.bytes >= READ_BYTES as u64 && !piece.lines.is_empty() {
                break;
            }
        }
        piece.next = self.wanted.unwrap_or(self.number);
        Ok(piece)
    }

    fn take_line(&mut self, line: &[u8], take: &impl Fn(&LogLine) -> bool, piece: &mut LogPiece) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if let Some(next) = mark_of(line) {
            self.number = next;
            return;
        }
        let number = self.number;
        self.number += 1;
        let wanted = self.wanted.unwrap_or(number);
        if number < wanted {
            return;
        }
        piece.dropped += number - wanted;
        self.wanted = Some(number + 1);
        // A line torn by a crash is not worth an error.
        match serde_json::from_slice::<LogLine>(line) {
            Ok(line) if take(&line) => piece.lines.push(line),
            Ok(_) => {}
            Err(_) => piece.dropped += 1,
        }
    }

    /// The next whole lines; empty when there are none yet.
    fn next_bytes(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let current = Opened::open(&self.directory.join(CURRENT))?;
            if let (Some((half, offset)), Some(current)) = (self.at, &current)
                && current.half == half
            {
                return self.lines_at(current, offset);
            }
            let previous = Opened::open(&self.directory.join(PREVIOUS))?;
            let at = match (self.at, &previous, &current) {
                (Some((half, offset)), Some(previous), _) if previous.half == half => {
                    let bytes = self.lines_at(previous, offset)?;
                    if !bytes.is_empty() {
                        return Ok(bytes);
                    }
                    // Read to its end, and what follows it is there.
                    match &current {
                        Some(current) => (current.half, 0),
                        None => return Ok(bytes),
                    }
                }
                (_, Some(oldest), _) | (_, None, Some(oldest)) => (oldest.half, 0),
                (_, None, None) => return Ok(Vec::new()),
            };
            if self.at == Some(at) {
                return Ok(Vec::new());
            }
            self.at = Some(at);
        }
    }

    fn lines_at(&mut self, opened: &Opened, offset: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; READ_BYTES];
        loop {
            let read = opened.read_at(&mut bytes, offset)?;
            let whole = memchr::memrchr(b'\n', &bytes[..read]).map_or(0, |end| end + 1);
            if whole == 0 && read == bytes.len() {
                if read >= LINE_BYTES_MAX {
                    // No line of ours: passed over.
                    self.at = Some((opened.half, offset + read as u64));
                    return Ok(bytes);
                }
                bytes.resize(LINE_BYTES_MAX, 0);
                continue;
            }
            bytes.truncate(whole);
            self.at = Some((opened.half, offset + whole as u64));
            return Ok(bytes);
        }
    }
}

struct Opened {
    file: std::fs::File,
    half: Half,
}

impl Opened {
    /// `None` without a file or without a whole first line in it.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let Some(file) = open_existing(path)? else {
            return Ok(None);
        };
        let mut opened = Self {
            file,
            half: Half(0),
        };
        let mut head = [0; MARK_LINE_BYTES_MAX];
        let read = opened.read_at(&mut head, 0)?;
        let line = match memchr::memchr(b'\n', &head[..read]) {
            Some(end) => &head[..end],
            None if read == head.len() => &[],
            None => return Ok(None),
        };
        opened.half = Half(mark_of(line).unwrap_or(0));
        Ok(Some(opened))
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < bytes.len() {
            match self.file.read_at(&mut bytes[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::halves::Halves;
    use super::*;

    /// A log in halves of 1000 bytes, written by hand.
    struct Log {
        directory: tempfile::TempDir,
        halves: Halves,
        next: u64,
    }

    impl Log {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let halves = Halves::open(directory.path().join(DIRECTORY), 1000).unwrap();
            Self {
                directory,
                halves,
                next: 1,
            }
        }

        fn reader(&self, from: Option<u64>) -> LogReader {
            LogReader::open(self.directory.path(), from)
        }

        fn write(&mut self, lines: u64) {
            for _ in 0..lines {
                let mut text = String::new();
                if self.halves.would_begin(100) {
                    text = format!("{{\"next\":{}}}\n", self.next);
                }
                let next = self.next;
                text += &format!(
                    "{{\"at\":\"1970-01-01T00:00:00Z\",\"level\":\"info\",\"message\":\"{next}\"}}\n"
                );
                self.halves.append(text.as_bytes()).unwrap();
                self.next += 1;
            }
        }

        fn miss(&mut self, lines: u64) {
            self.next += lines;
            let mark = format!("{{\"next\":{}}}\n", self.next);
            self.halves.append(mark.as_bytes()).unwrap();
        }
    }

    fn numbers(piece: &LogPiece) -> Vec<u64> {
        let numbers = piece.lines.iter().map(|line| line.message.parse().unwrap());
        numbers.collect()
    }

    fn read(reader: &mut LogReader) -> (Vec<u64>, u64) {
        let piece = reader.read(|_| true).unwrap();
        (numbers(&piece), piece.dropped)
    }

    #[test]
    fn a_reader_that_keeps_up_sees_every_line_once_over_many_halves() {
        let mut log = Log::new();
        let mut reader = log.reader(None);
        assert_eq!(read(&mut reader), (vec![], 0));
        let mut seen = Vec::new();
        for _ in 0..100 {
            log.write(7);
            let (lines, dropped) = read(&mut reader);
            assert_eq!(dropped, 0);
            seen.extend(lines);
        }
        assert_eq!(seen, (1..=700).collect::<Vec<_>>());
        assert_eq!(read(&mut reader), (vec![], 0));
    }

    #[test]
    fn a_reader_that_stalls_learns_how_many_lines_it_missed() {
        let mut log = Log::new();
        let mut reader = log.reader(None);
        log.write(3);
        assert_eq!(read(&mut reader), (vec![1, 2, 3], 0));
        log.write(500);
        let (lines, dropped) = read(&mut reader);
        assert_eq!(lines.last(), Some(&503));
        assert_eq!(dropped + lines.len() as u64, 500);
        assert_eq!(lines.first(), Some(&(3 + dropped + 1)));
        log.miss(20);
        log.write(1);
        assert_eq!(read(&mut reader), (vec![524], 20));
    }

    #[test]
    fn a_cursor_goes_on_where_another_reader_was_cut() {
        let mut log = Log::new();
        log.write(30);
        let mut first = log.reader(None);
        let next = first.read(|_| true).unwrap().next;
        assert_eq!(next, 31);
        log.write(2);
        assert_eq!(read(&mut log.reader(Some(next))), (vec![31, 32], 0));
        assert_eq!(read(&mut log.reader(Some(33))), (vec![], 0));
        log.write(200);
        let (lines, dropped) = read(&mut log.reader(Some(33)));
        assert_eq!(dropped + lines.len() as u64, 200);
        // A wiped machine's log begins anew.
        let mut wiped = Log::new();
        wiped.write(2);
        assert_eq!(read(&mut wiped.reader(Some(33))), (vec![1, 2], 0));
    }

    #[test]
    fn the_tail_is_what_is_asked_for_and_reading_goes_on_after_it() {
        let mut log = Log::new();
        log.write(25);
        let mut reader = log.reader(None);
        let even = |line: &LogLine| line.message.parse::<u64>().unwrap() % 2 == 0;
        let tail = reader.tail(3, even).unwrap();
        assert_eq!((numbers(&tail), tail.next), (vec![20, 22, 24], 26));
        log.write(1);
        assert_eq!(read(&mut reader), (vec![26], 0));
        assert!(log.reader(None).tail(0, |_| true).unwrap().lines.is_empty());
    }

    #[test]
    fn half_a_line_waits_for_its_end_and_a_torn_one_counts_as_missed() {
        let mut log = Log::new();
        log.write(1);
        let mut reader = log.reader(None);
        assert_eq!(read(&mut reader), (vec![1], 0));
        log.halves.append(b"{\"at\":0,\"level\":").unwrap();
        assert_eq!(read(&mut reader), (vec![], 0));
        log.halves.append(b"\n").unwrap();
        log.next += 1;
        log.write(1);
        assert_eq!(read(&mut reader), (vec![3], 1));
    }
}
