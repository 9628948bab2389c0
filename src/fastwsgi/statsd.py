"""What a server has counted, as datagrams for a statsd server: gunicorn's metrics, once in a while.

    sender = Statsd(settings.statsd_host, settings.statsd_prefix, settings.dogstatsd_tags)
    sender.tick(boards)     # once a second

Each tick sends what has changed since the one before; it never waits, and requests cost nothing more.
"""

import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fastwsgi._stats import TIME_BOUNDS, totals
from fastwsgi.logs import LOG

if TYPE_CHECKING:
    from fastwsgi._stats import Board, Totals

# What goes through every network in one piece.
DATAGRAM = 1432
# Between two tries to reach the server.
PAUSE = 10.0

# In the middle of each bucket of a histogram, in seconds.
MIDDLES = (TIME_BOUNDS[0] / 2, *(0.75 * bound for bound in TIME_BOUNDS[1:]), 1.5 * TIME_BOUNDS[-1])


class Statsd:
    """Sends to one statsd server."""

    def __init__(self, address: str, prefix: str | None = None, tags: str | None = None) -> None:
        self._address = address
        self._prefix = f"{prefix.rstrip('.')}." if prefix else ""
        self._tags = f"|#{tags}" if tags else ""
        self._socket: socket.socket | None = None
        self._error = ""  # told already
        self._taken = 0  # calls of `tick`, since the connection, that nobody has objected to
        self._try_at = 0.0
        self._before: Totals | None = None

    def tick(self, boards: "Sequence[Board]") -> None:
        """Send what was counted since the last call; the first one only sends how things are."""
        found = totals(boards)
        lines = [*gauges(found)]
        if self._before is not None:
            lines += counts(self._before, found)
        self._before = found
        self._send(f"{self._prefix}{line}{self._tags}".encode() for line in lines)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, lines: Iterable[bytes]) -> None:
        if self._socket is None and time.monotonic() >= self._try_at:
            self._connect()
        for datagram in packed(lines):
            if self._socket is None:
                return
            try:
                # One that does not fit now is lost.
                with suppress(BlockingIOError):
                    self._socket.send(datagram)
            except OSError as error:
                self._failed(error)
                return
        if self._socket is not None:
            # That nobody took a datagram is told to who sends the next.
            self._taken += 1
            if self._taken > 1:
                self._error = ""

    def _connect(self) -> None:
        self._taken = 0
        try:
            self._socket = connected(self._address)
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        """Say so once, and try again later: perhaps it is not there yet, or has moved."""
        self.close()
        self._try_at = time.monotonic() + PAUSE
        if str(error) != self._error:
            self._error = str(error)
            LOG.warning("nothing can be sent to %s (--statsd-host): %s", self._address, error.strerror)


def connected(address: str) -> socket.socket:
    """A datagram socket to HOST:PORT or unix:PATH that never blocks. Raises OSError."""
    place: Any = address.removeprefix("unix:")
    if place != address:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    else:
        host, _, port = address.rpartition(":")
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
        family, kind, protocol, _, place = found[0]
        sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.connect(place)
    except OSError:
        sock.close()
        raise
    return sock


def packed(lines: Iterable[bytes]) -> Iterator[bytes]:
    """As many lines in each datagram as fit."""
    datagram = b""
    for line in lines:
        if datagram and len(datagram) + 1 + len(line) > DATAGRAM:
            yield datagram
            datagram = b""
        datagram += b"\n" + line if datagram else line
    if datagram:
        yield datagram


def gauges(found: "Totals") -> Iterator[str]:
    yield f"fastwsgi.workers:{found.workers['serving']}|g"
    yield f"fastwsgi.connections:{sum(found.connections.values())}|g"
    yield f"fastwsgi.threads.busy:{found.busy}|g"
    yield f"fastwsgi.requests.waiting:{found.connections['queued']}|g"


def counts(before: "Totals", now: "Totals") -> Iterator[str]:
    """What has become more."""
    pairs = {
        "requests": (sum(before.statuses.values()), sum(now.statuses.values())),
        "application.errors": (before.failed, now.failed),
        "refused": (sum(before.refused.values()), sum(now.refused.values())),
        "timeouts": (before.timeouts, now.timeouts),
        **{
            f"request.status.{status or 'other'}": (before.statuses.get(status, 0), number)
            for status, number in now.statuses.items()
        },
    }
    for name, (less, more) in pairs.items():
        if more > less:
            yield f"fastwsgi.{name}:{more - less}|c"
    yield from durations(before.times["all"], now.times["all"])


def durations(before: tuple[list[int], float], now: tuple[list[int], float]) -> Iterator[str]:
    """One timing for each bucket that has new requests, with how many it stands for; their sum is right."""
    numbers = [more - less for less, more in zip(before[0], now[0], strict=True)]
    guess = sum(number * middle for number, middle in zip(numbers, MIDDLES, strict=True))
    scale = (now[1] - before[1]) / guess if guess > 0 else 0.0
    for number, middle in zip(numbers, MIDDLES, strict=True):
        if number > 0:
            yield f"fastwsgi.request.duration:{1000 * middle * scale:.3f}|ms{sampled(number)}"


def sampled(number: int) -> str:
    """That a value stands for so many. Rounded down: some servers cut off the fraction of 1 / rate."""
    return "" if number == 1 else f"|@0.{10**12 // number:012d}"
