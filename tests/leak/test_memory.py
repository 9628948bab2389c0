"""Memory is flat over 200,000 mixed requests, or more."""

import os
import re
from pathlib import Path

import pytest

from fastwsgi.gil import has_gil
from support import framed, request

HERE = Path(__file__).parent

BATCH = [
    *[("GET", request("/", fields=[("Cookie", "a=b"), ("X-Some", "thing")]))] * 20,
    ("GET", request("/path%20with/escapes?and=a&query")),
    ("HEAD", request("/", "HEAD")),
    ("HEAD", request("/generator", "HEAD")),
    ("POST", request("/echo", "POST", content=b"content")),
    ("POST", framed(b"chunked content" * 100, "chunked", target="/echo")),
    ("POST", framed(b"longer" * 1000, "length", target="/echo")),
    ("POST", framed(b"never read" * 10, "length")),
    *[
        ("GET", request(target))
        for target in ("/generator", "/write", "/wrapper", "/memory", "/empty", "/kept")
    ],
]
OCTETS = b"".join(octets for _, octets in BATCH)
# Without a GIL each thread has memory of its own to take from and to give back to: it takes longer until all
# have what they need, and then a megabyte comes and goes.
WARM_UP, REQUESTS = (40_000, 200_000) if has_gil() else (200_000, 800_000)


@pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""),
    reason="AddressSanitizer keeps freed memory, and without Python's allocator no objects are counted",
)
@pytest.mark.parametrize("threads", ["1", "4"])
@pytest.mark.parametrize("poller", ["epoll", "poll"])
def test_memory_is_flat(start, poller, threads):
    options = ["--poller", poller, "--threads", threads, "--request-buffer", "4k"]
    server = start("--pythonpath", str(HERE), *options, "mixed:app")
    run(server, WARM_UP)
    kept = []
    before = measure(server)
    # Half and half: what is lost is lost in both, while an arena more of Python's allocator comes once.
    for _ in range(2):
        run(server, REQUESTS // 2)
        after = measure(server)
        kept.append((after[0] - before[0], after[1] - before[1]))
        before = after
    # Less than one object for every four hundred requests, less than five octets for each.
    assert min(objects for objects, _ in kept) < REQUESTS / 2 / 400, kept
    assert min(octets for _, octets in kept) < REQUESTS / 2 * 5, kept
    server.stop()


def run(server, requests):
    """Send the batch many times over several connections, with clients that misbehave between."""
    size = size_of_answers(server)
    for number in range(requests // len(BATCH)):
        if number % 20 == 0:
            client = server.connect()
            misbehave(server)
        client.send(OCTETS)
        left = size
        while left:
            received = client.socket.recv(left)
            assert received, "the server closed"
            left -= len(received)
        if number % 20 == 19:
            client.close()


def size_of_answers(server):
    """How many octets the answers to the batch have: always as many, since a Date has a fixed length."""
    with server.connect() as client:
        client.send(OCTETS)
        for method, _ in BATCH:
            assert client.read_response(method).status in (200, 204)
        return client.octets


def misbehave(server):
    for octets in (b"nonsense\r\n\r\n", request("/fail"), OCTETS[: len(OCTETS) // 2]):
        client = server.connect()
        client.send(octets)
        if octets.startswith(b"nonsense"):
            client.read_response()
        client.reset()


def measure(server):
    """The objects Python has, and the memory of the process in bytes."""
    blocks = min(int(server.ask("/blocks").text) for _ in range(8))
    status = Path(f"/proc/{server.worker}/status").read_text()
    return blocks, int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024
