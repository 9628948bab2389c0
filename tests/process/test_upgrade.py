"""A new program that cannot do as its configuration says, or cannot read what the former one has left."""

import os
import signal
import socket
import struct

import pytest

from fastwsgi.process import lock
from process.family import stop, text_of, wait_for_workers, workers_of
from process.load import load
from support import wait_until

BECOMES = "becomes the new server"


@pytest.fixture
def taken():
    """An address at which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.mark.parametrize("options", [{}, {"preload": "on"}, {"reuse_port": True}], ids=str)
def test_an_address_that_cannot_be_had_then_loses_nothing(configured, taken, tmp_path, options):
    server = configured.start(pid="pid", access_logfile="access", **options)
    server.wait_started()
    with load(server.address) as running:
        running.wait_answers()
        before = workers_of(server)
        configured.write(bind=["127.0.0.1:0", taken])
        server.signal(signal.SIGUSR2)
        words = f"Not reloaded, those that serve go on as before: cannot listen at {taken}: another server"
        server.wait_said(words)
        assert server.stderr.count(BECOMES) == server.stderr.count("cannot listen") == 1
        serving = {int(pid) for pid in running.report.workers}
        assert serving <= before
        running.wait_workers(*serving)
    # It is a supervisor as ever: a dead worker has a successor, which writes to the log, too.
    os.kill(min(serving), signal.SIGKILL)
    wait_until(lambda: workers_of(server) - before, "another worker")
    with load(server.address) as running:
        running.wait(lambda: {int(pid) for pid in running.report.workers} - serving, "its answers")
        lines = text_of(tmp_path / "access").count("\n")
        running.wait_answers()
        assert text_of(tmp_path / "access").count("\n") > lines
        assert text_of(tmp_path / "pid") == f"{server.pid}\n"
        with open(tmp_path / "pid", "r+") as file:
            assert not lock(file.fileno()), "a second server could start"
        # Reloads and upgrades are possible when it can be had.
        configured.write(bind=["127.0.0.1:0"])
        configured.change(threads=2)
        server.signal(signal.SIGUSR2)
        wait_until(lambda: server.stderr.count(BECOMES) == 2, "an upgrade")
        wait_until(lambda: server.stderr.count("Reloaded in") == 2, lambda: server.stderr)
        running.wait_answers()
    stop(server)
    assert not (tmp_path / "pid").exists()


def test_a_log_that_cannot_be_opened_then_goes_on(configured, tmp_path):
    """Messages go where they went, also those of workers that come later."""
    logs = tmp_path / "logs"
    logs.mkdir()
    server = configured.start(error_logfile=str(logs / "error"), log_level="debug")
    error = tmp_path / "former" / "error"
    wait_until(lambda: "workers serve" in text_of(logs / "error"), "the start")
    logs.rename(tmp_path / "former")
    logs.touch()
    before = wait_for_workers(server, 2)
    server.signal(signal.SIGUSR2)
    wait_until(lambda: "Not reloaded" in text_of(error), lambda: text_of(error) + server.stderr)
    assert text_of(error).count("Not a directory") == 1
    assert workers_of(server) == before
    os.kill(min(before), signal.SIGKILL)
    now = wait_for_workers(server, 2, without=[min(before)])
    wait_until(lambda: "SIGKILL" in text_of(error), "a message of the supervisor")
    wait_until(lambda: text_of(error).count("serves, ") == 3, "a new worker")
    server.signal(signal.SIGPWR)
    wait_until(
        lambda: all(f"Stacks of process {pid}" in text_of(error) for pid in now), "messages of workers"
    )
    stop(server)


def test_a_configuration_that_cannot_be_read_then(configured, site, tmp_path):
    """It was changed once more, after the trial start."""
    server = configured.start()
    server.wait_started()
    server.wait_said("workers serve")  # a child that imports would be taken for the trial start
    before = workers_of(server)
    # The trial start is the one that imports the application outside of a worker.
    site.write(
        "2",
        f"import os\nos.getppid() == {server.pid} and open('imported', 'w').close()\n"
        "import time\nwhile not os.path.exists('go-on'): time.sleep(0.01)",
    )
    server.signal(signal.SIGUSR2)
    wait_until((tmp_path / "imported").exists, "the trial start")
    configured.file.write_text("wrokers = 2\n")
    server.go_on("go-on")
    server.wait_said(f"Not reloaded, those that serve go on as before: {configured.file}: unknown")
    assert workers_of(server) == before
    configured.change(threads=2)
    assert server.ask("/7")["Generation"] == "2"
    stop(server)


def test_what_an_upgrade_cannot_change_is_named(configured):
    server = configured.start()
    server.wait_started()
    before = workers_of(server)
    configured.write(workers=0)
    server.signal(signal.SIGUSR2)
    server.wait_said("go on as before: --workers 0")
    assert workers_of(server) == before
    assert server.ask("/7").status == 200
    stop(server)


# Shared memory that is laid out in another way


def boards_of(pid):
    """Paths of the boards that a process has open."""
    for number in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{number}"
        if "memfd:fastwsgi" in os.readlink(path):
            with open(path, "rb") as file:
                if file.read(8) == b"fw board":
                    yield path


def lay_out_differently(server):
    """Have its boards be of another version of the server, for all that is opened from now on."""
    paths = list(boards_of(server.pid))
    assert paths
    for path in paths:
        with open(path, "r+b") as file:
            file.seek(8)
            [layout] = struct.unpack("<Q", file.read(8))
            file.seek(8)
            file.write(struct.pack("<Q", layout + 1))


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the board is found by its name")
@pytest.mark.parametrize("options", [(), ("--preload",), ("--reuse-port",)], ids=str)
def test_an_upgrade_to_another_layout_fails_nobody(start_site, site, options):
    server = start_site(*options)
    with load(server.address) as running, server.connect() as client:
        running.wait_answers()
        before = workers_of(server)
        lay_out_differently(server)
        site.write("2")
        client.send(b"GET /7?sleep=2 HTTP/1.1\r\nHost: a\r\n\r\n")
        server.signal(signal.SIGUSR2)
        wait_until(lambda: not before & workers_of(server), lambda: f"other workers: {server.stderr}", 20)
        assert client.read_response().status == 200
        running.wait_generation("2")
    running.report.check()
    assert "SIGKILL" not in server.stderr
    stop(server)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the board is found by its name")
def test_workers_of_another_layout_stop_with_the_server(configured, taken):
    """Here for long, as the new program had to leave them in their places."""
    server = configured.start()
    server.wait_started()
    with load(server.address) as running:
        running.wait_answers()
        lay_out_differently(server)
        configured.write(bind=["127.0.0.1:0", taken])
        server.signal(signal.SIGUSR2)
        server.wait_said("cannot listen")
        running.wait_answers()
        # One that dies has a successor that is like the others to be.
        before = workers_of(server)
        running.may_fail = True
        os.kill(min(before), signal.SIGKILL)
        wait_for_workers(server, 2, without=[min(before)])
        running.wait_everybody()
        lost = len(running.report.failures)
        running.listening_ends()
        server.terminate()
        assert server.wait() == 0, server.stderr
        running.wait(lambda: running.report.refused == 20, "everybody sent away")
        assert len(running.report.failures) == lost, str(running.report)
    assert "SIGKILL" not in server.stderr.split("Stopping")[1]
