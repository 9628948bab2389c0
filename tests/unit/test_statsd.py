"""What a statsd server is sent, over real sockets."""

import logging
import mmap
import os
import re
import socket

import pytest

from fastwsgi import statsd
from fastwsgi._stats import TIME_BOUNDS, Board, row_state_t, totals
from fastwsgi.statsd import DATAGRAM, Statsd, counts, durations, packed


@pytest.fixture
def boards():
    board = Board(mmap.mmap(-1, Board.size(2, 4)), 2, 4)
    board.row(0).pid = os.getpid()
    board.row(0).state = row_state_t.ROW_SERVING
    return [board]


@pytest.fixture(params=["udp", "unix"])
def server(request, short_path):
    """A socket that receives, and its address as the option has it."""
    if request.param == "udp":
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(5)
            yield sock, f"127.0.0.1:{sock.getsockname()[1]}"
    else:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(str(short_path / "statsd"))
            sock.settimeout(5)
            yield sock, f"unix:{short_path / 'statsd'}"


def test_how_things_are(server, boards):
    sock, address = server
    sender = Statsd(address)
    sender.tick(boards)
    lines = sock.recv(65536).decode().splitlines()
    assert lines == [
        "fastwsgi.workers:1|g",
        "fastwsgi.connections:0|g",
        "fastwsgi.threads.busy:0|g",
        "fastwsgi.requests.waiting:0|g",
    ]
    sender.close()


@pytest.mark.parametrize("prefix", ["shop.web", "shop.web."])
def test_prefix_and_tags(server, boards, prefix):
    sock, address = server
    sender = Statsd(address, prefix, "env:test,app:shop")
    sender.tick(boards)
    assert sock.recv(65536).decode().startswith("shop.web.fastwsgi.workers:1|g|#env:test,app:shop\n")
    sender.close()


def test_a_server_that_is_not_there(short_path, boards, caplog):
    address = f"unix:{short_path / 'statsd'}"
    sender = Statsd(address)
    with caplog.at_level(logging.WARNING, "fastwsgi"):
        for _ in range(3):
            sender.tick(boards)
    [message] = caplog.messages
    assert message == f"nothing can be sent to {address} (--statsd-host): No such file or directory"


def test_a_server_that_stays_away_is_told_of_once(boards, caplog, monkeypatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    monkeypatch.setattr(statsd, "PAUSE", 0)
    sender = Statsd(address)
    with caplog.at_level(logging.WARNING, "fastwsgi"):
        for _ in range(6):
            sender.tick(boards)
    sender.close()
    assert caplog.messages == [f"nothing can be sent to {address} (--statsd-host): Connection refused"]


def test_a_server_that_does_not_read_holds_nobody_up(server, boards):
    _, address = server
    sender = Statsd(address)
    for _ in range(20_000 if address.startswith("unix") else 100):
        sender.tick([])
    sender.close()


def test_what_has_become_more(boards):
    before = totals(boards)
    now = before._replace(
        statuses={200: 7, 404: 1, 0: 2},
        failed=2,
        timeouts=1,
        refused={**before.refused, "REFUSAL_NO_HOST": 3},
        times={**before.times, "all": ([4, *[0] * len(TIME_BOUNDS)], 0.00002)},
    )
    assert list(counts(before, now)) == [
        "fastwsgi.requests:10|c",
        "fastwsgi.application.errors:2|c",
        "fastwsgi.refused:3|c",
        "fastwsgi.timeouts:1|c",
        "fastwsgi.request.status.200:7|c",
        "fastwsgi.request.status.404:1|c",
        "fastwsgi.request.status.other:2|c",
        "fastwsgi.request.duration:0.005|ms|@0.250000000000",
    ]
    assert list(counts(now, now)) == []
    # Of a board that was lost: nothing is taken back.
    assert list(counts(now, before)) == []


@pytest.mark.parametrize("numbers", [{3: 1}, {0: 49, 16: 3}, {5: 99_999, 23: 7}])
def test_the_sum_of_durations_is_right(numbers):
    zero = [0] * (len(TIME_BOUNDS) + 1)
    seen = [numbers.get(i, 0) for i in range(len(zero))]
    lines = list(durations((zero, 1.0), (seen, 43.0)))
    total = count = 0
    for line in lines:
        duration, rate = re.fullmatch(
            r"fastwsgi.request.duration:([\d.]+)\|ms(?:\|@(0\.\d+))?", line
        ).groups()
        times = int(1 / float(rate or 1))
        total += times * float(duration)
        count += times
    assert count == sum(seen)
    assert total == pytest.approx(42_000, rel=0.01)
    assert len(lines) == len(numbers)


def test_lines_go_together():
    lines = [b"x" * 100] * 50
    datagrams = list(packed(lines))
    assert b"\n".join(datagrams).split(b"\n") == lines
    assert all(len(datagram) <= DATAGRAM for datagram in datagrams)
    assert len(datagrams) == 4
    assert list(packed([])) == []
    assert list(packed([b"x" * 2000])) == [b"x" * 2000]
