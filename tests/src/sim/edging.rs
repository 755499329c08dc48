//! The edges' processes in the world: joined, started, woken, killed, wiped; their outputs carried out.

use sluice_edge_runtime::core::{CloseWhy, Event as EdgeEvent, Input, Output, Redial};
use sluice_host::core::Input as HostInput;
use sluice_host::store::Store as _;
use sluice_model::NodeId;
use sluice_protocol::{JoinRequest, VERSIONS};

use super::edge::CERTIFICATE_ENDS;
use super::faults::Fault;
use super::network::Way;
use super::orchestrator::Asker;
use super::world::{Event, Mood, World};

/// The first delay before dialling again, and the longest.
const REDIAL_MS: (u64, u64) = (250, 30_000);

/// A node that may not speak dials this seldom.
const REDIAL_SELDOM_MS: u64 = 300_000;

/// How long after its join was under way a machine's standing is looked at again.
const READMIT_AGAIN_MS: u64 = 5_000;

/// More ticks than that in one virtual second are a busy loop.
const TICKS_PER_SECOND_MAX: u64 = 200;

impl World {
    /// Plans a machine's start.
    pub(super) fn power_on(&mut self, edge: usize, after_ms: u64) {
        let machine = &mut self.edges[edge];
        if machine.starting || machine.process.is_some() {
            return;
        }
        machine.starting = true;
        let life = machine.disk.life;
        self.schedule(after_ms, Event::EdgeStart { edge, life });
    }

    pub(super) fn start_edge(&mut self, edge: usize, life: u64) {
        let machine = &mut self.edges[edge];
        if machine.disk.life != life || machine.process.is_some() {
            return;
        }
        if machine.disk.node.is_none() {
            self.schedule(1, Event::JoinAsk { edge, life });
            return;
        }
        machine.starting = false;
        let name = machine.name.to_string();
        match self.edges[edge].start(self.now_ms) {
            Ok(outputs) => {
                let boot = self.edges[edge].boot;
                self.note(&name, format_args!("starts, process {boot}"));
                self.checks.disturb(self.now_ms);
                self.check_edge(edge);
                self.carry_out_all_for_edge(edge, outputs);
                self.plan_dial(edge, 1);
                self.plan_tick(edge);
            }
            Err(error) => {
                self.note(&name, format_args!("cannot start: {error}"));
                let hit = self.edges[edge].faults.take_hit();
                assert!(
                    hit.is_some() || self.mood == Mood::Chaotic,
                    "{name} cannot start, and nothing is wrong: {error}"
                );
                let after = self.random.between(200, 3_000);
                self.power_on(edge, after);
            }
        }
    }

    pub(super) fn ask_to_join(&mut self, edge: usize, life: u64) {
        let machine = &self.edges[edge];
        if machine.disk.life != life || machine.disk.node.is_some() {
            return;
        }
        if self.orchestrator.core.is_none() || !machine.link_up {
            let after = self.random.between(500, 3_000);
            self.schedule(after, Event::JoinAsk { edge, life });
            return;
        }
        let Some(token) = machine.disk.token else {
            self.make_token(edge);
            return;
        };
        let message = JoinRequest {
            versions: VERSIONS.to_vec(),
            token_id: token.id.to_vec(),
            token_secret: token.secret.to_vec(),
            name: machine.name.to_string(),
            csr: Vec::new(),
            labels: machine.labels.clone(),
        };
        let key = machine.disk.key;
        let request = self.orchestrator.ask(Asker::Join { edge, life });
        self.feed_host(HostInput::Join {
            request,
            message,
            key,
        });
    }

