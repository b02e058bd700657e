//! A real server: what a client receives is what it receives without the gateway, and what the server runs, by its own
//! MONITOR, is what is recorded, command by command, in order, with all arguments.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use verbatim_core::RecordMode;
use verbatim_testkit::gate::PATIENCE;
use verbatim_testkit::postgres::Tls;
use verbatim_testkit::redis::{Command, Options, Redis};
use verbatim_wire::{TargetSettings, TargetTls};

use crate::support::{Gateway, NAME, Setup, command};

fn server() -> Redis {
    Redis::start(Options { password: Some("s3cret".to_owned()), ..Options::default() }).unwrap()
}

fn gateway(server: &Redis, setup: Setup) -> Gateway {
    let setup = Setup { credential: Some("s3cret"), ..setup };
    Gateway::to(&format!("redis://127.0.0.1:{}", server.port()), setup)
}

/// Sends all of a script at once and reads up to the answer to its last command.
async fn run(port: u16, user: &str, token: &str, script: &[u8], last: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(&command(&["AUTH", user, token])).await.unwrap();
    stream.write_all(script).await.unwrap();
    let mut answer = Vec::new();
    read_until(&mut stream, &mut answer, last).await;
    answer
}

/// Reads until `wanted` has come.
async fn read_until(stream: &mut TcpStream, answer: &mut Vec<u8>, wanted: &[u8]) {
    while !answer.windows(wanted.len()).any(|window| window == wanted) {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(answer)).await;
        match read {
            Ok(Ok(1..)) => {}
            other => panic!("{other:?}, and no {} in {}", wanted.escape_ascii(), answer.escape_ascii()),
        }
    }
}

/// An operation, and whether the server ran it.
struct Recorded {
    arguments: Vec<Vec<u8>>,
    ran: bool,
}

/// Every operation that was forwarded, in order.
fn recorded(gateway: &Gateway) -> Vec<Recorded> {
    let mut commands = Vec::new();
    for line in gateway.gate.log().lines() {
        let Some((sequence, rest)) = line.split_once(" command \"") else { continue };
        let Some((text, list)) = rest.split_once("\" [") else { panic!("{line}") };
        let list = list.split(" trace=").next().unwrap();
        if list.contains("] refused ") {
            continue;
        }
        let list: serde_json::Value = serde_json::from_str(&format!("[{list}")).unwrap();
        let mut arguments = vec![text.split(' ').next().unwrap().as_bytes().to_vec()];
        for parameter in list.as_array().unwrap() {
            arguments.push(parameter["value"].as_str().unwrap().as_bytes().to_vec());
        }
        // Without an answer nobody knows.
        let ran = gateway.gate.lines(&format!("{sequence} ok bytes=")).len() == 1;
        commands.push(Recorded { arguments, ran });
    }
    commands
}

/// Holds what the server says that it ran against the record: all of it is there, in this order; and what it did not run is
/// recorded as an error or as skipped.
fn agree(ran: Vec<Command>, gateway: &Gateway) {
    let is_login = |arguments: &[Vec<u8>]| arguments[0].eq_ignore_ascii_case(b"AUTH");
    let mut ran = ran.into_iter().filter(|command| command.client != "lua" && !is_login(&command.arguments));
    let mut next = ran.next();
    for operation in recorded(gateway) {
        match &next {
            Some(command) if command.arguments == operation.arguments => next = ran.next(),
            _ => assert!(
                !operation.ran || is_login(&operation.arguments),
                "the server did not run {}, but {}\n{}",
                show(&operation.arguments),
                next.as_ref().map_or(String::new(), |command| show(&command.arguments)),
                gateway.gate.log()
            ),
        }
    }
    assert!(next.is_none(), "the server ran what is not recorded: {}", show(&next.unwrap().arguments));
}

fn show(arguments: &[Vec<u8>]) -> String {
    arguments.iter().map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
}

