//! The runner that every edge pretends to have: it fetches, prepares, starts, stops and purges in virtual time, and
//! watches that it is never asked for what must not be (I6).

use std::collections::BTreeMap;

use sluice_agent::{Assignment, Ending, PrepareFailure, Ticket};
use sluice_edge_runtime::core::Input;
use sluice_edge_runtime::runner::Counters;
use sluice_host::core::{ConnId, Input as HostInput};
use sluice_model::{Digest, ExecutionId, FailReason, ObservedPhase, Slot};
use sluice_protocol::Spec;

use super::edge::{Stage, Work};
use super::operators::Content;
use super::orchestrator::Asker;
use super::planted::Planted;
use super::world::{Event, Mood, World};

/// How long a fetch may take before it counts as failed.
const FETCH_MS_MAX: u64 = 40_000;

/// What an edge says of an input that is not there.
pub const MISSING: &str =
    "cannot open \"orders.csv\" in \"/data\": No such file or directory (os error 2)";

/// What happens to a piece of work next.
#[derive(Clone, Debug)]
pub enum Step {
    /// It got to this phase.
    Phase(ObservedPhase),
    /// Preparing ended.
    Prepared(Result<(), PrepareFailure>),
    /// It moves records.
    Running,
    /// It has counted something.
    Counted,
    /// It ended.
    Ended(Ending),
    /// It takes the whole process with it.
    Kills,
}

impl World {
    pub(super) fn fetch(&mut self, edge: usize, digest: Digest) {
        let boot = self.edges[edge].boot;
        let here = self.edges[edge].disk.components.contains(&digest);
        let Some(process) = self.process(edge, boot) else {
            return;
        };
        assert!(
            process.fetching.insert(digest),
            "a component is fetched twice at once"
        );
        if here {
            let result = Ok(());
            self.schedule(
                2,
                Event::FetchEnd {
                    edge,
                    boot,
                    digest,
                    result,
                },
            );
            return;
        }
        self.checks.asked_for.insert((edge, digest));
        let asks = match self.mood {
            Mood::Calm => 5,
            Mood::Chaotic => self.random.delay(1, 5_000),
        };
        self.schedule(asks, Event::FetchAsk { edge, boot, digest });
        let result = Err("it takes too long".to_owned());
        self.schedule(
            FETCH_MS_MAX,
            Event::FetchEnd {
                edge,
                boot,
                digest,
                result,
            },
        );
    }

    pub(super) fn ask_for_component(&mut self, edge: usize, boot: u64, digest: Digest) {
        let Some(process) = self.process(edge, boot) else {
            return;
        };
        let session = process.core.session();
        let reachable = session
            .and_then(|id| self.network.get(id.0))
            .is_some_and(|it| it.is_well());
        let unlucky = self.mood == Mood::Chaotic && self.random.one_in(10);
        match session {
            Some(id) if reachable && !unlucky && self.orchestrator.core.is_some() => {
                let request = self.orchestrator.ask(Asker::Pull { edge, boot, digest });
                self.feed_host(HostInput::Pull {
                    request,
                    conn: ConnId(id.0),
                    digest,
                });
            }
            _ => {
                let result = Err("the orchestrator is not in reach".to_owned());
                self.end_fetch(edge, boot, digest, result);
            }
        }
    }

    pub(super) fn end_fetch(
        &mut self,
        edge: usize,
        boot: u64,
        digest: Digest,
        result: Result<(), String>,
    ) {
        let Some(process) = self.process(edge, boot) else {
            return;
        };
        if !process.fetching.remove(&digest) {
            return;
        }
        if result.is_ok() {
            self.edges[edge].disk.components.insert(digest);
        }
        self.feed_edge(edge, Input::Fetched { digest, result });
    }

    pub(super) fn prepare(
        &mut self,
        edge: usize,
        ticket: Ticket,
        assignment: Assignment,
        spec: &[u8],
    ) {
        assert_eq!(
            Digest::of(spec),
            assignment.spec,
            "a preparing has another spec than its row names"
        );
        let spec = Spec::decode(spec).expect("its digest is right");
        let content = Content::of(&spec.pipeline).expect("a pipeline of the simulator");
        for component in &spec.components {
            assert!(
                self.edges[edge].disk.components.contains(&component.digest),
                "a component is missing at preparing"
            );
        }
        let chaotic = self.mood == Mood::Chaotic;
        let result = match content {
            Content::Misconfigured(_) => {
                Err(PrepareFailure::Configure("it wants another key".to_owned()))
            }
            _ if chaotic && self.random.one_in(12) => {
                Err(PrepareFailure::Retry("no memory just now".to_owned()))
            }
            _ => Ok(()),
        };
        let (first, second) = if chaotic {
            (self.random.delay(1, 2_000), self.random.delay(1, 2_000))
        } else {
            (5, 5)
        };
        let boot = self.edges[edge].boot;
        self.edges[edge].disk.states.insert(assignment.execution);
        let Some(process) = self.process(edge, boot) else {
            return;
        };
        let work = Work {
            assignment,
            content,
            stage: Stage::Preparing,
        };
        assert!(
            process.work.insert(ticket, work).is_none(),
            "a ticket is used twice"
        );
        if let Content::Deadly(_) = content {
            self.plan_work(edge, ticket, first, Step::Kills);
            return;
        }
        let phase = Step::Phase(ObservedPhase::Starting);
        self.plan_work(edge, ticket, first, phase);
        self.plan_work(edge, ticket, first + second, Step::Prepared(result));
    }

