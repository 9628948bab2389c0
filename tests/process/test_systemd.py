"""What a service manager hears from the whole server: Type=notify, notify-reload and the watchdog."""

import os
import select
import signal
import socket
import struct
import time

import psutil
import pytest

from process.family import expect_nobody_left, stop, wait_for_workers, workers_of
from support import PATIENCE, request, wait_until

pytestmark = pytest.mark.skipif(not hasattr(socket, "SO_PASSCRED"), reason="systemd is of Linux")

CREDENTIALS = struct.Struct("3i")


class Manager:
    """The socket of a service manager, and what it was told: message, and number of the process."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(path)

    def hears(self, seconds=PATIENCE):
        """The next message, or None when nothing comes for so long."""
        if not select.select([self.socket], [], [], seconds)[0]:
            return None
        message, ancillary, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(CREDENTIALS.size))
        self.sender = CREDENTIALS.unpack(ancillary[0][2])[0]
        return message.decode()

    def expect(self, server, *expected):
        """These messages come now, from the process that the manager has started: it heeds no other."""
        for words in expected:
            message = self.hears(3 * PATIENCE)
            assert message is not None, f"{words}: {server.stderr}"
            assert message.split("\n")[0] == words
            assert self.sender == server.pid
        return message

    def expect_a_reload(self, server, since):
        """One that was asked for then."""
        _, when = self.expect(server, "RELOADING=1").split("\n")
        assert since <= int(when.removeprefix("MONOTONIC_USEC=")) <= monotonic_usec()
        self.expect(server, "READY=1")


def monotonic_usec():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@pytest.fixture
def manager(short_path):
    manager = Manager(f"{short_path}/notify")
    yield manager
    manager.socket.close()


@pytest.fixture
def start_notifying(start_site, manager):
    return lambda *options, **others: start_site(*options, NOTIFY_SOCKET=manager.path, **others)


WAYS = pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])


@WAYS
def test_it_is_ready_when_a_worker_serves_and_not_before(start_notifying, site, manager, options):
    site.write("1", "import os, time\nwhile not os.path.exists('go-on'):\n    time.sleep(0.01)")
    server = start_notifying("--bind", "127.0.0.1:0", *options, started=False)
    assert manager.hears(1) is None
    server.go_on("go-on")
    manager.expect(server, "READY=1")
    server.wait_started()
    assert server.ask("/7").status == 200
    stop(server)
    manager.expect(server, "STOPPING=1")
    assert manager.hears(0) is None


def wait_for_code(server, generation):
    """Those that have just been told to leave may take one connection more."""
    wait_until(lambda: server.ask("/7")["Generation"] == generation, f"answers of generation {generation}")


@WAYS
def test_reloads(start_notifying, site, manager, options):
    server = start_notifying(*options)
    manager.expect(server, "READY=1")
    for generation in "23":
        before = workers_of(server)
        since = monotonic_usec()
        site.write(generation)
        server.signal(signal.SIGHUP)
        manager.expect_a_reload(server, since)
        # It is over when the last of the new ones has come. The old ones have been told to leave. A worker of
        # --preload is a grandchild for as long as the process between takes to end.
        now = {child.pid for child in psutil.Process(server.pid).children(recursive=True)}
        assert len(now - before) >= 2 + bool(options)
        wait_for_code(server, generation)
    stop(server)


@WAYS
def test_a_reload_that_fails_is_over_as_well(start_notifying, site, manager, options):
    server = start_notifying(*options)
    manager.expect(server, "READY=1")
    for before in ("raise ZeroDivisionError", "import os; os._exit(9)"):
        since = monotonic_usec()
        site.write("2", before)
        server.signal(signal.SIGHUP)
        manager.expect_a_reload(server, since)
        assert server.ask("/7")["Generation"] == "1"
    (server.directory / "fastwsgi.toml").write_text("threads = 'many'")
    since = monotonic_usec()
    server.signal(signal.SIGHUP)
    manager.expect_a_reload(server, since)
    stop(server)


def test_a_start_that_fails_is_never_ready(start_notifying, site, manager):
    site.write("1", "raise ZeroDivisionError")
    server = start_notifying("--bind", "127.0.0.1:0", started=False)
    assert server.wait() == 4
    manager.expect(server, "STOPPING=1")
    assert manager.hears(0) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda one: one.name)
def test_it_says_that_it_stops_before_it_does(start_notifying, manager, number):
    server = start_notifying()
    manager.expect(server, "READY=1")
    with server.connect() as client:
        client.send(request("/hold/it"))
        server.waits("it")
        server.signal(number)
        manager.expect(server, "STOPPING=1")
        if number != signal.SIGQUIT:
            assert server.is_running()
            server.go_on("it")
            assert client.read_response().status == 200
    assert server.wait() == 0
    expect_nobody_left(server)


def test_it_stops_from_the_beginning_of_the_delay(start_notifying, manager):
    server = start_notifying("--shutdown-delay", "1s")
    manager.expect(server, "READY=1")
    server.terminate()
    manager.expect(server, "STOPPING=1")
    assert server.ask("/7").status == 200
    assert server.wait() == 0


def beats(manager, seconds):
    """When the manager has heard that the server lives, from now on for so long."""
    times, end = [], time.monotonic() + seconds
    while (rest := end - time.monotonic()) > 0:
        message = manager.hears(rest)
        if message == "WATCHDOG=1":
            times.append(time.monotonic())
    return times


def test_the_watchdog_hears_twice_in_its_time_as_long_as_the_supervisor_runs(start_notifying, manager):
    server = start_notifying(WATCHDOG_USEC="1000000")
    wait_until(lambda: manager.hears() == "READY=1", "the start")
    times = beats(manager, 3)
    assert 5 <= len(times) <= 7
    # Whatever its workers do: those it watches itself.
    for worker in workers_of(server):
        os.kill(worker, signal.SIGSTOP)
    assert 2 <= len(beats(manager, 1.5)) <= 4
    server.signal(signal.SIGSTOP)
    beats(manager, 0.2)
    assert beats(manager, 1.5) == []
    server.signal(signal.SIGCONT)
    for worker in workers_of(server):
        os.kill(worker, signal.SIGCONT)
    assert beats(manager, 1)
    stop(server)


def test_a_watchdog_of_another_process_is_none_of_its_business(start_notifying, manager):
    server = start_notifying(WATCHDOG_USEC="200000", WATCHDOG_PID="1")
    manager.expect(server, "READY=1")
    assert manager.hears(0.5) is None
    stop(server)


def test_the_manager_hears_from_an_upgraded_server_as_before(start_notifying, site, manager):
    server = start_notifying(WATCHDOG_USEC="1000000")
    wait_until(lambda: manager.hears() == "READY=1", "the start")
    before = workers_of(server)
    site.write("2")
    server.signal(signal.SIGUSR2)
    wait_until(lambda: manager.hears() == "READY=1", "the end of the upgrade", 3 * PATIENCE)
    assert manager.sender == server.pid
    assert len(workers_of(server) - before) == 2
    wait_for_code(server, "2")
    assert beats(manager, 1)
    stop(server)
    wait_until(lambda: manager.hears() == "STOPPING=1", "the end")


def test_nobody_to_tell_is_no_trouble(start_site, short_path):
    server = start_site(NOTIFY_SOCKET=f"{short_path}/nobody", WATCHDOG_USEC="100000")
    before = wait_for_workers(server, 2)
    server.signal(signal.SIGHUP)
    wait_until(lambda: not before & workers_of(server), "other workers")
    stop(server)
