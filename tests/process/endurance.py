"""Reloads for a long time under load: nobody is failed, nothing grows, nobody is left.

python tests/process/endurance.py [--seconds 600] [--every 5] [OPTION of fastwsgi ...]

Exits with 1 if one of that is not so. Every tenth reload is of code that cannot be imported.
"""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from process.family import Site, expect_nobody_left, memory_of
from process.load import WRK, load
from subprocesses import Process

MIB = 1 << 20
# How much more of a thing there may be in the last fifth of the time than in the first.
GROWTH = 1.1


def figures(server):
    """Memory of all processes, of the supervisor, and its descriptors."""
    supervisor = psutil.Process(server.pid)
    return memory_of(server), supervisor.memory_info().rss, supervisor.num_fds()


def endure(server, site, running, seconds, every):
    """Reload again and again; the figures after each reload."""
    begun = time.monotonic()
    seen = []
    while time.monotonic() - begun < seconds:
        number = len(seen) + 1
        is_broken = number % 10 == 0
        site.write(str(number), "def" if is_broken else "")
        due = time.monotonic() + every
        server.signal(signal.SIGHUP)
        if is_broken:
            running.wait_answers()
        else:
            running.wait_generation(str(number))
        running.pause(max(0.0, due - time.monotonic()))
        seen.append(figures(server))
        memory, supervisor, descriptors = seen[-1]
        print(
            f"{time.monotonic() - begun:6.0f} s  {number} reloads  {running.report.requests} requests  "
            f"{len(running.report.failures)} failed  longest {running.report.longest * 1000:.0f} ms  "
            f"{memory / MIB:.1f} MiB in all  supervisor {supervisor / MIB:.1f} MiB, {descriptors} fds",
            flush=True,
        )
    return seen


def judge(seen):
    """What has grown."""
    share = max(1, len(seen) // 5)
    for what, values in zip(("memory in all", "memory of the supervisor", "descriptors"), zip(*seen)):
        first, last = (sorted(part)[len(part) // 2] for part in (values[:share], values[-share:]))
        if last > first * GROWTH:
            yield f"{what} has grown from {first:,} to {last:,}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--every", type=float, default=5)
    arguments, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="fw-") as directory:
        site = Site(Path(directory))
        site.write("0")
        arguments_of_server = ["--bind", "127.0.0.1:0", "--workers", "2", *options, "site_app:application"]
        server = Process(arguments_of_server, Path(directory), {"PYTHONDONTWRITEBYTECODE": "1"})
        try:
            server.wait_started()
            with load(
                server.address, work=0.005, wrk=2 if WRK else 0, seconds=arguments.seconds + 60
            ) as running:
                seen = endure(server, site, running, arguments.seconds, arguments.every)
            server.stop()
            expect_nobody_left(server)
        finally:
            server.clean_up()
    print(running.report)
    problems = [*map(str, running.report.failures), *judge(seen)]
    print("\n".join(problems) or "Nobody was failed, nothing has grown, nobody is left")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
