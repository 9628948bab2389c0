"""--workers auto in a container: as many as its limits have room for, and the first line says why."""

import os
import re
import signal

import pytest

from fastwsgi.resources import ROOT, cgroups
from process.family import stop, wait_for_workers
from subprocesses import Process
from support import wait_until

MIB = 1 << 20

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="one worker is the least"
)

# In the place of which the command behind it goes on.
ENTER = ["sh", "-c", 'for group in $GROUPS_OF_TEST; do echo $$ > $group/cgroup.procs; done; exec "$@"', "sh"]


class Container:
    """Cgroups of the test's own, one for each controller, beneath those that the test is in."""

    def __init__(self):
        self.groups = []

    def limit(self, controller, limits):
        """Set limits, by the names of files of version 1 and of version 2."""
        group = next(cgroups(controller, ROOT), None)
        if group is None:
            pytest.skip(f"no cgroup for {controller} here")
        own = group / f"fastwsgi-test-{os.getpid()}"
        try:
            own.mkdir()
            self.groups.append(own)
            files = [own / name for name in limits if (own / name).exists()]
            for file in files:
                file.write_text(str(limits[file.name]))
        except OSError as error:
            pytest.skip(f"a cgroup for {controller} is not permitted here: {error}")
        if not files:
            pytest.skip(f"the controller {controller} is not passed on to a cgroup of ours")

    def remove(self):
        for group in self.groups:
            # Whoever has ended may be counted a moment longer.
            wait_until(lambda: not (group / "cgroup.procs").read_text(), f"the end of all in {group}")  # noqa: B023
            group.rmdir()


@pytest.fixture
def container():
    container = Container()
    yield container
    container.remove()


@pytest.fixture
def start_contained(container, site, tmp_path):
    processes = []

    def start_contained(*options):
        environment = {
            "PYTHONDONTWRITEBYTECODE": "1",
            "GROUPS_OF_TEST": " ".join(map(str, container.groups)),
        }
        arguments = ["--bind", "127.0.0.1:0", *options, "site_app:application"]
        processes.append(Process(arguments, tmp_path, environment, wrapper=ENTER))
        processes[-1].wait_started()
        return processes[-1]

    yield start_contained
    for process in processes:
        process.clean_up()


CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
BALLAST = "ballast = b'x' * (100 << 20)"


def first_line(server):
    """How many workers the last start or reload has announced, and why so many."""
    return re.findall(r"with (\d+) workers? \((.*)\) of 4 threads", server.stderr)[-1]


def test_workers_are_as_many_as_the_memory_has_room_for(start_contained, container, site):
    container.limit("memory", {"memory.limit_in_bytes": 200 * MIB, "memory.max": 200 * MIB})
    site.write("1", BALLAST)
    server = start_contained()
    number, why = first_line(server)
    limit = "80% of the memory limit of 200 MiB is for all of them"
    assert (number, re.fullmatch(rf"each takes 1\d\d MiB, and {limit}", why) is None) == ("1", False), why
    [former] = wait_for_workers(server, 1)
    # It is measured anew for the code that there is now.
    site.write("2")
    server.signal(signal.SIGHUP)
    wait_until(lambda: first_line(server)[0] != "1", lambda: server.stderr)
    wait_for_workers(server, int(first_line(server)[0]), without=[former])
    assert limit not in first_line(server)[1]
    stop(server)


def test_what_workers_share_counts_once(start_contained, container, site):
    container.limit("memory", {"memory.limit_in_bytes": 200 * MIB, "memory.max": 200 * MIB})
    site.write("1", BALLAST)
    server = start_contained("--preload")
    assert int(first_line(server)[0]) >= 2
    stop(server)


def test_workers_are_as_many_as_the_quota_lets_run(start_contained, container):
    container.limit("cpu", {"cpu.cfs_quota_us": 100_000, "cpu.max": "100000 100000"})
    server = start_contained()
    assert first_line(server) == ("1", f"{CPUS} CPUs, quota of 1"), server.stderr
    wait_for_workers(server, 1)
    stop(server)
