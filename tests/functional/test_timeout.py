"""--timeout and --log-slow: what becomes of exchanges that take too long, and what the log says of them."""

import contextlib
import random
import re
import threading
import time

import pytest

import fastwsgi
from conftest import of_threads, with_threads
from support import TEXT, Body, Client, Gate, Incomplete, request, text, wait_until

FOREVER = 60


class Endless:
    """An application that leaves /endless only when it is interrupted, and records by what."""

    def __init__(self, before=None):
        self.before, self.caught, self.threads = before, [], []

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] != "/endless":
            return text()(environ, start_response)
        self.threads.append(threading.current_thread().name)
        if self.before:
            start_response("200 OK", [TEXT])(self.before)
        try:
            self.work_for_ever()
        except BaseException as error:
            self.caught.append(type(error))
            raise
        return []

    def work_for_ever(self):
        until = time.monotonic() + FOREVER
        while time.monotonic() < until:
            time.sleep(0.002)


def test_an_exchange_without_progress_is_answered_with_503(serve):
    app = Endless()
    server = serve(app, timeout=0.4, validate=False)
    with server.connect() as client:
        begun = time.monotonic()
        client.send(request("/endless?what=%1b[2J"))
        response = client.read_response()
        assert response.status == 503
        assert time.monotonic() - begun > 0.35
        client.expect_end()
    server.log.expect("the application gave nothing for --timeout")
    server.log.expect("GET /endless?what=%1b[2J from 127.0.0.1 made no progress for 0.4 s (--timeout)")
    (line,) = server.log.matching("made no progress for 0.4 s")
    assert "in work_for_ever\n" in line and __file__ in line
    assert 0.4 <= float(re.search(r"after ([0-9.]+) s in all", line)[1]) < 5
    wait_until(lambda: app.caught == [fastwsgi.RequestTimeout], "the exception in the application")
    server.wait_count("exchanges", 0)
    # The same threads go on.
    assert server.ask().text == "hello"
    assert server.count("timeouts") == 1
    assert server.count("lost_threads") == 0


def test_an_exchange_whose_answer_has_begun_is_reset(serve):
    app = Endless(before=b"some")
    server = serve(app, timeout=0.4, validate=False)
    with server.connect() as client:
        client.send(request("/endless"))
        client.read_head()
        assert client.take_chunk() == b"some"
        try:
            client.take_rest()
            raise AssertionError("not reset")
        except ConnectionResetError:
            pass
    server.log.expect("connection reset")
    server.log.expect("made no progress")
    wait_until(lambda: app.caught == [fastwsgi.RequestTimeout], "the exception in the application")


def test_the_access_log_has_it(serve, tmp_path):
    log = tmp_path / "access.log"
    server = serve(
        Endless(), timeout=0.4, validate=False, access_logfile=str(log), access_logformat="%(s)s %(U)s %(M)s"
    )
    server.log.allow("--timeout")
    assert server.ask("/endless").status == 503
    wait_until(lambda: log.read_text().endswith("\n"), "the line")
    status, path, milliseconds = log.read_text().split()
    assert (status, path) == ("503", "/endless")
    assert 400 <= int(milliseconds) < 5000


