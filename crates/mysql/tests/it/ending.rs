//! Thread ids, logins in the middle of a session, and the ends of sessions.

use std::time::Duration;

use verbatim_core::CloseReason;

use crate::support::wire::{self, flag};
use crate::support::{Ends, Gateway, Setup};

/// Another identity's session: identities here are named as their users.
async fn another(gateway: &Gateway) -> Ends {
    let (mut client, task) = gateway.dial().await;
    let thread_id = crate::support::thread_id(&client.packet(0).await);
    let response = wire::response(flag::PLAIN, "eve", b"token\0", "db", "mysql_clear_password", &[]);
    client.send(&wire::packet(1, &response)).await;
    let mut target = gateway.accept().await;
    let login = target.expect_login().await;
    target.send(&wire::packet(2, wire::OK)).await;
    client.expect(&wire::packet(2, wire::OK)).await;
    Ends { client, target, thread_id, login, task }
}

/// Attack 25.
#[tokio::test]
async fn a_session_is_killed_by_its_own_identity_alone() {
    let gateway = Gateway::new(Setup::default()).await;
    let (mut ends, mut eve) = (gateway.session().await, another(&gateway).await);
    for kill in
        [wire::command(0x0c, &ends.thread_id.to_le_bytes()), wire::query(&format!("KILL {}", ends.thread_id))]
    {
        eve.client.send(&kill).await;
        let words = format!("1095 HY000 You are not owner of thread {}", ends.thread_id);
        assert_eq!(eve.client.error(1).await, words);
    }
    eve.client.send(&wire::command(0x0c, &12_345_u32.to_le_bytes())).await;
    assert_eq!(eve.client.error(1).await, "1094 HY000 Unknown thread id: 12345");
    // The target's ids in SQL are the target's to judge.
    eve.ask(&wire::query("KILL 12345")).await;
    eve.answer(&wire::packet(1, &wire::err(1094, "HY000", "Unknown thread id: 12345"))).await;

    let mut other = gateway.session().await;
    other.client.send(&wire::query(&format!("KILL QUERY {}", ends.thread_id))).await;
    let mut side = gateway.accept().await;
    side.expect_login().await;
    side.send(&wire::packet(2, wire::OK)).await;
    side.expect(&wire::query("KILL QUERY 77")).await;
    side.send(&wire::packet(1, wire::OK)).await;
    other.client.expect(&wire::packet(1, wire::OK)).await;
    ends.ask(&wire::query("SELECT 1")).await;
    ends.answer(&wire::packet(1, wire::OK)).await;
    for ends in [ends, eve, other] {
        ends.finish().await;
    }
}

fn change_user(user: &str, plugin: &str, answer: &[u8]) -> Vec<u8> {
    let parts =
        [user.as_bytes(), b"\0", &[answer.len() as u8], answer, b"db\0\x2d\0", plugin.as_bytes(), b"\0\0"];
    wire::command(0x11, &parts.concat())
}

#[tokio::test]
async fn a_change_of_user_ends_one_session_and_begins_the_next() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.prepared(7, "SELECT 1", 0).await;
    ends.client.send(&change_user("ada", "mysql_native_password", b"scramble")).await;
    ends.client.expect(&wire::packet(1, b"\xfemysql_clear_password\0")).await;
    ends.client.send(&wire::packet(2, b"token\0")).await;
    let asked = ends.target.packet(0).await;
    assert!(asked.starts_with(b"\x11app\0"), "{:?}", asked.escape_ascii().to_string());
    ends.target.send(&wire::packet(1, wire::OK)).await;
    ends.client.expect(&wire::packet(3, wire::OK)).await;
    // The statement is gone, and so is what the record knows of it.
    ends.client.send(&wire::execute(7, 0, b"")).await;
    assert!(ends.client.error(1).await.starts_with("1243 "));
    ends.finish().await;
    let log = gateway.gate.log();
    let after = log.lines().skip_while(|line| !line.starts_with("2 change_user"));
    assert_eq!(
        after.map(|line| line.split(" \"").next().unwrap()).collect::<Vec<_>>(),
        ["2 change_user -", "2 durable", "2 ok", "closed client", "1 execute", "closed client"]
    );
}

