//! COM_QUERY and the commands around it.

use expect_test::expect;

use crate::support::wire;
use crate::support::{Gateway, Setup};

#[tokio::test]
async fn a_query_is_recorded_before_it_is_forwarded_and_its_outcome_after_it() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.ask(&wire::query(
        "SELECT 'ä' /*traceparent='00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'*/",
    ))
    .await;
    let (rows, _) = wire::rows(1, &["1", "2"], 2);
    ends.answer(&rows).await;
    ends.ask(&wire::query("UPDATE t SET a = 1")).await;
    ends.answer(&wire::packet(1, b"\0\x03\0\x02\0\x01\0Rows matched: 3")).await;
    ends.ask(&wire::query("SELEC")).await;
    ends.answer(&wire::packet(1, &wire::err(1064, "42000", "You have an error"))).await;
    ends.finish().await;
    expect![[r#"
        login with 5 bytes: db as ada by report
        1 query "SELECT \\'\\xc3\\xa4\\' /*traceparent=\\'00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\\'*/" trace=4bf92f3577b34da6a3ce929d0e0e4736
        1 durable
        target 0x03
        1 ok rows=2 bytes=62
        2 query "UPDATE t SET a = 1"
        2 durable
        target 0x03
        2 ok rows=3 bytes=26 [WARNING: 1 warnings] [INFO: Rows matched: 3]
        3 query "SELEC"
        3 durable
        target 0x03
        3 error bytes=30 1064 You have an error
        closed client
    "#]]
    .assert_eq(&gateway.gate.log());
}
