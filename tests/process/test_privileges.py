"""--user, --group and --umask: a server that was started as root and is not."""

import base64
import grp
import hashlib
import json
import os
import pwd
import resource
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from process.family import run_as_nobody, stop, wait_for_workers, workers_of
from process.load import load
from subprocesses import Process
from support import Client, request, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up being root")

NOBODY = pwd.getpwnam("nobody")
DAEMON = grp.getgrnam("daemon").gr_gid
AS_NOBODY = {
    "getuid": NOBODY.pw_uid,
    "geteuid": NOBODY.pw_uid,
    "getgid": NOBODY.pw_gid,
    "getegid": NOBODY.pw_gid,
    "getgroups": sorted(os.getgrouplist("nobody", NOBODY.pw_gid)),
}


@pytest.fixture
def open_path(short_path):
    """A directory that everybody may enter, and that root owns."""
    short_path.chmod(0o755)
    return short_path


def owner(path):
    status = Path(path).stat()
    return status.st_uid, status.st_gid


def test_user(start_public):
    server = start_public("--user", "nobody", "identity_app:app")
    answer = json.loads(server.ask().text)
    assert answer["at_import"] == answer["now"] == AS_NOBODY
    assert not answer["can_be_root"]
    # What a spool file needs, and every thread.
    with server.connect() as client:
        client.send(request("/", "POST", content=b"x" * 2_000_000))
        assert json.loads(client.read_response().content)["now"] == AS_NOBODY
    server.stop()


@pytest.mark.parametrize(
    ("arguments", "uid", "gid"),
    [
        (("-u", "nobody", "-g", "daemon"), NOBODY.pw_uid, DAEMON),
        (("-u", "54321", "-g", "54322"), 54321, 54322),
        (("-g", "daemon"), 0, DAEMON),
        (("-u", "root"), 0, 0),
    ],
    ids=str,
)
def test_names_and_numbers(start_public, arguments, uid, gid):
    server = start_public(*arguments, "identity_app:app")
    now = json.loads(server.ask().text)["now"]
    assert [now[key] for key in ("getuid", "geteuid", "getgid", "getegid")] == [uid, uid, gid, gid]
    server.stop()


def test_files_have_the_owner_and_mode(start_public, open_path):
    logs = open_path / "logs"
    logs.mkdir()
    os.chown(logs, NOBODY.pw_uid, NOBODY.pw_gid)
    paths = {name: logs / name for name in ("access", "error")}
    socket_path = open_path / "socket"
    server = start_public(
        "--bind",
        f"unix:{socket_path}",
        *("--user", "nobody", "--group", "daemon", "--umask", "027"),
        *("--access-logfile", str(paths["access"]), "--error-logfile", str(paths["error"])),
        "identity_app:app",
        started=False,
    )
    wait_until(lambda: paths["error"].exists() and "Ctrl-C" in paths["error"].read_text(), "the start")
    assert owner(socket_path) == (NOBODY.pw_uid, DAEMON)
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o750
    for path in paths.values():
        assert owner(path) == (NOBODY.pw_uid, DAEMON)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with Client(str(socket_path)) as client:
        assert '"umask": 23' in client.ask().text
    # A rotation: they are opened anew by whoever the server is now.
    for name, path in paths.items():
        path.rename(logs / f"{name}.1")
    server.signal(signal.SIGUSR1)
    wait_until(paths["access"].exists, "a new access log")
    with Client(str(socket_path)) as client:
        assert client.ask().status == 200
    wait_until(lambda: paths["access"].read_text().count("\n") == 1, "a line")
    wait_until(lambda: "reopened" in paths["error"].read_text(), "a message")
    server.stop()


@pytest.mark.parametrize("alone", [True, False])
def test_passwords_that_only_root_may_read(start_public, open_path, alone):
    path = open_path / "passwords"
    digest = base64.b64encode(hashlib.pbkdf2_hmac("sha256", b"sesame", b"salt", 10)).decode()
    path.write_text(f"ann:pbkdf2_sha256$10$salt${digest}\n")
    path.chmod(0o600)
    server = start_public("--user", "nobody", "--route", f"/ auth={path}", "identity_app:app", alone=alone)
    assert server.ask().status == 401
    credentials = base64.b64encode(b"ann:sesame").decode()
    answer = server.ask(fields=[("Authorization", f"Basic {credentials}")])
    assert json.loads(answer.text)["now"] == AS_NOBODY
    server.stop()


def test_files_of_others_stay_theirs(start_public, open_path):
    log = open_path / "log"
    log.touch()
    os.chown(log, DAEMON, DAEMON)
    server = start_public("--user", "nobody", "--access-logfile", str(log), "identity_app:app")
    assert server.ask().status == 200
    wait_until(lambda: log.read_text(), "a line")
    assert owner(log) == (DAEMON, DAEMON)
    server.stop()