/// Runs a script without the gateway and through it. `USER` in it is the user's name.
async fn check(lines: &[&str], last: &[u8]) -> Gateway {
    let script = |user: &str| -> Vec<u8> {
        lines.iter().flat_map(|line| command(&words(&line.replace("USER", user)))).collect()
    };
    let direct = {
        let server = server();
        run(server.port(), "default", "s3cret", &script("default"), last).await
    };
    let server = server();
    let gateway = gateway(&server, Setup::default());
    let port = gateway.listen().await;
    let mut monitor = server.monitor().unwrap();
    let through = run(port, NAME, "s3cret", &script(NAME), last).await;
    assert_eq!(without_id(&direct), without_id(&through));
    agree(monitor.commands().unwrap(), &gateway);
    gateway
}

/// HELLO's answer holds the number of the stream.
fn without_id(answer: &[u8]) -> String {
    let answer = answer.escape_ascii().to_string();
    let mut pieces = answer.split(r"$2\r\nid\r\n:");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |all, piece| all + piece.trim_start_matches(|digit: char| digit.is_ascii_digit()))
}

/// Words, with quotes where one holds spaces.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for (place, piece) in line.split('\'').enumerate() {
        match place % 2 {
            0 => words.extend(piece.split_whitespace()),
            _ => words.push(piece),
        }
    }
    words
}

#[tokio::test]
async fn data_of_every_kind_in_one_pipeline() {
    check(
        &[
            "PING",
            "SET k v",
            "GET k",
            "APPEND k '\u{e4} and more'",
            "SETRANGE k 2 x",
            "GETDEL nothing",
            "MSET a 1 b 2",
            "MGET a b c",
            "INCRBY a 41",
            "EXPIRE a 1000",
            "LPUSH l 1 2 3",
            "LRANGE l 0 -1",
            "BLPOP l 1",
            "HSET h f v g w",
            "HGETALL h",
            "SADD s a",
            "SMEMBERS s",
            "ZADD z 1 a 2.5 b",
            "ZRANGE z 0 -1 WITHSCORES",
            "XADD x 1-1 f v",
            "XRANGE x - +",
            "XREAD BLOCK 10 STREAMS x 0",
            "GEOADD g 13.361389 38.115556 Palermo",
            "SETBIT bits 7 1",
            "PFADD p a b",
            "GET h",
            "NONSENSE a b",
            "GET",
            "OBJECT ENCODING k",
            "SCAN 0 COUNT 1000 MATCH zz*",
            "SELECT 3",
            "SET k db3",
            "SELECT 0",
            "COPY k k2",
            "DUMP nothing",
            "SORT l DESC",
            "ECHO end",
        ],
        b"$3\r\nend\r\n",
    )
    .await;
}

#[tokio::test]
async fn transactions_and_what_ends_them() {
    let gateway = check(
        &[
            "MULTI",
            "SET a 1",
            "INCR a",
            "LPUSH a x",
            "GET a",
            "EXEC",
            "MULTI",
            "SET a 9",
            "DISCARD",
            "GET a",
            "WATCH a",
            "SET a 5",
            "MULTI",
            "SET a 6",
            "EXEC",
            "GET a",
            "UNWATCH",
            "ECHO middle",
        ],
        b"$6\r\nmiddle\r\n",
    )
    .await;
    assert!(gateway.gate.log().contains(" skipped"), "{}", gateway.gate.log());
}

#[tokio::test]
async fn scripts_and_functions_with_their_bodies() {
    check(
        &[
            "EVAL 'return {KEYS[1], ARGV[1], redis.call(\"set\", KEYS[1], ARGV[1])}' 1 k v",
            "SCRIPT LOAD 'return 1'",
            "EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0",
            "EVALSHA ffffffffffffffffffffffffffffffffffffffff 0",
            "EVAL 'return redis.error_reply(\"MY error\")' 0",
            "FUNCTION LOAD '#!lua name=lib\nredis.register_function(\"one\", function() return 1 end)'",
            "FCALL one 0",
            "EVAL 'redis.setresp(3); return redis.call(\"hgetall\", KEYS[1])' 1 h",
            "ECHO end",
        ],
        b"$3\r\nend\r\n",
    )
    .await;
}

