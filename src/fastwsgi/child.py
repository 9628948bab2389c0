"""What runs in a process that the supervisor has forked: a worker, or the loader of --preload.

The supervisor's stack is left first (`Forked`), so that a worker ends as any Python program does.
"""

import faulthandler
import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from fastwsgi import greening, loader, logs, mounts, systemd
from fastwsgi.capture import Output, is_captured
from fastwsgi.config import Settings
from fastwsgi.errors import AppLoadError, ConfigError
from fastwsgi.forkguard import ForkGuard
from fastwsgi.guards import Guards
from fastwsgi.hooks import Hooks, Server, with_request_hooks
from fastwsgi.hooks import Worker as HookedWorker
from fastwsgi.listener import Listener
from fastwsgi.logs import LOG, AccessLog, ErrorLog
from fastwsgi.privileges import Identity
from fastwsgi.process import Place, set_title
from fastwsgi.worker import Ending, Post, Worker, heeding, leave_if_lost, leave_terminal, name_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from fastwsgi.reloader import Code, Reporter
    from fastwsgi.tls import Tls

    # The one that the command names, or None, then those of routes.
    Applications: TypeAlias = tuple[WSGIApplication | None, ...]

# What a process does once it has left the stack of the one that forked it; returns its exit code.
Task: TypeAlias = Callable[[Ending], int]

WORKER_FAILED = 3
APPLICATION_FAILED = 4


class Forked(BaseException):
    """In a process that was just forked: unwinds the parent's stack, to do `task` then."""

    def __init__(self, task: Callable[[], int]) -> None:
        self.task = task


@dataclass(frozen=True, slots=True)
class Work:
    """What a generation hands to its workers."""

    settings: Settings
    application: "WSGIApplication | str"
    hooks: Hooks
    hooked: Server  # what hooks know as the server
    access_log: AccessLog
    error_log: ErrorLog
    place: Place
    identity: Identity | None
    guards: Guards | None  # of the routes, shared by all workers; None: each makes its own
    is_first: bool  # of this server: what fails is told on the standard error, as a command does
    tls: "Tls | None" = None
    code: "Code | None" = None  # with --reload

    @property
    def title(self) -> str:
        """What the application is called."""
        return name_of(self.application)

    def reopen_log(self, *_: object) -> None:
        """For USR1 before there is a worker that heeds it; the log goes on in the old file if that fails."""
        with suppress(ConfigError):
            self.access_log.reopen()


def fork(task: Task) -> int:
    """Fork; return the process number in the parent, and raise `Forked` with the task in the child.

    Signals that come meanwhile wait until the child has handlers of its own: TERM does what Ctrl-C does, and
    most others do nothing yet.
    """
    # Of a loader, too: gevent's would have the hub watch the child, and nobody runs that here.
    fork = greening.original(os, "fork")
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.flush()  # or it would be written twice
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid: int = fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in HANDLED:
                signal.signal(number, signal.SIG_DFL)
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    if pid == 0:
        raise Forked(partial(begin, task, before))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def begin(task: Task, mask: Iterable[int]) -> int:
    ending = Ending()
    former = sys.unraisablehook

    def tell(what: "sys.UnraisableHookArgs") -> None:
        # TERM has come amid a destructor or a callback, which nothing ends. There is a `check` behind it.
        if not isinstance(what.exc_value, KeyboardInterrupt):
            former(what)

    sys.unraisablehook = tell
    with heeding({signal.SIGTERM: ending, **dict.fromkeys(QUIET, nothing)}):
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return task(ending)


def signals_by_name(*names: str) -> tuple[signal.Signals, ...]:
    """Those of the names that this system has."""
    return tuple(signal.Signals[name] for name in names if name in signal.Signals.__members__)


# What the supervisor heeds, and a child first of all does not any more.
HANDLED = signals_by_name(
    *("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGTTIN", "SIGTTOU"),
    *("SIGCHLD", "SIGPWR", "SIGINFO"),
)

# Ctrl-C, the end of a terminal and its changes reach every process of the tree; the supervisor says what they
# mean. The others are for workers that serve. Handlers rather than SIG_IGN, which the programs that an
# application starts would inherit.
QUIET = tuple(set(HANDLED) - {signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD})


def nothing(*_: object) -> None:
    """Heed a signal by not heeding it."""


def captured(output: Output | None, task: Task) -> Task:
    """The task, with what it prints going there."""
    if output is None:
        return task

    def take_and_do(ending: Ending) -> int:
        output.take()
        return task(ending)

    return take_and_do


