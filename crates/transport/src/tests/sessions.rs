//! Sessions: who is let in, what ends them, what each side hears of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::QuicClientConfig;
use rustls::version::TLS13;
use sluice_model::UnixMs;

use super::{
    Cluster, Pair, address_of, any_port, client, now, open, open_at, pair, remembers_nothing, soon,
};
use crate::identity::NodeIdentity;
use crate::verify::{PinnedAuthorityVerifier, provider};
use crate::{
    ALPN_SESSION, Address, Client, CloseCode, ClosedBy, ConnectError, SERVER_NAME, Server,
    SessionError, Timing,
};

#[tokio::test]
async fn frames_go_both_ways_and_the_streams_end_cleanly() {
    let Pair {
        server: _server,
        mut edge,
        mut orchestrator,
    } = pair().await;
    for frame in ["", "a", "bc"] {
        orchestrator.sender.send(frame.into()).await.unwrap();
        assert_eq!(soon(edge.receiver.recv()).await.unwrap().unwrap(), frame);
    }
    edge.sender.send("bye".into()).await.unwrap();
    edge.sender.finish().unwrap();
    assert_eq!(
        soon(orchestrator.receiver.recv()).await.unwrap().unwrap(),
        "bye"
    );
    assert_eq!(soon(orchestrator.receiver.recv()).await.unwrap(), None);
    soon(edge.sender.taken()).await.unwrap();
    assert_eq!(
        edge.sender.send("more".into()).await,
        Err(SessionError::StreamFinished)
    );
    assert!(edge.peer.is_none());
}

#[tokio::test]
async fn a_close_carries_who_and_why() {
    let Pair {
        server: _server,
        mut edge,
        orchestrator,
    } = pair().await;
    orchestrator
        .session
        .close(CloseCode::SUPERSEDED, "a newer session took over");
    let by_peer = SessionError::Closed {
        by: ClosedBy::Peer,
        code: CloseCode::SUPERSEDED,
        reason: "a newer session took over".to_owned(),
    };
    assert_eq!(soon(edge.receiver.recv()).await, Err(by_peer.clone()));
    assert_eq!(soon(edge.session.closed()).await, by_peer);
    assert_eq!(edge.session.close_reason(), Some(by_peer.clone()));
    assert_eq!(edge.sender.send("x".into()).await, Err(by_peer));
    assert!(matches!(
        soon(orchestrator.session.closed()).await,
        SessionError::Closed {
            by: ClosedBy::Us,
            ..
        }
    ));
}

#[tokio::test]
async fn a_session_goes_on_from_a_new_socket() {
    let Pair {
        server: _server,
        mut edge,
        mut orchestrator,
    } = pair().await;
    let mut seen = vec![orchestrator.session.remote_addr()];
    for frame in ["one", "two"] {
        edge.session.rebind().unwrap();
        edge.sender.send(frame.into()).await.unwrap();
        assert_eq!(
            soon(orchestrator.receiver.recv()).await.unwrap().unwrap(),
            frame
        );
        let address = orchestrator.session.remote_addr();
        assert!(!seen.contains(&address), "{address} is in {seen:?}");
        seen.push(address);
        orchestrator.sender.send(frame.into()).await.unwrap();
        assert_eq!(soon(edge.receiver.recv()).await.unwrap().unwrap(), frame);
    }
    orchestrator.session.rebind().unwrap();
}

