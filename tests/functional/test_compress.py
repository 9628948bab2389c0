"""--compress: content that leaves in a coding, as clients read it."""

import io
import random
import shutil
import subprocess
import sys
import threading

import httpx
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from codings import DECODE, reader
from conftest import on_one_crew
from fastwsgi import compression
from support import ENVIRONMENT, PATIENCE, TEXT, Gate, Incomplete, request, text

WORDS = " ".join(str(number) for number in random.Random(3).choices(range(1000), k=5000)).encode()
ALL = "gzip,br,zstd"


def accept(coding):
    return [("Accept-Encoding", coding)]


def decoded(response):
    coding = response["Content-Encoding"]
    return DECODE[coding](response.content) if coding else response.content


def streaming(*blocks, fields=()):
    def application(environ, start_response):
        start_response("200 OK", [TEXT, *fields])
        return iter(blocks)

    return application


@pytest.mark.parametrize("coding", DECODE)
def test_a_block(serve, coding):
    with serve(text(WORDS), compress=ALL, validate=False).connect() as client:
        for _ in range(2):
            response = client.ask(fields=accept(coding))
            assert response["Content-Encoding"] == coding
            assert response.framing == "length"
            assert len(response.content) < len(WORDS) / 2
            assert decoded(response) == WORDS
            assert response["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize("coding", DECODE)
def test_a_stream(serve, coding):
    blocks = [WORDS[:10], WORDS, b"", WORDS[100:200_000], b"end"]
    with serve(streaming(*blocks), compress=ALL).connect() as client:
        for _ in range(2):
            response = client.ask(fields=accept(coding))
            assert response.framing == "chunked"
            assert decoded(response) == b"".join(blocks)


@pytest.mark.parametrize("coding", DECODE)
def test_each_block_arrives_at_once(serve, coding):
    gate = Gate()

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        yield b"data: first\n\n"
        gate.hold()
        yield b"data: second\n\n"

    with serve(application, compress=ALL).connect() as client:
        client.send(request(fields=accept(coding)))
        assert client.read_head()["Content-Encoding"] == coding
        read = reader(coding)
        assert read(client.take_chunk()) == b"data: first\n\n"
        gate.wait_entered()
        gate.open()
        assert read(client.take_chunk()) == b"data: second\n\n"
        while end := client.take_chunk():
            assert read(end) == b""


def test_write(serve):
    def application(environ, start_response):
        write = start_response("200 OK", [TEXT])
        write(WORDS)
        write(b"again")
        return [b"end"]

    with serve(application, compress="gzip").connect() as client:
        for _ in range(2):
            assert decoded(client.ask(fields=accept("gzip"))) == WORDS + b"againend"


@on_one_crew
def test_write_from_several_threads(serve):
    lines = [b"%d %b\n" % (number, WORDS[:200]) for number in range(200)]

    def application(environ, start_response):
        write = start_response("200 OK", [TEXT])
        threads = [
            threading.Thread(target=lambda own=own: [write(line) for line in lines[own::4]])
            for own in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return []

    response = serve(application, compress="gzip").ask(fields=accept("gzip"))
    assert sorted(decoded(response).splitlines(keepends=True)) == sorted(lines)


def test_pipelined(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        size = int(environ["PATH_INFO"][1:])
        return [WORDS[:size]] if size % 2 else iter([WORDS[:size], b"x"])

    asked = [(5, "gzip"), (2001, "br"), (3000, "gzip"), (4001, "identity"), (2000, "zstd"), (3, "gzip")]
    with serve(application, compress=ALL, validate=False).connect() as client:
        client.send(b"".join(request(f"/{size}", fields=accept(coding)) for size, coding in asked))
        for size, _ in asked:
            assert decoded(client.read_response()) == WORDS[:size] + (b"" if size % 2 else b"x")


@on_one_crew
def test_short_content_is_left(serve):
    with serve(text(b"x" * 99), compress="gzip", compress_min_length=100, validate=False).connect() as client:
        response = client.ask(fields=accept("gzip"))
        assert (response["Content-Encoding"], response["Vary"]) == (None, None)
        assert response.content == b"x" * 99


@on_one_crew
def test_clients_that_do_not_ask(serve):
    response = serve(text(WORDS), compress="gzip", validate=False).ask()
    assert (response["Content-Encoding"], response["Vary"]) == (None, "Accept-Encoding")
    assert response["Content-Length"] == str(len(WORDS))
    assert response.content == WORDS


@on_one_crew
def test_without_the_option(serve):
    response = serve(text(WORDS)).ask(fields=accept("gzip"))
    assert (response["Content-Encoding"], response["Vary"]) == (None, None)


@on_one_crew
def test_http_1_0(serve):
    response = serve(streaming(WORDS), compress="gzip").ask(version="1.0", fields=accept("gzip"))
    assert (response["Content-Encoding"], response.framing) == (None, "close")
    assert response.content == WORDS


@on_one_crew
def test_content_that_does_not_get_shorter(serve):
    noise = random.Random(1).randbytes(5000)
    for fields in ([], [("Content-Length", "5000")]):
        response = serve(text(noise, fields=fields), compress="gzip", validate=False).ask(
            fields=accept("gzip")
        )
        assert (response["Content-Encoding"], response["Vary"]) == (None, "Accept-Encoding")
        assert response["Content-Length"] == "5000"
        assert response.content == noise


LENGTH = ("Content-Length", str(len(WORDS)))


@on_one_crew
@pytest.mark.parametrize(
    ("application", "framing"),
    [
        (text(WORDS), "length"),
        (text(WORDS, fields=[LENGTH, ("ETag", '"1"'), ("Accept-Ranges", "bytes")]), "length"),
        (streaming(WORDS, fields=[LENGTH]), "length"),
        (streaming(WORDS), "chunked"),
        (streaming(WORDS[:7], WORDS[7:], fields=[LENGTH]), "chunked"),
    ],
    ids=["block", "length", "stream with length", "stream", "two blocks"],
)
def test_head(serve, application, framing):
    with serve(application, compress="gzip", validate=False).connect() as client:
        got = client.ask(fields=accept("gzip"))
        assert (got["Content-Encoding"], got.framing) == ("gzip", framing)
        assert decoded(got) == WORDS
        head = client.ask(method="HEAD", fields=accept("gzip"))
        dropped = {"Content-Length", "Transfer-Encoding", "Date"}
        assert [field for field in got.fields if field[0] not in dropped] == [
            field for field in head.fields if field[0] not in dropped
        ]
        assert head["Content-Length"] is None  # it would be that of the coded content, which nobody knows


@on_one_crew
def test_head_without_content(serve):
    server = serve(streaming(fields=[LENGTH, ("ETag", '"1"')]), compress="gzip", validate=False)
    response = server.ask(method="HEAD", fields=accept("gzip"))
    assert (response["Content-Encoding"], response["Content-Length"]) == ("gzip", None)
    assert response["ETag"] == 'W/"1"'


@on_one_crew
def test_many_tags_become_longer(serve):
    server = serve(streaming(WORDS, fields=[("ETag", '"x"')] * 60), compress="gzip", validate=False)
    response = server.ask(fields=accept("gzip"))
    assert decoded(response) == WORDS
    assert response.all("ETag") == ['W/"x"'] * 60


@on_one_crew
def test_nothing_is_nothing(serve):
    response = serve(streaming(), compress="gzip").ask(fields=accept("gzip"))
    assert (response["Content-Encoding"], response["Content-Length"], response.content) == (None, "0", b"")


@on_one_crew
@pytest.mark.parametrize("given", [len(WORDS) - 1, 5000, 0])
def test_less_than_announced_is_no_whole_answer(serve, given):
    server = serve(streaming(WORDS[:given], fields=[LENGTH]), compress="gzip", validate=False)
    with server.connect() as client:
        client.send(request(fields=accept("gzip")))
        with pytest.raises(Incomplete):
            client.read_response()
        server.log.expect(f"gave {len(WORDS) - given} bytes less than its Content-Length")


@on_one_crew
@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_file_that_was_cut_is_no_whole_answer(serve, coding, tmp_path):
    file = tmp_path / "short.txt"
    file.write_bytes(WORDS[:2000])

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), LENGTH])
        return environ["wsgi.file_wrapper"](file.open("rb"))

    server = serve(application, compress=coding, validate=False)
    with server.connect() as client:
        client.send(request(fields=accept(coding)))
        with pytest.raises(Incomplete):
            client.read_response()
        server.log.expect("bytes less than its Content-Length")


