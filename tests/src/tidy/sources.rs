//! What code may not do: act where it should decide, own the process from a library, sleep in a test.

use super::manifests::NO_IO;
use super::mask::{lines_with, mask, mask_tests, positions, test_modules};
use super::{Problem, Project, SourceFile};

/// Reads a clock, draws a random number, touches the world, or has an order that changes from run to run.
const ACTS: [(&str, &str); 17] = [
    ("std::fs", "touches files"),
    ("std::net", "touches the network"),
    ("std::process", "touches processes"),
    ("std::thread", "starts threads"),
    ("std::env", "reads the environment"),
    ("tokio", "runs on an executor"),
    ("rusqlite", "knows the store's engine"),
    ("Instant::now", "reads a clock: take `now` as an argument"),
    (
        "SystemTime::now",
        "reads a clock: take `now` as an argument",
    ),
    ("Timestamp::now", "reads a clock: take `now` as an argument"),
    ("Zoned::now", "reads a clock: take `now` as an argument"),
    (
        "new_v4",
        "draws a random number: take the bytes as an argument",
    ),
    (
        "getrandom",
        "draws a random number: take the bytes as an argument",
    ),
    (
        "thread_rng",
        "draws a random number: take the bytes as an argument",
    ),
    ("RandomState", "has another order in every run"),
    ("HashMap", "has another order in every run: use a BTreeMap"),
    ("HashSet", "has another order in every run: use a BTreeSet"),
];

/// Parts of `std` that a braced `use` must not smuggle in.
const STD_PARTS: [&str; 5] = ["env", "fs", "net", "process", "thread"];

/// Modules that decide inside crates that act.
const DECIDING: [&str; 4] = [
    "edge-runtime/src/core.rs",
    "edge-runtime/src/core/",
    "host/src/core.rs",
    "host/src/core/",
];

/// Belongs to the process, so to a program, never to a library: two libraries of ours live in one process.
const PROCESS_WIDE: [&str; 11] = [
    "tracing_subscriber",
    "set_global_default",
    "install_default",
    "signal::ctrl_c",
    "signal::unix",
    "process::exit",
    "process::abort",
    "set_hook",
    "set_var",
    "set_current_dir",
    "static mut",
];

/// Libraries that may have such a word after all: a persist point ends the process, in test builds only.
const PROCESS_WIDE_OK: [(&str, &str); 1] =
    [("crates/state-dir/src/failpoint.rs", "process::abort")];

/// Programs: everything else in the workspace is a library.
const PROGRAMS: [&str; 4] = [
    "crates/cli/src/",
    "edge-runtime/src/main.rs",
    "tests/",
    "plugins/",
];

/// Where `unsafe` may stand: machine code is mapped there, and nowhere else.
const UNSAFE: [&str; 1] = ["crates/sandbox/src/"];

/// How many lines above a sleep may stand the deadline that its loop has.
const DEADLINE_ABOVE_MAX: usize = 14;

/// Every problem of the sources.
pub fn check(project: &Project) -> Vec<Problem> {
    let rust: Vec<(&SourceFile, String)> = project
        .files
        .iter()
        .filter(|file| file.is_rust())
        .map(|file| (file, mask(&file.text)))
        .collect();
    let test_files: Vec<String> = rust
        .iter()
        .flat_map(|(file, masked)| {
            let directory = module_directory(&file.path);
            test_modules(masked)
                .into_iter()
                .map(move |name| format!("{directory}{name}"))
        })
        .collect();
    let mut problems = Vec::new();
    for (file, masked) in &rust {
        let is_test = is_test_path(&file.path)
            || test_files.iter().any(|module| {
                file.path
                    .strip_prefix(module.as_str())
                    .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
            });
        let program = if is_test {
            String::new()
        } else {
            mask_tests(masked)
        };
        check_header(file, &mut problems);
        check_acting(file, &program, &mut problems);
        check_process_wide(file, &program, &mut problems);
        check_everywhere(file, masked, &mut problems);
        check_sleeps(file, masked, &program, &mut problems);
    }
    problems
}

