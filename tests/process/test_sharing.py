"""Several workers at the same listener: how they share its connections, and that none is lost."""

import os
import select
import signal
import socket
import threading
import time

import pytest

from conftest import POLLERS
from support import PATIENCE, answering, text, wait_until
from workers import Workers, clients, connected

REQUEST = b"GET / HTTP/1.1\r\nHost: test.example\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n"

on_each_poller = pytest.mark.parametrize("poller", POLLERS)


def read_answer(client):
    """One answer whose content is short and has a length; fails where it is cut."""
    received = b""
    while b"\r\n\r\n" not in received or not received.endswith(b"hello"):
        block = client.recv(4096)
        assert block, f"the connection ended after {received!r}"
        received += block
    assert received.startswith(b"HTTP/1.1 200 OK")
    return received


def open_one(workers, opened):
    """One connection more, that has had an answer and stays."""
    opened.append(connected(workers.address))
    opened[-1].sendall(REQUEST)
    read_answer(opened[-1])


def evenly(counts, total):
    share = total / len(counts)
    return sum(counts) == total and all(abs(count - share) <= share / 5 for count in counts)


@on_each_poller
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("total", [64, 2000])
def test_connections_that_stay_are_shared_evenly(count, total, poller):
    """One after the other, each with a request: whoever is woken first would get them all."""
    with Workers(count, text(), poller=poller, threads=2) as workers, clients() as opened:
        for _ in range(total):
            open_one(workers, opened)
        assert evenly(workers.counts(), total), workers.counts()


@on_each_poller
@pytest.mark.parametrize("total", [64, 2000])
def test_connections_that_come_at_once_are_shared_evenly(total, poller):
    with Workers(2, text(), poller=poller, threads=2) as workers, clients() as opened:
        for _ in range(total):
            opened.append(connected(workers.address))
            opened[-1].sendall(REQUEST)
        for client in opened:
            read_answer(client)
        assert evenly(workers.counts(), total), workers.counts()


@on_each_poller
def test_new_connections_do_not_keep_out_those_that_are_there(poller):
    """Always more come than are accepted in a turn: the application computes longer than they need."""

    def application(environ):
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass
        return b"hello"

    over = threading.Event()

    def flood(address):
        while not over.is_set():
            with connected(address) as client:
                client.sendall(LAST)
                read_answer(client)

    with Workers(1, answering(application), poller=poller, threads=1) as workers, clients() as opened:
        kept = [connected(workers.address) for _ in range(4)]
        opened.extend(kept)
        floods = [threading.Thread(target=flood, args=(workers.address,)) for _ in range(40)]
        try:
            for one in floods:
                one.start()
            wait_until(lambda: workers.rows[0].counters()["accepted"] > 200, "the flood")
            for _ in range(10):
                for client in kept:
                    client.sendall(REQUEST)
                for client in kept:
                    read_answer(client)
        finally:
            over.set()
            for one in floods:
                one.join()


@on_each_poller
def test_a_new_worker_gets_its_share(poller):
    with Workers(2, text(), poller=poller) as workers, clients() as opened:
        workers.signal(signal.SIGKILL, 1)
        workers.wait(1)
        workers.rows[1].clear()
        for _ in range(60):
            open_one(workers, opened)
        assert workers.counts() == [60, 0]
        workers.start(workers.rows[1])
        for _ in range(60):
            open_one(workers, opened)
        assert evenly(workers.counts(), 120), workers.counts()


@on_each_poller
def test_a_worker_that_is_stopped_holds_up_nobody_for_long(poller):
    """It has few connections for ever, so the others would leave the new ones to it."""
    with Workers(2, text(), poller=poller) as workers, clients() as opened:
        for _ in range(10):
            open_one(workers, opened)
        workers.pause(0)
        waits = []
        for _ in range(100):
            began = time.monotonic()
            open_one(workers, opened)
            waits.append(time.monotonic() - began)
        workers.signal(signal.SIGCONT, 0)
        assert max(waits) < 2
        assert sum(waits) < 4


@answering
def long_or_not(environ):
    if environ["PATH_INFO"] == "/long":
        time.sleep(PATIENCE / 2)
    return "hello"


def are_served_at_once(workers, opened):
    """New connections, not behind a long exchange."""
    began = time.monotonic()
    for _ in range(3):
        open_one(workers, opened)
    assert time.monotonic() - began < PATIENCE / 4


@on_each_poller
def test_requests_go_to_the_worker_that_has_a_thread(poller):
    """One has its only thread in a long exchange, and another request that waits for it."""
    with Workers(2, long_or_not, poller=poller, threads=1) as workers, clients() as opened:
        workers.pause(0)
        for number in range(2):
            opened.append(connected(workers.address))
            opened[-1].sendall(REQUEST.replace(b" / ", b" /long "))
            wait_until(lambda: workers.counts("accepted") == [0, number + 1], "it is accepted")  # noqa: B023
        wait_until(lambda: workers.counts("waiting") == [0, 1], "one request waits")
        workers.signal(signal.SIGCONT, 0)
        are_served_at_once(workers, opened)
        assert workers.counts("accepted") == [3, 2]


@on_each_poller
def test_requests_go_to_the_worker_that_has_a_free_thread(poller):
    """One has its only thread in a long exchange, and nothing waits; the other one has more connections."""
    with Workers(2, long_or_not, poller=poller, threads=1) as workers, clients() as opened:
        workers.pause(1)
        opened.extend(connected(workers.address) for _ in range(10))
        wait_until(lambda: workers.counts() == [10, 0], "all are with one")
        workers.pause(0)
        workers.signal(signal.SIGCONT, 1)
        opened.append(connected(workers.address))
        opened[-1].sendall(REQUEST.replace(b" / ", b" /long "))
        wait_until(lambda: workers.counts("lead_taken") == [0, 1], "the thread is away")
        workers.signal(signal.SIGCONT, 0)
        are_served_at_once(workers, opened)
        assert workers.counts("accepted") == [13, 1]


