"""CPUs, quotas and memory limits, read from trees as kernels lay them out."""

import mmap
import os
import subprocess
import sys

import pytest

from fastwsgi.resources import (
    Cpus,
    Memory,
    MemoryUse,
    MemoryWait,
    count_workers,
    find_cpus,
    find_memory,
    find_memory_use,
    find_memory_wait,
    find_throttling,
    fit_to_memory,
    limited_cgroups,
    pss,
    rss,
    rss_from_ps,
    show_size,
)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")

MIB = 2**20
CGROUP2 = "31 23 0:27 {part} {mount} rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate"
CGROUP1 = "34 30 0:30 {part} {mount} rw,relatime - cgroup cgroup rw,{controllers}"
OTHER = "22 27 0:21 / /proc rw,relatime - proc proc rw"


class Tree:
    """A file tree with what a kernel tells of cgroups."""

    def __init__(self, root):
        self.root = root
        self.groups = []
        self.mounts = [OTHER]

    def write(self, path, text):
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")

    def version2(self, path, part="/", mount="/sys/fs/cgroup"):
        self.groups.append(f"0::{path}")
        self.mounts.append(CGROUP2.format(part=part, mount=mount))
        self.told()

    def version1(self, controllers, path, part="/"):
        self.groups.append(f"{len(self.groups) + 1}:{controllers}:{path}")
        mount = f"/sys/fs/cgroup/{controllers}"
        self.mounts.append(CGROUP1.format(part=part, mount=mount, controllers=controllers))
        self.told()

    def told(self):
        self.write("proc/self/cgroup", "\n".join(self.groups))
        self.write("proc/self/mountinfo", "\n".join(self.mounts))

    @property
    def quota(self):
        return find_cpus(self.root).quota

    @property
    def limit(self):
        memory = find_memory(self.root)
        return memory.size if memory.source == "memory limit" else None


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def test_no_cgroups(tree):
    assert tree.quota is None
    assert tree.limit is None


def test_a_container_of_version_2_sees_its_cgroup_as_the_root(tree):
    tree.version2("/")
    tree.write("sys/fs/cgroup/cpu.max", "150000 100000")
    tree.write("sys/fs/cgroup/memory.max", str(256 * MIB))
    assert tree.quota == 1.5
    assert tree.limit == 256 * MIB


def test_a_service_of_version_2(tree):
    tree.version2("/system.slice/web.service")
    tree.write("sys/fs/cgroup/system.slice/web.service/cpu.max", "50000 100000")
    tree.write("sys/fs/cgroup/system.slice/web.service/memory.max", str(100 * MIB))
    assert tree.quota == 0.5
    assert tree.limit == 100 * MIB


def test_the_lowest_of_all_parents_counts(tree):
    tree.version2("/a/b/c")
    tree.write("sys/fs/cgroup/a/cpu.max", "200000 100000")
    tree.write("sys/fs/cgroup/a/b/cpu.max", "max 100000")
    tree.write("sys/fs/cgroup/a/b/c/cpu.max", "400000 100000")
    tree.write("sys/fs/cgroup/a/memory.max", "max")
    tree.write("sys/fs/cgroup/a/b/memory.max", str(64 * MIB))
    tree.write("sys/fs/cgroup/a/b/c/memory.max", str(128 * MIB))
    assert tree.quota == 2
    assert tree.limit == 64 * MIB


def test_no_limits_in_version_2(tree):
    tree.version2("/a")
    tree.write("sys/fs/cgroup/a/cpu.max", "max 100000")
    tree.write("sys/fs/cgroup/a/memory.max", "max")
    assert tree.quota is None
    assert tree.limit is None


def test_version_1(tree):
    tree.version1("cpu,cpuacct", "/docker/1f")
    tree.version1("memory", "/docker/1f")
    tree.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1")
    tree.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000")
    tree.write("sys/fs/cgroup/cpu,cpuacct/docker/1f/cpu.cfs_quota_us", "250000")
    tree.write("sys/fs/cgroup/cpu,cpuacct/docker/1f/cpu.cfs_period_us", "100000")
    tree.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    tree.write("sys/fs/cgroup/memory/docker/1f/memory.limit_in_bytes", str(32 * MIB))
    assert tree.quota == 2.5
    assert tree.limit == 32 * MIB


def test_a_container_of_version_1_has_only_its_part_mounted(tree):
    tree.version1("cpu,cpuacct", "/docker/1f", part="/docker/1f")
    tree.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "100000")
    tree.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000")
    assert tree.quota == 1


