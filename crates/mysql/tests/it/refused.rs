//! Refusals in the protocol's own words, and the stream in step afterwards.

use verbatim_core::Refusal;

use crate::support::wire;
use crate::support::{Gateway, Setup};

/// Attack 25.
#[tokio::test]
async fn what_is_never_passed_on_is_refused_recorded_and_the_session_in_step() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let refused = [
        (0x05, "create_db", 1235),
        (0x08, "shutdown", 1235),
        (0x0d, "debug", 1235),
        (0x12, "binlog_dump", 1235),
        (0x15, "register_slave", 1235),
        (0x1e, "binlog_dump_gtid", 1235),
        (0x20, "clone", 1235),
        (0xfe, "multi", 1235),
        (0x55, "command", 1047),
    ];
    for (command, kind, code) in refused {
        ends.client.send(&wire::command(command, b"x")).await;
        let error = ends.client.error(1).await;
        assert!(error.starts_with(&format!("{code} ")), "{kind}: {error}");
        let logged = gateway.gate.log();
        assert!(
            logged
                .lines()
                .any(|line| line.contains(&format!(" {kind} \"")) && line.ends_with("refused unsupported")),
            "{logged}"
        );
    }
    ends.ask(&wire::command(0x0e, b"")).await;
    ends.answer(&wire::packet(1, wire::OK)).await;
    ends.finish().await;
}

#[tokio::test]
async fn a_refused_command_among_others_is_answered_in_its_place() {
    let gateway = Gateway::new(Setup::default()).await;
    gateway.gate.judge(|operation| {
        let denied = operation.text.as_ref().is_some_and(|text| text.starts_with(b"DROP"));
        denied.then(|| Refusal::NotAllowed { code: "rule", reason: "no".into() })
    });
    let mut ends = gateway.session().await;
    let (first, second) = (wire::query("SELECT 1"), wire::query("SELECT 2"));
    ends.client.send(&[first.clone(), wire::query("DROP TABLE t"), second.clone()].concat()).await;
    ends.target.expect(&[first, second].concat()).await;
    let (one, _) = wire::rows(1, &["1"], 2);
    // In pieces, so that its place is not the end of what comes at once.
    for piece in one.chunks(5) {
        ends.target.send(piece).await;
    }
    ends.client.expect(&one).await;
    assert_eq!(ends.client.error(1).await, "1227 42000 Access denied by the gateway");
    ends.answer(&wire::packet(1, wire::OK)).await;
    ends.finish().await;
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done_and_the_session_goes_on() {
    let gateway = Gateway::new(Setup::default()).await;
    gateway.gate.judge(|operation| {
        (operation.sequence == 1).then(|| Refusal::NotRecorded { reason: "No space left on device".into() })
    });
    let mut ends = gateway.session().await;
    ends.client.send(&wire::query("SELECT 1")).await;
    assert!(ends.client.error(1).await.starts_with("1021 HY000"));
    ends.ask(&wire::query("SELECT 2")).await;
    ends.answer(&wire::packet(1, wire::OK)).await;
    ends.finish().await;
}

#[tokio::test]
async fn refused_long_data_is_never_left_out_of_an_execution() {
    let gateway = Gateway::new(Setup::default()).await;
    gateway.gate.judge(|operation| {
        (operation.kind == "long_data").then(|| Refusal::NotAllowed { code: "rule", reason: "no".into() })
    });
    let mut ends = gateway.session().await;
    ends.prepared(7, "INSERT INTO t VALUES (?)", 1).await;
    ends.client
        .send(&[wire::long_data(7, 0, b"ab"), wire::execute(7, 0, b"\0\x01\xfc\0\x01x")].concat())
        .await;
    assert!(ends.client.error(1).await.starts_with("1227 "));
    ends.ask(&wire::command(0x1a, b"\x07\0\0\0")).await;
    ends.answer(&wire::packet(1, wire::OK)).await;
    ends.ask(&wire::execute(7, 0, b"\0\x01\xfc\0\x01x")).await;
    ends.answer(&wire::packet(1, wire::OK)).await;
    ends.finish().await;
}
