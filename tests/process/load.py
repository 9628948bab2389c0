"""A load whose every answer is checked, and which tells who was failed from who was only sent away.

    with load(server.address) as running:
        server.signal(signal.SIGHUP)
        running.wait_generation("2")
    running.report.check()

The application is that of `numbered.py`. A request has **failed** when there is no complete and right answer
to it: a reset, an end in the middle, no answer in time, a wrong one, another status than 200, a refused
connect while the server should listen. It has not failed when

- the connection had answered before and is closed in order before the first octet of this answer: the server
  may close a kept connection at any time, and the request (a GET) is sent again on a new connection. There it
  must be answered: on a new connection there is no such excuse;
- the connect is refused after `listening_ends()`: the client then has done its work.
"""

import contextlib
import itertools
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from fastwsgi.gil import has_gil
from process.numbered import content_of
from support import PATIENCE, Client, Incomplete, Malformed, request, wait_until

DEPTH = 8  # of the pipeline
WRK = shutil.which("wrk")


@dataclass(frozen=True)
class Failure:
    """One request that failed: when (as the log has it), whose, and how."""

    clock: str
    client: str
    number: int
    how: str
    detail: str

    def __str__(self):
        return f"{self.clock} {self.client} {self.number}: {self.how} ({self.detail})"


@dataclass
class Report:
    """What the clients have seen. `closed`: kept connections that ended while nothing was asked."""

    requests: int = 0
    retried: int = 0
    closed: int = 0
    refused: int = 0
    longest: float = 0.0
    failures: list = field(default_factory=list)
    generations: Counter = field(default_factory=Counter)
    workers: Counter = field(default_factory=Counter)
    wrk: dict = field(default_factory=dict)

    def check(self, least=100):
        """There was a load, and no request of it failed."""
        assert not self.failures, str(self)
        assert self.requests >= least, f"too little to mean anything: {self}"

    def __str__(self):
        lines = [
            f"{self.requests} requests, {len(self.failures)} failed, {self.retried} sent again, "
            f"{self.closed} closed at rest, {self.refused} refused at the end, "
            f"longest {self.longest * 1000:.0f} ms",
            f"generations {dict(self.generations)}, workers {dict(self.workers)}",
        ]
        if self.wrk:
            lines.append(f"wrk: {self.wrk}")
        return "\n".join([*lines, *map(str, self.failures[:50])])


