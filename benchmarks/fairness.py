"""How workers share connections that stay: one listener for all of them against --reuse-port.

python benchmarks/fairness.py [--workers 1,2,4] [--connections 64,10000] [--seconds S] [--output FILE]
"""

import argparse
import os
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from apps.plain import HOLD_SECONDS
from harness.idle import connect, fresh_requests
from harness.load import Load, Request
from harness.process import START_SECONDS, Processes, ServerFailedError, free_port, started
from harness.report import publish
from harness.runner import prepare_process
from harness.servers import SERVERS, Start, server_environment

APPLICATION = "apps.plain:where"
LISTENERS: dict[str, list[str]] = {"shared": [], "--reuse-port": ["--reuse-port"]}
ORDERS = ("one by one", "at once")
THREADS = 4
LOAD_CONNECTIONS = 32
PER_SECOND = 200
WHERE = Request()
HOLD = Request(target="/hold")

EXPLANATION = """\
Connections that stay, each after one answered request: opened one by one (each answered before the next is
opened), or at once; without any load, and beside wrk with 32 kept connections at full speed. "Off" is how far
the worker that is farthest from an even share has more or less than that. Then 200 requests per second, each
on a fresh connection: their p99, and the same while one of the workers has requests of half a second in all
of its 4 threads, and 4 more that wait for a thread."""


@dataclass(frozen=True)
class Cell:
    listener: str
    workers: int
    connections: int
    order: str
    is_loaded: bool


@dataclass(frozen=True)
class Found:
    shares: list[int]
    fresh_us: float
    held_us: float
    failed: int

    @property
    def off(self) -> float:
        even = sum(self.shares) / len(self.shares)
        return max(abs(share - even) for share in self.shares) / even


def wait_for_workers(processes: Processes, count: int) -> None:
    """Until all of them watch their listeners: their threads have begun then."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        names = []
        for pid in processes.pids():
            for name in Path(f"/proc/{pid}/task").glob("*/comm"):
                with suppress(OSError):
                    names.append(name.read_text().strip())
        if names.count("fastwsgi-keeper") == count:
            time.sleep(0.2)
            return
        time.sleep(0.02)
    raise ServerFailedError(f"{count} workers did not start: {processes.log_tail()}")


def answer(connection: socket.socket) -> str:
    """The process that answers."""
    received = b""
    while not received.partition(b"\r\n\r\n")[2]:
        block = connection.recv(65536)
        if not block:
            raise ServerFailedError(f"ended a connection after {received!r}")
        received += block
    return received.rpartition(b"\r\n\r\n")[2].decode()


def open_connections(stack: ExitStack, port: int, cell: Cell) -> dict[str, list[socket.socket]]:
    """Open them, and tell which process has which."""
    octets = WHERE.octets(port)
    by_worker: dict[str, list[socket.socket]] = {}
    waiting = []
    for number in range(cell.connections):
        connection = stack.enter_context(connect(port, number))
        connection.settimeout(10)
        connection.sendall(octets)
        waiting.append(connection)
        if cell.order == "one by one":
            answer_of = waiting.pop()
            by_worker.setdefault(answer(answer_of), []).append(answer_of)
    for connection in waiting:
        by_worker.setdefault(answer(connection), []).append(connection)
    return by_worker


@contextmanager
def loaded(port: int, folder: Path, is_loaded: bool) -> Iterator[Counter[str]]:
    """A load beside what is measured; what of it failed, at the end."""
    failed: Counter[str] = Counter()
    if not is_loaded:
        yield failed
        return
    load = Load(port, WHERE, LOAD_CONNECTIONS, folder)
    try:
        yield failed
        failed["load"] += load.finish().failed
    finally:
        load.kill()


def measure(cell: Cell, seconds: float, folder: Path) -> Found:
    server = SERVERS["fastwsgi"]
    port = free_port()
    folder.mkdir()
    [command] = server.commands(Start(APPLICATION, port, THREADS, folder, 0, False, cell.workers))
    command[-1:-1] = LISTENERS[cell.listener]
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    environment = server_environment(server, folder)
    with started([command], port, cores, environment, folder) as processes, ExitStack() as stack:
        wait_for_workers(processes, cell.workers)
        with loaded(port, folder, cell.is_loaded) as failed:
            by_worker = open_connections(stack, port, cell)
            fresh_us, count = fresh_requests(port, WHERE, PER_SECOND, seconds)
            failed["fresh"] += count
            held = next(iter(by_worker.values()))[: 2 * THREADS]
            for connection in held:
                connection.sendall(HOLD.octets(port))
            held_us, count = fresh_requests(port, WHERE, PER_SECOND, 2 * HOLD_SECONDS)
            failed["fresh"] += count
            for connection in held:
                answer(connection)
        processes.check_alive()
    shares = [len(connections) for connections in by_worker.values()]
    shares += [0] * (cell.workers - len(shares))
    return Found(sorted(shares), fresh_us, held_us, failed.total())


def cells(workers: list[int], connections: list[int]) -> Iterator[Cell]:
    for count in workers:
        for total in connections:
            for order in ORDERS:
                for is_loaded in (False, True):
                    for listener in LISTENERS:
                        yield Cell(listener, count, total, order, is_loaded)


def row(cell: Cell, found: Found | None) -> list[str]:
    head = [
        cell.listener,
        str(cell.workers),
        f"{cell.connections:,}",
        cell.order,
        "yes" if cell.is_loaded else "",
    ]
    if found is None:
        return [*head, *[""] * 5]
    return [
        *head,
        " ".join(f"{share:,}" for share in found.shares),
        f"{found.off:.1%}",
        f"{found.fresh_us / 1000:.1f}",
        f"{found.held_us / 1000:.1f}",
        str(found.failed),
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", default="1,2,4", help="numbers of worker processes (%(default)s)")
    parser.add_argument("--connections", default="64,10000", help="numbers of connections (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2, help="of fresh requests (%(default)s)")
    parser.add_argument("--output", type=Path, help="write the table to this file, as Markdown")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    problem = prepare_process()
    if problem:
        print(f"benchmarks: {problem}", file=sys.stderr)
        return 1
    load = os.getloadavg()[0]
    heading = ["listeners", "workers", "connections", "opened", "load", "shares", "off"]
    rows = [[*heading, "fresh p99 ms", "one held: p99 ms", "failed"]]
    problems = []
    numbers = (
        [int(number) for number in text.split(",")] for text in (arguments.workers, arguments.connections)
    )
    with tempfile.TemporaryDirectory(prefix="fastwsgi-bench-") as folder:
        for index, cell in enumerate(cells(*numbers)):
            found = None
            try:
                found = measure(cell, arguments.seconds, Path(folder) / str(index))
            except (ServerFailedError, OSError) as error:
                problems.append(f"- {cell}: {type(error).__name__}: {error}")
            rows.append(row(cell, found))
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    publish(
        "How workers share connections",
        EXPLANATION,
        rows,
        load=load,
        problems=problems,
        output=arguments.output,
    )
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
