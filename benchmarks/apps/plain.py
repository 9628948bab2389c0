"""Applications of PEP 3333 alone: what a server costs shows best when the application costs nothing."""

import os
import time
from collections.abc import Iterable, Iterator
from typing import IO, Any

HELLO = b"Hello, World!"
KIB = b"x" * 1024
BODY_64K = b"x" * 65536
FILE_SIZE = 1 << 20
FILE_PATH = os.environ.get("BENCH_FILE", "")

# Some 2 ms of one core, as additions: a loop by the clock would do less when others hold the GIL.
COMPUTING_STEPS = 60_000

HOLD_SECONDS = 0.5


def hello(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [HELLO]


def kib(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "1024")])
    return [KIB]


def body64k(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "65536")])
    return [BODY_64K]


def gen10(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    for _ in range(10):
        yield KIB


def post(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    content = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    answer = b"%d" % len(content)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]


def file1m(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    file: IO[bytes] = open(FILE_PATH, "rb")  # noqa: SIM115 - the server closes it, as PEP 3333 has it
    start_response(
        "200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(FILE_SIZE))]
    )
    wrapper = environ.get("wsgi.file_wrapper")
    return wrapper(file, 65536) if wrapper else iter(lambda: file.read(65536), b"")


def sleep10(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    time.sleep(0.010)
    return hello(environ, start_response)


def sleep100(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    time.sleep(0.100)
    return hello(environ, start_response)


def mix(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.050)
    return hello(environ, start_response)


def cpu2ms(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    total = 0
    for step in range(COMPUTING_STEPS):
        total += step
    return hello(environ, start_response)


def where(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Says which process answers; holds its thread for a while where that is asked."""
    if environ["PATH_INFO"] == "/hold":
        time.sleep(HOLD_SECONDS)
    answer = b"%d" % os.getpid()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]


def compute(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Computes as long as `where` holds its thread."""
    until = time.monotonic() + (HOLD_SECONDS if environ["PATH_INFO"] == "/hold" else 0)
    while time.monotonic() < until:
        pass
    return hello(environ, start_response)
