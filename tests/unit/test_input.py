"""wsgi.input: the same answers as io.BytesIO, wherever the content lies."""

import array
import gc
import io
import os
import sys
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastwsgi._content import Content, Input, small_input

BLOCK = 64 * 1024


def in_memory(data: bytes) -> Input:
    content = Content(len(data))
    content.append(data)
    return content.input()


def spooled(data: bytes) -> Input:
    content = Content(memory_limit=0)
    content.append(data)
    content.spill()
    return content.input()


def partly_spooled(data: bytes) -> Input:
    """The end of the content is still in memory."""
    content = Content(memory_limit=0)
    content.append(data[: len(data) * 2 // 3])
    content.spill()
    content.append(data[len(data) * 2 // 3 :])
    return content.input()


MAKERS = [small_input, in_memory, spooled, partly_spooled]
makers = pytest.mark.parametrize("make", MAKERS)
Make = Callable[[bytes], Input]

sizes = st.one_of(
    st.none(), st.integers(-2, 40), st.sampled_from([10_000, BLOCK, 2**31, 2**63 - 1, 2**64, -(2**70)])
)
operations = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["read", "read1", "readline", "readlines"]), sizes),
        st.tuples(st.just("readinto"), st.integers(0, 50)),
        st.tuples(st.just("next"), st.none()),
    ),
    max_size=30,
)
contents = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from([b"\n", b"a\n", b"line of text\r\n", b"x" * 50, b"\x00\xff"]), max_size=60).map(
        b"".join
    ),
)


def perform(file: io.BytesIO | Input, operation: str, argument: int | None) -> object:
    if operation == "readinto":
        target = bytearray(b"?" * argument)
        count = file.readinto(target)
        return count, bytes(target)
    if operation == "next":
        return next(iter(file), None)
    if argument is not None and abs(argument) >= 2**63 and isinstance(file, io.BytesIO):
        # BytesIO refuses what does not fit; an Input takes it for any other large number.
        argument = 2**62 if argument > 0 else -1
    return getattr(file, operation)(argument)


@makers
@given(contents, operations)
def test_as_bytes_io(make: Make, data: bytes, steps: list[tuple[str, int | None]]) -> None:
    expected = io.BytesIO(data)
    actual = make(data)
    for operation, argument in steps:
        assert perform(actual, operation, argument) == perform(expected, operation, argument)
    assert actual.read() == expected.read()
    assert actual.read() == b""


large = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["read", "readline"]), st.integers(0, 3 * BLOCK)),
        st.tuples(st.just("readinto"), st.integers(0, 2 * BLOCK)),
        st.tuples(st.just("readline"), st.none()),
    ),
    max_size=20,
)


@makers
@settings(max_examples=40)
@given(st.lists(st.integers(0, 2 * BLOCK), max_size=8), large)
def test_as_bytes_io_across_blocks(make: Make, lines: list[int], steps: list[tuple[str, int | None]]) -> None:
    data = b"".join(bytes([65 + number]) * size + b"\n" for number, size in enumerate(lines))
    expected = io.BytesIO(data)
    actual = make(data)
    for operation, argument in steps:
        assert perform(actual, operation, argument) == perform(expected, operation, argument)
    assert actual.readlines() == expected.readlines()


@makers
@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_newlines_at_the_edges_of_blocks(make: Make, size: int) -> None:
    data = b"a" * (size - 1) + b"\n" + b"b" * size + b"\n\n" + b"c"
    assert list(make(data)) == data.splitlines(keepends=True)


@makers
def test_everything_at_once_and_then_nothing(make: Make) -> None:
    data = os.urandom(200_000)
    file = make(data)
    assert file.read() == data
    assert file.read() == b""
    assert file.read(5) == b""
    assert file.readline() == b""
    assert file.readlines() == []
    assert file.readinto(bytearray(5)) == 0
    assert list(file) == []


def test_a_small_content_is_not_copied() -> None:
    file = small_input(b"hello, world")
    whole = file.read()
    assert whole == b"hello, world"
    held = sys.getrefcount(whole)
    del file
    assert sys.getrefcount(whole) == held - 1


