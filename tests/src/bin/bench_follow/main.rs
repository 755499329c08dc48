//! What following a log costs the pipeline that writes it at full speed: `generate -> stdout` on a real edge, without a
//! reader, with `sluice logs --follow` that reads everything, and with one that has stalled.
//!
//! The three take turns within each round, so that a noisy moment hits all alike; a ratio compares a reader's turn with the
//! turn without one of its own round, and the median of all rounds is told. The reader and the orchestrator run on the same
//! machine, so their own work is in the ratio as well. Build it with `--release`, and the programs too. Arguments:
//! `[--rounds N] [--output json]`.

#![allow(clippy::print_stdout, reason = "its result is what it prints")]

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sluice_tests::e2e::pipelines::PipelineText;
use sluice_tests::e2e::{Cluster, wait};

const ROUNDS_DEFAULT: u32 = 9;
/// One turn: long against the heartbeats that tell the counters.
const TURN: Duration = Duration::from_secs(3);
const JOB: &str = "flood";
const EDGE: &str = "e1";

/// Who reads the log during a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    None,
    Follows,
    Stalled,
}

fn main() -> Result<()> {
    let (rounds, json) = options(std::env::args().skip(1))?;
    let mut cluster = Cluster::start(&[EDGE]);
    let flood = PipelineText::steady(JOB).template("", 0, "a record of some length ${seq}");
    cluster.deploy(&flood.stdout());
    cluster.wait_running(JOB, EDGE);
    turn(&cluster, Reader::None)?;

    let (mut alone, mut followed, mut stalled) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let without = turn(&cluster, Reader::None)?;
        alone.push(without);
        followed.push(turn(&cluster, Reader::Follows)? / without);
        stalled.push(turn(&cluster, Reader::Stalled)? / turn(&cluster, Reader::None)?);
    }
    let (alone, followed, stalled) = (median(alone), median(followed), median(stalled));
    if json {
        println!(
            "{{\"records_per_second\":{alone:.0},\"followed_ratio\":{followed:.4},\"stalled_ratio\":{stalled:.4}}}"
        );
    } else {
        println!("{:<44} {:>14} {:>8}", "what", "records/s", "ratio");
        println!(
            "{:<44} {alone:>14.0} {:>8}",
            "generate -> stdout, nobody reads", 1
        );
        println!(
            "{:<44} {:>14.0} {followed:>8.3}",
            "followed",
            alone * followed
        );
        println!(
            "{:<44} {:>14.0} {stalled:>8.3}",
            "followed by a reader that stalls",
            alone * stalled
        );
    }
    Ok(())
}

/// Records a second during one turn.
fn turn(cluster: &Cluster, reader: Reader) -> Result<f64> {
    let mut child = match reader {
        Reader::None => None,
        Reader::Follows => Some(follow(cluster, Stdio::null())?),
        Reader::Stalled => Some(follow(cluster, Stdio::piped())?),
    };
    let (begun, first) = next_count(cluster);
    let mut last = next_count(cluster);
    while last.0 - begun < TURN {
        last = next_count(cluster);
    }
    if let Some(child) = &mut child {
        ensure!(child.try_wait()?.is_none(), "the reader ended by itself");
        child.kill()?;
        child.wait()?;
    }
    Ok((last.1 - first) as f64 / (last.0 - begun).as_secs_f64())
}

fn follow(cluster: &Cluster, stdout: Stdio) -> Result<Child> {
    let mut command = cluster.sluice_command(&["logs", JOB, "--follow", "--tail", "0"]);
    let child = command.stdout(stdout).stderr(Stdio::null()).spawn();
    child.context("sluice logs cannot be started")
}

/// The counter as the next heartbeat tells it, and when it did.
fn next_count(cluster: &Cluster) -> (Instant, u64) {
    let before = cluster.execution(JOB, EDGE).records_in;
    let now = wait::until("the next heartbeat", || {
        let now = cluster.execution(JOB, EDGE).records_in;
        wait::check(now != before, || format!("{now} records")).map(|()| now)
    });
    (Instant::now(), now)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn options(mut args: impl Iterator<Item = String>) -> Result<(u32, bool)> {
    let (mut rounds, mut json) = (ROUNDS_DEFAULT, false);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next().as_deref()) {
            ("--rounds", Some(number)) => rounds = number.parse().context("--rounds N")?,
            ("--output", Some("json")) => json = true,
            _ => bail!("usage: bench_follow [--rounds N] [--output json]"),
        }
    }
    ensure!(rounds > 0, "--rounds is at least 1");
    Ok((rounds, json))
}
