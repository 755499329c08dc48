//! Text with `${...}` variables, filled in on the edge.
//!
//! ```text
//! ${node.name}  ${node.labels.KEY}  ${node.labels.KEY:-default}  ${job.name}  ${execution.id}    everywhere
//! ${param.NAME}                                                                 in kind batch, where it is declared
//! ${seq}  ${now}  ${hostname}                                                   only in generate's template
//! $${           a literal ${
//! ```
//!
//! Parsing checks every name; rendering is given every value and so reads no clock and no machine.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;
use std::ops::Range;

use super::batch::{Params, check_param_name};
use crate::{ExecutionId, JobName, Labels, NodeName, check_label_key};

/// Where a template stands, which decides what it may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateScope {
    /// A setting, rendered once when the execution starts.
    Setting,
    /// The text of generated records: also `seq`, `now` and `hostname`.
    Record,
}

/// One thing that `${...}` can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// `${node.name}`
    NodeName,
    /// `${node.labels.KEY}` or `${node.labels.KEY:-default}`
    NodeLabel {
        /// The label's key.
        key: String,
        /// What stands there when the node lacks the label; `None` makes that an error.
        default: Option<String>,
    },
    /// `${job.name}`
    JobName,
    /// `${execution.id}`
    ExecutionId,
    /// `${param.NAME}`: what the launch said, or the default.
    Param(String),
    /// `${seq}`: the record's number, from 0.
    Seq,
    /// `${now}`: the time the record was made, RFC 3339.
    Now,
    /// `${hostname}`: the edge machine's host name.
    Hostname,
}

/// The values that variables stand for on one node, for one execution.
#[derive(Clone, Copy, Debug)]
pub struct TemplateContext<'a> {
    /// The node's name.
    pub node: &'a NodeName,
    /// The node's labels.
    pub labels: &'a Labels,
    /// The job's name.
    pub job: &'a JobName,
    /// The execution's id.
    pub execution: ExecutionId,
    /// The machine's host name.
    pub hostname: &'a str,
    /// The run's parameters; none for a job that is not a batch.
    pub params: &'a Params,
}

/// Why a text is not a template, or a template has no value here. `at` is a byte range of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A `${` without its `}`.
    #[error("`${{` is never closed; write `$${{` for a literal one")]
    Unclosed {
        /// From the `${` to the end.
        at: Range<usize>,
    },
    /// A name that nothing has.
    #[error("unknown variable `${{{name}}}`")]
    Unknown {
        /// What stands between the braces.
        name: String,
        /// The whole `${...}`.
        at: Range<usize>,
    },
    /// A name that only generated records have.
    #[error("`${{{name}}}` exists only in the template of `[input.generate]`")]
    RecordOnly {
        /// What stands between the braces.
        name: String,
        /// The whole `${...}`.
        at: Range<usize>,
    },
    /// A label key that no node can have.
    #[error("`{key}` is not a label key: it {reason}")]
    LabelKey {
        /// The key.
        key: String,
        /// The rule it breaks.
        reason: crate::NameError,
        /// The whole `${...}`.
        at: Range<usize>,
    },
    /// A name that no parameter has.
    #[error(
        "`{name}` is not a parameter: its name {}",
        crate::pipeline::ParamNameError
    )]
    ParamName {
        /// The name.
        name: String,
        /// The whole `${...}`.
        at: Range<usize>,
    },
    /// The run has no such parameter.
    #[error("this run has no parameter `{name}`")]
    MissingParam {
        /// Its name.
        name: String,
    },
    /// The node lacks a label that has no default.
    #[error("this node has no label `{key}`; set it, or write `${{node.labels.{key}:-default}}`")]
    MissingLabel {
        /// The label's key.
        key: String,
    },
}

impl TemplateError {
    /// Where in the template's text the problem is; `None` for one that depends on the node.
    pub fn at(&self) -> Option<Range<usize>> {
        match self {
            Self::Unclosed { at }
            | Self::Unknown { at, .. }
            | Self::RecordOnly { at, .. }
            | Self::ParamName { at, .. }
            | Self::LabelKey { at, .. } => Some(at.clone()),
            Self::MissingLabel { .. } | Self::MissingParam { .. } => None,
        }
    }
}