def test_nothing() -> None:
    for file in (small_input(b""), Input()):
        assert file.read() == file.read(10) == file.readline() == b""
        assert file.readlines() == list(file) == []


@makers
@pytest.mark.parametrize("method", ["read", "read1", "readline", "readlines"])
@pytest.mark.parametrize("size", ["1", 1.5, b"1", object()])
def test_a_size_is_a_number(make: Make, method: str, size: object) -> None:
    file = make(b"abc\n")
    with pytest.raises(TypeError):
        getattr(file, method)(size)
    assert file.read() == b"abc\n"


def test_a_size_may_be_anything_that_is_a_number() -> None:
    class Three:
        def __index__(self) -> int:
            return 3

    assert in_memory(b"abcdef").read(Three()) == b"abc"
    assert in_memory(b"abcdef").read(size=2) == b"ab"


@makers
def test_readinto_any_writable_buffer(make: Make) -> None:
    numbers = array.array("i", [0, 0])
    assert make(b"\x01" * 6).readinto(numbers) == 6
    assert numbers.tobytes() == b"\x01" * 6 + b"\x00" * 2
    view = memoryview(bytearray(10))
    assert make(b"abcdef").readinto1(view[2:5]) == 3
    assert bytes(view) == b"\0\0abc\0\0\0\0\0"
    for refused in (b"bytes", "text", 5, None, memoryview(b"bytes")):
        with pytest.raises(TypeError):
            make(b"abcdef").readinto(refused)


@makers
def test_under_the_io_module(make: Make) -> None:
    data = "Zeile\r\nnächste ✓\n" * 20_000
    with io.TextIOWrapper(make(data.encode()), "utf-8", newline="") as text:
        assert text.read() == data
    buffered = io.BufferedReader(make(data.encode()), 1000)
    assert buffered.peek(3)[:3] == b"Zei"
    assert b"".join(buffered) == data.encode()


@makers
def test_close_closes_nothing(make: Make) -> None:
    file = make(b"abc")
    file.close()
    assert not file.closed
    assert (file.readable(), file.writable(), file.seekable()) == (True, False, False)
    assert file.read() == b"abc"


def test_no_dictionary_and_no_cycle() -> None:
    file = small_input(b"abc")
    with pytest.raises(AttributeError):
        file.anything = 1
    assert not gc.is_tracked(file)


def test_a_spool_that_was_cut_is_an_error() -> None:
    content = Content(memory_limit=0)
    content.append(b"a" * 100_000)
    content.spill()
    os.ftruncate(content.spool, 10)
    file = content.input()
    for read in (file.read, file.readline, lambda: file.readinto(bytearray(1000)), lambda: file.read(20)):
        with pytest.raises(OSError, match="cannot read the spooled request content"):
            read()


def test_pieces_of_a_large_spool_take_no_more_memory_than_a_piece() -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    content = Content(memory_limit=0)
    content.spill()
    for _ in range(64):
        content.append(bytes(1 << 20))
    file = content.input()
    tracemalloc.start()
    try:
        total = 0
        while piece := file.read(1 << 20):
            total += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 64 << 20
    assert peak < 3 << 20


@makers
def test_threads_share_the_bytes_out(make: Make) -> None:
    lines = [b"%07d%s\n" % (number, b"." * (number % 100)) for number in range(40_000)]
    file = make(b"".join(lines))
    found: list[list[bytes]] = [[] for _ in range(4)]

    def read(mine: list[bytes]) -> None:
        while line := file.readline():
            mine.append(line)

    threads = [threading.Thread(target=read, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line for mine in found for line in mine) == lines


@makers
def test_threads_that_read_in_every_way_do_not_crash(make: Make) -> None:
    file = make(os.urandom(3_000_000))
    total = []

    def read(number: int) -> None:
        mine = 0
        target = bytearray(100_000)
        while True:
            if number == 0:
                got = len(file.read(1000))
            elif number == 1:
                got = len(file.readline(200_000))
            elif number == 2:
                got = file.readinto(target)
            else:
                got = len(file.read(80_000))
            if not got:
                break
            mine += got
        total.append(mine)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(total) == 3_000_000
