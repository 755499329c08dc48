//! The orchestrator's process in the world: started, woken, ticked, killed; its outputs carried out.

use sluice_api::{DeployRequest, ErrorCode};
use sluice_host::core::{ApiCall, Input, NewCertificate, Output, Reply, RequestId};
use sluice_host::store::{Store as _, TokenRecord, VersionOrigin};
use sluice_model::{Digest, JobId, TokenId, UnixMs, Version};
use sluice_protocol::{
    EdgeMessage, OrchestratorMessage, Renewed, edge_message, encode, orchestrator_message,
};

use super::faults::Fault;
use super::network::Way;
use super::operators::{Content, Order, Placing, components, pipeline};
use super::orchestrator::{Asker, Token};
use super::wire;
use super::world::{Event, Mood, World};

impl World {
    pub(super) fn start_host(&mut self) {
        if self.orchestrator.core.is_some() {
            return;
        }
        match self.orchestrator.start(self.now_ms) {
            Ok(()) => {
                let boot = self.orchestrator.boot;
                self.note("O", format_args!("starts, process {boot}"));
                self.checks.disturb(self.now_ms);
                self.forget_pulls();
                self.schedule(1, Event::HostTick { boot });
            }
            Err(error) => {
                self.note("O", format_args!("cannot start: {error}"));
                let hit = self.orchestrator.faults.take_hit();
                assert!(
                    hit.is_some() || self.mood == Mood::Chaotic,
                    "the orchestrator cannot start, and nothing is wrong: {error}"
                );
                let after = self.random.between(200, 3_000);
                self.schedule(after, Event::HostStart);
            }
        }
    }

    /// The orchestrator's process dies, and starts again after so long.
    pub fn crash_host(&mut self, why: &str, restart_after_ms: u64) {
        if self.orchestrator.core.is_none() {
            return;
        }
        self.note(
            "O",
            format_args!("DIES ({why}), back in {restart_after_ms} ms"),
        );
        self.checks.faults.host_crashes += 1;
        self.abandon_at_host();
        self.orchestrator.stop();
        self.checks.disturb(self.now_ms);
        let askers = std::mem::take(&mut self.orchestrator.askers);
        for asker in askers.into_values() {
            self.handle_no_answer(asker);
        }
        self.schedule(restart_after_ms, Event::HostStart);
    }

    fn handle_no_answer(&mut self, asker: Asker) {
        match asker {
            Asker::Order(name) => {
                let after = self.random.between(100, 4_000);
                self.schedule(after, Event::OrderAgain { name });
            }
            Asker::Look | Asker::Script => {}
            Asker::Outputs => self.handle_outputs_reply(None),
            Asker::Join { edge, life }
            | Asker::Certificate { edge, life, .. }
            | Asker::Token { edge, life, .. } => {
                let after = self.random.between(500, 5_000);
                self.schedule(after, Event::JoinAsk { edge, life });
            }
            Asker::Pull { edge, boot, digest } => {
                let after = self.random.between(100, 10_000);
                let result = Err("the orchestrator did not answer".to_owned());
                let event = Event::FetchEnd {
                    edge,
                    boot,
                    digest,
                    result,
                };
                self.schedule(after, event);
            }
        }
    }

    /// Gives the orchestrator something to handle; nobody is there while it is down.
    pub(super) fn feed_host(&mut self, input: Input) {
        if self.orchestrator.core.is_none() {
            return;
        }
        self.orchestrator.inbox.push(input);
        if self.orchestrator.wake_at.is_none() {
            let at = (self.now_ms + self.random.below(3)).max(self.orchestrator.stalled_until);
            self.orchestrator.wake_at = Some(at);
            let boot = self.orchestrator.boot;
            self.schedule_at(at, Event::HostWake { boot });
        }
    }

    pub(super) fn tick_host(&mut self, boot: u64) {
        if self.orchestrator.boot != boot || self.orchestrator.core.is_none() {
            return;
        }
        if self.now_ms >= self.orchestrator.stalled_until {
            self.feed_host(Input::Tick);
            self.look_for_outputs();
            self.check_agreement();
        }
        self.schedule(self.config.heartbeat_ms / 2, Event::HostTick { boot });
    }

    /// The orchestrator does nothing for a while; what comes waits.
    pub fn stall_host(&mut self, for_ms: u64) {
        if self.orchestrator.core.is_none() {
            return;
        }
        self.note("O", format_args!("stalls for {for_ms} ms"));
        self.checks.faults.stalls += 1;
        self.orchestrator.stalled_until = self.now_ms + for_ms;
        self.checks.disturb(self.now_ms + for_ms);
    }

