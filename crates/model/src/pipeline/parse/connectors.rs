//! `[input.KIND]`, `[output.KIND]` and `[[output]]`.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml_edit::{Item, TableLike, Value};

use crate::StageName;
use crate::pipeline::{
    Codec, ExecInput, FileInput, FileOutput, GenerateInput, Input, Output, StdoutOutput, Template,
    TemplateScope,
};

use super::keys;
use super::values::{duration_text, parse_duration};
use super::walk::{Field, Section, Walk};
use super::words::{listed, nearest};

/// Longest `interval`: a month; what happens less often is for a schedule.
const INTERVAL_MAX: Duration = Duration::from_secs(31 * 24 * 60 * 60);
/// `interval` when the pipeline does not say.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);

/// How long a command may run: a second is little for a program to start, a day is for a schedule.
const EXEC_DEADLINE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
/// `deadline` of a command when the pipeline does not say.
const EXEC_DEADLINE_DEFAULT: Duration = Duration::from_secs(10 * 60);

/// A connector's table and, unless it has a problem, what it says.
type Found<'a, T> = (Field<'a>, Option<T>);

/// The one input.
pub(super) fn input(walk: &mut Walk<'_>, root: &Section<'_>) -> Option<Input> {
    let field = walk.required(root, "input", "[input.generate]")?;
    let section = walk.section(&field, "[input]", "[input.generate]")?;
    let mut inputs: Vec<Found<'_, Input>> = Vec::new();
    let kinds = kinds(walk, &section, "input", keys::INPUTS);
    if kinds.is_empty() && section.fields().is_empty() {
        nothing(walk, section.at.clone(), "input", keys::INPUTS);
    }
    for kind in kinds {
        let title = format!("[input.{}]", kind.key_text());
        let input = walk
            .section(&kind, &title, &title)
            .and_then(|section| match kind.key_text() {
                "generate" => generate(walk, &section),
                "file" => file_input(walk, &section),
                "exec" => exec(walk, &section),
                _ => {
                    walk.check_keys(&section, keys::STDIN);
                    Some(Input::Stdin)
                }
            });
        inputs.push((kind, input));
    }
    one(
        walk,
        inputs,
        "a pipeline has one input",
        "deploy one pipeline for each input",
    )
}

/// The one output, in either form.
pub(super) fn output(walk: &mut Walk<'_>, root: &Section<'_>) -> Option<Output> {
    let field = walk.required(root, "output", "[output.stdout]")?;
    let mut outputs: Vec<Found<'_, Output>> = Vec::new();
    match field.item {
        Item::ArrayOfTables(list) => {
            for table in list {
                let at = table.span().unwrap_or_else(|| field.value.clone());
                outputs.extend(named_output(walk, table, at));
            }
        }
        Item::Value(Value::Array(list)) => {
            if list.is_empty() {
                nothing(walk, field.value.clone(), "output", keys::OUTPUTS);
            }
            for value in list {
                let at = walk.span_of(value, &field.value);
                match value.as_inline_table() {
                    Some(table) => outputs.extend(named_output(walk, table, at)),
                    None => walk.wrong_type(at, "output", "a list of tables", value.type_name()),
                }
            }
        }
        _ => {
            let section = walk.section(&field, "[output]", "[output.stdout]")?;
            if section.fields().is_empty() {
                nothing(walk, section.at.clone(), "output", keys::OUTPUTS);
            }
            outputs = output_kinds(walk, &section);
        }
    }
    one(
        walk,
        outputs,
        "several outputs are not in this version",
        "keep one of them, or deploy one pipeline for each",
    )
}

