"""How workers share connections that stay: one listener for all of them against --reuse-port.

python benchmarks/fairness.py [--workers 1,2,4] [--connections 64,10000] [--seconds S] [--output FILE]
"""

import argparse
import datetime
import os
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from apps.plain import HOLD_SECONDS
from harness import machine
from harness.idle import connect, fresh_requests
from harness.load import Load, Request
from harness.process import ServerFailedError, free_port, started
from harness.report import table
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
Connections that stay, each after one answered request: opened one by one (each answered before the next is opened),
or at once; without any load, and beside wrk with 32 kept connections at full speed. "Off" is how far the worker that
is farthest from an even share has more or less than that. Then 200 requests per second, each on a fresh connection:
their p99, and the same while one of the workers has requests of 1 s in all of its 4 threads and 4 more that wait."""


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
        wait_for_workers(port, cell.workers)
        with loaded(port, folder, cell.is_loaded) as failed:
            by_worker = open_connections(stack, port, cell)
            fresh_us, count = fresh_requests(port, WHERE, PER_SECOND, seconds)
            failed["fresh"] += count
            held = next(iter(by_worker.values()))[: 2 * THREADS]
            for connection in held:
                connection.sendall(HOLD.octets(port))
            held_us, count = fresh_requests(port, WHERE, PER_SECOND, HOLD_SECONDS)
            failed["fresh"] += count
            for connection in held:
                answer(connection)
        processes.check_alive()
    shares = [len(connections) for connections in by_worker.values()]
    shares += [0] * (cell.workers - len(shares))
    return Found(sorted(shares), fresh_us, held_us, failed.total())
