"""What is measured, and how one measurement of it is made."""

import time
from dataclasses import dataclass, field

from . import machine, pgbench, servers, wire

# 1,000 rows whose two values measure 37 bytes together.
ROWS = 1000
ROW_TABLE = f"""
    CREATE TABLE narrow (id text NOT NULL, pad text NOT NULL);
    INSERT INTO narrow SELECT to_char(n, 'FM0000'), repeat('x', 33) FROM generate_series(1, {ROWS}) n;
"""
ROW_SCRIPT = "SELECT id, pad FROM narrow;\n"
# A streamed result is made of such rows; it is never stored.
WIDE_ROW = 1000
# How long what runs behind the path (index, sinks) may take to catch up after a run.
CATCH_UP_MAX = 120
# Less than this much processor time in one look is idleness.
IDLE_LOOK = 0.25
IDLE_CPU = 0.03
SINKLESS = ("direct", "pgbouncer", "floor-pass", "floor-rec", "floor-dur", "verbatim-async", "verbatim-durable")
WITH_SINK = (*SINKLESS, "verbatim-async+sink")
PROXIES = ("pgbouncer", "floor-pass", "verbatim-async")


@dataclass
class Scenario:
    name: str
    title: str
    load: pgbench.Load | None = None
    kind: str = "pgbench"  # or "stream", "idle"
    subjects: tuple = SINKLESS
    quick: bool = False
    copy: bool = False
    tls: bool = False

    @property
    def connecting(self):
        return self.load is not None and self.load.connect


@dataclass
class Measured:
    """One measurement of one subject. Latencies are microseconds, processor time is seconds."""

    operations: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    cpu: float = 0.0
    cpu_behind: float = 0.0
    threads: dict = field(default_factory=dict)
    catch_up: float = 0.0
    bytes: int = 0
    memory: float = 0.0
    gateway: dict = field(default_factory=dict)


def all_scenarios(row_script):
    # First, while no process has kept memory from what it did before.
    idle = [
        Scenario("idle", "idle connections", kind="idle", subjects=PROXIES, quick=True),
        Scenario("idle-tls", "idle TLS connections", kind="idle", subjects=PROXIES[::2], tls=True),
    ]
    loads = []
    for mode in ("simple", "extended", "prepared"):
        for clients in (1, 8, 32):
            load = pgbench.Load(mode, clients, "select-only")
            subjects = WITH_SINK if mode == "simple" and clients > 1 else SINKLESS
            quick = clients == 8 and mode != "extended"
            title = f"select by key, {mode}, c{clients}"
            loads.append(Scenario(f"{mode}-c{clients}", title, load, subjects=subjects, quick=quick))
    tpcb = [("tpcb-simple-c8", "simple", 8), ("tpcb-prepared-c32", "prepared", 32)]
    for name, mode, clients in tpcb:
        load = pgbench.Load(mode, clients, "tpcb-like", statements=7)
        loads.append(Scenario(name, f"TPC-B (7 statements), {mode}, c{clients}", load))
    return idle + loads + [
        Scenario("rows-c8", "1,000 rows of 37 bytes, simple, c8", pgbench.Load("simple", 8, row_script), quick=True),
        Scenario("tls-c8", "select by key, simple, c8, TLS", pgbench.Load("simple", 8, "select-only", tls=True)),
        Scenario("connect-c8", "new connection for each select, c8",
                 pgbench.Load("simple", 8, "select-only", connect=True), quick=True),
        Scenario("connect-tls-c8", "new TLS connection for each select, c8",
                 pgbench.Load("simple", 8, "select-only", connect=True, tls=True)),
        Scenario("stream-rows", "one large result, rows", kind="stream", quick=True),
        Scenario("stream-copy", "one large result, COPY", kind="stream", copy=True),
    ]