@on_one_crew
def test_what_is_handed_over_is_not_compressed(serve, tmp_path):
    (tmp_path / "paid.txt").write_bytes(b"paid for")
    server = serve(
        streaming(WORDS, fields=[LENGTH, ("X-Accel-Redirect", "/protected/paid.txt")]),
        compress="gzip",
        route=[f"/protected static={tmp_path} internal=on"],
        validate=False,
    )
    response = server.ask(fields=accept("gzip"))
    assert (response.status, response.content) == (200, b"paid for")


@on_one_crew
@pytest.mark.parametrize("blocks", [(WORDS, b"more"), (WORDS + b"more",), (WORDS[:9], WORDS[9:], b"more")])
def test_more_than_announced_is_cut(serve, blocks):
    server = serve(streaming(*blocks, fields=[LENGTH]), compress="gzip", validate=False)
    assert decoded(server.ask(fields=accept("gzip"))) == WORDS
    server.log.expect("gave more content than its Content-Length")


@on_one_crew
def test_another_head_instead(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT, ("Content-Length", "7")])
        try:
            raise ValueError
        except ValueError:
            start_response("500 Oh", [TEXT], sys.exc_info())
        return [WORDS]

    response = serve(application, compress="gzip", validate=False).ask(fields=accept("gzip"))
    assert (response.status, decoded(response)) == (500, WORDS)


def failing(after):
    """A stream that has no memory left after some blocks."""

    class Failing(compression.Gzip):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.left = after
            self.real, self.feed = self.feed, self.fail

        def fail(self, data):
            self.left -= 1
            if self.left < 0:
                raise MemoryError
            return self.real(data)

    return Failing