    fn plan_work(&mut self, edge: usize, ticket: Ticket, after_ms: u64, step: Step) {
        let boot = self.edges[edge].boot;
        self.schedule(
            after_ms,
            Event::Work {
                edge,
                boot,
                ticket,
                step,
            },
        );
    }

    pub(super) fn discard(&mut self, edge: usize, ticket: Ticket) {
        let boot = self.edges[edge].boot;
        if let Some(process) = self.process(edge, boot)
            && let Some(work) = process.work.remove(&ticket)
        {
            assert!(!work.stage.is_live(), "what runs is stopped, not discarded");
        }
    }

    pub(super) fn start_work(&mut self, edge: usize, ticket: Ticket, assignment: &Assignment) {
        self.check_start(edge, ticket, assignment);
        let key = (edge, assignment.job_name.to_string());
        *self.checks.starts.entry(key).or_default() += 1;
        let chaotic = self.mood == Mood::Chaotic;
        let boot = self.edges[edge].boot;
        let name = self.edges[edge].name.to_string();
        self.note(
            &name,
            format_args!(
                "runner: starts {} {} ({ticket})",
                assignment.job_name, assignment.label
            ),
        );
        self.edges[edge].disk.states.insert(assignment.execution);
        let Some(process) = self.process(edge, boot) else {
            return;
        };
        let Some(work) = process.work.get_mut(&ticket) else {
            panic!("{name} starts what was not prepared");
        };
        assert_eq!(work.stage, Stage::Ready, "{name} starts what is not ready");
        work.stage = Stage::Starting;
        let content = work.content;
        let runs = if chaotic {
            self.random.delay(1, 1_500)
        } else {
            5
        };
        if let Content::Missing(there_after) = content {
            let opened = self
                .checks
                .openings
                .entry(assignment.execution)
                .or_default();
            *opened += 1;
            if *opened <= u64::from(there_after) {
                let missing = Ending::Backoff(MISSING.to_owned());
                self.plan_work(edge, ticket, runs, Step::Ended(missing));
                return;
            }
        }
        self.plan_work(edge, ticket, runs, Step::Running);
        self.plan_work(edge, ticket, runs + 700, Step::Counted);
        let lasts = if chaotic {
            self.random.delay(10, 30_000)
        } else {
            1_000
        };
        let failed = |message: &str| Ending::Failed {
            reason: FailReason::Fatal,
            message: message.to_owned(),
        };
        let ending = match content {
            // What is launched may break off, too.
            Content::Ends(_) | Content::Missing(_) if chaotic && assignment.slot != Slot::ZERO => {
                Some(match self.random.below(8) {
                    0 => Ending::Crashed("by chance".to_owned()),
                    1 => Ending::Backoff("the output is away".to_owned()),
                    _ => Ending::Completed,
                })
            }
            Content::Ends(_) | Content::Missing(_) => Some(Ending::Completed),
            Content::Fails(_) => Some(failed("a stage said fatal")),
            Content::Crashes(_) => Some(Ending::Crashed("it hit a bug".to_owned())),
            Content::Steady(_) if chaotic => match self.random.below(40) {
                0 => Some(Ending::Crashed("by chance".to_owned())),
                1 => Some(Ending::Backoff("the output is away".to_owned())),
                2 => {
                    let execution = assignment.execution;
                    self.checks.may_have_failed.insert(execution);
                    Some(failed("by chance"))
                }
                _ => None,
            },
            Content::Steady(_)
            | Content::Spoils(_)
            | Content::Misconfigured(_)
            | Content::Deadly(_) => None,
        };
        if let Some(ending) = ending {
            self.plan_work(edge, ticket, runs + lasts, Step::Ended(ending));
        }
    }

