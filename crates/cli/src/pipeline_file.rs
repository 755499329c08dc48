//! A pipeline file and its plugins, read and checked here before anything is sent or run.
//!
//! `model` checks the text; this adds what needs the disk: whether each plugin's file is there, is a component, is a
//! stage, and imports only what is linked. Either way every problem is reported at once, with its place in the file.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use sluice_component::{
    COMPONENT_BYTES_MAX, GrantSet, ImportProblem, InspectError, Inspection, check_imports,
    check_stage, inspect,
};
use sluice_model::pipeline::{
    self, ENDLESS_REPORT, ENDLESS_REPORT_HELP, PIPELINE_BYTES_MAX, Pipeline, PluginRef, PluginUse,
    Problem, Problems,
};
use sluice_model::{Digest, StageName, World};

use crate::failure::Failure;

/// The way out where there is no pipeline to read.
const NO_PIPELINE: &str = "name a pipeline file: TOML with an input and an output, such as pipelines/heartbeat/pipeline.toml; \
                           `sluice plugin inspect` looks into components";

/// A pipeline that may be deployed or run, as far as can be told here.
#[derive(Debug)]
pub(crate) struct PipelineFile {
    pub(crate) text: String,
    pub(crate) pipeline: Pipeline,
    /// One for each stage, in order.
    pub(crate) plugins: Vec<StagePlugin>,
}

/// What a stage runs.
#[derive(Clone, Debug)]
pub(crate) struct StagePlugin {
    pub(crate) stage: StageName,
    pub(crate) digest: Digest,
    /// The file; `None` when the pipeline names the digest itself.
    pub(crate) file: Option<ComponentFile>,
}

/// A component that was read and may be a stage.
#[derive(Clone, Debug)]
pub(crate) struct ComponentFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Arc<Vec<u8>>,
    /// What it is made for.
    pub(crate) world: World,
}

/// Why a pipeline file cannot be used.
#[derive(Debug)]
pub(crate) enum CheckError {
    /// It cannot be read at all.
    Unreadable(Failure),
    /// It says something wrong.
    Problems {
        name: String,
        text: String,
        problems: Problems,
    },
}

impl CheckError {
    /// For people: every problem with its picture.
    pub(crate) fn into_failure(self, color: bool) -> Failure {
        match self {
            Self::Unreadable(failure) => failure,
            Self::Problems {
                name,
                text,
                problems,
            } => {
                let count = problems.count();
                let s = if count == 1 { "" } else { "s" };
                Failure::invalid(format!("{name} has {count} problem{s}"))
                    .with_detail(problems.render(&name, &text, color))
            }
        }
    }
}

/// Reads and checks the pipeline file at `path` and the plugins that it names. Blocking.
pub(crate) fn check(path: &Path) -> Result<PipelineFile, CheckError> {
    let text = read_text(path).map_err(CheckError::Unreadable)?;
    let name = path.display().to_string();
    let checked = pipeline::check(&text);
    let dir = path.parent().unwrap_or(Path::new(""));
    let mut read = BTreeMap::new();
    let mut plugins = Vec::new();
    let mut problems = checked.problems;
    let mut pipeline = checked.pipeline;
    for at in checked.plugins {
        match stage_plugin(&at.plugin, dir, &mut read) {
            Ok((digest, file)) => {
                let endless = match (&mut pipeline, &file) {
                    (Some(pipeline), Some(file)) => never_reports(pipeline, &at, file.world),
                    _ => None,
                };
                problems.extend(endless);
                plugins.extend(at.stage.map(|stage| StagePlugin {
                    stage,
                    digest,
                    file,
                }));
            }
            Err(found) => problems.extend(found.into_iter().map(|problem| Problem {
                span: at.span.clone(),
                message: match &at.stage {
                    Some(stage) => format!("stage `{stage}`: {}", problem.message),
                    None => problem.message,
                },
                label: String::new(),
                help: problem.help,
            })),
        }
    }
    match (Problems::of(problems), pipeline) {
        (None, Some(pipeline)) => Ok(PipelineFile {
            text,
            pipeline,
            plugins,
        }),
        (Some(problems), _) => Err(CheckError::Problems {
            name,
            text,
            problems,
        }),
        (None, None) => unreachable!("a text without a problem is a pipeline"),
    }
}

/// Notes what a stage's component is made for; the problem, if its report would never come.
fn never_reports(pipeline: &mut Pipeline, at: &PluginUse, world: World) -> Option<Problem> {
    let name = at.stage.as_ref()?;
    let stage = pipeline.stages.iter_mut().find(|it| it.name == *name)?;
    stage.world = Some(world);
    (world == World::Report && !pipeline.input.ends()).then(|| Problem {
        span: at.span.clone(),
        message: format!("stage `{name}`: {ENDLESS_REPORT}"),
        label: String::new(),
        help: Some(ENDLESS_REPORT_HELP.to_owned()),
    })
}

/// The digest of what a stage runs, with its file if it names one. A file that several stages name is read once.
fn stage_plugin(
    plugin: &PluginRef,
    dir: &Path,
    read: &mut BTreeMap<PathBuf, Result<ComponentFile, Vec<PluginProblem>>>,
) -> Result<(Digest, Option<ComponentFile>), Vec<PluginProblem>> {
    match plugin {
        PluginRef::Path(path) => {
            let path = dir.join(path);
            let file = read
                .entry(path.clone())
                .or_insert_with(|| read_component(&path));
            file.clone()
                .map(|file| (Digest::of(&file.bytes), Some(file)))
        }
        PluginRef::Digest(digest) => Ok((*digest, None)),
        PluginRef::Named { .. } => Err(vec![PluginProblem {
            message: "plugins by `name@version` are not in this version".to_owned(),
            help: Some("name the component's file, or its `sha256:...`, which `sluice plugin inspect FILE` shows".to_owned()),
        }]),
    }
}

