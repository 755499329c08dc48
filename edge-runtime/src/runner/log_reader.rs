//! Reads an execution's log as it grows, without a hold on the one who writes it.
//!
//! A reader keeps no file open: it remembers the first mark of the half that it is in, which no other half has, and how
//! far it has read there. Halves that were dropped meanwhile are a jump in the numbers.
//!
//! One look costs little however fast the log grows: it takes 64 KiB of lines at most, what a filter refuses is mostly not
//! parsed, and a reader that falls ever further behind goes on at a mark near the end. The lines in between count as
//! dropped.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use memchr::memmem;
use sluice_model::UnixMs;

use super::halves::{CURRENT, PREVIOUS, open_existing};
use super::log::{DIRECTORY, LogLine, MARK, mark_of};

/// Bytes read at once: some hundred lines.
const READ_BYTES: usize = 64 * 1024;
/// A look ends with the read in which it has taken so many bytes of lines apart: mostly the first one.
const TAKEN_BYTES_MAX: u64 = READ_BYTES as u64 / 2;
/// Bytes that one look passes over in search of lines that the filter takes; comparing costs far less than taking apart.
const PASSED_BYTES_MAX: u64 = 1024 * 1024;
/// A reader that is further behind, and was less so before, goes on near the end.
const BEHIND_BYTES_MAX: u64 = 1024 * 1024;
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
    /// It knows where it begins.
    begun: bool,
    /// The half, and the bytes of it that were read.
    at: Option<(Half, u64)>,
    /// The number of the line at that place.
    number: u64,
    /// The number of the line that the owner wants next; `None`: whichever comes.
    wanted: Option<u64>,
    /// Bytes that the last look left for later.
    behind: Option<u64>,
}

/// Which lines a reader gives.
#[derive(Clone, Debug, Default)]
pub struct LogFilter {
    since: Option<UnixMs>,
    /// The stage's name, and how a line says it.
    stage: Option<(String, memmem::Finder<'static>)>,
}

/// Lines that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPiece {
    /// Oldest first.
    pub lines: Vec<LogLine>,
    /// Their numbers; 0 where it is not known.
    pub numbers: Vec<u64>,
    /// The number of the line after them.
    pub next: u64,
    /// Lines before them that were not looked at: the log has them no more, or they came too fast.
    pub dropped: u64,
}

/// The number in a half's first mark; 0 for a half that begins with no mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Half(u64);

impl LogFilter {
    /// Lines said at `since` or later, of the stage with this name; `None` and an empty name take every one.
    pub fn new(since: Option<UnixMs>, stage: &str) -> Self {
        let needle = format!("\"stage\":\"{stage}\"");
        let finder = || memmem::Finder::new(needle.as_bytes()).into_owned();
        Self {
            since,
            stage: (!stage.is_empty()).then(|| (stage.to_owned(), finder())),
        }
    }

    fn takes(&self, line: &LogLine) -> bool {
        let of_stage = |stage: &String| line.stage.as_ref().is_some_and(|it| it.as_str() == stage);
        self.since.is_none_or(|since| line.at >= since)
            && self.stage.as_ref().is_none_or(|(stage, _)| of_stage(stage))
    }

    /// False only for a line that it does not take.
    fn may_take(&self, line: &[u8]) -> bool {
        let finder = self.stage.as_ref().map(|(_, finder)| finder);
        finder.is_none_or(|finder| finder.find(line).is_some())
    }
}

impl LogReader {
    /// A reader of the log in an execution's state directory, which need not exist: from the line with this number, or from
    /// the oldest. A number that the log has not reached yet is one of a log that is no more, so it begins with the oldest.
    pub fn open(state_dir: &Path, from: Option<u64>) -> Self {
        Self {
            directory: state_dir.join(DIRECTORY),
            begun: false,
            at: None,
            number: 1,
            wanted: from,
            behind: None,
        }
    }

