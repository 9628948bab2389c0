"""make_server as users of wsgiref.simple_server know it, and the addresses it can listen at."""

import functools
import logging
import os
import socket
import threading
import urllib.request
from wsgiref.validate import validator

import pytest

import fastwsgi
from conftest import CREWS, GREENLETS, crew_id
from fastwsgi.worker import NOT_FOR_SERVERS
from support import Client, Gate, resources, target_of, text, wait_left_nothing, wait_until

linux_only = pytest.mark.skipif(not os.path.exists("/proc/self"), reason="Linux only")


@pytest.fixture(autouse=True)
def nothing_left():
    before = resources()
    yield
    wait_left_nothing(before)


@pytest.fixture(params=CREWS, ids=crew_id)
def make_server(request):
    """fastwsgi.make_server, for each poller and number of threads."""
    poller, threads = request.param
    return functools.partial(fastwsgi.make_server, poller=poller, threads=threads, gevent=GREENLETS)


def start(server):
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    return thread


def get(server, target="/"):
    with Client(server.server_address) as client:
        return client.ask(target, fields=[("Connection", "close")]).text


def test_as_wsgiref_users_write_it(make_server):
    with make_server("127.0.0.1", 0, validator(text())) as httpd:
        thread = start(httpd)
        with urllib.request.urlopen(f"http://127.0.0.1:{httpd.server_port}/") as response:
            assert response.read() == b"hello"
        httpd.shutdown()
        thread.join(5)
        assert not thread.is_alive()


def test_server_address_and_port():
    with fastwsgi.make_server("127.0.0.1", 0, text()) as server:
        assert server.server_address == ("127.0.0.1", server.server_port)
        assert server.server_port > 0


def test_clients_may_connect_before_it_serves(make_server):
    with make_server("127.0.0.1", 0, text()) as server:
        with Client(server.server_address) as client:
            client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            start(server)
            assert client.read_response().text == "hello"
        server.shutdown()


def test_leaving_the_context_stops_it(make_server):
    with make_server("127.0.0.1", 0, text()) as server:
        thread = start(server)
        assert get(server) == "hello"
    thread.join(5)
    assert not thread.is_alive()


def test_shutdown_waits_for_what_runs(make_server):
    gate = Gate()

    def application(environ, start_response):
        gate.hold()
        return text()(environ, start_response)

    with make_server("127.0.0.1", 0, application) as server:
        thread = start(server)
        with Client(server.server_address) as client:
            client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            gate.wait_entered()
            stopping = threading.Thread(target=server.shutdown)
            stopping.start()
            stopping.join(0.1)
            assert stopping.is_alive()
            gate.open()
            response = client.read_response()
            assert response.text == "hello"
            assert response.closes
            client.expect_end()
        stopping.join(5)
        thread.join(5)
        assert not thread.is_alive()


def test_shutdown_closes_idle_connections_soon(make_server):
    with make_server("127.0.0.1", 0, text()) as server:
        start(server)
        with Client(server.server_address) as client:
            assert client.ask().text == "hello"
            server.shutdown()
            client.expect_end()


def test_shutdown_twice_and_before_serving():
    server = fastwsgi.make_server("127.0.0.1", 0, text())
    server.shutdown()
    server.shutdown()
    server.server_close()
    server.server_close()


def test_never_served():
    fastwsgi.make_server("127.0.0.1", 0, text()).server_close()


def test_many_servers_one_after_the_other(make_server):
    for number in range(20):
        with make_server("127.0.0.1", 0, text(b"%d" % number)) as server:
            start(server)
            assert get(server) == str(number)


def test_the_port_is_free_again_afterwards(make_server):
    with make_server("127.0.0.1", 0, text()) as server:
        start(server)
        get(server)
        port = server.server_port
    with make_server("127.0.0.1", port, text(b"again")) as server:
        start(server)
        assert get(server) == "again"


