//! What belongs to `kind = "batch"`: `[params]`, and how its tasks are run.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml_edit::{Item, Value};

use super::keys;
use super::placement::Word;
use super::values::{duration_text, parse_duration};
use super::walk::{Field, Section, Walk};
use crate::StageName;
use crate::pipeline::batch::{
    PARAM_BYTES_MAX, PARAMS_MAX, PRIORITY_MAX, RETRIES_MAX, check_param_name,
};
use crate::pipeline::{Batch, Param, ParamKind, ParamValue};

/// What `timeout` may be: below, no component is fetched and compiled; above, nobody remembers the run.
const TIMEOUT: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600);

/// What `concurrency` may be at most: more than an orchestrator runs at once.
const CONCURRENCY_MAX: i64 = 1_000_000;

const EXAMPLE: &str = "[params]\nday = { type = \"string\", default = \"monday\" }";

/// The settings of a batch job; `Some(None)` for another kind, which may have none of them.
pub(super) fn batch(
    walk: &mut Walk<'_>,
    root: &Section<'_>,
    kind: Option<Word>,
) -> Option<Option<Batch>> {
    // Before everything that may name one.
    let params = match root.field("params") {
        Some(field) => params(walk, &field),
        None => Some(BTreeMap::new()),
    };
    if kind != Some(Word::Batch) {
        let mut strangers = false;
        for name in keys::BATCH.iter().filter(|_| kind.is_some()) {
            if let Some(field) = root.field(name) {
                strangers = true;
                walk.problem(
                    field.key,
                    format!("`{name}` belongs to `kind = \"batch\"`"),
                    "",
                    "take it out, or write `kind = \"batch\"`, which runs when it is launched and to an end",
                );
            }
        }
        return (!strangers).then_some(None);
    }
    if let Some(field) = root.field("rollout") {
        walk.problem(
            field.key,
            "a batch job has no `rollout`".to_owned(),
            "",
            "take it out: each launch takes the newest version",
        );
    }
    let idempotent = match root.field("idempotent") {
        None => Some(false),
        Some(field) => boolean(walk, &field),
    };
    let timeout = match root.field("timeout") {
        None => Some(None),
        Some(field) => timeout(walk, &field).map(Some),
    };
    let retries = integer(walk, root, "retries", 0, 0..=i64::from(RETRIES_MAX), "3");
    let priority = integer(
        walk,
        root,
        "priority",
        0,
        -i64::from(PRIORITY_MAX)..=i64::from(PRIORITY_MAX),
        "10",
    );
    let concurrency = match root.field("concurrency") {
        None => Some(None),
        Some(_) => integer(walk, root, "concurrency", 1, 1..=CONCURRENCY_MAX, "4").map(Some),
    };
    let pool = match root.field("pool") {
        None => Some(None),
        Some(field) => pool(walk, &field).map(Some),
    };
    Some(Some(Batch {
        idempotent: idempotent?,
        timeout: timeout?,
        retries: u32::try_from(retries?).ok()?,
        priority: i32::try_from(priority?).ok()?,
        concurrency: match concurrency? {
            None => None,
            Some(count) => Some(u32::try_from(count).ok()?),
        },
        pool: pool?,
        params: params?,
    }))
}