#[tokio::test]
async fn an_edge_that_leaves_is_noticed_at_once() {
    let Pair {
        server: _server,
        edge,
        mut orchestrator,
    } = pair().await;
    edge.session.close(CloseCode::SHUTDOWN, "stopping");
    soon(edge.session.flushed()).await;
    let error = soon(orchestrator.receiver.recv()).await.unwrap_err();
    assert!(
        matches!(
            &error,
            SessionError::Closed {
                by: ClosedBy::Peer,
                code: CloseCode::SHUTDOWN,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_closing_server_tells_every_session() {
    let Pair {
        mut server,
        mut edge,
        orchestrator: _orchestrator,
    } = pair().await;
    server.close(CloseCode::SHUTDOWN, "the orchestrator is stopping");
    soon(server.flushed(Duration::from_secs(3))).await;
    let error = soon(edge.receiver.recv()).await.unwrap_err();
    assert!(
        matches!(
            &error,
            SessionError::Closed {
                by: ClosedBy::Peer,
                code: CloseCode::SHUTDOWN,
                ..
            }
        ),
        "{error}"
    );
    assert!(soon(server.accept()).await.is_none());
}

#[tokio::test]
async fn a_very_long_reason_is_cut_at_a_letter() {
    let Pair {
        server: _server,
        mut edge,
        orchestrator,
    } = pair().await;
    orchestrator
        .session
        .close(CloseCode::REFUSED, &"ä".repeat(400));
    let error = soon(edge.receiver.recv()).await.unwrap_err();
    let SessionError::Closed { reason, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(reason, "ä".repeat(256));
}

#[tokio::test]
async fn an_edge_refuses_another_clusters_orchestrator() {
    let (here, elsewhere) = (Cluster::new(), Cluster::new());
    let mut server = here.serve();
    let addresses = address_of(&server);
    let accepting = tokio::spawn(async move { server.accept().await.is_some() });
    let error = soon(client(&elsewhere.node(1)).connect(&addresses, "hello".into()))
        .await
        .unwrap_err();
    assert!(error.is_wrong_cluster(), "{error}");
    assert!(!accepting.is_finished());
    accepting.abort();
}

#[tokio::test]
async fn an_orchestrator_refuses_another_clusters_node() {
    let (here, elsewhere) = (Cluster::new(), Cluster::new());
    let mut server = here.serve();
    let addresses = address_of(&server);
    let accepting = tokio::spawn(async move { server.accept().await.is_some() });
    // A foreign certificate and key, with our authority as the one to trust.
    let foreign = elsewhere.node(1);
    let identity = NodeIdentity::new(
        copy_of_key(&foreign),
        foreign.certificate_der().to_vec(),
        here.authority.certificate_der().to_vec(),
    )
    .unwrap();
    let mut edge = soon(client(&identity).connect(&addresses, "hello".into()))
        .await
        .unwrap();
    // The client's side of the handshake ends before the server has looked at its certificate.
    let error = soon(edge.receiver.recv()).await.unwrap_err();
    assert!(
        matches!(&error, SessionError::CertificateRefused { .. }),
        "{error:?}"
    );
    assert!(!accepting.is_finished());
    accepting.abort();
}

fn copy_of_key(identity: &NodeIdentity) -> crate::identity::NodeKey {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.pem");
    identity.key().save(&path).unwrap();
    crate::identity::NodeKey::load(&path).unwrap().unwrap()
}

#[tokio::test]
async fn a_session_without_a_certificate_is_refused() {
    let cluster = Cluster::new();
    let mut server = cluster.serve();
    let target = server.local_addr();
    let accepting = tokio::spawn(async move { server.accept().await.is_some() });
    let verifier = PinnedAuthorityVerifier::new(cluster.authority.certificate_sha256());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN_SESSION.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::client(any_port()).unwrap();
    let connection = soon(endpoint.connect_with(config, target, SERVER_NAME).unwrap())
        .await
        .unwrap();
    let error = SessionError::from(soon(connection.closed()).await);
    assert!(
        matches!(
            &error,
            SessionError::Closed {
                by: ClosedBy::Peer,
                code: CloseCode::NO_CERTIFICATE,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(!accepting.is_finished());
    accepting.abort();
}

#[tokio::test]
async fn a_stolen_node_certificate_makes_no_orchestrator() {
    let cluster = Cluster::new();
    let thief = cluster.node(7);
    let mut identity = cluster.server.clone();
    identity.chain[0] = thief.certificate_der().to_vec().into();
    identity.key = thief.private_key();
    let timing = Timing::default();
    let resumptions = remembers_nothing(&cluster.keys, &timing);
    let mut server =
        Server::bind(any_port(), &identity, &cluster.keys, &timing, &resumptions).unwrap();
    let addresses = address_of(&server);
    let accepting = tokio::spawn(async move { server.accept().await.is_some() });
    let error = soon(client(&cluster.node(1)).connect(&addresses, "hello".into()))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("certificate is not acceptable"),
        "{error}"
    );
    assert!(!accepting.is_finished());
    accepting.abort();
}

#[tokio::test]
async fn an_expired_node_gets_through_and_is_marked() {
    let cluster = Cluster::new();
    let mut server = cluster.serve();
    let long_ago = UnixMs(now().0 - 100 * 24 * 60 * 60 * 1000);
    let identity = cluster.node_at(4, long_ago);
    let (_edge, orchestrator) = open(&identity, &mut server).await;
    let peer = orchestrator.peer.unwrap();
    assert_eq!(peer.node(), identity.facts().node);
    assert!(peer.certificate.is_expired(now()));
    assert!(!peer.certificate.is_expired(long_ago));
}

#[tokio::test]
async fn a_dead_first_address_costs_little() {
    let cluster = Cluster::new();
    let mut server = cluster.serve();
    // Bound and silent, as a host behind a firewall is.
    let silent = std::net::UdpSocket::bind(any_port()).unwrap();
    let addresses: Vec<Address> = vec![
        silent.local_addr().unwrap().into(),
        server.local_addr().into(),
    ];
    let started = Instant::now();
    open_at(&addresses, &cluster.node(1), &mut server).await;
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn every_address_that_fails_is_named() {
    let cluster = Cluster::new();
    let silent = [0, 1].map(|_| std::net::UdpSocket::bind(any_port()).unwrap());
    let addresses: Vec<Address> = silent
        .iter()
        .map(|socket| socket.local_addr().unwrap().into())
        .collect();
    let timing = Timing {
        connect_timeout: Duration::from_millis(200),
        ..Timing::default()
    };
    let dialler = Client::new(&cluster.node(1), timing, UnixMs(0)).unwrap();
    let error = soon(dialler.connect(&addresses, "hello".into()))
        .await
        .unwrap_err();
    assert!(error.is_unreachable());
    for address in &addresses {
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
    assert_eq!(
        soon(dialler.connect(&[], "hello".into()))
            .await
            .unwrap_err(),
        ConnectError::NoAddress
    );
}

#[tokio::test]
async fn a_port_in_use_is_said_plainly() {
    let cluster = Cluster::new();
    let first = cluster.serve();
    let timing = Timing::default();
    let error = Server::bind(
        first.local_addr(),
        &cluster.server,
        &cluster.keys,
        &timing,
        &remembers_nothing(&cluster.keys, &timing),
    )
    .unwrap_err();
    let expected = format!(
        "cannot listen on UDP {}: another program uses this port",
        first.local_addr()
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn ipv6_works_where_the_machine_has_it() {
    let Ok(free) = std::net::UdpSocket::bind("[::1]:0") else {
        return;
    };
    drop(free);
    let cluster = Cluster::new();
    let mut server = cluster.serve_with("[::1]:0".parse().unwrap(), &Timing::default());
    let address: Address = format!("[::1]:{}", server.local_addr().port())
        .parse()
        .unwrap();
    let (_edge, orchestrator) = open_at(&[address], &cluster.node(1), &mut server).await;
    assert!(orchestrator.peer.unwrap().remote_addr.is_ipv6());
}
