//! An execution's log: what its stages say, what the runner did, and, on a remote edge, what `[output.stdout]` writes.
//!
//! Lines are queued by whoever has one, which never blocks, and written by one task into two files of 8 MiB
//! (`STATE_DIR/executions/ID/log`), one JSON object a line. The log is diagnostic: a line that finds no room is dropped
//! and counted, and an error here never ends an execution.
//!
//! ```text
//! {"next":1}                       a mark: the number of the line after it; each file begins with one
//! {"at":...,"message":"..."}       line 1
//! {"next":9}                       lines 2 to 8 found no room; or it is long since the last mark
//! {"at":...,"message":"..."}       line 9
//! ```
//!
//! Numbers count from 1 for as long as the log is kept, so a reader ([`super::log_reader`]) can be told where to go on and
//! sees what it missed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sluice_connectors::LineSink;
use sluice_model::{StageName, UnixMs};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::counters::{Tally, count};
use super::halves::{CURRENT, Halves, PREVIOUS, open_existing};
use super::log_reader::{LogFilter, LogReader};

pub(super) const DIRECTORY: &str = "log";
/// One of the two files: a few hours of a talkative stage.
const HALF_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes that may wait for the disk: a second of a fast `[output.stdout]`.
const QUEUED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Pieces that may wait: with pieces of one line, what a stage may say in ten seconds.
const QUEUED_PIECES_MAX: usize = 1024;
/// Longest message; the rest of a stdout record is cut, lines of stages were cut before.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// How a mark begins; no line does, and none has it inside.
pub(super) const MARK: &[u8] = b"{\"next\":";
/// Room that a mark takes at most.
const MARK_BYTES_MAX: usize = 32;
/// A mark follows after so many bytes at the next piece, so that a reader finds a line's number in one read.
const MARK_EVERY_BYTES: usize = 16 * 1024;

/// One line of an execution's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When.
    pub at: UnixMs,
    /// How much it matters.
    pub level: LogLevel,
    /// The stage that wrote it; `None` for the runner itself and for records of `[output.stdout]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<StageName>,
    /// The text.
    pub message: String,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// A record that `[output.stdout]` wrote; not a message at all.
    Record,
    /// For authors of plugins.
    Debug,
    /// Worth knowing.
    Info,
    /// Something was given up or dropped.
    Warn,
    /// The execution ended or will end.
    Error,
}

/// Hears every line but records, as it is said.
pub(super) type Listener = Arc<dyn Fn(&LogLine) + Send + Sync>;

/// The saying end. Cheap to clone.
#[derive(Clone)]
pub(super) struct Log {
    pieces: mpsc::Sender<Piece>,
    queued_bytes: Arc<AtomicUsize>,
    missed: Arc<AtomicU64>,
    tally: Arc<Tally>,
    listener: Option<Listener>,
}

/// The writing end.
pub(super) struct LogWriter {
    pieces: mpsc::Receiver<Piece>,
    queued_bytes: Arc<AtomicUsize>,
    file: LogFile,
}

/// The log on the disk. Everything here blocks.
struct LogFile {
    directory: PathBuf,
    tally: Arc<Tally>,
    /// Lines that found no room since the last one that did.
    missed: Arc<AtomicU64>,
    open: Option<Open>,
}

struct Open {
    halves: Halves,
    /// The number of the next line.
    next: u64,
    /// Bytes since the last mark.
    unmarked_bytes: usize,
}

/// Encoded lines.
struct Piece {
    bytes: Vec<u8>,
    lines: u64,
}

/// A log in `state_dir`.
pub(super) fn open(
    state_dir: &Path,
    tally: &Arc<Tally>,
    listener: Option<Listener>,
) -> (Log, LogWriter) {
    let (sender, receiver) = mpsc::channel(QUEUED_PIECES_MAX);
    let queued_bytes = Arc::new(AtomicUsize::new(0));
    let missed = Arc::new(AtomicU64::new(0));
    let log = Log {
        pieces: sender,
        queued_bytes: Arc::clone(&queued_bytes),
        missed: Arc::clone(&missed),
        tally: Arc::clone(tally),
        listener,
    };
    let writer = LogWriter {
        pieces: receiver,
        queued_bytes,
        file: LogFile {
            directory: state_dir.join(DIRECTORY),
            tally: Arc::clone(tally),
            missed,
            open: None,
        },
    };
    (log, writer)
}

/// The last `lines_max` lines of the log in an execution's state directory, oldest first. Blocking; no log is no line.
pub fn log_tail(state_dir: &Path, lines_max: usize) -> io::Result<Vec<LogLine>> {
    Ok(LogReader::open(state_dir, None)
        .tail(lines_max, &LogFilter::default())?
        .lines)
}

impl Log {
    /// Says one line.
    pub(super) fn say(&self, level: LogLevel, stage: Option<StageName>, message: String) {
        let line = LogLine {
            at: now(),
            level,
            stage,
            message,
        };
        if let Some(listener) = &self.listener {
            listener(&line);
        }
        let mut bytes = Vec::with_capacity(line.message.len() + 100);
        encode(&mut bytes, &line);
        self.queue(Piece { bytes, lines: 1 });
    }

    /// Says one line of the runner's own.
    pub(super) fn runner(&self, level: LogLevel, message: impl Into<String>) {
        self.say(level, None, message.into());
    }

    fn queue(&self, piece: Piece) {
        let (bytes, lines) = (piece.bytes.len(), piece.lines);
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = queued == 0 || queued + bytes <= QUEUED_BYTES_MAX;
        if !fits || self.pieces.try_send(piece).is_err() {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            count(&self.tally.log_lines_dropped, lines);
            count(&self.missed, lines);
        }
    }
}

