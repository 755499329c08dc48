//! `[[stage]]`: names, plugins, settings and limits.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use serde_json::Value as Json;
use toml_edit::{Item, TableLike, Value};

use crate::StageName;
use crate::pipeline::{Limits, PluginRef, Stage, TemplateScope};

use super::values::{duration_text, parse_duration, parse_size, size_text};
use super::walk::{Field, Section, Walk};
use super::{PluginUse, keys};

/// Most stages of a pipeline: each holds an instance with its own memory on every node.
const STAGES_MAX: usize = 64;
/// What `limits.memory` may be: below, no language's runtime starts; above, a 32-bit memory ends.
const MEMORY_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=4 << 30;
/// What `limits.deadline` may be: below, timers cannot tell; above, a hung stage would go unnoticed.
const DEADLINE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(60);

/// Every stage, in order.
pub(super) fn stages(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<Vec<Stage>> {
    let mut tables: Vec<(&dyn TableLike, Range<usize>)> = Vec::new();
    match field.item {
        Item::ArrayOfTables(list) => {
            for table in list {
                tables.push((table, table.span().unwrap_or_else(|| field.value.clone())));
            }
        }
        Item::Value(Value::Array(list)) => {
            for value in list {
                let span = walk.span_of(value, &field.value);
                match value.as_inline_table() {
                    Some(table) => tables.push((table, span)),
                    None => walk.wrong_type(span, "stage", "a list of tables", value.type_name()),
                }
            }
        }
        other => {
            walk.wrong_type(
                field.value.clone(),
                "stage",
                "a list of tables, `[[stage]]`",
                other.type_name(),
            );
            return None;
        }
    }
    if let Some((_, span)) = tables.get(STAGES_MAX) {
        let message = format!(
            "a pipeline has at most {STAGES_MAX} stages, and this one has {}",
            tables.len()
        );
        walk.problem(
            span.clone(),
            message,
            "",
            "let one plugin do the work of several",
        );
        return None;
    }
    let mut names = BTreeSet::new();
    let stages: Vec<Option<Stage>> = tables
        .into_iter()
        .map(|(table, span)| {
            let section = Section::listed(table, span, "[[stage]]");
            stage(walk, &section, &mut names)
        })
        .collect();
    stages.into_iter().collect()
}

fn stage(
    walk: &mut Walk<'_>,
    section: &Section<'_>,
    names: &mut BTreeSet<StageName>,
) -> Option<Stage> {
    walk.check_keys(section, keys::STAGE);
    let name = walk
        .required(section, "name", "name = \"drop-debug\"")
        .and_then(|field| stage_name(walk, &field, names));
    let plugin = walk
        .required(section, "plugin", "plugin = \"plugins/filter.wasm\"")
        .and_then(|field| plugin(walk, &field, name.as_ref()));
    let config = match section.field("config") {
        Some(field) => config(walk, &field),
        None => Some(Json::Object(serde_json::Map::new())),
    };
    let limits = match section.field("limits") {
        Some(field) => limits(walk, &field),
        None => Some(Limits::default()),
    };
    Some(Stage {
        name: name?,
        plugin: plugin?,
        config: config?,
        limits: limits?,
        world: None,
    })
}

fn stage_name(
    walk: &mut Walk<'_>,
    field: &Field<'_>,
    names: &mut BTreeSet<StageName>,
) -> Option<StageName> {
    let text = walk.text(field, "a name such as \"drop-debug\"")?;
    let name: StageName =
        walk.accept(field, text.parse(), |rule| format!("a stage's name {rule}"))?;
    if names.insert(name.clone()) {
        return Some(name);
    }
    let message = format!("two stages are named `{name}`");
    walk.problem(
        field.value.clone(),
        message,
        "the name is taken",
        "logs and dead letters tell stages by name",
    );
    None
}

fn plugin(walk: &mut Walk<'_>, field: &Field<'_>, stage: Option<&StageName>) -> Option<PluginRef> {
    let text = walk.text(field, "a plugin such as \"plugins/filter.wasm\"")?;
    let plugin: PluginRef = walk.accept(
        field,
        text.parse(),
        |error: crate::pipeline::PluginRefError| error.to_string(),
    )?;
    walk.plugins.push(PluginUse {
        stage: stage.cloned(),
        plugin: plugin.clone(),
        span: field.value.clone(),
    });
    Some(plugin)
}

fn limits(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<Limits> {
    let section = walk.section(
        field,
        "[stage.limits]",
        "[stage.limits]\nmemory = \"64MiB\"",
    )?;
    walk.check_keys(&section, keys::LIMITS);
    let memory = match section.field("memory") {
        Some(field) => memory(walk, &field),
        None => Some(Limits::default().memory_bytes_max),
    };
    let deadline = match section.field("deadline") {
        Some(field) => deadline(walk, &field),
        None => Some(Limits::default().deadline),
    };
    Some(Limits {
        memory_bytes_max: memory?,
        deadline: deadline?,
    })
}

fn memory(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<u64> {
    let bytes = match field.item.as_integer() {
        Some(number) => u64::try_from(number).unwrap_or(0),
        None => {
            let text = walk.text(field, "a size such as \"64MiB\", or a number of bytes")?;
            walk.accept(field, parse_size(text), |error| error.to_string())?
        }
    };
    if MEMORY_BYTES.contains(&bytes) {
        return Some(bytes);
    }
    let (min, max) = (
        size_text(*MEMORY_BYTES.start()),
        size_text(*MEMORY_BYTES.end()),
    );
    let message = format!("a stage's memory limit lies between {min} and {max}");
    walk.problem(field.value.clone(), message, "", None);
    None
}

fn deadline(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<Duration> {
    let text = walk.text(field, "a duration such as \"250ms\"")?;
    let deadline = walk.accept(field, parse_duration(text), |error| error.to_string())?;
    if DEADLINE.contains(&deadline) {
        return Some(deadline);
    }
    let (min, max) = (
        duration_text(*DEADLINE.start()),
        duration_text(*DEADLINE.end()),
    );
    let message = format!("a stage's deadline lies between {min} and {max}");
    walk.problem(field.value.clone(), message, "", None);
    None
}

fn config(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<Json> {
    match field.item.as_table_like() {
        Some(table) => table_json(walk, table, &field.value),
        None => {
            let expected = "a table, as in `config = { field = \"level\" }`";
            walk.wrong_type(
                field.value.clone(),
                &field.path,
                expected,
                field.item.type_name(),
            );
            None
        }
    }
}

fn table_json(walk: &mut Walk<'_>, table: &dyn TableLike, around: &Range<usize>) -> Option<Json> {
    let mut map = serde_json::Map::new();
    let mut complete = true;
    for (key, item) in table.iter() {
        let span = item
            .span()
            .filter(|span| !span.is_empty())
            .unwrap_or_else(|| around.clone());
        match item_json(walk, item, &span) {
            Some(value) => {
                map.insert(key.to_owned(), value);
            }
            None => complete = false,
        }
    }
    complete.then_some(Json::Object(map))
}

fn item_json(walk: &mut Walk<'_>, item: &Item, span: &Range<usize>) -> Option<Json> {
    match item {
        Item::None => Some(Json::Null),
        Item::Value(value) => value_json(walk, value, span),
        Item::Table(table) => table_json(walk, table, span),
        Item::ArrayOfTables(list) => {
            let values: Vec<Option<Json>> = list
                .iter()
                .map(|table| table_json(walk, table, span))
                .collect();
            values
                .into_iter()
                .collect::<Option<Vec<_>>>()
                .map(Json::Array)
        }
    }
}

fn value_json(walk: &mut Walk<'_>, value: &Value, span: &Range<usize>) -> Option<Json> {
    match value {
        Value::String(text) => {
            walk.check_template(span.clone(), text.value(), TemplateScope::Setting);
            Some(Json::from(text.value().as_str()))
        }
        Value::Integer(number) => Some(Json::from(*number.value())),
        Value::Boolean(truth) => Some(Json::from(*truth.value())),
        Value::Datetime(time) => Some(Json::from(time.value().to_string())),
        Value::Float(number) => {
            let json = serde_json::Number::from_f64(*number.value()).map(Json::Number);
            if json.is_none() {
                let message =
                    "a plugin's settings are JSON, which has no infinity and no `nan`".to_owned();
                walk.problem(span.clone(), message, "", "write a number, or a string");
            }
            json
        }
        Value::Array(list) => {
            let read = |walk: &mut Walk<'_>, value| {
                let span = walk.span_of(value, span);
                value_json(walk, value, &span)
            };
            let values: Vec<Option<Json>> = list.iter().map(|value| read(walk, value)).collect();
            values
                .into_iter()
                .collect::<Option<Vec<_>>>()
                .map(Json::Array)
        }
        Value::InlineTable(table) => table_json(walk, table, span),
    }
}
