"""What operators type while a server runs: `fastwsgi top`, `stats`, `stacks`, `leaks`, `reload` and `stop`.

They find the server by its control socket, and speak HTTP with it. Nothing of a server is loaded here.
"""

import contextlib
import glob
import http.client
import json
import os
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastwsgi.blackbox import show_age
from fastwsgi.errors import ConfigError
from fastwsgi.process import runtime_directories
from fastwsgi.resources import show_size

USAGE = {
    "top": "top [--control-socket FILE]",
    "stats": "stats [--json] [--control-socket FILE]",
    "stacks": "stacks [PID] [--control-socket FILE]",
    "leaks": "leaks [--control-socket FILE]",
    "reload": "reload [--control-socket FILE]",
    "stop": "stop [--now] [--control-socket FILE]",
}

VARIABLE = "FASTWSGI_CONTROL_SOCKET"

# What an answer may take: the process that gives it may have to be started first.
PATIENCE = 10.0
# Between two questions whether it is done.
PAUSE = 0.1
QUANTILES = (("p50", 0.5), ("p99", 0.99))

# By then a request that goes on was looked at.
SOON = 3.0
# A socket file that nobody listens behind for so long is left from a server that was killed.
STALE = 60.0


class GoneError(Exception):
    """The server does not answer."""


