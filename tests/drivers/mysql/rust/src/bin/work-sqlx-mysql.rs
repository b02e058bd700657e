//! sqlx: prepared in binary, its statement cache, transactions, a stream of rows.

use std::error::Error;

use futures_util::TryStreamExt;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow, MySqlSslMode};
use sqlx::{Column, ConnectOptions, Connection, Executor, Row, TypeInfo};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn say(row: &MySqlRow) {
    let columns: Vec<_> =
        row.columns().iter().map(|column| format!("{} {}", column.name(), column.type_info().name())).collect();
    let values: Vec<_> = (0..row.len())
        .map(|place| match row.try_get_unchecked::<Option<Vec<u8>>, _>(place) {
            Ok(Some(bytes)) => format!("{bytes:?}"),
            Ok(None) => "NULL".to_owned(),
            Err(error) => error.to_string(),
        })
        .collect();
    println!("{columns:?} {values:?}");
}

fn attempt<T>(what: &str, result: std::result::Result<T, sqlx::Error>) {
    match result {
        Ok(_) => println!("{what} -> done"),
        Err(sqlx::Error::Database(error)) => println!("{what} -> error {:?} {}", error.code(), error.message()),
        Err(error) => println!("{what} -> error {error}"),
    }
}

async fn work(mut conn: MySqlConnection) -> Result<()> {
    say(&sqlx::query("SELECT 1, 'täxt', NULL, 2.50").fetch_one(&mut conn).await?);
    sqlx::query("CREATE TABLE sx_items (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(100), data BLOB)")
        .execute(&mut conn)
        .await?;
    for (name, data) in [(Some("a"), vec![0_u8, 255]), (None, Vec::new()), (Some("b'ü"), vec![1])] {
        let done = sqlx::query("INSERT INTO sx_items (name, data) VALUES (?, ?)")
            .bind(name)
            .bind(data)
            .execute(&mut conn)
            .await?;
        println!("{} {}", done.last_insert_id(), done.rows_affected());
    }
    let row = sqlx::query("SELECT ?, ?, ?, ?, ?, ?")
        .bind(7_i8)
        .bind(u64::MAX)
        .bind(2.5_f64)
        .bind(true)
        .bind("täxt")
        .bind(None::<String>)
        .fetch_one(&mut conn)
        .await?;
    say(&row);
    attempt("duplicate", sqlx::query("INSERT INTO sx_items (id) VALUES (1)").execute(&mut conn).await);
    attempt("syntax", conn.execute("SELEC 1").await);
    attempt("missing", sqlx::query("SELECT ? FROM sx_missing").bind(1).execute(&mut conn).await);
    let mut transaction = conn.begin().await?;
    sqlx::query("DELETE FROM sx_items").execute(&mut *transaction).await?;
    transaction.rollback().await?;
    let mut rows = sqlx::query("SELECT id, name FROM sx_items WHERE id > ? ORDER BY id").bind(1).fetch(&mut conn);
    while let Some(row) = rows.try_next().await? {
        say(&row);
    }
    drop(rows);
    conn.ping().await?;
    conn.execute("DROP TABLE sx_items").await?;
    conn.close().await?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let var = |name: &str| std::env::var(name);
    let options = MySqlConnectOptions::new()
        .host(&var("MYSQL_HOST")?)
        .port(var("MYSQL_PORT")?.parse()?)
        .username(&var("MYSQL_USER")?)
        .password(&var("MYSQL_PASSWORD")?)
        .database(&var("MYSQL_DATABASE")?)
        .enable_cleartext_plugin(true)
        .ssl_mode(MySqlSslMode::VerifyIdentity)
        .ssl_ca(var("MYSQL_CA")?);
    work(options.connect().await?).await
}
