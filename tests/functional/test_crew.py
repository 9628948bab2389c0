"""The threads over one loop: what ARCHITECTURE.md promises and a client or an application can see."""

import sqlite3
import threading
import time

import pytest

from conftest import of_threads, one_loop, with_threads
from support import PATIENCE, TEXT, Body, Gate, answering, request, target_of, text, wait_until

pytestmark = one_loop

one_thread = with_threads(1)
many_threads = with_threads(4)


def gated(gate, free="/"):
    """An application that waits at the gate, but for the target `free`."""

    def application(environ, start_response):
        if environ["PATH_INFO"] != free:
            gate.hold()
        return target_of(environ, start_response)

    return application


# Blocks leave while the application goes on.


def test_a_block_leaves_before_the_application_sleeps(serve):
    """Within 20 ms in the best of three attempts, each with a server that is new to the application."""
    yielded, delays = [], []

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        yielded.append(time.monotonic())
        yield b"first"
        time.sleep(0.5)
        yield b"second"

    for _ in range(3):
        with serve(application).connect() as client:
            client.send(request("/"))
            client.read_head()
            assert client.take_chunk() == b"first"
            delays.append(time.monotonic() - yielded[-1])
            assert client.take_chunks() == b"second"
            assert time.monotonic() - yielded[-1] >= 0.5
    assert min(delays) < 0.02


def test_each_block_of_a_slow_generator_leaves_at_once(serve):
    asked = threading.Semaphore(0)

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        for number in range(20):
            yield b"%d" % number
            assert asked.acquire(timeout=PATIENCE)

    with serve(application).connect() as client:
        client.send(request("/"))
        client.read_head()
        for number in range(20):
            assert client.take_chunk() == b"%d" % number
            asked.release()
        assert client.take_chunks() == b""


# Which thread, and how many.


@one_thread
def test_one_thread_is_the_same_for_ever(serve):
    gate = Gate()

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/hold":
            gate.hold()
        if environ["PATH_INFO"] == "/sleep":
            time.sleep(0.02)
        start_response("200 OK", [TEXT])
        yield b"%d " % threading.get_ident()
        if environ["PATH_INFO"] == "/sleep":
            time.sleep(0.005)
        yield b"%d" % threading.get_ident()

    server = serve(application)
    idents = set()
    for _ in range(5):
        idents.update(server.ask("/").text.split())
        idents.update(server.ask("/sleep").text.split())
    held = server.connect()
    held.send(request("/hold"))
    gate.wait_entered()
    others = [server.connect() for _ in range(5)]
    for client in others:
        client.send(request("/"))
    gate.open()
    for client in (held, *others):
        idents.update(client.read_response().text.split())
    assert len(idents) == 1


def test_an_iterable_stays_on_its_thread(serve):
    def application(environ, start_response):
        ident = threading.get_ident()
        start_response("200 OK", [TEXT])

        def blocks():
            try:
                for _ in range(5):
                    time.sleep(0.003)
                    yield b"." if threading.get_ident() == ident else b"!"
            finally:
                yielded.append(threading.get_ident() == ident)

        return blocks()

    yielded = []
    server = serve(application)
    clients = [server.connect() for _ in range(8)]
    for client in clients:
        client.send(request("/"))
    for client in clients:
        assert client.read_response().text == "....."
    assert yielded == [True] * 8


def test_at_most_so_many_at_once(serve):
    gate = Gate()
    server = serve(gated(gate))
    clients = [server.connect() for _ in range(3 * server.threads)]
    for client in clients:
        client.send(request("/hold"))
    gate.wait_entered(server.threads)
    time.sleep(0.05)  # Time for one too many to come in.
    assert gate.inside == gate.most == server.threads
    gate.open()
    for client in clients:
        assert client.read_response().text == "/hold"
    assert gate.most == server.threads


def test_really_so_many_at_once(serve):
    threads = serve.threads
    barrier = threading.Barrier(threads, timeout=PATIENCE)

    @answering
    def application(environ):
        barrier.wait()
        return threading.get_ident()

    server = serve(application)
    for _ in range(3):
        clients = [server.connect() for _ in range(threads)]
        for client in clients:
            client.send(request("/"))
        idents = {client.read_response().text for client in clients}
        assert len(idents) == threads


@with_threads(32)
def test_many_threads(serve):
    barrier = threading.Barrier(32, timeout=PATIENCE)
    server = serve(answering(lambda environ: barrier.wait()))
    clients = [server.connect() for _ in range(64)]
    for client in clients:
        client.send(request("/"))
    numbers = sorted(int(client.read_response().text) for client in clients)
    assert numbers == sorted(list(range(32)) * 2)


def test_exactly_so_many_threads_run_the_application(serve):
    def work(environ):
        time.sleep(0.001)
        return threading.get_ident()

    server = serve(answering(work))
    clients = [server.connect() for _ in range(10)]
    idents = set()
    for _ in range(20):
        for client in clients:
            client.send(request("/"))
        idents.update(client.read_response().text for client in clients)
    assert len(idents) <= server.threads
    assert str(threading.get_ident()) not in idents