def test_both_versions_at_once(tree):
    tree.version1("memory", "/")
    tree.version2("/a", mount="/sys/fs/cgroup/unified")
    tree.write("sys/fs/cgroup/memory/memory.limit_in_bytes", str(16 * MIB))
    tree.write("sys/fs/cgroup/unified/a/cpu.max", "300000 100000")
    assert tree.limit == 16 * MIB
    assert tree.quota == 3


def test_the_mount_of_another_cgroup_says_nothing(tree):
    tree.version2("/docker/1f", part="/docker/22")
    tree.write("sys/fs/cgroup/cpu.max", "100000 100000")
    assert tree.quota is None


def test_a_mount_from_outside_of_the_namespace_is_above(tree):
    tree.version2("/", part="/../..")
    tree.write("sys/fs/cgroup/cpu.max", "100000 100000")
    assert tree.quota == 1


def test_a_process_outside_of_the_namespace_does_not_look_beside_the_mount(tree):
    tree.version2("/../other")
    tree.write("sys/fs/other/cpu.max", "100000 100000")
    assert tree.quota is None


def test_a_mount_with_a_space_in_its_path(tree):
    tree.version2("/", mount=r"/my\040groups")
    tree.write("my groups/cpu.max", "100000 100000")
    assert tree.quota == 1


def test_a_limit_above_what_the_machine_has_is_none(tree):
    tree.version2("/")
    tree.write("sys/fs/cgroup/memory.max", str(2**60))
    memory = find_memory(tree.root)
    assert memory == Memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "memory")


def test_from_memory_high_on_processes_wait(tree):
    tree.version2("/a")
    tree.write("sys/fs/cgroup/a/memory.max", str(100 * MIB))
    tree.write("sys/fs/cgroup/a/memory.high", "max")
    assert tree.limit == 100 * MIB
    tree.write("sys/fs/cgroup/a/memory.high", str(80 * MIB))
    assert tree.limit == 80 * MIB


WAIT = (
    "some avg10=12.34 avg60=5.00 avg300=1.00 total=44949\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=1065"
)


def test_what_a_cgroup_of_version_2_uses(tree):
    tree.version2("/a")
    assert find_memory_use(tree.root) is find_memory_wait(tree.root) is None
    group = "sys/fs/cgroup/a"
    tree.write(f"{group}/memory.current", str(90 * MIB))
    assert find_memory_use(tree.root) == MemoryUse(None, 90 * MIB, 0, None, 0)
    tree.write(f"{group}/memory.max", str(100 * MIB))
    tree.write(f"{group}/memory.stat", f"anon 1\nfile 9\ninactive_file {20 * MIB}\nactive_file {10 * MIB}")
    tree.write(f"{group}/memory.events", "low 0\nhigh 3\nmax 4\noom 1\noom_kill 1")
    tree.write(f"{group}/memory.pressure", WAIT)
    tree.write("sys/fs/cgroup/memory.current", str(95 * MIB))
    tree.write("sys/fs/cgroup/memory.max", str(101 * MIB))
    use = find_memory_use(tree.root)
    assert use == MemoryUse(100 * MIB, 90 * MIB, 30 * MIB, MemoryWait(0.1234, 0.044949), 7)
    assert use.needed == 60 * MIB
    tree.write("sys/fs/cgroup/memory.max", str(99 * MIB))
    assert find_memory_use(tree.root) == MemoryUse(99 * MIB, 95 * MIB, 0, None, 0)


def test_what_a_cgroup_of_version_1_uses(tree):
    tree.version1("memory", "/a")
    group = "sys/fs/cgroup/memory/a"
    tree.write(f"{group}/memory.limit_in_bytes", str(100 * MIB))
    tree.write(f"{group}/memory.usage_in_bytes", str(90 * MIB))
    tree.write(f"{group}/memory.failcnt", "5")
    own, total = (f"inactive_file {size}\n{{0}}active_file {size}" for size in (1, 10 * MIB))
    tree.write(f"{group}/memory.stat", f"{own.format('')}\ntotal_{total.format('total_')}")
    assert find_memory_use(tree.root) == MemoryUse(100 * MIB, 90 * MIB, 20 * MIB, None, 5)


def test_waiting_for_memory_is_the_machines_where_no_cgroup_tells(tree):
    tree.version1("memory", "/a")
    tree.write("proc/pressure/memory", WAIT)
    assert find_memory_wait(tree.root) == MemoryWait(0.1234, 0.044949)
    tree.version2("/b", mount="/sys/fs/cgroup/unified")
    tree.write("sys/fs/cgroup/unified/b/memory.pressure", WAIT.replace("12.34", "0.00"))
    assert find_memory_wait(tree.root) == MemoryWait(0.0, 0.044949)


