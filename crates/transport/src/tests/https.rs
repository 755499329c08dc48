//! The operators' port.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Cluster, any_port, soon};
use crate::{SERVER_NAME, TlsListener, api_client_config};

async fn dial(
    trusting: &Cluster,
    listener: std::net::SocketAddr,
) -> std::io::Result<TlsStream<TcpStream>> {
    let config = api_client_config(trusting.authority.certificate_der()).unwrap();
    let stream = TcpStream::connect(listener).await?;
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from(SERVER_NAME).unwrap(), stream)
        .await
}

fn is_send<T: Send>(value: T) -> T {
    value
}

#[tokio::test]
async fn operators_talk_tls_whatever_others_do_on_the_port() {
    let cluster = Cluster::new();
    let mut listener = is_send(
        TlsListener::bind(any_port(), &cluster.server)
            .await
            .unwrap(),
    );
    let address = listener.local_addr();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = is_send(listener.accept()).await;
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.unwrap();
        stream.write_all(&word).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    // One that says nothing, one that speaks plain HTTP, one that trusts another cluster, and then a good one.
    let _silent = soon(TcpStream::connect(address)).await.unwrap();
    let mut plain = soon(TcpStream::connect(address)).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = soon(dial(&Cluster::new(), address)).await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    let mut stream = soon(dial(&cluster, address)).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut word = [0; 4];
    soon(stream.read_exact(&mut word)).await.unwrap();
    assert_eq!(&word, b"ping");
    soon(serving).await.unwrap();
}

#[tokio::test]
async fn a_tcp_port_in_use_is_said_plainly() {
    let cluster = Cluster::new();
    let first = TlsListener::bind(any_port(), &cluster.server)
        .await
        .unwrap();
    let error = TlsListener::bind(first.local_addr(), &cluster.server)
        .await
        .unwrap_err();
    let expected = format!(
        "cannot listen on TCP {}: another program uses this port",
        first.local_addr()
    );
    assert_eq!(error.to_string(), expected);
}
