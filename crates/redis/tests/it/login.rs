//! From accept to the first command.

use verbatim_core::{RecordMode, Refusal};

use crate::support::{Gateway, NAME, Setup, command, commands};

#[tokio::test]
async fn auth_with_a_user_name_opens_a_session_on_the_connection_of_that_name() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.ask(&["GET", "k"], "$1\r\nv\r\n").await;
    ends.leave().await;
    assert_eq!(
        gateway.gate.log(),
        "login with 5 bytes: cache as cache by -\n\
        1 command \"GET k\" [{\"type\":\"bulk\",\"value\":\"k\"}]\n\
        1 durable\ntarget 20\n1 ok bytes=7\nclosed client\n"
    );
}

#[tokio::test]
async fn hello_with_auth_is_answered_by_the_target_without_the_token() {
    let gateway =
        Gateway::new(Setup { credential: Some("s3cret"), database: "/3", ..Setup::default() }).await;
    let (mut client, _task) = gateway.dial().await;
    client.send(&command(&["HELLO", "3", "AUTH", NAME, "token", "SETNAME", "worker"])).await;
    let mut target = gateway.accept().await;
    target.expect(&command(&["AUTH", "s3cret"])).await;
    target.send(b"+OK\r\n").await;
    target.expect(&command(&["SELECT", "3"])).await;
    target.send(b"+OK\r\n").await;
    target.expect(&command(&["HELLO", "3", "SETNAME", "worker"])).await;
    target.send(b"%1\r\n+proto\r\n:3\r\n").await;
    client.expect(b"%1\r\n+proto\r\n:3\r\n").await;
    client.send(&command(&["PING"])).await;
    target.expect(&command(&["PING"])).await;
    assert_eq!(gateway.gate.lines("login"), ["login with 5 bytes: cache as cache by worker"]);
    assert_eq!(gateway.gate.lines("1 command"), ["1 command \"PING\" []"]);
}

/// Attack 32.
#[tokio::test]
async fn commands_pipelined_before_auth_are_refused_each_and_none_is_forwarded() {
    let gateway = Gateway::new(Setup::default()).await;
    let (mut client, _task) = gateway.dial().await;
    let mut bytes = commands(&["SET a b", "FLUSHALL", "HELLO 3", "HELLO 4", "MULTI"]);
    bytes.extend_from_slice(b"FLUSHALL\r\n");
    bytes.extend(command(&["AUTH", NAME, "token"]));
    bytes.extend(command(&["PING"]));
    client.send(&bytes).await;
    for beginning in
        ["-NOAUTH Auth", "-NOAUTH Auth", "-NOAUTH HELLO", "-NOPROTO", "-NOAUTH Auth", "-NOAUTH Auth"]
    {
        client.error(beginning).await;
    }
    client.expect(b"+OK\r\n").await;
    let mut target = gateway.accept().await;
    // The first that it hears of is what came behind the login.
    target.expect(&command(&["PING"])).await;
    assert_eq!(gateway.gate.lines("1 "), ["1 command \"PING\" []", "1 durable"]);
}

#[tokio::test]
async fn auth_with_one_argument_is_refused_and_recorded() {
    let gateway = Gateway::new(Setup { own: true, ..Setup::default() }).await;
    let (mut client, _task) = gateway.dial().await;
    client.send(&command(&["AUTH", "token"])).await;
    client.error("-WRONGPASS ").await;
    client.send(&command(&["GET", "k"])).await;
    client.error("-NOAUTH ").await;
    assert_eq!(gateway.gate.log(), "login refused user: cache as - by -\n");
}

#[tokio::test]
async fn a_listener_of_its_own_takes_any_user_name() {
    let gateway = Gateway::new(Setup { own: true, ..Setup::default() }).await;
    let (mut client, _task) = gateway.dial().await;
    client.send(b"auth somebody token\r\n").await;
    client.expect(b"+OK\r\n").await;
    assert_eq!(gateway.gate.log(), "login with 5 bytes: cache as somebody by -\n");
}