def test_throttling(tree):
    assert find_throttling(tree.root) is None
    tree.version2("/a")
    assert find_throttling(tree.root) is None
    tree.write("sys/fs/cgroup/a/cpu.stat", "usage_usec 5\nthrottled_usec 2500000")
    assert find_throttling(tree.root) == 2.5


def test_cgroups_that_limit_memory(tree):
    assert limited_cgroups(tree.root) == []
    tree.version2("/a/b/c")
    top = tree.root / "sys/fs/cgroup"
    for path, limit in (("a", 64 * MIB), ("a/b", "max"), ("a/b/c", 2**60)):
        tree.write(f"sys/fs/cgroup/{path}/memory.max", str(limit))
    assert limited_cgroups(tree.root) == [top / "a"]
    tree.write("sys/fs/cgroup/a/b/c/memory.max", str(32 * MIB))
    assert limited_cgroups(tree.root) == [top / "a/b/c", top / "a"]


def test_this_machine():
    cpus = find_cpus()
    assert 1 <= cpus.usable <= cpus.allowed <= cpus.present
    assert find_memory().size > 0


@linux_only
def test_affinity():
    given = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [min(given)])
    try:
        assert find_cpus().allowed == 1
    finally:
        os.sched_setaffinity(0, given)


@pytest.mark.parametrize(
    ("cpus", "number", "text"),
    [
        (Cpus(1, 1), 1, "1 CPU"),
        (Cpus(8, 8), 8, "8 CPUs"),
        (Cpus(8, 8, 4.0), 4, "8 CPUs, quota of 4"),
        (Cpus(8, 8, 2.5), 3, "8 CPUs, quota of 2.5"),
        (Cpus(8, 8, 0.05), 1, "8 CPUs, quota of 0.05"),
        (Cpus(8, 2), 2, "2 of 8 CPUs"),
        (Cpus(8, 2, 6.0), 2, "2 of 8 CPUs, quota of 6"),
        (Cpus(2000, 2000), 1024, "2000 CPUs"),
    ],
)
def test_auto(cpus, number, text):
    assert count_workers("auto", cpus) == (number, text)


def test_a_given_number_needs_no_reason():
    assert count_workers(3, Cpus(1, 1)) == (3, "")


@pytest.mark.parametrize(
    ("number", "each", "fitting"),
    [(8, 102, 8), (8, 103, 7), (8, 400, 2), (8, 2000, 1), (1, 2000, 1), (4, 0, 4)],
)
def test_memory_for_so_many(number, each, fitting):
    memory = Memory(1024 * MIB, "memory limit")
    found, reason = fit_to_memory(number, each * MIB, memory)
    assert found == fitting
    assert bool(reason) == (fitting < number)


def test_the_reason_of_fewer():
    _, reason = fit_to_memory(8, 400 * MIB, Memory(1024 * MIB, "memory limit"))
    assert reason == "each takes 400 MiB, and 80% of the memory limit of 1 GiB is for all of them"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1.5 * 2**30, "1.5 GiB"),
        (1010 * MIB, "1010 MiB"),
        (2**44, "16384 GiB"),
    ],
)
def test_sizes(size, text):
    assert show_size(size) == text


def test_memory_of_a_process():
    block = b"x" * MIB
    before = rss(os.getpid())
    with mmap.mmap(-1, 64 * MIB) as more:
        for _ in range(64):
            more.write(block)
        assert 60 * MIB < rss(os.getpid()) - before < 80 * MIB
        assert 0 < pss(os.getpid()) <= rss(os.getpid()) + MIB


@linux_only
def test_memory_that_is_not_told_in_shares(tree):
    tree.write("proc/self/statm", "10 2 1 1 0 5 0")
    tree.write("proc/7/statm", "100 20 10 1 0 50 0")
    assert pss(7, tree.root) == rss(7, tree.root) == 20 * os.sysconf("SC_PAGE_SIZE")
    tree.write("proc/7/smaps_rollup", "55d-7ff ---p 00000000 00:00 0  [rollup]\nRss:  90 kB\nPss:     33 kB")
    assert pss(7, tree.root) == 33 * 1024


def test_memory_where_there_is_no_proc(tree):
    assert abs(rss(os.getpid(), tree.root) - rss(os.getpid())) < 16 * MIB


def test_memory_of_nobody():
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    assert pss(ended.pid) is rss(ended.pid) is rss_from_ps(ended.pid) is None
