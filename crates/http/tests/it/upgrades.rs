//! Streams that speak another protocol after a 101.

use std::sync::Arc;

use axum::body::Body;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use verbatim_core::Refusal;
use verbatim_testkit::http::{Handler, Response};

use crate::support::{Client, Gateway, Setup, request};

/// Switches to what was asked for, and sends back what comes.
fn switching() -> Handler {
    Arc::new(|mut request, _| {
        Box::pin(async move {
            let upgrade = request.headers().get("upgrade").cloned();
            let extensions = request.headers().contains_key("sec-websocket-extensions");
            let Some(upgrade) = upgrade.filter(|_| !extensions) else {
                return Response::new(Body::from("no upgrade"));
            };
            let on = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(on.await.unwrap());
                let mut bytes = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                    stream.write_all(&bytes[..read]).await.unwrap();
                }
            });
            let mut response = Response::new(Body::empty());
            *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("connection", "upgrade".parse().unwrap());
            response.headers_mut().insert("upgrade", upgrade);
            response
        })
    })
}

async fn upgraded(gateway: &Gateway, protocol: &str) -> Client {
    let mut client = gateway.dial().await;
    let fields = format!(
        "\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    );
    client.send(request("GET /api/ws", "t", "").replace("\r\n\r\n", &fields)).await;
    let answer = client.answer(false).await;
    assert_eq!((answer.status(), answer.header("upgrade")), (101, Some(protocol)));
    client
}

/// A client's frame, whose mask is zero so that the payload shows.
fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![opcode | if fin { 0x80 } else { 0 }];
    if payload.len() < 126 {
        out.push(0x80 | payload.len() as u8);
    } else {
        out.push(0xff);
        out.extend((payload.len() as u64).to_be_bytes());
    }
    out.extend([0; 4]);
    out.extend(payload);
    out
}

#[tokio::test]
async fn each_websocket_message_is_recorded_before_it_goes_on() {
    let gateway = Gateway::with(Setup { handler: switching(), ..Setup::default() }).await;
    let mut client = upgraded(&gateway, "websocket").await;
    let large = vec![b'x'; 100_000];
    let frames = [
        frame(true, 1, b"hello"),
        frame(true, 9, b"ping"),
        frame(false, 1, b"in "),
        frame(true, 0, b"pieces"),
        frame(true, 2, &large),
    ]
    .concat();
    client.send(&frames).await;
    assert!(client.read(frames.len()).await == frames, "the target got the bytes as they came");
    client.finish().await;
    gateway.logged("closed").await;
    assert_eq!(gateway.gate.lines("2 message"), ["2 message \"hello\""]);
    assert_eq!(gateway.gate.lines("3 content"), ["3 content \"in \"", "3 content \"pieces\""]);
    assert_eq!(gateway.gate.lines("3 ok"), ["3 ok content=9"]);
    assert_eq!(gateway.gate.lines("4 ok"), ["4 ok content=100000"]);
    assert!(gateway.gate.lines("1 ok")[0].starts_with(&format!("1 ok bytes={} response={{", frames.len())));
    assert_eq!(gateway.gate.lines("closed"), ["closed client"]);
}

#[tokio::test]
async fn a_refused_message_closes_the_socket_and_never_arrives() {
    let gateway = Gateway::with(Setup { handler: switching(), ..Setup::default() }).await;
    gateway.gate.judge(|operation| {
        let drop = operation.text.as_ref().is_some_and(|text| text.starts_with(b"drop"));
        drop.then(|| Refusal::NotAllowed { code: "rule", reason: String::new() })
    });
    let mut client = upgraded(&gateway, "websocket").await;
    client.send(frame(true, 1, b"keep")).await;
    assert_eq!(client.read(10).await[6..], *b"keep");
    client.send(frame(true, 1, b"drop it")).await;
    assert_eq!(client.read(4).await, b"\x88\x18\x03\xf0");
    client.read(22).await;
    client.end().await;
}

#[tokio::test]
async fn frames_that_cannot_be_read_are_recorded_and_refused() {
    let gateway = Gateway::with(Setup { handler: switching(), ..Setup::default() }).await;
    let mut client = upgraded(&gateway, "websocket").await;
    client.send(b"\x81\x05hello").await;
    assert_eq!(client.read(4).await[..2], *b"\x88\x14");
    client.read(18).await;
    client.end().await;
    assert!(gateway.gate.lines("2 message")[0].ends_with("refused protocol"));
}

#[tokio::test]
async fn of_another_protocol_everything_is_content() {
    let gateway = Gateway::with(Setup { handler: switching(), ..Setup::default() }).await;
    let mut client = gateway.dial().await;
    let fields = "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    client.send(request("POST /api/exec", "t", "").replace("\r\n\r\n", fields)).await;
    assert_eq!(client.answer(false).await.status(), 101);
    client.send("ls\n").await;
    assert_eq!(client.read(3).await, b"ls\n");
    client.finish().await;
    gateway.logged("closed").await;
    assert_eq!(gateway.gate.lines("1 content"), ["1 content \"ls\\\\n\""]);
    assert!(gateway.gate.lines("1 ok")[0].starts_with("1 ok bytes=3 content=3"));
}

#[tokio::test]
async fn an_upgrade_that_the_target_declines_leaves_the_stream_as_it_was() {
    let gateway = Gateway::new().await;
    let mut client = gateway.dial().await;
    for upgrade in ["websocket", "h2c"] {
        let fields = format!(
            "\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AA\r\n\r\n"
        );
        let answer = client.ask(&request("GET /api/x", "t", "").replace("\r\n\r\n", &fields)).await;
        assert_eq!(answer.status(), 200);
        assert!(!answer.body.contains("h2c") && !answer.body.contains("http2-settings"), "{}", answer.body);
    }
    assert_eq!(client.ask(&request("GET /api/y", "t", "")).await.status(), 200);
    client.finish().await;
}
