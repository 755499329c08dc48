//! Turns what `nvidia-smi --query-gpu=... --format=csv` prints into a JSON report of each GPU.
//!
//! ```text
//! index, name, utilization.gpu [%], memory.used [MiB], memory.total [MiB], temperature.gpu, clocks_throttle_reasons.active
//! 0, NVIDIA A10, 97 %, 22100 MiB, 23028 MiB, 88, 0x0000000000000020
//!
//! {"gpu":"0","name":"NVIDIA A10","utilisation_percent":97,"memory_used_mib":22100,"memory_total_mib":23028,
//!  "memory_percent":95,"temperature_c":88,"throttling":["sw-thermal-slowdown"],"concerns":["hot","memory-full","throttling"]}
//! ```
//!
//! The first line names the columns, in any order and any number; with or without units. What was not queried, or what
//! the card does not tell (`[N/A]`), is null. Percentages are cut to whole ones. Any other line is rejected with a reason, so
//! that nvidia-smi's own words (`No devices were found`) are in the dead letters.

use serde::Deserialize;
use sluice_sdk::json::{ObjectWriter, write_text};
use sluice_sdk::{Decision, Emit, Record, RecordStage, stage};

/// Bits of `clocks_throttle_reasons.active`, as NVML's header names them. The lowest three and the last are how a card
/// works when all is well: idle, or at clocks that somebody chose.
const THROTTLE_BITS: [(u64, &str); 5] = [
    (0x04, "sw-power-cap"),
    (0x08, "hw-slowdown"),
    (0x20, "sw-thermal-slowdown"),
    (0x40, "hw-thermal-slowdown"),
    (0x80, "hw-power-brake-slowdown"),
];
/// Columns that say `Active` or `Not Active`, one for each bit above.
const THROTTLE_COLUMNS: [(&str, &str); 5] = [
    ("sw_power_cap", "sw-power-cap"),
    ("hw_slowdown", "hw-slowdown"),
    ("sw_thermal_slowdown", "sw-thermal-slowdown"),
    ("hw_thermal_slowdown", "hw-thermal-slowdown"),
    ("hw_power_brake_slowdown", "hw-power-brake-slowdown"),
];

/// What is a concern.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// From this temperature on a card is hot.
    hot_c: u64,
    /// From this part on its memory is full.
    memory_full_percent: u64,
}

impl Default for Config {
    /// Cards slow down from about 85 °C on; with 95 % of its memory taken the next allocation may fail.
    fn default() -> Self {
        Self {
            hot_c: 85,
            memory_full_percent: 95,
        }
    }
}

/// The stage.
#[derive(Debug)]
pub struct GpuReport {
    config: Config,
    /// The names of the columns, once the header has come.
    columns: Vec<String>,
}

impl RecordStage for GpuReport {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        if config.memory_full_percent > 100 {
            return Err("config: `memory_full_percent` is over 100".to_owned());
        }
        Ok(Self {
            config,
            columns: Vec::new(),
        })
    }

    fn record(&mut self, record: Record<'_>, emit: &mut Emit) -> Decision {
        let Ok(line) = record.text() else {
            return Decision::reject("not UTF-8: no output of nvidia-smi");
        };
        let line = line.trim();
        if line.is_empty() {
            return Decision::Drop;
        }
        if let Some(columns) = header(line) {
            self.columns = columns;
            return Decision::Drop;
        }
        match self.row(line) {
            Ok(row) => {
                row.write(self.config, emit);
                Decision::Emitted
            }
            Err(reason) => Decision::Reject(reason),
        }
    }
}

/// The columns' names without units, if this is the line that names them: all of them are words of `--query-gpu`.
fn header(line: &str) -> Option<Vec<String>> {
    let name = |cell: &str| {
        let name = cell.split('[').next().unwrap_or_default().trim();
        let known = |byte: u8| byte.is_ascii_lowercase() || matches!(byte, b'.' | b'_');
        (!name.is_empty() && name.bytes().all(known)).then(|| name.to_owned())
    };
    line.split(',').map(name).collect()
}

