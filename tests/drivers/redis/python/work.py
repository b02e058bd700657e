"""redis-py: typed commands, pipelines, transactions with WATCH, scripts, functions, streams, pub/sub, client tracking's
cousins, errors; RESP2 and RESP3, one connection after the other and asyncio."""

import asyncio
import os

import redis
import redis.asyncio

ADDRESS = {
    "host": os.environ["REDIS_HOST"],
    "port": int(os.environ["REDIS_PORT"]),
    "username": os.environ["REDIS_USER"],
    "password": os.environ["REDIS_PASSWORD"],
}
LIBRARY = "#!lua name=pylib\nredis.register_function('py_double', function(keys, args) return args[1] * 2 end)"


def show(name, value):
    print(name, repr(value))


def refused(work):
    try:
        return work()
    except redis.ResponseError as error:
        return f"{type(error).__name__}: {error}"


def values(client):
    client.set("py:text", "ein Wert mit Umlauten: äöü")
    show("get", client.get("py:text"))
    client.set("py:binary", bytes(range(256)))
    show("binary", client.get("py:binary") == bytes(range(256)))
    show("empty", (client.set("py:empty", ""), client.get("py:empty"), client.get("py:missing")))
    show("ttl", (client.set("py:ttl", 1, ex=1000), client.persist("py:ttl")))
    client.hset("py:hash", mapping={"a": 1, "b": 2.5, "c": "x y"})
    show("hash", sorted(client.hgetall("py:hash").items()))
    client.zadd("py:zset", {"a": 1, "b": 2.5})
    show("zset", client.zrange("py:zset", 0, -1, withscores=True))
    show("set", (client.sadd("py:set", "m"), client.smembers("py:set")))
    show("list", (client.rpush("py:list", *range(10)), client.lrange("py:list", 2, 5), client.blpop("py:list", 1)))
    show("large", (client.set("py:large", "v" * 3_000_000), client.strlen("py:large"), len(client.get("py:large"))))
    show("many", client.mset({f"py:many:{n}": n for n in range(500)}))
    show("scan", len(list(client.scan_iter("py:many:*", count=100))))


def together(client):
    pipeline = client.pipeline(transaction=False)
    for n in range(200):
        pipeline.incr("py:count")
    pipeline.incr("py:list")
    pipeline.get("py:count")
    answers = pipeline.execute(raise_on_error=False)
    show("pipeline", (answers[199], type(answers[200]).__name__, answers[201]))
    with client.pipeline() as transaction:
        transaction.watch("py:count")
        before = int(transaction.get("py:count"))
        transaction.multi()
        transaction.set("py:count", before + 1)
        transaction.get("py:count")
        show("transaction", transaction.execute())
    with client.pipeline() as transaction:
        transaction.watch("py:count")
        client.incr("py:count")
        transaction.multi()
        transaction.set("py:count", 0)
        try:
            transaction.execute()
        except redis.WatchError as error:
            show("watch", str(error))
    with client.pipeline() as transaction:
        transaction.set("py:count", 5).incr("py:text").get("py:count")
        answers = transaction.execute(raise_on_error=False)
        show("half", (answers[0], str(answers[1]), answers[2]))


def scripts(client):
    double = client.register_script("return {KEYS[1], ARGV[1] * 2, redis.call('GET', KEYS[1])}")
    show("script", double(keys=["py:count"], args=[21]))
    show("again", double(keys=["py:count"], args=[4]))
    show("own error", refused(lambda: client.eval("return redis.error_reply('MY own')", 0)))
    client.function_load(LIBRARY, replace=True)
    show("function", client.fcall("py_double", 0, 21))
    client.function_delete("pylib")
    show("no command", refused(lambda: client.execute_command("NONSENSE", "a")))
    show("wrong type", refused(lambda: client.incr("py:list")))


def streams(client):
    client.xadd("py:stream", {"f": "v"}, id="1-1")
    client.xgroup_create("py:stream", "group", id="0")
    show("group", client.xreadgroup("group", "worker", {"py:stream": ">"}, block=10))
    show("ack", client.xack("py:stream", "group", "1-1"))
    show("nothing", client.xread({"py:stream": "$"}, block=5))


def messages(client):
    with client.pubsub() as pubsub:
        pubsub.subscribe("py:a", "py:b")
        pubsub.psubscribe("py:*")
        for _ in range(3):
            show("confirmed", pubsub.get_message(timeout=5)["type"])
        show("publish", client.publish("py:a", "hello"))
        for _ in range(2):
            message = pubsub.get_message(timeout=5)
            show("message", (message["type"], message["channel"], message["data"]))
        pubsub.ping()
        show("pong", pubsub.get_message(timeout=5)["type"])
        pubsub.unsubscribe()
        pubsub.punsubscribe()
        for _ in range(3):
            show("unsubscribed", pubsub.get_message(timeout=5)["type"])


async def at_once():
    async with redis.asyncio.Redis(**ADDRESS) as client:
        answers = await asyncio.gather(*(client.incr("py:async") for _ in range(20)))
        show("asyncio", sorted(answers))
        await client.delete("py:async")


def main():
    for protocol in (2, 3):
        print(f"-- RESP{protocol}")
        with redis.Redis(**ADDRESS, protocol=protocol, client_name="driver-python") as client:
            show("name", client.client_getname())
            for part in (values, together, scripts, streams, messages):
                part(client)
            client.delete(*client.keys("py:*"))
    asyncio.run(at_once())


main()
