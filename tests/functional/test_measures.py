"""What a crew counts in its row: requests, times, octets, connections; and Server-Timing."""

import ctypes
import os
import re
import sys
import time

import pytest

from conftest import of_the_gil, of_threads, with_threads
from fastwsgi._stats import totals
from support import PATIENCE, TEXT, Client, Gate, answering, request, wait_until

# Of the C library, called without letting go of the GIL.
C = ctypes.PyDLL(None)

# What is waited for, to be found in a histogram again, and what may be lost of it to rounding.
PAUSE = 0.05
NEARLY = 0.04


def stay(row, state):
    """Let a while pass from when a worker's only connection is in that state."""
    row.pid = os.getpid()  # or nothing of it would count
    wait_until(lambda: totals([row.board]).connections[state] == 1, lambda: f"{state}: {totals([row.board])}")
    time.sleep(PAUSE)


def counted(crew, number):
    """The totals, once so many requests are over."""
    wait_until(lambda: sum(totals([crew.board]).statuses.values()) >= number, f"{number} requests counted")
    found = totals([crew.board])
    assert sum(found.statuses.values()) == sum(found.requests.values()) == number
    return found


def seconds(found):
    return {name: total for name, (_, total) in found.times.items()}


def by_path(environ, start_response):
    """Answers with the status that the path has."""
    if environ["PATH_INFO"] == "/fail":
        raise ZeroDivisionError
    start_response(environ["PATH_INFO"][1:] + " as asked for", [TEXT])
    return [b"content"]


def test_requests_by_method_and_status(crewed, caplog):
    crew = crewed(by_path, health="/healthz")
    asked = [
        ("200", "GET", 2),
        ("201", "POST", 1),
        ("302", "GET", 1),
        ("404", "DELETE", 3),
        ("599", "HEAD", 1),
        ("799", "PUT", 1),
        ("200", "TOAST", 1),
    ]
    for status, method, times in asked:
        for _ in range(times):
            with crew.connect() as client:
                client.send(request("/" + status, method))
                client.receive()
    with crew.connect() as client:
        assert client.ask("/fail").status == 500
    with crew.connect() as client:
        assert client.ask("/healthz").status == 200
    with crew.connect() as client:
        client.send("GET / HTTP/1.1\r\n\r\n")  # without a Host
        assert client.read_response().status == 400
    with crew.connect() as client:
        client.send("GE T / HTTP/1.1\r\n\r\n")
        assert client.read_response().status == 400
    found = counted(crew, 14)
    assert {what: number for what, number in found.requests.items() if number} == {
        ("GET", "2xx"): 3,
        ("POST", "2xx"): 1,
        ("GET", "3xx"): 1,
        ("DELETE", "4xx"): 3,
        ("HEAD", "5xx"): 1,
        ("PUT", "other"): 1,
        ("other", "2xx"): 1,
        ("GET", "5xx"): 1,
        ("other", "4xx"): 2,
    }
    assert found.statuses == {200: 4, 201: 1, 302: 1, 404: 3, 599: 1, 500: 1, 400: 2, 0: 1}
    assert found.failed == 1
    refused = {name: number for name, number in found.refused.items() if number}
    assert refused == {"REFUSAL_NO_HOST": 1, "REFUSAL_TARGET_FORM": 1}
    # Only what the application had has a duration.
    assert sum(found.times["all"][0]) == 11


def test_octets(crewed):
    crew = crewed(answering(lambda environ: environ["wsgi.input"].read()))
    sent = 0
    with crew.connect() as client:
        for size in (0, 10, 100_000, 3_000_000):
            octets = request("/", "POST", content=bytes(size))
            sent += len(octets)
            client.send(octets)
            assert len(client.read_response().content) == size
        found = counted(crew, 4)
        assert found.received == sent
        wait_until(lambda: totals([crew.board]).sent == client.octets, "all octets sent")


def test_times_of_the_application_and_the_queue(crewed):
    crew = crewed(answering(lambda environ: time.sleep(PAUSE)))
    threads = crew.board.threads
    clients = [crew.connect() for _ in range(3 * threads)]
    for client in clients:
        client.send(request("/"))
    for client in clients:
        client.read_response()
        client.close()
    found = counted(crew, len(clients))
    times = seconds(found)
    assert times["application"] >= len(clients) * NEARLY
    # The first of each thread need not wait, the second for one, the third for two.
    assert times["queue"] >= threads * 3 * NEARLY / 2
    assert times["all"] >= times["application"] + times["queue"]
    assert times["head"] == times["content"] == times["delivery"] == 0
    for counts, _ in found.times.values():
        assert sum(counts) == len(clients)


