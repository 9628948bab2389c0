"""Where a response ends: Content-Length, chunked, close, or no content at all."""

import pytest

from support import TEXT, Body, Incomplete, request, text


def blocks(*content, fields=(), status="200 OK"):
    """An application that answers with a generator of these blocks."""

    def application(environ, start_response):
        start_response(status, [TEXT, *fields])
        yield from content

    return application


# The server's own choice.


@pytest.mark.parametrize("result", [[b"hello"], (b"hello",)], ids=["list", "tuple"])
def test_one_block_gets_a_content_length(serve, result):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return result

    # wsgiref.validate hides the length of the iterable.
    server = serve(application, validate=False)
    assert server.ask()["Content-Length"] == "5"
    assert server.ask("/", "HEAD")["Content-Length"] == "5"


def test_one_empty_block_has_length_zero(serve):
    assert serve(text(b""), validate=False).ask()["Content-Length"] == "0"


def test_several_blocks_are_chunked(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return [b"one", b"two"]

    response = serve(application, validate=False).ask()
    assert (response.framing, response.text) == ("chunked", "onetwo")


def test_generators_are_chunked_and_the_connection_kept(serve):
    with serve(blocks(b"one", b"two")).connect() as client:
        for _ in range(3):
            response = client.ask()
            assert (response.framing, response.text) == ("chunked", "onetwo")


def test_an_empty_block_never_becomes_the_last_chunk(serve):
    with serve(blocks(b"", b"one", b"", b"", b"two", b"")).connect() as client:
        for _ in range(2):
            response = client.ask()
            assert (response.framing, response.text) == ("chunked", "onetwo")


def test_http10_ends_with_the_connection(serve):
    with serve(blocks(b"one", b"two")).connect() as client:
        response = client.ask(version="1.0")
        assert (response.framing, response.text) == ("close", "onetwo")
        assert response["Transfer-Encoding"] is None


def test_http10_with_keep_alive_still_ends_with_the_connection(serve):
    with serve(blocks(b"one", b"two")).connect() as client:
        response = client.ask(fields=[("Connection", "keep-alive")], version="1.0")
        assert (response.framing, response.text) == ("close", "onetwo")
        assert response.closes


def test_http10_keep_alive_with_a_length(serve):
    with serve(text(), validate=False).connect() as client:
        for _ in range(3):
            response = client.ask(fields=[("Connection", "Keep-Alive")], version="1.0")
            assert (response.framing, response.text) == ("length", "hello")
            assert response["Connection"].lower() == "keep-alive"


def test_http10_without_keep_alive_closes(serve):
    with serve(text(), validate=False).connect() as client:
        assert client.ask(version="1.0").text == "hello"
        client.expect_end()


# HEAD, 204, 304, 1xx.


@pytest.mark.parametrize(
    "app",
    [text(), blocks(b"one", b"two"), blocks(), blocks(b"hello", fields=[("Content-Length", "5")])],
    ids=["one", "several", "none", "length"],
)
@pytest.mark.parametrize("validate", [True, False], ids=["validated", "bare"])
def test_head_has_no_content(serve, app, validate):
    with serve(app, validate=validate).connect() as client:
        for _ in range(2):
            assert client.ask("/", "HEAD").status == 200
        assert not client.readable(0.05)
        assert client.ask().status == 200


def test_head_has_the_fields_of_get(serve):
    with serve(text(fields=[("ETag", '"1"')]), validate=False).connect() as client:
        get, head = client.ask(), client.ask("/", "HEAD")
    assert [field for field in get.fields if field[0] != "Date"] == [
        field for field in head.fields if field[0] != "Date"
    ]


def test_head_keeps_the_length_given_by_the_application(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT, ("Content-Length", "12345")])
        return []

    with serve(application, validate=False).connect() as client:
        assert client.ask("/", "HEAD")["Content-Length"] == "12345"
        assert client.ask("/", "HEAD").status == 200


def test_head_by_write(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])(b"never sent")
        return [b"neither"]

    with serve(application).connect() as client:
        assert client.ask("/", "HEAD").content == b""
        assert not client.readable(0.05)


def test_head_with_http10(serve):
    with serve(blocks(b"one", b"two")).connect() as client:
        assert client.ask("/", "HEAD", version="1.0").status == 200
        client.expect_end()


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_204_and_304_have_no_content(serve, status, method):
    def application(environ, start_response):
        start_response(status, [("ETag", '"1"')])
        return []

    with serve(application).connect() as client:
        for _ in range(2):
            response = client.ask("/", method)
            assert f"{response.status} {response.reason}" == status
            assert response["ETag"] == '"1"'
            assert response["Transfer-Encoding"] is None
        assert not client.readable(0.05)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_content_yielded_with_204_and_304_is_not_sent(serve, status):
    server = serve(blocks(b"never", b"sent", status=status), validate=False)
    server.log.allow("content")
    with server.connect() as client:
        for _ in range(2):
            assert client.ask().content == b""
        assert not client.readable(0.05)


