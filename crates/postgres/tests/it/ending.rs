//! Cancel requests, and the ends of sessions.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use verbatim_core::CloseReason;

use crate::support::wire::*;
use crate::support::{Gateway, Setup};

fn cancel_request(key: &[u8]) -> Vec<u8> {
    packet(&[&CANCEL_REQUEST.to_be_bytes()[..], key].concat())
}

/// Attack 13.
#[tokio::test]
async fn a_cancel_request_is_recorded_in_its_session_before_the_target_gets_it() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    assert_eq!(ends.key[..4], 77_u32.to_be_bytes(), "the process id is the target's");
    assert_ne!(&ends.key[4..], b"real", "the secret is not");
    ends.client.send(&query("SELECT pg_sleep(9)")).await;
    ends.target.expect(&query("SELECT pg_sleep(9)")).await;
    let (mut canceller, cancelled) = gateway.dial().await;
    canceller.send(&cancel_request(&ends.key)).await;
    let mut request = gateway.accept().await;
    let body = request.read_startup().await;
    assert_eq!(gateway.gate.lines("2 "), ["2 cancel -", "2 durable"]);
    assert_eq!(body, [&CANCEL_REQUEST.to_be_bytes()[..], &77_u32.to_be_bytes(), b"real"].concat());
    // Its stream's end says that the request was carried out: what the client asks for then is not cancelled.
    canceller.expect_nothing();
    drop(request);
    canceller.end().await;
    cancelled.await.unwrap();
    let answer = [error("57014", "canceling statement due to user request"), ready(b'I')].concat();
    ends.target.send(&answer).await;
    ends.client.expect(&answer).await;
    let key = ends.key.clone();
    ends.finish().await;
    // After the end the key is nobody's.
    let (mut late, refused) = gateway.dial().await;
    late.send(&cancel_request(&key)).await;
    late.end().await;
    refused.await.unwrap();
    assert_eq!(gateway.counts.junk(), 1);
    assert_eq!(gateway.gate.lines("2 ok"), ["2 ok"]);
    assert!(gateway.context.cancels.is_empty());
}

/// Attack 13: the process id is no secret.
#[tokio::test]
async fn a_wrong_key_cancels_nothing_and_gets_no_word() {
    let gateway = Gateway::new(Setup::default()).await;
    let ends = gateway.session().await;
    let longer = [&ends.key[..], b"0"].concat();
    let wrong = [&77_u32.to_be_bytes()[..], b"real"].concat();
    for key in [wrong, longer, ends.key[..7].to_vec(), vec![0; 300]] {
        let (mut canceller, task) = gateway.dial().await;
        canceller.send(&cancel_request(&key)).await;
        task.await.unwrap();
        let _ = canceller;
    }
    assert_eq!(gateway.counts.junk(), 4);
    ends.finish().await;
    assert!(gateway.gate.lines("1 ").is_empty());
}

#[tokio::test]
async fn a_session_that_expires_cancels_what_runs_and_says_why() {
    for (reason, why) in [
        (CloseReason::Expired, "the access token expired"),
        (CloseReason::AccessRevoked, "access was revoked"),
        (CloseReason::Killed, "of an administrator's command"),
    ] {
        let gateway = Gateway::new(Setup::default()).await;
        let mut ends = gateway.session().await;
        ends.client.send(&query("SELECT pg_sleep(9)")).await;
        ends.target.expect(&query("SELECT pg_sleep(9)")).await;
        gateway.gate.end(reason);
        let mut request = gateway.accept().await;
        request.read_startup().await;
        drop(request);
        let answer = [error("57014", "canceling statement due to user request"), ready(b'I')].concat();
        ends.target.send(&answer).await;
        ends.client.expect(&answer).await;
        assert_eq!(ends.client.error().await, format!("FATAL 57P01 terminating connection because {why}"));
        ends.client.end().await;
        ends.target.expect(&terminate()).await;
        ends.task.await.unwrap();
        assert_eq!(gateway.gate.lines("1 error").len(), 1);
        assert_eq!(gateway.gate.lines("closed"), [format!("closed {}", reason.as_str())]);
    }
}

