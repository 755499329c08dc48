//! Ten thousand launches at once, on a concurrency limit of 4: how fast they are answered, how fast they are worked off, and
//! that all end, none runs twice and the limit holds.
//!
//! A real orchestrator and real edges; the launches come over many connections of the API. Each task writes two records into
//! a file of its own: its launch's number, and the time on the edge. So what was executed, how often, and how many at the
//! same time is read from the edges' files, not from what the orchestrator says of itself. The two records lie apart by most
//! of a task's life, so that one too many would be seen, and the bench fails too when the limit was never reached. Build it
//! with `--release`, and the programs too. Arguments: `[--launches N] [--limit N] [--output json]`. Ends with 1 when anything of that does not
//! hold.

#![allow(clippy::print_stdout, reason = "its result is what it prints")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sluice_api::{Run, routes};
use sluice_model::RunState;
use sluice_tests::e2e::{Cluster, ClusterOptions, overlap};

const LAUNCHES_DEFAULT: usize = 10_000;
const LIMIT_DEFAULT: usize = 4;
/// Between a task's two records: long against what starting and ending it takes, about 30 ms.
const APART: &str = "60ms";
const EDGES: [&str; 3] = ["e1", "e2", "e3"];
/// Connections that launch at once; the API takes 256.
const CONNECTIONS: usize = 200;
/// No task ends for so long: it has stopped.
const STILL_MAX: Duration = Duration::from_secs(60);
/// Between two looks at how many have ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

struct Options {
    launches: usize,
    limit: usize,
    json: bool,
}

fn main() -> Result<()> {
    let options = options(std::env::args().skip(1))?;
    let cluster_options = ClusterOptions {
        heartbeat: Duration::from_secs(1),
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start_with(cluster_options, &EDGES);
    let deployed = cluster.try_deploy(&overlap::pipeline(options.limit, APART));
    ensure!(deployed.code == 0, "{deployed:?}");

    let bodies = (0..options.launches)
        .map(|n| serde_json::json!({ "jobs": ["tick"], "params": { "n": n.to_string() } }));
    let begun = Instant::now();
    let answers = cluster
        .api()
        .post_all::<Run>(routes::RUNS, bodies.collect(), CONNECTIONS);
    let launched = begun.elapsed();
    let mut took = Vec::with_capacity(answers.len());
    let mut runs = Vec::with_capacity(answers.len());
    for (waited, answer) in answers {
        let run = answer.map_err(|refusal| anyhow::anyhow!("a launch was refused: {refusal}"))?;
        took.push(waited);
        runs.push(run.id);
    }
    wait_for_all(&cluster, options.launches)?;
    let worked_off = begun.elapsed();

    let paths = runs
        .iter()
        .map(|id| routes::fill(routes::RUN, &[&id.to_string()]));
    let deadline = Instant::now() + STILL_MAX;
    for (_, answer) in cluster.api().get_all::<Run>(paths.collect(), CONNECTIONS) {
        let mut run = answer.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
        // The last reports may be on their way.
        while run.state == RunState::Running && Instant::now() < deadline {
            let path = routes::fill(routes::RUN, &[&run.id.to_string()]);
            run = cluster
                .api()
                .get(&path)
                .map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
        }
        ensure!(run.state == RunState::Completed, "{run:?}");
        ensure!(
            run.tasks.len() == 1 && run.tasks[0].attempt.0 == 1,
            "{run:?}"
        );
    }
    let executed = overlap::executed(&cluster, &EDGES, options.launches)?;
    ensure!(executed.tasks == options.launches);
    ensure!(
        executed.most_at_once == options.limit.min(options.launches),
        "{} at most at once on the edges, the limit is {}",
        executed.most_at_once,
        options.limit
    );
    took.sort();
    let quantile = |percent: usize| took[(took.len() * percent).div_ceil(100).max(1) - 1];
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let rate = |time: Duration| options.launches as f64 / time.as_secs_f64();
    if options.json {
        println!(
            "{{\"launches\":{},\"limit\":{},\"launches_per_second\":{:.0},\"answer_p50_ms\":{:.2},\"answer_p99_ms\":{:.2},\"tasks_per_second\":{:.1},\"most_at_once\":{}}}",
            options.launches,
            options.limit,
            rate(launched),
            ms(quantile(50)),
            ms(quantile(99)),
            rate(worked_off),
            executed.most_at_once
        );
        return Ok(());
    }
    println!(
        "launches at once                   {:>10}",
        options.launches
    );
    println!("connections                        {CONNECTIONS:>10}");
    println!(
        "launches answered a second         {:>10.0}",
        rate(launched)
    );
    println!(
        "answer, half of them          ms   {:>10.2}",
        ms(quantile(50))
    );
    println!(
        "answer, 99 % of them          ms   {:>10.2}",
        ms(quantile(99))
    );
    println!(
        "tasks worked off a second          {:>10.1}",
        rate(worked_off)
    );
    println!("limit                              {:>10}", options.limit);
    println!(
        "most at once, as the edges saw it  {:>10}",
        executed.most_at_once
    );
    println!("executed, each once                {:>10}", executed.tasks);
    Ok(())
}

/// Waits until there are as many files as launches.
fn wait_for_all(cluster: &Cluster, launches: usize) -> Result<()> {
    let (mut seen, mut moved) = (0, Instant::now());
    loop {
        let mut files = 0;
        for edge in EDGES {
            files += std::fs::read_dir(cluster.edge_file(edge, ""))?.count();
        }
        if files > seen {
            (seen, moved) = (files, Instant::now());
        }
        if files >= launches {
            return Ok(());
        }
        ensure!(
            moved.elapsed() < STILL_MAX,
            "{seen} of {launches} have begun, and none for {STILL_MAX:?}"
        );
        std::thread::sleep(LOOK_EVERY);
    }
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options {
        launches: LAUNCHES_DEFAULT,
        limit: LIMIT_DEFAULT,
        json: false,
    };
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next().as_deref()) {
            ("--launches", Some(number)) => {
                options.launches = number.parse().context("--launches N")?;
            }
            ("--limit", Some(number)) => options.limit = number.parse().context("--limit N")?,
            ("--output", Some("json")) => options.json = true,
            _ => bail!("usage: bench_launches [--launches N] [--limit N] [--output json]"),
        }
    }
    ensure!(options.launches > 0 && options.limit > 0, "at least 1 each");
    Ok(options)
}
