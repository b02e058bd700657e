//! From accept to the greeting.

use std::sync::Arc;
use std::time::Duration;

use verbatim_core::Refusal;
use verbatim_postgres::LoginMethod;

use crate::support::wire::*;
use crate::support::{Gateway, Setup};

const ADA: [(&str, &str); 2] = [("user", "ada"), ("database", "db")];

#[tokio::test]
async fn the_clients_own_parameters_reach_the_target_and_its_token_does_not() {
    let gateway = Gateway::new(Setup::default()).await;
    let (mut client, task) = gateway.dial().await;
    let parameters = [ADA[0], ADA[1], ("application_name", "agent"), ("options", "-c search_path=a")];
    client.send(&startup(0, &parameters)).await;
    client.expect(&authentication(3)).await;
    client.send(&password("the-token")).await;
    let mut target = gateway.accept().await;
    let sent = target.read_startup().await;
    let sent: Vec<_> =
        sent[4..].split(|byte| *byte == 0).map(|text| text.escape_ascii().to_string()).collect();
    for (name, value) in [("user", "app"), ("database", "customers"), ("application_name", "agent")] {
        let at = sent.iter().position(|text| text == name).unwrap();
        assert_eq!(sent[at + 1], value);
    }
    assert!(sent.iter().any(|text| text == "-c search_path=a"));
    assert!(!sent.iter().any(|text| text.contains("token") || text == "ada"));
    let status = message(b'S', b"server_version\0v18.1\0");
    let greeting = [authentication(0), status.clone(), key(7, b"abcd"), ready(b'I')].concat();
    target.send(&greeting).await;
    client.expect(&[authentication(0), status].concat()).await;
    assert_eq!(client.message().await[..9], *b"K\0\0\0\x0c\0\0\0\x07");
    client.expect(&ready(b'I')).await;
    drop(client);
    task.await.unwrap();
    assert_eq!(gateway.gate.lines("login"), ["login with 9 bytes: db as ada by agent"]);
}

/// The classes of refusals, each in its words; the target is never asked.
#[tokio::test]
async fn a_refused_login_is_told_its_class_and_no_reason() {
    let secret = || "why not".to_owned();
    for (refusal, authenticated, words) in [
        (
            Refusal::NotAuthenticated { code: "signature", reason: secret() },
            false,
            "FATAL 28P01 password authentication failed for user \"ada\"",
        ),
        (
            Refusal::NotAllowed { code: "no_group", reason: secret() },
            true,
            "FATAL 42501 permission denied for connection \"db\"",
        ),
        (
            Refusal::Undecided { code: "keys", reason: secret() },
            false,
            "FATAL 57P03 the identity service is unavailable, try again later",
        ),
        (Refusal::Busy { reason: "sessions".into() }, false, "FATAL 53300 sorry, too many clients already"),
    ] {
        let gateway = Gateway::new(Setup::default()).await;
        *gateway.gate.refuse_login.lock() = Some(refusal);
        let (mut client, task) = gateway.dial().await;
        client.send(&startup(0, &ADA)).await;
        client.expect(&authentication(3)).await;
        client.send(&password("token")).await;
        if authenticated {
            client.expect(&authentication(0)).await;
        }
        assert_eq!(client.error().await, words);
        client.end().await;
        drop(client);
        task.await.unwrap();
        assert_eq!(gateway.gate.lines("login refused").len(), 1);
    }
}

/// Attack 1, attack 2: what is asked for encryption before there is any.
#[tokio::test]
async fn without_tls_ssl_and_gss_requests_are_declined_once_each() {
    let gateway = Gateway::new(Setup::default()).await;
    let (mut client, task) = gateway.dial().await;
    client.send(&code(GSSENC_REQUEST)).await;
    client.expect(b"N").await;
    client.send(&code(SSL_REQUEST)).await;
    client.expect(b"N").await;
    client.send(&code(SSL_REQUEST)).await;
    client.end().await;
    task.await.unwrap();
    assert_eq!(gateway.counts.junk(), 1);
}

