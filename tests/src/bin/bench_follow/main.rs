//! What following a log costs the pipeline that writes it at full speed: `generate -> stdout` on a real edge, without a
//! reader, with `sluice logs --follow` that reads everything, and with one that has stalled.
//!
//! The three take turns within each round, so that a noisy moment hits all alike; a ratio compares a reader's turn with the
//! turns without one right before and after it, and the median of all rounds is told. How far two turns without a reader
//! differ is told too: a ratio says no more than that. Each round is told as it ends: filling the buffers of the stalled
//! reader takes most of its half minute. A reader's turn begins when it is being served, and a stalled one's
//! when every buffer on the way is full, which is when the edge reads no more for it. The reader and the orchestrator run
//! on the same machine, so their own work is in the ratio as well. Build it with `--release`, and the programs too.
//! Arguments: `[--rounds N] [--output json]`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its result is what it prints, and how far it is"
)]

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sluice_tests::e2e::pipelines::PipelineText;
use sluice_tests::e2e::{Cluster, wait};

const ROUNDS_DEFAULT: u32 = 7;
/// One turn: long against the heartbeats that tell the counters.
const TURN: Duration = Duration::from_secs(3);
/// No read for so long, where a reader that is served causes four a second, says that it has stalled.
const STALLED_AFTER: Duration = Duration::from_secs(2);
/// Longest time to fill all buffers on the way: some MiB at 256 KiB a second.
const FILLED_WITHIN: Duration = Duration::from_secs(180);
/// What a reader may leave of the pipeline's speed.
const RATIO_GOAL: f64 = 0.97;
const JOB: &str = "flood";
const EDGE: &str = "e1";

/// Who reads the log during a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    None,
    Follows,
    Stalled,
}

/// What a turn came to.
struct Turn {
    records_per_second: f64,
    /// What the edge's thread that reads logs took of a core.
    reading: f64,
}

struct Bench {
    cluster: Cluster,
    edge: u32,
}

fn main() -> Result<()> {
    let (rounds, json) = options(std::env::args().skip(1))?;
    let mut cluster = Cluster::start(&[EDGE]);
    let flood = PipelineText::steady(JOB).template("", 0, "a record of some length ${seq}");
    cluster.deploy(&flood.stdout());
    cluster.wait_running(JOB, EDGE);
    let edge = cluster.edge(EDGE).pid();
    let bench = Bench { cluster, edge };
    let mut before = bench.turn(Reader::None)?.records_per_second;

    let (mut alone, mut apart, mut reading) = (Vec::new(), Vec::new(), Vec::new());
    let mut ratios = [Vec::new(), Vec::new()];
    for round in 1..=rounds {
        for (reader, ratios) in [Reader::Follows, Reader::Stalled]
            .into_iter()
            .zip(&mut ratios)
        {
            let with = bench.turn(reader)?;
            let after = bench.turn(Reader::None)?.records_per_second;
            ratios.push(with.records_per_second / ((before + after) / 2.0));
            apart.push((after / before - 1.0).abs());
            if reader == Reader::Follows {
                reading.push(with.reading);
            }
            alone.push(after);
            before = after;
        }
        let [followed, stalled] = [0, 1].map(|of: usize| ratios[of].last().copied().unwrap_or(0.0));
        eprintln!("round {round} of {rounds}: followed {followed:.3}, stalled {stalled:.3}");
    }
    let [followed, stalled] = ratios.map(median);
    let (alone, apart, reading) = (median(alone), median(apart), median(reading));
    if json {
        println!(
            "{{\"records_per_second\":{alone:.0},\"followed_ratio\":{followed:.4},\"stalled_ratio\":{stalled:.4},\
             \"apart\":{apart:.4},\"reading_of_a_core\":{reading:.4}}}"
        );
        return Ok(());
    }
    println!(
        "{:<44} {:>14} {:>8} {:>8}",
        "what", "records/s", "ratio", "goal"
    );
    for (what, ratio) in [
        ("generate -> stdout, nobody reads", 1.0),
        ("followed", followed),
        ("followed by a reader that stalls", stalled),
    ] {
        println!(
            "{what:<44} {:>14.0} {ratio:>8.3} {:>8.2}",
            alone * ratio,
            RATIO_GOAL
        );
    }
    println!(
        "two turns without a reader are {:.1} % apart; reading takes {:.2} % of a core of the edge's machine",
        apart * 100.0,
        reading * 100.0
    );
    ensure!(
        followed.min(stalled) >= RATIO_GOAL - apart,
        "a reader costs more than it may, also with what turns differ by"
    );
    Ok(())
}

impl Bench {
    fn turn(&self, reader: Reader) -> Result<Turn> {
        let mut child = match reader {
            Reader::None => None,
            Reader::Follows => Some(self.follow(Stdio::null())?),
            Reader::Stalled => Some(self.follow(Stdio::piped())?),
        };
        if reader == Reader::Stalled {
            self.wait_stalled();
        }
        let read_before = self.read_ns();
        let (begun, first) = self.next_count();
        let mut last = self.next_count();
        while last.0 - begun < TURN {
            last = self.next_count();
        }
        let seconds = (last.0 - begun).as_secs_f64();
        let read_ns = self.read_ns().saturating_sub(read_before);
        if let Some(child) = &mut child {
            ensure!(child.try_wait()?.is_none(), "the reader ended by itself");
            child.kill()?;
            child.wait()?;
        }
        Ok(Turn {
            records_per_second: (last.1 - first) as f64 / seconds,
            reading: read_ns as f64 / 1e9 / seconds,
        })
    }

    /// A reader that is served.
    fn follow(&self, stdout: Stdio) -> Result<Child> {
        let before = self.read_ns();
        let args = ["logs", JOB, "--follow", "--tail", "0"];
        let mut command = self.cluster.sluice_command(&args);
        let child = command.stdout(stdout).stderr(Stdio::null()).spawn();
        wait::until("the log to be read", || {
            wait::check(self.read_ns() > before, || "no look at it yet".to_owned())
        });
        child.context("sluice logs cannot be started")
    }

    fn wait_stalled(&self) {
        let mut last = (self.read_ns(), Instant::now());
        wait::within(FILLED_WITHIN, "the reader to stall", || {
            let now = self.read_ns();
            if now != last.0 {
                last = (now, Instant::now());
            }
            wait::check(last.1.elapsed() >= STALLED_AFTER, || {
                "it is read".to_owned()
            })
        });
    }

    /// Time on a processor of the edge's thread that reads logs.
    fn read_ns(&self) -> u64 {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.edge)) else {
            return 0;
        };
        let of_task = |task: std::fs::DirEntry| {
            let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
            let times = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            let ran: u64 = times.split(' ').next()?.parse().ok()?;
            (name.trim() == "log-reader").then_some(ran)
        };
        tasks.filter_map(Result::ok).filter_map(of_task).sum()
    }

    /// The counter as the next heartbeat tells it, and when it did.
    fn next_count(&self) -> (Instant, u64) {
        let before = self.cluster.execution(JOB, EDGE).records_in;
        let now = wait::until("the next heartbeat", || {
            let now = self.cluster.execution(JOB, EDGE).records_in;
            wait::check(now != before, || format!("{now} records")).map(|()| now)
        });
        (Instant::now(), now)
    }
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
