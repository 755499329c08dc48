//! One execution: what should run, what runs, and what is being prepared.
//!
//! Two lanes may want to run: the *target* is the newest row; the *fallback* is what was started last, as long as the
//! target has never been ready. At most one instance lives, whichever lane it came from.

mod lane;
mod observe;

use std::collections::BTreeSet;

use sluice_model::{Desired, Digest, ExecutionId, FailReason, MonotonicMs, ObservedPhase, UnixMs};

use crate::Now;
use crate::action::{Action, Ending, PrepareFailure, Ticket};
use crate::agent::Machinery;
use crate::assignment::{Assignment, Label};
use crate::backoff::{CRASHES_MAX, STEADY, Tries};
use crate::observation::{BringUp, EndedHow, Local, Observation};
use lane::{Lane, LaneEnd, Step, Which, Work};

#[derive(Clone, Debug)]
struct Instance {
    ticket: Ticket,
    lane: Which,
    running_since: Option<MonotonicMs>,
    stopping: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Purge {
    No,
    InFlight,
    Wait {
        until: MonotonicMs,
        until_unix: UnixMs,
        reason: String,
    },
    Done,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Execution {
    pub(crate) target: Lane,
    fallback: Option<Lane>,
    instance: Option<Instance>,
    purge: Purge,
    purge_failures: u32,
    /// Its row is gone.
    pub(crate) vanished: bool,
    /// Its newest row cannot be read.
    pub(crate) unreadable: Option<String>,
    /// An outcome that [`Self::settle`] came to.
    outcome: Option<Observation>,
    /// How much of a component is here whose fetch takes long.
    fetched_percent: Option<u8>,
}

impl Execution {
    pub(crate) fn new(assignment: Assignment) -> Self {
        Self {
            target: Lane::new(assignment),
            fallback: None,
            instance: None,
            purge: Purge::No,
            purge_failures: 0,
            vanished: false,
            unreadable: None,
            outcome: None,
            fetched_percent: None,
        }
    }

    /// One whose left-over state is being deleted.
    pub(crate) fn being_purged(mut self) -> Self {
        self.purge = Purge::InFlight;
        self
    }

    /// After a process start: what the last process remembered, and what it reported. Returns the outcome of what was
    /// under way and must not run a second time.
    pub(crate) fn restore(
        &mut self,
        local: Option<&Local>,
        reported: Option<&Observation>,
        now: Now,
    ) -> Option<Observation> {
        if let Some(local) = local {
            if let Some((label, how)) = &local.ended
                && *label == self.target.label()
            {
                self.target.end = Some(LaneEnd::Ended(how.clone()));
            }
            if let Some(started) = &local.started {
                let lane = if started.label == self.target.label() {
                    &mut self.target
                } else {
                    self.fallback.insert(Lane::new(started.clone()))
                };
                lane.started = true;
                lane.restarts = local.restarts;
            }
            for lane in std::iter::once(&mut self.target).chain(&mut self.fallback) {
                lane.restore_bring_up(&local.bring_ups, now);
            }
            self.target.restore_tries(local.tries.as_ref(), now);
        }
        let purged = reported.is_some_and(|reported| {
            reported.phase == ObservedPhase::Purged && reported.label == self.target.label()
        });
        if purged && self.target.assignment.desired == Desired::Purge {
            self.purge = Purge::Done;
        }
        let target = &self.target;
        let order = &target.assignment;
        let is_lost = target.started && target.end.is_none() && order.once;
        if !is_lost || order.desired != Desired::Run {
            return None;
        }
        let message = "this edge ended while it was under way, and nobody can tell whether its work was done; it is not \
                       idempotent, so it does not run again";
        self.end_lane(
            Which::Target,
            LaneEnd::Ended(EndedHow::Failed {
                reason: FailReason::Indeterminate,
                message: message.to_owned(),
            }),
        )
    }

    /// It is recorded how this attempt ended here, and this store does not know it: it was lost since then.
    pub(crate) fn handle_ended_before(&mut self, label: Label, how: EndedHow) {
        let lane = &mut self.target;
        let fresh = !lane.started && lane.work.is_none() && lane.end.is_none();
        if lane.label() == label && fresh && self.fallback.is_none() {
            lane.wait = None;
            lane.end = Some(LaneEnd::Ended(how));
        }
    }

    pub(crate) fn id(&self) -> ExecutionId {
        self.target.assignment.execution
    }

    /// A newer row. Rows never go back, so an older label is ignored.
    pub(crate) fn handle_row(
        &mut self,
        row: Assignment,
        spec_is_readable: bool,
        cx: &mut Machinery,
    ) {
        self.vanished = false;
        self.unreadable = None;
        if row.desired != Desired::Purge && self.purge != Purge::InFlight {
            self.purge = Purge::No;
        }
        if row.label < self.target.label() {
            return;
        }
        if row.label == self.target.label() {
            if spec_is_readable && matches!(self.target.end, Some(LaneEnd::Refused(_))) {
                self.target.end = None;
            }
            self.target.assignment = row;
            return;
        }
        let mut old = std::mem::replace(&mut self.target, Lane::new(row));
        if old.started && old.end.is_none() {
            self.fallback = Some(old);
            if let Some(instance) = &mut self.instance {
                instance.lane = Which::Fallback;
            }
        } else {
            old.cancel_work(cx);
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.instance.is_none() && self.purge != Purge::InFlight
    }

    pub(crate) fn was_purged(&self) -> bool {
        self.purge == Purge::Done
    }

    /// The digests of the specs that may still be needed.
    pub(crate) fn specs(&self) -> impl Iterator<Item = Digest> {
        self.lanes().map(|lane| lane.assignment.spec)
    }

    fn lane(&mut self, which: Which) -> &mut Lane {
        match (which, &mut self.fallback) {
            (Which::Fallback, Some(fallback)) => fallback,
            _ => &mut self.target,
        }
    }

    fn lanes(&self) -> impl Iterator<Item = &Lane> {
        std::iter::once(&self.target).chain(&self.fallback)
    }

    /// The lane that this ticket's work belongs to.
    fn lane_working_on(&self, ticket: Ticket) -> Option<Which> {
        let is = |lane: &Lane| lane.work.as_ref().is_some_and(|it| it.ticket == ticket);
        if is(&self.target) {
            Some(Which::Target)
        } else {
            self.fallback
                .as_ref()
                .is_some_and(is)
                .then_some(Which::Fallback)
        }
    }

    /// Does what can be done now. Returns the outcome, if it came to one.
    #[must_use]
    pub(crate) fn settle(&mut self, cx: &mut Machinery) -> Option<Observation> {
        let wants_run = self.target.assignment.desired == Desired::Run && !self.vanished;
        if wants_run && cx.suspended.is_none() {
            self.settle_run(cx);
        } else {
            self.settle_stop(cx);
        }
        self.outcome.take()
    }

    fn settle_stop(&mut self, cx: &mut Machinery) {
        self.target.cancel_work(cx);
        // Nothing here waits for its time any more: a deadline that nobody looks at would stay in the past.
        self.target.wait = None;
        if let Some(fallback) = &mut self.fallback {
            fallback.cancel_work(cx);
            fallback.wait = None;
        }
        if cx.suspended.is_some() && matches!(self.purge, Purge::Wait { .. }) {
            self.purge = Purge::No;
        }
        if self.instance.is_some() {
            self.stop_instance(cx);
            return;
        }
        if cx.suspended.is_some() {
            return;
        }
        self.fallback = None;
        self.target.started = false;
        if self.vanished {
            return;
        }
        if self.target.assignment.desired != Desired::Purge {
            if self.purge != Purge::InFlight {
                self.purge = Purge::No;
            }
            return;
        }
        let due = match &self.purge {
            Purge::No => true,
            Purge::Wait { until, .. } => *until <= cx.now.mono,
            Purge::InFlight | Purge::Done => false,
        };
        if due {
            self.purge = Purge::InFlight;
            cx.act(Action::Purge {
                execution: self.id(),
            });
        }
    }

    fn settle_run(&mut self, cx: &mut Machinery) {
        if self.purge == Purge::InFlight {
            // Its state is being deleted; it starts afresh after that.
            return;
        }
        self.purge = Purge::No;
        self.adopt(cx);
        let runs = self.instance.as_ref().map(|instance| instance.lane);
        if runs == Some(Which::Target) {
            return;
        }
        if self.target.may_begin(cx.now.mono) {
            self.begin(Which::Target, cx);
        }
        let fallback_wanted = runs.is_none()
            && !self.target.is_close()
            && self
                .fallback
                .as_ref()
                .is_some_and(|lane| lane.may_begin(cx.now.mono));
        if fallback_wanted {
            self.begin(Which::Fallback, cx);
        }
        if self.target.is_ready() {
            if runs.is_some() {
                // The older version makes room now.
                self.stop_instance(cx);
            } else {
                self.start(Which::Target, cx);
            }
        } else if runs.is_none()
            && !self.target.is_close()
            && self.fallback.as_ref().is_some_and(Lane::is_ready)
        {
            self.start(Which::Fallback, cx);
        }
    }

    /// What was started last is the content that is wanted now: only the label changes, and where the job is wanted. Another
    /// attempt at the same version is an order to run it anew.
    fn adopt(&mut self, cx: &mut Machinery) {
        let same = self.fallback.as_ref().is_some_and(|fallback| {
            let (old, new) = (&fallback.assignment, &self.target.assignment);
            cx.run_the_same(old.spec, new.spec)
                && old.label.version != new.label.version
                && self.target.end.is_none()
        });
        let stopping = self.instance.as_ref().is_some_and(|it| it.stopping);
        if !same || stopping {
            return;
        }
        self.target.cancel_work(cx);
        if let Some(instance) = &mut self.instance {
            instance.lane = Which::Target;
        }
        if let Some(mut fallback) = self.fallback.take() {
            if fallback.deaths > 0 {
                // A new order is a reason to try at once.
                fallback.deaths = 0;
                fallback.wait = None;
            }
            self.target = Lane {
                assignment: self.target.assignment.clone(),
                restarts: 0,
                ..fallback
            };
        }
    }

    fn begin(&mut self, which: Which, cx: &mut Machinery) {
        let spec = self.lane(which).assignment.spec;
        let artifacts = match cx.specs.get(&spec) {
            Some(Ok(parts)) => parts.artifacts.clone(),
            Some(Err(reason)) => {
                let reason = format!("this edge cannot read the pipeline: {reason}");
                self.outcome = self.refuse(which, reason);
                return;
            }
            None => {
                let reason = "the pipeline's text is not on this edge".to_owned();
                self.outcome = self.refuse(which, reason);
                return;
            }
        };
        self.lane(which).wait = None;
        let ticket = cx.new_ticket(self.id());
        let missing: BTreeSet<Digest> = artifacts.iter().map(|it| it.digest).collect();
        let step = if missing.is_empty() {
            cx.queue_prepare(ticket);
            Step::Queued
        } else {
            for artifact in artifacts {
                cx.want(artifact);
            }
            Step::Fetching(missing)
        };
        self.lane(which).work = Some(Work { ticket, step });
    }

    fn start(&mut self, which: Which, cx: &mut Machinery) {
        assert!(self.instance.is_none(), "at most one instance lives");
        if which == Which::Target
            && let Some(mut fallback) = self.fallback.take()
        {
            fallback.cancel_work(cx);
        }
        let lane = self.lane(which);
        let Some(Work { ticket, .. }) = lane.work.take() else {
            return;
        };
        if lane.started {
            lane.restarts += 1;
        }
        lane.started = true;
        lane.wait = None;
        let assignment = lane.assignment.clone();
        self.instance = Some(Instance {
            ticket,
            lane: which,
            running_since: None,
            stopping: false,
        });
        cx.act(Action::Start { ticket, assignment });
    }

    fn stop_instance(&mut self, cx: &mut Machinery) {
        let execution = self.id();
        if let Some(instance) = &mut self.instance
            && !instance.stopping
        {
            instance.stopping = true;
            cx.act(Action::Stop {
                ticket: instance.ticket,
                execution,
            });
        }
    }

    /// So much of a component is here; whether that is news.
    pub(crate) fn handle_fetching(&mut self, digest: Digest, percent: u8) -> bool {
        let waits = self.waits_for(digest);
        waits && self.fetched_percent.replace(percent) != Some(percent)
    }

    /// A component is here, or could not be had.
    pub(crate) fn handle_fetched(
        &mut self,
        digest: Digest,
        result: &Result<(), String>,
        cx: &mut Machinery,
    ) {
        if self.waits_for(digest) {
            self.fetched_percent = None;
        }
        for lane in std::iter::once(&mut self.target).chain(&mut self.fallback) {
            let Some(Work {
                ticket,
                step: Step::Fetching(missing),
            }) = &mut lane.work
            else {
                continue;
            };
            if !missing.remove(&digest) {
                continue;
            }
            let ticket = *ticket;
            match result {
                Ok(()) if missing.is_empty() => {
                    let step = Step::Queued;
                    lane.work = Some(Work { ticket, step });
                    cx.queue_prepare(ticket);
                }
                Ok(()) => {}
                Err(reason) => {
                    lane.cancel_work(cx);
                    lane.wait(ObservedPhase::Fetching, reason.clone(), cx);
                }
            }
        }
    }

    /// Whether this component is being waited for.
    pub(crate) fn waits_for(&self, digest: Digest) -> bool {
        self.lanes().any(|lane| match &lane.work {
            Some(Work {
                step: Step::Fetching(missing),
                ..
            }) => missing.contains(&digest),
            _ => false,
        })
    }

    /// Its turn to be prepared has come: what to prepare, unless it is not wanted any more.
    pub(crate) fn take_turn(&mut self, ticket: Ticket) -> Option<Assignment> {
        let which = self.lane_working_on(ticket)?;
        let lane = self.lane(which);
        let work = lane.work.as_mut()?;
        if !matches!(work.step, Step::Queued) {
            return None;
        }
        work.step = Step::Preparing(ObservedPhase::Compiling);
        Some(lane.assignment.clone())
    }

    pub(crate) fn handle_phase(&mut self, ticket: Ticket, phase: ObservedPhase) {
        let Some(which) = self.lane_working_on(ticket) else {
            return;
        };
        if let Some(Work {
            step: Step::Preparing(now),
            ..
        }) = &mut self.lane(which).work
        {
            *now = phase;
        }
    }

    /// Returns the outcome, if this was one.
    pub(crate) fn handle_prepared(
        &mut self,
        ticket: Ticket,
        result: Result<(), PrepareFailure>,
        cx: &mut Machinery,
    ) -> Option<Observation> {
        let which = self.lane_working_on(ticket)?;
        let lane = self.lane(which);
        let work = lane.work.as_mut()?;
        let failure = match result {
            _ if !matches!(work.step, Step::Preparing(_)) => return None,
            Ok(()) => {
                work.step = Step::Ready;
                return None;
            }
            Err(failure) => failure,
        };
        lane.work = None;
        lane.deaths = 0;
        cx.forget_ticket(ticket);
        match failure {
            PrepareFailure::Retry(reason) => self.back_off(which, reason, cx),
            PrepareFailure::Refused(reason) => self.refuse(which, reason),
            PrepareFailure::Configure(message) => {
                let reason = FailReason::Configure;
                self.end_lane(which, LaneEnd::Ended(EndedHow::Failed { reason, message }))
            }
        }
    }

    pub(crate) fn handle_running(&mut self, ticket: Ticket, now: MonotonicMs) {
        if let Some(instance) = &mut self.instance
            && instance.ticket == ticket
        {
            instance.running_since = Some(now);
            let which = instance.lane;
            self.lane(which).deaths = 0;
        }
    }

    /// Returns the outcome, if this was one.
    pub(crate) fn handle_ended(
        &mut self,
        ticket: Ticket,
        ending: Ending,
        cx: &mut Machinery,
    ) -> Option<Observation> {
        let instance = self
            .instance
            .take_if(|instance| instance.ticket == ticket)?;
        cx.forget_ticket(ticket);
        let (which, now) = (instance.lane, cx.now.mono);
        let wanted = self.target.assignment.desired == Desired::Run && !self.vanished;
        let lane = self.lane(which);
        // What never moved a record, and what was stopped with everything acknowledged, may be started as if anew.
        let undone = match &ending {
            Ending::Stopped => true,
            Ending::Backoff(_) => instance.running_since.is_none(),
            _ => false,
        };
        lane.started &= !(lane.assignment.once && undone);
        lane.deaths = 0;
        if instance
            .running_since
            .is_some_and(|since| now.since(since) >= STEADY)
        {
            lane.failures = 0;
            lane.tries = Tries::default();
        }
        match ending {
            Ending::Completed => self.end_lane(which, LaneEnd::Ended(EndedHow::Completed)),
            Ending::Failed { reason, message } => {
                self.end_lane(which, LaneEnd::Ended(EndedHow::Failed { reason, message }))
            }
            // Whoever stopped it: the process's end and a node that may not speak do not last, an order does.
            Ending::Cut if lane.assignment.once && wanted => {
                let message = "this edge stopped it midway, and its input cannot go on where it was; it is not \
                               idempotent, so it does not run again"
                    .to_owned();
                let reason = FailReason::Indeterminate;
                self.end_lane(which, LaneEnd::Ended(EndedHow::Failed { reason, message }))
            }
            Ending::Backoff(why)
                if lane.assignment.once && wanted && instance.running_since.is_some() =>
            {
                let message = format!(
                    "ended midway, and nobody can tell how much of its work was done; it is not idempotent, so it does not \
                     run again: {why}"
                );
                let reason = FailReason::Indeterminate;
                self.end_lane(which, LaneEnd::Ended(EndedHow::Failed { reason, message }))
            }
            Ending::Crashed(message)
                if lane.assignment.once && wanted && instance.running_since.is_some() =>
            {
                let message = format!(
                    "crashed, and nobody can tell whether its work was done; it is not idempotent, so it does not run \
                     again: {message}"
                );
                let reason = FailReason::Indeterminate;
                self.end_lane(which, LaneEnd::Ended(EndedHow::Failed { reason, message }))
            }
            _ if instance.stopping || cx.draining => None,
            Ending::Stopped | Ending::Cut => {
                let reason = "it stopped without being told to".to_owned();
                lane.wait(ObservedPhase::Backoff, reason, cx);
                None
            }
            Ending::Backoff(reason) => self.back_off(which, reason, cx),
            Ending::Crashed(message) => {
                if lane.crashes.handle_crash(now) {
                    let message =
                        format!("crashed {CRASHES_MAX} times within 10 minutes, last: {message}");
                    self.end_lane(which, LaneEnd::Ended(EndedHow::Quarantined { message }))
                } else {
                    lane.wait(ObservedPhase::Backoff, format!("crashed: {message}"), cx);
                    None
                }
            }
        }
    }

    /// This edge cannot run it as it is. What is not idempotent never starts here then, since the orchestrator gives it to
    /// another node; anything else is tried again when something changes.
    fn refuse(&mut self, which: Which, reason: String) -> Option<Observation> {
        let end = if self.lane(which).assignment.once {
            LaneEnd::Ended(EndedHow::Failed {
                reason: FailReason::Rejected,
                message: reason,
            })
        } else {
            LaneEnd::Refused(reason)
        };
        self.end_lane(which, end)
    }

    fn end_lane(&mut self, which: Which, end: LaneEnd) -> Option<Observation> {
        let outcome = match &end {
            LaneEnd::Ended(how @ (EndedHow::Completed | EndedHow::Failed { .. })) => {
                Some(how.clone())
            }
            _ => None,
        };
        let lane = self.lane(which);
        lane.wait = None;
        lane.started &= matches!(end, LaneEnd::Refused(_));
        let (label, restarts) = (lane.label(), lane.restarts);
        match which {
            Which::Target => lane.end = Some(end),
            Which::Fallback => self.fallback = None,
        }
        let (phase, fail, reason) = ended_words(&outcome?);
        Some(Observation {
            execution: self.id(),
            label,
            phase,
            fail,
            reason,
            next_action: String::new(),
            next_at: None,
            restarts,
            running_version: self.running_version(),
        })
    }

    pub(crate) fn handle_purged(&mut self, result: Result<(), String>, cx: &mut Machinery) {
        if self.purge != Purge::InFlight {
            return;
        }
        self.purge = match result {
            Ok(()) => Purge::Done,
            Err(reason) => {
                self.purge_failures = self.purge_failures.saturating_add(1);
                let until = cx.now.plus(cx.jitter.delay(self.purge_failures));
                Purge::Wait {
                    until: until.mono,
                    until_unix: until.unix,
                    reason,
                }
            }
        };
    }

    /// The orchestrator is in reach: what could not be fetched is tried again at once.
    pub(crate) fn handle_connected(&mut self) {
        for lane in std::iter::once(&mut self.target).chain(&mut self.fallback) {
            if lane
                .wait
                .as_ref()
                .is_some_and(|wait| wait.phase == ObservedPhase::Fetching)
            {
                lane.wait = None;
                lane.failures = 0;
            }
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<MonotonicMs> {
        // A fallback begins only while nothing runs and the target is not about to.
        let fallback = self
            .fallback
            .as_ref()
            .filter(|_| self.instance.is_none() && !self.target.is_close());
        let waits = std::iter::once(&self.target)
            .chain(fallback)
            .filter(|lane| lane.work.is_none() && lane.end.is_none())
            .filter_map(|lane| lane.wait.as_ref().map(|wait| wait.until));
        let purge = match self.purge {
            Purge::Wait { until, .. } => Some(until),
            _ => None,
        };
        waits.chain(purge).min()
    }

    /// Whether the process has died of this before: others come first.
    pub(crate) fn is_suspect(&self) -> bool {
        self.lanes().any(|lane| lane.deaths > 0)
    }

    /// Whether something of it is being fetched, prepared or opened.
    pub(crate) fn is_on_its_way(&self) -> bool {
        self.is_opening() || self.lanes().any(|lane| lane.work.is_some())
    }

    /// Whether it has had its turn to be prepared and does not move records yet: what it does now may end the process.
    pub(crate) fn is_brought_up(&self) -> bool {
        let had_its_turn = |lane: &Lane| lane.is_preparing() || lane.is_ready();
        self.is_opening() || self.lanes().any(had_its_turn)
    }

    fn is_opening(&self) -> bool {
        let instance = self.instance.as_ref();
        instance.is_some_and(|it| it.running_since.is_none() && !it.stopping)
    }

    /// What is being brought up, or has killed a process. A process that is about to end dies of nothing.
    fn bring_ups(&self, cx: &Machinery) -> Vec<BringUp> {
        let starting = self
            .instance
            .as_ref()
            .filter(|it| it.running_since.is_none() && !it.stopping)
            .map(|it| it.lane);
        let lanes = [
            (Which::Target, Some(&self.target)),
            (Which::Fallback, self.fallback.as_ref()),
        ];
        let told = lanes.into_iter().filter_map(|(which, lane)| {
            let lane = lane?;
            let in_progress = !cx.draining && (lane.is_preparing() || starting == Some(which));
            (in_progress || lane.deaths > 0).then(|| BringUp {
                label: lane.label(),
                in_progress,
                deaths: lane.deaths,
            })
        });
        told.collect()
    }

    /// What must survive a restart of the process; `None` when there is nothing.
    pub(crate) fn local(&self, cx: &Machinery) -> Option<Local> {
        let started = if self.target.started {
            Some(&self.target)
        } else {
            self.fallback.as_ref().filter(|lane| lane.started)
        };
        let ended = match &self.target.end {
            Some(LaneEnd::Ended(how)) => Some((self.target.label(), how.clone())),
            _ => None,
        };
        let bring_ups = self.bring_ups(cx);
        let tries = self.target.failed_tries();
        if started.is_none() && ended.is_none() && bring_ups.is_empty() && tries.is_none() {
            return None;
        }
        Some(Local {
            execution: self.id(),
            started: started.map(|lane| Assignment {
                desired: Desired::Run,
                ..lane.assignment.clone()
            }),
            ended,
            restarts: started.map_or(0, |lane| lane.restarts),
            bring_ups,
            tries,
            leftover_ms: None,
        })
    }

    /// Whether it has ever been started here, so that there may be state to keep.
    pub(crate) fn ended_here(&self) -> bool {
        matches!(self.target.end, Some(LaneEnd::Ended(_)))
    }

    fn running_version(&self) -> Option<sluice_model::Version> {
        let instance = self.instance.as_ref()?;
        let fallback = self.fallback.as_ref()?;
        (instance.lane == Which::Fallback).then(|| fallback.label().version)
    }
}

fn ended_words(how: &EndedHow) -> (ObservedPhase, Option<FailReason>, String) {
    match how {
        EndedHow::Completed => (ObservedPhase::Completed, None, String::new()),
        EndedHow::Failed { reason, message } => {
            (ObservedPhase::Failed, Some(*reason), message.clone())
        }
        EndedHow::Quarantined { message } => (ObservedPhase::Quarantined, None, message.clone()),
    }
}
