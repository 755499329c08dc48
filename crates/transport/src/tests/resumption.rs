//! Sessions that are resumed: in one round trip, once, by the right node, and never for more than a Hello.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use sluice_model::{NodeId, UnixMs};
use tokio::net::UdpSocket;

use super::{Cluster, any_port, client, open_by, soon};
use crate::resumption::{NODE_SESSIONS_MAX, SESSION_LIFE};
use crate::{
    Address, Client, EarlyData, EndpointKeys, Incoming, KeptSession, Resumptions, SERVER_NAME,
    Server, SessionChange, SessionError, Timing,
};

/// What a disk holds after all changes so far.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<Vec<KeptSession>>>);

impl Disk {
    fn journal(&self) -> crate::Journal {
        let disk = self.clone();
        Box::new(move |change| {
            let mut kept = disk.0.lock().unwrap();
            match change {
                SessionChange::Put(session) => kept.push(session),
                SessionChange::Remove(id) => kept.retain(|session| session.id != id),
            }
        })
    }

    fn kept(&self) -> Vec<KeptSession> {
        self.0.lock().unwrap().clone()
    }

    /// What an orchestrator remembers that starts on this disk.
    fn load(&self, keys: &EndpointKeys, timing: &Timing) -> Resumptions {
        Resumptions::new(keys, timing, self.kept(), self.journal()).unwrap()
    }
}

fn serve(cluster: &Cluster, resumptions: &Resumptions, timing: &Timing) -> Server {
    Server::bind(
        any_port(),
        &cluster.server,
        &cluster.keys,
        timing,
        resumptions,
    )
    .unwrap()
}

fn at(address: SocketAddr) -> Vec<Address> {
    vec![address.into()]
}

/// Connects once, and hears a word, so that the ticket has arrived, too.
async fn visit(dialler: &Client, server: &mut Server) -> EarlyData {
    let addresses = at(server.local_addr());
    let (mut edge, mut orchestrator) = open_by(dialler, &addresses, server).await;
    assert!(orchestrator.peer.is_some());
    orchestrator.sender.send("welcome".into()).await.unwrap();
    assert_eq!(
        soon(edge.receiver.recv()).await.unwrap().unwrap(),
        "welcome"
    );
    edge.sender.send("begin".into()).await.unwrap();
    assert_eq!(
        soon(orchestrator.receiver.recv()).await.unwrap().unwrap(),
        "begin"
    );
    orchestrator.sender.send("more".into()).await.unwrap();
    assert_eq!(soon(edge.receiver.recv()).await.unwrap().unwrap(), "more");
    edge.early
}

#[tokio::test]
async fn the_second_hello_travels_with_the_first_packets() {
    let (cluster, disk, timing) = (Cluster::new(), Disk::default(), Timing::default());
    let mut server = serve(&cluster, &disk.load(&cluster.keys, &timing), &timing);
    let dialler = client(&cluster.node(1));
    let first = visit(&dialler, &mut server).await;
    assert_eq!(first, EarlyData::Unused);
    for _ in 0..5 {
        let kept = disk.kept();
        assert_eq!(kept.len(), 1, "one ticket for one connection");
        let next = visit(&dialler, &mut server).await;
        assert_eq!(next, EarlyData::Accepted);
        assert_ne!(disk.kept()[0].id, kept[0].id, "it was taken, and replaced");
    }
}

#[tokio::test]
async fn a_resumed_session_shows_whose_it_is() {
    let (cluster, disk, timing) = (Cluster::new(), Disk::default(), Timing::default());
    let mut server = serve(&cluster, &disk.load(&cluster.keys, &timing), &timing);
    let identity = cluster.node(7);
    let dialler = client(&identity);
    let addresses = at(server.local_addr());
    visit(&dialler, &mut server).await;
    assert_eq!(disk.kept()[0].node, identity.facts().node);
    let (edge, orchestrator) = open_by(&dialler, &addresses, &mut server).await;
    assert_eq!(edge.early, EarlyData::Accepted);
    assert_eq!(&orchestrator.peer.unwrap().certificate, identity.facts());
}

#[tokio::test]
async fn sessions_outlive_the_orchestrator() {
    let (cluster, disk, timing) = (Cluster::new(), Disk::default(), Timing::default());
    let dialler = client(&cluster.node(1));
    for life in 0..4 {
        let mut server = serve(&cluster, &disk.load(&cluster.keys, &timing), &timing);
        let expected = match life {
            0 => EarlyData::Unused,
            _ => EarlyData::Accepted,
        };
        assert_eq!(visit(&dialler, &mut server).await, expected);
    }
}

