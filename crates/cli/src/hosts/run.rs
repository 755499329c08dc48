//! `sluice pipeline run`: one pipeline in this process, with no cluster at all.

use std::collections::BTreeMap;

use sluice_doctor::with_causes;
use sluice_edge_runtime::runner::{
    AllowedCommands, AllowedPaths, End, ExecutionPlan, PrepareError, RunnerContext, RunnerOptions,
    run_local,
};
use sluice_model::pipeline::Params;
use sluice_model::{Attempt, Digest, ExecutionId, Labels, NodeName, Version};

use super::{console, ended_early, params, stop_on_signals, temporary_dir, working_directory};
use crate::args::LogFormat;
use crate::failure::{Exit, Failure};
use crate::logging::{self, Reader};
use crate::out::Out;
use crate::pipeline_file::PipelineFile;

/// Runs until the pipeline ends or a signal comes. Nothing is kept.
pub(crate) async fn run_pipeline(
    file: PipelineFile,
    given: &BTreeMap<String, String>,
    commands: AllowedCommands,
    out: &Out,
) -> Result<(), Failure> {
    let params = params(&file.pipeline, given)?;
    logging::start(LogFormat::Human, Reader::Author)?;
    let stop = stop_on_signals()?;
    let dir = temporary_dir()?;
    let name = file.pipeline.name.clone();
    let plan = plan(file, params, dir.path())?;
    let allowed = AllowedPaths::new([working_directory()?]).map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("cannot use the working directory: {error}"),
        )
    })?;
    let options = RunnerOptions {
        cache_dir: dir.path().join("cache"),
        allowed,
        commands,
        console: Some(console()),
        hostname: sluice_edge_runtime::hostname(),
    };
    let context = tokio::task::spawn_blocking(move || RunnerContext::open(options))
        .await
        .map_err(ended_early)?
        .map_err(|error| Failure::new(Exit::Failed, with_causes(&error)))?;
    let (end, counters) = run_local(&context, plan, stop)
        .await
        .map_err(not_prepared)?;
    out.say(&format!(
        "{name}: {} records in, {} out, {} dead letters",
        counters.records_in, counters.records_out, counters.dead_letters
    ));
    ended(end)
}

fn plan(
    file: PipelineFile,
    params: Params,
    dir: &std::path::Path,
) -> Result<ExecutionPlan, Failure> {
    let mut components = Vec::new();
    for plugin in &file.plugins {
        let Some(component) = &plugin.file else {
            return Err(Failure::invalid(format!(
                "stage `{}` names its plugin by {}, and there is no orchestrator here to get it from",
                plugin.stage, plugin.digest
            ))
            .with_help("name the component's file in `plugin`"));
        };
        components.push((plugin.digest, component.path.clone()));
    }
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("this machine gives no random numbers: {error}"),
        )
    })?;
    let node: NodeName = "local".parse().expect("a good name");
    Ok(ExecutionPlan {
        execution: ExecutionId::from_random(id),
        version: Version(1),
        attempt: Attempt(1),
        content: Digest::of(file.text.as_bytes()),
        job: file.pipeline.name.clone(),
        node,
        labels: Labels::new(),
        stdin: None,
        params,
        pipeline: file.pipeline,
        components,
        state_dir: dir.join("execution"),
    })
}

fn not_prepared(error: PrepareError) -> Failure {
    let exit = match error {
        PrepareError::Configure { .. } => Exit::Invalid,
        PrepareError::Refused { .. }
        | PrepareError::Retry { .. }
        | PrepareError::Corrupt { .. } => Exit::Failed,
    };
    Failure::new(exit, with_causes(&error))
}

fn ended(end: End) -> Result<(), Failure> {
    match end {
        End::Completed | End::Stopped | End::Cut => Ok(()),
        End::Failed { reason, message } => Err(Failure::new(
            Exit::Failed,
            format!("the pipeline failed ({reason}): {message}"),
        )),
        End::Backoff { message } => Err(Failure::new(Exit::Failed, message)
            .with_help("an edge would try this again and again; here it ends")),
        End::Crashed { message } => Err(Failure::new(
            Exit::Failed,
            format!("the runner crashed: {message}"),
        )),
    }
}