    /// Goes to the end, and gives the last `lines_max` lines (10,000 at most) that `filter` takes. Blocking.
    ///
    /// It reads backwards, so far as it takes to have them.
    pub fn tail(&mut self, lines_max: usize, filter: &LogFilter) -> io::Result<LogPiece> {
        let lines_max = lines_max.min(TAIL_LINES_MAX);
        let halves = Opened::both(&self.directory)?;
        self.begun = true;
        // Each with its number; the oldest of them have none yet, which the mark before them tells.
        let mut taken = VecDeque::new();
        let mut unnumbered = 0;
        // Lines after the newest mark, and the number that makes of the next one.
        let (mut after, mut number) = (0, None);
        for (index, opened) in halves.iter().rev().enumerate() {
            let mut since_mark = 0;
            let end = opened.backwards(|line| {
                if let Some(next) = mark_of(line) {
                    number.get_or_insert(next + after);
                    for (_, place) in taken.iter_mut().take(unnumbered) {
                        *place = next + since_mark - *place;
                    }
                    (unnumbered, since_mark) = (0, 0);
                } else {
                    after += 1;
                    since_mark += 1;
                    if taken.len() < lines_max
                        && filter.may_take(line)
                        && let Ok(line) = serde_json::from_slice::<LogLine>(line)
                        && filter.takes(&line)
                    {
                        taken.push_front((line, since_mark));
                        unnumbered += 1;
                    }
                }
                number.is_none() || taken.len() < lines_max || unnumbered > 0
            })?;
            // A half that begins with a damaged line tells nothing of those before its first mark.
            for (_, place) in taken.iter_mut().take(unnumbered) {
                *place = 0;
            }
            unnumbered = 0;
            if index == 0 {
                self.at = Some((opened.half, end));
            }
            if number.is_some() && taken.len() >= lines_max {
                break;
            }
        }
        self.number = number.unwrap_or(after + 1);
        self.wanted = (!halves.is_empty()).then_some(self.number);
        let (lines, numbers) = taken.into_iter().unzip();
        Ok(LogPiece {
            lines,
            numbers,
            next: self.number,
            dropped: 0,
        })
    }

    /// Reads on, and gives the lines that `filter` takes; nothing of either when there is nothing new. Blocking.
    ///
    /// It takes some hundred lines at most. What it leaves comes with the next look, unless it grows from look to look:
    /// then the reader goes on near the end, and what it passed counts as dropped.
    pub fn read(&mut self, filter: &LogFilter) -> io::Result<LogPiece> {
        let mut piece = LogPiece::default();
        let halves = Opened::both(&self.directory)?;
        if !self.begun {
            self.begun = true;
            self.begin(&halves)?;
        }
        let (mut index, mut offset) = self.place(&halves);
        let behind = bytes_after(&halves, index, offset);
        if behind > BEHIND_BYTES_MAX && self.behind.is_some_and(|before| behind > before) {
            (index, offset) = near_the_end(&halves)?;
        }
        let (mut taken, mut passed) = (0, 0);
        while let Some(opened) = halves.get(index) {
            let bytes = opened.whole_lines(offset)?;
            for line in bytes.split_inclusive(|&byte| byte == b'\n') {
                taken += self.take_line(line, filter, &mut piece);
            }
            offset += bytes.len() as u64;
            passed += bytes.len() as u64;
            self.at = Some((opened.half, offset));
            if taken >= TAKEN_BYTES_MAX || passed >= PASSED_BYTES_MAX {
                break;
            }
            if bytes.is_empty() {
                // Read to its end, and what follows it is there, or not.
                (index, offset) = (index + 1, 0);
            }
        }
        self.behind = Some(bytes_after(&halves, index, offset));
        piece.next = self.wanted.unwrap_or(self.number);
        Ok(piece)
    }

    /// Finds the place of the line that is wanted first, or a mark before it.
    fn begin(&mut self, halves: &[Opened]) -> io::Result<()> {
        let Some(wanted) = self.wanted else {
            return Ok(());
        };
        if wanted > next_number(halves)? {
            // What that number counted is gone, and all that is here is new to its owner.
            self.wanted = None;
            return Ok(());
        }
        let half = halves.iter().rev().find(|opened| opened.half.0 <= wanted);
        if let Some(opened) = half {
            let mut place = 0;
            opened.marks(0, |offset, next| {
                if next <= wanted {
                    place = offset;
                }
                next < wanted
            })?;
            self.at = Some((opened.half, place));
        }
        Ok(())
    }

