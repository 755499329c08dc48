//! The life of one started execution: open, run, and one end for every way in which its tasks can end.
//!
//! ```text
//!   opening --> running --> draining (input closed, at most 10 s) --> ended
//!      |           |            |
//!      +-----------+------------+---> a task failed or died: the others stop, what is acked is kept
//! ```

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use sluice_connectors::{Input, InputError, Output, OutputError, OutputPosition, StdoutTarget};
use sluice_doctor::with_causes;
use sluice_model::FailReason;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::checkpoint::{Checkpoint, CheckpointError};
use super::counters::{Counters, Tally};
use super::flow::{Flight, IN_FLIGHT_BATCHES_MAX, InputRan, InputTask, run_input};
use super::kept;
use super::log::{Log, LogLevel};
use super::output_task::{OutputFault, OutputTask, Progress, blocking};
use super::prepare::Prepared;
use super::stages::{StagesFault, StagesRan, StagesTask, run_stages};
use super::{End, ExecutionPlan, RunnerEvent};

/// How long a stopped execution may take to bring what it has read to its output.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long the last log lines may take to reach the disk; they are diagnostic.
const LOG_FLUSH_MAX: Duration = Duration::from_secs(2);

/// A handle on a started execution. Dropping it stops the execution as [`RunningExecution::stop`] does.
pub struct RunningExecution {
    plan: Arc<ExecutionPlan>,
    tally: Arc<Tally>,
    stop: DropGuard,
}

impl RunningExecution {
    /// Which execution, version and attempt.
    pub fn plan(&self) -> &ExecutionPlan {
        &self.plan
    }

    /// Closes the input, drains for at most 10 s, saves the checkpoint, then cuts. Returns at once; `Ended` follows.
    pub fn stop(&self) {
        self.stop.token().cancel();
    }

    /// What it counts, to be read whenever somebody asks.
    pub(crate) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// The counters now; cheap.
    pub fn counters(&self) -> Counters {
        self.tally.read()
    }
}

impl Prepared {
    /// Opens input and output and moves records until an end. Everything runs on `runtime` and the guest threads;
    /// the call itself does not block. An older version of the same execution must have ended before.
    pub fn start(
        self,
        runtime: &tokio::runtime::Handle,
        events: mpsc::Sender<RunnerEvent>,
    ) -> RunningExecution {
        let stop = CancellationToken::new();
        let plan = Arc::new(self.plan.clone());
        let tally = Arc::clone(&self.tally);
        let running = RunningExecution {
            plan: Arc::clone(&plan),
            tally: Arc::clone(&tally),
            stop: stop.clone().drop_guard(),
        };
        let life = runtime.spawn(live(self, stop, events.clone()));
        runtime.spawn(async move {
            let (end, counters) = match life.await {
                Ok(ended) => ended,
                Err(error) => (End::Crashed { message: join_text(error) }, tally.read()),
            };
            tracing::info!(event = "execution.ended", execution = %plan.execution, version = plan.version.0, attempt = plan.attempt.0, end = ?end);
            let (execution, version, attempt) = (plan.execution, plan.version, plan.attempt);
            // Nobody listens any more: the process is on its way out.
            let _ = events.send(RunnerEvent::Ended { execution, version, attempt, end, counters }).await;
        });
        running
    }
}

