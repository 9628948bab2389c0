"""Which routes keep memory, and where it was allocated: what --leak-report says.

`_survivors` samples exchanges and follows the blocks that they leave behind. Here samples get the names of
their routes, and what is still there after a full collection of garbage is what a request keeps.
"""

import gc
import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastwsgi import resources
from fastwsgi._stats import Row
from fastwsgi._survivors import Survivors
from fastwsgi.logs import LOG
from fastwsgi.resources import show_size

# Samples of a route that are followed, the latest ones.
SAMPLES = 128
# So many, looked at after a full collection, say something.
ENOUGH = 12
# Routes with a line of their own.
ROUTES = 60
OTHERS = "other routes"
# A segment of a path that has had more values than this is a parameter.
VALUES = 24

# What is kept in all before it is told of, and how much more it has to be to be told again.
LEAST = 1 << 20
MORE = 4
# A route that keeps less of it is not worth a line, nor sure to be one: blocks change hands between routes.
SHARE = 0.05
# How many times its own error the mean has to be.
SURE = 3.0

# Of the time, at most one of so many parts for looking, and for collecting garbage.
LOOK_SHARE = 400
COLLECT_SHARE = 400
PAUSE = 1.0
# Growth that routes do not explain is told of from here on, and again when it has doubled.
UNEXPLAINED = 32 << 20
# Requests before the size of the process is noted: what is imported and filled at first is no leak.
WARM = 100

SEGMENT_MOST = 50
NAME_MOST = 120
SHOWN_MOST = 3


class Left(NamedTuple):
    """What a sample has left, and what became of it."""

    blocks: int  # at its end
    followed: int  # of the blocks
    alive: int  # of the followed ones, now
    octets: int  # in these
    collected: int  # of the followed ones: they were garbage
    older: int  # blocks of before that it has freed

    @property
    def kept(self) -> float:
        """Blocks that this request keeps: still there, and not in place of others."""
        if not self.followed:
            return -float(self.older)
        each = self.blocks / self.followed
        return min(self.blocks - self.collected * each - self.older, self.alive * each)


@dataclass(slots=True)
class Route:
    name: str
    count: int = 0  # samples so far
    samples: deque[tuple[int, int]] = field(default_factory=deque)  # and the collections before them


@dataclass(frozen=True, slots=True)
class Verdict:
    """What requests of a route keep."""

    route: str
    samples: int  # that were looked at
    octets: float  # a request keeps
    requests: float  # of the route, about
    is_sure: bool
    where: tuple[str, ...]  # it was allocated, most of it first

    @property
    def total(self) -> float:
        return self.octets * self.requests

    def __str__(self) -> str:
        where = f", allocated at {', '.join(self.where)}" if self.where else ""
        return (
            f"{self.route} keeps {show_size(self.octets)} a request, {show_size(self.total)} so far, "
            f"by {self.samples} samples{where}"
        )


# ---- routes ----

# What looks like a value: a number, a date or time, an UUID or a hash, and other mixtures that nobody types.
NUMBER = re.compile(r"[-+]?\d[\d.,:_T-]*Z?(\.\w{1,5})?")
HEX = re.compile(r"(?=.*\d)[0-9a-fA-F-]{8,}(\.\w{1,5})?")
DIGITS = re.compile(r"\d")


def is_value(segment: str) -> bool:
    if NUMBER.fullmatch(segment) or HEX.fullmatch(segment) or "%" in segment or "@" in segment:
        return True
    if len(segment) >= 16 and DIGITS.search(segment):
        # Base64 and the like: all three kinds, and no words with hyphens.
        return "-" not in segment and segment.lower() != segment != segment.upper()
    return len(segment) > SEGMENT_MOST


def segments_of(line: str) -> tuple[str, ...]:
    """Method, and segments of the path with values as *: ("GET", "", "orders", "*")."""
    method, _, target = line.partition(" ")
    path = target.partition("?")[0]
    if "://" in path:
        path = "/" + path.partition("://")[2].partition("/")[2]
    segments = ("*" if is_value(segment) else segment for segment in path.split("/"))
    return (method, *segments)


