//! Prepared statements: texts, types, values, long data, cursors.

use expect_test::expect;

use crate::support::wire::{self, flag};
use crate::support::{Gateway, Setup};

/// Attack 26.
#[tokio::test]
async fn values_are_decoded_with_the_types_that_were_sent_before() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.prepared(7, "SELECT ?, ?", 2).await;
    let (rows, _) = wire::rows(1, &["1"], 2);
    ends.ask(&wire::execute(7, 0, b"\0\x01\x03\0\xfd\0\x05\0\0\0\x02ab")).await;
    ends.answer(&rows).await;
    ends.ask(&wire::execute(7, 0, b"\0\0\x06\0\0\0\x02cd")).await;
    ends.answer(&rows).await;
    ends.ask(&wire::execute(7, 0, b"\x02\0\x07\0\0\0")).await;
    ends.answer(&rows).await;
    ends.ask(&wire::close(7)).await;
    ends.finish().await;
    expect![[r#"
        login with 5 bytes: db as ada by report
        1 prepare "SELECT ?, ?"
        1 durable
        target 0x16
        1 ok bytes=79
        2 execute "SELECT ?, ?" [{"type":"int","value":"5"},{"type":"varchar","value":"ab"}]
        2 durable
        target 0x17
        2 ok rows=1 bytes=56
        3 execute "SELECT ?, ?" [{"type":"int","value":"6"},{"type":"varchar","value":"cd"}]
        3 durable
        target 0x17
        3 ok rows=1 bytes=56
        4 execute "SELECT ?, ?" [{"type":"int","value":"7"},{"type":"varchar","value":null}]
        4 durable
        target 0x17
        4 ok rows=1 bytes=56
        5 close "SELECT ?, ?"
        5 durable
        5 ok
        target 0x19
        closed client
    "#]]
    .assert_eq(&gateway.gate.log());
}

/// Attack 26.
#[tokio::test]
async fn long_data_is_its_parameters_value_and_of_an_unknown_statement_it_has_no_answer() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.prepared(7, "INSERT INTO t VALUES (?)", 1).await;
    ends.ask(&wire::long_data(7, 0, b"ab")).await;
    ends.ask(&wire::long_data(7, 0, b"cd")).await;
    ends.client.send(&wire::long_data(8, 0, b"to nobody")).await;
    ends.ask(&wire::long_data(7, 5, b"no such parameter")).await;
    ends.ask(&wire::execute(7, 0, b"\0\x01\xfc\0")).await;
    ends.answer(&wire::packet(1, wire::OK)).await;
    // Used up.
    ends.ask(&wire::execute(7, 0, b"\x01\0")).await;
    ends.answer(&wire::packet(1, wire::OK)).await;
    ends.finish().await;
    let executed = gateway.gate.log();
    let executed: Vec<_> =
        executed.lines().filter(|line| line.contains(" execute ") || line.contains("refused")).collect();
    assert_eq!(
        executed,
        [
            r#"4 long_data "\\x18\\x08\\x00\\x00\\x00\\x00\\x00to nobody" refused protocol"#,
            r#"6 execute "INSERT INTO t VALUES (?)" [{"type":"blob","base64":"YWJjZA=="}]"#,
            r#"7 execute "INSERT INTO t VALUES (?)" [{"type":"blob","value":null}]"#,
        ]
    );
}

#[tokio::test]
async fn an_unknown_statement_is_the_gateways_to_refuse() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.client.send(&wire::execute(9, 0, b"")).await;
    assert_eq!(
        ends.client.error(1).await,
        "1243 HY000 Unknown prepared statement handler (9) given to mysqld_stmt_execute"
    );
    // Drivers close what a reset has closed already.
    ends.ask(&wire::close(9)).await;
    ends.prepared(9, "SELECT 1", 0).await;
    ends.ask(&wire::command(0x1f, b"")).await;
    ends.answer(&wire::packet(1, wire::OK)).await;
    ends.client.send(&wire::execute(9, 0, b"")).await;
    assert!(ends.client.error(1).await.starts_with("1243 "), "the reset has dropped it");
    ends.finish().await;
}

