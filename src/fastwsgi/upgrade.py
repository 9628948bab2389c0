"""A new version of the server in the same process (USR2): what crosses the exec.

The process keeps its number, its children and its sockets. Descriptors keep their numbers; all else is said
as JSON in a file without a name, whose descriptor an environment variable has.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn, TypeAlias

from fastwsgi import logs, systemd
from fastwsgi.config import OPTIONS, Settings, merge
from fastwsgi.errors import ConfigError
from fastwsgi.process import nameless_file

# No option: those begin with FASTWSGI_.
VARIABLE = "_FASTWSGI_UPGRADE"
# In a trial start: the descriptor of certificates that it may not read itself.
CERTIFICATES = "_FASTWSGI_CERTIFICATES"


# Of a board: its descriptor, workers, threads of each loop, loops of each worker.
Memory: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class KeptChild:
    """A worker that goes on while the program of its parent is replaced."""

    pid: int
    number: int
    row: int
    generation: int
    state: str
    age: float


@dataclass(frozen=True, slots=True)
class Kept:
    """What the new program takes over."""

    directory: str  # where the server was started, and its umask then
    umask: int
    settings: dict[str, Any]  # of the workers that serve, which are of this generation
    application: str
    generation: int
    wanted: int  # workers
    loops: int  # of each of these
    lines: tuple[int, int, int, int, int]  # life and notice, both ends, and kick
    listeners: list[dict[str, Any]]
    boards: dict[str, Memory]  # by generation
    children: list[KeptChild]
    access_log: tuple[str | None, int] | None  # file, none for syslog, and descriptor
    pid_file: tuple[str, int] | None  # file and descriptor
    error_log: int  # a descriptor, or -1
    numbers: int
    generations: int
    counts: tuple[int, int, int]
    blocked: list[int]  # signals that were, before the upgrade
    outputs: list[tuple[int, int]]  # of --capture-output: what is read, and whose it is
    monitors: list[dict[str, Any]]  # listeners
    # The descriptor of the certificates in use, and the process that reads them, or 0.
    certificates: tuple[int, int] | None = None

    def descriptors(self) -> list[int]:
        """All that have to stay open."""
        sockets = [listener["fd"] for listener in (*self.listeners, *self.monitors)]
        return [
            *sockets,
            *(fd for fd in self.lines if fd >= 0),
            *(memory[0] for memory in self.boards.values()),
            *(kept[1] for kept in (self.access_log, self.pid_file) if kept is not None),
            *(() if self.certificates is None else self.certificates[:1]),
            *(fd for fd in (self.error_log,) if fd > 2),
            *(reader for reader, _ in self.outputs),
        ]

    def known_settings(self) -> Settings:
        """Those that this program has, too; what it would refuse has its default."""
        known: dict[str, object] = {}
        for name in OPTIONS.keys() & self.settings.keys():
            with suppress(ConfigError):
                known[name] = OPTIONS[name].read(self.settings[name], name)
        return merge(known)


def told(settings: Settings) -> dict[str, Any]:
    """Settings as JSON can tell them: what configures `logging` may have any objects, and is done anew."""
    return asdict(replace(settings, log_config_dict=None))


def command() -> list[str]:
    """What started this process."""
    return [sys.executable, *sys.orig_argv[1:]]


def rehearse(directory: str, certificates: int | None = None) -> int:
    """Have the program as it is installed now check the configuration and load the application.

    certificates: a descriptor that has them, if the process may not read them.

    Returns the number of the process, for which the caller has to wait.
    """
    environment = {name: value for name, value in os.environ.items() if name not in systemd.VARIABLES}
    if certificates is not None:
        environment[CERTIFICATES] = str(certificates)
    with subprocess.Popen(
        [*command(), "--check-config"],
        cwd=directory,
        env=environment,
        pass_fds=() if certificates is None else (certificates,),
        stdout=subprocess.DEVNULL,
        stderr=logs.error_log_fd(),
    ) as process:
        # The supervisor waits for it, as for all its children.
        process.returncode = 0
        return process.pid


def hand_on(kept: Kept) -> NoReturn:
    """Become the new program; raise OSError if that is not possible, and nothing has changed then.

    `without_signals`, or one may come that nobody heeds.
    """
    memo = nameless_file()
    descriptors = [memo, *kept.descriptors()]
    with open(memo, "w", closefd=False) as file:
        json.dump(asdict(kept), file)
    os.lseek(memo, 0, os.SEEK_SET)
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for fd in descriptors:
            os.set_inheritable(fd, True)
        os.chdir(kept.directory)
        logs.flush()
        os.execve(sys.executable, command(), {**os.environ, VARIABLE: str(memo)})
    finally:
        os.fchdir(here)
        for fd in descriptors:
            os.set_inheritable(fd, False)
        os.close(here)
        os.close(memo)


@contextmanager
def without_signals() -> Iterator[None]:
    """While it lasts signals wait, also over an exec, until the new program heeds them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def goes_on() -> bool:
    """This program has taken the place of another in the same process."""
    return VARIABLE in os.environ


def take_over() -> Kept | None:
    """What the former program has left, in the process that goes on; else None."""
    memo = os.environ.pop(VARIABLE, None)
    if memo is None:
        return None
    with open(int(memo), encoding="utf-8") as file:
        said = json.load(file)
    said["children"] = [KeptChild(**one) for one in said["children"]]
    kept = Kept(**said)
    for fd in kept.descriptors():
        os.set_inheritable(fd, False)
    return kept
