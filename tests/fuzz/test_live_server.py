"""Seeded mutations of the vectors, and garbage, to a running server: it goes on serving whatever comes."""

import random
from pathlib import Path

import pytest

from support import Incomplete, echo, request, text

SEEDS = sorted((Path(__file__).parents[1] / "vectors").rglob("*.http"))
# What may be answered to a mutated vector: never 500, which would be a mistake of ours.
FINE = {200, 400, 408, 413, 414, 417, 421, 431, 501, 505}

INTERESTING = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"%",
    b"0\r\n\r\n",
    b"\r\n\r\n",
    b"\xff",
    b"chunked",
    b"close",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: a\r\n",
    b"ffffffffffffffff",
    b"-1",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"GET / HTTP/1.1\r\n",
    b"X" * 9000,
]


def mutate(generator, octets):
    """A few small changes: octets changed, cut out, put in, doubled, or exchanged with another vector's."""
    data = bytearray(octets)
    for _ in range(generator.randint(1, 4)):
        start = generator.randint(0, len(data))
        end = min(len(data), start + generator.choice([0, 1, 1, 2, 5, 20]))
        kind = generator.randint(0, 4)
        if kind == 0:
            data[start:end] = generator.randbytes(end - start)
        elif kind == 1:
            del data[start:end]
        elif kind == 2:
            data[start:start] = generator.choice(INTERESTING)
        elif kind == 3:
            data[start:start] = data[start:end]
        else:
            data[start:] = generator.choice(SEEDS).read_bytes()[start:]
    return bytes(data)


def send_in_pieces(generator, client, data):
    """Send it at once, or cut somewhere; the server may have refused it before it has all."""
    cut = generator.randint(0, len(data)) if generator.random() < 0.3 else len(data)
    try:
        client.send(data[:cut])
        client.send(data[cut:])
        client.half_close()
    except (BrokenPipeError, ConnectionResetError):
        pass


def read_all(client, octets):
    """Every answer up to the end of the connection is a well-formed response."""
    statuses = []
    try:
        while client.readable(5):
            if not client.received and not client.receive():
                break
            statuses.append(client.read_response().status)
    except ConnectionResetError:
        pass
    except Incomplete:
        # An answer to HEAD has no content, and only the server knows whether this was a HEAD request.
        assert b"HEAD" in octets
    else:
        assert not client.received
    return statuses


def allow_refusals(server):
    for words in ("refused with", "left out", "underscore"):
        server.log.allow(words)


@pytest.mark.parametrize("seed", range(3))
def test_mutated_vectors(serve, seed):
    generator = random.Random(seed)
    server = serve(echo, validate=False, request_buffer=1000)
    allow_refusals(server)
    for number in range(300):
        octets = mutate(generator, generator.choice(SEEDS).read_bytes())
        with server.connect(timeout=5) as client:
            send_in_pieces(generator, client, octets)
            statuses = read_all(client, octets)
            assert all(status == 200 or (400 <= status < 600 and status != 500) for status in statuses), (
                octets
            )
        if number % 20 == 0:
            assert server.ask("/", "POST", content=b"alive").text == "alive"
    assert server.ask("/", "POST", content=b"alive").text == "alive"


def test_garbage(serve):
    generator = random.Random(0)
    server = serve(text())
    allow_refusals(server)
    for _ in range(100):
        octets = generator.randbytes(generator.randint(1, 3000))
        with server.connect(timeout=5) as client:
            send_in_pieces(generator, client, octets)
            assert not set(read_all(client, octets)) - (FINE - {200}), octets
    assert server.ask().text == "hello"


def test_random_ends(serve):
    """Good requests, but clients that stop in the middle, vanish, or read nothing."""
    generator = random.Random(1)
    server = serve(echo, request_buffer=1000)
    allow_refusals(server)
    for number in range(200):
        client = server.connect()
        data = request("/", "POST", content=generator.randbytes(generator.randint(0, 5000)))
        data *= generator.randint(1, 3)
        client.send(data[: generator.randint(0, len(data))])
        generator.choice([client.close, client.reset, client.half_close])()
        if number % 20 == 0:
            assert server.ask("/", "POST", content=b"alive").text == "alive"
    assert server.ask("/", "POST", content=b"alive").text == "alive"
