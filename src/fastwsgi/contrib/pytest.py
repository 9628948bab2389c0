"""Fixtures for tests with a server that is there: loaded by pytest wherever fastwsgi is installed.

    def test_it(fastwsgi_server):
        server = fastwsgi_server(app, threads=1)
        assert httpx.get(server.url + "/").status_code == 200

Nothing else of fastwsgi is imported before a test asks for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from fastwsgi.worker import Server

HOST = "127.0.0.1"

NO_APPLICATION = (
    "fastwsgi_live_server serves what the fixture `fastwsgi_app` returns: write one, or a fixture `app`; "
    "with pytest-django it is the project of the settings"
)


class LiveServer:
    """A server in a thread of the tests' process; `url` is where it is, without a slash at the end."""

    def __init__(self, app: WSGIApplication | str, **options: Any) -> None:
        import threading

        from fastwsgi.loader import load
        from fastwsgi.worker import make_server

        self.app = load(app) if isinstance(app, str) else app
        host = options.pop("host", HOST)
        port = options.pop("port", 0)
        self._server: Server = make_server(host, port, self.app, **options)
        self.host, self.port = host, self._server.server_port
        has_tls = self._server.settings.has_tls
        self.url = f"{'https' if has_tls else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="fastwsgi", daemon=True)
        self._thread.start()

    def __str__(self) -> str:
        return self.url

    def __add__(self, path: str) -> str:
        return self.url + path

    def counters(self) -> dict[str, int]:
        """What the server has counted: `requests`, `connections`, `exchanges` and more."""
        return self._server.counters()

    def stop(self, grace: float = 5.0) -> None:
        """Finish what runs, for at most `grace` seconds, and end; again does nothing."""
        if self._thread.is_alive():
            self._server.shutdown(grace)
            self._thread.join()
        self._server.server_close()


@pytest.fixture
def fastwsgi_server() -> Iterator[Callable[..., LiveServer]]:
    """fastwsgi_server(app, **options): serve an application, or "module:name", until the end of the test.

    The options are those of `fastwsgi.make_server`; host and port are 127.0.0.1 and a free one.
    """
    servers: list[LiveServer] = []

    def start(app: WSGIApplication | str, **options: Any) -> LiveServer:
        servers.append(LiveServer(app, **options))
        return servers[-1]

    yield start
    for server in reversed(servers):
        server.stop()


@pytest.fixture
def fastwsgi_app(request: pytest.FixtureRequest) -> Any:
    """What fastwsgi_live_server serves: for tests to write their own.

    With pytest-django it is the project of the settings, with its static files; else what a fixture `app` is.
    """
    if has_django():
        from django.contrib.staticfiles.handlers import StaticFilesHandler
        from django.core.wsgi import get_wsgi_application

        return StaticFilesHandler(get_wsgi_application())
    try:
        return request.getfixturevalue("app")
    except pytest.FixtureLookupError:
        raise pytest.UsageError(NO_APPLICATION) from None


@pytest.fixture
def fastwsgi_live_server(
    request: pytest.FixtureRequest, fastwsgi_server: Callable[..., LiveServer]
) -> Iterator[LiveServer]:
    """`fastwsgi_app`, served until the end of the test; with Django, over the database of the test.

    As pytest-django's live_server does, it has the test use `transactional_db`.
    """
    if not has_django():
        yield fastwsgi_server(request.getfixturevalue("fastwsgi_app"))
        return
    request.getfixturevalue("transactional_db")
    from django.test import modify_settings

    from fastwsgi import mounts

    app = request.getfixturevalue("fastwsgi_app")
    shared = in_memory_connections()
    # Django's handler has all files; what the server would serve by itself may be collected or not.
    announced = dict(mounts.announced)
    mounts.announced.clear()
    with modify_settings(ALLOWED_HOSTS={"append": HOST}):
        try:
            # A database in memory is its connection, with which one thread at a time can do something.
            server = fastwsgi_server(sharing(shared, app), threads=1) if shared else fastwsgi_server(app)
            yield server
            server.stop()
        finally:
            mounts.announced.update(announced)
            for connection in shared.values():
                connection.dec_thread_sharing()


def has_django() -> bool:
    """pytest-django, or somebody else, has set Django up; it is not imported to find out."""
    conf = sys.modules.get("django.conf")
    return conf is not None and conf.settings.configured


def in_memory_connections() -> dict[str, Any]:
    """Connections of this thread to databases that are nowhere else, from now on for other threads, too."""
    from django.db import connections

    shared = {
        connection.alias: connection
        for connection in connections.all()
        if connection.vendor == "sqlite" and connection.is_in_memory_db()
    }
    for connection in shared.values():
        connection.inc_thread_sharing()
    return shared


def sharing(shared: dict[str, Any], app: WSGIApplication) -> WSGIApplication:
    """The application, with these connections in the thread that calls it."""
    from django.db import connections

    def application(environ: Any, start_response: Any) -> Any:
        for alias, connection in shared.items():
            connections[alias] = connection
        return app(environ, start_response)

    return application