    pub(super) fn wake_host(&mut self, boot: u64) {
        if self.orchestrator.boot != boot {
            return;
        }
        if self.now_ms < self.orchestrator.stalled_until {
            let at = self.orchestrator.stalled_until;
            self.orchestrator.wake_at = Some(at);
            self.schedule_at(at, Event::HostWake { boot });
            return;
        }
        self.orchestrator.wake_at = None;
        let inputs = std::mem::take(&mut self.orchestrator.inbox);
        let begun = begins(&inputs);
        let now = self.orchestrator.now(self.now_ms);
        let Some(core) = &mut self.orchestrator.core else {
            return;
        };
        let outputs = core.handle(inputs, now);
        let broken = core.broken().map(str::to_owned);
        if let Some((point, fault)) = self.orchestrator.faults.take_hit() {
            self.checks.faults.store_faults += 1;
            self.checks.disturb(self.now_ms);
            self.note("O", format_args!("{fault:?} at `{point}`"));
        }
        if let Some(point) = self.orchestrator.faults.dead_at() {
            let after = self.restart_delay();
            self.crash_host(&format!("at `{point}`"), after);
            self.check_rows_only_grow();
            self.check_tasks();
            return;
        }
        for id in begun {
            if let Some(connection) = self.network.get(id) {
                connection.begun = true;
            }
        }
        let dies_after = self.orchestrator.dies_after_outputs.take();
        self.check_host_outputs(&outputs);
        self.check_rows_only_grow();
        self.check_tasks();
        for (index, output) in (0u64..).zip(outputs) {
            if dies_after.is_some_and(|leave| index >= leave) {
                let after = self.restart_delay();
                self.crash_host("after its commit", after);
                return;
            }
            self.carry_out_for_host(output);
        }
        if let Some(problem) = broken {
            let after = self.restart_delay();
            self.crash_host(&format!("it gives up: {problem}"), after);
        }
    }

    /// How long a process stays away.
    pub(super) fn restart_delay(&mut self) -> u64 {
        match self.mood {
            Mood::Calm => 1_000,
            Mood::Chaotic => self.random.delay(50, 20_000),
        }
    }

    fn carry_out_for_host(&mut self, output: Output) {
        match output {
            Output::Send { conn, frame } => {
                if self.network.get(conn.0).is_some_and(|it| it.replayed) {
                    return;
                }
                self.send(conn.0, Way::Down, frame);
            }
            Output::Close { conn, why, reason } => {
                self.note("O", format_args!("closes #{}: {why:?}, {reason}", conn.0));
                self.check_close(conn.0, why, &reason);
                self.close_from_host(conn.0);
            }
            Output::Renew { conn, .. } => {
                let renewed = Renewed {
                    certificate: vec![1, 2, 3],
                };
                let frame = encode(&OrchestratorMessage {
                    kind: Some(orchestrator_message::Kind::Renewed(renewed)),
                });
                self.send(conn.0, Way::Down, frame);
            }
            Output::Reply { request, reply } => self.handle_reply(request, reply),
            // Nobody watches in the simulation.
            Output::Changed { .. } => {}
            Output::Again => self.feed_host(Input::Tick),
        }
    }

