"""The control socket of a running server, and the commands that speak with it."""

import json
import os
import re
import signal
import stat
import time

import pytest

from conftest import of_the_gil
from process.family import expect_nobody_left, stop, wait_for_workers, workers_of
from process.operators import ask, command, fastwsgi, socket_of, stats_of
from support import Client, Incomplete, request, wait_until


def running(server, count=1, looked_at=True):
    """Wait until so many requests run, and the stack of each was looked at; return them."""

    def there():
        requests = stats_of(server)["requests"]
        ready = len(requests) == count and all(one["stack"] or not looked_at for one in requests)
        return (requests,) if ready else None

    (requests,) = wait_until(there, lambda: f"{count} requests: {stats_of(server)}; {server.stderr}")
    return requests


def holding_the_gil(server):
    """Wait until a request has gone into C with the GIL; return it."""

    def there():
        requests = stats_of(server)["requests"]
        return requests[0] if requests and requests[0]["age"] > 0.5 else None

    return wait_until(there, lambda: f"a request: {stats_of(server)}; {server.stderr}")


def end(server, one):
    said = {name: one[name] for name in ("worker", "thread", "number")}
    return ask(server, "/end", "POST", content=json.dumps(said).encode())


@pytest.fixture
def stuck(start):
    """stuck(*options): serve requests that do not end."""
    return lambda *options, **others: start(*options, "stuck:application", **others)


# The socket


def test_the_socket_is_its_owners_alone_and_goes_with_the_server(stuck):
    server = stuck()
    status = os.stat(socket_of(server))
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_uid == os.geteuid()
    stop(server)
    assert not os.path.exists(socket_of(server))


def test_nobody_answers_before_somebody_asks(stuck):
    server = stuck()
    before = workers_of(server)
    assert len(before) == 1
    stats = stats_of(server)
    assert stats["pid"] == server.pid
    assert [worker["pid"] for worker in stats["workers"]] == list(before)
    (monitor,) = workers_of(server) - before
    # Nor does anything depend on who answers.
    os.kill(monitor, signal.SIGKILL)
    server.wait_said("was killed by SIGKILL; requests are served as before")
    assert server.ask("/").text == "done"
    assert stats_of(server)["pid"] == server.pid
    stop(server)


def test_a_killed_server_leaves_nobody_behind(stuck):
    server = stuck()
    stats_of(server)
    server.signal(signal.SIGKILL)
    server.process.wait()
    expect_nobody_left(server)
    # What it leaves is replaced by the next one with that path.
    path = socket_of(server)
    assert os.path.exists(path)
    other = stuck("--control-socket", path)
    with Client(path) as client:
        assert json.loads(client.ask("/stats").content)["pid"] == other.pid
    stop(other)


