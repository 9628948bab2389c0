"""One worker in this process: an application, its listeners and a crew, from the start to the drain.

`Worker` is what the command line runs; `Server` is the same with the face of `wsgiref.simple_server`.
Beside them is what a server has once, whether by its supervisor or by the one process that it is.
"""

import atexit
import fcntl
import logging
import os
import random
import resource
import signal
import socket
import sys
import termios
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeAlias
from urllib.parse import quote

from fastwsgi import gil, greening, loader, logs, mounts, process, resources, systemd
from fastwsgi._crew import Crew, start_new_thread
from fastwsgi._stacks import stack_text, stacks
from fastwsgi._stats import row_state_t
from fastwsgi.capture import is_captured
from fastwsgi.config import Settings, merge
from fastwsgi.errors import ConfigError
from fastwsgi.guards import Guards
from fastwsgi.listener import SCHEMES, Listener, longest_backlog, open_listeners
from fastwsgi.logs import LOG, AccessLog, give_error_log_to, set_up_error_log
from fastwsgi.privileges import Identity
from fastwsgi.process import PidFile

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from fastwsgi._stats import Board, Row
    from fastwsgi.leaks import Leaks
    from fastwsgi.reloader import Reporter
    from fastwsgi.renewal import Renewal
    from fastwsgi.tls import Tls

Handler: TypeAlias = Callable[[int, FrameType | None], Any] | int | None

# The exit code of a worker that ended because too many of its threads were lost.
THREADS_LOST = 5

# What Ctrl-C leaves to requests in progress.
INTERRUPT_GRACE = 5.0

# With --reload, what requests in progress have whenever a worker ends, and what it has itself.
RELOAD_GRACE = 0.8
RELOAD_PATIENCE = 1.2
# And connections that browsers keep, for a request that is on its way.
RELOAD_IDLE = 0.05

# What the application's exit handlers and threads of its own may take after the drain.
EXIT_PATIENCE = 5.0

# How often, a millisecond apart, is looked whether the thread that sees to that has begun.
BEGIN_LOOKS = 1000

# What only a supervisor does something with.
SUPERVISED = (
    "workers",
    "worker_timeout",
    "max_requests",
    "max_requests_jitter",
    "max_worker_memory",
    "memory_pressure",
    "max_worker_lifetime",
    "preload",
    "reuse_port",
    "control_socket",
    "metrics",
    "statsd_host",
    "statsd_prefix",
    "dogstatsd_tags",
    "capture_output",
    "reload",
    "reload_engine",
    "reload_extra_file",
    "reload_ignore",
    "open",
)

# How long a worker that was sent TERM waits to be heard by the supervisor.
ANSWER_PATIENCE = 5.0

NO_SUPERVISOR = (
    "without a supervisor nothing is reloaded; stop and start this process, "
    "or serve with the command and --workers 1 or more"
)

# What clients of this machine have at the stop that were just connecting: on a busy one they may take a while
# from there to their first octets. Others have as long.
LAST_CALL = 0.1

# How often what has been waiting is offered to a log again.
LOG_PAUSE = 1.0

# What a new worker may take to answer --health.
HEALTH_PATIENCE = 10.0

NOT_FOR_SERVERS = {
    "bind": "the address is host and port",
    "chdir": "the application is loaded already",
    "pythonpath": "the application is loaded already",
    **dict.fromkeys(
        ("error_logfile", "log_level", "log_config", "log_config_json", "log_config_dict"),
        "set up the logger 'fastwsgi'",
    ),
    **dict.fromkeys(("user", "group", "umask", "pid", "daemon", "name"), "the process is yours"),
    **dict.fromkeys(("config", "env"), "settings are its arguments, and the environment is yours"),
    **dict.fromkeys(SUPERVISED, "it serves in this process alone"),
    "shutdown_delay": "call shutdown() when it is time",
    "leak_report": "it looks at all that the process allocates; serve with the command",
}


