//! What the long-running programs log: to standard error, for people or as JSON lines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;
use crate::out;

/// What is logged unless `SLUICE_LOG` says otherwise: our own events, and what goes wrong elsewhere.
const FILTER_DEFAULT: &str = "warn,sluice=info";

/// Starts logging for the rest of the process. `SLUICE_LOG` takes tracing's filter syntax.
pub(crate) fn start(format: LogFormat) {
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
    // Already set only when this is called twice, and then the first one stands.
    let _ = match format {
        LogFormat::Human => builder
            .with_ansi(out::colors() && std::io::stderr().is_terminal())
            .with_target(false)
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