#[tokio::test]
async fn lost_sessions_cost_a_round_trip_and_nothing_else() {
    let (cluster, timing) = (Cluster::new(), Timing::default());
    let dialler = client(&cluster.node(1));
    for life in 0..3 {
        let disk = Disk::default();
        let mut server = serve(&cluster, &disk.load(&cluster.keys, &timing), &timing);
        let expected = match life {
            0 => EarlyData::Unused,
            _ => EarlyData::Refused,
        };
        assert_eq!(visit(&dialler, &mut server).await, expected);
    }
}

#[tokio::test]
async fn a_forgotten_node_makes_a_full_handshake() {
    let (cluster, disk, timing) = (Cluster::new(), Disk::default(), Timing::default());
    let resumptions = disk.load(&cluster.keys, &timing);
    let mut server = serve(&cluster, &resumptions, &timing);
    let (one, other) = (cluster.node(1), cluster.node(2));
    let (first, second) = (client(&one), client(&other));
    visit(&first, &mut server).await;
    visit(&second, &mut server).await;
    resumptions.forget(one.facts().node);
    assert_eq!(disk.kept().len(), 1);
    assert_eq!(visit(&first, &mut server).await, EarlyData::Refused);
    assert_eq!(visit(&second, &mut server).await, EarlyData::Accepted);
}

#[tokio::test]
async fn other_limits_and_other_keys_end_every_session() {
    let (cluster, disk, timing) = (Cluster::new(), Disk::default(), Timing::default());
    let mut server = serve(&cluster, &disk.load(&cluster.keys, &timing), &timing);
    visit(&client(&cluster.node(1)), &mut server).await;
    let kept = disk.kept();
    assert_eq!(disk.load(&cluster.keys, &timing).count(), 1);
    let other = Timing {
        idle_timeout: Duration::from_secs(29),
        ..timing
    };
    assert_eq!(disk.load(&cluster.keys, &other).count(), 0);
    assert!(disk.kept().is_empty(), "the disk was not told");

    let others_keys = EndpointKeys::generate().unwrap();
    let nothing = Resumptions::new(&others_keys, &timing, kept.clone(), Box::new(|_| {})).unwrap();
    assert_eq!(nothing.count(), 0);
    let mut damaged = kept;
    damaged[0].sealed[40] ^= 1;
    let nothing = Resumptions::new(&cluster.keys, &timing, damaged, Box::new(|_| {})).unwrap();
    assert_eq!(nothing.count(), 0);
}

/// A stand-in for what rustls would store, which names a node as a certificate does.
fn session_of(node: NodeId) -> Vec<u8> {
    format!("orchestrator.sluice.internal, and sluice:node:{node} among other bytes").into_bytes()
}

fn id(number: u8) -> Vec<u8> {
    vec![number; 32]
}

fn node(number: u8) -> NodeId {
    NodeId::from_random([number; 16])
}

#[test]
fn a_session_is_taken_once_and_only_by_a_whole_name() {
    let (disk, timing) = (Disk::default(), Timing::default());
    let keys = EndpointKeys::generate().unwrap();
    let storage = disk.load(&keys, &timing).storage();
    let session = session_of(node(1));
    assert!(storage.put(id(1), session.clone()));
    assert!(!storage.put(vec![2; 31], session.clone()));
    assert!(!storage.put(id(3), b"of a machine that joins".to_vec()));
    assert_eq!(storage.take(&[1; 31]), None);
    assert_eq!(storage.get(&id(1)), None);
    assert_eq!(storage.take(&id(1)), Some(session));
    assert_eq!(storage.take(&id(1)), None);
    assert!(disk.kept().is_empty());
}

#[test]
fn a_node_keeps_few_sessions_and_takes_none_of_others() {
    let (disk, timing) = (Disk::default(), Timing::default());
    let keys = EndpointKeys::generate().unwrap();
    let resumptions = disk.load(&keys, &timing);
    let storage = resumptions.storage();
    assert!(storage.put(id(100), session_of(node(9))));
    for number in 0..20 {
        assert!(storage.put(id(number), session_of(node(1))));
    }
    assert_eq!(resumptions.count(), NODE_SESSIONS_MAX + 1);
    assert_eq!(disk.kept().len(), NODE_SESSIONS_MAX + 1);
    assert_eq!(storage.take(&id(0)), None);
    assert!(storage.take(&id(19)).is_some());
    assert!(storage.take(&id(100)).is_some());
}

/// The clock of [`a_session_ends_with_its_time`], and of nothing else.
static NOW: AtomicI64 = AtomicI64::new(1_000_000);

