"""The load test: 100 users on a Django view that asks a database, with half a second between requests.

python benchmarks/loadtest.py [--seconds S] [--servers a,b] [--cases x,y] [--workers N] [--output FILE]
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import report
from harness.cases import CASES, Case, Column, Running
from harness.load import Request
from harness.process import ServerFailedError
from harness.runner import Plan, names, prepare_process, run_cases
from harness.users import Users

LOADED = ("fastwsgi", "gunicorn", "uwsgi", "nginx-gunicorn", "runserver")
USERS = 100
PAUSE_SECONDS = 0.5

COLUMNS = (
    Column("failed", "failed", "sum"),
    Column("p50_ms", "median ms", "median", 1),
    Column("p99_ms", "p99 ms", "median", 1),
    Column("most_ms", "maximum ms", "most", 1),
    Column("per_second", "req/s", "median", 1),
    Column("requests", "answered", "sum"),
    Column("sent_again", "sent again", "sum"),
)


def measure_users(case: Case, running: Running, pause: float, keeps: bool) -> dict[str, float]:
    """What the users of a server see, once each of its threads has answered."""
    octets = case.request.octets(running.port)
    users = partial(Users, running.port, octets, case.content)
    users(case.connections, 0.0, keeps).run(1.0)
    seen = users(case.connections, pause, keeps).run(running.seconds)
    running.processes.check_alive()
    if not seen.seconds:
        raise ServerFailedError(f"answered nothing under load: {dict(seen.failures)}")
    for word, count in seen.failures.items():
        print(f"{case.name}: {running.folder.name}: {count} failed: {word}", file=sys.stderr)
    return {
        "failed": seen.failures.total(),
        "p50_ms": seen.quantile(0.50) * 1000,
        "p99_ms": seen.quantile(0.99) * 1000,
        "most_ms": max(seen.seconds) * 1000,
        "per_second": seen.in_time / running.seconds,
        "requests": len(seen.seconds),
        "sent_again": seen.sent_again,
    }


def load_case(name: str, title: str, pause: float, keeps: bool) -> Case:
    view = CASES["djangoorm"]
    return Case(
        name,
        title,
        view.application,
        Request(target=view.request.target, fields=() if keeps else (("Connection", "close"),)),
        view.content,
        LOADED,
        partial(measure_users, pause=pause, keeps=keeps),
        COLUMNS,
        connections=USERS,
    )


LOADS = {
    case.name: case
    for case in (
        load_case("users", "half a second between the requests of a user", PAUSE_SECONDS, keeps=True),
        load_case("users-newconn", "the same with a connection for each request", PAUSE_SECONDS, keeps=False),
        load_case("eager", "no pause between the requests of a user", 0.0, keeps=True),
        load_case("eager-newconn", "no pause, and a connection for each request", 0.0, keeps=False),
    )
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--servers", default="", help=f"of: {', '.join(LOADED)}")
    parser.add_argument("--cases", default="", help=f"of: {', '.join(LOADS)}")
    parser.add_argument("--rounds", type=int, default=1, help="rounds of each case (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15, help="length of one (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (%(default)s)")
    parser.add_argument("--output", type=Path, help="write the tables to this file, as Markdown")
    arguments = parser.parse_args()
    arguments.servers = names(parser, arguments.servers, list(LOADED))
    arguments.cases = names(parser, arguments.cases, list(LOADS))
    return arguments


def main() -> int:
    arguments = parse_arguments()
    problem = prepare_process()
    if problem:
        print(f"benchmarks: {problem}", file=sys.stderr)
        return 1
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    cases = [LOADS[name] for name in arguments.cases]
    settings = {
        "users": USERS,
        "workers": f"{arguments.workers}, with {cases[0].threads} threads each; runserver has one process",
        "rounds": arguments.rounds,
        "seconds each": arguments.seconds,
        "cores": f"{cores}, for servers and users together",
    }
    plan = Plan(arguments.servers, arguments.rounds, arguments.seconds, cores, workers=arguments.workers)
    results = run_cases(cases, plan, settings)
    print(report.overview(results))
    if arguments.output:
        tables = [report.case_table(LOADS[name], entries) for name, entries in results.cases.items()]
        head = [f"# Load test of {results.date}", f"Commit {results.commit}.", report.overview(results)]
        arguments.output.write_text("\n\n".join([*head, *tables]) + "\n", encoding="utf-8")
        print(f"\nWritten to {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
