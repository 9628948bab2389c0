"""A machine that has no disk or no descriptors left: who needs none is served."""

import os
import resource
import shutil
import sys
import time

import pytest

from support import request

SIZE = 20_000_000  # of the answer of apps:big_or_small to /big


@pytest.fixture
def start_without_disk(start_polled, tmp_path):
    """start_polled, with a directory for temporary files that is gone by the time one is wanted."""
    directory = tmp_path / "temporary"

    def start(*arguments):
        directory.mkdir()
        server = start_polled(*arguments, TMPDIR=str(directory))
        shutil.rmtree(directory)
        return server

    return start


@pytest.mark.parametrize("threads", ["1", "4"])
def test_an_upload_that_cannot_be_stored_is_refused_and_no_other(start_without_disk, threads):
    server = start_without_disk("--threads", threads, "--request-buffer", "128k", "apps:hello")
    waiting = server.connect()
    assert waiting.ask().text == "hello"
    for _ in range(3):
        client = server.connect()
        client.send(request("/", "POST", content=b"x" * 1_000_000))
        response = client.read_response()
        assert response.status == 500
        assert response.closes
        client.expect_gone()
        assert server.ask("/", "POST", content=b"x" * 1000).text == "hello"
        assert waiting.ask().text == "hello"
    server.stop()
    assert "Traceback" not in server.stderr


def test_an_answer_that_cannot_be_stored_waits_for_its_reader(start_without_disk):
    server = start_without_disk("--response-buffer", "64k", "apps:big_or_small")
    slow = server.connect(receive_buffer=4096)
    slow.send(request("/big"))
    slow.read_head()
    for _ in range(20):
        assert server.ask().text == "hello"
    assert len(slow.take(SIZE)) == SIZE
    assert slow.ask().text == "hello"
    server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="limits another process")
def test_more_clients_than_descriptors(start_polled):
    server = start_polled("--loops", "1", "apps:hello")
    served = [server.connect()]
    assert served[0].ask().text == "hello"
    limit = len(os.listdir(f"/proc/{server.worker}/fd")) + 9
    begun = time.monotonic()
    resource.prlimit(server.worker, resource.RLIMIT_NOFILE, (limit, limit))
    served += [server.connect() for _ in range(9)]
    for client in served:
        assert client.ask().text == "hello"
    waiting = [server.connect() for _ in range(10)]
    for client in waiting:
        client.send(request("/"))
    server.wait_said("no more connections can be accepted")
    for client in served:
        assert client.ask().text == "hello"
    assert not any(client.readable() for client in waiting)
    for client in served:
        client.close()
    for client in waiting:
        assert client.read_response().text == "hello"
    # It looks again every half second, and says so every ten.
    lines = server.stderr.count("no more connections can be accepted")
    assert 1 <= lines <= 1 + (time.monotonic() - begun) / 10
    server.stop()


def test_queued_clients_are_answered_when_descriptors_have_run_out_at_the_end(start_polled):
    server = start_polled("apps:patient")
    limit = len(os.listdir(f"/proc/{server.worker}/fd")) + 4
    resource.prlimit(server.worker, resource.RLIMIT_NOFILE, (limit, limit))
    clients = [server.connect() for _ in range(12)]
    for client in clients:
        client.send(request("/"))
    server.wait_said("no more connections can be accepted")
    server.terminate()
    server.wait_said("Stopping")
    (server.directory / "go").touch()
    for client in clients:
        assert client.read_response().text == "hello"
    assert server.wait() == 0
