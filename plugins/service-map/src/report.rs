//! Writes what was gathered: one JSON object, and a graph in DOT.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use sluice_sdk::json::{ObjectWriter, json_text, list};
use sluice_sdk::{Buffer, Emit};

use crate::{Calls, Format, ServiceMap};

/// Writes the report.
pub(crate) fn write(map: &ServiceMap, emit: &mut Emit) {
    if map.config.format != Format::Dot {
        json(map, emit);
    }
    if map.config.format != Format::Json {
        dot(map, emit);
    }
}

/// The most frequent kinds first, then by name; and the calls of those that are not named.
fn top<K>(kinds: &BTreeMap<K, Calls>, most: usize) -> (Vec<(&K, &Calls)>, u64) {
    let mut all: Vec<(&K, &Calls)> = kinds.iter().collect();
    // Stable: what is as frequent stays in order of its name.
    all.sort_by_key(|(_, calls)| Reverse(calls.count));
    let others = all.split_off(most.min(all.len()));
    (all, others.iter().map(|(_, calls)| calls.count).sum())
}

fn json(map: &ServiceMap, emit: &mut Emit) {
    let (named, other_calls) = top(&map.calls, map.config.top);
    let calls = list(&named, |(call, calls), out| {
        let mut object = ObjectWriter::new(out);
        object.text("caller", call.caller.as_str());
        object.text("service", call.service.as_str());
        object.text("method", call.method.as_str());
        object.text("route", call.route.as_str());
        write_calls(&mut object, calls);
        object.finish();
    });
    let (named, other_edge_calls) = top(&map.edges, map.config.top);
    let edges = list(&named, |((caller, service), calls), out| {
        let mut object = ObjectWriter::new(out);
        object.text("caller", caller.as_str());
        object.text("service", service.as_str());
        write_calls(&mut object, calls);
        object.finish();
    });
    let mut record = emit.start();
    let mut object = ObjectWriter::new(&mut record);
    object.text("report", "service-map");
    object.integer("lines", map.lines);
    object.integer("other_lines", map.lines - map.all.count);
    object.text("first_seen", map.first.map(|at| at.to_string()).as_deref());
    object.text("last_seen", map.last.map(|at| at.to_string()).as_deref());
    write_calls(&mut object, &map.all);
    object.integer("edges_found", map.edges.len() as u64);
    object.raw("edges", json_text(&edges));
    object.integer("requests_of_other_edges", other_edge_calls);
    object.integer("edge_requests_left_out", map.edge_calls_left_out);
    object.integer("calls_found", map.calls.len() as u64);
    object.raw("calls", json_text(&calls));
    object.integer("requests_of_other_calls", other_calls);
    object.integer("requests_left_out", map.calls_left_out);
    object.finish();
    record.finish();
}

/// How often, with which status, how much and how fast.
fn write_calls<B: Buffer>(object: &mut ObjectWriter<'_, B>, calls: &Calls) {
    let mut status = Vec::new();
    let mut codes = ObjectWriter::new(&mut status);
    for (code, count) in &calls.statuses {
        codes.integer(&code.to_string(), *count);
    }
    if calls.other_statuses > 0 {
        codes.integer("other", calls.other_statuses);
    }
    codes.finish();
    let mut classes = Vec::new();
    let mut object_of_classes = ObjectWriter::new(&mut classes);
    for class in 1..=5 {
        let count = calls.of_class(class);
        if count > 0 {
            object_of_classes.integer(&format!("{class}xx"), count);
        }
    }
    object_of_classes.finish();
    object.integer("requests", calls.count);
    object.raw("status", json_text(&status));
    object.raw("classes", json_text(&classes));
    object.integer("bytes", calls.bytes);
    let latency = calls.latencies.quantiles().map(|quantiles| {
        let mut json = Vec::new();
        let mut object = ObjectWriter::new(&mut json);
        object.integer("requests", calls.latencies.count);
        object.boolean("exact", quantiles.exact);
        object.integer("p50", quantiles.p50);
        object.integer("p90", quantiles.p90);
        object.integer("p99", quantiles.p99);
        object.integer("max", calls.latencies.max);
        object.finish();
        json
    });
    object.raw("latency_us", latency.as_deref().map_or("null", json_text));
}

fn dot(map: &ServiceMap, emit: &mut Emit) {
    let (edges, others) = top(&map.edges, map.config.top);
    emit.push(b"digraph service_map {");
    emit.push(b"  rankdir=LR; node [shape=box];");
    for ((caller, service), calls) in edges {
        let mut label = format!("{} requests", calls.count);
        if let Some(quantiles) = calls.latencies.quantiles() {
            label.push_str(&format!(
                "\\np50 {}, p99 {}",
                milliseconds(quantiles.p50),
                milliseconds(quantiles.p99)
            ));
        }
        let (client, server) = (calls.of_class(4), calls.of_class(5));
        if client + server > 0 {
            label.push_str(&format!("\\n{client} 4xx, {server} 5xx"));
        }
        let color = if server > 0 { ", color=red" } else { "" };
        let line = format!(
            "  \"{}\" -> \"{}\" [label=\"{label}\"{color}];",
            quoted(caller),
            quoted(service)
        );
        emit.push(line.as_bytes());
    }
    if others + map.edge_calls_left_out > 0 {
        let more = others + map.edge_calls_left_out;
        emit.push(format!("  // {more} more requests, of edges that are not shown").as_bytes());
    }
    emit.push(b"}");
}

/// Milliseconds for people, with one digit behind the point.
fn milliseconds(us: u64) -> String {
    format!("{}.{} ms", us / 1000, us % 1000 / 100)
}

/// A name inside a string of DOT.
fn quoted(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => quoted.push('?'),
            letter => quoted.push(letter),
        }
    }
    quoted
}
