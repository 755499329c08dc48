//! The `sluice-edge` program: an edge alone, without the rest of the command line.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use sluice_doctor::Verdict;
use sluice_edge_runtime::args::{EdgeArgs, run};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// What is logged unless `SLUICE_LOG` says otherwise.
const FILTER_DEFAULT: &str = "warn,sluice=info";

/// Runs the pipelines that an orchestrator gives this machine
#[derive(Debug, Parser)]
#[command(name = "sluice-edge", version)]
struct Command {
    #[command(flatten)]
    edge: EdgeArgs,
    /// How the log is written
    #[arg(long, value_enum, default_value_t = LogFormat::Human)]
    log: LogFormat,
    /// Look into the state directory, say what is wrong and how to mend it, and end
    #[arg(long)]
    doctor: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people
    Human,
    /// One JSON object a line
    Json,
}

fn main() -> ExitCode {
    let command = Command::parse();
    if !command.doctor {
        start_log(command.log);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("cannot start: {error}")),
    };
    if command.doctor {
        return doctor(&runtime, command.edge.state_dir);
    }
    let ended = runtime.block_on(async {
        let stop = async {
            let (Ok(mut terminate), Ok(mut interrupt)) = (
                signal(SignalKind::terminate()),
                signal(SignalKind::interrupt()),
            ) else {
                // Without handlers the signals still end the process, only less politely.
                return std::future::pending().await;
            };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            // What drains may take its time; who asks twice does not want to wait for it.
            tokio::spawn(async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                std::process::exit(1);
            });
        };
        run(command.edge, stop).await
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.exit_code() as u8;
            fail(code, &format!("{:#}", anyhow::Error::new(error)))
        }
    }
}

/// Prints what each check found; 1 when one failed.
fn doctor(runtime: &tokio::runtime::Runtime, state_dir: std::path::PathBuf) -> ExitCode {
    let findings = runtime.block_on(sluice_edge_runtime::doctor::examine(state_dir));
    let mut failed = false;
    let mut text = String::new();
    for finding in findings {
        failed |= finding.verdict == Verdict::Fail;
        text.push_str(&format!(
            "{:<5}{}: {}\n",
            finding.verdict, finding.check, finding.seen
        ));
        if let Some(mend) = finding.mend {
            text.push_str(&format!("     to mend it: {mend}\n"));
        }
    }
    // A reader that went away is no failure; the exit code says it too.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::from(u8::from(failed))
}

fn fail(code: u8, message: &str) -> ExitCode {
    // Nobody to tell when standard error is closed; the exit code still says it.
    let _ = writeln!(std::io::stderr(), "error: {message}");
    ExitCode::from(code)
}

fn start_log(format: LogFormat) {
    let wanted = std::env::var("SLUICE_LOG").unwrap_or_default();
    let wanted = if wanted.is_empty() {
        FILTER_DEFAULT
    } else {
        &wanted
    };
    let filter = EnvFilter::try_new(wanted).unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Human => builder
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
