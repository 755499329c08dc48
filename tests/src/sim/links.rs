//! Frames on their way, connections that open, close, are cut, die one way and are healed.

use bytes::Bytes;
use sluice_edge_runtime::core::{ConnectionId, Input as EdgeInput};
use sluice_host::core::{ConnId, Input as HostInput, Peer};
use sluice_protocol::{edge_message, orchestrator_message};

use super::network::{Connection, End, Lane, Way};
use super::wire;
use super::world::{Event, Mood, World};

/// How long either end may take to notice that a connection is gone: the transport's idle timeout.
pub(super) const NOTICE_MS_MAX: u64 = 30_000;

/// How much later than its turn a frame may arrive in a mangled world.
pub(super) const MANGLE_MS_MAX: u64 = 3_000;

impl World {
    /// A new connection from an edge's process; `None` when nobody answers.
    pub(super) fn connect(&mut self, edge: usize) -> Option<u64> {
        if !self.edges[edge].link_up || self.orchestrator.core.is_none() {
            return None;
        }
        let latency_ms = match self.mood {
            Mood::Calm => 10,
            Mood::Chaotic => self.random.delay(2, 1_500),
        };
        let boot = self.edges[edge].boot;
        let hello = self.process(edge, boot)?.core.hello();
        // Who a certificate names does not change while the handshake is under way, whatever becomes of the machine.
        let machine = &self.edges[edge];
        let peer = Peer {
            node: machine.disk.node?,
            key: machine.disk.key,
            expires_at: machine.disk.certificate_ends,
            address: format!("{}:{}", machine.name, self.now_ms),
        };
        let connection = Connection {
            edge,
            peer,
            edge_boot: boot,
            host_boot: self.orchestrator.boot,
            edge_end: End::Dialling,
            host_end: End::Dialling,
            cut: false,
            latency_ms,
            begun: false,
            hello,
            replayed: false,
            up: Lane::default(),
            down: Lane::default(),
        };
        let id = self.network.add(connection);
        // The edge is ready after one round trip; the orchestrator hears the rest of the handshake half of one later.
        self.schedule(latency_ms * 2, Event::OpenAtEdge(id));
        self.schedule(latency_ms * 3, Event::OpenAtHost(id));
        if let Some(connection) = self.network.get(id) {
            connection.up.last_ms = self.now_ms + latency_ms * 3;
        }
        Some(id)
    }

    pub(super) fn open_at_host(&mut self, id: u64) {
        let boot = self.orchestrator.boot;
        let Some(connection) = self.network.get(id) else {
            return;
        };
        if connection.cut || connection.host_boot != boot || connection.host_end != End::Dialling {
            connection.host_end = End::Closed;
            return;
        }
        connection.host_end = End::Open;
        let peer = connection.peer.clone();
        self.feed_host(HostInput::Opened {
            conn: ConnId(id),
            peer,
        });
    }

    pub(super) fn open_at_edge(&mut self, id: u64) {
        let Some(connection) = self.network.get(id) else {
            return;
        };
        let (edge, boot, cut) = (connection.edge, connection.edge_boot, connection.cut);
        if connection.edge_end != End::Dialling || cut {
            return;
        }
        connection.edge_end = End::Open;
        let hello = connection.hello.clone();
        if let Some(process) = self.process(edge, boot) {
            process.connection = process.connection.max(Some(id));
            process.dialling = false;
            self.feed_edge(
                edge,
                EdgeInput::Connected {
                    connection: ConnectionId(id),
                },
            );
            self.send(id, Way::Up, hello);
        }
    }

    /// Puts a frame on its way.
    pub(super) fn send(&mut self, id: u64, way: Way, frame: Bytes) {
        let now_ms = self.now_ms;
        if self.loses(way, &frame) {
            return;
        }
        let mangled = self.config.mangled && is_rows_or_received(way, &frame);
        let jitter = match self.mood {
            Mood::Calm => 0,
            Mood::Chaotic => self.random.delay(0, 200),
        };
        let Some(connection) = self.network.get(id) else {
            return;
        };
        if connection.cut {
            return;
        }
        let (latency, begun) = (connection.latency_ms, connection.begun);
        let lane = connection.lane(way);
        if lane.dead {
            lane.held.push(frame);
            return;
        }
        let at = lane.last_ms.max(now_ms + latency + jitter);
        if mangled && begun && self.mood == Mood::Chaotic {
            let late = at + self.random.delay(0, MANGLE_MS_MAX);
            match self.random.below(8) {
                0 => {
                    self.checks.faults.doubled += 1;
                    self.deliver_at(late, id, way, frame.clone());
                }
                1 => {
                    // Later frames overtake it.
                    self.checks.faults.overtaken += 1;
                    self.deliver_at(late, id, way, frame);
                    return;
                }
                _ => {}
            }
        }
        if let Some(connection) = self.network.get(id) {
            connection.lane(way).last_ms = at;
        }
        self.deliver_at(at, id, way, frame);
    }