#[tokio::test]
async fn a_refused_login_leaves_the_stream_for_another_but_not_for_ever() {
    let gateway = Gateway::new(Setup::default()).await;
    *gateway.gate.refuse_login.lock() = Some(Refusal::NotAllowed { code: "no_group", reason: "why".into() });
    let (mut client, task) = gateway.dial().await;
    for _ in 0..8 {
        client.send(&command(&["AUTH", NAME, "token"])).await;
        let line = client.line().await;
        assert!(line.starts_with("-NOPERM ") && !line.contains("why"), "{line}");
    }
    client.end().await;
    task.await.unwrap();
    assert_eq!(gateway.gate.lines("login refused no_group").len(), 8);
    assert_eq!(gateway.counts.junk(), 0);
}

#[tokio::test]
async fn a_token_over_the_limit_is_a_protocol_error_as_the_server_says_it() {
    let gateway = Gateway::new(Setup::default()).await;
    let (mut client, _task) = gateway.dial().await;
    client.send(b"*3\r\n$4\r\nAUTH\r\n$5\r\ncache\r\n$65536\r\nxxxx").await;
    client.error("-ERR Protocol error: unauthenticated bulk length").await;
    client.end().await;
    assert_eq!(gateway.gate.log(), "login refused protocol: cache as cache by -\n");
    let (mut client, _task) = gateway.dial().await;
    client.send(b"*11\r\n").await;
    client.error("-ERR Protocol error: unauthenticated multibulk length").await;
    client.end().await;
    let (mut client, _task) = gateway.dial().await;
    let token = "x".repeat(65_535);
    client.send(&command(&["AUTH", NAME, &token])).await;
    client.expect(b"+OK\r\n").await;
}

#[tokio::test]
async fn what_claims_nothing_is_counted() {
    let gateway = Gateway::new(Setup::default()).await;
    for junk in [&b""[..], b"GET / HTTP/1.1\r\nHost: x\r\n", b"QUIT\r\n", b"\x16\x03\x01\x02\x00\x01"] {
        let (mut client, task) = gateway.dial().await;
        client.send(junk).await;
        client.shutdown().await;
        task.await.unwrap();
    }
    assert_eq!((gateway.counts.junk(), gateway.gate.log()), (4, String::new()));
}

#[tokio::test]
async fn where_tls_is_configured_a_login_in_clear_is_refused_beyond_loopback() {
    let change = |listener: &mut verbatim_wire::Listener| {
        listener.loopback = false;
        listener.tls = Some(std::sync::Arc::new(|| panic!("nobody began TLS")));
    };
    let gateway = Gateway::new(Setup { change, ..Setup::default() }).await;
    let (mut client, _task) = gateway.dial().await;
    client.send(&command(&["AUTH", NAME, "token"])).await;
    client.error("-ERR this port takes logins over TLS alone").await;
    client.end().await;
    assert_eq!(gateway.gate.log(), "login refused clear: cache as cache by -\n");
}

#[tokio::test]
async fn the_name_that_comes_with_the_login_is_the_application_and_its_trace_the_sessions() {
    let gateway = Gateway::new(Setup::default()).await;
    let (mut client, _task) = gateway.dial().await;
    let trace = "traceparent=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let named = command(&["CLIENT", "SETNAME", trace]);
    client.send(&[command(&["AUTH", NAME, "token"]), named.clone(), command(&["PING"])].concat()).await;
    client.expect(b"+OK\r\n").await;
    let mut target = gateway.accept().await;
    target.expect(&[named, command(&["PING"])].concat()).await;
    assert!(gateway.gate.lines("login")[0].ends_with(trace));
    assert!(gateway.gate.lines("2 command")[0].ends_with("trace=4bf92f3577b34da6a3ce929d0e0e4736"));
}

#[tokio::test]
async fn another_auth_renews_the_session_and_never_reaches_the_target() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.client.send(&commands(&["GET a", "AUTH cache another", "GET b"])).await;
    ends.target.expect(&command(&["GET", "a"])).await;
    ends.target.send(b"$-1\r\n").await;
    ends.target.expect(&command(&["GET", "b"])).await;
    ends.target.send(b"$-1\r\n").await;
    ends.client.expect(b"$-1\r\n+OK\r\n$-1\r\n").await;
    ends.leave().await;
    let log = gateway.gate.log();
    let redacted = "2 command \"AUTH cache \\\"(redacted, 7 bytes)\\\"\" [{\"type\":\"bulk\",\"value\":\"cache\"},\
        {\"type\":\"redacted\",\"value\":\"(redacted, 7 bytes)\"}]";
    assert!(log.contains(&redacted.replace("\\\"(", "\\\\\\\"(").replace(")\\\"", ")\\\\\\\"")), "{log}");
    assert!(log.contains("renewed\n2 ok bytes=5\n") && !log.contains("another"), "{log}");
}

