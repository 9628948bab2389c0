"""--leak-report: the routes that keep memory are named with their lines, and no others."""

import contextlib
import itertools
import json
import random
import re
import threading
from pathlib import Path

import pytest

from process.operators import ask, command
from support import PATIENCE, Client, wait_until

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
    """What the only worker knows: its routes by name."""
    (worker,) = json.loads(ask(server, "/stats").content)["workers"]
    return {one["route"]: one for one in (worker["leaks"] or {"routes": []})["routes"]}


def wait_for_samples(server, routes, least):
    """Wait until so many samples of each route were looked at; return the report."""

    def there():
        report = report_of(server)
        enough = all(name in report and report[name]["samples"] >= least for name in routes)
        return report if enough else None

    return wait_until(there, lambda: f"samples: {report_of(server)}; {server.stderr}", 4 * PATIENCE)


def leaking(report):
    return {name for name, one in report.items() if one["leaks"]}


@pytest.mark.parametrize(("threads", "clients"), [(1, 1), (4, 6)])
def test_what_leaks_is_named_and_nothing_else(start, threads, clients):
    server = start("--threads", str(threads), "--leak-report", "leaky:application")
    names = ["leak", "clean", "once", "garbage", "lru", "last", "produce", "consume", "wait", "named"]
    routes = {*(f"GET /{name}/*" for name in names if name != "named"), "the named one"}
    with asking(server, names, clients):
        report = wait_for_samples(server, routes, 12)
        server.wait_said("Requests have kept about")
    assert leaking(report) == {"GET /leak/*", "the named one"}, report
    kept = report["GET /leak/*"]
    assert kept["where"] == [f"{line_of('is kept')} (leak)"]
    assert 10_000 < kept["kept"] < 16_000
    assert 3000 < report["the named one"]["kept"] < 3300
    said = command(server, "leaks").stdout
    assert f"GET /leak/*, allocated at {line_of('is kept')} (leak)" in said
    assert re.search(r" - +- +\d+ +\d+  GET /clean/\*\n", said)
    server.stop()
    # At the end once more, with what was known then.
    assert "(--leak-report)" in server.lines[-2] or "(--leak-report)" in server.stderr.split("Stopp")[-1]


def test_leaks_that_are_small_or_rare(start):
    server = start("--threads", "1", "--leak-report", "leaky:application")
    with asking(server, ["small", "clean"]):
        report = wait_for_samples(server, ["GET /small/*", "GET /clean/*"], 20)
    assert leaking(report) == {"GET /small/*"}, report
    assert 40 <= report["GET /small/*"]["kept"] <= 80
    assert report["GET /small/*"]["where"] == [f"{line_of('KEPT.append([])')} (small_leak)"]
    with asking(server, ["sometimes"]):
        report = wait_for_samples(server, ["GET /sometimes/*"], 60)
    assert "GET /sometimes/*" in leaking(report)
    assert report["GET /sometimes/*"]["where"] == [f"{line_of('bytes(20_000)')} (sometimes)"]
    server.stop()


def test_without_the_option_there_is_a_clear_line(start):
    server = start("leaky:application")
    assert server.ask("/leak/1").text == "ok"
    result = command(server, "leaks")
    assert result.returncode == 1
    assert result.stderr == "fastwsgi: no worker samples memory: serve with --leak-report\n"
    server.stop()
