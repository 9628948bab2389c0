"""What --lint says of applications, and that it changes nothing of what they do."""

import io
import re
import sys

import pytest

from fastwsgi._exchange import FileWrapper
from fastwsgi.lint import Lint

TEXT = [("Content-Type", "text/plain")]


@pytest.fixture
def run(caplog):
    """run(application): call it as servers do; returns what was said of it, and what it gave."""

    def run(application, method="GET", times=1):
        linted = Lint(application)
        for _ in range(times):
            environ = {"REQUEST_METHOD": method, "wsgi.input": io.BytesIO(b"content\nmore")}
            written = []

            def start_response(*arguments, written=written, **named):
                return written.append

            blocks = linted(environ, start_response)
            content = list(blocks) if hasattr(blocks, "__iter__") else blocks
            if hasattr(blocks, "close"):
                blocks.close()
        said = [record.getMessage().removeprefix("Against PEP 3333: ") for record in caplog.records]
        return said, written + content if isinstance(content, list) else content

    return run


def answering(*blocks, status="200 OK", fields=TEXT):
    def application(environ, start_response):
        start_response(status, fields)
        return list(blocks)

    return application


def test_nothing_is_said_of_what_is_right(run):
    def application(environ, start_response):
        try:
            raise ValueError
        except ValueError:
            write = start_response("200 OK", [*TEXT, ("Content-Length", "11")])
            start_response("500 Failed", [*TEXT, ("Content-Length", "12")], sys.exc_info())
        assert environ["wsgi.input"].read(3) == b"con"
        assert environ["wsgi.input"].readline() == b"tent\n"
        assert environ["wsgi.input"].readlines(100) == [b"more"]
        assert list(environ["wsgi.input"]) == []
        assert environ["wsgi.input"].tell() == 12
        write(b"first")

        def generate():
            yield b""
            yield b"second!"

        return generate()

    assert run(application) == ([], [b"first", b"", b"second!"])
    assert run(answering(b"a", b"bc", fields=[*TEXT, ("Content-Length", "3")])) == ([], [b"a", b"bc"])
    assert run(answering(status="204 No Content", fields=[])) == ([], [])
    assert run(answering(fields=[*TEXT, ("Content-Length", "30")]), method="HEAD") == ([], [])
    assert run(lambda _, start: (start("200 OK", TEXT), FileWrapper(io.BytesIO(b"file")))[1]) == (
        [],
        [b"file"],
    )


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (200, "the status is 200, of type int, and not a str"),
        (b"200 OK", "the status is b'200 OK', of type bytes, and not a str"),
        ("200", "the status '200' is not three digits, a space and a reason"),
        ("2000 OK", "the status '2000 OK' is not three digits"),
        ("200 OK\r\nX: y", "the status '200 OK\\r\\nX: y' is not three digits"),
        ("200 OK ", "the status '200 OK ' has white space around it"),
        ("200 \u20ac", "the status has characters beyond ISO-8859-1"),
    ],
)
def test_the_status(run, status, words):
    [said] = run(answering(b"x", status=status))[0]
    assert words in said


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ((("Content-Type", "text/plain"),), "the headers are of type tuple, and not a list"),
        ({"Content-Type": "text/plain"}, "the headers are of type dict, and not a list"),
        ([*TEXT, ["X-A", "1"]], "the header ['X-A', '1'] is not a tuple of name and value"),
        ([*TEXT, ("X-A", 1)], "the header ('X-A', 1) is not a tuple of two str"),
        ([*TEXT, ("X A", "1")], "'X A' is not the name of a header"),
        ([*TEXT, ("X-A:", "1")], "'X-A:' is not the name of a header"),
        ([*TEXT, ("X-A-", "1")], "the header name 'X-A-' ends with '-'"),
        ([*TEXT, ("Status", "200")], "there is a header Status"),
        ([*TEXT, ("Connection", "close")], "the header Connection is for the server to set (hop-by-hop)"),
        ([*TEXT, ("X-A", "1\r\nX-B: 2")], "the value of X-A has control characters: '1\\r\\nX-B: 2'"),
        ([*TEXT, ("X-A", "\u20ac")], "the value of X-A has characters beyond ISO-8859-1"),
        ([*TEXT, ("Content-Length", "1.0")], "the Content-Length '1.0' is not a number"),
        (
            [*TEXT, ("Content-Length", "1"), ("content-length", "2")],
            "there are two values of Content-Length",
        ),
        ([*TEXT, ("Content-Length", "2")], "the content has 1 bytes, and Content-Length says 2"),
        ([], "there is content without a Content-Type"),
    ],
)
def test_the_headers(run, fields, words):
    said = run(answering(b"x", fields=fields))[0]
    assert words in said[0]


