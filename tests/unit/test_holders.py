"""Who listens at an address."""

import os
import socket
import sys

import pytest

from fastwsgi.holders import describe, of_port, of_unix

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="no /proc here")


def test_ports():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        [found] = of_port(port)
        assert found == describe(os.getpid())
        assert found.startswith(f"process {os.getpid()}: ")
        # What connects to it does not listen.
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert of_port(client.getsockname()[1]) == []
    assert of_port(port) == []


def test_a_process_and_its_children_are_one(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.read(reader, 1)
            os._exit(0)
        try:
            assert len(of_port(server.getsockname()[1])) == 1
        finally:
            os.write(writer, b"x")
            os.waitpid(child, 0)
            os.close(reader)
            os.close(writer)


def test_unix_sockets(short_path):
    path = str(short_path / "x.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        assert of_unix(path) == []
        server.listen()
        assert of_unix(path) == [describe(os.getpid())]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            assert len(of_unix(path)) == 1


def test_descriptions():
    assert describe(2**22 + 1) == f"process {2**22 + 1}"
    assert os.path.basename(sys.executable)[:6] in describe(os.getpid())
