"""Applications for tests/process/test_gevent.py, whose processes gevent patches before it imports them."""

import _socket
import contextlib
import os
import socket
import threading
import time
from typing import ClassVar

from gevent import getcurrent, monkey
from gevent.socket import wait_read

PATCHED_AT_IMPORT = monkey.is_module_patched("socket")
TEXT = [("Content-Type", "text/plain")]


def answer(start_response, content):
    start_response("200 OK", TEXT)
    return [str(content).encode()]


def hello(environ, start_response):
    return answer(start_response, f"hello {PATCHED_AT_IMPORT}")


def sleeping(environ, start_response):
    time.sleep(0.1)
    return answer(start_response, "slept")


def who(environ, start_response):
    """Which greenlet, and whether thread-locals are its own."""
    seen = getattr(LOCAL, "seen", None)
    LOCAL.seen = id(getcurrent())
    time.sleep(0.05)
    is_own = LOCAL.seen == id(getcurrent()) and seen in (None, LOCAL.seen)
    return answer(start_response, f"{is_own} {threading.current_thread().name} {environ['wsgi.multithread']}")


class Driver:
    """As one in C: its socket is not known to gevent; it waits by the function that it was given.

    The answers to so many queries come together, so that each of them has to wait for all.
    """

    asked: ClassVar = []

    def __init__(self, wait):
        self.wait = wait
        self.ours, self.server = _socket.socketpair()
        self.ours.setblocking(False)

    def poll(self):
        try:
            self.row = self.ours.recv(100)
        except BlockingIOError:
            return "read"
        return "ok"

    def query(self, row, together):
        self.asked.append((self.server, row))
        if len(self.asked) == together:
            for server, content in self.asked:
                server.send(content)
        self.wait(self)
        return self.row

    def close(self):
        self.ours.close()
        self.server.close()


def wait_in_the_hub(driver):
    """What psycogreen gives to psycopg2."""
    while driver.poll() == "read":
        wait_read(driver.ours.fileno())


def through_a_driver(environ, start_response):
    with contextlib.closing(Driver(wait_in_the_hub)) as driver:
        row = driver.query(environ["PATH_INFO"].encode(), int(environ["QUERY_STRING"]))
        return answer(start_response, row.decode())


def calling_itself(environ, start_response):
    """A request within a request, to the same worker."""
    if environ["PATH_INFO"] == "/inner":
        return answer(start_response, "inner")
    with socket.create_connection((environ["SERVER_NAME"], int(environ["SERVER_PORT"]))) as client:
        client.sendall(b"GET /inner HTTP/1.0\r\n\r\n")
        received = b"".join(iter(lambda: client.recv(4096), b""))
    return answer(start_response, received.rpartition(b"\r\n\r\n")[2].decode())


def computing(environ, start_response):
    """Lets nobody else run."""
    if environ["PATH_INFO"] == "/":
        while True:
            pass
    return answer(start_response, "here")


def streaming(environ, start_response):
    """More than buffers take, while others are served."""
    start_response("200 OK", TEXT)
    for _ in range(40):
        yield b"x" * 500_000


def forking(environ, start_response):
    pid = os.fork()
    if not pid:
        return answer(start_response, "child")
    return answer(start_response, os.waitpid(pid, 0)[1])


def flask_app():
    from flask import Flask, g, request

    app = Flask(__name__)

    @app.get("/<name>")
    def view(name):
        g.name = name
        time.sleep(0.05)
        return f"{g.name} {request.args['number']}"

    return app


def django_app():
    import django
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.db import connection
    from django.http import HttpResponse
    from django.urls import path

    def view(request, name):
        time.sleep(0.05)
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s", [name])
            row = cursor.fetchone()
        return HttpResponse(f"{row[0]} {request.GET['number']}")

    settings.configure(
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="for tests",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "here.sqlite"}},
    )
    globals()["urlpatterns"] = [path("<name>", view)]
    django.setup()
    return WSGIHandler()


LOCAL = threading.local()