@on_each_poller
def test_a_kick_is_heard_even_if_the_lead_is_taken(poller):
    """It comes together with a request, and before its turn comes the one who leads stays away for long."""

    @answering
    def application(environ):
        if environ["PATH_INFO"] == "/long":
            time.sleep(0.6)
        return "hello"

    with Workers(2, application, poller=poller, threads=2) as workers, clients() as opened:
        workers.pause(1)
        open_one(workers, opened)
        before = workers.counts("yielded")[0]
        while workers.counts("yielded")[0] == before:
            opened.append(connected(workers.address))
            opened[-1].sendall(REQUEST)
            wait_until(
                lambda: workers.counts("accepted")[0] == len(opened) or workers.counts("yielded")[0] > before,
                "it is accepted, or left to the other",
            )
        workers.pause(0)
        workers.signal(signal.SIGKILL, 1)
        workers.wait(1)
        workers.rows[1].clear()
        opened[0].sendall(REQUEST.replace(b" / ", b" /long "))
        os.eventfd_write(workers.kick, 1)
        workers.signal(signal.SIGCONT, 0)
        read_answer(opened[-1])
        assert not select.select([opened[0]], [], [], 0)[0], "the long one was answered first"
        read_answer(opened[0])


@on_each_poller
def test_who_leaves_takes_nothing_along(poller):
    """Connections that wait in the kernel's queue when a worker leaves are accepted by another."""
    with Workers(2, text(), poller=poller) as workers, clients() as opened:
        workers.pause()
        for _ in range(100):
            opened.append(connected(workers.address))
            opened[-1].sendall(LAST)
        workers.signal(signal.SIGUSR2, 0)
        workers.signal(signal.SIGCONT, 0)
        assert workers.wait(0) == [0]
        left = workers.counts("accepted")[0]
        workers.signal(signal.SIGCONT, 1)
        for client in opened:
            read_answer(client)
        assert workers.counts("accepted") == [left, 100 - left]
        opened.append(connected(workers.address))
        opened[-1].sendall(LAST)
        read_answer(opened[-1])


@on_each_poller
def test_workers_come_and_leave_under_load(poller):
    """Each in turn leaves, and another one takes its place; no client sees anything of it."""
    served, failures = [], []
    stop = threading.Event()
    with Workers(2, text(), poller=poller) as workers:

        def ask():
            while not stop.is_set():
                try:
                    with connected(workers.address) as client:
                        client.sendall(LAST)
                        served.append(read_answer(client))
                except (AssertionError, OSError) as error:
                    failures.append(error)

        # Forked before there are threads: this process only starts and stops others.
        child = os.fork()
        if not child:
            asking = [threading.Thread(target=ask) for _ in range(8)]
            for thread in asking:
                thread.start()
            signal.signal(signal.SIGTERM, lambda *_: stop.set())
            stop.wait(6 * PATIENCE)
            for thread in asking:
                thread.join(2 * PATIENCE)
            print(len(served), failures[:5], flush=True)
            os._exit(0 if len(served) > 100 and not failures else 1)
        try:
            for number in range(10):
                row = workers.rows[number % 2]
                workers.signal(signal.SIGUSR2, row.index)
                assert workers.wait(row.index) == [0]
                workers.start(row)
        finally:
            os.kill(child, signal.SIGTERM)
            _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0


@on_each_poller
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
def test_all_stop_and_lose_nothing(poller, family, short_path):
    """What is in the kernel's queue when all stop is answered, whoever of them is first."""
    path = str(short_path / "socket") if family == socket.AF_UNIX else None
    with Workers(3, text(), poller=poller, family=family, path=path) as workers, clients() as opened:
        for _ in range(20):
            opened.append(connected(workers.address, family))
        workers.pause()
        for _ in range(100):
            opened.append(connected(workers.address, family))
        for client in opened:
            client.sendall(REQUEST)
        workers.board.stopping = True
        workers.signal(signal.SIGTERM)
        for index in (2, 0, 1):
            workers.signal(signal.SIGCONT, index)
            time.sleep(0.02)
        for client in opened:
            read_answer(client)
        assert workers.wait() == [0, 0, 0]
        with pytest.raises(OSError):
            connected(workers.address, family)


@on_each_poller
def test_one_is_told_to_stop_later_than_the_others(poller):
    """The first one shuts the listener down for all; that is no error for those who hear of it later."""
    with Workers(2, text(), poller=poller) as workers, clients() as opened:
        opened.append(connected(workers.address))
        opened[0].sendall(REQUEST)
        read_answer(opened[0])
        workers.board.stopping = True
        workers.signal(signal.SIGTERM, 0)
        assert workers.wait(0) == [0]
        time.sleep(0.1)
        used = os.times().children_user
        workers.signal(signal.SIGTERM, 1)
        assert workers.wait(1) == [0]
        assert os.times().children_user - used < 0.5


def test_an_idle_worker_has_no_timer():
    with Workers(2, text()) as workers:
        time.sleep(0.2)
        before = [context_switches(pid) for pid in workers.children.values()]
        time.sleep(1.2)
        assert [context_switches(pid) for pid in workers.children.values()] == before


def context_switches(pid):
    """Of all threads of a process, those it asked for."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/status") as status:
            total += sum(
                int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches")
            )
    return total
