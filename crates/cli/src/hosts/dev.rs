//! `sluice dev`: a real orchestrator and a real edge in this process, on free loopback ports, for one pipeline.
//!
//! Nothing is short-circuited: the edge joins with a token, the pipeline is uploaded and deployed over HTTPS, and the
//! assignment travels over QUIC. Only the standard streams are the process's own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use sluice_api::{
    DeployOutcome, Execution, JobDetail, Run, RunLaunch, TokenCreate, TokenCreated, routes,
};
use sluice_edge_runtime::runner::AllowedCommands;
use sluice_edge_runtime::{EdgeHandle, SHUTDOWN_WITHIN};
use sluice_host::{Orchestrator, OrchestratorConfig, OrchestratorHandle};
use sluice_model::pipeline::Pipeline;
use sluice_model::{ExecutionState, JobName, Labels, NodeName, RunState, Version};
use tokio_util::sync::CancellationToken;

use super::edge::{self, InProcess};
use super::{ended_early, no_file, params, stop_on_signals, temporary_dir};
use crate::args::DevArgs;
use crate::client::Client;
use crate::commands::{deploy_file, params_of};
use crate::context;
use crate::failure::{Exit, Failure};
use crate::logging::{self, Reader};
use crate::out::Out;
use crate::pipeline_file::{PipelineFile, check};
use crate::render;

/// Time between two looks at the job; a completed pipeline should end the program at once for a person.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Heartbeats within one process are cheap.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Runs the pipeline until it completes, fails, or a signal comes.
pub(crate) async fn dev(args: DevArgs, out: &Out) -> Result<(), Failure> {
    logging::start(args.log, Reader::Author)?;
    if let Some(dir) = &args.state_dir {
        no_file(dir)?;
    }
    let commands = edge::allowed_commands(args.commands)?;
    let path = args.pipeline;
    let file = tokio::task::spawn_blocking(move || check(&path))
        .await
        .map_err(ended_early)?
        .map_err(|error| error.into_failure(out.color_err))?;
    let given = params_of(args.params.params)?;
    // Before anything starts: a launch would say the same.
    params(&file.pipeline, &given)?;
    let work = Work {
        file,
        params: given,
        commands,
    };
    let stop = stop_on_signals()?;
    match args.state_dir {
        Some(dir) => both(&dir, work, out, &stop).await,
        None => {
            // Goes away when both have stopped.
            let dir = temporary_dir()?;
            both(dir.path(), work, out, &stop).await
        }
    }
}

/// What is run.
struct Work {
    file: PipelineFile,
    /// What the launch of a batch says.
    params: BTreeMap<String, String>,
    /// What `[input.exec]` may run.
    commands: AllowedCommands,
}

async fn both(dir: &Path, work: Work, out: &Out, stop: &CancellationToken) -> Result<(), Failure> {
    let mut orchestrator = start_orchestrator(dir).await?;
    let result = with_orchestrator(&mut orchestrator, dir, work, out, stop).await;
    orchestrator.shutdown().await;
    result
}

async fn start_orchestrator(dir: &Path) -> Result<OrchestratorHandle, Failure> {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = OrchestratorConfig::new(dir.join("orchestrator"));
    config.listen = loopback;
    config.api = loopback;
    config.heartbeat = HEARTBEAT;
    config.local_pipelines = true;
    Orchestrator::start(config)
        .await
        .map_err(super::orchestrator::not_started)
}

async fn with_orchestrator(
    orchestrator: &mut OrchestratorHandle,
    dir: &Path,
    work: Work,
    out: &Out,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let Work {
        file,
        params,
        commands,
    } = work;
    let (path, context) = context::find(Some(orchestrator.context_file()), None)?;
    let client = Client::open(path, context).await?;
    let node = DevNode::of(&file.pipeline)?;
    let mut edge = start_edge(&client, dir, node, commands).await?;
    let result = tokio::select! {
        result = run(&client, file, params, out) => result,
        // Asked to stop: the pipeline did not fail.
        () = stop.cancelled() => Ok(()),
        ended = edge.wait() => ended.map_err(|error| edge::not_running(&error)),
        problem = orchestrator.broken() => Err(Failure::new(
            Exit::Failed,
            format!("the orchestrator's store failed: {problem}"),
        )),
    };
    let stopped = edge.shutdown(SHUTDOWN_WITHIN).await;
    result.and(stopped.map_err(|error| edge::not_running(&error)))
}

/// The name and labels that make the pipeline's selector match.
struct DevNode {
    name: NodeName,
    labels: Labels,
}

