"""How a server ends: what runs is finished, what is queued is answered, nothing is lost."""

import os
import signal
import socket
import time

import pytest

from subprocesses import skip_without_ipv6
from support import PATIENCE, request, wait_until

TERM_AND_INT = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])


@TERM_AND_INT
def test_an_idle_server_ends_at_once(start, number):
    server = start("apps:hello")
    assert server.ask().text == "hello"
    begun = time.monotonic()
    server.signal(number)
    assert server.wait() == 0
    assert time.monotonic() - begun < 2
    assert "Traceback" not in server.stderr


def refuses(server):
    try:
        socket.create_connection(server.address, 0.2).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False


@TERM_AND_INT
def test_what_runs_is_finished(start_crew, number):
    server = start_crew("apps:wait")
    client = server.connect()
    client.send(request("/file"))
    server.waits("file")
    server.signal(number)
    # A supervisor says that it stops a moment before its workers know.
    wait_until(lambda: refuses(server), "nobody listening")
    server.go_on("file")
    response = client.read_response()
    assert response.text == "file"
    assert response.closes
    client.expect_end()
    assert server.wait() == 0


def test_a_response_that_has_begun_is_finished(start_crew):
    server = start_crew("apps:stream")
    client = server.connect()
    client.send(request("/"))
    client.read_head()
    assert client.take_chunk() == b"first "
    server.terminate()
    server.wait_said("Stopping")
    server.go_on("second")
    assert client.take_chunks() == b"second"
    client.expect_end()
    assert server.wait() == 0


def test_what_the_kernel_has_queued_is_answered(start_crew):
    server = start_crew("apps:wait")
    assert server.ask().text == ""
    # Stopped, it accepts nothing: the kernel completes the connections and keeps the requests.
    server.signal(signal.SIGSTOP)
    clients = [server.connect() for _ in range(50)]
    for client in clients:
        client.send(request("/"))
    server.terminate()
    server.signal(signal.SIGCONT)
    for client in clients:
        assert client.read_response().status == 200
        client.expect_end()
    assert server.wait() == 0


def test_requests_that_wait_for_a_thread_are_answered(start_polled):
    server = start_polled("--threads", "1", "apps:wait")
    clients = [server.connect() for _ in range(5)]
    for client in clients:
        client.send(request("/file"))
    server.waits("file")
    server.terminate()
    server.wait_said("Stopping")
    server.go_on("file")
    for client in clients:
        assert client.read_response().text == "file"
        client.expect_end()
    assert server.wait() == 0


def test_a_kept_connection_is_told_with_its_next_answer(start_polled):
    # A supervisor says that it stops a moment before its workers know.
    server = start_polled("--workers", "0", "apps:wait")
    holding, kept = server.connect(), server.connect()
    assert kept.ask().text == ""
    holding.send(request("/file"))
    server.waits("file")
    server.terminate()
    server.wait_said("Stopping")
    response = kept.ask()
    assert response.status == 200
    assert response.closes
    kept.expect_end()
    server.go_on("file")
    assert holding.read_response().text == "file"
    assert server.wait() == 0


def test_new_connections_are_not_accepted_while_it_stops(start_crew):
    server = start_crew("apps:wait")
    client = server.connect()
    client.send(request("/file"))
    server.waits("file")
    server.terminate()
    server.wait_said("Stopping")

    def refused():
        try:
            with server.connect():
                return False
        except ConnectionRefusedError:
            return True

    wait_until(refused, "connections being refused")
    server.go_on("file")
    assert client.read_response().text == "file"
    assert server.wait() == 0


def test_an_upload_that_has_begun_is_finished(start_crew):
    server = start_crew("apps:hello")
    client = server.connect()
    data = request("/", "POST", content=b"x" * 1000)
    client.send(data[:-500])
    assert server.ask().text == "hello"
    server.terminate()
    server.wait_said("Stopping")
    client.send(data[-500:])
    assert client.read_response().text == "hello"
    client.expect_end()
    assert server.wait() == 0


def test_a_slow_reader_gets_everything(start_crew):
    server = start_crew("apps:big")
    client = server.connect(receive_buffer=4096)
    client.send(request("/"))
    client.read_head()
    server.terminate()
    server.wait_said("Stopping")
    assert len(client.take(20_000_000)) == 20_000_000
    client.expect_end()
    assert server.wait() == 0


def test_a_stuck_exchange_is_cut_off_with_503(start_crew):
    server = start_crew("--graceful-timeout", "0.5", "apps:stuck")
    client = server.connect()
    client.send(request("/stuck"))
    server.waits("stuck")
    begun = time.monotonic()
    server.terminate()
    response = client.read_response()
    assert response.status == 503
    assert time.monotonic() - begun >= 0.4
    client.expect_gone()
    assert server.wait() in (0, 1)
    assert time.monotonic() - begun < 5