    fn deliver_at(&mut self, at_ms: u64, connection: u64, way: Way, frame: Bytes) {
        self.schedule_at(
            at_ms,
            Event::Deliver {
                connection,
                way,
                frame,
            },
        );
    }

    pub(super) fn deliver(&mut self, id: u64, way: Way, frame: Bytes) {
        let (host_boot, now_ms) = (self.orchestrator.boot, self.now_ms);
        let Some(connection) = self.network.get(id) else {
            return;
        };
        if connection.cut {
            return;
        }
        let (edge, edge_boot) = (connection.edge, connection.edge_boot);
        match way {
            Way::Up => {
                if connection.host_end != End::Open || connection.host_boot != host_boot {
                    return;
                }
                let Some(kind) = wire::read_edge(&frame) else {
                    panic!("an edge sent a frame that is no message");
                };
                if matches!(kind, edge_message::Kind::Hello(_)) {
                    let said_by = connection.peer.clone();
                    self.checks.hellos.insert(edge, (frame.clone(), said_by));
                }
                if super::planted::is_begin(&kind) {
                    self.checks.begins.insert(edge, frame.clone());
                }
                let name = self.edges[edge].name.clone();
                self.timeline.note(
                    now_ms,
                    &format!("{name} -> O #{id}"),
                    format_args!("{}", wire::show_edge(&kind)),
                );
                self.feed_host(HostInput::Frame {
                    conn: ConnId(id),
                    frame,
                });
            }
            Way::Down => {
                if connection.edge_end != End::Open {
                    return;
                }
                let Some(kind) = wire::read_orchestrator(&frame) else {
                    panic!("the orchestrator sent a frame that is no message");
                };
                if self.process(edge, edge_boot).is_none() {
                    return;
                }
                let name = self.edges[edge].name.clone();
                self.timeline.note(
                    now_ms,
                    &format!("{name} <- O #{id}"),
                    format_args!("{}", wire::show_orchestrator(&kind)),
                );
                self.feed_edge(
                    edge,
                    EdgeInput::Frame {
                        connection: ConnectionId(id),
                        frame,
                    },
                );
            }
        }
    }

    /// Loses a connection and everything on it. Each end hears of it sooner or later.
    pub fn cut(&mut self, id: u64) {
        let (at_edge, at_host) = match self.mood {
            Mood::Calm => (20, 20),
            Mood::Chaotic => (
                self.random.delay(1, NOTICE_MS_MAX),
                self.random.delay(1, NOTICE_MS_MAX),
            ),
        };
        self.cut_noticed(id, at_edge, at_host);
    }

    /// As [`Self::cut`], noticed by the edge and by the orchestrator after these times.
    pub fn cut_noticed(&mut self, id: u64, at_edge_ms: u64, at_host_ms: u64) {
        let Some(connection) = self.network.get(id) else {
            return;
        };
        if connection.cut {
            return;
        }
        connection.cut = true;
        self.checks.faults.cuts += 1;
        self.note("network", format_args!("connection #{id} is lost"));
        self.schedule(at_edge_ms, Event::ClosedAtEdge(id));
        self.schedule(at_host_ms, Event::ClosedAtHost(id));
    }

    /// One way of a connection carries nothing any more, for so long.
    pub fn kill_way(&mut self, id: u64, way: Way, for_ms: u64) {
        let Some(connection) = self.network.get(id) else {
            return;
        };
        connection.lane(way).dead = true;
        self.checks.faults.dead_ways += 1;
        self.note(
            "network",
            format_args!("connection #{id}: nothing goes {way:?} for {for_ms} ms"),
        );
        self.schedule(
            for_ms,
            Event::Heal {
                connection: id,
                way,
            },
        );
    }

    pub(super) fn heal(&mut self, id: u64, way: Way) {
        let Some(connection) = self.network.get(id) else {
            return;
        };
        let lane = connection.lane(way);
        if !lane.dead {
            return;
        }
        lane.dead = false;
        let held = std::mem::take(&mut lane.held);
        for frame in held {
            self.send(id, way, frame);
        }
        self.checks.disturb(self.now_ms);
    }

    /// An edge's network goes down or comes up. Going down cuts what it has.
    pub fn set_link(&mut self, edge: usize, up: bool) {
        if self.edges[edge].link_up == up {
            return;
        }
        self.edges[edge].link_up = up;
        let name = self.edges[edge].name.clone();
        let state = if up { "up" } else { "down" };
        self.note("network", format_args!("the link of {name} is {state}"));
        if !up {
            self.checks.faults.links_down += 1;
            for id in self.network.of_edge(edge) {
                self.cut(id);
            }
        }
    }

    /// The orchestrator closed a connection, after what it had sent.
    pub(super) fn close_from_host(&mut self, id: u64) {
        let Some(connection) = self.network.get(id) else {
            return;
        };
        let at = connection
            .down
            .last_ms
            .max(self.now_ms + connection.latency_ms);
        let late = if connection.cut || connection.down.dead {
            self.now_ms + NOTICE_MS_MAX
        } else {
            at
        };
        self.schedule_at(late, Event::ClosedAtEdge(id));
        let linger = self.random.delay(1, 600);
        self.schedule(linger, Event::ClosedAtHost(id));
    }

