"""What this process may use, CPUs and memory, and how many workers that makes; and what a process takes.

What a container has is in cgroups, of version 2 or 1 or both at once. Files are looked for beneath `root`, so
that a tree of another machine can be laid out anywhere.
"""

import math
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")

MOST_WORKERS = 1024

# What the workers may take together of the memory that there is: the rest is for requests and for the others.
MEMORY_SHARE = 0.8

# What ps may take to answer, in seconds.
PS_PATIENCE = 5.0

KIB = 1024
UNITS = ((KIB**3, "GiB"), (KIB**2, "MiB"), (KIB, "KiB"))


@dataclass(frozen=True, slots=True)
class Cpus:
    """The CPUs of the machine, those of them that this process may run on, and how many it may keep busy."""

    present: int
    allowed: int
    quota: float | None = None

    @property
    def usable(self) -> int:
        """Whole ones, at least 1: a part of one is used best by a worker of its own."""
        return max(1, math.ceil(self.cores))

    @property
    def cores(self) -> float:
        return self.allowed if self.quota is None else min(self.allowed, self.quota)

    def __str__(self) -> str:
        if self.allowed < self.present:
            text = f"{self.allowed} of {self.present} CPUs"
        else:
            text = f"{self.present} CPU{'' if self.present == 1 else 's'}"
        return text if self.quota is None else f"{text}, quota of {self.quota:.3g}"


@dataclass(frozen=True, slots=True)
class Memory:
    """How much there is for this process and all that share its limit, and what says so."""

    size: int
    source: str

    @property
    def is_limit(self) -> bool:
        return self.source == "memory limit"

    def __str__(self) -> str:
        return f"the {self.source} of {show_size(self.size)}"


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What the processes of a cgroup have together, and how the kernel gets on with that."""

    limit: int | None
    used: int
    cache: int  # of that: content of files, which the kernel takes back before it lacks memory
    wait: "MemoryWait | None"
    hits: int  # so far: times that there was a limit in the way

    @property
    def needed(self) -> int:
        return self.used - self.cache


@dataclass(frozen=True, slots=True)
class MemoryWait:
    """That a process at least had to wait for memory: the share of the last ten seconds; seconds in all."""

    share: float
    seconds: float


@dataclass(frozen=True, slots=True)
class OomKills:
    """The kernel's counter, and of what: the innermost cgroup that has one, or the machine."""

    count: int
    where: str


def find_cpus(root: Path = ROOT) -> Cpus:
    present = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else present
    quotas = [quota for group in cgroups("cpu", root) if (quota := cpu_quota(group)) is not None]
    return Cpus(max(present, allowed), allowed, min(quotas, default=None))


def find_memory(root: Path = ROOT) -> Memory:
    """The memory limit of the cgroup, or what the machine has.

    Not RLIMIT_AS: it is for addresses, not memory, and for each process alone.
    """
    machine = machine_memory()
    limits = [limit for group in cgroups("memory", root) if (limit := memory_limit(group)) is not None]
    if limits and min(limits) < machine:
        return Memory(min(limits), "memory limit")
    return Memory(machine, "memory")


def find_memory_use(root: Path = ROOT) -> MemoryUse | None:
    """Of the cgroup with the lowest limit, the innermost if there is none; None if no cgroup tells."""
    uses = [use for group in cgroups("memory", root) if (use := memory_use(group)) is not None]
    return min(uses, key=lambda use: math.inf if use.limit is None else use.limit, default=None)


def find_memory_wait(root: Path = ROOT) -> MemoryWait | None:
    """Of the innermost cgroup that tells, or of the machine."""
    files = [group / "memory.pressure" for group in cgroups("memory", root)]
    files.append(root / "proc/pressure/memory")
    return next((wait for file in files if (wait := memory_wait(file)) is not None), None)


def find_throttling(root: Path = ROOT) -> float | None:
    """Seconds that the CPU quota of the innermost cgroup has kept it waiting; None if it does not say."""
    group = next(cgroups("cpu", root), None)
    throttled = numbers(group / "cpu.stat").get("throttled_usec") if group is not None else None
    return None if throttled is None else throttled / 1e6


def limited_cgroups(root: Path = ROOT) -> list[Path]:
    """Those that leave this process less memory than the machine has, inside out."""
    found = [(group, memory_limit(group)) for group in cgroups("memory", root)]
    return [group for group, limit in found if limit is not None and limit < machine_memory()]


def count_workers(setting: int | str, cpus: Cpus) -> tuple[int, str]:
    """The number of workers, and the reason for it where it was not given: "8 CPUs, quota of 4"."""
    if isinstance(setting, int):
        return setting, ""
    return min(cpus.usable, MOST_WORKERS), str(cpus)


def fit_to_memory(number: int, each: int, memory: Memory) -> tuple[int, str]:
    """The number of workers for which there is memory if each takes so much, at least 1; and why it is lower.

    The text is empty when the number is not lowered. With `pss`, pages that workers share count once.
    """
    fitting = max(1, int(MEMORY_SHARE * memory.size / max(1, each)))
    if fitting >= number:
        return number, ""
    return fitting, f"each takes {show_size(each)}, and {MEMORY_SHARE:.0%} of {memory} is for all of them"


def pss(pid: int, root: Path = ROOT) -> int | None:
    """The memory of a process, a page shared by n processes counted as 1/n; its `rss` where that is not told.

    None if there is no such process.
    """
    found = re.search(r"^Pss:\s+(\d+) kB", read(root / f"proc/{pid}/smaps_rollup"), re.MULTILINE)
    return int(found[1]) * KIB if found else rss(pid, root)


