//! What the long-running programs log: to standard error, for people or as JSON lines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;
use crate::failure::Failure;
use crate::out;

/// What a long-running program logs unless `SLUICE_LOG` says otherwise: our own events, and what goes wrong elsewhere.
const SERVICE: &str = "warn,sluice=info";

/// What is logged in front of a person: what the pipeline's stages say, and what goes wrong.
const FOREGROUND: &str = "warn,sluice_cli=info";

/// Who reads the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Whoever keeps a service running.
    Operator,
    /// The person who started the program to watch a pipeline.
    Author,
}

/// Starts logging for the rest of the process. `SLUICE_LOG` takes tracing's filter syntax.
pub(crate) fn start(format: LogFormat, reader: Reader) -> Result<(), Failure> {
    let filter = match std::env::var("SLUICE_LOG") {
        Ok(wanted) if !wanted.is_empty() => EnvFilter::try_new(&wanted).map_err(|error| {
            Failure::invalid(format!("SLUICE_LOG=`{wanted}` is not a filter: {error}"))
                .with_help("for example SLUICE_LOG=warn,sluice=debug")
        })?,
        _ => EnvFilter::new(match reader {
            Reader::Operator => SERVICE,
            Reader::Author => FOREGROUND,
        }),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Already set only when this is called twice, and then the first one stands.
    let _ = match format {
        LogFormat::Human => builder
            .with_ansi(out::colors() && std::io::stderr().is_terminal())
            .with_target(false)
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