/// Attack 3.
#[tokio::test]
async fn newer_protocols_and_unknown_options_are_negotiated_down() {
    let gateway = Gateway::new(Setup::default()).await;
    let (mut client, _task) = gateway.dial().await;
    client.send(&startup(9999, &[ADA[0], ADA[1], ("_pq_.grease", "1")])).await;
    client.expect(&message(b'v', b"\0\x03\0\x02\0\0\0\x01_pq_.grease\0")).await;
    client.expect(&authentication(3)).await;
    client.send(&password("token")).await;
    let mut target = gateway.accept().await;
    target.read_startup().await;
    target.send(&[authentication(0), key(7, &[1; 32]), ready(b'I')].concat()).await;
    client.expect(&authentication(0)).await;
    assert_eq!(client.message().await.len(), 5 + 4 + 32, "a key of protocol 3.2");
    let (mut old, _task) = gateway.dial().await;
    old.send(&packet(b"\0\x02\0\0user\0\0")).await;
    assert_eq!(
        old.error().await,
        "FATAL 0A000 unsupported frontend protocol 2.0: server supports 3.0 to 3.2"
    );
}

/// Attack 18, attack 19.
#[tokio::test]
async fn who_and_what_is_wanted_is_settled_before_anything_is_judged() {
    let gateway = Gateway::new(Setup::default()).await;
    let (mut client, _task) = gateway.dial().await;
    client.send(&startup(0, &[("database", "db")])).await;
    assert_eq!(client.error().await, "FATAL 28000 no PostgreSQL user name specified in startup packet");
    // An empty database is the user's name.
    let (mut client, _task) = gateway.dial().await;
    client.send(&startup(0, &[("user", "db"), ("database", "")])).await;
    client.expect(&authentication(3)).await;
    *gateway.gate.refuse_login.lock() = Some(Refusal::Draining);
    client.send(&password("t")).await;
    client.error().await;
    *gateway.gate.refuse_login.lock() = None;
    let (mut client, _task) = gateway.dial().await;
    client.send(&startup(0, &[ADA[0], ADA[1], ("replication", "database")])).await;
    client.expect(&authentication(3)).await;
    client.send(&password("t")).await;
    client.expect(&authentication(0)).await;
    assert_eq!(
        client.error().await,
        "FATAL 0A000 not supported through the gateway: replication connections"
    );
    assert_eq!(
        gateway.gate.lines("login"),
        [
            "login refused protocol: db as - by -",
            "login refused draining: db as db by -",
            "login refused unsupported: db as ada by -",
        ]
    );
}

/// As at the server: a client that leaves before it said anything (Terminate at once) does not hear an error.
#[tokio::test]
async fn a_length_that_no_packet_has_gets_no_word() {
    let gateway = Gateway::new(Setup::default()).await;
    for length in [terminate(), vec![0; 8]] {
        let (mut client, task) = gateway.dial().await;
        client.send(&length).await;
        client.end().await;
        task.await.unwrap();
    }
    assert_eq!(gateway.counts.junk(), 2);
}

/// Attack 4, attack 21: junk costs a count and no more.
#[tokio::test]
async fn junk_is_counted_and_ends() {
    let gateway = Gateway::new(Setup::default()).await;
    for junk in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 8],
        u32::MAX.to_be_bytes().repeat(2),
        packet(b"\0\x03\0\0user"),
        b"\x16\x03\x01\x02\0\x01".to_vec(),
        Vec::new(),
    ] {
        let (mut client, task) = gateway.dial().await;
        client.send(&junk).await;
        drop(client);
        task.await.unwrap();
    }
    assert_eq!(gateway.counts.junk(), 6);
    assert!(gateway.gate.log().is_empty());
}

/// Attack 21.
#[tokio::test(start_paused = true)]
async fn a_client_that_dawdles_meets_the_deadline() {
    let limit = Duration::from_secs(5);
    let gateway = Gateway::new(Setup { login_limit: limit, ..Setup::default() }).await;
    let (mut silent, task) = gateway.dial().await;
    silent.end().await;
    task.await.unwrap();
    assert_eq!(gateway.counts.junk(), 1);
    let (mut client, _task) = gateway.dial().await;
    client.send(&startup(0, &ADA)).await;
    client.expect(&authentication(3)).await;
    client.send(b"p\0\0\x01\0half").await;
    assert_eq!(client.error().await, "FATAL 08P01 protocol violation");
    assert_eq!(gateway.gate.lines("login"), ["login refused protocol: db as ada by -"]);
}

