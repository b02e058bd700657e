"""One run of the agent across PostgreSQL, MySQL, Redis and MCP, with one trace id: ordinary drivers, Entra's token.

Each of them has some place for a W3C trace id: a comment of the statement, the name of the client, a header, `_meta`.
Prints the trace id, for `verbatim sessions list --trace`.
"""

import asyncio
import os
import secrets
import sys

import psycopg
import pymysql
import redis
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

from agent import AGENT, token

TRACE = secrets.token_hex(16)
PARENT = f"00-{TRACE}-{secrets.token_hex(8)}-01"


def port(name):
    return int(os.environ[name])


def in_postgres(password):
    with psycopg.connect("", password=password, application_name=f"billing-agent traceparent={PARENT}") as connection:
        return connection.execute(
            "SELECT id, amount FROM invoices WHERE paid_at IS NULL ORDER BY amount DESC LIMIT 1"
        ).fetchone()


def in_mysql(password, invoice):
    # A MySQL client sends a token as the clear password, which it does on loopback or with TLS alone.
    with pymysql.connect(
        host="127.0.0.1", port=port("MYSQL_PORT"), user="billing-agent", password=password, database="shop",
        auth_plugin_map={"mysql_clear_password": ClearPassword},
    ) as connection:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT email FROM contacts WHERE invoice = %s /*traceparent='" + PARENT + "'*/", [invoice]
            )
            return cursor.fetchone()[0]


class ClearPassword:
    """The client's half of mysql_clear_password, for versions of PyMySQL that do it over TLS alone."""

    def __init__(self, connection):
        self.connection = connection

    def authenticate(self, _):
        self.connection.write_packet(self.connection.password + b"\0")
        return self.connection._read_packet()


def in_redis(password, invoice):
    cache = redis.Redis(
        port=port("REDIS_PORT"), username="cache", password=password, client_name=f"billing-agent:traceparent={PARENT}"
    )
    first = cache.set(f"reminded:{invoice}", "yes", nx=True, ex=3600)
    cache.close()
    return first


async def in_mcp(password, invoice, email, amount):
    headers = {"Authorization": f"Bearer {password}", "traceparent": PARENT}
    url = f"http://127.0.0.1:{port('HTTP_PORT')}/tools/mcp"
    async with streamablehttp_client(url, headers=headers) as (read, write, _):
        async with ClientSession(read, write) as session:
            await session.initialize()
            await session.list_tools()
            answer = await session.call_tool("send_reminder", {"invoice": invoice, "text": f"{email}: please pay {amount}"})
            return answer.content[0].text


if __name__ == "__main__":
    password = token(AGENT, "agent-secret")
    invoice, amount = in_postgres(password)
    print(f"  PostgreSQL: the largest open invoice is {invoice}, of {amount}", file=sys.stderr)
    email = in_mysql(password, invoice)
    print(f"  MySQL: it goes to {email}", file=sys.stderr)
    if not in_redis(password, invoice):
        sys.exit("reminded already")
    print("  Redis: nobody was reminded in the last hour", file=sys.stderr)
    print(f"  MCP: {asyncio.run(in_mcp(password, invoice, email, amount))}", file=sys.stderr)
    print(TRACE)
