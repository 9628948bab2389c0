"""Many processes, one server: workers that die, hang and grow are replaced; nobody else notices."""

import contextlib
import os
import re
import signal
import subprocess
import time

import psutil
import pytest

from process.family import (
    WAYS,
    expect_nobody_left,
    family_of,
    is_alive,
    standing_still,
    stop,
    wait_for_workers,
    workers_of,
)
from process.load import WRK, load
from subprocesses import Process
from support import PATIENCE, Incomplete, request, wait_until

WRK_BESIDE = 4 if WRK else 0


def refused(server):
    try:
        with server.connect():
            return False
    except ConnectionRefusedError:
        return True


# Stopping


@WAYS
@pytest.mark.parametrize("poller", ["epoll", "poll"])
def test_terminated_under_load_it_fails_nobody(start_site, options, poller):
    server = start_site("--poller", poller, *options)
    with load(server.address, wrk=WRK_BESIDE) as running:
        running.wait_answers(1000)
        running.listening_ends()
        server.terminate()
        assert server.wait() == 0, server.stderr
        running.wait(lambda: running.report.refused == 20, "everybody sent away")
    running.report.check(least=1000)
    assert len(running.report.workers) == 2
    expect_nobody_left(server)


@WAYS
def test_terminated_with_all_its_workers_it_fails_nobody(start_site, options):
    """TERM to the whole group, as service managers do: no worker takes it for itself alone."""
    for _ in range(4):
        server = start_site(*options)
        with load(server.address) as running:
            running.wait_answers(500)
            running.listening_ends()
            os.killpg(server.pid, signal.SIGTERM)
            assert server.wait() == 0, server.stderr
            running.wait(lambda: running.report.refused == 20, "everybody sent away")
        running.report.check(least=500)
        expect_nobody_left(server)


@WAYS
def test_a_worker_that_is_terminated_is_replaced_first(start_site, options):
    server = start_site(*options, workers=1)
    with load(server.address) as running:
        for _ in range(3):
            running.wait_answers()
            worker = int(server.ask("/7")["Worker"])
            os.kill(worker, signal.SIGTERM)
            wait_until(lambda: not psutil.pid_exists(worker), "its end")  # noqa: B023
    running.report.check()
    assert "crash" not in server.stderr
    stop(server)


@WAYS
def test_terminated_amid_its_start_it_ends(start_site, options):
    for delay in (0, 0.001, 0.003, 0.01, 0.03):
        server = start_site(*options)
        time.sleep(delay)
        server.terminate()
        assert server.wait() == 0, server.stderr
        assert "Exception" not in server.stderr, server.stderr
        expect_nobody_left(server)


SWALLOW = """
import time
while True:
    try:
        open("imported", "w").close()
        time.sleep({seconds})
        break
    except BaseException:
        open("swallowed", "w").close()
        {then}
"""


@pytest.mark.parametrize("options", [(), ("--preload",), ("--workers", "0")], ids=str)
def test_terminated_at_an_import_that_catches_everything_it_ends(start_site, site, tmp_path, options):
    site.write("1", SWALLOW.format(seconds=60, then="break"))
    server = start_site("--bind", "127.0.0.1:0", *options, started=False)
    wait_until((tmp_path / "imported").exists, "the import")
    begun = time.monotonic()
    server.terminate()
    assert server.wait() == 0, server.stderr
    assert time.monotonic() - begun < 5
    assert (tmp_path / "swallowed").exists()
    expect_nobody_left(server)


def test_an_import_that_catches_everything_for_ever_is_killed(start_site, site, tmp_path):
    server = start_site()
    site.write("2", SWALLOW.format(seconds=60, then="pass"))
    server.signal(signal.SIGHUP)
    wait_until((tmp_path / "imported").exists, "the import")
    server.terminate()
    assert server.wait(20) == 0, server.stderr
    assert server.stderr.count("does not end: SIGKILL") == 1, server.stderr
    expect_nobody_left(server)