@on_one_crew
@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("goes_on", [False, True])
def test_a_coder_that_fails(serve, monkeypatch, after, goes_on):
    def application(environ, start_response):
        write = start_response("200 OK", [TEXT])
        for _ in range(3):
            try:
                write(WORDS)
            except MemoryError:
                if not goes_on:
                    raise
                break
        return []

    monkeypatch.setattr(compression, "Gzip", failing(after))
    server = serve(application, compress="gzip")
    with server.connect() as client:
        client.send(request(fields=accept("gzip")))
        if after:
            with pytest.raises(Incomplete):
                client.read_response()
        else:
            assert client.read_response().status == 500
    server.log.expect("the application failed")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes(WORDS * 10)
    return path


def wrapping(file, kind, *fields):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", kind), *fields])
        return environ["wsgi.file_wrapper"](file.open("rb"))

    return application


def test_a_file(serve, file):
    with serve(wrapping(file, "text/plain"), compress="gzip", validate=False).connect() as client:
        for _ in range(2):
            response = client.ask(fields=accept("gzip"))
            assert response["Content-Encoding"] == "gzip"
            assert decoded(response) == WORDS * 10
            # Nobody waits for a block of a file: all of it is compressed together.
            assert len(response.content) < 1.05 * len(compression.zlib.compress(WORDS * 10, 5))
            plain = client.ask()
            assert (plain["Vary"], plain.content) == ("Accept-Encoding", WORDS * 10)
            assert client.ask(method="HEAD", fields=accept("gzip"))["Content-Encoding"] == "gzip"


@on_one_crew
def test_files_that_are_not_compressed(serve, file):
    server = serve(wrapping(file, "image/png"), compress="gzip", validate=False)
    response = server.ask(fields=accept("gzip"))
    assert (response["Content-Encoding"], response["Vary"]) == (None, None)
    assert response["Content-Length"] == str(10 * len(WORDS))


@on_one_crew
def test_a_file_that_is_none(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return environ["wsgi.file_wrapper"](io.BytesIO(WORDS), 1000)

    assert decoded(serve(application, compress="gzip", validate=False).ask(fields=accept("gzip"))) == WORDS


@pytest.mark.parametrize("coding", DECODE)
def test_a_client_that_leaves(serve, coding):
    closed = threading.Event()
    noise = random.Random(2)

    class Endless:
        def __iter__(self):
            return self

        def __next__(self):
            return noise.randbytes(200_000)  # never the same, or some coders would make nothing of it

        def close(self):
            closed.set()

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return Endless()

    server = serve(application, compress=ALL, validate=False, response_buffer=65536, response_spool=0)
    client = server.connect()
    client.send(request(fields=accept(coding)))
    assert client.read_head().status == 200
    client.reset()
    assert closed.wait(PATIENCE)


@on_one_crew
def test_much_of_nothing(serve):
    server = serve(streaming(*[bytes(1 << 20)] * 16), compress="gzip", validate=False)
    response = server.ask(fields=accept("gzip"))
    assert len(response.content) < 100_000
    assert decoded(response) == bytes(16 << 20)


@on_one_crew
def test_any_cuts(serve):
    answer = {}

    def application(environ, start_response):
        start_response("200 OK", [TEXT, *answer["fields"]])
        return answer["blocks"]

    with serve(
        application, compress=ALL, compress_min_length=1, validate=False, keep_alive_requests=10_000
    ).connect() as client:

        @settings(max_examples=60, deadline=None)
        @given(
            st.sampled_from(list(DECODE)),
            st.lists(
                st.binary(max_size=300)
                | st.integers(0, len(WORDS)).map(lambda size: WORDS[:size])
                | st.integers(1, 30).map(WORDS.__mul__),
                max_size=6,
            ),
            st.booleans(),
        )
        def check(coding, blocks, announces):
            content = b"".join(blocks)
            answer["fields"] = [("Content-Length", str(len(content)))] if announces else []
            answer["blocks"] = blocks
            assert decoded(client.ask(fields=accept(coding))) == content

        check()


CURL = shutil.which("curl")


@on_one_crew
@pytest.mark.skipif(not CURL, reason="no curl here")
def test_curl(serve):
    server = serve(streaming(WORDS, WORDS), compress=ALL)
    command = [CURL, "--silent", "--fail", "--compressed", "--max-time", "20", "--noproxy", "*", server.url]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60, env=ENVIRONMENT)
    assert done.stdout == 2 * WORDS


@on_one_crew
def test_requests(serve):
    server = serve(streaming(WORDS, WORDS), compress="gzip")
    with requests.Session() as session:
        session.trust_env = False
        for _ in range(2):
            response = session.get(server.url)
            assert response.headers["Content-Encoding"] == "gzip"
            assert response.content == 2 * WORDS


@on_one_crew
@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_httpx(serve, coding):
    server = serve(text(WORDS), compress=coding, validate=False)
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        for _ in range(2):
            response = client.get("/")
            assert response.headers["Content-Encoding"] == coding
            assert response.content == WORDS
