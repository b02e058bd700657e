//! A real memcached behind the interceptor.

use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use verbatim_core::RecordMode;
use verbatim_testkit::memcached::{Memcached, Options};
use verbatim_testkit::postgres::{Tls, rcgen};
use verbatim_wire::TargetTls;

use crate::support::{Gateway, login, target, target_with};

/// Sends commands on a session of its own, up to `quit`; what came back.
async fn through(gateway: &Gateway, commands: &str) -> String {
    let (mut client, task) = gateway.dial().await;
    client.send(login("cache token") + commands + "quit\r\n").await;
    client.expect("STORED\r\n").await;
    let answers = to_end(&mut client.stream).await;
    drop(client);
    task.await.unwrap();
    answers
}

async fn to_end(stream: &mut tokio::net::TcpStream) -> String {
    let mut answers = Vec::new();
    #[expect(clippy::disallowed_methods, reason = "a few lines of our own server")]
    stream.read_to_end(&mut answers).await.unwrap();
    String::from_utf8(answers).unwrap()
}

#[tokio::test]
async fn the_server_reads_what_is_recorded_and_answers_as_without_the_gateway() {
    let server = Memcached::start(&Options::default()).unwrap();
    let url = format!("memcached://127.0.0.1:{}", server.port());
    let gateway = Gateway::to(target(&url, None).unwrap(), RecordMode::Full, |_| {});
    let big = format!("set big 0 0 500000\r\n{}\r\n", "b".repeat(500_000));
    let too_big = format!("set big 0 0 2000000\r\n{}\r\n", "b".repeat(2_000_000));
    let commands = [
        "set a 0 0 5\r\nhello\r\nget a\r\nappend a 0 0 1 noreply\r\n!\r\ngets a\r\n",
        "add a 0 0 1\r\nx\r\nincr a 1\r\nset n 0 0 1\r\n9\r\nincr n 5\r\ndecr n 1 noreply\r\nget n\r\n",
        "mg a v q\r\nmg none v q\r\nms m 2 q\r\nhi\r\nms m 2 bad q\r\nhi\r\nmn\r\nmd m q\r\nme a\r\n",
        "cas a 0 0 1 999\r\nx\r\ntouch a 100\r\ngat 100 a n\r\ndelete a\r\ndelete a noreply\r\n",
        "verbosity 2\r\nstats reset\r\nstats nothing\r\nget\r\nflush_all noreply\r\nget n\r\n",
        &big,
        "get none\r\n",
        &too_big,
        "get none\r\n",
    ]
    .concat();
    let answers = through(&gateway, &commands).await;
    let shown: Vec<_> = answers.lines().filter(|line| !line.starts_with("ME ")).collect();
    expect_test::expect![[r#"
        STORED
        VALUE a 0 5
        hello
        END
        VALUE a 0 6 2
        hello!
        END
        NOT_STORED
        CLIENT_ERROR cannot increment or decrement non-numeric value
        STORED
        14
        VALUE n 0 2
        13
        END
        VA 6
        hello!
        CLIENT_ERROR error decoding key
        MN
        EXISTS
        TOUCHED
        VALUE a 0 6
        hello!
        VALUE n 0 2
        13
        END
        DELETED
        OK
        RESET
        ERROR
        ERROR
        END
        STORED
        END
        SERVER_ERROR object too large for cache
        END"#]]
    .assert_eq(&shown.join("\n"));

    // Line by line, in order; the gateway's own `mn` apart.
    let read: Vec<String> = server.commands().unwrap().concat();
    let recorded = gateway.gate.log();
    let recorded = recorded.lines().filter_map(|line| line.split_once(" command \"")?.1.split_once('"'));
    let recorded: Vec<&str> = recorded.map(|(text, _)| text).collect();
    let read: Vec<&str> = read.iter().map(String::as_str).filter(|line| *line != "mn").collect();
    assert_eq!(read, recorded.iter().copied().filter(|line| *line != "mn").collect::<Vec<_>>());
    assert!(gateway.gate.lines("").iter().all(|line| !line.ends_with("aborted")), "{}", gateway.gate.log());
}

/// Why the gateway does not forward what it cannot read for sure.
#[tokio::test]
async fn the_server_by_itself_reads_data_behind_a_bad_line_as_commands() {
    let server = Memcached::start(&Options::default()).unwrap();
    let (key, flags) = ("k".repeat(251), " c".repeat(17));
    for line in [format!("set {key} 0 0 9"), format!("ms a 9{flags}"), "set a 0 0 9 9 9".to_owned()] {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
        stream.write_all(format!("{line}\r\nflush_all\r\nquit\r\n").as_bytes()).await.unwrap();
        let answers = to_end(&mut stream).await;
        assert!(answers.contains("ERROR") && answers.ends_with("\r\nOK\r\n"), "{line}: {answers}");
    }
}

#[tokio::test]
async fn the_gateway_logs_in_at_the_server() {
    let server =
        Memcached::start(&Options { login: Some("app:secret".into()), ..Options::default() }).unwrap();
    for (url, credential, expected) in [
        ("app@", Some("secret"), Ok("logged in")),
        ("app@", Some("wrong"), Err("CLIENT_ERROR authentication failure")),
        ("", None, Err("CLIENT_ERROR unauthenticated")),
    ] {
        let url = format!("memcached://{url}127.0.0.1:{}", server.port());
        match (target(&url, credential).unwrap().check().await, expected) {
            (Ok(said), Ok(expected)) => assert_eq!(said, expected),
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
            (found, _) => panic!("{url}: {found:?}"),
        }
    }
}

#[tokio::test]
async fn tls_stands_on_both_sides_where_it_is_wanted() {
    let server = Memcached::start(&Options { tls: Some(Tls::default()), ..Options::default() }).unwrap();
    let ca = || TargetTls::load(Some(&server.ca()), None, None).unwrap();
    let url = |mode| format!("memcached://127.0.0.1:{}?sslmode={mode}", server.port());
    let untrusted = target(&url("verify-full"), None).unwrap();
    assert!(untrusted.check().await.unwrap_err().contains("certificate"));

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone());
    let config = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![certificate.clone()], key).unwrap());
    let trusted = target_with(&url("verify-full"), None, ca()).unwrap();
    let gateway = Gateway::to(trusted, RecordMode::Full, |listener| {
        listener.loopback = false;
        listener.tls = Some(Arc::new(move || config.clone()));
    });

    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let config = builder.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let (client, task) = gateway.dial().await;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = connector.connect(name, client.stream).await.unwrap();
    let value = "v".repeat(300_000);
    let commands = format!("set a 0 0 300000\r\n{value}\r\nget a\r\n");
    client.write_all((login("cache token") + &commands).as_bytes()).await.unwrap();
    let expected = format!("STORED\r\nSTORED\r\nVALUE a 0 300000\r\n{value}\r\nEND\r\n");
    let mut read = vec![0; expected.len()];
    client.read_exact(&mut read).await.unwrap();
    assert!(read == expected.as_bytes());
    client.shutdown().await.unwrap();
    drop(client);
    task.await.unwrap();
    assert!(gateway.log().ends_with("2 ok rows=1 bytes=300025\nclosed client\n"));
}
