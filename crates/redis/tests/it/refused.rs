//! Refusals in the protocol's own words, and the stream in step afterwards.

use verbatim_core::Refusal;

use crate::support::{Gateway, Setup, command, commands};

fn denied() -> Refusal {
    Refusal::NotAllowed { code: "rule", reason: "why".into() }
}

/// Refuses what holds the word `forbidden`.
async fn strict() -> Gateway {
    let gateway = Gateway::new(Setup::default()).await;
    gateway.gate.judge(|operation| {
        let text = operation.text.as_deref().unwrap_or_default();
        text.windows(9).any(|word| word == b"forbidden").then(denied)
    });
    gateway
}

#[tokio::test]
async fn a_refusal_takes_the_place_of_the_reply() {
    let gateway = strict().await;
    let mut ends = gateway.session().await;
    ends.client.send(&commands(&["GET a", "SET forbidden 1", "GET b", "SET forbidden 2"])).await;
    ends.target.expect(&commands(&["GET a", "GET b"])).await;
    ends.target.send(b"$1\r\na\r\n$1\r\nb\r\n").await;
    ends.client.expect(b"$1\r\na\r\n").await;
    ends.client.error("-NOPERM ").await;
    ends.client.expect(b"$1\r\nb\r\n").await;
    ends.client.error("-NOPERM ").await;
    // One that nothing stands before is answered at once.
    ends.client.send(&command(&["SET", "forbidden", "3"])).await;
    ends.client.error("-NOPERM ").await;
    ends.ask(&["PING"], "+PONG\r\n").await;
    ends.leave().await;
}

/// Attack 37.
#[tokio::test]
async fn deny_within_multi_makes_exec_abort_and_nothing_runs_half() {
    let gateway = strict().await;
    let mut ends = gateway.session().await;
    ends.ask(&["MULTI"], "+OK\r\n").await;
    ends.ask(&["SET", "a", "1"], "+QUEUED\r\n").await;
    ends.client.send(&command(&["SET", "forbidden", "1"])).await;
    ends.target.expect(&command(&["VERBATIM.REFUSED"])).await;
    ends.target.send(b"-ERR unknown command 'VERBATIM.REFUSED'\r\n").await;
    ends.client.error("-NOPERM ").await;
    ends.ask(&["EXEC"], "-EXECABORT Transaction discarded because of previous errors.\r\n").await;
    ends.ask(&["GET", "a"], "$-1\r\n").await;
    ends.leave().await;
    assert_eq!(gateway.gate.lines("2 skipped").len(), 1);
    assert!(gateway.gate.lines("4 error")[0].contains(" EXECABORT "));
}

#[tokio::test]
async fn a_refused_exec_discards_at_the_target() {
    let gateway = Gateway::new(Setup::default()).await;
    gateway.gate.judge(|operation| (operation.text.as_deref() == Some(b"EXEC")).then(denied));
    let mut ends = gateway.session().await;
    ends.client.send(&commands(&["MULTI", "SET a 1", "EXEC", "GET a"])).await;
    ends.target.expect(&commands(&["MULTI", "SET a 1", "DISCARD", "GET a"])).await;
    ends.target.send(b"+OK\r\n+QUEUED\r\n+OK\r\n$-1\r\n").await;
    ends.client.expect(b"+OK\r\n+QUEUED\r\n").await;
    ends.client.error("-EXECABORT Transaction discarded because of: NOPERM ").await;
    ends.client.expect(b"$-1\r\n").await;
    ends.leave().await;
    assert_eq!(gateway.gate.lines("2 skipped").len(), 1);
}

