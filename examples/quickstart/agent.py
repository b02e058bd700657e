"""A scripted agent: gets a token from (simulated) Entra and works on a database through Verbatim.

Nothing here knows Verbatim: it is psql and psycopg, with the token as the password.
"""

import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request

import psycopg

AGENT = "d4d4d4d4-0000-4000-8000-00000000d004"
OUTSIDER = "b3b3b3b3-0000-4000-8000-00000000b003"


def token(client_id, secret):
    """The client credentials grant, as an agent does it with Entra."""
    fields = {
        "grant_type": "client_credentials",
        "client_id": client_id,
        "client_secret": secret,
        "scope": "api://verbatim-gateway/.default",
    }
    url = f"{os.environ['AUTHORITY']}/{os.environ['TENANT']}/oauth2/v2.0/token"
    with urllib.request.urlopen(url, urllib.parse.urlencode(fields).encode()) as answer:
        return json.load(answer)["access_token"]


def by_psql(password):
    print("  over psql: how much is owed?")
    questions = [
        "SELECT count(*) AS open_invoices, sum(amount) AS owed FROM invoices WHERE paid_at IS NULL",
        "SELECT c.name, sum(i.amount) AS owed FROM customers c JOIN invoices i ON i.customer = c.id"
        " WHERE i.paid_at IS NULL GROUP BY c.name ORDER BY owed DESC LIMIT 3",
    ]
    command = ["psql", "-X", "-q", "-P", "pager=off"]
    for question in questions:
        command += ["-c", question]
    subprocess.run(command, env={**os.environ, "PGPASSWORD": password, "PGAPPNAME": "billing-agent (psql)"}, check=True)


def by_driver(password):
    print("  over psycopg: a reminder, a payment, and a mistake")
    with psycopg.connect("", password=password, application_name="billing-agent (psycopg)") as connection:
        owing = connection.execute(
            "SELECT id, amount FROM invoices WHERE paid_at IS NULL AND amount > %s ORDER BY id LIMIT 2", [1000]
        ).fetchall()
        with connection.cursor() as cursor:
            with cursor.copy("COPY reminders (invoice, text) FROM STDIN") as copy:
                for invoice, amount in owing:
                    copy.write_row((invoice, f"Please pay {amount}"))
        connection.commit()
        connection.execute("UPDATE invoices SET paid_at = now() WHERE id = %s AND amount = %s", owing[0])
        connection.commit()
        try:
            connection.execute("INSERT INTO customers (id, name, email) VALUES (%s, %s, %s)", [1, "Twice", "twice@example.com"])
        except psycopg.errors.UniqueViolation as error:
            print(f"    the database says: {error.diag.message_primary}")
            connection.rollback()


def by_an_outsider(password):
    print("  and an agent that is in no group tries")
    try:
        psycopg.connect("", password=password, application_name="outsider")
    except psycopg.OperationalError as error:
        refusal = next(line for line in str(error).splitlines() if "FATAL" in line)
        print(f"    refused: {refusal.split('FATAL:')[1].strip()}")
        return
    sys.exit("the outsider was let in")


if __name__ == "__main__":
    agents = token(AGENT, "agent-secret")
    print(f"  a token of {len(agents)} bytes for the agent {AGENT}")
    by_psql(agents)
    by_driver(agents)
    by_an_outsider(token(OUTSIDER, "outsider-secret"))
