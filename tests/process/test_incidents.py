"""What an operator is called for at night, and what the server says of it, and nobody else."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fastwsgi.resources import ROOT, cgroups
from process.family import limited, stop, text_of, workers_of
from process.operators import ask, command
from subprocesses import Process
from support import Client, Incomplete, request, wait_until

VIEWS = Path(__file__).with_name("incidents.py")
AGE = r"\d[\d.e-]* s"
MIB = 1 << 20


def place(code, function, file=VIEWS):
    """A line of the application's code, as a stack shows it."""
    numbers = [number for number, line in enumerate(file.read_text().splitlines(), 1) if line.strip() == code]
    assert len(numbers) == 1, (code, numbers)
    return f'File "{file}", line {numbers[0]}, in {function}\n'


WAITS = {
    "lock": place("with LOCK:", "lock"),
    "query": place('connection.execute("INSERT INTO orders VALUES (1)")', "query"),
    "pool": place("with pooled() as connection:", "pool"),
}


def record(server, *words):
    """The record of the error log with all these words, some of them in the lines that belong to it."""

    def found():
        records = re.split(r"\n(?=\[\d{4}-)", server.stderr)
        return next((each for each in records if all(word in each for word in words)), None)

    return wait_until(found, lambda: f"{words!r} in {server.stderr}") + "\n"


@pytest.fixture
def serve(start):
    """serve(*options): serve the application of the incidents."""
    return lambda *options, **others: start(*options, "incidents:application", **others)


def send(server, target, method="GET"):
    client = server.connect()
    client.send(request(target, method))
    return client


def stacks(server, words):
    """What `fastwsgi stacks` prints, once it has these words."""

    def found():
        text = command(server, "stacks").stdout
        return text if words in text else None

    return wait_until(found, lambda: f"{words!r}: {command(server, 'stacks').stdout}")


# Requests that wait


def test_what_waits_is_named_with_its_line(serve):
    """For a lock, for a database, and for a connection of a pool that has none left."""
    server = serve("--threads", "8", "--log-slow", "1s")
    server.ask("/hold")
    clients = [send(server, f"/{view}?1", "POST") for view in WAITS]
    clients += [send(server, f"/pool?{number}") for number in (2, 3)]
    for view, line in WAITS.items():
        told = record(server, f"POST /{view}?1 from 127.0.0.1 is slow: after", line)
        assert re.search(rf"is slow: after {AGE} \(--log-slow\) it is in thread fastwsgi-\d at\n", told)
    # How many have the same trouble, too.
    shown = stacks(server, "these 3 were at")
    (waiting,) = (part for part in shown.split("\n\n") if "/pool" in part)
    lines = waiting.splitlines()
    head = rf"(POST|GET) /pool\?\d for 127\.0\.0\.1, in thread \d of worker \d+, in the application for {AGE}"
    assert all(re.fullmatch(rf"{head}, looked at {AGE} ago", line) for line in lines[:3])
    assert lines[3] == "these 3 were at"
    assert waiting.count(WAITS["pool"]) == 1
    server.ask("/release")
    assert [client.read_response().text for client in clients] == ["done"] * 5
    stop(server)


def test_a_flood_is_told_and_health_is_answered_all_the_while(serve, short_path):
    """More requests than threads; then more connections than there may be, of which idle ones are closed."""
    server = serve(
        *("--threads", "2", "--queue-timeout", "4s", "--worker-connections", "12", "--health", "/healthz"),
        *("--metrics", f"unix:{short_path}/metrics"),
    )
    probe = server.connect()
    assert probe.ask("/healthz").status == 200
    held = [send(server, f"/wait?{number}") for number in range(2)]
    waiting = [send(server, f"/wait?{number}") for number in range(2, 7)]

    def measured():
        with server.connect(f"{short_path}/metrics") as client:
            families = text_string_to_metric_families(client.ask("/metrics").text)
        samples = (sample for family in families for sample in family.samples)
        return {(one.name, *one.labels.values()): one.value for one in samples}

    wait_until(lambda: measured()["fastwsgi_connections", "queued"] == 5, measured)
    found = measured()
    assert found["fastwsgi_threads",] == found["fastwsgi_threads_busy",] == 2
    assert found["fastwsgi_connections", "running"] == 2
    (worker,) = json.loads(ask(server, "/stats").content)["workers"]
    assert (worker["exchanges"], worker["waiting"]) == (2, 5)
    assert probe.ask("/healthz").status == 200
    for client in waiting:
        assert client.read_response().status == 503
    for number in range(2, 7):
        refused = record(
            server, f"refused with 503 Service Unavailable (client 127.0.0.1, GET /wait?{number}, "
        )
        assert "while waiting for a thread): all threads were busy for --queue-timeout" in refused
    found = measured()
    assert found["fastwsgi_refusals_total", "queue_timeout", "503"] == 5
    assert found["fastwsgi_requests_queued_total",] >= 5
    # Each of them has sent the beginning of a request, or it could be closed for another one.
    crowd = [server.connect() for _ in range(30)]
    for client in crowd:
        client.send("GET /crowd HTTP/1.1\r\n")
    server.wait_said("as many connections as --worker-connections allows, and none of them idle: others wait")
    running = json.loads(ask(server, "/stats").content)["requests"]
    assert [one["line"] for one in running] == ["GET /wait?0", "GET /wait?1"]
    for client in crowd:
        client.close()
    assert server.ask("/healthz").status == 200
    server.go_on("go")
    assert [client.read_response().text for client in held] == ["done"] * 2
    stop(server)


