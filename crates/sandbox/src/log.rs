//! Where guests' words go: the host side of `sluice:pipeline/log`, and lines written to stdout and stderr.
//!
//! Everything a guest says passes one [`LogGate`] for each chain: lines are cut, control characters made visible (a guest
//! must not forge lines or drive a terminal), and past the rate limit lines are dropped, counted, and told in one line.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::cut;

/// Where a chain's log lines go. Called on guest threads: must not block for long.
pub trait LogSink: Send + Sync {
    /// Takes one line, without a newline, within the stage's limits.
    fn log(&self, stage: &str, level: Level, message: &str);
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For authors of plugins.
    Debug,
    /// Worth knowing.
    Info,
    /// Something was given up.
    Warn,
    /// Something failed.
    Error,
}

/// The rate is counted over windows of this length.
const WINDOW: Duration = Duration::from_secs(1);

/// A chain's one way to its sink: all its stages share the rate limit.
#[derive(Clone)]
pub(crate) struct LogGate {
    inner: Arc<Gate>,
}

struct Gate {
    sink: Arc<dyn LogSink>,
    lines_per_second_max: u32,
    /// Guests of one chain run one at a time, so this is never waited for.
    window: Mutex<Window>,
}

#[derive(Default)]
struct Window {
    started: Option<Instant>,
    lines: u32,
    dropped: u64,
}

impl LogGate {
    pub(crate) fn new(sink: Arc<dyn LogSink>, lines_per_second_max: u32) -> Self {
        let inner = Gate {
            sink,
            lines_per_second_max,
            window: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Passes one line on, or drops it.
    pub(crate) fn line(&self, stage: &str, level: Level, message: &str, line_bytes_max: usize) {
        if !self.admit(stage) {
            return;
        }
        let mut line = visible(&message[..message.floor_char_boundary(line_bytes_max)]);
        cut(&mut line, line_bytes_max);
        self.inner.sink.log(stage, level, &line);
    }

    /// Tells about dropped lines once their window is over. Cheap; called after each batch.
    pub(crate) fn tell_dropped(&self, stage: &str, now_or_never: TellDropped) {
        let mut window = self.window();
        if window.dropped == 0 {
            return;
        }
        let over = window
            .started
            .is_some_and(|started| started.elapsed() >= WINDOW);
        if over || now_or_never == TellDropped::Now {
            let dropped = std::mem::take(&mut window.dropped);
            drop(window);
            self.tell(stage, dropped);
        }
    }

    fn admit(&self, stage: &str) -> bool {
        let now = Instant::now();
        let mut window = self.window();
        let over = window
            .started
            .is_none_or(|started| now.duration_since(started) >= WINDOW);
        let mut dropped = 0;
        if over {
            dropped = window.dropped;
            *window = Window {
                started: Some(now),
                ..Window::default()
            };
        }
        let admitted = window.lines < self.inner.lines_per_second_max;
        if admitted {
            window.lines += 1;
        } else {
            window.dropped += 1;
        }
        drop(window);
        if dropped > 0 {
            self.tell(stage, dropped);
        }
        admitted
    }

    fn tell(&self, stage: &str, dropped: u64) {
        let rate = self.inner.lines_per_second_max;
        let message = format!("{dropped} log lines dropped: more than {rate} a second");
        self.inner.sink.log(stage, Level::Warn, &message);
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.inner
            .window
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// When to tell about dropped lines.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TellDropped {
    /// When their window is over.
    WhenOver,
    /// At once: nobody will ask again.
    Now,
}

/// The text with control characters escaped, tabs excepted.
fn visible(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\t' {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// Bytes of stdout or stderr on their way to becoming lines.
#[derive(Default)]
pub(crate) struct LineBuffer {
    /// The line so far; never longer than a line may be.
    partial: Vec<u8>,
}

impl LineBuffer {
    /// Takes bytes, hands out each full line. What is longer than `line_bytes_max` is cut.
    pub(crate) fn write(
        &mut self,
        bytes: &[u8],
        line_bytes_max: usize,
        mut line: impl FnMut(&str),
    ) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            self.take(&rest[..end], line_bytes_max);
            self.flush(&mut line);
            rest = &rest[end + 1..];
        }
        self.take(rest, line_bytes_max);
    }

    /// Hands out what has no newline yet.
    pub(crate) fn flush(&mut self, line: &mut impl FnMut(&str)) {
        if !self.partial.is_empty() {
            let text = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
            line(&String::from_utf8_lossy(text));
            self.partial.clear();
        }
    }

    fn take(&mut self, bytes: &[u8], line_bytes_max: usize) {
        let room = line_bytes_max.saturating_sub(self.partial.len());
        self.partial
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<(Level, String)>>);

    impl LogSink for Lines {
        fn log(&self, _stage: &str, level: Level, message: &str) {
            self.0.lock().unwrap().push((level, message.to_owned()));
        }
    }

    fn gate(rate: u32) -> (LogGate, Arc<Lines>) {
        let lines = Arc::new(Lines::default());
        (LogGate::new(lines.clone(), rate), lines)
    }

    #[test]
    fn lines_past_the_rate_are_dropped_and_told_once() {
        let (gate, lines) = gate(3);
        for number in 0..10 {
            gate.line("s", Level::Info, &number.to_string(), 100);
        }
        gate.tell_dropped("s", TellDropped::WhenOver);
        assert_eq!(lines.0.lock().unwrap().len(), 3, "the window is not over");
        gate.tell_dropped("s", TellDropped::Now);
        gate.tell_dropped("s", TellDropped::Now);
        let told = (
            Level::Warn,
            "7 log lines dropped: more than 3 a second".to_owned(),
        );
        assert_eq!(lines.0.lock().unwrap()[3..], [told]);
    }

    #[test]
    fn long_lines_are_cut_at_a_character_and_control_characters_shown() {
        let (gate, lines) = gate(100);
        gate.line("s", Level::Info, "ääää", 5);
        gate.line("s", Level::Info, "a\tb\n\u{1b}[2J", 100);
        gate.line("s", Level::Info, "\n\n\n\n", 5);
        let texts: Vec<String> = lines
            .0
            .lock()
            .unwrap()
            .iter()
            .map(|line| line.1.clone())
            .collect();
        assert_eq!(texts, ["ää", "a\tb\\n\\u{1b}[2J", "\\n\\n\\"]);
    }

    #[test]
    fn written_bytes_become_lines() {
        let mut buffer = LineBuffer::default();
        let mut lines = Vec::new();
        buffer.write(b"one\r\ntw", 6, |line| lines.push(line.to_owned()));
        buffer.write(b"o\n\nlonger than six\n", 6, |line| {
            lines.push(line.to_owned())
        });
        buffer.write(b"rest \xff", 6, |line| lines.push(line.to_owned()));
        buffer.flush(&mut |line| lines.push(line.to_owned()));
        assert_eq!(lines, ["one", "two", "longer", "rest \u{fffd}"]);
    }
}
