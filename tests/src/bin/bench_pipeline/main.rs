//! What a whole pipeline costs: `file -> stage -> discard` through the edge's runner, beside a plain Rust program that
//! reads the same file, splits the same lines and makes the same decision; and the time from a start to the first record,
//! with compiled code on the disk and without.
//!
//! ```text
//! pipeline   from the start of a prepared execution to its end: opening, checkpoints and their syncs included
//! plain      one thread, one buffer, nothing copied
//! ```
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
    AllowedCommands, AllowedPaths, End, ExecutionPlan, RunnerContext, RunnerEvent, RunnerOptions,
    prepare,
};
use sluice_model::pipeline::parse;
use sluice_model::{Attempt, Digest, ExecutionId, Labels, Version};
use tokio::sync::mpsc;

/// Enough that opening, the last checkpoint and its syncs are a few nanoseconds a record.
const RECORDS_DEFAULT: u64 = 1_000_000;
const ROUNDS_DEFAULT: u32 = 7;
const RECORD_BYTES: usize = 255;
const NEEDLE: &str = "needle";
/// Starts from the cache that are measured; their median and their worst are told.
const STARTS: usize = 30;
/// Starts that compile; their median is told.
const COLD_STARTS: usize = 3;
/// What the plain program reads at once.
const READ_BYTES: usize = 512 * 1024;

/// What a pipeline does, and which plain program does the same.
struct Case {
    name: &'static str,
    stage: &'static str,
    plain: Plain,
}

#[derive(Clone, Copy)]
enum Plain {
    ReadAndSplit,
    ReadSplitAndFind,
}

const FILTER: &str = "[[stage]]\nname = \"s\"\nplugin = \"./filter_contains.wasm\"\nconfig = { contains = \"needle\" }\n";

const CASES: &[Case] = &[
    Case {
        name: "file -> discard",
        stage: "",
        plain: Plain::ReadAndSplit,
    },
    Case {
        name: "file -> identity -> discard",
        stage: "[[stage]]\nname = \"s\"\nplugin = \"./identity.wasm\"\n",
        plain: Plain::ReadAndSplit,
    },
    Case {
        name: "file -> filter -> discard",
        stage: FILTER,
        plain: Plain::ReadSplitAndFind,
    },
];

/// The least times of a case.
#[derive(Clone, Copy)]
struct Row {
    pipeline: Duration,
    plain: Duration,
}

/// From the order to start to the first record at the output.
struct Starts {
    cached_median: Duration,
    cached_worst: Duration,
    compiling: Duration,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let directory = tempfile::tempdir()?;
    let directory = directory.path();
    let input = directory.join("in.log");
    write_input(&input, options.records)?;
    let context = runner(directory, "code")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;

    let mut rows = vec![
        Row {
            pipeline: Duration::MAX,
            plain: Duration::MAX,
        };
        CASES.len()
    ];
    for _ in 0..options.rounds {
        for (case, row) in CASES.iter().zip(&mut rows) {
            let started = Instant::now();
            let expected = plain(&input, case.plain)?;
            row.plain = row.plain.min(started.elapsed());
            let (took, passed) =
                runtime.block_on(run(&context, directory, "in.log", case.stage))?;
            let name = case.name;
            ensure!(
                passed == expected,
                "{name} passed {passed} records, plain Rust {expected}"
            );
            row.pipeline = row.pipeline.min(took);
        }
    }
    let starts = runtime.block_on(starts(&context, directory))?;
    match options.json {
        true => print_json(&options, &rows, &starts),
        false => print_table(&options, &rows, &starts),
    }
    Ok(())
}

fn runner(directory: &Path, cache: &str) -> anyhow::Result<RunnerContext> {
    Ok(RunnerContext::open(RunnerOptions {
        cache_dir: directory.join(cache),
        allowed: AllowedPaths::new([directory.to_path_buf()])?,
        commands: AllowedCommands::default(),
        console: None,
        hostname: "bench".to_owned(),
    })?)
}

