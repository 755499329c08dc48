//! The virtual world: what will happen when, and the loop that lets it happen.
//!
//! ```text
//!   queue of (time, event) --next--> move a frame | wake a process | start one | end a piece of work | do some chaos
//!                                        |
//!                                        +--> outputs of the cores become later events; invariants are checked
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use sluice_agent::Ticket;
use sluice_host::core::CoreConfig;
use sluice_model::{Digest, ExecutionId, Labels, NodeId};

use super::check::Checks;
use super::edge::Edge;
use super::network::{Network, Way};
use super::operators::Operators;
use super::orchestrator::Orchestrator;
use super::outputs::OutputsSeen;
use super::planted::Planted;
use super::random::Random;
use super::runs::{RunsSeen, limits};
use super::schedules::SchedulesSeen;
use super::timeline::Timeline;

/// More steps than that in one virtual millisecond mean that somebody does the same thing for ever.
const STEPS_AT_ONCE_MAX: u64 = 100_000;

/// How unkind the world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Delays are short, work succeeds, nobody interferes.
    Calm,
    /// Delays vary, work fails now and then, and chaos happens.
    Chaotic,
}

/// How a world is set up.
#[derive(Clone, Copy, Debug)]
pub struct WorldConfig {
    /// Time between heartbeats.
    pub heartbeat_ms: u64,
    /// Time after which a node that is away is lost.
    pub lost_after_ms: u64,
    /// Rows and acks are also doubled and overtake each other, which no reliable stream does (cases 58, 59).
    pub mangled: bool,
    /// How unkind it begins.
    pub mood: Mood,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            heartbeat_ms: 5_000,
            lost_after_ms: 600_000,
            mangled: false,
            mood: Mood::Calm,
        }
    }
}

/// What will happen.
#[derive(Debug)]
pub(super) enum Event {
    HostStart,
    HostWake {
        boot: u64,
    },
    HostTick {
        boot: u64,
    },
    EdgeStart {
        edge: usize,
        life: u64,
    },
    EdgeWake {
        edge: usize,
        boot: u64,
    },
    EdgeTick {
        edge: usize,
        boot: u64,
        at: u64,
    },
    JoinAsk {
        edge: usize,
        life: u64,
    },
    JoinReply {
        edge: usize,
        life: u64,
        node: NodeId,
    },
    Dial {
        edge: usize,
        boot: u64,
    },
    OpenAtHost(u64),
    OpenAtEdge(u64),
    ClosedAtHost(u64),
    ClosedAtEdge(u64),
    Deliver {
        connection: u64,
        way: Way,
        frame: Bytes,
    },
    Heal {
        connection: u64,
        way: Way,
    },
    LinkUp {
        edge: usize,
    },
    FetchAsk {
        edge: usize,
        boot: u64,
        digest: Digest,
    },
    FetchEnd {
        edge: usize,
        boot: u64,
        digest: Digest,
        result: Result<(), String>,
    },
    Work {
        edge: usize,
        boot: u64,
        ticket: Ticket,
        step: super::runner::Step,
    },
    PurgeEnd {
        edge: usize,
        boot: u64,
        execution: ExecutionId,
        result: Result<(), String>,
    },
    Readmit {
        edge: usize,
    },
    PullEnd {
        boot: u64,
        target: sluice_host::core::OutputTarget,
    },
    OrderAgain {
        name: String,
    },
    Chaos,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    /// How it was set up.
    pub config: WorldConfig,
    /// How unkind it is now.
    pub mood: Mood,
    /// The source of chance.
    pub random: Random,
    /// What happened.
    pub timeline: Timeline,
    /// The network.
    pub network: Network,
    /// The orchestrator's machine.
    pub orchestrator: Orchestrator,
    /// The edges' machines.
    pub edges: Vec<Edge>,
    /// The operators.
    pub operators: Operators,
    /// What was seen so far, for the invariants.
    pub checks: Checks,
    /// What lies, in a world that is to be caught.
    pub planted: Option<Planted>,
    /// What was launched, and what was seen of it.
    pub runs: RunsSeen,
    /// What launches by itself.
    pub schedules: SchedulesSeen,
    /// What runs wrote, and what was pulled of it.
    pub outputs: OutputsSeen,
    /// The answer to a scenario's question.
    pub(super) answer: Option<Result<sluice_host::core::Reply, sluice_api::ErrorBody>>,
    pub(super) now_ms: u64,
    pub(super) chaos_until_ms: u64,
    queue: BTreeMap<(u64, u64), Event>,
    last_event: u64,
    steps_at_once: u64,
}