@dataclass(frozen=True, slots=True)
class Post:
    """Where a worker stands below a supervisor: its row of the shared memory, and the lines between them."""

    board: "Board"
    row: "Row"
    number: int
    kick_fd: int  # wakes the loops of all workers
    life_fd: int  # hangs up when the supervisor is gone
    notice_fd: int  # a line of text for the supervisor
    has_others: bool  # other workers serve the application at the same time
    loops: int = 1  # that it shall have

    def tell(self, word: str, *more: int | str) -> None:
        with suppress(OSError):
            os.write(self.notice_fd, f"{' '.join(map(str, (word, self.number, *more)))}\n".encode())

    @property
    def leaves(self) -> bool:
        """Other workers stay when this one ends."""
        return not self.board.stopping

    @property
    def is_heard(self) -> bool:
        """The supervisor has read all that it was told."""
        return not any(fcntl.ioctl(self.notice_fd, termios.FIONREAD, bytes(4)))

    @property
    def is_deserted(self) -> bool:
        """The supervisor is gone."""
        try:
            return not os.read(self.life_fd, 1)
        except BlockingIOError:
            return False


class Ending:
    """For TERM as long as there is no worker that heeds it: ends what runs as Ctrl-C does.

    An application may catch everything and go on; so `check` has to follow.
    """

    def __init__(self) -> None:
        self._came = False

    def __call__(self, *_: object) -> None:
        self._came = True
        raise KeyboardInterrupt

    def check(self) -> None:
        if self._came:
            raise KeyboardInterrupt


# For a child that the application forks.
_workers: "weakref.WeakSet[Worker]" = weakref.WeakSet()


