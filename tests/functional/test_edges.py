"""Between two parts: the end of an exchange, the end of a connection, files that are not what they say."""

import gc
import os
import threading
import time
import weakref

import pytest

import fastwsgi
from conftest import of_threads
from support import PATIENCE, TEXT, Client, Incomplete, request, text, wait_until


def test_write_by_another_thread_that_outlives_the_exchange(serve):
    """It waits for a client when the exchange ends: it gets an error, and the next exchange nothing of it."""
    errors, threads = [], []

    def application(environ, start_response):
        write = start_response("200 OK", [TEXT])
        if environ["PATH_INFO"] == "/next":
            return [b"x" * 1_000_000] * 3

        def write_on():
            try:
                while True:
                    write(b"x" * 300_000)
            except Exception as error:
                errors.append(error)

        threads.append(threading.Thread(target=write_on))
        threads[0].start()
        full.wait(PATIENCE)
        return []

    full = threading.Event()
    server = serve(application, validate=False, response_buffer=65536, response_spool=0)
    client = server.connect(receive_buffer=4096)
    client.send(request("/"))
    client.socket.recv(1000)
    time.sleep(0.1)
    full.set()
    # The exchange ends while the thread waits for the client.
    client.reset()
    threads[0].join(PATIENCE)
    assert not threads[0].is_alive()
    assert isinstance(errors[0], (RuntimeError, ConnectionError))
    for _ in range(2 * server.threads):
        assert len(server.ask("/next").content) == 3_000_000


def test_write_after_the_content_has_ended(serve):
    errors = []

    class Blocks:
        def __init__(self, write):
            self.write = write
            self.blocks = iter([b"one", b"two"])

        def __iter__(self):
            return self.blocks

        def close(self):
            try:
                self.write(b"late")
            except RuntimeError as error:
                errors.append(error)

    server = serve(lambda environ, start_response: Blocks(start_response("200 OK", [TEXT])), validate=False)
    with server.connect() as client:
        client.send(request("/") * 2)
        assert [client.read_response().text for _ in range(2)] == ["onetwo", "onetwo"]
        assert not client.readable(0.05)
    wait_until(lambda: len(errors) == 2, "two errors")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_octets_behind_the_last_request_do_not_cut_the_answer(serve, version):
    """Some clients send CRLF behind the content (RFC 9112, 2.2); a close with octets unread is a reset."""
    size = 1_000_000
    received = threading.Event()

    def application(environ, start_response):
        start_response("200 OK", [TEXT, ("Content-Length", str(size))])
        received.wait(PATIENCE)
        return [b"x" * size]

    server = serve(application)
    with server.connect(receive_buffer=4096) as client:
        client.send(request("/", "POST", [("Connection", "close")], b"content", version))
        time.sleep(0.05)
        client.send(b"\r\n")
        received.set()
        assert len(client.read_response().content) == size
        client.expect_end()


@pytest.mark.parametrize("value", ["close, foo", " close", "foo,CLOSE", "close\t"])
def test_the_application_closes_by_a_list_of_options(serve, value):
    server = serve(text(fields=[("Connection", value)]), validate=False)
    with server.connect() as client:
        assert client.ask().closes
        client.expect_end()


@pytest.mark.parametrize("value", ["closed", "not-close", "foo", "clo se"])
def test_other_options_close_nothing(serve, value):
    server = serve(text(fields=[("Connection", value)]), validate=False)
    with server.connect() as client:
        assert not client.ask().closes
        assert not client.ask().closes


def test_close_that_raises_leaves_a_complete_answer_complete(serve):
    class Blocks:
        def __iter__(self):
            return iter([b"x" * 100_000] * 20)

        def close(self):
            raise LookupError("in close")

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return Blocks()

    server = serve(application, validate=False)
    server.log.allow("the application failed")
    with server.connect(receive_buffer=4096) as client:
        assert len(client.ask(version="1.0").content) == 2_000_000


@of_threads
def test_an_application_that_keeps_start_response_is_freed():
    class Application:
        def __call__(self, environ, start_response):
            self.kept = start_response
            self.write = start_response("200 OK", [TEXT])
            return [b"hello"]

    application = Application()
    gone = weakref.ref(application)
    with fastwsgi.make_server("127.0.0.1", 0, application) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Client(server.server_address) as client:
            assert client.ask().text == "hello"
    thread.join()
    server = thread = application = None
    wait_until(lambda: gc.collect() * 0 or gone() is None, "the application being freed")


@pytest.mark.skipif(not os.path.exists("/sys/kernel/mm/transparent_hugepage/enabled"), reason="needs /sys")
def test_a_file_that_is_shorter_than_it_says(serve):
    path = "/sys/kernel/mm/transparent_hugepage/enabled"

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return environ["wsgi.file_wrapper"](open(path, "rb"))

    with open(path, "rb") as file:
        assert serve(application, validate=False).ask().content == file.read()


def test_a_file_that_becomes_shorter_while_it_is_sent(serve, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 30_000_000)

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return environ["wsgi.file_wrapper"](open(path, "rb"))

    server = serve(application, validate=False)
    with server.connect(receive_buffer=4096) as client:
        client.send(request("/"))
        client.socket.recv(1000)
        server.wait_count("exchanges", 0)
        os.truncate(path, 1000)
        with pytest.raises((ConnectionError, Incomplete)):
            while client.socket.recv(1_000_000):
                pass
            raise Incomplete("early")
    server.log.expect("a file became shorter while it was sent")


def test_reset_content_has_no_content(serve):
    server = serve(text(status="205 Reset Content", fields=[("Content-Length", "5")]), validate=False)
    with server.connect() as client:
        for _ in range(2):
            response = client.ask()
            assert (response.status, response["Content-Length"], response.content) == (205, "0", b"")


def test_clients_that_read_all_the_time_never_stall(serve):
    """A producer waits, and the leader finds its slot busy just then: one of them sees to the rest."""
    size, blocks = 300_000, 150

    def application(environ, start_response):
        start_response("200 OK", [TEXT, ("Content-Length", str(size * blocks))])
        for _ in range(blocks):
            yield b"x" * size

    server = serve(application, validate=False, response_buffer=65536, response_spool=0)
    counts = []

    def read():
        with server.connect(receive_buffer=65536) as client:
            client.send(request("/"))
            client.read_head()
            counts.append(len(client.take(size * blocks)))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(6 * PATIENCE)
    assert counts == [size * blocks] * 4
