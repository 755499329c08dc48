//! The transport with real sockets on loopback.
#![allow(clippy::unwrap_used)]

mod bad_network;
mod clock;
mod https;
mod identity;
mod joining;
mod resumption;
mod sessions;
mod streams;
mod tokens;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use sluice_model::{NodeId, UnixMs};

use crate::identity::{ClusterAuthority, NodeIdentity, NodeKey, ServerIdentity, VerifiedKey};
use crate::{Address, Client, EndpointKeys, Established, Incoming, Resumptions, Server, Timing};

/// Longer than anything here takes, so that a hang fails instead of hanging.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn now() -> UnixMs {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    UnixMs(i64::try_from(since.as_millis()).unwrap())
}

pub(crate) fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("it happens before the deadline")
}

/// A cluster in a temporary directory.
pub(crate) struct Cluster {
    pub(crate) authority: ClusterAuthority,
    pub(crate) server: ServerIdentity,
    pub(crate) keys: EndpointKeys,
    _directory: tempfile::TempDir,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority =
            ClusterAuthority::create(&directory.path().join("authority.pem"), now()).unwrap();
        let server = authority.issue_server(now()).unwrap();
        Self {
            authority,
            server,
            keys: EndpointKeys::generate().unwrap(),
            _directory: directory,
        }
    }

    pub(crate) fn node(&self, id: u8) -> NodeIdentity {
        self.node_at(id, now())
    }

    pub(crate) fn node_at(&self, id: u8, at: UnixMs) -> NodeIdentity {
        let key = NodeKey::generate().unwrap();
        let verified = VerifiedKey::from_csr(&key.csr().unwrap()).unwrap();
        let issued = self
            .authority
            .issue_node(NodeId::from_random([id; 16]), &verified, at, DAY)
            .unwrap();
        NodeIdentity::new(key, issued.der, self.authority.certificate_der().to_vec()).unwrap()
    }

    pub(crate) fn serve(&self) -> Server {
        self.serve_with(any_port(), &Timing::default())
    }

    pub(crate) fn serve_with(&self, listen: SocketAddr, timing: &Timing) -> Server {
        let resumptions = remembers_nothing(&self.keys, timing);
        Server::bind(listen, &self.server, &self.keys, timing, &resumptions).unwrap()
    }
}

/// Sessions of a server that nobody comes back to after its end.
pub(crate) fn remembers_nothing(keys: &EndpointKeys, timing: &Timing) -> Resumptions {
    Resumptions::new(keys, timing, Vec::new(), Box::new(|_| {})).unwrap()
}

pub(crate) fn client(identity: &NodeIdentity) -> Client {
    Client::new(identity, Timing::default(), UnixMs(0)).unwrap()
}

pub(crate) fn address_of(server: &Server) -> Vec<Address> {
    vec![server.local_addr().into()]
}

/// Opens a session and says `hello`; both ends of it, the word already received.
pub(crate) async fn open(
    identity: &NodeIdentity,
    server: &mut Server,
) -> (Established, Established) {
    let addresses = address_of(server);
    open_at(&addresses, identity, server).await
}

/// As [`open`], through these addresses.
pub(crate) async fn open_at(
    addresses: &[Address],
    identity: &NodeIdentity,
    server: &mut Server,
) -> (Established, Established) {
    let dialler = client(identity);
    open_by(&dialler, addresses, server).await
}

/// As [`open`], by a client that may have been connected before.
pub(crate) async fn open_by(
    dialler: &Client,
    addresses: &[Address],
    server: &mut Server,
) -> (Established, Established) {
    let dialling = async { dialler.connect(addresses, "hello".into()).await.unwrap() };
    let (edge, incoming) = tokio::join!(soon(dialling), soon(server.accept()));
    let Incoming::Session(mut orchestrator) = incoming.unwrap() else {
        panic!("expected a session, got a join request")
    };
    assert_eq!(
        soon(orchestrator.receiver.recv()).await.unwrap().unwrap(),
        "hello"
    );
    (edge, orchestrator)
}

/// A session seen from both sides.
pub(crate) struct Pair {
    pub(crate) server: Server,
    pub(crate) edge: Established,
    pub(crate) orchestrator: Established,
}

pub(crate) async fn pair() -> Pair {
    let cluster = Cluster::new();
    let mut server = cluster.serve();
    let (edge, orchestrator) = open(&cluster.node(1), &mut server).await;
    Pair {
        server,
        edge,
        orchestrator,
    }
}
