"""Falcon: media, streams, files."""

import httpx
import pytest
from falcon_app import File, app


@pytest.fixture
def client(serve):
    server = serve(app, validate=False)
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        client.server = server
        yield client


def test_media(client):
    for _ in range(3):
        answer = client.get("/things", params={"q": "\xe9"}).json()
        assert (answer["query"], answer["path"]) == ({"q": "\xe9"}, "/things")
        response = client.post("/things", json={"a": [1]})
        assert (response.status_code, response.json()) == (201, {"got": {"a": [1]}})
    assert client.server.count("accepted") == 1


def test_raw(client):
    assert client.put("/raw", content=b"x" * 1_000_000).json() == {"size": 1_000_000}
    assert client.put("/raw", content=iter([b"x" * 1000] * 10)).json() == {"size": 10_000}


def test_stream(client):
    for _ in range(2):
        assert client.get("/stream").content == b"".join(b"%d\n" % number for number in range(100))


def test_file(client, tmp_path):
    File.path = tmp_path / "file"
    File.path.write_bytes(b"0123456789" * 10_000)
    for _ in range(2):
        response = client.get("/file")
        assert response.content == b"0123456789" * 10_000
        assert response.headers["Content-Length"] == "100000"


def test_errors(client):
    assert client.get("/fail").status_code == 422
    assert client.get("/nowhere").status_code == 404
    assert client.head("/things").status_code == 405
