"""The lead taken thousands of times a second, and what went wrong once between leader, keeper and threads."""

import logging
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from support import TEXT, Client, request, text, wait_until

BLOCK = b"b" * 100


def mixed(environ, start_response):
    """Answer at once, wait, compute, stream, send much, or read content: as the path says."""
    kind = environ["PATH_INFO"].strip("/")
    if kind == "sleep":
        time.sleep(0.0005)
    elif kind == "nap":
        time.sleep(0.00001)
    elif kind == "compute":
        sum(range(5000))
    elif kind == "content":
        start_response("200 OK", [TEXT])
        return [environ["wsgi.input"].read()]
    elif kind == "much":
        start_response("200 OK", [TEXT])
        return [BLOCK * 3000] * 2
    elif kind == "stream":
        return stream(start_response)
    start_response("200 OK", [TEXT])
    return [kind.encode() or b"hello"]


def stream(start_response):
    write = start_response("200 OK", [TEXT])
    write(BLOCK)
    for _ in range(5):
        time.sleep(0.0001)
        yield BLOCK


ANSWERS = {
    "fast": b"fast",
    "sleep": b"sleep",
    "compute": b"compute",
    "content": b"c" * 50_000,
    "much": BLOCK * 6000,
    "stream": BLOCK * 6,
}


def use(connect, seed, stop, wrong, counts):
    """Ask for random things over kept connections, pipelined now and then, and look at every answer."""
    choice = random.Random(seed)
    asked = 0
    while not stop.is_set():
        with connect() as client:
            for _ in range(choice.randrange(1, 30)):
                kinds = choice.choices(
                    list(ANSWERS), weights=(10, 4, 4, 2, 1, 3), k=choice.choice((1, 1, 1, 4))
                )
                client.send(
                    b"".join(
                        request(f"/{kind}", "POST", content=ANSWERS[kind])
                        if kind == "content"
                        else request(f"/{kind}")
                        for kind in kinds
                    )
                )
                for kind in kinds:
                    response = client.read_response()
                    if (response.status, response.content) != (200, ANSWERS[kind]):
                        wrong.append((kind, response.status, len(response.content)))
                asked += len(kinds)
    counts.append(asked)


def test_the_lead_is_taken_all_the_time(serve):
    server = serve(mixed, validate=False, tick=0.00002)
    wrong, counts, stop = [], [], threading.Event()
    users = [
        threading.Thread(target=use, args=(server.connect, seed, stop, wrong, counts), daemon=True)
        for seed in range(6)
    ]
    for user in users:
        user.start()
    time.sleep(3)
    try:
        wait_until(lambda: server.count("lead_taken") > 100, server.server.counters, 60)
    finally:
        stop.set()
    for user in users:
        user.join(60)
    assert wrong == []
    assert len(counts) == len(users), "a client got stuck or a connection broke"
    assert server.count("requests") == sum(counts)


def leave(connect, seed, until):
    """Ask for random things, some of which need the disk, and reset before or amid the answer."""
    choice = random.Random(seed)
    while time.monotonic() < until:
        client = connect(receive_buffer=4096)
        try:
            kind = choice.choice(("nap", "stream", "much", "content"))
            if kind == "content":
                sent = request("/content", "POST", content=ANSWERS["content"])
                client.send(sent[: choice.choice((20_000, len(sent)))])
            else:
                client.send(request(f"/{kind}") * choice.choice((1, 4)))
            if client.readable(choice.choice((0, 0.0002, 0.002))):
                client.socket.recv(1000)
        finally:
            client.reset()


