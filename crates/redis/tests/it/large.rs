//! Commands that are not held whole.

use verbatim_core::Refusal;

use crate::support::{Gateway, Setup, command};

const SIZE: usize = 3 << 20;

fn set(size: usize) -> Vec<u8> {
    command(&["SET", "big", &"v".repeat(size), "EX", "10"])
}

#[tokio::test]
async fn a_large_argument_is_recorded_piece_by_piece_before_it_is_forwarded() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let bytes = set(SIZE);
    let sending = bytes.clone();
    let (mut client, mut target) = (ends.client, ends.target);
    let send = tokio::spawn(async move {
        client.send(&sending).await;
        client
    });
    target.expect(&bytes).await;
    ends.client = send.await.unwrap();
    ends.target = target;
    ends.down(b"+OK\r\n").await;
    ends.ask(&["GET", "k"], "$-1\r\n").await;
    ends.leave().await;
    let intent = gateway.gate.lines("1 command");
    assert_eq!(
        intent,
        [format!(
            "1 command \"SET big \\\\\\\"({SIZE} bytes and what follows, in the content)\\\\\\\"\" \
        [{{\"type\":\"bulk\",\"value\":\"big\"}},{{\"type\":\"content\",\"value\":\"{SIZE}\"}}]"
        )]
    );
    // The content is what was sent from that argument on.
    let head = command(&["SET", "big"]).len();
    let pieces = gateway.gate.lines("1 content");
    let content: String = pieces
        .iter()
        .map(|line| line.strip_prefix("1 content \"").unwrap().strip_suffix('"').unwrap())
        .collect();
    assert_eq!(content, bytes[head..].escape_ascii().to_string().replace('\\', "\\\\"));
    assert_eq!(gateway.gate.lines("1 ok"), [format!("1 ok bytes=5 content={}", bytes.len() - head)]);
    // Nothing reaches the target before it is durable.
    let log = gateway.gate.log();
    let durable = log.lines().position(|line| line == "1 durable").unwrap();
    let forwarded = log.lines().position(|line| line.starts_with("target")).unwrap();
    assert!(durable < forwarded);
}

#[tokio::test]
async fn a_large_command_in_a_transaction_is_queued_like_any_other() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.ask(&["MULTI"], "+OK\r\n").await;
    let bytes = set(SIZE);
    let sending = bytes.clone();
    let mut client = ends.client;
    let send = tokio::spawn(async move {
        client.send(&sending).await;
        client
    });
    ends.target.expect(&bytes).await;
    ends.client = send.await.unwrap();
    ends.down(b"+QUEUED\r\n").await;
    ends.ask(&["EXEC"], "*1\r\n+OK\r\n").await;
    ends.leave().await;
    assert!(gateway.gate.lines("2 ok")[0].starts_with("2 ok bytes=5 content="));
}

#[tokio::test]
async fn a_large_command_that_is_refused_is_read_and_dropped() {
    let gateway = Gateway::new(Setup::default()).await;
    gateway.gate.judge(|operation| {
        let refusal = Refusal::NotAllowed { code: "rule", reason: "why".into() };
        operation.text.as_deref().is_some_and(|text| text.starts_with(b"SET")).then_some(refusal)
    });
    let mut ends = gateway.session().await;
    ends.client.send(&set(SIZE)).await;
    ends.client.error("-NOPERM ").await;
    ends.ask(&["GET", "k"], "$-1\r\n").await;
    ends.leave().await;
    assert!(gateway.gate.lines("1 content").is_empty());
}

#[tokio::test]
async fn many_small_arguments_are_a_large_command_too() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let mut words = vec!["MSET"];
    words.resize(70_001, "x");
    let bytes = command(&words);
    let sending = bytes.clone();
    let mut client = ends.client;
    let send = tokio::spawn(async move {
        client.send(&sending).await;
        client
    });
    ends.target.expect(&bytes).await;
    ends.client = send.await.unwrap();
    ends.down(b"+OK\r\n").await;
    ends.leave().await;
    assert!(gateway.gate.lines("1 ok")[0].contains("content="));
}

#[tokio::test]
async fn a_large_command_that_may_hold_a_secret_is_refused_and_shows_none() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.client
        .send(format!("*4\r\n$3\r\nACL\r\n$7\r\nSETUSER\r\n$1\r\nx\r\n${SIZE}\r\n>hunter2").as_bytes())
        .await;
    ends.client.error("-ERR Protocol error").await;
    ends.over().await;
    assert!(!gateway.gate.log().contains("hunter2"));
    assert_eq!(gateway.gate.lines("closed"), ["closed protocol"]);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_leaves_an_aborted_operation() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.client.send(&set(SIZE)[..SIZE / 2]).await;
    ends.client.shutdown().await;
    let reading = tokio::spawn(async move {
        let mut target = ends.target;
        // As much as came, and then the end.
        while target.read_some().await > 0 {}
    });
    reading.await.unwrap();
    gateway.gate_closed().await;
    assert_eq!(gateway.gate.lines("1 aborted").len(), 1);
    assert_eq!(gateway.gate.lines("closed"), ["closed client"]);
}

#[tokio::test]
async fn a_reply_of_any_size_passes() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.up(&command(&["GET", "big"])).await;
    let reply = [format!("${SIZE}\r\n").as_bytes(), &vec![b'\n'; SIZE], b"\r\n"].concat();
    let sending = reply.clone();
    let mut target = ends.target;
    let send = tokio::spawn(async move {
        target.send(&sending).await;
        target
    });
    ends.client.expect(&reply).await;
    ends.target = send.await.unwrap();
    ends.leave().await;
    assert_eq!(gateway.gate.lines("1 ok"), [format!("1 ok bytes={}", reply.len())]);
}