def test_requests_beyond_the_threads_run_in_order(serve):
    gate, order = Gate(), []

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/hold":
            gate.hold()
        elif environ["PATH_INFO"] == "/block":
            assert blocked.wait(PATIENCE)
        else:
            order.append(environ["PATH_INFO"])
        return target_of(environ, start_response)

    # All threads but one are held to the end, so that one alone takes what is queued.
    blocked = threading.Event()
    server = serve(application)
    holding = [server.connect() for _ in range(server.threads - 1)]
    for client in holding:
        client.send(request("/hold"))
    gate.wait_entered(len(holding))
    last = server.connect()
    last.send(request("/block"))
    server.wait_count("exchanges", server.threads)
    queued = [server.connect() for _ in range(20)]
    server.wait_count("connections", server.threads + 20)
    before = server.count("queued")
    for number, client in enumerate(queued):
        client.send(request(f"/{number}"))
        server.wait_count("queued", before + number + 1)
    blocked.set()
    for number, client in enumerate(queued):
        assert client.read_response().text == f"/{number}"
    assert order == [f"/{number}" for number in range(20)]
    gate.open()
    for client in (*holding, last):
        assert client.read_response().status == 200


# Others do not wait.


@many_threads
def test_stuck_exchanges_do_not_stop_the_others(serve):
    gate = Gate()
    server = serve(gated(gate, free="/health"))
    stuck = [server.connect() for _ in range(server.threads - 1)]
    for client in stuck:
        client.send(request("/stuck"))
    gate.wait_entered(len(stuck))
    with server.connect() as client:
        for _ in range(200):
            assert client.ask("/health").text == "/health"
    gate.open()
    for client in stuck:
        assert client.read_response().text == "/stuck"


@pytest.fixture
def busy(serve):
    """A server all of whose threads are in the application, until the test is over."""
    gate = Gate()
    server = serve(gated(gate), keep_alive=0.3)
    idle = server.connect()
    assert idle.ask("/").text == "/"
    server.idle = idle
    holding = [server.connect() for _ in range(server.threads)]
    for client in holding:
        client.send(request("/hold"))
    gate.wait_entered(server.threads)
    yield server
    gate.open()
    for client in holding:
        assert client.read_response().text == "/hold"


def test_connections_are_accepted_while_all_threads_are_busy(busy):
    accepted = busy.count("accepted")
    clients = [busy.connect() for _ in range(10)]
    busy.wait_count("accepted", accepted + 10)
    assert len(clients) == 10


def test_malformed_requests_are_refused_while_all_threads_are_busy(busy):
    busy.log.allow("refused with")
    for _ in range(3):
        with busy.connect() as client:
            client.send(b"nonsense\r\n\r\n")
            assert client.read_response().status == 400
            client.expect_end()


def test_keep_alive_ends_while_all_threads_are_busy(busy):
    busy.idle.expect_end()


def test_content_is_received_while_all_threads_are_busy(busy):
    with busy.connect() as client:
        client.send(request("/", "POST", [("Content-Length", 3_000_000), ("Expect", "100-continue")]))
        assert client.read_head().status == 100
        # More than the buffers of the kernel hold: sending it all means that it is being received.
        client.send(b"x" * 3_000_000)


def test_an_idle_connection_gets_its_answer_after_the_busy_ones(serve):
    gate = Gate()
    server = serve(gated(gate))
    clients = [server.connect() for _ in range(server.threads)]
    for client in clients:
        client.send(request("/hold"))
    gate.wait_entered(server.threads)
    waiting = server.connect()
    waiting.send(request("/"))
    assert not waiting.readable(0.05)
    gate.open()
    assert waiting.read_response().text == "/"
    for client in clients:
        assert client.read_response().text == "/hold"


def test_slow_readers_are_served_while_all_threads_are_busy(serve):
    gate, body = Gate(), Body([b"x" * 1_000_000] * 10)

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/hold":
            gate.hold()
            return text()(environ, start_response)
        start_response("200 OK", [TEXT])
        return body

    server = serve(application)
    slow = server.connect(receive_buffer=4096)
    slow.send(request("/big"))
    wait_until(lambda: body.closed, "the end of the exchange")
    holding = [server.connect() for _ in range(server.threads)]
    for client in holding:
        client.send(request("/hold"))
    gate.wait_entered(server.threads)
    assert len(slow.read_response().content) == 10_000_000
    gate.open()


