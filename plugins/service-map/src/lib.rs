//! Reports who calls what, how often, with which status and how fast, once a log of requests has ended.
//!
//! ```text
//! config = { format = "both", top = 50, service = "server", latency = "none" }
//! ```
//!
//! All of these may be left out. `format` is `json` (one record, the default), `dot` (a graph for Graphviz, each line a
//! record) or `both`; `top` is how many calls and edges it names; `service` names who answers where the lines do not say;
//! `latency` says what the last field of an access log's lines is: `seconds`, `microseconds` or nothing about time. Which
//! lines are requests, `request` says; all others are counted. Memory is bounded: what finds no room is counted too.

mod latencies;
mod report;
mod request;

use std::collections::BTreeMap;

use serde::Deserialize;
use sluice_log_lines::Moment;
use sluice_sdk::{Decision, Emit, Fault, Record, RecordStage, Report, report};

use latencies::Latencies;
use request::{Duration, Request, find, route};

/// Kinds of calls (caller, service, method, route) that are kept apart.
const CALLS_MAX: usize = 5_000;
/// Edges (caller, service) that are kept apart.
const EDGES_MAX: usize = 1_000;
/// Latencies that are kept of one kind of call or one edge: 4 KiB each, 24 MiB if all are full.
const LATENCIES_MAX: usize = 1_024;
/// Latencies that are kept of all calls.
const LATENCIES_OF_ALL_MAX: usize = 65_536;
/// Status codes of one kind of call that are kept apart; servers use a dozen.
const STATUSES_MAX: usize = 32;
/// Bytes of a caller's or service's name, or of a method: what is longer is no name.
const NAME_BYTES_MAX: usize = 128;
/// Most calls and edges that a report names.
const NAMED_MAX: usize = 1_000;

/// What the report is to be like.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    format: Format,
    top: usize,
    service: String,
    latency: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            format: Format::Json,
            top: 50,
            service: "server".to_owned(),
            latency: Duration::None,
        }
    }
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Json,
    Dot,
    Both,
}

/// What is known of calls of one kind.
#[derive(Debug)]
struct Calls {
    count: u64,
    statuses: BTreeMap<u16, u64>,
    /// Calls whose status found no room.
    other_statuses: u64,
    bytes: u64,
    latencies: Latencies,
}

impl Calls {
    fn new(latencies_max: usize) -> Self {
        Self {
            count: 0,
            statuses: BTreeMap::new(),
            other_statuses: 0,
            bytes: 0,
            latencies: Latencies::new(latencies_max),
        }
    }

    fn add(&mut self, request: &Request<'_>) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(request.bytes);
        let room = self.statuses.len() < STATUSES_MAX;
        if room || self.statuses.contains_key(&request.status) {
            *self.statuses.entry(request.status).or_default() += 1;
        } else {
            self.other_statuses += 1;
        }
        if let Some(us) = request.took_us {
            self.latencies.add(us);
        }
    }

    /// Calls whose status is in the class `2` of `2xx`.
    fn of_class(&self, class: u16) -> u64 {
        let codes = self.statuses.range(class * 100..(class + 1) * 100);
        codes.map(|(_, count)| count).sum()
    }
}

/// Who calls what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    caller: String,
    service: String,
    method: String,
    route: String,
}

/// The stage.
#[derive(Debug)]
pub struct ServiceMap {
    config: Config,
    lines: u64,
    first: Option<Moment>,
    last: Option<Moment>,
    all: Calls,
    calls: BTreeMap<Call, Calls>,
    calls_left_out: u64,
    edges: BTreeMap<(String, String), Calls>,
    edge_calls_left_out: u64,
}

impl RecordStage for ServiceMap {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        if !(1..=NAMED_MAX).contains(&config.top) {
            return Err(format!(
                "config: `top` is {}, and may be 1 to {NAMED_MAX}",
                config.top
            ));
        }
        if config.service.is_empty() || config.service.len() > NAME_BYTES_MAX {
            return Err(format!(
                "config: `service` has 1 to {NAME_BYTES_MAX} bytes: it names who answers"
            ));
        }
        Ok(Self {
            config,
            lines: 0,
            first: None,
            last: None,
            all: Calls::new(LATENCIES_OF_ALL_MAX),
            calls: BTreeMap::new(),
            calls_left_out: 0,
            edges: BTreeMap::new(),
            edge_calls_left_out: 0,
        })
    }

    fn record(&mut self, record: Record<'_>, _emit: &mut Emit) -> Decision {
        self.lines += 1;
        let text = String::from_utf8_lossy(&record);
        if let Some(request) = find(&text, self.config.latency) {
            self.add(&request);
        }
        Decision::Drop
    }
}

impl ServiceMap {
    fn add(&mut self, request: &Request<'_>) {
        self.all.add(request);
        if let Some(at) = request.at {
            self.first = Some(self.first.map_or(at, |first| first.min(at)));
            self.last = self.last.max(Some(at));
        }
        let name = |text: &str| text[..text.floor_char_boundary(NAME_BYTES_MAX)].to_owned();
        let caller = name(request.caller);
        let service = name(request.service.unwrap_or(&self.config.service));
        let edge = (caller.clone(), service.clone());
        match calls_of(&mut self.edges, edge, EDGES_MAX) {
            Some(calls) => calls.add(request),
            None => self.edge_calls_left_out += 1,
        }
        let call = Call {
            caller,
            service,
            method: name(request.method),
            route: route(request.target),
        };
        match calls_of(&mut self.calls, call, CALLS_MAX) {
            Some(calls) => calls.add(request),
            None => self.calls_left_out += 1,
        }
    }
}

/// The calls of a kind; `None` when there is no room for one more.
fn calls_of<K: Ord>(kinds: &mut BTreeMap<K, Calls>, kind: K, max: usize) -> Option<&mut Calls> {
    if kinds.len() >= max {
        return kinds.get_mut(&kind);
    }
    Some(
        kinds
            .entry(kind)
            .or_insert_with(|| Calls::new(LATENCIES_MAX)),
    )
}

impl Report for ServiceMap {
    fn finish(&mut self, emit: &mut Emit) -> Result<(), Fault> {
        report::write(self, emit);
        Ok(())
    }
}

report!(ServiceMap);

#[cfg(test)]
mod tests;