def rss(pid: int, root: Path = ROOT) -> int | None:
    """The memory of a process, shared pages counted in full; None if there is no such process.

    Quick however much that is; for `pss` the kernel looks at every page.
    """
    if not (root / "proc/self/statm").exists():
        return rss_from_ps(pid)
    fields = read(root / f"proc/{pid}/statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if fields else None


def machine_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def rss_from_ps(pid: int) -> int | None:
    """The same for systems without /proc."""
    # Without the rest of the environment: what is preloaded into the application is not meant for ps.
    path = {"PATH": os.environ.get("PATH", os.defpath)}
    command = ["ps", "-o", "rss=", "-p", str(pid)]
    try:
        output = subprocess.run(
            command, env=path, capture_output=True, check=False, timeout=PS_PATIENCE
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return int(output) * KIB if output.strip().isdigit() else None


def oom_kills(root: Path = ROOT) -> "OomKills | None":
    """How many processes the kernel has killed so far because memory was out; None if it does not say."""
    for group in cgroups("memory", root):
        text = read(group / "memory.events") or read(group / "memory.oom_control")
        if found := re.search(r"^oom_kill (\d+)$", text, re.MULTILINE):
            return OomKills(int(found[1]), "cgroup")
    found = re.search(r"^oom_kill (\d+)$", read(root / "proc/vmstat"), re.MULTILINE)
    return OomKills(int(found[1]), "machine") if found else None


def show_size(size: float) -> str:
    """The size in the largest unit that leaves no zero before the point: 1.5 GiB."""
    for factor, unit in UNITS:
        if size >= factor:
            return f"{size / factor:.3g} {unit}" if size < 1000 * factor else f"{size / factor:.0f} {unit}"
    return f"{size:.0f} bytes"


# ---- cgroups ----


def cgroups(controller: str, root: Path) -> Iterator[Path]:
    """The directories of the cgroups that this process is in, in all that may limit it, inside out."""
    paths = {}  # by controller; version 2 has no name there
    for line in read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    for line in read(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        part, mount = (unescape(field) for field in left.split()[3:5])
        kind, *_, options = right.split()
        if kind == "cgroup2":
            name = ""
        elif kind == "cgroup" and controller in options.split(","):
            name = controller
        else:
            continue
        if name in paths and (below := position(paths[name], part)) is not None:
            top = root / mount.lstrip("/")
            here = top / below
            yield from (here, *here.parents[: len(below.parts)])


def position(path: str, part: str) -> Path | None:
    """Where a cgroup is in a mount that shows this part of the hierarchy; None if it is not there."""
    if "/.." in part:
        # Mounted outside of this cgroup namespace: what it shows first is above us, that much is known.
        return Path()
    if "/.." in path or not Path(path).is_relative_to(part):
        return None
    return Path(path).relative_to(part)


def cpu_quota(group: Path) -> float | None:
    """How many CPUs the cgroup may keep busy; None: any number."""
    words = read(group / "cpu.max").split()
    if not words:
        words = [read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    quota, period = words
    # Without a limit it is "max" in version 2, and -1 in version 1.
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def memory_limit(group: Path) -> int | None:
    """What all processes of the cgroup may have together; None: no limit.

    From memory.high on the kernel has them wait, at memory.max it kills. Version 1 has a number near 2**63
    where there is no limit: more than any machine has.
    """
    names = ("memory.max", "memory.high", "memory.limit_in_bytes")
    return min((limit for name in names if (limit := number(group / name)) is not None), default=None)


def memory_use(group: Path) -> MemoryUse | None:
    """What a cgroup uses of its memory; None if it does not say."""
    used = number(group / "memory.current")
    if used is None:
        used = number(group / "memory.usage_in_bytes")
    if used is None:
        return None
    stat = numbers(group / "memory.stat")
    # In version 1 what has no such prefix is without the cgroups below.
    prefix = "total_" if "total_inactive_file" in stat else ""
    cache = stat.get(f"{prefix}inactive_file", 0) + stat.get(f"{prefix}active_file", 0)
    events = numbers(group / "memory.events")
    hits = events.get("high", 0) + events.get("max", 0) + (number(group / "memory.failcnt") or 0)
    return MemoryUse(
        memory_limit(group), used, min(cache, used), memory_wait(group / "memory.pressure"), hits
    )


def memory_wait(file: Path) -> MemoryWait | None:
    found = re.search(r"^some avg10=([0-9.]+) .*\btotal=([0-9]+)", read(file), re.MULTILINE)
    return MemoryWait(float(found[1]) / 100, int(found[2]) / 1e6) if found else None


def number(file: Path) -> int | None:
    """The number that a file has; None for anything else, such as the word max."""
    return numbers(file).get("")


def numbers(file: Path) -> dict[str, int]:
    """What lines with a name and a number say; a number without a name has an empty one."""
    lines = [line.split() for line in read(file).splitlines()]
    return {" ".join(words[:-1]): int(words[-1]) for words in lines if words and words[-1].isdigit()}


def unescape(field: str) -> str:
    """A path as mountinfo has it: white space and backslashes are octal there."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def read(file: Path) -> str:
    """The content; empty if it cannot be had."""
    try:
        return file.read_text()
    except OSError:
        return ""