class LoadClient(threading.Thread):
    """One client with one habit."""

    def __init__(self, load, habit, number):
        super().__init__(name=f"{habit}-{number}", daemon=True)
        self.load = load
        self.habit = getattr(self, habit)
        self.client = None
        self.answers = 0  # on this connection
        self.asked = 0  # how often it has ended asking, with answers or without
        self.is_sent_away = False

    def run(self):
        try:
            while not (self.load.over or self.is_sent_away):
                self.habit()
                if not has_gil():
                    # They would leave no processor to servers that start.
                    self.load.pause(0.001)
        finally:
            self.hang_up()

    # The habits

    def keep(self):
        """One request after the other on one connection."""
        self.ask([self.get()])

    def rest(self):
        """The same with pauses, so that the server meets connections at rest."""
        self.load.pause(random.uniform(0, 0.3))
        self.ask([self.get()])

    def renew(self):
        """A connection for each request."""
        self.ask([self.get(("Connection", "close"))])
        self.hang_up()

    def pipeline(self):
        """Several requests at once."""
        self.ask([self.get() for _ in range(DEPTH)])

    def upload(self):
        """Content that comes in two pieces, on a connection of its own: it cannot be sent again."""
        number = next(self.load.numbers)
        content = str(number).rjust(2000).encode()
        octets = request("/", "POST", content=content)
        self.ask([(number, octets)], half=len(octets) - 1000)
        self.hang_up()

    # How

    def get(self, *fields):
        number = next(self.load.numbers)
        query = f"?sleep={self.load.work}" if self.load.work else ""
        return number, request(f"/{number}{query}", fields=fields)

    def ask(self, requests, half=None):
        """Have all of these answered, over as many connections as the server wants."""
        waiting = list(requests)
        begun = time.monotonic()
        while waiting and not self.is_sent_away:
            try:
                self.connect()
                if self.client:
                    self.exchange(waiting, begun, half)
            except (AssertionError, OSError) as error:
                self.lose(waiting, error)
                waiting.clear()
        self.asked += 1

    def connect(self):
        """A connection that is open as far as can be known; none if the server has ended listening."""
        if self.client and self.client.readable():
            ended = not self.client.received and not self.client.receive()
            assert ended, f"unasked: {bytes(self.client.received)!r}"
            self.load.note(closed=1)
            self.hang_up()
        if self.client:
            return
        try:
            self.client = Client(self.load.address, timeout=self.load.patience, tls=self.load.tls)
        except (ConnectionRefusedError, FileNotFoundError):
            if not self.load.may_refuse:
                raise
            self.load.note(refused=1)
            self.is_sent_away = True

    def exchange(self, waiting, begun, half):
        octets = b"".join(octets for _, octets in waiting)
        try:
            self.client.send(octets[:half])
        except BrokenPipeError:
            # The end of a TCP connection is told to whoever reads next, that of a unix socket to who sends.
            if not self.answers or self.client.socket.family != socket.AF_UNIX:
                raise
            self.send_again(waiting)
            return
        if half:
            self.load.pause(random.uniform(0, 0.05))
            self.client.send(octets[half:])
        while waiting and self.client:
            so_far = self.client.octets - len(self.client.received)
            try:
                response = self.client.read_response()
            except Incomplete:
                if not self.answers or self.client.octets > so_far:
                    raise
                self.send_again(waiting)
                return
            self.judge(response, waiting[0][0], begun)
            del waiting[0]
            self.answers += 1
            if response.closes:
                self.send_again(waiting)

    def send_again(self, waiting):
        """What this connection will not answer any more is for the next one."""
        self.load.note(retried=len(waiting))
        self.hang_up()

    def judge(self, response, number, begun):
        assert response.status == 200, f"status {response.status}"
        assert response.content == content_of(number), f"wrong content: {response.content[:100]!r}"
        self.load.note_answer(time.monotonic() - begun, response["Generation"], response["Worker"])

    def lose(self, waiting, error):
        """All that was asked on this connection has failed."""
        how = {
            ConnectionRefusedError: "refused",
            ConnectionResetError: "reset",
            BrokenPipeError: "reset",
            Incomplete: "ended",
            Malformed: "malformed",
            TimeoutError: "timeout",
        }.get(type(error), "wrong")
        now = time.time()
        clock = time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now % 1 * 1000):03d}"
        detail = f"{type(error).__name__}: {error}; after {self.answers} answers"
        self.load.note_failures([Failure(clock, self.name, number, how, detail) for number, _ in waiting])
        self.hang_up()
        self.load.pause(0.05)

    def hang_up(self):
        if self.client:
            self.client.close()
        self.client = None
        self.answers = 0


HABITS = ("keep", "renew", "pipeline", "rest", "upload")


