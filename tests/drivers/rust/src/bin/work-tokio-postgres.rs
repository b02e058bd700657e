//! tokio-postgres: binary values, pipelined queries, portals, COPY, LISTEN, cancel.

use std::env::var;
use std::pin::pin;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt, future, stream};
use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, Error, NoTls, SimpleQueryMessage};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Says what came of it: the value, or the server's error.
fn show<T: std::fmt::Debug>(what: &str, result: Result<T, Error>) {
    match result {
        Ok(value) => println!("{what} -> {value:?}"),
        Err(error) => match error.as_db_error() {
            Some(db) => {
                println!("{what} -> error {} {} {:?}", db.code().code(), db.message(), db.constraint())
            }
            None => println!("{what} -> error {error}"),
        },
    }
}

async fn connect() -> Result<(Client, mpsc::Receiver<AsyncMessage>), Box<dyn std::error::Error>> {
    let mut config = Config::new();
    config.host(var("PGHOST")?).port(var("PGPORT")?.parse()?).dbname(var("PGDATABASE")?).user(var("PGUSER")?);
    config.password(var("PGPASSWORD")?).application_name("driver-tokio-postgres");
    let (client, mut connection) = config.connect(NoTls).await?;
    let (news, messages) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut incoming = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = incoming.next().await {
            if news.send(message).await.is_err() {
                break;
            }
        }
    });
    Ok((client, messages))
}

async fn statements(client: &Client) -> Outcome {
    println!("== statements");
    client
        .batch_execute(
            "SET client_min_messages = warning; DROP TABLE IF EXISTS rust_items; \
             CREATE TABLE rust_items (id int PRIMARY KEY, name text UNIQUE, big int8, ratio float8, body bytea, tags text[])",
        )
        .await?;
    let insert = client.prepare("INSERT INTO rust_items VALUES ($1, $2, $3, $4, $5, $6)").await?;
    for n in 0..5_i32 {
        let (name, big, ratio, body) =
            (format!("item {n} 'ü'"), i64::from(n) << 40, f64::from(n) + 0.5, vec![0, n as u8, 255]);
        let tags = vec![Some("a"), None, Some("b,c")];
        client.execute(&insert, &[&n, &name, &big, &ratio, &body, &tags]).await?;
    }
    let rows = client
        .query("SELECT id, name, big, ratio, body, tags FROM rust_items WHERE id >= $1 ORDER BY id", &[&2])
        .await?;
    for row in rows {
        let (id, name, big): (i32, &str, i64) = (row.get(0), row.get(1), row.get(2));
        let (ratio, body, tags): (f64, &[u8], Vec<Option<&str>>) = (row.get(3), row.get(4), row.get(5));
        println!("{id} {name} {big} {ratio} {body:?} {tags:?}");
    }
    for message in
        client.simple_query("SELECT 1 AS one; UPDATE rust_items SET big = big; SELECT 'two', NULL").await?
    {
        match message {
            SimpleQueryMessage::Row(row) => println!("row {:?} {:?}", row.get(0), row.len()),
            SimpleQueryMessage::CommandComplete(count) => println!("complete {count}"),
            _ => {}
        }
    }
    show(
        "null",
        client.query_one("SELECT $1::text IS NULL", &[&None::<&str>]).await.map(|row| row.get::<_, bool>(0)),
    );
    show("empty", client.execute("", &[]).await);
    show("syntax", client.execute("SELEC $1", &[]).await);
    show("division", client.execute("SELECT 1 / $1::int", &[&0]).await);
    show("simple error", client.batch_execute("SELECT 1; SELECT 1 / 0; SELECT 2").await);
    Ok(())
}

async fn pipelined(client: &Client) -> Outcome {
    println!("== pipelined");
    let statement = client.prepare("SELECT $1::int4 * 2").await?;
    let doubled = future::try_join_all((0..300).map(|n| {
        let statement = &statement;
        async move { client.query_one(statement, &[&n]).await.map(|row| row.get::<_, i32>(0)) }
    }))
    .await?;
    println!("sum {}", doubled.iter().sum::<i32>());
    let divide = client.prepare("SELECT 1 / $1::int4").await?;
    let divided = future::join_all([1, 0, 1].map(|n| {
        let divide = &divide;
        async move { client.query_one(divide, &[&n]).await.map(|row| row.get::<_, i32>(0)) }
    }));
    for (what, result) in ["before", "bad", "after"].into_iter().zip(divided.await) {
        show(what, result);
    }
    Ok(())
}

