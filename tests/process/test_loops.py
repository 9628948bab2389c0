"""A worker with several loops below a supervisor; and what becomes of loops where there is a GIL."""

import os
import re
import signal

import pytest

from fastwsgi import gil
from process.family import WAYS, renew, stop, wait_for_workers, workers_of
from process.load import load
from process.operators import stats_of
from support import request, wait_until

# An import that turns the GIL on, as the server sees it with any Python.
TURNED_ON = """
from fastwsgi import gil
gil._had_gil, gil._culprit, gil.has_gil = False, "old_extension", lambda: True
"""

LATER = f"""
import os, threading
def turn_on():
    while not os.path.exists("turn-on"):
        time.sleep(0.01)
    exec({TURNED_ON!r})
import time
threading.Thread(target=turn_on, daemon=True).start()
"""

# It says nothing on free threading, and so wants a GIL.
EXTENSION = """
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "old_extension", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_old_extension(void) { return PyModule_Create(&module); }
"""


@WAYS
def test_a_reload_and_an_upgrade_fail_nobody(start_site, site, options):
    server = start_site("--loops", "2", *options)
    assert "2 workers of 4 threads over 2 loops" in server.stderr
    with load(server.address) as running:
        running.wait_answers()
        renew(server, site, running)
    running.report.check()
    stop(server)


def test_requests_of_all_loops_count_for_max_requests(start_site):
    server = start_site("--loops", "2", "--max-requests", "100", "--max-requests-jitter", "0", workers=1)
    with load(server.address) as running:
        wait_until(lambda: server.stderr.count("has left after") >= 3, lambda: server.stderr)
    running.report.check()
    stop(server)


def test_one_worker_is_shown(start_site):
    server = start_site("--loops", "2", workers=1)
    clients = [server.connect() for _ in range(12)]
    for client in clients:
        client.send(request("/7?sleep=1"))
    wait_until(lambda: len(stats_of(server)["requests"]) == 4, lambda: f"four run: {stats_of(server)}")
    found = stats_of(server)
    [worker] = found["workers"]
    assert {one["worker"] for one in found["requests"]} == {worker["pid"]}
    assert sorted(one["thread"] for one in found["requests"]) == [1, 2, 3, 4]
    assert worker["connections"] == 12
    assert worker["waiting"] == 8
    for client in clients:
        assert client.read_response().status == 200
    assert stats_of(server)["workers"][0]["requests"] == 12
    stop(server)


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_processes_where_an_import_turns_the_gil_on(start_site, site, options):
    site.write("1", TURNED_ON)
    server = start_site("--loops", "2", *options, workers=1)
    wait_for_workers(server, 2 + len(options))
    assert server.stderr.count("has turned the GIL on") == 1
    assert "old_extension has turned the GIL on, for the whole process" in server.stderr
    assert re.search("with [12] workers? of 2 threads\n", server.stderr), server.stderr
    assert server.ask("/7").status == 200
    before = workers_of(server)
    os.kill(max(before), signal.SIGKILL)
    wait_for_workers(server, 2 + len(options), without=[max(before)])
    assert server.stderr.count("has turned the GIL on") == 1
    stop(server)


def test_a_reload_and_an_upgrade_of_such(start_site, site):
    site.write("1", TURNED_ON)
    server = start_site("--loops", "2", workers=1)
    wait_for_workers(server, 2)
    with load(server.address) as running:
        for number, generation in ((signal.SIGHUP, "2"), (signal.SIGUSR2, "3")):
            site.write(generation, TURNED_ON)
            before = workers_of(server)
            server.signal(number)
            wait_for_workers(server, 2, without=before, seconds=20)
            running.wait_generation(generation)
    running.report.check()
    stop(server)


def test_a_worker_in_which_it_is_turned_on_later_is_replaced(start_site, site):
    site.write("1", LATER)
    server = start_site("--loops", "2", "--worker-timeout", "1", workers=1)
    [worker] = wait_for_workers(server, 1)
    with load(server.address) as running:
        running.wait_answers()
        server.go_on("turn-on")
        server.wait_said(f"Worker {worker} has a GIL now: another one takes its place")
        wait_for_workers(server, 2, without=[worker])
        running.wait_answers()
    running.report.check()
    stop(server)


def test_before_a_start_it_is_told(start, site):
    site.write("1", TURNED_ON)
    told = "the import of old_extension turns the GIL on, for the whole process"
    check = start("--check-config", "site_app:application", started=False)
    assert check.wait() == 0 and told in check.stderr
    doctor = start("doctor", "site_app:application", started=False)
    assert doctor.wait() == 0 and f"gil: {told}" in doctor.stdout


def test_without_a_supervisor_there_is_one_loop(start_site, site):
    site.write("1", TURNED_ON)
    server = start_site("--loops", "2", workers=0)
    server.wait_said("old_extension has turned the GIL on: one loop, not 2; serve with the command and")
    assert server.ask("/7").status == 200
    stop(server)


@pytest.mark.skipif(not gil.IS_FREE_THREADED, reason="a Python that always has a GIL")
def test_an_extension_that_needs_the_gil(start_site, site, tmp_path):
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    (tmp_path / "old.c").write_text(EXTENSION)
    command = build_ext(
        Distribution({"ext_modules": [Extension("old_extension", [str(tmp_path / "old.c")])]})
    )
    command.build_lib = command.build_temp = str(tmp_path)
    command.ensure_finalized()
    command.run()
    site.write("1", "import old_extension")
    server = start_site("--loops", "2", workers=1)
    wait_for_workers(server, 2)
    assert server.stderr.count("old_extension") == 1
    assert "old_extension has turned the GIL on, for the whole process" in server.stderr
    stop(server)


@pytest.mark.skipif(not gil.IS_FREE_THREADED, reason="a Python that always has a GIL")
def test_loops_for_all_processors(start_site):
    server = start_site("--threads", "64", workers=1)
    loops = len(os.sched_getaffinity(0))
    if loops > 1:
        assert f"1 worker of 64 threads over {min(loops, 64)} loops" in server.stderr
    assert "GIL" not in server.stderr
    stop(server)


def test_auto_is_one_loop_with_a_gil(start_site):
    server = start_site(workers=1, PYTHON_GIL="1" if gil.IS_FREE_THREADED else "")
    assert "1 worker of 4 threads\n" in server.stderr
    stop(server)
