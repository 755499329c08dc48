//! Families of numbers, and their text.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::timings::Timed;

/// What sort of numbers a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the program starts anew.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in buckets, in seconds.
    Histogram,
}

/// Names and values that tell the numbers of a family apart.
pub type Labels = Vec<(&'static str, String)>;

/// One number, or one set of buckets.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter or a gauge.
    Whole(u64),
    /// Of a counter or a gauge: seconds, mostly.
    Real(f64),
    /// Of a histogram.
    Timed(Timed),
}

/// Numbers with one name. It is shown with its help also when it has none.
#[derive(Clone, Debug)]
pub struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    series: Vec<(Labels, Value)>,
}

impl Family {
    /// One without numbers. The name has the unit at its end; a counter's `_total` is added.
    pub fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self {
            name,
            kind,
            help,
            series: Vec::new(),
        }
    }

    /// A counter with one number.
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::new(name, Kind::Counter, help).with(Labels::new(), Value::Whole(value))
    }

    /// A gauge with one number.
    pub fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::new(name, Kind::Gauge, help).with(Labels::new(), Value::Whole(value))
    }

    /// A histogram with one set of buckets.
    pub fn histogram(name: &'static str, help: &'static str, timed: Timed) -> Self {
        Self::new(name, Kind::Histogram, help).with(Labels::new(), Value::Timed(timed))
    }

    /// Adds a number. Every number of a family has the same label names, and no two the same values.
    #[must_use]
    pub fn with(mut self, labels: Labels, value: Value) -> Self {
        self.push(labels, value);
        self
    }

    /// [`Self::with`], in place.
    pub fn push(&mut self, labels: Labels, value: Value) {
        self.series.push((labels, value));
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for (labels, value) in &self.series {
            if labels.is_empty() {
                self.encode_value(value, &mut metric)?;
            } else {
                self.encode_value(value, &mut metric.encode_family(labels)?)?;
            }
        }
        Ok(())
    }

    fn encode_value(&self, value: &Value, metric: &mut MetricEncoder<'_>) -> fmt::Result {
        match (value, self.kind) {
            (Value::Timed(timed), _) => metric.encode_histogram::<NoLabelSet>(
                timed.sum_seconds(),
                timed.count(),
                &timed.buckets(),
                None,
            ),
            (Value::Whole(number), Kind::Counter) => {
                metric.encode_counter::<NoLabelSet, _, u64>(number, None)
            }
            (Value::Real(number), Kind::Counter) => {
                metric.encode_counter::<NoLabelSet, _, f64>(number, None)
            }
            (Value::Whole(number), _) => metric.encode_gauge(number),
            (Value::Real(number), _) => metric.encode_gauge(number),
        }
    }
}

/// The text that Prometheus reads, format 0.0.4.
pub fn render(families: Vec<Family>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(All(families)));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect("a string takes all text");
    text
}

#[derive(Debug)]
struct All(Vec<Family>);

impl Collector for All {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|family| family.encode(&mut encoder))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Timings;

    #[test]
    fn families_are_written_as_prometheus_reads_them() {
        let timings = Timings::default();
        timings.add(Duration::from_millis(3));
        let job = |name: &str| vec![("job", name.to_owned())];
        let text = render(vec![
            Family::new("x_records", Kind::Counter, "Records")
                .with(job("a\"b"), Value::Whole(7))
                .with(job("c"), Value::Real(0.5)),
            Family::gauge("x_open", "Open ones", 3),
            Family::new("x_none", Kind::Gauge, "None"),
            Family::histogram("x_seconds", "Time", timings.read()),
        ]);
        for line in [
            "# HELP x_records_total Records",
            "# TYPE x_records_total counter",
            "x_records_total{job=\"a\\\"b\"} 7",
            "x_records_total{job=\"c\"} 0.5",
            "# TYPE x_open gauge",
            "x_open 3",
            "# TYPE x_none gauge",
            "# TYPE x_seconds histogram",
            "x_seconds_bucket{le=\"0.001\"} 0",
            "x_seconds_bucket{le=\"0.005\"} 1",
            "x_seconds_bucket{le=\"+Inf\"} 1",
            "x_seconds_sum 0.003",
            "x_seconds_count 1",
        ] {
            assert!(
                text.lines().any(|it| it == line),
                "{line} is not in\n{text}"
            );
        }
    }
}
