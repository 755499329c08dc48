//! The `sluice` program: every command, and `dev`, which hosts orchestrator and edge in one process.
//!
//! ```text
//!   args -> commands::* -> client (HTTPS) | pipeline_file (local checks) | hosts (orchestrator, edge, dev)
//!                             -> render -> out (standard output)      talk, progress, errors -> standard error
//! ```
//!
//! The only room with process globals: tracing, signals, standard streams and the exit code. What the commands do to a
//! cluster goes through the API's JSON types; nothing here decides about executions.

mod args;
mod client;
mod commands;
mod context;
mod failure;
mod hosts;
mod logging;
mod out;
mod pipeline_file;
mod render;
pub mod screens;
mod wait;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use crate::failure::{Exit, Failure};
use crate::out::Out;

/// Runs the program with the process's standard streams. Exit codes: 0 done, 1 failed, 2 wrong usage or invalid input,
/// 3 not found, 4 not reachable, 5 timed out while waiting.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match args::Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are answers, everything else is wrong usage; nobody reads a failure to say so.
            let _ = error.print();
            let exit = if error.use_stderr() {
                Exit::Invalid
            } else {
                Exit::Done
            };
            return exit.into();
        }
    };
    let out = Out::of_process(&args.global);
    match execute(args, &out) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            out.failure(&failure);
            failure.exit.into()
        }
    }
}

fn execute(args: args::Args, out: &Out) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(Exit::Failed, "cannot start the program's threads").with_detail(error)
        })?;
    let result = runtime.block_on(commands::execute(args, out));
    // What still blocks (a read of standard input, say) must not keep the program from ending.
    runtime.shutdown_background();
    result
}
