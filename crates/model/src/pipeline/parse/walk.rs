//! Tables, fields and their places: what every part of the walk uses.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use toml_edit::{Item, Table, TableLike, Value};

use crate::pipeline::{Problem, Template, TemplateError, TemplateScope};

use super::words::{listed, nearest};
use super::{PluginUse, keys};

/// The text under check and what was found in it so far.
pub(super) struct Walk<'a> {
    source: &'a str,
    /// What was found wrong so far.
    pub(super) problems: Vec<Problem>,
    /// The plugins that stages name, in order.
    pub(super) plugins: Vec<PluginUse>,
    /// The names of the parameters that are declared.
    pub(super) params: BTreeSet<String>,
}

/// A table of the document.
pub(super) struct Section<'a> {
    table: &'a dyn TableLike,
    /// Where it is named: what it lacks is shown there.
    pub(super) at: Range<usize>,
    /// As people write it: `[input.file]`; empty for the document itself.
    pub(super) title: String,
}

/// A key and its value.
pub(super) struct Field<'a> {
    /// With the tables around it: `input.file.path`.
    pub(super) path: String,
    /// Where the key stands.
    pub(super) key: Range<usize>,
    /// Where the value stands; a table's header where it is one.
    pub(super) value: Range<usize>,
    /// The value.
    pub(super) item: &'a Item,
    name: &'a str,
}

impl<'a> Section<'a> {
    /// The document itself.
    pub(super) fn root(table: &'a Table) -> Self {
        Self {
            table,
            at: 0..0,
            title: String::new(),
        }
    }

    /// A table that stands in a list.
    pub(super) fn listed(table: &'a dyn TableLike, at: Range<usize>, title: &str) -> Self {
        Self {
            table,
            at,
            title: title.to_owned(),
        }
    }

    /// Whether it stands in a list.
    pub(super) fn is_listed(&self) -> bool {
        self.title.starts_with("[[")
    }

    /// The field of this name, if it is there.
    pub(super) fn field(&self, name: &str) -> Option<Field<'a>> {
        let (key, item) = self.table.get_key_value(name)?;
        let key_span = key.span().unwrap_or_else(|| self.at.clone());
        let value = item
            .span()
            .filter(|span| !span.is_empty())
            .unwrap_or_else(|| key_span.clone());
        let parent = self.title.trim_start_matches('[').trim_end_matches(']');
        let path = if parent.is_empty() {
            name.to_owned()
        } else {
            format!("{parent}.{name}")
        };
        Some(Field {
            path,
            key: key_span,
            value,
            item,
            name: key.get(),
        })
    }

    /// Every field, in the order of the document.
    pub(super) fn fields(&self) -> Vec<Field<'a>> {
        self.table
            .iter()
            .filter_map(|(name, _)| self.field(name))
            .collect()
    }

    /// How to speak of this section.
    fn spoken(&self) -> String {
        if self.title.is_empty() {
            "a pipeline".to_owned()
        } else {
            format!("`{}`", self.title)
        }
    }
}

impl<'a> Field<'a> {
    /// The key without the tables around it.
    pub(super) fn key_text(&self) -> &'a str {
        self.name
    }
}

impl<'a> Walk<'a> {
    /// Starts on a text.
    pub(super) fn new(source: &'a str) -> Self {
        Self {
            source,
            problems: Vec::new(),
            plugins: Vec::new(),
            params: BTreeSet::new(),
        }
    }