    /// An edge closed a connection.
    pub(super) fn close_from_edge(&mut self, id: u64) {
        let Some(connection) = self.network.get(id) else {
            return;
        };
        connection.edge_end = End::Closed;
        let at = connection
            .up
            .last_ms
            .max(self.now_ms + connection.latency_ms);
        // A lost link carries no closing either: the orchestrator notices by silence.
        let late = if connection.cut || connection.up.dead {
            self.now_ms + NOTICE_MS_MAX
        } else {
            at
        };
        self.schedule_at(late, Event::ClosedAtHost(id));
    }

    pub(super) fn closed_at_host(&mut self, id: u64) {
        let boot = self.orchestrator.boot;
        let Some(connection) = self.network.get(id) else {
            return;
        };
        let told = std::mem::replace(&mut connection.host_end, End::Closed);
        let same = connection.host_boot == boot;
        if told == End::Open && same {
            self.feed_host(HostInput::Closed { conn: ConnId(id) });
        }
        self.network.sweep();
    }

    pub(super) fn closed_at_edge(&mut self, id: u64) {
        let Some(connection) = self.network.get(id) else {
            return;
        };
        let told = std::mem::replace(&mut connection.edge_end, End::Closed);
        let (edge, boot) = (connection.edge, connection.edge_boot);
        if told != End::Closed && self.process(edge, boot).is_some() {
            if told == End::Open {
                self.feed_edge(
                    edge,
                    EdgeInput::Disconnected {
                        connection: ConnectionId(id),
                        why: "the connection is lost".to_owned(),
                    },
                );
            }
            self.lost_connection(edge, id);
        }
        self.network.sweep();
    }

    /// A process of the orchestrator is gone: its connections stay silent until the edges notice. What it had sent is
    /// still on its way.
    pub(super) fn abandon_at_host(&mut self) {
        let boot = self.orchestrator.boot;
        let ids: Vec<u64> = self
            .network
            .connections
            .iter()
            .filter(|(_, it)| it.host_boot == boot && it.host_end != End::Closed)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            if let Some(connection) = self.network.get(id) {
                connection.host_end = End::Closed;
                if connection.cut {
                    // Nobody can tell it anything; it notices when it was going to.
                    continue;
                }
            }
            let notice = match self.mood {
                Mood::Calm => 50,
                Mood::Chaotic => self.random.delay(20, NOTICE_MS_MAX),
            };
            self.schedule(notice, Event::ClosedAtEdge(id));
        }
    }

    /// A process of an edge is gone. What it had sent is still on its way.
    pub(super) fn abandon_at_edge(&mut self, edge: usize) {
        let boot = self.edges[edge].boot;
        let ids: Vec<u64> = self
            .network
            .connections
            .iter()
            .filter(|(_, it)| it.edge == edge && it.edge_boot == boot && it.edge_end != End::Closed)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            if let Some(connection) = self.network.get(id) {
                connection.edge_end = End::Closed;
                if connection.cut {
                    continue;
                }
            }
            let notice = match self.mood {
                Mood::Calm => 1_000,
                Mood::Chaotic => self.random.delay(20, NOTICE_MS_MAX),
            };
            self.schedule(notice, Event::ClosedAtHost(id));
        }
    }

    /// Somebody plays a recorded Hello of an edge on a connection of its own (cases 63, 65). Whether there was one.
    pub fn replay_hello(&mut self, edge: usize) -> bool {
        let Some((frame, peer)) = self.checks.hellos.get(&edge).cloned() else {
            return false;
        };
        if self.orchestrator.core.is_none() {
            return false;
        }
        let id = self.network.add(Connection {
            edge,
            peer: peer.clone(),
            edge_boot: u64::MAX,
            host_boot: self.orchestrator.boot,
            edge_end: End::Closed,
            host_end: End::Open,
            cut: false,
            latency_ms: 10,
            begun: false,
            hello: frame.clone(),
            replayed: true,
            up: Lane::default(),
            down: Lane::default(),
        });
        self.checks.faults.replayed_hellos += 1;
        self.note(
            "network",
            format_args!("a recorded Hello is played as #{id}"),
        );
        self.feed_host(HostInput::Opened {
            conn: ConnId(id),
            peer,
        });
        self.send(id, Way::Up, frame);
        let closes = self.random.delay(50, NOTICE_MS_MAX);
        self.schedule(closes, Event::ClosedAtHost(id));
        true
    }
}

fn is_rows_or_received(way: Way, frame: &[u8]) -> bool {
    match way {
        Way::Up => matches!(
            wire::read_edge(frame),
            Some(edge_message::Kind::Rows(_) | edge_message::Kind::Received(_))
        ),
        Way::Down => matches!(
            wire::read_orchestrator(frame),
            Some(orchestrator_message::Kind::Rows(_) | orchestrator_message::Kind::Received(_))
        ),
    }
}
