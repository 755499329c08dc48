//! Everything about an execution that can fail before an older version has to stop.

use std::sync::Arc;

use sluice_connectors::{InputSettings, OutputSettings, PathError, StdoutTarget};
use sluice_doctor::with_causes;
use sluice_model::pipeline::{
    ENDLESS_REPORT, ENDLESS_REPORT_HELP, Stage, TemplateContext, TemplateError,
};
use sluice_model::{Digest, ObservedPhase, StageName};
use sluice_sandbox::{
    CallError, Chain, ConfigureCause, ConfigureError, InProcessChain, LoadError, StageLimits,
    StageSpec,
};

use tokio::sync::mpsc;

use super::counters::Tally;
use super::flow::Flight;
use super::kept;
use super::lane::{LaneInput, LaneOutput, LaneTaker, lane};
use super::log::{self, Log, LogLevel, LogWriter};
use super::stages::{StageLane, Stages};
use super::{ExecutionPlan, PrepareError, RunnerContext};

/// An execution that passed everything that can fail before it moves records.
pub struct Prepared {
    pub(super) context: RunnerContext,
    pub(super) plan: ExecutionPlan,
    pub(super) input: InputSettings,
    pub(super) output: OutputSettings,
    pub(super) stdout: StdoutTarget,
    pub(super) chain: Stages,
    /// Some stage has something to say at the end of the input, and keeps in memory what it gathers until then.
    pub(super) reports: bool,
    pub(super) lane: (LaneInput, LaneOutput),
    /// Where the stages put what passed.
    pub(super) passed: mpsc::UnboundedReceiver<Box<Flight>>,
    pub(super) stages: Arc<[(StageName, Digest)]>,
    pub(super) tally: Arc<Tally>,
    pub(super) log: Log,
    pub(super) log_writer: LogWriter,
}

/// Loads, compiles, instantiates and configures the stages and fills in the templates. Blocking, up to many seconds
/// for a first compile; `phase` hears `Compiling` and `Starting` as they begin. Touches neither input nor output, so an
/// older version may run on meanwhile. What stages log on the way is in the execution's log even if this fails.
pub fn prepare(
    context: &RunnerContext,
    plan: ExecutionPlan,
    phase: &mut dyn FnMut(ObservedPhase),
) -> Result<Prepared, PrepareError> {
    let tally = Arc::new(Tally::default());
    let listener = context
        .inner
        .options
        .console
        .as_ref()
        .map(|console| Arc::clone(&console.log));
    let (log, log_writer) = log::open(&plan.state_dir, &tally, listener);
    let stdout = match &context.inner.options.console {
        Some(console) => StdoutTarget::Stream(Arc::clone(&console.stdout)),
        None if plan.pipeline.batch.is_some() => StdoutTarget::Kept {
            path: kept::path(&plan.state_dir),
            bytes_max: sluice_model::OUTPUT_BYTES_MAX,
            log: Arc::new(log.clone()),
        },
        None => StdoutTarget::Log(Arc::new(log.clone())),
    };
    let prepared = settings(context, &plan).and_then(|settings| {
        let lane = lane();
        let (to, passed) = mpsc::unbounded_channel();
        let ends = (lane.1.taker(), to);
        let (chain, reports) = chain(
            context,
            &plan,
            &settings.configs,
            (&tally, &log),
            ends,
            phase,
        )?;
        if reports && !settings.input.ends() {
            let message = format!("{ENDLESS_REPORT}; {ENDLESS_REPORT_HELP}");
            return Err(PrepareError::Refused { message });
        }
        Ok((settings, (chain, reports), lane, passed))
    });
    match prepared {
        Ok((Settings { input, output, .. }, (chain, reports), lane, passed)) => {
            let names = plan.pipeline.stages.iter().map(|stage| stage.name.clone());
            let stages = names
                .zip(plan.components.iter().map(|(digest, _)| *digest))
                .collect();
            Ok(Prepared {
                context: context.clone(),
                plan,
                input,
                output,
                stdout,
                chain,
                reports,
                lane,
                passed,
                stages,
                tally,
                log,
                log_writer,
            })
        }
        Err(error) => {
            log.runner(
                LogLevel::Error,
                format!("version {} cannot start: {error}", plan.version),
            );
            log_writer.write_now();
            Err(error)
        }
    }
}

impl Prepared {
    /// What it was prepared from.
    pub fn plan(&self) -> &ExecutionPlan {
        &self.plan
    }
}

/// What the pipeline's text became on this node.
struct Settings {
    input: InputSettings,
    output: OutputSettings,
    /// For each stage, as JSON.
    configs: Vec<String>,
}

