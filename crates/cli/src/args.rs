//! The command line: every command, option and example.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use sluice_edge_runtime::args::EdgeArgs;
use sluice_model::{
    CatchUp, ExecutionState, JobName, JobState, NodeName, NodeState, Overlap, RunId, RunState,
    ScheduleName, StageName,
};

mod files;
mod tokens;
mod values;

pub(crate) use files::{DevArgs, LogFormat, ParamArgs, PipelineCommand, PluginCommand};
pub(crate) use tokens::{AuditArgs, TokenCommand, TokenCreateArgs};
pub(crate) use values::{LabelChange, Moment};
use values::{
    catch_up, duration_text, job_and_node, overlap, param, pool, positive_duration, size,
};

/// Runs WebAssembly stages in data pipelines on fleets of edge machines
#[derive(Debug, Parser)]
#[command(
    name = "sluice",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 failed or not allowed, 2 wrong usage or invalid input, 3 not found,\n\
                  4 not reachable, 5 timed out while waiting (what was asked still stands)\n\n\
                  Examples:\n  \
                  sluice dev pipelines/quickstart/pipeline.toml     # to begin with: no cluster needed\n  \
                  sluice orchestrator --state-dir /var/lib/sluice   # writes operator.toml there\n  \
                  export SLUICE_CONTEXT=/var/lib/sluice/operator.toml\n  \
                  sluice token create > token.txt                   # lets an edge join\n  \
                  sluice edge --state-dir edge --name e1 --join @token.txt\n  \
                  sluice deploy pipeline.toml --wait\n  \
                  sluice status                                     # why: sluice explain JOB"
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Global {
    /// How results are written
    #[arg(long, global = true, value_enum, default_value_t = Format::Table, help_heading = "Everywhere")]
    pub(crate) output: Format,
    /// How to reach the orchestrator [default: ~/.config/sluice/context.toml]
    #[arg(long, global = true, value_name = "FILE", env = "SLUICE_CONTEXT", value_hint = ValueHint::FilePath, help_heading = "Everywhere")]
    pub(crate) context: Option<PathBuf>,
    /// Say nothing but results and errors
    #[arg(long, short, global = true, help_heading = "Everywhere")]
    pub(crate) quiet: bool,
    /// Ask no question: on a terminal, and only there, what deletes or revokes asks first
    #[arg(long, short = 'y', global = true, help_heading = "Everywhere")]
    pub(crate) yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a pipeline on an orchestrator and an edge within this process
    ///
    /// Records of `[output.stdout]` go to standard output, logs to standard error. Ends when the pipeline completes. A
    /// pipeline of kind `batch` is launched once, with what --param says.
    #[command(
        after_help = "Examples:\n  sluice dev pipelines/heartbeat/pipeline.toml\n  \
        sluice dev my.toml --state-dir /tmp/my   # continues where it was\n  \
        sluice dev gpus.toml --allow-command 'gpus=/usr/bin/nvidia-smi -L'\n  \
        sluice dev triage.toml --param top=5 < app.log   # a batch: launched once, `[input.stdin]` is this input"
    )]
    Dev(DevArgs),
    /// Run the orchestrator
    ///
    /// Writes operator.toml into its state directory: what the other commands need to reach it.
    #[command(
        after_help = "Examples:\n  sluice orchestrator --state-dir /var/lib/sluice\n  \
        sluice orchestrator --state-dir d --listen 0.0.0.0:7443 --advertise hub.example:7443\n\n\
        SLUICE_LOG chooses what is logged, for example SLUICE_LOG=sluice=debug"
    )]
    Orchestrator(OrchestratorArgs),
    /// Look into a state directory, and say what is wrong and how to mend it
    ///
    /// For an orchestrator's and for an edge's, while it runs and while it does not: rights, room and speed of the disk,
    /// the store, the clock, keys and certificates, ports, and from an edge its way to the orchestrator. Changes
    /// nothing. Ends with 1 when a check fails.
    #[command(
        after_help = "Examples:\n  sluice doctor --state-dir /var/lib/sluice\n  \
        sluice doctor --state-dir /var/lib/sluice-edge --output json"
    )]
    Doctor {
        /// The program's --state-dir
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        state_dir: PathBuf,
    },
    /// Run an edge
    ///
    /// Joins at its first start, with a token; later starts need only the directory. It dials its orchestrator for ever, and
    /// runs what it was given also while that is away.
    #[command(
        after_help = "Examples:\n  sluice edge --state-dir d --name e1 --join @token.txt --label site=plant-7\n  \
        sluice edge --state-dir d      # every later start\n\n\
        SLUICE_LOG chooses what is logged, for example SLUICE_LOG=sluice=debug"
    )]
    Edge(EdgeCommand),
    /// Join tokens for new edges, and tokens for the API
    #[command(
        subcommand,
        after_help = "Examples:\n  sluice token create > token.txt\n  sluice token list\n  sluice token describe 0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11"
    )]
    Token(TokenCommand),
    /// Deploy a pipeline: make a job, or a new version of it
    ///
    /// Checks the file, uploads the components that the orchestrator lacks, and says what changed; what is deployed already
    /// changes nothing. A batch job waits then for `sluice run launch`. What was deployed stays, whatever --wait comes to.
    #[command(
        after_help = "Examples:\n  sluice deploy pipeline.toml --dry-run\n  sluice deploy pipeline.toml --wait\n  \
        sluice deploy pipeline.toml --wait=30s\n  sluice deploy pipeline.toml --if-version 3   # refused when somebody deployed version 4"
    )]
    Deploy(DeployArgs),
    /// Who changed what through the API, and what was refused; newest first
    #[command(
        after_help = "Examples:\n  sluice audit\n  sluice audit --limit 1000 --output json\n  \
        sluice audit --outcome refused --since 24h\n  \
        sluice audit --operation job.deploy --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z"
    )]
    Audit(AuditArgs),
    /// Nodes, jobs, and what waits and why, on one screen
    #[command(
        after_help = "Examples:\n  sluice status\n  sluice status --output json | jq '.waiting[].reason'"
    )]
    Status,
    /// Deployed pipelines
    #[command(
        subcommand,
        after_help = "Examples:\n  sluice job list\n  sluice job describe field-temps\n  sluice job rollback field-temps"
    )]
    Job(JobCommand),
    /// Launches of batch jobs
    #[command(
        subcommand,
        after_help = "Examples:\n  sluice run launch triage --wait\n  sluice run list --job triage\n  sluice run output 0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11"
    )]
    Run(RunCommand),
    /// What launches batch jobs again and again, by the clock
    #[command(
        subcommand,
        after_help = "Examples:\n  sluice schedule create nightly --job triage --cron '30 2 * * *' --tz Europe/Berlin\n  sluice schedule describe nightly"
    )]
    Schedule(ScheduleCommand),
    /// How a job's newest version reaches its nodes
    #[command(
        subcommand,
        after_help = "Examples:\n  sluice rollout status field-temps\n  sluice rollout abort field-temps"
    )]
    Rollout(RolloutCommand),
    /// Jobs on nodes
    #[command(
        subcommand,
        after_help = "Examples:\n  sluice execution list --job field-temps\n  sluice execution describe field-temps/e1"
    )]
    Execution(ExecutionCommand),
    /// Registered edges
    #[command(
        subcommand,
        after_help = "Examples:\n  sluice node list\n  sluice node drain e1 --deadline 2m\n  sluice node label e1 site=plant-7"
    )]
    Node(NodeCommand),
    /// Why each node does or does not run a job
    #[command(
        after_help = "Examples:\n  sluice explain field-temps\n  sluice explain field-temps --output json"
    )]
    Explain {
        /// The job
        job: JobName,
    },
    /// The log of a job, read from its edges: its newest lines, and what comes after them
    ///
    /// It holds what stages say, what the runner did, and the records of `[output.stdout]`. Lines that were lost for want of
    /// room are shown as a number. Following ends by Ctrl-C, or when the job is deleted.
    #[command(
        after_help = "Examples:\n  sluice logs field-temps --tail 20\n  sluice logs field-temps --node e1 --since 10m\n  \
        sluice logs field-temps --follow --stage drop-debug\n  \
        sluice logs --run 0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11 --follow\n  \
        sluice logs field-temps --follow --output json | jq -r .message   # one object a line"
    )]
    Logs(LogsArgs),
    /// Components
    #[command(
        subcommand,
        after_help = "Examples:\n  sluice plugin inspect plugins/dist/sshd_auth.wasm\n  sluice plugin list"
    )]
    Plugin(PluginCommand),
    /// Pipeline files
    #[command(
        subcommand,
        after_help = "Examples:\n  sluice pipeline validate pipeline.toml\n  sluice pipeline run pipeline.toml < records.txt"
    )]
    Pipeline(PipelineCommand),
    /// Completions for a shell
    #[command(
        after_help = "Examples:\n  sluice completions bash > ~/.local/share/bash-completion/completions/sluice\n  \
        sluice completions zsh > ~/.zfunc/_sluice"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct OrchestratorArgs {
    /// Where everything is kept; one orchestrator at a time
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: PathBuf,
    /// Where edges connect (UDP) [default: 127.0.0.1:7443]; a port 0, once assigned, is remembered
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where operators connect (HTTPS) [default: 127.0.0.1:7480]; a port 0, once assigned, is remembered
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) api: Option<SocketAddr>,
    /// Where edges are told to connect, repeatable [default: what --listen took]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Vec<String>,
    /// Time between an edge's heartbeats; three missed ones disconnect it
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = positive_duration)]
    pub(crate) heartbeat: Duration,
    /// A node that was away for this long is lost
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = positive_duration)]
    pub(crate) lost_after: Duration,
    /// How long an edge's certificate is good for, 5s to 3650d; edges renew at two thirds of it
    ///
    /// A shorter life makes a stolen key useless sooner, unless its thief renews it: revoking is what shuts it out. An
    /// edge that was away past its certificate's end renews it when it returns, for up to a year.
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = positive_duration)]
    pub(crate) certificate_life: Duration,
    /// Serve metrics for Prometheus there, in plain HTTP at /metrics
    ///
    /// Whoever reaches the port can read it, so let it be an address that only your monitoring reaches.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Tasks of runs that may be active at once
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) tasks_max: u32,
    /// Tasks of runs that may be active at once on one node
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) tasks_per_node: u32,
    /// A pool of places that batch jobs name with `pool`, and how many it has; repeatable
    #[arg(long, value_name = "NAME=SIZE", value_parser = pool)]
    pub(crate) pool: Vec<(String, u32)>,
    /// Keep the outputs of runs for so long
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = positive_duration)]
    pub(crate) keep_outputs: Duration,
    /// Keep so much of them, such as 500MiB; the oldest go first
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub(crate) outputs_max: u64,
    /// How the log is written
    #[arg(long, value_enum, default_value_t = LogFormat::Human)]
    pub(crate) log: LogFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// Launch batch jobs, and print the run's id
    ///
    /// It is durable when the id is printed: whatever ends then, each task is executed. Standard output has the id alone;
    /// with --wait, standard error says at the end how it went.
    #[command(
        after_help = "Examples:\n  sluice run launch triage\n  sluice run launch triage --param day=monday --wait\n  \
        sluice run launch triage map --node e1 --node e2 --wait=10m\n  \
        sluice run launch triage --stdin app.log\n  journalctl -b | sluice run launch triage --stdin - --wait"
    )]
    Launch(RunLaunchArgs),
    /// The newest runs
    #[command(
        after_help = "Examples:\n  sluice run list\n  sluice run list --job triage --state failed --output json"
    )]
    List {
        /// With a task of this job
        #[arg(long)]
        job: Option<JobName>,
        /// In this state: pending, running, completed, failed, cancelled or timed-out
        #[arg(long)]
        state: Option<RunState>,
        /// Show at most so many
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// One run, task by task: where each is, what it waits for, how it ended
    #[command(after_help = "Examples:\n  sluice run describe 0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11")]
    Describe {
        /// The run
        id: RunId,
    },
    /// What a run's tasks wrote to `[output.stdout]`: their bytes, in the order of the tasks
    ///
    /// The orchestrator keeps it (`--keep-outputs`, `--outputs-max`). With several tasks each one's name goes to standard
    /// error. Exit 1 when an output is not there, saying why and when it comes. With --output json: what is known of each.
    #[command(
        after_help = "Examples:\n  sluice run output 0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11 > report.json\n  \
        sluice run output 0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11 --task triage/e1 --wait=10m\n  \
        sluice run output 0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11 --output json"
    )]
    Output(RunOutputArgs),
    /// Call a run off: what waits ends, what runs is stopped
    ///
    /// Exit 1 when it had ended already. A task on a node that is away is stopping until that node says so or is lost.
    #[command(after_help = "Examples:\n  sluice run cancel 0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11")]
    Cancel {
        /// The run
        id: RunId,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RunOutputArgs {
    /// The run
    pub(crate) id: RunId,
    /// Only of this task
    #[arg(long, value_name = "JOB/NODE", value_parser = job_and_node)]
    pub(crate) task: Option<(JobName, NodeName)>,
    /// Wait until the run has ended and its output is there, at most 2m or DURATION: exit 5 at the deadline
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true,
          default_missing_value = "2m", value_parser = positive_duration)]
    pub(crate) wait: Option<Duration>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RunLaunchArgs {
    /// The batch jobs
    #[arg(required = true, value_name = "JOB")]
    pub(crate) jobs: Vec<JobName>,
    /// A parameter's value; repeatable
    #[arg(long = "param", value_name = "K=V", value_parser = param)]
    pub(crate) params: Vec<(String, String)>,
    /// Run on this node; repeatable [default: as many matching nodes as the pipeline's `count`]
    #[arg(long = "node", value_name = "NODE")]
    pub(crate) nodes: Vec<NodeName>,
    /// What jobs with `[input.stdin]` read: a file, or - for this command's own standard input; at most 256 MiB
    #[arg(long, value_name = "FILE")]
    pub(crate) stdin: Option<PathBuf>,
    /// Launched again with the same key it is the same run [default: a new one]
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Wait for its end, at most 2m or DURATION: exit 0 when it completed, 1 when not, 5 at the deadline
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true,
          default_missing_value = "2m", value_parser = positive_duration)]
    pub(crate) wait: Option<Duration>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Launch a batch job by a cron expression, or from interval to interval
    ///
    /// A tick launches one run, whatever dies at that moment. A time of day that is written in numbers comes once a day, also
    /// where the clock is changed: one that is left out comes right after the gap, one that is there twice the first time.
    /// With `*`, steps and ranges a schedule follows the clock.
    #[command(
        after_help = "Examples:\n  sluice schedule create nightly --job triage --cron '30 2 * * *' --tz Europe/Berlin\n  \
        sluice schedule create often --job triage --every 15m --overlap queue --param day=today\n  \
        sluice schedule create weekdays --job map --cron '0 6 * * MON-FRI' --jitter 10m --catch-up skip"
    )]
    Create(ScheduleCreateArgs),
    /// Every schedule: when it launches next, and what it launched last
    #[command(
        after_help = "Examples:\n  sluice schedule list\n  sluice schedule list --job triage --output json"
    )]
    List {
        /// Those that launch this job
        #[arg(long)]
        job: Option<JobName>,
    },
    /// One schedule and its newest ticks: what each launched, or why it launched nothing
    #[command(
        after_help = "Examples:\n  sluice schedule describe nightly\n  sluice schedule describe nightly --output json | jq '.ticks[].why'"
    )]
    Describe {
        /// The schedule
        schedule: ScheduleName,
    },
    /// What became of a schedule's ticks, the newest first; the last 1,000 are kept
    #[command(after_help = "Examples:\n  sluice schedule history nightly --limit 100")]
    History {
        /// The schedule
        schedule: ScheduleName,
        /// The newest so many
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Launch nothing until it is resumed; ticks that wait are skipped, runs go on
    #[command(after_help = "Examples:\n  sluice schedule pause nightly")]
    Pause {
        /// The schedule
        schedule: ScheduleName,
    },
    /// Launch again, from the next tick on
    #[command(after_help = "Examples:\n  sluice schedule resume nightly")]
    Resume {
        /// The schedule
        schedule: ScheduleName,
    },
    /// Forget a schedule and its history; its runs stay
    #[command(after_help = "Examples:\n  sluice schedule delete nightly --yes")]
    Delete {
        /// The schedule
        schedule: ScheduleName,
    },
}

