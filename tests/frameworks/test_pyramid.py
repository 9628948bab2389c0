"""Pyramid: views, uploads, streams, files with conditions and ranges."""

import httpx
import pytest

pytest.importorskip("pyramid")

from pyramid_app import main


@pytest.fixture
def client(serve, tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789" * 10_000)
    server = serve(main(file=str(tmp_path / "file")), validate=False)
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        client.server = server
        yield client


def test_views(client):
    for _ in range(2):
        answer = client.get("/hello/caf%C3%A9", params={"q": "\xe9"}).json()
        assert (answer["name"], answer["query"]) == ("caf\xe9", {"q": "\xe9"})
        assert answer["url"].startswith(client.server.url)
    response = client.get("/moved")
    assert (response.status_code, response.headers["Location"]) == (302, f"{client.server.url}/hello/again")
    assert client.get("/nowhere").status_code == 404
    assert client.server.count("accepted") == 1


def test_upload(client):
    answer = client.post("/upload", files={"file": ("name.bin", b"x" * 1_000_000)}).json()
    assert answer == {"name": "name.bin", "size": 1_000_000}


def test_stream(client):
    assert client.get("/stream").content == b"".join(b"%d\n" % number for number in range(100))


def test_file(client):
    response = client.get("/file")
    assert response.content == b"0123456789" * 10_000
    since = {"If-Modified-Since": response.headers["Last-Modified"]}
    assert client.get("/file", headers=since).status_code == 304
    part = client.get("/file", headers={"Range": "bytes=5-14"})
    assert (part.status_code, part.content) == (206, b"5678901234")


def test_an_error_in_a_view(client):
    assert client.get("/fail").status_code == 500
    client.server.log.expect("ZeroDivisionError: in a view")
