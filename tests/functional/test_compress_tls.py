"""Compressed answers and early hints over TLS: what the one makes, the other seals."""

import pytest

from codings import DECODE
from conftest import POLLERS, serving
from secure import SecureServer
from support import TEXT, Gate, Incomplete, request, text

WORDS = b"".join(b"%d, " % (number * number) for number in range(10_000))


@pytest.fixture(params=[1, 4], ids="{} threads".format)
def secure(request):
    yield from serving(request, SecureServer, POLLERS[0], request.param)


def accept(coding):
    return [("Accept-Encoding", coding)]


@pytest.mark.parametrize("coding", DECODE)
def test_content(secure, coding):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return [WORDS] if environ["PATH_INFO"] == "/block" else iter([WORDS[:9], WORDS[9:]])

    with secure(application, compress="gzip,br,zstd", validate=False).connect() as client:
        client.send(
            b"".join(request(target, fields=accept(coding)) for target in ("/block", "/stream", "/block"))
        )
        for framing in ("length", "chunked", "length"):
            response = client.read_response()
            assert (response["Content-Encoding"], response.framing) == (coding, framing)
            assert DECODE[coding](response.content) == WORDS


def test_less_than_announced_is_no_whole_answer(secure):
    server = secure(
        text(WORDS, fields=[("Content-Length", str(len(WORDS) + 1))]), compress="gzip", validate=False
    )
    with server.connect() as client:
        client.send(request(fields=accept("gzip")))
        with pytest.raises(Incomplete):
            client.read_response()
    server.log.expect("gave 1 bytes less than its Content-Length")


def test_a_file(secure, tmp_path):
    (tmp_path / "file").write_bytes(WORDS)

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return environ["wsgi.file_wrapper"]((tmp_path / "file").open("rb"))

    with secure(application, compress="gzip", validate=False).connect() as client:
        for _ in range(2):
            assert DECODE["gzip"](client.ask(fields=accept("gzip")).content) == WORDS
            assert client.ask().content == WORDS


def test_a_hint_arrives_at_once(secure):
    links = [("Link", "</style.css>; rel=preload")]
    gate = Gate()

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/hints":
            environ["wsgi.early_hints"](links)
            gate.hold()
        start_response("200 OK", [TEXT])
        return [environ["PATH_INFO"].encode()]

    with secure(application, early_hints=True).connect() as client:
        client.send(request("/first") + request("/hints"))
        assert client.read_response().content == b"/first"
        assert client.read_head().fields == links
        gate.open()
        assert client.read_response().content == b"/hints"
