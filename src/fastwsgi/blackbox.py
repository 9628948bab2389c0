"""What a worker was doing when it ended, and how it ended, in words."""

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastwsgi._stats import Row

CODES = {
    3: "could not go on",
    4: "could not load the application",
    5: "ended because too many of its threads did not come back",
}


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


def what_it_served(row: "Row") -> str:
    """The end of a log line: the requests that were running."""
    served = []
    for thread, phase, line, client, request_id, age in row.running():
        known_as = f" ({request_id})" if request_id else ""
        served.append(f"{line} for {client}{known_as}, in thread {thread}, {phase} for {show_age(age)}")
    return f"; it was serving {'; '.join(served)}" if served else "; it was serving nothing"
