//! Kind `batch`: what a launch may say (parameters), and what holds for each of its tasks.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value as Json};

/// Parameters of one pipeline, at most: each is a line that a person gives with a launch.
pub const PARAMS_MAX: usize = 64;

/// Longest value of a parameter, in bytes: a path or a query, not a document. All of them together stay far below a
/// pipeline file.
pub const PARAM_BYTES_MAX: usize = 1024;

/// Tries after the first one, at most: with the wait between them growing to 5 minutes, more is a day.
pub const RETRIES_MAX: u32 = 100;

/// Highest priority; the lowest is its negative.
pub const PRIORITY_MAX: i32 = 1_000;

/// The values of a run's parameters, by name.
pub type Params = BTreeMap<String, ParamValue>;

/// What holds for the tasks of a batch job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Whether a task may run again when nobody can tell whether it has ended. If not, it ends as `indeterminate`.
    pub idempotent: bool,
    /// How long a task may take from its placing.
    pub timeout: Option<Duration>,
    /// Tries after the first one that failed.
    pub retries: u32,
    /// Tasks of a higher priority are placed first.
    pub priority: i32,
    /// Tasks of the job that run at once; `None` = as many as the orchestrator allows.
    pub concurrency: Option<u32>,
    /// The pool that its tasks take a place of.
    pub pool: Option<String>,
    /// What a launch may say.
    pub params: BTreeMap<String, Param>,
}

/// One declared parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// What its values are.
    pub kind: ParamKind,
    /// What it is when a launch does not say; `None` = a launch must say.
    pub default: Option<ParamValue>,
}

/// What a parameter's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// Any text.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
}

/// A parameter's value. In JSON it is what it is: `"a"`, `3`, `0.5`, `true`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ParamValue {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(Number),
    /// Text.
    Text(String),
}

impl ParamKind {
    /// As it is written in `[params]`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }

    /// The kind that is written like this.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Text, Self::Integer, Self::Number, Self::Boolean]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }

    /// What a person must write, in words.
    pub fn expected(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Boolean => "true or false",
        }
    }

    /// A value as it is given on a command line; `None` when it is not one of this kind.
    pub fn read(self, text: &str) -> Option<ParamValue> {
        match self {
            Self::Text => Some(ParamValue::Text(text.to_owned())),
            Self::Integer => text.parse().ok().map(ParamValue::Integer),
            Self::Number => {
                let number: f64 = text.parse().ok()?;
                Number::from_f64(number).map(ParamValue::Number)
            }
            Self::Boolean => text.parse().ok().map(ParamValue::Boolean),
        }
    }
}

impl ParamValue {
    /// The value in JSON.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Boolean(value) => Json::Bool(*value),
            Self::Integer(value) => Json::from(*value),
            Self::Number(value) => Json::Number(value.clone()),
            Self::Text(value) => Json::String(value.clone()),
        }
    }
}

impl fmt::Display for ParamValue {
    /// As it stands in a text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// What is wrong with a launch's parameters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// It is not declared.
    #[error("{job} has no parameter `{name}`{}", .known.as_ref().map(|known| format!("; it has {known}")).unwrap_or_default())]
    Unknown {
        /// Whose, in words.
        job: String,
        /// Its name.
        name: String,
        /// Those that there are, in words.
        known: Option<String>,
    },
    /// It has no default and was not given.
    #[error("{job} needs the parameter `{name}` ({kind}): write `--param {name}=...`", kind = .kind.expected())]
    Missing {
        /// The job.
        job: String,
        /// Its name.
        name: String,
        /// What it is.
        kind: ParamKind,
    },
    /// It is not of its kind.
    #[error("parameter `{name}` of {job} is {kind}, and `{value}` is not", kind = .kind.expected())]
    Kind {
        /// The job.
        job: String,
        /// Its name.
        name: String,
        /// What it is.
        kind: ParamKind,
        /// What was given.
        value: String,
    },
    /// It is too long.
    #[error("parameter `{name}` has {bytes} bytes, and may have {PARAM_BYTES_MAX}")]
    Long {
        /// Its name.
        name: String,
        /// How long it is.
        bytes: usize,
    },
}

