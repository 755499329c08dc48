//! Everything that can go wrong, at random.

use sluice_api::{NodeLabels, NodeOrder, RolloutOrder};
use sluice_edge_runtime::core::Input as EdgeInput;
use sluice_model::OnLost;

use super::edge::CERTIFICATE_ENDED;
use super::faults::Fault;
use super::network::Way;
use super::operators::{Batch, Content, Order, Placing, node_key};
use super::world::{Event, Mood, World};

const JOBS: &[&str] = &["alpha", "beta", "gamma", "delta"];

/// Those that are launched; the second may be done twice.
const BATCHES: &[&str] = &["once", "again"];

const SELECTS: &[&str] = &[
    "",
    "",
    "",
    "site = \"a\"",
    "site = [\"a\", \"b\"]",
    "node = [\"e2\"]",
    "site = \"nowhere\"",
];

/// A rollout's rules, behind a selector that many nodes match.
const ROLLED_OUT: &str = "site = [\"a\", \"b\", \"c\"]\n[rollout]\ncanary = 1\nmax_parallel = 1\nmin_healthy = \"1s\"\ndeadline = \"60s\"";

const SITES: &[&str] = &["a", "b", "c"];

impl World {
    /// Chaos for so long, from now on.
    pub fn begin_chaos(&mut self, for_ms: u64) {
        self.mood = Mood::Chaotic;
        self.chaos_until_ms = self.now_ms + for_ms;
        self.schedule(0, Event::Chaos);
    }

    /// All faults stop: what is dead starts, what is cut off is in reach, disks have room.
    pub fn end_chaos(&mut self) {
        self.note("world", format_args!("all faults stop"));
        self.mood = Mood::Calm;
        self.chaos_until_ms = 0;
        self.operators.promotes = true;
        self.orchestrator.faults.disarm();
        self.orchestrator.dies_after_outputs = None;
        self.orchestrator.stalled_until = 0;
        let ids: Vec<u64> = self.network.connections.keys().copied().collect();
        for id in ids {
            self.heal(id, Way::Up);
            self.heal(id, Way::Down);
        }
        for edge in 0..self.edges.len() {
            self.edges[edge].faults.disarm();
            if let Some(process) = &mut self.edges[edge].process {
                process.dies_after_outputs = None;
            }
            self.set_link(edge, true);
            self.power_on(edge, 10);
        }
        self.checks.disturb(self.now_ms);
    }

    pub(super) fn do_chaos(&mut self) {
        if self.now_ms >= self.chaos_until_ms {
            return;
        }
        let edge = usize::try_from(self.random.below(self.edges.len() as u64)).expect("small");
        match self.random.below(100) {
            0..34 => self.order_at_random(),
            34..40 => self.order_node_at_random(edge),
            40..47 => self.cut_at_random(edge),
            47..52 => {
                let back = self.random.delay(500, 60_000);
                self.set_link(edge, false);
                self.schedule(back, Event::LinkUp { edge });
            }
            52..56 => {
                if let Some(id) = self.network.of_edge(edge).last().copied() {
                    let way = *self.random.pick(&[Way::Up, Way::Down]);
                    let lasts = self.random.delay(1_000, 60_000);
                    self.kill_way(id, way, lasts);
                }
            }
            56..61 => {
                let back = self.random.delay(10, 40_000);
                self.change_labels_at_random(edge);
                self.crash_edge(edge, "kill -9", Some(back));
            }
            61..68 => {
                let after = self.random.delay(0, 120);
                let fault = self.fault_at_random();
                self.arm_edge(edge, after, fault);
            }
            68..72 => {
                let back = self.random.delay(10, 30_000);
                self.crash_host("kill -9", back);
            }
            72..80 => {
                let after = self.random.delay(0, 250);
                let fault = self.fault_at_random();
                self.arm_host(after, fault);
            }
            80..82 => {
                let leave = self.random.below(4);
                self.orchestrator.dies_after_outputs = Some(leave);
            }
            82..84 => {
                let leave = self.random.below(4);
                if let Some(process) = &mut self.edges[edge].process {
                    process.dies_after_outputs = Some(leave);
                }
            }
            84 => {
                let back = self.random.delay(10, 20_000);
                self.wipe_edge(edge, back);
            }
            85..87 => {
                let lasts = self.random.delay(500, 70_000);
                self.stall_host(lasts);
            }
            87..90 => self.hedge(edge),
            90..92 => {
                self.replay_hello(edge);
            }
            92 => self.feed_edge(edge, EdgeInput::Renew { csr: vec![0] }),
            93 => {
                self.note("E", format_args!("the certificate of edge {edge} ends"));
                self.edges[edge].disk.certificate_ends = CERTIFICATE_ENDED;
                self.checks.faults.expiries += 1;
            }
            _ => self.look_at_everything(),
        }
        let next = self.random.delay(20, 6_000);
        self.schedule(next, Event::Chaos);
    }

    /// Deploys, launches, calls off, stops or deletes what is launched.
    fn order_batch_at_random(&mut self) {
        let name = *self.random.pick(BATCHES);
        if !self.operators.jobs.contains_key(name) {
            let order = self.deploy_batch_at_random(name);
            self.order(name, order);
            return;
        }
        let order = match self.random.below(24) {
            0..2 => self.deploy_batch_at_random(name),
            2 => Order::Stop,
            3..5 => Order::Start,
            5 => Order::Delete,
            _ => return self.order_run_at_random(name),
        };
        self.order(name, order);
    }