class Worker:
    """Serves an application at listeners that are bound already, and that the caller closes afterwards."""

    def __init__(
        self,
        app: "WSGIApplication | None",
        listeners: Sequence[Listener],
        settings: Settings,
        access_log: AccessLog | None = None,
        post: Post | None = None,
        manager: systemd.Manager | None = None,
        watchdog: float | None = None,
        mounted: "Sequence[WSGIApplication | None] | None" = None,
        guards: Guards | None = None,
        tls: "Tls | None" = None,
        renewal: "Renewal | None" = None,
        reporter: "Reporter | None" = None,
    ) -> None:
        """Make ready; opens the access log if none is given.

        post: below a supervisor. manager: without one, who is told that this worker stops and, as often as
        `watchdog` says, that it is alive. tls: for listeners that are `is_tls`. renewal: without a
        supervisor, what to have that from, and to look after.

        app: None if routes have all. mounted: the applications of routes (mounts.targets), which are
        imported now if they are not given. guards: of the routes; those that other workers shall count with.
        reporter: with --reload, who says what is imported later.

        Raises ConfigError if the access log cannot be opened or has a wrong format, and AppLoadError.
        """
        if settings.gevent:
            greening.check_patched()
        elif (post is None or post.row.index == 0) and (remark := greening.remark()):
            LOG.warning(remark)  # once, not in each worker
        if mounted is None:
            mounted = loader.load_all("", mounts.targets(settings))[1:]
        self._guards = Guards(mounts.plan(settings, app is not None).routes) if guards is None else guards
        self._post = post
        self._settings = settings
        self._reporter = reporter
        if reporter is not None or settings.lint or settings.tracebacks:
            from fastwsgi.pages import around  # nobody else needs it

            code = None if reporter is None else reporter.code
            app, *mounted = (
                None if one is None else around(one, settings, listeners, code) for one in (app, *mounted)
            )
        if renewal is not None:
            tls = renewal.tls()
            for listener in listeners:
                listener.mark(has_tls=True)
        self._access_log = AccessLog.of(settings) if access_log is None else access_log
        try:
            row, kick_fd = (post.row, post.kick_fd) if post is not None else (None, -1)
            log = self._access_log
            self._loops = self._count_loops()
            self._crew = crew_class(settings)(
                app,
                listeners,
                settings,
                LOG,
                log.fd,
                row,
                kick_fd,
                log.line_start,
                mounted,
                self._guards.of(mounts.plan(settings, app is not None).routes),
                tls,
                post is not None and post.has_others,
                self._loops,
            )
        except ValueError as error:
            self._access_log.close()
            raise ConfigError(str(error)) from None
        self._stopping = False
        self._wants_told = False
        self._gil_told = False
        self._asked_at = 0.0  # whether it may leave; 0: not, or the supervisor knows
        self._left_running = 0
        self._manager, self._watchdog = manager, watchdog
        self._alive_at = 0.0  # when it was told that
        self._was_told = False  # that this one stops
        if watchdog is not None:
            self._crew.beat = watchdog
        if post is not None:
            self._crew.last_call = LAST_CALL
            self._crew.beat = settings.worker_timeout / 4
            self._crew.watched_fd = post.life_fd
            self._crew.max_requests = jittered(settings.max_requests, settings.max_requests_jitter)
        self._leaks: Leaks | None = None
        if settings.leak_report:
            from fastwsgi import leaks  # nobody else needs it

            self._leaks = leaks.Leaks(self._crew.row)
            self._crew.survivors = self._leaks.survivors
            self._crew.beat = min(self._crew.beat or leaks.PAUSE, leaks.PAUSE)
        if self._guards.pause is not None:
            self._crew.beat = min(self._crew.beat or self._guards.pause, self._guards.pause)
        if reporter is not None:
            self._crew.last_idle = RELOAD_IDLE
            self._crew.beat = min(self._crew.beat or reporter.pause, reporter.pause)
        self._renewal = renewal
        if renewal is not None:
            self._crew.beat = min(self._crew.beat or renewal.pause, renewal.pause)
        # Signal handlers must not write to the log: they may have interrupted a write to it.
        self._messages: list[tuple[int, str]] = []
        self._beat = self._crew.beat
        _workers.add(self)

    def after_fork_in_child(self) -> None:
        """Let go of what is the parent's."""
        self._crew.after_fork_in_child()

    def run(self, has_started: Callable[[], object] = lambda: None) -> None:
        """Serve until `stop`, then drain. In the main thread signals are heeded if `signals` surrounds it.

        has_started: called once the threads run, and --health is answered.
        """
        logs.call_when_waiting(self._wake)
        try:
            probe = self._probe() if self._post is not None else None
            if self._leaks is not None:
                self._leaks.survivors.open()
            self._crew.start()
            if probe is not None:
                expect_health(probe, self._settings.health)
            has_started()
            if self._post is not None:
                self._tell_of_gil(self._post)
            self._crew.row.state = row_state_t.ROW_SERVING
            if self._post is not None:
                self._post.tell("serves")
            while not self._crew.finished:
                self._attend()
                self._guards.look()
                if self._leaks is not None:
                    self._leaks.look()
                if self._reporter is not None:
                    self._reporter.look()
                if self._post is not None:
                    self._look_up(self._post)
                if self._manager is not None:
                    self._tell(self._manager)
                if self._renewal is not None and self._renewal.due - time.monotonic() < 0.1:
                    self._messages += self._renewal.look()
                if self._crew.is_exhausted and not self._stopping:
                    LOG.error("Too many threads do not come back from the application: the worker ends")
                    self.stop(self._settings.graceful_timeout, leave=self._leaves)
        except BaseException:
            self._crew.stop(0, self._leaves)
            raise
        finally:
            while not self._crew.finished:
                self._attend()
            if self._leaks is not None:
                self._leaks.close()
            logs.call_when_waiting(lambda: None)
            self._attend()
            if self._manager is not None:
                self._tell(self._manager)
            if self._post is not None:
                self._post.tell("end", *self._last_requests())

    @property
    def loops(self) -> int:
        """Event loops that it has."""
        return self._loops

    def _count_loops(self) -> int:
        if self._post is not None:
            loops = self._post.loops
        else:
            loops = gil.count_loops(self._settings, 1, resources.find_cpus().usable)
        culprit = gil.turned_on_by()
        if culprit is None or loops == 1:
            return loops
        if self._post is None:
            LOG.warning(
                "%s has turned the GIL on: one loop, not %d; "
                "serve with the command and --workers %d, or without it",
                *(culprit, loops, loops),
            )
        return 1

    def _tell_of_gil(self, post: Post) -> None:
        """The supervisor has more workers instead of more loops."""
        if not self._gil_told and post.row.board.loops > 1 and (culprit := gil.turned_on_by()) is not None:
            self._gil_told = True
            post.tell("gil", self._loops, quote(culprit))

    @property
    def _leaves(self) -> bool:
        """Others stay when it ends."""
        return self._post is not None and self._post.leaves

    def _probe(self) -> socket.socket | None:
        """With --health: a client's end of a connection that the crew has before any other."""
        if self._settings.health is None:
            return None
        ours, theirs = socket.socketpair()
        self._crew.adopt(theirs)
        return ours

    def _look_up(self, post: Post) -> None:
        """See whether the supervisor is there, and whether it has to know something."""
        if not self._stopping and post.is_deserted:
            self._crew.watched_fd = -1  # or its end would be told of again and again
            LOG.error("The supervisor is gone: this worker finishes what runs, and ends")
            post.board.stopping = True  # as every other one will
            self.stop(self._settings.graceful_timeout)
        if self._asked_at and not self._stopping:
            self._look_for_an_answer(post)
        self._tell_of_gil(post)
        if post.row.wants and not self._wants_told:
            self._wants_told = True
            post.tell("wants")

    def _tell(self, manager: systemd.Manager) -> None:
        now = time.monotonic()
        if self._watchdog is not None and now - self._alive_at >= 0.9 * self._watchdog:
            self._alive_at = now
            manager.alive()
        if self._stopping and not self._was_told:
            self._was_told = True
            manager.stopping()

    def _look_for_an_answer(self, post: Post) -> None:
        """A supervisor that hangs may not keep this worker from leaving."""
        if post.is_heard:
            self._asked_at = 0.0
        elif time.monotonic() - self._asked_at > ANSWER_PATIENCE:
            LOG.warning("The supervisor does not answer: this worker finishes what runs, and ends (TERM)")
            self.stop(self._settings.graceful_timeout, leave=self._leaves)
        else:
            self._crew.beat = ANSWER_PATIENCE / 5

    def _attend(self) -> None:
        """Wait for what the core has to say, and log it."""
        # Without memory the messages are lost, and not the server with them; suppress() would need some, too.
        try:  # noqa: SIM105
            self._report(self._crew.attend())
        except MemoryError:
            pass

    def stop(self, grace: float, *, leave: bool = False) -> None:
        """Accept nothing more, finish what runs within `grace` seconds; again with less shortens it.

        leave: others stay, who have the same listeners. Returns at once; `run` returns when it is done.
        From any thread, and from signal handlers.
        """
        # Before all else: what comes after it may find no memory left.
        self._crew.stop(grace, leave)
        if self._post is not None:
            self._post.row.state = row_state_t.ROW_DRAINING
        if not self._stopping:
            self._stopping = True
            self._left_running = self._crew.counters().get("exchanges", 0)

    def close(self) -> None:
        """Close the access log; after `run`, or instead of it."""
        self._access_log.close()

    def open_wakeup(self) -> tuple[int, int]:
        """Two descriptors, the caller's own: a byte written to the second one wakes the thread in `run`."""
        return self._crew.open_wakeup()

    @property
    def lost_threads(self) -> int:
        """After `run`: the threads that did not come back from the application in time."""
        return self._crew.lost_threads

    @property
    def noun(self) -> str:
        """What runs a request."""
        return "greenlet" if self._settings.gevent else "thread"

    @property
    def is_exhausted(self) -> bool:
        """So many threads were lost that it has ended by itself."""
        return self._crew.is_exhausted

    def counters(self) -> dict[str, int]:
        """What the core counts: `requests` since the start, `connections` and `exchanges` of now, more."""
        return self._crew.counters()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Heed TERM, INT, QUIT, HUP, USR1 and USR2 while it lasts; in the main thread only.

        TERM drains for `graceful_timeout`, INT for 5 seconds and a second one not at all, QUIT not at
        all; USR1 reopens the log files. HUP and USR2 are a supervisor's, and ignored with a message; but
        if HUP says that the terminal is gone, it drains.
        """
        terminal = sys.stderr is not None and sys.stderr.isatty()
        handlers: dict[int, Handler] = {
            signal.SIGTERM: lambda *_: self._drain("TERM", self._settings.graceful_timeout),
            signal.SIGINT: lambda *_: self._drain("INT", 0 if self._stopping else INTERRUPT_GRACE),
            signal.SIGQUIT: lambda *_: self._drain("QUIT", 0),
            signal.SIGHUP: lambda *_: self._hang_up(terminal),
            signal.SIGUSR1: lambda *_: self._reopen_logs(),
        }
        if signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL:  # or the program has a use for it
            handlers[signal.SIGUSR2] = lambda *_: self._messages.append(
                (logging.WARNING, f"USR2 ignored: {NO_SUPERVISOR}")
            )
        with heeding(handlers), wakeup(self):
            yield

    @contextmanager
    def commands(self, quits: Callable[[], object]) -> Iterator[None]:
        """Heed what a supervisor commands while it lasts: TERM, USR2 (Ctrl-C), QUIT, USR1 and PWR.

        The others of the tree go on accepting, unless the whole server stops. `quits` is called at USR2
        and QUIT.
        """
        post = self._post
        assert post is not None
        has_asked = False

        def drain(*_: object) -> None:
            nonlocal has_asked
            if post.row.state == row_state_t.ROW_DRAINING or has_asked:
                self.stop(grace_of(self._settings), leave=self._leaves)
            else:
                # From somebody else, perhaps to the whole group: nobody would serve what this one leaves.
                # The supervisor sends it again when it is time; so does one that cannot write to this row.
                has_asked = True
                self._asked_at = time.monotonic()
                post.tell("asked")

        def quit_soon(number: int, _: object) -> None:
            grace = grace_of(self._settings, INTERRUPT_GRACE) if number == signal.SIGUSR2 else 0
            self.stop(grace, leave=self._leaves)
            quits()

        handlers: dict[int, Handler] = {
            signal.SIGTERM: drain,
            signal.SIGUSR2: quit_soon,
            signal.SIGQUIT: quit_soon,
            signal.SIGUSR1: lambda *_: self._reopen_logs(),
        }
        for name in ("SIGPWR", "SIGINFO"):
            if hasattr(signal, name):
                handlers[getattr(signal, name)] = lambda *_: self._messages.append(
                    (logging.INFO, all_stacks())
                )
        with heeding(handlers), wakeup(self):
            yield

    def _drain(self, name: str, grace: float) -> None:
        self.stop(grace)
        patience = f"finishing what runs, for at most {grace:g} s" if grace else "now"
        self._messages.append((logging.INFO, f"Stopping ({name}): {patience}"))

    def _hang_up(self, had_terminal: bool) -> None:
        if had_terminal and not sys.stderr.isatty():
            self._drain("HUP", self._settings.graceful_timeout)
        else:
            self._messages.append((logging.WARNING, f"HUP ignored: {NO_SUPERVISOR}"))

    def _reopen_logs(self) -> None:
        try:
            self._access_log.reopen()
            self._messages.append((logging.INFO, "Log files reopened (USR1)"))
        except ConfigError as error:
            self._messages.append((logging.ERROR, f"{error}; going on in the old file"))

    def _report(self, records: list[tuple[int, str]]) -> None:
        messages, self._messages = self._messages, []
        for level, text in (*messages, *records):
            LOG.log(level, text)
        if self._crew.has_lost_reader:
            self._access_log.renew()
        self._crew.beat = min(self._beat or LOG_PAUSE, LOG_PAUSE) if logs.advance() else self._beat

    def _wake(self) -> None:
        """Have the thread in `run` look after the logs."""
        with suppress(OSError):
            os.write(self._crew.wakeup_fd, b"\0")

    def summary(self) -> str:
        """After `run`: one line on how it went."""
        return summary(self._crew.counters()["requests"], *self._last_requests())

    def _last_requests(self) -> tuple[int, int]:
        """After `run`: how many requests were finished while it was stopping, and how many cut off."""
        cut_off = min(self.lost_threads, self._left_running)
        return self._left_running - cut_off, cut_off


class Server:
    """A server as users of `wsgiref.simple_server` know it; bound at once, serving in `serve_forever`.

    Clients may connect before: the kernel queues them. Logging is left to the caller (the logger
    `fastwsgi`), and so are signals: Ctrl-C raises KeyboardInterrupt as ever.
    """

    def __init__(self, app: "WSGIApplication | None", settings: Settings) -> None:
        """Bind; raise ConfigError where that is not possible."""
        self._renewal = watched_certificates(settings)
        self._listeners: list[Listener] = []
        try:
            self._listeners = open_listeners(settings.bind, settings.backlog)
            self._worker = Worker(app, self._listeners, settings, renewal=self._renewal)
        except BaseException:
            self._close()
            raise
        self.settings = settings
        self._state = "new"
        self._change = threading.Condition()
        self._serving_thread: int | None = None
        name = self._listeners[0].socket.getsockname()
        self.server_address: tuple[str, int] | str | bytes = name[:2] if isinstance(name, tuple) else name
        self.server_name, self.server_port = name[:2] if isinstance(name, tuple) else ("localhost", 0)

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Serve until `shutdown`; raise RuntimeError if it has been shut down after serving once.

        `poll_interval` is what `socketserver` has; nothing is polled here. Raises ConfigError in a greenlet,
        without gevent=True.
        """
        if not self.settings.gevent:
            greening.check_may_block()
        with self._change:
            if self._state in ("serving", "ended"):
                raise RuntimeError("this server serves already or has ended; make another with make_server()")
            if self._state == "stopped":
                self._state = "ended"
                return
            self._state = "serving"
            self._serving_thread = threading.get_ident()
        try:
            with wakeup(self._worker) if in_main_thread() else nullcontext():
                self._worker.run()
        finally:
            with self._change:
                self._state = "ended"
                self._change.notify_all()

    def shutdown(self, grace: float | None = None) -> None:
        """Drain for at most `grace` seconds (the graceful timeout); return when `serve_forever` has ended.

        From any thread. Before `serve_forever`, that will return at once.
        """
        with self._change:
            if self._state == "new":
                self._state = "stopped"
            if self._state != "serving":
                return
            self._worker.stop(self.settings.graceful_timeout if grace is None else grace)
            if self._serving_thread != threading.get_ident():
                self._change.wait_for(lambda: self._state == "ended")

    def server_close(self) -> None:
        """Close the listeners; call `shutdown` before it if the server runs."""
        self._worker.close()
        self._close()

    def _close(self) -> None:
        close_all(self._listeners)
        if self._renewal is not None:
            self._renewal.close()

    def counters(self) -> dict[str, int]:
        """What the core has counted: see `Worker.counters`."""
        return self._worker.counters()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()
        self.server_close()