    fn handle_reply(&mut self, request: RequestId, reply: Result<Reply, sluice_api::ErrorBody>) {
        let Some(asker) = self.orchestrator.askers.remove(&request) else {
            panic!("a question was answered that nobody asked, or twice");
        };
        match (asker, reply) {
            (Asker::Order(name), reply) => self.handle_order_reply(&name, reply),
            (Asker::Script, reply) => self.answer = Some(reply),
            (Asker::Outputs, Ok(reply)) => self.handle_outputs_reply(Some(reply)),
            (Asker::Look, Ok(reply)) => {
                let reply = self.mute(reply);
                self.check_look(&reply);
            }
            (Asker::Join { edge, life }, Ok(Reply::Joined(joined))) => {
                let node = joined.node;
                let asker = Asker::Certificate { edge, life, node };
                let issued = NewCertificate {
                    request: self.orchestrator.ask(asker),
                    node,
                    expires_at: UnixMs(i64::MAX / 2),
                };
                self.feed_host(Input::CertificateIssued(issued));
            }
            (Asker::Certificate { edge, life, node }, Ok(_)) => {
                if self.edges[edge].link_up {
                    let after = self.random.between(5, 50);
                    self.schedule(after, Event::JoinReply { edge, life, node });
                } else {
                    self.handle_no_answer(Asker::Join { edge, life });
                }
            }
            (Asker::Token { edge, life, token }, Ok(_)) => {
                if self.edges[edge].disk.life == life {
                    self.edges[edge].disk.token = Some(token);
                }
                self.schedule(5, Event::JoinAsk { edge, life });
            }
            (Asker::Pull { edge, boot, digest }, Ok(Reply::Pull(allowed))) => {
                let result = if allowed {
                    Ok(())
                } else {
                    Err("this edge's rows do not name it".to_owned())
                };
                let after = match self.mood {
                    Mood::Calm => 20,
                    Mood::Chaotic => self.random.delay(5, 15_000),
                };
                let event = Event::FetchEnd {
                    edge,
                    boot,
                    digest,
                    result,
                };
                self.schedule(after, event);
            }
            (asker, Ok(reply)) => panic!("{asker:?} got {reply:?}"),
            (asker, Err(error)) => {
                let stores_fault = matches!(error.code, ErrorCode::Internal | ErrorCode::DiskFull);
                assert!(stores_fault, "{asker:?} was refused: {error:?}");
                self.note("O", format_args!("{asker:?} failed: {}", error.message));
                self.handle_no_answer(asker);
            }
        }
    }

    /// An operator gives an order about a job; it is repeated until it is answered. One at a time for a job: `false`
    /// when an earlier one is still open.
    pub fn order(&mut self, name: &str, order: Order) -> bool {
        if self.operators.open.contains_key(name) {
            return false;
        }
        self.note("operator", format_args!("{name}: {order:?}"));
        self.operators.open.insert(name.to_owned(), order);
        self.order_again(name);
        true
    }

    pub(super) fn order_again(&mut self, name: &str) {
        let Some(order) = self.operators.open.get(name).cloned() else {
            return;
        };
        if self.orchestrator.core.is_none() {
            let after = self.random.between(200, 2_000);
            let name = name.to_owned();
            self.schedule(after, Event::OrderAgain { name });
            return;
        }
        let job = || name.parse().expect("the simulator's job names are names");
        let call = match order {
            Order::Deploy {
                content,
                select,
                placing,
            } => ApiCall::Deploy(
                DeployRequest {
                    pipeline: pipeline(name, content, &select, placing),
                    plugins: std::collections::BTreeMap::new(),
                    dry_run: false,
                },
                components(),
            ),
            Order::Stop => ApiCall::StopJob(job()),
            Order::Start => ApiCall::StartJob(job()),
            Order::Delete => ApiCall::DeleteJob(job()),
            Order::Restart => ApiCall::RestartJob(job()),
            Order::Rollback => ApiCall::Rollback(job(), None),
            Order::Rollout(order) => ApiCall::RolloutOrder(job(), order),
            Order::Revoke { edge } => ApiCall::RevokeNode(self.edges[edge].name.clone()),
            Order::Forget { edge } => {
                self.operators.forgetting.insert(edge);
                ApiCall::DeleteNode(self.edges[edge].name.clone())
            }
            Order::Node { edge, order } => ApiCall::OrderNode(self.edges[edge].name.clone(), order),
            order @ (Order::Launch { .. } | Order::CallOff { .. }) => self.run_call(name, &order),
            Order::Schedule { name, order } => Self::schedule_call(&name, &order),
        };
        let request = self.orchestrator.ask(Asker::Order(name.to_owned()));
        self.feed_host(Input::Api {
            request,
            call: Box::new(call),
        });
    }

