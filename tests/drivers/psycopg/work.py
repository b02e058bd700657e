"""psycopg 3 (libpq): text, binary, prepared, pipeline mode, COPY, server-side cursor, cancel, LISTEN."""

import datetime
import decimal
import hashlib
import threading
import uuid

import psycopg
from psycopg import pq, sql
from psycopg.types.json import Jsonb


def say(*values):
    print(*values, flush=True)


def section(name):
    say(f"== {name}")


def attempt(what, action):
    """Runs `action`, saying what the server's error was, if it was one."""
    try:
        result = action()
        say(what, "->", result)
        return result
    except psycopg.Error as error:
        diag = error.diag
        say(what, "-> error", diag.sqlstate, type(error).__name__, diag.message_primary, diag.constraint_name)
        return None


def connect():
    return psycopg.connect("", application_name="driver-psycopg", autocommit=True)


VALUES = [
    7, -3_000_000_000, 2.5, decimal.Decimal("12345.6789"), "täxt 'quoted' \\ back", True, None,
    b"\x00\x01\xfe\xff", datetime.date(2024, 2, 29),
    datetime.datetime(2024, 3, 1, 12, 30, 0, 123456, tzinfo=datetime.timezone.utc),
    datetime.timedelta(days=1, hours=2), uuid.UUID("00000000-0000-4000-8000-00000000c003"), Jsonb({"k": [1, "two"]}),
    [1, 2, 3], ["a", "b,c", 'd"e'],
]


def types(conn):
    section("types, text and binary")
    marks = sql.SQL(", ").join([sql.Placeholder()] * len(VALUES))
    binary_marks = sql.SQL(", ").join([sql.SQL("%b")] * len(VALUES))
    for name, binary, placeholders in [("text", False, marks), ("binary", True, binary_marks)]:
        row = conn.cursor(binary=binary).execute(sql.SQL("SELECT {}").format(placeholders), VALUES).fetchone()
        say(name, repr(row))


def statements(conn):
    section("statements")
    conn.execute("CREATE TABLE psycopg_items (id int PRIMARY KEY, name text UNIQUE, body bytea)")
    cursor = conn.cursor()
    cursor.executemany("INSERT INTO psycopg_items (id, name) VALUES (%s, %s)", [(n, f"item {n}") for n in range(20)])
    say("rows", cursor.rowcount)
    for n in range(7):  # from the fifth time on it is a prepared statement by itself
        say(conn.execute("SELECT name FROM psycopg_items WHERE id = %s", [n]).fetchone())
    for n in range(3):
        say(conn.execute("SELECT name, %s::int AS n FROM psycopg_items WHERE id = %s", [n, n], prepare=True).fetchall())
    cursor.execute("SELECT 1; SELECT 2, 3; SELECT 'last'")
    while True:
        say("result", cursor.fetchall())
        if not cursor.nextset():
            break
    attempt("empty", lambda: conn.execute("").statusmessage)
    attempt("update", lambda: conn.execute("UPDATE psycopg_items SET body = %b WHERE id < %s", [b"\0" * 10, 5]).rowcount)
    attempt("syntax", lambda: conn.execute("SELEC %s", [1]))
    attempt("too few", lambda: conn.execute("SELECT $1::int + $2::int"))
    attempt("bad value", lambda: conn.execute("SELECT %s::int", ["seven"]))
    attempt("division", lambda: conn.execute("SELECT 1 / %s", [0]))


def transactions(conn):
    section("transactions")
    with conn.transaction(force_rollback=True):
        conn.execute("DELETE FROM psycopg_items")
        say(conn.execute("SELECT count(*) FROM psycopg_items").fetchone())

    def violate():
        with conn.transaction():
            attempt("violation", lambda: conn.execute("INSERT INTO psycopg_items VALUES (%s, %s)", [1, "item 1"]))
            attempt("after it", lambda: conn.execute("SELECT %s", [1]))
            attempt("simple after it", lambda: conn.execute("SELECT 1; SELECT 2"))
            raise psycopg.Rollback

    violate()
    with conn.transaction():
        try:
            with conn.transaction():
                conn.execute("INSERT INTO psycopg_items VALUES (1, 'again')")
        except psycopg.errors.UniqueViolation as error:
            say("savepoint", error.diag.sqlstate)
        say(conn.execute("SELECT count(*) FROM psycopg_items").fetchone())


def pipeline(conn):
    section("pipeline")
    with conn.pipeline():
        cursors = [conn.execute("SELECT %s::int * 2", [n]) for n in range(200)]
    say("sum", sum(cursor.fetchone()[0] for cursor in cursors))
    say("status", conn.info.transaction_status.name)

    # An error in the middle, in libpq's own words: psycopg's pipeline would stop sending as soon as it hears of it.
    raw = conn.pgconn
    raw.enter_pipeline_mode()
    raw.send_query_params(b"SELECT 'before'", None)
    raw.pipeline_sync()
    raw.send_query_params(b"SELECT 1 / $1::int", [b"0"])
    for n in range(5):
        raw.send_query_params(b"INSERT INTO psycopg_items VALUES ($1, $2)", [b"%d" % (100 + n), b"skipped"])
    raw.send_prepare(b"never", b"SELECT $1::int")
    raw.pipeline_sync()
    raw.send_query_params(b"SELECT 'after', $1::int", [b"7"])
    raw.send_flush_request()
    raw.send_query_params(b"SELECT 'the same batch, flushed'", None)
    raw.pipeline_sync()
    syncs = 0
    while syncs < 3:
        result = raw.get_result()
        if result is None:
            continue
        status = pq.ExecStatus(result.status)
        syncs += status == pq.ExecStatus.PIPELINE_SYNC
        say(status.name, result.error_field(pq.DiagnosticField.SQLSTATE), result.ntuples and result.get_value(0, 0))
    raw.exit_pipeline_mode()
    say(conn.execute("SELECT count(*) FROM psycopg_items WHERE id >= 100").fetchone())
    with conn.pipeline():
        cursor = conn.cursor()
        cursor.executemany("INSERT INTO psycopg_items (id, name) VALUES (%s, %s) RETURNING id",
                           [(200 + n, f"many {n}") for n in range(50)], returning=True)
    say("status", conn.info.transaction_status.name)


