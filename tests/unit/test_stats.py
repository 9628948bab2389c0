"""The board: what the processes of a server know of each other, in memory that they share."""

import mmap
import os
import signal
import time

import pytest

from fastwsgi._stats import Board, Row, row_state_t, wants_t


def memory_for(workers, threads, more=0):
    return mmap.mmap(-1, Board.size(workers, threads) + more)


def test_rows_are_told_apart():
    board = Board(memory_for(3, 4), 3, 4)
    rows = [board.row(index) for index in range(3)]
    for row in rows:
        row.pid = 100 + row.index
        row.generation = row.index
        row.state = row_state_t.ROW_SERVING
        row.beat = time.monotonic_ns()
        row.wants = wants_t.WANTS_MEMORY
    assert [row.pid for row in rows] == [100, 101, 102]
    assert [row.generation for row in rows] == [0, 1, 2]
    rows[1].clear()
    assert [row.pid for row in rows] == [100, 0, 102]
    assert [row.state for row in rows] == [2, 0, 2]
    assert rows[1].beat == rows[1].wants == 0


def test_a_new_row_is_empty():
    row = Board(memory_for(2, 2), 2, 2).row(1)
    assert row.state == row_state_t.ROW_EMPTY
    assert row.wants == wants_t.WANTS_NOTHING
    assert row.running() == []
    assert set(row.counters().values()) == {0}


@pytest.mark.parametrize("index", [-1, 2])
def test_there_is_no_row_beyond_the_last(index):
    with pytest.raises(IndexError, match=f"no row {index}: there are 2"):
        Board(memory_for(2, 1), 2, 1).row(index)


def test_a_row_keeps_the_memory():
    memory = memory_for(1, 1)
    row = Board(memory, 1, 1).row(0)
    with pytest.raises(BufferError):
        memory.close()
    row.pid = 7
    del row
    memory.close()


def test_it_is_found_again_in_the_same_memory(tmp_path):
    """As after an exec, where the descriptor of the memory is all that is left."""
    size = Board.size(2, 3)
    with (tmp_path / "board").open("wb+") as file:
        file.truncate(size)
        before = Board(mmap.mmap(file.fileno(), size), 2, 3)
        before.row(1).pid = 42
        before.stopping = True
        after = Board(mmap.mmap(file.fileno(), size), 2, 3)
        assert after.row(1).pid == 42
        assert after.stopping


@pytest.mark.parametrize(("workers", "threads"), [(1, 4), (2, 3)])
def test_another_layout_is_refused(workers, threads):
    memory = memory_for(2, 4)
    Board(memory, 2, 4)
    with pytest.raises(ValueError, match="laid out for another version of fastwsgi, or for other numbers"):
        Board(memory, workers, threads)


def test_other_memory_is_refused():
    memory = memory_for(1, 1)
    memory[:8] = b"garbage!"
    with pytest.raises(ValueError, match="laid out for another version"):
        Board(memory, 1, 1)


def test_memory_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match=r"a board of 8 workers with 64 threads needs \d+ octets, not 4096"):
        Board(mmap.mmap(-1, 4096), 8, 64)


def test_memory_that_cannot_be_written_is_refused():
    with pytest.raises((BufferError, TypeError)):
        Board(bytes(Board.size(1, 1)), 1, 1)


@pytest.mark.parametrize(("workers", "threads"), [(0, 1), (1, 0)])
def test_there_is_at_least_one_of_each(workers, threads):
    with pytest.raises(ValueError, match="at least one worker with one thread"):
        Board(memory_for(1, 1), workers, threads)


def test_another_process_sees_what_is_written():
    board = Board(memory_for(2, 1), 2, 1)
    child = os.fork()
    if not child:
        try:
            board.row(1).pid = os.getpid()
            board.row(1).beat = time.monotonic_ns()
            signal.pause()
        finally:
            os._exit(1)
    try:
        deadline = time.monotonic() + 10
        while not board.row(1).beat and time.monotonic() < deadline:
            time.sleep(0.001)
        assert board.row(1).pid == child
        assert abs(time.monotonic_ns() - board.row(1).beat) < 10e9
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert board.row(1).pid == child


def test_rows_come_from_a_board():
    with pytest.raises(TypeError, match="rows come from"):
        Row()


def test_nobody_is_condemned_who_does_not_run():
    row = Board(memory_for(1, 2), 1, 2).row(0)
    for thread, number in ((1, 1), (1, 0), (0, 1), (-1, 1), (99, 1)):
        assert not row.condemn(thread, number)