def test_it_can_be_elsewhere_or_not_at_all(stuck, short_path):
    path = short_path / "here"
    server = stuck("--control-socket", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert str(server.pid) in fastwsgi("stats", f"--control-socket={path}").stdout
    assert str(server.pid) in fastwsgi("stats", FASTWSGI_CONTROL_SOCKET=str(path)).stdout
    other = stuck("--control-socket", "none")
    assert not os.path.exists(socket_of(other))
    server.stop()
    stop(other)


def test_a_path_that_is_taken_is_an_error(stuck, tmp_path):
    (tmp_path / "file").touch()
    server = stuck("--control-socket", str(tmp_path / "file"), started=False)
    assert server.wait() == 1
    assert server.stderr.startswith("fastwsgi: --control-socket: cannot listen at unix:")


def test_where_auto_finds_no_place_the_server_serves(stuck, tmp_path):
    """A place that is too long for an address, and others that are taken away: nothing but a warning."""
    place = tmp_path / ("x" * 120)
    place.mkdir()
    server = stuck(XDG_RUNTIME_DIR=str(place), TMPDIR=str(place))
    assert server.ask("/").text == "done"
    if os.access("/run", os.W_OK):
        assert os.path.exists(f"/run/fastwsgi-{server.pid}.sock")
    else:
        server.wait_said("No control socket")
    stop(server)


def test_a_reload_does_not_move_it(start_site, site, tmp_path):
    (tmp_path / "fastwsgi.toml").write_text("")
    server = start_site()
    (tmp_path / "fastwsgi.toml").write_text('control_socket = "none"')
    failed = command(server, "reload")
    assert failed.returncode == 1
    assert "--control-socket cannot be changed by a reload" in failed.stderr
    stop(server)


def test_what_is_no_question_is_told(stuck):
    server = stuck()
    assert ask(server, "/nothing").status == 404
    assert ask(server, "/reload").status == 405
    assert ask(server, "/stats", "POST").status == 405
    assert ask(server, "/end", "POST", content=b"{}").status == 400
    assert ask(server, "/end", "POST", content=b"[").status == 400
    (worker,) = stats_of(server)["workers"]
    for wrong in (-1, 1 << 64):
        assert end(server, {"worker": worker["pid"], "thread": 0, "number": wrong}).status == 400
    nobody = {"worker": worker["pid"], "thread": 1, "number": 1}
    assert ask(server, "/end", "POST", content=json.dumps(nobody).encode()).status == 409
    stop(server)


def test_an_upgrade_keeps_it(start_site):
    server = start_site("--preload")
    began = os.stat(socket_of(server)).st_ino
    before = {worker["pid"] for worker in stats_of(server)["workers"]}
    server.signal(signal.SIGUSR2)
    server.wait_said("Reloaded in")
    wait_until(
        lambda: not before & {worker["pid"] for worker in stats_of(server)["workers"]},
        lambda: f"new workers: {stats_of(server)}",
    )
    assert os.stat(socket_of(server)).st_ino == began
    stop(server)


# Commands


def test_stats_are_text_or_json(stuck):
    server = stuck("--threads", "2", "--loops", "1")
    with server.connect() as first, server.connect() as second:
        first.send(request("/wait_patiently?first", fields=[("X-Request-ID", "id-1")]))
        running(server)
        second.send(request("/wait_patiently?second"))
        shown = wait_until(
            lambda: (text := command(server, "stats").stdout).count("/wait") == 2 and text, "both requests"
        )
        assert f"process {server.pid}" in shown
        assert re.search(r"GET /wait_patiently\?first  \(id-1\)\n.*/wait_patiently\?second", shown)
        assert "1 of 1 worker" in shown
        told = json.loads(command(server, "stats", "--json").stdout)
        assert [one["request_id"] for one in told["requests"]] == ["id-1", ""]
        assert told["workers"][0]["exchanges"] == 2
        (server.directory / "go").touch()
        assert first.read_response().text == second.read_response().text == "done"
    stop(server)


def test_stacks_are_those_of_requests_that_take_long(stuck):
    """A view stuck on a lock is found by the line that it waits at."""
    server = stuck()
    assert command(server, "stacks").stdout == "no requests are running\n"
    with server.connect() as client:
        client.send(request("/wait_for_the_lock"))
        (one,) = running(server)
        shown = command(server, "stacks").stdout
        assert f"in thread {one['thread']} of worker {one['worker']}, in the application for" in shown
        assert re.search(r'stuck\.py", line \d+, in wait_for_the_lock\n +while not LOCK\.acquire\(', shown)
        assert command(server, "stacks", str(one["worker"])).stdout.count("wait_for_the_lock") == 2
        refused = command(server, "stacks", "1")
        assert refused.returncode == 1
        assert refused.stderr == "fastwsgi: no worker has the number 1; fastwsgi stats lists them\n"
        # The sample is taken anew.
        looked = time.monotonic() - one["stack_age"]
        wait_until(
            lambda: time.monotonic() - running(server)[0]["stack_age"] > looked + 0.5, "a later sample"
        )
        assert end(server, one).status == 202
        assert client.read_response().status == 503
    stop(server)


def test_reload_says_that_the_new_code_serves(start_site, site):
    server = start_site()
    site.write("2")
    done = command(server, "reload")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"reloaded in .* s: generation 2 serves with 2 workers\n", done.stdout)
    assert server.ask("/")["Generation"] == "2"
    stop(server)


def test_reload_says_why_the_new_code_does_not_serve(start_site, site):
    server = start_site()
    site.write("2", before="raise OSError('the bad deploy')")
    failed = command(server, "reload")
    assert failed.returncode == 1
    assert "not reloaded, the server goes on as before: Worker" in failed.stderr
    assert "the bad deploy" in server.stderr
    assert server.ask("/")["Generation"] == "1"
    assert "reload failed" in command(server, "stats").stdout
    site.write("3")
    assert command(server, "reload").returncode == 0
    assert "reload failed" not in command(server, "stats").stdout
    stop(server)


@pytest.mark.parametrize("words", [(), ("--now",)], ids=["", "now"])
def test_stop_waits_for_the_end(stuck, words):
    server = stuck()
    with server.connect() as client:
        client.send(request("/wait_patiently"))
        running(server, looked_at=False)
        if not words:
            (server.directory / "go").touch()
        done = command(server, "stop", *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"process {server.pid} stopped in ")
        if not words:
            assert client.read_response().text == "done"
    assert server.wait() == 0
    expect_nobody_left(server)


