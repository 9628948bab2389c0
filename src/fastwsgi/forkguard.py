"""What an application that is imported before the fork leaves behind, and which line of its code began it.

A thread does not run in the children, and a connection is shared by all of them: both go wrong long after.
`ForkGuard` watches an import by an audit hook and a wrapped `threading.Thread.start`, and looks at what is
there before and after. Left out are datagram sockets, since each datagram leaves whole whoever sends it, and
threads that C code keeps for itself.
"""

import functools
import gc
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Self
from weakref import WeakKeyDictionary

from fastwsgi._stacks import stacks

OURS = os.path.join(os.path.dirname(__file__), "")
STANDARD_LIBRARY = os.path.join(os.path.dirname(os.__file__), "")
INSTALLED = {"site-packages", "dist-packages"}

# An audit hook cannot be removed: there is one for all guards, and one guard at a time that it serves.
_watching: "ForkGuard | None" = None
_has_hook = False


class ForkGuard:
    """`with ForkGuard() as guard:` around the import; `guard.ghosts()` afterwards, before `gc.freeze`."""

    def __init__(self) -> None:
        # Weak: what is noted must not live the longer for it.
        self._places: WeakKeyDictionary[object, str] = WeakKeyDictionary()
        self._peers: WeakKeyDictionary[object, str] = WeakKeyDictionary()
        # By identity, since a connection of sqlite3 cannot be referred to weakly.
        self._databases: dict[int, tuple[str, str]] = {}
        self._database = ""

    def __enter__(self) -> Self:
        global _watching, _has_hook
        self._threads_before = set(stacks())
        self._sockets_before = set(open_sockets().values())
        self._wrap_thread_start()
        if not _has_hook:
            sys.addaudithook(hook)
            _has_hook = True
        _watching = self
        return self

    def __exit__(self, *exc_info: object) -> None:
        global _watching
        _watching = None
        # If something was put around it meanwhile, as tracing agents do, that has to stay.
        if threading.Thread.start is self._wrapper:
            threading.Thread.start = self._start  # type: ignore[method-assign]

    def ghosts(self) -> list[str]:
        """A line for each thread, connection, socket that listens, SQLite database and child process."""
        gc.collect()  # what nobody refers to any more is none
        return [*self._threads(), *self._sockets(), *self._open_databases(), *self._processes()]

    # ---- while it watches ----

    def _wrap_thread_start(self) -> None:
        # The audit event for it is not there before Python 3.12.
        start = threading.Thread.start

        @functools.wraps(start)
        def wrapper(thread: threading.Thread) -> None:
            if _watching is self:
                self._places[thread] = place(sys._getframe(1))
            start(thread)

        self._start, self._wrapper = start, wrapper
        threading.Thread.start = wrapper  # type: ignore[assignment,method-assign]

    def _note(self, event: str, args: tuple[Any, ...], frame: FrameType) -> None:
        if event == "socket.__new__":
            self._places[args[0]] = place(frame)
        elif event == "socket.connect":
            self._peers[args[0]] = show_address(args[1])
        elif event == "sqlite3.connect":
            self._database = os.fsdecode(args[0])
        elif event == "sqlite3.connect/handle":
            self._databases[id(args[0])] = (self._database, place(frame))
        elif event == "subprocess.Popen":
            # The event does not have the object, but the method that raises it is one of its.
            self._places[frame.f_locals["self"]] = place(frame)

    # ---- afterwards ----

    def _threads(self) -> Iterator[str]:
        threads = {thread.ident: thread for thread in threading.enumerate()}
        for ident, stack in stacks().items():
            if ident in self._threads_before:
                continue
            thread = threads.get(ident)
            text = f"thread {thread.name!r}" if thread is not None else "a thread"
            if any(code.co_name == "run_forever" for code, _, _ in stack):
                text += " with an event loop"
            begun = None if thread is None else self._places.get(thread)
            yield f"{text}, started at {begun}" if begun else f"{text}, in {show_function(stack)}"

    def _sockets(self) -> Iterator[str]:
        made = {sock.fileno(): sock for sock in self._sockets_made()}
        told = set(self._sockets_before)
        for fd, identity in open_sockets().items():
            if identity not in told:
                told.add(identity)
                sock = made.get(fd)
                if text := describe_socket(fd, "" if sock is None else self._peers.get(sock, "")):
                    yield f"{text}, made " + ("by C code" if sock is None else f"at {self._places[sock]}")

    def _sockets_made(self) -> list[socket.socket]:
        # A thread that the import has started may make more of them meanwhile.
        made = [reference() for reference in self._places.keyrefs()]
        return [thing for thing in made if isinstance(thing, socket.socket)]

    def _open_databases(self) -> Iterator[str]:
        sqlite3 = sys.modules.get("sqlite3")
        if not self._databases or sqlite3 is None:
            return
        for thing in gc.get_objects():
            # Not isinstance: that would wake lazy objects.
            if issubclass(type(thing), sqlite3.Connection) and id(thing) in self._databases:
                database, made = self._databases[id(thing)]
                # One in memory is copied by the fork like all else there.
                if ":memory:" not in database and is_open(thing, sqlite3.ProgrammingError):
                    yield f"SQLite database {database}, opened at {made}"

    def _processes(self) -> Iterator[str]:
        for process, made in list(self._places.items()):
            # Without a number it has not come to life.
            if isinstance(process, subprocess.Popen) and process.pid and process.poll() is None:
                yield f"child process {process.pid}, started at {made}"


