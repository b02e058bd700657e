//! Refusals of operations: in the protocol's own words, in their turn, and the stream in step afterwards.

use expect_test::expect;
use verbatim_core::Refusal;

use crate::support::wire::*;
use crate::support::{Gateway, Setup};

fn full() -> Refusal {
    Refusal::NotRecorded { reason: "No space left on device".into() }
}

/// A gateway that cannot record operations whose text contains `DROP`.
async fn gateway() -> Gateway {
    let gateway = Gateway::new(Setup::default()).await;
    gateway.gate.judge(|operation| {
        let text = operation.text.as_deref().unwrap_or_default();
        text.windows(4).any(|word| word == b"DROP").then(full)
    });
    gateway
}

const REFUSED: &str = "ERROR 53100 the gateway cannot record this, so it is not done";

/// Attack 8.
#[tokio::test]
async fn after_a_refused_query_the_next_runs_at_once() {
    let gateway = gateway().await;
    let mut ends = gateway.session().await;
    ends.client.send(&query("DROP TABLE t")).await;
    assert_eq!(ends.client.error().await, REFUSED);
    ends.client.expect(&ready(b'I')).await;
    ends.target.expect_nothing();
    ends.client.send(&query("BEGIN")).await;
    ends.target.expect(&query("BEGIN")).await;
    ends.target.send(&[complete("BEGIN"), ready(b'T')].concat()).await;
    ends.client.expect(&[complete("BEGIN"), ready(b'T')].concat()).await;
    // In the transaction, and between others: in its turn, with the state that is true then.
    ends.client.send(&[query("SELEC"), query("DROP TABLE t"), query("ROLLBACK")].concat()).await;
    ends.target.expect(&[query("SELEC"), query("ROLLBACK")].concat()).await;
    let failed = [error("42601", "syntax error"), ready(b'E')].concat();
    let rolled_back = [complete("ROLLBACK"), ready(b'I')].concat();
    ends.target.send(&[failed.clone(), rolled_back.clone()].concat()).await;
    ends.client.expect(&failed).await;
    assert_eq!(ends.client.error().await, REFUSED);
    ends.client.expect(&ready(b'E')).await;
    ends.client.expect(&rolled_back).await;
    ends.finish().await;
    assert_eq!(gateway.gate.lines("4 "), [r#"4 query "DROP TABLE t" refused not_recorded"#]);
}

/// Attack 7.
#[tokio::test]
async fn one_refused_in_a_pipeline_has_earlier_answers_first_and_one_error_and_one_ready_for_query() {
    let gateway = gateway().await;
    let mut ends = gateway.session().await;
    let one = |sql: &str| [parse("", sql, &[]), bind("", "", &[]), execute("", 0)].concat();
    let answer = |tag: &str| [parse_complete(), bind_complete(), complete(tag)].concat();
    let mut before = Vec::new();
    let mut answers = Vec::new();
    for _ in 0..500 {
        before.extend(one("SELECT 1"));
        answers.extend(answer("SELECT 1"));
    }
    let after = [one("SELECT 2").repeat(499), flush()].concat();
    let next = [one("SELECT 3"), sync()].concat();
    let all = [before.clone(), one("DROP TABLE t"), after, sync(), next.clone()].concat();
    let (client, target) = (&mut ends.client, &mut ends.target);
    // What leads up to the refused Execute goes on its way; the Execute, and what follows up to the Sync, does not.
    let led_up = [parse("", "DROP TABLE t", &[]), bind("", "", &[])].concat();
    let expected = [before, led_up, flush(), sync(), next].concat();
    tokio::join!(client.send(&all), target.expect(&expected));
    answers.extend([parse_complete(), bind_complete()].concat());
    let rest = [ready(b'I'), answer("SELECT 1"), ready(b'I')].concat();
    tokio::join!(
        async {
            target.send(&answers).await;
            target.send(&rest).await;
        },
        async {
            client.expect(&answers).await;
            assert_eq!(client.error().await, REFUSED);
            client.expect(&rest).await;
        }
    );
    ends.finish().await;
    let status = |word: &str| gateway.gate.lines("").iter().filter(|line| line.contains(word)).count();
    assert_eq!(
        (status(" ok "), status(" refused "), status(" skipped"), status(" aborted")),
        (501, 1, 499, 0)
    );
}

#[tokio::test]
async fn a_refused_prepare_leaves_its_name_alone() {
    let gateway = gateway().await;
    let mut ends = gateway.session().await;
    let keep = [parse("s", "SELECT 1", &[]), sync()].concat();
    ends.client.send(&keep).await;
    ends.target.expect(&keep).await;
    ends.target.send(&[parse_complete(), ready(b'I')].concat()).await;
    ends.client.expect(&[parse_complete(), ready(b'I')].concat()).await;
    let refused = [parse("s", "DROP TABLE t", &[]), sync()].concat();
    let run = [bind("", "s", &[]), execute("", 0), sync()].concat();
    ends.client.send(&[refused, run.clone()].concat()).await;
    ends.target.expect(&[sync(), run].concat()).await;
    ends.target.send(&ready(b'I')).await;
    assert_eq!(ends.client.error().await, REFUSED);
    ends.client.expect(&ready(b'I')).await;
    ends.target.send(&[bind_complete(), complete("SELECT 1"), ready(b'I')].concat()).await;
    ends.client.expect(&[bind_complete(), complete("SELECT 1"), ready(b'I')].concat()).await;
    ends.finish().await;
    assert_eq!(gateway.gate.lines("3 execute"), [r#"3 execute "SELECT 1" []"#]);
}

/// The target failed first, so that the client has its one error already.
#[tokio::test]
async fn a_refusal_behind_a_targets_error_is_silent() {
    let gateway = gateway().await;
    let mut ends = gateway.session().await;
    let fails = [parse("", "SELEC", &[]), bind("", "", &[]), execute("", 0)].concat();
    let refused = [parse("", "DROP", &[]), bind("", "", &[]), execute("", 0), sync()].concat();
    ends.client.send(&[fails.clone(), refused].concat()).await;
    ends.target.expect(&[fails, parse("", "DROP", &[]), bind("", "", &[]), sync()].concat()).await;
    let answer = [error("42601", "syntax error"), ready(b'I')].concat();
    ends.target.send(&answer).await;
    ends.client.expect(&answer).await;
    ends.finish().await;
    assert_eq!(gateway.gate.lines("1 error"), ["1 error 42601 syntax error"]);
}

#[tokio::test]
async fn an_expired_token_ends_the_session_with_the_next_operation() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    gateway.gate.judge(|_| Some(Refusal::Expired));
    ends.client.send(&query("SELECT 1")).await;
    assert_eq!(
        ends.client.error().await,
        "FATAL 57P01 terminating connection because the access token expired"
    );
    ends.client.end().await;
    ends.target.expect(&terminate()).await;
    ends.task.await.unwrap();
    expect![[r#"
        login with 5 bytes: db as ada by -
        1 query "SELECT 1" refused expired
        closed expired
        target X
    "#]]
    .assert_eq(&gateway.gate.log());
}