/// Attack 25.
#[tokio::test]
async fn a_change_of_user_to_another_identity_is_refused_and_the_session_goes_on() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.client.send(&change_user("eve", "mysql_clear_password", b"token\0")).await;
    assert_eq!(ends.client.error(1).await, "1045 28000 Access denied by the gateway");
    *gateway.gate.refuse_login.lock() =
        Some(verbatim_core::Refusal::NotAuthenticated { code: "signature", reason: "no".into() });
    ends.client.send(&change_user("ada", "mysql_clear_password", b"forged\0")).await;
    assert_eq!(ends.client.error(1).await, "1045 28000 Access denied by the gateway");
    ends.ask(&wire::query("SELECT 1")).await;
    ends.answer(&wire::packet(1, wire::OK)).await;
    ends.finish().await;
    assert_eq!(gateway.gate.lines("1 change_user"), ["1 change_user - refused identity"]);
    assert_eq!(gateway.gate.lines("2 change_user"), ["2 change_user - refused signature"]);
    assert_eq!(gateway.gate.lines("closed"), ["closed refused", "closed client"]);
}

#[tokio::test]
async fn the_client_hears_why_the_gateway_ends_its_session() {
    for (reason, words) in [
        (CloseReason::Expired, "3169 HY000 The session was killed: the access token expired"),
        (CloseReason::AccessRevoked, "3169 HY000 The session was killed: access was revoked"),
        (CloseReason::Drained, "1053 08S01 Server shutdown in progress"),
    ] {
        let gateway = Gateway::new(Setup::default()).await;
        let mut ends = gateway.session().await;
        gateway.gate.end(reason);
        assert_eq!(ends.client.error(1).await, words);
        ends.client.end().await;
        drop(ends.target);
        ends.task.await.unwrap();
        assert_eq!(gateway.gate.lines("closed"), [format!("closed {}", reason.as_str())]);
    }
}

#[tokio::test]
async fn what_runs_when_the_token_expires_is_ended_at_the_target() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.ask(&wire::query("SELECT SLEEP(100)")).await;
    gateway.gate.end(CloseReason::Expired);
    let mut side = gateway.accept().await;
    side.expect_login().await;
    side.send(&wire::packet(2, wire::OK)).await;
    side.expect(&wire::query("KILL CONNECTION 77")).await;
    side.send(&wire::packet(1, wire::OK)).await;
    ends.target.send(&wire::packet(1, &wire::err(1317, "70100", "Query execution was interrupted"))).await;
    assert!(ends.client.error(1).await.starts_with("1317 "));
    assert!(ends.client.error(1).await.starts_with("3169 "));
    ends.task.await.unwrap();
    assert_eq!(gateway.gate.lines("closed"), ["closed expired"]);
    assert!(gateway.gate.lines("1 error")[0].contains("1317"));
}

#[tokio::test]
async fn a_client_that_sends_nothing_for_too_long_is_told() {
    let gateway = Gateway::new(Setup { idle: Some(Duration::from_millis(50)), ..Setup::default() }).await;
    let mut ends = gateway.session().await;
    assert!(ends.client.error(1).await.starts_with("4031 HY000"));
    ends.client.end().await;
    drop(ends.target);
    ends.task.await.unwrap();
    assert_eq!(gateway.gate.lines("closed"), ["closed idle"]);
}

#[tokio::test]
async fn a_target_that_leaves_is_the_clients_last_word() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.ask(&wire::query("SELECT 1")).await;
    let (rows, _) = wire::rows(1, &["1", "2"], 2);
    // In the middle of the rows: the error takes the next row's place.
    let some = &rows[..rows.len() - 9 - 6];
    ends.answer(some).await;
    drop(ends.target);
    assert_eq!(ends.client.error(5).await, "1105 HY000 The target closed the connection");
    ends.task.await.unwrap();
    assert_eq!(gateway.gate.lines("1 aborted").len(), 1);
    assert_eq!(gateway.gate.lines("closed"), ["closed target"]);
}
