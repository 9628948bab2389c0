"""PID files, titles, daemons and orphans, with real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastwsgi.errors import ConfigError
from fastwsgi.process import PidFile

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")


def python(code, *arguments, **options):
    """Run a program to its end; its output is read as lines."""
    done = subprocess.run(
        [sys.executable, "-c", "import os, sys, time\nfrom fastwsgi.process import *\n" + code, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        **options,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---- PID files ----


def refusal(path):
    with pytest.raises(ConfigError) as caught:
        PidFile(path)
    return str(caught.value)


def test_a_pid_file_lasts_as_long_as_its_process(tmp_path):
    path = tmp_path / "pid"
    file = PidFile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o777 == 0o644 & ~umask()
    file.close()
    assert not path.exists()


def umask():
    former = os.umask(0)
    os.umask(former)
    return former


@pytest.fixture
def holder(tmp_path):
    """A process with the PID file `pid`; a line on its standard input ends it."""
    code = """
from fastwsgi.process import PidFile
file = PidFile("pid")
print(flush=True)
input()
file.close()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline()
        yield process
        process.kill()


def test_the_file_of_a_live_process_is_respected(holder, tmp_path):
    path = tmp_path / "pid"
    assert refusal(str(path)) == (
        f"--pid {path}: process {holder.pid} has it and runs; stop that, or choose another file"
    )
    assert path.read_text() == f"{holder.pid}\n"
    holder.communicate(b"\n")
    assert not path.exists()
    PidFile(str(path)).close()


def test_the_file_of_a_killed_process_is_taken_over(holder, tmp_path):
    path = tmp_path / "pid"
    holder.kill()
    holder.wait()
    assert path.read_text() == f"{holder.pid}\n"
    file = PidFile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    file.close()


@pytest.mark.parametrize("content", ["1\n", f"{os.getppid()}", "", "99999999\n"])
def test_a_number_that_is_anothers_by_now_stops_nobody(tmp_path, content):
    path = tmp_path / "pid"
    path.write_text(content)
    file = PidFile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    file.close()


def test_a_child_does_not_have_the_lock(tmp_path):
    path = tmp_path / "pid"
    code = "PidFile(sys.argv[1])\nif os.fork(): os._exit(0)\nos.close(1); os.close(2); time.sleep(60)"
    child = subprocess.Popen(
        [sys.executable, "-c", "import os, sys, time\nfrom fastwsgi.process import *\n" + code, str(path)],
        start_new_session=True,
    )
    try:
        child.wait(10)
        PidFile(str(path)).close()
    finally:
        os.killpg(child.pid, signal.SIGKILL)


def test_after_an_exec_it_is_still_ours(tmp_path):
    path = tmp_path / "pid"
    again = (
        "from fastwsgi.process import PidFile; import os, sys; f = PidFile(sys.argv[1]); print(os.getpid()); "
    )
    again += "print(open(sys.argv[1]).read().strip()); f.close()"
    code = (
        "f = PidFile(sys.argv[1])\nos.execv(sys.executable, [sys.executable, '-c', sys.argv[2], sys.argv[1]])"
    )
    code, lines, errors = python(code, str(path), again)
    assert (code, errors) == (0, "")
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert not path.exists()


@pytest.mark.parametrize("content", ["import flask\n", "12 monkeys", "-1"])
def test_other_files_are_respected(tmp_path, content):
    path = tmp_path / "app.py"
    path.write_text(content)
    assert refusal(str(path)) == f"--pid {path}: this is no PID file; choose another"
    assert path.read_text() == content
    assert refusal(os.devnull) == f"--pid {os.devnull}: this is no PID file; choose another"


def test_no_place_for_it(tmp_path):
    assert refusal(str(tmp_path)) == f"--pid {tmp_path}: Is a directory"
    assert refusal(f"{tmp_path}/missing/pid") == f"--pid {tmp_path}/missing/pid: No such file or directory"


def test_a_file_that_was_replaced_is_left(tmp_path):
    path = tmp_path / "pid"
    file = PidFile(str(path))
    path.unlink()
    path.write_text("7\n")
    file.close()
    assert path.read_text() == "7\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up being root")
def test_whoever_may_not_remove_it_leaves_it_empty(short_path):
    code = """
file = PidFile(sys.argv[1])
file.give_to(65534, 65534)
os.setgid(65534)
os.setuid(65534)
file.close()
"""
    path = short_path / "pid"
    short_path.chmod(0o755)
    assert python(code, str(path)) == (0, [], "")
    assert path.read_text() == ""
    assert path.stat().st_uid == 65534


