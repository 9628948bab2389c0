"""--log-syslog, to a daemon at each kind of address, which goes away and comes again, or does not read."""

import contextlib
import re
import socket
import threading
import time

import pytest

from support import request, wait_until

KINDS = ("dgram", "stream", "udp", "tcp")


class Daemon:
    """A syslog daemon, and what it has heard since it was started last."""

    def __init__(self, kind, directory):
        self._family = socket.AF_INET if kind in ("udp", "tcp") else socket.AF_UNIX
        self._kind = socket.SOCK_DGRAM if kind in ("dgram", "udp") else socket.SOCK_STREAM
        self._path = directory / "log"
        self._where = ("127.0.0.1", 0) if self._family == socket.AF_INET else str(self._path)
        self._sockets = []
        self.start()
        self._where = self._sockets[0].getsockname()
        self.address = f"unix://{self._path}"
        if self._family == socket.AF_INET:
            self.address = f"{kind}://127.0.0.1:{self._where[1]}"

    def start(self):
        self.heard = []
        listener = socket.socket(self._family, self._kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(self._where)
        self._sockets = [listener]
        target = self._hear_datagrams
        if self._kind == socket.SOCK_STREAM:
            listener.listen()
            target = self._accept
        threading.Thread(target=target, args=(listener, self.heard), daemon=True).start()

    def stop(self):
        """End, as for good: connections are closed, and nobody listens any more."""
        for one in self._sockets:
            # What has been waiting in recv() or accept() ends, too.
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._path.unlink(missing_ok=True)

    def lines(self, words):
        return [line for line in self.heard if words in line]

    def wait_heard(self, words, times=1):
        wait_until(lambda: len(self.lines(words)) >= times, lambda: f"{times} x {words!r}: {self.heard}")

    def _hear_datagrams(self, sock, heard):
        with contextlib.suppress(OSError):
            while said := sock.recv(65536):
                heard.append(said.decode())

    def _accept(self, listener, heard):
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                self._sockets.append(connection)
                threading.Thread(target=self._hear_lines, args=(connection, heard), daemon=True).start()

    def _hear_lines(self, connection, heard):
        rest = b""
        with contextlib.suppress(OSError):
            while said := connection.recv(65536):
                *lines, rest = (rest + said).split(b"\n")
                heard.extend(line.decode() for line in lines)


@pytest.fixture(params=KINDS)
def daemon(request, short_path):
    daemon = Daemon(request.param, short_path)
    yield daemon
    daemon.stop()


def test_both_logs_go_there(start, daemon):
    server = start(
        *("--log-syslog", "--log-syslog-to", daemon.address, "--log-syslog-facility", "local0"),
        *("--log-syslog-prefix", "shop", "apps:fail"),
    )
    for number in range(3):
        server.ask(f"/{number}")
    daemon.wait_heard(".access[", 3)
    server.stop()
    daemon.wait_heard("Stopped after")
    worker = re.search(r"shop\.access\[(\d+)\]", "".join(daemon.heard))[1]
    # The next client may be served before the line of an answer that was sent is written.
    lines = sorted(daemon.lines(".access"), key=lambda line: line[line.index("GET ") :])
    for number, line in enumerate(lines):
        assert re.fullmatch(rf'<134>shop\.access\[{worker}\]: 127.*"GET /{number} HTTP/1.1" 500 .*', line)
    failures = daemon.lines("the application failed")
    assert len(failures) == 3
    for failure in failures:
        assert failure.startswith(f"<131>shop[{worker}]: [ERROR] GET /")
        assert "#012  Traceback" in failure
        assert "\n" not in failure
    assert any(re.match(rf"<134>shop\[{server.pid}\]: \[INFO\] Listening", each) for each in daemon.heard)
    # And on the standard error as ever.
    assert server.stderr.count("the application failed") == 3


def test_no_access_lines_if_they_are_not_wanted(start, daemon):
    server = start(
        *("--log-syslog", "--log-syslog-to", daemon.address, "--disable-redirect-access-to-syslog"),
        "apps:hello",
    )
    server.ask()
    server.stop()
    daemon.wait_heard("Stopped after 1 request")
    assert not daemon.lines(".access")


def test_a_daemon_that_was_away_is_found_again(start, daemon):
    """By both logs of the worker, and by the supervisor; meanwhile nobody waits for it."""
    server = start("--log-syslog", "--log-syslog-to", daemon.address, "apps:fail")
    server.ask("/before")
    daemon.wait_heard("/before", 2)
    daemon.stop()
    for _ in range(50):
        begun = time.monotonic()
        assert server.ask("/meanwhile").status == 500
        assert time.monotonic() - begun < 5
    daemon.start()

    def is_heard_again():
        server.ask("/after")
        told = daemon.lines("GET /after")
        return any(".access[" in line for line in told) and any("failed" in line for line in told)

    wait_until(is_heard_again, lambda: f"{daemon.heard}; {server.stderr}")
    server.stop()
    daemon.wait_heard("Stopped after")
    # Said once and for all, not with each line.
    assert server.stderr.count("the access log cannot be written") <= 4, server.stderr


def test_a_daemon_that_does_not_read_stops_nobody(start):
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = start(
            *("--log-syslog", "--log-syslog-to", f"tcp://127.0.0.1:{listener.getsockname()[1]}"),
            *("--access-logformat", "x" * 9000, "apps:hello"),
        )
        # More than the kernel keeps for it, and what may wait here.
        with server.connect() as client:
            for _ in range(12):
                client.send(request("/") * 80)
                for _ in range(80):
                    assert client.read_response().text == "hello"
        server.wait_said("access log lines were lost: nobody reads it fast enough")
        assert server.ask().text == "hello"
        server.stop()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("unix:///nowhere/log", "No such file or directory"),
        ("tcp://127.0.0.1:1", "Connection refused"),
        ("here", "not unix:///path, "),
    ],
)
def test_no_daemon_there(start, address, reason):
    server = start("--log-syslog", "--log-syslog-to", address, "apps:hello", started=False)
    assert server.wait() == 1
    assert f"--log-syslog-to {address}: {reason}" in server.stderr
