"""The supervisor: starts workers, watches them and replaces them; it never runs anything of the application.

After every event, what shall be is compared with what is (`_reconcile`): a crash, a reload, a worker that has
served its requests and a signal that asks for one more are all the same to it. One step is taken at a time,
nothing is waited for.
"""

import logging
import os
import random
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import unquote

from fastwsgi import __version__, child, loader, logs, process, resources, systemd, upgrade
from fastwsgi._stats import row_state_t
from fastwsgi.blackbox import FAULTS, OomCounter, describe_end, show_age, what_it_served
from fastwsgi.capture import Output
from fastwsgi.child import HANDLED, Forked
from fastwsgi.config import Settings
from fastwsgi.control import View
from fastwsgi.errors import ConfigError
from fastwsgi.generation import NEVER, Child, Generation, Lines, State, Wear, place_of
from fastwsgi.listener import Listener
from fastwsgi.logs import LOG, AccessLog, error_log_fd
from fastwsgi.monitor import Helper, Monitor, open_monitors
from fastwsgi.pressure import Pressure, Shortage, Size
from fastwsgi.privileges import Identity
from fastwsgi.process import (
    Launch,
    PidFile,
    Place,
    become_subreaper,
    current_umask,
    daemonize,
    set_title,
)
from fastwsgi.resources import show_size
from fastwsgi.sources import Configuration, starting_directory
from fastwsgi.worker import (
    EXIT_PATIENCE,
    INTERRUPT_GRACE,
    LOG_PAUSE,
    RELOAD_PATIENCE,
    Ending,
    check_backlog,
    grace_of,
    leave_terminal,
    open_pid_file,
    plural,
    prepare,
    runners,
    summary,
    warn_of_lost_messages,
)

if TYPE_CHECKING:
    from fastwsgi.dev import Terminal
    from fastwsgi.reloader import Code
    from fastwsgi.renewal import Reader

# The exit code of a start that fails before there is a worker.
FAILED = 1

# What neither a reload nor an upgrade changes. (Of --log-config-dict nobody knows whether it is the same.)
FIXED = (
    *("reuse_port", "user", "group", "pid", "daemon", "log_config", "log_config_json"),
    *("control_socket", "metrics", "statsd_host", "statsd_prefix", "dogstatsd_tags"),
    *("reload", "reload_engine", "reload_extra_file", "reload_ignore"),
)

# So many crashes within so many seconds may be chance; from there on the pauses between starts grow.
CRASHES = 5
CRASH_SECONDS = 10.0
LONGEST_PAUSE = 30.0
# So long a reload is left to come to its end when another one is asked for.
TRIAL_PATIENCE = 30.0

# A stronger signal follows after so many seconds.
KILL_PATIENCE = 2.0
MEMORY_PAUSE = 5.0
# How long a moment is waited for in which a worker that is worn runs no request, and if memory is short; and
# how often it is looked for.
QUIET_PATIENCE = 10.0
SHORT_PATIENCE = 1.0
QUIET_PAUSE = 0.1
SECOND_LOOK = 1.0
# With --reuse-port, a worker that leaves lets in what has begun to connect to its own sockets, and drops the
# SYN of whoever is new, who sends it again a second later. That takes so long at most; and so many do it at
# once, of those who serve.
DEAF_SECONDS = 0.2
DEAF_SHARE = 1 / 4
# Where no process can be had.
START_PAUSE = 1.0


class Stage(Enum):
    """How far the end of the server is."""

    NONE = 0
    DELAYED = 1
    DRAINING = 2
    CUT = 3


