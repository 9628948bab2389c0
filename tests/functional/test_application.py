"""What an application may return, and what becomes of one that fails."""

import pytest

from support import TEXT, Body, Incomplete, text


def returning(value, fields=(TEXT,)):
    def application(environ, start_response):
        start_response("200 OK", list(fields))
        return value() if callable(value) else value

    return application


class Bytes(bytes):
    """A subclass of bytes, as template engines yield."""


class OldSequence:
    """Iterable by __getitem__ alone, as Python has always allowed."""

    def __getitem__(self, index):
        return (b"a", b"b", b"c")[index]


# Iterables.


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (lambda: [b"hello"], b"hello"),
        (lambda: (b"hel", b"lo"), b"hello"),
        (lambda: iter([b"hel", b"lo"]), b"hello"),
        (lambda: (block for block in (b"a", b"b")), b"ab"),
        (lambda: map(bytes, ([97], [98])), b"ab"),
        (lambda: {b"only": 1}, b"only"),
        (lambda: {b"only"}, b"only"),
        (lambda: b"ab" and [b"ab"] * 1000, b"ab" * 1000),
        (list, b""),
        (tuple, b""),
        (lambda: iter(()), b""),
        (lambda: [b""], b""),
        (lambda: [b"", b"", b""], b""),
        (lambda: [b"", b"a", b"", b"b", b""], b"ab"),
        (lambda: [b"x" * 1_000_000], b"x" * 1_000_000),
        (lambda: [b"x" * 100_000] * 10, b"x" * 1_000_000),
    ],
)
@pytest.mark.parametrize("validate", [True, False], ids=["validated", "bare"])
def test_iterables(serve, value, content, validate):
    with serve(returning(value), validate=validate).connect() as client:
        for _ in range(2):
            assert client.ask().content == content


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (lambda: [Bytes(b"hello")], b"hello"),
        (lambda: iter([Bytes(b"hel"), b"lo"]), b"hello"),
        (OldSequence, b"abc"),
    ],
)
def test_unusual_iterables(serve, value, content):
    assert serve(returning(value), validate=False).ask().content == content


def test_callable_objects_and_methods(serve):
    class Application:
        def __call__(self, environ, start_response):
            return text(b"called")(environ, start_response)

        def method(self, environ, start_response):
            return text(b"method")(environ, start_response)

    assert serve(Application()).ask().text == "called"
    assert serve(Application().method, validate=False).ask().text == "method"


def test_an_iterable_is_its_own_class(serve):
    class Application:
        def __init__(self, environ, start_response):
            self.start = start_response

        def __iter__(self):
            self.start("200 OK", [TEXT])
            yield b"hello"

    assert serve(Application, validate=False).ask().text == "hello"


def test_arguments_are_positional(serve):
    def application(*arguments):
        environ, start_response = arguments
        return text()(environ, start_response)

    assert serve(application, validate=False).ask().text == "hello"


def test_blocks_are_sent_unchanged(serve):
    content = bytes(range(256)) * 50 + b"\r\n0\r\n\r\n"
    assert serve(returning(lambda: iter([content, content]))).ask().content == content * 2


# close() is called exactly once.


class SizedBody(Body):
    def __len__(self):
        return 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("kind", [Body, SizedBody])
@pytest.mark.parametrize("blocks", [(), (b"",), (b"one",), (b"one", b"two")], ids=repr)
def test_closed_after_success(serve, method, kind, blocks):
    if kind is SizedBody and len(blocks) != 1:
        pytest.skip("its length is one")
    body = kind(blocks)
    server = serve(returning(body), validate=False)
    with server.connect() as client:
        assert client.ask("/", method).content == (b"" if method == "HEAD" else b"".join(blocks))
        server.wait_count("exchanges", 0)
    assert body.closed == 1


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_closed_after_an_answer_without_content(serve, status):
    body = Body(())
    server = serve(lambda environ, start_response: start_response(status, []) and body)
    assert server.ask().content == b""
    server.wait_count("exchanges", 0)
    assert body.closed == 1


@pytest.mark.parametrize("good", [0, 1, 2])
def test_closed_after_an_exception_in_the_iteration(serve, good):
    def blocks():
        yield from [b"x"] * good
        raise ZeroDivisionError("in the iteration")

    body = Body(blocks())
    server = serve(returning(body))
    with server.connect() as client:
        try:
            assert client.ask().status == 500
        except Incomplete as error:
            assert good
            assert error.response.status == 200
    server.log.expect("ZeroDivisionError: in the iteration")
    assert body.closed == 1


def test_closed_when_a_block_is_not_bytes(serve):
    body = Body(["text"])
    server = serve(returning(body), validate=False)
    assert server.ask().status == 500
    server.log.expect("str")
    assert body.closed == 1


def test_closed_when_start_response_was_never_called(serve):
    body = Body()
    server = serve(lambda environ, start_response: body, validate=False)
    assert server.ask().status == 500
    server.log.expect("start_response")
    assert body.closed == 1


