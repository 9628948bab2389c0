"""Descriptors that records are written to without waiting: pipes, terminals, sockets, files.

A reader that is stuck or a disk that is full may not stop who writes to a log. What is not taken waits here,
up to a limit; what does not fit is counted, and the count is said once there is room again.
"""

import errno
import os
import select
import socket
import stat
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from fastwsgi.errors import ConfigError

# Octets that may wait.
MOST = 256 << 10

# How long the end of a process may wait for a reader.
LAST_PATIENCE = 1.0

# A piece of this size is taken by a pipe that is ready as a whole, or not at all.
PIECE = select.PIPE_BUF

# Of a datagram; what is longer is cut.
DATAGRAM = 60000

NOBODY_READS = "nobody has read them in time"


def own_description(fd: int) -> int:
    """Open once more, without blocking, what a descriptor is of; the same if that is not possible.

    Others may have inherited that one, and its flags are theirs too.
    """
    with suppress(OSError):
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_NOCTTY
        # Elsewhere /dev/fd may give the same description.
        if not stat.S_ISREG(os.fstat(fd).st_mode) and os.path.exists("/proc/self/fd"):
            return os.open(f"/proc/self/fd/{fd}", flags)
    return os.dup(fd)


def open_log(path: str, option: str) -> int:
    """Open a file for appending, never to wait; raise ConfigError that names the option."""
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY, 0o666)
    except OSError as error:
        reason = "nobody reads from this pipe" if error.errno == errno.ENXIO else error.strerror
        raise ConfigError(f"{option} {path}: {reason}") from None


def lead_nowhere(fd: int) -> None:
    """Have a descriptor write to /dev/null."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, fd, inheritable=False)
    os.close(null)


class Outlet:
    """A descriptor, and what waits for it."""

    def __init__(self, fd: int) -> None:
        """Own a descriptor."""
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._why = ""
        # From how many were lost and why, the record that says so.
        self.notice: Callable[[int, str], bytes] = lambda lost, why: b""
        # Called when something has begun to wait: somebody should call `advance` from time to time.
        self.when_waiting: Callable[[], object] = lambda: None
        self._take(fd)
        outlets.add(self)

    def _take(self, fd: int) -> None:
        self.fd = fd
        mode = os.fstat(fd).st_mode
        self._is_file = stat.S_ISREG(mode)
        self._socket = None
        self._is_datagram = False
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=fd)
            self._is_datagram = self._socket.type == socket.SOCK_DGRAM

    def write(self, record: bytes) -> None:
        """Write a record, which ends with a newline, now or later."""
        self.advance()
        if self._waiting and self._size + len(record) > MOST:
            self._lost += 1
            return
        self._append(record)
        if self.advance():
            self.when_waiting()

    def _append(self, record: bytes) -> None:
        self._waiting.append(record)
        self._size += len(record)

    def advance(self) -> bool:
        """Write what is taken without waiting; True if something is left."""
        while self._waiting:
            try:
                sent = self._send(self._waiting[0])
            except BlockingIOError:
                self._why = NOBODY_READS
                return True
            except OSError as error:
                self._why = error.strerror or str(error)
                self.reconnect()
                return True
            rest = self._waiting.popleft()[sent:]
            self._size -= sent
            if rest:
                self._waiting.appendleft(rest)
            if not self._waiting and self._lost:
                lost, self._lost = self._lost, 0
                self._append(self.notice(lost, self._why))
        return False

    def _send(self, record: bytes) -> int:
        """Offer a record to the descriptor, or its first lines; how many octets were taken."""
        if self._is_file:
            return os.write(self.fd, record)
        if self._socket is not None:
            if self._is_datagram:
                self._socket.send(record.rstrip(b"\n")[:DATAGRAM], socket.MSG_DONTWAIT)
                return len(record)
            return self._socket.send(record, socket.MSG_DONTWAIT)
        piece = record[:PIECE]
        if len(record) > PIECE:
            # Between lines others may write, too.
            piece = piece[: piece.rfind(b"\n") + 1] or piece
        if os.get_blocking(self.fd) and not select.select([], [self.fd], [], 0)[1]:
            raise BlockingIOError
        return os.write(self.fd, piece)

    def reconnect(self) -> None:
        """After an error: whoever has been at the other end may be there again."""

    def finish(self) -> None:
        """Wait for a reader, but not for long."""
        deadline = monotonic() + LAST_PATIENCE
        while self.advance() and (left := deadline - monotonic()) > 0:
            if self._why != NOBODY_READS or not select.select([], [self.fd], [], left)[1]:
                break

    def forget(self) -> None:
        """In a forked child: what waits is the parent's to write."""
        self._waiting.clear()
        self._size = self._lost = 0

    def leave_terminal(self) -> None:
        """In a daemon: only a file lasts."""
        if not self._is_file:
            lead_nowhere(self.detach())
            self._take(self.fd)

    def detach(self) -> int:
        """The descriptor, which is the caller's from now on."""
        if self._socket is not None:
            self._socket.detach()
            self._socket = None
        return self.fd

    def close(self) -> None:
        """May be called again: the number may be of another file by then."""
        fd, self.fd = self.detach(), -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)


class FileOutlet(Outlet):
    """A file by its name, opened anew when it was moved away."""

    def __init__(self, path: str, option: str) -> None:
        """Open it; raise ConfigError, naming the option, if that fails."""
        self.path = os.path.abspath(path)
        self._option = option
        super().__init__(open_log(self.path, option))

    def write(self, record: bytes) -> None:
        if self._is_file and not self._is_there():
            with suppress(ConfigError):  # else it goes on in the old one
                new = open_log(self.path, self._option)
                os.dup2(new, self.fd, inheritable=False)
                os.close(new)
        super().write(record)

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.fd))
        except OSError:
            return False


outlets: "weakref.WeakSet[Outlet]" = weakref.WeakSet()


def forget_all() -> None:
    for outlet in outlets:
        outlet.forget()


os.register_at_fork(after_in_child=forget_all)
