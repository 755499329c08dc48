//! Reports on each GPU, once the text of `nvidia-smi --query-gpu=... --format=csv` has ended.
//!
//! ```text
//! config = { hot_c = 85, memory_full_percent = 95 }
//!
//! index, name, utilization.gpu [%], memory.used [MiB], memory.total [MiB], temperature.gpu, clocks_throttle_reasons.active
//! 0, NVIDIA A10, 97 %, 22100 MiB, 23028 MiB, 88, 0x0000000000000020
//! 0, NVIDIA A10, 91 %, 22100 MiB, 23028 MiB, 84, 0x0000000000000000
//!
//! {"report":"gpu-report","samples":2,"rejected":0,"gpus":[{"gpu":"0","name":"NVIDIA A10","samples":2,
//!  "utilisation_percent":{"min":91,"mean":94,"max":97},"memory_used_mib":{...},"memory_total_mib":23028,
//!  "memory_percent_max":95,"temperature_c":{...},"throttled_samples":1,"throttling":{"sw-thermal-slowdown":1},
//!  "concerns":["hot","memory-full","throttling"]}],"samples_left_out":0,"message":null}
//! ```
//!
//! A sample is one line of one card; with `--loop` there are many. The first line names the columns, in any order and any
//! number; with or without units; a header that comes again is one. What was not queried, or what the card does not tell
//! (`[N/A]`), is null. Percentages and means are cut to whole ones. Any other line is rejected with a reason, so that
//! nvidia-smi's own words (`No devices were found`) are in the dead letters; without any sample `message` says that too.

mod summary;

use serde::Deserialize;
use sluice_sdk::{Decision, Emit, Fault, Record, RecordStage, Report, report};

use summary::Summary;

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
    summary: Summary,
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
            summary: Summary::default(),
        })
    }

    fn record(&mut self, record: Record<'_>, _emit: &mut Emit) -> Decision {
        let Ok(line) = record.text() else {
            self.summary.rejected += 1;
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
        match row(&self.columns, line) {
            Ok(row) => {
                self.summary.add(&row);
                Decision::Drop
            }
            Err(reason) => {
                self.summary.rejected += 1;
                Decision::Reject(reason)
            }
        }
    }
}

impl Report for GpuReport {
    fn finish(&mut self, emit: &mut Emit) -> Result<(), Fault> {
        self.summary.write(self.config, emit);
        Ok(())
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

/// One GPU at one moment.
#[derive(Debug, Default)]
pub(crate) struct Row<'a> {
    gpu: Option<&'a str>,
    name: Option<&'a str>,
    utilisation: Option<u64>,
    memory_used: Option<u64>,
    memory_total: Option<u64>,
    temperature: Option<u64>,
    /// `None`: not queried, or not told.
    throttling: Option<Vec<&'static str>>,
}

fn row<'a>(columns: &[String], line: &'a str) -> Result<Row<'a>, String> {
    if columns.is_empty() {
        return Err(format!(
            "no header came before, so this is no output of `nvidia-smi --query-gpu=... --format=csv`: {line}"
        ));
    }
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    if cells.len() != columns.len() {
        return Err(format!(
            "{} values for {} columns: {line}",
            cells.len(),
            columns.len()
        ));
    }
    let mut row = Row::default();
    for (column, cell) in columns.iter().zip(cells) {
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
    if let Some(throttling) = &mut row.throttling {
        throttling.sort_unstable();
        throttling.dedup();
    }
    Ok(row)
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
}

report!(GpuReport);

#[cfg(test)]
mod tests;
