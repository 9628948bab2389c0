"""Servers with --gevent that are reloaded, upgraded and developed, under a load that is checked."""

import signal
import subprocess
import sys

import pytest

from process.family import renew, stop, workers_of
from process.load import load
from subprocesses import PYTHONPATH
from support import wait_until

pytest.importorskip("gevent")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="--gevent watches epoll")

BROKEN = "raise ZeroDivisionError('at import')"

# An embedding program; argv: what make_server is given.
EMBEDDING = """\
from gevent import monkey

monkey.patch_all()
import sys, threading, urllib.request

import gevent

import fastwsgi
from apps import hello

options = {name: True for name in sys.argv[1:]}
with fastwsgi.make_server("127.0.0.1", 0, hello, **options) as server:
    serving = gevent.spawn(server.serve_forever)
    if not options:
        serving.get()
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/") as response:
        print(response.read().decode())
"""


@pytest.fixture
def start_green(start_site):
    """start_green(*options): serve the site with two workers of greenlets."""
    return lambda *options, **others: start_site("--gevent", *options, **others)


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_broken_code_changes_nothing_however_often(start_green, site, options):
    """The process that has imported it ends: what remains of gevent in it keeps it from nothing."""
    server = start_green(*options)
    before = workers_of(server)
    for count in range(1, 4):
        site.write("2", BROKEN)
        server.signal(signal.SIGHUP)
        wait_until(lambda count=count: server.stderr.count("Not reloaded") == count, lambda: server.stderr)
    assert before <= workers_of(server)
    site.write("3")
    server.signal(signal.SIGHUP)
    server.wait_said("Reloaded in")
    assert server.ask("/7")["Generation"] == "3"
    stop(server)


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_a_reload_and_an_upgrade_fail_nobody(start_green, site, options):
    server = start_green(*options)
    with load(server.address) as running:
        running.wait_answers()
        renew(server, site, running)
    running.report.check()
    stop(server)


def test_a_loader_forks_whatever_becomes_of_signals(start_green, site):
    """gevent would have its hub watch each child, and wait for ever for one that ended before."""
    site.write(
        "1",
        "import os\n"
        "from gevent import monkey, os as green\n"
        "loader, sleep, watch = os.getpid(), monkey.get_original('time', 'sleep'), green._watch_child\n"
        "def late(*arguments):\n"
        "    if os.getpid() == loader:\n"
        "        sleep(0.2)\n"
        "    watch(*arguments)\n"
        "green._watch_child = late\n",
    )
    server = start_green("--preload", workers=2)
    server.wait_said("All 2 workers serve")
    stop(server)


def test_workers_that_have_served_their_requests_are_replaced(start_green):
    server = start_green("--max-requests", "150", "--max-requests-jitter", "20")
    before = workers_of(server)
    with load(server.address) as running:
        running.wait(lambda: not before & workers_of(server), "other workers")
        running.wait_answers()
    running.report.check()
    stop(server)


def test_edited_under_load(start_green, site):
    server = start_green("--reload", workers=1)
    with load(server.address) as running:
        running.wait_answers()
        site.write("2")
        running.wait_generation("2")
    running.report.check()
    stop(server)


@pytest.mark.parametrize("before", ["import os; os._exit(7)", BROKEN], ids=["ends", "raises"])
def test_what_cannot_be_imported_is_shown(start, site, before):
    """Also by a worker that does not even try."""
    site.write("1", before)
    server = start("dev", "--gevent", "--bind", "127.0.0.1:0", "site_app:application", alone=False)
    for _ in range(2):
        response = server.ask("/7", fields=[("Host", "localhost")])
        assert response.status == 500
        assert ("exit code 7" if "_exit" in before else "ZeroDivisionError") in response.text
    site.write("2")
    wait_until(
        lambda: server.ask("/7", fields=[("Host", "localhost")])["Generation"] == "2", lambda: server.stderr
    )
    server.stop()


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_hooks_are_called_in_a_process_that_is_patched(start, tmp_path, options):
    (tmp_path / "gunicorn.conf.py").write_text(
        "def post_fork(server, worker):\n"
        "    from gevent.monkey import is_module_patched\n"
        "    worker.log.warning('patched: %s', is_module_patched('threading'))\n"
    )
    server = start("--gevent", *options, "--config", "gunicorn.conf.py", "apps:hello")
    assert server.ask().text == "hello"
    server.stop()
    assert "patched: True" in server.stderr


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_without_the_option_an_application_that_patches_is_told_in_one_line(start, tmp_path, options):
    (tmp_path / "patching.py").write_text(
        "from gevent import monkey\n\nmonkey.patch_all()\nfrom apps import hello\n"
    )
    server = start("--workers", "2", *options, "patching:hello")
    server.wait_said("All 2 workers serve")
    assert server.ask().text == "hello"
    server.stop()
    [line] = [line for line in server.lines if "WARNING" in line or "ERROR" in line]
    assert "has patched threading with gevent" in line
    assert "--gevent runs them in greenlets" in line


@pytest.mark.parametrize("options", [(), ("gevent",)], ids=["", "gevent"])
def test_a_program_that_serves_in_a_greenlet_says_so(options):
    done = subprocess.run(
        [sys.executable, "-c", EMBEDDING, *options],
        env={"PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if options:
        assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    else:
        assert "one that serves would stop all others; give gevent=True" in done.stderr
        assert done.returncode == 1
