"""500 slow-header, 500 slow-body and 500 slow-reading clients, and what normal ones keep of their speed."""

import dataclasses
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from scene import HERE, MIB, arguments, crowd, figure, play, promise

sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))

from harness.idle import fresh_requests
from harness.load import Load, Request, check_answer
from harness.process import ServerFailedError, free_port, started
from harness.servers import SERVERS, Start, server_environment

PEERS = ("gunicorn", "waitress", "granian", "nginx-gunicorn")
HOSTILE = {"head": 500, "content": 250, "chunks": 250, "reader": 500}
HELLO = Request()
CONNECTIONS = 64
FRESH_PER_SECOND = 50
SETTLE_MOST = 30.0


@dataclasses.dataclass(frozen=True)
class Phase:
    """What normal clients and the server came to in one measurement."""

    per_second: float
    p50_ms: float
    p99_ms: float
    fresh_p99_ms: float
    failed: int
    cpu_us: float  # for each request
    share: float  # of the core
    memory: int


@dataclasses.dataclass(frozen=True)
class Round:
    before: Phase
    alone: float  # the share of the core that the attack takes, where nobody else asks
    during: Phase
    after: Phase


def measure(processes, port, folder, seconds):
    """Normal clients at full load: kept connections by wrk, new ones beside them."""
    cpu, begun = processes.cpu_ns(), time.monotonic()
    load = Load(port, HELLO, CONNECTIONS, folder)
    try:
        fresh_us, fresh_failed = fresh_requests(port, HELLO, FRESH_PER_SECOND, seconds)
        counted = load.finish()
    finally:
        load.kill()
    used, took = processes.cpu_ns() - cpu, time.monotonic() - begun
    return Phase(
        counted.per_second,
        counted.p50_us / 1000,
        counted.p99_us / 1000,
        fresh_us / 1000,
        counted.failed + fresh_failed,
        used / 1000 / counted.requests if counted.requests else float("inf"),
        used / 1e9 / took,
        processes.pss_bytes(),
    )


def settle(processes):
    """Wait until the server has done what the attack has begun with; so many seconds."""
    begun = time.monotonic()
    calm = 0
    while calm < 3 and time.monotonic() < begun + SETTLE_MOST:
        cpu = processes.cpu_ns()
        time.sleep(0.5)
        calm = calm + 1 if processes.cpu_ns() - cpu < 0.1 * 0.5e9 else 0
    return time.monotonic() - begun


def measure_server(name, core, is_long):
    """One round: before, during and after an attack on a server that was started for it."""
    quiet, attacked = (3.0, 16.0) if is_long else (1.0, 2.0)
    hostile = HOSTILE if is_long else {kind: count // 5 for kind, count in HOSTILE.items()}
    server = SERVERS[name]
    with tempfile.TemporaryDirectory(prefix="abuse-") as directory:
        folder = Path(directory)
        folder.chmod(0o755)
        start = Start("victim:application", free_port(), 4, folder, 5, False)
        environment = server_environment(server, folder)
        environment["PYTHONPATH"] += os.pathsep + str(HERE)
        with started(server.commands(start), start.port, str(core), environment, folder) as processes:
            check_answer(start.port, HELLO, b"hello")
            fresh_requests(start.port, HELLO, FRESH_PER_SECOND, 0.5)
            before = measure(processes, start.port, folder, quiet)
            with crowd(start.port, **hostile) as counted:
                settled = settle(processes)
                cpu = processes.cpu_ns()
                time.sleep(attacked)
                alone = (processes.cpu_ns() - cpu) / 1e9 / attacked
                during = measure(processes, start.port, folder, attacked)
            settle(processes)
            after = measure(processes, start.port, folder, quiet)
            processes.check_alive()
            if server.kind == "ours":
                figure("hostile clients", counted, f"calm after {settled:.1f} s")
                promise("Traceback" not in processes.log.read_text(), "no traceback is logged")
    return Round(before, alone, during, after)


def both(rounds, name, digits=1, unit=1.0):
    """The medians of a figure before and during the attack."""
    values = (
        statistics.median(getattr(phase, name) for phase in phases) / unit
        for phases in ([one.before for one in rounds], [one.during for one in rounds])
    )
    return " / ".join(f"{value:,.{digits}f}" if 0 < value < math.inf else "-" for value in values)


def row(name, rounds):
    kept = sorted(one.during.per_second / one.before.per_second for one in rounds)
    again = statistics.median(one.after.per_second / one.before.per_second for one in rounds)
    cells = [
        name,
        both(rounds, "per_second", 0),
        f"{statistics.median(kept):.1%} ({kept[0]:.0%} to {kept[-1]:.0%})",
        f"{again:.0%}",
        f"{sum(one.before.failed for one in rounds)} / {sum(one.during.failed for one in rounds)}",
        both(rounds, "p50_ms"),
        both(rounds, "p99_ms"),
        both(rounds, "fresh_p99_ms"),
        both(rounds, "cpu_us"),
        both(rounds, "share", 0, 0.01),
        f"{statistics.median(one.alone for one in rounds):.1%}",
        both(rounds, "memory", 0, MIB),
    ]
    return "| " + " | ".join(cells) + " |"


HEADINGS = (
    "server",
    "req/s",
    "kept (least to most)",
    "afterwards",
    "failed",
    "p50 ms",
    "p99 ms",
    "p99 ms, new connections",
    "CPU us a request",
    "% of its core",
    "attack alone",
    "MiB",
)


def throughput(is_long):
    """1500 slow clients (300 in the quick form) beside normal ones; before / during the attack"""
    if shutil.which("wrk") is None or shutil.which("taskset") is None:
        figure("left out", "wrk or taskset is not here")
        return
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    names = ["fastwsgi", *(PEERS if arguments().compare else ())]
    missing = [name for name in names if SERVERS[name].version() is None]
    figure("versions", *(f"{name} {SERVERS[name].version()}" for name in names if name not in missing))
    if missing:
        figure("missing (benchmarks/setup.sh)", *missing)
    measured = {name: [] for name in names if name not in missing}
    # Round by round over all servers, so that what disturbs the machine disturbs each alike.
    for _ in range(3 if is_long else 1):
        for name, rounds in measured.items():
            try:
                rounds.append(measure_server(name, cores[-1], is_long))
            except ServerFailedError as error:
                figure(name, f"failed: {error}")
    print("\n| " + " | ".join(HEADINGS) + " |")
    print("| :-- |" + " --: |" * (len(HEADINGS) - 1))
    for name, rounds in measured.items():
        if rounds:
            print(row(name, rounds))
    print()
    ours = measured["fastwsgi"]
    promise(len(ours) > 0, "fastwsgi was measured")
    promise(not any(one.during.failed + one.after.failed for one in ours), "no normal request fails")


if __name__ == "__main__":
    play(throughput)
