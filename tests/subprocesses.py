"""A server in a process of its own, as `python -m fastwsgi` starts it."""

import atexit
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

import fastwsgi
from support import PATIENCE, Client, wait_until

# The applications of the process tests, and the package from wherever these tests have it.
PYTHONPATH = os.pathsep.join(
    filter(
        None,
        [
            str(Path(__file__).parent / "process"),
            str(Path(fastwsgi.__file__).parents[1]),
            os.environ.get("PYTHONPATH"),
        ],
    )
)

# A shell has what it runs in the background ignore Ctrl-C, and who is begun by that one, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Where servers have their control sockets, also those that a test starts in its own way: no others are there.
RUNTIME_DIRECTORY = tempfile.mkdtemp(prefix="fw-")
os.environ["XDG_RUNTIME_DIR"] = RUNTIME_DIRECTORY
atexit.register(shutil.rmtree, RUNTIME_DIRECTORY, ignore_errors=True)


def skip_without_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")


class Process:
    """A running `python -m fastwsgi`: its output, its clients, its end."""

    def __init__(
        self,
        arguments,
        directory,
        environment,
        interpreter=sys.executable,
        wrapper=(),
        pass_fds=(),
        program=("-m", "fastwsgi"),
    ):
        """wrapper: a command that runs the command behind it in its own place, such as unshare.

        program: what the interpreter runs.
        """
        self.directory = directory
        self.clients = []
        self.stdout = self.stderr = ""
        self.process = subprocess.Popen(
            [*wrapper, interpreter, *program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=directory,
            start_new_session=True,
            pass_fds=pass_fds,
            env={
                **os.environ,
                "PYTHONPATH": PYTHONPATH,
                "PYTHONUNBUFFERED": "1",
                "TEST_DIRECTORY": str(directory),
                "XDG_RUNTIME_DIR": RUNTIME_DIRECTORY,
                **environment,
            },
        )
        self.readers = [
            threading.Thread(target=self.read, args=(name,), daemon=True) for name in ("stdout", "stderr")
        ]
        for reader in self.readers:
            reader.start()

    def read(self, name):
        for line in getattr(self.process, name):
            setattr(self, name, getattr(self, name) + line)

    @property
    def pid(self):
        return self.process.pid

    @property
    def worker(self):
        """The process that serves: the only child of the supervisor, or this one if there is none."""
        children = psutil.Process(self.pid).children()
        assert len(children) < 2, children
        return children[0].pid if children else self.pid

    @property
    def lines(self):
        return self.stderr.splitlines()

    def wait_said(self, words):
        """Wait until the standard error has these words."""
        wait_until(lambda: words in self.stderr, lambda: f"{words!r} in {self.stderr}")

    def wait_started(self):
        """Wait until it has said where it listens; return the ports."""
        wait_until(
            lambda: "Ctrl-C" in self.stderr or self.process.poll() is not None,
            lambda: f"a line with the address: {self.stderr}",
        )
        assert self.process.poll() is None, self.stderr
        self.ports = [int(port) for port in re.findall(r"https?://\S+:([0-9]+)", self.stderr)]
        return self.ports

    @property
    def address(self):
        return ("127.0.0.1", self.ports[0])

    def connect(self, address=None, **options):
        client = Client(address or self.address, **options)
        self.clients.append(client)
        return client

    def ask(self, *arguments, **options):
        with self.connect() as client:
            return client.ask(*arguments, **options)

    def signal(self, number):
        self.process.send_signal(number)

    def terminate(self):
        self.signal(signal.SIGTERM)

    def wait(self, seconds=PATIENCE):
        """Its exit code, once it has ended and all output is here."""
        code = self.process.wait(seconds)
        for reader in self.readers:
            reader.join(1)
        return code

    def stop(self):
        """Terminate it, and see that all went well."""
        for client in self.clients:
            client.close()
        self.terminate()
        code = self.wait()
        assert code == 0, f"exit code {code}: {self.stderr}"

    def waits(self, name):
        """Wait until the application waits for the file of that name."""
        wait_until((self.directory / f"{name}.waits").exists, f"the application waiting for {name}")

    def go_on(self, name):
        (self.directory / name).touch()

    def is_running(self):
        return self.process.poll() is None

    def clean_up(self):
        for client in self.clients:
            client.close()
        # Its children, too, even where it is gone itself: they would hold the pipes.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        for reader in self.readers:
            reader.join(1)
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()