def test_304_keeps_the_length_given_by_the_application(serve):
    def application(environ, start_response):
        start_response("304 Not Modified", [("Content-Length", "12345")])
        return []

    with serve(application, validate=False).connect() as client:
        assert client.ask()["Content-Length"] == "12345"
        assert client.ask().status == 304


def test_204_loses_the_length_given_by_the_application(serve):
    def application(environ, start_response):
        start_response("204 No Content", [("Content-Length", "0")])
        return []

    with serve(application, validate=False).connect() as client:
        assert client.ask()["Content-Length"] is None
        assert client.ask().status == 204


def test_205_has_length_zero(serve):
    def application(environ, start_response):
        start_response("205 Reset Content", [TEXT])
        return []

    with serve(application).connect() as client:
        assert client.ask().content == b""
        assert client.ask().content == b""


# A Content-Length by the application.


def test_the_length_given_by_the_application_is_used(serve):
    with serve(blocks(b"one", b"two", fields=[("content-length", "6")])).connect() as client:
        for _ in range(2):
            response = client.ask()
            assert (response.framing, response.text) == ("length", "onetwo")


def test_length_zero_with_nothing(serve):
    with serve(blocks(fields=[("Content-Length", "0")])).connect() as client:
        for _ in range(2):
            response = client.ask()
            assert (response["Content-Length"], response.content) == ("0", b"")


@pytest.mark.parametrize(
    "app",
    [
        text(b"too much", fields=[("Content-Length", "3")]),
        blocks(b"too", b" much", fields=[("Content-Length", "3")]),
        blocks(b"to", b"o much", fields=[("Content-Length", "3")]),
        blocks(b"too", b" ", b"much", fields=[("Content-Length", "3")]),
    ],
    ids=["one", "after", "across", "many"],
)
def test_too_much_content_is_cut_and_logged(serve, app):
    server = serve(app, validate=False)
    with server.connect() as client:
        response = client.ask()
        assert response.text == "too"
        if client.readable(0.05):
            client.expect_end()
        else:
            assert client.ask().text == "too"
            server.log.expect("Content-Length")
    server.log.expect("Content-Length")


def test_too_much_content_for_length_zero(serve):
    server = serve(text(b"too much", fields=[("Content-Length", "0")]), validate=False)
    with server.connect() as client:
        assert client.ask().content == b""
    server.log.expect("Content-Length")


@pytest.mark.parametrize(
    "app",
    [
        text(b"few", fields=[("Content-Length", "10")]),
        blocks(b"f", b"ew", fields=[("Content-Length", "10")]),
    ],
    ids=["one", "several"],
)
def test_too_little_content_closes_the_connection_and_is_logged(serve, app):
    server = serve(app, validate=False)
    with server.connect() as client:
        client.send(request("/") + request("/next"))
        with pytest.raises(Incomplete) as error:
            client.read_response()
        assert error.value.content == b"few"
    server.log.expect("Content-Length")


def test_no_content_at_all_for_a_length_closes_the_connection(serve):
    server = serve(blocks(fields=[("Content-Length", "10")]))
    with server.connect() as client:
        with pytest.raises(Incomplete):
            client.ask()
    server.log.expect("Content-Length")


def test_the_iteration_is_closed_after_too_much(serve):
    body = Body([b"much"] * 10)

    def application(environ, start_response):
        start_response("200 OK", [TEXT, ("Content-Length", "6")])
        return body

    server = serve(application)
    assert server.ask().text == "muchmu"
    server.log.expect("Content-Length")
    server.wait_count("exchanges", 0)
    assert body.closed == 1


# A Transfer-Encoding by the application.


@pytest.mark.parametrize("value", ["chunked", "gzip, chunked", "identity"])
def test_the_applications_transfer_encoding_is_dropped(serve, value):
    server = serve(blocks(b"one", b"two", fields=[("Transfer-Encoding", value)]))
    with server.connect() as client:
        for _ in range(2):
            response = client.ask()
            assert (response["Transfer-Encoding"], response.text) == ("chunked", "onetwo")
    server.log.expect("hop-by-hop")


def test_the_version_is_that_of_the_server(serve):
    server = serve(text())
    assert server.ask(version="1.1").version == "HTTP/1.1"
    # RFC 9110, 6.2: the version a server states is its own, but some clients like to see theirs.
    assert server.ask(version="1.0").version in ("HTTP/1.1", "HTTP/1.0")
