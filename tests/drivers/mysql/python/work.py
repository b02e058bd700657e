"""PyMySQL and mysql-connector-python, by the program's argument."""

import datetime
import decimal
import hashlib
import os
import sys
import threading

HOST = os.environ["MYSQL_HOST"]
PORT = int(os.environ["MYSQL_PORT"])
DATABASE = os.environ["MYSQL_DATABASE"]
USER = os.environ["MYSQL_USER"]
PASSWORD = os.environ["MYSQL_PASSWORD"]
CA = os.environ["MYSQL_CA"]


def say(*values):
    print(*values, flush=True)


def attempt(what, action, errors):
    """Runs `action`, saying what the server's error was, if it was one."""
    try:
        say(what, "->", action())
    except errors as error:
        number, *rest = error.args
        message = getattr(error, "msg", None) or (rest[0] if rest else "")
        say(what, "-> error", number, message)


VALUES = (
    7, -3_000_000_000, 2.5, decimal.Decimal("12345.6789"), "täxt 'quoted' \\ back", None, b"\x00\x01\xfe\xff",
    datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 23, 59, 58, 123456),
    datetime.timedelta(hours=26, minutes=3, seconds=4), 2**63, 1e300, "", "🦀",
)


def by_pymysql():
    import pymysql

    def connect():
        return pymysql.connect(
            host=HOST, port=PORT, user=USER, password=PASSWORD, database=DATABASE, ssl={"ca": CA}, charset="utf8mb4",
            local_infile=True, program_name="driver-pymysql", client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS,
        )

    connection = connect()
    cursor = connection.cursor()
    say("== text")
    cursor.execute("SELECT " + ", ".join(["%s"] * len(VALUES)), VALUES)
    say(cursor.fetchall())
    cursor.execute("CREATE TABLE py_items (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(100), data LONGBLOB)")
    cursor.executemany("INSERT INTO py_items (name, data) VALUES (%s, %s)", [("a", b"\x00\xff"), ("b'c", b"")])
    say(cursor.rowcount, cursor.lastrowid)
    connection.commit()
    attempt("duplicate", lambda: cursor.execute("INSERT INTO py_items (id) VALUES (1)"), pymysql.Error)
    attempt("syntax", lambda: cursor.execute("SELEC 1"), pymysql.Error)

    say("== several results")
    cursor.execute("SELECT 1; SELECT name FROM py_items; UPDATE py_items SET name = 'z'; SELECT 4")
    say(cursor.fetchall())
    while cursor.nextset():
        say(cursor.rowcount, cursor.fetchall())
    cursor.execute("CREATE PROCEDURE py_two(IN n INT) BEGIN SELECT n; SELECT n + 1; END")
    cursor.callproc("py_two", (5,))
    say(cursor.fetchall())
    while cursor.nextset():
        say(cursor.fetchall())

    say("== a file")
    path = f"/tmp/verbatim-py-{os.getpid()}.csv"
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{place},row {place}\n" for place in range(100, 20_000))
    cursor.execute("LOAD DATA LOCAL INFILE %s INTO TABLE py_items FIELDS TERMINATED BY ',' (id, name)", (path,))
    say(cursor.rowcount)
    os.remove(path)
    attempt(
        "a file that is not there",
        lambda: cursor.execute("LOAD DATA LOCAL INFILE '/nowhere/x' INTO TABLE py_items"), Exception,
    )

    say("== large")
    big = b"x" * (17 * 1024 * 1024)
    cursor.execute("INSERT INTO py_items (name, data) VALUES ('big', %s)", (big,))
    cursor.execute("SELECT data, LENGTH(data) FROM py_items WHERE name = 'big'")
    data, length = cursor.fetchone()
    say(length, hashlib.sha256(data).hexdigest())

    say("== a stream of rows")
    stream = connection.cursor(pymysql.cursors.SSCursor)
    stream.execute("SELECT id FROM py_items ORDER BY id")
    say(stream.fetchmany(2), len(stream.fetchall()))

    say("== kill")
    other = connect()

    def kill():
        with other.cursor() as killer:
            while True:
                killer.execute("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(30)%'")
                if killer.fetchone()[0]:
                    break
            killer.execute(f"KILL QUERY {connection.thread_id()}")

    killing = threading.Thread(target=kill)
    killing.start()
    attempt("sleep", lambda: cursor.execute("SELECT SLEEP(30), 'a'"), pymysql.Error)
    killing.join()
    attempt("kill nobody", lambda: other.cursor().execute("KILL 99999999"), pymysql.Error)
    other.ping()
    other.select_db(DATABASE)
    other.close()
    cursor.execute("DROP PROCEDURE py_two")
    cursor.execute("DROP TABLE py_items")
    connection.close()


def by_connector():
    import mysql.connector

    def connect(**more):
        return mysql.connector.connect(
            host=HOST, port=PORT, user=USER, password=PASSWORD, database=DATABASE, ssl_ca=CA, ssl_verify_cert=True,
            use_pure=True, conn_attrs={"program_name": "driver-connector"}, **more,
        )

    connection = connect()
    say("== prepared")
    cursor = connection.cursor(prepared=True)
    cursor.execute("SELECT " + ", ".join(["%s"] * len(VALUES)), VALUES)
    say(cursor.fetchall())
    for values in [(1, "one"), (2, "zwölf"), (3, None), (2**40, b"\x00\xff")]:
        cursor.execute("SELECT ?, ?", values)
        say(cursor.fetchall())
    attempt("missing", lambda: cursor.execute("SELECT ? FROM con_missing", (1,)), mysql.connector.Error)
    cursor.close()

    say("== text")
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE con_items (id INT PRIMARY KEY, name VARCHAR(100))")
    cursor.executemany("INSERT INTO con_items VALUES (%s, %s)", [(1, "a"), (2, "b'c"), (3, "ü")])
    say(cursor.rowcount)
    attempt("duplicate", lambda: cursor.execute("INSERT INTO con_items VALUES (1, 'x')"), mysql.connector.Error)
    connection.commit()
    cursor.execute("SELECT * FROM con_items ORDER BY id")
    say(cursor.fetchall())
    cursor.execute("CREATE PROCEDURE con_two(IN n INT, OUT m INT) BEGIN SELECT n; SELECT n + 1; SET m = 9; END")
    say(cursor.callproc("con_two", (5, 0)))
    for result in cursor.stored_results():
        say(result.fetchall())
    cursor.execute("SELECT 1; SELECT missing; SELECT 3")
    say(cursor.fetchall())
    attempt("several", lambda: cursor.nextset() and cursor.fetchall(), mysql.connector.Error)

    say("== the session")
    connection.cmd_reset_connection()
    connection.ping()
    connection.cmd_change_user(USER, PASSWORD, DATABASE)
    cursor = connection.cursor()
    cursor.execute("SELECT DATABASE(), COUNT(*) FROM con_items")
    say(cursor.fetchall())
    cursor = connection.cursor(prepared=True)
    cursor.execute("SELECT ?", ("after",))
    say(cursor.fetchall())
    cursor.close()
    cursor = connection.cursor()
    cursor.execute("DROP PROCEDURE con_two")
    cursor.execute("DROP TABLE con_items")
    connection.close()


{"pymysql": by_pymysql, "connector": by_connector}[sys.argv[1]]()
