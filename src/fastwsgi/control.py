"""What a server can be asked, and told, while it runs: HTTP and JSON at the control socket.

    GET /stats      all that is known of it: `describe`
    GET /metrics    the same for Prometheus
    POST /reload    as HUP does
    POST /stop      as TERM does; /stop?now as QUIT does
    POST /end       take a request away from its thread: {"worker": PID, "thread": N, "number": N}

These are WSGI applications, which a monitor serves. They read the boards, and send signals to the supervisor.
"""

import json
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastwsgi import __version__, resources
from fastwsgi._stats import TIME_BOUNDS, Board, Row, row_state_t, totals
from fastwsgi.metrics import CONTENT_TYPE, exposition
from fastwsgi.resources import ROOT

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

STATES: dict[int, str] = {row_state_t.ROW_SERVING: "serving", row_state_t.ROW_DRAINING: "leaving"}

REASONS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
}


@dataclass(frozen=True, slots=True)
class View:
    """The server as its supervisor knows it at a moment. What changes all the time is in the boards."""

    pid: int
    application: str
    addresses: tuple[str, ...]
    began: float  # of the monotonic clock
    generation: int
    boards: tuple[tuple[int, Board], ...]  # with the numbers of their generations
    wanted: int  # workers
    reloads: int  # that are over, well or not
    failure: str  # why the last of them has changed nothing; empty: it did what it should
    is_reloading: bool
    is_stopping: bool
    certificates: tuple[tuple[str, str, float], ...] = ()  # names, files, and when they end: since 1970

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Of all workers that there are, with their generations."""
        for generation, board in self.boards:
            for index in range(board.workers):
                row = board.row(index)
                if row.pid:
                    yield generation, row


def describe(view: View) -> dict[str, Any]:
    """All that is known of a server, for JSON. Times are in seconds, sizes in octets."""
    now = time.monotonic()
    workers: list[dict[str, Any]] = []
    requests: list[dict[str, Any]] = []
    for generation, row in view.rows():
        pid = row.pid
        workers.append(
            {
                "pid": pid,
                "generation": generation,
                # One whose first request holds the GIL has not come to say that it serves.
                "state": STATES.get(row.state, "starting"),
                "age": now - row.born / 1e9,
                "silent": now - row.beat / 1e9 if row.beat else None,
                "memory": resources.rss(pid),
                "leaks": leaks_of(row),
                **row.counters(),
            }
        )
        requests += [{"worker": pid, **one._asdict()} for one in row.running()]
    requests.sort(key=lambda one: -one["age"])
    return {
        "version": __version__,
        "pid": view.pid,
        "application": view.application,
        "addresses": view.addresses,
        "uptime": now - view.began,
        "generation": view.generation,
        "wanted": view.wanted,
        "reloads": view.reloads,
        "failure": view.failure,
        "reloading": view.is_reloading,
        "stopping": view.is_stopping,
        # How long requests took that have ended, those in the last place longer than the last bound.
        "times": {"bounds": TIME_BOUNDS, "counts": totals(board for _, board in view.boards).times["all"][0]},
        "certificates": [
            {"name": name, "file": file, "ends": ends} for name, file, ends in view.certificates
        ],
        "host": describe_host(),
        "workers": workers,
        "requests": requests,
    }


def leaks_of(row: Row) -> dict[str, Any] | None:
    """What a worker with --leak-report knows; None before it does."""
    text = row.leaks
    return json.loads(text) if text else None


def describe_host(root: Path = ROOT) -> dict[str, Any]:
    """What this host or container has; where there is a limit, what is used of it, too."""
    memory, wait = resources.find_memory(root), resources.find_memory_wait(root)
    use = resources.find_memory_use(root) if memory.is_limit else None
    return {
        "cpus": resources.find_cpus(root).cores,
        "memory": memory.size,
        "used": use.used if use is not None else None,
        "cache": use.cache if use is not None else None,
        "waited": wait.share if wait is not None else None,
    }


class Metrics:
    """The application at --metrics."""

    def __init__(self, view: View) -> None:
        self._view = view

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/metrics":
            return answer(start_response, 404, {"error": "there is /metrics here"})
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return answer(start_response, 405, {"error": "GET it"})
        content = exposition([board for _, board in self._view.boards], certificates=self._view.certificates)
        start_response("200 OK", [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(content)))])
        return [content]


class Control:
    """The application at the control socket."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._metrics = Metrics(view)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path == "/metrics":
            return self._metrics(environ, start_response)
        if path not in ("/stats", "/end", "/reload", "/stop"):
            return answer(start_response, 404, {"error": f"there is no {path}"})
        if method != ("GET" if path == "/stats" else "POST"):
            return answer(start_response, 405, {"error": f"{method} is not for {path}"})
        if path == "/stats":
            return answer(start_response, 200, describe(self._view))
        if path == "/end":
            return answer(start_response, *self._end(environ))
        if path == "/reload":
            number = signal.SIGHUP
        else:
            number = signal.SIGQUIT if environ["QUERY_STRING"] == "now" else signal.SIGTERM
        if os.getppid() != self._view.pid:
            return answer(start_response, 409, {"error": "the supervisor is gone"})
        os.kill(self._view.pid, number)
        return answer(
            start_response, 202, {"reloads": self._view.reloads, "reloading": self._view.is_reloading}
        )

    def _end(self, environ: "WSGIEnvironment") -> tuple[int, dict[str, Any]]:
        """Condemn an exchange; the leader of its worker takes it away within a second."""
        try:
            said = json.load(environ["wsgi.input"])
            pid, thread, number = (int(said[name]) for name in ("worker", "thread", "number"))
            is_found = any(row.condemn(thread, number) for _, row in self._view.rows() if row.pid == pid)
        except (ValueError, TypeError, KeyError, OverflowError):
            return 400, {"error": "say worker, thread and number, as /stats has them"}
        if is_found:
            return 202, {}
        return 409, {"error": "this request does not run any more"}


def answer(start_response: "StartResponse", status: int, said: object) -> Iterable[bytes]:
    content = json.dumps(said).encode() + b"\n"
    start_response(
        f"{status} {REASONS[status]}",
        [("Content-Type", "application/json"), ("Content-Length", str(len(content)))],
    )
    return [content]
