//! A UDP proxy between edges and orchestrator: the network of a test, which it can cut, delay, narrow or freeze, whose
//! addresses it can change, and whose packets it can play again.
//!
//! ```text
//!   edge A --+                    +-- socket for A --+
//!            +--> front socket ---+                  +--> orchestrator
//!   edge B --+                    +-- socket for B --+
//! ```
//!
//! Edges join at the front's address, which the orchestrator advertises. One task owns all state; conditions reach it
//! through a channel, and it answers with what it counted, so that a test can prove that packets were really lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Largest UDP packet.
const PACKET_BYTES_MAX: usize = 65_536;

/// Packets that may wait in each direction; a real router drops what is over its queue, too.
const QUEUE_PACKETS_MAX: usize = 4096;

/// Edges' sockets that are remembered; redials come from new ones, the oldest is forgotten.
const PEERS_MAX: usize = 256;

/// What happens to packets in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// They arrive.
    #[default]
    Pass,
    /// They are lost.
    Drop,
    /// They wait until the rule is another one, as in a machine that stands still.
    Hold,
}

/// Which sockets that edges open pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewSockets {
    /// All.
    #[default]
    All,
    /// Those of new connections: the first packet is one of a handshake.
    Dials,
    /// Those to which a connection moved.
    Moved,
}

impl NewSockets {
    /// By the first packet of a socket: only a handshake has packets with a long header.
    fn passes(self, packet: &[u8]) -> bool {
        let dials = packet.first().is_some_and(|first| first & 0x80 != 0);
        match self {
            Self::All => true,
            Self::Dials => dials,
            Self::Moved => !dials,
        }
    }
}

/// The state of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// What happens to packets.
    pub rule: Rule,
    /// How long each takes.
    pub delay: Duration,
    /// How many bytes pass in a second; `None` = as many as come.
    pub bytes_per_second: Option<u32>,
    /// How many of a hundred packets are lost, by a sequence that is the same in each run.
    pub lost_percent: u8,
}

impl Conditions {
    /// Nothing passes.
    pub const CUT: Self = Self {
        rule: Rule::Drop,
        delay: Duration::ZERO,
        bytes_per_second: None,
        lost_percent: 0,
    };
}

/// What happened in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that arrived.
    pub passed: u64,
    /// Bytes in them.
    pub passed_bytes: u64,
    /// Packets that were lost.
    pub dropped: u64,
    /// Packets that wait.
    pub waiting: u64,
}

/// What happened, by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Edges to orchestrator.
    pub up: Counts,
    /// Orchestrator to edges.
    pub down: Counts,
    /// Packets in answer to replayed ones.
    pub to_replays: u64,
}

/// The proxy. Ends when dropped.
#[derive(Debug)]
pub struct Link {
    front: SocketAddr,
    commands: mpsc::Sender<(Command, std::sync::mpsc::Sender<Answer>)>,
}

/// Answered with the traffic once it is obeyed.
#[derive(Debug)]
enum Command {
    Upstream(SocketAddr),
    Conditions { up: Conditions, down: Conditions },
    Rebind,
    Strand(NewSockets),
    Record,
    Recorded,
    Replay(Vec<Vec<u8>>),
    Count,
}

/// What comes back when a command is obeyed.
#[derive(Debug)]
struct Answer {
    traffic: Traffic,
    /// Of [`Command::Recorded`].
    recorded: Vec<Vec<u8>>,
}

