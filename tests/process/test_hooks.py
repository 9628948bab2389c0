"""The hooks of a gunicorn.conf.py, in the processes in which gunicorn calls them."""

import os
import signal

import pytest

from support import wait_until

# Each hook writes a line: its name, the process, and what it can see of its arguments.
CONF = """
import os, threading

def write(*words):
    with open("hooks", "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

def on_starting(server): write("on_starting", os.getpid(), server.pid, server.num_workers)
def when_ready(server): write("when_ready", os.getpid(), len(server.WORKERS), *server.address)
def on_reload(server): write("on_reload", os.getpid())
def pre_fork(server, worker): write("pre_fork", os.getpid(), worker.age)
def post_fork(server, worker): write("post_fork", os.getpid(), worker.pid, worker.ppid)
def post_worker_init(worker): write("post_worker_init", os.getpid(), worker.cfg.threads, bool(worker.wsgi))
def worker_int(worker): write("worker_int", os.getpid())
def worker_abort(worker): write("worker_abort", os.getpid())
def pre_request(worker, req): write("pre_request", os.getpid(), req.method, req.path)
def post_request(worker, req, environ, resp): write("post_request", os.getpid(), resp.status_code, resp.sent)
def worker_exit(server, worker): write("worker_exit", os.getpid(), worker.pid)
def child_exit(server, worker): write("child_exit", os.getpid(), worker.pid)
def nworkers_changed(server, new, old): write("nworkers_changed", os.getpid(), new, old)
def pre_exec(server): write("pre_exec", os.getpid())
def on_exit(server): write("on_exit", os.getpid())
"""


class Calls:
    """What the hooks have written."""

    def __init__(self, file):
        self.file = file

    def __iter__(self):
        return (
            (line.split() for line in self.file.read_text().splitlines()) if self.file.exists() else iter(())
        )

    def of(self, name):
        return [words[1:] for words in self if words[0] == name]

    def names(self, process):
        return [words[0] for words in self if words[1] == str(process)]

    def wait(self, name, times=1):
        wait_until(lambda: len(self.of(name)) >= times, lambda: f"{times} times {name} in {list(self)}")
        return self.of(name)


@pytest.fixture
def hooked(start, tmp_path):
    """Start with all hooks; return the server and the calls."""

    def hooked(*arguments):
        (tmp_path / "gunicorn.conf.py").write_text(CONF)
        server = start("-c", "gunicorn.conf.py", *arguments, "apps:hello")
        return server, Calls(tmp_path / "hooks")

    return hooked


def test_from_start_to_end(hooked):
    server, calls = hooked("-w", "2", "--threads", "3")
    calls.wait("post_worker_init", 2)
    [[_, pid, workers]] = calls.of("on_starting")
    assert (pid, workers) == (str(server.pid), "2")
    workers = [words[0] for words in calls.of("post_fork")]
    assert all(words == [words[0], words[0], str(server.pid)] for words in calls.of("post_fork"))
    assert all(words[1:] == ["3", "True"] for words in calls.of("post_worker_init"))
    assert server.ask("/some/path?x=1").text == "hello"
    [[asked, *words]] = calls.wait("pre_request")
    assert words == ["GET", "/some/path"]
    assert calls.wait("post_request") == [[asked, "200", "5"]]
    assert asked in workers
    server.stop()
    assert sorted(words[1] for words in calls.of("child_exit")) == sorted(workers)
    first, *others, last = calls.names(server.pid)
    assert (first, last) == ("on_starting", "on_exit")
    assert sorted(others) == ["child_exit", "child_exit", "pre_fork", "pre_fork", "when_ready"]
    for worker in workers:
        requests = ["pre_request", "post_request"] if worker == asked else []
        assert calls.names(worker) == ["post_fork", "post_worker_init", *requests, "worker_exit"]


def test_reload(hooked):
    server, calls = hooked("-w", "1")
    [[former, *_]] = calls.wait("post_worker_init")
    server.signal(signal.SIGHUP)
    calls.wait("child_exit")
    assert calls.of("child_exit") == [[str(server.pid), former]]
    assert calls.of("on_reload") == [[str(server.pid)]]
    assert len(calls.of("post_worker_init")) == 2
    assert len(calls.of("when_ready")) == 1
    server.stop()


def test_more_and_fewer_workers(hooked):
    server, calls = hooked("-w", "1")
    server.signal(signal.SIGTTIN)
    calls.wait("post_worker_init", 2)
    assert calls.wait("nworkers_changed")[-1] == [str(server.pid), "2", "1"]
    server.signal(signal.SIGTTOU)
    calls.wait("child_exit")
    assert calls.wait("nworkers_changed", 2)[-1] == [str(server.pid), "1", "2"]
    server.stop()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_workers_that_are_told_to_quit(hooked, number):
    server, calls = hooked("-w", "1")
    [[worker, *_]] = calls.wait("post_worker_init")
    server.signal(number)
    assert server.wait() == 0
    assert calls.of("worker_int") == [[worker]]
    assert calls.names(server.pid)[-1] == "on_exit"


def test_a_worker_that_hangs(start, hooked, tmp_path):
    server, calls = hooked("-w", "1", "--worker-timeout", "1")
    [[worker, *_]] = calls.wait("post_worker_init")
    os.kill(int(worker), signal.SIGSTOP)
    calls.wait("post_worker_init", 2)
    assert len(calls.of("worker_abort")) == 1
    assert calls.wait("child_exit") == [[str(server.pid), worker]]
    server.stop()


def test_a_hook_that_fails_before_the_start_ends_it(start, tmp_path):
    (tmp_path / "conf.py").write_text("def on_starting(server):\n    1/0\n")
    server = start("-c", "conf.py", "-b", "127.0.0.1:0", "apps:hello", started=False)
    assert server.wait() == 1
    assert server.stderr.count("ZeroDivisionError") == 1


def test_a_hook_that_fails_later_is_logged_and_ends_nothing(start, tmp_path):
    (tmp_path / "conf.py").write_text("def child_exit(server, worker):\n    1/0\n")
    server = start("-c", "conf.py", "-w", "1", "apps:hello")
    assert server.ask().text == "hello"
    server.stop()
    assert "The hook child_exit failed" in server.stderr
