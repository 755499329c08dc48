//! The pipeline document: one input, stages, one output.
//!
//! The types here are checked: whoever holds a [`Pipeline`] holds one that may run.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value as Json;

use crate::{CommandName, JobName, OnLost, StageName, World};

mod batch;
mod content;
mod parse;
mod plugin_ref;
mod problems;
mod rollout;
mod schema;
mod template;

pub use batch::{
    Batch, PARAM_BYTES_MAX, PARAMS_MAX, PRIORITY_MAX, Param, ParamError, ParamKind, ParamNameError,
    ParamValue, Params, RETRIES_MAX, check_param_name,
};
pub use content::{content_of, is_batch};
pub use parse::values::{DurationError, SizeError, parse_duration, parse_size};
pub use parse::{Checked, PluginUse, check, parse};
pub use plugin_ref::{PluginRef, PluginRefError};
pub use problems::{Problem, ProblemReport, Problems};
pub use rollout::{MaxParallel, ROLLOUT_NODES_MIN, Rollout};
pub use schema::json_schema;
pub use template::{Template, TemplateContext, TemplateError, TemplateScope, Variable};

/// Longest pipeline file, in bytes: a row and its text must fit a frame many times over.
pub const PIPELINE_BYTES_MAX: usize = 256 * 1024;

/// Most replicas of one job: each is listed by itself, and a job for more machines than that is a daemon.
pub const REPLICAS_MAX: u32 = 1_000;

/// A checked pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// The job's name.
    pub name: JobName,
    /// How it is placed.
    pub kind: Kind,
    /// What becomes of an execution whose node is lost.
    pub on_lost: OnLost,
    /// Which nodes; empty means every node.
    pub select: Select,
    /// How a new version reaches the nodes; `None` = as [`Rollout::for_nodes`] says.
    pub rollout: Option<Rollout>,
    /// What holds for the tasks of kind `batch`; there if and only if it is that kind.
    pub batch: Option<Batch>,
    /// Where records come from.
    pub input: Input,
    /// What happens to them, in order; may be empty.
    pub stages: Vec<Stage>,
    /// Where they go.
    pub output: Output,
}

impl Pipeline {
    /// Each stage's plugin, in order; one plugin may serve several stages.
    pub fn plugins(&self) -> impl Iterator<Item = (&StageName, &PluginRef)> {
        self.stages.iter().map(|stage| (&stage.name, &stage.plugin))
    }

    /// The parameters of a launch of this job alone: what is given, and else the defaults. Everything that is wrong is
    /// reported, names that it does not declare too; a job that is not a batch declares none.
    pub fn params(&self, given: &BTreeMap<String, String>) -> Result<Params, Vec<ParamError>> {
        let job = self.name.as_str();
        let mut wrong = Vec::new();
        let (values, declared) = match &self.batch {
            Some(batch) => (batch.resolve(job, given), Some(&batch.params)),
            None => (Ok(Params::new()), None),
        };
        let is_known = |name: &str| declared.is_some_and(|known| known.contains_key(name));
        let known: Vec<&str> = declared
            .iter()
            .flat_map(|known| known.keys().map(String::as_str))
            .collect();
        let known = (!known.is_empty()).then(|| known.join(", "));
        for name in given.keys().filter(|name| !is_known(name)) {
            wrong.push(ParamError::Unknown {
                job: job.to_owned(),
                name: name.clone(),
                known: known.clone(),
            });
        }
        match values {
            Ok(values) if wrong.is_empty() => Ok(values),
            Ok(_) => Err(wrong),
            Err(mut problems) => {
                problems.append(&mut wrong);
                Err(problems)
            }
        }
    }

    /// The stage whose report would never come, because the input never ends; `None` when all is well, as far as the worlds
    /// of the stages are known.
    pub fn endless_report(&self) -> Option<&Stage> {
        if self.input.ends() {
            return None;
        }
        self.stages
            .iter()
            .find(|stage| stage.world == Some(World::Report))
    }

    /// Whether it reads what a launch, or a person's terminal, brings.
    pub fn reads_stdin(&self) -> bool {
        matches!(self.input, Input::Stdin)
    }

