"""A day's work through pymemcache: prints what came back, and nothing that depends on the moment.

MEMCACHED_PORT says where; MEMCACHED_LOGIN is what a server with -Y, or the gateway, is told first: a name and a secret.
"""

import hashlib
import os

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheClientError, MemcacheServerError


class LoginClient(Client):
    """Logs in on each stream that it opens, as memcached's ASCII authentication wants it."""

    def _connect(self):
        super()._connect()
        login = os.environ["MEMCACHED_LOGIN"].encode()
        self.sock.sendall(b"set auth 0 0 %d\r\n%s\r\n" % (len(login), login))
        answer = b""
        while not answer.endswith(b"\r\n"):
            piece = self.sock.recv(4096)
            if not piece:
                raise ConnectionError(answer)
            answer += piece
        if answer != b"STORED\r\n":
            raise ConnectionError(answer)


def show(name, value):
    if isinstance(value, bytes) and len(value) > 100:
        value = f"{len(value)} bytes, sha256 {hashlib.sha256(value).hexdigest()}"
    print(f"{name}: {value!r}")


def attempt(name, work):
    try:
        show(name, work())
    except (MemcacheClientError, MemcacheServerError) as error:
        show(name, f"{type(error).__name__}: {error}")


def values(client):
    show("set", client.set("greeting", "hello", noreply=False))
    show("get", client.get("greeting"))
    show("get none", client.get("none"))
    show("add", client.add("greeting", "again", noreply=False))
    show("replace none", client.replace("none", "x", noreply=False))
    show("append", client.append("greeting", " world", noreply=False))
    show("prepend", client.prepend("greeting", "oh, ", noreply=False))
    show("get", client.get("greeting"))
    value, unique = client.gets("greeting")
    show("cas", client.cas("greeting", "bye", unique, noreply=False))
    show("cas again", client.cas("greeting", "bye", unique, noreply=False))
    binary = bytes(range(256)) + b"\r\nEND\r\nflush_all\r\n"
    show("binary", client.set("binary", binary, noreply=False))
    show("binary", client.get("binary") == binary)
    show("empty", client.set("empty", "", noreply=False))
    show("empty", client.get("empty"))
    show("unicode", client.set("größe", "zwölf", noreply=False))


def numbers(client):
    client.set("count", "10")
    show("incr", client.incr("count", 5))
    show("decr", client.decr("count", 20))
    show("incr none", client.incr("none", 1))
    attempt("incr text", lambda: client.incr("greeting", 1))


def many(client):
    client.set_many({f"key-{number:04}-{'k' * 40}": str(number) for number in range(300)})
    found = client.get_many([f"key-{number:04}-{'k' * 40}" for number in range(0, 400, 2)])
    show("get_many", len(found))
    show("gets_many", len(client.gets_many(["greeting", "none", "count"])))
    client.delete_many([f"key-{number:04}-{'k' * 40}" for number in range(300)])
    show("gone", client.get(f"key-0000-{'k' * 40}"))
    show("touch", client.touch("greeting", 100, noreply=False))
    show("gat", client.raw_command("gat 100 greeting", end_tokens="END\r\n"))
    show("delete", client.delete("greeting", noreply=False))
    show("delete again", client.delete("greeting", noreply=False))


def large(client):
    for size in (65_536, 65_537, 900_000):
        value = hashlib.sha256(str(size).encode()).digest() * (size // 32 + 1)
        show("large", client.set("large", value[:size], noreply=False))
        show("large", client.get("large"))
    attempt("too large", lambda: client.set("large", b"x" * 2_000_000, noreply=False))
    show("after it", client.get("none"))


def meta(client):
    show("meta set", client.raw_command("ms meta 3 T0\r\nabc"))
    show("meta get", client.raw_command("mg meta v t O7", end_tokens="\r\nabc\r\n"))
    # A quiet delete of what is not there is answered by this server now and then.
    quiet = "mg none v q\r\nms meta 2 q\r\nyz\r\nmd meta q\r\nmn"
    show("quiet", client.raw_command(quiet, end_tokens="MN\r\n"))
    show("meta arithmetic", client.raw_command("ma count v"))
    attempt("noop", lambda: client.raw_command("mn"))


def server(client):
    show("version", client.version())
    show("statistics", b"pid" in client.stats())
    show("settings", client.stats("settings")[b"maxconns"])
    show("flush", client.flush_all(noreply=False))
    show("flushed", client.get("count"))


def main():
    for noreply in (True, False):
        client = LoginClient(
            ("127.0.0.1", int(os.environ["MEMCACHED_PORT"])),
            default_noreply=noreply,
            allow_unicode_keys=True,
            encoding="utf-8",
            no_delay=True,
            timeout=30,
        )
        for part in (values, numbers, many, large, meta, server):
            print(f"-- {part.__name__}")
            part(client)
        client.quit()


main()
