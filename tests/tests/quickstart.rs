//! The quickstart runs, checks what it claims, and leaves nothing behind.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

#[test]
fn the_quickstart_tells_the_truth() {
    let temporary = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_quickstart"))
        .env("TMPDIR", temporary.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let last = text.lines().last().unwrap_or_default();
    let checks = last
        .strip_prefix("quickstart: ")
        .and_then(|rest| rest.split_once(" checks passed"))
        .and_then(|(number, _)| number.parse::<usize>().ok());
    let marked = text.lines().filter(|line| line.contains('✓')).count();
    assert_eq!(checks, Some(marked), "{text}");
    assert!(marked >= 25, "{text}");
    assert!(is_empty(temporary.path()), "it left something behind");
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}