impl Link {
    /// Opens the front on a free port. Until [`Self::lead_to`], everything is lost.
    ///
    /// # Panics
    ///
    /// When this machine gives no socket or thread.
    pub fn open() -> Self {
        let (commands, received) = mpsc::channel(16);
        let (ready, front) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name("link".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime can be made");
                runtime.block_on(async {
                    let socket = UdpSocket::bind("127.0.0.1:0").await;
                    let socket = Arc::new(socket.expect("loopback has free ports"));
                    let address = socket.local_addr().expect("it is bound");
                    ready.send(address).expect("the opener waits");
                    Task::new(socket).run(received).await;
                });
            })
            .expect("a thread can be started");
        Self {
            front: front.recv().expect("the thread says its address"),
            commands,
        }
    }

    /// Where edges connect.
    pub fn front(&self) -> SocketAddr {
        self.front
    }

    /// Sets where the orchestrator is.
    pub fn lead_to(&self, orchestrator: SocketAddr) {
        self.send(Command::Upstream(orchestrator));
    }

    /// Sets both directions: edges to orchestrator, and back.
    pub fn set(&self, up: Conditions, down: Conditions) {
        self.send(Command::Conditions { up, down });
    }

    /// Loses everything.
    pub fn cut(&self) {
        self.set(Conditions::CUT, Conditions::CUT);
    }

    /// Passes everything.
    pub fn mend(&self) {
        self.set(Conditions::default(), Conditions::default());
    }

    /// Gives every edge another address towards the orchestrator, as a router does that has forgotten its flows.
    pub fn rebind(&self) {
        self.send(Command::Rebind);
    }

    /// Loses all that comes from or goes to the sockets that edges have used until now: what a router does that took their
    /// flows for dead. Of new sockets these pass.
    pub fn strand(&self, pass: NewSockets) {
        self.send(Command::Strand(pass));
    }

    /// From now on, keeps a copy of what edges send: see [`Self::recorded`].
    pub fn record(&self) {
        self.send(Command::Record);
    }

    /// The packets that edges sent to the orchestrator since [`Self::record`].
    pub fn recorded(&self) -> Vec<Vec<u8>> {
        self.send(Command::Recorded).recorded
    }

    /// Sends packets to the orchestrator from an address of their own; answers to it are counted in
    /// [`Traffic::to_replays`] and go nowhere.
    pub fn replay(&self, packets: &[Vec<u8>]) {
        self.send(Command::Replay(packets.to_vec()));
    }

    /// What happened since it was opened.
    pub fn traffic(&self) -> Traffic {
        self.send(Command::Count).traffic
    }

    /// Returns when it is obeyed: what comes later meets the new conditions.
    fn send(&self, command: Command) -> Answer {
        let (answer, answered) = std::sync::mpsc::channel();
        self.commands
            .blocking_send((command, answer))
            .expect("the link's thread lives as long as the link");
        answered
            .recv()
            .expect("the link's thread lives as long as the link")
    }
}

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

#[derive(Debug)]
struct Packet {
    /// The edge's address, whichever way it goes.
    edge: SocketAddr,
    bytes: Vec<u8>,
    due: Instant,
}

#[derive(Debug)]
struct Direction {
    conditions: Conditions,
    counts: Counts,
    queue: VecDeque<Packet>,
    /// When the wire is free again, with a limited rate.
    free_at: Instant,
    /// Where the sequence of losses is.
    chance: u32,
}

impl Direction {
    fn new() -> Self {
        Self {
            conditions: Conditions::default(),
            counts: Counts::default(),
            queue: VecDeque::new(),
            free_at: Instant::now(),
            chance: 0x9e37_79b9,
        }
    }

    /// Whether the next packet is one of those that are lost: xorshift.
    fn loses(&mut self) -> bool {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 17;
        self.chance ^= self.chance << 5;
        self.chance % 100 < u32::from(self.conditions.lost_percent)
    }

    fn take(&mut self, edge: SocketAddr, bytes: Vec<u8>) {
        let lost = self.conditions.rule == Rule::Drop || self.loses();
        if lost || self.queue.len() >= QUEUE_PACKETS_MAX {
            self.counts.dropped += 1;
            return;
        }
        let now = Instant::now();
        let mut due = now + self.conditions.delay;
        if let Some(rate) = self.conditions.bytes_per_second {
            let bytes = u32::try_from(bytes.len()).expect("a packet is small");
            self.free_at = self.free_at.max(now)
                + Duration::from_secs_f64(f64::from(bytes) / f64::from(rate.max(1)));
            due = due.max(self.free_at);
        }
        self.queue.push_back(Packet { edge, bytes, due });
    }

