"""The process among others: children of the application, idle CPU, the thread that imports."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from subprocesses import PYTHONPATH
from support import PATIENCE, Client, request, wait_until

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
forks = pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""),
    reason="AddressSanitizer: another thread may hold the allocator's lock, for which the child waits",
)


def test_the_application_runs_commands(start_polled):
    server = start_polled("apps:run_command")
    for _ in range(5):
        assert server.ask().text == "from a command\n"
    server.stop()


@forks
def test_the_application_forks(start_polled):
    server = start_polled("apps:fork_and_exit")
    for _ in range(5):
        assert server.ask().text == "7"
    server.stop()


@forks
def test_a_child_that_comes_back_from_the_application_answers_nobody(start_polled):
    server = start_polled("apps:fork_and_return")
    with server.connect() as client:
        for _ in range(3):
            assert client.ask().text == str(server.worker)
        assert client.ask(fields=[("Connection", "close")]).text == str(server.worker)
        client.expect_end()
    assert server.ask().text == str(server.worker)
    server.stop()
    assert server.stderr.count("Stopped after 5 requests") == 1


@forks
@pytest.mark.parametrize(("path", "code"), [("/exit", "5"), ("/raise", "1")])
def test_a_child_that_leaves_the_application_by_an_exception_ends_with_it(start_polled, path, code):
    server = start_polled("apps:fork_and_raise")
    for _ in range(3):
        assert server.ask(path).text == code
    server.stop()
    assert server.stderr.count("ZeroDivisionError: in the child") == (3 if path == "/raise" else 0)


def test_what_is_printed_after_the_standard_output_was_closed_is_for_no_client(start_polled):
    server = start_polled("apps:close_and_print")
    assert server.ask("/close").text == "done"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(4)]
        for client in clients:
            assert client.ask("/").text == "done"
        for client in clients:
            assert client.ask("/").text == "done"
            assert not client.readable()


@pytest.mark.parametrize("path", [pytest.param("/fork", marks=forks), "/command", "/open"])
def test_a_child_that_stays_holds_no_connection_and_no_port(start_polled, path):
    server = start_polled("apps:leave_a_child")
    children = []
    try:
        for _ in range(3):
            with server.connect() as client:
                response = client.ask(path, fields=[("Connection", "close")])
                children.append(int(response.text))
                client.expect_end()
        server.terminate()
        assert server.process.wait(10) == 0
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        for child in children:
            os.kill(child, 0)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)


def test_no_signal_is_blocked(start):
    server = start("apps:signals")
    assert server.ask().text == "[] set()"
    server.stop()


def test_an_application_that_wants_to_exit_does_not_end_the_server(start):
    server = start("apps:exit_now")
    for _ in range(6):
        assert server.ask().status == 500
    server.stop()


def test_threads_of_the_application_do_not_hold_up_the_end(start):
    server = start("apps:thread_of_its_own")
    assert server.ask().text == "hello"
    server.stop()


def test_a_thread_of_the_application_that_is_no_daemon_is_not_waited_for_for_ever(start):
    server = start("apps:stubborn_thread")
    assert server.ask().text == "hello"
    server.terminate()
    assert server.wait(3 * PATIENCE) == 0
    assert "Not waiting any longer for threads of the application: stubborn-thread" in server.stderr


def test_one_database_connection_serves_one_thread(start_polled):
    server = start_polled("--threads", "1", "apps:visits")
    assert [server.ask().text for _ in range(5)] == ["1", "2", "3", "4", "5"]
    server.stop()


@linux_only
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_an_idle_server_uses_no_cpu(start_polled, used):
    server = start_polled("apps:wait")
    held = descriptors(server.worker)
    with server.connect() as idle:
        # One that says nothing is accepted after a second.
        wait_until(lambda: descriptors(server.worker) > held or used, "the connection being accepted")
        if used:
            for _ in range(20):
                assert idle.ask().status == 200
            slow = server.connect()
            slow.send(request("/file"))
            server.waits("file")
            server.go_on("file")
            assert slow.read_response().text == "file"
        wait_until(lambda: quiet(server.worker), "peace")
        before = activity(server.worker)
        time.sleep(2)
        assert activity(server.worker) == before
    server.stop()


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def activity(pid):
    """CPU ticks and context switches of each thread of a process."""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat") as stat, open(f"/proc/{pid}/task/{task}/status") as status:
            ticks = stat.read().rpartition(")")[2].split()[11:13]
            switches = [line.split()[1] for line in status if "ctxt_switches" in line]
        found[task] = (ticks, switches)
    return found


def quiet(pid):
    before = activity(pid)
    time.sleep(0.1)
    return activity(pid) == before


@linux_only
def test_descriptors_are_closed_on_exec(start):
    server = start("--access-logfile", "access.log", "apps:hello")
    with server.connect() as client:
        assert client.ask().text == "hello"
        for descriptor in os.listdir(f"/proc/{server.worker}/fd"):
            if int(descriptor) > 2:
                with open(f"/proc/{server.worker}/fdinfo/{descriptor}") as info:
                    flags = next(int(line.split()[1], 8) for line in info if line.startswith("flags:"))
                assert flags & os.O_CLOEXEC, os.readlink(f"/proc/{server.worker}/fd/{descriptor}")
    server.stop()


def test_an_access_log_on_a_closed_standard_output(short_path):
    options = f'--access-logfile - --bind "unix:{short_path}/socket"'
    command = f'exec "{sys.executable}" -m fastwsgi {options} apps:hello 1>&-'
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.endswith("the standard output is closed; give a file\n")


def test_without_standard_streams(short_path):
    """As a daemon may be started: with closed descriptors 0, 1 and 2 nothing of ours may take their place."""
    socket_path = short_path / "socket"
    command = f'exec "{sys.executable}" -m fastwsgi --bind "unix:{socket_path}" apps:hello 0<&- 1>&- 2>&-'
    with subprocess.Popen(["sh", "-c", command], env={**os.environ, "PYTHONPATH": PYTHONPATH}) as process:
        try:
            wait_until(socket_path.exists, "the socket")
            with Client(str(socket_path)) as client:
                assert client.ask().text == "hello"
        finally:
            process.terminate()
        assert process.wait(10) == 0