class Server:
    """A running server, behind its control socket."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, content: object = None) -> Any:
        """The answer; raise GoneError if there is none, ConfigError if it says that something is wrong.

        A kept connection may just have ended: what only looks is asked once more.
        """
        is_fresh = self._connection is None
        try:
            return self._ask(method, path, content)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if is_fresh or method != "GET":
                raise GoneError(describe(error)) from None
        try:
            return self._ask(method, path, content)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise GoneError(describe(error)) from None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, method: str, path: str, content: object) -> Any:
        if self._connection is None:
            self._connection = UnixConnection(self.path)
        self._connection.request(method, path, None if content is None else json.dumps(content))
        answer = self._connection.getresponse()
        said = json.loads(answer.read())
        if answer.status >= 400:
            raise ConfigError(str(said["error"]))
        return said


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


def describe(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such socket"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


# ---- which server ----


def find(path: str | None) -> Server:
    """The server at a path, or the only one that is found; ConfigError where there is none, or a choice."""
    path = path or os.environ.get(VARIABLE)
    if path in ("auto", "none"):
        path = None
    if path is not None:
        return Server(path)
    running = list(found())
    if not running:
        raise ConfigError(
            "no running server is found; give its --control-socket FILE (and ask as the user who runs it)"
        )
    if len(running) > 1:
        lines = [f"  --control-socket {one.path}  {introduce(one)}" for one in running]
        raise ConfigError("\n".join(["several servers run here; choose one:", *lines]))
    return running[0]


def found() -> Iterator[Server]:
    """Servers that this user may ask and that listen."""
    seen = set()
    places = runtime_directories()
    if os.geteuid() == 0:
        places += glob.glob("/run/user/*")
    for directory in places:
        for path in sorted(glob.glob(os.path.join(glob.escape(directory), "fastwsgi-*.sock"))):
            with contextlib.suppress(OSError):
                status = os.stat(path)
                is_ours = os.geteuid() in (0, status.st_uid)
                if not (is_ours and stat.S_ISSOCK(status.st_mode)) or (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
                if listens(path):
                    yield Server(path)
                elif time.time() - status.st_mtime > STALE:
                    os.unlink(path)


def listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except BlockingIOError:  # so many wait that one more cannot: it is there
            pass
        return True


def introduce(server: Server) -> str:
    """Which one it is."""
    try:
        stats = server.ask("GET", "/stats")
    except (GoneError, ConfigError) as error:
        return f"does not answer: {error}"
    finally:
        server.close()
    return plain(f"process {stats['pid']}: {stats['application']} at {', '.join(stats['addresses'])}")


# ---- commands ----


@dataclass(slots=True)
class Words:
    """What stands behind the command."""

    control_socket: str | None = None
    json: bool = False
    now: bool = False
    pid: int | None = None


def parse(command: str, words: Sequence[str]) -> Words | None:
    """None: help is wanted."""
    given, rest = Words(), list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word in ("-h", "--help"):
            return None
        if name == "--control-socket":
            if not equals:
                value = rest.pop(0) if rest else ""
            if not value:
                raise ConfigError("--control-socket needs a value: FILE")
            given.control_socket = value
        elif word == "--json" and command == "stats":
            given.json = True
        elif word == "--now" and command == "stop":
            given.now = True
        elif command == "stacks" and word.isascii() and word.isdecimal() and given.pid is None:
            given.pid = int(word)
        else:
            raise ConfigError(f"fastwsgi {command} takes no {word}: fastwsgi {USAGE[command]}")
    return given


def run(command: str, words: Sequence[str]) -> tuple[int, str]:
    """Do what was typed; return the exit code and what to print. ConfigError if it cannot be done."""
    given = parse(command, words)
    if given is None:
        return 0, f"Usage: fastwsgi {USAGE[command]}\n"
    server = find(given.control_socket)
    try:
        if command == "reload":
            return reload(server)
        if command == "stop":
            return stop(server, given.now)
        stats = server.ask("GET", "/stats")
        if command == "top":
            from fastwsgi.top import show

            return 0, show(server, stats)
    except GoneError as error:
        raise ConfigError(f"{server.path}: {error}") from None
    finally:
        server.close()
    if command == "stacks":
        return 0, stacks_text(stats, given.pid)
    if command == "leaks":
        return 0, leaks_text(stats["workers"])
    return 0, json.dumps(stats, indent=2) + "\n" if given.json else stats_text(stats)


def reload(server: Server) -> tuple[int, str]:
    """Have it reload, and wait until it is known how that went."""
    begun = time.monotonic()
    before = server.ask("POST", "/reload")
    # One that goes on already comes to its end first.
    expected = before["reloads"] + (2 if before["reloading"] else 1)
    while True:
        try:
            stats = server.ask("GET", "/stats")
        except GoneError:
            raise ConfigError("the server ended while it reloaded") from None
        if stats["stopping"]:
            raise ConfigError("the server is stopping")
        if stats["reloads"] >= expected:
            break
        time.sleep(PAUSE)
    if stats["failure"]:
        raise ConfigError(f"not reloaded, the server goes on as before: {plain(stats['failure'])}")
    serving = sum(worker["state"] == "serving" for worker in stats["workers"])
    took = show_age(time.monotonic() - begun)
    return 0, f"reloaded in {took}: generation {stats['generation']} serves with {count(serving, 'worker')}\n"


def stop(server: Server, now: bool) -> tuple[int, str]:
    """Have it stop, and wait until it has."""
    begun = time.monotonic()
    pid = server.ask("GET", "/stats")["pid"]
    with contextlib.suppress(GoneError):  # it may be quick
        server.ask("POST", "/stop?now" if now else "/stop")
    server.close()
    while listens_still(server.path):
        time.sleep(PAUSE)
    return 0, f"process {pid} stopped in {show_age(time.monotonic() - begun)}\n"


def listens_still(path: str) -> bool:
    try:
        return listens(path)
    except OSError:
        return False


# ---- text ----


def stats_text(stats: dict[str, Any]) -> str:
    """What there is to know, for people."""
    number = sum(stats["times"]["counts"])
    lines = [
        headline(stats),
        subject(stats),
        *([f"the last reload has changed nothing: {stats['failure']}"] if stats["failure"] else []),
        host(stats["host"]),
        f"{number} request{'' if number == 1 else 's'} since the start: {latencies(stats)}",
        "",
        f"{'WORKER':>8}  GEN  {'STATE':8}  {'UP':>8}  {'MEMORY':>9}  {'REQUESTS':>9}  {'RUNNING':>7}  "
        f"{'WAITING':>7}  {'CONNECTIONS':>11}  TIMEOUTS",
    ]
    for worker in stats["workers"]:
        memory = show_size(worker["memory"]) if worker["memory"] is not None else "?"
        lines.append(
            f"{worker['pid']:8}  {worker['generation']:3}  {worker['state']:8}  "
            f"{show_age(worker['age']):>8}  {memory:>9}  {worker['requests']:9}  {worker['exchanges']:7}  "
            f"{worker['waiting']:7}  {worker['connections']:11}  {worker['timeouts']:8}"
        )
    lines.append("")
    if stats["requests"]:
        lines += [*requests_text(stats["requests"])]
    else:
        lines.append("no requests are running")
    return plain("\n".join(lines)) + "\n"


def headline(stats: dict[str, Any]) -> str:
    """Version, age, and how far things are."""
    serving = sum(worker["state"] == "serving" for worker in stats["workers"])
    words = [
        f"fastwsgi {stats['version']}",
        f"process {stats['pid']}",
        f"up {show_age(stats['uptime'])}",
        f"{serving} of {count(stats['wanted'], 'worker')}",
    ]
    if stats["stopping"]:
        words.append("stopping")
    elif stats["reloading"]:
        words.append("reloading")
    elif stats["failure"]:
        words.append("reload failed")
    return ", ".join(words)


def subject(stats: dict[str, Any]) -> str:
    """What it serves, and where."""
    return f"generation {stats['generation']}: {stats['application']} at {', '.join(stats['addresses'])}"


def host(host: dict[str, Any]) -> str:
    """What it may use, and what is used."""
    words = []
    if host["used"] is not None:
        words += [
            f"{show_size(host['used'] - host['cache'])} used",
            f"{show_size(host['cache'])} of page cache",
        ]
    if host["waited"] is not None:
        words.append(f"waited for {host['waited']:.1%} of the last 10 s")
    memory = f"memory {show_size(host['memory'])}{': ' if words else ''}{', '.join(words)}"
    return f"CPUs {host['cpus']:.3g}, {memory}"


def latencies(stats: dict[str, Any], since: dict[str, Any] | None = None) -> str:
    """The median and the 99th percentile of the requests that have ended; `since`: after that."""
    bounds, counts = stats["times"]["bounds"], stats["times"]["counts"]
    if since is not None:
        counts = [now - before for now, before in zip(counts, since["times"]["counts"], strict=True)]
    return "  ".join(f"{name} {quantile(bounds, counts, share)}" for name, share in QUANTILES)


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> str:
    """The time below which such a share is, about: each bucket is twice as wide as the one before."""
    left = share * sum(counts)
    if left <= 0:
        return "-"
    for number, (count, upper) in enumerate(zip(counts, bounds, strict=False)):
        if count >= left:
            lower = bounds[number - 1] if number else 0.0
            return show_latency(lower + (upper - lower) * left / count)
        left -= count
    return f"over {show_latency(bounds[-1])}"


def show_latency(seconds: float) -> str:
    return f"{seconds * 1000:.2g} ms" if seconds < 0.0995 else show_age(seconds)


def requests_text(requests: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A table of what runs, one line each."""
    yield f"{'AGE':>8}  {'WORKER':>8}  THREAD  {'PHASE':22}  {'CLIENT':15}  REQUEST"
    for one in requests:
        known_as = f"  ({one['request_id']})" if one["request_id"] else ""
        yield (
            f"{show_age(one['age']):>8}  {one['worker']:8}  {one['thread']:6}  {one['phase']:22}  "
            f"{one['client']:15}  {one['line']}{known_as}"
        )


