//! `sluice logs`: the newest lines once, or everything as it comes.

use sluice_api::{AbsentNode, LogEvent, LogLine, Logs, LogsQuery, routes};

use crate::args::{Format, LogsArgs};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::out::{Out, Reader};
use crate::render;

pub(super) async fn logs(client: &Client, out: &Out, args: LogsArgs) -> Result<(), Failure> {
    let query = LogsQuery {
        node: args.node,
        tail: Some(args.tail),
        age_ms_max: args
            .since
            .map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        stage: args.stage,
    };
    let (once, followed, whose) = match (&args.run, &args.job) {
        (Some(run), _) => (routes::RUN_LOGS, routes::RUN_LOGS_FOLLOW, run.to_string()),
        (None, Some(job)) => (routes::JOB_LOGS, routes::JOB_LOGS_FOLLOW, job.to_string()),
        (None, None) => return Err(Failure::invalid("name a job, or a run with --run")),
    };
    if args.follow {
        let path = routes::fill(followed, &[&whose]);
        return follow(client, out, &path, &query).await;
    }
    let path = routes::fill(once, &[&whose]);
    let logs: Logs = client.get_with(&path, &query).await?;
    out.show(&logs.lines, |_| logs.lines.iter().map(line_text).collect())?;
    for absent in &logs.absent {
        out.say(&absent_text(absent));
    }
    Ok(())
}

/// Shows events until the last one, or until nobody reads them.
async fn follow(client: &Client, out: &Out, path: &str, query: &LogsQuery) -> Result<(), Failure> {
    let mut stream = client.stream(path, query).await?;
    let mut text = String::new();
    while let Some(lines) = stream.lines().await? {
        text.clear();
        let mut end = None;
        for line in lines {
            let event: LogEvent = match serde_json::from_slice(&line) {
                Ok(event) => event,
                Err(error) => return Err(client.not_sluice(&error)),
            };
            match out.format {
                Format::Json => {
                    text.push_str(&String::from_utf8_lossy(&line));
                    text.push('\n');
                }
                Format::Table => text.push_str(&event_text(&event)),
            }
            match event {
                LogEvent::Line(_) | LogEvent::Dropped { .. } => {}
                LogEvent::Absent(absent) => out.say(&absent_text(&absent)),
                LogEvent::Back { node } => out.say(&format!("{node} is back")),
                LogEvent::End { why } => end = Some(why),
            }
        }
        if out.piece(&text)? == Reader::Gone {
            return Ok(());
        }
        if let Some(why) = end {
            out.say(&format!("nothing follows: {}", render::clean(&why)));
            return Ok(());
        }
    }
    Err(
        Failure::new(Exit::Unreachable, "the orchestrator ended the connection")
            .with_help("follow again, with --since to see what came meanwhile"),
    )
}

/// What of an event belongs to the results, as lines.
fn event_text(event: &LogEvent) -> String {
    match event {
        LogEvent::Line(line) => line_text(line),
        LogEvent::Dropped { node, lines, .. } => format!("{node} ... {lines} lines dropped\n"),
        LogEvent::Absent(_) | LogEvent::Back { .. } | LogEvent::End { .. } => String::new(),
    }
}

fn line_text(line: &LogLine) -> String {
    let stage = match &line.stage {
        Some(stage) => format!(" {stage}:"),
        None => String::new(),
    };
    format!(
        "{} {} {}{stage} {}\n",
        line.at,
        line.node,
        line.level.as_str(),
        render::clean(&line.message)
    )
}

fn absent_text(absent: &AbsentNode) -> String {
    format!(
        "nothing from {}: {}",
        absent.node,
        render::clean(&absent.why)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn lines_have_their_node_in_front_and_drops_their_number() {
        let line: LogEvent = serde_json::from_str(
            r#"{"event":"line","at":"2026-11-01T10:00:00Z","node":"e1","execution":"00000000-0000-4000-8000-000000000001","level":"warn","stage":"s","message":"a\u001b[2Jb"}"#,
        )
        .unwrap();
        let text = event_text(&line);
        assert!(text.contains(" e1 warn s: a"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
        let dropped: LogEvent = serde_json::from_str(
            r#"{"event":"dropped","node":"e1","execution":"00000000-0000-4000-8000-000000000001","lines":12}"#,
        )
        .unwrap();
        assert_eq!(event_text(&dropped), "e1 ... 12 lines dropped\n");
    }
}
