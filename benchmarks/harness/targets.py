"""The targets of the project, each held against a run."""

from collections.abc import Iterable, Iterator
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


def _ratio(text: str, above: float | None, below: float | None, limit: float, at_least: bool) -> Target:
    if above is None or not below:
        return Target(text, "-", None)
    ratio = above / below
    return Target(text, f"{ratio:.2f} ({above:.2f} / {below:.2f} us)", ratio >= limit if at_least else ratio <= limit)


def _at_least(text: str, above: float | None, below: float | None, limit: float) -> Target:
    return _ratio(f"{text} >= {limit}", above, below, limit, at_least=True)


def _at_most(text: str, above: float | None, below: float | None, limit: float) -> Target:
    return _ratio(f"{text} <= {limit}", above, below, limit, at_least=False)


def _limit(text: str, value: float | None, limit: float, unit: str, at_least: bool = False) -> Target:
    sign = ">=" if at_least else "<="
    text = f"{text} {sign} {limit:g} {unit}"
    if value is None:
        return Target(text, "-", None)
    return Target(text, f"{value:,.2f} {unit}", value >= limit if at_least else value <= limit)


def _ahead_of_peers(results: Results, case: str) -> Target:
    peers = []
    for name in CASES[case].servers:
        cpu_us = results.figure(case, name)
        if SERVERS[name].kind == "peer" and cpu_us:
            peers.append((cpu_us, name))
    best, name = min(peers, default=(None, "best peer"))
    return _at_most(f"{case}: fastwsgi / {name}, the best peer", results.figure(case, "fastwsgi"), best, AHEAD)


def _nothing_failed(results: Results) -> Target:
    text = "no failed request in any case"
    counts = {
        name: entry.figure("failed", "sum")
        for name, entries in results.cases.items()
        for server, entry in entries.items()
        if server == "fastwsgi" and entry.figure("failed", "sum") is not None
    }
    if not counts:
        return Target(text, "-", None)
    failed = [f"{name}: {count:.0f}" for name, count in counts.items() if count]
    return Target(text, ", ".join(failed) or "none", not failed)


def _hello_and_browser(results: Results) -> Iterator[Target]:
    for case in ("hello", "browser"):
        ours = results.figure(case, "fastwsgi")
        yield _at_least(f"{case}: bjoern / fastwsgi", results.figure(case, "bjoern"), ours, 1.25)
        yield _at_most(f"{case}: fastwsgi / ceiling-app", ours, results.figure(case, "ceiling-app"), 1.15)
        yield _ahead_of_peers(results, case)
        one = results.figure(case, "fastwsgi-t1")
        yield _at_most(f"{case}: 4 threads / 1 thread", ours, one, 1.10)
        yield _at_most(f"{case}: 32 threads / 1 thread", results.figure(case, "fastwsgi-t32"), one, 1.10)


def _other_loads(results: Results) -> Iterator[Target]:
    yield _limit("pipeline16: CPU per request", results.figure("pipeline16", "fastwsgi"), 3, "us")
    yield _at_least(
        "newconn: bjoern / fastwsgi", results.figure("newconn", "bjoern"), results.figure("newconn", "fastwsgi"), 1.1
    )
    for case in ("body64k", "gen10", "post16k"):
        yield _ahead_of_peers(results, case)
    yield _at_most(
        "file1m: fastwsgi / nginx-file",
        results.figure("file1m", "fastwsgi"),
        results.figure("file1m", "nginx-file"),
        1.2,
    )


def _threads_and_views(results: Results) -> Iterator[Target]:
    sleeping = results.figure("sleep10", "fastwsgi", "per_second", "median")
    yield _limit("sleep10: 95 % of 3200 req/s,", sleeping, 3040, "req/s", at_least=True)
    p99 = results.figure("mix", "fastwsgi", "fast_p99_us", "median")
    yield _limit("mix: p99 of the fast requests", p99 / 1000 if p99 is not None else None, 5, "ms")
    slow = results.figure("mix", "fastwsgi", "slow_per_second", "median")
    yield _limit("mix: slow requests, 95 % of 160 req/s,", slow, 152, "req/s", at_least=True)
    for case in ("cpu2ms", "djangoorm"):
        yield _at_most(
            f"{case}: 4 threads / 1 thread", results.figure(case, "fastwsgi"), results.figure(case, "fastwsgi-t1"), 1.10
        )
    for case in ("flask", "django"):
        yield _at_most(
            f"{case}: fastwsgi / ceiling-app", results.figure(case, "fastwsgi"), results.figure(case, "ceiling-app"), 1.10
        )


def _idle(results: Results) -> Iterator[Target]:
    yield _limit("idle10k: memory per connection", results.figure("idle10k", "fastwsgi", "bytes_each"), 512, "bytes")
    alone = results.figure("idle10k", "fastwsgi", "alone_p99_us", "median")
    beside = results.figure("idle10k", "fastwsgi", "beside_p99_us", "median")
    # p99 of some hundred requests moves by this much without any cause in the server.
    yield _at_most("idle10k: p99 of fresh requests beside / without", beside, alone, 1.5)
    yield _limit("idlecpu: CPU when nothing happens", results.figure("idlecpu", "fastwsgi", "cpu_us_per_second"), 0, "us/s")


def judge(results: Results) -> list[Target]:
    groups: Iterable[Iterator[Target]] = (
        _hello_and_browser(results),
        _other_loads(results),
        _threads_and_views(results),
        _idle(results),
    )
    return [target for group in groups for target in group] + [_nothing_failed(results)]
