//! What one stage costs: 256 records of 256 bytes through a chain of one, beside the same work in plain Rust and beside
//! copying the bytes.
//!
//! ```text
//! stage    InProcessChain::process, which is what the runner calls; `out` adds putting the records that passed
//!          into a batch of their own
//! native   the same decision in this binary, records that pass put into a batch of their own
//! memcpy   the batch's bytes and offsets copied once
//! ```
//!
//! All of it runs interleaved, round after round, so that a noisy moment hits all alike; each number is the least of all
//! rounds. Every few rounds the buffers move: copying is several times slower between addresses whose low bits happen to
//! be alike, and no row should owe its number to that. Build it with `--release`. Arguments: `[--rounds N] [--only TEXT] [--plugins DIR] [--output json]`.

#![allow(clippy::print_stdout, reason = "its result is what it prints")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use bench_json::BenchJson;
use sha2::{Digest as _, Sha256};
use sluice_record::Batch;
use sluice_sandbox::{
    Chain, ChainOutput, Engine, EngineConfig, InProcessChain, Level, LogSink, OnRetry, StageLimits,
    StageSpec, Turn,
};
use sluice_sdk::{BatchStage, Outcome};

const RECORDS: usize = 256;
const RECORD_BYTES: usize = 256;
/// Calls timed together: some hundred microseconds, far above the clock's grain and below most interruptions.
const CALLS: usize = 16;
const ROUNDS_DEFAULT: usize = 400;
/// Rounds before the buffers move.
const ROUNDS_IN_PLACE: usize = 8;

/// What the work is, and how plain Rust does it.
struct Case {
    name: &'static str,
    plugin: Plugin,
    config: &'static str,
    input: Batch,
    native: Native,
}

