"""What a server has counted, over its processes: workers that die and reloads take nothing away."""

import mmap
import os
import re
import resource
import signal
import socket
from contextlib import suppress

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fastwsgi._stats import Board, totals
from fastwsgi.generation import LEAST_ROWS
from process.family import WAYS, wait_for_workers, workers_of
from support import PATIENCE, wait_until

CONNECTIONS = 1000


def boards_of(server, threads=4):
    """Those that the supervisor has, which are memory without a name."""
    size = Board.size(LEAST_ROWS, threads)
    folder = f"/proc/{server.pid}/fd"
    boards = {}
    for fd in os.listdir(folder):
        # It may be gone by now; and mmap has a descriptor of its own for each.
        with suppress(FileNotFoundError):
            if "memfd:fastwsgi" in os.readlink(f"{folder}/{fd}"):
                with open(f"{folder}/{fd}", "r+b") as memory:
                    number = os.fstat(memory.fileno()).st_ino
                    boards[number] = Board(mmap.mmap(memory.fileno(), size), LEAST_ROWS, threads)
    return list(boards.values())


def asked(server, times):
    for _ in range(times):
        assert server.ask("/7").status == 200


def expect(server, requests, **ended):
    """Wait until so many requests are counted, and so many workers have ended."""

    def as_expected():
        found = totals(boards_of(server))
        return found.statuses == {200: requests} and found.ended == {
            "starting": 0,
            "serving": 0,
            "leaving": 0,
            **ended,
        }

    wait_until(as_expected, lambda: f"{requests}, {ended}: {totals(boards_of(server))}; {server.stderr}")


@WAYS
def test_counts_outlive_workers_and_reloads(start_site, site, options):
    server = start_site(*options)
    began = totals(boards_of(server)).began
    asked(server, 10)
    expect(server, 10)
    # One dies, ...
    worker = int(server.ask("/7")["Worker"])
    os.kill(worker, signal.SIGKILL)
    wait_for_workers(server, 3 if "--preload" in options else 2, without=[worker])
    server.wait_said("was killed by SIGKILL")
    asked(server, 5)
    expect(server, 16, serving=1)
    # ... all are replaced, ...
    before = workers_of(server)
    server.signal(signal.SIGHUP)
    server.wait_said("Reloaded")
    wait_until(lambda: not before & workers_of(server), "all of them new")
    expect(server, 16, serving=1, leaving=2)
    asked(server, 5)
    expect(server, 21, serving=1, leaving=2)
    # ... and the server itself is.
    server.signal(signal.SIGUSR2)
    wait_until(lambda: server.stderr.count("Reloaded") == 2, lambda: server.stderr)
    expect(server, 21, serving=1, leaving=4)
    found = totals(boards_of(server))
    assert found.began == began
    assert found.workers == {"starting": 0, "serving": 2, "leaving": 0}
    server.stop()


@pytest.fixture
def many_files():
    """Enough of them for all these connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * CONNECTIONS)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_health_while_every_thread_is_busy_and_many_wait(start, many_files):
    """The figure itself is what benchmarks/health.py is for."""
    server = start("--health", "/healthz", "--workers", "1", "--loops", "1", "apps:wait")
    waiting = [server.connect() for _ in range(CONNECTIONS)]
    for client in waiting:
        client.send("GET /go HTTP/1.1\r\nHost: x\r\n\r\n")
    server.waits("go")
    wait_until(lambda: totals(boards_of(server)).connections["queued"] == CONNECTIONS - 4, "all of them wait")
    kept = server.connect(timeout=1)
    for _ in range(20):
        assert kept.ask("/healthz").status == 200
        with server.connect(timeout=1) as fresh:
            assert fresh.ask("/healthz").status == 200
    found = totals(boards_of(server))
    assert (found.busy, found.connections["queued"]) == (4, CONNECTIONS - 4)
    server.go_on("go")
    for client in waiting:
        assert client.read_response().text == "go"
    server.stop()


def test_prometheus_is_answered(start, short_path):
    server = start("--metrics", f"unix:{short_path}/metrics", "--workers", "2", "apps:hello")
    server.wait_said("workers serve")
    for _ in range(7):
        server.ask()
    expect(server, 7)
    with server.connect(f"{short_path}/metrics") as client:
        for _ in range(2):
            answer = client.ask("/metrics")
            assert answer["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    values = {(one.name, *one.labels.values()): one.value for one in families["fastwsgi_requests"].samples}
    assert values["fastwsgi_requests_total", "GET", "2xx"] == 7
    pids = {int(one.labels["pid"]) for one in families["fastwsgi_worker_resident_memory_bytes"].samples}
    assert len(pids) == 2
    assert pids <= workers_of(server)
    server.stop()


def test_statsd_is_told(start):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(PATIENCE)
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        server = start("--statsd-host", address, "--statsd-prefix", "shop", "apps:hello")
        # The first tells how things are, and what comes after it is counted.
        assert sock.recv(65536).startswith(b"shop.fastwsgi.workers:")
        server.ask()
        lines = []
        while "shop.fastwsgi.request.status.200:1|c" not in lines:
            lines = sock.recv(65536).decode().splitlines()
    assert "shop.fastwsgi.requests:1|c" in lines
    assert any(re.fullmatch(r"shop\.fastwsgi\.request\.duration:[\d.]+\|ms", line) for line in lines)
    server.stop()
