//! The extended query protocol.

use std::fmt::Write as _;

use expect_test::expect;
use tokio::io::AsyncWriteExt;

use crate::support::wire::*;
use crate::support::{Gateway, Setup};

#[tokio::test]
async fn parse_bind_execute_in_one_batch_is_one_operation_with_its_parameters() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let batch = [
        parse("", "SELECT $1, $2, $3", &[23, 17, 0]),
        bind_as("", "", &[1, 1, 0], &[Some(&7_i32.to_be_bytes()), Some(b"\xff"), None]),
        describe_portal(""),
        execute("", 0),
        sync(),
    ]
    .concat();
    ends.client.send(&batch).await;
    ends.target.expect(&batch).await;
    let answer = [
        parse_complete(),
        bind_complete(),
        row_description(),
        data_row(b"7"),
        complete("SELECT 1"),
        ready(b'I'),
    ]
    .concat();
    ends.target.send(&answer).await;
    ends.client.expect(&answer).await;
    ends.finish().await;
    expect![[r#"
        login with 5 bytes: db as ada by -
        1 execute "SELECT $1, $2, $3" [{"type":"int4","value":"7"},{"type":"bytea","base64":"/w=="},{"type":"unknown","value":null}]
        1 durable
        target PBDES
        1 ok rows=1 bytes=26
        closed client
        target X
    "#]]
    .assert_eq(&gateway.gate.log());
}

/// What most drivers do: the statement is prepared in one batch and executed in others, with the types that the target
/// found.
#[tokio::test]
async fn a_parse_without_its_execute_is_a_prepare_and_described_types_decode_parameters() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let prepare = [parse("s1", "SELECT $1", &[]), describe_statement("s1"), sync()].concat();
    ends.client.send(&prepare).await;
    ends.target.expect(&prepare).await;
    let prepared = [parse_complete(), parameter_description(&[20]), row_description(), ready(b'I')].concat();
    ends.target.send(&prepared).await;
    ends.client.expect(&prepared).await;
    for number in [1_i64, -2] {
        let value = number.to_be_bytes();
        let run = [bind_as("", "s1", &[1], &[Some(&value)]), execute("", 0), sync()].concat();
        ends.client.send(&run).await;
        ends.target.expect(&run).await;
        let answer = [bind_complete(), complete("SELECT 1"), ready(b'I')].concat();
        ends.target.send(&answer).await;
        ends.client.expect(&answer).await;
    }
    ends.finish().await;
    assert_eq!(
        gateway
            .gate
            .lines("")
            .iter()
            .filter(|line| line.contains(" execute ") || line.contains(" prepare "))
            .collect::<Vec<_>>(),
        [
            r#"1 prepare "SELECT $1""#,
            r#"2 execute "SELECT $1" [{"type":"int8","value":"1"}]"#,
            r#"3 execute "SELECT $1" [{"type":"int8","value":"-2"}]"#,
        ]
    );
    assert_eq!(gateway.gate.lines("1 ok"), ["1 ok bytes=0"]);
}

