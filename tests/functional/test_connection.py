"""Keep-alive, pipelining, half-closed and broken connections."""

import threading
import time

import pytest

from support import PATIENCE, TEXT, Body, Gate, chunked, echo, framed, request, target_of, text

# Kept connections.


def test_kept_for_many_requests(serve):
    server = serve(target_of)
    with server.connect() as client:
        for number in range(200):
            response = client.ask(f"/{number}")
            assert response.text == f"/{number}"
            assert not response.closes
    assert server.count("accepted") == 1
    assert server.count("requests") == 200


@pytest.mark.parametrize("value", ["close", "Close", "foo, close", "close, foo", "keep-alive, close"])
def test_connection_close_by_the_client(serve, value):
    with serve(text()).connect() as client:
        response = client.ask(fields=[("Connection", value)])
        assert response.text == "hello"
        assert response.closes
        client.expect_end()


def test_what_comes_after_connection_close_is_not_answered(serve):
    server = serve(text())
    with server.connect() as client:
        client.send(request("/", fields=[("Connection", "close")]) + request("/never"))
        assert client.read_response().text == "hello"
        client.expect_end()
    assert server.count("requests") == 1


def test_an_idle_connection_is_closed_after_keep_alive(serve):
    with serve(text(), keep_alive=0.2).connect() as client:
        begun = time.monotonic()
        assert client.ask().text == "hello"
        client.expect_end()
        assert time.monotonic() - begun >= 0.19


def test_each_request_begins_keep_alive_anew(serve):
    with serve(text(), keep_alive=0.4).connect() as client:
        begun = time.monotonic()
        while time.monotonic() - begun < 0.8:
            assert client.ask().text == "hello"
            time.sleep(0.05)
        client.expect_end()


def test_many_idle_connections_are_closed_together(serve):
    server = serve(text(), keep_alive=0.2)
    clients = [server.connect() for _ in range(50)]
    for client in clients:
        assert client.ask().text == "hello"
    for client in clients:
        client.expect_end()
    server.wait_count("connections", 0)


def test_many_connections(serve):
    server = serve(target_of)
    clients = [server.connect() for _ in range(200)]
    for number, client in enumerate(clients):
        client.send(request(f"/{number}"))
    for number, client in enumerate(clients):
        assert client.read_response().text == f"/{number}"
    server.wait_count("connections", 200)


# Pipelining.


def test_pipelined_requests_are_answered_in_order(serve):
    with serve(target_of).connect() as client:
        client.send(b"".join(request(f"/{number}") for number in range(100)))
        assert [client.read_response().text for _ in range(100)] == [f"/{number}" for number in range(100)]


def test_pipelined_requests_with_and_without_content(serve):
    parts, expected = [], []
    for number in range(100):
        content = b"%d" % number * (number * 7)
        kind = number % 4
        if kind == 0:
            parts.append(request("/"))
            content = b""
        elif kind == 1:
            parts.append(framed(content, "length"))
        elif kind == 2:
            parts.append(framed(content, "chunked"))
        else:
            parts.append(request("/", "HEAD"))
            content = b""
        expected.append(("HEAD" if kind == 3 else "GET", content))
    with serve(echo, request_buffer=1000).connect() as client:
        client.send(b"".join(parts))
        for method, content in expected:
            assert client.read_response(method).content == content


def test_pipelined_answers_keep_their_order_when_the_first_is_slow(serve):
    gate = Gate()

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            gate.hold()
        return target_of(environ, start_response)

    server = serve(application)
    with server.connect() as client:
        client.send(request("/slow") + request("/fast"))
        gate.wait_entered()
        assert not client.readable(0.05)
        gate.open()
        assert [client.read_response().text for _ in range(2)] == ["/slow", "/fast"]


def test_one_connection_has_one_exchange_at_a_time(serve):
    inside, most = [], []

    def application(environ, start_response):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()
        return text()(environ, start_response)

    with serve(application).connect() as client:
        client.send(request("/") * 20)
        for _ in range(20):
            assert client.read_response().text == "hello"
    assert max(most) == 1


def test_a_pipelining_client_does_not_keep_others_waiting(serve):
    server = serve(text(), keep_alive_requests=2000)
    with server.connect() as greedy, server.connect() as modest:
        greedy.send(request("/") * 2000)
        assert modest.ask().text == "hello"
        for _ in range(2000):
            assert greedy.read_response().text == "hello"


def test_pipelined_requests_of_a_client_that_reads_nothing_are_not_all_run(serve):
    # The answers of one connection may pile up only so far; the rest stays in the kernel.
    server = serve(text(b"x" * 65536), response_buffer=65536, response_spool=262144)
    with server.connect(receive_buffer=4096) as client:
        client.socket.setblocking(False)
        sent = 0
        try:
            while sent < 2000:
                client.send(request("/"))
                sent += 1
        except BlockingIOError:
            pass
        with server.connect() as other:
            assert other.ask().status == 200
        assert server.count("requests") < 1000


def test_the_last_of_some_pipelined_requests_closes(serve):
    with serve(target_of).connect() as client:
        client.send(request("/1") + request("/2") + request("/3", fields=[("Connection", "close")]))
        assert [client.read_response().closes for _ in range(3)] == [False, False, True]
        client.expect_end()


# Half-closed connections.


def test_half_closed_after_the_request(serve):
    with serve(echo).connect() as client:
        client.send(request("/", "POST", content=b"hello"))
        client.half_close()
        assert client.read_response().text == "hello"
        client.expect_end()


