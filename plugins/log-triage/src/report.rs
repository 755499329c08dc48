//! Writes what was gathered: one JSON object, and a few lines for people.

use std::fmt::Write as _;

use sluice_log_lines::{Level, Moment};
use sluice_sdk::Emit;
use sluice_sdk::json::{ObjectWriter, json_text, list};

use crate::bursts::{Burst, Subject};
use crate::templates::Template;
use crate::{Format, LogTriage};

/// Templates and bursts that the text names.
const TEXT_LINES_MAX: usize = 10;

/// Everything that the two forms show.
struct Findings<'a> {
    triage: &'a LogTriage,
    /// The most frequent.
    templates: Vec<&'a Template>,
    /// Lines of templates that are not named.
    other_lines: u64,
    /// The largest, in order of time.
    bursts: Vec<Burst>,
    bursts_found: usize,
}

/// Writes the report.
pub(crate) fn write(triage: &LogTriage, emit: &mut Emit) {
    let config = triage.config;
    let order = triage.templates.by_count();
    let (named, others) = order.split_at(config.top.min(order.len()));
    let mut bursts = triage
        .series
        .bursts(config.burst_factor, config.burst_lines);
    let bursts_found = bursts.len();
    bursts.sort_by_key(|burst| (std::cmp::Reverse(burst.lines), burst.from_ms, burst.subject));
    bursts.truncate(config.bursts);
    bursts.sort_by_key(|burst| (burst.from_ms, burst.subject));
    let findings = Findings {
        triage,
        templates: named
            .iter()
            .map(|&index| triage.templates.at(index))
            .collect(),
        other_lines: others
            .iter()
            .map(|&index| triage.templates.at(index).count)
            .sum(),
        bursts,
        bursts_found,
    };
    if config.format != Format::Text {
        findings.json(emit);
    }
    if config.format != Format::Json {
        findings.text(emit);
    }
}

impl Findings<'_> {
    fn json(&self, emit: &mut Emit) {
        let triage = self.triage;
        let mut levels = Vec::new();
        let mut object = ObjectWriter::new(&mut levels);
        for level in Level::ALL {
            if let Some(count) = triage.levels.get(&level) {
                object.integer(level.as_str(), *count);
            }
        }
        object.finish();
        let mut forms = Vec::new();
        let mut object = ObjectWriter::new(&mut forms);
        for (form, count) in &triage.forms {
            object.integer(form.as_str(), *count);
        }
        object.finish();
        let templates = list(&self.templates, |template, out| {
            let mut object = ObjectWriter::new(out);
            object.text("template", template.text().as_str());
            object.text("level", template.level.as_str());
            object.integer("count", template.count);
            object.text("first_seen", shown(template.first).as_deref());
            object.text("last_seen", shown(template.last).as_deref());
            object.text("example", template.example.as_str());
            object.finish();
        });
        let bursts = list(&self.bursts, |burst, out| {
            let mut object = ObjectWriter::new(out);
            object.text("template", self.subject(burst).as_deref());
            object.text("from", self.moment(burst.from_ms).as_str());
            object.text("to", self.moment(burst.to_ms).as_str());
            object.integer("lines", burst.lines);
            object.integer("peak", u64::from(burst.peak));
            object.integer("median", u64::from(burst.median));
            object.finish();
        });

        let mut record = emit.start();
        let mut object = ObjectWriter::new(&mut record);
        object.text("report", "log-triage");
        object.integer("lines", triage.lines);
        object.integer("blank", triage.blank);
        object.integer("without_time", triage.without_time);
        object.text("first_seen", shown(triage.first).as_deref());
        object.text("last_seen", shown(triage.last).as_deref());
        object.raw("levels", json_text(&levels));
        object.raw("forms", json_text(&forms));
        object.integer("templates_found", triage.templates.len() as u64);
        object.raw("templates", json_text(&templates));
        object.integer("lines_of_other_templates", self.other_lines);
        object.integer("lines_left_out", triage.templates.left_out);
        object.integer("window_s", u64::from(triage.config.window_s));
        object.integer("bursts_found", self.bursts_found as u64);
        object.raw("bursts", json_text(&bursts));
        object.integer("burst_lines_left_out", triage.series.left_out);
        object.finish();
        record.finish();
    }

    fn text(&self, emit: &mut Emit) {
        let triage = self.triage;
        let mut head = format!("{} lines", triage.lines);
        if let (Some(first), Some(last)) = (shown(triage.first), shown(triage.last)) {
            say(&mut head, format_args!(" from {first} to {last}"));
        }
        let counts = Level::ALL.into_iter().filter_map(|level| {
            let count = triage.levels.get(&level)?;
            Some(format!("{count} {}", level.as_str()))
        });
        let counts: Vec<String> = counts.collect();
        if !counts.is_empty() {
            say(&mut head, format_args!(": {}", counts.join(", ")));
        }
        emit.push(head.as_bytes());
        for template in self.templates.iter().take(TEXT_LINES_MAX) {
            let level = template.level.as_str();
            let line = format!("{:>8}  {level:<6}  {}", template.count, template.text());
            emit.push(line.as_bytes());
        }
        let more = triage
            .templates
            .len()
            .saturating_sub(TEXT_LINES_MAX.min(self.templates.len()));
        if more > 0 {
            emit.push(format!("          and {more} more templates").as_bytes());
        }
        for burst in self.bursts.iter().take(TEXT_LINES_MAX) {
            let subject = self.subject(burst);
            let line = format!(
                "burst: {} lines from {} to {}, {} in one window where {} is usual: {}",
                burst.lines,
                self.moment(burst.from_ms),
                self.moment(burst.to_ms),
                burst.peak,
                burst.median,
                subject.as_deref().unwrap_or("all lines")
            );
            emit.push(line.as_bytes());
        }
    }

    /// The template of a burst; `None` for one of all lines.
    fn subject(&self, burst: &Burst) -> Option<String> {
        match burst.subject {
            Subject::All => None,
            Subject::Template(index) => Some(self.triage.templates.at(index).text()),
        }
    }

    /// A moment of a window, in the log's own form.
    fn moment(&self, ms: i64) -> String {
        let has_year = self.triage.first.is_none_or(|first| first.has_year);
        Moment { ms, has_year }.to_string()
    }
}

fn shown(at: Option<Moment>) -> Option<String> {
    at.map(|at| at.to_string())
}

fn say(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("a String takes every text");
}
