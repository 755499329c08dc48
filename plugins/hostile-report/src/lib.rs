//! A stage that counts the records it takes in and, at the end of its input, does what its config says.
//!
//! Records that contain `pass` go on, `reject` are rejected, `retry` make the batch be asked for again once, and `poison`
//! ends the call with a panic. All others are counted, and `NAME counted N` is what it says at the end.

use serde::Deserialize;
use sluice_sdk::{Batch, BatchStage, Emit, Fault, Outcome, Output, Reject, Report, report};

/// What the stage is to do.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What it calls itself.
    pub name: String,
    /// How the end goes.
    pub finish: End,
    /// How often the end answers `retry` before it works.
    pub retries: u32,
}

/// How the end goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// It says how many records it counted.
    #[default]
    Count,
    /// It says nothing.
    Nothing,
    /// It panics.
    Trap,
    /// It loops for ever.
    Spin,
    /// It answers `fatal`.
    Fatal,
    /// It returns 24 MiB.
    Huge,
    /// It returns a million records.
    Flood,
}

/// The stage.
#[derive(Debug)]
pub struct HostileReport {
    config: Config,
    counted: u64,
    asked_again: bool,
}

impl BatchStage for HostileReport {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        Ok(Self {
            config,
            counted: 0,
            asked_again: false,
        })
    }

    fn process(&mut self, batch: Batch) -> Result<Output, Fault> {
        let says = |record: &[u8], word: &str| {
            let word = word.as_bytes();
            record.windows(word.len()).any(|text| text == word)
        };
        if !self.asked_again && batch.records().any(|record| says(&record, "retry")) {
            self.asked_again = true;
            return Err(Fault::Retry("later, as asked".to_owned()));
        }
        let mut passed = Vec::new();
        let mut rejects = Vec::new();
        for record in batch.records() {
            let index = record.index() as u32;
            assert!(!says(&record, "poison"), "trapped, as asked");
            if says(&record, "pass") {
                passed.push(index);
            } else if says(&record, "reject") {
                let reason = "rejected, as asked".to_owned();
                rejects.push(Reject { index, reason });
            } else {
                self.counted += 1;
            }
        }
        Ok(Output {
            outcome: Outcome::Select(passed),
            rejects,
        })
    }
}

impl Report for HostileReport {
    fn finish(&mut self, emit: &mut Emit) -> Result<(), Fault> {
        if self.config.retries > 0 {
            self.config.retries -= 1;
            return Err(Fault::Retry("not yet, as asked".to_owned()));
        }
        match self.config.finish {
            End::Count => {
                emit.push(format!("{} counted {}", self.config.name, self.counted).as_bytes());
            }
            End::Nothing => {}
            End::Trap => panic!("trapped at the end, as asked"),
            End::Spin => loop {
                std::hint::spin_loop();
            },
            End::Fatal => return Err(Fault::Fatal("stopped at the end, as asked".to_owned())),
            End::Huge => emit.push(&vec![b'x'; 24 << 20]),
            End::Flood => (0..1_000_000).for_each(|_| emit.push(b"")),
        }
        Ok(())
    }
}

report!(HostileReport);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use sluice_sdk::testing::Harness;

    #[test]
    fn it_counts_and_ends_as_asked() {
        let mut harness = Harness::<HostileReport>::new(r#"{"name":"sum","retries":1}"#).unwrap();
        let processed = harness.process(&["a", "pass b", "reject c", "d"]).unwrap();
        assert_eq!(processed.text(), ["pass b"]);
        assert_eq!(processed.rejects.len(), 1);
        assert!(matches!(harness.process(&["retry"]), Err(Fault::Retry(_))));
        assert!(harness.process(&["retry"]).unwrap().records.is_empty());
        assert!(matches!(harness.finish(), Err(Fault::Retry(_))));
        assert_eq!(harness.finish().unwrap(), ["sum counted 3"]);

        let end = |finish: &str| {
            let config = format!(r#"{{"finish":"{finish}"}}"#);
            Harness::<HostileReport>::new(&config).unwrap().finish()
        };
        assert_eq!(end("nothing").unwrap(), [""; 0]);
        assert!(matches!(end("fatal"), Err(Fault::Fatal(_))));
        assert_eq!(end("huge").unwrap()[0].len(), 24 << 20);
        assert_eq!(end("flood").unwrap().len(), 1_000_000);
    }
}
