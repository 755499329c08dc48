//! All executions of one edge, and what they share: turns to compile, fetches, and what is said about them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use sluice_model::{Digest, ExecutionId, MonotonicMs, ObservedPhase};

use crate::Now;
use crate::action::{Action, Ending, PrepareFailure, Ticket};
use crate::assignment::{Artifact, ArtifactKind, Assignment, Label, SpecFacts};
use crate::backoff::Jitter;
use crate::execution::Execution;
use crate::observation::{Change, EndedHow, Local, Observation};

/// Components fetched at once: two keep a link busy while one ends and the next begins.
pub const FETCHES_MAX: usize = 2;

/// Executions prepared at once: compiling takes a whole core and much memory, and records should keep moving.
pub const PREPARES_MAX: usize = 1;

/// How long the state of an execution without a row is kept, in running time of the edge: a week is long enough to
/// notice a mistake.
const LEFTOVER_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// How often that time is written down: at most this much of it is forgotten at a restart.
const LEFTOVER_COUNTED_EVERY: Duration = Duration::from_secs(3600);

/// How long after a start what killed the process before waits for everything else to run, and then for another that did:
/// hashing what is in the cache and compiling it fit in, and a download over a slow link holds nothing back for ever.
const SUSPECTS_WAIT: Duration = Duration::from_secs(60);

/// A state that this machine leaves by itself is told when it has lasted so long: what is over sooner nobody sees, and each
/// telling is a commit here and one at the orchestrator, which together take longer than such a state.
pub const PASSING_TOLD_AFTER: Duration = Duration::from_millis(50);

/// What a process finds on its disk when it starts.
#[derive(Clone, Debug, Default)]
pub struct Boot {
    /// The desired rows.
    pub rows: Vec<Assignment>,
    /// Rows that cannot be read, and why.
    pub unreadable: Vec<(ExecutionId, String)>,
    /// What the last process remembered.
    pub locals: Vec<Local>,
    /// The live observed rows.
    pub reported: Vec<Observation>,
    /// The specs that rows and locals name.
    pub specs: BTreeMap<Digest, SpecFacts>,
    /// Desired rows were lost: what was started runs on until a snapshot says otherwise.
    pub rows_were_lost: bool,
}

/// A change of the desired rows.
#[derive(Clone, Debug, Default)]
pub struct DesiredChange {
    /// New or changed rows.
    pub upserts: Vec<Assignment>,
    /// New or changed rows that cannot be read, and why.
    pub unreadable: Vec<(ExecutionId, String)>,
    /// Rows that are gone.
    pub removed: Vec<ExecutionId>,
    /// `upserts` is the whole set: what it does not name is gone.
    pub whole: bool,
    /// Specs that are new or were not readable before.
    pub specs: BTreeMap<Digest, SpecFacts>,
    /// How attempts of `upserts` ended on this node, as far as it is recorded: a store that was lost does not run them
    /// again.
    pub ended: Vec<(ExecutionId, Label, EndedHow)>,
}

/// See the crate.
#[derive(Clone, Debug)]
pub struct Agent {
    executions: BTreeMap<ExecutionId, Execution>,
    /// Rows that cannot be read, of executions that are not known otherwise.
    unreadable: BTreeMap<ExecutionId, String>,
    /// State without a row.
    leftovers: BTreeMap<ExecutionId, Leftover>,
    leftovers_counted_at: MonotonicMs,
    suspects_from: MonotonicMs,
    /// Until when the suspect that had its turn last is tried alone.
    suspect_until: MonotonicMs,
    reported: BTreeMap<ExecutionId, Observation>,
    /// Since when the states pass that are not told yet.
    passing: BTreeMap<ExecutionId, MonotonicMs>,
    remembered: BTreeMap<ExecutionId, Local>,
    changes: VecDeque<Change>,
    cx: Machinery,
}

#[derive(Clone, Debug)]
struct Leftover {
    kept: Duration,
    purging: bool,
}

