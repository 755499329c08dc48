//! Words, links and sizes, in every text of the project.

use super::{Problem, Project, SourceFile};

/// Longest source file, in lines: what is longer has a second thing in it.
const SOURCE_LINES_MAX: usize = 800;

/// Longest file of tests: a list of them reads from anywhere.
const TEST_LINES_MAX: usize = 1000;

/// Longest `ARCHITECTURE.md`: it is read in one sitting.
const ARCHITECTURE_LINES_MAX: usize = 250;

/// Sources that may be longer, up to a bound of their own.
const LONGER: [(&str, usize, &str); 1] = [(
    "host/src/store/sqlite.rs",
    1500,
    "one statement or two for each verb of the store, in the order of the trait",
)];

/// Marks of work that is not finished.
const UNFINISHED: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("HA", "CK"),
];

/// Words that mean nothing to whoever reads the project: places of one machine, and documents that are not here.
const FOREIGN: [&str; 13] = [
    concat!("/wo", "rk/"),
    concat!("../sha", "red"),
    concat!("session of ", "work"),
    concat!("house-", "style"),
    concat!("house ", "style"),
    concat!("measured-", "facts"),
    concat!("failure-", "matrix.md"),
    concat!("design", ".md"),
    concat!("design ", "section"),
    concat!("cla", "ude"),
    concat!("anthro", "pic"),
    concat!("language ", "model"),
    concat!("chat", "gpt"),
];

/// Where a foreign word is meant: the checks' machine keeps the real logs beside the checkout.
const FOREIGN_BUT_MEANT: [(&str, &str); 1] = [(".ci/run", concat!("../sha", "red"))];

/// Made by a program, not written.
const MADE: [&str; 3] = ["Cargo.lock", "plugins/Cargo.lock", "LICENSE"];

/// Every problem of the texts.
pub fn check(project: &Project) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in &project.files {
        if MADE.contains(&file.path.as_str()) {
            continue;
        }
        check_words(file, &mut problems);
        check_length(file, &mut problems);
        check_whitespace(file, &mut problems);
        check_script(file, &mut problems);
        if file.path.ends_with(".md") {
            check_links(file, project, &mut problems);
        }
    }
    for (path, _, _) in LONGER {
        let is_long = project
            .files
            .iter()
            .any(|file| file.path == path && file.text.lines().count() > SOURCE_LINES_MAX);
        if !is_long && project.paths.contains("tests/src/tidy/texts.rs") {
            let what = format!("{path} needs no longer bound any more: take its entry out");
            problems.push(Problem {
                path: "tests/src/tidy/texts.rs".to_owned(),
                line: 1,
                what,
            });
        }
    }
    problems
}

fn check_words(file: &SourceFile, problems: &mut Vec<Problem>) {
    for (at, line) in file.text.lines().enumerate() {
        for word in UNFINISHED {
            if !super::mask::positions(line, word).is_empty() {
                problems
                    .push(file.problem(at + 1, format!("`{word}`: finish it, or write an issue")));
            }
        }
        let lower = line.to_lowercase();
        for word in FOREIGN {
            if lower.contains(word) && !FOREIGN_BUT_MEANT.contains(&(file.path.as_str(), word)) {
                let what = format!("`{word}` means nothing to whoever reads this project");
                problems.push(file.problem(at + 1, what));
            }
        }
    }
}

fn check_length(file: &SourceFile, problems: &mut Vec<Problem>) {
    let lines = file.text.lines().count();
    let bound = if file.path.ends_with("/tests.rs") || file.path.contains("/tests/") {
        TEST_LINES_MAX
    } else if file.is_rust() {
        LONGER
            .iter()
            .find(|(path, _, _)| *path == file.path)
            .map_or(SOURCE_LINES_MAX, |(_, bound, _)| *bound)
    } else if file.path == "ARCHITECTURE.md" {
        ARCHITECTURE_LINES_MAX
    } else {
        return;
    };
    if lines > bound {
        let what = format!("{lines} lines, the most is {bound}: there are two things in it");
        problems.push(file.problem(bound, what));
    }
}

/// Files that people write by hand; what tests compare with byte for byte is left alone.
fn is_prose_or_settings(path: &str) -> bool {
    let is_case = path.contains("/cases/") || path.contains("/snapshots/");
    let ends = [".md", ".toml", ".wit", ".sh", ".rs"];
    !is_case && (ends.iter().any(|end| path.ends_with(end)) || is_script(path))
}

fn is_script(path: &str) -> bool {
    let in_folder = path
        .strip_prefix("scripts/")
        .or_else(|| path.strip_prefix(".ci/"));
    in_folder.is_some_and(|name| !name.contains('.') || name.ends_with(".sh"))
}

fn check_whitespace(file: &SourceFile, problems: &mut Vec<Problem>) {
    if !is_prose_or_settings(&file.path) {
        return;
    }
    for (at, line) in file.text.split('\n').enumerate() {
        // Rust has its own formatter, and text inside literals.
        if !file.is_rust() && line.ends_with([' ', '\t', '\r']) {
            problems.push(file.problem(at + 1, "white space at the end of the line"));
        }
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        let lines = file.text.lines().count();
        problems.push(file.problem(lines, "the last line has no end"));
    }
}

fn check_script(file: &SourceFile, problems: &mut Vec<Problem>) {
    if !is_script(&file.path) {
        return;
    }
    let mut lines = file.text.lines();
    let has_interpreter = lines.next() == Some("#!/usr/bin/env bash");
    let has_header = lines.next().is_some_and(|line| line.starts_with("# "));
    if !has_interpreter || !has_header {
        let what = "a script opens with `#!/usr/bin/env bash` and a comment that says what it does";
        problems.push(file.problem(1, what));
    }
    if !file.path.ends_with(".sh") && !file.text.contains("set -euo pipefail") {
        problems.push(file.problem(
            1,
            "a script without `set -euo pipefail` goes on after a failure",
        ));
    }
}

/// Links to files, and in `ARCHITECTURE.md` every path in backticks, lead somewhere.
fn check_links(file: &SourceFile, project: &Project, problems: &mut Vec<Problem>) {
    let directory = match file.path.rsplit_once('/') {
        Some((directory, _)) => format!("{directory}/"),
        None => String::new(),
    };
    for (at, line) in file.text.lines().enumerate() {
        for (start, _) in line.match_indices("](") {
            let target = line[start + 2..]
                .split([')', '#'])
                .next()
                .unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = resolve(&directory, target);
            if !project.paths.contains(&path) {
                problems.push(file.problem(at + 1, format!("the link to {target} leads nowhere")));
            }
        }
        if file.path != "ARCHITECTURE.md" {
            continue;
        }
        for name in line.split('`').skip(1).step_by(2) {
            let looks_like_a_path = name.contains('/')
                && (name.ends_with(".rs") || name.ends_with('/'))
                && !name.contains([' ', '{', '*', '<', ':']);
            if looks_like_a_path && !project.paths.contains(name.trim_end_matches('/')) {
                problems.push(file.problem(at + 1, format!("there is no {name}")));
            }
        }
    }
}

fn resolve(directory: &str, target: &str) -> String {
    let joined = format!("{directory}{target}");
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
