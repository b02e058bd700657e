//! mysql_async: prepared in binary, streams of rows, several results, a file.

use std::error::Error;

use futures_util::StreamExt;
use mysql_async::prelude::{Query, Queryable, WithParams};
use mysql_async::{ClientIdentity, Conn, OptsBuilder, Params, Row, SslOpts, Value};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn options() -> Result<OptsBuilder> {
    let var = |name: &str| std::env::var(name);
    let ssl = SslOpts::default().with_root_certs(vec![std::path::PathBuf::from(var("MYSQL_CA")?).into()]);
    let _: Option<ClientIdentity> = None;
    Ok(OptsBuilder::default()
        .ip_or_hostname(var("MYSQL_HOST")?)
        .tcp_port(var("MYSQL_PORT")?.parse()?)
        .user(Some(var("MYSQL_USER")?))
        .pass(Some(var("MYSQL_PASSWORD")?))
        .db_name(Some(var("MYSQL_DATABASE")?))
        .enable_cleartext_plugin(true)
        .prefer_socket(false)
        .ssl_opts(ssl))
}

fn say(row: Row) {
    println!("{:?}", row.unwrap());
}

fn attempt<T>(what: &str, result: std::result::Result<T, mysql_async::Error>) {
    match result {
        Ok(_) => println!("{what} -> done"),
        Err(mysql_async::Error::Server(error)) => println!("{what} -> error {} {}", error.code, error.message),
        Err(error) => println!("{what} -> error {error}"),
    }
}

async fn work() -> Result<()> {
    let mut conn = Conn::new(options()?).await?;
    let rows: Vec<Row> = conn.query("SELECT 1, 'täxt', NULL, 2.50").await?;
    rows.into_iter().for_each(say);
    conn.query_drop("CREATE TABLE ma_items (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(100), data LONGBLOB)").await?;
    let values = [("a", vec![0_u8, 255]), ("b'ü", Vec::new())];
    conn.exec_batch("INSERT INTO ma_items (name, data) VALUES (?, ?)", values).await?;
    println!("{:?} {}", conn.last_insert_id(), conn.affected_rows());
    let values: Vec<Value> = vec![
        7.into(),
        (-3_000_000_000_i64).into(),
        u64::MAX.into(),
        2.5_f64.into(),
        0.5_f32.into(),
        "täxt".into(),
        Value::NULL,
        Value::Bytes(vec![0, 1, 254]),
        Value::Date(2024, 2, 29, 23, 59, 58, 123_456),
        Value::Time(true, 1, 2, 3, 4, 5),
    ];
    let rows: Vec<Row> = conn.exec("SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?", Params::Positional(values)).await?;
    rows.into_iter().for_each(say);
    attempt("duplicate", conn.query_drop("INSERT INTO ma_items (id) VALUES (1)").await);
    attempt("syntax", conn.query_drop("SELEC 1").await);
    attempt("missing", conn.prep("SELECT ? FROM ma_missing").await);
    let mut results = conn.query_iter("SELECT 1; SELECT name FROM ma_items; SELECT 3").await?;
    while !results.is_empty() {
        results.collect::<Row>().await?.into_iter().for_each(say);
    }
    drop(results);
    let mut stream = "SELECT id FROM ma_items WHERE id >= ?".with((1,)).stream::<u32, _>(&mut conn).await?;
    let mut sum = 0;
    while let Some(id) = stream.next().await {
        sum += id?;
    }
    drop(stream);
    println!("{sum}");
    let large = vec![7_u8; 17 << 20];
    conn.exec_drop("INSERT INTO ma_items (name, data) VALUES ('large', ?)", (large,)).await?;
    let (length, data): (u64, Vec<u8>) =
        conn.query_first("SELECT LENGTH(data), data FROM ma_items WHERE name = 'large'").await?.ok_or("no row")?;
    println!("{length} {}", data.iter().all(|byte| *byte == 7));
    conn.reset().await?;
    let row: Option<Row> = "SELECT ?".with(("after",)).first(&mut conn).await?;
    row.into_iter().for_each(say);
    conn.ping().await?;
    "DROP TABLE ma_items".ignore(&mut conn).await?;
    conn.disconnect().await?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    work().await
}