/// Attack 48.
#[tokio::test]
async fn tokens_are_taken_up_to_the_limit() {
    for (length, logged) in
        [(12_000, "login with 12000"), (65_535, "login with 65535"), (65_536, "login refused size")]
    {
        let gateway = Gateway::new(Setup::default()).await;
        let (mut client, _task) = gateway.dial().await;
        client.send(&startup(0, &ADA)).await;
        client.expect(&authentication(3)).await;
        client.send(&password(&"t".repeat(length))).await;
        if length > 65_535 {
            assert_eq!(client.error().await, "FATAL 28P01 password authentication failed for user \"ada\"");
        } else {
            gateway.accept().await;
        }
        assert!(gateway.gate.lines("login")[0].starts_with(logged));
    }
}

#[tokio::test]
async fn oauthbearer_takes_a_token_and_tells_where_to_get_one() {
    let sasl = |data: &[u8]| {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        message(b'p', &[b"OAUTHBEARER\0", &length[..], data].concat())
    };
    let offer = message(b'R', b"\0\0\0\x0aOAUTHBEARER\0\0");
    let discovery = message(
        b'R',
        b"\0\0\0\x0b{\"status\":\"invalid_token\",\"openid-configuration\":\"https://login.example/.well-known/openid-configuration\",\"scope\":\"api://verbatim/connect\"}",
    );
    let gateway = Gateway::new(Setup { login: LoginMethod::OauthBearer, ..Setup::default() }).await;
    let (mut client, _task) = gateway.dial().await;
    client.send(&startup(0, &ADA)).await;
    client.expect(&offer).await;
    client.send(&sasl(b"n,,\x01auth=\x01\x01")).await;
    client.expect(&discovery).await;
    client.send(&message(b'p', b"\x01")).await;
    assert_eq!(client.error().await, "FATAL 28000 OAuth bearer authentication failed for user \"ada\"");
    let (mut client, _task) = gateway.dial().await;
    client.send(&startup(0, &ADA)).await;
    client.expect(&offer).await;
    // Without initial data there is an empty challenge.
    client.send(&message(b'p', b"OAUTHBEARER\0\xff\xff\xff\xff")).await;
    client.expect(&authentication(11)).await;
    client.send(&message(b'p', b"n,,\x01auth=Bearer a.b.c\x01\x01")).await;
    gateway.accept().await;
    let (mut client, _task) = gateway.dial().await;
    client.send(&startup(0, &ADA)).await;
    client.expect(&offer).await;
    client.send(&sasl(b"n,a=x,\x01auth=Bearer a.b.c\x01\x01")).await;
    client.expect(&authentication(0)).await;
    assert_eq!(
        client.error().await,
        "FATAL 0A000 not supported through the gateway: an authorization identity"
    );
    assert_eq!(
        gateway.gate.lines("login"),
        [
            "login refused discovery: db as ada by -",
            "login with 5 bytes: db as ada by -",
            "login refused unsupported: db as ada by -",
        ]
    );
}

/// A target that refuses the gateway: its own words, after AuthenticationOk, and a session that closed.
#[tokio::test]
async fn a_target_that_cannot_be_had_closes_the_session() {
    let gateway = Gateway::new(Setup::default()).await;
    let (mut client, task) = gateway.dial().await;
    client.send(&startup(0, &ADA)).await;
    client.expect(&authentication(3)).await;
    client.send(&password("token")).await;
    let mut target = gateway.accept().await;
    target.read_startup().await;
    target.send(&error("53300", "too many clients")).await;
    client.expect(&[authentication(0), error("53300", "too many clients")].concat()).await;
    client.end().await;
    drop(client);
    task.await.unwrap();
    assert_eq!(gateway.gate.lines("closed"), ["closed target"]);
}

/// Case 50 of the identity tests: a credential in clear is not even read.
#[tokio::test]
async fn with_tls_a_listener_for_others_takes_no_login_in_clear() {
    let never: verbatim_wire::TlsSource = Arc::new(|| panic!("no handshake in this test"));
    let gateway = Gateway::new(Setup { loopback: false, tls: Some(never), ..Setup::default() }).await;
    let (mut client, _task) = gateway.dial().await;
    client.send(&[startup(0, &ADA), password("token")].concat()).await;
    let words = client.error().await;
    assert!(words.starts_with("FATAL 28000 ") && words.ends_with("no encryption"), "{words}");
    assert_eq!(gateway.gate.lines("login"), ["login refused clear: db as ada by -"]);
    // Attack 1.
    let (mut client, _task) = gateway.dial().await;
    client.send(&[code(SSL_REQUEST), startup(0, &ADA)].concat()).await;
    client.end().await;
    assert_eq!(gateway.gate.lines("login refused protocol"), ["login refused protocol:  as - by -"]);
}
