//! What an idle edge costs its orchestrator in memory: the orchestrator's resident memory with no session, with half of
//! them, and with all, each a real QUIC connection with a session that has begun and then says nothing.
//!
//! The second half tells more than the first, in which the allocator and the store's cache also grow for once. Heartbeats
//! are a minute apart, so none falls due meanwhile. Build it with `--release`, and the programs too. Arguments:
//! `[--sessions N]`.

#![allow(clippy::print_stdout, reason = "its result is what it prints")]

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sluice_tests::e2e::{BareEdge, BareSession, Cluster, ClusterOptions};

const SESSIONS_DEFAULT: usize = 400;
/// Long against the time that the sessions take to open.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// What a session should stay below.
const SESSION_BYTES_GOAL: u64 = 100_000;

fn main() -> Result<()> {
    let sessions = options(std::env::args().skip(1))?;
    let options = ClusterOptions {
        heartbeat: HEARTBEAT,
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start_with(options, &[]);
    let orchestrator = cluster.orchestrator().pid();
    let token = cluster.token();
    let mut open: Vec<(BareEdge, BareSession)> = Vec::with_capacity(sessions);
    let mut before = (0, resident(orchestrator)?);
    println!(
        "{:<24} {:>10} {:>18} {:>18} {:>8}",
        "sessions", "MB", "KB for each more", "goal, KB", "ratio"
    );
    println!("{:<24} {:>10.1}", before.0, before.1 as f64 / 1e6);
    for count in [sessions / 2, sessions] {
        while open.len() < count {
            let mut edge = BareEdge::join(&token, &format!("n{:05}", open.len()))?;
            let mut session = edge.connect()?;
            edge.begin(&mut session)?;
            open.push((edge, session));
        }
        let now = (count, resident(orchestrator)?);
        let each = now.1.saturating_sub(before.1) as f64 / (count - before.0) as f64;
        println!(
            "{count:<24} {:>10.1} {:>18.1} {:>18.1} {:>7.2}x",
            now.1 as f64 / 1e6,
            each / 1e3,
            SESSION_BYTES_GOAL as f64 / 1e3,
            each / SESSION_BYTES_GOAL as f64
        );
        before = now;
    }
    // They were all there until the end.
    for (edge, session) in &mut open {
        edge.heartbeat(session)?;
    }
    Ok(())
}

/// Resident memory of a process, in bytes.
fn resident(process: u32) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .with_context(|| format!("{path} has no VmRSS"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}

fn options(mut args: impl Iterator<Item = String>) -> Result<usize> {
    let mut sessions = SESSIONS_DEFAULT;
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next()) {
            ("--sessions", Some(number)) => sessions = number.parse().context("--sessions N")?,
            _ => bail!("usage: bench_connections [--sessions N]"),
        }
    }
    ensure!(sessions >= 2, "--sessions is at least 2");
    Ok(sessions)
}
