//! fred: RESP2 and RESP3, automatic pipelines, transactions, scripts, errors, pub/sub.

use std::env;
use std::error::Error;

use fred::prelude::*;
use fred::types::config::{Config, PerformanceConfig};
use fred::types::{RespVersion, Value};

type Done = Result<(), Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let variable = |name| env::var(name).unwrap_or_default();
    let (host, port) = (variable("REDIS_HOST"), variable("REDIS_PORT"));
    let (user, password) = (variable("REDIS_USER"), variable("REDIS_PASSWORD"));
    for version in [RespVersion::RESP2, RespVersion::RESP3] {
        println!("-- {version:?}");
        let mut config = Config::from_url(&format!("redis://{user}:{password}@{host}:{port}"))?;
        config.version = version;
        work(config).await?;
    }
    Ok(())
}

async fn work(config: Config) -> Done {
    let client = Client::new(config, Some(PerformanceConfig::default()), None, None);
    client.init().await?;
    let _: () = client.set("fred:text", "value", None, None, false).await?;
    println!("get {:?}", client.get::<String, _>("fred:text").await?);
    println!("missing {:?}", client.get::<Option<String>, _>("fred:missing").await?);
    let _: () = client.hset("fred:hash", [("a", "1")]).await?;
    println!("hget {:?}", client.hget::<String, _, _>("fred:hash", "a").await?);
    let (first, second, third) = futures_util::join!(
        client.incr::<i64, _>("fred:count"),
        client.incr::<i64, _>("fred:count"),
        client.incr::<i64, _>("fred:count")
    );
    println!("joined {:?} {:?} {:?}", first?, second?, third?);
    let wrong: Result<i64, _> = client.incr("fred:hash").await;
    println!("error {:?}", wrong.err().map(|error| error.details().to_owned()));

    let pipeline = client.pipeline();
    let _: () = pipeline.incr("fred:count").await?;
    let _: () = pipeline.get("fred:text").await?;
    println!("pipeline {:?}", pipeline.all::<Vec<Value>>().await?);

    let transaction = client.multi();
    let _: () = transaction.incr("fred:count").await?;
    let _: () = transaction.get("fred:text").await?;
    println!("transaction {:?}", transaction.exec::<Vec<Value>>(true).await?);
    let script = "return {KEYS[1], ARGV[1]}";
    println!("eval {:?}", client.eval::<Value, _, _, _>(script, vec!["fred:count"], vec!["1"]).await?);

    let other = client.clone_new();
    other.init().await?;
    let mut messages = other.message_rx();
    other.subscribe("fred:channel").await?;
    println!("publish {:?}", client.publish::<i64, _, _>("fred:channel", "hello").await?);
    let message = messages.recv().await?;
    println!("message {} {:?}", message.channel, message.value);
    other.quit().await?;
    let keys = vec!["fred:text", "fred:hash", "fred:count"];
    println!("del {:?}", client.del::<i64, _>(keys).await?);
    client.quit().await?;
    Ok(())
}