/// An element of `[[output]]`: a name beside the table of its kind.
fn named_output<'a>(
    walk: &mut Walk<'_>,
    table: &'a dyn TableLike,
    at: Range<usize>,
) -> Vec<Found<'a, Output>> {
    let section = Section::listed(table, at, "[[output]]");
    if let Some(field) = walk.required(&section, "name", "name = \"archive\"")
        && let Some(text) = walk.text(&field, "a name such as \"archive\"")
    {
        walk.accept(&field, text.parse::<StageName>(), |rule| {
            format!("an output's name {rule}")
        });
    }
    if section
        .fields()
        .iter()
        .all(|field| field.key_text() == "name")
    {
        nothing(walk, section.at.clone(), "output", keys::OUTPUTS);
    }
    output_kinds(walk, &section)
}

fn output_kinds<'a>(walk: &mut Walk<'_>, section: &Section<'a>) -> Vec<Found<'a, Output>> {
    let mut outputs = Vec::new();
    for kind in kinds(walk, section, "output", keys::OUTPUTS) {
        let title = format!("[output.{}]", kind.key_text());
        let output =
            walk.section(&kind, &title, &title)
                .and_then(|section| match kind.key_text() {
                    "stdout" => {
                        walk.check_keys(&section, keys::STDOUT);
                        Some(Output::Stdout(StdoutOutput {
                            codec: codec(walk, &section)?,
                        }))
                    }
                    "file" => {
                        walk.check_keys(&section, keys::FILE_OUTPUT);
                        let (path, codec) =
                            (path(walk, &section, "out.log"), codec(walk, &section));
                        Some(Output::File(FileOutput {
                            path: path?,
                            codec: codec?,
                        }))
                    }
                    _ => {
                        walk.check_keys(&section, keys::DISCARD);
                        Some(Output::Discard)
                    }
                });
        outputs.push((kind, output));
    }
    outputs
}

/// The fields of a section that name a connector; every other one is a problem, but the name of an `[[output]]`.
fn kinds<'a>(
    walk: &mut Walk<'_>,
    section: &Section<'a>,
    what: &str,
    known: &[&str],
) -> Vec<Field<'a>> {
    let mut kinds = Vec::new();
    for field in section.fields() {
        let key = field.key_text();
        if known.contains(&key) {
            kinds.push(field);
        } else if keys::RESERVED.contains(&key) {
            walk.reserved(&field);
        } else if field.item.as_table_like().is_some() {
            let help = match nearest(key, known) {
                Some(near) => format!("did you mean `{near}`? This version has {}", listed(known)),
                None => format!("this version has {}", listed(known)),
            };
            walk.problem(
                field.key.clone(),
                format!("there is no {what} `{key}` in this version"),
                "",
                &*help,
            );
        } else if !(section.is_listed() && keys::NAMED_OUTPUT.contains(&key)) {
            let help = format!(
                "settings stand in the table of their kind, as in `[{what}.{}]`",
                known[known.len() / 2]
            );
            walk.problem(
                field.key.clone(),
                format!("unknown key `{}`", field.path),
                "",
                &*help,
            );
        }
    }
    kinds
}

fn nothing(walk: &mut Walk<'_>, at: Range<usize>, what: &str, known: &[&str]) {
    let help = format!("write `[{what}.KIND]`; this version has {}", listed(known));
    walk.problem(
        at,
        format!("the pipeline has no {what}"),
        "nothing here",
        &*help,
    );
}

fn one<T>(walk: &mut Walk<'_>, found: Vec<Found<'_, T>>, several: &str, help: &str) -> Option<T> {
    if let Some((second, _)) = found.get(1) {
        walk.problem(second.key.clone(), several.to_owned(), "one more", help);
        return None;
    }
    found.into_iter().next()?.1
}

