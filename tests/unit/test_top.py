"""The screen of `fastwsgi top` as lines of text, and what `fastwsgi stats` and `stacks` print."""

import pytest

from fastwsgi.cli import CONSOLE
from fastwsgi.console import USAGE, parse, plain, stack_text, stacks_text, stats_text
from fastwsgi.errors import ConfigError
from fastwsgi.top import Screen


def worker(pid=100, requests=5, **more):
    return {
        **dict.fromkeys(("exchanges", "queued", "connections", "timeouts"), 0),
        "pid": pid,
        "generation": 1,
        "state": "serving",
        "age": 60.0,
        "memory": 20 << 20,
        "requests": requests,
        **more,
    }


def running(thread, age, line="GET /", **more):
    return {
        "worker": 100,
        "thread": thread,
        "number": thread * 10,
        "phase": "in the application",
        "line": line,
        "client": "127.0.0.1",
        "request_id": "",
        "age": age,
        "stack": "",
        "stack_age": 0.0,
        **more,
    }


def times(*counts):
    """Of requests that took up to 1, 2 and 4 ms, and longer."""
    return {"bounds": [0.001, 0.002, 0.004], "counts": [*counts, 0, 0, 0, 0][:4]}


def stats(*requests, workers=None, **more):
    return {
        "version": "1.2.3",
        "pid": 99,
        "application": "shop:app",
        "addresses": ["http://127.0.0.1:8000"],
        "uptime": 60.0,
        "generation": 1,
        "wanted": 1,
        "reloads": 0,
        "failure": "",
        "reloading": False,
        "stopping": False,
        "times": times(),
        "host": {"cpus": 1.5, "memory": 512 << 20, "used": None, "cache": None, "waited": None},
        "workers": [worker()] if workers is None else workers,
        "requests": list(requests),
        **more,
    }


def shown(screen, height=24, width=80):
    lines, _ = screen.lines(height, width)
    return lines


@pytest.mark.parametrize("height", range(30))
@pytest.mark.parametrize("stack", [False, True])
def test_it_fits_whatever_the_size(height, stack):
    screen = Screen(stats(*(running(thread, 3.0, stack="  line\n" * 40) for thread in range(1, 30))))
    for _ in range(20):
        screen.move(1)
    if stack:
        screen.open()
    for width in (1, 2, 10, 80, 200):
        lines, marked = screen.lines(height, width)
        assert len(lines) <= max(height, 0)
        assert all(len(line) < max(width, 1) for line in lines)
        assert marked < max(height, 1)


def test_the_selected_one_is_always_in_sight():
    screen = Screen(stats(*(running(thread, 3.0, f"GET /{thread}") for thread in range(1, 30))))
    for thread in range(1, 30):
        screen.move(1)
        lines, marked = screen.lines(12, 80)
        assert lines[marked].endswith(f"GET /{thread}")
    screen.move(1)
    assert screen.current["thread"] == 29
    for _ in range(40):
        screen.move(-1)
    assert screen.current["thread"] == 1


def test_what_was_selected_stays_so_while_others_come_and_go():
    screen = Screen(stats(running(1, 2.0), running(2, 1.0)))
    screen.move(1)
    screen.move(1)
    screen.take(stats(running(3, 9.0), running(2, 1.0)))
    assert screen.current["thread"] == 2
    screen.take(stats(running(3, 9.0)))
    assert screen.selected is None


def test_another_request_of_the_same_thread_is_not_the_one_that_was_selected():
    screen = Screen(stats(running(1, 2.0)))
    screen.open()
    screen.take(stats(running(1, 0.1, number=11)))
    assert "it does not run any more" in shown(screen)
    screen.ask_to_end()
    assert screen.asks is None
    assert "it does not run any more" in shown(screen)[-1]