    /// When the next packet may leave.
    fn next_due(&self) -> Option<Instant> {
        match self.conditions.rule {
            Rule::Hold => None,
            Rule::Pass | Rule::Drop => self.queue.front().map(|packet| packet.due),
        }
    }
}

struct Task {
    front: Arc<UdpSocket>,
    orchestrator: Option<SocketAddr>,
    up: Direction,
    down: Direction,
    /// For each edge's address, the socket that the orchestrator sees it behind.
    peers: BTreeMap<SocketAddr, Peer>,
    arrivals: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    arrived: mpsc::Receiver<(SocketAddr, Vec<u8>)>,
    last_used: u64,
    stranded: BTreeSet<SocketAddr>,
    new_sockets: NewSockets,
    recording: Option<Vec<Vec<u8>>>,
    replays: Vec<UdpSocket>,
    to_replays: u64,
}

struct Peer {
    socket: Arc<UdpSocket>,
    reader: tokio::task::JoinHandle<()>,
    used: u64,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Task {
    fn new(front: Arc<UdpSocket>) -> Self {
        let (arrivals, arrived) = mpsc::channel(QUEUE_PACKETS_MAX);
        Self {
            front,
            orchestrator: None,
            up: Direction::new(),
            down: Direction::new(),
            peers: BTreeMap::new(),
            arrivals,
            arrived,
            last_used: 0,
            stranded: BTreeSet::new(),
            new_sockets: NewSockets::All,
            recording: None,
            replays: Vec::new(),
            to_replays: 0,
        }
    }

    async fn run(
        mut self,
        mut commands: mpsc::Receiver<(Command, std::sync::mpsc::Sender<Answer>)>,
    ) {
        let front = Arc::clone(&self.front);
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        loop {
            let due = [self.up.next_due(), self.down.next_due()];
            let due = due.into_iter().flatten().min();
            tokio::select! {
                command = commands.recv() => match command {
                    Some((command, answer)) => {
                        let recorded = self.obey(command).await;
                        let traffic = self.traffic();
                        // The asker may have panicked meanwhile.
                        let _ = answer.send(Answer { traffic, recorded });
                    }
                    // The link was dropped.
                    None => return,
                },
                // Errors here are echoes of packets to processes that died.
                Ok((length, edge)) = front.recv_from(&mut buffer) => {
                    if let Some(recording) = &mut self.recording {
                        recording.push(buffer[..length].to_vec());
                    }
                    self.up.take(edge, buffer[..length].to_vec());
                }
                Some((edge, bytes)) = self.arrived.recv() => self.down.take(edge, bytes),
                () = sleep_until(due) => {}
            }
            self.deliver(Way::Up).await;
            self.deliver(Way::Down).await;
        }
    }

    /// What was recorded, where that is asked for.
    async fn obey(&mut self, command: Command) -> Vec<Vec<u8>> {
        match command {
            // Sockets are opened anew with the next packets.
            Command::Rebind => self.peers.clear(),
            Command::Strand(pass) => {
                self.stranded.extend(self.peers.keys());
                self.new_sockets = pass;
            }
            Command::Record => self.recording = Some(Vec::new()),
            Command::Recorded => return self.recording.clone().unwrap_or_default(),
            Command::Replay(packets) => self.replay(&packets).await,
            Command::Upstream(address) => self.orchestrator = Some(address),
            Command::Conditions { up, down } => {
                self.up.conditions = up;
                self.down.conditions = down;
                for direction in [&mut self.up, &mut self.down] {
                    if direction.conditions.rule == Rule::Drop {
                        direction.counts.dropped += direction.queue.len() as u64;
                        direction.queue.clear();
                    }
                }
            }
            Command::Count => {}
        }
        Vec::new()
    }

    async fn replay(&mut self, packets: &[Vec<u8>]) {
        let (Some(orchestrator), Ok(socket)) =
            (self.orchestrator, UdpSocket::bind("127.0.0.1:0").await)
        else {
            return;
        };
        for packet in packets {
            // What cannot be sent is lost, as on any network.
            let _ = socket.send_to(packet, orchestrator).await;
        }
        self.replays.push(socket);
    }

    fn count_replies(&mut self) {
        let mut buffer = [0; 1];
        for socket in &self.replays {
            while socket.try_recv_from(&mut buffer).is_ok() {
                self.to_replays += 1;
            }
        }
    }

    fn traffic(&mut self) -> Traffic {
        self.count_replies();
        let counts = |direction: &Direction| Counts {
            waiting: direction.queue.len() as u64,
            ..direction.counts
        };
        Traffic {
            up: counts(&self.up),
            down: counts(&self.down),
            to_replays: self.to_replays,
        }
    }

    async fn deliver(&mut self, way: Way) {
        loop {
            let direction = match way {
                Way::Up => &mut self.up,
                Way::Down => &mut self.down,
            };
            if direction.next_due().is_none_or(|due| due > Instant::now()) {
                return;
            }
            let packet = direction.queue.pop_front().expect("one is due");
            let is_new = way == Way::Up && !self.peers.contains_key(&packet.edge);
            if is_new && !self.new_sockets.passes(&packet.bytes) {
                self.stranded.insert(packet.edge);
            }
            // What cannot be sent is lost, as on any network.
            let sent = match way {
                _ if self.stranded.contains(&packet.edge) => false,
                Way::Up => self.send_up(&packet).await,
                Way::Down => {
                    let sent = self.front.send_to(&packet.bytes, packet.edge).await;
                    sent.is_ok()
                }
            };
            let counts = match way {
                Way::Up => &mut self.up.counts,
                Way::Down => &mut self.down.counts,
            };
            if sent {
                counts.passed += 1;
                counts.passed_bytes += packet.bytes.len() as u64;
            } else {
                counts.dropped += 1;
            }
        }
    }

    async fn send_up(&mut self, packet: &Packet) -> bool {
        let Some(orchestrator) = self.orchestrator else {
            return false;
        };
        self.last_used += 1;
        let used = self.last_used;
        if !self.peers.contains_key(&packet.edge) {
            let Ok(peer) = self.open_peer(packet.edge).await else {
                return false;
            };
            self.peers.insert(packet.edge, peer);
            if self.peers.len() > PEERS_MAX {
                let oldest = self.peers.iter().min_by_key(|(_, peer)| peer.used);
                let oldest = *oldest.expect("there are many").0;
                self.peers.remove(&oldest);
            }
        }
        let Some(peer) = self.peers.get_mut(&packet.edge) else {
            return false;
        };
        peer.used = used;
        peer.socket
            .send_to(&packet.bytes, orchestrator)
            .await
            .is_ok()
    }

    async fn open_peer(&self, edge: SocketAddr) -> std::io::Result<Peer> {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        let (from, to) = (Arc::clone(&socket), self.arrivals.clone());
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; PACKET_BYTES_MAX];
            loop {
                // Errors here are echoes of packets to an orchestrator that died.
                if let Ok((length, _)) = from.recv_from(&mut buffer).await
                    && to.send((edge, buffer[..length].to_vec())).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(Peer {
            socket,
            reader,
            used: self.last_used,
        })
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::UdpSocket as Socket;

    use super::*;
    use crate::e2e::wait;

    /// An edge, an orchestrator that answers each packet with the same, and the link between them.
    fn pair() -> (Link, Socket, Socket) {
        let link = Link::open();
        let orchestrator = Socket::bind("127.0.0.1:0").unwrap();
        let edge = Socket::bind("127.0.0.1:0").unwrap();
        for socket in [&orchestrator, &edge] {
            socket.set_read_timeout(Some(wait::LONG)).unwrap();
        }
        edge.connect(link.front()).unwrap();
        link.lead_to(orchestrator.local_addr().unwrap());
        (link, edge, orchestrator)
    }

    fn echo(orchestrator: &Socket) -> Vec<u8> {
        let mut buffer = [0; 64];
        let (length, from) = orchestrator.recv_from(&mut buffer).unwrap();
        orchestrator.send_to(&buffer[..length], from).unwrap();
        buffer[..length].to_vec()
    }

    fn receive(edge: &Socket) -> Vec<u8> {
        let mut buffer = [0; 64];
        let length = edge.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    #[test]
    fn packets_pass_both_ways_and_are_counted() {
        let (link, edge, orchestrator) = pair();
        edge.send(b"one").unwrap();
        assert_eq!(echo(&orchestrator), b"one");
        assert_eq!(receive(&edge), b"one");
        let traffic = link.traffic();
        assert_eq!((traffic.up.passed, traffic.down.passed), (1, 1));
        assert_eq!((traffic.up.dropped, traffic.down.dropped), (0, 0));
    }

    #[test]
    fn a_cut_direction_loses_and_the_other_passes() {
        let (link, edge, orchestrator) = pair();
        link.set(Conditions::default(), Conditions::CUT);
        edge.send(b"lost on its way back").unwrap();
        echo(&orchestrator);
        wait::until("the answer to be dropped", || {
            let traffic = link.traffic();
            wait::check(traffic.down.dropped == 1, || format!("{traffic:?}"))
        });
        link.mend();
        edge.send(b"two").unwrap();
        assert_eq!(echo(&orchestrator), b"two");
        assert_eq!(receive(&edge), b"two");
    }

    #[test]
    fn held_packets_arrive_later_in_order() {
        let (link, edge, orchestrator) = pair();
        let held = Conditions {
            rule: Rule::Hold,
            ..Conditions::default()
        };
        link.set(held, Conditions::default());
        edge.send(b"a").unwrap();
        edge.send(b"b").unwrap();
        wait::until("both to wait", || {
            let traffic = link.traffic();
            wait::check(traffic.up.waiting == 2, || format!("{traffic:?}"))
        });
        assert_eq!(link.traffic().up.passed, 0);
        link.mend();
        assert_eq!(echo(&orchestrator), b"a");
        assert_eq!(echo(&orchestrator), b"b");
    }

    #[test]
    fn a_new_address_and_packets_played_again() {
        let (link, edge, orchestrator) = pair();
        let mut buffer = [0; 64];
        link.record();
        edge.send(b"one").unwrap();
        let (_, first) = orchestrator.recv_from(&mut buffer).unwrap();
        link.rebind();
        edge.send(b"two").unwrap();
        let (_, second) = orchestrator.recv_from(&mut buffer).unwrap();
        assert_ne!(first, second);
        assert_eq!(link.recorded(), [b"one", b"two"]);
        link.replay(&link.recorded());
        assert_eq!(echo(&orchestrator), b"one");
        assert_eq!(echo(&orchestrator), b"two");
        wait::until("the answers to be counted", || {
            let traffic = link.traffic();
            wait::check(traffic.to_replays == 2, || format!("{traffic:?}"))
        });
    }

    #[test]
    fn delays_and_rates_take_their_time() {
        let (link, edge, orchestrator) = pair();
        let slow = Conditions {
            delay: Duration::from_millis(80),
            ..Conditions::default()
        };
        link.set(slow, slow);
        let begun = Instant::now();
        edge.send(b"x").unwrap();
        echo(&orchestrator);
        receive(&edge);
        assert!(begun.elapsed() >= Duration::from_millis(160));
        let narrow = Conditions {
            bytes_per_second: Some(1000),
            ..Conditions::default()
        };
        link.set(narrow, Conditions::default());
        let begun = Instant::now();
        for _ in 0..4 {
            edge.send(&[0; 50]).unwrap();
        }
        for _ in 0..4 {
            echo(&orchestrator);
        }
        assert!(begun.elapsed() >= Duration::from_millis(200));
    }
}
