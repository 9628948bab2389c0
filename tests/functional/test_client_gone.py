"""A client that leaves: environ["fastwsgi.client_gone"], requests that wait for a thread, status 499."""

import socket
import struct
import time

import pytest

from conftest import one_loop
from support import TEXT, Gate, request, wait_until


def reset(client):
    """Leave at once: RST."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def end_side(client):
    """FIN; the client can still read."""
    client.socket.shutdown(socket.SHUT_WR)


class Watching:
    """Looks at client_gone until it is set, or for a while; /held waits at the gate."""

    def __init__(self):
        self.seen, self.hints, self.gate, self.started = [], [], Gate(), 0

    def __call__(self, environ, start_response):
        gone = environ["fastwsgi.client_gone"]
        self.hints.append(gone)
        self.started += 1
        if environ["PATH_INFO"] == "/held":
            self.gate.hold()
        if environ["PATH_INFO"] == "/watch":
            self.gate.entered.release()
            until = time.monotonic() + 3
            while not gone.is_set() and time.monotonic() < until:
                time.sleep(0.005)
        self.seen.append(gone.is_set())
        start_response("200 OK", [TEXT])
        return [b"here"]


def keep_busy(server, app):
    """As many clients as there are threads, each of them in the application."""
    busy = [server.connect() for _ in range(server.threads)]
    for client in busy:
        client.send(request("/held"))
    app.gate.wait_entered(server.threads)
    return busy


@pytest.mark.parametrize("leave", [reset, end_side])
def test_the_application_can_see_it(serve, leave):
    app = Watching()
    server = serve(app, validate=False)
    client = server.connect()
    client.send(request("/watch"))
    app.gate.wait_entered()
    leave(client)
    wait_until(lambda: app.seen == [True], "client_gone")
    if leave is end_side:
        assert client.read_response().text == "here"
        client.expect_end()
    server.wait_count("exchanges", 0)
    assert app.hints[0].is_set()


def test_one_that_stays_is_not_gone(serve):
    app = Watching()
    server = serve(app, validate=False)
    with server.connect() as client:
        # The second is there while the first is answered.
        client.send(request("/a") + request("/b"))
        assert [client.read_response().text for _ in range(2)] == ["here", "here"]
    assert app.seen == [False, False]
    assert not app.hints[0].is_set()


def test_a_reset_is_seen_behind_a_request_that_waits(serve):
    app = Watching()
    server = serve(app, validate=False)
    client = server.connect()
    client.send(request("/watch"))
    app.gate.wait_entered()
    client.send(request("/next"))
    time.sleep(0.05)
    reset(client)
    wait_until(lambda: app.seen == [True], "client_gone")


@one_loop
@pytest.mark.parametrize("leave", [reset, end_side])
def test_a_request_that_waits_for_a_thread_is_dropped(serve, leave):
    app = Watching()
    server = serve(app, validate=False)
    busy = keep_busy(server, app)
    waiting = server.connect()
    waiting.send(request("/never"))
    staying = server.connect()
    staying.send(request("/later"))
    wait_until(lambda: server.count("queued") >= 2, "the queue")
    begun = time.monotonic()
    leave(waiting)
    wait_until(lambda: server.count("left_queued") == 1, "the drop")
    if leave is end_side:
        assert time.monotonic() - begun > 0.9
    app.gate.open()
    for client in (*busy, staying):
        assert client.read_response().status == 200
    assert app.started == server.threads + 1


@one_loop
@pytest.mark.parametrize("leave", [reset, end_side])
def test_it_is_499_in_the_access_log(serve, leave, tmp_path):
    app = Watching()
    log = tmp_path / "access.log"
    server = serve(app, validate=False, access_logfile=str(log), access_logformat="%(s)s %(U)s")
    busy = keep_busy(server, app)
    waiting = server.connect()
    waiting.send(request("/never"))
    wait_until(lambda: server.count("queued") >= 1, "the queue")
    leave(waiting)
    wait_until(lambda: "499 /never" in log.read_text(), "the line")
    app.gate.open()
    for client in busy:
        assert client.read_response().status == 200
    wait_until(lambda: log.read_text().count("200 /held") == server.threads, "the other lines")


def test_one_that_left_in_the_middle_is_499_too(serve, tmp_path):
    app = Watching()
    log = tmp_path / "access.log"
    server = serve(app, validate=False, access_logfile=str(log), access_logformat="%(s)s %(U)s")
    client = server.connect()
    client.send(request("/watch"))
    app.gate.wait_entered()
    reset(client)
    wait_until(lambda: "499 /watch" in log.read_text(), lambda: log.read_text())