class Supervisor:
    """Keeps a number of workers serving until it is told to stop."""

    def __init__(
        self,
        configuration: Configuration | None,
        read: Callable[[], Configuration],
        launch: Launch | None = None,
    ) -> None:
        """Opens nothing yet. `read` makes the configuration of a reload; ConfigError if it is wrong.

        configuration: None if it takes the place of another program, with what that had.
        launch: who waits for the start of a daemon.
        """
        self._launch = launch
        self._configuration = configuration
        self._read = read
        self._children: list[Child] = []
        self._listeners: list[Listener] = []  # all that are open, those of the trial, too
        self._generation: Generation | None = None
        self._trial: Generation | None = None  # to be adopted once a worker of it serves
        self._forks: Generation | Helper | None = None  # what the last process that was forked belongs to
        self._helpers: list[Helper] = []
        self._reader: Reader | None = None  # of certificates, if this process may not
        self._app_code: Code | None = None  # of the application, with --reload
        self._changed_at = 0.0  # when it was; 0: a worker has it
        self._former_terminal: Terminal | None = None  # as it was at the start, with --reload
        self._browser: object = None  # the process that has opened one
        self._began = time.monotonic()
        self._loaders: dict[int, Generation] = {}  # by process number
        self._outputs: set[Output] = set()  # that may still be printed to
        self._rehearsal = 0  # the process that tries whether a new version of the server starts
        self._is_rehearsed = False  # it does
        self._wanted = 0
        self._was_complete = False  # as many workers served as shall
        self._numbers = 0  # of workers started
        self._generations = 0
        self._crashes = 0  # in a row
        self._last_crash = self._pause = 0.0
        self._start_after = 0.0
        self._start_error = ""  # told already
        self._reload_began = 0.0  # 0: none goes on
        self._reload_again = False
        self._reloads = 0  # that are over
        self._reload_failure = ""  # of the last one
        self._stage = Stage.NONE
        self._stage_ends = NEVER
        self._code = 0
        self._requests = self._finished = self._cut_off = 0
        self._signals: list[int] = []
        self._strays: dict[int, int] = {}  # ended before a loader said whose they were
        self._memory_look = NEVER
        self._manager = systemd.Manager.of(os.environ)
        self._watchdog = systemd.watchdog_interval(os.environ, os.getpid())
        self._watchdog_at = time.monotonic() if self._watchdog else NEVER
        self._origin = Place(starting_directory(), current_umask())
        self._pid_file: PidFile | None = None
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._ooms = OomCounter()

    # ---- the turn ----

    def run(self) -> int:
        """Serve until told to stop; return the exit code. Raises `Forked` in each process that it forks."""
        kept = upgrade.take_over()
        self._open(kept)
        try:
            if kept is not None:
                self._resume(kept)
            elif self._configuration is not None:
                self._begin(self._configuration)
            self._see_to_helpers()
            self._reconcile()
            while self._stage is Stage.NONE or self._children or self._loaders:
                self._wait()
                self._heed_signals()
                self._hear()
                self._reap()
                self._look_after()
                self._reconcile()
                self._see_to_helpers()
            self._say_goodbye()
        except Forked:
            self._let_go()
            for helper in self._helpers:
                if helper is not self._forks:
                    helper.let_go()
            if isinstance(self._forks, Helper):
                for listener in self._listeners:
                    listener.socket.close()
            for generation in self._open_generations():
                if generation is not self._forks:
                    generation.close()
            raise
        except BaseException:
            # Those that serve finish what they have when nobody is there any more; others end now.
            for one in self._children:
                one.send(signal.SIGTERM)
            self._close()
            raise
        self._close()
        return self._code

    def _open(self, kept: "upgrade.Kept | None") -> None:
        """Open pipes, and heed signals."""
        if kept is None:
            (life_fd, self._life), (self._notice, notice_fd) = os.pipe(), os.pipe()
            kick_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) if hasattr(os, "eventfd") else -1
        else:
            life_fd, self._life, self._notice, notice_fd, kick_fd = kept.lines
        self._lines = Lines(kick_fd, life_fd, notice_fd)
        self._alarm, self._alarm_end = os.pipe()
        for fd in (life_fd, self._life, self._notice, notice_fd, self._alarm, self._alarm_end):
            os.set_blocking(fd, False)
            os.set_inheritable(fd, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._notice, selectors.EVENT_READ)
        self._selector.register(self._alarm, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._alarm_end, warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, lambda number, _: self._signals.append(number))
        if kept is not None:
            self._signals.append(signal.SIGCHLD)  # the former program may have taken it
            signal.pthread_sigmask(signal.SIG_SETMASK, kept.blocked)
        become_subreaper()

    def _let_go(self) -> None:
        """In a child: close what is the parent's alone."""
        self._selector.close()
        for fd in (self._life, self._notice, self._alarm, self._alarm_end):
            os.close(fd)
        for output in self._outputs:
            output.close()
        for generation in self._open_generations():
            if generation.loader is not None:
                generation.loader.close()

    def _close(self) -> None:
        """At the end: addresses are given up, and socket files unlinked."""
        signal.set_wakeup_fd(-1)
        for number in HANDLED:
            signal.signal(number, signal.SIG_DFL)
        self._let_go()
        for listener in self._listeners:
            listener.close()
        for helper in self._helpers:
            helper.close()
        if self._pid_file is not None:
            self._pid_file.close()

    def _wait(self) -> None:
        """Until something happens or is due."""
        due = min(self._timers())
        timeout = 0.0 if self._signals else None if due == NEVER else max(0.0, due - time.monotonic())
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, Monitor):
                key.data.is_asked = True
            elif key.fd == self._alarm:
                with suppress(BlockingIOError):
                    os.read(self._alarm, 4096)

    def _timers(self) -> Iterator[float]:
        """When something has to be looked at."""
        if logs.advance():
            yield time.monotonic() + LOG_PAUSE
        yield self._stage_ends
        yield self._memory_look
        yield self._watchdog_at
        if self._start_after > time.monotonic():
            yield self._start_after
        for one in self._children:
            yield one.kill_at
            yield one.silent_at()
            if one.deaf_until > time.monotonic():
                yield one.deaf_until
            if one.state is State.SERVING and not one.marked:
                yield min(one.wear.until, time.monotonic() + QUIET_PAUSE) if one.wear else one.wears_out
        for generation in self._loaders.values():
            yield generation.loader_kill_at
        if self._generation is not None and self._generation.renewal is not None:
            yield self._generation.renewal.due
        for helper in self._helpers:
            yield from helper.timers()

    # ---- what happened ----

    def _heed_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            name = signal.Signals(number).name.removeprefix("SIG")
            if name == "TERM":
                self._stop(name)
            elif name == "INT":
                self._interrupt()
            elif name == "QUIT":
                self._cut(name)
            elif name == "USR1":
                self._reopen_logs()
            elif name in ("PWR", "INFO"):
                LOG.info("The stacks of every thread follow (%s)", name)
                for one in self._children:
                    one.send(number)
            elif self._stage is not Stage.NONE or name == "CHLD":
                pass
            elif name == "HUP":
                self._hang_up()
            elif name == "USR2":
                self._rehearse()
            elif name == "WINCH":
                # The kernel sends it, too, when the size of the terminal changes.
                if not in_foreground():
                    self._want(0, name)
            else:
                self._want(max(1, self._wanted + (1 if name == "TTIN" else -1)), name)

    def _hear(self) -> None:
        """What workers and loaders have to tell."""
        lines: list[bytes] = []
        with suppress(BlockingIOError):
            lines = os.read(self._notice, 65536).splitlines()
        for line in lines:
            with suppress(ValueError):  # an application may write to any descriptor that it has
                self._heed(line)
        for generation in self._loaders.values():
            self._hear_loader(generation)
        for output in list(self._outputs):
            if not output.read():
                self._selector.unregister(output)
                self._outputs.discard(output)
                output.close()

    def _listen_to(self, output: Output | None) -> None:
        if output is not None:
            self._selector.register(output, selectors.EVENT_READ)
            self._outputs.add(output)

    def _heed(self, line: bytes) -> None:
        word, number, *rest = line.split()
        if word == b"loaded":
            for generation in self._loaders.values():
                generation.loader_is_ready |= generation.number == int(number)
        elif word == b"end":
            for one in self._children:
                if one.number == int(number):
                    one.finished, one.cut_off = map(int, rest)
        elif word == b"asked":
            for one in self._children:
                if one.number == int(number):
                    self._shall_leave(one)
        elif word == b"gil":
            for one in self._children:
                if one.number == int(number):
                    self._has_gil(one, int(rest[0]), unquote(rest[1].decode()))
        elif word == b"changed" and self._app_code is not None:
            self._code_has_changed(self._app_code, unquote(rest[0].decode()), int(number))

    def _has_gil(self, one: Child, loops: int, culprit: str) -> None:
        """An import has turned the GIL on in a worker that has so many loops, which is of no use then."""
        generation = one.generation
        if generation.loops > 1:
            if generation is self._generation:
                self._wanted *= generation.loops
            LOG.warning(
                "%s has turned the GIL on, for the whole process (it does not say that it can do without): "
                "a worker for each of %d loops",
                culprit,
                generation.loops,
            )
            generation.have_processes()
        if loops > 1 and one.wear is None:
            one.wear = Wear("has a GIL now", until=time.monotonic() + QUIET_PATIENCE)

    def _hear_loader(self, generation: Generation) -> None:
        """Learn the numbers of the workers that a loader has forked; 0 for one that could not be."""
        for row, pid in generation.loader.answers() if generation.loader is not None else ():
            for one in self._children:
                if one.generation is generation and one.row.index == row and not one.pid:
                    one.pid = pid
                    if not pid:
                        self._not_started(one, "the loader cannot fork")
                    elif one.state is State.LEAVING:
                        self._retire(one)
                    break
        if generation.loader is not None and generation.loader.has_ended:
            # What is left of the loader may take its time; its line would be readable all the while.
            with suppress(KeyError):
                self._selector.unregister(generation.loader)

    def _reap(self) -> None:
        """Take leave of every process that has ended; as process 1, of strangers, too."""
        ended, self._strays = self._strays, {}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            ended[pid] = os.waitstatus_to_exitcode(status)
        for pid, code in ended.items():
            one = next((one for one in self._children if one.pid == pid), None)
            if one is not None:
                self._worker_ended(one, code)
            elif pid in self._loaders:
                self._loader_ended(self._loaders.pop(pid), code)
            elif pid == self._rehearsal:
                self._rehearsed(code)
            elif self._reader is not None and pid == self._reader.pid:
                if self._stage is not Stage.NONE:
                    continue  # its signal was for all of us
                LOG.error(
                    "The process that reads certificates %s: renewed ones are not seen until this server is "
                    "started again",
                    describe_end(code),
                )
            elif helper := next((helper for helper in self._helpers if helper.pid == pid), None):
                helper.ended("" if code in (0, -signal.SIGTERM) else describe_end(code))
            elif any(not one.pid for one in self._children):
                self._strays[pid] = code

    def _worker_ended(self, one: Child, code: int) -> None:
        requests = one.row.counters()["requests"]
        self._children.remove(one)
        if one.output in self._outputs:
            one.output.finish()  # its last words come before what is said of it
        self._requests += requests
        self._finished += one.finished
        self._cut_off += one.cut_off
        if one.state is State.STARTING:
            when = "" if code == child.APPLICATION_FAILED else " before it served"
            self._start_failed(one.generation, code, f"Worker {one.pid} {self._how(one, code)}{when}")
        elif one.state is State.SERVING and not (one.marked and code == 0):
            LOG.error(
                "Worker %d %s, %s after its start%s",
                one.pid,
                self._how(one, code),
                show_age(one.age),
                what_it_served(one.row, has_fault=-code in FAULTS),
            )
            self._count_crash()
        elif code not in (0, -signal.SIGTERM) and not (self._app_code is not None and one.ended_by_us):
            LOG.warning(
                "Worker %d %s while it was leaving%s",
                one.pid,
                self._how(one, code),
                what_it_served(one.row, has_fault=-code in FAULTS),
            )
        elif self._stage is Stage.NONE:
            level = logging.INFO if self._app_code is None else logging.DEBUG
            LOG.log(level, "Worker %d has left after %s", one.pid, plural(requests, "request"))
        if self._former_terminal is not None:
            self._former_terminal.restore()
        self._call(one.generation, "child_exit", one.hooked)
        one.row.clear()
        self._lines.kick()
        self._close_unused(one.generation)

    def _how(self, one: Child, code: int) -> str:
        """How a worker ended, and by whom, as far as that is known."""
        if code >= 0:
            return describe_end(code)
        if one.ended_by_us:
            return f"{describe_end(code)} (sent by fastwsgi, {one.ended_by_us})"
        if code == -signal.SIGKILL:
            return f"{describe_end(code)} (not sent by fastwsgi; {self._ooms.verdict()})"
        return describe_end(code)

    def _loader_ended(self, generation: Generation, code: int) -> None:
        was_ready = generation.loader_is_ready
        self._hear_loader(generation)
        if generation.loader is not None:
            with suppress(KeyError):
                self._selector.unregister(generation.loader)
            generation.loader.close()
        generation.loader, generation.loader_pid, generation.loader_is_ready = None, 0, False
        generation.loader_kill_at = NEVER
        for one in [one for one in self._children if one.generation is generation and not one.pid]:
            self._children.remove(one)
        if was_ready and generation is self._generation and self._stage is Stage.NONE:
            LOG.error("The loader (--preload) %s; another one is started", describe_end(code))
            self._count_crash()
        else:
            self._start_failed(generation, code, f"The loader (--preload) {describe_end(code)}")

    def _start_failed(self, generation: Generation, code: int, what: str) -> None:
        """A worker or a loader ended before it was of use."""
        if self._stage is not Stage.NONE:
            return
        if self._app_code is not None and self._shows_failure(self._app_code, generation, code):
            LOG.error("%s", self._app_code.fail(what))
        elif generation is self._trial:
            if self._generation is None:
                if code != child.APPLICATION_FAILED:
                    LOG.error("%s", what)
                self._code = code if code == child.APPLICATION_FAILED else child.WORKER_FAILED
                self._begin_draining()
            else:
                self._not_reloaded(what)
        elif generation is self._generation:
            LOG.error("%s", what)
            self._count_crash()

    def _shows_failure(self, code: "Code", generation: Generation, exit_code: int) -> bool:
        """The next worker stands for the application until that is changed; not for one that is not there."""
        if code.failure:
            return False
        is_missing = exit_code in (child.APPLICATION_FAILED, child.WORKER_FAILED)
        return generation is not self._trial or (self._generation is None and not is_missing)

    def _count_crash(self) -> None:
        """The first are replaced at once; where one follows the other, the pauses grow."""
        now = time.monotonic()
        if now - self._last_crash > max(CRASH_SECONDS, 2 * self._pause):
            self._crashes, self._pause = 0, 0.0
        self._crashes, self._last_crash = self._crashes + 1, now
        if self._crashes > CRASHES and self._stage is Stage.NONE and now >= self._start_after:
            self._pause = min(max(1.0, 2 * self._pause), LONGEST_PAUSE)
            self._start_after = now + self._pause
            LOG.error("%d crashes in a row: the next start is in %s", self._crashes, show_age(self._pause))

    # ---- what is due ----

    def _look_after(self) -> None:
        now = time.monotonic()
        for one in self._children:
            if one.state is State.STARTING and one.row.state == row_state_t.ROW_SERVING:
                self._worker_serves(one)
            if one.state is State.SERVING and not one.marked:
                self._look_for_wear(one, now)
            if now >= one.silent_at():
                self._worker_is_silent(one, now)
            if now >= one.kill_at:
                level = logging.ERROR if self._app_code is None else logging.INFO
                LOG.log(level, "Worker %d does not end: SIGKILL%s", one.pid, what_it_served(one.row))
                one.kill(signal.SIGKILL, "as it did not end")
                one.kill_at = NEVER
        for generation in self._loaders.values():
            if now >= generation.loader_kill_at:
                LOG.error("The loader (--preload), process %d, does not end: SIGKILL", generation.loader_pid)
                generation.kill_loader()
        if now >= self._memory_look:
            self._look_at_memory(now)
        renewal = self._generation.renewal if self._generation is not None else None
        if renewal is not None and now >= renewal.due:
            for level, text in renewal.look():
                LOG.log(level, "%s", text)
        if self._watchdog and now >= self._watchdog_at:
            self._manager.alive()
            self._watchdog_at = now + self._watchdog
        if now >= self._stage_ends:
            self._stage_is_over()

    def _worker_serves(self, one: Child) -> None:
        one.state, one.serves_since = State.SERVING, time.monotonic()
        if one.generation.pressure is not None:
            one.fresh = resources.pss(one.pid) or 0
        lifetime = one.generation.settings.max_worker_lifetime
        if lifetime:
            one.wears_out = one.serves_since + lifetime * random.uniform(0.9, 1.1)
        LOG.debug("Worker %d serves, %s after its start", one.pid, show_age(one.age))
        serving = sum(one.state is State.SERVING for one in self._children)
        if self._changed_at and serving == self._wanted and self._generation is not None:
            if self._app_code is not None and self._app_code.is_loaded:
                LOG.info("Loaded again in %s", show_age(time.monotonic() - self._changed_at))
            self._changed_at = 0.0
        if serving == self._wanted > 1 and not self._was_complete:
            self._was_complete = True
            LOG.info("All %d workers serve", serving)

    def _look_for_wear(self, one: Child, now: float) -> None:
        if one.row.wants:
            one.wear = Wear("has had its requests (--max-requests)", until=now)
        elif one.wear is None and now >= one.wears_out:
            one.wear = Wear("has had its time (--max-worker-lifetime)", until=now + QUIET_PATIENCE)
        if one.wear is not None and (now >= one.wear.until or one.is_quiet):
            self._mark(one, one.wear)

    def _mark(self, one: Child, wear: Wear) -> None:
        """Have another one take its place."""
        one.marked = True
        one.makes_room = wear.shortage is not None and self._has_to_make_room(one, wear.shortage)
        then = " once it has left" if one.makes_room else ""
        LOG.log(wear.level, "Worker %d %s: another one takes its place%s", one.pid, wear.why, then)
        if one.makes_room:
            self._retire(one)

    def _has_to_make_room(self, one: Child, shortage: Shortage) -> bool:
        """Others serve meanwhile, or clients wait in the kernel's queue."""
        has_others = any(other.state is State.SERVING and other is not one for other in self._children)
        # While it is imported, an application takes more than afterwards.
        return has_others or shortage.needed + 2 * one.fresh > shortage.limit

    def _watch_memory(self, generation: Generation) -> None:
        is_watched = generation.memory_limit is not None or generation.pressure is not None
        self._memory_look = time.monotonic() if is_watched else NEVER

    def _look_at_memory(self, now: float) -> None:
        self._memory_look = now + MEMORY_PAUSE
        for one in self._children:
            limit = one.generation.memory_limit
            used = resources.rss(one.pid) if limit and one.state is State.SERVING and not one.wear else None
            if limit and used is not None and used > limit:
                why = f"is too large (--max-worker-memory), {used >> 20} MiB of {limit >> 20}"
                one.wear = Wear(why, until=now + QUIET_PATIENCE, level=logging.WARNING)
        if self._generation is not None and self._generation.pressure is not None:
            self._look_for_shortage(self._generation.pressure, now)

    def _look_for_shortage(self, pressure: Pressure, now: float) -> None:
        shortage = pressure.look(now)
        self._memory_look = min(self._memory_look, now + pressure.look_pause)
        if self._stage is not Stage.NONE or not all(self._is_settled(one) for one in self._children):
            return  # it will be another matter soon
        workers = {one.pid: one for one in self._children} if shortage is not None else {}
        sizes = [Size(pid, resources.pss(pid) or 0, one.fresh) for pid, one in workers.items()]
        largest = pressure.choose(shortage, sizes, now)
        if shortage is not None and largest is not None:
            size = show_size(largest.now)
            why = f"is the largest, {size}, and memory is short (--memory-pressure; {shortage})"
            until = now if shortage.is_urgent else now + SHORT_PATIENCE
            workers[largest.pid].wear = Wear(why, until, logging.WARNING, shortage)

    def _is_settled(self, one: Child) -> bool:
        """It serves and goes on to."""
        return one.state is State.SERVING and one.wear is None and one.generation is self._generation

    def _worker_is_silent(self, one: Child, now: float) -> None:
        timeout = show_age(one.generation.settings.worker_timeout)
        if one.state is State.STARTING:
            one.was_told = True
            LOG.warning("Worker %d is still starting after %s (--worker-timeout)", one.pid, timeout)
        elif not one.look_again_at:
            # Perhaps the machine stood still, and this process with it: then it is heard of at once.
            one.look_again_at = now + SECOND_LOOK
        else:
            LOG.error(
                "Worker %d has not been heard of for %s (--worker-timeout) and is ended%s",
                one.pid,
                timeout,
                what_it_served(one.row, has_fault=True),
            )
            one.generation.work.hooks.call("worker_abort", one.hooked)
            one.state = State.LEAVING  # another one may come at once
            one.kill(signal.SIGABRT, "after --worker-timeout")
            one.kill_at = now + KILL_PATIENCE
            self._count_crash()

    # ---- what shall be ----

    def _begin(self, configuration: Configuration) -> None:
        """The first start."""
        settings = configuration.settings
        if settings.chdir is not None:
            loader.change_directory(settings.chdir)
        loader.current_directory()
        prepare(settings)
        set_title("supervisor", settings.name)
        if settings.pid is not None:
            identity = Identity.find(settings.user, settings.group)
            self._pid_file = open_pid_file(settings.pid, identity)
        self._helpers = open_monitors(settings, self._selector)
        self._watch_code(settings)
        self._leave_a_reader(settings)
        self._trial = self._generate(configuration)
        self._wanted = self._trial.workers
        if not self._call(self._trial, "on_starting"):
            raise ConfigError("the hook on_starting has failed")

    def _watch_code(self, settings: Settings) -> None:
        """With --reload: have a process that looks whether files have changed."""
        if not settings.reload:
            return
        from fastwsgi.dev import Terminal
        from fastwsgi.reloader import Code, Watcher, check_engine

        check_engine(settings)
        self._former_terminal = Terminal()
        self._app_code = Code()
        here = place_of(settings, self._origin).directory
        paths = [path for path in (settings.pythonpath or "").split(",") if path]
        roots = [here, *(os.path.join(here, path) for path in paths)]
        self._helpers.append(Watcher(settings, roots, self._app_code, self._lines.notice_fd))

    def _code_has_changed(self, code: "Code", name: str, more: int) -> None:
        """Have workers import it anew; clients wait in the kernel's queue until the former ones have left."""
        if self._stage is not Stage.NONE:
            return
        code.change()
        others = f" and {plural(more, 'other file')}" if more else ""
        LOG.info("%s%s changed: loading again", name, others)
        self._changed_at = time.monotonic()
        self._crashes, self._pause, self._start_after = 0, 0.0, 0.0
        for one in self._children:
            if one.state is not State.LEAVING:
                one.marked = one.makes_room = True
                self._retire(one)

    def _leave_a_reader(self, settings: Settings) -> None:
        """Before root's rights are given up: fork a process that keeps them, to read certificates."""
        identity = Identity.find(settings.user, settings.group)
        if identity is None or identity.is_ours or not settings.has_tls:
            return
        from fastwsgi.renewal import Reader, Renewal, read_apart
        from fastwsgi.tls import Policy

        def read(_: Ending) -> int:
            set_title("certificates", settings.name)
            # It writes to no log: the supervisor says what there is to say.
            process.leave_terminal()
            read_apart(renewal, self._lines.life_fd)
            return 0

        renewal = Renewal.of(Policy.of(settings))
        self._reader = Reader(child.fork(read), renewal.store)

    def _generate(self, configuration: Configuration) -> Generation:
        if self._generation is not None:
            former, settings = self._generation.settings, configuration.settings
            for name in FIXED:
                if getattr(former, name) != getattr(settings, name):
                    flag = "--" + name.replace("_", "-")
                    raise ConfigError(f"{flag} cannot be changed by a reload; stop and start the server")
            if settings.workers == 0:
                raise ConfigError("--workers 0 is for a start: a reload cannot end the supervisor")
        self._generations += 1
        generation = Generation.open(
            self._generations,
            configuration,
            self._lines,
            self._listeners,
            origin=self._origin,
            is_first=self._generation is None,
            reader=self._reader,
            former=self._generation.renewal if self._generation is not None else None,
            code=self._app_code,
        )
        self._listeners += [listener for listener in generation.listeners if listener not in self._listeners]
        return generation

    def _close_listeners(self, generation: Generation) -> list[Listener]:
        """Give up those that this generation does not have, and return them."""
        closed = [listener for listener in self._listeners if listener not in generation.listeners]
        for listener in closed:
            listener.give_up()
        self._listeners = list(generation.listeners)
        return closed

    def _reconcile(self) -> None:
        """Start and retire workers, so that as many serve as shall, all of the latest generation."""
        if self._stage not in (Stage.NONE, Stage.DELAYED):
            return
        may_start = time.monotonic() >= self._start_after
        if self._trial is not None:
            first = next((one for one in self._children if one.generation is self._trial), None)
            if first is None and may_start:
                self._start_worker(self._trial)
            elif first is None:
                pass
            elif first.state is State.SERVING:
                self._adopt(self._trial, first)
        generation = self._generation
        if generation is None:
            return
        serving = [
            one for one in self._children if one.state is State.SERVING and one.generation is not self._trial
        ]
        fresh = [one for one in self._children if one.generation is generation and not one.marked]
        fresh = [one for one in fresh if one.state is not State.LEAVING]
        starting = [one for one in fresh if one.state is State.STARTING]
        lacking = self._wanted - len(fresh)
        is_complete = lacking <= 0 and not starting
        lacking -= sum(one.makes_room for one in self._children)
        if len(serving) >= self._wanted:
            # Every place is taken, some by those that are to be replaced: one after the other.
            lacking = min(lacking, 1 - len(starting))
            if generation.settings.reuse_port and self._deaf() >= max(1, self._wanted * DEAF_SHARE):
                lacking = 0
        if may_start:
            for _ in range(lacking):
                self._start_worker(generation)
        for one in starting[: max(0, len(fresh) - self._wanted)]:
            self._retire(one)
        # The old before the worn, the worn before the young; who has been worn longest before others.
        serving.sort(
            key=lambda one: (
                one.generation is generation,
                not one.marked,
                one.number if one.marked else -one.number,
            )
        )
        for one in serving[: max(0, len(serving) - self._wanted)]:
            self._retire(one)
        if self._reload_began and self._trial is None and is_complete:
            LOG.info("Reloaded in %s", show_age(time.monotonic() - self._reload_began))
            self._reload_failure = ""
            self._reload_is_over()
        if self._is_rehearsed and self._trial is None and self._stage is Stage.NONE:
            self._upgrade(generation)

    def _deaf(self) -> int:
        """How many of the sockets that clients may come to will not have them."""
        now = time.monotonic()
        return sum(now < one.deaf_until for one in self._children)

    def _start_worker(self, generation: Generation) -> None:
        self._forks = generation
        if generation.settings.preload != "off" and not generation.loader_is_ready:
            if not generation.loader_pid:
                self._start_loader(generation)
            return
        row = generation.free_row(self._children)
        if row is None:
            return
        row.clear()
        self._ooms.note()
        self._numbers += 1
        one = Child(generation, row, self._numbers)
        self._call(generation, "pre_fork", one.hooked)
        self._children.append(one)
        try:
            generation.fork(one)
        except OSError as error:
            self._not_started(one, str(error))
        else:
            self._start_error = ""
            self._listen_to(one.output)
            if self._app_code is not None and self._wanted > 1:
                self._app_code.is_told = True

    def _start_loader(self, generation: Generation) -> None:
        try:
            line = generation.start_loader()
        except OSError as error:
            self._start_later(str(error))
        else:
            self._loaders[generation.loader_pid] = generation
            self._listen_to(generation.loader_output)
            self._selector.register(line, selectors.EVENT_READ)

    def _not_started(self, one: Child, why: str) -> None:
        """The system has no process, memory or descriptor for it now."""
        self._children.remove(one)
        self._start_later(why)

    def _start_later(self, why: str) -> None:
        self._start_after = time.monotonic() + START_PAUSE
        if why != self._start_error:
            self._start_error = why
            LOG.error("No worker can be started: %s; trying again every %g s", why, START_PAUSE)

    def _adopt(self, generation: Generation, first: Child) -> None:
        """A worker of a new generation serves: it is the one that counts now."""
        former, self._generation, self._trial = self._generation, generation, None
        if former is not None:
            self._take_on(former.settings, generation)
        generation.work.error_log.use()
        generation.mark(self._listeners)
        for listener in self._close_listeners(generation):
            LOG.info("Not listening at %s any more", listener.address)
        self._wanted, why = generation.workers, generation.why_so_many
        if generation.settings.workers == "auto":
            each = resources.pss(first.pid) or 0
            self._wanted, lowered = resources.fit_to_memory(self._wanted, each, resources.find_memory())
            why = lowered or why
        self._crashes, self._start_after = 0, 0.0
        self._watch_memory(generation)
        self._announce(generation, why)
        if former is None:
            self._call(generation, "when_ready")
            self._manager.ready()
            if generation.settings.open:
                from fastwsgi.dev import open_browser

                self._browser = open_browser(listener.url for listener in self._listeners)
            if self._launch is not None:
                warn_of_lost_messages(generation.settings)
                leave_terminal(generation.settings, generation.work.access_log)
                self._launch.tell()
        else:
            former.end_loader()
            for one in self._children:
                # It would serve one moment, if ever.
                if one.generation is not generation and one.state is State.STARTING:
                    self._retire(one)
            self._close_unused(former)
        if self._reload_again:
            self._reload_again = False
            self._reload()

    def _take_on(self, former: Settings, generation: Generation) -> None:
        """What of a reload concerns this process."""
        settings = generation.settings
        with suppress(ConfigError):  # the directory was there just now
            generation.work.place.enter()
        set_title("supervisor", settings.name)
        if settings.error_logfile != former.error_logfile and logs.own_handlers():
            LOG.info("Messages go to %s from now on (--error-logfile)", settings.error_logfile)
            warn_of_lost_messages(settings)
        if settings.backlog != former.backlog:
            check_backlog(settings.backlog)
            for listener in generation.listeners:
                if listener.listens:
                    listener.listen(settings.backlog)

    def _announce(self, generation: Generation, why: str) -> None:
        LOG.info(
            "fastwsgi %s serves %s with %s%s of %s",
            __version__,
            generation.work.title,
            plural(self._wanted, "worker"),
            f" ({why})" if why else "",
            runners(generation.settings, generation.threads, generation.loops),
        )
        for listener in self._listeners:
            LOG.info("Listening at %s", listener.url)
        if generation.renewal is not None:
            for text in generation.renewal.descriptions():
                LOG.info("%s", text)
        self._announce_limits(generation)
        self._announce_development(generation)
        LOG.info("Process %d; Ctrl-C or TERM stops it, HUP reloads it", os.getpid())

    def _announce_development(self, generation: Generation) -> None:
        settings = generation.settings
        if settings.reload or settings.lint or settings.tracebacks:
            from fastwsgi.dev import describe

            LOG.info("%s", describe(settings, None if self._app_code is None else self._app_code.latest()))

    def _announce_limits(self, generation: Generation) -> None:
        quota, memory = resources.find_cpus().quota, resources.find_memory()
        limits = [] if quota is None else [f"a CPU quota of {quota:.3g}"]
        if memory.is_limit:
            limits.append(f"{show_size(memory.size)} of memory")
        share = generation.settings.memory_pressure
        then = f"; from {share} of that on the largest worker is replaced (--memory-pressure)"
        if limits:
            LOG.info("Limits of its cgroup: %s%s", ", ".join(limits), then if generation.pressure else "")

    def _retire(self, one: Child) -> None:
        """Let a worker finish what it has, while others go on."""
        # One that does not serve yet has nothing to finish, but may be at an import that goes on.
        if one.state is State.STARTING and one.row.state != row_state_t.ROW_SERVING:
            one.kill_at = time.monotonic() + EXIT_PATIENCE
        one.state = State.LEAVING
        if one.generation.settings.reuse_port:
            one.deaf_until = time.monotonic() + DEAF_SECONDS
        one.row.state = row_state_t.ROW_DRAINING  # so that it knows from whom the signal is
        one.send(signal.SIGTERM)
        self._expect_end(one)

    def _shall_leave(self, one: Child) -> None:
        """Somebody else has sent TERM to a worker."""
        if one.state is State.LEAVING:
            self._retire(one)  # or it had not got as far as to know from whom it was
        elif self._stage is Stage.NONE and not one.marked:
            self._mark(one, Wear("shall leave (TERM)", until=0.0))

    def _expect_end(self, one: Child) -> None:
        patience = one.generation.settings.graceful_timeout + 2 * EXIT_PATIENCE
        if one.generation.settings.reload:
            patience = RELOAD_PATIENCE
        one.kill_at = min(one.kill_at, time.monotonic() + patience)

    def _call(self, generation: Generation, hook: str, *arguments: object) -> bool:
        """Call a hook with what it knows as the server; False if it has failed."""
        hooked = generation.work.hooked
        hooked.num_workers, hooked.worker_age = self._wanted, self._numbers
        hooked.WORKERS = {one.pid: one.hooked for one in self._children if one.pid}
        return generation.work.hooks.call(hook, hooked, *arguments)

    def _want(self, number: int, name: str) -> None:
        generation = self._generation
        if generation is None:
            return
        before, self._wanted = self._wanted, min(number, len(generation.rows) // 2)
        LOG.info("%s from now on (%s)", plural(self._wanted, "worker"), name)
        if self._wanted != before:
            self._call(generation, "nworkers_changed", self._wanted, before)

    def _close_unused(self, generation: Generation) -> None:
        """A generation that nobody serves any more; one that was refused at a reload comes here twice."""
        if generation.is_closed or generation in (self._generation, self._trial):
            return
        if all(one.generation is not generation for one in self._children):
            if self._generation is not None:
                self._generation.board.inherit(generation.board)
            generation.close()

    def _reopen_logs(self) -> None:
        """Go on in new files; each process has its own descriptors."""
        for generation in self._open_generations():
            try:
                generation.work.access_log.reopen()
            except ConfigError as error:
                LOG.error("%s; going on in the old file", error)
            if generation.loader_pid:
                os.kill(generation.loader_pid, signal.SIGUSR1)
        for one in self._children:
            one.send(signal.SIGUSR1)

    # ---- who asks how the server is ----

    def _see_to_helpers(self) -> None:
        """Have processes that tell how the server is, as far as somebody asks, and know how it is now."""
        view = self._view()
        latest = self._generation or self._trial
        for helper in self._helpers:
            if helper.is_due(view):
                self._forks = helper
                helper.start(view, self._lines.life_fd, latest.settings.name if latest is not None else None)
            helper.see_to(view)

    def _view(self) -> View:
        generation = self._generation
        latest = generation or self._trial
        return View(
            os.getpid(),
            latest.work.title if latest is not None else "",
            tuple(listener.url for listener in self._listeners),
            self._began,
            generation.number if generation is not None else 0,
            tuple(sorted((one.number, one.board) for one in self._open_generations() if one.is_readable)),
            self._wanted,
            self._reloads,
            self._reload_failure,
            bool(self._reload_began),
            self._stage is not Stage.NONE,
            generation.renewal.ends() if generation is not None and generation.renewal is not None else (),
        )

    # ---- reload ----

    def _hang_up(self) -> None:
        if self._terminal and not sys.stderr.isatty():
            self._stop("HUP")
        elif self._trial is None:
            self._reload()
        elif time.monotonic() - self._trial.began < TRIAL_PATIENCE or self._generation is None:
            LOG.info("HUP: reloading once more when this is done")
            self._reload_again = True
        else:
            self._reload_again = True
            self._not_reloaded("it takes long, and HUP has come again")

    def _reload(self) -> None:
        """Read the configuration again, and see whether a worker gets to serve with it."""
        LOG.info("Reloading (HUP)")
        self._manager.reloading()
        self._reload_began = time.monotonic()
        configuration, why = self._read_anew()
        if configuration is None:
            self._not_reloaded(why)
            return
        trial = self._try(configuration)
        if trial is not None:
            self._call(trial, "on_reload")

    def _read_anew(self) -> tuple[Configuration | None, str]:
        """The configuration as it is now; or why it cannot be had."""
        try:
            return self._read(), ""
        except (ConfigError, OSError) as error:
            return None, str(error)

    def _try(self, configuration: Configuration) -> Generation | None:
        """Put a generation on trial; None if it cannot even be opened, and all goes on as before."""
        for notice in configuration.notices:
            LOG.warning("%s", notice)
        try:
            self._trial = self._generate(configuration)
        except (ConfigError, OSError) as error:
            self._not_reloaded(str(error))
            return None
        return self._trial

    def _not_reloaded(self, why: str) -> None:
        self._reload_failure = why
        LOG.error("Not reloaded, those that serve go on as before: %s", why)
        dropped, self._trial = self._trial, None
        if dropped is not None and self._generation is not None:
            self._close_listeners(self._generation)
            dropped.end_loader()
            for one in self._children:
                if one.generation is dropped:
                    self._retire(one)
            self._close_unused(dropped)
        self._reload_is_over()

    def _reload_is_over(self) -> None:
        self._reload_began = 0.0
        self._reloads += 1
        self._manager.ready()
        if self._reload_again:
            self._reload_again = False
            self._reload()

    # ---- upgrade ----

    def _rehearse(self) -> None:
        """See in a child whether the server starts as it is installed now, and loads the application."""
        if self._rehearsal:
            LOG.warning("USR2 again: the trial start is given up")
            os.kill(self._rehearsal, signal.SIGKILL)
            return
        LOG.info("Upgrading (USR2): trying whether the server starts as it is installed now")
        try:
            certificates = None if self._reader is None else self._reader.store.fd
            self._rehearsal = upgrade.rehearse(self._origin.directory, certificates)
        except OSError as error:
            self._not_upgraded(str(error))

    def _end_rehearsal(self) -> None:
        if self._rehearsal:
            os.kill(self._rehearsal, signal.SIGKILL)
        self._rehearsal, self._is_rehearsed = 0, False

    def _rehearsed(self, code: int) -> None:
        self._rehearsal = 0
        if code:
            self._not_upgraded(f"the trial start {describe_end(code)}")
        elif self._generation is not None:
            self._is_rehearsed = True
            self._call(self._generation, "pre_exec")

    def _not_upgraded(self, why: str) -> None:
        self._is_rehearsed = False
        LOG.error("Not upgraded, all goes on as before: %s", why)

    def _upgrade(self, generation: Generation) -> None:
        """Become the new program; later if there are signals, or workers whose numbers are not known yet."""
        if not all(one.pid for one in self._children):
            return
        try:
            kept = self._what_is_kept(generation)
            with upgrade.without_signals():
                # Only now it is known that none has come: the new program would know nothing of it.
                if not self._signals:
                    LOG.info("Upgrading: process %d becomes the new server, its workers go on", os.getpid())
                    for helper in self._helpers:
                        helper.leave()
                    upgrade.hand_on(kept)
        except OSError as error:
            self._not_upgraded(str(error))

    def _what_is_kept(self, generation: Generation) -> "upgrade.Kept":
        lines = self._lines
        return upgrade.Kept(
            directory=self._origin.directory,
            umask=self._origin.umask,
            settings=upgrade.told(generation.settings),
            application=str(generation.work.application),
            generation=generation.number,
            wanted=self._wanted,
            loops=generation.loops,
            lines=(lines.life_fd, self._life, self._notice, lines.notice_fd, lines.kick_fd),
            listeners=[listener.state for listener in self._listeners],
            boards={
                str(one.number): one.memory
                for one in (generation, *(one.generation for one in self._children))
            },
            children=[
                upgrade.KeptChild(
                    one.pid, one.number, one.row.index, one.generation.number, one.state.value, one.age
                )
                for one in self._children
                if one.pid
            ],
            access_log=generation.work.access_log.state,
            pid_file=None if self._pid_file is None else self._pid_file.state,
            error_log=-1 if (fd := error_log_fd()) is None else fd,
            numbers=self._numbers,
            generations=self._generations,
            counts=(self._requests, self._finished, self._cut_off),
            outputs=[(output.fileno(), output.pid) for output in self._outputs],
            blocked=[int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
            monitors=[one.listener.state for one in self._helpers if isinstance(one, Monitor)],
            certificates=self._kept_certificates(generation),
        )

    def _kept_certificates(self, generation: Generation) -> tuple[int, int] | None:
        if self._reader is not None:
            return self._reader.store.fd, self._reader.pid
        return None if generation.renewal is None else (generation.renewal.store.fd, 0)

    def _resume(self, kept: "upgrade.Kept") -> None:
        """Go on with what the program had that was here before, until others have the places of its workers.

        If the configuration cannot be had now, that is a reload that has failed.
        """
        configuration, why = self._read_anew()
        if configuration is not None:
            try:
                with place_of(configuration.settings, Place(kept.directory, kept.umask)).visited():
                    logs.configure(configuration.settings)
            except ConfigError as error:
                configuration, why = None, str(error)
        self._restore(kept)
        assert self._generation is not None
        self._reload_began = time.monotonic()
        if configuration is None:
            self._not_reloaded(why)
            return
        try:
            self._generation.take_hooks(configuration.hooks)
        except ConfigError as error:
            self._not_reloaded(str(error))
            return
        trial = self._try(configuration)
        if trial is not None and not self._call(trial, "on_starting"):
            self._not_reloaded("the hook on_starting has failed")

    def _restore(self, kept: "upgrade.Kept") -> None:
        self._origin = Place(kept.directory, kept.umask)
        self._listeners = [Listener.restored(state) for state in kept.listeners]
        self._numbers, self._generations, self._wanted = kept.numbers, kept.generations, kept.wanted
        self._requests, self._finished, self._cut_off = kept.counts
        if kept.pid_file is not None:
            self._pid_file = PidFile.restored(*kept.pid_file)
        settings = kept.known_settings()
        self._watch_code(settings)
        latest = self._generation = Generation.resumed(
            kept, self._lines, list(self._listeners), self._app_code
        )
        latest.mark(self._listeners)
        self._take_reader(kept)
        set_title("supervisor", latest.settings.name)
        self._watch_memory(latest)
        for number, memory in kept.boards.items():
            former = latest
            if int(number) != latest.number:
                # Its log will be closed, and the other's not.
                work = replace(latest.work, access_log=AccessLog(None))
                former = Generation(
                    int(number), work, latest.listeners, self._lines, workers=0, why="", memory=memory
                )
            self._children += [
                resumed(former, said) for said in kept.children if said.generation == former.number
            ]
        for one in self._children:
            if one.state is State.LEAVING:
                self._expect_end(one)
        for reader, pid in kept.outputs:
            self._listen_to(Output(reader, pid))
        monitors = [Listener.restored(state) for state in kept.monitors]
        try:
            self._helpers += open_monitors(latest.settings, self._selector, monitors)
        except ConfigError as error:
            LOG.error("%s; requests are served as before", error)

    def _take_reader(self, kept: "upgrade.Kept") -> None:
        if kept.certificates is None:
            return
        from fastwsgi.renewal import Reader, Store

        fd, pid = kept.certificates
        if pid:
            self._reader = Reader(pid, Store(fd))
        else:
            os.close(fd)

    # ---- the end ----

    def _stop(self, name: str) -> None:
        """Say so, go on for --shutdown-delay, then finish what runs."""
        if self._stage is not Stage.NONE:
            return
        settings = self._generation.settings if self._generation is not None else None
        if settings is not None and settings.shutdown_delay:
            LOG.info("Stopping (%s) in %s (--shutdown-delay)", name, show_age(settings.shutdown_delay))
            self._say_it_stops()
            self._stage, self._stage_ends = Stage.DELAYED, time.monotonic() + settings.shutdown_delay
        else:
            grace = f"finishing what runs, for at most {grace_of(settings):g} s" if settings else "now"
            LOG.info("Stopping (%s): %s", name, grace)
            self._begin_draining()

    def _interrupt(self) -> None:
        """Ctrl-C: what runs has a moment; the second one is final."""
        if self._stage in (Stage.DRAINING, Stage.CUT):
            self._cut("INT")
            return
        generation = self._generation
        grace = INTERRUPT_GRACE if generation is None else grace_of(generation.settings, INTERRUPT_GRACE)
        LOG.info("Stopping (INT): finishing what runs, for at most %g s", grace)
        self._begin_draining()
        for one in self._children:
            one.send(signal.SIGUSR2)
        self._stage_ends = min(self._stage_ends, time.monotonic() + INTERRUPT_GRACE + KILL_PATIENCE)

    def _say_it_stops(self) -> None:
        """To the manager, to the workers, and so to those who ask for --ready."""
        self._manager.stopping()
        for generation in self._open_generations():
            generation.board.stopping = True

    def _begin_draining(self) -> None:
        """Every worker accepts what the kernel has queued, and nothing after it."""
        self._say_it_stops()
        self._stage, self._trial = Stage.DRAINING, None
        for generation in self._open_generations():
            generation.end_loader()
        self._end_rehearsal()
        graces = [generation.settings.graceful_timeout for generation in self._open_generations()]
        self._stage_ends = time.monotonic() + max(graces, default=0.0) + EXIT_PATIENCE
        for one in self._children:
            self._retire(one)

    def _cut(self, name: str) -> None:
        """End now."""
        if self._stage is Stage.CUT:
            return
        LOG.info("Stopping (%s): now", name)
        self._begin_draining()
        self._stage, self._stage_ends = Stage.CUT, NEVER
        for one in self._children:
            one.send(signal.SIGQUIT)
            one.kill_at = time.monotonic() + KILL_PATIENCE
        for generation in self._loaders.values():
            generation.kill_loader()

    def _stage_is_over(self) -> None:
        self._stage_ends = NEVER
        if self._stage is Stage.DELAYED:
            LOG.info("Stopping: finishing what runs")
            self._begin_draining()
        elif self._stage is Stage.DRAINING:
            self._cut("the grace is over")

    def _open_generations(self) -> list[Generation]:
        found = {one.generation for one in self._children} | {self._generation, self._trial}
        return [generation for generation in found | set(self._loaders.values()) if generation is not None]

    def _say_goodbye(self) -> None:
        for output in self._outputs:
            output.finish()
        if self._generation is not None:
            LOG.info("%s", summary(self._requests, self._finished, self._cut_off))
            self._call(self._generation, "on_exit")


def resumed(generation: Generation, said: "upgrade.KeptChild") -> Child:
    """A worker that the program had started that was here before."""
    one = Child(
        generation,
        generation.rows[said.row],
        said.number,
        born=time.monotonic() - said.age,
        serves_since=time.monotonic(),  # or one that has not beaten yet would be silent
        pid=said.pid,
        state=State(said.state),
    )
    if one.state is State.STARTING and not generation.is_readable:
        one.state = State.SERVING  # nobody will hear when it does
    return one


def in_foreground() -> bool:
    """This process is in the foreground of a terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def supervise(configuration: Configuration | None, read: Callable[[], Configuration]) -> int:
    """Serve as a configuration says, until told to stop; return the exit code of this process.

    That may be the supervisor or, as it is the same program, one of those that it has forked. Without a
    configuration it takes the place of another program (`upgrade.goes_on`).
    """
    launch = daemonize() if configuration is not None and configuration.settings.daemon else None
    task = Supervisor(configuration, read, launch).run
    code = FAILED
    try:
        while True:
            try:
                code = task()
                return code
            except Forked as forked:
                task = forked.task
    finally:
        if launch is not None:
            launch.tell(code)
