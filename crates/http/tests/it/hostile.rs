//! What no client should send.

use verbatim_core::Refusal;

use crate::support::{Gateway, Setup, own, request};

/// A POST with a token and these fields.
fn post(fields: &str) -> String {
    format!("POST /api/echo HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer t0ken\r\n{fields}")
}

/// A smuggled request, which must never be read as one.
const INNER: &str = "GET /api/smuggled HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer t0ken\r\n\r\n";

#[tokio::test]
async fn ambiguous_framing_is_400_and_close_and_recorded() {
    let heads = [
        ("CL and TE", post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("TE and CL", post("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n")),
        (
            "TE in HTTP/1.0",
            post("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0"),
        ),
        ("chunked, identity", post("Transfer-Encoding: chunked, identity\r\n\r\n")),
        ("identity, chunked", post("Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n")),
        ("two TE", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("two CL", post("Content-Length: 0\r\nContent-Length: 0\r\n\r\n")),
        ("CL +5", post("Content-Length: +5\r\n\r\nhello")),
        ("bare LF", post("X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("bare LF before the body", post("Content-Length: 0\r\n\n")),
        ("bare CR", post("X: y\rZ: z\r\n\r\n")),
        ("space before colon", post("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n")),
        ("obs-fold", post("X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("NUL", post("X: y\0\r\n\r\n")),
        ("two hosts", post("Host: other\r\n\r\n")),
        ("absolute form of another host", post("\r\n").replace("POST /api", "POST http://other/api")),
        ("a host that is none", post("\r\n").replace("Host: gw", "Host: gw/../x")),
        ("a fragment", post("\r\n").replace("/api/echo", "/api/echo#x")),
        ("two spaces", post("\r\n").replace("POST /api", "POST  /api")),
        ("dot segments", post("\r\n").replace("/api/echo", "/api/../other/echo")),
        ("encoded dot segments", post("\r\n").replace("/api/echo", "/api/%2e%2E/other")),
        ("dot segments with a parameter", post("\r\n").replace("/api/echo", "/api/..;/other")),
    ];
    for (name, head) in heads {
        let gateway = Gateway::new().await;
        let mut client = gateway.dial().await;
        client.send(format!("{head}{INNER}")).await;
        let answer = client.answer(false).await;
        assert_eq!(answer.status(), 400, "{name}");
        assert_eq!(answer.header("connection"), Some("close"), "{name}");
        client.end().await;
        let log = gateway.gate.log();
        assert!(!log.contains("target"), "{name}: {log}");
        assert!(log.starts_with("login refused protocol"), "{name}: {log}");
        assert!(!log.contains("t0ken"), "{name}: {log}");
    }
}

#[tokio::test]
async fn in_an_open_session_the_bytes_are_recorded_without_their_credentials() {
    let gateway = Gateway::new().await;
    let mut client = gateway.dial().await;
    assert_eq!(client.ask(&request("GET /api/x", "t0ken", "")).await.status(), 200);
    client.send(post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")).await;
    assert_eq!(client.answer(false).await.status(), 400);
    client.end().await;
    let refused = gateway.gate.lines("2 request").pop().unwrap();
    assert!(refused.ends_with("refused protocol") && refused.contains("Content-Length: 6"), "{refused}");
    assert!(refused.contains("[redacted, 12 bytes]") && !refused.contains("t0ken"), "{refused}");
    assert_eq!(gateway.gate.lines("target").len(), 1);
}

#[tokio::test]
async fn a_bad_head_behind_a_good_request_does_not_disturb_its_answer() {
    let gateway = Gateway::new().await;
    let mut client = gateway.dial().await;
    client.send(format!("{}{}", request("GET /api/x", "t", ""), "GET / HTTP/1.1\nHost: gw\n\n")).await;
    assert_eq!(client.answer(false).await.status(), 200);
    assert_eq!(client.answer(false).await.status(), 400);
    client.end().await;
}

#[tokio::test]
async fn bad_chunks_reach_no_target_as_a_whole_request() {
    for chunks in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
    ] {
        let gateway = Gateway::new().await;
        let mut client = gateway.dial().await;
        client.send(post(&format!("Transfer-Encoding: chunked\r\n\r\n{chunks}{INNER}"))).await;
        let answer = client.answer(false).await;
        assert_eq!(answer.status(), 400, "{chunks:?}");
        client.end().await;
        let log = gateway.gate.log();
        assert!(!log.contains("smuggled"), "{log}");
        assert!(log.contains("1 error 400") || log.contains("1 aborted"), "{log}");
    }
}

#[tokio::test]
async fn a_body_that_is_a_request_is_a_body() {
    let gateway = Gateway::new().await;
    let mut client = gateway.dial().await;
    assert_eq!(client.ask(&request("POST /api/echo", "t", INNER)).await.body, INNER);
    client.finish().await;
    assert_eq!(gateway.gate.lines("target").len(), 1);
}

#[tokio::test]
async fn connect_and_trace_are_refused() {
    let gateway = Gateway::with(Setup { change: own, ..Setup::default() }).await;
    let mut client = gateway.dial().await;
    assert_eq!(client.ask(&request("TRACE /x", "t", "")).await.status(), 501);
    assert_eq!(client.ask(&request("CONNECT gw:443", "t", "")).await.status(), 400);
    client.end().await;
    assert!(gateway.gate.lines("1 request")[0].ends_with("refused unsupported"));
    assert!(gateway.gate.lines("target").is_empty());
}

#[tokio::test]
async fn heads_and_bodies_have_limits() {
    let gateway =
        Gateway::with(Setup { change: |listener| listener.limits.message_bytes = 100, ..Setup::default() })
            .await;
    let answer = gateway.once(&request("POST /api/echo", "t", &"x".repeat(101))).await;
    assert_eq!(answer.status(), 413);
    assert!(gateway.gate.lines("1 request")[0].ends_with("refused too_large"));
    let chunk = format!("Transfer-Encoding: chunked\r\n\r\n65\r\n{}\r\n0\r\n\r\n", "x".repeat(0x65));
    assert_eq!(gateway.once(&post(&chunk)).await.status(), 413);
    let long = post(&format!("X: {}\r\n\r\n", "y".repeat(90_000)));
    let mut client = gateway.dial().await;
    client.send(long).await;
    assert_eq!(client.answer(false).await.status(), 431);
    client.finish().await;
    let many = post(&format!("{}\r\n", "X: y\r\n".repeat(300)));
    assert_eq!(gateway.once(&many).await.status(), 400);
}

#[tokio::test]
async fn bytes_behind_a_request_that_asks_for_an_upgrade_are_refused() {
    let gateway = Gateway::new().await;
    let mut client = gateway.dial().await;
    let upgrade = request("GET /api/ws", "t", "")
        .replace("\r\n\r\n", "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    client.send(format!("{upgrade}{INNER}")).await;
    assert_eq!(client.answer(false).await.status(), 400);
    client.finish().await;
    assert!(gateway.gate.lines("target").is_empty());
}

#[tokio::test]
async fn a_token_in_clear_where_tls_is_configured_is_refused() {
    let gateway = Gateway::with(Setup {
        change: |listener| {
            listener.loopback = false;
            listener.tls = Some(std::sync::Arc::new(|| unreachable!("no client speaks TLS here")));
        },
        ..Setup::default()
    })
    .await;
    assert_eq!(gateway.once(&request("GET /api/", "t", "")).await.status(), 400);
    assert_eq!(gateway.gate.lines("login refused").len(), 1);
}

#[tokio::test]
async fn junk_is_counted_and_not_recorded() {
    let gateway = Gateway::new().await;
    for junk in ["\x16\x03\x01\x02\x00\x01", "EHLO x\r\n", "*1\r\n$4\r\nPING\r\n", "\r\n\r\n\r\n"] {
        let mut client = gateway.dial().await;
        client.send(junk).await;
        client.finish().await;
    }
    assert_eq!(gateway.gate.log(), "");
    gateway.gate.judge(|_| Some(Refusal::Draining));
    assert_eq!(gateway.once(&request("GET /api/", "t", "")).await.status(), 503);
}