/// Attack 38.
#[tokio::test]
async fn commands_for_the_servers_owner_are_refused_in_any_spelling_and_recorded() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    let lines = [
        "SHUTDOWN NOSAVE",
        "rEpLiCaOf NO ONE",
        "slaveof no one",
        "mOdUlE LoAd x.so",
        "MODULE loadex x",
        "module unload x",
        "DEBUG sleep 1",
        "SYNC",
        "psync ? -1",
        "REPLCONF listening-port 1",
        "FAILOVER",
        "cluster meet h 1",
        "CLIENT KILL ID 1",
    ];
    for line in lines {
        ends.client.send(&command(&line.split(' ').collect::<Vec<_>>())).await;
        ends.client.error("-NOPERM ").await;
    }
    // The same, as a line.
    ends.client.send(b"  \"shut\\x64own\"  nosave\r\n").await;
    ends.client.error("-NOPERM ").await;
    ends.ask(&["CONFIG", "SET", "maxmemory", "1"], "+OK\r\n").await;
    ends.ask(&["MODULE", "LIST"], "*0\r\n").await;
    ends.leave().await;
    assert_eq!(gateway.gate.log().matches("refused command").count(), lines.len() + 1);
}

#[tokio::test]
async fn allow_commands_lets_them_through() {
    let gateway =
        Gateway::new(Setup { allow: vec!["debug", "MODULE|LIST"][..1].to_vec(), ..Setup::default() }).await;
    let mut ends = gateway.session().await;
    ends.ask(&["DEBUG", "SLEEP", "0"], "+OK\r\n").await;
    ends.client.send(&command(&["SHUTDOWN"])).await;
    ends.client.error("-NOPERM ").await;
    ends.leave().await;
}

#[tokio::test]
async fn a_replication_stream_that_is_allowed_is_passed_on_whole() {
    let gateway = Gateway::new(Setup { allow: vec!["PSYNC", "REPLCONF"], ..Setup::default() }).await;
    let mut ends = gateway.session().await;
    ends.ask(&["REPLCONF", "capa", "eof"], "+OK\r\n").await;
    ends.up(&command(&["PSYNC", "?", "-1"])).await;
    ends.down(b"+FULLRESYNC 0 0\r\n$EOF:0123456789\r\n\x00\xff*9$\r\n").await;
    ends.up(&command(&["REPLCONF", "ACK", "0"])).await;
    ends.down(b"*1\r\n$4\r\nPING\r\n").await;
    ends.leave().await;
    assert_eq!(gateway.gate.lines("2 ok"), ["2 ok bytes=55"]);
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done_and_the_session_goes_on() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    gateway.gate.judge(|_| Some(Refusal::NotRecorded { reason: "No space left on device".into() }));
    ends.client.send(&command(&["SET", "a", "1"])).await;
    ends.client.error("-MISCONF ").await;
    gateway.gate.judge(|_| None);
    ends.ask(&["GET", "a"], "$-1\r\n").await;
    ends.leave().await;
}

#[tokio::test]
async fn a_login_in_a_transaction_is_refused() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.ask(&["MULTI"], "+OK\r\n").await;
    ends.client.send(&command(&["AUTH", "cache", "another"])).await;
    ends.target.expect(&command(&["VERBATIM.REFUSED"])).await;
    ends.target.send(b"-ERR unknown\r\n").await;
    ends.client.error("-ERR not supported through the gateway: a login in a transaction").await;
    ends.ask(&["EXEC"], "-EXECABORT no\r\n").await;
    ends.leave().await;
    assert!(!gateway.gate.log().contains("another"));
}

#[tokio::test]
async fn what_stands_behind_the_end_of_a_session_is_not_sent() {
    let gateway = Gateway::new(Setup::default()).await;
    gateway.gate.judge(|operation| (operation.text.as_deref() == Some(b"GET b")).then_some(Refusal::Expired));
    let mut ends = gateway.session().await;
    ends.client.send(&commands(&["GET a", "GET b", "GET c"])).await;
    ends.target.expect(&command(&["GET", "a"])).await;
    ends.down(b"$-1\r\n").await;
    ends.client.error("-NOAUTH the access token expired").await;
    ends.target.end().await;
    ends.over().await;
    assert_eq!(gateway.gate.lines("3 skipped").len(), 1);
    assert_eq!(gateway.gate.lines("closed"), ["closed expired"]);
}
