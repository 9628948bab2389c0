"""Ends what a run has started even when the run itself is killed and can no longer do it."""

import os
import signal
from contextlib import suppress


class Watchdog:
    """A process beside this one that knows the groups started, and kills them when this one is gone."""

    def __init__(self) -> None:
        reading, self._writing = os.pipe()
        if os.fork() == 0:
            try:
                os.close(self._writing)
                _watch(reading)
            finally:
                os._exit(0)
        os.close(reading)

    def add(self, group: int) -> None:
        os.write(self._writing, b"+%d\n" % group)

    def remove(self, group: int) -> None:
        os.write(self._writing, b"-%d\n" % group)


def _watch(reading: int) -> None:
    # Its own session: neither Ctrl-C nor the end of a terminal ends it first.
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    groups: set[int] = set()
    # The end of this file is the end of the process that writes to it.
    with os.fdopen(reading) as lines:
        for line in lines:
            change, group = line[0], int(line[1:])
            if change == "+":
                groups.add(group)
            else:
                groups.discard(group)
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


_watchdog: Watchdog | None = None


def watchdog() -> Watchdog:
    global _watchdog
    if _watchdog is None:
        _watchdog = Watchdog()
    return _watchdog
