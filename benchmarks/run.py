"""Compares fastwsgi with other WSGI servers, each on one core, and holds it against its targets.

python benchmarks/run.py [--quick] [--servers a,b] [--cases x,y] [--rounds N] [--seconds S] [--output DIR]
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import report
from harness.cases import CASES
from harness.runner import Plan, names, prepare_process, run_cases
from harness.servers import SERVERS


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short round: that it works, not how fast")
    parser.add_argument("--servers", default="", help=f"of: {', '.join(SERVERS)}")
    parser.add_argument("--cases", default="", help=f"of: {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, help="rounds of each case (3; quick: 1)")
    parser.add_argument("--seconds", type=float, help="length of one measurement (1.5; quick: 0.5)")
    parser.add_argument("--output", type=Path, help="write latest.md, latest.json and the charts here")
    parser.add_argument("--server-cores", help="cores of the servers, as taskset takes them (the last)")
    parser.add_argument("--load-core", type=int, default=0, help="core of the load generator (the first)")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3)
    arguments.seconds = arguments.seconds or (0.5 if arguments.quick else 1.5)
    arguments.servers = names(parser, arguments.servers, list(SERVERS))
    arguments.cases = names(parser, arguments.cases, list(CASES))
    return arguments


def take_cores(arguments: argparse.Namespace) -> None:
    cores = sorted(os.sched_getaffinity(0))
    arguments.server_cores = arguments.server_cores or str(cores[-1])
    os.sched_setaffinity(0, {arguments.load_core})
    if arguments.server_cores == str(arguments.load_core):
        print("benchmarks: servers and load generator share one core: no figure means much", file=sys.stderr)


def main() -> int:
    arguments = parse_arguments()
    problem = prepare_process()
    if problem:
        print(f"benchmarks: {problem}", file=sys.stderr)
        return 1
    take_cores(arguments)
    settings = {
        "rounds": arguments.rounds,
        "seconds each": arguments.seconds,
        "cores": f"servers on {arguments.server_cores}, load on {arguments.load_core}",
    }
    plan = Plan(
        arguments.servers, arguments.rounds, arguments.seconds, arguments.server_cores, arguments.quick
    )
    results = run_cases([CASES[name] for name in arguments.cases], plan, settings)
    print(report.overview(results), end="\n\n")
    print(report.targets_text(results))
    if arguments.output:
        report.write(results, arguments.output)
        print(f"\nWritten to {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
