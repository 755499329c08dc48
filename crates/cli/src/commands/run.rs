//! `sluice run`: launches of batch jobs.

mod check;
mod stdin;

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_api::{Run, RunFilter, RunLaunch, routes};
use sluice_model::{RunId, RunState, TaskState};

use crate::args::{Format, RunLaunchArgs};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::render;
use crate::wait::{self, Look, Waiting, Watched};

/// How often a launch is sent when no answer came, or none that lasts: its key makes it the same run.
const SENDS_MAX: u32 = 5;

/// Time before it is sent again, once more for each time: a restart takes about as long as all of them.
const SEND_PAUSE: Duration = Duration::from_millis(150);

/// Launches, prints the run's id, and waits for its end when that is asked for.
pub(super) async fn launch(client: &Client, out: &Out, args: RunLaunchArgs) -> Result<(), Failure> {
    let params = params_of(args.params)?;
    let mut request = RunLaunch {
        jobs: args.jobs,
        params,
        nodes: args.nodes,
        stdin: None,
    };
    if let Some(from) = &args.stdin {
        stdin::readable(from)?;
        // With a key it may be a run that was launched before, whatever has become of its jobs since.
        if args.key.is_none() {
            check::check(client, &request).await?;
        }
        request.stdin = Some(stdin::bring(client, out, from).await?);
    }
    let key = match args.key {
        Some(key) => key,
        None => new_key()?,
    };
    let post = async || {
        client
            .post_json_keyed::<Run>(routes::RUNS, &request, &key)
            .await
    };
    let run = send(&key, post).await?;
    // With a wait at once, too: whoever is cut off while waiting knows what to ask for. JSON is one document, the last.
    if args.wait.is_none() || out.format == Format::Table {
        out.show(&run, |_| format!("{}\n", run.id))?;
    }
    match args.wait {
        None => Ok(()),
        Some(wait) => waited(client, out, run.id, wait).await,
    }
}

/// What `--param` said, each name once.
pub(crate) fn params_of(list: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Failure> {
    let mut params = BTreeMap::new();
    for (name, value) in list {
        if params.insert(name.clone(), value).is_some() {
            return Err(Failure::invalid(format!("--param {name} is there twice")));
        }
    }
    Ok(params)
}

/// Posts a launch until it is answered with something that lasts. Each time is the same request, by its key.
async fn send<T>(
    key: &str,
    mut post: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut sent = 1;
    loop {
        let failure = match post().await {
            Err(failure) if failure.may_pass => failure,
            answered => return answered,
        };
        if sent == SENDS_MAX {
            let again = format!(
                "repeat it with `--key {key}`: should it have been launched after all, that is the same run"
            );
            let help = match &failure.help {
                Some(help) => format!("{help}; {again}"),
                None => again,
            };
            return Err(failure.with_help(help));
        }
        sent += 1;
        tokio::time::sleep(SEND_PAUSE * sent).await;
    }
}

fn new_key() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("this machine gives no random numbers: {error}"),
        )
    })?;
    Ok(RunId::from_random(bytes).to_string())
}

async fn waited(client: &Client, out: &Out, id: RunId, wait: Duration) -> Result<(), Failure> {
    let mut last: Option<Run> = None;
    let lasted = render::duration(wait);
    let late = Failure::new(
        Exit::TimedOut,
        format!("run {id} has not ended within {lasted}; it goes on"),
    )
    .with_help(format!("`sluice run describe {id}` says what it waits for"));
    let look = async || {
        let run: Run = client.get(&path(routes::RUN, id)).await?;
        let (state, open, end) = (run.state, lines(&run), render::run_end(&run));
        last = Some(run);
        match state {
            RunState::Pending | RunState::Running => Ok(Look::Missing(open)),
            RunState::Completed => Ok(Look::There(end)),
            RunState::Failed | RunState::Cancelled | RunState::TimedOut => {
                Err(Failure::new(Exit::Failed, end)
                    .with_detail(open.join("\n"))
                    .with_help(format!("`sluice run describe {id}` tells it task by task")))
            }
        }
    };
    let waiting = Waiting {
        doing: format!("waiting for run {id}"),
        watched: Watched::Run(id),
        within: wait,
        late,
    };
    let result = wait::until(client, out, waiting, look).await;
    if let Some(run) = &last
        && out.format == Format::Json
    {
        out.show(run, |_| String::new())?;
    }
    // Standard output has the id alone, so this is talk.
    result.map(|end| out.say(&end))
}

/// What of a run is not done, a line for each task.
fn lines(run: &Run) -> Vec<String> {
    let open = run
        .tasks
        .iter()
        .filter(|task| task.state != TaskState::Completed);
    open.map(render::run_task_line).collect()
}

pub(super) async fn list(
    client: &Client,
    out: &Out,
    filter: &RunFilter,
    items_max: u32,
) -> Result<(), Failure> {
    let items_max = usize::try_from(items_max).unwrap_or(usize::MAX);
    let runs: Vec<Run> = client.list(routes::RUNS, filter, items_max).await?;
    if runs.is_empty() && out.format == Format::Table {
        out.say("no run");
        return Ok(());
    }
    out.show(&runs, |style| render::runs(style, &runs))
}

pub(super) async fn describe(client: &Client, out: &Out, id: RunId) -> Result<(), Failure> {
    let run: Run = client.get(&path(routes::RUN, id)).await?;
    out.show(&run, |style| render::run_detail(style, &run))
}

pub(super) async fn cancel(client: &Client, out: &Out, id: RunId) -> Result<(), Failure> {
    let run: Run = client.post(&path(routes::RUN_CANCEL, id)).await?;
    out.show(&run, |_| {
        format!("run {id} is called off, it is {}\n", run.state)
    })
}

fn path(template: &str, id: RunId) -> String {
    routes::fill(template, &[&id.to_string()])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sluice_api::{ErrorBody, ErrorCode};

    use super::*;

    fn answer(code: ErrorCode) -> Failure {
        ErrorBody::new(code, "not now").with_help("wait").into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_launch_is_sent_again_until_an_answer_lasts() {
        for busy in [
            answer(ErrorCode::Unavailable),
            answer(ErrorCode::RateLimited),
            Failure::new(Exit::Unreachable, "nobody is there"),
        ] {
            let mut answers = vec![Ok(7), Err(busy.clone())];
            let sent = send("k", async || answers.pop().unwrap()).await;
            assert_eq!((sent, answers.len()), (Ok(7), 0));
        }
        let mut answers = vec![Ok(7), Err(answer(ErrorCode::Invalid))];
        let sent = send("k", async || answers.pop().unwrap()).await;
        assert_eq!(sent, Err(answer(ErrorCode::Invalid)), "that will not pass");
    }

    #[tokio::test(start_paused = true)]
    async fn a_launch_without_an_answer_says_how_to_find_its_run() {
        let mut sends = 0;
        let sent = send::<()>("k7", async || {
            sends += 1;
            Err(answer(ErrorCode::Unavailable))
        })
        .await
        .unwrap_err();
        assert_eq!(sends, SENDS_MAX);
        assert_eq!(sent.exit, Exit::Failed);
        let help = sent.help.unwrap();
        assert!(
            help.starts_with("wait; repeat it with `--key k7`"),
            "{help}"
        );
    }
}
