"""Messages to a service manager over a real socket, and what its variables say."""

import os
import socket
import sys
import time

import pytest

from fastwsgi.config import Settings
from fastwsgi.errors import ConfigError
from fastwsgi.systemd import Manager, handed_over, watchdog_interval
from fastwsgi.worker import with_activated


@pytest.fixture(params=["path", "abstract"])
def manager_socket(request, short_path):
    """A socket that a service manager would have, and the value of NOTIFY_SOCKET for it."""
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("abstract names are of Linux")
    name = f"{short_path}/notify" if request.param == "path" else f"@fastwsgi-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0", 1))
        sock.settimeout(5)
        yield sock, name


def test_messages(manager_socket):
    sock, name = manager_socket
    manager = Manager.of({"NOTIFY_SOCKET": name})
    for tell, message in [
        (manager.ready, b"READY=1"),
        (manager.stopping, b"STOPPING=1"),
        (manager.alive, b"WATCHDOG=1"),
    ]:
        assert tell()
        assert sock.recv(4096) == message


def test_a_reload_has_its_time_in_the_same_message(manager_socket):
    sock, name = manager_socket
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert Manager(name).reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    first, second = sock.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= after


@pytest.mark.parametrize(
    "address", [None, "", "/no/such/socket", "@fastwsgi-nobody", "/" + "x" * 200, "/a\0b"]
)
def test_nobody_to_tell(address):
    assert not Manager(address).ready()


def test_a_manager_that_does_not_read_holds_nobody_up(manager_socket):
    _, name = manager_socket
    manager = Manager(name)
    begun = time.monotonic()
    assert manager.alive()
    while manager.alive():
        assert time.monotonic() - begun < 5
    assert time.monotonic() - begun < 5


def test_no_variable():
    assert not Manager.of({}).ready()


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15),
        ({"WATCHDOG_USEC": "30000000"}, 15),
        ({"WATCHDOG_USEC": "1", "WATCHDOG_PID": "7"}, 0.0000005),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0", "WATCHDOG_PID": "7"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
        ({"WATCHDOG_USEC": "9" * 30}, None),
        ({}, None),
    ],
)
def test_watchdog(environ, interval):
    assert watchdog_interval(environ, 7) == interval


@pytest.mark.parametrize(
    ("environ", "sockets"),
    [
        ({"LISTEN_PID": "7", "LISTEN_FDS": "1"}, {"fd://3": ""}),
        (
            {"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "web.socket:admin"},
            {"fd://3": "web.socket", "fd://4": "admin"},
        ),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a"}, {"fd://3": "a", "fd://4": ""}),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b"}, {"fd://3": "a"}),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "0"}, {}),
        ({"LISTEN_PID": "8", "LISTEN_FDS": "1"}, {}),
        ({"LISTEN_FDS": "1"}, {}),
        ({"LISTEN_PID": "7"}, {}),
        ({}, {}),
    ],
)
def test_sockets_handed_over(environ, sockets):
    assert handed_over(environ, 7) == sockets


@pytest.mark.parametrize("count", ["x", "-1", "", "1001", "9" * 5000])
def test_no_number_of_sockets(count):
    with pytest.raises(ConfigError, match="this is not a number of sockets"):
        handed_over({"LISTEN_PID": "7", "LISTEN_FDS": count}, 7)


def test_names_of_sockets_that_say_what_is_spoken(monkeypatch):
    for name, value in (("PID", str(os.getpid())), ("FDS", "3"), ("FDNAMES", "http:web.socket:https")):
        monkeypatch.setenv(f"LISTEN_{name}", value)
    settings = with_activated(Settings(certfile="x.pem"))
    assert settings.bind == ("http://fd://3", "fd://4", "https://fd://5")
    assert with_activated(settings) is settings