def stacks_text(stats: dict[str, Any], pid: int | None) -> str:
    """Where the running requests were when they were last looked at; a place that several share, once."""
    if pid is not None and all(worker["pid"] != pid for worker in stats["workers"]):
        raise ConfigError(f"no worker has the number {pid}; fastwsgi stats lists them")
    places: dict[object, list[dict[str, Any]]] = {}
    for one in stats["requests"]:
        if pid in (None, one["worker"]):
            key = one["stack"] or (one["worker"], one["thread"])
            places.setdefault(key, []).append(one)
    parts = [crowd_text(crowd) if len(crowd) > 1 else stack_text(crowd[0]) for crowd in places.values()]
    return "\n".join(parts) if parts else "no requests are running\n"


def who_and_how_long(one: dict[str, Any]) -> str:
    """A request, where it runs, and since when."""
    known_as = f" ({one['request_id']})" if one["request_id"] else ""
    return (
        f"{one['line']} for {one['client']}{known_as}, in thread {one['thread']} of worker {one['worker']}, "
        f"{one['phase']} for {show_age(one['age'])}"
    )


def crowd_text(crowd: Sequence[dict[str, Any]]) -> str:
    """Requests that are at the same place, and its stack."""
    lines = [f"{who_and_how_long(one)}, looked at {show_age(one['stack_age'])} ago" for one in crowd]
    return plain("\n".join([*lines, f"these {len(crowd)} were at", crowd[0]["stack"].rstrip()])) + "\n"


