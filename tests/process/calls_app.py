"""An application whose ways to answer differ in the system calls that the server needs."""

import os
import time

TEXT = [("Content-Type", "text/plain")]
HERE = os.environ.get("TEST_DIRECTORY", ".")


def application(environ, start_response):
    start_response("200 OK", TEXT)
    return {"/": hello, "/file": file, "/blocks": blocks, "/slow": slow}[environ["PATH_INFO"]](environ)


def hello(environ):
    return [b"hello"]


def file(environ):
    return environ["wsgi.file_wrapper"](open(os.path.join(HERE, "file"), "rb"))


def blocks(environ):
    for _ in range(10):
        yield b"b" * 1024


def slow(environ):
    yield b"first"
    time.sleep(0.1)
    yield b"second"
