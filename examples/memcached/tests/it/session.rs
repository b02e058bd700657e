//! What is recorded, forwarded and answered, in which order.

use std::time::Duration;

use expect_test::expect;
use verbatim_core::{CloseReason, RecordMode, Refusal};

use crate::support::{Gateway, login, target};

#[tokio::test]
async fn nothing_is_forwarded_before_it_is_durable_and_a_pipeline_waits_once() {
    let gateway = Gateway::new().await;
    let (mut client, mut target, task) = gateway.session().await;
    gateway.gate.durable_to(0);
    client.send("set a 0 0 5\r\nhello\r\nget a b\r\ndelete c\r\n").await;
    gateway.gate.somebody_waits().await;
    let mut byte = [0];
    assert!(target.stream.try_read(&mut byte).is_err(), "nothing has come");
    gateway.gate.durable_to(u64::MAX);
    target.expect("set a 0 0 5\r\nhello\r\nget a b\r\ndelete c\r\n").await;
    let answers = "STORED\r\nVALUE a 0 5\r\nhello\r\nEND\r\nNOT_FOUND\r\n";
    target.send(answers).await;
    client.expect(answers).await;
    drop(client);
    task.await.unwrap();
    expect![[r#"
        login with 5 bytes: cache as cache by -
        target "mn\r\n"
        1 command "set a 0 0 5" [{"type":"data","value":"hello"}]
        2 command "get a b"
        3 command "delete c"
        1 durable
        2 durable
        3 durable
        target "set a 0 0 5\r\nhello\r\nget a b\r\ndelete c\r\n"
        1 ok rows=1 bytes=8
        2 ok rows=1 bytes=25
        3 ok rows=0 bytes=11
        closed client
    "#]]
    .assert_eq(&gateway.gate.log());
}

#[tokio::test]
async fn every_shape_of_an_answer_finds_its_command() {
    let gateway = Gateway::new().await;
    let (mut client, mut target, task) = gateway.session().await;
    for (command, answer) in [
        ("gets a", "VALUE a 7 3 99\r\n\r\nE\r\nEND\r\n"),
        ("get none", "END\r\n"),
        ("stats", "STAT pid 7\r\nSTAT uptime 1\r\nEND\r\n"),
        ("stats reset", "RESET\r\n"),
        ("mg a v", "VA 4\r\nEN\r\n\r\n"),
        ("mg none v", "EN\r\n"),
        ("me a", "ME a exp=-1 la=0\r\n"),
        ("mn", "MN\r\n"),
        ("incr n 5", "12\r\n"),
        ("version", "VERSION 1.6.18\r\n"),
        ("incr a 1", "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
        ("stats nothing", "ERROR\r\n"),
    ] {
        client.send(format!("{command}\r\n")).await;
        target.expect(format!("{command}\r\n")).await;
        // A byte at a time comes through as well.
        for byte in answer.bytes() {
            target.send([byte]).await;
        }
        client.expect(answer).await;
    }
    client.send("quit\r\n").await;
    target.expect("quit\r\n").await;
    drop(target);
    client.end().await;
    drop(client);
    task.await.unwrap();
    let outcomes: String = gateway
        .log()
        .lines()
        .filter(|line| line.contains(" ok") || line.contains(" error") || line.contains("closed"))
        .fold(String::new(), |all, line| all + line + "\n");
    expect![[r#"
        1 ok rows=1 bytes=26
        2 ok rows=0 bytes=5
        3 ok rows=2 bytes=32
        4 ok bytes=7
        5 ok rows=1 bytes=12
        6 ok rows=0 bytes=4
        7 ok rows=1 bytes=18
        8 ok bytes=4
        9 ok rows=1 bytes=4
        10 ok bytes=16
        11 error bytes=62 CLIENT_ERROR cannot increment or decrement non-numeric value
        12 error bytes=7 ERROR ERROR
        13 ok bytes=0
        closed client
    "#]]
    .assert_eq(&outcomes);
}

#[tokio::test]
async fn what_asks_for_no_answer_has_an_outcome_all_the_same() {
    let gateway = Gateway::new().await;
    let (mut client, mut target, task) = gateway.session().await;
    client.send("set a 0 0 1 noreply\r\nx\r\nmg b v q\r\nmg a v q\r\nms a 2 T-1 q\r\nyy\r\nmn\r\n").await;
    target.expect("set a 0 0 1 noreply\r\nx\r\nmn\r\nmg b v q\r\nmn\r\nmg a v q\r\nmn\r\nms a 2 T-1 q\r\nyy\r\nmn\r\nmn\r\n").await;
    target.send("MN\r\nMN\r\nVA 4\r\nMN\r\n\r\nMN\r\nNS\r\nMN\r\nMN\r\n").await;
    // The gateway's own are not the client's.
    client.expect("VA 4\r\nMN\r\n\r\nNS\r\nMN\r\n").await;
    drop(client);
    task.await.unwrap();
    let log = gateway.log();
    let outcomes: Vec<_> = log.lines().filter(|line| line.contains(" ok")).collect();
    expect![[r#"
        [
            "1 ok bytes=0 [run without an answer, as asked]",
            "2 ok bytes=0 [run without an answer, as asked]",
            "3 ok rows=1 bytes=12",
            "4 ok rows=0 bytes=4",
            "5 ok bytes=4",
        ]
    "#]]
    .assert_debug_eq(&outcomes);
}

#[tokio::test]
async fn a_refusal_is_told_in_its_turn_and_the_session_goes_on() {
    let gateway = Gateway::new().await;
    gateway.gate.judge(|operation| {
        let text = operation.text.as_ref()?;
        text.windows(6)
            .any(|part| part == b"secret")
            .then(|| Refusal::NotAllowed { code: "rule", reason: "no".into() })
    });
    let (mut client, mut target, task) = gateway.session().await;
    let long = "x".repeat(70_000);
    client.send(format!("get a\r\nget secret\r\nset secret 0 0 1 noreply\r\nx\r\nshutdown\r\nget b\r\nset secret 0 0 70000\r\n{long}\r\nget c\r\n")).await;
    target.expect("get a\r\nget b\r\n").await;
    target.send("END\r\nEND\r\n").await;
    client.expect("END\r\n").await;
    assert_eq!(client.words().await, "CLIENT_ERROR permission denied");
    assert_eq!(client.words().await, "SERVER_ERROR not supported through the gateway: shutdown");
    client.expect("END\r\n").await;
    assert_eq!(client.words().await, "CLIENT_ERROR permission denied");
    target.expect("get c\r\n").await;
    target.send("END\r\n").await;
    client.expect("END\r\n").await;
    drop(client);
    task.await.unwrap();
    assert_eq!(
        gateway.gate.lines("3 command")[0],
        r#"3 command "set secret 0 0 1 noreply" [{"type":"data","value":"x"}] refused rule"#
    );
    assert_eq!(gateway.gate.lines("4 command"), [r#"4 command "shutdown" refused unsupported"#]);
    assert_eq!(gateway.gate.lines("7 ok"), ["7 ok rows=0 bytes=5"]);
}

#[tokio::test]
async fn a_long_value_is_recorded_piece_by_piece_before_it_is_forwarded() {
    let gateway = Gateway::new().await;
    let (mut client, mut target, task) = gateway.session().await;
    let value = "v".repeat(200_000);
    let sent = format!("get a\r\nset big 0 0 200000\r\n{value}\r\nget b\r\n");
    let (sending, receiving) = (client.send(&sent), async {
        target.expect("get a\r\nset big 0 0 200000\r\n").await;
        // The target need not wait for the end to say no.
        target.send("END\r\nSERVER_ERROR object too large for cache\r\n").await;
        target.expect(format!("{value}\r\n")).await;
        target.expect("get b\r\n").await;
        target.send("END\r\n").await;
    });
    tokio::join!(sending, receiving);
    client.expect("END\r\nSERVER_ERROR object too large for cache\r\nEND\r\n").await;
    drop(client);
    task.await.unwrap();
    let pieces = gateway.gate.lines("2 content");
    let recorded: usize = pieces.iter().map(|line| line.bytes().filter(|byte| *byte == b'v').count()).sum();
    assert_eq!(recorded, 200_000);
    assert_eq!(gateway.gate.lines("2 command"), [r#"2 command "set big 0 0 200000""#]);
    assert_eq!(
        gateway.gate.lines("2 error"),
        ["2 error bytes=41 content=200000 SERVER_ERROR object too large for cache"]
    );
}

#[tokio::test]
async fn the_end_of_a_session_is_told_and_recorded() {
    for (reason, said) in [
        (CloseReason::Expired, "SERVER_ERROR the access token expired"),
        (CloseReason::AccessRevoked, "SERVER_ERROR access was revoked"),
        (CloseReason::Killed, "SERVER_ERROR an administrator ended the session"),
        (CloseReason::Drained, "SERVER_ERROR the gateway is shutting down"),
    ] {
        let gateway = Gateway::new().await;
        let (mut client, mut target, task) = gateway.session().await;
        client.send("get a\r\n").await;
        target.expect("get a\r\n").await;
        gateway.gate.end(reason);
        // What runs is answered first.
        target.send("END\r\n").await;
        client.expect("END\r\n").await;
        assert_eq!(client.words().await, said);
        client.end().await;
        drop(client);
        task.await.unwrap();
        assert_eq!(gateway.gate.lines("closed"), [format!("closed {}", reason.as_str())]);
    }
}

#[tokio::test]
async fn a_target_that_leaves_ends_the_session_and_what_ran_is_aborted() {
    let gateway = Gateway::new().await;
    let (mut client, mut target, task) = gateway.session().await;
    client.send("get a\r\n").await;
    target.expect("get a\r\n").await;
    drop(target);
    assert_eq!(client.words().await, "SERVER_ERROR the target closed the connection");
    client.end().await;
    drop(client);
    task.await.unwrap();
    assert!(gateway.log().ends_with("1 aborted\nclosed target\n"), "{}", gateway.log());
}

#[tokio::test]
async fn an_idle_session_ends() {
    let gateway =
        Gateway::with(RecordMode::Full, |listener| listener.limits.idle = Some(Duration::from_millis(50)))
            .await;
    let (mut client, _target, task) = gateway.session().await;
    assert_eq!(client.words().await, "SERVER_ERROR the session was idle for too long");
    client.end().await;
    drop(client);
    task.await.unwrap();
    assert_eq!(gateway.gate.lines("closed"), ["closed idle"]);
}

#[tokio::test]
async fn what_the_client_receives_is_recorded_where_that_is_wanted() {
    let gateway = Gateway::with(RecordMode::Results, |_| {}).await;
    let (mut client, mut target, task) = gateway.session().await;
    client.send("get a\r\n").await;
    target.expect("get a\r\n").await;
    target.send("VALUE a 0 2\r\nhi\r\nEND\r\n").await;
    client.expect("VALUE a 0 2\r\nhi\r\nEND\r\n").await;
    drop(client);
    task.await.unwrap();
    assert_eq!(
        gateway.gate.lines("1 result"),
        [r#"1 result "VALUE a 0 2\\r\\n""#, r#"1 result "hi\\r\\n""#, r#"1 result "END\\r\\n""#]
    );
}

#[tokio::test]
async fn a_token_in_an_open_session_reaches_neither_the_record_nor_the_target() {
    let gateway = Gateway::new().await;
    let (mut client, mut target, task) = gateway.session().await;
    client.send(login("cache eyJhbGciOiJSUzI1NiJ9.eyJzdWIi.c2ln") + "get a\r\n").await;
    assert_eq!(
        client.words().await,
        "SERVER_ERROR not supported through the gateway: a login in an open session"
    );
    target.expect("get a\r\n").await;
    drop((client, target));
    task.await.unwrap();
    assert!(!gateway.log().contains("eyJ"), "{}", gateway.log());
    assert!(gateway.log().contains("redacted, 40 bytes"), "{}", gateway.log());
}

#[tokio::test]
async fn a_listener_of_one_connection_takes_any_user_word() {
    let own = "cache".parse().unwrap();
    let gateway = Gateway::with(RecordMode::Full, |listener| listener.own = Some(own)).await;
    let (mut client, task) = gateway.dial().await;
    client.send(login("ada token")).await;
    let target = gateway.accept().await;
    client.expect("STORED\r\n").await;
    drop((client, target));
    task.await.unwrap();
    assert_eq!(gateway.gate.lines("login"), ["login with 5 bytes: cache as ada by -"]);
}

#[test]
fn a_target_is_read_from_its_url() {
    let shown = |url, credential| target(url, credential).map(|target| target.display());
    assert_eq!(shown("memcached://cache.internal", None), Ok("cache.internal:11211".to_owned()));
    assert_eq!(shown("memcached://app@[::1]:1", Some("secret")), Ok("[::1]:1".to_owned()));
    for (url, credential) in [
        ("redis://cache", None),
        ("memcached://app@cache", None),
        ("memcached://cache", Some("secret")),
        ("memcached://app:secret@cache", Some("secret")),
        ("memcached://a%20b@cache", Some("secret")),
        ("memcached://cache/0", None),
    ] {
        let error = shown(url, credential).unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}