# Workers that end


def lose(client):
    """Its connection ends without an answer."""
    with pytest.raises((Incomplete, ConnectionError)):
        client.read_response()


def threads_told(told, request):
    """What faulthandler calls the threads that served a request when their worker ended."""
    return re.findall(
        rf"{request} for 127\.0\.0\.1, in thread \d \((\w+)\), in the application for {AGE}[;\n]", told
    )


def seen_by_faulthandler(server, thread):
    """The stack of a thread, in the words that other stacks have."""
    found = re.search(rf"hread {thread} .*\n((?: +File .*\n)+)", server.stderr)
    assert found, server.stderr
    return found[1].replace(" in ", ", in ")


def test_c_code_that_holds_the_gil_is_named_with_its_line(serve):
    server = serve("--worker-timeout", "2s")
    pid = server.worker
    lose(send(server, "/hold_the_gil?all"))
    told = record(server, f"Worker {pid} has not been heard of for 2 s (--worker-timeout) and is ended")
    (thread,) = threads_told(told, r"GET /hold_the_gil\?all")
    record(server, f"Worker {pid} was killed by SIGABRT (sent by fastwsgi, after --worker-timeout)")
    assert place("ctypes.PyDLL(None).sleep(60)", "hold_the_gil") in seen_by_faulthandler(server, thread)
    assert server.ask("/").text == "done"
    stop(server)


def test_a_crash_is_told_with_the_request_that_it_came_from(serve):
    """Others that ran are told, too, and have had nothing to do with it."""
    server = serve()
    pid = server.worker
    server.ask("/hold")
    with send(server, "/lock"):
        stacks(server, WAITS["lock"])
        lose(send(server, "/crash?now", "PUT"))
    told = record(server, f"Worker {pid} was killed by SIGSEGV, ")
    (waited,), (crashed,) = threads_told(told, "GET /lock"), threads_told(told, r"PUT /crash\?now")
    assert f"Current thread {crashed} " in server.stderr
    assert place("ctypes.string_at(0)", "crash") in seen_by_faulthandler(server, crashed)
    assert WAITS["lock"] in seen_by_faulthandler(server, waited)
    stop(server)


def test_a_kill_from_outside_is_told_with_what_ran(serve):
    server = serve()
    pid = server.worker
    server.ask("/hold")
    with send(server, "/lock?1", "DELETE"):
        stacks(server, WAITS["lock"])
        os.kill(pid, signal.SIGKILL)
        told = record(server, f"Worker {pid} was killed by SIGKILL (not sent by fastwsgi; ", WAITS["lock"])
    assert "did not rise" in told or "the kernel does not say" in told
    assert re.search(rf"DELETE /lock\?1 for 127\.0\.0\.1, in thread \d, in the application for {AGE}\n", told)
    assert re.search(rf"  thread \d was, {AGE} ago, at\n", told)
    stop(server)


@pytest.fixture
def memory_cgroup():
    """A memory cgroup of 150 MiB; the file into which who wants to be in it writes 0."""
    for above in cgroups("memory", ROOT):
        group = above / f"fastwsgi-test-{os.getpid()}"
        limit = "memory.max" if (above / "cgroup.controllers").exists() else "memory.limit_in_bytes"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(150 * MIB))
            yield group / "cgroup.procs"
            return
        except OSError:
            continue
        finally:
            wait_until(lambda group=group: remove(group), "the cgroup removed")
    pytest.skip("no memory cgroup can be made here")


def remove(group):
    try:
        group.rmdir()
    except OSError:
        return False
    return True


@pytest.fixture
def serve_by(tmp_path):
    """serve_by(wrapper, *options): serve by way of another command."""
    started = []

    def serve_by(wrapper, *options):
        arguments = ("--workers", "1", *options, "incidents:application")
        started.append(Process(arguments, tmp_path, {}, wrapper=wrapper))
        return started[-1]

    yield serve_by
    for server in started:
        server.clean_up()


