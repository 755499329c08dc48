//! What is asked of files on this machine: components and pipelines.

use std::path::PathBuf;

use clap::{Subcommand, ValueHint};
use sluice_edge_runtime::args::CommandArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Components that the orchestrator has, and who uses them
    #[command(after_help = "Examples:\n  sluice plugin list")]
    List,
    /// Look into a component without running it
    #[command(after_help = "Examples:\n  sluice plugin inspect plugins/dist/sshd_auth.wasm")]
    Inspect {
        /// The .wasm file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PipelineCommand {
    /// Check a pipeline file and its plugins, and report every problem
    #[command(after_help = "Examples:\n  sluice pipeline validate pipeline.toml")]
    Validate {
        /// The pipeline file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// The JSON Schema of pipeline files, for editors
    #[command(after_help = "Examples:\n  sluice pipeline schema > pipeline.schema.json")]
    Schema,
    /// Run a pipeline here, without orchestrator and edge
    ///
    /// Records of `[output.stdout]` go to standard output, logs to standard error. Paths are those of this directory.
    #[command(
        after_help = "Examples:\n  sluice pipeline run pipeline.toml\n  sluice pipeline run pipeline.toml < records.txt"
    )]
    Run {
        /// The pipeline file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        #[command(flatten)]
        commands: CommandArgs,
    },
}