def serve(
    work: Work,
    post: Post,
    listeners: Sequence[Listener],
    ending: Ending,
    applications: "Applications | None" = None,
) -> int:
    """A worker, from its first moment to its end; returns the exit code.

    ending: by TERM, before it is heeded here. applications: loaded already, by the loader that forked this
    worker.
    """
    post.row.pid = os.getpid()
    post.row.born = time.monotonic_ns()
    settings = work.settings
    hooked = HookedWorker(post.number, os.getppid(), work.hooked.cfg, os.getpid())
    set_title("worker", settings.name)
    worker: Worker | None = None
    reporter = reporter_of(work)
    with heeding({signal.SIGUSR1: work.reopen_log}):
        try:
            with ExitStack() as at_end:
                if applications is None:
                    become(work)
                if not work.hooks.call("post_fork", work.hooked, hooked):
                    return WORKER_FAILED
                # Whatever becomes of it; so does gunicorn.
                at_end.callback(work.hooks.call, "worker_exit", work.hooked, hooked)
                if reporter is not None:
                    faulthandler.enable(reporter.code.crash_fd, all_threads=True)
                    applications = load_or_show(work, ending, reporter, listeners)
                elif applications is None:
                    applications = load(work, ending)
                elif settings.gevent:
                    # What it was forked with is the loader's.
                    import gevent

                    gevent.reinit()
                hooked.wsgi, hooked.booted = applications[0], True
                # So far, what fails is a failed reload, of which the log knows that is in use.
                work.error_log.use()
                enable_faulthandler()
                if settings.reuse_port:
                    for listener in listeners:
                        listener.listen(settings.backlog)
                app, *mounted = (
                    None if app is None else with_request_hooks(app, work.hooks, hooked)
                    for app in applications
                )
                worker = Worker(
                    app,
                    listeners,
                    settings,
                    work.access_log,
                    post,
                    mounted=mounted,
                    guards=work.guards,
                    tls=work.tls,
                    reporter=reporter,
                )
                if not work.hooks.call("post_worker_init", hooked):
                    return WORKER_FAILED
                ending.check()
                with worker.commands(lambda: work.hooks.call("worker_int", hooked)):
                    worker.run(lambda: leave_terminal(settings, work.access_log))
        except AppLoadError as error:
            return report(error, work)
        except ConfigError as error:
            LOG.error("%s", error)
            return WORKER_FAILED
        except KeyboardInterrupt:
            return 0
        except Exception as error:
            LOG.exception("The worker could not go on: %s", error)
            return WORKER_FAILED
    leave_if_lost(worker)
    return 0


def become(work: Work) -> None:
    """Take the user, the directory, the Python path and greenlets, before the application is imported."""
    if work.identity is not None:
        work.identity.take()
    for name in systemd.VARIABLES:
        os.environ.pop(name, None)  # they are for the supervisor alone
    loader.prepare_environ(work.settings.env)
    work.place.enter()
    loader.prepare_path(None, work.settings.pythonpath)
    if work.settings.gevent:
        greening.patch()


def load(work: Work, ending: Ending) -> "Applications":
    try:
        applications = loader.load_all(work.application, mounts.targets(work.settings))
    finally:
        # The application's logging.config may have disabled every logger that it found.
        LOG.disabled = False
    ending.check()
    return applications


def reporter_of(work: Work) -> "Reporter | None":
    """With --reload: who says what is imported, from now on."""
    if work.code is None:
        return None
    from fastwsgi.reloader import Reporter  # nobody else needs it

    return Reporter(work.code)


def load_or_show(
    work: Work, ending: Ending, reporter: "Reporter", listeners: Sequence[Listener]
) -> "Applications":
    """With --reload: the applications, or what says in their place why they cannot be loaded.

    Raises AppLoadError at the first start, for one that is not there at all.
    """
    from fastwsgi import pages
    from fastwsgi.reloader import remarks_on

    code, what, cause = reporter.code, reporter.code.failure, None
    if not what:
        try:
            applications = load(work, ending)
            entry = loader.made_from or str(work.application).partition(":")[0]
            reporter.loaded(entry, [remark for app in applications for remark in remarks_on(app)])
            return applications
        except AppLoadError as error:
            what, cause = str(error), error.__cause__
            if cause is None and work.is_first and code.edition == 1:
                raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            error.__traceback__ = loader.trim(pages.of_application(error.__traceback__))
            what, cause = f"loading {work.title} raised {type(error).__name__}", error
        ending.check()
        if not code.is_told:
            LOG.error("%s", what, exc_info=cause)
    reporter.failed(cause)
    failure = pages.Failure(what, cause, code, is_private=pages.is_private(listeners))
    return (failure,) * (1 + len(mounts.targets(work.settings)))


