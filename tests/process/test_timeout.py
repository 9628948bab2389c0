"""Threads that are stuck: the answer comes all the same, and a worker that has lost too many ends."""

import time

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


def test_too_many_lost_threads_end_the_worker(start_polled):
    server = start_polled(
        "apps:lose_threads", "--timeout", "200ms", "--threads", "1", "--graceful-timeout", "1s"
    )
    for _ in range(4):
        assert server.ask("/lose").status == 503
        assert server.ask("/").text == "hello"
    assert server.ask("/lose").status == 503
    server.wait_said("Too many threads")
    assert server.wait() == 5
    assert server.stderr.count("takes its place") == 4