def make_server(host: str, port: int, app: "WSGIApplication | None", **options: Any) -> Server:
    """Bind a server for an application at a host and port (0: any free one).

    The host may be "" (every address) or "unix:/path". `options` are those of `Settings`, as the command
    line or as Python has them: `threads=8`, `keep_alive="2m"`. app: None if routes have all (`mount`,
    `route`). Raises ConfigError for a wrong one, or when the address cannot be had.
    """
    for name in options:
        if name in NOT_FOR_SERVERS:
            raise ConfigError(f"make_server does not take {name}: {NOT_FOR_SERVERS[name]}")
    if host.startswith("unix:"):
        bind = host
    else:
        bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Server(app, merge(options, {"bind": bind}))


def crew_class(settings: Settings) -> type[Crew]:
    """What runs the requests of a worker."""
    if not settings.gevent:
        return Crew
    from fastwsgi._greenlets import Greenlets  # nobody else needs it

    return Greenlets


def runners(settings: Settings, threads: int, loops: int) -> str:
    """What runs the requests of a worker, in words."""
    if settings.gevent:
        return plural(settings.concurrency, "greenlet")
    return plural(threads, "thread") + (f" over {loops} loops" if loops > 1 else "")


def grace_of(settings: Settings, most: float | None = None) -> float:
    """What requests in progress have when a worker ends; `most`: because of Ctrl-C."""
    grace = settings.graceful_timeout if most is None else most
    return min(grace, RELOAD_GRACE) if settings.reload else grace


