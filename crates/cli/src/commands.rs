//! What each command does.

use sluice_api::{PluginFilter, RolloutOrder, TokenFilter};

use crate::args::{
    Args, Command, ExecutionCommand, JobCommand, NodeCommand, PipelineCommand, PluginCommand,
    RolloutCommand, RunCommand, ScheduleCommand, TokenCommand,
};
use crate::client::Client;
use crate::context;
use crate::failure::Failure;
use crate::hosts;
use crate::out::Out;

mod cluster;
mod deploy;
mod doctor;
mod local;
mod logs;
mod nodes;
mod output;
mod run;
mod schedule;

pub(crate) use deploy::deploy_file;
pub(crate) use run::params_of;

/// Does what the command line says.
pub(crate) async fn execute(args: Args, out: &Out) -> Result<(), Failure> {
    let connect = async || {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        let home = home.as_ref().map(std::path::Path::new);
        let (path, context) = context::find(args.global.context.as_deref(), home)?;
        Client::open(path, context).await
    };
    match args.command {
        Command::Dev(args) => hosts::dev(args, out).await,
        Command::Orchestrator(args) => hosts::orchestrator(args).await,
        Command::Edge(args) => hosts::edge(args).await,
        Command::Doctor { state_dir } => doctor::doctor(state_dir, out).await,
        Command::Token(command) => {
            let client = connect().await?;
            match command {
                TokenCommand::Create(args) => cluster::create_token(&client, out, args).await,
                TokenCommand::List {
                    kind,
                    role,
                    state,
                    all,
                } => {
                    let filter = TokenFilter {
                        kind,
                        role,
                        state,
                        all,
                        ..TokenFilter::default()
                    };
                    cluster::tokens(&client, out, &filter).await
                }
                TokenCommand::Describe { id } => cluster::token(&client, out, id).await,
                TokenCommand::Revoke { id } => cluster::revoke_token(&client, out, id).await,
            }
        }
        // Checks the file first: what is wrong with it shows without an orchestrator too.
        Command::Deploy(args) => deploy::deploy(args, out, connect).await,
        Command::Audit(args) => cluster::audit(&connect().await?, out, args).await,
        Command::Status => cluster::status(&connect().await?, out).await,
        Command::Job(command) => {
            let client = connect().await?;
            match command {
                JobCommand::List { state } => {
                    let filter = sluice_api::JobFilter {
                        state,
                        ..Default::default()
                    };
                    cluster::jobs(&client, out, &filter).await
                }
                JobCommand::Describe { job } => cluster::job(&client, out, &job).await,
                JobCommand::Start { job } => cluster::start_job(&client, out, &job).await,
                JobCommand::Stop { job } => cluster::stop_job(&client, out, &job).await,
                JobCommand::Restart { job } => cluster::restart_job(&client, out, &job).await,
                JobCommand::History { job } => cluster::history(&client, out, &job).await,
                JobCommand::Rollback { job, to } => deploy::roll_back(&client, out, &job, to).await,
                JobCommand::Delete { job } => cluster::delete_job(&client, out, &job).await,
            }
        }
        Command::Run(command) => {
            let client = connect().await?;
            match command {
                RunCommand::Launch(args) => run::launch(&client, out, args).await,
                RunCommand::List { job, state, limit } => {
                    let filter = sluice_api::RunFilter {
                        job,
                        state,
                        limit: Some(limit.min(sluice_api::PAGE_ITEMS_MAX)),
                        cursor: None,
                    };
                    run::list(&client, out, &filter, limit).await
                }
                RunCommand::Describe { id } => run::describe(&client, out, id).await,
                RunCommand::Output(args) => output::output(&client, out, args).await,
                RunCommand::Cancel { id } => run::cancel(&client, out, id).await,
            }
        }
        Command::Schedule(command) => {
            let client = connect().await?;
            match command {
                ScheduleCommand::Create(args) => schedule::create(&client, out, args).await,
                ScheduleCommand::List { job } => schedule::list(&client, out, job).await,
                ScheduleCommand::Describe { schedule } => {
                    schedule::describe(&client, out, &schedule).await
                }
                ScheduleCommand::History { schedule, limit } => {
                    schedule::history(&client, out, &schedule, limit).await
                }
                ScheduleCommand::Pause { schedule } => {
                    schedule::pause(&client, out, &schedule).await
                }
                ScheduleCommand::Resume { schedule } => {
                    schedule::resume(&client, out, &schedule).await
                }
                ScheduleCommand::Delete { schedule } => {
                    schedule::delete(&client, out, &schedule).await
                }
            }
        }
        Command::Rollout(command) => {
            let (job, order) = match command {
                RolloutCommand::Status { job } => (job, None),
                RolloutCommand::Pause { job } => (job, Some(RolloutOrder::Pause)),
                RolloutCommand::Resume { job } => (job, Some(RolloutOrder::Resume)),
                RolloutCommand::Promote { job } => (job, Some(RolloutOrder::Promote)),
                RolloutCommand::Abort { job } => (job, Some(RolloutOrder::Abort)),
            };
            cluster::rollout(&connect().await?, out, &job, order).await
        }
        Command::Execution(ExecutionCommand::List {
            job,
            node,
            state,
            all,
        }) => {
            let filter = sluice_api::ExecutionFilter {
                job,
                node,
                all,
                state,
                ..Default::default()
            };
            cluster::executions(&connect().await?, out, &filter).await
        }
        Command::Execution(ExecutionCommand::Describe { execution }) => {
            let path = cluster::execution_path(&execution)?;
            cluster::execution(&connect().await?, out, &path).await
        }
        Command::Node(NodeCommand::List { state, label }) => {
            let filter = sluice_api::NodeFilter {
                state,
                label,
                ..Default::default()
            };
            cluster::nodes(&connect().await?, out, &filter).await
        }
        Command::Node(NodeCommand::Describe { node }) => {
            cluster::node(&connect().await?, out, &node).await
        }
        Command::Node(NodeCommand::Label { node, labels }) => {
            nodes::label(&connect().await?, out, &node, labels).await
        }
        Command::Node(NodeCommand::Cordon { node }) => {
            nodes::cordon(&connect().await?, out, &node).await
        }
        Command::Node(NodeCommand::Uncordon { node }) => {
            nodes::uncordon(&connect().await?, out, &node).await
        }
        Command::Node(NodeCommand::Drain { node, deadline }) => {
            nodes::drain(&connect().await?, out, &node, deadline).await
        }
        Command::Node(NodeCommand::Revoke { node }) => {
            cluster::revoke_node(&connect().await?, out, &node).await
        }
        Command::Node(NodeCommand::Delete { node }) => {
            cluster::delete_node(&connect().await?, out, &node).await
        }
        Command::Explain { job } => cluster::explain(&connect().await?, out, &job).await,
        Command::Logs(args) => logs::logs(&connect().await?, out, args).await,
        Command::Plugin(PluginCommand::List { job, unused }) => {
            let filter = PluginFilter {
                job,
                unused,
                ..PluginFilter::default()
            };
            cluster::plugins(&connect().await?, out, &filter).await
        }
        Command::Plugin(PluginCommand::Describe { digest }) => {
            cluster::plugin(&connect().await?, out, digest).await
        }
        Command::Plugin(PluginCommand::Inspect { file }) => local::inspect(&file, out),
        Command::Pipeline(PipelineCommand::Validate { file }) => local::validate(&file, out),
        Command::Pipeline(PipelineCommand::Schema) => local::schema(out),
        Command::Pipeline(PipelineCommand::Run {
            file,
            params,
            commands,
        }) => local::run(&file, params, commands, out).await,
        Command::Completions { shell } => local::completions(shell, out),
    }
}
