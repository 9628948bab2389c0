"""Compares fastwsgi with other WSGI servers, each on one core, and holds it against its targets.

python benchmarks/run.py [--quick] [--servers a,b] [--cases x,y] [--rounds N] [--seconds S] [--output DIR]
"""

import argparse
import datetime
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from apps import plain
from harness import machine, report
from harness.cases import CASES, ONCE, Case, Running
from harness.load import check_answer
from harness.process import ServerFailedError, free_port, started
from harness.results import Results
from harness.servers import (
    PEER_PYTHON,
    SERVERS,
    VENV,
    Server,
    Start,
    missing_tools,
    server_environment,
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short round: that it works, not how fast")
    parser.add_argument("--servers", default="", help=f"of: {', '.join(SERVERS)}")
    parser.add_argument("--cases", default="", help=f"of: {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, help="rounds of each case (3; quick: 1)")
    parser.add_argument("--seconds", type=float, help="length of one measurement (1.5; quick: 0.5)")
    parser.add_argument("--output", type=Path, help="write latest.md, latest.json and the charts here")
    parser.add_argument("--server-core", type=int, default=-1, help="core of the servers (the last)")
    parser.add_argument("--load-core", type=int, default=0, help="core of the load generator (the first)")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3)
    arguments.seconds = arguments.seconds or (0.5 if arguments.quick else 1.5)
    arguments.servers = _names(parser, arguments.servers, list(SERVERS))
    arguments.cases = _names(parser, arguments.cases, list(CASES))
    return arguments


def _names(parser: argparse.ArgumentParser, text: str, known: list[str]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = set(names) - set(known)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return names or known


# A busy machine can spoil a round; a server that cannot run a case fails each time.
GIVE_UP = 2


class Runner:
    """Takes every server of every case through its rounds."""

    def __init__(self, arguments: argparse.Namespace, results: Results, folder: Path) -> None:
        self.arguments = arguments
        self.results = results
        self.folder = folder

    def prepare(self) -> None:
        (self.folder / "file.bin").write_bytes(b"x" * plain.FILE_SIZE)
        if (VENV / "frameworks").exists() and Path(PEER_PYTHON).exists():
            fill = "from apps.django_views import fill_database; fill_database()"
            environment = server_environment(SERVERS["ceiling-app"], self.folder)
            subprocess.run([PEER_PYTHON, "-c", fill], env=environment, check=False)

    def run_case(self, case: Case) -> None:
        rounds = 1 if case.name in ONCE else self.arguments.rounds
        for number in range(rounds):
            for name in case.servers:
                if name in self.arguments.servers:
                    self._run_round(case, SERVERS[name], number)

    def _run_round(self, case: Case, server: Server, number: int) -> None:
        entry = self.results.entry(case.name, server.name)
        if self.results.versions[server.name] is None:
            entry.problems = ["missing"]
            return
        if len(entry.problems) >= GIVE_UP:
            return
        if sys.stderr.isatty():
            text = f"{case.name}: round {number + 1}, {server.name}"
            print("\r" + text.ljust(60), end="", file=sys.stderr, flush=True)
        try:
            entry.rounds.append(self._measure(case, server, number))
        except ServerFailedError as error:
            entry.problems.append(str(error))

    def _measure(self, case: Case, server: Server, number: int) -> dict[str, float]:
        folder = self.folder / f"{case.name}-{server.name}-{number}"
        folder.mkdir()
        closes = ("Connection", "close") in case.request.fields
        threads = server.threads or case.threads
        start = Start(case.application, free_port(), threads, folder, len(case.content), closes)
        core = self.arguments.server_core
        environment = server_environment(server, self.folder)
        with started(server.commands(start), start.port, core, environment, folder) as processes:
            ends = check_answer(start.port, case.request, case.content)
            settings = self.arguments
            running = Running(processes, start.port, folder, settings.seconds, settings.quick, ends)
            try:
                return case.measure(case, running)
            except ServerFailedError:
                # That it ended says more than what was noticed first.
                processes.check_alive()
                raise


def _end(number: int, frame: object) -> None:
    # As an exception, so that the servers are stopped on the way out.
    raise SystemExit(128 + number)


def _prepare_this_process(arguments: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cores = sorted(os.sched_getaffinity(0))
    arguments.server_core = cores[-1] if arguments.server_core < 0 else arguments.server_core
    os.sched_setaffinity(0, {arguments.load_core})
    if arguments.server_core == arguments.load_core:
        print("benchmarks: servers and load generator share one core: no figure means much", file=sys.stderr)


def main() -> int:
    arguments = parse_arguments()
    missing = missing_tools()
    if missing:
        print(f"benchmarks: {', '.join(missing)} not found; run benchmarks/setup.sh", file=sys.stderr)
        return 1
    _prepare_this_process(arguments)
    results = Results(
        date=datetime.datetime.now(datetime.UTC).isoformat(" ", "minutes"),
        commit=machine.commit(),
        machine=machine.describe(),
        settings={
            "rounds": arguments.rounds,
            "seconds each": arguments.seconds,
            "cores": f"servers on {arguments.server_core}, load on {arguments.load_core}",
        },
        versions={name: SERVERS[name].version() for name in arguments.servers},
    )
    load_before = os.getloadavg()[0]
    begin, stolen = time.monotonic(), machine.stolen_seconds()
    with tempfile.TemporaryDirectory(prefix="fastwsgi-bench-") as folder:
        runner = Runner(arguments, results, Path(folder))
        runner.prepare()
        for name in arguments.cases:
            runner.run_case(CASES[name])
            if sys.stderr.isatty():
                print("\r".ljust(60), end="\r", file=sys.stderr)
            if name in results.cases:
                print(report.case_table(CASES[name], results.cases[name]) + "\n", flush=True)
    took = time.monotonic() - begin
    results.disturbance = {
        "load average before": load_before,
        "seconds taken": took,
        "seconds stolen by the hypervisor": machine.stolen_seconds() - stolen,
    }
    print(report.overview(results), end="\n\n")
    print(report.targets_text(results))
    if arguments.output:
        report.write(results, arguments.output)
        print(f"\nWritten to {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