/// What one execution needs of all the others.
#[derive(Clone, Debug)]
pub(crate) struct Machinery {
    pub(crate) now: Now,
    pub(crate) jitter: Jitter,
    pub(crate) specs: BTreeMap<Digest, SpecFacts>,
    pub(crate) suspended: Option<String>,
    pub(crate) draining: bool,
    actions: VecDeque<Action>,
    next_ticket: u64,
    tickets: BTreeMap<Ticket, ExecutionId>,
    fetch_queue: VecDeque<Artifact>,
    fetching: BTreeSet<Digest>,
    /// Those of `fetching` that were told to end.
    cancelled: BTreeSet<Digest>,
    prepare_queue: VecDeque<Ticket>,
    preparing: BTreeSet<Ticket>,
}

impl Machinery {
    /// An artifact that a spec names.
    fn artifact(&self, digest: Digest) -> Option<Artifact> {
        let mut known = self.specs.values().flatten().flat_map(|it| &it.artifacts);
        known.find(|artifact| artifact.digest == digest).copied()
    }

    /// Whether what runs the one spec runs the other.
    pub(crate) fn run_the_same(&self, one: Digest, other: Digest) -> bool {
        let content = |spec| Some(self.specs.get(&spec)?.as_ref().ok()?.content);
        one == other || content(one).is_some_and(|it| content(other) == Some(it))
    }

    /// Whether what runs this spec was launched, and comes to an end.
    pub(crate) fn is_batch(&self, spec: Digest) -> bool {
        let facts = self.specs.get(&spec).and_then(|it| it.as_ref().ok());
        facts.is_some_and(|it| it.is_batch)
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(crate) fn new_ticket(&mut self, execution: ExecutionId) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.tickets.insert(ticket, execution);
        ticket
    }

    pub(crate) fn forget_ticket(&mut self, ticket: Ticket) {
        self.tickets.remove(&ticket);
    }

    pub(crate) fn queue_prepare(&mut self, ticket: Ticket) {
        self.prepare_queue.push_back(ticket);
    }

    pub(crate) fn want(&mut self, artifact: Artifact) {
        let known = self.fetching.contains(&artifact.digest)
            || self
                .fetch_queue
                .iter()
                .any(|queued| queued.digest == artifact.digest);
        if !known {
            self.fetch_queue.push_back(artifact);
        }
    }
}

impl Agent {
    /// The agent of a process that has just started: everything that should run is prepared and started again.
    pub fn new(boot: Boot, seed: u64, suspended: Option<String>, now: Now) -> Self {
        let mut agent = Self {
            executions: BTreeMap::new(),
            unreadable: boot.unreadable.into_iter().collect(),
            leftovers: BTreeMap::new(),
            leftovers_counted_at: now.mono,
            suspects_from: now.mono.plus(SUSPECTS_WAIT),
            suspect_until: now.mono,
            reported: keyed(boot.reported, |it| it.execution),
            passing: BTreeMap::new(),
            remembered: keyed(boot.locals, |it| it.execution),
            changes: VecDeque::new(),
            cx: Machinery {
                now,
                jitter: Jitter::new(seed),
                specs: boot.specs,
                suspended,
                draining: false,
                actions: VecDeque::new(),
                next_ticket: 0,
                tickets: BTreeMap::new(),
                fetch_queue: VecDeque::new(),
                fetching: BTreeSet::new(),
                cancelled: BTreeSet::new(),
                prepare_queue: VecDeque::new(),
                preparing: BTreeSet::new(),
            },
        };
        for row in boot.rows {
            let id = row.execution;
            let mut execution = Execution::new(row);
            let outcome =
                execution.restore(agent.remembered.get(&id), agent.reported.get(&id), now);
            agent.changes.extend(outcome.map(Change::Outcome));
            agent.executions.insert(id, execution);
        }
        for (id, local) in &agent.remembered {
            if agent.executions.contains_key(id) {
                continue;
            }
            match (&local.started, local.leftover_ms) {
                (Some(started), None)
                    if boot.rows_were_lost || agent.unreadable.contains_key(id) =>
                {
                    let mut execution = Execution::new(started.clone());
                    let outcome = execution.restore(Some(local), None, now);
                    agent.changes.extend(outcome.map(Change::Outcome));
                    execution.unreadable = agent.unreadable.remove(id);
                    agent.executions.insert(*id, execution);
                }
                (_, kept_ms) => {
                    let kept = Duration::from_millis(kept_ms.unwrap_or(0));
                    let purging = false;
                    agent.leftovers.insert(*id, Leftover { kept, purging });
                }
            }
        }
        agent.settle_all();
        agent
    }

