//! `sluice run`: launches of batch jobs.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_api::{Run, RunFilter, RunLaunch, routes};
use sluice_model::{RunId, RunState, TaskState};
use tokio::time::Instant;

use crate::args::{Format, RunLaunchArgs};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::render;

/// Time between two looks while waiting.
const LOOK_INTERVAL: Duration = Duration::from_millis(150);

/// How often a launch is sent again when no answer came: its key makes it the same run.
const SENDS_MAX: u32 = 5;

/// Launches, prints the run's id, and waits for its end when that is asked for.
pub(super) async fn launch(client: &Client, out: &Out, args: RunLaunchArgs) -> Result<(), Failure> {
    let mut params = BTreeMap::new();
    for (name, value) in args.params {
        if params.insert(name.clone(), value).is_some() {
            return Err(Failure::invalid(format!("--param {name} is there twice")));
        }
    }
    let request = RunLaunch {
        jobs: args.jobs,
        params,
        nodes: args.nodes,
    };
    let key = match args.key {
        Some(key) => key,
        None => new_key()?,
    };
    let run = send(client, &request, &key).await?;
    let run = match args.wait {
        None => run,
        Some(wait) => {
            if out.format == Format::Table {
                // At once: whoever is cut off while waiting knows what to ask for.
                out.show(&run, |_| format!("{}\n", run.id))?;
            }
            return waited(client, out, run.id, wait).await;
        }
    };
    out.show(&run, |_| format!("{}\n", run.id))
}

async fn send(client: &Client, request: &RunLaunch, key: &str) -> Result<Run, Failure> {
    let mut sent = 1;
    loop {
        match client.post_json_keyed(routes::RUNS, request, key).await {
            Err(failure) if failure.exit == Exit::Unreachable && sent < SENDS_MAX => {
                sent += 1;
                tokio::time::sleep(LOOK_INTERVAL * sent).await;
            }
            answered => return answered,
        }
    }
}

fn new_key() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("this machine gives no random numbers: {error}"),
        )
    })?;
    Ok(RunId::from_random(bytes).to_string())
}

async fn waited(client: &Client, out: &Out, id: RunId, wait: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + wait;
    let spinner = out.spinner(&format!("waiting for run {id}"));
    let mut last: Option<Run> = None;
    let result = loop {
        match client.get::<Run>(&path(routes::RUN, id)).await {
            Ok(run) => {
                let state = run.state;
                last = Some(run);
                match state {
                    RunState::Pending | RunState::Running => {}
                    RunState::Completed => break Ok(()),
                    RunState::Failed | RunState::Cancelled | RunState::TimedOut => {
                        let failure = Failure::new(Exit::Failed, format!("run {id} is {state}"));
                        break Err(failure
                            .with_detail(last.as_ref().map(lines).unwrap_or_default())
                            .with_help(format!(
                                "`sluice run describe {id}` tells it task by task"
                            )));
                    }
                }
            }
            // It may be restarting; the launch is durable.
            Err(failure) if failure.exit == Exit::Unreachable => {}
            Err(failure) => break Err(failure),
        }
        if Instant::now() + LOOK_INTERVAL > deadline {
            let message = format!("run {id} has not ended within {wait:?}; it goes on");
            break Err(Failure::new(Exit::TimedOut, message)
                .with_detail(last.as_ref().map(lines).unwrap_or_default())
                .with_help(format!("`sluice run describe {id}` says what it waits for")));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    };
    spinner.finish_and_clear();
    if let Some(run) = &last
        && out.format == Format::Json
    {
        out.show(run, |_| String::new())?;
    }
    result
}

/// What of a run is not done, a line for each task.
fn lines(run: &Run) -> String {
    let open = run
        .tasks
        .iter()
        .filter(|task| task.state != TaskState::Completed);
    let lines: Vec<String> = open.map(render::run_task_line).collect();
    lines.join("\n")
}

pub(super) async fn list(client: &Client, out: &Out, filter: &RunFilter) -> Result<(), Failure> {
    let runs: Vec<Run> = client.get_with(routes::RUNS, filter).await?;
    if runs.is_empty() && out.format == Format::Table {
        out.say("no run");
        return Ok(());
    }
    out.show(&runs, |style| render::runs(style, &runs))
}

pub(super) async fn describe(client: &Client, out: &Out, id: RunId) -> Result<(), Failure> {
    let run: Run = client.get(&path(routes::RUN, id)).await?;
    out.show(&run, |style| render::run_detail(style, &run))
}

pub(super) async fn cancel(client: &Client, out: &Out, id: RunId) -> Result<(), Failure> {
    let run: Run = client.post(&path(routes::RUN_CANCEL, id)).await?;
    out.show(&run, |_| {
        format!("run {id} is called off, it is {}\n", run.state)
    })
}

fn path(template: &str, id: RunId) -> String {
    routes::fill(template, &[&id.to_string()])
}
