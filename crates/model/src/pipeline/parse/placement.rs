//! How a job is placed: `kind`, and what belongs to one kind only.

use super::walk::{Field, Section, Walk};
use crate::OnLost;
use crate::pipeline::{Kind, REPLICAS_MAX};

const KINDS: &str = "this version has `daemon`, one execution on every matching node, and `replicas`, one on each of `count` nodes";

/// Reads `kind`, `count` and `on_lost`.
pub(super) fn placement(walk: &mut Walk<'_>, root: &Section<'_>) -> Option<(Kind, OnLost)> {
    let word = match root.field("kind") {
        Some(field) => word(walk, &field),
        None => Some(Word::Daemon),
    };
    let count = root.field("count");
    let kind = match word {
        None => None,
        Some(Word::Daemon) => match count {
            None => Some(Kind::Daemon),
            Some(field) => {
                walk.problem(
                    field.key,
                    "`count` belongs to `kind = \"replicas\"`".to_owned(),
                    "",
                    "a daemon runs on every matching node: take it out, or write `kind = \"replicas\"`",
                );
                None
            }
        },
        Some(Word::Replicas) => match count {
            Some(field) => replicas(walk, &field),
            None => {
                walk.required(root, "count", "count = 3");
                None
            }
        },
    };
    let on_lost = match root.field("on_lost") {
        Some(field) => on_lost(walk, &field, word),
        None => kind.map(Kind::on_lost_default),
    };
    Some((kind?, on_lost?))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Daemon,
    Replicas,
}

fn word(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<Word> {
    match walk.text(field, "a kind, \"daemon\" or \"replicas\"")? {
        "daemon" => Some(Word::Daemon),
        "replicas" => Some(Word::Replicas),
        "batch" => {
            walk.problem(
                field.value.clone(),
                "kind `batch` is not in this version".to_owned(),
                "reserved for a later version",
                KINDS,
            );
            None
        }
        other => {
            walk.problem(
                field.value.clone(),
                format!("unknown kind `{other}`"),
                "",
                KINDS,
            );
            None
        }
    }
}

fn replicas(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<Kind> {
    let Some(count) = field.item.as_integer() else {
        walk.wrong_type(
            field.value.clone(),
            &field.path,
            "a whole number, such as 3",
            field.item.type_name(),
        );
        return None;
    };
    match u32::try_from(count) {
        Ok(count) if (1..=REPLICAS_MAX).contains(&count) => Some(Kind::Replicas { count }),
        _ => {
            walk.problem(
                field.value.clone(),
                format!("`count` is 1 to {REPLICAS_MAX}"),
                "",
                "to run nothing, stop the job; to run on every matching node, write `kind = \"daemon\"`",
            );
            None
        }
    }
}

fn on_lost(walk: &mut Walk<'_>, field: &Field<'_>, kind: Option<Word>) -> Option<OnLost> {
    match walk
        .text(field, "\"wait\", \"replace\" or \"fail\"")?
        .parse()
    {
        Ok(OnLost::Replace) if kind == Some(Word::Daemon) => {
            walk.problem(
                field.value.clone(),
                "a daemon's execution has no other node to go to".to_owned(),
                "",
                "it runs on every matching node already: write \"wait\" or \"fail\"",
            );
            None
        }
        Ok(on_lost) => Some(on_lost),
        Err(_) => {
            walk.problem(
                field.value.clone(),
                "`on_lost` is \"wait\", \"replace\" or \"fail\"".to_owned(),
                "",
                "what becomes of an execution when its node is lost",
            );
            None
        }
    }
}
