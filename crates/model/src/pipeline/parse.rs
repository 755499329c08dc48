//! From the text of a pipeline to its checked types.
//!
//! The walk goes over the TOML tree, which knows where each key and value stands, and goes on after a problem, so
//! that one run shows everything that is wrong:
//!
//! ```text
//! text -> toml_edit tree -> parse (document) -> placement, connectors, stages -> walk (tables, fields) -> values, words
//! ```
//!
//! It reads only the text: whether a plugin's file exists is for the caller to find out.

use std::collections::BTreeMap;
use std::ops::Range;

use toml_edit::{Document, Item, Value};

use crate::{JobName, NodeName, StageName, check_label_key, check_label_value};

use super::{PIPELINE_BYTES_MAX, Pipeline, PluginRef, Problem, Problems, Select};

mod batch;
mod connectors;
pub(super) mod keys;
mod placement;
mod rollout;
mod stages;
pub(super) mod values;
mod walk;
mod words;

use walk::{Field, Section, Walk};

/// A pipeline's text, and what could be read of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The pipeline; there if and only if there is no problem.
    pub pipeline: Option<Pipeline>,
    /// What the stages run, in order, as far as it is well written: so that whoever has a disk can look at the files
    /// whatever else is wrong. With a pipeline, one for each of its stages.
    pub plugins: Vec<PluginUse>,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
}

/// A plugin that a stage names.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginUse {
    /// The stage; `None` where its name is missing or wrong.
    pub stage: Option<StageName>,
    /// What it runs.
    pub plugin: PluginRef,
    /// Where the text says so.
    pub span: Range<usize>,
}

/// Checks a pipeline's text and reports every problem at once. A text that is not TOML has one problem, the first.
pub fn parse(text: &str) -> Result<Pipeline, Problems> {
    let checked = check(text);
    match (Problems::of(checked.problems), checked.pipeline) {
        (None, Some(pipeline)) => Ok(pipeline),
        (Some(problems), _) => Err(problems),
        (None, None) => unreachable!("what is not there was reported"),
    }
}

/// Checks a pipeline's text, and gives what is right of it too. For callers that have more to check than the text.
pub fn check(text: &str) -> Checked {
    if text.len() > PIPELINE_BYTES_MAX {
        return Checked::only(Problem {
            span: 0..0,
            message: format!(
                "the pipeline file has {} bytes, and may have {PIPELINE_BYTES_MAX} (256 KiB)",
                text.len()
            ),
            label: String::new(),
            help: Some("move large settings into files that the stages' plugins carry".to_owned()),
        });
    }
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => return Checked::only(syntax_problem(&error, text)),
    };
    let mut walk = Walk::new(text);
    let pipeline = document_fields(&mut walk, &Section::root(document.as_table()));
    let Walk {
        problems, plugins, ..
    } = walk;
    Checked {
        pipeline: pipeline.filter(|_| problems.is_empty()),
        plugins,
        problems,
    }
}

impl Checked {
    fn only(problem: Problem) -> Self {
        Self {
            pipeline: None,
            plugins: Vec::new(),
            problems: vec![problem],
        }
    }
}

fn syntax_problem(error: &toml_edit::TomlError, text: &str) -> Problem {
    let duplicate = error.message().starts_with("duplicate key");
    Problem {
        span: error.span().unwrap_or(text.len()..text.len()),
        message: if duplicate {
            "this key is there twice".to_owned()
        } else {
            "this is not TOML".to_owned()
        },
        label: if duplicate {
            String::new()
        } else {
            error.message().to_owned()
        },
        help: Some(syntax_help(error.message()).to_owned()),
    }
}

