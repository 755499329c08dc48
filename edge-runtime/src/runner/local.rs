//! One pipeline in this process, with no cluster at all: `sluice pipeline run`.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::output_task::blocking;
use super::{Counters, End, ExecutionPlan, PrepareError, RunnerContext, RunnerEvent, prepare};

/// Runs one execution to its end and returns how it ended; `stop` ends it gracefully. Nothing is tried again: what an
/// edge would wait for is an error in front of a person.
pub async fn run_local(
    context: &RunnerContext,
    plan: ExecutionPlan,
    stop: CancellationToken,
) -> Result<(End, Counters), PrepareError> {
    let preparing = context.clone();
    let prepared = blocking(move || prepare(&preparing, plan, &mut |_| {})).await?;
    let (events, mut ended) = mpsc::channel(2);
    let running = prepared.start(&tokio::runtime::Handle::current(), events);
    loop {
        tokio::select! {
            event = ended.recv() => match event {
                Some(RunnerEvent::Ended { end, counters, .. }) => return Ok((end, counters)),
                Some(RunnerEvent::Running { .. }) => {}
                None => {
                    let message = "the execution ended without a word".to_owned();
                    return Ok((End::Crashed { message }, running.counters()));
                }
            },
            () = stop.cancelled() => {
                running.stop();
                // From here on only the end matters.
                while let Some(event) = ended.recv().await {
                    if let RunnerEvent::Ended { end, counters, .. } = event {
                        return Ok((end, counters));
                    }
                }
            }
        }
    }
}
