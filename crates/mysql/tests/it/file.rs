//! LOAD DATA LOCAL INFILE.

use expect_test::expect;

use crate::support::wire;
use crate::support::{Gateway, Setup};

#[tokio::test]
async fn a_file_that_the_statement_names_is_recorded_before_it_is_forwarded() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.ask(&wire::query("LOAD DATA LOCAL INFILE '/tmp/a' INTO TABLE t")).await;
    ends.answer(&wire::packet(1, b"\xfb/tmp/a")).await;
    for packet in [wire::packet(2, b"1,one\n"), wire::packet(3, b"2,two\n"), wire::packet(4, b"")] {
        ends.ask(&packet).await;
    }
    ends.answer(&wire::packet(5, b"\0\x02\0\x02\0\0\0")).await;
    ends.ask(&wire::query("SELECT 1")).await;
    ends.answer(&wire::packet(1, wire::OK)).await;
    ends.finish().await;
    expect![[r#"
        login with 5 bytes: db as ada by report
        1 query "LOAD DATA LOCAL INFILE \\'/tmp/a\\' INTO TABLE t"
        1 durable
        target 0x03
        2 local_infile "/tmp/a"
        2 durable
        2 content "1,one\\n"
        2 durable
        target 0x31
        2 content "2,two\\n"
        2 durable
        target 0x32
        target 0x00
        2 ok content=12
        1 ok rows=2 bytes=22
        3 query "SELECT 1"
        3 durable
        target 0x03
        3 ok rows=0 bytes=11
        closed client
    "#]]
    .assert_eq(&gateway.gate.log());
}

#[tokio::test]
async fn each_file_of_several_statements_is_an_operation() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let load = |name: &str| format!("LOAD DATA LOCAL INFILE '{name}' INTO TABLE t");
    ends.ask(&wire::query(&format!("{}; {}", load("a"), load("b")))).await;
    ends.answer(&wire::packet(1, b"\xfba")).await;
    ends.ask(&wire::packet(2, b"1\n")).await;
    ends.ask(&wire::packet(3, b"")).await;
    // Another result follows: it asks for the other file.
    ends.answer(&[wire::packet(4, b"\0\x01\0\x0a\0\0\0"), wire::packet(5, b"\xfbb")].concat()).await;
    ends.ask(&wire::packet(6, b"2\n")).await;
    ends.ask(&wire::packet(7, b"")).await;
    ends.answer(&wire::packet(8, &wire::err(1062, "23000", "Duplicate entry"))).await;
    ends.ask(&wire::query("SELECT 1")).await;
    ends.answer(&wire::packet(1, wire::OK)).await;
    ends.finish().await;
    assert_eq!(gateway.gate.lines("2 ok"), ["2 ok content=2"]);
    assert_eq!(gateway.gate.lines("3 error"), ["3 error content=2 1062 Duplicate entry"]);
    assert!(gateway.gate.lines("1 error")[0].contains("rows=1"));
}

/// Attack 24.
#[tokio::test]
async fn a_rogue_server_that_asks_for_a_file_out_of_the_blue_gets_none() {
    for (statement, asked) in [
        ("SELECT 1", "/etc/passwd"),
        ("LOAD DATA LOCAL INFILE '/tmp/a' INTO TABLE t", "/etc/passwd"),
        ("SELECT 1 -- LOAD DATA LOCAL INFILE '/etc/passwd'", "/etc/passwd"),
    ] {
        let gateway = Gateway::new(Setup::default()).await;
        let mut ends = gateway.session().await;
        ends.ask(&wire::query(statement)).await;
        ends.target.send(&wire::packet(1, &[b"\xfb", asked.as_bytes()].concat())).await;
        assert_eq!(ends.client.error(1).await, "1105 HY000 The target broke the protocol");
        ends.client.end().await;
        ends.task.await.unwrap();
        assert_eq!(gateway.gate.lines("1 aborted").len(), 1);
        assert_eq!(gateway.gate.lines("closed"), ["closed protocol"]);
    }
}