def test_a_long_request_is_finished_when_it_is_terminated(start_site):
    server = start_site()
    with load(server.address, work=0.01) as running, server.connect() as client:
        running.wait_answers()
        client.send(request("/7?sleep=3"))
        time.sleep(0.1)
        running.listening_ends()
        server.terminate()
        response = client.read_response()
        assert response.status == 200
        assert response.closes
        client.expect_end()
        assert server.wait() == 0, server.stderr
    running.report.check()
    expect_nobody_left(server)


@WAYS
def test_what_waits_in_the_backlog_is_answered_when_it_is_terminated(start_site, options):
    server = start_site(*options)
    wait_until(lambda: server.ask("/7").status == 200, "an answer")
    with standing_still(family_of(server).keys() - {server.pid}):
        clients = [server.connect() for _ in range(50)]
        for number, client in enumerate(clients):
            client.send(request(f"/{number}"))
        server.terminate()
    for client in clients:
        assert client.read_response().status == 200
        client.expect_end()
    assert server.wait() == 0, server.stderr
    expect_nobody_left(server)


def test_it_goes_on_accepting_until_the_delay_is_over(start_site):
    """--shutdown-delay: the balancer is told first, and stops sending; until then everybody is served."""
    server = start_site("--shutdown-delay", "1s", "--ready", "/ready")
    assert server.ask("/ready").status == 200
    with load(server.address) as running:
        running.wait_answers()
        begun = time.monotonic()
        server.terminate()
        wait_until(lambda: server.ask("/ready").status == 503, "503 for the balancer")
        running.pause(0.7 - (time.monotonic() - begun))
        # So far nobody was refused, or it would have failed.
        running.listening_ends()
        running.wait(lambda: running.report.refused == 20, "everybody sent away")
        assert time.monotonic() - begun > 1
        assert server.wait() == 0, server.stderr
    running.report.check()
    expect_nobody_left(server)


def test_a_worker_leaves_without_a_supervisor_that_hangs(start_site):
    """It asks it to be replaced, and is not heard."""
    server = start_site()
    workers = wait_for_workers(server, 2)
    with load(server.address) as running:
        running.wait_workers(*workers)
        leaving = min(workers)
        with standing_still([server.pid]):
            os.kill(leaving, signal.SIGTERM)
            server.wait_said("The supervisor does not answer")
            wait_until(lambda: leaving not in workers_of(server), "its end")
        server.wait_said(f"Worker {leaving} has left")
        running.wait_workers(*wait_for_workers(server, 2, without=[leaving]))
    running.report.check()
    stop(server)


def test_terminated_twice_a_worker_leaves_at_once(start_site, site):
    server = start_site(workers=1)
    [worker] = wait_for_workers(server, 1)
    assert server.ask("/7").status == 200
    # The one that shall take its place does not come so soon.
    site.write("2", "import time; time.sleep(3)")
    os.kill(worker, signal.SIGTERM)
    server.wait_said("another one takes its place")
    os.kill(worker, signal.SIGTERM)
    server.wait_said(f"Worker {worker} has left")
    assert server.ask("/7")["Generation"] == "2"
    stop(server)


