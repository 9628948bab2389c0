"""Flask: forms, uploads, streams, sessions, files with ranges and conditions."""

import json

import httpx
import pytest
from flask_app import DOWNLOAD, app
from werkzeug.middleware.proxy_fix import ProxyFix


@pytest.fixture
def client(serve, tmp_path):
    file = tmp_path / "download"
    file.write_bytes(DOWNLOAD)
    app.config["FILE"] = str(file)
    # wsgiref.validate would hide the file wrapper, and Werkzeug's answers to HEAD break its rules.
    server = serve(app, validate=False)
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        client.server = server
        yield client


def test_index(client):
    for _ in range(3):
        response = client.get("/")
        assert response.text == "hello from Flask"
        assert response.headers["Content-Length"] == "16"
    assert client.server.count("accepted") == 1


def test_paths_and_queries(client):
    answer = client.get("/path/caf%C3%A9/a%20b", params={"q": "\xe9 &"}).json()
    assert answer["name"] == "caf\xe9/a b"
    assert answer["args"] == {"q": "\xe9 &"}
    assert answer["ip"] == "127.0.0.1"
    assert answer["host"] == f"127.0.0.1:{client.server.port}"


def test_form(client):
    assert client.post("/form", data={"a": "1", "b": "\xe9"}).json() == {"a": "1", "b": "\xe9"}


def test_json(client):
    assert client.post("/json", json={"a": [1, 2]}).json() == {"got": {"a": [1, 2]}}


@pytest.mark.parametrize("size", [10, 2_000_000])
def test_upload(client, size):
    files = {"file": ("name.bin", b"x" * size)}
    answer = client.post("/upload", files=files, data={"title": "a title"}).json()
    assert answer == {"name": "name.bin", "size": size, "title": "a title"}


def test_chunked_upload(client):
    answer = client.post("/raw", content=iter([b"x" * 50_000] * 20)).json()
    assert answer == {"size": 1_000_000, "length": 1_000_000}


def test_stream(client):
    with client.stream("GET", "/stream") as response:
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert list(response.iter_lines()) == [f"{number} /stream" for number in range(100)]


def test_session(client):
    assert client.get("/me").status_code == 401
    response = client.post("/login", data={"user": "ada"})
    assert response.status_code == 302
    assert client.get(response.headers["Location"]).text == "ada"


def test_nothing_of_a_request_is_left_for_the_next(client):
    # The context of a thread lives on, but Flask pushes and pops what is in it.
    for _ in range(10):
        assert client.get("/mark").json() is False


def test_cookies(client):
    assert client.get("/cookies").json() == {}
    assert client.get("/cookies").json() == {"one": "1", "two": "2"}


def test_file(client):
    for _ in range(2):
        response = client.get("/download")
        assert response.content == DOWNLOAD
        assert response.headers["Content-Length"] == str(len(DOWNLOAD))
    response = client.head("/download")
    assert response.headers["Content-Length"] == str(len(DOWNLOAD))


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("0-99", 0, 99),
        ("1000-", 1000, 255_999),
        ("-500", 255_500, 255_999),
        ("255999-300000", 255_999, 255_999),
    ],
)
def test_ranges(client, wanted, first, last):
    for _ in range(2):
        response = client.get("/download", headers={"Range": f"bytes={wanted}"})
        assert response.status_code == 206
        assert response.headers["Content-Range"] == f"bytes {first}-{last}/256000"
        assert response.content == DOWNLOAD[first : last + 1]


def test_conditional(client):
    response = client.get("/download")
    for _ in range(2):
        again = client.get("/download", headers={"If-None-Match": response.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
    again = client.get("/download", headers={"If-Modified-Since": response.headers["Last-Modified"]})
    assert again.status_code == 304


def test_file_from_memory(client):
    assert client.get("/memory").content == DOWNLOAD


def test_no_content(client):
    for _ in range(2):
        response = client.get("/empty")
        assert (response.status_code, response.content) == (204, b"")


def test_methods(client):
    assert client.options("/").headers["Allow"]
    assert client.post("/").status_code == 405
    assert client.head("/").headers["Content-Length"] == "16"
    assert client.get("/nowhere").status_code == 404


def test_an_error_in_a_view_is_answered_by_flask(client):
    for _ in range(2):
        assert client.get("/fail").status_code == 500


def test_an_error_while_streaming_cuts_the_answer(client):
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/fail/while/streaming")
    client.server.log.expect("ZeroDivisionError: in a stream")
    assert client.get("/").status_code == 200


FORWARDED = {
    "X-Forwarded-For": "198.51.100.9, 192.0.2.1",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "shop.example",
}


@pytest.mark.parametrize("application", [app, ProxyFix(app, x_host=1)], ids=["alone", "ProxyFix"])
def test_behind_a_proxy(serve, application):
    # An application that sees to it itself comes to the same result.
    server = serve(application, validate=False)
    answer = httpx.get(f"{server.url}/path/x", headers=FORWARDED, trust_env=False).json()
    assert answer["ip"] == "192.0.2.1"
    assert answer["host"] == "shop.example"
    assert answer["url"] == "https://shop.example/path/x"


@pytest.mark.parametrize("application", [app, ProxyFix(app, x_host=1)], ids=["alone", "ProxyFix"])
def test_behind_nothing(serve, application):
    server = serve(application, validate=False, forwarded_allow_ips="192.0.2.0/24")
    answer = httpx.get(f"{server.url}/path/x", headers=FORWARDED, trust_env=False).json()
    assert answer["ip"] == "127.0.0.1"
    assert answer["url"] == f"{server.url}/path/x"
    server.log.expect("not in --forwarded-allow-ips")


def test_under_a_prefix(serve):
    server = serve(app, validate=False)
    with server.connect() as client:
        answer = client.ask("/shop/path/x", fields=[("SCRIPT_NAME", "/shop")])
    assert json.loads(answer.content)["url"] == "http://test.example/shop/path/x"


def test_compressed(serve):
    pytest.importorskip("brotli")
    server = serve(app, validate=False, compress="br,gzip", compress_min_length=1)
    with httpx.Client(base_url=server.url, trust_env=False, headers={"Accept-Encoding": "gzip"}) as client:
        page = client.get("/path/" + "x" * 99)
        assert page.json()["name"] == "x" * 99
        stream = client.get("/stream")
        assert stream.text == "".join(f"{number} /stream\n" for number in range(100))
        assert page.headers["Content-Encoding"] == stream.headers["Content-Encoding"] == "gzip"
        assert int(page.headers["Content-Length"]) < 200
        assert "Content-Encoding" not in client.get("/memory").headers
