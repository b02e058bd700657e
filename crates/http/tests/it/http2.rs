//! HTTP/2, with prior knowledge.

use std::sync::Arc;

use axum::body::Body;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::support::{Gateway, Setup};

type Sender = hyper::client::conn::http2::SendRequest<Body>;

async fn connect(gateway: &Gateway) -> (Sender, tokio::task::JoinHandle<()>) {
    let (stream, task) = gateway.stream().await;
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, stream) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(stream);
    (sender, task)
}

fn ask(method: &str, path: &str, token: &str, body: &str) -> http::Request<Body> {
    http::Request::builder()
        .method(method)
        .uri(format!("http://gw{path}"))
        .header("authorization", format!("Bearer {token}"))
        .body(Body::from(body.to_owned()))
        .unwrap()
}

async fn text(response: http::Response<hyper::body::Incoming>) -> String {
    let body = axum::body::to_bytes(Body::new(response.into_body()), usize::MAX).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn concurrent_requests_are_one_session() {
    let gateway = Gateway::new().await;
    let (sender, task) = connect(&gateway).await;
    let mut asked = Vec::new();
    for number in 0..20 {
        let mut sender = sender.clone();
        asked.push(tokio::spawn(async move {
            text(sender.send_request(ask("POST", "/api/echo", "t", &format!("{number}"))).await.unwrap())
                .await
        }));
    }
    for (number, answer) in asked.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap(), number.to_string());
    }
    drop(sender);
    task.await.unwrap();
    assert_eq!(gateway.gate.lines("login").len(), 1);
    assert_eq!(gateway.gate.lines("target").len(), 20);
    assert_eq!(gateway.gate.lines("closed"), ["closed client"]);
}

#[tokio::test]
async fn a_request_is_recorded_as_by_http1() {
    let gateway = Gateway::new().await;
    let (mut sender, task) = connect(&gateway).await;
    let answer = sender.send_request(ask("PUT", "/api/echo?a=%41", "t", "hello")).await.unwrap();
    assert_eq!(text(answer).await, "hello");
    let answer = sender.send_request(ask("GET", "/api/%2e%2e/x", "t", "")).await.unwrap();
    assert_eq!(answer.status(), 400);
    drop((answer, sender));
    task.await.unwrap();
    let intent = &gateway.gate.lines("1 request")[0];
    assert!(intent.starts_with("1 request \"PUT /api/echo?a=%41\" request={"), "{intent}");
    assert!(intent.contains(r#"\"body\":{\"type\":\"unknown\",\"value\":\"hello\"}"#), "{intent}");
    assert!(gateway.gate.lines("2 request")[0].ends_with("refused protocol"));
    assert_eq!(gateway.gate.lines("target"), ["target PUT /echo?a=%41"]);
}

#[tokio::test]
async fn hosts_that_disagree_are_refused() {
    let gateway = Gateway::new().await;
    let (mut sender, task) = connect(&gateway).await;
    let mut request = ask("GET", "/api/", "t", "");
    request.headers_mut().insert("host", "other".parse().unwrap());
    assert_eq!(sender.send_request(request).await.unwrap().status(), 400);
    drop(sender);
    task.await.unwrap();
    assert!(gateway.gate.lines("target").is_empty());
}

#[tokio::test]
async fn grpc_is_http2_on_both_sides() {
    let handler: verbatim_testkit::http::Handler = Arc::new(|request, _| {
        Box::pin(async move {
            let version = format!("{:?} {}", request.version(), request.uri());
            let body = verbatim_testkit::http::body(request).await.unwrap();
            axum::http::Response::new(Body::from(format!("{version} {}", body.len())))
        })
    });
    let gateway = Gateway::with(Setup { handler, http2: true, ..Setup::default() }).await;
    let (mut sender, task) = connect(&gateway).await;
    let mut request = ask("POST", "/api/pkg.Service/Method", "t", "12345");
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let answer = text(sender.send_request(request).await.unwrap()).await;
    assert_eq!(answer, format!("HTTP/2.0 http://{}/pkg.Service/Method 5", gateway.origin.address()));
    drop(sender);
    task.await.unwrap();
}
