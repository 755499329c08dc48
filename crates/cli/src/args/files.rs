//! What is asked of files on this machine: components, and pipelines that are checked or run here.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum, ValueHint};
use sluice_edge_runtime::args::CommandArgs;
use sluice_model::{Digest, JobName};

use super::values::param;

/// How a long-running program writes its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Human,
    Json,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DevArgs {
    /// The pipeline file
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) pipeline: PathBuf,
    /// Keep state here and continue from it; without it nothing is kept
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) params: ParamArgs,
    #[command(flatten)]
    pub(crate) commands: CommandArgs,
    /// How the log is written
    #[arg(long, value_enum, default_value_t = LogFormat::Human)]
    pub(crate) log: LogFormat,
}

/// What a launch here says.
#[derive(Debug, Default, ClapArgs)]
pub(crate) struct ParamArgs {
    /// A parameter's value, for a pipeline of kind `batch`; repeatable [default: what `[params]` says]
    #[arg(long = "param", value_name = "K=V", value_parser = param)]
    pub(crate) params: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Components that the orchestrator has, and who uses them
    #[command(
        after_help = "Examples:\n  sluice plugin list\n  sluice plugin list --job field-temps\n  sluice plugin list --unused --output json"
    )]
    List {
        /// Only those that a version of this job names
        #[arg(long, value_name = "JOB")]
        job: Option<JobName>,
        /// Only those that nothing names any more: they are forgotten within two hours
        #[arg(long)]
        unused: bool,
    },
    /// One component that the orchestrator has: what it is, who brought it, which job versions name it
    #[command(
        after_help = "Examples:\n  sluice plugin describe sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )]
    Describe {
        /// Its digest, as `sluice plugin list` shows it
        digest: Digest,
    },
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
    #[command(
        after_help = "Examples:\n  sluice pipeline schema > pipeline.schema.json\n\n\
        Editors with Taplo (Even Better TOML) take it by a first line in the pipeline: #:schema ./pipeline.schema.json"
    )]
    Schema,
    /// Run a pipeline here, without orchestrator and edge
    ///
    /// Records of `[output.stdout]` go to standard output, logs to standard error; `[input.stdin]` is standard input. Paths
    /// are those of this directory. Nothing is kept: it starts at the beginning each time.
    #[command(
        after_help = "Examples:\n  sluice pipeline run pipeline.toml\n  sluice pipeline run pipeline.toml < records.txt\n  \
        sluice pipeline run triage.toml --param path=app.log --param top=5"
    )]
    Run {
        /// The pipeline file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        #[command(flatten)]
        params: ParamArgs,
        #[command(flatten)]
        commands: CommandArgs,
    },
}