#[tokio::test]
async fn resp3_with_pushes_and_tracking() {
    check(
        &[
            "HSET h f v",
            "HELLO 3 SETNAME worker",
            "HGETALL h",
            "CLIENT TRACKING ON",
            "GET k",
            "SET k 1",
            "SUBSCRIBE a b",
            "PUBLISH a m",
            "PSUBSCRIBE x*",
            "SSUBSCRIBE s",
            "LRANGE nothing 0 -1",
            "SPUBLISH s m",
            "PUBLISH xy m",
            "UNSUBSCRIBE b",
            "UNSUBSCRIBE",
            "PUNSUBSCRIBE",
            "SUNSUBSCRIBE",
            "ZADD z 1.5 a",
            "ZRANGE z 0 -1 WITHSCORES",
            "OBJECT FREQ nothing",
            "RESET",
            "AUTH USER s3cret",
            "HGETALL h",
            "ECHO end",
        ],
        b"$3\r\nend\r\n",
    )
    .await;
}

#[tokio::test]
async fn subscriptions_in_resp2() {
    check(
        &[
            "SUBSCRIBE a b a",
            "PING",
            "UNSUBSCRIBE a",
            "PSUBSCRIBE x*",
            "GET k",
            "UNSUBSCRIBE",
            "PUNSUBSCRIBE",
            "UNSUBSCRIBE",
            "ECHO end",
        ],
        b"$3\r\nend\r\n",
    )
    .await;
}

#[tokio::test]
async fn replies_that_are_off() {
    let gateway = check(
        &[
            "CLIENT REPLY SKIP",
            "SET a 1",
            "GET a",
            "CLIENT REPLY OFF",
            "SET a 2",
            "MULTI",
            "SET a 3",
            "EXEC",
            "CLIENT REPLY ON",
            "GET a",
            "CLIENT REPLY SKIP",
            "CLIENT REPLY SKIP",
            "GET a",
            "GET a",
            "ECHO end",
        ],
        b"$3\r\nend\r\n",
    )
    .await;
    assert!(!gateway.gate.log().contains("aborted"), "{}", gateway.gate.log());
}

#[tokio::test]
async fn reset_in_the_middle_of_everything() {
    for before in [
        &["MULTI", "SET a 1"][..],
        &["SUBSCRIBE a"],
        &["CLIENT REPLY OFF"],
        &["HELLO 3"],
        &["SELECT 5"],
        &["MONITOR"],
    ] {
        let server = server();
        let gateway = gateway(&server, Setup { database: "/2", ..Setup::default() });
        let port = gateway.listen().await;
        let lines = before.iter().map(|line| words(line));
        let mut script: Vec<u8> = lines.flat_map(|words| command(&words)).collect();
        for line in ["RESET", "GET a"] {
            script.extend(command(&words(line)));
        }
        script.extend(command(&["AUTH", NAME, "token"]));
        for line in ["SET a db2", "CLIENT REPLY ON", "ECHO end"] {
            script.extend(command(&words(line)));
        }
        let answer = run(port, NAME, "token", &script, b"$3\r\nend\r\n").await;
        let answer = answer.escape_ascii().to_string();
        assert!(
            answer.contains(r"+RESET\r\n-NOAUTH ") && answer.ends_with(r"+OK\r\n+OK\r\n+OK\r\n$3\r\nend\r\n"),
            "{before:?}: {answer}"
        );
        assert_eq!(server.cli(&["-n", "2", "GET", "a"]).unwrap(), "db2", "{before:?}");
    }
}

#[tokio::test]
async fn a_refusal_in_a_transaction_leaves_the_server_as_it_was() {
    let server = server();
    let gateway = gateway(&server, Setup::default());
    let port = gateway.listen().await;
    let mut monitor = server.monitor().unwrap();
    let script: Vec<u8> = [
        "MULTI",
        "SET a 1",
        "SHUTDOWN",
        "SET b 1",
        "EXEC",
        "EXISTS a b",
        "MULTI",
        "SET a 2",
        "EXEC",
        "ECHO end",
    ]
    .iter()
    .flat_map(|line| command(&words(line)))
    .collect();
    let answer = run(port, NAME, "token", &script, b"$3\r\nend\r\n").await.escape_ascii().to_string();
    assert!(
        answer.contains(r"\r\n-EXECABORT ") && answer.contains(r":0\r\n+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n"),
        "{answer}"
    );
    agree(monitor.commands().unwrap(), &gateway);
}

