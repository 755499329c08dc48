//! The agent against a machine that does everything in any order: whatever happens, at most one instance lives, labels
//! never go back, and once all is well everything that should run does.
#![allow(clippy::unwrap_used)]

mod tries;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use sluice_model::{
    Attempt, Desired, Digest, ExecutionId, FailReason, JobId, MonotonicMs, ObservedPhase, Slot,
    UnixMs, Version,
};

use crate::{
    Action, Agent, Artifact, ArtifactKind, Assignment, Boot, Change, DesiredChange, EndedHow,
    Ending, Label, Local, Now, Observation, PASSING_TOLD_AFTER, PrepareFailure, SpecParts, Ticket,
};

/// What may happen next; the numbers choose which of what is there.
#[derive(Clone, Debug)]
enum Step {
    Order {
        execution: u8,
        content: u8,
        desired: Desired,
    },
    SameLabel {
        execution: u8,
        desired: Desired,
    },
    Remove {
        execution: u8,
    },
    Fetched {
        which: usize,
        works: bool,
    },
    Prepared {
        which: usize,
        how: u8,
    },
    Ended {
        which: usize,
        how: u8,
    },
    Purged {
        which: usize,
        works: bool,
    },
    Pass {
        seconds: u32,
    },
    Connected,
    Suspend(bool),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let desired =
        prop_oneof![6 => Just(Desired::Run), 2 => Just(Desired::Stop), 1 => Just(Desired::Purge)];
    let step = prop_oneof![
        4 => (0..3u8, 0..CONTENTS, desired.clone()).prop_map(|(execution, content, desired)| Step::Order { execution, content, desired }),
        1 => (0..3u8, desired).prop_map(|(execution, desired)| Step::SameLabel { execution, desired }),
        1 => (0..3u8).prop_map(|execution| Step::Remove { execution }),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(which, works)| Step::Fetched { which, works }),
        6 => (any::<usize>(), 0..6u8).prop_map(|(which, how)| Step::Prepared { which, how }),
        6 => (any::<usize>(), 0..6u8).prop_map(|(which, how)| Step::Ended { which, how }),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(which, works)| Step::Purged { which, works }),
        3 => prop_oneof![9 => 0..400u32, 1 => Just(700_000)].prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Connected),
        1 => any::<bool>().prop_map(Step::Suspend),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..80)
}

/// The execution whose work is not idempotent. As with a run's tasks, its one row is never run again once it was stopped.
const ONCE: u8 = 2;

fn id(n: u8) -> ExecutionId {
    ExecutionId::from_random([n; 16])
}

fn spec(content: u8) -> Digest {
    Digest::of(&[content])
}

/// Different specs; the last runs the same as content 0, elsewhere.
const CONTENTS: u8 = 5;

/// One that is launched.
const BATCH: u8 = 7;

fn facts(spec_of: u8) -> (Digest, crate::SpecFacts) {
    let runs = spec_of % (CONTENTS - 1);
    let parts = SpecParts {
        content: Digest::of(&[runs, runs, runs]),
        artifacts: components(runs),
        is_batch: spec_of == BATCH,
    };
    (spec(spec_of), Ok(parts))
}

fn all_facts() -> BTreeMap<Digest, crate::SpecFacts> {
    (0..CONTENTS).chain([BATCH]).map(facts).collect()
}

/// What a spec runs.
fn runs(of: Digest) -> Digest {
    let facts: BTreeMap<Digest, crate::SpecFacts> = all_facts();
    facts[&of].as_ref().unwrap().content
}

/// Content 3 has no component, and contents 0 and 1 share one.
fn components(content: u8) -> Vec<Artifact> {
    let named: &[u8] = match content {
        0 => &[10],
        1 => &[10, 11],
        2 => &[12],
        _ => &[],
    };
    let of = |n: &u8| Artifact {
        digest: Digest::of(&[*n, *n]),
        size: 1,
        kind: ArtifactKind::Component,
    };
    named.iter().map(of).collect()
}

