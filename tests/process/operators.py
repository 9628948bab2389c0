"""What an operator does in a terminal: commands to a running server, and its `top` in tmux."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile

from subprocesses import PYTHONPATH, RUNTIME_DIRECTORY
from support import PATIENCE, Client, wait_until


def socket_of(server):
    """Its control socket."""
    return os.path.join(RUNTIME_DIRECTORY, f"fastwsgi-{server.pid}.sock")


def ask(server, *arguments, **options):
    """Ask at the control socket; the answer, as HTTP has it."""
    with Client(socket_of(server)) as client:
        return client.ask(*arguments, **options)


def stats_of(server):
    return json.loads(ask(server, "/stats").content)


def environment(**more):
    return {**os.environ, "PYTHONPATH": PYTHONPATH, "XDG_RUNTIME_DIR": RUNTIME_DIRECTORY, **more}


def fastwsgi(*words, **more):
    """Run `fastwsgi WORDS` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "fastwsgi", *words],
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        env=environment(**more),
    )


def command(server, name, *words):
    """Run a command for a server to its end."""
    return fastwsgi(name, *words, "--control-socket", socket_of(server))


class Terminal:
    """A terminal in which `fastwsgi top` runs, in a tmux of its own."""

    def __init__(self, server, width=80, height=24, term="xterm"):
        self._directory = tempfile.TemporaryDirectory(prefix="fw-")
        self._tmux = ["tmux", "-f", "/dev/null", "-S", f"{self._directory.name}/tmux"]
        top = [sys.executable, "-m", "fastwsgi", "top", "--control-socket", socket_of(server)]
        # What it prints at its end stays to be seen.
        line = f"TERM={term} {shlex.join(top)}; echo ended with $?; cat"
        self._run("new-session", "-d", "-x", str(width), "-y", str(height), "sh", "-c", line)

    def _run(self, *words):
        return subprocess.run(
            [*self._tmux, *words],
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=environment(LC_ALL="C.UTF-8"),
        ).stdout

    def keys(self, *names):
        """Type keys by their names: Down, Enter, k."""
        for name in names:
            self._run("send-keys", name)

    def resize(self, width, height):
        self._run("resize-window", "-x", str(width), "-y", str(height))

    @property
    def screen(self):
        return self._run("capture-pane", "-p")

    @property
    def raw(self):
        """The screen with its attributes."""
        return self._run("capture-pane", "-p", "-e")

    def wait(self, *words):
        """Wait until all these words are on the screen; return it."""

        def there():
            screen = self.screen
            return screen if all(word in screen for word in words) else None

        return wait_until(there, lambda: f"{words} on the screen:\n{self.screen}")

    def wait_gone(self, *words):
        wait_until(
            lambda: not any(word in self.screen for word in words), lambda: f"{words} gone:\n{self.screen}"
        )

    def close(self):
        with contextlib.suppress(subprocess.SubprocessError):
            self._run("kill-server")
        self._directory.cleanup()