def leave_if_lost(worker: Worker) -> None:
    """End the process here if threads are left in the application: they would hold it."""
    if worker.lost_threads:
        LOG.warning("%s did not come back from the application", plural(worker.lost_threads, worker.noun))
    if worker.lost_threads or worker.is_exhausted:
        leave(THREADS_LOST if worker.is_exhausted else 0)


def prepare(settings: Settings) -> None:
    """Do what comes before all opening: the umask, the error log, the limit of open files."""
    if settings.umask is not None:
        os.umask(settings.umask)
    set_up_error_log(settings)
    check_backlog(settings.backlog)
    raise_open_files()


def check_backlog(backlog: int) -> None:
    if backlog > longest_backlog():
        LOG.warning(
            "The kernel cuts --backlog %d to %d; raise net.core.somaxconn", backlog, longest_backlog()
        )


def watched_certificates(settings: Settings) -> "Renewal | None":
    """The certificates that settings name, watched; raises ConfigError for what nobody can be served with."""
    if not settings.has_tls:
        return None
    from fastwsgi.renewal import Renewal  # nobody else needs it
    from fastwsgi.tls import Policy

    return Renewal.of(Policy.of(settings))


def hand_over(identity: Identity, listeners: Iterable[Listener], access_log: AccessLog) -> None:
    """Give what was opened to a user and a group, and become them; raise ConfigError if that fails."""
    if not identity.is_ours:
        for listener in listeners:
            listener.give_to(identity.uid, identity.gid)
        access_log.give_to(identity.uid, identity.gid)
        give_error_log_to(identity.uid, identity.gid)
    identity.take()


