"""--early-hints: environ["wsgi.early_hints"], 103 (Early Hints, RFC 8297) before the answer."""

import shutil
import subprocess
import threading
from functools import partial

import httpx
import pytest

from conftest import on_one_crew
from support import ENVIRONMENT, PATIENCE, TEXT, Gate, answering, request, wait_until

LINKS = [("Link", "</style.css>; rel=preload; as=style"), ("Link", "</app.js>; rel=preload; as=script")]


@pytest.fixture
def serve(serve):
    return partial(serve, early_hints=True)


def hinting(*calls, answer=b"hello"):
    """An application that calls early_hints with each of these lists first."""

    def application(environ, start_response):
        for links in calls:
            environ["wsgi.early_hints"](links)
        start_response("200 OK", [TEXT])
        return [answer]

    return application


def test_a_hint_before_the_answer(serve):
    with serve(hinting(LINKS)).connect() as client:
        for _ in range(2):
            response = client.ask()
            (hint,) = response.interim
            assert (hint.status, hint.reason, hint.fields) == (103, "Early Hints", LINKS)
            assert (response.status, response.content) == (200, b"hello")
            assert response["Link"] is None


def test_a_hint_arrives_at_once(serve):
    gate = Gate()

    def application(environ, start_response):
        environ["wsgi.early_hints"](LINKS)
        gate.hold()
        environ["wsgi.early_hints"](LINKS[:1])
        start_response("200 OK", [TEXT])
        return [b"hello"]

    with serve(application).connect() as client:
        client.send(request())
        assert client.read_head().fields == LINKS
        gate.wait_entered()
        assert not client.readable()
        gate.open()
        response = client.read_response()
        assert [hint.fields for hint in response.interim] == [LINKS[:1]]
        assert response.content == b"hello"


def test_what_waits_before_a_hint_leaves_before_it(serve):
    gate = Gate()

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/hints":
            environ["wsgi.early_hints"](LINKS)
            gate.hold()
        start_response("200 OK", [TEXT])
        return [environ["PATH_INFO"].encode()]

    with serve(application).connect() as client:
        client.send(request("/first") + request("/hints") + request("/last"))
        assert client.read_response().content == b"/first"
        assert client.read_head().status == 103
        gate.open()
        assert client.read_response().content == b"/hints"
        assert client.read_response().content == b"/last"


@on_one_crew
def test_it_is_counted_nowhere(serve):
    server = serve(hinting(LINKS, LINKS))
    with server.connect() as client:
        assert len(client.ask().interim) == 2
        wait_until(lambda: server.count("exchanges") == 0, "the end of the exchange")
    assert server.count("requests") == 1


@on_one_crew
def test_without_the_option(serve):
    response = serve(answering(lambda environ: "wsgi.early_hints" in environ), early_hints=False).ask()
    assert response.text == "False"


@on_one_crew
def test_http_1_0_gets_none(serve):
    response = serve(hinting(LINKS)).ask(version="1.0")
    assert (response.interim, response.content) == ([], b"hello")


@on_one_crew
def test_it_is_too_late(serve):
    kept = []

    def application(environ, start_response):
        hints = environ["wsgi.early_hints"]
        kept.append(hints)
        start_response("200 OK", [TEXT])
        hints(LINKS)
        yield b"one"
        hints(LINKS)
        yield b"two"

    response = serve(application).ask()
    assert [hint.fields for hint in response.interim] == [LINKS]
    assert response.content == b"onetwo"
    kept[0](LINKS)


@on_one_crew
def test_from_another_thread(serve):
    def application(environ, start_response):
        thread = threading.Thread(target=environ["wsgi.early_hints"], args=[LINKS])
        thread.start()
        thread.join()
        start_response("200 OK", [TEXT])
        return [b"hello"]

    assert [hint.fields for hint in serve(application).ask().interim] == [LINKS]


@on_one_crew
@pytest.mark.parametrize(
    ("links", "error", "words"),
    [
        ([("Li nk", "x")], ValueError, "not a field name"),
        ([("", "x")], ValueError, "not a field name"),
        ([("Link", "x\r\nSet-Cookie: a=b")], ValueError, "control character"),
        ([("Link", "x\n")], ValueError, "control character"),
        ([("Link", "\u20ac")], ValueError, "outside latin-1"),
        ([("Link", b"x")], TypeError, "must be str"),
        ([("Link",)], TypeError, "tuple of name and value"),
        ("Link: x", TypeError, "list of tuples"),
        (None, TypeError, "list of tuples"),
    ],
)
def test_what_cannot_be_sent(serve, links, error, words):
    def application(environ, start_response):
        with pytest.raises(error, match=words):
            environ["wsgi.early_hints"](links)
        start_response("200 OK", [TEXT])
        return [b"hello"]

    response = serve(application).ask()
    assert (response.interim, response.content) == ([], b"hello")


@on_one_crew
def test_what_has_no_place_in_a_hint(serve):
    others = [("Content-Length", "9"), ("Connection", "close"), ("Transfer-Encoding", "x")]
    server = serve(hinting([*LINKS, *others]), validate=False)
    with server.connect() as client:
        for _ in range(2):
            response = client.ask()
            assert [hint.fields for hint in response.interim] == [LINKS]
            assert (response["Content-Length"], response.closes) == ("5", False)
    server.log.expect("the application sends Transfer-Encoding")


@on_one_crew
def test_the_application_fails_afterwards(serve):
    def application(environ, start_response):
        environ["wsgi.early_hints"](LINKS)
        raise ValueError

    server = serve(application)
    response = server.ask()
    assert [hint.status for hint in response.interim] == [103]
    assert response.status == 500
    server.log.expect("the application failed")


@on_one_crew
def test_it_takes_too_long_afterwards(serve):
    gate = Gate()

    def application(environ, start_response):
        environ["wsgi.early_hints"](LINKS)
        gate.hold()
        start_response("200 OK", [TEXT])
        return [b"too late"]

    server = serve(application, timeout=0.3)
    server.log.allow("")
    with server.connect() as client:
        client.send(request())
        response = client.read_response()
        assert ([hint.status for hint in response.interim], response.status) == ([103], 503)
        gate.open()


def test_the_client_has_left(serve):
    gate = Gate()
    hinted = threading.Event()

    def application(environ, start_response):
        gate.hold()
        for _ in range(3):
            environ["wsgi.early_hints"](LINKS)
        hinted.set()
        start_response("200 OK", [TEXT])
        return [b"hello"]

    client = serve(application).connect()
    client.send(request())
    gate.wait_entered()
    client.reset()
    gate.open()
    assert hinted.wait(PATIENCE)


CURL = shutil.which("curl")


@on_one_crew
@pytest.mark.skipif(not CURL, reason="no curl here")
def test_curl(serve):
    server = serve(hinting(LINKS))
    command = [CURL, "--silent", "--fail", "--include", "--max-time", "20", "--noproxy", "*", server.url]
    output = subprocess.run(command, check=True, capture_output=True, timeout=60, env=ENVIRONMENT).stdout
    assert output.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>")
    assert output.endswith(b"\r\n\r\nhello")


@on_one_crew
def test_httpx(serve):
    response = httpx.get(serve(hinting(LINKS)).url, trust_env=False)
    assert (response.status_code, response.text) == (200, "hello")
