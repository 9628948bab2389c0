"""curl, requests, httpx and wrk: what people's clients make of it."""

import contextlib
import json
import queue
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import requests

from support import ENVIRONMENT, TEXT, echo, text

CURL = shutil.which("curl")
needs_curl = pytest.mark.skipif(not CURL, reason="no curl here")
WRK = shutil.which("wrk")


def describe(environ, start_response):
    """Answers with what it was asked, as JSON."""
    content = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    answer = {
        "method": environ["REQUEST_METHOD"],
        "path": environ["PATH_INFO"],
        "query": environ["QUERY_STRING"],
        "protocol": environ["SERVER_PROTOCOL"],
        "type": environ.get("CONTENT_TYPE"),
        "length": environ.get("CONTENT_LENGTH"),
        "size": len(content),
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


def counting(environ, start_response):
    start_response("200 OK", [TEXT])
    yield from (b"%d\n" % number for number in range(1000))


COUNTED = b"".join(b"%d\n" % number for number in range(1000))


def curl(*arguments):
    command = [CURL, "--silent", "--show-error", "--fail", "--max-time", "20", "--noproxy", "*", *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=60, env=ENVIRONMENT).stdout


@needs_curl
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_curl(serve, version):
    server = serve(describe)
    answer = json.loads(curl(version, f"{server.url}/a%20b?c=d"))
    assert (answer["method"], answer["path"], answer["query"]) == ("GET", "/a b", "c=d")
    assert answer["protocol"] == "HTTP/" + version.removeprefix("--http")


@needs_curl
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_curl_a_generator(serve, version):
    assert curl(version, serve(counting).url) == COUNTED


@needs_curl
def test_curl_head(serve):
    head = curl("--head", serve(counting).url)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")


@needs_curl
def test_curl_several_urls_over_one_connection(serve):
    server = serve(text())
    assert curl(*[f"{server.url}/{number}" for number in range(20)]) == b"hello" * 20
    assert server.count("accepted") == 1


@needs_curl
def test_curl_form(serve):
    answer = json.loads(curl("--data", "a=b&c=d", serve(describe).url))
    assert answer["type"] == "application/x-www-form-urlencoded"
    assert (answer["length"], answer["size"]) == ("7", 7)


@needs_curl
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--http1.0",),
        ("--header", "Transfer-Encoding: chunked"),
        ("--header", "Expect: 100-continue"),
        ("--header", "Expect: 100-continue", "--header", "Transfer-Encoding: chunked"),
        ("--header", "Expect:"),
    ],
    ids=["plain", "1.0", "chunked", "expect", "both", "no expect"],
)
def test_curl_uploads_a_big_file(serve, tmp_path, options):
    file = tmp_path / "big"
    file.write_bytes(b"0123456789abcdef" * 200_000)
    server = serve(echo)
    assert (
        curl("--upload-file", str(file), "--expect100-timeout", "10", *options, server.url)
        == file.read_bytes()
    )


@needs_curl
def test_curl_uploads_a_form_with_a_file(serve, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100_000)
    answer = json.loads(curl("--form", f"file=@{file}", serve(describe).url))
    assert answer["type"].startswith("multipart/form-data; boundary=")
    assert answer["size"] > 100_000


@needs_curl
def test_curl_unix_socket(serve, short_path):
    serve(text(), host=f"unix:{short_path}/socket")
    assert curl("--unix-socket", f"{short_path}/socket", "http://localhost/") == b"hello"


def test_requests(serve):
    server = serve(describe)
    with requests.Session() as session:
        session.trust_env = False
        for _ in range(3):
            answer = session.post(f"{server.url}/caf\xe9", params={"a": "b c"}, json={"d": "e"}).json()
            assert answer["path"] == "/caf\xc3\xa9"
            assert answer["query"] == "a=b+c"
            assert answer["type"] == "application/json"
        assert session.head(server.url).status_code == 200
        assert session.put(server.url, data=(b"x" * 1000 for _ in range(10))).json()["size"] == 10_000
    assert server.count("accepted") == 1


def test_requests_streams(serve):
    with requests.Session() as session:
        session.trust_env = False
        with session.get(serve(counting).url, stream=True) as response:
            assert b"".join(response.iter_content(100)) == COUNTED


def test_httpx(serve):
    server = serve(describe)
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        for _ in range(3):
            answer = client.post("/path", params={"a": "b"}, content=b"x" * 100_000).json()
            assert (answer["path"], answer["query"], answer["size"]) == ("/path", "a=b", 100_000)
        assert client.options("/").json()["method"] == "OPTIONS"
        assert client.post("/", content=iter([b"x" * 1000] * 10)).json()["size"] == 10_000
    assert server.count("accepted") == 1


def test_httpx_streams(serve):
    with httpx.Client(trust_env=False) as client:
        with client.stream("GET", serve(counting).url) as response:
            assert b"".join(response.iter_bytes()) == COUNTED


def test_many_at_once(serve):
    server = serve(describe)
    clients = queue.SimpleQueue()

    def ask(number):
        # Without a GIL, threads cannot share one of httpx (0.28).
        client = clients.get()
        try:
            return client.get(f"/{number}").json()["path"]
        finally:
            clients.put(client)

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            clients.put(stack.enter_context(httpx.Client(base_url=server.url, trust_env=False)))
        assert list(pool.map(ask, range(100))) == [f"/{number}" for number in range(100)]


@pytest.mark.skipif(not WRK, reason="no wrk here")
def test_wrk(serve):
    server = serve(text())
    command = [WRK, "-t1", "-c32", "-d1s", server.url]
    said = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=60, env=ENVIRONMENT
    ).stdout
    # It mentions these only when there are some.
    assert "Socket errors" not in said, said
    assert "Non-2xx" not in said, said
    assert server.count("requests") > 0
