//! What the programs weigh: their files, and their resident memory when idle, with real processes on loopback: an
//! orchestrator, and `sluice-edge` joined and without work, at work, and started again from its cache.
//!
//! Each row has the bytes of what it stands beside: the other program for a file, the goal for a process. Build it with
//! `--release`, and the programs too. Arguments: none.

#![allow(clippy::print_stdout, reason = "its result is what it prints")]

use std::path::Path;

use anyhow::{Context, Result};
use sluice_model::NodeState;
use sluice_tests::e2e::Cluster;

const EDGE: &str = "e1";
/// What an idle edge should stay below; the other processes are shown beside it too.
const IDLE_EDGE_BYTES_GOAL: u64 = 20_000_000;

fn main() -> Result<()> {
    let directory = std::env::current_exe()?;
    let directory = directory
        .parent()
        .context("the program lies in a directory")?;
    let size = |program: &str| -> Result<u64> {
        let file = std::fs::metadata(directory.join(program))
            .with_context(|| format!("no {program} beside this program; build it first"))?;
        Ok(file.len())
    };
    let (all, edge_alone) = (size("sluice")?, size("sluice-edge")?);
    header("file", "other program");
    row("sluice", all, edge_alone);
    row("sluice-edge", edge_alone, all);
    header("resident memory", "goal, idle edge");

    let mut cluster = Cluster::start(&[EDGE]);
    // The small program, from a fresh process: joining is over.
    cluster.kill_edge(EDGE);
    cluster.wait_node(EDGE, NodeState::Disconnected);
    cluster.start_small_edge(EDGE);
    cluster.wait_node(EDGE, NodeState::Connected);
    let orchestrator = cluster.orchestrator().pid();
    row(
        "orchestrator, idle",
        resident(orchestrator)?,
        IDLE_EDGE_BYTES_GOAL,
    );
    let edge = cluster.edge(EDGE).pid();
    row("edge, idle, no work", resident(edge)?, IDLE_EDGE_BYTES_GOAL);

    let pipeline =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/heartbeat/pipeline.toml");
    let path = pipeline.to_str().context("the path is text")?;
    let deployed = cluster.sluice(&["deploy", path, "--wait"]);
    anyhow::ensure!(deployed.code == 0, "the deploy failed: {}", deployed.stderr);
    row(
        "edge, one pipeline, just compiled",
        resident(edge)?,
        IDLE_EDGE_BYTES_GOAL,
    );

    cluster.kill_edge(EDGE);
    cluster.wait_node(EDGE, NodeState::Disconnected);
    cluster.start_small_edge(EDGE);
    cluster.wait_node(EDGE, NodeState::Connected);
    cluster.wait_running("heartbeat", EDGE);
    let edge = cluster.edge(EDGE).pid();
    row(
        "edge, one pipeline, compiled code cached",
        resident(edge)?,
        IDLE_EDGE_BYTES_GOAL,
    );
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

fn header(what: &str, beside: &str) {
    println!("{what:<44} {:>8} {beside:>16} {:>8}", "MB", "ratio");
}

fn row(what: &str, bytes: u64, beside: u64) {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "{what:<44} {:>8.1} {:>16.1} {:>7.2}x",
        megabytes(bytes),
        megabytes(beside),
        bytes as f64 / beside as f64
    );
}