#[test]
fn a_session_ends_with_its_time() {
    let disk = Disk::default();
    let keys = EndpointKeys::generate().unwrap();
    let resumptions = Resumptions::with_clock(
        &keys,
        &Timing::default(),
        Vec::new(),
        disk.journal(),
        || UnixMs(NOW.load(Ordering::Relaxed)),
    )
    .unwrap();
    let storage = resumptions.storage();
    let life = i64::try_from(SESSION_LIFE.as_millis()).unwrap();
    assert!(storage.put(id(1), session_of(node(1))));
    NOW.fetch_add(life + 1, Ordering::Relaxed);
    assert_eq!(storage.take(&id(1)), None);
    assert!(storage.put(id(2), session_of(node(2))));
    NOW.fetch_add(life, Ordering::Relaxed);
    assert!(storage.put(id(3), session_of(node(3))));
    assert!(storage.take(&id(2)).is_some(), "its last millisecond");
    assert!(storage.put(id(4), session_of(node(4))));
    NOW.fetch_add(life + 1, Ordering::Relaxed);
    assert!(storage.put(id(5), session_of(node(5))));
    assert_eq!(resumptions.count(), 1, "what is over goes with the next");
}

/// Carries packets from whoever comes to the server, and nothing back: what a replay looks like from both ends.
async fn one_way_to(server: SocketAddr) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let front = UdpSocket::bind(any_port()).await.unwrap();
    let back = UdpSocket::bind(any_port()).await.unwrap();
    let address = front.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut packet = vec![0; 65_536];
        while let Ok((length, _)) = front.recv_from(&mut packet).await {
            let _ = back.send_to(&packet[..length], server).await;
        }
    });
    (address, task)
}

#[tokio::test]
async fn early_data_is_good_for_a_hello_and_for_nothing_else() {
    let timing = Timing {
        idle_timeout: Duration::from_secs(1),
        ..Timing::default()
    };
    let (cluster, disk) = (Cluster::new(), Disk::default());
    let mut server = serve(&cluster, &disk.load(&cluster.keys, &timing), &timing);
    let dialler = Client::new(&cluster.node(1), timing, UnixMs(0)).unwrap();
    visit(&dialler, &mut server).await;

    let (front, relay) = one_way_to(server.local_addr()).await;
    let endpoint = quinn::Endpoint::client(any_port()).unwrap();
    let connecting = endpoint
        .connect_with(dialler.config(), front, SERVER_NAME)
        .unwrap();
    let (connection, _accepted) = connecting.into_0rtt().expect("there is a ticket");
    let (mut control, _answers) = connection.open_bi().await.unwrap();
    let mut frames = BytesMut::new();
    for frame in ["hello", "begin"] {
        frames.put_u32(u32::try_from(frame.len()).unwrap());
        frames.put_slice(frame.as_bytes());
    }
    control.write_chunk(frames.clone().freeze()).await.unwrap();
    let (mut request, _reply) = connection.open_bi().await.unwrap();
    request.write_chunk(frames.freeze()).await.unwrap();
    request.finish().unwrap();

    let Incoming::Session(mut session) = soon(server.accept()).await.unwrap() else {
        panic!("it is a session")
    };
    assert_eq!(session.early, EarlyData::Accepted);
    let hello = soon(session.receiver.recv()).await.unwrap();
    assert_eq!(hello.unwrap(), "hello");
    session.sender.send("welcome".into()).await.unwrap();
    let (begin, request) =
        tokio::join!(soon(session.receiver.recv()), soon(session.requests.next()));
    assert_eq!(begin, Err(SessionError::TimedOut));
    assert!(matches!(request, Err(SessionError::TimedOut)));
    assert!(disk.kept().is_empty(), "an unproven peer got a ticket");
    relay.abort();
}

#[tokio::test]
async fn a_lost_first_packet_is_made_good_by_a_second_attempt() {
    let (cluster, disk, timing) = (Cluster::new(), Disk::default(), Timing::default());
    let mut server = serve(&cluster, &disk.load(&cluster.keys, &timing), &timing);
    let dialler = client(&cluster.node(1));
    visit(&dialler, &mut server).await;

    // Nothing comes back to the first socket, ever; the second one's packets pass.
    let front = UdpSocket::bind(any_port()).await.unwrap();
    let back = UdpSocket::bind(any_port()).await.unwrap();
    back.connect(server.local_addr()).await.unwrap();
    let addresses = at(front.local_addr().unwrap());
    let relay = tokio::spawn(async move {
        let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
        let (mut first, mut second) = (None, None);
        loop {
            tokio::select! {
                Ok((length, from)) = front.recv_from(&mut up) => {
                    if *first.get_or_insert(from) != from {
                        second = Some(from);
                        let _ = back.send(&up[..length]).await;
                    }
                }
                Ok(length) = back.recv(&mut down) => {
                    if let Some(to) = second {
                        let _ = front.send_to(&down[..length], to).await;
                    }
                }
            }
        }
    });
    // The first attempt alone would fail.
    let (edge, _orchestrator) = open_by(&dialler, &addresses, &mut server).await;
    assert_ne!(edge.early, EarlyData::Refused);
    relay.abort();
}
