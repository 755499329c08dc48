//! What a whole pipeline costs: `file -> stage -> discard` through the edge's runner, beside a plain Rust program that
//! reads the same file, splits the same lines and makes the same decision; and the time from a start with cached code to
//! the first record.
//!
//! All of it runs interleaved, round after round, so that a noisy moment hits all alike; each number is the least of all
//! rounds. The file comes from the page cache. Build it with `--release`. Arguments:
//! `[--records N] [--rounds N] [--output json]`.

#![allow(clippy::print_stdout, reason = "its result is what it prints")]

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use memchr::memmem::Finder;
use sluice_edge_runtime::runner::{
    AllowedPaths, End, ExecutionPlan, RunnerContext, RunnerEvent, RunnerOptions, prepare,
};
use sluice_model::pipeline::parse;
use sluice_model::{Attempt, Digest, ExecutionId, Labels, Version};
use tokio::sync::mpsc;

const RECORDS_DEFAULT: u64 = 400_000;
const ROUNDS_DEFAULT: u32 = 7;
const RECORD_BYTES: usize = 255;
const NEEDLE: &str = "needle";
/// Starts measured; their median and their worst are told.
const STARTS: usize = 30;
/// What the plain program reads at once.
const READ_BYTES: usize = 512 * 1024;

const CASES: &[(&str, &str)] = &[
    ("file -> discard", ""),
    (
        "file -> identity -> discard",
        "[[stage]]\nname = \"s\"\nplugin = \"./identity.wasm\"\n",
    ),
    (
        "file -> filter -> discard",
        "[[stage]]\nname = \"s\"\nplugin = \"./filter_contains.wasm\"\nconfig = { contains = \"needle\" }\n",
    ),
];

fn main() -> anyhow::Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let directory = tempfile::tempdir()?;
    let input = directory.path().join("in.log");
    write_input(&input, options.records)?;
    let context = RunnerContext::open(RunnerOptions {
        cache_dir: directory.path().join("code"),
        allowed: AllowedPaths::new([directory.path().to_path_buf()])?,
        console: None,
        hostname: "bench".to_owned(),
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;

    let mut plain = Duration::MAX;
    let mut cases = vec![Duration::MAX; CASES.len()];
    for _ in 0..options.rounds {
        let started = Instant::now();
        let found = plain_filter(&input)?;
        plain = plain.min(started.elapsed());
        for ((name, stage), best) in CASES.iter().zip(&mut cases) {
            let (took, out) = runtime.block_on(run(&context, directory.path(), "in.log", stage))?;
            ensure!(
                *name != CASES[2].0 || out == found,
                "{name} passed {out} records, plain Rust {found}"
            );
            *best = took.min(*best);
        }
    }
    std::fs::write(directory.path().join("one.log"), "one needle\n")?;
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(runtime.block_on(first_record(&context, directory.path()))?);
    }
    starts.sort_unstable();
    report(&options, plain, &cases, &starts);
    Ok(())
}

/// Reads, splits and filters in one loop; returns how many lines have the needle.
fn plain_filter(path: &Path) -> anyhow::Result<u64> {
    let mut file = File::open(path)?;
    let finder = Finder::new(NEEDLE);
    let mut buffer = vec![0; 2 * READ_BYTES];
    let (mut held, mut found) = (0, 0);
    loop {
        let read = file.read(&mut buffer[held..held + READ_BYTES])?;
        if read == 0 {
            return Ok(found);
        }
        let bytes = &buffer[..held + read];
        let mut start = 0;
        for newline in memchr::memchr_iter(b'\n', bytes) {
            found += u64::from(finder.find(&bytes[start..newline]).is_some());
            start = newline + 1;
        }
        let end = held + read;
        buffer.copy_within(start..end, 0);
        held = end - start;
    }
}

/// Runs one pipeline from its start to its end; the time is that of moving records, without preparing.
async fn run(
    context: &RunnerContext,
    directory: &Path,
    input: &str,
    stage: &str,
) -> anyhow::Result<(Duration, u64)> {
    let plan = plan(directory, input, stage)?;
    let state_dir = plan.state_dir.clone();
    let preparing = context.clone();
    let prepared =
        tokio::task::spawn_blocking(move || prepare(&preparing, plan, &mut |_| {})).await??;
    let (events, mut told) = mpsc::channel(4);
    let started = Instant::now();
    let _running = prepared.start(&tokio::runtime::Handle::current(), events);
    while let Some(event) = told.recv().await {
        if let RunnerEvent::Ended { end, counters, .. } = event {
            let took = started.elapsed();
            ensure!(end == End::Completed, "{end}");
            std::fs::remove_dir_all(state_dir)?;
            return Ok((took, counters.records_out));
        }
    }
    bail!("the execution ended without a word")
}

