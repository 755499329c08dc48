//! `[rollout]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml_edit::{Item, Value};

use crate::pipeline::{MaxParallel, Rollout};

use super::keys;
use super::values::{duration_text, parse_duration};
use super::walk::{Field, Section, Walk};

/// What `canary` and a number in `max_parallel` may be at most: more nodes than one orchestrator has.
const NODES_MAX: u32 = 1_000_000;
/// What `min_healthy` may be: below, a crash at the start passes for health; above, nobody waits for a rollout's end.
const MIN_HEALTHY: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
/// What `deadline` may be: below, no component is fetched and compiled; above, nobody notices that a rollout stands.
const DEADLINE: RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(7 * 24 * 3600);

const EXAMPLE: &str = "[rollout]\nmax_parallel = \"10%\"";

/// The table, with defaults for what it does not say.
pub(super) fn rollout(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<Rollout> {
    let section = walk.section(field, "[rollout]", EXAMPLE)?;
    walk.check_keys(&section, keys::ROLLOUT);
    let or = Rollout::default();
    let max_parallel = read(&section, "max_parallel", or.max_parallel, |field| {
        max_parallel(walk, field)
    });
    let canary = read(&section, "canary", or.canary, |field| {
        nodes(walk, field, 0, "a number of nodes such as 1")
    });
    let min_healthy = read(&section, "min_healthy", or.min_healthy, |field| {
        time(walk, field, "a duration such as \"10s\"", &MIN_HEALTHY)
    });
    let error_rate_max = read(&section, "error_rate_max", or.error_rate_max, |field| {
        error_rate(walk, field).map(Some)
    });
    let deadline = read(&section, "deadline", or.deadline, |field| {
        time(walk, field, "a duration such as \"5m\"", &DEADLINE)
    });
    let (min_healthy, deadline) = (min_healthy?, deadline?);
    if min_healthy >= deadline {
        let at = section.field("min_healthy").or(section.field("deadline"));
        walk.problem(
            at.map_or(section.at.clone(), |field| field.value),
            format!(
                "no node can run it for {} (`min_healthy`) within {} (`deadline`)",
                duration_text(min_healthy),
                duration_text(deadline)
            ),
            "",
            "make `deadline` longer than `min_healthy`, with time to fetch and start it",
        );
        return None;
    }
    Some(Rollout {
        max_parallel: max_parallel?,
        canary: canary?,
        min_healthy,
        error_rate_max: error_rate_max?,
        deadline,
    })
}

fn read<T>(
    section: &Section<'_>,
    name: &str,
    or: T,
    check: impl FnOnce(&Field<'_>) -> Option<T>,
) -> Option<T> {
    match section.field(name) {
        Some(field) => check(&field),
        None => Some(or),
    }
}

fn max_parallel(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<MaxParallel> {
    let expected = "a number of nodes such as 3, or a part of them such as \"10%\"";
    let Item::Value(Value::String(text)) = field.item else {
        return nodes(walk, field, 1, expected).map(MaxParallel::Nodes);
    };
    let percent = text
        .value()
        .strip_suffix('%')
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .filter(|percent| (1..=100).contains(percent));
    if percent.is_none() {
        walk.problem(
            field.value.clone(),
            format!("`{}` is no part of the nodes", text.value()),
            "",
            "write a whole number from \"1%\" to \"100%\", or a number of nodes without quotes",
        );
    }
    percent.map(MaxParallel::Percent)
}

fn nodes(walk: &mut Walk<'_>, field: &Field<'_>, min: u32, expected: &str) -> Option<u32> {
    let Some(number) = field.item.as_integer() else {
        walk.wrong_type(
            field.value.clone(),
            &field.path,
            expected,
            field.item.type_name(),
        );
        return None;
    };
    let good = u32::try_from(number)
        .ok()
        .filter(|number| (min..=NODES_MAX).contains(number));
    if good.is_none() {
        walk.problem(
            field.value.clone(),
            format!("`{}` is from {min} to {NODES_MAX}", field.path),
            "",
            None,
        );
    }
    good
}

fn time(
    walk: &mut Walk<'_>,
    field: &Field<'_>,
    expected: &str,
    range: &RangeInclusive<Duration>,
) -> Option<Duration> {
    let text = walk.text(field, expected)?;
    let time = walk.accept(field, parse_duration(text), |error| error.to_string())?;
    if range.contains(&time) {
        return Some(time);
    }
    let (min, max) = (duration_text(*range.start()), duration_text(*range.end()));
    walk.problem(
        field.value.clone(),
        format!("`{}` is from {min} to {max}", field.path),
        "",
        None,
    );
    None
}

fn error_rate(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<f64> {
    let number = match field.item {
        Item::Value(Value::Float(number)) => Some(*number.value()),
        // 0 and 1 are the only whole numbers among rates.
        Item::Value(Value::Integer(number)) => match number.value() {
            0 => Some(0.0),
            1 => Some(1.0),
            _ => Some(f64::NAN),
        },
        _ => None,
    };
    match number {
        None => {
            let expected = "a part of the records such as 0.01";
            walk.wrong_type(
                field.value.clone(),
                &field.path,
                expected,
                field.item.type_name(),
            );
            None
        }
        Some(rate) if (0.0..=1.0).contains(&rate) => Some(rate),
        Some(_) => {
            walk.problem(
                field.value.clone(),
                format!("`{}` is from 0.0 to 1.0", field.path),
                "",
                "write 0.01 for one dead letter in a hundred records",
            );
            None
        }
    }
}
