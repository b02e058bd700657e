//! sqlx: its statement cache, binary values, streaming, transactions, COPY, LISTEN.

use std::env::var;

use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolCopyExt, PgPoolOptions, PgSslMode};
use sqlx::{Connection, Executor, PgPool, Row};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Says what came of it: the value, or the server's error.
fn show<T: std::fmt::Debug>(what: &str, result: Result<T, sqlx::Error>) {
    match result {
        Ok(value) => println!("{what} -> {value:?}"),
        Err(sqlx::Error::Database(db)) => {
            println!("{what} -> error {:?} {} {:?}", db.code(), db.message(), db.constraint())
        }
        Err(error) => println!("{what} -> error {error}"),
    }
}

fn options() -> Result<PgConnectOptions, Box<dyn std::error::Error>> {
    Ok(PgConnectOptions::new_without_pgpass()
        .host(&var("PGHOST")?)
        .port(var("PGPORT")?.parse()?)
        .database(&var("PGDATABASE")?)
        .username(&var("PGUSER")?)
        .password(&var("PGPASSWORD")?)
        .application_name("driver-sqlx")
        .ssl_mode(PgSslMode::Disable))
}

async fn statements(connection: &mut PgConnection) -> Outcome {
    println!("== statements");
    connection
        .execute(
            "SET client_min_messages = warning; DROP TABLE IF EXISTS sqlx_items; \
             CREATE TABLE sqlx_items (id int PRIMARY KEY, name text UNIQUE, big int8, ratio float4, ok bool, body bytea, tags text[])",
        )
        .await?;
    for n in 0..6_i32 {
        let done = sqlx::query("INSERT INTO sqlx_items VALUES ($1, $2, $3, $4, $5, $6, $7)")
            .bind(n)
            .bind(format!("item {n} 'ü'"))
            .bind(-(i64::from(n) << 40))
            .bind(n as f32 + 0.25)
            .bind((n % 2 == 0).then_some(true))
            .bind(vec![0, n as u8, 255])
            .bind(vec!["a".to_owned(), "b,c".to_owned()])
            .execute(&mut *connection)
            .await?;
        println!("inserted {}", done.rows_affected());
    }
    for n in 0..4_i32 {
        let row = sqlx::query("SELECT name, big, ratio, ok, body, tags FROM sqlx_items WHERE id = $1")
            .bind(n)
            .fetch_one(&mut *connection)
            .await?;
        let (name, big, ratio): (String, i64, f32) = (row.get(0), row.get(1), row.get(2));
        let (ok, body, tags): (Option<bool>, Vec<u8>, Vec<String>) = (row.get(3), row.get(4), row.get(5));
        println!("{name} {big} {ratio} {ok:?} {body:?} {tags:?}");
    }
    let one_off = sqlx::query_scalar::<_, i32>("SELECT $1 + 1")
        .bind(41)
        .persistent(false)
        .fetch_one(&mut *connection)
        .await;
    show("unnamed", one_off);
    show(
        "syntax",
        sqlx::query("SELEC $1").bind(1).execute(&mut *connection).await.map(|done| done.rows_affected()),
    );
    show(
        "division",
        sqlx::query("SELECT 1 / $1").bind(0).execute(&mut *connection).await.map(|done| done.rows_affected()),
    );
    show(
        "no row",
        sqlx::query("SELECT 1 WHERE false").fetch_one(&mut *connection).await.map(|row| row.len()),
    );
    show(
        "simple error",
        connection.execute("SELECT 1; SELECT 1 / 0; SELECT 2").await.map(|done| done.rows_affected()),
    );
    let mut rows =
        sqlx::query_scalar::<_, String>("SELECT repeat(md5(n::text), 10) FROM generate_series(1, 20000) n")
            .fetch(&mut *connection);
    let mut bytes = 0;
    while let Some(text) = rows.try_next().await? {
        bytes += text.len();
    }
    println!("streamed {bytes}");
    Ok(())
}

async fn transactions(connection: &mut PgConnection) -> Outcome {
    println!("== transactions");
    let mut transaction = connection.begin().await?;
    let violation =
        sqlx::query("INSERT INTO sqlx_items (id) VALUES ($1)").bind(1).execute(&mut *transaction).await;
    show("violation", violation.map(|done| done.rows_affected()));
    show(
        "after it",
        sqlx::query("SELECT 1").execute(&mut *transaction).await.map(|done| done.rows_affected()),
    );
    transaction.rollback().await?;
    let mut outer = connection.begin().await?;
    let mut inner = outer.begin().await?;
    sqlx::query("DELETE FROM sqlx_items").execute(&mut *inner).await?;
    inner.rollback().await?;
    show(
        "count",
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM sqlx_items").fetch_one(&mut *outer).await,
    );
    outer.commit().await?;
    Ok(())
}

async fn copies(pool: &PgPool) -> Outcome {
    println!("== copy");
    let mut copy = pool.copy_in_raw("COPY sqlx_items (id, name) FROM STDIN").await?;
    for n in 100..3100 {
        copy.send(format!("{n}\tcopied {n}\n").into_bytes()).await?;
    }
    println!("in {}", copy.finish().await?);
    let mut copy = pool.copy_in_raw("COPY sqlx_items (id, name) FROM STDIN").await?;
    copy.send(&b"9000\tfine\n"[..]).await?;
    show("given up", copy.abort("the client gave up").await);
    let mut bytes = 0;
    let mut blocks =
        pool.copy_out_raw("COPY (SELECT id, name FROM sqlx_items ORDER BY id) TO STDOUT").await?;
    while let Some(block) = blocks.try_next().await? {
        bytes += block.len();
    }
    println!("out {bytes} bytes");
    Ok(())
}

async fn listening(pool: &PgPool) -> Outcome {
    println!("== listen");
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen("sqlx_news").await?;
    sqlx::query("SELECT pg_notify('sqlx_news', $1)").bind("payload").execute(pool).await?;
    let note = listener.recv().await?;
    println!("{} {}", note.channel(), note.payload());
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let mut connection = PgConnection::connect_with(&options()?).await?;
    statements(&mut connection).await?;
    transactions(&mut connection).await?;
    let pool =
        PgPoolOptions::new().max_connections(2).test_before_acquire(false).connect_with(options()?).await?;
    copies(&pool).await?;
    listening(&pool).await?;
    pool.close().await;
    connection.execute("DROP TABLE sqlx_items").await?;
    connection.close().await?;
    Ok(())
}
