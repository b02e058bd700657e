//! The ends of sessions.

use std::time::Duration;

use verbatim_core::CloseReason;

use crate::support::{Gateway, Setup, command, commands};

#[tokio::test]
async fn a_session_that_expires_answers_what_runs_and_says_why() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.up(&command(&["GET", "k"])).await;
    gateway.gate.end(CloseReason::Expired);
    ends.down(b"$1\r\nv\r\n").await;
    ends.client.error("-NOAUTH the access token expired").await;
    ends.over().await;
    assert_eq!(gateway.gate.lines("1 ok"), ["1 ok bytes=7"]);
    assert_eq!(gateway.gate.lines("closed"), ["closed expired"]);
}

#[tokio::test]
async fn what_blocks_does_not_hold_up_the_end_of_a_session() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.up(&command(&["BLPOP", "queue", "0"])).await;
    gateway.gate.end(CloseReason::AccessRevoked);
    ends.client.error("-NOAUTH access was revoked").await;
    ends.target.end().await;
    ends.over().await;
    assert_eq!(gateway.gate.lines("1 aborted").len(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_while_it_blocks_is_gone_at_the_target_too() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.up(&command(&["BLPOP", "queue", "0"])).await;
    ends.client.shutdown().await;
    ends.target.end().await;
    ends.over().await;
    assert_eq!(gateway.gate.lines("1 aborted").len(), 1);
    assert_eq!(gateway.gate.lines("closed"), ["closed client"]);
}

#[tokio::test]
async fn a_client_that_leaves_gets_the_outcomes_of_what_it_asked_for() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.up(&commands(&["SET a 1", "SET b 2"])).await;
    ends.client.shutdown().await;
    ends.target.send(b"+OK\r\n+OK\r\n").await;
    ends.client.expect(b"+OK\r\n+OK\r\n").await;
    ends.over().await;
    assert_eq!(gateway.gate.lines("2 ok"), ["2 ok bytes=5"]);
}

#[tokio::test]
async fn a_target_that_leaves_ends_the_session_and_what_ran_is_aborted() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.up(&command(&["GET", "k"])).await;
    ends.target.shutdown().await;
    ends.client.error("-ERR the target closed the connection").await;
    ends.over().await;
    assert_eq!(gateway.gate.lines("1 aborted").len(), 1);
    assert_eq!(gateway.gate.lines("closed"), ["closed target"]);
}

#[tokio::test]
async fn the_targets_last_words_are_the_clients() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.down(b"-ERR max number of clients reached\r\n").await;
    ends.target.shutdown().await;
    ends.over().await;
    assert_eq!(gateway.gate.lines("closed"), ["closed target"]);
}

#[tokio::test]
async fn a_session_that_idles_is_closed_but_not_one_that_listens() {
    let idle = Some(Duration::from_millis(50));
    let gateway = Gateway::new(Setup { idle, ..Setup::default() }).await;
    let mut ends = gateway.session().await;
    ends.up(&command(&["SUBSCRIBE", "a"])).await;
    ends.down(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").await;
    // Longer than it may idle.
    tokio::time::sleep(Duration::from_millis(200)).await;
    ends.down(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n").await;
    ends.ask(&["UNSUBSCRIBE"], "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n").await;
    ends.client.error("-ERR the session was idle").await;
    ends.over().await;
    assert_eq!(gateway.gate.lines("closed"), ["closed idle"]);
}

#[tokio::test]
async fn a_drained_session_ends_after_what_runs() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.up(&command(&["GET", "k"])).await;
    gateway.gate.end(CloseReason::Drained);
    ends.down(b"$-1\r\n").await;
    ends.client.error("-ERR the gateway is shutting down").await;
    ends.over().await;
    assert_eq!(gateway.gate.lines("closed"), ["closed drained"]);
}
