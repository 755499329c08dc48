//! The programs' logs, written with `--log json`: what happened, by stable event names.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// How many lines of each log a failed test prints, from the end.
const SHOWN_LINES_MAX: usize = 250;

/// One program's log, over all its starts.
#[derive(Clone, Debug)]
pub struct JsonLog {
    path: PathBuf,
}

/// A place in a log: everything after it happened later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(usize);

impl JsonLog {
    /// The log in a file, which need not be there yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything as text; nothing when there is no file.
    pub fn text(&self) -> String {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The end of what is there now.
    pub fn mark(&self) -> Mark {
        Mark(self.text().len())
    }

    /// The lines with this event name, oldest first.
    pub fn events(&self, name: &str) -> Vec<Value> {
        self.events_since(Mark::default(), name)
    }

    /// The lines with this event name that were written after the mark.
    pub fn events_since(&self, mark: Mark, name: &str) -> Vec<Value> {
        self.text()[mark.0..]
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["event"] == name)
            .collect()
    }

    /// The last lines, for a failed test.
    pub fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        let hidden = lines.len().saturating_sub(SHOWN_LINES_MAX);
        let mut out = format!(
            "---- {} ({hidden} earlier lines left out)\n",
            self.path.display()
        );
        for line in &lines[hidden..] {
            out.push_str(line);
            out.push('\n');
        }
        out
    }
}
