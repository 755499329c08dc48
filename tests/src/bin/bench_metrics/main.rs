//! What it costs to be watched: the record path of a real edge with its port for metrics scraped every second, against
//! itself unscraped; and how long one scrape of an orchestrator takes that knows a thousand nodes and executions.
//!
//! The turns with and without a scraper alternate, so that a noisy moment hits both alike; each scraped turn is compared
//! with the unscraped ones right before and after it, and the median is told, with how far two unscraped turns differ.
//! A scrape is timed from connecting to the last byte, when the text kept from the last one is too old to be given
//! again. Build it with `--release`, and the programs too. Arguments: `[--rounds N] [--nodes N]`.

#![allow(clippy::print_stdout, reason = "its result is what it prints")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sluice_tests::e2e::pipelines::PipelineText;
use sluice_tests::e2e::{BareEdge, Cluster, ClusterOptions, JsonLog, wait};

const ROUNDS_DEFAULT: u32 = 7;
/// As many as the numbers in the documentation are for.
const NODES_DEFAULT: usize = 1000;
/// One turn: long against the heartbeats that tell the counters.
const TURN: Duration = Duration::from_secs(3);
/// How often Prometheus may be told to ask at most.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// Scrapes that are timed.
const TIMED: usize = 15;
/// Longest time for so many nodes to join and be planned for.
const PLANNED_WITHIN: Duration = Duration::from_secs(300);
const EDGE: &str = "e1";
const JOB: &str = "flood";

fn main() -> Result<()> {
    let (rounds, nodes) = options(std::env::args().skip(1))?;
    record_path(rounds)?;
    one_scrape(nodes)
}

fn cluster() -> Cluster {
    let options = ClusterOptions {
        metrics: true,
        ..ClusterOptions::default()
    };
    Cluster::start_with(options, &[])
}

fn record_path(rounds: u32) -> Result<()> {
    let mut cluster = cluster();
    cluster.join_with(&[EDGE], &["--metrics", "127.0.0.1:0"]);
    let port = port(&cluster.edge_log(EDGE))?;
    let flood = format!(
        "name = \"{JOB}\"\n[input.generate]\ninterval = \"\"\ntemplate = 'a record of some length ${{seq}}'\n\
         [output.discard]\n"
    );
    let deployed = cluster.try_deploy(&flood);
    ensure!(deployed.code == 0, "the deploy failed: {}", deployed.stderr);
    cluster.wait_running(JOB, EDGE);
    let turn = |scraped| turn(&cluster, scraped);
    let (mut alone, mut apart, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut before = turn(None)?;
    for _ in 0..rounds {
        let scraped = turn(Some(port))?;
        let after = turn(None)?;
        ratios.push(scraped / ((before + after) / 2.0));
        apart.push((after / before - 1.0).abs());
        alone.push(after);
        before = after;
    }
    let (alone, ratio) = (median(alone), median(ratios));
    println!("{:<44} {:>14} {:>8}", "what", "records/s", "ratio");
    for (what, ratio) in [
        ("generate -> discard, nobody scrapes", 1.0),
        ("scraped every second", ratio),
    ] {
        println!("{what:<44} {:>14.0} {ratio:>8.3}", alone * ratio);
    }
    println!(
        "two turns without a scraper are {:.1} % apart",
        median(apart) * 100.0
    );
    Ok(())
}

/// Records a second during a turn, in which the port is scraped every second if there is one.
fn turn(cluster: &Cluster, scraped: Option<SocketAddr>) -> Result<f64> {
    let (begun, first) = next_count(cluster);
    let mut last = (begun, first);
    let mut scrape_at = begun;
    while last.0 - begun < TURN {
        if let Some(port) = scraped
            && Instant::now() >= scrape_at
        {
            scrape(port)?;
            scrape_at += SCRAPE_EVERY;
        }
        last = next_count(cluster);
    }
    Ok((last.1 - first) as f64 / (last.0 - begun).as_secs_f64())
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

fn one_scrape(nodes: usize) -> Result<()> {
    let mut cluster = cluster();
    let port = port(&cluster.log())?;
    let token = cluster.token();
    let few = scrapes(port)?;
    for number in 0..nodes {
        BareEdge::join(&token, &format!("n{number:05}"))?;
    }
    cluster.deploy(&PipelineText::steady("everywhere"));
    // A rollout waits for those that are away, and here nobody connects.
    let promoted = cluster.sluice(&["rollout", "promote", "everywhere"]);
    ensure!(promoted.code == 0, "{promoted:?}");
    wait::within(PLANNED_WITHIN, "an execution on every node", || {
        let job = cluster.api().job("everywhere");
        let desired = job.map_err(|refusal| refusal.to_string())?.job.desired;
        let all = desired == u64::try_from(nodes).unwrap_or(u64::MAX);
        wait::check(all, || format!("{desired} of {nodes}"))
    });
    let many = scrapes(port)?;
    println!(
        "\n{:<44} {:>10} {:>10} {:>8}",
        "one scrape", "ms", "KB", "ratio"
    );
    let name = format!("orchestrator, {nodes} nodes and executions");
    for (name, (ms, bytes)) in [("orchestrator, empty", few), (name.as_str(), many)] {
        let kilobytes = bytes as f64 / 1e3;
        println!(
            "{name:<44} {ms:>10.2} {kilobytes:>10.1} {:>7.1}x",
            ms / few.0
        );
    }
    Ok(())
}

/// The median time of scrapes that had to look, in milliseconds, and the bytes of one.
fn scrapes(port: SocketAddr) -> Result<(f64, usize)> {
    let (mut times, mut bytes) = (Vec::new(), 0);
    for _ in 0..TIMED {
        let begun = Instant::now();
        bytes = scrape(port)?;
        let took = begun.elapsed();
        times.push(took.as_secs_f64() * 1e3);
        // What was just told is told again until then.
        let old = SCRAPE_EVERY.max(took * 11) + Duration::from_millis(50);
        wait::until("the text to be too old", || {
            wait::check(begun.elapsed() > took + old, || "it is fresh".to_owned())
        });
    }
    Ok((median(times), bytes))
}

/// Scrapes once; the answer's bytes.
fn scrape(port: SocketAddr) -> Result<usize> {
    let mut stream = TcpStream::connect(port).context("connecting to the metrics port")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(
        answer.starts_with(b"HTTP/1.1 200 OK\r\n"),
        "no numbers came"
    );
    Ok(answer.len())
}

fn port(log: &JsonLog) -> Result<SocketAddr> {
    let events = log.events("metrics.ready");
    let address = events.last().and_then(|event| event["address"].as_str());
    Ok(address.context("no port for metrics")?.parse()?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn options(mut args: impl Iterator<Item = String>) -> Result<(u32, usize)> {
    let (mut rounds, mut nodes) = (ROUNDS_DEFAULT, NODES_DEFAULT);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next()) {
            ("--rounds", Some(number)) => rounds = number.parse().context("--rounds N")?,
            ("--nodes", Some(number)) => nodes = number.parse().context("--nodes N")?,
            _ => bail!("usage: bench_metrics [--rounds N] [--nodes N]"),
        }
    }
    ensure!(
        rounds > 0 && nodes > 0,
        "--rounds and --nodes are at least 1"
    );
    Ok((rounds, nodes))
}
