"""An application cannot make two responses of one, whatever it gives to the server."""

import sys

import pytest

from conftest import with_threads
from support import TEXT, request

EVIL = "X-Evil: 1\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n"
BREAKS = {
    "CRLF": "\r\n",
    "LF": "\n",
    "CR": "\r",
    "NUL": "\0",
    "VT": "\x0b",
    "DEL": "\x7f",
    # Octets of a line end, for who cuts off the upper half.
    "U+010D U+010A": "\u010d\u010a",
    "U+2028": "\u2028",
}
PLACES = {
    "status": lambda bad: (f"200 OK{bad}", [TEXT]),
    "name": lambda bad: ("200 OK", [TEXT, (f"X-A{bad}", "1")]),
    "value": lambda bad: ("200 OK", [TEXT, ("X-A", f"1{bad}")]),
    "value of a field that is left out": lambda bad: ("200 OK", [TEXT, ("Keep-Alive", f"1{bad}")]),
    "Connection": lambda bad: ("200 OK", [TEXT, ("Connection", f"close{bad}")]),
    "Content-Length": lambda bad: ("200 OK", [TEXT, ("Content-Length", f"4{bad}")]),
}


def first(start_response, status, fields):
    start_response(status, fields)


def again(start_response, status, fields):
    start_response("200 OK", [TEXT])
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        start_response(status, fields, sys.exc_info())


def caught(start_response, status, fields):
    """What was refused must have left nothing behind."""
    try:
        start_response(status, fields)
    except ValueError:
        start_response("500 Refused", [TEXT])


@with_threads(1)
@pytest.mark.parametrize("call", [first, again, caught])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("line_break", BREAKS.values(), ids=BREAKS.keys())
def test_nothing_breaks_a_line(serve, line_break, place, call):
    def application(environ, start_response):
        call(start_response, *place(line_break + EVIL))
        return [b"fine"]

    server = serve(application, validate=False)
    server.log.allow("the application failed")
    with server.connect() as client:
        client.send(request("/", fields=[("Connection", "close")]))
        response = client.read_response()
        assert response.status == 500
        assert "evil" not in str(response.fields).lower()
        assert "200 OK" not in response.text
        client.expect_end()


@pytest.mark.parametrize("by_write", [True, False], ids=["write", "yield"])
@pytest.mark.parametrize("length", ["0", "3", "5"])
def test_content_beyond_its_length_is_no_response(serve, by_write, length):
    content = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

    def application(environ, start_response):
        write = start_response("200 OK", [TEXT, ("Content-Length", length)])
        if by_write:
            write(content)
            write(content)
            return []
        return iter([content, content])

    server = serve(application, validate=False)
    server.log.allow("more content than its Content-Length")
    with server.connect() as client:
        client.send(request("/") * 2)
        for _ in range(2):
            response = client.read_response()
            assert response.content == content[: int(length)]
        assert not client.readable(0.05)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_content_where_there_is_none_by_definition(serve, status):
    def application(environ, start_response):
        start_response(status, [])
        return [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"]

    server = serve(application, validate=False)
    with server.connect() as client:
        client.send(request("/") * 2)
        assert [client.read_response().status for _ in range(2)] == [int(status[:3])] * 2
        assert not client.readable(0.05)


def test_content_of_a_chunked_answer_is_one_chunk_whatever_it_says(serve):
    content = b"0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

    def application(environ, start_response):
        start_response("200 OK", [TEXT, ("Transfer-Encoding", "identity")])
        yield content
        yield b""
        yield content

    server = serve(application, validate=False)
    server.log.allow("hop-by-hop")
    with server.connect() as client:
        client.send(request("/") * 2)
        assert [client.read_response().content for _ in range(2)] == [content * 2] * 2
        assert not client.readable(0.05)