struct World {
    agent: Agent,
    now: Now,
    rows: BTreeMap<ExecutionId, Assignment>,
    version: u64,
    fetching: BTreeSet<Digest>,
    preparing: BTreeMap<Ticket, Assignment>,
    prepared: BTreeMap<Ticket, Assignment>,
    running: BTreeMap<ExecutionId, (Ticket, Assignment, bool)>,
    purging: BTreeSet<ExecutionId>,
    started: BTreeMap<ExecutionId, Label>,
    live: BTreeMap<ExecutionId, Observation>,
    locals: BTreeMap<ExecutionId, Local>,
    outcomes: BTreeSet<(ExecutionId, Label)>,
    /// What may have done a part of its work and cannot go on where it was.
    begun: BTreeSet<(ExecutionId, Label)>,
    suspended: bool,
}

impl World {
    fn new() -> Self {
        let now = Now {
            mono: MonotonicMs(5),
            unix: UnixMs(1_000_000),
        };
        Self {
            agent: Agent::new(Boot::default(), 1, None, now),
            now,
            rows: BTreeMap::new(),
            version: 0,
            fetching: BTreeSet::new(),
            preparing: BTreeMap::new(),
            prepared: BTreeMap::new(),
            running: BTreeMap::new(),
            purging: BTreeSet::new(),
            started: BTreeMap::new(),
            live: BTreeMap::new(),
            locals: BTreeMap::new(),
            outcomes: BTreeSet::new(),
            begun: BTreeSet::new(),
            suspended: false,
        }
    }

    /// A process start on what was written down.
    fn restart(&mut self) {
        self.fetching.clear();
        self.preparing.clear();
        self.prepared.clear();
        for (_, assignment, _) in std::mem::take(&mut self.running).into_values() {
            self.note_begun(&assignment);
        }
        self.purging.clear();
        let boot = Boot {
            rows: self.rows.values().cloned().collect(),
            locals: self.locals.values().cloned().collect(),
            reported: self.live.values().cloned().collect(),
            specs: all_facts(),
            ..Boot::default()
        };
        let why = self.suspended.then(|| "revoked".to_owned());
        self.agent = Agent::new(boot, self.now.mono.0, why, self.now);
    }

    fn tell(&mut self, row: Assignment) {
        self.rows.insert(row.execution, row.clone());
        let change = DesiredChange {
            upserts: vec![row],
            specs: all_facts(),
            ..DesiredChange::default()
        };
        self.agent.handle_desired(change, self.now);
    }

    fn note_begun(&mut self, assignment: &Assignment) {
        let id = assignment.execution;
        if self
            .rows
            .get(&id)
            .is_some_and(|row| row.desired == Desired::Run)
        {
            self.begun.insert((id, assignment.label));
        }
    }

    fn order(&mut self, execution: u8, content: u8, desired: Desired) {
        if execution == ONCE && self.rows.contains_key(&id(ONCE)) {
            self.reorder(execution, desired);
            return;
        }
        self.version += 1;
        self.tell(Assignment {
            execution: id(execution),
            job: JobId::from_random([execution; 16]),
            job_name: "a-job".parse().unwrap(),
            label: Label {
                version: Version(self.version),
                attempt: Attempt(1),
            },
            desired,
            slot: Slot(0),
            spec: spec(content),
            once: execution == ONCE,
        });
    }

    fn reorder(&mut self, execution: u8, desired: Desired) {
        let Some(row) = self.rows.get(&id(execution)).cloned() else {
            return;
        };
        if execution != ONCE || row.desired == Desired::Run {
            self.tell(Assignment { desired, ..row });
        }
    }

