"""A process beside the workers that answers questions about the server: `control` at a listener of its own.

It is forked when somebody connects, and ends when nobody has asked for a while, or when what it was told of
the server is not true any more; the next connection starts another one. So it costs nothing while nobody
asks, and it can die at any time: the supervisor keeps the listener, and requests do not depend on it.
"""

import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from fastwsgi._crew import Crew
from fastwsgi.child import fork
from fastwsgi.config import Settings
from fastwsgi.control import Control, Metrics, View
from fastwsgi.errors import ConfigError
from fastwsgi.generation import NEVER
from fastwsgi.listener import Listener, open_listeners
from fastwsgi.logs import LOG
from fastwsgi.process import runtime_directories, set_title
from fastwsgi.worker import heeding, wakeup

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# It ends after so many seconds without a question.
PATIENCE = 60.0
# What a question may take that it is at when it shall end.
GRACE = 1.0
# From there on it is killed.
KILL_PATIENCE = 5.0
# After one that has failed.
PAUSE = 1.0

BACKLOG = 64


class Monitor:
    """The supervisor's side: a listener, and perhaps a process that serves it."""

    def __init__(self, listener: Listener, answers: "Callable[[View], WSGIApplication]") -> None:
        """answers: the application, from what is known of the server."""
        self.listener = listener
        self.pid = 0
        self.kill_at = NEVER
        self._answers = answers
        self._view: View | None = None  # what the process knows
        self._again_at = 0.0  # no process before that

    def timers(self) -> Iterator[float]:
        """When it has to be looked at."""
        yield self.kill_at
        if self._again_at > time.monotonic():
            yield self._again_at

    def see_to(self, view: View, selector: selectors.BaseSelector) -> None:
        """Have somebody who connects noticed, or the process end that does not know how things are now."""
        now = time.monotonic()
        if now >= self.kill_at:
            self.kill_at = NEVER
            os.kill(self.pid, signal.SIGKILL)
        elif self.pid and self._view != view:
            self._view = view
            self.leave()
        elif not self.pid and now >= self._again_at and self.listener.socket not in selector.get_map():
            selector.register(self.listener.socket, selectors.EVENT_READ, self)

    def start(self, view: View, selector: selectors.BaseSelector, life_fd: int, name: str | None) -> None:
        """Fork the process. Raises `Forked` in it."""
        selector.unregister(self.listener.socket)
        self._view = view
        try:
            self.pid = fork(lambda: self._serve(view, life_fd, name))
        except OSError as error:
            self._fails(f"cannot be forked: {error.strerror}")

    def leave(self) -> None:
        """Have the process end."""
        if self.pid and self.kill_at == NEVER:
            os.kill(self.pid, signal.SIGTERM)
            self.kill_at = time.monotonic() + KILL_PATIENCE

    def ended(self, how: str) -> None:
        """The process has ended; `how` is empty if it should."""
        self.pid, self.kill_at = 0, NEVER
        if how:
            self._fails(how)

    def let_go(self) -> None:
        """In a process that the supervisor has forked: close what is the supervisor's."""
        self.listener.socket.close()

    def close(self) -> None:
        """At the end of the server."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
        self.listener.close()

    def _fails(self, how: str) -> None:
        self._again_at = time.monotonic() + PAUSE
        LOG.error("The process that answers at %s %s; requests are served as before", self.listener.url, how)

    def _serve(self, view: View, life_fd: int, name: str | None) -> int:
        """What the process does."""
        set_title("monitor", name)
        asked_at = time.monotonic()
        application = self._answers(view)

        def noting(environ: "WSGIEnvironment", start_response: "StartResponse") -> "Iterable[bytes]":
            nonlocal asked_at
            asked_at = time.monotonic()
            return application(environ, start_response)

        # Borrowed: the supervisor goes on to listen there.
        listener = Listener(self.listener.socket, self.listener.address, is_borrowed=True)
        crew = Crew(noting, [listener], Settings(threads=1, keep_alive=PATIENCE), LOG)
        crew.watched_fd, crew.beat = life_fd, PATIENCE / 4
        with heeding({signal.SIGTERM: lambda *_: crew.stop(GRACE)}), wakeup(crew):
            crew.start()
            while not crew.finished:
                for level, text in crew.attend():
                    LOG.log(level, text)
                if time.monotonic() - asked_at > PATIENCE or has_ended(life_fd):
                    crew.stop(GRACE)
        return 0


def has_ended(fd: int) -> bool:
    """The other end of a pipe that nobody writes to is closed."""
    try:
        return not os.read(fd, 1)
    except BlockingIOError:
        return False


def open_monitors(control_socket: str, metrics: str | None, kept: Sequence[Listener] = ()) -> list[Monitor]:
    """Those that settings ask for; raises ConfigError where an address cannot be had.

    kept: listeners of the program that was here before; those that are not needed any more are closed.
    """
    monitors = []
    control = control_listener(control_socket, kept)
    if control is not None:
        monitors.append(Monitor(control, Control))
    if metrics is not None:
        try:
            for listener in open_listeners([metrics], BACKLOG, kept=kept):
                monitors.append(Monitor(listener, Metrics))
        except ConfigError as error:
            for monitor in monitors:
                monitor.listener.close()
            raise ConfigError(f"--metrics: {error}") from None
    for listener in kept:
        if all(monitor.listener is not listener for monitor in monitors):
            listener.close()
    return monitors


def control_listener(setting: str, kept: Sequence[Listener]) -> Listener | None:
    """The socket that --control-socket asks for; None for "none", or if "auto" finds no place."""
    if setting == "none":
        return None
    name = f"fastwsgi-{os.getpid()}.sock"
    places = (
        [os.path.join(place, name) for place in runtime_directories()] if setting == "auto" else [setting]
    )
    problem = None
    for place in places:
        before = os.umask(0o177)
        try:
            return open_listeners([f"unix:{place}"], BACKLOG, kept=kept)[0]
        except ConfigError as error:
            problem = problem or error
        finally:
            os.umask(before)
    if setting != "auto":
        raise ConfigError(f"--control-socket: {problem}")
    LOG.warning("No control socket: %s; give --control-socket FILE, or none", problem)
    return None