    pub(super) fn stop_work(&mut self, edge: usize, ticket: Ticket) {
        let drains = match self.mood {
            Mood::Calm => 10,
            Mood::Chaotic => self.random.delay(1, 10_000),
        };
        let boot = self.edges[edge].boot;
        let Some(process) = self.process(edge, boot) else {
            return;
        };
        // It may have ended by itself just now; then that is its end.
        let Some(work) = process.work.get_mut(&ticket) else {
            return;
        };
        assert!(work.stage.is_live(), "what does not run is not stopped");
        work.stage = Stage::Stopping;
        // Not every input goes on where it was.
        let ending = match self.mood {
            Mood::Chaotic if self.random.one_in(3) => Ending::Cut,
            Mood::Chaotic | Mood::Calm => Ending::Stopped,
        };
        self.plan_work(edge, ticket, drains, Step::Ended(ending));
    }

    pub(super) fn work(&mut self, edge: usize, boot: u64, ticket: Ticket, step: Step) {
        let deaf = self.planted == Some(Planted::DeafInstances);
        let Some(process) = self.process(edge, boot) else {
            return;
        };
        let Some(work) = process.work.get_mut(&ticket) else {
            return;
        };
        let records = u64::from(ticket.0 as u32) + 1;
        let spoils = matches!(work.content, Content::Spoils(_));
        // What is counted last no heartbeat has told yet.
        let records = match &step {
            Step::Ended(_) => 2 * records,
            _ => records,
        };
        let mut counters = Counters {
            records_in: records,
            dead_letters: if spoils { records } else { 0 },
            ..Counters::default()
        };
        let execution = work.assignment.execution;
        let mut begins = None;
        let input = match step {
            Step::Phase(phase) => Input::Phase { ticket, phase },
            Step::Prepared(result) => {
                if result.is_ok() {
                    work.stage = Stage::Ready;
                } else {
                    process.work.remove(&ticket);
                }
                Input::Prepared { ticket, result }
            }
            Step::Running => {
                if work.stage != Stage::Starting {
                    return;
                }
                work.stage = Stage::Running;
                begins = Some(work.assignment.clone());
                let counters = Counters::default();
                Input::Running { ticket, counters }
            }
            Step::Kills => {
                self.crash_edge(edge, "out of memory", Some(1_000));
                return;
            }
            Step::Counted => Input::Counters(vec![(execution, counters)]),
            Step::Ended(ending) => {
                let assignment = work.assignment.clone();
                if deaf && ending == Ending::Stopped {
                    work.stage = Stage::Running;
                } else {
                    process.work.remove(&ticket);
                }
                self.note_task_ends(&assignment, &ending);
                let ends = matches!(ending, Ending::Completed | Ending::Failed { .. });
                if ends && assignment.slot != Slot::ZERO {
                    counters.output = Some(self.write_output(edge, execution));
                }
                Input::Ended {
                    ticket,
                    ending,
                    counters,
                }
            }
        };
        if let Some(assignment) = begins {
            self.check_task_begins(&assignment);
        }
        self.feed_edge(edge, input);
    }

    pub(super) fn purge(&mut self, edge: usize, execution: ExecutionId) {
        let chaotic = self.mood == Mood::Chaotic;
        let boot = self.edges[edge].boot;
        let name = self.edges[edge].name.to_string();
        if let Some(process) = self.process(edge, boot) {
            let lives = process
                .work
                .values()
                .any(|work| work.assignment.execution == execution && work.stage.is_live());
            assert!(!lives, "{name} deletes the state of an execution that runs");
        }
        let result = if chaotic && self.random.one_in(8) {
            Err("a file is busy".to_owned())
        } else {
            Ok(())
        };
        let after = if chaotic {
            self.random.delay(1, 3_000)
        } else {
            5
        };
        self.schedule(
            after,
            Event::PurgeEnd {
                edge,
                boot,
                execution,
                result,
            },
        );
    }

    pub(super) fn end_purge(
        &mut self,
        edge: usize,
        boot: u64,
        execution: ExecutionId,
        result: Result<(), String>,
    ) {
        if self.process(edge, boot).is_none() {
            return;
        }
        if result.is_ok() {
            self.edges[edge].disk.states.remove(&execution);
            self.edges[edge].disk.outputs.remove(&execution);
        }
        self.feed_edge(edge, Input::Purged { execution, result });
    }

    /// What lives on an edge, by execution.
    pub fn live_work(&self, edge: usize) -> BTreeMap<ExecutionId, Work> {
        let Some(process) = &self.edges[edge].process else {
            return BTreeMap::new();
        };
        process
            .work
            .values()
            .filter(|work| work.stage.is_live())
            .map(|work| (work.assignment.execution, work.clone()))
            .collect()
    }
}
