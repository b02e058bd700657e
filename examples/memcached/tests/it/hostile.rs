//! Peers that do not keep to the protocol.

use std::time::Duration;

use verbatim_core::{RecordMode, Refusal};

use crate::support::{Gateway, login};

const UNAUTHENTICATED: &str = "CLIENT_ERROR unauthenticated\r\n";

#[tokio::test]
async fn commands_pipelined_before_the_token_are_answered_and_none_is_forwarded() {
    let gateway = Gateway::new().await;
    let (mut client, task) = gateway.dial().await;
    client.send("get a\r\nflush_all\r\nversion\r\n".to_owned() + &login("cache token") + "get b\r\n").await;
    client.expect(UNAUTHENTICATED.repeat(3)).await;
    let mut target = gateway.accept().await;
    client.expect("STORED\r\n").await;
    target.expect("get b\r\n").await;
    drop((client, target));
    task.await.unwrap();
    assert_eq!(gateway.gate.lines("1 command"), [r#"1 command "get b""#]);
}

#[tokio::test]
async fn a_browser_and_junk_are_counted_and_reach_nothing() {
    let gateway = Gateway::new().await;
    let post = "POST / HTTP/1.1\r\nHost: cache:11211\r\n\r\nset a 0 0 1 noreply\r\nx\r\n";
    for junk in [
        post.as_bytes().to_vec(),
        vec![b'a'; 5000],
        vec![0x16, 3, 1, 0, 200],
        "get a\r\n".repeat(99).into_bytes(),
    ] {
        let (mut client, task) = gateway.dial().await;
        client.send(&junk).await;
        // The gateway may have closed already.
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await;
        task.await.unwrap();
    }
    assert_eq!(gateway.counts.junk(), 4);
    assert_eq!(gateway.gate.log(), "", "nobody was asked to let them in");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_dropped_at_the_login_limit() {
    let gateway =
        Gateway::with(RecordMode::Full, |listener| listener.limits.login = Duration::from_millis(50)).await;
    let (mut client, task) = gateway.dial().await;
    client.send("set auth 0 0 100\r\ncache ").await;
    client.end().await;
    task.await.unwrap();
    assert_eq!(gateway.counts.junk(), 1);
}

#[tokio::test]
async fn a_login_that_is_none_is_refused_and_recorded() {
    for (sent, code) in [
        (login("token-without-a-connection"), "malformed"),
        ("set auth 0 0 5\r\ncache token\r\n".to_owned(), "malformed"),
        ("set auth 0 0 2000000000\r\ncache".to_owned(), "size"),
    ] {
        let gateway = Gateway::new().await;
        let (mut client, task) = gateway.dial().await;
        client.send(sent).await;
        assert_eq!(client.words().await, "CLIENT_ERROR authentication failure");
        client.end().await;
        drop(client);
        task.await.unwrap();
        let refused = gateway.gate.lines(&format!("login refused {code}"));
        assert_eq!(refused.len(), 1, "{}", gateway.gate.log());
    }
}

#[tokio::test]
async fn a_login_in_clear_where_it_could_be_read_is_refused_unread() {
    let gateway = Gateway::with(RecordMode::Full, |listener| {
        listener.loopback = false;
        listener.tls = Some(std::sync::Arc::new(|| panic!("nobody began with TLS")));
    })
    .await;
    let (mut client, task) = gateway.dial().await;
    client.send(login("cache token")).await;
    assert_eq!(client.words().await, "CLIENT_ERROR authentication failure");
    client.end().await;
    drop(client);
    task.await.unwrap();
    assert_eq!(gateway.gate.lines("login refused clear").len(), 1);
}

#[tokio::test]
async fn who_is_not_let_in_is_told_so_without_the_reason() {
    let gateway = Gateway::new().await;
    *gateway.gate.refuse_login.lock() =
        Some(Refusal::NotAllowed { code: "no_group", reason: "a secret reason".into() });
    let (mut client, task) = gateway.dial().await;
    client.send(login("cache token") + "flush_all\r\n").await;
    assert_eq!(client.words().await, "CLIENT_ERROR permission denied");
    client.end().await;
    drop(client);
    task.await.unwrap();
}

/// What is recorded of bytes that cannot be read, and that nothing behind them is taken for a command.
#[tokio::test]
async fn what_cannot_be_read_is_recorded_refused_and_ends_the_session() {
    let huge = format!("set {} 0 0 5\r\nflush_all\r\n", "k".repeat(251));
    for bytes in [
        "set a 0 0 +9\r\nflush_all\r\n",
        "set a 0 0 3\r\nflush_all\r\n",
        "set a 0 0 4294967297\r\nx\r\nflush_all\r\n",
        "ms a S9\r\nflush_all\r\n",
        "get a\0b\r\nflush_all\r\n",
        "hello\r\nflush_all\r\n",
        &huge,
    ] {
        let gateway = Gateway::new().await;
        let (mut client, mut target, task) = gateway.session().await;
        client.send(format!("get a\r\n{bytes}")).await;
        target.expect("get a\r\n").await;
        target.send("END\r\n").await;
        client.expect("END\r\n").await;
        assert_eq!(client.words().await, "CLIENT_ERROR bad command line format", "{bytes:?}");
        client.end().await;
        target.end().await;
        drop(client);
        task.await.unwrap();
        let log = gateway.log();
        assert!(log.contains("refused protocol\n") && log.ends_with("closed protocol\n"), "{bytes:?}: {log}");
        assert!(!log.contains(r#"command "flush_all""#), "{bytes:?}: {log}");
    }
}

#[tokio::test]
async fn a_value_over_the_limit_is_refused_before_it_is_read() {
    let gateway = Gateway::with(RecordMode::Full, |listener| listener.limits.message_bytes = 1 << 20).await;
    let (mut client, _target, task) = gateway.session().await;
    client.send("set a 0 0 1048577\r\n").await;
    assert_eq!(
        client.words().await,
        "SERVER_ERROR object too large for the gateway, which takes 1048576 bytes"
    );
    client.end().await;
    drop(client);
    task.await.unwrap();
    assert_eq!(gateway.gate.lines("1 command"), [r#"1 command "set a 0 0 1048577" refused too_large"#]);
}

#[tokio::test]
async fn a_long_value_with_another_end_never_becomes_whole_at_the_target() {
    let gateway = Gateway::new().await;
    let (mut client, mut target, task) = gateway.session().await;
    let value = "v".repeat(70_000);
    client.send(format!("set a 0 0 70000\r\n{value}xx\r\nflush_all\r\n")).await;
    target.expect(format!("set a 0 0 70000\r\n{value}")).await;
    target.end().await;
    assert_eq!(client.words().await, "CLIENT_ERROR bad command line format");
    drop(client);
    task.await.unwrap();
    assert!(gateway.log().ends_with("1 aborted\nclosed protocol\n"), "{}", gateway.log().len());
}

#[tokio::test]
async fn a_session_is_the_same_however_its_bytes_are_split() {
    let bytes = "set a 0 0 5\r\nhel\r\n\r\nget a\r\nms b 2 q\r\nhi\r\nmn\r\n";
    let forwarded = "set a 0 0 5\r\nhel\r\n\r\nget a\r\nms b 2 q\r\nhi\r\nmn\r\nmn\r\n";
    let mut expected = None;
    for split in 0..=bytes.len() {
        let gateway = Gateway::new().await;
        let (mut client, mut target, task) = gateway.session().await;
        let (first, second) = bytes.split_at(split);
        for part in [first, second] {
            client.send(part).await;
            tokio::task::yield_now().await;
        }
        target.expect(forwarded).await;
        target.send("STORED\r\nEND\r\nMN\r\nMN\r\n").await;
        client.expect("STORED\r\nEND\r\nMN\r\n").await;
        drop(client);
        task.await.unwrap();
        let log = gateway.log();
        assert_eq!(expected.get_or_insert_with(|| log.clone()), &log, "split at {split}");
    }
}

#[tokio::test]
async fn a_target_that_answers_what_nobody_asked_is_not_believed() {
    for answer in ["STORED\r\n", "END\r\nSTORED\r\n", "VALUE a 0 x\r\n", "VALUE a\r\n"] {
        let gateway = Gateway::new().await;
        let (mut client, mut target, task) = gateway.session().await;
        if !answer.starts_with("STORED") {
            client.send("get a\r\n").await;
            target.expect("get a\r\n").await;
        }
        target.send(answer).await;
        if answer.starts_with("END") {
            client.expect("END\r\n").await;
        }
        assert_eq!(client.words().await, "SERVER_ERROR the target broke the protocol", "{answer:?}");
        client.end().await;
        drop(client);
        task.await.unwrap();
        assert_eq!(gateway.gate.lines("closed"), ["closed protocol"]);
    }
}