def test_of_a_stack_the_end_is_seen_first():
    text = "".join(f"  line {number}\n" for number in range(60))
    screen = Screen(stats(running(1, 2.0, stack=text, stack_age=0.5)))
    screen.open()
    assert shown(screen)[-2] == "  line 59"
    screen.move(-1)
    assert shown(screen)[-2] == "  line 58"
    for _ in range(100):
        screen.move(-1)
    assert "  line 0" in shown(screen)
    screen.move(1)
    assert "  line 0" not in shown(screen)
    screen.back()
    assert not screen.shows_stack


def test_rates_and_latencies_are_of_the_last_seconds():
    screen = Screen(stats(times=times(1000, 1000), uptime=60.0))
    assert shown(screen)[2].startswith("- requests/s  p50 -  p99 -  ")
    screen.take(stats(times=times(1100, 1100), uptime=62.0))
    assert shown(screen)[2].startswith("100 requests/s  p50 1 ms  p99 2 ms  ")
    for second in range(63, 80):
        screen.take(stats(times=times(1100, 1100, 0, 2 * second), uptime=float(second)))
    assert shown(screen)[2].startswith("2 requests/s  p50 over 4 ms  p99 over 4 ms  ")


def test_latencies_since_the_start():
    assert "400 requests since the start: p50 1.5 ms  p99 3.9 ms" in stats_text(
        stats(times=times(100, 200, 100))
    )
    assert "0 requests since the start: p50 -  p99 -" in stats_text(stats())


def test_what_the_host_has():
    assert stats_text(stats()).splitlines()[2] == "CPUs 1.5, memory 512 MiB"
    host = {"cpus": 2, "memory": 512 << 20, "used": 412 << 20, "cache": 12 << 20, "waited": 0.1234}
    assert stats_text(stats(host=host)).splitlines()[2] == (
        "CPUs 2, memory 512 MiB: 400 MiB used, 12 MiB of page cache, waited for 12.3% of the last 10 s"
    )


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"stopping": True, "reloading": True}, "stopping"),
        ({"reloading": True}, "reloading"),
        ({"failure": "no"}, "reload failed"),
    ],
)
def test_how_far_things_are(state, words):
    assert shown(Screen(stats(**state)))[0].endswith(words)
    assert stats_text(stats(**state)).splitlines()[0].endswith(words)


def test_a_worker_whose_memory_is_not_told():
    assert "?" in stats_text(stats(workers=[worker(memory=None)]))
    assert "0 bytes" in shown(Screen(stats(workers=[worker(memory=None)])))[2]


def test_nothing_reaches_the_terminal_but_text():
    hostile = "\x1b]0;title\x07\x9b2J\r\n\u202e\u00e9"
    assert plain(hostile) == "\\x1b]0;title\\x07\\x9b2J\\r\n\\u202e\\xe9"
    one = running(1, 2.0, stack=f"  {hostile}\n", client=hostile, request_id=hostile)
    for text in (stats_text(stats(one)), stacks_text(stats(one), None)):
        assert all(character == "\n" or " " <= character <= "~" for character in text)
    assert all(" " <= character <= "~" for line in shown(Screen(stats(one))) for character in line)


def test_why_there_is_no_stack():
    assert "once a request is older than a second" in stack_text(running(1, 0.5))
    assert "as when C code holds the GIL" in stack_text(running(1, 5.0))


def test_stacks_of_one_worker():
    told = stats(
        running(1, 2.0, "GET /a"), running(1, 2.0, "GET /b", worker=101), workers=[worker(), worker(101)]
    )
    assert "GET /a" in stacks_text(told, 100)
    assert "GET /b" not in stacks_text(told, 100)
    with pytest.raises(ConfigError, match="no worker has the number 7"):
        stacks_text(told, 7)


def test_help_of_a_command():
    assert tuple(USAGE) == CONSOLE
    assert parse("top", ["--help"]) is None
    with pytest.raises(ConfigError, match="fastwsgi top takes no app:app"):
        parse("top", ["app:app"])
