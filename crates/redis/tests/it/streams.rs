//! What comes without being asked for, or does not come although it was.

use verbatim_core::RecordMode;

use crate::support::{Gateway, Setup, command, commands};

fn outcomes(gateway: &Gateway, last: u64) -> Vec<String> {
    let of = |sequence: u64| {
        let lines = gateway.gate.lines(&format!("{sequence} "));
        lines.into_iter().filter(|line| !line.contains("command") && !line.ends_with("durable"))
    };
    (1..=last).flat_map(of).collect()
}

/// Attack 35.
#[tokio::test]
async fn subscriptions_in_resp2_are_confirmed_one_by_one_between_messages() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.up(&commands(&["SUBSCRIBE a b"])).await;
    ends.down(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").await;
    ends.down(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$9\r\nsubscribe\r\n").await;
    ends.down(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n").await;
    ends.up(&commands(&["PSUBSCRIBE x*", "PING", "UNSUBSCRIBE", "PUNSUBSCRIBE x*", "LRANGE l 0 -1"])).await;
    ends.down(b"*4\r\n$8\r\npmessage\r\n$2\r\nx*\r\n$1\r\nx\r\n$1\r\n1\r\n").await;
    ends.down(b"*3\r\n$10\r\npsubscribe\r\n$2\r\nx*\r\n:3\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n").await;
    ends.down(b"*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:2\r\n*3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:1\r\n")
        .await;
    ends.down(b"*3\r\n$12\r\npunsubscribe\r\n$2\r\nx*\r\n:0\r\n").await;
    // Nothing is subscribed to any more, so this is a list.
    ends.down(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n").await;
    ends.ask(&["UNSUBSCRIBE"], "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n").await;
    ends.leave().await;
    assert_eq!(
        outcomes(&gateway, 7),
        [
            "1 ok bytes=60",
            "2 ok bytes=33",
            "3 ok bytes=20",
            "4 ok bytes=66",
            "5 ok bytes=35",
            "6 ok bytes=31",
            "7 ok bytes=31"
        ]
    );
}

#[tokio::test]
async fn pushes_in_resp3_come_between_replies_and_are_nobodys() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.ask(&["HELLO", "3"], "%0\r\n").await;
    ends.ask(&["CLIENT", "TRACKING", "ON"], "+OK\r\n").await;
    ends.up(&commands(&[
        "SUBSCRIBE a",
        "LRANGE l 0 -1",
        "SSUBSCRIBE s",
        "GET k",
        "UNSUBSCRIBE",
        "SUNSUBSCRIBE s",
    ]))
    .await;
    ends.down(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n").await;
    ends.down(b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n>3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n")
        .await;
    // In RESP3 a list is a reply, whatever it begins with.
    ends.down(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n").await;
    ends.down(b">3\r\n$10\r\nssubscribe\r\n$1\r\ns\r\n:1\r\n>3\r\n$8\r\nsmessage\r\n$1\r\ns\r\n$1\r\nm\r\n$1\r\nv\r\n").await;
    ends.down(b">3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n>3\r\n$12\r\nsunsubscribe\r\n$1\r\ns\r\n:0\r\n")
        .await;
    ends.ask(&["PING"], "+PONG\r\n").await;
    ends.leave().await;
    assert_eq!(
        outcomes(&gateway, 9),
        [
            "1 ok bytes=4",
            "2 ok bytes=5",
            "3 ok bytes=30",
            "4 ok bytes=31",
            "5 ok bytes=32",
            "6 ok bytes=7",
            "7 ok bytes=33",
            "8 ok bytes=34",
            "9 ok bytes=7"
        ]
    );
}

#[tokio::test]
async fn a_subscription_that_is_refused_is_one_error() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.ask(&["SUBSCRIBE", "a", "b"], "-NOPERM No permissions to access a channel\r\n").await;
    ends.ask(&["GET", "k"], "$-1\r\n").await;
    ends.leave().await;
    assert_eq!(
        outcomes(&gateway, 2),
        ["1 error bytes=44 NOPERM No permissions to access a channel", "2 ok bytes=5"]
    );
}

#[tokio::test]
async fn what_would_stand_among_execs_replies_is_refused_in_a_transaction() {
    for line in ["SUBSCRIBE a", "PSUBSCRIBE a", "UNSUBSCRIBE", "HELLO 3", "MONITOR"] {
        let gateway = Gateway::new(Setup::default()).await;
        let mut ends = gateway.session().await;
        ends.client.send(&commands(&["MULTI", line, "EXEC"])).await;
        ends.target.expect(&commands(&["MULTI", "VERBATIM.REFUSED", "EXEC"])).await;
        ends.target.send(b"+OK\r\n-ERR unknown command\r\n-EXECABORT no\r\n").await;
        ends.client.expect(b"+OK\r\n").await;
        ends.client.error("-ERR not supported through the gateway").await;
        ends.client.expect(b"-EXECABORT no\r\n").await;
        ends.leave().await;
    }
}

#[tokio::test]
async fn pushes_stand_among_execs_replies_and_are_none_of_them() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.ask(&["HELLO", "3"], "%0\r\n").await;
    ends.ask(&["SUBSCRIBE", "a"], ">3\r\n+subscribe\r\n+a\r\n:1\r\n").await;
    ends.up(&commands(&["MULTI", "PUBLISH a m", "GET k", "EXEC"])).await;
    ends.down(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n>3\r\n+message\r\n+a\r\n+m\r\n:1\r\n_\r\n").await;
    ends.leave().await;
    assert_eq!(outcomes(&gateway, 6)[2..], ["3 ok bytes=5", "4 ok bytes=4", "5 ok bytes=3", "6 ok bytes=4"]);
}

/// Attack 35.
#[tokio::test]
async fn monitor_streams_until_reset_and_takes_only_what_cannot_be_mistaken() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.up(&commands(&["TYPE k", "MONITOR"])).await;
    ends.down(b"+string\r\n+OK\r\n+1700000000.123456 [0 127.0.0.1:1] \"GET\" \"k\"\r\n").await;
    ends.client.send(&commands(&["GET k", "PING"])).await;
    ends.client.error("-ERR not supported through the gateway: a command other than PING").await;
    ends.target.expect(&commands(&["PING"])).await;
    ends.down(b"+1700000000.123457 [0 127.0.0.1:1] \"PING\"\r\n+PONG\r\n").await;
    ends.ask(&["RESET"], "+RESET\r\n").await;
    ends.client.send(&command(&["AUTH", "cache", "token"])).await;
    ends.client.expect(b"+OK\r\n").await;
    ends.ask(&["GET", "k"], "$-1\r\n").await;
    ends.leave().await;
    assert_eq!(
        outcomes(&gateway, 7),
        ["1 ok bytes=9", "2 ok bytes=5", "4 ok bytes=7", "5 ok bytes=8", "6 ok bytes=5", "7 ok bytes=5"]
    );
}

/// Attack 34.
#[tokio::test]
async fn commands_whose_reply_is_off_or_skipped_are_complete_once_something_behind_them_is_answered() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.up(&commands(&["CLIENT REPLY SKIP", "SET a 1", "GET a"])).await;
    ends.down(b"$1\r\n1\r\n").await;
    ends.up(&commands(&["client reply off", "SET a 2", "GET a"])).await;
    ends.up(&commands(&["CLIENT REPLY ON", "GET a"])).await;
    ends.down(b"+OK\r\n$1\r\n2\r\n").await;
    ends.leave().await;
    assert_eq!(
        outcomes(&gateway, 8),
        ["1 ok", "2 ok", "3 ok bytes=7", "4 ok", "5 ok", "6 ok", "7 ok bytes=5", "8 ok bytes=7"]
    );
}

/// Attack 34.
#[tokio::test]
async fn client_reply_in_a_transaction_is_refused_and_exec_aborts() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.client.send(&commands(&["MULTI", "SET a 1", "CLIENT REPLY OFF", "EXEC", "GET a"])).await;
    ends.target.expect(&commands(&["MULTI", "SET a 1", "VERBATIM.REFUSED", "EXEC", "GET a"])).await;
    ends.target.send(b"+OK\r\n+QUEUED\r\n-ERR unknown command\r\n-EXECABORT no\r\n$-1\r\n").await;
    ends.client.expect(b"+OK\r\n+QUEUED\r\n").await;
    ends.client.error("-ERR not supported through the gateway: CLIENT REPLY in a transaction").await;
    ends.client.expect(b"-EXECABORT no\r\n$-1\r\n").await;
    ends.leave().await;
    assert_eq!(
        outcomes(&gateway, 5),
        ["1 ok bytes=5", "2 skipped", "4 error bytes=15 EXECABORT no", "5 ok bytes=5"]
    );
}

#[tokio::test]
async fn a_transaction_without_replies_is_followed_all_the_same() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.up(&commands(&[
        "CLIENT REPLY OFF",
        "MULTI",
        "SET a 1",
        "EXEC",
        "MULTI",
        "SET a 2",
        "DISCARD",
        "CLIENT REPLY ON",
    ]))
    .await;
    ends.down(b"+OK\r\n").await;
    ends.leave().await;
    assert_eq!(
        outcomes(&gateway, 8),
        ["1 ok", "2 ok", "3 ok", "4 ok", "5 ok", "6 skipped", "7 ok", "8 ok bytes=5"]
    );
}