    fn deploy_batch_at_random(&mut self, name: &str) -> Order {
        let n = u8::try_from(self.random.below(4)).expect("below 4");
        let content = match self.random.below(8) {
            0 => Content::Fails(n),
            1 => Content::Crashes(n),
            2 => Content::Misconfigured(n),
            3 => Content::Missing(n),
            _ => Content::Ends(n),
        };
        let idempotent = name == "again";
        let on_lost = if idempotent {
            *self
                .random
                .pick(&[OnLost::Replace, OnLost::Wait, OnLost::Fail])
        } else {
            *self.random.pick(&[OnLost::Wait, OnLost::Fail])
        };
        let small = |random: &mut super::random::Random, most| {
            u32::try_from(random.between(1, most)).expect("small")
        };
        let batch = Batch {
            count: small(&mut self.random, 2),
            concurrency: small(&mut self.random, 3),
            idempotent,
            retries: if idempotent { 2 } else { 0 },
            on_lost,
            // What crashes again and again is tried for as long as it may take.
            timeout_s: match content {
                Content::Crashes(_) => 60,
                _ => *self.random.pick(&[20, 60, 3600]),
            },
            pooled: self.random.one_in(3),
        };
        Order::Deploy {
            content,
            select: (*self.random.pick(SELECTS)).to_owned(),
            placing: Placing::Batch(batch),
        }
    }

    fn order_at_random(&mut self) {
        if self.random.one_in(3) {
            return self.order_batch_at_random();
        }
        let name = *self.random.pick(JOBS);
        let order = if self.operators.jobs.contains_key(name) {
            match self.random.below(16) {
                0..5 => self.deploy_at_random(),
                5..7 => Order::Stop,
                7..9 => Order::Start,
                9 => Order::Restart,
                10..12 => Order::Rollback,
                12..15 => Order::Rollout(*self.random.pick(&[
                    RolloutOrder::Pause,
                    RolloutOrder::Resume,
                    RolloutOrder::Promote,
                    RolloutOrder::Abort,
                ])),
                _ => Order::Delete,
            }
        } else {
            self.deploy_at_random()
        };
        self.order(name, order);
    }

    fn deploy_at_random(&mut self) -> Order {
        // Few contents, so that going back to an old one happens often.
        let n = u8::try_from(self.random.below(4)).expect("below 4");
        let content = match self.random.below(12) {
            0 => Content::Ends(n),
            1 => Content::Fails(n),
            2 => Content::Crashes(n),
            3 => Content::Misconfigured(n),
            _ => Content::Steady(n),
        };
        if self.random.one_in(3) {
            return Order::Deploy {
                content,
                select: ROLLED_OUT.to_owned(),
                placing: Placing::Daemon,
            };
        }
        let select = (*self.random.pick(SELECTS)).to_owned();
        let placing = if self.random.one_in(2) {
            let count = u32::try_from(self.random.between(1, 4)).expect("small");
            let on_lost =
                *self
                    .random
                    .pick(&[OnLost::Replace, OnLost::Replace, OnLost::Wait, OnLost::Fail]);
            Placing::Replicas(count, on_lost)
        } else {
            Placing::Daemon
        };
        Order::Deploy {
            content,
            select,
            placing,
        }
    }

    fn order_node_at_random(&mut self, edge: usize) {
        if self.random.one_in(6) {
            self.order(&node_key(edge), Order::Revoke { edge });
            return;
        }
        // One that is connected is not deleted.
        let process = self.edges[edge].process.as_ref();
        let away = process.is_none_or(|it| it.core.session().is_none());
        if self.random.one_in(if away { 3 } else { 20 }) {
            self.order(&node_key(edge), Order::Forget { edge });
            return;
        }
        let order = match self.random.below(8) {
            0..2 => NodeOrder::Cordon,
            2 => NodeOrder::Drain,
            3..6 => NodeOrder::Uncordon,
            6 => {
                let site = *self.random.pick(SITES);
                NodeOrder::Label(NodeLabels {
                    set: [("site".to_owned(), site.to_owned())].into(),
                    remove: Vec::new(),
                })
            }
            _ => NodeOrder::Label(NodeLabels {
                remove: vec!["site".to_owned()],
                ..NodeLabels::default()
            }),
        };
        self.order(&node_key(edge), Order::Node { edge, order });
    }

    fn cut_at_random(&mut self, edge: usize) {
        let ids = self.network.of_edge(edge);
        if !ids.is_empty() {
            let id = *self.random.pick(&ids);
            self.cut(id);
        }
    }

    fn change_labels_at_random(&mut self, edge: usize) {
        if self.random.one_in(3) {
            let site = *self.random.pick(SITES);
            self.edges[edge]
                .labels
                .insert("site".to_owned(), site.to_owned());
        }
    }

    fn fault_at_random(&mut self) -> Fault {
        match self.random.below(8) {
            0..4 => Fault::Crash,
            4..6 => Fault::Full {
                calls: self.random.delay(1, 200),
            },
            6 => Fault::Error,
            _ => Fault::Broken,
        }
    }
}
