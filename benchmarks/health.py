"""How soon --health is answered while every thread is busy and many connections wait.

python benchmarks/health.py [--connections 1000] [--seconds S] [--output FILE]
"""

import argparse
import os
import socket
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.idle import ask, connect
from harness.load import Request
from harness.process import ServerFailedError, free_port, started
from harness.report import publish
from harness.runner import prepare_process
from harness.servers import SERVERS, Start, server_environment

THREADS = 4
TARGET_MS = 50.0
PAUSE = 0.01
HEALTH = Request(target="/healthz")
# What the threads are at.
BUSY = {"wait": "apps.plain:where", "compute": "apps.plain:compute"}
BUSY_WITH = Request(target="/hold")

EXPLANATION = f"""\
One worker with {THREADS} threads, all of them in requests that take half a second, and a request waiting on
each of the other connections. Then --health is asked every {1000 * PAUSE:.0f} ms, each time on a fresh
connection and on one that is kept. The client shares the machine with the server, and its own time is in the
figures."""


def measure(application: str, connections: int, seconds: float, folder: Path) -> list[float]:
    """Milliseconds to each answer, over fresh connections and a kept one."""
    server = SERVERS["fastwsgi"]
    port = free_port()
    folder.mkdir()
    [command] = server.commands(Start(application, port, THREADS, folder, 0, False))
    command[-1:-1] = ["--health", HEALTH.target]
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    octets = HEALTH.octets(port)
    found = []
    environment = server_environment(server, folder)
    with started([command], port, cores, environment, folder) as processes, ExitStack() as stack:
        kept = stack.enter_context(connect(port, 0))
        for number in range(1, connections + 1):
            busy = stack.enter_context(connect(port, number))
            busy.sendall(BUSY_WITH.octets(port))
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found.append(timed(kept, octets))
            began = time.perf_counter()
            with socket.create_connection(("127.0.0.1", port), timeout=10) as fresh:
                timed(fresh, octets)
                found.append(1000 * (time.perf_counter() - began))
            time.sleep(PAUSE)
        processes.check_alive()
    return found


def timed(connection: socket.socket, octets: bytes) -> float:
    """Ask, and say how many milliseconds the answer took."""
    began = time.perf_counter()
    if not ask(connection, octets):
        raise ServerFailedError("--health was not answered with 200")
    return 1000 * (time.perf_counter() - began)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--connections", type=int, default=1000, help="that wait (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5, help="of each case (%(default)s)")
    parser.add_argument("--output", type=Path, help="write the table to this file, as Markdown")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    problem = prepare_process()
    if problem:
        print(f"benchmarks: {problem}", file=sys.stderr)
        return 1
    load = os.getloadavg()[0]
    rows = [
        ["the threads", "connections", "asked", "median ms", "p99 ms", "most ms", f"<= {TARGET_MS:.0f} ms"]
    ]
    reached = True
    with tempfile.TemporaryDirectory(prefix="fastwsgi-bench-") as folder:
        for what, application in BUSY.items():
            found = measure(application, arguments.connections, arguments.seconds, Path(folder) / what)
            *_, p99 = statistics.quantiles(found, n=100)
            most = max(found)
            reached &= most <= TARGET_MS
            rows.append(
                [
                    what,
                    f"{arguments.connections:,}",
                    str(len(found)),
                    f"{statistics.median(found):.2f}",
                    f"{p99:.2f}",
                    f"{most:.2f}",
                    "reached" if most <= TARGET_MS else "NOT reached",
                ]
            )
    publish("Health checks of a busy server", EXPLANATION, rows, load=load, output=arguments.output)
    return not reached


if __name__ == "__main__":
    sys.exit(main())
