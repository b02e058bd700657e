//! Tokens, renewals, other identities, and the ends of sessions.

use std::time::Duration;

use verbatim_core::{CloseReason, Refusal};

use crate::support::{Gateway, Setup, request};

#[tokio::test]
async fn a_stream_is_one_session_and_another_token_of_the_same_identity_renews_it() {
    let gateway = Gateway::new().await;
    let mut client = gateway.dial().await;
    for token in ["first", "first", "second", "first", "second"] {
        assert_eq!(client.ask(&request("GET /api/", token, "")).await.status(), 200);
    }
    client.finish().await;
    assert_eq!(gateway.gate.lines("login").len(), 1);
    assert_eq!(gateway.gate.lines("renewed").len(), 1, "both tokens are known from then on");
    assert_eq!(gateway.gate.lines("closed"), ["closed client"]);
    // The target's stream is used again.
    assert_eq!(gateway.gate.lines("5 ok").len(), 1);
}

#[tokio::test]
async fn another_identity_on_the_same_stream_is_another_session_with_a_target_stream_of_its_own() {
    let gateway = Gateway::new().await;
    let mut client = gateway.dial().await;
    let stream_of = |body: &str| body.lines().next().unwrap().to_owned();
    let one = client.ask(&request("GET /api/", "ada", "")).await;
    let another = Refusal::NotAuthenticated { code: "identity", reason: "another".into() };
    gateway.gate.refuse_renewal.lock().replace(another);
    let two = client.ask(&request("GET /api/", "bob's", "")).await;
    let three = client.ask(&request("GET /api/", "ada", "")).await;
    assert_eq!(stream_of(&one.body), "stream 1");
    assert_eq!(stream_of(&two.body), "stream 2");
    assert_eq!(stream_of(&three.body), "stream 1");
    client.finish().await;
    assert_eq!(gateway.gate.lines("login").len(), 2);
    assert_eq!(gateway.gate.lines("closed").len(), 2);
}

#[tokio::test]
async fn a_refused_token_is_401_and_the_stream_stays() {
    let gateway = Gateway::new().await;
    let refusal = Refusal::NotAuthenticated { code: "signature", reason: "secret".into() };
    gateway.gate.refuse_login.lock().replace(refusal);
    let mut client = gateway.dial().await;
    let answer = client.ask(&request("GET /api/", "bad", "")).await;
    assert_eq!(answer.status(), 401);
    assert!(
        answer
            .header("www-authenticate")
            .unwrap()
            .starts_with("Bearer error=\"invalid_token\", resource_metadata=")
    );
    assert!(answer.body.contains("The reason is in the record of session"), "{}", answer.body);
    assert!(!answer.body.contains("secret"));
    gateway.gate.refuse_login.lock().take();
    assert_eq!(client.ask(&request("GET /api/", "good", "")).await.status(), 200);
    client.finish().await;
}

#[tokio::test]
async fn other_schemes_and_several_tokens_are_refused_logins() {
    let gateway = Gateway::new().await;
    let asked = |field: &str| format!("GET /api/ HTTP/1.1\r\nHost: gw\r\n{field}\r\n\r\n");
    assert_eq!(gateway.once(&asked("Authorization: Basic YTpi")).await.status(), 401);
    assert_eq!(gateway.once(&asked("Authorization: Bearer")).await.status(), 401);
    assert_eq!(
        gateway.once(&asked("Authorization: Bearer a\r\nAuthorization: Bearer b")).await.status(),
        400
    );
    let long = format!("Authorization: Bearer {}", "a".repeat(65_536));
    assert_eq!(gateway.once(&asked(&long)).await.status(), 401);
    // No token is taken from anywhere else.
    assert_eq!(gateway.once("GET /api/?access_token=t HTTP/1.1\r\nHost: gw\r\n\r\n").await.status(), 401);
    let refused = gateway.gate.lines("login refused");
    let codes: Vec<_> = refused.iter().map(|line| line.split([' ', ':']).nth(2).unwrap()).collect();
    assert_eq!(codes, ["scheme", "malformed", "protocol", "malformed"]);
}