fn boolean(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<bool> {
    let value = field.item.as_bool();
    if value.is_none() {
        walk.wrong_type(
            field.value.clone(),
            &field.path,
            "true or false",
            field.item.type_name(),
        );
    }
    value
}

fn integer(
    walk: &mut Walk<'_>,
    root: &Section<'_>,
    name: &str,
    or: i64,
    range: RangeInclusive<i64>,
    example: &str,
) -> Option<i64> {
    let Some(field) = root.field(name) else {
        return Some(or);
    };
    let Some(value) = field.item.as_integer() else {
        let expected = format!("a whole number, such as {example}");
        walk.wrong_type(
            field.value.clone(),
            &field.path,
            &expected,
            field.item.type_name(),
        );
        return None;
    };
    if !range.contains(&value) {
        let message = format!("`{name}` is {} to {}", range.start(), range.end());
        walk.problem(field.value.clone(), message, "", None);
        return None;
    }
    Some(value)
}

fn timeout(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<Duration> {
    let text = walk.text(field, "a duration such as \"10m\"")?;
    let duration = walk.accept(field, parse_duration(text), |error| error.to_string())?;
    if !TIMEOUT.contains(&duration) {
        let message = format!(
            "`timeout` is {} to {}",
            duration_text(*TIMEOUT.start()),
            duration_text(*TIMEOUT.end())
        );
        walk.problem(field.value.clone(), message, "", None);
        return None;
    }
    Some(duration)
}

fn pool(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<String> {
    let text = walk.text(field, "a pool's name such as \"gpu\"")?;
    let checked = text.parse::<StageName>();
    walk.accept(field, checked, |rule| format!("a pool's name {rule}"))?;
    Some(text.to_owned())
}

fn params(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<BTreeMap<String, Param>> {
    let section = walk.section(field, "[params]", EXAMPLE)?;
    let mut params = BTreeMap::new();
    let mut complete = true;
    for field in section.fields() {
        let name = field.key_text().to_owned();
        // What is declared badly is declared: its uses are not wrong too.
        walk.params.insert(name.clone());
        let named = check_param_name(&name);
        if let Err(rule) = named {
            let message = format!("`{name}` cannot be a parameter: its name {rule}");
            walk.problem(field.key.clone(), message, "", None);
        }
        match param(walk, &field) {
            Some(param) if named.is_ok() => {
                params.insert(name, param);
            }
            _ => complete = false,
        }
    }
    if params.len() > PARAMS_MAX {
        let message = format!("a pipeline has at most {PARAMS_MAX} parameters");
        walk.problem(field.key.clone(), message, "", None);
        complete = false;
    }
    complete.then_some(params)
}

fn param(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<Param> {
    let title = format!("[{}]", field.path);
    let example = format!("{} = {{ type = \"string\" }}", field.key_text());
    let section = walk.section(field, &title, &example)?;
    walk.check_keys(&section, keys::PARAM);
    let kind = walk.required(&section, "type", "type = \"string\"")?;
    let word = walk.text(&kind, "a type, such as \"string\"")?;
    let Some(kind) = ParamKind::from_word(word) else {
        let message = format!("unknown type `{word}`");
        let help = "a parameter is a \"string\", an \"integer\", a \"number\" or a \"boolean\"";
        walk.problem(kind.value, message, "", help);
        return None;
    };
    let default = match section.field("default") {
        None => None,
        Some(field) => Some(default(walk, &field, kind)?),
    };
    Some(Param { kind, default })
}

fn default(walk: &mut Walk<'_>, field: &Field<'_>, kind: ParamKind) -> Option<ParamValue> {
    let value = match (kind, field.item) {
        (ParamKind::Text, Item::Value(Value::String(text))) => {
            if text.value().len() > PARAM_BYTES_MAX {
                let message = format!("a parameter has at most {PARAM_BYTES_MAX} bytes");
                walk.problem(field.value.clone(), message, "", None);
                return None;
            }
            Some(ParamValue::Text(text.value().clone()))
        }
        (ParamKind::Integer, item) => item.as_integer().map(ParamValue::Integer),
        (ParamKind::Number, item) => {
            let number = item.as_float().or_else(|| {
                let whole = i32::try_from(item.as_integer()?).ok()?;
                Some(f64::from(whole))
            });
            number
                .and_then(serde_json::Number::from_f64)
                .map(ParamValue::Number)
        }
        (ParamKind::Boolean, item) => item.as_bool().map(ParamValue::Boolean),
        (ParamKind::Text, _) => None,
    };
    if value.is_none() {
        walk.wrong_type(
            field.value.clone(),
            &field.path,
            kind.expected(),
            field.item.type_name(),
        );
    }
    value
}