impl Batch {
    /// Every parameter's value: what is given and else the default. Everything that is wrong is reported, but for names
    /// that this job does not declare, which another job of the launch may.
    pub fn resolve(
        &self,
        job: &str,
        given: &BTreeMap<String, String>,
    ) -> Result<Params, Vec<ParamError>> {
        let mut values = Params::new();
        let mut wrong = Vec::new();
        for (name, param) in &self.params {
            let (job, name) = (job.to_owned(), name.clone());
            match given.get(&name) {
                Some(text) if text.len() > PARAM_BYTES_MAX => wrong.push(ParamError::Long {
                    name,
                    bytes: text.len(),
                }),
                Some(text) => match param.kind.read(text) {
                    Some(value) => {
                        values.insert(name, value);
                    }
                    None => wrong.push(ParamError::Kind {
                        job,
                        name,
                        kind: param.kind,
                        value: text.clone(),
                    }),
                },
                None => match &param.default {
                    Some(value) => {
                        values.insert(name, value.clone());
                    }
                    None => wrong.push(ParamError::Missing {
                        job,
                        name,
                        kind: param.kind,
                    }),
                },
            }
        }
        if wrong.is_empty() {
            Ok(values)
        } else {
            Err(wrong)
        }
    }
}

/// Checks a parameter's name: 1 to 63 of a-z, 0-9 and `_`, and a letter first.
pub fn check_param_name(text: &str) -> Result<(), ParamNameError> {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let first = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase());
    if first && text.len() <= 63 && text.bytes().all(known) {
        Ok(())
    } else {
        Err(ParamNameError)
    }
}

/// A name that no parameter has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("has 1 to 63 of a-z, 0-9 and `_`, and starts with a letter")]
pub struct ParamNameError;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn values_are_given_or_default_and_everything_wrong_is_told_at_once() {
        let text = "name = \"a\"\nkind = \"batch\"\n[params]\nlevel = { type = \"string\", default = \"error\" }\n\
             top = { type = \"integer\", default = 10 }\nday = { type = \"string\" }\n[input.file]\npath = \"${param.day}.log\"\n\
             [output.stdout]\n";
        let pipeline = crate::pipeline::parse(text).unwrap();
        let alone = |name: &str| {
            let given = [("day", "monday"), (name, "1")];
            let given = given.map(|(key, value)| (key.to_owned(), value.to_owned()));
            let wrong = pipeline.params(&given.into()).err().unwrap_or_default();
            wrong.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(alone("top"), [""; 0]);
        assert_eq!(
            alone("tip"),
            ["a has no parameter `tip`; it has day, level, top"]
        );
        let batch = pipeline.batch.clone().unwrap();
        let given = |pairs: &[(&str, &str)]| {
            let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            batch.resolve("a", &pairs.iter().map(own).collect())
        };
        let values = given(&[("day", "monday"), ("top", "-3")]).unwrap();
        assert_eq!(values["level"], ParamValue::Text("error".to_owned()));
        assert_eq!(values["top"], ParamValue::Integer(-3));
        let json = serde_json::to_string(&values).unwrap();
        assert_eq!(json, r#"{"day":"monday","level":"error","top":-3}"#);
        assert_eq!(serde_json::from_str::<Params>(&json).unwrap(), values);
        let wrong = given(&[("top", "many")]).unwrap_err();
        let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        assert_eq!(
            wrong,
            [
                "a needs the parameter `day` (a string): write `--param day=...`",
                "parameter `top` of a is a whole number, and `many` is not",
            ]
        );
    }

    #[test]
    fn numbers_and_booleans_are_what_they_are() {
        assert_eq!(
            ParamKind::Boolean.read("true"),
            Some(ParamValue::Boolean(true))
        );
        assert_eq!(ParamKind::Boolean.read("yes"), None);
        assert_eq!(ParamKind::Number.read("0.5").unwrap().to_string(), "0.5");
        assert_eq!(ParamKind::Number.read("NaN"), None);
        assert_eq!(ParamKind::Integer.read("1.5"), None);
        assert!(check_param_name("day_2").is_ok());
        for bad in ["", "2day", "Day", "a-b", "_a"] {
            assert!(check_param_name(bad).is_err(), "{bad}");
        }
    }
}
