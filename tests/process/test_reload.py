"""New code, a new server, other settings, while clients ask: none of them notices."""

import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

import fastwsgi
from process.family import WAYS, expect_nobody_left, stop, wait_for_workers, workers_of
from process.load import WRK, load
from subprocesses import PYTHONPATH
from support import PATIENCE, request, wait_until

WRK_BESIDE = 4 if WRK else 0


# HUP


@WAYS
def test_ten_reloads_fail_nobody(start_site, site, options):
    server = start_site(*options)
    with load(server.address, wrk=WRK_BESIDE, seconds=120) as running:
        running.wait_answers()
        for generation in range(2, 12):
            site.write(str(generation))
            server.signal(signal.SIGHUP)
            running.wait_generation(str(generation))
    running.report.check(least=2000)
    assert set(running.report.generations) == {str(generation) for generation in range(1, 12)}
    stop(server)


def test_reloads_with_the_other_poller_fail_nobody(start_site, site):
    server = start_site("--poller", "poll")
    with load(server.address, wrk=WRK_BESIDE) as running:
        running.wait_answers()
        for generation in "23":
            site.write(generation)
            server.signal(signal.SIGHUP)
            running.wait_generation(generation)
    running.report.check(least=500)
    stop(server)


def test_reloads_one_on_the_other_fail_nobody(start_site, site):
    """The last one counts, whatever was going on when it came."""
    server = start_site()
    with load(server.address) as running:
        running.wait_answers()
        for generation in range(2, 12):
            site.write(str(generation))
            server.signal(signal.SIGHUP)
            running.pause(0.05)
        running.wait_generation("11")
    running.report.check(least=500)
    stop(server)


def test_a_reload_replaces_every_worker_and_not_the_supervisor(start_site, site):
    server = start_site()
    before = wait_for_workers(server, 2)
    server.signal(signal.SIGHUP)
    wait_for_workers(server, 2, without=before)
    assert server.is_running()
    stop(server)


def test_a_long_request_is_finished_across_a_reload(start_site, site):
    server = start_site()
    with load(server.address, work=0.01) as running, server.connect() as client:
        client.send(request("/7?sleep=3"))
        running.wait_answers()
        site.write("2")
        server.signal(signal.SIGHUP)
        running.wait_generation("2")
        response = client.read_response()
        assert (response.status, response["Generation"]) == (200, "1")
        client.expect_end()
    running.report.check()
    stop(server)


@WAYS
@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("def", "SyntaxError"),
        ("raise ZeroDivisionError('at import')", "ZeroDivisionError: at import"),
        ("import os; os._exit(9)", "exit code 9"),
        ("import no_such_module", "no_such_module"),
    ],
    ids=["syntax", "raises", "exits", "missing"],
)
def test_broken_code_changes_nothing(start_site, site, options, broken, words):
    server = start_site(*options)
    with load(server.address) as running:
        running.wait_answers()
        before = workers_of(server)
        site.write("2", broken)
        server.signal(signal.SIGHUP)
        server.wait_said("Not reloaded")
        running.wait_workers(*running.report.workers)
        assert before <= workers_of(server)
        assert set(running.report.generations) == {"1"}
        site.write("3")
        server.signal(signal.SIGHUP)
        running.wait_generation("3")
    running.report.check()
    assert words in server.stderr
    shown = server.stderr.count(f'{site.path}", line 1')
    assert shown == (0 if "exit" in broken else 1), server.stderr
    stop(server)


def test_a_broken_reload_on_the_other_ends_with_the_repaired(start_site, site):
    server = start_site()
    with load(server.address) as running:
        for generation in range(2, 8):
            site.write(str(generation), "def" if generation % 2 == 0 else "")
            server.signal(signal.SIGHUP)
            running.pause(0.1)
        running.wait_generation("7")
    running.report.check()
    stop(server)


def test_a_reload_reads_the_configuration_again(start_site, site, tmp_path):
    configuration = tmp_path / "fastwsgi.toml"
    configuration.write_text("workers = 1\n")
    server = start_site("--config", str(configuration), workers=None)
    with load(server.address) as running:
        before = wait_for_workers(server, 1)
        configuration.write_text("workers = 3\n")
        server.signal(signal.SIGHUP)
        running.wait_workers(*wait_for_workers(server, 3, without=before))
        configuration.write_text("wrokers = 4\n")
        server.signal(signal.SIGHUP)
        server.wait_said("wrokers")
        running.wait_answers()
        assert len(workers_of(server)) == 3
    running.report.check()
    stop(server)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_who_came_to_an_address_that_a_reload_gives_up_is_answered(
    start_site, tmp_path, short_path, workers, kind
):
    configuration = tmp_path / "fastwsgi.toml"
    second = f"unix:{short_path}/socket" if kind == "unix" else "127.0.0.1:0"
    configuration.write_text(f'bind = ["127.0.0.1:0", "{second}"]\n')
    server = start_site("--config", str(configuration), workers=workers, started=False)
    ports = server.wait_started()
    address = str(short_path / "socket") if kind == "unix" else ("127.0.0.1", ports[1])
    with load(server.address) as staying, load(address) as leaving:
        leaving.wait_answers()
        staying.wait_answers()
        leaving.listening_ends()
        configuration.write_text('bind = ["127.0.0.1:0"]\n')
        server.signal(signal.SIGHUP)
        leaving.wait(lambda: leaving.report.refused == 20, "everybody sent away")
        staying.wait_answers()
    leaving.report.check()
    staying.report.check()
    stop(server)


