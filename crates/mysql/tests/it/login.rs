//! From accept to the OK.

use verbatim_core::Refusal;
use verbatim_wire::TlsSource;

use crate::support::wire::{self, flag};
use crate::support::{Gateway, Setup};

const CLEAR: &str = "mysql_clear_password";
const OPENID: &str = "authentication_openid_connect_client";

#[tokio::test]
async fn the_target_is_asked_for_the_clients_flags_and_attributes_under_the_gateways_user() {
    let capabilities = flag::PLAIN | flag::DEPRECATE_EOF | flag::SESSION_TRACK;
    let gateway = Gateway::new(Setup { capabilities, ..Setup::default() }).await;
    let ends = gateway.session_with(capabilities).await;
    let asked = u32::from_le_bytes(ends.login[..4].try_into().unwrap());
    assert_eq!(u64::from(asked), capabilities);
    let text = ends.login.escape_ascii().to_string();
    assert!(text.contains("app\\x00") && text.contains("customers\\x00"), "{text}");
    assert!(text.contains("program_name\\x06report") && !text.contains("token"), "{text}");
    ends.finish().await;
}

#[tokio::test]
async fn the_token_comes_with_the_response_or_when_it_is_asked_for() {
    let gateway = Gateway::new(Setup::default()).await;
    for (plugin, answer) in [(CLEAR, &b"token\0"[..]), (OPENID, b"\x01\x05token")] {
        let (mut client, _task) = gateway.dial().await;
        client.packet(0).await;
        client.send(&wire::packet(1, &wire::response(flag::PLAIN, "ada", answer, "db", plugin, &[]))).await;
        let mut target = gateway.accept().await;
        target.expect_login().await;
        target.send(&wire::packet(2, wire::OK)).await;
        client.expect(&wire::packet(2, wire::OK)).await;
    }
    let (mut client, _task) = gateway.dial().await;
    client.packet(0).await;
    client.send(&wire::packet(1, &wire::response(flag::PLAIN, "ada", b"", "db", OPENID, &[]))).await;
    client
        .expect(&wire::packet(
            2,
            format!("\u{fe}{OPENID}\0").chars().map(|c| c as u8).collect::<Vec<_>>().as_slice(),
        ))
        .await;
    client.send(&wire::packet(3, b"\x02\x05token")).await;
    assert!(client.error(4).await.starts_with("1043 08S01"), "another capability of the plugin");
    assert_eq!(gateway.gate.lines("login refused protocol").len(), 1);
}

#[tokio::test]
async fn a_login_is_refused_in_the_servers_words() {
    let gateway = Gateway::new(Setup::default()).await;
    for (refusal, words) in [
        (
            Refusal::NotAuthenticated { code: "signature", reason: "no".into() },
            "1045 28000 Access denied for user 'ada'@'127.0.0.1' (using password: YES)",
        ),
        (
            Refusal::NotAllowed { code: "no_group", reason: "no".into() },
            "1044 42000 Access denied for user 'ada'@'127.0.0.1' to database 'db'",
        ),
    ] {
        *gateway.gate.refuse_login.lock() = Some(refusal);
        let (mut client, task) = gateway.dial().await;
        client.packet(0).await;
        client.send(&wire::packet(1, &wire::response(flag::PLAIN, "ada", b"t\0", "db", CLEAR, &[]))).await;
        assert_eq!(client.error(2).await, words);
        client.end().await;
        drop(client);
        task.await.unwrap();
    }
}

#[tokio::test]
async fn what_the_gateway_cannot_serve_is_refused_before_a_token_is_asked_for() {
    let gateway = Gateway::new(Setup::default()).await;
    for (capabilities, code) in [
        (flag::PLAIN | flag::COMPRESS, "1043"),
        (flag::PLAIN & !flag::PLUGIN_AUTH & !flag::CONNECT_ATTRS, "1251"),
    ] {
        let (mut client, _task) = gateway.dial().await;
        client.packet(0).await;
        client.send(&wire::packet(1, &wire::response(capabilities, "ada", b"t\0", "db", CLEAR, &[]))).await;
        assert!(client.error(2).await.starts_with(code));
    }
    assert_eq!(gateway.gate.lines("login refused unsupported").len(), 2);
}

fn tls() -> TlsSource {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    let config = std::sync::Arc::new(config);
    std::sync::Arc::new(move || config.clone())
}

/// Attack 31.
#[tokio::test]
async fn a_token_in_clear_before_tls_is_refused_and_never_looked_at() {
    let gateway = Gateway::new(Setup { tls: Some(tls()), loopback: false, ..Setup::default() }).await;
    let (mut client, _task) = gateway.dial().await;
    client.packet(0).await;
    client.send(&wire::packet(1, &wire::response(flag::PLAIN, "ada", b"t\0", "db", CLEAR, &[]))).await;
    assert!(client.error(2).await.starts_with("3159 HY000"));
    assert_eq!(gateway.gate.lines("login"), ["login refused clear: db as ada by -"]);
}

/// Attack 31.
#[tokio::test]
async fn bytes_in_clear_behind_an_sslrequest_are_never_the_sessions() {
    let gateway = Gateway::new(Setup { tls: Some(tls()), ..Setup::default() }).await;
    let (mut client, task) = gateway.dial().await;
    client.packet(0).await;
    let request = wire::packet(1, &wire::fixed(flag::PLAIN | flag::SSL));
    let response = wire::packet(2, &wire::response(flag::PLAIN, "ada", b"t\0", "db", CLEAR, &[]));
    client.send(&[request, response].concat()).await;
    client.end().await;
    task.await.unwrap();
    assert_eq!(gateway.gate.lines("login"), ["login refused protocol:  as - by -"]);
}

