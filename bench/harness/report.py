"""Medians of what was measured, as a table that a person reads and as JSON."""

import dataclasses
import json
from statistics import median

COLUMNS = {
    "pgbench": ["subject", "tps", "/ direct", "/ pgbouncer", "p50 µs", "p99 µs", "added p50", "added p99",
                "CPU µs/op", "behind µs/op"],
    "stream": ["subject", "MB/s", "/ direct", "/ pgbouncer", "CPU ms/MB", "behind ms/MB", "peak RSS MiB"],
    "idle": ["subject", "KiB a connection", "process before MiB"],
}
MB = 1e6
KIB = 1024
MIB = 1 << 20


def middle(runs, name):
    return median(getattr(run, name) for run in runs)


def markdown(results, facts, command, syncs, notes):
    lines = [f"`{command}`", ""]
    lines.append(
        f"{facts['cores']} cores ({facts['processor']}), {facts['memory_gib']} GiB, Linux {facts['kernel']}, "
        f"{facts['filesystem']}; client, proxies and server on the same cores, over loopback. PostgreSQL syncs nothing "
        "(`fsync = off`), so that it is no bottleneck. Medians of "
        f"{facts['repetitions']} interleaved repetitions of {facts['seconds']} s."
    )
    if syncs:
        lines.append(
            f"One fdatasync of 4 KiB on that filesystem, between the runs: p50 {syncs['p50']:.0f} µs, "
            f"p99 {syncs['p99']:.0f} µs."
        )
    lines.append(
        "CPU is the proxy's own, user and system, an operation (TPC-B: a statement); *behind* is what its index and "
        "sinks took for the same operations, off the path. *Added* is against the direct run beside it."
    )
    for scenario, by_subject in results:
        lines += ["", f"### {scenario.title}", *table(scenario, by_subject)]
    durable = commits(results)
    if durable:
        lines += ["", "### Commits of the durable gateway", *durable]
    lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def table(scenario, by_subject):
    columns = COLUMNS[scenario.kind]
    rows = ["| " + " | ".join(columns) + " |", "| --- " + "| ---: " * (len(columns) - 1) + "|"]
    make = {"pgbench": transactions, "stream": streams, "idle": idle}[scenario.kind]
    for subject, runs in by_subject.items():
        rows.append("| " + " | ".join([subject, *make(runs, by_subject, subject)]) + " |")
    return rows


def ratio(by_subject, runs, peer):
    """The median of the ratios within a repetition: what the machine did meanwhile, it did to both."""
    others = by_subject.get(peer)
    if not others:
        return "–"
    return f"{median(run.rate / other.rate for run, other in zip(runs, others)):.2f}"


def transactions(runs, by_subject, subject):
    direct = by_subject.get("direct")
    added = ["–", "–"]
    if direct and subject != "direct":
        added = [f"{against(runs, direct, name):.0f}" for name in ("p50", "p99")]
    cells = [f"{middle(runs, 'rate'):.0f}", ratio(by_subject, runs, "direct"), ratio(by_subject, runs, "pgbouncer")]
    cells += [f"{middle(runs, 'p50'):.0f}", f"{middle(runs, 'p99'):.0f}", *added]
    return cells + [per_operation(runs, "cpu", subject), per_operation(runs, "cpu_behind", subject)]


def against(runs, direct, name):
    """The median of the differences within a repetition, for the reason that `ratio` has."""
    return median(getattr(run, name) - getattr(other, name) for run, other in zip(runs, direct))


def per_operation(runs, name, subject):
    if subject == "direct" or (name == "cpu_behind" and not subject.startswith("verbatim")):
        return "–"
    return f"{median(getattr(run, name) / run.operations for run in runs) * 1e6:.1f}"


def streams(runs, by_subject, subject):
    cells = [f"{middle(runs, 'rate') / MB:.0f}", ratio(by_subject, runs, "direct"),
             ratio(by_subject, runs, "pgbouncer")]
    if subject == "direct":
        return cells + ["–", "–", "–"]
    per_mb = {name: median(getattr(run, name) * 1e3 / (run.bytes / MB) for run in runs) for name in ("cpu", "cpu_behind")}
    behind = f"{per_mb['cpu_behind']:.2f}" if subject.startswith("verbatim") else "–"
    return cells + [f"{per_mb['cpu']:.2f}", behind, f"{max(run.memory for run in runs) / MIB:.1f}"]


def idle(runs, _by_subject, _subject):
    return [f"{middle(runs, 'memory') / KIB:.1f}", f"{middle(runs, 'bytes') / MIB:.1f}"]


def commits(results):
    rows = ["| scenario | entries a commit | mean sync µs | ledger bytes an operation |", "| --- | ---: | ---: | ---: |"]
    for scenario, by_subject in results:
        runs = by_subject.get("verbatim-durable")
        if scenario.kind != "pgbench" or not runs:
            continue
        total = {}
        for run in runs:
            for name, value in run.gateway.items():
                total[name] = total.get(name, 0.0) + value
        batches, syncs = total.get("verbatim_ledger_commits_total"), total.get("verbatim_ledger_sync_seconds_count")
        if not batches or not syncs:
            continue
        operations = sum(run.operations for run in runs)
        entries = total["verbatim_ledger_entries_total"] / batches
        sync = total["verbatim_ledger_sync_seconds_sum"] / syncs * 1e6
        size = total["verbatim_ledger_bytes_total"] / operations
        rows.append(f"| {scenario.name} | {entries:.1f} | {sync:.0f} | {size:.0f} |")
    return rows if len(rows) > 2 else []


def as_json(results, facts, command, syncs, notes):
    scenarios = []
    for scenario, by_subject in results:
        runs = {subject: [dataclasses.asdict(run) for run in measured] for subject, measured in by_subject.items()}
        scenarios.append({"name": scenario.name, "title": scenario.title, "kind": scenario.kind, "runs": runs})
    document = {"command": command, "machine": facts, "fdatasync_us": syncs, "notes": notes, "scenarios": scenarios}
    return json.dumps(document, indent=1) + "\n"