#[tokio::test]
async fn monitor_shows_the_gateways_clients_what_it_shows_the_servers() {
    let server = server();
    let gateway = gateway(&server, Setup { record: RecordMode::Results, ..Setup::default() });
    let port = gateway.listen().await;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let script = [command(&["AUTH", NAME, "token"]), command(&["MONITOR"])].concat();
    stream.write_all(&script).await.unwrap();
    let mut answer = Vec::new();
    read_until(&mut stream, &mut answer, b"+OK\r\n+OK\r\n").await;
    server.cli(&["SET", "a", "1"]).unwrap();
    stream.write_all(&command(&["PING"])).await.unwrap();
    read_until(&mut stream, &mut answer, b"+PONG\r\n").await;
    assert!(answer.escape_ascii().to_string().contains(r#"\"SET\" \"a\" \"1\"\r\n"#));
    drop(stream);
    gateway.gate_closed().await;
    assert!(gateway.gate.lines("1 result").iter().any(|line| line.contains("SET")));
    assert_eq!(gateway.gate.lines("2 ok"), ["2 ok bytes=7"]);
}

#[tokio::test]
async fn a_client_of_tls_and_a_target_of_tls() {
    let options = Options {
        tls: Some(Tls::default()),
        password: Some("s3cret".to_owned()),
        settings: vec![("timeout".to_owned(), "0".to_owned())],
    };
    let server = Redis::start(options).unwrap();
    let tls = TargetTls::load(Some(&server.ca()), None, None).unwrap();
    let setup = Setup { credential: Some("s3cret"), ..Setup::default() };
    let gateway = Gateway::with_tls(&format!("rediss://localhost:{}", server.port()), setup, tls);
    let port = gateway.listen().await;
    let script = [command(&["SET", "k", &"v".repeat(300_000)]), command(&["STRLEN", "k"])].concat();
    let answer = run(port, NAME, "token", &script, b":300000\r\n").await;
    assert_eq!(answer, b"+OK\r\n+OK\r\n:300000\r\n");
}

#[tokio::test]
async fn redis_cli_logs_in_by_user_and_token() {
    let server = server();
    let gateway = gateway(&server, Setup::default());
    let port = gateway.listen().await.to_string();
    let cli = |arguments: &[&str]| {
        let mut cli = tokio::process::Command::new("redis-cli");
        cli.args(["-h", "127.0.0.1", "-p", &port, "--user", NAME, "--pass", "token", "--no-auth-warning"]);
        cli.args(arguments);
        async move { tokio::time::timeout(Duration::from_secs(20), cli.output()).await.unwrap().unwrap() }
    };
    let output = cli(&["-3", "SET", "k", "a value"]).await;
    assert_eq!(output.stdout, b"OK\n", "{output:?}");
    let output = cli(&["GET", "k"]).await;
    assert_eq!(output.stdout, b"a value\n", "{output:?}");
    assert!(gateway.gate.log().contains(r#"SET k \\\"a value\\\""#), "{}", gateway.gate.log());
}

#[tokio::test]
async fn a_target_is_checked_by_a_login() {
    let server = server();
    let check = async |url: &str, credential: &str| {
        let target = verbatim_redis::interceptor().target(TargetSettings {
            kind: "redis",
            url,
            credential: Some(credential.to_owned().into()),
            tls: TargetTls::default(),
            connect_timeout: PATIENCE,
            options: &(),
        });
        target.unwrap().check().await
    };
    let url = format!("redis://127.0.0.1:{}/1", server.port());
    assert!(check(&url, "s3cret").await.unwrap().starts_with("Redis 7."));
    let wrong = check(&url, "wr0ng").await.unwrap_err();
    assert!(wrong.contains("WRONGPASS") && !wrong.contains("wr0ng"), "{wrong}");
    let beyond = check(&format!("{url}00"), "s3cret").await.unwrap_err();
    assert!(beyond.contains("the target refused SELECT"), "{beyond}");
}

/// What a random script is made of.
const PIECES: [&str; 34] = [
    "SET a 1",
    "GET a",
    "INCR a",
    "APPEND a x",
    "LPUSH l x",
    "LRANGE l 0 -1",
    "MULTI",
    "MULTI",
    "EXEC",
    "EXEC",
    "DISCARD",
    "WATCH a",
    "MULTI x",
    "EXEC x",
    "NONSENSE",
    "GET",
    "SUBSCRIBE a",
    "SUBSCRIBE a b",
    "UNSUBSCRIBE a",
    "UNSUBSCRIBE b",
    "PSUBSCRIBE p*",
    "PUNSUBSCRIBE",
    "SSUBSCRIBE s",
    "SUNSUBSCRIBE",
    "PUBLISH a m",
    "PUBLISH p m",
    "HELLO 3",
    "HELLO 2",
    "CLIENT REPLY SKIP",
    "CLIENT REPLY OFF",
    "CLIENT REPLY ON",
    "PING",
    "SELECT 1",
    "RESET",
];

/// A script without what the gateway refuses: CLIENT REPLY in a transaction or among subscriptions, and the other way around.
fn script_of(choices: Vec<usize>) -> Vec<&'static str> {
    let (mut transaction, mut subscribed, mut silent) = (false, false, false);
    let mut script = Vec::new();
    for choice in choices {
        let line = PIECES[choice];
        let replies = line.starts_with("CLIENT");
        let subscribes = line.contains("SUBSCRIBE");
        // The server runs these within a transaction at once, and so shows them before what was queued.
        let at_once = matches!(line, "MULTI" | "WATCH a") && transaction;
        let hello = line.starts_with("HELLO");
        let streams = subscribes || hello;
        if (replies || streams) && transaction || replies && subscribed || streams && silent || at_once {
            continue;
        }
        script.push(line);
        match line {
            "MULTI" => transaction = true,
            "EXEC" | "DISCARD" => transaction = false,
            "RESET" => {
                script.push("AUTH USER s3cret");
                (transaction, subscribed, silent) = (false, false, false);
            }
            "CLIENT REPLY ON" => silent = false,
            _ => silent |= replies,
        }
        subscribed |= subscribes;
    }
    script.extend(["RESET", "AUTH USER s3cret", "ECHO end"]);
    script
}

#[tokio::test]
async fn random_scripts_are_answered_as_without_the_gateway_and_recorded_as_they_ran() {
    use proptest::strategy::{Strategy, ValueTree};
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let choices = proptest::collection::vec(0..PIECES.len(), 1..60);
    let direct = server();
    let behind = server();
    let mut monitor = behind.monitor().unwrap();
    for round in 0..150 {
        let lines = script_of(choices.new_tree(&mut runner).unwrap().current());
        let script = |user: &str| -> Vec<u8> {
            lines.iter().flat_map(|line| command(&words(&line.replace("USER", user)))).collect()
        };
        let expected = run(direct.port(), "default", "s3cret", &script("default"), b"$3\r\nend\r\n").await;
        let gateway = gateway(&behind, Setup::default());
        let port = gateway.listen().await;
        let through = run(port, NAME, "s3cret", &script(NAME), b"$3\r\nend\r\n").await;
        assert_eq!(
            without_id(&expected),
            without_id(&through),
            "round {round}: {lines:?}\n{}",
            gateway.gate.log()
        );
        gateway.gate_closed().await;
        agree(monitor.commands().unwrap(), &gateway);
        direct.cli(&["FLUSHALL"]).unwrap();
        behind.cli(&["FLUSHALL"]).unwrap();
        monitor.commands().unwrap();
    }
}