/// One GPU.
#[derive(Debug, Default)]
struct Row<'a> {
    gpu: Option<&'a str>,
    name: Option<&'a str>,
    utilisation: Option<u64>,
    memory_used: Option<u64>,
    memory_total: Option<u64>,
    temperature: Option<u64>,
    /// `None`: not queried, or not told.
    throttling: Option<Vec<&'static str>>,
}

impl GpuReport {
    fn row<'a>(&self, line: &'a str) -> Result<Row<'a>, String> {
        if self.columns.is_empty() {
            return Err(format!(
                "no header came before, so this is no output of `nvidia-smi --query-gpu=... --format=csv`: {line}"
            ));
        }
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        if cells.len() != self.columns.len() {
            return Err(format!(
                "{} values for {} columns: {line}",
                cells.len(),
                self.columns.len()
            ));
        }
        let mut row = Row::default();
        for (column, cell) in self.columns.iter().zip(cells) {
            // `[N/A]`, `[Not Supported]`, `[Unknown Error]`
            if cell.starts_with('[') || cell == "N/A" {
                continue;
            }
            let number = || {
                let digits = cell.split(' ').next().unwrap_or_default();
                let parsed = digits.parse::<u64>();
                parsed.map_err(|_| format!("`{column}` is no whole number: {cell}"))
            };
            match column.as_str() {
                "index" => row.gpu = Some(cell),
                "uuid" | "gpu_uuid" => row.gpu = row.gpu.or(Some(cell)),
                "name" | "gpu_name" => row.name = Some(cell),
                "utilization.gpu" => row.utilisation = Some(number()?),
                "memory.used" => row.memory_used = Some(number()?),
                "memory.total" => row.memory_total = Some(number()?),
                "temperature.gpu" => row.temperature = Some(number()?),
                other => row.throttle(other, cell)?,
            }
        }
        Ok(row)
    }
}

impl Row<'_> {
    /// `clocks_throttle_reasons.*`, or as newer drivers name it `clocks_event_reasons.*`.
    fn throttle(&mut self, column: &str, cell: &str) -> Result<(), String> {
        let Some(reason) = column
            .strip_prefix("clocks_throttle_reasons.")
            .or_else(|| column.strip_prefix("clocks_event_reasons."))
        else {
            return Ok(());
        };
        if reason == "active" {
            let bits = cell.strip_prefix("0x").unwrap_or(cell);
            let bits = u64::from_str_radix(bits, 16)
                .map_err(|_| format!("`{column}` is no number in hexadecimal: {cell}"))?;
            let set = THROTTLE_BITS.iter().filter(|(bit, _)| bits & bit != 0);
            let throttling = self.throttling.get_or_insert_default();
            throttling.extend(set.map(|(_, name)| name));
        } else if let Some((_, name)) = THROTTLE_COLUMNS.iter().find(|(it, _)| *it == reason) {
            let throttling = self.throttling.get_or_insert_default();
            if cell == "Active" {
                throttling.push(name);
            }
        }
        Ok(())
    }

    fn memory_percent(&self) -> Option<u64> {
        self.memory_used?
            .saturating_mul(100)
            .checked_div(self.memory_total?)
    }

    fn write(mut self, config: Config, emit: &mut Emit) {
        if let Some(throttling) = &mut self.throttling {
            throttling.sort_unstable();
            throttling.dedup();
        }
        let mut concerns = Vec::new();
        if self.temperature.is_some_and(|it| it >= config.hot_c) {
            concerns.push("hot");
        }
        if self
            .memory_percent()
            .is_some_and(|it| it >= config.memory_full_percent)
        {
            concerns.push("memory-full");
        }
        if self.throttling.as_ref().is_some_and(|it| !it.is_empty()) {
            concerns.push("throttling");
        }
        let throttling = self.throttling.as_deref().map(list);
        let mut record = emit.start();
        let mut object = ObjectWriter::new(&mut record);
        object.text("gpu", self.gpu);
        object.text("name", self.name);
        object.integer("utilisation_percent", self.utilisation);
        object.integer("memory_used_mib", self.memory_used);
        object.integer("memory_total_mib", self.memory_total);
        object.integer("memory_percent", self.memory_percent());
        object.integer("temperature_c", self.temperature);
        object.raw("throttling", throttling.as_deref().unwrap_or("null"));
        object.raw("concerns", &list(&concerns));
        object.finish();
        record.finish();
    }
}

