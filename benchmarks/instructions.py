"""Counts what a request costs in instructions and in system calls: figures that a busy machine does not move.

    python benchmarks/instructions.py [--servers a,b] [--requests N] [--output DIR]

Every server gets WARM requests and, later, as many and N more, by a client that sends the same in the same
order each time. The difference of what callgrind (or strace) counted, divided by N, is the cost of one
request: what connections, warm caches and the tools themselves cost is in both and goes out. Kernel
instructions are not counted.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import machine
from harness.cases import CASES, Case
from harness.load import check_answer
from harness.process import START_SECONDS, Processes, ServerFailedError, free_port, started
from harness.report import table
from harness.servers import SERVERS, Server, Start, make_files, server_environment

DEFAULT_SERVERS = ("fastwsgi-t1", "fastwsgi", "fastwsgi-t32", "bjoern", "ceiling-app", "ceiling-fixed")
# Those that are one process of one program, which is what the tools can follow from the start.
POSSIBLE_SERVERS = (
    *DEFAULT_SERVERS,
    "fastwsgi-log",
    "fastwsgi-json",
    "fastwsgi-id",
    "fastwsgi-edge",
    "fastwsgi-pypi",
    "waitress",
    "wsgiref",
)
MEASURED_CASES = ("hello", "browser")
CONNECTIONS = (1, 16)
WARM = 2000
VALGRIND_START_SECONDS = 120.0
# The parts told apart: each is the most inclusive function whose name in the compiled module matches.
PARTS = {"parser": r"fastwsgi\w*_parser_parser_feed", "environ": r"fastwsgi\w*_environ_"}
NEAR = 1.03


@dataclass
class Cost:
    """One server, case and number of connections; all per request."""

    instructions: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    system_calls: dict[str, float] = field(default_factory=dict)

    @property
    def all_system_calls(self) -> float | None:
        return sum(self.system_calls.values()) if self.system_calls else None


@dataclass
class Count:
    """What a tool has counted up to some point."""

    total: int
    named: dict[str, int]


def send_requests(port: int, octets: bytes, connections: int, count: int) -> None:
    """Send count requests over connections: one on each, then the answers of all, and again."""
    opened = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(connections)]
    try:
        for done in range(0, count, connections):
            turn = opened[: count - done]
            for connection in turn:
                connection.sendall(octets)
            for connection in turn:
                _receive_answer(connection)
    finally:
        for connection in opened:
            connection.close()
    # The server notices the ends on its own time, which belongs to this count and not to the next.
    time.sleep(0.2)


def _receive_answer(connection: socket.socket) -> None:
    received = b""
    while True:
        block = connection.recv(65536)
        if not block:
            raise ServerFailedError("closed a connection that was to be kept")
        received += block
        head, end, content = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if end and length and len(content) >= int(length[1]):
            return


class Callgrind:
    """A server that runs under callgrind, and the counts of it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "callgrind.out"
        self._dumps = 0

    def wrap(self, command: list[str]) -> list[str]:
        return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={self._file}", *command]

    def zero(self, pid: int) -> None:
        self._control("--zero", pid)

    def count(self, pid: int) -> Count:
        """What was counted since zero() or the last count."""
        self._control("--dump", pid)
        self._dumps += 1
        dump = f"{self._file}.{self._dumps}"
        summary = re.search(r"^summary: (\d+)", Path(dump).read_text(errors="replace"), re.MULTILINE)
        if not summary:
            raise ServerFailedError("callgrind wrote no summary")
        annotated = subprocess.run(
            ["callgrind_annotate", "--inclusive=yes", "--threshold=100", "--auto=no", dump],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        named: dict[str, int] = {}
        for line in annotated.stdout.splitlines():
            found = re.match(r"\s*([\d,]+) \([^)]*\)\s+\S*?:(\S+)", line)
            for part, pattern in PARTS.items():
                if found and re.search(pattern, found[2]):
                    named[part] = max(named.get(part, 0), int(found[1].replace(",", "")))
        return Count(int(summary[1]), named)

    def _control(self, what: str, pid: int) -> None:
        command = ["callgrind_control", what, str(pid)]
        subprocess.run(command, capture_output=True, timeout=60, check=True)


class Strace:
    """The system calls of a running server, all its threads, from the moment this is made."""

    def __init__(self, pid: int, folder: Path) -> None:
        self._summary = folder / "strace.txt"
        self._strace = subprocess.Popen(
            ["strace", "-f", "-c", "-o", str(self._summary), "-p", str(pid)],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert self._strace.stderr
        if "attached" not in self._strace.stderr.readline():
            raise ServerFailedError("strace may not attach")
        # The first line tells of the first thread; the others follow at once.
        time.sleep(0.3)

    def count(self) -> Count:
        self._strace.send_signal(signal.SIGINT)
        self._strace.communicate(timeout=30)
        named: dict[str, int] = {}
        for line in self._summary.read_text().splitlines():
            found = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", line)
            if found and found[2] != "total":
                named[found[2]] = int(found[1])
        return Count(sum(named.values()), named)

    def kill(self) -> None:
        if self._strace.poll() is None:
            self._strace.kill()
            self._strace.wait()


def _per_request(warm: Count, full: Count, requests: int) -> tuple[float, dict[str, float]]:
    named = {name: (count - warm.named.get(name, 0)) / requests for name, count in full.named.items()}
    return (full.total - warm.total) / requests, named


class Counter:
    """Goes through servers and cases."""

    def __init__(self, requests: int, core: int, folder: Path) -> None:
        self.requests = requests
        self.core = core
        self.folder = folder

    def cost(self, case: Case, server: Server) -> dict[int, Cost]:
        costs = {connections: Cost() for connections in CONNECTIONS}
        if shutil.which("valgrind"):
            self._count_instructions(case, server, costs)
        if shutil.which("strace"):
            self._count_system_calls(case, server, costs)
        return costs

    def _start(self, case: Case, server: Server, tool: str) -> tuple[Start, Path]:
        folder = self.folder / f"{case.name}-{server.name}-{tool}"
        folder.mkdir()
        threads = server.threads or case.threads
        start = Start(case.application, free_port(), threads, folder, len(case.content), closes=False)
        return start, folder

    def _count_instructions(self, case: Case, server: Server, costs: dict[int, Cost]) -> None:
        start, folder = self._start(case, server, "callgrind")
        callgrind = Callgrind(folder)
        commands = [callgrind.wrap(command) for command in server.commands(start)]
        with self._started(server, commands, start, VALGRIND_START_SECONDS) as processes:
            check_answer(start.port, case.request, case.content)
            octets = case.request.octets(start.port)
            pid = processes.roots[0].pid
            for connections, cost in costs.items():
                counts = []
                send_requests(start.port, octets, connections, WARM)
                callgrind.zero(pid)
                for count in (WARM, WARM + self.requests):
                    send_requests(start.port, octets, connections, count)
                    counts.append(callgrind.count(pid))
                cost.instructions, cost.parts = _per_request(counts[0], counts[1], self.requests)

    def _count_system_calls(self, case: Case, server: Server, costs: dict[int, Cost]) -> None:
        start, folder = self._start(case, server, "strace")
        with self._started(server, server.commands(start), start, START_SECONDS) as processes:
            check_answer(start.port, case.request, case.content)
            octets = case.request.octets(start.port)
            for connections, cost in costs.items():
                counts = []
                for count in (WARM, WARM + self.requests):
                    strace = Strace(processes.roots[0].pid, folder)
                    try:
                        send_requests(start.port, octets, connections, count)
                        counts.append(strace.count())
                    finally:
                        strace.kill()
                _, named = _per_request(counts[0], counts[1], self.requests)
                cost.system_calls = {name: each for name, each in named.items() if each >= 0.0005}

    def _started(
        self, server: Server, commands: list[list[str]], start: Start, seconds: float
    ) -> AbstractContextManager[Processes]:
        # So that dictionaries are laid out the same in each process.
        environment = {**server_environment(server, self.folder), "PYTHONHASHSEED": "0"}
        return started(commands, start.port, str(self.core), environment, start.folder, seconds)


def case_table(case: str, costs: dict[str, dict[int, Cost]]) -> str:
    rows = [["server", "connections", "instructions", *PARTS, "system calls", "of these"]]
    for server, by_connections in costs.items():
        for connections, cost in by_connections.items():
            calls = sorted(cost.system_calls.items(), key=lambda item: -item[1])
            rows.append(
                [server, str(connections), _number(cost.instructions)]
                + [_number(cost.parts.get(part)) for part in PARTS]
                + [_number(cost.all_system_calls, 3), ", ".join(f"{name} {each:.3f}" for name, each in calls)]
            )
    return f"## {case}\n\n{CASES[case].title}.\n\n{table(rows)}"


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def judge(case: str, costs: dict[str, dict[int, Cost]]) -> list[str]:
    """4 and 32 threads against one, which may cost 3 % more."""
    lines = []
    for server in ("fastwsgi", "fastwsgi-t32"):
        for connections in CONNECTIONS:
            one, many = (costs.get(name, {}).get(connections, Cost()) for name in ("fastwsgi-t1", server))
            figures = {
                "instructions": (many.instructions, one.instructions),
                "system calls": (many.all_system_calls, one.all_system_calls),
            }
            for what, (above, below) in figures.items():
                if above and below:
                    verdict = "reached" if above / below <= NEAR else "**NOT reached**"
                    text = f"{case}, {connections} connections: {what} of {server} / fastwsgi-t1 <= {NEAR}"
                    lines.append(f"- {verdict}: {text}: {above / below:.3f}")
    return lines


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--servers", default=",".join(DEFAULT_SERVERS), help=", ".join(POSSIBLE_SERVERS))
    parser.add_argument("--requests", type=int, default=10_000, help="requests in the difference (10000)")
    parser.add_argument("--output", type=Path, help="write instructions.md and instructions.json here")
    arguments = parser.parse_args()
    arguments.servers = [name.strip() for name in arguments.servers.split(",") if name.strip()]
    unknown = set(arguments.servers) - set(POSSIBLE_SERVERS)
    if unknown:
        parser.error(f"not possible: {', '.join(sorted(unknown))}; possible: {', '.join(POSSIBLE_SERVERS)}")
    return arguments


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, _end)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    costs: dict[str, dict[str, dict[int, Cost]]] = {case: {} for case in MEASURED_CASES}
    problems: list[str] = []
    versions = {name: SERVERS[name].version() for name in arguments.servers}
    with tempfile.TemporaryDirectory(prefix="fastwsgi-bench-") as folder:
        make_files(Path(folder))
        counter = Counter(arguments.requests, cores[-1], Path(folder))
        for case in MEASURED_CASES:
            for name, version in versions.items():
                try:
                    if version is None:
                        raise ServerFailedError("missing")
                    costs[case][name] = counter.cost(CASES[case], SERVERS[name])
                except (ServerFailedError, OSError, subprocess.SubprocessError) as error:
                    problems.append(f"- {case}, {name}: {error}")
    parts = [case_table(case, costs[case]) for case in MEASURED_CASES]
    targets = [line for case in MEASURED_CASES for line in judge(case, costs[case])]
    if targets:
        parts.append("## Targets\n\n" + "\n".join(targets))
    if problems:
        parts.append("No figures from:\n\n" + "\n".join(problems))
    text = "\n\n".join(parts)
    print(text)
    if arguments.output:
        _write(arguments.output, text, costs, versions)
    return 0


def _write(
    folder: Path,
    text: str,
    costs: dict[str, dict[str, dict[int, Cost]]],
    versions: dict[str, str | None],
) -> None:
    date = datetime.datetime.now(datetime.UTC).isoformat(" ", "minutes")
    facts = {"date": date, "commit": machine.commit(), **machine.describe()}
    listed = "\n".join(f"- {name}: {value}" for name, value in {**facts, **versions}.items())
    folder.mkdir(parents=True, exist_ok=True)
    head = f"# Instructions and system calls per request\n\n{listed}\n\n"
    (folder / "instructions.md").write_text(f"{head}{text}\n", encoding="utf-8")
    plain = {
        case: {
            server: {connections: asdict(cost) for connections, cost in by_connections.items()}
            for server, by_connections in by_server.items()
        }
        for case, by_server in costs.items()
    }
    written = {"facts": facts, "versions": versions, "costs": plain}
    (folder / "instructions.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
