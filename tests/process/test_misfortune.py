"""What goes wrong around a supervisor: signals in any order, nothing to be had, time that stands still."""

import contextlib
import os
import random
import resource
import shutil
import signal
import sys
import time

import psutil
import pytest

from process.family import (
    WAYS,
    expect_nobody_left,
    family_of,
    limited,
    standing_still,
    stop,
    wait_for_workers,
    workers_of,
)
from process.load import load
from support import PATIENCE, wait_until

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and prlimit")

HANGS_IN_C = "import ctypes; ctypes.PyDLL(None).sleep(100)"
IS_SLOW = "import time; time.sleep(1)"


# Signals


@WAYS
def test_signals_in_any_order(start_site, options):
    server = start_site("--graceful-timeout", "5s", *options)
    ours = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH]
    ours += [getattr(signal, name) for name in ("SIGPWR", "SIGINFO") if hasattr(signal, name)]
    dice = random.Random(0)
    for _ in range(50):
        server.signal(dice.choice(ours))
        time.sleep(dice.choice((0, 0, 0.02, 0.1)))
    server.signal(signal.SIGHUP)
    with load(server.address, seconds=120) as running:
        running.wait_answers()
    running.report.check()
    for number in (signal.SIGUSR2, signal.SIGHUP, signal.SIGTERM):
        server.signal(number)
    assert server.wait() == 0, server.stderr
    assert "Traceback" not in server.stderr
    expect_nobody_left(server)


@WAYS
def test_a_worker_that_starts_is_not_ended_by_what_is_for_those_that_serve(start_site, site, options):
    """A rotation of the logs, for one, comes at any time."""
    server = start_site(*options)
    former = workers_of(server)
    site.write("2", IS_SLOW)
    server.signal(signal.SIGHUP)
    server.wait_said("Reloading")
    for _ in range(5):
        time.sleep(0.1)
        for pid in family_of(server):
            for number in (signal.SIGUSR1, getattr(signal, "SIGPWR", signal.SIGUSR1)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
    server.wait_said("Reloaded in")
    # Until they have left, they answer what the kernel gives them.
    wait_until(lambda: not former & workers_of(server), "the end of the former workers")
    assert server.ask("/7")["Generation"] == "2"
    stop(server)


def test_workers_of_a_loader_write_to_the_rotated_log(start_site, tmp_path):
    server = start_site("--preload", "--access-logfile", str(tmp_path / "access"), workers=1)
    before = wait_for_workers(server, 2)  # one is the loader
    (tmp_path / "access").rename(tmp_path / "access.1")
    server.signal(signal.SIGUSR1)
    wait_until((tmp_path / "access").exists, "the new file")
    server.wait_said("reopened")
    server.signal(signal.SIGTTIN)
    wait_for_workers(server, 3)
    [worker] = workers_of(server) - before
    with load(server.address) as running:
        running.wait_workers(worker)
    running.report.check()
    stop(server)
    assert not (tmp_path / "access.1").read_text()


@WAYS
def test_terminated_while_the_application_hangs_in_its_import(start_site, site, options):
    site.write("1", HANGS_IN_C)
    server = start_site(
        "--bind", "127.0.0.1:0", "--graceful-timeout", "1s", *options, started=False, workers=1
    )
    wait_until(lambda: len(family_of(server)) == 2, "its child")
    time.sleep(0.5)
    server.terminate()
    assert server.wait(4 * PATIENCE) == 0, server.stderr
    expect_nobody_left(server)


def test_an_upgrade_that_is_asked_for_in_a_reload_comes_after_it(start_site, site):
    """And nobody takes it for silence that workers so young have not been heard of yet."""
    server = start_site("--preload")
    with load(server.address) as running:
        running.wait_answers()
        site.write("2", f"{IS_SLOW}; time.sleep(1)")
        server.signal(signal.SIGUSR2)
        server.signal(signal.SIGHUP)
        wait_until(lambda: server.stderr.count("Reloaded in") == 2, lambda: server.stderr, 3 * PATIENCE)
        running.wait_generation("2")
    running.report.check()
    assert server.stderr.index("Reloaded in") < server.stderr.index("becomes the new server")
    stop(server)


# Nothing to be had


@on_linux
@WAYS
def test_without_descriptors_it_goes_on(start_site, site, options):
    server = start_site(*options)
    most = max(map(int, os.listdir(f"/proc/{server.pid}/fd"))) + 1
    with limited(server.pid, resource.RLIMIT_NOFILE, most):
        server.signal(signal.SIGHUP)
        server.wait_said("Not reloaded")
        server.signal(signal.SIGUSR2)
        server.wait_said("Not upgraded")
        os.kill(max(workers_of(server)), signal.SIGKILL)
        server.wait_said("was killed by SIGKILL")
    for pid in family_of(server):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))
    wait_until(lambda: server.ask("/7").status == 200, "an answer")
    site.write("2")
    server.signal(signal.SIGHUP)
    server.wait_said("Reloaded in")
    stop(server)