impl LineSink for Log {
    fn records(&self, records: &mut dyn Iterator<Item = &[u8]>) {
        let at = now();
        let mut piece = Piece {
            bytes: Vec::new(),
            lines: 0,
        };
        for record in records {
            let shown = String::from_utf8_lossy(&record[..record.len().min(MESSAGE_BYTES_MAX)]);
            let line = LogLine {
                at,
                level: LogLevel::Record,
                stage: None,
                message: shown.into_owned(),
            };
            encode(&mut piece.bytes, &line);
            piece.lines += 1;
        }
        if piece.lines > 0 {
            self.queue(piece);
        }
    }
}

impl sluice_sandbox::LogSink for Log {
    fn log(&self, stage: &str, level: sluice_sandbox::Level, message: &str) {
        use sluice_sandbox::Level;
        let level = match level {
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        self.say(level, stage.parse().ok(), message.to_owned());
    }
}

impl LogWriter {
    /// Writes until `done`, then what is still queued.
    pub(super) async fn run(self, done: CancellationToken) {
        let Self {
            pieces: mut queue,
            queued_bytes,
            mut file,
        } = self;
        let mut pieces = Vec::new();
        loop {
            let ended = tokio::select! {
                biased;
                received = queue.recv_many(&mut pieces, QUEUED_PIECES_MAX) => received == 0,
                () = done.cancelled() => true,
            };
            let written: usize = pieces.iter().map(|piece| piece.bytes.len()).sum();
            let work = move || {
                file.write(&pieces);
                pieces.clear();
                (file, pieces)
            };
            match tokio::task::spawn_blocking(work).await {
                Ok(back) => (file, pieces) = back,
                // Only a runtime that shuts down or a bug gets here: the log ends, the execution does not.
                Err(_) => return,
            }
            queued_bytes.fetch_sub(written, Ordering::Relaxed);
            if ended {
                return;
            }
        }
    }

    /// Writes what is queued, here and now, for an execution that never starts. Blocking.
    pub(super) fn write_now(mut self) {
        let pieces: Vec<_> = std::iter::from_fn(|| self.pieces.try_recv().ok()).collect();
        self.file.write(&pieces);
    }
}

impl LogFile {
    fn write(&mut self, pieces: &[Piece]) {
        let lines: u64 = pieces.iter().map(|piece| piece.lines).sum();
        if lines > 0 && self.append(pieces).is_err() {
            // The next lines open the files anew.
            self.open = None;
            count(&self.tally.log_lines_dropped, lines);
            count(&self.missed, lines);
        }
    }

    fn append(&mut self, pieces: &[Piece]) -> io::Result<()> {
        // A version that could not start has its say in the log of the one that runs.
        if self
            .open
            .as_ref()
            .is_some_and(|open| !open.halves.is_as_left())
        {
            self.open = None;
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let halves = Halves::open(self.directory.clone(), HALF_BYTES_MAX)?;
                let next = next_number(&self.directory)?;
                self.open.insert(Open {
                    halves,
                    next,
                    unmarked_bytes: MARK_EVERY_BYTES,
                })
            }
        };
        let missed = self.missed.swap(0, Ordering::Relaxed);
        let bytes: usize = pieces.iter().map(|piece| piece.bytes.len()).sum();
        let bytes = bytes + MARK_BYTES_MAX * (2 + bytes / MARK_EVERY_BYTES);
        let mut text = Vec::with_capacity(bytes);
        let mut next = open.next + missed;
        let mut unmarked_bytes = match missed > 0 || open.halves.would_begin(bytes) {
            true => MARK_EVERY_BYTES,
            false => open.unmarked_bytes,
        };
        for piece in pieces {
            if unmarked_bytes >= MARK_EVERY_BYTES {
                push_mark(&mut text, next);
                unmarked_bytes = 0;
            }
            text.extend_from_slice(&piece.bytes);
            unmarked_bytes += piece.bytes.len();
            next += piece.lines;
        }
        let appended = open.halves.append(&text);
        match appended {
            Ok(_) => (open.next, open.unmarked_bytes) = (next, unmarked_bytes),
            Err(_) => count(&self.missed, missed),
        }
        appended.map(drop)
    }
}

fn push_mark(text: &mut Vec<u8>, next: u64) {
    text.extend_from_slice(MARK);
    text.extend_from_slice(next.to_string().as_bytes());
    text.extend_from_slice(b"}\n");
}

/// The number in a mark; `None` for any other line. Neither has its newline.
pub(super) fn mark_of(line: &[u8]) -> Option<u64> {
    let number = line.strip_prefix(MARK)?.strip_suffix(b"}")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// The number of the line that comes next in the log in `directory`.
fn next_number(directory: &Path) -> io::Result<u64> {
    for name in [CURRENT, PREVIOUS] {
        let Some(mut file) = open_existing(&directory.join(name))? else {
            continue;
        };
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes)?;
        let mut next = None;
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            next = mark_of(line).or(Some(next.unwrap_or(1) + 1));
        }
        if let Some(next) = next {
            return Ok(next);
        }
    }
    Ok(1)
}

fn encode(bytes: &mut Vec<u8>, line: &LogLine) {
    serde_json::to_writer(&mut *bytes, line).expect("a log line has nothing that JSON cannot say");
    bytes.push(b'\n');
}

/// The wall clock, for people to read.
pub(super) fn now() -> UnixMs {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    UnixMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
