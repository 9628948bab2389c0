"""wsgi.input: every way to read it, over both framings, in memory and from the spool."""

import hashlib
import random

import pytest

from support import TEXT, answering, echo, framed, request, text

LINES = b"first\nsecond line\n\nfourth, without end"

both_framings = pytest.mark.parametrize("framing", ["length", "chunked"])


def random_content(size, seed=1):
    return random.Random(seed).randbytes(size)


def reading(server_app, framing, content, serve, **options):
    """What server_app(input) makes of the content."""
    # wsgiref.validate allows fewer ways to read than PEP 3333 and the io module have.
    server = serve(answering(lambda environ: server_app(environ["wsgi.input"])), validate=False, **options)
    with server.connect() as client:
        client.send(framed(content, framing))
        return client.read_response().content


@both_framings
@pytest.mark.parametrize(
    "read",
    [
        lambda input: input.read(),
        lambda input: input.read(-1),
        lambda input: input.read(None),
        lambda input: input.read(10**9),
        lambda input: input.read(5) + input.read(7) + input.read(),
        lambda input: b"".join(iter(lambda: input.read(1), b"")),
        lambda input: b"".join(iter(input.readline, b"")),
        lambda input: b"".join(iter(lambda: input.readline(3), b"")),
        lambda input: b"".join(input.readlines()),
        lambda input: b"".join(input),
        lambda input: next(iter(input)) + input.readline() + input.read(3) + input.read(),
    ],
    ids=[
        "read()",
        "read(-1)",
        "read(None)",
        "read(many)",
        "pieces",
        "bytes",
        "lines",
        "limited lines",
        "readlines",
        "iteration",
        "mixed",
    ],
)
def test_whole_content(serve, framing, read):
    assert reading(read, framing, LINES, serve) == LINES


@both_framings
def test_types_and_pieces(serve, framing):
    def read(input):
        data = [input.read(0), input.read(3), input.readline(), input.readline(4), input.readline(100)]
        data += [*input.readlines(), input.read(), input.read(5), input.readline(), *input.readlines()]
        assert all(type(block) is bytes for block in data)
        return repr(data)

    expected = [b"", b"fir", b"st\n", b"seco", b"nd line\n", b"\n", b"fourth, without end", b"", b"", b""]
    assert reading(read, framing, LINES, serve) == repr(expected).encode()


@both_framings
def test_readlines_with_a_hint_stops_early(serve, framing):
    def read(input):
        some = input.readlines(7)
        assert some == [b"first\n", b"second line\n"]
        return b"".join(some + input.readlines(0))

    assert reading(read, framing, LINES, serve) == LINES


@both_framings
def test_readline_zero_is_no_end(serve, framing):
    assert reading(lambda input: repr([input.readline(0), input.readline()]), framing, b"a\n", serve) == (
        b"[b'', b'a\\n']"
    )


@both_framings
def test_readinto(serve, framing):
    def read(input):
        buffer, data = bytearray(7), b""
        while size := input.readinto(buffer):
            data += buffer[:size]
        assert input.readinto(buffer) == 0
        return data

    assert reading(read, framing, LINES, serve) == LINES


def test_validated_application_reads(serve):
    def read(environ):
        input = environ["wsgi.input"]
        return input.read(3) + input.readline() + input.readline() + b"".join(input)

    with serve(answering(read)).connect() as client:
        for framing in ("length", "chunked"):
            client.send(framed(LINES, framing))
            assert client.read_response().content == LINES


def test_no_content_is_the_end_at_once(serve):
    def read(input):
        return repr([input.read(), input.read(5), input.readline(), input.readlines(), list(input)])

    server = serve(answering(lambda environ: read(environ["wsgi.input"])), validate=False)
    assert server.ask().text == "[b'', b'', b'', [], []]"


def test_reading_never_goes_past_the_content(serve):
    server = serve(answering(lambda environ: environ["wsgi.input"].read()), validate=False)
    with server.connect() as client:
        client.send(request("/", "POST", content=b"first") + request("/", "POST", content=b"second"))
        assert client.read_response().text == "first"
        assert client.read_response().text == "second"


@both_framings
@pytest.mark.parametrize("size", [1, 8192, 32767, 32768, 65535, 65536, 131071, 131072, 131073])
def test_sizes_around_limits(serve, framing, size):
    content = random_content(size)
    with serve(echo, request_buffer=131072).connect() as client:
        client.send(framed(content, framing))
        assert client.read_response().content == content


@both_framings
def test_content_past_the_memory_limit(serve, framing):
    content = random_content(3_000_000)

    def read(input):
        digest = hashlib.sha256(input.read(10))
        digest.update(input.readline())
        digest.update(input.read(100_000))
        for line in input:
            digest.update(line)
        return digest.hexdigest()

    digest = reading(read, framing, content, serve, request_buffer=65536)
    assert digest.decode() == hashlib.sha256(content).hexdigest()


@both_framings
def test_many_spooled_contents_one_after_the_other(serve, framing):
    with serve(echo, request_buffer=4096).connect() as client:
        for seed in range(5):
            content = random_content(300_000 + seed, seed)
            client.send(framed(content, framing))
            assert client.read_response().content == content


def test_no_memory_at_all_for_content(serve):
    with serve(echo, request_buffer=0).connect() as client:
        for size in (10, 300_000):
            content = random_content(size)
            assert client.ask("/", "POST", content=content).content == content


@both_framings
@pytest.mark.parametrize("size", [10, 300_000])
def test_unread_content_is_skipped(serve, framing, size):
    with serve(text(), request_buffer=65536).connect() as client:
        for _ in range(3):
            client.send(framed(random_content(size), framing))
            assert client.read_response().text == "hello"


@both_framings
def test_content_that_looks_like_a_request_is_not_one(serve, framing):
    server = serve(text())
    with server.connect() as client:
        client.send(framed(request("/smuggled") * 10, framing))
        assert client.read_response().text == "hello"
        assert client.ask().text == "hello"
        assert not client.readable(0.05)


def test_partly_read_content_then_the_next_request(serve):
    def read_some(environ, start_response):
        start_response("200 OK", [TEXT])
        return [environ["wsgi.input"].read(3)]

    with serve(read_some).connect() as client:
        client.send(request("/", "POST", content=b"abcdef") + request("/", "POST", content=b"uvwxyz"))
        assert client.read_response().text == "abc"
        assert client.read_response().text == "uvw"


def test_reading_while_answering(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        while block := environ["wsgi.input"].read(1000):
            yield block.upper()

    with serve(application).connect() as client:
        content = b"abcdefgh" * 1000
        assert client.ask("/", "POST", content=content).content == content.upper()


@pytest.mark.parametrize("size", [5, 300_000])
def test_input_kept_after_the_exchange_is_harmless(serve, size):
    kept = []

    def application(environ, start_response):
        kept.append(environ["wsgi.input"])
        start_response("200 OK", [TEXT])
        return [b"ok"]

    server = serve(application, validate=False, request_buffer=65536)
    with server.connect() as client:
        for seed in range(3):
            client.ask("/", "POST", content=random_content(size, seed))
    for seed, input in enumerate(kept):
        try:
            data = input.read()
        except (ValueError, OSError):
            continue
        assert data == random_content(size, seed)[: len(data)]
    kept.clear()


def test_wrong_arguments_are_python_errors(serve):
    def read(input):
        for call in (
            lambda: input.read("3"),
            lambda: input.readline(b""),
            lambda: input.readinto(b"constant"),
        ):
            with pytest.raises(TypeError):
                call()
        return input.read()

    assert reading(read, "length", b"still here", serve) == b"still here"