def test_what_it_started_from_is_gone(start_site, tmp_path):
    """Each version has its own directory, and that of the start was removed."""
    server = start_site()
    shutil.rmtree(tmp_path)
    server.signal(signal.SIGUSR2)
    server.wait_said("Not upgraded")
    server.signal(signal.SIGHUP)
    server.wait_said("Not reloaded")
    assert server.ask("/7").status == 200
    stop(server)


@WAYS
def test_a_start_that_fails_leaves_no_socket_file(start_site, site, tmp_path, options):
    site.write("1", "def")
    server = start_site("--bind", f"unix:{tmp_path}/socket", *options, started=False)
    assert server.wait() == 4, server.stderr
    assert not (tmp_path / "socket").exists()


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])
def test_with_reuse_port_nobody_waits_for_a_worker_that_is_gone(start_site, options, number):
    """Where its socket were open elsewhere, the kernel would queue somebody there."""
    server = start_site("--reuse-port", *options)
    for _ in range(5):
        with load(server.address, habits=("renew",)) as running:
            running.wait_answers(200)
        running.report.check()
        before = workers_of(server)
        ended = min(int(worker) for worker in running.report.workers)
        os.kill(ended, number)
        wait_for_workers(server, len(before), without=[ended])
    stop(server)


@on_linux
def test_rubbish_in_the_pipe_of_words(start_site):
    """An application may write to descriptors that are not its own."""
    server = start_site()
    pipes = {}
    for pid in (server.pid, *workers_of(server)):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                pipes.setdefault(os.readlink(f"/proc/{pid}/fd/{fd}"), {})[pid] = fd
    # The server may have its standard streams under other numbers, too.
    standard = {os.readlink(f"/proc/{server.pid}/fd/{fd}") for fd in range(3)}
    shared = [
        fds
        for name, fds in pipes.items()
        if name.startswith("pipe:") and name not in standard and len(fds) == 3
    ]
    written = 0
    for fds in shared:
        with contextlib.suppress(OSError):
            fd = os.open(f"/proc/{server.pid}/fd/{fds[server.pid]}", os.O_WRONLY | os.O_NONBLOCK)
            written += os.write(fd, b"\nrubbish\nend x y\nloaded\n\xff\xfe 1\nend 1 2 3 4 5\n")
            os.close(fd)
    assert written
    server.signal(signal.SIGTTIN)
    wait_for_workers(server, 3)
    stop(server)


# Time


@on_linux
def test_nobody_is_ended_when_the_supervisor_or_all_stood_still(start_site):
    server = start_site("--worker-timeout", "2s")
    before = wait_for_workers(server, 2)
    for pids in ([server.pid], [server.pid, *before]):
        with standing_still(pids):
            time.sleep(4)
        time.sleep(2)
        assert workers_of(server) == before, server.stderr
    stop(server)


def test_a_worker_that_stands_still_is_replaced(start_site):
    server = start_site("--worker-timeout", "1s")
    before = wait_for_workers(server, 2)
    stopped = min(before)
    psutil.Process(stopped).suspend()
    wait_for_workers(server, 2, without=[stopped], seconds=3 * PATIENCE)
    stop(server)
