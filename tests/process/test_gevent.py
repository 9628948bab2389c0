"""Servers with --gevent, and applications that wait."""

import contextlib
import resource
import select
import selectors
import signal
import socket
import sys
import threading
import time

import pytest

from process.operators import stats_of
from secure import certificate, trusting
from subprocesses import PYTHONPATH
from support import PATIENCE, request, wait_until

pytest.importorskip("gevent")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="--gevent watches epoll")


@pytest.fixture
def green(start):
    """green(*arguments): start a server with --gevent."""
    return lambda *arguments, **options: start("--gevent", *arguments, **options)


def side_by_side(server, targets):
    """The answers to requests that are all sent before the first is read; each has a connection."""
    clients = [server.connect() for _ in targets]
    for client, target in zip(clients, targets):
        client.send(request(target))
    answers = [client.read_response() for client in clients]
    for client in clients:
        client.close()
    assert {answer.status for answer in answers} == {200}
    return [answer.text for answer in answers]


def test_hello_from_a_process_that_was_patched_before_the_import(green):
    server = green("green_apps:hello")
    assert server.ask().text == "hello True"
    assert "1 worker of 1000 greenlets" in server.stderr
    server.stop()


@pytest.mark.parametrize("options", [("--preload",), ("--workers", "0")], ids=["preload", "alone"])
def test_other_ways_to_start(green, options):
    server = green(*options, "green_apps:hello")
    for _ in range(2):
        assert server.ask().text == "hello True"
    server.stop()


@pytest.fixture
def many_files():
    """As many descriptors for this process, too, as its servers have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 3000:
        pytest.skip("not enough open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 3000), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def exchanges_at_once(address, target, count):
    """Ask so many times at once, each over a connection of its own; how many answers begin with what."""
    watched = selectors.DefaultSelector()
    found: dict[bytes, int] = {}
    with contextlib.ExitStack() as closing:
        for _ in range(count):
            client = closing.enter_context(socket.create_connection(address, PATIENCE))
            watched.register(client, selectors.EVENT_READ)
        for key in list(watched.get_map().values()):
            key.fileobj.sendall(request(target))
        while watched.get_map():
            ready = watched.select(PATIENCE)
            assert ready, f"answers: {found}"
            for key, _ in ready:
                status = key.fileobj.recv(4096)[:15]
                found[status] = found.get(status, 0) + 1
                watched.unregister(key.fileobj)
        watched.close()
    return found


def test_2000_exchanges_that_sleep_at_once(green, many_files):
    server = green("--worker-connections", "2000", "green_apps:sleeping")
    assert server.ask().text == "slept"
    wait_until(lambda: stats_of(server)["workers"][0]["connections"] == 0, "room for all")
    began = time.monotonic()
    assert exchanges_at_once(server.address, "/", 2000) == {b"HTTP/1.1 200 OK": 2000}
    # One after the other they would take 200 s.
    assert time.monotonic() - began < 2 * PATIENCE
    server.stop()
    assert "WARNING" not in server.stderr


def test_more_than_there_are_greenlets_wait(green, many_files):
    server = green("green_apps:sleeping")
    assert exchanges_at_once(server.address, "/", 1200) == {b"HTTP/1.1 200 OK": 1200}
    server.stop()
    assert "WARNING" not in server.stderr


@pytest.mark.parametrize("framework", ["flask", "django"])
def test_frameworks(green, framework):
    pytest.importorskip(framework)
    server = green(f"green_apps:{framework}_app()")
    texts = side_by_side(server, [f"/name{number}?number={number}" for number in range(30)])
    assert texts == [f"name{number} {number}" for number in range(30)]
    server.stop()


def test_each_greenlet_has_locals_of_its_own(green):
    server = green("green_apps:who")
    found = [text.split() for text in side_by_side(server, ["/"] * 20)]
    assert {tuple(words[::2]) for words in found} == {("True", "True")}
    assert {words[1] for words in found} == {f"fastwsgi-{number}" for number in range(1, 21)}
    server.stop()


def test_a_driver_that_waits_by_a_function(green):
    """As psycogreen has psycopg2 do, 200 times at once."""
    server = green("green_apps:through_a_driver")
    rows = [f"/{number}" for number in range(200)]
    assert side_by_side(server, [f"{row}?200" for row in rows]) == rows
    server.stop()


def test_a_request_within_a_request(green):
    server = green("green_apps:calling_itself")
    assert side_by_side(server, ["/"] * 5) == ["inner"] * 5
    server.stop()


def test_a_slow_reader_stops_nobody(green):
    server = green("--response-buffer", "64k", "--response-spool", "0", "green_apps:streaming")
    slow = server.connect(receive_buffer=4096)
    slow.send(request())
    assert slow.read_head().status == 200
    assert len(server.ask().content) == 40 * 500_000
    slow.reset()
    server.stop()


def test_an_application_that_forks(green):
    server = green("green_apps:forking")
    for _ in range(2):
        assert server.ask().text == "0"
    server.stop()


def test_reload_and_stop_under_load(green):
    server = green("green_apps:sleeping")
    has_ended = threading.Event()
    failed = []

    def load():
        try:
            while not has_ended.is_set():
                assert server.ask().text == "slept"
        except Exception as error:
            failed.append(error)

    loads = [threading.Thread(target=load) for _ in range(8)]
    for one in loads:
        one.start()
    server.signal(signal.SIGHUP)
    server.wait_said("Reloaded")
    has_ended.set()
    for one in loads:
        one.join()
    assert not failed
    # What runs is finished at the stop.
    client = server.connect()
    client.send(request())
    assert not select.select([client.socket], [], [], 0.02)[0]
    server.terminate()
    assert client.read_response().text == "slept"
    assert server.wait() == 0


def test_one_that_lets_nobody_else_run_is_the_watchdogs(green):
    server = green("--worker-timeout", "1", "green_apps:computing")
    client = server.connect()
    client.send(request())
    client.expect_gone()
    server.wait_said("has not been heard of for 1 s (--worker-timeout)")
    assert server.ask("/there").text == "here"
    server.stop()


def test_over_tls(green):
    certfile, keyfile = certificate()
    server = green("--certfile", str(certfile), "--keyfile", str(keyfile), "green_apps:sleeping")
    with server.connect(tls=trusting()) as client:
        assert client.ask().text == "slept"
        assert client.ask().text == "slept"
    server.stop()


def test_where_gevent_is_missing_one_line_says_what_to_install(start, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['gevent'] = None\n")
    server = start("--gevent", "apps:hello", started=False, PYTHONPATH=f"{tmp_path}:{PYTHONPATH}")
    assert server.wait() == 1
    [line] = server.lines
    assert line == "fastwsgi: --gevent: gevent is not installed: pip install 'fastwsgi[gevent]'"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--poller", "poll"), "gevent: its hub watches epoll"),
        (("--leak-report",), "leak_report: not with gevent"),
    ],
)
def test_what_does_not_go_with_it(start, options, words):
    server = start("--gevent", *options, "apps:hello", started=False)
    assert server.wait() == 1
    [line] = server.lines
    assert words in line


def test_threads_are_ignored(green):
    server = green("--threads", "8", "green_apps:hello")
    assert server.ask().text == "hello True"
    server.stop()
    assert server.stderr.count("threads is ignored") == 1
