//! What happened, in order: the last lines for people, a hash of all of them for comparing runs.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};

/// Lines kept for showing: a few virtual minutes.
const LINES_MAX: usize = 2_000;

/// See the module.
#[derive(Debug)]
pub struct Timeline {
    lines: VecDeque<String>,
    count: u64,
    hash: u64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            lines: VecDeque::new(),
            count: 0,
            hash: 0xcbf2_9ce4_8422_2325,
        }
    }
}

impl Timeline {
    /// Adds a line.
    pub fn note(&mut self, at_ms: u64, who: &str, what: fmt::Arguments<'_>) {
        let mut line = format!("{:>5}.{:03}  {who:<12} ", at_ms / 1000, at_ms % 1000);
        // Writing to a String cannot fail.
        let _ = line.write_fmt(what);
        for byte in line.bytes() {
            self.hash ^= u64::from(byte);
            self.hash = self.hash.wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.count += 1;
        if line.contains("Heartbeat") {
            // Hashed like the rest; shown, they would hide it.
            return;
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The hash of every line so far (FNV-1a).
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many lines there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The last `count` lines.
    pub fn tail(&self, count: usize) -> String {
        let skipped = self.lines.len().saturating_sub(count);
        self.lines
            .iter()
            .skip(skipped)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }
}
