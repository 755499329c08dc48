//! What the project promises about its own files, checked by reading them.
//!
//! ```text
//!   files of the project -> Project -> manifests: who may use what     -> Problem { path, line, what }
//!                                   -> sources:   what code may not do
//!                                   -> texts:     words, links, sizes
//! ```
//!
//! Sources are read as text in which comments and literals are blanked out: no rule needs a compiler. What a rule
//! permits by name stands in a table next to it, with the reason, and an entry that nothing needs is a problem itself.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;

pub mod manifests;
pub mod mask;
pub mod sources;
pub mod texts;

/// Something that breaks a promise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, relative to the project.
    pub path: String,
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, and where it belongs instead.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// A file that is text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Relative to the project, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
}

impl SourceFile {
    /// A file that may not exist: for trying the rules out.
    pub fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    pub(crate) fn problem(&self, line: usize, what: impl Into<String>) -> Problem {
        Problem {
            path: self.path.clone(),
            line,
            what: what.into(),
        }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// Every text file of the project.
#[derive(Clone, Debug, Default)]
pub struct Project {
    /// By path.
    pub files: Vec<SourceFile>,
    /// Every path, directories and files that are no text too.
    pub paths: BTreeSet<String>,
}

/// Directories, by name or by path, that hold what was built, not what was written.
const SKIPPED: [&str; 4] = [".git", "target", "plugins/target", "plugins/dist"];

/// Directories are never nested deeper than this.
const DEPTH_MAX: usize = 12;

impl Project {
    /// Reads the project at `root`.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut project = Self::default();
        project.read_dir(root, "", 0)?;
        project.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(project)
    }

    fn read_dir(&mut self, dir: &Path, prefix: &str, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(io::Error::other(format!("{prefix} is nested too deeply")));
        }
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(io::Error::other(format!("a name in {prefix} is not UTF-8")));
            };
            let path = format!("{prefix}{name}");
            if SKIPPED.contains(&path.as_str()) || is_written_by_a_run(&path) {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.read_dir(&entry.path(), &format!("{path}/"), depth + 1)?;
            } else if kind.is_file() {
                let bytes = match std::fs::read(entry.path()) {
                    // An editor's file that is gone by now.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    bytes => bytes?,
                };
                if let Ok(text) = String::from_utf8(bytes) {
                    self.files.push(SourceFile {
                        path: path.clone(),
                        text,
                    });
                }
            }
            self.paths.insert(path);
        }
        Ok(())
    }
}

/// What examples and snapshot tests write beside their sources; version control ignores the same files.
fn is_written_by_a_run(path: &str) -> bool {
    path.ends_with(".err.new") || (path.starts_with("pipelines/") && path.contains("/output."))
}

/// Every problem of the project, by file and line.
pub fn check(project: &Project) -> Vec<Problem> {
    let mut problems = manifests::check(project);
    problems.extend(sources::check(project));
    problems.extend(texts::check(project));
    problems.sort();
    problems.dedup();
    problems
}