def report(error: AppLoadError, work: Work) -> int:
    """Say why the application could not be loaded; the traceback is its own."""
    cause = error.__cause__
    # Whoever has typed the command reads it there; captured, it would be lines of level INFO.
    if work.is_first and not is_captured():
        if cause is not None:
            traceback.print_exception(cause)
        if sys.stderr is not None:
            print(f"fastwsgi: {error}", file=sys.stderr)
    else:
        LOG.error("%s", error, exc_info=cause)
    return APPLICATION_FAILED


def enable_faulthandler() -> None:
    """A segmentation fault, and the signal that ends a worker that hangs, show the stacks of all threads."""
    fd = logs.error_log_fd()
    if fd is not None:
        faulthandler.enable(fd, all_threads=True)


class LoaderLine:
    """The supervisor's end of the line to a loader: which workers to fork, and which it has forked."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._rest = b""
        self.has_ended = False

    def fileno(self) -> int:
        return self._socket.fileno()

    def ask(self, row: int, number: int) -> None:
        """Have a worker forked for a row of the board; `answers` has its process number later."""
        with suppress(OSError):  # its end is noticed otherwise
            self._socket.send(f"{row} {number}\n".encode())

    def answers(self) -> list[tuple[int, int]]:
        """Rows and process numbers of the workers that were forked, 0 for none; without waiting."""
        with suppress(OSError):
            said = self._socket.recv(4096)
            self.has_ended = not said
            self._rest += said
        *lines, self._rest = self._rest.split(b"\n")
        return [(int(row), int(pid)) for row, pid in (line.split() for line in lines)]

    def close(self) -> None:
        self._socket.close()


def loader_line() -> tuple[LoaderLine, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return LoaderLine(ours), theirs


def preload(
    work: Work,
    line: socket.socket,
    worker: Callable[[int, int, "Applications"], Task],
    loaded: Callable[[], None],
    ending: Ending,
) -> int:
    """The loader of a generation: import the application once, then fork a worker whenever one is asked for.

    worker(row, number, applications) is what one does. Workers are forked twice over, so that they become
    children of the supervisor.
    """
    set_title("loader", work.settings.name)
    with heeding({signal.SIGUSR1: work.reopen_log}):
        try:
            become(work)
            with ForkGuard() as guard:
                applications = load(work, ending)
            if not may_fork(guard.ghosts(), work.settings.preload):
                return WORKER_FAILED
            gc.collect()
            gc.freeze()
            work.error_log.use()
            loaded()
            with line, line.makefile("r") as orders:
                for order in orders:
                    row, number = map(int, order.split())
                    fork_twice(line, row, worker(row, number, applications))
                    # The first one has it still, to say what is wrong if it does not get to serve.
                    leave_terminal(work.settings, work.access_log)
        except AppLoadError as error:
            return report(error, work)
        except KeyboardInterrupt:
            pass
    return 0


def may_fork(ghosts: Sequence[str], preload: str) -> bool:
    """Tell of what does not survive a fork; False if that shall not be."""
    for ghost in ghosts:
        LOG.warning("--preload: workers are forked with %s", ghost)
    if ghosts and preload == "strict":
        LOG.error(
            "--preload=strict: not forked; make these where they are first used, or in the hook post_fork"
        )
        return False
    return True


def fork_twice(line: socket.socket, row: int, task: Task) -> None:
    """Fork a worker that is not our child, and say its number on the line; 0 if that is not possible."""
    # Ended in between, there would be a worker whose number nobody is told. And what a handler raises in that
    # which is called at a fork is lost.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        # gevent's waits in its hub, for ever if the child ended before that had begun to watch it.
        between = greening.original(os, "fork")()
    except OSError:
        say_forked(line, row, 0)
    else:
        if between == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            try:
                pid = fork(task)
            except Forked:
                raise
            except BaseException:
                pid = 0
            say_forked(line, row, pid)
            os._exit(0)
        greening.original(os, "waitpid")(between, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def say_forked(line: socket.socket, row: int, pid: int) -> None:
    with suppress(OSError):
        line.send(f"{row} {pid}\n".encode())