impl DevNode {
    fn of(pipeline: &Pipeline) -> Result<Self, Failure> {
        let mut name = "dev".to_owned();
        let mut labels = Labels::new();
        for (key, values) in &pipeline.select.0 {
            let Some(value) = values.first() else {
                continue;
            };
            if key == "node" {
                name = value.clone();
            } else {
                labels.insert(key.clone(), value.clone());
            }
        }
        let name = name.parse().map_err(|error| {
            Failure::invalid(format!(
                "`[select]` wants a node named `{name}`: it {error}"
            ))
        })?;
        Ok(Self { name, labels })
    }
}

async fn start_edge(
    client: &Client,
    dir: &Path,
    node: DevNode,
    commands: AllowedCommands,
) -> Result<EdgeHandle, Failure> {
    let request = TokenCreate {
        ttl_ms: 10 * 60 * 1000,
        uses: 1,
        node: Some(node.name.clone()),
        ..TokenCreate::default()
    };
    let created: TokenCreated = client.post_json(routes::TOKENS, &request).await?;
    edge::start_in_process(InProcess {
        state_dir: dir.join("edge"),
        name: node.name,
        labels: node.labels,
        commands,
        token: created.token,
    })
    .await
}

async fn run(
    client: &Client,
    file: PipelineFile,
    params: BTreeMap<String, String>,
    out: &Out,
) -> Result<(), Failure> {
    let reply = deploy_file(client, &file, false, None, out).await?;
    let verb = match reply.outcome {
        DeployOutcome::Created | DeployOutcome::Updated => "runs",
        DeployOutcome::Started | DeployOutcome::Unchanged => "continues",
    };
    out.say(&format!("{} {verb}; Ctrl-C stops it", reply.job));
    if file.pipeline.batch.is_some() {
        return launched(client, reply.job, params, out).await;
    }
    loop {
        let detail: JobDetail = client
            .get(&routes::fill(routes::JOB, &[reply.job.as_str()]))
            .await?;
        if let Some(result) = ended(&detail, reply.version, out) {
            return result;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Launches a batch job, and waits for its end.
async fn launched(
    client: &Client,
    job: JobName,
    params: BTreeMap<String, String>,
    out: &Out,
) -> Result<(), Failure> {
    let launch = RunLaunch {
        jobs: vec![job],
        params,
        ..RunLaunch::default()
    };
    let mut run: Run = client.post_json(routes::RUNS, &launch).await?;
    loop {
        let lines: Vec<String> = run
            .tasks
            .iter()
            .map(|task| {
                format!(
                    "{}: {} records in, {} out",
                    task.job, task.records_in, task.records_out
                )
            })
            .collect();
        match run.state {
            RunState::Pending | RunState::Running => {}
            RunState::Completed => {
                out.say(&lines.join("\n"));
                return Ok(());
            }
            RunState::Failed | RunState::Cancelled | RunState::TimedOut => {
                let why: Vec<String> = run.tasks.iter().map(render::run_task_line).collect();
                let failure = Failure::new(Exit::Failed, format!("its run is {}", run.state));
                return Err(failure.with_detail(why.join("\n")));
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        let path = routes::fill(routes::RUN, &[&run.id.to_string()]);
        run = client.get(&path).await?;
    }
}

/// How the pipeline ended, once it has.
fn ended(detail: &JobDetail, version: Version, out: &Out) -> Option<Result<(), Failure>> {
    let execution = detail
        .executions
        .iter()
        .find(|execution| execution.version >= version)?;
    match execution.state {
        ExecutionState::Completed => {
            out.say(&counts(execution));
            Some(Ok(()))
        }
        ExecutionState::Failed | ExecutionState::Quarantined => {
            let reason = execution.reason.as_deref().unwrap_or("without a reason");
            let how = match execution.reason_code {
                Some(code) => format!("failed ({})", code.as_str()),
                None => "was quarantined".to_owned(),
            };
            let message = format!("{} {how}: {}", execution.job, render::clean(reason));
            Some(Err(
                Failure::new(Exit::Failed, message).with_detail(counts(execution))
            ))
        }
        ExecutionState::Pending
        | ExecutionState::Running
        | ExecutionState::Stopped
        | ExecutionState::Lost => None,
    }
}

fn counts(execution: &Execution) -> String {
    format!(
        "{}: {} records in, {} out, {} dead letters",
        execution.job, execution.records_in, execution.records_out, execution.dead_letters
    )
}