enum Plugin {
    /// In `plugins/dist/`.
    Dist(&'static str),
    /// In text.
    Text(&'static str),
}

/// Puts what passes into the output.
type Native = Box<dyn FnMut(&Batch, &mut Batch)>;

/// The least times of a case, in nanoseconds a record.
#[derive(Clone, Copy)]
struct Row {
    stage: f64,
    stage_out: f64,
    native: f64,
    memcpy: f64,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let engine = Engine::new(EngineConfig::default())?;
    let mut benches = Vec::new();
    for case in cases()?
        .into_iter()
        .filter(|case| case.name.contains(&options.only))
    {
        benches.push(Bench::new(&engine, case, &options.plugins)?);
    }
    for bench in &mut benches {
        bench.agree()?;
    }
    for round in 0..options.rounds {
        for bench in &mut benches {
            if round % ROUNDS_IN_PLACE == 0 {
                bench.move_buffers(round / ROUNDS_IN_PLACE);
            }
            bench.round();
        }
    }
    match options.json {
        true => print_json(&benches),
        false => print_table(&benches),
    }
    Ok(())
}

fn cases() -> anyhow::Result<Vec<Case>> {
    let mut finder_output = Vec::new();
    Ok(vec![
        Case {
            name: "identity",
            plugin: Plugin::Dist("identity"),
            config: "{}",
            input: text_records(2),
            native: Box::new(|input, output| {
                for record in input.iter() {
                    output.push(record);
                }
            }),
        },
        Case {
            name: "filter by a byte",
            plugin: Plugin::Text(include_str!("filter_byte.wat")),
            config: "{}",
            input: text_records(2),
            native: Box::new(|input, output| {
                for record in input.iter() {
                    if record.first() == Some(&b'k') {
                        output.push(record);
                    }
                }
            }),
        },
        Case {
            name: "filter, contains a text",
            plugin: Plugin::Dist("filter_contains"),
            config: r#"{"contains":"needle"}"#,
            input: text_records(2),
            native: {
                let finder = memchr::memmem::Finder::new("needle").into_owned();
                Box::new(move |input, output| {
                    finder_output.clear();
                    finder_output.extend(input.iter().map(|record| finder.find(record).is_some()));
                    for (record, passes) in input.iter().zip(&finder_output) {
                        if *passes {
                            output.push(record);
                        }
                    }
                })
            },
        },
        Case {
            name: "JSON: drop debug, set a field",
            plugin: Plugin::Dist("bench_json"),
            config: "{}",
            input: json_records(),
            native: native_json()?,
        },
    ])
}

/// Records of which every `nth` starts with `k` and ends with `needle`.
fn text_records(nth: usize) -> Batch {
    (0..RECORDS)
        .map(|index| {
            let passes = index % nth == 0;
            let mut record = format!("{} {index} ", if passes { 'k' } else { 'd' });
            while record.len() < RECORD_BYTES {
                record.push_str("lorem ipsum dolor ");
            }
            record.truncate(RECORD_BYTES - 6);
            record.push_str(if passes { "needle" } else { "noodle" });
            record
        })
        .collect()
}

/// Log lines in JSON, every fourth of level debug.
fn json_records() -> Batch {
    (0..RECORDS)
        .map(|index| {
            let level = ["debug", "info", "warn", "error"][index % 4];
            let head = format!(
                r#"{{"at":"2026-01-02T03:04:05.{index:06}Z","host":"edge-{}","level":"{level}","status":{},"took_ms":{}.5,"tags":["a","b"],"message":""#,
                index % 7,
                200 + index % 5,
                index
            );
            let message = "the quick brown fox jumps over the lazy dog and on ".repeat(4);
            format!("{head}{}\"}}", &message[..RECORD_BYTES - head.len() - 2])
        })
        .collect()
}

/// The plugin's own code, compiled for this machine.
fn native_json() -> anyhow::Result<Native> {
    let mut stage = <BenchJson as BatchStage>::configure(bench_json::Config::default())
        .map_err(anyhow::Error::msg)?;
    Ok(Box::new(move |input, output| {
        let batch = sluice_sdk::Batch {
            data: input.data.clone(),
            ends: input.ends.clone(),
            times: Vec::new(),
            attributes: Vec::new(),
        };
        match BatchStage::process(&mut stage, batch).map(|output| output.outcome) {
            Ok(Outcome::Replace(new)) => {
                output.data.extend_from_slice(&new.batch.data);
                output.ends.extend_from_slice(&new.batch.ends);
            }
            _ => output.clear(),
        }
    }))
}

struct Bench {
    case: Case,
    chain: InProcessChain,
    output: ChainOutput,
    passed: Batch,
    least: Row,
}

impl Bench {
    fn new(engine: &Engine, case: Case, plugins: &Path) -> anyhow::Result<Self> {
        let wasm = match case.plugin {
            Plugin::Text(text) => wat::parse_str(text).context("the stage in text")?,
            Plugin::Dist(name) => {
                let path = plugins.join(format!("{name}.wasm"));
                std::fs::read(&path).with_context(|| {
                    format!("{}: run scripts/build-plugins first", path.display())
                })?
            }
        };
        let digest: [u8; 32] = Sha256::digest(&wasm).into();
        let spec = StageSpec {
            name: case.name.to_owned(),
            config_json: case.config.to_owned(),
            limits: StageLimits::default(),
            compiled: engine.load(&digest, || Ok(wasm))?,
        };
        let chain = InProcessChain::new(engine, vec![spec], Arc::new(Silence))?;
        let least = Row {
            stage: f64::MAX,
            stage_out: f64::MAX,
            native: f64::MAX,
            memcpy: f64::MAX,
        };
        Ok(Self {
            case,
            chain,
            output: ChainOutput::new(),
            passed: Batch::new(),
            least,
        })
    }

    /// Both ways must give the same records, or there is nothing to compare.
    fn agree(&mut self) -> anyhow::Result<()> {
        let mut native = Batch::new();
        (self.case.native)(&self.case.input, &mut native);
        self.call(true);
        if native.is_empty() || native.ends != self.passed.ends || native.data != self.passed.data {
            bail!("{}: stage and native code disagree", self.case.name);
        }
        Ok(())
    }

    fn call(&mut self, out: bool) {
        let turn = self
            .chain
            .process(&self.case.input, &mut self.output, OnRetry::Report);
        assert!(matches!(turn, Ok(Turn::Done)), "these stages never fail");
        let view = self.output.view(&self.case.input);
        assert!(!view.is_empty() && self.output.dead_letters.is_empty());
        if out {
            self.passed.clear();
            view.append_to(&mut self.passed);
            black_box(&self.passed);
        }
    }

    /// Gives the buffers new addresses.
    fn move_buffers(&mut self, step: usize) {
        let spacer = vec![0u8; 16 + step % 29 * 144];
        self.case.input = self.case.input.clone();
        let spacer_between = vec![0u8; 16 + step % 31 * 176];
        self.passed = Batch::new();
        self.passed.append(&self.case.input);
        drop(black_box((spacer, spacer_between)));
    }

    fn round(&mut self) {
        // Not counted: the other cases have pushed this one's memory out of the nearest cache, and the native code and the
        // copying, which come after the stage, would find it there again.
        self.call(false);
        let stage = timed(|| self.call(false));
        let stage_out = timed(|| self.call(true));
        let Self { case, passed, .. } = self;
        let native = timed(|| {
            passed.clear();
            (case.native)(black_box(&case.input), passed);
            black_box(&*passed);
        });
        let memcpy = timed(|| {
            passed.clear();
            passed.data.extend_from_slice(black_box(&case.input.data));
            passed.ends.extend_from_slice(black_box(&case.input.ends));
            black_box(&*passed);
        });
        let least = &mut self.least;
        least.stage = least.stage.min(stage);
        least.stage_out = least.stage_out.min(stage_out);
        least.native = least.native.min(native);
        least.memcpy = least.memcpy.min(memcpy);
    }
}

/// Nanoseconds a record.
fn timed(mut call: impl FnMut()) -> f64 {
    let started = Instant::now();
    for _ in 0..CALLS {
        call();
    }
    started.elapsed().as_nanos() as f64 / (CALLS * RECORDS) as f64
}

fn print_table(benches: &[Bench]) {
    println!(
        "{RECORDS} records of {RECORD_BYTES} B through one stage, ns a record, least of all rounds"
    );
    println!(
        "{:<30} {:>8} {:>8} {:>8} {:>8} {:>12} {:>12}",
        "work", "stage", "+ out", "native", "memcpy", "out/native", "out/memcpy"
    );
    for bench in benches {
        let Row {
            stage,
            stage_out,
            native,
            memcpy,
        } = bench.least;
        println!(
            "{:<30} {stage:>8.1} {stage_out:>8.1} {native:>8.1} {memcpy:>8.1} {:>11.2}x {:>11.2}x",
            bench.case.name,
            stage_out / native,
            stage_out / memcpy,
        );
    }
}

fn print_json(benches: &[Bench]) {
    let rows: Vec<serde_json::Value> = benches
        .iter()
        .map(|bench| {
            let Row {
                stage,
                stage_out,
                native,
                memcpy,
            } = bench.least;
            serde_json::json!({
                "work": bench.case.name,
                "stage_ns": stage,
                "stage_out_ns": stage_out,
                "native_ns": native,
                "memcpy_ns": memcpy,
                "out_to_native": stage_out / native,
                "out_to_memcpy": stage_out / memcpy,
            })
        })
        .collect();
    println!("{}", serde_json::Value::from(rows));
}

struct Options {
    rounds: usize,
    /// Part of the names of the cases to run; empty means all.
    only: String,
    /// Where the components are.
    plugins: PathBuf,
    json: bool,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self {
            rounds: ROUNDS_DEFAULT,
            only: String::new(),
            plugins: Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist"),
            json: false,
        };
        while let Some(argument) = arguments.next() {
            match (argument.as_str(), arguments.next().as_deref()) {
                ("--rounds", Some(rounds)) => {
                    options.rounds = rounds.parse().context("--rounds takes a number")?
                }
                ("--only", Some(text)) => options.only = text.to_owned(),
                ("--plugins", Some(dir)) => options.plugins = dir.into(),
                ("--output", Some("json")) => options.json = true,
                ("--output", Some("table")) => options.json = false,
                _ => {
                    bail!(
                        "usage: bench_boundary [--rounds N] [--only TEXT] [--plugins DIR] [--output table|json]"
                    )
                }
            }
        }
        Ok(options)
    }
}

/// Nobody listens.
struct Silence;

impl LogSink for Silence {
    fn log(&self, _stage: &str, _level: Level, _message: &str) {}
}