fn generate(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<Input> {
    walk.check_keys(section, keys::GENERATE);
    let interval = match section.field("interval") {
        Some(field) => interval(walk, &field),
        None => Some(Some(INTERVAL_DEFAULT)),
    };
    let count = match section.field("count") {
        Some(field) => count(walk, &field),
        None => Some(None),
    };
    let template = walk
        .required(
            section,
            "template",
            "template = '{\"seq\":${seq},\"at\":\"${now}\"}'",
        )
        .and_then(|field| {
            walk.template(
                &field,
                "a text such as '{\"seq\":${seq}}'",
                TemplateScope::Record,
            )
        });
    Some(Input::Generate(GenerateInput {
        interval: interval?,
        count: count?,
        template: template?,
    }))
}

fn interval(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<Option<Duration>> {
    let text = walk.text(
        field,
        "a duration such as \"1s\", or \"\" for as fast as it goes",
    )?;
    if text.is_empty() {
        return Some(None);
    }
    let interval = walk.accept(field, parse_duration(text), |error| error.to_string())?;
    if interval.is_zero() || interval > INTERVAL_MAX {
        let message = format!(
            "an interval lies between 1ms and {}",
            duration_text(INTERVAL_MAX)
        );
        walk.problem(
            field.value.clone(),
            message,
            "",
            "write `interval = \"\"` for as fast as it goes",
        );
        return None;
    }
    Some(Some(interval))
}

fn count(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<Option<u64>> {
    let Some(number) = field.item.as_integer() else {
        let expected = "a whole number, 0 for endless";
        walk.wrong_type(
            field.value.clone(),
            &field.path,
            expected,
            field.item.type_name(),
        );
        return None;
    };
    match u64::try_from(number) {
        Ok(0) => Some(None),
        Ok(count) => Some(Some(count)),
        Err(_) => {
            walk.problem(
                field.value.clone(),
                format!("`{}` cannot be negative", field.path),
                "",
                "0 is endless",
            );
            None
        }
    }
}

fn file_input(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<Input> {
    walk.check_keys(section, keys::FILE_INPUT);
    Some(Input::File(FileInput {
        path: path(walk, section, "in.log")?,
    }))
}

fn exec(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<Input> {
    walk.check_keys(section, keys::EXEC);
    let command = walk
        .required(section, "command", "command = \"gpu-query\"")
        .and_then(|field| {
            let text = walk.text(&field, "the name of one of the edge's commands")?;
            let parsed = text.parse().map_err(|rule: crate::NameError| {
                format!("a command's name {rule}: what it runs is in the edge's policy, not here")
            });
            walk.accept(&field, parsed, |problem| problem)
        });
    let deadline = match section.field("deadline") {
        Some(field) => exec_deadline(walk, &field),
        None => Some(EXEC_DEADLINE_DEFAULT),
    };
    Some(Input::Exec(ExecInput {
        command: command?,
        deadline: deadline?,
    }))
}

fn exec_deadline(walk: &mut Walk<'_>, field: &Field<'_>) -> Option<Duration> {
    let text = walk.text(field, "a duration such as \"10m\"")?;
    let deadline = walk.accept(field, parse_duration(text), |error| error.to_string())?;
    if !EXEC_DEADLINE.contains(&deadline) {
        let (min, max) = (EXEC_DEADLINE.start(), EXEC_DEADLINE.end());
        let message = format!(
            "a command may run for {} to {}",
            duration_text(*min),
            duration_text(*max)
        );
        walk.problem(field.value.clone(), message, "", None);
        return None;
    }
    Some(deadline)
}

fn path(walk: &mut Walk<'_>, section: &Section<'_>, example: &str) -> Option<Template> {
    let field = walk.required(section, "path", &format!("path = \"{example}\""))?;
    let path = walk.template(
        &field,
        &format!("a path such as \"{example}\""),
        TemplateScope::Setting,
    )?;
    let message = match path.as_written() {
        "" => "a path cannot be empty",
        text if text.contains('\0') => "a path cannot have a NUL character",
        _ => return Some(path),
    };
    walk.problem(field.value.clone(), message.to_owned(), "", None);
    None
}

fn codec(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<Codec> {
    let Some(field) = section.field("codec") else {
        return Some(Codec::default());
    };
    match walk.text(&field, "a codec, \"lines\"")? {
        "lines" => Some(Codec::Lines),
        other => {
            let message = format!("there is no codec `{other}` in this version");
            walk.problem(
                field.value.clone(),
                message,
                "",
                "this version has `lines`: each record and a newline",
            );
            None
        }
    }
}
