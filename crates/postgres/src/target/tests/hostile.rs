//! Servers that do what PostgreSQL would not, each a script over one stream.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream as StdStream};

use expect_test::{Expect, expect};

use super::*;

/// Logs in at a server that runs `script`, and returns what came of it.
async fn against(
    query: &str,
    script: impl FnOnce(&mut StdStream) -> std::io::Result<()> + Send + 'static,
) -> Result<Connected, TargetError> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = target(listener.local_addr().unwrap().port(), query);
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        script(&mut stream).unwrap();
        // The gateway may have closed it already.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        rest
    });
    let result = target.connect(&[], 2).await;
    if let Err(error) = &result {
        tells_nothing(error);
        let sent = server.join().unwrap();
        assert!(memchr::memmem::find(&sent, CREDENTIAL.as_bytes()).is_none(), "sent the credential in clear");
    }
    result
}

/// What comes of a server that answers the StartupMessage with `answer`.
async fn check(answer: &[&[u8]], expected: Expect) {
    let answer = answer.concat();
    let result = against("?sslmode=disable", move |stream| {
        startup(stream)?;
        stream.write_all(&answer)
    })
    .await;
    expected.assert_eq(&match result {
        Ok(connected) => format!("{:?}, protocol 3.{}", connected.key, connected.protocol_minor),
        Err(error) => error.to_string(),
    });
}

fn startup(stream: &mut StdStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut rest)?;
    Ok(rest)
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    message.extend(body);
    message
}

fn authentication(code: u32, body: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes()[..], body].concat())
}

#[tokio::test]
async fn lengths_that_lie_are_refused_before_anything_is_allocated() {
    check(&[b"R\0\0\0\0"], expect!["the target broke the protocol: message 'R' of 0 bytes"]).await;
    check(&[b"R\0\0\0\x03"], expect!["the target broke the protocol: message 'R' of 3 bytes"]).await;
    check(&[b"R\x7f\xff\xff\xff"], expect!["the target broke the protocol: message 'R' of 2147483647 bytes"])
        .await;
    check(&[b"R\xff\xff\xff\xff"], expect!["the target broke the protocol: message 'R' of 4294967295 bytes"])
        .await;
    check(&[b"R\0\0\0\x04"], expect!["the target broke the protocol: malformed Authentication"]).await;
    check(&[b"R\0\0"], expect!["the stream to the target failed during the login: unexpected end of file"])
        .await;
}

#[tokio::test]
async fn a_greeting_has_a_limit() {
    let notice = message(b'N', &[b'x'; 60_000]);
    let ok = authentication(0, b"");
    let notices = notice.repeat(20);
    check(
        &[&ok, &notices],
        expect!["the target broke the protocol: more than 1048576 bytes before ReadyForQuery"],
    )
    .await;
    check(
        &[&notices],
        expect!["the target broke the protocol: more than 1048576 bytes before ReadyForQuery"],
    )
    .await;
}

#[tokio::test]
async fn a_server_need_not_ask_for_a_password_nor_give_a_key() {
    let ready = message(b'Z', b"I");
    check(&[&authentication(0, b""), &ready], expect!["BackendKey(0, 0 bytes), protocol 3.2"]).await;
    let negotiated = message(b'v', b"\0\x03\0\0\0\0\0\0");
    let key = message(b'K', &[&[0, 0, 0, 7][..], &[9; 256]].concat());
    check(
        &[&negotiated, &authentication(0, b""), &key, &ready],
        expect!["BackendKey(7, 256 bytes), protocol 3.0"],
    )
    .await;
    // As the documentation has it.
    let negotiated = message(b'v', b"\0\0\0\0\0\0\0\0");
    check(&[&negotiated, &authentication(0, b""), &ready], expect!["BackendKey(0, 0 bytes), protocol 3.0"])
        .await;
}

#[tokio::test]
async fn protocols_that_nobody_asked_for_are_refused() {
    let newer = message(b'v', b"\0\x03\0\x09\0\0\0\0");
    check(
        &[&newer],
        expect!["the target broke the protocol: protocol version 0x30009, which nobody asked for"],
    )
    .await;
    let option = message(b'v', b"\0\x03\0\0\0\0\0\x01_pq_.x\0");
    check(
        &[&option],
        expect!["the target broke the protocol: 1 unknown protocol options, and none was asked for"],
    )
    .await;
    check(
        &[&message(b'v', b"\0")],
        expect!["the target broke the protocol: malformed NegotiateProtocolVersion"],
    )
    .await;
    let key = message(b'K', &[0; 261]);
    check(
        &[&authentication(0, b""), &key],
        expect!["the target broke the protocol: malformed BackendKeyData"],
    )
    .await;
    let row = message(b'D', b"\0\0");
    check(&[&row], expect!["the target broke the protocol: message 'D', where Authentication is expected"])
        .await;
    check(
        &[&authentication(0, b""), &row],
        expect!["the target broke the protocol: message 'D', where ReadyForQuery is expected"],
    )
    .await;
}