def test_a_worker_ignores_a_hang_up(start_site):
    """`pkill -HUP fastwsgi` reaches the workers, too."""
    server = start_site()
    before = wait_for_workers(server, 2)
    for pid in before:
        os.kill(pid, signal.SIGHUP)
    with load(server.address) as running:
        running.wait_answers()
        running.wait_workers(*before)
    running.report.check()
    stop(server)


# USR2


class Installed:
    """A copy of fastwsgi that a test may change as an upgrade would."""

    def __init__(self, directory):
        self.package = directory / "installed" / "fastwsgi"
        source = Path(fastwsgi.__file__).parent
        shutil.copytree(source, self.package, ignore=shutil.ignore_patterns("__pycache__"))
        self.environment = {"PYTHONPATH": os.pathsep.join([str(self.package.parent), PYTHONPATH])}

    def upgrade(self, version):
        module = self.package / "__init__.py"
        text = re.sub(
            "^__version__ = .*", f'__version__ = "{version}"', module.read_text(), flags=re.MULTILINE
        )
        module.write_text(text)

    def break_down(self):
        (self.package / "supervisor.py").write_text("def\n")


@pytest.fixture
def installed(tmp_path):
    return Installed(tmp_path)


@WAYS
def test_an_upgrade_fails_nobody(start_site, installed, options):
    server = start_site(*options, **installed.environment)
    with load(server.address, wrk=WRK_BESIDE) as running:
        running.wait_answers()
        before = workers_of(server)
        installed.upgrade("99.1")
        server.signal(signal.SIGUSR2)
        server.wait_said("fastwsgi 99.1")
        wait_until(lambda: not before & workers_of(server), "workers of the new server", 3 * PATIENCE)
        running.wait_answers()
    running.report.check(least=500)
    assert server.is_running()
    stop(server)


def test_an_upgraded_server_writes_its_access_log(start_site, tmp_path):
    """By workers that come later, too, when those of the former server are gone."""
    log = tmp_path / "access"
    server = start_site("--access-logfile", str(log))
    before = wait_for_workers(server, 2)
    server.signal(signal.SIGUSR2)
    now = wait_for_workers(server, 2, without=before)
    for pid in now:
        os.kill(pid, signal.SIGKILL)
    wait_for_workers(server, 2, without=now)
    wait_until(lambda: server.ask("/8").status == 200, "an answer")
    wait_until(lambda: "GET /8" in log.read_text(), "its line")
    stop(server)


def test_an_upgrade_that_does_not_start_changes_nothing(start_site, site, installed):
    server = start_site(**installed.environment)
    with load(server.address) as running:
        running.wait_answers()
        before = workers_of(server)
        good = (installed.package / "supervisor.py").read_text()
        installed.break_down()
        server.signal(signal.SIGUSR2)
        server.wait_said("Not upgraded")
        running.wait_workers(*before)
        assert before <= workers_of(server)
        # It still reloads, and upgrades when it can.
        site.write("2")
        server.signal(signal.SIGHUP)
        running.wait_generation("2")
        (installed.package / "supervisor.py").write_text(good)
        installed.upgrade("99.2")
        server.signal(signal.SIGUSR2)
        server.wait_said("fastwsgi 99.2")
        running.wait_answers()
    running.report.check(least=500)
    stop(server)


def test_an_upgrade_that_cannot_be_tried_changes_nothing(start_site, tmp_path):
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    server = start_site(interpreter=str(python))
    before = wait_for_workers(server, 2)
    python.unlink()
    server.signal(signal.SIGUSR2)
    server.wait_said("Not upgraded")
    assert server.ask("/7").status == 200
    assert workers_of(server) == before
    stop(server)


def test_a_long_request_is_finished_across_an_upgrade(start_site, installed):
    server = start_site(**installed.environment)
    with load(server.address, work=0.01) as running, server.connect() as client:
        client.send(request("/7?sleep=3"))
        running.wait_answers()
        installed.upgrade("99.3")
        server.signal(signal.SIGUSR2)
        server.wait_said("fastwsgi 99.3")
        assert client.read_response().status == 200
    running.report.check()
    stop(server)


def test_an_upgraded_server_reloads_and_stops_as_ever(start_site, site, installed):
    server = start_site(**installed.environment)
    with load(server.address) as running:
        for version in ("99.4", "99.5"):
            installed.upgrade(version)
            server.signal(signal.SIGUSR2)
            server.wait_said(f"fastwsgi {version}")
            running.wait_answers()
            site.write(version)
            server.signal(signal.SIGHUP)
            running.wait_generation(version)
        running.listening_ends()
        server.terminate()
        assert server.wait() == 0, server.stderr
    running.report.check()
    expect_nobody_left(server)
