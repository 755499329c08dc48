//! The `sluice` program; everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_cli::run(std::env::args_os())
}