/// A parsed text with variables.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    written: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Variable(Variable),
}

impl Template {
    /// Parses `text`; the first problem is the error, see [`Template::problems`] for all.
    pub fn parse(text: &str, scope: TemplateScope) -> Result<Self, TemplateError> {
        let (pieces, problems) = split(text, scope);
        match problems.into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(Self {
                written: text.to_owned(),
                pieces,
            }),
        }
    }

    /// Every problem of `text`, in order; empty when [`Template::parse`] takes it.
    pub fn problems(text: &str, scope: TemplateScope) -> Vec<TemplateError> {
        split(text, scope).1
    }

    /// The parameters that a text names, each with its place; names that no parameter can have are left out.
    pub fn params(text: &str, scope: TemplateScope) -> Vec<(String, Range<usize>)> {
        let mut params = Vec::new();
        for (found, _) in text.match_indices("${param.") {
            let Some(length) = text[found..].find('}') else {
                continue;
            };
            let at = found..found + length + 1;
            let named = variable(&text[found + 2..at.end - 1], at.clone(), scope);
            if let Ok(Variable::Param(name)) = named
                && !text[..found].ends_with('$')
            {
                params.push((name, at));
            }
        }
        params
    }

    /// The parameter that is all of the text.
    pub fn lone_param(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [Piece::Variable(Variable::Param(name))] => Some(name),
            _ => None,
        }
    }

    /// The text as the pipeline's author wrote it.
    pub fn as_written(&self) -> &str {
        &self.written
    }

    /// The variables in the order of the text.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Variable(variable) => Some(variable),
            Piece::Literal(_) => None,
        })
    }

    /// Fills in every variable; a label that the node lacks is an error that names it. A setting has no `seq` and no
    /// `now`, so these are errors too.
    pub fn render(&self, context: &TemplateContext<'_>) -> Result<String, TemplateError> {
        let mut rendered = String::with_capacity(self.written.len());
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => rendered.push_str(text),
                Piece::Variable(variable) => match value(variable, context)? {
                    Some(text) => rendered.push_str(&text),
                    None => {
                        return Err(TemplateError::RecordOnly {
                            name: variable.to_string(),
                            at: 0..0,
                        });
                    }
                },
            }
        }
        Ok(rendered)
    }

    /// Fills in everything but `seq` and `now`, once, so that [`Template::render_into`] has nothing left to look up.
    pub fn resolve(&self, context: &TemplateContext<'_>) -> Result<Self, TemplateError> {
        let mut pieces = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => push_literal(&mut pieces, text),
                Piece::Variable(variable) => match value(variable, context)? {
                    Some(text) => push_literal(&mut pieces, &text),
                    None => pieces.push(piece.clone()),
                },
            }
        }
        Ok(Self {
            written: self.written.clone(),
            pieces,
        })
    }

    /// Appends one record's text: the record path's form, for a template that went through [`Template::resolve`].
    /// A variable that was not resolved is appended as it was written.
    pub fn render_into(&self, out: &mut Vec<u8>, seq: u64, now: &str) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Variable(Variable::Seq) => append(out, format_args!("{seq}")),
                Piece::Variable(Variable::Now) => out.extend_from_slice(now.as_bytes()),
                Piece::Variable(other) => append(out, format_args!("${{{other}}}")),
            }
        }
    }

    /// Whether the text needs `now`, so that a caller need not format the time for nothing.
    pub fn uses_now(&self) -> bool {
        self.variables().any(|variable| *variable == Variable::Now)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({:?})", self.written)
    }
}

impl fmt::Display for Variable {
    /// What stands between the braces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeName => f.write_str("node.name"),
            Self::NodeLabel { key, default: None } => write!(f, "node.labels.{key}"),
            Self::NodeLabel {
                key,
                default: Some(default),
            } => write!(f, "node.labels.{key}:-{default}"),
            Self::JobName => f.write_str("job.name"),
            Self::ExecutionId => f.write_str("execution.id"),
            Self::Param(name) => write!(f, "param.{name}"),
            Self::Seq => f.write_str("seq"),
            Self::Now => f.write_str("now"),
            Self::Hostname => f.write_str("hostname"),
        }
    }
}

