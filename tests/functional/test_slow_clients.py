"""Slow clients hold no thread, in neither direction, and lose no byte."""

import hashlib
import random
import threading
import time

import pytest

from conftest import with_threads
from support import PATIENCE, TEXT, Body, Gate, echo, request, text, wait_until

BLOCK = random.Random(3).randbytes(1_000_000)

one_thread = with_threads(1)


def digest(blocks):
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def big_or_hello(body):
    """An application that answers /big with the body, everything else with hello."""

    def application(environ, start_response):
        if environ["PATH_INFO"] != "/big":
            return text()(environ, start_response)
        start_response("200 OK", [TEXT])
        return body()

    return application


@one_thread
def test_fifty_megabytes_to_a_slow_reader(serve):
    body = Body([BLOCK] * 50)
    server = serve(big_or_hello(lambda: body))
    with server.connect(receive_buffer=4096) as slow:
        slow.send(request("/big"))
        # The application is through with it, although the client has not read a byte.
        wait_until(lambda: body.closed, "close()")
        server.wait_count("exchanges", 0)
        assert server.ask().text == "hello"
        assert slow.read_response().content == BLOCK * 50
        assert slow.ask().text == "hello"
    assert body.closed == 1


def test_as_many_slow_readers_as_threads(serve):
    bodies = [Body([BLOCK] * 6) for _ in range(serve.threads + 1)]
    server = serve(big_or_hello(list(bodies).pop))
    slow = [server.connect(receive_buffer=4096) for _ in bodies]
    for client in slow:
        client.send(request("/big"))
    wait_until(lambda: all(body.closed for body in bodies), "the end of the exchanges")
    assert server.ask().text == "hello"
    for client in slow:
        assert client.read_response().content == BLOCK * 6


def test_a_producer_waits_when_buffer_and_spool_are_full(serve):
    produced = []

    def blocks():
        for number in range(20):
            produced.append(number)
            yield BLOCK

    server = serve(big_or_hello(blocks), response_buffer=65536, response_spool=300_000)
    with server.connect(receive_buffer=4096) as slow:
        slow.send(request("/big"))
        slow.read_head()
        assert server.count("exchanges") == 1
        assert len(produced) < 20
        if server.threads > 1:
            assert server.ask().text == "hello"
        content = slow.take_chunks()
    assert digest([content]) == digest([BLOCK] * 20)
    assert len(produced) == 20


@pytest.mark.parametrize("spool", [0, 300_000])
def test_a_client_that_leaves_while_the_producer_waits(serve, spool):
    body = Body([BLOCK] * 100)
    server = serve(big_or_hello(lambda: body), response_buffer=65536, response_spool=spool)
    slow = server.connect(receive_buffer=4096)
    slow.send(request("/big"))
    slow.read_head()
    slow.reset()
    server.wait_count("exchanges", 0)
    assert body.closed == 1
    assert server.ask().text == "hello"


def test_a_client_that_leaves_while_the_spool_is_sent(serve):
    body = Body([BLOCK] * 10)
    server = serve(big_or_hello(lambda: body), response_buffer=65536)
    slow = server.connect(receive_buffer=4096)
    slow.send(request("/big"))
    wait_until(lambda: body.closed, "the end of the exchange")
    slow.read_head()
    slow.reset()
    server.wait_count("connections", 0)
    assert server.ask().text == "hello"


def test_pipelined_big_answers_to_a_slow_reader(serve):
    server = serve(big_or_hello(lambda: [BLOCK, BLOCK]), response_buffer=65536)
    with server.connect(receive_buffer=4096) as slow:
        slow.send(request("/big") + request("/") + request("/big", fields=[("Connection", "close")]))
        time.sleep(0.05)  # Not to wait for anything: only so that something has piled up.
        assert slow.read_response().content == BLOCK * 2
        assert slow.read_response().text == "hello"
        assert slow.read_response().content == BLOCK * 2
        slow.expect_end()


def test_a_reader_that_takes_small_sips(serve):
    server = serve(big_or_hello(lambda: [BLOCK[:200_000]] * 3), response_buffer=65536)
    with server.connect(receive_buffer=4096) as slow:
        slow.send(request("/big"))
        received = bytearray()
        while not received.endswith(b"0\r\n\r\n"):
            received += slow.socket.recv(1999)
        slow.received = received
        assert slow.read_response().content == BLOCK[:200_000] * 3


def test_many_writes_to_a_slow_reader(serve):
    ended = threading.Event()

    def application(environ, start_response):
        write = start_response("200 OK", [TEXT])
        for start in range(0, 1_000_000, 10_000):
            write(BLOCK[start : start + 10_000])
        ended.set()
        return []

    with serve(application, response_buffer=65536).connect(receive_buffer=4096) as slow:
        slow.send(request("/"))
        assert ended.wait(PATIENCE)
        assert slow.read_response().content == BLOCK


def test_slow_uploads_hold_no_thread(serve):
    content = BLOCK[:200_000]
    server = serve(echo, request_buffer=65536)
    slow = [server.connect() for _ in range(server.threads + 2)]
    data = request("/", "POST", content=content)
    for client in slow:
        client.send(data[:150_000])
    assert server.ask("/", "POST", content=b"quick").text == "quick"
    assert server.count("exchanges") == 0
    for client in slow:
        client.send(data[150_000:])
    for client in slow:
        assert client.read_response().content == content


def test_slow_heads_hold_no_thread(serve):
    server = serve(text())
    slow = [server.connect() for _ in range(server.threads + 2)]
    data = request("/")
    for client in slow:
        client.send(data[:20])
    assert server.ask().text == "hello"
    for client in slow:
        client.send(data[20:])
    for client in slow:
        assert client.read_response().text == "hello"


def test_request_content_is_complete_when_the_application_is_called(serve):
    called = []

    def application(environ, start_response):
        called.append(1)
        return echo(environ, start_response)

    server = serve(application)
    with server.connect() as client:
        data = request("/", "POST", content=b"x" * 1000)
        client.send(data[:-1])
        assert server.ask("/").status == 200
        assert called == [1]
        client.send(data[-1:])
        assert client.read_response().content == b"x" * 1000
    assert called == [1, 1]


def test_bytes_already_yielded_do_not_wait_for_the_next_block(serve):
    gate = Gate()

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b"x" * 3
        yield b"y" * 100_000
        gate.hold()
        yield b"z"

    with serve(application).connect() as client:
        client.send(request("/"))
        client.read_head()
        assert client.take_chunk() == b"xxx"
        assert client.take_chunk() == b"y" * 100_000
        gate.open()
        assert client.take_chunks() == b"z"
