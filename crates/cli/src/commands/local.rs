//! Commands that need no orchestrator: look into files, check them, run them.

use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;
use serde::Serialize;
use sluice_edge_runtime::args::CommandArgs;
use sluice_model::Digest;
use sluice_model::pipeline::{ProblemReport, json_schema};

use crate::args::{Args, Format, ParamArgs};
use crate::failure::{Exit, Failure};
use crate::hosts;
use crate::out::Out;
use crate::pipeline_file::{self, CheckError};
use crate::render::{self, Inspected};

pub(super) fn inspect(file: &Path, out: &Out) -> Result<(), Failure> {
    let shown = file.display();
    let bytes = pipeline_file::read_bytes(file).map_err(|error| {
        Failure::invalid(format!("cannot read {shown}: {error}"))
            .with_help("name a component's file, such as plugins/dist/sshd_auth.wasm; `scripts/build-plugins` makes it")
    })?;
    let found = sluice_component::inspect(&bytes).map_err(|error| {
        let failure = Failure::invalid(format!("{shown} is not a component: {error}"));
        match pipeline_file::not_a_component(file, &error) {
            Some(help) => failure.with_help(help),
            None => failure,
        }
    })?;
    let inspected = Inspected {
        digest: Digest::of(&bytes),
        size: bytes.len() as u64,
        stage: found.stage_version().map(str::to_owned),
        world: found.world().map(|world| world.to_string()),
        imports: found
            .imports
            .iter()
            .map(|import| import.name.clone())
            .collect(),
        exports: found
            .exports
            .iter()
            .map(|export| export.name.clone())
            .collect(),
        memory_bytes_min: found.core.memory_bytes_min,
        functions: u64::from(found.core.functions),
        problems: pipeline_file::refusals(&found),
    };
    out.show(&inspected, |_| render::inspected(&inspected))
}

#[derive(Serialize)]
struct Validation {
    file: String,
    valid: bool,
    problems: Vec<ProblemReport>,
}

pub(super) fn validate(file: &Path, out: &Out) -> Result<(), Failure> {
    let name = file.display().to_string();
    let (text, problems) = match pipeline_file::check(file) {
        Ok(checked) => {
            let validation = Validation {
                file: name,
                valid: true,
                problems: Vec::new(),
            };
            return out.show(&validation, |_| {
                format!(
                    "{} is valid: {}, {} stage(s)\n",
                    validation.file,
                    checked.pipeline.name,
                    checked.pipeline.stages.len()
                )
            });
        }
        Err(CheckError::Problems { text, problems, .. }) if out.format == Format::Json => {
            (text, problems)
        }
        Err(error) => return Err(error.into_failure(out.color_err)),
    };
    out.json(&Validation {
        file: name,
        valid: false,
        problems: problems.reports(&text),
    })?;
    // Everything was said on standard output.
    Err(Failure::invalid(""))
}

pub(super) fn schema(out: &Out) -> Result<(), Failure> {
    out.json(&json_schema())
}

pub(super) async fn run(
    file: &Path,
    params: ParamArgs,
    commands: CommandArgs,
    out: &Out,
) -> Result<(), Failure> {
    let params = super::params_of(params.params)?;
    let commands = hosts::allowed_commands(commands)?;
    let path = file.to_owned();
    let checked = tokio::task::spawn_blocking(move || pipeline_file::check(&path))
        .await
        .map_err(|error| Failure::new(Exit::Failed, "the check ended early").with_detail(error))?
        .map_err(|error| error.into_failure(out.color_err))?;
    hosts::run_pipeline(checked, &params, commands, out).await
}

pub(super) fn completions(shell: Shell, out: &Out) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "sluice", &mut script);
    out.text(&String::from_utf8_lossy(&script))
}
