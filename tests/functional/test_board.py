"""What a running crew shows of itself on the board; and what the main thread's wait is for."""

import ctypes
import logging
import mmap
import os
import select
import socket
import threading
import time

import pytest

from conftest import of_the_gil, of_threads, with_threads
from fastwsgi import Settings
from fastwsgi._crew import Crew
from fastwsgi._stats import Board, wants_t
from support import PATIENCE, TEXT, Gate, answering, request, text, wait_until


@answering
def gated(environ):
    environ["gate"].hold()
    return "done"


def with_gate(gate):
    def application(environ, start_response):
        environ["gate"] = gate
        return gated(environ, start_response)

    return application


def test_what_a_thread_serves(crewed):
    gate = Gate()
    crew = crewed(with_gate(gate))
    assert crew.row.running() == []
    with crew.connect() as client:
        client.send(request("/some/where?a=%41&b=\\", fields=[("X-Request-ID", "abc-123")]))
        gate.wait_entered()
        time.sleep(0.05)
        (shown,) = crew.row.running()
        thread, what, line, peer, request_id, seconds = shown[:6]
        assert 1 <= thread <= 4
        assert (what, line) == ("in the application", "GET /some/where?a=%41&b=\\\\")
        assert (peer, request_id) == ("127.0.0.1", "abc-123")
        assert 0.04 < seconds < PATIENCE
        assert crew.row.counters()["exchanges"] == 1
        gate.open()
        assert client.read_response().text == "done"
        wait_until(lambda: crew.row.running() == [], "nothing runs")
        assert crew.row.counters()["requests"] == 1
        client.ask("/short")


def test_what_is_long_is_cut(crewed):
    gate = Gate()
    crew = crewed(with_gate(gate))
    with crew.connect() as client:
        client.send(
            request("/" + "x" * 1000, "POST", fields=[("X-Request-ID", "\u00e9" * 500)], content=b"content")
        )
        gate.wait_entered()
        (running,) = crew.row.running()
        line, request_id = running.line, running.request_id
        assert line == "POST /" + "x" * 194
        assert request_id == "\\xe9" * 64
        gate.open()
        client.read_response()


def test_what_is_seen_of_a_request_is_not_seen_of_the_next(crewed):
    gates = [Gate(), Gate()]
    crew = crewed(lambda environ, start: with_gate(gates[environ["PATH_INFO"] == "/b"])(environ, start))
    with crew.connect() as client:
        for gate, path, fields in zip(
            gates, ["/" + "a" * 50, "/b"], [[("X-Request-ID", "first")], []], strict=True
        ):
            client.send(request(path, fields=fields))
            gate.wait_entered()
            (running,) = crew.row.running()
            assert (running.line, running.request_id) == (f"GET {path}", "first" if fields else "")
            gate.open()
            client.read_response()


def test_waiting_for_the_client(crewed):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return [b"x" * 1_000_000] * 40

    crew = crewed(application, response_buffer="64k", response_spool=0)
    with crew.connect() as client:
        client.send(request("/large"))

        def phases():
            return [what for _, what, *_ in crew.row.running()]

        wait_until(lambda: phases() == ["waiting for its client"], phases)
        client.read_head()
        client.take_chunks()
        wait_until(lambda: phases() == [], phases)


def test_in_close(crewed):
    gate = Gate()

    class Closing:
        def __iter__(self):
            return iter([b"block"])

        def close(self):
            gate.hold()

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return Closing()

    crew = crewed(application)
    with crew.connect() as client:
        client.send(request("/"))
        gate.wait_entered()
        assert [what for _, what, *_ in crew.row.running()] == ["in close()"]
        gate.open()
        client.read_response()


def test_taken_away(crewed):
    gate = Gate()
    crew = crewed(with_gate(gate))
    with crew.connect() as client:
        client.send(request("/stuck"))
        gate.wait_entered()
        crew.crew.revoke(crew.row.running()[0][0])
        assert client.read_response().status == 503
        ((_, what, line, *_),) = crew.row.running()
        assert (what, line) == ("in the application, taken away", "GET /stuck")
        gate.open()
        wait_until(lambda: crew.row.running() == [], "the thread has come back")


