"""--health and --ready: answered by the loop, without a thread and without the application."""

import pytest

from conftest import one_loop, with_threads
from support import Gate, answering, request, target_of, wait_until

TEXT = "text/plain; charset=utf-8"


@pytest.fixture
def server(serve):
    return serve(target_of, health="/healthz", ready="/readyz")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/healthz?verbose=1", "http://test.example/healthz"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_probe_is_answered(server, path, method):
    with server.connect() as client:
        for _ in range(2):
            response = client.ask(path, method)
            assert response.status == 200
            assert response.content == (b"ok\n" if method == "GET" else b"")
            assert response["Content-Length"] == "3"
            assert response["Content-Type"] == TEXT
            assert response["Cache-Control"] == "no-store"
            assert not response.closes
    assert server.count("requests") == 0


@pytest.mark.parametrize("path", ["/healthz/", "/health", "/Healthz", "/x/healthz", "/health%7A", "/"])
def test_other_paths_are_the_applications(server, path):
    assert server.ask(path).text == path.replace("%7A", "z")
    assert server.count("requests") == 1


def test_without_the_options_all_paths_are_the_applications(serve):
    server = serve(target_of)
    assert server.ask("/healthz").text == "/healthz"


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS", "TOAST"])
def test_other_methods_are_not_allowed(server, method):
    with server.connect() as client:
        content = b"x" * 1000 if method == "POST" else None
        client.send(request("/healthz", method, content=content))
        response = client.read_response()
        assert response.status == 405
        assert response["Allow"] == "GET, HEAD"
        assert not response.closes
        assert client.ask("/after").text == "/after"


@pytest.mark.parametrize("size", [300, 300_000])
def test_content_is_received_and_dropped(server, size):
    with server.connect() as client:
        client.send(request("/healthz", content=b"x" * size))
        assert client.read_response().status == 200
        assert client.ask("/after").text == "/after"


def test_in_a_pipeline(server):
    paths = ["/one", "/healthz", "/readyz", "/two", "/three", "/healthz", "/four", *["/healthz"] * 40, "/end"]
    with server.connect() as client:
        client.send(b"".join(map(request, paths)))
        for path in paths:
            assert client.read_response().text == ("ok\n" if path.endswith("z") else path)


def test_connections_end_as_they_would(serve):
    server = serve(target_of, health="/healthz", keep_alive_requests=2)
    with server.connect() as client:
        response = client.ask("/healthz", version="1.0")
        assert response.closes
        client.expect_end()
    with server.connect() as client:
        assert client.ask("/healthz", fields=[("Connection", "close")]).closes
        client.expect_end()
    with server.connect() as client:
        assert not client.ask("/healthz").closes
        assert client.ask("/healthz").closes
        client.expect_end()


@one_loop
@with_threads(1)
def test_while_every_thread_is_busy(serve):
    gate = Gate()

    @answering
    def application(environ):
        gate.hold()
        return "done"

    server = serve(application, health="/healthz", ready="/readyz")
    with server.connect() as busy, server.connect() as waits:
        busy.send(request("/"))
        gate.wait_entered()
        waits.send(request("/"))
        wait_until(lambda: server.count("queued") == 1, "the second request waits")
        assert server.ask("/healthz").text == "ok\n"
        assert server.ask("/readyz").text == "ok\n"
        gate.open()
        assert busy.read_response().text == waits.read_response().text == "done"


def test_not_ready_while_draining(serve):
    gate = Gate()

    @answering
    def application(environ):
        gate.hold()
        return "done"

    server = serve(application, health="/healthz", ready="/readyz")
    with server.connect() as busy, server.connect() as healthy, server.connect() as ready:
        busy.send(request("/"))
        gate.wait_entered()
        assert ready.ask("/readyz").status == 200
        healthy.ask("/healthz")
        server.server._worker.stop(5)
        response = ready.ask("/readyz")
        assert response.status == 503
        assert response.text == "stopping\n"
        assert response["Cache-Control"] == "no-store"
        assert response.closes
        response = healthy.ask("/healthz")
        assert response.status == 200
        assert response.closes
        gate.open()
        assert busy.read_response().text == "done"


def test_in_the_access_log(serve, tmp_path):
    log = tmp_path / "access.log"
    server = serve(
        target_of, health="/healthz", access_logfile=str(log), access_logformat="%(r)s %(s)s %(b)s"
    )
    server.ask("/healthz")
    server.ask("/healthz", "HEAD")
    wait_until(lambda: log.read_text().count("\n") == 2, "two lines")
    assert log.read_text().splitlines() == ["GET /healthz HTTP/1.1 200 3", "HEAD /healthz HTTP/1.1 200 -"]
