"""Whether this Python has a GIL, which extension has turned it on, and how many loops a worker has.

A free-threaded Python (PEP 703) begins without. An extension that does not say that it can do without has it
turned on when it is imported, for the whole process and for good.
"""

import re
import sys
import warnings
from typing import Any

from fastwsgi.config import Settings

IS_FREE_THREADED = "t" in getattr(sys, "abiflags", "")

# What Python says then, as a warning.
TURNED_ON = re.compile(r"The global interpreter lock \(GIL\) has been enabled to load module '([^']+)'")

# What is said of it before anything is served.
TEXT = (
    "the import of {} turns the GIL on, for the whole process (it does not say that it can do without): "
    "there will be a worker for each loop"
)

_culprit = ""


def has_gil() -> bool:
    return not hasattr(sys, "_is_gil_enabled") or bool(sys._is_gil_enabled())


# With -X gil=1 or PYTHON_GIL=1 that is what the user wants.
_had_gil = has_gil()


def watch() -> None:
    """From now on, note which import turns the GIL on; Python's own warning of that is not shown."""
    if not IS_FREE_THREADED or _had_gil or getattr(warnings.showwarning, "is_ours", False):
        return
    former = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        global _culprit
        found = TURNED_ON.match(str(message))
        if found is None:
            former(message, category, *args, **kwargs)
        else:
            _culprit = _culprit or found[1]

    show.is_ours = True  # type: ignore[attr-defined]
    warnings.showwarning = show
    warnings.filterwarnings("always", TURNED_ON.pattern, RuntimeWarning)


def turned_on_by() -> str | None:
    """The module whose import has turned the GIL on, as far as it is known; None if nothing has."""
    if _had_gil or not has_gil():
        return None
    return _culprit or "an extension module"


def count_loops(settings: Settings, workers: int, cpus: int) -> int:
    """How many loops each of so many workers has, with so many processors for all of them."""
    if isinstance(settings.loops, int):
        return settings.loops
    if has_gil() or settings.gevent:
        return 1
    return max(1, min(settings.threads, cpus // max(1, workers)))