    /// Why the pipeline runs only where a person started it, in `dev` and `pipeline run`; `None` when any edge can.
    pub fn local_only(&self) -> Option<&'static str> {
        (self.reads_stdin() && self.batch.is_none()).then_some(
            "`[input.stdin]` reads what `sluice dev` or `sluice pipeline run` was given, or what the launch of a job with \
             `kind = \"batch\"` brings; this job is never launched",
        )
    }
}

/// How a job is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One execution on every matching node.
    Daemon,
    /// One execution on each of `count` matching nodes.
    Replicas {
        /// How many: 1 to [`REPLICAS_MAX`].
        count: u32,
    },
    /// Nothing by itself: each launch makes executions on `count` matching nodes, which run to an end.
    Batch {
        /// How many: 1 to [`REPLICAS_MAX`].
        count: u32,
    },
}

impl Kind {
    /// What becomes of a lost node's execution when the pipeline does not say.
    /// What may run a second time does.
    pub fn on_lost_default(self, batch: Option<&Batch>) -> OnLost {
        match self {
            Self::Daemon => OnLost::Wait,
            Self::Replicas { .. } => OnLost::Replace,
            Self::Batch { .. } if batch.is_some_and(|batch| batch.idempotent) => OnLost::Replace,
            Self::Batch { .. } => OnLost::Fail,
        }
    }
}

/// Which nodes a job wants: every key must match one of its values. The key `node` stands for the node's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Select(pub BTreeMap<String, Vec<String>>);

impl Select {
    /// Whether a node with this name and these labels matches.
    pub fn matches(&self, name: &crate::NodeName, labels: &crate::Labels) -> bool {
        self.0.iter().all(|(key, wanted)| {
            let value = if key == "node" {
                Some(name.as_str())
            } else {
                labels.get(key).map(String::as_str)
            };
            value.is_some_and(|value| wanted.iter().any(|want| want == value))
        })
    }
}

/// One input.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Makes records from a template.
    Generate(GenerateInput),
    /// Reads a file's lines from its start to its end.
    File(FileInput),
    /// Reads lines of what a launch brings; in `dev` and `pipeline run` of the process's standard input.
    Stdin,
    /// Runs a command that the edge's owner listed, and reads the lines that it prints.
    Exec(ExecInput),
}

impl Input {
    /// Whether it comes to an end by itself.
    pub fn ends(&self) -> bool {
        match self {
            Self::Generate(generate) => generate.count.is_some(),
            Self::File(_) | Self::Stdin | Self::Exec(_) => true,
        }
    }
}

/// Settings of `[input.generate]`.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateInput {
    /// Time between records; `None` goes as fast as it can.
    pub interval: Option<Duration>,
    /// How many records; `None` never ends.
    pub count: Option<u64>,
    /// One record's text.
    pub template: Template,
}

/// Settings of `[input.file]`.
#[derive(Clone, Debug, PartialEq)]
pub struct FileInput {
    /// A path on the edge, inside what its owner allowed.
    pub path: Template,
}

/// Settings of `[input.exec]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecInput {
    /// Which of the edge's commands; what it runs is the edge owner's to say.
    pub command: CommandName,
    /// How long it may run; then it is killed.
    pub deadline: Duration,
}

/// One output.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// The process's standard output in `dev` and `pipeline run`, else the execution's log.
    Stdout(StdoutOutput),
    /// Appends to a file.
    File(FileOutput),
    /// Counts and forgets.
    Discard,
}

/// Settings of `[output.stdout]`.
#[derive(Clone, Debug, PartialEq)]
pub struct StdoutOutput {
    /// How records are written.
    pub codec: Codec,
}

/// Settings of `[output.file]`.
#[derive(Clone, Debug, PartialEq)]
pub struct FileOutput {
    /// A path on the edge, inside what its owner allowed.
    pub path: Template,
    /// How records are written.
    pub codec: Codec,
}

/// How records become bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// Each record and a newline.
    #[default]
    Lines,
}

/// One stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Unique within the pipeline.
    pub name: StageName,
    /// Which component.
    pub plugin: PluginRef,
    /// A JSON object, `{}` when absent, with its variables as written: [`Stage::render_config`] fills them in.
    pub config: Json,
    /// What a call may use.
    pub limits: Limits,
    /// What its component is made for; `None` until somebody looked into it, since the text does not say.
    pub world: Option<World>,
}