def raise_open_files() -> None:
    """Raise the soft limit of descriptors as far as 50,000 connections need it and the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(65536, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def open_pid_file(path: str, identity: Identity | None) -> PidFile:
    """Write a PID file, of whom this process is to become; raise ConfigError if that fails."""
    pid_file = PidFile(path)
    if identity is not None and not identity.is_ours:
        # Or it could not be emptied at the end.
        pid_file.give_to(identity.uid, identity.gid)
    return pid_file


def with_activated(settings: Settings) -> Settings:
    """With the sockets in `bind` that systemd has handed to this process, unless they are there already.

    One whose unit calls it http or https (FileDescriptorName=) is what it is called.
    """
    activated = systemd.handed_over(os.environ, os.getpid())
    if activated and not any("fd://" in address for address in settings.bind):
        bind = (f"{name}://{fd}" if name in SCHEMES else fd for fd, name in activated.items())
        return replace(settings, bind=tuple(bind))
    return settings


def leave_terminal(settings: Settings, access_log: AccessLog) -> None:
    """As a daemon: let go of the standard descriptors, where they are not files."""
    if settings.daemon:
        process.leave_terminal(keep=(1, 2), captured=(1, 2) if is_captured() else ())
        logs.leave_terminal()
        access_log.leave_terminal()


def warn_of_lost_messages(settings: Settings) -> None:
    if settings.daemon and settings.error_logfile == "-" and not process.is_file(2):
        LOG.warning("Messages after this one are lost; give --error-logfile FILE to keep them")


def end_soon(code: int) -> None:
    """Let the process end in its own way, waiting for threads of the application; but not for ever."""

    def give_up() -> None:
        running = [thread.name for thread in threading.enumerate() if not thread.daemon]
        running.remove(threading.main_thread().name)
        if not running:
            # The exit handlers run already, and do not come to an end.
            os._exit(code)
        LOG.warning("Not waiting any longer for threads of the application: %s", ", ".join(running))
        leave(code)

    start_timer(give_up)


def leave(code: int) -> NoReturn:
    """End the process, whatever its threads do, once its exit handlers have run or have had their time."""
    start_timer(lambda: os._exit(code))
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def start_timer(function: Callable[[], None]) -> None:
    # Of a process that gevent has patched, too: its sleep would want a hub for this thread, amid the end.
    sleep = greening.original(time, "sleep")
    begun = False

    def wait() -> None:
        nonlocal begun
        begun = True
        sleep(EXIT_PATIENCE)
        function()

    # Not with threading, which waits until the thread runs: where memory is out, that may be for ever.
    with suppress(RuntimeError):  # no more threads: then there is no limit
        start_new_thread(wait, ())
        # At its end Python (3.13) frees what threads use: without a GIL one that begins then would crash.
        for _ in range(BEGIN_LOOKS if gil.IS_FREE_THREADED else 0):
            was_begun = begun
            sleep(0.001)
            if was_begun:
                break


# What signals did before they were heeded, outermost first; a forked child of the application returns to it.
_former_handlers: list[dict[int, Handler]] = []


@contextmanager
def heeding(handlers: Mapping[int, Handler]) -> Iterator[None]:
    """Have signals handled while it lasts; in the main thread only."""
    _former_handlers.append({number: signal.getsignal(number) for number in handlers})
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        yield
    finally:
        # A child that was forked meanwhile has done so already.
        if _former_handlers:
            restore(_former_handlers.pop())


def restore(handlers: Mapping[int, Handler]) -> None:
    for number, handler in handlers.items():
        # None: what C code has installed cannot be put back from here.
        if handler is not None:
            signal.signal(number, handler)


def forget_signals() -> None:
    """In a forked child: what stops the server must not be what the child does on TERM."""
    if _former_handlers:
        signal.set_wakeup_fd(-1)
        while _former_handlers:
            restore(_former_handlers.pop())


def leave_to_parent() -> None:
    """In a forked child: sockets, pollers and signals are the parent's."""
    for worker in list(_workers):
        worker.after_fork_in_child()
    forget_signals()


