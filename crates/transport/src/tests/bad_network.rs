//! Peers that die without a word, and packets that never arrive.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sluice_model::UnixMs;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::{Cluster, any_port, remembers_nothing, soon};
use crate::{Client, EndpointKeys, Established, Incoming, Server, SessionError, Timing};

/// A server in a runtime of its own, so that it can die without saying a word, as a killed process does.
struct Mortal {
    runtime: Runtime,
    address: SocketAddr,
}

impl Mortal {
    async fn start(cluster: &Cluster, keys: EndpointKeys, listen: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let identity = cluster.server.clone();
        let (tell, told) = oneshot::channel();
        runtime.spawn(async move {
            // The port may take a moment to be free after the death of the one before.
            let timing = Timing::default();
            let resumptions = remembers_nothing(&keys, &timing);
            let mut server = loop {
                match Server::bind(listen, &identity, &keys, &timing, &resumptions) {
                    Ok(server) => break server,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            tell.send(server.local_addr()).unwrap();
            let mut sessions = Vec::new();
            while let Some(Incoming::Session(mut session)) = server.accept().await {
                session.sender.send("welcome".into()).await.unwrap();
                sessions.push(session);
            }
        });
        let address = soon(told).await.unwrap();
        Self { runtime, address }
    }

    fn kill(self) -> SocketAddr {
        self.runtime.shutdown_background();
        self.address
    }
}

async fn connect(cluster: &Cluster, address: SocketAddr, idle_timeout: Duration) -> Established {
    let timing = Timing {
        idle_timeout,
        ..Timing::default()
    };
    let client = Client::new(&cluster.node(1), timing, UnixMs(0)).unwrap();
    let hello = "hello".into();
    let mut edge = soon(client.connect(&[address.into()], hello))
        .await
        .unwrap();
    assert_eq!(
        soon(edge.receiver.recv()).await.unwrap().unwrap(),
        "welcome"
    );
    edge
}

#[tokio::test]
async fn a_killed_server_is_noticed_by_its_silence() {
    let cluster = Cluster::new();
    let server = Mortal::start(&cluster, cluster.keys.clone(), any_port()).await;
    let mut edge = connect(&cluster, server.address, Duration::from_secs(1)).await;
    server.kill();
    let started = Instant::now();
    assert_eq!(
        soon(edge.receiver.recv()).await,
        Err(SessionError::TimedOut)
    );
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_server_restarted_with_its_keys_is_noticed_at_once() {
    let cluster = Cluster::new();
    let first = Mortal::start(&cluster, cluster.keys.clone(), any_port()).await;
    // The idle timeout (30 s) has no part in this.
    let mut edge = connect(&cluster, first.address, Duration::from_secs(30)).await;
    let address = first.kill();
    let second = Mortal::start(&cluster, cluster.keys.clone(), address).await;
    let started = Instant::now();
    edge.sender.send("heartbeat".into()).await.unwrap();
    assert_eq!(soon(edge.receiver.recv()).await, Err(SessionError::Reset));
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    connect(&cluster, second.address, Duration::from_secs(30)).await;
    second.kill();
}

#[tokio::test]
async fn without_its_keys_a_restarted_server_is_noticed_only_by_silence() {
    // What the two persisted keys are for: this is the same as above but for them.
    let cluster = Cluster::new();
    let first = Mortal::start(&cluster, cluster.keys.clone(), any_port()).await;
    let mut edge = connect(&cluster, first.address, Duration::from_secs(2)).await;
    let address = first.kill();
    let second = Mortal::start(&cluster, EndpointKeys::generate().unwrap(), address).await;
    edge.sender.send("heartbeat".into()).await.unwrap();
    assert_eq!(
        soon(edge.receiver.recv()).await,
        Err(SessionError::TimedOut)
    );
    second.kill();
}

#[tokio::test]
async fn an_idle_session_is_kept_alive() {
    let cluster = Cluster::new();
    let server = Mortal::start(&cluster, cluster.keys.clone(), any_port()).await;
    let mut edge = connect(&cluster, server.address, Duration::from_millis(600)).await;
    let quiet = tokio::time::timeout(Duration::from_millis(2500), edge.receiver.recv()).await;
    assert!(quiet.is_err(), "an idle session ended: {quiet:?}");
    server.kill();
}