def test_an_oom_kill_is_told_from_others_with_what_ran(serve_by, memory_cgroup):
    enter = ["sh", "-c", f'echo 0 > {memory_cgroup} && exec "$@"', "sh"]
    server = serve_by(enter, "--bind", "127.0.0.1:0", "--memory-pressure", "off")
    server.wait_started()
    pid = server.worker
    lose(send(server, "/grow?all"))
    told = record(server, f"Worker {pid} was killed by SIGKILL (not sent by fastwsgi; ", "in grow\n")
    counter = "the kernel's out-of-memory counter of its cgroup, oom_kill,"
    assert re.search(rf"{counter} rose from 0 to 1 in the last {AGE}\), ", told)
    assert re.search(rf"GET /grow\?all for 127\.0\.0\.1, in thread \d, in the application for {AGE}\n", told)
    steps = ('kept.append(b"x" * (4 * MIB))', "time.sleep(0.1)")
    assert any(place(step, "grow") in told for step in steps), told
    assert server.ask("/").text == "done"
    stop(server)


@pytest.mark.skipif(sys.platform != "linux", reason="limits another process")
def test_a_request_for_more_memory_than_ulimit_allows_fails_alone(serve):
    server = serve()
    size = psutil.Process(server.worker).memory_info().vms
    with limited(server.worker, resource.RLIMIT_AS, size + 300 * MIB):
        assert server.ask("/too_much?1").status == 500
        assert server.ask("/").text == "done"
    told = record(server, "GET /too_much?1: the application failed", "\n  MemoryError")
    assert re.search(r"failed after \d+\.\d{3} s, in thread fastwsgi-\d\n", told)
    assert place("return bytearray(4096 * MIB)", "too_much") in told
    stop(server)


# Not a request's doing


def test_a_bad_deploy_is_told_with_its_line_and_changes_nothing(start_site, site):
    server = start_site("--threads", "2")
    site.write("2", "import no_such_module")
    before = workers_of(server)
    failed = command(server, "reload")
    assert failed.returncode == 1
    why = r"Worker \d+ could not load the application\n"
    assert re.search(f"not reloaded, the server goes on as before: {why}", failed.stderr)
    assert re.search(f"Not reloaded, those that serve go on as before: {why}", server.stderr)
    assert f'File "{site.path}", line 1, in <module>\n' in server.stderr
    assert "ModuleNotFoundError: No module named 'no_such_module'" in server.stderr
    assert re.search(f"the last reload has changed nothing: {why}", command(server, "stats").stdout)
    assert server.ask("/7")["Generation"] == "1"
    assert before <= workers_of(server)
    stop(server)


@pytest.fixture
def disk():
    """A command that gives a server a disk of its own at /mnt, which a file called ballast nearly fills."""
    mount = "mount -t tmpfs -o size=8m logs /mnt && head -c 8323072 /dev/zero > /mnt/ballast"
    spaces = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--map-root-user"]
    wrapper = ["unshare", *spaces, "sh", "-c", f'{mount} && exec "$@"', "sh"]
    try:
        tried = subprocess.run([*wrapper, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if tried.returncode:
        pytest.skip(f"a mount is not permitted here: {tried.stderr.strip()}")
    return wrapper


def test_a_full_disk_for_logs_stops_nobody_and_the_loss_is_counted(serve_by, disk, short_path):
    server = serve_by(
        disk,
        *("--bind", f"unix:{short_path}/s", "--error-logfile", "/mnt/error.log"),
        *("--access-logfile", "/mnt/access.log", "--access-logformat", "%(U)s " + "x" * 9000),
    )
    mnt = Path(f"/proc/{server.pid}/root/mnt")
    error, access = mnt / "error.log", mnt / "access.log"
    wait_until(lambda: "Ctrl-C" in text_of(error), "the start")
    # More than there is room for, and than may wait.
    with Client(f"{short_path}/s") as client:
        for _ in range(4):
            client.send(request("/") * 50)
            assert [client.read_response().text for _ in range(50)] == ["done"] * 50
    for number in range(60):
        with Client(f"{short_path}/s") as client:
            assert client.ask(f"/fail?{number}").status == 500
    (mnt / "ballast").unlink()
    wait_until(lambda: "the access log is written again" in text_of(error), lambda: error.read_text())
    said, lines = error.read_text(), access.read_text().splitlines()
    assert said.count("lines are lost when too many wait: No space left on device") == 1
    [lost] = re.findall(r"written again; (\d+) lines were lost: No space left on device", said)
    assert int(lost) > 0
    assert len(lines) + int(lost) == 260
    [lost] = re.findall(r"(\d+) log records before this one were lost: No space left on device", said)
    assert int(lost) > 0
    assert said.count("the application failed") + int(lost) == 60
    stop(server)
