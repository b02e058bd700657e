//! What becomes an operation, and what comes of it.

use verbatim_core::RecordMode;

use crate::support::{Gateway, Setup, command, commands};

#[tokio::test]
async fn a_pipeline_is_recorded_whole_before_it_is_forwarded_and_answered_in_order() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    gateway.gate.durable_to(0);
    let bytes = commands(&["SET a 1", "INCR a", "LPUSH a x", "GET a"]);
    ends.client.send(&bytes).await;
    gateway.gate.somebody_waits().await;
    ends.target.expect_nothing();
    gateway.gate.durable_to(u64::MAX);
    ends.target.expect(&bytes).await;
    ends.down(b"+OK\r\n:2\r\n-WRONGTYPE Operation against a key\r\n$1\r\n2\r\n").await;
    ends.leave().await;
    assert_eq!(gateway.gate.lines("1 ok"), ["1 ok bytes=5"]);
    assert_eq!(gateway.gate.lines("2 ok"), ["2 ok bytes=4"]);
    assert_eq!(gateway.gate.lines("3 error"), ["3 error bytes=36 WRONGTYPE Operation against a key"]);
    assert_eq!(gateway.gate.lines("4 ok"), ["4 ok bytes=7"]);
}

#[tokio::test]
async fn every_split_of_both_streams_makes_the_same_record() {
    let requests = commands(&["SET k v", "MULTI", "LRANGE l 0 -1", "EXEC", "PING"]);
    let replies = b"+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n*2\r\n$1\r\na\r\n*1\r\n:1\r\n+PONG\r\n";
    let mut expected: Option<Vec<String>> = None;
    for step in [1, 2, 3, 5, 7, 1000] {
        let gateway = Gateway::new(Setup::default()).await;
        let mut ends = gateway.session().await;
        for piece in requests.chunks(step) {
            ends.client.send(piece).await;
        }
        ends.target.expect(&requests).await;
        for piece in replies.chunks(step) {
            ends.target.send(piece).await;
        }
        ends.client.expect(replies).await;
        ends.leave().await;
        let mut log: Vec<String> = gateway.gate.log().lines().map(str::to_owned).collect();
        log.retain(|line| !line.starts_with("target") && !line.ends_with("durable"));
        // In which order decisions and outcomes are written depends on the pieces.
        log.sort();
        assert_eq!(*expected.get_or_insert_with(|| log.clone()), log, "pieces of {step}");
    }
}

#[tokio::test]
async fn binary_arguments_are_recorded_as_bytes_and_inline_lines_as_what_they_mean() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.up(b"*3\r\n$3\r\nSET\r\n$2\r\n\r\n\r\n$2\r\n\xff\x00\r\n").await;
    ends.down(b"+OK\r\n").await;
    ends.up(b"set 'a b' \"\\x41\\n\"\r\n").await;
    ends.down(b"+OK\r\n").await;
    ends.leave().await;
    assert_eq!(
        gateway.gate.lines("1 command"),
        [
            r#"1 command "SET \\\"\\\\r\\\\n\\\" \\\"\\\\xff\\\\x00\\\"" [{"type":"bulk","value":"\r\n"},{"type":"bulk","base64":"/wA="}]"#
        ]
    );
    assert_eq!(
        gateway.gate.lines("2 command"),
        [
            r#"2 command "set \\\"a b\\\" \\\"A\\\\n\\\"" [{"type":"bulk","value":"a b"},{"type":"bulk","value":"A\n"}]"#
        ]
    );
}

#[tokio::test]
async fn what_asks_for_nothing_is_no_operation_and_not_forwarded() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.client.send(b"\r\n*0\r\n*-1\r\n\n  \r\n").await;
    ends.ask(&["PING"], "+PONG\r\n").await;
    ends.leave().await;
    assert_eq!(gateway.gate.lines("1 command"), ["1 command \"PING\" []"]);
}

#[tokio::test]
async fn commands_of_a_transaction_are_answered_by_execs_array() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.up(&commands(&["MULTI", "SET a 1", "LPUSH a x", "HGETALL h", "EXEC", "PING"])).await;
    ends.down(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n").await;
    ends.down(b"*3\r\n+OK\r\n-WRONGTYPE no list\r\n*2\r\n$1\r\nf\r\n*1\r\n:1\r\n+PONG\r\n").await;
    ends.leave().await;
    let outcomes: Vec<String> = (1..=6)
        .flat_map(|seq| {
            let mut lines = gateway.gate.lines(&format!("{seq} "));
            lines.retain(|line| !line.contains("command") && !line.contains("durable"));
            lines
        })
        .collect();
    assert_eq!(
        outcomes,
        [
            "1 ok bytes=5",
            "2 ok bytes=5",
            "3 error bytes=20 WRONGTYPE no list",
            "4 ok bytes=19",
            "5 ok bytes=4",
            "6 ok bytes=7"
        ]
    );
}