/// From opening to the end.
async fn live(
    prepared: Prepared,
    stop: CancellationToken,
    events: mpsc::Sender<RunnerEvent>,
) -> (End, Counters) {
    let Prepared {
        context,
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
    } = prepared;
    let keeps_output = matches!(stdout, StdoutTarget::Kept { .. });
    // Where a stage reports, everything starts over: no harm only where what was written is taken back.
    let resumes = input.resumes() && (!reports || keeps_output);
    let log_done = CancellationToken::new();
    let logging = tokio::spawn(log_writer.run(log_done.clone()));

    let opened = async {
        let options = &context.inner.options;
        let checkpoint = resume(&plan, input.ends(), reports, &log).await?;
        tally.resume(&checkpoint.counters);
        let stdin = options.console.as_ref().map(|console| &console.stdin);
        // First, since opening an input may begin something: a command is not run for an output that is not there.
        let position = output_position(&checkpoint);
        let output = Output::open(output, position, &options.allowed, &stdout).await?;
        let input = Input::open(
            input,
            checkpoint.input,
            &options.allowed,
            &options.commands,
            stdin,
        )
        .await?;
        Ok::<_, OpenError>((checkpoint, input, output))
    };
    let ended = match opened.await {
        Err(error) => {
            let message = with_causes(&error);
            (End::Backoff { message }, tally.read())
        }
        Ok((checkpoint, input, output)) => {
            let (free, reused) = mpsc::channel::<Box<Flight>>(IN_FLIGHT_BATCHES_MAX);
            let halt = stop.child_token();
            let input_task = InputTask {
                input,
                free: reused,
                to: lane.0,
                tally: Arc::clone(&tally),
                stop: halt.clone(),
                reports,
            };
            let stages_task = StagesTask {
                stages: chain,
                lane: lane.1,
                tally: Arc::clone(&tally),
                log: log.clone(),
                stop: halt.clone(),
            };
            let output_task = OutputTask {
                output,
                from: passed,
                free,
                stages,
                state_dir: plan.state_dir.clone(),
                checkpoint,
                reports,
                tally: Arc::clone(&tally),
                log: log.clone(),
                progress: Progress::default(),
            };
            log.runner(
                LogLevel::Info,
                format!("version {} attempt {} runs", plan.version, plan.attempt),
            );
            let running = RunnerEvent::Running {
                execution: plan.execution,
                version: plan.version,
                attempt: plan.attempt,
                counters: tally.read(),
            };
            let mut tasks = JoinSet::new();
            tasks.spawn(async { Ran::Output(output_task.run(events, running).await) });
            tasks.spawn(async { Ran::Stages(run_stages(stages_task).await) });
            tasks.spawn(async { Ran::Input(run_input(input_task).await) });
            run(tasks, halt, resumes, &tally, &log).await
        }
    };

    let (end, mut counters) = ended;
    if keeps_output {
        let state_dir = plan.state_dir.clone();
        match blocking(move || kept::close(&state_dir)).await {
            Ok(facts) => counters.output = facts,
            Err(error) => log.runner(
                LogLevel::Error,
                format!("its output cannot be read any more: {error}"),
            ),
        }
    }
    log.runner(end.level(), end.to_string());
    drop(log);
    log_done.cancel();
    // A disk that does not answer must not keep an ended execution from being told of.
    let _ = tokio::time::timeout(LOG_FLUSH_MAX, logging).await;
    (end, counters)
}

/// Where the output goes on. A kept one goes with its input: when that has no position, all of it comes again.
fn output_position(checkpoint: &Checkpoint) -> Option<OutputPosition> {
    match checkpoint.output {
        Some(OutputPosition::Kept { .. }) if checkpoint.input.is_none() => None,
        position => position,
    }
}

/// How one task ended.
enum Ran {
    Input(Result<InputRan, InputError>),
    Stages(Result<StagesRan, StagesFault>),
    Output((Counters, Result<(), OutputFault>)),
}

/// Waits for the tasks, stops the others when one failed, cuts when draining takes too long.
async fn run(
    mut tasks: JoinSet<Ran>,
    halt: CancellationToken,
    resumes: bool,
    tally: &Tally,
    log: &Log,
) -> (End, Counters) {
    let mut verdict = Verdict::default();
    let cut = async {
        halt.cancelled().await;
        tokio::time::sleep(DRAIN_MAX).await;
    };
    tokio::pin!(cut);
    let mut was_cut = false;
    loop {
        let joined = tokio::select! {
            joined = tasks.join_next() => joined,
            () = &mut cut, if !was_cut => {
                was_cut = true;
                log.runner(LogLevel::Warn, format!("cut after {DRAIN_MAX:?}: what is not acked is repeated by the next start"));
                tasks.abort_all();
                continue;
            }
        };
        match joined {
            None => break,
            Some(Ok(ran)) => {
                if verdict.add(ran) == Others::Stop {
                    halt.cancel();
                }
            }
            Some(Err(error)) if error.is_cancelled() => {}
            Some(Err(error)) => {
                verdict.crashed.get_or_insert_with(|| join_text(error));
                halt.cancel();
                tasks.abort_all();
            }
        }
    }
    let counters = verdict.counters.map_or_else(
        || tally.read(),
        |acked| Counters {
            records_in: acked.records_in,
            records_out: acked.records_out,
            dead_letters: acked.dead_letters,
            ..tally.read()
        },
    );
    (verdict.end(resumes), counters)
}

