"""wsgi.file_wrapper: files by sendfile, everything else by reading."""

import io
import os
import random
from functools import partial
from pathlib import Path

import pytest

from conftest import of_threads
from support import TEXT, request, text, wait_until

CONTENT = random.Random(1).randbytes(300_000)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def wrapping(open_file, *block_size, fields=(), closed=None):
    """An application that answers with what open_file() opens; `closed` collects the calls of its close()."""

    def application(environ, start_response):
        opened = open_file()
        if closed is not None:
            opened = Watched(opened, closed)
        start_response("200 OK", [TEXT, *fields])
        return environ["wsgi.file_wrapper"](opened, *block_size)

    return application


class Watched:
    """A file that notes when it is closed."""

    def __init__(self, file, closed):
        self.file = file
        self.closed_list = closed

    def __getattr__(self, name):
        return getattr(self.file, name)

    def close(self):
        self.closed_list.append(self.file)
        self.file.close()


class OnlyRead:
    """What PEP 3333 asks of a file-like object: read(size), and nothing else."""

    def __init__(self, content):
        self.stream = io.BytesIO(content)

    def read(self, size):
        return self.stream.read(size)


# wsgiref.validate hides the wrapper: bare, it ends in sendfile; validated, it is iterated over.
both_ways = pytest.mark.parametrize("validate", [True, False], ids=["validated", "bare"])


@both_ways
@pytest.mark.parametrize("block_size", [(), (1,), (8192,), (65536,)], ids=repr)
def test_a_file(serve, file, validate, block_size):
    content = CONTENT if block_size != (1,) else CONTENT[:2000]
    file.write_bytes(content)
    with serve(wrapping(lambda: file.open("rb"), *block_size), validate=validate).connect() as client:
        for _ in range(2):
            assert client.ask().content == content


@pytest.mark.parametrize("size", [0, 1, 4096, 65536, 65537])
def test_the_length_of_a_file_is_known(serve, file, size):
    file.write_bytes(CONTENT[:size])
    with serve(wrapping(lambda: file.open("rb")), validate=False).connect() as client:
        for _ in range(2):
            response = client.ask()
            assert response["Content-Length"] == str(size)
            assert response.content == CONTENT[:size]


@both_ways
@pytest.mark.parametrize("offset", [1, 100_000, 299_999, 300_000, 400_000])
def test_a_file_is_sent_from_where_it_stands(serve, file, validate, offset):
    def open_at_offset():
        opened = file.open("rb")
        opened.seek(offset)
        return opened

    with serve(wrapping(open_at_offset), validate=validate).connect() as client:
        for _ in range(2):
            assert client.ask().content == CONTENT[offset:]


def test_a_file_of_which_some_has_been_read(serve, file):
    def open_and_read():
        opened = file.open("rb")
        assert (
            opened.read(5) == CONTENT[:5]
        )  # The buffered reader has taken more than that from the descriptor.
        return opened

    assert serve(wrapping(open_and_read), validate=False).ask().content == CONTENT[5:]


def test_an_unbuffered_file(serve, file):
    with serve(wrapping(lambda: file.open("rb", buffering=0)), validate=False).connect() as client:
        assert client.ask().content == CONTENT


@both_ways
@pytest.mark.parametrize("length", [0, 1, 1000, 299_999])
def test_a_shorter_content_length_is_a_range(serve, file, validate, length):
    server = serve(
        wrapping(lambda: file.open("rb"), fields=[("Content-Length", str(length))]), validate=validate
    )
    server.log.allow("Content-Length")
    with server.connect() as client:
        assert client.ask().content == CONTENT[:length]


def test_a_range_from_the_middle(serve, file):
    def open_in_the_middle():
        opened = file.open("rb")
        opened.seek(1000)
        return opened

    server = serve(wrapping(open_in_the_middle, fields=[("Content-Length", "500")]), validate=False)
    server.log.allow("Content-Length")
    with server.connect() as client:
        for _ in range(2):
            assert client.ask().content == CONTENT[1000:1500]


