//! Bytes that no client and no target should send.

use std::time::Duration;

use proptest::prelude::*;

use crate::support::{Gateway, Setup, command, commands};

/// Sends bytes in a session, and returns what the client is told.
async fn broken(bytes: &[u8]) -> (String, Gateway) {
    let gateway = Gateway::new(Setup { message_bytes: 1 << 20, ..Setup::default() }).await;
    let mut ends = gateway.session().await;
    ends.client.send(bytes).await;
    let line = ends.client.line().await;
    ends.target.expect_nothing();
    ends.over().await;
    assert_eq!(gateway.gate.lines("closed"), ["closed protocol"]);
    (line, gateway)
}

/// Attack 38.
#[tokio::test]
async fn lengths_that_cannot_be_are_refused_before_anything_is_kept() {
    for (bytes, said) in [
        ("*1000000000\r\n", "over the gateway's limit"),
        ("*99999999999999999999\r\n", "invalid multibulk length"),
        ("*+1\r\n", "invalid multibulk length"),
        ("*01\r\n", "invalid multibulk length"),
        ("*1x\r\n", "invalid multibulk length"),
        ("*1\n$4\r\nPING\r\n", "invalid multibulk length"),
        ("*1\r\n$-2\r\n", "invalid bulk length"),
        ("*1\r\n$-1\r\n", "invalid bulk length"),
        ("*1\r\n$9999999999\r\n", "over the gateway's limit"),
        ("*1\r\n$18446744073709551616\r\n", "invalid bulk length"),
        ("*1\r\n*1\r\n", "expected '$', got '*'"),
        ("*1\r\n:5\r\n", "expected '$', got ':'"),
        ("*1\r\n$4\r\nPINGxx", "no CRLF behind a bulk string"),
        ("set 'a\r\n", "unbalanced quotes in request"),
        ("set \0 b\r\n", "a NUL in an inline request"),
    ] {
        let (line, gateway) = broken(bytes.as_bytes()).await;
        assert!(
            line.starts_with("-ERR Protocol error") && line.contains(&said.replace('\'', "\\'")),
            "{bytes:?}: {line}"
        );
        let code = if said.contains("limit") { "too_large" } else { "protocol" };
        let log = gateway.gate.log();
        assert!(log.contains(&format!("refused {code}\n")), "{bytes:?}: {log}");
    }
}

#[tokio::test]
async fn nested_arrays_are_refused_at_the_first() {
    let (line, _) = broken("*1\r\n".repeat(100_000).as_bytes()).await;
    assert!(line.contains("expected"), "{line}");
}

#[tokio::test]
async fn an_inline_line_has_an_end() {
    let (line, _) = broken(&[b'x'; 70_000]).await;
    assert!(line.contains("too big inline request"), "{line}");
}

/// Attack 33.
#[tokio::test]
async fn a_request_of_http_closes_the_stream_whatever_else_it_says() {
    for bytes in [&b"POST / HTTP/1.1\r\nHost: x\r\n\r\nFLUSHALL\r\n"[..], b"host: x\r\nFLUSHALL\r\n"] {
        let gateway = Gateway::new(Setup::default()).await;
        let (mut client, task) = gateway.dial().await;
        client.send(bytes).await;
        client.end().await;
        task.await.unwrap();
        assert_eq!((gateway.counts.junk(), gateway.gate.log()), (1, String::new()));
        let (line, _) = broken(bytes).await;
        assert!(line.contains("HTTP"), "{line}");
    }
}

/// Attack 33.
#[tokio::test]
async fn only_lengths_say_where_an_argument_ends() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.ask(&["SET", "k", "\r\n*1\r\n$8\r\nFLUSHALL\r\n"], "+OK\r\n").await;
    ends.ask(&["GET", "k"], "$20\r\n*1\r\n$8\r\nFLUSHALL\r\n\r\n\r\n").await;
    ends.leave().await;
    assert!(gateway.gate.lines("3 ").is_empty());
}

#[tokio::test]
async fn what_can_be_read_before_it_is_done_first() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.client.send(&[command(&["GET", "k"]), b"*1\r\n$x".to_vec(), b"\r\n".to_vec()].concat()).await;
    ends.target.expect(&command(&["GET", "k"])).await;
    ends.target.send(b"$1\r\nv\r\n").await;
    ends.client.expect(b"$1\r\nv\r\n").await;
    ends.client.error("-ERR Protocol error").await;
    ends.over().await;
}

#[tokio::test]
async fn a_target_that_breaks_the_protocol_ends_the_session() {
    for bytes in [
        &b"HTTP/1.1 400 Bad Request\r\n"[..],
        b"$-2\r\n",
        b"*-2\r\n",
        b"$?\r\n",
        b"*99999999999999999999999\r\n",
        b"$111111111111111111111111111111111",
        b"*1\r\n\x00",
    ] {
        let gateway = Gateway::new(Setup::default()).await;
        let mut ends = gateway.session().await;
        ends.up(&command(&["GET", "k"])).await;
        ends.target.send(bytes).await;
        ends.over_after_words().await;
        assert_eq!(gateway.gate.lines("1 aborted").len(), 1, "{}", bytes.escape_ascii());
        assert_eq!(gateway.gate.lines("closed"), ["closed protocol"]);
    }
}

#[tokio::test]
async fn a_reply_that_answers_nothing_ends_the_session() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.ask(&["PING"], "+PONG\r\n").await;
    ends.target.send(b"+OK\r\n").await;
    ends.client.error("-ERR the target broke the protocol").await;
    ends.over().await;
    assert_eq!(gateway.gate.lines("closed"), ["closed protocol"]);
}

#[tokio::test]
async fn execs_array_of_another_length_ends_the_session() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.up(&commands(&["MULTI", "SET a 1", "EXEC"])).await;
    ends.target.send(b"+OK\r\n+QUEUED\r\n*2\r\n+OK\r\n+OK\r\n").await;
    ends.client.expect(b"+OK\r\n+QUEUED\r\n").await;
    ends.over_after_words().await;
    assert_eq!(gateway.gate.lines("2 aborted").len(), 1);
}

#[tokio::test]
async fn a_client_that_never_reads_holds_up_only_itself() {
    let gateway = Gateway::new(Setup { idle: Some(Duration::from_secs(3600)), ..Setup::default() }).await;
    let mut ends = gateway.session().await;
    // Far more commands than may wait for an answer.
    let one = command(&["PING"]);
    let many = one.repeat(20_000);
    let mut client = ends.client;
    let sending = tokio::spawn(async move {
        client.send(&many).await;
        client
    });
    ends.target.expect(&one.repeat(16_384)).await;
    ends.target.send(&b"+PONG\r\n".repeat(16_384)).await;
    ends.target.expect(&one.repeat(20_000 - 16_384)).await;
    ends.target.send(&b"+PONG\r\n".repeat(20_000 - 16_384)).await;
    ends.client = sending.await.unwrap();
    ends.client.expect(&b"+PONG\r\n".repeat(20_000)).await;
    ends.leave().await;
    assert_eq!(gateway.gate.log().matches(" ok bytes=7\n").count(), 20_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever a client sends, nothing reaches the target that is not recorded, and the gateway lives.
    #[test]
    fn any_bytes_of_a_client_end_in_a_close_or_in_words(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let gateway = Gateway::new(Setup::default()).await;
            let mut ends = gateway.session().await;
            ends.client.send(&bytes).await;
            ends.client.shutdown().await;
            drop(ends.target);
            gateway.gate_closed().await;
        });
    }
}