    fn take(&mut self, step: &Step) {
        let now = self.now;
        match *step {
            Step::Order {
                execution,
                content,
                desired,
            } => self.order(execution, content, desired),
            Step::SameLabel { execution, desired } => self.reorder(execution, desired),
            Step::Remove { execution } => {
                self.rows.remove(&id(execution));
                let removed = vec![id(execution)];
                let change = DesiredChange {
                    removed,
                    ..DesiredChange::default()
                };
                self.agent.handle_desired(change, now);
            }
            Step::Fetched { which, works } => {
                if let Some(digest) = pick(&self.fetching, which).copied() {
                    self.fetching.remove(&digest);
                    let result = if works {
                        Ok(())
                    } else {
                        Err("cut off".to_owned())
                    };
                    self.agent.handle_fetched(digest, result, now);
                }
            }
            Step::Prepared { which, how } => {
                let tickets: Vec<Ticket> = self.preparing.keys().copied().collect();
                if let Some(&ticket) = pick(&tickets, which) {
                    let assignment = self.preparing.remove(&ticket).unwrap();
                    let result = match how {
                        0 => Err(PrepareFailure::Configure("no".to_owned())),
                        1 => Err(PrepareFailure::Refused("no".to_owned())),
                        2 => Err(PrepareFailure::Retry("no".to_owned())),
                        _ => Ok(()),
                    };
                    if result.is_ok() {
                        self.prepared.insert(ticket, assignment);
                    }
                    self.agent
                        .handle_phase(ticket, ObservedPhase::Starting, now);
                    self.agent.handle_prepared(ticket, result, now);
                }
            }
            Step::Ended { which, how } => self.end(which, how),
            Step::Purged { which, works } => {
                if let Some(execution) = pick(&self.purging, which).copied() {
                    self.purging.remove(&execution);
                    let result = if works {
                        Ok(())
                    } else {
                        Err("busy".to_owned())
                    };
                    self.agent.handle_purged(execution, result, now);
                }
            }
            Step::Pass { seconds } => {
                self.now = now.plus(Duration::from_secs(seconds.into()));
                self.agent.handle_tick(self.now);
            }
            Step::Connected => self.agent.handle_connected(now),
            Step::Suspend(suspended) => {
                self.suspended = suspended;
                let why = suspended.then(|| "revoked".to_owned());
                self.agent.handle_suspended(why, now);
            }
            Step::Restart => self.restart(),
        }
        self.carry_out();
    }

    fn end(&mut self, which: usize, how: u8) {
        let executions: Vec<ExecutionId> = self.running.keys().copied().collect();
        let Some(execution) = pick(&executions, which) else {
            return;
        };
        let (ticket, assignment, stopping) = self.running.remove(execution).unwrap();
        let ending = match how {
            0 => Ending::Completed,
            1 => Ending::Failed {
                reason: FailReason::Fatal,
                message: "bad".to_owned(),
            },
            2 => Ending::Backoff("not there".to_owned()),
            3 if !stopping => Ending::Crashed("boom".to_owned()),
            5 => Ending::Cut,
            _ => Ending::Stopped,
        };
        if ending != Ending::Stopped {
            self.note_begun(&assignment);
        }
        self.agent.handle_ended(ticket, ending, self.now);
    }

    fn carry_out(&mut self) {
        while let Some(change) = self.agent.poll_change() {
            self.write(change);
        }
        while let Some(action) = self.agent.poll_action() {
            match action {
                Action::Fetch { digest, .. } => {
                    assert!(self.fetching.insert(digest), "fetched once at a time");
                    assert!(self.fetching.len() <= crate::FETCHES_MAX);
                }
                Action::CancelFetch { digest } => {
                    assert!(self.fetching.contains(&digest), "only what is under way");
                }
                Action::Prepare { ticket, assignment } => {
                    assert!(self.preparing.insert(ticket, assignment).is_none());
                    assert!(self.preparing.len() <= crate::PREPARES_MAX);
                }
                Action::Discard { ticket } => {
                    self.prepared
                        .remove(&ticket)
                        .expect("only what is prepared is discarded");
                }
                Action::Start { ticket, assignment } => {
                    assert!(
                        !self.suspended,
                        "nothing starts on a node that may not speak"
                    );
                    self.prepared
                        .remove(&ticket)
                        .expect("only what is prepared is started");
                    let execution = assignment.execution;
                    let label = assignment.label;
                    assert!(
                        !assignment.once || !self.begun.contains(&(execution, label)),
                        "not idempotent, and begun anew"
                    );
                    let last = self.started.insert(execution, label);
                    assert!(
                        last.is_none_or(|last| last <= label),
                        "labels never go back"
                    );
                    let old = self.running.insert(execution, (ticket, assignment, false));
                    assert!(old.is_none(), "at most one instance lives");
                    assert!(
                        !self.purging.contains(&execution),
                        "not while its state is deleted"
                    );
                    self.agent.handle_running(ticket, self.now);
                }
                Action::Stop { ticket, execution } => {
                    let running = self.running.get_mut(&execution).expect("it runs");
                    assert!(running.0 == ticket && !running.2, "stopped once");
                    running.2 = true;
                }
                Action::Purge { execution } => {
                    assert!(!self.running.contains_key(&execution), "not while it runs");
                    assert!(self.purging.insert(execution), "purged once at a time");
                }
            }
            while let Some(change) = self.agent.poll_change() {
                self.write(change);
            }
        }
    }

