"""Where a run took place, and what disturbed it."""

import os
import platform
import re
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, str]:
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return {
        "processor": f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "C library": " ".join(platform.libc_ver()),
    }


def stolen_seconds() -> float:
    """Time that the hypervisor gave to other machines, since boot, over all cores."""
    return int(Path("/proc/stat").read_text().split()[8]) / _TICKS


def busy_seconds(core: int) -> float:
    """Time that one core was not idle, since boot."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *counts = line.split()
        if name == f"cpu{core}":
            ticks = list(map(int, counts))
            return (sum(ticks[:8]) - ticks[3] - ticks[4]) / _TICKS
    return 0.0
