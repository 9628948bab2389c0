"""What a server counts, as text for Prometheus (exposition format 0.0.4).

exposition(boards: Sequence[Board], root: Path = ROOT) -> bytes     # with CONTENT_TYPE
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastwsgi.resources import ROOT, rss

if TYPE_CHECKING:
    from fastwsgi._stats import Board, Row

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(boards: "Sequence[Board]", root: Path = ROOT) -> bytes:
    """The metrics of the server whose generations have these boards; `root`: where /proc and /sys are."""
    return "".join(lines(boards, root)).encode()


def lines(boards: "Sequence[Board]", root: Path) -> Iterator[str]:
    workers = [row for board in boards for row in rows(board) if row.pid]
    counts: Counter[str] = Counter()
    for worker in workers:
        counts.update(worker.counters())
    yield from family(
        "fastwsgi_lead_changes_total",
        "counter",
        "Times that another thread took the lead of a worker's loop.",
        {'how="taken"': counts["lead_taken"], 'how="passed"': counts["lead_passed"]},
    )
    yield from family(
        "fastwsgi_worker_resident_memory_bytes",
        "gauge",
        "Memory of each worker, pages that it shares counted in full.",
        {f'pid="{worker.pid}"': rss(worker.pid, root) or 0 for worker in workers},
    )


def rows(board: "Board") -> "Iterator[Row]":
    return map(board.row, range(board.workers))


def family(name: str, kind: str, help: str, samples: Mapping[str, float]) -> Iterator[str]:
    """One metric, with the samples by their labels."""
    yield f"# HELP {name} {help}\n# TYPE {name} {kind}\n"
    for labels, value in samples.items():
        yield f"{name}{{{labels}}} {value:g}\n" if labels else f"{name} {value:g}\n"