    fn write(&mut self, change: Change) {
        match change {
            Change::Live(seen) => {
                let waits = matches!(
                    seen.phase,
                    ObservedPhase::Fetching
                        | ObservedPhase::Compiling
                        | ObservedPhase::Starting
                        | ObservedPhase::Backoff
                        | ObservedPhase::Refused
                );
                if waits {
                    assert!(
                        !seen.reason.is_empty() && !seen.next_action.is_empty(),
                        "{seen:?}"
                    );
                }
                let old = self.live.insert(seen.execution, seen.clone());
                assert_ne!(old, Some(seen.clone()), "what is known is not told again");
                if let Some(row) = self.rows.get(&seen.execution) {
                    assert!(seen.label <= row.label);
                }
            }
            Change::LiveRemoved(execution) => {
                self.live.remove(&execution).expect("it was there");
            }
            Change::Outcome(seen) => {
                assert!(
                    self.outcomes.insert((seen.execution, seen.label)),
                    "told once: {seen:?}"
                );
            }
            Change::Local(local) => {
                self.locals.insert(local.execution, local);
            }
            Change::LocalRemoved(execution) => {
                self.locals.remove(&execution).expect("it was there");
            }
        }
    }

    /// Everything works from now on.
    fn heal(&mut self) {
        self.take(&Step::Suspend(false));
        for round in 0..200 {
            let before = self.now;
            self.take(&Step::Fetched {
                which: 0,
                works: true,
            });
            self.take(&Step::Prepared { which: 0, how: 5 });
            self.take(&Step::Purged {
                which: 0,
                works: true,
            });
            let stopping = self.running.values().position(|running| running.2);
            if let Some(which) = stopping {
                self.take(&Step::Ended { which, how: 4 });
            }
            if let Some(due) = self.agent.next_deadline() {
                assert!(
                    due > before.mono || round < 100,
                    "a deadline stays in the past"
                );
                let after = due.since(self.now.mono).min(Duration::from_secs(301));
                self.now = self.now.plus(after);
                self.take(&Step::Pass { seconds: 0 });
            }
        }
    }

    fn check(&self) {
        for (execution, row) in &self.rows {
            let seen = &self.live[execution];
            assert_eq!(seen.label, row.label, "{seen:?}");
            let running = self.running.get(execution);
            match row.desired {
                Desired::Run => match seen.phase {
                    ObservedPhase::Running => {
                        assert_eq!(runs(running.unwrap().1.spec), runs(row.spec));
                    }
                    ObservedPhase::Completed
                    | ObservedPhase::Failed
                    | ObservedPhase::Quarantined
                    | ObservedPhase::Refused => {
                        assert!(running.is_none_or(|it| it.1.label < row.label));
                    }
                    other => panic!("{other} for ever: {seen:?}"),
                },
                Desired::Stop => assert!(running.is_none() && seen.phase == ObservedPhase::Stopped),
                Desired::Purge => assert!(running.is_none() && seen.phase == ObservedPhase::Purged),
            }
        }
        assert!(
            self.live.keys().eq(self.rows.keys()),
            "rows and reports belong together"
        );
        assert!(
            self.running
                .keys()
                .all(|execution| self.rows.contains_key(execution))
        );
        assert!(self.prepared.is_empty() && self.preparing.is_empty());
    }
}

