//! What watchers are told: that something changed, not how it is now.

use serde::{Deserialize, Serialize};
use sluice_model::{ExecutionId, JobName, NodeName, RunId, ScheduleName, UnixMs};
use utoipa::ToSchema;

/// What a hint is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A node: its session, standing, labels or orders. What waits on it waits for other things now, too.
    Node,
    /// A job: its version, its rollout, whether it runs, or one of its executions.
    Job,
    /// An execution: what it should do, or what its edge says of it.
    Execution,
    /// A run, one of its tasks, or that the output of one is here or gone.
    Run,
    /// A schedule, or one of its ticks.
    Schedule,
    /// More changed at once than is told one by one: ask for all that you watch.
    All,
    /// What came before this is not kept any more, or is of an earlier life of the orchestrator: ask for all that you watch.
    Missed,
}

impl EventKind {
    /// The fixed spelling, as in JSON; also the type of the server-sent event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Job => "job",
            Self::Execution => "execution",
            Self::Run => "run",
            Self::Schedule => "schedule",
            Self::All => "all",
            Self::Missed => "missed",
        }
    }
}

/// A hint: this changed and is on disk. How it is now is for the reader to ask. Counters that only heartbeats carry are
/// not told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// What it is about.
    pub kind: EventKind,
    /// The name of a node, a job or a schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The id of an execution or a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The node of an execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The jobs that it concerns; none for a node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<JobName>,
    /// When it was committed.
    pub at: UnixMs,
}

impl Event {
    /// One that names nothing.
    pub fn bare(kind: EventKind, at: UnixMs) -> Self {
        Self {
            kind,
            name: None,
            id: None,
            node: None,
            jobs: Vec::new(),
            at,
        }
    }

    /// Of a node.
    pub fn node(name: &NodeName, at: UnixMs) -> Self {
        Self {
            name: Some(name.to_string()),
            ..Self::bare(EventKind::Node, at)
        }
    }

    /// Of a job.
    pub fn job(name: JobName, at: UnixMs) -> Self {
        Self {
            name: Some(name.to_string()),
            jobs: vec![name],
            ..Self::bare(EventKind::Job, at)
        }
    }

    /// Of an execution.
    pub fn execution(id: ExecutionId, job: JobName, node: NodeName, at: UnixMs) -> Self {
        Self {
            id: Some(id.to_string()),
            node: Some(node),
            jobs: vec![job],
            ..Self::bare(EventKind::Execution, at)
        }
    }

    /// Of a run.
    pub fn run(id: RunId, jobs: Vec<JobName>, at: UnixMs) -> Self {
        Self {
            id: Some(id.to_string()),
            jobs,
            ..Self::bare(EventKind::Run, at)
        }
    }

    /// Of a schedule.
    pub fn schedule(name: &ScheduleName, job: JobName, at: UnixMs) -> Self {
        Self {
            name: Some(name.to_string()),
            jobs: vec![job],
            ..Self::bare(EventKind::Schedule, at)
        }
    }
}

/// Query of `GET` [`crate::routes::EVENTS`]; every part given must match. `all` and `missed` are told to everyone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EventFilter {
    /// Of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<EventKind>,
    /// What concerns this job; there need be none of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
}

impl EventFilter {
    /// Whether an event is one that was asked for.
    pub fn fits(&self, event: &Event) -> bool {
        matches!(event.kind, EventKind::All | EventKind::Missed)
            || (self.kind.is_none_or(|kind| kind == event.kind)
                && self.job.as_ref().is_none_or(|job| event.jobs.contains(job)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_filter_lets_pass_what_was_asked_for_and_what_everyone_must_know() {
        let (a, b): (JobName, JobName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let events = [
            Event::node(&"e1".parse().unwrap(), UnixMs(1)),
            Event::job(a.clone(), UnixMs(1)),
            Event::run(
                RunId::from_random([1; 16]),
                vec![a.clone(), b.clone()],
                UnixMs(1),
            ),
            Event::schedule(&"s".parse().unwrap(), b.clone(), UnixMs(1)),
            Event::bare(EventKind::All, UnixMs(1)),
            Event::bare(EventKind::Missed, UnixMs(1)),
        ];
        let shown = |kind, job: Option<&JobName>| -> Vec<&str> {
            let job = job.cloned();
            let filter = EventFilter { kind, job };
            let fit = events.iter().filter(|event| filter.fits(event));
            fit.map(|event| event.kind.as_str()).collect()
        };
        assert_eq!(shown(None, None).len(), events.len());
        assert_eq!(shown(None, Some(&a)), ["job", "run", "all", "missed"]);
        assert_eq!(shown(None, Some(&b)), ["run", "schedule", "all", "missed"]);
        let run = Some(EventKind::Run);
        assert_eq!(shown(run, Some(&b)), ["run", "all", "missed"]);
        assert_eq!(
            shown(Some(EventKind::Node), None),
            ["node", "all", "missed"]
        );
    }
}