# ---- titles ----


@linux_only
def test_the_title_without_a_package():
    code = """
sys.modules["setproctitle"] = None
set_title(*sys.argv[1:])
print(open("/proc/self/comm").read().strip())
"""
    assert python(code, "worker")[1] == ["fastwsgi worker"]
    assert python(code, "worker", "shop")[1] == ["shop worker"]
    assert python(code, "worker", "a much longer name")[1] == ["a much longer n"]


def test_the_title_with_the_package(tmp_path):
    (tmp_path / "setproctitle.py").write_text("setproctitle = print")
    code = "sys.path.insert(0, '.')\nset_title('worker')\nset_title('worker', 'shop')"
    assert python(code, cwd=tmp_path)[1] == ["fastwsgi: worker", "fastwsgi: worker [shop]"]


# ---- orphans ----


@linux_only
def test_a_subreaper_gets_the_orphans():
    code = """
assert become_subreaper()
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    if os.fork() == 0:
        os.read(reader, 1)
        os._exit(7)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
os.write(writer, b"x")
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert python(code) == (0, ["7"], "")


# ---- daemons ----


DAEMON = """
launch = daemonize()
with open("daemon", "w") as file:
    print(os.getpid(), os.getsid(0), os.getppid(), file=file)
"""


def daemon(directory, code):
    begun = time.monotonic()
    code, output, errors = python(DAEMON + code, cwd=directory)
    return code, output, errors, time.monotonic() - begun


def has_ended(directory):
    numbers = (directory / "daemon").read_text().split()
    return not numbers or not Path(f"/proc/{numbers[0]}").exists()


def test_the_command_ends_when_the_daemon_is_ready(tmp_path):
    code = """
print("said before")
sys.stdout.flush()
time.sleep(0.5)
leave_terminal()
print("said after")
launch.tell()
time.sleep(60)
"""
    status, output, errors, seconds = daemon(tmp_path, code)
    pid, session, parent = map(int, (tmp_path / "daemon").read_text().split())
    try:
        assert (status, output, errors) == (0, ["said before"], "")
        assert 0.5 <= seconds < 20
        os.kill(pid, 0)
        assert session not in (pid, os.getsid(0))
        assert parent != os.getpid()
    finally:
        os.kill(pid, signal.SIGKILL)


def test_the_command_ends_with_the_code_of_a_daemon_that_fails(tmp_path):
    code = "print('no such module', file=sys.stderr)\nlaunch.tell(4)\n"
    assert daemon(tmp_path, code)[:3] == (4, [], "no such module\n")


def test_a_daemon_that_dies_is_a_failure(tmp_path):
    code = "os.kill(os.getpid(), 9)"
    assert daemon(tmp_path, code)[:3] == (1, [], "fastwsgi: the server ended before it was ready\n")


def test_nobody_waits_for_the_children_of_a_daemon(tmp_path):
    code = """
if os.fork() == 0:
    leave_terminal()
    time.sleep(60)
leave_terminal()
os._exit(3)
"""
    try:
        status, *_, seconds = daemon(tmp_path, code)
        assert status == 1
        assert seconds < 20
    finally:
        _, session, _ = map(int, (tmp_path / "daemon").read_text().split())
        os.killpg(session, signal.SIGKILL)


@pytest.mark.parametrize("kept", [True, False])
def test_logs_that_go_to_a_file_go_on(tmp_path, kept):
    code = f"""
leave_terminal(keep={[2] if kept else []})
print("logged", file=sys.stderr)
print("written to", os.readlink("/proc/self/fd/1"), file=sys.stderr)
launch.tell()
"""
    with open(tmp_path / "log", "w") as log:
        done = subprocess.run(
            [sys.executable, "-c", "import os, sys\nfrom fastwsgi.process import *\n" + DAEMON + code],
            stdout=log,
            stderr=log,
            cwd=tmp_path,
            timeout=30,
        )
    assert done.returncode == 0
    wait_for(lambda: has_ended(tmp_path))
    assert (tmp_path / "log").read_text() == ("logged\nwritten to /dev/null\n" if kept else "")


def test_logs_that_go_to_a_pipe_do_not(tmp_path):
    code = "leave_terminal(keep=[2])\nprint('logged', file=sys.stderr)\nlaunch.tell()"
    assert daemon(tmp_path, code)[:3] == (0, [], "")