    /// Which half it is in, and where; the oldest line when its half is no more.
    fn place(&self, halves: &[Opened]) -> (usize, u64) {
        let found = self.at.and_then(|(half, offset)| {
            let index = halves.iter().position(|opened| opened.half == half)?;
            Some((index, offset))
        });
        found.unwrap_or((0, 0))
    }

    /// Returns how many bytes had to be taken apart.
    fn take_line(&mut self, line: &[u8], filter: &LogFilter, piece: &mut LogPiece) -> u64 {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if let Some(next) = mark_of(line) {
            self.number = next;
            return 0;
        }
        let number = self.number;
        self.number += 1;
        let wanted = self.wanted.unwrap_or(number);
        if number < wanted {
            return 0;
        }
        piece.dropped += number - wanted;
        self.wanted = Some(number + 1);
        if !filter.may_take(line) {
            return 0;
        }
        // A line torn by a crash is not worth an error.
        match serde_json::from_slice::<LogLine>(line) {
            Ok(line) if filter.takes(&line) => {
                piece.lines.push(line);
                piece.numbers.push(number);
            }
            Ok(_) => {}
            Err(_) => piece.dropped += 1,
        }
        line.len() as u64
    }
}

/// The number of the next line that will be written.
fn next_number(halves: &[Opened]) -> io::Result<u64> {
    let (mut after, mut number) = (0, None);
    if let Some(newest) = halves.last() {
        newest.backwards(|line| {
            match mark_of(line) {
                Some(next) => number = Some(next + after),
                None => after += 1,
            }
            number.is_none()
        })?;
    }
    Ok(number.unwrap_or(after + 1))
}

fn bytes_after(halves: &[Opened], index: usize, offset: u64) -> u64 {
    let rest = halves.iter().skip(index).map(|opened| opened.bytes);
    rest.sum::<u64>().saturating_sub(offset)
}

/// A mark from which about as much follows as one look takes.
fn near_the_end(halves: &[Opened]) -> io::Result<(usize, u64)> {
    let Some(index) = halves.len().checked_sub(1) else {
        return Ok((0, 0));
    };
    let newest = &halves[index];
    let from = newest.bytes.saturating_sub(READ_BYTES as u64);
    let mut place = None;
    newest.marks(from, |offset, _| {
        place = Some(offset);
        false
    })?;
    if place.is_none() {
        // One large piece of lines: the mark before it.
        newest.marks(0, |offset, _| {
            place = Some(offset);
            offset < from
        })?;
    }
    Ok((index, place.unwrap_or(0)))
}

struct Opened {
    file: File,
    half: Half,
    /// As many as there were when it was opened.
    bytes: u64,
}

impl Opened {
    /// The halves that are there, the older one first, each with a whole first line.
    fn both(directory: &Path) -> io::Result<Vec<Self>> {
        // In this order a rotation in between shows one half twice; in the other it would hide one.
        let current = Self::open(&directory.join(CURRENT))?;
        let previous = Self::open(&directory.join(PREVIOUS))?;
        let mut halves = Vec::with_capacity(2);
        let mut inode = None;
        for (opened, of) in [previous, current].into_iter().flatten() {
            if inode.replace(of) != Some(of) {
                halves.push(opened);
            }
        }
        Ok(halves)
    }

    fn open(path: &Path) -> io::Result<Option<(Self, u64)>> {
        let Some(file) = open_existing(path)? else {
            return Ok(None);
        };
        let metadata = file.metadata()?;
        let mut opened = Self {
            file,
            half: Half(0),
            bytes: metadata.len(),
        };
        let mut head = [0; MARK_LINE_BYTES_MAX];
        let read = opened.read_at(&mut head, 0)?;
        let line = match memchr::memchr(b'\n', &head[..read]) {
            Some(end) => &head[..end],
            None if read == head.len() => &[],
            None => return Ok(None),
        };
        opened.half = Half(mark_of(line).unwrap_or(0));
        Ok(Some((opened, metadata.ino())))
    }