#[tokio::test]
async fn methods_that_the_gateway_does_not_speak_are_named() {
    for (code, expected) in [
        (
            2,
            expect![
                "the gateway cannot log in at the target: it asks for Kerberos V5 (type 2), which the gateway does not speak"
            ],
        ),
        (
            7,
            expect![
                "the gateway cannot log in at the target: it asks for GSSAPI (type 7), which the gateway does not speak"
            ],
        ),
        (
            9,
            expect![
                "the gateway cannot log in at the target: it asks for SSPI (type 9), which the gateway does not speak"
            ],
        ),
        (
            77,
            expect![
                "the gateway cannot log in at the target: it asks for an unknown method (type 77), which the gateway does not speak"
            ],
        ),
    ] {
        check(&[&authentication(code, b"")], expected).await;
    }
    check(
        &[&authentication(10, b"OAUTHBEARER\0\0")],
        expect!["the gateway cannot log in at the target: of its SASL mechanisms (OAUTHBEARER), the gateway speaks none"],
    )
    .await;
    // Channel binding without a channel.
    check(
        &[&authentication(10, b"SCRAM-SHA-256-PLUS\0\0")],
        expect!["the gateway cannot log in at the target: of its SASL mechanisms (SCRAM-SHA-256-PLUS), the gateway speaks none"],
    )
    .await;
    check(
        &[&authentication(5, b"abc")],
        expect!["the target broke the protocol: malformed AuthenticationMD5Password"],
    )
    .await;
    let twice = authentication(5, b"salt").repeat(2);
    check(&[&twice], expect!["the target broke the protocol: a second authentication request (type 5)"])
        .await;
}

#[tokio::test]
async fn a_server_that_does_not_prove_itself_in_scram_is_left() {
    let offer = authentication(10, b"SCRAM-SHA-256\0\0");
    let ok = authentication(0, b"");
    check(
        &[&offer, &ok],
        expect!["the target broke the protocol: authentication message 0, where AuthenticationSASLContinue is expected"],
    )
    .await;
    for (server_first, expected) in [
        (&b"r=other,s=AAAA,i=4096"[..], expect!["the target broke the protocol: SCRAM: invalid nonce"]),
        (b"", expect!["the target broke the protocol: SCRAM: unexpected EOF"]),
        (
            b"\xff",
            expect!["the target broke the protocol: SCRAM: invalid utf-8 sequence of 1 bytes from index 0"],
        ),
        (b"r=", expect!["the target broke the protocol: SCRAM: unexpected EOF"]),
    ] {
        check(&[&offer, &authentication(11, server_first)], expected).await;
    }
}

/// The client's nonce in its first SCRAM message.
fn nonce(stream: &mut StdStream) -> std::io::Result<String> {
    let mut header = [0; 5];
    stream.read_exact(&mut header)?;
    let mut body = vec![0; u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize - 4];
    stream.read_exact(&mut body)?;
    let body = String::from_utf8(body.split_off(14 + 4)).unwrap();
    Ok(body.split_once("r=").unwrap().1.to_owned())
}

