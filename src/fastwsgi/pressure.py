"""Memory that gets short in a container: whether it does, and which worker goes before the kernel kills one.

    pressure = Pressure.of("90%")                   # None: nothing limits this process
    shortage = pressure.look(now)                   # None: there is enough
    one = pressure.choose(shortage, workers, now)   # the one to replace now, if any

Content of files does not count: the kernel takes that back before it lacks memory.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastwsgi.logs import LOG
from fastwsgi.resources import ROOT, MemoryUse, limited_cgroups, memory_use, show_size

# Below this part of the share nothing that the kernel says is taken for a shortage: then it lacks memory for
# content of files, which no worker gives back.
SIGNS_FROM = 0.8
# Processes that have to wait so much of the time are too slow.
WAITS = 0.1

# Seconds between two looks; less if memory grows so fast that it would be short before.
LOOK_PAUSE = 5.0
SOONEST_LOOK = 0.5

# After a worker was replaced, for what the kernel says to become true again. It doubles with each one that is
# of no help, once all have had their turn.
PAUSE = 30.0
LONGEST_PAUSE = 3600.0
# None is made where the limit would be reached within so many seconds, for so many turns of all workers.
URGENT = 10.0
URGENT_TURNS = 5
# After so many seconds without a shortage one is told of anew.
FORGOTTEN = 3600.0
# So many workers are named.
NAMED = 5
# And what others have, if it is so much of the limit.
OTHERS = 0.25


@dataclass(frozen=True, slots=True)
class Shortage:
    """What a cgroup needs of its limit, and from where on that is too much."""

    needed: int
    limit: int
    enough: int
    sign: str = ""  # what the kernel says beside it
    left: float = math.inf  # in so many seconds the limit is reached, if it goes on like that

    @property
    def is_urgent(self) -> bool:
        return self.left < URGENT

    def __str__(self) -> str:
        sizes = f"{show_size(self.needed)} of {show_size(self.limit)}"
        return f"its cgroup needs {sizes}, {self.needed / self.limit:.0%}{self.sign}"


@dataclass(frozen=True, slots=True)
class Size:
    """Memory of a worker: now, and when it was new (0: that is not known)."""

    pid: int
    now: int
    fresh: int


class Pressure:
    """Watches the cgroups that limit this process."""

    def __init__(self, share: float, groups: Sequence[Path]) -> None:
        """share: of the limit, from which on memory is short."""
        self._share = share
        self._groups = groups
        self._before: dict[Path, MemoryUse] = {}
        self._looked_at = -math.inf
        self.look_pause = LOOK_PAUSE  # until the next look
        self._pause = PAUSE
        self._again_at = 0.0
        self._is_replacing = False
        self._replaced = 0  # in this shortage
        self._short_at = 0.0
        self._was_told = False  # that nothing helps

    @classmethod
    def of(cls, setting: str, root: Path = ROOT) -> "Pressure | None":
        """For --memory-pressure; None if it is off, or this process has no limit."""
        groups = limited_cgroups(root) if setting != "off" else []
        return cls(float(setting.rstrip("%")) / 100, groups) if groups else None

    def look(self, now: float) -> Shortage | None:
        """The innermost cgroup that is short of memory; what it counts is compared with the last look."""
        self.look_pause = LOOK_PAUSE
        uses = {group: use for group in self._groups if (use := memory_use(group)) is not None}
        found = [
            self._judge(use, self._before.get(group, use), now - self._looked_at)
            for group, use in uses.items()
        ]
        self._before, self._looked_at = uses, now
        return next((shortage for shortage in found if shortage is not None), None)

    def choose(self, shortage: Shortage | None, workers: Sequence[Size], now: float) -> Size | None:
        """The worker to replace, if that may help.

        To be called while each worker serves, and none is about to be replaced: so the successor of the last
        one does. Says once if nothing helps.
        """
        if self._is_replacing:
            self._is_replacing, self._again_at = False, now + self._pause
        if shortage is None:
            if now >= self._again_at:
                self._replaced, self._pause = 0, PAUSE
            return None
        if now - self._short_at > FORGOTTEN:
            self._was_told = False
        self._short_at = now
        is_urgent = shortage.is_urgent and self._replaced < URGENT_TURNS * len(workers)
        if not workers or (now < self._again_at and not is_urgent):
            return None
        gain = sum(max(0, one.now - one.fresh) for one in workers)
        is_in_vain = shortage.needed - gain >= shortage.enough
        is_futile = self._replaced >= len(workers)
        if is_in_vain:
            self._tell("stays short, and new workers would need as much", shortage, workers)
        elif is_futile:
            self._tell("is short again soon after workers were replaced", shortage, workers)
        if is_in_vain:
            self._again_at = now + PAUSE
            return None
        if is_futile and not is_urgent:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._replaced, self._is_replacing = self._replaced + 1, True
        return max(workers, key=lambda one: one.now)

    def _judge(self, use: MemoryUse, before: MemoryUse, passed: float) -> Shortage | None:
        """Compare with what it was so many seconds before."""
        if use.limit is None:
            return None
        enough = int(self._share * use.limit)
        growth = max(0.0, (use.needed - before.needed) / passed)
        left = (use.limit - use.needed) / growth if growth else math.inf
        if growth:
            goal = enough if use.needed < enough else use.limit
            self.look_pause = min(self.look_pause, max(SOONEST_LOOK, (goal - use.needed) / growth))
        if use.needed >= enough:
            return Shortage(use.needed, use.limit, enough, "", left)
        enough = int(SIGNS_FROM * enough)
        if use.needed < enough:
            return None
        if use.wait is not None and use.wait.share >= WAITS:
            sign = f", and processes have waited for memory {use.wait.share:.0%} of the last 10 s"
        elif use.hits > before.hits:
            sign = f", and has hit that limit {use.hits - before.hits} times in the last {passed:.1f} s"
        else:
            return None
        return Shortage(use.needed, use.limit, enough, sign, left)

    def _tell(self, what: str, shortage: Shortage, workers: Sequence[Size]) -> None:
        if self._was_told:
            return
        self._was_told = True
        largest = sorted(workers, key=lambda one: -one.now)[:NAMED]
        sizes = [
            f"worker {one.pid} has {show_size(one.now)} ({show_size(one.fresh)} when new)" for one in largest
        ]
        if len(workers) > NAMED:
            sizes.append(f"{len(workers) - NAMED} more have less")
        rest = shortage.needed - sum(one.now for one in workers)
        if rest > OTHERS * shortage.limit:
            sizes.append(f"{show_size(rest)} is not the workers'")
        LOG.error(
            "Memory %s (--memory-pressure): %s; %s. What helps is a higher memory limit, fewer --workers or "
            "--preload; where they leak, --max-worker-memory",
            what,
            shortage,
            ", ".join(sizes),
        )