def test_a_busy_port_is_a_config_error():
    with socket.create_server(("127.0.0.1", 0)) as other:
        with pytest.raises(fastwsgi.ConfigError, match="listen"):
            fastwsgi.make_server("127.0.0.1", other.getsockname()[1], text())


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 0},
        {"threads": "x"},
        {"unknown": 1},
        {"keep_alive": -1},
        {"poller": "kqueue"},
        {"response_buffer": "1x"},
    ],
    ids=repr,
)
def test_wrong_options_are_config_errors(options):
    with pytest.raises(fastwsgi.ConfigError, match=next(iter(options))):
        fastwsgi.make_server("127.0.0.1", 0, text(), **options)


def test_options_that_make_no_sense_for_it():
    for name in NOT_FOR_SERVERS:
        with pytest.raises(fastwsgi.ConfigError, match=f"^make_server does not take {name}: "):
            fastwsgi.make_server("127.0.0.1", 0, text(), **{name: None})


def test_options_as_the_command_line_takes_them(make_server):
    options = {"threads": "2", "keep_alive": "2m", "response_buffer": "64k"}
    with make_server("127.0.0.1", 0, text(), **options) as server:
        start(server)
        assert get(server) == "hello"


def test_access_log(make_server, tmp_path):
    file = tmp_path / "access.log"
    with make_server("127.0.0.1", 0, target_of, access_logfile=str(file)) as server:
        start(server)
        assert get(server, "/logged?a=b") == "/logged"
    assert '"GET /logged?a=b HTTP/1.1" 200 7 "-" "-"' in file.read_text()


# Unix sockets.


def test_a_message_for_which_there_is_no_memory_ends_nothing(make_server):
    class Full(logging.Handler):
        tried = 0

        def emit(self, record):
            self.tried += 1
            raise MemoryError

    handler = Full()
    logging.getLogger("fastwsgi").addHandler(handler)
    try:
        with make_server("127.0.0.1", 0, text()) as server:
            start(server)
            with Client(server.server_address) as client:
                client.send("not HTTP\r\n\r\n")
                assert client.read_response().status == 400
            wait_until(lambda: handler.tried, "the message")
            assert get(server) == "hello"
    finally:
        logging.getLogger("fastwsgi").removeHandler(handler)


def test_unix_socket(make_server, short_path):
    path = short_path / "socket"
    with make_server(f"unix:{path}", 0, text()) as server:
        start(server)
        assert os.fspath(server.server_address) == str(path)
        assert get(server) == "hello"
    assert not path.exists()


def test_a_stale_socket_file_is_replaced(make_server, short_path):
    path = short_path / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    assert path.exists()
    with make_server(f"unix:{path}", 0, text()) as server:
        start(server)
        assert get(server) == "hello"


def test_a_live_socket_is_left_alone(make_server, short_path):
    path = short_path / "socket"
    with make_server(f"unix:{path}", 0, text()) as server:
        start(server)
        with pytest.raises(fastwsgi.ConfigError, match="listen"):
            make_server(f"unix:{path}", 0, text())
        assert get(server) == "hello"


def test_a_file_that_is_no_socket_is_left_alone(short_path):
    path = short_path / "precious"
    path.write_text("data")
    with pytest.raises(fastwsgi.ConfigError, match="socket"):
        fastwsgi.make_server(f"unix:{path}", 0, text())
    assert path.read_text() == "data"


@linux_only
def test_abstract_socket(make_server):
    name = f"fastwsgi-test-{os.getpid()}"
    with make_server(f"unix:@{name}", 0, text()) as server:
        start(server)
        with Client(f"\0{name}") as client:
            assert client.ask().text == "hello"


def test_ipv6(make_server):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with make_server("::1", 0, text()) as server:
        start(server)
        assert get(server) == "hello"


def test_every_address(make_server):
    with make_server("", 0, text()) as server:
        start(server)
        with Client(("127.0.0.1", server.server_port)) as client:
            assert client.ask().text == "hello"