/// What would be right, by what the parser of TOML says is wrong.
fn syntax_help(message: &str) -> &'static str {
    let has = |part: &str| message.contains(part);
    if has("duplicate key") {
        "keep one of the two"
    } else if has("unclosed table") || has("unclosed array table") {
        "a heading ends with `]`, and that of a list with `]]`: `[input.generate]`, `[[stage]]`"
    } else if has("unclosed array") || has("unclosed inline table") {
        "end the list with `]`, the table with `}`"
    } else if has("must be quoted") {
        "texts stand in quotes: `name = \"field-temps\"`"
    } else if has("string") {
        "end the text with the quote that it begins with, on the same line; `\\` is written twice in \"...\", or the \
         text in '...'"
    } else {
        "a line is `key = value` or a heading such as `[input.generate]`; texts stand in quotes, comments begin with `#`"
    }
}

fn document_fields(walk: &mut Walk<'_>, root: &Section<'_>) -> Option<Pipeline> {
    walk.check_keys(root, keys::PIPELINE);
    let name = walk
        .required(root, "name", "name = \"field-temps\"")
        .and_then(|field| job_name(walk, &field));
    let word = placement::kind_word(walk, root);
    let batch = batch::batch(walk, root, word);
    let placement = placement::placement(walk, root, word, batch.as_ref().and_then(Option::as_ref));
    let select = match root.field("select") {
        Some(field) => select(walk, &field),
        None => Some(Select::default()),
    };
    let rollout = match root.field("rollout") {
        Some(field) => rollout::rollout(walk, &field).map(Some),
        None => Some(None),
    };
    let input = connectors::input(walk, root);
    let stages = match root.field("stage") {
        Some(field) => stages::stages(walk, &field),
        None => Some(Vec::new()),
    };
    let output = connectors::output(walk, root);
    let (kind, on_lost) = placement?;
    Some(Pipeline {
        name: name?,
        kind,
        on_lost,
        select: select?,
        rollout: rollout?,
        batch: batch?,
        input: input?,
        stages: stages?,
        output: output?,
    })
}

fn job_name(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<JobName> {
    let text = walk.text(field, "a name such as \"field-temps\"")?;
    walk.accept(field, text.parse(), |rule| format!("a job's name {rule}"))
}

fn select(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<Select> {
    let section = walk.section(field, "[select]", "[select]\nsite = \"plant-7\"")?;
    let mut wanted = BTreeMap::new();
    let mut complete = true;
    for field in section.fields() {
        let key = field.key_text();
        if let Err(rule) = check_label_key(key) {
            walk.problem(
                field.key.clone(),
                format!("`{key}` cannot be a label: a label's key {rule}"),
                "",
                None,
            );
            complete = false;
        }
        match select_values(walk, &field) {
            Some(values) => {
                wanted.insert(key.to_owned(), values);
            }
            None => complete = false,
        }
    }
    complete.then_some(Select(wanted))
}

fn select_values(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<Vec<String>> {
    let expected = "a string, or a list of strings";
    match field.item {
        Item::Value(Value::Array(list)) => {
            if list.is_empty() {
                walk.problem(
                    field.value.clone(),
                    format!("`{}` lists nothing, so no node could match", field.path),
                    "",
                    "list the values that match, or take the line out",
                );
                return None;
            }
            let read = |walk: &mut Walk<'_>, value| {
                let span = walk.span_of(value, &field.value);
                let Value::String(text) = value else {
                    walk.wrong_type(span, &field.path, expected, value.type_name());
                    return None;
                };
                select_value(walk, field, span, text.value())
            };
            let values: Vec<Option<String>> = list.iter().map(|value| read(walk, value)).collect();
            values.into_iter().collect()
        }
        _ => {
            let text = walk.text(field, expected)?;
            Some(vec![select_value(walk, field, field.value.clone(), text)?])
        }
    }
}

fn select_value(
    walk: &mut Walk<'_>,
    field: &Field<'_>,
    span: Range<usize>,
    text: &str,
) -> Option<String> {
    let (checked, what) = match field.key_text() {
        "node" => (text.parse::<NodeName>().map(drop), "a node's name"),
        _ => (check_label_value(text), "a label's value"),
    };
    match checked {
        Ok(()) => Some(text.to_owned()),
        Err(rule) => {
            walk.problem(
                span,
                format!("no node can match `{text}`: {what} {rule}"),
                "",
                None,
            );
            None
        }
    }
}
