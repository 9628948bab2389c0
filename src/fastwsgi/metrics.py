"""What a server has counted, as text for Prometheus (exposition format 0.0.4).

    exposition(boards: Sequence[Board], root: Path = ROOT, certificates=()) -> bytes    # with CONTENT_TYPE

docs/metrics.md says what each metric means.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fastwsgi import __version__, resources
from fastwsgi._refusals import REFUSALS
from fastwsgi._stats import TIME_BOUNDS, totals
from fastwsgi.resources import ROOT

if TYPE_CHECKING:
    from fastwsgi._stats import Board, Totals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# The last part of a name, its labels, and the value.
Sample: TypeAlias = tuple[str, Mapping[str, object], float]

PHASES = ("head", "content", "queue", "gil", "application", "sending", "delivery")
BOUNDS = (*map(repr, TIME_BOUNDS), "+Inf")


def exposition(
    boards: "Sequence[Board]", root: Path = ROOT, certificates: Iterable[tuple[str, str, float]] = ()
) -> bytes:
    """The metrics of the server whose generations have these boards; `root`: where /proc and /sys are.

    certificates: names, files, and when they end.
    """
    found = totals(boards)
    families = (*of_requests(found), *of_connections(found), *of_workers(found), *of_tls(certificates))
    return "".join((*families, *of_processes(boards, root), *of_host(root))).encode()


# ---- the families ----


def of_requests(found: "Totals") -> Iterator[str]:
    seen = {method for (method, _), number in found.requests.items() if number} | {"GET"}
    yield family(
        "fastwsgi_requests_total",
        "counter",
        "Requests that are over, answered by the application or by the server itself.",
        (
            ("", {"method": method, "status": status}, number)
            for (method, status), number in found.requests.items()
            if method in seen
        ),
    )
    yield family(
        "fastwsgi_request_duration_seconds",
        "histogram",
        "Time from the complete request to the end of the application's part in it.",
        histogram({}, *found.times["all"]),
    )
    yield family(
        "fastwsgi_request_phase_seconds",
        "histogram",
        "Where the time of these requests went.",
        (sample for phase in PHASES for sample in histogram({"phase": phase}, *found.times[phase])),
    )
    yield counter("fastwsgi_application_errors", "Requests whose application raised.", found.failed)
    yield family(
        "fastwsgi_refusals_total",
        "counter",
        "Requests that the server refused by itself.",
        (
            ("", {"reason": name.removeprefix("REFUSAL_").lower(), "status": REFUSALS[name][0]}, number)
            for name, number in found.refused.items()
        ),
    )
    yield counter("fastwsgi_requests_queued", "Requests that had to wait for a thread.", found.queued)
    yield counter(
        "fastwsgi_requests_revoked", "Requests that were taken away from their threads.", found.revoked
    )
    yield labelled(
        "fastwsgi_timeouts_total",
        "counter",
        "Times that something took longer than its option allows.",
        "waiting_for",
        {"application": found.timeouts, **found.expired},
    )
    yield labelled(
        "fastwsgi_clients_lost_total",
        "counter",
        "Clients that left before they had their answer.",
        "during",
        {"queue": found.left_queued, "exchange": found.lost_clients},
    )
    yield counter("fastwsgi_received_bytes", "Octets of requests.", found.received)
    yield counter("fastwsgi_sent_bytes", "Octets of responses.", found.sent)


def of_connections(found: "Totals") -> Iterator[str]:
    yield labelled(
        "fastwsgi_connections", "gauge", "Connections, by what they are at.", "state", found.connections
    )
    yield counter("fastwsgi_connections_accepted", "Connections that were accepted.", found.accepted)
    yield counter(
        "fastwsgi_accepts_yielded", "Times that a worker left accepting to another one.", found.yielded
    )
    yield labelled(
        "fastwsgi_tls_handshakes_total", "counter", "TLS handshakes that are over.", "how", found.handshakes
    )


def of_tls(certificates: Iterable[tuple[str, str, float]]) -> Iterator[str]:
    samples = [("", {"name": name, "file": file}, ends) for name, file, ends in certificates]
    if samples:
        help = "When certificates end, in seconds since 1970."
        yield family("fastwsgi_certificate_end_seconds", "gauge", help, samples)


def of_workers(found: "Totals") -> Iterator[str]:
    yield gauge("fastwsgi_threads", "Threads that run the application.", found.threads)
    yield gauge("fastwsgi_threads_busy", "Those of them that have a request.", found.busy)
    yield counter("fastwsgi_threads_lost", "Threads given up, as they did not come back.", found.lost_threads)
    yield labelled(
        "fastwsgi_lead_changes_total",
        "counter",
        "Times that another thread took the lead of a worker's loop, or was passed it.",
        "how",
        {"taken": found.lead_taken, "passed": found.lead_passed},
    )
    yield counter("fastwsgi_lock_waits", "Times that a thread waited for its crew's lock.", found.lock_waits)
    yield counter("fastwsgi_lock_wait_seconds", "How long that took in all.", found.lock_wait_seconds)
    yield labelled("fastwsgi_workers", "gauge", "Processes that serve.", "state", found.workers)
    yield labelled(
        "fastwsgi_workers_ended_total",
        "counter",
        "Workers that have ended, by what they were at.",
        "state",
        found.ended,
    )
    yield gauge("fastwsgi_start_time_seconds", "When the server started, since 1970.", found.began)
    yield family(
        "fastwsgi_build_info", "gauge", "The version of fastwsgi.", [("", {"version": __version__}, 1)]
    )


def of_processes(boards: "Sequence[Board]", root: Path) -> Iterator[str]:
    pids = [row.pid for board in boards for row in map(board.row, range(board.workers)) if row.pid]
    for name, help, measure in (
        ("resident", "Memory of a worker, pages that it shares counted in full.", resources.rss),
        ("proportional", "Memory of a worker, pages shared by n counted as 1/n.", resources.pss),
    ):
        sizes = {pid: measure(pid, root) for pid in pids}
        yield labelled(
            f"fastwsgi_worker_{name}_memory_bytes",
            "gauge",
            help,
            "pid",
            {str(pid): size for pid, size in sizes.items() if size is not None},
        )


def of_host(root: Path) -> Iterator[str]:
    cpus, memory = resources.find_cpus(root), resources.find_memory(root)
    yield gauge(
        "fastwsgi_cpu_limit_cores", "Processors that this host or container may keep busy.", cpus.cores
    )
    throttled = resources.find_throttling(root)
    if throttled is not None:
        yield counter(
            "fastwsgi_cpu_throttled_seconds", "Time that this container was kept waiting.", throttled
        )
    yield gauge("fastwsgi_memory_limit_bytes", "Memory that this host or container may use.", memory.size)
    use = resources.find_memory_use(root)
    if use is not None:
        yield gauge("fastwsgi_memory_used_bytes", "Memory that this container uses.", use.used)
        yield gauge(
            "fastwsgi_memory_cache_bytes", "Content of files in that, which the kernel takes back.", use.cache
        )
    wait = resources.find_memory_wait(root)
    if wait is not None:
        yield gauge(
            "fastwsgi_memory_pressure_ratio",
            "Share of the last ten seconds in which processes had to wait for memory.",
            wait.share,
        )
        yield counter(
            "fastwsgi_memory_pressure_seconds", "Time that processes had to wait for memory.", wait.seconds
        )


# ---- the format ----


def family(name: str, kind: str, help: str, samples: Iterable[Sample]) -> str:
    """One metric: what it is, and its samples."""
    lines = [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
    for suffix, labels, value in samples:
        text = ",".join(f'{label}="{content}"' for label, content in labels.items())
        lines.append(f"{name}{suffix}{{{text}}} {value!r}" if text else f"{name}{suffix} {value!r}")
    return "\n".join([*lines, ""])


def counter(name: str, help: str, value: float) -> str:
    return family(f"{name}_total", "counter", help, [("", {}, value)])


def gauge(name: str, help: str, value: float) -> str:
    return family(name, "gauge", help, [("", {}, value)])


def labelled(name: str, kind: str, help: str, label: str, values: Mapping[str, float]) -> str:
    """A metric with one label."""
    return family(name, kind, help, (("", {label: word}, value) for word, value in values.items()))


def histogram(labels: Mapping[str, object], counts: Sequence[int], seconds: float) -> Iterator[Sample]:
    """Its samples; the counts of buckets come to cumulative ones."""
    for bound, number in zip(BOUNDS, itertools.accumulate(counts), strict=True):
        yield "_bucket", {**labels, "le": bound}, number
    yield "_sum", labels, seconds
    yield "_count", labels, sum(counts)
