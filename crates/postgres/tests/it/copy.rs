//! COPY from the client.

use expect_test::expect;
use verbatim_core::Refusal;

use crate::support::wire::*;
use crate::support::{Gateway, Setup};

const SQL: &str = "COPY t FROM STDIN";

/// Attack 11: the content is recorded, durably, before the target gets it.
#[tokio::test]
async fn copy_data_is_one_operation_after_its_command() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.client.send(&query(SQL)).await;
    ends.target.expect(&query(SQL)).await;
    ends.target.send(&copy_in()).await;
    ends.client.expect(&copy_in()).await;
    gateway.gate.durable_to(1);
    ends.client.send(&[copy_data(b"1\n"), copy_data(b"2\n")].concat()).await;
    gateway.gate.somebody_waits().await;
    ends.target.expect_nothing();
    gateway.gate.durable_to(u64::MAX);
    ends.target.expect(&[copy_data(b"1\n"), copy_data(b"2\n")].concat()).await;
    ends.client.send(&[copy_data(b"3\n"), copy_done()].concat()).await;
    ends.target.expect(&[copy_data(b"3\n"), copy_done()].concat()).await;
    ends.target.send(&[complete("COPY 3"), ready(b'I')].concat()).await;
    ends.client.expect(&[complete("COPY 3"), ready(b'I')].concat()).await;
    ends.finish().await;
    expect![[r#"
        login with 5 bytes: db as ada by -
        1 query "COPY t FROM STDIN"
        1 durable
        target Q
        2 copy_data -
        2 durable
        2 content "1\\n2\\n"
        2 durable
        target dd
        2 content "3\\n"
        2 durable
        target dc
        2 ok content=6
        1 ok rows=3 bytes=20
        closed client
        target X
    "#]]
    .assert_eq(&gateway.gate.log());
}

/// Attack 11: rust-postgres sends a Sync before the data, which the target ignores, and one after it.
#[tokio::test]
async fn a_sync_among_copy_data_disturbs_nothing() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let begin = [parse("", SQL, &[]), bind("", "", &[]), execute("", 0), sync()].concat();
    ends.client.send(&begin).await;
    ends.target.expect(&begin).await;
    ends.target.send(&[parse_complete(), bind_complete(), copy_in()].concat()).await;
    ends.client.expect(&[parse_complete(), bind_complete(), copy_in()].concat()).await;
    let data = [copy_data(b"1\n"), sync(), flush(), copy_done(), sync()].concat();
    ends.client.send(&data).await;
    ends.target.expect(&data).await;
    ends.target.send(&[complete("COPY 1"), ready(b'I')].concat()).await;
    ends.client.expect(&[complete("COPY 1"), ready(b'I')].concat()).await;
    ends.client.send(&query("SELECT 1")).await;
    ends.target.expect(&query("SELECT 1")).await;
    ends.target.send(&[complete("SELECT 1"), ready(b'I')].concat()).await;
    ends.client.expect(&[complete("SELECT 1"), ready(b'I')].concat()).await;
    ends.finish().await;
    assert_eq!(gateway.gate.lines("1 ok"), ["1 ok rows=1 bytes=20"]);
    assert_eq!(gateway.gate.lines("2 ok"), ["2 ok content=2"]);
    assert_eq!(gateway.gate.lines("3 ok"), ["3 ok rows=1 bytes=14"]);
}

