//! `sluice run output`: what a run's tasks wrote.

use std::time::Duration;

use sluice_api::{OutputState, TaskOutput, routes};
use sluice_model::{JobName, NodeName, RunId};

use crate::args::{Format, RunOutputArgs};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::out::{Out, Reader};
use crate::render;
use crate::wait::{self, Look, Waiting, Watched};

/// How long an output that is on its way is waited for without being asked to: from a connected edge it takes less.
const SETTLE: Duration = Duration::from_secs(3);

pub(super) async fn output(client: &Client, out: &Out, args: RunOutputArgs) -> Result<(), Failure> {
    let RunOutputArgs { id, task, wait } = args;
    let outputs = match wait {
        Some(within) => waited(client, out, id, task.as_ref(), within).await?,
        None => settled(client, out, id, task.as_ref()).await?,
    };
    if out.format == Format::Json {
        return out.json(&outputs);
    }
    let mut missing = Vec::new();
    for output in &outputs {
        if output.state != OutputState::Held {
            missing.push(missing_text(output));
            continue;
        }
        if outputs.len() > 1 {
            out.say(&format!("{}:", name(output)));
        }
        if write(client, out, id, output).await? == Reader::Gone {
            return Ok(());
        }
        if output.truncated {
            out.say(&format!(
                "{} is truncated: {} records at its end found no room",
                name(output),
                output.dropped_records
            ));
        }
    }
    match missing.as_slice() {
        [] => Ok(()),
        [one] if outputs.len() == 1 => Err(Failure::new(Exit::Failed, one.clone())),
        some => {
            let message = format!(
                "{} of {} outputs of run {id} are not there",
                some.len(),
                outputs.len()
            );
            Err(Failure::new(Exit::Failed, message).with_detail(some.join("\n")))
        }
    }
}

async fn look(
    client: &Client,
    id: RunId,
    task: Option<&(JobName, NodeName)>,
) -> Result<Vec<TaskOutput>, Failure> {
    let path = routes::fill(routes::RUN_OUTPUT, &[&id.to_string()]);
    let mut outputs: Vec<TaskOutput> = client.get(&path).await?;
    if let Some((job, node)) = task {
        outputs.retain(|output| output.job == *job && output.node.as_ref() == Some(node));
        if outputs.is_empty() {
            let message = format!("run {id} has no task of {job} on {node}");
            let help = format!("`sluice run describe {id}` lists its tasks");
            return Err(Failure::new(Exit::NotFound, message).with_help(help));
        }
    }
    Ok(outputs)
}

/// Looks until everything is there or will not be.
async fn waited(
    client: &Client,
    out: &Out,
    id: RunId,
    task: Option<&(JobName, NodeName)>,
    within: Duration,
) -> Result<Vec<TaskOutput>, Failure> {
    let lasted = render::duration(within);
    let late = Failure::new(
        Exit::TimedOut,
        format!("the output of run {id} was not there within {lasted}; it comes all the same"),
    )
    .with_help(format!(
        "`sluice run describe {id}` says what its tasks wait for"
    ));
    let open =
        |output: &&TaskOutput| matches!(output.state, OutputState::Pending | OutputState::Coming);
    let look = async || {
        let outputs = look(client, id, task).await?;
        let missing: Vec<String> = outputs.iter().filter(open).map(missing_text).collect();
        Ok(match missing.as_slice() {
            [] => Look::There(outputs),
            _ => Look::Missing(missing),
        })
    };
    wait::until(client, out, waiting(id, within, late), look).await
}

/// Looks; what is on its way has a moment to arrive.
async fn settled(
    client: &Client,
    out: &Out,
    id: RunId,
    task: Option<&(JobName, NodeName)>,
) -> Result<Vec<TaskOutput>, Failure> {
    let mut last = look(client, id, task).await?;
    let coming = |outputs: &[TaskOutput]| {
        outputs
            .iter()
            .any(|output| output.state == OutputState::Coming)
    };
    if !coming(&last) {
        return Ok(last);
    }
    let look = async || {
        last = look(client, id, task).await?;
        Ok(if coming(&last) {
            Look::Missing(Vec::new())
        } else {
            Look::There(())
        })
    };
    let late = Failure::new(Exit::TimedOut, String::new());
    match wait::until(client, out, waiting(id, SETTLE, late), look).await {
        Err(failure) if failure.exit != Exit::TimedOut => Err(failure),
        _ => Ok(last),
    }
}

fn waiting(id: RunId, within: Duration, late: Failure) -> Waiting {
    Waiting {
        doing: format!("waiting for the output of run {id}"),
        watched: Watched::Run(id),
        within,
        late,
    }
}

async fn write(
    client: &Client,
    out: &Out,
    id: RunId,
    output: &TaskOutput,
) -> Result<Reader, Failure> {
    let node = output.node.as_ref().map_or("", |node| node.as_str());
    let parts = [&id.to_string(), output.job.as_str(), node];
    let path = routes::fill(routes::RUN_TASK_OUTPUT, &parts);
    let mut bytes = client.download(&path).await?;
    while let Some(piece) = bytes.next().await? {
        if out.bytes(&piece)? == Reader::Gone {
            return Ok(Reader::Gone);
        }
    }
    Ok(Reader::There)
}

fn name(output: &TaskOutput) -> String {
    let node = output.node.as_ref().map_or("no node", |node| node.as_str());
    format!("the output of {} on {node}", output.job)
}

/// Why an output is not there, and what happens next.
fn missing_text(output: &TaskOutput) -> String {
    let what = match output.state {
        OutputState::Pending | OutputState::Coming => "is not here yet",
        OutputState::Gone => "is gone",
        OutputState::None | OutputState::Held => "does not exist",
    };
    let mut text = format!("{} {what}", name(output));
    if let Some(reason) = &output.reason {
        text.push_str(&format!(": {reason}"));
    }
    if let Some(next) = &output.next_action {
        text.push_str(&format!("; next: {next}"));
    }
    render::clean(&text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sluice_model::{Attempt, TaskState};

    use super::*;

    #[test]
    fn what_is_not_there_says_why_and_when_it_comes() {
        let mut output = TaskOutput {
            job: "triage".parse().unwrap(),
            node: Some("e1".parse().unwrap()),
            task_state: TaskState::Completed,
            attempt: Attempt(1),
            execution: None,
            state: OutputState::Coming,
            bytes: Some(1),
            digest: None,
            truncated: false,
            dropped_records: 0,
            reason: Some("it is on e1, which is not connected".to_owned()),
            next_action: Some("when e1 connects".to_owned()),
            since: None,
        };
        assert_eq!(
            missing_text(&output),
            "the output of triage on e1 is not here yet: it is on e1, which is not connected; next: when e1 connects"
        );
        output.state = OutputState::Gone;
        output.reason = Some("made\u{1b}[2J room".to_owned());
        (output.node, output.next_action) = (None, None);
        let text = missing_text(&output);
        assert!(
            text.starts_with("the output of triage on no node is gone: made"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
