//! Driving a calm world by hand, for scenarios that a person wrote down.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sluice_api::{ErrorBody, Execution, Job, Node, NodeOrder, Rollout, RolloutOrder};
use sluice_host::core::{ApiCall, Input, Reply};
use sluice_host::store::Store as _;
use sluice_model::{Desired, ExecutionId, NodeState, Version};
use sluice_protocol::{ObservedRow, OutcomeKey};

use super::edge::Stage;
use super::operators::{Content, Order, Placing, node_key};
use super::orchestrator::Asker;
use super::run::{story, words_of};
use super::world::{World, WorldConfig};

/// What anything that only needs a few messages may take.
const SOON_MS: u64 = 60_000;

/// Plays a scenario in a calm world with these edges (name and label `site`), connected; at its end everything must
/// settle. A failure shows the timeline.
pub fn play(edges: &[(&str, &str)], script: impl FnOnce(&mut World)) {
    play_with(WorldConfig::default(), edges, script);
}

/// As [`play`], in a world set up otherwise.
pub fn play_with(config: WorldConfig, edges: &[(&str, &str)], script: impl FnOnce(&mut World)) {
    let mut world = World::new(20, config);
    let played = catch_unwind(AssertUnwindSafe(|| {
        for (name, site) in edges {
            world.add_edge(name, &[("site", site)]);
        }
        for edge in 0..edges.len() {
            world.await_connected(edge);
        }
        script(&mut world);
        world.settle();
        world.check_quiet();
    }));
    if let Err(panic) = played {
        panic!("{}", story(&world, "a scenario", &words_of(&*panic), None));
    }
}

impl World {
    /// Gives an order and waits for its answer.
    pub fn give(&mut self, job: &str, order: Order) {
        assert!(self.order(job, order), "an order about {job} is open");
        self.run_until("the order is answered", SOON_MS, |world| {
            !world.operators.open.contains_key(job)
        });
    }

    /// Deploys and waits for the answer.
    pub fn deploy(&mut self, job: &str, content: Content, select: &str) {
        self.deploy_placed(job, content, select, Placing::Daemon);
    }

    /// Deploys on so many nodes and waits for the answer.
    pub fn deploy_placed(&mut self, job: &str, content: Content, select: &str, placing: Placing) {
        let order = Order::Deploy {
            content,
            select: select.to_owned(),
            placing,
        };
        self.give(job, order);
    }

    /// Orders something of a node and waits for the answer.
    pub fn order_node(&mut self, edge: usize, order: NodeOrder) {
        self.give(&node_key(edge), Order::Node { edge, order });
    }

    /// The edges on which a job has executions that are desired to run and have their places.
    pub fn placed(&mut self, job: &str) -> Vec<usize> {
        (0..self.edges.len())
            .filter(|&edge| {
                let id = self.execution(job, edge).map(|execution| execution.id);
                id.is_some_and(|id| {
                    self.orchestrator
                        .look(|store| store.execution(id))
                        .expect("readable")
                        .is_some_and(|it| it.desired == Desired::Run && !it.replaced)
                })
            })
            .collect()
    }

    /// Asks the orchestrator and waits for the answer.
    pub fn ask(&mut self, call: ApiCall) -> Result<Reply, ErrorBody> {
        self.answer = None;
        let request = self.orchestrator.ask(Asker::Script);
        let call = Box::new(call);
        self.feed_host(Input::Api { request, call });
        self.run_until("a question is answered", SOON_MS, |world| {
            world.answer.is_some()
        });
        self.answer.take().expect("it was just there")
    }

    /// A job as the API shows it.
    pub fn job(&mut self, job: &str) -> Job {
        let name = job.parse().expect("a job's name");
        match self.ask(ApiCall::Job(name)) {
            Ok(Reply::JobDetail(detail)) => detail.job,
            other => panic!("{job}: {other:?}"),
        }
    }

    /// A job's rollout, as the API shows it.
    pub fn rollout(&mut self, job: &str) -> Rollout {
        let name = job.parse().expect("a job's name");
        match self.ask(ApiCall::Rollout(name)) {
            Ok(Reply::Rollout(rollout)) => *rollout,
            other => panic!("{job}: {other:?}"),
        }
    }