/// A variable's value, or `None` for what each record has anew.
fn value<'a>(
    variable: &'a Variable,
    context: &TemplateContext<'a>,
) -> Result<Option<Cow<'a, str>>, TemplateError> {
    Ok(Some(match variable {
        Variable::NodeName => Cow::Borrowed(context.node.as_str()),
        Variable::NodeLabel { key, default } => {
            match context.labels.get(key).or(default.as_ref()) {
                Some(text) => Cow::Borrowed(text.as_str()),
                None => return Err(TemplateError::MissingLabel { key: key.clone() }),
            }
        }
        Variable::JobName => Cow::Borrowed(context.job.as_str()),
        Variable::ExecutionId => Cow::Owned(context.execution.to_string()),
        Variable::Hostname => Cow::Borrowed(context.hostname),
        Variable::Param(name) => match context.params.get(name) {
            Some(value) => Cow::Owned(value.to_string()),
            None => return Err(TemplateError::MissingParam { name: name.clone() }),
        },
        Variable::Seq | Variable::Now => return Ok(None),
    }))
}

fn split(text: &str, scope: TemplateScope) -> (Vec<Piece>, Vec<TemplateError>) {
    let (mut pieces, mut problems) = (Vec::new(), Vec::new());
    let mut done = 0;
    while let Some(found) = text[done..].find("${") {
        let start = done + found;
        if text[done..start].ends_with('$') {
            push_literal(&mut pieces, &text[done..start - 1]);
            push_literal(&mut pieces, "${");
            done = start + 2;
            continue;
        }
        push_literal(&mut pieces, &text[done..start]);
        let Some(length) = text[start..].find('}') else {
            problems.push(TemplateError::Unclosed {
                at: start..text.len(),
            });
            return (pieces, problems);
        };
        let at = start..start + length + 1;
        match variable(&text[start + 2..at.end - 1], at.clone(), scope) {
            Ok(variable) => pieces.push(Piece::Variable(variable)),
            Err(problem) => problems.push(problem),
        }
        done = at.end;
    }
    push_literal(&mut pieces, &text[done..]);
    (pieces, problems)
}

fn variable(name: &str, at: Range<usize>, scope: TemplateScope) -> Result<Variable, TemplateError> {
    let record_only = |variable| match scope {
        TemplateScope::Record => Ok(variable),
        TemplateScope::Setting => Err(TemplateError::RecordOnly {
            name: name.to_owned(),
            at: at.clone(),
        }),
    };
    match name {
        "node.name" => Ok(Variable::NodeName),
        "job.name" => Ok(Variable::JobName),
        "execution.id" => Ok(Variable::ExecutionId),
        "seq" => record_only(Variable::Seq),
        "now" => record_only(Variable::Now),
        "hostname" => record_only(Variable::Hostname),
        other => {
            if let Some(name) = other.strip_prefix("param.") {
                let name = name.to_owned();
                return match check_param_name(&name) {
                    Ok(()) => Ok(Variable::Param(name)),
                    Err(_) => Err(TemplateError::ParamName { name, at }),
                };
            }
            let Some(label) = other.strip_prefix("node.labels.") else {
                return Err(TemplateError::Unknown {
                    name: other.to_owned(),
                    at,
                });
            };
            let (key, default) = match label.split_once(":-") {
                Some((key, default)) => (key, Some(default.to_owned())),
                None => (label, None),
            };
            match check_label_key(key) {
                Ok(()) => Ok(Variable::NodeLabel {
                    key: key.to_owned(),
                    default,
                }),
                Err(reason) => Err(TemplateError::LabelKey {
                    key: key.to_owned(),
                    reason,
                    at,
                }),
            }
        }
    }
}

fn push_literal(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        _ if text.is_empty() => {}
        Some(Piece::Literal(before)) => before.push_str(text),
        _ => pieces.push(Piece::Literal(text.to_owned())),
    }
}

fn append(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes every byte");
}

#[cfg(test)]
mod tests;
