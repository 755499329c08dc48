//! Listens to what the orchestrator tells its watchers (`GET /v1/events`), and again after it was cut off.

use std::time::Duration;

use futures_util::{Stream, stream};
use sluice_api::{Event, EventFilter, EventKind, routes};
use sluice_model::{JobName, NodeName, RunId};

use super::pace::Heard;
use crate::client::{Client, LineStream};

/// Time before a stream that could not be opened, or was cut, is opened again: a restart takes about as long, and looks
/// go on meanwhile.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// What a wait is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    /// A job, its executions, and the nodes that they are on.
    Job(JobName),
    /// A run, its tasks, and what they wrote.
    Run(RunId),
    /// A node, and what runs there.
    Node(NodeName),
}

impl Watched {
    /// What the orchestrator need not even send.
    fn filter(&self) -> EventFilter {
        EventFilter {
            kind: match self {
                Self::Run(_) => Some(EventKind::Run),
                Self::Job(_) | Self::Node(_) => None,
            },
            job: None,
        }
    }

    fn concerns(&self, event: &Event) -> bool {
        if matches!(event.kind, EventKind::All | EventKind::Missed) {
            return true;
        }
        match self {
            Self::Job(job) => event.kind == EventKind::Node || event.jobs.contains(job),
            Self::Run(run) => event.id.as_deref() == Some(&run.to_string()),
            Self::Node(node) => {
                event.node.as_ref() == Some(node)
                    || (event.kind == EventKind::Node
                        && event.name.as_deref() == Some(node.as_str()))
            }
        }
    }

    /// Whether a line of the stream is an event about it. An event of a kind that a newer orchestrator knows may be.
    fn is_told(&self, line: &[u8]) -> bool {
        let Some(data) = line.strip_prefix(b"data:") else {
            return false;
        };
        serde_json::from_slice(data).map_or(true, |event| self.concerns(&event))
    }
}

enum Ear<'a> {
    /// Opens the stream after this pause.
    Shut(Duration),
    Open(LineStream<'a>),
}

/// Hints about `watched`, for ever; nothing happens but when it is asked for the next, and an unfinished question is gone
/// on with.
pub(super) fn open<'a>(
    client: &'a Client,
    watched: &'a Watched,
) -> impl Stream<Item = Heard> + use<'a> {
    stream::unfold(Ear::Shut(Duration::ZERO), move |ear| async move {
        Some(next(client, watched, ear).await)
    })
}

async fn next<'a>(client: &'a Client, watched: &Watched, ear: Ear<'a>) -> (Heard, Ear<'a>) {
    match ear {
        Ear::Shut(mut pause) => loop {
            tokio::time::sleep(pause).await;
            pause = REOPEN_PAUSE;
            // Whatever keeps it from listening, looks find out what matters.
            if let Ok(lines) = client.stream(routes::EVENTS, &watched.filter()).await {
                return (Heard::Listening, Ear::Open(lines));
            }
        },
        Ear::Open(mut stream) => loop {
            match stream.lines().await {
                Ok(Some(lines)) => {
                    if lines.iter().any(|line| watched.is_told(line)) {
                        return (Heard::Hint, Ear::Open(stream));
                    }
                }
                Ok(None) | Err(_) => return (Heard::Cut, Ear::Shut(REOPEN_PAUSE)),
            }
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sluice_model::{ExecutionId, UnixMs};

    use super::*;

    #[test]
    fn what_concerns_a_wait_is_heard_and_nothing_else() {
        let (a, b): (JobName, JobName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let (e1, e2): (NodeName, NodeName) = ("e1".parse().unwrap(), "e2".parse().unwrap());
        let (r1, r2) = (RunId::from_random([1; 16]), RunId::from_random([2; 16]));
        let now = UnixMs(1);
        let execution = |job: &JobName, node: &NodeName| {
            Event::execution(
                ExecutionId::from_random([3; 16]),
                job.clone(),
                node.clone(),
                now,
            )
        };
        let events = [
            ("node e1", Event::node(&e1, now)),
            ("node e2", Event::node(&e2, now)),
            ("job a", Event::job(a.clone(), now)),
            ("job e1", Event::job("e1".parse().unwrap(), now)),
            ("a on e2", execution(&a, &e2)),
            ("b on e1", execution(&b, &e1)),
            ("run 1", Event::run(r1, vec![a.clone()], now)),
            ("run 2", Event::run(r2, vec![b.clone()], now)),
            ("all", Event::bare(EventKind::All, now)),
            ("missed", Event::bare(EventKind::Missed, now)),
        ];
        let heard = |watched: Watched| -> Vec<&str> {
            let told = events.iter().filter(|(_, event)| {
                let line = format!("data: {}", serde_json::to_string(event).unwrap());
                let told = watched.is_told(line.as_bytes());
                assert!(!told || watched.filter().fits(event), "{event:?}");
                told
            });
            told.map(|(name, _)| *name).collect()
        };
        assert_eq!(
            heard(Watched::Job(a)),
            [
                "node e1", "node e2", "job a", "a on e2", "run 1", "all", "missed"
            ]
        );
        assert_eq!(heard(Watched::Run(r2)), ["run 2", "all", "missed"]);
        assert_eq!(
            heard(Watched::Node(e1.clone())),
            ["node e1", "b on e1", "all", "missed"]
        );
        let watched = Watched::Node(e1);
        assert!(watched.is_told(br#"data: {"kind":"pool","at":"2026-11-01T10:00:00Z"}"#));
        for other in [&b": alive"[..], b"event: node", b"id: 1.2", b""] {
            assert!(!watched.is_told(other));
        }
    }
}
