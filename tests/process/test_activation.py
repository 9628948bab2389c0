"""Sockets that whoever starts the server has opened."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from process.family import expect_nobody_left, family_of, standing_still, stop, wait_for_workers, workers_of
from process.load import load
from subprocesses import PYTHONPATH, Process
from support import Client, request, wait_until

ACTIVATE = str(Path(__file__).with_name("activate.py"))
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
WAYS = pytest.mark.parametrize(
    "options",
    [(), ("--preload",), ("--reuse-port",), ("--poller", "poll")],
    ids=["", "preload", "reuse-port", "poll"],
)
FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])


@pytest.fixture
def start_activated(tmp_path):
    """start_activated([ADDRESS, ...], *arguments): the server, handed sockets at these addresses.

    An address may be a socket of the test's as well.
    """
    processes = []

    def start(addresses, *arguments, workers=1, **environment):
        fds = [address.fileno() for address in addresses if isinstance(address, socket.socket)]
        names = [one if isinstance(one, str) else f"fd:{one.fileno()}" for one in addresses]
        wrapper = (sys.executable, ACTIVATE, *names, "--")
        arguments = ("--workers", str(workers), *arguments)
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        processes.append(Process(arguments, tmp_path, environment, wrapper=wrapper, pass_fds=fds))
        processes[-1].wait_started()
        return processes[-1]

    yield start
    for process in processes:
        process.clean_up()


def test_a_descriptor_to_listen_at(start_activated, short_path):
    path = f"{short_path}/socket"
    server = start_activated(["0", path], "--bind", "fd://3", "--bind", "fd://4", "apps:hello")
    for address in (server.address, path):
        with Client(address) as client:
            assert client.ask().text == "hello"
    server.stop()
    assert os.path.exists(path), "whoever made it may use it again"


def test_descriptors_beside_addresses(start_activated):
    server = start_activated(["0"], "--bind", "127.0.0.1:0", "--bind", "fd://3", "apps:hello")
    assert len(server.ports) == 2
    for port in server.ports:
        with Client(("127.0.0.1", port)) as client:
            assert client.ask().text == "hello"
    server.stop()


def test_a_descriptor_that_is_not_there(start):
    server = start("--bind", "fd://77", "apps:hello", started=False)
    assert server.wait() == 1
    assert server.stderr == (
        "fastwsgi: cannot listen at fd://77: nothing is open there; "
        "whoever starts the server opens it (systemd: ListenStream=, and Accept=no)\n"
    )


ANSWER = """
import json, os
from fastwsgi.listener import open_listeners
from fastwsgi.systemd import handed_over
given = handed_over(os.environ, os.getpid())
(listener,) = open_listeners(list(given), 16)
listener.socket.setblocking(True)
if os.fork() == 0:
    assert handed_over(os.environ, os.getpid()) == {}, "this is for the parent"
    os._exit(0)
assert os.wait()[1] == 0
connection, _ = listener.socket.accept()
connection.send(json.dumps([given, listener.url, os.get_inheritable(3)]).encode())
"""


def connect(path):
    try:
        return Client(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return None


def test_sockets_handed_over_to_this_process_alone(short_path):
    path = f"{short_path}/socket"
    command = [sys.executable, ACTIVATE, path, "--", sys.executable, "-c", ANSWER]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": PYTHONPATH}) as process:
        with wait_until(lambda: connect(path), "a socket that listens") as client:
            answer = json.loads(client.socket.recv(4096))
        assert answer == [{"fd://3": "socket-0"}, f"unix:{path}", False]
        assert process.wait(10) == 0


# The whole server


@pytest.fixture
def borrowed(family, short_path):
    """A socket that listens, for one server after the other."""
    with socket.socket(family) as sock:
        sock.bind(f"{short_path}/socket" if family == socket.AF_UNIX else ("127.0.0.1", 0))
        sock.listen(128)
        yield sock


def listens(sock):
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


def variables_of(pid):
    """The environment that a process was started with."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().rstrip("\0").split("\0")
    return dict(pair.split("=", 1) for pair in pairs)


def test_what_is_handed_over_is_served_in_place_of_bind(start_activated, short_path):
    path = f"{short_path}/socket"
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        server = start_activated(["0", path, "0"], "--bind", taken, "apps:hello", workers=2)
        assert len(server.ports) == 2
        for address in (*(("127.0.0.1", port) for port in server.ports), path):
            with Client(address) as client:
                assert client.ask().text == "hello"
        stop(server)
    assert os.path.exists(path)


@FAMILIES
@WAYS
def test_a_borrowed_socket_goes_from_one_server_to_the_next(start_activated, borrowed, options):
    server = start_activated([borrowed], *options, "apps:hello", workers=2)
    with Client(borrowed.getsockname()) as client:
        assert client.ask().text == "hello"
        server.terminate()
        client.expect_end()
    assert server.wait() == 0, server.stderr
    assert listens(borrowed)
    # Nobody serves it, and yet the kernel answers at once: no filter was left there.
    waiting = [Client(borrowed.getsockname(), timeout=0.9) for _ in range(5)]
    for client in waiting:
        client.send(request())
    server = start_activated([borrowed], *options, "apps:hello", workers=2)
    for client in waiting:
        client.socket.settimeout(10)
        assert client.read_response().text == "hello"
        client.close()
    stop(server)