class Load:
    """Clients that ask from now on until stop(), for `seconds` at most."""

    def __init__(
        self,
        address,
        clients=20,
        habits=HABITS,
        work=0.0,
        wrk=0,
        seconds=60.0,
        patience=PATIENCE,
        may_refuse=False,
        may_fail=False,
        tls=None,
    ):
        """Start. `work`: how long the application takes for a GET; `wrk`: so many connections of wrk beside;
        `tls`: the context of clients that speak it, TLS 1.2, as tickets come unasked in TLS 1.3.

        may_fail: failures do not end the waiting for something; the test looks at them itself.
        """
        self.address = address
        self.work = work
        self.seconds = seconds
        self.patience = patience
        self.may_refuse = may_refuse
        self.may_fail = may_fail
        self.tls = tls
        self.numbers = itertools.count(1)
        self.report = Report()
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.deadline = time.monotonic() + seconds
        self.clients = [
            LoadClient(self, habit, number) for number, habit in zip(range(clients), itertools.cycle(habits))
        ]
        self.wrk = self.start_wrk(wrk) if wrk else None
        for client in self.clients:
            client.start()

    def start_wrk(self, connections):
        host, port = self.address
        work = f"?sleep={self.work}" if self.work else ""
        options = f"--threads 1 --connections {connections} --duration {int(self.seconds) + 60} --timeout 10"
        return subprocess.Popen(
            [WRK, *options.split(), f"http://{host}:{port}/49{work}"], stdout=subprocess.PIPE, text=True
        )

    @property
    def over(self):
        return self.ended.is_set() or time.monotonic() > self.deadline

    def pause(self, seconds):
        self.ended.wait(seconds)

    def listening_ends(self):
        """From now on the server may refuse connections; to be called before it is told to stop."""
        self.may_refuse = True

    def stop(self):
        """Let the clients finish what they are at; all of them end."""
        timely = time.monotonic() < self.deadline
        self.ended.set()
        try:
            for client in self.clients:
                client.join(3 * PATIENCE)
            if self.wrk:
                self.stop_wrk()
        finally:
            if self.wrk:
                self.wrk.kill()
                self.wrk.communicate()
        stuck = [client.name for client in self.clients if client.is_alive()]
        assert not stuck, f"clients that do not end: {stuck}"
        assert timely, f"the load was over after {self.seconds} s, before the test"

    def stop_wrk(self):
        # When interrupted it reports as it would at its end.
        self.wrk.send_signal(signal.SIGINT)
        output, _ = self.wrk.communicate(timeout=PATIENCE)
        counts = {"requests": int(re.search(r"(\d+) requests in", output)[1])}
        for kind in ("connect", "read", "write", "timeout"):
            found = re.search(rf"Socket errors:.* {kind} (\d+)", output)
            counts[kind] = int(found[1]) if found else 0
        found = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
        counts["status"] = int(found[1]) if found else 0
        self.report.wrk = counts
        # To wrk a refused connect is an error of reading or writing.
        excused = ("requests", "connect", "read", "write") if self.may_refuse else ("requests",)
        for kind, count in counts.items():
            if count and kind not in excused:
                self.note_failures([Failure("", "wrk", 49, kind, f"{count} times")])

    # What the clients tell

    def note(self, **counts):
        with self.lock:
            for name, count in counts.items():
                setattr(self.report, name, getattr(self.report, name) + count)

    def note_answer(self, took, generation, worker):
        with self.lock:
            self.report.requests += 1
            self.report.longest = max(self.report.longest, took)
            self.report.generations[generation] += 1
            self.report.workers[worker] += 1

    def note_failures(self, failures):
        with self.lock:
            self.report.failures += failures

    # What tests wait for

    def wait(self, condition, what, seconds=3 * PATIENCE):
        """Wait until condition() is true; fail at once when a request has failed that should not."""

        def come():
            assert self.may_fail or not self.report.failures, str(self.report)
            return condition()

        return wait_until(come, lambda: f"{what}: {self.report}", seconds)

    def wait_answers(self, count=200):
        """Wait for so many more answers."""
        wanted = self.report.requests + count
        self.wait(lambda: self.report.requests >= wanted, f"{count} answers")

    def wait_everybody(self):
        """Wait until no client has anything to do with what was before: not a request, nor its connection."""
        wanted = [(client, client.asked + 2) for client in self.clients]
        self.wait(lambda: all(client.asked >= count for client, count in wanted), "everybody")

    def wait_workers(self, *pids):
        """Wait until each of these has answered from now on."""
        with self.lock:
            before = self.report.workers.copy()
        wanted = [str(pid) for pid in pids]
        self.wait(
            lambda: all(self.report.workers[pid] > before[pid] for pid in wanted), f"answers from {wanted}"
        )

    def wait_generation(self, generation):
        """Wait until this generation of the application has answered, and no other does any more."""

        def alone():
            with self.lock:
                before = self.report.generations.copy()
            time.sleep(0.3)
            with self.lock:
                change = self.report.generations - before
            return set(change) == {generation}

        self.wait(alone, f"generation {generation} alone")


@contextlib.contextmanager
def load(address, **options):
    """A Load that runs as long as the block; what it says of its failures is the test's to check."""
    running = Load(address, **options)
    try:
        yield running
    finally:
        running.stop()
