//! What is kept of each GPU, and the report of it.

use std::collections::BTreeMap;

use sluice_sdk::Emit;
use sluice_sdk::json::{ObjectWriter, json_text, list, write_text};

use crate::{Config, Row};

/// GPUs that are kept apart: more than any machine has.
const GPUS_MAX: usize = 1_024;
/// Bytes of a GPU's name or id: what is longer is cut.
const NAME_BYTES_MAX: usize = 128;

/// The least, the mean and the most of some numbers.
#[derive(Clone, Copy, Debug)]
struct Spread {
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
}

impl Spread {
    fn add(spread: &mut Option<Self>, number: Option<u64>) {
        let Some(number) = number else { return };
        let spread = spread.get_or_insert(Self {
            count: 0,
            sum: 0,
            min: number,
            max: number,
        });
        spread.count += 1;
        spread.sum = spread.sum.saturating_add(number);
        spread.min = spread.min.min(number);
        spread.max = spread.max.max(number);
    }

    /// `null` where nothing was told.
    fn json(spread: Option<Self>) -> Vec<u8> {
        let Some(spread) = spread else {
            return b"null".to_vec();
        };
        let mut json = Vec::new();
        let mut object = ObjectWriter::new(&mut json);
        object.integer("min", spread.min);
        object.integer("mean", spread.sum / spread.count);
        object.integer("max", spread.max);
        object.finish();
        json
    }
}

#[derive(Debug, Default)]
struct Gpu {
    name: Option<String>,
    samples: u64,
    utilisation: Option<Spread>,
    memory_used: Option<Spread>,
    memory_total: Option<u64>,
    memory_percent_max: Option<u64>,
    temperature: Option<Spread>,
    /// `None`: never queried, or never told.
    throttled: Option<u64>,
    throttling: BTreeMap<&'static str, u64>,
}

impl Gpu {
    fn add(&mut self, row: &Row<'_>) {
        self.samples += 1;
        if let Some(name) = row.name
            && self.name.is_none()
        {
            self.name = Some(cut(name));
        }
        Spread::add(&mut self.utilisation, row.utilisation);
        Spread::add(&mut self.memory_used, row.memory_used);
        Spread::add(&mut self.temperature, row.temperature);
        self.memory_total = row.memory_total.or(self.memory_total);
        self.memory_percent_max = self.memory_percent_max.max(row.memory_percent());
        if let Some(reasons) = &row.throttling {
            *self.throttled.get_or_insert_default() += u64::from(!reasons.is_empty());
            for reason in reasons {
                *self.throttling.entry(reason).or_default() += 1;
            }
        }
    }

    fn concerns(&self, config: Config) -> Vec<&'static str> {
        let hot = self.temperature.is_some_and(|it| it.max >= config.hot_c);
        let full = self
            .memory_percent_max
            .is_some_and(|it| it >= config.memory_full_percent);
        let throttling = self.throttled.is_some_and(|it| it > 0);
        [
            (hot, "hot"),
            (full, "memory-full"),
            (throttling, "throttling"),
        ]
        .into_iter()
        .filter_map(|(is, word)| is.then_some(word))
        .collect()
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(NAME_BYTES_MAX)].to_owned()
}

/// What was gathered.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// By the number or id that was queried; `None` where neither was.
    gpus: BTreeMap<Option<String>, Gpu>,
    samples: u64,
    left_out: u64,
    /// Lines that were no sample.
    pub(crate) rejected: u64,
}

impl Summary {
    pub(crate) fn add(&mut self, row: &Row<'_>) {
        self.samples += 1;
        let key = row.gpu.map(cut);
        if self.gpus.len() >= GPUS_MAX && !self.gpus.contains_key(&key) {
            self.left_out += 1;
            return;
        }
        self.gpus.entry(key).or_default().add(row);
    }

    pub(crate) fn write(&self, config: Config, emit: &mut Emit) {
        let mut gpus: Vec<(&Option<String>, &Gpu)> = self.gpus.iter().collect();
        // By number where there are numbers: 10 comes behind 9.
        gpus.sort_by_key(|(gpu, _)| gpu.as_deref().and_then(|it| it.parse::<u64>().ok()));
        let gpus = list(&gpus, |(id, gpu), out| {
            let throttling = gpu.throttled.map(|_| {
                let mut json = Vec::new();
                let mut object = ObjectWriter::new(&mut json);
                for (reason, samples) in &gpu.throttling {
                    object.integer(reason, *samples);
                }
                object.finish();
                json
            });
            let concerns = list(&gpu.concerns(config), |word, out| write_text(word, out));
            let mut object = ObjectWriter::new(out);
            object.text("gpu", id.as_deref());
            object.text("name", gpu.name.as_deref());
            object.integer("samples", gpu.samples);
            object.raw(
                "utilisation_percent",
                json_text(&Spread::json(gpu.utilisation)),
            );
            object.raw("memory_used_mib", json_text(&Spread::json(gpu.memory_used)));
            object.integer("memory_total_mib", gpu.memory_total);
            object.integer("memory_percent_max", gpu.memory_percent_max);
            object.raw("temperature_c", json_text(&Spread::json(gpu.temperature)));
            object.integer("throttled_samples", gpu.throttled);
            object.raw(
                "throttling",
                throttling.as_deref().map_or("null", json_text),
            );
            object.raw("concerns", json_text(&concerns));
            object.finish();
        });
        let message = (self.samples == 0).then_some(
            "no GPU was told of: this was no table of `nvidia-smi --query-gpu=... --format=csv`, or the machine has no GPU; \
             what was read instead is in the dead letters",
        );
        let mut record = emit.start();
        let mut object = ObjectWriter::new(&mut record);
        object.text("report", "gpu-report");
        object.integer("samples", self.samples);
        object.integer("rejected", self.rejected);
        object.raw("gpus", json_text(&gpus));
        object.integer("samples_left_out", self.left_out);
        object.text("message", message);
        object.finish();
        record.finish();
    }
}
