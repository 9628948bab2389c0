"""Django: admin, ORM, static files in debug, streams, uploads, file responses."""

import re
import shutil

import django_app
import httpx
import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connections
from django.test import override_settings


@pytest.fixture(scope="module", autouse=True)
def database():
    call_command("migrate", verbosity=0)
    User.objects.create_superuser("ada", password="lovelace")
    connections.close_all()
    yield
    shutil.rmtree(django_app.DIRECTORY)


@pytest.fixture
def client(serve):
    server = serve(django_app.application, validate=False)
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        client.server = server
        yield client


def test_index(client):
    for _ in range(3):
        assert client.get("/").text == "hello from Django"
    assert client.server.count("accepted") == 1


def test_paths_and_queries(client):
    answer = client.get("/about/caf%C3%A9/a%20b", params={"q": "\xe9 &"}).json()
    assert answer["name"] == "caf\xe9/a b"
    assert answer["query"] == {"q": "\xe9 &"}
    assert answer["url"].startswith(client.server.url)


def test_orm(client):
    name = f"group of {client.server.port}"
    assert name in client.post("/groups", data={"name": name}).json()["names"]
    for _ in range(10):
        assert name in client.get("/groups").json()["names"]


def test_admin_login(client):
    page = client.get("/admin/", follow_redirects=True)
    token = re.search('name="csrfmiddlewaretoken" value="([^"]+)"', page.text)[1]
    form = {"username": "ada", "password": "lovelace", "csrfmiddlewaretoken": token, "next": "/admin/"}
    page = client.post("/admin/login/", data=form, headers={"Referer": f"{client.server.url}/admin/"})
    assert page.status_code == 302
    page = client.get("/admin/")
    assert page.status_code == 200
    assert "Site administration" in page.text
    assert client.get("/admin/auth/user/").status_code == 200


def test_static_files_in_debug(client):
    response = client.get("/static/admin/css/base.css")
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/css")
    assert len(response.content) == int(response.headers["Content-Length"])
    condition = {"If-Modified-Since": response.headers["Last-Modified"]}
    assert client.get("/static/admin/css/base.css", headers=condition).status_code == 304
    assert client.get("/static/nothing").status_code == 404


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_upload(client, size):
    files = {"file": ("name.bin", b"x" * size)}
    answer = client.post("/upload", files=files, data={"title": "a title"}).json()
    assert answer == {"name": "name.bin", "size": size, "title": "a title"}


def test_chunked_upload(client):
    assert client.post("/raw", content=iter([b"x" * 10_000] * 20)).json() == {"size": 200_000}


def test_stream(client):
    with client.stream("GET", "/stream") as response:
        assert "Content-Length" not in response.headers
        assert response.read() == b"".join(b"%d\n" % number for number in range(100))


def test_file_response(client):
    for _ in range(3):
        response = client.get("/download")
        assert response.content == django_app.DOWNLOAD
        assert response.headers["Content-Length"] == str(len(django_app.DOWNLOAD))
    assert client.head("/download").headers["Content-Length"] == str(len(django_app.DOWNLOAD))


def test_errors_are_answered_by_django(client):
    assert client.get("/fail").status_code == 500
    assert client.get("/nowhere").status_code == 404
    assert client.get("/").status_code == 200


def test_csrf_is_refused(client):
    assert client.post("/about/x", data={"a": "b"}).status_code == 403


@pytest.mark.parametrize("header", [None, ("HTTP_X_FORWARDED_PROTO", "https")], ids=["server", "django"])
@pytest.mark.parametrize("is_trusted", [True, False], ids=["trusted", "untrusted"])
def test_behind_a_proxy(serve, is_trusted, header):
    # SECURE_PROXY_SSL_HEADER is safe even where clients come directly: the server has removed the field.
    allowed = "127.0.0.1" if is_trusted else "192.0.2.0/24"
    server = serve(django_app.application, validate=False, forwarded_allow_ips=allowed)
    server.log.allow("not in --forwarded-allow-ips")
    fields = {
        "X-Forwarded-For": "192.0.2.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "shop.example",
    }
    with override_settings(SECURE_PROXY_SSL_HEADER=header):
        answer = httpx.get(f"{server.url}/about/x", headers=fields, trust_env=False).json()
    assert answer["secure"] == is_trusted
    assert answer["ip"] == ("192.0.2.1" if is_trusted else "127.0.0.1")
    assert answer["url"] == ("https://shop.example/about/x" if is_trusted else f"{server.url}/about/x")


def test_compressed(serve):
    server = serve(django_app.application, validate=False, compress="gzip")
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        page = client.get("/admin/", follow_redirects=True)
        assert "csrfmiddlewaretoken" in page.text
        assert page.headers["Content-Encoding"] == "gzip"
        assert page.headers["Vary"] == "Cookie, Accept-Encoding"
        style = client.get("/static/admin/css/base.css")  # a FileResponse
        assert style.headers["Content-Encoding"] == "gzip"
        assert style.text.startswith("/*")
        again = client.get("/admin/login/", headers={"Sec-Fetch-Site": "cross-site"})
        assert "Content-Encoding" not in again.headers