@of_the_gil
@of_threads
@with_threads(4)
def test_waiting_for_the_gil(crewed):
    """Another process sees what this one cannot show itself: that its threads wait for the GIL."""
    held, release = os.pipe()

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/hold":
            ctypes.PyDLL(None).read(held, ctypes.create_string_buffer(1), 1)
        return text()(environ, start_response)

    crew = crewed(application)
    reader, writer = os.pipe()

    def see(*expected, until=lambda: False):
        seen = ""
        deadline = time.monotonic() + PATIENCE
        while not all(words in seen for words in expected) and time.monotonic() < deadline and not until():
            seen = repr([(running.phase, running.line) for running in crew.row.running()])
            time.sleep(0.001)
        return seen

    def answered():
        return bool(select.select([waits.socket], [], [], 0)[0])

    with crew.connect() as holder, crew.connect() as waits:
        child = os.fork()
        if not child:
            see("'in the application', 'GET /hold'")
            while True:
                waits.send(request("/waits"))
                seen = see(
                    "'in the application', 'GET /hold'", "'waiting for the GIL', 'GET /waits'", until=answered
                )
                if not answered():
                    break
                waits.read_response()  # it was quicker than the other's last line of Python: again
            os.write(writer, seen.encode())
            os.write(release, b"!")
            os._exit(0)
        holder.send(request("/hold"))
        holder.read_response()
        waits.read_response()
    os.waitpid(child, 0)
    seen = os.read(reader, 10000).decode()
    for fd in (reader, writer, held, release):
        os.close(fd)
    assert "'in the application', 'GET /hold'" in seen
    assert "'waiting for the GIL', 'GET /waits'" in seen


@of_threads
def test_readers_never_see_a_mixture(crewed):
    """Lines and ids that belong together, of exchanges that take turns as fast as they can."""
    crew = crewed(text(), keep_alive_requests=1 << 30)
    stop = threading.Event()

    def ask(letter):
        fields = [("X-Request-ID", letter * 60)]
        with crew.connect() as client:
            while not stop.is_set():
                client.ask("/" + letter * 150, fields=fields)

    clients = [threading.Thread(target=ask, args=[letter]) for letter in "abcd"]
    for client in clients:
        client.start()
    seen = set()
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        for running in crew.row.running():
            letter = running.request_id[0]
            assert running.line == f"GET /{letter * 150}"
            assert running.request_id == letter * 60
            seen.add(letter)
    stop.set()
    for client in clients:
        client.join(PATIENCE)
    assert seen


def test_the_main_thread_beats(crewed):
    crew = crewed(text(), beat=0.02)
    first = wait_until(lambda: crew.row.beat, "a beat")
    wait_until(lambda: crew.row.beat > first + 40_000_000, "more beats")
    assert crew.row.beat <= time.monotonic_ns()


def test_no_beat_unless_it_is_asked_for(crewed):
    crew = crewed(text())
    time.sleep(0.1)
    assert crew.returns <= 1


def test_the_watched_descriptor(crewed):
    ours, theirs = os.pipe()
    crew = crewed(text(), watched_fd=ours)
    time.sleep(0.05)
    before = crew.returns
    os.close(theirs)
    wait_until(lambda: crew.returns > before, "attend comes back when the other end is closed")
    assert select.select([ours], [], [], 0)[0]
    crew.stop()
    os.close(ours)


def test_max_requests(crewed):
    crew = crewed(text(), max_requests=5)
    with crew.connect() as client:
        for _ in range(4):
            client.ask("/")
        time.sleep(0.05)
        assert crew.row.wants == wants_t.WANTS_NOTHING
        before = crew.returns
        client.ask("/")
        wait_until(lambda: crew.returns > before, "attend comes back")
        assert crew.row.wants == wants_t.WANTS_REQUESTS
        before = crew.returns
        client.ask("/")
        time.sleep(0.05)
        assert crew.returns == before


def test_not_ready_while_the_server_stops(crewed):
    crew = crewed(text(), health="/healthz", ready="/readyz")
    with crew.connect() as client:
        assert client.ask("/readyz").status == 200
        crew.board.stopping = True
        response = client.ask("/readyz")
        assert response.status == 503
        assert not response.closes
        assert client.ask("/healthz").status == client.ask("/").status == 200


def test_a_connection_is_adopted(crewed):
    crew = crewed(text(), health="/healthz", starts=False)
    ours, theirs = socket.socketpair()
    crew.crew.adopt(theirs)
    assert theirs.fileno() == -1
    ours.sendall(request("/healthz") + request("/", fields=[("Connection", "close")]))
    crew.start()
    ours.settimeout(PATIENCE)
    with ours, ours.makefile("rb") as answers:
        answer = answers.read()
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.endswith(b"hello")
    with pytest.raises(RuntimeError, match="before the start"):
        crew.crew.adopt(socket.socketpair()[0])


def test_an_adopted_connection_needs_no_proxy_header(crewed):
    crew = crewed(text(), starts=False, proxy_protocol="v1", proxy_allow_from="*,unix")
    ours, theirs = socket.socketpair()
    crew.crew.adopt(theirs)
    ours.sendall(request("/"))
    crew.start()
    ours.settimeout(PATIENCE)
    with ours:
        assert ours.recv(15) == b"HTTP/1.1 200 OK"


def test_a_row_with_too_few_threads_is_refused():
    row = Board(mmap.mmap(-1, Board.size(1, 2)), 1, 2).row(0)
    with pytest.raises(ValueError, match="a row of 2 threads is not enough for 3"):
        Crew(text(), [], Settings(threads=3), logging.getLogger("fastwsgi"), row=row)