def stack_text(one: dict[str, Any]) -> str:
    """One request, and its stack."""
    head = who_and_how_long(one)
    if not one["stack"]:
        why = "that is done once a request is older than a second"
        if one["age"] > SOON:
            why = "the main thread of its worker does not get to it,\n  as when C code holds the GIL"
        return plain(f"{head}\n  not looked at yet: {why}\n")
    return plain(f"{head}; {show_age(one['stack_age'])} ago it was at\n{one['stack'].rstrip()}\n")


def leaks_text(workers: Sequence[dict[str, Any]]) -> str:
    """What requests keep, by route, in all workers together; how each worker grew."""
    reports = [(worker, worker["leaks"]) for worker in workers if worker["leaks"] is not None]
    if not reports:
        raise ConfigError("no worker samples memory: serve with --leak-report")
    lines = []
    for worker, report in reports:
        line = f"worker {worker['pid']}: {count(report['samples'], 'sample')}"
        if report["too_large"]:
            line += f", {report['too_large']} more were too large"
        if "growth" in report:
            grown = report["growth"]
            before, now = show_size(grown["before"]), show_size(grown["now"])
            line += f"; from {before} to {now} in {count(grown['requests'], 'request')}"
        lines.append(line)
    routes: dict[str, dict[str, Any]] = {}
    for _, report in reports:
        for one in report["routes"]:
            sums = routes.setdefault(one["route"], {"requests": 0, "samples": 0, "total": 0, "where": {}})
            sums["requests"] += one["requests"]
            sums["samples"] += one["samples"]
            if one["leaks"]:
                sums["total"] += one["total"]
                sums["where"].update(dict.fromkeys(one["where"]))
    lines += ["", f"{'A REQUEST':>10}  {'SO FAR':>10}  {'REQUESTS':>9}  {'SAMPLES':>7}  ROUTE"]
    for route, one in sorted(routes.items(), key=lambda item: -item[1]["total"]):
        each = total = "-"
        if one["total"]:
            each, total = show_size(one["total"] / max(one["requests"], 1)), show_size(one["total"])
        where = f", allocated at {', '.join(one['where'])}" if one["where"] else ""
        lines.append(f"{each:>10}  {total:>10}  {one['requests']:9}  {one['samples']:7}  {route}{where}")
    if not routes:
        lines.append("no route has enough samples yet")
    return plain("\n".join(lines)) + "\n"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def plain(text: str) -> str:
    """Without anything that a terminal might take for a command."""
    return "".join(one if one == "\n" or " " <= one <= "~" else escaped(one) for one in text)


def escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