/// The server runs an Execute when it reads it and tells of a failure at once; a client may wait for that before its Sync.
#[tokio::test]
async fn an_execute_does_not_wait_for_its_sync() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let run = [parse("s", "INSERT", &[]), bind("", "s", &[]), execute("", 0), bind("", "s", &[])].concat();
    let (executed, bound) = run.split_at(run.len() - bind("", "s", &[]).len());
    ends.client.send(&run).await;
    ends.target.expect(executed).await;
    let failed = [parse_complete(), bind_complete(), error("23505", "duplicate key")].concat();
    ends.target.send(&failed).await;
    ends.client.expect(&failed).await;
    ends.client.send(&[execute("", 0), sync()].concat()).await;
    ends.target.expect(&[bound, &execute("", 0), &sync()].concat()).await;
    ends.target.send(&ready(b'E')).await;
    ends.client.expect(&ready(b'E')).await;
    ends.finish().await;
    assert_eq!(gateway.gate.lines("1 error"), ["1 error bytes=42 23505 duplicate key"]);
    assert_eq!(gateway.gate.lines("2 "), [r#"2 execute "INSERT" []"#, "2 durable", "2 skipped"]);
}

/// The types come in answer to a Describe that was sent before its statement was there.
#[tokio::test]
async fn types_described_in_a_pipeline_decode_parameters() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let prepare = [parse("s", "SELECT $1", &[0]), sync(), describe_statement("s"), sync()].concat();
    ends.client.send(&prepare).await;
    ends.target.expect(&prepare).await;
    let prepared =
        [parse_complete(), ready(b'I'), parameter_description(&[23]), row_description(), ready(b'I')];
    ends.target.send(&prepared.concat()).await;
    ends.client.expect(&prepared.concat()).await;
    let run = [bind_as("", "s", &[1], &[Some(&7_i32.to_be_bytes())]), execute("", 0), sync()].concat();
    ends.client.send(&run).await;
    ends.target.expect(&run).await;
    let answer = [bind_complete(), complete("SELECT 1"), ready(b'I')].concat();
    ends.target.send(&answer).await;
    ends.client.expect(&answer).await;
    ends.finish().await;
    assert_eq!(gateway.gate.lines("2 execute"), [r#"2 execute "SELECT $1" [{"type":"int4","value":"7"}]"#]);
}

/// Attack 6: every message split at every byte gives the same record and the same bytes; N Executes before one Sync have
/// an outcome each.
#[tokio::test]
async fn any_split_of_a_batch_gives_the_same_record() {
    let batch = [
        parse("", "SELECT a", &[]),
        bind("", "", &[]),
        execute("", 1),
        execute("", 0),
        parse("", "", &[]),
        bind("", "", &[]),
        execute("", 0),
        parse("", "SELECT 1/0", &[]),
        bind("", "", &[]),
        execute("", 0),
        parse("p", "never run", &[]),
        bind("", "p", &[Some("x")]),
        execute("", 0),
        sync(),
    ]
    .concat();
    let answer = [
        parse_complete(),
        bind_complete(),
        data_row(b"1"),
        message(b's', b""),
        data_row(b"2"),
        complete("SELECT 1"),
        parse_complete(),
        bind_complete(),
        message(b'I', b""),
        parse_complete(),
        bind_complete(),
        error("22012", "division by zero"),
        ready(b'I'),
    ]
    .concat();
    let mut whole: Option<Vec<String>> = None;
    for step in [batch.len(), 1, 3, 7, 64] {
        let gateway = Gateway::new(Setup::default()).await;
        let mut ends = gateway.session().await;
        let (client, target) = (&mut ends.client, &mut ends.target);
        tokio::join!(
            async {
                for piece in batch.chunks(step) {
                    client.stream().write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            },
            target.expect(&batch)
        );
        tokio::join!(
            async {
                for piece in answer.chunks(step) {
                    target.stream().write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            },
            client.expect(&answer)
        );
        ends.finish().await;
        // How many wait for one sync depends on how much came at once.
        let lines = gateway.gate.lines("").into_iter();
        let log: Vec<String> = lines.filter(|line| !line.ends_with(" durable")).collect();
        assert_eq!(*whole.get_or_insert_with(|| log.clone()), log, "in pieces of {step}");
    }
    expect![[r#"
        login with 5 bytes: db as ada by -
        1 execute "SELECT a" []
        2 execute "SELECT a" []
        3 execute "" []
        4 execute "SELECT 1/0" []
        5 execute "never run" [{"type":"unknown","value":"x"}]
        target PBEEPBEPBEPBES
        1 ok rows=1 bytes=17
        2 ok rows=1 bytes=26
        3 ok bytes=5
        4 error bytes=45 22012 division by zero
        5 skipped
        closed client
        target X
    "#]]
    .assert_eq(&(whole.unwrap().join("\n") + "\n"));
}

/// Attack 16.
#[tokio::test]
async fn a_name_that_the_target_would_not_give_away_keeps_its_statement() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let first = [parse("s", "DELETE FROM t", &[]), sync()].concat();
    ends.client.send(&first).await;
    ends.target.expect(&first).await;
    ends.target.send(&[parse_complete(), ready(b'I')].concat()).await;
    ends.client.expect(&[parse_complete(), ready(b'I')].concat()).await;
    // All at once: the second Parse, and what relies on it.
    let second = [parse("s", "SELECT 1", &[]), sync()].concat();
    let run = [bind("", "s", &[]), execute("", 0), sync()].concat();
    ends.client.send(&[second.clone(), run.clone()].concat()).await;
    ends.target.expect(&second).await;
    let duplicate = [error("42P05", "prepared statement \"s\" already exists"), ready(b'I')].concat();
    ends.target.send(&duplicate).await;
    ends.client.expect(&duplicate).await;
    ends.target.expect(&run).await;
    let done = [bind_complete(), complete("DELETE 9"), ready(b'I')].concat();
    ends.target.send(&done).await;
    ends.client.expect(&done).await;
    ends.finish().await;
    assert_eq!(
        gateway.gate.lines("2 "),
        [
            r#"2 prepare "SELECT 1""#,
            "2 durable",
            "2 error bytes=66 42P05 prepared statement \"s\" already exists",
        ]
    );
    assert_eq!(gateway.gate.lines("3 execute"), [r#"3 execute "DELETE FROM t" []"#]);
    assert_eq!(gateway.gate.lines("3 ok"), ["3 ok rows=9 bytes=14"]);
}

/// Attack 16, in SQL: `DECLARE c CURSOR`, then Execute of the portal `c`; `DEALLOCATE` and `PREPARE` of a name that the
/// protocol knows.
#[tokio::test]
async fn names_that_sql_changes_are_followed() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let first = [parse("s", "SELECT 1", &[]), sync()].concat();
    ends.client.send(&first).await;
    ends.target.expect(&first).await;
    ends.target.send(&[parse_complete(), ready(b'I')].concat()).await;
    ends.client.expect(&[parse_complete(), ready(b'I')].concat()).await;
    let swap = query("BEGIN; DEALLOCATE s; PREPARE s AS DELETE FROM t; DECLARE \"C\" CURSOR FOR SELECT 2");
    let run = [bind("", "s", &[]), execute("", 0), execute("C", 5), execute("unknown", 0), sync()].concat();
    ends.client.send(&[swap.clone(), run.clone()].concat()).await;
    ends.target.expect(&swap).await;
    let swapped = [
        complete("BEGIN"),
        complete("DEALLOCATE"),
        complete("PREPARE"),
        complete("DECLARE CURSOR"),
        ready(b'T'),
    ]
    .concat();
    ends.target.send(&swapped).await;
    ends.client.expect(&swapped).await;
    ends.target.expect(&run).await;
    let done =
        [bind_complete(), complete("DELETE 9"), complete("FETCH 1"), error("34000", "no"), ready(b'E')]
            .concat();
    ends.target.send(&done).await;
    ends.client.expect(&done).await;
    ends.finish().await;
    let sql = r#""BEGIN; DEALLOCATE s; PREPARE s AS DELETE FROM t; DECLARE \"C\" CURSOR FOR SELECT 2""#
        .replace("\\\"", "\\\\\\\"");
    assert_eq!(gateway.gate.lines("3 execute"), [format!("3 execute {sql} []")]);
    assert_eq!(gateway.gate.lines("4 execute"), [format!("4 execute {sql} []")]);
    assert_eq!(gateway.gate.lines("5 execute"), ["5 execute -"]);
}

/// Words that only look like SQL which changes names hide nothing.
#[tokio::test]
async fn a_batch_after_an_innocent_column_keeps_its_texts() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let batch = [
        parse("s", "SELECT 2", &[]),
        parse("", "SELECT declared_at, prepare FROM deallocate", &[]),
        bind("", "", &[]),
        execute("", 0),
        bind("", "s", &[]),
        execute("", 0),
        parse("", "DEALLOCATE s", &[]),
        bind("", "", &[]),
        execute("", 0),
        bind("", "s", &[]),
        execute("", 0),
        sync(),
    ]
    .concat();
    ends.client.send(&batch).await;
    ends.target.expect(&batch).await;
    drop(ends.target);
    drop(ends.client);
    ends.task.await.unwrap();
    assert_eq!(gateway.gate.lines("2 execute"), [r#"2 execute "SELECT 2" []"#]);
    assert_eq!(gateway.gate.lines("4 execute"), ["4 execute - []"]);
}

/// Attack 10.
#[tokio::test]
async fn flush_without_sync_delivers_answers_and_outcomes() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let batch = [parse("", "SELECT 1", &[]), bind("", "", &[]), execute("", 0), flush()].concat();
    ends.client.send(&batch).await;
    ends.target.expect(&batch).await;
    let answer = [parse_complete(), bind_complete(), complete("SELECT 1")].concat();
    ends.target.send(&answer).await;
    ends.client.expect(&answer).await;
    assert_eq!(gateway.gate.lines("1 ok"), ["1 ok rows=1 bytes=14"]);
    ends.client.send(&sync()).await;
    ends.target.expect(&sync()).await;
    ends.target.send(&ready(b'I')).await;
    ends.client.expect(&ready(b'I')).await;
    ends.finish().await;
}

#[tokio::test]
async fn an_error_at_bind_is_the_outcome_of_its_execute_and_one_at_sync_of_the_last() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let batch =
        [parse("", "SELECT $1::int", &[]), bind("", "", &[Some("x")]), execute("", 0), sync()].concat();
    ends.client.send(&batch).await;
    ends.target.expect(&batch).await;
    let answer = [parse_complete(), error("22P02", "invalid input"), ready(b'I')].concat();
    ends.target.send(&answer).await;
    ends.client.expect(&answer).await;
    let batch = [parse("", "INSERT", &[]), bind("", "", &[]), execute("", 0), sync()].concat();
    ends.client.send(&batch).await;
    ends.target.expect(&batch).await;
    let answer =
        [parse_complete(), bind_complete(), complete("INSERT 0 1"), error("23503", "deferred"), ready(b'I')]
            .concat();
    ends.target.send(&answer).await;
    ends.client.expect(&answer).await;
    ends.finish().await;
    assert_eq!(gateway.gate.lines("1 error"), ["1 error 22P02 invalid input"]);
    assert_eq!(gateway.gate.lines("2 error"), ["2 error rows=1 bytes=16 23503 deferred"]);
}

#[tokio::test]
async fn a_closed_statement_is_known_no_more_and_a_function_call_is_recorded() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let batch =
        [parse("s", "SELECT 1", &[]), close_statement("s"), bind("", "s", &[]), execute("", 0), sync()]
            .concat();
    ends.client.send(&batch).await;
    ends.target.expect(&batch).await;
    let answer =
        [parse_complete(), message(b'3', b""), error("26000", "no such statement"), ready(b'I')].concat();
    ends.target.send(&answer).await;
    ends.client.expect(&answer).await;
    // Attack 9.
    let call = message(b'F', b"\0\0\x04\xd2\0\0\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\0");
    ends.client.send(&call).await;
    ends.target.expect(&call).await;
    let answer = [message(b'V', b"\0\0\0\x01x"), ready(b'I')].concat();
    ends.target.send(&answer).await;
    ends.client.expect(&answer).await;
    ends.finish().await;
    assert_eq!(gateway.gate.lines("2 "), ["2 execute - []", "2 durable", "2 error 26000 no such statement"]);
    assert_eq!(
        gateway.gate.lines("3 "),
        [
            r#"3 function_call - [{"type":"oid","value":"1234"},{"type":"unknown","value":"ab"},{"type":"unknown","value":null}]"#,
            "3 durable",
            "3 ok bytes=10",
        ]
    );
}

/// A batch without end is cut where it has grown too long, and its Parse counts as prepared.
#[tokio::test]
async fn a_batch_is_held_back_only_so_far() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let mut batch = parse("s", "SELECT $1", &[]);
    let long = "x".repeat(100 << 10);
    for _ in 0..4 {
        batch.extend(bind("", "s", &[Some(&long)]));
    }
    let (client, target) = (&mut ends.client, &mut ends.target);
    let cut = batch.len() - bind("", "s", &[Some(&long)]).len();
    tokio::join!(client.send(&batch), target.expect(&batch[..cut]));
    ends.client.send(&sync()).await;
    ends.target.expect(&[&batch[cut..], &sync()].concat()).await;
    ends.target.send(&[parse_complete(), bind_complete().repeat(4), ready(b'I')].concat()).await;
    ends.client.expect(&[parse_complete(), bind_complete().repeat(4), ready(b'I')].concat()).await;
    ends.finish().await;
    assert_eq!(gateway.gate.lines("1 prepare"), [r#"1 prepare "SELECT $1""#]);
}

/// Attack 7, without the denial: a thousand batches in one write have a thousand outcomes.
#[tokio::test]
async fn a_thousand_executes_have_a_thousand_outcomes() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let mut batch = parse("s", "INSERT", &[]);
    let mut answer = parse_complete();
    let mut expected = String::new();
    for number in 1..=1000 {
        batch.extend([bind("", "s", &[Some("1")]), execute("", 0)].concat());
        answer.extend([bind_complete(), complete("INSERT 0 1")].concat());
        writeln!(expected, "{number} ok rows=1 bytes=16").unwrap();
    }
    batch.extend(sync());
    answer.extend(ready(b'I'));
    let (client, target) = (&mut ends.client, &mut ends.target);
    tokio::join!(client.send(&batch), target.expect(&batch));
    tokio::join!(target.send(&answer), client.expect(&answer));
    ends.finish().await;
    let outcomes: String = gateway
        .gate
        .lines("")
        .iter()
        .filter(|line| line.contains(" ok "))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(outcomes, expected);
}
