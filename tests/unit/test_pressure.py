"""When memory is short, read from files as kernels lay them out; and which worker goes, how often."""

import logging
from itertools import pairwise

import pytest

from fastwsgi.pressure import (
    FORGOTTEN,
    LONGEST_PAUSE,
    LOOK_PAUSE,
    PAUSE,
    SOONEST_LOOK,
    URGENT_TURNS,
    Pressure,
    Shortage,
    Size,
)

MIB = 2**20
LIMIT = 100 * MIB


@pytest.fixture
def group(tmp_path):
    tell(tmp_path, max=LIMIT, current=50 * MIB)
    return tmp_path


def tell(group, **files):
    for name, content in files.items():
        (group / f"memory.{name}").write_text(f"{content}\n")


def waits(share):
    return f"some avg10={share * 100:.2f} avg60=0.00 avg300=0.00 total=1"


def test_it_is_off_or_there_is_no_limit(tmp_path):
    files = {
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": "30 23 0:26 / /groups rw - cgroup2 cgroup2 rw\n",
        "groups/memory.max": "max\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert Pressure.of("90%", tmp_path) is None
    tell(tmp_path / "groups", max=LIMIT, current=90 * MIB)
    assert Pressure.of("off", tmp_path) is None
    assert Pressure.of("91%", tmp_path).look(0) is None
    assert Pressure.of("90%", tmp_path).look(0).needed == 90 * MIB


def test_content_of_files_does_not_count(group):
    pressure = Pressure(0.9, [group])
    tell(group, current=LIMIT, stat=f"inactive_file {6 * MIB}\nactive_file {5 * MIB}")
    assert pressure.look(0) is None
    tell(group, stat=f"inactive_file {5 * MIB}\nactive_file {4 * MIB}")
    shortage = pressure.look(5)
    assert shortage == Shortage(91 * MIB, LIMIT, 90 * MIB, left=22.5)
    assert str(shortage) == "its cgroup needs 91 MiB of 100 MiB, 91%"


def test_processes_wait_for_memory(group):
    pressure = Pressure(0.9, [group])
    tell(group, current=80 * MIB, pressure=waits(0.09))
    assert pressure.look(0) is None
    tell(group, pressure=waits(0.25))
    assert str(pressure.look(5)) == (
        "its cgroup needs 80 MiB of 100 MiB, 80%, and processes have waited for memory 25% of the last 10 s"
    )
    # It is content of files that is read again and again.
    tell(group, current=LIMIT, stat=f"inactive_file {30 * MIB}")
    assert pressure.look(10) is None


def test_the_limit_is_hit(group):
    pressure = Pressure(0.9, [group])
    tell(group, current=80 * MIB, events="high 0\nmax 7\noom_kill 0")
    assert pressure.look(100) is None
    assert pressure.look(105) is None
    tell(group, events="high 0\nmax 9\noom_kill 0")
    assert str(pressure.look(110)) == (
        "its cgroup needs 80 MiB of 100 MiB, 80%, and has hit that limit 2 times in the last 5.0 s"
    )
    assert pressure.look(115) is None
    # When the page cache is what fills it, it is hit all the time.
    tell(group, current=60 * MIB, events="high 0\nmax 90\noom_kill 0")
    assert pressure.look(120) is None


def test_limits_may_change(group, tmp_path_factory):
    other = tmp_path_factory.mktemp("above")
    pressure = Pressure(0.9, [group, other])
    assert pressure.look(0) is None
    tell(other, max=200 * MIB, current=190 * MIB)
    assert pressure.look(5).limit == 200 * MIB
    tell(other, max="max")
    assert pressure.look(10) is None
    tell(group, max=52 * MIB)
    assert pressure.look(15).limit == 52 * MIB


def test_what_grows_is_looked_at_before_it_is_too_much(group):
    pressure = Pressure(0.9, [group])
    pressure.look(0)
    assert pressure.look_pause == LOOK_PAUSE
    for now, current, pause in ((5, 60, LOOK_PAUSE), (10, 75, 5), (15, 85, 2.5), (20, 89, 1.25), (25, 20, 5)):
        tell(group, current=current * MIB)
        assert pressure.look(now) is None
        assert pressure.look_pause == pytest.approx(pause)


def test_how_long_it_takes_until_the_limit(group):
    pressure = Pressure(0.9, [group])
    tell(group, current=92 * MIB)
    assert not pressure.look(0).is_urgent
    tell(group, current=94 * MIB)
    shortage = pressure.look(5)
    assert (shortage.left, shortage.is_urgent) == (15, False)
    tell(group, current=97 * MIB)
    shortage = pressure.look(10)
    assert (shortage.left, shortage.is_urgent) == (5, True)
    tell(group, current=99 * MIB)
    assert pressure.look(11).is_urgent
    assert pressure.look_pause == SOONEST_LOOK
    tell(group, current=93 * MIB)
    assert not pressure.look(12).is_urgent


# Which one, and when

SHORT = Shortage(95 * MIB, LIMIT, 90 * MIB)


def sizes(*now, fresh=10):
    return [Size(number, size * MIB, fresh * MIB) for number, size in enumerate(now, 1)]


@pytest.fixture
def told(caplog):
    """What the log has been told."""
    caplog.set_level(logging.INFO, "fastwsgi")
    return lambda: [record.getMessage() for record in caplog.records]


def test_the_largest_goes(told):
    pressure = Pressure(0.9, [])
    assert pressure.choose(None, [], 0) is None
    assert pressure.choose(SHORT, [], 0) is None
    assert pressure.choose(SHORT, sizes(20, 50, 25), 5).pid == 2
    assert told() == []


def test_the_next_one_has_to_wait_for_a_while(told):
    pressure = Pressure(0.9, [])
    assert pressure.choose(SHORT, sizes(50, 40), 0).pid == 1
    # Its successor serves at 20.
    for now in range(20, 20 + int(PAUSE), 5):
        assert pressure.choose(SHORT, sizes(20, 70), now) is None
    assert pressure.choose(SHORT, sizes(20, 70), 20 + PAUSE).pid == 2
    assert told() == []


def test_one_that_leaks_is_replaced_for_ever(told):
    pressure = Pressure(0.9, [])
    now = 0.0
    for _ in range(100):
        assert pressure.choose(SHORT, sizes(80), now) is not None
        for _ in range(7):
            now += 5
            assert pressure.choose(None, [], now) is None
        now += 5
    assert told() == []


def test_where_every_worker_needs_that_much_none_is_replaced(told):
    pressure = Pressure(0.9, [])
    for now in range(0, 600, 5):
        assert pressure.choose(SHORT, sizes(50, 45, fresh=46), now) is None
    assert told() == [
        "Memory stays short, and new workers would need as much (--memory-pressure): its cgroup needs 95 MiB "
        "of 100 MiB, 95%; worker 1 has 50 MiB (46 MiB when new), worker 2 has 45 MiB (46 MiB when new). What "
        "helps is a higher memory limit, fewer --workers or --preload; where they leak, --max-worker-memory"
    ]
    # And one that leaks is noticed still.
    assert pressure.choose(SHORT, sizes(60, 35, fresh=46), 620).pid == 1


def test_where_it_does_not_help_it_is_done_less_and_less_often(told):
    """They grow to what they need as soon as they serve."""
    pressure = Pressure(0.9, [])
    times = [now for now in range(0, 4 * int(LONGEST_PAUSE), 5) if pressure.choose(SHORT, sizes(45, 40), now)]
    pauses = [then - before for before, then in pairwise(times)]
    # All have their turn; the successor serves by the next look.
    assert pauses[:5] == [PAUSE + 5, PAUSE + 5, 2 * PAUSE + 5, 4 * PAUSE + 5, 8 * PAUSE + 5]
    assert pauses[-1] == LONGEST_PAUSE + 5
    [text] = told()
    assert text.startswith("Memory is short again soon after workers were replaced (--memory-pressure): its")


def test_where_it_is_urgent_there_is_no_pause_but_not_for_ever(told):
    pressure = Pressure(0.9, [])
    urgent = Shortage(95 * MIB, LIMIT, 90 * MIB, left=3)
    times = [now for now in range(0, 600, 5) if pressure.choose(urgent, sizes(45, 40), now)]
    assert [then - before for before, then in pairwise(times)][: 2 * URGENT_TURNS - 1] == [5] * (
        2 * URGENT_TURNS - 1
    )
    assert times[2 * URGENT_TURNS] - times[2 * URGENT_TURNS - 1] == PAUSE + 5
    assert len(told()) == 1


def test_it_is_told_again_when_it_has_been_well_for_long(told):
    pressure = Pressure(0.9, [])
    needed = sizes(50, 45, fresh=50)
    pressure.choose(SHORT, needed, 0)
    pressure.choose(None, [], 40)
    pressure.choose(SHORT, needed, 80)
    assert len(told()) == 1
    pressure.choose(None, [], 120)
    pressure.choose(SHORT, needed, 100 + FORGOTTEN)
    assert len(told()) == 2


def test_only_the_largest_are_named(told):
    Pressure(0.9, []).choose(SHORT, sizes(*range(1, 11), fresh=20), 0)
    [text] = told()
    assert "worker 10 has 10 MiB (20 MiB when new), worker 9 has" in text
    assert "worker 5 " not in text
    assert ", 5 more have less, 40 MiB is not the workers'. " in text