def test_atexit_runs_even_with_a_stuck_exchange(start):
    server = start("--graceful-timeout", "0.2", "apps:stuck", TEST_ATEXIT="1")
    client = server.connect()
    client.send(request("/stuck"))
    server.waits("stuck")
    server.terminate()
    server.wait()
    assert (server.directory / "atexit").exists()


def test_atexit_runs(start):
    server = start("apps:hello", TEST_ATEXIT="1")
    assert server.ask().text == "hello"
    server.stop()
    assert (server.directory / "atexit").exists()


def test_a_second_interrupt_ends_it_at_once(start_crew):
    server = start_crew("apps:stuck")
    client = server.connect()
    client.send(request("/stuck"))
    server.waits("stuck")
    server.signal(signal.SIGINT)
    server.wait_said("Stopping")
    assert server.is_running()
    begun = time.monotonic()
    server.signal(signal.SIGINT)
    server.wait()
    assert time.monotonic() - begun < 2


def test_quit_ends_it_at_once(start_crew):
    server = start_crew("--graceful-timeout", "1h", "apps:stuck")
    client = server.connect()
    client.send(request("/stuck"))
    server.waits("stuck")
    server.signal(signal.SIGQUIT)
    assert client.read_response().status == 503
    client.expect_gone()
    assert server.wait() == 0
    assert "Stopping (QUIT): now" in server.stderr


def test_a_hang_up_is_ignored_without_supervisor_and_terminal(start):
    server = start("--workers", "0", "apps:hello")
    for name in ("HUP", "USR2"):
        server.signal(getattr(signal, f"SIG{name}"))
        server.wait_said(f"{name} ignored: without a supervisor nothing is reloaded; stop and start")
        assert server.ask().text == "hello"
    server.stop()
    assert server.stderr.count("HUP") == 1


def test_a_second_terminate_changes_nothing(start):
    server = start("apps:wait")
    client = server.connect()
    client.send(request("/file"))
    server.waits("file")
    server.terminate()
    server.wait_said("Stopping")
    server.terminate()
    server.go_on("file")
    assert client.read_response().text == "file"
    assert server.wait() == 0


def test_interrupted_by_the_terminal(start):
    """Ctrl-C goes to the whole process group: children of the application too."""
    server = start("apps:hello")
    assert server.ask().text == "hello"
    os.killpg(server.pid, signal.SIGINT)
    assert server.wait() == 0
    assert "KeyboardInterrupt" not in server.stderr


def test_stopped_right_after_the_start(start):
    for _ in range(5):
        server = start("apps:hello")
        server.terminate()
        assert server.wait() == 0


def test_a_module_that_takes_long_to_import_can_be_interrupted(start):
    server = start("--bind", "127.0.0.1:0", "slow_import:app", started=False)
    wait_until((server.directory / "importing").exists, "the import")
    server.terminate()
    assert server.wait() == 0


def test_a_unix_socket_is_removed(start, short_path):
    server = start("--bind", f"unix:{short_path}/socket", "apps:hello")
    with server.connect(f"{short_path}/socket") as client:
        assert client.ask().text == "hello"
    server.stop()
    assert not (short_path / "socket").exists()


def test_killed_and_started_again(start, short_path):
    path = f"{short_path}/socket"
    first = start("--bind", f"unix:{path}", "apps:hello")
    first.signal(signal.SIGKILL)
    first.wait()
    assert os.path.exists(path)
    second = start("--bind", f"unix:{path}", "apps:hello")
    with second.connect(path) as client:
        assert client.ask().text == "hello"
    second.stop()


@pytest.mark.parametrize("where", ["IPv4", "IPv6", "unix"])
def test_no_request_is_lost_under_load(start_crew, short_path, where):
    """Whoever asks one request per connection is answered, or refused before anything was sent."""
    if where == "IPv6":
        skip_without_ipv6()
    path = f"{short_path}/socket"
    bind = {"IPv4": "127.0.0.1:0", "IPv6": "[::1]:0", "unix": f"unix:{path}"}[where]
    server = start_crew("--bind", bind, "apps:hello")
    address = path if where == "unix" else (bind.rpartition(":")[0].strip("[]"), server.ports[0])
    answered = 0
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            client = server.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            break
        with client:
            client.send(request("/"))
            if answered == 100:
                server.terminate()
            assert client.read_response().text == "hello"
            answered += 1
    assert answered > 100
    assert server.wait() == 0