async fn scram(iterations: &'static str, then: Vec<u8>) -> String {
    let result = against("?sslmode=disable", move |stream| {
        startup(stream)?;
        stream.write_all(&authentication(10, b"SCRAM-SHA-256\0\0"))?;
        let first = format!("r={}x,s=AAAA,i={iterations}", nonce(stream)?);
        stream.write_all(&authentication(11, first.as_bytes()))?;
        stream.write_all(&then)
    })
    .await;
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn scram_has_a_bound_on_its_work_and_ends_with_the_servers_proof() {
    for iterations in ["4294967295", "100001"] {
        expect!["the target broke the protocol: SCRAM: SCRAM iteration count exceeds the maximum allowed"]
            .assert_eq(&scram(iterations, Vec::new()).await);
    }
    expect!["the target broke the protocol: SCRAM: number too large to fit in target type"]
        .assert_eq(&scram("99999999999999999999", Vec::new()).await);
    let forged = authentication(12, b"v=AAAA");
    expect!["the target broke the protocol: SCRAM: SCRAM verification error"]
        .assert_eq(&scram("1", forged).await);
    expect![
        "the target broke the protocol: authentication message 0, where AuthenticationSASLFinal is expected"
    ]
    .assert_eq(&scram("1", authentication(0, b"")).await);
}

#[tokio::test]
async fn errors_are_passed_on_with_or_without_sqlstate() {
    let error = message(b'E', b"SFATAL\0C28P01\0Mno\0\0");
    check(&[&error], expect!["the target refused the login (28P01): no"]).await;
    check(&[&authentication(0, b""), &error], expect!["the target refused the login (28P01): no"]).await;
    check(
        &[&message(b'E', b"Mserver_login_failing\0\0")],
        expect!["the target refused the login (no SQLSTATE): server_login_failing"],
    )
    .await;
    check(
        &[&message(b'E', b"")],
        expect!["the target refused the login (no SQLSTATE): an error without a message"],
    )
    .await;
    check(&[&message(b'E', b"M\xffx\0\0")], expect![[r"the target refused the login (no SQLSTATE): \xffx"]])
        .await;
    let quoting = message(b'E', format!("C28P01\0Mwrong password {CREDENTIAL}\0\0").as_bytes());
    check(
        &[&quoting],
        expect![
            "the target refused the login (no SQLSTATE): its message quotes the credential and is withheld"
        ],
    )
    .await;
}

#[tokio::test]
async fn without_tls_nothing_is_sent_where_it_is_required() {
    for mode in ["require", "verify-ca", "verify-full"] {
        let result = against(&format!("?sslmode={mode}"), move |stream| {
            let mut request = [0; 8];
            stream.read_exact(&mut request)?;
            assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47]);
            stream.write_all(b"N")?;
            let mut more = [0; 1];
            assert_eq!(stream.read(&mut more)?, 0, "{mode:?}: something followed");
            Ok(())
        })
        .await;
        assert!(matches!(result, Err(TargetError::NoTls)), "{result:?}");
    }
}

#[tokio::test]
async fn bytes_in_clear_before_tls_do_not_count() {
    // What an attacker would have the gateway believe to be the encrypted server's.
    let injected = [authentication(0, b""), message(b'Z', b"I")].concat();
    let result = against("?sslmode=require", move |stream| {
        let mut request = [0; 8];
        stream.read_exact(&mut request)?;
        stream.write_all(&[b"S", &injected[..]].concat())
    })
    .await;
    assert!(matches!(result, Err(TargetError::Tls { .. })), "{result:?}");
    let result = against("?sslmode=require", |stream| {
        let mut request = [0; 8];
        stream.read_exact(&mut request)?;
        stream.write_all(b"EFATAL: lies\0")
    })
    .await;
    expect!["the target broke the protocol: it answered SSLRequest with byte 0x45"]
        .assert_eq(&result.unwrap_err().to_string());
}

#[tokio::test]
async fn a_silent_server_is_left_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut target = target(listener.local_addr().unwrap().port(), "?sslmode=disable");
    target.connect_timeout = Duration::from_millis(20);
    let error = target.connect(&[], 0).await.unwrap_err();
    assert!(matches!(error, TargetError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn the_clients_parameters_are_passed_except_who_and_where() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = target(listener.local_addr().unwrap().port(), "");
    let server = std::thread::spawn(move || startup(&mut listener.accept().unwrap().0).unwrap());
    let given = parameters(&[
        ("user", "mallory"),
        ("database", "billing"),
        ("replication", "database"),
        ("_pq_.command_progress", "1"),
        ("application_name", "agent"),
        ("options", "-c x=y"),
        ("client_encoding", ""),
    ]);
    target.connect(&given, 7).await.unwrap_err();
    expect![[r"\x00\x03\x00\x02user\x00app\x00database\x00postgres\x00application_name\x00agent\x00options\x00-c x=y\x00client_encoding\x00\x00\x00"]]
        .assert_eq(&server.join().unwrap().escape_ascii().to_string());
}

#[test]
fn parameters_that_would_smuggle_others_are_refused() {
    for pair in [("", "x"), ("a\0user", "root"), ("a", "x\0user\0root")] {
        let message = login::startup_message(&target(1, ""), &parameters(&[pair]), 0);
        assert!(message.is_err(), "{pair:?}");
    }
}