#[derive(Debug, ClapArgs)]
#[command(group = clap::ArgGroup::new("when").required(true).args(["cron", "every"]))]
pub(crate) struct ScheduleCreateArgs {
    /// Its name
    pub(crate) name: ScheduleName,
    /// The batch job that it launches
    #[arg(long)]
    pub(crate) job: JobName,
    /// Five fields: minute hour day-of-month month day-of-week; six with seconds first; or @daily and its like
    #[arg(long, value_name = "EXPRESSION")]
    pub(crate) cron: Option<String>,
    /// Whose wall clock --cron follows, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE", conflicts_with = "every")]
    pub(crate) tz: Option<String>,
    /// An interval of real time from 1s on, counted from now
    #[arg(long, value_name = "DURATION", value_parser = duration_text)]
    pub(crate) every: Option<String>,
    /// While a run of an earlier tick is under way: allow, skip, queue or cancel-previous
    #[arg(long, value_name = "WHAT", default_value_t = sluice_api::OVERLAP_DEFAULT, value_parser = overlap)]
    pub(crate) overlap: Overlap,
    /// Of ticks that were missed while no orchestrator was there: one (the newest), all (100 at most) or skip
    #[arg(long, value_name = "WHICH", default_value_t = sluice_api::CATCH_UP_DEFAULT, value_parser = catch_up)]
    pub(crate) catch_up: CatchUp,
    /// Spread the ticks: each fires up to so much later, always the same for the same tick
    #[arg(long, value_name = "DURATION", value_parser = duration_text)]
    pub(crate) jitter: Option<String>,
    /// A parameter's value; repeatable
    #[arg(long = "param", value_name = "K=V", value_parser = param)]
    pub(crate) params: Vec<(String, String)>,
    /// Run on this node; repeatable [default: as many matching nodes as the pipeline's `count`]
    #[arg(long = "node", value_name = "NODE")]
    pub(crate) nodes: Vec<NodeName>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct EdgeCommand {
    #[command(flatten)]
    pub(crate) edge: EdgeArgs,
    /// How the log is written
    #[arg(long, value_enum, default_value_t = LogFormat::Human)]
    pub(crate) log: LogFormat,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DeployArgs {
    /// The pipeline file
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) pipeline: PathBuf,
    /// Wait until every connected node runs it, at most 2m or DURATION: exit 0 then, 1 when it failed somewhere, 5 at the deadline
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true,
          default_missing_value = "2m", value_parser = positive_duration)]
    pub(crate) wait: Option<Duration>,
    /// Say what would change, and change nothing
    #[arg(long, conflicts_with = "wait")]
    pub(crate) dry_run: bool,
    /// Only if the job is at this version; 0 = only if there is no such job
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Every job
    #[command(after_help = "Examples:\n  sluice job list\n  sluice job list --output json")]
    List {
        /// Only in this state: running, degraded, deploying, queued, completed, failed or stopped
        #[arg(long, value_name = "STATE")]
        state: Option<JobState>,
    },
    /// One job: its state, its executions, its pipeline
    #[command(after_help = "Examples:\n  sluice job describe field-temps")]
    Describe {
        /// The job
        job: JobName,
    },
    /// Start a stopped job
    #[command(after_help = "Examples:\n  sluice job start field-temps")]
    Start {
        /// The job
        job: JobName,
    },
    /// Stop a job and keep its state
    #[command(after_help = "Examples:\n  sluice job stop field-temps")]
    Stop {
        /// The job
        job: JobName,
    },
    /// Run every execution of a job anew: its next attempt
    ///
    /// State on the edges is kept. A quarantined or failed execution starts again, a stopped job is started.
    #[command(after_help = "Examples:\n  sluice job restart field-temps")]
    Restart {
        /// The job
        job: JobName,
    },
    /// The last 10 versions of a job: when, what changed, how it came about
    #[command(
        after_help = "Examples:\n  sluice job history field-temps\n  sluice job history field-temps --output json"
    )]
    History {
        /// The job
        job: JobName,
    },
    /// Go back to an earlier version: a new version with its content
    #[command(
        after_help = "Examples:\n  sluice job rollback field-temps\n  sluice job rollback field-temps --to 3"
    )]
    Rollback {
        /// The job
        job: JobName,
        /// The version to go back to [default: the newest that was good before it]
        #[arg(long, value_name = "VERSION")]
        to: Option<u64>,
    },
    /// Delete a job and its state on every edge
    #[command(
        after_help = "Examples:\n  sluice job delete field-temps\n  sluice job delete field-temps --yes"
    )]
    Delete {
        /// The job
        job: JobName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RolloutCommand {
    /// What happened, where it stands, what happens next
    ///
    /// Of a job whose version went to every node at once it says that there is no rollout, and ends with 0; with --output
    /// json that is `null`. It ends with 3 when there is no such job.
    #[command(after_help = "Examples:\n  sluice rollout status field-temps")]
    Status {
        /// The job
        job: JobName,
    },
    /// Start nothing more; what has the new version keeps it
    #[command(after_help = "Examples:\n  sluice rollout pause field-temps")]
    Pause {
        /// The job
        job: JobName,
    },
    /// Go on after a pause, in spite of the failures so far
    #[command(after_help = "Examples:\n  sluice rollout resume field-temps")]
    Resume {
        /// The job
        job: JobName,
    },
    /// Give the new version to every node at once
    #[command(after_help = "Examples:\n  sluice rollout promote field-temps")]
    Promote {
        /// The job
        job: JobName,
    },
    /// Bring the version before back, as a new version
    #[command(after_help = "Examples:\n  sluice rollout abort field-temps")]
    Abort {
        /// The job
        job: JobName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ExecutionCommand {
    /// Executions, by job and node
    #[command(
        after_help = "Examples:\n  sluice execution list --job field-temps\n  sluice execution list --node e1 --all"
    )]
    List {
        /// Only of this job
        #[arg(long, value_name = "JOB")]
        job: Option<JobName>,
        /// Only on this node
        #[arg(long, value_name = "NODE")]
        node: Option<NodeName>,
        /// Only in this state: pending, running, completed, failed, stopped, lost or quarantined
        #[arg(long, value_name = "STATE")]
        state: Option<ExecutionState>,
        /// Also those that are stopped or being deleted
        #[arg(long)]
        all: bool,
    },
    /// One execution
    #[command(after_help = "Examples:\n  sluice execution describe field-temps/e1")]
    Describe {
        /// Its id, or JOB/NODE
        #[arg(value_name = "ID|JOB/NODE")]
        execution: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Every node, or those with a state or a label
    #[command(
        after_help = "Examples:\n  sluice node list\n  sluice node list --state lost --label site=plant-7 --output json"
    )]
    List {
        /// Only in this state: connected, disconnected, lost or held
        #[arg(long, value_name = "STATE")]
        state: Option<NodeState>,
        /// Only with this label; without a value: with any
        #[arg(long, value_name = "KEY[=VALUE]")]
        label: Option<String>,
    },
    /// One node and what runs there
    #[command(after_help = "Examples:\n  sluice node describe e1")]
    Describe {
        /// The node
        node: NodeName,
    },
    /// Shut a node out: its session is cut, its work stops, its data is kept
    ///
    /// Its assignments are kept for it. With a token made by `sluice token create --node NODE` it comes back to them,
    /// under its name and id, with a new key.
    #[command(
        after_help = "Examples:\n  sluice node revoke e1\n  sluice node revoke e1 --yes\n  \
        sluice token create --node e1      # lets it back in: sluice edge --state-dir DIR --join TOKEN"
    )]
    Revoke {
        /// The node
        node: NodeName,
    },
    /// Forget a node and its executions; not while it is connected
    ///
    /// An edge that still calls as this node is turned away: it stops its work and keeps its data.
    #[command(after_help = "Examples:\n  sluice node delete e1\n  sluice node delete e1 --yes")]
    Delete {
        /// The node
        node: NodeName,
    },
    /// Set labels of a node, or take them away
    ///
    /// What is set or taken away here wins over what the edge says of itself, and holds over its reconnects and
    /// restarts. Jobs whose selector a node no longer matches are stopped there.
    #[command(
        after_help = "Examples:\n  sluice node label e1 site=plant-7 line=3\n  sluice node label e1 line-      # takes `line` away"
    )]
    Label {
        /// The node
        node: NodeName,
        /// A label to set, K=V, or to take away, K-
        #[arg(value_name = "K=V|K-", required = true)]
        labels: Vec<LabelChange>,
    },
    /// Let a node take no new executions; what runs there runs on. Needs a token with the role admin
    #[command(after_help = "Examples:\n  sluice node cordon e1")]
    Cordon {
        /// The node
        node: NodeName,
    },
    /// Let a cordoned or drained node take executions again
    #[command(after_help = "Examples:\n  sluice node uncordon e1")]
    Uncordon {
        /// The node
        node: NodeName,
    },
    /// Let a node take no new executions, and stop all that it has
    ///
    /// Needs a token with the role admin. Their state stays on the node. An edge that is away stops them when it returns. With --deadline: waits until
    /// all have stopped, and ends with 5 naming those that have not; the order stands.
    #[command(
        after_help = "Examples:\n  sluice node drain e1\n  sluice node drain e1 --deadline 2m\n  sluice node uncordon e1      # ends it"
    )]
    Drain {
        /// The node
        node: NodeName,
        /// Wait for so long at most until everything has stopped
        #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
        deadline: Option<Duration>,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LogsArgs {
    /// The job
    #[arg(required_unless_present = "run")]
    pub(crate) job: Option<JobName>,
    /// The newest tries of this run's tasks instead of a job's executions; --follow ends when the run has
    #[arg(long, value_name = "ID", conflicts_with = "job")]
    pub(crate) run: Option<RunId>,
    /// Only from this node
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<NodeName>,
    /// The newest lines of each execution
    #[arg(long, value_name = "N", default_value_t = sluice_api::LOG_TAIL_DEFAULT,
          value_parser = clap::value_parser!(u32).range(0..=i64::from(sluice_api::LOG_TAIL_MAX)))]
    pub(crate) tail: u32,
    /// Only lines that are no older than this, by each edge's clock
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    pub(crate) since: Option<Duration>,
    /// Only lines of this stage: none of the runner, no records
    #[arg(long, value_name = "NAME")]
    pub(crate) stage: Option<StageName>,
    /// Go on with every line that comes
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[cfg(test)]
mod tests;
