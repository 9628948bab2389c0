"""Connections on which nothing happens: what they cost in memory, and what they do to the others."""

import math
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from harness.load import Request
from harness.process import Processes

CONNECTIONS_PER_ADDRESS = 4000
ANSWER_SECONDS = 2.0
OPEN_SECONDS = 12.0
# <linux/in.h>; the socket module does not name it.
IP_BIND_ADDRESS_NO_PORT = 24


def connect(port: int, number: int) -> socket.socket:
    """The connection of that number among very many."""
    connection = socket.socket()
    connection.settimeout(ANSWER_SECONDS)
    # Several source addresses: one has fewer ports than this may want beside those that wait out their close.
    connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    connection.bind((f"127.0.0.{2 + number // CONNECTIONS_PER_ADDRESS}", 0))
    connection.connect(("127.0.0.1", port))
    return connection


def ask(connection: socket.socket, octets: bytes) -> bool:
    connection.sendall(octets)
    return connection.recv(65536).startswith((b"HTTP/1.1 200", b"HTTP/1.0 200"))


@contextmanager
def idle_connections(port: int, request: Request, count: int) -> Iterator[list[socket.socket]]:
    """Open up to count connections that have each had one request answered, and keep them open.

    Fewer where the server refuses or does not answer one, or takes longer than OPEN_SECONDS for all.
    """
    octets = request.octets(port)
    connections: list[socket.socket] = []
    deadline = time.monotonic() + OPEN_SECONDS
    try:
        with suppress(OSError):
            while len(connections) < count and time.monotonic() < deadline:
                connection = connect(port, len(connections))
                if not ask(connection, octets):
                    connection.close()
                    break
                connections.append(connection)
        yield connections
    finally:
        for connection in connections:
            connection.close()


def still_open(connections: list[socket.socket]) -> int:
    """How many of connections the server has not closed."""
    poller = select.epoll()
    try:
        for connection in connections:
            poller.register(connection, select.EPOLLIN | select.EPOLLRDHUP)
        return len(connections) - len(poller.poll(0, len(connections) or 1))
    finally:
        poller.close()


def fresh_requests(port: int, request: Request, per_second: int, seconds: float) -> tuple[float, int]:
    """Send requests at a steady rate, each on a connection of its own; return p99 in us, and how many failed.

    A request that has to wait for the one before counts from when it was due.
    """
    octets = request.octets(port)
    took: list[float] = []
    count, failed = int(per_second * seconds), 0
    begin = time.perf_counter()
    for number in range(count):
        due = begin + number / per_second
        if time.perf_counter() > begin + seconds + ANSWER_SECONDS:
            # Hopelessly behind: the rest would only wait longer.
            failed += count - number
            break
        time.sleep(max(0.0, due - time.perf_counter()))
        try:
            with connect(port, 0) as connection:
                failed += not ask(connection, octets)
        except OSError:
            failed += 1
        took.append(time.perf_counter() - due)
    took.sort()
    return took[math.ceil(len(took) * 0.99) - 1] * 1e6, failed


def calmest(port: int, request: Request, seconds: float) -> tuple[float, int]:
    """The least p99 of three times fresh_requests, for disturbance only adds; and how many failed in all."""
    measured = [fresh_requests(port, request, 200, seconds) for _ in range(3)]
    return min(p99_us for p99_us, _ in measured), sum(failed for _, failed in measured)


def measure_idle(
    processes: Processes, port: int, request: Request, connections: int, seconds: float
) -> dict[str, float]:
    """Growth of memory per idle connection, and p99 of fresh requests without and beside them."""
    # What a first request loads or allocates for good is not the cost of a connection.
    fresh_requests(port, request, 200, 0.5)
    alone_us, alone_failed = calmest(port, request, seconds)
    before = processes.pss_bytes()
    with idle_connections(port, request, connections) as opened:
        time.sleep(0.5)
        figures = {
            "bytes_each": (processes.pss_bytes() - before) / max(len(opened), 1),
            "opened": len(opened),
            "alone_p99_us": alone_us,
        }
        beside_us, beside_failed = calmest(port, request, seconds)
        if not beside_failed:
            figures["beside_p99_us"] = beside_us
        figures["kept"] = still_open(opened)
        figures["failed"] = alone_failed + beside_failed
    processes.check_alive()
    return figures


def measure_quiet(processes: Processes, port: int, request: Request, seconds: float) -> dict[str, float]:
    """CPU time and voluntary context switches per second of a server that is asked nothing."""
    with suppress(OSError), connect(port, 0) as connection:
        ask(connection, request.octets(port))
    # Longer than what servers do once after a request.
    time.sleep(1.5)
    cpu, switches = processes.cpu_ns(), processes.voluntary_switches()
    time.sleep(seconds)
    return {
        "cpu_us_per_second": (processes.cpu_ns() - cpu) / 1000 / seconds,
        "switches_per_second": (processes.voluntary_switches() - switches) / seconds,
    }