fn read_text(path: &Path) -> Result<String, Failure> {
    let failed = |problem: &dyn std::fmt::Display| {
        Failure::invalid(format!(
            "cannot read the pipeline file {}: {problem}",
            path.display()
        ))
        .with_help(NO_PIPELINE)
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        // One byte over the bound is enough to know.
        .and_then(|file| {
            file.take(PIPELINE_BYTES_MAX as u64 + 1)
                .read_to_end(&mut bytes)
        })
        .map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        failed(&format!("it is not UTF-8 text (byte {offset})"))
    })
}

/// What is wrong with one plugin.
#[derive(Clone, Debug)]
struct PluginProblem {
    message: String,
    help: Option<String>,
}

/// A path as people write it: without `.`, and without a directory that `..` leaves at once. For showing only, since a
/// link may lead elsewhere.
fn tidied(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for part in path.components() {
        let leaves = part == Component::ParentDir
            && matches!(tidied.components().next_back(), Some(Component::Normal(_)));
        if leaves {
            tidied.pop();
        } else if part != Component::CurDir {
            tidied.push(part);
        }
    }
    tidied
}

fn read_component(path: &Path) -> Result<ComponentFile, Vec<PluginProblem>> {
    let tidied = tidied(path);
    let shown = tidied.display();
    let bytes = read_bytes(path).map_err(|error| {
        vec![PluginProblem {
            message: format!("the plugin file {shown} cannot be read: {error}"),
            help: Some(
                "build the plugin, or correct the path: it is relative to the pipeline file"
                    .to_owned(),
            ),
        }]
    })?;
    let inspection = inspect(&bytes).map_err(|error| {
        vec![PluginProblem {
            message: format!("the plugin file {shown} is not a component: {error}"),
            help: not_a_component(path, &error),
        }]
    })?;
    match (stage_problems(&inspection), inspection.world()) {
        (problems, Some(world)) if problems.is_empty() => Ok(ComponentFile {
            path: tidied,
            bytes: Arc::new(bytes),
            world,
        }),
        (problems, _) => Err(problems
            .into_iter()
            .map(|problem| PluginProblem {
                message: format!("{shown}: {}", problem.message),
                help: problem.help,
            })
            .collect()),
    }
}

fn stage_problems(inspection: &Inspection) -> Vec<PluginProblem> {
    let stage = check_stage(inspection)
        .err()
        .into_iter()
        .map(|problem| PluginProblem {
            message: problem.to_string(),
            help: None,
        });
    let imports = check_imports(inspection, &GrantSet::none())
        .err()
        .unwrap_or_default();
    stage.chain(import_problems(&imports)).collect()
}

/// One problem for each import that nothing answers; what one line would grant comes as one.
fn import_problems(imports: &[ImportProblem]) -> Vec<PluginProblem> {
    let mut problems: Vec<(Option<&str>, PluginProblem)> = Vec::new();
    for import in imports {
        let line = import.grant_line();
        let known = problems
            .iter_mut()
            .find(|(known, _)| line.is_some() && *known == line);
        match known {
            Some((_, problem)) => {
                let name = import.import();
                problem.help = Some(match problem.help.take() {
                    None => format!("the same goes for `{name}`"),
                    Some(help) => format!("{help}, `{name}`"),
                });
            }
            None => problems.push((
                line,
                PluginProblem {
                    message: import.to_string(),
                    help: None,
                },
            )),
        }
    }
    problems.into_iter().map(|(_, problem)| problem).collect()
}

/// Why a deploy would refuse a component, in words.
pub(crate) fn refusals(inspection: &Inspection) -> Vec<String> {
    stage_problems(inspection)
        .into_iter()
        .map(|problem| match problem.help {
            Some(help) => format!("{}; {help}", problem.message),
            None => problem.message,
        })
        .collect()
}

/// The way out for a file that is no component, where the error does not say it.
pub(crate) fn not_a_component(path: &Path, error: &InspectError) -> Option<String> {
    match error {
        InspectError::NotWasm { .. } if path.extension().is_some_and(|it| it == "toml") => {
            let file = path.display();
            Some(format!("a pipeline is checked with `sluice pipeline validate {file}`; a component is the `.wasm` file that a plugin's build makes"))
        }
        InspectError::NotWasm { .. } => Some(
            "name the `.wasm` file that the plugin's build made; `scripts/build-plugins` leaves those of this repository in \
             plugins/dist/"
                .to_owned(),
        ),
        InspectError::TooLarge { .. }
        | InspectError::Empty
        | InspectError::CoreModule
        | InspectError::Invalid { .. } => None,
    }
}

/// Reads a component's file, but not one that is too large to be one.
pub(crate) fn read_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    let facts = file.metadata()?;
    if facts.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    if facts.len() > COMPONENT_BYTES_MAX as u64 {
        return Err(std::io::Error::other(format!(
            "it has {} bytes, and a component may have {COMPONENT_BYTES_MAX} (64 MiB)",
            facts.len()
        )));
    }
    let mut bytes = Vec::new();
    file.take(COMPONENT_BYTES_MAX as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
