"""Crew.revoke: an exchange is taken away from a thread that is stuck in the application."""

import threading
import time

import pytest

from conftest import one_loop
from support import PATIENCE, TEXT, Body, Gate, request, target_of, wait_until

each_way = pytest.mark.parametrize("way", ["write", "block"])


class Stuck(Body):
    """An application and its iterable: /stuck sends what it is given, waits at the gate, and then goes on.

    /all waits until as many requests as the server has threads are in the application.
    """

    def __init__(self, way, first, threads):
        super().__init__(self.give(first, way))
        self.way, self.first = way, first
        self.gate = Gate()
        self.all = threading.Barrier(threads, timeout=PATIENCE)
        self.raised = []

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/all":
            self.all.wait()
        if environ["PATH_INFO"] != "/stuck":
            return target_of(environ, start_response)
        self.thread = int(threading.current_thread().name.removeprefix("fastwsgi-"))
        self.write = start_response("200 OK", [TEXT])
        if self.way == "write":
            if self.first:
                self.write(self.first)
            self.gate.hold()
            self.write_late()
        return self

    def give(self, first, way):
        if way == "block":
            if first:
                yield first
            self.gate.hold()
        yield b"late"
        yield b"never asked for"

    def write_late(self):
        for _ in range(2):
            try:
                self.write(b"late")
            except ConnectionError as error:
                self.raised.append(error)


def begin(serve, way, first=b""):
    """A server, and a client whose exchange is stuck."""
    stuck = Stuck(way, first, serve.threads)
    server = serve(stuck)
    client = server.connect()
    client.send(request("/stuck"))
    stuck.gate.wait_entered()
    return server, stuck, client


def revoke(server, thread):
    server.server._worker._crew.revoke(thread)


def check_it_goes_on(server, stuck):
    """Others are served meanwhile, the application comes back and is told, and its thread serves again."""
    assert server.count("revoked") == 1
    assert server.count("exchanges") == 1
    other = server.connect()
    other.send(request("/other"))
    if server.threads > 1:
        assert other.read_response().text == "/other"
    assert stuck.closed == 0
    stuck.gate.open()
    if server.threads == 1:
        assert other.read_response().text == "/other"
    server.wait_count("exchanges", 0)
    assert stuck.closed == 1
    assert len(stuck.raised) == (2 if stuck.way == "write" else 0)
    with pytest.raises(RuntimeError, match="ended"):
        stuck.write(b"later still")
    clients = [server.connect() for _ in range(server.threads)]
    for client in clients:
        client.send(request("/all"))
    for client in clients:
        assert client.read_response().text == "/all"
    assert stuck.closed == 1
    assert server.count("revoked") == 1


@one_loop
@each_way
def test_revoked_before_the_head_has_left(serve, way):
    server, stuck, client = begin(serve, way)
    revoke(server, stuck.thread)
    response = client.read_response()
    assert response.status == 503
    assert response.closes
    client.expect_end()
    server.log.expect("refused with 503")
    check_it_goes_on(server, stuck)


@one_loop
@each_way
def test_revoked_after_the_head_has_left(serve, way):
    server, stuck, client = begin(serve, way, b"first")
    assert client.read_head().status == 200
    assert client.take_chunk() == b"first"
    revoke(server, stuck.thread)
    with pytest.raises(ConnectionResetError):
        client.receive()
    server.log.expect("taken away from its thread")
    check_it_goes_on(server, stuck)


@one_loop
def test_pipelined_answers_before_it_are_sent(serve):
    stuck = Stuck("block", b"", serve.threads)
    server = serve(stuck)
    with server.connect() as client:
        client.send(request("/one") + request("/two") + request("/stuck") + request("/never"))
        stuck.gate.wait_entered()
        revoke(server, stuck.thread)
        assert [client.read_response().text for _ in range(2)] == ["/one", "/two"]
        assert client.read_response().status == 503
        client.expect_end()
    server.log.expect("refused with 503")
    check_it_goes_on(server, stuck)
    assert server.count("requests") == 4 + server.threads


@one_loop
def test_a_producer_that_waits_for_its_client_is_woken(serve):
    body = Body([b"x" * 10_000_000])
    threads = []

    def application(environ, start_response):
        if environ["PATH_INFO"] != "/big":
            return target_of(environ, start_response)
        threads.append(int(threading.current_thread().name.removeprefix("fastwsgi-")))
        start_response("200 OK", [TEXT])
        return body

    server = serve(application, response_buffer=65536, response_spool=65536)
    client = server.connect(receive_buffer=4096)
    client.send(request("/big"))
    client.read_head()
    revoke(server, threads[0])
    wait_until(lambda: body.closed, "the end of the exchange")
    with pytest.raises(ConnectionResetError):
        client.take_rest()
    server.log.expect("taken away from its thread")
    assert server.ask("/next").text == "/next"
    assert body.closed == 1
    assert server.count("revoked") == 1


@one_loop
def test_without_an_exchange_nothing_happens(serve):
    server = serve(target_of)
    for number in range(3):
        for thread in range(1, server.threads + 1):
            revoke(server, thread)
        assert server.ask(f"/{number}").text == f"/{number}"
    for thread in (0, server.threads + 1):
        with pytest.raises(ValueError, match="no thread"):
            revoke(server, thread)
    assert server.count("revoked") == 0


@one_loop
def test_revoked_at_any_moment(serve):
    bodies, statuses = [], []
    until = time.monotonic() + 1

    def blocks():
        for _ in range(5):
            time.sleep(0.001)
            yield b"x" * 100

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        body = Body(blocks())
        bodies.append(body)
        return body

    def ask():
        while time.monotonic() < until:
            try:
                with server.connect() as client:
                    response = client.ask()
            except ConnectionError:
                statuses.append("reset")
            else:
                assert response.status == 503 or response.content == b"x" * 500
                statuses.append(response.status)

    server = serve(application)
    for words in ("taken away from", "refused with 503", "more log records"):
        server.log.allow(words)
    askers = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for asker in askers:
        asker.start()
    while any(asker.is_alive() for asker in askers):
        assert time.monotonic() < until + PATIENCE
        for thread in range(1, server.threads + 1):
            revoke(server, thread)
        time.sleep(0.003)
    server.wait_count("exchanges", 0)
    assert {body.closed for body in bodies} == {1}
    assert server.count("revoked") >= statuses.count(503) + statuses.count("reset") > 0
    assert [server.ask().content for _ in range(10)] == [b"x" * 500] * 10