    fn handle_order_reply(&mut self, name: &str, reply: Result<Reply, sluice_api::ErrorBody>) {
        let Some(order) = self.operators.open.get(name).cloned() else {
            panic!("an order about {name} was answered that nobody gave");
        };
        let is_schedule = matches!(order, Order::Schedule { .. });
        if is_schedule || matches!(order, Order::Launch { .. } | Order::CallOff { .. }) {
            let answered = if is_schedule {
                self.handle_schedule_reply(name, reply)
            } else {
                self.handle_run_reply(name, reply)
            };
            if answered {
                self.operators.answered += 1;
                self.operators.open.remove(name);
            } else {
                self.handle_no_answer(Asker::Order(name.to_owned()));
            }
            return;
        }
        match (order, reply) {
            (
                Order::Deploy {
                    content,
                    select,
                    placing,
                },
                Ok(Reply::Deploy(reply)),
            ) => {
                let id = reply.id.expect("no dry run");
                let known = self.operators.jobs.contains_key(name);
                // Created anew under an old id would bring old state back (case 81).
                if !known && !self.operators.ids.insert(id) {
                    panic!("{name} was created again under an old id");
                }
                self.note(
                    "operator",
                    format_args!(
                        "{name} {} at version {}",
                        reply.outcome.as_str(),
                        reply.version
                    ),
                );
                let version = reply.version;
                let noted = self
                    .operators
                    .handle_deployed(name, id, version, content, &select, placing);
                if let Err(problem) = noted {
                    panic!("{problem}");
                }
            }
            (Order::Delete, Ok(Reply::Job(_))) => {
                self.note("operator", format_args!("{name} is deleted"));
                self.operators.jobs.remove(name);
            }
            (Order::Delete, Err(error)) if error.code == ErrorCode::NotFound => {
                self.operators.jobs.remove(name);
            }
            (Order::Node { edge, order }, Ok(Reply::NodeLine(node))) => {
                self.note("operator", format_args!("{name}: {order:?} done"));
                let orders = (node.cordoned, node.draining);
                self.operators.nodes.insert(edge, orders);
            }
            // A machine that has not joined yet.
            (Order::Node { .. } | Order::Revoke { .. }, Err(error))
                if error.code == ErrorCode::NotFound => {}
            (Order::Revoke { edge }, Ok(Reply::NodeLine(_))) => {
                self.note("operator", format_args!("{name} is revoked"));
                self.checks.faults.revokes += 1;
                self.note_shut_out(edge);
                self.plan_readmission(edge);
            }
            (Order::Forget { edge }, Ok(Reply::NodeLine(_))) => {
                self.note("operator", format_args!("{name} is deleted"));
                self.handle_forgotten(edge);
            }
            // It was deleted before, and the answer got lost; or it has not joined yet.
            (Order::Forget { edge }, Err(error)) if error.code == ErrorCode::NotFound => {
                self.handle_forgotten(edge);
            }
            // It is connected.
            (Order::Forget { edge }, Err(error)) if error.code == ErrorCode::Conflict => {
                self.plan_readmission(edge);
            }
            (Order::Rollback, Ok(Reply::Deploy(reply))) => {
                let id = reply.id.expect("no dry run");
                let version = reply.version;
                self.note("operator", format_args!("{name} goes back by {version}"));
                let (content, select, placing) = self.content_of(id, version);
                let noted = self
                    .operators
                    .handle_deployed(name, id, version, content, &select, placing);
                if let Err(problem) = noted {
                    panic!("{problem}");
                }
                self.checks.faults.rollbacks += 1;
            }
            (Order::Rollout(order), Ok(Reply::Rollout(_))) => {
                self.note("operator", format_args!("{name}: {order:?} done"));
                self.checks.faults.rollout_orders += 1;
            }
            // Nothing is rolled out, it has ended meanwhile, or there is nothing to go back to.
            (Order::Rollback | Order::Rollout(_), Err(error))
                if matches!(error.code, ErrorCode::NotFound | ErrorCode::Conflict) => {}
            (order @ (Order::Stop | Order::Start | Order::Restart), Ok(Reply::Job(job))) => {
                let stopped = order == Order::Stop;
                assert_eq!(
                    job.stopped, stopped,
                    "{name}: {order:?} answered with {job:?}"
                );
                self.note("operator", format_args!("{name}: {order:?} done"));
                if let Some(known) = self.operators.jobs.get_mut(name) {
                    known.stopped = stopped;
                }
            }
            (Order::Stop | Order::Start | Order::Restart, Err(error))
                if error.code == ErrorCode::NotFound =>
            {
                assert!(
                    !self.operators.jobs.contains_key(name),
                    "{name} is deployed, and the orchestrator does not know it"
                );
            }
            (order, Err(error)) => {
                let stores_fault = matches!(error.code, ErrorCode::Internal | ErrorCode::DiskFull);
                assert!(stores_fault, "{name}: {order:?} was refused: {error:?}");
                self.note(
                    "operator",
                    format_args!("{name}: {order:?} failed: {}", error.message),
                );
                self.handle_no_answer(Asker::Order(name.to_owned()));
                return;
            }
            (order, Ok(reply)) => panic!("{name}: {order:?} answered with {reply:?}"),
        }
        self.operators.answered += 1;
        self.operators.open.remove(name);
    }

