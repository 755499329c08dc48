//! `sluice orchestrator`.

use sluice_doctor::with_causes;
use sluice_host::{Orchestrator, OrchestratorConfig, StartError};

use super::{no_file, stop_on_signals};
use crate::args::OrchestratorArgs;
use crate::failure::{Exit, Failure};
use crate::logging::{self, Reader};

/// Runs until a signal, or until its store breaks.
pub(crate) async fn orchestrator(args: OrchestratorArgs) -> Result<(), Failure> {
    logging::start(args.log, Reader::Operator)?;
    let config = config(args)?;
    let stop = stop_on_signals()?;
    let mut running = Orchestrator::start(config).await.map_err(not_started)?;
    tracing::info!(
        event = "orchestrator.context",
        file = %running.context_file().display(),
        "name this file with --context to operate it"
    );
    let broken = tokio::select! {
        () = stop.cancelled() => None,
        problem = running.broken() => Some(problem),
    };
    running.shutdown().await;
    match broken {
        None => Ok(()),
        Some(problem) => Err(Failure::new(
            Exit::Failed,
            format!("the orchestrator's store failed: {problem}"),
        )
        .with_help("see to the disk, then start it again: what was confirmed is there, edges run on meanwhile")),
    }
}

fn config(args: OrchestratorArgs) -> Result<OrchestratorConfig, Failure> {
    no_file(&args.state_dir)?;
    let mut config = OrchestratorConfig::new(args.state_dir);
    config.listen = args.listen.unwrap_or(config.listen);
    config.api = args.api.unwrap_or(config.api);
    config.heartbeat = args.heartbeat;
    config.lost_after = args.lost_after;
    config.certificate_life = args.certificate_life;
    config.metrics = args.metrics;
    config.limits.all = args.tasks_max;
    config.limits.per_node = args.tasks_per_node;
    config.limits.pools = args.pool.into_iter().collect();
    config.outputs.keep = args.keep_outputs;
    config.outputs.bytes_max = args.outputs_max;
    for address in args.advertise {
        let address = address
            .parse()
            .map_err(|error| Failure::invalid(format!("--advertise: {error}")))?;
        config.advertise.push(address);
    }
    Ok(config)
}

pub(super) fn not_started(error: StartError) -> Failure {
    let exit = match error {
        StartError::Config { .. } => Exit::Invalid,
        _ => Exit::Failed,
    };
    let failure = Failure::new(
        exit,
        format!("the orchestrator does not start: {}", with_causes(&error)),
    );
    match error {
        StartError::Io { .. } => failure.with_help(
            "see to the rights and the room of that place, or choose another --state-dir; `sluice doctor` looks at one",
        ),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command};

    fn configured(line: &str) -> Result<OrchestratorConfig, Failure> {
        match Args::try_parse_from(line.split_whitespace())
            .unwrap()
            .command
        {
            Command::Orchestrator(args) => config(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_reach_the_configuration_and_defaults_are_those_of_the_design() {
        let config = configured("sluice orchestrator --state-dir d").unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:7443");
        assert_eq!(config.api.to_string(), "127.0.0.1:7480");
        assert_eq!(config.heartbeat.as_secs(), 5);
        assert_eq!(config.lost_after.as_secs(), 600);
        assert_eq!(config.certificate_life.as_secs(), 90 * 24 * 60 * 60);
        let config = configured(
            "sluice orchestrator --state-dir d --listen 0.0.0.0:0 --api [::1]:9 --advertise hub.example:1 \
             --advertise 10.0.0.1:2 --heartbeat 200ms --lost-after 3s --certificate-life 5s",
        )
        .unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:0");
        assert_eq!(config.api.to_string(), "[::1]:9");
        let advertised: Vec<_> = config.advertise.iter().map(ToString::to_string).collect();
        assert_eq!(advertised, ["hub.example:1", "10.0.0.1:2"]);
        assert_eq!(config.heartbeat.as_millis(), 200);
        assert_eq!(config.certificate_life.as_secs(), 5);
        let failure = configured("sluice orchestrator --state-dir d --advertise hub").unwrap_err();
        assert_eq!(failure.exit, Exit::Invalid);
        assert!(failure.message.contains("HOST:PORT"), "{}", failure.message);
    }
}
