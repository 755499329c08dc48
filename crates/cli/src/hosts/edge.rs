//! `sluice edge`, and the edge that `dev` runs in this process.

use std::path::PathBuf;

use sluice_doctor::with_causes;
use sluice_edge_runtime::runner::AllowedCommands;
use sluice_edge_runtime::{
    Edge, EdgeConfig, EdgeError, EdgeHandle, ExitCode, args, args::CommandArgs,
};
use sluice_model::{Labels, NodeName};

use super::{console, stop_on_signals, working_directory};
use crate::args::EdgeCommand;
use crate::failure::{Exit, Failure};
use crate::logging::{self, Reader};

/// Runs until a signal, or until it breaks.
pub(crate) async fn edge(command: EdgeCommand) -> Result<(), Failure> {
    logging::start(command.log, Reader::Operator)?;
    let stop = stop_on_signals()?;
    args::run(command.edge, stop.cancelled_owned())
        .await
        .map_err(|error| not_running(&error))
}

/// An edge that shares this process and its standard streams.
pub(super) struct InProcess {
    pub(super) state_dir: PathBuf,
    pub(super) name: NodeName,
    pub(super) labels: Labels,
    /// What `[input.exec]` may run.
    pub(super) commands: AllowedCommands,
    /// How it joins, if the directory has not joined yet.
    pub(super) token: String,
}

pub(super) async fn start_in_process(edge: InProcess) -> Result<EdgeHandle, Failure> {
    let mut config = EdgeConfig::new(edge.state_dir);
    config.name = Some(edge.name);
    config.join = Some(edge.token);
    config.labels = edge.labels;
    config.allow_paths = vec![working_directory()?];
    config.commands = edge.commands;
    config.console = Some(console());
    Edge::start(config)
        .await
        .map_err(|error| not_running(&error))
}

/// What `--allow-command` lists.
pub(crate) fn allowed_commands(commands: CommandArgs) -> Result<AllowedCommands, Failure> {
    commands.into_allowed().map_err(|error| not_running(&error))
}

pub(super) fn not_running(error: &EdgeError) -> Failure {
    let exit = match error.exit_code() {
        ExitCode::Failed => Exit::Failed,
        ExitCode::Usage => Exit::Invalid,
        ExitCode::Unreachable => Exit::Unreachable,
    };
    let failure = Failure::new(exit, with_causes(error));
    match error {
        EdgeError::File { .. } => failure.with_help(
            "see to the rights and the room of that place, or choose another --state-dir; `sluice doctor` looks at one",
        ),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_s_errors_keep_their_exit_codes() {
        let usage = EdgeError::Usage {
            problem: "no".to_owned(),
        };
        assert_eq!(not_running(&usage), Failure::invalid("no"));
        let not_joined = EdgeError::NotJoined { path: "d".into() };
        assert_eq!(not_running(&not_joined).exit, Exit::Invalid);
        assert_eq!(not_running(&EdgeError::Broken).exit, Exit::Failed);
    }
}