def measure(scenario, subject, options, logs):
    """One measurement. The subject has nothing left to do when it begins and when it ends."""
    if scenario.kind == "idle":
        return idle(scenario, subject, options.connections)
    caught_up(subject)
    figures = servers.metrics(subject.admin) if subject.admin else {}
    before = machine.cpu(subject.pid)
    if scenario.kind == "stream":
        measured = stream(scenario, subject, options.stream_mib << 20)
    else:
        measured = transactions(scenario, subject, options.seconds, logs)
    measured.catch_up = caught_up(subject)
    spent = machine.cpu(subject.pid).since(before)
    measured.cpu_behind = spent.behind(scenario.connecting)
    measured.cpu = spent.total - measured.cpu_behind
    measured.threads = {name: round(seconds, 2) for name, seconds in spent.threads.items() if seconds > 0}
    if subject.admin:
        after = servers.metrics(subject.admin)
        measured.gateway = {name: after[name] - figures.get(name, 0.0) for name in after if "ledger_" in name}
    return measured


def transactions(scenario, subject, seconds, logs):
    done = pgbench.run(scenario.load, subject, seconds, logs)
    operations = done.transactions * scenario.load.statements
    return Measured(
        operations=operations,
        seconds=done.seconds,
        rate=done.tps,
        p50=percentile(done.latencies, 50),
        p99=percentile(done.latencies, 99),
    )


def stream(scenario, subject, size):
    rows = size // WIDE_ROW
    # In the target list, so that the server makes rows as they are taken.
    query = f"SELECT repeat('x', {WIDE_ROW}) FROM (SELECT generate_series(1, {rows})) AS numbers"
    if scenario.copy:
        query = f"COPY ({query}) TO STDOUT"
    client = wire.connect(subject.port, servers.USER, servers.DATABASE, subject.password)
    with client:
        wire.query(client, "SELECT 1")
        if subject.pid:
            machine.forget_peak(subject.pid)
        received, seconds = wire.query(client, query)
    if received < rows * WIDE_ROW:
        raise SystemExit(f"{subject.name}: {received} bytes of a result of {rows * WIDE_ROW}")
    peak = machine.peak_rss(subject.pid) if subject.pid else 0
    return Measured(operations=1, seconds=seconds, rate=received / seconds, bytes=received, memory=peak)


def idle(scenario, subject, count):
    """Memory of one idle connection, after it has run a command."""
    warm = wire.connect(subject.port, servers.USER, servers.DATABASE, subject.password, scenario.tls)
    warm.close()
    caught_up(subject)
    before = machine.pss(subject.pid)
    clients = []
    try:
        for _ in range(count):
            client = wire.connect(subject.port, servers.USER, servers.DATABASE, subject.password, scenario.tls)
            clients.append(client)
            wire.query(client, "SELECT 1")
        caught_up(subject)
        held = machine.pss(subject.pid) - before
    finally:
        for client in clients:
            client.close()
    caught_up(subject)
    return Measured(operations=count, memory=held / count, bytes=before)


def caught_up(subject):
    """Waits until the subject has nothing left to do; returns how long that took."""
    if subject.pid is None:
        return 0.0
    started = time.monotonic()
    busy = started
    while time.monotonic() - started < CATCH_UP_MAX:
        before = machine.cpu(subject.pid).total
        time.sleep(IDLE_LOOK)
        idle_now = machine.cpu(subject.pid).total - before < IDLE_CPU
        if idle_now and not lags(subject):
            return busy - started
        busy = time.monotonic()
    raise SystemExit(f"{subject.name} did not catch up within {CATCH_UP_MAX} s")


def lags(subject):
    if subject.admin is None:
        return False
    figures = servers.metrics(subject.admin)
    return any(value > 0 for name, value in figures.items() if name.endswith("_lag_entries"))


def percentile(values, percent):
    """Of sorted values, the one that `percent` of them do not exceed."""
    if not values:
        return 0.0
    return float(values[min(len(values) - 1, len(values) * percent // 100)])
