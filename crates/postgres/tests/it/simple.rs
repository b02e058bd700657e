//! The simple query protocol.

use expect_test::expect;
use verbatim_core::RecordMode;

use crate::support::wire::*;
use crate::support::{Gateway, Setup};

#[tokio::test]
async fn a_query_is_recorded_durably_before_the_target_gets_its_bytes() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    gateway.gate.durable_to(0);
    ends.client.send(&query("SELECT 1")).await;
    gateway.gate.somebody_waits().await;
    ends.target.expect_nothing();
    gateway.gate.durable_to(u64::MAX);
    ends.target.expect(&query("SELECT 1")).await;
    let answer = [row_description(), data_row(b"1"), complete("SELECT 1"), ready(b'I')].concat();
    ends.target.send(&answer).await;
    ends.client.expect(&answer).await;
    ends.finish().await;
    expect![[r#"
        login with 5 bytes: db as ada by -
        1 query "SELECT 1"
        1 durable
        target Q
        1 ok rows=1 bytes=60
        closed client
        target X
    "#]]
    .assert_eq(&gateway.gate.log());
}

/// Attack 14: a Query is one operation, whole; its rows are the sum.
#[tokio::test]
async fn a_query_of_several_statements_is_one_operation() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let sql = "INSERT INTO t VALUES (1); DROP TABLE u; SELECT 1/0";
    ends.client.send(&query(sql)).await;
    ends.target.expect(&query(sql)).await;
    let answer = [
        complete("INSERT 0 3"),
        notice("u is gone"),
        complete("DROP TABLE"),
        complete("UPDATE 4"),
        error("22012", "division by zero"),
        ready(b'I'),
    ]
    .concat();
    ends.target.send(&answer).await;
    ends.client.expect(&answer).await;
    ends.finish().await;
    assert_eq!(
        gateway.gate.lines("1 error"),
        ["1 error rows=7 bytes=91 22012 division by zero [NOTICE 00000: u is gone]"]
    );
}

#[tokio::test]
async fn queries_sent_together_are_recorded_together_and_answered_in_order() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let both = [query("SELECT 1"), query("")].concat();
    ends.client.send(&both).await;
    ends.target.expect(&both).await;
    let answers = [complete("SELECT 1"), ready(b'I'), message(b'I', b""), ready(b'I')].concat();
    ends.target.send(&answers).await;
    ends.client.expect(&answers).await;
    ends.finish().await;
    expect![[r#"
        login with 5 bytes: db as ada by -
        1 query "SELECT 1"
        2 query ""
        1 durable
        2 durable
        target QQ
        1 ok rows=1 bytes=14
        2 ok bytes=5
        closed client
        target X
    "#]]
    .assert_eq(&gateway.gate.log());
}

/// Attack 23.
#[tokio::test]
async fn what_the_target_says_by_itself_reaches_the_client_and_disturbs_nothing() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let notification = message(b'A', b"\0\0\0\x07channel\0payload\0");
    let status = message(b'S', b"TimeZone\0UTC\0");
    let idle = [notification.clone(), status.clone(), notice("idle")].concat();
    ends.target.send(&idle).await;
    ends.client.expect(&idle).await;
    ends.client.send(&query("LISTEN channel")).await;
    ends.target.expect(&query("LISTEN channel")).await;
    let answer = [status, complete("LISTEN"), notification, ready(b'I')].concat();
    ends.target.send(&answer).await;
    ends.client.expect(&answer).await;
    ends.finish().await;
    assert_eq!(gateway.gate.lines("1 ok"), ["1 ok bytes=12"]);
}

/// Attack 52: the record has the bytes.
#[tokio::test]
async fn any_bytes_in_a_query_are_recorded_as_they_came() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let sql = message(b'Q', b"SELECT '\xff\n\x1b[31m\xe2\x80\xae'\0");
    ends.client.send(&sql).await;
    ends.target.expect(&sql).await;
    ends.target.send(&[complete("SELECT 0"), ready(b'I')].concat()).await;
    ends.client.expect(&[complete("SELECT 0"), ready(b'I')].concat()).await;
    ends.finish().await;
    assert_eq!(gateway.gate.lines("1 query"), [r#"1 query "SELECT \\'\\xff\\n\\x1b[31m\\xe2\\x80\\xae\\'""#]);
}

#[tokio::test]
async fn in_mode_results_what_the_client_gets_is_recorded() {
    let gateway = Gateway::new(Setup { record: RecordMode::Results, ..Setup::default() }).await;
    let mut ends = gateway.session().await;
    ends.client.send(&query("SELECT 1")).await;
    ends.target.expect(&query("SELECT 1")).await;
    let answer = [data_row(b"1"), notice("n"), complete("SELECT 1"), ready(b'I')].concat();
    ends.target.send(&answer).await;
    ends.client.expect(&answer).await;
    ends.finish().await;
    assert_eq!(
        gateway.gate.lines("1 result"),
        [
            r#"1 result "D\\x00\\x00\\x00\\x0b\\x00\\x01\\x00\\x00\\x00\\x011""#,
            r#"1 result "C\\x00\\x00\\x00\\rSELECT 1\\x00""#
        ]
    );
}

/// Attack 51, and a result larger than every buffer, while the client reads nothing yet.
#[tokio::test]
async fn large_texts_and_large_results_pass_whole() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let sql = query(&format!("/*{}*/ DROP TABLE t", "x".repeat(10 << 20)));
    let row = data_row(&vec![b'r'; 20 << 20]);
    let answer = [row, complete("SELECT 1"), ready(b'I')].concat();
    let target = async {
        ends.target.expect(&sql).await;
        ends.target.send(&answer).await;
    };
    let client = async {
        ends.client.send(&sql).await;
        ends.client.expect(&answer).await;
    };
    tokio::join!(target, client);
    ends.finish().await;
    let recorded = gateway.gate.lines("1 query");
    assert!(recorded[0].ends_with("*/ DROP TABLE t\"") && recorded[0].len() > 10 << 20);
    assert_eq!(gateway.gate.lines("1 ok"), [format!("1 ok rows=1 bytes={}", (20 << 20) + 11 + 14)]);
}

/// A client that sends and does not read, a target that answers before it reads: neither waits for the other for ever.
#[tokio::test]
async fn results_flow_while_a_batch_is_held_up() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.client.send(&query("SELECT 1")).await;
    ends.target.expect(&query("SELECT 1")).await;
    gateway.gate.durable_to(1);
    ends.client.send(&query("SELECT 2")).await;
    gateway.gate.somebody_waits().await;
    let answer = [complete("SELECT 1"), ready(b'I')].concat();
    ends.target.send(&answer).await;
    ends.client.expect(&answer).await;
    ends.target.expect_nothing();
    gateway.gate.durable_to(u64::MAX);
    ends.target.expect(&query("SELECT 2")).await;
    ends.target.send(&answer).await;
    ends.client.expect(&answer).await;
    ends.finish().await;
}
