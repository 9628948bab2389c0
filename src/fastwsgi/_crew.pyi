import logging
import socket
from collections.abc import Callable, Sequence
from typing import final

from _typeshed.wsgi import WSGIApplication
from typing_extensions import disjoint_base

from fastwsgi._guard import Guard
from fastwsgi._stats import Row
from fastwsgi._survivors import Survivors
from fastwsgi.config import Settings
from fastwsgi.listener import Listener
from fastwsgi.tls import Tls

def start_new_thread(function: Callable[[], object], arguments: tuple[()]) -> int:
    """As the `_thread` module had it before the application was imported."""

# The same, without a GIL alone.
start_joinable_thread: Callable[..., object] | None

def server_name(listener: socket.socket) -> tuple[str, str]:
    """SERVER_NAME and SERVER_PORT for a listening socket: never empty (PEP 3333)."""

def secure_port(listeners: Sequence[Listener]) -> int:
    """The port of the first listener that has TLS; 443 if none of them has a port."""

@final
class Common:
    """What all crews of a worker have together."""

@disjoint_base
class Crew:
    """The threads of a worker over one loop: the one class of the core that the Python side starts."""

    wakeup_fd: int
    """Non-blocking; a byte written to it makes `attend` return. For `signal.set_wakeup_fd`."""
    finished: bool
    """Every thread has ended and every connection is closed, or the grace is over."""
    tick: float
    """After so many seconds away the leader loses the lead (0.001); set before `start`, for stress tests."""
    is_exhausted: bool
    """So many threads were given up that there is no place for another one: the worker has to end."""
    beat: float
    """`attend` comes back after so many seconds at the latest, and notes it in the row; 0: any time."""
    watched_fd: int
    """`attend` comes back when this descriptor is readable or has ended, each time; -1: none."""
    last_idle: float
    """How long idle connections have, at the stop, for a request that is on its way: seconds (0.25)."""
    last_call: float
    """How long clients of this machine have, at the stop, that were just connecting: seconds (0.01)."""
    max_requests: int
    """So many are handed to the application, then `row.wants` is WANTS_REQUESTS; 0: any number."""
    survivors: Survivors | None
    """What samples the memory that exchanges leave behind; set before `start`."""
    row: Row
    """What others see of this worker."""
    has_lost_reader: bool
    """The access log could not be written, and not because nobody reads: perhaps nobody is there any more."""
    lost_threads: int
    """After the end: threads that are still in the application."""

    def __init__(
        self,
        app: WSGIApplication | None,
        listeners: Sequence[Listener],
        settings: Settings,
        log: logging.Logger,
        access_fd: int = -1,
        row: Row | None = None,
        kick_fd: int = -1,
        line_start: bytes = b"",
        mounted: Sequence[WSGIApplication | None] = (),
        guards: Sequence[Guard | None] = (),
        tls: Tls | None = None,
        has_others: bool = False,
        loops: int = 1,
        common: Common | None = None,
    ) -> None:
        """Make ready to serve an application at listeners; line_start: of each access log line.

        mounted: the applications of routes, in the order of mounts.targets; app is None if these have all.
        guards: what stands before each route. tls: its `context` is for the connections of listeners that are
        `is_tls`. has_others: what wsgi.multiprocess says.

        row: of a board that others have too, cleared; without it the worker is alone. If there are
        others, all have the same listeners (but for those that are `is_own`), and kick_fd, an eventfd
        for all of them that is never read, lets each hear when another one does not accept any more.

        loops: of this worker. Each has a crew with its part of the threads; this one is the first and speaks
        for all, or it is made by the first, which gives it what they have in common.
        """

    def adopt(self, sock: socket.socket) -> None:
        """Serve a connection as if it had been accepted at the first listener; before `start`.

        A PROXY protocol header is not expected, nor TLS. The socket is empty afterwards.
        """

    def open_wakeup(self) -> tuple[int, int]:
        """Descriptors of the caller's own, both ends of what `wakeup_fd` is one of; it outlives the crew."""

    def start(self) -> None:
        """Start the threads."""

    def attend(self) -> list[tuple[int, str]]:
        """Wait without the GIL for something that the main thread shall do; write access log lines meanwhile.

        Returns records for the error log (level, text), perhaps none, when such records have come, a
        byte was written to `wakeup_fd`, `watched_fd` is readable or has ended, the row has come to want
        something, after `beat` seconds, or when the crew has finished (then at once, each time).
        """

    def stop(self, grace: float, leave: bool = False) -> None:
        """Begin to drain: accept what is queued, finish what runs within `grace` seconds.

        leave: other workers stay, and accept what is queued at shared listeners; it counts in the first
        call. What is queued at borrowed ones is left to the next server in any case. From any thread
        and from signal handlers; a later call can shorten the grace, 0 means now.
        """

    def revoke(self, thread: int) -> None:
        """Take away the exchange that a thread (1 to N) runs: 503, or a reset if the head has left."""

    def revoke_here(self, thread: int) -> None:
        """The same for a thread of this crew alone."""

    def after_fork_in_child(self) -> None:
        """In a child that the application forked: let go of listeners and connections."""

    def counters(self) -> dict[str, int]:
        """Counts since the start (`requests`) and of this moment (`connections`, `exchanges`), by name."""
