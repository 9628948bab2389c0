"""The site of the tests, and the processes that serve it: supervisor, workers, and whom they leave behind."""

import contextlib
import json
import os
import pwd
import resource
import signal
import subprocess
import time

import psutil
import pytest

from subprocesses import PYTHONPATH
from support import PATIENCE, wait_until

# The ways in which workers come by the application and by their connections.
WAYS = pytest.mark.parametrize(
    "options", [(), ("--preload",), ("--reuse-port",)], ids=["", "preload", "reuse-port"]
)


class Site:
    """The module of a site, written anew for each generation of its code."""

    def __init__(self, directory):
        self.path = directory / "site_app.py"

    def write(self, generation, before=""):
        """`before`: what runs first when the module is imported."""
        self.path.write_text(
            f"{before}\nfrom trouble import troubled\n\napplication = troubled({generation!r})\n"
        )


class Configured:
    """A server with a file of settings, which `change` reloads and `refuse` tries to."""

    def __init__(self, start, directory):
        self._start = start
        self.file = directory / "settings.toml"
        self.settings = {"app": "site_app:application", "workers": 2, "bind": ["127.0.0.1:0"]}

    def start(self, **settings):
        self.write(**settings)
        self.server = self._start("--config", str(self.file), started=False, PYTHONDONTWRITEBYTECODE="1")
        loaders = self.settings.get("preload", "off") != "off"
        wait_for_workers(self.server, self.settings["workers"] + loaders)
        return self.server

    def write(self, **settings):
        """Change some; None takes one away."""
        self.settings |= settings
        given = {name: value for name, value in self.settings.items() if value is not None}
        self.file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in given.items()))

    def change(self, **settings):
        """Reload with these; return when none of the former workers is there any more."""
        before = workers_of(self.server)
        self.write(**settings)
        self.server.signal(signal.SIGHUP)
        wait_until(
            lambda: (
                len(workers_of(self.server)) >= self.settings["workers"]
                and not before & workers_of(self.server)
            ),
            lambda: f"other workers: {self.server.stderr}",
            2 * PATIENCE,
        )

    def refuse(self, words, **settings):
        """Reload with these, which is refused with these words; the former settings count again."""
        former, before = self.settings.copy(), workers_of(self.server)
        self.write(**settings)
        self.server.signal(signal.SIGHUP)
        self.server.wait_said(f"Not reloaded, those that serve go on as before: {words}")
        assert workers_of(self.server) == before
        self.settings = former


def text_of(file):
    return file.read_text() if file.exists() else ""


def workers_of(server):
    """The process numbers of the living children of the supervisor; with --preload the loader, too."""
    children = psutil.Process(server.pid).children()
    return {child.pid for child in children if is_alive(child)}


def is_alive(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def wait_for_workers(server, number, without=(), seconds=PATIENCE):
    """Wait until there are so many, none of them of `without`; return their process numbers."""

    def there():
        workers = workers_of(server)
        # In a tuple, since no worker at all may be what is waited for.
        return (workers,) if len(workers) == number and not workers & set(without) else None

    [workers] = wait_until(there, lambda: f"{number} workers: {workers_of(server)}; {server.stderr}", seconds)
    return workers


def family_of(server):
    """Every living process that was started for this test, wherever it belongs now."""
    family = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TEST_DIRECTORY") == str(server.directory) and is_alive(process):
                family[process.pid] = process.name()
    return family


def expect_nobody_left(server, seconds=PATIENCE):
    wait_until(lambda: not family_of(server), lambda: f"left behind: {family_of(server)}", seconds)


def stop(server):
    """Terminate it: it ends well, and nobody is left."""
    server.stop()
    expect_nobody_left(server)


def renew(server, site, running):
    """Reload and upgrade it under a load, until nobody serves any more who did before."""
    site.write("2")
    server.signal(signal.SIGHUP)
    running.wait_generation("2")
    former = workers_of(server)
    server.signal(signal.SIGUSR2)
    server.wait_said("becomes the new server")
    wait_until(lambda: server.stderr.count("Reloaded in") == 2, lambda: server.stderr, 20)
    wait_until(lambda: not former & workers_of(server), lambda: f"other workers: {server.stderr}", 20)
    running.wait_answers()


def memory_of(server):
    """What its processes have to themselves, and their share of what they have in common, in octets."""
    total = 0
    for pid in family_of(server):
        with contextlib.suppress(psutil.Error):
            total += psutil.Process(pid).memory_full_info().pss
    return total


@contextlib.contextmanager
def standing_still(pids):
    """These processes do nothing while it lasts."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(0.05)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def limited(pid, what, number):
    """A process has so much of a resource while it lasts."""
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (number, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


def run_as_nobody(interpreter, *arguments):
    return subprocess.run(
        [interpreter, *arguments],
        user="nobody",
        group=pwd.getpwnam("nobody").pw_gid,
        extra_groups=[],
        cwd="/",
        env={"PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
