"""The targets of the project, each held against a run."""

from collections.abc import Iterator
from dataclasses import dataclass

from harness.cases import CASES
from harness.results import Results
from harness.servers import SERVERS

# Below this these machines cannot tell two servers apart.
AHEAD = 1.05


@dataclass(frozen=True)
class Target:
    text: str
    figure: str
    reached: bool | None  # None: not measured in this run


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


@dataclass(frozen=True)
class Held:
    """A run, and the ways in which a figure of it is held against a limit."""

    results: Results

    def cpu(self, case: str, server: str = "fastwsgi") -> float | None:
        return self.results.figure(case, server)

    def ours(self, case: str, key: str, pick: str = "median") -> float | None:
        return self.results.figure(case, "fastwsgi", key, pick)

    def ratio(self, case: str, above: str, below: str, limit: float, at_least: bool = False) -> Target:
        """CPU time per request of one server over that of another; at most limit, or at_least."""
        text = f"{case}: {above} / {below} {'>=' if at_least else '<='} {limit}"
        above_us, below_us = self.cpu(case, above), self.cpu(case, below)
        if above_us is None or not below_us:
            return Target(text, "", None)
        ratio = above_us / below_us
        medians = _ratio(*(self.results.figure(case, name, pick="median") for name in (above, below)))
        figure = f"{ratio:.2f} ({above_us:,.2f} / {below_us:,.2f} us; of the medians {medians:.2f})"
        return Target(text, figure, ratio >= limit if at_least else ratio <= limit)

    def best(self, case: str, names: tuple[str, ...] = ()) -> str:
        """The peer with the least CPU time, among names or all of the case."""
        peers = [
            name
            for name in names or CASES[case].servers
            if SERVERS[name].kind == "peer" and self.cpu(case, name)
        ]
        return min(peers, key=lambda name: self.cpu(case, name) or 0.0, default="best peer")

    def ahead(self, case: str) -> Target:
        """Not behind any peer, as far as these machines can tell."""
        return self.ratio(case, "fastwsgi", self.best(case), AHEAD)

    def nothing_failed(self) -> Target:
        counts = {case: self.ours(case, "failed", "sum") for case in self.results.cases}
        measured = {case: count for case, count in counts.items() if count is not None}
        failed = [f"{case}: {count:.0f}" for case, count in measured.items() if count]
        reached = not failed if measured else None
        return Target("no failed request in any case", ", ".join(failed) or "none", reached)


def _limit(text: str, value: float | None, limit: float, unit: str, at_least: bool = False) -> Target:
    text = f"{text} {'>=' if at_least else '<='} {limit:g} {unit}"
    if value is None:
        return Target(text, "", None)
    return Target(text, f"{value:,.2f} {unit}", value >= limit if at_least else value <= limit)


def _loads(held: Held) -> Iterator[Target]:
    for case in ("hello", "browser"):
        yield held.ratio(case, "bjoern", "fastwsgi", 1.25, at_least=True)
        yield held.ratio(case, "fastwsgi", "ceiling-app", 1.15)
        yield held.ahead(case)
        yield held.ratio(case, "fastwsgi", "fastwsgi-t1", 1.10)
        yield held.ratio(case, "fastwsgi-t32", "fastwsgi-t1", 1.10)
    yield held.ratio("hello", "fastwsgi-log", "fastwsgi", 1.05)
    yield _limit("pipeline16: CPU per request", held.cpu("pipeline16"), 3, "us")
    yield held.ratio("newconn", "bjoern", "fastwsgi", 1.1, at_least=True)
    for case in ("body64k", "gen10", "post16k"):
        yield held.ahead(case)
    yield held.ratio("file1m", "fastwsgi", "nginx-file", 1.2)


def _threads_and_views(held: Held) -> Iterator[Target]:
    sleeping = held.ours("sleep10", "per_second")
    yield _limit("sleep10: 95 % of the ideal", sleeping, 3040, "req/s", at_least=True)
    p99_us = held.ours("mix", "fast_p99_us")
    yield _limit("mix: p99 of the fast requests", p99_us and p99_us / 1000, 5, "ms")
    kept, slow = held.ours("mix", "fast_kept"), held.ours("mix", "slow_per_second")
    yield _limit("mix: speed the fast ones keep", kept, 0.9, "of it", at_least=True)
    yield _limit("mix: slow requests of 160", slow, 144, "req/s", at_least=True)
    for case in ("cpu2ms", "djangoorm"):
        yield held.ratio(case, "fastwsgi", "fastwsgi-t1", 1.10)
    for case in ("flask", "django"):
        yield held.ratio(case, "fastwsgi", "ceiling-app", 1.10)


def _greenlets(held: Held) -> Iterator[Target]:
    for peer in ("gunicorn-gevent", "gevent-pywsgi"):
        yield held.ratio("greenhello", "fastwsgi-gevent", peer, 0.2)
    failed = held.results.figure("greensleep", "fastwsgi-gevent", "failed", "sum")
    yield _limit("greensleep: failed requests", failed, 0, "")


def _loops(held: Held) -> Iterator[Target]:
    def compared(case: str, above: str, below: str, key: str, pick: str) -> float | None:
        return _ratio(*(held.results.figure(case, name, key, pick) for name in (above, below)))

    faster = compared("freecpu2ms", "free-2loops", "free-loop", "per_second", "median")
    yield _limit("freecpu2ms: free-2loops / free-loop, in requests", faster, 1.7, "", at_least=True)
    for case in ("freecpu2ms", "freehello", "freeflask"):
        yield held.ratio(case, "free-2loops", "free-2workers", 1.10)
        smaller = compared(case, "free-2loops", "free-2workers", "mebibytes", "least")
        yield _limit(f"{case}: free-2loops / free-2workers, in memory", smaller, 1.0, "")


def _workers(held: Held) -> Iterator[Target]:
    for case in ("hello", "newconn", "djangoorm"):
        yield held.ratio(case, "fastwsgi-w2", "fastwsgi-w1", 1.10)


def _edge(held: Held) -> Iterator[Target]:
    yield held.ratio("tlshello", "fastwsgi-tls", held.best("tlshello"), 1.0)
    yield held.ratio("tlsrsa", "fastwsgi-tls", "nginx-tls", 1.15)
    for case in ("tlsecdsa", "tlsresumed"):
        yield held.ratio(case, "fastwsgi-tls", "nginx-tls", 1.5)
    for case in ("static1k", "static1m"):
        nginx = held.best(case, ("nginx-file", "nginx-open-file"))
        yield held.ratio(case, nginx, "fastwsgi-static", 0.9, at_least=True)
        yield held.ratio(case, "whitenoise", "fastwsgi-static", 5, at_least=True)


def _idle(held: Held) -> Iterator[Target]:
    yield _limit("idle10k: memory per connection", held.ours("idle10k", "bytes_each"), 512, "bytes")
    alone, beside = held.ours("idle10k", "alone_p99_us"), held.ours("idle10k", "beside_p99_us")
    # The p99 of some hundred requests moves by this much without a cause in the server.
    ratio = _ratio(beside, alone)
    yield _limit("idle10k: p99 of fresh requests beside idle ones", ratio, 1.5, "times that without")
    yield _limit("idlecpu: CPU when nothing happens", held.ours("idlecpu", "cpu_us_per_second"), 0, "us/s")


def judge(results: Results) -> list[Target]:
    held = Held(results)
    return [
        *_loads(held),
        *_threads_and_views(held),
        *_greenlets(held),
        *_loops(held),
        *_workers(held),
        *_edge(held),
        *_idle(held),
        held.nothing_failed(),
    ]
