//! Bytes that no client and no target should send.

use crate::support::wire;
use crate::support::{Gateway, Setup};

/// Attack 30.
#[tokio::test]
async fn a_packet_out_of_order_or_over_the_limit_ends_the_session_and_is_recorded() {
    for (bytes, words, code) in [
        (wire::packet(5, b"\x03SELECT 1"), "1835 ", "protocol"),
        (b"\xff\xff\x7f\0\x03SELECT".to_vec(), "1153 ", "too_large"),
    ] {
        let gateway = Gateway::new(Setup { message_bytes: 1 << 20, ..Setup::default() }).await;
        let mut ends = gateway.session().await;
        // What came before it is done.
        ends.client.send(&[wire::query("SELECT 0"), bytes].concat()).await;
        ends.target.expect(&wire::query("SELECT 0")).await;
        ends.answer(&wire::packet(1, wire::OK)).await;
        assert!(ends.client.error(1).await.starts_with(words));
        ends.client.end().await;
        drop(ends.target);
        ends.task.await.unwrap();
        assert!(gateway.gate.lines("2 command")[0].ends_with(&format!("refused {code}")));
        assert_eq!(gateway.gate.lines("closed"), ["closed protocol"]);
    }
}

/// Attack 30.
#[tokio::test]
async fn a_statement_of_16_mib_is_joined_and_its_empty_follower_waited_for() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let statement = format!("SELECT '{}'", "x".repeat(0xff_ffff - 10));
    let (wire, sequence) = wire::packets(0, &[b"\x03", statement.as_bytes()].concat());
    assert_eq!((wire.len(), sequence), (0xff_ffff + 8, 2));
    let (first, last) = wire.split_at(wire.len() - 4);
    ends.client.send(first).await;
    tokio::join!(ends.client.send(last), ends.target.expect(&wire));
    // The answer goes on where the command ended.
    ends.answer(&wire::packet(2, wire::OK)).await;
    ends.finish().await;
    let recorded = &gateway.gate.lines("1 query")[0];
    assert!(recorded.len() > statement.len() && recorded.contains("SELECT"));
}

/// Attack 6 and its like here.
#[tokio::test]
async fn commands_in_any_pieces_make_the_same_record() {
    let mut records = Vec::new();
    for size in [1, 3, 1000] {
        let gateway = Gateway::new(Setup::default()).await;
        let mut ends = gateway.session().await;
        let commands = [wire::query("SELECT 1"), wire::command(0x0e, b""), wire::query("SELECT 2")].concat();
        for piece in commands.chunks(size) {
            ends.client.send(piece).await;
        }
        ends.target.expect(&commands).await;
        let answers =
            [wire::rows(1, &["1"], 2).0, wire::packet(1, wire::OK), wire::rows(1, &[], 2).0].concat();
        for piece in answers.chunks(size) {
            ends.target.send(piece).await;
        }
        ends.client.expect(&answers).await;
        ends.finish().await;
        let log = gateway.gate.log();
        let mut log: Vec<_> =
            log.lines().filter(|line| !line.ends_with("durable")).map(str::to_owned).collect();
        log.sort();
        records.push(log);
    }
    assert_eq!(records[0], records[2]);
    assert_eq!(records[1], records[2]);
}

/// Attack 29.
#[tokio::test]
async fn several_results_are_one_answer() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.ask(&wire::query("CALL p(); SELECT 3")).await;
    let (one, next) = wire::rows(1, &["1", "2"], 0x0a);
    let (two, last) = wire::rows(next, &["3"], 0x0a);
    let ok = wire::packet(last, b"\0\x05\0\x02\0\0\0");
    ends.answer(&[one, two, ok].concat()).await;
    ends.ask(&wire::query("SELECT 4; SELEC")).await;
    let (one, next) = wire::rows(1, &["4"], 0x0a);
    ends.answer(&[one, wire::packet(next, &wire::err(1064, "42000", "no"))].concat()).await;
    ends.finish().await;
    assert!(gateway.gate.lines("1 ok")[0].starts_with("1 ok rows=8 "));
    assert!(gateway.gate.lines("2 error")[0].contains("rows=1"));
}

#[tokio::test]
async fn a_target_out_of_step_ends_the_session_and_nothing_of_it_is_passed_on() {
    for answer in [
        wire::packet(1, b"\x01more than a column count"),
        wire::packet(1, b""),
        wire::packet(1, b"\0"),
        [wire::packet(1, b"\x01"), wire::packet(2, &wire::column("a")), wire::packet(3, b"no EOF here")]
            .concat(),
    ] {
        let gateway = Gateway::new(Setup::default()).await;
        let mut ends = gateway.session().await;
        ends.ask(&wire::query("SELECT 1")).await;
        ends.target.send(&answer).await;
        assert_eq!(ends.target.packet(0).await, b"\x01", "it is left at once");
        drop(ends.target);
        ends.task.await.unwrap();
        assert_eq!(gateway.gate.lines("closed"), ["closed protocol"]);
        assert_eq!(gateway.gate.lines("1 aborted").len(), 1);
    }
    // Nothing was asked.
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.target.send(&wire::packet(1, wire::OK)).await;
    assert_eq!(ends.client.error(1).await, "1105 HY000 The target broke the protocol");
    ends.task.await.unwrap();
}