    pub(super) fn handle_joined(&mut self, edge: usize, life: u64, node: NodeId) {
        if self.edges[edge].disk.life != life {
            return;
        }
        let name = self.edges[edge].name.to_string();
        let before = self.checks.nodes.insert(edge, node);
        if before.is_some_and(|before| before != node) {
            let deleted = self.operators.forgetting.contains(&edge);
            assert!(deleted, "{name} came back as another node");
            self.operators.nodes.remove(&edge);
        }
        if self.edges[edge]
            .kept_node()
            .is_some_and(|kept| kept != node)
        {
            self.edges[edge]
                .put_store_aside()
                .expect("SQLite opens a database in memory");
            self.checks.handle_wiped(edge);
        }
        self.edges[edge].disk.node = Some(node);
        self.edges[edge].starting = false;
        self.note(&name, format_args!("has joined"));
        self.power_on(edge, 1);
    }

    /// An edge's process dies, and starts again after so long (`None`: not by itself).
    pub fn crash_edge(&mut self, edge: usize, why: &str, restart_after_ms: Option<u64>) {
        if self.edges[edge].process.is_none() {
            return;
        }
        let name = self.edges[edge].name.to_string();
        self.note(&name, format_args!("DIES ({why})"));
        self.checks.faults.edge_crashes += 1;
        self.abandon_at_edge(edge);
        self.edges[edge].stop();
        self.checks.disturb(self.now_ms);
        if let Some(after) = restart_after_ms {
            self.power_on(edge, after);
        }
    }

    /// A machine loses its disk and comes back with a new one, to join again under its name.
    pub fn wipe_edge(&mut self, edge: usize, back_after_ms: u64) {
        self.crash_edge(edge, "its disk is lost", None);
        let name = self.edges[edge].name.to_string();
        self.edges[edge]
            .wipe()
            .expect("SQLite opens a database in memory");
        self.edges[edge].starting = false;
        self.checks.handle_wiped(edge);
        self.checks.faults.wipes += 1;
        self.note(&name, format_args!("has an empty disk"));
        self.power_on(edge, back_after_ms);
    }

    /// A machine that was shut out joins again under its name: a revoked one with a new key and what it has on its disk,
    /// a deleted one as another node, its old store put aside.
    pub(super) fn readmit(&mut self, edge: usize) {
        let Some(node) = self.edges[edge].disk.node else {
            // It joins just now, perhaps still under what was revoked meanwhile.
            self.schedule(READMIT_AGAIN_MS, Event::Readmit { edge });
            return;
        };
        let record = self
            .orchestrator
            .look(|store| store.node(node))
            .expect("readable");
        match record {
            None => {
                self.checks.nodes.remove(&edge);
                self.wipe_edge(edge, 10);
            }
            Some(record) if record.revoked_at.is_some() => {
                self.crash_edge(edge, "its owner lets it join again", None);
                self.edges[edge].forget_identity();
                self.edges[edge].starting = false;
                self.power_on(edge, 10);
            }
            Some(_) => {}
        }
    }

    /// Gives an edge's process something to handle.
    pub(super) fn feed_edge(&mut self, edge: usize, input: Input) {
        let jitter = self.random.below(3);
        let (boot, at) = (self.edges[edge].boot, self.now_ms + jitter);
        let Some(process) = &mut self.edges[edge].process else {
            return;
        };
        process.inbox.push(input);
        if process.wake_at.is_none() {
            process.wake_at = Some(at);
            self.schedule_at(at, Event::EdgeWake { edge, boot });
        }
    }

    pub(super) fn tick_edge(&mut self, edge: usize, boot: u64, at: u64) {
        let Some(process) = self.process(edge, boot) else {
            return;
        };
        if process.tick_at != Some(at) {
            return;
        }
        process.tick_at = None;
        let ticks = self.checks.count_tick(edge, at);
        assert!(
            ticks <= TICKS_PER_SECOND_MAX,
            "{} asks for {ticks} ticks within a second",
            self.edges[edge].name
        );
        self.feed_edge(edge, Input::Tick);
    }

    fn plan_tick(&mut self, edge: usize) {
        let (boot, now_ms) = (self.edges[edge].boot, self.now_ms);
        let Some(process) = &mut self.edges[edge].process else {
            return;
        };
        let due = process.core.next_deadline();
        let at = due.map(|due| process.clock_start_ms.wrapping_add(due.0).max(now_ms + 1));
        if at == process.tick_at {
            return;
        }
        process.tick_at = at;
        if let Some(at) = at {
            self.schedule_at(at, Event::EdgeTick { edge, boot, at });
        }
    }