/// Reads and splits in one loop; returns how many lines there are, or how many have the needle.
fn plain(path: &Path, work: Plain) -> anyhow::Result<u64> {
    let mut file = File::open(path)?;
    let finder = Finder::new(NEEDLE);
    let mut buffer = vec![0; 2 * READ_BYTES];
    let (mut held, mut passed) = (0, 0);
    loop {
        let read = file.read(&mut buffer[held..held + READ_BYTES])?;
        if read == 0 {
            return Ok(passed);
        }
        let bytes = &buffer[..held + read];
        let mut start = 0;
        for newline in memchr::memchr_iter(b'\n', bytes) {
            let line = std::hint::black_box(&bytes[start..newline]);
            passed += match work {
                Plain::ReadAndSplit => 1,
                Plain::ReadSplitAndFind => u64::from(finder.find(line).is_some()),
            };
            start = newline + 1;
        }
        let end = held + read;
        buffer.copy_within(start..end, 0);
        held = end - start;
    }
}

async fn starts(context: &RunnerContext, directory: &Path) -> anyhow::Result<Starts> {
    std::fs::write(directory.join("one.log"), "one needle\n")?;
    let mut cached = Vec::new();
    for _ in 0..STARTS {
        cached.push(first_record(context, directory).await?);
    }
    cached.sort_unstable();
    let mut compiling = Vec::new();
    for number in 0..COLD_STARTS {
        let empty = runner(directory, &format!("empty-{number}"))?;
        compiling.push(first_record(&empty, directory).await?);
        // Its guest threads end with it, and that is waited for.
        tokio::task::spawn_blocking(move || drop(empty)).await?;
    }
    compiling.sort_unstable();
    Ok(Starts {
        cached_median: cached[STARTS / 2],
        cached_worst: cached[STARTS - 1],
        compiling: compiling[COLD_STARTS / 2],
    })
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

/// From the order to start to the first record at the output; compiled code is on the disk at most, never in memory.
async fn first_record(context: &RunnerContext, directory: &Path) -> anyhow::Result<Duration> {
    let plan = plan(directory, "one.log", FILTER)?;
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
        content: Digest::of(text.as_bytes()),
        job: pipeline.name.clone(),
        node: "bench".parse()?,
        labels: Labels::new(),
        components: pipeline
            .plugins()
            .map(|(_, plugin)| component(plugin.to_string()))
            .collect::<Result<_, _>>()?,
        stdin: None,
        params: Default::default(),
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

fn nanoseconds(options: &Options, took: Duration) -> f64 {
    took.as_secs_f64() * 1e9 / options.records as f64
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

fn print_json(options: &Options, rows: &[Row], starts: &Starts) {
    let rows: Vec<_> = CASES
        .iter()
        .zip(rows)
        .map(|(case, row)| {
            let (pipeline, plain) = (
                nanoseconds(options, row.pipeline),
                nanoseconds(options, row.plain),
            );
            serde_json::json!({
                "pipeline": case.name, "ns_a_record": pipeline, "plain_ns_a_record": plain, "ratio": pipeline / plain,
            })
        })
        .collect();
    let start = serde_json::json!({
        "cached_median_ms": milliseconds(starts.cached_median),
        "cached_worst_ms": milliseconds(starts.cached_worst),
        "compiling_median_ms": milliseconds(starts.compiling),
    });
    println!(
        "{}",
        serde_json::json!({ "pipelines": rows, "start_to_first_record": start })
    );
}

fn print_table(options: &Options, rows: &[Row], starts: &Starts) {
    println!(
        "{} records of {RECORD_BYTES} bytes, ns a record, least of {} rounds",
        options.records, options.rounds
    );
    println!(
        "{:<34} {:>10} {:>10} {:>10} {:>12}",
        "", "pipeline", "plain", "ratio", "M records/s"
    );
    for (case, row) in CASES.iter().zip(rows) {
        let (pipeline, plain) = (
            nanoseconds(options, row.pipeline),
            nanoseconds(options, row.plain),
        );
        println!(
            "{:<34} {pipeline:>10.1} {plain:>10.1} {:>9.2}x {:>12.2}",
            case.name,
            pipeline / plain,
            1e3 / pipeline,
        );
    }
    println!();
    println!(
        "{:<34} {:>10} {:>10} {:>10} {:>12}",
        "start to first record, ms", "cached", "compiling", "ratio", "worst cached"
    );
    let (cached, compiling) = (
        milliseconds(starts.cached_median),
        milliseconds(starts.compiling),
    );
    println!(
        "{:<34} {cached:>10.2} {compiling:>10.2} {:>9.3}x {:>12.2}",
        "filter",
        cached / compiling,
        milliseconds(starts.cached_worst)
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
