"""Threads that are stuck: the answer comes all the same, and a worker that has lost too many ends."""

import contextlib
import time

import pytest

from support import request, wait_until


def test_503_while_the_gil_is_held(start_crew):
    server = start_crew("apps:hold_gil", "--timeout", "500ms")
    assert server.ask().text == "hello"
    client = server.connect()
    begun = time.monotonic()
    client.send(request("/gil"))
    assert client.read_response().status == 503
    assert time.monotonic() - begun < 1.8
    client.expect_end()
    # Others wait for the GIL, and for no longer.
    wait_until(lambda: server.ask().text == "hello", "the end of it")
    server.stop()


def test_a_stream_is_given_up_while_the_gil_is_held(start_crew):
    """Its thread waits for the GIL after a large block, and must not hold its slot meanwhile."""
    server = start_crew("apps:hold_gil", "--timeout", "500ms", "--threads", "4")
    client = server.connect()
    client.send(request("/stream"))
    client.read_head()
    client.take(1_000_000)
    other = server.connect()
    other.send(request("/gil"))
    begun = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while client.receive():
            client.received.clear()
    assert time.monotonic() - begun < 1.8
    assert other.read_response().status == 503
    wait_until(lambda: server.ask().text == "hello", "the end of it")
    server.stop()


def test_a_lost_thread_is_replaced_while_stopping(start_polled):
    server = start_polled(
        "apps:lose_threads", "--timeout", "500ms", "--threads", "1", "--graceful-timeout", "10s"
    )
    stuck, queued = server.connect(), server.connect()
    stuck.send(request("/lose"))
    time.sleep(0.1)
    queued.send(request("/"))
    time.sleep(0.1)
    server.terminate()
    assert stuck.read_response().status == 503
    assert queued.read_response().text == "hello"
    assert server.wait() == 0


@pytest.mark.parametrize("workers", ["0", "1"])
def test_too_many_lost_threads_end_the_worker(start_polled, workers):
    server = start_polled(
        *("--workers", workers, "--timeout", "200ms", "--threads", "1", "--graceful-timeout", "1s"),
        "apps:lose_threads",
    )
    for _ in range(4):
        assert server.ask("/lose").status == 503
        assert server.ask("/").text == "hello"
    assert server.ask("/lose").status == 503
    server.wait_said("Too many threads")
    if workers == "0":
        assert server.wait() == 5
    else:
        server.wait_said("too many of its threads did not come back")
        assert server.ask("/").text == "hello"
        server.stop()
    assert server.stderr.count("takes its place") == 4