    pub(super) fn wake_edge(&mut self, edge: usize, boot: u64) {
        let now_ms = self.now_ms;
        let Some(process) = self.process(edge, boot) else {
            return;
        };
        process.wake_at = None;
        let inputs = std::mem::take(&mut process.inbox);
        let clock_start_ms = process.clock_start_ms;
        let now = self.edges[edge].now(clock_start_ms, now_ms);
        let Some(process) = self.process(edge, boot) else {
            return;
        };
        let handled = process.core.handle(inputs, now);
        let name = self.edges[edge].name.to_string();
        if let Some((point, fault)) = self.edges[edge].faults.take_hit() {
            self.checks.faults.store_faults += 1;
            self.checks.disturb(now_ms);
            self.note(&name, format_args!("{fault:?} at `{point}`"));
        }
        let dead_at = self.edges[edge].faults.dead_at();
        let outputs = match (dead_at, handled) {
            (Some(point), _) => {
                let after = self.restart_delay();
                self.crash_edge(edge, &format!("at `{point}`"), Some(after));
                return;
            }
            (None, Err(error)) => {
                let after = self.restart_delay();
                self.crash_edge(edge, &format!("it gives up: {error}"), Some(after));
                return;
            }
            (None, Ok(outputs)) => outputs,
        };
        self.check_edge(edge);
        self.check_edge_outputs(edge, &outputs);
        self.carry_out_all_for_edge(edge, outputs);
        self.plan_tick(edge);
    }

    fn carry_out_all_for_edge(&mut self, edge: usize, outputs: Vec<Output>) {
        let boot = self.edges[edge].boot;
        let dies_after = self
            .process(edge, boot)
            .and_then(|process| process.dies_after_outputs.take());
        for (index, output) in (0u64..).zip(outputs) {
            if dies_after.is_some_and(|leave| index >= leave) {
                let after = self.restart_delay();
                self.crash_edge(edge, "after its commit", Some(after));
                return;
            }
            self.carry_out_for_edge(edge, output);
        }
    }

    fn carry_out_for_edge(&mut self, edge: usize, output: Output) {
        let name = self.edges[edge].name.to_string();
        match output {
            Output::SendFrame { connection, frame } => self.send(connection.0, Way::Up, frame),
            Output::CloseSession { connection, why } => {
                let CloseWhy {
                    code,
                    message,
                    redial,
                } = why;
                self.note(
                    &name,
                    format_args!("closes #{}: {code}, {message}", connection.0),
                );
                self.check_edge_close(edge, code, &message);
                self.close_from_edge(connection.0);
                let boot = self.edges[edge].boot;
                let Some(process) = self.process(edge, boot) else {
                    return;
                };
                if process.connection == Some(connection.0) {
                    process.connection = None;
                    let after = match redial {
                        Redial::Soon => self.redial_delay(edge),
                        Redial::AfterMs(ms) => ms + self.redial_delay(edge),
                        Redial::Seldom => REDIAL_SELDOM_MS,
                    };
                    self.plan_dial(edge, after);
                }
            }
            Output::SessionBegun { .. } => {
                let boot = self.edges[edge].boot;
                if let Some(process) = self.process(edge, boot) {
                    process.failed_dials = 0;
                }
            }
            Output::RenewalWanted { .. } => {
                self.feed_edge(edge, Input::Renew { csr: vec![0] });
            }
            Output::Certificate { .. } => {
                self.checks.faults.renewals += 1;
                self.edges[edge].disk.certificate_ends = CERTIFICATE_ENDS;
            }
            Output::Fetch { digest, .. } => self.fetch(edge, digest),
            Output::CancelFetch { digest } => {
                let boot = self.edges[edge].boot;
                let result = Err("it was given up".to_owned());
                self.end_fetch(edge, boot, digest, result);
            }
            Output::Prepare {
                ticket,
                assignment,
                spec,
            } => self.prepare(edge, ticket, assignment, &spec),
            Output::Discard { ticket } => self.discard(edge, ticket),
            Output::Start { ticket, assignment } => self.start_work(edge, ticket, &assignment),
            Output::Stop { ticket, .. } => self.stop_work(edge, ticket),
            Output::Purge { execution } => self.purge(edge, execution),
            Output::Event(event) => self.handle_edge_event(&name, &event),
        }
    }