    fn plan_readmission(&mut self, edge: usize) {
        let after = match self.mood {
            Mood::Calm => 1_000,
            Mood::Chaotic => self.random.delay(100, 30_000),
        };
        self.schedule(after, Event::Readmit { edge });
    }

    /// A machine's node is no more.
    fn handle_forgotten(&mut self, edge: usize) {
        self.operators.nodes.remove(&edge);
        if let Some(node) = self.checks.nodes.remove(&edge) {
            self.checks.faults.deletes += 1;
            self.operators.shut_out.insert(node, None);
        }
        self.plan_readmission(edge);
    }

    /// Notes which key was shut out, unless the machine has another one by now.
    fn note_shut_out(&mut self, edge: usize) {
        let name = self.edges[edge].name.clone();
        let record = self
            .orchestrator
            .look(|store| store.node_by_name(&name))
            .expect("readable");
        if let Some(record) = record.filter(|it| it.revoked_at.is_some()) {
            self.operators.shut_out.insert(record.id, Some(record.key));
        }
    }

    /// What a version was deployed with, also one that took an older one's content again.
    pub(super) fn content_of(&mut self, id: JobId, version: Version) -> (Content, String, Placing) {
        let history = self
            .orchestrator
            .look(|store| store.history(id))
            .expect("readable");
        let mut version = version;
        loop {
            if let Some(known) = self.operators.versions.get(&(id, version)) {
                return known.clone();
            }
            let record = history.iter().find(|record| record.version == version);
            match record.map(|record| &record.origin) {
                Some(VersionOrigin::Rollback { to, .. }) if *to < version => version = *to,
                other => panic!("{id}@{version} was never deployed: {other:?}"),
            }
        }
    }

    /// Somebody looks at everything.
    pub fn look_at_everything(&mut self) {
        if self.orchestrator.core.is_none() {
            return;
        }
        self.order_in_secret();
        for call in [
            ApiCall::Status,
            ApiCall::Runs(sluice_api::RunFilter::default()),
            ApiCall::Executions(sluice_api::ExecutionFilter {
                all: true,
                ..sluice_api::ExecutionFilter::default()
            }),
        ] {
            let request = self.orchestrator.ask(Asker::Look);
            self.feed_host(Input::Api {
                request,
                call: Box::new(call),
            });
        }
    }

    /// Asks for a token for a machine that wants to join under its name.
    pub(super) fn make_token(&mut self, edge: usize) {
        let life = self.edges[edge].disk.life;
        let token = Token {
            id: self.random.bytes(),
            secret: self.random.bytes(),
        };
        let id = TokenId::from_random(token.id);
        let token = Token {
            id: id.to_bytes(),
            ..token
        };
        let record = TokenRecord {
            id,
            secret_hash: *Digest::of(&token.secret).as_bytes(),
            uses_left: Some(1),
            expires_at: UnixMs(i64::MAX / 2),
            node: Some(self.edges[edge].name.clone()),
            rejoin: false,
            created_at: UnixMs(0),
            created_by: None,
        };
        let request = self.orchestrator.ask(Asker::Token { edge, life, token });
        self.feed_host(Input::Api {
            request,
            call: Box::new(ApiCall::CreateToken(record)),
        });
    }

    /// Arms a fault of the orchestrator's disk.
    pub fn arm_host(&mut self, after_calls: u64, fault: Fault) {
        self.note(
            "O",
            format_args!("disk: {fault:?} at call {after_calls} from now"),
        );
        self.orchestrator.faults.arm(after_calls, fault);
    }

    /// The same, at the next call of this name.
    pub fn arm_host_at(&mut self, point: &'static str, fault: Fault) {
        self.note("O", format_args!("disk: {fault:?} at \"{point}\""));
        self.orchestrator.faults.arm_at(point, fault);
    }

    /// Feeds a forged frame of an edge to the orchestrator (case 59).
    pub fn forge_from_edge(&mut self, connection: u64, kind: edge_message::Kind) {
        let frame = encode(&EdgeMessage { kind: Some(kind) });
        self.note(
            "network",
            format_args!("a forged frame of the edge on #{connection}"),
        );
        self.feed_host(Input::Frame {
            conn: sluice_host::core::ConnId(connection),
            frame,
        });
    }
}

fn begins(inputs: &[Input]) -> Vec<u64> {
    inputs
        .iter()
        .filter_map(|input| match input {
            Input::Frame { conn, frame } => {
                matches!(wire::read_edge(frame), Some(edge_message::Kind::Begin(_)))
                    .then_some(conn.0)
            }
            _ => None,
        })
        .collect()
}
