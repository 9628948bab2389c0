"""What one reading of configuration and code leads to: opened addresses and logs, shared memory, workers."""

import logging
import math
import mmap
import os
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from fastwsgi import child, compression, gil, greening, hooks, mounts, resources, upgrade
from fastwsgi._accesslog import LogFormat
from fastwsgi._stats import Board, Row
from fastwsgi.capture import Output
from fastwsgi.child import Work
from fastwsgi.config import Settings
from fastwsgi.errors import ConfigError
from fastwsgi.guards import Guards
from fastwsgi.gunicorn import Config
from fastwsgi.listener import Listener, open_listeners
from fastwsgi.logs import AccessLog, ErrorLog
from fastwsgi.pressure import Pressure, Shortage
from fastwsgi.privileges import Identity
from fastwsgi.process import Place, nameless_file
from fastwsgi.sources import Configuration
from fastwsgi.worker import Ending, Post, hand_over, watched_certificates, with_activated

if TYPE_CHECKING:
    from fastwsgi.reloader import Code
    from fastwsgi.renewal import Reader, Renewal
    from fastwsgi.tls import Tls

NEVER = math.inf

# Rows of a board at the least: for what TTIN makes of a number of workers, and those that leave meanwhile.
LEAST_ROWS = 64


class State(Enum):
    """Of a worker, as the supervisor sees it."""

    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class Lines:
    """What every process of the tree shares; the supervisor alone keeps the other ends."""

    kick_fd: int  # wakes the loops of all workers
    life_fd: int  # hangs up when the supervisor is gone
    notice_fd: int  # a line for the supervisor

    def kick(self) -> None:
        """Have every worker look again whether it should accept."""
        if self.kick_fd >= 0:
            with suppress(BlockingIOError):
                os.eventfd_write(self.kick_fd, 1)


