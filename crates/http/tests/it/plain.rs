//! What becomes of a request on its way to the target, and of the answer on its way back.

use std::sync::Arc;

use axum::body::Body;
use expect_test::expect;
use hyper::body::Frame;
use verbatim_core::RecordMode;
use verbatim_testkit::http::Response;

use crate::support::{Gateway, Given, Setup, own, request};

#[tokio::test]
async fn a_request_is_recorded_and_durable_before_the_target_sees_it() {
    let gateway = Gateway::new().await;
    let mut client = gateway.dial().await;
    let answer = client.ask("GET /api/a/b?c=%20d HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer t0ken\r\nUser-Agent: it/1\r\nX-Case: Kept\r\n\r\n").await;
    assert_eq!(answer.status(), 200);
    expect![[r#"
        stream 1
        authorization: Bearer own
        host: TARGET
        user-agent: it/1
        x-case: Kept
    "#]]
    .assert_eq(&answer.body.replace(&gateway.origin.address().to_string(), "TARGET"));
    client.finish().await;
    expect![[r#"
        login with 5 bytes: api as - by it/1
        1 request "GET /api/a/b?c=%20d" request={\"method\":\"GET\",\"target\":\"/api/a/b?c=%20d\",\"headers\":[{\"name\":\"Host\",\"value\":\"gw\"},{\"name\":\"Authorization\",\"value\":\"[redacted, 12 bytes]\"},{\"name\":\"User-Agent\",\"value\":\"it/1\"},{\"name\":\"X-Case\",\"value\":\"Kept\"}],\"body\":null}
        1 durable
        target GET /a/b?c=%20d
        1 ok bytes=87 response={\"status\":200,\"headers\":[{\"name\":\"content-length\",\"value\":\"87\"},{\"name\":\"date\",\"value\":\"DATE\"}]}
        closed client
    "#]]
    .assert_eq(&masked(&gateway));
}

/// The log with dates and varying lengths blotted out.
fn masked(gateway: &Gateway) -> String {
    let log = gateway.gate.log().replace(&gateway.origin.address().to_string(), "TARGET");
    let mut out = String::new();
    let mut rest = log.as_str();
    let key = "{\\\"name\\\":\\\"date\\\",\\\"value\\\":\\\"";
    while let Some((before, after)) = rest.split_once(key) {
        out.push_str(before);
        out.push_str(key);
        out.push_str("DATE");
        rest = after.split_once('\\').map(|(date, _)| after.strip_prefix(date).unwrap()).unwrap();
    }
    out.push_str(rest);
    out
}

#[tokio::test]
async fn a_body_of_known_length_stands_in_the_operation_and_a_stream_is_recorded_in_chunks() {
    let gateway = Gateway::new().await;
    let mut client = gateway.dial().await;
    let answer = client.ask(&request("POST /api/echo", "t", "hello")).await;
    assert_eq!(answer.body, "hello");
    client
        .send("POST /api/echo HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer t\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nfirst\r\n")
        .await;
    gateway.logged("2 content").await;
    client.send("7\r\n second\r\n0\r\nX-Sum: 12\r\n\r\n").await;
    assert_eq!(client.answer(false).await.body, "first second");
    client.finish().await;
    let lines = gateway.gate.lines("2 ");
    expect![[r#"
        2 content "first"
        2 content " second"
        2 content "x-sum: 12\\r\\n"
    "#]]
    .assert_eq(
        &lines
            .iter()
            .filter(|line| line.contains(" content "))
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    );
    let outcome = gateway.gate.lines("2 ok").pop().unwrap();
    assert!(outcome.contains("bytes=12 content=23"), "{outcome}");
    assert!(
        gateway.gate.lines("1 request")[0].contains(r#"\"body\":{\"type\":\"unknown\",\"value\":\"hello\"}"#)
    );
    // Each piece is durable before the target has it all.
    let log = gateway.gate.log();
    assert!(log.find("1 durable").unwrap() < log.find("target POST").unwrap());
}

#[tokio::test]
async fn nothing_of_a_stream_goes_on_before_it_is_durable() {
    let gateway = Gateway::new().await;
    let mut client = gateway.dial().await;
    gateway.gate.durable_to(0);
    client.send(request("POST /api/echo", "t", "hello")).await;
    gateway.gate.somebody_waits().await;
    assert!(gateway.gate.lines("target").is_empty());
    gateway.gate.durable_to(u64::MAX);
    assert_eq!(client.answer(false).await.status(), 200);
    client.finish().await;
}

#[tokio::test]
async fn statuses_of_400_and_more_are_errors_and_a_problem_has_its_title() {
    let gateway = Gateway::new().await;
    let mut client = gateway.dial().await;
    for (path, status, outcome) in [
        ("/api/status/404", 404, "1 error bytes=3 404 Not Found"),
        ("/api/status/503", 503, "2 error bytes=3 503 Service Unavailable"),
        ("/api/problem", 409, "3 error bytes=40 409 No such account"),
        ("/api/status/304", 304, "4 ok bytes=0"),
        ("/api/status/204", 204, "5 ok bytes=0"),
    ] {
        let answer = client.ask(&request(&format!("GET {path}"), "t", "")).await;
        assert_eq!(answer.status(), status);
        let found = gateway.gate.lines(outcome);
        assert_eq!(found.len(), 1, "{outcome}\n{}", gateway.gate.log());
    }
    let answer = client.ask(&request("HEAD /api/echo2", "t", "")).await;
    assert_eq!((answer.status(), answer.body.as_str()), (200, ""));
    assert!(answer.header("content-length").is_some());
    client.finish().await;
}

#[tokio::test]
async fn connections_are_found_by_own_listener_host_and_first_segment() {
    let owned = Gateway::with(Setup { change: own, path: "/v1", ..Setup::default() }).await;
    assert_eq!(owned.once(&request("GET /a?b", "t", "")).await.status(), 200);
    assert_eq!(owned.gate.lines("target"), ["target GET /v1/a?b"]);
    let options = Given { hosts: Some("api.example"), ..Given::default() };
    let hosts = Gateway::with(Setup { options, ..Setup::default() }).await;
    let asked = request("GET /a", "t", "").replace("Host: gw", "Host: API.example:8443");
    assert_eq!(hosts.once(&asked).await.status(), 200);
    assert_eq!(hosts.once(&request("GET /api/b", "t", "")).await.status(), 200);
    assert_eq!(hosts.gate.lines("target"), ["target GET /a", "target GET /b"]);
    // What is under another name is another connection, which is answered like one without access.
    hosts
        .gate
        .refuse_login
        .lock()
        .replace(verbatim_core::Refusal::NotAllowed { code: "no_group", reason: String::new() });
    let answer = hosts.once(&request("GET /other/b", "t", "")).await;
    assert_eq!((answer.status(), answer.header("content-type")), (403, Some("application/problem+json")));
    assert_eq!(hosts.gate.lines("login refused"), ["login refused no_group: other as - by -"]);
}

#[tokio::test]
async fn a_client_without_a_token_learns_where_to_get_one() {
    let gateway = Gateway::new().await;
    let answer = gateway.once("GET /api/mcp HTTP/1.1\r\nHost: gw\r\n\r\n").await;
    assert_eq!(answer.status(), 401);
    assert_eq!(
        answer.header("www-authenticate"),
        Some("Bearer resource_metadata=\"http://gw/.well-known/oauth-protected-resource/api/mcp\"")
    );
    let document =
        gateway.once("GET /.well-known/oauth-protected-resource/api/mcp HTTP/1.1\r\nHost: gw\r\n\r\n").await;
    expect![[r#"{"resource":"http://gw/api/mcp","authorization_servers":["https://login.example"],"scopes_supported":["api://verbatim/connect"],"bearer_methods_supported":["header"]}"#]]
        .assert_eq(&document.body);
    assert_eq!(gateway.once("GET /.well-known/x HTTP/1.1\r\nHost: gw\r\n\r\n").await.status(), 404);
    assert_eq!(gateway.gate.log(), "", "nothing was claimed");
}

#[tokio::test]
async fn the_credential_is_put_in_as_configured() {
    for (how, credential, field) in
        [("basic", "ada:pw", "authorization: Basic YWRhOnB3"), ("header:X-Key", "k", "x-key: k")]
    {
        let options = Given { credential_as: Some(how), ..Given::default() };
        let gateway =
            Gateway::with(Setup { options, credential: Some(credential), ..Setup::default() }).await;
        let asked = request("GET /api/", "t", "").replace("\r\n\r\n", "\r\nX-Key: the client's\r\n\r\n");
        let answer = gateway.once(&asked).await;
        assert!(answer.body.contains(field), "{}", answer.body);
        assert!(!answer.body.contains("Bearer"), "{}", answer.body);
    }
    let gateway = Gateway::with(Setup { credential: None, ..Setup::default() }).await;
    assert!(!gateway.once(&request("GET /api/", "t", "")).await.body.contains("authorization"));
}

#[tokio::test]
async fn redirections_lead_back_and_trace_ids_are_recorded() {
    let gateway = Gateway::new().await;
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n";
    let answer =
        gateway.once(&request("GET /api/moved", "t", "").replace("\r\n\r\n", &format!("\r\n{trace}"))).await;
    assert_eq!(answer.header("location"), Some("/api/elsewhere?x"));
    let intent = gateway.gate.lines("1 request").pop().unwrap();
    assert!(intent.ends_with("trace=4bf92f3577b34da6a3ce929d0e0e4736"), "{intent}");
}

#[tokio::test]
async fn what_is_expected_is_answered_by_the_gateway() {
    let gateway = Gateway::new().await;
    let mut client = gateway.dial().await;
    client
        .send("POST /api/echo HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer t\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello").await;
    assert_eq!(client.answer(false).await.body, "hello");
    client.finish().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let gateway = Gateway::new().await;
    let mut client = gateway.dial().await;
    let three =
        ["/api/a", "/api/status/404", "/api/b"].map(|path| request(&format!("GET {path}"), "t", "")).concat();
    client.send(three).await;
    for status in [200, 404, 200] {
        assert_eq!(client.answer(false).await.status(), status);
    }
    client.finish().await;
    assert_eq!(gateway.gate.lines("target"), ["target GET /a", "target GET /status/404", "target GET /b"]);
    assert_eq!(gateway.gate.lines("login").len(), 1);
}

#[tokio::test]
async fn a_target_that_is_away_is_an_outcome() {
    // A port that nobody listens on, of an address that only this machine has.
    let gateway = Gateway::with(Setup { elsewhere: Some("127.0.0.1:1"), ..Setup::default() }).await;
    let mut client = gateway.dial().await;
    for body in ["", "x"] {
        let answer = client.ask(&request("POST /api/a", "t", body)).await;
        assert_eq!((answer.status(), answer.header("content-type")), (502, Some("application/problem+json")));
    }
    client.finish().await;
    assert!(gateway.gate.lines("1 error")[0].starts_with("1 error 502 the target cannot be reached"));
    assert_eq!(gateway.gate.lines("closed"), ["closed client"]);
}

#[tokio::test]
async fn results_are_recorded_where_that_is_asked_and_trailers_pass() {
    let handler: verbatim_testkit::http::Handler = Arc::new(|_, _| {
        Box::pin(async {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let frames = [
                Frame::data(bytes::Bytes::from_static(b"some ")),
                Frame::data("rows".into()),
                Frame::trailers(trailers),
            ];
            let stream = http_body_util::StreamBody::new(futures_util::stream::iter(
                frames.map(Ok::<_, std::convert::Infallible>),
            ));
            let mut response = Response::new(Body::new(stream));
            response.headers_mut().insert("trailer", "grpc-status".parse().unwrap());
            response
        })
    });
    let gateway = Gateway::with(Setup { handler, record: RecordMode::Results, ..Setup::default() }).await;
    let asked = request("GET /api/", "t", "").replace("\r\n\r\n", "\r\nTE: trailers\r\n\r\n");
    let answer = gateway.once(&asked).await;
    assert_eq!(answer.body, "some rowsgrpc-status: 0\r\n");
    let result: String = gateway.gate.lines("1 result").concat().replace("1 result ", "").replace('"', "");
    assert_eq!(result, "some rows");
}

#[tokio::test]
async fn large_bodies_go_through_in_pieces_both_ways() {
    let gateway = Gateway::new().await;
    let mut client = gateway.dial().await;
    let body = "0123456789abcdef".repeat(64 << 10);
    let answer = client.ask(&request("POST /api/echo", "t", &body)).await;
    assert!(answer.body == body);
    client.finish().await;
    let outcome = gateway.gate.lines("1 ok").pop().unwrap();
    assert!(outcome.contains("bytes=1048576 content=1048576"), "{outcome}");
    assert!(gateway.gate.lines("1 content").len() > 1);
}
