"""Requests that the server refuses: the right status, readable, and nothing of what follows is run."""

import contextlib
import threading

import pytest

from conftest import with_threads
from fastwsgi._refusals import REFUSALS
from support import echo, request, text

REFUSED = {
    "no request line": (b"nonsense\r\n\r\n", "BAD_REQUEST_LINE"),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", "BAD_REQUEST_LINE"),
    "version 2": (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", "VERSION_NOT_SUPPORTED"),
    "bad version": (b"GET / HTTP/1\r\nHost: h\r\n\r\n", "BAD_VERSION"),
    "version 0.9": (b"GET /\r\n\r\n", "BAD_REQUEST_LINE"),
    "target with fragment": (b"GET /#a HTTP/1.1\r\nHost: h\r\n\r\n", "TARGET_FRAGMENT"),
    "target without slash": (b"GET a HTTP/1.1\r\nHost: h\r\n\r\n", "TARGET_FORM"),
    "bad percent": (b"GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", "BAD_PERCENT"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", "NO_HOST"),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", "TWO_HOSTS"),
    "bad host": (b"GET / HTTP/1.1\r\nHost: h/x\r\n\r\n", "BAD_HOST"),
    "space before colon": (b"GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n", "SPACE_BEFORE_COLON"),
    "no colon": (b"GET / HTTP/1.1\r\nHost: h\r\nA\r\n\r\n", "NO_COLON"),
    "folded": (b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n", "OBS_FOLD"),
    "bare LF": (b"GET / HTTP/1.1\nHost: h\n\n", "BARE_LF"),
    "bare CR": (b"GET / HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n", "BARE_CR"),
    "NUL": (b"GET / HTTP/1.1\r\nHost: h\r\nA: b\0c\r\n\r\n", "BAD_FIELD_VALUE"),
    "bad length": (request("/", "POST", [("Content-Length", "1x")]), "BAD_CONTENT_LENGTH"),
    "negative length": (request("/", "POST", [("Content-Length", "-1")]), "BAD_CONTENT_LENGTH"),
    "two lengths": (
        request("/", "POST", [("Content-Length", "1"), ("Content-Length", "1")]),
        "TWO_CONTENT_LENGTHS",
    ),
    "two framings": (
        request("/", "POST", [("Content-Length", "1"), ("Transfer-Encoding", "chunked")]),
        "TWO_FRAMINGS",
    ),
    "unknown coding": (request("/", "POST", [("Transfer-Encoding", "gzip, chunked")]), "UNKNOWN_CODING"),
    "chunked not last": (request("/", "POST", [("Transfer-Encoding", "chunked, gzip")]), "CHUNKED_NOT_LAST"),
    "chunked in 1.0": (
        request("/", "POST", [("Transfer-Encoding", "chunked")], version="1.0"),
        "TRANSFER_ENCODING_IN_HTTP10",
    ),
    "bad chunk size": (request("/", "POST", [("Transfer-Encoding", "chunked")]) + b"x\r\n", "BAD_CHUNK_SIZE"),
    "bad chunk end": (
        request("/", "POST", [("Transfer-Encoding", "chunked")]) + b"1\r\nabc\r\n",
        "BAD_CHUNK_END",
    ),
    "long line": (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", "REQUEST_LINE_TOO_LONG"),
    "long field": (request("/", fields=[("A", "a" * 20_000)]), "FIELD_TOO_LARGE"),
    "many fields": (request("/", fields=[("A", "a")] * 200), "TOO_MANY_FIELDS"),
    "large head": (request("/", fields=[("A", "a" * 10_000)] * 10), "HEAD_TOO_LARGE"),
    "connect": (b"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", "CONNECT"),
    "https without TLS": (request("https://test.example/"), "MISDIRECTED"),
    "expectation": (request("/", "POST", [("Expect", "gold"), ("Content-Length", "1")]), "EXPECTATION"),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), "TLS_ON_PLAIN_PORT"),
    "http/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP2_PREFACE"),
}

refused = pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED.keys())


@refused
def test_refused_for_the_right_reason_and_closed(serve, data, reason):
    status, phrase, words = REFUSALS[f"REFUSAL_{reason}"]
    server = serve(text())
    with server.connect() as client:
        client.send(data)
        response = client.read_response()
        assert (response.status, response.reason) == (status, phrase)
        assert response.closes
        assert response["Content-Type"].startswith("text/plain")
        client.expect_end()
    server.log.expect(words)
    assert server.count("refused") == 1
    assert server.count("requests") == 0
    assert server.ask().text == "hello"


