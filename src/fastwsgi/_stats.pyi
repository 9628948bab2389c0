from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple, final

from typing_extensions import Buffer

TIME_BOUNDS: tuple[float, ...]
"""Upper bounds of the histograms, in seconds; what is more comes last."""

class row_state_t(IntEnum):
    """What a worker is at."""

    ROW_EMPTY = 0
    ROW_STARTING = 1
    ROW_SERVING = 2
    ROW_DRAINING = 3

class wants_t(IntEnum):
    """Why a worker should be replaced."""

    WANTS_NOTHING = 0
    WANTS_REQUESTS = 1
    WANTS_MEMORY = 2
    WANTS_LIFETIME = 3
    WANTS_THREADS = 4

class Running(NamedTuple):
    """What a thread serves."""

    thread: int
    phase: str
    line: str
    """Method and target."""
    client: str
    request_id: str
    """X-Request-ID, or empty."""
    age: float
    """Seconds."""
    number: int
    """Of the exchange: the next one of the thread has another."""
    ident: int
    """What faulthandler calls the thread."""
    stack: str
    """Where it was when that was last looked at; empty if it never was."""
    stack_age: float
    """How long ago that was, in seconds."""

@final
class Board:
    """Memory with a row for each worker: a writable buffer of Board.size() octets, zeroed when it is new."""

    def __init__(self, memory: Buffer, workers: int, threads: int, loops: int = 1) -> None:
        """Lay it out, or find again what was laid out in it; raise ValueError if that is something else.

        `threads` are those of each loop; there is room for replacements of lost ones, too.
        """

    workers: int
    threads: int
    loops: int
    """Of each worker."""
    stopping: bool
    """The whole server stops: it is not ready any more."""

    @staticmethod
    def size(workers: int, threads: int, loops: int = 1) -> int:
        """Octets that a board of so many workers takes, each with so many loops of so many threads."""

    def row(self, index: int) -> Row:
        """The row of a worker, from 0 on."""

    def inherit(self, former: Board) -> None:
        """Take over what was counted by workers of another board, which have all ended."""

@final
class Row:
    """How a worker is, what it has counted, and what its threads serve; from Board.row()."""

    def __init__(self, /, *args: object, **kwargs: object) -> None:
        """Raise TypeError: rows come from Board.row()."""

    board: Board
    index: int
    loop: int
    """0, but for rows that are of_loop()."""
    pid: int
    generation: int
    state: int
    """One of row_state_t; Python's to write."""
    beat: int
    """When the main thread last had the GIL: nanoseconds of the monotonic clock; 0: it had not yet."""
    wants: int
    """Why it should be replaced: one of wants_t."""

    born: int
    """When it began: nanoseconds of the monotonic clock."""
    leaks: str
    """What the worker knows of leaks, as it wrote it (JSON); empty: nothing, or it writes at this moment."""
    leaks_most: int
    """So many octets of it at most."""

    def of_loop(self, loop: int) -> Row:
        """The row of one loop of this worker; 0 is the first, and this one."""

    def condemn(self, thread: int, number: int) -> bool:
        """Have an exchange taken away from its thread, within a second; False if it does not run any more."""

    def clear(self) -> None:
        """Make it ready for a new worker; the one before must be dead. The board keeps what it counted."""

    def counters(self) -> dict[str, int]:
        """Counts since the start (`requests`) and of now (`connections`, `exchanges`, `waiting`), by name."""

    def running(self) -> list[Running]:
        """What its threads serve: a list of `Running`.

        Threads that go on to their next exchange at this moment are left out.
        """

class Totals(NamedTuple):
    """What the workers of a server have counted since its start, and how they are now."""

    began: int
    """When the server started: seconds since 1970."""
    workers: dict[str, int]
    """Now: starting, serving, leaving."""
    threads: int
    """Now, of the application, in all workers."""
    busy: int
    connections: dict[str, int]
    """Now, by what they are at: handshake, idle, head, content, queued, running, sending, closing."""
    accepted: int
    requests: dict[tuple[str, str], int]
    """That are over, by method and class of the status."""
    statuses: dict[int, int]
    """The same by status, those that there were; 0: none, or one beyond 599."""
    times: dict[str, tuple[list[int], float]]
    """Where the time of exchanges went: counts by TIME_BOUNDS, not cumulative, and the sum in seconds."""
    received: int
    sent: int
    failed: int
    """The application raised."""
    refused: dict[str, int]
    """By reason."""
    expired: dict[str, int]
    """Connections that waited too long, by what for."""
    lost_clients: int
    left_queued: int
    queued: int
    lead_taken: int
    lead_passed: int
    timeouts: int
    revoked: int
    lost_threads: int
    yielded: int
    lock_waits: int
    lock_wait_seconds: float
    handshakes: dict[str, int]
    """Of TLS, by how they ended: full, resumed, failed."""
    ended: dict[str, int]
    """Workers, by what they were at: starting, serving, leaving."""

def totals(boards: Iterable[Board]) -> Totals:
    """What the workers of these boards have counted in all, as Totals; those that have ended, too.

    What is counted never becomes less, for the boards of one server that does not lose any.
    """