/// From the order to start, with compiled code on the disk but nothing in memory, to the first record at the output.
async fn first_record(context: &RunnerContext, directory: &Path) -> anyhow::Result<Duration> {
    let plan = plan(directory, "one.log", CASES[2].1)?;
    let state_dir = plan.state_dir.clone();
    let preparing = context.clone();
    let started = Instant::now();
    let prepared =
        tokio::task::spawn_blocking(move || prepare(&preparing, plan, &mut |_| {})).await??;
    let (events, mut told) = mpsc::channel(4);
    let running = prepared.start(&tokio::runtime::Handle::current(), events);
    while running.counters().records_out == 0 {
        tokio::task::yield_now().await;
    }
    let took = started.elapsed();
    while let Some(event) = told.recv().await {
        if matches!(event, RunnerEvent::Ended { .. }) {
            break;
        }
    }
    std::fs::remove_dir_all(state_dir)?;
    Ok(took)
}

fn plan(directory: &Path, input: &str, stage: &str) -> anyhow::Result<ExecutionPlan> {
    let text =
        format!("name = \"bench\"\n[input.file]\npath = \"{input}\"\n{stage}[output.discard]\n");
    let pipeline = parse(&text).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist");
    let component = |path: String| -> anyhow::Result<(Digest, PathBuf)> {
        let file = dist.join(path);
        let bytes = std::fs::read(&file)
            .with_context(|| format!("{}; scripts/build-plugins makes it", file.display()))?;
        Ok((Digest::of(&bytes), file))
    };
    Ok(ExecutionPlan {
        execution: ExecutionId::from_random([1; 16]),
        version: Version(1),
        attempt: Attempt(1),
        spec_digest: Digest::of(text.as_bytes()),
        job: pipeline.name.clone(),
        node: "bench".parse()?,
        labels: Labels::new(),
        components: pipeline
            .plugins()
            .map(|(_, plugin)| component(plugin.to_string()))
            .collect::<Result<_, _>>()?,
        pipeline,
        state_dir: directory.join("state"),
    })
}

fn write_input(path: &Path, records: u64) -> anyhow::Result<()> {
    let mut file = std::io::BufWriter::new(File::create(path)?);
    for number in 0..records {
        let word = if number % 2 == 0 { NEEDLE } else { "noodle" };
        let head = format!(
            "{number:010} level=info host=edge-{:03} message=\"{word} ",
            number % 500
        );
        writeln!(
            file,
            "{head}{}",
            "payload "
                .repeat(32)
                .get(..RECORD_BYTES - head.len())
                .context("the head is short")?
        )?;
    }
    Ok(file.flush()?)
}

fn report(options: &Options, plain: Duration, cases: &[Duration], starts: &[Duration]) {
    let ns = |took: Duration| took.as_secs_f64() * 1e9 / options.records as f64;
    let millions = |took: Duration| options.records as f64 / took.as_secs_f64() / 1e6;
    let (median, worst) = (starts[starts.len() / 2], starts[starts.len() - 1]);
    if options.json {
        let rows: Vec<_> = CASES
            .iter()
            .zip(cases)
            .map(|((name, _), took)| {
                serde_json::json!({
                    "pipeline": name, "ns_a_record": ns(*took), "plain_ns_a_record": ns(plain), "ratio": ns(*took) / ns(plain),
                })
            })
            .collect();
        let start = serde_json::json!({
            "median_ms": median.as_secs_f64() * 1e3, "worst_ms": worst.as_secs_f64() * 1e3,
        });
        println!(
            "{}",
            serde_json::json!({ "pipelines": rows, "cached_start_to_first_record": start })
        );
        return;
    }
    println!(
        "{} records of {RECORD_BYTES} bytes, least of {} rounds",
        options.records, options.rounds
    );
    println!(
        "{:<34} {:>10} {:>12} {:>8}",
        "", "ns/record", "M records/s", "ratio"
    );
    println!(
        "{:<34} {:>10.1} {:>12.2} {:>8}",
        "plain Rust: read, split, find",
        ns(plain),
        millions(plain),
        "1.00"
    );
    for ((name, _), took) in CASES.iter().zip(cases) {
        println!(
            "{name:<34} {:>10.1} {:>12.2} {:>8.2}",
            ns(*took),
            millions(*took),
            ns(*took) / ns(plain)
        );
    }
    println!(
        "cached start to first record: median {:.2} ms, worst of {STARTS} {:.2} ms",
        median.as_secs_f64() * 1e3,
        worst.as_secs_f64() * 1e3
    );
}

struct Options {
    records: u64,
    rounds: u32,
    json: bool,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self {
            records: RECORDS_DEFAULT,
            rounds: ROUNDS_DEFAULT,
            json: false,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .with_context(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                "--records" => options.records = value()?.parse().context("--records")?,
                "--rounds" => options.rounds = value()?.parse().context("--rounds")?,
                "--output" if value()? == "json" => options.json = true,
                other => bail!(
                    "unknown argument {other}; there are --records N, --rounds N, --output json"
                ),
            }
        }
        ensure!(
            options.records > 0 && options.rounds > 0,
            "--records and --rounds are at least 1"
        );
        Ok(options)
    }
}