/// Attack 11: the target fails the COPY while data is on its way; what still comes is nobody's.
#[tokio::test]
async fn data_after_the_targets_error_is_dropped_and_the_next_query_runs() {
    for extended in [false, true] {
        let gateway = Gateway::new(Setup::default()).await;
        let mut ends = gateway.session().await;
        let begin = match extended {
            true => [parse("", SQL, &[]), bind("", "", &[]), execute("", 0), sync()].concat(),
            false => query(SQL),
        };
        ends.client.send(&begin).await;
        ends.target.expect(&begin).await;
        if extended {
            ends.target.send(&[parse_complete(), bind_complete()].concat()).await;
            ends.client.expect(&[parse_complete(), bind_complete()].concat()).await;
        }
        ends.target.send(&copy_in()).await;
        ends.client.expect(&copy_in()).await;
        ends.client.send(&copy_data(b"x\n")).await;
        ends.target.expect(&copy_data(b"x\n")).await;
        // In the extended protocol it reads the first Sync (sent before the data) or the last; one answers.
        ends.target.send(&[error("22P02", "invalid input"), ready(b'I')].concat()).await;
        ends.client.expect(&[error("22P02", "invalid input"), ready(b'I')].concat()).await;
        let late = [copy_data(b"y\n"), copy_fail("stop")].concat();
        ends.client.send(&[late, query("SELECT 1")].concat()).await;
        ends.target.expect(&query("SELECT 1")).await;
        ends.target.send(&[complete("SELECT 1"), ready(b'I')].concat()).await;
        ends.client.expect(&[complete("SELECT 1"), ready(b'I')].concat()).await;
        ends.finish().await;
        assert_eq!(gateway.gate.lines("2 error"), ["2 error content=2 22P02 invalid input"]);
        assert_eq!(gateway.gate.lines("3 ok"), ["3 ok rows=1 bytes=14"]);
    }
}

/// A target that waits for data would wait until the session is given up, and the COPY's fate would not be on record.
#[tokio::test]
async fn a_client_that_leaves_in_its_copy_ends_it() {
    for (goodbye, data) in [(true, true), (true, false), (false, true)] {
        let gateway = Gateway::new(Setup::default()).await;
        let mut ends = gateway.session().await;
        ends.client.send(&query(SQL)).await;
        ends.target.expect(&query(SQL)).await;
        ends.target.send(&copy_in()).await;
        ends.client.expect(&copy_in()).await;
        if data {
            ends.client.send(&copy_data(b"1\n")).await;
            ends.target.expect(&copy_data(b"1\n")).await;
        }
        if goodbye {
            ends.client.send(&terminate()).await;
        }
        drop(ends.client);
        ends.target.expect(&copy_fail("the client left")).await;
        ends.target.send(&[error("57014", "COPY from stdin failed"), ready(b'I')].concat()).await;
        ends.target.expect(&terminate()).await;
        ends.task.await.unwrap();
        assert_eq!(gateway.gate.lines("1 error").len(), 1, "{}", gateway.gate.log());
        assert_eq!(gateway.gate.lines("2 error").len(), usize::from(data), "{}", gateway.gate.log());
        assert_eq!(gateway.gate.lines("closed"), ["closed client"]);
    }
}

#[tokio::test]
async fn a_client_that_fails_its_copy_has_the_targets_error() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.client.send(&query(SQL)).await;
    ends.target.expect(&query(SQL)).await;
    ends.target.send(&copy_in()).await;
    ends.client.expect(&copy_in()).await;
    ends.client.send(&copy_fail("no more")).await;
    ends.target.expect(&copy_fail("no more")).await;
    ends.target.send(&[error("57014", "COPY failed"), ready(b'I')].concat()).await;
    ends.client.expect(&[error("57014", "COPY failed"), ready(b'I')].concat()).await;
    ends.finish().await;
    assert_eq!(gateway.gate.lines("2 error"), ["2 error content=0 57014 COPY failed"]);
}

/// All in one write, as no driver does, and in two COPYs of one Query.
#[tokio::test]
async fn data_sent_before_the_target_asks_for_it_waits_until_it_does() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let sql = "COPY a FROM STDIN; COPY b FROM STDIN";
    let first = [copy_data(b"a"), copy_done()].concat();
    let second = [copy_data(b"b"), copy_done()].concat();
    ends.client.send(&[query(sql), first.clone(), second.clone()].concat()).await;
    ends.target.expect(&query(sql)).await;
    ends.target.send(&copy_in()).await;
    ends.target.expect(&first).await;
    ends.target.send(&[complete("COPY 1"), copy_in()].concat()).await;
    ends.target.expect(&second).await;
    ends.target.send(&[complete("COPY 1"), ready(b'I')].concat()).await;
    ends.client
        .expect(&[copy_in(), complete("COPY 1"), copy_in(), complete("COPY 1"), ready(b'I')].concat())
        .await;
    ends.finish().await;
    assert_eq!(gateway.gate.lines("1 ok"), ["1 ok rows=2 bytes=40"]);
    assert_eq!(gateway.gate.lines("2 ok"), ["2 ok content=1"]);
    assert_eq!(gateway.gate.lines("3 ok"), ["3 ok content=1"]);
}

