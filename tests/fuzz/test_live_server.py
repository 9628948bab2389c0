"""Mutations of the vectors, and garbage, to a running server: it goes on serving whatever comes."""

import errno
import os
import random
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from mutations import mutated

from conftest import CREWS, crew_id
from support import Client, Incomplete, Malformed, echo, request, text, wait_until

# How long to send to processes of their own; without the variable it is short, and always the same is sent.
SECONDS = os.environ.get("FUZZ_SECONDS")
CLIENTS = 4
ROUNDS = 3

# What may be answered to a mutated vector: never 500, which would be a mistake of ours.
FINE = {200, 400, 408, 413, 414, 417, 421, 431, 501, 505}


def send_in_pieces(generator, client, data):
    """Send it at once, or cut somewhere; the server may have refused it before it has all."""
    cut = generator.randint(0, len(data)) if generator.random() < 0.3 else len(data)
    try:
        client.send(data[:cut])
        client.send(data[cut:])
        client.half_close()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
            raise


def read_all(client, octets):
    """Every answer up to the end of the connection is a well-formed response; and the end comes in time."""
    statuses = []
    # An answer to HEAD has no content, and only the server knows whether this was a HEAD request.
    unknown_ends = b"HEAD" in octets
    try:
        while client.received or client.receive():
            statuses.append(client.read_response().status)
    except ConnectionResetError:
        pass
    except Incomplete:
        # Who is told to continue and does not gets no other answer.
        if not unknown_ends and b"100-continue" not in octets.lower():
            raise
    except Malformed:
        if not unknown_ends:
            raise
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
        octets = mutated(generator)
        with server.connect() as client:
            send_in_pieces(generator, client, octets)
            assert set(read_all(client, octets)) <= FINE, octets
        if number % 20 == 0:
            assert server.ask("/", "POST", content=b"alive").text == "alive"
    assert server.ask("/", "POST", content=b"alive").text == "alive"


def test_garbage(serve):
    generator = random.Random(0)
    server = serve(text())
    allow_refusals(server)
    for _ in range(100):
        octets = generator.randbytes(generator.randint(1, 3000))
        with server.connect() as client:
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


def annoy(address, generator, seconds):
    """Send mutated vectors, sometimes leave before the answer, and now and then ask as one should."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        octets = mutated(generator)
        with Client(address) as client:
            chance = generator.random()
            if chance < 0.05:
                assert client.ask("/", "POST", content=octets).content == octets
            elif chance < 0.2:
                client.send(octets[: generator.randint(0, len(octets))])
                generator.choice([client.close, client.reset])()
            else:
                send_in_pieces(generator, client, octets)
                try:
                    assert set(read_all(client, octets)) <= FINE
                except (AssertionError, TimeoutError) as error:
                    raise AssertionError(octets) from error


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux")
@pytest.mark.parametrize(("poller", "threads"), CREWS, ids=map(crew_id, CREWS))
def test_nothing_grows(start, tmp_path, poller, threads):
    """Several clients annoy a process: it lives, answers in time, and holds no more than before."""
    log, access_log = tmp_path / "error.log", tmp_path / "access.log"
    options = ["--workers", "1", "--bind", "127.0.0.1:0", "--poller", poller, "--threads", str(threads)]
    options += ["--request-buffer", "1000", "--error-logfile", str(log), "--access-logfile", str(access_log)]
    server = start(*options, "--pythonpath", str(Path(__file__).parents[1]), "support:echo", started=False)
    wait_until(lambda: log.exists() and "Ctrl-C" in log.read_text(), "it listens")
    server.ports = [int(re.search(r"http://127.0.0.1:(\d+)", log.read_text())[1])]
    process = psutil.Process(server.worker)
    assert server.ask(content=b"alive").text == "alive"
    descriptors, memory = process.num_fds(), []
    crowd = [random.Random(None if SECONDS else number) for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in range(ROUNDS):
            seconds = float(SECONDS or 8) / len(CREWS) / ROUNDS
            for done in [pool.submit(annoy, server.address, generator, seconds) for generator in crowd]:
                done.result()
            wait_until(lambda: process.num_fds() <= descriptors, "all its connections ended")
            assert server.ask(content=b"alive").text == "alive"
            memory.append(process.memory_info().rss)
    server.stop()
    # What is lost is lost in every round, while an arena more of an allocator comes once.
    if "libasan" not in os.environ.get("LD_PRELOAD", ""):
        assert min(after - before for before, after in pairwise(memory)) < 500_000, memory
    for lines in (log.read_text(), access_log.read_text()):
        assert "Traceback" not in lines
        assert all(line.isprintable() for line in lines.split("\n"))
    if SECONDS:
        print(f"{len(access_log.read_text().splitlines())} answers logged, memory {memory}")