#[tokio::test]
async fn a_session_that_ends_without_replies_waits_until_the_target_has_read_all() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.up(&commands(&["CLIENT REPLY OFF", "SET a 1"])).await;
    ends.client.shutdown().await;
    ends.target.end().await;
    ends.target.shutdown().await;
    ends.over().await;
    assert_eq!(outcomes(&gateway, 2), ["1 ok", "2 ok"]);
}

#[tokio::test]
async fn a_client_reply_that_the_target_refuses_ends_the_session() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.up(&commands(&["CLIENT REPLY SKIP", "SET a 1", "GET a"])).await;
    ends.target
        .send(b"-NOPERM User app has no permissions to run the 'client|reply' command\r\n+OK\r\n")
        .await;
    ends.client.error("-ERR the target broke the protocol").await;
    ends.over().await;
    assert_eq!(gateway.gate.lines("closed"), ["closed protocol"]);
}

#[tokio::test]
async fn words_of_a_refusal_are_silent_where_replies_are() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.client
        .send(&commands(&[
            "CLIENT REPLY OFF",
            "SHUTDOWN",
            "CLIENT REPLY ON",
            "CLIENT REPLY SKIP",
            "DEBUG OBJECT k",
            "PING",
        ]))
        .await;
    ends.target
        .expect(&commands(&["CLIENT REPLY OFF", "CLIENT REPLY ON", "CLIENT REPLY SKIP", "PING"]))
        .await;
    ends.target.send(b"+OK\r\n+PONG\r\n").await;
    ends.client.expect(b"+OK\r\n").await;
    ends.client.expect(b"+PONG\r\n").await;
    ends.leave().await;
}

#[tokio::test]
async fn messages_are_recorded_under_what_asked_for_them_where_results_are() {
    let gateway = Gateway::new(Setup { record: RecordMode::Results, ..Setup::default() }).await;
    let mut ends = gateway.session().await;
    ends.up(&commands(&["SUBSCRIBE a"])).await;
    ends.down(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").await;
    ends.down(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n").await;
    ends.leave().await;
    let results = gateway.gate.lines("1 result");
    assert!(results.iter().any(|line| line.contains("message")), "{results:?}");
    assert_eq!(outcomes(&gateway, 1).pop().unwrap(), "1 ok bytes=61");
}
