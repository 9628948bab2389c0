"""The figures of a run: collected round by round, summed up, kept as JSON."""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.cases import Case, Column


@dataclass
class Entry:
    """One server in one case: the figures of each round, and the rounds that gave none."""

    rounds: list[dict[str, float]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def figure(self, key: str, pick: str = "least") -> float | None:
        values = [figures[key] for figures in self.rounds if key in figures]
        if not values:
            return None
        match pick:
            case "least":
                return min(values)
            case "most":
                return max(values)
            case "sum":
                return sum(values)
        return statistics.median(values)


@dataclass
class Results:
    date: str
    commit: str
    machine: dict[str, str]
    settings: dict[str, Any]
    versions: dict[str, str | None]
    cases: dict[str, dict[str, Entry]] = field(default_factory=dict)
    disturbance: dict[str, float] = field(default_factory=dict)

    def entry(self, case: str, server: str) -> Entry:
        return self.cases.setdefault(case, {}).setdefault(server, Entry())

    def figure(self, case: str, server: str, key: str = "cpu_us", pick: str = "least") -> float | None:
        entry = self.cases.get(case, {}).get(server)
        return entry.figure(key, pick) if entry else None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def cell(entry: Entry, column: Column) -> str:
    value = entry.figure(column.key, column.pick)
    return "" if value is None else f"{value:,.{column.digits}f}"


def ordered(case: Case, entries: dict[str, Entry]) -> list[tuple[str, Entry]]:
    """The servers of a case, the best first; those without figures at the end."""
    key, pick = case.columns[0].key, case.columns[0].pick

    def rank(item: tuple[str, Entry]) -> tuple[bool, float]:
        value = item[1].figure(key, pick)
        return value is None, value if value is not None else 0.0

    return sorted(entries.items(), key=rank)