def test_umask_alone(start, open_path):
    server = start("--bind", f"unix:{open_path}/socket", "-m", "0", "identity_app:app", started=False)
    server.wait_said("Ctrl-C")
    assert stat.S_IMODE((open_path / "socket").stat().st_mode) == 0o777
    server.stop()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--user", "no-such-user"), "fastwsgi: --user no-such-user: there is no such user"),
        (("--group", "no-such-group"), "fastwsgi: --group no-such-group: there is no such group"),
        (
            ("--user", "54321"),
            "fastwsgi: --user 54321: this number has no entry and so no group; give --group too",
        ),
        (("--umask", "9"), "fastwsgi: --umask: '9' is not an octal number from 0 to 777"),
    ],
    ids=str,
)
def test_one_line_and_exit_code_1(start, arguments, message):
    server = start(*arguments, "identity_app:app", started=False)
    assert server.wait() == 1
    assert server.lines == [message]


def test_who_is_not_root_cannot_become_another(interpreter):
    done = run_as_nobody(
        interpreter, "-m", "fastwsgi", "--bind", "127.0.0.1:0", "--user", "daemon", "identity_app:app"
    )
    message = f"--user daemon: only root can change to another (this is user {NOBODY.pw_uid})"
    assert (done.returncode, done.stderr) == (1, f"fastwsgi: {message}\n")


def test_who_is_nobody_already_needs_not_be_root(interpreter):
    # And its group: there is nothing to change.
    done = run_as_nobody(interpreter, "-m", "fastwsgi", "--user", "nobody", "no_such_module:app")
    assert (done.returncode, "no_such_module" in done.stderr) == (4, True)


@pytest.mark.parametrize("user", ["nobody", None])
def test_a_reload_does_not_change_the_user(start_public, open_path, user):
    """The supervisor itself is that one, and could not become another."""
    settings = open_path / "settings.toml"
    settings.write_text(f"user = '{user}'\n" if user else "")
    server = start_public("--config", str(settings), "identity_app:app")
    before = workers_of(server)
    for name, other in (("user", "daemon"), ("group", "daemon")):
        settings.write_text(f"{name} = '{other}'\n")
        server.signal(signal.SIGHUP)
        server.wait_said(f"before: --{'user' if user else name} cannot be changed by a reload")
    assert workers_of(server) == before
    settings.write_text(f"threads = 2\nuser = '{user}'\n" if user else "threads = 2\n")
    server.signal(signal.SIGHUP)
    wait_for_workers(server, 1, without=before)
    assert json.loads(server.ask().text)["now"]["getuid"] == (NOBODY.pw_uid if user else 0)
    stop(server)


def test_without_processes_it_tries_again(start_public):
    """Here, because the limit does not hold for root."""
    most = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (40, most[1]))
    try:
        server = start_public("--user", "nobody", "--workers", "2", "identity_app:app")
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, most)
    before = wait_for_workers(server, 2)
    others = [subprocess.Popen(["sleep", "60"], user="nobody", group=NOBODY.pw_gid) for _ in range(40)]
    try:
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        server.wait_said("No worker can be started")
        time.sleep(2.5)
        assert server.stderr.count("No worker can be started") == 1, server.stderr
    finally:
        for process in others:
            process.kill()
            process.wait()
    wait_for_workers(server, 2, without=before)
    assert server.ask("/").status == 200
    server.stop()


def test_the_pid_file_of_a_server_that_was_root(interpreter, open_path):
    """It lies where only root may write, as in /run: it can be taken over after an upgrade all the same."""
    file = open_path / "pid"
    options = ("--bind", "127.0.0.1:0", "--workers", "1", "--user", "nobody", "--pid", "pid")
    server = Process([*options, "identity_app:app"], open_path, {"PYTHONDONTWRITEBYTECODE": "1"}, interpreter)
    try:
        server.wait_started()
        assert owner(file) == (NOBODY.pw_uid, NOBODY.pw_gid)
        before = workers_of(server)
        server.signal(signal.SIGUSR2)
        wait_until(lambda: not before & workers_of(server), lambda: f"an upgrade: {server.stderr}")
        assert file.read_text() == f"{server.pid}\n", server.stderr
        stop(server)
        # It cannot be removed there.
        assert file.read_text() == ""
    finally:
        server.clean_up()


def test_a_server_that_stops_fails_nobody(start_public):
    """Some kernels leave socket filters to root: then its workers have other means."""
    for _ in range(3):
        server = start_public("--user", "nobody", "--workers", "2", "numbered:numbered('1')", alone=True)
        server.wait_said("workers serve")
        with load(server.address) as running:
            running.wait_answers(500)
            running.listening_ends()
            stop(server)
            running.wait(lambda: running.report.refused == 20, "everybody sent away")
        running.report.check(least=500)