/// What is known of the end so far.
#[derive(Default)]
struct Verdict {
    crashed: Option<String>,
    stages: Option<Result<StagesRan, StagesFault>>,
    output: Option<OutputFault>,
    input: Option<Result<InputRan, InputError>>,
    counters: Option<Counters>,
}

/// Whether the other tasks should go on by themselves.
#[derive(PartialEq, Eq)]
enum Others {
    GoOn,
    Stop,
}

impl Verdict {
    fn add(&mut self, ran: Ran) -> Others {
        let failed = match ran {
            Ran::Input(result) => {
                self.input = Some(result);
                // Its end is the channel's end: what was read is still handled.
                false
            }
            Ran::Stages(result) => {
                let failed = result.is_err();
                self.stages = Some(result);
                failed
            }
            Ran::Output((counters, result)) => {
                self.counters = Some(counters);
                self.output = result.err();
                self.output.is_some()
            }
        };
        if failed { Others::Stop } else { Others::GoOn }
    }

    /// The worst that happened counts; `resumes` says that the input goes on where it was.
    fn end(self, resumes: bool) -> End {
        if let Some(message) = self.crashed {
            return End::Crashed { message };
        }
        match &self.stages {
            Some(Err(StagesFault::Fatal(fault))) => {
                return End::Failed {
                    reason: FailReason::Fatal,
                    message: fault.to_string(),
                };
            }
            Some(Err(StagesFault::Host(fault))) => {
                return End::Crashed {
                    message: fault.to_string(),
                };
            }
            Some(Ok(_)) | None => {}
        }
        match self.output {
            Some(OutputFault::Output(error @ OutputError::Closed { .. })) => {
                return End::Failed {
                    reason: FailReason::Cancelled,
                    message: error.to_string(),
                };
            }
            Some(fault) => {
                return End::Backoff {
                    message: with_causes(&fault),
                };
            }
            None => {}
        }
        match (self.input, self.stages, self.counters) {
            (Some(Err(error)), ..) => End::Backoff {
                message: with_causes(&error),
            },
            (Some(Ok(InputRan::Ended)), Some(Ok(StagesRan::Through)), Some(_)) => End::Completed,
            (_, _, Some(_)) if resumes => End::Stopped,
            _ => End::Cut,
        }
    }
}

/// Why an execution could not open its parts.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("cannot make the state directory of this execution: {0}")]
    StateDir(std::io::Error),
    #[error(transparent)]
    Input(#[from] InputError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// The checkpoint to continue from. Under another content an input with an end starts over and counting starts
/// anew; any other input goes on where it was. Where a stage reports, everything starts over: what it had gathered was in
/// the memory of its instance.
async fn resume(
    plan: &ExecutionPlan,
    input_ends: bool,
    reports: bool,
    log: &Log,
) -> Result<Checkpoint, OpenError> {
    let state_dir = plan.state_dir.clone();
    let stored = blocking(move || {
        std::fs::create_dir_all(&state_dir).map_err(OpenError::StateDir)?;
        Ok::<_, OpenError>(Checkpoint::load(&state_dir))
    })
    .await?;
    let fresh = Checkpoint {
        content: plan.content,
        version: plan.version,
        input: None,
        output: None,
        counters: Counters::default(),
    };
    let stored = match stored {
        Ok(Some(stored)) => stored,
        Ok(None) => return Ok(fresh),
        Err(CheckpointError::Damaged) => {
            let message = "the checkpoint is damaged: starting over, records may be repeated";
            log.runner(LogLevel::Warn, message);
            return Ok(fresh);
        }
        Err(error) => return Err(error.into()),
    };
    if reports {
        log.runner(
            LogLevel::Info,
            "starts at the beginning of its input: a stage keeps what it gathers in memory",
        );
        return Ok(Checkpoint {
            output: stored.output,
            ..fresh
        });
    }
    if stored.content == plan.content {
        return Ok(Checkpoint {
            version: plan.version,
            ..stored
        });
    }
    let input = stored.input.filter(|_| !input_ends);
    Ok(Checkpoint {
        input,
        output: stored.output,
        ..fresh
    })
}

fn join_text(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => format!("a bug in sluice: {}", panic_text(&*panic)),
        Err(error) => error.to_string(),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
}
