//! The quickstart: a whole cluster on this machine, told as a story in which every claim is checked.
//!
//! ```text
//!   scripts/quickstart -> this program -> sluice orchestrator, sluice edge (e1), sluice edge (e2)
//!                           |  story: acts, shows, claims
//!                           +-> sluice ... --output json: what every claim is checked by
//! ```
//!
//! It looks at nothing but what the `sluice` command says, as any program outside the project could. Whatever happens,
//! an interrupt too, it stops what it started and removes its directory.

#![expect(clippy::print_stdout, reason = "it tells a story on a terminal")]

mod cli;
mod cluster;
mod story;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::signal::unix::{SignalKind, signal};

use crate::story::Story;
use crate::watch::Watch;

/// The whole story takes some ten seconds; this is for a machine that is busy with other things.
const DEADLINE: Duration = Duration::from_secs(240);

fn main() -> ExitCode {
    let begun = Instant::now();
    match run(begun) {
        Ok(checks) => {
            println!(
                "\nquickstart: {checks} checks passed in {:.1} s",
                begun.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("\nquickstart: failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(begun: Instant) -> anyhow::Result<usize> {
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the executor")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for interrupts")?;
        let mut terminate = signal(SignalKind::terminate()).context("listening for signals")?;
        let watch = Watch::new(begun + DEADLINE, Arc::clone(&stop));
        let mut told = tokio::task::spawn_blocking(move || tell(watch));
        loop {
            tokio::select! {
                result = &mut told => return result.context("telling the story")?,
                _ = interrupt.recv() => stop.store(true, Ordering::Relaxed),
                _ = terminate.recv() => stop.store(true, Ordering::Relaxed),
            }
        }
    })
}

fn tell(watch: Watch) -> anyhow::Result<usize> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the tests lie inside the project")?;
    let mut story = Story::begin(root, &program()?, watch)?;
    match story.tell() {
        Ok(()) => Ok(story.checks()),
        Err(error) => {
            if !story.is_interrupted() {
                story.print_logs();
            }
            Err(error)
        }
    }
}

/// The `sluice` program, beside this one.
fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program")?;
    let sluice = own.with_file_name("sluice");
    ensure!(
        sluice.is_file(),
        "there is no {}; start the quickstart with scripts/quickstart, which builds it",
        sluice.display()
    );
    Ok(sluice)
}
