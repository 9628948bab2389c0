from enum import IntEnum
from typing import NamedTuple, final

from typing_extensions import Buffer

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
    stack: str
    """Where it was when that was last looked at; empty if it never was."""
    stack_age: float
    """How long ago that was, in seconds."""

@final
class Board:
    """Memory with a row for each worker: a writable buffer of Board.size() octets, zeroed when it is new."""

    def __init__(self, memory: Buffer, workers: int, threads: int) -> None:
        """Lay it out, or find again what was laid out in it; raise ValueError if that is something else.

        `threads` is that of the settings; there is room for replacements of lost ones, too.
        """

    workers: int
    threads: int
    stopping: bool
    """The whole server stops: it is not ready any more."""

    @staticmethod
    def size(workers: int, threads: int) -> int:
        """Octets that a board of so many workers takes, each with so many threads."""

    def row(self, index: int) -> Row:
        """The row of a worker, from 0 on."""

@final
class Row:
    """How a worker is, what it has counted, and what its threads serve; from Board.row()."""

    def __init__(self, /, *args: object, **kwargs: object) -> None:
        """Raise TypeError: rows come from Board.row()."""

    index: int
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

    def condemn(self, thread: int, number: int) -> bool:
        """Have an exchange taken away from its thread, within a second; False if it does not run any more."""

    def clear(self) -> None:
        """Make it ready for a new worker; the one before must be dead."""

    def counters(self) -> dict[str, int]:
        """Counts since the start (`requests`) and of now (`connections`, `exchanges`), by name."""

    def running(self) -> list[Running]:
        """What its threads serve: a list of `Running`.

        Threads that go on to their next exchange at this moment are left out.
        """