def test_time_of_head_and_content(crewed):
    crew = crewed(answering(lambda environ: environ["wsgi.input"].read()))
    with crew.connect() as client:
        octets = request("/", "POST", content=b"0123456789")
        for part, state in ((octets[:20], "head"), (octets[20:-5], "content")):
            client.send(part)
            stay(crew.row, state)
        client.send(octets[-5:])
        client.read_response()
        times = seconds(counted(crew, 1))
        assert times["head"] >= NEARLY
        assert times["content"] >= NEARLY
        assert times["queue"] < times["head"] + times["content"]
        # The next one on this connection has nothing to do with that.
        client.ask()
    assert seconds(counted(crew, 2))["head"] == times["head"]


@of_the_gil
@of_threads
def test_the_wait_for_the_gil(crewed):
    """The request comes while this thread computes, and does not let go of the GIL."""
    crew = crewed(answering(lambda environ: "done"))
    with crew.connect() as client:
        octets = request("/")
        interval = sys.getswitchinterval()
        sys.setswitchinterval(PATIENCE)
        # A thread that has waited by the former interval may still have asked for it.
        time.sleep(PAUSE)
        try:
            assert C.send(client.socket.fileno(), octets, len(octets), 0) == len(octets)
            until = time.monotonic() + PATIENCE
            waits = False
            while time.monotonic() < until:
                for thread in crew.row.running():
                    waits |= thread[1] == "waiting for the GIL" and thread[5] > PAUSE
                if waits:
                    break
        finally:
            sys.setswitchinterval(interval)
        assert waits
        assert client.read_response().text == "done"
    assert seconds(counted(crew, 1))["gil"] > NEARLY


def test_time_of_sending(crewed):
    """The application waits when all buffers are full, the loop for what is left when it is done."""
    size = 8_000_000
    entered = Gate()

    def large(environ, start_response):
        start_response("200 OK", [TEXT])
        yield bytes(size)
        entered.hold()

    crew = crewed(large, response_buffer=64 << 10, response_spool=1 << 20)
    with Client(crew.listener.getsockname(), receive_buffer=8192) as client:
        client.send(request("/"))
        wait_until(lambda: [one[1] for one in crew.row.running()] == ["waiting for its client"], "full")
        time.sleep(PAUSE)
        head = client.read_head()
        assert head["Transfer-Encoding"] == "chunked"
        entered.open()
        assert len(client.take_chunks()) == size
    found = counted(crew, 1)
    times = seconds(found)
    assert times["sending"] >= NEARLY
    assert times["sending"] + times["application"] <= times["all"]


def test_time_of_delivery(crewed):
    crew = crewed(answering(lambda environ: bytes(8_000_000)))
    with Client(crew.listener.getsockname(), receive_buffer=8192) as client:
        client.send(request("/"))
        counted(crew, 1)
        wait_until(lambda: totals([crew.board]).connections["sending"] == 1, "one that is sent to")
        time.sleep(PAUSE)
        client.read_response()
        wait_until(lambda: seconds(totals([crew.board]))["delivery"] >= NEARLY, "its delivery")
    assert sum(totals([crew.board]).times["delivery"][0]) == 1


def test_a_client_that_leaves_is_499(crewed):
    gate = Gate()

    def gated(environ, start_response):
        start_response("200 OK", [TEXT])
        gate.hold()
        yield bytes(5_000_000)

    crew = crewed(gated)
    with crew.connect() as client:
        client.send(request("/"))
        gate.wait_entered()
        client.reset()
    wait_until(lambda: crew.row.counters()["connections"] == 1, "it runs")
    time.sleep(0.01)
    gate.open()
    assert counted(crew, 1).statuses == {499: 1}


def test_a_timeout_is_counted_once(crewed, caplog):
    gate = Gate()
    crew = crewed(answering(lambda environ: gate.hold()), timeout=0.2)
    with crew.connect() as client:
        client.send(request("/"))
        gate.wait_entered()
        assert client.read_response().status == 503
        found = counted(crew, 1)
        assert found.statuses == {503: 1}
        assert (found.timeouts, found.revoked) == (1, 1)
        assert seconds(found)["application"] >= 0.15
        gate.open()
        wait_until(lambda: crew.row.running() == [], "its thread comes back")
    with crew.connect() as client:
        wait_until(lambda: client.ask("/").status == 200, "it goes on")
    assert counted(crew, 2).statuses == {503: 1, 200: 1}


