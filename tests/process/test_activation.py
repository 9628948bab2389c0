"""Sockets that whoever starts the server has opened."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from subprocesses import PYTHONPATH, Process
from support import Client, wait_until

ACTIVATE = str(Path(__file__).with_name("activate.py"))


@pytest.fixture
def start_activated(tmp_path):
    """start_activated([ADDRESS, ...], *arguments): the server, handed sockets at these addresses."""
    processes = []

    def start(addresses, *arguments):
        wrapper = (sys.executable, ACTIVATE, *addresses, "--")
        processes.append(Process(arguments, tmp_path, {}, wrapper=wrapper))
        processes[-1].wait_started()
        return processes[-1]

    yield start
    for process in processes:
        process.clean_up()


def test_a_descriptor_to_listen_at(start_activated, short_path):
    path = f"{short_path}/socket"
    server = start_activated(["0", path], "--bind", "fd://3", "--bind", "fd://4", "apps:hello")
    for address in (server.address, path):
        with Client(address) as client:
            assert client.ask().text == "hello"
    server.stop()
    assert os.path.exists(path), "whoever made it may use it again"


def test_descriptors_beside_addresses(start_activated):
    server = start_activated(["0"], "--bind", "127.0.0.1:0", "--bind", "fd://3", "apps:hello")
    assert len(server.ports) == 2
    for port in server.ports:
        with Client(("127.0.0.1", port)) as client:
            assert client.ask().text == "hello"
    server.stop()


def test_a_descriptor_that_is_not_there(start):
    server = start("--bind", "fd://77", "apps:hello", started=False)
    assert server.wait() == 1
    assert server.stderr == (
        "fastwsgi: cannot listen at fd://77: nothing is open there; "
        "whoever starts the server opens it (systemd: ListenStream=, and Accept=no)\n"
    )


ANSWER = """
import json, os
from fastwsgi.listener import open_listeners
from fastwsgi.systemd import handed_over
given = handed_over(os.environ, os.getpid())
(listener,) = open_listeners(list(given), 16)
listener.socket.setblocking(True)
if os.fork() == 0:
    assert handed_over(os.environ, os.getpid()) == {}, "this is for the parent"
    os._exit(0)
assert os.wait()[1] == 0
connection, _ = listener.socket.accept()
connection.send(json.dumps([given, listener.url, os.get_inheritable(3)]).encode())
"""


def connect(path):
    try:
        return Client(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return None


def test_sockets_handed_over_to_this_process_alone(short_path):
    path = f"{short_path}/socket"
    command = [sys.executable, ACTIVATE, path, "--", sys.executable, "-c", ANSWER]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": PYTHONPATH}) as process:
        with wait_until(lambda: connect(path), "a socket that listens") as client:
            answer = json.loads(client.socket.recv(4096))
        assert answer == [{"fd://3": "socket-0"}, f"unix:{path}", False]
        assert process.wait(10) == 0