    /// Notes a problem.
    pub(super) fn problem<'h>(
        &mut self,
        span: Range<usize>,
        message: String,
        label: &str,
        help: impl Into<Option<&'h str>>,
    ) {
        let help = help.into().map(str::to_owned);
        self.problems.push(Problem {
            span,
            message,
            label: label.to_owned(),
            help,
        });
    }

    /// Notes that a value has another type than it should.
    pub(super) fn wrong_type(
        &mut self,
        span: Range<usize>,
        path: &str,
        expected: &str,
        found: &str,
    ) {
        let found = match found {
            "array of tables" => "a list of tables",
            "array" => "a list",
            "integer" | "inline table" => &format!("an {found}"),
            _ => &format!("a {found}"),
        };
        self.problem(
            span,
            format!("`{path}` must be {expected}"),
            &format!("this is {found}"),
            None,
        );
    }

    /// Notes every key that the section does not have.
    pub(super) fn check_keys(&mut self, section: &Section<'_>, known: &[&str]) {
        for field in section.fields() {
            let key = field.key_text();
            if known.contains(&key) {
                continue;
            }
            if keys::RESERVED.contains(&key) {
                self.reserved(&field);
                continue;
            }
            let help = match nearest(key, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None if known.is_empty() => {
                    format!("{} has no keys: take it out", section.spoken())
                }
                None => format!("{} has {}", section.spoken(), listed(known)),
            };
            self.problem(
                field.key,
                format!("unknown key `{}`", field.path),
                "",
                &*help,
            );
        }
    }

    /// Notes that a key belongs to a later version.
    pub(super) fn reserved(&mut self, field: &Field<'_>) {
        self.problem(
            field.key.clone(),
            format!("`{}` is not in this version", field.path),
            "reserved for a later version",
            match field.key_text() {
                "grants" => "take it out: in this version a stage reaches nothing but its records",
                _ => "take it out",
            },
        );
    }

    /// The field of this name, or the problem that it is missing; `example` is the line to write.
    pub(super) fn required<'t>(
        &mut self,
        section: &Section<'t>,
        name: &str,
        example: &str,
    ) -> Option<Field<'t>> {
        let field = section.field(name);
        if field.is_none() {
            let message = format!("{} needs `{name}`", section.spoken());
            self.problem(
                section.at.clone(),
                message,
                &format!("`{name}` is missing"),
                &*format!("write `{example}`"),
            );
        }
        field
    }

    /// The field's table, or the problem that it is something else.
    pub(super) fn section<'t>(
        &mut self,
        field: &Field<'t>,
        title: &str,
        example: &str,
    ) -> Option<Section<'t>> {
        match field.item.as_table_like() {
            Some(table) => Some(Section {
                table,
                at: field.value.clone(),
                title: title.to_owned(),
            }),
            None => {
                let expected = format!("a table, `{}`", example.replace('\n', "` with `"));
                self.wrong_type(
                    field.value.clone(),
                    &field.path,
                    &expected,
                    field.item.type_name(),
                );
                None
            }
        }
    }

    /// The field's text, or the problem that it is something else.
    pub(super) fn text<'t>(&mut self, field: &Field<'t>, expected: &str) -> Option<&'t str> {
        let text = field.item.as_str();
        if text.is_none() {
            self.wrong_type(
                field.value.clone(),
                &field.path,
                expected,
                field.item.type_name(),
            );
        }
        text
    }

    /// The good value of a check, or its problem with the value.
    pub(super) fn accept<T, E: fmt::Display>(
        &mut self,
        field: &Field<'_>,
        checked: Result<T, E>,
        message: impl FnOnce(E) -> String,
    ) -> Option<T> {
        match checked {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(field.value.clone(), message(error), "", None);
                None
            }
        }
    }

    /// The field's text as a template, or every problem of it.
    pub(super) fn template<'t>(
        &mut self,
        field: &Field<'t>,
        expected: &str,
        scope: TemplateScope,
    ) -> Option<Template> {
        let text = self.text(field, expected)?;
        self.check_template(field.value.clone(), text, scope);
        Template::parse(text, scope).ok()
    }

    /// Notes every problem of a text with variables; `value` is where the text stands, with its quotes.
    pub(super) fn check_template(&mut self, value: Range<usize>, text: &str, scope: TemplateScope) {
        for problem in Template::problems(text, scope) {
            let span = match problem.at() {
                Some(at) => self.place_within(&value, text, at),
                None => value.clone(),
            };
            let help = match &problem {
                TemplateError::Unknown { name, .. } => Some(variable_help(name, scope)),
                TemplateError::RecordOnly { .. } => {
                    Some(format!("here there is {}", listed(SETTING_VARIABLES)))
                }
                _ => None,
            };
            self.problem(span, problem.to_string(), "", help.as_deref());
        }
        for (name, at) in Template::params(text, scope) {
            if self.params.contains(&name) {
                continue;
            }
            let span = self.place_within(&value, text, at);
            let known: Vec<&str> = self.params.iter().map(String::as_str).collect();
            let help = match nearest(&name, &known) {
                Some(near) => format!("did you mean `${{param.{near}}}`?"),
                None => format!(
                    "declare it: `[params]` with `{name} = {{ type = \"string\" }}`, in `kind = \"batch\"`"
                ),
            };
            self.problem(
                span,
                format!("no parameter `{name}` is declared"),
                "",
                &*help,
            );
        }
    }

    /// A value's place, or that of what is around it.
    pub(super) fn span_of(&self, value: &Value, around: &Range<usize>) -> Range<usize> {
        value.span().unwrap_or_else(|| around.clone())
    }

    /// Where a part of a string's value stands in the text; escapes may hide it, then the whole string stands for it.
    fn place_within(&self, value: &Range<usize>, text: &str, at: Range<usize>) -> Range<usize> {
        let raw = self.source.get(value.clone()).unwrap_or_default();
        if let Some(offset) = raw.find(text) {
            let start = value.start + offset;
            return start + at.start..start + at.end;
        }
        match raw.find(&text[at.clone()]) {
            Some(offset) => value.start + offset..value.start + offset + at.len(),
            None => value.clone(),
        }
    }
}

const SETTING_VARIABLES: &[&str] = &[
    "${node.name}",
    "${node.labels.KEY}",
    "${node.labels.KEY:-default}",
    "${job.name}",
    "${param.NAME}",
    "${execution.id}",
];
const RECORD_VARIABLES: &[&str] = &["${seq}", "${now}", "${hostname}"];

fn variable_help(name: &str, scope: TemplateScope) -> String {
    let mut names = SETTING_VARIABLES.to_vec();
    if scope == TemplateScope::Record {
        names.extend_from_slice(RECORD_VARIABLES);
    }
    match nearest(&format!("${{{name}}}"), &names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "here there is {}; write `$${{` for a literal `${{`",
            listed(&names)
        ),
    }
}
