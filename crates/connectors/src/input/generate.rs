//! `[input.generate]`: records made from a template, at an interval or as fast as they are taken.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use sluice_model::pipeline::Template;
use tokio::time::Instant;

use super::{InputBatch, Next, Position};

/// A generator that is late by more than this (the machine slept, the output stood still) does not make up for it.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct GenerateInput {
    interval: Option<Duration>,
    count: Option<u64>,
    template: Template,
    seq: u64,
    /// When the next record is due; with an interval only.
    due: Instant,
    now: NowText,
}

impl GenerateInput {
    pub(super) fn new(
        interval: Option<Duration>,
        count: Option<u64>,
        template: Template,
        position: Option<Position>,
    ) -> Self {
        let seq = match position {
            Some(Position::Generate { seq }) => seq,
            _ => 0,
        };
        let now = NowText {
            wanted: template.uses_now(),
            ..NowText::default()
        };
        Self {
            interval: interval.filter(|interval| !interval.is_zero()),
            count,
            template,
            seq,
            due: Instant::now(),
            now,
        }
    }

    pub(super) async fn next(&mut self, into: &mut InputBatch) -> Next {
        let due = match self.interval {
            Some(interval) => {
                if self.left() > 0 {
                    tokio::time::sleep_until(self.due).await;
                }
                self.due_now(interval)
            }
            None => u64::MAX,
        };
        let mut wanted = due.min(self.left());
        while wanted > 0
            && into.has_room(self.template.as_written().len())
            && into.batch.len() < sluice_record::BATCH_RECORDS_MAX
        {
            let now = self.now.text();
            self.template
                .render_into(&mut into.batch.data, self.seq, now);
            let end = u32::try_from(into.batch.data.len()).expect("a batch stays below 4 GiB");
            into.batch.ends.push(end);
            self.seq += 1;
            wanted -= 1;
            if let Some(interval) = self.interval {
                self.due += interval;
            }
        }
        if into.is_empty() {
            return Next::End;
        }
        into.position = Some(Position::Generate { seq: self.seq });
        Next::Batch
    }

    fn left(&self) -> u64 {
        self.count.unwrap_or(u64::MAX).saturating_sub(self.seq)
    }

    /// How many records are due, one at least; being very late moves the schedule instead.
    fn due_now(&mut self, interval: Duration) -> u64 {
        let now = Instant::now();
        let late = now.saturating_duration_since(self.due);
        if late > CATCH_UP_MAX.max(interval) {
            self.due = now;
            return 1;
        }
        let missed = late.as_nanos() / interval.as_nanos();
        u64::try_from(missed).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// The time as text, formatted anew only when the millisecond changed.
#[derive(Debug, Default)]
struct NowText {
    wanted: bool,
    millisecond: i64,
    text: String,
}

impl NowText {
    fn text(&mut self) -> &str {
        if self.wanted {
            let now = Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH);
            if now.as_millisecond() != self.millisecond || self.text.is_empty() {
                use std::fmt::Write as _;
                self.millisecond = now.as_millisecond();
                self.text.clear();
                write!(self.text, "{now:.3}").expect("a String takes every text");
            }
        }
        &self.text
    }
}
