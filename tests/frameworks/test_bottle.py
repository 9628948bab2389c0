"""Bottle: routes, forms, uploads, streams, static files."""

import httpx
import pytest
from bottle_app import app


@pytest.fixture
def client(serve, tmp_path):
    (tmp_path / "download").write_bytes(b"0123456789" * 10_000)
    app.config["directory"] = str(tmp_path)
    server = serve(app, validate=False)
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        client.server = server
        yield client


def test_hello(client):
    for _ in range(3):
        assert client.get("/hello/caf%C3%A9").text == "hello caf\xe9"
    assert client.server.count("accepted") == 1


def test_form_and_upload(client):
    assert client.post("/form", data={"a": "b"}).json() == {"a": "b"}
    files = {"file": ("name", b"x" * 500_000)}
    assert client.post("/upload", files=files).json() == {"name": "name", "size": 500_000}


def test_stream(client):
    for _ in range(2):
        assert client.get("/stream").content == b"".join(b"%d\n" % number for number in range(100))


def test_static_file(client):
    response = client.get("/file")
    assert response.content == b"0123456789" * 10_000
    part = client.get("/file", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, b"0123456789")
    assert client.head("/file").headers["Content-Length"] == "100000"
    condition = {"If-Modified-Since": response.headers["Last-Modified"]}
    assert client.get("/file", headers=condition).status_code == 304


def test_empty_and_errors(client):
    assert client.get("/empty").status_code == 204
    assert client.get("/nowhere").status_code == 404
    assert client.post("/hello/x").status_code == 405
