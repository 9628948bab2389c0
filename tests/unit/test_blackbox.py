"""How a worker ended and what it served, in words."""

import pytest

from fastwsgi import blackbox
from fastwsgi.blackbox import OomCounter


@pytest.fixture
def tree(tmp_path):
    """tree(number): the files of a system whose kernel has killed so many processes of our cgroup."""
    group = tmp_path / "sys/fs/cgroup/shop"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/shop\n")
    (tmp_path / "proc/self/mountinfo").write_text(
        "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
    )

    def tree(number):
        (group / "memory.events").write_text(f"low 0\nhigh 0\nmax 9\noom 7\noom_kill {number}\n")
        return tmp_path

    return tree


def test_the_counter_has_risen(tree):
    counter = OomCounter(tree(3))
    tree(4)
    assert counter.verdict().startswith(
        "the kernel's out-of-memory counter of its cgroup, oom_kill, rose from 3 to 4 in the last "
    )


def test_the_counter_has_not_risen(tree):
    counter = OomCounter(tree(3))
    assert counter.verdict() == "the kernel's out-of-memory counter of its cgroup, oom_kill, did not rise"


def test_several_that_are_killed_at_a_time_are_all_explained(tree):
    counter = OomCounter(tree(3))
    tree(5)
    assert "rose from 3 to 5" in counter.verdict()
    assert "rose from 3 to 5" in counter.verdict()


def test_what_was_long_ago_explains_nothing(tree, monkeypatch):
    monkeypatch.setattr(blackbox, "TOGETHER", 0.0)
    counter = OomCounter(tree(3))
    tree(4)
    assert "rose" in counter.verdict()
    assert "did not rise" in counter.verdict()


def test_version_1_and_a_machine_without_cgroups(tmp_path, tree):
    root = tree(0)
    (root / "sys/fs/cgroup/shop/memory.events").unlink()
    assert OomCounter(root).verdict() == "whether for memory the kernel does not say"
    (root / "proc/vmstat").write_text("nr_free_pages 1\noom_kill 8\n")
    assert "counter of its machine, oom_kill, did not rise" in OomCounter(root).verdict()
    (root / "sys/fs/cgroup/shop/memory.oom_control").write_text(
        "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"
    )
    counter = OomCounter(root)
    (root / "sys/fs/cgroup/shop/memory.oom_control").write_text("oom_kill 3\n")
    assert "its cgroup, oom_kill, rose from 2 to 3" in counter.verdict()
