"""What the application prints (--capture-output): lines of the error log.

The standard descriptors of a worker are a pipe then, which the supervisor reads. So what C code and other
programs write there is heard too, nobody needs the GIL of the worker for it, and the last words of one that
dies are not lost.
"""

import logging
import os
import select
import sys
from contextlib import suppress

from fastwsgi.logs import LOG

# Of one read; a line that is longer is cut into several.
MOST = 64 << 10
# Reads of what is left: a program that the process has started may go on writing.
LAST_READS = 64

_is_captured = False


def is_captured() -> bool:
    """What this process prints is read by the supervisor."""
    return _is_captured


class Output:
    """The pipe of a process, and of those that it starts."""

    def __init__(self, reader: int | None = None, pid: int = 0) -> None:
        """Open it, or go on with the end that is read."""
        self._writer = -1
        if reader is None:
            reader, self._writer = os.pipe()
        self._reader = reader
        self.pid = pid
        self._rest = b""
        os.set_blocking(reader, False)

    def fileno(self) -> int:
        return self._reader

    def take(self) -> None:
        """In the process that prints: from now on it prints there."""
        global _is_captured
        _is_captured = True
        for fd in (1, 2):
            os.dup2(self._writer, fd)
        os.close(self._writer)
        os.close(self._reader)
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError):
                stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]

    def forked(self, pid: int) -> None:
        """In the supervisor: the other end is in that process now."""
        self.pid = pid
        os.close(self._writer)
        self._writer = -1

    def read(self) -> bool:
        """Log what is there; False when nobody can write any more."""
        try:
            said = os.read(self._reader, MOST)
        except BlockingIOError:
            return True
        *lines, self._rest = (self._rest + said).split(b"\n")
        if self._rest and (not said or len(self._rest) >= MOST):
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._log(line.removesuffix(b"\r"))
        return bool(said)

    def finish(self) -> None:
        """Log what is left, the beginning of a line too; its process has ended."""
        for _ in range(LAST_READS):
            if not select.select([self._reader], [], [], 0)[0] or not self.read():
                break
        if self._rest:
            self._log(self._rest)
            self._rest = b""

    def _log(self, line: bytes) -> None:
        # Whatever --log-level is.
        record = LOG.makeRecord(
            "fastwsgi.output", logging.INFO, "", 0, "%s", (line.decode("utf-8", "backslashreplace"),), None
        )
        record.process, record.threadName = self.pid, None
        LOG.handle(record)

    def close(self) -> None:
        for fd in (self._reader, self._writer):
            if fd >= 0:
                os.close(fd)
