"""One run of pgbench, and what it says: transactions, and how long each took."""

import os
import re
import subprocess
from dataclasses import dataclass

from . import servers

# A run that takes this much longer than it should hangs.
PATIENCE = 60


@dataclass
class Load:
    """What pgbench is to do."""

    mode: str
    clients: int
    script: str  # a built-in's name, or a path
    statements: int = 1  # in one transaction
    connect: bool = False  # a new connection for each transaction
    tls: bool = False


@dataclass
class Done:
    transactions: int
    seconds: float
    tps: float
    latencies: list  # microseconds, sorted


def initialize(port, scale):
    servers.run(["pgbench", "-i", "-q", "-s", str(scale), *address(port)])


def address(port):
    return ["-h", "127.0.0.1", "-p", str(port), "-U", servers.USER, servers.DATABASE]


def run(load, subject, seconds, logs):
    for old in logs.glob("pgbench.*"):
        old.unlink()
    builtin = ["-f", load.script] if os.sep in load.script else ["-b", load.script]
    command = ["pgbench", "-n", "-M", load.mode, "-c", str(load.clients), "-j", str(min(load.clients, 2))]
    command += ["-T", str(seconds), *builtin, "-l", "--log-prefix", str(logs / "pgbench")]
    command += ["-C"] if load.connect else []
    environment = {**os.environ, "PGPASSWORD": subject.password, "PGGSSENCMODE": "disable"}
    environment["PGSSLMODE"] = "require" if load.tls else "disable"
    done = subprocess.run(
        command + address(subject.port),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        timeout=seconds + PATIENCE,
    )
    transactions = number(r"number of transactions actually processed: (\d+)", done.stdout)
    failed = number(r"number of failed transactions: (\d+)", done.stdout)
    tps = number(r"^tps = ([\d.]+)", done.stdout)
    if done.returncode != 0 or failed != 0 or not transactions or not tps:
        raise SystemExit(f"pgbench through {subject.name} failed\n{done.stdout}{done.stderr}")
    latencies = []
    for log in logs.glob("pgbench.*"):
        with open(log) as lines:
            latencies.extend(int(line.split(" ", 3)[2]) for line in lines)
    return Done(int(transactions), transactions / tps, tps, sorted(latencies))


def number(pattern, text):
    found = re.search(pattern, text, re.MULTILINE)
    return float(found.group(1)) if found else None
