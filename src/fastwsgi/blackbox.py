"""What a worker was doing when it ended, and how it ended, in words."""

import signal
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from fastwsgi.resources import ROOT, OomKills, oom_kills

if TYPE_CHECKING:
    from fastwsgi._stats import Row

CODES = {
    3: "could not go on",
    4: "could not load the application",
    5: "ended because too many of its threads did not come back",
}


# What faulthandler tells of, once `enable_faulthandler` was called.
FAULTS = (signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL)

# Several that the kernel kills at a time are reaped one after the other.
TOGETHER = 5.0


class OomCounter:
    """The kernel's counter of processes killed for memory, and what it was before."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._readings: deque[tuple[float, OomKills | None]] = deque()
        self.note()

    def note(self) -> OomKills | None:
        """Remember what it is now, to compare with later."""
        now = time.monotonic()
        while len(self._readings) > 1 and now - self._readings[1][0] > TOGETHER:
            self._readings.popleft()
        self._readings.append((now, oom_kills(self._root)))
        return self._readings[-1][1]

    def verdict(self) -> str:
        """Whether it has risen, for a process that SIGKILL has ended without our doing."""
        now = self.note()
        since, before = self._readings[0]
        if now is None or before is None or now.where != before.where:
            return "whether for memory the kernel does not say"
        counter = f"the kernel's out-of-memory counter of its {now.where}, oom_kill,"
        if now.count == before.count:
            return f"{counter} did not rise"
        window = show_age(time.monotonic() - since)
        return f"{counter} rose from {before.count} to {now.count} in the last {window}"


def describe_end(code: int) -> str:
    """How a process ended, from its exit code or, negative, the signal that killed it."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"was killed by {name}"
    return CODES.get(code, f"ended with exit code {code}")


def show_age(seconds: float) -> str:
    """A time for people: 0.42 s, 12 s, 3 min, 2 h."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def what_it_served(row: "Row", *, has_fault: bool = False) -> str:
    """The end of a log line: the requests that were running; then where those were that had run for long.

    has_fault: faulthandler has told, or will, where each thread is, and has names of its own for them.
    """
    served, stacks = [], []
    for one in row.running():
        known_as = f" ({one.request_id})" if one.request_id else ""
        age, looked = show_age(one.age), show_age(one.stack_age)
        thread = f"thread {one.thread} (0x{one.ident:016x})" if has_fault else f"thread {one.thread}"
        served.append(f"{one.line} for {one.client}{known_as}, in {thread}, {one.phase} for {age}")
        if one.stack:
            stacks.append(f"\nthread {one.thread} was, {looked} ago, at\n{one.stack.rstrip()}")
    return f"; it was serving {'; '.join(served) or 'nothing'}{''.join(stacks)}"
