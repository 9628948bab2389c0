"""`fastwsgi top` in a terminal: driven by keys, its screen captured."""

import json
import re
import shutil

import pytest

from process.family import stop
from process.operators import Terminal, ask, command
from support import request, wait_until

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="no tmux here")


@pytest.fixture
def terminal():
    """terminal(server, **options): top for a server, on its first screen."""
    opened = []

    def terminal(server, **options):
        opened.append(Terminal(server, **options))
        opened[-1].wait(f"process {server.pid}")
        return opened[-1]

    yield terminal
    for one in opened:
        one.close()


@pytest.fixture
def stuck(start):
    return lambda *options: start("--log-slow", "0", *options, "stuck:application")


def requests_of(server):
    return json.loads(ask(server, "/stats").content)["requests"]


def test_what_runs_is_seen_and_a_stack_shown(stuck, terminal):
    server = stuck()
    top = terminal(server)
    screen = top.wait("no requests are running", "q quit")
    assert "1 of 1 worker" in screen
    with server.connect() as first, server.connect() as second:
        first.send(request("/wait_patiently?a=1", fields=[("X-Request-ID", "id-1")]))
        wait_until(lambda: len(requests_of(server)) == 1, "the first request")
        second.send(request("/wait_for_the_lock"))
        screen = top.wait("GET /wait_patiently?a=1", "GET /wait_for_the_lock", "2 running")
        assert screen.index("/wait_patiently") < screen.index("/wait_for_the_lock")  # the oldest first
        assert re.search(r"^ +[\d.]+ s +\d+ +\d application 127\.0\.0\.1 +GET /wait_p", screen, re.M)
        top.resize(110, 24)
        top.wait(
            "127.0.0.1       id-1       GET /wait_patiently?a=1", "127.0.0.1       -          GET /wait_for"
        )
        top.resize(160, 24)  # wherever the tests are, their paths have room
        top.keys("Down", "Down", "Enter")
        screen = top.wait("Esc back", "LOCK.acquire(")
        assert "in wait_for_the_lock" in screen
        assert "GET /wait_for_the_lock for 127.0.0.1" in screen
        top.keys("Escape")
        top.wait("Enter stack")
        top.keys("s", "s")
        screen = top.wait("(by request)")
        assert screen.index("/wait_for_the_lock") < screen.index("/wait_patiently")
        top.keys("q")
        assert "ended with 0" in top.wait("ended with")
        (server.directory / "go").touch()
        first.read_response()
        second.read_response()
    stop(server)


def test_k_ends_a_request_after_asking_once(stuck, terminal):
    server = stuck()
    top = terminal(server)
    top.keys("k")
    top.wait("select a request first")
    with server.connect() as client:
        client.send(request("/wait_patiently"))
        top.wait("GET /wait_patiently")
        top.keys("Down", "k")
        top.wait("(503 for its client)? y/n")
        top.keys("n")
        top.wait("not ended")
        assert len(requests_of(server)) == 1
        top.keys("k", "y")
        top.wait("ended: its client gets 503")
        assert client.read_response().status == 503
    top.wait("no requests are running")
    server.wait_said("in wait_patiently")
    stop(server)


def test_a_request_in_c_that_holds_the_gil_is_ended(stuck, terminal):
    server = stuck("--worker-timeout", "5s")
    top = terminal(server)
    with server.connect() as client:
        client.send(request("/hold_the_gil"))
        top.wait("GET /hold_the_gil")
        top.keys("Down", "Enter")
        top.wait("not looked at yet:", "as when C code holds the GIL")
        top.keys("k", "y")
        assert client.read_response().status == 503
    server.wait_said("(sent by fastwsgi, after --worker-timeout)")
    stop(server)


def test_a_reload_and_the_end_of_the_server_are_seen(start_site, site, terminal):
    server = start_site()
    top = terminal(server)
    top.wait("generation 1", "2 of 2 workers")
    site.write("2")
    assert command(server, "reload").returncode == 0
    top.wait("generation 2", "2 of 2 workers")
    site.write("3", before="raise OSError")
    assert command(server, "reload").returncode == 1
    top.wait("generation 2", "reload failed")
    stop(server)
    screen = top.wait(f"the server (process {server.pid}) has ended, or does not answer")
    assert len(screen.rstrip().splitlines()) == 24
    top.keys("q")
    top.wait("ended with 0")


@pytest.mark.parametrize("term", ["vt100", "xterm-256color", "linux"])
def test_any_terminal_of_any_size_will_do(stuck, terminal, term):
    server = stuck()
    top = terminal(server, term=term)
    with server.connect() as client:
        client.send(request("/wait_patiently?" + "x" * 150))
        screen = top.wait("GET /wait_patiently?xxx")
        assert max(map(len, screen.splitlines())) < 80
        for width, height in ((40, 10), (12, 3), (3, 2), (200, 50), (80, 24)):
            top.resize(width, height)
            if width >= 40:
                top.wait("fastwsgi ", "q quit" if width >= 80 else "arrows select")
        top.wait("GET /wait_patiently?xxx", "q quit")
        top.keys("Down", "Enter")
        top.wait("Esc back", "in wait_patiently")
        (server.directory / "go").touch()
        client.read_response()
        top.wait("it does not run any more")
    top.keys("q")
    top.wait("ended with 0")
    stop(server)


def test_what_clients_send_does_nothing_to_the_terminal(stuck, terminal):
    server = stuck()
    top = terminal(server)
    with server.connect() as client:
        fields = [("X-Request-ID", "\x9b31m\xe9")]
        client.send(request("/wait_patiently?\x9b2J\xff", fields=fields))
        top.resize(120, 24)
        screen = top.wait(r"GET /wait_patiently?\x9b2J\xff", "\\x9b31m")
        assert "\x9b" not in screen
        (server.directory / "go").touch()
        client.read_response()
    stop(server)
