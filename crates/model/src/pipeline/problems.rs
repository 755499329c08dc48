//! Everything wrong with a pipeline document, each with its place in the text.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

/// Most problems that one check reports: a screenful several times over; a file with more is usually another file.
const PROBLEMS_MAX: usize = 100;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The offending bytes of the text.
    pub span: Range<usize>,
    /// What is wrong, in one line.
    pub message: String,
    /// What stands beside the underlined text; may be empty.
    pub label: String,
    /// What would be right.
    pub help: Option<String>,
}

/// A problem's place and words, for JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProblemReport {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong, in one line.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

/// All problems of one text, in the order of the text; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    dropped_count: usize,
}

impl Problems {
    /// Orders the problems by place and keeps a bounded number; `None` when there are none.
    pub fn of(mut list: Vec<Problem>) -> Option<Self> {
        if list.is_empty() {
            return None;
        }
        list.sort_by_key(|problem| (problem.span.start, problem.span.end));
        let dropped_count = list.len().saturating_sub(PROBLEMS_MAX);
        list.truncate(PROBLEMS_MAX);
        Some(Self {
            list,
            dropped_count,
        })
    }

    /// The problems in the order of the text.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// How many there are, with those past the bound that are only counted.
    pub fn count(&self) -> usize {
        self.list.len() + self.dropped_count
    }

    /// Each problem with line and column in `source`, the text that was checked.
    pub fn reports(&self, source: &str) -> Vec<ProblemReport> {
        let report = |problem: &Problem| {
            let (line, column) = line_and_column(source, problem.span.start);
            let (message, help) = (problem.message.clone(), problem.help.clone());
            ProblemReport {
                line,
                column,
                message,
                help,
            }
        };
        self.list.iter().map(report).collect()
    }

    /// Pictures of every problem: file, line, column, the offending text underlined, what would be right. `source` is
    /// the text that was checked. Ends with a newline.
    pub fn render(&self, file_name: &str, source: &str, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut text = String::new();
        for problem in &self.list {
            text.push_str(&renderer.render(&[group(problem, file_name, source)]));
            text.push_str("\n\n");
        }
        if self.dropped_count > 0 {
            text.push_str(&format!("... and {} more\n\n", self.dropped_count));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    /// One line: how many, and the first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.list.as_slice(), self.count()) {
            ([first, ..], 1) => f.write_str(&first.message),
            ([first, ..], count) => write!(f, "{count} problems, the first: {}", first.message),
            ([], _) => f.write_str("no problem"),
        }
    }
}

impl std::error::Error for Problems {}

fn group<'a>(problem: &'a Problem, file_name: &'a str, source: &'a str) -> Group<'a> {
    let mut annotation = AnnotationKind::Primary.span(on_characters(source, &problem.span));
    if !problem.label.is_empty() {
        annotation = annotation.label(&problem.label);
    }
    let snippet = Snippet::source(source)
        .path(file_name)
        .annotation(annotation);
    let group = Level::ERROR
        .primary_title(&problem.message)
        .element(snippet);
    match &problem.help {
        Some(help) => group.element(Level::HELP.message(help)),
        None => group,
    }
}

/// The span inside the text and on the borders of characters.
fn on_characters(source: &str, span: &Range<usize>) -> Range<usize> {
    let mut start = span.start.min(source.len());
    while !source.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = span.end.clamp(start, source.len());
    while !source.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

fn line_and_column(source: &str, offset: usize) -> (usize, usize) {
    let before = &source[..on_characters(source, &(offset..offset)).start];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}
