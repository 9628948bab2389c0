"""In a container: as many workers as its limits have room for, and none is killed that can be replaced."""

import os
import re
import signal

import pytest

from fastwsgi.resources import ROOT, cgroups, memory_use
from process.family import stop, wait_for_workers
from process.load import load
from subprocesses import Process
from support import wait_until

MIB = 1 << 20

several_cpus = pytest.mark.skipif(
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

    def limit_memory(self, size):
        self.limit("memory", {"memory.limit_in_bytes": size, "memory.max": size})

    @property
    def memory(self):
        """What is used of it, as the kernel counts."""
        return memory_use(self.groups[0])

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


@several_cpus
def test_workers_are_as_many_as_the_memory_has_room_for(start_contained, container, site):
    container.limit_memory(200 * MIB)
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


@several_cpus
def test_what_workers_share_counts_once(start_contained, container, site):
    container.limit_memory(200 * MIB)
    site.write("1", BALLAST)
    server = start_contained("--preload")
    assert int(first_line(server)[0]) >= 2
    stop(server)


@several_cpus
def test_workers_are_as_many_as_the_quota_lets_run(start_contained, container):
    container.limit("cpu", {"cpu.cfs_quota_us": 100_000, "cpu.max": "100000 100000"})
    server = start_contained()
    assert first_line(server) == ("1", f"{CPUS} CPUs, quota of 1"), server.stderr
    assert "Limits of its cgroup: a CPU quota of 1\n" in server.stderr
    wait_for_workers(server, 1)
    stop(server)


# Under pressure


def grow(server, container, share):
    """Have workers keep more and more, until so much of the limit is needed."""
    while container.memory.needed < share * container.memory.limit:
        assert server.ask("/grow").status == 200


def position(server, message):
    """Where the log has it; the worker that it is about may be faster than the supervisor that writes it."""
    server.wait_said(message)
    return server.stderr.index(message)


def replaced_in(server):
    """Wait until a worker is replaced because memory is short; its number, and how large it is, in MiB."""
    server.wait_said("memory is short")
    pid, size = re.search(r"Worker (\d+) is the largest, (\d+) MiB", server.stderr).groups()
    server.wait_said(f"Worker {pid} has left")
    return int(pid), int(size)


def expect_no_other(server, container):
    assert server.stderr.count("memory is short") == 1, server.stderr
    assert "was killed" not in server.stderr
    assert container.memory.needed < 0.9 * container.memory.limit


@pytest.mark.parametrize("options", [(), ("--reuse-port",)], ids=["", "reuse-port"])
def test_the_largest_worker_makes_room_for_another(start_contained, container, options):
    container.limit_memory(400 * MIB)
    server = start_contained("--workers", "2", "--log-level", "debug", *options)
    assert "Limits of its cgroup: 400 MiB of memory; from 90% of that on the largest" in server.stderr
    before = wait_for_workers(server, 2)
    with load(server.address, clients=10) as running:
        running.wait_answers()
        grow(server, container, 0.91)
        largest, size = replaced_in(server)
        assert largest in before
        assert size > 150
        running.wait_workers(*wait_for_workers(server, 2, without=[largest]))
    running.report.check()
    [successor] = wait_for_workers(server, 2) - before
    assert position(server, f"Worker {largest} has left") < position(server, f"Worker {successor} serves")
    expect_no_other(server, container)
    stop(server)


@pytest.mark.parametrize(
    ("share", "ballast", "makes_room"), [(50, "", False), (90, BALLAST, True)], ids=["fits", "does-not-fit"]
)
def test_the_only_worker_is_replaced(start_contained, container, site, share, ballast, makes_room):
    container.limit_memory(400 * MIB)
    site.write("1", ballast)
    server = start_contained("--workers", "1", "--log-level", "debug", "--memory-pressure", f"{share}%")
    with load(server.address, clients=10) as running:
        running.wait_answers()
        grow(server, container, share / 100 + 0.01)
        only, _ = replaced_in(server)
        [successor] = wait_for_workers(server, 1, without=[only])
        running.wait_workers(successor)
    running.report.check()
    has_left = position(server, f"Worker {only} has left")
    assert (has_left < position(server, f"Worker {successor} serves")) == makes_room
    expect_no_other(server, container)
    stop(server)