def test_a_longer_content_length_is_an_error(serve, file):
    server = serve(wrapping(lambda: file.open("rb"), fields=[("Content-Length", "300001")]), validate=False)
    with server.connect() as client:
        client.send(request("/"))
        client.read_head()
        assert client.take_rest() == CONTENT
    server.log.expect("Content-Length")


@both_ways
@pytest.mark.parametrize(
    "make",
    [lambda: io.BytesIO(CONTENT), lambda: OnlyRead(CONTENT), lambda: io.BufferedReader(io.BytesIO(CONTENT))],
    ids=["BytesIO", "only read", "BufferedReader"],
)
@pytest.mark.parametrize("length", [None, len(CONTENT)])
def test_no_real_file(serve, validate, make, length):
    fields = [("Content-Length", str(length))] if length else []
    with serve(wrapping(make, fields=fields), validate=validate).connect() as client:
        for _ in range(2):
            assert client.ask().content == CONTENT


def test_bytesio_at_an_offset(serve):
    def make():
        stream = io.BytesIO(CONTENT)
        stream.seek(1000)
        return stream

    assert serve(wrapping(make), validate=False).ask().content == CONTENT[1000:]


@of_threads
@both_ways
def test_a_pipe(serve, validate):
    def make():
        read, write = os.pipe()
        os.write(write, b"through a pipe")
        os.close(write)
        return os.fdopen(read, "rb")

    with serve(wrapping(make), validate=validate).connect() as client:
        for _ in range(2):
            assert client.ask().text == "through a pipe"


def test_a_file_whose_size_is_not_told(serve):
    # Files of /proc are regular files of size 0 with something in them.
    if not os.path.exists("/proc/self/status"):
        pytest.skip("no /proc here")
    response = serve(wrapping(partial(Path("/proc/self/status").open, "rb")), validate=False).ask()
    assert b"VmRSS" in response.content


def test_a_text_file_is_an_error(serve, file):
    file.write_text("text")
    server = serve(wrapping(lambda: file.open()), validate=False)
    response = server.ask()
    if response.status == 500:
        server.log.expect("str")
    else:
        # Its descriptor is as good as that of a binary file.
        assert response.text == "text"


def test_a_closed_file_is_an_error(serve, file):
    def make():
        opened = file.open("rb")
        opened.close()
        return opened

    server = serve(wrapping(make), validate=False)
    assert server.ask().status == 500
    server.log.expect("closed file")


def test_a_file_that_cannot_be_read_is_an_error(serve, file):
    server = serve(wrapping(lambda: file.open("ab")), validate=False)
    with server.connect() as client:
        client.send(request("/"))
        head = client.read_head()
        assert head.status == 500 or len(client.take_rest()) < len(CONTENT)
    wait_until(lambda: server.log.lines, "a word in the log")
    server.log.allow("")


def test_a_file_that_fails_while_read(serve):
    class Failing:
        def __init__(self):
            self.blocks = [b"x" * 1000]

        def read(self, size):
            if not self.blocks:
                raise OSError("disk on fire")
            return self.blocks.pop()

    server = serve(wrapping(Failing), validate=False)
    with server.connect() as client:
        client.send(request("/"))
        client.take_rest()
    server.log.expect("disk on fire")


@both_ways
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("kind", ["file", "BytesIO"])
def test_closed_once(serve, file, validate, method, kind):
    closed = []
    make = (lambda: file.open("rb")) if kind == "file" else (lambda: io.BytesIO(CONTENT))
    server = serve(wrapping(make, closed=closed), validate=validate)
    with server.connect() as client:
        for _ in range(2):
            assert client.ask("/", method).content == (b"" if method == "HEAD" else CONTENT)
        server.wait_count("exchanges", 0)
    assert len(closed) == 2


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_real_file_is_closed(serve, file, method):
    opened = []

    def open_file():
        opened.append(file.open("rb"))
        return opened[-1]

    server = serve(wrapping(open_file), validate=False)
    with server.connect() as client:
        for _ in range(2):
            client.ask("/", method)
        server.wait_count("exchanges", 0)
    assert [one.closed for one in opened] == [True, True]


