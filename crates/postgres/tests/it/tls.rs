//! TLS between client and gateway: by SSLRequest and direct.

use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use verbatim_testkit::postgres::rcgen;

use crate::support::wire::*;
use crate::support::{Gateway, Peer, Setup};

/// A listener's configuration, and a connector that trusts it and offers these protocols.
fn tls(offered: &[&[u8]]) -> (verbatim_wire::TlsSource, TlsConnector) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"postgresql".to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
    let server = Arc::new(server);
    (Arc::new(move || server.clone()), TlsConnector::from(Arc::new(client)))
}

fn gateway(source: verbatim_wire::TlsSource) -> impl Future<Output = Gateway> {
    Gateway::new(Setup { loopback: false, tls: Some(source), ..Setup::default() })
}

async fn handshake(
    connector: &TlsConnector,
    peer: Peer,
) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    connector.connect(ServerName::try_from("localhost").unwrap(), peer.into_stream()).await
}

async fn expect(stream: &mut TlsStream<tokio::net::TcpStream>, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(read, bytes);
}

/// A login and a query with a large result over an established stream.
async fn work(mut stream: TlsStream<tokio::net::TcpStream>, gateway: &Gateway) {
    stream.write_all(&startup(0, &[("user", "ada"), ("database", "db")])).await.unwrap();
    expect(&mut stream, &authentication(3)).await;
    stream.write_all(&password("token")).await.unwrap();
    let mut target = gateway.accept().await;
    target.read_startup().await;
    target.send(&[authentication(0), key(7, b"abcd"), ready(b'I')].concat()).await;
    expect(&mut stream, &authentication(0)).await;
    let mut key = [0; 13];
    stream.read_exact(&mut key).await.unwrap();
    expect(&mut stream, &ready(b'I')).await;
    let sql = query(&format!("SELECT 1 -- {}", "x".repeat(100_000)));
    let answer = [data_row(&vec![b'r'; 1 << 20]), complete("SELECT 1"), ready(b'I')].concat();
    let (mut from, mut to) = tokio::io::split(stream);
    let sent = tokio::join!(
        async { to.write_all(&sql).await.unwrap() },
        async {
            target.expect(&sql).await;
            target.send(&answer).await;
        },
        async {
            let mut read = vec![0; answer.len()];
            from.read_exact(&mut read).await.unwrap();
            assert!(read == answer);
        }
    );
    let ((), (), ()) = sent;
    to.write_all(&terminate()).await.unwrap();
    target.expect(&terminate()).await;
}

#[tokio::test]
async fn a_session_over_tls_after_ssl_request() {
    let (source, connector) = tls(&[]);
    let gateway = gateway(source).await;
    let (mut peer, task) = gateway.dial().await;
    // Attack 2: GSSENCRequest first.
    peer.send(&code(GSSENC_REQUEST)).await;
    peer.expect(b"N").await;
    peer.send(&code(SSL_REQUEST)).await;
    peer.expect(b"S").await;
    let stream = handshake(&connector, peer).await.unwrap();
    work(stream, &gateway).await;
    task.await.unwrap();
    assert_eq!(gateway.gate.lines("closed"), ["closed client"]);
}

/// Attack 2.
#[tokio::test]
async fn direct_tls_needs_the_protocols_name() {
    let (source, connector) = tls(&[b"postgresql"]);
    let gateway = gateway(source.clone()).await;
    let (peer, task) = gateway.dial().await;
    work(handshake(&connector, peer).await.unwrap(), &gateway).await;
    task.await.unwrap();
    let (_, nameless) = tls(&[]);
    for connector in [nameless, tls(&[b"http/1.1"]).1] {
        let (peer, task) = gateway.dial().await;
        // Whether its own handshake succeeds or not, the client gets no further.
        if let Ok(mut stream) = handshake(&connector, peer).await {
            let _ = stream.write_all(&startup(0, &[("user", "ada"), ("database", "db")])).await;
            assert!(!matches!(stream.read(&mut [0]).await, Ok(1..)));
        }
        task.await.unwrap();
    }
    assert_eq!(gateway.counts.junk(), 2);
}