@refused
def test_the_refusal_comes_after_the_answers_before_it_and_nothing_comes_after(serve, data, reason):
    status, _, words = REFUSALS[f"REFUSAL_{reason}"]
    server = serve(text())
    with server.connect() as client:
        client.send(request("/") * 2 + data + request("/never") * 3)
        assert [client.read_response().status for _ in range(3)] == [200, 200, status]
        client.expect_end()
    server.log.expect(words)
    assert server.count("requests") == 2


@refused
def test_what_is_sent_after_a_refusal_is_not_run(serve, data, reason):
    server = serve(text())
    server.log.allow("refused with")
    with server.connect() as client:
        client.send(data)
        assert client.read_response().closes
        # In segments of their own: the server has seen the end of nothing yet.
        with contextlib.suppress(ConnectionError):
            client.send(request("/never"))
            client.send(request("/never") * 2)
        client.expect_gone()
    server.wait_count("connections", 0)
    assert server.count("requests") == 0
    assert server.count("refused") == 1


def test_what_is_sent_after_a_failure_of_the_application_is_not_run(serve):
    called = []

    def application(environ, start_response):
        called.append(environ["PATH_INFO"])
        raise ZeroDivisionError

    server = serve(application)
    server.log.allow("the application failed")
    with server.connect() as client:
        client.send(request("/fails") + request("/never"))
        assert client.read_response().status == 500
        with contextlib.suppress(ConnectionError):
            client.send(request("/never"))
        client.expect_gone()
    server.wait_count("connections", 0)
    assert called == ["/fails"]


@pytest.mark.parametrize(
    "head",
    [
        request("/", "POST", [("Content-Length", "nonsense")]),
        request("/", "POST", [("Expect", "gold"), ("Content-Length", "4000000")]),
        request("/", "POST", [("Transfer-Encoding", "chunked")]) + b"nonsense\r\n",
    ],
    ids=["length", "expect", "chunk"],
)
def test_the_refusal_is_readable_while_the_client_still_sends(serve, head):
    # Closing at once would make the kernel send a reset, which destroys the answer on its way.
    server = serve(echo)
    server.log.allow("refused with")
    with server.connect() as client:
        client.send(head)
        sender = threading.Thread(target=send_much, args=(client, 4_000_000))
        sender.start()
        response = client.read_response()
        assert response.status in (400, 417)
        sender.join()
        client.expect_end()


def send_much(client, size):
    client.send(b"x" * size)
    client.half_close()


def test_the_log_names_what_was_refused_as_far_as_it_was_there(serve):
    server = serve(text(), limit_request_body=1000)
    for data, told in (
        (request("/a?b=\\", "POST", [("Content-Length", "2000")]), ", POST /a?b=\\\\, while"),
        (request("/" + "x" * 400, "POST", [("Content-Length", "2000")]), f", POST /{'x' * 299}..., while"),
        (b"GET /half HTTP/1.1\r\nHost : x\r\n\r\n", ", GET /half, while"),
        (b"G@T / HTTP/1.1\r\n\r\n", ", while"),
        # It is not that of the request before.
        (request("/well") + b"G@T / HTTP/1.1\r\n\r\n", ", while"),
    ):
        with server.connect() as client:
            client.send(data)
            if b"/well" in data:
                assert client.read_response().status == 200
            assert client.read_response().status in (400, 413)
            client.expect_end()
        server.log.expect(f"(client 127.0.0.1{told} receiving the request head): ")


def test_a_refused_head_request_has_no_content(serve):
    server = serve(text())
    server.log.allow("refused with")
    with server.connect() as client:
        client.send(b"HEAD / HTTP/1.1\r\n\r\n")
        assert client.read_response("HEAD").status == 400
        client.expect_end()


def test_the_application_does_not_see_what_is_refused(serve):
    called = []

    def application(environ, start_response):
        called.append(environ["PATH_INFO"])
        return text()(environ, start_response)

    server = serve(application)
    server.log.allow("refused with")
    with server.connect() as client:
        client.send(
            request(
                "/evil", "POST", [("Content-Length", "5"), ("Transfer-Encoding", "chunked")], b"0\r\n\r\n"
            )
            + request("/evil")
        )
        assert client.read_response().status == 400
        client.expect_end()
    with server.connect() as client:
        client.send(
            request("/evil", "POST", [("Transfer-Encoding", "chunked")]) + b"1\r\nabc" + request("/evil")
        )
        assert client.read_response().status == 400
        client.expect_end()
    assert called == []


@with_threads(1)
def test_a_client_that_stays_after_its_refusal_is_let_go(serve):
    server = serve(text())
    server.log.allow("refused with")
    client = server.connect()
    client.send(b"nonsense\r\n\r\n")
    assert client.read_response().status == 400
    client.expect_end()
    server.wait_count("connections", 0)
