"""Threads of the application that share what belongs to one exchange, while exchanges come and go.

Without a GIL nothing but our own locks keeps them from each other. RACES_SECONDS=60 makes each of these tests
take a minute; so long is of use with a free-threaded Python, and under the thread sanitizer.
"""

import os
import random
import sys
import threading
import time
from contextlib import suppress

from conftest import of_threads, with_threads
from fastwsgi._stacks import stack_text, stacks
from fastwsgi.worker import all_stacks
from support import TEXT, Incomplete, Malformed, request, wait_until

SECONDS = float(os.environ.get("RACES_SECONDS", "1.0"))
BLOCK = b"0123456789abcde\n"
CONTENT = BLOCK * 20_000
SMALL = BLOCK * 10

pytestmark = of_threads


def together(*functions):
    """Call them at the same time, each in a thread of its own; an exchange may be taken away from them."""
    ready = threading.Barrier(len(functions))

    def run(function):
        ready.wait(30)
        trying(function)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def trying(function, *arguments):
    """What may be refused, as it is too late, or has been done by another thread."""
    try:
        return function(*arguments)
    except (AssertionError, ConnectionError, RuntimeError, ValueError):
        return None


class Sharing:
    """An application that has several threads for one request; by its path."""

    def __init__(self):
        self.kept = []  # of exchanges that may be over: start_response, write, input
        self.wrong = []
        self.until = 0.0

    def __call__(self, environ, start_response):
        return getattr(self, environ["PATH_INFO"].strip("/"))(environ, start_response)

    def plain(self, environ, start_response):
        start_response("200 OK", [TEXT, ("Keep-Alive", "left out")])
        return [SMALL]

    def read(self, environ, start_response):
        """What several threads read of the content is all of it, each octet once."""
        content, sizes = environ["wsgi.input"], []

        def by_pieces():
            while piece := content.read(4099):
                sizes.append(len(piece))

        def by_lines():
            while line := content.readline(100):
                sizes.append(len(line))

        def by_iteration():
            sizes.extend(len(line) for line in content)

        together(by_pieces, by_lines, by_iteration)
        start_response("200 OK", [TEXT])
        return [b"%d" % sum(sizes)]

    def write(self, environ, start_response):
        """Each block arrives whole."""
        write = start_response("200 OK", [TEXT])
        together(*(lambda: [write(BLOCK * 10) for _ in range(20)],) * 3)
        return []

    def start(self, environ, start_response):
        """Answers that are begun anew while another thread writes; and fields that change meanwhile."""
        fields = [TEXT, ("X-Many", "v" * 1000)]
        write = start_response("200 OK", fields)

        def change():
            for number in range(100):
                fields.append((f"X-{number}", "v" * number))
                del fields[2:]

        def begin():
            for _ in range(20):
                try:
                    raise KeyError
                except KeyError:
                    with suppress(KeyError):  # the head has left
                        start_response("200 OK", fields, sys.exc_info())

        together(change, begin, begin, lambda: write(SMALL))
        return []

    def keep(self, environ, start_response):
        """What belongs to an exchange is used by others after its end, and at that very moment."""
        environ["fastwsgi.client_gone"].is_set()
        self.kept.append((start_response, environ["fastwsgi.client_gone"], environ["wsgi.input"]))
        if len(self.kept) > 16:
            start, gone, content = self.kept.pop(random.randrange(8))
            threading.Thread(target=self.use_late, args=(start, gone, content)).start()
        write = start_response("200 OK", [TEXT])
        threading.Thread(target=trying, args=(write, b"")).start()
        return [SMALL]

    def use_late(self, start, gone, content):
        trying(start, "200 OK", [TEXT])
        trying(gone.leave_unlogged)
        gone.is_set()
        content.read(10)

    def compute(self, environ, start_response):
        def deep(number):
            return number and deep(number - 1) + 1

        for _ in range(20):
            deep(200)
        start_response("200 OK", [TEXT])
        return [b"%d" % deep(100)]

    def hang(self, environ, start_response):
        """Ended when it sees that it was taken away, or that all is over."""
        gone = environ["fastwsgi.client_gone"]
        while not gone.is_set() and time.monotonic() < self.until:
            for _ in range(10_000):
                pass
        start_response("200 OK", [TEXT])
        return []

    def stream(self, environ, start_response):
        start_response("200 OK", [TEXT])
        for _ in range(5):
            yield BLOCK

    def fail(self, environ, start_response):
        raise ZeroDivisionError


EXPECTED = {
    "plain": SMALL,
    "read": b"%d" % len(CONTENT),
    "write": BLOCK * 600,
    "compute": b"100",
    "stream": BLOCK * 5,
    "keep": SMALL,
}
# These may have any answer, or none.
WILD = ("start", "hang", "fail")


def whole(kind):
    return request(f"/{kind}", "POST", content=CONTENT) if kind in ("read", "keep") else request(f"/{kind}")


