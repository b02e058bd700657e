//! A real MariaDB: the gateway's login there, by each plugin and TLS mode that it has, and the server's own client.

use std::process::{Command, Stdio};
use std::sync::Arc;

use verbatim_testkit::mariadb::{MariaDb, Options};
use verbatim_wire::{Target, TargetTls};

use crate::support::{Gateway, Setup, settings};

const USERS: &str = "CREATE DATABASE customers; \
    CREATE USER app@'%' IDENTIFIED BY 'target-secret'; GRANT ALL ON *.* TO app@'%'; \
    CREATE USER signing@'%' IDENTIFIED VIA ed25519 USING PASSWORD('target-secret'); GRANT ALL ON *.* TO signing@'%'; \
    CREATE USER private@'%' IDENTIFIED BY 'target-secret' REQUIRE SSL; GRANT ALL ON *.* TO private@'%'";

fn target(url: &str, credential: &str, tls: TargetTls) -> Arc<dyn Target> {
    verbatim_mysql::interceptor().target(settings(url, Some(credential), tls)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_logs_in_by_each_plugin_and_tls_mode() {
    let server = MariaDb::start(Options { tls: true, ..Options::default() }).unwrap();
    server.run(USERS).unwrap();
    let port = server.port();
    let trusted = || TargetTls::load(Some(&server.ca()), None, None).unwrap();
    for (url, tls) in [
        (format!("mysql://app@127.0.0.1:{port}/customers"), TargetTls::default()),
        (format!("mysql://signing@127.0.0.1:{port}"), TargetTls::default()),
        (format!("mysql://app@127.0.0.1:{port}/customers?sslmode=require"), TargetTls::default()),
        (format!("mysql://private@127.0.0.1:{port}/customers?sslmode=verify-ca"), trusted()),
        (format!("mysql://signing@127.0.0.1:{port}/customers?sslmode=verify-full"), trusted()),
    ] {
        let said = target(&url, "target-secret", tls).check().await;
        assert!(said.as_ref().is_ok_and(|said| said.contains("MariaDB")), "{url}: {said:?}");
    }
    for (url, credential, words) in [
        (format!("mysql://app@127.0.0.1:{port}/customers"), "wrong", "(1045)"),
        (format!("mysql://signing@127.0.0.1:{port}"), "wrong", "(1045)"),
        (format!("mysql://private@127.0.0.1:{port}/customers"), "target-secret", "(1045)"),
        (format!("mysql://app@127.0.0.1:{port}/missing"), "target-secret", "(1049)"),
        (format!("mysql://app@127.0.0.1:{port}/customers?sslmode=verify-full"), "target-secret", "no TLS"),
    ] {
        let said = target(&url, credential, TargetTls::default()).check().await;
        assert!(said.as_ref().is_err_and(|said| said.contains(words)), "{url}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_that_is_required_and_not_offered_is_an_end() {
    let server = MariaDb::start(Options::default()).unwrap();
    server.run(USERS).unwrap();
    let url = format!("mysql://app@127.0.0.1:{}/customers?sslmode=require", server.port());
    let said = target(&url, "target-secret", TargetTls::default()).check().await.unwrap_err();
    assert!(said.contains("offers no TLS"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_client_on_a_port_of_the_connections_own() {
    let server = MariaDb::start(Options::default()).unwrap();
    server.run(USERS).unwrap();
    let url = format!("mysql://app@127.0.0.1:{}/customers", server.port());
    let target = target(&url, "target-secret", TargetTls::default());
    let setup = Setup { own: true, ..Setup::default() };
    let gateway = Gateway::to(vec![("db".to_owned(), "mysql", target)], setup);
    let port = gateway.port().await;
    // Its schema is the target's there.
    for (schema, expected) in [(None, "customers\n"), (Some("mysql"), "mysql\n")] {
        let mut client = Command::new("mariadb");
        client.args([
            "--no-defaults",
            "--protocol=tcp",
            "--host=127.0.0.1",
            "--user=ada",
            "--password=token",
        ]);
        client.arg(format!("--port={port}")).args([
            "--batch",
            "--skip-column-names",
            "--execute",
            "SELECT DATABASE()",
        ]);
        client.args(schema).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || client.output()).await.unwrap().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "{}", output.stderr.escape_ascii());
    }
    assert_eq!(gateway.gate.lines("closed").len(), 2);
    assert!(gateway.gate.lines("login")[0].starts_with("login with 5 bytes: db as ada by mysql"));
}
