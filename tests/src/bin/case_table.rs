//! Prints the failure matrix with the tests that name each case, and the cases that no test names.
//!
//! Reads sources only. Ends with an error when a test names a number that no case has.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use sluice_tests::cases::{table, tests_by_case, unknown};
use sluice_tests::tidy::Project;

#[expect(clippy::print_stdout, reason = "it is what this program is for")]
fn main() -> anyhow::Result<()> {
    // Where it was built by default, and any other checkout when asked.
    let root = std::env::args_os().nth(1).map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")),
        PathBuf::from,
    );
    let project = Project::read(&root)
        .with_context(|| format!("reading the sources in {}", root.display()))?;
    ensure!(
        !project.files.is_empty(),
        "there are no sources in {}",
        root.display()
    );
    let by_case = tests_by_case(&project);
    print!("{}", table(&by_case));
    if let Some(test) = unknown(&by_case).into_iter().next() {
        anyhow::bail!(
            "{}:{}: no case has the number in {}",
            test.path,
            test.line,
            test.name
        );
    }
    Ok(())
}
