//! One execution in words: its observed row. Says what is; decides nothing.

use sluice_model::{Desired, ObservedPhase};

use super::lane::{LaneEnd, Step, Which};
use super::{Execution, Purge, ended_words};
use crate::observation::Observation;

impl Execution {
    /// Where it stands, for the orchestrator and for people.
    pub(crate) fn observe(&self, suspended: Option<&str>) -> Observation {
        let mut seen = Observation {
            execution: self.id(),
            label: self.target.label(),
            phase: ObservedPhase::Starting,
            fail: None,
            reason: String::new(),
            next_action: String::new(),
            next_at: None,
            restarts: self.target.restarts,
            running_version: self.running_version(),
        };
        if let Some(reason) = &self.unreadable {
            seen.phase = ObservedPhase::Refused;
            seen.reason = format!("this edge cannot read its row: {reason}");
            "when this edge's program is newer".clone_into(&mut seen.next_action);
        } else if self.target.assignment.desired != Desired::Run
            || self.vanished
            || suspended.is_some()
        {
            self.observe_stop(&mut seen, suspended);
        } else {
            self.observe_run(&mut seen);
        }
        seen
    }

    fn observe_stop(&self, seen: &mut Observation, suspended: Option<&str>) {
        if self.instance.is_some() {
            seen.phase = ObservedPhase::Running;
            "stopping: draining for at most 10 s".clone_into(&mut seen.reason);
            "when it has ended".clone_into(&mut seen.next_action);
            return;
        }
        seen.phase = ObservedPhase::Stopped;
        if let Some(suspended) = suspended {
            seen.reason = format!("all work of this node is stopped: {suspended}");
            return;
        }
        if self.target.assignment.desired != Desired::Purge || self.vanished {
            return;
        }
        match &self.purge {
            Purge::Done => seen.phase = ObservedPhase::Purged,
            Purge::Wait {
                until_unix, reason, ..
            } => {
                seen.reason = format!("cannot delete its state: {reason}");
                "try again".clone_into(&mut seen.next_action);
                seen.next_at = Some(*until_unix);
            }
            Purge::No | Purge::InFlight => {
                "deleting its state".clone_into(&mut seen.reason);
                "when it is deleted".clone_into(&mut seen.next_action);
            }
        }
    }

    fn observe_run(&self, seen: &mut Observation) {
        let mut say = |phase, reason: &str, next: &str| {
            seen.phase = phase;
            reason.clone_into(&mut seen.reason);
            next.clone_into(&mut seen.next_action);
        };
        match &self.target.end {
            Some(LaneEnd::Refused(reason)) => {
                say(
                    ObservedPhase::Refused,
                    reason,
                    "when a new version is deployed",
                );
                return;
            }
            Some(LaneEnd::Ended(how)) => {
                let (phase, fail, reason) = ended_words(how);
                say(phase, &reason, "");
                seen.fail = fail;
                return;
            }
            None => {}
        }
        if let Some(instance) = &self.instance
            && instance.lane == Which::Target
        {
            if instance.stopping {
                say(
                    ObservedPhase::Starting,
                    "its last run is still ending",
                    "when that has ended",
                );
            } else if instance.running_since.is_some() {
                say(ObservedPhase::Running, "", "");
            } else {
                say(
                    ObservedPhase::Starting,
                    "opening input and output",
                    "when they are open",
                );
            }
            return;
        }
        if let Some(work) = &self.target.work {
            match &work.step {
                Step::Fetching(missing) => {
                    let missing = missing.len();
                    let reason = match self.fetched_percent {
                        Some(percent) => {
                            format!("fetching {percent} %, artifacts still to come: {missing}")
                        }
                        None => format!("artifacts still to come: {missing}"),
                    };
                    say(ObservedPhase::Fetching, &reason, "when they are here");
                }
                Step::Queued => say(
                    ObservedPhase::Compiling,
                    "one component is compiled at a time",
                    "when its turn comes",
                ),
                Step::Preparing(ObservedPhase::Starting) => say(
                    ObservedPhase::Starting,
                    "configuring its stages",
                    "when they are configured",
                ),
                Step::Preparing(_) => say(
                    ObservedPhase::Compiling,
                    "compiling its components",
                    "when they are compiled",
                ),
                Step::Ready => say(
                    ObservedPhase::Starting,
                    "the older version is still ending",
                    "when that has ended",
                ),
            }
            return;
        }
        match &self.target.wait {
            Some(wait) => {
                say(wait.phase, &wait.reason, "try again");
                seen.next_at = Some(wait.until_unix);
            }
            None => say(
                ObservedPhase::Starting,
                "other work of this execution comes first",
                "when that is done",
            ),
        }
    }
}