fn pick<'a, T: 'a>(
    of: impl IntoIterator<Item = &'a T, IntoIter: ExactSizeIterator>,
    which: usize,
) -> Option<&'a T> {
    let mut of = of.into_iter();
    let len = of.len();
    if len == 0 { None } else { of.nth(which % len) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_one_instance_lives_and_all_comes_to_rest(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        world.heal();
        world.check();
    }
}

#[test]
fn a_slow_update_does_not_keep_the_old_version_from_coming_back() {
    let mut world = World::new();
    world.order(0, 0, Desired::Run);
    world.carry_out();
    world.heal();
    world.order(0, 2, Desired::Run);
    world.carry_out();
    world.take(&Step::Restart);
    let old = components(0)[0].digest;
    assert!(world.fetching.contains(&old), "both are looked for");
    world.fetching.remove(&old);
    world.agent.handle_fetched(old, Ok(()), world.now);
    world.carry_out();
    world.take(&Step::Prepared { which: 0, how: 5 });
    assert_eq!(
        world.running[&id(0)].1.spec,
        spec(0),
        "the new one is still on its way"
    );
    world.take(&Step::Pass { seconds: 1 });
    assert_eq!(world.live[&id(0)].running_version, Some(Version(1)));
    world.heal();
    assert_eq!(world.running[&id(0)].1.spec, spec(2));
}

#[test]
fn a_fetch_that_nothing_waits_for_makes_room_for_the_next() {
    let mut world = World::new();
    world.order(0, 1, Desired::Run);
    world.order(1, 2, Desired::Run);
    world.carry_out();
    assert_eq!(world.fetching.len(), crate::FETCHES_MAX);
    let (first, second, other) = (
        components(1)[0].digest,
        components(1)[1].digest,
        components(2)[0].digest,
    );
    assert_eq!(world.fetching, BTreeSet::from([first, second]));
    world.order(0, 0, Desired::Stop);
    let actions: Vec<Action> = std::iter::from_fn(|| world.agent.poll_action()).collect();
    let given_up = |digest| actions.contains(&Action::CancelFetch { digest });
    assert!(given_up(first) && given_up(second), "{actions:?}");

    // Wanted again before the end of the cancelled fetch came: no failure, fetched anew.
    world.order(0, 0, Desired::Run);
    for digest in [first, second] {
        world.fetching.remove(&digest);
        let cut = Err("it was given up".to_owned());
        world.agent.handle_fetched(digest, cut, world.now);
        world.carry_out();
    }
    assert_eq!(world.fetching, BTreeSet::from([first, other]));
    world.take(&Step::Pass { seconds: 1 });
    assert_eq!(world.live[&id(0)].phase, ObservedPhase::Fetching);
    assert_eq!(
        world.live[&id(0)].next_at,
        None,
        "it does not wait for a retry"
    );
    world.heal();
    world.check();
}

#[test]
fn what_was_prepared_too_late_is_thrown_away() {
    let mut world = World::new();
    world.order(0, 3, Desired::Run);
    world.carry_out();
    assert_eq!(world.preparing.len(), 1);
    world.order(0, 3, Desired::Stop);
    world.carry_out();
    world.take(&Step::Prepared { which: 0, how: 5 });
    assert!(world.prepared.is_empty() && world.running.is_empty());
    assert_eq!(world.live[&id(0)].phase, ObservedPhase::Stopped);
}

#[test]
fn an_end_is_remembered_for_its_own_label_only() {
    let mut world = World::new();
    world.order(0, 3, Desired::Run);
    world.carry_out();
    world.take(&Step::Prepared { which: 0, how: 5 });
    world.take(&Step::Ended { which: 0, how: 0 });
    assert!(matches!(
        world.locals[&id(0)].ended,
        Some((_, EndedHow::Completed))
    ));
    world.take(&Step::Restart);
    assert!(world.preparing.is_empty(), "what has completed is kept");
    world.order(0, 3, Desired::Run);
    world.carry_out();
    assert_eq!(world.preparing.len(), 1, "a new version starts over");
}

