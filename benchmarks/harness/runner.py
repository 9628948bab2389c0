"""Starts each server for each case, checks its answer, has it measured, and stops it."""

import argparse
import datetime
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import machine, report
from harness.cases import ONCE, Case, Running
from harness.load import check_answer
from harness.process import ServerFailedError, free_port, started
from harness.results import Results
from harness.servers import (
    SERVERS,
    Server,
    Start,
    fill_database,
    make_files,
    missing_tools,
    server_environment,
)

# A busy machine can spoil a round; a server that cannot run a case fails each time.
GIVE_UP = 2


@dataclass(frozen=True)
class Plan:
    """What of a case is run, and where."""

    servers: list[str]
    rounds: int
    seconds: float
    server_cores: str  # as taskset takes them
    quick: bool = False
    workers: int = 0  # as Start has it


def names(parser: argparse.ArgumentParser, text: str, known: list[str]) -> list[str]:
    """Those that text lists, or all that are known."""
    listed = [name.strip() for name in text.split(",") if name.strip()]
    unknown = set(listed) - set(known)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return listed or known


class Runner:
    """Takes every server of every case through its rounds."""

    def __init__(self, plan: Plan, results: Results, folder: Path) -> None:
        self.plan = plan
        self.results = results
        self.folder = folder

    def prepare(self) -> None:
        make_files(self.folder)
        fill_database(self.folder)

    def run_case(self, case: Case) -> None:
        rounds = 1 if case.name in ONCE else self.plan.rounds
        for number in range(rounds):
            for name in case.servers:
                if name in self.plan.servers:
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
        workers = self.plan.workers if server.workers is None else server.workers
        port = free_port()
        start = Start(case.application, port, threads, folder, len(case.content), closes, workers, case.key)
        environment = server_environment(server, self.folder)
        cores = self.plan.server_cores
        with started(server.commands(start), port, cores, environment, folder) as processes:
            ends = check_answer(port, case.request, case.content)
            running = Running(processes, port, folder, self.plan.seconds, self.plan.quick, ends)
            try:
                return case.measure(case, running)
            except ServerFailedError:
                # That it ended says more than what was noticed first.
                processes.check_alive()
                raise


def run_cases(cases: Iterable[Case], plan: Plan, settings: dict[str, Any]) -> Results:
    """Run them, print a table of each as soon as it is known, and return all that was found."""
    results = Results(
        date=datetime.datetime.now(datetime.UTC).isoformat(" ", "minutes"),
        commit=machine.commit(),
        machine=machine.describe(),
        settings=settings,
        versions={name: SERVERS[name].version() for name in plan.servers},
    )
    load_before = os.getloadavg()[0]
    begin, stolen = time.monotonic(), machine.stolen_seconds()
    with tempfile.TemporaryDirectory(prefix="fastwsgi-bench-") as folder:
        runner = Runner(plan, results, Path(folder))
        runner.prepare()
        for case in cases:
            runner.run_case(case)
            if sys.stderr.isatty():
                print("\r".ljust(60), end="\r", file=sys.stderr)
            if case.name in results.cases:
                print(report.case_table(case, results.cases[case.name]) + "\n", flush=True)
    results.disturbance = {
        "load average before": load_before,
        "seconds taken": time.monotonic() - begin,
        "seconds stolen by the hypervisor": machine.stolen_seconds() - stolen,
    }
    return results


def _end(number: int, frame: object) -> None:
    # As an exception, so that the servers are stopped on the way out.
    raise SystemExit(128 + number)


def prepare_process() -> str | None:
    """Make this process ready to run servers; what is missing for that, if anything is."""
    missing = missing_tools()
    if missing:
        return f"{', '.join(missing)} not found; run benchmarks/setup.sh"
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return None
