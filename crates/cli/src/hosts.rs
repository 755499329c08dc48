//! Commands that stay: the orchestrator, an edge, both in one process, and a pipeline without either.
//!
//! The libraries own no process globals; tracing, signals and the standard streams are set up here.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluice_edge_runtime::runner::{Console, LogLevel, LogLine};
use sluice_model::pipeline::{Params, Pipeline};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::{Exit, Failure};
use crate::render;

mod dev;
mod edge;
mod orchestrator;
mod run;

pub(crate) use dev::dev;
pub(crate) use edge::{allowed_commands, edge};
pub(crate) use orchestrator::orchestrator;
pub(crate) use run::run_pipeline;

/// Cancelled at the first SIGINT or SIGTERM; the second ends the process at once.
fn stop_on_signals() -> Result<CancellationToken, Failure> {
    let failed = |error: io::Error| {
        Failure::new(Exit::Failed, format!("cannot listen for signals: {error}"))
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    // Lives as long as the process: whoever is asked to stop may still hang.
    tokio::spawn(async move {
        for is_first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            stopping.cancel();
            if !is_first {
                std::process::exit(Exit::Failed as i32);
            }
        }
    });
    Ok(stop)
}

/// The process's own streams for pipelines that run in front of a person.
fn console() -> Console {
    Console {
        stdin: Arc::new(|| Box::new(io::stdin())),
        stdout: Arc::new(|| Box::new(io::stdout())),
        log: Arc::new(log),
    }
}

/// A line of an execution's log, as an event of ours.
fn log(line: &LogLine) {
    let mut text = render::clean(&line.message);
    if let Some(stage) = &line.stage {
        text = format!("{stage}: {text}");
    }
    match line.level {
        // Records go to standard output.
        LogLevel::Record => {}
        LogLevel::Debug => tracing::debug!("{text}"),
        LogLevel::Info => tracing::info!("{text}"),
        LogLevel::Warn => tracing::warn!("{text}"),
        LogLevel::Error => tracing::error!("{text}"),
    }
}

/// The parameters of a pipeline that runs in front of a person: what `--param` gave, and the defaults.
fn params(pipeline: &Pipeline, given: &BTreeMap<String, String>) -> Result<Params, Failure> {
    pipeline.params(given).map_err(|wrong| {
        let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        let message = format!("{} has problems with its parameters", pipeline.name);
        Failure::invalid(message)
            .with_detail(lines.join("\n"))
            .with_help("`[params]` of a pipeline with `kind = \"batch\"` declares them; give each one a `default` there, or its value with `--param K=V`")
    })
}

/// What a failed blocking task comes to: a bug of ours.
fn ended_early(error: tokio::task::JoinError) -> Failure {
    Failure::new(Exit::Failed, "a part of the program ended early").with_detail(error)
}

/// A state directory that is not there yet is made; a file in its place is a slip of whoever named it.
fn no_file(state_dir: &Path) -> Result<(), Failure> {
    if state_dir.exists() && !state_dir.is_dir() {
        let message = format!("--state-dir {} is a file", state_dir.display());
        return Err(Failure::invalid(message)
            .with_help("name a directory, or a path where one can be made"));
    }
    Ok(())
}

/// A directory that goes away with the value.
fn temporary_dir() -> Result<tempfile::TempDir, Failure> {
    tempfile::Builder::new()
        .prefix("sluice-")
        .tempdir()
        .map_err(|error| {
            Failure::new(
                Exit::Failed,
                format!("cannot make a temporary directory: {error}"),
            )
            .with_help("free some space, or point TMPDIR to another place")
        })
}

/// The working directory, in which a pipeline that runs in front of a person may read and write.
fn working_directory() -> Result<PathBuf, Failure> {
    std::env::current_dir().map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("cannot tell the working directory: {error}"),
        )
    })
}
