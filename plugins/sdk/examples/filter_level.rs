//! A function over a record, with a config: `config = { field = "level", drop = "debug" }`. What is no JSON object is
//! rejected.

use sluice_sdk::json::{JsonError, Scanner};
use sluice_sdk::{Record, serde, stage};

#[derive(serde::Deserialize)]
#[serde(crate = "sluice_sdk::serde", deny_unknown_fields)]
struct Config {
    field: String,
    drop: String,
}

fn keep(config: &Config, record: Record<'_>) -> Result<bool, JsonError> {
    let mut scanner = Scanner::new();
    let value = scanner.object(record.bytes())?.get(&config.field);
    Ok(!value.is_some_and(|value| value.is_text(&config.drop)))
}

stage!(fn keep(Config));
