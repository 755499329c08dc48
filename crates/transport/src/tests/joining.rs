//! Machines that join, with tokens good and bad.

use sluice_model::{NodeId, TokenId};

use super::{Cluster, address_of, now, open, soon};
use crate::identity::{ClusterId, JoinToken, NodeIdentity, NodeKey, TokenSecret, VerifiedKey};
use crate::{AttemptError, ConnectError, Incoming, JoinError, Server, SessionError, Timing, join};

fn token_for(cluster: &Cluster, server: &Server) -> JoinToken {
    let token = JoinToken {
        authority_sha256: cluster.authority.certificate_sha256(),
        id: TokenId::from_random([3; 16]),
        secret: TokenSecret::generate().unwrap(),
        addresses: address_of(server),
    };
    JoinToken::parse(&token.encode().unwrap()).unwrap()
}

#[tokio::test]
async fn a_machine_with_a_token_gets_a_certificate_and_opens_a_session() {
    let cluster = Cluster::new();
    let mut server = cluster.serve();
    let token = token_for(&cluster, &server);
    let key = NodeKey::generate().unwrap();
    let request = key.csr().unwrap();
    let asking =
        tokio::spawn(async move { join(&token, request.into(), &Timing::default()).await });

    let Incoming::Join(joining) = soon(server.accept()).await.unwrap() else {
        panic!("expected a join request")
    };
    let node = NodeId::from_random([9; 16]);
    let verified = VerifiedKey::from_csr(joining.request()).unwrap();
    let issued = cluster
        .authority
        .issue_node(node, &verified, now(), super::DAY)
        .unwrap();
    soon(joining.respond(issued.der.into())).await.unwrap();

    let answer = soon(asking).await.unwrap().unwrap();
    assert_eq!(answer.authority_der, cluster.authority.certificate_der());
    let identity = NodeIdentity::new(key, answer.frame.to_vec(), answer.authority_der).unwrap();
    assert_eq!(identity.cluster(), cluster.authority.cluster());

    let (mut edge, mut session) = open(&identity, &mut server).await;
    let peer = session.peer.clone().unwrap();
    assert_eq!(peer.node(), node);
    assert_eq!(peer.certificate, issued.facts);
    session.sender.send("welcome".into()).await.unwrap();
    assert_eq!(
        soon(edge.receiver.recv()).await.unwrap().unwrap(),
        "welcome"
    );
}

#[tokio::test]
async fn a_token_of_another_cluster_is_noticed_before_anything_is_sent() {
    let (here, elsewhere) = (Cluster::new(), Cluster::new());
    let mut server = here.serve();
    let mut token = token_for(&elsewhere, &server);
    token.addresses = address_of(&server);
    let accepting = tokio::spawn(async move { server.accept().await.is_some() });
    let error = soon(join(&token, "secret".into(), &Timing::default()))
        .await
        .unwrap_err();
    let JoinError::Connect(error) = error else {
        panic!("{error}")
    };
    assert!(
        error.is_wrong_cluster() && !error.is_unreachable(),
        "{error}"
    );
    assert!(
        error.to_string().contains("belongs to another cluster"),
        "{error}"
    );
    assert!(
        !accepting.is_finished(),
        "the server must not see a request"
    );
    accepting.abort();
}

#[tokio::test]
async fn a_server_that_only_shows_the_right_authority_is_not_believed() {
    // The chain holds the pinned authority, but the leaf was signed by another one of the same name.
    let (real, fake) = (Cluster::new(), Cluster::new());
    let mut identity = fake.server.clone();
    identity.chain[1] = real.server.chain[1].clone();
    let timing = Timing::default();
    let resumptions = super::remembers_nothing(&fake.keys, &timing);
    let mut server = Server::bind(
        super::any_port(),
        &identity,
        &fake.keys,
        &timing,
        &resumptions,
    )
    .unwrap();
    let token = token_for(&real, &server);
    let accepting = tokio::spawn(async move { server.accept().await.is_some() });
    let error = soon(join(&token, "secret".into(), &Timing::default()))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, JoinError::Connect(error) if error.is_wrong_cluster()),
        "{error}"
    );
    assert!(!accepting.is_finished());
    accepting.abort();
}

#[tokio::test]
async fn a_join_without_an_answer_says_so() {
    let cluster = Cluster::new();
    let mut server = cluster.serve();
    let token = token_for(&cluster, &server);
    let asking =
        tokio::spawn(async move { join(&token, "please".into(), &Timing::default()).await });
    drop(soon(server.accept()).await.unwrap());
    let error = soon(asking).await.unwrap().unwrap_err();
    assert!(
        matches!(error, JoinError::Session(SessionError::Closed { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_join_request_over_the_bound_never_leaves() {
    let cluster = Cluster::new();
    let mut server = cluster.serve();
    let token = token_for(&cluster, &server);
    let accepting = tokio::spawn(async move { server.accept().await.is_some() });
    let request = vec![0; crate::JOIN_FRAME_BYTES_MAX + 1].into();
    let error = soon(join(&token, request, &Timing::default()))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            JoinError::Session(SessionError::FrameTooLarge { .. })
        ),
        "{error:?}"
    );
    assert!(!accepting.is_finished());
    accepting.abort();
}

#[tokio::test]
async fn case_61_joining_where_nobody_listens_names_the_address_and_udp() {
    let cluster = Cluster::new();
    let server = cluster.serve();
    let token = token_for(&cluster, &server);
    let address = server.local_addr().to_string();
    drop(server);
    let timing = Timing {
        connect_timeout: std::time::Duration::from_millis(300),
        ..Timing::default()
    };
    let error = soon(join(&token, "x".into(), &timing)).await.unwrap_err();
    let JoinError::Connect(connect @ ConnectError::Failed { failures }) = &error else {
        panic!("{error:?}")
    };
    assert!(connect.is_unreachable());
    assert_eq!(
        failures[0].error,
        AttemptError::NoAnswer {
            after: timing.connect_timeout
        }
    );
    let text = error.to_string();
    assert!(
        text.contains(&address) && text.contains("no answer over UDP"),
        "{text}"
    );
}

#[test]
fn a_cluster_is_named_by_its_authority() {
    let cluster = Cluster::new();
    let read = ClusterId::of_authority(cluster.authority.certificate_der()).unwrap();
    assert_eq!(read, cluster.authority.cluster());
    assert!(ClusterId::of_authority(cluster.server.certificate_der()).is_err());
}
