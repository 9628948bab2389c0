"""What is sent: raw requests; one of them by hand, to check the answer, and very many by wrk."""

import http.client
import io
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from harness.process import ServerFailedError
from harness.watchdog import watchdog

SCRIPT = str(Path(__file__).with_name("load.lua"))
ANSWER_SECONDS = 5.0
PROXY_SECONDS = 10.0

BROWSER_FIELDS = (
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("Accept-Language", "en-US,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", "http://127.0.0.1/articles/2026/november?page=2"),
    ("Cookie", "sessionid=0123456789abcdef0123456789abcdef; csrftoken=ABCDEFGHIJKLMNOPQRSTUV; theme=dark"),
    ("Connection", "keep-alive"),
    ("Upgrade-Insecure-Requests", "1"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "same-origin"),
)


@dataclass(frozen=True)
class Request:
    """One request; Host comes by itself. pipeline: how many of it are sent at once. scheme: http or https."""

    method: str = "GET"
    target: str = "/"
    fields: tuple[tuple[str, str], ...] = ()
    content: bytes = b""
    pipeline: int = 1
    scheme: str = "http"

    def octets(self, port: int) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
        lines += [f"{name}: {value}" for name, value in self.fields]
        if self.content:
            lines.append(f"Content-Length: {len(self.content)}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + self.content


@dataclass(frozen=True)
class Counted:
    requests: int
    seconds: float
    p50_us: int
    p99_us: int
    failed: int
    # Of those that failed: wrk counts an answer that ends with its connection here, however complete.
    read_errors: int

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0


class _Answers(io.BufferedReader):
    """The receiving side of a connection, for several http.client responses one after the other."""

    def close(self) -> None:
        # A response closes what it read from; the next one is still in this buffer.
        pass

    def makefile(self, mode: str) -> "_Answers":
        return self


@dataclass(frozen=True)
class _Answer:
    status: int
    content: bytes
    ends_with_connection: bool


def _connect(port: int, request: Request) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)
    if request.scheme == "http":
        return connection
    # The certificate is one that nobody has signed.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


def _exchange(port: int, request: Request) -> list[_Answer]:
    with _connect(port, request) as connection:
        connection.sendall(request.octets(port) * request.pipeline)
        raw = connection.makefile("rb", buffering=0)
        answers = _Answers(raw)
        found = []
        for _ in range(request.pipeline):
            response = http.client.HTTPResponse(answers, method=request.method)  # type: ignore[arg-type]
            response.begin()
            ends_with_connection = response.length is None and not response.chunked
            found.append(_Answer(response.status, response.read(), ends_with_connection))
        raw.close()
        return found


def check_answer(port: int, request: Request, content: bytes) -> bool:
    """Raise ServerFailedError unless request is answered 200 with this content.

    True when the answer ended with its connection.
    """
    deadline = time.monotonic() + PROXY_SECONDS
    while True:
        try:
            answers = _exchange(port, request)
        except (OSError, http.client.HTTPException) as error:
            raise ServerFailedError(f"no right answer: {type(error).__name__}: {error}") from error
        # A proxy listens before the server behind it does.
        if answers[0].status != 502 or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    for answer in answers:
        if answer.status != 200:
            raise ServerFailedError(f"answers {answer.status}")
        if answer.content != content:
            raise ServerFailedError(f"wrong content: {len(answer.content)} octets, {answer.content[:40]!r}")
    return answers[-1].ends_with_connection


class Load:
    """wrk, sending request over a number of connections from the moment this is made until finish()."""

    def __init__(self, port: int, request: Request, connections: int, folder: Path) -> None:
        file = folder / f"request-{request.target.strip('/').replace('/', '-') or 'root'}"
        file.write_bytes(request.octets(port) * request.pipeline)
        options = f"--threads 1 --connections {connections} --duration 600 --timeout 5 --latency"
        self._wrk = subprocess.Popen(
            ["wrk", *options.split(), "--script", SCRIPT, f"{request.scheme}://127.0.0.1:{port}/"],
            env={**os.environ, "BENCH_REQUEST": str(file)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        watchdog().add(self._wrk.pid)

    def finish(self) -> Counted:
        # wrk itself only knows whole seconds; when interrupted it stops and reports as it would in the end.
        self._wrk.send_signal(signal.SIGINT)
        try:
            output, _ = self._wrk.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailedError("the load generator did not end") from None
        for line in output.splitlines():
            if line.startswith("counted "):
                counts = {name: int(value) for name, value in (item.split("=") for item in line.split()[1:])}
                kinds = ("connect", "read", "write", "status", "timeout")
                return Counted(
                    counts["requests"],
                    counts["microseconds"] / 1e6,
                    counts["p50"],
                    counts["p99"],
                    sum(counts[kind] for kind in kinds),
                    counts["read"],
                )
        raise ServerFailedError(f"the load generator reported nothing: {output.strip()[-200:]}")

    def kill(self) -> None:
        if self._wrk.poll() is None:
            self._wrk.kill()
            self._wrk.wait()
        watchdog().remove(self._wrk.pid)


def run_load(port: int, request: Request, connections: int, seconds: float, folder: Path) -> Counted:
    load = Load(port, request, connections, folder)
    try:
        time.sleep(seconds)
        return load.finish()
    finally:
        load.kill()


def count_handshakes(port: int, seconds: int, is_resumed: bool) -> int:
    """Connect as often as openssl s_time can, one connection after the other, with one request each."""
    options = ["-connect", f"127.0.0.1:{port}", "-www", "/", "-time", str(seconds)]
    client = subprocess.run(
        ["openssl", "s_time", *options, "-reuse" if is_resumed else "-new"],
        capture_output=True,
        text=True,
        timeout=seconds + 15,
        check=False,
    )
    found = re.search(r"(\d+) connections in \d+ real seconds", client.stdout)
    if client.returncode or not found:
        raise ServerFailedError(f"openssl s_time: {(client.stdout + client.stderr).strip()[-200:]}")
    # It prints a letter for each connection: r for one that was resumed.
    wrong, right = ("*", "r") if is_resumed else ("r", "*")
    letters = "".join(line for line in client.stdout.splitlines() if set(line) <= {"r", "*", "t"})
    if letters.count(wrong) > letters.count(right) // 100 + 1:
        raise ServerFailedError(f"{letters.count('r')} of {len(letters)} connections were resumed")
    return int(found[1])
