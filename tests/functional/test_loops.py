"""Several loops in one server (docs/decisions/0012): to those outside, and to Python, they are one worker."""

import collections
import re
import threading
import time

import pytest

import fastwsgi
from conftest import POLLERS, crew_id, of_threads
from fastwsgi import ConfigError, Settings
from fastwsgi.errors import RequestTimeout
from support import PATIENCE, TEXT, Gate, answering, target_of, wait_until

two_loops = pytest.mark.parametrize("serve", [(poller, 4) for poller in POLLERS], ids=crew_id, indirect=True)
pytestmark = of_threads


@answering
def thread_name(environ):
    return threading.current_thread().name


class Held:
    """Requests for /hold wait until `gate` opens; each tells which thread has it."""

    def __init__(self):
        self.gate = Gate()
        self.threads = []

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"].startswith("/hold"):
            self.threads.append(threading.current_thread().name)
            self.gate.hold()
        return thread_name(environ, start_response)


def loop_of(name):
    """Of the thread of a server with two threads in each of two loops."""
    return (int(name.removeprefix("fastwsgi-")) - 1) // 2


def hold_in_each_loop(server, app, clients):
    """Send requests until one waits in each loop; the connections stay open."""

    def goes_on():
        is_taken = len(app.threads) > before or server.count("waiting")
        return is_taken and server.count("connections") == len(clients)

    while len({loop_of(name) for name in app.threads}) < 2:
        before = len(app.threads)
        clients.append(server.connect())
        clients[-1].send(b"GET /hold/%d HTTP/1.1\r\nHost: a\r\n\r\n" % before)
        # More than two for a loop wait in its queue.
        wait_until(goes_on, "the application")
        assert len(clients) < 100

    def all_are_counted():
        running = server.count("exchanges")
        return running == len(app.threads) and running + server.count("waiting") == len(clients)

    wait_until(all_are_counted, lambda: f"{len(clients)} requests: {server.server.counters()}")


@pytest.fixture
def clients():
    opened = []
    yield opened
    for client in opened:
        client.close()


@two_loops
def test_connections_are_shared(serve, clients):
    server = serve(thread_name, loops=2)
    for _ in range(40):
        clients.append(server.connect())
        clients[-1].ask()
        # A thread of it that waits for the GIL, as this one has it, would be better left alone.
        server.wait_count("exchanges", 0)
    loops = collections.Counter(loop_of(client.ask().text) for client in clients)
    # Where somebody yields from is four connections more than the other has.
    assert set(loops) == {0, 1}
    assert min(loops.values()) >= 10
    # The same one has the connection for as long as it is there.
    assert [loop_of(client.ask().text) for client in clients] == [
        loop_of(client.ask().text) for client in clients
    ]


@two_loops
def test_no_request_of_a_new_connection_waits_while_a_thread_is_free(serve, clients):
    app = Held()
    server = serve(app, loops=2)
    for count in range(1, 5):
        clients.append(server.connect())
        clients[-1].send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: len(app.threads) == count, "a thread of whichever loop")  # noqa: B023
    app.gate.open()
    for client in clients:
        client.read_response()


@two_loops
def test_threads_are_numbered_through(serve, clients):
    app = Held()
    server = serve(app, loops=2)
    hold_in_each_loop(server, app, clients)
    assert set(app.threads) <= {f"fastwsgi-{number}" for number in range(1, 5)}
    app.gate.open()
    for client in clients:
        client.read_response()


@two_loops
def test_what_is_counted_is_the_sum(serve, clients):
    app = Held()
    server = serve(app, loops=2)
    hold_in_each_loop(server, app, clients)
    counters = server.server.counters()
    assert counters["exchanges"] == len(app.threads)
    assert counters["connections"] == len(clients)
    app.gate.open()
    for client in clients:
        client.read_response()
    server.wait_count("exchanges", 0)
    assert server.count("requests") == len(clients)


@two_loops
def test_timeouts_name_the_thread(serve, clients):
    app = Held()
    seen = []

    def caught(environ, start_response):
        try:
            return app(environ, start_response)
        except RequestTimeout:
            seen.append(threading.current_thread().name)
            raise

    server = serve(caught, loops=2, timeout=0.3, validate=False)
    server.log.allow("--timeout")
    hold_in_each_loop(server, app, clients)
    held = list(app.threads)
    told = []

    def all_told():
        told[:] = re.findall(r"in thread (fastwsgi-\d+) at", "\n".join(map(str, server.log.lines)))
        return set(held) <= set(told)  # and perhaps others, which were not yet held

    wait_until(all_told, lambda: f"{told} of {held}")
    app.gate.open()
    wait_until(lambda: len(seen) >= len(held), lambda: f"{seen} of {held}")
    assert [client.read_response().status for client in clients].count(503) >= len(held)
    assert server.ask().status == 200