def hook(event: str, args: tuple[Any, ...]) -> None:
    if _watching is not None and event in EVENTS:
        # What is raised here would be raised by the call that is watched.
        with suppress(Exception):
            _watching._note(event, args, sys._getframe(1))


EVENTS = {"socket.__new__", "socket.connect", "sqlite3.connect", "sqlite3.connect/handle", "subprocess.Popen"}


def frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def place(frame: FrameType) -> str:
    """File and line of the nearest frame that is not of Python, and where an installed package was called.

    What is above a frame of ours only imports the application.
    """
    found = ""
    for one in frames(frame):
        file = one.f_code.co_filename
        if file.startswith(OURS):
            break
        if is_of_python(file):
            continue
        here = f"{file}:{one.f_lineno}"
        if INSTALLED.isdisjoint(Path(file).parts):
            return f"{found}, called at {here}" if found else here
        found = found or here
    return found or "an unknown line"


def is_of_python(file: str) -> bool:
    if file.startswith("<frozen "):
        return True
    return file.startswith(STANDARD_LIBRARY) and INSTALLED.isdisjoint(Path(file).parts)


def show_function(stack: Sequence[tuple[CodeType, int, object]]) -> str:
    """What a thread runs: the outermost function that is not of Python."""
    every = [code for code, _, _ in stack]
    ours = [code for code in every if not is_of_python(code.co_filename)]
    code = (ours or every)[-1]
    return f"{code.co_name} ({code.co_filename}:{code.co_firstlineno})"


def open_sockets() -> dict[int, tuple[int, int]]:
    """The descriptors that are sockets, with device and inode of each."""
    found = {}
    for name in os.listdir("/dev/fd"):
        with suppress(OSError):  # the one of the listing is closed by now
            status = os.fstat(int(name))
            if stat.S_ISSOCK(status.st_mode):
                found[int(name)] = (status.st_dev, status.st_ino)
    return found


def describe_socket(fd: int, peer: str) -> str:
    """What it is: a connection to somebody, or one that listens; empty for what does no harm."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        if sock.type == socket.SOCK_DGRAM:
            return ""
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return f"socket that listens at {show_address(sock.getsockname())}"
        try:
            name = show_address(sock.getpeername())
        except OSError:
            # Not connected; but it may be about to.
            return f"connection to {peer}" if peer else ""
    return f"connection to {peer or name}" if peer or name else "one end of a pair of sockets"


def show_address(address: object) -> str:
    """As people write it; the host may be a name."""
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    if isinstance(address, bytes):
        return os.fsdecode(address).replace("\0", "@", 1)
    return str(address)


def is_open(connection: Any, closed: type[Exception]) -> bool:
    try:
        connection.total_changes  # noqa: B018
    except closed:
        return False
    return True