@FAMILIES
def test_a_start_on_the_same_socket_after_another_under_load_fails_nobody(start_activated, borrowed, site):
    server = start_activated([borrowed], "site_app:application", workers=2)
    with load(borrowed.getsockname(), seconds=120) as running:
        for generation in ("2", "3"):
            running.wait_answers()
            site.write(generation)
            stop(server)
            server = start_activated([borrowed], "site_app:application", workers=2)
            running.wait_generation(generation)
    running.report.check()
    stop(server)


@FAMILIES
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL], ids=lambda one: one.name)
def test_however_it_ends_a_borrowed_socket_goes_on(start_activated, borrowed, number):
    server = start_activated([borrowed], "apps:hello", workers=2)
    server.signal(number)
    assert server.wait() == (-9 if number == signal.SIGKILL else 0), server.stderr
    expect_nobody_left(server)
    assert listens(borrowed)
    with Client(borrowed.getsockname(), timeout=0.9):
        pass


@FAMILIES
@WAYS
def test_a_borrowed_socket_stays_over_reloads_and_upgrades(start_activated, borrowed, site, options):
    server = start_activated([borrowed], *options, "site_app:application", workers=2)
    with load(borrowed.getsockname(), seconds=120) as running:
        running.wait_answers()
        before = os.readlink(f"/proc/{server.pid}/fd/3")
        for generation, number in (("2", signal.SIGHUP), ("3", signal.SIGUSR2), ("4", signal.SIGHUP)):
            site.write(generation)
            server.signal(number)
            running.wait_generation(generation)
            assert os.readlink(f"/proc/{server.pid}/fd/3") == before
    running.report.check()
    stop(server)
    assert listens(borrowed)


def test_own_sockets_are_drained_and_borrowed_ones_left(start_activated, short_path):
    own = f"{short_path}/own"
    with socket.create_server(("127.0.0.1", 0)) as borrowed:
        addresses = ("--bind", "127.0.0.1:0", "--bind", f"unix:{own}", "--bind", "fd://3")
        server = start_activated([borrowed], *addresses, "apps:hello", workers=2)
        [port] = {*server.ports} - {borrowed.getsockname()[1]}
        theirs, ours = Client(borrowed.getsockname()), [Client(("127.0.0.1", port)), Client(own)]
        with contextlib.ExitStack() as closing:
            for client in (theirs, *ours):
                closing.enter_context(client)
                assert client.ask().text == "hello"
            with standing_still(family_of(server).keys() - {server.pid}):
                waiting = [Client(borrowed.getsockname()), Client(("127.0.0.1", port)), Client(own)]
                for client in waiting:
                    closing.enter_context(client)
                    client.send(request())
                server.terminate()
            for client in waiting[1:]:
                assert client.read_response().text == "hello"
                client.expect_end()
            assert server.wait() == 0, server.stderr
            assert listens(borrowed)
            for address in (("127.0.0.1", port), own):
                with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
                    Client(address)
            server = start_activated([borrowed], "apps:hello", workers=2)
            # The first server may have accepted it before it saw the signal.
            assert waiting[0].read_response().text == "hello"
        stop(server)


def test_with_reuse_port_a_shared_socket_outlives_the_worker_that_leaves(start_site, site, short_path):
    """A unix socket has one queue, whatever the TCP listeners beside it have."""
    path = f"{short_path}/socket"
    server = start_site("--reuse-port", "--bind", f"unix:{path}", "--bind", "127.0.0.1:0")
    with load(path) as unix, load(server.address) as tcp:
        for generation in "23":
            site.write(generation)
            server.signal(signal.SIGHUP)
            for running in (unix, tcp):
                running.wait_generation(generation)
    for running in (unix, tcp):
        running.report.check()
    stop(server)


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_its_variables_are_kept_from_the_application_and_by_the_supervisor(
    start_activated, options, short_path
):
    given = {"NOTIFY_SOCKET": f"{short_path}/nobody", "WATCHDOG_USEC": "60000000"}
    server = start_activated(["0"], *options, "apps:variables", OTHER="1", **given)

    def check():
        told = json.loads(server.ask().content)
        assert told["OTHER"] == "1"
        assert not told.keys() & set(VARIABLES)
        assert variables_of(server.pid).keys() & set(VARIABLES) == set(VARIABLES) - {"WATCHDOG_PID"}

    check()
    before = wait_for_workers(server, 1 + bool(options))
    server.signal(signal.SIGUSR2)
    wait_until(lambda: not before & workers_of(server), lambda: f"other workers: {server.stderr}")
    wait_for_workers(server, 1 + bool(options))
    check()
    stop(server)


def test_it_is_served_without_a_supervisor_too(start_activated, short_path):
    path = f"{short_path}/socket"
    given = {"NOTIFY_SOCKET": f"{short_path}/nobody", "WATCHDOG_USEC": "60000000"}
    server = start_activated(["0", path], "--bind", "127.0.0.1:1", "apps:variables", workers=0, **given)
    for address in (server.address, path):
        with Client(address) as client:
            assert not json.loads(client.ask().content).keys() & set(VARIABLES)
    server.stop()
    assert os.path.exists(path)


RUN = """
import fastwsgi
from apps import hello
fastwsgi.run(hello, bind="127.0.0.1:1")
"""


def test_a_program_serves_what_is_handed_to_it(short_path):
    path = f"{short_path}/socket"
    command = [sys.executable, ACTIVATE, path, "--", sys.executable, "-c", RUN]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": PYTHONPATH}) as process:
        try:
            with wait_until(lambda: connect(path), "a socket that listens") as client:
                assert client.ask().text == "hello"
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()