    /// The desired rows changed, and the change is on disk.
    pub fn handle_desired(&mut self, change: DesiredChange, now: Now) {
        self.cx.now = now;
        self.cx.specs.extend(change.specs);
        if change.whole {
            let named: BTreeSet<ExecutionId> = change
                .upserts
                .iter()
                .map(|row| row.execution)
                .chain(change.unreadable.iter().map(|(id, _)| *id))
                .collect();
            for (id, execution) in &mut self.executions {
                execution.vanished |= !named.contains(id);
            }
            self.unreadable.retain(|id, _| named.contains(id));
        }
        for id in change.removed {
            self.unreadable.remove(&id);
            if let Some(execution) = self.executions.get_mut(&id) {
                execution.vanished = true;
            }
        }
        for (id, reason) in change.unreadable {
            match self.executions.get_mut(&id) {
                Some(execution) => execution.unreadable = Some(reason),
                None => {
                    self.unreadable.insert(id, reason);
                }
            }
        }
        for row in change.upserts {
            let id = row.execution;
            self.unreadable.remove(&id);
            let leftover = self.leftovers.remove(&id);
            let readable = matches!(self.cx.specs.get(&row.spec), Some(Ok(_)));
            match self.executions.get_mut(&id) {
                Some(execution) => execution.handle_row(row, readable, &mut self.cx),
                None if leftover.is_some_and(|it| it.purging) => {
                    let execution = Execution::new(row).being_purged();
                    self.executions.insert(id, execution);
                }
                None => {
                    self.executions.insert(id, Execution::new(row));
                }
            }
        }
        for (id, label, how) in change.ended {
            if let Some(execution) = self.executions.get_mut(&id) {
                execution.handle_ended_before(label, how);
            }
        }
        self.settle_all();
        self.drop_unused_specs();
    }

    /// The orchestrator is in reach.
    pub fn handle_connected(&mut self, now: Now) {
        self.cx.now = now;
        for execution in self.executions.values_mut() {
            execution.handle_connected();
        }
        self.settle_all();
    }

    /// All work stops and keeps its data (`Some`: why), or goes on as the rows say (`None`).
    pub fn handle_suspended(&mut self, why: Option<String>, now: Now) {
        self.cx.now = now;
        if self.cx.suspended != why {
            self.cx.suspended = why;
            self.settle_all();
        }
    }

    /// A fetch that takes long has got so far.
    pub fn handle_fetching(&mut self, digest: Digest, bytes: u64, now: Now) {
        self.cx.now = now;
        let size = self.cx.artifact(digest).map_or(0, |it| it.size);
        let percent = u8::try_from(bytes.saturating_mul(100) / size.max(1)).unwrap_or(100);
        let waiting = self.executions.iter_mut();
        let ids: Vec<ExecutionId> = waiting
            .filter_map(|(id, it)| it.handle_fetching(digest, percent.min(100)).then_some(*id))
            .collect();
        for id in ids {
            self.report(id);
        }
    }

    /// A fetch ended.
    pub fn handle_fetched(&mut self, digest: Digest, result: Result<(), String>, now: Now) {
        self.cx.now = now;
        if !self.cx.fetching.remove(&digest) {
            return;
        }
        if self.cx.cancelled.remove(&digest) && result.is_err() {
            // That it was given up is no failure; it may have come to be wanted again meanwhile.
            self.fetch_again(digest);
            self.pump();
            return;
        }
        for execution in self.executions.values_mut() {
            execution.handle_fetched(digest, &result, &mut self.cx);
        }
        self.settle_all();
    }

    /// A preparing has got to `compiling` or `starting`.
    pub fn handle_phase(&mut self, ticket: Ticket, phase: ObservedPhase, now: Now) {
        self.cx.now = now;
        self.with(ticket, |execution, _| {
            execution.handle_phase(ticket, phase);
            None
        });
    }

    /// A preparing ended.
    pub fn handle_prepared(
        &mut self,
        ticket: Ticket,
        result: Result<(), PrepareFailure>,
        now: Now,
    ) {
        self.cx.now = now;
        let awaited = self.cx.preparing.remove(&ticket);
        if !self.cx.tickets.contains_key(&ticket) {
            if awaited && result.is_ok() {
                self.cx.act(Action::Discard { ticket });
            }
            self.pump();
            return;
        }
        self.with(ticket, |execution, cx| {
            execution.handle_prepared(ticket, result, cx)
        });
    }

