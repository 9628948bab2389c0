"""The cases: an application, a request, which servers run it, and what is measured."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from apps import plain
from harness.idle import measure_idle, measure_quiet
from harness.load import BROWSER_FIELDS, Load, Request, count_handshakes, run_load
from harness.process import Processes, ServerFailedError

WARM_SECONDS = 0.3


@dataclass(frozen=True)
class Running:
    """A started server whose answer has been checked, and how long each measurement of it may take."""

    processes: Processes
    port: int
    folder: Path
    seconds: float
    quick: bool
    ends_with_connection: bool


@dataclass(frozen=True)
class Column:
    """One figure of a case: its key in a round, its heading, and what the rounds are summed up to."""

    key: str
    heading: str
    pick: str  # "least", "median", "most" or "sum"
    digits: int = 0


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    application: str
    request: Request
    content: bytes
    servers: tuple[str, ...]
    measure: Callable[["Case", Running], dict[str, float]]
    columns: tuple[Column, ...]
    connections: int = 64
    threads: int = 4
    seconds_factor: float = 1.0
    key: str = "rsa"  # of the certificate, where there is one


CPU_COLUMNS = (
    Column("cpu_us", "CPU us/request, least", "least", 2),
    Column("cpu_us", "median", "median", 2),
    Column("per_second", "req/s", "median"),
    Column("p50_us", "p50 us", "median"),
    Column("p99_us", "p99 us", "median"),
    Column("failed", "failed", "sum"),
)
MEMORY_COLUMNS = (*CPU_COLUMNS, Column("mebibytes", "MiB (Pss), least", "least", 1))
HANDSHAKE_COLUMNS = (
    Column("cpu_us", "CPU us/connection, least", "least", 1),
    Column("cpu_us", "median", "median", 1),
)
MIX_COLUMNS = (
    Column("fast_p99_us", "fast: p99 us, least", "least"),
    Column("fast_p99_us", "median", "median"),
    Column("fast_per_second", "fast: req/s", "median"),
    Column("fast_kept", "of that without the slow ones", "median", 2),
    Column("slow_per_second", "slow: req/s", "median", 1),
    Column("slow_p99_us", "slow: p99 us", "median"),
    Column("failed", "failed", "sum"),
)
IDLE_COLUMNS = (
    Column("bytes_each", "bytes per idle connection", "least"),
    Column("opened", "opened", "least"),
    Column("kept", "still open at the end", "least"),
    Column("alone_p99_us", "fresh p99 us, none idle", "median"),
    Column("beside_p99_us", "fresh p99 us, beside them", "median"),
    Column("failed", "failed", "sum"),
)
QUIET_COLUMNS = (
    Column("cpu_us_per_second", "CPU us per second", "least", 1),
    Column("switches_per_second", "voluntary switches per second", "least", 1),
)


def measure_load(case: Case, running: Running) -> dict[str, float]:
    run_load(running.port, case.request, case.connections, WARM_SECONDS, running.folder)
    before = running.processes.cpu_ns()
    counted = run_load(
        running.port, case.request, case.connections, running.seconds * case.seconds_factor, running.folder
    )
    cpu_ns = running.processes.cpu_ns() - before
    running.processes.check_alive()
    if not counted.requests:
        raise ServerFailedError("answered nothing under load")
    figures = {
        "cpu_us": cpu_ns / 1000 / counted.requests,
        "per_second": counted.per_second,
        "failed": counted.failed - (counted.read_errors if running.ends_with_connection else 0),
        "requests": counted.requests,
    }
    # wrk times a whole batch of pipelined requests and counts it as one: not to be set beside the others.
    if case.request.pipeline == 1:
        figures |= {"p50_us": counted.p50_us, "p99_us": counted.p99_us}
    return figures


def measure_load_and_memory(case: Case, running: Running) -> dict[str, float]:
    return measure_load(case, running) | {"mebibytes": running.processes.pss_bytes() / (1 << 20)}


def measure_handshakes(case: Case, running: Running, is_resumed: bool = False) -> dict[str, float]:
    count_handshakes(running.port, 1, is_resumed)
    before = running.processes.cpu_ns()
    # openssl s_time knows whole seconds only, and stops at a moment of its own.
    count = count_handshakes(running.port, max(round(running.seconds), 2), is_resumed)
    cpu_ns = running.processes.cpu_ns() - before
    running.processes.check_alive()
    if not count:
        raise ServerFailedError("no handshake was completed")
    return {"cpu_us": cpu_ns / 1000 / count}


def measure_mix(case: Case, running: Running) -> dict[str, float]:
    slow_request = Request(target="/slow")
    alone = run_load(running.port, case.request, case.connections, running.seconds, running.folder)
    slow = Load(running.port, slow_request, 8, running.folder)
    try:
        time.sleep(WARM_SECONDS)
        fast = run_load(running.port, case.request, case.connections, running.seconds, running.folder)
        slow_counted = slow.finish()
    finally:
        slow.kill()
    running.processes.check_alive()
    if not fast.requests or not slow_counted.requests:
        raise ServerFailedError("answered nothing under load")
    return {
        "fast_p99_us": fast.p99_us,
        "fast_per_second": fast.per_second,
        "fast_kept": fast.per_second / alone.per_second if alone.requests else 0.0,
        "slow_per_second": slow_counted.per_second,
        "slow_p99_us": slow_counted.p99_us,
        "failed": fast.failed + slow_counted.failed,
    }


def measure_idle_connections(case: Case, running: Running) -> dict[str, float]:
    seconds = 0.5 if running.quick else 2.0
    return measure_idle(running.processes, running.port, case.request, case.connections, seconds)


def measure_quiet_server(case: Case, running: Running) -> dict[str, float]:
    return measure_quiet(running.processes, running.port, case.request, 2.0 if running.quick else 5.0)


OURS = ("fastwsgi",)
OURS_BY_THREADS = ("fastwsgi", "fastwsgi-t1", "fastwsgi-t32")
OURS_BY_WORKERS = ("fastwsgi-w1", "fastwsgi-w2")
NATIVE = ("bjoern", "fastwsgi-pypi", "granian", "uwsgi")
PYTHON = ("gunicorn", "waitress", "wsgiref", "nginx-gunicorn")
PEERS = NATIVE + PYTHON
CEILINGS = ("ceiling-app", "ceiling-fixed")

TLS = ("fastwsgi-tls", "nginx-gunicorn-tls", "gunicorn-tls", "granian-tls", "uwsgi-tls")
HANDSHAKES = ("fastwsgi-tls", "nginx-tls", "gunicorn-tls", "granian-tls")
FREE = ("free-loop", "free-2loops", "free-2workers", "granian-free")
GREEN = ("fastwsgi-gevent", "gunicorn-gevent", "gevent-pywsgi")
FILES = ("fastwsgi-static", "nginx-file", "nginx-open-file", "granian-static", "whitenoise")

GET = Request()
GET_TLS = Request(scheme="https")


def _articles() -> bytes:
    return json.dumps({"articles": [{"title": f"Article {n}", "rank": n} for n in range(500, 510)]}).encode()


CASES = {
    case.name: case
    for case in (
        Case(
            "hello",
            "13 octets, kept connections",
            "apps.plain:hello",
            GET,
            plain.HELLO,
            (*OURS_BY_THREADS, *OURS_BY_WORKERS, "fastwsgi-log", *PEERS, *CEILINGS),
            measure_load,
            CPU_COLUMNS,
        ),
        Case(
            "browser",
            "12 field lines, 1 KiB answer",
            "apps.plain:kib",
            Request(fields=BROWSER_FIELDS),
            plain.KIB,
            OURS_BY_THREADS + PEERS + CEILINGS,
            measure_load,
            CPU_COLUMNS,
        ),
        Case(
            "pipeline16",
            "hello, 16 requests sent at once",
            "apps.plain:hello",
            Request(pipeline=16),
            plain.HELLO,
            OURS + PEERS + CEILINGS,
            measure_load,
            CPU_COLUMNS,
        ),
        Case(
            "newconn",
            "hello, a connection for every request",
            "apps.plain:hello",
            Request(fields=(("Connection", "close"),)),
            plain.HELLO,
            OURS + OURS_BY_WORKERS + PEERS + CEILINGS,
            measure_load,
            CPU_COLUMNS,
        ),
        Case(
            "body64k",
            "64 KiB answer",
            "apps.plain:body64k",
            GET,
            plain.BODY_64K,
            OURS + PEERS + CEILINGS,
            measure_load,
            CPU_COLUMNS,
        ),
        Case(
            "gen10",
            "generator of 10 blocks of 1 KiB",
            "apps.plain:gen10",
            GET,
            plain.KIB * 10,
            OURS + PEERS + ("ceiling-app",),
            measure_load,
            CPU_COLUMNS,
        ),
        Case(
            "post16k",
            "16 KiB of request content, read by the application",
            "apps.plain:post",
            Request("POST", content=b"x" * 16384),
            b"16384",
            OURS + PEERS + ("ceiling-app",),
            measure_load,
            CPU_COLUMNS,
        ),
        Case(
            "file1m",
            "1 MiB file through wsgi.file_wrapper; nginx-file sends it by itself",
            "apps.plain:file1m",
            Request(target="/file.bin"),
            b"x" * plain.FILE_SIZE,
            OURS + PEERS + ("nginx-file",),
            measure_load,
            CPU_COLUMNS,
            connections=16,
        ),
        Case(
            "sleep10",
            "the application sleeps 10 ms; 128 connections, 32 threads: 3200 req/s are possible",
            "apps.plain:sleep10",
            GET,
            plain.HELLO,
            ("fastwsgi", "granian", "uwsgi", "gunicorn", "waitress"),
            measure_load,
            CPU_COLUMNS,
            connections=128,
            threads=32,
        ),
        Case(
            "greenhello",
            "hello in greenlets of gevent",
            "apps.plain:hello",
            GET,
            plain.HELLO,
            GREEN,
            measure_load,
            CPU_COLUMNS,
        ),
        Case(
            "greensleep",
            "the application sleeps 100 ms in greenlets; 2,000 connections: 20,000 req/s are possible",
            "apps.plain:sleep100",
            GET,
            plain.HELLO,
            GREEN,
            measure_load,
            CPU_COLUMNS,
            connections=2000,
        ),
        Case(
            "freehello",
            "hello with a free-threaded Python, on the cores of server and load",
            "apps.plain:hello",
            GET,
            plain.HELLO,
            FREE,
            measure_load_and_memory,
            MEMORY_COLUMNS,
        ),
        Case(
            "freecpu2ms",
            "the application computes for some 2 ms, with a free-threaded Python; 16 connections",
            "apps.plain:cpu2ms",
            GET,
            plain.HELLO,
            FREE,
            measure_load_and_memory,
            MEMORY_COLUMNS,
            connections=16,
        ),
        Case(
            "freeflask",
            "Flask, hello view, with a free-threaded Python; 16 connections",
            "apps.flask_hello:app",
            GET,
            plain.HELLO,
            FREE,
            measure_load_and_memory,
            MEMORY_COLUMNS,
            connections=16,
        ),
        Case(
            "mix",
            "16 connections on a fast view beside 8 on one that sleeps 50 ms; 16 threads",
            "apps.plain:mix",
            GET,
            plain.HELLO,
            ("fastwsgi", "granian", "uwsgi", "gunicorn", "waitress"),
            measure_mix,
            MIX_COLUMNS,
            connections=16,
            threads=16,
        ),
        Case(
            "cpu2ms",
            "the application computes for some 2 ms; 16 connections",
            "apps.plain:cpu2ms",
            GET,
            plain.HELLO,
            ("fastwsgi", "fastwsgi-t1", "bjoern", "granian", "gunicorn", "ceiling-app"),
            measure_load,
            CPU_COLUMNS,
            connections=16,
        ),
        Case(
            "flask",
            "Flask, hello view",
            "apps.flask_hello:app",
            GET,
            plain.HELLO,
            OURS + NATIVE + ("gunicorn", "ceiling-app"),
            measure_load,
            CPU_COLUMNS,
            connections=16,
        ),
        Case(
            "django",
            "Django, hello view",
            "apps.django_views:app",
            GET,
            plain.HELLO,
            OURS + NATIVE + ("gunicorn", "runserver", "ceiling-app"),
            measure_load,
            CPU_COLUMNS,
            connections=16,
        ),
        Case(
            "djangoorm",
            "Django, ten rows from SQLite through the ORM as JSON",
            "apps.django_views:app",
            Request(target="/articles"),
            _articles(),
            ("fastwsgi", "fastwsgi-t1", *OURS_BY_WORKERS, "bjoern", "granian", "gunicorn", "ceiling-app"),
            measure_load,
            CPU_COLUMNS,
            connections=16,
        ),
        Case(
            "tlshello",
            "hello over TLS, kept connections",
            "apps.plain:hello",
            GET_TLS,
            plain.HELLO,
            TLS,
            measure_load,
            CPU_COLUMNS,
        ),
        Case(
            "tlsrsa",
            "a TLS connection for each request, RSA with 2048 bits, full handshakes",
            "apps.plain:hello",
            GET_TLS,
            plain.HELLO,
            HANDSHAKES,
            measure_handshakes,
            HANDSHAKE_COLUMNS,
        ),
        Case(
            "tlsecdsa",
            "the same with ECDSA, P-256",
            "apps.plain:hello",
            GET_TLS,
            plain.HELLO,
            HANDSHAKES,
            measure_handshakes,
            HANDSHAKE_COLUMNS,
            key="ecdsa",
        ),
        Case(
            "tlsresumed",
            "the same with sessions that are resumed",
            "apps.plain:hello",
            GET_TLS,
            plain.HELLO,
            HANDSHAKES,
            partial(measure_handshakes, is_resumed=True),
            HANDSHAKE_COLUMNS,
        ),
        Case(
            "static1k",
            "a file of 1 KiB, which no application sees",
            "apps.plain:hello",
            Request(target="/files/1k.txt"),
            plain.KIB,
            FILES,
            measure_load,
            CPU_COLUMNS,
        ),
        Case(
            "static1m",
            "a file of 1 MiB, which no application sees",
            "apps.plain:hello",
            Request(target="/files/1m.bin"),
            b"x" * plain.FILE_SIZE,
            FILES,
            measure_load,
            CPU_COLUMNS,
            connections=16,
        ),
        Case(
            "idle10k",
            "10,000 idle connections; 200 fresh requests per second without and beside them",
            "apps.plain:hello",
            GET,
            plain.HELLO,
            ("fastwsgi", "bjoern", "fastwsgi-pypi", "granian", "gunicorn", "waitress"),
            measure_idle_connections,
            IDLE_COLUMNS,
            connections=10_000,
        ),
        Case(
            "idlecpu",
            "nothing is asked",
            "apps.plain:hello",
            GET,
            plain.HELLO,
            (*OURS_BY_THREADS, "bjoern", "granian", "uwsgi", "gunicorn", "waitress", "ceiling-app"),
            measure_quiet_server,
            QUIET_COLUMNS,
        ),
    )
}
ONCE = ("idle10k", "idlecpu")
