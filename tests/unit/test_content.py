"""Request content: what is kept in memory, what goes to the spool, and that nothing is lost on the way."""

import errno
import fcntl
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastwsgi._content import Content

STAGING = 128 * 1024


def pattern(size: int) -> bytes:
    """Bytes that differ from one place to the next, so that a piece at the wrong offset shows."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


def fill(content: Content, data: bytes, piece: int) -> None:
    for start in range(0, len(data), piece):
        assert content.append(data[start : start + piece]) == len(data[start : start + piece])


def test_content_of_known_length_is_allocated_once() -> None:
    content = Content(1000)
    content.append(b"a")
    assert content.capacity == 1000
    content.append(b"b" * 999)
    assert (content.capacity, content.length, content.spooled) == (1000, 1000, None)


def test_content_of_unknown_length_grows_no_further_than_the_limit() -> None:
    content = Content(memory_limit=100_000)
    capacities = set()
    while not content.must_spill:
        content.append(b"x" * 1000)
        capacities.add(content.capacity)
    assert sorted(capacities) == [16384, 32768, 65536, 100_000]
    assert content.length == 100_000


def test_content_past_the_limit_goes_to_the_spool() -> None:
    data = pattern(700_000)
    content = Content(memory_limit=100_000)
    fill(content, data, 7000)
    assert content.spooled is not None
    assert content.capacity == STAGING
    assert content.length == len(data)
    assert content.input().read() == data


def test_content_known_to_pass_the_limit_never_takes_so_much_memory() -> None:
    content = Content(10_000_000, memory_limit=1_000_000)
    assert content.must_spill
    content.append(b"x")
    assert (content.spooled, content.capacity) == (0, STAGING)


def test_content_that_just_fits_stays_in_memory() -> None:
    content = Content(512 * 1024)
    fill(content, pattern(512 * 1024), 65536)
    assert content.spooled is None
    assert not content.must_spill


def test_nothing_is_spilled_when_all_is_there() -> None:
    content = Content(STAGING, memory_limit=10)
    content.append(pattern(STAGING))
    assert content.spooled == 0
    assert not content.must_spill
    assert content.input().read() == pattern(STAGING)


def test_not_more_is_taken_than_is_expected() -> None:
    content = Content(5)
    assert content.append(b"hello, world") == 5
    assert content.append(b"more") == 0
    assert content.receive(b"more") == 0
    assert content.input().read() == b"hello"


def test_no_content() -> None:
    content = Content(0)
    assert not content.must_spill
    assert content.receive(b"next request") == 0
    assert content.capacity == 0
    assert content.input().read() == b""


def test_a_limit_of_nothing_spools_everything() -> None:
    content = Content(memory_limit=0)
    content.append(b"abc")
    assert content.spooled == 0
    content.spill()
    assert content.spooled == 3
    assert content.input().read() == b"abc"


def test_received_in_place() -> None:
    data = pattern(500_000)
    content = Content(len(data), memory_limit=1000)
    at = 0
    while at < len(data):
        at += content.receive(data[at : at + 50_000])
    assert content.input().read() == data


@given(
    st.lists(st.integers(0, 5000), max_size=20),
    st.integers(0, 20_000),
    st.booleans(),
)
def test_pieces_and_limits_change_nothing(sizes: list[int], memory_limit: int, is_length_known: bool) -> None:
    data = pattern(sum(sizes))
    content = Content(len(data) if is_length_known else None, memory_limit=memory_limit)
    at = 0
    for size in sizes:
        assert content.append(data[at : at + size]) == size
        at += size
        if size % 7 == 0:
            content.spill()
    assert content.length == len(data)
    assert content.input().read() == data


def test_the_input_takes_everything_over() -> None:
    content = Content(memory_limit=10)
    content.append(b"a" * 100)
    taken = content.input()
    assert (content.length, content.spool, content.capacity) == (0, -1, 0)
    content.append(b"b" * 100)
    assert content.input().read() == b"b" * 100
    assert taken.read() == b"a" * 100


def test_the_spool_has_no_name_and_no_heirs(tmp_path: Path) -> None:
    content = Content(memory_limit=10, directory=tmp_path)
    content.append(b"a" * 100)
    assert list(tmp_path.iterdir()) == []
    assert fcntl.fcntl(content.spool, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert os.fstat(content.spool).st_nlink == 0
    assert os.fstat(content.spool).st_mode & 0o777 == 0o600


def test_the_spool_is_closed_with_its_owner() -> None:
    content = Content(memory_limit=0)
    content.spill()
    spool = content.spool
    del content
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(spool)

    content = Content(memory_limit=0)
    content.spill()
    spool = content.spool
    taken = content.input()
    del content
    os.fstat(spool)
    del taken
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(spool)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    content = Content(memory_limit=10, directory=tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        content.append(b"a" * 100)
    assert content.length == 10


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_reported_and_nothing_is_lost() -> None:
    content = Content(memory_limit=10)
    content.append(b"a" * 100)
    content.spill()
    content.append(b"b" * 50)
    spool = os.dup(content.spool)
    full = os.open("/dev/full", os.O_RDWR)
    try:
        os.dup2(full, content.spool)
        with pytest.raises(OSError) as caught:
            content.spill()
        assert caught.value.errno == errno.ENOSPC
        os.dup2(spool, content.spool)
    finally:
        os.close(full)
        os.close(spool)
    assert content.input().read() == b"a" * 100 + b"b" * 50
