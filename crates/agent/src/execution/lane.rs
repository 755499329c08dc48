//! One (version, attempt): how far its preparing is, what it waits for, and how it ended.

use std::collections::BTreeSet;
use std::time::Duration;

use sluice_model::{Desired, Digest, FailReason, MonotonicMs, ObservedPhase, UnixMs};

use super::Execution;
use crate::Now;
use crate::action::{Action, Ticket};
use crate::agent::Machinery;
use crate::assignment::{Assignment, Label};
use crate::backoff::{Crashes, Tries, left_out};
use crate::observation::{BringUp, EndedHow, FailedTries, Observation};

/// Which lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Target,
    Fallback,
}

/// One (version, attempt) and how it fared.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) assignment: Assignment,
    /// Started at least once and not ended for good.
    pub(super) started: bool,
    pub(super) restarts: u64,
    /// Processes in a row that died while they brought it up.
    pub(super) deaths: u64,
    pub(super) failures: u32,
    pub(super) crashes: Crashes,
    /// Of a task: what came to nothing so far.
    pub(super) tries: Tries,
    pub(super) work: Option<Work>,
    pub(super) wait: Option<Wait>,
    pub(super) end: Option<LaneEnd>,
}

impl Execution {
    /// The specs of what is to run and has not ended.
    pub(crate) fn open_specs(&self) -> impl Iterator<Item = Digest> {
        let open = self.lanes().filter(|lane| {
            let has_ended = matches!(lane.end, Some(LaneEnd::Ended(_)));
            lane.assignment.desired == Desired::Run && !has_ended
        });
        open.map(|lane| lane.assignment.spec)
    }
}

impl Execution {
    /// Something that it needs was not as it should be: it waits. A task whose tries are used up has failed; returns that.
    pub(super) fn back_off(
        &mut self,
        which: Which,
        reason: String,
        cx: &mut Machinery,
    ) -> Option<Observation> {
        let lane = self.lane(which);
        if !cx.is_batch(lane.assignment.spec) {
            lane.wait(ObservedPhase::Backoff, reason, cx);
            return None;
        }
        lane.tries.handle_failure(cx.now.mono);
        if let Some(left) = lane.tries.left() {
            lane.wait_at_most(left, ObservedPhase::Backoff, reason, cx);
            return None;
        }
        let message = lane.gave_up(&reason);
        let reason = FailReason::Retries;
        self.end_lane(which, LaneEnd::Ended(EndedHow::Failed { reason, message }))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Wait {
    pub(super) until: MonotonicMs,
    pub(super) until_unix: UnixMs,
    pub(super) phase: ObservedPhase,
    pub(super) reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LaneEnd {
    Ended(EndedHow),
    Refused(String),
}

#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) ticket: Ticket,
    pub(super) step: Step,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Fetching(BTreeSet<Digest>),
    Queued,
    Preparing(ObservedPhase),
    Ready,
}

impl Lane {
    pub(crate) fn new(assignment: Assignment) -> Self {
        Self {
            assignment,
            started: false,
            restarts: 0,
            deaths: 0,
            failures: 0,
            crashes: Crashes::default(),
            tries: Tries::default(),
            work: None,
            wait: None,
            end: None,
        }
    }

    pub(super) fn label(&self) -> Label {
        self.assignment.label
    }

    pub(super) fn may_begin(&self, now: MonotonicMs) -> bool {
        self.work.is_none()
            && self.end.is_none()
            && self.wait.as_ref().is_none_or(|wait| wait.until <= now)
    }

    /// All its components are here, and nothing has gone wrong.
    pub(super) fn is_close(&self) -> bool {
        self.work
            .as_ref()
            .is_some_and(|work| !matches!(work.step, Step::Fetching(_)))
    }

    pub(super) fn is_ready(&self) -> bool {
        self.work
            .as_ref()
            .is_some_and(|work| matches!(work.step, Step::Ready))
    }

    pub(super) fn is_preparing(&self) -> bool {
        self.work
            .as_ref()
            .is_some_and(|work| matches!(work.step, Step::Preparing(_)))
    }

    /// Takes over what is on disk about it. A bring-up that is still in progress there killed the process before.
    pub(super) fn restore_bring_up(&mut self, found: &[BringUp], now: Now) {
        let label = self.label();
        let Some(bring_up) = found.iter().find(|it| it.label == label) else {
            return;
        };
        let died = u64::from(bring_up.in_progress);
        self.deaths = bring_up.deaths.saturating_add(died);
        if let Some(delay) = left_out(self.deaths) {
            let until = now.plus(delay);
            self.wait = Some(Wait {
                until: until.mono,
                until_unix: until.unix,
                phase: ObservedPhase::Backoff,
                reason: format!(
                    "this edge's process died {} times in a row while it brought this up, so it is left out: see the \
                     edge's log, and the memory that the machine has",
                    self.deaths
                ),
            });
        }
    }

    /// Takes over how often it was tried before this process.
    pub(super) fn restore_tries(&mut self, found: Option<&FailedTries>, now: Now) {
        if let Some(found) = found.filter(|found| found.label == self.label()) {
            let took = Duration::from_millis(found.took_ms);
            self.tries = Tries::resume(found.failed, took, now.mono);
        }
    }

    /// What a restart must know of its tries.
    pub(super) fn failed_tries(&self) -> Option<FailedTries> {
        let failed = self.tries.failed();
        (failed > 0 && self.end.is_none()).then(|| FailedTries {
            label: self.label(),
            failed,
            took_ms: u64::try_from(self.tries.took().as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// The last try's trouble first: that is what a person can mend.
    fn gave_up(&self, reason: &str) -> String {
        let (failed, took) = (self.tries.failed(), self.tries.took().as_secs());
        format!("{reason}; tried {failed} times within {took} s, and a task does not wait for ever")
    }

    pub(super) fn cancel_work(&mut self, cx: &mut Machinery) {
        if let Some(Work { ticket, step }) = self.work.take() {
            cx.forget_ticket(ticket);
            if matches!(step, Step::Ready) {
                cx.act(Action::Discard { ticket });
            }
        }
    }

    pub(super) fn wait(&mut self, phase: ObservedPhase, reason: String, cx: &mut Machinery) {
        self.wait_at_most(Duration::MAX, phase, reason, cx);
    }

    fn wait_at_most(
        &mut self,
        longest: Duration,
        phase: ObservedPhase,
        reason: String,
        cx: &mut Machinery,
    ) {
        self.failures = self.failures.saturating_add(1);
        let until = cx.now.plus(cx.jitter.delay(self.failures).min(longest));
        self.wait = Some(Wait {
            until: until.mono,
            until_unix: until.unix,
            phase,
            reason,
        });
    }
}