def test_head_tells_the_length(serve, file):
    with serve(wrapping(lambda: file.open("rb")), validate=False).connect() as client:
        for _ in range(2):
            response = client.ask("/", "HEAD")
            assert (response["Content-Length"], response.content) == ("300000", b"")
        assert client.ask().content == CONTENT


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_no_content_for_204_and_304(serve, file, status):
    closed = []

    def application(environ, start_response):
        start_response(status, [])
        return environ["wsgi.file_wrapper"](Watched(file.open("rb"), closed))

    server = serve(application, validate=False)
    server.log.allow("content")
    with server.connect() as client:
        for _ in range(2):
            assert client.ask().content == b""
        assert not client.readable(0.05)
    wait_until(lambda: len(closed) == 2, "close() of both")


def test_http10(serve, file):
    with serve(wrapping(lambda: file.open("rb")), validate=False).connect() as client:
        assert client.ask(version="1.0").content == CONTENT
        client.expect_end()


def test_pipelined(serve, file):
    with serve(wrapping(lambda: file.open("rb")), validate=False).connect() as client:
        client.send(request("/") * 5)
        for _ in range(5):
            assert client.read_response().content == CONTENT


def test_the_wrapper_is_an_iterable_too(serve):
    def application(environ, start_response):
        wrapper = environ["wsgi.file_wrapper"](io.BytesIO(b"abcdefg"), 3)
        start_response("200 OK", [TEXT])
        blocks = list(wrapper)
        wrapper.close()
        return [repr(blocks).encode()]

    assert serve(application, validate=False).ask().text == "[b'abc', b'def', b'g']"


def test_a_wrapper_inside_another_iterable(serve, file):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b"before "
        wrapper = environ["wsgi.file_wrapper"](file.open("rb"))
        yield from wrapper
        wrapper.close()
        yield b" after"

    assert serve(application).ask().content == b"before " + CONTENT + b" after"


def test_a_wrapper_that_is_not_returned(serve, file):
    closed = []

    def application(environ, start_response):
        environ["wsgi.file_wrapper"](Watched(file.open("rb"), closed)).close()
        return text()(environ, start_response)

    assert serve(application).ask().text == "hello"
    assert len(closed) == 1


def test_a_file_that_grows_is_sent_as_it_was(serve, file):
    def application(environ, start_response):
        opened = file.open("rb")
        start_response("200 OK", [TEXT, ("Content-Length", "300000")])
        with file.open("ab") as more:
            more.write(b"more")
        return environ["wsgi.file_wrapper"](opened)

    server = serve(application, validate=False)
    server.log.allow("Content-Length")
    with server.connect() as client:
        for _ in range(2):
            assert client.ask().content == CONTENT


def test_a_big_file_to_a_slow_reader_is_closed_at_once_and_holds_no_thread(serve, file):
    content, opened = CONTENT * 100, []
    file.write_bytes(content)

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/":
            return text()(environ, start_response)
        source = file.open("rb")
        opened.append(source)
        start_response("200 OK", [TEXT])
        return environ["wsgi.file_wrapper"](source)

    server = serve(application, validate=False)
    slow = [server.connect(receive_buffer=4096) for _ in range(server.threads)]
    for client in slow:
        client.send(request("/big"))
    wait_until(lambda: len(opened) == server.threads and all(one.closed for one in opened), "close() of all")
    server.wait_count("exchanges", 0)
    assert server.ask().text == "hello"
    assert server.count("connections") >= server.threads
    response = slow[0].read_response()
    assert response["Content-Length"] == "30000000"
    assert response.content == content


def test_a_client_that_leaves_in_the_middle_of_a_file(serve, file):
    opened = []
    file.write_bytes(CONTENT * 50)

    def open_file():
        opened.append(file.open("rb"))
        return opened[-1]

    server = serve(wrapping(open_file), validate=False)
    for _ in range(3):
        client = server.connect(receive_buffer=4096)
        client.send(request("/"))
        client.read_head()
        client.reset()
    wait_until(lambda: all(one.closed for one in opened), "close() of all")
    server.wait_count("connections", 0)
    assert len(opened) == 3