    /// Pauses, resumes or ends a job's rollout.
    pub fn order_rollout(&mut self, job: &str, order: RolloutOrder) {
        let name = job.parse().expect("a job's name");
        match self.ask(ApiCall::RolloutOrder(name, order)) {
            Ok(Reply::Rollout(_)) => {}
            other => panic!("{job}: {other:?}"),
        }
    }

    /// A job's execution on an edge, as the API shows it; `None` when there is none.
    pub fn execution(&mut self, job: &str, edge: usize) -> Option<Execution> {
        let name = job.parse().expect("a job's name");
        let node = self.edges[edge].name.clone();
        match self.ask(ApiCall::ExecutionAt(name, node)) {
            Ok(Reply::Execution(execution)) => Some(*execution),
            Err(_) => None,
            other => panic!("{job}: {other:?}"),
        }
    }

    /// A node as the API shows it.
    pub fn node(&mut self, edge: usize) -> Node {
        let name = self.edges[edge].name.clone();
        match self.ask(ApiCall::Node(name)) {
            Ok(Reply::Node(detail)) => detail.node,
            other => panic!("{other:?}"),
        }
    }

    /// An outcome on the orchestrator's disk.
    pub fn outcome(
        &mut self,
        execution: ExecutionId,
        version: Version,
        attempt: u64,
    ) -> Option<ObservedRow> {
        let key = OutcomeKey {
            execution,
            version,
            attempt: sluice_model::Attempt(attempt),
        };
        self.orchestrator
            .look(|store| store.outcome(key))
            .expect("readable")
    }

    /// Whether an edge's session has begun on both sides.
    pub fn is_connected(&self, edge: usize) -> bool {
        self.connection(edge).is_some_and(|id| {
            self.network
                .connections
                .get(&id)
                .is_some_and(|it| it.begun && it.is_well())
        })
    }

    /// Waits until an edge's session has begun on both sides.
    pub fn await_connected(&mut self, edge: usize) {
        self.run_until("it is connected", SOON_MS, |world| world.is_connected(edge));
    }

    /// Waits until the orchestrator shows a node as this.
    pub fn await_state(&mut self, edge: usize, state: NodeState, within_ms: u64) {
        let end = self.now_ms() + within_ms;
        while self.node(edge).state != state {
            assert!(self.now_ms() < end, "the node never becomes {state}");
            self.run_for(100);
        }
    }

    /// The connection that an edge's session runs on.
    pub fn connection(&self, edge: usize) -> Option<u64> {
        let core = &self.edges[edge].process.as_ref()?.core;
        core.session().map(|id| id.0)
    }

    /// What runs of a job on an edge: the version that it follows, and how it behaves.
    pub fn running(&self, edge: usize, job: &str) -> Option<Content> {
        self.live_work(edge)
            .into_values()
            .find(|work| work.assignment.job_name.as_str() == job && work.stage == Stage::Running)
            .map(|work| work.content)
    }

    /// Waits until this runs.
    pub fn await_running(&mut self, edge: usize, job: &str, content: Content) {
        let what = format!("{job} runs {content:?} on {}", self.edges[edge].name);
        self.run_until(&what, SOON_MS, |world| {
            world.running(edge, job) == Some(content)
        });
    }

    /// How often the runner of an edge has started this job.
    pub fn starts(&self, edge: usize, job: &str) -> u64 {
        let key = (edge, job.to_owned());
        self.checks.starts.get(&key).copied().unwrap_or(0)
    }

    /// How many frames of rows the orchestrator has sent to an edge.
    pub fn rows_sent(&self, edge: usize) -> u64 {
        self.checks.rows_sent.get(&edge).copied().unwrap_or(0)
    }

    /// The edge is away, and both sides know it.
    pub fn send_away(&mut self, edge: usize) {
        self.set_link(edge, false);
        self.await_state(edge, NodeState::Disconnected, SOON_MS);
    }

    /// It is back, with a session.
    pub fn bring_back(&mut self, edge: usize) {
        self.set_link(edge, true);
        self.power_on(edge, 1);
        self.await_connected(edge);
    }
}