impl World {
    /// A world with an orchestrator and no edges; the orchestrator starts at once.
    pub fn new(seed: u64, config: WorldConfig) -> Self {
        let mut random = Random::new(seed);
        let core_config = CoreConfig {
            heartbeat: Duration::from_millis(config.heartbeat_ms),
            lost_after: Duration::from_millis(config.lost_after_ms),
            worker: "simulated".to_owned(),
            limits: limits(),
        };
        let orchestrator = Orchestrator::new(core_config, random.split())
            .expect("SQLite opens a database in memory");
        let mut world = Self {
            config,
            mood: config.mood,
            random,
            timeline: Timeline::default(),
            network: Network::default(),
            orchestrator,
            edges: Vec::new(),
            operators: Operators::default(),
            checks: Checks::default(),
            planted: None,
            runs: RunsSeen::default(),
            schedules: SchedulesSeen::default(),
            outputs: OutputsSeen::default(),
            answer: None,
            now_ms: 0,
            chaos_until_ms: 0,
            queue: BTreeMap::new(),
            last_event: 0,
            steps_at_once: 0,
        };
        world.schedule(0, Event::HostStart);
        world
    }

    /// Adds a machine that joins as soon as it can, and returns its index.
    pub fn add_edge(&mut self, name: &str, labels: &[(&str, &str)]) -> usize {
        let labels: Labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let random = self.random.split();
        let edge = Edge::new(name, labels, random).expect("a good name and a database in memory");
        self.edges.push(edge);
        let index = self.edges.len() - 1;
        self.checks.add_edge();
        self.power_on(index, 0);
        index
    }

    /// Virtual time, in milliseconds since the world began.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Adds a line to the timeline.
    pub fn note(&mut self, who: &str, what: std::fmt::Arguments<'_>) {
        self.timeline.note(self.now_ms, who, what);
    }

    pub(super) fn schedule(&mut self, after_ms: u64, event: Event) {
        self.schedule_at(self.now_ms + after_ms, event);
    }

    pub(super) fn schedule_at(&mut self, at_ms: u64, event: Event) {
        self.last_event += 1;
        self.queue
            .insert((at_ms.max(self.now_ms), self.last_event), event);
    }

    /// Lets time pass.
    pub fn run_for(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.queue.keys().next().is_some_and(|(at, _)| *at <= end) {
            self.step();
        }
        self.now_ms = end;
    }

    /// Lets time pass until `done`, at most `within_ms`. Panics, naming what did not happen.
    pub fn run_until(
        &mut self,
        what: &str,
        within_ms: u64,
        mut done: impl FnMut(&mut Self) -> bool,
    ) {
        let end = self.now_ms + within_ms;
        while !done(self) {
            let next = self.queue.keys().next().map(|(at, _)| *at);
            match next {
                Some(at) if at <= end => self.step(),
                _ => panic!("within {within_ms} ms of virtual time this never came true: {what}"),
            }
        }
    }

    fn step(&mut self) {
        let Some(((at, _), event)) = self.queue.pop_first() else {
            return;
        };
        assert!(at >= self.now_ms, "time never goes back");
        self.steps_at_once = if at == self.now_ms {
            self.steps_at_once + 1
        } else {
            0
        };
        assert!(
            self.steps_at_once < STEPS_AT_ONCE_MAX,
            "time stands still: {event:?}"
        );
        self.now_ms = at;
        self.handle(event);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::HostStart => self.start_host(),
            Event::HostWake { boot } => self.wake_host(boot),
            Event::HostTick { boot } => self.tick_host(boot),
            Event::EdgeStart { edge, life } => self.start_edge(edge, life),
            Event::EdgeWake { edge, boot } => self.wake_edge(edge, boot),
            Event::EdgeTick { edge, boot, at } => self.tick_edge(edge, boot, at),
            Event::JoinAsk { edge, life } => self.ask_to_join(edge, life),
            Event::JoinReply { edge, life, node } => self.handle_joined(edge, life, node),
            Event::Dial { edge, boot } => self.dial(edge, boot),
            Event::OpenAtHost(connection) => self.open_at_host(connection),
            Event::OpenAtEdge(connection) => self.open_at_edge(connection),
            Event::ClosedAtHost(connection) => self.closed_at_host(connection),
            Event::ClosedAtEdge(connection) => self.closed_at_edge(connection),
            Event::Deliver {
                connection,
                way,
                frame,
            } => self.deliver(connection, way, frame),
            Event::Heal { connection, way } => self.heal(connection, way),
            Event::LinkUp { edge } => self.set_link(edge, true),
            Event::FetchAsk { edge, boot, digest } => self.ask_for_component(edge, boot, digest),
            Event::FetchEnd {
                edge,
                boot,
                digest,
                result,
            } => self.end_fetch(edge, boot, digest, result),
            Event::Work {
                edge,
                boot,
                ticket,
                step,
            } => self.work(edge, boot, ticket, step),
            Event::PurgeEnd {
                edge,
                boot,
                execution,
                result,
            } => self.end_purge(edge, boot, execution, result),
            Event::Readmit { edge } => self.readmit(edge),
            Event::PullEnd { boot, target } => self.end_pull(boot, &target),
            Event::OrderAgain { name } => self.order_again(&name),
            Event::Chaos => self.do_chaos(),
        }
    }

    /// The process of an edge, if it is the one meant.
    pub(super) fn process(&mut self, edge: usize, boot: u64) -> Option<&mut super::edge::Process> {
        let edge = &mut self.edges[edge];
        if edge.boot == boot {
            edge.process.as_mut()
        } else {
            None
        }
    }
}