@pytest.mark.parametrize(
    ("application", "words"),
    [
        (answering("text"), "a block of content is of type str, and not bytes"),
        (answering(b"x", status="304 Not Modified"), "there is content with the status 304 Not Modified"),
        (lambda environ, start_response: [b"x"], "start_response was not called before there was content"),
        (lambda environ, start_response: [], "start_response was not called before there was content"),
        (
            lambda environ, start_response: (start_response("200 OK", TEXT), "text")[1],
            "the application returned str, and not an iterable of bytes",
        ),
        (
            lambda environ, start_response: start_response("200 OK", TEXT) and None,
            "the application returned NoneType, which is not an iterable",
        ),
        (
            lambda environ, start_response: start_response(status="200 OK", headers=TEXT) and [],
            "start_response has status, headers by name: its arguments are positional",
        ),
        (
            lambda environ, start_response: start_response("200 OK", TEXT, ValueError()) and [],
            "exc_info is ValueError(), and not what sys.exc_info() returns",
        ),
        (
            lambda environ, start_response: [start_response("200 OK", TEXT) and b"" for _ in range(2)],
            "start_response is called a second time without exc_info",
        ),
        (
            lambda environ, start_response: start_response("200 OK", TEXT)("text") or [],
            "a block of content is of type str, and not bytes",
        ),
        (
            lambda environ, start_response: (
                environ["wsgi.input"].close() or answering()(environ, start_response)
            ),
            "wsgi.input is closed: that is for the server",
        ),
    ],
)
def test_calls(run, application, words):
    said = run(application)[0]
    assert [words in one for one in said] == [True]


def test_a_generator_is_named_with_its_line(run):
    def application(environ, start_response):
        write = start_response("200 OK", TEXT)
        yield b"x"
        write(b"late")
        yield "text"

    said = run(application, times=3)[0]
    line = application.__code__.co_firstlineno
    assert said == [
        f"write() is called while the iterable is iterated over, or after that; {__file__}, line {line + 3}, "
        "in application",
        f"a block of content is of type str, and not bytes; {__file__}, line {line + 4}, in application",
    ]


def test_an_application_is_named_with_its_line(run):
    class Application:
        def __call__(self, environ, start_response):
            start_response("200 OK", TEXT)
            return ["text"]

    line = Application.__call__.__code__.co_firstlineno
    assert run(Application())[0] == [
        f"a block of content is of type str, and not bytes; {__file__}, line {line}, in __call__"
    ]
    [said] = run(answering(b"x", status="200"))[0][1:]
    assert re.search(rf"a reason; {re.escape(__file__)}, line \d+, in application$", said)


def test_what_reads_after_the_end_is_told(caplog, run):
    streams = []

    def application(environ, start_response):
        streams.append(environ["wsgi.input"])
        return answering(b"x")(environ, start_response)

    run(application)
    streams[0].read(1)
    assert "wsgi.input.read is called when the request is over" in caplog.text


def test_what_close_is(run):
    class Blocks:
        close = 5

        def __iter__(self):
            return iter([b"x"])

    def application(environ, start_response):
        start_response("200 OK", TEXT)
        return Blocks()

    with pytest.raises(TypeError):
        run(application)


def test_errors_of_the_application_go_through(run):
    def application(environ, start_response):
        raise LookupError

    with pytest.raises(LookupError):
        run(application)