/// Where the modules of a file lie: `a/b.rs` has them in `a/b/`, `a/lib.rs` in `a/`.
fn module_directory(path: &str) -> String {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    match stem.rsplit_once('/') {
        Some((directory, "lib" | "main" | "mod")) => format!("{directory}/"),
        _ => format!("{stem}/"),
    }
}

fn is_test_path(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

fn check_header(file: &SourceFile, problems: &mut Vec<Problem>) {
    if !file.text.starts_with("//! ") {
        let what =
            "the file does not open with `//!`: what it is, where it sits, what it never does";
        problems.push(file.problem(1, what));
    }
}

/// Whether a file must only decide.
fn only_decides(path: &str) -> bool {
    let crate_name = path
        .strip_prefix("crates/")
        .and_then(|rest| rest.split_once("/src/"))
        .map(|(name, _)| name);
    crate_name.is_some_and(|name| NO_IO.contains(&name))
        || DECIDING.iter().any(|start| path.starts_with(start))
}

fn check_acting(file: &SourceFile, program: &str, problems: &mut Vec<Problem>) {
    if !only_decides(&file.path) {
        return;
    }
    for (word, why) in ACTS {
        for line in lines_with(program, word) {
            problems.push(file.problem(
                line,
                format!("code that decides uses `{word}`, which {why}"),
            ));
        }
    }
    for at in positions(program, "std::{") {
        let line = super::mask::line_of(program, at);
        let group = braced(&program[at + "std::".len()..]);
        for part in STD_PARTS {
            if !lines_with(group, part).is_empty() {
                let what = format!("code that decides uses `std::{part}`, which touches the world");
                problems.push(file.problem(line, what));
            }
        }
    }
}

/// From an opening brace to the one that closes it.
fn braced(text: &str) -> &str {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return &text[..=at];
                }
            }
            _ => {}
        }
    }
    text
}

fn check_process_wide(file: &SourceFile, program: &str, problems: &mut Vec<Problem>) {
    if PROGRAMS.iter().any(|start| file.path.starts_with(start)) {
        return;
    }
    for word in PROCESS_WIDE {
        if PROCESS_WIDE_OK.contains(&(file.path.as_str(), word)) {
            continue;
        }
        for line in lines_with(program, word) {
            let what = format!(
                "a library uses `{word}`: what is one for the process belongs to a program"
            );
            problems.push(file.problem(line, what));
        }
    }
}

fn check_everywhere(file: &SourceFile, masked: &str, problems: &mut Vec<Problem>) {
    if !UNSAFE.iter().any(|start| file.path.starts_with(start)) {
        for line in lines_with(masked, "unsafe") {
            problems.push(file.problem(line, "`unsafe` outside the sandbox"));
        }
    }
    for word in [
        concat!("#[ign", "ore"),
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
    ] {
        for line in lines_with(masked, word) {
            problems
                .push(file.problem(line, format!("`{word}`: what is there works, and is tried")));
        }
    }
}

/// Tests wait for a condition, and a loop that looks again after a while has a deadline.
fn check_sleeps(file: &SourceFile, masked: &str, program: &str, problems: &mut Vec<Problem>) {
    // In the tests package all code counts; elsewhere what is not in the program.
    let program: Vec<&str> = program.lines().collect();
    let lines: Vec<&str> = masked.lines().collect();
    for word in ["thread::sleep", "time::sleep", "park_timeout"] {
        for line in lines_with(masked, word) {
            let in_program = program
                .get(line - 1)
                .is_some_and(|text| !lines_with(text, word).is_empty());
            let above = &lines[line.saturating_sub(DEADLINE_ABOVE_MAX)..line];
            let is_bounded = |text: &&str| text.contains("deadline") || text.contains(".elapsed()");
            if !in_program && !above.iter().any(is_bounded) {
                let what = "a test sleeps: wait for a condition, with a deadline, instead";
                problems.push(file.problem(line, what));
            }
        }
    }
}
