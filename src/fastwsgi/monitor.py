"""Processes beside the workers that tell how the server is: `control` at a listener of its own, and `statsd`.

One that answers is forked when somebody connects, and ends when nobody has asked for a while. Each ends when
what it was told of the server is not true any more; another one takes its place. So it costs nothing while
nobody asks, and it can die at any time: the supervisor keeps the listener, and requests do not depend on it.
"""

import os
import select
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
from fastwsgi.statsd import Statsd
from fastwsgi.worker import heeding, wakeup

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# It ends after so many seconds without a question.
PATIENCE = 60.0
# What a question may take that it is at when it shall end.
GRACE = 1.0
# From there on it is killed.
KILL_PATIENCE = 5.0
# Between two datagrams.
PERIOD_MS = 1000
# After one that has failed.
PAUSE = 1.0

BACKLOG = 64


class Helper:
    """The supervisor's side: a process that knows how the server was when it was forked, or none."""

    def __init__(self, what: str) -> None:
        """what: it does, for the log."""
        self.pid = 0
        self.kill_at = NEVER
        self._what = what
        self._view: View | None = None  # what the process knows
        self._again_at = 0.0  # no process before that

    def timers(self) -> Iterator[float]:
        """When it has to be looked at."""
        yield self.kill_at
        if self._again_at > time.monotonic():
            yield self._again_at

    def is_due(self, view: View) -> bool:
        """A process is wanted, and there is none."""
        return not self.pid and time.monotonic() >= self._again_at and self.is_wanted(view)

    def is_wanted(self, view: View) -> bool:
        raise NotImplementedError

    def work(self, view: View, life_fd: int) -> None:
        """What the process does, until TERM."""
        raise NotImplementedError

    def start(self, view: View, life_fd: int, name: str | None) -> None:
        """Fork the process. Raises `Forked` in it."""
        self._view = view
        try:
            self.pid = fork(lambda ending: self._run(view, life_fd, name))
        except OSError as error:
            self._fails(f"cannot be forked: {error.strerror}")

    def _run(self, view: View, life_fd: int, name: str | None) -> int:
        set_title("monitor", name)
        self.work(view, life_fd)
        return 0

    def see_to(self, view: View) -> None:
        """Have the process end that does not know how things are now."""
        if time.monotonic() >= self.kill_at:
            self.kill_at = NEVER
            os.kill(self.pid, signal.SIGKILL)
        elif self._view != view:
            self.leave()

    def leave(self) -> None:
        """Have the process end, if there is one."""
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

    def close(self) -> None:
        """At the end of the server."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self.pid, 0)

    def _fails(self, how: str) -> None:
        self._again_at = time.monotonic() + PAUSE
        LOG.error("The process that %s %s; requests are served as before", self._what, how)


class Monitor(Helper):
    """Answers at a listener."""

    def __init__(
        self,
        listener: Listener,
        answers: "Callable[[View], WSGIApplication]",
        selector: selectors.BaseSelector,
    ) -> None:
        """answers: the application, from what is known of the server. While there is no process, the listener
        is registered with the selector; whoever sees it readable sets `is_asked`.
        """
        super().__init__(f"answers at {listener.url}")
        self.listener = listener
        self.is_asked = False
        self._answers = answers
        self._selector = selector
        self._is_registered = False

    def is_wanted(self, view: View) -> bool:
        return self.is_asked

    def see_to(self, view: View) -> None:
        super().see_to(view)
        if not (self.pid or self.is_asked or self._is_registered):
            self._selector.register(self.listener.socket, selectors.EVENT_READ, self)
            self._is_registered = True
        elif self._is_registered and (self.pid or self.is_asked):
            self._selector.unregister(self.listener.socket)
            self._is_registered = False

    def start(self, view: View, life_fd: int, name: str | None) -> None:
        self.is_asked = False
        super().start(view, life_fd, name)

    def work(self, view: View, life_fd: int) -> None:
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

    def let_go(self) -> None:
        self.listener.socket.close()

    def close(self) -> None:
        super().close()
        self.listener.close()


class Sender(Helper):
    """Sends to a statsd server."""

    def __init__(self, statsd: Statsd) -> None:
        super().__init__("sends to --statsd-host")
        self._statsd = statsd

    def is_wanted(self, view: View) -> bool:
        return view.generation > 0 and not view.is_stopping

    def work(self, view: View, life_fd: int) -> None:
        boards = [board for _, board in view.boards]
        end = select.poll()
        end.register(life_fd, 0)  # that it hangs up is told in any case
        with suppress(KeyboardInterrupt):  # TERM
            self._statsd.tick(boards)
            while not end.poll(PERIOD_MS):
                self._statsd.tick(boards)
        self._statsd.tick(boards)


def has_ended(fd: int) -> bool:
    """The other end of a pipe that nobody writes to is closed."""
    try:
        return not os.read(fd, 1)
    except BlockingIOError:
        return False


def open_monitors(
    settings: Settings, selector: selectors.BaseSelector, kept: Sequence[Listener] = ()
) -> list[Helper]:
    """Those that settings ask for; raises ConfigError where an address cannot be had.

    kept: listeners of the program that was here before; those that are not needed any more are closed.
    """
    helpers: list[Helper] = []
    taken: list[Listener] = []
    control = control_listener(settings.control_socket, kept)
    if control is not None:
        taken.append(control)
        helpers.append(Monitor(control, Control, selector))
    if settings.metrics is not None:
        try:
            listeners = open_listeners([settings.metrics], BACKLOG, kept=kept, option="--metrics")
        except ConfigError as error:
            for listener in taken:
                listener.close()
            raise ConfigError(f"--metrics: {error}") from None
        taken += listeners
        helpers += [Monitor(listener, Metrics, selector) for listener in listeners]
    if settings.statsd_host is not None:
        prefix, tags = settings.statsd_prefix or "", settings.dogstatsd_tags or ""
        helpers.append(Sender(Statsd(settings.statsd_host, prefix, tags)))
    for listener in kept:
        if listener not in taken:
            listener.close()
    return helpers


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
            return open_listeners([f"unix:{place}"], BACKLOG, kept=kept, option="--control-socket")[0]
        except ConfigError as error:
            problem = problem or error
        finally:
            os.umask(before)
    if setting != "auto":
        raise ConfigError(f"--control-socket: {problem}")
    LOG.warning("No control socket: %s; give --control-socket FILE, or none", problem)
    return None
