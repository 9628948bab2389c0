"""Rates: what a client may have, in one process and in several."""

import os
import random

import pytest

from fastwsgi._rates import MOST_AHEAD, Rate, Rates

SECOND = 1_000_000_000
# Some moment after the table was made, by a clock of the test's own.
NOON = 1 << 60


def passed(rate, address, *moments):
    """Which of the requests at these moments (seconds) are let through."""
    return [rate.wait(address, now_ns=NOON + round(moment * SECOND)) == 0 for moment in moments]


def test_one_in_an_interval():
    rate = Rate(Rates(), 0.1, 0)
    assert passed(rate, b"10.0.0.1", 0, 0.05, 0.099, 0.1, 0.15, 0.3) == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]


def test_a_burst_at_once_and_then_the_rate():
    rate = Rate(Rates(), 0.1, 3)
    assert passed(rate, b"10.0.0.1", 0, 0, 0, 0, 0) == [True] * 4 + [False]
    assert passed(rate, b"10.0.0.1", 0.1, 0.1, 0.2, 0.2) == [True, False, True, False]
    assert passed(rate, b"10.0.0.1", 10, 10, 10, 10, 10) == [True] * 4 + [False]


def test_it_says_how_long_to_wait():
    rate = Rate(Rates(), 60, 1)
    assert [rate.wait(b"10.0.0.1", now_ns=NOON) for _ in range(2)] == [0, 0]
    assert rate.wait(b"10.0.0.1", now_ns=NOON + 20 * SECOND) == 40
    assert rate.wait(b"10.0.0.1", now_ns=NOON + 20 * SECOND) == 40, "what is refused takes nothing"


def test_a_look_takes_nothing():
    rate = Rate(Rates(), 1, 0)
    assert [rate.wait(b"10.0.0.1", takes=False, now_ns=NOON) for _ in range(3)] == [0, 0, 0]
    assert rate.wait(b"10.0.0.1", now_ns=NOON) == 0
    assert rate.wait(b"10.0.0.1", takes=False, now_ns=NOON) == 1


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (b"10.0.0.1", b"10.0.0.2", False),
        (b"10.0.0.1", b"::ffff:10.0.0.1", True),
        (b"2001:db8::1", b"2001:db8::2", True),
        (b"2001:db8::1", b"2001:db8:0:0:ffff::2", True),
        (b"2001:db8::1", b"2001:db8:0:1::1", False),
        (b"::1", b"10.0.0.1", False),
    ],
)
def test_who_is_the_same_client(one, other, is_same):
    rate = Rate(Rates(), 1, 0)
    assert passed(rate, one, 0) == [True]
    assert passed(rate, other, 0) == [not is_same]


def test_rates_of_one_table_do_not_touch():
    table = Rates()
    one, other = Rate(table, 1, 0), Rate(table, 60, 0)
    assert passed(one, b"10.0.0.1", 0, 0) == [True, False]
    assert passed(other, b"10.0.0.1", 0, 0) == [True, False]
    assert passed(one, b"10.0.0.1", 2) == [True]
    assert passed(other, b"10.0.0.1", 2) == [False]


def test_many_clients_each_have_what_is_theirs():
    """No one is refused for another's requests, as long as the table has room."""
    rate = Rate(Rates(), 1, 1)
    drawn = random.Random(7).sample(range(1 << 24), 20_000)
    clients = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}".encode() for number in drawn]
    refused = sum(passed(rate, client, 0, 0, 0) != [True, True, False] for client in clients)
    # Two that share a tag of 20 bits and a set of 8 words are one client.
    assert refused <= 2


def test_more_clients_than_the_table_holds():
    """A flood of clients does not get one refused that comes for the first time."""
    rate = Rate(Rates(), 3600, 0)
    clients = [f"2001:db8:{number >> 8:x}:{number & 255:x}::1".encode() for number in range(1 << 18)]
    refused = sum(not all(passed(rate, client, 0)) for client in clients)
    assert refused <= 8


def test_a_client_that_comes_back_after_half_a_year_begins_anew():
    """The times in the table come round after 203 days."""
    rate = Rate(Rates(), 1, 5)
    half = (1 << 43) / 1e6
    for around in (half - 2, half, half + 2, 2 * half - 2, 2 * half + 10):
        assert passed(rate, b"10.0.0.1", around, around) == [True, True]


def test_a_turn_that_is_late_by_its_clock():
    """Another worker's request was counted with a clock that is ahead of ours."""
    rate = Rate(Rates(), 0.01, 1)
    assert passed(rate, b"10.0.0.1", 5, 5, 5) == [True, True, False]
    assert passed(rate, b"10.0.0.1", 4.9, 4.9) == [False, False]


def test_all_processes_count_together():
    rate = Rate(Rates(), 60, 999)
    readers = []
    for _ in range(4):
        reader, writer = os.pipe()
        if os.fork() == 0:
            count = sum(rate.wait(b"10.0.0.1", now_ns=NOON) == 0 for _ in range(1000))
            os.write(writer, count.to_bytes(4, "little"))
            os._exit(0)
        os.close(writer)
        readers.append(reader)
    counts = []
    for reader in readers:
        counts.append(int.from_bytes(os.read(reader, 4), "little"))
        os.close(reader)
        assert os.wait()[1] == 0
    assert sum(counts) == 1000


def test_what_is_no_rate():
    for interval, burst in ((0, 1), (1, -1), (MOST_AHEAD, 1)):
        with pytest.raises(ValueError, match="at least"):
            Rate(Rates(), interval, burst)
    with pytest.raises(ValueError, match="no address"):
        Rate(Rates(), 1, 0).wait(b"nobody")