class Generation:
    """The settings, listeners and logs of its workers, and the memory that they share with the supervisor."""

    def __init__(
        self,
        number: int,
        work: Work,
        listeners: Sequence[Listener],
        lines: Lines,
        *,
        workers: int,
        why: str,
        loops: int = 1,
        memory: upgrade.Memory | None = None,
        renewal: "Renewal | None" = None,
    ) -> None:
        """loops: of each worker. memory: of a board that is there already (upgrade).

        renewal: of the certificates, with TLS.
        """
        self.number = number
        self.began = time.monotonic()
        self.work = work
        self.listeners = listeners
        self.settings: Settings = work.settings
        self.workers = workers
        self.why_so_many = why
        self.loops = loops
        self.renewal = renewal
        self.pressure = Pressure.of(work.settings.memory_pressure)
        self._lines = lines
        self.is_readable = True  # the board, and not one of another version of the server
        self.memory = memory or new_memory(workers, work.settings.concurrency, loops)
        try:
            self.board = open_board(self.memory)
        except ValueError:
            self.is_readable = False
            os.close(self.memory[0])
            _, rows, threads, its_loops = self.memory
            self.memory = new_memory(rows // (2 * its_loops), threads * its_loops, its_loops)
            self.board = open_board(self.memory)
        self.board_fd, rows, _, _ = self.memory
        self.rows = [self.board.row(index) for index in range(rows)]
        self.loader: child.LoaderLine | None = None
        self.loader_pid = 0
        self.loader_is_ready = False
        self.loader_kill_at = NEVER
        self.loader_output: Output | None = None  # of its workers, too

    @classmethod
    def open(
        cls,
        number: int,
        configuration: Configuration,
        lines: Lines,
        kept: Sequence[Listener],
        *,
        origin: Place,
        is_first: bool,
        reader: "Reader | None" = None,
        former: "Renewal | None" = None,
        code: "Code | None" = None,
    ) -> "Generation":
        """Open what it needs beside the listeners that are kept. `origin`: where the server was started.
        `reader`: who reads certificates, if this process may not. `former`: those of the generation before.
        `code`: with --reload.

        Raises ConfigError where that is not possible; nothing is left open then.
        """
        settings = with_activated(configuration.settings)
        try:
            LogFormat(settings.access_logformat, is_json=settings.log_format == "json")
            compression.makers(settings.compress)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if settings.gevent:
            greening.require()
        identity = Identity.find(settings.user, settings.group)
        cpus = resources.find_cpus()
        workers, why = resources.count_workers(settings.workers, cpus)
        loops = gil.count_loops(settings, workers, cpus.usable)
        place = place_of(settings, origin)
        hooked = hooks.Server(Config(settings, configuration.hooks.given, workers), workers)
        with ExitStack() as opened, place.visited():
            renewal = watched(settings, reader)
            if renewal is not None:
                opened.callback(renewal.close)
                if former is not None:
                    renewal.check_after(former.material)
            tls = terminated(renewal, configuration.hooks, hooked)
            access_log = AccessLog.of(settings)
            opened.callback(access_log.close)
            error_log = ErrorLog.of(settings)
            opened.callback(error_log.close)
            guards = Guards(mounts.plan(settings, bool(configuration.application)).routes)
            listeners = open_listeners(
                settings.bind, settings.backlog, kept=kept, reuse_port=settings.reuse_port
            )
            for listener in listeners:
                if listener not in kept:
                    opened.callback(listener.close)
                    if settings.reuse_port:
                        listener.rest()
            if identity is not None:
                hand_over(identity, listeners, access_log)
            opened.pop_all()
        assert configuration.application is not None
        work = Work(
            settings,
            configuration.application,
            configuration.hooks,
            hooked,
            access_log,
            error_log,
            place,
            identity,
            guards,
            is_first,
            tls,
            code,
        )
        return cls(number, work, listeners, lines, workers=workers, why=why, loops=loops, renewal=renewal)

    @classmethod
    def resumed(
        cls, kept: upgrade.Kept, lines: Lines, listeners: Sequence[Listener], code: "Code | None" = None
    ) -> "Generation":
        """The one of the program that was here before, with what that had open; `take_hooks` may follow.

        Messages go where they went, the directory and the umask are those of its files.
        """
        settings = kept.known_settings()
        place = place_of(settings, Place(kept.directory, kept.umask))
        with suppress(ConfigError):  # it is gone: its workers cannot be started, and say so
            place.enter()
        error_log = ErrorLog.of(settings, kept.error_log)
        error_log.use()
        access_log = AccessLog.restored(kept.access_log, settings)
        hooked = hooks.Server(Config(settings, {}, kept.wanted), kept.wanted)
        renewal = resumed_certificates(settings, kept)
        work = Work(
            settings,
            kept.application,
            hooks.NO_HOOKS,
            hooked,
            access_log,
            error_log,
            place,
            identity=None,  # this process has it already
            guards=None,
            is_first=False,
            tls=terminated(renewal, hooks.NO_HOOKS, hooked),
            code=code,
        )
        memory = kept.boards.get(str(kept.generation))
        return cls(
            kept.generation,
            work,
            listeners,
            lines,
            workers=kept.wanted,
            why="",
            loops=kept.loops,
            memory=memory,
            renewal=renewal,
        )

    @property
    def threads(self) -> int:
        """Of the application, in each worker: its part of them where it has the place of a loop."""
        return min(self.settings.threads, self.board.threads * self.loops)

    def have_processes(self) -> None:
        """Have a worker from now on where there would be a loop."""
        self.workers, self.loops = self.workers * self.loops, 1

    def take_hooks(self, found: hooks.Hooks) -> None:
        """Have these hooks from now on."""
        hooked = hooks.Server(Config(self.settings, found.given, self.workers), self.workers)
        tls = terminated(self.renewal, found, hooked)
        self.work = replace(self.work, hooks=found, hooked=hooked, tls=tls)

    def fork(self, one: "Child") -> None:
        """Fork a worker, with --preload by the loader, which is ready. Raises `Forked` in the worker."""
        if self.settings.preload == "off":
            one.output = self._output()
            one.pid = fork_with(one.output, self._worker(one.row.index, one.number))
        elif self.loader is not None:
            self.loader.ask(one.row.index, one.number)

    @property
    def memory_limit(self) -> int | None:
        """--max-worker-memory in octets."""
        given = self.settings.max_worker_memory
        if isinstance(given, str):
            return int(float(given.rstrip("%")) / 100 * resources.find_memory().size)
        return given

    def start_loader(self) -> child.LoaderLine:
        """Fork the process that imports the application and forks the workers. Raises `Forked` in it."""
        line, theirs = child.loader_line()
        self.loader = line
        self.loader_output = self._output()
        task = partial(child.preload, self.work, theirs, self._worker, self._say_loaded)
        try:
            self.loader_pid = fork_with(self.loader_output, task)
        except OSError:
            self.loader = None
            line.close()
            theirs.close()
            raise
        theirs.close()
        return line

    def _output(self) -> Output | None:
        """With --capture-output: what a new process shall print to."""
        return Output() if self.settings.capture_output else None

    def _worker(self, row: int, number: int, applications: "child.Applications | None" = None) -> child.Task:
        """What a worker does."""
        lines = self._lines
        post = Post(
            self.board,
            self.rows[row],
            number,
            kick_fd=lines.kick_fd,
            life_fd=lines.life_fd,
            notice_fd=lines.notice_fd,
            has_others=self.workers > 1,
            loops=self.loops,
        )

        def serve(ending: Ending) -> int:
            listeners = self._listeners_of_a_worker()
            self.mark(listeners)
            return child.serve(self.work, post, listeners, ending, applications)

        return serve

    def mark(self, listeners: Sequence[Listener]) -> None:
        """Say of listeners whether they have TLS now; it was another matter for another generation."""
        for listener in listeners:
            listener.mark(self.renewal is not None)

    def _listeners_of_a_worker(self) -> Sequence[Listener]:
        """In a worker: with --reuse-port they are its own, and no other process may ever have them.

        It would keep them open when the worker is dead, and whoever is queued there would wait in vain.
        """
        if not self.settings.reuse_port:
            return self.listeners
        return [listener.clone() for listener in self.listeners]

    def _say_loaded(self) -> None:
        os.write(self._lines.notice_fd, f"loaded {self.number}\n".encode())

    def free_row(self, taken: Sequence["Child"]) -> Row | None:
        """A row of the board that no worker has."""
        used = {one.row.index for one in taken if one.generation is self}
        return next((row for row in self.rows if row.index not in used), None)

    def end_loader(self) -> None:
        """Have the loader end; it may be at an import that does not."""
        if self.loader_pid:
            os.kill(self.loader_pid, signal.SIGTERM)
            self.loader_kill_at = time.monotonic() + self.settings.graceful_timeout

    def kill_loader(self) -> None:
        os.kill(self.loader_pid, signal.SIGKILL)
        self.loader_kill_at = NEVER

    @property
    def is_closed(self) -> bool:
        return self.board_fd < 0

    def close(self) -> None:
        """When its last worker is gone. The listeners are the supervisor's."""
        if self.is_closed:
            return
        self.work.access_log.close()
        self.work.error_log.close()
        if self.renewal is not None:
            self.renewal.close()
        os.close(self.board_fd)
        self.board_fd = -1


def watched(settings: Settings, reader: "Reader | None") -> "Renewal | None":
    """The certificates that settings name, in the place of their files; raises ConfigError."""
    if reader is None or not settings.has_tls:
        return watched_certificates(settings)
    from fastwsgi.renewal import Renewal
    from fastwsgi.tls import Policy

    return Renewal.shared(Policy.of(settings), reader.store.fd)


def resumed_certificates(settings: Settings, kept: "upgrade.Kept") -> "Renewal | None":
    """Those of the program that was here before, as they were when it went on."""
    if kept.certificates is None or not settings.has_tls:
        return None
    from fastwsgi.renewal import Renewal
    from fastwsgi.tls import Policy

    return Renewal.shared(Policy.of(settings), kept.certificates[0])


def terminated(renewal: "Renewal | None", found: hooks.Hooks, hooked: hooks.Server) -> "Tls | None":
    """What workers have TLS from; raises ConfigError."""
    if renewal is None:
        return None
    hook = found.ssl_context
    return renewal.tls(None if hook is None else partial(hook, hooked.cfg))


def place_of(settings: Settings, origin: Place) -> Place:
    """Where the files of these settings are, for a server that was started there."""
    return Place(
        origin.directory if settings.chdir is None else settings.chdir,
        origin.umask if settings.umask is None else settings.umask,
    )


def fork_with(output: Output | None, task: child.Task) -> int:
    """Fork, with what the new process prints going to `output`; raise OSError if that is not possible."""
    try:
        pid = child.fork(child.captured(output, task))
    except OSError:
        if output is not None:
            output.close()
        raise
    if output is not None:
        output.forked(pid)
    return pid


def open_board(memory: upgrade.Memory) -> Board:
    """Map it; raise ValueError if it is laid out in another way."""
    fd, rows, threads, loops = memory
    return Board(mmap.mmap(fd, Board.size(rows, threads, loops)), rows, threads, loops)


def new_memory(workers: int, concurrency: int, loops: int) -> upgrade.Memory:
    # There may have to be a worker for each loop.
    rows = max(2 * workers * loops + 2, LEAST_ROWS)
    threads = (concurrency - 1) // loops + 1
    fd = nameless_file()
    os.ftruncate(fd, Board.size(rows, threads, loops))
    return fd, rows, threads, loops


@dataclass(frozen=True, slots=True)
class Wear:
    """Why a worker shall be replaced, and when at the latest it is not waited any more for a quiet moment."""

    why: str
    until: float
    level: int = logging.INFO
    shortage: Shortage | None = None  # for want of memory


@dataclass(eq=False, slots=True)
class Child:
    """A worker, as the supervisor sees it."""

    generation: Generation
    row: Row
    number: int  # of this start; counts up for ever
    born: float = field(default_factory=time.monotonic)
    serves_since: float = 0.0
    pid: int = 0  # not known yet while a loader forks it
    state: State = State.STARTING
    fresh: int = 0  # memory that it had when it began to serve
    wears_out: float = NEVER  # --max-worker-lifetime
    wear: Wear | None = None  # it shall be replaced
    marked: bool = False  # now
    makes_room: bool = False  # it leaves before another one starts
    deaf_until: float = 0.0  # while it leaves: who comes to sockets of its own is not heard
    kill_at: float = NEVER
    output: Output | None = None  # what it prints, if that is captured and no loader has it
    was_told: bool = False  # that it takes long to start
    look_again_at: float = 0.0  # it was not heard of for too long
    finished: int = 0  # what it said at its end: requests while it was stopping
    cut_off: int = 0
    ended_by_us: str = ""  # we have sent a signal that kills, and why

    @property
    def age(self) -> float:
        return time.monotonic() - self.born

    @property
    def is_quiet(self) -> bool:
        """No request runs."""
        return not self.row.counters()["exchanges"]

    @property
    def hooked(self) -> hooks.Worker:
        """What hooks know as the worker."""
        return hooks.Worker(
            self.number, os.getpid(), self.generation.work.hooked.cfg, self.pid or "[booting]"
        )

    def send(self, number: int) -> None:
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self, number: int, why: str) -> None:
        """Send a signal that ends it, for a reason."""
        self.ended_by_us = why
        self.send(number)

    def silent_at(self) -> float:
        """When it has not been heard of for --worker-timeout; a second look counts."""
        timeout = self.generation.settings.worker_timeout
        if (
            not self.generation.is_readable
            or not timeout
            or not self.pid
            or self.kill_at != NEVER
            or self.state is State.LEAVING
        ):
            return NEVER
        if self.state is State.STARTING:
            return NEVER if self.was_told else self.born + timeout
        due = max(self.row.beat / 1e9, self.serves_since) + timeout
        if due > time.monotonic():
            self.look_again_at = 0.0
        return max(due, self.look_again_at)
