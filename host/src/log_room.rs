//! How much of logs one answer may hold: the room that the reads of its executions share.
//!
//! Each read takes room for what it keeps, before it keeps it; who finds none keeps nothing of its execution and gives all
//! of it back. So an answer and everything that is on its way to it stay within the bound, however many nodes say
//! however much.

use std::collections::VecDeque;
use std::sync::Arc;

use sluice_protocol::LogLine;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of lines in one answer: more than a person reads, and so little that all readers at once fit into a small
/// machine.
const LOG_ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Log lines taken from one execution; what its edge gives at most.
const LOG_LINES_MAX: usize = 10_000;

/// What a line takes beyond its texts.
const LINE_BYTES: usize = 96;

/// The room of one answer. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct LogRoom {
    bytes: Arc<Semaphore>,
    bytes_max: usize,
}

/// The newest lines of one execution, with the room that they take.
#[derive(Debug)]
pub(crate) struct KeptLines {
    room: LogRoom,
    lines: VecDeque<LogLine>,
    taken: Option<OwnedSemaphorePermit>,
}

impl LogRoom {
    pub(crate) fn new() -> Self {
        Self::of(LOG_ANSWER_BYTES_MAX)
    }

    fn of(bytes_max: usize) -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
        }
    }

    /// Nothing of an execution yet.
    pub(crate) fn begin(&self) -> KeptLines {
        KeptLines {
            room: self.clone(),
            lines: VecDeque::new(),
            taken: None,
        }
    }
}

impl KeptLines {
    /// Keeps these too, and of all the newest; an error says what to do, and then nothing of the execution is kept.
    pub(crate) fn add(&mut self, lines: Vec<LogLine>) -> Result<(), String> {
        let bytes = lines.iter().map(bytes_of).sum();
        if let Err(why) = self.take(bytes) {
            self.lines.clear();
            self.taken = None;
            return Err(why);
        }
        self.lines.extend(lines);
        let over = self.lines.len().saturating_sub(LOG_LINES_MAX);
        let bytes = self.lines.drain(..over).map(|line| bytes_of(&line)).sum();
        if let Some(taken) = &mut self.taken {
            drop(taken.split(bytes));
        }
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<(), String> {
        let full = || {
            let mib = self.room.bytes_max / (1024 * 1024);
            format!("the logs have more than {mib} MiB: use --node or a smaller --tail")
        };
        let permits = u32::try_from(bytes).map_err(|_| full())?;
        let more = Arc::clone(&self.room.bytes)
            .try_acquire_many_owned(permits)
            .map_err(|_| full())?;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        Ok(())
    }

    /// The lines, oldest first. What they took stays taken: they are part of the answer.
    pub(crate) fn into_lines(self) -> impl Iterator<Item = LogLine> {
        if let Some(taken) = self.taken {
            taken.forget();
        }
        self.lines.into_iter()
    }
}

fn bytes_of(line: &LogLine) -> usize {
    line.message.len() + line.stage.len() + line.level.len() + LINE_BYTES
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn lines(count: usize, bytes: usize) -> Vec<LogLine> {
        let line = |at| LogLine {
            at_ms: at,
            message: "x".repeat(bytes - LINE_BYTES),
            ..LogLine::default()
        };
        (0..).map(line).take(count).collect()
    }

    #[test]
    fn an_answer_holds_so_much_and_an_execution_that_finds_no_room_gives_all_back() {
        let room = LogRoom::of(1024 * 1024);
        let (mut first, mut second) = (room.begin(), room.begin());
        first.add(lines(4, 64 * 1024)).unwrap();
        second.add(lines(8, 64 * 1024)).unwrap();
        let why = second.add(lines(8, 64 * 1024)).unwrap_err();
        assert_eq!(
            why,
            "the logs have more than 1 MiB: use --node or a smaller --tail"
        );
        assert_eq!(room.bytes.available_permits(), 12 * 64 * 1024);
        drop(second);
        assert_eq!(first.into_lines().count(), 4);
        // What is in the answer counts for as long as there is one; a third fits beside it, and no more than that.
        let mut third = room.begin();
        third.add(lines(12, 64 * 1024)).unwrap();
        assert!(third.add(lines(1, LINE_BYTES)).is_err());
    }

    #[test]
    fn only_the_newest_lines_are_kept_and_the_others_take_no_room() {
        let room = LogRoom::of(2 * 1024 * 1024);
        let mut kept = room.begin();
        for _ in 0..20 {
            kept.add(lines(LOG_LINES_MAX / 2, 100)).unwrap();
        }
        let left = room.bytes.available_permits();
        assert_eq!(left, 2 * 1024 * 1024 - LOG_LINES_MAX * 100);
        assert_eq!(kept.into_lines().count(), LOG_LINES_MAX);
        // A read that is given up gives its room back.
        let mut cut = room.begin();
        cut.add(lines(10, 1_000)).unwrap();
        drop(cut);
        assert_eq!(room.bytes.available_permits(), left);
    }
}