#[tokio::test]
async fn a_renewal_that_is_refused_leaves_the_session_as_it_was() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    *gateway.gate.refuse_renewal.lock() =
        Some(Refusal::NotAuthenticated { code: "identity", reason: "another person".into() });
    ends.client.send(&command(&["AUTH", NAME, "another"])).await;
    ends.client.error("-WRONGPASS ").await;
    ends.client.send(&command(&["AUTH", "other", "another"])).await;
    ends.client.error("-WRONGPASS ").await;
    ends.client.send(&command(&["AUTH", "another"])).await;
    ends.client.error("-WRONGPASS ").await;
    ends.ask(&["GET", "k"], "$-1\r\n").await;
    ends.leave().await;
    for sequence in 1..=3 {
        let outcome = gateway.gate.lines(&format!("{sequence} error")).pop().unwrap();
        assert!(outcome.contains(" WRONGPASS ") && !outcome.contains("another"), "{outcome}");
    }
}

#[tokio::test]
async fn hello_with_auth_renews_and_reaches_the_target_without_its_token() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.client.send(&command(&["hello", "3", "auth", NAME, "another"])).await;
    ends.target.expect(&command(&["HELLO", "3"])).await;
    ends.down(b"%0\r\n").await;
    ends.leave().await;
    let log = gateway.gate.log();
    assert!(log.contains("renewed\n") && log.contains("1 ok bytes=4") && !log.contains("another"), "{log}");
}

#[tokio::test]
async fn reset_logs_out_until_the_same_identity_logs_in_again() {
    let gateway = Gateway::new(Setup { credential: Some("s3cret"), ..Setup::default() }).await;
    let (mut client, _task) = gateway.dial().await;
    client.send(&command(&["AUTH", NAME, "token"])).await;
    let mut target = gateway.accept().await;
    target.expect(&command(&["AUTH", "s3cret"])).await;
    target.send(b"+OK\r\n").await;
    client.expect(b"+OK\r\n").await;
    client.send(&commands(&["RESET", "GET k"])).await;
    target.expect(&commands(&["RESET", "AUTH s3cret"])).await;
    target.send(b"+RESET\r\n+OK\r\n").await;
    client.expect(b"+RESET\r\n").await;
    client.error("-NOAUTH ").await;
    client.send(&commands(&["AUTH cache token", "GET k"])).await;
    client.expect(b"+OK\r\n").await;
    target.expect(&command(&["GET", "k"])).await;
    target.send(b"$-1\r\n").await;
    client.expect(b"$-1\r\n").await;
    let log = gateway.gate.log();
    assert!(log.contains("2 command \"GET k\"") && log.contains("refused reset\n"), "{log}");
    assert!(!log.contains("s3cret"), "{log}");
}

#[tokio::test]
async fn a_target_that_does_not_let_the_gateway_in_ends_the_session_without_its_words() {
    let gateway = Gateway::new(Setup { credential: Some("s3cret"), ..Setup::default() }).await;
    let (mut client, task) = gateway.dial().await;
    client.send(&command(&["AUTH", NAME, "token"])).await;
    let mut target = gateway.accept().await;
    target.expect(&command(&["AUTH", "s3cret"])).await;
    target.send(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n").await;
    client.error("-ERR the target did not accept the gateway").await;
    client.end().await;
    drop(client);
    task.await.unwrap();
    assert_eq!(gateway.gate.lines("closed"), ["closed target"]);
}

#[tokio::test]
async fn what_the_gateway_keeps_no_values_of_it_still_asks_for_by_text() {
    let gateway = Gateway::new(Setup { record: RecordMode::Commands, ..Setup::default() }).await;
    let mut ends = gateway.session().await;
    ends.ask(&["GET", "k"], "$1\r\nv\r\n").await;
    ends.leave().await;
    assert_eq!(gateway.gate.lines("1 command").len(), 1);
}