def test_half_closed_while_the_application_runs(serve):
    gate = Gate()

    def application(environ, start_response):
        gate.hold()
        return text()(environ, start_response)

    with serve(application).connect() as client:
        client.send(request("/"))
        gate.wait_entered()
        client.half_close()
        gate.open()
        assert client.read_response().text == "hello"
        client.expect_end()


def test_half_closed_after_pipelined_requests(serve):
    with serve(target_of).connect() as client:
        client.send(b"".join(request(f"/{number}") for number in range(50)))
        client.half_close()
        assert [client.read_response().text for _ in range(50)] == [f"/{number}" for number in range(50)]
        client.expect_end()


@pytest.mark.parametrize(
    "data",
    [b"", b"GET", b"GET / HTTP/1.1\r\nHost: h\r\n", request("/", "POST", [("Content-Length", 10)]) + b"part"],
    ids=["nothing", "line", "head", "content"],
)
def test_half_closed_in_the_middle_of_a_request(serve, data):
    server = serve(text())
    server.log.allow("refused with")
    with server.connect() as client:
        client.send(data)
        client.half_close()
        rest = client.take_rest()
        assert rest == b"" or rest.startswith(b"HTTP/1.1 400 ")
    assert server.count("requests") == 0


# Clients that vanish.


@pytest.mark.parametrize("vanish", ["close", "reset"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: h\r\n",
        request("/", "POST", [("Content-Length", 10)]) + b"part",
        request("/", "POST", [("Transfer-Encoding", "chunked")]) + b"5\r\npar",
        request("/", "POST", [("Content-Length", 1_000_000)]) + b"x" * 500_000,
        request("/", "POST", [("Content-Length", 10), ("Expect", "100-continue")]),
        request("/"),
        request("/") * 20,
        request("/") + b"GET / HT",
        b"broken\r\n\r\n",
    ],
    ids=[
        "connected",
        "line",
        "head",
        "content",
        "chunk",
        "spool",
        "continue",
        "request",
        "pipeline",
        "next",
        "bad",
    ],
)
def test_a_client_that_vanishes_while_sending(serve, data, vanish):
    server = serve(text(), request_buffer=65536)
    server.log.allow("refused with")
    for _ in range(3):
        client = server.connect()
        client.send(data)
        getattr(client, vanish)()
    assert server.ask().text == "hello"
    server.wait_count("connections", 0)


@pytest.mark.parametrize("vanish", ["close", "reset"])
def test_a_client_that_vanishes_while_the_application_runs(serve, vanish):
    gate, body = Gate(), Body([b"x" * 100_000] * 10)

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/":
            return text()(environ, start_response)
        gate.hold()
        start_response("200 OK", [TEXT])
        return body

    server = serve(application)
    client = server.connect()
    client.send(request("/hold"))
    gate.wait_entered()
    getattr(client, vanish)()
    gate.open()
    server.wait_count("connections", 0)
    server.wait_count("exchanges", 0)
    assert body.closed == 1
    assert server.ask().text == "hello"


@pytest.mark.parametrize("vanish", ["close", "reset"])
def test_a_client_that_vanishes_while_reading(serve, vanish):
    arrived = threading.Event()

    def blocks():
        yield b"x" * 1000
        assert arrived.wait(PATIENCE)
        for _ in range(1000):
            yield b"x" * 10_000

    body = Body(blocks())

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/":
            return text()(environ, start_response)
        start_response("200 OK", [TEXT])
        return body

    server = serve(application, response_buffer=100_000)
    client = server.connect()
    client.send(request("/long"))
    client.read_head()
    client.take_chunk()
    getattr(client, vanish)()
    arrived.set()
    server.wait_count("exchanges", 0)
    server.wait_count("connections", 0)
    assert body.closed == 1
    assert server.ask().text == "hello"


def test_write_to_a_client_that_is_gone_raises(serve):
    arrived, raised = threading.Event(), []

    def application(environ, start_response):
        write = start_response("200 OK", [TEXT])
        write(b"first")
        assert arrived.wait(PATIENCE)
        try:
            for _ in range(10_000):
                write(b"x" * 10_000)
                time.sleep(0.0001)
        except ConnectionError as error:
            raised.append(error)
            raise
        return []

    server = serve(application, response_buffer=100_000)
    client = server.connect()
    client.send(request("/"))
    client.read_head()
    client.take_chunk()
    client.reset()
    arrived.set()
    server.wait_count("exchanges", 0)
    assert len(raised) == 1


def test_lost_clients_are_counted(serve):
    gate = Gate()

    def application(environ, start_response):
        gate.hold()
        start_response("200 OK", [TEXT])
        yield from [b"x" * 10_000] * 100

    server = serve(application)
    client = server.connect()
    client.send(request("/"))
    gate.wait_entered()
    client.reset()
    gate.open()
    server.wait_count("lost_clients", 1)


def test_clients_that_come_and_go_while_others_stay(serve):
    server = serve(target_of)
    with server.connect() as faithful:
        for number in range(100):
            client = server.connect()
            client.send(request("/")[: number % 30])
            client.reset() if number % 2 else client.close()
            assert faithful.ask(f"/{number}").text == f"/{number}"
        server.wait_count("connections", 1)


def test_chunked_content_then_the_next_request_in_one_send(serve):
    with serve(echo).connect() as client:
        client.send(
            request("/", "POST", [("Transfer-Encoding", "chunked")], chunked(b"first")) + request("/") * 2
        )
        assert [client.read_response().text for _ in range(3)] == ["first", "", ""]
