//! A stage that misbehaves in the way its config asks for: `{"do": "spin"}`. The sandbox's tests run against it.
//!
//! `when` says in which calls: `"poison"` = when a record of the batch contains `poison` (the default of `trap-on` and
//! `spin`), `"always"` (the default of the rest). In other calls it keeps everything. `count` and `bytes` change the
//! amounts. What needs hand-written Wasm (growing a table, say) is not here.

use serde::Deserialize;
use sluice_sdk::{Batch, BatchStage, Fault, Output, log, stage};

mod output;

/// The stage's config.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What to do.
    #[serde(rename = "do")]
    pub act: Act,
    /// In which calls; the default depends on `do`.
    pub when: Option<When>,
    /// How many: log lines (10,000), faults before it works (1), records (1,000,000).
    pub count: Option<u32>,
    /// How large: output (24 MiB), log line (64 KiB), reason (64 KiB), memory kept by each call of `leak` (1 MiB).
    pub bytes: Option<usize>,
}

/// In which calls to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// When a record of the batch contains `poison`.
    Poison,
    /// In each.
    Always,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Keeps everything.
    Keep,
    /// Selects nothing.
    DropAll,
    /// Replaces each record by its upper-case form.
    Uppercase,
    /// Replaces each record by two of it, with their origin.
    Duplicate,
    /// Replaces each record by how many this instance has seen: 1, 2, 3. A fresh instance starts over.
    StatefulCounter,
    /// Rejects the records with an odd index, keeps the others.
    RejectEveryOther,
    /// Rejects everything.
    RejectAll,
    /// Panics.
    TrapOn,
    /// Loops for ever.
    Spin,
    /// Recurses for ever.
    OverflowStack,
    /// Allocates until it fails.
    GrowMemory,
    /// Keeps everything, and `bytes` of memory with each call.
    Leak,
    /// Replaces the batch by one record of `bytes`.
    HugeOutput,
    /// Replaces the batch by `count` empty records.
    RecordFlood,
    /// Logs `count` lines, keeps everything.
    LogFlood,
    /// Logs a line of `bytes`, keeps everything.
    LongLogLine,
    /// Rejects the first record with a reason of `bytes`.
    LongReason,
    /// Answers with the fault `retry`, `count` times for each instance; then keeps everything.
    Retry,
    /// Answers with the fault `fatal`.
    Fatal,
    /// Refuses its config.
    ConfigureError,
    /// Panics in `configure`.
    ConfigureTrap,
    /// Loops for ever in `configure`.
    ConfigureSpin,
    /// Replaces with ends that descend.
    #[serde(alias = "bad-offsets")]
    DescendingEnds,
    /// Replaces with a last end outside the data.
    EndsOutside,
    /// Replaces with bytes after the last end.
    TrailingBytes,
    /// Selects an index that does not exist.
    SelectOutOfRange,
    /// Selects in descending order. Needs two records.
    SelectDescending,
    /// Selects the first record twice.
    SelectRepeated,
    /// Selects and rejects the first record.
    SelectRejected,
    /// Rejects an index that does not exist.
    RejectOutOfRange,
    /// Rejects in descending order. Needs two records.
    RejectDescending,
    /// Rejects the first record twice.
    RejectRepeated,
    /// Replaces with an origin that does not exist.
    OriginOutOfRange,
    /// Replaces with origins in descending order. Needs two records.
    OriginDescending,
    /// Replaces with one origin too few. Needs two records.
    OriginLength,
    /// Replaces with one record too many and no origin.
    OriginMissing,
    /// Replaces with one time too many.
    TimesLength,
    /// Replaces with an attribute that has no value for any record.
    AttributesLength,
}

/// The stage.
#[derive(Debug)]
pub struct Hostile {
    config: Config,
    seen: u64,
    faults: u32,
    kept: Vec<Vec<u8>>,
}

impl BatchStage for Hostile {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        match config.act {
            Act::ConfigureError => return Err("this config is refused, as asked".to_owned()),
            Act::ConfigureTrap => panic!("configure traps, as asked"),
            Act::ConfigureSpin => spin(),
            _ => {}
        }
        Ok(Self {
            config,
            seen: 0,
            faults: 0,
            kept: Vec::new(),
        })
    }

    fn process(&mut self, batch: Batch) -> Result<Output, Fault> {
        let when = self.config.when.unwrap_or(match self.config.act {
            Act::TrapOn | Act::Spin => When::Poison,
            _ => When::Always,
        });
        if when == When::Poison
            && !batch
                .records()
                .any(|record| record.windows(6).any(|text| text == b"poison"))
        {
            return Ok(output::keep());
        }
        self.act(&batch)
    }
}

impl Hostile {
    fn act(&mut self, batch: &Batch) -> Result<Output, Fault> {
        let bytes = |default: usize| self.config.bytes.unwrap_or(default);
        let count = |default: u32| self.config.count.unwrap_or(default);
        match self.config.act {
            Act::TrapOn => panic!("trapped, as asked"),
            Act::Spin => spin(),
            Act::OverflowStack => {
                log::info(format!("came back from {}", recurse(batch.len() as u64)))
            }
            Act::GrowMemory => loop {
                self.kept.push(vec![1; 1 << 20]);
            },
            Act::Leak => self.kept.push(vec![1; bytes(1 << 20)]),
            Act::LogFlood => (0..count(10_000)).for_each(|line| log::info(format!("line {line}"))),
            Act::LongLogLine => log::warn("x".repeat(bytes(64 << 10))),
            Act::Retry if self.faults < count(1) => {
                self.faults += 1;
                return Err(Fault::Retry(format!("failure {}, as asked", self.faults)));
            }
            Act::Fatal => return Err(Fault::Fatal("stopped, as asked".to_owned())),
            Act::HugeOutput => return Ok(output::one_record(vec![b'x'; bytes(24 << 20)])),
            Act::RecordFlood => return Ok(output::empty_records(count(1_000_000))),
            Act::LongReason => return Ok(output::reject_first("r".repeat(bytes(64 << 10)))),
            Act::StatefulCounter => {
                return Ok(output::replace_each(batch, |_| {
                    self.seen += 1;
                    self.seen.to_string().into_bytes()
                }));
            }
            act => return Ok(output::of(act, batch)),
        }
        Ok(output::keep())
    }
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// Never ends, in a way that no compiler turns into a loop.
#[allow(unconditional_recursion, reason = "that is the purpose")]
fn recurse(depth: u64) -> u64 {
    let frame = [depth; 32];
    std::hint::black_box(recurse(std::hint::black_box(&frame)[3] + 1)) + frame[7]
}

stage!(Hostile);

#[cfg(test)]
mod tests;
