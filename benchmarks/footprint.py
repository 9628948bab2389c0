"""What a server takes while nobody asks, and how long it takes to start: fastwsgi beside gunicorn.

python benchmarks/footprint.py [--workers 1,4] [--threads N] [--seconds S] [--rounds N] [--output FILE]
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.idle import ask, connect
from harness.load import Request
from harness.process import ServerFailedError, free_port, started
from harness.report import publish
from harness.runner import prepare_process
from harness.servers import FRAMEWORKS, SERVERS, Start, server_environment

NAMES = ("fastwsgi", "gunicorn")
PLAIN = "apps.plain:hello"
APPLICATIONS = (PLAIN, "apps.flask_hello:app", "apps.django_views:app")
# So many requests before it is measured at rest: what is made at the first one is there then.
REQUESTS = 100
REST_SECONDS = 2.0

EXPLANATION = """\
Each server with the same number of worker processes and threads, started anew for each round; gunicorn is
gthread. "First answer" is from the start of the command until one request is answered, where a connection is
tried for every 10 ms; the least of the rounds. Then {requests} requests, {rest:.0f} s of rest, and
{seconds:g} s in which nobody asks: memory (Pss) of all its processes, the supervisor and the loader among
them, and their CPU time and voluntary context switches; medians."""


@dataclass(frozen=True)
class Cell:
    application: str
    workers: int
    options: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    first_ms: float
    pss_mib: float
    cpu_ms: float  # per second
    switches: float  # per second


def measure(name: str, cell: Cell, threads: int, seconds: float, folder: Path) -> Found:
    server, port, octets = SERVERS[name], free_port(), Request()
    folder.mkdir()
    [command] = server.commands(Start(cell.application, port, threads, folder, 0, False, cell.workers))
    command[-1:-1] = cell.options
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    begun = time.perf_counter()
    with started([command], port, cores, server_environment(server, folder), folder) as processes:
        with connect(port, 0) as connection:
            if not ask(connection, octets.octets(port)):
                raise ServerFailedError("the first answer is no 200")
        first = time.perf_counter() - begun
        time.sleep(REST_SECONDS)  # every worker has come by then
        for number in range(REQUESTS):
            with connect(port, number) as connection:
                if not ask(connection, octets.octets(port)):
                    raise ServerFailedError("an answer is no 200")
        time.sleep(REST_SECONDS)
        pss = processes.pss_bytes()
        cpu, switches, since = processes.cpu_ns(), processes.voluntary_switches(), time.perf_counter()
        time.sleep(seconds)
        passed = time.perf_counter() - since
        processes.check_alive()
        return Found(
            first * 1000,
            pss / (1 << 20),
            (processes.cpu_ns() - cpu) / 1e6 / passed,
            (processes.voluntary_switches() - switches) / passed,
        )


def cells(workers: list[int]) -> Iterator[Cell]:
    for application in APPLICATIONS:
        if application == PLAIN or FRAMEWORKS.exists():
            for count, options in itertools.product(workers, [(), ("--preload",)]):
                yield Cell(application, count, options)


def row(name: str, cell: Cell, rounds: list[Found]) -> list[str]:
    head = [
        f"{name}{' --preload' if cell.options else ''}",
        cell.application.removeprefix("apps."),
        str(cell.workers),
    ]
    if not rounds:
        return [*head, "", "", "", ""]
    return [
        *head,
        f"{min(found.first_ms for found in rounds):.0f}",
        f"{median(found.pss_mib for found in rounds):.1f}",
        f"{median(found.cpu_ms for found in rounds):.2f}",
        f"{median(found.switches for found in rounds):.1f}",
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", default="1,4", help="numbers of worker processes (%(default)s)")
    parser.add_argument("--threads", type=int, default=4, help="of each worker (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5, help="in which nobody asks (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of everything, in turn (%(default)s)")
    parser.add_argument("--output", type=Path, help="write the table to this file, as Markdown")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    problem = prepare_process()
    if problem:
        print(f"benchmarks: {problem}", file=sys.stderr)
        return 1
    load = os.getloadavg()[0]
    rows = [["server", "application", "workers", "first answer ms", "Pss MiB", "CPU ms/s", "switches/s"]]
    problems = []
    with tempfile.TemporaryDirectory(prefix="fastwsgi-bench-") as folder:
        numbers = itertools.count()
        for cell in cells([int(number) for number in arguments.workers.split(",")]):
            rounds: dict[str, list[Found]] = {name: [] for name in NAMES}
            for _, name in itertools.product(range(arguments.rounds), NAMES):
                place = Path(folder) / str(next(numbers))
                try:
                    rounds[name].append(measure(name, cell, arguments.threads, arguments.seconds, place))
                except (ServerFailedError, OSError) as error:
                    problems.append(f"- {name}, {cell}: {type(error).__name__}: {error}")
            for name in NAMES:
                rows.append(row(name, cell, rounds[name]))
                print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    facts = {name: SERVERS[name].version() or "missing" for name in NAMES}
    facts |= {"threads": str(arguments.threads), "rounds": str(arguments.rounds)}
    explanation = EXPLANATION.format(requests=REQUESTS, rest=REST_SECONDS, seconds=arguments.seconds)
    title = "What a server takes at rest, and its start"
    publish(title, explanation, rows, load=load, facts=facts, problems=problems, output=arguments.output)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