#[tokio::test]
async fn junk_is_counted_and_not_recorded() {
    let gateway = Gateway::new(Setup::default()).await;
    let before = gateway.counts.junk();
    for junk in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\0\0\x01", b"\xff\xff\xff\x01", b"\x05\0\0\x01abcde"] {
        let (mut client, task) = gateway.dial().await;
        client.packet(0).await;
        client.send(junk).await;
        assert!(client.error(client_sequence(junk)).await.starts_with("1043 08S01"));
        drop(client);
        task.await.unwrap();
    }
    assert_eq!(gateway.counts.junk() - before, 4);
    assert!(gateway.gate.lines("login").is_empty());
}

/// The packet counts where it was one.
fn client_sequence(junk: &[u8]) -> u8 {
    if junk[3] == 1 && junk.len() - 4 == usize::from(junk[0]) { 2 } else { 1 }
}

#[tokio::test]
async fn a_target_that_does_not_let_the_gateway_in_is_not_the_clients_fault() {
    let gateway = Gateway::new(Setup::default()).await;
    for (code, state, message, words) in [
        (1045, "28000", "Access denied for user 'app'", "1105 HY000 The target did not accept the gateway"),
        (1049, "42000", "Unknown database 'customers'", "1049 42000 Unknown database 'customers'"),
        (1040, "08004", "quotes target-secret", "1105 HY000 The target did not accept the gateway"),
    ] {
        let (mut client, task) = gateway.dial().await;
        client.packet(0).await;
        client.send(&wire::packet(1, &wire::response(flag::PLAIN, "ada", b"t\0", "db", CLEAR, &[]))).await;
        let mut target = gateway.accept().await;
        target.expect_login().await;
        target.send(&wire::packet(2, &wire::err(code, state, message))).await;
        assert_eq!(client.error(2).await, words);
        drop(client);
        task.await.unwrap();
    }
    assert_eq!(gateway.gate.lines("closed target").len(), 3);
}

/// The server's side of `caching_sha2_password`: what the cache has is quick, what it has not is asked for under the
/// server's key; a plugin that wants the password in clear gets nothing.
#[tokio::test]
async fn the_gateway_logs_in_as_mysql_8_asks_it_to() {
    let gateway = Gateway::new(Setup::default()).await;
    let begin = async || {
        let (mut client, task) = gateway.dial().await;
        client.packet(0).await;
        client.send(&wire::packet(1, &wire::response(flag::PLAIN, "ada", b"t\0", "db", CLEAR, &[]))).await;
        let mut target = gateway.accept().await;
        target.expect_login().await;
        (client, target, task)
    };
    let switch = [&b"\xfecaching_sha2_password\0"[..], &[b'B'; 20], b"\0"].concat();

    let (mut client, mut target, _task) = begin().await;
    target.send(&wire::packet(2, &switch)).await;
    assert_eq!(target.packet(3).await.len(), 32);
    target.send(&wire::packet(4, b"\x01\x03")).await;
    target.send(&wire::packet(5, wire::OK)).await;
    client.expect(&wire::packet(2, wire::OK)).await;

    let (mut client, mut target, _task) = begin().await;
    target.send(&wire::packet(2, &switch)).await;
    target.packet(3).await;
    target.send(&wire::packet(4, b"\x01\x04")).await;
    assert_eq!(target.packet(5).await, b"\x02", "the key is asked for: without TLS nothing goes in clear");
    let key = aws_lc_rs::rsa::PrivateDecryptingKey::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    target.send(&wire::packet(6, &[b"\x01", pem(&key).as_bytes()].concat())).await;
    let sealed = target.packet(7).await;
    let key = aws_lc_rs::rsa::OaepPrivateDecryptingKey::new(key).unwrap();
    let mut out = vec![0; sealed.len()];
    let plain = key.decrypt(&aws_lc_rs::rsa::OAEP_SHA1_MGF1SHA1, &sealed, &mut out, None).unwrap();
    let plain: Vec<u8> = plain.iter().map(|byte| byte ^ b'B').collect();
    assert_eq!(plain, b"target-secret\0");
    target.send(&wire::packet(8, wire::OK)).await;
    client.expect(&wire::packet(2, wire::OK)).await;

    let (mut client, mut target, _task) = begin().await;
    target.send(&wire::packet(2, b"\xfemysql_clear_password\0")).await;
    assert_eq!(client.error(2).await, "1105 HY000 The target did not accept the gateway");
    target.end().await;
}

/// A public key as servers send it.
fn pem(key: &aws_lc_rs::rsa::PrivateDecryptingKey) -> String {
    use aws_lc_rs::encoding::AsDer as _;
    let der: aws_lc_rs::encoding::PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    let bytes = der.as_ref();
    let mut text = String::from("-----BEGIN PUBLIC KEY-----\n");
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (place, chunk) in bytes.chunks(3).enumerate() {
        let number = chunk.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let known = digit <= chunk.len();
            text.push(if known { ALPHABET[(number >> (18 - 6 * digit)) as usize & 63].into() } else { '=' });
        }
        if place % 16 == 15 {
            text.push('\n');
        }
    }
    text + "\n-----END PUBLIC KEY-----\n"
}