async fn transactions(client: &mut Client) -> Outcome {
    println!("== transactions");
    let transaction = client.transaction().await?;
    show("violation", transaction.execute("INSERT INTO rust_items (id) VALUES ($1)", &[&1]).await);
    show("after it", transaction.query("SELECT 1", &[]).await.map(|rows| rows.len()));
    transaction.rollback().await?;
    let transaction = client.transaction().await?;
    let portal = transaction.bind("SELECT n FROM generate_series(1, 25) n", &[]).await?;
    for _ in 0..3 {
        let rows = transaction.query_portal(&portal, 10).await?;
        println!("portal {}", rows.len());
    }
    drop(portal);
    transaction.commit().await?;
    Ok(())
}

async fn copies(client: &Client) -> Outcome {
    println!("== copy");
    let mut sink = pin!(client.copy_in("COPY rust_items (id, name) FROM STDIN").await?);
    for n in 100..3100 {
        sink.send(Bytes::from(format!("{n}\tcopied {n}\n"))).await?;
    }
    println!("in {}", sink.finish().await?);
    let mut sink = pin!(client.copy_in("COPY rust_items (id, name) FROM STDIN").await?);
    sink.send(Bytes::from_static(b"9000\tfine\nx\tbad\n")).await?;
    show("bad data", sink.finish().await);
    let blocks: Vec<Bytes> = client
        .copy_out("COPY (SELECT id, name FROM rust_items ORDER BY id) TO STDOUT")
        .await?
        .try_collect()
        .await?;
    println!("out {} bytes", blocks.iter().map(Bytes::len).sum::<usize>());
    Ok(())
}

async fn listening(client: &Client, messages: &mut mpsc::Receiver<AsyncMessage>) -> Outcome {
    println!("== listen");
    client.batch_execute("SET client_min_messages = notice; LISTEN rust_news").await?;
    client.batch_execute("DO $$ BEGIN RAISE NOTICE 'noticed'; END $$").await?;
    let (other, _messages) = connect().await?;
    other.execute("SELECT pg_notify('rust_news', $1)", &[&"payload"]).await?;
    for _ in 0..2 {
        match messages.recv().await {
            Some(AsyncMessage::Notice(notice)) => {
                println!("notice {} {}", notice.severity(), notice.message())
            }
            Some(AsyncMessage::Notification(note)) => println!("{} {}", note.channel(), note.payload()),
            _ => println!("unexpected"),
        }
    }
    Ok(())
}

async fn cancelling() -> Outcome {
    println!("== cancel");
    let (client, _messages) = connect().await?;
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    let (watcher, _messages) = connect().await?;
    let watch = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND state = 'active' AND wait_event = 'PgSleep'";
    let cancel = async {
        let watch = watcher.prepare(watch).await?;
        while watcher.query_one(&watch, &[&pid]).await?.get::<_, i64>(0) == 0 {}
        client.cancel_token().cancel_query(NoTls).await
    };
    let (slept, cancelled) = tokio::join!(client.batch_execute("SELECT pg_sleep(60)"), cancel);
    show("cancelled", slept);
    cancelled?;
    // The server may signal a backend twice for one request, so the next statement may be hit as well.
    let next = loop {
        match client.simple_query("SELECT 'works'").await {
            Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => {}
            other => break other,
        }
    };
    show("next", next.map(|messages| messages.len()));
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let (mut client, mut messages) = connect().await?;
    statements(&client).await?;
    pipelined(&client).await?;
    transactions(&mut client).await?;
    copies(&client).await?;
    listening(&client, &mut messages).await?;
    cancelling().await?;
    let text = "z".repeat(3_000_000);
    show("big", client.query_one("SELECT length($1::text)", &[&text]).await.map(|row| row.get::<_, i32>(0)));
    let mut rows = pin!(
        client
            .query_raw("SELECT repeat(md5(n::text), 10) FROM generate_series(1, 20000) n", [0_i32; 0])
            .await?
    );
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        bytes += row.get::<_, &str>(0).len();
    }
    println!("streamed {bytes}");
    client.batch_execute("DROP TABLE rust_items").await?;
    Ok(())
}
