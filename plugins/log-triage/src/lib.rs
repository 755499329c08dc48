//! Reports what is in a log once it has ended: levels, the most frequent message templates with when they were seen first
//! and last, and bursts.
//!
//! ```text
//! config = { format = "both", top = 20, window_s = 60, burst_factor = 5, burst_lines = 20, bursts = 10, similarity_percent = 50 }
//! ```
//!
//! All of these may be left out; what is above are the defaults, but for `format`: `json` (one record), `text` (a few lines) or
//! `both`. Which lines it understands says [`sluice_log_lines`]; what a template is, `templates`; what a burst is, `bursts`.
//! Lines of no known form count too, without a time. Memory is bounded: what finds no room is counted as `left_out`.

mod bursts;
mod mask;
mod report;
mod templates;

use std::collections::BTreeMap;

use serde::Deserialize;
use sluice_log_lines::{Form, Level, Moment, read};
use sluice_sdk::{Decision, Emit, Fault, Record, RecordStage, Report, report};

use bursts::{Series, Subject};
use templates::{Templates, earlier};

/// Bytes of a message that are looked at.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// Most templates and bursts that a report names: a person reads the first few.
const NAMED_MAX: usize = 1_000;
/// A day: bursts over longer times are trends.
const WINDOW_S_MAX: u32 = 24 * 60 * 60;
/// A log without years that goes back by more than half a year has begun a new one.
const NEW_YEAR_MS: i64 = 183 * 24 * 60 * 60 * 1000;
/// What is added then: to the next year with a 29th of February, in which every day keeps its name.
const YEAR_MS: i64 = 1461 * 24 * 60 * 60 * 1000;

/// What the report is to be like.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How it is written.
    pub format: Format,
    /// Templates that it names.
    pub top: usize,
    /// Seconds of a window in which bursts are looked for.
    pub window_s: u32,
    /// How many times the median is a burst.
    pub burst_factor: u32,
    /// Lines of a window below which it is none.
    pub burst_lines: u32,
    /// Bursts that it names, the largest.
    pub bursts: usize,
    /// Equal words in a hundred that make two messages alike.
    pub similarity_percent: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            format: Format::Json,
            top: 20,
            window_s: 60,
            burst_factor: 5,
            burst_lines: 20,
            bursts: 10,
            similarity_percent: 50,
        }
    }
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One record.
    Json,
    /// A few lines for people, each a record.
    Text,
    /// The record, then the lines.
    Both,
}

/// The stage.
#[derive(Debug)]
pub struct LogTriage {
    config: Config,
    lines: u64,
    blank: u64,
    without_time: u64,
    first: Option<Moment>,
    last: Option<Moment>,
    levels: BTreeMap<Level, u64>,
    forms: BTreeMap<Form, u64>,
    templates: Templates,
    series: Series,
    /// The latest moment without a year, and what to add to those that follow.
    year: (Option<i64>, i64),
    /// Reused from line to line.
    masked: String,
}

impl RecordStage for LogTriage {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        let within = |name: &str, value: usize, most: usize| {
            let wrong = !(1..=most).contains(&value);
            wrong.then(|| format!("config: `{name}` is {value}, and may be 1 to {most}"))
        };
        let wrong = within("top", config.top, NAMED_MAX)
            .or_else(|| within("bursts", config.bursts, NAMED_MAX))
            .or_else(|| within("window_s", config.window_s as usize, WINDOW_S_MAX as usize))
            .or_else(|| within("burst_factor", config.burst_factor as usize, 1_000_000))
            .or_else(|| within("similarity_percent", config.similarity_percent, 100));
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        Ok(Self {
            config,
            lines: 0,
            blank: 0,
            without_time: 0,
            first: None,
            last: None,
            levels: BTreeMap::new(),
            forms: BTreeMap::new(),
            templates: Templates::new(config.similarity_percent),
            series: Series::new(i64::from(config.window_s) * 1000),
            year: (None, 0),
            masked: String::new(),
        })
    }

    fn record(&mut self, record: Record<'_>, _emit: &mut Emit) -> Decision {
        let text = String::from_utf8_lossy(&record);
        if text.trim().is_empty() {
            self.blank += 1;
            return Decision::Drop;
        }
        let line = read(&text);
        let at = line.at.map(|at| self.with_year(at));
        self.lines += 1;
        *self.levels.entry(line.level).or_default() += 1;
        *self.forms.entry(line.form).or_default() += 1;
        let message = &line.message[..line.message.floor_char_boundary(MESSAGE_BYTES_MAX)];
        self.masked.clear();
        mask::mask(message, &mut self.masked);
        let template = self.templates.add(line.level, &self.masked, message, at);
        match at {
            Some(at) => {
                self.first = earlier(self.first, Some(at));
                self.last = self.last.max(Some(at));
                self.series.add(Subject::All, at.ms);
                if let Some(template) = template {
                    self.series.add(Subject::Template(template), at.ms);
                }
            }
            None => self.without_time += 1,
        }
        Decision::Drop
    }
}

impl LogTriage {
    /// A moment without a year, after those before it.
    fn with_year(&mut self, at: Moment) -> Moment {
        if at.has_year {
            return at;
        }
        let (latest, added) = &mut self.year;
        let mut at = at.plus_ms(*added);
        let behind = latest.map_or(0, |latest| latest - at.ms);
        if behind > NEW_YEAR_MS {
            *added += YEAR_MS;
            at = at.plus_ms(YEAR_MS);
        } else if behind < -NEW_YEAR_MS && *added > 0 {
            // A straggler of the old year.
            at = at.plus_ms(-YEAR_MS);
        }
        *latest = (*latest).max(Some(at.ms));
        at
    }
}

impl Report for LogTriage {
    fn finish(&mut self, emit: &mut Emit) -> Result<(), Fault> {
        report::write(self, emit);
        Ok(())
    }
}

report!(LogTriage);

#[cfg(test)]
mod tests;