    fn handle_edge_event(&mut self, name: &str, event: &EdgeEvent) {
        match event {
            EdgeEvent::ExecutionState {
                job,
                version,
                attempt,
                phase,
                reason,
                ..
            } => self.note(
                name,
                format_args!("{job} {version}.{attempt} is {phase} {reason}"),
            ),
            EdgeEvent::StoreTrouble { message } => self.note(name, format_args!("{message}")),
            EdgeEvent::LedgerResync { from, why } => {
                self.checks.faults.resyncs += 1;
                self.note(name, format_args!("asks from {from:?}: {why}"));
            }
            EdgeEvent::LedgerReceived { snapshot: true, .. } => self.checks.faults.snapshots += 1,
            _ => {}
        }
    }

    fn redial_delay(&mut self, edge: usize) -> u64 {
        let boot = self.edges[edge].boot;
        let failed = self
            .process(edge, boot)
            .map_or(0, |process| process.failed_dials);
        let top = REDIAL_MS
            .0
            .saturating_mul(1 << failed.min(10))
            .min(REDIAL_MS.1);
        self.random.between(0, top)
    }

    pub(super) fn plan_dial(&mut self, edge: usize, after_ms: u64) {
        let boot = self.edges[edge].boot;
        if let Some(process) = self.process(edge, boot)
            && !process.dialling
        {
            process.dialling = true;
            self.schedule(after_ms, Event::Dial { edge, boot });
        }
    }

    pub(super) fn dial(&mut self, edge: usize, boot: u64) {
        let Some(process) = self.process(edge, boot) else {
            return;
        };
        if process.connection.is_some() {
            process.dialling = false;
            return;
        }
        process.failed_dials = process.failed_dials.saturating_add(1);
        match self.connect(edge) {
            Some(id) => {
                let name = self.edges[edge].name.to_string();
                self.note(&name, format_args!("dials #{id}"));
                // Until the connection is up or lost, no other dial is planned.
            }
            None => {
                if let Some(process) = self.process(edge, boot) {
                    process.dialling = false;
                }
                let after = self.redial_delay(edge) + 100;
                self.plan_dial(edge, after);
            }
        }
    }

    /// A second attempt beside whatever there is.
    pub fn hedge(&mut self, edge: usize) {
        if self.edges[edge].process.is_some()
            && let Some(id) = self.connect(edge)
        {
            let name = self.edges[edge].name.to_string();
            self.note(&name, format_args!("dials #{id} beside what there is"));
            self.checks.faults.hedges += 1;
        }
    }

    /// A connection is gone, told by the network.
    pub(super) fn lost_connection(&mut self, edge: usize, id: u64) {
        let boot = self.edges[edge].boot;
        let Some(process) = self.process(edge, boot) else {
            return;
        };
        if process.connection == Some(id) {
            process.connection = None;
        }
        if process.connection.is_none() {
            // Whatever was being dialled: a new dial is planned at the most once.
            process.dialling = false;
            let after = self.redial_delay(edge);
            self.plan_dial(edge, after);
        }
    }

    /// Arms a fault of an edge's disk.
    pub fn arm_edge(&mut self, edge: usize, after_calls: u64, fault: Fault) {
        let name = self.edges[edge].name.to_string();
        self.note(
            &name,
            format_args!("disk: {fault:?} at call {after_calls} from now"),
        );
        self.edges[edge].faults.arm(after_calls, fault);
    }
}