#[tokio::test]
async fn a_refused_request_leaves_the_session_open() {
    let gateway = Gateway::new().await;
    gateway.gate.judge(|operation| {
        let delete = operation.text.as_ref().is_some_and(|text| text.starts_with(b"DELETE"));
        delete.then(|| Refusal::NotAllowed { code: "rule", reason: "no".into() })
    });
    let mut client = gateway.dial().await;
    assert_eq!(client.ask(&request("DELETE /api/x", "t", "")).await.status(), 403);
    assert_eq!(client.ask(&request("GET /api/x", "t", "")).await.status(), 200);
    client.finish().await;
    assert_eq!(gateway.gate.lines("target"), ["target GET /x"]);
    assert_eq!(gateway.gate.lines("1 request").len(), 1);
}

#[tokio::test]
async fn a_record_that_takes_nothing_is_503_and_nothing_is_forwarded() {
    let gateway = Gateway::new().await;
    gateway.gate.judge(|_| Some(Refusal::NotRecorded { reason: "full".into() }));
    let answer = gateway.once(&request("GET /api/x", "t", "")).await;
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("5")));
    assert!(gateway.gate.lines("target").is_empty());
}

#[tokio::test]
async fn a_drain_ends_an_idle_stream() {
    let gateway = Gateway::new().await;
    let mut client = gateway.dial().await;
    assert_eq!(client.ask(&request("GET /api/x", "t", "")).await.status(), 200);
    gateway.gate.end(CloseReason::Drained);
    client.end().await;
    assert_eq!(gateway.gate.lines("closed"), ["closed drained"]);
}

#[tokio::test]
async fn an_expired_session_is_closed_and_the_next_request_logs_in_anew() {
    let gateway = Gateway::new().await;
    let mut client = gateway.dial().await;
    assert_eq!(client.ask(&request("GET /api/x", "t", "")).await.status(), 200);
    gateway.gate.end(CloseReason::Expired);
    gateway.logged("closed expired").await;
    let refusal = Refusal::NotAuthenticated { code: "expired", reason: String::new() };
    gateway.gate.refuse_login.lock().replace(refusal);
    assert_eq!(client.ask(&request("GET /api/x", "t", "")).await.status(), 401);
    client.finish().await;
    assert_eq!(gateway.gate.lines("closed"), ["closed expired"]);
}

#[tokio::test]
async fn streams_that_say_nothing_or_idle_too_long_end() {
    let gateway = Gateway::with(Setup {
        change: |listener| listener.limits.login = Duration::from_millis(50),
        ..Setup::default()
    })
    .await;
    gateway.dial().await.end().await;
    let mut half = gateway.dial().await;
    half.send("GET / HTTP/1.1\r\nHost: ").await;
    // Told or not, for both limits are reached: the stream ends.
    while !half.line().await.is_empty() {}
    half.finish().await;
    assert!(gateway.counts.junk() >= 2);
    let gateway = Gateway::with(Setup {
        change: |listener| listener.limits.idle = Some(Duration::from_millis(50)),
        ..Setup::default()
    })
    .await;
    let mut client = gateway.dial().await;
    assert_eq!(client.ask(&request("GET /api/x", "t", "")).await.status(), 200);
    client.end().await;
    assert_eq!(gateway.gate.lines("closed"), ["closed idle"]);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_leaves_an_operation_without_one() {
    let handler: verbatim_testkit::http::Handler =
        std::sync::Arc::new(|_, _| Box::pin(std::future::pending()));
    let gateway = Gateway::with(Setup { handler, ..Setup::default() }).await;
    let mut client = gateway.dial().await;
    client.send(request("GET /api/slow", "t", "")).await;
    gateway.logged("target").await;
    client.finish().await;
    gateway.logged("closed").await;
    assert_eq!(gateway.gate.lines("1 aborted").len(), 1);
}
