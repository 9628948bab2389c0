"""--leak-report: the routes that keep memory are named with their lines, and no others."""

import contextlib
import itertools
import json
import random
import re
import sys
import threading
from pathlib import Path
from unittest.mock import ANY

import pytest

from process.operators import ask, command
from support import PATIENCE, Client, wait_until

pytestmark = pytest.mark.skipif(
    not (3, 11, 1) <= sys.version_info < (3, 13), reason="--leak-report is refused with this Python"
)

LEAKY = Path(__file__).with_name("leaky.py")


def line_of(words):
    """Where the application has these words."""
    (number,) = (i for i, line in enumerate(LEAKY.read_text().splitlines(), 1) if words in line)
    return f"leaky.py:{number}"


@contextlib.contextmanager
def asking(server, names, clients=1):
    """Ask for routes of these names, by chance, until the end."""
    ends = threading.Event()
    numbers = itertools.count()

    def ask_for_all(seed):
        by_chance = random.Random(seed)
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(Client(server.address))
            for asked in itertools.count(1):
                if ends.is_set():
                    return
                if asked % 500 == 0:  # of one connection there are not much more
                    client = stack.enter_context(Client(server.address))
                assert client.ask(f"/{by_chance.choice(names)}/{next(numbers)}").status == 200

    threads = [threading.Thread(target=ask_for_all, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ends.set()
        for thread in threads:
            thread.join()


def report_of(server):
    """What the only worker knows."""
    (worker,) = json.loads(ask(server, "/stats").content)["workers"]
    return worker["leaks"] or {"samples": 0, "routes": []}


def sample(server, names, number, clients=1):
    """Have so many samples taken."""
    with asking(server, names, clients):
        wait_until(
            lambda: report_of(server)["samples"] >= number,
            lambda: f"samples: {report_of(server)}; {server.stderr}",
            4 * PATIENCE,
        )


def last_report(server):
    """What the log says at the end: for each route that keeps memory how much, and where."""
    server.stop()
    _, _, report = server.stderr.rpartition("Requests have kept about")
    found = re.findall(r"^ +(.*) keeps (\S+ \w+) a request, .*, allocated at (.*)$", report, re.MULTILINE)
    return {route: (size, where) for route, size, where in found}


@pytest.mark.parametrize(("threads", "clients"), [(1, 1), (4, 6)])
def test_what_leaks_is_named_and_nothing_else(start, threads, clients):
    server = start("--threads", str(threads), "--leak-report", "leaky:application")
    leaking = ["leak", "named"]
    others = ["clean", "once", "garbage", "lru", "last", "produce", "consume", "wait"]
    sample(server, [*leaking, *leaking, *others], 180, clients)
    assert last_report(server) == {
        "GET /leak/*": (ANY, f"{line_of('is kept')} (leak)"),
        "the named one": ("2.99 KiB", f"{line_of('bytearray(3000)')} (named)"),
    }, server.stderr


def test_a_list_that_was_used_before(start):
    server = start("--threads", "1", "--leak-report", "leaky:application")
    sample(server, ["small", "clean"], 50)
    where = f"{line_of('KEPT.append([])')} (small_leak)"
    assert last_report(server) == {"GET /small/*": ("56 bytes", where)}, server.stderr


def test_a_list_whose_memory_was_used_in_the_same_request(start):
    server = start("--threads", "1", "--leak-report", "leaky:application")
    sample(server, ["reuse"], 30)
    ((route, (_, where)),) = last_report(server).items()
    assert (route, where) == ("GET /reuse/*", f"{line_of('this one')} (reuse)")


def test_what_leaks_in_every_second_request(start):
    server = start("--threads", "1", "--leak-report", "leaky:application")
    sample(server, ["sometimes"], 60)
    ((route, (_, where)),) = last_report(server).items()
    assert route == "GET /sometimes/*"
    assert where == f"{line_of('bytes(20_000)')} (sometimes)"


def test_it_is_told_while_the_server_runs(start):
    server = start("--leak-report", "leaky:application")
    with asking(server, ["leak"]):
        server.wait_said("Requests have kept about")
        said = command(server, "leaks").stdout
    assert re.match(r"worker \d+: \d+ samples(; from [\d.]+ MiB to [\d.]+ MiB in \d+ requests?)?\n\n", said)
    (row,) = re.findall(r"^.* GET /leak/\*.*$", said, re.MULTILINE)
    assert row.endswith(f"GET /leak/*, allocated at {line_of('is kept')} (leak)")
    server.stop()


def test_a_child_that_the_application_forks_goes_on(start):
    server = start("--leak-report", "leaky:application")
    sample(server, ["leak"], 20)
    with asking(server, ["leak"]):
        for _ in range(20):
            assert server.ask("/fork/1").text == "ok"
    server.stop()
    assert "Traceback" not in server.stderr


def test_without_the_option_there_is_a_clear_line(start):
    server = start("leaky:application")
    assert server.ask("/leak/1").text == "ok"
    result = command(server, "leaks")
    assert result.returncode == 1
    assert result.stderr == "fastwsgi: no worker samples memory: serve with --leak-report\n"
    server.stop()