    /// An instance moves records.
    pub fn handle_running(&mut self, ticket: Ticket, now: Now) {
        self.cx.now = now;
        self.with(ticket, |execution, _| {
            execution.handle_running(ticket, now.mono);
            None
        });
    }

    /// An instance ended.
    pub fn handle_ended(&mut self, ticket: Ticket, ending: Ending, now: Now) {
        self.cx.now = now;
        self.with(ticket, |execution, cx| {
            execution.handle_ended(ticket, ending, cx)
        });
    }

    /// A purge ended.
    pub fn handle_purged(&mut self, id: ExecutionId, result: Result<(), String>, now: Now) {
        self.cx.now = now;
        if let Some(execution) = self.executions.get_mut(&id) {
            execution.handle_purged(result, &mut self.cx);
            self.settle(id);
            self.pump();
        } else if let Some(leftover) = self.leftovers.get_mut(&id) {
            leftover.purging = false;
            if result.is_ok() {
                self.leftovers.remove(&id);
                self.report(id);
            }
        }
    }

    /// Time passed.
    pub fn handle_tick(&mut self, now: Now) {
        self.cx.now = now;
        self.count_leftovers();
        self.settle_all();
    }

    /// The process is about to end: no action is given out any more, and what the shell stops is not news, so that
    /// the next process starts it again.
    pub fn handle_shutdown(&mut self) {
        self.cx.draining = true;
        self.cx.actions.clear();
        // Nothing that is under way now counts against it.
        let ids: Vec<ExecutionId> = self.executions.keys().copied().collect();
        for id in ids {
            self.remember(id);
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.cx.actions.pop_front()
    }

    /// The next thing to write down; in order, and before the actions go out.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// When [`Self::handle_tick`] is due.
    pub fn next_deadline(&self) -> Option<MonotonicMs> {
        if self.cx.draining {
            return None;
        }
        let executions = self
            .executions
            .values()
            .filter_map(Execution::next_deadline);
        let leftovers = self.leftovers.values().map(|leftover| {
            let left = LEFTOVER_KEPT.saturating_sub(leftover.kept);
            let counted = self.leftovers_counted_at;
            counted.plus(if left.is_zero() {
                LEFTOVER_COUNTED_EVERY
            } else {
                left.min(LEFTOVER_COUNTED_EVERY)
            })
        });
        let passing = self.passing.values().map(|it| it.plus(PASSING_TOLD_AFTER));
        let times = [self.suspects_from, self.suspect_until];
        let held_back = !self.cx.prepare_queue.is_empty();
        let suspects = times
            .into_iter()
            .filter(|at| held_back && *at > self.cx.now.mono);
        let all = executions.chain(leftovers).chain(suspects);
        all.chain(passing).min()
    }

    /// The specs that are still needed; others may be deleted.
    pub fn specs_in_use(&self) -> BTreeSet<Digest> {
        self.executions
            .values()
            .flat_map(Execution::specs)
            .collect()
    }

    /// The components that are still needed; others may be deleted.
    pub fn components_in_use(&self) -> BTreeSet<Digest> {
        self.artifacts_of(&self.specs_in_use(), ArtifactKind::Component)
    }

    /// What launches brought and an execution that has not ended reads; the rest is of no use any more.
    pub fn stdins_in_use(&self) -> BTreeSet<Digest> {
        let open = self.executions.values().flat_map(Execution::open_specs);
        self.artifacts_of(&open.collect(), ArtifactKind::Stdin)
    }

    fn artifacts_of(&self, specs: &BTreeSet<Digest>, kind: ArtifactKind) -> BTreeSet<Digest> {
        let facts = specs.iter().filter_map(|spec| self.cx.specs.get(spec));
        facts
            .flatten()
            .flat_map(|it| &it.artifacts)
            .filter(|artifact| artifact.kind == kind)
            .map(|artifact| artifact.digest)
            .collect()
    }

    /// The name of an execution's job.
    pub fn job_name(&self, id: ExecutionId) -> Option<&str> {
        let execution = self.executions.get(&id)?;
        Some(execution.target.assignment.job_name.as_str())
    }

    /// Whose preparing or instance a ticket names.
    pub fn execution_of(&self, ticket: Ticket) -> Option<ExecutionId> {
        self.cx.tickets.get(&ticket).copied()
    }

    /// Every execution with its label, as the rows order.
    pub fn labels(&self) -> impl Iterator<Item = (ExecutionId, Label)> {
        self.executions
            .iter()
            .map(|(id, execution)| (*id, execution.target.assignment.label))
    }

    fn with(
        &mut self,
        ticket: Ticket,
        handle: impl FnOnce(&mut Execution, &mut Machinery) -> Option<Observation>,
    ) {
        let Some(&id) = self.cx.tickets.get(&ticket) else {
            return;
        };
        let Some(execution) = self.executions.get_mut(&id) else {
            return;
        };
        if let Some(outcome) = handle(execution, &mut self.cx) {
            self.changes.push_back(Change::Outcome(outcome));
        }
        self.settle(id);
        self.pump();
    }

    fn settle_all(&mut self) {
        let ids: BTreeSet<ExecutionId> = self
            .executions
            .keys()
            .chain(self.leftovers.keys())
            .chain(self.unreadable.keys())
            .chain(self.reported.keys())
            .copied()
            .collect();
        for id in ids {
            self.settle(id);
        }
        self.pump();
    }

    fn settle(&mut self, id: ExecutionId) {
        if self.cx.draining {
            // Only ends are news now.
            let ended = |execution: &Execution| execution.ended_here();
            if self.executions.get(&id).is_some_and(ended) {
                self.report(id);
            } else {
                self.remember(id);
            }
            return;
        }
        if let Some(execution) = self.executions.get_mut(&id) {
            let outcome = execution.settle(&mut self.cx);
            self.changes.extend(outcome.map(Change::Outcome));
            if execution.vanished && execution.is_idle() {
                if !execution.was_purged() {
                    let kept = Duration::ZERO;
                    let purging = false;
                    self.leftovers.insert(id, Leftover { kept, purging });
                }
                self.executions.remove(&id);
            }
        }
        self.report(id);
    }

    /// Puts a fetch that was given up back in the queue, if it is wanted again.
    fn fetch_again(&mut self, digest: Digest) {
        if !self.executions.values().any(|it| it.waits_for(digest)) {
            return;
        }
        if let Some(artifact) = self.cx.artifact(digest) {
            self.cx.want(artifact);
        }
    }

    /// Fetches that nothing waits for any more make room for others.
    fn cancel_fetches(&mut self) {
        for &digest in &self.cx.fetching {
            let wanted = self.executions.values().any(|it| it.waits_for(digest));
            if !wanted && self.cx.cancelled.insert(digest) {
                self.cx.actions.push_back(Action::CancelFetch { digest });
            }
        }
    }

    /// Gives out turns and fetches.
    fn pump(&mut self) {
        if self.cx.draining {
            return;
        }
        while self.cx.preparing.len() < PREPARES_MAX {
            let Some(ticket) = self.next_turn() else {
                break;
            };
            let Some(&id) = self.cx.tickets.get(&ticket) else {
                continue;
            };
            let execution = self.executions.get_mut(&id);
            let Some(assignment) = execution.and_then(|it| it.take_turn(ticket)) else {
                continue;
            };
            self.cx.preparing.insert(ticket);
            self.cx.act(Action::Prepare { ticket, assignment });
            self.report(id);
        }
        self.cancel_fetches();
        while self.cx.fetching.len() < FETCHES_MAX {
            let Some(artifact) = self.cx.fetch_queue.pop_front() else {
                break;
            };
            let Artifact { digest, size, kind } = artifact;
            if self.executions.values().any(|it| it.waits_for(digest)) {
                self.cx.fetching.insert(digest);
                self.cx.act(Action::Fetch { digest, size, kind });
            }
        }
    }

    /// Whose turn it is to be prepared. What a process died of comes last, and alone: if this one dies of it again, the
    /// others ran meanwhile and are not blamed.
    fn next_turn(&mut self) -> Option<Ticket> {
        let is_suspect = |ticket: &Ticket| {
            let execution = self.cx.tickets.get(ticket);
            let execution = execution.and_then(|id| self.executions.get(id));
            execution.is_some_and(Execution::is_suspect)
        };
        let unsuspected = self.cx.prepare_queue.iter().position(|it| !is_suspect(it));
        if unsuspected.is_none() {
            if self.suspects_wait() {
                return None;
            }
            self.suspect_until = self.cx.now.mono.plus(SUSPECTS_WAIT);
        }
        self.cx.prepare_queue.remove(unsuspected.unwrap_or(0))
    }

    fn suspects_wait(&self) -> bool {
        let now = self.cx.now.mono;
        let first = |it: &Execution| !it.is_suspect() && it.is_on_its_way();
        let tried = |it: &Execution| it.is_suspect() && it.is_brought_up();
        (now < self.suspects_from && self.executions.values().any(first))
            || (now < self.suspect_until && self.executions.values().any(tried))
    }

    /// Writes down what is new about an execution.
    fn report(&mut self, id: ExecutionId) {
        let suspended = self.cx.suspended.as_deref();
        let seen = match self.executions.get(&id) {
            Some(execution) => Some(execution.observe(suspended)),
            None => self.unreadable.get(&id).map(|why| unreadable_row(id, why)),
        };
        let is_news = seen.as_ref() != self.reported.get(&id);
        match seen {
            Some(seen) if is_news && seen.passes() && !self.has_passed_for_long(id) => {}
            Some(seen) if is_news => {
                self.passing.remove(&id);
                self.changes.push_back(Change::Live(seen.clone()));
                self.reported.insert(id, seen);
            }
            None if self.reported.remove(&id).is_some() => {
                self.passing.remove(&id);
                self.changes.push_back(Change::LiveRemoved(id));
            }
            _ => {
                self.passing.remove(&id);
            }
        }
        self.remember(id);
    }

    /// Whether it is time to tell of what passes; begins to count when nothing has.
    fn has_passed_for_long(&mut self, id: ExecutionId) -> bool {
        let now = self.cx.now.mono;
        let since = *self.passing.entry(id).or_insert(now);
        now.since(since) >= PASSING_TOLD_AFTER
    }

    /// Writes down what is new of what a restart must know.
    fn remember(&mut self, id: ExecutionId) {
        let local = match self.executions.get(&id) {
            Some(execution) => execution.local(&self.cx),
            None => self.leftovers.get(&id).map(|leftover| Local {
                execution: id,
                started: None,
                ended: None,
                restarts: 0,
                bring_ups: Vec::new(),
                tries: None,
                leftover_ms: Some(u64::try_from(leftover.kept.as_millis()).unwrap_or(u64::MAX)),
            }),
        };
        match local {
            Some(local) if self.remembered.get(&id) != Some(&local) => {
                self.changes.push_back(Change::Local(local.clone()));
                self.remembered.insert(id, local);
            }
            None if self.remembered.remove(&id).is_some() => {
                self.changes.push_back(Change::LocalRemoved(id));
            }
            _ => {}
        }
    }

    fn count_leftovers(&mut self) {
        let passed = self.cx.now.mono.since(self.leftovers_counted_at);
        let due =
            |leftover: &Leftover| leftover.kept + passed >= LEFTOVER_KEPT && !leftover.purging;
        if passed < LEFTOVER_COUNTED_EVERY && !self.leftovers.values().any(due) {
            return;
        }
        self.leftovers_counted_at = self.cx.now.mono;
        for (id, leftover) in &mut self.leftovers {
            leftover.kept = (leftover.kept + passed).min(LEFTOVER_KEPT);
            if leftover.kept >= LEFTOVER_KEPT && !leftover.purging && !self.cx.draining {
                leftover.purging = true;
                self.cx.actions.push_back(Action::Purge { execution: *id });
            }
        }
    }

    fn drop_unused_specs(&mut self) {
        let used = self.specs_in_use();
        self.cx.specs.retain(|digest, _| used.contains(digest));
    }
}

fn unreadable_row(execution: ExecutionId, why: &str) -> Observation {
    Observation {
        execution,
        label: Label::default(),
        phase: ObservedPhase::Refused,
        fail: None,
        reason: format!("this edge cannot read its row: {why}"),
        next_action: "when this edge's program is newer".to_owned(),
        next_at: None,
        restarts: 0,
        running_version: None,
    }
}

fn keyed<T>(items: Vec<T>, key: impl Fn(&T) -> ExecutionId) -> BTreeMap<ExecutionId, T> {
    items.into_iter().map(|item| (key(&item), item)).collect()
}