/// Attack 49: data that cannot be recorded is not forwarded, and everybody stays in step.
#[tokio::test]
async fn data_that_cannot_be_recorded_fails_the_copy() {
    let gateway = Gateway::new(Setup::default()).await;
    gateway.gate.judge(|operation| {
        (operation.kind == "copy_data")
            .then(|| Refusal::NotRecorded { reason: "No space left on device".into() })
    });
    let mut ends = gateway.session().await;
    ends.client.send(&query(SQL)).await;
    ends.target.expect(&query(SQL)).await;
    ends.target.send(&copy_in()).await;
    ends.client.expect(&copy_in()).await;
    ends.client.send(&[copy_data(b"1\n"), copy_data(b"2\n"), copy_done()].concat()).await;
    ends.target.expect(&copy_fail("refused by the gateway")).await;
    let failed = [error("57014", "COPY from stdin failed: refused by the gateway"), ready(b'I')].concat();
    ends.target.send(&failed).await;
    ends.client.expect(&failed).await;
    ends.client.send(&query("SELECT 1")).await;
    ends.target.expect(&query("SELECT 1")).await;
    ends.target.send(&[complete("SELECT 1"), ready(b'I')].concat()).await;
    ends.client.expect(&[complete("SELECT 1"), ready(b'I')].concat()).await;
    ends.finish().await;
    assert_eq!(gateway.gate.lines("2 copy_data"), ["2 copy_data - refused not_recorded"]);
}

/// What a client sends instead of data has no answer that could be told from others.
#[tokio::test]
async fn a_query_on_its_way_to_a_target_that_takes_data_ends_the_session() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let both = [query(SQL), query("SELECT 1")].concat();
    ends.client.send(&both).await;
    ends.target.expect(&both).await;
    ends.target.send(&copy_in()).await;
    assert_eq!(ends.client.error().await, "FATAL 08P01 the target broke the protocol");
    ends.task.await.unwrap();
    assert_eq!(gateway.gate.lines("2 aborted"), ["2 aborted"]);
    // And later than that, it is the client who broke it.
    let mut ends = gateway.session().await;
    ends.client.send(&query(SQL)).await;
    ends.target.expect(&query(SQL)).await;
    ends.target.send(&copy_in()).await;
    ends.client.expect(&copy_in()).await;
    ends.client.send(&query("SELECT 1")).await;
    ends.target.expect(&copy_fail("refused by the gateway")).await;
    let failed = [error("57014", "COPY failed"), ready(b'I')].concat();
    ends.target.send(&failed).await;
    ends.client.expect(&failed).await;
    assert_eq!(ends.client.error().await, "FATAL 08P01 protocol violation");
    ends.task.await.unwrap();
}

/// COPY to the client, larger than every buffer.
#[tokio::test]
async fn copy_out_is_counted() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.client.send(&query("COPY t TO STDOUT")).await;
    ends.target.expect(&query("COPY t TO STDOUT")).await;
    let mut answer = message(b'H', b"\0\0\0");
    answer.extend(copy_data(&[b'x'; 995]).repeat(1000));
    answer.extend([copy_done(), complete("COPY 1000"), ready(b'I')].concat());
    tokio::join!(ends.target.send(&answer), ends.client.expect(&answer));
    ends.finish().await;
    assert_eq!(gateway.gate.lines("1 ok"), ["1 ok rows=1000 bytes=1000028"]);
}
