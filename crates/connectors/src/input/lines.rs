//! Splits chunks of bytes into lines, as the `file` and `stdin` inputs do.
//!
//! A line ends with `\n` or `\r\n`, which are not part of the record; a last line without either is a record when the
//! bytes end. A line may span any number of chunks; one over [`RECORD_BYTES_MAX`] is rejected and skipped without being
//! held.

use sluice_record::RECORD_BYTES_MAX;

use super::{InputBatch, REJECT_PREFIX_BYTES_MAX, RejectedRecord};

/// What the buffer for a line over several chunks keeps once that line is done.
const CARRY_BYTES_KEPT: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct LineSplitter {
    /// The start of a line whose end has not come.
    carry: Vec<u8>,
    /// A line over the limit, while its rest goes by.
    skipping: Option<RejectedRecord>,
    /// Bytes of whole lines handed out or rejected, line ends included.
    consumed: u64,
}

impl LineSplitter {
    /// Where the next line starts, counted from where splitting began.
    #[cfg_attr(
        not(feature = "input-file"),
        allow(dead_code, reason = "only a file is read from where it was left")
    )]
    pub(super) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Moves lines from `chunk` into `into` until one finds no room or the chunk is used up. Returns the bytes used;
    /// fewer than all means that the batch is full.
    pub(super) fn split(&mut self, chunk: &[u8], into: &mut InputBatch) -> usize {
        let mut start = 0;
        for newline in memchr::memchr_iter(b'\n', chunk) {
            let line = &chunk[start..newline];
            if !self.line(line, 1, into) {
                return start;
            }
            start = newline + 1;
        }
        self.hold(&chunk[start..]);
        chunk.len()
    }

    /// The bytes have ended: what is held is the last record. `false` when it found no room.
    pub(super) fn finish(&mut self, into: &mut InputBatch) -> bool {
        if self.carry.is_empty() && self.skipping.is_none() {
            return true;
        }
        self.line(&[], 0, into)
    }

    /// Ends a line with `rest`; `false` when there was no room and nothing changed.
    fn line(&mut self, rest: &[u8], line_end_bytes: u64, into: &mut InputBatch) -> bool {
        if self.carry.is_empty() && self.skipping.is_none() {
            let record = rest
                .strip_suffix(b"\r")
                .filter(|_| line_end_bytes > 0)
                .unwrap_or(rest);
            if !into.has_room(record.len()) {
                return false;
            }
            if record.len() > RECORD_BYTES_MAX {
                into.rejects.push(reject(record, &[]));
            } else {
                into.batch.push(record);
            }
            self.consumed += rest.len() as u64 + line_end_bytes;
            return true;
        }
        self.long_line(rest, line_end_bytes, into)
    }

    #[cold]
    fn long_line(&mut self, rest: &[u8], line_end_bytes: u64, into: &mut InputBatch) -> bool {
        if !into.has_room(self.carry.len() + rest.len()) {
            return false;
        }
        self.hold(rest);
        if let Some(mut rejected) = self.skipping.take() {
            self.consumed += rejected.bytes + line_end_bytes;
            rejected.reason = too_large(rejected.bytes);
            into.rejects.push(rejected);
            return true;
        }
        let bytes = self.carry.len() as u64;
        if line_end_bytes > 0 && self.carry.last() == Some(&b'\r') {
            self.carry.pop();
        }
        if self.carry.len() > RECORD_BYTES_MAX {
            into.rejects.push(reject(&self.carry, &[]));
        } else {
            into.batch.push(&self.carry);
        }
        self.consumed += bytes + line_end_bytes;
        self.carry.clear();
        self.carry.shrink_to(CARRY_BYTES_KEPT);
        true
    }

    /// Keeps the start of a line, or forgets it once it is certain to be too large.
    fn hold(&mut self, part: &[u8]) {
        if let Some(rejected) = &mut self.skipping {
            rejected.bytes += part.len() as u64;
        } else if self.carry.len() + part.len() > RECORD_BYTES_MAX + 1 {
            // One more than the limit may be held: it can turn out to be the `\r` of a `\r\n`.
            self.skipping = Some(reject(&self.carry, part));
            self.carry = Vec::new();
        } else {
            self.carry.extend_from_slice(part);
        }
    }
}

fn reject(head: &[u8], tail: &[u8]) -> RejectedRecord {
    let bytes = (head.len() + tail.len()) as u64;
    let from_head = &head[..head.len().min(REJECT_PREFIX_BYTES_MAX)];
    let mut prefix = from_head.to_vec();
    prefix.extend_from_slice(&tail[..tail.len().min(REJECT_PREFIX_BYTES_MAX - from_head.len())]);
    RejectedRecord {
        reason: too_large(bytes),
        prefix,
        bytes,
    }
}

