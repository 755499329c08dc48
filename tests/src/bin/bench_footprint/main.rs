//! What the programs weigh: their files, and their resident memory when idle, with real processes on loopback: an
//! orchestrator, and `sluice-edge` joined and without work, at work, and started again from its cache.
//!
//! Build it with `--release`, and the programs too. Arguments: none.

#![allow(clippy::print_stdout, reason = "its result is what it prints")]

use std::path::Path;

use anyhow::{Context, Result};
use sluice_model::NodeState;
use sluice_tests::e2e::Cluster;

const EDGE: &str = "e1";

fn main() -> Result<()> {
    let directory = std::env::current_exe()?;
    let directory = directory
        .parent()
        .context("the program lies in a directory")?;
    println!("{:<44} {:>10}", "what", "MiB");
    for program in ["sluice", "sluice-edge"] {
        let bytes = std::fs::metadata(directory.join(program))
            .with_context(|| format!("no {program} beside this program; build it first"))?
            .len();
        row(&format!("file of {program}"), bytes);
    }

    let mut cluster = Cluster::start(&[EDGE]);
    // The small program, from a fresh process: joining is over.
    cluster.kill_edge(EDGE);
    cluster.wait_node(EDGE, NodeState::Disconnected);
    cluster.start_small_edge(EDGE);
    cluster.wait_node(EDGE, NodeState::Connected);
    let orchestrator = cluster.orchestrator().pid();
    row("orchestrator, idle", resident(orchestrator)?);
    let edge = cluster.edge(EDGE).pid();
    row("edge, idle, no work", resident(edge)?);

    let pipeline =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/heartbeat/pipeline.toml");
    let path = pipeline.to_str().context("the path is text")?;
    let deployed = cluster.sluice(&["deploy", path, "--wait"]);
    anyhow::ensure!(deployed.code == 0, "the deploy failed: {}", deployed.stderr);
    row("edge, one pipeline, just compiled", resident(edge)?);

    cluster.kill_edge(EDGE);
    cluster.wait_node(EDGE, NodeState::Disconnected);
    cluster.start_small_edge(EDGE);
    cluster.wait_node(EDGE, NodeState::Connected);
    cluster.wait_running("heartbeat", EDGE);
    let edge = cluster.edge(EDGE).pid();
    row("edge, one pipeline, compiled code cached", resident(edge)?);
    Ok(())
}

/// Resident memory of a process, in bytes.
fn resident(process: u32) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(Path::new(&path)).with_context(|| path.clone())?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .with_context(|| format!("{path} has no VmRSS"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}

fn row(what: &str, bytes: u64) {
    let tenths = bytes * 10 / (1 << 20);
    println!("{what:<44} {:>8}.{}", tenths / 10, tenths % 10);
}
