"""How request content comes in: Expect, slowly, in pieces, a byte at a time."""

import time

import pytest

from support import chunked, echo, framed, request, text

CONTENT = b"hello, world"


LENGTH = len(CONTENT)


def head_with_expect(framing, version="1.1", value="100-continue", length=LENGTH):
    field = ("Content-Length", length) if framing == "length" else ("Transfer-Encoding", "chunked")
    return request("/", "POST", [("Expect", value), field], version=version)


def content_in(framing):
    return CONTENT if framing == "length" else chunked(CONTENT)


both_framings = pytest.mark.parametrize("framing", ["length", "chunked"])


@both_framings
@pytest.mark.parametrize("value", ["100-continue", "100-Continue"])
def test_continue_is_sent_before_the_content(serve, framing, value):
    with serve(echo).connect() as client:
        for _ in range(2):
            client.send(head_with_expect(framing, value=value))
            interim = client.read_head()
            assert (interim.status, interim.reason) == (100, "Continue")
            assert not client.readable(0.02)
            client.send(content_in(framing))
            response = client.read_response()
            assert (response.content, response.interim) == (CONTENT, [])


@both_framings
def test_no_continue_when_the_content_is_already_there(serve, framing):
    with serve(echo).connect() as client:
        client.send(head_with_expect(framing) + content_in(framing))
        response = client.read_response()
        assert (response.content, response.interim) == (CONTENT, [])


def test_no_continue_without_content(serve):
    with serve(echo).connect() as client:
        client.send(head_with_expect("length", length=0))
        assert client.read_response().interim == []


def test_no_continue_for_http10(serve):
    with serve(echo).connect() as client:
        client.send(head_with_expect("length", version="1.0"))
        assert not client.readable(0.1)
        client.send(CONTENT)
        response = client.read_response()
        assert (response.content, response.interim) == (CONTENT, [])


def test_no_continue_unless_asked(serve):
    with serve(echo).connect() as client:
        client.send(request("/", "POST", [("Content-Length", len(CONTENT))]))
        assert not client.readable(0.1)
        client.send(CONTENT)
        assert client.read_response().interim == []


def test_continue_comes_after_the_answers_before_it(serve):
    with serve(echo).connect() as client:
        client.send(request("/", "POST", content=b"first") + head_with_expect("length"))
        assert client.read_response().text == "first"
        assert client.read_head().status == 100
        client.send(CONTENT)
        assert client.read_response().content == CONTENT


def test_an_unknown_expectation_is_417(serve):
    server = serve(echo)
    server.log.allow("refused with")
    with server.connect() as client:
        client.send(head_with_expect("length", value="miracles"))
        assert client.read_response().status == 417
        client.expect_end()


@pytest.mark.parametrize(
    "data",
    [request("/a"), framed(CONTENT, "length"), framed(CONTENT, "chunked")],
    ids=["get", "length", "chunked"],
)
def test_byte_by_byte(serve, data):
    with serve(echo).connect() as client:
        for _ in range(2):
            for position in range(len(data)):
                client.send(data[position : position + 1])
                time.sleep(0.0005)
            assert client.read_response().content == (CONTENT if data.startswith(b"POST") else b"")


@both_framings
def test_content_in_slow_pieces(serve, framing):
    server = serve(echo)
    with server.connect() as client:
        data = framed(CONTENT * 1000, framing)
        for position in range(0, len(data) - 3000, 3000):
            client.send(data[position : position + 3000])
            assert not client.readable(0.01)
        assert server.count("requests") == 0
        client.send(data[position + 3000 :])
        assert client.read_response().content == CONTENT * 1000


@both_framings
@pytest.mark.parametrize("cut", range(1, 24, 3))
def test_two_requests_cut_anywhere(serve, framing, cut):
    data = framed(CONTENT, framing) + request("/") + framed(b"second", framing)
    with serve(echo).connect() as client:
        boundary = len(data) * cut // 24
        client.send(data[:boundary])
        client.send(data[boundary:])
        assert [client.read_response().content for _ in range(3)] == [CONTENT, b"", b"second"]


@both_framings
def test_big_content(serve, framing):
    content = bytes(range(256)) * 20_000
    with serve(echo).connect() as client:
        client.send(framed(content, framing))
        assert client.read_response().content == content


def test_many_small_chunks(serve):
    with serve(echo).connect() as client:
        content = CONTENT * 500
        client.send(request("/", "POST", [("Transfer-Encoding", "chunked")], chunked(content, size=3)))
        assert client.read_response().content == content


def test_chunk_extensions_and_trailers(serve):
    with serve(echo).connect() as client:
        for _ in range(2):
            client.send(
                request("/", "POST", [("Transfer-Encoding", "Chunked")])
                + b'5;name=value\r\nhello\r\n1 ; a="\\"b;c"\r\n,\r\n006\r\n world\r\n'
                + b"0;last\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n"
            )
            assert client.read_response().text == "hello, world"


def test_content_on_any_method(serve):
    with serve(echo).connect() as client:
        for method in ("GET", "DELETE", "OPTIONS", "PATCH", "PUT"):
            assert client.ask("/", method, content=CONTENT).content == CONTENT
        assert client.ask("/", "HEAD", content=CONTENT).content == b""


def test_empty_lines_before_a_request(serve):
    with serve(text()).connect() as client:
        client.send(b"\r\n" + request("/"))
        assert client.read_response().text == "hello"
        client.send(b"\r\n" + request("/"))
        assert client.read_response().text == "hello"