def copies(conn):
    section("copy")
    cursor = conn.cursor()
    with cursor.copy("COPY psycopg_items (id, name) FROM STDIN") as copy:
        for n in range(1000, 3000):
            copy.write_row((n, f"copied\t{n}\nline"))
    say("rows", cursor.rowcount)
    with cursor.copy("COPY psycopg_items (id, name, body) FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["int4", "text", "bytea"])
        for n in range(3000, 3100):
            copy.write_row((n, f"binary {n}", bytes([n % 256] * 2000)))
    say("rows", cursor.rowcount)

    def fails(lines):
        with cursor.copy("COPY psycopg_items (id, name) FROM STDIN") as copy:
            for line in lines:
                copy.write(line)

    attempt("bad data", lambda: fails(["5000\tfine\n", "five\tbad\n", "5001\tnever\n"]))

    def gives_up():
        yield "6000\tfine\n"
        raise ValueError("the client gave up")

    try:
        fails(gives_up())
    except ValueError as error:
        say("gave up ->", error)
    digest = hashlib.sha256()
    with cursor.copy("COPY (SELECT * FROM psycopg_items ORDER BY id) TO STDOUT") as copy:
        for block in copy:
            digest.update(block)
    say("out", digest.hexdigest())
    with cursor.copy("COPY (SELECT id, name FROM psycopg_items ORDER BY id LIMIT 3) TO STDOUT (FORMAT binary)") as copy:
        copy.set_types(["int4", "text"])
        for row in copy.rows():
            say(row)
    say(conn.execute("SELECT count(*) FROM psycopg_items").fetchone())


def cursors(conn):
    section("server-side cursor")
    with conn.transaction():
        with conn.cursor(name="walk", scrollable=True) as cursor:
            cursor.execute("SELECT id, name FROM psycopg_items WHERE id < %s ORDER BY id", [20])
            cursor.itersize = 7
            say([row[0] for row in cursor])
            cursor.scroll(3, mode="absolute")
            say(cursor.fetchmany(2))
        with conn.cursor(name="walk binary", binary=True) as cursor:
            cursor.execute("SELECT id FROM psycopg_items ORDER BY id LIMIT 5")
            say(cursor.fetchall())


def after_a_cancel(conn):
    """The server may signal a backend twice for one request, so the next statement may be hit as well."""
    while True:
        try:
            return conn.execute("SELECT 'works'").fetchone()
        except psycopg.errors.QueryCanceled:
            pass


def cancelling():
    section("cancel")
    conn = connect()
    pid = conn.info.backend_pid
    watcher = connect()

    def cancel_once_it_runs():
        seen = 0
        while not seen:
            row = watcher.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active' AND wait_event = 'PgSleep'",
                [pid]).fetchone()
            seen = row[0]
        conn.cancel_safe()

    thread = threading.Thread(target=cancel_once_it_runs)
    thread.start()
    attempt("cancelled", lambda: conn.execute("SELECT pg_sleep(60)"))
    thread.join()
    watcher.close()
    say("next", after_a_cancel(conn))
    conn.close()


def notifications(conn):
    section("listen")
    other = connect()
    conn.execute("LISTEN psycopg_news")
    for n in range(3):
        other.execute("SELECT pg_notify('psycopg_news', %s)", [f"payload {n}"])
    for note in conn.notifies(timeout=30, stop_after=3):
        say(note.channel, note.payload)
    other.execute("NOTIFY psycopg_news")
    for note in conn.notifies(timeout=30, stop_after=1):
        say(note.channel, repr(note.payload))
    conn.execute("UNLISTEN *")
    other.close()


def big(conn):
    section("big")
    rows = conn.execute("SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, %s) n", [20000]).fetchall()
    say(len(rows), hashlib.sha256(repr(rows).encode()).hexdigest())
    value = "ü" * 2_000_000
    say(conn.execute("SELECT length(%s), octet_length(%s)", [value, value]).fetchone())
    say(len(conn.execute("SELECT repeat('z', 3000000)").fetchone()[0]))


def main():
    conn = connect()
    conn.add_notice_handler(lambda notice: say("notice", notice.severity, notice.sqlstate, notice.message_primary))
    conn.execute("SET client_min_messages = warning")
    conn.execute("DROP TABLE IF EXISTS psycopg_items")
    conn.execute("SET client_min_messages = notice")
    say(conn.execute("SELECT current_user, current_database(), current_setting('application_name')").fetchone())
    say(conn.info.parameter_status("client_encoding"), conn.info.parameter_status("integer_datetimes"))
    types(conn)
    statements(conn)
    transactions(conn)
    conn.execute("DO $$ BEGIN RAISE NOTICE 'noticed'; RAISE WARNING 'warned' USING ERRCODE = '01004'; END $$")
    pipeline(conn)
    copies(conn)
    cursors(conn)
    cancelling()
    notifications(conn)
    big(conn)
    conn.execute("DROP TABLE psycopg_items")
    conn.close()


main()
