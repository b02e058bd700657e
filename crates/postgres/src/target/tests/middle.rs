//! A man in the middle: he ends the gateway's TLS with a certificate of his own and opens another to the real server,
//! where `sslmode=require` verifies nothing and SCRAM alone can tell.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use verbatim_testkit::postgres::{Options, Postgres, Tls, rcgen};

use super::*;

/// Starts him in front of the server at `upstream`; returns his port. `edit` has each piece that the server sends.
async fn in_front_of(upstream: u16, edit: fn(&mut Vec<u8>)) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
    tokio::spawn(async move {
        let (mut gateway, _) = listener.accept().await.unwrap();
        gateway.read_exact(&mut [0; 8]).await.unwrap();
        gateway.write_all(b"S").await.unwrap();
        let gateway = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(gateway).await.unwrap();
        let server = target(upstream, "?sslmode=require").open().await.unwrap();
        let (from_gateway, to_gateway) = tokio::io::split(gateway);
        let (from_server, to_server) = tokio::io::split(server);
        tokio::join!(pass(from_gateway, to_server, |_| {}), pass(from_server, to_gateway, edit));
    });
    port
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, edit: fn(&mut Vec<u8>)) {
    let mut buffer = vec![0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let mut piece = buffer[..length].to_vec();
        edit(&mut piece);
        if to.write_all(&piece).await.is_err() {
            break;
        }
    }
    // The other side may have closed first.
    let _ = to.shutdown().await;
}

/// Leaves SCRAM-SHA-256-PLUS out of what the server offers.
fn without_plus(piece: &mut Vec<u8>) {
    const PLUS: &[u8] = b"SCRAM-SHA-256-PLUS\0";
    if let Some(place) = memchr::memmem::find(piece, PLUS) {
        piece.drain(place..place + PLUS.len());
        piece[4] -= u8::try_from(PLUS.len()).unwrap();
    }
}

fn server() -> Postgres {
    let server = Postgres::start(Options { tls: Some(Tls::default()), ..Options::default() }).unwrap();
    server.psql(&format!("CREATE ROLE app LOGIN PASSWORD '{CREDENTIAL}'")).unwrap();
    server
}

#[tokio::test]
async fn scram_does_not_pass_through_another_tls() {
    let server = server();
    target(server.port(), "?sslmode=require").connect(&[], 0).await.unwrap();
    let port = in_front_of(server.port(), |_| {}).await;
    let error = target(port, "?sslmode=require").connect(&[], 0).await.unwrap_err();
    tells_nothing(&error);
    assert_eq!(error.to_string(), "the target refused the login (28000): SCRAM channel binding check failed");
}

#[tokio::test]
async fn an_offer_of_channel_binding_cannot_be_taken_away() {
    let server = server();
    let port = in_front_of(server.port(), without_plus).await;
    let error = target(port, "?sslmode=require").connect(&[], 0).await.unwrap_err();
    tells_nothing(&error);
    assert_eq!(
        error.to_string(),
        "the target refused the login (28000): SCRAM channel binding negotiation error"
    );
}