@of_threads
def test_a_computing_application_does_not_stop_the_loop(serve):
    ended = threading.Event()

    def compute(environ):
        if environ["PATH_INFO"] == "/compute":
            deadline = time.monotonic() + 1
            while not ended.is_set() and time.monotonic() < deadline:
                sum(range(1000))
        return "done"

    server = serve(answering(compute))
    server.log.allow("refused with")
    computing = server.connect()
    computing.send(request("/compute"))
    server.wait_count("exchanges", 1)
    with server.connect() as client:
        client.send(b"nonsense\r\n\r\n")
        assert client.read_response().status == 400
    assert server.count("exchanges") == 1
    ended.set()
    assert computing.read_response().text == "done"


def test_mixed_load(serve):
    """Many clients at once, some slow in one way or another: everybody gets the right answer."""

    def work(environ):
        path = environ["PATH_INFO"]
        if path.startswith("/sleep"):
            time.sleep(0.003)
        if path.startswith("/count"):
            sum(range(20_000))
        return path

    server = serve(answering(work))
    failures = []

    def talk(seed):
        try:
            with server.connect() as client:
                for number in range(30):
                    path = f"/{('sleep', 'count', 'quick')[(seed + number) % 3]}/{seed}/{number}"
                    if number % 5 == 4:
                        client.send(request(path) * 3)
                        assert [client.read_response().text for _ in range(3)] == [path] * 3
                    else:
                        assert client.ask(path).text == path
        except BaseException as error:
            failures.append(error)

    talkers = [threading.Thread(target=talk, args=(seed,)) for seed in range(12)]
    for talker in talkers:
        talker.start()
    for talker in talkers:
        talker.join()
    assert failures == []


def test_clients_that_are_gone_while_their_exchange_runs_use_no_cpu(serve):
    gate = Gate()
    server = serve(gated(gate))
    clients = [server.connect() for _ in range(server.threads)]
    for client in clients:
        client.send(request("/hold"))
    gate.wait_entered(server.threads)
    for client in clients:
        client.reset()
    waiting = server.connect()
    waiting.send(request("/hold"))
    waiting.reset()
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.15
    gate.open()
    server.wait_count("exchanges", 0)
    # The answers of those that were in the application met nobody.
    wait_until(lambda: server.count("lost_clients") >= len(clients), server.server.counters)


# What an application sees of its thread.


def test_threads_are_named(serve):
    server = serve(answering(lambda environ: threading.current_thread().name))
    assert server.ask().text.startswith("fastwsgi")


def test_thread_locals_are_kept(serve):
    local = threading.local()

    def count(environ):
        local.count = getattr(local, "count", 0) + 1
        return local.count

    server = serve(answering(count))
    with server.connect() as client:
        total = [int(client.ask().text) for _ in range(50)]
    assert max(total) >= 50 // server.threads


@one_thread
def test_a_database_connection_made_by_one_request_serves_the_next(serve):
    made = []

    def query(environ):
        if not made:
            made.append(sqlite3.connect(":memory:"))
            made[0].execute("CREATE TABLE t (a)")
        # check_same_thread raises when another thread uses it.
        made[0].execute("INSERT INTO t VALUES (1)")
        if environ["PATH_INFO"] == "/close":
            made[0].close()
            return "closed"
        time.sleep(0.002)
        return made[0].execute("SELECT count(*) FROM t").fetchone()[0]

    server = serve(answering(query))
    clients = [server.connect() for _ in range(5)]
    for client in clients:
        client.send(request("/"))
    assert sorted(int(client.read_response().text) for client in clients) == [1, 2, 3, 4, 5]
    assert server.ask("/close").text == "closed"


def test_an_application_may_start_threads(serve):
    def work(environ):
        answers = []
        thread = threading.Thread(target=lambda: answers.append("from a thread"))
        thread.start()
        thread.join()
        return answers[0]

    server = serve(answering(work))
    for _ in range(5):
        assert server.ask().text == "from a thread"


def test_an_application_that_asks_its_own_server(serve):
    def ask_myself(environ):
        if environ["PATH_INFO"] == "/inner" or servers[0].threads == 1:
            return "inner"
        return "outer " + servers[0].ask("/inner").text

    servers = []
    servers.append(serve(answering(ask_myself)))
    assert servers[0].ask("/").text in ("inner", "outer inner")


def test_counters(serve):
    gate = Gate()
    server = serve(gated(gate))
    server.log.allow("refused with")
    with server.connect() as client:
        client.ask("/")
        client.ask("/")
        assert server.count("accepted") == server.count("connections") == 1
        assert server.count("requests") == 2
        client.send(request("/hold"))
        gate.wait_entered()
        assert server.count("exchanges") == 1
        gate.open()
        client.read_response()
        server.wait_count("exchanges", 0)
    server.wait_count("connections", 0)
    with server.connect() as client:
        client.send(b"nonsense\r\n\r\n")
        client.read_response()
    wait_until(lambda: server.count("refused") == 1, "one refused")
    assert all(type(value) is int for value in server.server.counters().values())


def test_two_servers_in_one_process(serve):
    servers = [serve(text(name)) for name in (b"one", b"two")]
    for _ in range(3):
        assert [server.ask().text for server in servers] == ["one", "two"]
