"""The load judges rightly: what it calls failed has failed, and what it excuses is no fault of the server."""

import contextlib
import re
import signal
import socket
import struct
import threading
import time

import pytest

from process.load import HABITS, WRK, load
from process.numbered import content_of
from support import wait_until

RESET = struct.pack("ii", 1, 0)


class Peer:
    """A connection of a server that answers as the test wants."""

    def __init__(self, connection):
        self.connection = connection
        self.received = b""

    def take(self):
        """The number of the next request; None at the end of the connection."""
        while b"\r\n\r\n" not in self.received:
            data = self.connection.recv(65536)
            if not data:
                return None
            self.received += data
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        return int(re.match(rb"GET /(\d+)", head)[1])

    def answer(self, number, status="200 OK", cut=0):
        content = content_of(number)
        head = (
            f"HTTP/1.1 {status}\r\nDate: Sun, 22 Nov 2026 20:00:00 GMT\r\nContent-Length: {len(content)}\r\n"
            "Worker: 1\r\nGeneration: 1\r\n\r\n"
        )
        octets = head.encode() + content
        self.connection.sendall(octets[: len(octets) - cut])

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.connection.close()


@pytest.fixture
def serve_with():
    """serve_with(behaviour): a listening socket; behaviour(peer) is called for each connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def converse(connection, behaviour):
        with connection, contextlib.suppress(OSError):
            behaviour(Peer(connection))

    def accept(behaviour):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=converse, args=(connection, behaviour), daemon=True).start()

    def start(behaviour):
        threading.Thread(target=accept, args=(behaviour,), daemon=True).start()
        return listener

    yield start
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def answer_all(peer):
    while (number := peer.take()) is not None:
        peer.answer(number)


def answer_one_and_close_at_the_next(peer):
    peer.answer(peer.take())
    peer.take()


def answer_one_and_close_while_it_rests(peer):
    peer.answer(peer.take())


def answer_one_and_reset(peer):
    peer.answer(peer.take())
    peer.take()
    peer.reset()


def close_at_once(peer):
    peer.take()


def end_in_the_middle(peer):
    peer.answer(peer.take(), cut=1)


def end_in_the_head_of_the_second(peer):
    peer.answer(peer.take())
    number = peer.take()
    peer.answer(number, cut=len(content_of(number)) + 10)


def answer_another_number(peer):
    peer.answer(peer.take() + 1)


def answer_500(peer):
    peer.answer(peer.take(), status="500 Internal Server Error")


def send_unasked(peer):
    peer.answer(peer.take())
    peer.answer(1)
    peer.take()


def seen_by(listener, habit, seconds=0.5, **options):
    with load(listener.getsockname(), clients=2, habits=[habit], **options) as running:
        running.pause(seconds)
    return running.report


@pytest.mark.parametrize("habit", [habit for habit in HABITS if habit != "upload"])
def test_what_is_answered_has_not_failed(serve_with, habit):
    report = seen_by(serve_with(answer_all), habit)
    report.check(least=2)
    assert (report.retried, report.closed, report.refused) == (0, 0, 0)
    assert report.workers == report.generations == {"1": report.requests}


@pytest.mark.parametrize("habit", ["keep", "pipeline"])
def test_a_kept_connection_may_end_before_an_answer(serve_with, habit):
    report = seen_by(serve_with(answer_one_and_close_at_the_next), habit)
    report.check(least=2)
    assert report.retried > 0


def test_a_connection_may_end_at_rest(serve_with):
    report = seen_by(serve_with(answer_one_and_close_while_it_rests), "rest", seconds=1.5)
    report.check(least=2)
    assert report.closed > 0


@pytest.mark.parametrize(
    ("behaviour", "habit", "how"),
    [
        (answer_one_and_reset, "keep", "reset"),
        (close_at_once, "keep", "ended"),
        (close_at_once, "renew", "ended"),
        (end_in_the_middle, "keep", "ended"),
        (end_in_the_head_of_the_second, "keep", "ended"),
        (answer_another_number, "keep", "wrong"),
        (answer_500, "renew", "wrong"),
        (send_unasked, "rest", "wrong"),
    ],
)
def test_what_fails_is_told(serve_with, behaviour, habit, how):
    report = seen_by(serve_with(behaviour), habit)
    assert report.failures
    assert {failure.how for failure in report.failures} == {how}
    with pytest.raises(AssertionError, match=how):
        report.check(least=0)


def test_no_answer_in_time_is_a_failure(serve_with):
    listener = serve_with(lambda peer: time.sleep(3))
    with load(listener.getsockname(), clients=1, habits=["keep"], patience=0.2) as running:
        wait_until(lambda: running.report.failures, "a failure")
    assert {failure.how for failure in running.report.failures} == {"timeout"}


def test_a_refused_connect_is_a_failure_unless_the_end_was_announced(serve_with):
    listener = serve_with(answer_all)
    with load(listener.getsockname(), clients=2, habits=["renew"]) as running:
        running.wait_answers(10)
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        wait_until(lambda: running.report.failures, "a failure")
    assert {failure.how for failure in running.report.failures} <= {"refused", "reset"}

    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    listener.close()
    with load(address, clients=2, may_refuse=True) as running:
        wait_until(lambda: running.report.refused == 2, lambda: str(running.report))
    running.report.check(least=0)


def test_a_load_that_is_over_before_the_test_is_none(serve_with):
    listener = serve_with(answer_all)
    with pytest.raises(AssertionError, match="before the test"):
        with load(listener.getsockname(), clients=1, seconds=0.1):
            time.sleep(0.3)


@pytest.mark.parametrize("wrk", [0, pytest.param(4, marks=pytest.mark.skipif(not WRK, reason="no wrk here"))])
def test_a_real_server_that_stops_fails_nobody(start_crew, wrk):
    server = start_crew("numbered:application")
    worker = server.worker
    with load(server.address, wrk=wrk) as running:
        running.wait_answers(1000)
        running.listening_ends()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.stderr
        running.wait(lambda: running.report.refused == 20, "everybody sent away")
    running.report.check(least=1000)
    assert set(running.report.workers) == {str(worker)}
    assert running.report.wrk.get("requests", 1) > 0
