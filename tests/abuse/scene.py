"""What the scripts share: a server under watch, hostile clients, a normal client beside them, promises."""

import argparse
import contextlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from subprocesses import PYTHONPATH, Process
from support import Client, request, wait_until

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
REST_SECONDS = 20.0
# What the journal lets through in a second, and what else a server says in its life.
RECORDS_PER_SECOND = 20 + 2
OTHER_RECORDS = 20

broken = []


def figure(what, *values):
    """Print one line of the table."""
    print(f"  {what:<50} {', '.join(map(text_of, values))}", flush=True)


def text_of(value):
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{count:,} {kind}" for kind, count in value.items())


def promise(holds, text):
    """What has to be true: said, and the exit code, when it is not."""
    if not holds:
        broken.append(text)
        print(f"  BROKEN PROMISE: {text}", flush=True)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--long", action="store_true", help="the full numbers and times")
    parser.add_argument("--compare", action="store_true", help="other servers too, where that has a meaning")
    return parser.parse_args()


def play(*scenes):
    """Run scene(is_long) for each, and exit with 1 if a promise was broken."""
    is_long = arguments().long
    for scene in scenes:
        print((scene.__doc__ or scene.__name__).partition("\n")[0], flush=True)
        begun = time.monotonic()
        try:
            scene(is_long)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            promise(False, f"{type(error).__name__}: {error}")
        figure("took", f"{time.monotonic() - begun:.1f} s")
    sys.exit(1 if broken else 0)


class Victim(Process):
    """A server under attack: one process, four threads, epoll; what it uses, how it ends."""

    def __init__(self, arguments, directory, wrapper, environment):
        options = [
            "--bind",
            "127.0.0.1:0",
            "--workers",
            "0",
            "--threads",
            "4",
            "--poller",
            "epoll",
            *arguments,
        ]
        paths = {"PYTHONPATH": os.pathsep.join([str(HERE), PYTHONPATH])}
        super().__init__(
            [*options, "victim:application"], directory, {**paths, **environment}, wrapper=wrapper
        )
        self.began = time.monotonic()
        self.wait_started()
        self.before = self.descriptors()

    @property
    def address(self):
        """Where the scripts ask: the last one, which has no TLS if another has."""
        return ("127.0.0.1", self.ports[-1])

    def status(self, name):
        """A figure of /proc/PID/status, in octets."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024

    def memory(self):
        """What is resident, in octets."""
        return self.status("VmRSS")

    def peak(self):
        """The most that was, since forget_peak()."""
        return self.status("VmHWM")

    def forget_peak(self):
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def cpu_seconds(self):
        # The CPU clock of another process (clock_getcpuclockid).
        return time.clock_gettime(~self.pid << 3 | 2)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def counters(self):
        response = self.ask("/counters", fields=[("Connection", "close")])
        assert response.status == 200, f"/counters: {response}"
        return json.loads(response.text)

    def said(self, words):
        return self.stderr.count(words)

    def is_at_rest(self):
        """Nothing is left but the connection and the exchange that ask for it, and these end then."""
        now = self.counters()
        return (now["connections"], now["exchanges"]) == (1, 1) and self.descriptors() <= self.before

    def leave(self, *, failures_of_the_application=0):
        """After the attack: a normal request is answered, nothing is left behind, nothing odd was logged.

        What the logging module says of itself where it has no memory is not odd.
        """
        begun = time.monotonic()
        promise(self.ask().text == "hello", "a normal request is answered after the attack")
        answered = time.monotonic() - begun
        wait_until(
            self.is_at_rest,
            lambda: f"rest: {self.counters()}, {self.descriptors()} descriptors, {self.before} before",
            seconds=REST_SECONDS,
        )
        memory = f"{self.memory() / MIB:.0f} MiB"
        figure("afterwards", f"a normal request took {answered * 1000:.1f} ms", memory)
        seconds = time.monotonic() - self.began
        self.stop()
        # The journal counts by seconds of the clock, and the first and the last are but touched.
        most = RECORDS_PER_SECOND * (int(seconds) + 2) + OTHER_RECORDS
        records = sum(line.startswith("[") for line in self.lines)
        promise(records <= most, f"{records} log records in {seconds:.0f} s are no more than {most:.0f}")
        without_memory = self.said("--- Logging error ---")
        if without_memory:
            figure("log records lost, for lack of memory", without_memory)
        tracebacks = self.said("Traceback") - without_memory
        promise(
            tracebacks == failures_of_the_application,
            f"{tracebacks} tracebacks, {failures_of_the_application} expected:\n{self.stderr[-3000:]}",
        )
        promise("Stopped after" in self.stderr, "the server ends in order")


@contextlib.contextmanager
def victim(*arguments, wrapper=(), **environment):
    with tempfile.TemporaryDirectory(prefix="abuse-") as directory:
        process = Victim(arguments, Path(directory), wrapper, environment)
        try:
            yield process
        except BaseException:
            print("".join(f"    {line}\n" for line in process.lines[-40:]), flush=True)
            raise
        finally:
            process.clean_up()


@contextlib.contextmanager
def crowd(port, **kinds):
    """Hostile clients, so many of each kind, at it while this lasts; yields what they counted, at its end."""
    counted = {}
    command = [sys.executable, str(HERE / "hostile.py"), str(port), *(f"{k}={n}" for k, n in kinds.items())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n", "the hostile clients did not connect"
            yield counted
            process.stdin.close()
            counted.update(json.loads(process.stdout.readline()))
        finally:
            process.kill()


class Normal(threading.Thread):
    """A normal client: asks thirty times a second, by turns over a kept connection and a new one."""

    PER_SECOND = 30
    PATIENCE = 5.0

    def __init__(self, address, tls=None):
        """tls: the context of an ssl client."""
        super().__init__(daemon=True)
        self.address = address
        self.tls = tls
        self.kept = None
        self.took = []
        self.failures = []
        self.has_to_end = threading.Event()

    def run(self):
        while not self.has_to_end.wait(1 / self.PER_SECOND):
            begun = time.monotonic()
            try:
                (self.ask_kept if len(self.took) % 2 else self.ask_anew)()
            except (OSError, AssertionError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                self.kept = None
            self.took.append(time.monotonic() - begun)
        if self.kept:
            self.kept.close()

    def ask_anew(self):
        with Client(self.address, timeout=self.PATIENCE, tls=self.tls) as client:
            assert client.ask().text == "hello"

    def ask_kept(self):
        client = self.kept
        if client is not None:
            try:
                client.send(request())
                if client.receive():
                    return self.take_answer(client)
            except ConnectionError:
                pass
            # It was closed while it was idle: every client asks once more then (RFC 9112, 9.5).
        client = Client(self.address, timeout=self.PATIENCE, tls=self.tls)
        client.send(request())
        return self.take_answer(client)

    def take_answer(self, client):
        response = client.read_response()
        assert response.text == "hello"
        self.kept = None if response.closes else client

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc_info):
        self.has_to_end.set()
        self.join()

    def report(self, may_fail=False):
        """Print its figures; none may have failed, unless may_fail."""
        if not self.took:
            promise(False, "a normal client was answered at all")
            return
        took = sorted(self.took)
        p50, p99 = (took[math.ceil(len(took) * share) - 1] * 1000 for share in (0.5, 0.99))
        figure(
            "normal requests meanwhile",
            f"{len(took)}, p50 {p50:.1f} ms, p99 {p99:.1f} ms",
            f"{len(self.failures)} failed",
        )
        promise(may_fail or not self.failures, f"no normal request fails: {self.failures[:3]}")
