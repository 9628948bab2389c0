"""Limits and deadlines, each with its option: what is just allowed, what is too much, what is too slow."""

import threading
import time

import pytest

from conftest import one_loop
from support import TEXT, Gate, answering, chunked, request, text, wait_until


@answering
def length(environ):
    return len(environ["wsgi.input"].read(1 << 30))


def held(gate):
    @answering
    def application(environ):
        gate.hold()
        return "held"

    return application


def refusal_of(server, octets, status, words):
    """The answer to what is refused: its status, the end of the connection, and the option in the log."""
    server.log.allow(words)
    with server.connect() as client:
        client.send(octets)
        response = client.read_response()
        assert response.status == status
        assert words in response.text
        client.expect_end()
    wait_until(lambda: server.log.matching(words), "the log line")


@pytest.mark.parametrize(
    ("option", "value", "allowed", "refused", "status"),
    [
        ("limit_request_line", 64, request("/" + "a" * 50), request("/" + "a" * 51), 414),
        (
            "limit_request_fields",
            3,
            request(fields=[("A", 1), ("B", 2)]),
            request(fields=[(n, 1) for n in "ABC"]),
            431,
        ),
        (
            "limit_request_field_size",
            64,
            request(fields=[("A", "x" * 61)]),
            request(fields=[("A", "x" * 62)]),
            431,
        ),
        (
            "limit_request_head",
            256,
            request("/" + "a" * (256 - len(request()))),
            request("/" + "a" * (257 - len(request()))),
            431,
        ),
        (
            "limit_request_trailer",
            20,
            request(method="POST", fields=[("Transfer-Encoding", "chunked")])
            + chunked(b"x", trailer=b"A: %b\r\n" % (b"x" * 15)),
            request(method="POST", fields=[("Transfer-Encoding", "chunked")])
            + chunked(b"x", trailer=b"A: %b\r\n" % (b"x" * 25)),
            431,
        ),
        (
            "limit_chunk_overhead",
            100,
            request(method="POST", fields=[("Transfer-Encoding", "chunked")]) + chunked(b"x" * 100, 1),
            request(method="POST", fields=[("Transfer-Encoding", "chunked")])
            + b"1;%b\r\nx\r\n1;%b\r\nx\r\n0\r\n\r\n" % (b"e" * 60, b"e" * 60),
            400,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_limits(serve, option, value, allowed, refused, status):
    server = serve(length, **{option: value})
    with server.connect() as client:
        client.send(allowed)
        assert client.read_response().status == 200
    refusal_of(server, refused, status, "--" + option.replace("_", "-"))


def test_content_over_the_limit_is_refused_before_it_comes(serve):
    server = serve(length, limit_request_body=1000)
    assert server.ask("/", "POST", content=b"x" * 1000).text == "1000"
    fields = [("Content-Length", "1001"), ("Expect", "100-continue")]
    refusal_of(server, request("/", "POST", fields), 413, "--limit-request-body")


def test_chunked_content_over_the_limit_is_refused_with_the_chunk_that_passes_it(serve):
    server = serve(length, limit_request_body=1000)
    head = request("/", "POST", [("Transfer-Encoding", "chunked")])
    with server.connect() as client:
        client.send(head + chunked(b"x" * 1000, 100))
        assert client.read_response().text == "1000"
    refusal_of(server, head + b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\n", 413, "--limit-request-body")
    refusal_of(server, head + b"fffffffff\r\n", 413, "--limit-request-body")


def test_no_limit_of_content(serve):
    server = serve(length, limit_request_body=0, request_buffer=0)
    assert server.ask("/", "POST", content=b"x" * 3_000_000).text == "3000000"


def test_a_head_that_takes_too_long(serve):
    server = serve(text(), header_timeout=0.3)
    server.log.allow("--header-timeout")
    begun = time.monotonic()
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\n")
        # Each octet on its own does not buy more time.
        while not client.readable(0.05):
            client.send(b"A")
        assert client.read_response().status == 408
        client.expect_end()
    assert time.monotonic() - begun >= 0.25


def test_a_connection_that_says_nothing_is_closed_without_an_answer(serve):
    server = serve(text(), header_timeout=0.2)
    with server.connect() as client:
        client.expect_end()


def test_content_that_pauses(serve):
    server = serve(length, body_timeout=0.3)
    server.log.allow("--body-timeout")
    with server.connect() as client:
        client.send(request("/", "POST", [("Content-Length", "10")]))
        for _ in range(4):
            time.sleep(0.1)
            client.send(b"x")  # pauses that are short enough
        assert client.read_response().status == 408
        client.expect_end()


def test_a_client_that_reads_nothing_is_let_go(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return [b"x" * 20_000_000]

    server = serve(application, send_timeout=0.3)
    client = server.connect(receive_buffer=4096)
    client.send(request("/"))
    server.wait_count("connections", 1)
    server.wait_count("connections", 0)


def test_a_client_that_reads_slowly_is_kept(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return [b"x" * 2_000_000]

    server = serve(application, send_timeout=0.5)
    with server.connect(receive_buffer=4096) as client:
        client.send(request("/"))
        client.read_head()
        for _ in range(10):
            time.sleep(0.1)
            client.take(50_000)
        client.take(1_500_000)


def test_the_time_to_send_is_over_when_all_is_sent(serve):
    """An outbox that was used once does not limit the rest of the answer."""

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        for _ in range(20):
            yield b"x" * 300_000
        for _ in range(12):
            time.sleep(0.1)
            yield b"tick"

    server = serve(application, validate=False, send_timeout=0.5)
    sizes = []
    readers = [threading.Thread(target=lambda: sizes.append(len(server.ask().content))) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert sizes == [20 * 300_000 + 12 * 4] * 4


def test_requests_of_one_connection(serve):
    server = serve(text(), keep_alive_requests=3)
    with server.connect() as client:
        assert [client.ask().closes for _ in range(3)] == [False, False, True]
        client.expect_end()
    with server.connect() as client:
        client.send(request() * 5)
        assert [client.read_response().closes for _ in range(3)] == [False, False, True]
        client.expect_end()
    wait_until(lambda: server.count("requests") == 6, "six requests")


@one_loop
def test_the_longest_idle_connection_makes_room(serve):
    server = serve(text(), worker_connections=3)
    server.log.allow("--worker-connections")  # for the moment between an answer and the rest after it
    clients = []
    for _ in range(3):
        clients.append(server.connect())
        assert clients[-1].ask().text == "hello"
    clients.append(server.connect())
    assert clients[3].ask().text == "hello"
    clients[0].expect_end()
    assert clients[1].ask().text == "hello"
    # Now the third is idle for longest.
    clients.append(server.connect())
    assert clients[4].ask().text == "hello"
    clients[2].expect_end()
    assert clients[1].ask().text == "hello"


def test_more_connections_than_allowed_wait(serve):
    gate = Gate()
    server = serve(held(gate), worker_connections=2, validate=False)
    server.log.allow("--worker-connections")
    busy = [server.connect() for _ in range(2)]
    for client in busy:
        client.send(request("/"))
    gate.wait_entered(min(2, server.threads))
    waiting = server.connect()
    waiting.send(request("/"))
    wait_until(lambda: server.log.matching("--worker-connections"), "the log line")
    assert not waiting.readable(0.1)
    gate.open()
    for client in (*busy, waiting):
        assert client.read_response().status == 200


@one_loop
def test_a_request_that_waits_for_a_thread_too_long(serve):
    gate = Gate()
    server = serve(held(gate), queue_timeout=0.2, validate=False)
    server.log.allow("--queue-timeout")
    busy = [server.connect() for _ in range(server.threads)]
    for client in busy:
        client.send(request("/"))
    gate.wait_entered(server.threads)
    with server.connect() as late:
        late.send(request("/"))
        response = late.read_response()
        assert (response.status, response["Retry-After"]) == (503, "5")
        late.expect_end()
    gate.open()
    for client in busy:
        assert client.read_response().status == 200
    assert server.ask().status == 200