/// What to say of a stage whose report would never come.
pub const ENDLESS_REPORT: &str =
    "its plugin reports when the input has ended, and this input never does";
/// The way out of that.
pub const ENDLESS_REPORT_HELP: &str =
    "give `[input.generate]` a `count`, or read an input with an end: file, exec, stdin";

impl Stage {
    /// The settings to hand to the component: `config` with the variables in its strings filled in.
    pub fn render_config(&self, context: &TemplateContext<'_>) -> Result<Json, TemplateError> {
        rendered(&self.config, context)
    }
}

fn rendered(value: &Json, context: &TemplateContext<'_>) -> Result<Json, TemplateError> {
    Ok(match value {
        Json::String(text) => {
            let template = Template::parse(text, TemplateScope::Setting)?;
            // A parameter that is all of the text keeps its type.
            match template
                .lone_param()
                .and_then(|name| context.params.get(name))
            {
                Some(value) => value.to_json(),
                None => Json::String(template.render(context)?),
            }
        }
        Json::Array(list) => Json::Array(
            list.iter()
                .map(|value| rendered(value, context))
                .collect::<Result<_, _>>()?,
        ),
        Json::Object(map) => {
            let pair =
                |(key, value): (&String, &Json)| Ok((key.clone(), rendered(value, context)?));
            Json::Object(map.iter().map(pair).collect::<Result<_, _>>()?)
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => value.clone(),
    })
}

/// What one stage's calls may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory summed over the stage, in bytes.
    pub memory_bytes_max: u64,
    /// CPU time of one call.
    pub deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 64 << 20,
            deadline: Duration::from_secs(1),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_standard_input_that_no_launch_brings_ties_a_pipeline_to_its_terminal() {
        let local_only = |input: &str| {
            let text = format!("name = \"a\"\n[input.{input}]\npath = \"x\"\n[output.stdout]\n");
            let text = if input == "stdin" {
                text.replace("path = \"x\"\n", "")
            } else {
                text
            };
            parse(&text).unwrap().local_only()
        };
        assert!(local_only("stdin").is_some_and(|reason| reason.contains("[input.stdin]")));
        assert_eq!(local_only("file"), None);
        let launched = "name = \"a\"\nkind = \"batch\"\n[input.stdin]\n[output.stdout]\n";
        let launched = parse(launched).unwrap();
        assert_eq!(
            (launched.local_only(), launched.reads_stdin()),
            (None, true)
        );
    }

    #[test]
    fn a_report_needs_an_input_that_ends() {
        let text = |count: &str| {
            format!(
                "name = \"a\"\n[input.generate]\ntemplate = \"x\"\n{count}\n[[stage]]\nname = \"sum\"\nplugin = \"s.wasm\"\n[output.stdout]\n"
            )
        };
        let mut endless = parse(&text("")).unwrap();
        assert_eq!(endless.endless_report(), None, "nobody looked into it");
        endless.stages[0].world = Some(World::Transform);
        assert_eq!(endless.endless_report(), None);
        endless.stages[0].world = Some(World::Report);
        assert_eq!(endless.endless_report().unwrap().name.as_str(), "sum");
        let mut ending = parse(&text("count = 3")).unwrap();
        ending.stages[0].world = Some(World::Report);
        assert_eq!(ending.endless_report(), None);
    }

    #[test]
    fn every_key_of_a_selector_must_match_one_of_its_values() {
        let node = "e1".parse().unwrap();
        let labels =
            crate::Labels::from([("site".into(), "a".into()), ("line".into(), "3".into())]);
        let matches = |wanted: &[(&str, &[&str])]| {
            let pair = |(key, values): &(&str, &[&str])| {
                (
                    (*key).to_owned(),
                    values.iter().map(|value| (*value).to_owned()).collect(),
                )
            };
            Select(wanted.iter().map(pair).collect()).matches(&node, &labels)
        };
        assert!(matches(&[]));
        assert!(matches(&[("site", &["b", "a"])]));
        assert!(matches(&[("site", &["a"]), ("node", &["e2", "e1"])]));
        assert!(!matches(&[("site", &["a"]), ("node", &["e2"])]));
        assert!(!matches(&[("zone", &["a"])]));
    }
}