/// A JSON list of plain words.
fn list(words: &[&str]) -> String {
    let mut json = b"[".to_vec();
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write_text(word, &mut json);
    }
    json.push(b']');
    String::from_utf8(json).expect("made of text")
}

stage!(GpuReport);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sluice_sdk::testing::Harness;

    use super::*;

    const HEADER: &str = "index, name, utilization.gpu [%], memory.used [MiB], memory.total [MiB], temperature.gpu, clocks_throttle_reasons.active";

    fn report(config: &str, lines: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut harness = Harness::<GpuReport>::new(config).unwrap();
        let processed = harness.process(lines).unwrap();
        let rejects = processed.rejects.iter().map(|(_, reason)| reason.clone());
        (processed.text(), rejects.collect())
    }

    #[test]
    fn each_gpu_becomes_one_report() {
        let (records, rejects) = report(
            "{}",
            &[
                HEADER,
                "0, NVIDIA A10, 97 %, 22100 MiB, 23028 MiB, 88, 0x0000000000000020",
                "1, NVIDIA A10, 0 %, 4 MiB, 23028 MiB, 31, 0x0000000000000001",
                "2, NVIDIA \"T4\", [N/A], 4 MiB, 15360 MiB, [N/A], [Not Supported]",
                "",
            ],
        );
        assert_eq!(
            records,
            [
                r#"{"gpu":"0","name":"NVIDIA A10","utilisation_percent":97,"memory_used_mib":22100,"memory_total_mib":23028,"memory_percent":95,"temperature_c":88,"throttling":["sw-thermal-slowdown"],"concerns":["hot","memory-full","throttling"]}"#,
                r#"{"gpu":"1","name":"NVIDIA A10","utilisation_percent":0,"memory_used_mib":4,"memory_total_mib":23028,"memory_percent":0,"temperature_c":31,"throttling":[],"concerns":[]}"#,
                r#"{"gpu":"2","name":"NVIDIA \"T4\"","utilisation_percent":null,"memory_used_mib":4,"memory_total_mib":15360,"memory_percent":0,"temperature_c":null,"throttling":null,"concerns":[]}"#,
            ]
        );
        assert!(rejects.is_empty(), "{rejects:?}");
    }

    #[test]
    fn columns_come_in_any_order_without_units_and_by_newer_names() {
        let (records, _) = report(
            r#"{"hot_c":60}"#,
            &[
                "uuid, temperature.gpu, clocks_event_reasons.hw_slowdown, clocks_event_reasons.sw_power_cap, pstate",
                "GPU-1, 60, Not Active, Active, P0",
            ],
        );
        assert_eq!(
            records,
            [
                r#"{"gpu":"GPU-1","name":null,"utilisation_percent":null,"memory_used_mib":null,"memory_total_mib":null,"memory_percent":null,"temperature_c":60,"throttling":["sw-power-cap"],"concerns":["hot","throttling"]}"#
            ]
        );
    }

    #[test]
    fn what_is_no_row_is_rejected_with_its_words() {
        let (records, rejects) = report(
            "{}",
            &[
                "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
                HEADER,
                "No devices were found",
                "0, X, 97 %, lots, 23028 MiB, 88, 0x0",
                "0, X, 97 %, 1 MiB, 2 MiB, 88, soon",
            ],
        );
        assert!(records.is_empty());
        for (reason, said) in rejects.iter().zip([
            "no header came before",
            "1 values for 7 columns: No devices were found",
            "`memory.used` is no whole number: lots",
            "`clocks_throttle_reasons.active` is no number in hexadecimal: soon",
        ]) {
            assert!(reason.contains(said), "{reason}");
        }
        assert_eq!(rejects.len(), 4);
    }

    #[test]
    fn a_wrong_config_is_refused() {
        let refused = |config| Harness::<GpuReport>::new(config).unwrap_err();
        assert!(refused(r#"{"memory_full_percent":101}"#).contains("over 100"));
        assert!(refused(r#"{"hot":1}"#).contains("hot"));
    }
}
