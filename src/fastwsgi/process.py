"""This process among others: its PID file, its title, its terminal, and the orphans that it takes in."""

import fcntl
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

from fastwsgi._process import become_subreaper, name_thread
from fastwsgi.errors import ConfigError

__all__ = [
    "Launch",
    "PidFile",
    "Place",
    "become_subreaper",
    "current_umask",
    "daemonize",
    "is_file",
    "leave_terminal",
    "nameless_file",
    "runtime_directories",
    "set_title",
]

FAILED = 1


class PidFile:
    """A file with the number of this process, locked for as long as it runs.

    The lock says whether that process lives. The number alone may be that of another by now: in a container
    that is started again it often is.
    """

    def __init__(self, path: str) -> None:
        """Write it.

        Raises ConfigError if it is that of another process that lives, or something else than a PID file.
        """
        self._path = os.path.abspath(path)
        try:
            while not self._take():
                pass
        except OSError as error:
            raise ConfigError(f"--pid {self._path}: {error.strerror}") from None

    @classmethod
    def restored(cls, path: str, fd: int) -> Self:
        """Make it again from its `state`, after an exec: the process has the lock still."""
        restored = cls.__new__(cls)
        restored._path, restored._fd = path, fd
        return restored

    @property
    def state(self) -> tuple[str, int]:
        """Where it is, and its descriptor."""
        return self._path, self._fd

    def _take(self) -> bool:
        """Lock and write it; False if whoever had it has just taken it away."""
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # What is read or written while this process has the lock goes through this descriptor: the lock
            # ends with the first one of the file that is closed.
            is_locked = lock(self._fd)
            content = os.pread(self._fd, 32, 0).strip()
            if not stat.S_ISREG(os.fstat(self._fd).st_mode) or not (content.isdigit() or content == b""):
                raise ConfigError(f"--pid {self._path}: this is no PID file; choose another")
            if not is_locked:
                raise ConfigError(
                    f"--pid {self._path}: process {content.decode()} has it and runs; "
                    "stop that, or choose another file"
                )
            if not self._is_there():
                os.close(self._fd)
                return False
            if content != b"%d" % os.getpid():
                # In one write: who reads it meanwhile sees nothing, or all.
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        except BaseException:
            os.close(self._fd)
            raise
        return True

    def give_to(self, uid: int, gid: int) -> None:
        """Let a user and a group own it; raise ConfigError if that fails."""
        try:
            os.fchown(self._fd, uid, gid)
        except OSError as error:
            raise ConfigError(
                f"--user, --group: cannot give {self._path} to user {uid} and group {gid}: {error.strerror}"
            ) from None

    def close(self) -> None:
        """Remove it, if it is still the one; or empty it, where its directory is not ours any more."""
        if self._is_there():
            try:
                os.unlink(self._path)
            except OSError:
                os.ftruncate(self._fd, 0)
        os.close(self._fd)

    def _is_there(self) -> bool:
        with suppress(OSError):
            return os.path.samestat(os.fstat(self._fd), os.stat(self._path))
        return False


def lock(fd: int) -> bool:
    """Lock a file for this process alone; False if another one has it locked."""
    try:
        # Not flock: children would have that lock too, and their descriptors keep it.
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class Place:
    """What a new file depends on beside its name: the current directory, and the umask."""

    directory: str
    umask: int

    def enter(self) -> None:
        """Go there; raise ConfigError if there is no such directory."""
        os.umask(self.umask)
        # Where it is already it may stay without the right to come.
        if self.directory not in ("", where()):
            try:
                os.chdir(self.directory)
            except OSError as error:
                raise ConfigError(f"cannot change to {self.directory} (--chdir): {error.strerror}") from None

    @contextmanager
    def visited(self) -> Iterator[None]:
        """Be there while it lasts."""
        before = Place(where(), current_umask())
        try:
            self.enter()
            yield
        finally:
            before.enter()


def where() -> str:
    """The current directory; empty if it is gone."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def runtime_directories() -> list[str]:
    """Where sockets of running processes are, the best place first."""
    own = os.environ.get("XDG_RUNTIME_DIR")
    return [*([own] if own else []), "/run", tempfile.gettempdir()]


def set_title(role: str, name: str | None = None) -> None:
    """Show in `ps` what this process is: its role ("worker"), and the name that the user has given.

    With the package setproctitle as a whole, in place of the command line. Without it, 15 octets beside that.
    """
    try:
        from setproctitle import setproctitle
    except ImportError:
        name_thread(f"{name or 'fastwsgi'} {role}".encode())
    else:
        setproctitle(f"fastwsgi: {role} [{name}]" if name else f"fastwsgi: {role}")


class Launch:
    """In a process that `daemonize` has made: whoever gave the command waits until it is told how it went."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        # Or the command would wait for the end of the children as well.
        os.register_at_fork(after_in_child=self._close)

    def tell(self, code: int = 0) -> None:
        """It is ready (0); or it ends with this exit code, which is waited for, too: it may say why."""
        if self._fd >= 0:
            with suppress(OSError):  # who gave the command is gone
                os.write(self._fd, bytes([code]))
            if code == 0:
                self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def daemonize() -> Launch:
    """Go on in a process of its own session; call before there are threads.

    The process that was started ends with exit code 0 when the new one tells that it is ready, and with the
    code of that one if it fails. So the shell knows how it went. Messages until then are seen, too: the
    standard descriptors stay as they are until `leave_terminal`.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        os._exit(wait_told(reader))
    os.close(reader)
    os.setsid()
    # Whoever leads a session may get a terminal again, just by opening one.
    if os.fork():
        os._exit(0)
    return Launch(writer)


def wait_told(fd: int) -> int:
    # The daemon does not get the Ctrl-C of a terminal that it has left; who waits for it may go.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    code = os.read(fd, 1)
    if not code:
        os.write(2, b"fastwsgi: the server ended before it was ready\n")
        return FAILED
    if code[0]:
        os.read(fd, 1)  # there is nothing but its end
    return code[0]


def leave_terminal(keep: Collection[int] = (), captured: Collection[int] = ()) -> None:
    """Point the standard descriptors to /dev/null; in a daemon's processes, each once it has started.

    Those of `captured` stay, and those of `keep`, where logs go, if they are files. Anything else ends some
    day, with the terminal or whoever reads from the pipe; and until then it would keep `ssh` waiting.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        if fd not in captured and not (fd in keep and is_file(fd)):
            os.dup2(null, fd)
    if null > 2:
        os.close(null)


def is_file(fd: int) -> bool:
    """A regular one."""
    return stat.S_ISREG(os.fstat(fd).st_mode)


def nameless_file() -> int:
    """A descriptor of an empty file that nobody else can open, in memory where the system has that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fastwsgi", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