/// What is not idempotent, under way.
fn under_way() -> World {
    let mut world = World::new();
    world.order(ONCE, 3, Desired::Run);
    world.carry_out();
    world.take(&Step::Prepared { which: 0, how: 5 });
    assert!(world.running.contains_key(&id(ONCE)));
    world
}

#[test]
fn case_41_what_its_edge_stopped_midway_is_not_begun_anew_unless_it_goes_on_where_it_was() {
    for (ending, goes_on) in [(Ending::Stopped, true), (Ending::Cut, false)] {
        let mut world = under_way();
        world.agent.handle_shutdown();
        let (ticket, ..) = world.running.remove(&id(ONCE)).unwrap();
        world.agent.handle_ended(ticket, ending.clone(), world.now);
        world.carry_out();
        assert_eq!(world.outcomes.len(), usize::from(!goes_on), "{ending:?}");
        world.restart();
        world.carry_out();
        assert_eq!(world.preparing.len(), usize::from(goes_on), "{ending:?}");
    }
    // The same when its node may not speak for a while.
    let mut world = under_way();
    world.take(&Step::Suspend(true));
    world.take(&Step::Ended { which: 0, how: 5 });
    world.take(&Step::Suspend(false));
    world.heal();
    world.check();
    assert!(world.running.is_empty());
    assert_eq!(world.live[&id(ONCE)].fail, Some(FailReason::Indeterminate));
    // An order to stop has an end of its own.
    let mut world = under_way();
    world.order(ONCE, 3, Desired::Stop);
    world.carry_out();
    world.take(&Step::Ended { which: 0, how: 5 });
    assert_eq!(world.live[&id(ONCE)].phase, ObservedPhase::Stopped);
    assert!(world.outcomes.is_empty());
}

#[test]
fn what_is_not_idempotent_and_refused_never_starts_here_later() {
    let mut world = World::new();
    world.order(ONCE, 3, Desired::Run);
    world.carry_out();
    world.take(&Step::Prepared { which: 0, how: 1 });
    assert_eq!(world.live[&id(ONCE)].fail, Some(FailReason::Rejected));
    assert_eq!(world.outcomes.len(), 1);
    world.take(&Step::Restart);
    assert!(world.preparing.is_empty(), "it may run elsewhere by now");
}

#[test]
fn a_suspended_node_has_no_deadline_that_stays_in_the_past() {
    let mut world = World::new();
    world.order(0, 3, Desired::Purge);
    world.carry_out();
    world.take(&Step::Purged {
        which: 0,
        works: false,
    });
    assert!(world.agent.next_deadline().is_some(), "it is tried again");
    world.take(&Step::Suspend(true));
    assert_eq!(world.agent.next_deadline(), None);
    world.take(&Step::Pass { seconds: 200 });
    assert_eq!(world.agent.next_deadline(), None);
    world.heal();
    world.check();
}

#[test]
fn what_passes_is_told_when_it_lasts_and_what_stays_at_once() {
    let mut world = World::new();
    world.order(0, 0, Desired::Run);
    world.carry_out();
    assert!(world.live.is_empty(), "it may be over at once");
    let due = world.agent.next_deadline().unwrap();
    assert_eq!(due, world.now.mono.plus(PASSING_TOLD_AFTER));
    // One short state after the other is as long as all of them together.
    world.now = world.now.plus(PASSING_TOLD_AFTER / 2);
    world.take(&Step::Fetched {
        which: 0,
        works: true,
    });
    assert!(world.live.is_empty());
    world.now = world.now.plus(PASSING_TOLD_AFTER / 2);
    world.take(&Step::Pass { seconds: 0 });
    assert_eq!(world.live[&id(0)].phase, ObservedPhase::Compiling);
    assert_eq!(world.agent.next_deadline(), None);
    world.take(&Step::Prepared { which: 0, how: 5 });
    assert_eq!(world.live[&id(0)].phase, ObservedPhase::Running);
    world.take(&Step::Ended { which: 0, how: 2 });
    assert_eq!(world.live[&id(0)].phase, ObservedPhase::Backoff);
    assert!(world.live[&id(0)].next_at.is_some());
}