class Load:
    """Clients, and what else goes on meanwhile, until the time is over."""

    def __init__(self, server, application, unfair=True):
        self.server = server
        self.until = application.until = time.monotonic() + SECONDS
        self.application = application
        self.wrong = application.wrong
        self.counts = dict.fromkeys(("asked", "left", "looked", "revoked"), 0)
        self.jobs = [(self.ask, seed) for seed in range(4)] + [(self.leave, 10), (self.look, 11)]
        if unfair:
            self.jobs += [(self.revoke, 12), (self.ask_for_wild_things, 13)]

    def run(self):
        together(*(lambda job=job, seed=seed: self.guarded(job, seed) for job, seed in self.jobs))
        self.server.wait_count("exchanges", 0)
        self.application.kept.clear()  # and with it the spool files
        assert self.wrong == []

    def guarded(self, job, seed):
        choice = random.Random(seed)
        try:
            job(choice)
            while time.monotonic() < self.until:
                job(choice)
        except Exception as error:
            self.wrong.append(f"{job.__name__}: {error!r}")

    def ask(self, choice):
        """Pipelined requests over one connection; where exchanges are taken away, answers may lack."""
        kinds = choice.choices(list(EXPECTED), k=choice.choice((1, 4)))
        with self.server.connect() as client:
            try:
                client.send(b"".join(map(whole, kinds)))
                for kind in kinds:
                    response = client.read_response()
                    if response.status == 503 and len(self.jobs) > 6:
                        break
                    if (response.status, response.content) != (200, EXPECTED[kind]):
                        self.wrong.append((kind, response.status, response.content[:100]))
                    self.counts["asked"] += 1
            except (ConnectionError, Incomplete):
                if len(self.jobs) == 6:
                    raise

    def ask_for_wild_things(self, choice):
        with self.server.connect() as client:
            client.send(whole(choice.choice(WILD)))
            with suppress(ConnectionError, Incomplete, Malformed):
                client.read_response()

    def leave(self, choice):
        client = self.server.connect(receive_buffer=4096)
        try:
            sent = whole(choice.choice(list(EXPECTED))) * choice.choice((1, 3))
            client.send(sent[: choice.choice((20, 1000, len(sent)))])
            client.readable(choice.choice((0, 0.0005, 0.005)))
        except ConnectionError:
            pass
        finally:
            client.reset()
        self.counts["left"] += 1

    def look(self, choice):
        """Where everybody is, and what was counted."""
        for stack in stacks().values():
            if choice.random() < 0.05:
                stack_text(stack)
        if choice.random() < 0.05:
            all_stacks()
        self.server.server.counters()
        self.counts["looked"] += 1
        time.sleep(0.002)  # or all threads are stopped most of the time

    def revoke(self, choice):
        self.server.server._worker._crew.revoke(choice.randint(1, self.server.threads))
        self.counts["revoked"] += 1
        time.sleep(choice.uniform(0.001, 0.02))


def allow_what_happens(server):
    for words in ("taken away", "ZeroDivisionError", "failed", "refused with", "were left out"):
        server.log.allow(words)
    for words in ("hop-by-hop", "Content-Length", "is slow", "given up", "lines were lost"):
        server.log.allow(words)


@with_threads(4)
def test_all_at_once(serve, tmp_path):
    """And exchanges are taken away: that makes any answer right but a wrong one."""
    application = Sharing()
    server = serve(
        application,
        validate=False,
        tick=0.00001,
        request_buffer=131072,
        access_logfile=str(tmp_path / "access.log"),
        access_logformat='%(h)s "%(r)s" %(s)s %({path_info}e)s %({content-type}o)s',
    )
    allow_what_happens(server)
    load = Load(server, application)
    load.run()
    assert load.counts["looked"] and load.counts["revoked"], load.counts
    assert server.ask("/plain").content == SMALL
    log = tmp_path / "access.log"
    wait_until(lambda: '"GET /plain HTTP/1.1" 200 /plain text/plain' in log.read_text(), "its line")


@with_threads(4)
def test_no_answer_is_wrong_or_lacking(serve):
    application = Sharing()
    server = serve(application, validate=False, tick=0.00001, compress="gzip")
    allow_what_happens(server)
    load = Load(server, application, unfair=False)
    load.run()
    assert load.counts["asked"] and load.counts["looked"], load.counts


def test_stacks_of_threads_that_run():
    """They are looked at as often as possible, while functions are called and left as often as possible."""
    stop = threading.Event()
    interval = sys.getswitchinterval()

    def deep(number):
        return number and deep(number - 1) + 1

    def run():
        while not stop.is_set():
            deep(50)
            sum(number for number in range(50))

    runners = [threading.Thread(target=run) for _ in range(3)]
    for runner in runners:
        runner.start()
    until = time.monotonic() + SECONDS
    deepest = 0
    sys.setswitchinterval(0.000001)
    try:
        while time.monotonic() < until or deepest < 10:
            found = {runner.ident: stacks()[runner.ident] for runner in runners}
            deepest = max(deepest, *map(len, found.values()))
            for stack in found.values():
                assert stack[-1][0].co_name == "_bootstrap"
                assert " in run\n" in stack_text(stack)
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        for runner in runners:
            runner.join()
