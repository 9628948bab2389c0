"""Fixtures of the tests that speak to a running server."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

POLLERS = ["epoll", "poll"] if sys.platform == "linux" else ["poll"]
CREWS = [(poller, threads) for poller in POLLERS for threads in (1, 4)]

# Servers in this process have so many loops, as far as they have threads; 0: as many as they would.
LOOPS = int(os.environ.get("LOOPS", "0"))

# This process is one of greenlets, as `make test-gevent` starts it: servers have them, and so do the tests.
GREENLETS = "gevent.monkey" in sys.modules and sys.modules["gevent.monkey"].is_module_patched("threading")
if GREENLETS:
    import gevent

    POLLERS = ["epoll"]
    CREWS = [("epoll", 4)]
    gevent.config.resolver = "block"  # or threads that look up addresses would be left for seconds
    gevent.sleep(0.001)  # what the hub has open is there before the first test


def crew_id(crew):
    return f"{crew[0]}-{crew[1]}" + GREENLETS * "g"


def with_threads(threads):
    """A mark: `serve` has this number of threads, on each poller."""
    crews = [(poller, threads) for poller in POLLERS]
    return pytest.mark.parametrize("serve", crews, ids=crew_id, indirect=True)


# A mark for what depends neither on the poller nor on the number of threads.
on_one_crew = pytest.mark.parametrize("serve", CREWS[:2][-1:], ids=crew_id, indirect=True)


# A mark for what holds of each loop alone: how many run at a time, what is said once, what comes first.
one_loop = pytest.mark.one_loop


# A mark for what real threads alone do, or what another one does while the application holds the only one.
of_threads = pytest.mark.skipif(GREENLETS, reason="of real threads")


def pytest_configure(config):
    # An iterable that was never closed shows itself only in __del__: wsgiref.validate asserts there.
    config.addinivalue_line("filterwarnings", "error::pytest.PytestUnraisableExceptionWarning")
    config.addinivalue_line("filterwarnings", "error::pytest.PytestUnhandledThreadExceptionWarning")
    config.addinivalue_line("markers", "one_loop: the server of this test has one loop")


@pytest.fixture
def short_path():
    """A new directory with a path short enough for a unix socket (108 bytes in all)."""
    with tempfile.TemporaryDirectory(prefix="fw-") as directory:
        yield Path(directory)


@pytest.fixture(params=CREWS, ids=crew_id)
def serve(request):
    """serve(app, **options): start a server for app; the test runs for each poller and number of threads.

    The application wears wsgiref.validate unless validate=False. After the test the server is stopped, and
    nothing may be left: no connection, exchange, thread or descriptor, and no log line that the test did not
    expect with server.log.expect().
    """
    from support import Server

    yield from serving(request, Server, *request.param)


def serving(request, kind, poller, threads):
    """What `serve` is, with servers of a kind."""
    from fastwsgi import config
    from support import PATIENCE, resources, wait_left_nothing

    before = resources()
    servers = []
    loops = 1 if request.node.get_closest_marker("one_loop") else LOOPS

    def start(app, **options):
        options = {
            "poller": poller,
            "threads": threads,
            "graceful_timeout": 5,
            "log_slow": PATIENCE / 2,
            **options,
        }
        if GREENLETS:
            options["gevent"] = True
            config.GREENLETS = options["threads"]
        elif loops:
            options.setdefault("loops", min(loops, options["threads"]))
        servers.append(kind(app, **options))
        return servers[-1]

    start.threads = threads
    yield start
    try:
        for server in reversed(servers):
            server.stop()
    finally:
        wait_left_nothing(before)


@pytest.fixture
def collector():
    """Where Sentry's agent reports to."""
    from collector import Collector

    with Collector() as collector:
        yield collector


@pytest.fixture
def start(tmp_path):
    """start("--threads", "1", "apps:hello"): run it, wait until it listens, return the Process.

    It listens at a free port of 127.0.0.1 unless --bind is given, and has one worker unless --workers is or
    `alone` is False. With started=False nothing is waited for.
    """
    from subprocesses import Process

    processes = []

    def start(*arguments, started=True, alone=True, interpreter=sys.executable, **environment):
        if started and not {"--bind", "-b"} & set(arguments):
            arguments = ("--bind", "127.0.0.1:0", *arguments)
        if started and alone and not {"--workers", "-w"} & set(arguments):
            arguments = ("--workers", "1", *arguments)
        process = Process(arguments, tmp_path, environment, interpreter)
        processes.append(process)
        if started:
            process.wait_started()
        return process

    yield start
    for process in processes:
        process.clean_up()