@two_loops
def test_all_access_log_lines_are_written(serve, tmp_path):
    log = tmp_path / "access.log"
    server = serve(target_of, loops=2, access_logfile=str(log), access_logformat="%(U)s", validate=False)

    def ask(number):
        with server.connect() as client:
            for i in range(200):
                assert client.ask(f"/{number}-{i}").status == 200

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.stop()
    lines = log.read_text().split()
    assert sorted(lines) == sorted(f"/{number}-{i}" for number in range(10) for i in range(200))
    # Of each connection they are in order, whichever loop has it.
    assert [line for line in lines if line.startswith("/7-")] == [f"/7-{i}" for i in range(200)]


@two_loops
def test_a_stop_lets_requests_of_all_loops_finish(serve, clients):
    app = Held()
    server = serve(app, loops=2)
    hold_in_each_loop(server, app, clients)
    stopping = threading.Thread(target=server.server.shutdown)
    stopping.start()
    time.sleep(0.1)
    assert stopping.is_alive()
    app.gate.open()
    for client in clients:
        response = client.read_response()
        assert response.status == 200
        assert response.closes
    stopping.join(PATIENCE)
    assert not stopping.is_alive()


@two_loops
def test_the_end_of_the_grace_cuts_all_loops(serve, clients):
    app = Held()
    server = serve(app, loops=2, graceful_timeout=0.2, validate=False)
    server.log.allow("the grace is over")
    server.log.allow("refused with 503")
    hold_in_each_loop(server, app, clients)
    begun = time.monotonic()
    stopping = threading.Thread(target=server.server.shutdown)
    stopping.start()
    for client in clients:
        assert client.read_response().status == 503
    assert time.monotonic() - begun < PATIENCE
    app.gate.open()
    stopping.join(PATIENCE)


@two_loops
def test_one_that_is_full_leaves_connections_to_the_other(serve, clients):
    """All threads of a loop are in the application, and requests wait there: new ones go to the other."""
    app = Held()
    server = serve(app, loops=2, validate=False)
    while not server.count("waiting"):
        clients.append(server.connect())
        clients[-1].send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.01)
        assert len(clients) < 10
    full = {loop for loop, count in collections.Counter(map(loop_of, app.threads)).items() if count == 2}
    if len(full) == 1:
        assert loop_of(server.ask("/quick").text) not in full
    app.gate.open()
    for client in clients:
        client.read_response()


@two_loops
@pytest.mark.parametrize(("threads", "loops"), [(3, 2), (5, 3), (4, 4)])
def test_threads_that_cannot_be_parted_evenly(serve, clients, threads, loops):
    names = set()

    def application(environ, start_response):
        names.add(threading.current_thread().name)
        start_response("200 OK", [TEXT])
        time.sleep(0.005)
        return [b"done"]

    server = serve(application, threads=threads, loops=loops)
    clients += [server.connect() for _ in range(10 * loops)]
    deadline = time.monotonic() + PATIENCE
    while len(names) < threads and time.monotonic() < deadline:
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        for client in clients:
            assert client.read_response().text == "done"
    assert len(names) == threads


@two_loops
@pytest.mark.parametrize("number", range(3))
def test_descriptors_and_threads_are_given_back(serve, number):
    """What `serve` looks at, for servers that have served and for one that has not begun."""
    server = serve(target_of, loops=3)
    assert server.ask("/x").text == "/x"
    fastwsgi.make_server("127.0.0.1", 0, target_of, threads=4, loops=4).server_close()


def test_more_loops_than_threads():
    with pytest.raises(ConfigError, match="loops is 5 and threads 4: each loop needs a thread"):
        Settings(threads=4, loops=5)


def test_loops_with_greenlets():
    with pytest.raises(ConfigError, match="loops is 2: greenlets are all in one thread"):
        Settings(loops=2, gevent=True)


@two_loops
def test_worker_connections_are_those_of_all_loops(serve, clients):
    """Whoever has as many as it may closes those that are idle for new ones."""
    server = serve(target_of, loops=2, worker_connections=20)
    for _ in range(60):
        clients.append(server.connect())
        assert clients[-1].ask().status == 200
    wait_until(lambda: server.count("connections") <= 20, server.server.counters)