    /// The next whole lines, some 64 KiB of them; empty when there are none yet.
    fn whole_lines(&self, offset: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; READ_BYTES];
        loop {
            let read = self.read_at(&mut bytes, offset)?;
            let whole = memchr::memrchr(b'\n', &bytes[..read]).map_or(0, |end| end + 1);
            if whole == 0 && read == bytes.len() {
                if read >= LINE_BYTES_MAX {
                    // No line of ours: passed over.
                    return Ok(bytes);
                }
                bytes.resize(LINE_BYTES_MAX, 0);
                continue;
            }
            bytes.truncate(whole);
            return Ok(bytes);
        }
    }

    /// Gives the whole lines, the newest first, for as long as `more` wants; returns where the newest of them ends.
    fn backwards(&self, mut more: impl FnMut(&[u8]) -> bool) -> io::Result<u64> {
        // Always bytes that follow `start` in the file.
        let (mut bytes, mut start) = (Vec::new(), self.bytes);
        let mut end = None;
        while start > 0 {
            let before = start.min(READ_BYTES as u64);
            start -= before;
            let mut chunk = vec![0; usize::try_from(before).unwrap_or(READ_BYTES)];
            let read = self.read_at(&mut chunk, start)?;
            chunk.truncate(read);
            chunk.extend_from_slice(&bytes);
            bytes = chunk;
            if end.is_none() {
                // What follows the last line's end is half a line.
                let Some(last) = memchr::memrchr(b'\n', &bytes) else {
                    continue;
                };
                bytes.truncate(last + 1);
                end = Some(start + last as u64 + 1);
            }
            while let Some(last) = bytes.len().checked_sub(1) {
                let line = match memchr::memrchr(b'\n', &bytes[..last]) {
                    Some(newline) => newline + 1,
                    None if start == 0 => 0,
                    // It begins in the chunk before, unless it is no line of ours.
                    None if bytes.len() < LINE_BYTES_MAX => break,
                    None => 0,
                };
                if !more(&bytes[line..last]) {
                    return Ok(end.unwrap_or(0));
                }
                bytes.truncate(line);
            }
        }
        Ok(end.unwrap_or(0))
    }

    /// Gives the marks at `from` or after it, with where they stand, for as long as `more` wants.
    fn marks(&self, from: u64, mut more: impl FnMut(u64, u64) -> bool) -> io::Result<()> {
        let finder = memmem::Finder::new(MARK);
        let mut offset = from;
        loop {
            let mut bytes = vec![0; READ_BYTES];
            let read = self.read_at(&mut bytes, offset)?;
            bytes.truncate(read);
            for found in finder.find_iter(&bytes) {
                // A line's text cannot hold one: its quotes are escaped.
                let line = &bytes[found..];
                let line = &line[..memchr::memchr(b'\n', line).unwrap_or(line.len())];
                if let Some(next) = mark_of(line)
                    && !more(offset + found as u64, next)
                {
                    return Ok(());
                }
            }
            if read < READ_BYTES {
                return Ok(());
            }
            // One that is cut by the end of this is found whole by the next.
            offset += (read - MARK_LINE_BYTES_MAX) as u64;
        }
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

    /// What the lines say, which is their number.
    fn numbers(piece: &LogPiece) -> Vec<u64> {
        let numbers = piece.lines.iter().map(|line| line.message.parse().unwrap());
        let numbers: Vec<u64> = numbers.collect();
        assert_eq!(piece.numbers, numbers);
        numbers
    }

    fn read(reader: &mut LogReader) -> (Vec<u64>, u64) {
        let piece = reader.read(&LogFilter::default()).unwrap();
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
        let next = first.read(&LogFilter::default()).unwrap().next;
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
        let tail = reader.tail(3, &LogFilter::default()).unwrap();
        assert_eq!((numbers(&tail), tail.next), (vec![23, 24, 25], 26));
        log.write(1);
        assert_eq!(read(&mut reader), (vec![26], 0));
        let none = log.reader(None).tail(0, &LogFilter::default()).unwrap();
        assert_eq!((numbers(&none), none.next), (vec![], 27));
        // All that two halves have.
        let all = log.reader(None).tail(100, &LogFilter::default()).unwrap();
        let (lines, dropped) = read(&mut log.reader(None));
        assert_eq!((numbers(&all), dropped), (lines, 0));
        let missing = LogReader::open(&log.directory.path().join("none"), None)
            .tail(9, &LogFilter::default())
            .unwrap();
        assert_eq!((missing.lines, missing.next), (vec![], 1));
    }

    #[test]
    fn a_filter_takes_lines_of_its_stage_and_age_only() {
        let mut log = Log::new();
        log.write(2);
        for (at, stage) in [
            ("1970-01-01T00:00:00Z", "near"),
            ("1970-01-01T00:00:09Z", "near"),
            ("1970-01-01T00:00:09Z", "nearby"),
        ] {
            let text = format!(
                "{{\"at\":\"{at}\",\"level\":\"info\",\"stage\":\"{stage}\",\"message\":\"{}\"}}\n",
                log.next
            );
            log.halves.append(text.as_bytes()).unwrap();
            log.next += 1;
        }
        for (since, stage, expected) in [
            (None, "near", vec![3, 4]),
            (Some(UnixMs(5000)), "near", vec![4]),
            (Some(UnixMs(5000)), "", vec![4, 5]),
            (None, "far", vec![]),
        ] {
            let filter = LogFilter::new(since, stage);
            let tail = log.reader(None).tail(9, &filter).unwrap();
            assert_eq!((numbers(&tail), tail.next), (expected.clone(), 6));
            let piece = log.reader(None).read(&filter).unwrap();
            assert_eq!(
                (numbers(&piece), piece.next, piece.dropped),
                (expected, 6, 0)
            );
        }
    }

    /// Looks until there is nothing new; how many lines came, how many were dropped, and how many looks it took.
    fn read_out(reader: &mut LogReader) -> (u64, u64, usize) {
        let (mut lines, mut dropped, mut looks) = (0, 0, 0);
        loop {
            let piece = reader.read(&LogFilter::default()).unwrap();
            if piece.lines.is_empty() {
                return (lines, dropped, looks);
            }
            lines += piece.lines.len() as u64;
            dropped += piece.dropped;
            looks += 1;
        }
    }

    #[test]
    fn a_reader_falls_behind_only_so_far_and_is_told_what_it_passed() {
        let mut log = Log::new();
        log.halves = Halves::open(log.directory.path().join(DIRECTORY), 8 << 20).unwrap();
        // Some 7 KiB each, with a mark in front.
        let many = |log: &mut Log, hundreds: u64| {
            for _ in 0..hundreds {
                log.miss(0);
                log.write(100);
            }
        };
        many(&mut log, 300);
        // What is there comes whole, however much it is: it does not grow.
        let mut reader = log.reader(None);
        let (lines, dropped, looks) = read_out(&mut reader);
        assert_eq!((lines, dropped), (30_000, 0));
        assert!(looks > 20, "one look is bounded: {looks}");

        // Now it does, with every look.
        let mut came = 0;
        let mut dropped = 0;
        for _ in 0..10 {
            many(&mut log, 300);
            let piece = reader.read(&LogFilter::default()).unwrap();
            assert!(piece.lines.len() <= 1000, "one look is bounded");
            came += piece.lines.len() as u64;
            dropped += piece.dropped;
        }
        assert!(dropped > 200_000, "{dropped}");
        let (last, no_more, looks) = read_out(&mut reader);
        assert_eq!(no_more, 0, "it was near the end");
        assert!(looks < 3, "{looks}");
        assert_eq!(
            came + last + dropped,
            300_000,
            "every line came or is counted"
        );
    }

    #[test]
    fn a_cursor_and_an_end_are_found_by_marks() {
        let mut log = Log::new();
        log.halves = Halves::open(log.directory.path().join(DIRECTORY), 100_000).unwrap();
        for _ in 0..20 {
            log.miss(5);
            log.write(100);
        }
        assert_eq!(log.next, 1 + 20 * 105);
        for from in [1000, 1050, 1051, 1055, 1056, 1057, 2096, 2101] {
            let mut reader = log.reader(Some(from));
            let piece = reader.read(&LogFilter::default()).unwrap();
            let (came, next) = (piece.lines.len() as u64, piece.next);
            if from < log.next {
                assert_eq!(came + piece.dropped, next - from, "from {from}");
                assert!(came > 0);
            } else {
                assert_eq!((came, next), (0, from));
            }
        }
        let tail = log.reader(None).tail(0, &LogFilter::default()).unwrap();
        assert_eq!(tail.next, log.next);
        // Each line has its own number, over marks and the gaps before them.
        let tail = log.reader(None).tail(250, &LogFilter::default()).unwrap();
        assert_eq!(numbers(&tail).first(), Some(&(log.next - 260)));
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