def has_not_ended(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_the_workers_of_a_supervisor_that_is_gone_leave(start_site):
    server = start_site()
    with load(server.address) as running, server.connect() as client:
        running.wait_answers()
        client.send(request("/hold/it"))
        server.waits("it")
        workers = [psutil.Process(pid) for pid in workers_of(server)]
        running.listening_ends()
        server.signal(signal.SIGKILL)
        server.process.wait()
        wait_until(lambda: refused(server), "connections being refused")
        wait_until(lambda: sum(has_not_ended(each) for each in workers) == 1, "the other one having left")
        [waiting] = filter(has_not_ended, workers)
        used = sum(waiting.cpu_times()[:2])
        time.sleep(0.5)
        assert sum(waiting.cpu_times()[:2]) - used < 0.25, "it waits without turning in a circle"
        server.go_on("it")
        assert client.read_response().text == "/hold/it"
    running.report.check()
    expect_nobody_left(server)


# More workers, and fewer


def test_more_and_fewer_workers_fail_nobody(start_site):
    server = start_site()
    with load(server.address, wrk=WRK_BESIDE) as running:
        running.wait_answers()
        for number in (3, 4):
            server.signal(signal.SIGTTIN)
            running.wait_workers(*wait_for_workers(server, number))
        for number in (3, 2, 1):
            server.signal(signal.SIGTTOU)
            running.wait_workers(*wait_for_workers(server, number))
        # Not below one.
        server.signal(signal.SIGTTOU)
        running.wait_answers()
        assert len(workers_of(server)) == 1
    running.report.check(least=500)
    stop(server)


def test_without_workers_clients_wait_for_one(start_site):
    server = start_site()
    with load(server.address) as running:
        running.wait_answers()
        server.signal(signal.SIGWINCH)
        wait_for_workers(server, 0)
        with server.connect() as client:
            client.send(request("/7"))
            assert not client.readable(0.5)
            server.signal(signal.SIGTTIN)
            assert client.read_response().status == 200
        running.wait_workers(*wait_for_workers(server, 1))
    running.report.check()
    stop(server)


# Recycling


@WAYS
def test_workers_that_have_served_their_requests_are_replaced(start_site, options):
    server = start_site("--max-requests", "200", *options)
    with load(server.address, wrk=WRK_BESIDE, seconds=120) as running:
        running.wait(
            lambda: len(running.report.workers) >= 12 and running.report.requests >= 2000, "a dozen workers"
        )
    running.report.check(least=2000)
    stop(server)


def test_a_worker_that_has_served_its_time_is_replaced(start_site):
    server = start_site("--max-worker-lifetime", "1s")
    with load(server.address) as running:
        running.wait(lambda: len(running.report.workers) >= 8, "some generations of workers")
    running.report.check(least=500)
    stop(server)


def test_a_worker_is_replaced_in_a_quiet_moment(start_site):
    server = start_site("--max-worker-lifetime", "500ms", workers=1)
    [before] = workers_of(server)
    client, _ = holder(server, "long")
    assert not client.readable(2)
    assert "--max-worker-lifetime" not in server.stderr
    server.go_on("long")
    assert client.read_response().status == 200
    server.wait_said(f"Worker {before} has had its time (--max-worker-lifetime)")
    wait_for_workers(server, 1, without=[before])
    server.stop()


def test_a_worker_that_grows_too_large_is_replaced(start_site):
    server = start_site("--max-worker-memory", "150m")
    with load(server.address) as running:
        running.wait_answers()
        large = int(server.ask("/leak")["Worker"])
        wait_until(lambda: large not in workers_of(server), "its end", 3 * PATIENCE)
        running.wait_workers(*wait_for_workers(server, 2, without=[large]))
    running.report.check(least=500)
    assert "--max-worker-memory" in server.stderr
    stop(server)


# Workers that end


def holder(server, name):
    """A connection whose request a worker holds, and that worker."""
    client = server.connect()
    client.send(request(f"/hold/{name}"))
    server.waits(name)
    return client, int((server.directory / f"{name}.waits").read_text())


def expect_lost(client):
    with pytest.raises((Incomplete, ConnectionError)):
        client.read_response()


def held_by_both(server):
    """Requests that two workers hold: for each worker the names and the connections."""
    held = {}
    for number in range(16):
        client, worker = holder(server, f"request-{number}")
        held.setdefault(worker, []).append((f"request-{number}", client))
        if len(held) == 2 and number > 2:
            return held
    raise AssertionError(f"sixteen long requests went to one worker: {held}")


@WAYS
def test_a_killed_worker_loses_what_it_executed_and_says_what_that_was(start_site, options):
    server = start_site("--threads", "16", *options)
    held = held_by_both(server)
    killed, spared = held
    os.kill(killed, signal.SIGKILL)
    for _, client in held[killed]:
        expect_lost(client)
    server.wait_said("SIGKILL")
    told = next(line for line in server.lines if "SIGKILL" in line)
    assert str(killed) in told
    for name, _ in held[killed]:
        assert f"GET /hold/{name}" in told
    for name, client in held[spared]:
        assert f"/hold/{name}" not in told
        server.go_on(name)
        assert client.read_response().text == f"/hold/{name}"
    stop(server)


def test_a_killed_worker_fails_only_what_it_had_and_is_back_within_a_second(start_site):
    threads = 8
    server = start_site("--threads", str(threads))
    # No more clients than threads: what one worker holds can all be executed.
    with load(
        server.address, clients=threads, habits=("keep", "renew", "rest"), work=0.02, may_fail=True
    ) as running:
        # After more in a row the supervisor would take its time, as with any crashes.
        for _ in range(3):
            running.wait_answers(100)
            workers = wait_for_workers(server, 2)
            failed = len(running.report.failures)
            killed = min(workers)
            os.kill(killed, signal.SIGKILL)
            after = wait_for_workers(server, 2, without=[killed], seconds=1)
            running.wait_workers(*after)
            assert len(running.report.failures) - failed <= threads, str(running.report)
    assert {failure.how for failure in running.report.failures} <= {"reset", "ended"}, str(running.report)
    stop(server)


@pytest.mark.parametrize(
    ("target", "words"), [("/segfault", "SIGSEGV"), ("/leave", "exit code 7")], ids=["segfault", "exit"]
)
def test_a_worker_that_ends_by_itself_is_told_of_and_replaced(start_site, target, words):
    server = start_site()
    before = wait_for_workers(server, 2)
    with server.connect() as client:
        client.send(request(target))
        expect_lost(client)
    # A process that dies closes its sockets before it is gone.
    lost = wait_until(lambda: before - workers_of(server), "it is gone")
    after = wait_for_workers(server, 2, without=lost, seconds=1)
    assert len(after & before) == 1
    server.wait_said(words)
    assert any(words in line and f"GET {target}" in line for line in server.lines), server.stderr
    with load(server.address) as running:
        running.wait_workers(*after)
    running.report.check()
    stop(server)


def test_a_worker_that_hangs_is_shown_and_replaced(start_site):
    server = start_site("--worker-timeout", "2s")
    before = wait_for_workers(server, 2)
    begun = time.monotonic()
    client = server.connect()
    client.send(request("/hang"))
    expect_lost(client)
    assert 1.5 < time.monotonic() - begun < 8
    server.wait_said("--worker-timeout")
    assert any("--worker-timeout" in line and "GET /hang" in line for line in server.lines), server.stderr
    # The stack of the thread that held the GIL.
    server.wait_said("in hang")
    after = wait_for_workers(server, 2)
    assert len(before & after) == 1
    with load(server.address) as running:
        running.wait_answers()
        running.wait_workers(*after)
    running.report.check()
    stop(server)


def test_a_busy_worker_does_not_hang(start_site):
    """What takes long is no hang as long as others get the GIL."""
    server = start_site("--worker-timeout", "1s")
    before = wait_for_workers(server, 2)
    assert server.ask("/7?sleep=3").status == 200
    assert workers_of(server) == before
    stop(server)


def test_workers_that_crash_in_a_row_are_started_ever_more_slowly(start_site):
    server = start_site(TEST_CRASH="1")
    server.wait_said("crashes in a row")
    time.sleep(2)
    crashes = server.stderr.count("exit code 9")
    assert 2 <= crashes < 12, server.stderr
    assert server.is_running()
    server.terminate()
    assert server.wait() == 0, server.stderr
    expect_nobody_left(server)


@pytest.mark.skipif(not hasattr(signal, "SIGPWR"), reason="Linux has this signal")
def test_the_stacks_of_every_thread_of_every_worker(start_site):
    server = start_site("--threads", "16")
    held = [name for requests in held_by_both(server).values() for name, _ in requests]
    server.signal(signal.SIGPWR)
    wait_until(lambda: server.stderr.count("in hold\n") == len(held), lambda: f"stacks: {server.stderr}")
    for name in held:
        server.go_on(name)
    stop(server)


# Process 1

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
if os.geteuid():
    UNSHARE[1:1] = ["--user", "--map-root-user"]


@pytest.fixture
def start_first(site, tmp_path):
    """start_first(*options): serve the site as process 1 of a PID namespace, as in a container."""
    try:
        tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if tried.returncode:
        pytest.skip(f"a PID namespace is not permitted here: {tried.stderr.strip()}")
    processes = []

    def start_first(*options):
        arguments = ["--bind", "127.0.0.1:0", "--workers", "2", *options, "site_app:application"]
        environment = {"PYTHONDONTWRITEBYTECODE": "1"}
        process = Process(arguments, tmp_path, environment, wrapper=UNSHARE)
        processes.append(process)
        process.wait_started()
        # unshare waits for it, and passes no signal on.
        [process.supervisor] = psutil.Process(process.pid).children()
        return process

    yield start_first
    for process in processes:
        process.clean_up()


@WAYS
def test_as_process_1_it_serves_reloads_and_stops(start_first, site, options):
    server = start_first(*options)
    assert "Process 1;" in server.stderr
    with load(server.address) as running:
        running.wait_answers()
        site.write("2")
        server.supervisor.send_signal(signal.SIGHUP)
        running.wait_generation("2")
        running.listening_ends()
        server.supervisor.send_signal(signal.SIGTERM)
        assert server.wait() == 0, server.stderr
    running.report.check()
    expect_nobody_left(server)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_as_process_1_it_can_be_stopped_at_rest(start_first, number):
    server = start_first()
    server.supervisor.send_signal(number)
    assert server.wait() == 0, server.stderr
    expect_nobody_left(server)


def test_as_process_1_it_takes_leave_of_strangers(start_first):
    server = start_first()
    for _ in range(3):
        assert server.ask("/leave_a_stranger").status == 200
    wait_until(lambda: len(server.supervisor.children(recursive=True)) == 2, "the end of the strangers")
    assert all(is_alive(child) for child in server.supervisor.children())
    server.supervisor.terminate()
    assert server.wait() == 0, server.stderr


def test_strangers_whose_parents_are_gone_are_no_zombies(start_site):
    """The supervisor adopts what its workers leave behind (--preload needs that); so it takes leave of it."""
    server = start_site("--preload")
    for _ in range(3):
        assert server.ask("/leave_a_stranger").status == 200

    def zombies():
        found = []
        for child in psutil.Process(server.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.status() == psutil.STATUS_ZOMBIE:
                    found.append(child.pid)
        return found

    time.sleep(0.5)
    wait_until(lambda: not zombies(), lambda: f"zombies: {zombies()}")
    stop(server)


# The start


def test_one_line_says_how_many_workers_and_why(start_site):
    server = start_site(workers=3)
    assert re.search(r"with 3 workers", server.stderr), server.stderr
    stop(server)


def test_an_application_that_cannot_be_imported_ends_the_start(start_site, site):
    site.write("1", "raise ZeroDivisionError('at import')")
    for options in ((), ("--preload",)):
        server = start_site("--bind", "127.0.0.1:0", *options, started=False)
        assert server.wait() == 4, server.stderr
        assert server.stderr.count("ZeroDivisionError: at import") == 1, server.stderr
        expect_nobody_left(server)


def test_a_new_worker_has_to_answer_the_health_check(start_site):
    server = start_site("--health", "/healthz", "--ready", "/readyz")
    assert server.ask("/healthz").status == server.ask("/readyz").status == 200
    before = workers_of(server)
    server.signal(signal.SIGHUP)
    wait_for_workers(server, 2, without=before)
    server.wait_said("Reloaded")
    stop(server)