def test_the_lead_is_taken_thousands_of_times_a_second(serve):
    """From exchanges that nap, while clients leave amid others."""
    server = serve(
        mixed,
        validate=False,
        tick=0.000001,
        request_buffer=16384,
        response_buffer=16384,
        keep_alive_requests=1 << 30,
    )
    hammer = [sys.executable, Path(__file__).with_name("hammer.py"), str(server.port), "/nap", "nap", "16"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    hammers = [subprocess.Popen(hammer, **pipes) for _ in range(2)]
    try:
        wait_until(lambda: server.count("requests") > 100, "the first of them")
        began, taken = time.monotonic(), server.count("lead_taken")
        leave(server.connect, server.threads, began + 1)
        wait_until(lambda: server.count("lead_taken") - taken > 5000, server.server.counters, 60)
        seconds = time.monotonic() - began
    finally:
        asked = [int(hammer.communicate(timeout=60)[0] or 0) for hammer in hammers]
    print(f"the lead was taken {(server.count('lead_taken') - taken) / seconds:.0f} times a second")
    assert all(asked), "a wrong answer, or none"
    assert server.count("requests") >= sum(asked)


def test_pipelining_clients_do_not_keep_it_from_stopping(serve):
    server = serve(text(), validate=False)
    stop = threading.Event()

    def flood():
        with Client(server.address) as client:
            try:
                while not stop.is_set():
                    client.send(request("/") * 16)
                    for _ in range(16):
                        client.read_response()
            except (ConnectionError, OSError, AssertionError, EOFError):
                pass

    floods = [threading.Thread(target=flood, daemon=True) for _ in range(3)]
    for thread in floods:
        thread.start()
    wait_until(lambda: server.count("requests") > 1000, "some requests")
    try:
        server.server.shutdown()
        wait_until(lambda: not server.thread.is_alive(), "the end in spite of the flood")
    finally:
        stop.set()
        for thread in floods:
            thread.join(10)


def test_small_blocks_do_not_pass_the_limits(serve):
    given = []

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        for number in range(10_000):
            given.append(number)
            yield b"x" * 8192

    server = serve(application, response_buffer=65536, response_spool=65536)
    client = server.connect(receive_buffer=4096)
    client.send(request("/"))
    wait_until(lambda: len(given) > 10, "some blocks")
    count = -1
    while count != len(given):  # until the producer waits for the client
        count = len(given)
        time.sleep(0.2)
    assert count < 9000
    client.reset()
    server.wait_count("exchanges", 0)


def test_logging_that_blocks_does_not_hold_up_the_end(serve):
    entered, gate = threading.Event(), threading.Event()

    class Blocking(logging.Handler):
        def handle(self, record):
            self.emit(record)  # without the lock, or the thread that reports the stop would wait too
            return True

        def emit(self, record):
            if "failed" in record.getMessage():
                entered.set()
                gate.wait(30)

    def application(environ, start_response):
        raise ZeroDivisionError

    server = serve(application, validate=False)
    server.log.allow("ZeroDivisionError")
    server.log.allow("refused with 503")
    server.log.allow("taken away")
    server.log.allow("the grace is over")
    handler = Blocking()
    server.logger.addHandler(handler)
    try:
        client = server.connect()
        client.send(request("/"))
        assert entered.wait(10)
        began = time.monotonic()
        server.server.shutdown(0.2)
        assert time.monotonic() - began < 10
    finally:
        gate.set()
        server.logger.removeHandler(handler)
    assert server.server.counters()["revoked"] in (0, 1)


def test_a_log_filter_that_raises_costs_no_thread(serve):
    class Raising(logging.Filter):
        def filter(self, record):
            raise RuntimeError("from the filter")

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/":
            return text()(environ, start_response)
        start_response("200 OK", [TEXT, ("Content-Length", "9")])
        return [b"short"]

    server = serve(application, validate=False)
    raising = Raising()
    server.logger.addFilter(raising)
    try:
        for _ in range(2 * server.threads):
            with server.connect() as client:
                client.send(request("/short"))
                client.socket.recv(1000)
        for _ in range(2 * server.threads):
            assert server.ask().text == "hello"
        server.wait_count("exchanges", 0)
    finally:
        server.logger.removeFilter(raising)


def test_two_threads_of_the_application_write_at_once(serve):
    def application(environ, start_response):
        write = start_response("200 OK", [TEXT])
        writers = [
            threading.Thread(target=lambda: [write(b"x" * 100_000) for _ in range(20)]) for _ in range(3)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        return []

    server = serve(application, validate=False)
    assert server.ask().content == b"x" * 100_000 * 60


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_client_that_leaves_wakes_a_producer_that_waits(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        while True:
            yield b"x" * 300_000

    server = serve(application, response_buffer=65536, response_spool=65536)
    for _ in range(10):
        client = server.connect(receive_buffer=4096)
        client.send(request("/"))
        client.socket.recv(1000)
        client.reset()
    server.wait_count("exchanges", 0)
    before = os.times()
    time.sleep(0.3)
    after = os.times()
    assert (after.user + after.system) - (before.user + before.system) < 0.2, "something spins"