/// Fills in the templates and checks what can be checked of paths without touching them.
fn settings(context: &RunnerContext, plan: &ExecutionPlan) -> Result<Settings, PrepareError> {
    let options = &context.inner.options;
    let values = TemplateContext {
        node: &plan.node,
        labels: &plan.labels,
        job: &plan.job,
        execution: plan.execution,
        hostname: &options.hostname,
        params: &plan.params,
    };
    let template = |error: TemplateError| PrepareError::Configure {
        stage: None,
        message: error.to_string(),
    };
    let input = InputSettings::resolve(&plan.pipeline.input, &values).map_err(template)?;
    let input = match (input, &plan.stdin) {
        (InputSettings::Stdin, Some(path)) => InputSettings::KeptStdin { path: path.clone() },
        (input, _) => input,
    };
    let output = OutputSettings::resolve(&plan.pipeline.output, &values).map_err(template)?;
    let mut configs = Vec::with_capacity(plan.pipeline.stages.len());
    for stage in &plan.pipeline.stages {
        let config = stage
            .render_config(&values)
            .map_err(|error| PrepareError::Configure {
                stage: Some(stage.name.clone()),
                message: format!("stage {}: {error}", stage.name),
            })?;
        configs.push(config.to_string());
    }
    let refused = |error: PathError| PrepareError::Refused {
        message: error.to_string(),
    };
    match &input {
        InputSettings::File { path } => options.allowed.check(path).map_err(refused)?,
        InputSettings::Exec { command, .. } => {
            options
                .commands
                .find(command)
                .map_err(|error| PrepareError::Refused {
                    message: error.to_string(),
                })?;
        }
        InputSettings::Stdin if options.console.is_none() => {
            let message = sluice_connectors::InputError::NoStdin.to_string();
            return Err(PrepareError::Refused { message });
        }
        _ => {}
    }
    if let OutputSettings::File { path, .. } = &output {
        options.allowed.check(path).map_err(refused)?;
    }
    Ok(Settings {
        input,
        output,
        configs,
    })
}

/// Loads and configures the stages, and says whether any of them reports.
fn chain(
    context: &RunnerContext,
    plan: &ExecutionPlan,
    configs: &[String],
    (tally, log): (&Arc<Tally>, &Log),
    (lane, to): (LaneTaker, mpsc::UnboundedSender<Box<Flight>>),
    phase: &mut dyn FnMut(ObservedPhase),
) -> Result<(Stages, bool), PrepareError> {
    phase(ObservedPhase::Compiling);
    if plan.components.len() != plan.pipeline.stages.len() {
        let message = format!(
            "{} components came for {} stages",
            plan.components.len(),
            plan.pipeline.stages.len()
        );
        return Err(PrepareError::Refused { message });
    }
    let mut specs = Vec::with_capacity(plan.components.len());
    let stages = plan
        .pipeline
        .stages
        .iter()
        .zip(configs)
        .zip(&plan.components);
    for ((stage, config), (digest, file)) in stages {
        let loaded = context
            .inner
            .engine
            .load(digest.as_bytes(), || std::fs::read(file));
        let compiled = loaded.map_err(|error| load_error(stage, *digest, &error))?;
        specs.push(StageSpec {
            name: stage.name.to_string(),
            config_json: config.clone(),
            limits: StageLimits {
                memory_bytes_max: stage.limits.memory_bytes_max,
                deadline: stage.limits.deadline,
                ..StageLimits::default()
            },
            compiled,
        });
    }
    phase(ObservedPhase::Starting);
    if specs.is_empty() {
        return Ok((Stages::None(to), false));
    }
    let chain = InProcessChain::new(&context.inner.engine, specs, Arc::new(log.clone()));
    let chain = chain.map_err(configure_error)?;
    let reports = chain.endings() > 0;
    let chain = StageLane::new(chain, Arc::clone(tally), lane, to);
    let stages = Stages::Chain(context.inner.guests.add(Box::new(chain)));
    Ok((stages, reports))
}

fn load_error(stage: &Stage, digest: Digest, error: &LoadError) -> PrepareError {
    let message = format!("stage {}: {digest}: {}", stage.name, with_causes(error));
    match error {
        LoadError::Read(_) => PrepareError::Retry { message },
        LoadError::Digest { .. } => PrepareError::Corrupt { digest, message },
        _ => PrepareError::Refused { message },
    }
}

fn configure_error(error: ConfigureError) -> PrepareError {
    let message = with_causes(&error);
    match error.cause {
        ConfigureCause::Call(CallError::Host(_)) => PrepareError::Retry { message },
        _ => PrepareError::Configure {
            stage: error.stage.parse().ok(),
            message,
        },
    }
}
