"""How long it takes to find the route of a request, among few routes and among many.

python benchmarks/routing.py [--times N] [--output FILE]
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fastwsgi._router import Router
from fastwsgi.config import Settings
from fastwsgi.mounts import plan

from harness.report import publish
from harness.routes import by_host, by_path, mixed

COUNTS = (1, 10, 100, 1000, 10_000)
ROUNDS = 7
TARGET_NS = 1000.0

# The site, and what is asked of it: {0} is the number of a route.
CASES = {
    "paths": (by_path, "example.com", "/section{0}/archive/2026/page.html"),
    "hosts": (by_host, "www.customer{0}.example.com:8443", "/section/archive/2026/page.html"),
    "both": (mixed, "customer{0}.example.com", "/section{0}/archive/2026/page.html"),
    "no route": (mixed, "nobody.example.net", "/nothing/of/this/has/a/route/of/its/own/page.html"),
}

EXPLANATION = f"""\
The core looks at the path for what has to be resolved, then for host and path in its tables; the least of
{ROUNDS} rounds, in nanoseconds for each request, with everything in the cache. Each host is one that the
routes name, or have a star for; each path is four segments long, of which a route has one."""


def measure(routes: list[str], host: str, path: str, times: int) -> float:
    router = Router(plan(Settings(route=tuple(routes))).routes)
    # Ones from all over the table.
    numbers = range(0, len(routes), max(len(routes) // 8, 1))
    asked = [(host.format(number).encode(), path.format(number).encode()) for number in numbers]
    least = float("inf")
    for _ in range(ROUNDS):
        found = [router.time(authority, octets, times // len(asked)) for authority, octets in asked]
        least = min(least, sum(found) / len(found))
    return least


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=100_000, help="in each round (%(default)s)")
    parser.add_argument("--output", type=Path, help="write the table to this file, as Markdown")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    rows = [["routes", *CASES, f"<= {TARGET_NS:.0f} ns"]]
    reached = True
    for count in COUNTS:
        found = [measure(make(count), host, path, arguments.times) for make, host, path in CASES.values()]
        is_reached = max(found) <= TARGET_NS
        reached &= is_reached
        verdict = "reached" if is_reached else "NOT reached"
        rows.append([f"{count:,}", *(f"{each:.0f}" for each in found), verdict])
    publish("Finding a route", EXPLANATION, rows, load=load, output=arguments.output)
    return not reached


if __name__ == "__main__":
    sys.exit(main())