/// A command that uses a statement waits for the answer that says which it is.
#[tokio::test]
async fn a_statement_is_used_under_the_text_that_its_number_has() {
    let gateway = Gateway::new(Setup { version: "5.5.5-10.11.19-MariaDB", ..Setup::default() }).await;
    let mut ends = gateway.session().await;
    let last = wire::execute(u32::MAX, 0, b"");
    ends.client.send(&[wire::prepare("DELETE FROM t"), last.clone()].concat()).await;
    ends.target.expect(&wire::prepare("DELETE FROM t")).await;
    ends.target.expect_nothing();
    ends.answer(&wire::packet(1, b"\0\x07\0\0\0\0\0\0\0\0\0\0")).await;
    ends.target.expect(&last).await;
    ends.answer(&wire::packet(1, wire::OK)).await;
    ends.finish().await;
    assert_eq!(gateway.gate.lines("2 execute"), [r#"2 execute "DELETE FROM t" []"#]);
}

#[tokio::test]
async fn rows_of_a_cursor_are_fetched() {
    for deprecated in [false, true] {
        let capabilities = if deprecated { flag::PLAIN | flag::DEPRECATE_EOF } else { flag::PLAIN };
        let gateway = Gateway::new(Setup { capabilities, ..Setup::default() }).await;
        let mut ends = gateway.session_with(capabilities).await;
        ends.prepared(7, "SELECT a FROM t", 0).await;
        ends.ask(&wire::execute(7, 1, b"")).await;
        let end = if deprecated { b"\xfe\0\0\x42\0\0\0".to_vec() } else { wire::eof(0x42) };
        let opened = [wire::packet(1, b"\x01"), wire::packet(2, &wire::column("a")), wire::packet(3, &end)];
        ends.answer(&opened.concat()).await;
        let fetch = wire::command(0x1c, b"\x07\0\0\0\x02\0\0\0");
        ends.ask(&fetch).await;
        ends.answer(
            &[wire::packet(1, b"\0\0\x011"), wire::packet(2, b"\0\0\x012"), wire::packet(3, &end)].concat(),
        )
        .await;
        ends.finish().await;
        assert_eq!(
            gateway.gate.lines("3 fetch"),
            [r#"3 fetch "SELECT a FROM t" [{"type":"int unsigned","value":"2"}]"#]
        );
        assert!(gateway.gate.lines("3 ok")[0].contains("rows=2"), "{}", gateway.gate.log());
    }
}

/// Attack 27.
#[tokio::test]
async fn query_attributes_stand_beside_the_text() {
    let capabilities = flag::PLAIN | flag::QUERY_ATTRIBUTES;
    let gateway = Gateway::new(Setup { capabilities, ..Setup::default() }).await;
    let mut ends = gateway.session_with(capabilities).await;
    ends.ask(&wire::command(3, b"\0\x01SELECT 1")).await;
    ends.answer(&wire::packet(1, wire::OK)).await;
    let trace = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let attributes = [
        &b"\x02\x01\0\x01"[..],
        b"\xfd\0\x0btraceparent",
        b"\x03\0\x01n",
        &wire::lenenc(trace),
        b"\x05\0\0\0SELECT 2",
    ];
    ends.ask(&wire::command(3, &attributes.concat())).await;
    ends.answer(&wire::packet(1, wire::OK)).await;
    ends.prepared(7, "SELECT ?", 1).await;
    ends.ask(&wire::execute(7, 8, b"\x02\0\x01\x03\0\0\xfd\0\x01a\x05\0\0\0\x01x")).await;
    ends.answer(&wire::packet(1, wire::OK)).await;
    ends.client.send(&wire::command(3, b"\x05\x01SELECT 3")).await;
    assert_eq!(ends.client.error(1).await, "1835 HY000 Malformed communication packet.");
    ends.finish().await;
    let texts = gateway.gate.log();
    let texts: Vec<_> = texts.lines().filter(|line| line.contains("SELECT")).collect();
    assert_eq!(
        texts,
        [
            r#"1 query "SELECT 1""#,
            r#"2 query "SELECT 2" attributes=[{\"name\":\"traceparent\",\"type\":\"varchar\",\"value\":\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"},{\"name\":\"n\",\"type\":\"int\",\"value\":\"5\"}] trace=4bf92f3577b34da6a3ce929d0e0e4736"#,
            r#"3 prepare "SELECT ?""#,
            r#"4 execute "SELECT ?" [{"type":"int","value":"5"}] attributes=[{\"name\":\"a\",\"type\":\"varchar\",\"value\":\"x\"}]"#,
            r#"5 query "\\x05\\x01SELECT 3" refused protocol"#,
        ]
    );
}

/// MariaDB's, with the values of every row.
#[tokio::test]
async fn a_bulk_execution_has_every_rows_values() {
    let capabilities = (flag::PLAIN & !flag::MYSQL) | flag::BULK | flag::PROGRESS;
    let setup = Setup { version: "5.5.5-10.11.19-MariaDB", capabilities, ..Setup::default() };
    let gateway = Gateway::new(setup).await;
    let mut ends = gateway.session_with(capabilities).await;
    ends.prepared(7, "INSERT INTO t VALUES (?, ?)", 2).await;
    let rows = b"\x07\0\0\0\x80\0\x03\0\xfd\0\0\x05\0\0\0\0\x01a\0\x06\0\0\0\x01";
    ends.ask(&wire::command(0xfa, rows)).await;
    // How far it is, and then that it is done.
    ends.answer(&wire::packet(1, b"\xff\xff\xff\x01\x01\x01\0\0\0\x04half")).await;
    ends.answer(&wire::packet(2, b"\0\x02\0\x02\0\0\0")).await;
    ends.finish().await;
    assert_eq!(
        gateway.gate.lines("2 bulk"),
        [
            r#"2 bulk_execute "INSERT INTO t VALUES (?, ?)" [{"type":"int","value":"5"},{"type":"varchar","value":"a"},{"type":"int","value":"6"},{"type":"varchar","value":null}]"#
        ]
    );
    assert!(gateway.gate.lines("2 ok")[0].contains("rows=2"));
}
