"""--daemon, --pid and --name through the whole server."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from process.family import expect_nobody_left, family_of, stop, wait_for_workers
from process.load import load
from subprocesses import PYTHONPATH
from support import Client, wait_until

WAYS = pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])


class Command:
    """The command of a daemon: what it has said and with which code, once nobody has its pipes any more."""

    def __init__(self, directory, arguments, environment):
        self.directory = directory
        with subprocess.Popen(
            [
                sys.executable,
                "-m",
                "fastwsgi",
                "--daemon",
                "--workers",
                "2",
                "--bind",
                "127.0.0.1:0",
                *arguments,
            ],
            cwd=directory,
            env={
                **os.environ,
                "PYTHONPATH": PYTHONPATH,
                "PYTHONDONTWRITEBYTECODE": "1",
                "TEST_DIRECTORY": str(directory),
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            self.stdout, self.stderr = process.communicate(timeout=30)
        self.code = process.returncode

    @property
    def pid(self):
        return int((self.directory / "pid").read_text())

    @property
    def address(self):
        [port] = [
            found.laddr.port
            for found in psutil.Process(self.pid).net_connections("tcp")
            if found.status == psutil.CONN_LISTEN
        ]
        return ("127.0.0.1", port)

    def ask(self):
        with Client(self.address) as client:
            return client.ask("/7")

    def stop(self):
        os.kill(self.pid, signal.SIGTERM)
        expect_nobody_left(self)
        assert not (self.directory / "pid").exists()


@pytest.fixture
def start_daemon(tmp_path, site):
    commands = []

    def start_daemon(*arguments, app="site_app:application", **environment):
        commands.append(Command(tmp_path, [*arguments, "--pid", "pid", app], environment))
        return commands[-1]

    yield start_daemon
    for command in commands:
        for pid in family_of(command):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@WAYS
def test_a_daemon_serves_when_its_command_ends_and_has_no_terminal(start_daemon, options):
    command = start_daemon(*options, "--access-logfile", "-")
    assert command.code == 0, command.stderr
    assert "with 2 workers" in command.stderr
    assert "Listening at" in command.stderr
    assert "--error-logfile" in command.stderr.splitlines()[-1], "the last thing that is heard"
    assert command.ask().status == 200
    wait_for_workers(command, 2 + bool(options))
    for pid in family_of(command):
        process = psutil.Process(pid)
        assert process.terminal() is None
        assert os.getsid(pid) != os.getsid(0)
        for fd in range(3):
            assert os.readlink(f"/proc/{pid}/fd/{fd}") == os.devnull
    assert psutil.Process(command.pid).ppid() != os.getpid()
    command.stop()


@WAYS
def test_the_logs_of_a_daemon(start_daemon, tmp_path, options):
    command = start_daemon(*options, "--access-logfile", "access", "--error-logfile", "error")
    assert (command.code, command.stdout, command.stderr) == (0, "", "")
    assert command.ask().status == 200
    wait_until(lambda: "GET /7 " in (tmp_path / "access").read_text(), "an access log line")
    for name in ("access", "error"):
        (tmp_path / name).rename(tmp_path / f"{name}.1")
    os.kill(command.pid, signal.SIGUSR1)
    wait_until((tmp_path / "access").exists, "new files")
    command.stop()
    assert "Listening at" in (tmp_path / "error.1").read_text()
    assert "Stopped after 1 request" in (tmp_path / "error").read_text()


def test_logs_to_the_standard_output_go_on_where_that_is_a_file(start_daemon, tmp_path):
    """As `fastwsgi --daemon > log 2>&1` in a script."""
    options = ("-D", "-b", "127.0.0.1:0", "-w", "1", "--pid", "pid", "--access-logfile", "-")
    with open(tmp_path / "log", "w") as log:
        code = subprocess.call(
            [sys.executable, "-m", "fastwsgi", *options, "site_app:application"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": PYTHONPATH, "TEST_DIRECTORY": str(tmp_path)},
            stdout=log,
            stderr=log,
            timeout=30,
        )
    assert code == 0
    command = Command.__new__(Command)
    command.directory = tmp_path
    assert command.ask().status == 200
    command.stop()
    text = (tmp_path / "log").read_text()
    assert "GET /7 " in text
    assert "Stopped after 1 request" in text
    assert "--error-logfile" not in text


@WAYS
def test_what_fails_is_told_with_its_code(start_daemon, site, options):
    site.write("1", "raise ZeroDivisionError('at import')")
    command = start_daemon(*options)
    assert command.code == 4
    assert command.stderr.count("ZeroDivisionError: at import") == 1
    site.write("1", "import os; os._exit(9)")
    command = start_daemon(*options)
    assert command.code == 3
    assert "exit code 9" in command.stderr
    assert "ended before" not in command.stderr
    expect_nobody_left(command)
    assert not (command.directory / "pid").exists()


def test_a_wrong_address_is_told_with_its_code(start_daemon):
    command = start_daemon("--bind", "unix:/no/such/directory/socket")
    assert command.code == 1
    [line] = command.stderr.splitlines()
    assert "/no/such/directory" in line
    command = start_daemon("--threads", "many")
    assert command.code == 1
    assert len(command.stderr.splitlines()) == 1
    assert not (command.directory / "pid").exists()


@WAYS
def test_what_fails_after_the_import_is_heard(start_daemon, tmp_path, options):
    (tmp_path / "conf.py").write_text(
        "def post_worker_init(worker):\n    raise ZeroDivisionError('in the hook')\n"
    )
    command = start_daemon("--config", "conf.py", *options)
    assert command.code == 3
    assert command.stderr.count("ZeroDivisionError: in the hook") == 1


@WAYS
def test_reloads_and_upgrades_of_a_daemon_keep_its_number_and_file(start_daemon, site, options):
    command = start_daemon(*options, "--error-logfile", "error")
    pid, identity = command.pid, (command.directory / "pid").stat().st_ino
    with load(command.address) as running:
        for generation, number in (("2", signal.SIGHUP), ("3", signal.SIGUSR2), ("4", signal.SIGHUP)):
            site.write(generation)
            os.kill(command.pid, number)
            running.wait_generation(generation)
            assert command.pid == pid
            assert (command.directory / "pid").stat().st_ino == identity
    running.report.check()
    command.stop()


def test_why_a_daemon_was_not_upgraded_is_in_its_log(start_daemon, site):
    command = start_daemon("--error-logfile", "error")
    site.write("2", "raise ZeroDivisionError('at import')")
    os.kill(command.pid, signal.SIGUSR2)
    log = command.directory / "error"
    wait_until(lambda: "Not upgraded" in log.read_text(), "the end of the trial")
    assert log.read_text().count("ZeroDivisionError: at import") == 1
    command.stop()


# The PID file


def test_a_pid_file_is_of_one_server_and_gone_with_it(start, tmp_path):
    first = start("--pid", "pid", "apps:hello")
    assert (tmp_path / "pid").read_text() == f"{first.pid}\n"
    second = start("--bind", "127.0.0.1:0", "--pid", "pid", "apps:hello", started=False)
    assert second.wait() == 1
    [line] = second.lines
    assert f"process {first.pid} has it" in line
    assert (tmp_path / "pid").read_text() == f"{first.pid}\n"
    # One that was left by a server that was killed is taken over.
    first.signal(signal.SIGKILL)
    first.process.wait()
    expect_nobody_left(first)
    third = start("--pid", "pid", "apps:hello")
    assert (tmp_path / "pid").read_text() == f"{third.pid}\n"
    stop(third)
    assert not (tmp_path / "pid").exists()


def test_the_pid_file_is_not_changed_by_a_reload(start_site, tmp_path):
    (tmp_path / "fastwsgi.toml").write_text("pid = 'pid'\n")
    server = start_site()
    assert (tmp_path / "pid").exists()
    (tmp_path / "fastwsgi.toml").write_text("pid = 'other'\n")
    server.signal(signal.SIGHUP)
    server.wait_said("--pid cannot be changed by a reload")
    assert not (tmp_path / "other").exists()
    stop(server)


# The name


def titles(server):
    return {(Path(f"/proc/{pid}/comm").read_text().strip()) for pid in family_of(server)}


def test_the_name_is_in_the_titles(start, site):
    server = start("--name", "shop", "--preload", "site_app:application")
    wait_until(lambda: titles(server) == {"shop supervisor"[:15], "shop worker", "shop loader"}, "titles")
    stop(server)


def test_setproctitle_has_the_whole_name(start, tmp_path):
    (tmp_path / "setproctitle.py").write_text(
        "def setproctitle(title):\n    with open('titles', 'a') as file:\n        print(title, file=file)\n"
    )
    server = start("--name", "a shop with a long name", "apps:hello", PYTHONPATH=f"{tmp_path}:{PYTHONPATH}")
    stop(server)
    assert set((tmp_path / "titles").read_text().splitlines()) == {
        "fastwsgi: supervisor [a shop with a long name]",
        "fastwsgi: worker [a shop with a long name]",
    }


# Without a supervisor


def test_a_daemon_without_a_supervisor(start_daemon, tmp_path):
    command = start_daemon("--workers", "0", "--name", "shop", "--access-logfile", "access")
    assert command.code == 0, command.stderr
    assert "--error-logfile" in command.stderr.splitlines()[-1], "the last thing that is heard"
    assert command.ask().status == 200
    assert family_of(command).keys() == {command.pid}
    assert titles(command) == {"shop worker"}
    process = psutil.Process(command.pid)
    assert process.terminal() is None
    for fd in range(3):
        assert os.readlink(f"/proc/{process.pid}/fd/{fd}") == os.devnull
    second = start_daemon("--workers", "0")
    assert second.code == 1
    assert f"process {command.pid} has it and runs" in second.stderr
    wait_until(lambda: "GET /7 " in (tmp_path / "access").read_text(), "an access log line")
    command.stop()


def test_a_daemon_without_a_supervisor_that_does_not_start(start_daemon, site, tmp_path):
    for before, code, words in (
        ("raise ZeroDivisionError('at import')", 4, "at import"),
        ("", 1, "--access-logfile"),
    ):
        site.write("1", before)
        command = start_daemon("--workers", "0", "--access-logfile", "nowhere/access" if code == 1 else "-")
        assert (command.code, words in command.stderr) == (code, True), command.stderr
        expect_nobody_left(command)
        assert not (tmp_path / "pid").exists()


def test_settings_that_only_a_supervisor_heeds_are_named(start, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text("preload_app = True\ndef post_fork(server, worker): pass\n")
    server = start(
        *("--workers", "0", "--max-requests", "5", "--shutdown-delay", "1s", "-c", "gunicorn.conf.py"),
        *("--control-socket", "none", "--metrics", "127.0.0.1:9", "--statsd-host", "127.0.0.1:9"),
        "apps:hello",
    )
    names = (
        "--max-requests, --preload, --control-socket, --metrics, --statsd-host, --shutdown-delay, "
        "the hooks of gunicorn.conf.py"
    )
    server.wait_said(f"Without a supervisor (--workers 0) there is no effect of {names}")
    stop(server)