def test_connections_by_state(crewed):
    gate = Gate()
    crew = crewed(answering(lambda environ: environ["PATH_INFO"] == "/wait" and gate.hold()))
    threads = crew.board.threads

    def expect(**states):
        wait_until(
            lambda: {state: n for state, n in totals([crew.board]).connections.items() if n} == states,
            lambda: f"{states}: {totals([crew.board]).connections}",
        )

    idle = [crew.connect() for _ in range(3)]
    for client in idle:
        client.ask()
    head = [crew.connect() for _ in range(2)]
    for client in head:
        client.send("GET / HTTP/1.1\r\n")
    content = crew.connect()
    content.send(request("/", "POST", content=b"content")[:-3])
    expect(idle=3, head=2, content=1)
    running = [crew.connect() for _ in range(threads + 2)]
    for client in running:
        client.send(request("/wait"))
    expect(idle=3, head=2, content=1, running=threads, queued=2)
    found = totals([crew.board])
    assert (found.threads, found.busy, found.accepted) == (threads, threads, 8 + threads)
    assert found.workers == {"starting": 1, "serving": 0, "leaving": 0}
    gate.open()
    for client in running:
        client.read_response()
    expect(idle=5 + threads, head=2, content=1)
    for client in (*idle, *head, content, *running):
        client.close()
    expect()


def test_what_a_worker_has_counted_is_kept(crewed):
    crew = crewed(by_path)
    with crew.connect() as client:
        for _ in range(5):
            client.ask("/200")
    wait_until(lambda: crew.row.counters()["connections"] == 0, "the end of its connection")
    before = counted(crew, 5)
    crew.crew.stop(5)
    wait_until(lambda: crew.crew.finished, "its end")
    crew.row.clear()
    after = totals([crew.board])
    assert crew.row.counters()["requests"] == 0
    assert after.ended == {"starting": 1, "serving": 0, "leaving": 0}
    assert after._replace(ended=before.ended, workers=before.workers, threads=before.threads) == before


def test_times_in_the_access_log(serve, tmp_path):
    log = tmp_path / "access.log"
    names = ("duration", "head", "content", "queue", "gil", "application", "sending")
    server = serve(
        answering(lambda environ: time.sleep(PAUSE)),
        access_logfile=str(log),
        access_logformat=" ".join(f"%({{{name}}}D)s" for name in names),
    )
    with server.connect() as client:
        octets = request("/", "POST", content=b"content")
        for part, state in ((octets[:20], "head"), (octets[20:-5], "content")):
            client.send(part)
            stay(server.server._worker._crew.row, state)
        client.send(octets[-5:])
        client.read_response()
        wait_until(log.read_text, "a line")
        times = {name: int(us) / 1e6 for name, us in zip(names, log.read_text().split(), strict=True)}
        assert all(
            NEARLY <= times[name] < PATIENCE for name in ("duration", "head", "content", "application")
        )
        assert max(times["queue"], times["gil"], times["sending"]) < PATIENCE
        assert times["application"] + times["sending"] == pytest.approx(times["duration"], abs=2e-6)


# Server-Timing


TIMING = re.compile(
    "head;dur=(N), content;dur=(N), queue;dur=(N), gil;dur=(N), app;dur=(N)".replace("N", r"\d+\.\d{3}")
)


def test_server_timing(serve):
    server = serve(answering(lambda environ: time.sleep(PAUSE)), server_timing=True)
    with server.connect() as client:
        octets = request("/", "POST", content=b"content")
        client.send(octets[:30])
        stay(server.server._worker._crew.row, "head")
        client.send(octets[30:])
        found = TIMING.fullmatch(client.read_response()["Server-Timing"])
    assert found
    head, content, queue, gil, app = (float(one) / 1000 for one in found.groups())
    assert NEARLY <= head < PATIENCE
    assert NEARLY <= app < PATIENCE
    assert max(content, queue, gil) < PATIENCE


@with_threads(1)
def test_an_applications_own_server_timing_stays(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT, ("Server-Timing", "db;dur=12.5")])
        return [b"content"]

    fields = serve(application, server_timing=True).ask().all("Server-Timing")
    assert fields[0] == "db;dur=12.5"
    assert TIMING.fullmatch(fields[1])
    assert len(fields) == 2


@with_threads(1)
def test_without_the_option_there_is_no_server_timing(serve):
    assert serve(answering(lambda environ: "")).ask()["Server-Timing"] is None