class Routes:
    """Samples by route, a bounded number of these."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, ...], Route] = {}
        self._values: dict[tuple[str, ...], set[str]] = {}  # of the segment behind these

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes.values())

    def __len__(self) -> int:
        return len(self._routes)

    def of(self, line: str, name: object) -> Route:
        """The route of a request; name: what the application says that it is."""
        if isinstance(name, str):
            key: tuple[str, ...] = (name[:NAME_MOST],)
        else:
            key = self._known(segments_of(line))
        route = self._routes.get(key)
        if route is None and len(self._routes) >= ROUTES:
            key = (OTHERS,)
            route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = Route(show_route(key))
        return route

    def _known(self, key: tuple[str, ...]) -> tuple[str, ...]:
        """With * for segments that have had many values."""
        for place in range(2, len(key)):
            before = key[:place]
            values = self._values.get(before)
            if values is None and len(self._values) < 8 * ROUTES:
                values = self._values[before] = set()
            if values is None or "*" in values:
                key = (*before, "*", *key[place + 1 :])
            elif key[place] != "*":
                values.add(key[place])
                if len(values) > VALUES:
                    self._values[before] = {"*"}
                    self._join(before)
                    key = (*before, "*", *key[place + 1 :])
        return key

    def _join(self, before: tuple[str, ...]) -> None:
        """All that begins so is one from here on, whatever its next segment is."""
        place = len(before)
        for key in [one for one in self._routes if one[:place] == before and len(one) > place]:
            route = self._routes.pop(key)
            joined = (*before, "*", *key[place + 1 :])
            into = self._routes.setdefault(joined, Route(show_route(joined)))
            into.count += route.count
            into.samples += route.samples


def show_route(key: tuple[str, ...]) -> str:
    return " ".join((key[0], "/".join(key[1:]))) if len(key) > 1 else key[0]


# ---- what is kept ----


def tenth(values: Sequence[float]) -> int:
    return max(1, len(values) // 10)


def usual(values: Sequence[float]) -> list[int]:
    """Which of them are neither among the largest nor the smallest tenth."""
    cut = tenth(values)
    return sorted(sorted(range(len(values)), key=lambda i: values[i])[cut:-cut])


def robust(values: Sequence[float]) -> tuple[float, float]:
    """The mean without the largest and the smallest tenth, and its standard error (of a trimmed mean).

    One that imports something, or fills a cache once, is left out that way.
    """
    number, cut = len(values), tenth(values)
    inner = sorted(values)[cut:-cut]
    mean = sum(inner) / len(inner)
    # The ends drawn in to the first value that is left.
    drawn = [*[inner[0]] * cut, *inner, *[inner[-1]] * cut]
    middle = sum(drawn) / number
    variance = sum((one - middle) ** 2 for one in drawn) / (number - 1)
    return mean, (variance / number) ** 0.5 / (1 - 2 * cut / number)


class Leaks:
    """What is known of the memory that requests of this worker keep."""

    def __init__(self, row: Row) -> None:
        """row: the worker's, which gets what is known as JSON."""
        self.survivors = Survivors()
        self._row = row
        self._routes = Routes()
        self._taken = 0  # samples
        self._look_at = self._collect_at = 0.0
        self._told: dict[str, float] = {}  # in all, by route
        self._warm: tuple[int, int] | None = None  # requests and size of the process then
        self._unexplained: float = UNEXPLAINED
        self._was_blind = False

    def look(self) -> None:
        """Now and then: take in what was sampled, and tell of what is new."""
        began = time.monotonic()
        if began < self._look_at:
            return
        self._take()
        if began >= self._collect_at and self._needs_collection():
            gc.collect()
            # Finalizers may have run as well: that is part of what it takes.
            self._collect_at = time.monotonic() + COLLECT_SHARE * (time.monotonic() - began)
        began = time.monotonic()
        self._tell(ends=False)
        if self.survivors.is_blind and not self._was_blind:
            self._was_blind = True
            LOG.warning(
                "--leak-report: no more samples; tracemalloc or the like has undone how they are taken"
            )
        self._look_at = time.monotonic() + max(PAUSE, LOOK_SHARE * (time.monotonic() - began))

    def close(self) -> None:
        """Tell what is known at the end."""
        self._take()
        if self._needs_collection():
            gc.collect()
        self._tell(ends=True)
        self.survivors.close()

    def _take(self) -> None:
        survivors = self.survivors
        if survivors.is_full:
            fullest = max(self._routes, key=self._alive, default=None)
            for _ in range(len(fullest.samples) // 2 if fullest is not None else 0):
                assert fullest is not None
                survivors.forget(fullest.samples.popleft()[0])
        for number, line, name in survivors.take():
            route = self._routes.of(line.decode("latin-1"), name)
            route.count += 1
            self._taken += 1
            route.samples.append((number, survivors.collections))
            while len(route.samples) > SAMPLES:
                survivors.forget(route.samples.popleft()[0])

    def _alive(self, route: Route) -> int:
        return sum(Left(*self.survivors.left(number)).alive for number, _ in route.samples)

    def _needs_collection(self) -> bool:
        """What may be garbage would make a difference."""
        if not gc.isenabled():
            return False
        collections = self.survivors.collections
        for route in self._routes:
            fresh = [number for number, before in route.samples if before >= collections]
            if len(fresh) >= ENOUGH and 4 * len(fresh) >= len(route.samples) and self._may_keep(fresh):
                return True
        return False

    def _may_keep(self, samples: Iterable[int]) -> bool:
        return robust([Left(*self.survivors.left(number)).kept for number in samples])[0] > 0

    def verdicts(self, requests: int) -> list[Verdict]:
        """What routes keep, those with most first; of routes with enough samples."""
        found = []
        for route in self._routes:
            looked_at = [number for number, _ in route.samples]
            if len(looked_at) >= ENOUGH and gc.isenabled() and self._may_keep(looked_at):
                # Some of it may be garbage.
                collections = self.survivors.collections
                looked_at = [number for number, before in route.samples if before < collections]
            if len(looked_at) < ENOUGH:
                continue
            left = [Left(*self.survivors.left(number)) for number in looked_at]
            kept = [one.kept for one in left]
            blocks, error = robust(kept)
            # The earlier ones: what a cache will let go of is still there in the later ones.
            chosen = usual(kept)
            chosen = chosen[: len(chosen) // 2]
            followed = [left[i] for i in chosen if left[i].followed]
            alive = sum(one.alive * one.blocks / one.followed for one in followed)
            octets = sum(one.octets * one.blocks / one.followed for one in followed)
            is_sure = blocks > SURE * error and alive > 0
            found.append(
                Verdict(
                    route.name,
                    len(left),
                    max(blocks, 0.0) * octets / alive if alive else 0.0,
                    requests * route.count / self._taken,
                    is_sure,
                    tuple(self._places([looked_at[i] for i in chosen])) if is_sure else (),
                )
            )
        found.sort(key=lambda one: -one.total)
        return found

    def _places(self, samples: Iterable[int]) -> Iterator[str]:
        places = sorted(self.survivors.places(samples), key=lambda one: -one[3])
        total = sum(one[3] for one in places)
        for filename, function, line, octets in places[:SHOWN_MOST]:
            if octets >= total / 4:
                yield f"{short(filename)}:{line} ({function})" if filename else "no line of Python"

    def leaking(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Those that are worth telling of."""
        total = sum(one.total for one in verdicts if one.is_sure)
        return [one for one in verdicts if one.is_sure and one.total >= SHARE * total]

    def _tell(self, *, ends: bool) -> None:
        """Log what is new, or at the end what is known; and show it to others."""
        requests = self._row.counters()["requests"]
        size = resources.rss(os.getpid()) or 0
        if self._warm is None and requests >= WARM:
            self._warm = requests, size
        verdicts = self.verdicts(requests)
        leaking = self.leaking(verdicts)
        known: dict[str, Any] = {
            "samples": self._taken,
            "too_large": self.survivors.too_large,
            "routes": [
                {
                    "route": one.route,
                    "samples": one.samples,
                    "requests": round(one.requests),
                    "kept": round(one.octets),
                    "total": round(one.total),
                    "leaks": one in leaking,
                    "where": one.where,
                }
                for one in verdicts
            ],
        }
        growth, unexplained = "", 0.0
        kept = sum(one.total for one in leaking)
        if self._warm is not None and requests > self._warm[0]:
            since, before = requests - self._warm[0], self._warm[1]
            known["growth"] = {"requests": since, "before": before, "now": size}
            growth = f"in {since} requests this worker went from {show_size(before)} to {show_size(size)}"
            unexplained = size - before - kept
        self._row.leaks = fitting(known, self._row.leaks_most)
        large = [one for one in leaking if one.total >= LEAST]
        is_news = any(one.total >= MORE * self._told.get(one.route, LEAST / MORE) for one in large)
        if is_news or (ends and leaking):
            self._told = {one.route: one.total for one in leaking}
            head = f"Requests have kept about {show_size(kept)}"
            if growth:
                head += f"; {growth}"
            LOG.warning("%s", "\n".join((f"{head} (--leak-report)", *(f"  {one}" for one in leaking))))
        if unexplained >= max(self._unexplained, kept) and not self._needs_collection():
            self._unexplained = 2 * unexplained
            LOG.warning(
                "%s, and what requests keep explains %s of it: the rest is C code's, or of threads of the "
                "application, or freed but not given back (--leak-report)",
                growth[0].upper() + growth[1:],
                show_size(kept),
            )


def fitting(known: dict[str, Any], most: int) -> str:
    """As JSON in at most so many octets: routes that keep least are left out first."""
    text = json.dumps(known)
    while len(text) > most and known["routes"]:
        known["routes"].pop()
        text = json.dumps(known)
    return text


def short(filename: str) -> str:
    """A file as its import has it, relative to where that is found; as it is, if it is nowhere."""
    for place in sys.path:
        with suppress(ValueError):
            if os.path.commonpath((place, filename)) == place:
                return os.path.relpath(filename, place)
    return filename