def test_which_of_two_servers_has_to_be_said(stuck):
    # What a test before has killed may be there for a moment, in a session of its own.
    nobody = wait_until(lambda: (done := fastwsgi("stats")).returncode and done, "nobody")
    first = stuck()
    assert str(first.pid) in fastwsgi("stats").stdout
    second = stuck()
    unclear = fastwsgi("stats")
    assert unclear.returncode == 1
    assert "several servers run here; choose one:" in unclear.stderr
    for server in (first, second):
        line = f"--control-socket {socket_of(server)}  process {server.pid}: stuck:application at http://"
        assert line in unclear.stderr
    assert str(second.pid) in command(second, "stats").stdout
    first.stop()
    stop(second)
    assert nobody.returncode == 1
    assert "no running server is found" in nobody.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("stats", "--control-socket", "/nowhere/at/all"), "/nowhere/at/all: there is no such socket"),
        (("stats", "--control-socket"), "--control-socket needs a value: FILE"),
        (("top", "--control-socket", "/nowhere"), "/nowhere: there is no such socket"),
        (("stop", "--soon"), "fastwsgi stop takes no --soon: fastwsgi stop [--now]"),
        (("stacks", "all"), "fastwsgi stacks takes no all: fastwsgi stacks [PID]"),
    ],
)
def test_a_command_that_cannot_be_done_says_why(words, says):
    done = fastwsgi(*words)
    assert done.returncode == 1
    assert done.stderr.startswith(f"fastwsgi: {says}")
    assert done.stdout == ""


def test_top_wants_a_terminal(stuck):
    server = stuck()
    done = command(server, "top")
    assert done.returncode == 1
    assert done.stderr == "fastwsgi: top needs a terminal; fastwsgi stats prints the same once\n"
    stop(server)


def test_an_application_may_be_called_top(start, tmp_path):
    (tmp_path / "top.py").write_text("from apps import hello as top\n")
    server = start("top:top")
    assert server.ask("/").status == 200
    stop(server)


# Ending a request


def test_a_request_that_waits_is_ended(stuck):
    server = stuck("--timeout", "0", "--log-slow", "0")
    with server.connect() as client:
        client.send(request("/wait_patiently"))
        (one,) = running(server)
        assert end(server, one).status == 202
        assert client.read_response().status == 503
        # The thread is interrupted, and goes on with others.
        wait_until((server.directory / "interrupted").exists, "RequestTimeout in the thread")
    server.wait_said("GET /wait_patiently from 127.0.0.1 was ended by hand (fastwsgi top)")
    server.wait_said("in wait_patiently")
    running(server, 0)
    assert stats_of(server)["workers"][0]["revoked"] == 1
    assert server.ask("/").text == "done"
    assert end(server, one).status == 409
    stop(server)


def test_a_request_in_c_that_holds_the_gil_is_ended(stuck):
    """Without the GIL: its client has 503 at once, and the worker is ended in time."""
    server = stuck("--worker-timeout", "2s")
    with server.connect() as client:
        client.send(request("/hold_the_gil"))
        one = holding_the_gil(server)
        assert "GET /hold_the_gil" in command(server, "stacks").stdout
        begun = time.monotonic()
        assert end(server, one).status == 202
        assert client.read_response().status == 503
        assert time.monotonic() - begun < 5
    server.wait_said("in hold_the_gil")  # faulthandler, when the worker is ended
    server.wait_said(
        f"Worker {one['worker']} was killed by SIGABRT (sent by fastwsgi, after --worker-timeout)"
    )
    stop(server)


# What is left of a worker


def test_a_crash_shows_where_requests_were(stuck):
    server = stuck()
    with server.connect() as crashes, server.connect() as waits:
        crashes.send(request("/crash_later?now"))
        waits.send(request("/wait_for_the_lock"))
        running(server, 2)
        (server.directory / "crash").touch()
        with pytest.raises((Incomplete, ConnectionError)):
            crashes.read_response()
    server.wait_said("was killed by SIGSEGV")
    told = server.stderr[server.stderr.index("was killed by SIGSEGV") :]
    for words in ("GET /crash_later?now for 127.0.0.1, in thread", "GET /wait_for_the_lock for 127.0.0.1"):
        assert words in told
    assert re.search(r"thread \d was, [\d.]+ s ago, at\n(.*\n)*?.* in crash_later\n +time\.sleep", told), told
    assert re.search(r"thread \d was, [\d.]+ s ago, at\n(.*\n)*?.* in wait_for_the_lock\n", told), told
    stop(server)


@of_the_gil
def test_a_kill_from_outside_is_told_from_ours(stuck):
    server = stuck()
    killed = server.worker
    os.kill(killed, signal.SIGKILL)
    server.wait_said("was killed by SIGKILL")
    told = next(line for line in server.lines if "was killed by SIGKILL" in line)
    assert f"Worker {killed} was killed by SIGKILL (not sent by fastwsgi; " in told
    assert "did not rise" in told or "the kernel does not say" in told
    wait_for_workers(server, 1, without=[killed])
    with server.connect() as client:
        client.send(request("/hold_the_gil"))
        one = holding_the_gil(server)
        server.signal(signal.SIGQUIT)  # it cannot heed that
        server.wait_said("does not end: SIGKILL")
        server.wait_said(
            f"Worker {one['worker']} was killed by SIGKILL (sent by fastwsgi, as it did not end)"
        )
    assert server.wait() == 0