#[tokio::test]
async fn a_drained_session_ends_after_what_runs() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let batch = [parse("", "SELECT 1", &[]), bind("", "", &[]), execute("", 0), flush()].concat();
    ends.client.send(&batch).await;
    ends.target.expect(&batch).await;
    gateway.gate.end(CloseReason::Drained);
    let answer = [parse_complete(), bind_complete(), complete("SELECT 1")].concat();
    ends.target.send(&answer).await;
    ends.client.expect(&answer).await;
    assert_eq!(
        ends.client.error().await,
        "FATAL 57P01 terminating connection because the gateway is shutting down"
    );
    ends.client.end().await;
    ends.target.expect(&terminate()).await;
    ends.task.await.unwrap();
    assert_eq!(gateway.gate.lines("1 ok"), ["1 ok rows=1 bytes=14"]);
    assert_eq!(gateway.gate.lines("closed"), ["closed drained"]);
}

#[tokio::test]
async fn a_target_that_leaves_ends_the_session_with_its_own_words_or_ours() {
    let farewell = {
        let fields =
            ["SFATAL", "VFATAL", "C57P01", "Mterminating connection due to administrator command", ""];
        message(b'E', &fields.map(|field| format!("{field}\0")).concat().into_bytes())
    };
    for words in [Some(farewell), None] {
        let gateway = Gateway::new(Setup::default()).await;
        let mut ends = gateway.session().await;
        ends.client.send(&query("SELECT 1")).await;
        ends.target.expect(&query("SELECT 1")).await;
        let outcome = match words {
            Some(farewell) => {
                ends.target.send(&farewell).await;
                drop(ends.target);
                ends.client.expect(&farewell).await;
                "1 error bytes=80 57P01 terminating connection due to administrator command"
            }
            None => {
                drop(ends.target);
                assert_eq!(ends.client.error().await, "FATAL 08006 the target closed the connection");
                "1 aborted"
            }
        };
        ends.client.end().await;
        ends.task.await.unwrap();
        assert_eq!(gateway.gate.lines("1 ").last().unwrap(), outcome);
        assert_eq!(gateway.gate.lines("closed"), ["closed target"]);
    }
}

/// The outcome is on record although nobody reads the answer.
#[tokio::test]
async fn a_client_that_leaves_at_once_has_its_outcomes_on_record() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    // Without a Sync, as the server would run it too.
    let batch = [parse("", "COMMIT", &[]), bind("", "", &[]), execute("", 0)].concat();
    ends.client.send(&[query("INSERT"), batch.clone()].concat()).await;
    drop(ends.client);
    ends.target.expect(&[query("INSERT"), batch].concat()).await;
    // What the answers wait for in the target's buffer: nobody else will ask for them.
    ends.target.expect(&flush()).await;
    let answers =
        [complete("INSERT 0 1"), ready(b'T'), parse_complete(), bind_complete(), complete("COMMIT")];
    ends.target.send(&answers.concat()).await;
    ends.target.expect(&terminate()).await;
    ends.task.await.unwrap();
    assert_eq!(gateway.gate.lines("1 ok"), ["1 ok rows=1 bytes=16"]);
    assert_eq!(gateway.gate.lines("2 ok"), ["2 ok bytes=12"]);
    assert_eq!(gateway.gate.lines("closed"), ["closed client"]);
}

/// A client that only says that it sends no more still gets its answers, as from the server.
#[tokio::test]
async fn a_client_that_closes_its_half_gets_its_answers() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.client.send(&query("SELECT 1")).await;
    ends.client.stream().shutdown().await.unwrap();
    ends.target.expect(&query("SELECT 1")).await;
    ends.target.send(&[complete("SELECT 1"), ready(b'I')].concat()).await;
    ends.client.expect(&[complete("SELECT 1"), ready(b'I')].concat()).await;
    ends.client.end().await;
    ends.task.await.unwrap();
    assert_eq!(gateway.gate.lines("closed"), ["closed client"]);
}

/// What an idle session costs beside its sockets: the futures of the phases behind it are gone.
#[tokio::test]
async fn the_future_of_a_session_is_small() {
    let gateway = Gateway::new(Setup::default()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, _) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
    let future = verbatim_postgres::serve(client.unwrap(), address, gateway.context.clone());
    assert!(size_of_val(&future) < 2048, "{} bytes", size_of_val(&future));
}

#[tokio::test(start_paused = true)]
async fn a_session_in_which_nothing_happens_ends() {
    let gateway = Gateway::new(Setup { idle: Some(Duration::from_secs(5)), ..Setup::default() }).await;
    let mut ends = gateway.session().await;
    assert_eq!(ends.client.error().await, "FATAL 57P05 terminating connection due to idle-session timeout");
    ends.client.end().await;
    ends.task.await.unwrap();
    assert_eq!(gateway.gate.lines("closed"), ["closed idle"]);
}