def test_an_exception_in_close_is_logged_and_harms_nobody(serve):
    class Broken(Body):
        def close(self):
            super().close()
            raise ZeroDivisionError("in close")

    body = Broken()
    server = serve(returning(body), validate=False)
    with server.connect() as client:
        assert client.ask().text == "onetwo"
    server.log.expect("ZeroDivisionError: in close")
    assert body.closed == 1


def test_generators_are_closed(serve):
    ended = []

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        try:
            yield b"one"
            yield b"two"
        finally:
            ended.append(True)

    server = serve(application)
    assert server.ask().text == "onetwo"
    server.wait_count("exchanges", 0)
    assert ended == [True]


def test_nothing_is_kept_of_an_exchange(serve):
    import gc
    import weakref

    kept = []

    class Watched(Body):
        pass

    def application(environ, start_response):
        body = Watched()
        kept.append(weakref.ref(body))
        start_response("200 OK", [TEXT])
        return body

    server = serve(application, validate=False)
    with server.connect() as client:
        for _ in range(3):
            client.ask()
        server.wait_count("exchanges", 0)
        gc.collect()
        assert [reference() for reference in kept] == [None, None, None]


# Failures.


@pytest.mark.parametrize(
    "error", [ZeroDivisionError, SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError, StopIteration]
)
def test_an_exception_is_a_500_with_one_traceback(serve, error):
    def application(environ, start_response):
        if environ["PATH_INFO"] == "/fail":
            raise error("by the application")
        return text()(environ, start_response)

    server = serve(application)
    response = server.ask("/fail")
    assert (response.status, response.reason) == (500, "Internal Server Error")
    assert b"by the application" not in response.content
    server.log.expect("Traceback (most recent call last)")
    server.log.expect(f"{error.__name__}: by the application")
    for _ in range(5):
        assert server.ask().text == "hello"


def test_the_log_says_which_request_failed(serve):
    def application(environ, start_response):
        raise ZeroDivisionError

    server = serve(application)
    assert server.ask("/which/one?it=was", "POST", content=b"x").status == 500
    server.log.expect("POST /which/one")
    server.log.allow("ZeroDivisionError")


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
def test_an_exception_after_start_response_replaces_the_answer(serve, error):
    def application(environ, start_response):
        start_response("200 OK", [TEXT, ("X-Secret", "1"), ("Content-Length", "5")])
        raise error("after start_response")

    server = serve(application)
    response = server.ask()
    assert response.status == 500
    assert response["X-Secret"] is None
    server.log.expect("after start_response")


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("length", [None, "9"])
def test_an_exception_after_the_head_has_left_cuts_the_answer(serve, error, length):
    fields = [TEXT] + ([("Content-Length", length)] if length else [])

    def application(environ, start_response):
        start_response("200 OK", fields)
        yield b"part"
        raise error("after the first block")

    server = serve(application)
    with server.connect() as client:
        with pytest.raises((Incomplete, ConnectionError)):
            client.ask()
    server.log.expect("after the first block")


def test_an_exception_on_head(serve):
    def application(environ, start_response):
        raise ZeroDivisionError

    server = serve(application)
    response = server.ask("/", "HEAD")
    assert (response.status, response.content) == (500, b"")
    server.log.expect("ZeroDivisionError")


@pytest.mark.parametrize(
    "value", ["text", ["text"], [b"good"[:0], "text"], [5], [None], [[b"a"]], None, 5, b"ab"], ids=repr
)
def test_wrong_results_are_a_500(serve, value):
    server = serve(returning(value), validate=False)
    server.log.allow("Traceback")
    assert server.ask().status == 500
    kind = type(value[-1] if isinstance(value, list) else value).__name__
    server.log.expect(kind.removesuffix("Type"))
    assert server.ask("/again").status == 500
    server.log.expect(kind.removesuffix("Type"))


def test_one_wrong_block_after_good_ones_cuts_the_answer(serve):
    server = serve(returning(lambda: iter([b"good", "text"])), validate=False)
    with server.connect() as client:
        with pytest.raises((Incomplete, ConnectionError)):
            client.ask()
    server.log.expect("str")


def test_content_after_a_failure_does_not_become_a_request(serve):
    def application(environ, start_response):
        raise ZeroDivisionError

    server = serve(application)
    with server.connect() as client:
        response = client.ask("/", "POST", content=b"GET /evil HTTP/1.1\r\nHost: h\r\n\r\n")
        assert response.status == 500
        if response.closes:
            client.expect_end()
    server.log.expect("ZeroDivisionError")
    server.wait_count("requests", 1)


def test_an_application_that_cannot_take_two_arguments(serve):
    server = serve(lambda environ: [b"never"], validate=False)
    assert server.ask().status == 500
    server.log.expect("TypeError")


def test_deep_recursion(serve):
    def application(environ, start_response):
        return application(environ, start_response)

    server = serve(application)
    assert server.ask().status == 500
    server.log.expect("RecursionError")