#[tokio::test]
async fn what_a_transaction_discards_is_skipped() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.up(&commands(&["MULTI", "SET a 1", "DISCARD"])).await;
    ends.down(b"+OK\r\n+QUEUED\r\n+OK\r\n").await;
    ends.up(&commands(&["WATCH a", "MULTI", "SET a 1", "EXEC"])).await;
    ends.down(b"+OK\r\n+OK\r\n+QUEUED\r\n*-1\r\n").await;
    ends.up(&commands(&["MULTI", "SET a 1", "NONSENSE", "EXEC"])).await;
    ends.down(b"+OK\r\n+QUEUED\r\n-ERR unknown command\r\n-EXECABORT Transaction discarded\r\n").await;
    ends.up(&commands(&["MULTI", "SET a 1"])).await;
    ends.down(b"+OK\r\n+QUEUED\r\n").await;
    ends.leave().await;
    for skipped in [2, 6, 9, 13] {
        assert_eq!(gateway.gate.lines(&format!("{skipped} skipped")).len(), 1, "{skipped}");
    }
    assert_eq!(gateway.gate.lines("7 ok"), ["7 ok bytes=5"]);
    assert_eq!(gateway.gate.lines("10 error"), ["10 error bytes=22 ERR unknown command"]);
    assert_eq!(gateway.gate.lines("11 error"), ["11 error bytes=34 EXECABORT Transaction discarded"]);
}

#[tokio::test]
async fn resp3_types_of_every_kind_are_one_reply_each() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.ask(&["HELLO", "3"], "%1\r\n+proto\r\n:3\r\n").await;
    for (sequence, reply) in [
        "_\r\n",
        "#t\r\n",
        ",3.14\r\n",
        "(12345678901234567890123456789\r\n",
        "=7\r\ntxt:abc\r\n",
        "~2\r\n:1\r\n:2\r\n",
        "%2\r\n+a\r\n*0\r\n+b\r\n%1\r\n+c\r\n~0\r\n",
        "|1\r\n+ttl\r\n*1\r\n:1\r\n*1\r\n|1\r\n+x\r\n+y\r\n:5\r\n",
        "!9\r\nERR it is\r\n",
        "*0\r\n",
        "*-1\r\n",
        "$-1\r\n",
        "$0\r\n\r\n",
        "*2\r\n*2\r\n*1\r\n:1\r\n*0\r\n$1\r\nx\r\n",
    ]
    .iter()
    .enumerate()
    {
        ends.ask(&["X"], reply).await;
        let line = gateway.gate.lines(&format!("{} ", sequence + 2)).pop().unwrap();
        assert!(line.contains(&format!("bytes={}", reply.len())), "{reply:?}: {line}");
    }
    assert_eq!(gateway.gate.lines("10 error"), ["10 error bytes=15 ERR it is"]);
    ends.leave().await;
}

#[tokio::test]
async fn what_the_client_receives_is_recorded_where_results_are() {
    let gateway = Gateway::new(Setup { record: RecordMode::Results, ..Setup::default() }).await;
    let mut ends = gateway.session().await;
    ends.up(&commands(&["GET a", "MULTI", "GET b", "EXEC"])).await;
    ends.down(b"$1\r\na\r\n+OK\r\n+QUEUED\r\n*1\r\n$1\r\nb\r\n").await;
    ends.leave().await;
    assert_eq!(gateway.gate.lines("1 result"), [r#"1 result "$1\\r\\na\\r\\n""#]);
    assert_eq!(
        gateway.gate.lines("3 result"),
        [r#"3 result "+QUEUED\\r\\n""#, r#"3 result "$1\\r\\nb\\r\\n""#]
    );
    assert_eq!(gateway.gate.lines("4 result"), [r#"4 result "*1\\r\\n""#]);
}

#[tokio::test]
async fn secrets_inside_commands_are_recorded_as_their_length() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.up(&commands(&[
        "ACL SETUSER ada on >hunter2 ~* +@all",
        "config set requirepass hunter2",
        "MIGRATE h 1 k 0 9 AUTH hunter2",
        "CONFIG SET maxmemory 5 masterauth hunter2",
    ]))
    .await;
    ends.down(b"+OK\r\n+OK\r\n+OK\r\n+OK\r\n").await;
    ends.leave().await;
    let log = gateway.gate.log();
    assert!(!log.contains("hunter2"), "{log}");
    assert!(log.contains(">(redacted, 7 bytes)") && log.contains("maxmemory 5 masterauth"), "{log}");
}

#[tokio::test]
async fn quit_ends_the_session_and_what_follows_it_is_not_sent() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.client.send(&commands(&["QUIT", "FLUSHALL"])).await;
    ends.target.expect(&command(&["QUIT"])).await;
    ends.target.send(b"+OK\r\n").await;
    ends.client.expect(b"+OK\r\n").await;
    ends.target.end().await;
    ends.over().await;
    assert_eq!(gateway.gate.lines("closed"), ["closed client"]);
    assert!(gateway.gate.lines("2 ").is_empty());
}
