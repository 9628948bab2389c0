"""Every setting may be another one at a reload: it is heeded, or refused by name, and nobody is failed."""

import json
import os
import signal
import socket
import stat
import sys
from pathlib import Path

import pytest

from process.family import family_of, stop, text_of, wait_for_workers, workers_of
from process.load import load
from support import Client, wait_until

# Those of the workers


def test_threads_health_and_preload_change_under_load(configured):
    server = configured.start(threads=2)
    server.wait_started()
    with load(server.address) as running:
        running.wait_answers()
        for change in (
            {"threads": 8},
            {"health": "/healthz", "ready": "/readyz"},
            {"preload": "on"},
            {"threads": 1, "preload": "strict"},
            {"preload": "off", "health": None, "worker_timeout": "5s", "poller": "poll"},
        ):
            configured.change(**change)
            running.wait_answers()
            if configured.settings.get("health"):
                assert server.ask("/healthz").content == b"ok\n", change
    running.report.check(least=1000)
    stop(server)


# Those of the supervisor, too


def test_messages_go_to_another_file(configured, tmp_path, site):
    first, second = tmp_path / "first", tmp_path / "second"
    server = configured.start(error_logfile=str(first))
    wait_until(lambda: "workers serve" in text_of(first), "the start")
    configured.change(error_logfile=str(second))
    assert f"Messages go to {second} from now on (--error-logfile)" in text_of(first)
    wait_until(lambda: "Reloaded" in text_of(second), "a message of the supervisor")
    server.signal(signal.SIGPWR)
    wait_until(lambda: text_of(second).count("Stacks of process") == 2, "messages of the workers")
    assert "Stacks" not in text_of(first)
    # One that cannot be had changes nothing, and neither does one whose workers do not get to serve.
    configured.write(error_logfile=str(tmp_path / "nowhere" / "log"))
    server.signal(signal.SIGHUP)
    wait_until(lambda: "nowhere/log: No such file or directory" in text_of(second), "why it cannot")
    third = tmp_path / "third"
    configured.write(error_logfile=str(third))
    site.write("2", "raise ZeroDivisionError('at import')")
    server.signal(signal.SIGHUP)
    wait_until(lambda: text_of(second).count("Not reloaded") == 2, "why it cannot")
    assert "ZeroDivisionError: at import" in text_of(second)
    # A rotation, and back to the standard error.
    second.rename(tmp_path / "rotated")
    site.write("3")
    configured.change(error_logfile="-")
    server.wait_said("Reloaded")
    assert "Messages go to - from now on" in text_of(second)
    assert not text_of(third)
    stop(server)


def test_messages_go_on_where_no_new_file_can_be_had(configured, tmp_path):
    """The directory of the log is gone: no process ends for that."""
    logs = tmp_path / "logs"
    logs.mkdir()
    server = configured.start(error_logfile=str(logs / "log"))
    former = logs.rename(tmp_path / "former") / "log"
    server.signal(signal.SIGHUP)
    wait_until(lambda: "logs/log: No such file or directory" in text_of(former), "why it is not reloaded")
    logs.mkdir()
    configured.change(threads=2)
    wait_until(lambda: "Reloaded" in text_of(logs / "log"), "a new file")
    stop(server)


def test_another_level(configured):
    server = configured.start(log_level="warning")
    configured.change(log_level="debug")
    server.wait_said("[DEBUG]")
    assert "[INFO] Reloading" not in server.stderr
    server.wait_said("[INFO] Reloaded")
    said = len(server.stderr)
    configured.change(log_level="error")
    assert "[INFO] Reloaded" not in server.stderr[said:]
    stop(server)


def connections_until_full(path):
    """How many clients the kernel queues there, while nobody accepts."""
    waiting = []
    try:
        while len(waiting) < 100:
            sock = socket.socket(socket.AF_UNIX)
            waiting.append(sock)
            sock.setblocking(False)
            try:
                sock.connect(path)
            except BlockingIOError:
                return len(waiting) - 1
    finally:
        for sock in waiting:
            sock.close()
    raise AssertionError("there is no end of it")


@pytest.mark.parametrize("reuse_port", [False, True])
def test_another_backlog(configured, short_path, reuse_port):
    path = f"{short_path}/socket"
    server = configured.start(bind=["127.0.0.1:0", f"unix:{path}"], backlog=16, reuse_port=reuse_port)
    server.wait_said("workers serve")
    for backlog in (32, 8):
        configured.change(backlog=backlog)
        server.signal(signal.SIGWINCH)
        wait_for_workers(server, 0)
        assert connections_until_full(path) == backlog + 1
        server.signal(signal.SIGTTIN)
        wait_for_workers(server, 1)
    stop(server)


@pytest.fixture
def umask():
    """What the server is started with."""
    before = os.umask(0o022)
    yield 0o022
    os.umask(before)


def test_another_umask(configured, umask, short_path, tmp_path):
    server = configured.start(app="identity_app:app")
    server.wait_started()
    for number, (given, expected) in enumerate([("077", 0o077), ("007", 0o007), (None, umask)]):
        path, log = f"{short_path}/{number}", tmp_path / f"log{number}"
        bind = ["127.0.0.1:0", f"unix:{path}"]
        configured.change(umask=given, bind=bind, access_logfile=str(log))
        with Client(path) as client:
            assert json.loads(client.ask().content)["umask"] == expected
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o777 & ~expected
        assert stat.S_IMODE(log.stat().st_mode) == 0o666 & ~expected
    stop(server)


def test_another_directory(configured, site, tmp_path):
    """From which the application is imported, and relative paths count."""
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "there.py").write_text(
            f"from numbered import numbered\napp = numbered({name!r})\n"
        )
    (tmp_path / "there.py").write_text("from numbered import numbered\napp = numbered('start')\n")
    server = configured.start(app="there:app", chdir="a", access_logfile="access")
    server.wait_started()
    assert server.ask("/1")["Generation"] == "a"
    for directory in ("b", None, "a"):
        configured.change(chdir=directory)
        assert server.ask("/1")["Generation"] == directory or "start"
        wait_until(lambda: text_of(tmp_path / (directory or ".") / "access"), "a line")  # noqa: B023
    configured.refuse("cannot change to", chdir="nowhere")
    # New workers are where their generation is.
    former = workers_of(server)
    for pid in former:
        os.kill(pid, signal.SIGKILL)
    wait_for_workers(server, 2, without=former)
    assert server.ask("/1")["Generation"] == "a"
    stop(server)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_another_name(configured):
    server = configured.start(name="shop")
    configured.change(name="other")

    def titles():
        return {Path(f"/proc/{pid}/comm").read_text().strip() for pid in family_of(server)}

    wait_until(lambda: titles() == {"other superviso", "other worker"}, lambda: f"titles: {titles()}")
    stop(server)


def test_what_cannot_change_is_named(configured, tmp_path):
    server = configured.start()
    server.wait_started()
    for change in (
        *({"reuse_port": True}, {"daemon": True}, {"pid": "pid"}, {"workers": 0}),
        *({"control_socket": "none"}, {"metrics": "127.0.0.1:0"}, {"statsd_host": "127.0.0.1:9"}),
        *({"statsd_prefix": "shop"}, {"dogstatsd_tags": "a:b"}),
        *({"log_config_json": "logs.json"}, {"log_config": "logs.ini"}),
    ):
        flag = "--" + next(iter(change)).replace("_", "-")
        configured.refuse(flag, **change)
    assert not (tmp_path / "pid").exists()
    assert server.ask("/7").status == 200
    configured.change(threads=2)
    stop(server)
