//! The API's objects as text for people: tables on a terminal, plain columns elsewhere.
//!
//! Pure: values and a [`Style`] in, text out. Text that came from edges, plugins or files never reaches a terminal with
//! its control characters.

use std::time::Duration;

use comfy_table::{
    Attribute, Cell as TableCell, Color, ColumnConstraint, ContentArrangement, LineStyle, Table,
    TableStyle,
};
use sluice_model::UnixMs;

mod doctor;
mod execution;
mod explain;
mod job;
mod node;
mod plugin;
mod rollout;
mod run;
mod schedule;
mod status;
mod token;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

pub(crate) use doctor::findings;
pub(crate) use execution::{execution_detail, executions, state_text};
pub(crate) use explain::explain;
pub(crate) use job::{job_detail, jobs, unplaced, versions};
pub(crate) use node::{node_detail, nodes};
pub(crate) use plugin::{Inspected, inspected, plugin_detail, plugins};
pub(crate) use rollout::rollout;
pub(crate) use run::{run_detail, run_end, run_task_line, runs};
pub(crate) use schedule::{schedule_detail, schedules, ticks};
pub(crate) use status::status;
pub(crate) use token::{audit, token_detail, tokens};

/// Columns that hold sentences and may be wrapped.
const SENTENCES: &[&str] = &[
    "BY", "CHANGES", "LABELS", "LAST ACK", "NEXT", "NOTE", "OBSERVED", "REASON", "USED BY", "WHY",
];

/// Narrower terminals (some say 0) get unwrapped tables.
const WIDTH_MIN: u16 = 72;

/// How text for people looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    /// Lines and wrapping to the terminal's width; else plain columns, one line each.
    pub(crate) terminal: bool,
    /// Colours.
    pub(crate) color: bool,
}

/// What a cell says beyond its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
}

/// One cell.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

pub(crate) fn cell(text: impl std::fmt::Display) -> Cell {
    toned(text, Tone::Plain)
}

pub(crate) fn toned(text: impl std::fmt::Display, tone: Tone) -> Cell {
    let text = clean(&text.to_string());
    // An empty column would be taken for its neighbour by whoever splits at white space.
    let text = if text.is_empty() {
        "-".to_owned()
    } else {
        text
    };
    Cell { text, tone }
}

pub(crate) fn maybe(value: Option<impl std::fmt::Display>) -> Cell {
    value.map_or_else(|| cell(""), cell)
}

/// Columns with a header; ends with a newline.
pub(crate) fn table(style: Style, header: &[&str], rows: Vec<Vec<Cell>>) -> String {
    if !style.terminal {
        return columns(header, &rows);
    }
    let mut table = Table::new();
    table
        .load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')))
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.iter().map(|name| {
            let name = TableCell::new(name);
            if style.color {
                name.add_attribute(Attribute::Bold)
            } else {
                name
            }
        }));
    for row in rows {
        table.add_row(row.into_iter().map(|cell| {
            let color = match cell.tone {
                Tone::Plain => None,
                Tone::Good => Some(Color::Green),
                Tone::Warn => Some(Color::Yellow),
                Tone::Bad => Some(Color::Red),
            };
            match color.filter(|_| style.color) {
                Some(color) => TableCell::new(cell.text).fg(color),
                None => TableCell::new(cell.text),
            }
        }));
    }
    fit(&mut table, header);
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// Wraps sentences only: a name or a number broken over lines helps nobody. A terminal too narrow for that gets long
/// lines and wraps them itself.
fn fit(table: &mut Table, header: &[&str]) {
    if table.width().is_none_or(|width| width < WIDTH_MIN) {
        table.set_content_arrangement(ContentArrangement::Disabled);
        return;
    }
    for (index, name) in header.iter().enumerate() {
        if !SENTENCES.contains(name)
            && let Some(column) = table.column_mut(index)
        {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

fn columns(header: &[&str], rows: &[Vec<Cell>]) -> String {
    let mut widths: Vec<_> = header.iter().map(|name| name.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, &width) in cells.zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(&mut header.iter().copied());
    for row in rows {
        line(&mut row.iter().map(|cell| cell.text.as_str()));
    }
    text
}

/// `name: value` lines, values in one column; what is empty is left out.
pub(crate) fn fields(list: &[(&str, Cell)]) -> String {
    let shown = || list.iter().filter(|(_, cell)| cell.text != "-");
    let width = shown().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    shown()
        .map(|(name, cell)| format!("{:width$} {}\n", format!("{name}:"), cell.text))
        .collect()
}

/// A time in whole seconds, RFC 3339 in UTC.
pub(crate) fn at(time: UnixMs) -> String {
    let text = time.to_string();
    match text.split_once('.') {
        Some((seconds, rest)) if rest.ends_with('Z') => format!("{seconds}Z"),
        _ => text,
    }
}

/// What comes next and when, in one phrase.
pub(crate) fn next(action: Option<&str>, time: Option<UnixMs>) -> String {
    match (action.unwrap_or_default(), time) {
        ("", None) => String::new(),
        ("", Some(time)) => format!("at {}", at(time)),
        (action, None) => action.to_owned(),
        (action, Some(time)) => format!("{action} at {}", at(time)),
    }
}

pub(crate) fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// A duration as it is written on the command line.
pub(crate) fn duration(time: Duration) -> String {
    let ms = time.as_millis();
    match ms {
        0 => "0s".to_owned(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

/// A size as people write it.
pub(crate) fn size(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    match bytes {
        0..KIB => format!("{bytes} B"),
        KIB..MIB => format!("{:.1} KiB", bytes as f64 / KIB as f64),
        _ => format!("{:.1} MiB", bytes as f64 / MIB as f64),
    }
}

/// The text without anything that a terminal would act upon; line breaks become spaces.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.trim_end().chars() {
        match char {
            '\n' | '\t' => out.push(' '),
            '\r' => {}
            char if char.is_control() => out.extend(char.escape_unicode()),
            char => out.push(char),
        }
    }
    out
}
