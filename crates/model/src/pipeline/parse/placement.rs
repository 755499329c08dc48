//! How a job is placed: `kind`, and what belongs to one kind only.

use super::walk::{Field, Section, Walk};
use crate::OnLost;
use crate::pipeline::{Batch, Kind, REPLICAS_MAX};

const KINDS: &str = "there is `daemon`, one execution on every matching node, `replicas`, one on each of `count` nodes, and `batch`, \
                     which runs to an end each time it is launched";

/// Reads `kind`, `count` and `on_lost`.
pub(super) fn placement(
    walk: &mut Walk<'_>,
    root: &Section<'_>,
    word: Option<Word>,
    batch: Option<&Batch>,
) -> Option<(Kind, OnLost)> {
    let count = root.field("count");
    let kind = match word {
        None => None,
        Some(Word::Daemon) => match count {
            None => Some(Kind::Daemon),
            Some(field) => {
                walk.problem(
                    field.key,
                    "`count` belongs to `kind = \"replicas\"` and `kind = \"batch\"`".to_owned(),
                    "",
                    "a daemon runs on every matching node: take it out, or write `kind = \"replicas\"`",
                );
                None
            }
        },
        Some(Word::Replicas) => match count {
            Some(field) => nodes(walk, &field).map(|count| Kind::Replicas { count }),
            None => {
                walk.required(root, "count", "count = 3");
                None
            }
        },
        Some(Word::Batch) => match count {
            Some(field) => nodes(walk, &field).map(|count| Kind::Batch { count }),
            None => Some(Kind::Batch { count: 1 }),
        },
    };
    let on_lost = match root.field("on_lost") {
        Some(field) => on_lost(walk, &field, word, batch),
        None => kind.map(|kind| kind.on_lost_default(batch)),
    };
    Some((kind?, on_lost?))
}

/// The kinds as they are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Daemon,
    Replicas,
    Batch,
}

/// Reads `kind`.
pub(super) fn kind_word(walk: &mut Walk<'_>, root: &Section<'_>) -> Option<Word> {
    match root.field("kind") {
        Some(field) => word(walk, &field),
        None => Some(Word::Daemon),
    }
}

fn word(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<Word> {
    match walk.text(field, "a kind, \"daemon\", \"replicas\" or \"batch\"")? {
        "daemon" => Some(Word::Daemon),
        "replicas" => Some(Word::Replicas),
        "batch" => Some(Word::Batch),
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

fn nodes(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<u32> {
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
        Ok(count) if (1..=REPLICAS_MAX).contains(&count) => Some(count),
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

fn on_lost(
    walk: &mut Walk<'_>,
    field: &Field<'_>,
    kind: Option<Word>,
    batch: Option<&Batch>,
) -> Option<OnLost> {
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
        Ok(OnLost::Replace) if batch.is_some_and(|batch| !batch.idempotent) => {
            walk.problem(
                field.value.clone(),
                "on another node it would run a second time".to_owned(),
                "",
                "write `idempotent = true` if it may, or \"fail\" or \"wait\" here",
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