fn too_large(bytes: u64) -> String {
    format!(
        "the record has {bytes} bytes, the most is {RECORD_BYTES_MAX}; its first bytes are kept here"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits `text` in chunks of `chunk_bytes`; a batch ends only when full.
    fn split(text: &[u8], chunk_bytes: usize) -> (Vec<Vec<u8>>, Vec<RejectedRecord>, u64) {
        let mut splitter = LineSplitter::default();
        let (mut records, mut rejects) = (Vec::new(), Vec::new());
        let mut into = InputBatch::default();
        let mut empty = |into: &mut InputBatch| {
            assert!(!into.is_empty(), "a full batch has something in it");
            records.extend(into.batch.iter().map(<[u8]>::to_vec));
            rejects.append(&mut into.rejects);
            into.clear();
        };
        for chunk in text.chunks(chunk_bytes) {
            let mut used = 0;
            loop {
                used += splitter.split(&chunk[used..], &mut into);
                if used == chunk.len() {
                    break;
                }
                empty(&mut into);
            }
        }
        while !splitter.finish(&mut into) {
            empty(&mut into);
        }
        if !into.is_empty() {
            empty(&mut into);
        }
        (records, rejects, splitter.consumed())
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        for chunk_bytes in 1..=text.len().max(1) {
            let (records, rejects, consumed) = split(text.as_bytes(), chunk_bytes);
            let shown: Vec<_> = records
                .iter()
                .map(|record| String::from_utf8_lossy(record))
                .collect();
            assert_eq!(shown, expected, "{text:?} in chunks of {chunk_bytes}");
            assert!(rejects.is_empty());
            assert_eq!(
                consumed,
                text.len() as u64,
                "{text:?} in chunks of {chunk_bytes}"
            );
        }
    }

    #[test]
    fn lines_of_every_kind() {
        check("", &[]);
        check("\n", &[""]);
        check("a", &["a"]);
        check("a\n", &["a"]);
        check("a\nb", &["a", "b"]);
        check("a\r\nb\r\n", &["a", "b"]);
        check("a\r\n\r\nb", &["a", "", "b"]);
        check("a\rb\n\r", &["a\rb", "\r"]);
        check("a\r\r\n", &["a\r"]);
    }

    #[test]
    fn a_record_over_the_limit_is_rejected_and_the_reader_goes_on() {
        for line_end in ["\n", "\r\n", ""] {
            for (bytes, fits) in [
                (RECORD_BYTES_MAX, true),
                (RECORD_BYTES_MAX + 1, false),
                (RECORD_BYTES_MAX + 2, false),
                (3 * RECORD_BYTES_MAX, false),
            ] {
                let mut text = b"first\n".to_vec();
                text.resize(text.len() + bytes, b'x');
                text.extend_from_slice(line_end.as_bytes());
                if !line_end.is_empty() {
                    text.extend_from_slice(b"last");
                }
                let (records, rejects, consumed) = split(&text, 1 << 20);
                let case = format!("{bytes} bytes ending {line_end:?}");
                assert_eq!(
                    records.first().map(Vec::as_slice),
                    Some(b"first".as_slice()),
                    "{case}"
                );
                assert_eq!(rejects.is_empty(), fits, "{case}");
                assert_eq!(
                    records.len(),
                    1 + usize::from(fits) + usize::from(!line_end.is_empty()),
                    "{case}"
                );
                assert_eq!(consumed, text.len() as u64, "{case}");
                if let Some(rejected) = rejects.first() {
                    let carriage_return = u64::from(line_end == "\r\n");
                    assert!(
                        (bytes as u64..=bytes as u64 + carriage_return).contains(&rejected.bytes),
                        "{case}"
                    );
                    assert_eq!(rejected.prefix.len(), REJECT_PREFIX_BYTES_MAX, "{case}");
                }
            }
        }
    }

    #[test]
    fn batches_keep_their_bounds() {
        let mut splitter = LineSplitter::default();
        let text = b"0123456789\n".repeat(1000);
        let mut into = InputBatch::default();
        let used = splitter.split(&text, &mut into);
        assert_eq!(into.batch.len(), sluice_record::BATCH_RECORDS_MAX);
        assert_eq!(used, 11 * sluice_record::BATCH_RECORDS_MAX);

        let long = [b"x".repeat(100_000), b"\n".to_vec()].concat().repeat(4);
        into.clear();
        splitter.split(&long, &mut into);
        assert_eq!(
            into.batch.len(),
            2,
            "a third would pass {}",
            sluice_record::BATCH_BYTES_MAX
        );
    }
}