os.register_at_fork(after_in_child=leave_to_parent)


@contextmanager
def wakeup(worker: Worker | Crew) -> Iterator[None]:
    """Have a byte written for a worker at each signal, so that the wait in the main thread ends."""
    # The crew closes its own at its end, and signals may still come: then somebody has to hold the other end.
    reader, writer = worker.open_wakeup()
    former = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        os.close(writer)
        os.close(reader)


def close_all(listeners: Iterable[Listener]) -> None:
    for listener in listeners:
        listener.close()


def in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def expect_health(client: socket.socket, path: str | None) -> None:
    """Ask a worker that has just started how it is; raise ConfigError if it is not well."""
    client.settimeout(HEALTH_PATIENCE)
    try:
        with client, client.makefile("rb") as answer:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            status = answer.readline()
    except OSError as error:
        raise ConfigError(f"--health {path}: no answer from the new worker: {error}") from None
    if not status.startswith(b"HTTP/1.1 200 "):
        raise ConfigError(f"--health {path}: the new worker answered {status!r}")


def summary(requests: int, finished: int, cut_off: int) -> str:
    """One line on how it went, when all is over."""
    line = f"Stopped after {plural(requests, 'request')}"
    if finished:
        line += f", {finished} of them finished while stopping"
    if cut_off:
        line += f", {cut_off} cut off"
    return line


def name_of(app: "WSGIApplication | str") -> str:
    """What the application is called in messages."""
    if app == mounts.NO_APPLICATION:
        return "its routes"
    return app if isinstance(app, str) else getattr(app, "__name__", type(app).__name__)


def all_stacks() -> str:
    """Where every thread of this process is."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = [f"Stacks of process {os.getpid()}:"]
    for ident, stack in stacks().items():
        parts.append(f"thread {names.get(ident, ident)} at\n{stack_text(stack).rstrip()}")
    return "\n".join(parts)


def jittered(most: int, jitter: int | None) -> int:
    """A limit of requests and by chance some more, so that workers do not reach it together; 0: none."""
    return most + random.randint(0, most // 10 if jitter is None else jitter) if most else 0


def plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
