//! redis-rs: typed commands, pipelines, transactions, scripts, streams, errors, pub/sub; by RESP2 and RESP3.

use std::env;
use std::error::Error;

use futures_util::StreamExt;
use redis::streams::StreamReadReply;
use redis::{AsyncCommands, Script, Value};

type Done = Result<(), Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let variable = |name| env::var(name).unwrap_or_default();
    let (host, port) = (variable("REDIS_HOST"), variable("REDIS_PORT"));
    let (user, password) = (variable("REDIS_USER"), variable("REDIS_PASSWORD"));
    for protocol in ["resp2", "resp3"] {
        println!("-- {protocol}");
        let url = format!("redis://{user}:{password}@{host}:{port}/?protocol={protocol}");
        work(redis::Client::open(url)?, protocol).await?;
    }
    Ok(())
}

async fn work(client: redis::Client, protocol: &str) -> Done {
    let mut connection = client.get_multiplexed_async_connection().await?;
    let () = connection.set("rs:text", "ein Wert mit Umlauten: äöü").await?;
    println!("get {:?}", connection.get::<_, String>("rs:text").await?);
    let binary: Vec<u8> = (0..=255).collect();
    let () = connection.set("rs:binary", &binary).await?;
    println!("binary {:?}", connection.get::<_, Vec<u8>>("rs:binary").await? == binary);
    println!("missing {:?}", connection.get::<_, Option<String>>("rs:missing").await?);
    println!("incr {:?}", connection.incr::<_, _, i64>("rs:count", 42).await?);
    let () = connection.hset_multiple("rs:hash", &[("a", "1"), ("b", "2")]).await?;
    println!("hget {:?}", connection.hget::<_, _, i64>("rs:hash", "b").await?);
    println!("rpush {:?}", connection.rpush::<_, _, i64>("rs:list", vec!["x", "y", "z"]).await?);
    println!("lrange {:?}", connection.lrange::<_, Vec<String>>("rs:list", 0, -1).await?);
    let wrong: redis::RedisResult<i64> = connection.incr("rs:list", 1).await;
    println!("error {:?}", wrong.err().and_then(|error| error.code().map(str::to_owned)));

    let piped: (i64, Option<String>, Vec<String>) = redis::pipe()
        .incr("rs:count", 1)
        .get("rs:text")
        .lrange("rs:list", 0, 1)
        .query_async(&mut connection)
        .await?;
    println!("pipeline {piped:?}");
    let atomic: (i64, i64) =
        redis::pipe().atomic().incr("rs:count", 1).incr("rs:count", 1).query_async(&mut connection).await?;
    println!("transaction {atomic:?}");

    let script = Script::new("return {KEYS[1], ARGV[1], redis.call('INCRBY', KEYS[1], ARGV[1])}");
    println!("script {:?}", script.key("rs:count").arg(7).invoke_async::<Value>(&mut connection).await?);
    println!("again {:?}", script.key("rs:count").arg(7).invoke_async::<Value>(&mut connection).await?);

    let _: String = connection.xadd("rs:stream", "1-1", &[("field", "value")]).await?;
    let read: StreamReadReply = connection.xread(&["rs:stream"], &["0"]).await?;
    println!("stream {:?}", read.keys.iter().map(|key| (&key.key, key.ids.len())).collect::<Vec<_>>());
    println!("blocking {:?}", connection.blpop::<_, Option<(String, String)>>("rs:list", 1.0).await?);

    if protocol == "resp2" {
        let (mut sink, mut stream) = client.get_async_pubsub().await?.split();
        sink.subscribe("rs:channel").await?;
        sink.psubscribe("rs:chan*").await?;
        println!("publish {:?}", connection.publish::<_, _, i64>("rs:channel", "hello").await?);
        for _ in 0..2 {
            let message = stream.next().await.ok_or("no message")?;
            println!("message {:?} {:?}", message.get_channel_name(), message.get_payload::<String>()?);
        }
        sink.unsubscribe("rs:channel").await?;
    }
    let keys = ["text", "binary", "count", "hash", "list", "stream"].map(|key| format!("rs:{key}"));
    println!("del {:?}", connection.del::<_, i64>(&keys[..]).await?);
    Ok(())
}