def test_each_block_is_progress(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        for _ in range(8):
            time.sleep(0.15)
            yield b"tick"

    server = serve(application, timeout=0.5, log_slow=0, validate=False)
    assert server.ask().content == b"tick" * 8


def test_waiting_for_the_client_is_progress(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        for _ in range(40):
            yield b"x" * 500_000

    server = serve(application, timeout=1, log_slow=0, response_buffer=0, response_spool=0, validate=False)
    with server.connect(receive_buffer=4096) as client:
        client.send(request("/"))
        client.read_head()
        time.sleep(2.5)
        assert len(client.take_chunks()) == 20_000_000


def test_an_answer_that_is_complete_is_not_cut_by_a_slow_close(serve):
    gate = Gate()
    closed = []

    class Slow(Body):
        def close(self):
            try:
                gate.hold()
                closed.append(True)
            except BaseException as error:
                closed.append(error)
                raise

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/":
            return text()(environ, start_response)
        start_response("200 OK", [TEXT])
        return Slow([b"all ", b"of it"])

    server = serve(application, timeout=0.3, validate=False)
    server.log.allow("does not come back")
    client = server.connect()
    client.send(request("/slow"))
    assert client.read_response().text == "all of it"
    client.expect_end()
    server.log.expect("made no progress")
    assert "in close\n" in server.log.matching("made no progress")[0]
    time.sleep(0.2)
    assert closed == []
    gate.open()
    wait_until(lambda: closed, "close()")
    assert closed == [True]
    server.wait_count("exchanges", 0)
    assert server.ask().text == "hello"


def test_an_answer_of_the_announced_length_is_complete(serve):
    gate = Gate()

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/":
            return text()(environ, start_response)
        start_response("200 OK", [TEXT, ("Content-Length", "9")])
        return generator()

    def generator():
        yield b"all of "
        yield b"it"
        gate.hold()

    server = serve(application, timeout=0.3, validate=False)
    server.log.allow("made no progress")
    client = server.connect()
    client.send(request("/goes-on"))
    wait_until(lambda: server.count("timeouts") == 1, "the timeout")
    assert client.read_response().text == "all of it"
    client.expect_end()
    gate.open()
    assert server.ask().text == "hello"


def test_a_thread_that_does_not_come_back_is_replaced(serve):
    gate, names = Gate(), []

    def application(environ, start_response):
        names.append(threading.current_thread().name)
        if environ["PATH_INFO"] == "/stuck":
            while not gate.opened.is_set():
                # As if it were stuck in a library.
                with contextlib.suppress(fastwsgi.RequestTimeout):
                    gate.hold()
        return text()(environ, start_response)

    server = serve(application, timeout=0.3, validate=False)
    client = server.connect()
    client.send(request("/stuck"))
    assert client.read_response().status == 503
    server.log.expect("the application gave nothing for --timeout")
    server.log.expect("made no progress")
    server.log.expect("does not come back from GET /stuck for 127.0.0.1, after")
    server.log.expect("takes its place")
    assert server.count("lost_threads") == 1
    clients = [server.connect() for _ in range(20)]
    for other in clients:
        other.send(request("/other"))
    for other in clients:
        assert other.read_response().text == "hello"
    lost = names[0]
    assert lost not in names[1:]
    gate.open()
    # It ends, for there is another one.
    wait_until(lambda: lost not in {thread.name for thread in threading.enumerate()}, "the end of the thread")
    assert server.ask("/other").text == "hello"
    assert lost not in names[1:]
    workers = [thread.name for thread in threading.enumerate() if thread.name.startswith("fastwsgi-")]
    assert len(set(workers) - {"fastwsgi-keeper"}) <= server.threads


def test_slow_requests_are_logged_with_their_stack(serve):
    def lingering(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            time.sleep(1.0)
        return text()(environ, start_response)

    server = serve(lingering, log_slow=0.3, timeout=0)
    assert server.ask("/slow").status == 200
    assert server.ask("/quick").status == 200
    server.log.expect("GET /slow from 127.0.0.1 is slow")
    (line,) = server.log.matching("is slow")
    assert "in lingering\n" in line
    assert server.count("timeouts") == 0


# It may be raised in what the garbage collector calls back, where Python drops it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@of_threads
@with_threads(4)
def test_at_the_very_moment(serve):
    """Exchanges that last about as long as they may: 200 or 503, and the exception only in those."""
    timeout = 0.06
    stray, rounds = [], 60

    def application(environ, start_response):
        until = time.monotonic() + timeout * random.uniform(0.8, 1.4)
        while time.monotonic() < until:
            pass
        start_response("200 OK", [TEXT])
        return Closing()

    class Closing(Body):
        def close(self):
            try:
                for _ in range(1000):
                    pass
            except BaseException as error:
                stray.append(error)
                raise

    server = serve(application, timeout=timeout, log_slow=0, validate=False)
    for words in ("no progress", "gave nothing", "connection reset", "were left out"):
        server.log.allow(words)
    outcomes = []

    def load():
        for _ in range(rounds):
            with Client(server.address) as client:
                client.send(request("/"))
                try:
                    outcomes.append(client.read_response().status)
                except (ConnectionError, Incomplete):
                    outcomes.append("reset")

    clients = [threading.Thread(target=load) for _ in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert len(outcomes) == 4 * rounds
    assert set(outcomes) <= {200, 503, "reset"}
    assert not stray
    assert server.count("timeouts") >= outcomes.count(503)
    server.wait_count("exchanges", 0)
    assert server.count("lost_threads") == 0
