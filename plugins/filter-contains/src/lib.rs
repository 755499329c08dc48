//! Passes the records that contain a text, or that match a regular expression.
//!
//! ```toml
//! [[stage]]
//! name = "failed"
//! plugin = "plugins/filter_contains.wasm"
//! config = { contains = "Failed password" }      # or: matches = "port \\d+"; with invert = true the others pass
//! ```
//!
//! Records are bytes: nothing has to be UTF-8. A `.` matches any byte but `\n` only where the expression says `(?-u)`.

use regex::bytes::Regex;
use serde::Deserialize;
use sluice_sdk::{Batch, BatchStage, Fault, Needle, Output, stage};

/// The stage's config.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Passes records with this text in them. May be empty: every record contains it.
    #[serde(default)]
    pub contains: Option<String>,
    /// Passes records in which this regular expression matches somewhere.
    #[serde(default)]
    pub matches: Option<String>,
    /// Passes the others instead.
    #[serde(default)]
    pub invert: bool,
}

/// The stage.
#[derive(Debug)]
pub struct FilterContains {
    test: Test,
    invert: bool,
}

#[derive(Debug)]
enum Test {
    Contains(Needle),
    Matches(Regex),
}

impl BatchStage for FilterContains {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        let test = match (config.contains, config.matches) {
            (Some(text), None) => Test::Contains(Needle::new(text)),
            (None, Some(expression)) => {
                Test::Matches(Regex::new(&expression).map_err(|error| {
                    format!("config: `matches` is no regular expression: {error}")
                })?)
            }
            (Some(_), Some(_)) => {
                return Err(
                    "config: `contains` and `matches` exclude each other: give one".to_owned(),
                );
            }
            (None, None) => {
                return Err(
                    "config: give `contains = \"text\"` or `matches = \"regular expression\"`"
                        .to_owned(),
                );
            }
        };
        Ok(Self {
            test,
            invert: config.invert,
        })
    }

    fn process(&mut self, batch: Batch) -> Result<Output, Fault> {
        Ok(match &self.test {
            Test::Contains(needle) => self.output(&batch, needle.find_in(&batch)),
            Test::Matches(regex) => {
                let found = batch.records().filter(|record| regex.is_match(record));
                self.output(&batch, found.map(|record| record.index() as u32))
            }
        })
    }
}

impl FilterContains {
    fn output(&self, batch: &Batch, found: impl Iterator<Item = u32>) -> Output {
        match self.invert {
            false => Output::pass(batch, found),
            true => Output::pass_others(batch, found),
        }
    }
}

stage!(FilterContains);

#[cfg(test)]
mod tests;
