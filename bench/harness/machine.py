"""What the kernel says of a process and of the machine. Times are seconds, sizes bytes, unless a name says otherwise."""

import os
import platform
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")

# A sync that overwrites blocks that are there, as a ledger with segments made beforehand does.
PROBE_BLOCK = 4096
PROBE_BLOCKS = 256

# Threads of the gateway that run behind a command's path, by the 15 bytes that the kernel keeps of a name: the session
# index, and the control runtime with the sinks. The latter accepts streams too, so where connecting is what is measured
# it is on the path.
INDEX = "verbatim-index"
CONTROL = "verbatim-contro"


@dataclass
class Cpu:
    """Processor time that a process took, user and system, all its threads, those that ended included."""

    total: float = 0.0
    threads: dict = field(default_factory=dict)

    def since(self, before):
        threads = {name: spent - before.threads.get(name, 0.0) for name, spent in self.threads.items()}
        return Cpu(self.total - before.total, threads)

    def behind(self, connecting):
        names = [INDEX] if connecting else [INDEX, CONTROL]
        return sum(self.threads.get(name, 0.0) for name in names)


def cpu(pid):
    if pid is None:
        return Cpu()
    threads = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name = thread_group((task / "comm").read_text().strip())
            threads[name] = threads.get(name, 0.0) + stat_cpu(task / "stat")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return Cpu(stat_cpu(Path(f"/proc/{pid}/stat")), threads)


def thread_group(name):
    """Threads of one kind count together: a number at the end is dropped."""
    return name.rstrip("0123456789").rstrip("-#")


def stat_cpu(path):
    # The name is in parentheses and may hold anything; utime and stime are the 14th and 15th field.
    fields = path.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def pss(pid):
    """Memory that is this process's share, in bytes."""
    return 1024 * keyed(f"/proc/{pid}/smaps_rollup", "Pss")


def forget_peak(pid):
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_rss(pid):
    """The most that was resident since `forget_peak`, in bytes."""
    return 1024 * keyed(f"/proc/{pid}/status", "VmHWM")


def rss(pid):
    return 1024 * keyed(f"/proc/{pid}/status", "VmRSS")


def keyed(path, key):
    for line in Path(path).read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == key:
            return int(rest.split()[0])
    raise LookupError(f"{path}: no {key}")


def sync_times(directory, count):
    """How long each of `count` syncs of one overwritten block took, in seconds."""
    path = directory / "sync-probe"
    block = os.urandom(PROBE_BLOCK)
    taken = []
    with open(path, "wb") as probe:
        probe.write(block * PROBE_BLOCKS)
        probe.flush()
        os.fsync(probe.fileno())
        for at in range(count):
            os.pwrite(probe.fileno(), block, at % PROBE_BLOCKS * PROBE_BLOCK)
            started = time.perf_counter()
            os.fdatasync(probe.fileno())
            taken.append(time.perf_counter() - started)
    path.unlink()
    return taken


def facts(directory):
    """What a reader has to know of the machine; nothing that names it."""
    filesystem = subprocess.run(
        ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", directory],
        check=True,
        capture_output=True,
        text=True,
    )
    model = [line.partition(":")[2].strip() for line in cpu_info() if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model[0] if model else platform.machine(),
        "memory_gib": round(keyed("/proc/meminfo", "MemTotal") / (1 << 20), 1),
        "kernel": platform.release(),
        "filesystem": filesystem.stdout.strip(),
    }


def cpu_info():
    return Path("/proc/cpuinfo").read_text().splitlines()
