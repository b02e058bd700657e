//! A real server and a real driver, with the interceptor between them.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use tokio_postgres::{Client, Config, NoTls};
use verbatim_postgres::Target;
use verbatim_postgres::target::TargetSettings;
use verbatim_testkit::postgres::{Options, Postgres};

use crate::support::{Gateway, Setup};

fn server() -> Postgres {
    let auth = vec!["host all app 127.0.0.1/32 scram-sha-256".to_owned()];
    let server = Postgres::start(Options { auth, log_statement: true, ..Options::default() }).unwrap();
    server.psql("CREATE ROLE app LOGIN PASSWORD 'secret'").unwrap();
    server.psql("CREATE DATABASE customers OWNER app").unwrap();
    server
}

fn gateway(server: &Postgres) -> Gateway {
    let settings =
        TargetSettings { credential: Some("secret".to_owned().into()), ..TargetSettings::default() };
    let url = format!("postgres://app@127.0.0.1:{}/customers", server.port());
    Gateway::to(Arc::new(Target::parse(&url, settings).unwrap()), Setup::default())
}

/// A driver's session; its stream is driven by a task of its own.
async fn connect(gateway: &Gateway) -> Client {
    let (peer, _) = gateway.dial().await;
    let mut config = Config::new();
    config.user("ada").password("token").dbname("db").application_name("agent");
    let (client, connection) = config.connect_raw(peer.into_stream(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn a_driver_works_as_without_the_gateway() {
    let server = server();
    let gateway = gateway(&server);
    let mut client = connect(&gateway).await;
    client
        .batch_execute("CREATE TABLE t (id int primary key, name text); INSERT INTO t VALUES (1, 'a')")
        .await
        .unwrap();
    let statement = client.prepare("SELECT name FROM t WHERE id = $1").await.unwrap();
    for _ in 0..2 {
        let row = client.query_one(&statement, &[&1_i32]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "a");
    }
    // Pipelined.
    let (one, two) = tokio::join!(
        client.query_one(&statement, &[&1_i32]),
        client.execute("UPDATE t SET name = $1", &[&"b"])
    );
    assert_eq!((one.unwrap().len(), two.unwrap()), (1, 1));
    let failed = client.execute("INSERT INTO t VALUES ($1, NULL)", &[&1_i32]).await.unwrap_err();
    assert_eq!(failed.code().unwrap().code(), "23505");
    // COPY, both ways.
    let sink = client.copy_in("COPY t FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(bytes::Bytes::from_static(b"2\tc\n3\td\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 2);
    let copied = client.copy_out("COPY t TO STDOUT").await.unwrap();
    assert_eq!(copied.count().await, 3);
    // A COPY that fails, and the session in step after it.
    let sink = client.copy_in("COPY t FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(bytes::Bytes::from_static(b"2\tdouble\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap_err().code().unwrap().code(), "23505");
    // Portals with a row limit, in a transaction that is rolled back.
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT id FROM t ORDER BY id", &[]).await.unwrap();
    assert_eq!(transaction.query_portal(&portal, 2).await.unwrap().len(), 2);
    assert_eq!(transaction.query_portal(&portal, 2).await.unwrap().len(), 1);
    transaction.rollback().await.unwrap();
    let application = client.query_one("SHOW application_name", &[]).await.unwrap();
    assert_eq!(application.get::<_, &str>(0), "agent");
    drop(client);
    let log = gateway.gate.log();
    for line in [
        r#"execute "SELECT name FROM t WHERE id = $1" [{"type":"int4","value":"1"}]"#,
        r#"execute "UPDATE t SET name = $1" [{"type":"text","value":"b"}]"#,
        r#"content "2\\tc\\n3\\td\\n""#,
        "ok content=8",
        r#"prepare "SELECT id FROM t ORDER BY id""#,
        r#"error "#,
    ] {
        assert!(log.contains(line), "{line} is not in\n{log}");
    }
    // Everything that the server ran is in the record, in its order.
    let mut recorded = log.lines();
    for ran in server
        .log()
        .unwrap()
        .lines()
        .filter(|line| line.contains(" execute ") || line.contains(" statement: "))
    {
        let Some((_, text)) = ran.split_once(": ").and_then(|(_, text)| text.split_once(": ")) else {
            continue;
        };
        if text.contains("CREATE ROLE") || text.contains("CREATE DATABASE") {
            continue;
        }
        // As the gate logs it.
        let text = format!("{:?}", text.as_bytes().escape_ascii().to_string());
        assert!(recorded.any(|line| line.contains(&text)), "{ran} is not in its place in\n{log}");
    }
}

/// Attack 13, for real.
#[tokio::test]
async fn a_driver_cancels_its_own_query() {
    let server = server();
    let gateway = gateway(&server);
    let client = connect(&gateway).await;
    let token = client.cancel_token();
    let cancel = async {
        // A cancel request that overtakes its query is lost, as it is without the gateway.
        let running =
            "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'";
        while server.psql(running).unwrap().trim() != "1" {
            tokio::task::yield_now().await;
        }
        let (peer, served) = gateway.dial().await;
        token.cancel_query_raw(peer.into_stream(), NoTls).await.unwrap();
        served.await.unwrap();
    };
    let (slept, ()) = tokio::join!(client.batch_execute("SELECT pg_sleep(60)"), cancel);
    assert_eq!(slept.unwrap_err().code().unwrap().code(), "57014");
    client.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(gateway.gate.lines("2 "), ["2 cancel -", "2 durable", "2 ok"]);
}
